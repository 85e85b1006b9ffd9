"""What a plan costs, known before it runs (tasks, pixels computed, bytes read, peak memory), and what it may use.

1. The schedule of a task says which blocks are alive together; kernels may hold temporaries: they say how large ones, or they are
   taken to be of their inputs' size. What is done with the result takes memory too: it is compressed, or reduced to numbers.
2. A process needs its baseline (interpreter and imports), the arrays that it holds anyway, and as much again for every task that runs
   at the same time.
3. The limit is what was declared: dask's configuration ``lazyccd.memory-limit``, else the smallest limit of the workers of
   the active cluster, else what the batch system or the container gives to this job, else none; never the node's memory.
4. A task that would not fit cuts its region into bands of rows, and the bands of stacks into smaller ones, and holds no more
   than its result and what one band takes. Halos are computed anew for each band, so there is an end to it. A task that then
   fits only by itself runs alone.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask
import numpy as np
from dask.local import get_sync
from dask.utils import format_bytes, parse_bytes

from lazyccd.errors import MemoryLimitError, ParameterError
from lazyccd.kernels.block import Request
from lazyccd.plan.chunks import CHUNK_PIXELS, KEPT_BYTES
from lazyccd.plan.evaluate import band_rows, bands_of_rows, cut_request, stack_bytes
from lazyccd.plan.job import job_bytes, job_cpus
from lazyccd.plan.memory import TURNS, give_back, give_back_in_worker
from lazyccd.plan.on_demand import groups_of
from lazyccd.plan.schedule import Action, demand, demand_below, make_schedule, stacks_inside, strip_rows
from lazyccd.plan.steps import Apply, Chunked, Reduction, Scalar, Stack, Step, walk
from lazyccd.sections import Region

BASELINE_BYTES = 260 * 2**20
"""Memory of a process that has imported the library and compiled its kernels, before any pixel: imports alone are 230 MB."""

TEMPORARIES = 2.0
"""How many times its input and output a kernel may hold in temporaries."""

BATCH_ARRAYS, BATCH_BYTES = 12, 2**20
"""How many arrays of the batch of pixels that a stack combines at a time there are, and bytes of one at most."""

MOST_CUTS = 64
"""Into how many bands a task cuts its region at most."""

MOST_WORK = 3.0
"""How many times the pixels of the whole region may be computed for it in bands."""


@dataclass(frozen=True)
class TaskCost:
    """What one task costs."""

    peak_bytes: int
    """Most bytes of pixels alive at a time, dependencies as whole chunks."""

    read_bytes: int
    """Bytes of pixels read from storage, after decoding."""

    computed_pixels: int
    """Pixels that the largest step computes; more than the task's own where there is a halo."""


def task_cost(
    plan: Step, region: Region, planes: Sequence[str] | None = None, cuts: int = 1, *, after: int = 0
) -> TaskCost:
    """Return what it costs to pull a region of a plan, cut into so many bands of rows.

    Parameters
    ----------
    plan, region, planes
        What is pulled; all planes if None.
    cuts
        Into how many bands.
    after
        Bytes that are taken besides the result when that is there.
    """
    request = Request(region, frozenset(planes or plan.dtypes))
    bands = list(cut_request(request, cuts))
    held = sum(step.held_bytes(requests) for step, requests in demand_below([(plan, request)]).values())
    # a band in the middle has the whole halo, at the edges of the image it is cut
    middle = bands[len(bands) // 2]
    band = request._replace(region=dearest_region(plan, [middle.region, *(each.region for each in bands)]))
    asked = demand_below([(plan, band)]).values()
    read = sum(step.read_bytes(requests) for step, requests in asked)
    kept = min(sum(step.decoded_bytes(requests) for step, requests in asked), KEPT_BYTES)
    # one storage is read at a time
    kept += max((step.unpacked_bytes for step, _ in asked), default=0)
    computed = max((sum(r.region.size for r in requests) for _, requests in asked), default=0)
    inside = stacks_inside(plan, request)
    given = {stack.token: sum(_bytes(stack, each) for each in requests) for stack, requests in inside}
    first = max((_scratch_of_stack(s, each, cuts) for s, requests in inside for each in requests), default=0)
    schedule = make_schedule([(plan, band)], given)
    in_parts = schedule[-1].in_strips or isinstance(plan, Stack)
    pulled = kept + sum(given.values()) + max(first, _peak(schedule, cuts, given, in_parts=in_parts))
    # the block of the last step is the result, or it is filled from what is handed on
    result = _bytes(plan, request)
    filled = result if in_parts or len(bands) > 1 else 0
    peak = held + max(filled + pulled, result + after)
    return TaskCost(peak, read * len(bands), computed * len(bands))


def _peak(schedule: Sequence[Action], cuts: int, given: Collection[str] = (), *, in_parts: bool = False) -> int:
    """Return the most bytes that the blocks of a schedule take at a time, besides what is given.

    Parameters
    ----------
    schedule, cuts, given
        The work of a task, into how many bands it is cut, and tokens of the steps whose blocks it is given.
    in_parts
        Whether the last block is handed on strip by strip and never whole.
    """
    alive: dict[str, int] = {}
    peak = 0
    for action in schedule:
        is_whole = not (in_parts and action is schedule[-1])
        out = sum(_bytes(action.step, request) for request in action.requests) if is_whole else 0
        scratch = max(_scratch(action, request, cuts, given) for request in action.requests)
        peak = max(peak, sum(alive.values()) + out + scratch)
        alive[action.step.token] = out
        for token in action.frees:
            alive.pop(token, None)
    return peak


def _scratch_of_stack(step: Step, request: Request, cuts: int, given: Collection[str] = ()) -> int:
    """Return the bytes that combining the frames of a stack takes besides its result."""
    assert isinstance(step, Stack)
    rows = min(band_rows(step, request, cuts), request.region.shape.y)
    # of a mosaic, on each band lie other frames
    bands = bands_of_rows(request, rows) if step.places else iter(())
    band = max(bands, key=lambda each: stack_bytes(step, each), default=None) or next(bands_of_rows(request, rows))
    roots = [(f, need) for f, need in zip(step.frames, step.needs(band), strict=True) if need is not None]
    pixels = max((need.region.size for _, need in roots), default=0)
    # a batch is no larger than the band, whose pixels are float64 at most
    batches = BATCH_ARRAYS * min(BATCH_BYTES, 8 * pixels * len(roots))
    combined = batches + int((1 + TEMPORARIES) * _bytes(step, band)) + pixels * step.scratch_bytes
    return _peak(make_schedule(roots, given), cuts, given) + combined


def _scratch(action: Action, request: Request, cuts: int, given: Collection[str]) -> int:
    """Return the bytes that making one region of a kept step takes besides its inputs and its result."""
    step = action.step
    if isinstance(step, Stack):
        return _scratch_of_stack(step, request, cuts, given)
    if not step.local or not step.inputs:
        needs = [(s, need) for s, need in zip(step.inputs, step.needs(request), strict=True) if need is not None]
        if isinstance(step, Apply) and step.scratch_bytes is not None:
            pixels = max((need.region.size for _, need in needs), default=0)
            return step.scratch_bytes * pixels + _on_demand(step)
        read = sum(_bytes(source, need) for source, need in needs)
        return int(TEMPORARIES * max(read, _bytes(step, request))) + _on_demand(step)
    rows = strip_rows(action.segment, request)
    strip = Request(request.region._replace(y1=request.region.y0 + rows), request.planes)
    demands = demand(action.segment, [(step, strip)], in_strip=True)
    taken = sum(_bytes(s, r) for s in action.segment for r in demands.get(s.token, []))
    return int(TEMPORARIES * taken)


def _on_demand(step: Step) -> int:
    """Return the bytes that making a scalar of a step takes, in the middle of its work."""
    peak = 0
    for _, scalar in step.scalars:
        if scalar.is_on_demand:
            assert scalar.reduction is not None
            _, tiles = zip(*next(groups_of(scalar.reduction)), strict=True)
            region = union_of(tiles)
            schedule = make_schedule([(scalar.reduction.step, Request(region, scalar.reduction.planes))])
            peak = max(peak, _peak(schedule, 1) + reduced_bytes(scalar.reduction, region))
    return peak


def _bytes(step: Step, request: Request) -> int:
    """Return the bytes of a block."""
    return request.region.size * sum(dtype.itemsize for plane, dtype in step.planes if plane in request.planes)


@dataclass(frozen=True)
class Limit:
    """How much memory a process may use, and how many tasks it runs at a time."""

    bytes: int | None
    """None if nothing was declared."""

    threads: int
    """Tasks at a time."""

    held: int = 0
    """Bytes of pixels that the process has in memory anyway."""

    @property
    def total_room(self) -> int | None:
        """Bytes that a task may use that runs by itself; None if nothing was declared."""
        return None if self.bytes is None else max(0, self.bytes - BASELINE_BYTES - self.held)

    @property
    def room(self) -> int | None:
        """Bytes that one of the tasks may use; None if nothing was declared."""
        return None if self.total_room is None else self.total_room // self.threads

    def holding(self, plan: Step) -> Limit:
        """Return the limit with the arrays in memory that a plan reads."""
        return replace(self, held=max(self.held, arrays_in_memory(plan)))


def arrays_in_memory(plan: Step) -> int:
    """Return the bytes of the arrays that a plan reads and that are in memory anyway, each counted once."""
    if not plan.arrays:  # most plans: no need to walk them
        return 0
    found = {step.name: step for step in walk(plan) if isinstance(step, Chunked) and step.in_memory}
    return sum(_bytes(step, Request(Region.full(step.shape), frozenset(step.dtypes))) for step in found.values())


def declared_bytes() -> int | None:
    """Return the limit that dask's configuration declares; None if it declares none."""
    declared = dask.config.get("lazyccd.memory-limit", None)
    try:
        return None if declared is None else int(parse_bytes(declared))
    except ValueError:
        raise ParameterError(
            f"dask's configuration has lazyccd.memory-limit = {declared!r}, which must be a size such as '2GB' or '500MiB'."
        ) from None


class Fit(NamedTuple):
    """How a task fits into the memory limit."""

    cuts: int = 1
    """Into how many bands it cuts its region."""

    alone: bool = False
    """Whether no other task may run beside it."""


def fitting_cuts(plan: Step, request: Request, room: int, after: int = 0) -> int:
    """Return into how many bands a task must cut its region to fit into so many bytes; 0 if it does not fit.

    Parameters
    ----------
    plan, request
        What is pulled.
    room
        Bytes that the task may use.
    after
        Bytes that are taken besides the result when that is there.
    """
    region, planes = request.region, tuple(request.planes)
    whole = cost = task_cost(plan, region, planes, after=after)
    # doubled: each trial makes the schedule of the task anew, and a limit that is met exactly gains nothing
    cuts = 1
    while cost.peak_bytes > room:
        cuts *= 2
        if cuts > min(MOST_CUTS, region.shape.y):
            return 0
        try:
            cost = task_cost(plan, region, planes, cuts, after=after)
        except MemoryLimitError:  # a stack whose bands cannot be smaller
            return 0
        if cost.computed_pixels > MOST_WORK * whole.computed_pixels:
            return 0
    return cuts


def fit_into(limit: Limit, plan: Step, request: Request, after: int = 0) -> Fit | None:
    """Return how a task fits into a limit: beside others in bands, else by itself; None if it does not.

    Parameters
    ----------
    limit
        That of the process.
    plan, request, after
        As for `fitting_cuts`.
    """
    if limit.room is None or limit.total_room is None:
        return Fit()
    if cuts := fitting_cuts(plan, request, limit.room, after):
        return Fit(cuts)
    # better one task that takes all the memory while others wait than a run that fails
    cuts = fitting_cuts(plan, request, limit.total_room, after)
    return Fit(cuts, alone=True) if cuts else None


def written_bytes(plan: Step, request: Request) -> int:
    """Return how many bytes it takes to write a region: as it is compressed, and put together in the order of the file."""
    return 2 * _bytes(plan, request)


def fit_of_task(limit: Limit, plan: Step, request: Request, after: int = 0) -> Fit:
    """Return into how many bands a task of this process cuts its region: so many that as many as run at a time fit.

    Parameters
    ----------
    limit
        That of the process.
    plan, request, after
        As for `fitting_cuts`.

    Raises
    ------
    MemoryLimitError
        Raised with the numbers, if the task would not fit even alone.
    """
    fit = fit_into(limit, plan, request, after)
    if fit is None:
        needed = BASELINE_BYTES + task_cost(plan, request.region, tuple(request.planes), after=after).peak_bytes
        raise MemoryLimitError(
            f"a task on {request.region.shape.y} x {request.region.shape.x} pixels takes {format_bytes(needed)} with its "
            f"process and the memory limit is {format_bytes(limit.bytes or 0)}; use smaller chunks, as "
            "ds.ccd.rechunk(n) makes, or raise lazyccd.memory-limit."
        )
    return fit


@contextmanager
def turn_of_task(
    plan: Step, request: Request, declared: int | None, after: int = 0, *, waits: bool = True
) -> Iterator[int]:
    """Wait until a task fits beside those that run, hold its turn, and yield the number of bands that it cuts its region into.

    Parameters
    ----------
    plan, request, after
        As for `fit_of_task`, which raises what this does.
    declared
        The limit that was declared where the graph was made, if one was.
    waits
        False for what is computed inside of a task.
    """
    limit = process_limit(declared).holding(plan)
    if limit.bytes is None:
        yield 1
        return
    fit = fit_of_task(limit, plan, request, after)
    worker = this_worker()
    if worker is not None:
        give_back_in_worker(worker)
    with TURNS.turn(alone=fit.alone) if waits else nullcontext():
        # what was freed before counts as well
        give_back(limit.bytes - ((limit.total_room if fit.alone else limit.room) or 0))
        yield fit.cuts


def declared_limit() -> Limit:
    """Return the memory limit that holds now for the processes that run tasks."""
    workers = _workers()
    if not workers:
        return process_limit()
    declared = declared_bytes()
    # any worker may run any task; 0 is dask's word for no limit
    smallest = min(limit for limit, _ in workers) or None
    return Limit(smallest if declared is None else declared, max(threads for _, threads in workers))


def process_limit(declared: int | None = None) -> Limit:
    """Return the limit of this process: what is declared, else its own as a worker of a cluster, else the job's."""
    declared = declared_bytes() if declared is None else declared
    worker = this_worker()
    if worker is not None:
        limit = worker.memory_manager.memory_limit or None
        # results that it holds are not taken off: dask spills them where there is want of memory, and tasks count those they read
        return Limit(limit if declared is None else declared, worker.state.nthreads)
    threads = int(dask.config.get("num_workers", None) or job_cpus())
    # one thread, or one task per process: nothing else is alive beside the task
    if dask.config.get("scheduler", None) in {"sync", "synchronous", "single-threaded", "processes", get_sync}:
        threads = 1
    return Limit(job_bytes() if declared is None else declared, threads)


def this_worker() -> Any | None:
    """Return the worker of a cluster that runs this task; None elsewhere."""
    distributed: Any = sys.modules.get("distributed")  # a process that never imported it is no worker
    try:
        return None if distributed is None else distributed.get_worker()
    except ValueError:
        return None


def _workers() -> list[tuple[int, int]]:
    """Return memory limit and threads of the workers of the active cluster."""
    distributed: Any = sys.modules.get("distributed")  # a process that never imported it has no client
    try:
        client = None if distributed is None else distributed.get_client()
    except ValueError:
        return []
    # an asynchronous client would have to be awaited
    if client is None or client.asynchronous:
        return []
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return [(int(worker["memory_limit"]), int(worker["nthreads"])) for worker in workers]


def process_bytes(cost: TaskCost, limit: Limit, tasks: int | None = None) -> int:
    """Return the memory of a process that runs as many tasks of a cost as it may at a time, or as there are."""
    threads = limit.threads if tasks is None else min(limit.threads, tasks)
    return BASELINE_BYTES + limit.held + threads * cost.peak_bytes


def dearest_region(plan: Step, regions: Sequence[Region]) -> Region:
    """Return the region whose task costs most: of the largest ones that on which most frames of a mosaic lie.

    The first chunk of a mosaic is its corner, where few frames lie.
    """
    size = max(region.size for region in regions)
    largest = [region for region in regions if region.size == size]
    places = [p for step in walk(plan) if isinstance(step, Stack) and step.shape == plan.shape for p in step.places]
    if not places:
        return largest[0]
    y0, y1, x0, x1 = np.array(places).T

    def frames_on(region: Region) -> int:
        return int(np.count_nonzero((y0 < region.y1) & (y1 > region.y0) & (x0 < region.x1) & (x1 > region.x0)))

    return max(largest, key=frames_on)


def check_memory(plan: Step, regions: Sequence[Region], *, writes: bool = True) -> None:
    """Refuse a plan whose tasks do not fit into the declared memory limit, not even in bands, and those of its scalars.

    Parameters
    ----------
    plan, regions
        What is computed, a task each.
    writes
        Whether the tasks write what they compute.

    Raises
    ------
    MemoryLimitError
        Raised with the numbers, and the chunk size that would fit.
    """
    limit = declared_limit().holding(plan)
    if limit.bytes is None or limit.total_room is None or not regions:
        return
    for scalar in pending_below(plan):
        _check_scalar(scalar, limit)
    largest = dearest_region(plan, regions)
    request = Request(largest, frozenset(plan.dtypes))
    after = written_bytes(plan, request) if writes else 0
    if fit_into(limit, plan, request, after):
        return
    cost = task_cost(plan, largest, after=after)
    needed = process_bytes(cost, limit)
    side = _fitting_side(plan, limit, largest, cost, writes=writes)
    way_out = f"chunks of {side} x {side} pixels would fit" if side else "no chunk size would fit"
    raise MemoryLimitError(
        f"a task on {largest.shape.y} x {largest.shape.x} pixels takes {format_bytes(cost.peak_bytes)}, {limit.threads} of "
        f"them with the process {format_bytes(needed)}, and the memory limit is {format_bytes(limit.bytes)}; {way_out}, "
        "or raise lazyccd.memory-limit."
    )


def pending_below(plan: Step) -> list[Scalar]:
    """Return the scalars that a plan has pending, and before each those that making it needs."""
    found: dict[str, Scalar] = {}
    todo = list(plan.pending.values())
    while todo:
        scalar = todo.pop()
        if scalar.token not in found and scalar.reduction is not None:
            found[scalar.token] = scalar
            todo.extend(scalar.reduction.pending.values())
    return list(found.values())[::-1]


def _check_scalar(scalar: Scalar, limit: Limit) -> None:
    """Refuse a scalar whose tasks do not fit into the memory limit; see `check_memory`."""
    reduction = scalar.reduction
    assert reduction is not None
    cost = reduction_cost(reduction, fitting_groups(reduction, limit))
    if cost is not None and limit.total_room is not None and cost.peak_bytes > limit.total_room:
        raise MemoryLimitError(
            f"{scalar.what or 'a number of the whole image'} takes {format_bytes(cost.peak_bytes)} in a task, "
            f"{format_bytes(BASELINE_BYTES + limit.held + cost.peak_bytes)} with the process, and the memory limit is "
            f"{format_bytes(limit.bytes or 0)}; raise lazyccd.memory-limit, or compute it in a process of its own first."
        )


def union_of(tiles: Iterable[Region]) -> Region:
    """Return the region that encloses some tiles."""
    return functools.reduce(Region.union, tiles)


def fitting_groups(reduction: Reduction, limit: Limit | None = None) -> list[list[tuple[int, Region]]]:
    """Return the tiles of a reduction in the largest groups whose tasks fit into the memory limit, by default the declared one."""
    limit = declared_limit().holding(reduction.step) if limit is None else limit
    for shrink in (1, 4, 16):
        groups = list(reduction.groups(CHUNK_PIXELS // shrink))
        region = _largest(groups)
        if limit.room is None or region is None or not region.size:
            break
        request = Request(region, reduction.planes)
        if fitting_cuts(reduction.step, request, limit.room, reduced_bytes(reduction, region)):
            break
    return groups


def _largest(groups: Iterable[list[tuple[int, Region]]]) -> Region | None:
    """Return the largest region that a group of tiles lies in; None if there is no group."""
    regions = (union_of([tile for _, tile in group]) for group in groups)
    return max(regions, key=lambda region: region.size, default=None)


def reduced_bytes(reduction: Reduction, region: Region) -> int:
    """Return how many bytes it takes to reduce a region, besides its block."""
    return reduction.scratch_bytes * region.size


def reduction_cost(reduction: Reduction, groups: list[list[tuple[int, Region]]]) -> TaskCost | None:
    """Return what the dearest task of a reduction costs, cut to fit into the declared limit; None if it reads no pixel."""
    region, limit = _largest(groups), declared_limit().holding(reduction.step)
    if region is None or not region.size:
        return None
    request, after = Request(region, reduction.planes), reduced_bytes(reduction, region)
    fit = fit_into(limit, reduction.step, request, after) or Fit()
    return task_cost(reduction.step, region, tuple(reduction.planes), fit.cuts, after=after)


def fits_memory(plan: Step, region: Region, planes: Iterable[str] | None = None) -> bool:
    """Return whether tasks that write some planes of a region, or all, fit into the declared limit side by side, in bands if need be."""
    limit, request = declared_limit().holding(plan), Request(region, frozenset(planes or plan.dtypes))
    return limit.room is None or bool(fitting_cuts(plan, request, limit.room, written_bytes(plan, request)))


def fits_alone(plan: Step, regions: Sequence[Region]) -> bool:
    """Return whether the dearest task that writes one of some regions fits into the declared limit, by itself at least."""
    limit = declared_limit().holding(plan)
    if limit.room is None or not regions:
        return True
    # at the edges of the image halos are cut
    looked_at = {dearest_region(plan, regions), regions[len(regions) // 2]}
    requests = [Request(region, frozenset(plan.dtypes)) for region in looked_at]
    return all(fit_into(limit, plan, request, written_bytes(plan, request)) for request in requests)


def first_fitting(plan: Step, cuts: Iterable[Sequence[Region]]) -> Sequence[Region]:
    """Return the first way to cut an image into regions whose tasks fit into the declared limit; the first of all if none does."""
    first: Sequence[Region] | None = None
    for regions in cuts:
        if fits_alone(plan, regions):
            return regions
        first = regions if first is None else first
    return first or ()


def _fitting_side(plan: Step, limit: Limit, region: Region, cost: TaskCost, *, writes: bool) -> int:
    """Return the side of square chunks, a multiple of 64, that fit into a limit; 0 if none does.

    Halos and dependencies do not shrink with the chunk, so each guess is checked in the middle of the image, where nothing
    is clipped.
    """
    assert limit.room is not None
    side = math.isqrt(int(region.size * limit.room / cost.peak_bytes)) // 64 * 64
    while side >= 64:
        y0, x0 = (max(0, (length - side) // 2) for length in plan.shape)
        request = Request(Region(y0, y0 + side, x0, x0 + side).clip(plan.shape), frozenset(plan.dtypes))
        if fit_into(limit, plan, request, written_bytes(plan, request) if writes else 0):
            return side
        side = side * 7 // 8 // 64 * 64
    return 0
