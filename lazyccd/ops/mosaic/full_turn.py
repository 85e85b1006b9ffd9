"""Images that go all around the sky: their first column lies beside their last one, and kernels must see both.

Positions in such an image are those of the copy nearest to its middle, so a kernel at an end of it reaches beyond. There the image is
continued by itself (`continued`). The corners of a pixel that lies across the end are not on one copy; for the exact area it is
taken from the image that is turned by 180 degrees (`turned`), and from the image as it is elsewhere.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lazyccd.frame.core import Image
from lazyccd.frame.sky_mapping import has_tables, pixel_period, shifted
from lazyccd.kernels import assemble as kernels
from lazyccd.plan.chunks import default_grid
from lazyccd.plan.footprints import Placed
from lazyccd.plan.steps import Apply, Input, make_params
from lazyccd.sections import Region

WHOLE = 0.01
"""Pixels by which 360 degrees may differ from a whole number of them: less than anyone sees at the seam."""


class Turn(NamedTuple):
    """The axis along which an image goes all around the sky."""

    axis: int
    """0 for y, 1 for x."""

    pixels: int
    """Pixels of 360 degrees."""


def full_turn(wcs: Any, shape: tuple[int, int]) -> Turn | None:
    """Return the axis along which an image goes all around the sky; None if it does not, or not in whole pixels."""
    if not hasattr(wcs, "wcs") or has_tables(wcs):
        return None
    for fits_axis, period in pixel_period(wcs):
        pixels = round(period)
        if abs(period - pixels) <= WHOLE and shape[1 - fits_axis] >= pixels > 1:
            return Turn(1 - fits_axis, pixels)
    return None


def continued(image: Image, wcs: Any, turn: Turn) -> tuple[Image, Any]:
    """Return an image that goes on by half a turn at both ends, and its WCS. What is not asked for is not read."""
    half = turn.pixels // 2
    pieces = [(turn.pixels - half, turn.pixels), (0, turn.pixels), (0, half)]
    return _pasted(image, turn, pieces), _moved(wcs, turn, -half)


def turned(image: Image, wcs: Any, turn: Turn) -> tuple[Image, Any]:
    """Return an image that begins half a turn further, and its WCS."""
    half = turn.pixels // 2
    return _pasted(image, turn, [(half, turn.pixels), (0, half)]), _moved(wcs, turn, half)


def _moved(wcs: Any, turn: Turn, first: int) -> Any:
    """Return the WCS of an image that begins at another pixel."""
    return shifted(wcs, *((first, 0) if turn.axis == 0 else (0, first)))


def _pasted(image: Image, turn: Turn, pieces: list[tuple[int, int]]) -> Image:
    """Return an image that is put together from ranges of the axis of a turn, one behind the other."""
    across = image.shape[1 - turn.axis]
    ends = np.cumsum([0, *(stop - first for first, stop in pieces)]).tolist()
    places = [_range(turn, first, stop, across) for first, stop in itertools.pairwise(ends)]
    parts = tuple(kernels.Part(place, (1, 1), 1.0, image.schema.remap(image.schema)) for place in places)
    shape = (ends[-1], across) if turn.axis == 0 else (across, ends[-1])
    plan = Apply(
        shape,
        image.plan.planes,
        kernel=kernels.paste,
        sources=tuple(
            Input(image.plan, Placed(place, _range(turn, *piece, across)))
            for place, piece in zip(places, pieces, strict=True)
        ),
        params=make_params(
            parts=parts,
            dtypes=tuple((name, dtype.name) for name, dtype in image.plan.planes),
            no_data=image.schema.bits("NO_DATA"),
        ),
    )
    return replace(image, plan=plan, grid=default_grid(shape), y=np.arange(shape[0]), x=np.arange(shape[1]))


def _range(turn: Turn, first: int, stop: int, across: int) -> Region:
    """Return the region of a range of the axis of a turn."""
    return Region(first, stop, 0, across) if turn.axis == 0 else Region(0, across, first, stop)
