"""Scalars that few tasks need: a task that does makes the scalar itself, and the others of its process use what it found.

Other scalars have tasks of their own, which run before those that use them: the level of an image that LA Cosmic gives to pixels
without any good neighbour would take two passes over each image, and most images have no such pixel.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import reduce

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.plan.steps import Reduction, Scalar, Step
from lazyccd.sections import Region

GROUP_PIXELS, LEAST_ROWS = 2**16, 32
"""Pixels that are reduced at a time, and rows of a band of them: the task holds its own blocks meanwhile."""

MOST_KEPT = 256
"""Scalars that a process keeps."""

Pull = Callable[[Step, Request], Block]
"""Returns the block of a step for a request."""


class _Found:
    """A scalar of this process, once it is found."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.array: Array | None = None


_found: dict[str, _Found] = {}
_guard = threading.Lock()


def value_of(scalar: Scalar, known: Mapping[str, Array], pull: Pull) -> Array:
    """Return the numbers of a scalar, made by the caller unless another thread makes them or has made them.

    Parameters
    ----------
    scalar
        A scalar that is on demand.
    known
        The scalars that its plan needs and that are not on demand, by token.
    pull
        What computes a region of its plan.
    """
    assert scalar.reduction is not None
    with _guard:
        found = _found.setdefault(scalar.token, _Found())
        for token in list(_found)[:-MOST_KEPT]:
            del _found[token]
    # whoever else needs it waits: to make it twice would take both of them longer
    with found.lock:
        if found.array is None:
            found.array = _reduced(scalar.reduction, known, pull)
        return found.array


def _reduced(reduction: Reduction, known: Mapping[str, Array], pull: Pull) -> Array:
    """Return the result of a reduction, as its tasks would make it."""
    known = {**known, **{s.token: value_of(s, known, pull) for _, s in reduction.scalars if s.is_on_demand}}
    partials: list[tuple[int, Array]] = []
    for group in groups_of(reduction):
        numbers, tiles = zip(*group, strict=True)
        block = pull(reduction.step, Request(reduce(Region.union, tiles), reduction.planes))
        made = reduction.reduce(block, tiles, known)
        # sums of these may be made on the way, or counts of many digits would be kept for each group
        if reduction.merge is not None:
            partials = [(0, reduction.merge([*(partial for _, partial in partials), *made]))]
        else:
            partials += zip(numbers, made, strict=True)
    ordered = [partial for _, partial in sorted(partials, key=lambda pair: pair[0])]
    return np.asarray(reduction.final(ordered, **reduction.arguments(known)))


def groups_of(reduction: Reduction) -> Iterator[list[tuple[int, Region]]]:
    """Yield groups of numbered tiles that are reduced at a time; where these can be merged, bands of rows."""
    if reduction.merge is None or reduction.parts:
        yield from reduction.groups(GROUP_PIXELS)
        return
    y0, y1, x0, x1 = reduction.region
    rows = max(LEAST_ROWS, GROUP_PIXELS // max(1, x1 - x0))
    yield from ([(k, Region(y, min(y + rows, y1), x0, x1))] for k, y in enumerate(range(y0, y1, rows)))


def _forget() -> None:
    """Begin anew in a forked process, in which nobody would ever release the locks of other threads."""
    global _guard
    _guard = threading.Lock()
    _found.clear()


# not on Windows, which has no fork
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
