"""Stores with rounded floats: the error is that of the theory, and all that is no noise keeps its bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import ParameterError
from lazyccd.io.zarr.reader import root_attrs
from lazyccd.kernels.fits.quantize import round_chunks, tile_noise

SHAPE = (700, 1100)
QUIET = (slice(352, None), slice(736, None))
"""The last of the inner chunks, of 352 x 368 pixels; it has no noise."""

Array = npt.NDArray[Any]


def noisy(sigma: float = 10.0) -> xr.Dataset:
    """Return a frame of sky and noise with all variables, NaN and infinities, and a corner without noise."""
    rng = np.random.default_rng(3)
    data = rng.normal(1000, sigma, SHAPE).astype(np.float32)
    data[::97, ::89] = np.array([0x7FC12345], np.uint32).view(np.float32)
    data[5, 7], data[6, 7] = np.inf, 3e38
    data[QUIET] = np.float32(np.pi)
    std = np.sqrt(np.abs(data) / 1.7).astype(np.float32)
    mask = rng.integers(0, 4, SHAPE).astype(np.uint16)
    ds = xr.Dataset({"data": (("y", "x"), data, {"units": "electron"}), "mask": (("y", "x"), mask)})
    out: xr.Dataset = lazyccd.add_mask(ds, mask == 3).assign(
        uncertainty=(("y", "x"), std, {"units": "electron", "uncertainty_type": "std"})
    )
    return out


def test_error_is_that_of_the_theory(tmp_path: Path) -> None:
    """A step of a power of two below sigma / 4 adds step^2 / 12 of variance and no bias; the store says how much at most."""
    ds = noisy()
    plain = lazyccd.to_zarr(ds, tmp_path / "plain.zarr")
    store = lazyccd.to_zarr(ds, tmp_path / "a.zarr", quantize=4)
    again = xr.open_zarr(store, group="0", mask_and_scale=False)
    given, found = ds["data"].values, again["data"].values
    good = np.isfinite(given) & (given < 1e6)
    good[QUIET] = False
    error = (found[good] - given[good]).astype(float)
    assert np.ptp(found[good] % 2.0) == 0
    np.testing.assert_allclose(np.mean(error**2), 2.0**2 / 12, rtol=0.01)
    assert abs(error.mean()) < 4 * 2 / np.sqrt(12 * error.size)
    stated = root_attrs(store)["lazyccd"]["quantize"]
    assert stated["steps"] == 4
    assert found[good].std(dtype=float) / given[good].std(dtype=float) - 1 < stated["noise_increase"] < 0.0027
    assert "quantize" not in root_attrs(plain)["lazyccd"]
    sizes = [sum(p.stat().st_size for p in Path(s).rglob("0/data/c/*/*")) for s in (plain, store)]
    assert sizes[0] > 2.5 * sizes[1]


def test_what_is_no_noise_keeps_its_bits(tmp_path: Path) -> None:
    """NaN with its payload, infinities, huge values, pixels without noise, the mask; a step is taken for each chunk."""
    ds = noisy()
    again = lazyccd.open_zarr(lazyccd.to_zarr(ds, tmp_path / "a.zarr", quantize=2))
    given, found = ds["data"].values, again["data"].values
    kept = ~np.isfinite(given) | (given > 1e6)
    kept[QUIET] = True
    np.testing.assert_array_equal(given.view(np.uint32)[kept], found.view(np.uint32)[kept])
    assert (given != found)[~kept].mean() > 0.99
    np.testing.assert_array_equal(again["mask"], ds["mask"])
    relative = abs(again["uncertainty"].values[~kept] / ds["uncertainty"].values[~kept] - 1)
    assert 0 < relative.max() < 0.01


@pytest.mark.parametrize("chunks", [(700, 1100), (100, 37), (512, 300)])
def test_no_pixel_depends_on_the_chunks(tmp_path: Path, chunks: tuple[int, int]) -> None:
    """Nor on the scheduler: the shards are the same files."""
    stores = []
    for name, (ny, nx), scheduler in (("a", (600, 600), "sync"), ("b", chunks, "threads")):
        with dask.config.set(scheduler=scheduler):
            ds = noisy().chunk({"y": ny, "x": nx})
            stores.append(Path(str(lazyccd.to_zarr(ds, tmp_path / f"{name}.zarr", quantize=4))))
    first, second = ({str(p.relative_to(s)): p.read_bytes() for p in s.rglob("c/*/*")} for s in stores)
    assert len(first) == 3
    assert first == second


@given(
    st.sampled_from([np.float32, np.float64]),
    st.floats(-30, 30),
    st.floats(0.5, 100),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_rounding_by_reference(dtype: Any, power: float, steps: float, ny: int, nx: int) -> None:
    """Every value is the nearest multiple of the largest power of two that is small enough, at any scale."""
    pixels = (np.random.default_rng(ny * nx).normal(3, 1, (ny, nx)) * 10.0**power).astype(dtype)
    before = pixels.copy()
    found = round_chunks(pixels, (16, 16), steps)
    for y in range(0, ny, 16):
        for x in range(0, nx, 16):
            part = pixels[y : y + 16, x : x + 16].copy()
            noise = tile_noise(part)
            expected = part.astype(float)
            if noise > 0:
                step = 2.0 ** np.floor(np.log2(noise / steps))
                assert step <= noise / steps < 2 * step
                expected = np.rint(expected / step) * step
            np.testing.assert_array_equal(found[y : y + 16, x : x + 16], expected)
    np.testing.assert_array_equal(pixels, before)
    assert found.dtype == dtype


@pytest.mark.parametrize("quantize", [0, -1.0, np.nan, np.inf])
def test_steps_that_are_none(tmp_path: Path, quantize: float) -> None:
    """They are refused, and nothing is begun."""
    with pytest.raises(ParameterError, match="must be a positive number of steps"):
        lazyccd.to_zarr(noisy(), tmp_path / "a.zarr", quantize=quantize)
    assert not list(tmp_path.iterdir())
