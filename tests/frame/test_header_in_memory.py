"""Header, WCS and plan of a frame are those of what it is now; products name lazyccd."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

import lazyccd as lz
from lazyccd.errors import ArgumentTypeError, LazyCCDError, ParameterError, SectionError

SOFTWARE = f"lazyccd {importlib.metadata.version('lazyccd')}"


def sky() -> fits.Header:
    """Return the header of a small image on the sky."""
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 15.0, "CRPIX2": 10.0})
    header.update({"CRVAL1": 10.0, "CRVAL2": 20.0, "CDELT1": -1e-3, "CDELT2": 1e-3, "BUNIT": "adu"})
    return header


@pytest.fixture
def ds(tmp_path: Path) -> xr.Dataset:
    """Return a frame of a file, of 16-bit integers with BZERO."""
    fits.writeto(tmp_path / "a.fits", np.full((20, 30), 7, np.uint16), sky())
    return lz.open_fits(tmp_path / "a.fits")


STEPS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "as opened": lambda ds: ds,
    "cut-out": lambda ds: ds.ccd.cutout(y=slice(3, 9), x=slice(5, 30)),
    "cut-out of a section": lambda ds: ds.ccd.cutout("[6:,4:9]"),
    "trim at the origin": lambda ds: lz.trim_image(ds, "[:12,:10]"),
    "flip": lambda ds: lz.trim_image(ds, "[-*,*]"),
    "every second": lambda ds: lz.trim_image(ds, "[*:2,*]"),
    "binning": lambda ds: lz.block_average(ds, 2),
    "replication": lambda ds: lz.block_replicate(ds, 2),
    "gain": lambda ds: lz.gain_correct(ds, 2 * u.electron / u.adu),
    "unit": lambda ds: lz.with_unit(ds, "electron"),
    "a chain": lambda ds: lz.block_average(lz.gain_correct(lz.trim_image(ds, "[5:24,:]"), 2 * u.electron / u.adu), 5),
}


@pytest.mark.parametrize("step", STEPS)
def test_header_and_wcs_agree_with_the_frame(ds: xr.Dataset, step: str) -> None:
    """Shape and unit are those of the pixels, lazy and as CCDData; the footprint is that of the corners."""
    frame = STEPS[step](ds)
    ny, nx = frame["data"].shape
    for header, wcs in ((frame.ccd.header, frame.ccd.wcs), (frame.ccd.to_ccddata().header, frame.ccd.to_ccddata().wcs)):
        assert (header["NAXIS"], header["NAXIS1"], header["NAXIS2"]) == (2, nx, ny)
        assert u.Unit(header["BUNIT"]) == frame.ccd.unit
        assert wcs.pixel_shape == (nx, ny)
        corners = wcs.pixel_to_world_values([0, 0, nx - 1, nx - 1], [0, ny - 1, ny - 1, 0])
        np.testing.assert_allclose(wcs.calc_footprint(), np.transpose(corners))
    assert frame.attrs["header"].split("\n")[:5] == ds.attrs["header"].split("\n")[:5], "what was read stays as it was"


def test_a_level_of_a_pyramid_has_its_own_shape(ds: xr.Dataset, tmp_path: Path) -> None:
    """The WCS of a level covers the same sky by fewer pixels."""
    lz.to_zarr(ds, tmp_path / "a.zarr")
    lz.build_pyramid(tmp_path / "a.zarr", levels=2)
    levels = [lz.open_zarr(tmp_path / "a.zarr", level=level) for level in (0, 1)]
    shapes = [level.ccd.wcs.pixel_shape for level in levels]
    assert shapes == [(30, 20), (15, 10)]
    assert [(level.ccd.header["NAXIS1"], level.ccd.header["NAXIS2"]) for level in levels] == shapes


def test_a_ccddata_comes_back_with_its_own_shape() -> None:
    """Its WCS has the shape of the part, also where the whole had none."""
    ccd = CCDData(np.ones((20, 30)), unit="adu", wcs=WCS(sky()))
    assert lz.trim_image(ccd, "[11:,:5]").wcs.pixel_shape == (20, 5)


def test_a_header_without_an_image_stays_as_it_is() -> None:
    """No card is made up, and a header that agrees is the text that was read."""
    ds = lz.from_ccddata(CCDData(np.ones((2, 3)), unit="adu", meta={"GAIN": 1.5}))
    assert list(ds.ccd.header) == ["GAIN"]


@pytest.mark.parametrize("compress", [None, "RICE_1"])
def test_products_name_the_software(ds: xr.Dataset, tmp_path: Path, compress: str | None) -> None:
    """CREATOR of a FITS file and a store; what another program wrote there is in HISTORY, once."""
    raw = lz.with_header(ds, CREATOR="camera 1.2")
    path = lz.to_fits(raw, tmp_path / "b.fits", compress=compress)
    header = fits.getheader(path, 0 if compress is None else 1)
    assert header["CREATOR"] == SOFTWARE
    assert list(header["HISTORY"]) == ["CREATOR was camera 1.2"]
    again = fits.getheader(lz.to_fits(lz.open_fits(path), tmp_path / "c.fits"))
    assert again["CREATOR"] == SOFTWARE
    assert list(again["HISTORY"]) == ["CREATOR was camera 1.2"]
    lz.to_zarr(raw, tmp_path / "b.zarr")
    assert (
        f"CREATOR = '{SOFTWARE}'"
        in xr.open_zarr(tmp_path / "b.zarr", group="0", consolidated=False).attrs["product_header"]
    )


def test_a_file_of_several_names_the_software_once(tmp_path: Path) -> None:
    """In the primary header."""
    images = [fits.ImageHDU(np.ones((2, 3), np.float32), name=name) for name in "AB"]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    path = lz.to_fits(lz.open_mef(tmp_path / "a.fits"), tmp_path / "b.fits")
    assert [fits.getheader(path, i).get("CREATOR") for i in range(3)] == [SOFTWARE, None, None]


def test_the_plan_counts_what_lies_below_stacks(tmp_path: Path) -> None:
    """Every pixel of every file is read once, in as many tasks as there are; a reader of a stack adds its own."""
    for i in range(5):
        fits.writeto(tmp_path / f"{i}.fits", np.full((40, 30), i, np.float32))
    pixels = 40 * 30 * 4
    stack = lz.combine(f"{tmp_path}/*.fits")
    plan = stack.ccd.plan()
    assert plan.read_bytes == 5 * pixels
    assert sum("read" in step for step in plan.steps) == 5
    assert plan.tasks == 1
    reader = lz.subtract_bias(lz.open_fits(tmp_path / "0.fits"), stack).ccd.plan()
    assert (reader.read_bytes, reader.tasks) == (6 * pixels, 2)
    assert reader.steps[-1] == "add scaled"
    # a stack of stacks has both below it, and what two of its inputs share only once
    both = lz.combine([lz.subtract_bias(lz.open_fits(tmp_path / f"{i}.fits"), stack) for i in (1, 2)]).ccd.plan()
    assert (both.read_bytes, both.tasks) == (7 * pixels, 2)


BAD: dict[str, tuple[Callable[[xr.Dataset], Any], type[LazyCCDError], str]] = {
    "numbers for a position": (
        lambda f: f.ccd.cutout(900, 400),
        ArgumentTypeError,
        r"position 900 .*y=slice\(y0, y1\)",
    ),
    "a number for a range": (
        lambda f: f.ccd.cutout(y=900),
        ArgumentTypeError,
        r"y = 900 must be a slice.*slice\(100, 200\)",
    ),
    "text in a range": (
        lambda f: f.ccd.cutout(x=slice("a", 3)),
        ArgumentTypeError,
        "x start 'a' must be a single number",
    ),
    "part of a pixel": (lambda f: f.ccd.cutout(x=slice(0, 2.5)), ParameterError, "x stop 2.5 must be a whole number"),
    "a size alone": (lambda f: f.ccd.cutout(size=3), ParameterError, "no position"),
    "section and range": (lambda f: f.ccd.cutout("[1:2,1:2]", y=slice(1)), ParameterError, "one or the other"),
    "section outside": (lambda f: f.ccd.cutout("[11:,1:99]"), SectionError, r"1\.\.99, outside of the image's 1\.\.20"),
    "explain outside": (
        lambda f: f.ccd.explain(900, 3),
        SectionError,
        r"y = 900 is not in the frame, whose y goes from 0 to 19",
    ),
    "explain text": (lambda f: lz.explain(f, "a", 3), ArgumentTypeError, "y 'a' must be a single number"),
    "explain nowhere": (lambda f: lz.explain(f, 1, np.nan), ParameterError, "x nan must be a number"),
    "explain infinity": (lambda f: lz.explain(f, 1, np.inf), SectionError, "x = inf is not in the frame"),
    "pixel outside": (lambda f: f.ccd.pixel(3, -1), SectionError, "x = -1 is not in the frame"),
    "an uncertainty": (
        lambda f: lz.with_uncertainty(f, VarianceUncertainty(np.ones((20, 30)))),
        ArgumentTypeError,
        r"got a VarianceUncertainty .*pass uncertainty\.array",
    ),
    "its class": (
        lambda f: lz.with_uncertainty(f, StdDevUncertainty),
        ArgumentTypeError,
        "got a .*uncertainty_type='std'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told_clearly(ds: xr.Dataset, case: str) -> None:
    """The error is one of lazyccd's, names the value, and says what to do."""
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call(ds)
