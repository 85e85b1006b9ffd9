"""Read camera tables: which keyword holds which fact, what no header says, and how types are spelled.

Tables of some cameras are built in; `load_camera` reads a user's. `cameras_of` says which tables are asked about a frame, and
`lazyccd.batch.metadata` asks them. A table is a TOML file with

- ``[match]`` (or several ``[[match]]``): keyword = pattern; all of one table must fit. Without it, it fits every frame.
- ``[keys]``: fact = keyword, or a list of them, of which the first usable one wins; ``"A + B"`` joins two keywords that are
  both there, ``"A & B"`` those of several that are there. ``"EXPTIME [ms]"`` says that a keyword is in milliseconds.
- ``[fix]``: fact = value, against whatever the header says.
- ``[types]``: spelling = type; the first pattern that fits decides.
- ``[needs]``: ``dark = false`` where a product without dark subtraction is complete.
- ``[amplifiers]``: name = section of the image, or its cards ``{DATASEC = "...", BIASSEC = "...", GAIN = 1.5}``, of each amplifier that an
  image holds; as in `lazyccd.split_amplifiers`.

Names in ``[fix]``, ``[types]`` and ``[amplifiers]`` may carry conditions: ``"DARK@EXPTIME=0"``, ``"trim@NAXIS1=1030,NAXIS2=1030"``.
``FILE`` stands for the file's name below the night's folder: ``"*@FILE=flats/*" = "flat"``.
Patterns are shell patterns without regard to case; numbers are compared as numbers; ``KEY=`` means that it is absent.
Keywords are read without regard to case; ``HIERARCH`` in front of one may be left out.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from lazyccd.batch.collect import RawFrame
from lazyccd.errors import FormatError, MissingFileError, ParameterError
from lazyccd.frame.header_values import as_text
from lazyccd.ops.mosaic.split import KINDS as CARDS
from lazyccd.ops.mosaic.split import LISTED

TABLES = ("match", "keys", "fix", "types", "needs", "amplifiers")
FACTS = (
    "type", "mode", "exposure", "filter", "object", "time", "gain", "readnoise", "saturate", "overscan", "trim", "unit",
    "temperature", "set_temperature", "readout", "binning", "window", "telescope", "instrument", "detector",
    "gain_setting", "offset", "iso", "em", "row_order", "cfa", "grating", "slit",
)  # fmt: skip
"""What is known of a frame, in the order of reports."""

KINDS = (
    "bias", "dark", "flat", "skyflat", "domeflat", "lampflat", "science", "arc", "focus", "acquisition", "master",
    "unknown",
)  # fmt: skip
"""Types of frames; the four kinds of flat are not mixed."""


@dataclass(frozen=True)
class Condition:
    """A keyword whose value must match a pattern; an empty pattern asks for the keyword to be absent."""

    keyword: str
    pattern: str

    def holds(self, frame: RawFrame) -> bool:
        """Return whether a frame's header fits."""
        value = frame.name if self.keyword == "FILE" else frame.get(self.keyword)
        if value is None:
            return self.pattern == ""
        try:
            # Compared as numbers, EXPTIME=0 fits 0, 0.0 and '0.000'.
            return abs(float(value) - float(self.pattern)) <= 1e-6 * max(1.0, abs(float(self.pattern)))
        except ValueError:
            return fnmatchcase(as_text(value).upper(), self.pattern.upper())

    def __str__(self) -> str:
        """Say it as tables write it."""
        return f"{self.keyword}={self.pattern}" if self.pattern else f"no {self.keyword}"


@dataclass(frozen=True)
class Rule:
    """A line of a table: a fact or a spelling, its values, and the conditions under which it holds."""

    name: str
    values: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def holds(self, frame: RawFrame) -> bool:
        """Return whether all conditions hold."""
        return all(condition.holds(frame) for condition in self.conditions)


@dataclass(frozen=True)
class Amplifier:
    """One of the amplifiers that were read into an image, and the conditions under which it lies there."""

    rule: Rule
    """Its name and conditions."""

    where: str | Mapping[str, Any]
    """Its section of the image, or its cards, as `lazyccd.split_amplifiers` takes them."""


@dataclass(frozen=True)
class Camera:
    """One camera table."""

    name: str
    """Its file name without the ending."""

    label: str
    """How sources are called: 'camera my.toml', 'built-in efosc2', or '' for the generic keywords."""

    match: tuple[tuple[Condition, ...], ...] = ()
    keys: tuple[Rule, ...] = ()
    fix: tuple[Rule, ...] = ()
    types: tuple[Rule, ...] = ()
    needs_dark: bool = True
    amplifiers: tuple[Amplifier, ...] = ()

    def fits(self, frame: RawFrame) -> bool:
        """Return whether the table is about this frame."""
        return not self.match or any(all(item.holds(frame) for item in items) for items in self.match)

    def source(self, detail: str) -> str:
        """Return how a fact's source is called."""
        return f"{self.label}: {detail}" if self.label else f"keyword {detail}"

    def keys_of(self, fact: str) -> tuple[Rule, ...]:
        """Return the rules that say where a fact is looked for."""
        return self._keys_by_name.get(fact, ())

    def fixed_by(self, fact: str) -> tuple[Rule, ...]:
        """Return the rules that fix a fact."""
        return self._fix_by_name.get(fact, ())

    def keywords(self, fact: str) -> tuple[str, ...]:
        """Return where a fact is looked for."""
        return tuple(keyword for rule in self.keys_of(fact) for keyword in rule.values)

    def amplifiers_of(self, frame: RawFrame) -> dict[str, str | Mapping[str, Any]]:
        """Return the amplifiers that an image holds, by name in the order of the table; empty if the table does not say."""
        # GAIN1, GAIN2, ... and numbers in a list are those of the amplifiers in this order
        found: dict[str, str | Mapping[str, Any]] = {}
        for item in self.amplifiers:
            if item.rule.holds(frame):
                found.setdefault(item.rule.name, item.where)
        return found

    @cached_property
    def conditions_on_names(self) -> tuple[Condition, ...]:
        """The conditions on the names of files."""
        rules = (item for rule in (*self.keys, *self.fix, *self.types) for item in rule.conditions)
        found = (*rules, *(item for items in self.match for item in items))
        return tuple(item for item in found if item.keyword == "FILE")

    @cached_property
    def _keys_by_name(self) -> dict[str, tuple[Rule, ...]]:
        return _by_name(self.keys)

    @cached_property
    def _fix_by_name(self) -> dict[str, tuple[Rule, ...]]:
        return _by_name(self.fix)


def _by_name(rules: Iterable[Rule]) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of each name, in their order."""
    found: dict[str, tuple[Rule, ...]] = {}
    for rule in rules:
        found[rule.name] = (*found.get(rule.name, ()), rule)
    return found


def load_camera(path: str | Path) -> Camera:
    r"""Read a camera table.

    Parameters
    ----------
    path
        A TOML file.

    Returns
    -------
    Camera
        Its name is that of the file without the ending.

    Raises
    ------
    MissingFileError
        Raised if there is no such file.
    FormatError
        Raised if it is not TOML.
    ParameterError
        Raised if it has a table, fact or type that does not exist; the message lists those that do.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.toml")
    ...     _ = path.write_text("[match]\nINSTRUME = 'MINE*'\n[keys]\ngain = ['EGAIN', 'GAIN']\n")
    ...     load_camera(path).keywords("gain")
    ('EGAIN', 'GAIN')
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"camera table {str(path)!r} does not exist; name a TOML file.") from None
    return _parse(text, Path(path).stem, f"camera {Path(path).name}", str(path))


@cache
def builtin_cameras() -> tuple[Camera, ...]:
    """Return the tables that come with lazyccd, without the generic one."""
    folder = resources.files("lazyccd.batch") / "cameras"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".toml"))
    return tuple(_builtin(name.removesuffix(".toml")) for name in names if name != "generic.toml")


@cache
def generic_camera() -> Camera:
    """Return the keywords that many cameras share."""
    return _builtin("generic")


def cameras_of(frame: RawFrame, user: Camera | None = None) -> tuple[Camera, ...]:
    """Return the tables to ask about a frame, in order: the user's if it matches, the built-in one that does, the generic one."""
    # A night can hold two cameras, of which the user's table is about one.
    found = [user] if user is not None and user.fits(frame) else []
    # One built-in table only: two that fit would hide each other's keywords in an order nobody chose.
    found += [camera for camera in builtin_cameras() if camera.fits(frame)][:1]
    # The generic keywords come last: a camera's own keyword wins even where a generic one is there.
    return (*found, generic_camera())


def _builtin(name: str) -> Camera:
    """Read a table that comes with lazyccd."""
    text = (resources.files("lazyccd.batch") / "cameras" / f"{name}.toml").read_text(encoding="utf-8")
    return _parse(text, name, "" if name == "generic" else f"built-in {name}", f"{name}.toml")


def _parse(text: str, name: str, label: str, where: str) -> Camera:
    """Make a camera from TOML."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"camera table {where!r} is not TOML: {error}; correct it.") from None
    _check(set(data), TABLES, "table", where)
    match = data.get("match", [])
    keys, fix, types = (_rules(data.get(table, {}), table, where) for table in ("keys", "fix", "types"))
    _check({rule.name for rule in (*keys, *fix)}, FACTS, "fact", where)
    _check({value for rule in types for value in rule.values}, KINDS, "type", where)
    needs = data.get("needs", {})
    _check(set(needs), ("dark",), "need", where)
    return Camera(
        name,
        label,
        tuple(_conditions(item) for item in (match if isinstance(match, list) else [match])),
        keys,
        fix,
        types,
        bool(needs.get("dark", True)),
        _amplifiers(data.get("amplifiers", {}), where),
    )


def _amplifiers(table: Mapping[str, Any], where: str) -> tuple[Amplifier, ...]:
    """Return the amplifiers of a table, in its order."""
    rules = _rules(dict.fromkeys(table, ""), "amplifiers", where)
    for rule, given in zip(rules, table.values(), strict=True):
        # it becomes the name of an extension and of a branch of a tree, and stands in brackets behind that of the file
        if not rule.name or set(rule.name) & set("/[]"):
            raise ParameterError(
                f"camera table {where!r}: [amplifiers] {rule.name!r} must be a name without '/' and brackets, such as 'A'; correct it."
            )
        if not isinstance(given, str | Mapping):
            raise ParameterError(
                f"camera table {where!r}: [amplifiers] {rule.name} = {given!r} must be a section such as '[1:1024,1:2048]', or cards "
                "such as {DATASEC = '[1:1024,1:2048]', GAIN = 1.5}; correct it."
            )
        if isinstance(given, Mapping):
            _check_cards(rule.name, given, where)
    return tuple(Amplifier(rule, given) for rule, given in zip(rules, table.values(), strict=True))


def _check_cards(name: str, cards: Mapping[str, Any], where: str) -> None:
    """Refuse cards of an amplifier that mean nothing: its gain would be measured or that of the image, without a word."""
    _check({key.upper() for key in cards}, tuple(CARDS), f"card of amplifier {name!r}", where)
    for key, value in cards.items():
        if key.upper() in LISTED and (not isinstance(value, int | float) or not 0 < value < math.inf):
            raise ParameterError(
                f"camera table {where!r}: [amplifiers] {name}: {key} = {value!r} must be a number above 0; correct it."
            )


def _check(found: set[str], known: tuple[str, ...], what: str, where: str) -> None:
    """Refuse names that mean nothing, which are mostly misspelled."""
    # A misspelled fact would otherwise be ignored without a word.
    for item in sorted(found - set(known)):
        raise ParameterError(f"camera table {where!r}: {what} {item!r} must be one of {', '.join(known)}; correct it.")


def _conditions(table: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return the conditions of a match table."""
    return tuple(Condition(_keyword(keyword), as_text(pattern)) for keyword, pattern in table.items())


def _keyword(text: str) -> str:
    """Return a keyword as frames have it: in capitals, without HIERARCH.

    Examples
    --------
    >>> _keyword("HIERARCH Inst Filter Name"), _keyword("expms [ms]"), _keyword("date-obs + ut")
    ('INST FILTER NAME', 'EXPMS [ms]', 'DATE-OBS + UT')
    """
    names, sign, unit = text.partition(" [")
    return re.sub(r"\bHIERARCH +", "", names.upper()).strip() + sign + unit


def _rules(table: Mapping[str, Any], kind: str, where: str) -> tuple[Rule, ...]:
    """Return the rules of a table, those with conditions and those without, in order."""
    rules = []
    for key, value in table.items():
        name, _, conditions = key.partition("@")
        values = tuple(as_text(item) for item in value) if isinstance(value, list) else (as_text(value),)
        pairs = [item.partition("=") for item in conditions.split(",") if item]
        if any(not sign for _, sign, _ in pairs):
            raise ParameterError(f"camera table {where!r}: condition of {key!r} in [{kind}] must be KEYWORD=pattern.")
        values = tuple(map(_keyword, values)) if kind == "keys" else values
        rules.append(Rule(name, values, tuple(Condition(_keyword(left), right.strip()) for left, _, right in pairs)))
    return tuple(rules)
