"""Cells of the sky: a fixed division, so that a survey is made of mosaics that fit, and each position belongs to one of them.

The sky is cut into rings of equal height in declination, and each ring into cells of equal width in right ascension, as many as
keep them no wider than high. About each pole lies one round cell. A cell is an image in tangent projection, north up, with
margins in which it overlaps its neighbours; the cell that a position belongs to is decided by right ascension and declination
alone, and never by pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.sky_caps import ROUNDING
from lazyccd.frame.sky_footprint import frame_place
from lazyccd.frame.sky_mapping import FrozenWCS, frame_caps
from lazyccd.kernels.block import Array
from lazyccd.ops.mosaic.grid import Frame, degrees_of, make_grid, placed_frames
from lazyccd.ops.mosaic.warp import normalize_shape
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS

LARGEST_CELL = 10.0
"""Degrees of the height of cells up to which the tangent plane stretches pixels by less than a hundredth."""

NAME = re.compile(r"r(\d+)c(\d+)")
"""Names of cells: number of the ring from the south pole, and of the cell from right ascension 0."""

OUTLINE = 64
"""Points along each side of a cell at which its size in pixels is looked at."""


class SkyCell(NamedTuple):
    """A cell of the sky: an image that `lazyccd.coadd` can fill."""

    name: str
    """Ring and number in it, such as ``r090c0012``."""

    ra: tuple[float, float]
    """First right ascension that belongs to it, and the first behind it, in degrees."""

    dec: tuple[float, float]
    """First declination that belongs to it, and the first behind it, in degrees; the north pole belongs to the last ring."""

    wcs: WCS
    """Its WCS, made for the caller."""

    shape: tuple[int, int]
    """Rows and columns, margins included."""


@dataclass(frozen=True)
class SkyCells:
    """A division of the sky into cells; `lazyccd.sky_cells` makes it."""

    scale: float
    """Degrees of a pixel."""

    rings: int
    """Rings of declination between the two cells at the poles."""

    overlap: int
    """Pixels of the margin about what belongs to a cell."""

    @property
    def height(self) -> float:
        """Degrees from the middle of one ring to the next."""
        return 180 / (self.rings + 1)

    @cached_property
    def counts(self) -> Array:
        """Number of cells in each ring, from the south pole, shape ``(rings + 2,)``."""
        middles = -90 + np.arange(self.rings + 2) * self.height
        widest = np.cos(np.deg2rad(np.maximum(np.abs(middles) - self.height / 2, 0)))
        counts: Array = np.ceil(360 * widest / self.height - 1e-9).astype(int)
        counts[[0, -1]] = 1
        return counts

    def __len__(self) -> int:
        """Return the number of cells."""
        return int(self.counts.sum())

    def cell(self, name: str) -> SkyCell:
        """Return the cell of a name.

        Raises
        ------
        ParameterError
            Raised if there is none.
        """
        found = NAME.fullmatch(str(name))
        ring, number = map(int, found.groups()) if found else (-1, -1)
        if not (0 <= ring <= self.rings + 1 and 0 <= number < self.counts[ring]):
            raise ParameterError(
                f"no cell of the sky has the name {name!r}; these cells begin with {self._name(0, 0)!r} and end with "
                f"{self._name(self.rings + 1, 0)!r}. Are they of the same size as those that had it?"
            )
        return self._cell(ring, number)

    def cell_of(self, position: SkyCoord) -> Any:
        """Return the cell that a position belongs to.

        Parameters
        ----------
        position
            A position, in any celestial frame, or several.

        Returns
        -------
        SkyCell or list of SkyCell
            One for each position, in the same order.
        """
        from astropy.coordinates import SkyCoord

        if not isinstance(position, SkyCoord):
            raise ArgumentTypeError(
                f"position is a {type(position).__name__} and must be an astropy.coordinates.SkyCoord, such as "
                "SkyCoord(ra, dec, unit='deg')."
            )
        ra, dec = np.atleast_1d(position.icrs.ra.deg), np.atleast_1d(position.icrs.dec.deg)
        if not (np.isfinite(ra) & np.isfinite(dec)).all():
            raise ParameterError("position is NaN in places, which no cell holds; leave those out.")
        # the same sum as that of the limits of a cell, so that a position on a limit is on one side of it
        rings = np.searchsorted(self._limits, dec, side="right")
        numbers = np.minimum(np.floor(ra * self.counts[rings] / 360).astype(int), self.counts[rings] - 1)
        cells = [self._cell(int(ring), int(number)) for ring, number in zip(rings, numbers, strict=True)]
        return cells[0] if position.isscalar else cells

    def cells_touching(self, frames: Frame | Iterable[Frame]) -> list[SkyCell]:
        """Return the cells on whose image, margins included, some frame may have a pixel; from south to north.

        Parameters
        ----------
        frames
            Frames with celestial WCS, trees of such, or names of files; one or several. No pixel is read.
        """
        touched: set[tuple[int, int]] = set()
        places: dict[tuple[int, int], tuple[FrozenWCS, tuple[int, int]]] = {}
        for wcs, shape, _ in placed_frames(frames):
            for key in self._near(wcs, shape) - touched:
                if key not in places:
                    cell = self._cell(*key)
                    places[key] = FrozenWCS.of(cell.wcs), cell.shape
                if frame_place(wcs, shape, *places[key]).size:
                    touched.add(key)
        return [self._cell(*key) for key in sorted(touched)]

    @cached_property
    def _limits(self) -> Array:
        """Declinations between rings."""
        return np.asarray(-90 + (np.arange(self.rings + 1) + 0.5) * self.height)

    def _near(self, wcs: Any, shape: tuple[int, int]) -> set[tuple[int, int]]:
        """Return ring and number of the cells whose circle touches one of a frame."""
        caps = frame_caps(FrozenWCS.of(wcs), shape)
        declinations = np.arcsin(np.clip(caps.centers[:, 2], -1, 1))
        found: set[tuple[int, int]] = set()
        # ring by ring: all cells of a fine division would not fit into memory
        for ring in range(self.rings + 2):
            dec = np.deg2rad(-90 + ring * self.height)
            reach = np.minimum(self._reach(ring) + caps.radii + ROUNDING, np.pi)
            if (np.abs(declinations - dec) > reach).all():
                continue
            numbers = np.arange(self.counts[ring])
            ra = np.deg2rad((numbers + 0.5) * 360 / self.counts[ring])
            middles = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.full(ra.shape, np.sin(dec))], -1)
            near = (middles @ caps.centers.T >= np.cos(reach)).any(axis=1)
            found |= {(ring, int(number)) for number in numbers[near]}
        return found

    def _reach(self, ring: int) -> float:
        """Return radians from the reference point of a cell to the farthest corner of its image."""
        y0, y1, x0, x1 = self._box(ring)
        corner = math.hypot(max(-y0, y1), max(-x0, x1)) * self.scale
        return math.atan(math.radians(corner))

    def _name(self, ring: int, number: int) -> str:
        """Return the name of a cell."""
        return f"r{ring:0{len(str(self.rings + 1))}d}c{number:0{len(str(self.counts.max() - 1))}d}"

    def _box(self, ring: int) -> Region:
        """Return the pixels of a cell about its reference point, which is pixel (0, 0); half-open."""
        height, width = self.height, 360 / self.counts[ring]
        along = np.linspace(-0.5, 0.5, OUTLINE + 1)
        middle = -90 + ring * height
        if ring in {0, self.rings + 1}:
            side = math.ceil(math.degrees(math.tan(math.radians(height / 2))) / self.scale) + self.overlap
            return Region(-side, side + 1, -side, side + 1)
        # along a circle of declination the parallels bend, and its ends are the widest
        ra = np.deg2rad(np.concatenate([along * width, along * width]))
        dec = np.deg2rad(middle + np.repeat([-height / 2, height / 2], along.size))
        ra = np.concatenate([ra, np.full(along.size, np.deg2rad(width / 2))])
        dec = np.concatenate([dec, np.deg2rad(middle + along * height)])
        d0 = math.radians(middle)
        below = np.sin(d0) * np.sin(dec) + np.cos(d0) * np.cos(dec) * np.cos(ra)
        x = np.rad2deg(np.cos(dec) * np.sin(ra) / below) / self.scale
        y = np.rad2deg((np.cos(d0) * np.sin(dec) - np.sin(d0) * np.cos(dec) * np.cos(ra)) / below) / self.scale
        side = math.ceil(float(x.max())) + self.overlap
        return Region(
            math.floor(float(y.min())) - self.overlap, math.ceil(float(y.max())) + self.overlap + 1, -side, side + 1
        )

    def _cell(self, ring: int, number: int) -> SkyCell:
        """Return a cell."""
        count = int(self.counts[ring])
        box = self._box(ring)
        wcs = make_grid(
            (number + 0.5) * 360 / count % 360 if count > 1 else 0.0, -90 + ring * self.height, self.scale, "TAN"
        )
        wcs.wcs.crpix = [1 - box.x0, 1 - box.y0]
        wcs.wcs.set()
        limits = [-90.0, *self._limits.tolist(), 90.0]
        ra = (number * 360 / count, (number + 1) * 360 / count)
        return SkyCell(
            self._name(ring, number), ra, (limits[ring], limits[ring + 1]), wcs, (box.y1 - box.y0, box.x1 - box.x0)
        )


def sky_cells(pixel_scale: float | u.Quantity, size: float | u.Quantity = 1.0, *, overlap: int = 100) -> SkyCells:
    """Return a fixed division of the sky into cells, each an image that `lazyccd.coadd` can fill.

    Parameters
    ----------
    pixel_scale
        Side of a pixel, a quantity or in degrees.
    size
        Largest height and width of what belongs to a cell, a quantity or in degrees, up to 10.
    overlap
        Pixels of the margin in which the image of a cell overlaps its neighbours, on each side.

    Returns
    -------
    SkyCells
        Its ``cell_of`` is the cell that a position belongs to, exactly one; ``cells_touching`` are the cells for which some frames
        are needed; ``cell`` is that of a name. A ``SkyCell`` has ``name``, ``wcs``, ``shape``, and the limits ``ra`` and ``dec`` of
        what belongs to it, in ICRS. The same arguments give the same cells, everywhere and always.

    Raises
    ------
    ParameterError
        Raised if the scale or the size is no angle, the size is above 10 degrees, the overlap is no whole number from 0 on, or a
        cell would have more pixels than can be meant.

    Notes
    -----
    Rings are ``180 / (n + 1)`` degrees high, with the smallest ``n`` for which that is not above ``size``. The first and the last
    are round cells about the poles of half that radius. Ring ``k`` has its middle at declination ``-90 + k * height``, and as
    many cells as it takes for none to be wider than high where the ring is widest; the first begins at right ascension 0.
    Limits belong to the cell to the north or to the east of them.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> cells = sky_cells(1 / 3600, size=0.5)
    >>> len(cells)
    165902
    >>> cell = cells.cell_of(SkyCoord(83.82, -5.39, unit="deg"))
    >>> cell.name, cell.shape
    ('r169c166', (2003, 2001))
    """
    scale, height = degrees_of("pixel_scale", pixel_scale), degrees_of("size", size)
    if height > LARGEST_CELL:
        raise ParameterError(f"size {size!r} of the cells must not be above {LARGEST_CELL:g} degrees.")
    margin: object = overlap
    if not isinstance(margin, int | np.integer) or overlap < 0:
        raise ParameterError(f"overlap {overlap!r} must be a whole number of pixels, 0 or more.")
    cells = SkyCells(scale, math.ceil(180 / height - 1e-9) - 1, int(overlap))
    normalize_shape(cells.cell(cells._name(cells.rings // 2 + 1, 0)).shape)
    return cells
