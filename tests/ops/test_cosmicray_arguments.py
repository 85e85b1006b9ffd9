"""Arguments of LA Cosmic: their units, and what is refused at the call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError, UnitError
from lazyccd.mask_planes import MaskSchema

CR = MaskSchema().bits("CR")
PIXELS = np.random.default_rng(14).normal(200.0, 10.0, (60, 70)).astype(np.float32)
PIXELS[5::9, 7::11] += 2000


def test_arguments_with_units() -> None:
    """Sky, background, variance, levels and saturation level are converted to the units of the data."""
    pixels = PIXELS
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu")), 41)
    sky_level = np.full(pixels.shape, 20.0, np.float32)
    milli = u.Unit("0.001 adu")
    plain = lazyccd.cosmicray_lacosmic(
        ds, gain=2.0, satlevel=30000.0, inbkg=sky_level, invar=pixels + 50, background=(1.0, 2.0)
    )
    for background in (sky_level * u.adu, CCDData(sky_level, unit="adu")):
        united = lazyccd.cosmicray_lacosmic(
            ds,
            gain=2.0 * u.electron / u.adu,
            satlevel=30000.0 * u.electron,
            inbkg=background,
            invar=(pixels + 50) * u.adu**2,
            background=[1000.0 * milli, 2.0 * u.adu**2],
        )
        np.testing.assert_array_equal(united["data"].values, plain["data"].values)
        np.testing.assert_array_equal(united["mask"].values, plain["mask"].values)
    assert ((plain["mask"].values & CR) != 0).sum() > 10
    numbers = [lazyccd.cosmicray_lacosmic(ds, pssl=pssl)["data"].values for pssl in (30.0, 30000.0 * milli)]
    np.testing.assert_array_equal(*numbers)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"psfk": np.ones((4, 5)), "fsmode": "convolve"}, ParameterError, r"\(4, 5\).*odd"),
        ({"psfk": np.ones((3, 3), int), "fsmode": "convolve"}, ArgumentTypeError, "int64.*floats"),
        ({"psfsize": 6, "fsmode": "convolve"}, ParameterError, "psfsize 6.*odd"),
        ({"psffwhm": 0.0, "fsmode": "convolve"}, ParameterError, "psffwhm 0"),
        ({"psfk": np.ones((4, 4))}, ParameterError, r"\(4, 4\).*odd"),
        ({"psfk": np.zeros((3, 3)), "fsmode": "convolve"}, ParameterError, "psfk adds up to 0"),
        ({"psfk": np.full((3, 3), np.nan), "fsmode": "convolve"}, ParameterError, "psfk adds up to nan"),
        ({"psfsize": "7", "fsmode": "convolve"}, ArgumentTypeError, "psfsize '7'"),
        ({"psfbeta": 0.0, "psfmodel": "moffat", "fsmode": "convolve"}, ParameterError, "psfbeta 0"),
        ({"sigclip": "5"}, ArgumentTypeError, "sigclip '5'.*number"),
        ({"sigclip": -4.0}, ParameterError, "sigclip -4"),
        ({"sigfrac": np.nan}, ParameterError, "sigfrac nan"),
        ({"objlim": [5.0, 6.0]}, ArgumentTypeError, r"objlim \[5.0, 6.0\]"),
        ({"satlevel": np.nan}, ParameterError, "satlevel nan"),
        ({"satlevel": 6e4 * u.s}, UnitError, "satlevel unit 's'.*electron"),
        ({"pssl": 3.0 * u.s}, UnitError, "pssl unit 's'.*adu"),
        ({"niter": -1}, ParameterError, "niter -1"),
        ({"niter": np.nan}, ParameterError, "niter nan"),
        ({"niter": 1.5}, ParameterError, "niter 1.5"),
        ({"cleantype": "mean"}, ParameterError, "'mean'.*meanmask"),
        ({"fsmode": "psf"}, ParameterError, "'psf'.*convolve"),
        ({"psfmodel": "airy"}, ParameterError, "'airy'.*moffat"),
        ({"engine": "numpy"}, ParameterError, "'numpy'.*astroscrappy"),
        ({"background": "chunk"}, ParameterError, "'chunk'.*'image'"),
        ({"engine": "astroscrappy", "cleantype": "median"}, ParameterError, "astroscrappy.*'median'"),
        ({"background": (1.0, "x")}, ArgumentTypeError, "background 'x'"),
        ({"gain": -1.0}, ParameterError, "gain.*above 0"),
        ({"gain": 0.0}, ParameterError, "gain.*above 0"),
        ({"gain": "1.5"}, ArgumentTypeError, "gain '1.5'"),
        ({"readnoise": np.inf}, ParameterError, "readnoise inf.*finite"),
        ({"gain": [1.0, 2.0] * u.electron / u.adu}, ArgumentTypeError, "gain_correct"),
        ({"readnoise": 5 * u.adu}, UnitError, "electron.*adu.*readnoise"),
        ({"gain": 1.0 * u.photon / u.adu}, UnitError, "ph / adu"),
        ({"inbkg": np.zeros((3, 4))}, ShapeError, r"\(3, 4\).*\(20, 20\)"),
        ({"inbkg": np.zeros((20, 20)) * u.s}, UnitError, "background unit 's'.*adu"),
        ({"inbkg": CCDData(np.zeros((20, 20)), unit="electron")}, UnitError, "background unit 'electron'.*adu"),
        ({"invar": np.zeros((20, 20)) * u.adu}, UnitError, "variance unit 'adu'.*adu2"),
        ({"invar": np.zeros(20)}, ShapeError, r"\(20,\).*\(20, 20\)"),
        ({"pssl": 3.0, "inbkg": np.zeros((20, 20))}, ParameterError, "pssl.*inbkg"),
        ({"use_uncertainty": True}, ParameterError, "create_deviation"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Mistakes are named at the call."""
    ds = lazyccd.from_ccddata(CCDData(PIXELS[:20, :20], unit="adu"))
    with pytest.raises(error, match=words):
        lazyccd.cosmicray_lacosmic(ds, **options)


def test_an_image_in_electrons_with_a_gain_is_warned_about() -> None:
    """As ccdproc does: the data may be corrected twice."""
    with pytest.warns(UserWarning, match="corrected twice"):
        lazyccd.cosmicray_lacosmic(lazyccd.from_ccddata(CCDData(PIXELS, unit="electron")), gain=2.0)
