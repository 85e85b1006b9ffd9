"""What a warp fills: the pixels that exact coordinates of every output pixel say, for any two WCS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.wcs import WCS
from hypothesis import given

import lazyccd
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping
from tests.frame.test_sky_footprint import CASES, make_wcs, pairs

WHOLE = (181, 360)


def assert_same_pixels(source: WCS, shape: tuple[int, int], target: WCS, size: tuple[int, int]) -> int:
    """Compare what a warp fills with a slow one, pixel by pixel; return how many there are."""
    ds = lazyccd.from_ccddata(CCDData(np.ones(shape, "f4"), unit="adu", wcs=source))
    filled = np.isfinite(lazyccd.wcs_project(ds, target, size, order="nearest").data.values)
    exact = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), shape).exact()
    y, x = (v.reshape(size) for v in exact(*np.indices(size, float).reshape(2, -1)))
    # how far inside of the image, which is negative outside of it
    depth = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x)) + 0.5
    depth[~np.isfinite(depth)] = -1
    # at the very edge a lattice that is right to 1e-4 pixel, and steps of 1/1024 pixel, decide
    np.testing.assert_array_equal(filled[np.abs(depth) > 2e-3], (depth > 0)[np.abs(depth) > 2e-3])
    return int(filled.sum())


@given(pairs())
def test_a_warp_fills_what_lies_on_the_frame(pair: tuple[Any, ...]) -> None:
    """Frames and grids of any projection, place, scale and frame of the sky, from arc seconds to all of it."""
    assert_same_pixels(*pair)


@pytest.mark.parametrize("name", CASES)
def test_poles_and_seams_are_filled(name: str) -> None:
    """Poles, the wrap of right ascension in frame and grid, a grid inside of a frame."""
    source, shape, target, size, _ = CASES[name]
    assert assert_same_pixels(source, shape, target, size) > 10


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        # all of the sky in the input, whose seam lies in the grid, or which begins at its reference point
        (make_wcs("CAR", (0.0, 0.0), WHOLE, 1.0), make_wcs("ZEA", (180.0, 40.0), (500, 500), 0.5), (500, 500)),
        (
            make_wcs("CAR", (0.0, 0.0), WHOLE, 1.0, shift=(0, -0.5)),
            make_wcs("TAN", (0.0, 90.0), (300, 300), 0.2),
            (300, 300),
        ),
        (make_wcs("AIT", (0.0, 0.0), WHOLE, 1.0), make_wcs("CAR", (180.0, 0.0), (400, 800), 0.45), (400, 800)),
        (make_wcs("HPX", (0.0, 0.0), (320, 400), 1.0), make_wcs("TAN", (45.0, -60.0), (200, 300), 0.3), (200, 300)),
        # a grid of all of the sky in 128 rows of cells, of which most have no sky
        (make_wcs("SIN", (266.0, -29.0), (150, 150), 0.7), make_wcs("AIT", (0.0, 0.0), (700, 1400), 0.26), (700, 1400)),
    ],
)
def test_frames_of_all_of_the_sky(source: WCS, target: WCS, size: tuple[int, int]) -> None:
    """Grids that are finer than the lattice is coarse."""
    shape = tuple(round(2 * n - 1) for n in source.wcs.crpix[::-1]) if source.wcs.crpix[0] > 1 else WHOLE
    assert assert_same_pixels(source, shape, target, size) > 1000


@pytest.mark.parametrize(("scale", "own"), [(0.02, 1e-3), (0.2, 1e-2), (3.0, 0.1)])
def test_a_distorted_frame_inside_of_one_cell_is_found(scale: float, own: float) -> None:
    """The polynomial says nothing where the nodes of a coarse grid lie."""
    source = make_wcs("TAN-SIP", (41.3, 20.2), (60, 80), own)
    size = (1300, 300) if scale == 0.02 else (300, 300)
    assert assert_same_pixels(source, (60, 80), make_wcs("CAR", (40.0, 0.0), (300, 300), scale), size) > 0
