"""The memory of a process that runs tasks: which of them run beside others, and what the C library keeps of what they freed.

1. A task that needs more than its share of the memory limit runs alone; all others run side by side.
2. Freed blocks are kept for the next strips and tasks, because to map and clear them anew takes longer than most steps.
3. They are given back when a task would otherwise pass the limit, and to the watch of dask's workers, which pauses a worker near
   its limit until it has less.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_HEAP_BLOCK = 32 * 2**20

TRIMMED_FRACTION = 0.6
"""Of its limit, what a worker may have before freed blocks are given back: dask's workers pause at 0.8 of it."""

TRIM_SECONDS = 0.5
"""How often that is looked at."""


@cache
def _trim_function() -> Callable[[int], int] | None:
    """Return glibc's function that gives back what is free; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


@cache  # a setting of the process: once is enough
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


def resident_bytes() -> int:
    """Return how much memory this process has; 0 where the system does not say it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def give_back(above: float) -> None:
    """Give what the C library keeps of freed blocks back to the system, if the process has more bytes than some."""
    trim = _trim_function()
    if trim is not None and resident_bytes() > above:
        trim(0)


_watched = threading.Lock()


def give_back_in_worker(worker: Any) -> None:
    """Let a worker of a cluster give back what it keeps of freed blocks whenever it comes near its limit.

    A worker that has nothing to do but wait below its limit never would: blocks are freed when results are released, too, after the
    tasks.
    """
    limit = worker.memory_manager.memory_limit
    if not limit or _trim_function() is None or not _watched.acquire(blocking=False):
        return  # one worker of a process is watched: there is one under a nanny

    def look() -> None:
        if worker.status.name in {"closing", "closed", "failed"}:
            _watched.release()
            return
        give_back(TRIMMED_FRACTION * limit)
        worker.loop.call_later(TRIM_SECONDS, look)

    worker.loop.add_callback(look)


class Turns:
    """Lets tasks of this process run side by side, and those that need all memory alone."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: nothing runs."""
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0
        self._alone = False
        self._mine = threading.local()

    @property
    def in_task(self) -> bool:
        """Whether this thread runs a task: what it computes then is part of that, and must not wait for its end."""
        return bool(getattr(self._mine, "depth", 0))

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for the turn of a task, and hold it."""
        if self.in_task:
            yield
            return
        with self._changed:
            self._wait(alone=alone)
            self._running += 1
            self._alone = alone
        self._mine.depth = 1
        try:
            yield
        finally:
            self._mine.depth = 0
            with self._changed:
                self._running -= 1
                self._alone = False
                self._changed.notify_all()

    def _wait(self, *, alone: bool) -> None:
        """Wait until nothing else runs, or until nothing runs or waits that must be alone."""
        if alone:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._running)
            finally:
                # interrupted too, or all others would wait for it for ever
                self._waiting -= 1
                self._changed.notify_all()
        else:
            # what waits to be alone goes first: it would wait until the last of thousands of tasks
            self._changed.wait_for(lambda: not (self._alone or self._waiting))


TURNS = Turns()
"""Those of this process."""


# a child has none of the threads that had turns
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=TURNS.forget)
