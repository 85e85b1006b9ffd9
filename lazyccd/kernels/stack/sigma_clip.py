"""Iterated clipping of the inputs of a stack by their deviation from the center.

This is the rule that most stacks use, so it is written for speed. A first look at stretches of pixels finds those that lose an
input. Most pixels lose none and are done. The others go on one by one: their inputs are sorted already, so that two ends move
inwards.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.loops import (
    WIDTH,
    deviation_of,
    median_distance,
    middle_of,
    sort_stretch,
    spread_of_stretch,
)


@compiled
def reject_deviant(
    values: Array,
    use: Array,
    network: Array,
    by_mean: bool,
    by_mad: bool,
    low: float,
    high: float,
    iterations: int,
    residual: Array,
) -> None:
    """Reject inputs too many deviations from the center, a number of times or until nothing changes.

    Parameters
    ----------
    values, use
        Inputs, float32 or float64, and which count, bool; frames x pixels. ``use`` is cleared where an input is rejected.
    network
        The exchanges that sort so many values; see `lazyccd.kernels.stack.loops.sorting_network`.
    by_mean, by_mad
        Whether the center is the mean, else the median; whether the deviation is 1.4826 times the median distance from the
        median, else the standard deviation of n about the mean, whatever the center.
    low, high
        How many deviations below and above; infinity for no limit.
    iterations
        0 for any number.
    residual
        Frames x pixels, float64: how far off each rejected input is, in deviations. Without elements if nobody asks.
    """
    frames, pixels = values.shape
    ordered, numbers = np.zeros((frames, WIDTH), values.dtype), np.empty(WIDTH, np.int32)
    middles, distances, means, squares = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    outside = np.empty(WIDTH, np.bool_)
    for first in range(0, pixels, WIDTH):
        width = min(WIDTH, pixels - first)
        count, center, deviation = numbers[:width], middles[:width], distances[:width]
        sort_stretch(values, use, first, network, count, ordered)
        # where as many inputs count everywhere, their ranks are the same and loops over pixels have no branch
        same = np.min(count) == np.max(count)
        middle_of(ordered, count, same, center)
        if by_mad:
            deviation_of(ordered, count, same, center, deviation)
            for m in range(width):
                deviation[m] *= MAD_TO_SIGMA
        if by_mean or not by_mad:
            spread_of_stretch(values, use, first, count, means[:width], squares[:width])
        if not by_mad:
            for m in range(width):
                deviation[m] = np.sqrt(squares[m] / count[m])
        # the deviation from the median was taken first: 1.4826 MAD is about the median, whatever the center
        if by_mean:
            center[:] = means[:width]
        _outside(ordered, count, same, center, deviation, low, high, outside)
        for m in range(width):
            # few pixels have anything to reject, and the two ends of the sorted inputs say which
            if outside[m]:
                limits = low, high, center[m], deviation[m]
                _clip_pixel(
                    values, use, first + m, ordered[:, m], count[m], by_mean, by_mad, limits, iterations, residual
                )


@compiled
def _outside(
    ordered: Array, count: Array, same: bool, center: Array, deviation: Array, low: float, high: float, outside: Array
) -> None:
    """Say of which pixels the lowest or the highest input lies outside the limits.

    Parameters
    ----------
    ordered
        Sorted inputs of a stretch, frames x pixels, in the type of the values.
    count
        How many inputs of each pixel count, int32.
    same
        Whether these are as many everywhere.
    center
        The centers, float64.
    deviation
        The deviations, float64.
    low
        Deviations below the center beyond which an input is rejected; infinity for no limit.
    high
        Deviations above the center beyond which an input is rejected; infinity for no limit.
    outside
        Of which pixels, bool; filled.
    """
    least = ordered[0]
    if same and count[0] > 0:
        most = ordered[count[0] - 1]
        for m in range(len(count)):
            below, above = center[m] - low * deviation[m], center[m] + high * deviation[m]
            outside[m] = (least[m] < below) | (most[m] > above)
        return
    for m in range(len(count)):
        below, above = center[m] - low * deviation[m], center[m] + high * deviation[m]
        outside[m] = count[m] > 0 and (least[m] < below or ordered[count[m] - 1, m] > above)


@compiled
def _clip_pixel(
    values: Array,
    use: Array,
    m: int,
    ordered: Array,
    count: int,
    by_mean: bool,
    by_mad: bool,
    limits: tuple[float, float, float, float],
    iterations: int,
    residual: Array,
) -> None:
    """Clip one pixel, whose sorted inputs are given, from the first center and deviation on.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool; cleared where one is rejected.
    m
        The pixel.
    ordered
        Its sorted inputs.
    count
        How many inputs count.
    by_mean
        Whether the center is the mean, else the median.
    by_mad
        Whether the deviation is by the median distance, else the standard deviation of n.
    limits
        Deviations below and above, and the first center and deviation.
    iterations
        How many rounds; 0 for any number.
    residual
        How far off each rejected input is, frames x pixels, float64; without elements if nobody asks.
    """
    low, high, center, deviation = limits
    first, stop, rounds = 0, count, 0
    while first < stop:
        below, above = center - low * deviation, center + high * deviation
        lost = False
        # inputs that do not count are no baseline; ccdproc's center is that of masked ones too (docs/deviations.md)
        for i in range(len(values)):
            x = values[i, m]
            if use[i, m] and (x < below or x > above):
                use[i, m], lost = False, True
                if residual.size:
                    residual[i, m] = abs(x - center) / deviation
        rounds += 1
        if not lost or rounds == iterations:
            return
        # what was rejected lies at the two ends of the sorted inputs: nothing is sorted again
        while first < stop and ordered[first] < below:
            first += 1
        while first < stop and ordered[stop - 1] > above:
            stop -= 1
        if first < stop:
            center, deviation = _center_and_deviation(values, use, m, ordered[first:stop], by_mean, by_mad)


@compiled
def _center_and_deviation(
    values: Array, use: Array, m: int, ordered: Array, by_mean: bool, by_mad: bool
) -> tuple[float, float]:
    """Return the center and the deviation of one pixel; sums run over the frames in their order.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    m
        The pixel.
    ordered
        Its sorted inputs that count.
    by_mean
        Whether the center is the mean, else the median.
    by_mad
        Whether the deviation is by the median distance, else the standard deviation of n.
    """
    n = len(ordered)
    center = 0.5 * (np.float64(ordered[(n - 1) // 2]) + ordered[n // 2])
    deviation = MAD_TO_SIGMA * median_distance(ordered, center) if by_mad else 0.0
    if by_mad and not by_mean:
        return center, deviation
    mean, squares = 0.0, 0.0
    for i in range(len(values)):
        mean += values[i, m] if use[i, m] else 0.0
    mean /= n
    if not by_mad:
        for i in range(len(values)):
            distance = values[i, m] - mean
            squares += distance * distance if use[i, m] else 0.0
        deviation = np.sqrt(squares / n)
    return (mean if by_mean else center), deviation
