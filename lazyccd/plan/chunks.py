"""Chunk policy: which chunks a frame gets, in which regions it is written, and how a task cuts its region further.

Every size that decides how an image is cut stands here, from the chunk that dask sees down to the strip that stays in cache:

1. a *chunk* is the work of one task, about 2048 x 2048 pixels, aligned to how the storage is cut;
2. a *band* is what a task holds of a chunk at a time, if the memory limit or a stack of many frames asks for it;
3. a *strip* is a few rows that a task takes through all local steps while they are in cache.

None of these changes a pixel. What does, the tiles of a reduction, has its lattice at pixel (0, 0) of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.sections import Region

Grid: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
"""Chunk sizes along y and x, as dask has them."""

CHUNK_SIDE = 2048
"""Side of a chunk where nothing else decides.

LA Cosmic has a halo of 41 pixels, and (1 + 2 * 41 / 2048)^2 is 8 % more pixels; at 512 pixels it would be 35 %.
"""

CHUNK_PIXELS = CHUNK_SIDE**2
"""Pixels of a chunk of another shape."""

INNER_CHUNK = 512
"""Side of a chunk inside of a shard, and of a square tile: what is decoded at least for any window."""

REDUCTION_TILE = (512, 512)
"""Tiles whose partial results are added up in a fixed order. Another size gives other last bits of means."""

WIDEST_BAND = 8192
"""Images up to this width are cut into bands of whole rows, which lie one behind the other in a file.

Wider ones would get bands of few rows, of which a halo is a large part.
"""

SMALLER_SIDES = (2048, 1024, 512, 256)
"""Sides of the regions that are tried where the memory limit is too low for the usual ones: inner chunks of shards divide them."""

LARGEST_SHARD = 4096
"""Longest side of a chunk that becomes one shard of a store, since a shard is the unit of writing and resuming."""

STACK_CHUNK_PIXELS = 2**20
"""Pixels of a chunk of a stack: many frames are read for each."""

STACK_BYTES = 32 * 2**20
"""Bytes that the bands of all frames take in a task if that is enough; they stay in a core's share of the caches."""

LARGEST_STACK_BYTES = 256 * 2**20
"""Bytes that they may take where rows are long, or bands must be high for the sake of halos."""

MOSAIC_BYTES = 128 * 2**20
"""Bytes that the warped frames of a chunk of a mosaic take, where they lie on one another most deeply."""

LEAST_MOSAIC_CHUNK = 256
"""Side of a chunk of a mosaic at least: in smaller ones, margins for the kernel would be a large part of what is read."""

BANDS_PER_HALO = 8
"""A stack over inputs with a halo of h rows is read in bands of at least so many times h: a quarter more is computed."""

KEPT_BYTES = 48 * 2**20
"""Decoded rows that a task keeps for its next strips: a chunk of 2048 x 2048 pixels of two float32 planes and a mask fits."""

STRIP_PIXELS = 2**17
"""Pixels of a strip: a few planes of this size stay in a core's share of the cache."""

GROUP_WIDTH = 8192
"""How wide the tiles are that one task of a reduction pulls, if the image is: rows of a file are read once."""


def regular_grid(shape: tuple[int, int], chunk: tuple[int, int]) -> Grid:
    """Return the chunk sizes of an image cut into chunks of one shape, the last ones smaller."""

    def cut(length: int, size: int) -> tuple[int, ...]:
        size = max(1, min(size, length))
        return (size,) * (length // size) + ((length % size,) if length % size else ())

    return cut(shape[0], chunk[0]), cut(shape[1], chunk[1])


def default_grid(shape: tuple[int, int]) -> Grid:
    """Return the chunk sizes of an image that has no storage of its own to be aligned to."""
    return regular_grid(shape, (CHUNK_SIDE, CHUNK_SIDE))


def stack_grid(shape: tuple[int, int]) -> Grid:
    """Return the chunk sizes of a stack: bands of whole rows, so that each row of each file is read by one task."""
    return regular_grid(shape, (max(1, STACK_CHUNK_PIXELS // shape[1]), shape[1]))


def mosaic_grid(shape: tuple[int, int], places: Sequence[Region], pixel_bytes: int) -> Grid:
    """Return the chunk sizes of a mosaic: squares, in which the frames that lie on one another most deeply fit into a band.

    Parameters
    ----------
    shape
        Rows and columns of the mosaic.
    places
        Where its frames lie.
    pixel_bytes
        Bytes of a pixel of a frame.
    """
    # what lies under a low band of a turned image is nearly as large as what lies under a square
    pixels = MOSAIC_BYTES // (max(1, deepest(shape, places)) * pixel_bytes)
    side = min(CHUNK_SIDE, max(LEAST_MOSAIC_CHUNK, math.isqrt(pixels) // 64 * 64))
    return regular_grid(shape, (side, side))


def deepest(shape: tuple[int, int], places: Sequence[Region]) -> int:
    """Return how many of some regions lie on one another at most, to a cell of a thousandth of the image.

    Examples
    --------
    >>> deepest((900, 900), [Region(0, 600, 0, 600), Region(300, 900, 300, 900), Region(700, 900, 0, 200)])
    2
    """
    size = max(1, -(-max(shape) // 1024))
    rows, columns = (-(-length // size) + 1 for length in shape)
    # each region adds at its corners, and sums along both axes fill it
    corners = np.zeros((rows, columns), np.int64)
    for place in places:
        y0, y1, x0, x1 = place.y0 // size, -(-place.y1 // size), place.x0 // size, -(-place.x1 // size)
        np.add.at(corners, ([y0, y0, y1, y1], [x0, x1, x0, x1]), (1, -1, -1, 1))
    return int(corners.cumsum(axis=0).cumsum(axis=1).max())


def asked_grid(shape: tuple[int, int], chunks: int | tuple[int, int]) -> Grid:
    """Return the chunk sizes of an image that was asked for in chunks of a shape.

    Raises
    ------
    ParameterError
        Raised if ``chunks`` is not one or two integers, each -1 or at least 1.
    """
    given: Any = chunks
    pair = (given, given) if isinstance(given, Integral) else given
    whole = isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(size, Integral) for size in pair)
    if not whole or any(size != -1 and size < 1 for size in pair):
        raise ParameterError(
            f"chunks {chunks!r} must be one or two integers in the order y, x, each at least 1, or -1 for the whole axis."
        )
    y, x = (length if size == -1 else int(size) for size, length in zip(pair, shape, strict=True))
    return regular_grid(shape, (y, x))


def storage_chunk(shape: tuple[int, int], tile: tuple[int, int], *, is_packed: bool) -> tuple[int, int]:
    """Return the shape of the chunks of an image in a file: whole tiles, in bands of whole rows unless these are long.

    Parameters
    ----------
    shape
        Rows and columns of the image.
    tile
        Rows and columns that are decoded together; (1, 1) where any pixel is read alone.
    is_packed
        Whether the whole file is compressed, so that each chunk would unpack all of it again.

    Examples
    --------
    >>> storage_chunk((4096, 4096), (1, 1), is_packed=False), storage_chunk((20000, 20000), (100, 100), is_packed=False)
    ((1024, 4096), (2000, 2000))
    """
    if is_packed:
        return shape
    (ny, nx), (th, tw) = shape, tile
    if nx <= WIDEST_BAND or tw == nx:
        return min(band_height(nx, CHUNK_PIXELS, th), ny), nx
    return min(max(CHUNK_SIDE // th, 1) * th, ny), min(max(CHUNK_SIDE // tw, 1) * tw, nx)


def band_height(columns: int, pixels: int, multiple: int = 1) -> int:
    """Return how many whole rows about so many pixels are: a multiple of the rows of a tile."""
    return max(pixels // columns // multiple, 1) * multiple


def bands_of(shape: tuple[int, int], rows: int) -> list[Region]:
    """Return the bands of so many whole rows into which an image is cut."""
    return [Region(y0, min(y0 + rows, shape[0]), 0, shape[1]) for y0 in range(0, shape[0], rows)]


def usual_shards(grid: Grid) -> tuple[int, int]:
    """Return the shape of the shards of a frame in chunks: that of its chunks, unless these are too long for one shard."""
    ny, nx = (max(sizes) if max(sizes) <= LARGEST_SHARD else CHUNK_SIDE for sizes in grid)
    return ny, nx


def smaller_shapes(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield a shape, and smaller ones within it, which are more and more square.

    Examples
    --------
    >>> list(smaller_shapes((700, 3000)))
    [(700, 3000), (700, 2048), (700, 1024), (512, 512), (256, 256)]
    """
    yield shape
    for side in SMALLER_SIDES:
        if side < max(shape):
            yield min(side, shape[0]), min(side, shape[1])


def shard_grid(
    shape: tuple[int, int], shard: tuple[int, int] = (CHUNK_SIDE, CHUNK_SIDE)
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of shards and inner chunks for an image.

    Parameters
    ----------
    shape
        Shape ``(ny, nx)`` of the image.
    shard
        Wanted shape; axes shorter than it get a shard that is just large enough.

    Returns
    -------
    tuple
        The shard and the inner chunk. An axis longer than the shard has chunks of 512 pixels, or of the largest divisor of
        the shard below it (the shard itself if that divisor is small); one shard that holds a whole axis has chunks of
        equal length up to 512, a multiple of 8.

    Raises
    ------
    ParameterError
        Raised if the wanted shape is not two numbers from 1 on.

    Examples
    --------
    >>> shard_grid((4096, 7))
    ((2048, 7), (512, 7))
    >>> shard_grid((9000, 600), (1000, 1000))
    ((1000, 608), (500, 304))
    """
    given: Any = shard
    whole = isinstance(given, Sequence) and len(given) == 2 and all(isinstance(length, Integral) for length in given)
    if not whole or min(given) < 1:
        raise ParameterError(f"shards {shard!r} must be two integers, rows and columns, each at least 1.")
    pairs = [_shard_axis(length, wanted) for length, wanted in zip(shape, shard, strict=True)]
    return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])


def _shard_axis(length: int, wanted: int) -> tuple[int, int]:
    """Return the length of shard and inner chunk along one axis."""
    if length <= min(wanted, INNER_CHUNK):
        return length, length
    if wanted >= length:
        # Blosc shuffles no bits of a chunk whose number of pixels 8 does not divide: it would not get smaller at all
        count = -(-length // INNER_CHUNK)
        chunk = -(-length // (8 * count)) * 8
        return count * chunk, chunk
    chunk = next(c for c in range(min(wanted, INNER_CHUNK), 0, -1) if wanted % c == 0)
    if 4 * chunk < min(wanted, INNER_CHUNK):
        return wanted, wanted
    return min(wanted, -(-length // chunk) * chunk), chunk


def cut_sizes(sizes: tuple[int, ...], offset: int, step: int, length: int) -> tuple[int, ...]:
    """Return the chunk sizes of the pixels ``offset + step * i`` of a chunked axis."""
    if len(sizes) == 1:
        return (length,)
    ends = np.cumsum(sizes)
    number = np.searchsorted(ends, offset + step * np.arange(length), side="right")
    starts = np.flatnonzero(np.diff(number)) + 1
    return tuple(int(n) for n in np.diff(np.concatenate(([0], starts, [length]))))


def grid_boxes(grid: Grid) -> list[Region]:
    """Return the regions of all chunks of an image."""
    return [box for _, box in chunk_boxes(grid, Region.full((sum(grid[0]), sum(grid[1]))))]


def cuts_of(grid: Grid, tile: tuple[int, int] = (1, 1)) -> Iterator[list[Region]]:
    """Yield the regions of the chunks of an image, in whole tiles, and those of smaller and smaller ones."""
    shape, largest = (sum(grid[0]), sum(grid[1])), (max(grid[0]), max(grid[1]))
    for wanted in smaller_shapes(largest):
        y, x = (-(-length // size) * size for length, size in zip(wanted, tile, strict=True))
        is_own = wanted == largest and tile == (1, 1)
        yield grid_boxes(grid if is_own else regular_grid(shape, (y, x)))


def chunk_boxes(grid: Grid, region: Region) -> list[tuple[tuple[int, int], Region]]:
    """Return position and region of every chunk that touches a region."""
    rows = _axis_boxes(grid[0], region.y0, region.y1)
    columns = _axis_boxes(grid[1], region.x0, region.x1)
    return [((i, j), Region(y0, y1, x0, x1)) for i, y0, y1 in rows for j, x0, x1 in columns]


def _axis_boxes(sizes: tuple[int, ...], first: int, stop: int) -> list[tuple[int, int, int]]:
    """Return number, start and stop of the chunks along one axis that touch a range."""
    ends = np.cumsum(sizes)
    low = int(np.searchsorted(ends, first, side="right"))
    high = int(np.searchsorted(ends, stop, side="left"))
    return [(i, int(ends[i]) - sizes[i], int(ends[i])) for i in range(low, min(high + 1, len(sizes)))]


def tile_groups(
    region: Region, tile: tuple[int, int] | None, pixels: int = CHUNK_PIXELS
) -> Iterator[list[tuple[int, Region]]]:
    """Yield groups of numbered tiles of a lattice anchored at pixel (0, 0), about so many pixels each, a task each."""
    if tile is None:
        yield [(0, region)]
        return
    rows = _lattice(region.y0, region.y1, tile[0])
    columns = _lattice(region.x0, region.x1, tile[1])
    # a reduction of scalars alone has no tiles
    wide = max(1, min(len(columns), GROUP_WIDTH // tile[1], pixels // (tile[0] * tile[1])))
    high = max(1, pixels // (tile[0] * tile[1] * wide))
    for i in range(0, len(rows), high):
        for j in range(0, len(columns), wide):
            yield [
                (r * len(columns) + c, Region(*rows[r], *columns[c]))
                for r in range(i, min(i + high, len(rows)))
                for c in range(j, min(j + wide, len(columns)))
            ]


def _lattice(first: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges into which multiples of ``size`` cut a range."""
    return [(max(k * size, first), min((k + 1) * size, stop)) for k in range(first // size, -(-stop // size))]
