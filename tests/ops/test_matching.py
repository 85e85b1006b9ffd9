"""Background matching against known offsets and planes: groups, chains, errors, outliers, order of the frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lazyccd.errors import ParameterError
from lazyccd.ops.mosaic.matching import COLUMNS, BackgroundMatch, FrameCells, match_backgrounds

Array = npt.NDArray[Any]
CELL = (32, 32)


def seen(
    sky: Array, place: tuple[int, int, int, int], *, plane: Array | None = None, sigma: float = 0.1, seed: int = 0
) -> FrameCells:
    """Return a frame at rows and columns of the sky, with a constant and slopes per pixel about its middle, and noise."""
    y0, y1, x0, x1 = place
    values = sky[y0:y1, x0:x1] + np.random.default_rng([seed, *place]).normal(0, sigma, (y1 - y0, x1 - x0))
    constant, slope_y, slope_x = np.zeros(3) if plane is None else plane
    y, x = (np.arange(n) * 32.0 - 16 * (n - 1) for n in values.shape)
    values += constant + slope_y * y[:, None] + slope_x * x
    return FrameCells(values, np.full(values.shape, sigma**2), (y0, x0), f"frame {place}")


def uneven(shape: tuple[int, int] = (40, 40), seed: int = 5) -> Array:
    """Return a sky with structure: no frame is flat."""
    return np.random.default_rng(seed).normal(100, 20, shape)


def grid(step: int = 6, size: int = 12, count: int = 4) -> list[tuple[int, int, int, int]]:
    """Return the places of frames that overlap by half of their size."""
    return [(y, y + size, x, x + size) for y in range(0, step * count, step) for x in range(0, step * count, step)]


def steps(frames: list[FrameCells], match: BackgroundMatch | None = None) -> Array:
    """Return the differences of all pairs of frames in the cells that they share, after matching if it is given."""
    size = (60, 60)
    cube = np.full((len(frames), *size), np.nan)
    for k, frame in enumerate(frames):
        (y, x), values = frame.offset, frame.values
        if match is not None:
            c, sy, sx = match.planes[k]
            v, u = np.mgrid[: values.shape[0], : values.shape[1]]
            rows, columns = ((v + y + 0.5) * 32 - 0.5, (u + x + 0.5) * 32 - 0.5)
            middle = match.column("y")[k], match.column("x")[k]
            values = values - c - sy * (rows - middle[0]) - sx * (columns - middle[1])
        cube[k, y : y + values.shape[0], x : x + values.shape[1]] = values
    pairs = [cube[i] - cube[j] for i in range(len(frames)) for j in range(i)]
    return np.concatenate([p[np.isfinite(p)] for p in pairs])


def apart(truth: Array, found: BackgroundMatch) -> Array:
    """Return planes without what is common to all, which no difference tells: the mean slopes, and then the mean constant."""
    middles = np.stack([found.column("y"), found.column("x")], axis=1)
    out = truth.copy()
    out[:, 1:] -= truth[:, 1:].mean(axis=0)
    out[:, 0] -= middles @ truth[:, 1:].mean(axis=0)
    out[:, 0] -= out[:, 0].mean()
    return out


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_one_frame_stays_as_it_is(match: Any) -> None:
    """A frame by itself has no correction; no error of one is stated."""
    found = match_backgrounds([seen(uneven(), (0, 8, 0, 9))], CELL, match)
    np.testing.assert_array_equal(found.planes, np.zeros((1, 3)))
    assert found.column("n_overlaps")[0] == 0
    assert np.isnan(found.column("constant_error")[0])
    assert found.table["group"][0] == 0


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_frames_without_a_good_cell_are_left_alone(match: Any) -> None:
    """All-NaN frames change nothing of the others."""
    frames = [seen(uneven(), (0, 8, 0, 9)), seen(uneven(), (0, 8, 3, 12), plane=np.array([5, 0, 0]))]
    empty = FrameCells(np.full((8, 8), np.nan), np.full((8, 8), np.nan), (0, 2), "empty")
    with_it, without = match_backgrounds([*frames, empty], CELL, match), match_backgrounds(frames, CELL, match)
    np.testing.assert_array_equal(with_it.planes[2], np.zeros(3))
    np.testing.assert_array_equal(with_it.planes[:2], without.planes)
    assert with_it.column("group").tolist() == [0, 0, 1]


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_each_group_has_its_own_zero(match: Any) -> None:
    """Groups that share no cell are matched by themselves, the larger one first; the sum of each one's corrections is zero."""
    rng, sky = np.random.default_rng(2), uneven()
    left = [(0, 10, 0, 10), (5, 15, 3, 13)]
    right = [(0, 10, 20, 30), (5, 15, 22, 32), (2, 12, 25, 35)]
    given = rng.normal(0, 30, 5)
    frames = [seen(sky, p, plane=np.array([c, 0, 0])) for p, c in zip([*left, *right], given, strict=True)]
    found = match_backgrounds(frames, CELL, match)
    assert found.column("group").tolist() == [1, 1, 0, 0, 0]
    for part in (slice(0, 2), slice(2, 5)):
        assert abs(found.planes[part].sum(axis=0)).max() < 1e-9
        truth = given[part] - given[part].mean()
        off = (found.column("constant")[part] - truth) / found.column("constant_error")[part]
        assert abs(off).max() < 3.5
    alone = match_backgrounds(frames[:2], CELL, match)
    np.testing.assert_allclose(found.planes[:2], alone.planes, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_a_chain_drifts_no_more_than_it_says(match: Any) -> None:
    """Errors of 50 frames in a row add up, and the stated errors say so: pulls have unit width, at the ends too."""
    pulls, ends = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sky = uneven((8, 450), seed)
        truth = rng.normal(0, (10, 0.02, 0.02), (50, 3)) * (1, match == "plane", match == "plane")
        frames = [seen(sky, (0, 8, 8 * k, 8 * k + 12), plane=t, seed=seed) for k, t in enumerate(truth)]
        found = match_backgrounds(frames, CELL, match)
        pull = (found.column("constant") - apart(truth, found)[:, 0]) / found.column("constant_error")
        pulls.append(pull)
        ends.append(pull[[0, -1]])
    assert np.abs(ends).max() < 3
    # pulls of one chain are correlated, so twelve of them say little more than twelve numbers do
    assert 0.6 < np.std(pulls) < 1.4
    assert found.column("constant_error")[0] > 1.4 * found.column("constant_error")[25]


def test_planes_are_taken_out() -> None:
    """Of planes with slopes up to 1 per pixel less than 1 % of the steps is left; constants alone leave nearly all."""
    rng, sky = np.random.default_rng(3), uneven()
    truth = rng.uniform(-1, 1, (16, 3)) * (50, 1, 1)
    frames = [seen(sky, p, plane=t) for p, t in zip(grid(), truth, strict=True)]
    found = match_backgrounds(frames, CELL, "plane")
    assert np.std(steps(frames, found)) < 0.01 * np.std(steps(frames))
    np.testing.assert_allclose(found.planes.sum(axis=0), 0, atol=1e-10)
    assert np.std(steps(frames, match_backgrounds(frames, CELL, "constant"))) > 0.5 * np.std(steps(frames))
    errors = np.stack([found.column(f"{name}_error") for name in ("constant", "slope_y", "slope_x")], axis=1)
    assert 0.6 < ((found.planes - apart(truth, found)) / errors).std() < 1.4
    assert not found.column("regularised").any()


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_an_extended_object_stays(match: Any) -> None:
    """What all frames see stays in them, although it fills half of each one."""
    sky = uneven()
    bright = sky.copy()
    bright[:, 12:24] += 5000 * np.sin(np.linspace(0, np.pi, 12))
    places = [(0, 18, 6, 18), (0, 18, 12, 24), (0, 18, 18, 30)]
    frames = [
        seen(s, p, plane=np.array([c, 0, 0]))
        for s, (p, c) in ((bright, pair) for pair in zip(places, (0, 40, -40), strict=True))
    ]
    found = match_backgrounds(frames, CELL, match)
    assert abs(found.column("constant") - (0, 40, -40)).max() < 0.2
    assert abs(found.planes[:, 1:]).max() < 1e-3
    assert found.column("n_clipped").sum() < 10


@pytest.mark.parametrize("match", ["constant", "plane"])
def test_what_one_frame_alone_has_does_not_count(match: Any) -> None:
    """A trail and a variable star in one frame move neither this frame nor the others."""
    truth = np.linspace(-20, 20, 16)
    frames = [
        seen(uneven(), p, plane=np.array([c, 0, 0]), seed=k) for k, (p, c) in enumerate(zip(grid(), truth, strict=True))
    ]
    values = frames[5].values.copy()
    values[np.arange(12), np.arange(12)] += 800
    values[2, 7] += 30000
    frames[5] = frames[5]._replace(values=values)
    found = match_backgrounds(frames, CELL, match)
    pull = (found.column("constant") - truth) / found.column("constant_error")
    assert abs(pull).max() < 4
    assert 13 <= found.column("n_clipped")[5] < 25
    assert found.column("n_clipped")[[0, 15]].max() < 5


def test_deep_and_shallow_frames_are_weighted() -> None:
    """Errors follow the noise of each frame, and a deep frame is no outlier beside a shallow one."""
    sky, sigma = uneven(), np.where(np.arange(16) % 2, 3.0, 0.05)
    frames = [seen(sky, p, sigma=s, seed=k) for k, (p, s) in enumerate(zip(grid(3), sigma, strict=True))]
    found = match_backgrounds(frames, CELL, "constant")
    error = found.column("constant_error")
    assert abs(found.column("constant") / error).max() < 4
    assert error[1::2].mean() > 5 * error[::2].mean()
    assert found.column("n_clipped").sum() < 0.02 * found.column("n_cells").sum()


def test_errors_follow_the_scatter() -> None:
    """Variances that are too small by 100 give errors that are right all the same."""
    pulls = []
    for seed in range(20):
        frames = [seen(uneven(), p, seed=seed) for p in grid()]
        small = [f._replace(variances=f.variances / 100) for f in frames]
        found = match_backgrounds(small, CELL, "constant")
        pulls.append(found.column("constant") / found.column("constant_error"))
    assert 0.9 < np.std(pulls) < 1.1


def test_the_order_of_frames_changes_no_bit() -> None:
    """Frames in another order have the same corrections, errors and counts to the last bit."""
    rng, sky = np.random.default_rng(4), uneven()
    frames = [seen(sky, p, plane=rng.normal(0, (10, 0.1, 0.1))) for p in grid()]
    frames += [seen(uneven((80, 80)), (60, 70, 60 + 5 * k, 70 + 5 * k)) for k in range(2)]
    found = match_backgrounds(frames, CELL, "plane")
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(frames))
        again = match_backgrounds([frames[k] for k in order], CELL, "plane")
        np.testing.assert_array_equal(again.array, found.array[order])
        assert again.names == tuple(found.names[k] for k in order)


def test_weak_links_are_told_and_slopes_without_data_are_none() -> None:
    """A frame that hangs on one row of cells gets no slope across it; one cell is a weak link. The table says both."""
    sky = uneven()
    places = ((11, 23, 0, 12), (15, 27, 0, 12), (26, 38, 0, 12), (0, 12, 11, 23))
    frames = [seen(sky, p, plane=np.array([7.0 * k, 0, 0])) for k, p in enumerate(places)]
    found = match_backgrounds(frames, CELL, "plane")
    assert found.column("n_weak").tolist() == [1, 0, 0, 1]
    assert found.column("n_overlaps").tolist() == [2, 2, 1, 1]
    assert found.column("regularised").tolist() == [0, 0, 1, 1]
    # the slope across the row of cells could be anything, and a wild one would show as a step of many deviations
    assert abs(found.column("slope_y")[2]) * 192 < 0.5
    assert np.std(steps(frames, found)) < 0.2


def test_the_table_says_what_was_done() -> None:
    """The table has a row per frame with its name, groups as integers, and what each column is."""
    frames = [seen(uneven(), p)._replace(name=f"{k}.fits") for k, p in enumerate(grid()[:3])]
    table = match_backgrounds(frames, CELL, "plane").table
    assert table["frame"].tolist() == ["0.fits", "1.fits", "2.fits"]
    assert table.colnames == ["frame", *COLUMNS]
    assert table["group"].dtype.kind == "i"
    assert table["regularised"].dtype.kind == "b"
    assert all(table[name].description for name in COLUMNS)
    assert (table["after"] <= table["before"] * 1.01).all()


def test_cells_without_noise_are_matched_exactly() -> None:
    """Frames whose variance is zero everywhere, as simulated ones, have finite corrections."""
    frames = [seen(uneven(), p, plane=np.array([k, 0, 0.0]), sigma=0.0) for k, p in enumerate(grid())]
    found = match_backgrounds(frames, CELL, "plane")
    np.testing.assert_allclose(found.column("constant"), np.arange(16) - 7.5, atol=1e-6)


def test_bad_arguments_are_refused() -> None:
    """Another kind of match and no frame are errors."""
    with pytest.raises(ParameterError, match="must be 'constant' or 'plane'"):
        match_backgrounds([seen(uneven(), (0, 8, 0, 9))], CELL, "parabola")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="no frame"):
        match_backgrounds([], CELL)
