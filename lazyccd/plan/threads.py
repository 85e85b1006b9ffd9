"""Threads for work that a caller waits for, and that needs no graph: parts of one image, each on its own."""

from __future__ import annotations

import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from lazyccd.plan.job import job_cpus

T = TypeVar("T")
R = TypeVar("R")

WORTH_PIXELS = 2**23
"""Less work is done sooner by the caller than by threads: they must be woken up, and one pass over an image waits for memory."""


_own = threading.local()


def _mark_as_own() -> None:
    _own.is_worker = True


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lazyccd", initializer=_mark_as_own)


# threads of a parent process do not live in a child; Windows has no fork
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def each(work: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Return what work makes of each part; parts run at the same time, with the caller's context variables.

    NumPy keeps `numpy.errstate` in a context variable.
    """
    # a user's function that runs in one of these threads may call an operation: if all of them waited for others, none would go on
    if len(parts) == 1 or getattr(_own, "is_worker", False):
        return [work(part) for part in parts]
    pool = _pool(job_cpus())
    # a context can be entered by one thread at a time
    running = [pool.submit(contextvars.copy_context().run, work, part) for part in parts]
    return [one.result() for one in running]


def shares(length: int, pixels: int) -> list[slice]:
    """Return so many rows as slices for threads, one for each processor, or as one if there are too few pixels.

    Pixels count once for each pass over them.
    """
    count = min(job_cpus(), length) if pixels >= WORTH_PIXELS else 1
    if count <= 1:
        return [slice(0, length)]
    return [slice(*pair) for pair in itertools.pairwise(length * i // count for i in range(count + 1))]
