"""Hot pixels of frames that drift are gone from the default coadd, and stars are not touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from scipy.special import erf

import lazyccd
from lazyccd.kernels.hot_pixels import FEWEST, PART, SHARPER, find_sharp, low_values, not_on_sky

Array = npt.NDArray[Any]

SIDE = 110


def make_wcs(y: float, x: float, scale: float = 1e-4) -> WCS:
    """Return the WCS of an exposure whose sources are moved by so many pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 2], [-scale, scale]
    wcs.wcs.crpix = [SIDE / 2 + 0.5 + x, SIDE / 2 + 0.5 + y]
    return wcs


def make_stars(moved: tuple[float, float], fwhm: float, stars: Array) -> Array:
    """Return the light of stars, integrated over each pixel."""
    edges, width = np.arange(SIDE + 1) - 0.5, fwhm / 2.3548 * np.sqrt(2)
    image = np.zeros((SIDE, SIDE))
    for y, x, flux in stars:
        along_y, along_x = (np.diff(erf((edges - at) / width)) / 2 for at in (y + moved[0], x + moved[1]))
        image += flux * np.outer(along_y, along_x)
    return image


def make_frames(
    moved: list[tuple[float, float]], stars: Array, fwhms: list[float], hot: float, *, uncertain: bool = True
) -> list[xr.Dataset]:
    """Return frames of stars on a sky, with or without hot pixels at fixed places of the detector."""
    frames = []
    for number, (place, fwhm) in enumerate(zip(moved, fwhms, strict=True)):
        light = make_stars(place, fwhm, stars)
        sigma = np.sqrt(light + 136)
        data = light + 50 + np.random.default_rng(number).normal(0, sigma)
        data[12 : SIDE - 10 : 21, 12 : SIDE - 10 : 21] += hot
        uncertainty = StdDevUncertainty(sigma) if uncertain else None
        frames.append(
            lazyccd.from_ccddata(CCDData(data, unit="electron", uncertainty=uncertainty, wcs=make_wcs(*place)))
        )
    return frames


# of 9 frames, the first and last hold a fifth of a hot pixel at its middle place
@pytest.mark.parametrize(
    ("count", "axes", "order"),
    [
        (9, 1, "lanczos3"),
        (10, 2, "lanczos3"),
        (12, 1, "lanczos3"),
        (20, 1, "lanczos3"),
        (20, 2, "lanczos3"),
        (30, 1, "lanczos3"),
        (30, 2, "lanczos3"),
        (30, 1, "bilinear"),
        (20, 2, "area"),
    ],
)
def test_hot_pixels_of_frames_that_drift_are_gone(count: int, axes: int, order: Any) -> None:
    """Those of 170 standard deviations, at 0.2 pixels a frame; what is left is below 3 standard deviations of the coadd."""
    moved = [(0.2 * k * (axes == 2), 0.2 * k) for k in range(count)]
    frames = {hot: make_frames(moved, np.zeros((0, 3)), [2.0] * count, hot) for hot in (0.0, 2000.0)}
    grid = (make_wcs(0, 0), (SIDE, SIDE))
    clean = lazyccd.coadd(frames[0.0], *grid, order=order, reject="clipped")
    mosaic = lazyccd.coadd(frames[2000.0], *grid, order=order)
    plain = lazyccd.coadd(frames[2000.0], *grid, order=order, reject=None)
    left = np.abs((mosaic["data"] - clean["data"]) / mosaic["uncertainty"]).values
    assert np.nanmax(np.abs((plain["data"] - clean["data"]) / clean["uncertainty"])) > 130
    assert np.nanmax(left) < 3
    assert np.isfinite(mosaic["data"].values[8:-8, 8:-8]).all()


@pytest.mark.parametrize("fwhm", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("dither", [0.0, 0.5, 3.0])
def test_no_pixel_of_a_star_is_left_out(fwhm: float, dither: float) -> None:
    """Not of undersampled stars either, whether they lie on the same pixels in all frames or not."""
    rng = np.random.default_rng(1)
    stars = np.column_stack([rng.uniform(5, SIDE - 5, (80, 2)), 10 ** rng.uniform(2.5, 6, 80)])
    moved = [tuple(rng.uniform(-dither, dither, 2)) for _ in range(8)]
    for uncertain in (True, False):
        frames = make_frames(moved, stars, [fwhm] * 8, 0.0, uncertain=uncertain)
        grid = (make_wcs(0, 0), (SIDE, SIDE))
        with_search, without = (
            lazyccd.coadd(frames, *grid, reject=rule, maps=("coverage",)) for rule in ("auto", "clipped")
        )
        np.testing.assert_array_equal(with_search["coverage"].values, without["coverage"].values)
        np.testing.assert_array_equal(with_search["data"].values, without["data"].values)


def test_stars_are_not_touched_whatever_the_seeing() -> None:
    """From 1.5 to 4.5 pixels FWHM, nothing of the bright ones is left out."""
    rng = np.random.default_rng(2)
    stars = np.array([[y, x, 3e5] for y in range(20, 100, 20) for x in range(20, 100, 20)]) + rng.uniform(0, 1, (16, 3))
    moved = [tuple(rng.uniform(-2, 2, 2)) for _ in range(12)]
    frames = make_frames(moved, stars, list(np.linspace(1.5, 4.5, 12)), 0.0)
    found = [
        lazyccd.coadd(frames, make_wcs(0, 0), (SIDE, SIDE), reject=rule)["data"].values for rule in ("auto", "clipped")
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("scale", [0.5e-4, 2e-4])
def test_pixels_of_the_mosaic_of_another_size(scale: float) -> None:
    """Hot pixels are looked for at the scale of the frames."""
    moved = [(0.2 * k, 0.2 * k) for k in range(12)]
    side = round(SIDE * 1e-4 / scale)
    wcs = make_wcs(0, 0, scale)
    wcs.wcs.crpix = [side / 2 + 0.5] * 2
    clean, spoiled = (make_frames(moved, np.zeros((0, 3)), [2.0] * 12, hot) for hot in (0.0, 2000.0))
    mosaic = lazyccd.coadd(spoiled, wcs, (side, side))
    expected = lazyccd.coadd(clean, wcs, (side, side), reject="clipped")
    left = np.abs((mosaic["data"] - expected["data"]) / mosaic["uncertainty"]).values
    assert np.nanmax(left) < 3.5


def test_frames_on_other_scales() -> None:
    """Faint frames do not make stars of bright ones hot: scales that frames state count."""
    stars = np.array([[40.3, 50.1, 3e5], [70.0, 30.5, 1e5]])
    moved = [(0.3 * k, 0.2 * k) for k in range(8)]
    frames = make_frames(moved, stars, [1.1] * 8, 0.0)
    scales = [1.0, 10.0] * 4
    frames = [lazyccd.multiply(frame, 1 / scale) for frame, scale in zip(frames, scales, strict=True)]
    found = [
        lazyccd.coadd(frames, make_wcs(0, 0), (SIDE, SIDE), reject=rule, flux_scale=scales)["data"].values
        for rule in ("auto", "clipped")
    ]
    np.testing.assert_array_equal(*found)


def test_a_cut_out_and_the_inputs_of_a_pixel_agree() -> None:
    """What the whole mosaic says of a pixel, a cut-out, frames_at, stamps and explain say too."""
    moved = [(0.2 * k, 0.2 * k) for k in range(10)]
    frames = make_frames(moved, np.zeros((0, 3)), [2.0] * 10, 2000.0)
    maps = ("n_used", "n_rejected", "coverage")
    mosaic = lazyccd.coadd(frames, make_wcs(0, 0), (SIDE, SIDE), maps=maps)
    whole = mosaic.compute()
    part = mosaic.ccd.cutout(y=slice(20, 50), x=slice(25, 66)).compute()
    xr.testing.assert_identical(part.drop_attrs(), whole.isel(y=slice(20, 50), x=slice(25, 66)).drop_attrs())
    y, x = 32, 53
    used = int(whole["n_used"][y, x])
    assert used < 10
    assert used + whole["n_rejected"][y, x] == whole["coverage"][y, x]
    table = mosaic.ccd.frames_at((y, x))
    assert table["used"].sum() == used
    assert (table["note"] == "masked").sum() == 10 - whole["coverage"][y, x]
    # the grid is that of the mosaic, not of what frames are compared with
    sky = make_wcs(0, 0).pixel_to_world(x, y)
    assert mosaic.ccd.frames_at(sky)["y", "x", "note"].pformat() == table["y", "x", "note"].pformat()
    stamps = mosaic.ccd.stamps((y, x), 5)
    assert np.isfinite(stamps["data"].values[:, 2, 2]).sum() == whole["coverage"][y, x]
    history = mosaic.ccd.explain(y, x)
    notes = history["note"][history["step"] == "to the stack"]
    assert (notes == "used").sum() == used


def test_a_cut_out_reads_only_frames_that_lie_there(tmp_path: Path) -> None:
    """Although others lie on the chunk of what frames are compared with."""
    names = []
    for number in range(12):
        names.append(str(tmp_path / f"{number}.fits"))
        header = make_wcs(0, 400 * (number >= 6)).to_header()
        data = np.random.default_rng(number).normal(0, 1, (SIDE, SIDE)).astype(np.float32)
        fits.writeto(names[-1], data, header)
    grid = (make_wcs(0, 400), (SIDE, 550))
    whole = lazyccd.coadd(names, *grid, unit="adu")["data"].values
    mosaic = lazyccd.coadd(names, *grid, unit="adu")
    for name in names[:6]:
        Path(name).unlink()
    left = np.flatnonzero(np.isfinite(whole[50]))[:20]
    columns = slice(int(left[0]), int(left[-1]) + 1)
    part = mosaic.ccd.cutout(y=slice(30, 60), x=columns)["data"]
    np.testing.assert_array_equal(part.values, whole[30:60, columns])


def test_rules_that_are_named_are_taken_as_they_are() -> None:
    """``clipped`` is that rule alone; the header says what was done."""
    frames = make_frames([(0.2 * k, 0.0) for k in range(6)], np.zeros((0, 3)), [2.0] * 6, 2000.0)
    texts = {
        rule: lazyccd.coadd(frames, make_wcs(0, 0), (SIDE, SIDE), reject=rule).attrs["header"]
        for rule in ("auto", "clipped")
    }
    assert "hot pixels that the other frames do not have" in texts["auto"]
    assert "hot pixels" not in texts["clipped"]
    few = lazyccd.coadd(frames[: FEWEST - 1], make_wcs(0, 0), (SIDE, SIDE)).attrs["header"]
    assert "hot pixels" not in few


def test_low_values_against_a_slow_reference(rng: np.random.Generator) -> None:
    """The second lowest, or the one above a fifth of the inputs; NaN of fewer than five."""
    values = rng.normal(0, 1, (23, 200)).astype(np.float32)
    use = rng.random(values.shape) < rng.random(200)
    skies = rng.normal(0, 1, 23)
    low = np.empty(200)
    low_values(values, use, skies, low)
    for m in range(200):
        inputs = np.sort((values[:, m] - skies)[use[:, m]])
        expected = inputs[max(2, len(inputs) // PART) - 1] if len(inputs) >= FEWEST else np.nan
        np.testing.assert_allclose(low[m], expected, rtol=1e-12)
    assert np.isnan(low).any()


def test_sharp_pixels() -> None:
    """A single pixel, one beside two others, and at an edge; not what is bad, or what has light around it."""
    data = np.zeros((9, 12))
    data[1, 1] = data[0, 5] = data[6, 6] = data[6, 7] = data[7, 6] = 100.0
    data[4:7, 1:4], data[5, 2] = 30.0, 100.0
    bad = np.zeros(data.shape, bool)
    data[2, 9], bad[2, 9] = 100.0, True
    flags = np.zeros(data.shape, np.uint8)
    count = find_sharp(data, np.empty((0, 0)), bad, 0.0, 1.0, (0, 0), flags)
    assert {tuple(map(int, place)) for place in np.argwhere(flags)} == {(1, 1), (0, 5), (6, 6), (6, 7), (7, 6)}
    assert count == 5
    assert SHARPER * 30 + 5 > 100 - 5


def test_places_on_the_sky() -> None:
    """Light within two pixels tells a star; where nothing is known, nothing is hot."""
    low = np.zeros((10, 10))
    low[4, 4], low[8, 8] = 20.0, np.nan
    y, x = np.array([4.2, 6.2, 7.5, 8.2, np.nan]), np.array([5.4, 4.0, 2.0, 7.9, 1.0])
    hot = np.zeros(5, bool)
    not_on_sky(np.full(5, 75.0), y, x, low, (0, 0), hot)
    assert hot.tolist() == [False, True, True, False, False]
