"""Order statistics of moving boxes, with exactly the values of `scipy.ndimage.rank_filter`.

1. Small boxes: an exchange network over many pixels at a time. Columns of the box are sorted once for all boxes that share
   them; the network merges them. Its exchanges grow like the pixels of a box times the square of their logarithm.
2. Large boxes: pixels of a tile are replaced by their rank in it, and a histogram of ranks slides along the rows (Huang,
   Yang and Tang 1979, "A fast two-dimensional median filtering algorithm"). Its steps grow like the side of a box.

This is our own code because scipy takes 31, 24 and 16 times as long for medians of 5, 7 and 11 pixels a side on one
thread (benchmarks/bench_filters.py). Networks also give several ranks of a box for little more than one, which
`ccdmask` needs.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import exchange

Pairs: TypeAlias = list[tuple[int, int]]
"""The wires that an exchange network compares, in order: the smaller number goes to the first."""

LARGEST_NETWORK = 330
"""Pixels of the largest box for which a network is faster than a sliding histogram (benchmarks/bench_filters.py)."""

WIDTH = 64
"""Pixels that go through a network together: at most 83 kB of float32, which stay in cache."""

TILE = 96
"""Rows and columns of results for which a sliding histogram ranks pixels once."""

COARSE = 128
"""Ranks in each class of a histogram's upper level: about the square root of the ranks of a tile, so both levels are as long."""


def rank_filter(padded: Array, size: tuple[int, int], ranks: tuple[int, ...]) -> list[Array]:
    """Return order statistics of every box that lies inside an array.

    Parameters
    ----------
    padded
        Float32 or float64 without NaN, shape ``(ny, nx)``.
    size
        Rows and columns of the box.
    ranks
        Which elements of the sorted pixels of a box to return, from 0.

    Returns
    -------
    list of ndarray
        For each rank an array of shape ``(ny - rows + 1, nx - columns + 1)``; element (0, 0) belongs to the box that begins
        at pixel (0, 0).
    """
    shape = (padded.shape[0] - size[0] + 1, padded.shape[1] - size[1] + 1)
    if size == (1, 1):
        # Copies, not views: callers write into results, and inputs are never modified.
        return [padded.copy() for _ in ranks]
    outs = np.empty((len(ranks), *shape), padded.dtype)
    if size[0] * size[1] > LARGEST_NETWORK:
        _slide(padded, size, np.array(ranks, np.int64), outs)
        return list(outs)
    # Scratch is made once for all rows: touching fresh memory costs more than the arithmetic.
    columns = np.empty((size[0], WIDTH + size[1] - 1), padded.dtype)
    planes = np.empty((size[0] * size[1], WIDTH), padded.dtype)
    first, second, places = _networks(size, ranks)
    _exchange_all(padded, size, first, second, places, columns, planes, outs)
    return list(outs)


@functools.lru_cache(maxsize=64)
def _networks(size: tuple[int, int], ranks: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return the network that sorts a column, the one that merges columns, and where the wanted elements end up."""
    rows, columns = size
    first, _ = merge_network(rows, 1, ())
    return first, *merge_network(columns, rows, ranks)


def merge_network(runs: int, length: int, ranks: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the exchanges that bring elements of sorted runs to known wires, and those wires.

    It is the odd-even merge sort of Batcher (1968), "Sorting networks and their applications", for the next powers of two,
    less the exchanges with wires that do not exist and those that cannot reach a wanted element.

    Parameters
    ----------
    runs, length
        Number of sorted runs, and elements in each; ``length=1`` sorts from scratch.
    ranks
        Elements wanted, counted from 0 in sorted order. If empty, all are sorted, and element k ends on wire k.

    Returns
    -------
    tuple of ndarray
        Pairs of wires, int64, shape ``(n, 2)``, for `lazyccd.kernels.medians.exchange`; and the wire of each rank.
    """
    width, count = 1 << (length - 1).bit_length(), 1 << (runs - 1).bit_length()
    wires: list[int | None] = [None] * (width * count)
    for run in range(runs):
        for k in range(length):
            wires[run * width + k] = run * length + k
    pairs: Pairs = []
    for a, b in _batcher(width * count, width):
        lower, upper = wires[a], wires[b]
        # A missing wire counts as infinity: it never moves down.
        if upper is None:
            continue
        if lower is None:  # nothing counts as infinity: the exchange only renames
            wires[a], wires[b] = upper, None
        else:
            pairs.append((lower, upper))
    if not ranks:
        return np.array(_sorted_names(pairs, wires, runs * length), np.int64).reshape(-1, 2), np.empty(0, np.int64)
    places = [wires[rank] for rank in ranks]
    # Backwards from the wanted elements: an exchange stays only if one of its wires still reaches one of them.
    needed, kept = set(places), []
    for lower, upper in reversed(pairs):
        if lower in needed or upper in needed:
            needed |= {lower, upper}
            kept.append((lower, upper))
    return np.array(kept[::-1], np.int64).reshape(-1, 2), np.array(places, np.int64)


def _sorted_names(pairs: Pairs, wires: list[int | None], count: int) -> Pairs:
    """Return a sorting network whose wires are renamed by where they end, so that its result is in order."""
    names = {wire: k for k, wire in enumerate(wires[:count])}
    return [(names[a], names[b]) for a, b in pairs]


def _batcher(size: int, length: int) -> Pairs:
    """Return the exchanges that sort ``size`` elements of which runs of ``length`` are sorted; both are powers of two."""
    pairs: Pairs = []
    while length < size:
        k = length
        while k >= 1:
            for j in range(k % length, size - k, 2 * k):
                places = range(j, j + min(k, size - j - k))
                pairs.extend((i, i + k) for i in places if i // (2 * length) == (i + k) // (2 * length))
            k //= 2
        length *= 2
    return pairs


@compiled
def _exchange_all(
    padded: Array, size: tuple[int, int], first: Array, second: Array, places: Array, columns: Array, planes: Array,
    outs: Array,
) -> None:  # fmt: skip
    """Filter an array with networks, a stretch of a row at a time.

    Parameters
    ----------
    padded
        Float32 or float64, shape ``(ny, nx)``.
    size
        Rows and columns of the box.
    first, second
        Pairs of the network that sorts a column, and of the one that merges columns; int64, shape ``(n, 2)``.
    places
        The wire on which each wanted element ends.
    columns, planes
        Scratch of the dtype of ``padded``, shapes ``(rows, WIDTH + columns - 1)`` and ``(rows * columns, WIDTH)``.
    outs
        Receives the results, shape ``(ranks, ny - rows + 1, nx - columns + 1)``.
    """
    rows, cols = size
    for y in range(outs.shape[1]):
        for x in range(0, outs.shape[2], planes.shape[1]):
            width = min(planes.shape[1], outs.shape[2] - x)
            for j in range(rows):
                line, source = columns[j], padded[y + j, x : x + width + cols - 1]
                # A loop and not an assignment of slices, for which numba takes seconds to compile the message of its
                # error.
                for i in range(width + cols - 1):
                    line[i] = source[i]
            # Sorted once, a column serves all the boxes of this stretch that share it.
            exchange(columns, first, width + cols - 1)
            for c in range(cols):
                for j in range(rows):
                    line, source = planes[c * rows + j], columns[j, c : c + width]
                    for i in range(width):
                        line[i] = source[i]
            exchange(planes, second, width)
            for k in range(places.size):
                target, line = outs[k, y, x : x + width], planes[places[k]]
                for i in range(width):
                    target[i] = line[i]


def _slide(padded: Array, size: tuple[int, int], ranks: Array, outs: Array) -> None:
    """Filter an array by sliding histograms, tile by tile.

    Parameters
    ----------
    padded
        Float32 or float64, shape ``(ny, nx)``.
    size
        Rows and columns of the box.
    ranks
        Elements wanted, int64.
    outs
        Receives the results, shape ``(ranks, ny - rows + 1, nx - columns + 1)``.
    """
    ny, nx = outs.shape[1:]
    for y in range(0, ny, TILE):
        for x in range(0, nx, TILE):
            high, wide = min(TILE, ny - y), min(TILE, nx - x)
            pixels = padded[y : y + high + size[0] - 1, x : x + wide + size[1] - 1]
            # Floats cannot index a histogram, but their ranks in the tile can. Which of two equal pixels ranks first
            # does not matter, as both have the same value.
            order = np.argsort(pixels, axis=None)
            places = np.empty(order.size, np.int32)
            places[order] = np.arange(order.size, dtype=np.int32)
            values = pixels.reshape(-1)[order]
            target = outs[:, y : y + high, x : x + wide]
            _slide_tile(places.reshape(pixels.shape), values, size, ranks, target)


@compiled
def _slide_tile(places: Array, values: Array, size: tuple[int, int], ranks: Array, outs: Array) -> None:
    """Filter one tile, whose pixels are given by their ranks in it.

    Parameters
    ----------
    places
        Rank of each pixel, int32, of the shape of the tile with its margin.
    values
        Pixels of the tile in ascending order.
    size
        Rows and columns of the box.
    ranks
        Elements of a box wanted, int64.
    outs
        Receives the results, shape ``(ranks, rows, columns)``.
    """
    rows, cols = size
    fine = np.zeros(values.size, np.int32)
    coarse = np.zeros(values.size // COARSE + 1, np.int32)
    # For each rank, the class in which its element was found last, and the pixels in the classes below.
    at, below = np.zeros(ranks.size, np.int64), np.zeros(ranks.size, np.int64)
    for j in range(rows):
        for i in range(cols):
            _count(places[j, i], 1, fine, coarse, at, below)
    ny, nx = outs.shape[1], outs.shape[2]
    # Along a snake only one row or column of pixels enters and leaves between two boxes, at the turns too.
    for y in range(ny):
        for step in range(nx):
            x = step if y % 2 == 0 else nx - 1 - step
            if step > 0:
                gone, new = (x - 1, x + cols - 1) if y % 2 == 0 else (x + cols, x)
                for j in range(y, y + rows):
                    _count(places[j, gone], -1, fine, coarse, at, below)
                    _count(places[j, new], 1, fine, coarse, at, below)
            elif y > 0:
                for i in range(x, x + cols):
                    _count(places[y - 1, i], -1, fine, coarse, at, below)
                    _count(places[y + rows - 1, i], 1, fine, coarse, at, below)
            for k in range(ranks.size):
                # From one box to the next an element moves by few classes, so the search goes on where it ended.
                while below[k] > ranks[k]:
                    at[k] -= 1
                    below[k] -= coarse[at[k]]
                while below[k] + coarse[at[k]] <= ranks[k]:
                    below[k] += coarse[at[k]]
                    at[k] += 1
                left, place = ranks[k] - below[k], at[k] * COARSE
                while left >= fine[place]:
                    left -= fine[place]
                    place += 1
                outs[k, y, x] = values[place]


@compiled
def _count(place: int, change: int, fine: Array, coarse: Array, at: Array, below: Array) -> None:
    """Add a pixel to a histogram, or take it out.

    Parameters
    ----------
    place
        Rank of the pixel in its tile.
    change
        1 or -1.
    fine, coarse
        Pixels of each rank, and of each class of `COARSE` ranks; int32.
    at, below
        For each wanted element, the class where it was found last and the pixels in the classes below; int64.
    """
    fine[place] += change
    coarse[place // COARSE] += change
    for k in range(at.size):
        if place // COARSE < at[k]:
            below[k] += change
