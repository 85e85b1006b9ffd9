"""Overscan on blocks: the level of each line of a strip, and its subtraction.

1. `row_levels` collects the good, finite pixels of each line and takes their mean, median or clipped mean.
2. `subtract_lines` does that for the strip beside a block and subtracts it in the same task; `subtract_levels` subtracts
   levels that a model was fitted to.

Bad and NaN pixels are left out, unlike in ccdproc: one dead pixel must not shift a line.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.pixel_loops import pixels_of, sort_values
from lazyccd.kernels.pointwise import or_masks
from lazyccd.kernels.quantiles import MAD_TO_SIGMA

Statistic: TypeAlias = Literal["mean", "median", "clipped", "mad"]

MEAN, MEDIAN, CLIPPED, MAD = range(4)
STATISTICS: tuple[Statistic, ...] = ("mean", "median", "clipped", "mad")
"""What the level of a line can be; the index of each is its number in compiled loops."""

CLIP_SIGMA = 3.0
"""Pixels further from the median of their line are no part of a clipped mean."""

CLIP_ITERATIONS = 5
"""How often a line is clipped by its standard deviation."""


@compiled
def _middle(values: Array) -> float:
    """Return the median of sorted numbers."""
    low, high = values[(values.size - 1) // 2], values[values.size // 2]
    # The sum is rounded as NumPy rounds it, in the type of the pixels; the half of it is exact.
    return 0.5 * (low + high)  # type: ignore[no-any-return]  # elements of an array are Any


@compiled
def _mean(values: Array) -> float:
    """Return the mean, summed in double precision."""
    # A float64 total in the order of the numbers, also for float32.
    total = 0.0
    for value in values:
        total += value
    return total / values.size


@compiled
def _clip(values: Array, iterations: int, sigma: float) -> tuple[int, int]:
    """Return the range of sorted numbers that is left after clipping at standard deviations about the median, repeatedly."""
    first, stop = 0, values.size
    for _ in range(iterations):
        kept = values[first:stop]
        middle, mean = _middle(kept), _mean(kept)
        total = 0.0
        for value in kept:
            total += (value - mean) ** 2
        limit = sigma * np.sqrt(total / kept.size)
        before = stop - first
        # Numbers are sorted, so what is clipped lies at both ends, and no pixel is looked at twice.
        while values[first] < middle - limit:
            first += 1
        while values[stop - 1] > middle + limit:
            stop -= 1
        if stop - first == before:
            break
    return first, stop


@compiled
def _clip_by_mad(values: Array, sigma: float, scratch: Array) -> tuple[int, int]:
    """Return the range of sorted numbers that is left after clipping once at median absolute deviations about the median."""
    middle = _middle(values)
    for i in range(values.size):
        scratch[i] = abs(values[i] - middle)
    sort_values(scratch[: values.size])
    limit = sigma * _middle(scratch[: values.size])
    first, stop = 0, values.size
    while middle - values[first] > limit:
        first += 1
    while values[stop - 1] - middle > limit:
        stop -= 1
    return first, stop


@compiled
def row_levels(
    strip: Array, bad: Array, statistic: int, iterations: int, sigma: float, scratch: Array, out: Array
) -> None:
    """Set the mean, median, or clipped mean of the good, finite pixels of each row; NaN where there are none.

    Parameters
    ----------
    strip
        Float32 or float64, shape ``(ny, nx)``.
    bad
        True for pixels that are left out, same shape; shape ``(0, 0)`` if there are none.
    statistic
        Index into `STATISTICS`.
    iterations
        How often `CLIPPED` clips at most.
    sigma
        Limit in standard deviations for `CLIPPED`, in median absolute deviations for `MAD`.
    scratch
        Dtype of the strip, shape ``(2, nx)``.
    out
        Receives the levels, float64, shape ``(ny,)``.
    """
    ny, nx = strip.shape
    for i in range(ny):
        count = 0
        for j in range(nx):
            value = strip[i, j]
            if np.isfinite(value) and not (bad.size > 0 and bad[i, j]):
                scratch[0, count] = value
                count += 1
        values = scratch[0, :count]
        # The plain mean keeps the order of the pixels in the image, in which its last bit is defined.
        if statistic != MEAN:
            sort_values(values)
        if count == 0:
            out[i] = np.nan
        elif statistic == MEAN:
            out[i] = _mean(values)
        elif statistic == MEDIAN:
            out[i] = _middle(values)
        else:
            if statistic == CLIPPED:
                first, stop = _clip(values, iterations, sigma)
            else:
                first, stop = _clip_by_mad(values, sigma, scratch[1])
            out[i] = _mean(values[first:stop])


def line_level(strip: Array, bad: Array | None, axis: int, statistic: Statistic) -> Array:
    """Return the level of each line of an overscan strip.

    1. ``mean`` and ``median``.
    2. ``clipped``: the mean within 3 standard deviations of the median, clipped at most 5 times.
    3. ``mad``: the mean within 3 times 1.4826 median absolute deviations of the median, clipped once.

    Parameters
    ----------
    strip
        Float32 or float64, shape ``(ny, nx)``.
    bad
        True for pixels to leave out, as those that are not finite are.
    axis
        Axis of the strip that is averaged over: 1 for a strip beside the image, 0 for one below it.
    statistic
        One of the above.

    Returns
    -------
    ndarray
        float64, one number for each line; NaN for a line without any good pixel.
    """
    if axis == 0:
        strip, bad = strip.T, None if bad is None else bad.T
    levels = np.empty(strip.shape[0])
    # Contiguous and writable copies: a transposed or read-only strip would compile the loop once more.
    rows = pixels_of(strip, strip.dtype).reshape(strip.shape)
    skip = np.empty((0, 0), bool) if bad is None else pixels_of(bad, bool).reshape(strip.shape)
    sigma = CLIP_SIGMA * (MAD_TO_SIGMA if statistic == "mad" else 1.0)
    scratch = np.empty((2, strip.shape[1]), strip.dtype)
    row_levels(rows, skip, STATISTICS.index(statistic), CLIP_ITERATIONS, sigma, scratch, levels)
    return levels


def bad_pixels(block: Block, bad_bits: int) -> Array | None:
    """Return where a block has any of the given mask bits; None if it has no mask."""
    return None if block.mask is None else (block.mask & block.mask.dtype.type(bad_bits)) != 0


def subtract_lines(
    request: Request,
    a: Block | None,
    strip: Block | None,
    *,
    axis: int,
    statistic: Statistic,
    bad_bits: int,
    no_data: int,
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Subtract from each line the level of the same line of the overscan strip.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image; None if only the mask is wanted and the image has none.
    strip
        The part of the overscan strip beside the region; None if there is none.
    axis
        1 for a strip beside the image, 0 for one below it.
    statistic
        One of `STATISTICS`.
    bad_bits
        Bits of the strip's mask that leave a pixel out.
    no_data
        Bit for the pixels of lines without a level; these pixels become NaN.
    dtype
        Dtype of the data in the result.
    mask_dtype
        Dtype of the mask in the result.
    """
    level = levels_beside(request, strip, axis, statistic, bad_bits)
    return _subtract(request, a, np.expand_dims(level.astype(dtype), axis), dtype, mask_dtype, no_data)


def levels_beside(request: Request, strip: Block | None, axis: int, statistic: Statistic, bad_bits: int) -> Array:
    """Return the level of each line of a region, from the strip beside it; NaN where there is none.

    Parameters
    ----------
    request, strip, axis, statistic, bad_bits
        As for `subtract_lines`.
    """
    r = request.region
    first, stop = (r.y0, r.y1) if axis == 1 else (r.x0, r.x1)
    level = np.full(stop - first, np.nan)
    if strip is not None:
        start = (strip.region.y0 if axis == 1 else strip.region.x0) - first
        found = line_level(strip.plane("data"), bad_pixels(strip, bad_bits), axis, statistic)
        level[start : start + found.size] = found
    return level


def levels_within(request: Request, level: Array, axis: int) -> Array:
    """Return the levels of the lines of a region, shape ``(ny, 1)`` or ``(1, nx)``."""
    r = request.region
    return level[r.y0 : r.y1, None] if axis == 1 else level[None, r.x0 : r.x1]


def subtract_levels(
    request: Request, a: Block | None, *, level: Array, axis: int, dtype: str, mask_dtype: str, no_data: int
) -> Block:
    """Subtract a level from each line; lines whose level is NaN become NaN.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image; None if only the mask is wanted and the image has none.
    level
        Level of every line of the image, in the unit of the data.
    axis
        1 for a level per row, 0 for one per column.
    dtype
        Dtype of the data in the result.
    mask_dtype
        Dtype of the mask in the result.
    no_data
        Bit for the pixels of lines without a level.
    """
    return _subtract(request, a, levels_within(request, level, axis), dtype, mask_dtype, no_data)


def _subtract(request: Request, a: Block | None, level: Array, dtype: str, mask_dtype: str, no_data: int) -> Block:
    """Subtract levels from a block.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image; None if only the mask is wanted and the image has none.
    level
        Levels of the lines, shape ``(ny, 1)`` or ``(1, nx)``.
    dtype
        Dtype of the data in the result.
    mask_dtype
        Dtype of the mask in the result.
    no_data
        Bit for the pixels of lines without a level.
    """
    data = mask = None
    if "data" in request.planes:
        assert a is not None
        data = np.subtract(a.plane("data"), level, dtype=dtype, casting="same_kind")
    if "mask" in request.planes:
        # The level alone decides: a pixel that is NaN already has its bit.
        missing = np.where(np.isnan(level), np.dtype(mask_dtype).type(no_data), np.dtype(mask_dtype).type(0))
        given = None if a is None else a.mask
        mask = or_masks(request, given, np.broadcast_to(missing, request.region.shape), mask_dtype)
    return Block(request.region, data, None if a is None or "variance" not in request.planes else a.variance, mask)


def blank_outside(request: Request, a: Block, *, axis: int, first: int, stop: int) -> Block:
    """Return the data with NaN in lines outside ``first <= line < stop``; the mask stays.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    axis
        1 to count rows, 0 to count columns.
    first, stop
        The first line that is kept, and the one after the last.
    """
    r = request.region
    lines = np.arange(r.y0, r.y1) if axis == 1 else np.arange(r.x0, r.x1)
    outside = np.expand_dims((lines < first) | (lines >= stop), axis)
    data = None
    if "data" in request.planes:
        data = np.where(outside, a.plane("data").dtype.type(np.nan), a.plane("data"))
    return Block(r, data=data, mask=a.mask if "mask" in request.planes else None)
