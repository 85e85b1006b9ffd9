"""Bin pixels into blocks, and spread pixels over blocks.

Unlike ccdproc, mask, uncertainty and coordinates are kept: sums and means have a known variance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.core import Image, resolve
from lazyccd.kernels import block_reduce as kernels
from lazyccd.kernels.block import Array
from lazyccd.ops.decorator import operation
from lazyccd.plan.footprints import Blocks, Replicated
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params

POWERS: dict[Any, int] = {np.sum: 0, np.mean: 2, np.nansum: 0, np.nanmean: 2}
"""Functions whose variance is known: the sum of variances divided by the block's size to this power."""


def _normalize_block(block_size: int | tuple[int, int], image: Image | None) -> tuple[int, int]:
    """Return the rows and columns of a block."""
    try:
        sizes = np.atleast_1d(np.asarray(block_size, float))
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            f"block_size {block_size!r} must be one or two positive integers, in the order y, x."
        ) from None
    if sizes.size == 1:
        sizes = np.repeat(sizes, 2)
    if sizes.size != 2 or not np.isfinite(sizes).all() or np.any(sizes <= 0) or np.any(sizes != np.floor(sizes)):
        raise ParameterError(f"block_size {block_size!r} must be one or two positive integers, in the order y, x.")
    by, bx = int(sizes[0]), int(sizes[1])
    if image is not None and (by > image.shape[0] or bx > image.shape[1]):
        raise ParameterError(f"block_size {(by, bx)} is larger than the image {image.shape}; take a smaller block.")
    return by, bx


@operation()
def block_reduce(ccd: xr.Dataset, block_size: int | tuple[int, int], func: Callable[..., Any] = np.sum) -> xr.Dataset:
    """Bin an image: reduce each block of pixels to one.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned). Rows and columns that do not fill a block are left out.
    block_size
        Rows and columns of a block; one number for both.
    func
        Called as ``func(array, axis=...)`` with the pixels of all blocks of a chunk. Bad pixels take part, as in ccdproc; NaN
        does what it does in the function.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, each reading the pixels of its own blocks only; dtype and units as before. For sums and
        means the uncertainty is propagated, for other functions there is none. The mask has the planes of all pixels of a
        block; coordinates are the mean original positions, so that the WCS stays true.

    Raises
    ------
    ParameterError
        Raised if the block size is not positive and integer, or larger than the image.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> block_reduce(CCDData(np.ones((4, 5)), unit="adu"), 2).data
    array([[4., 4.],
           [4., 4.]])
    """
    image = resolve(ccd)
    size = _normalize_block(block_size, image)
    # Python's own sum knows no axis, and no variance would be known for it
    if func is sum:
        func = np.sum
    shape = (image.shape[0] // size[0], image.shape[1] // size[1])
    power = POWERS.get(func)
    dtypes = image.plan.dtypes
    planes = make_dtypes(
        data=image.dtype, variance=dtypes.get("variance") if power is not None else None, mask=dtypes.get("mask")
    )
    plan = Apply(
        shape,
        planes,
        kernel=kernels.block_reduce,
        sources=(Input(image.plan, Blocks(size)),),
        params=make_params(size=size, func=func, power=power, dtype=image.dtype.name),
    )
    # a mean of positions and not every n-th: CRPIX of the binned image is then right, (0.5, 2.5, ...) for blocks of 2
    y = image.y[: shape[0] * size[0]].reshape(-1, size[0]).mean(axis=1)
    x = image.x[: shape[1] * size[1]].reshape(-1, size[1]).mean(axis=1)
    grid = tuple(_shrink(sizes, by, n) for sizes, by, n in zip(image.grid, size, shape, strict=True))
    return replace(image, plan=plan, grid=(grid[0], grid[1]), y=y, x=x).to_dataset()


def _shrink(sizes: tuple[int, ...], block: int, length: int) -> tuple[int, ...]:
    """Return chunk sizes along an axis that is binned; borders are rounded down to whole blocks."""
    # chunks of whole blocks: a block that two chunks share would be read by both
    ends = np.minimum(np.cumsum(sizes) // block, length)
    return tuple(int(n) for n in np.diff(np.concatenate(([0], ends))) if n) or (length,)


@operation()
def block_average(ccd: xr.Dataset, block_size: int | tuple[int, int]) -> xr.Dataset:
    """Average blocks of pixels.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned). Rows and columns that do not fill a block are left out.
    block_size
        Rows and columns of a block; one number for both.

    Returns
    -------
    xr.Dataset
        As of `block_reduce` with ``np.mean``: the variance is the sum of a block's variances over the square of their number.

    Raises
    ------
    ParameterError
        Raised if the block size is not positive and integer, or larger than the image.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> block_average(CCDData(np.arange(4.0).reshape(2, 2), unit="adu"), 2).data
    array([[1.5]])
    """
    return block_reduce(ccd, block_size, np.mean)


@operation()
def block_replicate(ccd: xr.Dataset, block_size: int | tuple[int, int], conserve_sum: bool = True) -> xr.Dataset:
    """Replicate each pixel into a block of equal pixels.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    block_size
        Rows and columns of a block; one number for both.
    conserve_sum
        Whether data and uncertainty are divided by the number of pixels of a block.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk; dtype and units as before, the mask is replicated. The pixels of a block are copies of each
        other, and so are their errors. Coordinates are the original positions of the pixel centres, in fractions of a pixel.

    Raises
    ------
    ParameterError
        Raised if the block size is not positive and integer.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> block_replicate(CCDData(np.array([[4.0, 8.0]]), unit="adu"), 2).data
    array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]])
    """
    image = resolve(ccd)
    size = _normalize_block(block_size, None)
    divisor = float(size[0] * size[1]) if conserve_sum else 1.0
    plan = Apply(
        (image.shape[0] * size[0], image.shape[1] * size[1]),
        image.plan.planes,
        kernel=kernels.block_replicate,
        sources=(Input(image.plan, Replicated(size)),),
        params=make_params(size=size, divisor=divisor),
    )
    grid = tuple(tuple(n * b for n in sizes) for sizes, b in zip(image.grid, size, strict=True))
    y, x = (_spread(values, b) for values, b in zip((image.y, image.x), size, strict=True))
    return replace(image, plan=plan, grid=(grid[0], grid[1]), y=y, x=x).to_dataset()


def _spread(positions: Array, block: int) -> Array:
    """Return the original positions of pixels that are split into ``block``."""
    step = float(positions[1] - positions[0]) if len(positions) > 1 else 1.0
    offsets = ((np.arange(block) + 0.5) / block - 0.5) * step
    return (np.asarray(positions, float)[:, None] + offsets).ravel()
