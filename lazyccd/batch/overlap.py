"""Several products at a time: while the pixels of one are computed, the next one is planned and the last one looked at.

1. `in_order` runs a bounded number of works in threads, and gives their results in the order of the works.
2. All of them compute in one pool of threads (`one_pool`). With a pool for each, as dask makes it, twice as many tasks would run
   as the processor has cores, and as the memory limit was shared among.
3. How many fit is told by `works_at_a_time`: looking at a product takes memory besides that of the tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import dask

from lazyccd.plan.cost import BASELINE_BYTES, process_limit
from lazyccd.plan.job import job_cpus

R = TypeVar("R")

MOST_WORKS = 8
"""Products at a time, at most: planning holds Python's lock, so that more of them wait for each other."""

LOOKED_PIXELS = 2048 * 2048
"""Pixels of a product that are looked at, at most; see `lazyccd.batch.cosmic_rays.AREA`."""

LOOKED_BYTES = 80
"""Bytes for each of them: ten arrays of float64."""


def in_order(works: Iterable[Callable[[], R]], width: int) -> Iterator[R]:
    """Yield the results of works in their order, of which so many run at a time.

    Parameters
    ----------
    works
        Taken one by one, when there is room for one more.
    width
        How many run, or wait for those before them, at a time. One runs in the caller's thread.

    Raises
    ------
    Exception
        Raised is what a work raises, where its result would be. Works that have begun end first, others are never begun.

    Examples
    --------
    >>> list(in_order([lambda i=i: i * i for i in range(5)], 2))
    [0, 1, 4, 9, 16]
    """
    if width <= 1:
        yield from (work() for work in works)
        return
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(width, "lazyccd-product") as pool:
        try:
            for work in works:
                running.append(pool.submit(work))
                if len(running) >= width:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def works_at_a_time(pixels: int) -> int:
    """Return how many products may be made at a time, so that looking at them fits beside the tasks.

    Parameters
    ----------
    pixels
        Of the largest image.
    """
    # Tasks that run in the caller's thread can run nowhere else at the same time.
    if dask.config.get("scheduler", None) in {"sync", "synchronous", "single-threaded"}:
        return 1
    most = min(MOST_WORKS, max(2, job_cpus()))
    limit = process_limit()
    if limit.bytes is None:
        return most
    # Half of what the limit leaves: tasks cut their regions so that they fit into the other half.
    room = max(0, limit.bytes - BASELINE_BYTES) // 2
    return max(1, min(most, room // looked_bytes(pixels)))


@contextmanager
def one_pool(width: int, pixels: int) -> Iterator[None]:
    """Compute all that is asked for inside the block in one pool of threads, if threads compute it.

    Its tasks get what the memory limit leaves beside that which looking at so many products takes.

    Parameters
    ----------
    width, pixels
        Products at a time, and the pixels of the largest image.
    """
    scheduler, pool = (dask.config.get(name, None) for name in ("scheduler", "pool"))
    if width <= 1 or pool is not None or scheduler not in {None, "threads", "threading"}:
        yield
        return
    threads, limit = int(dask.config.get("num_workers", None) or job_cpus()), process_limit().bytes
    left = {} if limit is None else {"lazyccd.memory-limit": limit - width * looked_bytes(pixels)}
    with ThreadPoolExecutor(threads, "lazyccd-task") as tasks, dask.config.set(left, pool=tasks):
        yield


def looked_bytes(pixels: int) -> int:
    """Return the memory that looking at a product takes."""
    return LOOKED_BYTES * min(pixels, LOOKED_PIXELS)
