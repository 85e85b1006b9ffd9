"""Where frames are written to by regions, with receipts: FITS files and Zarr stores, of one frame or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy.typing as npt

from lazyccd.errors import SourceChangedError, WriteError
from lazyccd.io.resumable.progress import Progress, Receipts
from lazyccd.sections import Region


class Part(Protocol):
    """What one frame is written to: HDUs of a file, a group of a store; picklable."""

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Write one region of all variables; return a receipt that JSON can hold."""
        ...

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether what a receipt says is there: its size, and with ``verify`` its checksum."""
        ...


class Product(Protocol):
    """A file or store that is written by regions of its frames; picklable."""

    @property
    def name(self) -> str:
        """Final path or URL."""
        ...

    @property
    def frames(self) -> Sequence[Part]:
        """What each frame is written to."""
        ...

    def alone(self, number: int) -> Product:
        """Return the product with one frame, and without what only `lay_out` and `complete` need."""
        ...

    def is_begun(self) -> bool:
        """Return whether there is an unfinished one."""
        ...

    def exists(self) -> bool:
        """Return whether there is one under the final name."""
        ...

    def stamp(self) -> str:
        """Return what tells the one under the final name from one that was there before; empty if there is none."""
        ...

    def is_made(self) -> bool:
        """Return whether the one under the final name is what this write makes; its pixels are not read."""
        ...

    def lay_out(self) -> None:
        """Make the unfinished one; an abandoned one goes."""
        ...

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold; remove all that is written and has none."""
        ...

    def complete(self, receipts: Receipts) -> None:
        """Give it its final name."""
        ...

    def abort(self) -> None:
        """Remove the unfinished one."""
        ...

    @property
    def takes_late(self) -> bool:
        """Whether what tasks on their way write after `abort` is there, so that it would look like somebody else's."""
        ...


def frame_and_region(unit: str) -> tuple[int, Region]:
    """Return the number of a frame and the region of it that a unit is.

    Examples
    --------
    >>> frame_and_region("3:0,512,0,2048")
    (3, Region(y0=0, y1=512, x0=0, x1=2048))
    """
    number, _, region = unit.partition(":")
    return int(number), Region(*map(int, region.split(",")))


def unit_of(frame: int, region: Region) -> str:
    """Return the unit that a region of a frame is.

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
    """Whether the write was begun before its tasks were made; then none begins it, least of all one that is done again."""

    number: int = 0
    """Which frame of all the first of this product is."""

    before: str = ""
    """Stamp of what had the final name when a lazy write was made."""

    def of_frame(self, number: int) -> TrackedWrite:
        """Return what writes one of the frames: small, without what only `create` and `finish` need."""
        return replace(self, product=self.product.alone(number), progress=self.progress.writer, number=number)

    def begin(self) -> Receipts:
        """Begin, or go on with an interrupted write; return the receipts of what is done."""
        progress = self.progress
        if not progress.begin(self.product.lay_out, self.product.is_begun, overwrite=self.overwrite):
            return {}
        receipts = progress.receipts()
        kept = self.product.keep_only(receipts, verify=self.verify)
        if len(kept) != len(receipts):
            progress.keep(kept)
        return kept

    def create(self) -> None:
        """Begin, unless this run did; or did, and is over, and its tasks are done again since a worker died with results."""
        if not (self.begun or self.progress.is_begun() or self._is_made()):
            self.begin()

    def _is_made(self) -> bool:
        """Return whether the product came after the lazy write was made, and is what that makes."""
        return self._is_whole() and self.product.stamp() != self.before and self.product.is_made()

    def is_renamed(self, notes: Mapping[str, int]) -> bool:
        """Return whether the product has its name, and by this write, as far as the notes tell.

        A worker may die after that, and its tasks, whose results are lost, are then done again.
        """
        return self.progress.is_over(notes) and self._is_whole()

    def _is_whole(self) -> bool:
        return self.product.exists() and not self.product.is_begun()

    def receipt(self, region: Region) -> tuple[str, Any] | None:
        """Return the unit and its receipt if it is done; no receipt is needed any more where the product has its name."""
        unit = unit_of(self.number, region)
        notes = self.progress.notes()
        if self.is_renamed(notes):
            return unit, None
        receipt = self.progress.receipt(unit, notes)
        held = receipt is not None and self.product.frames[0].holds(region, receipt, verify=False)
        return (unit, receipt) if held else None

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[str, Any]:
        """Write one region of all variables and note that it is done."""
        self.progress.check(self.progress.notes())
        receipt = self.product.frames[0].write(region, arrays)
        unit = unit_of(self.number, region)
        self.progress.add(unit, receipt)
        return unit, receipt

    def finish(self, receipts: Sequence[tuple[str, Any]]) -> str:
        """Give the product its final name, and forget the receipts."""
        name = self.product.name
        if self.is_renamed(self.progress.notes()):
            if self.progress.is_held():
                self.progress.end()
            return name
        known: Receipts = self.progress.receipts() | dict(receipts)
        if len(known) != self.units:
            raise WriteError(
                f"{name}: {len(known)} regions are written and there are {self.units}; call again to write the rest."
            )
        self.progress.mark_complete()
        self.product.complete(known)
        self.progress.end()
        return name

    def finish_renamed(self) -> bool:
        """Return whether the write was complete but for the last notes; these then go."""
        if not self._is_whole():
            return False
        if self.progress.is_complete():
            self.progress.end()
            return True
        self.progress.tidy()
        return False

    def give_up(self, error: BaseException) -> None:
        """After an error: keep what is done if the same call could go on from there, else remove it."""
        changed = isinstance(error, SourceChangedError)
        done = 0 if changed else len(self.progress.receipts())
        if changed or not (done or self.product.takes_late):
            self.product.abort()
            self.progress.end()
            return
        self.progress.release()
        error.add_note(
            f"{done} of {self.units} regions of {self.product.name} are done and kept; the same call goes on from there"
        )
