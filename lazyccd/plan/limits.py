"""Limits of this job: processors and memory that a batch system or a container gave to it.

The node's own memory is never taken for a limit: other jobs run there. `keep_freed_memory` sets how much freed memory a worker
keeps for its next block.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from functools import cache
from pathlib import Path

from dask.system import CPU_COUNT

UNLIMITED = 1 << 60
"""Version 1 of control groups says "no limit" by a number near 2**63."""


def job_cpus() -> int:
    """Return how many processors this job has: its control group's, its affinity's, Slurm's, whatever is least."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(CPU_COUNT, int(given)) if given.isdigit() and int(given) else CPU_COUNT


def job_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this job may use: its control group's limit or Slurm's; None if neither sets one.

    Parameters
    ----------
    root
        Root of the file system.
    """
    limits = [*_cgroup_limits(root), *_slurm_limits()]
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


@cache  # each task asks, and a dozen files are read
def _cgroup_limits(root: Path) -> list[int]:
    """Return the limits of the control groups that this process is in, both versions, up to the outermost."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    limits = []
    # a limit may stand at any level above: Slurm sets it for the job, a container for all that runs in it
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # version 1 has a hierarchy for each controller; version 2 has one, whose line names none
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers else ("sys/fs/cgroup", "memory.max")
        )
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            limits += _number(root.joinpath(base, *parts[:depth], name))
    return limits


def _number(path: Path) -> list[int]:
    """Return the limit in a file; nothing if there is no such file or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) < UNLIMITED else []


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_HEAP_BLOCK = 32 * 2**20


@functools.cache  # a setting of the process: once is enough
def keep_freed_memory() -> None:
    """Let the C library reuse freed blocks in a process whose environment makes it give every one of them back.

    dask's nannies start workers with ``MALLOC_TRIM_THRESHOLD_=65536``. That also fixes glibc's threshold for memory maps
    at 128 kB, so every plane of every strip is mapped, cleared by the kernel page by page, and unmapped: a reduction then
    takes three times as long. The thresholds set here are those that glibc comes to by itself (mallopt(3),
    "M_MMAP_THRESHOLD"). Other C libraries are left alone.
    """
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_HEAP_BLOCK)
