"""Bands of a task: cut under a memory limit with the same bits, and tiles that are decoded once for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numcodecs.blosc
import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from dask.utils import parse_bytes
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.errors import MemoryLimitError
from lazyccd.frame.core import resolve
from lazyccd.kernels.block import PLANES, Request
from lazyccd.plan import cost, evaluate, schedule
from lazyccd.plan.chunks import chunk_boxes
from lazyccd.plan.cost import BASELINE_BYTES, Fit, fit_of_task, fitting_cuts, process_limit, task_cost
from lazyccd.plan.evaluate import Evaluation
from lazyccd.plan.lower import read_label
from lazyccd.plan.schedule import bands
from lazyccd.plan.steps import Chunked, Stack, Step, walk
from lazyccd.sections import Region
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (400, 300)


def plan_of(kind: str) -> Step:
    """Return a plan that is pointwise, looks at neighbours, has a lattice, or is a stack."""
    ds = formula_frame(SHAPE, (64, 64))
    if kind == "stacked":
        frames = [box_filter(lazyccd.multiply(ds, float(k)), 2) for k in (1, 2, 3)]
        label = read_label(lazyccd.combine(frames, method="median")["data"].data)
        assert label is not None
        return label.plan
    made = {
        "pointwise": lazyccd.flag_saturated(ds, 1000),
        "filtered": box_filter(lazyccd.flag_saturated(ds, 1000), 3),
        "reduced": lazyccd.block_reduce(ds, (7, 5)),
        "replicated": lazyccd.block_replicate(ds, 2),
        "cleaned": lazyccd.cosmicray_lacosmic(ds, niter=1).ccd.settle(),
    }
    return resolve(made[kind]).plan


@pytest.mark.parametrize("kind", ["pointwise", "filtered", "reduced", "replicated", "cleaned", "stacked"])
@pytest.mark.parametrize("cuts", [2, 7, 64])
def test_bands_have_the_bits_of_the_whole(kind: str, cuts: int) -> None:
    """However a task cuts its region, it gives the same pixels."""
    plan = plan_of(kind)
    region = Region(64, 128, 0, 300) if kind == "stacked" else Region(3, plan.shape[0] - 1, 10, plan.shape[1] - 10)
    request = Request(region, frozenset(PLANES) & frozenset(plan.dtypes))
    chunks = {
        step.name: {
            index: np.random.default_rng(index).normal(5, 1, tuple(box.shape)).astype(step.dtypes["data"])
            for index, box in chunk_boxes(step.chunks, Region.full(step.shape))
        }
        for step in walk(plan)
        if isinstance(step, Chunked)
    }
    with Evaluation(chunks) as evaluation:
        whole = evaluation.pull((plan, request))[0]
    with Evaluation(chunks, cuts=cuts) as evaluation:
        banded = evaluation.whole(plan, request)
    for plane in request.planes:
        np.testing.assert_array_equal(banded.plane(plane), whole.plane(plane))


def test_cost_falls_with_bands_until_halos_are_all_there_is() -> None:
    """More bands take less memory and compute more pixels; a plan that needs the whole image is never cut."""
    ds = formula_frame((4096, 4096), (4096, 4096))
    region = Region.full((4096, 4096))
    request = Request(region, frozenset(PLANES))
    filtered = resolve(box_filter(ds, 10)).plan
    costs = [task_cost(filtered, region, PLANES, cuts) for cuts in (1, 2, 8, 64)]
    assert [cost.peak_bytes for cost in costs] == sorted((cost.peak_bytes for cost in costs), reverse=True)
    assert [cost.computed_pixels for cost in costs] == sorted(cost.computed_pixels for cost in costs)
    assert fitting_cuts(filtered, request, costs[0].peak_bytes) == 1
    assert fitting_cuts(filtered, request, costs[0].peak_bytes - 1) == 2
    assert fitting_cuts(filtered, request, 1000) == 0
    high = resolve(box_filter(ds, 300)).plan
    assert fitting_cuts(high, request, task_cost(high, region, PLANES, 64).peak_bytes) == 0
    whole = resolve(lazyccd.median_filter(lazyccd.transform_image(ds, np.copy), 3)).plan
    least = min(task_cost(whole, region, PLANES, cuts).peak_bytes for cuts in (1, 8))
    assert fitting_cuts(whole, request, least - 1) == 0


def test_tasks_know_the_limit_of_their_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of a plain compute obeys what the batch system gives to the job, and is refused if it cannot."""
    ds = box_filter(formula_frame((2048, 2048), ((2048,), (2048,))), 3)
    expected = ds["data"].values
    whole = task_cost(resolve(ds).plan, Region.full((2048, 2048)), ("data",)).peak_bytes
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str((BASELINE_BYTES + whole >> 20) - 1))
    with dask.config.set(num_workers=1):
        request = Request(Region.full((2048, 2048)), frozenset({"data"}))
        assert fit_of_task(process_limit(), resolve(ds).plan, request) == Fit(2)
        np.testing.assert_array_equal(ds["data"].values, expected)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str((BASELINE_BYTES >> 20) + 8))
    with pytest.raises(
        MemoryLimitError, match=r"2048 x 2048 pixels .* the memory limit is 268.00 MiB; use smaller chunks"
    ):
        ds["data"].compute()


def test_tasks_of_workers_know_their_worker() -> None:
    """In a cluster the limit is the worker's, and as many tasks are counted as it has threads."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=3, memory_limit="700MB", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        limit = client.submit(process_limit).result()
        assert (limit.bytes, limit.threads) == (parse_bytes("700MB"), 3)


PROGRAM = r"""
import json, re, sys
from pathlib import Path
import lazyccd
from lazyccd.plan.cost import declared_limit
folder, store = sys.argv[1:]
ds = lazyccd.open_fits(folder + "/a.fits", chunks=(1024, 8192))
ds = lazyccd.median_filter(lazyccd.median_filter(ds, 3), 3)
lazyccd.to_zarr(ds, store, shards=(1024, 8192))
limit = declared_limit()
peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([limit.bytes, limit.threads, peak]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had")
def test_a_job_obeys_its_limit(tmp_path: Path) -> None:
    """A job whose chunks would not fit whole writes the same bytes in bands, and never has more memory than its limit."""
    pixels = np.random.default_rng(1).normal(100, 5, (2048, 8192)).astype(np.float32)
    fits.writeto(tmp_path / "a.fits", pixels)
    found = {}
    for megabytes in (0, 430):
        environment = {**os.environ, "SLURM_MEM_PER_NODE": str(megabytes), "SLURM_CPUS_PER_TASK": "2"}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(tmp_path / f"{megabytes}.zarr")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[megabytes] = json.loads(done.stdout)
    limit, threads, peak = found[430]
    assert (limit, threads) == (430 << 20, min(2, os.cpu_count() or 1))
    assert peak < limit < found[0][2], (peak, limit, found[0][2])
    stores = [{p.relative_to(s): p.read_bytes() for p in s.rglob("*") if p.is_file()} for s in tmp_path.glob("*.zarr")]
    assert stores[0] == stores[1]


def test_cost_counts_the_rows_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task holds a band of decoded chunks of each plane that it reads, up to the limit; plain FITS is read as wanted."""
    pixels = np.ones((1024, 32768), np.float32)
    ds = lazyccd.from_ccddata(CCDData(pixels, unit="adu", mask=np.zeros(pixels.shape, bool)))
    stored = resolve(lazyccd.open_zarr(lazyccd.to_zarr(ds, tmp_path / "a.zarr"))).plan
    plain = resolve(lazyccd.open_fits(lazyccd.to_fits(ds, tmp_path / "a.fits"))).plan
    tasks = [(plain, 2048), (stored, 2048), (stored, 32768)]
    costs = [task_cost(plan, Region(0, 8, 0, width)).peak_bytes for plan, width in tasks]
    monkeypatch.setattr(cost, "KEPT_BYTES", 0)
    without = [task_cost(plan, Region(0, 8, 0, width)).peak_bytes for plan, width in tasks]
    assert [a - b for a, b in zip(costs, without, strict=True)] == [0, 512 * 2048 * (4 + 2), evaluate.KEPT_BYTES]


@pytest.mark.parametrize("kept", [evaluate.KEPT_BYTES, 0])
def test_chunks_are_decoded_once_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Strips lower than a chunk share what was decoded, as long as there is room for it; the bits do not tell.

    Of chunks that a window only touches, the blocks of 256 rows are decoded that it needs.
    """
    pixels = np.random.default_rng(3).normal(9, 1, (1100, 2048)).astype(np.float32)
    ds = lazyccd.from_ccddata(CCDData(pixels, unit="adu"))
    store = lazyccd.to_zarr(ds, tmp_path / "a.zarr", shards=(1024, 2048))
    sizes: list[int] = []

    def decompress(content: Any, out: npt.NDArray[Any]) -> Any:
        sizes.append(out.nbytes)
        return decompress_original(content, out)

    decompress_original = numcodecs.blosc.decompress
    monkeypatch.setattr(numcodecs.blosc, "decompress", decompress)
    monkeypatch.setattr(evaluate, "KEPT_BYTES", kept)
    opened = lazyccd.multiply(lazyccd.open_zarr(store), 2.0)
    np.testing.assert_array_equal(opened["data"].values, 2 * pixels)
    assert len(sizes) == 3 * 4 if kept else len(sizes) > 3 * 4
    sizes.clear()
    window = opened.ccd.cutout(y=slice(300, 700), x=slice(5, 1500))["data"]
    np.testing.assert_array_equal(window.values, 2 * pixels[300:700, 5:1500])
    assert sizes == [256 * 512 * 4] * 6 if kept else len(sizes) > 6


def test_what_is_known_of_other_tasks_changes_no_band(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of work of a stack's bands is that which is found anew, whichever rows were computed before."""
    frames = [
        lazyccd.trim_image(formula_frame(SHAPE, (64, 64), seed=k)[["data"]], f"[11:290,{1 + k}:{396 + k}]")
        for k in (1, 2)
    ]
    bias = formula_frame((396, 280), seed=5)[["data"]]
    label = read_label(lazyccd.combine([lazyccd.subtract_bias(frame, bias) for frame in frames])["data"].data)
    assert label is not None
    (step,) = [step for step in walk(label.plan) if isinstance(step, Stack)]

    def found(y0: int) -> list[Any]:
        request = Request(Region(y0, 396, 0, 280), frozenset({"data"}))
        return [
            (band, roots, [(action, action.known) for action in actions])
            for band, roots, actions in bands(step, request, 50)
        ]

    starts = (100, 0, 250, 90)
    monkeypatch.setattr(schedule, "_repeated", {})
    later = [found(y0) for y0 in starts]
    assert schedule._repeated
    for y0, known in zip(starts, later, strict=True):
        monkeypatch.setattr(schedule, "_repeated", {})
        assert found(y0) == known
