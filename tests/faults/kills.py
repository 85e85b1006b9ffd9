"""Kills runs at random moments, resumes them, and compares what comes out with an undisturbed run.

``python tests/faults/kills.py --kills 100`` is the long form; the tests run a short one. Prints a summary as JSON. Runs are forked
from a process that has imported everything, so a kill comes a random time after the first work and not during imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
from astropy import units as u
from astropy.io import fits
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.utils import get_mp_context

import lazyccd
from lazyccd.errors import TargetExistsError
from lazyccd.io.resumable.journal import PROGRESS
from lazyccd.io.resumable.write import TrackedWrite
from lazyccd.sections import Region

SIDE, CHUNK = 192, 32
UNITS = {"fits": SIDE // (CHUNK * CHUNK // SIDE), "zarr": (SIDE // CHUNK) ** 2}
PAUSE = 0.02
"""Seconds that a region takes, so that kills come between regions and within them."""

CLUSTER = {
    "distributed.scheduler.allowed-failures": 1000,  # deaths that a task is near to before it is given up
    "distributed.worker.multiprocessing-method": "forkserver",  # a new worker in a fraction of a second
    "distributed.deploy.lost-worker-timeout": "120s",  # until when a worker must be replaced
}

Content = dict[str, bytes]


def frame(raw: Path) -> Any:
    """Return a frame with all variables."""
    ds = lazyccd.open_fits(raw, chunks=(CHUNK, CHUNK))
    ds = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 3 * u.electron)
    return lazyccd.flag_saturated(lazyccd.gain_correct(ds, 1.5 * u.electron / u.adu), 9000)


def slow_and_logged(log: str) -> None:
    """Make every region take a while, and note those whose receipt was written."""
    original = TrackedWrite.write

    def write(sink: TrackedWrite, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        time.sleep(PAUSE / 2)
        receipt = original(sink, region, arrays)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{sink.progress.fingerprint[:8]} {tuple(region)}\n".encode())
        os.close(descriptor)
        time.sleep(PAUSE / 2)
        return receipt

    TrackedWrite.write = write  # type: ignore[method-assign]


def run(raw: Path, out: Path, form: str, log: str) -> None:
    """Write the product; in a process of its own."""
    slow_and_logged(log)
    # A run that was killed after its last act is complete, which the same call then says.
    with contextlib.suppress(TargetExistsError), dask.config.set(scheduler="threads", num_workers=2):
        write(raw, out, form)


def write(raw: Path, out: Path, form: str, *, lazy: bool = False) -> None:
    """Write the product, at once or by a lazy write."""
    written = getattr(lazyccd, f"to_{form}")(frame(raw), out / f"a.{form}", compute=not lazy)
    if lazy:
        written.compute()


def contents(folder: Path) -> Content:
    """Return all files of a folder by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def started(call: Callable[..., None], *args: Any) -> Any:
    """Return a forked process that runs a function."""
    process = multiprocessing.get_context("fork").Process(target=call, args=args)
    process.start()
    return process


class Harness:
    """Runs, kills and counts.

    Parameters
    ----------
    folder
        Where it works.
    seed
        Of the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.raw = folder / "raw.fits"
        fits.writeto(self.raw, np.random.default_rng(seed).integers(0, 9999, (SIDE, SIDE)).astype(np.uint16))
        self.undisturbed: dict[str, Content] = {}
        self.seconds: dict[str, float] = {}
        for form in (*UNITS, *UNITS):  # the first of each compiles, the second tells how long a run takes
            out = self.fresh()
            begin = time.monotonic()
            started(run, self.raw, out, form, str(folder / "log")).join()
            self.seconds[form] = time.monotonic() - begin
            self.undisturbed[form] = contents(out)
            assert self.undisturbed[form], "the undisturbed run wrote nothing"

    def fresh(self) -> Path:
        """Return an empty folder for products and forget the log."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (self.folder / "log").unlink(missing_ok=True)
        return out

    def check(self, form: str, out: Path) -> None:
        """Compare with the undisturbed run, byte by byte and file by file; count regions that were done twice."""
        found = contents(out)
        self.counts["products"] += 1
        self.counts["different"] += found != self.undisturbed[form]
        self.counts["stray files"] += len(set(found) - set(self.undisturbed[form])) + (out / PROGRESS).exists()
        done = Counter((self.folder / "log").read_text().splitlines())
        self.counts["regions"] += len(done)
        self.counts["regions done twice"] += sum(count - 1 for count in done.values())

    def kill_drivers(self, kills: int) -> None:
        """Kill a run again and again until it gets through; then take the next."""
        form, out = "zarr", self.fresh()
        while self.counts["drivers killed"] < kills:
            process = started(run, self.raw, out, form, str(self.folder / "log"))
            process.join(self.random.uniform(0, self.seconds[form]))
            if process.exitcode is None:
                process.kill()
                process.join()
                self.counts["drivers killed"] += 1
                whole = (out / f"a.{form}").exists() and not (out / PROGRESS).exists()
                self.counts["incomplete under the final name"] += whole and contents(out) != self.undisturbed[form]
            elif process.exitcode:
                self.counts["resumes that failed"] += 1
                return
            else:
                self.check(form, out)
                form, out = ("fits" if form == "zarr" else "zarr"), self.fresh()
        started(run, self.raw, out, form, str(self.folder / "log")).join()
        self.check(form, out)

    def kill_workers(self, kills: int) -> None:
        """Kill workers of a cluster during each of some runs."""
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
            ThreadPoolExecutor(1) as executor,
        ):
            client.register_plugin(Slow(str(self.folder / "log")))
            for lazy in cycle((True, False)):
                if self.counts["workers killed"] >= kills:
                    break
                form, out = self.random.choice(list(UNITS)), self.fresh()
                written = executor.submit(write, self.raw, out, form, lazy=lazy)
                self.counts["lazy writes"] += lazy
                while self.counts["workers killed"] < kills:
                    time.sleep(self.random.uniform(0, 2 * UNITS[form] * PAUSE))
                    # those that the scheduler knows: one that dies while it starts is not replaced
                    pids = [worker.pid for worker in cluster.scheduler.workers.values()]
                    if written.done():
                        break
                    # the scheduler may not have noticed yet that one is dead
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(self.random.choice(pids), signal.SIGKILL)
                        self.counts["workers killed"] += 1
                written.result(timeout=120)
                self.check(form, out)


class Slow(WorkerPlugin):  # type: ignore[misc]
    """Sets up every worker, those that replace killed ones too."""

    def __init__(self, log: str) -> None:
        self.log = log

    def setup(self, worker: Any) -> None:
        """Slow down and log."""
        slow_and_logged(self.log)


def main() -> None:
    """Run and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often a driver is killed")
    parser.add_argument("--workers", type=int, default=20, help="how often a worker is killed")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    dask.config.set(CLUSTER)
    get_mp_context()  # sets what is imported once for all workers, which is set anew here
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["warmed"])
    with tempfile.TemporaryDirectory() as name:
        harness = Harness(Path(name), args.seed)
        harness.kill_drivers(args.kills)
        harness.kill_workers(args.workers)
    print(json.dumps({**harness.counts, "bad": bad(harness.counts)}))
    sys.exit(bool(bad(harness.counts)))


def bad(counts: Mapping[str, int]) -> list[str]:
    """Return the names of counts that must be 0 and are not."""
    zero = ("different", "stray files", "regions done twice", "incomplete under the final name", "resumes that failed")
    return [name for name in zero if counts.get(name)]


if __name__ == "__main__":
    main()
