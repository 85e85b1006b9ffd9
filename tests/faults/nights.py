"""Reduces real nights by their recipes on threads, and again on a cluster of two processes under kills, and compares the two.

``python tests/faults/nights.py --data FOLDER`` takes the nights of the folder, or those that are named behind it. The command that
reduces is killed at random moments, in one round a worker with it, and run again until it gets through. Products, masters and
pictures must then have the same bytes, the table and the record must say the same, and nothing may be left over. Prints a line
as JSON for each night.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
from distributed import LocalCluster
from kills import CLUSTER, contents

from lazyccd.batch.collect import RECORD
from lazyccd.batch.record import RESULTS
from lazyccd.batch.run_log import LOG

NIGHTS = ("efosc2_ntt", "tres1_oscaar", "lco_sinistro_mef", "isis_wht", "ccdproc", "panoptes")

TIMES = {"begun", "written", "seconds"}
"""Entries of the record that say when and how long."""

SPOKEN = (RECORD, RESULTS, "report.html", LOG)
"""Files that name times; what else they say is compared."""

ENDED = {0, 1, 3}
"""Exit statuses of a run that came to its end."""


def reduce(night: Path, recipe: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Return the command that reduces a night, at work."""
    command = [sys.executable, "-m", "lazyccd", "reduce", str(night), "--recipe", str(recipe), "-o", str(out), *more]
    log = out.with_suffix(".log").open("a")
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)


def timeless(value: Any) -> Any:
    """Return what a record says, without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def record(out: Path) -> Any:
    """Return what ``run.json`` says of the night."""
    return timeless(json.loads((out / RECORD).read_text()))


def table(out: Path) -> list[dict[str, str]]:
    """Return the rows of ``results.ecsv`` as text."""
    from astropy.table import Table

    results = Table.read(out / RESULTS)
    results.remove_column("seconds")
    return [{name: str(row[name]) for name in results.colnames} for row in results]


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Return where two values differ, each with both sides."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(key for key in second if key not in first)]
        return [line for key in keys for line in differences(first.get(key), second.get(key), f"{where}/{key}")]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        both = enumerate(zip(first, second, strict=True))
        return [line for number, (one, two) in both for line in differences(one, two, f"{where}[{number}]")]
    # repr: NaN is NaN
    return [] if repr(first) == repr(second) else [f"{where}: {str(first)[:200]} | {str(second)[:200]}"]


def compare(first: Path, second: Path) -> dict[str, list[str]]:
    """Return what differs between the folders of two runs."""
    one, two = contents(first), contents(second)
    return {
        "missing": sorted(set(one) - set(two)),
        "left over": sorted(set(two) - set(one)),
        "different": [name for name in one if name in two and name not in SPOKEN and one[name] != two[name]],
        "table": differences(table(first), table(second)),
        "record": differences(record(first), record(second)),
    }


class Killer:
    """Runs a night under kills.

    Parameters
    ----------
    cluster
        Whose workers are killed too; None for a pool of processes.
    kills
        How often the command is killed at least.
    seed
        Of the moments.
    """

    def __init__(self, cluster: LocalCluster | None, kills: int, seed: int) -> None:
        self.cluster, self.kills, self.random = cluster, kills, random.Random(seed)
        self.scheduler = "processes" if cluster is None else cluster.scheduler_address

    def run(self, night: Path, recipe: Path, out: Path, seconds: float) -> dict[str, int]:
        """Kill the command again and again, let it finish, and return the counts."""
        counts = {"drivers killed": 0, "workers killed": 0, "begun anew": 0}
        while counts["drivers killed"] < self.kills:
            process = reduce(night, recipe, out, "--scheduler", self.scheduler)
            while process.poll() is None and not out.exists():
                time.sleep(0.02)  # imports and headers; nothing is written
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0, seconds / self.kills))
            if process.poll() is not None:  # too fast: it must be killed as often as was asked for
                assert process.returncode in ENDED, out.with_suffix(".log").read_text()
                shutil.rmtree(out)
                seconds /= 2
                counts["begun anew"] += 1
                continue
            if counts["drivers killed"] == 1:
                counts["workers killed"] += self.kill_worker()
                time.sleep(self.random.uniform(0, 1))
            process.kill()
            process.wait()
            counts["drivers killed"] += 1
        process = reduce(night, recipe, out, "--scheduler", self.scheduler)
        assert process.wait() in ENDED, out.with_suffix(".log").read_text()
        return counts

    def kill_worker(self) -> int:
        """Kill one of the workers that the scheduler knows."""
        if self.cluster is None:
            return 0
        pids = [worker.pid for worker in self.cluster.scheduler.workers.values()]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.random.choice(pids), signal.SIGKILL)
            return 1
        return 0


def try_night(night: Path, folder: Path, killer: Killer) -> dict[str, Any]:
    """Reduce a night both ways and return what came out."""
    folder.mkdir(parents=True)
    recipe = folder / "night.yaml"
    printed = subprocess.run(
        [sys.executable, "-m", "lazyccd", "recipe", str(night)], capture_output=True, text=True, check=False
    )
    if printed.returncode:
        return {"no recipe": printed.stderr.strip()}
    recipe.write_text(printed.stdout)
    begin = time.monotonic()
    status = reduce(night, recipe, folder / "threads").wait()
    seconds = time.monotonic() - begin
    assert status in ENDED, (folder / "threads.log").read_text()
    counts = killer.run(night, recipe, folder / "cluster", seconds)
    found = compare(folder / "threads", folder / "cluster")
    statuses = record(folder / "threads")["counts"]
    bad = {name: lines for name, lines in found.items() if lines}
    return {"status": status, "seconds": round(seconds, 1), "counts": statuses, **counts, "bad": bad}


def main() -> None:
    """Run and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the nights")
    parser.add_argument("--out", type=Path, help="keep what was made in this folder")
    parser.add_argument("--kills", type=int, default=3, help="how often each night is killed")
    parser.add_argument("--processes", action="store_true", help="a pool of processes instead of a cluster")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("nights", nargs="*", default=NIGHTS)
    args = parser.parse_args()
    dask.config.set(CLUSTER)
    wrong = False
    with contextlib.ExitStack() as stack:
        folder = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = None
        if not args.processes:
            cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0"))
        killer = Killer(cluster, args.kills, args.seed)
        for name in args.nights:
            result = try_night(args.data / name, folder / name, killer)
            wrong |= bool(result.get("bad"))
            print(json.dumps({"night": name, **result}), flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
