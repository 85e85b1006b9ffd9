"""Shards and inner chunks of any image."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.io.zarrs import shard_grid


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
