"""Let a forked process compute: dask's thread pools are made anew. `lazyccd.plan.threads` sees to its own.

A child process inherits a pool of threads as an object, but not the threads: what it submits to the pool waits for ever.
Scripts meet this in `multiprocessing.Pool`, which forks by default on Linux before Python 3.14.
"""

from __future__ import annotations

import os
import threading

import dask.threaded


def forget_pools() -> None:
    """Make dask's threaded scheduler start anew; called in each child right after a fork."""
    dask.threaded.default_pool = None
    dask.threaded.pools.clear()
    # another thread of the parent may have held the lock, and nobody is left to release it
    dask.threaded.pools_lock = threading.Lock()
    # only the main thread gets the default pool, and a fork makes the thread that forks the main one
    dask.threaded.main_thread = threading.current_thread()


def forget_pools_after_forks() -> None:
    """Have `forget_pools` called in the children of this process, and in theirs."""
    # not on Windows, which has no fork
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget_pools)
