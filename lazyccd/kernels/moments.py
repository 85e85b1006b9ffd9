"""Partial results of global numbers on one tile, and how they are combined in a fixed order.

1. Each tile gives sums over its columns, added up (`sum_and_count`, `moments`).
2. The sums of the tiles are added in the order of the tiles (`mean_of_sums`, `mean_and_deviation`). Tiles are anchored at
   pixel (0, 0) of the image, so no chunking shows in the last bit.
3. Clipping repeats this with bounds that the pass before returned, about a centre near the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.pixel_loops import rows_of

NO_BOUNDS = np.array([-np.inf, np.inf])
"""Bounds that leave out no pixel."""


def sum_and_count(block: Block, *, bad_bits: int, min_value: float | None) -> Array:
    """Return the sum and the number of the good pixels; those below ``min_value`` count as that value.

    The columns are summed first, so the result depends on the shape of the block, which is a tile, and on nothing else.
    """
    data, mask = block.plane("data"), block.mask
    kind: np.dtype[Any] = np.dtype(np.uint16) if mask is None else mask.dtype
    sums, counts = np.zeros(data.shape[1]), np.zeros(data.shape[1], np.int64)
    low = -np.inf if min_value is None else float(min_value)
    # Columns first, a row at a time: the inner loop runs along contiguous memory and vectorises.
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
    summed, count = total
    return np.array(summed / count if count else np.nan)


def moments(block: Block, *, bad_bits: int, centre: Array, sigma: float = np.inf, bounds: Array = NO_BOUNDS) -> Array:
    """Return, for the good pixels within bounds, their number and the sums of their distances to a centre and of the squares.

    Parameters
    ----------
    block
        Data of one tile and, if there is one, mask.
    bad_bits
        Bits of the mask that leave a pixel out.
    centre
        Its first number is what distances are measured from.
    sigma
        Not used: a pass and its partials take the same parameters.
    bounds
        Its first two numbers are the lowest and the highest value that counts.
    """
    data, mask = block.plane("data"), block.mask
    kind: np.dtype[Any] = np.dtype(np.uint16) if mask is None else mask.dtype
    sums = np.zeros((3, data.shape[1]))
    # Distances to a centre near the mean: squares of the values themselves would cancel in the variance.
    pixels, stride = rows_of(data)
    bits, mask_stride = (np.empty(0, kind), 0) if mask is None else rows_of(mask)
    lowest, highest = bounds[:2]
    limits = np.array([lowest, highest, centre.ravel()[0]], np.float64)
    bad = kind.type(bad_bits)
    pixel_loops.column_moments(pixels, stride, bits, mask_stride, bad, limits, data.shape[0], sums)
    return np.asarray(sums.sum(axis=1))


def mean_and_deviation(
    partials: Sequence[Array], *, bad_bits: int, centre: Array, sigma: float = np.inf, bounds: Array = NO_BOUNDS
) -> Array:
    """Return bounds ``sigma`` deviations off the centre, the centre, the mean and the standard deviation; NaN without pixels.

    Parameters
    ----------
    partials
        What `moments` returned for the tiles, in their order.
    bad_bits
        Not used: a pass and its partials take the same parameters.
    centre
        Its first number is the centre of `moments`.
    sigma
        Half the width of the new bounds, in standard deviations.
    bounds
        Its first two numbers are the bounds of `moments`.
    """
    total = np.zeros(3)
    for partial in partials:
        total += partial
    count, distances, squares = total
    if count == 0:
        return np.full(5, np.nan)
    middle = float(centre.ravel()[0])
    shift = distances / count
    # Rounding can leave a variance just below 0.
    deviation = np.sqrt(max(squares / count - shift**2, 0.0))
    width = sigma * deviation if np.isfinite(sigma) else np.inf
    lowest, highest = bounds[:2]
    # Never wider than before: a pixel that was rejected stays rejected.
    low, high = max(lowest, middle - width), min(highest, middle + width)
    return np.array([low, high, middle, middle + shift, deviation])


def distance(request: Request, a: Block, *, centre: Array, dtype: str) -> Block:
    """Return the distance of the data to a number; the mask stays.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        Data and, if there is one, mask.
    centre
        Its first number is what distances are measured from.
    dtype
        Dtype of the distances.
    """
    data = None
    if "data" in request.planes:
        data = np.abs(a.plane("data") - np.dtype(dtype).type(centre.ravel()[0]))
    return Block(request.region, data, None, a.mask if "mask" in request.planes else None)
