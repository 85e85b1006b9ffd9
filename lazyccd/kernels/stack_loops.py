"""Loops over an array of frames x pixels; every sum runs over the frames in their order.

An input counts where ``use`` is true; what the others hold, NaN included, changes nothing.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled

Array: TypeAlias = npt.NDArray[Any]


@compiled
def rank_of(bits: Any, ranks: Array) -> int:
    """Return the worst class that a bad input belongs to."""
    for k in range(len(ranks) - 1, 0, -1):
        if bits & ranks[k]:
            return k
    return 0


@compiled
def choose_inputs(values: Array, bits: Array, bad: Any, no_data: Any, ranks: Array, use: Array, exempt: Array) -> None:
    """Set ``use`` for good inputs, and where there is none for those of the least bad class; set ``exempt`` there.

    Values that are not finite get the bit ``no_data``, which counts as bad.
    """
    frames, pixels = values.shape
    exempt[:] = True
    for i in range(frames):
        for m in range(pixels):
            if not np.isfinite(values[i, m]):
                bits[i, m] |= no_data
            use[i, m] = bits[i, m] & (bad | no_data) == 0
            exempt[m] &= not use[i, m]
    worst = len(ranks) - 1
    for m in range(pixels):
        if exempt[m]:
            least = worst
            for i in range(frames):
                least = min(least, rank_of(bits[i, m], ranks))
            for i in range(frames):
                use[i, m] = least < worst and rank_of(bits[i, m], ranks) == least


@compiled
def reject_outside(values: Array, low: Array, high: Array, exempt: Array, use: Array, clipped: Array) -> None:
    """Take away inputs below ``low`` or above ``high``; note pixels that lose one."""
    frames, pixels = values.shape
    for i in range(frames):
        for m in range(pixels):
            if use[i, m] and not exempt[m] and (values[i, m] < low[m] or values[i, m] > high[m]):
                use[i, m] = False
                clipped[m] = True


@compiled
def weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights."""
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
def squares_about(values: Array, use: Array, centre: Array) -> tuple[Array, Array]:
    """Return the sum of squared distances from the centre of the inputs that count, and their number."""
    frames, pixels = values.shape
    total = np.zeros(pixels)
    count = np.zeros(pixels)
    for i in range(frames):
        for m in range(pixels):
            distance = values[i, m] - centre[m]
            total[m] += distance * distance if use[i, m] else 0.0
            count[m] += 1.0 if use[i, m] else 0.0
    return total, count


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
    frames, pixels = ordered.shape
    count = np.zeros(pixels, np.int64)
    for i in range(frames):
        for m in range(pixels):
            count[m] += 1 if use[i, m] else 0
    out = np.empty(pixels)
    for m in range(pixels):
        n = count[m]
        out[m] = 0.5 * (ordered[(n - 1) // 2, m] + ordered[n // 2, m]) if n > 0 else np.nan
    return out


@compiled
def merge_bits(bits: Array, use: Array, clipped: Array, weights: Array, planes: Array, saturated_share: float) -> Array:
    """Return the bits of all inputs that count.

    ``planes`` are CLIPPED, set where an input was rejected; NO_DATA, set where no weight is left; and SAT, set where more
    than a share of the weight was left out because of it.
    """
    frames, pixels = bits.shape
    out = np.zeros(pixels, np.uint32)
    left = np.zeros(pixels)
    lost = np.zeros(pixels)
    for i in range(frames):
        for m in range(pixels):
            if use[i, m]:
                out[m] |= bits[i, m]
                left[m] += weights[i]
            elif bits[i, m] & planes[2]:
                lost[m] += weights[i]
    limit = saturated_share * weights.sum()
    for m in range(pixels):
        if clipped[m]:
            out[m] |= planes[0]
        if left[m] == 0:
            out[m] |= planes[1]
        if lost[m] > limit:
            out[m] |= planes[2]
    return out
