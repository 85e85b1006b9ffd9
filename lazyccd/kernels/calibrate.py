"""Overscan and flat field on blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.pixel_loops import pixels_of
from lazyccd.kernels.pointwise import Remap, or_masks, remap_bits

Array = npt.NDArray[Any]


def line_level(strip: Array, bad: Array | None, axis: int, *, median: bool) -> Array:
    """Return the level of each line of an overscan strip: its mean, summed in double precision, or median.

    Pixels that are bad or not finite are left out; a line without any good pixel is NaN.
    """
    if axis == 0:
        strip, bad = strip.T, None if bad is None else bad.T
    levels = np.empty(strip.shape[0])
    rows = pixels_of(strip, strip.dtype).reshape(strip.shape)
    skip = np.empty((0, 0), bool) if bad is None else pixels_of(bad, bool).reshape(strip.shape)
    pixel_loops.row_levels(rows, skip, median, np.empty(strip.shape[1], strip.dtype), levels)
    return levels


def subtract_overscan_lines(
    request: Request,
    a: Block | None,
    strip: Block | None,
    *,
    axis: int,
    median: bool,
    bad_bits: int,
    no_data: int,
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Subtract from each line the level of the same line of the overscan strip.

    Lines that the strip does not cover, or covers with bad pixels only, become NaN; in the mask they get ``no_data``.
    """
    r = request.region
    first, stop = (r.y0, r.y1) if axis == 1 else (r.x0, r.x1)
    level = np.full(stop - first, np.nan)
    if strip is not None:
        bad = None if strip.mask is None else (strip.mask & strip.mask.dtype.type(bad_bits)) != 0
        start = (strip.region.y0 if axis == 1 else strip.region.x0) - first
        found = line_level(strip.plane("data"), bad, axis, median=median)
        level[start : start + found.size] = found
    data = mask = None
    if "data" in request.planes:
        assert a is not None
        data = np.subtract(a.plane("data"), np.expand_dims(level.astype(dtype), axis))
    if "mask" in request.planes:
        missing = np.where(np.isnan(level), np.dtype(mask_dtype).type(no_data), np.dtype(mask_dtype).type(0))
        given = None if a is None else a.mask
        mask = or_masks(request, given, np.broadcast_to(np.expand_dims(missing, axis), r.shape), mask_dtype)
    return Block(r, data, None if a is None or "variance" not in request.planes else a.variance, mask)


def subtract_overscan_vector(request: Request, a: Block, *, level: Array, axis: int, dtype: str) -> Block:
    """Subtract a level per row (axis 1) or per column (axis 0) of the image."""
    data = None
    if "data" in request.planes:
        r = request.region
        part = level[r.y0 : r.y1, None] if axis == 1 else level[None, r.x0 : r.x1]
        data = np.subtract(a.plane("data"), part, dtype=dtype, casting="same_kind")
    return Block(request.region, data, a.variance, a.mask)


def subtract_levels(
    request: Request, a: Block, *, level: Array, axis: int, dtype: str, mask_dtype: str, no_data: int
) -> Block:
    """Subtract a level per line; lines whose level is NaN become NaN, in the mask ``no_data``."""
    r = request.region
    part = level[r.y0 : r.y1, None] if axis == 1 else level[None, r.x0 : r.x1]
    data = mask = None
    if "data" in request.planes:
        data = np.subtract(a.plane("data"), part, dtype=dtype, casting="same_kind")
    if "mask" in request.planes:
        missing = np.where(np.isnan(part), np.dtype(mask_dtype).type(no_data), np.dtype(mask_dtype).type(0))
        mask = or_masks(request, a.mask, np.broadcast_to(missing, r.shape), mask_dtype)
    return Block(r, data, a.variance if "variance" in request.planes else None, mask)


def strip_levels(block: Block, *, axis: int, median: bool, bad_bits: int) -> Array:
    """Return the level of each line of a whole strip: a partial result of a reduction."""
    bad = None if block.mask is None else (block.mask & block.mask.dtype.type(bad_bits)) != 0
    return line_level(block.plane("data"), bad, axis, median=median)


def divide_flat(
    request: Request,
    a: Block,
    flat: Block,
    *,
    norm: Array,
    min_value: float | None,
    lowest: float,
    bad_bits: int,
    low_flat: int,
    no_data: int,
    dtype: str,
    mask_dtype: str,
    remap: Remap,
) -> Block:
    """Divide by a flat field that is first divided by ``norm``.

    Pixels of the flat below ``min_value`` count as ``min_value`` and are flagged ``low_flat``; so are those whose
    normalised value is not above 0, or below ``lowest``, by which nothing is divided; masked pixels of the flat count
    as 1. With ``r = a / f`` the variance is ``(var_a + r**2 var_f) / f**2``.
    """
    out = np.empty(request.region.shape, dtype)
    kind = out.dtype.type
    given = flat.plane("data")
    raw = pixels_of(given, dtype, out.shape)
    limit = kind(-np.inf if min_value is None else given.dtype.type(min_value))
    bits = np.dtype(mask_dtype) if flat.mask is None else flat.mask.dtype
    masked = pixels_of(flat.mask, bits, out.shape)
    norm_lowest = kind(np.asarray(norm).ravel()[0]), kind(lowest if min_value is None else 0)
    which = (masked, bits.type(bad_bits), limit, *norm_lowest)
    variance = mask = None
    data = out.reshape(-1)
    pixel_loops.divide_by_flat(pixels_of(a.plane("data"), dtype), raw, *which, data)
    if "variance" in request.planes:
        variance = np.empty(request.region.shape, dtype)
        given_variances = pixels_of(a.variance, dtype), raw, pixels_of(flat.variance, dtype, out.shape)
        pixel_loops.flat_variance(data, *given_variances, *which, variance.reshape(-1))
    if "mask" in request.planes:
        mask = np.empty(request.region.shape, mask_dtype)
        moved = None if flat.mask is None else remap_bits(flat.mask, remap, mask_dtype)
        old = pixels_of(or_masks(request, a.mask, moved, mask_dtype), mask_dtype)
        new_bits = mask.dtype.type(low_flat), mask.dtype.type(no_data)
        pixel_loops.flat_bits(data, raw, old, limit, *norm_lowest, *new_bits, mask.reshape(-1))
    return Block(request.region, out if "data" in request.planes else None, variance, mask)


def blank_outside(request: Request, a: Block, *, axis: int, first: int, stop: int) -> Block:
    """Return the data with NaN in the lines outside of ``first <= line < stop``; the mask is kept."""
    r = request.region
    lines = np.arange(r.y0, r.y1) if axis == 1 else np.arange(r.x0, r.x1)
    outside = np.expand_dims((lines < first) | (lines >= stop), axis)
    data = None
    if "data" in request.planes:
        data = np.where(outside, a.plane("data").dtype.type(np.nan), a.plane("data"))
    return Block(r, data=data, mask=a.mask if "mask" in request.planes else None)
