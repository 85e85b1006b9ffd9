"""Loops over an array of frames x pixels: what counts, sums, means, medians and bits.

An input counts where ``use`` is true; what the others hold, NaN included, changes nothing. Every sum runs over the frames in
their order, so that chunking never changes a bit. Loops over pixels have no branch, so that processors do many pixels at once,
and run over stretches of them for which sums and sorted values stay in the innermost cache.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import exchange
from lazyccd.kernels.rank_filter import merge_network

WIDTH = 512
"""Pixels of a stretch: 20 sorted float64 frames of it take 80 KiB."""


@compiled
def finite_inputs(values: Array, use: Array) -> None:
    """Set ``use`` where a value is finite."""
    frames, pixels = values.shape
    for i in range(frames):
        for m in range(pixels):
            # NaN and infinity are the values whose difference from themselves is not 0: one comparison, no branch
            use[i, m] = values[i, m] - values[i, m] == 0


@compiled
def good_inputs(values: Array, bits: Array, bad: Any, no_data: Any, use: Array) -> int:
    """Set ``use`` where a value is finite and has no bad bit; return how many have.

    Values that are not finite get the bit ``no_data``, which counts as bad.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    bits
        Masks, frames x pixels, uint32.
    bad
        Bits that count as bad.
    no_data
        The bit of NO_DATA.
    use
        Where the answer goes, frames x pixels, bool; filled.
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
    """Set ``use`` for the least bad inputs of pixels that have no good one, and ``exempt`` there; return whether any are.

    Parameters
    ----------
    bits
        Masks, frames x pixels, uint32.
    ranks
        Bad bits from the least to the worst class, uint32.
    use
        Which inputs count, frames x pixels, bool; changed.
    exempt
        Of which pixels all inputs are bad, bool; filled.
    """
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
            # of the worst class, NO_DATA, there is no value to use
            for i in range(frames):
                use[i, m] = least < worst and rank_of(bits[i, m], ranks) == least
    return found


@compiled
def count_of(use: Array) -> Array:
    """Return how many inputs of each pixel count."""
    _, pixels = use.shape
    count = np.empty(pixels, np.int32)
    for first in range(0, pixels, WIDTH):
        _count(use, first, count[first : first + WIDTH])
    return count


@compiled
def _count(use: Array, first: int, count: Array) -> None:
    """Set how many inputs count in a stretch of pixels."""
    count[:] = 0
    for i in range(len(use)):
        counts = use[i, first : first + len(count)]
        for m in range(len(count)):
            count[m] += counts[m]


@compiled
def reject_outside(values: Array, low: float, high: float, use: Array) -> None:
    """Reject inputs below ``low`` or above ``high``.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    low
        The lowest value that counts.
    high
        The highest value that counts.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    for i in range(frames):
        for m in range(pixels):
            # NaN is neither, and has been left out before
            use[i, m] &= not ((values[i, m] < low) | (values[i, m] > high))


@compiled
def weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each frame."""
    frames, pixels = values.shape
    total, norm = np.zeros(pixels), np.zeros(pixels)
    # equal weights are the common case: the number of inputs is their sum
    counted = bool((weights == 1).all())
    if counted:
        norm[:] = count_of(use)
    for first in range(0, pixels, WIDTH):
        sums, norms = total[first : first + WIDTH], norm[first : first + WIDTH]
        for i in range(frames):
            line, counts, weight = values[i, first : first + WIDTH], use[i, first : first + WIDTH], weights[i]
            for m in range(len(sums)):
                # no product with 0: NaN of an input that does not count would spoil the sum
                sums[m] += weight * line[m] if counts[m] else 0.0
            if not counted:
                for m in range(len(sums)):
                    norms[m] += weight if counts[m] else 0.0
    return total, norm


@compiled
def pixel_weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each value."""
    frames, pixels = values.shape
    total, norm = np.zeros(pixels), np.zeros(pixels)
    for first in range(0, pixels, WIDTH):
        sums, norms = total[first : first + WIDTH], norm[first : first + WIDTH]
        for i in range(frames):
            line, counts = values[i, first : first + WIDTH], use[i, first : first + WIDTH]
            own = weights[i, first : first + WIDTH]
            for m in range(len(sums)):
                sums[m] += own[m] * line[m] if counts[m] else 0.0
                norms[m] += own[m] if counts[m] else 0.0
    return total, norm


@compiled
def mean_and_squares(values: Array, use: Array) -> tuple[Array, Array, Array]:
    """Return how many inputs count, their plain mean (NaN where there is none) and the sum of squared distances from it."""
    _, pixels = values.shape
    count = count_of(use)
    mean, squares = np.empty(pixels), np.empty(pixels)
    for first in range(0, pixels, WIDTH):
        stop = first + WIDTH
        spread_of_stretch(values, use, first, count[first:stop], mean[first:stop], squares[first:stop])
    return count, mean, squares


@compiled
def spread_of_stretch(values: Array, use: Array, first: int, count: Array, mean: Array, squares: Array) -> None:
    """Set mean and sum of squared distances in a stretch of pixels.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    first
        The first pixel of the stretch.
    count
        How many inputs of each pixel of the stretch count, int32.
    mean
        Means, float64; filled, NaN where no input counts.
    squares
        Sums of squared distances from them, float64; filled.
    """
    frames, stop = len(values), first + len(count)
    mean[:], squares[:] = 0.0, 0.0
    for i in range(frames):
        line, counts = values[i, first:stop], use[i, first:stop]
        for m in range(len(mean)):
            mean[m] += line[m] if counts[m] else 0.0
    # two passes: the difference of two large sums would lose the spread of bright pixels
    for m in range(len(mean)):
        mean[m] /= count[m]
    for i in range(frames):
        line, counts = values[i, first:stop], use[i, first:stop]
        for m in range(len(mean)):
            distance = line[m] - mean[m]
            squares[m] += distance * distance if counts[m] else 0.0


@functools.lru_cache(maxsize=64)
def sorting_network(count: int) -> Array:
    """Return the exchanges that sort so many values, as pairs of their places; see `merge_network` (Batcher 1968)."""
    return merge_network(count, 1, ())[0]


def median_of(values: Array, use: Array) -> Array:
    """Return the median of the inputs that count; NaN where there is none."""
    return _medians(values, use, sorting_network(len(values)), False)[0]


def median_and_deviation(values: Array, use: Array) -> tuple[Array, Array]:
    """Return the median of the inputs that count, and their median distance from it; NaN where there is none."""
    return _medians(values, use, sorting_network(len(values)), True)


@compiled
def _medians(values: Array, use: Array, network: Array, with_deviation: bool) -> tuple[Array, Array]:
    """Return medians, and median distances from them if these are wanted.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    network
        The exchanges that sort so many values.
    with_deviation
        Whether distances are wanted.
    """
    frames, pixels = values.shape
    out, deviations = np.empty(pixels), np.empty(pixels if with_deviation else 0)
    ordered, numbers = np.zeros((frames, WIDTH), values.dtype), np.empty(WIDTH, np.int32)
    for first in range(0, pixels, WIDTH):
        middle = out[first : first + WIDTH]
        count = numbers[: len(middle)]
        sort_stretch(values, use, first, network, count, ordered)
        same = np.min(count) == np.max(count)
        middle_of(ordered, count, same, middle)
        if with_deviation:
            deviation_of(ordered, count, same, middle, deviations[first : first + WIDTH])
    return out, deviations


@compiled
def sort_stretch(values: Array, use: Array, first: int, network: Array, count: Array, ordered: Array) -> None:
    """Sort the inputs that count in a stretch of pixels, and set how many there are; infinities follow them.

    Which values a network compares does not depend on them, so the loop over pixels has no branch.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    first
        The first pixel of the stretch.
    network
        The exchanges that sort so many values.
    count
        How many inputs of each pixel count, int32; filled.
    ordered
        Sorted inputs of the stretch, frames x pixels, in the type of the values; filled.
    """
    _count(use, first, count)
    # infinity sorts behind every input that counts
    nothing, stop = values.dtype.type(np.inf), first + len(count)
    for i in range(len(values)):
        line, counts, target = values[i, first:stop], use[i, first:stop], ordered[i]
        for m in range(len(count)):
            target[m] = line[m] if counts[m] else nothing
    exchange(ordered, network, len(count))


@compiled
def middle_of(ordered: Array, count: Array, same: bool, out: Array) -> None:
    """Set the medians of sorted values, of which the first ``count`` count: in all pixels alike if ``same``.

    Parameters
    ----------
    ordered
        Sorted inputs of a stretch, frames x pixels, in the type of the values.
    count
        How many inputs of each pixel count, int32.
    same
        Whether these are as many everywhere.
    out
        Results, float64; filled.
    """
    n = count[0]
    if same and n > 0:
        low, high = ordered[(n - 1) // 2], ordered[n // 2]
        for m in range(len(out)):
            # the sum of two float32 is exact in double precision, where it may overflow in its own
            out[m] = 0.5 * (np.float64(low[m]) + high[m])
        return
    for m in range(len(out)):
        n = count[m]
        out[m] = 0.5 * (np.float64(ordered[(n - 1) // 2, m]) + ordered[n // 2, m]) if n > 0 else np.nan


@compiled
def median_distance(ordered: Array, center: float) -> float:
    """Return the median distance of the sorted values of one pixel from their median; see `deviation_of`."""
    n = len(ordered)
    total = 0.0
    for k in ((n - 1) // 2 + 1, n // 2 + 1):
        least = np.inf
        for i in range(n - k + 1):
            least = min(least, max(center - ordered[i], ordered[i + k - 1] - center))
        total += least
    return 0.5 * total


@compiled
def deviation_of(ordered: Array, count: Array, same: bool, middle: Array, out: Array) -> None:
    """Set the median distances of sorted values from their median; see `middle_of`.

    The k values nearest to the median lie side by side. So the k-th smallest distance is the least, over all stretches of k
    values, of the larger distance of their ends.

    Parameters
    ----------
    ordered
        Sorted inputs of a stretch, frames x pixels, in the type of the values.
    count
        How many inputs of each pixel count, int32.
    same
        Whether these are as many everywhere.
    middle
        The medians, float64.
    out
        Results, float64; filled.
    """
    n = count[0]
    if same and n > 0:
        low, high = np.full(len(out), np.inf), np.full(len(out), np.inf)
        _nearest(ordered, n, (n - 1) // 2 + 1, middle, low)
        _nearest(ordered, n, n // 2 + 1, middle, high)
        for m in range(len(out)):
            out[m] = 0.5 * (low[m] + high[m])
        return
    for m in range(len(out)):
        n = count[m]
        out[m] = median_distance(ordered[:n, m], middle[m]) if n > 0 else np.nan


@compiled
def _nearest(ordered: Array, n: int, k: int, middle: Array, least: Array) -> None:
    """Lower ``least`` to the k-th smallest distance of n sorted values from ``middle``.

    Parameters
    ----------
    ordered
        Sorted inputs of a stretch, frames x pixels, in the type of the values.
    n
        How many inputs of each pixel count.
    k
        Which of the distances, from 1 on.
    middle
        The medians, float64.
    least
        The distances, float64; lowered.
    """
    for i in range(n - k + 1):
        below, above = ordered[i], ordered[i + k - 1]
        for m in range(len(least)):
            left, right = middle[m] - below[m], above[m] - middle[m]
            longer = left if left > right else right
            least[m] = longer if longer < least[m] else least[m]


@compiled
def merge_bits(
    bits: Array, use: Array, clipped: Array, empty: Array, weights: Array, planes: Array, saturated_share: float
) -> Array:
    """Return the bits of all inputs that count, with those that tell what was left out, as uint32.

    Parameters
    ----------
    bits, use
        Masks, uint32, and which inputs count, bool; frames x pixels.
    clipped, empty
        Of which pixels an input was rejected, and of which none is left; bool.
    weights
        One per frame, float64.
    planes
        The bits of CLIPPED, set where ``clipped``; of NO_DATA, set where ``empty``; and of SAT.
    saturated_share
        SAT is set where more than this share of the weight of inputs with data was left out because of it.
    """
    frames, pixels = bits.shape
    out = np.zeros(pixels, np.uint32)
    lost, total = np.zeros(pixels), np.zeros(pixels)
    # inputs that were left out give no bits; SAT alone is told from the weight that is lost, of that of inputs that have data:
    # a frame of a mosaic that ends beside the pixel must not count, or chunks would show
    for i in range(frames):
        for m in range(pixels):
            out[m] |= bits[i, m] if use[i, m] else np.uint32(0)
            lost[m] += weights[i] if not use[i, m] and bits[i, m] & planes[2] else 0.0
            total[m] += weights[i] if bits[i, m] & planes[2] or not bits[i, m] & planes[1] else 0.0
    for m in range(pixels):
        is_saturated = lost[m] > saturated_share * total[m]
        out[m] |= planes[0] * clipped[m] | planes[1] * empty[m] | planes[2] * is_saturated
    return out
