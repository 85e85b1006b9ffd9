"""Compress images tile by tile (FITS standard, section 10): which tiles, their bytes, and the table that names them.

A tile depends on its own pixels and number only, so any regions made of whole tiles give the same bytes. `pack` compresses
a region into runs of tiles below each other; `table_bytes` makes the table of all tiles once every run is known.

The table has a row per tile in the order of FITS, along rows. Everything else counts tiles down the columns, from the left:
so the tiles of a window are neighbours in the heap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from isal import isal_zlib

from lazyccd.errors import ShapeError
from lazyccd.io.fits.pixels import dither_table
from lazyccd.io.fits.tile_table import DITHERS
from lazyccd.kernels.block import Array
from lazyccd.kernels.fits import decode
from lazyccd.kernels.fits.encode import shuffle_bytes
from lazyccd.sections import Region

COMPRESSIONS = ("RICE_1", "GZIP_2", "HCOMPRESS_1")
WIDEST_ROW = 8192
"""Tiles are whole rows of images up to this width, as other programs make them; parts of rows of wider ones."""

PART = 2048
SQUARE = 512
"""Side of tiles of HCOMPRESS_1 in wide images."""

HCOMPRESS_ROWS = 16
HCOMPRESS_LEAST = 4
"""HCOMPRESS_1 takes tiles of no fewer rows and columns."""

BATCH_BYTES = 1 << 19
"""Rows are compressed and written this many bytes at a time."""

_DEFLATE_LEVEL = 2
"""Of ISA-L, which is four times as fast as zlib at its level 1, and as small. Higher levels gain nothing: noise is noise."""

RECORD = np.dtype([("place", "<i8"), ("length", "<i8"), ("scale", "<f8"), ("zero", "<f8")])
"""Where a tile is in the unfinished file, its bytes, ZSCALE and ZZERO; a scale of 0 if it was not quantised."""


@dataclass(frozen=True)
class Packing:
    """How the pixels of one image are compressed.

    Make it by `Packing.of`.
    """

    algorithm: str
    """ZCMPTYPE."""

    tile: tuple[int, int]
    """Rows and columns of a tile."""

    steps: float = 0.0
    """Steps per standard deviation of the noise of floats; 0 keeps every bit."""

    dither: str = "NO_DITHER"
    """ZQUANTIZ."""

    seed: int = 1
    """ZDITHER0, 1 to 10000."""

    @classmethod
    def of(
        cls, algorithm: str, shape: tuple[int, int], dtype: str, steps: float = 0.0, dither: str = "", seed: int = 1
    ) -> Packing:
        """Choose tiles, and GZIP_2 for floats that are not to be quantised, which is the one that keeps their bits.

        Raises
        ------
        ShapeError
            Raised if the image is too small for HCOMPRESS_1, or too wide for it with quantisation.
        """
        tile = tile_shape(algorithm, shape)
        if np.dtype(dtype).kind != "f":
            return cls(algorithm, tile)
        # RICE_1 and HCOMPRESS_1 know integers only.
        if not steps:
            return cls("GZIP_2", tile)
        if tile[0] > 1 and tile[1] < shape[1]:
            # cfitsio 4.2 puts NaN and all that follows to wrong places in tiles of several rows and a part of the columns.
            raise ShapeError(
                f"an image of {shape[1]} columns cannot be quantised for HCOMPRESS_1: beyond {WIDEST_ROW} its tiles would "
                "be squares, in which cfitsio misplaces NaN; use RICE_1."
            )
        return cls(algorithm, tile, steps, dither, seed)


def tile_shape(algorithm: str, shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the tiles of an image.

    Raises
    ------
    ShapeError
        Raised if the image is too small for HCOMPRESS_1.
    """
    ny, nx = shape
    if algorithm != "HCOMPRESS_1":
        return 1, nx if nx <= WIDEST_ROW else PART
    if min(shape) < HCOMPRESS_LEAST:
        raise ShapeError(
            f"an image of {ny} x {nx} pixels is too small for HCOMPRESS_1, which takes {HCOMPRESS_LEAST} x "
            f"{HCOMPRESS_LEAST} and more; use RICE_1."
        )
    if nx <= WIDEST_ROW:
        return _without_sliver(ny, HCOMPRESS_ROWS), nx
    return _without_sliver(ny, SQUARE), _without_sliver(nx, SQUARE)


def _without_sliver(length: int, tile: int) -> int:
    """Return the length of tiles of which the last is long enough for HCOMPRESS_1 too."""
    while tile < length and 0 < length % tile < HCOMPRESS_LEAST:
        tile += 1
    return min(tile, length)


@dataclass(frozen=True)
class TileGrid:
    """The tiles of an image of some type."""

    packing: Packing
    shape: tuple[int, int]
    dtype: str

    @property
    def down(self) -> int:
        """Tiles in a column."""
        return -(-self.shape[0] // self.packing.tile[0])

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.shape[1] // self.packing.tile[1])

    @property
    def count(self) -> int:
        """Number of tiles, which is that of the rows of the table."""
        return self.down * self.across

    @property
    def room(self) -> int:
        """Bytes that no compressed tile exceeds."""
        from lazyccd.kernels.fits.hcompress import hcompress_bytes
        from lazyccd.kernels.fits.rice import rice_bytes

        pixels = math.prod(self.packing.tile)
        itemsize = np.dtype(self.dtype).itemsize
        if self.packing.algorithm == "HCOMPRESS_1":
            return hcompress_bytes(self.packing.tile, max(itemsize, 4))  # of the 32-bit integers that floats become
        # RICE_1 of 32-bit integers that floats became, or deflate's blocks that cannot be compressed, the larger one.
        return rice_bytes(pixels, 4) + pixels * max(itemsize - 4, 0) + pixels // 64 + 64

    @property
    def descriptor(self) -> str:
        """P for a heap that 31 bits can address, else Q (section 7.3.5)."""
        return "P" if self.room * self.count < 2**31 else "Q"

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """Type of a row of the table."""
        descriptor = (">i4" if self.descriptor == "P" else ">i8", (2,))
        columns: list[Any] = [("COMPRESSED_DATA", *descriptor)]
        if self.packing.steps:
            columns += [("GZIP_COMPRESSED_DATA", *descriptor), ("ZSCALE", ">f8"), ("ZZERO", ">f8")]
        return np.dtype(columns)

    def check_region(self, region: Region) -> None:
        """Refuse a region that cuts tiles.

        Raises
        ------
        ShapeError
            Raised with the tile's shape.
        """
        (ny, nx), (th, tw) = self.shape, self.packing.tile
        cut = region.y0 % th or region.x0 % tw
        cut = cut or (region.y1 % th and region.y1 != ny) or (region.x1 % tw and region.x1 != nx)
        if cut:
            raise ShapeError(f"{region} cuts tiles of {th} x {tw} pixels; write regions of whole tiles.")

    def runs(self, records: Array, first: int) -> Iterator[slice]:
        """Yield the tiles that stand one behind the other in the unfinished file, of the records from tile ``first`` on."""
        starts = np.flatnonzero(records["place"] == (first + np.arange(len(records))) * self.room)
        for start, stop in itertools.pairwise([*starts.tolist(), len(records)]):
            yield slice(start, stop)

    def columns(self, region: Region) -> Iterator[tuple[int, int]]:
        """Yield first and last + 1 of the tiles of a region, column by column."""
        th, tw = self.packing.tile
        for tx in range(region.x0 // tw, -(-region.x1 // tw)):
            yield tx * self.down + region.y0 // th, tx * self.down + -(-region.y1 // th)

    def batches(self, region: Region, pixels: Array) -> Iterator[tuple[int, int, Array]]:
        """Yield tiles below each other: row and column of the first, and pixels of shape ``(tiles, ny, nx)``."""
        th, tw = self.packing.tile
        # Batches stay in the cache between compression and write.
        step = max(BATCH_BYTES // (tw * pixels.itemsize), 1) if th == 1 else th
        for x in range(0, region.shape.x, tw):
            for y in range(0, region.shape.y, step):
                piece = pixels[y : y + step, x : x + tw]
                tiles = piece[:, None] if th == 1 else piece[None]
                yield (region.y0 + y) // th, (region.x0 + x) // tw, np.ascontiguousarray(tiles)


class TileRun(NamedTuple):
    """Compressed tiles that are neighbours in a column."""

    first: int
    """Number of the first tile, counted down the columns."""

    records: Array
    raw: Array
    """Bytes of all tiles, one behind the other."""


def pack(grid: TileGrid, region: Region, pixels: Array) -> Iterator[TileRun]:
    """Compress a region of whole tiles."""
    for ty, tx, tiles in grid.batches(region, pixels):
        records = np.zeros(len(tiles), RECORD)
        if grid.packing.steps:
            numbers = (ty + np.arange(len(tiles))) * grid.across + tx
            raw = _pack_quantized(grid.packing, numbers, tiles, records)
        else:
            raw = _compress(grid.packing.algorithm, tiles, records["length"])
        first = tx * grid.down + ty
        records["place"] = first * grid.room + records["length"].cumsum() - records["length"]
        yield TileRun(first, records, raw)


def _pack_quantized(packing: Packing, numbers: Array, tiles: Array, records: Array) -> Array:
    """Quantise and compress float tiles; those that cannot be quantised keep their bits, as GZIP_1."""
    from lazyccd.kernels.fits.quantize import quantize

    parts: list[Array] = []
    integers = np.empty(tiles.shape[1:], np.int32)
    for i, tile in enumerate(tiles):
        start = (numbers[i] + packing.seed - 1) % decode.DITHER_COUNT
        scale, zero = quantize(tile, integers, float(packing.steps), dither_table(), start, DITHERS[packing.dither])
        if scale:
            parts.append(_compress(packing.algorithm, integers[None], np.empty(1, np.int64)))
        else:
            parts.append(_deflate(tile.astype(tile.dtype.newbyteorder(">"))))
        records[i] = 0, parts[-1].size, scale, zero
    return np.concatenate(parts)


def _compress(algorithm: str, tiles: Array, lengths: Array) -> Array:
    """Compress tiles of one shape one behind the other, and set their lengths."""
    bits = tiles.view(np.dtype(f"u{tiles.itemsize}")).reshape(len(tiles), -1)
    if tiles.dtype.kind == "u" and tiles.itemsize > 1:
        bits = bits ^ bits.dtype.type(1 << (8 * tiles.itemsize - 1))  # stored with BZERO as signed integers
    if algorithm == "RICE_1":
        from lazyccd.kernels.fits.rice import rice_bytes, rice_encode

        out = np.empty(len(bits) * rice_bytes(bits.shape[1], bits.itemsize), np.uint8)
        sizes = np.empty(len(bits), np.int64)
        total = rice_encode(bits, out, sizes)
        lengths[:] = sizes
        return out[:total]
    if algorithm == "HCOMPRESS_1":
        # Pixels of 8 bits are unsigned in FITS, others signed.
        signed = bits if bits.itemsize == 1 else bits.view(np.dtype(f"i{bits.itemsize}"))
        parts = [_hcompress(tile) for tile in signed.reshape(tiles.shape)]
    else:
        shuffled = np.empty(bits[0].nbytes, np.uint8)
        parts = []
        for tile in bits:
            shuffle_bytes(tile, shuffled)
            parts.append(_deflate(shuffled))
    lengths[:] = [part.size for part in parts]
    return np.concatenate(parts)


def _hcompress(tile: Array) -> Array:
    """Compress a tile of signed integers, or of unsigned ones of 8 bits, without loss."""
    from lazyccd.kernels.fits.hcompress import hcompress, hcompress_bytes

    scratch = np.empty(tile.shape, np.int32 if tile.itemsize < 4 else np.int64)
    out = np.empty(hcompress_bytes(tile.shape, tile.itemsize), np.uint8)
    return out[: hcompress(tile, scratch, out)]


def _deflate(raw: Array) -> Array:
    """Compress bytes in the format of gzip, without name and time."""
    return np.frombuffer(isal_zlib.compress(raw.data, _DEFLATE_LEVEL, 31), np.uint8)


def table_bytes(grid: TileGrid, records: Array) -> bytes:
    """Return the table of tiles, whose bytes stand in the heap in the order of ``records``."""
    rows = np.zeros(grid.count, grid.row_dtype)
    lengths = records["length"]
    places = np.stack([lengths, lengths.cumsum() - lengths], axis=1)
    # Records are kept by columns of tiles, the table has rows of them.
    along_rows = np.arange(grid.count).reshape(grid.across, grid.down).T.ravel()
    records, places = records[along_rows], places[along_rows]
    if grid.packing.steps:
        # A tile without noise, or full of NaN, has no step; it keeps its bits in the other column.
        lossless = records["scale"] == 0
        rows["COMPRESSED_DATA"][~lossless] = places[~lossless]
        rows["GZIP_COMPRESSED_DATA"][lossless] = places[lossless]
        rows["ZSCALE"], rows["ZZERO"] = records["scale"], records["zero"]
    else:
        rows["COMPRESSED_DATA"] = places
    return rows.tobytes()


def table_cards(grid: TileGrid, heap: int, longest: int) -> list[tuple[str, Any]]:
    """Return keywords and values of the table, behind BITPIX."""
    dtype = grid.row_dtype
    assert dtype.names is not None
    cards: list[tuple[str, Any]] = [("NAXIS", 2), ("NAXIS1", dtype.itemsize), ("NAXIS2", grid.count)]
    cards += [("PCOUNT", heap), ("GCOUNT", 1), ("TFIELDS", len(dtype.names))]
    for i, name in enumerate(dtype.names, 1):
        form = "1D" if name in ("ZSCALE", "ZZERO") else f"1{grid.descriptor}B({longest})"
        cards += [(f"TTYPE{i}", name), (f"TFORM{i}", form)]
    return cards


def packing_cards(packing: Packing, dtype: str) -> list[tuple[str, Any]]:
    """Return keywords and values that say how the tiles are compressed, but for their shape."""
    from lazyccd.kernels.fits.quantize import BLANK
    from lazyccd.kernels.fits.rice import BLOCK

    kind = np.dtype(dtype)
    cards: list[tuple[str, Any]] = [("ZCMPTYPE", packing.algorithm)]
    settings: list[tuple[str, Any]] = []
    if packing.algorithm == "RICE_1":
        # Quantised floats are 32-bit integers, whatever BITPIX the image has.
        settings += [("BLOCKSIZE", BLOCK), ("BYTEPIX", 4 if packing.steps else kind.itemsize)]
    if packing.algorithm == "HCOMPRESS_1":
        settings += [("SCALE", 0), ("SMOOTH", 0)]
    if packing.steps:
        settings.append(("NOISEBIT", float(packing.steps)))
    for i, (name, value) in enumerate(settings, 1):
        cards += [(f"ZNAME{i}", name), (f"ZVAL{i}", value)]
    if packing.steps:
        cards += [("ZQUANTIZ", packing.dither), ("ZBLANK", BLANK)]
        cards += [] if packing.dither == "NO_DITHER" else [("ZDITHER0", packing.seed)]
    elif kind.kind == "f":
        # Says that the floats are exact; the default is that they are quantised (section 10.2).
        cards.append(("ZQUANTIZ", "NONE"))
    return cards
