"""The plan of a night: what each file is, which masters are made of what, and what each frame gets, with reasons.

A `NightPlan` is all that the runner needs; it reads no header for a decision:

1. For each of `NightPlan.groups`, in order: reduce the members by their frame plans, combine, write ``masters/<file>``.
2. For each of `NightPlan.science`: reduce by its frame plan. Images of one file, and their masters, become one file again.
3. Measured gains and read noises go in by `NightPlan.with_fact`, before, from the groups that `pairs` names.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from lazyccd.batch.classify import Stamps, calibration_of
from lazyccd.batch.collect import Skipped
from lazyccd.batch.metadata import Fact, Facts
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.errors import ParameterError
from lazyccd.frame.header_values import find_number
from lazyccd.io.names import split_hdu
from lazyccd.ops.mosaic.split import Tap

Status: TypeAlias = Literal["COMPLETE", "PARTIAL", "REFUSED", "LISTED"]
"""What is expected of a frame; what becomes of it is in `lazyccd.batch.outcome`."""

DoubtKind: TypeAlias = Literal[
    "refused",
    "listed",
    "unreadable",
    "missing",
    "inherited",
    "failed",
    "blocked",
    "skipped",
    "fact",
    "master",
    "measured",
    "cosmic rays",
    "check",
]
FOUND: frozenset[DoubtKind] = frozenset({"measured", "cosmic rays", "check"})
"""Doubts that only the pixels can raise, while a night is reduced."""


@dataclass(frozen=True)
class Doubt:
    """Something that a user must know before trusting a product; it keeps the product from being COMPLETE."""

    kind: DoubtKind
    text: str
    way_out: str = ""
    """What to do about it; empty where the text says it, or nothing helps."""

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.text}; {self.way_out}" if self.way_out else self.text


@dataclass(frozen=True)
class Treatment:
    """What an existing master needs before it is used; the defaults change nothing."""

    unit: str = ""
    """Unit of its pixels where that is not what its header says; empty where it is."""

    scale: float = 1.0
    """Full range of values that are parts of it."""

    pedestal: float | None = None
    """What PEDESTAL says was added to its pixels; None without that keyword."""

    level: float | None = None
    """What a flat is divided by; None where it is normalised."""

    gain: float | None = None
    """Electrons per adu of its frames, for a master in electrons."""

    needs_overscan: bool = False
    """Whether a master of the raw size still has the level of its overscan."""

    is_inverted: bool = False
    """Whether 0 marks the bad pixels of a mask."""

    is_without_zero: bool = False
    """Whether the zero level was taken from a flat or dark, by overscan or bias."""

    def zero_below(self, facts: Facts, kind: str) -> float:
        """Return what the zero point of the master lies above that of a frame."""
        if self.pedestal is None:
            return 0.0
        # A camera that adds a pedestal to every raw frame adds it to those of the bias too.
        raw = facts.offset if facts.offset.keyword == "PEDESTAL" else None
        own = find_number(raw.value) if raw is not None and not self.is_without_zero and kind != "flat" else None
        return self.pedestal - abs(own or 0.0)


class Rejected(NamedTuple):
    """A master that a frame does not get."""

    master: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """Which master a frame gets for one step, and why no other."""

    kind: str
    """bias, dark, flat or bpm."""

    master: str = ""
    """Name of a group, or path of an existing file; empty where there is none."""

    why: str = ""
    away: float | None = None
    """Days to the nearest of the master's frames."""

    why_not: tuple[Rejected, ...] = ()
    """Other candidates, and why they were not taken."""

    is_file: bool = False
    """Whether the master exists already."""

    is_named: bool = False
    """Whether it was given by name, and not found in a folder."""

    scale: float = 1.0
    """Factor of a dark: exposure of the frame over that of the dark; 1 at equal exposure."""

    level: int = 0
    """How well it fits: 0 is best. See `lazyccd.batch.levels`."""

    exposure: float | None = None
    """Exposure of a dark in seconds; None where it is not known."""

    contains_bias: bool = False
    """Whether a dark takes the bias away with it."""

    doubts: tuple[str, ...] = ()
    """Why it may be the wrong one."""

    treatment: Treatment = field(default_factory=Treatment)
    """What a master that exists already needs before it is used."""

    @property
    def reason(self) -> str:
        """Why it was taken, and how far it is in time."""
        return self.why if self.away is None else f"{self.why}, {self.away * 24:.1f} h away"

    def __bool__(self) -> bool:
        """Return whether there is a master."""
        return bool(self.master)


@dataclass(frozen=True)
class FramePlan:
    """What one file is, and what will be done with it."""

    name: str
    """Short name, below the night's folder."""

    source: str
    """What opens it."""

    shape: tuple[int, int]
    facts: Facts
    stamps: Stamps = field(default_factory=Stamps)
    night: str = ""
    """Date of the evening of the night; empty where the time is not known."""

    group: str = ""
    """Master that the frame is part of."""

    bias: Choice = Choice("bias")
    dark: Choice = Choice("dark")
    flat: Choice = Choice("flat")
    bpm: Choice = Choice("bpm")
    needs: tuple[str, ...] = ()
    """What must not be missing for a complete product."""

    to_measure: tuple[str, ...] = ()
    """Facts among gain and readnoise that no source gives and that pairs of frames will."""

    inherited: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Masters that lack something themselves, and what."""

    inherited_doubts: tuple[tuple[str, str], ...] = ()
    """Masters that may be wrong, and why."""

    lost: tuple[str, ...] = ()
    """Images of its file that cannot be read, if it is reduced without them."""

    listed: str = ""
    """Why nothing is done with it, though nothing is wrong."""

    refused: str = ""
    """Why nothing is done with it, though something was asked for."""

    notes: tuple[str, ...] = ()

    part: str = ""
    """Which image of its file it is, such as ``SCI,1``; empty for the only one."""

    child: str = ""
    """Its name in the tree of the file, which its products keep; empty for the only one."""

    tap: Tap | None = None
    """Where it lies in the image that `source` opens, if it is one of several amplifiers of that."""

    @property
    def kind(self) -> str:
        """The type of frame."""
        return self.facts.kind

    @property
    def is_reduced(self) -> bool:
        """Whether something is done with it."""
        return not self.listed and not self.refused

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The masters in the order of the steps."""
        return self.bias, self.dark, self.flat, self.bpm

    @property
    def missing(self) -> tuple[str, ...]:
        """What a complete product would need and this one lacks, masters' shortcomings included."""
        if not self.is_reduced:
            return ()
        return tuple(dict.fromkeys([*self.lacks, *(kind for _, kinds in self.inherited for kind in kinds)]))

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this frame itself lacks. A dark at equal exposure that contains the bias stands for it."""
        # What pairs will give is not missing: the plan would call a complete product PARTIAL.
        have = {choice.kind for choice in self.choices if choice} | set(self.to_measure)
        have |= {name for name in ("gain", "readnoise") if self.facts.get(name).value is not None}
        # The pedestal is removed, which is what a bias is needed for.
        if self.contains_bias:
            have.add("bias")
        return tuple(kind for kind in self.needs if kind not in have)

    @property
    def contains_bias(self) -> bool:
        """Whether the dark takes the bias away with it."""
        return self.dark.contains_bias

    @property
    def status(self) -> Status:
        """What becomes of it."""
        if self.refused:
            return "REFUSED"
        if self.listed:
            return "LISTED"
        return "PARTIAL" if self.doubts else "COMPLETE"

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the status is not COMPLETE, one by one."""
        if self.refused:
            return (Doubt("refused", self.refused),)
        if self.listed:
            return (Doubt("listed", self.listed),)
        return (
            *(Doubt("unreadable", f"{name} cannot be read") for name in self.lost),
            *(Doubt("missing", f"no {kind}: {self._why(kind)}") for kind in self.lacks),
            *(Doubt("inherited", f"{master} has no {' and no '.join(kinds)}") for master, kinds in self.inherited),
            *self.own_doubts,
            *(Doubt("inherited", f"{master}: {why}") for master, why in self.inherited_doubts),
        )

    @property
    def own_doubts(self) -> tuple[Doubt, ...]:
        """What may be wrong though nothing is missing: facts that this product depends on, and choices of masters."""
        return (
            *(Doubt("fact", f"{name}: {why}") for name, why in self.facts.doubts.items() if self.depends_on(name)),
            *(Doubt("master", why) for choice in self.choices for why in choice.doubts),
        )

    def depends_on(self, fact: str) -> bool:
        """Return whether another value of a fact would give other pixels."""
        if fact == "exposure":
            return bool(self.dark) or self.kind == "dark"
        if fact in {"filter", "grating", "slit", "mode"}:
            return bool(self.flat) or calibration_of(self.kind) == "flat"
        return fact not in {"time", "object"}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the status is not COMPLETE, as lines."""
        return tuple(map(str, self.doubts))

    @property
    def reason(self) -> str:
        """Why the status is not COMPLETE, in one line."""
        return "; ".join(self.reasons)

    def _why(self, kind: str) -> str:
        """Say why something is missing."""
        if kind in {"gain", "readnoise"}:
            return self.facts.get(kind).note or self.facts.get(kind).source
        choice: Choice = getattr(self, kind)
        return choice.why


@dataclass(frozen=True)
class MasterGroup:
    """Frames that become one master."""

    name: str

    kind: str
    """bias, dark or flat."""

    members: tuple[str, ...]
    """Short names, in the order of time."""

    facts: Facts
    """Those of the first member."""

    shape: tuple[int, int]
    times: tuple[float, ...] = ()
    why: str = ""
    exposure: str = ""
    """Name of the file that it shares with the masters of other images of the same exposures; empty for one of its own."""

    previous: str = ""
    """File of the master of the same kind and settings that was made last, of those in the folders of existing ones."""

    @property
    def file(self) -> str:
        """Name of its file."""
        return self.exposure or self.name


@dataclass(frozen=True)
class Pairs:
    """Groups whose pairs of frames give gain and read noise, and the frames that these are for."""

    zero: str
    """A bias, or where there is none a dark: its noise, dark noise included, is an upper limit."""

    flat: str
    """A flat, empty where there is none: then only the read noise in adu can be had."""

    frames: tuple[str, ...]


@dataclass(frozen=True)
class NightPlan:
    """What will be done with a night."""

    folder: str
    frames: tuple[FramePlan, ...]
    """One for each image, in the order of the files."""

    groups: tuple[MasterGroup, ...]
    """Masters to make, in an order in which each has what it needs."""

    skipped: tuple[Skipped, ...] = ()
    """Files that cannot be used, and why."""

    options: Options = field(default_factory=Options)
    notes: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    """What is done to the frames."""

    @property
    def science(self) -> tuple[FramePlan, ...]:
        """Frames of the sky that are reduced."""
        return tuple(item for item in self.frames if item.kind == "science" and item.is_reduced)

    def frame(self, name: str) -> FramePlan:
        """Return the plan of a frame."""
        if name not in self._frames_by_name:
            raise ParameterError(f"file {name!r} is not part of the night in {self.folder!r}; use a name of its table.")
        return self._frames_by_name[name]

    def group(self, name: str) -> MasterGroup:
        """Return a master to make."""
        if name in self._groups_by_name:
            return self._groups_by_name[name]
        raise ParameterError(f"master {name!r} must be one of {[item.name for item in self.groups]}.")

    @cached_property
    def _groups_by_name(self) -> dict[str, MasterGroup]:
        return {item.name: item for item in self.groups}

    @cached_property
    def _frames_by_name(self) -> dict[str, FramePlan]:
        # A night of a mosaic has thousands of images, and each master looks up its members by name.
        return {item.name: item for item in self.frames}

    @cached_property
    def _files(self) -> dict[str, str]:
        return {group.name: group.file for group in self.groups}

    def master_file(self, master: str) -> str:
        """Return the name of the file of a master, which may have those of other images too."""
        return self._files.get(master) or os.path.basename(split_hdu(master)[0])

    def members(self, name: str) -> tuple[FramePlan, ...]:
        """Return the plans of a master's frames."""
        return tuple(self.frame(member) for member in self.group(name).members)

    @cached_property
    def product_names(self) -> dict[str, str]:
        """The name of each science product, without its ending, by that of its exposure; they differ by more than case."""
        names = list(dict.fromkeys(exposure_name(item) for item in self.science))
        taken: set[str] = set()
        found = {}
        counts = Counter(product_name(name).casefold() for name in names)
        for name in names:
            plain = product_name(name)
            folders = "_".join(part for part in name.split("/")[:-1] if part != "..")
            # r1/a.fits and r2/a.fits are told apart by their folders, a.fits and A.fits by numbers.
            stem = f"{folders}_{plain}" if counts[plain.casefold()] > 1 and folders else plain
            unique = next(each for each in _numbered(stem) if each.casefold() not in taken)
            taken.add(unique.casefold())
            found[name] = unique
        return found

    def members_of(self, name: str, kind: str) -> tuple[FramePlan, ...]:
        """Return the plans of the frames behind a product: an exposure, or a file of masters."""
        return self._behind.get((name, kind == "science"), ())

    @cached_property
    def _behind(self) -> dict[tuple[str, bool], tuple[FramePlan, ...]]:
        found: dict[tuple[str, bool], tuple[FramePlan, ...]] = {}
        for group in self.groups:
            key = group.file, False
            found[key] = (*found.get(key, ()), *self.members(group.name))
        for item in self.science:
            key = exposure_name(item), True
            found[key] = (*found.get(key, ()), item)
        return found

    def with_fact(self, names: Iterable[str], fact: str, value: Fact[Any]) -> NightPlan:
        """Return a plan where some frames have another fact, such as a measured gain, or one that could not be."""
        chosen = set(names)

        def change(item: FramePlan) -> FramePlan:
            left = tuple(name for name in item.to_measure if name != fact)
            return replace(item, facts=item.facts.with_fact(fact, value), to_measure=left)

        return replace(self, frames=tuple(change(item) if item.name in chosen else item for item in self.frames))

    def bias_noise(self, item: FramePlan) -> float:
        r"""Return the factor of the noise that the master bias adds to a frame.

        With a dark of the night scaled by :math:`k`, the frame is :math:`L - B - k (D - B)` and the bias' error goes in by
        :math:`1 - k`: not at all at equal exposure. Hence a master dark has the noise of its own frames only. If it was made
        with another bias, :math:`\sqrt{1 + k^2}`: that bias is taken to be as good.
        """
        # The bias cancels between a dark and its frame, and its noise with it.
        if calibration_of(item.kind) == "dark":
            return 0.0
        if not item.bias or not item.dark or item.dark.is_file:
            return 1.0
        k = item.dark.scale
        # Errors of a shared master are correlated: they subtract before they are squared.
        shared = {member.bias.master for member in self.members(item.dark.master)} == {item.bias.master}
        return abs(1 - k) if shared else math.hypot(1, k)

    @property
    def pairs(self) -> tuple[Pairs, ...]:
        """What gain and read noise can be measured from: for each zero of two frames, its flat of two or more."""
        found = []
        using: dict[str, list[FramePlan]] = {}
        for item in self.frames:
            for name in {item.bias.master, item.dark.master, item.group}:
                using.setdefault(name, []).append(item)
        for zero in self.groups:
            users = using.get(zero.name, [])
            # Darks serve only where there is no bias of the night: their noise has dark current in it.
            if len(zero.members) < 2 or zero.kind == "flat" or (zero.kind == "dark" and _has_bias(users)):
                continue
            flats = [item for item in users if calibration_of(item.kind) == "flat" and item.group]
            names = [group.name for group in self.groups if group.name in {item.group for item in flats}]
            # One flat has no pair.
            big = [name for name in names if len(self.group(name).members) > 1]
            found.append(Pairs(zero.name, big[0] if big else "", tuple(item.name for item in users)))
        return tuple(found)

    @property
    def exit_status(self) -> int:
        """0: all complete; 3: some lack more than was allowed; 1: a file cannot be used as asked."""
        lost = {name for item in self.frames for name in item.lost}
        # An image that was left out because it was asked for is a lack, not a failure.
        if any(name not in lost for name, _ in self.skipped) or any(item.refused for item in self.frames):
            return 1
        # Only science frames count: a master that lacks something tells so through the frames that use it.
        lacking = {kind for item in self.science for kind in item.missing}
        doubtful = any(item.own_doubts or item.inherited_doubts for item in self.science)
        # What is not recognised at all must not look like a night that went well.
        if not any(item.is_reduced for item in self.frames):
            return 1
        unknown = [item for item in self.frames if item.kind == "unknown"]
        # Exposures of the sky whose type is misspelled leave a night without products.
        untyped = any(item.facts.type.doubt for item in unknown) or (bool(unknown) and not self.science)
        return 3 if lost or doubtful or untyped or lacking - set(self.options.allow_missing) else 0


def exposure_name(frame_plan: FramePlan) -> str:
    """Return the name of the product of a frame: that of its file if this has several images."""
    return split_hdu(frame_plan.name)[0] if frame_plan.child else frame_plan.name


def product_name(name: str) -> str:
    """Return a file's name without folder, extension and ending.

    Examples
    --------
    >>> product_name("r/obj12.fits.gz"), product_name("a.fit[SCI,2]")
    ('obj12', 'a_SCI_2')
    """
    file, selector = split_hdu(name)
    base = os.path.basename(file)
    for packed in (".gz", ".bz2", ".xz", ".fz", ""):
        for stem in (".fits", ".fit", ".fts"):
            if base.lower().endswith(stem + packed):
                base = base[: -len(stem + packed)]
                return base + ("_" + re.sub("[,/]", "_", selector) if selector else "")
    return base


def _numbered(stem: str) -> Iterator[str]:
    """Yield a name, then the same with 2, 3, ... behind it."""
    yield stem
    for number in itertools.count(2):
        yield f"{stem}_{number}"


def needed(kind: str, needs_dark: bool) -> tuple[str, ...]:
    """Return what a frame of some type needs for a complete product."""
    if kind == "science":
        return ("bias", "dark", "flat", "gain", "readnoise") if needs_dark else ("bias", "flat", "gain", "readnoise")
    return ("bias",) if calibration_of(kind) == "flat" else ()


def _has_bias(users: list[FramePlan]) -> bool:
    """Return whether frames have a bias of the night, whose pairs are the better ones; a file has no pairs."""
    return any(item.bias and not item.bias.is_file for item in users)
