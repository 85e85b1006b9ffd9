"""Iterated clipping of the inputs of a stack by their deviation from the center.

This is the rule that most stacks use, so it is written for speed. Stretches of pixels are sorted once. The two ends of the sorted
inputs say which pixels lose an input in a round; those that lose none are done. The others go on together: where they are few, they
are copied side by side first, so that the loops over pixels stay loops over neighbours. What is lost lies at the two ends, so that
nothing is sorted again.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.loops import WIDTH, spread_of_stretch
from lazyccd.kernels.stack.sorting import deviation_of, median_distance, middle_of, rows_to_sort, sort_stretch

FEW = 4
"""Pixels are copied side by side where fewer than one in so many goes on."""


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
        What sorts so many values; see `lazyccd.kernels.stack.sorting.sorting_network`.
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
    ordered, numbers = rows_to_sort(frames, values), np.empty(WIDTH, np.int32)
    middles, distances, means, squares = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    state = np.empty((2, WIDTH), np.int32)
    copies = np.empty(frames * (WIDTH // FEW), values.dtype), np.empty(frames * (WIDTH // FEW), np.bool_)
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
        state[0, :width], state[1, :width] = 0, count
        how = by_mean, by_mad, low, high, iterations
        _clip_stretch(values, use, first, ordered, state[:, :width], center, deviation, how, copies, residual)


@compiled
def _clip_stretch(
    values: Array,
    use: Array,
    first: int,
    ordered: Array,
    ends: Array,
    center: Array,
    deviation: Array,
    how: tuple[bool, bool, float, float, int],
    copies: tuple[Array, Array],
    residual: Array,
) -> None:
    """Clip a stretch of pixels, whose sorted inputs are given, from the first center and deviation on.

    Parameters
    ----------
    values, use, residual
        As for `reject_deviant`.
    first
        The first pixel of the stretch.
    ordered
        Sorted inputs, frames x pixels.
    ends
        Which of them count: from the first to that before the second of two rows, int32; changed.
    center, deviation
        Of each pixel, float64; changed.
    how
        Whether the center is the mean and the deviation the median distance; deviations below and above; number of rounds.
    copies
        Room for values and for what counts of one in `FEW` pixels.
    """
    by_mean, by_mad, low, high, iterations = how
    width, rounds = len(center), 0
    outside, going = np.empty(width, np.bool_), np.arange(width)
    limits = np.empty((2, width))
    _outside(ordered, ends[1], np.min(ends[1]) == np.max(ends[1]), center, deviation, low, high, outside)
    going = _kept(going, outside)
    while len(going):
        limits[0], limits[1] = -np.inf, np.inf
        for m in going:
            limits[0, m], limits[1, m] = center[m] - low * deviation[m], center[m] + high * deviation[m]
        if residual.size:
            _note_residuals(values, use, first, going, limits, center, deviation, residual)
        statistics = _reject_round(values, use, first, going, limits, ends, ordered, copies)
        rounds += 1
        if rounds == iterations:
            return
        _set_centers(ordered, going, ends, statistics, by_mean, by_mad, center, deviation)
        going = _kept(going, _still_outside(ordered, going, ends, center, deviation, low, high))


@compiled
def _kept(places: Array, wanted: Array) -> Array:
    """Return the places that are wanted."""
    kept, n = np.empty_like(places), 0
    for k in range(len(places)):
        kept[n] = places[k]
        n += wanted[k]
    return kept[:n]


@compiled
def _reject_round(
    values: Array,
    use: Array,
    first: int,
    going: Array,
    limits: Array,
    ends: Array,
    ordered: Array,
    copies: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Reject what lies outside the limits; return the mean of what is left of the pixels that go on, and its squares.

    Parameters
    ----------
    values, use, first, ordered, ends, copies
        As for `_clip_stretch`.
    going
        The pixels that lose inputs, by their places in the stretch.
    limits
        The lowest and the highest values that stay, in two rows; infinities for pixels that lose none.
    """
    _move_ends(ordered, going, limits, ends)
    width = limits.shape[1]
    count = ends[1] - ends[0]
    mean, squares = np.empty(width), np.empty(width)
    if len(going) * FEW > width:
        _reject_outside(values, use, first, limits)
        spread_of_stretch(values, use, first, count, mean, squares)
        return mean[going], squares[going]
    frames, n = len(values), len(going)
    part, part_use = copies[0][: frames * n].reshape(frames, n), copies[1][: frames * n].reshape(frames, n)
    for i in range(frames):
        line, counts = values[i, first : first + width], use[i, first : first + width]
        for k in range(n):
            part[i, k], part_use[i, k] = line[going[k]], counts[going[k]]
    _reject_outside(part, part_use, 0, limits[:, going])
    for i in range(frames):
        counts = use[i, first : first + width]
        for k in range(n):
            counts[going[k]] = part_use[i, k]
    spread_of_stretch(part, part_use, 0, count[going], mean[:n], squares[:n])
    return mean[:n], squares[:n]


@compiled
def _reject_outside(values: Array, use: Array, first: int, limits: Array) -> None:
    """Clear ``use`` where a value lies outside the limits of its pixel."""
    width = limits.shape[1]
    below, above = limits[0], limits[1]
    for i in range(len(values)):
        line, counts = values[i, first : first + width], use[i, first : first + width]
        for m in range(width):
            # inputs that do not count are no baseline; ccdproc's center is that of masked ones too (docs/deviations.md)
            counts[m] &= not ((line[m] < below[m]) | (line[m] > above[m]))


@compiled
def _move_ends(ordered: Array, going: Array, limits: Array, ends: Array) -> None:
    """Leave out the sorted inputs that lie outside the limits: they are at the two ends."""
    for m in going:
        begin, stop = ends[0, m], ends[1, m]
        while begin < stop and ordered[begin, m] < limits[0, m]:
            begin += 1
        while begin < stop and ordered[stop - 1, m] > limits[1, m]:
            stop -= 1
        ends[0, m], ends[1, m] = begin, stop


@compiled
def _note_residuals(
    values: Array, use: Array, first: int, going: Array, limits: Array, center: Array, deviation: Array, residual: Array
) -> None:
    """Say how far off the inputs are that lie outside the limits; parameters as for `_clip_stretch` and `_reject_round`."""
    for m in going:
        for i in range(len(values)):
            x = values[i, first + m]
            if use[i, first + m] and (x < limits[0, m] or x > limits[1, m]):
                residual[i, first + m] = abs(x - center[m]) / deviation[m]


@compiled
def _set_centers(
    ordered: Array,
    going: Array,
    ends: Array,
    statistics: tuple[Array, Array],
    by_mean: bool,
    by_mad: bool,
    center: Array,
    deviation: Array,
) -> None:
    """Set center and deviation of the pixels that lost inputs; parameters as for `_clip_stretch` and `_reject_round`."""
    mean, squares = statistics
    for k in range(len(going)):
        m = going[k]
        left = ordered[ends[0, m] : ends[1, m], m]
        n = len(left)
        if n == 0:
            continue
        middle = 0.5 * (np.float64(left[(n - 1) // 2]) + left[n // 2])
        center[m] = mean[k] if by_mean else middle
        deviation[m] = MAD_TO_SIGMA * median_distance(left, middle) if by_mad else np.sqrt(squares[k] / n)


@compiled
def _still_outside(
    ordered: Array, going: Array, ends: Array, center: Array, deviation: Array, low: float, high: float
) -> Array:
    """Return of which pixels inputs are left and the lowest or the highest of them lies outside; as for `_clip_stretch`."""
    found = np.empty(len(going), np.bool_)
    for k in range(len(going)):
        m = going[k]
        begin, stop = ends[0, m], ends[1, m]
        below, above = center[m] - low * deviation[m], center[m] + high * deviation[m]
        found[k] = begin < stop and (ordered[begin, m] < below or ordered[stop - 1, m] > above)
    return found


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
