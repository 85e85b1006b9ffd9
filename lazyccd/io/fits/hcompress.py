"""HCOMPRESS_1 tiles by the codec of astropy, one at a time.

Its C code keeps the state of the bit stream in static variables and lets other threads run meanwhile, so two calls at once
mix their bits: hence the lock.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io.fits.hdu.compressed._codecs import HCompress1

Array = npt.NDArray[Any]

_one_at_a_time = threading.Lock()


def hcompress(tile: Array) -> Array:
    """Compress a tile of signed integers, or of unsigned ones of 8 bits, without loss."""
    width = 4 if tile.itemsize < 4 else 8  # sums over a tile of longer integers need 64 bits
    codec = HCompress1(scale=0, smooth=False, bytepix=width, nx=tile.shape[0], ny=tile.shape[1])
    with _one_at_a_time:
        return np.frombuffer(codec.encode(tile.astype(f"i{width}")), np.uint8)


def hdecompress(data: Array, shape: tuple[int, int], scale: int, smooth: bool) -> Array:
    """Return the 32-bit integers of a tile.

    Raises
    ------
    ValueError
        Raised if the stream is not of the tile's shape: the codec writes as much as the stream says.
    """
    magic, ny, nx = struct.unpack_from(">2sii", data.data)
    if magic != b"\xdd\x99" or sorted((ny, nx)) != sorted(shape):
        raise ValueError(f"stream of {ny} x {nx} pixels for a tile of {shape[0]} x {shape[1]}")
    codec = HCompress1(scale=scale, smooth=smooth, bytepix=8, nx=shape[0], ny=shape[1])
    with _one_at_a_time:
        return np.asarray(codec.decode(data))
