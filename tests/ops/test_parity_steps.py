"""Each basic step gives ccdproc's pixels, masks, uncertainties, units and log entries, for every argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData

import lazyccd
from lazyccd.testing.parity import UNCERTAINTIES, assert_same, image

ELECTRON = u.electron
GAIN = 1.5 * u.electron / u.adu
SECONDS = {"exposure_time": "exposure", "exposure_unit": u.s}

Case = Callable[[Any, CCDData], CCDData]


def keyword(lib: Any, name: str, **more: Any) -> Any:
    """Return the Keyword of a library."""
    return lib.Keyword(name, **more)


def bias(**more: Any) -> CCDData:
    """Return a master bias."""
    return image(2, level=100, uncertainty="std", **({"masked": True} | more))


def dark(**more: Any) -> CCDData:
    """Return a master dark."""
    return image(3, level=20, uncertainty="std", masked=True, **({"exposure": 12.0} | more))


def flat(**more: Any) -> CCDData:
    """Return a master flat."""
    return image(4, level=5, **({"uncertainty": "std"} | more))


def upside_down(pixels: Any) -> Any:
    """Return an array with the first row last."""
    return pixels[::-1] * 1


OVERSCAN: dict[str, Case] = {
    "python section": lambda lib, c: lib.subtract_overscan(c, overscan=c[:, 37:], overscan_axis=1),
    "FITS section": lambda lib, c: lib.subtract_overscan(c, fits_section="[38:45,1:24]"),
    "median": lambda lib, c: lib.subtract_overscan(c, overscan=c[:, 37:], median=True),
    "columns": lambda lib, c: lib.subtract_overscan(c, overscan=c[20:, :], overscan_axis=0),
    "axis by shape, columns": lambda lib, c: lib.subtract_overscan(c, fits_section="[1:45,21:24]", overscan_axis=None),
    "axis by shape, rows": lambda lib, c: lib.subtract_overscan(c, fits_section="[41:45,*]", overscan_axis=None),
    "polynomial": lambda lib, c: lib.subtract_overscan(c, overscan=c[:, 37:], model=models.Polynomial1D(2)),
    "Legendre of medians": lambda lib, c: lib.subtract_overscan(
        c, fits_section="[38:45,1:24]", median=True, model=models.Legendre1D(3)
    ),
    "Chebyshev along x": lambda lib, c: lib.subtract_overscan(
        c, overscan=c[20:, :], overscan_axis=0, model=models.Chebyshev1D(1)
    ),
}

TRIM: dict[str, Case] = {
    "FITS": lambda lib, c: lib.trim_image(c, fits_section="[3:40,2:20]"),
    "everything": lambda lib, c: lib.trim_image(c, fits_section="[*,*]"),
    "part of one axis": lambda lib, c: lib.trim_image(c, fits_section="[*, 5:9]"),
    "steps": lambda lib, c: lib.trim_image(c, fits_section="[*:2, *:3]"),
    "range with a step": lambda lib, c: lib.trim_image(c, fits_section="[2:40:3, 1:24]"),
    "flipped": lambda lib, c: lib.trim_image(c, fits_section="[40:3, -*]"),
    "flipped to the first": lambda lib, c: lib.trim_image(c, fits_section="[40:1, *]"),
    "python": lambda lib, c: lib.trim_image(c[2:9, :40]),
    "nothing": lambda lib, c: lib.trim_image(c, fits_section=""),
}

GAINS: dict[str, Case] = {
    "quantity": lambda lib, c: lib.gain_correct(c, GAIN),
    "number": lambda lib, c: lib.gain_correct(c, 1.7),
    "number and unit": lambda lib, c: lib.gain_correct(c, 1.7, gain_unit=ELECTRON / u.adu),
    "keyword": lambda lib, c: lib.gain_correct(c, keyword(lib, "exposure", unit=ELECTRON / u.adu)),
    "number by name": lambda lib, c: lib.gain_correct(c, gain=2, gain_unit=u.photon / u.adu),
}

DEVIATION: dict[str, Case] = {
    "gain": lambda lib, c: lib.create_deviation(c, gain=GAIN, readnoise=5 * ELECTRON),
    "no gain": lambda lib, c: lib.create_deviation(c, readnoise=5 * u.adu),
    "negatives as zero": lambda lib, c: lib.create_deviation(c, gain=GAIN, readnoise=5 * ELECTRON, disregard_nan=True),
}

BIAS: dict[str, Case] = {
    "frame": lambda lib, c: lib.subtract_bias(c, bias()),
    "by name": lambda lib, c: lib.subtract_bias(c, master=bias(masked=False)),
    "no uncertainty": lambda lib, c: lib.subtract_bias(c, image(2, level=100)),
}

DARK: dict[str, Case] = {
    "key": lambda lib, c: lib.subtract_dark(c, dark(), **SECONDS),
    "key, scaled": lambda lib, c: lib.subtract_dark(c, dark(), **SECONDS, scale=True),
    "Keyword, scaled": lambda lib, c: lib.subtract_dark(
        c, dark(), exposure_time=keyword(lib, "exposure", unit=u.s), scale=True
    ),
    "quantities": lambda lib, c: lib.subtract_dark(
        c, dark(), dark_exposure=2 * u.min, data_exposure=30 * u.s, scale=True
    ),
    "quantities, unscaled": lambda lib, c: lib.subtract_dark(c, dark(), 2 * u.min, 30 * u.s),
}

FLAT: dict[str, Case] = {
    "mean": lambda lib, c: lib.flat_correct(c, flat()),
    "least value": lambda lib, c: lib.flat_correct(c, flat(), norm_value=5, min_value=3.9),
    "norm": lambda lib, c: lib.flat_correct(c, flat(), norm_value=4.5),
    "norm as quantity": lambda lib, c: lib.flat_correct(c, flat(), norm_value=4.5 * u.adu),
    "no uncertainty": lambda lib, c: lib.flat_correct(c, flat(uncertainty=None)),
    "other unit": lambda lib, c: lib.flat_correct(c, flat(unit="electron")),
    "masked, norm given": lambda lib, c: lib.flat_correct(c, flat(masked=True), norm_value=5),
}

TRANSFORM: dict[str, Case] = {
    "flip": lambda lib, c: lib.transform_image(c, np.fliplr),
    "turn": lambda lib, c: lib.transform_image(c, np.rot90, k=2),
    "roll": lambda lib, c: lib.transform_image(c, np.roll, shift=3, axis=1),
    "any function": lambda lib, c: lib.transform_image(c, upside_down),
}

CASES = {
    f"{step}: {name}": case
    for step, cases in {
        "overscan": OVERSCAN,
        "trim": TRIM,
        "gain": GAINS,
        "deviation": DEVIATION,
        "bias": BIAS,
        "dark": DARK,
        "flat": FLAT,
        "transform": TRANSFORM,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("uncertainty", [None, "std"])
def test_step(name: str, masked: bool, uncertainty: str | None) -> None:
    """A CCDData gives ccdproc's CCDData, log entries included; the input stays as it was."""
    ccd = image(1, uncertainty=uncertainty, masked=masked and not name.startswith("overscan"))
    before = ccd.copy()
    ours, theirs = CASES[name](lazyccd, ccd), CASES[name](ccdproc, ccd.copy())
    if name == "flat: masked, norm given":
        theirs.uncertainty.array[:] = np.where(flat(masked=True).mask, ours.uncertainty.array, theirs.uncertainty.array)
    assert_same(ours, theirs, meta="keyword" not in name.lower())
    assert_same(ccd, before, rtol=0)


@pytest.mark.parametrize("name", [n for n in CASES if n.split(":")[0] in {"bias", "dark", "flat", "gain"}])
@pytest.mark.parametrize("uncertainty", ["var", "ivar"])
def test_other_uncertainties(name: str, uncertainty: str) -> None:
    """Variances and inverse variances propagate as standard deviations do, and stay what they are."""
    ccd = image(1, uncertainty=uncertainty, masked=True)
    std = image(1, uncertainty="std", masked=True)
    ours, theirs = CASES[name](lazyccd, ccd), CASES[name](ccdproc, std)
    assert isinstance(ours.uncertainty, UNCERTAINTIES[uncertainty])
    if name != "flat: masked, norm given":
        assert_same(ours, theirs, meta="keyword" not in name.lower())


LAZY = [
    name for name in CASES if "python" not in name and "by shape" not in name and name != "flat: masked, norm given"
]


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lazy_frames_in_odd_chunks(name: str, dtype: str) -> None:
    """A lazy frame in chunks gives the bits that a CCDData gives, in NumPy's common type of frame and master."""
    ccd = image(1, uncertainty="std", dtype=dtype)
    ds = lazyccd.rechunk(lazyccd.from_ccddata(ccd), (7, 16))
    whole = CASES[name](lazyccd, ccd)
    done = LAZY_FORM.get(name, CASES[name])(lazyccd, ds)
    has_master = name.split(":")[0] in {"bias", "dark", "flat"}  # masters in float64
    assert done["data"].dtype == ("float64" if has_master else dtype)
    lazy = lazyccd.to_ccddata(done)
    assert_same(lazy, whole, rtol=0, meta=False)
    assert_same(
        lazy,
        CASES[name](ccdproc, image(1, uncertainty="std")),
        rtol={"float32": 1e-6, "float64": 1e-12}[dtype],
        meta=False,
    )


def _part(ds: Any, y: slice, x: slice) -> Any:
    return ds.isel(y=y, x=x)


LAZY_FORM: dict[str, Case] = {
    "overscan: median": lambda lib, d: lib.subtract_overscan(
        d, overscan=_part(d, slice(None), slice(37, None)), median=True
    ),
    "overscan: columns": lambda lib, d: lib.subtract_overscan(
        d, overscan=_part(d, slice(20, None), slice(None)), overscan_axis=0
    ),
    "overscan: polynomial": lambda lib, d: lib.subtract_overscan(
        d, overscan=_part(d, slice(None), slice(37, None)), model=models.Polynomial1D(2)
    ),
    "overscan: Chebyshev along x": lambda lib, d: lib.subtract_overscan(
        d, overscan=_part(d, slice(20, None), slice(None)), overscan_axis=0, model=models.Chebyshev1D(1)
    ),
}

KEYWORDS: dict[str, Callable[[Any], Any]] = {
    "yes": lambda lib: True,
    "no": lambda lib: False,
    "None": lambda lib: None,
    "text": lambda lib: "biasdone",
    "Keyword": lambda lib: lib.Keyword("biasdone", unit=u.s, value=3),
    "mapping": lambda lib: {"biasdone": "yes", "by": "me"},
}


@pytest.mark.parametrize("name", KEYWORDS)
@pytest.mark.parametrize("header", [dict, fits.Header])
def test_add_keyword(name: str, header: type) -> None:
    """Every form of ``add_keyword``, in dictionaries and FITS headers."""
    if name == "Keyword" and header is fits.Header:
        with pytest.raises(ValueError, match="Illegal value"):
            _with_keyword(ccdproc, KEYWORDS[name])  # a header takes no Quantity
        assert _with_keyword(lazyccd, KEYWORDS[name]).cards["BIASDONE"][1:] == (3.0, "[s]")
        return
    results = []
    for lib in (lazyccd, ccdproc):
        ccd = CCDData(np.ones((3, 4)), unit="adu", meta=header({"EXPOSURE": 3.0}))
        master = CCDData(np.ones((3, 4)), unit="adu")
        results.append(lib.subtract_bias(ccd, master, add_keyword=KEYWORDS[name](lib)).meta)
    if header is dict:
        assert results[0] == results[1]
    else:
        assert [tuple(card) for card in results[0].cards] == [tuple(card) for card in results[1].cards]


def _with_keyword(lib: Any, keyword_of: Callable[[Any], Any]) -> fits.Header:
    """Return the FITS header after a step with ``add_keyword``."""
    ccd = CCDData(np.ones((3, 4)), unit="adu", meta=fits.Header())
    return lib.subtract_bias(ccd, CCDData(np.ones((3, 4)), unit="adu"), add_keyword=keyword_of(lib)).meta


def test_logging_can_be_turned_off() -> None:
    """``conf.auto_logging`` turns off the automatic entries and no others."""
    ccd, master = image(1), image(2)
    for keyword_given, kept in ((True, []), ({"biasdone": 1}, ["biasdone"])):
        metas = []
        for lib in (lazyccd, ccdproc):
            with lib.conf.set_temp("auto_logging", False):
                metas.append(dict(lib.subtract_bias(ccd, master, add_keyword=keyword_given).meta))
        assert metas[0] == metas[1]
        assert list(metas[0]) == ["exposure", *kept]
