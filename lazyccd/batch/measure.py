"""Numbers measured on pixels: levels, noise, and gain and read noise from pairs of frames."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from lazyccd import ops
from lazyccd.batch.exposures import open_raw
from lazyccd.batch.metadata import Fact
from lazyccd.batch.night_plan import Doubt, FramePlan, NightPlan, Pairs
from lazyccd.frame.core import MASK, Image, resolve
from lazyccd.kernels.block import Array
from lazyccd.kernels.groups import Flags
from lazyccd.ops.sample import (
    flagged_pixels,
    median,
    quantiles_of_rows,
    read_pixels,
    read_planes,
    robust_std,
    sampled_bands,
)
from lazyccd.sections import Region

PAIR_SAMPLE = 512
"""Side of the central area of which pairs are compared, at most."""

SUSPICIOUS = 0.15
"""Relative difference between a measured and a stated gain or read noise beyond which it is warned about."""

UNITS = {"gain": "e-/adu", "readnoise": "e-"}


def central_region(shape: tuple[int, int], fraction: float = 0.5, most: int | None = None) -> Region:
    """Return the central part of an image: a fraction of each axis, at most so many pixels."""
    ranges = []
    for length in shape:
        size = max(1, int(length * fraction))
        size = size if most is None else min(size, most)
        start = (length - size) // 2
        ranges += [start, start + size]
    return Region(*ranges)


def level(ds: xr.Dataset) -> float:
    """Return the median of the central half of a frame: of the good pixels, and of saturated ones, whose level is high.

    Of a large frame it is that of bands of rows, see `lazyccd.ops.sample.sampled_bands`.
    """
    return Sample.of(resolve(ds)).level


def noise(ds: xr.Dataset) -> float:
    """Return the noise of a pixel, from differences of neighbours in a row of the central half.

    Clipping leaves the edges of stars and cosmic rays out. Of a large frame it is that of bands of rows.
    """
    return Sample.of(resolve(ds)).noise


@dataclass(frozen=True)
class Sample:
    """Pixels of the central half of a frame, or bands of it, one below the other."""

    data: Array
    """In double precision, bad pixels too."""

    is_bad: Flags
    is_lost: Flags
    """Bad otherwise than by saturation."""

    uncertainty: Array | None = None

    @staticmethod
    def of(image: Image, *, uncertainty: bool = False) -> Sample:
        """Read the sample of a frame, with its uncertainty if it is asked for and there is one."""
        parts = [
            read_planes(image, band, uncertainty=uncertainty) for band in sampled_bands(central_region(image.shape))
        ]
        data = np.concatenate([part.data for part in parts]).astype(float)
        lost, bad = (np.concatenate([part.flagged(image.schema, allowed) for part in parts]) for allowed in ("SAT", ""))
        known = [part.uncertainty for part in parts if part.uncertainty is not None]
        return Sample(data, bad, lost, np.concatenate(known) if known else None)

    @property
    def level(self) -> float:
        """Median of all but the lost pixels."""
        # Without saturated pixels a flat that is saturated nearly everywhere would have the level of its darkest corner.
        return median(self.data[~self.is_lost])

    @property
    def noise(self) -> float:
        """Noise of a good pixel."""
        # A difference of two pixels has twice the variance of one.
        return robust_std(np.diff(np.where(self.is_bad, np.nan, self.data), axis=1)) / math.sqrt(2)

    @property
    def expected_noise(self) -> float:
        """Median of the uncertainties; NaN where there are none."""
        return math.nan if self.uncertainty is None else median(self.uncertainty)


@dataclass(frozen=True)
class Numbers:
    """What is measured on a product."""

    unit: str
    level: float
    """Median of the central half."""

    noise_after: float
    """Noise of a pixel."""

    noise_expected: float
    """Median of the uncertainties, where the noise is measured; NaN where there are none."""

    planes: dict[str, float]
    """Part of the pixels that each mask plane flags, where it flags any."""

    bad: float
    """Part of the pixels that count as bad, by whichever planes; NaN where there is no mask."""


def numbers_of(frames: Iterable[xr.Dataset]) -> Numbers:
    """Return what is measured on the frames of a product: medians of those of several."""
    images = [resolve(frame) for frame in frames]
    samples = [Sample.of(image, uncertainty=True) for image in images]
    found = [(sample.level, sample.noise, sample.expected_noise) for sample in samples]
    middle, after, expected = (float(np.median(values)) for values in zip(*found, strict=True))
    flagged: dict[str, float] = {}
    total, bad = sum(math.prod(image.shape) for image in images), 0.0
    for image in images:
        counts = flagged_pixels(image)
        bad += counts.bad / total
        for name, count in counts.planes.items():
            flagged[name] = flagged.get(name, 0.0) + count / total
    has_mask = any(MASK in image.kinds for image in images)
    return Numbers(f"{images[0].units}", middle, after, expected, flagged, bad if has_mask else math.nan)


JUMP_LEVEL = 3.0
"""Noise of a pixel of a master by which its level may differ from that of the one before."""

JUMP_NOISE = 1.5
"""Factor by which the noise of a master may differ from that of the one before."""

JUMP_BAD = 2.0
"""Factor by which the number of bad pixels may, if they are more than a hundredth of a per cent."""


TREATED = ("subtract_overscan", "subtract_bias", "subtract_dark")
"""Steps that take a level away, by the names under which headers have them."""

SAME_GAIN = 0.01
"""Relative difference between two gains that are the same: measured ones scatter by as much."""


def treatment_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the meaning of the level of a master that `lazyccd reduce` made, by words that tell a user."""
    done = {f"whether {step} was done": step.upper() in header for step in TREATED}
    gain = header.get("GAINCOR")
    number = None if gain is None else re.search(r"gain=([\d.e+-]+)", str(gain))
    return {**done, "pedestal": header.get("PEDESTAL"), "gain": None if number is None else float(number[1])}


def why_not_comparable(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Say in what the treatment of two masters differs, so that their levels mean something else; empty if in nothing.

    Parameters
    ----------
    now, before
        As `treatment_of` returns them.

    Examples
    --------
    >>> why_not_comparable({"gain": 1.5, "pedestal": 100}, {"gain": 1.51, "pedestal": 0})
    'pedestal 100 and 0'
    """
    differ = [key for key in now if now[key] != before.get(key)]
    one, other = now.get("gain"), before.get("gain")
    if one is not None and other is not None and math.isclose(one, other, rel_tol=SAME_GAIN):
        differ = [key for key in differ if key != "gain"]
    return "; ".join(f"{key} {now[key]} and {before.get(key)}" for key in differ)


def compare_masters(now: Numbers, before: Numbers, file: str, apart: str = "") -> dict[str, Any]:
    """Return what a master is beside the one before it: numbers of that one, and jumps in words.

    Parameters
    ----------
    now, before
        What was measured on both.
    file
        What the one before is called.
    apart
        Why their levels cannot be compared; empty if they can.
    """
    if not apart and now.unit != before.unit:
        apart = f"units {now.unit} and {before.unit}"
    if apart:
        return {"file": file, "apart": apart, "jumps": []}
    bad, was_bad = (numbers.planes.get("BAD", 0.0) + numbers.planes.get("LOW_FLAT", 0.0) for numbers in (now, before))
    jumps = []
    if abs(now.level - before.level) > JUMP_LEVEL * max(now.noise_after, before.noise_after):
        jumps.append(f"level {now.level:.5g} {now.unit}, {before.level:.5g} in {file}")
    quiet, loud = sorted((now.noise_after, before.noise_after))
    if loud > JUMP_NOISE * quiet:
        jumps.append(f"noise {now.noise_after:.3g} {now.unit}, {before.noise_after:.3g} in {file}")
    few, many = sorted((bad, was_bad))
    if many > max(JUMP_BAD * few, few + 1e-4):
        jumps.append(f"{bad:.3%} bad pixels, {was_bad:.3%} in {file}")
    return {"file": file, "level": before.level, "noise": before.noise_after, "bad": was_bad, "jumps": jumps}


def pair_std(one: Array, other: Array) -> float:
    """Return the noise of one of two equal exposures, from their difference, each column's median taken off."""
    # A difference of equal exposures has no fixed pattern, which would count as noise.
    difference = one - other
    return robust_std(difference - quantiles_of_rows(difference.T, 0.5)) / math.sqrt(2)


def noise_from_pairs(frames: list[Array]) -> float:
    """Return the median noise of all neighbouring pairs of equal exposures."""
    return float(np.median([pair_std(a, b) for a, b in pairwise(frames)]))


def gain_from_pairs(flats: list[Array], zero_level: float, read_adu: float) -> float:
    """Return electrons per adu from flats, by photon transfer of neighbouring pairs.

    With means ``m1``, ``m2`` above the zero level, flat 2 is scaled to flat 1 by ``m1 / m2``, so that

    ``var(f1 - s f2) = (m1 + s**2 m2) / g + (1 + s**2) r**2``.

    References
    ----------
    Janesick, J. R. (2001), Scientific Charge-Coupled Devices, SPIE Press, chapter 2.
    """
    gains = []
    for one, other in pairwise(flats):
        m1, m2 = (median(f) - zero_level for f in (one, other))
        # Lamps and twilight change between exposures, which would count as noise.
        scale = m1 / m2
        variance = robust_std((one - zero_level) - scale * (other - zero_level)) ** 2
        photon = variance - (1 + scale**2) * read_adu**2
        # At low level read noise can exceed the scatter that was measured.
        if photon > 0:
            gains.append((m1 + scale**2 * m2) / photon)
    return float(np.median(gains)) if gains else float("nan")


@dataclass(frozen=True)
class Measurement:
    """A gain or read noise measured from pairs of frames, beside the stated one."""

    name: str
    """gain or readnoise."""

    value: float
    source: str
    """Master whose frames are the pairs."""

    stated: Fact[float]
    used: bool
    """Whether it replaces the stated one."""

    chosen: bool = False
    """Whether the stated one was asked for."""

    is_limit: bool = False
    """Whether the true value may be smaller: the noise of darks has dark current in it."""

    @property
    def difference(self) -> float:
        """Relative difference from the stated value; 0 where none is stated, or the measured limit is above it."""
        if self.stated.value is None or (self.is_limit and self.value > self.stated.value):
            return 0.0
        return abs(self.value / self.stated.value - 1)

    @property
    def doubt(self) -> Doubt | None:
        """The doubt about the stated value, if it is used and differs too much."""
        if self.used or self.chosen or self.difference <= SUSPICIOUS:
            return None
        text = f"{self.difference:.0%}" if self.difference < 2 else f"a factor of {self.difference + 1:.3g}"
        return Doubt("measured", f"they differ by {text}", "--gain measured or --gain stated chooses")

    @property
    def text(self) -> str:
        """What is said of it beside its name."""
        unit = UNITS[self.name]
        value = self.stated.value
        shown = "nothing" if value is None else f"{value:.3g} {unit} ({self.stated.source})"
        text = f"measured {self.value:.3g} {unit} from pairs of {self.source}, stated {shown}"
        if self.used:
            return f"{text}; the measured one is used"
        if self.chosen and self.difference > SUSPICIOUS:
            return f"{text}; the stated one is used, as asked"
        return text if self.doubt is None else f"{text}; {self.doubt}"

    def __str__(self) -> str:
        """Return what is printed of it."""
        return f"{self.name}: {self.text}"


def measure_pairs(plan: NightPlan, pairs: Pairs) -> list[Measurement]:
    """Measure gain and read noise from pairs of raw frames; what cannot be had is left out."""
    zeros = _central_pixels(plan, pairs.zero)
    if len(zeros) < 2:
        return []
    read_adu = noise_from_pairs(zeros)
    gain = math.nan
    if pairs.flat:
        zero_level = float(np.mean([median(zero) for zero in zeros]))
        gain = gain_from_pairs(_central_pixels(plan, pairs.flat), zero_level, read_adu)
    facts = plan.frame(pairs.frames[0]).facts
    factor = choose_gain(gain, facts.gain.value, measured=plan.options.measured)
    read = math.nan if factor is None else read_adu * factor
    options = plan.options
    # A number that was typed is a choice too.
    is_dark = plan.group(pairs.zero).kind == "dark"
    chosen = {"gain": bool(options.gain), "readnoise": options.gain == "stated" or bool(options.readnoise)}
    return [
        Measurement(
            name,
            value,
            source,
            stated,
            options.measured or stated.value is None,
            chosen[name],
            is_dark and name == "readnoise",
        )
        for name, value, source in (("gain", gain, pairs.flat), ("readnoise", read, pairs.zero))
        if math.isfinite(value)
        for stated in [facts.get(name)]
    ]


def choose_gain(found: float, stated: float | None, *, measured: bool) -> float | None:
    """Return the gain that makes electrons of the measured read noise: that which the frames are reduced with."""
    # The read noise must fit the gain that the frames are reduced with, or electrons would mean two things.
    return found if math.isfinite(found) and (measured or stated is None) else stated


def _central_pixels(plan: NightPlan, group: str) -> list[Array]:
    """Return the pixels of the central areas of a group's raw frames, without those that are mostly bad."""
    areas = [_central_pixels_of(member) for member in plan.members(group)]
    # A saturated flat has a noise of 0 and would give any gain.
    return [area for area in areas if np.isfinite(area).mean() > 0.5]


def _central_pixels_of(frame_plan: FramePlan) -> Array:
    """Return the pixels of the central area of a raw frame, NaN where it is saturated."""
    ds = open_raw(frame_plan)
    if frame_plan.facts.saturate.value is not None:
        ds = ops.flag_saturated(ds, float(frame_plan.facts.saturate.value))
    return read_pixels(resolve(ds), central_region(frame_plan.shape, most=PAIR_SAMPLE))
