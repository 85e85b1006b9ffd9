"""Windows of tile-compressed images: only the tiles that a window touches are read and decompressed.

Descriptors of the tiles come from the table, neighbours in the heap are read together, each tile is expanded by the
codec (those of astropy for RICE, PLIO and HCOMPRESS; they are pure functions that let other threads run) and decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.io.fits.hdu.compressed._codecs import PLIO1, HCompress1, Rice1

from lazyccd.errors import FormatError, LazyCCDError
from lazyccd.io.fits.access import ByteSource
from lazyccd.io.fits.pixels import Decoder, PixelFormat
from lazyccd.io.fits.plain import RegionReader
from lazyccd.io.fits.tiles import TileTable
from lazyccd.kernels import decode
from lazyccd.sections import Region

Array = npt.NDArray[Any]

_GROUP_BYTES = 4 << 20

dither_table = functools.cache(decode.dither_table)


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
            for tile in group:
                data = raw[tile.start - start : tile.start - start + tile.length]
                self._place(tile, data, region, out)

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
        for column in self._tiles.columns:
            if not column.element:
                continue
            count, start = (int(value) for value in record[column.name])
            length = count * column.element
            if length:
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

    def _place(self, tile: Tile, data: bytes, region: Region, out: Array) -> None:
        """Decode a tile and put the part that is wanted into the output."""
        common = tile.region.intersect(region)
        target = out[common.within(region)]
        whole = common == tile.region and target.flags.c_contiguous
        block = target if whole else np.empty(tuple(tile.region.shape), out.dtype)
        try:
            self._decode(tile, data, block)
        except LazyCCDError:
            raise
        except Exception as error:
            # Damaged bytes make the codecs raise errors of many kinds.
            raise FormatError(
                f"{self.name}: tile {tile.number} cannot be decompressed ({self._tiles.algorithm}): {error}; "
                "the file is damaged, fetch it again."
            ) from error
        if not whole:
            target[...] = block[common.within(tile.region)]

    def _decode(self, tile: Tile, data: bytes, block: Array) -> None:
        """Turn the bytes of a tile into physical values."""
        is_fallback = tile.column != "COMPRESSED_DATA"
        quantized = self._tiles.is_quantized and not is_fallback and self._pixels.bitpix < 0
        values, big_endian = self._expand(tile, data, block.shape, as_integers=quantized or self._pixels.bitpix > 0)
        blank = self._blank(tile)
        if quantized:
            native = values.astype(values.dtype.newbyteorder("=")) if big_endian else values
            values = self._dequantize(tile, native.ravel(), blank)
            big_endian = False
        stored = values.dtype.newbyteorder("=")
        self._decoder(stored, big_endian, blank).decode(values.view(np.uint8), 0, block.shape[1], block)

    def _make_decoder(self, stored: np.dtype[Any], big_endian: bool, blank: int | None) -> Decoder:
        """Return the decoder for tiles that were expanded to one type."""
        pixels = dataclasses.replace(self._pixels, blank=blank if self._pixels.bitpix > 0 else None)
        return Decoder(pixels, self.dtype, self.name, stored=stored, big_endian=big_endian)

    def _blank(self, tile: Tile) -> int | None:
        """Return the integer that means that nothing is known."""
        return int(tile.record["ZBLANK"]) if "ZBLANK" in self._tiles.names else self._tiles.blank

    def _dequantize(self, tile: Tile, values: Array, blank: int | None) -> Array:
        """Turn the integers of a tile into floats."""
        names = self._tiles.names
        scale = float(tile.record["ZSCALE"]) if "ZSCALE" in names else float(self._tiles.scale or 0.0)
        zero = float(tile.record["ZZERO"]) if "ZZERO" in names else self._tiles.zero
        floats = np.empty(values.size, self._pixels.stored)
        first = (tile.number + self._tiles.dither_seed - 1) % decode.DITHER_COUNT
        decode.dequantize(
            values, floats, scale, zero, dither_table(), first, self._tiles.dither, blank or 0, blank is not None
        )
        return floats

    def _expand(self, tile: Tile, data: bytes, shape: tuple[int, ...], *, as_integers: bool) -> tuple[Array, bool]:
        """Decompress a tile to stored numbers; return them and whether they are big-endian."""
        count = shape[0] * shape[1]
        tiles = self._tiles
        algorithm = {"GZIP_COMPRESSED_DATA": "GZIP_1", "UNCOMPRESSED_DATA": "NOCOMPRESS"}.get(
            tile.column, tiles.algorithm
        )
        if algorithm in ("GZIP_1", "GZIP_2", "NOCOMPRESS"):
            plain = data if algorithm == "NOCOMPRESS" else zlib.decompress(data, 47)
            return _as_numbers(plain, count, shuffled=algorithm == "GZIP_2", as_integers=as_integers), True
        packed = np.frombuffer(data, np.uint8)
        if algorithm == "RICE_1":
            codec = Rice1(blocksize=tiles.block, bytepix=tiles.pixel_bytes, tilesize=count)
            values = codec.decode(packed)
            values = values.view(np.uint8) if tiles.pixel_bytes == 1 else values
        elif algorithm == "PLIO_1":
            values = PLIO1(tilesize=count).decode(packed.view(">i2"))
        else:
            _check_hcompress(data, shape)
            values = HCompress1(
                scale=tiles.hcompress_scale, smooth=tiles.hcompress_smooth, bytepix=8, nx=shape[0], ny=shape[1]
            ).decode(packed)
        if values.size < count:
            raise FormatError(
                f"{self.name}: tile {tile.number} has {values.size} pixels and needs {count}; it is damaged."
            )
        return values[:count], False


def _check_hcompress(data: bytes, shape: tuple[int, ...]) -> None:
    """Refuse a stream that is not of the tile's shape, because the codec writes as much as the stream says."""
    magic, ny, nx = struct.unpack_from(">2sii", data)
    if magic != b"\xdd\x99" or sorted((ny, nx)) != sorted(shape):
        raise ValueError(f"stream of {ny} x {nx} pixels for a tile of {shape[0]} x {shape[1]}")


def _as_numbers(plain: bytes, count: int, *, shuffled: bool, as_integers: bool) -> Array:
    """Read decompressed bytes as big-endian numbers, whose width follows from their number."""
    width = len(plain) // count
    if len(plain) != width * count or width not in (1, 2, 4, 8):
        raise ValueError(f"{len(plain)} bytes for {count} pixels")
    raw = np.frombuffer(plain, np.uint8)
    if shuffled:
        raw = np.ascontiguousarray(raw.reshape(width, count).T).ravel()
    if width == 1:
        return raw
    return raw.view(f">{'i' if as_integers or width == 2 else 'f'}{width}")
