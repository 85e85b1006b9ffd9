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

    A block is what lies in the region of its part. An input without a mask is good, one without a variance exact.
    """
    names = [(name, dtype) for name, dtype in dtypes if name in request.planes]
    out = {name: _empty(request, name, dtype, parts, no_data) for name, dtype in names}
    for block, (place, step, factor, remap) in zip(blocks, parts, strict=True):
        here = request.region.intersect(place)
        if not here.size:
            continue
        cut = here.within(request.region)
        for name, plane in out.items():
            given = None if block is None else getattr(block, name)
            if given is None:
                plane[cut] = 0
            elif name == "mask":
                plane[cut] = remap_bits(given[:: step[0], :: step[1]], remap, plane.dtype)
            else:
                scale = factor**2 if name == "variance" else factor
                values = given[:: step[0], :: step[1]]
                plane[cut] = values if scale == 1 else values * plane.dtype.type(scale)
    return Block(request.region, **out)


def _empty(request: Request, name: str, dtype: str, parts: tuple[Part, ...], no_data: int) -> Any:
    """Return the array of a plane, filled if the parts do not cover it."""
    covered = sum(request.region.intersect(place).size for place, *_ in parts)
    if covered == request.region.size:
        return np.empty(request.region.shape, dtype)
    return np.full(request.region.shape, no_data if name == "mask" else np.nan, dtype)
