"""Loops over an array of frames x pixels; every sum runs over the frames in their order.

An input counts where ``use`` is true; what the others hold, NaN included, changes nothing. Loops over pixels have no branch,
so that processors do many pixels at once.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled

Array: TypeAlias = npt.NDArray[Any]


@compiled
def finite_inputs(values: Array, use: Array) -> int:
    """Set ``use`` where a value is finite; return how many are not."""
    frames, pixels = values.shape
    lost = 0
    for i in range(frames):
        for m in range(pixels):
            fine = values[i, m] - values[i, m] == 0
            use[i, m] = fine
            lost += not fine
    return lost


@compiled
def good_inputs(values: Array, bits: Array, bad: Any, no_data: Any, use: Array) -> int:
    """Set ``use`` where a value is finite and has no bad bit; return how many have.

    Values that are not finite get the bit ``no_data``, which counts as bad.
    """
    frames, pixels = values.shape
    lost = 0
    for i in range(frames):
        for m in range(pixels):
            fine = values[i, m] - values[i, m] == 0
            bits[i, m] |= no_data * (not fine)
            good = bits[i, m] & (bad | no_data) == 0
            use[i, m] = good
            lost += not good
    return lost


@compiled
def rank_of(bits: Any, ranks: Array) -> int:
    """Return the worst class that a bad input belongs to."""
    for k in range(len(ranks) - 1, 0, -1):
        if bits & ranks[k]:
            return k
    return 0


@compiled
def least_bad_inputs(bits: Array, ranks: Array, use: Array, exempt: Array) -> bool:
    """Set ``use`` for the least bad inputs of pixels that have no good one, and ``exempt`` there; return whether any are."""
    frames, pixels = use.shape
    worst = len(ranks) - 1
    found = False
    for m in range(pixels):
        exempt[m] = True
        for i in range(frames):
            exempt[m] &= not use[i, m]
        if exempt[m]:
            found = True
            least = worst
            for i in range(frames):
                least = min(least, rank_of(bits[i, m], ranks))
            for i in range(frames):
                use[i, m] = least < worst and rank_of(bits[i, m], ranks) == least
    return found


@compiled
def count_of(use: Array) -> Array:
    """Return how many inputs of each pixel count."""
    frames, pixels = use.shape
    count = np.zeros(pixels, np.int32)
    for i in range(frames):
        for m in range(pixels):
            count[m] += use[i, m]
    return count


@compiled
def reject_outside(values: Array, low: Array, high: Array, use: Array) -> Array:
    """Take away inputs below ``low`` or above ``high``; return which pixels lose one."""
    frames, pixels = values.shape
    changed = np.zeros(pixels, np.bool_)
    for i in range(frames):
        for m in range(pixels):
            out = use[i, m] & ((values[i, m] < low[m]) | (values[i, m] > high[m]))
            use[i, m] &= not out
            changed[m] |= out
    return changed


@compiled
def weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each frame."""
    frames, pixels = values.shape
    total = np.zeros(pixels)
    norm = np.zeros(pixels)
    for i in range(frames):
        weight = weights[i]
        for m in range(pixels):
            total[m] += weight * values[i, m] if use[i, m] else 0.0
            norm[m] += weight if use[i, m] else 0.0
    return total, norm


@compiled
def pixel_weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each value."""
    frames, pixels = values.shape
    total = np.zeros(pixels)
    norm = np.zeros(pixels)
    for i in range(frames):
        for m in range(pixels):
            total[m] += weights[i, m] * values[i, m] if use[i, m] else 0.0
            norm[m] += weights[i, m] if use[i, m] else 0.0
    return total, norm


@compiled
def squares_about(values: Array, use: Array, centre: Array) -> Array:
    """Return the sum of squared distances from the centre of the inputs that count."""
    frames, pixels = values.shape
    total = np.zeros(pixels)
    for i in range(frames):
        for m in range(pixels):
            distance = values[i, m] - centre[m]
            total[m] += distance * distance if use[i, m] else 0.0
    return total


@compiled
def median_of(values: Array, use: Array, scratch: Array) -> Array:
    """Return the median of the inputs that count; NaN where there is none."""
    frames, pixels = values.shape
    for i in range(frames):
        for m in range(pixels):
            scratch[i, m] = values[i, m] if use[i, m] else np.inf
    sort_frames(scratch)
    return middle_of(scratch, use)


@compiled
def deviation_of(values: Array, use: Array, centre: Array, scratch: Array) -> Array:
    """Return the median distance from the centre of the inputs that count; NaN where there is none."""
    frames, pixels = values.shape
    for i in range(frames):
        for m in range(pixels):
            scratch[i, m] = abs(values[i, m] - centre[m]) if use[i, m] else np.inf
    sort_frames(scratch)
    return middle_of(scratch, use)


@compiled
def sort_frames(values: Array) -> None:
    """Sort each pixel's values over the frames, in place, by Batcher's merge exchange (Knuth 5.2.2, algorithm M).

    Which frames are compared does not depend on the values, so the loop over pixels has no branch.
    """
    frames, pixels = values.shape
    top = 1
    while 2 * top < frames:
        top *= 2
    p = top if frames > 1 else 0
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            for i in range(frames - d):
                if i & p == r:
                    lower, upper = values[i], values[i + d]
                    for m in range(pixels):
                        a, b = lower[m], upper[m]
                        lower[m] = a if a < b else b
                        upper[m] = b if a < b else a
            d = q - p
            q //= 2
            r = p
        p //= 2


@compiled
def middle_of(ordered: Array, use: Array) -> Array:
    """Return the median of sorted values, of which as many count as ``use`` has."""
    pixels = ordered.shape[1]
    count = count_of(use)
    out = np.empty(pixels)
    for m in range(pixels):
        n = count[m]
        # the sum of two float32 is exact in double precision, where it may overflow in its own
        out[m] = 0.5 * (np.float64(ordered[(n - 1) // 2, m]) + ordered[n // 2, m]) if n > 0 else np.nan
    return out


@compiled
def merge_bits(
    bits: Array, use: Array, clipped: Array, empty: Array, weights: Array, planes: Array, saturated_share: float
) -> Array:
    """Return the bits of all inputs that count.

    ``planes`` are CLIPPED, set where ``clipped``; NO_DATA, set where ``empty``; and SAT, set where more than a share of the
    weight was left out because of it.
    """
    frames, pixels = bits.shape
    out = np.zeros(pixels, np.uint32)
    lost = np.zeros(pixels)
    for i in range(frames):
        for m in range(pixels):
            out[m] |= bits[i, m] if use[i, m] else np.uint32(0)
            lost[m] += weights[i] if not use[i, m] and bits[i, m] & planes[2] else 0.0
    limit = saturated_share * weights.sum()
    for m in range(pixels):
        out[m] |= planes[0] * clipped[m] | planes[1] * empty[m] | planes[2] * (lost[m] > limit)
    return out
