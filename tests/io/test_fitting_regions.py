"""Writers choose smaller regions where the memory limit is too low for the usual ones; the pixels are the same."""

from __future__ import annotations

import gzip
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

import lazyccd
from lazyccd.errors import MemoryLimitError
from lazyccd.frame.core import resolve
from lazyccd.io.fits.write import regions_of
from lazyccd.plan.cost import BASELINE_BYTES

SIDE = 1100


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that is compressed as a whole, so that its frame is one chunk."""
    folder = tmp_path_factory.mktemp("packed")
    pixels = np.random.default_rng(3).normal(1000, 20, (SIDE, SIDE)).astype(np.float32)
    pixels.ravel()[:: SIDE + 7] += 3000
    fits.writeto(folder / "a.fits", pixels, fits.Header({"BUNIT": "adu"}))
    (folder / "a.fits.gz").write_bytes(gzip.compress((folder / "a.fits").read_bytes(), 1))
    return folder / "a.fits.gz"


def cleaned(packed: Path) -> xr.Dataset:
    """Return the frame without cosmic rays."""
    ds: xr.Dataset = lazyccd.cosmicray_lacosmic(lazyccd.open_fits(packed), gain=1.5, readnoise=5.0)
    return ds


def limit(mebibytes: int) -> dask.config.set:
    """Return the setting of a limit that leaves so much to tasks."""
    return dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + mebibytes * 2**20, "num_workers": 2})


def test_an_image_of_one_chunk_is_written_in_smaller_shards(packed: Path, tmp_path: Path) -> None:
    """Where the whole chunk would not fit, shards are smaller, no shard that is asked for is, and no pixel changes."""
    usual = lazyccd.to_zarr(cleaned(packed), tmp_path / "usual.zarr")
    with limit(16):
        ds = cleaned(packed)
        small = lazyccd.to_zarr(ds, tmp_path / "small.zarr")
        with pytest.raises(MemoryLimitError, match=f"a task on {SIDE} x {SIDE} pixels"):
            lazyccd.to_zarr(ds, tmp_path / "asked.zarr", shards=(SIDE, SIDE))
    sides = [lazyccd.open_zarr(store)["data"].data.chunksize[0] for store in (usual, small)]
    assert sides == [SIDE, 512]
    for name in ("data", "mask"):
        np.testing.assert_array_equal(lazyccd.open_zarr(small)[name], lazyccd.open_zarr(usual)[name])


def test_an_image_of_one_chunk_is_written_in_lower_bands(packed: Path, tmp_path: Path) -> None:
    """FITS too, with the same bytes."""
    usual = lazyccd.to_fits(cleaned(packed), tmp_path / "usual.fits")
    with limit(16):
        ds = cleaned(packed)
        small = lazyccd.to_fits(ds, tmp_path / "small.fits")
        assert max(region.shape.y for region in regions_of(resolve(ds), (1, 1))) < SIDE
        assert max(ds.ccd.plan().chunk) < SIDE
    assert Path(small).read_bytes() == Path(usual).read_bytes()


def test_cosmic_rays_of_a_small_image_keep_to_the_limit(packed: Path) -> None:
    """The whole image in one task is for limits that allow it; else tasks have a halo, and find the same."""
    with limit(500):
        whole = cleaned(packed)
    with limit(16):
        cut = cleaned(packed)
    assert (whole.ccd.plan().halo_rows, cut.ccd.plan().halo_rows) == (0, 41)
    xr.testing.assert_identical(whole.compute(), cut.compute())
