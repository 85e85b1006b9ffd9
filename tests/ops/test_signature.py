"""Saturation, linearity, crosstalk, fringes, illumination: simulated truth comes out, for any chunks; what is out of place is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

import lazyccd
from lazyccd.errors import KeywordError, ParameterError, RepeatedStepWarning, ShapeError, UnitError
from lazyccd.kernels import instrument
from lazyccd.testing.simulate import Detector, Sky, make_exposure, with_crosstalk
from lazyccd.testing.steps import formula_frame

Array = npt.NDArray[Any]
BIASED = "SUBBIAS = 'done'"
FLAT = f"{BIASED}\nFLATCOR = 'done'"


def frame(
    pixels: Array, chunk: Any = 1000, unit: str = "adu", header: str = BIASED, variance: Array | None = None
) -> xr.Dataset:
    """Return a lazy frame."""
    ds = lazyccd.from_ccddata(CCDData(pixels, unit=unit))
    if variance is not None:
        ds = lazyccd.with_uncertainty(ds, variance, "var")
    return lazyccd.rechunk(ds, chunk).assign_attrs(header=header)


# saturation


def slow_trails(above: Array, length: int) -> Array:
    """Return the pixels of runs along columns, by looking at each window."""
    out = np.zeros(above.shape, bool)
    for y in range(above.shape[0] - length + 1):
        out[y : y + length] |= above[y : y + length].all(axis=0)
    return out


@given(seed=st.integers(0, 500), length=st.integers(1, 9), chunk=st.tuples(st.integers(1, 30), st.integers(1, 20)))
def test_trails(seed: int, length: int, chunk: tuple[int, int]) -> None:
    """Runs along columns that are long enough, whatever chunks cut them; they and saturated pixels grow by a disc."""
    rng = np.random.default_rng(seed)
    pixels = np.where(rng.random((30, 20)) < 0.7, 5000.0, 100.0)
    pixels[rng.random(pixels.shape) < 0.02] = 60000.0
    # computed once: chunks of one pixel make a task each, and every look at a lazy frame runs them all
    out = lazyccd.flag_saturated(frame(pixels, chunk), 60000, bleed=5000, trail=length, grow=1).compute()
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    np.testing.assert_array_equal(
        lazyccd.is_flagged(out, "BLEED"), binary_dilation(slow_trails(pixels >= 5000, length), cross)
    )
    np.testing.assert_array_equal(lazyccd.is_flagged(out, "SAT"), binary_dilation(pixels >= 60000, cross))
    np.testing.assert_array_equal(out["data"], pixels)


def test_levels() -> None:
    """Numbers, quantities, keywords; one of the header only as long as nothing was subtracted."""
    raw = frame(np.array([[10.0, 20.0, 30.0]]), header="MAXLIN  = 20\nWELL    = '30,0'\nTEXT    = 'no'")
    for level, expected in (
        (None, [0, 1, 1]),
        ("WELL", [0, 0, 1]),
        (lazyccd.Keyword("WELL"), [0, 0, 1]),
        (25 * u.adu, [0, 0, 1]),
        (10, [1, 1, 1]),
    ):
        np.testing.assert_array_equal(lazyccd.flag_saturated(raw, level).ccd.is_flagged("SAT"), [expected])
    with pytest.raises(KeywordError, match="none of TEXT as a number"):
        lazyccd.flag_saturated(raw, "TEXT")
    done = lazyccd.subtract_bias(raw, frame(np.zeros((1, 3))))
    with pytest.raises(ParameterError, match="after SUBBIAS"):
        lazyccd.flag_saturated(done, "WELL")
    iraf = "ZEROCOR = 'Jul 13 12:40 Zero level correction image is Zero'"
    with pytest.raises(ParameterError, match="after ZEROCOR"):
        lazyccd.flag_saturated(frame(np.ones((1, 3)), header=f"SATURATE= 20\n{iraf}"))
    with pytest.raises(ParameterError, match="trail 0"):
        lazyccd.flag_saturated(raw, bleed=1, trail=0)


# linearity


def test_simulated_nonlinearity() -> None:
    """A camera that reads 4 % too little at 40000 adu: polynomial and table bring the truth back, and honest pulls."""
    detector = Detector(
        (200, 200),
        gain_e_per_adu=1.5,
        overscan=0,
        nonlinearity_per_adu=1e-6,
        bad_fraction=0,
        vignetting=0.9,
        full_well_e=1e6,
    )
    exposure = make_exposure(detector, Sky(), "flat", 1.0, flat_level_e=60000.0)
    measured = exposure.pixels.astype("f8") - detector.bias_adu - detector.bias
    truth = exposure.truth.electrons * detector.flat / detector.gain_e_per_adu
    signal = np.linspace(-200, 60000, 400)
    table = (signal - 1e-6 * signal**2, signal)
    powers = np.polynomial.polynomial.polyfit(table[0], signal, 5)
    variance = truth / 1.5 + (6 / 1.5) ** 2
    ds = frame(measured, (70, 90), variance=variance * (1 - 2e-6 * truth) ** 2)
    assert np.median(measured / truth) < 0.97
    for how in ({"coefficients": powers}, {"table": table}):
        out = lazyccd.correct_linearity(ds, **how).compute()
        pull = ((out["data"].values - truth) / out["uncertainty"].values ** 0.5)[~detector.bad]
        assert abs(np.mean(pull)) < 0.4  # the level of the bias differs from exposure to exposure by 1.5 adu
        assert np.std(pull) == pytest.approx(1, abs=0.02)


def test_beyond_the_range() -> None:
    """Above the last measured signal the difference stays, and NONLINEAR is set; by a limit, for polynomials too."""
    ds = frame(np.array([[-5.0, 0.0, 50.0, 100.0, 150.0, np.nan]]), variance=np.full((1, 6), 4.0))
    out = lazyccd.correct_linearity(ds, table=([0, 100], [0, 200])).compute()
    np.testing.assert_array_equal(out["data"], [[-5.0, 0.0, 100.0, 200.0, 250.0, np.nan]])
    np.testing.assert_array_equal(out["uncertainty"], [[4, 16, 16, 16, 4, 4]])
    np.testing.assert_array_equal(out.ccd.is_flagged("NONLINEAR"), [[0, 0, 0, 0, 1, 0]])
    out = lazyccd.correct_linearity(ds, [0, 1, 0.01], limit=60)
    np.testing.assert_allclose(out["data"].values[0, :4], [-4.75, 0, 75, 200])
    np.testing.assert_array_equal(out.ccd.is_flagged("NONLINEAR"), [[0, 0, 0, 1, 1, 0]])
    assert "mask" not in lazyccd.correct_linearity(ds, [0, 1, 0.01])


@given(seed=st.integers(0, 200), count=st.integers(2, 8))
def test_slope_is_the_derivative(seed: int, count: int) -> None:
    """The factor of the standard deviation is the derivative of the correction, by finite differences."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.uniform(1, 50, count))
    table = (tuple(x), tuple(np.cumsum(rng.uniform(1, 50, count))))
    powers = tuple(rng.normal(0, 1, count) / 100.0 ** np.arange(count))
    points = rng.uniform(x[0] - 20, x[-1] + 20, (1, 50))
    points = points[:, np.abs(points[0][:, None] - x[None, :]).min(axis=1) > 0.01]
    for given_powers, given_table in ((powers, ((), ())), ((), table)):
        how: dict[str, Any] = {"coefficients": given_powers} if given_powers else {"table": given_table}
        ends = [lazyccd.correct_linearity(frame(points + d), **how)["data"].values for d in (-1e-4, 1e-4)]
        np.testing.assert_allclose(
            (ends[1] - ends[0]) / 2e-4, instrument._slope(points, given_powers, given_table), rtol=1e-5, atol=1e-6
        )


def test_linearity_in_its_place() -> None:
    """Not in electrons, not after the gain, with a warning before the bias; arguments that cannot be used."""
    ones = np.ones((2, 3))
    with pytest.raises(UnitError, match="in 'electron'; apply it before the gain"):
        lazyccd.correct_linearity(frame(ones, unit="electron"), [0, 1])
    with pytest.raises(ParameterError, match="the header has GAINCOR"):
        lazyccd.correct_linearity(frame(ones, header="GAINCOR = 'done'"), [0, 1])
    with pytest.warns(UserWarning, match="none of SUBBIAS") as warned:
        lazyccd.correct_linearity(frame(ones, header=""), [0, 1])
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="none of SUBBIAS") as warned:
        lazyccd.correct_crosstalk({"A": frame(ones, header="")}, {})
    assert warned[0].filename == __file__
    ds = frame(ones)
    for how, message in (
        ({}, "neither of coefficients and table"),
        ({"coefficients": [0, 1], "table": ([0, 1], [0, 1])}, "both of coefficients"),
        ({"coefficients": [0, 0, 1]}, "c_1 not 0"),
        ({"table": ([0, 1, 1], [0, 1, 2])}, "must increase"),
        ({"table": ([0, 1, 2], [0, 1])}, "3 measured and 2 true"),
    ):
        with pytest.raises(ParameterError, match=message):
            lazyccd.correct_linearity(ds, **how)
    header = lazyccd.correct_linearity(ds, [0, 1]).ccd.header
    assert header["LINCOR"].startswith("ccd=")


# crosstalk


def test_simulated_crosstalk() -> None:
    """Ghosts of stars that leak between three amplifiers vanish to a fraction of the noise."""
    coefficients = {"A": {"B": 2e-3, "C": -5e-4}, "B": {"A": 1e-3}}
    detectors = {
        n: Detector((150, 180), overscan=0, seed=i, bias_structure_adu=0, bad_fraction=0) for i, n in enumerate("ABC")
    }
    skies = {n: Sky(seed=i, stars=400) for i, n in enumerate("ABC")}
    clean = {n: make_exposure(detectors[n], skies[n], exposure_s=300.0) for n in "ABC"}
    mixed = with_crosstalk(clean, coefficients)
    images = {n: e.pixels.astype("f8") - detectors[n].bias_adu for n, e in mixed.items()}
    tree = xr.DataTree.from_dict({n: frame(image, (64, 50)) for n, image in images.items()})
    out = lazyccd.correct_crosstalk(tree, coefficients, mask_above=20000)
    for name in "ABC":
        truth = clean[name].pixels - detectors[name].bias_adu
        before, after = (np.abs(values - truth).max() for values in (images[name], out[name]["data"].values))
        assert after < 1.1  # rounding, and the product of two fractions
        assert name == "C" or before > 15
    bright = (images["B"] >= 20000) | (images["C"] >= 20000)
    np.testing.assert_array_equal(lazyccd.is_flagged(out["A"].to_dataset(), "CROSSTALK"), bright)
    assert not out["A"].to_dataset().ccd.bad.any()
    assert out["A"].to_dataset().ccd.header["XTALKCOR"].startswith("coefficients=")
    xr.testing.assert_identical(out["C"].to_dataset(), tree["C"].to_dataset())


@pytest.mark.parametrize("chunk", [(40, 40), (7, 13), 11])
def test_corners_and_variance(chunk: Any) -> None:
    """Pixels that are read at the same time belong together; one task per chunk; variances with squares."""
    frames = {name: formula_frame((37, 41), seed=i, mask=False, uncertainty=True) for i, name in enumerate("ABCD")}
    frames = {name: lazyccd.rechunk(ds, chunk).assign_attrs(header=BIASED) for name, ds in frames.items()}
    corners: Any = {"A": "UR", "B": "LR", "C": "UL"}
    row = {"B": 0.01, "C": 0.02, "D": -0.03}
    out = lazyccd.correct_crosstalk(frames, {"A": row}, corners)["A"]
    data = {name: ds["data"].values.astype(float) for name, ds in frames.items()}
    var = {name: ds["uncertainty"].values.astype(float) ** 2 for name, ds in frames.items()}
    order = {"B": np.s_[::-1], "C": np.s_[:, ::-1], "D": np.s_[::-1, ::-1]}
    expected = data["A"] - sum(c * data[name][order[name]] for name, c in row.items())
    squares = var["A"] + sum(c**2 * var[name][order[name]] for name, c in row.items())
    np.testing.assert_allclose(out["data"], expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(out["uncertainty"].values ** 2, squares, rtol=1e-5)
    chunks = out["data"].data.npartitions
    assert len(out["data"].data.__dask_graph__().cull(out["data"].data.__dask_keys__()).to_dict()) <= 2 * chunks


@pytest.mark.parametrize("corner", ["LL", "UR"])
def test_bad_sources_leave_nothing(corner: Any) -> None:
    """Pixels of a source that are bad, masked as such or not finite, change neither value nor noise nor mask; others do."""
    rng = np.random.default_rng(5)
    source = rng.uniform(100, 50000, (23, 31))
    bad, hit = rng.random(source.shape) < 0.2, rng.random(source.shape) < 0.2
    source[rng.random(source.shape) < 0.1] = np.nan
    victim = frame(np.full(source.shape, 100.0), (8, 9))
    b = lazyccd.with_uncertainty(frame(source, (7, 31)), np.full(source.shape, 200.0))
    b = lazyccd.add_mask(lazyccd.add_mask(b, bad), hit, "CR")
    out = lazyccd.correct_crosstalk({"A": victim, "B": b}, {"A": {"B": 0.01}}, {"B": corner}, mask_above=30000)["A"]
    known = np.where(bad | ~np.isfinite(source), 0, source)
    order = np.s_[:, :] if corner == "LL" else np.s_[::-1, ::-1]
    np.testing.assert_allclose(out["data"], 100 - 0.01 * known[order], rtol=1e-6)
    np.testing.assert_allclose(out["uncertainty"], np.where(known, 2.0, 0.0)[order], rtol=1e-6)
    np.testing.assert_array_equal(lazyccd.is_flagged(out, "CROSSTALK"), (known >= 30000)[order])
    assert not out.ccd.bad.any()


def test_crosstalk_that_is_refused() -> None:
    """Names, corners, shapes and units that do not go together."""
    frames = {"A": frame(np.ones((2, 3))), "B": frame(np.ones((2, 3)))}
    for coefficients, corners, message in (
        ({"A": {"X": 1e-3}}, {}, "no frame 'X': the frames are"),
        ({"A": {"A": 1e-3}}, {}, "'A' cannot be its own source"),
        ({"A": {"B": 1e-3}}, {"A": "top"}, "corner 'top' must be one of LL, LR"),
    ):
        with pytest.raises(ParameterError, match=message):
            lazyccd.correct_crosstalk(frames, coefficients, corners)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="must have the same"):
        lazyccd.correct_crosstalk({**frames, "B": frame(np.ones((2, 4)))}, {"A": {"B": 1e-3}})
    both = {name: frame(np.ones((2, 3)), unit="electron") for name in "AB"}
    with pytest.raises(UnitError, match="in 'electron'"):
        lazyccd.correct_crosstalk(both, {"A": {"B": 1e-3}})
    with pytest.raises(TypeError, match="by name, the fractions"):
        lazyccd.correct_crosstalk(frames, [[0, 1e-3], [0, 0]])  # type: ignore[arg-type]


# fringes and illumination


@pytest.fixture(scope="module")
def sky_with_fringes() -> tuple[Array, Array, Array]:
    """Return a flat-fielded exposure with stars and fringes of 150 electrons, the pattern, and the truth."""
    detector = Detector((420, 520), overscan=0, bias_structure_adu=0, bad_fraction=0, dark_e_s=0)
    sky = Sky(background_e_s=20.0, fringes_e_s=0.5, stars=300, galaxies=60)
    exposure = make_exposure(detector, sky, exposure_s=300.0)
    pixels = (exposure.pixels - detector.bias_adu) * detector.gain_e_per_adu / detector.flat
    return pixels, sky.fringe_pattern(detector.shape), exposure.truth.electrons


def test_simulated_fringes(sky_with_fringes: tuple[Array, Array, Array]) -> None:
    """The amplitude is found within its error, among stars, the same bits for any chunks, and is on record."""
    pixels, pattern, truth = sky_with_fringes
    fringe = frame(pattern, unit="", header="")
    whole = lazyccd.subtract_fringe(frame(pixels, unit="electron", header=FLAT), fringe)
    settled = lazyccd.settle(whole)
    scale, error = (settled.ccd.header[key] for key in ("FRNGSCAL", "FRNGSERR"))
    assert abs(scale - 150) < max(4 * error, 1.0)
    assert error < 1
    rest = whole["data"].values - truth
    sky = truth < 6200
    for values, amplitude in ((pixels - truth, 150), (rest, 0)):
        found = 2 * np.mean((values * pattern)[sky])
        assert found == pytest.approx(amplitude, abs=3)
    for chunk in (101, (420, 37)):
        part = lazyccd.subtract_fringe(frame(pixels, chunk, unit="electron", header=FLAT), fringe)
        np.testing.assert_array_equal(part["data"], whole["data"])
    np.testing.assert_array_equal(part.ccd.cutout(y=slice(7, 60))["data"], whole["data"][7:60])


def test_fringes_by_a_given_scale() -> None:
    """Data less the scaled frame, variances with its square, masks joined; units are converted."""
    ds = frame(np.full((4, 6), 100.0), unit="electron", header=FLAT, variance=np.full((4, 6), 9.0))
    fringe = frame(np.arange(24.0).reshape(4, 6), unit="electron", header="", variance=np.full((4, 6), 4.0))
    out = lazyccd.subtract_fringe(ds, lazyccd.add_mask(fringe, np.eye(4, 6)), scale=2.5)
    np.testing.assert_allclose(out["data"], 100 - 2.5 * np.arange(24).reshape(4, 6))
    np.testing.assert_allclose(out["uncertainty"], np.full((4, 6), 9 + 2.5**2 * 4))
    np.testing.assert_array_equal(out.ccd.bad, np.eye(4, 6))
    with pytest.raises(ParameterError, match="applied already"):
        lazyccd.subtract_fringe(out, fringe)
    with pytest.raises(UnitError, match="fringe frame unit 'adu'"):
        lazyccd.subtract_fringe(ds, frame(np.ones((4, 6))))


def test_fringes_that_cannot_be_fitted() -> None:
    """Nothing good, or a fringe frame without structure."""
    ds = frame(np.full((64, 64), 100.0), header=FLAT)
    with pytest.raises(ParameterError, match="no box of 8 x 8"):
        lazyccd.subtract_fringe(lazyccd.add_mask(ds, np.ones((64, 64))), frame(np.ones((64, 64)), unit=""))[
            "data"
        ].compute()
    with pytest.raises(ParameterError, match="no structure"):
        lazyccd.subtract_fringe(ds, frame(np.ones((64, 64)), unit=""))["data"].compute()


def test_illumination() -> None:
    """The same as a flat of its own, in its place, once; on trees one mean for all frames."""
    rng = np.random.default_rng(3)
    pixels, smooth = rng.uniform(100, 200, (30, 40)), 1 + 0.1 * np.linspace(-1, 1, 40)[None, :] * np.ones((30, 1))
    ds = frame(pixels, (7, 9), unit="electron", header=FLAT, variance=pixels)
    out = lazyccd.divide_illumination(ds, frame(3 * smooth, unit="", header=""))
    np.testing.assert_allclose(out["data"], pixels / smooth, rtol=1e-12)
    np.testing.assert_allclose(out["uncertainty"], pixels / smooth**2, rtol=1e-12)
    with pytest.raises(ParameterError, match="applied already"):
        lazyccd.divide_illumination(out, frame(smooth))
    with pytest.raises(ParameterError, match="no FLATCOR"):
        lazyccd.divide_illumination(frame(pixels), frame(smooth))
    tree = xr.DataTree.from_dict({"a": ds, "b": ds})
    both = xr.DataTree.from_dict({"a": frame(2 * smooth), "b": frame(4 * smooth)})
    together = lazyccd.divide_illumination(tree, both)
    np.testing.assert_allclose(together["a"]["data"], pixels / smooth * 1.5, rtol=1e-12)
    np.testing.assert_allclose(together["b"]["data"], pixels / smooth * 0.75, rtol=1e-12)
    with pytest.warns(RepeatedStepWarning, match="FLATCOR"):
        divided = lazyccd.flat_correct(tree, both)
    np.testing.assert_array_equal(divided["b"]["data"], together["b"]["data"])
