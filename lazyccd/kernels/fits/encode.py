"""Native pixels turned into the big-endian bytes of a FITS data unit and summed for DATASUM, in one pass.

DATASUM is the ones-complement sum of a data unit read as big-endian 32-bit words. Ones-complement addition commutes, so
parts may be summed separately and added in any order; of its offset in the data unit only the value modulo 4 counts:

1. view the pixels as unsigned integers of their size; flip the sign bit of unsigned pixels (stored minus BZERO);
2. swap bytes into the output and add the value, shifted to where it sits in its word, to a 64-bit sum;
3. fold the sum to 32 bits with the carry added back in.

The result is 0 only if all bytes are 0, as it must be: in ones-complement 0 and 0xFFFFFFFF are the same number modulo
0xFFFFFFFF but not the same checksum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled

MASK32 = 0xFFFFFFFF


# Typed, because numba computes in int64 as soon as a literal takes part.
_M8 = np.uint32(0x00FF00FF)
_M32 = np.uint64(MASK32)
_M64_8 = np.uint64(0x00FF00FF00FF00FF)
_M64_16 = np.uint64(0x0000FFFF0000FFFF)


@compiled
def _encode8(row: Array, flip: int, position: int, out: Array) -> np.uint64:
    """Copy bytes; the byte at offset k of the data unit counts 256**(3 - k % 4).

    Parameters
    ----------
    row
        Pixels, uint8, shape ``(n,)``.
    flip
        Sign bit to flip, of the dtype of ``row``; 0 for none.
    position
        Offset of the first pixel in the data unit modulo 4, in bytes.
    out
        Receives the bytes as integers of the same dtype.
    """
    total = np.uint64(0)
    # A sum for each place in a word, shifted once at the end: no shift depends on the pixel, so the loops vectorise.
    for lane in range(4):
        first = (lane - position) % 4
        pixels, copy = row[first::4], out[first::4]
        lane_sum = np.uint64(0)
        for i in range(pixels.size):
            value = pixels[i] ^ flip
            copy[i] = value
            lane_sum += np.uint64(value)
        total += lane_sum << np.uint64(8 * (3 - lane))
    return total


@compiled
def _encode16(row: Array, flip: int, position: int, out: Array) -> np.uint64:
    """Swap 16-bit pixels; those at offset 0 modulo 4 are the upper half of their word.

    Parameters
    ----------
    row, flip, position, out
        As in `_encode8`, uint16.
    """
    total = np.uint64(0)
    for lane in range(2):
        first = (lane - position // 2) % 2
        pixels, swapped = row[first::2], out[first::2]
        lane_sum = np.uint64(0)
        for i in range(pixels.size):
            value = pixels[i] ^ flip
            swapped[i] = (value >> np.uint16(8)) | (value << np.uint16(8))
            lane_sum += np.uint64(value)
        total += lane_sum << np.uint64(16 * (1 - lane))
    return total


@compiled
def _encode32(row: Array, flip: int, position: int, out: Array) -> np.uint64:
    """Swap 32-bit pixels; each is one word.

    Parameters
    ----------
    row, flip, position, out
        As in `_encode8`, uint32.
    """
    total = np.uint64(0)
    for i in range(row.size):
        value = row[i] ^ flip
        half = ((value >> np.uint32(8)) & _M8) | ((value & _M8) << np.uint32(8))
        out[i] = (half >> np.uint32(16)) | (half << np.uint32(16))
        # 64 bits hold the sum of 2**32 words, so the carry is added back only once.
        total += np.uint64(value)
    return total


@compiled
def _encode64(row: Array, flip: int, position: int, out: Array) -> np.uint64:
    """Swap 64-bit pixels; each is two words.

    Parameters
    ----------
    row, flip, position, out
        As in `_encode8`, uint64.
    """
    total = np.uint64(0)
    for i in range(row.size):
        value = row[i] ^ flip
        part = ((value >> np.uint64(8)) & _M64_8) | ((value & _M64_8) << np.uint64(8))
        part = ((part >> np.uint64(16)) & _M64_16) | ((part & _M64_16) << np.uint64(16))
        out[i] = (part >> np.uint64(32)) | (part << np.uint64(32))
        total += (value >> np.uint64(32)) + (value & _M32)
    return total


@compiled
def _sum32(words: Array) -> np.uint64:
    """Add big-endian words."""
    total = np.uint64(0)
    for i in range(words.size):
        half = ((words[i] >> np.uint32(8)) & _M8) | ((words[i] & _M8) << np.uint32(8))
        total += np.uint64(np.uint32((half >> np.uint32(16)) | (half << np.uint32(16))))
    return total


_KERNELS = {1: _encode8, 2: _encode16, 4: _encode32, 8: _encode64}
_SIGN_BIT = {2: 0x8000, 4: 0x80000000}


def fold_datasum(total: int) -> int:
    """Return a sum of words as 32 bits, the carry added back in.

    Parameters
    ----------
    total
        Sum of words or of partial DATASUMs, of any size.

    Returns
    -------
    int
        0 only for 0, else 1 to 0xFFFFFFFF.

    Examples
    --------
    >>> fold_datasum(0x1_0000_0000), fold_datasum(0xFFFF_FFFF), fold_datasum(0)
    (1, 4294967295, 0)
    """
    while total > MASK32:
        total = (total & MASK32) + (total >> 32)
    return total


def encode_big_endian(pixels: Array, position: int, out: npt.NDArray[np.uint8]) -> int:
    """Write contiguous pixels as FITS bytes and return what they add to DATASUM.

    Parameters
    ----------
    pixels
        Native, C-contiguous: uint8, uint16, uint32, float32 or float64. It is left as it was. NaN keeps its bits.
        uint16 and uint32 are written as signed integers with BZERO 32768 or 2147483648.
    position
        Offset of the first pixel in the data unit, in bytes; a multiple of the pixel size.
    out
        Receives the bytes, shape ``(pixels.nbytes,)``.

    Returns
    -------
    int
        Ones-complement sum of the bytes at their place in 32-bit words, 0 to 0xFFFFFFFF; add partial sums with `fold_datasum`.

    Examples
    --------
    >>> out = np.empty(8, np.uint8)
    >>> encode_big_endian(np.array([1.0, -2.0], np.float32), 0, out) == 0x3F800000 + 0xC0000000
    True
    >>> out.view(">f4")
    array([ 1., -2.], dtype='>f4')
    """
    size = pixels.dtype.itemsize
    word = np.dtype(f"u{size}").type
    # Flipping the sign bit is subtracting BZERO, 2**15 or 2**31, modulo the width.
    flip = word(_SIGN_BIT.get(size, 0) if pixels.dtype.kind == "u" else 0)
    total = _KERNELS[size](pixels.reshape(-1).view(word), flip, position % 4, out.view(word))
    return fold_datasum(int(total))


@compiled
def shuffle_bytes(pixels: Array, out: npt.NDArray[np.uint8]) -> None:
    """Write the most significant bytes of all pixels, then the next, as GZIP_2 has them.

    Parameters
    ----------
    pixels
        Bits of the pixels, unsigned integers, shape ``(n,)``.
    out
        Receives the bytes, shape ``(pixels.nbytes,)``.
    """
    width = pixels.itemsize
    # By shifts of native integers: no swap is needed, and it does not depend on the machine's byte order.
    for k in range(width):
        plane = out[k * pixels.size : (k + 1) * pixels.size]
        down = pixels.dtype.type(8 * (width - 1 - k))
        for i in range(plane.size):
            plane[i] = pixels[i] >> down


def sum_words(raw: npt.NDArray[np.uint8]) -> int:
    """Return what bytes add to DATASUM where they begin a 32-bit word.

    Examples
    --------
    >>> hex(sum_words(np.array([1, 2, 3, 4, 5], np.uint8)))
    '0x6020304'
    """
    whole = raw.size // 4 * 4
    total = int(_sum32(raw[:whole].view(np.uint32)))
    return fold_datasum(total + int.from_bytes(raw[whole:].tobytes().ljust(4, b"\0"), "big"))


def shift_datasum(total: int, position: int) -> int:
    """Return what bytes add to DATASUM at an offset in the data unit, given what they add at offset 0.

    Examples
    --------
    >>> hex(shift_datasum(0x01020304, 1))
    '0x4010203'
    """
    down = 8 * (position % 4)
    return (total >> down) | (total << (32 - down) & MASK32)
