"""Write a product region by region with receipts, whatever its format: the protocol of formats, and what is done with it.

A format implements `Product` and `FrameTarget`. `TrackedWrite` adds a receipt for each region, so that an interrupted write is
resumed and tasks may run twice. It is what the tasks of `lazyccd.plan.lower.lower_write` call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy.typing as npt

from lazyccd.errors import SourceChangedError, WriteError
from lazyccd.io.resumable.progress import Progress, Receipts
from lazyccd.sections import Region


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

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold, see `holding`; remove what is written without one, unless it will be written over."""
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
    """Return the receipts whose regions are there; for formats where regions without one are simply written over."""
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
        if not progress.begin(self.product.lay_out, self.product.is_begun, overwrite=self.overwrite):
            return {}
        # Files may be damaged or removed between the runs.
        receipts = progress.receipts()
        kept = self.product.keep_only(receipts, verify=self.verify)
        if len(kept) != len(receipts):
            progress.keep(kept)
        return kept

    def create(self) -> None:
        """Begin, unless this run has begun, or is even complete: a worker that dies with its results makes dask run tasks again."""
        # dask runs a task again when the worker that held its result dies.
        if not (self.begun or self.progress.is_begun() or self._is_made()):
            self.begin()

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
        self.progress.check(self.progress.entries())
        receipt = self.product.frames[0].write(region, arrays)
        unit = unit_of(self.number, region)
        self.progress.add(unit, receipt)
        return unit, receipt

    def finish(self, receipts: Sequence[tuple[str, Any]]) -> str:
        """Give the product its final name and remove the journal."""
        name = self.product.name
        if self.is_renamed(self.progress.entries()):
            if self.progress.is_held():
                self.progress.end()
            return name
        known: Receipts = self.progress.receipts() | dict(receipts)
        if len(known) != self.units:
            raise WriteError(
                f"{name}: {len(known)} regions are written and there are {self.units}; call again to write the rest."
            )
        # From here on another process that finds the product under its name knows that it is whole.
        self.progress.mark_complete()
        self.product.complete(known)
        self.progress.end()
        return name

    def finish_renamed(self) -> bool:
        """Return whether the write was complete and only its journal was left; remove that."""
        if not self._is_whole():
            return False
        if self.progress.is_complete():
            self.progress.end()
            return True
        self.progress.tidy()
        return False

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
