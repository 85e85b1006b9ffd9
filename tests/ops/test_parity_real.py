"""Pixels and headers of real cameras, and the rarer arguments, through every basic step: ccdproc's numbers and log entries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

import lazyccd
from lazyccd.testing.parity import assert_same, image

ELECTRON = u.electron
GAIN = 1.5 * ELECTRON / u.adu

Case = Callable[[Any, CCDData], CCDData]

REAL = {
    "EFOSC2": ("efosc2_ntt/EFOSC.2022-01-28T08:43:07.204.fits", 0, (500, 470)),
    "ISIS": ("isis_wht/r2701242.fit.gz", 1, (1600, 400)),
    "SBIG": ("tres1_oscaar/tres1-100.fit", 0, (300, 500)),
    "SAAO": ("ccdproc/a8280271.fits", 0, (250, 250)),
}
"""File, HDU, and first row and column of the part that is compared."""


@cache
def read(path: Path, hdu: int) -> tuple[Any, fits.Header]:
    """Return the pixels and the header of a real frame, as astropy reads them."""
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("ignore")  # what astropy says of old headers
        return hdus[hdu].data.astype(float), hdus[hdu].header.copy()


def part(folder: Path, name: str) -> CCDData:
    """Return 24 rows and 45 columns of a real frame, with its header and an uncertainty."""
    file, hdu, (y, x) = REAL[name]
    data, header = read(folder / file, hdu)
    data = data[y : y + 24, x : x + 45]
    header = header.copy()
    for key in ("COMMENT", "HISTORY", ""):
        header.remove(key, ignore_missing=True, remove_all=True)
    header["EXPOSURE"] = 30.0
    deviation = StdDevUncertainty(np.sqrt(data / 1.5 + 16))
    return CCDData(data, unit="adu", meta=header, uncertainty=deviation, mask=data > np.percentile(data, 98))


def master(level: float, **more: Any) -> CCDData:
    """Return a master of the part's shape."""
    return image(5, level=level, uncertainty="std", exposure=12.0, **more)


STEPS: dict[str, Case] = {
    "deviation": lambda lib, c: lib.create_deviation(c, gain=GAIN, readnoise=5 * ELECTRON),
    "deviation, negatives as zero": lambda lib, c: lib.create_deviation(
        c, gain=GAIN, readnoise=5 * ELECTRON, disregard_nan=True
    ),
    "gain": lambda lib, c: lib.gain_correct(c, GAIN),
    "gain, number": lambda lib, c: lib.gain_correct(c, 1.7, gain_unit=ELECTRON / u.adu),
    "trim": lambda lib, c: lib.trim_image(c, fits_section="[3:40,2:20]"),
    "bias": lambda lib, c: lib.subtract_bias(c, master(200)),
    "dark": lambda lib, c: lib.subtract_dark(c, master(20), exposure_time="exposure", exposure_unit=u.s, scale=True),
    "flat": lambda lib, c: lib.flat_correct(c, master(5), min_value=0.5),
    "flat, norm": lambda lib, c: lib.flat_correct(c, master(5), norm_value=4.5),
    "flip": lambda lib, c: lib.transform_image(c, np.fliplr),
    "process": lambda lib, c: lib.ccd_process(
        c,
        trim="[1:45,1:24]",
        error=True,
        gain=GAIN,
        readnoise=5 * ELECTRON,
        master_bias=master(200, unit="electron"),
        dark_frame=master(20, unit="electron"),
        master_flat=master(5),
        exposure_key="exposure",
        exposure_unit=u.s,
        dark_scale=True,
    ),
}


# docs/deviations.md: it warns of the WCS in a header too
@pytest.mark.filterwarnings("ignore:WCS information may be incorrect")
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("camera", REAL)
def test_real_pixels_and_headers(shared_data: Path, name: str, camera: str) -> None:
    """The same pixels, mask, uncertainty and unit, and the same cards in the same order, but for an array package."""
    ccd = part(shared_data, camera)
    before = ccd.copy()
    ours, theirs = STEPS[name](lazyccd, ccd), STEPS[name](ccdproc, ccd.copy())
    assert_same(ours, theirs, meta=False)
    assert list(ours.meta) == list(theirs.meta)
    assert {
        key for key in theirs.meta if ours.meta[key] != theirs.meta[key] and "xp=" not in str(theirs.meta[key])
    } == set()
    assert_same(ccd, before, rtol=0)


@pytest.mark.parametrize("camera", REAL)
def test_overscan_of_real_frames(shared_data: Path, camera: str) -> None:
    """Levels of a strip without bad pixels, mean and median, with and without a model."""
    ccd = part(shared_data, camera)
    ccd.mask = None
    for more in ({}, {"median": True}, {"model": "polynomial"}):
        results = []
        for lib in (lazyccd, ccdproc):
            chosen = dict(more)
            if "model" in chosen:
                chosen["model"] = lib_model()
            results.append(lib.subtract_overscan(ccd, fits_section="[38:45,1:24]", **chosen))
        assert_same(results[0], results[1], meta=False)


def lib_model() -> Any:
    """Return a linear model, a new one for each library."""
    from astropy.modeling import models

    return models.Polynomial1D(2)


RARE: dict[str, Case] = {
    "bias of one row": lambda lib, c: lib.subtract_bias(c, image(2, shape=(1, 45), level=100)),
    "bias of one column": lambda lib, c: lib.subtract_bias(c, image(2, shape=(24, 1), level=100)),
    "bias in another unit": lambda lib, c: lib.subtract_bias(
        c, image(2, level=0.1, unit=1000 * u.adu, uncertainty="std")
    ),
    "dark, numbers with a unit": lambda lib, c: lib.subtract_dark(
        c, master(20), dark_exposure=12.0 * u.s, data_exposure=0.5 * u.min, scale=True
    ),
    "dark in another unit": lambda lib, c: lib.subtract_dark(
        c, image(3, level=0.02, unit=1000 * u.adu), dark_exposure=1 * u.s, data_exposure=2 * u.s, scale=True
    ),
    "overscan as an image": lambda lib, c: lib.ccd_process(c, oscan=c[:, 37:], trim="[1:37,1:24]"),
    "overscan fitted to its mean": lambda lib, c: lib.ccd_process(
        c, oscan=c[:, 37:], oscan_model=lib_model(), oscan_median=False
    ),
    "gain map": lambda lib, c: lib.gain_correct(
        c, np.linspace(1, 2, 45)[None, :] * np.ones((24, 1)) * ELECTRON / u.adu
    ),
    "whole trim": lambda lib, c: lib.trim_image(c),
}


@pytest.mark.parametrize("name", RARE)
@pytest.mark.parametrize("uncertainty", [None, "std"])
def test_rarer_arguments(name: str, uncertainty: str | None) -> None:
    """Broadcast masters, units that convert, images as overscan, gain maps."""
    ccd = image(1, uncertainty=uncertainty)
    assert_same(RARE[name](lazyccd, ccd), RARE[name](ccdproc, ccd.copy()), meta=False)


@pytest.mark.parametrize("kind", ["var", "ivar"])
@pytest.mark.parametrize("step", ["subtract_bias", "flat_correct"])
def test_masters_with_the_same_kind_of_uncertainty(kind: str, step: str) -> None:
    """Variances with variances, inverse variances with inverse variances: ccdproc's class and numbers."""
    ccd, other = image(1, uncertainty=kind), image(2, uncertainty=kind, level=700)
    ours, theirs = (getattr(lib, step)(ccd, other) for lib in (lazyccd, ccdproc))
    assert type(ours.uncertainty) is type(theirs.uncertainty)
    assert_same(ours, theirs)


LOGGED: dict[str, Callable[..., CCDData]] = {
    "create_deviation": lambda lib, c, **k: lib.create_deviation(c, gain=GAIN, readnoise=5 * ELECTRON, **k),
    "subtract_overscan": lambda lib, c, **k: lib.subtract_overscan(c, fits_section="[38:45,*]", **k),
    "trim_image": lambda lib, c, **k: lib.trim_image(c, fits_section="[1:9,*]", **k),
    "subtract_bias": lambda lib, c, **k: lib.subtract_bias(c, image(2), **k),
    "subtract_dark": lambda lib, c, **k: lib.subtract_dark(c, image(2), 2 * u.s, 3 * u.s, scale=True, **k),
    "gain_correct": lambda lib, c, **k: lib.gain_correct(c, GAIN, **k),
    "flat_correct": lambda lib, c, **k: lib.flat_correct(c, image(2), **k),
    "transform_image": lambda lib, c, **k: lib.transform_image(c, np.flipud, **k),
    "ccd_process": lambda lib, c, **k: lib.ccd_process(c, oscan="[38:45,*]", **k),
}

FORMS: dict[str, Callable[[Any], Any]] = {
    "default": lambda lib: {},
    "no": lambda lib: {"add_keyword": False},
    "text": lambda lib: {"add_keyword": "done"},
    "mapping": lambda lib: {"add_keyword": {"done": True, "who": "me"}},
    "Keyword": lambda lib: {"add_keyword": lib.Keyword("done", value="yes")},
}


@pytest.mark.parametrize("step", LOGGED)
@pytest.mark.parametrize("auto", [True, False])
def test_what_each_step_logs(step: str, auto: bool) -> None:
    """Every form of ``add_keyword`` of every step, into a dictionary and into a FITS header, with and without logging."""
    for name, form in FORMS.items():
        for header in (dict, fits.Header):
            metas = []
            for lib in (lazyccd, ccdproc):
                ccd = image(1)
                ccd.meta = header({"EXPOSURE": 30.0})
                with lib.conf.set_temp("auto_logging", auto):
                    metas.append(LOGGED[step](lib, ccd, **form(lib)).meta)
            assert list(metas[0]) == list(metas[1]), name
            for key, value in metas[1].items():
                if "xp=" not in str(value) and " at 0x" not in str(value):
                    assert metas[0][key] == value, (name, key)


VALUES = (None, "R", 3, 3.5, 3 * u.s, 2 * u.m)


@pytest.mark.parametrize("unit", [None, u.s])
@pytest.mark.parametrize("value", VALUES)
def test_keyword(unit: Any, value: Any) -> None:
    """`Keyword` holds what ccdproc's does, given at once, later, or by a header, and refuses the same.

    A number in a header without a unit is the number here: docs/deviations.md.
    """
    seen = []
    for lib in (lazyccd, ccdproc):
        tries: list[Any] = []
        for make in (_given, _set, _read)[: 3 if unit or isinstance(value, str) else 2]:
            try:
                keyword = make(lib.Keyword, unit, value)
                tries.append((keyword.name, keyword.unit, keyword.value))
            except ValueError:
                tries.append("refused")
        seen.append(tries)
    assert seen[0] == seen[1]


def _given(kind: Any, unit: Any, value: Any) -> Any:
    return kind("exposure", unit=unit, value=value)


def _set(kind: Any, unit: Any, value: Any) -> Any:
    keyword = kind("exposure", unit=unit)
    keyword.value = value
    return keyword


def _read(kind: Any, unit: Any, value: Any) -> Any:
    keyword = kind("exposure", unit=unit)
    assert keyword.value_from({"exposure": value}) == keyword.value
    return keyword


@pytest.mark.parametrize("step", ["subtract_bias", "flat_correct"])
def test_integers_do_not_wrap(step: str) -> None:
    """docs/deviations.md: uint16 images give what their values as numbers give, not what is left of them in 16 bits."""
    rng = np.random.default_rng(3)
    pixels, level = rng.integers(40000, 65000, (24, 45)), rng.integers(50000, 65000, (24, 45))
    deviation = StdDevUncertainty(np.full((24, 45), 40.0))
    results = []
    for lib, dtype in ((lazyccd, np.uint16), (ccdproc, float)):
        ccd = CCDData(pixels.astype(dtype), unit="adu", uncertainty=deviation)
        results.append(getattr(lib, step)(ccd, CCDData(level.astype(dtype), unit="adu", uncertainty=deviation)))
    assert_same(*results, rtol=1e-6, meta=False)


def test_overscan_in_other_units() -> None:
    """An overscan image is converted to the units of the frame; what cannot be is refused."""
    ccd, strip = image(1), image(2, level=1.0, shape=(24, 8), unit=1000 * u.adu)
    expected = ccdproc.subtract_overscan(ccd, overscan=CCDData(strip.data * 1000, unit="adu"))
    assert_same(lazyccd.subtract_overscan(ccd, overscan=strip), expected, meta=False)
    with pytest.raises(lazyccd.errors.UnitError, match=r"overscan.*electron.*adu"):
        lazyccd.subtract_overscan(ccd, overscan=image(2, shape=(24, 8), unit="electron"))
