"""The rules of IRAF's imcombine (Valdes), to the bit: single precision, its order of sums, its restoring and its ties.

The functions below work on one pixel: ``d`` are its values and ``who`` their frames, of which the first n count. Clipping about
a mean keeps the order of the frames and moves rejected values behind the others; clipping about a median works on sorted values.
What IRAF's help says differently is in docs/deviations.md.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled

Array: TypeAlias = npt.NDArray[Any]

NONE, SIGCLIP, AVSIGCLIP, CCDCLIP, PCLIP, MINMAX = range(6)
"""Rejections."""

AVERAGE, MEDIAN, SUM = range(3)
"""Methods."""

TOLERANCE = np.float32(0.001)
"""Residuals this close to each other are restored together."""

REAL_MAX = np.float32(1.7014118e38)
"""IRAF's MAX_REAL."""


@compiled
def trimmed_mean(d: Array, n: int) -> Any:
    """Return the mean without the lowest and the highest value, and the sum of all."""
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
        return (d[first + n // 2 - 1] + d[first + n // 2]) / np.float32(2)
    return d[first + n // 2]


@compiled
def photon_root(level: Any, i: int, scales: Array, zeros: Array) -> Any:
    """Return the root of a frame's level before scaling, in double precision."""
    return np.sqrt(np.float64(max(np.float32(1), (level + zeros[i]) / scales[i])))


@compiled
def noise_at(level: Any, i: int, corrected: bool, scales: Array, zeros: Array, noise: Array) -> Any:
    """Return the deviation that read noise, gain and sensitivity noise give at a level."""
    scale = scales[i] if corrected else np.float32(1)
    x = max(np.float32(0), scale * (level + zeros[i]) if corrected else level)
    y = x * noise[i, 2]
    root = np.sqrt(np.float64(noise[i, 0] + x / noise[i, 1] + y * y))
    return np.float32(root / np.float64(scale)) if corrected else np.float32(root)


@compiled
def spread(d: Array, who: Array, a: int, b: int, centre: Any, corrected: bool, scales: Array, zeros: Array) -> Any:
    """Return the standard deviation (n - 1) about a centre of the values a ... b - 1, in photon deviations if corrected."""
    s = np.float32(0)
    for j in range(a, b):
        x = d[j] - centre
        if corrected:
            x = x / np.float32(photon_root(centre, who[j], scales, zeros))
        s += x * x
    return np.float32(np.sqrt(np.float64(s / np.float32(b - a - 1))))


@compiled
def deviation(
    kind: int, s: Any, centre: Any, i: int, corrected: bool, scales: Array, zeros: Array, noise: Array
) -> Any:
    """Return the deviation of a value of a frame."""
    if kind == CCDCLIP:
        return noise_at(centre, i, corrected, scales, zeros, noise)
    if kind == SIGCLIP:
        return s * np.float32(photon_root(centre, i, scales, zeros)) if corrected else s
    root = photon_root(centre, i, scales, zeros) if corrected else np.sqrt(np.float64(max(np.float32(1), centre)))
    return np.float32(np.float64(s) * root)


@compiled
def exchange(d: Array, who: Array, j: int, k: int) -> None:
    """Exchange two values and their frames."""
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
    """Reject values far from the mean; return how many are left and their mean."""
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
            if n == 2:
                total = d[0] + d[1]
                mean = total / np.float32(2)
            else:
                mean, total = trimmed_mean(d, n)
        before = n
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
    """Restore the least rejected values, which lie behind the others; return how many are left and their sum."""
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
    """Reject sorted values far from the median; return the first, how many are left, and the median IRAF then has."""
    given = n
    fewest = max(2 if kind == CCDCLIP else 3, kept + 1)
    nl, nh, before = 0, n - 1, n
    median = middle(d, 0, n) if n > 0 else np.float32(np.nan)
    while True:
        before = n
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
    """Restore the value below or above the others that is less off, and one or two that are as little off."""
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
    """Reject sorted values by the distance of one order from the median; return the first, how many are left, the median."""
    half = 1 + n // 2
    median = middle(d, 0, n)
    if n < max(3, kept + 1):
        return 0, n, median
    if order < 0:
        rank = max(1, int(np.floor(half - (1 if n % 2 == 0 else 0) + order + 0.5)))
    else:
        rank = min(n, int(np.floor(half + order + 0.5)))
    sigma = (np.float32(-1) if order < 0 else np.float32(1)) * (d[rank - 1] - median)
    if sigma == 0:
        return 0, n, median
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
    """Reject pairs of lowest and highest values, then what is left of either; return how many are left."""
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
    starts, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    starts[0], ends[0] = 0, n - 1
    depth = 1
    while depth > 0:
        depth -= 1
        first, last = starts[depth], ends[depth]
        while first < last:
            # numbers of imcombine's arrays begin at 1
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
    """Bring n values from a place on to the front: those at its end fill the gap."""
    j = max(first, n)
    for k in range(min(n, first)):
        exchange(d, who, k, j)
        j += 1
