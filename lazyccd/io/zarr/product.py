"""Write a Zarr store as the protocol of resumable writes asks: `ZarrProduct`, and `ZarrGroup` for each frame in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from lazyccd.frame.core import DATA, UNCERTAINTY
from lazyccd.io.checksum import checksum
from lazyccd.io.resumable.progress import Receipts
from lazyccd.io.resumable.tracked_write import frame_and_region
from lazyccd.io.zarr.location import location_of
from lazyccd.io.zarr.writer import ZarrTarget, complete_store, is_made
from lazyccd.kernels.fits.quantize import round_chunks
from lazyccd.sections import Region


@dataclass(frozen=True)
class ZarrGroup:
    """The group of a store that holds a frame, or the bytes of further HDUs."""

    target: ZarrTarget
    attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    coord_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Attributes of the coordinates."""

    steps: float | None = None
    """To how many steps per standard deviation of the noise data and uncertainty are rounded; None keeps every bit."""

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[int]]:
        """Write one shard of all variables."""
        receipt: dict[str, list[int]] = {}
        for name, array in arrays.items():
            # Rounded in inner chunks, so that no pixel depends on shards or on what else is in its task.
            is_rounded = self.steps is not None and name in {DATA, UNCERTAINTY}
            pixels = round_chunks(array, self.target.chunks, self.steps or 0) if is_rounded else array
            receipt.update(self.target.write(name, region, pixels))
        return receipt

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether the files exist with their sizes, and with ``verify`` with their checksums."""
        return self.holds_all(receipt, location_of(self.target.store).size, verify=verify)

    def holds_all(self, receipt: Any, size_of: Callable[[str], int | None], *, verify: bool) -> bool:
        """As `holds`, with a function that returns the size of a file."""
        place = location_of(self.target.store)
        return all(
            size_of(key) == size and (not verify or checksum([place.read(key)]) == crc)
            for key, (size, crc) in receipt.items()
        )


@dataclass(frozen=True)
class ZarrProduct:
    """A Zarr store to write."""

    name: str
    overwrite: bool
    frames: tuple[ZarrGroup, ...]
    kept: tuple[ZarrGroup, ...] = ()
    """Groups that are written whole when the store is laid out."""

    root_attrs: Mapping[str, Any] = field(default_factory=dict)

    def alone(self, number: int) -> ZarrProduct:
        """Return the store with the pixels of one frame."""
        return ZarrProduct(
            self.name, self.overwrite, (replace(self.frames[number], attrs={}, coords={}, coord_attrs={}),)
        )

    @property
    def _groups(self) -> tuple[ZarrGroup, ...]:
        return (*self.kept, *self.frames)

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        return location_of(self.name).is_begun()

    def exists(self) -> bool:
        """Return whether there is a store of the final name."""
        return location_of(self.name).exists()

    def stamp(self) -> str:
        """Return what tells the store from another that had its name."""
        return location_of(self.name).stamp()

    def is_made(self) -> bool:
        """Return whether the store has the write id that this write gives it."""
        return is_made(self.name, self.root_attrs)

    def lay_out(self) -> None:
        """Make the unfinished store."""
        target = self._groups[0].target
        location_of(self.name).check_free(self.overwrite)
        try:
            target.create(overwrite=self.overwrite)
            for group in self._groups:
                group.target.add_group(group.attrs, group.coords, group.coord_attrs)
        # A store that is laid out in part can neither be resumed nor told from what somebody else made.
        except BaseException:
            self.abort()
            raise

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts whose files hold; remove all other shards."""
        # One listing for each array and not a request for each shard: behind a URL that is what takes the time.
        there: dict[str, int] = {}
        for frame in self.frames:
            for array in frame.target.arrays:
                there |= frame.target.shards_of(array.name)
        kept = {
            unit: receipt
            for unit, receipt in receipts.items()
            if self.frames[frame_and_region(unit)[0]].holds_all(receipt, there.get, verify=verify)
        }
        # A shard whose process died before its receipt may be of any content, and nothing would be written over it if all its
        # pixels turn out to be the fill value.
        owned = {key for receipt in kept.values() for key in receipt}
        location_of(self.name).remove(key for key in there if key not in owned)
        return kept

    def complete(self, receipts: Receipts) -> None:
        """Write the metadata and give the store its name."""
        for group in self._groups:
            group.target.finish_group()
        names = [group.target.group for group in self._groups]
        # A level that is one frame has its arrays in its root, which is complete by now.
        if names != [""]:
            complete_store(self.name, names, self.root_attrs)

    def abort(self) -> None:
        """Remove the unfinished store."""
        location_of(self.name).discard()

    @property
    def takes_late(self) -> bool:
        """Whether the location accepts what is written late."""
        return location_of(self.name).takes_late
