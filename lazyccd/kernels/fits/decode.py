"""The numbers of FITS files turned into native arrays.

Pixels come as one contiguous run of integers with the bytes of the file: ``start`` is the first pixel wanted, and
``stride`` the pixels from one row to the next, so that a window of a wide span needs no copy. ``swap`` says that the
bytes are big-endian. Output rows are contiguous.

Scaling is computed in float64 and rounded once; astropy scales 16-bit integers in float32, which is up to 1 ulp off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled

DITHER_COUNT = 10_000
"""Length of the table of random numbers of the FITS standard (section 10.2.1.1)."""

DITHER_ZERO = -2147483646
"""Integer that stands for an exact zero with SUBTRACTIVE_DITHER_2."""


def _swap_bytes(typingctx: Any, value: Any) -> Any:
    """Reverse the bytes of an integer of any width, with one instruction that LLVM vectorises."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0] if value.bitwidth == 8 else builder.bswap(args[0])

    return (value(value), codegen) if isinstance(value, types.Integer) else None


_swapped: Any = intrinsic(_swap_bytes)


@compiled
def small_integers(
    src: Array, start: int, stride: int, out: Array, offset: int, blank: Any, has_blank: bool, swap: bool
) -> None:
    """Convert integers of 8 or 16 bits plus an integer to floats: exact, in 32-bit arithmetic.

    Parameters
    ----------
    src
        Pixels, uint8 or int16.
    start, stride
        First pixel, and pixels per row.
    out
        Receives the pixels, float32 or float64, shape ``(ny, nx)``.
    offset
        What to add, below 2**24.
    blank, has_blank
        Stored value that becomes NaN, of the dtype of ``src``, and whether there is one.
    swap
        Whether ``src`` is big-endian.
    """
    ny, nx = out.shape
    for i in range(ny):
        row = src[start + i * stride : start + i * stride + nx]
        target = out[i]
        # Two loops, because a branch inside would keep LLVM from vectorising.
        if swap:
            for j in range(nx):
                # Sums below 2**24 are exact in float32, and 32-bit integers vectorise twice as wide as numba's int64.
                target[j] = np.int32(np.int32(_swapped(row[j])) + offset)
        else:
            for j in range(nx):
                target[j] = np.int32(np.int32(row[j]) + offset)
        if has_blank:
            _mark_blank(row, target, blank, swap)


@compiled
def large_integers(
    src: Array, start: int, stride: int, out: Array, offset: Any, blank: Any, has_blank: bool, swap: bool
) -> None:
    """Convert integers of 32 or 64 bits plus an integer to floats, rounded once.

    Parameters
    ----------
    src, start, stride, out, blank, has_blank, swap
        As in `small_integers`.
    offset
        What to add, int64; or uint64, if ``src`` is too. The sum is made in that type.
    """
    ny, nx = out.shape
    for i in range(ny):
        row = src[start + i * stride : start + i * stride + nx]
        target = out[i]
        if swap:
            for j in range(nx):
                # One rounding: adding in float would round the stored value first.
                target[j] = _swapped(row[j]) + offset
        else:
            for j in range(nx):
                target[j] = row[j] + offset
        if has_blank:
            _mark_blank(row, target, blank, swap)


@compiled
def scaled_integers(
    src: Array,
    start: int,
    stride: int,
    out: Array,
    scale: float,
    zero: float,
    blank: Any,
    has_blank: bool,
    swap: bool,
) -> None:
    """Convert integers to ``scale * value + zero``, computed in float64 and rounded once to the output.

    Parameters
    ----------
    src, start, stride, out, blank, has_blank, swap
        As in `small_integers`.
    scale, zero
        BSCALE and BZERO.
    """
    ny, nx = out.shape
    for i in range(ny):
        row = src[start + i * stride : start + i * stride + nx]
        target = out[i]
        if swap:
            for j in range(nx):
                target[j] = np.float64(_swapped(row[j])) * scale + zero
        else:
            for j in range(nx):
                target[j] = np.float64(row[j]) * scale + zero
        if has_blank:
            _mark_blank(row, target, blank, swap)


@compiled
def _mark_blank(row: Array, target: Array, blank: Any, swap: bool) -> None:
    """Set the pixels of a row that hold the blank value to NaN.

    Parameters
    ----------
    row
        Stored integers.
    target
        Their floats, which are changed.
    blank, swap
        As in `small_integers`.
    """
    # The row has just been read and written, so this second pass runs in cache. The row keeps the bytes of the file, so
    # the key is swapped, once.
    key = _swapped(blank) if swap else blank
    for j in range(target.size):
        target[j] = np.nan if row[j] == key else target[j]


@compiled
def exact_integers(
    src: Array, start: int, stride: int, out: Array, offset: Any, low: int, high: int, swap: bool
) -> int:
    """Copy integers plus an integer to another integer type.

    Parameters
    ----------
    src, start, stride, out, offset, swap
        As in `large_integers`, with ``out`` of any integer type.
    low, high
        Smallest and largest value that ``out`` can hold.

    Returns
    -------
    int
        Number of pixels that do not fit; what ``out`` holds there has no meaning.
    """
    ny, nx = out.shape
    misfits = 0
    for i in range(ny):
        row = src[start + i * stride : start + i * stride + nx]
        target = out[i]
        for j in range(nx):
            value = (_swapped(row[j]) if swap else row[j]) + offset
            misfits += (value < low) | (value > high)
            target[j] = value
    return misfits


@compiled
def swap_rows(src: Array, start: int, stride: int, out: Array) -> None:
    """Copy rows of unsigned integers with their bytes reversed.

    Parameters
    ----------
    src, start, stride
        As in `small_integers`, of any width.
    out
        Receives the integers, dtype of ``src``, shape ``(ny, nx)``.
    """
    # Floats of the file's own type pass through here as integers, so that NaNs and negative zeros keep their bits.
    ny, nx = out.shape
    for i in range(ny):
        row = src[start + i * stride : start + i * stride + nx]
        target = out[i]
        for j in range(nx):
            target[j] = _swapped(row[j])


@compiled
def swap_in_place(values: Array) -> None:
    """Reverse the bytes of unsigned integers."""
    for j in range(values.size):
        values[j] = _swapped(values[j])


@compiled
def scaled_floats(src: Array, out: Array, scale: float, zero: float) -> None:
    """Set ``scale * value + zero``, computed in float64 and rounded once to the output.

    Parameters
    ----------
    src
        Native floats, shape ``(ny, nx)``.
    out
        Receives the pixels, float32 or float64, same shape.
    scale, zero
        BSCALE and BZERO.
    """
    ny, nx = out.shape
    for i in range(ny):
        row = src[i]
        target = out[i]
        for j in range(nx):
            target[j] = np.float64(row[j]) * scale + zero


def dither_table() -> npt.NDArray[np.float32]:
    """Return the random numbers that the FITS standard prescribes for dithering, float32, shape ``(10000,)``."""
    # The generator that the standard spells out; every program must have the same numbers.
    modulus = 2147483647
    values = np.empty(DITHER_COUNT, np.float32)
    seed = 1
    for i in range(DITHER_COUNT):
        seed = (16807 * seed) % modulus
        values[i] = seed / modulus
    return values


@compiled
def dequantize(
    src: Array,
    out: Array,
    scale: float,
    zero: float,
    table: Array,
    first: int,
    dither: int,
    blank: int,
    has_blank: bool,
) -> None:
    """Turn the quantised integers of one tile back into floats.

    Parameters
    ----------
    src
        Integers of the tile, native, one-dimensional.
    out
        Floats of the same length.
    scale, zero
        ZSCALE and ZZERO of the tile.
    table
        Table of `dither_table`.
    first
        Index into the table where the tile's sequence begins: tile number (from 0) + ZDITHER0 - 1, modulo 10000.
    dither
        0 without dithering, 1 or 2 for the two subtractive methods.
    blank, has_blank
        Integer that stands for NaN, and whether there is one.
    """
    # A tile walks through the table from a place that the table itself gives, 0 to 499, and takes a new one at the end.
    seed = first
    place: Any = np.int64(table[seed] * np.float32(500.0))
    for j in range(out.size):
        value = src[j]
        if has_blank and value == blank:
            out[j] = np.nan
        elif dither == 0:
            out[j] = np.float64(value) * scale + zero
        elif dither == 2 and value == DITHER_ZERO:
            out[j] = 0.0
        else:
            out[j] = (np.float64(value) - np.float64(table[place]) + 0.5) * scale + zero
        place += 1
        if place == table.size:
            seed = (seed + 1) % table.size
            place = np.int64(table[seed] * np.float32(500.0))


@compiled
def dequantize_tiles(
    src: Array, out: Array, scales: Array, zeros: Array, table: Array, firsts: Array, dither: int, blanks: Array
) -> None:
    """Turn the quantised integers of many tiles of one size back into floats.

    Parameters
    ----------
    src, out
        Integers and floats, shape ``(tiles, pixels)``.
    scales, zeros, firsts
        One number for each tile, as for `dequantize`.
    table, dither
        As for `dequantize`.
    blanks
        Integer that stands for NaN in each tile; empty if none does.
    """
    # Many tiles in one call, so that threads seldom wait for the interpreter.
    for i in range(src.shape[0]):
        blank = blanks[i] if blanks.size else 0
        dequantize(src[i], out[i], scales[i], zeros[i], table, firsts[i], dither, blank, blanks.size > 0)
