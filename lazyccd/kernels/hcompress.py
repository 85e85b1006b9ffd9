"""HCOMPRESS_1: coefficients of the H-transform, bit by bit, as quadtrees where these are shorter.

White, Postman and Lattanzi (1992), in Digitised Optical Sky Surveys, p. 167; FITS standard, section 10.4.3. A stream has

1. two bytes that name it, rows, columns and scale (32 bits each), the first coefficient (64 bits), and the bits of the
   largest coefficient in the quadrant of sums, in those of hx and hy, and in that of hc (8 bits each);
2. for each of the quadrants (sums, hy, hx, hc), from the highest bit down: the bits of 2 x 2 neighbours as one number of 4
   bits. Either 0 and all numbers follow, or 15 and a quadtree: a number of 4 bits says which of four numbers below it are
   not 0, from the top; numbers that are 0 are left out, others have codes of 3 to 6 bits, in reverse order;
3. four bits of 0, and from the next byte on the signs of all coefficients that are not 0, along rows.

When writing, the numbers of 16 bits of a quadrant are held side by side in words of 64 bits, and so are the numbers above them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.bits import end_bits, flush_bits, put_bits
from lazyccd.kernels.htransform import count_levels, h_transform
from lazyccd.kernels.jit import compiled

Array = npt.NDArray[Any]

HEAD = 25
"""Bytes before the bits of the quadrants."""

MAGIC = (0xDD, 0x99)
CODES = np.array(
    [
        0b111110,
        0,
        1,
        0b1000,
        2,
        0b1001,
        0b11010,
        0b11011,
        3,
        0b11100,
        0b1010,
        0b11101,
        0b1011,
        0b11110,
        0b111111,
        0b1100,
    ],
    np.uint64,
)
SIZES = np.array([6, 3, 3, 4, 3, 4, 5, 5, 3, 5, 4, 5, 4, 5, 6, 4], np.uint64)

PLANES = 16
"""Bits of coefficients whose numbers stand in one word, the lowest bit lowest."""

_LOWEST = np.uint64(0x1111111111111111)
_SIZES = np.uint64(sum(int(size) << (4 * number) for number, size in enumerate(SIZES) if number))
"""The sizes of all codes but that of 0, 4 bits each."""
_CODES = np.where(np.arange(16) > 0, CODES, 0).astype(np.uint64)


def hcompress_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the most bytes that a tile can take.

    A bit of a quadrant takes 4 bits and its numbers as they are, or codes that are shorter than an even number of them.
    """
    ny, nx = shape
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
    # two kernels and not one: LLVM would work through all of the second once more
    return _write_stream(a, out)


@compiled
def _write_stream(a: Array, out: Array) -> int:
    """Write coefficients, which are made positive."""
    ny, nx = a.shape
    total = a[0, 0]
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
    for k in range(count):  # numba takes seconds to compile the message of an assignment of other shape
        out[place + np.uint64(k)] = signs[k]
    return int(place) + count


@compiled
def quadrant_of(a: Array, k: int) -> Array:
    """Return the sums, hy, hx or hc."""
    half, right = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    rows = a[:half] if k < 2 else a[half:]
    return rows[:, right:] if k % 2 else rows[:, :right]


@compiled
def _take_signs(a: Array, signs: Array) -> int:
    """Write the signs of all numbers that are not 0, which are made positive; return the bytes."""
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(a.shape[0]):
        row = a[i]
        for first in range(0, row.size, 32):
            for value in row[first : first + 32]:
                is_there = np.uint64(value != 0)
                bits = (bits << is_there) | np.uint64(value < 0)
                held += is_there
            if held >= 32:
                bits, held, place = flush_bits(bits, held, signs, place)
        for j in range(row.size):
            row[j] = abs(row[j])
    return int(end_bits(bits, held, signs, place))


@compiled
def _bit_length(a: Array) -> int:
    """Return the bits of the largest number."""
    united = a.dtype.type(0)
    for i in range(a.shape[0]):
        row = a[i]
        for j in range(row.size):
            united |= row[j]
    length = 0
    while united:
        united >>= 1
        length += 1
    return length


@compiled
def numbers_of_levels(ny: int, nx: int) -> int:
    """Return how many numbers all levels of a quadrant have."""
    total = 1
    for _ in range(max(count_levels(ny, nx), 1)):
        ny, nx = (ny + 1) // 2, (nx + 1) // 2
        total += ny * nx
    return total


@compiled
def _put_quadrant(
    a: Array, planes: int, words: Array, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append all bits of a quadrant."""
    ny, nx = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    levels = max(count_levels(*a.shape), 1)
    limit = 8 * ((ny * nx + 1) // 2)
    for plane in range(planes - 1, -1, -1):
        down = np.uint64(4 * (plane % PLANES))
        if plane == planes - 1 or plane % PLANES == PLANES - 1:
            _take_planes(a, plane // PLANES * PLANES, levels, words)
        height, width, first, stop = ny, nx, 0, ny * nx
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
    """Write the numbers of 16 bits of 2 x 2 neighbours, and those of all levels above; what is beyond the edge is 0."""
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
    """Write the bits of 2 x 2 neighbours side by side, 16 of each."""
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
    """Return the lower 16 bits of a value, the lowest of each 4 bits."""
    value &= np.uint64(0xFFFF)
    value = (value | value << np.uint64(24)) & np.uint64(0x000000FF000000FF)
    value = (value | value << np.uint64(12)) & np.uint64(0x000F000F000F000F)
    value = (value | value << np.uint64(6)) & np.uint64(0x0303030303030303)
    return (value | value << np.uint64(3)) & _LOWEST


@compiled
def _unite(upper: Array, lower: Array, words: Array) -> None:
    """Write which of 2 x 2 numbers are not 0."""
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
    """Return the bits that the codes of numbers take; those of 0 take none."""
    total = np.uint64(0)
    for j in range(words.size):
        number = (words[j] >> down) & np.uint64(15)
        total += (_SIZES >> (number << np.uint64(2))) & np.uint64(15)
    return int(total)


@compiled
def _put_numbers(
    words: Array, down: np.uint64, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append numbers of 4 bits."""
    whole = words.size // 8 * 8
    for j in range(0, whole, 8):
        eight = words[j : j + 8]
        united = np.uint64(0)
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
    """Append the codes of numbers that are not 0, the last first."""
    rest = words.size % 4
    for stop in range(words.size, rest, -4):
        four = words[stop - 4 : stop]
        if ((four[0] | four[1] | four[2] | four[3]) >> down) & np.uint64(15) == 0:
            continue
        for k in range(4):
            bits, held = _add_code(four[3 - k], down, bits, held)
        if held >= 32:
            bits, held, place = flush_bits(bits, held, out, place)
    for j in range(rest - 1, -1, -1):
        bits, held = _add_code(words[j], down, bits, held)
    return put_bits(bits, held, np.uint64(0), np.uint64(0), out, place)


@compiled
def _add_code(word: np.uint64, down: np.uint64, bits: np.uint64, held: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Append the code of a number that is not 0; the caller writes bits before there are more than 64."""
    number = (word >> down) & np.uint64(15)
    size = (_SIZES >> (number << np.uint64(2))) & np.uint64(15)
    return (bits << size) | _CODES[number], held + size
