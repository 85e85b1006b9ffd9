"""Shards and inner chunks of any image, and windows of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.io.zarr.writer import ZarrArray, ZarrTarget, complete_store, open_arrays
from lazyccd.plan.chunks import shard_grid
from lazyccd.sections import Region


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    shard=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_grids_are_valid(shape: tuple[int, int], shard: tuple[int, int]) -> None:
    """Chunks divide shards; shards are as asked, or end with the image; chunks do not exceed 512 without need.

    Several chunks of one shard for the whole axis are of equal length and multiples of 8, or Blosc would shuffle no bits:
    they may end up to 7 pixels each behind the image (513 pixels: two of 264), where nothing but fill values is stored.
    """
    shards, chunks = shard_grid(shape, shard)
    for length, wanted, s, c in zip(shape, shard, shards, chunks, strict=True):
        assert s % c == 0
        assert s <= wanted or (wanted >= length and c % 8 == 0 and s < length + 8 * (s // c))
        assert s == wanted or length <= s < length + c
        assert c <= 512 or c == s


SHAPE = (1100, 1480)


@pytest.fixture(scope="module")
def images() -> dict[str, npt.NDArray[Any]]:
    """Return noise, random bits that no codec makes smaller, and sparse flags."""
    rng = np.random.default_rng(5)
    sparse = (rng.random(SHAPE) < 0.01).astype(np.uint16)
    return {"data": rng.normal(9, 1, SHAPE), "bits": rng.integers(0, 2**16, SHAPE, np.uint16), "mask": sparse}


@pytest.fixture(scope="module")
def store(images: dict[str, npt.NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store of chunks of 368 x 496 pixels, whose rows are no divisors of Blosc's blocks."""
    arrays = tuple(ZarrArray(name, image.dtype.name, 0) for name, image in images.items())
    target = ZarrTarget(str(tmp_path_factory.mktemp("a") / "a.zarr"), SHAPE, arrays, *shard_grid(SHAPE))
    assert target.chunks == (368, 496)
    target.create()
    target.add_group()
    for name, image in images.items():
        target.write(name, Region.full(SHAPE), image)
    target.finish_group()
    complete_store(target.store, ["0"], {"lazyccd": {"write_id": "a"}})
    return target.store


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_windows_of_chunks_of_several_blocks(
    images: dict[str, npt.NDArray[Any]], store: str, data: st.DataObject
) -> None:
    """Whatever part of a chunk is read, its pixels are those that were written."""
    name = data.draw(st.sampled_from(sorted(images)))
    y, x = (sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in SHAPE)
    window = Region(*y, *x)
    read = open_arrays(store).storages[name].open().read(window)
    np.testing.assert_array_equal(read, images[name][window.slices])
