"""Facts about a frame: each a value and where it comes from.

Order of the sources: command line (or an edited table), the user's camera table, the built-in table that fits, the
generic keywords, and where nothing is merge_messages, what the image itself tells. Numbers measured on the pixels replace a
fact by `Facts.with_fact(name, Fact(value, MEASURED))`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache, partial
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from lazyccd.batch.cameras import FACTS, KINDS, Camera, Rule
from lazyccd.batch.collect import RawFrame
from lazyccd.errors import ParameterError
from lazyccd.frame import header_values
from lazyccd.frame.header_values import UnusableError
from lazyccd.sections import Region, parse_section

T = TypeVar("T", float, str)

COMMAND_LINE = "command line"
Origin: TypeAlias = str | Mapping[str, str]
"""Where given facts come from: all of them, or those that are named; the others from the command line."""
MEASURED = "measured by pairs"

APART = ("exposure", "time", "temperature", "object")
"""Facts that differ from frame to frame, and that no other fact depends on but the type."""

_SHARED = tuple(name for name in FACTS if name not in {*APART, "type"})

LOCAL = frozenset({"gain", "overscan", "trim", "window"})
"""Facts that one extension of several takes from the primary header only where INHERIT is T."""

Reader: TypeAlias = Callable[[Any, str], Any]
"""Reads the value of a card, given its comment; raises `UnusableError`."""

EXPOSURES = ("EXPTIME", "EXPOSURE", "XPOSURE", "EXP_TIME")
"""Keywords of an exposure that must agree if several are there."""

CLEAR = frozenset({"CLEAR", "OPEN", "EMPTY", "NOFILTER", "NONE", "FREE", "AIR", "HOLE", "OUT"})
"""Positions of a wheel that hold no filter."""

MOST_ELECTRONS = 2e6
"""More than the full range of a detector: a gain beyond it is a setting of the camera."""

_LIKE_FILTER = re.compile(
    r".*FLTNM.*|.*FILTNM.*|FILT[A-Z0-9_-]*|.*FILTER[A-Z0-9]?|.*FILT \S*NAME|.*\bFILT(?:ER)?\d?[ _-](?:NAME|ID)\d?"
)
_GAIN_UNIT = re.compile(r"e-|electron|e/|adu", re.IGNORECASE)
_PER_ELECTRON = re.compile(r"(?:adu|dn|counts?)\s*(?:/|per)\s*e(?:l(?:ectrons?)?)?(?![a-z])-?", re.IGNORECASE)
"""The unit of a gain that is the other way round."""

_LOUD = frozenset({"gain", "readnoise", "saturate", "overscan", "trim", "exposure", "unit", "time"})
"""Facts whose unusable keywords are worth a note."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, None where nobody knows, and its source."""

    value: T | None
    source: str
    note: str = ""
    """What was found and not used."""

    doubt: str = ""
    """Why the value may be wrong; a product that depends on it is not complete."""

    keyword: str = ""
    """The keyword that the value was read from; empty for other sources."""

    is_off: bool = field(default=False, compare=False)
    """Whether the user said that there is none."""

    measured: float | None = field(default=None, compare=False)
    """What pairs of frames gave; the value may be another."""

    has_unit: bool = field(default=False, compare=False)
    """Whether a camera table says which unit the keyword is in."""


@dataclass(frozen=True)
class Facts:
    """All that is known of a frame."""

    type: Fact[str]
    """One of `cameras.KINDS`."""

    mode: Fact[str]
    """'image' or 'spectrum'."""

    exposure: Fact[float]
    """Seconds."""

    filter: Fact[str]
    object: Fact[str]

    time: Fact[float]
    """Start of the exposure, MJD."""

    gain: Fact[float]
    """Electrons per adu."""

    readnoise: Fact[float]
    """Electrons."""

    saturate: Fact[float]
    """Level in adu of the raw frame."""

    overscan: Fact[str]
    """Section; None where there is no overscan."""

    trim: Fact[str]
    """Section to keep; None for the whole image."""

    unit: Fact[str]
    """Unit of the pixel values."""

    temperature: Fact[float]
    """As the camera writes it, Celsius or Kelvin: only differences are used."""

    set_temperature: Fact[float]
    readout: Fact[str]
    """Mode, speed and port, as far as the header has them."""

    binning: Fact[str]
    window: Fact[str]
    """Origin 'x,y'; the size is the image's."""

    telescope: Fact[str]
    instrument: Fact[str]
    detector: Fact[str]
    gain_setting: Fact[str]
    """What the camera was told, not electrons per adu."""

    offset: Fact[str]
    iso: Fact[str]
    em: Fact[str]
    """Electron multiplication: mode and gain."""

    row_order: Fact[str]
    cfa: Fact[str]
    """Pattern of the colour filters on the pixels; None for a monochrome detector."""

    grating: Fact[str]
    slit: Fact[str]

    def get(self, name: str) -> Fact[Any]:
        """Return a fact by its name."""
        return getattr(self, name)  # type: ignore[no-any-return]

    def with_fact(self, name: str, fact: Fact[Any]) -> Facts:
        """Return facts of which one is another."""
        return replace(self, **{name: fact})

    @property
    def kind(self) -> str:
        """The type; 'unknown' where nobody knows."""
        return self.type.value or "unknown"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and not used, for each fact."""
        return tuple(f"{item.name}: {note}" for item in fields(self) if (note := self.get(item.name).note))

    @property
    def doubts(self) -> dict[str, str]:
        """Why facts may be wrong, by the name of the fact."""
        return {name: doubt for name, fact in vars(self).items() if (doubt := fact.doubt)}


def resolve_facts(
    frame: RawFrame,
    cameras: tuple[Camera, ...],
    overrides: Mapping[str, str],
    source: Origin = COMMAND_LINE,
    *,
    master: bool = False,
) -> Facts:
    """Find all facts about a frame but its type, which `classify` adds.

    Parameters
    ----------
    frame
        Headers and shape.
    cameras
        Tables to ask, in order; the generic one is the last.
    overrides
        Facts that were given, as text; 'none' for overscan and trim switches them off.
    source
        Where the overrides come from.
    master
        Whether the file was given as a master: floats without BUNIT are then taken as adu.

    Raises
    ------
    ParameterError
        Raised if a given value cannot be used.
    """
    settings = find_settings(frame, cameras, overrides, source, master=master)
    return Facts(Fact(None, ""), **settings, **find_facts(frame, cameras, APART, overrides, source))


def find_settings(
    frame: RawFrame,
    cameras: tuple[Camera, ...],
    overrides: Mapping[str, str],
    source: Origin = COMMAND_LINE,
    *,
    master: bool = False,
) -> dict[str, Fact[Any]]:
    """Find the facts that many frames share, as `resolve_facts` does: all but the type and those of `APART`."""
    found = find_facts(frame, cameras, _SHARED, overrides, source)
    # A/D converters clip at the range of the file's type if not before.
    if found["saturate"].value is None and frame.top is not None:
        found["saturate"] = Fact(float(frame.top), f"largest value of {frame.levels[0]} bits", found["saturate"].note)
    found["unit"] = _unit(frame, found["unit"], master=master)
    if found["filter"].value is None and "filter" not in overrides:
        found["filter"] = _guess_filter(frame, found["filter"])
    found["gain_setting"] = _gain_setting(frame, found)
    # Amplifiers of one detector have gains and levels of their own, so masters must not cross.
    if frame.part and "detector" not in overrides:
        names = (found["detector"].value, frame.child or frame.part)
        found["detector"] = Fact(" ".join(name for name in names if name), "extension")
    return _several_amplifiers(frame, _sections(frame, cameras, found, overrides))


def find_facts(
    frame: RawFrame,
    cameras: tuple[Camera, ...],
    names: Iterable[str],
    overrides: Mapping[str, str],
    source: Origin = COMMAND_LINE,
) -> dict[str, Fact[Any]]:
    """Find some facts by what was given and by the tables, without what other facts tell of them."""
    readers = _readers(frame.shape, frame.top)
    found: dict[str, Fact[Any]] = {}
    for name in names:
        if name in overrides:
            origin = source if isinstance(source, str) else source.get(name, COMMAND_LINE)
            found[name] = _given(name, overrides[name], readers[name], origin, frame.name)
        else:
            found[name] = look_up(frame, cameras, name, readers[name])
    if "exposure" in found:
        found["exposure"] = _compare_exposures(frame, found["exposure"])
    return found


def look_up(frame: RawFrame, cameras: tuple[Camera, ...], name: str, read: Reader) -> Fact[Any]:
    """Ask the tables for one fact."""
    # An unusable keyword, such as GAIN = 0, does not hide the next one.
    notes: list[str] = []
    for camera in cameras:
        for rule in _that_hold(camera.fixed_by(name), frame):
            value = _try(read, Found(rule.values[0], ""), f"{camera.label}: fixed value", notes)
            if value is not None:
                return Fact(value, _fixed(camera, rule), _note(name, notes))
        for rule in _that_hold(camera.keys_of(name), frame):
            for expression in rule.values:
                found = find(frame, expression, name)
                value = _try(read, found, found.keyword or expression, notes)
                if value is not None:
                    # A date alone is of no use, and is no waste where the time of day stands beside it.
                    parts = _parts(found.keyword)
                    note = _note(name, [note for note in notes if note.partition(" = ")[0] not in parts])
                    doubt, has_unit = _doubled(frame, found.keyword), " [" in expression
                    return Fact(value, camera.source(found.keyword), note, doubt, found.keyword, has_unit=has_unit)
    return Fact(None, "no keyword", _note(name, notes))


class Found(NamedTuple):
    """What a header says where a table looks."""

    value: Any
    """None where nothing is."""

    comment: str
    keyword: str = ""
    """The keyword, or the keywords that were joined as ``A + B`` or ``A & B``."""


def find(frame: RawFrame, expression: str, name: str) -> Found:
    """Return what stands behind ``KEY``, behind ``A + B`` if both are there, or behind those of ``A & B`` that are.

    Parameters
    ----------
    frame
        Its headers are asked.
    expression
        As camera tables have it; ``KEY [ms]`` says that the value is in milliseconds, ``KEY [s]`` that it is in seconds,
        whatever the comment of the card says.
    name
        The fact: of the wheels of a filter, those that are clear or open leave the name.
    """
    keywords, sign, unit = parse_expression(expression)
    values = [frame.get(keyword, local=name in LOCAL) for keyword in keywords]
    if len(keywords) == 1:
        comment = "" if values[0] is None else frame.comment(keywords[0])
        return Found(values[0], unit or comment, keywords[0])
    there = [
        (keyword, value) for keyword, value in zip(keywords, values, strict=True) if not header_values.is_nothing(value)
    ]
    if not there or (sign == " + " and len(there) < len(keywords)):
        return Found(None, "")
    if name == "filter":
        there = [part for part in there if not is_clear(part[1])] or there[:1]
    texts = list(dict.fromkeys(header_values.as_text(value) for _, value in there))
    return Found(there[0][1] if len(texts) == 1 else ", ".join(texts), "", sign.join(keyword for keyword, _ in there))


@cache
def parse_expression(expression: str) -> tuple[list[str], str, str]:
    """Return the keywords of an expression, the sign between them, and the unit behind it."""
    plain, _, unit = expression.partition(" [")
    sign = " & " if " & " in plain else " + "
    return " ".join(plain.split()).split(sign), sign, unit


def is_clear(position: object) -> bool:
    """Return whether a position of a filter wheel holds no filter.

    Examples
    --------
    >>> is_clear("NO_FILTER"), is_clear("Clear 2"), is_clear("air"), is_clear("C-star")
    (True, True, True, False)
    """
    return re.sub(r"[^A-Z]|\d", "", header_values.as_text(position).upper()) in CLEAR


def _doubled(frame: RawFrame, keywords: str) -> str:
    """Say that a card stands several times in a header with different values."""
    for keyword in _parts(keywords):
        others = frame.other_values(keyword)
        if others:
            values = " and ".join(map(str, (frame.get(keyword), *others)))
            return f"the header has {keyword} {len(others) + 1} times, {values}; the first is used"
    return ""


def _parts(keywords: str) -> list[str]:
    """Return the keywords that were joined as ``A + B`` or ``A & B``."""
    return re.split(r" [+&] ", keywords)


def _guess_filter(frame: RawFrame, unknown: Fact[str]) -> Fact[str]:
    """Look for a filter under a keyword that no table names, but that sounds like one."""
    for keyword in frame.keywords():
        if _LIKE_FILTER.fullmatch(keyword) and not header_values.is_nothing(value := frame.get(keyword)):
            note = f'taken from {keyword} for its name; confirm it by [keys] filter = "{keyword}" in a camera table'
            return Fact(header_values.read_text(value), f"keyword {keyword}", note, "", keyword)
    return unknown


def _compare_exposures(frame: RawFrame, used: Fact[float]) -> Fact[float]:
    """Doubt an exposure that another keyword contradicts by more than 1 %: one of them may be in milliseconds."""
    if not used.keyword or used.value is None or used.doubt:
        return used
    for keyword in EXPOSURES:
        value = frame.get(keyword)
        if keyword == used.keyword or header_values.is_nothing(value):
            continue
        try:
            other = header_values.read_exposure(value, frame.comment(keyword))
        except UnusableError:
            continue
        if other is not None and abs(other - used.value) > max(0.1, 0.01 * used.value):
            doubt = f"{used.keyword} says {used.value:g} s and {keyword} {other:g} s; state it in a camera table"
            return replace(used, doubt=doubt)
    return used


def _gain_setting(frame: RawFrame, found: Mapping[str, Fact[Any]]) -> Fact[str]:
    """Return the setting of a camera that stands in GAIN, where that is not electrons per adu."""
    fact = found["gain_setting"]
    value = frame.get("GAIN", local=True)
    # What the gain of a stack is in effect was computed, not set.
    if fact.value is not None or header_values.is_nothing(value) or frame.comment("GAIN").startswith("in effect"):
        return fact
    used = found["gain"]
    try:
        number = read_gain(value, frame.comment("GAIN"), frame.top)
    except UnusableError:
        number = None
    other = used.value if used.keyword not in {"", "GAIN"} else None
    if number is None or (other is not None and not math.isclose(number, other, rel_tol=0.01)):
        return Fact(header_values.as_text(value), "keyword GAIN", "", "", "GAIN")
    return fact


def read_gain(value: Any, comment: str, top: int | None) -> float | None:
    """Return electrons per adu, if that is what a gain can be.

    Parameters
    ----------
    value
        Of the card.
    comment
        Of the card; the unit in it tells a gain from a setting, and one in adu per electron.
    top
        The largest value that the image can hold, in adu.

    Raises
    ------
    UnusableError
        Raised if the number is a setting of the camera: it would make the full range more than 2e6 electrons, or is a whole
        number of 10 or more without a unit.
    """
    plain = _PER_ELECTRON.sub("", str(value)) if isinstance(value, str) else value
    number = header_values.read_positive(plain, "gain")
    if number is None:
        return None
    if plain != value or _PER_ELECTRON.search(comment):
        number = 1 / number
    has_unit = _GAIN_UNIT.search(comment) or _GAIN_UNIT.search(str(value))
    if number * (top or 65535) > MOST_ELECTRONS or (number >= 10 and number.is_integer() and not has_unit):
        raise UnusableError("is a setting of the camera and not electrons per adu; give --gain")
    return number


def value_to_text(name: str, value: Any) -> str:
    """Return a fact's value as people read it, with its unit."""
    if value is None:
        return "-"
    if value == "":
        return "dimensionless"
    if name == "time":
        return header_values.time_to_text(value)
    unit = header_values.UNITS.get(name, ("",))[0].replace("/", " / ")
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text} {unit}".strip()


@lru_cache(256)
def _readers(shape: tuple[int, int], top: int | None) -> Mapping[str, Reader]:
    """Return what reads each fact's value and the comment of its card, for images of a shape and largest value."""

    def plain(read: Callable[..., Any], **how: Any) -> Reader:
        return lambda value, _comment: read(value, **how)

    special: dict[str, Reader] = {
        "exposure": header_values.read_exposure,
        "time": plain(header_values.read_time),
        "unit": plain(header_values.read_unit),
        "temperature": plain(header_values.read_number),
        "set_temperature": plain(header_values.read_number),
        "binning": plain(header_values.read_binning),
        "window": plain(header_values.read_origin),
        "mode": plain(_mode),
        "gain": partial(read_gain, top=top),
    }
    for name in ("readnoise", "saturate"):
        special[name] = plain(header_values.read_positive, name=name)
    for name in ("overscan", "trim"):
        special[name] = plain(header_values.read_region, shape=shape)
    return {name: special.get(name, plain(header_values.read_text)) for name in FACTS}


def _mode(value: Any) -> str | None:
    """Return 'image' or 'spectrum'."""
    if header_values.is_nothing(value) or str(value) in {"image", "spectrum"}:
        return header_values.read_text(value)
    raise UnusableError("must be 'image' or 'spectrum'")


def _that_hold(rules: tuple[Rule, ...], frame: RawFrame) -> list[Rule]:
    """Return the rules whose conditions hold."""
    return [rule for rule in rules if rule.holds(frame)]


def _try(read: Reader, found: Found, where: str, notes: list[str]) -> Any:
    """Return what can be read, None after noting what cannot."""
    if found.value is None:
        return None
    try:
        return read(found.value, found.comment)
    except UnusableError as error:
        text = found.value if isinstance(found.value, (int, float)) else repr(header_values.as_text(found.value))
        notes.append(f"{where} = {text} {error}")
        return None


def _fixed(camera: Camera, rule: Rule) -> str:
    """Return the source of a fixed value: the table and the conditions."""
    conditions = ", ".join(map(str, rule.conditions))
    if not camera.label:
        return conditions or "default"
    return camera.source(f"fixed for {conditions}" if conditions else "fixed")


def _note(name: str, notes: list[str]) -> str:
    """Return what to say about unusable values."""
    # Other facts have many keywords that are empty by habit; notes on them would hide these.
    told = [note.partition("; ") for note in dict.fromkeys(notes)]
    return "; ".join(f"{what}, ignored{sign}{way}" for what, sign, way in told) if name in _LOUD else ""


def _given(name: str, text: str, read: Reader, source: str, where: str) -> Fact[Any]:
    """Return a fact that was given; what cannot be used is an error here, not a note."""
    # Sections of headers are wrong often enough that there must be a way to switch them off.
    if name in {"overscan", "trim"} and text.strip().lower() == "none":
        return Fact(None, f"{source}: none", is_off=True)
    try:
        value = header_values.read_positive(text, name) if name == "gain" else read(text, "")
    except UnusableError as error:
        # A value that a user gave is an error where a header's would be a note.
        raise ParameterError(f"{where}: {name} {text!r} of the {source} {error}; correct it.") from None
    return Fact(value, source)


def _unit(frame: RawFrame, fact: Fact[Any], *, master: bool) -> Fact[Any]:
    """Return the unit: counts of a raw image are adu, integers without BUNIT too, and floats are nobody knows what."""
    is_integer = frame.levels[0] > 0
    if fact.value in {"ct", "DN"} and is_integer:
        return Fact("adu", fact.source, f"{fact.keyword or 'BUNIT'} = {fact.value!r} of integers is taken as adu")
    if fact.value is not None or fact.note:
        return fact
    if is_integer:
        return Fact("adu", "integers without BUNIT")
    if master:
        return Fact("adu", "floats without BUNIT", "a master of floats without BUNIT is taken as adu")
    return Fact(None, "no BUNIT", 'no BUNIT on an image of floats; give [fix] unit = "adu" in a camera table')


def _sections(
    frame: RawFrame, cameras: tuple[Camera, ...], facts: dict[str, Fact[Any]], overrides: Mapping[str, str]
) -> dict[str, Fact[Any]]:
    """Find an overscan beside the data where no keyword names one, and drop a trim that keeps everything."""
    facts = _binned_sections(frame, cameras, facts, overrides)
    whole = Region.full(frame.shape).to_fits()
    facts = {**facts, **{name: _doubt_lost(name, facts[name]) for name in ("overscan", "trim")}}
    # To trim nothing would only add an entry to the log and a difference between frame and master.
    trim, overscan = facts["trim"], facts["overscan"]
    if trim.value == whole:
        facts = {**facts, "trim": Fact(None, f"{trim.source}: whole image", trim.note)}
    if overscan.value is not None and trim.value is None:
        return {**facts, "trim": _trim_beside(frame, facts["trim"], overscan)}
    if overscan.value is not None or overscan.is_off:
        return facts
    data = look_up(frame, cameras[-1:], "trim", lambda value, _: header_values.read_region(value, frame.shape))
    # TRIMSEC may cut more than the overscan, so only DATASEC shows where light fell.
    if data.value is None or data.keyword != "DATASEC" or data.value == whole:
        return facts
    strip = header_values.trim_strip(parse_section(data.value, frame.shape).region, frame.shape)
    if strip is None:
        return facts
    source = f"beside {data.keyword} {data.value}, 3 pixels skipped"
    return {**facts, "overscan": Fact(strip.to_fits(), source, overscan.note)}


def _trim_beside(frame: RawFrame, trim: Fact[Any], overscan: Fact[Any]) -> Fact[Any]:
    """Return what an overscan at the edge leaves, where nothing says what to keep: the overscan itself saw no light."""
    if trim.is_off or trim.doubt or trim.source != "no keyword":
        return trim
    data = header_values.data_beside(parse_section(str(overscan.value), frame.shape).region, frame.shape)
    return trim if data is None else Fact(data.to_fits(), f"beside the overscan {overscan.value}", trim.note)


def _doubt_lost(name: str, fact: Fact[Any]) -> Fact[Any]:
    """Doubt that there is no section where a keyword names one that cannot be used; ``[0:0,0:0]`` says that there is none."""
    if fact.value is not None or fact.is_off or not re.search(r"'[^']*[1-9][^']*'", fact.note):
        return fact
    return replace(
        fact, doubt=f"{fact.note}; state it by --{name} [x1:x2,y1:y2] or --{name} none, or in a camera table"
    )


def _several_amplifiers(frame: RawFrame, facts: dict[str, Fact[Any]]) -> dict[str, Fact[Any]]:
    """Doubt an image of several amplifiers, which is reduced as one, unless gain and overscan were stated for it."""
    # One gain beside those of several amplifiers is that of the one which read the image.
    names = frame.amplifiers or (() if facts["gain"].keyword else frame.gains)
    # What a keyword says is of one amplifier, or of none.
    stated = (bool(fact.is_off or (fact.value and not fact.keyword)) for fact in (facts["gain"], facts["overscan"]))
    if len(names) < 2 or all(stated):
        return facts
    doubt = (
        f"the image holds {len(names)} amplifiers ({', '.join(names)}), each with its own gain and overscan, and is reduced as one; "
        "say where each lies by [amplifiers] in a camera table (see docs/howto/cameras.md), or state --gain and --overscan of the whole"
    )
    return {**facts, "detector": replace(facts["detector"], doubt=facts["detector"].doubt or doubt)}


def _binned_sections(
    frame: RawFrame, cameras: tuple[Camera, ...], facts: dict[str, Fact[Any]], overrides: Mapping[str, str]
) -> dict[str, Fact[Any]]:
    """Divide the sections of overscan and trim by the binning where they fit into the image only so."""
    factors = [int(number) for number in (facts["binning"].value or "1x1").split("x")]
    names = [name for name in ("overscan", "trim") if name not in overrides]
    texts = {name: look_up(frame, cameras, name, lambda value, _: header_values.read_text(value)) for name in names}
    texts = {name: fact for name, fact in texts.items() if fact.value is not None}
    # One that fits as it is may still count unbinned pixels, as the others do.
    if max(factors) == 1 or all(_fits(fact.value, frame.shape) for fact in texts.values()):
        return facts
    divided = {
        name: header_values.divide_section(str(fact.value), frame.shape, factors) for name, fact in texts.items()
    }
    if not all(divided.values()):
        return facts
    for name, fact in texts.items():
        note = f"{fact.keyword} = {fact.value} counts unbinned pixels; divided by the binning {facts['binning'].value}"
        facts = {**facts, name: replace(fact, value=divided[name], note=note)}
    return facts


def _fits(text: Any, shape: tuple[int, int]) -> bool:
    try:
        return header_values.read_region(text, shape) is not None
    except UnusableError:
        return False


def check_kind(text: str, where: str) -> str:
    """Return a type of frame, refusing what is none."""
    if text not in KINDS:
        raise ParameterError(f"{where}: type {text!r} must be one of {', '.join(KINDS)}; correct it.")
    return text
