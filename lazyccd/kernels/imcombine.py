"""Lines of a stack by the rules of IRAF's imcombine, to the bit."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.imcombine_clips import (
    AVERAGE,
    AVSIGCLIP,
    CCDCLIP,
    MEDIAN,
    MINMAX,
    NONE,
    PCLIP,
    clip_about_mean,
    clip_about_median,
    clip_counts,
    clip_percentile,
    exchange,
    middle,
    move_up,
    sort_values,
    trimmed_mean,
)
from lazyccd.kernels.jit import compiled

Array: TypeAlias = npt.NDArray[Any]


@compiled
def combined(method: int, d: Array, who: Array, n: int, weights: Array, weighted: bool, mixed: bool) -> Any:
    """Return the average or sum of the first n values; what weights add up to counts only where an input is missing."""
    total = plain = norm = np.float32(0)
    for j in range(n):
        w = weights[who[j]]
        total = d[j] * w if j == 0 else total + d[j] * w
        plain = d[j] if j == 0 else plain + d[j]
        norm = w if j == 0 else norm + w
    if not weighted:
        return plain / np.float32(n) if method == AVERAGE else plain
    if not mixed:
        return total
    return total / norm if norm > 0 else plain / np.float32(n)


@compiled
def gather_scaled(
    values: Array, use: Array, m: int, scaled: bool, scales: Array, zeros: Array, d: Array, who: Array
) -> int:
    """Copy the inputs of a pixel that count, scaled."""
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
    """Return avsigclip's deviation of a line."""
    frames, pixels = values.shape
    d, who = np.empty(frames, np.float32), np.empty(frames, np.int64)
    s, number = np.float32(0), 0
    for m in range(pixels):
        n = gather_scaled(values, use, m, scaled, scales, zeros, d, who)
        if n < 3:
            continue
        if about_median:
            sort_values(d, who, n)
            centre = middle(d, 0, n)
        else:
            centre = trimmed_mean(d, n)[0]
        for j in range(n):
            x = d[j] - centre
            level = (centre + zeros[who[j]]) / scales[who[j]] if corrected else centre
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
    """Reject values of one pixel; return the first, how many are left, and the mean or median that came of it."""
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
    """
    frames, pixels = values.shape
    d, who = np.empty(frames, np.float32), np.empty(frames, np.int64)
    residual = np.empty(frames + 1, np.float32)
    scales, zeros = levels[0], levels[1]
    scaled, corrected, weighted = flags[0], flags[1], flags[2] and method == AVERAGE
    line = np.float32(0)
    if kind == AVSIGCLIP:
        line = line_spread(values, use, about_median, scaled, corrected, scales, zeros)
    kept_of_all = max(0, frames + nkeep) if nkeep < 0 else min(frames, nkeep)
    if kind != NONE and kind != MINMAX and frames < max(2 if kind == CCDCLIP else 3, kept_of_all + 1):
        kind = NONE
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
    """Combine a line again without inputs that are rejected or beside such ones; where none is left the line stays."""
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
