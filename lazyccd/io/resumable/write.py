"""Write frames to any format: one task per region, begun, resumed and completed. Entry functions such as `to_fits` end here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from dask.delayed import Delayed

from lazyccd.errors import FrameError, ParameterError, TargetExistsError
from lazyccd.frame.core import DATA, DIMS, MASK, UNCERTAINTY, Image, resolve
from lazyccd.frame.settle import has_cards, settle_image
from lazyccd.frame.tree import frames_of
from lazyccd.io.names import is_url
from lazyccd.io.resumable.progress import Progress, Receipts, versions
from lazyccd.io.resumable.tracked_write import Product, TrackedWrite, unit_of
from lazyccd.kernels.block import MAPS
from lazyccd.plan.cost import check_memory
from lazyccd.plan.lower import WritePart, lower_write
from lazyccd.plan.serialize import describe, plain, sources
from lazyccd.sections import Region


class Rules(NamedTuple):
    """What a writer may do about what it finds."""

    overwrite: bool = False
    """Replace what has the final name, and discard an interrupted write of something else."""

    verify: bool = False
    """Compare checksums, and not only sizes, before an interrupted write is resumed."""

    break_lock: bool = False
    """Take the lease of another process, even if that may live."""


def frames_to_write(ccd: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames of a tree by name; a single frame is a tree of one, whose name is empty.

    Raises
    ------
    FrameError
        Raised if a tree has neither frames nor other HDUs, such as tables: nothing would be written. Also if there are
        variables or coordinates that formats of frames have no place for: they would be lost.
    """
    if not isinstance(ccd, xr.DataTree):
        _refuse_more(ccd, "frame")
        return {"": ccd}
    for path, node in ccd.subtree_with_keys:
        _refuse_more(node.to_dataset(inherit=False), "root" if path == "." else f"node {path!r}")
    only_kept = ccd.attrs.get("hdus") and not any(DATA in node.data_vars for node in ccd.subtree)
    return {} if only_kept else frames_of(ccd)


def _refuse_more(ds: object, what: str) -> None:
    """Refuse variables and coordinates that are not part of a frame."""
    known = {DATA, UNCERTAINTY, MASK, *MAPS, *DIMS}
    more = [str(name) for name in ds.variables if name not in known] if isinstance(ds, xr.Dataset) else []
    if more:
        raise FrameError(
            f"the {what} has {', '.join(map(repr, more))} beside the variables and coordinates of a frame, which would not be "
            f"written; take them out with drop_vars({more}), and keep what is needed as attributes or files of their own."
        )


def resolve_frames(frames: Mapping[str, xr.Dataset], *, compute: bool) -> dict[str, Image]:
    """Return the images of frames.

    Parameters
    ----------
    frames
        The frames by name.
    compute
        Whether they are written now. Global numbers that belong into headers, such as the mean of a flat, are then
        computed here; for a lazy write they would have to be computed at the call.
    """
    images = {name: resolve(frame, f"frame {name!r}" if name else "frame", maps=True) for name, frame in frames.items()}
    return {name: settle_image(image) if compute and has_cards(image) else image for name, image in images.items()}


def write(
    images: Mapping[str, Image],
    regions: Mapping[str, Sequence[Region]],
    product: Product,
    layout: Mapping[str, Any],
    rules: Rules,
    *,
    compute: bool = True,
    copied: Iterable[str] = (),
) -> str | Delayed:
    """Write what is not yet written, now, or return the lazy write.

    Parameters
    ----------
    images
        The images by frame, in the order of the product's frames.
    regions
        For each frame, the regions in which it is written, a task each.
    product
        The file or store to write.
    layout
        Everything but steps, inputs and versions that decides the bytes of the product, as values that go into JSON. An
        interrupted write is resumed only if this is the same.
    rules
        What to do about what is there.
    compute
        Whether to write now.
    copied
        Files whose bytes are copied, besides those that the plans read.

    Raises
    ------
    ParameterError
        Raised if the product is one of the inputs.
    TargetExistsError
        Raised if the product exists and may not be replaced.
    """
    _refuse_sources(images.values(), product.name, copied)
    # Before anything is touched: a plan that cannot run must not begin a write.
    for name, image in images.items():
        check_memory(image.plan, regions[name])
    progress = Progress.of(product.name, _record(images, layout), break_lock=rules.break_lock)
    count = sum(map(len, regions.values()))
    tracked = TrackedWrite(product, progress, count, rules.overwrite, rules.verify)
    # The process may have died between the rename and the end of its journal.
    if compute and tracked.finish_renamed():
        return product.name
    if not (rules.overwrite or is_url(product.name)) and product.exists():
        raise TargetExistsError(f"{product.name} exists; pass overwrite=True to replace it, or give another name.")
    key = f"write-{progress.run}"
    if not compute:
        tracked = replace(tracked, before=product.stamp())
        return lower_write(_parts(images, regions, tracked, {}), tracked, key)
    done = tracked.begin()
    try:
        tracked = replace(tracked, begun=True)
        parts = _parts(images, regions, tracked, done)
        if parts:
            lower_write(parts, tracked, key).compute()
        else:
            tracked.finish([])
    # KeyboardInterrupt too: what is done is kept.
    except BaseException as error:
        tracked.give_up(error)
        raise
    return product.name


def _record(images: Mapping[str, Image], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the bytes of a product."""
    found = [source.storage for image in images.values() for source in sources(image.plan)]
    inputs = {storage.name: str(storage.identity) for storage in found}
    steps = {name: describe(image.plan) for name, image in images.items()}
    return {"inputs": inputs, "steps": steps, "layout": plain(layout), "versions": versions()}


def _refuse_sources(images: Iterable[Image], name: str, copied: Iterable[str]) -> None:
    """Refuse a target that is read: by a plan, or for HDUs that are copied."""
    if is_url(name):
        return
    full = os.path.realpath(name)  # a link to an input is that input
    for path in dict.fromkeys([*(path for image in images for path in _source_paths(image)), *copied]):
        if os.path.realpath(path) == full:
            raise ParameterError(
                f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )


def _source_paths(image: Image) -> Iterator[str]:
    """Yield the files and stores that a plan reads."""
    for place in dict.fromkeys(step.storage.place for step in sources(image.plan)):
        if Path(place).exists():
            yield place


def _parts(
    images: Mapping[str, Image], regions: Mapping[str, Sequence[Region]], tracked: TrackedWrite, done: Receipts
) -> list[WritePart]:
    """Return what is left to be written of each image."""
    parts = []
    for number, (name, image) in enumerate(images.items()):
        todo = tuple(region for region in regions[name] if unit_of(number, region) not in done)
        if todo:
            parts.append(WritePart(image.plan, todo, image.kinds, image.graphs, tracked.of_frame(number)))
    return parts
