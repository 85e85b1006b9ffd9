"""Functions that call kernels themselves give the bits of lazyccd's operations, and import none of the libraries behind them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd import ccdproc
from lazyccd.plan import threads

SHAPE = (70, 53)

Pixels = npt.NDArray[Any]


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def pixels(request: pytest.FixtureRequest) -> Pixels:
    """Make an image with hot pixels, rays at the edges too, and a pixel without a value."""
    rng = np.random.default_rng(7)
    image = rng.normal(200.0, 8.0, SHAPE)
    image[rng.integers(0, SHAPE[0], 40), rng.integers(0, SHAPE[1], 40)] += 900.0
    image[20:30, 11] = 0.0
    image[40, 17] = np.nan
    result: Pixels = image.astype(request.param)
    return result


@pytest.fixture(params=[threads.WORTH_PIXELS, 1], ids=["caller", "threads"])
def _workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH_PIXELS", request.param)


@pytest.mark.usefixtures("_workers")
@pytest.mark.parametrize("size", [1, 2, 5, 6, 21])
def test_filters_are_those_of_lazyccd(pixels: Pixels, size: int) -> None:
    """Medians and deviations of boxes have the same bits, edges and NaN included, in one part or several."""
    for name in ("median_filter", "background_deviation_filter"):
        found, expected = (getattr(package, name)(pixels.copy(), size) for package in (ccdproc, lazyccd))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("_workers")
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("names", [{}, {"ncmed": 4, "nlmed": 9, "ncsig": 8, "nlsig": 11, "lsigma": 5, "ngood": 3}])
def test_bad_pixels_are_those_of_lazyccd(pixels: Pixels, names: dict[str, int], columns: bool) -> None:
    """Both find the same pixels, whatever the boxes."""
    both = {"lsigma": 9, "hsigma": 9, **names}
    found = ccdproc.ccdmask(CCDData(pixels, unit=""), findbadcolumns=columns, **both)
    expected = lazyccd.ccdmask(pixels, findbadcolumns=columns, **both)
    assert found.dtype == bool
    assert found.any()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("words", [{}, {"sepmed": False, "cleantype": "idw"}, {"gain_apply": False, "satlevel": 900.0}])
def test_cosmic_rays_are_those_of_lazyccd(pixels: Pixels, words: dict[str, Any], masked: bool) -> None:
    """LA Cosmic flags the same pixels and replaces them by the same values, where whole neighbourhoods are bad too."""
    mask = np.zeros(SHAPE, bool)
    mask[5:14, 30:39] = masked
    ccd = CCDData(pixels, unit="adu", mask=mask if masked else None)
    both: dict[str, Any] = {"sigclip": 5, "gain": 1.5 * u.electron / u.adu, "readnoise": 4.0 * u.electron, **words}
    found = ccdproc.cosmicray_lacosmic(ccd, **both)
    expected = lazyccd.cosmicray_lacosmic(ccd, **both)
    assert found.data.dtype == expected.data.dtype
    assert found.mask.sum() > mask.sum()
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize("words", [{"sigclip": -1}, {"niter": 1.5}, {"objlim": np.nan}, {"cleantype": "best"}])
def test_wrong_arguments_are_refused_as_by_lazyccd(pixels: Pixels, words: dict[str, Any]) -> None:
    """What is no number that LA Cosmic can use raises lazyccd's own error."""
    with pytest.raises((ValueError, TypeError), match=next(iter(words))):
        ccdproc.cosmicray_lacosmic(pixels, **words)


SCRIPT = """
import sys
import numpy as np
import lazyccd.ccdproc as ccdproc
pixels = np.random.default_rng(0).normal(100.0, 5.0, (40, 40))
ccdproc.median_filter(pixels, 5)
ccdproc.background_deviation_filter(pixels, 5)
ccdproc.ccdmask(ccdproc.CCDData(pixels, unit=""))
ccdproc.cosmicray_median(pixels, 5.0, rbox=3)
ccdproc.cosmicray_lacosmic(pixels)
ccdproc.Combiner([ccdproc.CCDData(pixels, unit="adu")] * 3).median_combine()
print([name for name in ("dask", "distributed", "xarray") if name in sys.modules])
"""


def test_single_calls_import_neither_dask_nor_xarray() -> None:
    """Importing them takes a second, longer than these functions take for most images."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
