"""The report of `ds.ccd.plan()`: what a frame's plan does and costs, as text and HTML.

The numbers are those by which writers and tasks decide, from `lazyccd.plan.cost`; nothing is estimated a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

import xarray as xr
from dask.utils import format_bytes

from lazyccd.kernels.block import Request
from lazyccd.pixel_history import with_inputs
from lazyccd.plan.chunks import cuts_of, grid_boxes
from lazyccd.plan.cost import (
    BASELINE_BYTES,
    Fit,
    Limit,
    TaskCost,
    dearest_region,
    declared_limit,
    first_fitting,
    fit_into,
    fitting_groups,
    pending_below,
    reduction_cost,
    task_cost,
    written_bytes,
)
from lazyccd.plan.lower import boundaries_below
from lazyccd.plan.steps import Chunked, Step, walk
from lazyccd.sections import Region

DEAR = 1.5
"""Pixels computed for each one kept from which larger chunks are advised."""

HALOS_PER_SIDE = 16
"""Halos in the side of a chunk that makes the margin cheap: a quarter more pixels."""


MOST_READS = 3
"""Files that a report names one by one."""


def _without_most_reads(steps: tuple[str, ...]) -> list[str]:
    """Return the names of steps, those that read files as one if they are many: a mosaic has hundreds."""
    reads = [step for step in steps if step.startswith("read ")]
    if len(reads) <= MOST_READS:
        return list(steps)
    first = f"{reads[0]} and {len(reads) - 1} others"
    return [first if step == reads[0] else step for step in steps if step not in reads[1:]]


@dataclass(frozen=True)
class PlanReport:
    """The cost of computing all variables of a frame; printing it shows a table."""

    steps: tuple[str, ...]
    """Names of the steps, from the sources on."""

    tasks: int
    """Tasks, without those of pending scalars."""

    chunk: tuple[int, int]
    """Rows and columns of the largest chunk; of the largest region that is written at a time, where chunks do not fit into the limit."""

    halo_rows: int
    """Rows beyond its own that a chunk needs."""

    overhead: float
    """Pixels computed for each pixel kept."""

    read_bytes: int
    """Bytes of pixels read from files and stores, over all tasks."""

    task_bytes: int
    """Peak bytes of pixels of one task."""

    process_bytes: int
    """Estimated peak memory of a process."""

    limit_bytes: int | None
    """Declared memory limit, if there is one."""

    scalars: tuple[str, ...]
    """Pending scalars, and what they cost."""

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The table: what and how much."""
        limit = "none declared" if self.limit_bytes is None else format_bytes(self.limit_bytes)
        return [
            ("steps", " -> ".join(_without_most_reads(self.steps))),
            ("tasks", str(self.tasks)),
            ("largest chunk", f"{self.chunk[0]} x {self.chunk[1]} pixels"),
            ("halo", f"{self.halo_rows} rows; {self.overhead:.2f} pixels computed per pixel"),
            ("read", format_bytes(self.read_bytes)),
            ("memory per task", format_bytes(self.task_bytes)),
            ("memory per process", format_bytes(self.process_bytes)),
            ("memory limit", limit),
            ("pending scalars", "; ".join(self.scalars) or "none"),
            *((("advice", self.advice),) if self.advice else ()),
        ]

    @property
    def advice(self) -> str:
        """What would make the plan cheaper; empty if nothing stands out."""
        if self.overhead < DEAR or not self.halo_rows:
            return ""
        side = -(-HALOS_PER_SIDE * self.halo_rows // 128) * 128
        return (
            f"chunks of {self.chunk[0]} x {self.chunk[1]} are small for a halo of {self.halo_rows} pixels: "
            f"{self.overhead:.1f} pixels are computed for each one kept; open or rechunk with {side} x {side} or more"
        )

    def __str__(self) -> str:
        """Return the table as text."""
        return "\n".join(f"{name:<19}{value}" for name, value in self.rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table as HTML."""
        body = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self.rows
        )
        return f"<table>{body}</table>"


def plan_report(ccd: xr.Dataset) -> PlanReport:
    """Return what computing a frame costs, with the stacks that it is made of. Nothing is read or computed."""
    image = with_inputs(ccd)
    limit = declared_limit()
    below = [
        _cost_of(boundary.plan, grid_boxes(boundary.grid), limit)
        for boundary in boundaries_below(image.plan, image.graphs).values()
    ]
    # as writers do it: in smaller regions where chunks do not fit
    own = _cost_of(image.plan, first_fitting(image.plan, cuts_of(image.grid)), limit)
    every = [*below, own]
    # tasks of a stack, of its readers and of scalars run side by side, and the largest decides what a process needs
    needed = max(
        (cost.peak_bytes * min(limit.threads, tasks), cost.peak_bytes) for part in every for cost, tasks in part.costs
    )
    held = limit.holding(image.plan).held
    return PlanReport(
        steps=tuple(dict.fromkeys(step for part in every for step in part.steps)),
        tasks=sum(part.tasks for part in every),
        chunk=own.chunk,
        halo_rows=image.plan.halo_rows,
        overhead=own.cost.computed_pixels / (own.chunk[0] * own.chunk[1]),
        read_bytes=sum(part.read_bytes for part in every),
        task_bytes=needed[1],
        process_bytes=BASELINE_BYTES + held + needed[0],
        limit_bytes=limit.bytes,
        scalars=tuple(dict.fromkeys(text for part in every for text in part.scalars)),
    )


class _Part(NamedTuple):
    """What computing a plan costs, without the arrays that it reads."""

    steps: tuple[str, ...]
    tasks: int
    chunk: tuple[int, int]
    cost: TaskCost
    read_bytes: int
    scalars: tuple[str, ...]
    costs: tuple[tuple[TaskCost, int], ...]
    """Costs of a task, and how many there are, of the image and of its scalars; a task that runs alone is one."""


def _cost_of(plan: Step, boxes: Sequence[Region], limit: Limit) -> _Part:
    """Return what computing a plan in some regions costs."""
    largest = dearest_region(plan, boxes)
    request = Request(largest, frozenset(plan.dtypes))
    # the cost as the task will have it, with its region cut to fit into the limit, and its result written
    after = written_bytes(plan, request)
    fit = fit_into(limit.holding(plan), plan, request, after) or Fit()
    cost = task_cost(plan, largest, cuts=fit.cuts, after=after)
    costs = [(cost, 1 if fit.alone else len(boxes))]
    scalars = []
    for scalar in pending_below(plan):
        assert scalar.reduction is not None
        below, reduction = 0, scalar.reduction
        groups = fitting_groups(reduction)
        dearest = reduction_cost(reduction, groups)
        costs += [] if dearest is None else [(dearest, len(groups))]
        for region in reduction.parts or (reduction.region,):
            if region.size:  # one that is made of others reads nothing itself
                below += task_cost(reduction.step, region, tuple(reduction.planes)).read_bytes
        scalars.append(f"{scalar.what} (reads {format_bytes(below)})")
    # arrays that exist are no step of the work
    steps = tuple(step.summary for step in walk(plan) if not isinstance(step, Chunked)) or (plan.summary,)
    # the largest chunk stands for all: the cost of each needs a walk of the plan, and there may be 100 000
    read = int(cost.read_bytes / largest.size * plan.shape[0] * plan.shape[1])
    return _Part(steps, len(boxes), (largest.shape.y, largest.shape.x), cost, read, tuple(scalars), tuple(costs))
