"""Mosaics of real frames against reproject, the steps at their borders, and what the default rejection takes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from reproject import reproject_interp

import lazyccd
from lazyccd.testing import Detector, Sky, make_exposure
from tests.ops.real_mosaics import corrected, dithers, exposures, good, steps, tiles

Array = npt.NDArray[Any]


def peer(frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int]) -> Array:
    """Return the mean of what reproject makes of each frame, NaN where it has none."""
    warps = [
        reproject_interp((good(frame), frame.ccd.wcs), wcs, shape_out=shape, order="bilinear")[0] for frame in frames
    ]
    count = np.isfinite(warps).sum(axis=0)
    return np.where(count > 0, np.nansum(warps, axis=0) / np.maximum(count, 1), np.nan)


def agree(ours: Array, theirs: Array) -> Array:
    """Return relative differences where both have data, which have to be in the same places but for 1 %."""
    mine, others = np.isfinite(ours), np.isfinite(theirs)
    assert np.count_nonzero(mine != others) < 0.01 * others.sum()
    return np.asarray((ours / theirs - 1)[mine & others])


def test_tiles_of_2mass(shared_data: Path) -> None:
    """Bilinear coadds are those of reproject: tiles whose corners meet in the middle of the grid."""
    frames = tiles(shared_data)[2:]
    wcs, shape = lazyccd.find_optimal_grid(frames)
    window = np.s_[900:1300, 400:700]
    part = wcs[window]
    mosaic = lazyccd.coadd(frames, part, (400, 300), order="bilinear", reject=None, maps=("coverage",))
    differences = agree(mosaic["data"].values, peer(frames, part, (400, 300)))
    # lazyccd scales by the ratio of the areas of pixels, 16 parts in a million here
    assert abs(np.median(differences)) < 3e-5
    assert np.quantile(np.abs(differences), 0.99) < 1e-4
    assert mosaic["coverage"].values.max() == 3
    whole = lazyccd.coadd(frames, wcs, shape, order="bilinear", reject=None)["data"][window]
    np.testing.assert_allclose(whole.values, mosaic["data"].values, rtol=1e-6)


@pytest.mark.parametrize(("match", "limit"), [("constant", 3), ("plane", 0.4)])
def test_borders_of_2mass_tiles(match: Any, limit: float, shared_data: Path) -> None:
    """Skies that differ by 6 counts agree afterwards, although the nebula fills a third of the field."""
    frames = tiles(shared_data)
    mosaic = lazyccd.coadd(frames, match=match, reject=None)
    before = steps(corrected(frames, mosaic))
    after = steps(corrected(frames, mosaic, lazyccd.mosaic_corrections(mosaic)))
    assert max(before) > 6
    assert max(after) < limit
    assert np.median(after) < 0.3 * np.median(before)


def test_dithers_of_efosc2(shared_data: Path) -> None:
    """Bilinear coadds of calibrated frames are those of reproject; skies that differ by 7 counts agree after matching."""
    frames = dithers(shared_data)
    wcs, _ = lazyccd.find_optimal_grid(frames)
    part = wcs[300:600, 300:650]
    plain = lazyccd.coadd(frames, part, (300, 350), order="bilinear", reject=None)
    assert np.quantile(np.abs(agree(plain["data"].values, peer(frames, part, (300, 350)))), 0.999) < 1e-5
    mosaic = lazyccd.coadd(frames, match="plane", reject=None)
    before = steps(corrected(frames, mosaic))
    after = steps(corrected(frames, mosaic, lazyccd.mosaic_corrections(mosaic)))
    assert max(before) > 6
    assert max(after) < 0.4


def test_exposures_of_decam(shared_data: Path) -> None:
    """TPV, weights and data quality: the places of reproject, no bad pixel, uncertainties that the scatter bears out."""
    frames = [frame.ccd.subtract_sky(box=64) for frame in exposures(shared_data)]
    wcs, shape = lazyccd.find_optimal_grid(frames)
    mosaic = lazyccd.coadd(frames, wcs, shape, order="bilinear", reject=None).compute()
    theirs = peer(frames, wcs, shape)
    np.testing.assert_array_equal(np.isfinite(mosaic["data"]), np.isfinite(theirs))
    difference = (mosaic["data"].values - theirs)[np.isfinite(theirs)]
    # of a sky noise of 15; areas of distorted pixels, which reproject leaves out, are 0.7 % off those at the reference point
    assert np.median(np.abs(difference)) < 0.1
    assert np.quantile(np.abs(difference), 0.99) < 1
    deep = lazyccd.coadd(
        frames, wcs, shape, weights="pixel", flux_scale="overlaps", match="constant", maps=("coverage",)
    )
    table = lazyccd.mosaic_corrections(deep)
    # zero points of the second and the third frame, from their headers
    ratio = table["flux_ratio"][2] / table["flux_ratio"][1]
    assert ratio == pytest.approx(10 ** (0.4 * (30.537 - 29.915)), rel=0.08)
    everywhere = (deep["coverage"] == 3).values
    data = deep["data"].values[everywhere]
    sky = np.median(data)
    scatter = 1.4826 * np.median(np.abs(data - sky))
    assert scatter / np.median(deep["uncertainty"].values[everywhere]) == pytest.approx(1, abs=0.15)


def dithered(pixels: float) -> WCS:
    """Return the WCS of an exposure whose sources are moved by so many pixels along both axes."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 2], [-1e-4, 1e-4]
    wcs.wcs.crpix = [80.5 + pixels, 80.5 + pixels]
    return wcs


def simulated(count: int, dithers: int = 0) -> tuple[list[xr.Dataset], Array, Array]:
    """Return frames without sky that drift by 0.2 pixels along both axes each, and a streak and hot pixels of the detector."""
    detector, sky = Detector((160, 160)), Sky(stars=20, galaxies=3)
    rng, found = np.random.default_rng(3), []
    y, x = np.mgrid[:160, :160]
    streak, hot = 400 * np.exp(-0.5 * ((y - 0.7 * x - 30) / 1.6) ** 2), np.zeros(detector.shape)
    hot[tuple(rng.integers(10, 150, (2, 40)))] = 2000
    for number in range(count):
        moved = 0.2 * number + (rng.integers(-dithers, dithers + 1) if dithers else 0)
        electrons = make_exposure(detector, sky, dither=(moved, moved), seed=number).truth.electrons
        sigma = np.sqrt(electrons + 36)
        data = electrons - 60 * sky.background_e_s + rng.normal(0, sigma)
        uncertainty = StdDevUncertainty(sigma)
        found.append(lazyccd.from_ccddata(CCDData(data, unit="electron", uncertainty=uncertainty, wcs=dithered(moved))))
    return found, streak, hot


def traces(frames: list[xr.Dataset], added: list[Array], **options: Any) -> tuple[Array, Array]:
    """Return what is left of something that is added to frames: without rejection, and with it, in standard deviations."""
    wcs, shape = dithered(0), (160, 160)
    spoiled = [
        frame.ccd.add(lazyccd.from_ccddata(CCDData(more, unit="electron")))
        for frame, more in zip(frames, added, strict=True)
    ]
    clean = lazyccd.coadd(frames, wcs, shape, **options)
    plain = lazyccd.coadd(spoiled, wcs, shape, **options | {"reject": None})
    clipped = lazyccd.coadd(spoiled, wcs, shape, **options)
    sky = np.abs(clean["data"].values) < 4 * clean["uncertainty"].values
    left = [(one["data"] - clean["data"]).values / clean["uncertainty"].values for one in (plain, clipped)]
    return np.abs(left[0][sky]), np.abs(left[1][sky])


def test_a_streak_is_clipped() -> None:
    """A satellite as bright as 33 standard deviations of a frame is gone from the sky."""
    frames, streak, _ = simulated(9)
    plain, clipped = traces(frames, [streak if number == 4 else 0 * streak for number in range(9)])
    assert plain.max() > 10
    assert clipped.max() < 4
    assert np.sqrt(np.mean(clipped[plain > 3] ** 2)) < 0.5


@pytest.mark.parametrize(("count", "dithers", "order"), [(9, 6, "lanczos3"), (30, 0, "bilinear"), (30, 0, "lanczos3")])
def test_hot_pixels_that_drift_are_clipped(count: int, dithers: int, order: Any) -> None:
    """Hot pixels of 170 standard deviations are gone between frames that are dithered, or drift by 0.2 pixels each."""
    frames, _, hot = simulated(count, dithers)
    plain, clipped = traces(frames, [hot] * count, order=order)
    assert plain.max() > 130
    assert clipped.max() < 3
    assert np.sqrt(np.mean(clipped[plain > 3] ** 2)) < 0.7
    _, blotted = traces(frames, [hot] * count, order=order, reject="blotted")
    assert blotted.max() < 2
    assert np.sqrt(np.mean(blotted[plain > 3] ** 2)) < 0.5
