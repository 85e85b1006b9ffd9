"""Signs in the pixels that a calibration did not belong to a frame, or that gain and noise are not what they are said to be.

Each check is a function of arrays, NaN where a pixel is bad, and returns what to print, or nothing. A check may miss a fault;
it must not find one in good data, so each asks for an effect that is large and for one that is no chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from lazyccd.errors import quiet
from lazyccd.kernels.block import Array
from lazyccd.ops.sample import median, quantile, quantiles_of_rows, robust_std
from lazyccd.sections import Region

TILES = 4
"""Parts of each axis in which an effect is measured, so that its scatter shows how well it is known."""

NOISE_SIDE, STRUCTURE_SIDE = 64, 128
"""Sides of the part of each of these in which noise and small structure are measured: more pixels say no more, and take longer."""

MIDDLE_SIDE = 512
"""Side of the middle of an image in which one scatter is measured for all of it."""

SURE = 5.0
"""Standard errors that an effect must be away from nothing."""

STRUCTURE_LEFT = 0.5
"""Fraction of a master's structure that may be left, or be there negative."""

LEAST_STRUCTURE = 0.4
"""Fraction of the variance of a master's small structure that must not be noise, or there is nothing to compare."""

FEWEST_OF_PART = 30
"""Pixels that a part has, at least: with fewer an image is too small for the checks of its structure."""

HOT = 20.0
"""Robust standard deviations by which a hot pixel of a dark stands out."""

HOT_LEFT = 0.25
"""Fraction of hot pixels that may be left, or be there negative."""

FEWEST_HOT = 10

SHADING_LEFT = 0.3
"""Fraction of a flat's large structure that may be left, or be there inverted."""

WHOLE_SHADING = 1.5
"""A frame that was not divided at all has once the shading of its flat; what has more of it is something on the sky."""

LEAST_SHADING = 0.01
"""Scatter of the large structure of a flat below which there is nothing to compare."""

BELOW_SKY = 0.3
"""Noise of a pixel by which the median of a frame may be below 0."""

DARK_PIXELS = 0.02
"""Fraction of the pixels that may be five times the noise below 0."""

LEAST_NOISE, MOST_NOISE = 0.7, 1.5
"""Noise of the sky over what its uncertainty says, in half, and in three quarters, of the parts of an image."""

LEAST_NOISE_OF_KNOWN = 0.92
"""The first of these where pairs of frames gave gain and read noise, which are then known to some per cent. Where none did, what is
between the two is said and lowers no status."""

CONSTANT_SIDE = 16
"""Side of a part of a raw image in which not all pixels can be equal."""


UNLIT = 0.1
"""Part of a flat's level below which a column or row has no light."""

LEAST_STRIP = 8
"""Columns or rows of an overscan, at least; a few dead columns are none."""


class Left(NamedTuple):
    """How much of a master is left in a frame: 0 of one that belongs, -1 of one that the frame had nothing of."""

    fraction: float
    error: float

    def is_beyond(self, most: float) -> bool:
        """Return whether it is large and no chance."""
        return abs(self.fraction) > most and abs(self.fraction) > SURE * self.error


def is_large_enough(shape: tuple[int, ...]) -> bool:
    """Return whether an image has the pixels that the checks of its structure need.

    Examples
    --------
    >>> is_large_enough((100, 20)), is_large_enough((20, 20))
    (True, False)
    """
    return all(size >= 3 for size in shape) and math.prod(size - 2 for size in shape) >= FEWEST_OF_PART * TILES**2


def structure_left(after: Array, master: Array, noise: Array | float) -> Left | None:
    r"""Return how much of the small structure of a master is left in a frame after it was subtracted.

    Small structure is each pixel less the mean of its four neighbours. A regression of the frame on the master has the slope

    .. math:: b = \frac{f s^2 - n^2}{s^2 + n^2},

    with the variance :math:`s^2` of the structure, :math:`n^2` of the master's own noise, which the frame has taken over with
    the opposite sign, and the fraction :math:`f` that is left.

    Parameters
    ----------
    after
        The frame after the step.
    master
        The master as it was subtracted.
    noise
        Standard deviation of its noise: an image of the master's shape, or one number.

    Returns
    -------
    Left or None
        None if the master has no structure above its noise.
    """
    ours, theirs = small_structure(after), small_structure(master)
    # The glow of an amplifier is noisier than the rest of a dark: one number would make structure of that noise.
    squares = np.broadcast_to(np.square(noise), np.shape(master))[1:-1, 1:-1]
    fractions = []
    for y, x in _tiles(ours.shape, most=STRUCTURE_SIDE):
        a, m, n = _clipped(ours[y, x], theirs[y, x], squares[y, x])
        if a.size < FEWEST_OF_PART:
            continue
        variance = float(np.mean(m**2))
        own = 1.25 * float(np.mean(n))  # a pixel less the mean of four has 5/4 of its variance
        structure = variance - own
        # A master that is constant in a part, without noise of its own, has a variance of 0 there.
        if structure <= LEAST_STRUCTURE * variance:
            continue
        fractions.append((float(np.mean(a * m)) + own) / structure)
    return _mean_left(fractions)


def unlit_strips(flat: Array) -> list[Region]:
    """Return strips across a flat that see no light, with light on both sides: overscans between amplifiers.

    Examples
    --------
    >>> unlit_strips(np.hstack([np.ones((20, 30)), np.zeros((20, 12)), np.ones((20, 30))]))
    [Region(y0=0, y1=20, x0=30, x1=42)]
    """
    found = []
    rows, columns = flat.shape
    for axis in (1, 0):
        # Most of a column of an overscan is dark, and a vignetted one has its middle.
        profile = quantiles_of_rows(flat.T if axis else flat, 0.9)
        level = median(profile)
        # Of columns that a mask takes out nothing is known.
        lit = np.flatnonzero(~(profile <= UNLIT * level)) if level > 0 else np.array([], int)
        for before, after in pairwise(lit.tolist()):
            if after - before > LEAST_STRIP:
                found.append(Region(0, rows, before + 1, after) if axis else Region(before + 1, after, 0, columns))
    return found


def hot_pixels_left(after: Array, dark: Array) -> Left | None:
    """Return how much of the hot pixels of a dark is left in a frame after it was subtracted; None if it has too few."""
    known = np.isfinite(after) & np.isfinite(dark)
    if not known.any():
        return None
    above = dark - median(dark[known])
    hot = known & (above > HOT * robust_std(dark[known]))
    if hot.sum() < FEWEST_HOT:
        return None
    padded = np.pad(np.where(hot, np.nan, after), 2, constant_values=np.nan)
    y, x = np.nonzero(hot)
    around = np.stack([padded[y + dy, x + dx] for dy in range(5) for dx in range(5)])
    fractions = (after[hot] - _quietly(np.nanmedian, around)) / above[hot]
    fractions = fractions[np.isfinite(fractions)]
    if fractions.size < FEWEST_HOT:
        return None
    return Left(float(np.median(fractions)), 1.25 * robust_spread(fractions) / math.sqrt(fractions.size))


def shading_left(after: Array, flat: Array) -> Left | None:
    """Return how much of the large structure of a flat is left in a frame that it divided; None if it has none, or no sky.

    The sky is as bright everywhere, so a frame divided by a flat of another camera, filter or night shows the flat inverted:
    the slope of logarithms of medians is -1.
    """
    ours, theirs = _medians(after), _medians(flat)
    good = np.isfinite(ours) & np.isfinite(theirs) & (theirs > 0)
    # The sky must stand out, or a gradient of a few counts is all that there is.
    scatter = middle_scatter(after) / math.sqrt(1.25)
    if good.sum() < 16 or np.median(ours[good]) < scatter or (ours[good] <= 0).any():
        return None
    logs, flats = np.log(ours[good]), np.log(theirs[good])
    flats = flats - np.median(flats)
    if np.std(flats) < LEAST_SHADING:
        return None
    slope, offset = np.polyfit(flats, logs, 1)
    rest = logs - slope * flats - offset
    # Too little of a flat was taken away everywhere; a nebula in the middle, where flats are bright, ends somewhere.
    if slope > 0:
        bright = flats > 0
        halves = [_slope(flats[half], logs[half]) for half in (bright, ~bright)]
        slope = max(0.0, min(slope, *halves))
        slope = slope if slope < WHOLE_SHADING else 0.0
    # Gradients of the sky reach over many parts, which are then no independent measurements.
    error = float(np.std(rest) / np.std(flats) / math.sqrt(good.sum() / 4))
    return Left(float(slope), error)


def _slope(x: Array, y: Array) -> float:
    """Return the slope of a line through some points; 0 where they do not tell."""
    x, y = x - np.mean(x), y - np.mean(y)
    return float(np.sum(x * y) / np.sum(x * x)) if np.sum(x * x) > 0 else 0.0


def too_dark(values: Array, noise: float) -> str:
    """Say that a frame lies below 0, where light never is."""
    values = values[np.isfinite(values)]
    if not values.size or not noise > 0:
        return ""
    middle = median(values)
    if middle < -(BELOW_SKY + SURE / math.sqrt(values.size)) * noise:
        return f"the sky is negative, {middle:.4g} with a noise of {noise:.3g}"
    dark = float(np.mean(values < -5 * noise))
    return f"{dark:.0%} of the pixels are five times the noise below 0" if dark > DARK_PIXELS else ""


def constant_part(values: Array) -> float:
    """Return the fraction of a raw image, in squares of 16 pixels, in which all known pixels are equal."""
    rows, columns = (max(1, size // CONSTANT_SIDE) for size in values.shape)
    side_y, side_x = min(CONSTANT_SIDE, values.shape[0]), min(CONSTANT_SIDE, values.shape[1])
    cut = values[: rows * side_y, : columns * side_x].reshape(rows, side_y, columns, side_x)
    # A row of a part tells nearly always that it is not constant; only others are looked at as a whole.
    suspected = np.argwhere(_has_one_value(cut[:, side_y // 2]))
    parts = np.array([cut[y, :, x] for y, x in suspected]).reshape(len(suspected), side_y * side_x)
    # A few pixels of a part that is bad may be equal by chance.
    constant = _has_one_value(parts) & (np.isfinite(parts).mean(axis=-1) > 0.5)
    return float(constant.sum() / (rows * columns))


def _has_one_value(values: Array) -> Array:
    """Return whether the known values along the last axis are equal; so they are if there are none."""
    known = np.isfinite(values)
    low, high = np.where(known, values, np.inf).min(axis=-1), np.where(known, values, -np.inf).max(axis=-1)
    equal: Array = low >= high
    return equal


def noise_ratio(values: Array, uncertainty: Array) -> tuple[float, float]:
    """Return the noise of the sky over its uncertainty in parts of an image: what a quarter is below, and what half is.

    Stars fill some parts and make them noisier, so the quieter ones are the sky's.
    """
    ratios = []
    small = small_structure(values)
    for y, x in _tiles(small.shape, 2 * TILES, most=NOISE_SIDE):
        measured = robust_std(small[y, x]) / math.sqrt(1.25)
        expected = median(uncertainty[1:-1, 1:-1][y, x])
        if expected > 0 and math.isfinite(measured):
            ratios.append(measured / expected)
    if len(ratios) < TILES:
        return math.nan, math.nan
    return float(np.quantile(ratios, 0.25)), float(np.median(ratios))


def wrong_noise(
    values: Array,
    uncertainty: Array,
    *,
    flattened: bool,
    correction: float | None = None,
    ratio: tuple[float, float] | None = None,
) -> str:
    """Say that the noise of the sky is not what gain and read noise make it.

    A pedestal that nothing took away counts as light and has no noise, so it makes the noise too small too.

    Parameters
    ----------
    values, uncertainty
        A calibrated image.
    flattened
        Whether a flat divided it; if not, the pixels' sensitivities scatter too.
    correction
        Factor of the uncertainty by which gain and read noise that pairs of frames gave would change it; None where they gave
        none.
    ratio
        What `noise_ratio` returns, if it is known already.
    """
    low, middle = ratio or noise_ratio(values, uncertainty)
    least = LEAST_NOISE
    if correction is not None:
        # Robust deviations of so many differences of neighbours scatter by so much.
        error = 1.6 / math.sqrt(2 * max(1, int(np.isfinite(values).sum())))
        least = max(least, min(LEAST_NOISE_OF_KNOWN, 1 - SURE * error) * min(1.0, correction))
    if middle < least:
        return f"the noise of the sky is {middle:.2f} of what gain and read noise say, or less"
    if low > MOST_NOISE and flattened:
        return f"the noise of the sky is {low:.2f} times what gain and read noise say, or more"
    return ""


class Source(NamedTuple):
    """A point of light in a flat."""

    y: int
    x: int
    height: float
    """Above its surroundings, as a fraction of them."""


def sources(flat: Array) -> list[Source]:
    """Return the stars of a flat, the brightest first: what has the height and width of one, and all of whose neighbours stand out.

    A hot pixel has neighbours of the level of the flat, a bright column has them on two sides. The middle of a ring of dust is
    brighter than the ring, but not than what is around it.
    """
    known = np.isfinite(flat)
    if min(flat.shape) < 2 * _BACKGROUND or not known.any():
        return []
    # Beside an amplifier that gave nothing, all is brighter than the mean of both.
    known &= flat > _LIT * median(flat)
    if not known.any():
        return []
    flat = np.where(known, flat, np.nan)
    ratio = flat / _background(flat) - 1
    # Dust makes large structure, which is no noise of neighbours.
    small = small_structure(ratio)
    small = small[np.isfinite(small)]
    sigma = robust_spread(small) / math.sqrt(1.25) if small.size else 0.0
    residual = np.where(known, ratio, -np.inf)
    if not sigma > 0:
        return []
    peaks = np.argwhere(residual > max(STAR_LEAST, STAR_HEIGHT * sigma))
    heights = residual[tuple(peaks.T)]
    # Few pixels stand out, so only these are compared with their neighbours. Beyond the edge the flat goes on in a mirror.
    around = np.pad(residual, 2, "symmetric")
    for dy, dx in np.ndindex(5, 5):
        beside = around[peaks[:, 0] + dy, peaks[:, 1] + dx]
        kept = beside <= heights
        if 1 <= dy <= 3 and 1 <= dx <= 3:
            kept &= beside > np.maximum(STAR_HEIGHT / 4 * sigma, STAR_FOOT * heights)
        peaks, heights = peaks[kept], heights[kept]
    places = sorted(map(tuple, peaks), key=lambda place: -residual[place])[:100]
    found = (_source(residual, int(y), int(x)) for y, x in places)
    return [source for source in found if source is not None]


STAR_HEIGHT = 10.0
"""Robust standard deviations of a flat that a star in it stands out by."""

STAR_LEAST = 0.1
"""Height that a star in a flat has, at least: scratches and spots of the detector of EFOSC2 have up to 0.053, and what is left
between many rings of dust looks like such too."""

STAR_FOOT = 0.08
"""Part of its height that each of its eight neighbours has, at least: 2 pixels of full width give 0.09 in the worst place."""

_LIT = 0.1
"""Part of the level of a flat below which a pixel sees no light."""

_BACKGROUND = 32
"""Side of the parts whose bright pixels are the background of stars in a flat; a defocused star covers less than a fifth."""


def _background(flat: Array) -> Array:
    """Return the large structure of a flat: levels of parts, linear between their centres."""
    rows, columns = (max(2, size // _BACKGROUND) for size in flat.shape)
    high, wide = flat.shape[0] // rows, flat.shape[1] // columns
    parts = flat[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
    # Where dust covers most of a part, its median is that of the dust.
    levels = quantiles_of_rows(np.moveaxis(parts, 2, 1).reshape(rows, columns, -1), 0.8)
    levels = np.where(np.isfinite(levels), levels, median(levels))
    # As a product of matrices: each row of one has the weights of two parts.
    along_y, along_x = (
        _weights(size, side, count) for size, side, count in zip(flat.shape, (high, wide), (rows, columns), strict=True)
    )
    background: Array = along_y @ levels @ along_x.T
    return background


def _weights(size: int, side: int, count: int) -> Array:
    """Return the weights of parts for each pixel of an axis, linear between their centres."""
    places = np.clip((np.arange(size) + 0.5) / side - 0.5, 0, count - 1)
    weights: Array = np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(count)))
    return weights


def _source(residual: Array, y: int, x: int) -> Source | None:
    """Return a peak of a flat as a star, if it stands out of what is around it near and far."""
    reach = 20
    y0, x0 = max(0, y - reach), max(0, x - reach)
    part = residual[y0 : y + reach + 1, x0 : x + reach + 1]
    dy, dx = np.mgrid[: part.shape[0], : part.shape[1]]
    distance = np.hypot(dy + y0 - y, dx + x0 - x)
    peak = float(residual[y, x])
    # Between rings of dust a flat is brighter than on them, but not than where there is none.
    for inner, outer, most in ((5, 8, 0.75), (12, 20, 0.5)):
        ring = part[(distance >= inner) & (distance <= outer) & np.isfinite(part)]
        if ring.size < 20 or quantile(ring, 0.95) > most * peak:
            return None
    return Source(y, x, peak)


def robust_spread(values: Array) -> float:
    """Return the standard deviation that the middle half of some values has."""
    return (quantile(values, 0.75) - quantile(values, 0.25)) / 1.349


def piled_up(values: Array) -> tuple[float, int] | None:
    """Return the level at which a raw frame piles up and the pixels there; None if it does not.

    More than a handful of pixels have exactly the largest value, and many more than have each of the values below it.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    top, middle = float(values.max()), median(values)
    count = int((values == top).sum())
    # Of noise, and of stars, each value has fewer pixels than the one below.
    depth = max(1.0, 0.05 * (top - middle))
    below = int(((values < top) & (values >= top - depth)).sum()) / depth
    return (top, count) if top > 0 and count > 8 + 5 * below else None


def small_structure(values: Array) -> Array:
    """Return each pixel less the mean of its four neighbours, but for those at the edge."""
    # In place: fresh memory takes longer than the arithmetic.
    around: Array = values[:-2, 1:-1] + values[2:, 1:-1]
    around += values[1:-1, :-2]
    around += values[1:-1, 2:]
    around /= 4
    return np.subtract(values[1:-1, 1:-1], around, out=around)


def middle_scatter(values: Array) -> float:
    """Return the scatter of the small structure in the middle of an image, where a quarter of a million pixels tell it."""
    y, x = (_middle(0, size, MIDDLE_SIDE) for size in values.shape)
    return robust_std(small_structure(values[y, x]))


def _tiles(shape: tuple[int, ...], count: int = TILES, most: int | None = None) -> list[tuple[slice, slice]]:
    """Return the parts of an image, so many along each axis; of large ones the middle, at most so many pixels a side."""
    edges = [np.linspace(0, size, count + 1).astype(int) for size in shape]
    return [
        (_middle(y0, y1, most), _middle(x0, x1, most))
        for y0, y1 in zip(edges[0][:-1], edges[0][1:], strict=True)
        for x0, x1 in zip(edges[1][:-1], edges[1][1:], strict=True)
        if y1 > y0 and x1 > x0
    ]


def _middle(begin: int, end: int, most: int | None) -> slice:
    left_out = 0 if most is None else max(0, end - begin - most)
    return slice(begin + left_out // 2, end - (left_out + 1) // 2)


def _clipped(a: Array, m: Array, n: Array) -> tuple[Array, Array, Array]:
    """Return pairs of values of which neither stands out by more than five robust standard deviations, about their medians.

    Of the third array, that of the noise, it returns the values of the same pixels.
    """
    known = np.isfinite(a) & np.isfinite(m) & np.isfinite(n)
    a, m, n = a[known], m[known], n[known]
    if not a.size:
        return a, m, n
    a, m = a - median(a), m - median(m)
    good = (np.abs(a) <= 5 * robust_spread(a)) & (np.abs(m) <= 5 * robust_spread(m))
    return a[good], m[good], n[good]


def _mean_left(fractions: list[float]) -> Left | None:
    """Return the median of what parts of an image say, and its error; None if they are too few."""
    if len(fractions) < TILES:
        return None
    # Columns and rows go through several parts, which are then no independent measurements.
    return Left(float(np.median(fractions)), robust_spread(np.array(fractions)) / math.sqrt(TILES))


def _medians(values: Array) -> Array:
    """Return the medians of 8 by 8 parts of an image."""
    return np.array([median(values[y, x]) for y, x in _tiles(values.shape, 2 * TILES)])


def _quietly(statistic: Callable[..., Any], values: Array) -> Any:
    """Return a statistic along the first axis, NaN where nothing is known."""
    # a part without good pixels has no median
    with quiet(RuntimeWarning):
        return statistic(values, axis=0)
