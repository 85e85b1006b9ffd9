"""Partial results of global numbers on one tile, and how they are put together in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.pixel_loops import rows_of


def sum_and_count(block: Block, *, bad_bits: int, min_value: float | None) -> Array:
    """Return sum and number of the good pixels; ones below ``min_value`` count as that.

    The columns are summed first, so the result depends on the shape of the block, which is a tile, and on nothing else.
    """
    data, mask = block.plane("data"), block.mask
    kind = np.dtype(np.uint16) if mask is None else mask.dtype
    sums, counts = np.zeros(data.shape[1]), np.zeros(data.shape[1], np.int64)
    low = -np.inf if min_value is None else float(min_value)
    pixels, stride = rows_of(data)
    bits, mask_stride = (np.empty(0, kind), 0) if mask is None else rows_of(mask)
    bad = kind.type(bad_bits)
    pixel_loops.column_sums(pixels, stride, bits, mask_stride, bad, low, data.shape[0], sums, counts)
    return np.array([sums.sum(), counts.sum()])


def mean_of_sums(partials: Sequence[Array], *, bad_bits: int, min_value: float | None) -> Array:
    """Return the mean; NaN where there was no good pixel."""
    total = np.zeros(2)
    for partial in partials:
        total += partial
    return np.array(total[0] / total[1] if total[1] else np.nan)


EVERYTHING = np.array([-np.inf, np.inf])
"""Bounds that leave out no pixel."""


def moments(block: Block, *, bad_bits: int, centre: Array, sigma: float = np.inf, bounds: Array = EVERYTHING) -> Array:
    """Return number, and sums of the distances to a centre and of their squares, of the good pixels within bounds.

    The columns are summed first, so the result depends on the shape of the block, which is a tile, and on nothing else.
    """
    data, mask = block.plane("data"), block.mask
    sums = np.zeros((3, data.shape[1]))
    pixels, stride = rows_of(data)
    bits, mask_stride = (np.empty(0, np.uint16), 0) if mask is None else rows_of(mask)
    limits = np.array([*bounds[:2], *centre.ravel()[:1]], np.float64)
    bad = bits.dtype.type(bad_bits)
    pixel_loops.column_moments(pixels, stride, bits, mask_stride, bad, limits, data.shape[0], sums)
    return np.asarray(sums.sum(axis=1))


def mean_and_deviation(
    partials: Sequence[Array], *, bad_bits: int, centre: Array, sigma: float = np.inf, bounds: Array = EVERYTHING
) -> Array:
    """Return bounds ``sigma`` deviations off the centre, the centre, mean and standard deviation; NaN without pixels.

    New bounds are never wider than those given: a pixel that was rejected stays rejected.
    """
    total = np.zeros(3)
    for partial in partials:
        total += partial
    if total[0] == 0:
        return np.full(5, np.nan)
    middle = float(centre.ravel()[0])
    shift = total[1] / total[0]
    deviation = np.sqrt(max(total[2] / total[0] - shift**2, 0.0))
    width = sigma * deviation if np.isfinite(sigma) else np.inf
    low, high = max(bounds[0], middle - width), min(bounds[1], middle + width)
    return np.array([low, high, middle, middle + shift, deviation])


def distance(request: Request, a: Block, *, centre: Array, dtype: str) -> Block:
    """Return the distance of the data to a number; the mask stays."""
    data = None
    if "data" in request.planes:
        data = np.abs(a.plane("data") - np.dtype(dtype).type(centre.ravel()[0]))
    return Block(request.region, data, None, a.mask if "mask" in request.planes else None)
