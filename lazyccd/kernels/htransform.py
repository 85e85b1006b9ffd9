"""The H-transform of HCOMPRESS_1: sums and differences of 2 x 2 pixels, of the sums again, and so on, in integers.

White, Postman and Lattanzi (1992), in Digitised Optical Sky Surveys, p. 167; FITS standard, section 10.4.3.

1. Of four neighbours, h0 is their sum, hx and hy what the second row and the second column have more, hc the difference of
   the differences: the first level as they are, all later ones halved.
2. h0 is rounded to a multiple of 4, hx and hy of 2, twice as much on each further level. What rounding takes away can be
   told from the bits of the others, so the inverse gives every bit back.
3. The differences are put into quadrants: hy right of the sums, hx below, hc diagonally; the sums go through this again.

Where a side is odd, its last row or column counts twice and leaves no difference. ``level`` counts from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled

Array = npt.NDArray[Any]


@compiled
def count_levels(ny: int, nx: int) -> int:
    """Return how often the longer side is halved, rounded up, until it is 1."""
    levels, longest = 0, max(ny, nx)
    while longest > 1:
        longest = (longest + 1) // 2
        levels += 1
    return levels


@compiled
def h_transform(tile: Array, out: Array) -> None:
    """Transform a tile.

    Parameters
    ----------
    tile
        Integers, shape ``(ny, nx)``.
    out
        Receives the coefficients, int32 for pixels of up to 16 bits, else int64, of the tile's shape. The first is the sum.
    """
    m, n = tile.shape
    sums = np.empty(m * n, out.dtype)
    for i in range(m):
        pixels, row = tile[i], sums[i * n : (i + 1) * n]
        for j in range(n):
            row[j] = pixels[j]
    spare = np.empty(n, out.dtype)
    for level in range(count_levels(m, n)):
        half, right = (m + 1) // 2, (n + 1) // 2
        for i in range(half):
            upper = sums[2 * i * n : (2 * i + 1) * n]
            lower = upper
            hx, hc = spare, spare[right:]
            if 2 * i + 1 < m:
                lower = sums[(2 * i + 1) * n : (2 * i + 2) * n]
                hx, hc = out[half + i, :right], out[half + i, right:n]
            # sums of this row are read before the shorter ones are written over them
            _split(upper, lower, level, sums[i * right : (i + 1) * right], hx, out[i, right:n], hc)
        m, n = half, right
    out[0, 0] = sums[0]


@compiled
def _split(upper: Array, lower: Array, level: int, h0: Array, hx: Array, hy: Array, hc: Array) -> None:
    """Write sums and differences of two rows; ``h0`` may begin where ``upper`` does or before."""
    kind = upper.dtype.type
    shift = kind(min(level, 1))
    one, two = kind(1 << level), kind(2 << level)
    keep1, keep2 = kind(-2 << level), kind(-4 << level)
    a, b, c, d = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
    for j in range(hy.size):
        below, above = kind(d[j] + c[j]), kind(b[j] + a[j])
        down, up = kind(d[j] - c[j]), kind(b[j] - a[j])
        total = kind(kind(below + above) >> shift)
        x, y = kind(kind(below - above) >> shift), kind(kind(down + up) >> shift)
        hc[j] = kind(down - up) >> shift
        hx[j] = kind(x + (one if x >= 0 else kind(0))) & keep1
        hy[j] = kind(y + (one if y >= 0 else kind(0))) & keep1
        h0[j] = kind(total + (two if total >= 0 else kind(two - 1))) & keep2
    if a.size > hy.size:
        j = hy.size
        total = kind(kind(2 * kind(a[j] + c[j])) >> shift)
        x = kind(kind(2 * kind(c[j] - a[j])) >> shift)
        hx[j] = kind(x + (one if x >= 0 else kind(0))) & keep1
        h0[j] = kind(total + (two if total >= 0 else kind(two - 1))) & keep2


@compiled
def inverse_h_transform(a: Array, out: Array, limit: int) -> None:
    """Turn coefficients into pixels.

    Parameters
    ----------
    a
        Coefficients, int32 or int64, shape ``(ny, nx)``; they are changed where they are smoothed.
    out
        Receives the pixels, int32, of that shape.
    limit
        How far smoothing may move a coefficient: half the scale; 0 for no smoothing.
    """
    ny, nx = a.shape
    levels = count_levels(ny, nx)
    kind = a.dtype.type
    sums, wider = np.empty(a.size, a.dtype), np.empty(a.size, a.dtype)
    top = kind(2 << max(levels - 1, 0))
    sums[0] = kind(a[0, 0] + (top if a[0, 0] >= 0 else kind(top - 1))) & kind(-2 * top) if levels else a[0, 0]
    spare = np.empty(nx, a.dtype)
    nothing = np.zeros(nx, a.dtype)
    for level in range(levels - 1, -1, -1):
        m, n = -(-ny // (1 << level)), -(-nx // (1 << level))
        half, right = (m + 1) // 2, (n + 1) // 2
        if limit > 0:
            smooth(sums[: half * right].reshape(half, right), a[:m, :n], limit)
        for i in range(half):
            hx, hc, lower = nothing, nothing, spare
            if 2 * i + 1 < m:
                hx, hc = a[half + i, :right], a[half + i, right:n]
                lower = wider[(2 * i + 1) * n : (2 * i + 2) * n]
            upper = wider[2 * i * n : (2 * i + 1) * n]
            _join(sums[i * right : (i + 1) * right], hx, a[i, right:n], hc, level, upper, lower[:n])
        sums, wider = wider, sums
    for i in range(ny):
        pixels, row = out[i], sums[i * nx : (i + 1) * nx]
        for j in range(nx):
            pixels[j] = row[j]


@compiled
def _join(h0: Array, hx: Array, hy: Array, hc: Array, level: int, upper: Array, lower: Array) -> None:
    """Write the two rows of which `_split` made sums and differences."""
    kind = h0.dtype.type
    a, b, c, d = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
    for j in range(b.size):
        a[j], b[j], c[j], d[j] = _quad(h0[j], hx[j], hy[j], hc[j], level)
    if a.size > b.size:
        j = b.size
        a[j], _, c[j], _ = _quad(h0[j], hx[j], kind(0), kind(0), level)


@compiled
def _quad(h0: Any, hx: Any, hy: Any, hc: Any, level: int) -> tuple[Any, Any, Any, Any]:
    """Return four pixels of their sum and differences, of which lossy compression may have taken bits away."""
    kind = type(h0)
    shift = kind(1 if level else 2)
    bit0, bit1 = kind(1 << level), kind(2 << level)
    half0, half1 = kind(bit0 >> kind(1)), bit0
    less0 = kind(half0 - 1) if level else kind(0)
    hx = kind(hx + (half1 if hx >= 0 else kind(half1 - 1))) & kind(-bit1)
    hy = kind(hy + (half1 if hy >= 0 else kind(half1 - 1))) & kind(-bit1)
    hc = kind(hc + (half0 if hc >= 0 else less0)) & kind(-bit0)
    low0 = hc & bit0
    hx = kind(hx - low0) if hx >= 0 else kind(hx + low0)
    hy = kind(hy - low0) if hy >= 0 else kind(hy + low0)
    low1 = (hc ^ hx ^ hy) & bit1
    h0 = kind(h0 + (low1 if h0 < 0 and low0 == 0 else kind(low0 - low1)))
    plus, minus = kind(h0 + hx), kind(h0 - hx)
    same, other = kind(hy + hc), kind(hy - hc)
    return (
        kind(minus - other) >> shift,
        kind(minus + other) >> shift,
        kind(plus - same) >> shift,
        kind(plus + same) >> shift,
    )


@compiled
def smooth(sums: Array, a: Array, limit: int) -> None:
    """Move differences towards those that straight lines through the neighbouring sums have, at most by ``limit``.

    They stay where that would make an extremum between two sums. Differences at the edges stay as they are.

    Parameters
    ----------
    sums
        h0, shape ``(half, right)``.
    a
        Coefficients of this level, shape ``(m, n)``.
    limit
        Farthest move.
    """
    m, n = a.shape
    half, right = sums.shape
    last_row, last_column = (m - 1) // 2, (n - 1) // 2
    for i in range(1, last_row):
        for j in range(right):
            a[half + i, j] += _slope(sums[i - 1, j], sums[i, j], sums[i + 1, j], a[half + i, j], limit)
    for i in range(half):
        for j in range(1, last_column):
            a[i, right + j] += _slope(sums[i, j - 1], sums[i, j], sums[i, j + 1], a[i, right + j], limit)
    for i in range(1, last_row):
        for j in range(1, last_column):
            x, y = 2 * int(a[half + i, j]), 2 * int(a[i, right + j])
            a[half + i, right + j] += _curvature(
                sums[i - 1 : i + 2, j - 1 : j + 2], x, y, a[half + i, right + j], limit
            )


@compiled
def _slope(before: Any, here: Any, after: Any, value: Any, limit: int) -> int:
    """Return by how much a difference is to change, in whose direction the sums follow each other."""
    rise, fall = np.int64(after) - here, np.int64(here) - before
    highest, lowest = 4 * max(min(rise, fall), 0), 4 * min(max(rise, fall), 0)
    if lowest >= highest:
        return 0
    change = max(min(np.int64(after) - before, highest), lowest) - 8 * np.int64(value)
    return int(max(min(_towards_zero(change, 3), limit), -limit))


@compiled
def _curvature(sums: Array, x: int, y: int, value: Any, limit: int) -> int:
    """Return by how much hc is to change in the middle of 3 x 3 sums; ``x`` and ``y`` are twice the other differences."""
    here = np.int64(sums[1, 1])
    pp, mm = sums[2, 2] - here, here - sums[0, 0]
    mp, pm = here - sums[0, 2], here - sums[2, 0]
    highest = min(
        min(max(pp, 0) - x - y, max(pm, 0) + x - y),
        min(max(mp, 0) - x + y, max(-mm, 0) + x + y),
    )
    lowest = max(
        max(min(pp, 0) - x - y, min(pm, 0) + x - y),
        max(min(mp, 0) - x + y, min(-mm, 0) + x + y),
    )
    if 16 * lowest >= 16 * highest:
        return 0
    change = max(min(pp - mm + mp + pm, 16 * highest), 16 * lowest) - 64 * np.int64(value)
    return int(max(min(_towards_zero(change, 6), limit), -limit))


@compiled
def _towards_zero(value: int, bits: int) -> int:
    """Divide by a power of two."""
    return (value if value >= 0 else value + (1 << bits) - 1) >> bits
