"""Costs: estimates that grow with the work, and refusals with numbers and a way out."""

from __future__ import annotations

import re
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from dask.local import get_sync
from dask.utils import parse_bytes
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.errors import MemoryLimitError, ParameterError
from lazyccd.frame.core import resolve
from lazyccd.plan.cost import BASELINE_BYTES, check_memory, declared_limit, process_bytes, task_cost
from lazyccd.plan.steps import Step
from lazyccd.sections import Region
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (20_000, 20_000)


def plan(radius: int = 0, **more: bool) -> Step:
    """Return the plan of a large image, filtered if there is a radius."""
    ds = formula_frame(SHAPE, (2048, 2048), **more)  # type: ignore[arg-type]
    return resolve(box_filter(ds, radius) if radius else ds).plan


def square(side: int, start: int = 4096) -> Region:
    """Return a region in the middle of the image."""
    return Region(start, start + side, start, start + side)


def test_cost_grows_with_region_planes_and_halo() -> None:
    """More pixels, planes or halo never cost less."""
    peaks = [task_cost(plan(3), square(side)).peak_bytes for side in (64, 256, 1024, 4096)]
    assert peaks == sorted(set(peaks))
    peaks = [task_cost(plan(radius), square(1024)).peak_bytes for radius in (0, 1, 10, 100)]
    assert peaks == sorted(set(peaks))
    peaks = [
        task_cost(plan(2), square(1024), planes).peak_bytes for planes in (["mask"], ["data"], ["data", "variance"])
    ]
    assert peaks == sorted(set(peaks))


def test_cost_counts_what_is_read() -> None:
    """Bytes read are those of the region with its halo, as stored in memory; at the edge there is less."""
    assert task_cost(plan(), square(100)).read_bytes == 100 * 100 * (4 + 4 + 2)
    assert task_cost(plan(5), square(100)).read_bytes == 110 * 110 * (4 + 4 + 2)
    assert task_cost(plan(5), square(100, 0)).read_bytes == 105 * 105 * (4 + 4 + 2)
    assert task_cost(plan(5), square(100)).computed_pixels == 110 * 110


def test_dependencies_count_as_whole_chunks() -> None:
    """A small region of a dask array costs the memory of the chunks that it touches."""
    ds = formula_frame((4096, 4096), (2048, 2048), mask=False, uncertainty=False)
    chunked = ds.assign(data=ds["data"] + 0)
    cost = task_cost(resolve(chunked).plan, Region(2000, 2100, 0, 10))
    assert cost.peak_bytes > 2 * 2048 * 2048 * 4
    assert cost.read_bytes == 0


@pytest.mark.parametrize("radius", [0, 3, 120])
@pytest.mark.parametrize("limit", ["420MB", "700MB", "1.1GB"])
def test_refusal_names_a_chunk_size_that_fits(radius: int, limit: str) -> None:
    """The message has the numbers, and chunks of the size that it names pass under the same limit."""
    with dask.config.set({"lazyccd.memory-limit": limit, "num_workers": 2}):
        with pytest.raises(
            MemoryLimitError, match=r"a task on 8192 x 8192 pixels takes .*the memory limit is"
        ) as caught:
            check_memory(plan(radius), [square(8192)])
        found = re.search(r"chunks of (\d+) x (\d+) pixels would fit", str(caught.value))
        assert found is not None
        side = int(found[1])
        assert side >= 256
        check_memory(plan(radius), [square(side)])
        check_memory(plan(radius), [])


def test_a_limit_that_is_no_size() -> None:
    """It is said by the key of the configuration, with one that would do."""
    with (
        dask.config.set({"lazyccd.memory-limit": "rubbish"}),
        pytest.raises(ParameterError, match=r"lazyccd\.memory-limit = 'rubbish', which must be a size such as '2GB'"),
    ):
        check_memory(plan(), [square(64)])


def test_refusal_when_nothing_fits() -> None:
    """Below what the process itself takes no chunk size is named."""
    with (
        dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES}),
        pytest.raises(MemoryLimitError, match=r"no chunk size would fit, or raise lazyccd\.memory-limit"),
    ):
        check_memory(plan(), [square(64)])


def test_no_limit_refuses_nothing() -> None:
    """Without a declared limit every plan passes."""
    assert declared_limit().bytes is None
    check_memory(plan(100), [Region.full(SHAPE)])


def test_writers_refuse(tmp_path: Path) -> None:
    """A writer refuses before it makes anything, and runs with shards of the size that the message names."""
    ds: xr.Dataset = formula_frame((6000, 6000), uncertainty=False, mask=False)
    with dask.config.set({"lazyccd.memory-limit": "300MB", "num_workers": 1, "scheduler": "sync"}):
        with pytest.raises(MemoryLimitError) as caught:
            lazyccd.to_zarr(ds, tmp_path / "a.zarr", shards=(6000, 6000))
        assert not list(tmp_path.iterdir())
        found = re.search(r"chunks of (\d+) x", str(caught.value))
        assert found is not None
        side = int(found[1]) // 512 * 512
        lazyccd.to_zarr(ds.ccd.cutout(y=slice(0, 600)), tmp_path / "a.zarr", shards=(side, side))


def test_threads_of_the_scheduler_count() -> None:
    """As many tasks are counted as run at a time."""
    cost = task_cost(plan(), square(1024))
    with dask.config.set(num_workers=5):
        assert declared_limit().threads == 5
        assert process_bytes(cost, declared_limit()) == BASELINE_BYTES + 5 * cost.peak_bytes
    for scheduler in ("sync", get_sync):
        with dask.config.set(scheduler=scheduler, num_workers=5):
            assert declared_limit().threads == 1


def test_workers_of_a_cluster_limit() -> None:
    """Under a client, the smallest limit and the most threads of its workers hold, unless a limit is declared."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=3, processes=False, memory_limit="600MB", dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        limit = declared_limit()
        assert (limit.bytes, limit.threads) == (parse_bytes("600MB"), 3)
        with pytest.raises(MemoryLimitError, match="3 of them with the process"):
            check_memory(plan(), [square(8192)])
        with dask.config.set({"lazyccd.memory-limit": "100GB"}):
            assert declared_limit().bytes == parse_bytes("100GB")
            check_memory(plan(), [square(8192)])
    assert np.isfinite(task_cost(plan(), square(64)).peak_bytes)


def test_a_task_checks_its_own_estimate() -> None:
    """A chunk that cannot fit is refused by its task before anything is allocated, whoever computes it."""
    ds = formula_frame((2048, 2048), ((2048,), (2048,)))
    with (
        dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + 2**20}),
        pytest.raises(MemoryLimitError, match=r"2048 x 2048 .* smaller chunks"),
    ):
        ds["data"].compute()
    with dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + 2**20}):
        assert ds.ccd.rechunk(64)["data"].compute().shape == (2048, 2048)
