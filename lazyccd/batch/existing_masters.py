"""Masters that exist already, of any program: named one by one, or all of a folder.

1. What a master is: as it was named; in a folder by its type, by LZKIND, or by its name.
2. What its pixels mean (`Treatment`): unit, full range of values from 0 to 1, pedestal, level of a flat, sense of a mask. Where
   nothing tells, the master is refused, with what to do; where it is a guess, the products are PARTIAL.
3. What was done to it: by stamps and HISTORY of IRAF, MaxIm, AstroImageJ, Siril, ccdproc and lazyccd.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from lazyccd.batch.associate import Candidate, check_stamps
from lazyccd.batch.cameras import Camera, cameras_of
from lazyccd.batch.classify import CALIBRATIONS, Stamps, calibration_of, classify, read_stamps
from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.measure import central_region, level
from lazyccd.batch.metadata import Fact, Facts, resolve_facts
from lazyccd.batch.night_plan import Choice, FramePlan, NightPlan, Treatment
from lazyccd.batch.open_master import open_file
from lazyccd.batch.options import Options
from lazyccd.errors import FormatError, LazyCCDError, ParameterError
from lazyccd.frame.core import DATA, resolve
from lazyccd.frame.header_values import find_number, read_text
from lazyccd.frame.stack_header import MEDIAN_SHARE
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name, split_hdu
from lazyccd.kernels.block import Array
from lazyccd.ops.sample import read_pixels

SAMPLE = 1024
"""Side of the central area of a master that is looked at, at most."""

NORMALISED = 0.01
"""A flat whose level is within this of 1 is normalised."""

FULL_RANGE = 65535.0
"""What 1 means where a program writes parts of the range of 16 bits."""

LEAST_ZERO = 50.0
"""Level in adu of a bias above which it shows whether a dark contains it."""

_OF_ONE = re.compile(r"siril|pixinsight", re.IGNORECASE)
"""Programs that write values from 0 to 1."""

_NOT = r"\b(?:not|no|without|false|off|uncorrected|unsubtracted|skipped)\b"
_DID = r"correct|subtract|remov|calibrat|substract"
_HISTORY = {
    "bias": re.compile(rf"\b(?:bias|zero)\w*\b.*(?:{_DID})|(?:{_DID}).*\b\w*(?:bias|zero)", re.IGNORECASE),
    "dark": re.compile(rf"\bdark\w*\b.*(?:{_DID})|(?:{_DID}).*\b\w*dark", re.IGNORECASE),
    "overscan": re.compile(rf"\boverscan\b.*(?:{_DID})|(?:{_DID}).*\boverscan", re.IGNORECASE),
}
"""Sentences of HISTORY that say that a step was done."""

_NAMES = {
    "bias": re.compile(r"(?<![a-z])m(?:aster)?[ _-]?(?:bias|zero)|(?:bias|zero)[ _-]?(?:master|stack)", re.IGNORECASE),
    "dark": re.compile(r"(?<![a-z])m(?:aster)?[ _-]?dark|dark[ _-]?(?:master|stack)", re.IGNORECASE),
    "flat": re.compile(r"(?<![a-z])m(?:aster)?[ _-]?flat|flat[ _-]?(?:master|stack)", re.IGNORECASE),
}
_MASK_NAMES = ("BPM", "MASK", "DQ", "BADPIX", "BADPIXELS", "GOODPIX", "GOOD")
"""Names of extensions that hold a mask."""


def existing_masters(
    options: Options, user: Camera | None, frames: Iterable[FramePlan] = ()
) -> tuple[list[Candidate], tuple[str, ...]]:
    """Read the headers of the masters that were given, and as much of their pixels as tells what they mean.

    Parameters
    ----------
    options
        Which masters are given.
    user
        A camera table.
    frames
        Those of the night: a bias among them shows whether a dark contains the bias.

    Returns
    -------
    tuple
        The masters, and notes on files of the folder that are none.

    Raises
    ------
    FormatError
        Raised if a file that was named cannot be read.
    """
    found: list[Candidate] = []
    notes: list[str] = []
    named = [(kind, path) for kind in CALIBRATIONS for path in getattr(options, kind)]
    for kind, path in [*named, *([("bpm", mask_name(options.bpm))] if options.bpm else [])]:
        collection = collect([path])
        # A file that was named must serve; only those of a folder may be passed over.
        for name, reason in collection.skipped:
            raise FormatError(f"--{kind} {name} cannot be used: {reason.rstrip('.')}.")
        candidates = [_candidate(frame, kind, user, options, explicit=True) for frame in collection.frames]
        found += _with_common_level(candidates)
    for given in options.calib:
        collection = collect(given)
        notes += [f"--calib: {name} is skipped: {reason}" for name, reason in collection.skipped]
        folder: dict[str, list[Candidate]] = {}
        for frame in collection.frames:
            kind = _kind(frame, user)
            if kind:
                made = _candidate(frame, kind, user, options, explicit=False)
                # Masters of two nights may have one name.
                if len(options.calib) > 1:
                    made = replace(made, label=os.path.join(os.path.basename(os.path.abspath(given)), made.label))
                folder.setdefault(f"{kind} {frame.source.partition('[')[0]}", []).append(made)
            else:
                notes.append(
                    f"--calib: {frame.name} is skipped: neither its type nor LZKIND nor its name says bias, dark or flat; "
                    "name it by --bias, --dark, --flat or --bpm"
                )
        found += [item for some in folder.values() for item in _with_common_level(some)]
    found = _with_zero_of_darks(found, frames)
    return found, (*notes, *(f"{_called(item)}: {'; '.join(words)}" for item in found if (words := _words(item))))


def missing_use(plan: NightPlan, existing: list[Candidate]) -> tuple[dict[str, list[str]], list[str]]:
    """Return which masters that were named no frame can use, and why, by their kind; and which nothing needs.

    Raises
    ------
    ParameterError
        Raised if one serves nothing because it was treated differently from every frame: by overscan or trim.
    """
    refused: dict[str, list[str]] = {}
    notes: list[str] = []
    frames = [item for item in plan.frames if item.is_reduced]
    used = {choice.master for item in frames for choice in item.choices}
    # A folder of masters holds those of other nights too; only what was named is missed.
    for master in existing:
        if not master.explicit or master.name in used or not frames:
            continue
        reasons = dict.fromkeys(
            reason
            for item in frames
            for choice in item.choices
            for name, reason in choice.why_not
            if name == master.shown
        )
        frame = frames[-1]
        # The mistake is in the call, not in the data: the user said which master, and it cannot be right.
        stamps = check_stamps(frame.facts, frame.shape, master)
        if stamps:
            raise ParameterError(
                f"--{master.kind} {master.shown} does not fit {frame.name}: {'; '.join(stamps)}; make it the same way, "
                "change --overscan or --trim, or use it as it is by --force."
            )
        called = f"--{master.kind} {master.shown} is not used"
        if reasons:
            refused.setdefault(master.kind, []).append(f"{called}: {'; '.join(reasons)}")
        else:
            notes.append(f"{called}: nothing needs it")
    return refused, [*notes, *(why for some in refused.values() for why in some)]


def with_measured(facts: Facts, chosen: Choice, biases: Iterable[Candidate]) -> Facts:
    """Return a frame's facts with the gain and read noise that were measured when its master bias was made."""
    # One that no header states, for what a header states is compared with measurements of the night itself.
    bias = next((each for each in biases if each.measured and each.name == chosen.master), None)
    for name, value in (bias.measured if bias is not None else {}).items():
        if bias is not None and facts.get(name).value is None and not facts.get(name).is_off:
            fact = Fact(value, f"measured, header of {bias.shown}", facts.get(name).note)
            facts = facts.with_fact(name, fact)
    return facts


def mask_name(path: str) -> str:
    """Return what opens a mask: an extension that is named like one, where none is chosen and the file has several."""
    name = parse_name(path)
    if name.hdu is not None or not os.path.isfile(name.path):
        return path
    images = [hdu for hdu in scan_fits(name.path).hdus if hdu.kind == "image" and hdu.is_plane]
    masks = [hdu for hdu in images if hdu.name.upper() in _MASK_NAMES]
    return f"{path}[{masks[0].index}]" if len(masks) == 1 else path


def treatment_of(path: str, kind: str) -> tuple[Treatment, tuple[str, ...]]:
    """Return what a master needs that a table names, and why it may be wrong.

    Raises
    ------
    FormatError
        Raised if it cannot be used.
    """
    source = mask_name(path) if kind == "bpm" else path
    frames = collect([source]).frames
    if not frames:
        raise FormatError(f"{kind} {path} cannot be used: it holds no image.")
    found = _candidate(frames[0], kind, None, Options(), explicit=True)
    if found.unusable:
        raise FormatError(f"{kind} {path} cannot be used: {found.unusable}.")
    return found.treatment, tuple(f"{kind} {os.path.basename(path)}: {doubt}" for doubt in found.doubts)


def _called(item: Candidate) -> str:
    """Return how notes call a master."""
    return f"--{item.kind} {item.shown}" if item.explicit else f"--calib: {item.shown}"


def _words(item: Candidate) -> list[str]:
    """Return what is said of a master: what was made of its pixels, and what is unsure."""
    # Of one that was named, `missing_use` says why it serves nothing.
    why = "" if item.explicit else item.unusable
    unit = item.facts.unit.note if item.kind not in {"flat", "bpm"} and not item.is_own else ""
    return [text for text in (unit, *item.notes, *item.doubts, why) if text]


def _kind(frame: RawFrame, user: Camera | None) -> str:
    """Return what a master in a folder is for: bias, dark, flat, or '' for none."""
    own = (read_text(frame.get("LZKIND")) or "").removeprefix("master ")
    if own in CALIBRATIONS:
        return own
    cameras = cameras_of(frame, user)
    found = classify(frame, cameras, resolve_facts(frame, cameras, {}).exposure, master=True)
    said = calibration_of(found.value or "")
    file = os.path.basename(frame.name)
    by_name = next((kind for kind, words in _NAMES.items() if words.search(file)), "")
    # A type that a header states goes first; a name that says 'master' before one that only proposes.
    return said if said and not found.doubt else by_name or said


@dataclass
class _Pixels:
    """What the pixels of a master mean, found step by step."""

    treatment: Treatment = field(default_factory=Treatment)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    unusable: str = ""
    middle: float = math.nan


def _candidate(frame: RawFrame, kind: str, user: Camera | None, options: Options, *, explicit: bool) -> Candidate:
    """Describe a master file."""
    cameras = cameras_of(frame, user)
    facts = resolve_facts(frame, cameras, {}, master=True)
    stamps = _all_stamps(frame)
    is_own = bool(read_text(frame.get("LZKIND")))
    found = _Pixels()
    if kind == "bpm":
        _look_at_mask(frame, found)
    else:
        _check_kind(frame, kind, cameras, facts, options, found)
        _look_at_levels(frame, kind, facts, stamps, found, is_own=is_own, trusted=options.force)
    gains = () if found.treatment.unit == "electron" or is_own else _gains(frame, facts)
    # Of a stack, gain and read noise are in effect those of many frames; an offset is made equal by the pedestal.
    facts = facts.with_fact("gain", replace(facts.gain, keyword=""))
    facts = facts.with_fact("readnoise", replace(facts.readnoise, keyword=""))
    if facts.offset.keyword == "PEDESTAL":
        facts = facts.with_fact("offset", Fact(None, facts.offset.source))
    # Without a time the master comes after all that have one.
    times = () if facts.time.value is None else (facts.time.value,)
    return Candidate(
        frame.source,
        kind,
        facts,
        frame.shape,
        times,
        count=0,
        bias_subtracted=found.treatment.is_without_zero if kind == "dark" else "bias" in stamps.done,
        stamps=stamps,
        trusted=options.force,
        explicit=explicit,
        label=frame.name,
        treatment=found.treatment,
        gains=gains,
        unusable=found.unusable,
        doubts=tuple(found.doubts),
        notes=tuple(found.notes),
        is_own=is_own,
        measured=_measured(frame),
        middle=found.middle,
    )


def _measured(frame: RawFrame) -> dict[str, float]:
    """Return the gain and read noise that were measured when a master was made."""
    values = {"gain": find_number(frame.get("LZGAIN")), "readnoise": find_number(frame.get("LZRDN"))}
    return {name: value for name, value in values.items() if value is not None and value > 0}


def _all_stamps(frame: RawFrame) -> Stamps:
    """Return the steps that stamps or sentences of HISTORY say were done."""
    stamps = read_stamps(frame)
    told = [line[8:].strip() for line in frame.header.split("\n") if line.startswith("HISTORY")]
    told = [line for line in told if not re.search(_NOT, line, re.IGNORECASE)]
    done = [step for step, words in _HISTORY.items() if any(words.search(line) for line in told)]
    return replace(stamps, done=tuple(dict.fromkeys([*stamps.done, *done])))


def _gains(frame: RawFrame, facts: Facts) -> tuple[float, ...]:
    """Return the gains that the frames of a master may have had: as stated, or less where it is that of the stack."""
    value = facts.gain.value if facts.gain.keyword else None
    if value is None:
        return ()
    counts = (find_number(frame.get(key)) for key in ("NCOMBINE", "LZNFRAME", "STACKCNT", "SNAPSHOT"))
    count = next((number for number in counts if number is not None and number > 1), 1.0)
    return tuple(dict.fromkeys((value, value / count, value / (count * MEDIAN_SHARE))))


def _check_kind(
    frame: RawFrame, kind: str, cameras: tuple[Camera, ...], facts: Facts, options: Options, found: _Pixels
) -> None:
    """Refuse a master whose header says that it is another."""
    said = classify(frame, cameras, facts.exposure, master=True)
    own = (read_text(frame.get("LZKIND")) or "").removeprefix("master ")
    other = own if own in CALIBRATIONS else calibration_of(said.value or "")
    # EFOSC2 calls a bias DARK.
    is_short = kind == "bias" and other == "dark" and not facts.exposure.value
    is_proposed = bool(said.doubt) and own not in CALIBRATIONS
    if other and other != kind and not is_proposed and not is_short and not options.force:
        source = f"LZKIND = {frame.get('LZKIND')!r}" if own in CALIBRATIONS else said.source
        found.unusable = (
            f"it is a {other}, not a {kind} ({source}): name it by --{other}, or use it as it is by --force"
        )


def _look_at_levels(
    frame: RawFrame, kind: str, facts: Facts, stamps: Stamps, found: _Pixels, *, is_own: bool, trusted: bool
) -> None:
    """Find out what the pixels of a bias, dark or flat mean."""
    unit, done = facts.unit.value, set(stamps.done)
    is_without = bool(done & {"bias", "overscan", "dark"}) if kind == "flat" else "bias" in done
    treatment = Treatment(is_without_zero=is_without or (is_own and kind == "flat"))
    treatment = replace(treatment, needs_overscan="overscan" not in done and not treatment.is_without_zero)
    found.treatment = treatment
    # What lazyccd made is in the form in which it is used.
    if is_own:
        found.treatment = replace(treatment, unit="electron" if unit == "electron" else "")
        return
    if kind != "flat" and unit in {"adu / s", "electron / s", "ct / s", "DN / s"}:
        found.unusable = found.unusable or f"it is in {unit}: multiply it by its exposure, and write BUNIT = 'adu'"
        return
    electrons = unit in {"electron", "electron / s"}
    own_gain = facts.gain.value if facts.gain.value != 1 else None
    found.treatment = replace(treatment, unit="electron" if electrons else "adu", gain=own_gain if electrons else None)
    values = _sample(frame, found)
    if values is not None:
        _look_at_pedestal(frame, facts, found)
        if kind == "flat":
            _look_at_flat(frame, found, trusted=trusted)
        else:
            _look_at_range(frame, kind, values, facts, stamps, found)


def _sample(frame: RawFrame, found: _Pixels) -> Array | None:
    """Return the good pixels of the central area; None, after noting why, if there are none."""
    try:
        image = resolve(open_file(frame.source, found.treatment.unit))
        values = read_pixels(image, central_region(frame.shape, most=SAMPLE))
    except LazyCCDError as error:
        found.unusable = found.unusable or str(error).rstrip(".")
        return None
    values = values[np.isfinite(values)]
    if not values.size:
        found.unusable = found.unusable or "it has no good pixel in its central half"
        return None
    return values


def _look_at_pedestal(frame: RawFrame, facts: Facts, found: _Pixels) -> None:
    """Note what was added to the pixels, in programs that avoid negative values."""
    value = find_number(frame.get("PEDESTAL"))
    if value:
        # The cameras' programs write what must be added again, others what they added.
        found.treatment = replace(found.treatment, pedestal=abs(value))
        found.notes.append(f"PEDESTAL = {value:g}: the zero point is made that of the frames")


def _look_at_range(frame: RawFrame, kind: str, values: Array, facts: Facts, stamps: Stamps, found: _Pixels) -> None:
    """Bring values from 0 to 1 to adu, and find out whether a dark contains the bias."""
    program = _program(frame)
    is_part = frame.levels[0] < 0 and float(np.max(np.abs(values))) <= 1 and float(np.max(np.abs(values))) > 0
    if is_part and _OF_ONE.search(program):
        found.treatment = replace(found.treatment, scale=FULL_RANGE)
        found.notes.append(f"values from 0 to 1 of {program} are multiplied by {FULL_RANGE:g}")
    elif is_part and not facts.unit.keyword and not stamps.done:
        found.unusable = found.unusable or (
            "its values lie between 0 and 1 and nothing says of which range they are parts: multiply it by that (65535 for 16 "
            "bits) and write BUNIT = 'adu'"
        )
    gain = found.treatment.gain or facts.gain.value or 1.0
    adu = float(np.median(values)) * found.treatment.scale / (gain if found.treatment.unit == "electron" else 1.0)
    found.middle = adu - (found.treatment.pedestal or 0.0)
    if kind != "dark" or found.treatment.is_without_zero:
        return
    # A converter never counts below 0, so what is below has lost its zero level.
    if float(np.mean(values < 0)) > 0.01:
        found.treatment = replace(found.treatment, is_without_zero=True, needs_overscan=False)
        found.notes.append("it has values below 0, so a bias was subtracted from it")


def _look_at_flat(frame: RawFrame, found: _Pixels, *, trusted: bool) -> None:
    """Find the level of a flat, and whether its zero level is gone."""
    found.treatment, before = replace(found.treatment, level=None), found.treatment
    value = level(open_file(frame.source, before.unit)) - (before.pedestal or 0.0)
    if not value > 0 or not math.isfinite(value):
        found.unusable = found.unusable or f"its level is {value:.4g}, and a flat is divided by"
        return
    if abs(value - 1) <= NORMALISED:
        found.treatment = replace(found.treatment, is_without_zero=True, needs_overscan=False)
        return
    found.treatment = replace(found.treatment, level=value)
    found.notes.append(f"divided by its level, {value:.6g}")
    if not before.is_without_zero and not trusted:
        found.doubts.append(_UNSTAMPED)


_UNSTAMPED = "no stamp and no HISTORY says that a bias was subtracted from this flat; write ZEROCOR = 'yes' into its header if so"


def _look_at_mask(frame: RawFrame, found: _Pixels) -> None:
    """Find out which value of a mask means bad."""
    marked = np.asarray(open_file(frame.source)[DATA].data != 0)
    part = float(np.mean(marked))
    name = frame.get("EXTNAME") or os.path.basename(frame.name)
    if part == 1:
        found.unusable = "none of its pixels is 0, so it marks every pixel: a mask has 0 where pixels are good"
    elif part > 0.5:
        found.treatment = Treatment(is_inverted=True)
        called = f", and it is called {name}" if "GOOD" in str(name).upper() else ""
        found.notes.append(
            f"{part:.1%} of its pixels are not 0{called}: it is taken as inverted, with 0 where pixels are bad"
        )


def _program(frame: RawFrame) -> str:
    """Return the program that wrote a file, as far as its header says."""
    texts = [
        read_text(frame.get(key)) or "" for key in ("PROGRAM", "SWCREATE", "CREATOR", "SOFTWARE", "SWMODIFY", "ORIGIN")
    ]
    told = [line[8:].strip() for line in frame.header.split("\n") if line.startswith("HISTORY")]
    return next((text for text in (*texts, *told) if _OF_ONE.search(text)), "")


def _with_zero_of_darks(candidates: list[Candidate], frames: Iterable[FramePlan]) -> list[Candidate]:
    """Return masters of which darks whose level is far below that of a bias are bias-subtracted."""
    levels = {item.shape: item.middle for item in candidates if item.kind == "bias" and not item.unusable}
    unsure = [item for item in candidates if item.kind == "dark" and not item.is_own and not _tells_zero(item)]
    for plan in frames if unsure else ():
        is_like = any(item.shape == plan.shape for item in unsure) and plan.shape not in levels
        if plan.kind == "bias" and plan.is_reduced and plan.facts.overscan.value is None and is_like:
            levels[plan.shape] = level(open_file(plan.source, "adu"))
    return [_with_zero(item, levels.get(item.shape, 0.0)) if item in unsure else item for item in candidates]


def _tells_zero(item: Candidate) -> bool:
    """Return whether stamps say what the zero level of a dark is."""
    return item.treatment.is_without_zero or (item.stamps is not None and "overscan" in item.stamps.done)


def _with_zero(dark: Candidate, bias: float) -> Candidate:
    """Return a dark that counts as bias-subtracted if its level, in adu, is far below that of the bias."""
    if bias < LEAST_ZERO or not dark.middle < 0.95 * bias:
        return dark
    levels = f"its level is {dark.middle:.5g} adu and that of the bias {bias:.5g}"
    if dark.middle > 0.5 * bias:
        return replace(dark, doubts=(*dark.doubts, f"{levels}, so that it is unsure whether it contains the bias"))
    treatment = replace(dark.treatment, is_without_zero=True, needs_overscan=False)
    note = f"{levels}: it counts as bias-subtracted"
    return replace(dark, treatment=treatment, bias_subtracted=True, notes=(*dark.notes, note))


def _with_common_level(candidates: list[Candidate]) -> list[Candidate]:
    """Return flats of the images of one file with one level: one each would take away the steps between amplifiers."""
    levels = [item.treatment.level or 1.0 for item in candidates if item.kind == "flat" and not item.is_own]
    if len(levels) < 2 or len({split_hdu(item.label)[0] for item in candidates}) > 1:
        return candidates
    common = float(np.median(levels))
    value = None if abs(common - 1) <= NORMALISED else common
    return [
        replace(item, treatment=replace(item.treatment, level=value), notes=tuple(_relevelled(item.notes, value)))
        for item in candidates
    ]


def _relevelled(notes: Iterable[str], value: float | None) -> list[str]:
    """Return notes of a flat that is divided by the level of all images of its file."""
    kept = [note for note in notes if not note.startswith("divided by its level")]
    return kept if value is None else [*kept, f"divided by the level of its file, {value:.6g}"]
