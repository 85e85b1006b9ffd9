"""Means of frames on cells of an output grid, against exact coordinates of every pixel; corrections of warped frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel

from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.resample.cells import corrected, mean_cells, sum_cells
from lazyccd.sections import Region

Array = npt.NDArray[Any]
PLACE = (2, 1, 9, 11)
CELL = (16, 24)


def tangent(scale: float, angle: float, crpix: tuple[float, float], crval: tuple[float, float] = (10.0, 41.0)) -> WCS:
    """Return a WCS; the angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = crval, crpix
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


FRAME, GRID = tangent(1e-3, 25, (60, 50), (10.02, 41.01)), tangent(8e-4, 0, (100, 90))
SHAPE, GRID_SHAPE = (150, 130), (220, 240)


def planes(dtype: str, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return data with NaN, variance and mask."""
    rng = np.random.default_rng(seed)
    data = rng.normal(100, 5, SHAPE).astype(dtype)
    data[rng.random(SHAPE) < 0.02] = np.nan
    return data, rng.uniform(20, 30, SHAPE).astype(dtype), (rng.random(SHAPE) < 0.03).astype(np.uint16) * 5


def sums(block: Block) -> Array:
    """Return the sums of a block."""
    coordinates = SkyMapping(FrozenWCS.of(FRAME), FrozenWCS.of(GRID), GRID_SHAPE)
    return sum_cells(block, coordinates=coordinates, cell=CELL, place=PLACE, bad_bits=4)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("with_variance", [True, False])
def test_sums_are_those_of_exact_coordinates(dtype: str, with_variance: bool) -> None:
    """Each good pixel counts in the cell of its centre, in units of the output's pixels."""
    data, variance, mask = planes(dtype)
    found = sums(Block(Region.full(SHAPE), data, variance if with_variance else None, mask))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    u, v = pixel_to_pixel(FRAME, GRID, x.astype(float), y.astype(float))
    area = (1e-3 / 8e-4) ** 2
    good = np.isfinite(data) & (mask & 4 == 0)
    row, column = (np.floor((p + 0.5) / c).astype(int) - o for p, c, o in zip((v, u), CELL, PLACE[:2], strict=True))
    good &= (row >= 0) & (row < PLACE[2]) & (column >= 0) & (column < PLACE[3])
    values = data.astype(float) / area
    last = variance.astype(float) / area**2 if with_variance else values**2
    expected = np.zeros((4, *PLACE[2:]))
    for k, plane in enumerate((np.ones(SHAPE), np.full(SHAPE, area), values, last)):
        np.add.at(expected[k], (row[good], column[good]), plane[good])
    np.testing.assert_array_equal(found[0], expected[0])
    # the area of a pixel differs by 1e-6 over the field
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5)


def test_parts_add_up_to_the_whole() -> None:
    """Tiles give the same pixels to the same cells."""
    data, variance, mask = planes("f8")
    whole = sums(Block(Region.full(SHAPE), data, variance, mask))
    parts = [Region(0, 70, 0, 61), Region(70, 150, 0, 61), Region(0, 70, 61, 130), Region(70, 150, 61, 130)]
    found = [sums(Block(r, data[r.slices], variance[r.slices], mask[r.slices])) for r in parts]
    np.testing.assert_allclose(np.sum(found, axis=0), whole, rtol=1e-12)
    np.testing.assert_array_equal(np.sum(found, axis=0)[0], whole[0])


def test_means_have_honest_variances() -> None:
    """The means of covered cells scatter as they say, by the variance plane and by the scatter of pixels; others are NaN."""
    pulls: dict[bool, list[Array]] = {True: [], False: []}
    for seed in range(30):
        data, variance, _ = planes("f8", seed)
        for has_variance, pull in pulls.items():
            block = Block(Region.full(SHAPE), data, np.full_like(variance, 25) if has_variance else None)
            mean, spread = mean_cells([sums(block)], cell=CELL, has_variance=has_variance)
            pull.append((mean - 100 / (1e-3 / 8e-4) ** 2) / np.sqrt(spread))
    for pull in pulls.values():
        assert 0.2 < np.isfinite(pull).mean() < 0.9
        assert abs(np.nanstd(pull) - 1) < 0.05
        assert abs(np.nanmean(pull)) < 0.1


def test_a_pixel_off_the_grid_counts_nowhere() -> None:
    """A frame on the other side of the sky has no sums."""
    away = tangent(1e-3, 0, (60, 50), (190.0, -41.0))
    coordinates = SkyMapping(FrozenWCS.of(away), FrozenWCS.of(GRID), GRID_SHAPE)
    block = Block(Region.full(SHAPE), planes("f4")[0])
    assert not sum_cells(block, coordinates=coordinates, cell=CELL, place=PLACE, bad_bits=0).any()


def test_corrections_are_factors_and_planes() -> None:
    """Data times the factor less the plane, variances times its square; each row is for one frame."""
    rng = np.random.default_rng(1)
    region = Region(10, 14, 20, 26)
    data, variance = (rng.uniform(1, 2, region.shape).astype("f4") for _ in range(2))
    mask = np.ones(region.shape, np.uint16)
    rows = np.array([[1.0, 0, 0, 0, 7], [2.0, 5, 0.5, -0.25, 7]])
    request = Request(region, frozenset({"data", "variance", "mask"}))
    out = corrected(request, Block(region, data, variance, mask), corrections=rows, row=1, middle=(12.0, 20.0))
    y, x = np.mgrid[10:14, 20:26]
    np.testing.assert_allclose(out.data, 2 * data - (5 + 0.5 * (y - 12) - 0.25 * (x - 20)), rtol=1e-6)
    np.testing.assert_allclose(out.variance, 4 * variance, rtol=1e-6)
    np.testing.assert_array_equal(out.mask, mask)
    assert out.data is not None
    assert out.data.dtype == np.float32
    one = corrected(
        request._replace(planes=frozenset({"data"})), Block(region, data), corrections=rows, row=0, middle=(0.0, 0.0)
    )
    np.testing.assert_array_equal(one.data, data)
