"""Masters: the frames of a group are calibrated, checked, scaled and combined, and the header says what came of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from astropy.nddata import CCDData

from lazyccd import ops
from lazyccd.batch.calibrate import Calibrated, MadeMasters, calibrate_frame, in_ascii
from lazyccd.batch.check_steps import good_pixels
from lazyccd.batch.exposures import open_raw
from lazyccd.batch.measure import central_region, level
from lazyccd.batch.metadata import MEASURED, Facts
from lazyccd.batch.night_plan import Doubt, FramePlan, MasterGroup, NightPlan, exposure_name
from lazyccd.batch.outcome import UNREADABLE
from lazyccd.errors import LazyCCDError, ParameterError
from lazyccd.frame.core import UNCERTAINTY, resolve
from lazyccd.frame.output_header import after_normalization
from lazyccd.kernels.block import Array
from lazyccd.ops.instrument.calibrate import scale_noise
from lazyccd.ops.sample import median, read_pixels, robust_std
from lazyccd.ops.stack.rejection import SigmaClip

FEW = 10
"""Fewer frames than this are combined by their median, others by a mean clipped about the median.

The median absolute deviation of five normal values is so often small that a clip at 4 sigma marks every sixth pixel.
"""

CLIP = 5.0
"""Robust standard deviations beyond which a value is left out of a master."""


FULL_FLAT = 0.8
"""Flats above this fraction of saturation are excluded."""

LEVEL_NOISE = 10.0
"""Noise of a pixel by which levels of biases, or of darks, may differ: what a pedestal drifts in a night is less."""

LEVEL_RELATIVE = 0.1
"""Part of the dark current by which levels of darks may differ; it doubles every 6 to 8 K."""

LEAST_SNR = 30.0
"""Flats with a lower signal-to-noise per pixel are excluded."""


@dataclass(frozen=True)
class Master:
    """A master that is ready to be written."""

    frame: xr.Dataset
    messages: tuple[str, ...]
    """How it was combined, and which frames were left out."""

    doubts: tuple[Doubt, ...] = ()
    """What its pixels, or those of the masters behind it, say against it."""

    left_out: dict[str, str] = field(default_factory=dict)
    """Members that were not combined, and why."""


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

    def make(self, group: MasterGroup, damaged: Mapping[str, str]) -> Master:
        """Return the master of the calibrated members of a group.

        Parameters
        ----------
        group
            What is combined.
        damaged
            Members that cannot be read, and why.

        Raises
        ------
        ParameterError
            Raised if no member can be used.
        """
        frames: dict[str, xr.Dataset] = {}
        excluded: dict[str, str] = {}
        members = self.plan.members(group.name)
        for member in members:
            if member.name in damaged:
                excluded[member.name] = damaged[member.name]
                continue
            done = calibrate_frame(self.plan, member, self.made)
            # One frame that says nothing must not cost the others their master.
            reason = "; ".join(map(str, done.doubts))
            if not reason and group.kind == "flat":
                reason = self._normalize(member, done)
            if reason:
                excluded[member.name] = reason
            else:
                frames[member.name] = done.frame
        doubts = [Doubt("unreadable", f"{name}: {why}") for name, why in damaged.items() if name in excluded]
        doubts += self.made.doubts_of(members)
        if frames and group.kind != "flat":
            pixels = {name: good_pixels(frame) for name, frame in frames.items()}
            odd, found = odd_levels(pixels, group)
            if any(member.bias for member in members):
                found += negative_darks(pixels, group)
            frames = {name: frame for name, frame in frames.items() if name not in odd}
            excluded, doubts = excluded | odd, [*doubts, *found]
        out = [f"{name} excluded: {reason}" for name, reason in excluded.items()]
        if not frames:
            raise ParameterError(f"no frame of {group.name} can be used: {'; '.join(out)}.")
        bias = next((item.bias.master for item in members if item.bias), "")
        combined = combine_robustly(list(frames.values()))
        master = with_master_cards(combined, group, len(frames), self.plan.master_file(bias))
        master = ops.with_header(master, {**measured_cards(group, members[0].facts), **left_out_cards(excluded)})
        pattern = members[0].facts.cfa.value if group.kind == "flat" else None
        colours = [] if pattern is None else [f"each colour of {pattern} has a level of 1"]
        return Master(master, (describe_combination(len(frames)), *colours, *out), tuple(doubts), excluded)

    def _normalize(self, member: FramePlan, done: Calibrated) -> str:
        """Divide a calibrated flat by its level, or return why it is left out."""
        value = level(done.frame)
        facts = member.facts.with_fact("saturate", replace(member.facts.saturate, value=done.saturate))
        # Without the step that applies the gain it is in adu still.
        electrons = value if done.has_gain else value * (facts.gain.value or 1.0)
        reason = why_flat_is_excluded(electrons, facts, missing_images(self.plan, member))
        if reason:
            return reason
        # Flats differ in exposure and lamp: each is brought to 1 before they can be compared pixel by pixel. One level each
        # would take the amplifiers' steps out of the flat and leave them in the product.
        common = self._exposure_level(member) if member.child else value
        if member.facts.cfa.value is None:
            done.frame = ops.divide(done.frame, common * resolve(done.frame).units)
        else:
            done.frame = divide_by_colours(done.frame, member.facts.cfa.value)
        done.frame = done.frame.assign_attrs(header=after_normalization(done.frame.attrs["header"]))
        return ""

    def _exposure_level(self, frame_plan: FramePlan) -> float:
        """Return the median level of all images of a flat's file: one for all, so that amplifiers keep their steps."""
        name = exposure_name(frame_plan)
        # Each amplifier's master asks for it, and each answer calibrates the whole exposure.
        if name not in self._levels:
            alike = [item for item in self.plan.frames if exposure_name(item) == name and item.is_reduced]
            levels = [level(calibrate_frame(self.plan, item, self.made).frame) for item in alike]
            self._levels[name] = float(np.median(levels))
        return self._levels[name]


def unreadable(members: Iterable[FramePlan]) -> dict[str, str]:
    """Return which frames cannot be read, and why; all their pixels are read."""
    found = {}
    for item in members:
        try:
            open_raw(item).compute()
        except (LazyCCDError, OSError, ValueError) as error:
            found[item.name] = f"{UNREADABLE}: {str(error).rstrip('.')}"
    return found


def odd_levels(frames: Mapping[str, Array], group: MasterGroup) -> tuple[dict[str, str], list[Doubt]]:
    """Return which biases or darks have not the level that most have, and why; if most have none, the doubt.

    Parameters
    ----------
    frames
        Pixels of a part of each calibrated frame, NaN where they are bad, by name.
    group
        Its kind and name. Dark current may differ by a part of itself, the level of a bias is arbitrary.
    """
    known = {name: median(values) for name, values in frames.items()}
    levels = {name: value for name, value in known.items() if math.isfinite(value)}
    if len(levels) < 2:
        return {}, []
    middle = float(np.median(list(levels.values())))
    # Half of the difference between the two in the middle, so that of two frames both are odd or none is.
    # Differences of frames have no fixed pattern, which in darks is much larger than the noise.
    pairs = [robust_std(one - other) for one, other in pairwise(frames.values())]
    # Copies of one frame have no noise, but a level is digitised.
    noise = max(0.5, float(np.median([value for value in pairs if value > 0] or [0.0])) / math.sqrt(2))
    most = max(LEVEL_NOISE * noise, LEVEL_RELATIVE * abs(middle) if group.kind == "dark" else 0.0) / 2
    odd = {name: value for name, value in levels.items() if abs(value - middle) > most}
    if 2 * len(odd) < len(levels):
        return {name: f"its level is {value:.4g}, that of the others {middle:.4g}" for name, value in odd.items()}, []
    listed = ", ".join(f"{name} {value:.4g}" for name, value in levels.items())
    text = f"the levels in {group.name} differ: {listed}; take those away that do not belong"
    return {}, [Doubt("check", text)]


def negative_darks(frames: Mapping[str, Array], group: MasterGroup) -> list[Doubt]:
    """Return the doubt that the bias is too bright for the darks that it was subtracted from: there is no negative dark current.

    Parameters
    ----------
    frames
        Pixels of a part of each calibrated frame, NaN where they are bad, by name.
    group
        Its kind and name; only darks are looked at.
    """
    known = [values[np.isfinite(values)] for values in frames.values()]
    levels = [float(np.median(values)) for values in known if values.size]
    if group.kind != "dark" or not levels:
        return []
    middle = float(np.median(levels))
    # Pedestals drift by parts of the noise from frame to frame.
    noise = max(0.5, float(np.median([robust_std(values) for values in known if values.size])))
    if middle > -2 * noise:
        return []
    text = f"{group.name} is {-middle:.4g} below its bias: light or another pedestal is in the bias"
    return [Doubt("check", text, "give another by --bias")]


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
    if math.isnan(value):
        return "it has no good pixel: all are saturated, bad or constant"
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


def left_out_cards(left_out: Mapping[str, str]) -> dict[str, Any]:
    """Return the cards that name the frames that were not combined, with the reasons; IMCMB001, ... name the others.

    Examples
    --------
    >>> left_out_cards({"flat3.fits": "its level is 0"})
    {'LZNLEFT': (1, 'frames left out'), 'LZLEFT1': 'flat3.fits: its level is 0'}
    """
    if not left_out:
        return {}
    # Names of keywords have 8 letters; the number says how many there are, run.json has them all.
    texts = [in_ascii(f"{name}: {why}") for name, why in left_out.items()][:99]
    return {"LZNLEFT": (len(left_out), "frames left out"), **{f"LZLEFT{n}": text for n, text in enumerate(texts, 1)}}


def with_master_cards(master: xr.Dataset, group: MasterGroup, count: int, bias: str) -> xr.Dataset:
    """Return a master whose header says what it is."""
    cards: dict[str, Any] = {
        "LZKIND": (f"master {group.kind}", "what lazyccd made of it"),
        "LZNFRAME": (count, "frames combined"),
    }
    setting = group.facts.gain_setting
    # The header's GAIN tells of the master's own noise by now.
    if setting.value is not None and setting.keyword == "GAIN":
        cards["LZGSET"] = (setting.value, "setting of the camera that GAIN was")
    if bias:
        cards["LZMAST1"] = (os.path.basename(bias), "master used")
    # The bias that frame and dark share cancels at equal exposure, and its noise with it: see `NightPlan.bias_noise`.
    if bias and group.kind == "dark":
        cards["LZNOISE"] = ("own frames", "UNCERT leaves out the noise of the bias")
    made: xr.Dataset = ops.with_header(master, cards)
    return made
