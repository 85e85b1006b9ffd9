"""RICE_1: byte for byte what cfitsio makes and reads; bytes that end too early are noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io.fits.hdu.compressed._codecs import Rice1
from hypothesis import given
from hypothesis import strategies as st

from lazyccd.kernels.fits.rice import rice_bytes, rice_decode, rice_encode

Array = npt.NDArray[Any]


def make(kind: str, shape: tuple[int, int], dtype: str, seed: int) -> Array:
    """Return pixels of which a kind of block is made: noise in all bits, constant, faint, spikes."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    if kind == "noise":
        return rng.integers(0, top, shape, dtype, endpoint=True)
    if kind == "constant":
        return np.full(shape, rng.integers(0, top, dtype=dtype, endpoint=True))
    if kind == "faint":
        return (rng.poisson(5, shape) + top // 3).astype(dtype)
    return np.where(rng.random(shape) < 0.03, top, np.array(7, dtype)).astype(dtype)


def encode(tiles: Array) -> tuple[Array, Array]:
    """Return the bytes and the length of each tile."""
    out = np.empty(len(tiles) * rice_bytes(tiles.shape[1], tiles.itemsize), np.uint8)
    lengths = np.empty(len(tiles), np.int64)
    total = rice_encode(tiles, out, lengths)
    assert total == lengths.sum()
    assert lengths.max() <= rice_bytes(tiles.shape[1], tiles.itemsize)
    return out[:total], lengths


@given(
    kind=st.sampled_from(["noise", "constant", "faint", "spikes"]),
    dtype=st.sampled_from(["u1", "u2", "u4"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 200)),
    seed=st.integers(0, 99),
)
def test_same_bytes_as_cfitsio(kind: str, dtype: str, shape: tuple[int, int], seed: int) -> None:
    """Tiles have the bytes that cfitsio's encoder makes of them, and come back."""
    tiles = make(kind, shape, dtype, seed)
    raw, lengths = encode(tiles)
    codec = Rice1(blocksize=32, bytepix=tiles.itemsize, tilesize=shape[1])
    assert raw.tobytes() == b"".join(codec.encode(tile.view(f"i{tiles.itemsize}")) for tile in tiles)
    stops = lengths.cumsum()
    back = np.empty_like(tiles)
    assert rice_decode(raw, stops - lengths, stops, 32, back) == -1
    np.testing.assert_array_equal(back, tiles)


@pytest.mark.parametrize("block", [1, 16, 33])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_blocks_of_other_sizes(block: int, dtype: str) -> None:
    """Files of other programs may have other blocks."""
    for kind in ("noise", "constant", "faint", "spikes"):
        tile = make(kind, (1, 145), dtype, 1)
        codec = Rice1(blocksize=block, bytepix=tile.itemsize, tilesize=145)
        raw = np.frombuffer(codec.encode(tile[0].view(f"i{tile.itemsize}")), np.uint8)
        back = np.empty_like(tile)
        assert rice_decode(raw, np.array([0]), np.array([raw.size]), block, back) == -1
        np.testing.assert_array_equal(back, tile)


@pytest.mark.parametrize("kind", ["noise", "constant", "faint", "spikes"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_bytes_that_end_too_early(kind: str, dtype: str) -> None:
    """Wherever a tile is cut, the tile is named; bytes behind the cut are never read."""
    tiles = make(kind, (3, 70), dtype, 2)
    raw, lengths = encode(tiles)
    stops = lengths.cumsum()
    for cut in range(1, int(lengths[1]) + 1):
        shorter = stops - np.array([0, cut, 0])
        assert rice_decode(raw, stops - lengths, shorter, 32, np.empty_like(tiles)) == 1


def test_any_bytes_are_pixels_or_an_error() -> None:
    """Random bytes end in pixels or in the number of the tile, never elsewhere."""
    rng = np.random.default_rng(0)
    found = set()
    for dtype in ("u1", "u2", "u4"):
        for _ in range(300):
            raw = rng.integers(0, 256, rng.integers(0, 80), np.uint8) & rng.choice(np.array([0, 1, 255], np.uint8))
            found.add(rice_decode(raw, np.array([0]), np.array([raw.size]), 32, np.empty((1, 50), dtype)))
    assert found == {-1, 0}
