"""Masters: the frames of a group are calibrated, checked, scaled and combined, and the header says what came of it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from astropy.nddata import CCDData

from lazyccd import ops
from lazyccd.batch.calibrate import MadeMasters, calibrate_frame
from lazyccd.batch.measure import central_region, level
from lazyccd.batch.metadata import MEASURED, Facts
from lazyccd.batch.night_plan import FramePlan, MasterGroup, NightPlan, exposure_name
from lazyccd.errors import ParameterError
from lazyccd.frame.core import UNCERTAINTY, resolve
from lazyccd.frame.output_header import after_normalization
from lazyccd.ops.instrument.calibrate import scale_noise
from lazyccd.ops.sample import read_pixels
from lazyccd.ops.stack.rejection import SigmaClip

FEW = 10
"""Fewer frames than this are combined by their median, others by a mean clipped about the median.

The median absolute deviation of five normal values is so often small that a clip at 4 sigma marks every sixth pixel.
"""

CLIP = 5.0
"""Robust standard deviations beyond which a value is left out of a master."""


FULL_FLAT = 0.8
"""Flats above this fraction of saturation are excluded."""

LEAST_SNR = 30.0
"""Flats with a lower signal-to-noise per pixel are excluded."""


@dataclass(frozen=True)
class Master:
    """A master that is ready to be written."""

    frame: xr.Dataset
    messages: tuple[str, ...]
    """How it was combined, and which frames were left out."""


@dataclass
class MasterMaker:
    """Makes the masters of a night.

    Parameters
    ----------
    plan
        What is combined.
    made
        Masters that are there already, which frames of the others are calibrated with.
    """

    plan: NightPlan
    made: MadeMasters
    _levels: dict[str, float] = field(default_factory=dict)

    def make(self, group: MasterGroup) -> Master:
        """Return the master of the calibrated members of a group.

        Raises
        ------
        ParameterError
            Raised if no member can be used.
        """
        frames: list[xr.Dataset] = []
        excluded: list[str] = []
        colours: list[str] = []
        members = self.plan.members(group.name)
        for member in members:
            done = calibrate_frame(self.plan, member, self.made)
            frame = done.frame
            # One frame that says nothing must not cost the others their master.
            if done.doubts:
                excluded.append(f"{member.name} excluded: {'; '.join(map(str, done.doubts))}")
                continue
            # Flats differ in exposure and lamp: each is brought to 1 before they can be compared pixel by pixel.
            if group.kind == "flat":
                value = level(frame)
                facts = member.facts.with_fact("saturate", replace(member.facts.saturate, value=done.saturate))
                reason = why_flat_is_excluded(value, facts, missing_images(self.plan, member))
                if reason:
                    excluded.append(f"{member.name} excluded: {reason}")
                    continue
                # One level each would take the amplifiers' steps out of the flat and leave them in the product.
                common = self._exposure_level(member) if member.child else value
                if member.facts.cfa.value is None:
                    frame = ops.divide(frame, common * resolve(frame).units)
                else:
                    frame = divide_by_colours(frame, member.facts.cfa.value)
                    colours = [f"each colour of {member.facts.cfa.value} has a level of 1"]
                frame = frame.assign_attrs(header=after_normalization(frame.attrs["header"]))
            frames.append(frame)
        if not frames:
            raise ParameterError(f"no frame of {group.name} can be used: {'; '.join(excluded)}.")
        bias = next((item.bias.master for item in members if item.bias), "")
        master = with_master_cards(combine_robustly(frames), group, len(frames), self.plan.master_file(bias))
        master = ops.with_header(master, measured_cards(group, members[0].facts))
        return Master(master, (describe_combination(len(frames)), *colours, *excluded))

    def _exposure_level(self, frame_plan: FramePlan) -> float:
        """Return the median level of all images of a flat's file: one for all, so that amplifiers keep their steps."""
        name = exposure_name(frame_plan)
        # Each amplifier's master asks for it, and each answer calibrates the whole exposure.
        if name not in self._levels:
            alike = [item for item in self.plan.frames if exposure_name(item) == name and item.is_reduced]
            levels = [level(calibrate_frame(self.plan, item, self.made).frame) for item in alike]
            self._levels[name] = float(np.median(levels))
        return self._levels[name]


def divide_by_colours(frame: xr.Dataset, pattern: str) -> xr.Dataset:
    """Divide a flat by the median of each of its colours, so that it changes no colour.

    Parameters
    ----------
    frame
        A flat whose pixels have colour filters.
    pattern
        The matrix of filters; it repeats after 2 pixels, that of X-Trans after 6.
    """
    image, period = resolve(frame), 6 if "TRANS" in pattern.upper() else 2
    region = central_region(image.shape)
    values = read_pixels(image, region, allowed="SAT")
    levels = np.empty((period, period))
    for y, x in np.ndindex(period, period):
        levels[(region.y0 + y) % period, (region.x0 + x) % period] = np.nanmedian(values[y::period, x::period])
    times = [-(-size // period) for size in image.shape]
    tiled = np.tile(levels, times)[: image.shape[0], : image.shape[1]].astype(image.dtype)
    divided: xr.Dataset = ops.divide(frame, CCDData(tiled, unit=image.units))
    return divided


def why_flat_is_excluded(value: float, facts: Facts, missing: list[str]) -> str:
    """Return why a flat is left out of its master; empty if it is used.

    Parameters
    ----------
    value
        Its level: electrons, or adu where the gain is not known.
    facts
        Gain, read noise and saturation of its frame.
    missing
        Images that the file lacks and other files of the master have.
    """
    # Saturation is a level of the raw frame, so the level goes back to adu.
    gain, saturate = facts.gain.value or 1.0, facts.saturate.value
    # The level is one for all amplifiers; without one of them it is another number, and its master would have a step.
    if missing:
        return f"its file has no {', '.join(missing)}, so its level is not that of the others"
    # Also true of NaN, which a frame without good pixels has.
    if not value > 0:
        return f"its level is {value:.4g}"
    if saturate is not None and value / gain > FULL_FLAT * saturate:
        return f"level {value / gain:.0f} adu is above {FULL_FLAT:.0%} of saturation ({saturate:.0f} adu)"
    read = facts.readnoise.value or 0.0
    snr = value / math.sqrt(value + read**2)
    return f"signal-to-noise {snr:.1f} per pixel is below {LEAST_SNR:g}" if snr < LEAST_SNR else ""


def missing_images(plan: NightPlan, frame_plan: FramePlan) -> list[str]:
    """Return the images that other files of a frame's master have and its own has not."""
    if not frame_plan.child:
        return []
    file, master = exposure_name(frame_plan), plan.master_file(frame_plan.group)
    there = {item.child for item in plan.frames if item.group and plan.master_file(item.group) == master}
    own = {item.child for item in plan.frames if item.is_reduced and exposure_name(item) == file}
    return sorted(there - own)


def describe_combination(count: int) -> str:
    """Return how a number of frames is combined."""
    return f"{'median' if count < FEW else f'mean, clipped at {CLIP:g} robust sigma'} of {count}"


def combine_robustly(frames: list[xr.Dataset]) -> xr.Dataset:
    """Return the master of calibrated frames: their median if they are few, else a mean clipped about the median."""
    # The scatter of a few frames is no uncertainty to carry on: where theirs is not known, that of the master is not.
    known = all(UNCERTAINTY in frame for frame in frames)
    if len(frames) < FEW:
        median: xr.Dataset = ops.combine(frames, method="median")
        return median if known else scale_noise(median, 0)
    clipped: xr.Dataset = ops.combine(
        frames,
        method="average",
        reject=SigmaClip(CLIP, CLIP, center="median", deviation="mad_std", iterations=1),
    )
    return clipped if known else scale_noise(clipped, 0)


def measured_cards(group: MasterGroup, facts: Facts) -> dict[str, Any]:
    """Return the cards of a gain and a read noise that pairs gave, for later nights that use this master."""
    if group.kind == "flat":
        return {}
    named = {
        "LZGAIN": (facts.gain, "[electron/adu] measured"),
        "LZRDN": (facts.readnoise, "[electron] read noise measured"),
    }
    return {
        key: (float(f"{fact.value:.5g}"), comment)
        for key, (fact, comment) in named.items()
        if fact.value is not None and fact.source == MEASURED
    }


def with_master_cards(master: xr.Dataset, group: MasterGroup, count: int, bias: str) -> xr.Dataset:
    """Return a master whose header says what it is."""
    cards: dict[str, Any] = {
        "LZKIND": (f"master {group.kind}", "what lazyccd made of it"),
        "LZNFRAME": (count, "frames combined"),
    }
    if bias:
        cards["LZMAST1"] = (os.path.basename(bias), "master used")
    # The bias that frame and dark share cancels at equal exposure, and its noise with it: see `NightPlan.bias_noise`.
    if bias and group.kind == "dark":
        cards["LZNOISE"] = ("own frames", "UNCERT leaves out the noise of the bias")
    made: xr.Dataset = ops.with_header(master, cards)
    return made
