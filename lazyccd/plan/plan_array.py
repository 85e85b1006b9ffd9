"""Lazy arrays whose chunks are the last ones of a plan.

In a file of its own, because `dask.array` takes longer to import than many a plan to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da

from lazyccd.plan.results import KeepsResults, ResultMemory, put_together


class _AsDaskArray(type):
    """Makes a class equal to dask's array: xarray refuses arrays of unequal classes in one dataset, whatever they are."""

    def __eq__(cls, other: object) -> bool:
        return other is da.Array or other is cls

    def __hash__(cls) -> int:
        return hash(da.Array)


class PlanArray(da.Array, metaclass=_AsDaskArray):
    """A lazy array whose chunks are the last ones of a plan; what operations of dask's make of it are plain arrays of dask's."""

    __slots__ = ()

    def __dask_postcompute__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return the last step of `compute`, and memory for the result, of which the layer of its chunks is told."""
        # An optimization of its own would know more about the graph, but dask 2026.8 mixes results up that are computed at once and
        # have different ones. dask asks for the last step before it culls, and holds it until the graph is computed.
        finalize, arguments = super().__dask_postcompute__()  # type: ignore[no-untyped-call]
        memory = ResultMemory(self.shape, self.dtype)
        for name in self.dask.dependencies.get(self.name, ()):
            layer = self.dask.layers[name]
            if isinstance(layer, KeepsResults) and self.size:
                layer.results[self.name] = memory
        return put_together, (memory, finalize, *arguments)
