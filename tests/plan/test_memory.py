"""Tasks that need all memory run alone, and workers under a nanny reuse freed blocks until they come near their limit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.plan.memory import Turns

PROGRAM = """
import resource
import numpy as np
from lazyccd.plan.memory import keep_freed_memory

if {keep}:
    keep_freed_memory()
for round in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # many at once: imports may leave a hole in the heap that is large enough for one
    blocks = [np.ones(2**19, np.float32) for _ in range(16)]
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 16)
"""


def faults_per_block(*, keep: bool) -> float:
    """Return how many pages the kernel clears per block of 2 MB in a process such as nannies start."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc")
def test_blocks_are_reused_in_workers() -> None:
    """A block of 2 MB costs 512 page faults with the nanny's setting, and none once blocks are kept."""
    assert faults_per_block(keep=False) > 400
    assert faults_per_block(keep=True) < 5


def test_a_task_that_needs_all_memory_runs_alone() -> None:
    """It waits for those that run, others wait for it, and what a task computes inside of itself waits for nobody."""
    turns = Turns()
    seen: list[str] = []
    began = threading.Event()

    def whole() -> None:
        began.set()
        with turns.turn(alone=True), turns.turn(alone=True):
            seen.append("whole")

    def part() -> None:
        with turns.turn(alone=False):
            seen.append("part")

    threads = [threading.Thread(target=whole), threading.Thread(target=part)]
    with turns.turn(alone=False), turns.turn(alone=False):
        assert turns.in_task
        threads[0].start()
        assert began.wait(10)
        deadline = time.monotonic() + 10
        while not turns._waiting:  # it is about to wait
            assert time.monotonic() < deadline
            time.sleep(0.001)
        threads[1].start()
        threads[1].join(0.1)
        assert seen == []
    for thread in threads:
        thread.join(10)
    assert seen == ["whole", "part"]
    assert not turns.in_task


def test_a_wait_that_is_interrupted_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that gives up its wait to be alone lets others begin."""
    turns = Turns()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(turns._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), turns.turn(alone=True):
            pass
    thread = threading.Thread(target=lambda: turns.turn(alone=False).__enter__(), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc")
def test_a_worker_near_its_limit_goes_on(tmp_path: Path) -> None:
    """Freed blocks are given back before dask pauses the worker for ever: a frame of 288 MiB is persisted in one of 700 MB."""
    fits.writeto(tmp_path / "a.fits", np.ones((8192, 9216), np.float32))
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, memory_limit="700MB", dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        frame = lazyccd.open_fits(tmp_path / "a.fits", unit="adu").persist()
        write = lazyccd.to_zarr(lazyccd.median_filter(frame, 5), tmp_path / "a.zarr", compute=False)
        assert client.compute(write).result(timeout=120)
