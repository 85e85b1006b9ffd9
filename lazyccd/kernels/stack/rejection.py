"""Loops that reject inputs of a stack pixel by pixel: one for each rule, or for rules of one kind.

The rules are those of IRAF's imcombine (Valdes; ccdclip, avsigclip, pclip, minmax), of Siril (winsorized, linear fit) and of
Rosner (1983, Technometrics 25, 165; generalised extreme Studentised deviates) and of SWarp (Gruen et al. 2014, PASP 126, 158;
clipped), each over the inputs that count.

A loop clears ``use`` where it rejects. If ``residual`` has elements, it says there how far off each rejected input is, so that
the least bad can be restored. `lazyccd.ops.stack.rejection` has the classes by which users choose a rule; clipping by standard
or median absolute deviations has a file of its own, `lazyccd.kernels.stack.sigma_clip`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA

NOISE, VARIANCE, LINE, WINSORIZED, LINEAR = range(5)
"""What `reject_iterated` takes for the deviation of an input."""

WINSOR_RANGE, WINSOR_FACTOR, WINSOR_TOLERANCE = 1.5, 1.134, 0.0005
"""Siril's: values are clamped 1.5 deviations from the median, which makes the deviation 1.134 times too small; when it has settled."""

FEWEST_FITTED = 4
"""Winsorized and linear-fit clipping stop when so many inputs are left, as in Siril."""


@compiled
def gather(values: Array, use: Array, m: int, v: Array, who: Array) -> int:
    """Copy the inputs of a pixel that count, and their frames; return how many there are.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    m
        The pixel.
    v
        Values of the pixel, float64; filled.
    who
        Their frames, int64; filled.
    """
    n = 0
    for i in range(len(values)):
        if use[i, m]:
            v[n] = values[i, m]
            who[n] = i
            n += 1
    return n


@compiled
def sort_by(v: Array, who: Array, n: int) -> None:
    """Sort values, and their frames with them, equal ones in the order of the frames (Shell 1959, gaps of Ciura 2001)."""
    for gap in (301, 132, 57, 23, 10, 4, 1):
        for k in range(gap, n):
            x, w = v[k], who[k]
            j = k
            while j >= gap and (v[j - gap] > x or (v[j - gap] == x and who[j - gap] > w)):
                v[j], who[j] = v[j - gap], who[j - gap]
                j -= gap
            v[j], who[j] = x, w


@compiled
def middle(v: Array, n: int) -> Any:
    """Return the median of n sorted values."""
    return 0.5 * (v[(n - 1) // 2] + v[n // 2])


@compiled
def restore(residual: Array, before: Array, kept: Array, use: Array) -> None:
    """Restore the inputs that are least off, equal ones together, until as many are left as must be kept.

    Parameters
    ----------
    residual
        How far off each rejected input is, frames x pixels, float64.
    before
        Which inputs counted before rejection, frames x pixels, bool.
    kept
        How many inputs each pixel keeps at least, int64.
    use
        Which inputs count after rejection, frames x pixels, bool; set where one is restored.
    """
    frames, pixels = use.shape
    for m in range(pixels):
        # equal ones together: which of two equal inputs is restored must not depend on the order of the frames
        n = 0
        for i in range(frames):
            n += use[i, m]
        while n < kept[m]:
            least = np.inf
            for i in range(frames):
                if before[i, m] and not use[i, m] and residual[i, m] < least:
                    least = residual[i, m]
            for i in range(frames):
                if before[i, m] and not use[i, m] and not residual[i, m] > least:
                    use[i, m] = True
                    n += 1


@compiled
def reject_counts(values: Array, nlow: int, nhigh: int, rescaled: bool, residual: Array, use: Array) -> None:
    """Reject the lowest and highest values of each pixel, by number; of equal ones, the first frames are the lower.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    nlow
        How many of the lowest values are rejected.
    nhigh
        How many of the highest values are rejected.
    rescaled
        Whether fewer are where fewer count, in proportion, as in imcombine's minmax.
    residual
        How far off each rejected input is, frames x pixels, float64; without elements if nobody asks.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    for m in range(pixels):
        n = gather(values, use, m, v, who)
        low, high = nlow, nhigh
        if rescaled:
            # imcombine's rounding (icmm.gx): the 0.001 keeps n * nlow / N at nlow where all inputs count
            low, high = int(n * nlow / frames + 0.001), int(n * nhigh / frames + 0.001)
        if n == 0 or low + high == 0:
            continue
        sort_by(v, who, n)
        center = middle(v, n)
        for k in range(n):
            if k < low or k >= n - high:
                use[who[k], m] = False
                if residual.size:
                    residual[who[k], m] = abs(v[k] - center)


@compiled
def reject_percentile(values: Array, order: float, low: float, high: float, residual: Array, use: Array) -> None:
    """Reject values ``low`` or ``high`` times as far from the median as the value so many orders away from it.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    order
        Orders from the median, negative below it.
    low
        Deviations below the center beyond which an input is rejected; infinity for no limit.
    high
        Deviations above the center beyond which an input is rejected; infinity for no limit.
    residual
        How far off each rejected input is, frames x pixels, float64; without elements if nobody asks.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    sign = -1.0 if order < 0 else 1.0
    for m in range(pixels):
        n = gather(values, use, m, v, who)
        if n < 3:
            continue
        sort_by(v, who, n)
        center = middle(v, n)
        # the ranks of imcombine begin at 1; for even n, orders below the median begin at the lower middle value
        place = 1 + n // 2 + order - (1 if order < 0 and n % 2 == 0 else 0)
        rank = min(n, max(1, int(np.floor(place + 0.5))))
        sigma = sign * (v[rank - 1] - center)
        if sigma == 0:
            continue
        # not iterated, and a value just at the limit is rejected, unlike in the other rules (icpclip.gx)
        for k in range(n):
            off = (v[k] - center) / sigma
            if -off >= low or off >= high:
                use[who[k], m] = False
                if residual.size:
                    residual[who[k], m] = abs(off)


@compiled
def reject_clipped(
    values: Array,
    variances: Array,
    limit: float,
    fraction: float,
    source: float,
    fewest: int,
    residual: Array,
    use: Array,
) -> None:
    """Reject values that are off the median, and apart from the others, by more than their noise and a share of the level; once.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    variances
        Of the inputs, frames x pixels, or frames x 1 for the same in all pixels, float64; without elements, the noise is 1.4826 times
        the median distance from the median.
    limit
        Standard deviations that an input may be off.
    fraction
        Fraction of the median that it may be off besides.
    source
        The fraction where the median is that of a source: more than ``limit`` standard deviations above 0.
    fewest
        Nothing is rejected where fewer inputs count.
    residual
        How far off each rejected input is, and -1 for the others of a source, frames x pixels, float64; without elements if nobody asks.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    away, whose = np.empty(frames), np.empty(frames, np.int64)
    for m in range(pixels):
        n = gather(values, use, m, v, who)
        if n < fewest:
            continue
        sort_by(v, who, n)
        center = middle(v, n)
        if variances.size:
            noise = np.sqrt(variances[who[n // 2], m % variances.shape[1]])
        else:
            for k in range(n):
                away[k], whose[k] = abs(v[k] - center), k
            sort_by(away, whose, n)
            noise = MAD_TO_SIGMA * middle(away, n)
        is_source = center > limit * noise
        # in the sky half the gap is enough: a hot pixel that drifts through the frames leaves values that rise step by step
        share, step_share, gap = (source, 1.0, limit) if is_source else (fraction, fraction, 0.5 * limit)
        for sign in (1, -1):
            # outwards from the middle: with the seeing, values of a star differ by much and yet lie one behind the other, and
            # what lies behind a gap is no star
            behind = False
            k = (n + 1) // 2 if sign > 0 else n // 2 - 1
            while 0 <= k < n:
                sigma = np.sqrt(variances[who[k], m % variances.shape[1]]) if variances.size else noise
                inner = v[k - sign]
                behind = behind or abs(v[k] - inner) > gap * sigma + step_share * abs(inner)
                off, allowed = abs(v[k] - center), limit * sigma + share * abs(center)
                if behind and off > allowed:
                    use[who[k], m] = False
                    if residual.size:
                        residual[who[k], m] = off / allowed if allowed > 0 else np.inf
                k += sign
        if is_source and residual.size:
            for k in range(n):
                if use[who[k], m]:
                    residual[who[k], m] = -1


@compiled
def reject_gesdt(values: Array, table: Array, residual: Array, use: Array) -> None:
    """Reject the outliers of each pixel: the most extreme ones up to the last that exceeds its critical value.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    table
        Row n holds the critical values of n inputs, and then infinity; float64.
    residual
        How far off each rejected input is, frames x pixels, float64; without elements if nobody asks.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    for m in range(pixels):
        # Rosner's test looks at all candidates before it rejects: outliers that hide each other are found together
        given = n = gather(values, use, m, v, who)
        last = 0
        for step in range(table.shape[1]):
            if n < 3 or table[given, step] == np.inf:
                break
            mean = 0.0
            for k in range(n):
                mean += v[k]
            mean /= n
            squares, worst = 0.0, 0
            for k in range(n):
                squares += (v[k] - mean) ** 2
                if abs(v[k] - mean) > abs(v[worst] - mean):
                    worst = k
            if squares == 0:
                break
            off = abs(v[worst] - mean) / np.sqrt(squares / (n - 1))
            if residual.size:
                residual[who[worst], m] = off
            if off > table[given, step]:
                last = step + 1
            # the candidate goes behind those that are left, where the others keep their order
            x, w = v[worst], who[worst]
            for k in range(worst, n - 1):
                v[k], who[k] = v[k + 1], who[k + 1]
            n -= 1
            v[n], who[n] = x, w
        for k in range(given - last, given):
            use[who[k], m] = False


@compiled
def reject_iterated(
    kind: int,
    values: Array,
    variances: Array,
    multipliers: Array,
    offsets: Array,
    noise: Array,
    low: float,
    high: float,
    residual: Array,
    use: Array,
) -> None:
    """Reject values below or above the center by so many of their deviations, until nothing changes.

    The center is the median. The deviation is that of a noise model, given variances, or found from the values; see
    `deviations`. Values are those of ``multipliers * raw + offsets``.

    Parameters
    ----------
    kind
        ``NOISE``, ``VARIANCE``, ``LINE``, ``WINSORIZED`` or ``LINEAR``.
    values
        Inputs, frames x pixels, float32 or float64.
    variances
        Variances of the scaled inputs, frames x pixels, float64; without elements if ``kind`` needs none.
    multipliers, offsets
        One per frame, float64: values are ``multiplier * raw + offset``.
    noise
        Frames x 3, float64: a, b and c of the variance ``a + b x + c x**2`` of a raw value at the level x.
    low
        Deviations below the center beyond which an input is rejected; infinity for no limit.
    high
        Deviations above the center beyond which an input is rejected; infinity for no limit.
    residual
        How far off each rejected input is, frames x pixels, float64; without elements if nobody asks.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    sigma, expected = np.empty(frames), np.empty(frames)
    # found once: rejections do not change the deviation of a line, as in imcombine (icaclip.gx)
    line = line_deviation(values, multipliers, offsets, use) if kind == LINE else 0.0
    fewest = FEWEST_FITTED + 1 if kind >= WINSORIZED else (3 if kind == LINE else 2)
    for m in range(pixels):
        n = gather(values, use, m, v, who)
        sort_by(v, who, n)
        while n >= fewest:
            center = middle(v, n)
            if kind >= WINSORIZED:
                fitted(kind, v, n, center, sigma, expected)
            for k in range(n):
                i = who[k]
                if kind < WINSORIZED:
                    level = (center - offsets[i]) / multipliers[i]
                    expected[k] = center
                    if kind == NOISE:
                        # the noise is that at the median in the frame's own level, before it was scaled
                        x = max(0.0, level)
                        sigma[k] = abs(multipliers[i]) * np.sqrt(noise[i, 0] + x * noise[i, 1] + x * x * noise[i, 2])
                    elif kind == VARIANCE:
                        sigma[k] = np.sqrt(variances[i, m])
                    else:
                        # the floor of 1 is imcombine's, for whose rule values are counts and no normalised flats
                        sigma[k] = line * abs(multipliers[i]) * np.sqrt(max(1.0, level))
            left = 0
            for k in range(n):
                off = v[k] - expected[k]
                if off < -low * sigma[k] or off > high * sigma[k]:
                    use[who[k], m] = False
                    if residual.size:
                        residual[who[k], m] = abs(off) / sigma[k]
                else:
                    v[left], who[left] = v[k], who[k]
                    left += 1
            if left == n:
                break
            n = left


@compiled
def fitted(kind: int, v: Array, n: int, center: float, sigma: Array, expected: Array) -> None:
    """Find the deviation and the expected values of n sorted values: winsorized, or about a line through them.

    The deviation from a line is the mean distance from it, as in Siril.

    Parameters
    ----------
    kind
        ``NOISE``, ``VARIANCE``, ``LINE``, ``WINSORIZED`` or ``LINEAR``.
    v
        Sorted values of a pixel, float64.
    n
        How many values there are.
    center
        Their median.
    sigma
        Their deviations, float64; filled.
    expected
        What they are compared with, float64; filled.
    """
    if kind == WINSORIZED:
        deviation = winsorized_deviation(v, n, center)
        for k in range(n):
            sigma[k], expected[k] = deviation, center
        return
    mean_rank, mean, covariance, spread = 0.5 * (n - 1), 0.0, 0.0, 0.0
    for k in range(n):
        mean += v[k]
    mean /= n
    for k in range(n):
        covariance += (k - mean_rank) * (v[k] - mean)
        spread += (k - mean_rank) ** 2
    total = 0.0
    for k in range(n):
        expected[k] = mean + covariance / spread * (k - mean_rank)
        total += abs(v[k] - expected[k])
    for k in range(n):
        sigma[k] = total / n


@compiled
def winsorized_deviation(v: Array, n: int, center: float) -> float:
    """Return the standard deviation of values that are clamped to 1.5 times itself about the median."""
    deviation = np.inf
    for _ in range(100):
        mean, squares = 0.0, 0.0
        lowest, highest = center - WINSOR_RANGE * deviation, center + WINSOR_RANGE * deviation
        for k in range(n):
            mean += min(max(v[k], lowest), highest)
        mean /= n
        for k in range(n):
            squares += (min(max(v[k], lowest), highest) - mean) ** 2
        new = np.sqrt(squares / (n - 1)) * (1.0 if deviation == np.inf else WINSOR_FACTOR)
        settled = abs(new - deviation) <= WINSOR_TOLERANCE * deviation and deviation < np.inf
        deviation = new
        if settled:
            break
    return deviation


@compiled
def line_deviation(values: Array, multipliers: Array, offsets: Array, use: Array) -> float:
    """Return the deviation of a line's values from their medians, in units of what photons would give.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    multipliers, offsets
        One per frame, float64: values are ``multiplier * raw + offset``.
    use
        Which inputs count, frames x pixels, bool.
    """
    frames, pixels = values.shape
    v, who = np.empty(frames), np.empty(frames, np.int64)
    total, number = 0.0, 0
    for m in range(pixels):
        n = gather(values, use, m, v, who)
        # the median of two values lies between them, and says nothing of their deviation
        if n < 3:
            continue
        sort_by(v, who, n)
        center = middle(v, n)
        for k in range(n):
            i = who[k]
            photons = multipliers[i] ** 2 * max(1.0, (center - offsets[i]) / multipliers[i])
            total += (v[k] - center) ** 2 / photons
        number += n
    return np.sqrt(total / (number - 1)) if number > 1 else 0.0


@compiled
def grow_rejected(rejected: Array, radius: float, grown: Array) -> None:
    """Mark inputs within a radius of a rejected one of the same frame; arrays are frames x rows x columns."""
    frames, ny, nx = rejected.shape
    reach = int(radius)
    for i in range(frames):
        for y in range(ny):
            for x in range(nx):
                # few inputs are rejected, so neighbours are marked from each of them
                if rejected[i, y, x]:
                    for dy in range(-reach, reach + 1):
                        for dx in range(-reach, reach + 1):
                            if dy * dy + dx * dx <= radius * radius and 0 <= y + dy < ny and 0 <= x + dx < nx:
                                grown[i, y + dy, x + dx] = True


LEAST_SPREAD = 4
"""Fewest multiples of the limit, rounded up, whose neighbours are looked at: noise does not reach them."""

KEPT = 255
"""Instead of a multiple: what stays. The widest image of a star is off in its wings, and must not lose what it has further in."""


@compiled
def spread_rejected(excess: Array, spread: Array, grown: Array) -> None:
    """Mark inputs into which resampling has spread a rejected one of the same frame.

    Parameters
    ----------
    excess
        How far off each rejected input is, in multiples of the limit, rounded up, 0 for those that are not rejected, or
        ``KEPT``; frames x rows x columns, uint8.
    spread
        Part of it that lies so many rows and columns away, float64; it matters where it may be more than the limit.
    grown
        Same shape as the excess, bool; set where an input is marked.
    """
    frames, ny, nx = excess.shape
    reach = len(spread) - 1
    for i in range(frames):
        for y in range(ny):
            for x in range(nx):
                off = excess[i, y, x]
                if off < LEAST_SPREAD or off == KEPT:
                    continue
                for v in range(max(0, y - reach), min(ny, y + reach + 1)):
                    for u in range(max(0, x - reach), min(nx, x + reach + 1)):
                        if off * spread[abs(v - y), abs(u - x)] > 1 and excess[i, v, u] != KEPT:
                            grown[i, v, u] = True
