"""Arrays that are computed whole are made in the memory of the result, and belong to nobody else."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
from dask.callbacks import Callback

import lazyccd
from lazyccd.plan.canvas import Canvas, chunk_memory, finish
from lazyccd.sections import Region
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (40, 60)
NAMES = ("data", "uncertainty", "mask")
TOP, BOTTOM = Region(0, 2, 0, 3), Region(2, 4, 0, 3)


def frame(chunks: tuple[int, int] = (10, 15)) -> Any:
    """Return a frame with three variables, after two operations."""
    return box_filter(lazyccd.multiply(formula_frame(SHAPE, chunks), 2.0), 2)


def whole(ds: Any, name: str) -> npt.NDArray[Any]:
    """Return a variable as dask itself puts it together from chunks."""
    kept = ds[name].data.persist(scheduler="synchronous")
    return np.asarray(kept.compute(scheduler="synchronous"))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [(10, 15), (40, 60), (7, 60), (40, 11)])
def test_computing_whole_gives_the_pixels_of_the_chunks(scheduler: str, chunks: tuple[int, int]) -> None:
    """All variables, together and one by one."""
    ds = frame(chunks)
    with dask.config.set(scheduler=scheduler):
        together = ds.compute()
        for name in NAMES:
            np.testing.assert_array_equal(together[name].values, whole(ds, name))
            np.testing.assert_array_equal(ds[name].values, whole(ds, name))


def test_the_result_is_made_in_one_piece_of_memory() -> None:
    """The array that users get is the memory in which the tasks worked: nothing was put together."""
    places = []

    def remember(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        places.append(pixels.__array_interface__["data"][0])
        return np.zeros((1, 1))

    data = frame()["data"].data
    looked = data.map_blocks(remember, dtype=float, chunks=(1, 1), meta=np.empty((0, 0)))
    result, _ = dask.compute(data, looked, scheduler="synchronous")
    first = result.__array_interface__["data"][0]
    starts = {first + (y * SHAPE[1] + x) * result.itemsize for y in range(0, 40, 10) for x in range(0, 60, 15)}
    assert result.flags.owndata
    assert set(places) == starts


def test_results_are_independent() -> None:
    """Two computations of one array do not share memory, one after the other or at once, and can be written to."""
    ds = frame()
    expected = whole(ds, "data")
    results: list[Any] = []

    def run() -> None:
        for _ in range(10):
            result = ds["data"].data.compute(scheduler="threads", num_workers=2)
            np.testing.assert_array_equal(result, expected)
            result[...] = -1
            results.append(result)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40
    assert all((result == -1).all() for result in results)
    assert len({result.__array_interface__["data"][0] for result in results}) == 40
    np.testing.assert_array_equal(ds["data"].values, expected)


def test_chunks_taken_by_others_are_copied() -> None:
    """If somebody else took a place, the canvas is not given out."""
    canvas = Canvas("x", (4, 3), np.dtype(float))
    other = chunk_memory("x", TOP, np.dtype(float))
    top, bottom = chunk_memory("x", TOP, np.dtype(float)), chunk_memory("x", BOTTOM, np.dtype(float))
    other[...], top[...], bottom[...] = 5, 1, 2
    result = finish([[top], [bottom]], canvas)
    other[...] = 7
    np.testing.assert_array_equal(result, np.repeat([[1.0], [1], [2], [2]], 3, axis=1))
    assert not np.shares_memory(result, bottom)
    assert chunk_memory("x", BOTTOM, np.dtype(float)).flags.owndata


def test_memory_is_taken_only_while_tasks_work_in_it() -> None:
    """An array larger than any memory can be handed to a cluster, and what is done holds no array that its user dropped."""
    canvas = Canvas("x", (2**22, 2**22), np.dtype(float))
    np.testing.assert_array_equal(finish([[np.ones((1, 2))]], canvas), [[1, 1]])
    twice = dask.delayed(lambda pixels: pixels)(frame()["data"].data)
    first = weakref.ref(twice.compute(scheduler="synchronous"))
    gc.collect()
    assert first() is None
    np.testing.assert_array_equal(twice.compute(scheduler="synchronous"), whole(frame(), "data"))


def test_a_canvas_of_another_process_is_nothing() -> None:
    """Its memory is not sent; chunks are then put together by copying."""
    assert Canvas("x", (4, 3), np.dtype(float)).__reduce__()[0]() is None  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(finish([[np.ones((1, 2))], [np.zeros((1, 2))]], None), [[1, 1], [0, 0]])
    np.testing.assert_array_equal(frame()["data"].data.compute(scheduler="processes"), whole(frame(), "data"))


def test_callbacks_that_keep_chunks_do_not_share_the_result() -> None:
    """As `dask.cache` does."""
    kept: dict[Any, Any] = {}

    class Keeper(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, result: Any, *_: Any) -> None:
            kept[key] = result

    with Keeper():
        result = frame()["data"].data.compute(scheduler="synchronous")
    chunks = [value for value in kept.values() if isinstance(value, np.ndarray) and value is not result]
    assert chunks
    assert not any(np.shares_memory(result, chunk) for chunk in chunks)


def test_reductions_take_no_memory_of_the_whole() -> None:
    """Chunks that are not collected own their memory, and are freed when they were used."""
    owned = []

    def look(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        owned.append(pixels.flags.owndata)
        return pixels

    frame()["data"].data.map_blocks(look, meta=np.empty((0, 0))).sum().compute(scheduler="synchronous")
    assert owned
    assert all(owned)
