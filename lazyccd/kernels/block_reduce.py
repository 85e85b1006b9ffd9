"""Block reduction and replication on blocks: binning, means for pyramids and for registration.

`block_reduce` and `block_replicate` are ccdproc's, with variance and mask. The two means of good pixels differ on purpose:
`good_mean` halves an image in its own type and carries variance and mask; `box_mean` bins by any factor in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lazyccd.kernels.block import BITWISE_OR, Array, Block, Request


def as_blocks(array: Array, size: tuple[int, int]) -> Array:
    """Return a copy of the array with the axes: rows, columns, rows within a block, columns within a block."""
    by, bx = size
    ny, nx = array.shape[0] // by, array.shape[1] // bx
    # NumPy adds in the order of memory. Only if the pixels of a block are neighbours in it does the sum of a block not
    # depend on how many others there are.
    return np.array(array.reshape(ny, by, nx, bx).swapaxes(1, 2), order="C")


def block_reduce(
    request: Request, a: Block, *, size: tuple[int, int], func: Callable[..., Any], power: int | None, dtype: str
) -> Block:
    """Reduce each block of pixels to one.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        Whole blocks of the image.
    size
        Rows and columns of a block.
    func
        Makes the data when called as ``func(array, axis=(2, 3))``.
    power
        The variance is the sum over the block divided by its size to this power: 0 for a sum, 2 for a mean.
    dtype
        Dtype of data and variance in the result.
    """
    data = variance = mask = None
    if "data" in request.planes:
        data = np.asarray(func(as_blocks(a.plane("data"), size), axis=(2, 3))).astype(dtype, copy=False)
    if "variance" in request.planes:
        assert power is not None
        total = as_blocks(a.plane("variance"), size).sum(axis=(2, 3))
        variance = (total / (size[0] * size[1]) ** power).astype(dtype, copy=False)
    if "mask" in request.planes:
        mask = BITWISE_OR.reduce(as_blocks(a.plane("mask"), size), axis=(2, 3))
    return Block(request.region, data, variance, mask)


def block_replicate(request: Request, a: Block, *, size: tuple[int, int], divisor: float) -> Block:
    """Make a block of pixels of each one.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The pixels that the region comes from.
    size
        Rows and columns of a block.
    divisor
        What the data are divided by; the variance is divided by its square.
    """
    by, bx = size
    r = request.region
    # The region may begin within a block.
    cut = r.within(a.region._replace(y0=a.region.y0 * by, x0=a.region.x0 * bx))

    def spread(plane: Array) -> Array:
        return np.repeat(np.repeat(plane, by, axis=0), bx, axis=1)[cut]

    data = spread(a.plane("data")) / divisor if "data" in request.planes else None
    variance = spread(a.plane("variance")) / divisor**2 if "variance" in request.planes else None
    mask = spread(a.plane("mask")) if "mask" in request.planes else None
    return Block(r, data, variance, mask)


def good_mean(request: Request, a: Block, *, bad_bits: int) -> Block:
    """Average the good pixels of each block of 2 x 2, with equal weights; where none is good, those that are finite.

    The variance is that of the mean of the same pixels; the mask has the bits of all four.
    """
    quarters = [(slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
    pixels = a.plane("data")
    # Equal weights: with weights by variance faint pixels would count more, because they have less noise.
    used = np.isfinite(pixels)
    if a.mask is not None:
        good = used & ((a.mask & a.mask.dtype.type(bad_bits)) == 0)
        any_good = good[quarters[0]] | good[quarters[1]] | good[quarters[2]] | good[quarters[3]]
        used = np.where(np.repeat(np.repeat(any_good, 2, axis=0), 2, axis=1), good, used)

    def total(plane: Array) -> Array:
        kept = np.where(used, plane, plane.dtype.type(0))
        # Pairs in a fixed order, so that a level of a pyramid does not depend on the chunks.
        return np.asarray((kept[quarters[0]] + kept[quarters[1]]) + (kept[quarters[2]] + kept[quarters[3]]))

    data = variance = mask = None
    with np.errstate(invalid="ignore", divide="ignore"):
        number = total(used.astype(pixels.dtype))
        if "data" in request.planes:
            data = total(pixels) / number
        if "variance" in request.planes:
            variance = total(a.plane("variance")) / (number * number)
    if "mask" in request.planes:
        bits = a.plane("mask")
        mask = (bits[quarters[0]] | bits[quarters[1]]) | (bits[quarters[2]] | bits[quarters[3]])
    return Block(request.region, data, variance, mask)


def box_mean(request: Request, a: Block, *, size: int, bad: int) -> Block:
    """Return the means of the good pixels of boxes; NaN where there are none.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        Whole boxes of the image.
    size
        Side of a box.
    bad
        Bits of the mask that leave a pixel out.
    """
    data = a.plane("data").astype(np.float64)
    good = np.isfinite(data)
    if a.mask is not None:
        good &= (a.mask & a.mask.dtype.type(bad)) == 0
    ny, nx = request.region.shape
    boxes = (ny, size, nx, size)
    total = np.where(good, data, 0).reshape(boxes).sum(axis=(1, 3))
    # 0 / 0 where no pixel is good.
    with np.errstate(invalid="ignore"):
        return Block(request.region, total / good.reshape(boxes).sum(axis=(1, 3)))
