"""Read YAML 1.2 as plain data, with the line of each key.

Recipes come from elsewhere, by mail or in a repository. So the text is data and nothing else: tags, which could name objects of
Python, and aliases, with which a few lines become gigabytes, are refused before anything is made of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from lazyccd.errors import MissingFileError

Place: TypeAlias = tuple[str | int, ...]
"""Keys and positions that lead to a value, from the top of the document."""

MOST_BYTES = 24 * 1024
"""A recipe has 2 kB; the parser takes half a second for as many brackets."""

DEEPEST = 12
"""Levels of a document. Time grows as the square of open brackets: 50 000 of them took minutes."""


HINTS = {
    "'\\t'": "; indent with blanks, not with tabs",
    "mapping values are not allowed": "; does the line above lack its ':', or a value its quotes?",
    "expected ',' or": "; does a bracket or brace lack its end?",
}
"""What to look at when the parser's words are said."""


@dataclass(frozen=True, order=True)
class Fault:
    """Something in a recipe that cannot be as it is."""

    line: int
    """In the file, from 1; 0 where there is none."""

    place: str
    """Such as ``steps[3].median_filter.size``; empty for the whole."""

    text: str

    def __str__(self) -> str:
        """Return it as a line of a message."""
        where = [f"line {self.line}"] if self.line else []
        where += [self.place] if self.place else []
        return f"{', '.join(where)}: {self.text}" if where else self.text


@dataclass
class Document:
    """What a file says."""

    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    """Line of each key, and of each item of a list."""

    faults: list[Fault] = field(default_factory=list)

    def fault(self, place: Place, text: str) -> None:
        """Add a fault, at the line of its key or of the nearest that is there."""
        near = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self.lines), ())
        self.faults.append(Fault(self.lines.get(near, 0), shown(place), text))


def shown(place: Place) -> str:
    """Return a place as text.

    Examples
    --------
    >>> shown(("steps", 3, "median_filter", "size"))
    'steps[3].median_filter.size'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


class _UnreadableError(Exception):
    """The document cannot be read any further."""


def read_file(path: str | os.PathLike[str]) -> Document:
    """Read a file, which may be anything."""
    try:
        # A device or a pipe would never end.
        if Path(path).exists() and not Path(path).is_file():
            return Document(faults=[Fault(0, "", "is not a file; name a file of YAML")])
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise MissingFileError(
            f"recipe {os.fspath(path)!r} does not exist; 'lazyccd recipe NIGHT' prints one."
        ) from None
    if len(content) > MOST_BYTES:
        return Document(faults=[Fault(0, "", f"has more than {MOST_BYTES} bytes; a recipe has about 2000")])
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Document(faults=[Fault(line, "", f"byte {content[error.start]:#04x} is not UTF-8; save it as UTF-8")])


def parse(text: str) -> Document:
    r"""Read text.

    Examples
    --------
    >>> document = parse("steps:\n- trim_image\n- median_filter: {size: 3}\n")
    >>> document.data["steps"][1], document.lines["steps", 1, "median_filter", "size"]
    ({'median_filter': {'size': 3}}, 3)
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    document = Document()
    yaml = YAML(typ="safe", pure=True)
    try:
        reader = _Reader(yaml, document, iter(yaml.parse(text)))
        document.data = reader.read()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        hint = next((hint for part, hint in HINTS.items() if part in words), "")
        document.faults.append(Fault(mark.line + 1 if mark else 0, "", f"is not YAML: {words}{hint}"))
    except YAMLError as error:
        document.faults.append(Fault(0, "", f"is not YAML: {str(error).splitlines()[0]}"))
    except _UnreadableError as error:
        document.faults.append(Fault(error.args[0], "", error.args[1]))
    return document


class _Reader:
    """Makes plain data of the events of a parser."""

    def __init__(self, yaml: Any, document: Document, events: Iterator[Any]) -> None:
        self._yaml, self._document, self._events = yaml, document, events

    def read(self) -> Any:
        """Return the data of the only document."""
        from ruamel.yaml.events import DocumentStartEvent, StreamEndEvent

        data, count = None, 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                count += 1
                if count > 1:
                    raise _UnreadableError(
                        event.start_mark.line + 1, "a second document begins with '---'; one is a recipe"
                    )
                data = self._value(next(self._events), ())
            elif isinstance(event, StreamEndEvent):
                break
        return data

    def _value(self, event: Any, place: Place) -> Any:
        """Return the value that begins with an event."""
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, SequenceStartEvent

        line = event.start_mark.line + 1
        self._document.lines.setdefault(place, line)
        if len(place) > DEEPEST:
            raise _UnreadableError(line, f"is nested more than {DEEPEST} levels deep, which no recipe is")
        if isinstance(event, AliasEvent):
            self._document.fault(place, f"the alias *{event.anchor} is not understood; write out what it stands for")
            return None
        if event.anchor is not None:
            self._document.fault(place, f"the anchor &{event.anchor} is not understood; remove it")
        if event.tag is not None:
            self._document.fault(place, f"the tag {event.tag} is not allowed: a recipe is plain data; remove it")
        if isinstance(event, MappingStartEvent):
            return self._mapping(place)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(place)
        return self._scalar(event)

    def _mapping(self, place: Place) -> dict[str, Any]:
        """Return a mapping; what stands twice is a fault."""
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        found: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            line = event.start_mark.line + 1
            if not isinstance(event, ScalarEvent):
                raise _UnreadableError(line, "a key must be text; write KEY: VALUE")
            key = str(event.value)
            where = (*place, key)
            if key in found:
                before = self._document.lines[where]
                self._document.faults.append(Fault(line, shown(where), f"stands twice, first in line {before}"))
                self._value(next(self._events), (*place, f"{key} again"))
                continue
            self._document.lines[where] = line
            found[key] = self._value(next(self._events), where)
        return found

    def _sequence(self, place: Place) -> list[Any]:
        """Return a list."""
        from ruamel.yaml.events import SequenceEndEvent

        found: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            found.append(self._value(event, (*place, len(found))))
        return found

    def _scalar(self, event: Any) -> Any:
        """Return a scalar by the core schema of YAML 1.2; what looks like a date stays text."""
        from ruamel.yaml.nodes import ScalarNode

        tag = self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
        if str(tag).rpartition(":")[2] not in {"int", "float", "bool", "null"}:
            return str(event.value)
        return self._yaml.constructor.construct_object(ScalarNode(tag, event.value))
