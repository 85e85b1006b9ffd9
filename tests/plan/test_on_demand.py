"""Scalars that tasks make if they need them: seldom, once for a process, with the bits of those that have tasks of their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd.frame.core import resolve
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.cosmic_rays import block as kernels
from lazyccd.ops import cosmic_rays
from lazyccd.plan import on_demand
from lazyccd.plan.cost import task_cost
from lazyccd.plan.steps import Reduction, Scalar, Step
from lazyccd.sections import Region


def _file(folder: Path, *, enclosed: bool) -> str:
    """Write an image of noise with a few hot pixels; if asked for, one of them in a ring of bad pixels."""
    pixels = np.random.default_rng(3).normal(300.0, 20.0, (400, 300)).astype(np.float32)
    pixels[50:60:3, 70] += 5000
    path = folder / "night.fits"
    mask = np.zeros(pixels.shape, np.uint8)
    if enclosed:
        # bad pixels grow by 1: all about the hot one
        pixels[200, 150], mask[197:204, 147:154] = 9000.0, 1
        mask[199:202, 149:152] = 0
    hdus = [fits.PrimaryHDU(pixels), fits.ImageHDU(mask, name="MASK")]
    hdus[0].header["BUNIT"] = "electron"
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return str(path)


def _clean(path: str, chunk: int = 128) -> Any:
    """Return the file without its cosmic rays, lazily."""
    ds = lazyccd.open_fits(path, chunks=chunk)
    return lazyccd.cosmicray_lacosmic(ds, readnoise=5.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Begin without known scalars, and list the passes over parts of images."""
    calls: list[int] = []
    count = kernels.count_level_digits

    def counting(block: Block, **more: Any) -> Any:
        calls.append(block.region.size)
        return count(block, **more)

    counting.__module__, counting.__qualname__ = count.__module__, count.__qualname__
    monkeypatch.setattr(kernels, "count_level_digits", counting)
    on_demand._found.clear()
    return calls


def test_nothing_is_measured_where_no_pixel_needs_it(tmp_path: Path, counted: list[int]) -> None:
    """An image none of whose cosmic rays lack good neighbours is read once."""
    clean = _clean(_file(tmp_path, enclosed=False))
    assert not resolve(clean).plan.pending
    assert clean["mask"].any()
    clean.compute()
    assert not counted


def test_one_pixel_has_it_measured_once(tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes over the image, whichever tasks ask, and the bits of levels that have tasks of their own; again none."""
    path = _file(tmp_path, enclosed=True)
    whole = _clean(path, -1).compute()
    counted.clear()
    found = _clean(path).compute()
    assert sum(counted) == 2 * 400 * 300
    _clean(path, 77).compute()
    assert sum(counted) == 2 * 400 * 300
    monkeypatch.setattr(cosmic_rays, "MOST_ON_DEMAND", 0)
    eager = _clean(path)
    assert resolve(eager).plan.pending
    eager = eager.compute()
    for name in ("data", "mask"):
        np.testing.assert_array_equal(found[name].values, eager[name].values)
        np.testing.assert_array_equal(found[name].values, whole[name].values)


def test_frames_on_demand_settle(tmp_path: Path, counted: list[int]) -> None:
    """What the plan of such a scalar needs is put in; the scalar itself stays on demand."""
    path = _file(tmp_path, enclosed=True)
    flat = lazyccd.open_fits(path, chunks=100)
    ds = lazyccd.flat_correct(lazyccd.open_fits(path, chunks=128), flat)
    clean = lazyccd.cosmicray_lacosmic(ds, readnoise=5.0)
    assert len(resolve(clean).plan.pending) == 1  # the mean of the flat
    settled = clean.ccd.settle()
    assert not resolve(settled).plan.pending
    assert not counted
    np.testing.assert_array_equal(settled["data"].values, clean["data"].values)


def test_threads_wait_for_each_other() -> None:
    """Of threads that need one scalar at a time, one makes it; a failure is raised by each that asks, and is not kept."""
    on_demand._found.clear()
    begun, calls, fails = threading.Barrier(4), [], [True]

    def pull(step: Step, request: Request) -> Block:
        calls.append(request)
        if fails[0]:
            raise OSError("gone")
        return Block(request.region, data=np.ones(request.region.shape))

    step = resolve(lazyccd.from_ccddata(CCDData(np.ones((8, 8)), unit="adu"))).plan
    reduction = Reduction(step, partial=_total, final=_sum, region=Region.full((8, 8)))
    scalar = Scalar(reduction=reduction, on_demand=True)

    def ask() -> float:
        begun.wait()
        return float(on_demand.value_of(scalar, {}, pull))

    with pytest.raises(OSError, match="gone"):
        on_demand.value_of(scalar, {}, pull)
    fails[0] = False
    calls.clear()
    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(ask) for _ in range(4)]] == [64.0] * 4
    assert len(calls) == 1


def _total(block: Block) -> Any:
    return block.plane("data").sum()


def _sum(partials: list[Any]) -> Any:
    return np.sum(partials)


def test_the_cost_has_what_it_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that may measure the level is estimated to hold the blocks of that besides its own."""
    path = _file(tmp_path, enclosed=True)
    plan = resolve(_clean(path)).plan
    monkeypatch.setattr(cosmic_rays, "MOST_ON_DEMAND", 0)
    eager = resolve(_clean(path)).plan
    region = Region(0, 128, 0, 128)
    assert task_cost(plan, region).peak_bytes >= task_cost(eager, region).peak_bytes + 9 * 200 * 300
