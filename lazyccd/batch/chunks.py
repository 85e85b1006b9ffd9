"""The chunks in which the products of a night are computed: as asked for, else the largest that the memory limit allows."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from lazyccd import ops
from lazyccd.frame.core import Image, resolve
from lazyccd.plan.chunks import grid_boxes
from lazyccd.plan.cost import dearest_region, fits_memory
from lazyccd.sections import Region

SMALLER_CHUNKS = (2048, 1024, 512, 256, 128)
"""Sides of the chunks that are tried where memory is short; the halo of 41 pixels makes smaller ones expensive."""


def in_fitting_chunks(frame: xr.Dataset, make: Callable[[xr.Dataset], xr.Dataset] = lambda ds: ds) -> xr.Dataset:
    """Return what is made of a frame in the largest chunks whose tasks fit into the declared memory limit.

    Bands do not help LA Cosmic: each would compute the whole frame again, which a single chunk needs at once.

    Parameters
    ----------
    frame
        A frame.
    make
        What is done to it; by default nothing.

    Examples
    --------
    >>> import dask
    >>> from lazyccd.plan.cost import BASELINE_BYTES
    >>> from lazyccd.testing.steps import formula_frame
    >>> with dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + 2_000_000, "num_workers": 1}):
    ...     in_fitting_chunks(formula_frame((600, 600)))["data"].data.chunksize
    (256, 256)
    """
    made = make(frame)
    for side in SMALLER_CHUNKS:
        image = resolve(made)
        if all(fits_memory(image.plan, region) for region in _largest_regions(image)):
            break
        if side < max(frame.sizes.values()):
            made = make(ops.rechunk(frame, side))
    return made


def _largest_regions(image: Image) -> tuple[Region, Region]:
    """Return the largest chunk of an image, and the band of whole rows as large as it, in which FITS is written."""
    largest = dearest_region(image.plan, grid_boxes(image.grid))
    rows, columns = image.shape
    height = min(rows, max(1, largest.size // columns))
    y0 = (rows - height) // 2
    return largest, Region(y0, y0 + height, 0, columns)


def in_chunks(frame: xr.Dataset, asked: int | None) -> xr.Dataset:
    """Return a product in the chunks in which it is computed.

    Parameters
    ----------
    frame
        The product.
    asked
        Side of the chunks; None for the largest that fit.
    """
    if asked is None:
        return in_fitting_chunks(frame)
    made: xr.Dataset = ops.rechunk(frame, asked)
    return made
