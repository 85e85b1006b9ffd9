"""Medians of small windows.

The exchange networks are those of Devillard (1998), "Fast median search: an ANSI C implementation", and of Paeth (1990),
"Median finding on a 3x3 grid", Graphics Gems; written with minima and maxima, which processors have for eight pixels at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


@compiled
def low(a: Any, b: Any) -> Any:
    """Return the smaller of two numbers."""
    return a if a < b else b


@compiled
def high(a: Any, b: Any) -> Any:
    """Return the larger of two numbers."""
    return b if a < b else a


@compiled
def median7(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
    """Return the median of seven numbers."""
    a, f = low(a, f), high(a, f)
    a, d = low(a, d), high(a, d)
    b, g = low(b, g), high(b, g)
    c, e = low(c, e), high(c, e)
    b = high(a, b)
    d, f = low(d, f), high(d, f)
    c, g = low(c, g), high(c, g)
    d = high(c, d)
    d = low(d, g)
    e = low(e, f)
    b, e = low(b, e), high(b, e)
    d = high(b, d)
    return low(d, e)


@compiled
def median5(a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    """Return the median of five numbers."""
    a, b = low(a, b), high(a, b)
    d, e = low(d, e), high(d, e)
    d = high(a, d)
    b = low(b, e)
    return high(low(b, c), low(high(b, c), d))


@compiled
def median9(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> Any:
    """Return the median of nine numbers: of three sorted triples, the median of highest low, middle and lowest high."""
    a, b, c = _sorted3(a, b, c)
    d, e, f = _sorted3(d, e, f)
    g, h, i = _sorted3(g, h, i)
    return _median3(high(high(a, d), g), _median3(b, e, h), low(low(c, f), i))


@compiled
def _sorted3(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    a, b = low(a, b), high(a, b)
    b, c = low(b, c), high(b, c)
    return low(a, b), high(a, b), c


@compiled
def _median3(a: Any, b: Any, c: Any) -> Any:
    return high(low(a, b), low(high(a, b), c))


@compiled
def rows_median7(source: Array, y0: int, y1: int, x0: int, x1: int, out: Array) -> None:
    """Set ``out[0:, 0:]`` to the medians of seven pixels along x about pixels y0 to y1, x0 to x1 of the source.

    The windows must lie inside of it.
    """
    for k in range(y1 - y0):
        row, target = source[y0 + k, x0 - 3 : x1 + 3], out[k]
        a, b, c, d, e, f, g = row, row[1:], row[2:], row[3:], row[4:], row[5:], row[6:]
        for i in range(x1 - x0):
            target[i] = median7(a[i], b[i], c[i], d[i], e[i], f[i], g[i])


@compiled
def columns_median7(source: Array, count: int, width: int, out: Array, top: int, left: int) -> None:
    """Set ``count`` rows of ``out`` from (top, left) on to the medians of seven pixels along y of the source's first columns.

    Arrays are whole and not cut: loops over rows of cut arrays are not vectorised.
    """
    for k in range(count):
        target = out[top + k, left : left + width]
        a, b, c, d = source[k], source[k + 1], source[k + 2], source[k + 3]
        e, f, g = source[k + 4], source[k + 5], source[k + 6]
        for i in range(width):
            target[i] = median7(a[i], b[i], c[i], d[i], e[i], f[i], g[i])


@compiled
def exchange(planes: Array, pairs: Array, width: int) -> None:
    """Run an exchange network over ``width`` pixels: ``planes`` holds one row for each number of a pixel's window."""
    for p in range(pairs.shape[0]):
        lower, upper = planes[pairs[p, 0]], planes[pairs[p, 1]]
        for i in range(width):
            a, b = lower[i], upper[i]
            lower[i] = low(a, b)
            upper[i] = high(a, b)


@compiled
def lower_median(values: Array, count: int) -> Any:
    """Return element ``(count - 1) // 2`` of the first ``count`` numbers, which are sorted in place."""
    for j in range(1, count):
        value = values[j]
        k = j
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value
    return values[(count - 1) // 2]


def median_network(count: int) -> Array:
    """Return the pairs of an exchange network that leaves the median of an odd number of planes in the middle one.

    It is the network of Batcher (1968), "Sorting networks and their applications", without the exchanges that cannot reach
    the middle.
    """
    size = 1 << (count - 1).bit_length()
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < size:
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                places = range(j, j + min(k, size - j - k))
                pairs.extend((i, i + k) for i in places if i // (2 * p) == (i + k) // (2 * p))
            k //= 2
        p *= 2
    needed = {count // 2}
    kept = []
    for a, b in reversed([pair for pair in pairs if pair[1] < count]):
        if a in needed or b in needed:
            needed |= {a, b}
            kept.append((a, b))
    return np.array(kept[::-1], np.int64)
