"""Facts about a frame: each a value and where it comes from.

Order of the sources: command line (or an edited table), the user's camera table, the built-in table that fits, the
generic keywords, and where nothing is said, what the image itself tells. Numbers measured on the pixels replace a
fact by `Facts.with_fact(name, Fact(value, MEASURED))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Generic, TypeVar

from lazyccd.batch.cameras import FACTS, KINDS, Camera, Rule
from lazyccd.batch.collect import RawFrame
from lazyccd.errors import ParameterError
from lazyccd.frame import header_values
from lazyccd.frame.header_values import UnusableError
from lazyccd.sections import Region, parse_section

T = TypeVar("T", float, str)

COMMAND_LINE = "command line"
MEASURED = "measured by pairs"

LOCAL = frozenset({"gain", "overscan", "trim", "window"})
"""Facts that one extension of several takes from the primary header only where INHERIT is T."""

_LOUD = frozenset({"gain", "readnoise", "saturate", "overscan", "trim", "exposure", "unit"})
"""Facts whose unusable keywords are worth a note."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, None where nobody knows, and its source."""

    value: T | None
    source: str
    note: str = ""
    """What was found and not used."""


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
    binning: Fact[str]
    window: Fact[str]
    """Origin 'x,y'; the size is the image's."""

    instrument: Fact[str]
    detector: Fact[str]
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


def resolve_facts(
    frame: RawFrame, cameras: tuple[Camera, ...], overrides: Mapping[str, str], source: str = COMMAND_LINE
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

    Raises
    ------
    ParameterError
        Raised if a given value cannot be used.
    """
    readers = _readers(frame.shape)
    found: dict[str, Fact[Any]] = {"type": Fact(None, "")}
    for name in FACTS[1:]:
        if name in overrides:
            found[name] = _given(name, overrides[name], readers[name], source, frame.name)
        else:
            found[name] = look_up(frame, cameras, name, readers[name])
    if found["saturate"].value is None and frame.top is not None:
        found["saturate"] = Fact(float(frame.top), f"largest value of {frame.levels[0]} bits", found["saturate"].note)
    found["unit"] = _unit(frame, found["unit"])
    if frame.part and "detector" not in overrides:
        names = (found["detector"].value, frame.child or frame.part)
        found["detector"] = Fact(" ".join(name for name in names if name), "extension")
    return _sections(frame, cameras, Facts(**found), overrides)


def look_up(frame: RawFrame, cameras: tuple[Camera, ...], name: str, read: Callable[[Any], Any]) -> Fact[Any]:
    """Ask the tables for one fact."""
    notes: list[str] = []
    for camera in cameras:
        for rule in _that_hold(camera.fix, name, frame):
            value = _try(read, rule.values[0], f"{camera.label}: fixed value", notes)
            if value is not None:
                return Fact(value, _fixed(camera, rule), _note(name, notes))
        for rule in _that_hold(camera.keys, name, frame):
            for keyword in rule.values:
                value = _try(read, joined(frame, keyword, local=name in LOCAL), keyword, notes)
                if value is not None:
                    return Fact(value, camera.source(keyword), _note(name, notes))
    return Fact(None, "no keyword", _note(name, notes))


def joined(frame: RawFrame, keyword: str, *, local: bool = False) -> Any:
    """Return the value of ``KEY``, or of ``A + B`` both as text; None unless all are there."""
    parts = [frame.get(part.strip(), local=local) for part in keyword.split(" + ")]
    if len(parts) == 1:
        return parts[0]
    return (
        None if any(header_values.is_nothing(part) for part in parts) else ", ".join(map(header_values.as_text, parts))
    )


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


def _readers(shape: tuple[int, int]) -> dict[str, Callable[[Any], Any]]:
    """Return what reads each fact's value."""
    special: dict[str, Callable[[Any], Any]] = {
        "exposure": header_values.read_exposure,
        "time": header_values.read_time,
        "unit": header_values.read_unit,
        "temperature": header_values.read_number,
        "set_temperature": header_values.read_number,
        "binning": header_values.read_binning,
        "window": header_values.read_origin,
        "mode": _mode,
    }
    for name in ("gain", "readnoise", "saturate"):
        special[name] = partial(header_values.read_positive, name=name)
    for name in ("overscan", "trim"):
        special[name] = partial(header_values.read_region, shape=shape)
    return {name: special.get(name, header_values.read_text) for name in FACTS}


def _mode(value: Any) -> str | None:
    """Return 'image' or 'spectrum'."""
    if header_values.is_nothing(value) or str(value) in {"image", "spectrum"}:
        return header_values.read_text(value)
    raise UnusableError("must be 'image' or 'spectrum'")


def _that_hold(rules: tuple[Rule, ...], name: str, frame: RawFrame) -> list[Rule]:
    """Return the rules for a fact whose conditions hold."""
    return [rule for rule in rules if rule.name == name and rule.holds(frame)]


def _try(read: Callable[[Any], Any], value: Any, where: str, notes: list[str]) -> Any:
    """Return what can be read, None after noting what cannot."""
    if value is None:
        return None
    try:
        return read(value)
    except UnusableError as error:
        text = value if isinstance(value, (int, float)) else repr(header_values.as_text(value))
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
    return "; ".join(f"{note}, ignored" for note in dict.fromkeys(notes)) if name in _LOUD else ""


def _given(name: str, text: str, read: Callable[[Any], Any], source: str, where: str) -> Fact[Any]:
    """Return a fact that was given; what cannot be used is an error here, not a note."""
    if name in {"overscan", "trim"} and text.strip().lower() == "none":
        return Fact(None, f"{source}: none")
    try:
        value = read(text)
    except UnusableError as error:
        raise ParameterError(f"{where}: {name} {text!r} of the {source} {error}; correct it.") from None
    return Fact(value, source)


def _unit(frame: RawFrame, fact: Fact[Any]) -> Fact[Any]:
    """Complete the unit: integers are adu where nothing else is said, floats are nobody knows what."""
    if fact.value is not None:
        return fact
    if frame.levels[0] > 0 and not fact.note:
        return Fact("adu", "integers without BUNIT")
    note = fact.note or "no BUNIT on an image of floats"
    return Fact("", "dimensionless", f'{note}; give [fix] unit = "adu" in a camera table')


def _sections(frame: RawFrame, cameras: tuple[Camera, ...], facts: Facts, overrides: Mapping[str, str]) -> Facts:
    """Find an overscan beside the data where no keyword names one, and drop a trim that keeps everything."""
    whole = Region.full(frame.shape).to_fits()
    if facts.trim.value == whole:
        facts = facts.with_fact("trim", Fact(None, f"{facts.trim.source}: whole image", facts.trim.note))
    if facts.overscan.value is not None or facts.overscan.source.endswith(": none"):
        return facts
    data = look_up(frame, cameras[-1:], "trim", partial(header_values.read_region, shape=frame.shape))
    if data.value is None or not data.source.endswith("DATASEC") or data.value == whole:
        return facts
    strip = header_values.trim_strip(parse_section(data.value, frame.shape).region, frame.shape)
    if strip is None:
        return facts
    source = f"beside {data.source.removeprefix('keyword ')} {data.value}, 3 pixels skipped"
    return facts.with_fact("overscan", Fact(strip.to_fits(), source, facts.overscan.note))


def check_kind(text: str, where: str) -> str:
    """Return a type of frame, refusing what is none."""
    if text not in KINDS:
        raise ParameterError(f"{where}: type {text!r} must be one of {', '.join(KINDS)}; correct it.")
    return text
