"""Regions of pixels, and sections as FITS and IRAF write them.

Regions are half-open boxes in 0-based pixels, in the order y, x. Sections such as ``[2049:2080,1:4096]`` are 1-based,
inclusive, and in the order x, y.
"""

from __future__ import annotations

from typing import NamedTuple

from lazyccd.errors import SectionError


class YX(NamedTuple):
    """A pair of numbers in the order y, x."""

    y: int
    x: int


class Region(NamedTuple):
    """A half-open box of pixels: rows ``y0 <= y < y1`` and columns ``x0 <= x < x1``.

    Examples
    --------
    >>> Region(0, 10, 0, 20).grow(2, 3).clip((10, 22))
    Region(y0=0, y1=10, x0=0, x1=22)
    """

    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def full(cls, shape: tuple[int, int]) -> Region:
        """Return the region that covers an image of ``shape``."""
        return cls(0, shape[0], 0, shape[1])

    @property
    def shape(self) -> YX:
        """Rows and columns."""
        return YX(self.y1 - self.y0, self.x1 - self.x0)

    @property
    def size(self) -> int:
        """Number of pixels; 0 for an empty region."""
        return max(self.y1 - self.y0, 0) * max(self.x1 - self.x0, 0)

    def union(self, other: Region | None) -> Region:
        """Return the smallest region that covers both."""
        if other is None or other.size == 0:
            return self
        if self.size == 0:
            return other
        return Region(min(self.y0, other.y0), max(self.y1, other.y1), min(self.x0, other.x0), max(self.x1, other.x1))

    def intersect(self, other: Region) -> Region:
        """Return the common part, of zero size where there is none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Region(y0, max(min(self.y1, other.y1), y0), x0, max(min(self.x1, other.x1), x0))

    def contains(self, other: Region) -> bool:
        """Return whether every pixel of ``other`` lies inside."""
        return self.y0 <= other.y0 and self.y1 >= other.y1 and self.x0 <= other.x0 and self.x1 >= other.x1

    def grow(self, dy: int, dx: int) -> Region:
        """Return the region with a margin on all four sides."""
        return Region(self.y0 - dy, self.y1 + dy, self.x0 - dx, self.x1 + dx)

    def clip(self, shape: tuple[int, int]) -> Region:
        """Return the part inside an image of ``shape``."""
        return self.intersect(Region.full(shape))

    def complete(self, size: tuple[int, int]) -> Region:
        """Return the boxes of a lattice from pixel (0, 0) that the region touches."""
        (ny, nx), (y0, y1, x0, x1) = size, self
        return Region(y0 // ny * ny, -(-y1 // ny) * ny, x0 // nx * nx, -(-x1 // nx) * nx)

    def shift(self, dy: int, dx: int) -> Region:
        """Return the region moved by ``dy`` rows and ``dx`` columns."""
        return Region(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def within(self, outer: Region) -> tuple[slice, slice]:
        """Return the slices that cut this region out of an array that holds ``outer``."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )

    @property
    def slices(self) -> tuple[slice, slice]:
        """The slices that cut this region out of the whole image."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def to_fits(self) -> str:
        """Return the region as a FITS section.

        Examples
        --------
        >>> Region(0, 100, 200, 232).to_fits()
        '[201:232,1:100]'
        """
        return f"[{self.x0 + 1}:{self.x1},{self.y0 + 1}:{self.y1}]"


class Section(NamedTuple):
    """A section of an image: its region and the step along each axis (negative where it is read backwards)."""

    region: Region
    step: YX = YX(1, 1)

    @property
    def first(self) -> tuple[int, int]:
        """Row and column of the pixel that is read first: the last one of an axis that is read backwards.

        Examples
        --------
        >>> Section(Region(0, 100, 200, 232), YX(-1, 1)).first
        (99, 200)
        """
        y0, y1, x0, x1 = self.region
        return (y0 if self.step.y > 0 else y1 - 1, x0 if self.step.x > 0 else x1 - 1)

    def to_fits(self) -> str:
        """Return the section as FITS writes it, without steps.

        Examples
        --------
        >>> Section(Region(0, 100, 200, 232), YX(-1, 1)).to_fits()
        '[201:232,100:1]'
        """
        y0, y1, x0, x1 = self.region
        y = f"{y0 + 1}:{y1}" if self.step.y > 0 else f"{y1}:{y0 + 1}"
        x = f"{x0 + 1}:{x1}" if self.step.x > 0 else f"{x1}:{x0 + 1}"
        return f"[{x},{y}]"


def parse_section(text: str, shape: tuple[int, int]) -> Section:
    """Read a FITS or IRAF section.

    Parameters
    ----------
    text
        Such as ``[1:2048,1:4096]``, ``[*,5]``, ``[-*,*:2]``, ``[11:,:60]``: 1-based, inclusive, x before y; spaces are
        ignored. A first index larger than the second, or ``-*``, reads the axis backwards; an end that is left out is that of
        the image. ``:`` and ``*`` alone are the whole image.
    shape
        Shape ``(ny, nx)`` of the image that the section is about.

    Returns
    -------
    Section
        The region, 0-based and half-open, and the step along y and x.

    Raises
    ------
    SectionError
        Raised if the text is not a section or any part of it lies outside of the image.

    Examples
    --------
    >>> parse_section("[201:232,1:100]", (100, 232))
    Section(region=Region(y0=0, y1=100, x0=200, x1=232), step=YX(y=1, x=1))
    >>> parse_section("[5,*]", (100, 232)).region, parse_section("[11:,:60]", (100, 232)).region
    (Region(y0=0, y1=100, x0=4, x1=5), Region(y0=0, y1=60, x0=10, x1=232))
    """
    compact = text.replace(" ", "")
    if compact in {":", "*", "[:]", "[*]"}:
        return Section(Region.full(shape))
    if not (compact.startswith("[") and compact.endswith("]")):
        raise SectionError(f"section {text!r} must stand in square brackets; write it as '[x1:x2,y1:y2]'.")
    parts = compact[1:-1].split(",")
    if len(parts) != 2:
        raise SectionError(f"section {text!r} has {len(parts)} axes and the image has 2; write '[x1:x2,y1:y2]'.")
    x0, x1, xstep = _parse_axis(parts[0], shape[1], text, "x")
    y0, y1, ystep = _parse_axis(parts[1], shape[0], text, "y")
    return Section(Region(y0, y1, x0, x1), YX(ystep, xstep))


def _parse_axis(part: str, length: int, text: str, axis: str) -> tuple[int, int, int]:
    """Return start, stop (0-based, half-open) and step of one axis of a section."""
    fields = part.split(":")
    backwards = fields[0] == "-*"
    is_behind = False
    try:
        if fields[0] in {"*", "-*"}:
            first, last = 1, length
            step = int(fields[1]) if len(fields) > 1 else 1
        else:
            first = int(fields[0]) if fields[0] or len(fields) == 1 else 1
            last = first if len(fields) == 1 else int(fields[1] or length)
            step = int(fields[2]) if len(fields) > 2 else 1
            # only a section that names both ends can be one that is read backwards
            backwards = first > last and "" not in fields[:2]
            is_behind = first > last and not backwards
            first, last = min(first, last), max(first, last)
    except ValueError:
        step = 0
    if len(fields) > 3 or step < 1:
        raise SectionError(
            f"section {text!r}: {part!r} is not an {axis} range; write 'first:last', 'first:last:step', 'first:', ':last', one index or '*'."
        )
    if is_behind:
        raise SectionError(
            f"section {text!r}: {part!r} must begin and end inside of the image's {axis} = 1..{length}; "
            "correct the section or the keyword it came from."
        )
    if first < 1:
        raise SectionError(
            f"section {text!r} reaches {axis} = {first}..{last}, and pixels are counted from 1; "
            "correct the section or the keyword it came from."
        )
    if last > length:
        raise SectionError(
            f"section {text!r} reaches {axis} = {first}..{last}, outside of the image's 1..{length}; "
            "correct the section or the keyword it came from."
        )
    return first - 1, last, -step if backwards else step
