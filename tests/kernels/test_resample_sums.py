"""Sums of resampling against NumPy, and at the end of the block, where eight columns do not fit any more."""

import numpy as np
import pytest

from lazyccd.kernels.resample.interpolate import mark_windows
from lazyccd.kernels.resample.sums import nine_sums, padded, pair_sums, weighted_sums


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("squared", [False, True])
def test_pairs_in_vectors_have_the_bits_of_single_ones(dtype: type, squared: bool) -> None:
    """Sums over two rows and columns do not depend on how many are made together, and none reads beyond the last pixel."""
    rng = np.random.default_rng(2)
    plane = rng.normal(100, 10, (5, 7)).astype(dtype)
    y, x = rng.integers(0, 4, 21), rng.integers(0, 6, 21)
    y[-1], x[-1] = 3, 5
    at = np.zeros((3, 21), np.uint32)
    at[0] = y * 7 + x
    fractions = rng.random((2, 21)).astype(dtype)
    together, alone = np.empty(21, dtype), np.empty(21, dtype)
    pair_sums(plane.reshape(-1), at, np.uint32(7), fractions, squared, together)
    for k in range(21):
        part = slice(k, k + 1)
        pair_sums(
            plane.reshape(-1),
            np.ascontiguousarray(at[:, part]),
            np.uint32(7),
            np.ascontiguousarray(fractions[:, part]),
            squared,
            alone[part],
        )
    assert together.tobytes() == alone.tobytes()
    d, b = fractions.astype(float)
    c, a = 1 - d, 1 - b
    a, b, c, d = (w**2 if squared else w for w in (a, b, c, d))
    exact = c * (a * plane[y, x] + b * plane[y, x + 1]) + d * (a * plane[y + 1, x] + b * plane[y + 1, x + 1])
    np.testing.assert_allclose(together, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("squared", [False, True])
def test_nines_in_vectors_have_the_bits_of_single_ones(dtype: type, squared: bool) -> None:
    """Sums over three rows and columns do not depend on whether a load of four pixels fits into the plane."""
    rng = np.random.default_rng(3)
    plane = rng.normal(100, 10, (6, 9)).astype(dtype)
    y, x = rng.integers(0, 4, 20), rng.integers(0, 7, 20)
    y[-1], x[-1] = 3, 6
    places = (y * 9 + x).astype(np.uint32)
    parts = rng.random((3, 3, 64))
    found = [np.empty(20) for _ in range(2)]
    # what lies behind the end has no part in the sum
    for out, behind in zip(found, (0, 8), strict=True):
        longer = np.concatenate([plane.reshape(-1), np.full(behind, np.nan, dtype)])
        nine_sums(longer, places, np.uint32(9), parts, squared, np.uint64(places.max()), out)
    assert found[0].tobytes() == found[1].tobytes()
    weights = parts[:, :, :20] ** 2 if squared else parts[:, :, :20]
    exact = sum(weights[j, i] * plane[y + j, x + i] for j in range(3) for i in range(3))
    np.testing.assert_allclose(found[0], exact, rtol=1e-12)
