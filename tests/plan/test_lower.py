"""Dask graphs: how many tasks, on what they depend, and what dask's own tools make of them."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from dask._task_spec import Task
from dask.base import annotate
from dask.base import compute as compute_all
from dask.core import flatten
from dask.delayed import Delayed, delayed
from dask.graph_manipulation import bind, checkpoint, clone, wait_on
from dask.highlevelgraph import HighLevelGraph
from distributed.protocol.pickle import dumps as distributed_dumps

import lazyccd
from lazyccd.errors import PlanError
from lazyccd.frame.core import resolve
from lazyccd.ops.instrument.flat import flat_mean
from lazyccd.plan.chunks import tile_groups
from lazyccd.plan.lower import lower_image, lower_scalars, read_label
from lazyccd.plan.steps import Chunked, make_dtypes
from lazyccd.sections import Region
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (40, 60)


def frame(**more: Any) -> xr.Dataset:
    """Return a frame of 4 x 4 chunks with three variables, after two operations."""
    return box_filter(lazyccd.multiply(formula_frame(SHAPE, (10, 15), **more), 2.0), 2)


def graph_of(*collections: Any) -> dict[Any, Any]:
    """Return the tasks that computing collections takes, as the scheduler gets them from dask's culling."""
    keys = list(flatten([c.__dask_keys__() for c in collections]))
    graph = HighLevelGraph.merge(*(c.__dask_graph__() for c in collections))
    return dict(graph.cull(keys).to_dict())


def kinds(graph: dict[Any, Any]) -> Counter[str]:
    """Count tasks by the function that they call; arrays that are there already are none."""
    return Counter(task.func.__name__ for task in graph.values() if isinstance(task, Task))


def images(graph: dict[Any, Any]) -> dict[Any, Task]:
    """Return the tasks that compute chunks."""
    return {k: t for k, t in graph.items() if isinstance(t, Task) and t.func.__name__ == "run_image"}


def test_one_task_per_chunk_of_one_variable() -> None:
    """One variable costs exactly one task per chunk, whatever the steps and the halo."""
    for name in ("data", "uncertainty", "mask"):
        assert kinds(graph_of(frame()[name])) == {"run_image": 16}


def test_four_tasks_per_chunk_of_three_variables() -> None:
    """All variables cost one task per chunk and one pick for each of them."""
    assert kinds(graph_of(*(frame()[name] for name in ("data", "uncertainty", "mask")))) == {
        "run_image": 16,
        "getitem": 48,
    }


def test_part_of_a_frame_makes_tasks_for_its_chunks_only() -> None:
    """Slicing culls tasks."""
    assert kinds(graph_of(frame()["data"].isel(y=slice(0, 5), x=slice(0, 20))))["run_image"] == 2


def test_a_global_number_is_computed_once() -> None:
    """The mean of a flat is one task per group of tiles and one more; every chunk depends on it."""
    ds = lazyccd.flat_correct(formula_frame(SHAPE, (10, 15)), formula_frame(SHAPE, (20, 20), seed=3, low=1.0, high=2.0))
    graph = graph_of(ds["data"])
    assert kinds(graph) == {"run_image": 16, "run_partial": 1, "run_final": 1}
    final = next(key for key, task in graph.items() if task.func.__name__ == "run_final")
    assert all(task.dependencies == {final} for task in images(graph).values())


def test_settled_plans_have_no_tasks_for_numbers() -> None:
    """After settle, there are only the chunks' own tasks, and the same bits."""
    ds = lazyccd.flat_correct(formula_frame(SHAPE, (10, 15)), formula_frame(SHAPE, seed=3, low=1.0, high=2.0))
    done = ds.ccd.settle()
    assert kinds(graph_of(done["data"])) == {"run_image": 16}
    np.testing.assert_array_equal(done["data"].values, ds["data"].values)


def test_tasks_depend_on_the_chunks_that_their_halo_touches() -> None:
    """Over dask chunks of another grid, each task depends on those under its halo and on no others."""
    pixels = da.from_array(np.arange(2400.0).reshape(SHAPE), chunks=(7, 11))
    ds = box_filter(formula_frame(SHAPE, (10, 15), mask=False, uncertainty=False).assign(data=(("y", "x"), pixels)), 2)
    ds = lazyccd.rechunk(ds, (10, 15))
    graph = graph_of(ds["data"])
    for (_, i, j), task in images(graph).items():
        y0, y1, x0, x1 = max(0, 10 * i - 2), min(40, 10 * i + 12), max(0, 15 * j - 2), min(60, 15 * j + 17)
        touched = {(y // 7, x // 11) for y in range(y0, y1) for x in range(x0, x1)}
        assert {key[1:] for key in task.dependencies} == touched


def test_tasks_that_read_files_are_producers() -> None:
    """Tasks that depend on nothing tell the scheduler that they make data; others do not."""
    assert all(task.data_producer for task in images(graph_of(frame()["data"])).values())
    persisted = frame().persist(scheduler="sync")
    graph = graph_of(lazyccd.add(persisted, persisted)["data"])
    assert not any(task.data_producer for task in images(graph).values())


def test_a_grid_that_does_not_fit_is_refused() -> None:
    """Chunks that do not add up to the image's shape are refused with both."""
    with pytest.raises(PlanError, match=r"add up to \(3, 4\) and the image has \(40, 60\)"):
        lower_image(resolve(frame()).plan, ((3,), (4,)), {"data": "data"}, ())


def test_a_plan_without_its_graph_is_refused() -> None:
    """A plan that reads a dask array needs the graph of it."""
    plan = Chunked(SHAPE, make_dtypes(data="f4"), name="nowhere", chunks=((40,), (60,)))
    with pytest.raises(PlanError, match="'nowhere' that the plan reads is in none of the 0 graphs"):
        lower_image(plan, ((40,), (60,)), {"data": "data"}, ())


def test_boundary_keeps_the_variance() -> None:
    """Readers of a boundary depend on its chunks, and get the variance without the rounding of a root and a square."""
    image = resolve(frame())
    below = image.to_dataset(boundary=True)
    plan, direct = resolve(below).plan, image.plan
    assert any(isinstance(step, Chunked) for step in plan.inputs)
    assert plan != direct
    np.testing.assert_array_equal(
        lazyccd.multiply(below, 3.0)["uncertainty"].values, lazyccd.multiply(frame(), 3.0)["uncertainty"].values
    )


def test_operations_extend_the_plan() -> None:
    """The next operation finds the plan behind an array, and the graph does not grow with the operations."""
    ds = frame()
    label = read_label(ds["data"].data)
    assert label is not None
    assert label.plan == resolve(ds).plan
    longer = ds
    for _ in range(5):
        longer = lazyccd.add(longer, 1 * u.adu)
    assert len(longer["data"].data.dask.layers) == len(ds["data"].data.dask.layers)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1000, 3000), (9000, 700)])
def test_groups_of_tiles_cover_the_region(shape: tuple[int, int]) -> None:
    """Tiles are cut at multiples of their size from pixel (0, 0), numbered row by row, and cover the region once."""
    region = Region(300, 300 + shape[0], 1500, 1500 + shape[1])
    tiles = dict(tile for group in tile_groups(region, (512, 512)) for tile in group)
    assert sorted(tiles) == list(range(len(tiles)))
    assert sum(tile.size for tile in tiles.values()) == region.size
    assert [tiles[i] for i in sorted(tiles)] == sorted(tiles.values())
    assert all(
        tile.y0 // 512 == (tile.y1 - 1) // 512 and tile.x0 // 512 == (tile.x1 - 1) // 512 for tile in tiles.values()
    )


def test_reductions_do_not_see_chunks() -> None:
    """The mean of an image is the same number to the last bit, whatever holds the pixels, and right."""
    shape = (1100, 1300)
    ds = formula_frame(shape, uncertainty=False, holes=50, low=1.0)
    loaded = ds.compute(scheduler="sync")
    results = []
    for chunks in (shape, (512, 512), (100, 1300), (333, 77)):
        image = resolve(loaded.chunk(dict(zip(("y", "x"), chunks, strict=True))))
        results.append(lower_scalars([flat_mean(image, None)], image.graphs)[0].compute(scheduler="sync"))
    results.append(lower_scalars([flat_mean(resolve(ds), None)], ())[0].compute(scheduler="sync"))
    assert len({float(result).hex() for result in results}) == 1
    good = loaded["data"].values[(loaded["mask"].values & resolve(ds).schema.bad_bits) == 0].astype(float)
    assert math.isclose(float(results[0]), math.fsum(good[np.isfinite(good)]) / np.isfinite(good).sum(), rel_tol=1e-12)


def test_pickled_frames_compute_the_same() -> None:
    """A frame goes through pickle lazily, and its plan is found in what comes out."""
    for dumps in (pickle.dumps, distributed_dumps):
        copy = pickle.loads(dumps(frame()))
        assert resolve(copy).plan == resolve(frame()).plan
        np.testing.assert_array_equal(copy["uncertainty"].values, frame()["uncertainty"].values)


def test_annotations_reach_the_tasks() -> None:
    """What `dask.annotate` says while a frame is built stays with its layer."""
    with annotate(priority=7):
        ds = frame()
    noted = [layer.annotations for layer in ds["data"].data.dask.layers.values() if layer.annotations]
    assert {"priority": 7} in noted


def test_clone_has_other_keys_and_the_same_pixels() -> None:
    """A clone shares no task with the frame, and what it keeps of files and numbers is right."""
    ds = lazyccd.flat_correct(frame(), formula_frame(SHAPE, seed=3, low=1.0, high=2.0))
    copy = clone(ds, seed=5)
    for name in ds.data_vars:
        assert not set(graph_of(ds[name])) & set(graph_of(copy[name]))
        np.testing.assert_array_equal(copy[name].values, ds[name].values)


def test_clone_below_an_operation_keeps_what_it_must() -> None:
    """A clone that omits its inputs shares their tasks."""
    low = formula_frame(SHAPE, (20, 30)).persist(scheduler="sync")
    ds = lazyccd.add(low, low)
    copy = clone(ds, omit=low)
    assert {key for key in graph_of(copy["data"]) if key in graph_of(low["data"])} == set(graph_of(low["data"]))
    np.testing.assert_array_equal(copy["data"].values, ds["data"].values)


def test_bind_waits() -> None:
    """A frame that is bound to another task runs after it."""
    events: list[str] = []
    first = delayed(lambda: events.append("first"), pure=False)()
    ds = bind(frame(), first)
    np.testing.assert_array_equal(ds["data"].compute(scheduler="sync").values, frame()["data"].values)
    assert events == ["first"]


def test_checkpoint_and_wait_on() -> None:
    """A checkpoint computes everything and gives nothing; wait_on gives the same frame."""
    assert isinstance(checkpoint(frame()), Delayed)
    assert checkpoint(frame()).compute(scheduler="sync") is None
    np.testing.assert_array_equal(wait_on(frame())["mask"].values, frame()["mask"].values)


def test_frames_computed_together_share_their_work() -> None:
    """A frame, and the same frame made again, cost as much as one."""
    assert len(graph_of(frame()["data"], frame()["data"])) == 16
    low = frame()
    both = graph_of(lazyccd.add(low.persist(scheduler="sync"), low)["data"])
    assert kinds(both)["run_image"] == 16


def test_a_plan_under_two_names_computes_together() -> None:
    """Variables of one plan that are called otherwise have layers of their own."""
    image = resolve(frame())
    one, two = (lower_image(image.plan, image.grid, {name: "std"}, image.graphs)[name] for name in ("a", "b"))
    np.testing.assert_array_equal(*compute_all(one, two, scheduler="sync"))


def test_dropped_variables_share_keys_with_the_whole_frame() -> None:
    """A frame and the same frame without its mask compute together."""
    whole = frame()
    less = resolve(whole.drop_vars("mask")).to_dataset()
    a, b = compute_all(whole, less, scheduler="sync")
    np.testing.assert_array_equal(a["data"].values, b["data"].values)
    np.testing.assert_array_equal(a["mask"].values, frame()["mask"].values)
