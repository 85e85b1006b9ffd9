"""Write a FITS file as the protocol of resumable writes asks: `FitsProduct`, and `FitsFrame` for each frame in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from lazyccd.frame.core import MASK
from lazyccd.io.fits.hdu_roles import BAD
from lazyccd.io.fits.layout import PlaneHdu
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.io.resumable.disk import stamp_of
from lazyccd.io.resumable.progress import Receipts
from lazyccd.io.resumable.tracked_write import holding
from lazyccd.sections import Region


@dataclass(frozen=True)
class FitsFrame:
    """The HDUs of a file that hold a frame."""

    target: FitsTarget
    planes: tuple[PlaneHdu, ...]

    bad_bits: int

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Partial]:
        """Write one region of all HDUs."""
        receipts: list[Partial] = []
        for name, hdu in self.planes:
            array = arrays[MASK if name == BAD else name]
            # CCDData.read casts MASK to bool, so planes that do not count as bad must not be in it.
            if name == BAD:
                array = (array & array.dtype.type(self.bad_bits)) != 0
            receipts.append(self.target.write(hdu, region, array))
        return receipts

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether the pixels are there: the file has all its space from the start."""
        # Pixels are written before their receipt, and the file has its size from the start: only checksums could tell more.
        return not verify or all(self.target.datasum(hdu, region) == datasum for hdu, _, datasum in receipt)


@dataclass(frozen=True)
class FitsProduct:
    """A FITS file to write."""

    target: FitsTarget
    overwrite: bool
    frames: tuple[FitsFrame, ...]

    @property
    def name(self) -> str:
        """Final path."""
        return self.target.path

    def alone(self, number: int) -> FitsProduct:
        """Return the file with one frame."""
        return replace(self, frames=(self.frames[number],))

    def is_begun(self) -> bool:
        """Return whether there is an unfinished file."""
        return os.path.exists(self.target.part)

    def exists(self) -> bool:
        """Return whether there is a file of the final name."""
        return os.path.lexists(self.target.path)

    def stamp(self) -> str:
        """Return a stamp of the file under the final name."""
        return stamp_of(self.target.path)

    def is_made(self) -> bool:
        """Return whether the file has the headers that this write makes."""
        return self.target.is_made()

    def lay_out(self) -> None:
        """Make the unfinished file."""
        self.target.create(overwrite=self.overwrite)

    def keep_only(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold; regions without one are written over."""
        return holding(self, receipts, verify=verify)

    def complete(self, receipts: Receipts) -> None:
        """Write the checksums and give the file its name."""
        self.target.finish([Partial(*partial) for some in receipts.values() for partial in some])

    def abort(self) -> None:
        """Remove the unfinished file."""
        self.target.abort()

    @property
    def takes_late(self) -> bool:
        """False: a late task finds no file."""
        return False
