"""Memory of arrays that are computed whole, in which the tasks of their chunks work.

dask puts the chunks of a computed array together by copying them into a new one, on one thread: twice the memory, and where
fresh memory is dear, as much time as the reduction itself. Here the memory of the result exists when the work begins:

1. `Canvas` is made when dask asks how chunks are put together, and known by the array's name until `finish`. A later one for
   the same array takes its place.
2. Tasks in the same process take places on it and write their chunks there. Each place is given away once. The memory is
   allocated for the first: an array whose tasks run elsewhere takes none here.
3. `finish` gives the memory to the user if every chunk that came back is the place that was taken for it, and keeps none. If
   not (a second computation of the same array was faster, or chunks came from other processes), it copies as dask does.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
from dask.array.core import finalize
from dask.core import flatten

from lazyccd.sections import Region

_known: WeakValueDictionary[str, Canvas] = WeakValueDictionary()
_guard = threading.Lock()


class Canvas:
    """Memory for all chunks of one array; in other processes, None.

    Parameters
    ----------
    name
        Name of the dask array.
    shape
        Rows and columns.
    dtype
        Of the array.
    """

    def __init__(self, name: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._name = name
        self._shape = shape
        self._dtype = dtype
        self._memory: npt.NDArray[Any] | None = None
        self._places: dict[Region, npt.NDArray[Any]] = {}
        with _guard:
            _known[name] = self

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Leave the memory behind."""
        return _nothing, ()

    def take(self, region: Region) -> npt.NDArray[Any] | None:
        """Return the place of a region, uninitialised; None if it was taken before."""
        if region in self._places:
            return None
        if self._memory is None:
            self._memory = np.empty(self._shape, self._dtype)
        place = self._memory[region.y0 : region.y1, region.x0 : region.x1]
        self._places[region] = place
        return place

    def finish(self, results: Any) -> npt.NDArray[Any]:
        """Return the array, given the nested list of its chunks."""
        with _guard:
            if _known.get(self._name) is self:
                del _known[self._name]
        memory, places = self._memory, self._places
        self._memory, self._places = None, {}
        chunks = {id(chunk) for chunk in flatten(results)}
        if memory is not None and chunks == {id(place) for place in places.values()}:
            return memory
        return np.asarray(finalize(results))


def _nothing() -> None:
    """Stand for a canvas of another process."""


def chunk_memory(name: str, region: Region, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return memory for one chunk of an array: on its canvas, if there is one in this process, else by itself."""
    with _guard:
        canvas = _known.get(name)
        place = None if canvas is None else canvas.take(region)
    return np.empty(region.shape, dtype) if place is None else place


def finish(results: Any, canvas: Canvas | None) -> npt.NDArray[Any]:
    """Put the chunks of an array together."""
    return np.asarray(finalize(results)) if canvas is None else canvas.finish(results)
