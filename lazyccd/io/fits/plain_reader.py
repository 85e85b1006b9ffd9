"""Read windows of uncompressed images.

The file is read in pieces that stay in the processor's cache, into memory that each thread uses again, and decoded from
there into the output. Where the columns outside of the window are few, rows are read in one span with them; otherwise
each row is a read of its own.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ShapeError
from lazyccd.io.fits.byte_source import ByteSource, RemoteSource
from lazyccd.io.fits.pixels import Decoder, PixelFormat
from lazyccd.kernels.program import Op
from lazyccd.plan.storage import StoredRows
from lazyccd.sections import Region

_KEPT_BYTES = 4 << 20

_local = threading.local()


def scratch(count: int) -> npt.NDArray[np.uint8]:
    """Return memory of this thread; what it held before is gone."""
    buffer: npt.NDArray[np.uint8] | None = getattr(_local, "buffer", None)
    # Touching fresh memory costs more than decoding into it.
    if buffer is None or buffer.size < count:
        buffer = np.empty(count + -count % 4096, np.uint8)
        # Larger memory is not kept: every thread of a pool would hold some for ever.
        if count <= _KEPT_BYTES:
            _local.buffer = buffer
    return buffer[:count]


class RegionReader:
    """What the readers of FITS images have in common. Any number of threads may read at once."""

    def __init__(self, source: ByteSource, shape: tuple[int, int], dtype: np.dtype[Any], name: str) -> None:
        """Take over an open source."""
        self._source = source
        self.shape = shape
        self.dtype = dtype
        self.name = name

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Return the pixels of a region as a new array.

        Raises
        ------
        ShapeError
            Raised if the region is not inside the image.
        """
        out = np.empty(tuple(region.shape), self.dtype)
        self.read_into(region, out)
        return out

    def read_into(self, region: Region, out: npt.NDArray[Any]) -> None:
        """Write the pixels of a region into an array of its shape and of the reader's dtype.

        Fastest where ``out`` is C-contiguous.
        """
        if not Region.full(self.shape).contains(region):
            raise ShapeError(f"{self.name}: region {region.to_fits()} must lie inside the image of shape {self.shape}.")
        if out.shape != tuple(region.shape) or out.dtype != self.dtype:
            raise ShapeError(
                f"{self.name}: output of shape {out.shape} and dtype {out.dtype} must have those of the region, "
                f"{tuple(region.shape)} and {self.dtype}."
            )
        if region.size:
            self._fill(region, out)

    def _fill(self, region: Region, out: npt.NDArray[Any]) -> None:
        """Read a region that is known to be valid."""
        raise NotImplementedError

    def stored_rows(self) -> StoredRows | None:
        """Return how to read rows undecoded; None if they are compressed."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        """Return the reader, which is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


class PlainReader(RegionReader):
    """Reads windows of an uncompressed image."""

    def __init__(
        self,
        source: ByteSource,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        name: str,
        *,
        pixels: PixelFormat,
        offset: int,
    ) -> None:
        """Take over an open source; ``offset`` is where the pixels start."""
        super().__init__(source, shape, dtype, name)
        self._decoder = Decoder(pixels, dtype, name, stored=pixels.stored, big_endian=True)
        self._pixels = pixels
        self._itemsize = pixels.stored.itemsize
        self._offset = offset

    def stored_rows(self) -> StoredRows | None:
        """Return how to read rows undecoded, if a program can decode them."""
        # A program reads few rows at a time, and each would be a request.
        if isinstance(self._source, RemoteSource):
            return None
        pixels = self._pixels
        op = None
        if self._decoder.keeps_size:
            op = {4: Op.LOAD_BIG_F4, 8: Op.LOAD_BIG_F8}[self._itemsize]
        elif self.dtype == np.float32 and pixels.is_integral and pixels.blank is None and abs(pixels.bzero) < 2**23:
            op = {1: Op.LOAD_U1, 2: Op.LOAD_BIG_I2}.get(self._itemsize)
        return None if op is None else StoredRows(op, int(pixels.bzero), self._row_bytes, self._read_stored)

    def _row_bytes(self, region: Region) -> int:
        """Return how much memory a row of a region takes."""
        row_bytes, window_bytes = self.shape[1] * self._itemsize, region.shape.x * self._itemsize
        return row_bytes if row_bytes - window_bytes <= self._source.gap else window_bytes

    def _read_stored(self, region: Region, buffer: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Read rows undecoded: return the bytes from row to row, and how many were used."""
        rows, columns = region.shape
        row_bytes, stride = self.shape[1] * self._itemsize, self._row_bytes(region)
        first = self._offset + region.y0 * row_bytes + region.x0 * self._itemsize
        used = (rows - 1) * stride + columns * self._itemsize
        if stride == row_bytes:
            self._source.read_rows(first, 0, 1, buffer[:used])
        else:
            self._source.read_rows(first, row_bytes, rows, buffer[:used])
        return stride, used

    def _fill(self, region: Region, out: npt.NDArray[Any]) -> None:
        """Read in pieces of whole rows."""
        rows, columns = region.shape
        nx = self.shape[1]
        row_bytes, window_bytes = nx * self._itemsize, columns * self._itemsize
        # Reading a few columns too many costs less than a call for each row.
        is_span = row_bytes - window_bytes <= self._source.gap
        step = max(self._source.piece // (row_bytes if is_span else window_bytes), 1)
        first = self._offset + region.y0 * row_bytes + region.x0 * self._itemsize
        # Floats of whole rows need no second buffer: they are swapped where they are read.
        in_place = self._decoder.keeps_size and columns == nx and out.flags.c_contiguous
        for start in range(0, rows, step):
            count = min(step, rows - start)
            place = first + start * row_bytes
            if in_place:
                pixels = out[start : start + count].reshape(-1)
                self._source.read_rows(place, 0, 1, pixels.view(np.uint8))
                self._decoder.decode_in_place(pixels)
                continue
            if is_span:
                raw = scratch((count - 1) * row_bytes + window_bytes)
                self._source.read_rows(place, 0, 1, raw)
            else:
                raw = scratch(count * window_bytes)
                self._source.read_rows(place, row_bytes, count, raw)
            self._decode(raw, nx if is_span else columns, out[start : start + count])

    def _decode(self, raw: npt.NDArray[np.uint8], stride: int, out: npt.NDArray[Any]) -> None:
        """Decode a piece; kernels want contiguous rows."""
        if out.flags.c_contiguous:
            self._decoder.decode(raw, 0, stride, out)
        else:
            block = np.empty(out.shape, out.dtype)
            self._decoder.decode(raw, 0, stride, block)
            out[...] = block
