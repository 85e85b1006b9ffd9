"""Every scheduler gives the same bits: one thread, threads, processes, and a cluster of processes."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Polynomial1D
from dask.distributed import Client

import lazyccd
from lazyccd.errors import SourceChangedError
from lazyccd.testing.asserts import assert_frames_equal
from lazyccd.testing.steps import box_filter, formula_frame
from tests.frame.test_sky_footprint import make_wcs

SHAPE = (120, 150)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a raw image and a master bias."""
    path = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(1)
    fits.writeto(path / "raw.fits", rng.integers(0, 65535, SHAPE, np.uint16))
    fits.writeto(path / "bias.fits", rng.normal(300, 3, SHAPE).astype(np.float32))
    return path


def reduced(folder: Path) -> xr.Dataset:
    """Return a frame with every kind of step: files, masters, a model, a mean, dask arrays, a halo."""
    ds = lazyccd.open_fits(folder / "raw.fits", chunks=(40, 50))
    ds = lazyccd.subtract_overscan(ds, fits_section="[141:150,*]", model=Polynomial1D(1))
    ds = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 4 * u.electron, disregard_nan=True)
    ds = lazyccd.subtract_bias(ds, lazyccd.with_unit(lazyccd.open_fits(folder / "bias.fits"), "adu"))
    ds = lazyccd.add_mask(ds, dask.array.from_array(np.eye(*SHAPE), chunks=(33, 44)), "GHOST")
    ds = lazyccd.flat_correct(ds, formula_frame(SHAPE, (50, 50), seed=3, low=0.5, high=2.0))
    out: xr.Dataset = lazyccd.subtract(ds, box_filter(lazyccd.multiply(ds, 0.01), 2))
    return out


@pytest.fixture(scope="module")
def expected(folder: Path) -> xr.Dataset:
    """Return the frame computed by one thread."""
    return reduced(folder).compute(scheduler="sync")


def test_threads(folder: Path, expected: xr.Dataset) -> None:
    """Threads give the bits of one thread."""
    assert_frames_equal(reduced(folder).compute(scheduler="threads", num_workers=4), expected)


def test_processes(folder: Path, expected: xr.Dataset, processes: ProcessPoolExecutor) -> None:
    """Fresh processes find all kernels by name, and give the same bits."""
    with dask.config.set(pool=processes):
        assert_frames_equal(reduced(folder).compute(scheduler="processes"), expected)


def test_warps_of_threads_and_processes(processes: ProcessPoolExecutor) -> None:
    """16 threads, each with a WCS of its own, and two processes give the bits of one thread; the pole lies in the frame."""
    source = make_wcs("TAN-SIP", (30.0, 89.99), (120, 150), 1e-3, angle=20)
    ds = lazyccd.with_header(formula_frame((120, 150), (40, 50), seed=3), dict(source.to_header(relax=True)))
    target = make_wcs("ZEA", (122.932, 27.128), (130, 140), 1.3e-3, frame="galactic")
    warped = lazyccd.rechunk(lazyccd.wcs_project(ds, target, (130, 140), order="lanczos3"), (37, 41))
    expected = warped.compute(scheduler="sync")
    assert np.isfinite(expected.data.values).sum() > 3000
    assert_frames_equal(warped.compute(scheduler="threads", num_workers=16), expected)
    with dask.config.set(pool=processes):
        assert_frames_equal(warped.compute(scheduler="processes"), expected)


def test_cluster(client: Client, folder: Path, expected: xr.Dataset) -> None:
    """A cluster gives the same bits for the whole frame and for a part."""
    ds = reduced(folder)
    assert_frames_equal(ds.compute(), expected)
    assert_frames_equal(
        ds.isel(y=slice(30, 90), x=slice(None, None, -1)).compute(),
        expected.isel(y=slice(30, 90), x=slice(None, None, -1)),
    )


def test_persist_on_a_cluster(client: Client, folder: Path, expected: xr.Dataset) -> None:
    """Slices, operations and neighborhoods of a persisted frame read its chunks in the workers."""
    ds = reduced(folder).persist()
    assert_frames_equal(ds, expected)
    filtered = box_filter(lazyccd.rechunk(ds.isel(y=slice(5, 100)), (33, 150)), 2)
    wanted = box_filter(expected.isel(y=slice(5, 100)), 2)
    assert_frames_equal(filtered, wanted.compute(scheduler="sync"))


def test_persisted_and_lazy_together(client: Client, folder: Path, expected: xr.Dataset) -> None:
    """A persisted frame can be added to the same frame not persisted, which has the same names."""
    lazy = reduced(folder)
    total = lazyccd.add(lazy.persist(), lazy)
    np.testing.assert_array_equal(total["data"].values, 2 * expected["data"].values)


def test_writing_what_is_persisted(client: Client, tmp_path: Path) -> None:
    """While a stack is persisted, what needs other planes of its chunks, such as its variance, gets those and no others."""
    frames = [formula_frame(SHAPE, (120, 150), seed=seed, low=1.0, high=2.0) for seed in (1, 2, 3)]
    stack = lazyccd.combine(frames)
    expected = stack.compute(scheduler="sync")
    assert float(expected["uncertainty"].min()) > 0
    held = stack.persist()
    written = lazyccd.open_zarr(lazyccd.to_zarr(stack, tmp_path / "stack.zarr")).compute()
    assert_frames_equal(held.compute(), expected)
    for name in expected.data_vars:
        np.testing.assert_array_equal(written[name].values, expected[name].values)
    twice = lazyccd.multiply(stack, 2).compute()
    np.testing.assert_array_equal(twice["uncertainty"].values, 2 * expected["uncertainty"].values)


def test_settle_on_a_cluster(client: Client, folder: Path, expected: xr.Dataset) -> None:
    """The workers compute pending scalars, and `settle` puts them into the plan."""
    ds = reduced(folder).ccd.settle()
    assert "none" in str(ds.ccd.plan()).rsplit("pending scalars", 1)[1]
    assert_frames_equal(ds.compute(), expected)


def test_pickled_frames_cross_processes(client: Client, folder: Path, expected: xr.Dataset) -> None:
    """A pickled frame computes the same bits here and in a worker."""
    assert_frames_equal(pickle.loads(pickle.dumps(reduced(folder))).compute(), expected)
    # a lambda goes to the worker by value: it cannot import this module
    largest = client.submit(lambda ds: float(ds["data"].max().compute(scheduler="sync")), reduced(folder)).result()
    assert largest == float(expected["data"].max())


@pytest.mark.parametrize("writer", ["to_zarr", "to_fits"])
def test_writers_on_a_cluster(client: Client, folder: Path, tmp_path: Path, writer: str, expected: xr.Dataset) -> None:
    """Workers write one product together, with the same bits."""
    name = {"to_zarr": "a.zarr", "to_fits": "a.fits"}[writer]
    more: dict[str, Any] = {"shards": (64, 64)} if writer == "to_zarr" else {}
    getattr(lazyccd, writer)(reduced(folder), tmp_path / name, **more)
    back = lazyccd.as_frame(str(tmp_path / name))
    for variable in expected.data_vars:
        np.testing.assert_array_equal(back[variable].values, expected[variable].values)


def test_a_changed_file_is_noticed_in_a_worker(client: Client, folder: Path, tmp_path: Path) -> None:
    """A worker raises the error that names the file if it changed since it was opened."""
    path = tmp_path / "later.fits"
    path.write_bytes((folder / "raw.fits").read_bytes())
    ds = lazyccd.gain_correct(lazyccd.open_fits(path), 2.0)
    fits.writeto(path, np.zeros((2, 2), np.uint16), overwrite=True)
    with pytest.raises(SourceChangedError, match=r"later\.fits"):
        ds.compute()


@pytest.mark.usefixtures("client")
def test_a_relative_name_is_that_of_the_folder_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers, whose working folder is another, read and write stores that were named relative to that of this process."""
    monkeypatch.chdir(tmp_path)
    lazyccd.to_zarr(formula_frame(SHAPE, (50, 50)), "a.zarr")
    assert lazyccd.build_pyramid("a.zarr", 2) == 2
    opened = lazyccd.open_zarr("a.zarr", level=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert opened["data"].values.shape == (60, 75)
    assert list(Path().iterdir()) == []
