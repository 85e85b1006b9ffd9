"""The pixels of a grid on which a frame may lie: an index of thousands of frames is made of it before a pixel is read.

The place is a superset: it may be too large and never misses a pixel. There are two ways to it. A frame whose positions on the
grid are smooth lies in the box of some of them, with a margin from their curvature. Where they are not, at a pole, where the grid
begins anew, or far from a tangent point, frame and grid are both cut into cells, each cell lies in a circle on the sphere, and
the place is that of all cells of the grid whose circle touches one of the frame. No projection has a seam on the sphere.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lazyccd.frame.sky_caps import STEPS, Caps, caps_of, frame_sides, reference_cell
from lazyccd.frame.sky_mapping import (
    ROUGH,
    FrozenWCS,
    bends_and_step,
    image_caps,
    pixel_period,
    rotation_to_icrs,
    sky_of,
    wcs_of_thread,
)
from lazyccd.kernels.block import Array
from lazyccd.sections import Region

GRID_CELLS, SMALLEST_CELL = 64, 16
"""Most cells along each side of a grid, and fewest pixels of one."""

ONE_TO_ONE = ("TAN", "SIN", "ARC", "STG", "ZEA", "CAR", "CEA", "MER", "AIT", "MOL", "SFL")
"""Projections with one place for each direction, if they have no parameters and no distortion."""


class _Grid(NamedTuple):
    """A grid on which frames are placed."""

    caps: Caps
    edges: tuple[Array, Array]
    """First rows and columns of the cells, and the end."""


def frame_place(source: Any, shape: tuple[int, int], target: FrozenWCS, target_shape: tuple[int, int]) -> Region:
    """Return a region of a grid that holds every pixel a frame has data for; of size 0 if there is none.

    Parameters
    ----------
    source
        The celestial WCS of the frame.
    shape
        Rows and columns of the frame.
    target
        What the WCS of the grid is made from. What is known about it is kept for the next frame.
    target_shape
        Rows and columns of the grid.
    """
    sides, y, x = _samples(shape)
    with np.errstate(all="ignore"):
        longitude, latitude = sky_of(source)(y, x)
        size = (len(sides[0]), len(sides[1]))
        place = _smooth_place(source, longitude, latitude, size, target, target_shape)
        if place is not None:
            return place
        to_icrs = rotation_to_icrs(source)
        caps = caps_of(to_icrs.vectors(longitude, latitude).reshape(3, *size), reference_cell(source, sides))
        return _touched(caps, target, target_shape)


@lru_cache(maxsize=64)
def _samples(shape: tuple[int, int]) -> tuple[list[Array], Array, Array]:
    """Return rows and columns at which a frame is looked at, from one before it to one behind, and all positions y, x."""
    sides = frame_sides(shape)
    y, x = np.meshgrid(*sides, indexing="ij")
    return sides, y.ravel(), x.ravel()


def _smooth_place(
    source: Any, longitude: Array, latitude: Array, size: tuple[int, int], target: FrozenWCS, shape: tuple[int, int]
) -> Region | None:
    """Return the box of positions on the grid; None where it could miss something."""
    if not np.isfinite(longitude).all() or target.is_distorted:
        return None
    wcs = wcs_of_thread(target)
    core = wcs.wcs
    if core.ctype[core.lng][-3:] not in ONE_TO_ONE or core.get_pv():
        return None
    here, there = rotation_to_icrs(source), rotation_to_icrs(wcs)
    if here is not there:
        longitude, latitude = there.angles(here.vectors(longitude, latitude))
    world = np.empty((longitude.size, 2))
    world[:, core.lng], world[:, core.lat] = longitude, latitude
    found = wcs.wcs_world2pix(world, 0)
    if not np.isfinite(found).all():
        return None
    periods: list[float | None] = [None, None]
    for axis, every in pixel_period(wcs):
        periods[1 - axis] = every
        found[:, axis] -= np.round((found[:, axis] - found[0, axis]) / every) * every
    ranges = [
        _range(found[:, 1 - k].reshape(size), length, period)
        for k, (length, period) in enumerate(zip(shape, periods, strict=True))
    ]
    rows, columns = ranges
    if rows is None or columns is None:
        return None
    return Region(*rows, *columns) if rows[0] < rows[1] and columns[0] < columns[1] else Region(0, 0, 0, 0)


def _range(found: Array, length: int, period: float | None) -> tuple[int, int] | None:
    """Return the first pixel of an axis and the one behind the last; None for positions that are not smooth."""
    *bends, step = bends_and_step(found)
    if max(bends) > ROUGH * step:
        return None
    inner = found[1:-1, 1:-1]
    # Between samples a function is off the line through them by an eighth of its second difference: twice that, and a pixel.
    margin = sum(bends) / 4 + 1
    low, high = float(inner.min()) - margin, float(inner.max()) + margin
    places = [(low, high)]
    if period is not None:
        copies = range(math.floor((-0.5 - high) / period), math.ceil((length - 0.5 - low) / period) + 1)
        places = [(low + k * period, high + k * period) for k in copies]
    clipped = [(max(math.floor(a + 0.5), 0), min(math.ceil(b + 0.5), length)) for a, b in places]
    some = [place for place in clipped if place[0] < place[1]]
    return (min(a for a, _ in some), max(b for _, b in some)) if some else (0, 0)


def _touched(caps: Caps, target: FrozenWCS, shape: tuple[int, int]) -> Region:
    """Return the box of all cells of a grid that circles touch."""
    grid = _grid(target, shape)
    found = grid.caps.cells[grid.caps.touched_by(caps)]
    if not len(found):
        return Region(0, 0, 0, 0)
    (y0, x0), (y1, x1) = found.min(axis=0), found.max(axis=0) + 1
    rows, columns = grid.edges
    return Region(int(rows[y0]), int(rows[y1]), int(columns[x0]), int(columns[x1]))


@lru_cache(maxsize=64)  # one for each mosaic, or one for each of the sky cells that a survey fills at a time
def _grid(target: FrozenWCS, shape: tuple[int, int]) -> _Grid:
    """Return the cells of a grid."""
    wcs = wcs_of_thread(target)
    numbers = [max(min(n // SMALLEST_CELL, GRID_CELLS), 1) for n in shape]
    sizes = [-(-n // number) for n, number in zip(shape, numbers, strict=True)]
    numbers = [-(-n // size) for n, size in zip(shape, sizes, strict=True)]
    sides = [
        np.arange(-1, number * STEPS + 2) * (size / STEPS) - 0.5 for number, size in zip(numbers, sizes, strict=True)
    ]
    caps = image_caps(wcs, sides)
    edges = [np.minimum(np.arange(number + 1) * size, n) for number, size, n in zip(numbers, sizes, shape, strict=True)]
    return _Grid(caps, (edges[0], edges[1]))
