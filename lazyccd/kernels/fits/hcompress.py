"""HCOMPRESS_1: the H-transform in integers, and its coefficients as quadtrees, bit plane by bit plane.

White, Postman and Lattanzi (1992), in Digitised Optical Sky Surveys, p. 167; FITS standard, section 10.4.3.

The H-transform makes sums and differences of 2 x 2 pixels, of the sums again, and so on (`h_transform`):

1. Of four neighbours, h0 is their sum, hx and hy what the second row and the second column have more, hc the difference of
   the differences: the first level as they are, all later ones halved.
2. h0 is rounded to a multiple of 4, hx and hy of 2, twice as much on each further level. What rounding takes away can be
   told from the bits of the others, so the inverse gives every bit back.
3. The differences are put into quadrants: hy right of the sums, hx below, hc diagonally; the sums go through this again.

Where a side is odd, its last row or column counts twice and leaves no difference. ``level`` counts from 0.

A stream (`hcompress`, `hdecompress`) has

1. two bytes that name it, rows, columns and scale (32 bits each), the first coefficient (64 bits), and the bits of the
   largest coefficient in the quadrant of sums, in those of hx and hy, and in that of hc (8 bits each);
2. for each of the quadrants (sums, hy, hx, hc), from the highest bit down: the bits of 2 x 2 neighbours as one number of 4
   bits. Either 0 and all numbers follow, or 15 and a quadtree: a number of 4 bits says which of four numbers below it are
   not 0, from the top; numbers that are 0 are left out, others have codes of 3 to 6 bits, in reverse order;
3. four bits of 0, and from the next byte on the signs of all coefficients that are not 0, along rows.

This is our own code because the C code of cfitsio, which astropy calls, keeps the state of its bit stream in static
variables while it lets other threads run: two calls at once mix their bits, and a lock leaves one thread. Bytes and pixels
are those of cfitsio. Two threads write uint16 images 3.4 times as fast as fpack (benchmarks/bench_fits.py). When writing,
the numbers of 16 bit planes of a quadrant are held side by side in words of 64 bits, and so are the numbers above them,
which halved the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array
from lazyccd.kernels.fits.bits import end_bits, fill_bits, flush_bits, put_bits
from lazyccd.kernels.jit import compiled

HEAD = 25
"""Bytes before the bits of the quadrants."""

MAGIC = (0xDD, 0x99)
"""The two bytes that a stream begins with."""

# fmt: off
CODES = np.array(
    [0b111110, 0b000, 0b001, 0b1000, 0b010, 0b1001, 0b11010, 0b11011,
     0b011, 0b11100, 0b1010, 0b11101, 0b1011, 0b11110, 0b111111, 0b1100],
    np.uint64,
)
"""The Huffman code of each number of 4 bits, fixed by the format."""

SIZES = np.array([6, 3, 3, 4, 3, 4, 5, 5, 3, 5, 4, 5, 4, 5, 6, 4], np.uint64)
"""The bits of each code."""
# fmt: on

PLANES = 16
"""Bits of coefficients whose numbers stand side by side in one word, the lowest bit lowest."""

_LOWEST = np.uint64(0x1111111111111111)
"""The lowest of each 4 bits of a word."""

_SIZES = np.uint64(sum(int(size) << (4 * number) for number, size in enumerate(SIZES) if number))
"""The sizes of all codes but that of 0, 4 bits each, so that looking one up is a shift."""

_CODES = np.where(np.arange(16) > 0, CODES, 0).astype(np.uint64)


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
            # In place: the sums of this row are read before the shorter ones are written over them.
            _split(upper, lower, level, sums[i * right : (i + 1) * right], hx, out[i, right:n], hc)
        m, n = half, right
    out[0, 0] = sums[0]


@compiled
def _split(upper: Array, lower: Array, level: int, h0: Array, hx: Array, hy: Array, hc: Array) -> None:
    """Turn two rows into sums and differences.

    Parameters
    ----------
    upper, lower
        The rows, int32 or int64; the same row twice at an odd end.
    level
        How often sums have been halved before.
    h0, hx, hy, hc
        Sums and differences of both rows, half as long; int32 or int64.
        ``h0`` may begin where ``upper`` does, or before.
    """
    # Cast at each step: numba widens int32 to int64 in every operation, and half as many would fit a vector.
    kind = upper.dtype.type
    shift = kind(min(level, 1))
    one, two = kind(1 << level), kind(2 << level)
    # Masks of the multiples to which differences and sums are rounded.
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
    # An odd end: the last column counts twice, and only h0 and hx are left.
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
        # Two buffers take turns: rows grow from level to level, so this cannot be done in place.
        sums, wider = wider, sums
    for i in range(ny):
        pixels, row = out[i], sums[i * nx : (i + 1) * nx]
        for j in range(nx):
            pixels[j] = row[j]


@compiled
def _join(h0: Array, hx: Array, hy: Array, hc: Array, level: int, upper: Array, lower: Array) -> None:
    """Turn sums and differences back into the two rows that `_split` took.

    Parameters
    ----------
    h0, hx, hy, hc
        Sums and differences of both rows, half as long; int32 or int64.
    level
        How often the result was halved.
    upper, lower
        Receive the rows.
    """
    kind = h0.dtype.type
    a, b, c, d = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
    for j in range(b.size):
        a[j], b[j], c[j], d[j] = _quad(h0[j], hx[j], hy[j], hc[j], level)
    if a.size > b.size:
        j = b.size
        a[j], _, c[j], _ = _quad(h0[j], hx[j], kind(0), kind(0), level)


@compiled
def _quad(h0: Any, hx: Any, hy: Any, hc: Any, level: int) -> tuple[Any, Any, Any, Any]:
    """Return four pixels from their sum and differences, of which lossy compression may have taken bits away.

    Parameters
    ----------
    h0, hx, hy, hc
        Sum and differences, int32 or int64.
    level
        How often the pixels were halved.
    """
    kind = type(h0)
    shift = kind(1 if level else 2)
    bit0, bit1 = kind(1 << level), kind(2 << level)
    half0, half1 = kind(bit0 >> kind(1)), bit0
    less0 = kind(half0 - 1) if level else kind(0)
    hx = kind(hx + (half1 if hx >= 0 else kind(half1 - 1))) & kind(-bit1)
    hy = kind(hy + (half1 if hy >= 0 else kind(half1 - 1))) & kind(-bit1)
    hc = kind(hc + (half0 if hc >= 0 else less0)) & kind(-bit0)
    # The lowest bit of hc tells what rounding took from hx and hy, and their bits together what it took from h0.
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
    """Move differences towards those that straight lines through the neighbouring sums have, by ``limit`` at most.

    They stay where that would make an extremum between two sums. Differences at the edges stay as they are.

    Parameters
    ----------
    sums
        h0, shape ``(half, right)``.
    a
        Coefficients of this level, shape ``(m, n)``; changed in place.
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
    """Return by how much a difference along a line of sums is to change.

    Parameters
    ----------
    before, here, after
        Sums.
    value
        The difference.
    limit
        Farthest move.
    """
    rise, fall = np.int64(after) - here, np.int64(here) - before
    highest, lowest = 4 * max(min(rise, fall), 0), 4 * min(max(rise, fall), 0)
    # An extremum at this sum, or no slope to follow.
    if lowest >= highest:
        return 0
    change = max(min(np.int64(after) - before, highest), lowest) - 8 * np.int64(value)
    return int(max(min(_towards_zero(change, 3), limit), -limit))


@compiled
def _curvature(sums: Array, x: int, y: int, value: Any, limit: int) -> int:
    """Return by how much hc is to change in the middle of 3 x 3 sums.

    Parameters
    ----------
    sums
        The sums, shape ``(3, 3)``.
    x, y
        Twice the other differences.
    value
        hc.
    limit
        Farthest move.
    """
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
    """Divide by a power of two, rounding towards zero as division in C does."""
    # A shift alone rounds down, which moves negative differences by one more than cfitsio.
    return (value if value >= 0 else value + (1 << bits) - 1) >> bits


def hcompress_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the most bytes that a tile can take."""
    ny, nx = shape
    # A bit of a quadrant takes 4 bits and its numbers as they are, or codes that are shorter than an even number of
    # them. Four bytes more for each bit, because small tiles of extreme pixels once wrote a byte behind their room.
    sides = [((length + 1) // 2 + 1) // 2 + (length // 2 + 1) // 2 for length in shape]
    bits = 8 * itemsize + 2 + max(shape).bit_length()
    return HEAD + bits * (sides[0] * sides[1] // 2 + 4) + ny * nx // 8 + 16


def hcompress(tile: Array, a: Array, out: npt.NDArray[np.uint8]) -> int:
    """Compress a tile without loss.

    Parameters
    ----------
    tile
        Stored integers, signed, or unsigned ones of 8 bits, shape ``(ny, nx)``.
    a
        Scratch memory of that shape: int32 suffices for pixels of up to 16 bits, else int64.
    out
        Receives the bytes; room for `hcompress_bytes`.

    Returns
    -------
    int
        Number of bytes.
    """
    h_transform(tile, a)
    # Two kernels and not one: LLVM would work through all of the second once more.
    return _write_stream(a, out)


@compiled
def _write_stream(a: Array, out: Array) -> int:
    """Write coefficients, which are made positive; return the number of bytes."""
    ny, nx = a.shape
    total = a[0, 0]
    # The sum is in the head with 64 bits; among the others it would add bit planes for all.
    a[0, 0] = 0
    signs = np.empty(a.size // 8 + 16, np.uint8)
    count = _take_signs(a, signs)
    out[0], out[1] = MAGIC
    for k in range(4):
        down = 24 - 8 * k
        out[2 + k], out[6 + k], out[10 + k] = ny >> down, nx >> down, 0
    for k in range(8):
        out[14 + k] = np.int64(total) >> np.int64(56 - 8 * k)
    out[22:HEAD] = 0
    for k in range(4):
        planes = 22 + (k + 1) // 2
        out[planes] = max(out[planes], _bit_length(quadrant_of(a, k)))
    words = np.empty(numbers_of_levels((ny + 1) // 2, (nx + 1) // 2), np.uint64)
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(HEAD)
    for k in range(4):
        quadrant, planes = quadrant_of(a, k), int(out[22 + (k + 1) // 2])
        bits, held, place = _put_quadrant(quadrant, planes, words, bits, held, out, place)
    bits, held, place = put_bits(bits, held, np.uint64(0), np.uint64(4), out, place)
    place = end_bits(bits, held, out, place)
    # A loop and not an assignment of slices, for which numba takes seconds to compile the message of its error.
    for k in range(count):
        out[place + np.uint64(k)] = signs[k]
    return int(place) + count


@compiled
def quadrant_of(a: Array, k: int) -> Array:
    """Return the quadrant of the sums, hy, hx or hc as a view, for ``k`` from 0."""
    half, right = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    rows = a[:half] if k < 2 else a[half:]
    return rows[:, right:] if k % 2 else rows[:, :right]


@compiled
def _take_signs(a: Array, signs: Array) -> int:
    """Write the signs of all numbers that are not 0, which are made positive; return the number of bytes."""
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(a.shape[0]):
        row = a[i]
        for first in range(0, row.size, 32):
            for value in row[first : first + 32]:
                # Without a branch, which for noise the processor could not foresee.
                is_there = np.uint64(value != 0)
                bits = (bits << is_there) | np.uint64(value < 0)
                held += is_there
            # After 32 numbers at most 31 + 32 bits wait.
            if held >= 32:
                bits, held, place = flush_bits(bits, held, signs, place)
        for j in range(row.size):
            row[j] = abs(row[j])
    return int(end_bits(bits, held, signs, place))


@compiled
def _bit_length(a: Array) -> int:
    """Return the number of bits of the largest number."""
    united = a.dtype.type(0)
    for i in range(a.shape[0]):
        row = a[i]
        for j in range(row.size):
            # The union of all has as many bits as the largest, and needs no comparison.
            united |= row[j]
    length = 0
    while united:
        united >>= 1
        length += 1
    return length


@compiled
def numbers_of_levels(ny: int, nx: int) -> int:
    """Return how many numbers all levels of a quadrant have; ``ny`` and ``nx`` are its sides."""
    total = 1
    for _ in range(max(count_levels(ny, nx), 1)):
        ny, nx = (ny + 1) // 2, (nx + 1) // 2
        total += ny * nx
    return total


@compiled
def _put_quadrant(
    a: Array, planes: int, words: Array, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append all bits of a quadrant.

    Parameters
    ----------
    a
        Coefficients of the quadrant, not negative.
    planes
        How many bits they have.
    words
        Scratch, uint64, room for `numbers_of_levels`.
    bits, held, place
        The stream, as in `lazyccd.kernels.fits.bits`.
    out
        Receives the bytes, uint8.
    """
    ny, nx = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    levels = max(count_levels(*a.shape), 1)
    # cfitsio gives a quadtree up when its codes fill the bytes that the plain numbers take. Which of the two is written
    # must be decided in the same way for the same bytes.
    limit = 8 * ((ny * nx + 1) // 2)
    for plane in range(planes - 1, -1, -1):
        down = np.uint64(4 * (plane % PLANES))
        # Numbers of 16 planes are formed at once; the next 16 follow when these are used up.
        if plane == planes - 1 or plane % PLANES == PLANES - 1:
            _take_planes(a, plane // PLANES * PLANES, levels, words)
        height, width, first, stop = ny, nx, 0, ny * nx
        # Sizes are added up before a code is written, so a plane that will stand as it is is given up early.
        size = _coded_bits(words[:stop], down)
        for _ in range(1, levels):
            if size >= limit:
                break
            height, width = (height + 1) // 2, (width + 1) // 2
            first, stop = stop, stop + height * width
            size += _coded_bits(words[first:stop], down)
        if size >= limit:
            bits, held, place = put_bits(bits, held, np.uint64(0), np.uint64(4), out, place)
            bits, held, place = _put_numbers(words[: ny * nx], down, bits, held, out, place)
        else:
            bits, held, place = put_bits(bits, held, np.uint64(15), np.uint64(4), out, place)
            if size == 0:
                bits, held, place = put_bits(bits, held, CODES[0], SIZES[0], out, place)
            else:
                bits, held, place = _put_codes(words[:stop], down, bits, held, out, place)
    return bits, held, place


@compiled
def _take_planes(a: Array, lowest: int, levels: int, words: Array) -> None:
    """Set the numbers of 16 bit planes, and those of all levels above; what is beyond the edge is 0.

    Parameters
    ----------
    a
        Coefficients of a quadrant, not negative.
    lowest
        The lowest bit plane of the 16.
    levels
        Levels of the quadtree.
    words
        Receives the numbers, uint64, the lowest level first.
    """
    height, width = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    nothing = np.zeros(a.shape[1], a.dtype)
    for i in range(height):
        lower = a[2 * i + 1] if 2 * i + 1 < a.shape[0] else nothing
        _interleave(a[2 * i], lower, np.uint64(lowest), words[i * width : (i + 1) * width])
    first = 0
    none = np.zeros(width, np.uint64)
    for _ in range(1, levels):
        below = words[first : first + height * width].reshape(height, width)
        first += height * width
        rows = height
        height, width = (height + 1) // 2, (width + 1) // 2
        for i in range(height):
            lower = below[2 * i + 1] if 2 * i + 1 < rows else none[: below.shape[1]]
            _unite(below[2 * i], lower, words[first + i * width : first + (i + 1) * width])


@compiled
def _interleave(upper: Array, lower: Array, lowest: np.uint64, words: Array) -> None:
    """Set the bits of 2 x 2 neighbours side by side, 16 of each.

    Parameters
    ----------
    upper, lower
        Two rows of coefficients, not negative.
    lowest
        The lowest bit of the 16.
    words
        Receives the numbers, uint64.
    """
    p, q, r, s = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
    for j in range(q.size):
        left = _spread(np.uint64(p[j]) >> lowest) << np.uint64(3) | _spread(np.uint64(r[j]) >> lowest) << np.uint64(1)
        words[j] = left | _spread(np.uint64(q[j]) >> lowest) << np.uint64(2) | _spread(np.uint64(s[j]) >> lowest)
    if p.size > q.size:
        j = q.size
        above, below = _spread(np.uint64(p[j]) >> lowest), _spread(np.uint64(r[j]) >> lowest)
        words[j] = above << np.uint64(3) | below << np.uint64(1)


@compiled
def _spread(value: np.uint64) -> np.uint64:
    """Return the lower 16 bits of a value, each as the lowest of 4 bits."""
    value &= np.uint64(0xFFFF)
    value = (value | value << np.uint64(24)) & np.uint64(0x000000FF000000FF)
    value = (value | value << np.uint64(12)) & np.uint64(0x000F000F000F000F)
    value = (value | value << np.uint64(6)) & np.uint64(0x0303030303030303)
    return (value | value << np.uint64(3)) & _LOWEST


@compiled
def _unite(upper: Array, lower: Array, words: Array) -> None:
    """Set which of 2 x 2 numbers are not 0."""
    p, q, r, s = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
    for j in range(q.size):
        left = _some(p[j]) << np.uint64(3) | _some(r[j]) << np.uint64(1)
        words[j] = left | _some(q[j]) << np.uint64(2) | _some(s[j])
    if p.size > q.size:
        j = q.size
        words[j] = _some(p[j]) << np.uint64(3) | _some(r[j]) << np.uint64(1)


@compiled
def _some(word: np.uint64) -> np.uint64:
    """Return 1 for each 4 bits that are not 0."""
    word |= word >> np.uint64(2)
    return (word | word >> np.uint64(1)) & _LOWEST


@compiled
def _coded_bits(words: Array, down: np.uint64) -> int:
    """Return the number of bits that the codes of numbers take; those of 0 take none."""
    total = np.uint64(0)
    for j in range(words.size):
        number = (words[j] >> down) & np.uint64(15)
        # A shift instead of a table, which LLVM vectorises.
        total += (_SIZES >> (number << np.uint64(2))) & np.uint64(15)
    return int(total)


@compiled
def _put_numbers(
    words: Array, down: np.uint64, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append numbers of 4 bits.

    Parameters
    ----------
    words
        Numbers of 4 bits of 16 planes side by side, uint64.
    down
        Where the plane stands in a word: 4 times its number.
    bits, held, place
        The stream, as in `lazyccd.kernels.fits.bits`.
    out
        Receives the bytes, uint8.
    """
    whole = words.size // 8 * 8
    for j in range(0, whole, 8):
        eight = words[j : j + 8]
        united = np.uint64(0)
        # Eight numbers are 32 bits, the most that `put_bits` takes.
        for k in range(8):
            united = (united << np.uint64(4)) | ((eight[k] >> down) & np.uint64(15))
        bits, held, place = put_bits(bits, held, united, np.uint64(32), out, place)
    for j in range(whole, words.size):
        bits, held, place = put_bits(bits, held, (words[j] >> down) & np.uint64(15), np.uint64(4), out, place)
    return bits, held, place


@compiled
def _put_codes(
    words: Array, down: np.uint64, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append the codes of numbers that are not 0, the last first.

    Parameters
    ----------
    words
        Numbers of 4 bits of 16 planes side by side, uint64.
    down
        Where the plane stands in a word: 4 times its number.
    bits, held, place
        The stream, as in `lazyccd.kernels.fits.bits`.
    out
        Receives the bytes, uint8.
    """
    rest = words.size % 4
    for stop in range(words.size, rest, -4):
        four = words[stop - 4 : stop]
        # In the upper planes nearly all numbers are 0: four are skipped with one test.
        if ((four[0] | four[1] | four[2] | four[3]) >> down) & np.uint64(15) == 0:
            continue
        # Four codes have at most 24 bits, so the stream is looked at once for all.
        for k in range(4):
            bits, held = _add_code(four[3 - k], down, bits, held)
        if held >= 32:
            bits, held, place = flush_bits(bits, held, out, place)
    for j in range(rest - 1, -1, -1):
        bits, held = _add_code(words[j], down, bits, held)
    return put_bits(bits, held, np.uint64(0), np.uint64(0), out, place)


@compiled
def _add_code(word: np.uint64, down: np.uint64, bits: np.uint64, held: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Append the code of a number that is not 0; the caller writes bits before there are more than 64.

    Parameters
    ----------
    word, down
        As in `_put_codes`, for one word.
    bits, held
        The stream, as in `lazyccd.kernels.fits.bits`.
    """
    number = (word >> down) & np.uint64(15)
    size = (_SIZES >> (number << np.uint64(2))) & np.uint64(15)
    return (bits << size) | _CODES[number], held + size


HDECOMPRESS_ERRORS = {
    1: "its bytes do not begin as those of a tile of that shape",
    2: "its bytes contradict themselves",
}
"""What the numbers that `hdecompress` returns mean, for messages."""


def _decoding_table() -> Array:
    """Return for each 6 bits the number whose code they begin with, times 8, plus the size of the code."""
    table = np.zeros(64, np.uint8)
    for number, (code, size) in enumerate(zip(CODES.tolist(), SIZES.tolist(), strict=True)):
        first = code << (6 - size)
        table[first : first + (1 << (6 - size))] = 8 * number + size
    return table


_NUMBERS = _decoding_table()


@compiled
def hdecompress(raw: npt.NDArray[np.uint8], smooth: bool, a: Array, out: npt.NDArray[np.int32]) -> int:
    """Decompress a tile.

    Parameters
    ----------
    raw
        Its bytes.
    smooth
        Whether to smooth coefficients that lost bits.
    a
        Scratch memory of the tile's shape: int32 suffices for pixels of up to 16 bits, else int64.
    out
        Receives the pixels, shape ``(ny, nx)``.

    Returns
    -------
    int
        0, or one of `HDECOMPRESS_ERRORS`.
    """
    ny, nx = a.shape
    if raw.size < HEAD or raw[0] != MAGIC[0] or raw[1] != MAGIC[1]:
        return 1
    rows, columns, scale, total, byte = np.int32(0), np.int32(0), np.int32(0), np.int64(0), np.int32(8)
    for k in range(4):
        rows, columns = np.int32(rows << byte | raw[2 + k]), np.int32(columns << byte | raw[6 + k])
        scale = np.int32(scale << byte | raw[10 + k])
    for k in range(8):
        total = total << np.int64(byte) | np.int64(raw[14 + k])
    # Some programs write rows and columns in the other order.
    if not ((rows == ny and columns == nx) or (rows == nx and columns == ny)):
        return 1
    coefficients = a.reshape(rows, columns)
    if not _read_stream(raw, coefficients):
        return 2
    coefficients[0, 0] = total
    if scale > 1:
        for i in range(rows):
            row = coefficients[i]
            for j in range(columns):
                row[j] *= scale
    inverse_h_transform(coefficients, out.reshape(rows, columns), int(scale) // 2 if smooth else 0)
    return 0


@compiled
def _read_stream(raw: Array, a: Array) -> bool:
    """Read all coefficients but the first; return whether the bytes make sense."""
    for plane in raw[22:HEAD]:
        # Damaged bytes; shifting by more bits than an integer has is undefined.
        if plane >= a.itemsize * 8:
            return False
    a[:] = 0
    numbers = np.empty(numbers_of_levels((a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2), np.uint8)
    stop = np.uint64(raw.size)
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(HEAD)
    for k in range(4):
        quadrant, planes = quadrant_of(a, k), int(raw[22 + (k + 1) // 2])
        bits, held, place, is_good = _take_quadrant(raw, bits, held, place, stop, quadrant, planes, numbers)
        if not is_good or place > stop + np.uint64(16):
            return False
    bits, held, place = fill_bits(raw, bits, held, place, stop)
    if bits >> np.uint64(60):
        return False
    # The signs begin at the next whole byte; whole bytes that were taken too early are given back.
    place -= (held - np.uint64(4)) >> np.uint64(3)
    return bool(place <= stop and _put_signs(raw[place:], a))


@compiled
def _put_signs(raw: Array, a: Array) -> bool:
    """Negate the numbers, of those that are not 0, whose sign bit is set; return whether there are enough bits."""
    stop = np.uint64(raw.size)
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(a.shape[0]):
        row = a[i]
        for j in range(row.size):
            if row[j]:
                if held == 0:
                    bits, held, place = fill_bits(raw, np.uint64(0), held, place, stop)
                if bits >> np.uint64(63):
                    row[j] = -row[j]
                bits, held = bits << np.uint64(1), held - np.uint64(1)
    return bool(place <= stop or np.uint64(8) * (place - stop) <= held)


@compiled
def _take_quadrant(
    raw: Array,
    bits: np.uint64,
    held: np.uint64,
    place: np.uint64,
    stop: np.uint64,
    a: Array,
    planes: int,
    numbers: Array,
) -> tuple[np.uint64, np.uint64, np.uint64, bool]:
    """Read all bits of a quadrant; the last result is whether they make sense.

    Parameters
    ----------
    raw
        Bytes, uint8.
    bits, held, place, stop
        The stream, as in `lazyccd.kernels.fits.bits`.
    a
        Coefficients of the quadrant, to which bits are added.
    planes
        How many bits they have.
    numbers
        Scratch, uint8, room for `numbers_of_levels`.
    """
    ny, nx = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    for plane in range(planes - 1, -1, -1):
        bits, held, place = fill_bits(raw, bits, held, place, stop)
        kind = bits >> np.uint64(60)
        bits, held = bits << np.uint64(4), held - np.uint64(4)
        # Zeros are read behind the end, so damaged streams end here and not in the memory after them.
        if place > stop + np.uint64(16) or (kind != 0 and kind != 15):
            return bits, held, place, False
        if kind == 0:
            bits, held, place = _take_numbers(raw, bits, held, place, stop, numbers[: ny * nx])
        else:
            bits, held, place = _take_codes(raw, bits, held, place, stop, a.shape, numbers)
        _put_plane(numbers[: ny * nx], plane, a)
    return bits, held, place, True


@compiled
def _take_numbers(
    raw: Array, bits: np.uint64, held: np.uint64, place: np.uint64, stop: np.uint64, numbers: Array
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Read numbers of 4 bits.

    Parameters
    ----------
    raw
        Bytes, uint8.
    bits, held, place, stop
        The stream, as in `lazyccd.kernels.fits.bits`.
    numbers
        Receives the numbers, uint8.
    """
    whole = numbers.size // 8 * 8
    for j in range(0, whole, 8):
        bits, held, place = fill_bits(raw, bits, held, place, stop)
        # `fill_bits` holds 56 bits at least, enough for eight numbers.
        eight = numbers[j : j + 8]
        for k in range(8):
            eight[k] = (bits >> np.uint64(60 - 4 * k)) & np.uint64(15)
        bits, held = bits << np.uint64(32), held - np.uint64(32)
    for j in range(whole, numbers.size):
        bits, held, place = fill_bits(raw, bits, held, place, stop)
        numbers[j] = bits >> np.uint64(60)
        bits, held = bits << np.uint64(4), held - np.uint64(4)
    return bits, held, place


@compiled
def _take_codes(
    raw: Array,
    bits: np.uint64,
    held: np.uint64,
    place: np.uint64,
    stop: np.uint64,
    shape: tuple[int, int],
    numbers: Array,
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Read a quadtree from the top down.

    Parameters
    ----------
    raw
        Bytes, uint8.
    bits, held, place, stop
        The stream, as in `lazyccd.kernels.fits.bits`.
    shape
        Shape of the quadrant.
    numbers
        Receives the numbers of its lowest level, uint8.
    """
    levels = max(count_levels(shape[0], shape[1]), 1)
    # As if a number above the top said that only the first of its four is there.
    above = np.full((1, 1), 8, np.uint8)
    for level in range(levels - 1, -1, -1):
        height, width = -(-shape[0] // (2 << level)), -(-shape[1] // (2 << level))
        memory = np.empty(height * width, np.uint8) if level else numbers[: height * width]
        here = memory.reshape(height, width)
        for i in range(height - 1, -1, -1):
            parents, row = above[i // 2], here[i]
            for j in range(width - 1, -1, -1):
                # From the last to the first, as they were written.
                row[j] = 0
                if (parents[j // 2] >> (3 - 2 * (i % 2) - j % 2)) & 1:
                    if held < 6:
                        bits, held, place = fill_bits(raw, bits, held, place, stop)
                    # One look-up for number and size: no code has more than 6 bits.
                    entry = _NUMBERS[bits >> np.uint64(58)]
                    row[j] = entry >> 3
                    bits, held = bits << np.uint64(entry & 7), held - np.uint64(entry & 7)
        above = here
    return bits, held, place


@compiled
def _put_plane(numbers: Array, plane: int, a: Array) -> None:
    """Set one bit of 2 x 2 neighbours where numbers say so."""
    kind = a.dtype.type
    up = kind(plane)
    width = (a.shape[1] + 1) // 2
    spare = np.zeros(a.shape[1], a.dtype)
    for i in range(0, a.shape[0], 2):
        upper = a[i]
        lower = a[i + 1] if i + 1 < a.shape[0] else spare
        row = numbers[i // 2 * width : (i // 2 + 1) * width]
        p, q, r, s = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
        for j in range(q.size):
            number = kind(row[j])
            p[j] |= (number >> kind(3)) << up
            q[j] |= ((number >> kind(2)) & kind(1)) << up
            r[j] |= ((number >> kind(1)) & kind(1)) << up
            s[j] |= (number & kind(1)) << up
        if p.size > q.size:
            number = kind(row[q.size])
            p[q.size] |= (number >> kind(3)) << up
            r[q.size] |= ((number >> kind(1)) & kind(1)) << up
