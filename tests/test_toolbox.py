"""The code of ccdproc's page "Reduction toolbox" runs with ``import lazyccd as ccdproc`` and gives ccdproc's numbers.

Blocks of that page that need operations which lazyccd does not have yet are named in `WAITING`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData
from astropy.utils.data import get_pkg_data_filename

import lazyccd
from lazyccd.testing.parity import assert_same

WAITING = {
    "cosmicray_lacosmic": "Clean image: cosmic rays need neighbourhoods",
    "cosmicray_median": "Clean image: cosmic rays need neighbourhoods",
    "ccdmask": "Data quality: masks made from flats need neighbourhoods",
    "median_filter": "Filter and convolution: needs neighbourhoods",
}
"""Functions of the page that lazyccd does not have yet; the tests below go on without them."""

Results = dict[str, Any]


def gain_and_deviation(lib: Any, got: Results) -> None:
    """Run "Gain correct and create deviation image"."""
    img = np.random.default_rng(1).normal(loc=10, scale=0.5, size=(100, 232))
    data = CCDData(img, unit=u.adu)
    data_with_deviation = lib.create_deviation(data, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
    data_with_deviation.header["exposure"] = 30.0
    got["img"] = img
    got["data_with_deviation"] = data_with_deviation
    got["gain_corrected"] = lib.gain_correct(data_with_deviation, 1.5 * u.electron / u.adu)


def overscan(lib: Any, got: Results) -> None:
    """Run "Overscan subtraction"; the image is the one before the cosmic rays are cleaned."""
    cr_cleaned = got["gain_corrected"]
    got["oscan_python"] = lib.subtract_overscan(cr_cleaned, overscan=cr_cleaned[:, 200:], overscan_axis=1)
    got["oscan_fits"] = lib.subtract_overscan(cr_cleaned, fits_section="[201:232,1:100]", overscan_axis=1)
    poly_model = models.Polynomial1D(1)
    got["oscan_subtracted"] = lib.subtract_overscan(
        cr_cleaned, overscan=cr_cleaned[:, 200:], overscan_axis=1, model=poly_model
    )


def trim(lib: Any, got: Results) -> None:
    """Run "Trim an image"."""
    got["trimmed_fits"] = lib.trim_image(got["oscan_subtracted"], fits_section="[1:200, 1:100]")
    got["trimmed"] = lib.trim_image(got["oscan_subtracted"][:, :200])
    got["trimmed_beyond"] = lib.trim_image(got["oscan_subtracted"][:, :200000000])


def bias_and_dark(lib: Any, got: Results) -> None:
    """Run "Subtract bias and dark"."""
    trimmed = got["trimmed"]
    fake_bias_data = np.random.default_rng(2).normal(size=trimmed.shape)
    master_bias = CCDData(fake_bias_data, unit=u.electron, mask=np.zeros(trimmed.shape))
    got["bias_subtracted"] = lib.subtract_bias(trimmed, master_bias)
    master_dark = master_bias.multiply(0.1)
    master_dark.header["exposure"] = 15.0
    got["master_dark"] = master_dark
    got["dark_subtracted"] = lib.subtract_dark(
        got["bias_subtracted"], master_dark, exposure_time="exposure", exposure_unit=u.second, scale=True
    )


def flat(lib: Any, got: Results) -> None:
    """Run "Correct flat"."""
    fake_flat_data = np.random.default_rng(3).normal(loc=1.0, scale=0.05, size=got["trimmed"].shape)
    master_flat = CCDData(fake_flat_data, unit=u.electron)
    got["master_flat"] = master_flat
    got["reduced_image"] = lib.flat_correct(got["dark_subtracted"], master_flat)
    got["reduced_with_least_value"] = lib.flat_correct(got["dark_subtracted"], master_flat, min_value=0.9)


def single_command(lib: Any, got: Results) -> None:
    """Run "Basic processing with a single command"."""
    ccd = CCDData(got["img"], unit=u.adu)
    ccd.header["exposure"] = 30.0
    got["nccd"] = lib.ccd_process(
        ccd,
        oscan="[201:232,1:100]",
        trim="[1:200, 1:100]",
        error=True,
        gain=2.0 * u.electron / u.adu,
        readnoise=5 * u.electron,
        dark_frame=got["master_dark"],
        exposure_key="exposure",
        exposure_unit=u.second,
        dark_scale=True,
        master_flat=got["master_flat"],
    )


PAGE: tuple[Callable[[Any, Results], None], ...] = (
    gain_and_deviation,
    overscan,
    trim,
    bias_and_dark,
    flat,
    single_command,
)


def test_the_page_gives_the_same_numbers() -> None:
    """Every result on the way is ccdproc's, headers included."""
    ours: Results = {}
    theirs: Results = {}
    for part in PAGE:
        part(lazyccd, ours)
        part(ccdproc, theirs)
    assert len(ours) == 16
    for name, result in theirs.items():
        if not isinstance(result, CCDData):
            continue
        if name == "reduced_with_least_value":  # pixels below it are flagged here
            assert np.array_equal(ours[name].mask, theirs["master_flat"].data < 0.9)
            ours[name].mask = result.mask
        assert_same(ours[name], result, meta=name != "nccd")


def test_the_page_lazily() -> None:
    """The same calls on frames give lazy frames with these numbers."""
    expected: Results = {}
    for part in PAGE:
        part(lazyccd, expected)
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(expected["img"], unit="adu", meta={"exposure": 30.0})), (30, 77))
    ds = lazyccd.create_deviation(ds, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
    ds = lazyccd.gain_correct(ds, 1.5 * u.electron / u.adu)
    ds = lazyccd.subtract_overscan(ds, overscan=ds.isel(x=slice(200, None)), model=models.Polynomial1D(1))
    ds = lazyccd.trim_image(ds.isel(x=slice(200)))
    master = lazyccd.from_ccddata(expected["master_dark"])
    bias = lazyccd.multiply(master, 10)
    ds = lazyccd.subtract_bias(ds, bias)
    ds = lazyccd.subtract_dark(ds, master, exposure_time="exposure", exposure_unit=u.second, scale=True)
    ds = lazyccd.flat_correct(ds, expected["master_flat"])
    assert_same(lazyccd.to_ccddata(ds), expected["reduced_image"], rtol=1e-9, meta=False)


def test_bit_field_of_a_file(tmp_path: Path) -> None:
    """Run "Data quality flags": the bit field is an extension of the same file."""
    path = tmp_path / "some_fits_file.fits"
    pixels, quality = np.arange(12.0).reshape(3, 4), np.arange(12, dtype=np.int16).reshape(3, 4)
    primary = fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"}))
    fits.HDUList([primary, fits.ImageHDU(quality, name="BITFIELD")]).writeto(path)
    masks = []
    for lib in (lazyccd, ccdproc):
        ccd = CCDData.read(path)
        ccd.mask = lib.bitfield_to_boolean_mask(fits.getdata(path, "BITFIELD"))
        masks.append(ccd.mask)
    assert np.array_equal(masks[0], masks[1])
    assert masks[0].sum() == 11


def test_multi_extension_file(tmp_path: Path) -> None:
    """Run "Working with multi-extension FITS image files", on the files that come with ccdproc."""
    written = []
    for lib in (lazyccd, ccdproc):
        science_name = get_pkg_data_filename("data/science-mef.fits", package="ccdproc.tests")
        flat_name = get_pkg_data_filename("data/flat-mef.fits", package="ccdproc.tests")
        with fits.open(science_name) as science_mef, fits.open(flat_name) as flat_mef:
            new = [science_mef[0]]
            for science_hdu, flat_hdu in zip(science_mef[1:], flat_mef[1:], strict=True):
                unit = science_hdu.header["unit"]
                science = CCDData(data=science_hdu.data, header=science_hdu.header, unit=unit)
                flat_field = CCDData(data=flat_hdu.data, header=flat_hdu.header, unit=unit)
                science_cal = lib.flat_correct(science, flat_field)
                new.append(fits.ImageHDU(data=science_cal.data, header=science_cal.header))
            path = tmp_path / f"{lib.__name__}_cal.fits"
            fits.HDUList(new).writeto(path)
            written.append(path)
    with fits.open(written[0]) as ours, fits.open(written[1]) as theirs:
        assert len(ours) == len(theirs) > 2
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(mine.data, other.data, rtol=1e-6)
            assert [c.keyword for c in mine.header.cards] == [c.keyword for c in other.header.cards]


@pytest.fixture
def page(shared_data: Path) -> str:
    """Return the text of the page."""
    path = shared_data.parent / "docs" / "TOOLBOX.txt"
    if not path.exists():
        pytest.skip(f"the page is not there: no file {path}")
    return path.read_text()


def test_no_function_of_the_page_is_forgotten(page: str) -> None:
    """All functions that the page's code calls are called above, or are waiting."""
    called = set(re.findall(r"ccdproc\.(\w+)\(", page)) | {"bitfield_to_boolean_mask", "flat_correct"}
    here = set(re.findall(r"lib\.(\w+)\(", Path(__file__).read_text()))
    assert called - set(WAITING) == here & called
    assert not here & set(WAITING)
    assert all(not hasattr(lazyccd, name) for name in WAITING), "a function is there: run its block"
