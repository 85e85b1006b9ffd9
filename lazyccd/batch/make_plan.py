"""From files and options to the plan of a night."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

from lazyccd.batch.amplifiers import split_images
from lazyccd.batch.associate import Candidate, Shelf, choose, choose_dark, choose_mask, groups_of, previous_of
from lazyccd.batch.cameras import Camera, load_camera
from lazyccd.batch.classify import CALIBRATIONS, calibration_of
from lazyccd.batch.collect import NightFiles
from lazyccd.batch.describe import Describer, Edit
from lazyccd.batch.existing_masters import existing_masters, missing_use, with_measured
from lazyccd.batch.levels import Levels, allowed
from lazyccd.batch.metadata import parse_expression
from lazyccd.batch.night_plan import Choice, FramePlan, MasterGroup, NightPlan
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.batch.veto import without_vetoed
from lazyccd.errors import ParameterError
from lazyccd.io.names import split_hdu


def build_plan(
    collection: NightFiles,
    options: Options | None = None,
    edits: Mapping[str, Edit] | None = None,
    recipe: Recipe | None = None,
) -> NightPlan:
    """Plan a night.

    Parameters
    ----------
    collection
        Files with their headers.
    options
        What was asked for.
    edits
        For each file that a table changed, what it says.
    recipe
        What is done to the frames, and how well masters must fit; the built-in one if None.

    Raises
    ------
    ParameterError
        Raised if an option cannot be used, or a master that was given fits no frame by how it was treated.
    """
    options, recipe = options or Options(), recipe or Recipe()
    user = load_camera(options.camera) if options.camera else None
    # A table that fits nothing is a misspelled [match]; ignored, it would give plausible and wrong products.
    if user is not None and collection.frames and not any(user.fits(frame) for frame in collection.frames):
        raise ParameterError(
            f"camera table {options.camera!r} matches none of the {len(collection.frames)} files; correct its [match]."
        )
    collection = replace(collection, frames=split_images(collection.frames, user, options.facts))
    edits = edits or {}
    describer, unedited = Describer(options, user, recipe), Edit()
    frame_plans = [describer.describe(frame, edits.get(frame.name, unedited)) for frame in collection.frames]
    _check_unique(frame_plans)
    frame_plans, remembered = without_vetoed(frame_plans, options)
    noon = night_noon(frame_plans)
    frame_plans = [replace(item, night=night_of(item.facts.time.value, noon)) for item in frame_plans]
    frame_plans = _doubt_filters(doubt_exposures(frame_plans))
    if options.on_error == "skip":
        frame_plans = [replace(item, lost=_lost(item, collection)) for item in frame_plans]
    existing, notes = existing_masters(options, user, frame_plans)
    levels = {kind: allowed(some, options.max_level) for kind, some in recipe.levels.items()}
    plan = NightPlan(
        collection.folder,
        tuple(frame_plans),
        (),
        collection.skipped,
        options,
        (*collection.notes, *_unused_keys(collection, user), *notes, *remembered),
        recipe,
    )
    # In this order: darks get a bias, flats both, so each master knows what it will be subtracted from.
    for kind in CALIBRATIONS:
        plan = _add_groups(plan, kind, existing, levels)
    plan = _mark_measurable(_assign(plan, "science", existing, levels))
    refused, unused = missing_use(plan, existing)
    plan = inherit(replace(plan, frames=tuple(_doubting(item, refused) for item in plan.frames)))
    return replace(plan, notes=(*plan.notes, *unused))


def _doubting(item: FramePlan, refused: Mapping[str, list[str]]) -> FramePlan:
    """Return the plan of a frame of the sky that has a doubt for each master that was named and could not be used."""
    if item.kind != "science" or not item.is_reduced:
        return item
    for kind, why in refused.items():
        choice: Choice = getattr(item, kind)
        # Of flats for many filters those that no frame needs are no fault.
        if not (choice.is_file and choice.is_named):
            changed: dict[str, Any] = {kind: replace(choice, doubts=(*choice.doubts, *why))}
            item = replace(item, **changed)
    return item


def _lost(item: FramePlan, collection: NightFiles) -> tuple[str, ...]:
    """Return the images of the file of an image that cannot be read."""
    file = split_hdu(item.name)[0]
    return tuple(name for name, _ in collection.skipped if name.startswith(f"{file}["))


def _unused_keys(collection: NightFiles, user: Camera | None) -> list[str]:
    """Say for which facts the user's table names keywords that no file has: they may be misspelt."""
    if user is None or not user.keys:
        return []
    there = {keyword for frame in collection.frames for keyword in frame.keywords()}
    return [
        f"{user.label}: [keys] {rule.name} = {', '.join(map(repr, rule.values))}: no file has "
        f"{'this keyword' if len(rule.values) == 1 else 'any of these keywords'}; 'lazyccd info --header FILE' lists those it has"
        for rule in user.keys
        if not any(there & {*parse_expression(expression)[0]} for expression in rule.values)
    ]


def _doubt_filters(frame_plans: list[FramePlan]) -> list[FramePlan]:
    """Return frame plans in which flats without a filter are in doubt, if OBJECT calls them by several names.

    They would become one master: of all filters, if the names are those of filters.
    """
    flats = [item for item in frame_plans if calibration_of(item.kind) == "flat" and item.facts.filter.value is None]
    # Flats of the dome and of the sky are not mixed; numbers are those of a series.
    titles: dict[tuple[str, str], str] = {}
    for item in flats:
        words = re.sub(r"[\W\d_]+", " ", item.facts.object.value or "").strip().upper()
        titles |= {(item.kind, words): repr(item.facts.object.value)} if words else {}
    kinds = Counter(kind for kind, _ in titles)
    flats = [item for item in flats if kinds[item.kind] > 1]
    if not flats:
        return frame_plans
    names = sorted(name for (kind, _), name in titles.items() if kinds[kind] > 1)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    doubt = (
        f'no keyword says which, and OBJECT calls flats {shown}; state it in a camera table by [keys] filter = "KEYWORD", or '
        f'by [fix] "filter@OBJECT=..." = "R"'
    )
    named = {item.name for item in flats}
    return [
        replace(item, facts=item.facts.with_fact("filter", replace(item.facts.filter, doubt=doubt)))
        if item.name in named and not item.facts.filter.doubt
        else item
        for item in frame_plans
    ]


def night_noon(frame_plans: list[FramePlan]) -> float:
    """Return the time of day, as a fraction of a day, at which one night ends and the next begins.

    It is the middle of the longest part of the day in which no exposure of the sky begins; so no longitude is needed.
    """
    # Calibrations are taken at noon too; only exposures of the sky show when it is dark.
    science = [item for item in frame_plans if item.kind == "science"] or frame_plans
    times = sorted(item.facts.time.value % 1 for item in science if item.facts.time.value is not None)
    if not times:
        return 0.0
    gaps = [(after - before, before) for before, after in zip(times, [*times[1:], times[0] + 1], strict=True)]
    length, begin = max(gaps)
    return (begin + length / 2) % 1


def night_of(moment: float | None, noon: float) -> str:
    """Return the date of the evening of the night that a time belongs to."""
    return "" if moment is None else (date(1858, 11, 17) + timedelta(days=math.floor(moment - noon))).isoformat()


def doubt_exposures(frame_plans: list[FramePlan]) -> list[FramePlan]:
    """Return frame plans in which exposures that the next one cut short are in doubt: they may be in milliseconds.

    If all exposures of a night are in milliseconds, no ratio of them shows it, but their clock does.
    """
    after: dict[str, float] = {}
    # Cameras that expose at the same time have other detectors or filters.
    keys = ("telescope", "instrument", "detector", "filter", "binning", "window")
    series: dict[tuple[Any, ...], list[FramePlan]] = {}
    for item in frame_plans:
        if item.facts.time.value is not None and item.facts.exposure.keyword and not item.facts.exposure.has_unit:
            series.setdefault((item.shape, *(item.facts.get(key).value for key in keys)), []).append(item)
    for some in series.values():
        after |= _times_after(sorted(some, key=_by_time))
    exposed = {item.name: item for item in frame_plans if item.name in after and item.facts.exposure.value}
    cut = {name: item for name, item in exposed.items() if (item.facts.exposure.value or 0.0) > after[name]}
    if not cut:
        return frame_plans
    # Where most are impossible, it is the keyword that is not in seconds.
    worst = max(cut.values(), key=lambda item: (item.facts.exposure.value or 0.0) / after[item.name])
    keywords = {worst.facts.exposure.keyword} if 2 * len(cut) > len(exposed) else set()
    return [
        _with_doubtful_exposure(item, worst if item.facts.exposure.keyword in keywords else item, after)
        if item.name in cut or (item.facts.exposure.keyword in keywords and item.facts.exposure.value)
        else item
        for item in frame_plans
    ]


def _times_after(series: list[FramePlan]) -> dict[str, float]:
    """Return how long each exposure of a camera can have been at most, in seconds, where the next one tells.

    Parameters
    ----------
    series
        Exposures of one camera, in the order of time.
    """
    seconds = [round((item.facts.time.value or 0.0) * 86400, 3) for item in series]
    # Some clocks are read to the minute, most to the second.
    error = 60.0 if all(value % 60 < 0.01 or value % 60 > 59.99 for value in seconds) else 2.0
    pairs = list(pairwise(sorted(set(seconds))))
    after = {one: other - one for one, other in pairs}
    # Cameras that write the time of the end leave room before it.
    before = {other: other - one for one, other in pairs}
    if pairs:
        (first, second), gap = pairs[0], pairs[0][1] - pairs[0][0]
        ends = (
            item.facts.exposure.value or 0.0 for item, value in zip(series, seconds, strict=True) if value == second
        )
        before[first] = math.inf if max(ends) <= gap + error else 0.0
    return {
        item.name: 1.05 * max(after[value], before[value]) + error
        for item, value in zip(series, seconds, strict=True)
        if value in after
    }


def _with_doubtful_exposure(item: FramePlan, example: FramePlan, after: Mapping[str, float]) -> FramePlan:
    """Return a frame plan whose exposure is in doubt, for what an example of the same keyword shows."""
    fact, its = item.facts.exposure, example.facts.exposure
    if fact.doubt:
        return item
    doubt = (
        f"{its.keyword} of {example.name} says {its.value:g} s, but the next exposure began within {after[example.name]:.0f} s; "
        f'state the unit by [keys] exposure = "{its.keyword} [ms]", or "{its.keyword} [s]", in a camera table'
    )
    return replace(item, facts=item.facts.with_fact("exposure", replace(fact, doubt=doubt)))


def inherit(plan: NightPlan) -> NightPlan:
    """Tell each frame which of its masters lack something."""
    # Kind by kind, because a flat inherits from its dark what the science frame inherits from the flat.
    for kind in (*CALIBRATIONS[1:], "science"):
        lacking = {
            group.name: tuple(dict.fromkeys(kind for item in plan.members(group.name) for kind in item.missing))
            for group in plan.groups
        }
        doubts = {group.name: _doubts_of(plan, group) for group in plan.groups}
        frame_plans = tuple(
            _inheriting(item, plan, lacking, doubts) if (calibration_of(item.kind) or item.kind) == kind else item
            for item in plan.frames
        )
        plan = replace(plan, frames=frame_plans)
    return plan


def _inheriting(
    item: FramePlan,
    plan: NightPlan,
    lacking: Mapping[str, tuple[str, ...]],
    doubts: Mapping[str, tuple[tuple[str, str], ...]],
) -> FramePlan:
    """Return a frame plan with what its masters lack and why they may be wrong."""
    masters = [choice.master for choice in item.choices]
    inherited = tuple((plan.master_file(master), lacking[master]) for master in masters if lacking.get(master))
    told = dict.fromkeys(doubt for master in masters for doubt in doubts.get(master, ()))
    # A cause that is the frame's own, or comes by several masters, is said once.
    causes = set(map(str, item.own_doubts)) if told else set()
    inherited_doubts = tuple(doubt for doubt in told if doubt[1] not in causes)
    if inherited == item.inherited and inherited_doubts == item.inherited_doubts:
        return item
    return replace(item, inherited=inherited, inherited_doubts=inherited_doubts)


def _doubts_of(plan: NightPlan, group: MasterGroup) -> tuple[tuple[str, str], ...]:
    """Return why a master may be wrong, and which master is the cause; each reason once for all frames that give it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in plan.members(group.name):
        own = [(group.file, why) for why in map(str, item.own_doubts)]
        for doubt in (*own, *item.inherited_doubts):
            reasons.setdefault(doubt, []).append(item.name)
    return tuple(
        (master, why if len(names) == len(group.members) else f"{', '.join(names)}: {why}")
        for (master, why), names in reasons.items()
    )


def _check_unique(frame_plans: list[FramePlan]) -> None:
    """Refuse two images of one name."""
    counts = Counter(item.name for item in frame_plans)
    for name, count in counts.items():
        if count > 1:
            raise ParameterError(f"file {name!r} is given twice with different extensions; name them one by one.")


def _add_groups(plan: NightPlan, kind: str, existing: list[Candidate], levels: Levels) -> NightPlan:
    """Group the frames of one kind, and give them their own masters."""
    frames = [item for item in plan.frames if calibration_of(item.kind) == kind and item.is_reduced]
    # Names of groups must not depend on the order in which files were named.
    gathered = [sorted(group, key=_by_time) for group in groups_of(kind, frames)]
    gathered.sort(key=lambda group: _by_time(group[0]))
    groups = list(plan.groups)
    for group in gathered:
        made = make_group(kind, group, groups)
        groups.append(replace(made, previous=previous_of(made, existing)))
    joined = {member: group.name for group in groups for member in group.members}
    frame_plans = tuple(
        item if item.group == joined.get(item.name, "") else replace(item, group=joined.get(item.name, ""))
        for item in plan.frames
    )
    return _assign(replace(plan, frames=frame_plans, groups=tuple(groups)), kind, existing, levels)


def _by_time(item: FramePlan) -> tuple[bool, float, str]:
    """Return the order of frames: by time, those without one last, then by name."""
    return item.facts.time.value is None, item.facts.time.value or 0.0, item.name


def make_group(
    kind: str, members: list[FramePlan], others: Sequence[MasterGroup], name: str = "", why: str = ""
) -> MasterGroup:
    """Make a group, with a name that says what it is and that no other has."""
    first = members[0]
    part = "" if name else _word(first.part)
    # Some file systems do not tell R from r.
    names, files = ({name.casefold() for name in some} for some in ([o.name for o in others], [o.file for o in others]))
    name = name or _group_name(kind, first)
    for count in itertools.count(1):
        # Two detectors or two readouts of one night give groups of one name.
        file = name if count == 1 else f"{name}_{count}"
        unique = f"{file}_{part}" if part else file
        # masters of other images of the same exposures are in the same file
        if unique.casefold() not in names and file.casefold() not in (names if part else files):
            break
    times = tuple(item.facts.time.value for item in members if item.facts.time.value is not None)
    exposure = file if part else ""
    return MasterGroup(
        unique, kind, tuple(item.name for item in members), first.facts, first.shape, times, why, exposure
    )


def _group_name(kind: str, first: FramePlan) -> str:
    """Return a name such as 'skyflat_g-782_2022-01-27', fit for a file."""
    facts = first.facts
    parts: list[str | None] = [facts.kind]
    if kind == "dark" and facts.exposure.value is not None:
        parts.append(f"{facts.exposure.value:g}s")
    if kind == "flat":
        parts += [facts.filter.value, facts.grating.value if facts.mode.value == "spectrum" else None]
    return "_".join(_word(part) for part in [*parts, first.night] if part)


def _word(text: str) -> str:
    """Return text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-.")


def candidates_of(plan: NightPlan, kind: str, existing: list[Candidate]) -> list[Candidate]:
    """Return all masters of a kind: those to be made, then existing ones."""
    made = [
        Candidate(
            group.name,
            kind,
            group.facts,
            group.shape,
            group.times,
            len(group.members),
            bias_subtracted=all(bool(item.bias) for item in plan.members(group.name)),
            label=group.file,
            part=plan.members(group.name)[0].part,
        )
        for group in plan.groups
        if group.kind == kind
    ]
    return [*made, *(item for item in existing if item.kind == kind)]


def _assign(plan: NightPlan, kind: str, existing: list[Candidate], levels: Levels) -> NightPlan:
    """Give the frames of one kind their masters."""
    steps = CALIBRATIONS[: CALIBRATIONS.index(kind)] if kind in CALIBRATIONS else CALIBRATIONS
    candidates = {step: candidates_of(plan, step, existing) for step in (*steps, "bpm") if plan.recipe.uses(step)}

    # All frames of a part share what was compared for one of them.
    @cache
    def shelves(part: str) -> dict[str, Shelf]:
        return {kind: Shelf(kind, _of_part(part, some), levels.get(kind, ())) for kind, some in candidates.items()}

    frame_plans = []
    for item in plan.frames:
        concerned = item.is_reduced and (calibration_of(item.kind) or item.kind) == kind
        frame_plans.append(_with_masters(item, shelves(item.part)) if concerned else item)
    return replace(plan, frames=tuple(frame_plans))


def _with_masters(item: FramePlan, shelves: Mapping[str, Shelf]) -> FramePlan:
    """Return a frame plan with its masters chosen."""
    facts, shape = item.facts, item.shape
    bias, dark, flat, bpm = item.choices
    if "bpm" in shelves:
        bpm = choose_mask(facts, shape, shelves["bpm"].items)
    if "bias" in shelves:
        bias = choose(shelves["bias"], facts, shape)
        facts = with_measured(facts, bias, shelves["bias"].items)
    if "dark" in shelves:
        # A dark that contains the bias takes the bias' place, so both are chosen together.
        dark, bias = choose_dark(shelves["dark"], facts, shape, bias)
    if "flat" in shelves:
        flat = choose(shelves["flat"], facts, shape)
    return replace(item, facts=facts, bias=bias, dark=dark, flat=flat, bpm=bpm)


def _of_part(part: str, candidates: list[Candidate]) -> list[Candidate]:
    """Return the masters of one image of a file: that those of its other images do not fit need not be said."""
    return [item for item in candidates if item.part in {"", part}] or candidates


def _mark_measurable(plan: NightPlan) -> NightPlan:
    """Note for each frame which facts are missing and can be measured by pairs."""
    zeros: dict[str, str] = {}
    gains: dict[str, str] = {}
    for pairs in plan.pairs:
        # The noise of dark frames has dark current in it.
        limit = ", an upper limit" if plan.group(pairs.zero).kind == "dark" else ""
        zeros.update(dict.fromkeys(pairs.frames, f"pairs of {pairs.zero}{limit}"))
        gains.update(dict.fromkeys(pairs.frames if pairs.flat else (), f"pairs of {pairs.zero} and {pairs.flat}"))
    frame_plans = []
    for item in plan.frames:
        for name, sources in (("gain", gains), ("readnoise", zeros)):
            # Pairs give the read noise in adu; without a gain it cannot become electrons.
            has_gain = name == "gain" or item.facts.gain.value is not None or "gain" in item.to_measure
            if item.is_reduced and item.facts.get(name).value is None and item.name in sources and has_gain:
                fact = replace(item.facts.get(name), source=f"to be measured, {sources[item.name]}")
                item = replace(item, facts=item.facts.with_fact(name, fact), to_measure=(*item.to_measure, name))
        frame_plans.append(item)
    return replace(plan, frames=tuple(frame_plans))
