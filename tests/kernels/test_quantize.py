"""Quantised floats: the noise is measured as published, errors are those of rounding, means stay true."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.kernels.fits.decode import dequantize, dither_table
from lazyccd.kernels.fits.quantize import BLANK, median_in_place, quantize, tile_noise

Array = npt.NDArray[Any]
TABLE = dither_table()


def there_and_back(tile: Array, steps: float, dither: int, first: int = 17) -> tuple[Array, float]:
    """Return what a reader gets, and the step."""
    integers = np.empty(tile.shape, np.int32)
    scale, zero = quantize(tile, integers, float(steps), TABLE, first, dither)
    out = np.empty(tile.size, tile.dtype)
    dequantize(integers.ravel(), out, scale, zero, TABLE, first, dither, BLANK, True)
    return out.reshape(tile.shape), scale


def test_noise_is_that_of_the_formula(rng: np.random.Generator) -> None:
    """The noise is 0.6052697 median abs(2 x[i] - x[i-2] - x[i+2]) over the rows, and near the true one on a slope."""
    tile = rng.normal(0, 7, (20, 500)) + np.linspace(0, 1e4, 500)
    differences = np.abs(2 * tile[:, 2:-2] - tile[:, :-4] - tile[:, 4:])
    assert tile_noise(tile) == pytest.approx(0.6052697 * np.median(differences), rel=1e-12)
    assert tile_noise(tile) == pytest.approx(7, rel=0.03)
    tile[3, 5:9] = np.nan
    assert tile_noise(tile) == pytest.approx(7, rel=0.03)
    assert tile_noise(np.full((3, 4), 2.0)) == tile_noise(np.full((3, 9), 2.0)) == 0


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("dither", [0, 1, 2])
def test_errors_are_those_of_rounding(rng: np.random.Generator, dtype: str, dither: int) -> None:
    """No pixel is off by more than half a step; NaN stays NaN, and zeros stay zeros by the second method."""
    tile = rng.normal(100, 10, (8, 4000)).astype(dtype)
    tile[2, 7:20] = np.nan
    tile[3, :50] = 0
    back, scale = there_and_back(tile, 4, dither)
    assert scale == pytest.approx(10 / 4, rel=0.05)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(tile))
    rounding = 1e-4 if dtype == "f4" else 1e-9
    assert np.nanmax(abs(back - tile)) <= scale * (0.5 + rounding)
    if dither:
        assert ((back == 0) == (tile == 0)).all() == (dither == 2)


def test_dithering_keeps_means(rng: np.random.Generator) -> None:
    """With steps as coarse as the noise, a level between two integers comes back within its error only with dithering."""
    tile = rng.normal(0.3, 1, (1, 40_000))
    for dither in (0, 1):
        back, scale = there_and_back(tile, 0.25, dither)
        biased = abs(back.mean() - tile.mean()) > 5 * scale / np.sqrt(12 * tile.size)
        assert biased == (dither == 0)


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 3000),
    kinds=st.sampled_from([2, 50, 10**6]),
    order=st.sampled_from(["drawn", "sorted", "falling", "organ pipe"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_medians_have_the_bits_of_numpy(size: int, kinds: int, order: str, dtype: type, seed: int) -> None:
    """Whatever the order, however many are equal; nothing is lost on the way."""
    values = np.random.default_rng(seed).integers(0, kinds, size).astype(dtype) / dtype(7)
    if order != "drawn":
        values = np.sort(values)[:: -1 if order == "falling" else 1]
    if order == "organ pipe":
        values = np.concatenate([values[::2], values[1::2][::-1]])
    given_values = np.ascontiguousarray(values)
    assert dtype(median_in_place(given_values)) == np.median(values)
    np.testing.assert_array_equal(np.sort(given_values), np.sort(values))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_tiles_that_cannot_be_quantised(rng: np.random.Generator, value: float) -> None:
    """Infinite pixels, values too far apart, and tiles without noise have scale 0."""
    tile = rng.normal(0, 1, (1, 100))
    tile[0, 50] = value
    integers = np.empty(tile.shape, np.int32)
    assert quantize(tile, integers, 4.0, TABLE, 0, 1)[0] == 0
    assert quantize(np.full((1, 100), 3.0), integers, 4.0, TABLE, 0, 1)[0] == 0
    assert quantize(np.full((1, 100), np.nan), integers, 4.0, TABLE, 0, 1)[0] == 0
