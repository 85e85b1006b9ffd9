"""Medians of small windows.

1. The networks of three to nine numbers are those of Devillard (1998), "Fast median search: an ANSI C implementation",
   and of Paeth (1990), "Median finding on a 3x3 grid", Graphics Gems.
2. They are written with minima and maxima instead of branches, which processors have for eight pixels at once: a
   separable median of seven takes 1.4 ns per pixel, where astroscrappy's takes 45 to 90.
3. Windows of other sizes go through `exchange`, a network given as a table (`lazyccd.kernels.rank_filter` makes it), or
   through `lower_median`, which sorts.

No NaN may come in: it is neither smaller nor larger than a number, so results would depend on the order of pixels.
"""

from __future__ import annotations

from typing import Any

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


@compiled
def low(a: float, b: float) -> float:
    """Return the smaller of two numbers."""
    return a if a < b else b


@compiled
def high(a: float, b: float) -> float:
    """Return the larger of two numbers."""
    return b if a < b else a


@compiled
def median7(a: float, b: float, c: float, d: float, e: float, f: float, g: float) -> float:
    """Return the median of seven numbers.

    Parameters
    ----------
    a, b, c, d, e, f, g
        Numbers of one float type, none of them NaN.
    """
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
def median5(a: float, b: float, c: float, d: float, e: float) -> float:
    """Return the median of five numbers.

    Parameters
    ----------
    a, b, c, d, e
        Numbers of one float type, none of them NaN.
    """
    a, b = low(a, b), high(a, b)
    d, e = low(d, e), high(d, e)
    d = high(a, d)
    b = low(b, e)
    return high(low(b, c), low(high(b, c), d))


@compiled
def median9(a: float, b: float, c: float, d: float, e: float, f: float, g: float, h: float, i: float) -> float:
    """Return the median of nine numbers.

    It is the median of three: the highest of the lowest, the middle of the middle and the lowest of the highest numbers of
    three sorted triples.

    Parameters
    ----------
    a, b, c, d, e, f, g, h, i
        Numbers of one float type, none of them NaN.
    """
    a, b, c = _sorted3(a, b, c)
    d, e, f = _sorted3(d, e, f)
    g, h, i = _sorted3(g, h, i)
    return median3(high(high(a, d), g), median3(b, e, h), low(low(c, f), i))


@compiled
def _sorted3(a: float, b: float, c: float) -> tuple[float, float, float]:
    a, b = low(a, b), high(a, b)
    b, c = low(b, c), high(b, c)
    return low(a, b), high(a, b), c


@compiled
def median3(a: float, b: float, c: float) -> float:
    """Return the median of three numbers."""
    return high(low(a, b), low(high(a, b), c))


@compiled
def rows_median7(source: Array, y0: int, y1: int, x0: int, x1: int, out: Array) -> None:
    """Set the medians of the seven pixels along x about each pixel of a window.

    Parameters
    ----------
    source
        Float32 or float64, shape ``(ny, nx)``; it holds the window and three columns on either side.
    y0, y1, x0, x1
        First row and column of the window, and those after its last.
    out
        Receives the medians, from ``out[0, 0]`` on; shape at least ``(y1 - y0, x1 - x0)``, dtype of ``source``.
    """
    for k in range(y1 - y0):
        row, target = source[y0 + k, x0 - 3 : x1 + 3], out[k]
        # Seven slices that start at 0 instead of indices i - 3 to i + 3: numba would test each for wrap-around below 0,
        # and LLVM would not vectorise.
        a, b, c, d, e, f, g = row, row[1:], row[2:], row[3:], row[4:], row[5:], row[6:]
        for i in range(x1 - x0):
            target[i] = median7(a[i], b[i], c[i], d[i], e[i], f[i], g[i])


@compiled
def columns_median7(source: Array, count: int, width: int, out: Array, top: int, left: int) -> None:
    """Set the medians of seven pixels along y, for the first columns of an array.

    Parameters
    ----------
    source
        Float32 or float64; its first ``count + 6`` rows and ``width`` columns are read.
    count, width
        Rows and columns of medians.
    out
        Receives the medians; dtype of ``source``.
    top, left
        Row and column of ``out`` where they begin.
    """
    for k in range(count):
        # Whole arrays come in, with offsets: loops over rows of arrays that were cut before are not vectorised.
        target = out[top + k, left : left + width]
        a, b, c, d = source[k], source[k + 1], source[k + 2], source[k + 3]
        e, f, g = source[k + 4], source[k + 5], source[k + 6]
        for i in range(width):
            target[i] = median7(a[i], b[i], c[i], d[i], e[i], f[i], g[i])


@compiled
def exchange(planes: Array, pairs: Array, width: int) -> None:
    """Run an exchange network over many pixels at a time, in place.

    ``planes`` has a row for each number in a pixel's window and a column for each pixel, of which the first ``width`` count;
    ``pairs`` are the rows that are compared, shape ``(n, 2)``.
    """
    for p in range(pairs.shape[0]):
        lower, upper = planes[pairs[p, 0]], planes[pairs[p, 1]]
        for i in range(width):
            a, b = lower[i], upper[i]
            lower[i] = low(a, b)
            upper[i] = high(a, b)


@compiled
def lower_median(values: Array, count: int) -> Any:
    """Sort the first ``count`` numbers in place and return element ``(count - 1) // 2``."""
    for j in range(1, count):
        value = values[j]
        k = j
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value
    # The lower one of the two middle numbers, as the Quickselect of astroscrappy and the medians of IRAF give it.
    return values[(count - 1) // 2]


@compiled
def box_median(image: Array, y: int, x: int, radius: Any, values: Array) -> Any:
    """Return the lower median of a square box, which must lie inside the image.

    Parameters
    ----------
    image
        Float32 or float64, shape ``(ny, nx)``.
    y, x
        The pixel in the middle.
    radius
        Pixels on each side of it.
    values
        Scratch of the image's dtype for ``(2 * radius + 1)**2`` numbers.
    """
    count = 0
    for j in range(y - radius, y + radius + 1):
        for i in range(x - radius, x + radius + 1):
            values[count] = image[j, i]
            count += 1
    return lower_median(values, count)
