"""The inputs of many pixels in ascending order, and the medians and deviations that are read from it.

Which values a sorting network compares does not depend on them, so a loop over pixels has no branch and processors do many pixels
at once. Its limit is how fast values come from the cache and go back, not the comparisons. So the network here compares four
values at a time, which do the work of two rounds between one load and one store: 200 float32 frames take two thirds of the time of
an odd-even merge sort (Batcher 1968), which compares fewer pairs.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import high, low
from lazyccd.kernels.stack.loops import WIDTH, count_stretch

SPARE = 3
"""Rows of infinity that stand for the missing ones of four rows."""

PAIR, FOUR, MIRRORED, HALVES = range(4)
"""What is compared: two rows; four, which are sorted; four of two sorted runs, the ends first; four of a run whose halves interlock."""


class _Group(NamedTuple):
    """Rows that are compared with each other."""

    kind: int
    rows: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def sorting_network(count: int) -> Array:
    """Return the groups of rows that sort so many of them, int64, shape (groups, 5): the kind, then up to four rows.

    It is the bitonic merge sort of Batcher (1968), "Sorting networks and their applications", in the form in which all comparisons
    point upwards: the first round of a merge compares each row with its mirror image. Rows above ``count`` count as infinity, which
    never moves down, so that most of them are left out.
    """
    rows = rows_sorted(count)
    groups = [_Group(FOUR, tuple(range(first, first + 4))) for first in range(0, rows, 4)]
    run = 4
    while run < rows:
        # a run that has no other one to merge with is in order
        for first in range(0, rows - run, 2 * run):
            groups += _merge(first, run)
        run *= 2
    table = np.zeros((len(groups), 5), np.int64)
    kept = 0
    for kind, members in groups:
        there = [row for row in members if row < rows]
        if len(there) < 2:
            continue
        spares = iter(range(rows, rows + SPARE))
        table[kept, : len(members) + 1] = kind, *(row if row < rows else next(spares) for row in members)
        kept += len(there) == len(members) or kind != PAIR
    return table[:kept]


def rows_sorted(count: int) -> int:
    """Return how many rows are sorted where so many are wanted: whole groups of four."""
    return -(-count // 4) * 4


def _merge(first: int, run: int) -> list[_Group]:
    """Return the groups that merge two sorted runs of rows which follow each other."""
    last, half = first + 2 * run - 1, run // 2
    groups = [
        _Group(MIRRORED, (y, y + half, last - half - (y - first), last - (y - first)))
        for y in range(first, first + half)
    ]
    # two rounds of the merge are done: rows and those `step` after them, then those half as far
    step = run // 4
    while step >= 2:
        half = step // 2
        groups += [
            _Group(HALVES, (y, y + half, y + step, y + step + half))
            for begin in range(first, last, 2 * step)
            for y in range(begin, begin + half)
        ]
        step //= 4
    if step == 1:
        groups += [_Group(PAIR, (y, y + 1)) for y in range(first, last, 2)]
    return groups


@compiled
def sort_rows(planes: Array, network: Array, width: int) -> None:
    """Sort the values of each column by a network, in place.

    Parameters
    ----------
    planes
        Float32 or float64 without NaN, with a row for each value, and a column for each pixel, of which the first ``width`` count.
        Rows that are not wanted, up to a whole four and `SPARE` more, are infinity.
    network
        What `sorting_network` returns.
    width
        Columns.
    """
    for group in network:
        kind, a, b, c, d = group[0], group[1], group[2], group[3], group[4]
        if kind == PAIR:
            _order_pair(planes, a, b, width)
        elif kind == FOUR:
            _order_four(planes, (a, b, c, d), width)
        elif kind == MIRRORED:
            _order_mirrored(planes, (a, b, c, d), width)
        else:
            _order_halves(planes, (a, b, c, d), width)


@compiled
def _order_pair(planes: Array, first: int, second: int, width: int) -> None:
    lower, upper = planes[first], planes[second]
    for m in range(width):
        a, b = lower[m], upper[m]
        lower[m] = low(a, b)
        upper[m] = high(a, b)


@compiled
def _order_four(planes: Array, rows: tuple[int, int, int, int], width: int) -> None:
    first, second, third, fourth = planes[rows[0]], planes[rows[1]], planes[rows[2]], planes[rows[3]]
    for m in range(width):
        a, b, c, d = first[m], second[m], third[m], fourth[m]
        a, b = low(a, b), high(a, b)
        c, d = low(c, d), high(c, d)
        a, c = low(a, c), high(a, c)
        b, d = low(b, d), high(b, d)
        first[m], second[m], third[m], fourth[m] = a, low(b, c), high(b, c), d


@compiled
def _order_mirrored(planes: Array, rows: tuple[int, int, int, int], width: int) -> None:
    first, second, third, fourth = planes[rows[0]], planes[rows[1]], planes[rows[2]], planes[rows[3]]
    for m in range(width):
        a, b, c, d = first[m], second[m], third[m], fourth[m]
        a, d = low(a, d), high(a, d)
        b, c = low(b, c), high(b, c)
        first[m], second[m], third[m], fourth[m] = low(a, b), high(a, b), low(c, d), high(c, d)


@compiled
def _order_halves(planes: Array, rows: tuple[int, int, int, int], width: int) -> None:
    first, second, third, fourth = planes[rows[0]], planes[rows[1]], planes[rows[2]], planes[rows[3]]
    for m in range(width):
        a, b, c, d = first[m], second[m], third[m], fourth[m]
        a, c = low(a, c), high(a, c)
        b, d = low(b, d), high(b, d)
        first[m], second[m], third[m], fourth[m] = low(a, b), high(a, b), low(c, d), high(c, d)


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
    ordered, numbers = rows_to_sort(frames, values), np.empty(WIDTH, np.int32)
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
def rows_to_sort(frames: int, values: Array) -> Array:
    """Return rows for the sorted inputs of a stretch, in the type of the values, infinity."""
    # vectors that cross the lines of the cache, 64 bytes, take 1.6 times as long here
    rows, line = -(-frames // 4) * 4 + SPARE, 64 // values.itemsize
    flat = np.full(rows * WIDTH + line, values.dtype.type(np.inf), values.dtype)
    first = (-flat.ctypes.data % 64) // values.itemsize
    return flat[first : first + rows * WIDTH].reshape(rows, WIDTH)


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
    count_stretch(use, first, count)
    # infinity sorts behind every input that counts
    nothing, stop = values.dtype.type(np.inf), first + len(count)
    for i in range(len(values)):
        line, counts, target = values[i, first:stop], use[i, first:stop], ordered[i]
        for m in range(len(count)):
            target[m] = line[m] if counts[m] else nothing
    sort_rows(ordered, network, len(count))


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
        # from one stretch to the next the distance of its lower end falls and that of its upper end rises: the least of the
        # larger ones is where they cross
        first, stop = 0, n - k
        while first < stop:
            i = (first + stop) // 2
            if ordered[i + k - 1] - center < center - ordered[i]:
                first = i + 1
            else:
                stop = i
        least = max(center - ordered[first], ordered[first + k - 1] - center)
        if first > 0:
            least = min(least, max(center - ordered[first - 1], ordered[first + k - 2] - center))
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
