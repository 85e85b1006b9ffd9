"""Write a FITS file by regions, from any thread or process, without a lock and without the whole image in memory.

1. `FitsTarget.create` lays out the whole file as ``<path>.part``: headers, and the space of the data units allocated,
   so that a full disk is known before the first pixel is computed.
2. `FitsTarget.write` puts one region in its place (``pwrite`` to byte ranges that no other region shares) and returns
   what these pixels add to the DATASUM.
3. `FitsTarget.finish` adds up the partial sums, writes DATASUM and CHECKSUM, and gives the file its name.

`FitsFrame` and `FitsProduct` make this a resumable write: they are what `lazyccd.io.resumable.write` asks of a format.

The length of a compressed tile is known only when it is compressed. So each tile has room for the longest possible one in
``<path>.part``, which is then sparse, and a record of its length; `FitsTarget.finish` copies the tiles to
``<path>.part.packed``, one behind the other.

Every offset follows from the target, which is small, frozen and picklable; no file is kept open. Equal pixels and
headers give equal bytes: no clock time is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from lazyccd.errors import (
    FormatError,
    MissingFileError,
    ParameterError,
    ShapeError,
    TargetExistsError,
    WriteError,
)
from lazyccd.frame.core import MASK
from lazyccd.io.fits.hdu_roles import BAD
from lazyccd.io.fits.layout import HduSpec, PlaneHdu, header_block, padded
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.io.fits.scan import CARD, scan_fits
from lazyccd.io.fits.tile_writer import RECORD, pack, table_bytes
from lazyccd.io.names import as_seen
from lazyccd.io.resumable.disk import explained, flush, stamp_of
from lazyccd.io.resumable.progress import Receipts
from lazyccd.io.resumable.renames import check_kind, give_name
from lazyccd.io.resumable.write import holding
from lazyccd.kernels.fits.encode import encode_big_endian, fold_datasum, shift_datasum, sum_words
from lazyccd.sections import Region

PIECE_BYTES = 1 << 19
"""Pixels are encoded and written in pieces of about this size, which stay in the cache (0.25 to 1 MB measured best)."""


NOT_CREATED = "call create() first, and keep the unfinished file until finish()"
"""Way out if there is no unfinished file."""

LATE_CARDS = (b"CHECKSUM", b"DATASUM ", b"PCOUNT  ", b"TFORM1  ")
"""Cards that are known only when the pixels are: sums, and the lengths of compressed tiles."""


class Partial(NamedTuple):
    """The receipt of one written region, for `FitsTarget.finish`."""

    hdu: int
    pixels: int
    datasum: int


@dataclass(frozen=True)
class FitsTarget:
    """A FITS file that is being written, known by its name and layout only.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.io import fits
    >>> with TemporaryDirectory() as folder:
    ...     target = FitsTarget(f"{folder}/a.fits", (HduSpec("", "BUNIT   = 'adu     '", (4, 3)),))
    ...     target.create()
    ...     target.finish([target.write(0, Region(0, 4, 0, 3), np.ones((4, 3), np.float32))])
    ...     fits.getdata(target.path, checksum=True).sum(), fits.getval(target.path, "BUNIT")
    (np.float32(12.0), 'adu')
    """

    path: str
    """Final name of the file."""

    hdus: tuple[HduSpec, ...]
    """The primary HDU and the extensions after it."""

    @property
    def part(self) -> str:
        """Name of the file until it is complete."""
        return f"{self.path}.part"

    @property
    def packed(self) -> str:
        """Name of a file of compressed tiles while they are moved together."""
        return f"{self.path}.part.packed"

    def create(self, *, overwrite: bool = False) -> None:
        """Make ``<path>.part`` with its headers and all its space; an abandoned one is replaced.

        Parameters
        ----------
        overwrite
            Allow a file under the final name; it stays as it is until `finish`.

        Raises
        ------
        TargetExistsError
            Raised if the final name is taken and ``overwrite`` is false, or is that of a folder, a link or a device.
        MissingFileError
            Raised if the folder does not exist.
        WriteError
            Raised if there is no space or no permission; nothing is left behind.
        """
        check_kind(self.path)
        if os.path.isdir(self.path):
            raise TargetExistsError(f"{self.path} is a folder and must be the name of a file; give another name.")
        if os.path.lexists(self.path) and not overwrite:
            raise TargetExistsError(f"{self.path} exists; pass overwrite=True to replace it, or give another name.")
        folder = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(folder):
            raise MissingFileError(f"the folder {folder} of {self.path} does not exist{as_seen()}; create it first.")
        try:
            size = _data_offset(self, len(self.hdus))
            with explained(f"{self.part}: {size} bytes"):
                self._lay_out(size)
        # of an input whose HDUs are copied, too: what is left would be taken for something that others made
        except BaseException:
            self.abort()
            raise

    def write(self, hdu: int, region: Region, pixels: npt.NDArray[Any]) -> Partial:
        """Write one region; safe from any thread or process while no other writes the same pixels.

        Parameters
        ----------
        hdu
            Index of the HDU, 0 for the primary.
        region
            Where the pixels go. Whole rows (full width) are one stretch of the file and fastest. Of compressed images it
            must be made of whole tiles.
        pixels
            Array of the region's shape and the HDU's dtype (bool for uint8); it is left as it was.

        Returns
        -------
        Partial
            To be handed to `finish`, once per region.

        Raises
        ------
        WriteError
            Raised if the system refuses; the message names file, HDU and region.
        """
        spec = self.hdus[hdu]
        pixels = pixels.view(np.uint8) if pixels.dtype == bool else pixels
        _check_piece(spec, region, pixels)
        with explained(f"{self.part}: HDU {hdu} ({spec.name or 'image'}) region {region.to_fits()}", NOT_CREATED):
            descriptor = os.open(self.part, os.O_WRONLY)
            try:
                if spec.packing is None:
                    total = _write_region(descriptor, _data_offset(self, hdu), spec, region, pixels)
                else:
                    total = write_tiles(descriptor, _data_offset(self, hdu), spec, region, pixels)
            finally:
                os.close(descriptor)
        return Partial(hdu, region.size, total)

    def datasum(self, hdu: int, region: Region) -> int:
        """Return the sum that `write` returned, computed again from the unfinished file."""
        spec = self.hdus[hdu]
        if spec.packing is not None:
            with open(self.part, "rb") as file:
                return fold_datasum(sum(map(sum_words, tiles_of(file, _data_offset(self, hdu), spec, region))))
        itemsize = np.dtype(spec.dtype).itemsize
        file_row, row = spec.shape[1] * itemsize, region.shape.x * itemsize
        # Whole rows are one stretch of the file.
        rows, count = (1, region.shape.y * row) if row == file_row else (region.shape.y, row)
        total = 0
        with open(self.part, "rb") as file:
            for i in range(rows):
                start = (region.y0 + i) * file_row + region.x0 * itemsize
                file.seek(_data_offset(self, hdu) + start)
                words = bytes(start % 4) + file.read(count)
                total += int(np.frombuffer(words + bytes(-len(words) % 4), ">u4").sum(dtype=np.uint64))
        return fold_datasum(total)

    def finish(self, partials: Iterable[Partial], *, overwrite: bool = False) -> None:
        """Write the checksums, bring everything to the disk and give the file its final name.

        Parameters
        ----------
        partials
            What each `write` returned, in any order.
        overwrite
            Replace a file under the final name.

        Raises
        ------
        TargetExistsError
            Raised if there is a file by now and ``overwrite`` is false.
        WriteError
            Raised if the regions do not add up to the images, or the system refuses; the final name is untouched.
        """
        sums, pixels = [0] * len(self.hdus), [0] * len(self.hdus)
        for hdu, count, datasum in partials:
            sums[hdu] += datasum
            pixels[hdu] += count
        for spec, count in zip(self.hdus, pixels, strict=True):
            expected = spec.pixels
            if count != expected:
                raise WriteError(
                    f"{self.path}[{spec.name or 0}]: {count} pixels were written and the image has {expected}; "
                    "write every region exactly once before finish()."
                )
        with explained(f"{self.part}: what completes the file", NOT_CREATED):
            if all(spec.packing is None for spec in self.hdus):
                self._add_checksums(sums)
                give_name(self.part, self.path, overwrite=overwrite)
            else:
                if not self.is_packed():
                    self._pack(sums)
                    Path(self.part).unlink()
                give_name(self.packed, self.path, overwrite=overwrite)
            # Or the rename may not survive a power cut. The file has its name, whatever the disk says to that.
            with contextlib.suppress(OSError):
                flush(os.path.dirname(os.path.abspath(self.path)))

    def is_packed(self) -> bool:
        """Return whether all tiles were moved together; only the name is missing then."""
        # a process that dies while it packs leaves both
        return os.path.exists(self.packed) and not os.path.exists(self.part)

    def is_made(self) -> bool:
        """Return whether a file of the final name has all cards of this one, except those that its pixels decide."""
        wanted = b"".join(header_block(spec, i == 0) for i, spec in enumerate(self.hdus))
        try:
            hdus = scan_fits(self.path).hdus
            with open(self.path, "rb") as file:
                found = b"".join(_read_between(file, hdu.offset, hdu.data_offset) for hdu in hdus)
        except (OSError, FormatError):
            return False  # something else
        return _fixed_cards(wanted) <= _fixed_cards(found)

    def _add_checksums(self, sums: list[int]) -> None:
        """Write the headers anew, with checksums."""
        descriptor = os.open(self.part, os.O_WRONLY)
        try:
            for i, spec in enumerate(self.hdus):
                header = header_block(spec, i == 0, fold_datasum(sums[i]))
                pwrite(descriptor, memoryview(header), _data_offset(self, i) - len(header))
            # The name must not outlive a power cut that the content does not.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _pack(self, sums: list[int]) -> None:
        """Copy everything to its final place in another file."""
        with open(self.part, "rb") as file, open(self.packed, "wb") as out:
            for i, spec in enumerate(self.hdus):
                start = out.tell()
                out.write(header_block(spec, i == 0))
                heap, longest = 0, 0
                total = sums[i]
                if spec.grid is None:
                    _copy(file, out, _data_offset(self, i), padded(spec.nbytes))
                else:
                    total, heap, longest = copy_tiles(file, out, _data_offset(self, i), spec)
                out.write(bytes(padded(out.tell()) - out.tell()))
                stop = out.tell()
                out.seek(start)
                out.write(header_block(spec, i == 0, fold_datasum(total), heap, longest))
                out.seek(stop)
            out.flush()
            os.fsync(out.fileno())

    def abort(self) -> None:
        """Remove ``<path>.part``; the final name is never touched."""
        Path(self.part).unlink(missing_ok=True)
        Path(self.packed).unlink(missing_ok=True)

    def _lay_out(self, size: int) -> None:
        """Make the unfinished file: space for everything, then headers without checksums."""
        self.abort()
        descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            # A sparse file takes no space for the room that tiles do not need, and must not be given any.
            if all(spec.packing is None for spec in self.hdus):
                _allocate(descriptor, size)
            os.ftruncate(descriptor, size)
            for i, spec in enumerate(self.hdus):
                header = header_block(spec, i == 0)
                pwrite(descriptor, memoryview(header), _data_offset(self, i) - len(header))
                if spec.kept is not None:
                    _copy_kept(descriptor, spec.kept, _data_offset(self, i))
        finally:
            os.close(descriptor)


def _check_piece(spec: HduSpec, region: Region, pixels: npt.NDArray[Any]) -> None:
    """Raise unless the pixels are what the HDU has in that region."""
    inside = len(spec.shape) == 2 and Region.full((spec.shape[0], spec.shape[1])).contains(region)
    if not inside or pixels.shape != tuple(region.shape):
        raise ShapeError(
            f"HDU {spec.name!r}: pixels of shape {pixels.shape} cannot go to {region} of an image {spec.shape}; "
            "pass a region inside the image and pixels of its shape."
        )
    if pixels.dtype.name != spec.dtype or not pixels.dtype.isnative:
        raise ParameterError(
            f"HDU {spec.name!r}: pixels are {pixels.dtype.str} and the file has native {spec.dtype}; convert first."
        )
    if spec.grid is not None:
        spec.grid.check_region(region)


def _write_region(descriptor: int, data: int, spec: HduSpec, region: Region, pixels: npt.NDArray[Any]) -> int:
    """Encode and write a region in pieces that fit into the cache; return its part of the DATASUM."""
    itemsize = np.dtype(spec.dtype).itemsize
    file_row, row = spec.shape[1] * itemsize, region.shape.x * itemsize
    whole_rows = file_row == row
    # Bytes may be summed as one stretch only if all rows start at the same place in their 32-bit words.
    one_stretch = whole_rows or itemsize >= 4 or (file_row % 4 == 0 and row % 4 == 0)
    step = max(PIECE_BYTES // row, 1) if row else 1
    scratch = np.empty(min(step, region.shape.y) * row, np.uint8)
    # DATASUM is a ones-complement sum: parts add up in any order, and no second pass over the file is needed.
    total = 0
    for first in range(0, region.shape.y, step):
        piece = np.ascontiguousarray(pixels[first : first + step])
        start = (region.y0 + first) * file_row + region.x0 * itemsize
        encoded = scratch[: piece.nbytes]
        if one_stretch:
            total += encode_big_endian(piece, start, encoded)
        else:
            for i, line in enumerate(piece):
                total += encode_big_endian(line, start + i * file_row, encoded[i * row : (i + 1) * row])
        view = encoded.data
        if whole_rows:
            pwrite(descriptor, view, data + start)
        else:
            for i in range(len(piece)):
                pwrite(descriptor, view[i * row : (i + 1) * row], data + start + i * file_row)
    return fold_datasum(total)


def _read_between(file: BinaryIO, start: int, stop: int) -> bytes:
    """Return bytes of a file."""
    file.seek(start)
    return file.read(stop - start)


def _fixed_cards(headers: bytes) -> Counter[bytes]:
    """Return the cards of headers but those that are known only when the pixels are."""
    cards = (headers[i : i + CARD] for i in range(0, len(headers), CARD))
    return Counter(card for card in cards if not card.startswith(LATE_CARDS))


def _copy(file: BinaryIO, out: BinaryIO, start: int, size: int) -> None:
    """Copy a plain data unit, a piece at a time."""
    file.seek(start)
    for done in range(0, size, PIECE_BYTES):
        out.write(file.read(min(PIECE_BYTES, size - done)))


def _copy_kept(descriptor: int, kept: KeptBytes, offset: int) -> None:
    """Write the bytes of an HDU that is kept as it is, and what fills its last block: blanks behind a table of text."""
    fill, end = b"", offset + padded(kept.size)
    for piece in kept.pieces():
        # ASCII tables are filled with blanks (section 7.2.3), everything else with zeros.
        fill = fill or (b" " if piece.startswith(b"XTENSION= 'TABLE ") else b"\0")
        pwrite(descriptor, memoryview(piece), offset)
        offset += len(piece)
    pwrite(descriptor, fill * (end - offset), offset)


def _allocate(descriptor: int, size: int) -> None:
    """Allocate the space of a file, so that a full disk is detected now."""
    if hasattr(os, "posix_fallocate"):
        try:
            # ftruncate alone takes no space: a full disk would show up in the middle of the write.
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            # Some file systems cannot; then a full disk is found later.
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
                raise


@lru_cache(maxsize=256)
def _data_offset(target: FitsTarget, hdu: int) -> int:
    """Return where the data of an HDU begin until `FitsTarget.finish`; behind the last HDU, the size of the file."""
    before = sum(padded(spec.room) for spec in target.hdus[:hdu])
    return before + sum(len(header_block(spec, i == 0)) for i, spec in enumerate(target.hdus[: hdu + 1]))


def write_tiles(descriptor: int, data: int, spec: HduSpec, region: Region, pixels: npt.NDArray[Any]) -> int:
    """Compress and write a region, and the records of its tiles; return the sum of both."""
    grid = spec.grid
    assert grid is not None
    heap, total = data + grid.count * RECORD.itemsize, 0
    for first, records, raw in pack(grid, region, pixels):
        pwrite(descriptor, raw.data, heap + first * grid.room)
        pwrite(descriptor, records.tobytes(), data + first * RECORD.itemsize)
        total += sum_words(raw) + sum_words(records.view(np.uint8))
    return fold_datasum(total)


def tiles_of(file: BinaryIO, data: int, spec: HduSpec, region: Region) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield what `write_tiles` wrote for a region: records, and the bytes of runs of tiles."""
    grid = spec.grid
    assert grid is not None
    for first, stop in grid.columns(region):
        file.seek(data + first * RECORD.itemsize)
        records = np.frombuffer(file.read((stop - first) * RECORD.itemsize), RECORD)
        yield records.view(np.uint8)
        for run in grid.runs(records, first):
            file.seek(data + grid.count * RECORD.itemsize + int(records["place"][run.start]))
            yield np.frombuffer(file.read(int(records["length"][run].sum())), np.uint8)


class CopiedTiles(NamedTuple):
    """What the header of a compressed image says about its data."""

    datasum: int
    heap: int
    """Bytes of all tiles."""

    longest: int
    """Bytes of the longest tile."""


def copy_tiles(file: BinaryIO, out: BinaryIO, data: int, spec: HduSpec) -> CopiedTiles:
    """Write the table of tiles and their bytes, one behind the other."""
    grid = spec.grid
    assert grid is not None
    file.seek(data)
    records = np.frombuffer(file.read(grid.count * RECORD.itemsize), RECORD)
    table = table_bytes(grid, records)
    out.write(table)
    total, place = sum_words(np.frombuffer(table, np.uint8)), len(table)
    # Runs of tiles are copied at once: 25 MB of tiles of 3 kB took 0.04 s so, and 0.32 s tile by tile.
    for run in grid.runs(records, 0):
        file.seek(data + grid.count * RECORD.itemsize + int(records["place"][run.start]))
        raw = np.frombuffer(file.read(int(records["length"][run].sum())), np.uint8)
        out.write(raw.data)
        total += shift_datasum(sum_words(raw), place)
        place += raw.size
    return CopiedTiles(total, place - len(table), int(records["length"].max()))


def pwrite(descriptor: int, view: memoryview | bytes, offset: int) -> None:
    """Write all bytes; the system may take fewer at a time."""
    written = os.pwrite(descriptor, view, offset)
    while written < len(view):
        view, offset = view[written:], offset + written
        written = os.pwrite(descriptor, view, offset)


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
        if not verify or self.target.is_packed():
            return True
        return all(self.target.datasum(hdu, region) == datasum for hdu, _, datasum in receipt)


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
        return os.path.exists(self.target.part) or os.path.exists(self.target.packed)

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

    def held(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold."""
        return holding(self, receipts, verify=verify)

    def complete(self, receipts: Receipts) -> None:
        """Write the checksums and give the file its name."""
        self.target.finish(
            [Partial(*partial) for some in receipts.values() for partial in some], overwrite=self.overwrite
        )

    def abort(self) -> None:
        """Remove the unfinished file."""
        self.target.abort()

    @property
    def takes_late(self) -> bool:
        """False: a late task finds no file."""
        return False
