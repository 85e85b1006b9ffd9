"""HCOMPRESS_1 against the codec of cfitsio that astropy has: the same bytes, and the same pixels of lossy streams, smoothed or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io.fits.hdu.compressed._codecs import HCompress1
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.kernels.fits.hcompress import HDECOMPRESS_ERRORS, hcompress, hcompress_bytes, hdecompress

Array = npt.NDArray[Any]

SHAPES = st.tuples(st.integers(4, 40), st.integers(4, 40)) | st.tuples(st.just(16), st.integers(4, 600))


def codec(tile: Array, scale: int = 0, *, smooth: bool = False, width: int = 8) -> HCompress1:
    """Return the codec for a tile."""
    return HCompress1(scale=scale, smooth=smooth, bytepix=width, nx=tile.shape[0], ny=tile.shape[1])


def encoded(tile: Array, scale: int = 0) -> Array:
    """Compress a tile by cfitsio's code."""
    width = 4 if tile.itemsize < 4 else 8
    return np.frombuffer(codec(tile, scale, width=width).encode(tile.astype(f"i{width}")), np.uint8)


def work(tile: Array) -> Array:
    """Return scratch memory for a tile."""
    return np.empty(tile.shape, np.int32 if tile.itemsize < 4 else np.int64)


def ours(tile: Array) -> Array:
    """Compress a tile, and see that no byte is written behind the room for it."""
    room = hcompress_bytes(tile.shape, tile.itemsize)
    out = np.full(room + 64, 77, np.uint8)
    size = hcompress(tile, work(tile), out[:room])
    assert size <= room
    assert np.all(out[room:] == 77)
    return out[:size]


def decoded(raw: Array, like: Array, *, smooth: bool = False) -> Array:
    """Decompress a tile."""
    out = np.empty(like.shape, np.int32)
    raw = np.frombuffer(raw.tobytes(), np.uint8)  # like bytes of a file, which cannot be written to
    assert hdecompress(raw, smooth, work(like), out) == 0
    return out


@st.composite
def tiles(draw: st.DrawFn) -> Array:
    """Draw noise of all bits, faint noise, a few sources, constants, slopes."""
    shape, dtype = draw(SHAPES), np.dtype(draw(st.sampled_from(["u1", "i2", "i4"])))
    rng, limits = np.random.default_rng(draw(st.integers(0, 999))), np.iinfo(dtype)
    kind = draw(st.sampled_from(["all bits", "noise", "sources", "lowest", "highest", "slope"]))
    if kind == "all bits":
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if kind == "noise":
        return rng.normal(100, 5, shape).astype(dtype)
    if kind == "sources":
        return ((rng.random(shape) < 0.03) * rng.integers(1, 120, shape)).astype(dtype)
    if kind == "slope":
        return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // 6).astype(dtype)
    return np.full(shape, limits.min if kind == "lowest" else limits.max, dtype)


@settings(max_examples=150, deadline=None)
@given(tile=tiles(), scale=st.sampled_from([2, 3, 7, 100]))
def test_bytes_and_pixels_are_those_of_cfitsio(tile: Array, scale: int) -> None:
    """Lossless streams are equal to the byte and give the tile back; lossy ones give the pixels that cfitsio makes of them."""
    stream = ours(tile)
    assert stream.tobytes() == encoded(tile).tobytes()
    np.testing.assert_array_equal(decoded(stream, tile), tile)
    lossy = encoded(tile, scale)
    for smooth in (False, True):
        expected = np.asarray(codec(tile, scale, smooth=smooth).decode(lossy)).reshape(tile.shape)
        np.testing.assert_array_equal(decoded(lossy, tile, smooth=smooth), expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4"])
def test_small_tiles_of_extremes_have_room(dtype: str) -> None:
    """Tiles of the least and the greatest number alone take the most bits a pixel, and small ones more than large ones."""
    rng, limits = np.random.default_rng(7), np.iinfo(dtype)
    for number in range(300):
        shape = 4 + number % 3, 4 + number // 3 % 3
        tile = np.where(rng.random(shape) < 0.5, limits.min, limits.max).astype(dtype)
        np.testing.assert_array_equal(decoded(ours(tile), tile), tile)


@settings(max_examples=50, deadline=None)
@given(cut=st.floats(0, 1), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_damaged_streams_end(cut: float, place: float, value: int) -> None:
    """Streams that are cut, or of which a byte is another, are refused or give some pixels; nothing is read beyond them."""
    tile = np.random.default_rng(1).normal(100, 30, (21, 33)).astype(np.int16)
    stream = ours(tile)
    out, known = np.empty(tile.shape, np.int32), {0, *HDECOMPRESS_ERRORS}
    some = np.frombuffer(stream[: int(cut * (stream.size - 8))].tobytes(), np.uint8)
    assert hdecompress(some, False, work(tile), out) in HDECOMPRESS_ERRORS
    stream[int(place * stream.size)] = value
    assert hdecompress(np.frombuffer(stream.tobytes(), np.uint8), True, work(tile), out) in known


@pytest.mark.parametrize("shape", [(33, 21), (20, 33)])
def test_streams_of_other_shapes_are_refused(shape: tuple[int, int]) -> None:
    """Only rows and columns may be exchanged, as some programs do."""
    tile = np.random.default_rng(1).normal(100, 30, (21, 33)).astype(np.int16)
    other = np.empty(shape, np.int32)
    stream = np.frombuffer(ours(tile).tobytes(), np.uint8)
    code = hdecompress(stream, False, np.empty(shape, np.int32), other)
    assert code == (0 if shape == (33, 21) else 1)
