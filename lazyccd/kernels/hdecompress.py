"""HCOMPRESS_1 read: the streams that `lazyccd.kernels.hcompress` describes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.bits import fill_bits
from lazyccd.kernels.hcompress import CODES, HEAD, MAGIC, SIZES, numbers_of_levels, quadrant_of
from lazyccd.kernels.htransform import count_levels, inverse_h_transform
from lazyccd.kernels.jit import compiled

Array = npt.NDArray[Any]

HDECOMPRESS_ERRORS = {
    1: "its bytes do not begin as those of a tile of that shape",
    2: "its bytes contradict themselves",
}
"""What the numbers that `hdecompress` returns mean."""


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
        Whether coefficients that lost bits are to be smoothed.
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
    """Read coefficients, without the first; return whether the bytes make sense."""
    for plane in raw[22:HEAD]:
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
    # the signs begin at the next whole byte
    place -= (held - np.uint64(4)) >> np.uint64(3)
    return bool(place <= stop and _put_signs(raw[place:], a))


@compiled
def _put_signs(raw: Array, a: Array) -> bool:
    """Make numbers negative that the signs of all that are not 0 say are; return whether there are enough."""
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
    """Read all bits of a quadrant; the last result is whether they make sense."""
    ny, nx = (a.shape[0] + 1) // 2, (a.shape[1] + 1) // 2
    for plane in range(planes - 1, -1, -1):
        bits, held, place = fill_bits(raw, bits, held, place, stop)
        kind = bits >> np.uint64(60)
        bits, held = bits << np.uint64(4), held - np.uint64(4)
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
    """Read numbers of 4 bits."""
    whole = numbers.size // 8 * 8
    for j in range(0, whole, 8):
        bits, held, place = fill_bits(raw, bits, held, place, stop)
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
    raw: Array, bits: np.uint64, held: np.uint64, place: np.uint64, stop: np.uint64, shape: Any, numbers: Array
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Read a quadtree from the top down; the numbers of its lowest level come first."""
    levels = max(count_levels(shape[0], shape[1]), 1)
    above = np.full((1, 1), 8, np.uint8)
    for level in range(levels - 1, -1, -1):
        height, width = -(-shape[0] // (2 << level)), -(-shape[1] // (2 << level))
        memory = np.empty(height * width, np.uint8) if level else numbers[: height * width]
        here = memory.reshape(height, width)
        for i in range(height - 1, -1, -1):
            parents, row = above[i // 2], here[i]
            for j in range(width - 1, -1, -1):
                row[j] = 0
                if (parents[j // 2] >> (3 - 2 * (i % 2) - j % 2)) & 1:
                    if held < 6:
                        bits, held, place = fill_bits(raw, bits, held, place, stop)
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
