"""Parts of several images put into one."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.pointwise import Remap, remap_bits
from lazyccd.sections import Region

Part: TypeAlias = tuple[Region, tuple[int, int], float, Remap]
"""Where an input lies in the output, its steps (-1 for a flip), the factor to the output's units, how its mask bits move."""


def paste(
    request: Request, *blocks: Block | None, parts: tuple[Part, ...], dtypes: tuple[tuple[str, str], ...], no_data: int
) -> Block:
    """Return a region of an image that is put together; where nothing lies it is NaN and NO_DATA.

    A block is what lies in the region of its part. An input without a mask is good, one without a variance exact. What lies
    inside of one part is a view of its block where possible.
    """
    names = [(name, np.dtype(dtype)) for name, dtype in dtypes if name in request.planes]
    touched = [
        (block, part) for block, part in zip(blocks, parts, strict=True) if request.region.intersect(part[0]).size
    ]
    if len(touched) == 1 and touched[0][1][0].contains(request.region):
        return Block(
            request.region, **{name: _part_of(request.region, *touched[0], name, dtype) for name, dtype in names}
        )
    out = {name: _empty(request, name, dtype, parts, no_data) for name, dtype in names}
    for block, part in touched:
        here = request.region.intersect(part[0])
        for name, dtype in names:
            out[name][here.within(request.region)] = _part_of(here, block, part, name, dtype)
    return Block(request.region, **out)


def _part_of(region: Region, block: Block | None, part: Part, name: str, dtype: np.dtype[Any]) -> Any:
    """Return what a plane of an input gives for a region of the output, a view of it if nothing changes but the order."""
    _, step, factor, remap = part
    given = None if block is None else getattr(block, name)
    if given is None:
        return np.zeros(region.shape, dtype)
    values = given[:: step[0], :: step[1]]
    if name == "mask":
        return remap_bits(values, remap, dtype)
    scale = factor**2 if name == "variance" else factor
    return values.astype(dtype, copy=False) if scale == 1 else values * dtype.type(scale)


def _empty(request: Request, name: str, dtype: np.dtype[Any], parts: tuple[Part, ...], no_data: int) -> Any:
    """Return the array of a plane, filled if the parts do not cover it."""
    covered = sum(request.region.intersect(place).size for place, *_ in parts)
    if covered == request.region.size:
        return np.empty(request.region.shape, dtype)
    return np.full(request.region.shape, no_data if name == "mask" else np.nan, dtype)
