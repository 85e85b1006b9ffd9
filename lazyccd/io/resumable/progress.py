"""Record the progress of a write, so that any process can resume it after an interruption.

While a write lasts, its journal is beside the target, in ``.lazyccd-progress/<name>/``:

- ``lease-N``: which process runs it (`lazyccd.io.resumable.lease`);
- ``run-<fingerprint>.json``: what it writes: inputs, steps, settings, versions;
- ``receipts-<process>.jsonl``: a line for each finished unit, appended by the process that wrote it;
- ``laid-out``: an unfinished target was begun, so that what is there is ours;
- ``complete``: all units are finished; only the final name may be missing.

A write whose fingerprint differs from that of the interrupted one is refused; with ``overwrite=True`` it starts over.
A night is recorded the same way, with its products as units.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias

from lazyccd.errors import MissingFileError, ResumeError, SourceChangedError
from lazyccd.frame.header import header_view
from lazyccd.io.names import as_seen, is_url
from lazyccd.io.resumable.disk import explained
from lazyccd.io.resumable.journal import Journal, journal_of
from lazyccd.io.resumable.lease import LEASE, claim, leases, take_lease, wait_for_work, working

Receipts: TypeAlias = dict[str, Any]
"""By unit: the name of what is done at once, a region of a frame, or a product of a night."""

COMPLETE = "complete"
LAID_OUT = "laid-out"
RECEIPTS = "receipts-"
HASH = re.compile(r"\w* ?[0-9a-f]{32,64}")
"""What stands for something of which no more is kept."""

FOLLOWING = (" product_header", " mosaic_corrections")
"""What is made from headers and settings, and differs with them."""

LEAST = 3
"""Rank of differences that are told only if there are no others."""

PACKAGES = ("lazyccd", "numpy", "numba", "numcodecs", "isal", "astropy")
"""Packages whose versions decide the bits of a product."""


def versions() -> dict[str, str]:
    """Return the versions that decide the bits of a product."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def canonical(document: object) -> bytes:
    """Return a document as JSON, the same bytes for equal content.

    Examples
    --------
    >>> canonical({"b": 1, "a": [None]})
    b'{"a":[null],"b":1}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Progress:
    """The progress of one write; picklable, and every method may run in any process."""

    target: str
    """Final path or URL."""

    fingerprint: str
    """SHA-256 of the record; equal for writes of equal content."""

    run: str
    """Unique name of this run."""

    record: bytes = field(default=b"", repr=False)
    """Inputs, steps, layout and versions of the write, as canonical JSON."""

    title: str = ""
    """What messages call the target."""

    break_lock: bool = False
    """Whether to take the lease of another process, even if that may live."""

    lazy: bool = False
    """Whether this is a lazy write, of which nobody knows whether it will be computed to its end."""

    @classmethod
    def of(
        cls, target: str, record: Mapping[str, Any], *, title: str = "", break_lock: bool = False, lazy: bool = False
    ) -> Progress:
        """Return the progress of a write of a new run."""
        content, run = canonical(record), uuid.uuid4().hex
        return cls(target, hashlib.sha256(content).hexdigest(), run, content, title or target, break_lock, lazy)

    @property
    def writer(self) -> Progress:
        """The same without the record, which only `begin` needs."""
        return replace(self, record=b"")

    @property
    def _record_name(self) -> str:
        return f"run-{self.fingerprint[:32]}.json"

    def is_held(self) -> bool:
        """Return whether this run has the lease."""
        return any(self.run in text for text in leases(_journal(self.target, self.run)).values())

    def is_begun(self) -> bool:
        """Return whether this run has the lease and recorded what it writes: a process may die between the two."""
        return self._record_name in self.entries() and self.is_held()

    def has_begun(self) -> bool:
        """Return whether a run, this or another, began to make the unfinished target: otherwise that is not ours."""
        return any(name == LAID_OUT or name.startswith("run-") for name in self.entries())

    def entries(self) -> dict[str, int]:
        """Return the bytes of all entries of the journal by name."""
        return _journal(self.target, self.run).sizes()

    def is_over(self, entries: Mapping[str, int]) -> bool:
        """Return whether the journal says that all units are finished, or is no longer that of this write."""
        return COMPLETE in entries or self._record_name not in entries

    def check(self, entries: Mapping[str, int]) -> None:
        """Raise `SourceChangedError` if another run has started over."""
        if self._record_name in entries:
            return
        folder = os.path.dirname(self.target)
        if not (is_url(self.target) or os.path.isdir(folder)):
            raise MissingFileError(
                f"the folder {folder}, where {self.title} is written, does not exist{as_seen()}; give one that all workers see."
            )
        raise SourceChangedError(
            f"{_journal(self.target, self.run).where} has no {self._record_name}{as_seen()}: the write was given up, or another one "
            "began; call again."
        )

    def begin(
        self,
        lay_out: Callable[[], object],
        is_begun: Callable[[], bool],
        undo: Callable[[], object],
        *,
        overwrite: bool,
    ) -> bool:
        """Take the lease, then resume an interrupted write or start over.

        Parameters
        ----------
        lay_out
            Makes the unfinished target; one that is there goes.
        is_begun
            Whether there is an unfinished target.
        undo
            Removes it after a failure: nobody could tell it from what others made.
        overwrite
            Whether to start over if the interrupted write was of something else.

        Returns
        -------
        bool
            Whether an interrupted write is resumed.

        Raises
        ------
        TargetBusyError
            Raised if another run has the lease.
        ResumeError
            Raised if the interrupted write was another, and ``overwrite`` is false; the message says what changed.
        """
        journal = _journal(self.target, self.run)
        with explained(journal.where):
            alike = self._record_name in journal.sizes()
            lease = take_lease(journal, self.run, self.title, break_lock=self.break_lock, lazy=self.lazy, alike=alike)
        try:
            runs = [name for name in journal.sizes() if name.startswith("run-")]
            # A process may die between lay_out and its record, or the unfinished file may have been removed by hand.
            if runs == [self._record_name] and is_begun():
                return True
            if runs and is_begun() and not overwrite:
                self._refuse(journal.read(runs[0]))
        except BaseException:
            journal.remove([lease])
            raise
        try:
            with explained(journal.where):
                # Receipts of another write would vouch for regions that are gone.
                journal.create(LAID_OUT, b"")
                journal.remove(name for name in journal.sizes() if not (name.startswith(LEASE) or name == LAID_OUT))
            # The record comes after the layout: whoever finds it may rely on the unfinished target.
            lay_out()
            with explained(journal.where):
                journal.create(self._record_name, self.record)
        except BaseException:
            with contextlib.suppress(OSError):
                undo()
            journal.end([lease])
            raise
        return False

    def _refuse(self, before: bytes) -> NoReturn:
        """Say what changed since an interrupted write began."""
        raise ResumeError(
            f"{self.title} was begun and not finished, and now {_difference(before, self.record)}; "
            "pass overwrite=True to start over, or repeat the previous call to resume it."
        )

    def is_complete(self) -> bool:
        """Return whether all units of this write are finished; the target may still lack its name."""
        return self.entries().keys() >= {COMPLETE, self._record_name}

    def tidy(self) -> None:
        """Remove what is left of a write that was complete and whose process died while it removed its journal.

        Raises
        ------
        TargetBusyError
            Raised if that process lives.
        """
        journal = _journal(self.target, self.run)
        if self.has_begun():
            return
        # A process that died at the very end has left an empty folder. Anything in it may be of one that begins just now, so it
        # goes only with the lease.
        if not journal.drop_empty():
            take_lease(journal, self.run, self.title, break_lock=self.break_lock)
            self.end()

    def receipts(self) -> Receipts:
        """Return the receipts of all finished units."""
        return dict(_tail(self.target, self.run).update(self.entries()))

    def receipt(self, unit: str, entries: Mapping[str, int]) -> Any | None:
        """Return the receipt of a unit; None if it is not finished.

        Raises
        ------
        SourceChangedError
            Raised if another run has started over.
        """
        self.check(entries)
        return _tail(self.target, self.run).update(entries).get(unit)

    def add(self, unit: str, receipt: object) -> None:
        """Record that a unit is finished."""
        line = _line(unit, receipt)
        with explained(_journal(self.target, self.run).where):
            _tail(self.target, self.run).append(line.encode())

    def keep(self, receipts: Receipts) -> None:
        """Keep only these receipts."""
        journal = _journal(self.target, self.run)
        old = [name for name in journal.sizes() if RECEIPTS in name]
        lines = [_line(unit, receipt) for unit, receipt in receipts.items()]
        # First the new file, then the old ones go: a process that dies in between loses no receipt.
        with explained(journal.where):
            journal.create(f"{RECEIPTS}{uuid.uuid4().hex}.jsonl", "".join(lines).encode())
            journal.remove(old)
        _tail.cache_clear()

    def mark_complete(self) -> bool:
        """Record that all units are finished, by this run; return False while another run gives the target its name."""
        journal = _journal(self.target, self.run)
        with explained(journal.where):
            return claim(journal, COMPLETE, self.run)

    def working(self) -> AbstractContextManager[None]:
        """Return what is entered while a task works for this run: it keeps other runs out, in whatever process it is."""
        return working(_journal(self.target, self.run), self.run)

    def release(self) -> None:
        """Give the lease back and keep the receipts, once no task of this process works any more."""
        journal = _journal(self.target, self.run)
        wait_for_work(journal, self.run)
        journal.remove(name for name, text in leases(journal).items() if self.run in text)

    def end(self) -> None:
        """Remove the journal: the lease last, and before it the entry that says that all units are finished."""
        journal = _journal(self.target, self.run)
        held = sorted(leases(journal))
        journal.end([self._record_name, COMPLETE, *held] if held else [])


def tidy_complete(target: str, *, break_lock: bool = False) -> None:
    """Remove the journal of a target that is complete, whatever wrote it; one whose write is not complete stays.

    Raises
    ------
    TargetBusyError
        Raised if the process that writes it lives.
    """
    progress = Progress.of(target, {}, break_lock=break_lock)
    entries = progress.entries()
    if COMPLETE in entries or not any(name.startswith("run-") for name in entries):
        take_lease(_journal(target, progress.run), progress.run, target, break_lock=break_lock)
        progress.end()


class _Tail:
    """The receipts of all processes that were read so far, and the file of this process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # A file for each process, so that appending needs no lock; host and pid alone may repeat.
        self._mine = f"{RECEIPTS}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._read: dict[str, int] = {}
        self._receipts: Receipts = {}
        self._lock = threading.Lock()

    def update(self, entries: Mapping[str, int]) -> Receipts:
        """Read what was added since the last time; ``entries`` has the bytes of all entries by name."""
        with self._lock:
            for name, size in entries.items():
                before = self._read.get(name, 0)
                if RECEIPTS in name and size > before:
                    content = self._journal.read(name, before)
                    # The last line may still be on its way.
                    whole = content[: content.rfind(b"\n") + 1]
                    self._read[name] = before + len(whole)
                    self._receipts.update(_parse(whole))
            return self._receipts

    def append(self, line: bytes) -> None:
        """Add a receipt."""
        with self._lock:
            self._journal.append(self._mine, line)


def _line(unit: str, receipt: object) -> str:
    """Return a receipt as a line."""
    return json.dumps([unit, receipt], separators=(",", ":")) + "\n"


def _parse(lines: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the receipts of whole lines; skip a line that a killed process or a full disk cut off."""
    for line in lines.splitlines():
        try:
            unit, receipt = json.loads(line)
            yield str(unit), receipt
        except (ValueError, TypeError):
            continue


@lru_cache(maxsize=64)
def _journal(target: str, run: str) -> Journal:
    """Return the journal of a run; one object in a process."""
    return journal_of(target)


# By target and run: tasks are pickled without it, and a worker reads of the receipts only what is new.
@lru_cache(maxsize=64)
def _tail(target: str, run: str) -> _Tail:
    """Return the receipts of a run that this process has read."""
    return _Tail(_journal(target, run))


class _Difference(NamedTuple):
    """What differs between two records in one place."""

    where: str
    old: Any
    new: Any

    @property
    def rank(self) -> int:
        """How little it tells a user: settings first, what follows from them later, hashes last."""
        values = (self.old, self.new)
        hashed = any(isinstance(value, str) and HASH.fullmatch(value) for value in values)
        if hashed or any(word in self.where for word in FOLLOWING):
            return LEAST
        if self.where.startswith("steps"):
            # what is true or false is often chosen by another setting
            plain = all(isinstance(v, str | int | float | None) and not isinstance(v, bool) for v in values)
            return 0 if plain and " parameters " in self.where else 2
        return 1

    def __str__(self) -> str:
        """Return it as it stands in a message."""
        where = self.where.removeprefix("layout ").replace("0 attributes header", "the header")
        if where.startswith("the operation "):
            return f"{where} is {'new' if self.old is None else 'gone'}"
        steps = re.fullmatch(r"steps (\w+)", where)
        if steps and None in (self.old, self.new):
            return f"there {'was' if self.new is None else 'is'} a step {steps[1]}, and there {'is' if self.new is None else 'was'} none"
        where = re.sub(r"^steps (\w+) (?:parameters )?", r"step \1: ", where)
        return f"{where} is {_short(self.new)} and was {_short(self.old)}"


def _difference(before: bytes, after: bytes) -> str:
    """Say what differs between two records."""
    try:
        old = json.loads(before)
    except ValueError:
        return "its record cannot be read"
    new = json.loads(after)
    called = _operation_differences(old.get("layout"), new.get("layout"))
    # What a user called says all that its steps would say.
    found = called or [
        *_differences(_by_name(old.get("steps")), _by_name(new.get("steps")), "steps"),
        *(d for key in ("versions", "layout") for d in _differences(old.get(key), new.get(key), key)),
    ]
    # an array that a user gave has nothing but its name
    found = found or list(_differences(old.get("steps"), new.get("steps"), "steps"))
    files = list(_input_differences(old.get("inputs", {}), new.get("inputs", {})))
    told = [one for one in found if one.rank < LEAST] or ([] if files else found)
    # what a user knows first, and the same setting of many frames once
    words = list(dict.fromkeys([*files, *(str(one) for one in sorted(told, key=lambda one: one.rank))]))
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return "; ".join(words[:3]) + more


def _operation_differences(old: object, new: object) -> list[_Difference]:
    """Return which operations that headers log have other arguments, by the names of both, or are there in one only."""
    before, after = _operations(old), _operations(new)
    found = []
    for name in dict.fromkeys([*before, *after]):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            found.append(_Difference(f"the operation {name}", one and "done", other and "done"))
            continue
        found += [
            _Difference(f"{name}: {key}", one.get(key), other.get(key))
            for key in dict.fromkeys([*one, *other])
            if one.get(key) != other.get(key)
        ]
    return found


def _operations(layout: object) -> dict[str, dict[str, str]]:
    """Return the arguments of each operation that the headers of a product log."""
    found: dict[str, dict[str, str]] = {}
    for text in _headers(layout):
        header = header_view(text)
        for key, short in header.items():
            if key.islower() or "_" not in key or not isinstance(header.get(str(short).upper()), str):
                continue
            arguments = re.findall(r"(\w+)=(.*?)(?=, \w+=|$)", header[str(short).upper()])
            # Frames have nothing but a name there; which files they are is compared elsewhere.
            given = {name: value for name, value in arguments if not value.startswith("<")}
            found.setdefault(key.lower(), {}).update(given)
    return found


def _headers(layout: object) -> Iterator[str]:
    """Yield the headers in the description of a product."""
    if isinstance(layout, dict):
        for key, value in layout.items():
            if key == "header" and isinstance(value, (str, list)):
                yield value if isinstance(value, str) else "\n".join(value)
            else:
                yield from _headers(value)
    elif isinstance(layout, list):
        for each in layout:
            yield from _headers(each)


def _input_differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield which files are not what they were; sizes and times would tell a user nothing."""
    for name in dict.fromkeys([*old, *new]):
        if name not in old:
            yield f"{name} is read too"
        elif name not in new:
            yield f"{name} is read no longer"
        elif old[name] != new[name]:
            yield f"the file {name} has changed"


def _by_name(steps: object) -> object:
    """Return the steps of a record by their names, without their places: a step more moves those of all others."""
    if not isinstance(steps, dict):  # of a night
        return steps
    found: dict[str, list[dict[str, Any]]] = {}
    for step in (step for of_frame in steps.values() for step in of_frame):
        settings = {key: value for key, value in step.items() if key not in {"step", "inputs", "array"}}
        found.setdefault(step["step"], []).append(settings)
    return found


def _differences(old: object, new: object, where: str) -> Iterator[_Difference]:
    """Yield the differences between two documents, from the top down; what is in a list has no number there."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{where} {key}".strip())
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for pair in zip(old, new, strict=True):
            yield from _differences(*pair, where)
    elif isinstance(old, str) and isinstance(new, str) and "\n" in old + new:  # a header
        yield from _differences(old.split("\n"), new.split("\n"), where)
    elif isinstance(old, list) and isinstance(new, list) and all(isinstance(line, str) for line in (*old, *new)):
        before, after = (" ".join(line for line in one if line not in other) for one, other in ((old, new), (new, old)))
        yield _Difference(where, before or None, after or None)
    else:
        yield _Difference(where, old, new)


def _short(value: object) -> str:
    """Return a value as it stands in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"{len(value)} of them"
    text = repr(" ".join(value.split())) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
