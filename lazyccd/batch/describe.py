"""What one image is: its facts, its type, what was done to it, and whether it is reduced.

Most frames of a night differ in time and temperature only. What the cards of one say is remembered for all that have the same
cards, of those that were looked at: 10 000 frames took 10 s otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from lazyccd.batch.cameras import Camera, cameras_of
from lazyccd.batch.classify import Stamps, classify, classify_by_header, is_called_master, read_stamps
from lazyccd.batch.collect import RawFrame
from lazyccd.batch.metadata import APART, Fact, Facts, check_kind, find_facts, find_settings, resolve_facts
from lazyccd.batch.night_plan import FramePlan, needed
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe

T = TypeVar("T")

_OF_FRAMES = tuple(name for name in APART if name != "exposure")

_LISTED = {
    "arc": "an arc is not reduced",
    "focus": "a focus frame is not reduced",
    "acquisition": "an acquisition frame is not reduced",
    "master": "a master: give it by --bias, --dark, --flat or --calib",
}


@dataclass(frozen=True)
class Edit:
    """What a table that was edited by hand says of one file, besides its masters."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts that differ from what the headers say, among them the type."""

    left_out: bool = False
    forced: bool = False
    source: str = "table"


class Settings(NamedTuple):
    """What frames with the same settings of the camera share."""

    cameras: tuple[Camera, ...]
    facts: Mapping[str, Fact[Any]]
    """All but the type and those of `APART`."""

    stamps: Stamps


class _Watched(RawFrame):
    """A frame that notes which keywords are looked for."""

    asked: set[str]

    def __init__(self, frame: RawFrame, asked: set[str]) -> None:
        vars(self).update(vars(frame), asked=asked)

    def get(self, keyword: str, *, local: bool = False) -> Any:
        self.asked.add(keyword)
        return super().get(keyword, local=local)

    def comment(self, keyword: str) -> str:
        self.asked.add(keyword)
        return super().comment(keyword)

    def other_values(self, keyword: str) -> tuple[Any, ...]:
        self.asked.add(keyword)
        return super().other_values(keyword)


class _Remembered(Generic[T]):
    """A function of a frame that is called once for all frames that are equal in what it looks at.

    Parameters
    ----------
    function
        Looks at cards by the methods of the frame, at its shape, type and part, and at its name by conditions of tables only.
    user
        A table whose conditions are looked at.
    """

    def __init__(self, function: Callable[[RawFrame], T], user: Camera | None) -> None:
        self._function = function
        self._names = () if user is None else user.conditions_on_names
        # sections and gains come from a primary header where this says so
        self._asked = {"INHERIT"}
        self._present: dict[tuple[str, ...], list[str]] = {}
        self._found: dict[Any, T] = {}

    def __call__(self, frame: RawFrame) -> T:
        """Return what the function returns for a frame."""
        key = self._key(frame)
        if key in self._found:
            return self._found[key]
        known = len(self._asked)
        found = self._function(_Watched(frame, self._asked))
        if len(self._asked) > known:
            # what was found before may differ in what nobody asked for then
            self._present.clear()
            self._found.clear()
            key = self._key(frame)
        self._found[key] = found
        return found

    def _key(self, frame: RawFrame) -> tuple[Any, ...]:
        """Return all that the function looks at."""
        keywords = frame.keywords()
        present = self._present.get(keywords)
        if present is None:
            present = self._present[keywords] = [keyword for keyword in keywords if keyword in self._asked]
        return (
            frame.shape,
            frame.levels,
            frame.single,
            frame.part,
            frame.child,
            keywords,
            frame.amplifiers,
            frame.gains,
            *(condition.holds(frame) for condition in self._names),
            *map(frame.texts, present),
        )


class Describer:
    """Finds out what the images of a night are.

    Parameters
    ----------
    options
        What was asked for.
    user
        The user's camera table, if there is one.
    recipe
        What is done to the frames.
    """

    def __init__(self, options: Options, user: Camera | None, recipe: Recipe) -> None:
        self._options, self._user, self._recipe = options, user, recipe
        self._given, self._origins = options.facts, recipe.origins(options)
        self._settings = _Remembered(self._read_settings, user)
        self._exposed = _Remembered(self._read_exposure, user)

    def describe(self, frame: RawFrame, edit: Edit) -> FramePlan:
        """Resolve what one file is, before anything is assigned."""
        settings = self._settings(frame)
        options, stamps, facts = self._options, settings.stamps, self._facts(frame, settings, edit)
        reason = f"processed already ({stamps.reason})" if stamps.reason else ""
        forced = options.force or edit.forced
        listed = _why_listed(facts) or (f"left out by {edit.source}" if edit.left_out else "")
        refused = "" if forced or not reason else f"{reason}; --force reduces it as if it were raw"
        refused = refused or _wrong_unit(facts.unit)
        needs = needed(facts.kind, all(camera.needs_dark for camera in settings.cameras))
        return FramePlan(
            name=frame.name,
            source=frame.source,
            shape=frame.shape,
            part=frame.part,
            child=frame.child,
            tap=frame.tap,
            facts=facts,
            stamps=stamps,
            needs=tuple(filter(self._recipe.needs, needs)),
            listed=listed,
            refused="" if listed else refused,
            notes=(*frame.notes, *((f"{reason}; reduced as if it were raw, as asked",) if forced and reason else ())),
        )

    def _facts(self, frame: RawFrame, settings: Settings, edit: Edit) -> Facts:
        """Return the facts of a frame, by its headers, the options and what a table says."""
        cameras, given = settings.cameras, self._given
        exposure, kind = self._exposed(frame)
        found = {**settings.facts, "exposure": exposure, **find_facts(frame, cameras, _OF_FRAMES, given, self._origins)}
        # The command line is the later word: it goes before a saved table.
        edited = {name: text for name, text in edit.facts.items() if name not in given}
        if edited:
            table = resolve_facts(frame, cameras, edited, edit.source)
            found |= {name: table.get(name) for name in edited}
        if "type" in edit.facts:
            kind = Fact(check_kind(edit.facts["type"], frame.name), edit.source)
        elif kind is None or "exposure" in edited or is_called_master(frame):
            kind = classify(frame, cameras, found["exposure"])
        facts = Facts(**{**found, "type": kind})
        exposure = _exposure_of(facts)
        return facts if exposure is facts.exposure else facts.with_fact("exposure", exposure)

    def _read_settings(self, frame: RawFrame) -> Settings:
        """Return what frames with the same settings share."""
        cameras = cameras_of(frame, self._user)
        return Settings(cameras, find_settings(frame, cameras, self._given, self._origins), read_stamps(frame))

    def _read_exposure(self, frame: RawFrame) -> tuple[Fact[float], Fact[str] | None]:
        """Return the exposure, and the type as far as the header tells it."""
        cameras = cameras_of(frame, self._user)
        exposure = find_facts(frame, cameras, ("exposure",), self._given, self._origins)["exposure"]
        return exposure, classify_by_header(frame, cameras, exposure)


def _exposure_of(facts: Facts) -> Fact[float]:
    """Return the exposure, which is not known where a flat or a frame of the sky has 0 seconds."""
    found = facts.exposure
    if found.value != 0 or facts.kind in {"bias", "unknown", "master"} or not found.keyword:
        return found
    why = f"{found.keyword} is 0, and a {facts.kind} frame was exposed"
    return replace(found, value=None, note=why, doubt=f"{why}; state it by [fix] exposure in a camera table")


def _wrong_unit(unit: Fact[str]) -> str:
    """Say why pixels in some unit cannot be reduced; empty for adu."""
    if unit.value == "adu":
        return ""
    what = unit.note or f"{unit.keyword or 'BUNIT'} = {unit.value!r}"
    way = "" if "[fix] unit" in what else '; if they are adu, say [fix] unit = "adu" in a camera table'
    return f"{what}: raw pixels are in adu{way}"


def _why_listed(facts: Facts) -> str:
    """Say why a type of frame is not reduced; empty if it is."""
    if facts.kind == "unknown":
        return facts.type.source
    reason = _LISTED.get(facts.kind, "")
    return f"{reason} ({facts.type.source})" if facts.kind == "master" else reason
