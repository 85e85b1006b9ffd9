"""Sums of resampling against NumPy, and at the end of the block, where eight columns do not fit any more."""

import numpy as np
import pytest

from lazyccd.kernels.resample.interpolate import mark_windows
from lazyccd.kernels.resample.sums import padded, weighted_sums


@pytest.mark.parametrize("taps", [(4, 4), (6, 6), (10, 12)])
def test_sums_at_the_end_have_the_bits_of_others(taps: tuple[int, int]) -> None:
    """A sum is the same whether pixels follow its last one or not, and it is that of NumPy."""
    rng = np.random.default_rng(taps[0])
    plane = rng.normal(100, 10, (taps[0] + 2, taps[1] + 3)).astype(np.float32)
    tables = []
    for size in taps:
        table = np.zeros((1, padded(size)), np.float32)
        table[0, :size] = rng.normal(size=size)
        tables.append(table.reshape(-1))
    firsts = np.indices((3, 4)).reshape(2, -1)
    at = np.zeros((3, 12), np.uint32)
    at[0] = firsts[0] * plane.shape[1] + firsts[1]
    exact = np.array(
        [
            tables[0][: taps[0]].astype(float) @ plane[y : y + taps[0], x : x + taps[1]] @ tables[1][: taps[1]]
            for y, x in firsts.T
        ]
    )
    found = [np.empty(12, np.float32) for _ in range(2)]
    # what lies behind the end has no weight, and no part in the sum
    for out, behind in zip(found, (0, 64), strict=True):
        longer = np.concatenate([plane.reshape(-1), np.full(behind, 1e30, np.float32)])
        weighted_sums(longer, at, np.uint32(plane.shape[1]), tables[0], tables[1], taps, out)
    assert found[0].tobytes() == found[1].tobytes()
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-4 * np.abs(plane).max())


def test_windows_hold_the_flags_of_their_pixels() -> None:
    """A window is flagged where one of its pixels is."""
    flags = (np.random.default_rng(0).random((20, 30)) > 0.97).astype(np.uint8)
    windows = np.empty_like(flags)
    mark_windows(flags, (6, 4), windows)
    expected = [[flags[y : y + 6, x : x + 4].max() for x in range(30)] for y in range(20)]
    np.testing.assert_array_equal(windows, expected)
