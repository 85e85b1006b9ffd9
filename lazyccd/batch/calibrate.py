"""One exposure: each frame by its plan, the steps of a right reduction in their order, and what was decided on the way."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import xarray as xr
from astropy import units as u

from lazyccd import ops
from lazyccd.batch.check_steps import (
    MasterSample,
    Step,
    check_division,
    check_raw,
    check_result,
    check_subtraction,
    good_pixels,
    sample_master,
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
    with_frames,
)
from lazyccd.batch.measure import level
from lazyccd.batch.metadata import Facts
from lazyccd.batch.night_plan import Choice, Doubt, FramePlan, NightPlan, exposure_name
from lazyccd.batch.open_master import open_mask, open_master
from lazyccd.batch.outcome import Status
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.batch.recipe.rules import RULES, parameters_of, to_argument
from lazyccd.batch.recipe.steps import RecipeStep
from lazyccd.errors import ParameterError, ShapeError
from lazyccd.frame.core import DATA
from lazyccd.frame.output_header import after_gain, after_pedestal
from lazyccd.io import as_frame
from lazyccd.kernels.block import Array
from lazyccd.ops.instrument.calibrate import add_noise, scale_noise
from lazyccd.ops.instrument.overscan import overscan_levels
from lazyccd.ops.sample import median

SAMPLES = 8
"""Samples of masters that are kept, of 4 MB each."""

MASTER_LEVELS = 1024
"""Levels of masters that are kept: those of all amplifiers of a mosaic, or of all nights of a year."""


@dataclass
class MadeMasters:
    """Masters of the night that are there, and those that could not be made."""

    paths: dict[str, str] = field(default_factory=dict)
    """What opens each master, by its name."""

    failed: dict[str, str] = field(default_factory=dict)
    """Why a file of masters could not be made, by its name."""

    sample: Callable[[str], MasterSample] = field(
        default_factory=lambda: lru_cache(SAMPLES)(lambda path: sample_master(as_frame(path)))
    )
    """Samples a master for checks, by what opens it: all frames of a filter use the same few."""

    level: Callable[[str], float] = field(
        default_factory=lambda: lru_cache(MASTER_LEVELS)(lambda path: level(as_frame(path)))
    )
    """Returns the level of a master, by what opens it."""

    doubts: dict[str, tuple[Doubt, ...]] = field(default_factory=dict)
    """What the pixels of a master say against it, by its name."""

    def doubts_of(self, frame_plans: Iterable[FramePlan]) -> tuple[Doubt, ...]:
        """Return what is said against the masters of some frames, each doubt once."""
        masters = [choice.master for item in frame_plans for choice in item.choices if choice]
        return tuple(dict.fromkeys(doubt for master in masters for doubt in self.doubts.get(master, ())))


@dataclass
class Calibrated:
    """A frame on its way through the steps of a recipe, and what was noticed."""

    frame: xr.Dataset
    frame_plan: FramePlan
    recipe: Recipe = field(default_factory=Recipe)
    made: MadeMasters = field(default_factory=MadeMasters)
    """Masters that were made."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Paths of the files that added steps of the recipe read, by their names there."""

    bias_noise: float = 1.0
    """Factor of the noise that the master bias adds."""

    messages: list[str] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    """What its pixels say against it."""

    saturate: float | None = None
    """Level in adu at which it is saturated, as measured or as stated."""

    steps: list[Step] = field(default_factory=list)
    """What was subtracted, as far as the frame is one of the sky."""

    seen: Array | None = None
    """What is looked at of the frame after its last step: the next one begins there."""

    waiting_mask: xr.Dataset | None = None
    """A bad pixel mask that fits only after the trim."""

    is_noise_due: bool = False
    """Whether the noise waits for a dark that takes the bias away."""

    @property
    def facts(self) -> Facts:
        """Those of the frame."""
        return self.frame_plan.facts

    @property
    def has_gain(self) -> bool:
        """Whether it becomes electrons: its gain is known, and the recipe applies it."""
        return self.facts.gain.value is not None and self.recipe.step("gain_correct") is not None


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
    calibrated = calibrate_exposure(plan, frame_plans, made)
    whole = as_exposure(frame_plans, [done.frame for done in calibrated])
    masters = masters_of(plan, chosen(frame_plans))
    # One spectrograph, or one camera, lights all images of a file.
    whole, cleaned, assembly = _whole_detectors(plan, whole, frame_plans[0].facts, spoiled)
    doubts = merge_doubts({item.child: done.doubts for item, done in zip(frame_plans, calibrated, strict=True)})
    doubts = (*doubts, *made.doubts_of(frame_plans))
    damage = merge_doubts({name: [spoiled[name]] if name in spoiled else [] for name in cleaned})
    planned = [doubt for item in frame_plans for doubt in item.doubts]
    status: Status = "PARTIAL" if doubts or damage or planned else "DONE"
    source, why = exposure_name(frame_plans[0]), list(dict.fromkeys([*doubts, *damage, *planned]))
    recipe = "" if plan.recipe.is_built_in else plan.recipe.name
    frames = {
        name: with_provenance(frame, source, masters, status, why, recipe)
        for name, frame in frames_by_name(whole).items()
    }
    messages = merge_messages({item.child: done.messages for item, done in zip(frame_plans, calibrated, strict=True)})
    ready = with_frames(whole, frames)
    return Reduced(ready, tuple(masters), (*messages, *assembly), cleaned, status, (*doubts, *damage))


def _whole_detectors(
    plan: NightPlan, whole: xr.Dataset | xr.DataTree, facts: Facts, spoiled: Mapping[str, Doubt]
) -> tuple[xr.Dataset | xr.DataTree, dict[str, Cleaned], list[str]]:
    """Do the steps of a recipe that need whole detectors.

    Returns
    -------
    tuple
        The exposure, what became of the cosmic rays of each of its frames, and messages.
    """
    cleaned, messages = {name: Cleaned(frame) for name, frame in frames_by_name(whole).items()}, []
    asked, files = plan.options.cosmic_rays, plan.recipe.files(plan.folder)
    for step in plan.recipe.of_detectors:
        given = step.parameters
        if step.operation == "assemble":
            whole, said = assemble_amplifiers(whole, **given)
            messages += said
            cleaned = {name: Cleaned(frame) for name, frame in frames_by_name(whole).items()}
        elif step.operation == "cosmicray_lacosmic":
            cleaned = {
                name: remove_cosmic_rays(frame, "none" if name in spoiled and asked != "fill" else asked, facts, given)
                for name, frame in frames_by_name(whole).items()
            }
            whole = with_frames(whole, {name: done.frame for name, done in cleaned.items()})
        elif "science" in step.kinds:
            frames = {name: apply_step(step, frame, files) for name, frame in frames_by_name(whole).items()}
            whole = with_frames(whole, frames)
            # The product is no longer what the cosmic rays were taken from.
            cleaned = {name: replace(done, is_product=False) for name, done in cleaned.items()}
    # Nor does it show what was flagged where no mask is written: the check would pass with 0 hits.
    if "mask" not in plan.recipe.outputs.planes:
        cleaned = {name: replace(done, is_product=False) for name, done in cleaned.items()}
    return whole, cleaned, messages


def calibrate_frame(plan: NightPlan, frame_plan: FramePlan, made: MadeMasters) -> Calibrated:
    """Calibrate a frame of the night with the masters that were made.

    Raises
    ------
    ParameterError
        Raised if one of its masters could not be made.
    """
    alike = [frame_plan]
    if frame_plan.child and plan.recipe.step("correct_crosstalk"):
        name = exposure_name(frame_plan)
        alike = [item for item in plan.frames if item.is_reduced and exposure_name(item) == name]
    return calibrate_exposure(plan, alike, made)[alike.index(frame_plan)]


def calibrate_exposure(plan: NightPlan, frame_plans: list[FramePlan], made: MadeMasters) -> list[Calibrated]:
    """Calibrate images of one file, lazily but for their overscan strips, by the steps of the recipe.

    The steps of the built-in recipe are these:

    1. Raw adu: SAT, bad pixels, overscan, trim, bias.
    2. Noise of signal and reading, on top of the master's.
    3. Gain; dark and flat in electrons.

    A dark that contains the bias is subtracted where the bias would be, and the noise comes after it.

    Raises
    ------
    ParameterError
        Raised if one of their masters could not be made.
    """
    for choice in (choice for item in frame_plans for choice in item.choices):
        if choice and not choice.is_file and choice.master not in made.paths:
            why = made.failed.get(plan.group(choice.master).file, "it was not made")
            raise ParameterError(f"{choice.kind} master {choice.master} is missing: {why}")
    recipe, files = plan.recipe, plan.recipe.files(plan.folder)
    dones = [_begin(plan, item, made, files) for item in frame_plans]
    standard = [number for number, step in enumerate(recipe.of_images) if RULES[step.operation].is_standard]
    for number, step in enumerate(recipe.of_images):
        concerned = [done for done in dones if (calibration_of(done.frame_plan.kind) or "science") in step.kinds]
        if step.operation == "correct_crosstalk":
            _correct_crosstalk(step, concerned)
        else:
            for done in concerned:
                _do_step(step, done)
        # What is added behind them is no calibration, which is judged by what it leaves.
        if number == max(standard, default=-1):
            for done in dones:
                _finish(done)
    if not standard:
        for done in dones:
            _finish(done)
    return dones


def _begin(plan: NightPlan, frame_plan: FramePlan, made: MadeMasters, files: Mapping[str, str]) -> Calibrated:
    """Open a raw frame."""
    done = Calibrated(open_raw(frame_plan), frame_plan, plan.recipe, made, files, plan.bias_noise(frame_plan))
    done.saturate = frame_plan.facts.saturate.value
    if plan.recipe.step("flag_saturated") is None:
        _look_at_raw(done, good_pixels(done.frame))
    return done


def _do_step(step: RecipeStep, done: Calibrated) -> None:
    """Do a step on a frame: as the plan of the night has it, with what the recipe states besides."""
    planned = PLANNED.get(step.operation)
    if planned is None:
        done.frame, done.seen = apply_step(step, done.frame, done.files), None
    else:
        options = RULES[step.operation].options
        planned(done, {name: value for name, value in step.parameters.items() if name not in options})


def apply_step(step: RecipeStep, frame: xr.Dataset, files: Mapping[str, str]) -> xr.Dataset:
    """Return a frame after a step that the plan of a night does not know.

    Parameters
    ----------
    step
        An operation with its parameters.
    frame
        A frame of the right kind.
    files
        Paths of the files that the step reads, by their names in the recipe.
    """
    known = parameters_of(step.operation)
    given = {}
    for name, value in step.parameters.items():
        is_file = isinstance(value, str) and known[name].names_file(value)
        # A path would stand in the log of the product, which then depends on where it was made.
        given[name] = as_frame(files[value], f"{name} {value}") if is_file else to_argument(known[name], value)
    made: xr.Dataset = getattr(ops, step.operation)(frame, **given)
    return made


def _correct_crosstalk(step: RecipeStep, dones: list[Calibrated]) -> None:
    """Correct the images of a file for each other's crosstalk; a file of one image has none."""
    if len(dones) < 2:
        return
    frames = {done.frame_plan.child: done.frame for done in dones}
    corrected = ops.correct_crosstalk(frames, **step.parameters)
    for done in dones:
        done.frame, done.seen = corrected[done.frame_plan.child], None


def chosen(frame_plans: Iterable[FramePlan]) -> list[Choice]:
    """Return the masters that were chosen for some frames."""
    return [choice for item in frame_plans for choice in item.choices if choice]


def masters_of(plan: NightPlan, choices: Iterable[Choice]) -> dict[str, Choice]:
    """Return the files of masters that were chosen, each with its choice of the worst level."""
    found: dict[str, Choice] = {}
    for choice in choices:
        file = plan.master_file(choice.master)
        if file not in found or found[file].level < choice.level:
            found[file] = choice
    return found


def with_provenance(
    frame: xr.Dataset,
    source: str,
    masters: Mapping[str, Choice],
    status: str,
    doubts: Iterable[Doubt] = (),
    recipe: str = "",
) -> xr.Dataset:
    """Return a product whose header names its source and its masters, and says what may be wrong with it."""
    cards: dict[str, Any] = {"LZSOURCE": (os.path.basename(source), "file that was reduced")}
    for number, (name, choice) in enumerate(masters.items(), 1):
        level = "" if choice.kind == "bpm" else f", level {choice.level}"
        cards[f"LZMAST{number}"] = (os.path.basename(name), f"master {choice.kind}{level}")
    if masters:
        cards["LZLEVEL"] = (max(choice.level for choice in masters.values()), "worst level of a master, 0 is best")
    cards["LZSTATUS"] = (status, "whether all steps were done, without doubt")
    if recipe:
        cards["LZRECIPE"] = in_ascii(recipe)
    for number, doubt in enumerate(doubts, 1):
        cards[f"LZDOUBT{number}"] = in_ascii(doubt.text)
    made: xr.Dataset = ops.with_header(frame, cards)
    return made


def _flag_saturated(done: Calibrated, given: Mapping[str, Any]) -> None:
    """Flag what is saturated: at the stated level, and at that at which the pixels pile up."""
    # Before anything is subtracted: saturation is a level of the raw frame.
    if done.facts.saturate.value is not None:
        done.frame = ops.flag_saturated(done.frame, float(done.facts.saturate.value), **given)
    values = good_pixels(done.frame)
    constant = _look_at_raw(done, values)
    found = None if calibration_of(done.frame_plan.kind) in {"bias", "dark"} or constant else piled_up(values)
    # Pixels at the stated level are flagged already, so what piles up lies below it.
    if found is not None:
        level, count = found
        stated = done.facts.saturate
        text = f"stated {stated.value:g} adu ({stated.source})" if stated.value is not None else "none stated"
        done.messages.append(f"saturation: {count} pixels pile up at {level:g} adu, which is used; {text}")
        done.frame = ops.flag_saturated(done.frame, level, **given)
        done.saturate = level


def _look_at_raw(done: Calibrated, values: Array) -> str:
    """Look for parts of a raw frame that are constant."""
    constant = check_raw(values, is_flat=calibration_of(done.frame_plan.kind) == "flat")
    if constant:
        done.doubts.append(Doubt("check", constant))
    return constant


def _add_mask(done: Calibrated, given: Mapping[str, Any]) -> None:
    """Mark bad pixels."""
    if not done.frame_plan.bpm:
        return
    bad = open_mask(done.frame_plan.bpm)
    # A mask of the raw frame's size goes in before the trim, so that bad columns are known in the overscan too.
    if bad[DATA].shape == done.frame_plan.shape == done.frame[DATA].shape:
        done.frame = ops.add_mask(done.frame, bad[DATA], **given)
    else:
        done.waiting_mask = bad
        _add_waiting_mask(done)


def _add_waiting_mask(done: Calibrated) -> None:
    """Mark bad pixels by a mask of the trimmed size, if the frame has it by now."""
    bad = done.waiting_mask
    if bad is not None and bad[DATA].shape == done.frame[DATA].shape:
        step = done.recipe.step("add_mask")
        given = {} if step is None else {key: value for key, value in step.parameters.items() if key != "array"}
        done.frame = ops.add_mask(done.frame, bad[DATA].data, **given)
        done.waiting_mask = None


def _trim(done: Calibrated, _given: Mapping[str, Any]) -> None:
    """Trim a frame."""
    if done.facts.trim.value is not None:
        done.frame = ops.trim_image(done.frame, done.facts.trim.value)
        done.messages.append(f"trimmed to {done.facts.trim.value}")
        _add_waiting_mask(done)


def _subtract_bias(done: Calibrated, _given: Mapping[str, Any]) -> None:
    """Subtract the master bias."""
    if not done.frame_plan.bias:
        return
    master, before = _master(done, done.frame_plan.bias), done.frame
    done.frame = ops.subtract_bias(done.frame, scale_noise(master, done.bias_noise))
    _note_pedestal(done, _master_level(done, done.frame_plan.bias, master))
    _look_at_step(done.frame_plan.bias, before, master, done)


def _create_deviation(done: Calibrated, _given: Mapping[str, Any]) -> None:
    """Add the noise of signal and reading: after the bias, since the pedestal has no photons."""
    gain, read = done.facts.gain.value, done.facts.readnoise.value
    # What is not known is not pretended: without gain and read noise no uncertainty is written.
    if gain is None or read is None or why_no_uncertainty(done):
        return
    if done.frame_plan.contains_bias:
        done.is_noise_due = True
        return
    kind = calibration_of(done.frame_plan.kind)
    signal = bool(done.frame_plan.bias) or (kind != "bias" and done.facts.overscan.value is not None)
    done.frame = add_noise(done.frame, gain=gain, readnoise=read, poisson=signal)


def _gain_correct(done: Calibrated, _given: Mapping[str, Any]) -> None:
    """Convert adu to electrons, where the gain is known."""
    gain = done.facts.gain.value
    if gain is None:
        return
    done.frame = ops.gain_correct(done.frame, gain * u.electron / u.adu)
    header = after_gain(done.frame.attrs["header"], gain, done.facts.readnoise.value)
    done.frame = done.frame.assign_attrs(header=header)
    done.seen = None if done.seen is None else done.seen * gain


def _subtract_dark(done: Calibrated, _given: Mapping[str, Any]) -> None:
    """Subtract the master dark; one that contains the bias takes it away too."""
    facts, choice = done.facts, done.frame_plan.dark
    if not choice:
        return
    is_scaled = choice.scale != 1
    # Both are known if one is scaled; else they are equal.
    ours = facts.exposure.value or choice.exposure or 0.0
    theirs = choice.exposure or ours
    times = {"dark_exposure": theirs * u.s, "data_exposure": ours * u.s}
    master, before = _master(done, choice), done.frame
    done.frame = ops.subtract_dark(done.frame, master, **times, scale=is_scaled)
    if choice.contains_bias:
        _note_pedestal(done, _master_level(done, choice, master))
    _look_at_step(choice, before, master, done)
    if is_scaled:
        done.messages.append(f"dark scaled by {choice.scale:.4g}")
    # Only now the pedestal is gone, and what is left are photons and dark current.
    if done.is_noise_due:
        gain = 1.0 if done.has_gain else float(facts.gain.value or 1.0)
        done.frame = add_noise(done.frame, gain=gain, readnoise=float(facts.readnoise.value or 0.0))
        done.is_noise_due = False


def _flat_correct(done: Calibrated, given: Mapping[str, Any]) -> None:
    """Divide by the master flat."""
    choice = done.frame_plan.flat
    if choice:
        # Flats of the night have level 1 already; to normalise again by the mean of one frame would change its scale.
        master, before = _master(done, choice), done.frame
        done.frame = ops.flat_correct(done.frame, master, norm_value=1.0, **given)
        _look_at_step(choice, before, master, done)


def _finish(done: Calibrated) -> None:
    """Judge a frame after the last step of its calibration."""
    if done.waiting_mask is not None:
        shape, plan = done.waiting_mask[DATA].shape, done.frame_plan
        raise ShapeError(
            f"bad pixel mask {plan.bpm.master} has shape {shape}; it must be that of {plan.name}, "
            f"{plan.shape}, or of its trimmed part, {done.frame[DATA].shape}."
        )
    frame_plan, facts = done.frame_plan, done.facts
    # A master bias stays in adu, as the frames that it is subtracted from still are then.
    if calibration_of(frame_plan.kind) == "bias":
        return
    if frame_plan.kind == "science":
        pedestal_gone = bool(frame_plan.bias or frame_plan.contains_bias or facts.overscan.value)
        how: dict[str, Any] = {"pedestal_gone": pedestal_gone, "flattened": bool(frame_plan.flat)}
        how |= {"small": is_plain_image(facts), "say": done.messages.append}
        done.doubts += check_result(done.frame, facts, done.seen, steps=done.steps, **how)
        if not is_large_enough(done.frame[DATA].shape):
            done.messages.append("not checked for structure of its masters: the image is too small")
    unknown = why_no_uncertainty(done)
    if unknown:
        # That of the masters alone would look like the frame's.
        done.frame = scale_noise(done.frame, 0)
        done.messages.append(f"no uncertainty is written: {unknown}")


def why_no_uncertainty(done: Calibrated) -> str:
    """Say why the noise of a frame cannot be known; empty if it can."""
    frame_plan, facts = done.frame_plan, done.facts
    if done.recipe.step("create_deviation") is None:
        return "the recipe has no create_deviation"
    lost = [name for name, fact in (("gain", facts.gain), ("read noise", facts.readnoise)) if fact.value is None]
    if lost:
        return f"{' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} not known"
    # A pedestal would count as light. Zeros have no light, so their noise is that of reading.
    has_light = calibration_of(frame_plan.kind) not in {"bias", "dark"}
    if has_light and not (frame_plan.bias or frame_plan.contains_bias or facts.overscan.value):
        return "neither bias nor overscan takes the pedestal away"
    return ""


def _look_at_step(choice: Choice, before: xr.Dataset, master: xr.Dataset, done: Calibrated) -> None:
    """Look for signs that a master did not belong to a science frame."""
    frame_plan = done.frame_plan
    small = is_plain_image(frame_plan.facts)
    if frame_plan.kind != "science" or (choice.kind == "flat" and not small):
        done.seen = None
        return
    values = done.seen if done.seen is not None else good_pixels(before), good_pixels(done.frame)
    done.seen = values[1]
    if choice.kind == "flat":
        done.doubts += check_division(choice, *values, _sample(done, choice, master))
        return
    if choice.kind == "bias" and frame_plan.facts.overscan.value is not None:
        done.steps.append(Step("overscan", median(values[0])))
    done.steps.append(Step(choice.kind, median(values[1])))
    sample = _sample(done, choice, master) if small else None
    done.doubts += check_subtraction(choice, *values, sample, frame_plan.facts)


def _sample(done: Calibrated, choice: Choice, master: xr.Dataset) -> MasterSample:
    """Return what checks need to know of a master; one of a file may be converted as this frame needs it."""
    return sample_master(master) if choice.is_file else done.made.sample(done.made.paths[choice.master])


def _master_level(done: Calibrated, choice: Choice, master: xr.Dataset) -> float:
    """Return the level of a master; one of a file may be converted as this frame needs it."""
    return level(master) if choice.is_file else done.made.level(done.made.paths[choice.master])


def is_plain_image(facts: Facts) -> bool:
    """Return whether neighbouring pixels expect the same light, as in spectra and under a matrix of colours they do not."""
    return facts.mode.value != "spectrum" and facts.cfa.value is None


def in_ascii(text: str) -> str:
    """Return text as a header can hold it."""
    return text.encode("ascii", "replace").decode()


def _subtract_overscan(done: Calibrated, given: Mapping[str, Any]) -> None:
    """Subtract the overscan, as a constant or line by line, and note in the header which and why."""
    section = done.facts.overscan.value
    if section is None:
        return
    gain, read = done.facts.gain.value, done.facts.readnoise.value
    adu = None if read is None or gain is None else float(read) / float(gain)
    chosen = overscan_levels(done.frame, section, readnoise=adu)
    if given:
        done.messages.append(f"overscan {section}: as the recipe says")
        # One way of averaging excludes the others.
        chosen_way = {} if {"statistic", "median", "sigma", "skip_bleeds"} & set(given) else {"statistic": "auto"}
        how = {"overscan_axis": None, **chosen_way, **given}
        how |= {"readnoise": adu} if how.get("statistic") == "auto" else {}
        done.frame = ops.subtract_overscan(done.frame, fits_section=section, **how)
    else:
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


def _master(done: Calibrated, choice: Choice) -> xr.Dataset:
    """Open a master; a path would stand in the log of the product, which then depends on where it was made."""
    if not choice.is_file:
        return as_frame(done.made.paths[choice.master], f"master {choice.kind}")
    unit = {"bias": "adu", "dark": "electron" if done.has_gain else "adu"}.get(choice.kind, "")
    return open_master(choice, done.frame_plan, unit)


PLANNED: dict[str, Callable[[Calibrated, Mapping[str, Any]], None]] = {
    "flag_saturated": _flag_saturated,
    "add_mask": _add_mask,
    "subtract_overscan": _subtract_overscan,
    "trim_image": _trim,
    "subtract_bias": _subtract_bias,
    "create_deviation": _create_deviation,
    "gain_correct": _gain_correct,
    "subtract_dark": _subtract_dark,
    "flat_correct": _flat_correct,
}
"""Steps on single images for which the plan of the night says what is done to each frame."""
