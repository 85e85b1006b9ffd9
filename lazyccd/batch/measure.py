"""Numbers measured on pixels: levels, noise, gain and read noise by pairs, the overscan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.frame.core import DATA, MASK, resolve
from lazyccd.kernels.overscan import line_level
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.ops.attributes import cut
from lazyccd.ops.instrument.overscan import scatter as residual_scatter
from lazyccd.sections import Region

SAMPLE = 1024
"""Side of the central area in which noise is measured, at most."""

Array = npt.NDArray[Any]


def robust_std(values: Array) -> float:
    """Return the standard deviation of the values within four robust sigma of their median; NaN of nothing.

    The median absolute deviation alone would be a multiple of the step of digitised values.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    away = np.abs(values - np.median(values))
    kept = values[away <= 4 * max(MAD_TO_SIGMA * float(np.median(away)), 0.5)]
    return float(np.std(kept))


def read_pixels(ds: xr.Dataset, region: Region, allowed: str = "") -> Array:
    """Return the data of a region in double precision, NaN where a pixel is bad. Pulls this region only.

    A mask plane that is allowed makes no pixel bad.
    """
    part = cut(resolve(ds), *region.slices).to_dataset().drop_vars("uncertainty", errors="ignore").compute()
    data = part[DATA].values.astype(float)
    if MASK in part:
        image = resolve(ds)
        bits = part[MASK].values
        bad = image.schema.bad_bits & ~(image.schema.bits(allowed) if allowed else 0)
        data[(bits & bits.dtype.type(bad)) != 0] = np.nan
    return data


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
    """Return the median of the central half of a frame: of the good pixels, and of saturated ones, whose level is high."""
    values = read_pixels(ds, central_region((ds.sizes["y"], ds.sizes["x"])), allowed="SAT")
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def noise(ds: xr.Dataset) -> float:
    """Return the noise of a pixel, from differences of neighbours in a row of the central area.

    Clipping leaves the edges of stars and cosmic rays out.
    """
    values = read_pixels(ds, central_region((ds.sizes["y"], ds.sizes["x"]), most=SAMPLE))
    return robust_std(np.diff(values, axis=1)) / math.sqrt(2)


def pair_std(one: Array, other: Array) -> float:
    """Return the noise of one of two equal exposures, from their difference, each column's median taken off."""
    difference = one - other
    with np.errstate(invalid="ignore"):
        difference = difference - np.nanmedian(difference, axis=0, keepdims=True)
    return robust_std(difference) / math.sqrt(2)


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
        m1, m2 = (float(np.nanmedian(f)) - zero_level for f in (one, other))
        scale = m1 / m2
        variance = robust_std((one - zero_level) - scale * (other - zero_level)) ** 2
        photon = variance - (1 + scale**2) * read_adu**2
        if photon > 0:
            gains.append((m1 + scale**2 * m2) / photon)
    return float(np.median(gains)) if gains else float("nan")


@dataclass(frozen=True)
class OverscanLevels:
    """The levels that are subtracted, and in words what they are."""

    levels: Array
    """One for each line of the image."""

    axis: int
    """1: a level per row; 0: per column."""

    words: str
    """Form chosen, and why."""

    mean: float
    """Mean level."""

    noise: float
    """Scatter of the strip about what is subtracted: an estimate of the read noise."""

    @property
    def cards(self) -> dict[str, tuple[float, str]]:
        """What the header of the product says of them."""
        found = {"OVERMEAN": (self.mean, "[adu] mean level of the overscan")}
        found["OVERRMS"] = (self.noise, "[adu] scatter of the overscan: read noise")
        return {key: (float(f"{value:.6g}"), text) for key, (value, text) in found.items() if math.isfinite(value)}


def overscan_levels(ds: xr.Dataset, strip: Region, readnoise_adu: float | None) -> OverscanLevels:
    """Decide how the overscan is subtracted.

    The level of each line is the mean of its pixels within 3 robust sigma of their median. A constant is subtracted, the mean of
    the levels, unless these scatter by more than twice what the read noise predicts; then each line has its own level.
    Lines that the strip does not cover get the constant.
    """
    axis = 0 if strip.shape.x > strip.shape.y else 1
    values = read_pixels(ds, strip)
    values = values if axis == 1 else values.T
    lines = line_level(values, None, 1, "mad")
    good = lines[np.isfinite(lines)]
    constant = float(np.mean(good)) if good.size else float("nan")
    read = readnoise_adu if readnoise_adu is not None else robust_std(values - lines[:, None])
    expected = read / np.sqrt(values.shape[1])
    scatter = robust_std(lines)
    length = ds.sizes["y"] if axis == 1 else ds.sizes["x"]
    levels = np.full(length, constant)
    what = ("column", "row")[axis]
    numbers = f"levels scatter by {scatter:.2f} adu, read noise predicts {expected:.2f}"
    if scatter <= 2 * expected:
        noise_adu = residual_scatter(values - constant, 1)
        return OverscanLevels(levels, axis, f"constant {constant:.2f} adu ({numbers})", constant, noise_adu)
    noise_adu = residual_scatter(values - lines[:, None], good.size)
    first = strip.y0 if axis == 1 else strip.x0
    levels[first : first + lines.size] = np.where(np.isfinite(lines), lines, constant)
    words = f"a level per {what}, {constant:.2f} adu on average ({numbers})"
    return OverscanLevels(levels, axis, words, constant, noise_adu)
