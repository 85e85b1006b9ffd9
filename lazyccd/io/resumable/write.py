"""Write frames to any format, region by region with receipts: begun, resumed and completed. Entry functions end here.

A format implements `FrameTarget` and `Product`, and its entry function, such as `to_fits`, calls `write`. `TrackedWrite` adds a
receipt for each region, so that an interrupted write is resumed and tasks may run twice; it is what the tasks of
`lazyccd.plan.lower.lower_write` call.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy.typing as npt

from lazyccd.errors import FrameError, ParameterError, SourceChangedError, TargetExistsError, WriteError
from lazyccd.frame.core import DATA, DIMS, MASK, UNCERTAINTY, Image, has_cards, resolve, settle_image, told_frame
from lazyccd.frame.kinds import is_dataset, is_tree
from lazyccd.frame.tree import frames_of
from lazyccd.io.names import is_url
from lazyccd.io.resumable.progress import Progress, Receipts, versions
from lazyccd.kernels.block import MAPS
from lazyccd.plan.chunks import grid_boxes
from lazyccd.plan.cost import check_memory
from lazyccd.plan.lower import WritePart, boundaries_below, lower_write
from lazyccd.plan.serialize import describe, plain, sources
from lazyccd.plan.steps import Step
from lazyccd.sections import Region

if TYPE_CHECKING:
    import xarray as xr
    from dask.delayed import Delayed

PAUSE = 0.05
"""Seconds between two looks at what another run does."""


class FrameTarget(Protocol):
    """What one frame is written to: HDUs of a file, a group of a store; picklable."""

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Write one region of all variables; return a receipt that JSON can hold. It may be called again for a region."""
        ...

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether what a receipt describes is there: by its size, and with ``verify`` by its checksum."""
        ...


class Product(Protocol):
    """A file or store that is written by regions of its frames; picklable."""

    @property
    def name(self) -> str:
        """Final path or URL."""
        ...

    @property
    def frames(self) -> Sequence[FrameTarget]:
        """What each frame is written to."""
        ...

    def alone(self, number: int) -> Product:
        """Return the product with one frame, and without what only `lay_out` and `complete` need."""
        ...

    def is_begun(self) -> bool:
        """Return whether an unfinished one exists."""
        ...

    def exists(self) -> bool:
        """Return whether the final name is taken."""
        ...

    def stamp(self) -> str:
        """Return a stamp that differs between products that had the final name one after the other; empty if none has it."""
        ...

    def is_made(self) -> bool:
        """Return whether this write made what has the final name, without reading pixels."""
        ...

    def lay_out(self) -> None:
        """Make the unfinished one, replacing an abandoned one; raise `TargetExistsError` if the final name may not be used."""
        ...

    def held(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts whose regions are there; see `holding`."""
        ...

    def complete(self, receipts: Receipts) -> None:
        """Make it complete and give it its final name."""
        ...

    def abort(self) -> None:
        """Remove the unfinished one."""
        ...

    @property
    def takes_late(self) -> bool:
        """Whether a task that is still running may write after `abort`; then an aborted write keeps its journal."""
        ...


def frame_and_region(unit: str) -> tuple[int, Region]:
    """Split the name of a unit into the number of its frame and its region.

    Examples
    --------
    >>> frame_and_region("3:0,512,0,2048")
    (3, Region(y0=0, y1=512, x0=0, x1=2048))
    """
    number, _, region = unit.partition(":")
    return int(number), Region(*map(int, region.split(",")))


def unit_of(frame: int, region: Region) -> str:
    """Return the name of the unit that is a region of a frame, by which receipts are kept.

    Examples
    --------
    >>> unit_of(3, Region(0, 512, 0, 2048))
    '3:0,512,0,2048'
    """
    return f"{frame}:{','.join(map(str, region))}"


def holding(product: Product, receipts: Receipts, *, verify: bool) -> Receipts:
    """Return the receipts whose regions are there, one by one."""
    return {
        unit: receipt
        for unit, receipt in receipts.items()
        for number, region in [frame_and_region(unit)]
        if product.frames[number].holds(region, receipt, verify=verify)
    }


@dataclass(frozen=True)
class TrackedWrite:
    """A product with receipts, so that its write can be interrupted and resumed."""

    product: Product
    progress: Progress
    units: int
    """How many regions there are."""

    overwrite: bool = False
    verify: bool = False
    begun: bool = False
    """Whether the write began before its tasks were made; then no task begins it, even if dask runs it again."""

    number: int = 0
    """Number of the frame that this writes, among all frames of the product."""

    before: str = ""
    """Stamp of what had the final name when the lazy write was made."""

    def of_frame(self, number: int) -> TrackedWrite:
        """Return the writer of one frame, without what only `create` and `finish` need."""
        # Each task carries this: attributes and the record would be pickled once per region.
        return replace(self, product=self.product.alone(number), progress=self.progress.writer, number=number)

    def begin(self) -> Receipts:
        """Begin, or resume an interrupted write; return the receipts of the finished regions."""
        progress = self.progress
        if self.product.is_begun() and not progress.has_begun():
            raise TargetExistsError(
                f"there is an unfinished {self.product.name} (.part) that was not made by a write of lazyccd; move it away first."
            )
        begin, product = progress.begin, self.product
        if not begin(product.lay_out, product.is_begun, product.abort, overwrite=self.overwrite):
            return {}
        # Files may be damaged or removed between the runs.
        receipts = progress.receipts()
        kept = self.product.held(receipts, verify=self.verify)
        if len(kept) != len(receipts):
            progress.keep(kept)
        return kept

    def working(self) -> AbstractContextManager[None]:
        """Return what a task enters while it works for the product."""
        return self.progress.working()

    def create(self) -> None:
        """Begin, unless this run has begun, or is even complete: a worker that dies with its results makes dask run tasks again."""
        # dask runs a task again when the worker that held its result dies.
        if self.begun or self.progress.is_begun() or self._is_made():
            return
        try:
            self.begin()
        except TargetExistsError:
            if not self._is_made():  # since this run looked, by another one that writes the same
                raise

    def _is_made(self) -> bool:
        """Return whether the product came after the lazy write was made, and is what that makes."""
        return self._is_whole() and self.product.stamp() != self.before and self.product.is_made()

    def is_renamed(self, entries: Mapping[str, int]) -> bool:
        """Return whether the product has its name, and by this write, as far as the journal tells.

        A worker may die after that, and its tasks, whose results are lost, are then done again.
        """
        return self.progress.is_over(entries) and self._is_whole()

    def _is_whole(self) -> bool:
        return self.product.exists() and not self.product.is_begun()

    def receipt(self, region: Region) -> tuple[str, Any] | None:
        """Return the unit and its receipt if it is finished; a product that has its name needs no receipt any more."""
        unit = unit_of(self.number, region)
        entries = self.progress.entries()
        if self.is_renamed(entries):
            return unit, None
        receipt = self.progress.receipt(unit, entries)
        held = receipt is not None and self.product.frames[0].holds(region, receipt, verify=False)
        return (unit, receipt) if held else None

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[str, Any]:
        """Write one region of all variables and record its receipt."""
        unit = unit_of(self.number, region)
        self.progress.check(self.progress.entries())
        try:
            receipt = self.product.frames[0].write(region, arrays)
            self.progress.add(unit, receipt)
        except OSError:
            # Another run that writes the same may have made it complete meanwhile.
            if not self.is_renamed(self.progress.entries()):
                raise
            return unit, None
        return unit, receipt

    def finish(self, receipts: Sequence[tuple[str, Any]]) -> str:
        """Give the product its final name and remove the journal."""
        name = self.product.name
        if self._is_ended():
            return name
        known: Receipts = self.progress.receipts() | {
            unit: receipt for unit, receipt in receipts if receipt is not None
        }
        # Files may have been removed while the write lasted, and other runs may have begun between its tasks.
        there = len(self.product.held(known, verify=False))
        if there != self.units:
            raise WriteError(
                f"{name}: {there} regions are written and there are {self.units}; call again to write the rest."
            )
        # From here on another process that finds the product under its name knows that it is whole.
        while not self.progress.mark_complete():
            # Another run that writes the same is at it: two would exchange the names of old and new one twice.
            time.sleep(PAUSE)
            if self._is_ended():
                return name
        # It may have come to its end since this run looked.
        if not self.is_renamed(self.progress.entries()):
            self.product.complete(known)
        self.progress.end()
        return name

    def _is_ended(self) -> bool:
        """Return whether the product has its name; if this run has the lease, remove the journal."""
        if not self.is_renamed(self.progress.entries()):
            return False
        if self.progress.is_held():
            self._end()
        return True

    def finish_renamed(self) -> bool:
        """Return whether the write was complete and only its journal was left; remove that."""
        if not self._is_whole():
            return False
        if self.progress.is_complete():
            self._end()
            return True
        self.progress.tidy()
        return False

    def _end(self) -> None:
        """Remove what a process left that died after the rename: the older product, and the journal."""
        self.product.abort()
        self.progress.end()

    def give_up(self, error: BaseException) -> None:
        """After an error, keep the finished regions if the same call can resume the write; otherwise remove them."""
        # What was read before an input changed does not fit what would be read after.
        changed = isinstance(error, SourceChangedError)
        done = 0 if changed else len(self.progress.receipts())
        # Without a single region there is nothing worth keeping.
        if changed or not (done or self.product.takes_late):
            self.product.abort()
            self.progress.end()
            return
        self.progress.release()
        error.add_note(
            f"{done} of {self.units} regions of {self.product.name} are finished and kept; the same call resumes the write"
        )


class Rules(NamedTuple):
    """What a writer may do about what it finds."""

    overwrite: bool = False
    """Replace what has the final name, and discard an interrupted write of something else."""

    verify: bool = False
    """Compare checksums, and not only sizes, before an interrupted write is resumed."""

    break_lock: bool = False
    """Take the lease of another process, even if that may live."""


def check_steps(quantize: float | None) -> None:
    """Raise `ParameterError` for what is no number of steps per standard deviation of the noise."""
    if quantize is not None and not (math.isfinite(quantize) and quantize > 0):
        raise ParameterError(
            f"quantize={quantize!r} must be a positive number of steps per standard deviation of the noise, such as 4; "
            "None keeps every bit."
        )


def frames_to_write(ccd: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames of a tree by name; a single frame is a tree of one, whose name is empty.

    Raises
    ------
    FrameError
        Raised if a tree has neither frames nor other HDUs, such as tables: nothing would be written. Also if there are
        variables or coordinates that formats of frames have no place for: they would be lost.
    """
    if not is_tree(ccd):
        _refuse_more(ccd, "frame")
        return {"": ccd}
    for path, node in ccd.subtree_with_keys:
        _refuse_more(node.to_dataset(inherit=False), "root" if path == "." else f"node {path!r}")
    only_kept = ccd.attrs.get("hdus") and not any(DATA in node.data_vars for node in ccd.subtree)
    return {} if only_kept else frames_of(ccd)


def _refuse_more(ds: object, what: str) -> None:
    """Refuse variables and coordinates that are not part of a frame."""
    known = {DATA, UNCERTAINTY, MASK, *MAPS, *DIMS}
    more = [str(name) for name in ds.variables if name not in known] if is_dataset(ds) else []
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
    frames = {name: told_frame(frame) if compute else frame for name, frame in frames.items()}
    images = {name: resolve(frame, f"frame {name!r}" if name else "frame", maps=True) for name, frame in frames.items()}
    return settled_images(images) if compute else images


def settled_images(images: Mapping[str, Image]) -> dict[str, Image]:
    """Return images with the global numbers that belong into their headers, computed now."""
    return {name: settle_image(image) if has_cards(image) else image for name, image in images.items()}


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
        for boundary in boundaries_below(image.plan, image.graphs).values():
            check_memory(boundary.plan, grid_boxes(boundary.grid), writes=False)
    record = _record(images, layout)
    progress = Progress.of(product.name, record, break_lock=rules.break_lock, lazy=not compute)
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
    found = [source.storage for source in sources(*(plan for image in images.values() for plan in _plans(image)))]
    inputs = {storage.name: str(storage.identity) for storage in found}
    steps = {name: [step for plan in _plans(image) for step in describe(plan)] for name, image in images.items()}
    return {"inputs": inputs, "steps": steps, "layout": plain(layout), "versions": versions()}


def _plans(image: Image) -> list[Step]:
    """Return the plan of an image, and those of the stacks whose chunks it reads."""
    return [*(boundary.plan for boundary in boundaries_below(image.plan, image.graphs).values()), image.plan]


def _refuse_sources(images: Iterable[Image], name: str, copied: Iterable[str]) -> None:
    """Refuse a target that is read: by a plan, or for HDUs that are copied."""
    if is_url(name):
        return
    full = os.path.realpath(name)  # a link to an input is that input
    for path in dict.fromkeys([*_source_paths(images), *copied]):
        # replacing a folder would remove what is in it
        if Path(os.path.realpath(path)).is_relative_to(full):
            raise ParameterError(
                f"the frame is made from {path}, which would be replaced with {name}; give another name."
                if os.path.realpath(path) != full
                else f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )


def _source_paths(images: Iterable[Image]) -> Iterator[str]:
    """Yield the files and stores that the plans of images read."""
    plans = (plan for image in images for plan in _plans(image))
    for place in dict.fromkeys(step.storage.place for step in sources(*plans)):
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
