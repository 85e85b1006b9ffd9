"""What a plan costs, known before it runs (tasks, pixels computed, bytes read, peak memory), and what it may use.

1. The schedule of a task says which blocks are alive together; kernels may hold temporaries of their inputs' size.
2. A process needs its baseline (interpreter and imports), and as much again for every task that runs at the same time.
3. The limit is what was declared: dask's configuration ``lazyccd.memory-limit``, else the smallest limit of the workers of
   the active cluster, else what the batch system or the container gives to this job, else none; never the node's memory.
4. A task that would not fit cuts its region into bands of rows, and the bands of stacks into smaller ones, and holds no more
   than its result and what one band takes. Halos are computed anew for each band, so there is an end to it.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import dask
import numpy as np
from dask.utils import format_bytes, parse_bytes

from lazyccd.errors import MemoryLimitError, ParameterError
from lazyccd.kernels.block import Request
from lazyccd.plan.chunks import KEPT_BYTES
from lazyccd.plan.evaluate import band_rows, bands_of_rows, cut_request, stack_bytes
from lazyccd.plan.job import job_bytes, job_cpus
from lazyccd.plan.on_demand import groups_of
from lazyccd.plan.schedule import Action, demand, demand_below, make_schedule, stacks_inside, strip_rows
from lazyccd.plan.steps import Stack, Step, walk
from lazyccd.sections import Region

BASELINE_BYTES = 260 * 2**20
"""Memory of a process that has imported the library and compiled its kernels, before any pixel: imports alone are 230 MB."""

TEMPORARIES = 2.0
"""How many times its input and output a kernel may hold in temporaries."""

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


def task_cost(plan: Step, region: Region, planes: Sequence[str] | None = None, cuts: int = 1) -> TaskCost:
    """Return what it costs to pull a region of a plan, cut into so many bands of rows."""
    request = Request(region, frozenset(planes or plan.dtypes))
    bands = list(cut_request(request, cuts))
    held = sum(step.held_bytes(requests) for step, requests in demand_below([(plan, request)]).values())
    # a band in the middle has the whole halo, at the edges of the image it is cut
    middle = bands[len(bands) // 2]
    band = request._replace(region=dearest_region(plan, [middle.region, *(each.region for each in bands)]))
    asked = demand_below([(plan, band)]).values()
    read = sum(step.read_bytes(requests) for step, requests in asked)
    kept = min(sum(step.decoded_bytes(requests) for step, requests in asked), KEPT_BYTES)
    computed = max((sum(r.region.size for r in requests) for _, requests in asked), default=0)
    # the block handed on, and a copy of it as what users hold
    result = 2 * _bytes(plan, request)
    inside = stacks_inside(plan, request)
    given = {stack.token: sum(_bytes(stack, each) for each in requests) for stack, requests in inside}
    first = max((_scratch_of_stack(s, each, cuts) for s, requests in inside for each in requests), default=0)
    peak = held + kept + sum(given.values()) + max(first, _peak([(plan, band)], cuts, given)) + result
    return TaskCost(peak, read * len(bands), computed * len(bands))


def _peak(roots: Sequence[tuple[Step, Request]], cuts: int, given: Collection[str] = ()) -> int:
    """Return the most bytes that the blocks of a schedule take at a time, besides what is given."""
    alive: dict[str, int] = {}
    peak = 0
    for action in make_schedule(roots, given):
        out = sum(_bytes(action.step, request) for request in action.requests)
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
    return _peak(roots, cuts, given) + int(TEMPORARIES * _bytes(step, band)) + pixels * step.scratch_bytes


def _scratch(action: Action, request: Request, cuts: int, given: Collection[str]) -> int:
    """Return the bytes that making one region of a kept step takes besides its inputs and its result."""
    step = action.step
    if isinstance(step, Stack):
        return _scratch_of_stack(step, request, cuts, given)
    if not step.local or not step.inputs:
        needs = zip(step.inputs, step.needs(request), strict=True)
        read = sum(_bytes(source, need) for source, need in needs if need is not None)
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
            request = Request(functools.reduce(Region.union, tiles), scalar.reduction.planes)
            peak = max(peak, _peak([(scalar.reduction.step, request)], 1))
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

    @property
    def room(self) -> int | None:
        """Bytes that one of the tasks may use; None if nothing was declared."""
        return None if self.bytes is None else max(0, self.bytes - BASELINE_BYTES) // self.threads


def declared_bytes() -> int | None:
    """Return the limit that dask's configuration declares; None if it declares none."""
    declared = dask.config.get("lazyccd.memory-limit", None)
    try:
        return None if declared is None else int(parse_bytes(declared))
    except ValueError:
        raise ParameterError(
            f"dask's configuration has lazyccd.memory-limit = {declared!r}, which must be a size such as '2GB' or '500MiB'."
        ) from None


def fitting_cuts(plan: Step, request: Request, room: int) -> int:
    """Return into how many bands a task must cut its region to fit into so many bytes; 0 if it does not fit."""
    region, planes = request.region, tuple(request.planes)
    whole = cost = task_cost(plan, region, planes)
    # doubled: each trial makes the schedule of the task anew, and a limit that is met exactly gains nothing
    cuts = 1
    while cost.peak_bytes > room:
        cuts *= 2
        if cuts > min(MOST_CUTS, region.shape.y):
            return 0
        try:
            cost = task_cost(plan, region, planes, cuts)
        except MemoryLimitError:  # a stack whose bands cannot be smaller
            return 0
        if cost.computed_pixels > MOST_WORK * whole.computed_pixels:
            return 0
    return cuts


def cuts_of_task(plan: Step, request: Request, declared: int | None) -> int:
    """Return into how many bands a task of this process cuts its region: so many that as many as run at a time fit.

    Parameters
    ----------
    plan, request
        What is pulled.
    declared
        The limit that was declared where the graph was made, if one was.

    Raises
    ------
    MemoryLimitError
        Raised with the numbers, if the task would not fit even alone.
    """
    limit = process_limit(declared)
    if limit.bytes is None or limit.room is None:
        return 1
    alone = max(0, limit.bytes - BASELINE_BYTES)
    # better one task that takes all the memory while others wait than a run that fails
    cuts = fitting_cuts(plan, request, limit.room) or fitting_cuts(plan, request, alone)
    if not cuts:
        needed = BASELINE_BYTES + task_cost(plan, request.region, tuple(request.planes)).peak_bytes
        raise MemoryLimitError(
            f"a task on {request.region.shape.y} x {request.region.shape.x} pixels takes {format_bytes(needed)} with its "
            f"process and the memory limit is {format_bytes(limit.bytes)}; use smaller chunks, as "
            "ds.ccd.rechunk(n) makes, or raise lazyccd.memory-limit."
        )
    return cuts


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
    worker = _this_worker()
    if worker is not None:
        return Limit(
            worker.memory_manager.memory_limit or None if declared is None else declared, worker.state.nthreads
        )
    threads = int(dask.config.get("num_workers", None) or job_cpus())
    # one thread, or one task per process: nothing else is alive beside the task
    if dask.config.get("scheduler", None) in {"sync", "synchronous", "single-threaded", "processes"}:
        threads = 1
    return Limit(job_bytes() if declared is None else declared, threads)


def _this_worker() -> Any | None:
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


def process_bytes(cost: TaskCost, limit: Limit) -> int:
    """Return the memory of a process that runs as many tasks of a cost as it may at a time."""
    return BASELINE_BYTES + limit.threads * cost.peak_bytes


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


def check_memory(plan: Step, regions: Sequence[Region]) -> None:
    """Refuse a plan whose tasks do not fit into the declared memory limit, not even in bands.

    Raises
    ------
    MemoryLimitError
        Raised with the numbers, and the chunk size that would fit.
    """
    limit = declared_limit()
    if limit.bytes is None or limit.room is None or not regions:
        return
    largest = dearest_region(plan, regions)
    if fitting_cuts(plan, Request(largest, frozenset(plan.dtypes)), limit.room):
        return
    cost = task_cost(plan, largest)
    needed = process_bytes(cost, limit)
    side = _fitting_side(plan, limit.room, largest, cost)
    way_out = f"chunks of {side} x {side} pixels would fit" if side else "no chunk size would fit"
    raise MemoryLimitError(
        f"a task on {largest.shape.y} x {largest.shape.x} pixels takes {format_bytes(cost.peak_bytes)}, {limit.threads} of "
        f"them with the process {format_bytes(needed)}, and the memory limit is {format_bytes(limit.bytes)}; {way_out}, "
        "or raise lazyccd.memory-limit."
    )


def fits_memory(plan: Step, region: Region, planes: Iterable[str] | None = None) -> bool:
    """Return whether tasks on some planes of a region, or all, fit into the declared memory limit, in bands if need be."""
    room = declared_limit().room
    return room is None or bool(fitting_cuts(plan, Request(region, frozenset(planes or plan.dtypes)), room))


def _fitting_side(plan: Step, room: int, region: Region, cost: TaskCost) -> int:
    """Return the side of square chunks, a multiple of 64, that fit into so many bytes a task; 0 if none does.

    Halos and dependencies do not shrink with the chunk, so each guess is checked in the middle of the image, where nothing
    is clipped.
    """
    side = math.isqrt(int(region.size * room / cost.peak_bytes)) // 64 * 64
    while side >= 64:
        y0, x0 = (max(0, (length - side) // 2) for length in plan.shape)
        chunk = Region(y0, y0 + side, x0, x0 + side).clip(plan.shape)
        if fitting_cuts(plan, Request(chunk, frozenset(plan.dtypes)), room):
            return side
        side = side * 7 // 8 // 64 * 64
    return 0


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_HEAP_BLOCK = 32 * 2**20


@cache  # a setting of the process: once is enough
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
