"""Loops over an array of frames x pixels: what counts, sums, means, medians and bits.

An input counts where ``use`` is true; what the others hold, NaN included, changes nothing. Every sum runs over the frames in
their order, so that chunking never changes a bit. Loops over pixels have no branch, so that processors do many pixels at once,
and run over stretches of them for which sums and sorted values stay in the innermost cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled

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
        count_stretch(use, first, count[first : first + WIDTH])
    return count


@compiled
def count_lost(given: Array, use: Array) -> Array:
    """Return how many inputs of each pixel were given and count no more."""
    frames, pixels = use.shape
    count = np.zeros(pixels, np.int32)
    for first in range(0, pixels, WIDTH):
        part = count[first : first + WIDTH]
        for i in range(frames):
            before, after = given[i, first : first + WIDTH], use[i, first : first + WIDTH]
            for m in range(len(part)):
                part[m] += before[m] & ~after[m]
    return count


@compiled
def count_stretch(use: Array, first: int, count: Array) -> None:
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
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each frame.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64; or 1 x pixels, the same for all frames.
    use
        Which inputs count, frames x pixels, bool.
    weights
        Float64.
    """
    frames, pixels = use.shape
    total, norm = np.zeros(pixels), np.zeros(pixels)
    # equal weights are the common case: the number of inputs is their sum
    counted = bool((weights == 1).all())
    if counted:
        norm[:] = count_of(use)
    for first in range(0, pixels, WIDTH):
        sums, norms = total[first : first + WIDTH], norm[first : first + WIDTH]
        for i in range(frames):
            line = values[i if len(values) > 1 else 0, first : first + WIDTH]
            counts, weight = use[i, first : first + WIDTH], weights[i]
            for m in range(len(sums)):
                # no product with 0: NaN of an input that does not count would spoil the sum
                sums[m] += weight * line[m] if counts[m] else 0.0
            if not counted:
                for m in range(len(sums)):
                    norms[m] += weight if counts[m] else 0.0
    return total, norm


@compiled
def pixel_weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each value.

    Values are frames x pixels, or 1 x pixels, the same for all frames.
    """
    frames, pixels = use.shape
    total, norm = np.zeros(pixels), np.zeros(pixels)
    for first in range(0, pixels, WIDTH):
        sums, norms = total[first : first + WIDTH], norm[first : first + WIDTH]
        for i in range(frames):
            line = values[i if len(values) > 1 else 0, first : first + WIDTH]
            counts = use[i, first : first + WIDTH]
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
    mean[:], squares[:] = 0.0, 0.0
    _add_values(values, use, first, mean)
    # two passes: the difference of two large sums would lose the spread of bright pixels
    for m in range(len(mean)):
        mean[m] /= count[m]
    _add_squares(values, use, first, mean, squares)


@compiled
def _add_values(values: Array, use: Array, first: int, total: Array) -> None:
    """Add the inputs of a stretch that count to a total, float64."""
    frames, stop = len(values), first + len(total)
    # four frames for each time that the sum comes from the cache and goes back, in the same order
    for i in range(0, frames - 3, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        a, b, c, d = a[first:stop], b[first:stop], c[first:stop], d[first:stop]
        in_a, in_b, in_c, in_d = use[i], use[i + 1], use[i + 2], use[i + 3]
        in_a, in_b, in_c, in_d = in_a[first:stop], in_b[first:stop], in_c[first:stop], in_d[first:stop]
        for m in range(len(total)):
            partial = total[m] + (a[m] if in_a[m] else 0.0)
            partial += b[m] if in_b[m] else 0.0
            partial += c[m] if in_c[m] else 0.0
            total[m] = partial + (d[m] if in_d[m] else 0.0)
    for i in range(frames - frames % 4, frames):
        line, counts = values[i, first:stop], use[i, first:stop]
        for m in range(len(total)):
            total[m] += line[m] if counts[m] else 0.0


@compiled
def _add_squares(values: Array, use: Array, first: int, mean: Array, total: Array) -> None:
    """Add the squared distances from the mean of the inputs of a stretch that count to a total, float64."""
    frames, stop = len(values), first + len(total)
    for i in range(0, frames - 3, 4):
        a, b, c, d = values[i], values[i + 1], values[i + 2], values[i + 3]
        a, b, c, d = a[first:stop], b[first:stop], c[first:stop], d[first:stop]
        in_a, in_b, in_c, in_d = use[i], use[i + 1], use[i + 2], use[i + 3]
        in_a, in_b, in_c, in_d = in_a[first:stop], in_b[first:stop], in_c[first:stop], in_d[first:stop]
        for m in range(len(total)):
            off_a, off_b, off_c, off_d = a[m] - mean[m], b[m] - mean[m], c[m] - mean[m], d[m] - mean[m]
            partial = total[m] + (off_a * off_a if in_a[m] else 0.0)
            partial += off_b * off_b if in_b[m] else 0.0
            partial += off_c * off_c if in_c[m] else 0.0
            total[m] = partial + (off_d * off_d if in_d[m] else 0.0)
    for i in range(frames - frames % 4, frames):
        line, counts = values[i, first:stop], use[i, first:stop]
        for m in range(len(total)):
            distance = line[m] - mean[m]
            total[m] += distance * distance if counts[m] else 0.0


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
