"""Compressed tiles in the unfinished file, each with room for its most bytes, and behind the table of the finished one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lazyccd.io.fits.layout import HduSpec
from lazyccd.io.fits.packing import RECORD, pack, table_bytes
from lazyccd.kernels.fits.encode import fold_datasum, shift_datasum, sum_words
from lazyccd.sections import Region


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


def copy_tiles(file: BinaryIO, out: BinaryIO, data: int, spec: HduSpec) -> tuple[int, int, int]:
    """Write the table of tiles and their bytes; return DATASUM, bytes of the heap, and of the longest tile."""
    grid = spec.grid
    assert grid is not None
    file.seek(data)
    records = np.frombuffer(file.read(grid.count * RECORD.itemsize), RECORD)
    table = table_bytes(grid, records)
    out.write(table)
    total, place = sum_words(np.frombuffer(table, np.uint8)), len(table)
    for run in grid.runs(records, 0):
        file.seek(data + grid.count * RECORD.itemsize + int(records["place"][run.start]))
        raw = np.frombuffer(file.read(int(records["length"][run].sum())), np.uint8)
        out.write(raw.data)
        total += shift_datasum(sum_words(raw), place)
        place += raw.size
    return total, place - len(table), int(records["length"].max())


def pwrite(descriptor: int, view: memoryview | bytes, offset: int) -> None:
    """Write all bytes; the system may take fewer at a time."""
    written = os.pwrite(descriptor, view, offset)
    while written < len(view):
        view, offset = view[written:], offset + written
        written = os.pwrite(descriptor, view, offset)
