"""Run a plan at once in the caller's thread, without a graph: on the arrays of a single call, or a small region of files.

This is done by the functions of `tasks`, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lazyccd.kernels.block import Array, Request
from lazyccd.plan.cost import declared_bytes
from lazyccd.plan.footprints import Whole
from lazyccd.plan.steps import Scalar, Step, held_arrays, walk
from lazyccd.plan.tasks import Kind, Output, Work, compute_region, run_final, run_partial
from lazyccd.plan.threads import WORTH_PIXELS, each, shares
from lazyccd.sections import Region

HALO_PASSES = 64
"""How many passes over its pixels a step that looks at neighbours is worth."""


def can_run(plan: Step) -> bool:
    """Return whether a single call runs that holds all arrays that a plan and its pending scalars read."""
    return _all_held(plan, plan.pending)


def _all_held(plan: Step, pending: Mapping[str, Scalar]) -> bool:
    """Return whether the arrays of a plan and of scalars are held."""
    held = held_arrays()
    if held is None or not all(name in held for name in plan.arrays):
        return False
    reductions = [scalar.reduction for scalar in pending.values() if scalar.reduction is not None]
    return all(_all_held(reduction.step, reduction.pending) for reduction in reductions)


def run_plan(plan: Step, kinds: Mapping[str, Kind]) -> dict[str, Array]:
    """Return each variable of a plan's image, computed by threads if it is large."""
    scalars = run_scalars(plan.pending)
    outputs = tuple(Output(name, kind) for name, kind in kinds.items())
    planes = frozenset(out.plane for out in outputs)

    def compute(rows: slice, arrays: tuple[Array, ...] = ()) -> tuple[Array, ...]:
        region = Region(rows.start, rows.stop, 0, plan.shape[1])
        work, deps = _work(plan, Request(region, planes), plan.pending, scalars)
        with work.turn() as cuts:
            return compute_region(work, outputs, deps, arrays=arrays, cuts=cuts)

    parts = shares(plan.shape[0], _passes(plan) * plan.shape[0] * plan.shape[1] // 2)
    if len(parts) == 1:
        return dict(zip(kinds, compute(parts[0]), strict=True))
    arrays = tuple(np.empty(plan.shape, plan.dtypes[out.plane]) for out in outputs)
    each(lambda rows: compute(rows, tuple(array[rows] for array in arrays)), parts)
    return dict(zip(kinds, arrays, strict=True))


def run_region(plan: Step, region: Region, kinds: Mapping[str, Kind]) -> dict[str, Array] | None:
    """Return each variable of a region of a plan's image; None if the plan needs what only a graph gives: scalars or dask arrays.

    A graph takes 5 ms, and to ask a cluster for a few pixels ten times as long.
    """
    if plan.pending or plan.arrays:
        return None
    outputs = tuple(Output(name, kind) for name, kind in kinds.items())
    work = Work(plan, Request(region, frozenset(out.plane for out in outputs)), (), (), declared_bytes())
    with work.turn() as cuts:
        return dict(zip(kinds, compute_region(work, outputs, (), cuts=cuts), strict=True))


def _passes(plan: Step) -> int:
    """Return how many passes over its pixels a plan is worth to threads; 0 if they would all do the same."""
    order = list(walk(plan))
    # each part would need the whole input, and call the user's function for itself
    if any(isinstance(footprint, Whole) for step in order for footprint in step.footprints):
        return 0
    return len(order) if all(step.local for step in order) else HALO_PASSES


def run_scalars(pending: Mapping[str, Scalar]) -> dict[str, Array]:
    """Return the values of pending scalars by token, and of those that they depend on."""
    known: dict[str, Array] = {}
    for token, scalar in pending.items():
        _run_scalar(token, scalar, known)
    return known


def _run_scalar(token: str, scalar: Scalar, known: dict[str, Array]) -> None:
    """Compute a scalar, after those that it depends on, unless it is known."""
    reduction = scalar.reduction
    if token in known or reduction is None:
        return
    for below, other in reduction.pending.items():
        _run_scalar(below, other, known)
    groups = list(reduction.groups())

    def partial(group: Sequence[tuple[int, Region]]) -> list[Array]:
        tiles = [tile for _, tile in group]
        union = tiles[0]
        for tile in tiles[1:]:
            union = union.union(tile)
        work, deps = _work(reduction.step, Request(union, reduction.planes), reduction.pending, known)
        return run_partial(work, reduction, tuple(tiles), *deps)

    large = 8 * reduction.region.size >= WORTH_PIXELS
    partials = each(partial, groups) if large else [partial(group) for group in groups]
    places: list[Sequence[int]] = [[number for number, _ in group] for group in groups]
    if reduction.merge is not None:
        places = [(number,) for number in range(len(groups))]
    tokens = tuple(own.token for _, own in reduction.scalars if own.given is None)
    known[token] = run_final(reduction, places, partials, tokens, *(known[own] for own in tokens))


def _work(
    plan: Step, request: Request, pending: Mapping[str, Scalar], known: Mapping[str, Array]
) -> tuple[Work, list[Array]]:
    """Return the work of pulling a region, and what it depends on."""
    held = held_arrays()
    assert held is not None
    # views: what is no view may be written to, or handed on as it is
    chunks = [held[name][...] for name in plan.arrays]
    keys = tuple((name, (0, 0)) for name in plan.arrays)
    return Work(plan, request, keys, tuple(pending), declared_bytes()), [*chunks, *(known[token] for token in pending)]
