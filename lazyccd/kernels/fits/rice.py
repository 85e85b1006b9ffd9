"""RICE_1: integers as differences of neighbours, each block of pixels with as many plain bits as suit it.

FITS standard, section 10.4.1, after Rice, Yeh and Miller (1993), AIAA-93-4541-CP, as White coded it:

1. the first pixel of a tile is stored as it is; the others as differences to the pixel before, modulo the width of a
   pixel, folded to 0, 1, 2, ... for 0, -1, 1, ...;
2. a block of usually 32 differences begins with a code of 3, 4 or 5 bits (8, 16, 32-bit pixels): 0 if all differences
   are 0, the highest code if the block is noise and follows bit by bit, else fs + 1;
3. with fs, each difference has its lower fs bits as they are and the rest as that many zeros and a one before them.

This is our own code because tiles are compressed in the tasks that compute them: astropy's codec takes one tile a call,
between which threads wait for the interpreter. Both kernels here take many tiles at a time. The bytes are those of cfitsio.
With two threads, uint16 images are written 2.2 times as fast as by fpack and read 3 times as fast as by astropy
(benchmarks/bench_fits.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from lazyccd.kernels.block import Array
from lazyccd.kernels.fits.bits import end_bits, fill_bits, flush_bits, put_bits
from lazyccd.kernels.jit import compiled

BLOCK = 32
"""Pixels of a block as written here; other sizes are read too."""


def _count_leading_zeros(typingctx: Any, value: Any) -> Any:
    """Return the zeros before the first one of an unsigned 64-bit integer; undefined for 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], context.get_constant(types.boolean, True))

    return (types.uint64(types.uint64), codegen)


_leading_zeros: Any = intrinsic(_count_leading_zeros)


def rice_bytes(count: int, itemsize: int) -> int:
    """Return the most bytes that a tile of ``count`` pixels can take."""
    # With the fs of a block of m pixels the leading zeros are at most 2.5 m + 1, so no pixel takes more than half a bit
    # more than it had, and no block more than 7 bits more.
    return count * itemsize + count // 16 + -(-count // BLOCK) + 16


@compiled
def _codes_of(width: int) -> tuple[np.uint64, int]:
    """Return the bits of a block's code, and the least fs for which a block counts as noise; for pixels of 8, 16, 32 bits."""
    if width == 8:
        return np.uint64(3), 6
    return (np.uint64(4), 14) if width == 16 else (np.uint64(5), 25)


@compiled
def rice_encode(tiles: Array, out: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> int:
    """Compress tiles one behind the other.

    Parameters
    ----------
    tiles
        Bits of the stored integers, uint8, uint16 or uint32, shape ``(tiles, pixels)``.
    out
        Receives the bytes; room for ``tiles * rice_bytes(pixels, itemsize)``.
    lengths
        Receives the bytes of each tile.

    Returns
    -------
    int
        Bytes of all tiles.
    """
    count = tiles.shape[1]
    width = tiles.itemsize * 8
    code_bits, noise = _codes_of(width)
    folded = np.empty(count, tiles.dtype)
    place = np.uint64(0)
    for t in range(tiles.shape[0]):
        row = tiles[t]
        start = place
        _fold(row, folded)
        bits, held = np.uint64(row[0]), np.uint64(width)
        if width == 32:
            bits, held, place = flush_bits(bits, held, out, place)
        for first in range(0, count, BLOCK):
            block = folded[first : min(first + BLOCK, count)]
            total = np.uint64(0)
            for j in range(block.size):
                total += np.uint64(block[j])
            fs = _plain_bits(total, block.size)
            if fs >= noise:
                bits, held, place = put_bits(bits, held, np.uint64(noise + 1), code_bits, out, place)
                for j in range(block.size):
                    bits, held, place = put_bits(bits, held, np.uint64(block[j]), np.uint64(width), out, place)
            elif total == 0:
                bits, held, place = put_bits(bits, held, np.uint64(0), code_bits, out, place)
            else:
                bits, held, place = put_bits(bits, held, np.uint64(fs + 1), code_bits, out, place)
                bits, held, place = _put_block(bits, held, block, np.uint64(fs), out, place)
        place = end_bits(bits, held, out, place)
        lengths[t] = place - start
    return int(place)


@compiled
def _fold(row: Array, out: Array) -> None:
    """Write the differences of neighbours as 0, 1, 2, ... for 0, -1, 1, ..., modulo the width of a pixel."""
    top = row.itemsize * 8 - 1
    unsigned = row.dtype.type
    out[0] = 0
    before, after, folded = row[:-1], row[1:], out[1:]
    for j in range(folded.size):
        # Cast at each step: numba would widen to int64, where differences do not wrap and half as many fit a vector.
        difference = unsigned(after[j] - before[j])
        sign = unsigned(difference >> top)
        folded[j] = unsigned(unsigned(difference << 1) ^ unsigned(-sign))


@compiled
def _plain_bits(total: np.uint64, size: int) -> int:
    """Return fs for the sum of a block and its size."""
    # cfitsio's estimate, with its roundings: any other fs is valid too, but gives other bytes.
    excess = np.int64(total) - size // 2 - 1
    mean = np.uint64(excess // size) >> np.uint64(1) if excess > 0 else np.uint64(0)
    return 64 - int(_leading_zeros(mean)) if mean else 0


@compiled
def _put_block(
    bits: np.uint64, held: np.uint64, block: Array, fs: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append a block: each value as its upper bits in zeros, a one, and its lower fs bits.

    Parameters
    ----------
    bits, held, place
        The stream, as in `lazyccd.kernels.fits.bits`.
    block
        Folded differences, unsigned integers.
    fs
        How many lower bits stand as they are.
    out
        Receives the bytes, uint8.
    """
    one = np.uint64(1) << fs
    lower = one - np.uint64(1)
    for j in range(block.size):
        value = np.uint64(block[j])
        zeros = value >> fs
        size = zeros + fs + np.uint64(1)
        # Only for values far above the mean of the block.
        while size > 32:
            step = min(np.uint64(32), zeros)
            bits, held, place = put_bits(bits, held, np.uint64(0), step, out, place)
            zeros -= step
            size -= step
        bits = (bits << size) | one | (value & lower)
        held += size
        if held >= 32:
            bits, held, place = flush_bits(bits, held, out, place)
    return bits, held, place


@compiled
def rice_decode(
    raw: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], size: int, tiles: Array
) -> int:
    """Decompress tiles.

    Parameters
    ----------
    raw
        Bytes that hold the tiles.
    starts, stops
        Where each tile begins and ends.
    size
        Pixels of a block.
    tiles
        Receives the bits of the stored integers, uint8, uint16 or uint32, shape ``(tiles, pixels)``.

    Returns
    -------
    int
        -1, or the first tile whose bytes end before its pixels.
    """
    count = tiles.shape[1]
    width = tiles.itemsize * 8
    code_bits, noise = _codes_of(width)
    for t in range(tiles.shape[0]):
        row = tiles[t]
        place, stop = np.uint64(starts[t]), np.uint64(stops[t])
        bits, held, place = fill_bits(raw, np.uint64(0), np.uint64(0), place, stop)
        last = tiles.dtype.type(bits >> np.uint64(64 - width))
        bits, held = bits << np.uint64(width), held - np.uint64(width)
        # The size of a block is a parameter in the header (BLOCKSIZE); other programs use others than 32.
        for first in range(0, count, size):
            block = row[first : min(first + size, count)]
            bits, held, place = fill_bits(raw, bits, held, place, stop)
            fs = int(bits >> (np.uint64(64) - code_bits)) - 1
            bits, held = bits << code_bits, held - code_bits
            if fs < 0:
                block[:] = last
            elif fs >= noise:
                for j in range(block.size):
                    bits, held, place = fill_bits(raw, bits, held, place, stop)
                    block[j] = bits >> np.uint64(64 - width)
                    bits, held = bits << np.uint64(width), held - np.uint64(width)
                last = _unfold(block, last)
            else:
                bits, held, place = _take_block(raw, bits, held, place, stop, np.uint64(fs), block)
                last = _unfold(block, last)
            # Tested once a block: zeros are read behind the end, never bytes of the next tile.
            if place > stop + np.uint64(16):
                return t
        if np.uint64(8) * place > np.uint64(8) * stop + held:
            return t
    return -1


@compiled
def _take_block(
    raw: Array, bits: np.uint64, held: np.uint64, place: np.uint64, stop: np.uint64, fs: np.uint64, block: Array
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Read the folded differences of a block.

    Parameters
    ----------
    raw
        Bytes, uint8.
    bits, held, place, stop
        The stream, as in `lazyccd.kernels.fits.bits`.
    fs
        How many lower bits stand as they are.
    block
        Receives the folded differences.
    """
    # Shifted by 1 and then by 63 - fs: for fs = 0 a single shift would be by 64, which is undefined.
    down = np.uint64(63) - fs
    for j in range(block.size):
        run = _leading_zeros(bits | np.uint64(1))
        zeros = run
        # Zeros beyond the bits held look like part of the run; counted again after more bytes.
        if run + fs >= held:
            bits, held, place = fill_bits(raw, bits, held, place, stop)
            run = _leading_zeros(bits | np.uint64(1))
            zeros = run
        if run + fs >= np.uint64(55):
            # Rare: the one and what follows may lie beyond the bits held. Endless zeros occur only after the end.
            zeros = np.uint64(0)
            while bits >> np.uint64(32) == np.uint64(0) and place <= stop + np.uint64(8):
                zeros += np.uint64(32)
                bits, held, place = fill_bits(raw, bits << np.uint64(32), held - np.uint64(32), place, stop)
            if bits >> np.uint64(32) == np.uint64(0):
                return np.uint64(0), np.uint64(0), stop + np.uint64(17)
            run = _leading_zeros(bits)
            zeros += run
            bits, held, place = fill_bits(raw, bits << run, held - run, place, stop)
            run = np.uint64(0)
        # The one, then fs bits.
        lower = (bits << run << np.uint64(1)) >> np.uint64(1) >> down
        used = run + fs + np.uint64(1)
        bits, held = bits << used, held - used
        block[j] = (zeros << fs) | lower
    return bits, held, place


@compiled
def _unfold(block: Array, last: Any) -> Any:
    """Turn folded differences into pixels in place, given the pixel before the first; return the last."""
    unsigned = block.dtype.type
    for j in range(block.size):
        folded = block[j]
        last = unsigned(last + unsigned(unsigned(folded >> 1) ^ unsigned(-(folded & 1))))
        block[j] = last
    return last
