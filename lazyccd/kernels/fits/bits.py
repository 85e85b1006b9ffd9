"""Streams of bits, the most significant first, held in a 64-bit integer between the bytes that are written or read.

Writing, `held` bits, fewer than 32, wait in the lower end of `bits`, and `place` is the index of the next byte to write.

Reading, the next `held` bits are the upper ones of `bits`, `place` is the index of the next byte to read and `stop` that
after the last. Behind the end zeros are read and counted, so that a caller sees by `place` that it went too far.

The state is passed and returned as three integers, so that they can stay in registers while a tile is worked on.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


@compiled
def flush_bits(
    bits: np.uint64, held: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Write the 32 oldest of at least 32 bits.

    Parameters
    ----------
    bits, held, place
        The stream.
    out
        Receives the bytes, uint8.
    """
    # Every number is a uint64: numba makes float64 of a uint64 and an int64, a literal included.
    held -= np.uint64(32)
    word = np.uint32(bits >> held)
    out[place] = np.uint8(word >> np.uint32(24))
    out[place + np.uint64(1)] = np.uint8(word >> np.uint32(16))
    out[place + np.uint64(2)] = np.uint8(word >> np.uint32(8))
    out[place + np.uint64(3)] = np.uint8(word)
    return bits, held, place + np.uint64(4)


@compiled
def put_bits(
    bits: np.uint64, held: np.uint64, value: np.uint64, size: np.uint64, out: Array, place: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Append the lower bits of a value.

    Parameters
    ----------
    bits, held, place
        The stream.
    value, size
        Number whose bits are appended, and how many, at most 32; it has no others.
    out
        Receives the bytes, uint8.
    """
    bits = (bits << size) | value
    held += size
    # At most 31 bits wait, so 32 more always fit into the 64.
    if held >= 32:
        return flush_bits(bits, held, out, place)
    return bits, held, place


@compiled
def end_bits(bits: np.uint64, held: np.uint64, out: Array, place: np.uint64) -> np.uint64:
    """Write all that is held, with the last byte filled up with zeros; return the place after it.

    Parameters
    ----------
    bits, held, place
        The stream.
    out
        Receives the bytes, uint8.
    """
    while held >= 8:
        held -= np.uint64(8)
        out[place] = bits >> held
        place += np.uint64(1)
    if held:
        out[place] = bits << (np.uint64(8) - held)
        place += np.uint64(1)
    return place


@compiled
def fill_bits(
    raw: Array, bits: np.uint64, held: np.uint64, place: np.uint64, stop: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Take bytes until more than 55 bits are held.

    Parameters
    ----------
    raw
        Bytes, uint8.
    bits, held, place, stop
        The stream.
    """
    # All eight bytes at once, without a test for each, except near the end.
    if place + np.uint64(8) <= stop:
        word = np.uint64(0)
        for k in range(8):
            word = (word << np.uint64(8)) | np.uint64(raw[place + np.uint64(k)])
        # Bits beyond the whole bytes taken are set too, and set again to the same by the next call.
        bits |= word >> held
        taken = (np.uint64(63) - held) >> np.uint64(3)
        return bits, held + (taken << np.uint64(3)), place + taken
    while held < np.uint64(56):
        byte = np.uint64(raw[place]) if place < stop else np.uint64(0)
        bits |= byte << (np.uint64(56) - held)
        held += np.uint64(8)
        place += np.uint64(1)
    return bits, held, place
