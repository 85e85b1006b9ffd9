"""Freed memory that a worker process keeps for its next block."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_HEAP_BLOCK = 32 * 2**20


@functools.cache
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
