"""What the batch system or the container gives to this job; never all that the node has, where other jobs run.

Imports no library: single calls of NumPy arithmetic ask for the number of processors.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

UNLIMITED = 1 << 60
"""Version 1 of control groups says "no limit" by a number near 2**63."""


def job_cpus(root: Path = Path("/")) -> int:
    """Return how many processors this job has: its control group's, its affinity's, Slurm's, whatever is least.

    Parameters
    ----------
    root
        Root of the file system.
    """
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    cpus = [int(given)] if given.isdigit() and int(given) else []
    # macOS knows no affinity
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *cpus, *_cgroup_cpus(root)])


def job_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this job may use: its control group's limit or Slurm's; None if neither sets one.

    Parameters
    ----------
    root
        Root of the file system.
    """
    limits = [*_cgroup_bytes(root), *_slurm_limits()]
    return min(limits, default=None)


def _slurm_limits() -> list[int]:
    """Return Slurm's limit for this job on a node; it counts in megabytes, and 0 is no limit."""
    per_node, per_cpu = (os.environ.get(name, "") for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"))
    if per_node.isdigit():
        return [int(per_node) << 20] if int(per_node) else []
    if per_cpu.isdigit() and int(per_cpu):
        cpus = os.environ.get("SLURM_CPUS_ON_NODE", "")
        return [(int(per_cpu) << 20) * (int(cpus) if cpus.isdigit() else job_cpus())]
    return []


@cache  # each call that may use threads asks, and a dozen files are read
def _cgroup_cpus(root: Path) -> list[int]:
    """Return the processors that the control groups of this process may use, where they set a limit; a part counts as one."""
    limits = []
    for group, version in _cgroups(root, "cpu"):
        if version == 1:
            given = [_text(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        else:
            given = _text(group / "cpu.max").split()
        # "max" and -1 are no limits
        if len(given) == 2 and all(number.isdigit() and int(number) for number in given):
            limits.append(math.ceil(int(given[0]) / int(given[1])))
    return limits


@cache  # each task asks, and a dozen files are read
def _cgroup_bytes(root: Path) -> list[int]:
    """Return the limits of memory of the control groups that this process is in."""
    texts = [
        _text(group / ("memory.limit_in_bytes" if version == 1 else "memory.max"))
        for group, version in _cgroups(root, "memory")
    ]
    return [int(text) for text in texts if text.isdigit() and int(text) < UNLIMITED]


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of a controller's groups that this process is in, up to the outermost, and their version."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    # a limit may stand at any level above: Slurm sets it for the job, a container for all that runs in it
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # version 1 has a hierarchy for each controller; version 2 has one, whose line names none
        if controllers and controller not in controllers.split(","):
            continue
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            yield root.joinpath("sys/fs/cgroup", controllers and controller, *parts[:depth]), 1 if controllers else 2


def _text(path: Path) -> str:
    """Return what a file says; nothing if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
