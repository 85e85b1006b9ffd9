"""Distortions that are tables in other HDUs of a file: of frames and of grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS, DistortionLookupTable
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.errors import FrameError
from lazyccd.frame.core import resolve
from lazyccd.frame.sky_mapping import FrozenWCS
from lazyccd.ops.mosaic.warp import celestial_wcs

Array = npt.NDArray[Any]
SHAPE = (150, 180)


def tangent() -> WCS:
    """Return a WCS without distortion."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 2], [-1e-4, 1e-4]
    wcs.wcs.crpix = [90.0, 75.0]
    return wcs


def distorted() -> WCS:
    """Return a WCS with tables that move pixels by up to three, along both axes, and by those of the detector."""
    wcs = tangent()
    y, x = np.mgrid[:16, :19]
    bend = 3 * np.sin(x / 6) * np.cos(y / 7)
    wcs.cpdis1 = DistortionLookupTable(bend.astype(np.float32), (1.0, 1.0), (1.0, 1.0), (10.0, 10.0))
    wcs.cpdis2 = DistortionLookupTable((-0.6 * bend + 1).astype(np.float32), (1.0, 1.0), (1.0, 1.0), (10.0, 10.0))
    wcs.det2im1 = DistortionLookupTable((0.05 * bend).astype(np.float32), (1.0, 1.0), (1.0, 1.0), (10.0, 10.0))
    return wcs


def write(path: Path, data: Array) -> str:
    """Write an image with its tables."""
    hdus = distorted().to_fits()
    hdus[0].data = data
    hdus.writeto(path)
    return str(path)


def sky(wcs: WCS, y: Array, x: Array) -> Array:
    """Return a smooth image of the sky at pixels."""
    ra, dec = wcs.all_pix2world(x, y, 0)
    return np.sin((ra - 150) * 900) + np.cos((dec - 2) * 1100)


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Return the name of an image of the sky as its tables distort it."""
    return write(tmp_path / "a.fits", sky(distorted(), *np.indices(SHAPE).astype(float)))


@pytest.mark.parametrize("order", ["lanczos3", "bilinear"])
def test_frames_with_tables_are_resampled(name: str, order: Any) -> None:
    """The sky is where it is on a grid without distortion; without the tables it is far off."""
    grid = tangent()
    out = lazyccd.coadd([name], grid, SHAPE, order=order, unit="adu")["data"].values
    expected = sky(grid, *np.indices(SHAPE).astype(float))
    inner = np.s_[12:-12, 12:-12]
    assert np.isfinite(out[inner]).all()
    # areas of pixels change with the tables, and the flux of a pixel with them
    source = distorted()
    xs, ys = source.all_world2pix(*grid.all_pix2world(*np.indices(SHAPE)[::-1].astype(float), 0), 0)
    area = np.abs(np.gradient(xs, axis=1) * np.gradient(ys, axis=0) - np.gradient(xs, axis=0) * np.gradient(ys, axis=1))
    assert np.nanmedian(np.abs(out / area - expected)[inner]) < 0.01
    plain = lazyccd.open_fits(name, unit="adu").ccd.with_header(dict.fromkeys(("CPDIS1", "CPDIS2", "D2IMDIS1")))
    off = lazyccd.coadd([plain], grid, SHAPE, order=order)["data"].values
    assert np.nanmedian(np.abs(off / area - expected)[inner]) > 0.03


def test_grids_with_tables(name: str) -> None:
    """A frame on its own WCS is itself; through a grid with tables the sky is where these say."""
    out = lazyccd.coadd([name], distorted(), SHAPE, order="bilinear", unit="adu")["data"].values
    with fits.open(name) as hdus:
        np.testing.assert_allclose(out[5:-5, 5:-5], hdus[0].data[5:-5, 5:-5], atol=2e-3)


def test_a_part_of_a_frame_keeps_its_tables(name: str) -> None:
    """Cut and binned, each pixel has the place on the sky that it had."""
    whole = lazyccd.open_fits(name, unit="adu")
    wcs = celestial_wcs(resolve(whole))
    for part, y, x in (
        (whole.ccd.cutout(y=slice(20, 90), x=slice(30, 100)), 20 + 7.0, 30 + 11.0),
        (lazyccd.block_reduce(whole, (2, 3)), 14.5, 34.0),
    ):
        found = celestial_wcs(resolve(part)).all_pix2world([[11.0, 7.0]], 0)
        np.testing.assert_allclose(found, wcs.all_pix2world([[x, y]], 0), rtol=0, atol=1e-9)


def test_tables_survive_the_way_to_workers(name: str) -> None:
    """A frozen WCS has the same positions to rounding, and two processes give the bits of one."""
    wcs = distorted()
    again = FrozenWCS.of(FrozenWCS.of(wcs).make()).make()
    places = np.random.default_rng(1).uniform(0, 150, (50, 2))
    np.testing.assert_array_equal(again.all_pix2world(places, 0), wcs.all_pix2world(places, 0))
    mosaic = lazyccd.coadd([name], tangent(), SHAPE, unit="adu")
    expected = mosaic["data"].values
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        np.testing.assert_array_equal(mosaic["data"].values, expected)


def test_tables_that_are_nowhere() -> None:
    """A frame in memory whose header names tables is refused, with the way out."""
    header = distorted().to_fits()[0].header
    header["NAXIS"] = 2
    ds = lazyccd.from_ccddata(CCDData(np.ones((5, 5)), unit="adu", header=header))
    with pytest.raises(FrameError, match="tables in other HDUs of its file"):
        lazyccd.coadd([ds], tangent(), SHAPE)


def test_tables_of_a_ccddata_are_not_lost_in_silence() -> None:
    """The frame cannot hold them: its header says that there are some, and positions are refused instead of wrong."""
    ccd = CCDData(np.ones(SHAPE), unit="adu", wcs=distorted())
    ds = lazyccd.from_ccddata(ccd)
    with pytest.raises(FrameError, match="tables in other HDUs of its file"):
        lazyccd.coadd([ds], tangent(), SHAPE)
    with pytest.raises(FrameError, match="tables in other HDUs of its file"):
        lazyccd.wcs_project(ds, tangent(), SHAPE)
    with pytest.raises(FrameError, match="tables in other HDUs of its file"):
        _ = ds.ccd.wcs
    with pytest.warns(UserWarning, match="the CCDData has no WCS"):
        assert lazyccd.to_ccddata(ds.ccd.multiply(2)).wcs is None


def test_the_wcs_of_a_file_has_its_tables(name: str) -> None:
    """As astropy reads it, also after a cut, and in a CCDData."""
    ds = lazyccd.open_fits(name, unit="adu").ccd.cutout(y=slice(10, 90), x=slice(20, 100))
    expected = distorted().all_pix2world(40.0, 30.0, 0)
    for wcs in (ds.ccd.wcs, lazyccd.to_ccddata(ds).wcs):
        np.testing.assert_allclose(wcs.all_pix2world(20.0, 20.0, 0), expected, rtol=0, atol=1e-9)
