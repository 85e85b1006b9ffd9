"""One exposure: each frame by its plan, the steps of a right reduction in their order, and what was decided on the way."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xarray as xr
from astropy import units as u

from lazyccd import ops
from lazyccd.batch.check_steps import (
    Step,
    check_division,
    check_raw,
    check_result,
    check_subtraction,
    good_pixels,
    middle,
)
from lazyccd.batch.checks import is_large_enough, piled_up
from lazyccd.batch.classify import calibration_of
from lazyccd.batch.cosmic_rays import Cleaned, remove_cosmic_rays
from lazyccd.batch.exposures import (
    as_exposure,
    assemble_amplifiers,
    frames_by_name,
    merge_doubts,
    merge_messages,
    open_raw,
)
from lazyccd.batch.measure import level
from lazyccd.batch.metadata import Facts
from lazyccd.batch.night_plan import Choice, Doubt, FramePlan, NightPlan, exposure_name
from lazyccd.batch.open_master import open_mask, open_master
from lazyccd.batch.outcome import Status
from lazyccd.errors import ParameterError, ShapeError
from lazyccd.frame.core import DATA
from lazyccd.frame.output_header import after_gain, after_pedestal
from lazyccd.frame.tree import make_tree
from lazyccd.io import as_frame
from lazyccd.kernels.block import Array
from lazyccd.ops.instrument.calibrate import add_noise, scale_noise
from lazyccd.ops.instrument.overscan import overscan_levels


@dataclass
class Calibrated:
    """A calibrated frame, and the messages of what was done."""

    frame: xr.Dataset
    messages: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    """What its pixels say against it."""

    saturate: float | None = None
    """Level in adu at which it is saturated, as measured or as stated."""

    steps: list[Step] = field(default_factory=list)
    """What was subtracted, as far as the frame is one of the sky."""

    seen: Array | None = None
    """What is looked at of the frame after its last step: the next one begins there."""


@dataclass
class MadeMasters:
    """Masters of the night that are there, and those that could not be made."""

    paths: dict[str, str] = field(default_factory=dict)
    """What opens each master, by its name."""

    failed: dict[str, str] = field(default_factory=dict)
    """Why a file of masters could not be made, by its name."""

    doubts: dict[str, tuple[Doubt, ...]] = field(default_factory=dict)
    """What the pixels of a master say against it, by its name."""

    def doubts_of(self, frame_plans: Iterable[FramePlan]) -> tuple[Doubt, ...]:
        """Return what is said against the masters of some frames, each doubt once."""
        masters = [choice.master for item in frame_plans for choice in item.choices if choice]
        return tuple(dict.fromkeys(doubt for master in masters for doubt in self.doubts.get(master, ())))


@dataclass
class Reduced:
    """An exposure that is ready to be written."""

    exposure: xr.Dataset | xr.DataTree
    masters: tuple[str, ...]
    """Files of the masters that were used."""

    messages: tuple[str, ...]
    cleaned: dict[str, Cleaned]
    """For each frame of the exposure, what became of its cosmic rays."""

    status: Status
    doubts: tuple[Doubt, ...]
    """What its pixels say against it."""


def reduce_exposure(
    plan: NightPlan, frame_plans: list[FramePlan], made: MadeMasters, spoiled: Mapping[str, Doubt] | None = None
) -> Reduced:
    """Calibrate the images of an exposure, assemble amplifiers into detectors, and remove cosmic rays, all lazily.

    Cosmic rays come last because LA Cosmic needs whole detectors: it would find a step between amplifiers.

    Parameters
    ----------
    plan, frame_plans, made
        What to do, for which images, with which masters.
    spoiled
        Frames of the exposure that removing cosmic rays has damaged, and how: they keep theirs.
    """
    spoiled = spoiled or {}
    calibrated = [calibrate_frame(plan, item, made) for item in frame_plans]
    whole, assembly = assemble_amplifiers(as_exposure(frame_plans, [done.frame for done in calibrated]))
    choices = [choice for item in frame_plans for choice in item.choices if choice]
    masters = masters_of(plan, choices)
    # One spectrograph, or one camera, lights all images of a file.
    facts, asked = frame_plans[0].facts, plan.options.cosmic_rays
    cleaned = {
        name: remove_cosmic_rays(frame, "none" if name in spoiled and asked != "fill" else asked, facts)
        for name, frame in frames_by_name(whole).items()
    }
    doubts = merge_doubts({item.child: done.doubts for item, done in zip(frame_plans, calibrated, strict=True)})
    doubts = (*doubts, *made.doubts_of(frame_plans))
    damage = merge_doubts({name: [spoiled[name]] if name in spoiled else [] for name in cleaned})
    planned = [doubt for item in frame_plans for doubt in item.doubts]
    status: Status = "PARTIAL" if doubts or damage or planned else "DONE"
    source, why = exposure_name(frame_plans[0]), list(dict.fromkeys([*doubts, *damage, *planned]))
    frames = {name: with_provenance(done.frame, source, masters, status, why) for name, done in cleaned.items()}
    messages = merge_messages({item.child: done.messages for item, done in zip(frame_plans, calibrated, strict=True)})
    ready = make_tree(frames, whole.attrs) if isinstance(whole, xr.DataTree) else frames[""]
    return Reduced(ready, tuple(masters), (*messages, *assembly), cleaned, status, (*doubts, *damage))


def calibrate_frame(plan: NightPlan, frame_plan: FramePlan, made: MadeMasters) -> Calibrated:
    """Calibrate a frame of the night with the masters that were made.

    Raises
    ------
    ParameterError
        Raised if one of its masters could not be made.
    """
    for choice in frame_plan.choices:
        if choice and not choice.is_file and choice.master not in made.paths:
            why = made.failed.get(plan.group(choice.master).file, "it was not made")
            raise ParameterError(f"{choice.kind} master {choice.master} is missing: {why}")
    return calibrate(frame_plan, made.paths, plan.bias_noise(frame_plan))


def masters_of(plan: NightPlan, choices: Iterable[Choice]) -> dict[str, Choice]:
    """Return the files of masters that were chosen, each with its choice of the worst level."""
    found: dict[str, Choice] = {}
    for choice in choices:
        file = plan.master_file(choice.master)
        if file not in found or found[file].level < choice.level:
            found[file] = choice
    return found


def with_provenance(
    frame: xr.Dataset, source: str, masters: Mapping[str, Choice], status: str, doubts: Iterable[Doubt] = ()
) -> xr.Dataset:
    """Return a product whose header names its source and its masters, and says what may be wrong with it."""
    cards: dict[str, Any] = {"LZSOURCE": (os.path.basename(source), "file that was reduced")}
    for number, (name, choice) in enumerate(masters.items(), 1):
        level = "" if choice.kind == "bpm" else f", level {choice.level}"
        cards[f"LZMAST{number}"] = (os.path.basename(name), f"master {choice.kind}{level}")
    if masters:
        cards["LZLEVEL"] = (max(choice.level for choice in masters.values()), "worst level of a master, 0 is best")
    cards["LZSTATUS"] = (status, "whether all steps were done, without doubt")
    for number, doubt in enumerate(doubts, 1):
        cards[f"LZDOUBT{number}"] = _in_ascii(doubt.text)
    made: xr.Dataset = ops.with_header(frame, cards)
    return made


def calibrate(frame_plan: FramePlan, masters: dict[str, str], bias_noise: float = 1.0) -> Calibrated:
    """Reduce one frame, lazily but for its overscan strip.

    1. Raw adu: SAT, overscan, trim, bad pixels, bias.
    2. Noise of signal and reading, on top of the master's.
    3. Gain; dark and flat in electrons.

    A dark that contains the bias is subtracted where the bias would be, and the noise comes after it.

    Parameters
    ----------
    frame_plan
        What to do.
    masters
        Paths of the masters that were made, by name.
    bias_noise
        Factor of the noise that the master bias adds.
    """
    facts = frame_plan.facts
    done = Calibrated(open_raw(frame_plan), saturate=facts.saturate.value)
    # Before anything is subtracted: saturation is a level of the raw frame.
    if facts.saturate.value is not None:
        done.frame = ops.flag_saturated(done.frame, float(facts.saturate.value))
    _look_at_raw(frame_plan, done)
    _overscan_and_trim(frame_plan, done)
    kind = calibration_of(frame_plan.kind)
    gain, read = facts.gain.value, facts.readnoise.value
    # The noise of signal and reading comes after the bias, since the pedestal has no photons.
    if frame_plan.bias:
        master, before = _master(frame_plan, frame_plan.bias, masters), done.frame
        done.frame = ops.subtract_bias(done.frame, scale_noise(master, bias_noise))
        _note_pedestal(done, level(master))
        _look_at_step(frame_plan, frame_plan.bias, before, master, done)
    # What is not known is not pretended: without gain and read noise no uncertainty is written.
    unknown = why_no_uncertainty(frame_plan)
    if gain is not None and read is not None and not unknown and not frame_plan.contains_bias:
        signal = bool(frame_plan.bias) or (kind != "bias" and facts.overscan.value is not None)
        done.frame = add_noise(done.frame, gain=gain, readnoise=read, poisson=signal)
    # A master bias stays in adu, as the frames that it is subtracted from still are then.
    if kind == "bias":
        return done
    if gain is not None:
        done.frame = ops.gain_correct(done.frame, gain * u.electron / u.adu)
        done.frame = done.frame.assign_attrs(header=after_gain(done.frame.attrs["header"], gain, read))
        done.seen = None if done.seen is None else done.seen * gain
    _dark_and_flat(frame_plan, masters, done)
    if frame_plan.kind == "science":
        pedestal_gone = bool(frame_plan.bias or frame_plan.contains_bias or facts.overscan.value)
        how = {"pedestal_gone": pedestal_gone, "flattened": bool(frame_plan.flat), "small": is_plain_image(facts)}
        done.doubts += check_result(done.frame, facts, done.seen, steps=done.steps, **how)
        if not is_large_enough(done.frame[DATA].shape):
            done.messages.append("not checked for structure of its masters: the image is too small")
    if unknown:
        # That of the masters alone would look like the frame's.
        done.frame = scale_noise(done.frame, 0)
        done.messages.append(f"no uncertainty is written: {unknown}")
    return done


def why_no_uncertainty(frame_plan: FramePlan) -> str:
    """Say why the noise of a frame cannot be known; empty if it can."""
    facts = frame_plan.facts
    lost = [name for name, fact in (("gain", facts.gain), ("read noise", facts.readnoise)) if fact.value is None]
    if lost:
        return f"{' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} not known"
    # A pedestal would count as light. Zeros have no light, so their noise is that of reading.
    has_light = calibration_of(frame_plan.kind) not in {"bias", "dark"}
    if has_light and not (frame_plan.bias or frame_plan.contains_bias or facts.overscan.value):
        return "neither bias nor overscan takes the pedestal away"
    return ""


def _look_at_raw(frame_plan: FramePlan, done: Calibrated) -> None:
    """Look for parts that are constant, and for the level at which the pixels pile up."""
    values = good_pixels(done.frame)
    constant = check_raw(values, is_flat=calibration_of(frame_plan.kind) == "flat")
    if constant:
        done.doubts.append(Doubt("check", constant))
    found = None if calibration_of(frame_plan.kind) in {"bias", "dark"} or constant else piled_up(values)
    # Pixels at the stated level are flagged already, so what piles up lies below it.
    if found is not None:
        level, count = found
        stated = frame_plan.facts.saturate
        text = f"stated {stated.value:g} adu ({stated.source})" if stated.value is not None else "none stated"
        done.messages.append(f"saturation: {count} pixels pile up at {level:g} adu, which is used; {text}")
        done.frame = ops.flag_saturated(done.frame, level)
        done.saturate = level


def _look_at_step(
    frame_plan: FramePlan, choice: Choice, before: xr.Dataset, master: xr.Dataset, done: Calibrated
) -> None:
    """Look for signs that a master did not belong to a science frame."""
    small = is_plain_image(frame_plan.facts)
    if frame_plan.kind != "science" or (choice.kind == "flat" and not small):
        done.seen = None
        return
    values = done.seen if done.seen is not None else good_pixels(before), good_pixels(done.frame)
    done.seen = values[1]
    if choice.kind == "flat":
        done.doubts += check_division(choice, *values, master)
        return
    if choice.kind == "bias" and frame_plan.facts.overscan.value is not None:
        done.steps.append(Step("overscan", middle(values[0])))
    done.steps.append(Step(choice.kind, middle(values[1])))
    done.doubts += check_subtraction(choice, *values, master, frame_plan.facts, small=small)


def is_plain_image(facts: Facts) -> bool:
    """Return whether neighbouring pixels expect the same light, as in spectra and under a matrix of colours they do not."""
    return facts.mode.value != "spectrum" and facts.cfa.value is None


def _in_ascii(text: str) -> str:
    """Return text as a header can hold it."""
    return text.encode("ascii", "replace").decode()


def _overscan_and_trim(frame_plan: FramePlan, done: Calibrated) -> None:
    """Subtract the overscan, trim, mark bad pixels."""
    facts = frame_plan.facts
    bad = open_mask(frame_plan.bpm) if frame_plan.bpm else None
    # A mask of the raw frame's size goes in before the trim, so that bad columns are known in the overscan too.
    if bad is not None and bad[DATA].shape == frame_plan.shape:
        done.frame = ops.add_mask(done.frame, bad[DATA])
        bad = None
    if facts.overscan.value is not None:
        _subtract_overscan(facts, facts.overscan.value, done)
    if facts.trim.value is not None:
        done.frame = ops.trim_image(done.frame, facts.trim.value)
        done.messages.append(f"trimmed to {facts.trim.value}")
    if bad is not None:
        if bad[DATA].shape != done.frame[DATA].shape:
            raise ShapeError(
                f"bad pixel mask {frame_plan.bpm.master} has shape {bad[DATA].shape}; it must be that of {frame_plan.name}, "
                f"{frame_plan.shape}, or of its trimmed part, {done.frame[DATA].shape}."
            )
        done.frame = ops.add_mask(done.frame, bad[DATA].data)


def _subtract_overscan(facts: Facts, section: str, done: Calibrated) -> None:
    """Subtract the overscan, as a constant or line by line, and note in the header which and why."""
    gain, read = facts.gain.value, facts.readnoise.value
    adu = None if read is None or gain is None else float(read) / float(gain)
    chosen = overscan_levels(done.frame, section, readnoise=adu)
    done.messages.append(f"overscan {section}: {chosen.reason}")
    # The log names what was asked for, not the numbers that were chosen: HISTORY has these.
    entries = {"subtract_overscan": f"ccd=<CCDData>, fits_section={section}", "HISTORY": done.messages[-1]}
    done.frame = ops.subtract_overscan(
        done.frame, fits_section=section, overscan_axis=None, statistic=chosen, add_keyword=entries
    )
    _note_pedestal(done, chosen.mean)


def _note_pedestal(done: Calibrated, pedestal: float) -> None:
    """Make the levels in the header true after a pedestal was subtracted."""
    if math.isfinite(pedestal):
        done.frame = done.frame.assign_attrs(header=after_pedestal(done.frame.attrs["header"], pedestal))


def _dark_and_flat(frame_plan: FramePlan, masters: dict[str, str], done: Calibrated) -> None:
    """Subtract the dark and divide by the flat."""
    facts = frame_plan.facts
    if frame_plan.dark:
        is_scaled = frame_plan.dark.scale != 1
        # Both are known if one is scaled; else they are equal.
        ours = facts.exposure.value or frame_plan.dark.exposure or 0.0
        theirs = frame_plan.dark.exposure or ours
        times = {"dark_exposure": theirs * u.s, "data_exposure": ours * u.s}
        master, before = _master(frame_plan, frame_plan.dark, masters), done.frame
        done.frame = ops.subtract_dark(done.frame, master, **times, scale=is_scaled)
        if frame_plan.contains_bias:
            _note_pedestal(done, level(master))
        _look_at_step(frame_plan, frame_plan.dark, before, master, done)
        if is_scaled:
            done.messages.append(f"dark scaled by {frame_plan.dark.scale:.4g}")
        # Only now the pedestal is gone, and what is left are photons and dark current.
        if frame_plan.contains_bias and facts.gain.value is not None and facts.readnoise.value is not None:
            done.frame = add_noise(done.frame, gain=1.0, readnoise=float(facts.readnoise.value))
    if frame_plan.flat:
        # Flats of the night have level 1 already; to normalise again by the mean of one frame would change its scale.
        master, before = _master(frame_plan, frame_plan.flat, masters), done.frame
        done.frame = ops.flat_correct(done.frame, master, norm_value=1.0)
        _look_at_step(frame_plan, frame_plan.flat, before, master, done)


def _master(frame_plan: FramePlan, choice: Choice, masters: dict[str, str]) -> xr.Dataset:
    """Open a master; a path would stand in the log of the product, which then depends on where it was made."""
    if not choice.is_file:
        return as_frame(masters[choice.master], f"master {choice.kind}")
    has_gain = frame_plan.facts.gain.value is not None
    unit = {"bias": "adu", "dark": "electron" if has_gain else "adu"}.get(choice.kind, "")
    return open_master(choice, frame_plan, unit)
