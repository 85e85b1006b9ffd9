"""Run kernels that filter on the pixels of one array at once, without a plan of steps: dask and xarray are not imported for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.plan.threads import each, shares
from lazyccd.sections import Region

PASSES = 32
"""How many passes over its pixels a filter is worth to threads."""


def is_plain(array: Any) -> bool:
    """Return whether lazyccd's filters take an array: a float image of two axes in the byte order of this machine."""
    return (
        type(array) is np.ndarray
        and array.ndim == 2
        and array.size > 0
        and array.dtype in (np.float32, np.float64)
        and array.dtype.isnative
    )


def filtered(
    kernel: Callable[..., Block], data: Array, halo: tuple[int, int], dtype: Any = None, **params: Any
) -> Array:
    """Return what a kernel makes of an image, by threads if it is large.

    Parameters
    ----------
    kernel
        Takes a request, a block and ``params``, with the image's ``shape`` among them.
    data
        The image; see `is_plain`.
    halo
        How many rows and columns the kernel reads beyond a pixel.
    dtype
        Of the result; that of the image if None.
    **params
        Parameters of the kernel.
    """
    shape = (data.shape[0], data.shape[1])
    out: Array = np.empty(shape, data.dtype if dtype is None else dtype)
    image = Block(Region.full(shape), data)

    def work(rows: slice) -> None:
        region = Region(rows.start, rows.stop, 0, shape[1])
        request = Request(region, frozenset({"data"}))
        found = kernel(request, image.crop(region.grow(*halo).clip(shape)), shape=shape, **params)
        out[rows] = found.plane("data")

    each(work, shares(shape[0], PASSES * data.size))
    return out
