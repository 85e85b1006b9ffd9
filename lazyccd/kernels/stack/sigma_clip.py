"""Iterated clipping of the inputs of a stack by their deviation from the centre.

A first look at stretches of pixels finds those that lose an input; most do not, and are done. The others go on one by one:
their inputs are sorted already, so that two ends move inwards.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.loops import WIDTH, deviation_of, middle_of, sort_stretch, spread_of_stretch

Array: TypeAlias = npt.NDArray[Any]


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
    """Take away inputs too many deviations from the centre, as often as is said or until nothing changes.

    Parameters
    ----------
    values, use
        Inputs, and which count; frames x pixels.
    network
        What sorts so many values.
    by_mean, by_mad
        Whether the centre is the mean, else the median; whether the deviation is by the median distance, else that of n.
    low, high
        How many deviations below and above; infinity for no limit.
    iterations
        0 for any number.
    residual
        How far off each rejected input is, in deviations; without elements if nobody asks.
    """
    frames, pixels = values.shape
    ordered, numbers = np.zeros((frames, WIDTH), values.dtype), np.empty(WIDTH, np.int32)
    middles, distances, means, squares = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    outside = np.empty(WIDTH, np.bool_)
    for first in range(0, pixels, WIDTH):
        width = min(WIDTH, pixels - first)
        count, centre, deviation = numbers[:width], middles[:width], distances[:width]
        sort_stretch(values, use, first, network, count, ordered)
        same = np.min(count) == np.max(count)
        middle_of(ordered, count, same, centre)
        if by_mad:
            deviation_of(ordered, count, same, centre, deviation)
            for m in range(width):
                deviation[m] *= MAD_TO_SIGMA
        if by_mean or not by_mad:
            spread_of_stretch(values, use, first, count, means[:width], squares[:width])
        if not by_mad:
            for m in range(width):
                deviation[m] = np.sqrt(squares[m] / count[m])
        if by_mean:
            centre[:] = means[:width]
        _outside(ordered, count, same, centre, deviation, low, high, outside)
        for m in range(width):
            if outside[m]:
                limits = low, high, centre[m], deviation[m]
                _clip_pixel(
                    values, use, first + m, ordered[:, m], count[m], by_mean, by_mad, limits, iterations, residual
                )


@compiled
def _outside(
    ordered: Array, count: Array, same: bool, centre: Array, deviation: Array, low: float, high: float, outside: Array
) -> None:
    """Say of which pixels the lowest or the highest input lies outside the limits."""
    least = ordered[0]
    if same and count[0] > 0:
        most = ordered[count[0] - 1]
        for m in range(len(count)):
            below, above = centre[m] - low * deviation[m], centre[m] + high * deviation[m]
            outside[m] = (least[m] < below) | (most[m] > above)
        return
    for m in range(len(count)):
        below, above = centre[m] - low * deviation[m], centre[m] + high * deviation[m]
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
    """Clip one pixel, whose sorted inputs are given, from the first centre and deviation on."""
    low, high, centre, deviation = limits
    first, stop, rounds = 0, count, 0
    while first < stop:
        below, above = centre - low * deviation, centre + high * deviation
        lost = False
        for i in range(len(values)):
            x = values[i, m]
            if use[i, m] and (x < below or x > above):
                use[i, m], lost = False, True
                if residual.size:
                    residual[i, m] = abs(x - centre) / deviation
        rounds += 1
        if not lost or rounds == iterations:
            return
        while first < stop and ordered[first] < below:
            first += 1
        while first < stop and ordered[stop - 1] > above:
            stop -= 1
        if first < stop:
            centre, deviation = _centre_and_deviation(values, use, m, ordered[first:stop], by_mean, by_mad)


@compiled
def _centre_and_deviation(
    values: Array, use: Array, m: int, ordered: Array, by_mean: bool, by_mad: bool
) -> tuple[float, float]:
    """Return the centre and the deviation of one pixel; sums run over the frames in their order."""
    n = len(ordered)
    centre = 0.5 * (np.float64(ordered[(n - 1) // 2]) + ordered[n // 2])
    deviation = MAD_TO_SIGMA * _median_distance(ordered, centre) if by_mad else 0.0
    if by_mad and not by_mean:
        return centre, deviation
    mean, squares = 0.0, 0.0
    for i in range(len(values)):
        mean += values[i, m] if use[i, m] else 0.0
    mean /= n
    if not by_mad:
        for i in range(len(values)):
            distance = values[i, m] - mean
            squares += distance * distance if use[i, m] else 0.0
        deviation = np.sqrt(squares / n)
    return (mean if by_mean else centre), deviation


@compiled
def _median_distance(ordered: Array, centre: float) -> float:
    """Return the median distance of sorted values from their median; see `stack_loops.deviation_of`."""
    n = len(ordered)
    total = 0.0
    for k in ((n - 1) // 2 + 1, n // 2 + 1):
        least = np.inf
        for i in range(n - k + 1):
            least = min(least, max(centre - ordered[i], ordered[i + k - 1] - centre))
        total += least
    return 0.5 * total
