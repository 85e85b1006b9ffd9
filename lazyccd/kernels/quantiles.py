"""Exact order statistics of any number of pixels: the digits of the wanted values, most significant first.

1. Floats of one type are ordered like unsigned integers once negative ones have all bits flipped and others the sign bit.
   Negative zero counts as zero.
2. One pass counts how often each value of the next 16 bits occurs among the pixels that begin with the digits known so
   far. The counts say which digit comes next, and how many such pixels lie below.
3. Counts are integers: they add up to the same in any order. float32 takes two passes, float64 four.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.pixel_loops import rows_of

DIGITS = 2**16

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation, 1 / Phi^-1(3/4)."""

NOTHING = np.array([-np.inf, np.inf])
"""Bounds that leave out no pixel."""


@compiled
def _count(
    pixels: Array,
    mask: Array,
    strides: tuple[int, int],
    bad: Any,
    bounds: Array,
    prefixes: Array,
    bits: Any,
    counts: Array,
) -> None:
    """Count the next digit of the good, finite pixels within the bounds, apart for each prefix.

    ``pixels`` and ``mask`` are rows in memory order with these strides; the last row of ``counts`` holds the shape. ``bits``
    are the sign bit, the bits below the digit, 16 and 65535, all in the unsigned type of the keys.
    """
    top, shift, sixteen, low = bits
    keys = pixels.view(prefixes.dtype)
    for i in range(counts[-1, 0]):
        for j in range(counts[-1, 1]):
            at = i * strides[0] + j
            value = pixels[at]
            if value - value != 0 or value < bounds[0] or value > bounds[1]:
                continue
            if mask.size > 0 and mask[i * strides[1] + j] & bad != 0:
                continue
            key = keys[at]
            key = ~key if key & top != 0 and value != 0 else key | top
            rest = key >> shift
            for p in range(prefixes.size):
                if rest >> sixteen == prefixes[p]:
                    counts[p, rest & low] += 1


def count_digits(block: Block, *, bad_bits: int, step: int, state: Array, bounds: Array = NOTHING, **_: Any) -> Array:
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
        The lowest and the highest value that count are its first two numbers.
    """
    data = block.plane("data")
    unsigned = np.dtype(f"u{data.itemsize}").type
    prefixes = _prefixes(state, step).astype(unsigned)
    counts = np.zeros((prefixes.size + 1, DIGITS), np.int64)
    counts[-1, :2] = data.shape
    size = 8 * data.itemsize
    bits = unsigned(1 << size - 1), unsigned(size - 16 * (step + 1)), unsigned(16), unsigned(DIGITS - 1)
    pixels, stride = rows_of(data)
    mask, mask_stride = (np.empty(0, np.uint16), 0) if block.mask is None else rows_of(block.mask)
    bad = mask.dtype.type(bad_bits)
    _count(pixels, mask, (stride, mask_stride), bad, bounds.astype(np.float64), prefixes, bits, counts)
    return counts[:-1]


def _prefixes(state: Array, step: int) -> Array:
    """Return the different prefixes of a state; the empty one before the first pass."""
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
    bounds: Array = NOTHING,
) -> Array:
    """Return the state after a pass.

    Row 0 holds the number of pixels; each further row the digits of one wanted value as a number, and its rank among the
    pixels that begin with them. There are two wanted values for each quantile: those below and above its place.
    """
    counts = add_counts(partials)
    prefixes = _prefixes(state, step)
    if step == 0:
        total = int(counts.sum())
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
    """Return the quantiles that a complete state says, interpolated linearly unless ``lower``; NaN without pixels."""
    kind = np.dtype(dtype)
    total = int(state[0, 0])
    keys = state[1:, 0].astype(f"u{kind.itemsize}")
    top = keys.dtype.type(1) << keys.dtype.type(8 * kind.itemsize - 1)
    values = np.where(keys & top, keys ^ top, ~keys).view(kind).astype(np.float64)
    out = np.full(len(quantiles), np.nan)
    for k, quantile in enumerate(quantiles if total else ()):
        low, high = values[2 * k : 2 * k + 2]
        part = 0.0 if lower else quantile * (total - 1) - int(quantile * (total - 1))
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
    bounds: Array = NOTHING,
) -> Array:
    """Return the quantiles after the last pass."""
    done = next_digit(
        partials, bad_bits=bad_bits, step=step, state=state, quantiles=quantiles, lower=lower, bounds=bounds
    )
    return values_of(done, quantiles, dtype, lower=lower)
