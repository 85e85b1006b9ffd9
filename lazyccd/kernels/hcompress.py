"""HCOMPRESS_1: coefficients of the H-transform, bit by bit, as quadtrees where these are shorter.

White, Postman and Lattanzi (1992), in Digitised Optical Sky Surveys, p. 167; FITS standard, section 10.4.3. A stream has

1. two bytes that name it, rows, columns and scale (32 bits each), the first coefficient (64 bits), and the bits of the
   largest coefficient in the quadrant of sums, in those of hx and hy, and in that of hc (8 bits each);
2. for each of the quadrants (sums, hy, hx, hc), from the highest bit down: the bits of 2 x 2 neighbours as one number of 4
   bits. Either 0 and all numbers follow, or 15 and a quadtree: a number of 4 bits says which of four numbers below it are
   not 0, from the top; numbers that are 0 are left out, others have codes of 3 to 6 bits, in reverse order;
3. four bits of 0, and from the next byte on the signs of all coefficients that are not 0, along rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.bits import end_bits, put_bits
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


def hcompress_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the most bytes that a tile can take.

    A bit of a quadrant takes 4 bits and its numbers as they are, or codes that are shorter than an even number of them.
    """
    ny, nx = shape
    sides = [((length + 1) // 2 + 1) // 2 + (length // 2 + 1) // 2 for length in shape]
    bits = 8 * itemsize + 2 + max(shape).bit_length()
    return HEAD + bits * (sides[0] * sides[1] // 2 + 4) + ny * nx // 8 + 16


@compiled
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
        out[14 + k] = np.int64(total) >> (56 - 8 * k)
    out[22:HEAD] = 0
    for k in range(4):
        planes = 22 + (k + 1) // 2
        out[planes] = max(out[planes], _bit_length(quadrant_of(a, k)))
    numbers = np.empty(numbers_of_levels((ny + 1) // 2, (nx + 1) // 2), np.uint8)
    bits, held, place = np.uint64(0), np.uint64(0), np.uint64(HEAD)
    for k in range(4):
        quadrant, planes = quadrant_of(a, k), int(out[22 + (k + 1) // 2])
        bits, held, place = _put_quadrant(quadrant, planes, numbers, bits, held, out, place)
    bits, held, place = put_bits(bits, held, np.uint64(0), np.uint64(4), out, place)
    place = end_bits(bits, held, out, place)
    out[place : place + np.uint64(count)] = signs[:count]
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
    top = a.itemsize * 8 - 1
    for i in range(a.shape[0]):
        row = a[i]
        for j in range(row.size):
            value = row[j]
            if value != 0:
                bits, held, place = put_bits(bits, held, np.uint64((value >> top) & 1), np.uint64(1), signs, place)
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
    a: Array, planes: int, numbers: Array, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append all bits of a quadrant."""
    ny, nx = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    levels = max(count_levels(*a.shape), 1)
    limit = 8 * ((ny * nx + 1) // 2)
    for plane in range(planes - 1, -1, -1):
        _take_plane(a, plane, numbers[: ny * nx])
        size = _coded_bits(numbers[: ny * nx])
        height, width, first = ny, nx, 0
        for _ in range(1, levels):
            if size >= limit:
                break
            below = numbers[first : first + height * width].reshape(height, width)
            first += height * width
            height, width = (height + 1) // 2, (width + 1) // 2
            _unite(below, numbers[first : first + height * width])
            size += _coded_bits(numbers[first : first + height * width])
        if size >= limit:
            bits, held, place = put_bits(bits, held, np.uint64(0), np.uint64(4), out, place)
            bits, held, place = _put_numbers(numbers[: ny * nx], bits, held, out, place)
        else:
            bits, held, place = put_bits(bits, held, np.uint64(15), np.uint64(4), out, place)
            if size == 0:
                bits, held, place = put_bits(bits, held, CODES[0], SIZES[0], out, place)
            else:
                bits, held, place = _put_codes(numbers[: first + height * width], bits, held, out, place)
    return bits, held, place


@compiled
def _take_plane(a: Array, plane: int, numbers: Array) -> None:
    """Write one bit of 2 x 2 neighbours as numbers; what is beyond the edge is 0."""
    kind = a.dtype.type
    down = kind(plane)
    width = (a.shape[1] + 1) // 2
    nothing = np.zeros(a.shape[1], a.dtype)
    for i in range(0, a.shape[0], 2):
        upper = a[i]
        lower = a[i + 1] if i + 1 < a.shape[0] else nothing
        row = numbers[i // 2 * width : (i // 2 + 1) * width]
        p, q, r, s = upper[0::2], upper[1::2], lower[0::2], lower[1::2]
        for j in range(q.size):
            one = kind(1)
            left = kind(((p[j] >> down) & one) << kind(3)) | kind(((r[j] >> down) & one) << kind(1))
            row[j] = left | kind(((q[j] >> down) & one) << kind(2)) | kind((s[j] >> down) & one)
        if p.size > q.size:
            j = q.size
            row[j] = (((p[j] >> down) & 1) << 3) | (((r[j] >> down) & 1) << 1)


@compiled
def _unite(below: Array, numbers: Array) -> None:
    """Write which of 2 x 2 numbers are not 0."""
    height, width = below.shape
    for i in range((height + 1) // 2):
        row = numbers[i * ((width + 1) // 2) : (i + 1) * ((width + 1) // 2)]
        for j in range(row.size):
            row[j] = (below[2 * i, 2 * j] != 0) << 3
            if 2 * j + 1 < width:
                row[j] |= (below[2 * i, 2 * j + 1] != 0) << 2
            if 2 * i + 1 < height:
                row[j] |= (below[2 * i + 1, 2 * j] != 0) << 1
                if 2 * j + 1 < width:
                    row[j] |= below[2 * i + 1, 2 * j + 1] != 0


@compiled
def _coded_bits(numbers: Array) -> int:
    """Return the bits that the codes of numbers take; those of 0 take none."""
    total = np.uint64(0)
    for j in range(numbers.size):
        if numbers[j]:
            total += SIZES[numbers[j]]
    return int(total)


@compiled
def _put_numbers(
    numbers: Array, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append numbers of 4 bits."""
    whole = numbers.size // 8 * 8
    for j in range(0, whole, 8):
        eight = numbers[j : j + 8]
        word = np.uint64(0)
        for k in range(8):
            word = (word << np.uint64(4)) | np.uint64(eight[k])
        bits, held, place = put_bits(bits, held, word, np.uint64(32), out, place)
    for j in range(whole, numbers.size):
        bits, held, place = put_bits(bits, held, np.uint64(numbers[j]), np.uint64(4), out, place)
    return bits, held, place


@compiled
def _put_codes(
    numbers: Array, bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append the codes of numbers that are not 0, the last first."""
    for j in range(numbers.size - 1, -1, -1):
        number = numbers[j]
        if number:
            bits, held, place = put_bits(bits, held, CODES[number], SIZES[number], out, place)
    return bits, held, place
