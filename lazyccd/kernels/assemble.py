"""Parts of several images pasted into one: amplifiers into a detector, detectors into a mosaic."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.pointwise import Remap, remap_bits
from lazyccd.sections import Region


class Part(NamedTuple):
    """Where an input lies in the output, and how its pixels change."""

    place: Region
    """Region of the output."""

    step: tuple[int, int]
    """Steps along y and x: -1 for a flip."""

    factor: float
    """From the units of the input to those of the output."""

    remap: Remap
    """Bits of the input's mask and what each becomes."""


def paste(
    request: Request, *blocks: Block | None, parts: tuple[Part, ...], dtypes: tuple[tuple[str, str], ...], no_data: int
) -> Block:
    """Return a region of an image that is assembled from parts; gaps are NaN and NO_DATA.

    An input without a mask is good, one without a variance exact.

    Parameters
    ----------
    request
        Region and planes wanted.
    blocks
        For each part the pixels of the input that the region needs; None if it needs none, or no plane of it.
    parts
        Place and changes of each input. Places do not overlap.
    dtypes
        Name and dtype of each plane that the image has.
    no_data
        Bit of gaps.
    """
    names = [(name, np.dtype(dtype)) for name, dtype in dtypes if name in request.planes]
    touched = [
        (block, part) for block, part in zip(blocks, parts, strict=True) if request.region.intersect(part.place).size
    ]
    # Most chunks of a mosaic lie inside one detector: these cost no copy.
    if len(touched) == 1:
        block, part = touched[0]
        if part.place.contains(request.region):
            whole = {name: _part_of(request.region, block, part, name, dtype) for name, dtype in names}
            return Block(request.region, **whole)
    out = {name: _empty(request, name, dtype, parts, no_data) for name, dtype in names}
    for block, part in touched:
        here = request.region.intersect(part.place)
        for name, dtype in names:
            out[name][here.within(request.region)] = _part_of(here, block, part, name, dtype)
    return Block(request.region, **out)


def _part_of(region: Region, block: Block | None, part: Part, name: str, dtype: np.dtype[Any]) -> Any:
    """Return a plane of an input for a region of the output, as a view if only the order of pixels changes.

    Parameters
    ----------
    region
        Region of the output, inside the part's place.
    block
        Pixels of the input; None if it lacks the plane.
    part
        Place and changes of the input.
    name, dtype
        Name of the plane, and its dtype in the output.
    """
    given = None if block is None else getattr(block, name)
    if given is None:
        return np.zeros(region.shape, dtype)
    step_y, step_x = part.step
    values = given[::step_y, ::step_x]
    if name == "mask":
        return remap_bits(values, part.remap, dtype)
    scale = part.factor**2 if name == "variance" else part.factor
    return values.astype(dtype, copy=False) if scale == 1 else values * dtype.type(scale)


def _empty(request: Request, name: str, dtype: np.dtype[Any], parts: tuple[Part, ...], no_data: int) -> Any:
    """Return an array for a plane, filled with the value of gaps if the parts do not cover it.

    Parameters
    ----------
    request
        Region and planes wanted.
    name, dtype
        Name and dtype of the plane.
    parts
        All parts.
    no_data
        Bit of gaps.
    """
    covered = sum(request.region.intersect(part.place).size for part in parts)
    # Parts do not overlap, so their sizes say whether all is covered; filling first would touch memory twice.
    if covered == request.region.size:
        return np.empty(request.region.shape, dtype)
    return np.full(request.region.shape, no_data if name == "mask" else np.nan, dtype)
