"""Read windows of tile-compressed images (FITS standard, section 10): only the tiles that a window touches.

1. Descriptors of the tiles come from the table; neighbours in the heap are read together.
2. Tiles of one size are expanded and decoded together as a batch, so that threads seldom wait for the interpreter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from astropy.io.fits.hdu.compressed._codecs import PLIO1
from isal import isal_zlib

from lazyccd.errors import FormatError
from lazyccd.io.fits.byte_source import ByteSource
from lazyccd.io.fits.pixels import Decoder, PixelFormat, dither_table
from lazyccd.io.fits.plain_reader import RegionReader
from lazyccd.io.fits.tile_table import TileTable
from lazyccd.kernels.block import Array
from lazyccd.kernels.fits import decode
from lazyccd.kernels.fits.hcompress import HDECOMPRESS_ERRORS, hdecompress
from lazyccd.kernels.fits.rice import rice_decode
from lazyccd.sections import Region

# Tiles within one read; more would not be faster, and must be held until all are expanded.
_GROUP_BYTES = 4 << 20
BATCH_PIXELS = 1 << 18

BIG_ENDIAN = ("GZIP_1", "GZIP_2", "NOCOMPRESS")
"""Codings whose numbers stay as they are in the file."""


class Tile(NamedTuple):
    """One tile to be read."""

    number: int
    """Row of the table, from 0."""

    region: Region
    """Pixels that it covers."""

    column: str
    """Column whose bytes hold it."""

    start: int
    """Place in the heap."""

    length: int
    """Compressed bytes."""

    record: Any
    """Row of the table."""


class TileReader(RegionReader):
    """Reads windows of a tile-compressed image."""

    def __init__(
        self,
        source: ByteSource,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        name: str,
        *,
        pixels: PixelFormat,
        table_offset: int,
        tiles: TileTable,
    ) -> None:
        """Take over an open source; ``table_offset`` is where the table of tiles starts."""
        super().__init__(source, shape, dtype, name)
        self._pixels = pixels
        self._table_offset = table_offset
        self._tiles = tiles
        self._decoder = functools.cache(self._make_decoder)

    def _fill(self, region: Region, out: Array) -> None:
        """Read the tiles group by group."""
        for group in self._groups(self._tiles_of(region)):
            start = group[0].start
            stop = max(tile.start + tile.length for tile in group)
            raw = self._source.read(self._tiles.heap_offset + start, stop - start)
            if len(raw) != stop - start:
                raise FormatError(f"{self.name} ends within its compressed tiles; fetch the file again.")
            packed = np.frombuffer(raw, np.uint8)
            for batch in _batches(group):
                self._place(batch, packed, start, region, out)

    def _tiles_of(self, region: Region) -> list[Tile]:
        """Return the tiles that a region touches, in the order of the heap."""
        ny, nx = self.shape
        th, tw = self._tiles.shape
        across = -(-nx // tw)
        y0, y1 = region.y0 // th, -(-region.y1 // th)
        x0, x1 = region.x0 // tw, -(-region.x1 // tw)
        first, last = y0 * across + x0, (y1 - 1) * across + x1
        width = self._tiles.row_bytes
        raw = self._source.read(self._table_offset + first * width, (last - first) * width)
        if len(raw) != (last - first) * width:
            raise FormatError(f"{self.name} ends within its table of tiles; fetch the file again.")
        records = np.frombuffer(raw, self._tiles.row_dtype)
        found = []
        for ty in range(y0, y1):
            for tx in range(x0, x1):
                index = ty * across + tx
                box = Region(ty * th, min(ty * th + th, ny), tx * tw, min(tx * tw + tw, nx))
                found.append(self._locate(index, box, records[index - first]))
        return sorted(found, key=lambda tile: tile.start)

    def _locate(self, index: int, box: Region, record: Any) -> Tile:
        """Find the bytes of one tile."""
        # Tiles that could not be quantised or compressed are in a column of their own (section 10.1.3).
        for column in self._tiles.columns:
            if not column.element:
                continue
            count, start = (int(value) for value in record[column.name])
            length = count * column.element
            if length:
                # Damaged descriptors would otherwise read bytes of other tiles as if they were these.
                if start < 0 or length < 0 or start + length > self._tiles.heap_size:
                    raise FormatError(
                        f"{self.name}: tile {index} lies at {start} to {start + length} of a heap of "
                        f"{self._tiles.heap_size} bytes; the file is damaged, fetch it again."
                    )
                return Tile(index, box, column.name, start, length, record)
        raise FormatError(f"{self.name}: tile {index} has no data; the file is damaged, fetch it again.")

    def _groups(self, tiles: list[Tile]) -> Iterator[list[Tile]]:
        """Join tiles that are close in the heap into reads of moderate size."""
        group: list[Tile] = []
        stop = 0
        for tile in tiles:
            is_far = tile.start - stop > self._source.gap
            if group and (is_far or tile.start + tile.length - group[0].start > _GROUP_BYTES):
                yield group
                group = []
            group.append(tile)
            stop = max(stop, tile.start + tile.length)
        if group:
            yield group

    def _place(self, batch: list[Tile], packed: Array, start: int, region: Region, out: Array) -> None:
        """Expand and decode a batch, whose bytes begin in the heap at ``start``, and put what is wanted into the output."""
        is_fallback = batch[0].column != "COMPRESSED_DATA"
        quantized = self._tiles.is_quantized and not is_fallback and self._pixels.bitpix < 0
        as_integers = quantized or self._pixels.bitpix > 0
        values, big_endian = self._expand(batch, packed, start, as_integers=as_integers)
        if quantized:
            native = values.astype(values.dtype.newbyteorder("="), copy=False)
            values, big_endian = self._dequantize(batch, native), False
        stored = values.dtype.newbyteorder("=")
        if batch[0].region.shape.x == self.shape[1] and batch[-1].number - batch[0].number == len(batch) - 1:
            rows = batch[0].region.union(batch[-1].region)  # tiles as wide as the image are one block
            self._cut(rows, values, stored, big_endian, self._blank(batch[0]), region, out)
            return
        for tile, pixels in zip(batch, values, strict=True):
            self._cut(tile.region, pixels, stored, big_endian, self._blank(tile), region, out)

    def _cut(
        self,
        box: Region,
        values: Array,
        stored: np.dtype[Any],
        big_endian: bool,
        blank: int | None,
        region: Region,
        out: Array,
    ) -> None:
        """Turn the stored numbers of a box into physical values, as far as they are wanted."""
        common = box.intersect(region)
        target = out[common.within(region)]
        block = target if target.flags.c_contiguous else np.empty(target.shape, out.dtype)
        width = box.shape.x
        first = (common.y0 - box.y0) * width + common.x0 - box.x0
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._decoder(stored, big_endian, blank).decode(raw, first, width, block)
        if block is not target:
            target[...] = block

    def _make_decoder(self, stored: np.dtype[Any], big_endian: bool, blank: int | None) -> Decoder:
        """Return the decoder for tiles that were expanded to one type."""
        pixels = dataclasses.replace(self._pixels, blank=blank if self._pixels.bitpix > 0 else None)
        return Decoder(pixels, self.dtype, self.name, stored=stored, big_endian=big_endian)

    def _blank(self, tile: Tile) -> int | None:
        """Return the integer that means that nothing is known."""
        return int(tile.record["ZBLANK"]) if "ZBLANK" in self._tiles.names else self._tiles.blank

    def _dequantize(self, batch: list[Tile], values: Array) -> Array:
        """Turn the integers of tiles into floats."""
        names, tiles = self._tiles.names, self._tiles
        scales = [float(tile.record["ZSCALE"]) if "ZSCALE" in names else float(tiles.scale or 0.0) for tile in batch]
        zeros = [float(tile.record["ZZERO"]) if "ZZERO" in names else tiles.zero for tile in batch]
        # The seed moves on from tile to tile (section 10.2.1), so that neighbours are not dithered alike.
        firsts = [(tile.number + tiles.dither_seed - 1) % decode.DITHER_COUNT for tile in batch]
        blanks = [blank for tile in batch if (blank := self._blank(tile)) is not None]
        floats = np.empty(values.shape, self._pixels.stored)
        decode.dequantize_tiles(
            values,
            floats,
            np.array(scales),
            np.array(zeros),
            dither_table(),
            np.array(firsts, np.int64),
            tiles.dither,
            np.array(blanks, np.int64),
        )
        return floats

    def _expand(self, batch: list[Tile], packed: Array, start: int, *, as_integers: bool) -> tuple[Array, bool]:
        """Decompress tiles to stored numbers, shape ``(tiles, pixels)``; return whether they are big-endian too."""
        column = batch[0].column
        fallbacks = {"GZIP_COMPRESSED_DATA": "GZIP_1", "UNCOMPRESSED_DATA": "NOCOMPRESS"}
        algorithm = fallbacks.get(column, self._tiles.algorithm)
        starts = np.array([tile.start - start for tile in batch], np.int64)
        stops = starts + np.array([tile.length for tile in batch], np.int64)
        # One call for all tiles: it holds no lock, and the interpreter is asked once.
        if algorithm == "RICE_1":
            return self._expand_rice(batch, packed, starts, stops), False
        expanded = []
        for tile, first, stop in zip(batch, starts, stops, strict=True):
            try:
                expanded.append(self._expand_one(algorithm, packed[first:stop], tile.region, as_integers=as_integers))
            except Exception as error:  # damaged bytes make the codecs raise errors of many kinds
                raise self._damaged(tile, algorithm, str(error)) from error
        if len({array.dtype for array in expanded}) > 1:
            raise self._damaged(batch[0], algorithm, "pixels of this tile and the next are of different width")
        if len(batch) == 1:  # a tile may be the whole image
            return expanded[0].reshape(1, -1), algorithm in BIG_ENDIAN
        values = np.empty((len(batch), batch[0].region.size), expanded[0].dtype)  # np.stack would swap bytes
        for row, array in zip(values, expanded, strict=True):
            row[:] = array
        return values, algorithm in BIG_ENDIAN

    def _expand_rice(self, batch: list[Tile], packed: Array, starts: Array, stops: Array) -> Array:
        """Decompress RICE_1 tiles all together."""
        width, size = self._tiles.pixel_bytes, self._tiles.block
        bits = np.empty((len(batch), batch[0].region.size), np.dtype(f"u{width}"))
        failed = rice_decode(packed, starts, stops, size, bits)
        if failed >= 0:
            raise self._damaged(batch[failed], "RICE_1", "its bytes end before its pixels")
        return bits if width == 1 else bits.view(np.dtype(f"i{width}"))

    def _expand_one(self, algorithm: str, data: Array, box: Region, *, as_integers: bool) -> Array:
        """Decompress one tile of the other algorithms."""
        count = box.size
        if algorithm in ("GZIP_1", "GZIP_2", "NOCOMPRESS"):
            plain = data.tobytes() if algorithm == "NOCOMPRESS" else isal_zlib.decompress(data.data, 47)
            return _as_numbers(plain, count, shuffled=algorithm == "GZIP_2", as_integers=as_integers)
        if algorithm == "PLIO_1":
            values = np.asarray(PLIO1(tilesize=count).decode(data.view(">i2")))
        else:
            values = self._hdecompress(data, box)
        if values.size < count:
            raise ValueError(f"{values.size} pixels for a tile of {count}")
        return values[:count]

    def _hdecompress(self, data: Array, box: Region) -> Array:
        """Decompress a tile of HCOMPRESS_1."""
        # Coefficients of a transform need more bits than the pixels: 64 for 32.
        scratch = np.empty(box.shape, np.int32 if self._pixels.bitpix in (8, 16) else np.int64)
        values = np.empty(box.shape, np.int32)
        failed = hdecompress(data, self._tiles.hcompress_smooth, scratch, values)
        if failed:
            raise ValueError(HDECOMPRESS_ERRORS[failed])
        return values.reshape(-1)

    def _damaged(self, tile: Tile, algorithm: str, problem: str) -> FormatError:
        """Make the error of a tile."""
        return FormatError(
            f"{self.name}: tile {tile.number} cannot be decompressed ({algorithm}): {problem}; the file is damaged, "
            "fetch it again."
        )


def _batches(group: list[Tile]) -> Iterator[list[Tile]]:
    """Cut a group into batches of tiles of one shape in one column, small enough to stay in the cache."""
    for (_, shape), same in itertools.groupby(group, lambda tile: (tile.column, tile.region.shape)):
        batch = list(same)
        step = max(BATCH_PIXELS // (shape.y * shape.x), 1)
        for first in range(0, len(batch), step):
            yield batch[first : first + step]


def _as_numbers(plain: bytes, count: int, *, shuffled: bool, as_integers: bool) -> Array:
    """Read decompressed bytes as big-endian numbers, whose width follows from their number."""
    # Writers differ in how wide they store what BITPIX says, and the number of bytes tells.
    width = len(plain) // count
    if len(plain) != width * count or width not in (1, 2, 4, 8):
        raise ValueError(f"{len(plain)} bytes for {count} pixels")
    raw = np.frombuffer(plain, np.uint8)
    if shuffled:
        raw = np.ascontiguousarray(raw.reshape(width, count).T).ravel()
    if width == 1:
        return raw
    return raw.view(f">{'i' if as_integers or width == 2 else 'f'}{width}")
