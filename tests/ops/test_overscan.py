"""Overscan: robust levels, fits with rejection, splines, bleeds; against IRAF, astropy, slow references and simulated truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData
from astropy.stats import sigma_clip
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import ParameterError, ShapeError
from lazyccd.ops.instrument.overscan import choose_form, overscan_levels
from lazyccd.testing.simulate import Detector, Sky, make_exposure

Array = npt.NDArray[Any]


def raw(shape: tuple[int, int] = (60, 48), seed: int = 1, strip: int = 10) -> Array:
    """Return an image of 1000 with a drifting level in all columns, and cosmic rays in the strip of the last ones."""
    rng = np.random.default_rng(seed)
    rows = np.arange(shape[0])
    pixels = 500 + 0.1 * rows[:, None] + 4 * np.sin(rows / 9)[:, None] + rng.normal(0, 3, shape)
    pixels[:, : shape[1] - strip] += 1000
    pixels[rng.integers(0, shape[0], 6), shape[1] - 1 - rng.integers(0, strip, 6)] += 400
    return pixels


def frame(pixels: Array, chunk: Any = 1000) -> Any:
    """Return a lazy frame."""
    return lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu")), chunk)


def slow_level(row: Array, statistic: str) -> float:
    """Return the level of a line, by astropy or by the definition."""
    if statistic == "clipped":
        return float(sigma_clip(row, sigma=3, maxiters=5).mean())
    middle = np.median(row)
    keep = np.abs(row - middle) <= 3 * 1.482602218505602 * np.median(np.abs(row - middle))
    return float(row[keep].mean())


@given(
    seed=st.integers(0, 1000),
    width=st.integers(1, 40),
    statistic=st.sampled_from(["clipped", "mad"]),
    dtype=st.sampled_from(["f4", "f8"]),
)
def test_robust_levels(seed: int, width: int, statistic: Any, dtype: str) -> None:
    """Clipped means of lines are astropy's; by the MAD, those of the definition."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 5, (4, width)).round(1).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.1] += 300
    out = lazyccd.subtract_overscan(frame(pixels), fits_section=f"[1:{width},*]", statistic=statistic)
    level = [slow_level(row.astype(float), statistic) for row in pixels]
    expected = (pixels - np.array(level)[:, None]).astype(dtype)
    np.testing.assert_allclose(out["data"].values, expected, rtol=0, atol=1e-10 if dtype == "f8" else 1e-4)


CASES: dict[str, dict[str, Any]] = {
    "clipped": {"statistic": "clipped"},
    "constant": {"statistic": "mad", "model": models.Polynomial1D(0), "sigma": 3},
    "Legendre": {"statistic": "median", "model": models.Legendre1D(3), "sigma": 2.5},
    "spline": {"statistic": "mad", "model": models.Spline1D(knots=3, degree=3, bounds=[0, 1]), "sigma": 3},
    "bleeds": {"statistic": "median", "skip_bleeds": True},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("axis", [0, 1])
def test_any_chunks(name: str, axis: int) -> None:
    """Rows or columns, any chunks, a cut-out: the same bits, one task that reads the strip."""
    pixels = raw() if axis == 1 else raw().T
    section = "[39:48,*]" if axis == 1 else "[*,39:48]"
    whole = lazyccd.subtract_overscan(frame(pixels), fits_section=section, overscan_axis=axis, **CASES[name])
    for chunk in ((7, 13), (60, 5), 17):
        part = lazyccd.subtract_overscan(frame(pixels, chunk), fits_section=section, overscan_axis=axis, **CASES[name])
        np.testing.assert_array_equal(part["data"], whole["data"])
    cut = part.ccd.cutout(y=slice(11, 25), x=slice(3, 30))
    np.testing.assert_array_equal(cut["data"], whole["data"][11:25, 3:30])


@pytest.mark.parametrize(
    ("case", "left"), [("clipped", 1.2), ("constant", 3.2), ("Legendre", 2.0), ("spline", 1.5), ("bleeds", 1.5)]
)
def test_level_is_taken_off(case: str, left: float) -> None:
    """What is left of 1000 scatters by the noise of the level; the constant leaves the drift."""
    out = lazyccd.subtract_overscan(frame(raw()), fits_section="[39:48,*]", **CASES[case])
    rows = out["data"].values[:, :38].mean(axis=1) - 1000
    assert np.std(rows) < left
    assert abs(rows.mean()) < 0.5


def test_spline_beyond_the_strip() -> None:
    """Lines that the strip does not cover get the spline's last value, and no NaN."""
    out = lazyccd.subtract_overscan(
        frame(raw()), fits_section="[39:48,11:50]", model=models.Spline1D(knots=[20.0, 35.0], bounds=[0, 59])
    )
    level = raw() - out["data"].values
    assert np.ptp(level[50:]) < 1e-9
    assert np.ptp(level[:10]) < 1e-9
    assert np.ptp(level[10:50]) > 3


def test_noise_is_recorded(tmp_path: Path) -> None:
    """The scatter about the levels is the read noise of the simulation, in frames, files and CCDData."""
    detector = Detector(shape=(400, 60), overscan=40, readnoise_e=8.0, gain_e_per_adu=2.0)
    exposure = make_exposure(detector, Sky(), "bias")
    truth = np.hypot(4.0, np.sqrt(1 / 12))
    ccd = CCDData(exposure.pixels.astype("f4"), unit="adu", meta=exposure.header)
    how: dict[str, Any] = {"fits_section": detector.overscan_section}
    for more in (
        {"statistic": "mad"},
        {"model": models.Chebyshev1D(1), "sigma": 3},
        {"statistic": "median", "skip_bleeds": True},
    ):
        lazy = lazyccd.subtract_overscan(lazyccd.from_ccddata(ccd), **how, **more)
        assert "OVERRMS" not in lazy.ccd.header
        header = lazyccd.settle(lazy).ccd.header
        assert header["OVERRMS"] == pytest.approx(truth, rel=0.03)
        assert header["OVERMEAN"] == pytest.approx(np.mean(exposure.pixels[:, -37:]), abs=0.2)
        assert header.comments["OVERRMS"].startswith("[adu]")
        written = lazyccd.to_fits(lazy, tmp_path / "a.fits", overwrite=True)
        assert fits.getval(written, "OVERRMS") == header["OVERRMS"]
        again = lazyccd.open_zarr(lazyccd.to_zarr(lazy, tmp_path / "a.zarr", overwrite=True))
        assert again.ccd.header["OVERRMS"] == header["OVERRMS"]
        assert lazyccd.subtract_overscan(ccd, **how, **more).meta["OVERRMS"] == header["OVERRMS"]
        assert lazyccd.to_ccddata(lazy).meta["OVERRMS"] == header["OVERRMS"]
    assert "OVERRMS" not in lazyccd.settle(lazyccd.subtract_overscan(lazyccd.from_ccddata(ccd), **how)).ccd.header


def test_noise_is_of_the_frame_itself() -> None:
    """A master's overscan says nothing of the frame from which it is subtracted."""
    plain = frame(raw())
    master = lazyccd.subtract_overscan(frame(raw(seed=2)), fits_section="[39:48,*]", statistic="mad")
    assert "OVERRMS" not in lazyccd.settle(lazyccd.subtract_bias(plain, master)).ccd.header
    own = lazyccd.subtract_overscan(plain, fits_section="[39:48,*]", statistic="mad")
    expected = lazyccd.settle(own).ccd.header["OVERRMS"]
    assert lazyccd.settle(lazyccd.subtract_bias(own, master)).ccd.header["OVERRMS"] == expected


def test_bleeds_into_a_parallel_overscan() -> None:
    """Charge from saturated columns in the strip shifts no column; without ``skip_bleeds`` it does."""
    rng = np.random.default_rng(4)
    pixels = rng.normal(500, 3, (80, 300))
    pixels[:60] += 1000
    pixels[:, 100:120] += 3000 * np.exp(-np.maximum(np.arange(80) - 60, 0) / 8)[:, None]
    pixels[:62, 105:109] = 60000
    ds = lazyccd.flag_saturated(frame(pixels), 60000)
    section = {"fits_section": "[*,63:80]", "overscan_axis": 0}
    naive = lazyccd.subtract_overscan(ds, **section, statistic="median")["data"].values[:60]
    aware = lazyccd.subtract_overscan(ds, **section, statistic="median", skip_bleeds=True)["data"].values[:60]
    for columns in (slice(0, 95), slice(96, 99), slice(121, 300)):
        assert abs(np.median(aware[:, columns]) - 1000) < 1
    level = pixels[:60] - aware
    assert np.abs(level - 500).max() < 6
    assert np.abs(pixels[:60] - naive - 500).max() > 300


def test_serial_then_parallel() -> None:
    """Two calls take off a level per row and then one per column."""
    rng = np.random.default_rng(6)
    rows, columns = rng.normal(500, 20, (50, 1)), rng.normal(0, 5, (1, 70))
    pixels = np.zeros((50, 70))
    pixels[:40, :60] = 700
    pixels[:, :60] += columns[:, :60]
    ds = lazyccd.subtract_overscan(frame(pixels + rows, 16), fits_section="[61:70,*]", statistic="mad")
    ds = lazyccd.subtract_overscan(ds, fits_section="[*,41:50]", overscan_axis=0, statistic="mad")
    np.testing.assert_allclose(ds["data"].values[:40, :60], 700, atol=1e-9)


def test_bad_arguments() -> None:
    """A limit without a model, and a statistic that does not exist."""
    with pytest.raises(ParameterError, match="sigma 3 must be above 0 and needs a model"):
        lazyccd.subtract_overscan(frame(raw()), fits_section="[39:48,*]", sigma=3)
    with pytest.raises(ParameterError, match="statistic 'mode' must be one of mean, median, clipped, mad"):
        lazyccd.subtract_overscan(frame(raw()), fits_section="[39:48,*]", statistic="mode")


@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_form_that_auto_chooses(drift: float) -> None:
    """A constant as long as the lines scatter by the read noise, a level per line otherwise; the noise is on record."""
    rng = np.random.default_rng(8)
    pixels = rng.normal(500, 4, (300, 60)) + drift * 6 * np.sin(np.arange(300) / 20)[:, None]
    pixels[::40, 45] += 5000
    found = overscan_levels(frame(pixels), "[41:60,*]", readnoise=4.0)
    assert found.reason.startswith("a level per row" if drift else "constant")
    assert (np.ptp(found.levels) > 5) == bool(drift)
    assert found.cards["OVERRMS"][0] == pytest.approx(4, rel=0.03)
    assert found.cards["OVERMEAN"][0] == pytest.approx(500, abs=0.7)
    assert found.form == ("per line" if drift else "constant")
    chosen = lazyccd.subtract_overscan(frame(pixels), fits_section="[41:60,*]", statistic=found)
    auto = lazyccd.subtract_overscan(frame(pixels, 37), fits_section="[41:60,*]", statistic="auto", readnoise=4.0)
    np.testing.assert_array_equal(auto["data"].values, pixels - found.levels[:, None])
    np.testing.assert_array_equal(auto["data"].values, chosen["data"].values)
    assert auto.ccd.header["OVERMEAN"] == chosen.ccd.header["OVERMEAN"] == found.cards["OVERMEAN"][0]
    assert found.reason in str(auto.ccd.header["HISTORY"]).replace("\n", "")


def test_auto_of_columns_and_of_another_frame() -> None:
    """A strip above the data has a level per column; one that is a frame of its own gives the same as a section."""
    rng = np.random.default_rng(8)
    pixels = rng.normal(500, 4, (60, 300)) + 6 * np.sin(np.arange(300) / 20)
    auto = lazyccd.subtract_overscan(frame(pixels), None, None, "[*,41:60]", statistic="auto")
    assert "a level per column" in str(auto.ccd.header["HISTORY"]).replace("\n", "")
    other = lazyccd.subtract_overscan(frame(pixels), frame(pixels[40:]), 0, statistic="auto")
    np.testing.assert_array_equal(auto["data"].values, other["data"].values)


@pytest.mark.parametrize(
    ("scatter", "predicted", "form"),
    [(0.9, 1.0, "constant"), (2.0, 1.0, "constant"), (2.01, 1.0, "per line"), (np.nan, 1.0, "per line")],
)
def test_the_limit_between_the_forms(scatter: float, predicted: float, form: str) -> None:
    """Twice what the read noise predicts is still a constant."""
    assert choose_form(scatter, predicted) == form


def test_auto_takes_no_other_choice() -> None:
    """Auto excludes a model and a median, a read noise needs auto, and levels need the frame that they were chosen on."""
    with pytest.raises(ParameterError, match="chooses the levels; leave out median"):
        lazyccd.subtract_overscan(frame(raw()), fits_section="[39:48,*]", statistic="auto", median=True)
    with pytest.raises(ParameterError, match=r'readnoise 4\.0 is used by statistic="auto" only'):
        lazyccd.subtract_overscan(frame(raw()), fits_section="[39:48,*]", readnoise=4.0)
    found = overscan_levels(frame(raw()), "[39:48,*]")
    with pytest.raises(ShapeError, match="60 overscan levels were chosen and the image has 50 rows"):
        lazyccd.subtract_overscan(frame(raw((50, 48))), fits_section="[39:48,*]", statistic=found)


@pytest.mark.parametrize(
    ("bad", "match"), [(57, "3 lines with a level, and Spline1D has 4"), (60, "0 lines with a level")]
)
def test_a_spline_without_enough_lines(bad: int, match: str) -> None:
    """It says so in words, as polynomials do."""
    data = np.ones((60, 50))
    data[:bad, 40:] = np.nan
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu", mask=~np.isfinite(data)))
    with pytest.raises(ParameterError, match=match):
        lazyccd.subtract_overscan(ds, fits_section="[41:50,:]", model=models.Spline1D(degree=3)).compute()


def test_a_spline_does_not_bridge_gaps_between_its_knots() -> None:
    """The message names the knots, and not scipy's conditions."""
    data = np.ones((60, 50))
    data[10:50, 40:] = np.nan
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu", mask=~np.isfinite(data)))
    model = models.Spline1D(knots=[20.0, 25.0, 30.0, 35.0, 40.0], degree=3, bounds=[0, 59])
    with pytest.raises(ParameterError, match=r"with gaps that a spline of degree 3 with knots at .*give fewer knots"):
        lazyccd.subtract_overscan(ds, fits_section="[41:50,:]", model=model).compute()
