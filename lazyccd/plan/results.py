"""Results that tasks write into the memory in which users get them.

dask puts the chunks of a result together in new memory, and copies even a single one. For calibrations that takes as long as their
arithmetic, and for a moment twice the memory. Here the last step of `compute`, which dask calls for every collection, finds that the
chunks are parts of one array already, and returns that. Wherever they are not, because tasks ran in other processes or an
operation of dask's came after them, dask's own last step does it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.sections import Region


class ResultMemory:
    """Memory of one result, of which each part is given away once; in another process there is none.

    Parameters
    ----------
    shape, dtype
        Of the result.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape = shape
        self._dtype = dtype
        self._lock = threading.Lock()
        self._array: Array | None = None
        self._given: set[Region] = set()
        self._left = int(np.prod(shape))

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        """Become None: what another process writes is not seen here."""
        return _no_memory, ()

    def part(self, region: Region) -> Array | None:
        """Return the part of a region; None if it was given away before."""
        with self._lock:
            # a graph that is computed twice must not write into the result of the first time, which users have
            if region in self._given:
                return None
            if self._array is None:
                self._array = np.empty(self._shape, self._dtype)
            part: Array = self._array[region.slices]
            self._given.add(region)
            self._left -= region.size
            # the graph may live longer than the result
            if self._left == 0:
                self._array = None
            return part


class KeepsResults:
    """A layer of a graph whose tasks write into the memory of results."""

    results: WeakValueDictionary[str, ResultMemory]
    """Memory of the variables that are being computed as a whole."""

    def forget_results(self) -> None:
        """Begin without memory."""
        self.results = WeakValueDictionary()


def _no_memory() -> None:
    """Return None, in the place of memory that is elsewhere."""


def put_together(chunks: Any, _memory: ResultMemory | None, finalize: Callable[..., Any], *arguments: Any) -> Any:
    """Return the array whose parts the chunks are, or what dask makes of them.

    Parameters
    ----------
    chunks
        A list of rows of chunks.
    _memory
        Where they may be; held here until they are there.
    finalize, arguments
        What dask calls with the chunks, and with what more.
    """
    whole = _whole_of(chunks)
    return finalize(chunks, *arguments) if whole is None else whole


def _whole_of(chunks: Sequence[Sequence[Any]]) -> Array | None:
    """Return the array that chunks are all of, in their order; None if there is none."""
    first = chunks[0][0] if len(chunks) and len(chunks[0]) else None
    whole = getattr(first, "base", None)
    if not isinstance(whole, np.ndarray) or not whole.flags.owndata or whole.ndim != 2 or not whole.size:
        return None
    y, start, strides = 0, whole.ctypes.data, whole.strides
    for row in chunks:
        x = 0
        for chunk in row:
            place = start + y * strides[0] + x * strides[1]
            if chunk.base is not whole or chunk.ctypes.data != place or chunk.shape[0] != row[0].shape[0]:
                return None
            x += chunk.shape[1]
        if x != whole.shape[1]:
            return None
        y += row[0].shape[0]
    return whole if y == whole.shape[0] else None


def parts_of(memories: Collection[ResultMemory | None], region: Region) -> tuple[Array, ...]:
    """Return the part of a region of each memory; an empty tuple if one has none."""
    if None in memories or not memories:
        return ()
    parts = [memory and memory.part(region) for memory in memories]
    return () if any(part is None for part in parts) else tuple(parts)  # type: ignore[arg-type]
