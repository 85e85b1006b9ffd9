"""Order statistics of arrays in memory, and samples of frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from scipy import ndimage

import lazyccd
from lazyccd.frame.core import resolve
from lazyccd.kernels.groups import groups_of, most_of_nine
from lazyccd.ops.sample import ENOUGH, FEWEST_SAMPLED, flagged_pixels, median, quantile, robust_std, sampled_bands
from lazyccd.sections import Region


def arrays() -> list[np.ndarray]:
    """Return arrays of which a sample says little, or something wrong, or that have values that are none."""
    rng = np.random.default_rng(3)
    size = 5 * FEWEST_SAMPLED + 1
    normal = rng.normal(0, 1, size)
    holes = normal.copy()
    holes[::3], holes[1], holes[2] = np.nan, np.inf, -np.inf
    stripes = np.tile([0.0, 1.0, 2.0, 3.0], size // 4)
    return [
        normal,
        np.sort(normal),
        normal.astype(np.float32).reshape(-1, 1),
        rng.poisson(3, size).astype(float),
        np.full(size, 7.0),
        stripes.reshape(-1, 4),
        holes,
        1e9 + normal,
        normal[:-1].reshape(40, -1)[:, ::2],
        np.where(np.arange(size) < size // 2, -1e30, normal),
        normal[:7],
        np.arange(size),
    ]


@pytest.mark.parametrize("number", range(len(arrays())))
def test_quantiles_are_those_of_numpy(number: int) -> None:
    """To the bit for the median, whatever a sample of the values says."""
    values = arrays()[number]
    known = values[np.isfinite(values)].astype(float)
    assert median(values) == np.median(known)
    for part in (0.0, 0.1, 0.25, 0.8, 1.0):
        assert quantile(values, part) == pytest.approx(np.quantile(known, part), rel=1e-12, abs=1e-12)
    away = np.abs(known - np.median(known))
    kept = known[away <= 4 * max(1.482602218505602 * np.median(away), 0.5)]
    assert robust_std(values) == pytest.approx(kept.std(), rel=1e-9, abs=1e-12)


def test_nothing_has_no_quantile() -> None:
    """Neither has what is not finite."""
    for values in (np.zeros(0), np.full(9, np.nan), np.full(2 * FEWEST_SAMPLED, np.inf)):
        assert np.isnan(median(values))
        assert np.isnan(robust_std(values))


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_groups_are_those_of_scipy(diagonal: bool, share: float) -> None:
    """With the same numbers; pixels at the two ends of rows do not touch."""
    flags = np.random.default_rng(1).random((70, 61)) < share
    labels, count = ndimage.label(flags, np.ones((3, 3)) if diagonal else None)
    places, numbers, found = groups_of(flags, diagonal=diagonal)
    assert found == count
    assert np.array_equal(numbers, labels.ravel()[places])
    assert np.array_equal(places, np.flatnonzero(flags))


def test_five_of_nine_are_above_where_their_median_is() -> None:
    """Also at the edges, where the image goes on in a mirror."""
    pixels = np.random.default_rng(2).normal(0, 1, (50, 40))
    filtered = ndimage.median_filter(pixels, 3, mode="reflect")
    for threshold in (-0.5, 0.0, 0.3):
        assert np.array_equal(most_of_nine(pixels > threshold), filtered > threshold)


def test_flagged_pixels_of_each_plane() -> None:
    """They are counted whatever the chunks; a frame without a mask has none."""
    pixels = np.random.default_rng(4).random((300, 200))
    ds = lazyccd.from_ccddata(CCDData(pixels, unit=u.electron))
    assert flagged_pixels(resolve(ds)) == ({}, 0)
    ds = lazyccd.add_mask(lazyccd.add_mask(ds, pixels > 0.9, plane="CR"), pixels > 0.7, plane="SAT")
    ds = lazyccd.add_mask(ds, pixels < 0.2, plane="INTERP")
    for chunk in (300, 77):
        found = flagged_pixels(resolve(lazyccd.rechunk(ds, chunk)))
        assert found.bad == (pixels > 0.7).sum()
        counts = {"SAT": pixels > 0.7, "CR": pixels > 0.9, "INTERP": pixels < 0.2}
        assert found.planes == {name: flags.sum() for name, flags in counts.items()}


@pytest.mark.parametrize("region", [Region(10, 3010, 5, 4005), Region(0, 4 * ENOUGH, 0, 2), Region(0, 5, 0, ENOUGH)])
def test_bands_are_within_their_region(region: Region) -> None:
    """None overlaps another, and together they have about as many pixels as tell a level."""
    bands = sampled_bands(region)
    assert all(region.y0 <= band.y0 < band.y1 <= region.y1 for band in bands)
    assert all(one.y1 <= other.y0 for one, other in pairwise(bands))
    assert {(band.x0, band.x1) for band in bands} == {(region.x0, region.x1)}
    assert 0.5 * ENOUGH <= sum(band.size for band in bands) <= max(ENOUGH, len(bands) * (region.x1 - region.x0))
