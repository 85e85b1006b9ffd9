"""xarray opens FITS files by its own functions: guessed by name, lazy with dask and without, the same pixels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from hypothesis import example, given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FormatError

SHAPE = (40, 50)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a FITS file with data, uncertainty and mask."""
    folder = tmp_path_factory.mktemp("engine")
    fits.writeto(folder / "raw.fits", np.random.default_rng(1).integers(0, 9000, SHAPE).astype(np.uint16))
    ds = lazyccd.create_deviation(lazyccd.open_fits(folder / "raw.fits"), 1.5 * u.electron / u.adu, 3 * u.electron)
    return Path(str(lazyccd.to_fits(lazyccd.flag_saturated(ds, 8000), folder / "a.fits")))


def test_guessed_and_lazy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine is named, no pixel is read before it is asked for, and then only those that are."""
    read: list[tuple[int, ...]] = []
    original = lazyccd.io.fits.plain_reader.PlainReader.read

    def counted(self: object, region: tuple[int, ...]) -> object:
        read.append(tuple(region))
        return original(self, region)

    monkeypatch.setattr(lazyccd.io.fits.plain_reader.PlainReader, "read", counted)
    ds = xr.open_dataset(path)
    part = ds["data"].isel(y=slice(5, 9), x=7)
    assert not read
    np.testing.assert_array_equal(part.values, fits.getdata(path)[5:9, 7])
    assert read == [(5, 9, 7, 8)]


def test_it_is_the_frame(path: Path) -> None:
    """Variables, attributes, planes and coordinates are those of open_fits; operations take it."""
    ds, frame = xr.open_dataset(path, engine="lazyccd"), lazyccd.open_fits(path)
    assert list(ds.data_vars) == ["data", "uncertainty", "mask"]
    for name in ds.data_vars:
        assert ds[name].dtype == frame[name].dtype
        assert ds[name].attrs == frame[name].attrs
        np.testing.assert_array_equal(ds[name], frame[name])
    assert ds.attrs == frame.attrs
    np.testing.assert_array_equal(lazyccd.gain_correct(ds, 2.0)["data"], lazyccd.gain_correct(frame, 2.0)["data"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ds))["data"], frame["data"])


def test_with_dask(path: Path) -> None:
    """Chunks are xarray's, which warns of those that are not the file's; {} takes those of the file."""
    with pytest.warns(UserWarning, match="separate the stored chunks"):
        ds = xr.open_dataset(path, chunks={"y": 16})
    assert ds["data"].chunks == ((16, 16, 8), (50,))
    np.testing.assert_array_equal(ds["uncertainty"], lazyccd.open_fits(path)["uncertainty"])
    assert xr.open_dataset(path, chunks={})["mask"].data.chunksize == lazyccd.open_fits(path)["mask"].data.chunksize


def test_options(path: Path, tmp_path: Path) -> None:
    """Extension, unit and type by name; several images are an error that lists them."""
    ds = xr.open_dataset(path, hdu="UNCERT", dtype="float64", unit="photon")
    assert (ds["data"].dtype, ds["data"].attrs["units"]) == (np.float64, "ph")
    assert "mask" not in xr.open_dataset(path, drop_variables="mask")
    images = [fits.ImageHDU(np.full((2, 3), k, np.float32), name=f"CCD{k}") for k in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header({"NIGHT": "x"})), *images]).writeto(tmp_path / "m.fits")
    with pytest.raises(FormatError, match=r"(?s)CCD1.*CCD2"):
        xr.open_dataset(tmp_path / "m.fits")
    tree = xr.open_datatree(tmp_path / "m.fits")
    assert list(tree.children) == ["CCD1", "CCD2"]
    assert float(tree["CCD2/data"][0, 0]) == 2
    assert tree.attrs == lazyccd.open_mef(tmp_path / "m.fits").attrs
    assert float(xr.open_datatree(tmp_path / "m.fits", engine="lazyccd", chunks={})["CCD1/data"].sum()) == 6


BOUND = st.none() | st.integers(-130, 130)
SLICE = st.builds(slice, BOUND, BOUND, st.integers(-60, 60).filter(bool))
LIST = st.lists(st.integers(-40, 39), min_size=1, max_size=5)


@given(rows=st.one_of(SLICE, st.integers(-40, 39), LIST), columns=st.one_of(SLICE, st.integers(-40, 39), LIST))
@example(rows=slice(-125, None, -7), columns=slice(None))
def test_any_index(path: Path, rows: object, columns: object) -> None:
    """Slices, numbers and lists select what they select of an array, within it and beyond its ends."""
    lazy = xr.open_dataset(path)["data"].isel(y=rows, x=columns)
    loaded = xr.DataArray(fits.getdata(path), dims=("y", "x")).isel(y=rows, x=columns)
    assert lazy.shape == loaded.shape
    np.testing.assert_array_equal(lazy.values, loaded.values)


@given(slices=st.lists(SLICE, min_size=1, max_size=3))
def test_slices_of_slices(path: Path, slices: list[slice]) -> None:
    """One after another they are what they are of a NumPy array."""
    lazy, loaded = xr.open_dataset(path)["data"], fits.getdata(path)
    for each in slices:
        lazy, loaded = lazy[each], loaded[each]
    np.testing.assert_array_equal(lazy.values, loaded)
