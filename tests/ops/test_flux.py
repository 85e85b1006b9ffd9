"""Flux ratios of overlapping frames: truth, noise, frames that state a wrong scale, order of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lazyccd.errors import ParameterError
from lazyccd.ops.mosaic.flux import check_flux, measure_flux
from lazyccd.ops.mosaic.matching import FrameCells

Array = npt.NDArray[Any]


def field(density: float = 0.05, seed: int = 1) -> Array:
    """Return the mean flux of stars in each cell."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((60, 60)) < density, rng.pareto(1.2, (60, 60)) + 1, 0)


def seen(
    stars: Array, corner: tuple[int, int], factor: float = 1.0, *, seed: int = 0, slope: float = 0.0
) -> FrameCells:
    """Return a frame of 24 x 24 cells with noise of 0.05, stars that vary by 3 %, and a sky of its own."""
    rng = np.random.default_rng([seed, *corner])
    (y, x), size = corner, 24
    values = stars[y : y + size, x : x + size] * rng.normal(1, 0.03, (size, size)) * factor
    values += rng.uniform(0, 100) + slope * np.arange(size) + rng.normal(0, 0.05, (size, size))
    return FrameCells(values, np.full((size, size), 0.05**2), corner, f"frame {corner} {seed}")


CORNERS = [(0, 0), (0, 12), (12, 0), (12, 12), (6, 6), (24, 12), (12, 24), (24, 24)]


def test_ratios_are_true_whatever_the_sky() -> None:
    """Eight frames with factors and sloping skies: pulls of the ratios are of unit width or less."""
    pulls = []
    for seed in range(10):
        factors = np.random.default_rng(seed).uniform(0.5, 2, 8)
        frames = [
            seen(field(seed=seed), c, f, seed=seed, slope=0.3 * k - 1)
            for k, (c, f) in enumerate(zip(CORNERS, factors, strict=True))
        ]
        found = measure_flux(frames)
        assert (found.group == found.group[0]).all()
        off = np.log(found.ratio) - np.log(factors)
        pulls.append((off - np.median(off)) / found.error)
    assert 0.3 < np.std(pulls) < 1.5
    assert found.error.max() < 0.03


def test_a_frame_that_states_a_wrong_scale_is_named() -> None:
    """One frame of eight is 30 % fainter: the message has its name, what it states and what is measured; 5 % is no error."""
    names = [f"{k}.fits" for k in range(8)]
    for factor, is_error in ((0.7, True), (1.37, True), (0.95, False)):
        frames = [seen(field(), c, factor if k == 5 else 1.0) for k, c in enumerate(CORNERS)]
        found = measure_flux(frames)
        if not is_error:
            check_flux(found, names, np.ones(8))
            continue
        with pytest.raises(ParameterError, match=r"5.fits states the flux scale 1, .* are \d\.\d+ .*7 other frames"):
            check_flux(found, names, np.ones(8))


def test_of_two_frames_one_is_named() -> None:
    """Two frames that differ by a factor of 2 are an error too."""
    found = measure_flux([seen(field(), (0, 0)), seen(field(), (4, 4), 2.0)])
    with pytest.raises(ParameterError, match=r"as bright as in [ab] where"):
        check_flux(found, ["a", "b"], np.ones(2))


def test_what_is_not_measured_is_no_error() -> None:
    """Frames without overlap, without stars, or with a few of them only, have the ratio 1 and no error."""
    apart = measure_flux([seen(field(), (0, 0)), seen(field(), (30, 30), 3.0)])
    empty = measure_flux([seen(np.zeros((60, 60)), (0, 0)), seen(np.zeros((60, 60)), (4, 4), 3.0)])
    few = measure_flux([seen(field(0.003), (0, 0)), seen(field(0.003), (4, 4), 3.0)])
    lost = FrameCells(np.full((9, 9), np.nan), np.full((9, 9), np.nan), (0, 0), "lost")
    with_lost = measure_flux([lost, seen(field(), (0, 0))])
    for found in (apart, empty, few, with_lost):
        assert found.ratio.tolist() == [1.0, 1.0]
        assert np.isnan(found.error).all()
        check_flux(found, ["a", "b"], np.ones(2))


def test_variable_stars_do_not_decide() -> None:
    """A fifth of the stars twice as bright in one frame moves its ratio by less than a tenth."""
    stars = field(0.1)
    other = np.where(np.random.default_rng(3).random(stars.shape) < 0.2, 2, 1) * stars
    found = measure_flux([seen(stars, (0, 0)), seen(other, (4, 4)), seen(stars, (8, 0))])
    assert abs(np.log(found.ratio)).max() < 0.1


def test_the_order_of_frames_changes_no_bit() -> None:
    """Shuffled frames have the same ratios and errors."""
    frames = [seen(field(), c, 1 + 0.1 * k) for k, c in enumerate(CORNERS)]
    found = measure_flux(frames)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(8)
        again = measure_flux([frames[k] for k in order])
        np.testing.assert_array_equal(again.ratio, found.ratio[order])
        np.testing.assert_array_equal(again.error, found.error[order])
