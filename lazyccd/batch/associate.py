"""Who belongs to whom: which frames make one master, and which master a frame gets.

1. Names are compared to the letter: telescope, instrument, detector, read-out, settings; the filter of flats; grating and slit of
   those of spectra. Measured numbers have tolerances: exposure and temperature of darks, gains and read noises of headers.
2. All members of a group agree on every key, and a key that one lacks the others lack too.
3. A frame gets a master of the first level that any meets; see `lazyccd.batch.levels`. A key that only one of both has is not
   compared, which is said. What agrees on more keys goes first, then what is nearer in time.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from lazyccd.batch.classify import Stamps
from lazyccd.batch.levels import COMMON, LEVELS, OF_FLATS, STRICTEST, Level
from lazyccd.batch.metadata import Fact, Facts, value_to_text
from lazyccd.batch.night_plan import Choice, FramePlan, MasterGroup, Rejected, Treatment
from lazyccd.frame.header_values import find_number
from lazyccd.io.names import split_hdu
from lazyccd.sections import parse_section


@dataclass(frozen=True)
class Candidate:
    """A master that could be used: to be made of the night's frames, or there already."""

    name: str
    kind: str
    facts: Facts
    shape: tuple[int, int]
    times: tuple[float, ...]
    count: int
    """How many frames it is made of; 0 for a file."""

    bias_subtracted: bool = False
    stamps: Stamps | None = None
    """What was done to an existing master; None for one to be made as the frames are treated."""

    trusted: bool = False
    """Whether it is used whatever its stamps say."""

    explicit: bool = False
    """Whether it was named, and so comes first."""

    label: str = ""
    """How tables call it, where not by its name."""

    part: str = ""
    """Of which image of its file it is the master, such as ``SCI,1``; empty for a file of its own."""

    treatment: Treatment = field(default_factory=Treatment)
    """What an existing master needs before it is used."""

    gains: tuple[float, ...] = ()
    """Gains that the frames of an existing master may have had; its header may have that of the stack instead."""

    unusable: str = ""
    """Why an existing master serves no frame."""

    doubts: tuple[str, ...] = ()
    """Why an existing master may be wrong."""

    notes: tuple[str, ...] = ()
    """What is made of its pixels."""

    is_own: bool = False
    """Whether `lazyccd reduce` made it."""

    measured: Mapping[str, float] = field(default_factory=dict)
    """Gain and read noise that were measured when it was made."""

    middle: float = math.nan
    """Median in adu of an existing bias or dark of another program."""

    @property
    def shown(self) -> str:
        """What tables call it."""
        return self.label or self.name


class Comparison(NamedTuple):
    """What a frame and a candidate differ in."""

    failures: list[str]
    """Why they do not match."""

    ignored: list[str]
    """Keys that only one of them has."""


class Match(NamedTuple):
    """A candidate that matches."""

    candidate: Candidate
    days: float
    """Distance in time to the nearest of its frames."""

    ignored: list[str]
    """Keys that were not compared."""

    level: int = 0
    """The first level that it meets."""

    lacks: tuple[str, ...] = ()
    """Why it does not meet the first of all."""


def keys_of(level: Level, mode: str | None) -> tuple[str, ...]:
    """Return the keys that must match at a level, besides the numbers that `compare` looks at."""
    return tuple(key for key in level.keys if mode == "spectrum" or key not in {"grating", "slit"})


def compare(kind: str, wanted: Facts, other: Facts, level: Level = STRICTEST) -> Comparison:
    """Compare the keys of a frame and of another frame or master, without the exposure of darks, which may be scaled.

    Parameters
    ----------
    kind
        bias, dark or flat.
    wanted
        Facts of the frame that looks for a master.
    other
        Facts of the candidate.
    level
        Keys and tolerances.
    """
    failures: list[str] = []
    ignored: list[str] = []
    for key in keys_of(level, wanted.mode.value):
        ours, theirs = wanted.get(key).value, other.get(key).value
        # Many headers are silent on one key; to refuse then would leave most nights without masters. It is reported
        # instead.
        if (ours is None) != (theirs is None):
            ignored.append(key)
        elif ours is not None and theirs is not None and not is_same(key, ours, theirs, level):
            failures.append(f"{key} {theirs!r} is not {ours!r}")
    for key in ("gain", "readnoise"):
        mine, its = (header_number(facts, key) for facts in (wanted, other))
        if mine is not None and its is not None and not math.isclose(mine, its, rel_tol=level.header_relative):
            failures.append(f"{key} {its:g} is not {mine:g}")
    # Only dark current depends on temperature.
    if kind == "dark":
        failures += _compare_temperature(wanted, other, ignored, level.temperature_k)
    return Comparison(failures, ignored)


def header_number(facts: Facts, key: str) -> float | None:
    """Return a gain or read noise that a header states; not one that was given for all frames, or measured."""
    fact: Fact[float] = facts.get(key)
    return fact.value if fact.keyword else None


def is_same(key: str, ours: str, theirs: str, level: Level = STRICTEST) -> bool:
    """Return whether two values of a key agree.

    Names are compared to the letter, also those that are numbers. What was measured has a tolerance: the width of a slit, and
    the angle or wavelength behind the name of a grating.

    Examples
    --------
    >>> is_same("filter", "6563", "6584"), is_same("filter", "R", "r"), is_same("slit", "1.0", "1.02")
    (False, False, True)
    """
    if key == "slit":
        mine, its = find_number(ours), find_number(theirs)
        if mine is not None and its is not None:
            return math.isclose(mine, its, rel_tol=level.slit_relative)
    if key == "grating":
        (name, angles), (other, others) = grating_parts(ours), grating_parts(theirs)
        pairs = zip(angles, others, strict=False)
        close = all(math.isclose(a, b, rel_tol=level.angle_relative) for a, b in pairs)
        return name == other and len(angles) == len(others) and close
    return letters(ours) == letters(theirs)


@cache
def letters(name: str) -> str:
    """Return a name as it is compared: a number that one program writes as 60 and another as 60.0 is one name.

    Examples
    --------
    >>> letters("60.0"), letters("R1.0x"), letters(" R ")
    ('60', 'R1.0x', 'R')
    """
    return re.sub(r"(?<=\d)\.0*$", "", name.strip())


def grating_parts(text: str) -> tuple[str, list[float]]:
    """Return the name of a grating, and the numbers that stand behind it.

    Examples
    --------
    >>> grating_parts("R600R, 7251.1"), grating_parts("600")
    (('R600R', [7251.1]), ('600', []))
    """
    name, *rest = (part.strip() for part in text.split(","))
    numbers = [find_number(part) for part in rest]
    names = [part for part, number in zip(rest, numbers, strict=True) if number is None]
    return ", ".join([name, *names]), [number for number in numbers if number is not None]


def groups_of(kind: str, frames: Sequence[FramePlan]) -> list[list[FramePlan]]:
    """Part frames of one kind into those that become one master.

    All members agree with each other: a key that one lacks, the others lack too, and measured numbers of a group lie within
    one tolerance. The order of the frames decides nothing.
    """
    parts: dict[tuple[Any, ...], list[FramePlan]] = {}
    for item in frames:
        keys = keys_of(LEVELS[kind][0], item.facts.mode.value)
        # Sky, dome and lamp flats differ in illumination and are never mixed; frames with and without overscan have
        # different pedestals, those of different trims different pixels.
        exact = [
            item.facts.get(key).value for key in (*keys, "overscan", "trim", "cfa") if key not in {"grating", "slit"}
        ]
        grating = grating_parts(item.facts.grating.value or "")[0] if "grating" in keys else ""
        parts.setdefault((item.night, item.shape, item.kind, grating, *exact), []).append(item)
    groups = list(parts.values())
    for number, tolerance in _numbers_of(kind, STRICTEST):
        groups = [some for group in groups for some in _by_nearness(group, number, tolerance)]
    return groups


Number: TypeAlias = Callable[[Facts], float | None]
Tolerance: TypeAlias = Callable[[float], float]


def _numbers_of(kind: str, level: Level) -> list[tuple[Number, Tolerance]]:
    """Return the measured numbers that tell frames of a kind apart, each with the tolerance at a value."""

    def relative(part: float) -> Tolerance:
        return lambda value: part * abs(value) * (1 + 1e-9)

    numbers: list[tuple[Number, Tolerance]] = [
        (lambda facts: header_number(facts, "gain"), relative(level.header_relative)),
        (lambda facts: header_number(facts, "readnoise"), relative(level.header_relative)),
    ]
    if kind == "flat":
        numbers += [
            (lambda facts: find_number(facts.slit.value), relative(level.slit_relative)),
            (
                lambda facts: next(iter(grating_parts(facts.grating.value or "")[1]), None),
                relative(level.angle_relative),
            ),
        ]
    if kind == "dark":
        numbers += [
            (
                lambda facts: facts.exposure.value,
                lambda value: max(level.exposure_s, level.exposure_relative * value) * (1 + 1e-9),
            ),
            (lambda facts: facts.set_temperature.value, lambda _: level.temperature_k * (1 + 1e-9)),
            (lambda facts: facts.temperature.value, lambda _: level.temperature_k * (1 + 1e-9)),
        ]
    return numbers


def _by_nearness(group: list[FramePlan], number: Number, tolerance: Tolerance) -> list[list[FramePlan]]:
    """Part a group where a number differs, at its widest gaps, until each part fits one tolerance."""
    unknown = [item for item in group if number(item.facts) is None]
    known = sorted((value, index) for index, item in enumerate(group) if (value := number(item.facts)) is not None)
    parts = [[group[index] for _, index in some] for some in _clusters(known, tolerance)]
    return [part for part in (*parts, unknown) if part]


def _clusters(values: list[tuple[float, int]], tolerance: Tolerance) -> list[list[tuple[float, int]]]:
    """Part sorted values at their widest gaps until each part is no wider than the tolerance."""
    if not values or values[-1][0] - values[0][0] <= tolerance(values[0][0]):
        return [values] if values else []
    gaps = [after[0] - before[0] for before, after in pairwise(values)]
    cut = gaps.index(max(gaps)) + 1
    return [*_clusters(values[:cut], tolerance), *_clusters(values[cut:], tolerance)]


def is_same_exposure(ours: float | None, theirs: float | None, level: Level = STRICTEST) -> bool:
    """Return whether exposures are equal within the tolerances of a level: the larger of 0.1 s and 1 % of the frame's."""
    # A dark whose exposure nobody knows must not be subtracted unscaled.
    if ours is None or theirs is None:
        return False
    return abs(ours - theirs) <= max(level.exposure_s, level.exposure_relative * ours) * (1 + 1e-9)


def choose(shelf: Shelf, wanted: Facts, shape: tuple[int, int]) -> Choice:
    """Choose the bias or flat of a frame: of the first level that any meets, one that was named, else the nearest in time."""
    fitting, why_not = shelf.sift(wanted, shape)
    if not fitting:
        return Choice(shelf.kind, why=_none(shelf.kind, shelf.items), why_not=tuple(why_not))
    best = fitting[0]
    why_not += [Rejected(match.candidate.shown, _farther(match, best)) for match in fitting[1:]]
    return _choice(shelf.kind, best, _why(best), why_not)


def choose_dark(shelf: Shelf, wanted: Facts, shape: tuple[int, int], bias: Choice) -> tuple[Choice, Choice]:
    """Choose the dark of a frame, and say what becomes of its bias.

    Of the first level that any meets, a dark of equal exposure is preferred, then the longest, scaled; it is scaled only if both
    it and the frame are bias-subtracted. A dark that contains the bias replaces it.
    """
    fitting, why_not = shelf.sift(wanted, shape)
    equal, scalable, unequal = _by_exposure(wanted, fitting, bias, shelf.levels)
    why_not += unequal
    if not equal and not scalable:
        return Choice("dark", why=_none("dark", shelf.items), why_not=tuple(why_not)), bias
    # Scaling assumes that dark current is linear in time; an equal exposure assumes nothing. The longest dark has the least noise
    # once it is scaled down.
    scalable.sort(key=lambda match: (match.level, -(match.candidate.facts.exposure.value or 0.0)))
    match = min([*equal, *scalable], key=lambda match: match.level)
    best = match.candidate
    exposure = best.facts.exposure.value
    why_not += [Rejected(other.candidate.shown, _farther(other, match)) for other in equal if other is not match]
    why_not += [_shorter(other, match) for other in scalable if other is not match]
    why = _why(match)
    # To subtract a bias as well would take it off twice.
    if match in equal and not best.bias_subtracted:
        why = f"equal exposure, contains the bias; {why}"
        choice = replace(_choice("dark", match, why, why_not), exposure=exposure, contains_bias=True)
        inside = Choice("bias", why=f"contained in {best.shown}", why_not=bias.why_not)
        return choice, inside
    if match in equal:
        return replace(_choice("dark", match, f"equal exposure; {why}", why_not), exposure=exposure), bias
    scale = (wanted.exposure.value or 0.0) / (exposure or 1.0)
    why = f"longest, scaled by {scale:.4g} from {_seconds(best.facts)}; {why}"
    return replace(_choice("dark", match, why, why_not), scale=scale, exposure=exposure), bias


def _by_exposure(
    wanted: Facts, fitting: list[Match], bias: Choice, levels: Sequence[Level]
) -> tuple[list[Match], list[Match], list[Rejected]]:
    """Part darks into those of equal exposure, those that can be scaled, and the others with the reasons."""
    equal, scalable, why_not = [], [], []
    for match in fitting:
        item = match.candidate
        if is_same_exposure(wanted.exposure.value, item.facts.exposure.value, levels[match.level]):
            equal.append(match)
        # A dark that contains the bias would scale the bias with it.
        elif not item.bias_subtracted or not bias or not wanted.exposure.value or not item.facts.exposure.value:
            unequal = f"exposure {_seconds(item.facts)} is not {_seconds(wanted)}"
            reason = "" if item.bias_subtracted and bias else ", and without a bias subtracted it cannot be scaled"
            why_not.append(Rejected(item.shown, unequal + reason))
        else:
            scalable.append(match)
    return equal, scalable, why_not


def _shorter(match: Match, best: Match) -> Rejected:
    """Say why a dark that could be scaled was not taken."""
    item = match.candidate
    if match.level > best.level:
        return Rejected(item.shown, _worse(match, best))
    text = f"exposure {_seconds(item.facts)}, the chosen one has {_seconds(best.candidate.facts)}"
    return Rejected(item.shown, text)


def choose_mask(wanted: Facts, shape: tuple[int, int], candidates: list[Candidate]) -> Choice:
    """Choose the bad pixel mask of a frame: of the frame's size, before or after trimming; of several, that of its detector."""
    if not candidates:
        return Choice("bpm", why="none given")
    # Masks are drawn on the raw frame or on a product.
    sizes = {shape, _trimmed(wanted, shape)}
    fitting = [item for item in candidates if item.shape in sizes and not item.unusable]
    # The masks of a mosaic have one size: the first of them would serve every detector.
    if len(fitting) > 1:
        fitting = [item for item in fitting if _extension(item.facts) == _extension(wanted)]
    if fitting:
        return Choice("bpm", fitting[0].name, "given", is_file=True, is_named=True, treatment=fitting[0].treatment)
    why_not = tuple(Rejected(item.shown, _why_no_mask(wanted, shape, sizes, item)) for item in candidates)
    return Choice("bpm", why=why_not[0].reason, why_not=why_not)


def _extension(facts: Facts) -> str:
    """Return the name of the extension behind that of the detector, by which the images of a mosaic are told apart."""
    return (facts.detector.value or "").rpartition(" ")[2]


def _why_no_mask(wanted: Facts, shape: tuple[int, int], sizes: set[tuple[int, int]], item: Candidate) -> str:
    """Say why a bad pixel mask does not serve a frame."""
    if item.unusable or item.shape not in sizes:
        return item.unusable or f"size {_size(item.shape)} is not {_size(shape)}"
    return f"it is one of several, and of {_extension(item.facts) or 'an unknown detector'}, not {_extension(wanted) or 'known'}"


def check_stamps(wanted: Facts, shape: tuple[int, int], candidate: Candidate) -> list[str]:
    """Return where a master was treated differently from the frame: overscan, trim and size."""
    stamps = candidate.stamps
    # A master that is still to be made is treated as its frames are, so raw sizes are compared.
    if stamps is None and candidate.shape != shape:
        return [f"size {_size(candidate.shape)} is not {_size(shape)}"]
    if stamps is None:
        failures = []
        if (candidate.facts.overscan.value is None) != (wanted.overscan.value is None):
            failures.append("only one of both has an overscan")
        if candidate.facts.trim.value != wanted.trim.value:
            failures.append(f"trim {candidate.facts.trim.value} is not {wanted.trim.value}")
        return failures
    return _check_existing(wanted, shape, candidate, stamps)


def _check_existing(wanted: Facts, shape: tuple[int, int], candidate: Candidate, stamps: Stamps) -> list[str]:
    """Return where a master that exists already was treated differently from the frame."""
    failures = []
    treatment, trimmed = candidate.treatment, _trimmed(wanted, shape)
    can_be_subtracted = candidate.shape == shape != trimmed and treatment.needs_overscan
    # The pedestal would be subtracted twice, or never; where a bias took it away the overscan does not matter.
    counts = not candidate.trusted and not treatment.is_without_zero and not can_be_subtracted
    if counts and ("overscan" in stamps.done) != (wanted.overscan.value is not None):
        master, frame = ("", "not ") if "overscan" in stamps.done else ("not ", "")
        failures.append(f"it is {master}overscan-subtracted and the frame will {frame}be")
    # One of the raw size is trimmed as the frame is.
    if candidate.shape not in {trimmed, shape}:
        failures.append(f"size {_size(candidate.shape)} is not the frame's {_size(trimmed)} after trimming")
    return failures


def _why_unusable(wanted: Facts, candidate: Candidate) -> list[str]:
    """Return why the levels of an existing master cannot be brought to those of a frame."""
    failures = [candidate.unusable] if candidate.unusable else []
    mine = header_number(wanted, "gain")
    if (
        mine is not None
        and candidate.gains
        and not any(math.isclose(mine, its, rel_tol=STRICTEST.header_relative) for its in candidate.gains)
    ):
        failures.append(f"gain {candidate.gains[0]:g} is not {mine:g}")
    gain = wanted.gain.value or candidate.treatment.gain
    if candidate.kind != "flat" and candidate.treatment.unit == "electron" and gain is None:
        failures.append("it is in electrons, and no gain says how many adu that is: state it by --gain")
    return failures


def distance(wanted: Facts, candidate: Candidate) -> float:
    """Return the days between a frame and the nearest of a master's frames; infinite where a time is unknown."""
    moment = wanted.time.value
    if moment is None or not candidate.times:
        return math.inf
    return min(abs(moment - other) for other in candidate.times)


@dataclass
class Shelf:
    """The masters of a kind that frames choose among. Frames that differ in their times only are compared once."""

    kind: str
    items: list[Candidate]
    levels: Sequence[Level]
    """Those that may be met, in their order."""

    _sorted: dict[Any, _Sorted] = field(default_factory=dict)

    def sift(self, wanted: Facts, shape: tuple[int, int]) -> tuple[list[Match], list[Rejected]]:
        """Return the masters that match a frame, best first, and the others with the reasons.

        Of masters that match equally well only the nearest in time are among them: a year of nights has hundreds.
        """
        key = (shape, *_compared(self.kind, wanted))
        if key not in self._sorted:
            self._sorted[key] = self._sort(wanted, shape)
        alike, rejected = self._sorted[key]
        found: list[tuple[tuple[Any, ...], Match]] = []
        why_not = list(rejected)
        for some in alike:
            nearest = some.nearest(wanted)
            for item, days in nearest:
                match, why = self._match(item, days, some.tried)
                if match is None:
                    why_not.append(Rejected(item.shown, why))
                    continue
                # The name decides between equal distances, so that the plan does not depend on the order of files.
                order = (not item.explicit, match.level, len(match.ignored), days, item.name)
                found.append((order, match))
            if len(nearest) < len(some.items):
                far = "farther in time than those named" if wanted.time.value is not None else "the frame has no time"
                why_not.append(Rejected(f"{len(some.items) - len(nearest)} others", far))
        return [match for _, match in sorted(found, key=itemgetter(0))], why_not

    def _sort(self, wanted: Facts, shape: tuple[int, int]) -> _Sorted:
        """Part the masters by how they compare with a frame, whatever the times are."""
        parts: dict[Any, list[Candidate]] = {}
        reasons: dict[str, list[str]] = {}
        for item in self.items:
            never = [*_why_unusable(wanted, item), *check_stamps(wanted, shape, item)]
            tried = tuple(_try(self.kind, wanted, item, level) for level in self.levels)
            if never or all(failures for failures, _ in tried):
                # What the last level that is allowed still asks for.
                failures = tried[-1].failures if all(failures for failures, _ in tried) else []
                reasons.setdefault("; ".join([*failures, *never]), []).append(item.shown)
            else:
                # Of darks `choose_dark` looks at more: the nearest ones may all have another exposure.
                dark = (item.facts.exposure.value, item.bias_subtracted) if self.kind == "dark" else ()
                key = (item.explicit, dark, *((tuple(failures), tuple(ignored)) for failures, ignored in tried))
                parts.setdefault(key, []).append(item)
        alike = [
            Alike([_try(self.kind, wanted, some[0], level) for level in self.levels], some) for some in parts.values()
        ]
        rejected = [Rejected(name, why) for why, names in reasons.items() for name in _few(names)]
        return _Sorted(alike, rejected)

    def _match(self, item: Candidate, days: float, tried: Sequence[Comparison]) -> tuple[Match | None, str]:
        """Return a candidate with the first level that it meets, or why it meets none."""
        lacks: list[list[str]] = []
        for place, (level, (failures, ignored)) in enumerate(zip(self.levels, tried, strict=True)):
            # Whoever names a master knows what it is.
            can_be_old = level.max_days is not None and not item.explicit
            is_old = can_be_old and math.isfinite(days) and days > (level.max_days or 0.0)
            lacks.append([*failures, f"{days:.0f} days away"] if is_old else failures)
            if not lacks[-1]:
                return Match(item, days, ignored, place, tuple(lacks[0])), ""
        return None, "; ".join(lacks[-1])


@dataclass
class Alike:
    """Masters that compare alike with a frame, but for their times."""

    tried: list[Comparison]
    """At each level."""

    items: list[Candidate]

    @cached_property
    def _times(self) -> list[tuple[float, int]]:
        return sorted((moment, place) for place, item in enumerate(self.items) for moment in item.times)

    @cached_property
    def _runs(self) -> tuple[list[int], list[int]]:
        """Where the next time of another master is, for each of the times: before it and after it."""
        places = [place for _, place in self._times]
        before, after = list(range(-1, len(places) - 1)), list(range(1, len(places) + 1))
        for i in range(1, len(places)):
            before[i] = before[i - 1] if places[i] == places[i - 1] else i - 1
        for i in range(len(places) - 2, -1, -1):
            after[i] = after[i + 1] if places[i] == places[i + 1] else i + 1
        return before, after

    @cached_property
    def _timeless(self) -> list[Candidate]:
        return [item for item in self.items if not item.times]

    def nearest(self, wanted: Facts) -> list[tuple[Candidate, float]]:
        """Return the nearest in time with their distance in days, and those without a time."""
        moment = wanted.time.value
        if len(self.items) <= NEAREST or moment is None:
            some = self.items if len(self.items) <= NEAREST else sorted(self.items, key=_by_name)[:NEAREST]
            return [(item, distance(wanted, item)) for item in some]
        times, (befores, afters) = self._times, self._runs
        after = bisect_left(times, (moment, -1))
        before, found, farthest = after - 1, dict[int, float](), 0.0
        # Outwards from the frame, so that masters come in the order of their distance; those as far as the last one count too.
        while before >= 0 or after < len(times):
            back = moment - times[before][0] if before >= 0 else math.inf
            ahead = times[after][0] - moment if after < len(times) else math.inf
            days = back if back <= ahead else ahead
            if len(found) >= NEAREST and days > farthest:
                break
            place = times[before if back <= ahead else after][1]
            if place not in found:
                found[place] = farthest = days
            # the other times of a run of one master are farther
            before, after = (befores[before], after) if back <= ahead else (before, afters[after])
        known = [(self.items[place], days) for place, days in found.items()]
        return [*known, *((item, math.inf) for item in self._timeless[:NEAREST])]


class _Sorted(NamedTuple):
    """The masters of a shelf, as they compare with frames that differ in their times only."""

    alike: list[Alike]
    rejected: list[Rejected]


NEAREST = 4
"""So many masters that match equally well are looked at more closely, and named."""

MOST_NAMED = 6
"""So many masters that do not match for one reason are named one by one."""


def _few(names: list[str]) -> list[str]:
    """Return names, of which the last ones are counted where there are many."""
    return names if len(names) <= MOST_NAMED else [*names[:NEAREST], f"{len(names) - NEAREST} others"]


def _by_name(item: Candidate) -> str:
    return item.name


def _compared(kind: str, wanted: Facts) -> tuple[Any, ...]:
    """Return all facts of a frame that `compare`, `check_stamps` and `_why_unusable` look at."""
    temperatures = (wanted.temperature.value, wanted.set_temperature.value) if kind == "dark" else ()
    numbers = (fact for name in ("gain", "readnoise") for fact in (wanted.get(name).value, wanted.get(name).keyword))
    keys = (wanted.get(name).value for name in (*COMMON, *OF_FLATS, "overscan", "trim"))
    return (*keys, *numbers, *temperatures)


def _try(kind: str, wanted: Facts, item: Candidate, level: Level) -> Comparison:
    """Compare a candidate with what a level asks for, but for its age."""
    failures, ignored = compare(kind, wanted, item.facts, level)
    # The zero points of both are known, and made equal.
    if item.treatment.pedestal is not None:
        ignored = [key for key in ignored if key != "offset"]
    # Whoever names a master knows what it is.
    silent = [] if item.explicit else [key for key in ignored if key in level.known]
    if silent:
        failures.append(f"not compared by {' and '.join(silent)}, which only one of both has")
    return Comparison(failures, ignored)


def _compare_temperature(wanted: Facts, other: Facts, ignored: list[str], most: float) -> list[str]:
    """Compare temperatures that were set, and those that were measured, where both frames have them."""
    failures = []
    compared = 0
    for key in ("set_temperature", "temperature"):
        ours, theirs = wanted.get(key).value, other.get(key).value
        if ours is not None and theirs is not None:
            compared += 1
            # A cooler that did not reach what was set has another dark current.
            if abs(ours - theirs) > most * (1 + 1e-9):
                # Whole kelvins where they tell the two apart: frames that differ in decimals then have one line in a report.
                digits = ".0f" if abs(ours - theirs) > max(3 * most, 1.0) else ".4g"
                failures.append(f"{key.replace('_', ' ')} {theirs:{digits}} is not {ours:{digits}} within {most:g} K")
                break
    known = [facts.get(key).value for facts in (wanted, other) for key in ("set_temperature", "temperature")]
    if not compared and any(value is not None for value in known):
        ignored.append("temperature")
    return failures


def _none(kind: str, candidates: list[Candidate]) -> str:
    """Say that there is no master."""
    if not candidates:
        return f"no {kind} frames in the night, none given"
    return f"none of {len(candidates)} matches" if len(candidates) > 1 else f"{candidates[0].shown} does not match"


def _choice(kind: str, match: Match, why: str, why_not: list[Rejected]) -> Choice:
    """Make the choice of a candidate, and say what may be wrong with it."""
    best, days = match.candidate, match.days
    doubts = [f"{kind} {best.shown}: {doubt}" for doubt in best.doubts]
    doubts += [f"{kind} {best.shown} {_clause(why)}" for why in match.lacks if match.level]
    return Choice(
        kind,
        best.name,
        why,
        days if math.isfinite(days) else None,
        tuple(why_not),
        best.stamps is not None,
        best.explicit,
        level=match.level,
        doubts=tuple(doubts),
        treatment=best.treatment,
    )


def _clause(why: str) -> str:
    """Return what a master lacks for the first level, as it stands behind its name."""
    return (
        f"was {why}" if why.startswith("not compared") else f"is {why}" if why.endswith(" away") else f"differs: {why}"
    )


def _why(match: Match) -> str:
    """Say why a master was taken."""
    best, ignored = match.candidate, match.ignored
    frames = f"{best.count} frame{'s' if best.count > 1 else ''}"
    if not best.count:
        frames = "given" if best.explicit else "file"
    return f"{frames}; not compared, only one has it: {', '.join(ignored)}" if ignored else frames


def _farther(match: Match, best: Match) -> str:
    """Say why a master that matches was not taken."""
    if best.candidate.explicit and not match.candidate.explicit:
        return f"{best.candidate.shown} was given"
    if match.level > best.level:
        return _worse(match, best)
    if len(match.ignored) > len(best.ignored):
        return f"{best.candidate.shown} agrees on more keys"
    return f"farther in time: {away(match.days)}, the chosen one {away(best.days)}"


def _worse(match: Match, best: Match) -> str:
    """Say that a master meets a worse level than the chosen one."""
    return f"level {match.level}, the chosen one level {best.level}: {'; '.join(match.lacks)}"


def previous_of(group: MasterGroup, existing: Sequence[Candidate]) -> str:
    """Return the file of the master that is to be compared with one of the night; empty where there is none.

    It is the nearest in time of those of the same kind and settings that `lazyccd reduce` made: their levels mean the same. The level
    of a dark grows with its exposure, so that is the same too.
    """
    alike = [
        item
        for item in existing
        if item.kind == group.kind and item.is_own and not item.explicit and not item.unusable
        if not compare(group.kind, group.facts, item.facts).failures
        and (group.kind != "dark" or is_same_exposure(group.facts.exposure.value, item.facts.exposure.value))
    ]
    nearest = min(alike, key=lambda item: (distance(group.facts, item), item.name), default=None)
    return "" if nearest is None else split_hdu(nearest.name)[0]


def away(days: float) -> str:
    """Return a distance in time."""
    if not math.isfinite(days):
        return "time unknown"
    return f"{days:.1f} d away" if days >= 2 else f"{days * 24:.1f} h away"


def _trimmed(wanted: Facts, shape: tuple[int, int]) -> tuple[int, int]:
    """Return a frame's shape after trimming."""
    if wanted.trim.value is None:
        return shape
    region = parse_section(wanted.trim.value, shape).region
    return region.shape.y, region.shape.x


def _seconds(facts: Facts) -> str:
    """Return an exposure as text."""
    return value_to_text("exposure", facts.exposure.value)


def _size(shape: tuple[int, ...]) -> str:
    """Return a shape as 'columns x rows'."""
    return f"{shape[1]} x {shape[0]}"
