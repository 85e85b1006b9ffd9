"""Exact order statistics of any number of pixels: the digits of the wanted values, the most significant first.

1. Floats of one type sort like unsigned integers once negative ones have all bits flipped and others the sign bit.
   Negative zero counts as zero.
2. One pass counts how often each value of the next 16 bits occurs among the pixels that begin with the digits known so
   far. The counts give the next digit, and how many such pixels lie below.
3. Counts are integers, so they add up to the same in any order. float32 takes two passes, float64 four.

This is our own code because the result has to be exact and the same for any chunking, in memory that does not grow with
the image. A median of medians or a sketch is neither, and a sort needs all pixels in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.moments import NO_BOUNDS
from lazyccd.kernels.pixel_loops import rows_of

DIGITS = 2**16
"""Values of one digit: 16 bits, so that the counts of a prefix take 512 kB."""

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / Phi^-1(3/4)."""


@compiled
def _count(
    pixels: Array,
    mask: Array,
    shape: tuple[int, int],
    strides: tuple[int, int],
    bad: int,
    bounds: Array,
    prefixes: Array,
    bits: tuple[int, int, int, int],
    counts: Array,
) -> None:
    """Count the next digit of the good, finite pixels within the bounds, separately for each prefix.

    Parameters
    ----------
    pixels
        Float32 or float64 in memory order, as `rows_of` returns them.
    mask
        Mask in memory order; empty without.
    shape
        Rows and columns of the block.
    strides
        Pixels from one row to the next in ``pixels`` and in ``mask``.
    bad
        Bits of the mask that leave a pixel out, in its dtype.
    bounds
        Lowest and highest value that counts, float64.
    prefixes
        Digits known so far of the wanted values, each once, as unsigned integers of the pixels' size.
    bits
        The sign bit, the bits below the digit, 16 and 65535, all of the dtype of ``prefixes``.
    counts
        Receives the counts, int64, shape ``(prefixes, 65536)``.
    """
    top, shift, sixteen, low = bits
    lowest, highest = bounds[0], bounds[1]
    stride, mask_stride = strides
    keys = pixels.view(prefixes.dtype)
    for i in range(shape[0]):
        for j in range(shape[1]):
            at = i * stride + j
            value = pixels[at]
            # One subtraction finds NaN and both infinities.
            if value - value != 0 or value < lowest or value > highest:
                continue
            if mask.size > 0 and mask[i * mask_stride + j] & bad != 0:
                continue
            key = keys[at]
            # ``value != 0`` sends negative zero the way of zero: both are one number and must have one rank.
            key = ~key if key & top != 0 and value != 0 else key | top
            rest = key >> shift
            for p in range(prefixes.size):
                if rest >> sixteen == prefixes[p]:
                    counts[p, rest & low] += 1


def count_digits(block: Block, *, bad_bits: int, step: int, state: Array, bounds: Array = NO_BOUNDS, **_: Any) -> Array:
    """Return how often each next digit follows each prefix of the state, among good finite pixels within the bounds.

    Parameters
    ----------
    block
        Data and, if there is one, mask.
    bad_bits
        Bits of the mask that leave a pixel out.
    step
        Number of digits known before this pass.
    state
        What `next_digit` returned in the pass before; empty in the first.
    bounds
        Its first two numbers are the lowest and the highest value that counts.
    """
    data = block.plane("data")
    unsigned = np.dtype(f"u{data.itemsize}").type
    prefixes = _prefixes(state, step).astype(unsigned)
    counts = np.zeros((prefixes.size, DIGITS), np.int64)
    size = 8 * data.itemsize
    # In the type of the keys: numba makes float64 of a uint64 and a literal integer.
    bits = unsigned(1 << size - 1), unsigned(size - 16 * (step + 1)), unsigned(16), unsigned(DIGITS - 1)
    pixels, stride = rows_of(data)
    kind: np.dtype[Any] = np.dtype(np.uint16) if block.mask is None else block.mask.dtype
    mask, mask_stride = (np.empty(0, kind), 0) if block.mask is None else rows_of(block.mask)
    bad = kind.type(bad_bits)
    shape, strides = (data.shape[0], data.shape[1]), (stride, mask_stride)
    _count(pixels, mask, shape, strides, bad, bounds.astype(np.float64), prefixes, bits, counts)
    return counts


def _prefixes(state: Array, step: int) -> Array:
    """Return the different prefixes of a state; before the first pass only the empty one."""
    return np.zeros(1, np.uint64) if step == 0 else np.unique(state[1:, 0])


def add_counts(partials: Sequence[Array]) -> Array:
    """Return the sum of counts."""
    total = partials[0].copy()
    for partial in partials[1:]:
        total += partial
    return total


def next_digit(
    partials: Sequence[Array],
    *,
    bad_bits: int,
    step: int,
    state: Array,
    quantiles: tuple[float, ...],
    lower: bool,
    bounds: Array = NO_BOUNDS,
) -> Array:
    """Return the state after a pass.

    Parameters
    ----------
    partials
        Counts of the blocks, int64, shape ``(prefixes, 65536)`` each.
    bad_bits, bounds
        Not used: a pass and its partials take the same parameters.
    step
        Number of digits known before this pass.
    state
        The state before this pass.
    quantiles
        Quantiles wanted, 0 to 1.
    lower
        Whether a quantile between two pixels is the lower one; otherwise both are found, for interpolation.

    Returns
    -------
    ndarray
        uint64, shape ``(1 + 2 * quantiles, 2)``. Row 0 holds the number of pixels. Each further row belongs to a wanted value
        and holds its digits so far as a number, and its rank among the pixels that begin with them.
    """
    counts = add_counts(partials)
    prefixes = _prefixes(state, step)
    if step == 0:
        total = int(counts.sum())
        # Two ranks even for one pixel or a whole place, so that the state has the same shape whatever the image.
        wanted = [(0, rank) for quantile in quantiles for rank in _ranks(total, quantile, lower=lower)]
    else:
        total = int(state[0, 0])
        wanted = [(int(prefix), int(rank)) for prefix, rank in state[1:]]
    rows = [(total, 0)]
    for prefix, rank in wanted:
        below = np.cumsum(counts[np.searchsorted(prefixes, np.uint64(prefix))])
        digit = int(np.searchsorted(below, rank, side="right")) if total else 0
        rows.append((prefix * DIGITS + digit, rank - (int(below[digit - 1]) if digit else 0)))
    return np.array(rows, np.uint64)


def _ranks(total: int, quantile: float, *, lower: bool) -> tuple[int, int]:
    """Return the ranks of the two values between which a quantile lies."""
    place = quantile * (total - 1)
    first = max(0, int(place))
    return first, first if lower else min(first + 1, max(0, total - 1))


def values_of(state: Array, quantiles: tuple[float, ...], dtype: npt.DTypeLike, *, lower: bool) -> Array:
    """Return the quantiles that a complete state stands for; NaN without pixels.

    Parameters
    ----------
    state
        What `next_digit` returned in the last pass.
    quantiles
        Quantiles wanted, 0 to 1.
    dtype
        Dtype of the pixels and of the result.
    lower
        Whether to take the lower pixel instead of interpolating linearly.
    """
    kind = np.dtype(dtype)
    total = int(state[0, 0])
    keys = state[1:, 0].astype(f"u{kind.itemsize}")
    top = keys.dtype.type(1) << keys.dtype.type(8 * kind.itemsize - 1)
    values = np.where(keys & top, keys ^ top, ~keys).view(kind).astype(np.float64)
    out = np.full(len(quantiles), np.nan)
    for k, quantile in enumerate(quantiles if total else ()):
        low, high = values[2 * k : 2 * k + 2]
        part = 0.0 if lower else quantile * (total - 1) - int(quantile * (total - 1))
        # np.median takes the mean of the two middle pixels; interpolation with 0.5 would round differently.
        out[k] = (low + high) / 2 if part == 0.5 else low + part * (high - low)
    return out.astype(kind)


def last_digit(
    partials: Sequence[Array],
    *,
    bad_bits: int,
    step: int,
    state: Array,
    quantiles: tuple[float, ...],
    lower: bool,
    dtype: str,
    bounds: Array = NO_BOUNDS,
) -> Array:
    """Return the quantiles after the last pass.

    Parameters
    ----------
    partials, bad_bits, step, state, quantiles, lower, bounds
        As for `next_digit`.
    dtype
        Dtype of the pixels and of the result.
    """
    done = next_digit(
        partials, bad_bits=bad_bits, step=step, state=state, quantiles=quantiles, lower=lower, bounds=bounds
    )
    return values_of(done, quantiles, dtype, lower=lower)
