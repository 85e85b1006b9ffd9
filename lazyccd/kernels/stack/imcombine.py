"""The rules of IRAF's imcombine (Valdes), to the bit.

What is needed for that: single precision throughout, imcombine's order of sums, its way of restoring rejected values, and the
order in which its sort leaves equal ones. Kept outputs of IRAF 2.17 hold it (tests/ops/test_imcombine.py).

Kernels work on one pixel first. ``d`` are its values and ``who`` their frames, of which the first n count. Clipping about a mean
keeps the order of the frames and moves rejected values behind the others; clipping about a median works on sorted values. Then
come whole lines, as imcombine works on these: `reject_line` and `combine_grown`. `imcombine_batches` does a region with them,
and `imcombine_scaling` finds imcombine's scales, zero points and weights.

Where imcombine's help and its code differ, the code is followed. Noise is corrected for scaling only if a scale differs from 1
by more than ``sigscale``; the help says that zero points count too, and that ``sigscale=0`` means always, where the code has
never. Weights take no part in rejection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.stack.batches import (
    NO_RESIDUAL,
    NO_VARIANCES,
    BatchSlices,
    Variances,
    batch_slices,
    bring_to_level,
    gather_batch,
    inside,
    shape_of,
    trimmed,
    unmasked_if_clean,
)
from lazyccd.kernels.stack.rejection import grow_rejected
from lazyccd.kernels.stack.scaling import PerFrame, Scaling
from lazyccd.kernels.stack.types import ImcombineRejection, Noise, PixelBatch, Rule
from lazyccd.sections import Region

NONE, SIGCLIP, AVSIGCLIP, CCDCLIP, PCLIP, MINMAX = range(6)
"""Rejections as the kernels know them."""

KINDS = {"sigclip": SIGCLIP, "avsigclip": AVSIGCLIP, "ccdclip": CCDCLIP, "pclip": PCLIP, "minmax": MINMAX}
"""The same by imcombine's names; its crreject is a ccdclip without a lower limit (icomb.gx)."""

AVERAGE, MEDIAN, SUM = range(3)
"""Methods as the kernels know them."""

METHODS = {"average": AVERAGE, "median": MEDIAN, "sum": SUM}
"""The same by name."""

TOLERANCE = np.float32(0.001)
"""Residuals this close to each other are restored together (TOL in icombine.h)."""

REAL_MAX = np.float32(1.7014118e38)
"""IRAF's MAX_REAL, which stands for no limit."""

SIGSCALE = 0.1
"""imcombine's parameter: noise is corrected for scaling if a scale differs from 1 by more."""

LEAST_NOISE = 1e4 / 1.7014118e38
"""Least variance by read noise, 1e4 / MAX_REAL: imcombine divides by its root."""


@compiled
def trimmed_mean(d: Array, n: int) -> Any:
    """Return the mean without the lowest and the highest value, and the sum of all."""
    # the sum must run just so: each value that falls out of the two ends is added when it is replaced
    low, high = min(d[0], d[1]), max(d[0], d[1])
    total = np.float32(0)
    for j in range(2, n):
        x = d[j]
        if x < low:
            total += low
            low = x
        elif x > high:
            total += high
            high = x
        else:
            total += x
    return total / np.float32(n - 2), total + low + high


@compiled
def middle(d: Array, first: int, n: int) -> Any:
    """Return the median of n sorted values from a place on."""
    if n % 2 == 0:
        # in single precision as IRAF's reals: the sum is rounded before it is halved
        return (d[first + n // 2 - 1] + d[first + n // 2]) / np.float32(2)
    return d[first + n // 2]


@compiled
def photon_root(level: Any, i: int, scales: Array, zeros: Array) -> Any:
    """Return the root of a frame's level before scaling, in double precision.

    Parameters
    ----------
    level
        In the unit of the scaled values.
    i
        The frame.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    """
    # the floor of 1 makes imcombine's rules depend on the unit: they are meant for counts, not for normalised flats
    return np.sqrt(np.float64(max(np.float32(1), (level + zeros[i]) / scales[i])))


@compiled
def noise_at(level: Any, i: int, corrected: bool, scales: Array, zeros: Array, noise: Array) -> Any:
    """Return the deviation that read noise, gain and sensitivity noise give at a level.

    Parameters
    ----------
    level
        In the unit of the scaled values.
    i
        The frame.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    """
    scale = scales[i] if corrected else np.float32(1)
    x = max(np.float32(0), scale * (level + zeros[i]) if corrected else level)
    y = x * noise[i, 2]
    root = np.sqrt(np.float64(noise[i, 0] + x / noise[i, 1] + y * y))
    return np.float32(root / np.float64(scale)) if corrected else np.float32(root)


@compiled
def spread(d: Array, who: Array, a: int, b: int, center: Any, corrected: bool, scales: Array, zeros: Array) -> Any:
    """Return the standard deviation (n - 1) about a center of the values a ... b - 1, in photon deviations if corrected.

    Parameters
    ----------
    d
        Values of the pixel, scaled, float32.
    who
        The frames of these values, int64.
    a
        Place of the first value.
    b
        Place behind the last value.
    center
        Mean or median, float32.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    """
    s = np.float32(0)
    for j in range(a, b):
        x = d[j] - center
        if corrected:
            x = x / np.float32(photon_root(center, who[j], scales, zeros))
        s += x * x
    return np.float32(np.sqrt(np.float64(s / np.float32(b - a - 1))))


@compiled
def deviation(
    kind: int, s: Any, center: Any, i: int, corrected: bool, scales: Array, zeros: Array, noise: Array
) -> Any:
    """Return the deviation of a value of a frame.

    Parameters
    ----------
    kind
        ``SIGCLIP``, ``AVSIGCLIP``, ``CCDCLIP``, ``PCLIP`` or ``MINMAX``.
    s
        The standard deviation, float32.
    center
        Mean or median, float32.
    i
        The frame.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    """
    if kind == CCDCLIP:
        return noise_at(center, i, corrected, scales, zeros, noise)
    if kind == SIGCLIP:
        return s * np.float32(photon_root(center, i, scales, zeros)) if corrected else s
    root = photon_root(center, i, scales, zeros) if corrected else np.sqrt(np.float64(max(np.float32(1), center)))
    return np.float32(np.float64(s) * root)


@compiled
def exchange(d: Array, who: Array, j: int, k: int) -> None:
    """Exchange two values and their frames.

    Parameters
    ----------
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    j, k
        Places that are exchanged.
    """
    d[j], d[k] = d[k], d[j]
    who[j], who[k] = who[k], who[j]


@compiled
def clip_about_mean(
    kind: int,
    d: Array,
    who: Array,
    n: int,
    low: Any,
    high: Any,
    kept: int,
    line: Any,
    corrected: bool,
    scales: Array,
    zeros: Array,
    noise: Array,
    residual: Array,
) -> Any:
    """Reject values far from the mean; return how many are left and their mean.

    Parameters
    ----------
    kind
        ``SIGCLIP``, ``AVSIGCLIP``, ``CCDCLIP``, ``PCLIP`` or ``MINMAX``.
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    n
        How many values count; they are the first ones.
    low
        How many deviations below the center a value may lie, float32.
    high
        How many deviations above the center a value may lie, float32.
    kept
        How many values are kept at least.
    line
        avsigclip's deviation of the line, float32.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    residual
        How far off each rejected value is, by its place, float32; filled.
    """
    # imcombine has three loops, and each asks for another least number of values; a ccdclip of two takes their mean
    fewest = max(2, kept + 1) if kind == CCDCLIP else max(2, kept) + 1
    total = np.float32(0)
    if n < (fewest if kind == CCDCLIP else max(3, kept)) or (kind == AVSIGCLIP and n < fewest):
        for j in range(n):
            total = d[j] if j == 0 else total + d[j]
        return n, total / np.float32(max(n, 1))
    mean = np.float32(0)
    if n > 2:
        mean, total = trimmed_mean(d, n)
    before = n
    while True:
        if kind == CCDCLIP:
            # ccdclip trims in every round; sigclip and avsigclip in the first one alone, and have plain means later
            if n == 2:
                total = d[0] + d[1]
                mean = total / np.float32(2)
            else:
                mean, total = trimmed_mean(d, n)
        before = n
        # the lowest and highest value, which the first mean leaves out, count in the deviation about it (icsclip.gx)
        s = spread(d, who, 0, n, mean, corrected, scales, zeros) if kind == SIGCLIP else line
        j = 0
        while j < n and (kind == CCDCLIP or s > 0):
            x = d[j]
            off = (x - mean) / deviation(kind, s, mean, who[j], corrected, scales, zeros, noise)
            if off < -low or off > high:
                residual[n - 1] = abs(off)
                exchange(d, who, j, n - 1)
                total -= x
                n -= 1
            else:
                j += 1
        if kind != CCDCLIP and n > 1:
            mean = total / np.float32(n)
        if n == before or n < fewest:
            break
    if n < kept:
        n, total = restore_behind(d, who, n, before, kept, residual, total)
        mean = total / np.float32(n) if n > 1 else mean
    return n, total / np.float32(max(n, 1)) if kind == CCDCLIP else mean


@compiled
def restore_behind(d: Array, who: Array, n: int, before: int, kept: int, residual: Array, total: Any) -> Any:
    """Restore the least rejected values, which lie behind the others; return how many are left and their sum.

    Parameters
    ----------
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    n
        How many values count; they are the first ones.
    before
        How many values counted before the last round.
    kept
        How many values are kept at least.
    residual
        How far off each rejected value is, by its place, float32.
    total
        Sum of the values that count, float32.
    """
    j, last = n, kept
    while j < last:
        r, ties = residual[j], 0
        for k in range(j + 1, before):
            s = residual[k]
            if s < r + TOLERANCE:
                if s > r - TOLERANCE:
                    ties += 1
                else:
                    ties = 0
                    residual[k] = r
                    r = s
                    exchange(d, who, j, k)
        total += d[j]
        j += 1
        last = max(last, j + ties)
    return j, total


@compiled
def clip_about_median(
    kind: int,
    d: Array,
    who: Array,
    n: int,
    low: Any,
    high: Any,
    kept: int,
    line: Any,
    corrected: bool,
    scales: Array,
    zeros: Array,
    noise: Array,
    residual: Array,
) -> Any:
    """Reject sorted values far from the median; return the first, how many are left, and the median IRAF then has.

    Parameters
    ----------
    kind
        ``SIGCLIP``, ``AVSIGCLIP``, ``CCDCLIP``, ``PCLIP`` or ``MINMAX``.
    d
        Values of the pixel, scaled and sorted, float32.
    who
        The frames of these values, int64.
    n
        How many values count; they are the first ones.
    low
        How many deviations below the center a value may lie, float32.
    high
        How many deviations above the center a value may lie, float32.
    kept
        How many values are kept at least.
    line
        avsigclip's deviation of the line, float32.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    residual
        How far off each rejected value is, by its place, float32; filled.
    """
    given = n
    fewest = max(2 if kind == CCDCLIP else 3, kept + 1)
    nl, nh, before = 0, n - 1, n
    median = middle(d, 0, n) if n > 0 else np.float32(np.nan)
    while True:
        before = n
        # avsigclip finds its median after a round that rejected something, the others at the beginning of each (icaclip.gx)
        if kind != AVSIGCLIP:
            median = middle(d, nl, n) if n > 0 else np.float32(np.nan)
        if n >= fewest:
            s = spread(d, who, nl, nh + 1, median, corrected, scales, zeros) if kind == SIGCLIP else line
            if kind == CCDCLIP or s > 0:
                while nl <= nh:
                    off = (median - d[nl]) / deviation(kind, s, median, who[nl], corrected, scales, zeros, noise)
                    if off <= low:
                        break
                    residual[nl] = off
                    nl += 1
                    n -= 1
                while nh >= nl:
                    off = (d[nh] - median) / deviation(kind, s, median, who[nh], corrected, scales, zeros, noise)
                    if off <= high:
                        break
                    residual[nh] = off
                    nh -= 1
                    n -= 1
            if kind == AVSIGCLIP and n < before:
                median = middle(d, nl, n) if n > 0 else np.float32(np.nan)
        if n == before or n < fewest:
            break
    while n < kept:
        nl, nh = restore_beside(nl, nh, given, before, residual)
        n = nh - nl + 1
        if kind == AVSIGCLIP and n < before:
            median = middle(d, nl, n)
    return nl, n, median


@compiled
def restore_beside(nl: int, nh: int, given: int, last: int, residual: Array) -> Any:
    """Restore the value below or above the others that is less off, and one or two that are as little off.

    Parameters
    ----------
    nl
        Place of the lowest value that counts.
    nh
        Place of the highest value that counts.
    given
        How many values there are, rejected ones included.
    last
        How many values counted before the last round.
    residual
        How far off each rejected value is, by its place, float32.
    """
    if nl == 0:
        return nl, nh + 1
    if nh == given - 1:
        return nl - 1, nh
    r, s = residual[nl - 1], residual[nh + 1]
    if r < s:
        nl -= 1
        r = r + TOLERANCE
        if s <= r:
            nh += 1
        if nl > 0 and residual[nl - 1] <= r:
            nl -= 1
    else:
        nh += 1
        s = s + TOLERANCE
        if r <= s:
            nl -= 1
        if nh < last - 1 and residual[nh + 1] <= s:
            nh += 1
    return nl, nh


@compiled
def clip_percentile(d: Array, n: int, order: Any, low: Any, high: Any, kept: int, residual: Array) -> Any:
    """Reject sorted values by the distance of one order from the median; return the first, how many are left, the median.

    Parameters
    ----------
    d
        Values of the pixel, scaled and sorted, float32.
    n
        How many values count; they are the first ones.
    order
        Orders from the median, negative below it, float32.
    low
        How many deviations below the center a value may lie, float32.
    high
        How many deviations above the center a value may lie, float32.
    kept
        How many values are kept at least.
    residual
        How far off each rejected value is, by its place, float32; filled.
    """
    half = 1 + n // 2
    median = middle(d, 0, n)
    if n < max(3, kept + 1):
        return 0, n, median
    # ranks of imcombine begin at 1; for even n, orders below the median begin at the lower middle value
    if order < 0:
        rank = max(1, int(np.floor(half - (1 if n % 2 == 0 else 0) + order + 0.5)))
    else:
        rank = min(n, int(np.floor(half + order + 0.5)))
    sigma = (np.float32(-1) if order < 0 else np.float32(1)) * (d[rank - 1] - median)
    if sigma == 0:
        return 0, n, median
    # not iterated, and a value just at the limit is rejected, unlike in the other rules
    nl, nh = 0, n - 1
    while nl < n:
        off = (median - d[nl]) / sigma
        if off < low:
            break
        residual[nl] = off
        nl += 1
    while nh >= 0:
        off = (d[nh] - median) / sigma
        if off < high:
            break
        residual[nh] = off
        nh -= 1
    left = nh - nl + 1
    while left < kept:
        nl, nh = restore_beside(nl, nh, n, half, residual)
        left = nh - nl + 1
    if nl > 0 or nh < n - 1:
        median = middle(d, nl, left)
    return nl, left, median


@compiled
def clip_counts(d: Array, who: Array, n: int, low: int, high: int) -> int:
    """Reject pairs of lowest and highest values, then what is left of either; return how many are left.

    Parameters
    ----------
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    n
        How many values count; they are the first ones.
    low
        How many of the lowest values are rejected.
    high
        How many of the highest values are rejected.
    """
    # one pass finds both ends, as in icmm.gx: where values are moved to decides which of equal ones is rejected next
    pairs = min(low, high)
    for _ in range(pairs):
        least = most = 0
        for j in range(1, n):
            if d[j] > d[most]:
                most = j
            elif d[j] < d[least]:
                least = j
        last, other = d[n - 1], d[n - 2]
        if most < n - 2:
            place = n - 2 if least != n - 2 else n - 1
            d[most] = other if least != n - 2 else last
            who[most], who[place] = who[place], who[most]
        if least < n - 2:
            place = n - 1 if most != n - 1 else n - 2
            d[least] = last if most != n - 1 else other
            who[least], who[place] = who[place], who[least]
        n -= 2
    for sign, count in ((1, low - pairs), (-1, high - pairs)):
        for _ in range(count):
            worst = 0
            for j in range(1, n):
                if sign * d[j] < sign * d[worst]:
                    worst = j
            exchange(d, who, worst, n - 1)
            n -= 1
    return n


@compiled
def sort_three(d: Array, who: Array, n: int) -> None:
    """Sort two or three values; equal ones as imcombine leaves them."""
    if n == 2:
        if d[1] < d[0]:
            exchange(d, who, 0, 1)
    elif n == 3:
        if d[1] < d[0]:
            if not d[1] < d[2]:
                exchange(d, who, 0, 2)
            else:
                exchange(d, who, 0, 1)
                if not d[1] < d[2]:
                    exchange(d, who, 1, 2)
        elif d[2] < d[1]:
            exchange(d, who, 1, 2)
            if not d[0] < d[1]:
                exchange(d, who, 0, 1)


@compiled
def sort_values(d: Array, who: Array, n: int) -> None:
    """Sort values and their frames; partitions and pivots are imcombine's, on which the order of equal values depends."""
    if n <= 3:
        sort_three(d, who, n)
        return
    # the longer part is put aside and the shorter sorted first, so that 64 places do for any number of values
    starts, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    starts[0], ends[0] = 0, n - 1
    depth = 1
    while depth > 0:
        depth -= 1
        first, last = starts[depth], ends[depth]
        while first < last:
            # imcombine's arrays begin at 1
            exchange(d, who, last, (first + last + 2) // 2 - 1)
            pivot = d[last]
            i, j = first - 1, last
            while i < j:
                i += 1
                while d[i] < pivot:
                    i += 1
                j -= 1
                while j > i and d[j] > pivot:
                    j -= 1
                if i < j:
                    exchange(d, who, i, j)
            exchange(d, who, i, last)
            if i - first < last - i:
                starts[depth], ends[depth] = i + 1, last
                last = i - 1
            else:
                starts[depth], ends[depth] = first, i - 1
                first = i + 1
            depth += 1


@compiled
def move_up(d: Array, who: Array, first: int, n: int) -> None:
    """Bring n values from a place on to the front: those at its end fill the gap.

    Parameters
    ----------
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    first
        Place of the first value.
    n
        How many values are moved.
    """
    j = max(first, n)
    for k in range(min(n, first)):
        exchange(d, who, k, j)
        j += 1


@compiled
def combined(method: int, d: Array, who: Array, n: int, weights: Array, weighted: bool, mixed: bool) -> Any:
    """Return the average or sum of the first n values; what weights add up to counts only where an input is missing.

    Parameters
    ----------
    method
        ``AVERAGE``, ``MEDIAN`` or ``SUM``.
    d
        Values of the pixel, scaled, float32.
    who
        The frames of these values, int64.
    n
        How many values count; they are the first ones.
    weights
        One per frame, float32; they add up to 1.
    weighted
        Whether the weights differ and are used.
    mixed
        Whether an input of the line is missing.
    """
    total = plain = norm = np.float32(0)
    for j in range(n):
        w = weights[who[j]]
        total = d[j] * w if j == 0 else total + d[j] * w
        plain = d[j] if j == 0 else plain + d[j]
        norm = w if j == 0 else norm + w
    if not weighted:
        return plain / np.float32(n) if method == AVERAGE else plain
    if not mixed:
        # imcombine's weights add up to 1 if no input is missing, and it does not divide then
        return total
    return total / norm if norm > 0 else plain / np.float32(n)


@compiled
def gather_scaled(
    values: Array, use: Array, m: int, scaled: bool, scales: Array, zeros: Array, d: Array, who: Array
) -> int:
    """Copy the inputs of a pixel that count, scaled.

    Parameters
    ----------
    values
        Unscaled values, frames x pixels, float32.
    use
        Which inputs count, frames x pixels, bool.
    m
        The pixel.
    scaled
        Whether values are scaled.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    d
        Scaled values, float32; filled.
    who
        Their frames, int64; filled.
    """
    n = 0
    for i in range(len(values)):
        if use[i, m]:
            d[n] = values[i, m] / scales[i] - zeros[i] if scaled else values[i, m]
            who[n] = i
            n += 1
    return n


@compiled
def line_spread(
    values: Array, use: Array, about_median: bool, scaled: bool, corrected: bool, scales: Array, zeros: Array
) -> Any:
    """Return avsigclip's deviation of a line.

    Parameters
    ----------
    values
        Unscaled values, frames x pixels, float32.
    use
        Which inputs count, frames x pixels, bool.
    about_median
        Whether clipping is about the median, and values are sorted for it.
    scaled
        Whether values are scaled.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    """
    frames, pixels = values.shape
    d, who = np.empty(frames, np.float32), np.empty(frames, np.int64)
    s, number = np.float32(0), 0
    for m in range(pixels):
        n = gather_scaled(values, use, m, scaled, scales, zeros, d, who)
        if n < 3:
            continue
        if about_median:
            sort_values(d, who, n)
            center = middle(d, 0, n)
        else:
            center = trimmed_mean(d, n)[0]
        for j in range(n):
            x = d[j] - center
            level = (center + zeros[who[j]]) / scales[who[j]] if corrected else center
            s += x * x / max(np.float32(1), level)
        number += n
    return np.float32(np.sqrt(np.float64(s / np.float32(number - 1)))) if number > 1 else np.float32(0)


@compiled
def clip_pixel(
    kind: int,
    about_median: bool,
    d: Array,
    who: Array,
    n: int,
    kept: int,
    settings: Array,
    line: Any,
    corrected: bool,
    scales: Array,
    zeros: Array,
    noise: Array,
    residual: Array,
) -> Any:
    """Reject values of one pixel; return the first, how many are left, and the mean or median that came of it.

    Parameters
    ----------
    kind
        ``SIGCLIP``, ``AVSIGCLIP``, ``CCDCLIP``, ``PCLIP`` or ``MINMAX``.
    about_median
        Whether clipping is about the median, and values are sorted for it.
    d
        Values of the pixel, scaled, float32; changed in place.
    who
        The frames of these values, int64; changed with them.
    n
        How many values count; they are the first ones.
    kept
        How many values are kept at least.
    settings
        Thresholds below and above, and an order or two fractions, float32.
    line
        avsigclip's deviation of the line, float32.
    corrected
        Whether noise is corrected for scaling.
    scales
        One per frame, float32: values were divided by them.
    zeros
        One per frame, float32: terms subtracted after that.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    residual
        How far off each rejected value is, by its place, float32; filled.
    """
    low, high = settings[0], settings[1]
    if about_median:
        sort_values(d, who, n)
    if kind == MINMAX:
        count, offset = np.float32(n), np.float32(0.001)
        left = clip_counts(d, who, n, int(settings[2] * count + offset), int(settings[3] * count + offset))
        return 0, left, np.float32(0)
    if kind == NONE:
        return 0, n, np.float32(0)
    if kind == PCLIP:
        return clip_percentile(d, n, settings[2], low, high, kept, residual)
    if about_median:
        return clip_about_median(kind, d, who, n, low, high, kept, line, corrected, scales, zeros, noise, residual)
    left, mean = clip_about_mean(kind, d, who, n, low, high, kept, line, corrected, scales, zeros, noise, residual)
    return 0, left, mean


@compiled
def reject_line(
    method: int,
    kind: int,
    about_median: bool,
    values: Array,
    use: Array,
    levels: Array,
    flags: Array,
    noise: Array,
    settings: Array,
    nkeep: int,
    out: Array,
) -> None:
    """Reject inputs of a line of pixels, clear ``use`` there, and combine.

    ``levels`` has scales, zeros and weights; ``flags`` says whether frames are scaled, noise is corrected for it, and weights
    differ; ``settings`` are two thresholds, and an order or two fractions.

    Parameters
    ----------
    method
        ``AVERAGE``, ``MEDIAN`` or ``SUM``.
    kind
        ``SIGCLIP``, ``AVSIGCLIP``, ``CCDCLIP``, ``PCLIP`` or ``MINMAX``.
    about_median
        Whether clipping is about the median, and values are sorted for it.
    values
        Unscaled values, frames x pixels, float32.
    use
        Which inputs count, frames x pixels, bool; cleared where they are rejected.
    levels
        Scales, zeros and weights: three rows of one float32 per frame.
    flags
        Whether frames are scaled, noise is corrected for it, and weights differ.
    noise
        Frames x 3, float32: variance by read noise in the unit of the data, gain in electrons per unit, and
        fraction of the signal.
    settings
        Thresholds below and above, and an order or two fractions, float32.
    nkeep
        How many inputs are kept at least; if negative, how many may be rejected at most.
    out
        The combined line, float32; filled.
    """
    frames, pixels = values.shape
    d, who = np.empty(frames, np.float32), np.empty(frames, np.int64)
    residual = np.empty(frames + 1, np.float32)
    scales, zeros = levels[0], levels[1]
    scaled, corrected, weighted = flags[0], flags[1], flags[2] and method == AVERAGE
    line = np.float32(0)
    if kind == AVSIGCLIP:
        line = line_spread(values, use, about_median, scaled, corrected, scales, zeros)
    # imcombine skips a rejection for good if there are too few frames, however many of them count at a pixel
    kept_of_all = max(0, frames + nkeep) if nkeep < 0 else min(frames, nkeep)
    if kind != NONE and kind != MINMAX and frames < max(2 if kind == CCDCLIP else 3, kept_of_all + 1):
        kind = NONE
    # imcombine takes the mean or median of the last round, whose bits can differ from those of a fresh one
    made = NONE < kind < MINMAX and method == (MEDIAN if about_median else AVERAGE) and not weighted
    full = True
    for turn in range(2):
        # the first turn says whether any input of the line is missing in the end, which weighted averages depend on
        for m in range(pixels):
            n = gather_scaled(values, use, m, scaled, scales, zeros, d, who)
            if n == 0:
                out[m] = np.nan
                full = False
                continue
            kept = max(0, n + nkeep) if nkeep < 0 else min(n, nkeep)
            first, left, result = clip_pixel(
                kind, about_median, d, who, n, kept, settings, line, corrected, scales, zeros, noise, residual
            )
            if turn == 0:
                full &= left == frames
                continue
            move_up(d, who, first, left)
            if not made and left > 0:
                if method == MEDIAN:
                    sort_values(d, who, left)
                    result = middle(d, 0, left)
                else:
                    result = combined(method, d, who, left, levels[2], weighted, not full)
            out[m] = result if left > 0 else np.float32(np.nan)
            for j in range(n):
                use[who[j], m] = j < left


@compiled
def combine_grown(
    method: int,
    about_median: bool,
    values: Array,
    good: Array,
    grown: Array,
    levels: Array,
    flags: Array,
    out: Array,
    use: Array,
) -> None:
    """Combine a line again without inputs that are rejected or beside such ones; where none is left the line stays.

    Parameters
    ----------
    method
        ``AVERAGE``, ``MEDIAN`` or ``SUM``.
    about_median
        Whether clipping is about the median, and values are sorted for it.
    values
        Unscaled values, frames x pixels, float32.
    good
        Which inputs counted before rejection, frames x pixels, bool.
    grown
        Which inputs are rejected or beside rejected ones, frames x pixels, bool.
    levels
        Scales, zeros and weights: three rows of one float32 per frame.
    flags
        Whether frames are scaled, noise is corrected for it, and weights differ.
    out
        The combined line, float32; filled.
    use
        Which inputs are used in the end, frames x pixels, bool; changed.
    """
    frames, pixels = values.shape
    d, who = np.empty(frames, np.float32), np.empty(frames, np.int64)
    for m in range(pixels):
        n = gather_scaled(values, good, m, flags[0], levels[0], levels[1], d, who)
        if about_median:
            sort_values(d, who, n)
        for i in range(frames):
            if grown[i, m]:
                for j in range(n):
                    if who[j] == i:
                        exchange(d, who, j, n - 1)
                        n -= 1
                        break
        if n == 0:
            continue
        for i in range(frames):
            use[i, m] = False
        for j in range(n):
            use[who[j], m] = True
        if method == MEDIAN:
            if not about_median:
                sort_values(d, who, n)
            # imcombine takes values that it sorted before for sorted, though the last one has filled a gap
            out[m] = middle(d, 0, n)
        else:
            out[m] = combined(method, d, who, n, levels[2], flags[2] and method == AVERAGE, True)


class ImcombineScaling(NamedTuple):
    """What imcombine does to each frame: ``d / scale - zero``, all in single precision (icgdata.gx)."""

    levels: Array
    """Scales, zeros and weights: three rows."""

    flags: Array
    """Whether frames are scaled, noise is corrected for it, and weights differ."""

    def as_scaling(self) -> Scaling:
        """Return the same as factors and terms."""
        scales, zeros, weights = self.levels.astype(np.float64)
        return Scaling(1 / scales, -zeros, weights)


def imcombine_scaling(rule: Rule, scalars: Mapping[str, Array]) -> ImcombineScaling:
    """Return what imcombine does to each frame, given the scalars by name."""
    levels, count = rule.levels, rule.count
    real = np.float32

    def known(given: PerFrame, default: float) -> Array:
        found = [float(np.ravel(scalars[n])[0]) if isinstance(n, str) else n for n in given]
        return np.array(found or [default] * count, real)

    scales, zeros, weights = known(levels.scale, 1.0), known(levels.zero, 0.0), known(levels.weights, 1.0)
    if not (scales > 0).all():
        # imcombine warns and scales nothing if one level is not above 0
        scales = np.ones(count, real)
    if levels.scale and not levels.scale_is_statistic:
        # factors of a file or keyword multiply, statistics divide (icscale.x)
        scales = real(1) / scales
    scales = scales / scales[0]
    zeros = zeros / scales
    if levels.weights:
        # W / (scale * sky) of the help; a sky that is not above 0 turns this term off for all frames
        by_sky = levels.weights_are_exposures and bool(levels.zero) and levels.zero_is_statistic and (zeros > 0).all()
        assert rule.iraf is not None
        made_of = np.array(rule.iraf.ncombine, real) * weights
        weights = made_of * zeros[0] / zeros if by_sky else made_of
    zeros = zeros - zeros[0] if levels.zero_is_statistic or not levels.zero else -zeros
    # one by one, as imcombine adds them: NumPy's sum has other bits
    total = real(0)
    for weight in weights:
        total = real(total + weight)
    weights = weights / total if total > 0 else np.ones(count, real)
    scaled = bool((scales != scales[0]).any()) or bool(levels.scale and not levels.scale_is_statistic)
    moved = bool((zeros != zeros[0]).any()) or bool(levels.zero and not levels.zero_is_statistic)
    # the help says that zero points turn the correction on too; the code looks at scales alone (icscale.x)
    corrected = scaled and bool((np.abs(scales - real(1)) > real(SIGSCALE)).any())
    flags = np.array([scaled or moved, corrected, bool((weights != weights[0]).any())])
    return ImcombineScaling(np.array([scales, zeros, weights], real), flags)


def imcombine_batches(
    region: Region, blocks: Sequence[Block], rule: Rule, scalars: Mapping[str, Array], *, variances: Variances
) -> Iterator[tuple[BatchSlices, PixelBatch, Array]]:
    """Yield the lines of a region after imcombine's rejections, with what it makes of them.

    Parameters
    ----------
    region, blocks, rule, scalars, variances
        As for `lazyccd.kernels.stack.combine.batches_of`; the blocks have whole lines.
    """
    held = blocks[0].region
    inner = region.within(held)
    rule = unmasked_if_clean(rule, blocks)
    scaling = imcombine_scaling(rule, scalars)
    grown = None
    # neighbours lie in other lines, so all rejections of the band come first, as in `clipped_batches`
    if rule.rejecting.grow >= 1:
        rejected = np.zeros((rule.count, *held.shape), np.bool_)
        for slices in batch_slices(held, rule):
            batch, given = _line(blocks, slices, rule, scaling, variances=NO_VARIANCES)
            rejected[:, *slices] = (given & ~batch.use).reshape(rule.count, *shape_of(slices))
        grown = np.zeros_like(rejected)
        grow_rejected(rejected, rule.rejecting.grow, grown)
    for slices in batch_slices(held, rule):
        part = inside(slices, inner)
        if part is None:
            continue
        batch, given = _line(blocks, slices, rule, scaling, variances=variances)
        if grown is not None and batch.combined is not None:
            combine_grown(
                METHODS[rule.method],
                _rejection(rule).about_median,
                np.ascontiguousarray(batch.values),
                np.ascontiguousarray(given),
                np.ascontiguousarray(grown[:, *slices].reshape(rule.count, -1)),
                scaling.levels,
                scaling.flags,
                batch.combined,
                batch.use,
            )
        # only now: the kernels scale each value themselves, and round where imcombine rounds
        bring_to_level(batch)
        yield trimmed(part, slices, batch, given, inner)


def _rejection(rule: Rule) -> ImcombineRejection:
    """Return imcombine's rejection; one of no kind if there is none."""
    found = None if rule.iraf is None else rule.iraf.rejection
    return ImcombineRejection(kind="none") if found is None else found


def _line(
    blocks: Sequence[Block], slices: BatchSlices, rule: Rule, scaling: ImcombineScaling, *, variances: Variances
) -> tuple[PixelBatch, Array]:
    """Return a line after rejection, its values not scaled yet, and what counted before.

    Parameters
    ----------
    blocks, slices, rule, scaling, variances
        As for `lazyccd.kernels.stack.batches.gather_batch`.
    """
    batch = gather_batch(blocks, slices, rule, scaling.as_scaling(), variances=variances)
    batch.values = batch.values.astype(np.float32, copy=False)
    for clip in rule.rejecting.clips:
        # imcombine's thresholds see unscaled values, and what they leave out does not count as rejected
        clip.reject(batch, NO_RESIDUAL)
    given = batch.use.copy()
    rejection = _rejection(rule)
    batch.combined = np.empty(batch.values.shape[1], np.float32)
    reject_line(
        METHODS[rule.method],
        KINDS.get(rejection.kind, NONE),
        rejection.about_median,
        batch.values,
        batch.use,
        scaling.levels,
        scaling.flags,
        _noise(rejection.noise, rule.count),
        _settings(rejection, rule.count),
        rule.rejecting.nkeep,
        batch.combined,
    )
    return batch, given


def _noise(noise: Noise | None, count: int) -> Array:
    """Return the variance by read noise, the gain and the sensitivity noise of each frame: three float32 columns."""
    if noise is None:
        return np.ones((count, 3), np.float32)
    r, g, s = (np.array(column, np.float32) for column in (noise.readnoise, noise.gain, noise.snoise))
    return np.array([np.maximum((r / g) ** 2, np.float32(LEAST_NOISE)), g, s]).T.astype(np.float32, order="C")


def _settings(rejection: ImcombineRejection, count: int) -> Array:
    """Return thresholds below and above, and an order or two fractions, as imcombine's single-precision numbers."""
    if rejection.kind == "minmax":
        fractions = np.array(rejection.counts, np.float32) / np.float32(count)
        return np.array([0, 0, *fractions], np.float32)
    limits = [min(limit, REAL_MAX) for limit in (rejection.low, rejection.high)]
    return np.array([*limits, rejection.order, 0], np.float32)
