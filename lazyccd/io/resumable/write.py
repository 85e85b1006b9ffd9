"""What writing frames has in common, whatever the format: one task per region, begun, resumed and completed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from dask.delayed import Delayed

from lazyccd.errors import ParameterError, TargetExistsError
from lazyccd.frame.core import DATA, Image, resolve
from lazyccd.frame.settle import has_cards, settle_image
from lazyccd.frame.tree import frames_of
from lazyccd.io.names import is_url
from lazyccd.io.resumable.progress import Progress, Receipts, versions
from lazyccd.io.resumable.tracked_write import Product, TrackedWrite, unit_of
from lazyccd.plan.cost import check_memory
from lazyccd.plan.lower import WritePart, lower_write
from lazyccd.plan.serialize import describe, plain, sources
from lazyccd.sections import Region


class Rules(NamedTuple):
    """What a writer may do about what it finds."""

    overwrite: bool = False
    """Replace what has the final name, and begin anew what was interrupted and was another."""

    verify: bool = False
    """Compare checksums before an interrupted write goes on."""

    break_lock: bool = False
    """Take the lease of a process of which it cannot be said that it is gone."""


class Job(NamedTuple):
    """An image and the regions in which it is written."""

    image: Image
    regions: tuple[Region, ...]


def frames_to_write(ccd: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames that are written: those of a tree by name, one alone without one.

    Raises
    ------
    FrameError
        Raised if a tree has neither frames nor other HDUs, such as tables: nothing would be written.
    """
    if not isinstance(ccd, xr.DataTree):
        return {"": ccd}
    only_kept = ccd.attrs.get("hdus") and not any(DATA in node.data_vars for node in ccd.subtree)
    return {} if only_kept else frames_of(ccd)


def resolved(frames: Mapping[str, xr.Dataset], compute: bool) -> dict[str, Image]:
    """Return the images of frames."""
    return {
        name: _recorded(resolve(frame, f"frame {name!r}" if name else "frame", maps=True), compute)
        for name, frame in frames.items()
    }


def _record(images: Mapping[str, Image], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the bytes of a product."""
    found = [source.storage for image in images.values() for source in sources(image.plan)]
    inputs = {storage.name: str(storage.identity) for storage in found}
    steps = {name: describe(image.plan) for name, image in images.items()}
    return {"inputs": inputs, "steps": steps, "layout": plain(layout), "versions": versions()}


def _recorded(image: Image, compute: bool) -> Image:
    """Return the image with global numbers in its header that belong there, unless it is to be written later."""
    return settle_image(image) if compute and has_cards(image) else image


def refuse_sources(images: Iterable[Image], name: str, more: Iterable[str] = ()) -> None:
    """Refuse a target that is read: by a plan, or for HDUs that are copied."""
    if is_url(name):
        return
    full = os.path.realpath(name)
    for path in dict.fromkeys([*(path for image in images for path in _source_paths(image)), *more]):
        if os.path.realpath(path) == full:
            raise ParameterError(
                f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )


def _source_paths(image: Image) -> Iterator[str]:
    """Yield the files and stores that a plan reads."""
    for place in dict.fromkeys(step.storage.place for step in sources(image.plan)):
        if Path(place).exists():
            yield place


def write(
    jobs: Mapping[str, Job], product: Product, layout: Mapping[str, Any], rules: Rules, compute: bool
) -> str | Delayed:
    """Write what is not yet written, now, or return the lazy write.

    Parameters
    ----------
    jobs
        What is written, by frame; in the order of the product's frames.
    product
        What is written to.
    layout
        All of it that decides its bytes, in the types of JSON or near.
    rules
        What to do about what is there.
    compute
        Whether to write now.
    """
    for image, regions in jobs.values():
        check_memory(image.plan, regions)
    record = _record({frame: job.image for frame, job in jobs.items()}, layout)
    progress = Progress.of(product.name, record, break_lock=rules.break_lock)
    units = sum(len(job.regions) for job in jobs.values())
    sink = TrackedWrite(product, progress, units, rules.overwrite, rules.verify)
    name, key = product.name, f"write-{progress.run}"
    if compute and sink.finish_renamed():
        return name
    if not (rules.overwrite or is_url(name)) and product.exists():
        raise TargetExistsError(f"{name} exists; pass overwrite=True to replace it, or give another name.")
    if not compute:
        sink = replace(sink, before=product.stamp())
        return lower_write(_parts(jobs, sink, {}), sink, key)
    done = sink.begin()
    try:
        sink = replace(sink, begun=True)
        parts = _parts(jobs, sink, done)
        if parts:
            lower_write(parts, sink, key).compute()
        else:
            sink.finish([])
    except BaseException as error:
        sink.give_up(error)
        raise
    return name


def _parts(jobs: Mapping[str, Job], sink: TrackedWrite, done: Receipts) -> list[WritePart]:
    """Return what is left to be written of each image."""
    parts = []
    for number, (image, regions) in enumerate(jobs.values()):
        todo = tuple(region for region in regions if unit_of(number, region) not in done)
        if todo:
            parts.append(WritePart(image.plan, todo, image.kinds, image.graphs, sink.of_frame(number)))
    return parts
