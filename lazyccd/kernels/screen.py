"""Bin a block of pixels to those of a screen, for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled


def screen_pixels(request: Request, a: Block, *, size: tuple[int, int], bad_bits: int) -> Block:
    """Return the mean of the good pixels under each pixel of a screen, and the planes that any of them has.

    Where no pixel is good, the finite ones are averaged; where none is finite, the mean is NaN.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The pixels under the region. The last row and column of the screen may have fewer than the others.
    size
        Rows and columns under a pixel of the screen.
    bad_bits
        Bits of the mask that make a pixel bad.
    """
    pixels = a.plane("data")
    dtype = np.float64 if pixels.dtype.itemsize > 4 or pixels.dtype.kind == "i" else np.float32
    # one type of mask less to compile for frames without
    mask = np.zeros(pixels.shape, np.uint16) if a.mask is None else a.mask
    means = np.empty(request.region.shape, dtype)
    planes = np.empty(request.region.shape, mask.dtype)
    _bin(
        np.ascontiguousarray(pixels, dtype), np.ascontiguousarray(mask), mask.dtype.type(bad_bits), *size, means, planes
    )
    return Block(request.region, means, mask=None if a.mask is None else planes)


@compiled
def _finite_mean(pixels: Array) -> float:
    """Return the mean of the finite pixels; NaN if there is none."""
    total, number = 0.0, 0
    for value in pixels.flat:
        if np.isfinite(value):
            total += value
            number += 1
    return total / number if number else np.nan


@compiled
def _bin(
    pixels: Array, mask: Array, bad: np.unsignedinteger[Any], rows: int, columns: int, means: Array, planes: Array
) -> None:
    """Fill the means and planes of boxes of so many rows and columns."""
    height, width = pixels.shape
    zero = mask.dtype.type(0)
    for i in range(means.shape[0]):
        first, last = i * rows, min((i + 1) * rows, height)
        # down the columns first, a whole row at a time without a branch: so the compiler makes vectors of it
        total, number, union = np.zeros(width), np.zeros(width, np.int32), np.zeros(width, mask.dtype)
        for y in range(first, last):
            for x in range(width):
                value, bits = pixels[y, x], mask[y, x]
                good = np.isfinite(value) & (bits & bad == zero)
                total[x] += value if good else 0.0
                number[x] += good
                union[x] |= bits
        for j in range(means.shape[1]):
            sum_, count, found = 0.0, 0, zero
            for x in range(j * columns, min((j + 1) * columns, width)):
                sum_ += total[x]
                count += number[x]
                found |= union[x]
            planes[i, j] = found
            box = pixels[first:last, j * columns : min((j + 1) * columns, width)]
            means[i, j] = sum_ / count if count else _finite_mean(box)
