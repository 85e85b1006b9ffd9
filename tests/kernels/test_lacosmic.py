"""The halo of LA Cosmic: what is enough, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astroscrappy
import numpy as np
import numpy.typing as npt
import pytest
from astropy.nddata import CCDData

import lazyccd
from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic, detect

Array = npt.NDArray[Any]
LEVELS = (100.0, 150.0)
SETTINGS = LACosmic(satlevel=np.inf)


@pytest.fixture
def image() -> Array:
    """Return an image that was searched for (make_long_reach.py): detections reach across 24 columns."""
    pixels: Array = np.load(Path(__file__).with_name("long_reach.npy"))
    return pixels


def cut_result(image: Array, column: int, halo: int) -> tuple[Array, Array]:
    """Return what is found from a column on, with so many columns before it."""
    part = np.ascontiguousarray(image[:, column - halo :])
    rays, clean = detect(part, None, SETTINGS, levels=LEVELS)
    return rays[:, halo:], clean[:, halo:]


def test_a_halo_of_41_is_enough_and_20_is_not(image: Array) -> None:
    """The default methods have a halo of 41 pixels; on this image 20, and even 24, give other pixels."""
    assert SETTINGS.halo == 41
    rays, clean = detect(image, None, SETTINGS, levels=LEVELS)
    wrong: dict[int, int] = {20: 0, 24: 0, 41: 0}
    for halo in wrong:
        for column in range(45, 75):
            mine = cut_result(image, column, halo)
            same = np.array_equal(mine[0], rays[:, column:]) and np.array_equal(mine[1], clean[:, column:])
            wrong[halo] += not same
    assert wrong[41] == 0
    assert wrong[20] >= wrong[24] > 0


@pytest.mark.parametrize("column", [60, 62, 63, 66])
def test_chunks_where_detections_reach_far(image: Array, column: int) -> None:
    """The lazy frame gives the library's bits on that image, wherever it is cut."""
    expected = astroscrappy.detect_cosmics(image, satlevel=65535.0)
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(image, unit="electron")), (24, column))
    ours = lazyccd.cosmicray_lacosmic(ds).compute()
    rays = (ours["mask"].values & 4) != 0
    np.testing.assert_array_equal(rays, expected[0])
    np.testing.assert_array_equal(ours["data"].values[rays], expected[1][rays])


@pytest.mark.parametrize(
    ("settings", "halo"),
    [
        (LACosmic(niter=1), 11),
        (LACosmic(niter=4), 41),
        (LACosmic(niter=4, sepmed=False), 34),
        (LACosmic(niter=4, psfk=((0.0,) * 7,) * 7), 56),
        (LACosmic(niter=4, psfk=((0.0,) * 7,) * 7, sepmed=False), 48),
    ],
)
def test_halos_of_the_methods(settings: LACosmic, halo: int) -> None:
    """The bounds of their dependencies: 10 n + 1 for separable medians, 8 n + 2 without, 14 n and 12 n by convolution."""
    assert settings.halo == halo
