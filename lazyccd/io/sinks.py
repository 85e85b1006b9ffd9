"""Where frames are written to by regions, with receipts: FITS files and groups of Zarr stores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy.typing as npt

from lazyccd.errors import SourceChangedError, WriteError
from lazyccd.frame.core import MASK
from lazyccd.io.fits.companions import BAD
from lazyccd.io.fits.names import is_url
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.io.places import place_of
from lazyccd.io.progress import Progress, Receipts, Unit
from lazyccd.io.shards import checksum
from lazyccd.io.zarrs import ZarrTarget, complete_store
from lazyccd.sections import Region


class Target(Protocol):
    """A file or store that is written by regions; picklable."""

    @property
    def name(self) -> str:
        """Final path or URL."""
        ...

    @property
    def writer(self) -> Target:
        """The same without what only `lay_out` and `complete` need."""
        ...

    def is_begun(self) -> bool:
        """Return whether there is an unfinished one."""
        ...

    def exists(self) -> bool:
        """Return whether there is one under the final name."""
        ...

    def lay_out(self) -> None:
        """Make the unfinished one; an abandoned one goes."""
        ...

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Write one region of all variables; return a receipt that JSON can hold."""
        ...

    def holds(self, unit: Unit, receipt: Any, *, verify: bool) -> bool:
        """Return whether what a receipt says is there: its size, and with ``verify`` its checksum."""
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


@dataclass(frozen=True)
class FitsFile:
    """A FITS file to write."""

    target: FitsTarget
    places: tuple[tuple[str, int], ...]
    """Variables and the HDUs that hold them; ``bad`` is the mask in 0 and 1."""

    bad_bits: int
    overwrite: bool

    @property
    def name(self) -> str:
        """Final path."""
        return self.target.path

    @property
    def writer(self) -> FitsFile:
        """Itself."""
        return self

    def is_begun(self) -> bool:
        """Return whether there is an unfinished file."""
        return os.path.exists(self.target.part)

    def exists(self) -> bool:
        """Return whether there is a file of the final name."""
        return os.path.lexists(self.target.path)

    def lay_out(self) -> None:
        """Make the unfinished file."""
        self.target.create(overwrite=self.overwrite)

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Partial]:
        """Write one region of all HDUs."""
        receipts: list[Partial] = []
        for name, hdu in self.places:
            array = arrays[MASK if name == BAD else name]
            if name == BAD:
                array = (array & array.dtype.type(self.bad_bits)) != 0
            receipts.append(self.target.write(hdu, region, array))
        return receipts

    def holds(self, unit: Unit, receipt: Any, *, verify: bool) -> bool:
        """Return whether the pixels are there: the file has all its space from the start."""
        return not verify or all(
            self.target.datasum(hdu, cast("Region", unit)) == datasum for hdu, _, datasum in receipt
        )

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold; regions without one are written over."""
        return {unit: receipt for unit, receipt in receipts.items() if self.holds(unit, receipt, verify=verify)}

    def complete(self, receipts: Receipts) -> None:
        """Write the checksums and give the file its name."""
        self.target.finish([Partial(*partial) for some in receipts.values() for partial in some])

    def abort(self) -> None:
        """Remove the unfinished file."""
        self.target.abort()


@dataclass(frozen=True)
class ZarrStore:
    """A Zarr store to write."""

    target: ZarrTarget
    overwrite: bool
    root_attrs: Mapping[str, Any] = field(default_factory=dict)
    group_attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Final path or URL."""
        return self.target.store

    @property
    def writer(self) -> ZarrStore:
        """The same without attributes and coordinates."""
        return ZarrStore(self.target, self.overwrite)

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        return place_of(self.name).is_begun()

    def exists(self) -> bool:
        """Return whether there is a store of the final name."""
        return place_of(self.name).exists()

    def lay_out(self) -> None:
        """Make the unfinished store."""
        self.target.create(overwrite=self.overwrite)
        self.target.add_group(self.group_attrs, self.coords)

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[int]]:
        """Write one shard of all variables."""
        receipt: dict[str, list[int]] = {}
        for name, array in arrays.items():
            receipt.update(self.target.write(name, region, array))
        return receipt

    def holds(self, unit: Unit, receipt: Any, *, verify: bool) -> bool:
        """Return whether the files are there, of their size and perhaps their checksum."""
        return self._holds(receipt, place_of(self.name).size, verify=verify)

    def _holds(self, receipt: Any, size_of: Callable[[str], int | None], *, verify: bool) -> bool:
        place = place_of(self.name)
        return all(
            size_of(key) == size and (not verify or checksum([place.read(key)]) == crc)
            for key, (size, crc) in receipt.items()
        )

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts whose files hold; remove all other shards."""
        there: dict[str, int] = {}
        for array in self.target.arrays:
            there |= self.target.shards_of(array.name)
        kept = {unit: receipt for unit, receipt in receipts.items() if self._holds(receipt, there.get, verify=verify)}
        owned = {key for receipt in kept.values() for key in receipt}
        place_of(self.name).remove(key for key in there if key not in owned)
        return kept

    def complete(self, receipts: Receipts) -> None:
        """Write the metadata and give the store its name."""
        self.target.finish_group()
        if self.target.group:
            complete_store(self.name, [self.target.group], self.root_attrs)

    def abort(self) -> None:
        """Remove the unfinished store."""
        self.target.abort()


@dataclass(frozen=True)
class ZarrGroups:
    """A Zarr store with a group for each frame of a tree, and what else is kept."""

    groups: tuple[ZarrStore, ...]
    """At least one; all of one store."""

    root_attrs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Final path or URL."""
        return self.groups[0].name

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        return self.groups[0].is_begun()

    def exists(self) -> bool:
        """Return whether there is a store of the final name."""
        return self.groups[0].exists()

    def lay_out(self) -> None:
        """Make the unfinished store."""
        self.groups[0].lay_out()
        for group in self.groups[1:]:
            group.target.add_group(group.group_attrs, group.coords)

    def complete(self, receipts: Receipts) -> None:
        """Write the metadata and give the store its name."""
        for group in self.groups:
            group.target.finish_group()
        complete_store(self.name, [group.target.group for group in self.groups], self.root_attrs)

    def abort(self) -> None:
        """Remove the unfinished store."""
        self.groups[0].abort()


@dataclass(frozen=True)
class Several:
    """The frames of a tree in one file, or in the groups of one store; a unit is the number of a frame and a region."""

    whole: FitsFile | ZarrGroups
    """Lays out and completes the file or store."""

    frames: tuple[Target, ...]
    """What each frame is written to."""

    @property
    def name(self) -> str:
        """Final path or URL."""
        return self.whole.name

    @property
    def writer(self) -> Several:
        """Itself; frames have their own."""
        return self

    def is_begun(self) -> bool:
        """Return whether there is an unfinished one."""
        return self.whole.is_begun()

    def exists(self) -> bool:
        """Return whether there is one under the final name."""
        return self.whole.exists()

    def lay_out(self) -> None:
        """Make the unfinished one."""
        self.whole.lay_out()

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        """Refuse: only frames are written."""
        raise AssertionError("regions belong to frames")

    def holds(self, unit: Unit, receipt: Any, *, verify: bool) -> bool:
        """Return whether what a receipt says is there."""
        number, region = frame_and_region(unit)
        return self.frames[number].holds(region, receipt, verify=verify)

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold; remove all that is written and has none."""
        split: list[Receipts] = [{} for _ in self.frames]
        for unit, receipt in receipts.items():
            number, region = frame_and_region(unit)
            split[number][region] = receipt
        kept = [frame.keep_only(some, verify=verify) for frame, some in zip(self.frames, split, strict=True)]
        return {unit: r for unit, r in receipts.items() if frame_and_region(unit)[1] in kept[frame_and_region(unit)[0]]}

    def complete(self, receipts: Receipts) -> None:
        """Give it its final name."""
        self.whole.complete(receipts)

    def abort(self) -> None:
        """Remove the unfinished one."""
        self.whole.abort()


def frame_and_region(unit: Unit) -> tuple[int, Region]:
    """Return the number of a frame and the region of it that a unit of several frames is.

    Examples
    --------
    >>> frame_and_region("3:0,512,0,2048")
    (3, Region(y0=0, y1=512, x0=0, x1=2048))
    """
    number, _, region = str(unit).partition(":")
    return int(number), Region(*map(int, region.split(",")))


@dataclass(frozen=True)
class Tracked:
    """A sink that keeps receipts, so that the write can be interrupted and resumed."""

    target: Target
    progress: Progress
    units: int
    """How many regions there are."""

    overwrite: bool = False
    verify: bool = False
    frame: int | None = None
    """Number of the frame that is written, where there are several."""

    begun: bool = False
    """Whether the write was begun before its tasks were made; then none begins it, least of all one that is done again."""

    @property
    def writer(self) -> Tracked:
        """The same without what only `begin` and `finish` need."""
        return replace(self, target=self.target.writer, progress=self.progress.writer)

    def of_frame(self, number: int) -> Tracked:
        """Return what writes one of several frames."""
        assert isinstance(self.target, Several)
        target = self.target.frames[number].writer
        return replace(self, target=target, progress=self.progress.writer, frame=number)

    def unit(self, region: Region) -> Unit:
        """Return the unit that a region of the frame is."""
        return region if self.frame is None else f"{self.frame}:{','.join(map(str, region))}"

    def begin(self) -> Receipts:
        """Begin, or go on with an interrupted write; return the receipts of what is done."""
        progress = self.progress
        if not progress.begin(self.target.lay_out, self.target.is_begun, overwrite=self.overwrite):
            return {}
        receipts = progress.receipts()
        kept = self.target.keep_only(receipts, verify=self.verify)
        if len(kept) != len(receipts):
            progress.keep(kept)
        return kept

    def create(self) -> None:
        """Begin, unless this run did."""
        if not (self.begun or self.progress.is_held()):
            self.begin()

    def is_renamed(self) -> bool:
        """Return whether the target has its name, and this write made it.

        A worker may die after that, and its tasks, whose results are lost, are then done again.
        """
        return self.progress.is_over(self.progress.names()) and self._is_whole()

    def _is_whole(self) -> bool:
        return self.target.exists() and not self.target.is_begun()

    def receipt(self, region: Region) -> tuple[Unit, Any] | None:
        """Return the unit and its receipt if it is done; no receipt is needed any more where the target has its name."""
        unit = self.unit(region)
        names = self.progress.names()
        if self.progress.is_over(names) and self._is_whole():
            return unit, None
        receipt = self.progress.receipt(unit, names)
        return None if receipt is None or not self.target.holds(region, receipt, verify=False) else (unit, receipt)

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Unit, Any]:
        """Write one region of all variables and note that it is done."""
        self.progress.check(self.progress.names())
        receipt = self.target.write(region, arrays)
        unit = self.unit(region)
        self.progress.add(unit, receipt)
        return unit, receipt

    def finish(self, receipts: Sequence[tuple[Unit, Any]]) -> str:
        """Give the target its final name, and forget the receipts."""
        if self.is_renamed():
            if self.progress.is_held():
                self.progress.end()
            return self.target.name
        known: Receipts = self.progress.receipts() | dict(receipts)
        if len(known) != self.units:
            raise WriteError(
                f"{self.target.name}: {len(known)} regions are written and there are {self.units}; call again to write the rest."
            )
        self.progress.mark_complete()
        self.target.complete(known)
        self.progress.end()
        return self.target.name

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
        # objects that a task on its way puts behind a URL after the removal would look like somebody else's
        if changed or not (done or is_url(self.target.name)):
            self.target.abort()
            self.progress.end()
            return
        self.progress.release()
        error.add_note(
            f"{done} of {self.units} regions of {self.target.name} are done and kept; the same call goes on from there"
        )
