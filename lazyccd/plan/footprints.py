"""Footprints: which region of an input a step needs for a region of its output, and which planes for which plane.

Each kind of footprint is a frozen dataclass with `region(out, shape)`. Nothing else in a plan knows what an operation does
to coordinates: schedule, evaluation, cost and `explain` all ask the footprint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias

import numpy as np
from dask.tokenize import tokenize

from lazyccd.kernels.block import ALL_PLANES, PLANES
from lazyccd.kernels.resample.lattice import Coordinates, position, source_region
from lazyccd.kernels.resample.weights import AREA
from lazyccd.sections import Region


class Footprint(ABC):
    """A rule from output regions to input regions."""

    local: ClassVar[bool]
    """Whether neighbouring output rows need disjoint input rows: such a step is evaluated strip by strip at no extra cost."""

    can_end: ClassVar[bool] = False
    """Whether the input may end inside of the output, so that other rows need other inputs."""

    # no field of the base class: tokens and archives list the fields of a footprint, and most have no margin
    halo: tuple[int, int] = (0, 0)
    """Margin in pixels along y and x about the region that is asked for."""

    @abstractmethod
    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the region needed of an input of ``shape``."""

    def pixel(self, y: int, x: int, shape: tuple[int, int]) -> tuple[int, int] | None:
        """Return the input pixel that an output pixel shows, the first of several; None if it shows none."""
        first = self.region(Region(y, y + 1, x, x + 1), shape)
        return _inside(first.y0, first.x0, shape) if first.size else None

    def splits(self, out: Region, shape: tuple[int, int]) -> bool:
        """Return whether some rows of a region need the input and others do not."""
        return False


class Neighbourhood(Footprint):
    """Base of the rules by which an output pixel is made from the input pixel at its own place and others about it."""

    local: ClassVar[bool] = False

    def pixel(self, y: int, x: int, shape: tuple[int, int]) -> tuple[int, int] | None:
        """Return the pixel in the middle of the neighbourhood."""
        return _inside(y, x, shape)


def _inside(y: int, x: int, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return a pixel if an image has it."""
    return (y, x) if 0 <= y < shape[0] and 0 <= x < shape[1] else None


def words_of(footprint: Footprint) -> tuple[str, tuple[tuple[str, object], ...]]:
    """Return what tells a rule from others; dask would pickle its class to find that out."""
    return type(footprint).__name__, tuple(vars(footprint).items())


@dataclass(frozen=True)
class Same(Footprint):
    """The same region: pointwise arithmetic. An input with one row or one column is broadcast along that axis."""

    local: ClassVar[bool] = True

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return ``out``, or the one row or column that is broadcast."""
        # levels of rows are an image of one column, those of columns one of one row: they are never blown up to a whole one
        rows = (0, 1) if shape[0] == 1 else (out.y0, out.y1)
        columns = (0, 1) if shape[1] == 1 else (out.x0, out.x1)
        return Region(*rows, *columns)


@dataclass(frozen=True)
class Window(Footprint):
    """Output pixel ``i`` is input pixel ``offset + step * i``, per axis: trim, flip, decimation."""

    local: ClassVar[bool] = True

    offset: tuple[int, int]
    """Input row and column of output pixel (0, 0)."""

    step: tuple[int, int] = (1, 1)
    """Step along y and x; negative for a flip."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the span from the first to the last input pixel needed."""
        y0, y1 = _span(out.y0, out.y1, self.offset[0], self.step[0])
        x0, x1 = _span(out.x0, out.x1, self.offset[1], self.step[1])
        return Region(y0, y1, x0, x1)


def _span(first: int, stop: int, offset: int, step: int) -> tuple[int, int]:
    """Return the half-open input range of a non-empty output range."""
    ends = (offset + step * first, offset + step * (stop - 1))
    return min(ends), max(ends) + 1


@dataclass(frozen=True)
class Halo(Neighbourhood):
    """The region grown by a margin and clipped at the true edge: neighbourhood operations."""

    halo: tuple[int, int] = field()  # without a field it would have the default of the base class
    """Margin in pixels along y and x."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the grown region inside of the image."""
        return out.grow(*self.halo).clip(shape)


@dataclass(frozen=True)
class Lattice(Neighbourhood):
    """All boxes of a lattice from pixel (0, 0) that the region touches, and a margin about them: statistics of boxes."""

    size: tuple[int, int]
    """Rows and columns of a box."""

    halo: tuple[int, int] = (0, 0)
    """Margin in pixels along y and x, about the region before boxes are completed and about these."""

    whole: bool = False
    """Whether pixels of the last box may belong to the one before: IRAF's tasks."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the boxes and their margin inside of the image."""
        boxes = out.grow(*self.halo).clip(shape).complete(self.size)
        # IRAF gives what is left at the edge to the last whole box, so pixels there need that box too
        if self.whole:
            (y0, y1, x0, x1), (ny, nx) = boxes, self.size
            last = (max((shape[0] - 1) // ny - 1, 0) * ny, max((shape[1] - 1) // nx - 1, 0) * nx)
            boxes = Region(min(y0, last[0]), y1, min(x0, last[1]), x1)
        return boxes.grow(*self.halo).clip(shape)


@dataclass(frozen=True)
class Lines(Neighbourhood):
    """All columns of the same rows, and a margin: statistics of whole lines."""

    local: ClassVar[bool] = True

    halo: tuple[int, int] = (0, 0)
    """Margin in pixels along y and x; that along x changes nothing."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the rows and their margin inside of the image."""
        return Region(out.y0 - self.halo[0], out.y1 + self.halo[0], 0, shape[1]).clip(shape)


@dataclass(frozen=True)
class Shifted(Footprint):
    """The same pixels of an input that lies elsewhere and may end inside of the output: frames with offsets."""

    local: ClassVar[bool] = True
    can_end: ClassVar[bool] = True

    offset: tuple[int, int]
    """Row and column of the output where the input's pixel (0, 0) lies."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the part of the input under the region, which may be empty."""
        return out.shift(-self.offset[0], -self.offset[1]).clip(shape)

    def splits(self, out: Region, shape: tuple[int, int]) -> bool:
        """Return whether some rows of a region need the input and others do not."""
        return _splits(out, Region.full(shape).shift(*self.offset))


def _splits(out: Region, place: Region) -> bool:
    """Return whether a place has some rows of a region and not all."""
    common = out.intersect(place)
    return common.size > 0 and common[:2] != out[:2]


@dataclass(frozen=True)
class Placed(Footprint):
    """A part of an input, flipped or not, that lies at a place of the output: amplifiers of a detector."""

    local: ClassVar[bool] = True
    can_end: ClassVar[bool] = True

    place: Region
    """Where the part lies in the output."""

    source: Region
    """The part of the input, of the same shape."""

    step: tuple[int, int] = (1, 1)
    """1, or -1 for an axis that is flipped."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the pixels of the input under the region, which may be none."""
        part = out.intersect(self.place)
        if not part.size:
            return Region(0, 0, 0, 0)
        y0, y1 = self._axis(part.y0, part.y1, 0)
        x0, x1 = self._axis(part.x0, part.x1, 1)
        return Region(y0, y1, x0, x1)

    def splits(self, out: Region, shape: tuple[int, int]) -> bool:
        """Return whether some rows of a region need the input and others do not."""
        return _splits(out, self.place)

    def _axis(self, first: int, stop: int, axis: int) -> tuple[int, int]:
        """Return the range of the input that lies at a range of the output."""
        (low, high), begin = self.place[2 * axis : 2 * axis + 2], self.source[2 * axis]
        if self.step[axis] > 0:
            return begin + first - low, begin + stop - low
        return begin + high - stop, begin + high - first


@dataclass(frozen=True)
class Rows(Footprint):
    """Fixed columns of the same rows: an overscan strip beside the data."""

    local: ClassVar[bool] = True

    x0: int
    """First column."""

    x1: int
    """Column after the last."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the strip's part in the rows of ``out``."""
        return Region(out.y0, out.y1, self.x0, self.x1).clip(shape)

    def pixel(self, y: int, x: int, shape: tuple[int, int]) -> None:
        """Return nothing: a pixel of the data shows none of the strip."""


@dataclass(frozen=True)
class Columns(Footprint):
    """Fixed rows of the same columns: an overscan strip above or below the data."""

    local: ClassVar[bool] = False

    y0: int
    """First row."""

    y1: int
    """Row after the last."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the strip's part in the columns of ``out``."""
        return Region(self.y0, self.y1, out.x0, out.x1).clip(shape)

    def pixel(self, y: int, x: int, shape: tuple[int, int]) -> None:
        """Return nothing: a pixel of the data shows none of the strip."""


@dataclass(frozen=True)
class Blocks(Footprint):
    """Output pixel ``i`` is made of the input's pixels ``size * i ... size * (i + 1) - 1``, those that there are: block_reduce."""

    local: ClassVar[bool] = True

    size: tuple[int, int]
    """Rows and columns of a block."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the blocks under the region."""
        by, bx = self.size
        ny, nx = shape
        return Region(out.y0 * by, min(out.y1 * by, ny), out.x0 * bx, min(out.x1 * bx, nx))


@dataclass(frozen=True)
class Replicated(Footprint):
    """Each input pixel becomes a block of output pixels: block_replicate."""

    local: ClassVar[bool] = False

    size: tuple[int, int]
    """Rows and columns of a block."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the input pixels whose blocks touch the region."""
        by, bx = self.size
        return Region(out.y0 // by, -(-out.y1 // by), out.x0 // bx, -(-out.x1 // bx))


@dataclass(frozen=True)
class Warped(Footprint):
    """What lies under a region on the sky: images that are resampled."""

    local: ClassVar[bool] = False

    coordinates: Coordinates
    """Where the pixels of the output lie in the input; where their corners lie for the exact area."""

    kernel: str
    """Name of the interpolation kernel, which tells how far it reaches."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the pixels of the input under the region, with those that the kernel reaches; there may be none."""
        return source_region(self.coordinates, out, shape, self.kernel)

    def pixel(self, y: int, x: int, shape: tuple[int, int]) -> tuple[int, int] | None:
        """Return the pixel in which the middle of an output pixel lies."""
        found = position(self.coordinates, y, x)
        last = position(self.coordinates, y + 1, x + 1) if self.kernel == AREA and found is not None else None
        if found is not None and last is not None:
            from lazyccd.kernels.resample.area import LARGEST

            # where the sky comes again, corners lie at both ends of the image
            if max(abs(np.subtract(found, last))) < LARGEST:
                found = (found[0] + last[0]) / 2, (found[1] + last[1]) / 2
        return None if found is None else _inside(math.floor(found[0] + 0.5), math.floor(found[1] + 0.5), shape)


@dataclass(frozen=True)
class Whole(Neighbourhood):
    """The whole image, whatever is asked for: user callables that declare no halo."""

    def region(self, out: Region, shape: tuple[int, int]) -> Region:
        """Return the whole image."""
        return Region.full(shape)


PlaneMap: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""For each output plane, the planes of an input that are used to make it."""

POINTWISE: PlaneMap = tuple((name, (name,)) for name in ALL_PLANES)
"""Each plane from the same plane: additions, windows."""

WITH_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data", "variance")), ("mask", ("mask",)))
"""The variance needs the data too: products."""

MASK_WITH_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data", "variance")), ("mask", ("data", "mask")))
"""As products; the mask needs the data, to know where the result is not finite or beyond a limit: quotients, rejections."""

EVERYTHING: PlaneMap = tuple((name, PLANES) for name in PLANES)
"""Each plane from all planes: detections, filters that skip bad pixels."""


@lru_cache(maxsize=256)
def token_of_words(words: tuple[tuple[str, Any], ...]) -> str:
    """Return the token of names of planes with what belongs to each: there are few, and each step has some."""
    return str(tokenize(words))
