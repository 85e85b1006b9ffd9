"""A keyword's name stands for its value in the header wherever a parameter means one; a step done twice warns at the caller."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd as lz
from lazyccd.errors import KeywordError, MissingFileError, ParameterError, RepeatedStepWarning, UnitError
from lazyccd.frame.tree import make_tree

GAIN = 1.5 * u.electron / u.adu
CARDS = {
    "GAIN": 1.5,
    "RDNOISE": 5.0,
    "EXPTIME": 30.0,
    "SATURATE": 900.0,
    "BLEEDLEV": 950.0,
    "BIASSEC": "[26:30,1:20]",
    "TRIMSEC": "[1:25,3:20]",
    "FWHM": 3.0,
    "SKY": 12.0,
    "LEVEL": 4.0,
    "HIERARCH ESO DET OUT1 CONAD": 1.5,
}


def pixels() -> np.ndarray[Any, Any]:
    """Return pixels with a few bright ones."""
    values = np.random.default_rng(3).normal(100.0, 10.0, (20, 30))
    values[5, 5:8] = 1000.0
    return values


def frame(unit: str = "adu", **more: Any) -> xr.Dataset:
    """Return a frame whose header has what parameters mean."""
    return lz.from_ccddata(CCDData(pixels(), unit=unit, meta=fits.Header({**CARDS, **more})))


DARK = lz.from_ccddata(CCDData(np.full((20, 30), 2.0), unit="adu", meta={"EXPTIME": 60.0}))

SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "gain": (lambda: lz.gain_correct(frame(), "GAIN"), lambda: lz.gain_correct(frame(), GAIN)),
    "gain with a mark": (lambda: lz.gain_correct(frame(), "!gain"), lambda: lz.gain_correct(frame(), GAIN)),
    "gain of ESO": (lambda: lz.gain_correct(frame(), "ESO DET OUT1 CONAD"), lambda: lz.gain_correct(frame(), GAIN)),
    "gain of counts": (
        lambda: lz.gain_correct(frame("ct"), "GAIN"),
        lambda: lz.gain_correct(frame("ct"), 1.5 * u.electron / u.ct),
    ),
    "gain and noise": (
        lambda: lz.create_deviation(frame(), gain="GAIN", readnoise="RDNOISE"),
        lambda: lz.create_deviation(frame(), gain=GAIN, readnoise=5 * u.electron),
    ),
    "exposures": (
        lambda: lz.subtract_dark(frame(), DARK, "EXPTIME", "EXPTIME", scale=True),
        lambda: lz.subtract_dark(frame(), DARK, 60 * u.s, 30 * u.s, scale=True),
    ),
    "sections": (
        lambda: lz.trim_image(lz.subtract_overscan(frame(), fits_section="BIASSEC"), "TRIMSEC"),
        lambda: lz.trim_image(lz.subtract_overscan(frame(), fits_section="[26:30,1:20]"), "[1:25,3:20]"),
    ),
    "cosmic rays": (
        lambda: lz.cosmicray_lacosmic(
            frame(),
            gain="GAIN",
            readnoise="RDNOISE",
            satlevel="SATURATE",
            pssl="SKY",
            psffwhm="FWHM",
            fsmode="convolve",
        ),
        lambda: lz.cosmicray_lacosmic(
            frame(), gain=GAIN, readnoise=5 * u.electron, satlevel=1350.0, pssl=12.0, psffwhm=3.0, fsmode="convolve"
        ),
    ),
    "saturation": (
        lambda: lz.flag_saturated(frame(), "SATURATE", bleed="BLEEDLEV", trail=1),
        lambda: lz.flag_saturated(frame(), 900.0, bleed=950.0, trail=1),
    ),
    "norm": (
        lambda: lz.flat_correct(frame(), DARK, norm_value="LEVEL"),
        lambda: lz.flat_correct(frame(), DARK, norm_value=4.0),
    ),
    "fringes": (
        lambda: lz.subtract_fringe(frame(), DARK, scale="LEVEL"),
        lambda: lz.subtract_fringe(frame(), DARK, scale=4.0),
    ),
    "process": (
        lambda: lz.ccd_process(
            frame(), "BIASSEC", "TRIMSEC", error=True, gain="GAIN", readnoise="RDNOISE", gain_corrected=False
        ),
        lambda: lz.ccd_process(
            frame(), "[26:30,1:20]", "[1:25,3:20]", True, gain=GAIN, readnoise=5 * u.electron, gain_corrected=False
        ),
    ),
    "weights and factors": (
        lambda: lz.combine([frame(), frame(EXPTIME=60.0)], weights="EXPTIME", scale="!EXPTIME", zero="SKY"),
        lambda: lz.combine([frame(), frame(EXPTIME=60.0)], weights=[30, 60], scale=[30, 60], zero=[12, 12]),
    ),
    "section of statistics": (
        lambda: lz.combine([frame(), frame()], scale="median", statsec="TRIMSEC"),
        lambda: lz.combine([frame(), frame()], scale="median", statsec="[1:25,3:20]"),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_a_keyword_means_its_value(case: str) -> None:
    """Pixels, units and uncertainties are those of the value itself."""
    by_name, by_value = (make() for make in SAME[case])
    assert by_name["data"].attrs == by_value["data"].attrs
    assert by_name.drop_attrs(deep=False).identical(by_value.drop_attrs(deep=False))


def test_a_tree_and_a_ccddata_take_each_its_own() -> None:
    """Each frame has its own header."""
    tree = make_tree({"a": frame(), "b": frame(GAIN=3.0)}, {})
    corrected = lz.gain_correct(tree, "GAIN")
    ratio = corrected["b"]["data"].values / corrected["a"]["data"].values
    np.testing.assert_allclose(ratio, 2.0)
    ccd = lz.gain_correct(CCDData(pixels(), unit="adu", meta={"gain": 2.0}), "gain")
    np.testing.assert_array_equal(ccd.data, pixels() * 2)
    assert ccd.unit == u.electron


def test_a_file_of_a_keywords_name_is_a_gain_map_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in the folder change nothing of sections and noises; a gain says by its mark that it is a keyword."""
    monkeypatch.chdir(tmp_path)
    for name in ("GAIN", "RDNOISE", "TRIMSEC"):
        (tmp_path / name).write_text("notes")
    trimmed = lz.trim_image(frame(), "TRIMSEC")
    assert trimmed.sizes == {"y": 18, "x": 25}
    found = lz.create_deviation(frame(), gain="!GAIN", readnoise="RDNOISE")
    expected = lz.create_deviation(frame(), gain=GAIN, readnoise=5 * u.electron)
    np.testing.assert_array_equal(found["uncertainty"], expected["uncertainty"])


def test_what_the_header_does_not_have() -> None:
    """The error names the keyword and the way out; a path is still a path."""
    with pytest.raises(KeywordError, match="no keyword 'GIAN'; give the value itself"):
        lz.gain_correct(frame(), "GIAN")
    with pytest.raises(MissingFileError, match=r"gainmap\.fits"):
        lz.gain_correct(frame(), "gainmap.fits")
    with pytest.raises(KeywordError, match="has no keyword 'NOTHERE'"):
        lz.trim_image(frame(), "NOTHERE")
    with pytest.raises(ParameterError, match="'GAIN' has the value 'two', which is not a number"):
        lz.gain_correct(frame(GAIN="two"), "GAIN")
    with pytest.raises(ParameterError, match="satlevel cannot be taken from the header's SATURATE after SUBBIAS"):
        lz.cosmicray_lacosmic(lz.subtract_bias(frame(), DARK), satlevel="SATURATE")
    # a read noise in electrons is no read noise in adu
    with pytest.raises(UnitError, match="'electron' does not match the frame unit 'adu'"):
        lz.subtract_overscan(frame(), fits_section="BIASSEC", statistic="auto", readnoise="RDNOISE")


TWICE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "overscan": (lambda f: lz.subtract_overscan(f, fits_section="[26:30,1:20]"), "SUBOSCAN"),
    "trim": (lambda f: lz.trim_image(f, "[1:20,1:20]"), "TRIMIM"),
    "bias": (lambda f: lz.subtract_bias(f, DARK), "SUBBIAS"),
    "dark": (lambda f: lz.subtract_dark(f, DARK, 1 * u.s, 1 * u.s), "SUBDARK"),
    "flat": (lambda f: lz.flat_correct(f, DARK), "FLATCOR"),
    "gain": (lambda f: lz.gain_correct(f, 2.0), "GAINCOR"),
}


@pytest.mark.parametrize("kind", ["frame", "tree", "CCDData", "CCDData with a dict"])
@pytest.mark.parametrize("step", TWICE)
def test_a_step_done_twice_warns_once_at_the_caller(step: str, kind: str) -> None:
    """The first time is silent; the second warns once, with the card, at the line that calls."""
    apply, card = TWICE[step]
    image: Any = frame()
    if kind == "tree":
        image = make_tree({"a": frame(), "b": frame()}, {})
    elif kind.startswith("CCDData"):
        image = CCDData(pixels(), unit="adu", meta={} if "dict" in kind else fits.Header())
    once = apply(image)
    with pytest.warns(RepeatedStepWarning, match=rf"is done again: the header has {card} = ") as caught:
        apply(once)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_the_gain_is_told_by_units_too() -> None:
    """Without a card the units tell; a relative factor on electrons is no gain."""
    electrons = lz.with_unit(frame(), "electron")
    with pytest.warns(RepeatedStepWarning, match="the frame is in 'electron' and the gain in 'electron / adu'"):
        lz.gain_correct(electrons, GAIN)
    lz.gain_correct(electrons, 0.98)


def test_what_is_no_repetition() -> None:
    """The overscan along the other axis, a smaller section, a card that is taken out, and the stamps of other kinds."""
    once = lz.subtract_overscan(frame(), fits_section="[26:30,1:20]")
    lz.subtract_overscan(once, fits_section="[1:30,20:20]", overscan_axis=0)
    lz.trim_image(lz.trim_image(frame(), "[1:20,1:20]"), "[1:10,:]")
    lz.subtract_bias(lz.with_header(lz.subtract_bias(frame(), DARK), SUBBIAS=None), DARK)
    lz.flat_correct(frame(FLATCOR="PERFORM"), DARK)
    with pytest.warns(RepeatedStepWarning, match="ZEROCOR"):
        lz.subtract_bias(frame(ZEROCOR="Jul 13 12:40 Zero level correction image is Zero"), DARK)


def test_a_chain_is_silent() -> None:
    """Every step once, by one call or by several, and a stack of the results."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduced = lz.ccd_process(
            frame(),
            "BIASSEC",
            "TRIMSEC",
            True,
            gain="GAIN",
            readnoise="RDNOISE",
            master_flat=lz.trim_image(DARK, "[1:25,3:20]"),
        )
        lz.combine([reduced, reduced])
