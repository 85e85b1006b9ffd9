"""Measures peak memory of the workloads, each in a process of its own, and compares it with limit and plan.

``python tests/memory/run.py`` takes about a quarter of an hour and prints a table in Markdown. Four promises are held:

1. peak <= limit;
2. peak <= 1.1 x plan;
3. plan <= 2 x peak;
4. a refusal is a `MemoryLimitError` at the call, and none where the same in default chunks is not refused.

The peak is the most memory that the process ever had resident, imports included (VmHWM). The limit and what `plan()` calls memory per
process mean the same.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIMITS = (400, 480, 600, 1000)
"""In MiB."""

SIDE = 4096

SLACK = 24
"""MiB by which a plan that takes hardly more than the process itself may miss twice its peak: estimates of imports are rough."""


@dataclass(frozen=True)
class Measured:
    """What one process did."""

    name: str
    limit: int
    """MiB."""

    peak: float = 0
    """MiB."""

    plan: float = 0
    """MiB; 0 where there is none."""

    refused: str = ""
    """The message of a refusal at the call."""

    failed: str = ""
    """Any other error."""

    def faults(self, others: Sequence[Measured] = ()) -> list[str]:
        """Return the promises that it breaks."""
        from workloads import TWINS

        if self.failed:
            return ["failed"]
        if self.refused:
            twin = [other for other in others if other.name == TWINS.get(self.name) and other.limit == self.limit]
            return ["refused, in default chunks it is not"] if any(not other.refused for other in twin) else []
        found = ["above the limit"] if self.peak > self.limit else []
        if self.plan and self.peak > 1.1 * self.plan:
            found.append("above the plan")
        if self.plan > 2 * self.peak + SLACK:
            found.append("plan too high")
        return found


def measure(name: str, limit: int, inputs: Path, outputs: Path) -> Measured:
    """Return what a workload takes in a process of its own."""
    with tempfile.TemporaryDirectory(dir=outputs) as out:
        command = [sys.executable, __file__, str(inputs), out, "--child", name, "--limits", str(limit)]
        # the tests' own settings of the C library would hide what users have
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return Measured(name, limit, failed=last)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    names = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in names}


def child(name: str, limit: int, inputs: Path, out: Path) -> Measured:
    """Do one workload in this process."""
    import dask
    from workloads import WORKLOADS

    from lazyccd.errors import MemoryLimitError

    with dask.config.set({"lazyccd.memory-limit": f"{limit}MiB" if limit else None, "num_workers": 2}):
        plan = 0.0
        try:
            work = as_work(WORKLOADS[name](inputs, out), out)
            plan = max((frame.ccd.plan().process_bytes for frame in work.planned), default=0) / 2**20
            work.run()
        except MemoryLimitError as error:
            # a task's own refusal comes too late
            text = str(error)
            late = "with its process" in text
            return Measured(name, limit, peak_mib(), plan, **{"failed" if late else "refused": text})
    return Measured(name, limit, peak_mib(), plan)


def as_work(made: object, out: Path) -> object:
    """Return the work of what a workload returns: lazy frames are written to Zarr."""
    from workloads import Work, to_zarr

    return made if isinstance(made, Work) else to_zarr(made, out)


def peak_mib() -> float:
    """Return the most memory that this process had resident, in MiB."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def warm(names: Iterable[str], inputs: Path, outputs: Path) -> None:
    """Compile what workloads need, on small files: what compilers take is not what is measured."""
    import dask
    from workloads import WORKLOADS

    for name in names:
        with tempfile.TemporaryDirectory(dir=outputs) as out, dask.config.set(scheduler="sync"):
            as_work(WORKLOADS[name](inputs, Path(out)), Path(out)).run()


def prepare(folder: Path, side: int) -> Path:
    """Return the folder with files of a size, made if they are not there."""
    from inputs import make_inputs

    inputs = folder / f"inputs{side}"
    if not (inputs / "made").exists():
        make_inputs(inputs, side)
        (inputs / "made").touch()
    return inputs


def table(all_measured: Sequence[Measured]) -> str:
    """Return the table in Markdown: for each workload and limit the peak, the plan, and what is broken."""
    limits = sorted({each.limit for each in all_measured})
    lines = ["| workload | " + " | ".join(f"{limit} MiB: peak, plan" for limit in limits) + " |"]
    lines.append("|---" * (len(limits) + 1) + "|")
    by_name: dict[str, dict[int, Measured]] = {}
    for each in all_measured:
        by_name.setdefault(each.name, {})[each.limit] = each
    for name, found in by_name.items():
        cells = [_cell(found[limit], all_measured) if limit in found else "" for limit in limits]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(each: Measured, others: Sequence[Measured]) -> str:
    faults = each.faults(others)
    if each.failed:
        return f"**failed**: {each.failed[:90]}"
    text = "refused" if each.refused else f"{each.peak:.0f}, {f'{each.plan:.0f}' if each.plan else '-'}"
    return f"{text} **{'; '.join(faults)}**" if faults else text


def main() -> None:
    """Measure, or do one workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="*", help="where inputs and outputs are; a temporary one by default")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="regular expression for the names of workloads")
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS, help="in MiB")
    parser.add_argument("--side", type=int, default=SIDE, help="of the frames")
    parser.add_argument("--json", type=Path, help="where measurements are added, a line each")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(asdict(child(given.child, given.limits[0], *given.folder))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder[0] if given.folder else Path(name)
        _measure_all(given, folder)


def _measure_all(given: argparse.Namespace, folder: Path) -> None:
    from workloads import TWINS, WORKLOADS

    names = [name for name in WORKLOADS if re.search(given.only, name)]
    folder.mkdir(parents=True, exist_ok=True)
    warm(names, prepare(folder, 256), folder)
    inputs = prepare(folder, given.side)
    found = []
    for name in names:
        for limit in given.limits:
            found.append(measure(name, limit, inputs, folder))
            each = found[-1]
            print(
                f"{name:28}{limit:6}{each.peak:7.0f}{each.plan:7.0f}  {each.faults(found)} {each.failed or each.refused}"[
                    :230
                ],
                file=sys.stderr,
            )
            if given.json:
                with given.json.open("a") as file:
                    print(json.dumps(asdict(each)), file=file)
    print(table(found))
    broken = [each for each in found if each.faults(found)]
    print(f"\n{len(names)} workloads, {len(found)} processes, {len(broken)} broken promises; {len(TWINS)} have twins")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
