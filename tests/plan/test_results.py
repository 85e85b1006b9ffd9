"""Results that tasks write into the memory in which users get them."""

from __future__ import annotations

import pickle
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd.plan.lower import ImageLayer
from lazyccd.plan.plan_array import PlanArray
from lazyccd.plan.results import ResultMemory
from lazyccd.sections import Region
from lazyccd.testing.steps import formula_frame

SHAPE = (50, 40)


@pytest.fixture
def frame(rng: np.random.Generator) -> xr.Dataset:
    """Return a calibrated frame of twelve chunks, with uncertainty and mask."""
    raw = formula_frame(SHAPE, (20, 10), low=90, high=110)
    return lazyccd.multiply(lazyccd.flag_saturated(raw, 105), 2.0)


def by_dask(array: da.Array) -> Any:
    """Compute an array as a plain one of dask's."""
    return da.Array(array.dask, array.name, array.chunks, meta=array._meta).compute(scheduler="sync")


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_chunks_are_written_where_the_result_is(
    frame: xr.Dataset, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither several chunks nor a single one are copied, and the values are those that dask puts together."""
    expected = {name: by_dask(frame[name].data) for name in frame.data_vars}

    def fails(*_: Any) -> None:
        raise AssertionError("chunks are copied")

    monkeypatch.setattr("dask.array.core.concatenate3", fails)
    with dask.config.set(scheduler=scheduler):
        whole, one = frame.compute(), frame["data"].compute()
    for name, array in expected.items():
        np.testing.assert_array_equal(whole[name].values, array)
        assert whole[name].values.flags.owndata
    np.testing.assert_array_equal(one.values, expected["data"])
    assert not np.shares_memory(one.values, whole["data"].values)


def test_other_processes_and_operations_of_dask_put_chunks_together(frame: xr.Dataset) -> None:
    """Where memory cannot be shared, and where dask goes on with the chunks, results are the same."""
    expected = by_dask(frame["data"].data)
    np.testing.assert_array_equal(frame["data"].data.compute(scheduler="processes"), expected)
    both = dask.compute(frame["data"].data, frame["data"].data.sum(), frame["data"].data[3:30, 5:], frame["mask"].data)
    np.testing.assert_array_equal(both[0], expected)
    np.testing.assert_array_equal(both[2], expected[3:30, 5:])
    np.testing.assert_array_equal(both[3], by_dask(frame["mask"].data))
    assert both[1] == frame["data"].data.sum().compute()
    np.testing.assert_array_equal(dask.compute(frame)[0]["data"].values, expected)


def test_a_graph_that_is_computed_twice_has_two_results(frame: xr.Dataset) -> None:
    """What users do with the first result changes no later one."""
    (array,) = dask.optimize(frame["data"].data)
    first = array.compute()
    kept = first.copy()
    first[...] = -1
    np.testing.assert_array_equal(array.compute(), kept)
    np.testing.assert_array_equal(frame["data"].data.compute(), kept)


def test_layers_hold_no_memory(frame: xr.Dataset) -> None:
    """When a result is computed, what is computed of its chunks later gets none."""
    frame.compute()
    layers = [layer for layer in frame["data"].data.dask.layers.values() if isinstance(layer, ImageLayer)]
    assert layers
    assert not any(len(layer.results) for layer in layers)
    assert frame["data"].data.mean().compute() == by_dask(frame["data"].data.mean())


def test_memory_gives_each_part_away_once() -> None:
    """It holds nothing when all is given away, and nothing arrives in another process."""
    memory = ResultMemory((4, 3), np.dtype(np.float32))
    top, bottom = memory.part(Region(0, 2, 0, 3)), memory.part(Region(2, 4, 0, 3))
    assert top is not None
    assert bottom is not None
    assert top.base is bottom.base
    assert memory.part(Region(0, 2, 0, 3)) is None
    assert memory._array is None
    assert pickle.loads(pickle.dumps(memory)) is None


def test_arrays_of_frames_are_plan_arrays(frame: xr.Dataset) -> None:
    """Those of a frame, and no others."""
    array = frame["data"].data
    assert isinstance(array, PlanArray)
    assert type(array + 1) is da.Array
    assert type(pickle.loads(pickle.dumps(array))) is da.Array


def test_variables_of_dask_beside_those_of_a_plan() -> None:
    """A dataset takes both: xarray computes them together, and functions of both are lazy."""
    ccd = CCDData(np.ones((40, 30)), unit="adu")
    ds = lazyccd.from_ccddata(ccd).ccd.rechunk((16, 16)).ccd.add(1 * u.adu)
    more = ds.assign(twice=2 * ds["data"], own=(("y", "x"), da.zeros((40, 30), chunks=(20, 30))))
    computed = more.compute()
    assert np.all(computed["twice"] == 4)
    assert np.all(computed["own"] == 0)
    total = xr.apply_ufunc(np.add, ds["data"], more["own"].chunk(ds.chunks), dask="parallelized", output_dtypes=[float])
    assert isinstance(total.data, da.Array)
    assert np.all(total.values == 2)
