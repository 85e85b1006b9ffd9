"""Nights under kills: the short form of ``nights.py``, a scheduler that dies, and two commands into one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazyccd.testing import Detector, Sky, make_night

NIGHTS = Path(__file__).with_name("nights.py")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small night: bias001-3, flat004-6, light007-9."""
    folder = tmp_path_factory.mktemp("killed") / "raw"
    make_night(folder, Detector((64, 80)), Sky(stars=3), biases=3, darks=0, flats=3, lights=3)
    return folder


def command(raw: Path, out: Path, *more: str) -> list[str]:
    """Return the command that reduces it."""
    return [sys.executable, "-m", "lazyccd", "reduce", str(raw), "-o", str(out), *more]


def test_a_night_that_is_killed_has_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    """By SIGKILL at random moments, a worker of a cluster too, it goes on: products, pictures, table and record are the same."""
    words = ["--data", str(raw.parent), "--out", str(tmp_path), "--kills", "2", raw.name]
    done = subprocess.run(
        [sys.executable, str(NIGHTS), *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bad"] == {}
    assert (found["status"], found["drivers killed"]) == (3, 2)  # no dark


@contextmanager
def cluster(folder: Path, workers: int = 1) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Run a scheduler and workers in processes of their own; give the address, and the processes, the scheduler first."""
    address = f"tcp://127.0.0.1:{20000 + os.getpid() % 20000}"
    port = address.rpartition(":")[2]
    words = (
        ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
        *[["distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]] * workers,
    )
    with (folder / "cluster.log").open("w") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", *some], stdout=log, stderr=log, cwd=folder) for some in words
        ]
        try:
            yield address, processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def test_a_scheduler_that_dies(raw: Path, tmp_path: Path) -> None:
    """The command ends with one sentence that says so, and goes on without the cluster to the same products."""
    out = tmp_path / "out"
    with cluster(tmp_path) as (address, [scheduler, _]):
        driver = subprocess.Popen(
            command(raw, out, "--scheduler", address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 120
        while not any(out.glob("masters/*.fits")):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        scheduler.kill()
        _, said = driver.communicate(timeout=120)
    assert driver.returncode == 1, said
    assert f"Error: the scheduler at {address} is gone; " in said
    assert "the same command: it goes on where it stopped" in said
    assert "Traceback" not in said
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "stopped"
    assert "FAILED" not in record["counts"]["masters"] | record["counts"]["science"]
    again = subprocess.run(command(raw, out), capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 3, again.stderr
    assert len(list(out.glob("*_red.fits"))) == 3


def test_a_worker_that_dies(raw: Path, tmp_path: Path) -> None:
    """The command goes on with the other worker, and ends as if nothing had happened: nothing failed, and the same products."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    with cluster(tmp_path, workers=2) as (address, [_, worker, _]):
        driver = subprocess.Popen(
            command(raw, out, "--scheduler", address), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 240
        while not any(out.glob("masters/*.fits")):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.kill()
        _, said = driver.communicate(timeout=240)
    assert driver.returncode == 3, said  # no dark
    assert "Traceback" not in said
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert not {"FAILED", "BLOCKED"} & (counts["masters"] | counts["science"]).keys()
    subprocess.run(command(raw, alone), capture_output=True, timeout=240, check=False)
    products = sorted(path.relative_to(alone) for path in alone.rglob("*.fits"))
    assert len(products) == 5
    for path in products:
        assert (out / path).read_bytes() == (alone / path).read_bytes(), path
    assert not list(out.glob(".*"))


def test_two_commands_into_one_folder(raw: Path, tmp_path: Path) -> None:
    """Both end: one with all products, the other says who is at work, or goes on with what the first one made."""
    out = tmp_path / "out"
    both = [
        subprocess.Popen(command(raw, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = [process.communicate(timeout=120) for process in both]
    codes = [process.returncode for process in both]
    assert 3 in codes, said
    for code, (_, text) in zip(codes, said, strict=True):
        assert "Traceback" not in text
        if code != 3:
            assert code == 2
            assert f"Error: {out} is being written by process" in text
    assert len(list(out.glob("*_red.fits"))) == 3
    assert not list(out.glob(".*"))
