"""What a night will take, told before it is reduced: time, bytes and memory.

1. A stand-in of each kind of product is made of the headers alone: the steps of the recipe, with the raw frame itself in place of
   the masters that are not made yet. It is as lazy as the product, so `lazyccd.plan.cost` tells its memory; no pixel is read.
2. Bytes that are written follow from the shapes and dtypes of the stand-ins, bytes that are read from the sizes of the files.
3. Time is pixels times what a pixel took on one processor when this was written. It is a guess for another machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import xarray as xr
from dask.utils import format_bytes

from lazyccd import ops
from lazyccd.batch.chunks import in_chunks
from lazyccd.batch.exposures import exposures, master_files, open_raw, with_planes
from lazyccd.batch.night_plan import FramePlan, NightPlan
from lazyccd.batch.overlap import looked_bytes, works_at_a_time
from lazyccd.frame.core import resolve
from lazyccd.io.names import is_url, split_hdu
from lazyccd.kernels.block import Request
from lazyccd.ops.instrument.calibrate import add_noise
from lazyccd.plan.chunks import grid_boxes
from lazyccd.plan.cost import Fit, dearest_region, declared_limit, fit_into, process_bytes, task_cost, written_bytes

MASTER_SECONDS, SCIENCE_SECONDS, CLEANED_SECONDS = 0.15, 0.35, 0.6
"""Seconds of one processor (2.5 GHz) for a million pixels of a frame in a master, a product, and one without cosmic rays."""

DRIVER_BYTES = 100 * 2**20
"""Memory for pictures, reports and what the C library keeps, besides the process and its tasks."""

START_SECONDS = 3.0
"""Seconds of a process before its first pixel, with compiled kernels."""


@dataclass(frozen=True)
class Expected:
    """What a night will take."""

    seconds: float
    """A guess, without the time to compile kernels."""

    threads: int
    """Tasks at a time that it is for."""

    read_bytes: int
    """Bytes of raw files."""

    written_bytes: int
    """Bytes of products without compression, and without their pictures."""

    process_bytes: int
    """Most memory of a process: its tasks, which keep to the limit, and what it takes to look at products."""

    limit_bytes: int | None
    """Memory limit, if there is one."""

    chunk: tuple[int, int]
    """Rows and columns of the largest chunk of a science product."""

    def __str__(self) -> str:
        """Return it as one line."""
        limit = "no limit" if self.limit_bytes is None else f"limit for tasks {format_bytes(self.limit_bytes)}"
        return (
            f"Expected: about {spoken(self.seconds)} on {self.threads} processor{'s' * (self.threads != 1)}, with compiled kernels; "
            f"{format_bytes(self.read_bytes)} of raw files, {format_bytes(self.written_bytes)} of products; "
            f"{format_bytes(self.process_bytes)} of memory in a process ({limit}), chunks of {self.chunk[0]} x {self.chunk[1]} pixels."
        )


def spoken(seconds: float) -> str:
    """Return a time as it is told: to two digits.

    Examples
    --------
    >>> spoken(3.2), spoken(75), spoken(9000), spoken(500_000)
    ('3 s', '75 s', '2.5 h', '140 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    number, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{float(f'{number:.2g}'):g} {unit}"


def expected(plan: NightPlan, chunks: int | None = None) -> Expected | None:
    """Return what a night will take on the scheduler that is chosen; None if nothing is reduced.

    Parameters
    ----------
    plan
        The plan of the night. No pixel is read.
    chunks
        Side of the chunks that was asked for.
    """
    products = [*_masters(plan), *exposures(plan.science).values()]
    if not products:
        return None
    limit = declared_limit()
    sizes: dict[tuple[object, ...], tuple[int, int, tuple[int, int]]] = {}
    written = memory = 0
    chunk = (0, 0)
    for members in products:
        for item in members:
            key = _what(item)
            if key not in sizes:
                sizes[key] = _cost(plan, item, chunks)
            bytes_, peak, shape = sizes[key]
            written, memory = written + bytes_, max(memory, peak)
            chunk = shape if item.kind == "science" or chunk == (0, 0) else chunk
    largest = max(math.prod(item.shape) for members in products for item in members)
    # What is looked at takes memory beside the tasks, in the process that asks for them.
    memory += DRIVER_BYTES + works_at_a_time(largest) * looked_bytes(largest)
    seconds = START_SECONDS + _processor_seconds(plan) / limit.threads
    return Expected(seconds, limit.threads, _raw_bytes(plan.frames), written, memory, limit.bytes, chunk)


def _masters(plan: NightPlan) -> list[list[FramePlan]]:
    """Return for each file of masters a frame for each of its images, which is as large as the master."""
    files = master_files(plan.groups).values()
    return [[plan.frame(group.members[0]) for group in groups] for groups in files]


def _what(item: FramePlan) -> tuple[object, ...]:
    """Return what decides the cost of a frame."""
    kinds = tuple(bool(choice) for choice in item.choices)
    known = tuple(item.facts.get(name).value is not None for name in ("gain", "readnoise"))
    return (
        item.shape,
        item.kind,
        item.facts.trim.value,
        item.facts.mode.value,
        kinds,
        known,
        split_hdu(item.source)[0][-3:],
    )


def _cost(plan: NightPlan, item: FramePlan, chunks: int | None) -> tuple[int, int, tuple[int, int]]:
    """Return the bytes of a product of a frame, the memory of a process that makes it, and the shape of its largest chunk."""
    frame = in_chunks(with_planes(stand_in(plan, item), plan.recipe.outputs.planes), chunks)
    image, limit = resolve(frame), declared_limit()
    region = dearest_region(image.plan, grid_boxes(image.grid))
    request = Request(region, frozenset(image.plan.dtypes))
    after = written_bytes(image.plan, request)
    fit = fit_into(limit, image.plan, request, after) or Fit()
    cost = task_cost(image.plan, region, cuts=fit.cuts, after=after)
    # Of the mask, FITS holds bits for users of CCDData besides.
    pixel = sum(variable.dtype.itemsize for variable in frame.data_vars.values()) + ("mask" in frame)
    return (
        math.prod(image.shape) * pixel,
        process_bytes(cost, limit, 1 if fit.alone else None),
        (region.shape.y, region.shape.x),
    )


def stand_in(plan: NightPlan, item: FramePlan) -> xr.Dataset:
    """Return a lazy frame that costs what the product of a frame costs; its pixels mean nothing.

    Parameters
    ----------
    plan
        The plan of the night, with its recipe.
    item
        One of its frames.
    """
    frame = open_raw(item)
    if item.facts.trim.value is not None and plan.recipe.step("trim_image") is not None:
        frame = ops.trim_image(frame, item.facts.trim.value)
    other = frame
    if item.bias:
        frame = ops.subtract(frame, other)
    if item.facts.gain.value is not None and item.facts.readnoise.value is not None:
        frame = add_noise(frame, gain=1.0, readnoise=1.0)
    frame = ops.with_unit(ops.multiply(frame, 1.0), "electron")
    other = ops.with_unit(other, "electron")
    for choice in (item.dark, item.flat):
        frame = ops.subtract(frame, other) if choice else frame
    is_cleaned = item.kind == "science" and _is_cleaned(plan, item) and "uncertainty" in frame
    return ops.cosmicray_lacosmic(frame, use_uncertainty=True) if is_cleaned else ops.flag_saturated(frame, 1e9)


def _is_cleaned(plan: NightPlan, item: FramePlan) -> bool:
    """Return whether cosmic rays are removed from a frame."""
    asked, is_spectrum = plan.options.cosmic_rays, item.facts.mode.value == "spectrum"
    is_asked = asked != "none" and (bool(asked) or not is_spectrum)
    return is_asked and item.facts.cfa.value is None and plan.recipe.step("cosmicray_lacosmic") is not None


def _processor_seconds(plan: NightPlan) -> float:
    """Return the seconds that one processor takes for the pixels of a night."""
    seconds = 0.0
    for item in (item for item in plan.frames if item.is_reduced):
        rate = (
            MASTER_SECONDS
            if item.kind != "science"
            else CLEANED_SECONDS
            if _is_cleaned(plan, item)
            else SCIENCE_SECONDS
        )
        seconds += rate * math.prod(item.shape) / 1e6
    return seconds


def _raw_bytes(frame_plans: Iterable[FramePlan]) -> int:
    """Return the bytes of the files of frames that are reduced; a file of several images counts once."""
    paths = {split_hdu(item.source)[0] for item in frame_plans if item.is_reduced}
    return sum(os.path.getsize(path) for path in paths if not is_url(path) and os.path.exists(path))
