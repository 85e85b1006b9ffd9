"""Images on other pixels: functions of whole images, blocks, old-style rebinning, and another WCS."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy import nddata
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.utils.exceptions import AstropyDeprecationWarning
from astropy.wcs import WCS
from astropy.wcs.utils import pixel_to_pixel, proj_plane_pixel_area

from lazyccd.ccdproc.arithmetic import copied, copy_meta
from lazyccd.ccdproc.log_meta import log_to_metadata
from lazyccd.plan import threads
from lazyccd.plan.threads import each, shares

__all__ = ["block_average", "block_reduce", "block_replicate", "rebin", "transform_image", "wcs_project"]

ORDERS = {"nearest-neighbor": 0, "bilinear": 1, "biquadratic": 2, "bicubic": 3}
"""Orders of the splines by which images are interpolated."""

OF_THE_OBSERVATION = ("DATE-OBS", "MJD-OBS", "JD-OBS")
"""Keywords that a WCS knows too, but that are about more."""

FROM_BAD = 1e-8
"""A pixel that takes more than this part of its value from masked ones is masked."""


@log_to_metadata
def transform_image(ccd: CCDData, transform_func: Callable[..., Any], **kwargs: Any) -> CCDData:
    """Apply a function to data, uncertainty and mask.

    Parameters
    ----------
    ccd
        The image.
    transform_func
        A function of an array that returns one.
    **kwargs
        Further arguments of the function.
    """
    if not isinstance(ccd, CCDData):
        raise TypeError(f"ccd is a {type(ccd).__name__} and must be a CCDData.")
    if not callable(transform_func):
        raise TypeError("transform_func is not a callable.")
    result = copied(ccd)
    result.data = transform_func(result.data, **kwargs)
    if result.uncertainty is not None:
        result.uncertainty.array = transform_func(result.uncertainty.array, **kwargs)
    if result.mask is not None:
        result.mask = transform_func(result.mask, **kwargs) > 0
    if result.wcs is not None:
        warnings.warn("WCS information may be incorrect as no transformation was applied to it", stacklevel=3)
    return result


def block_reduce(ccd: Any, block_size: Any, func: Callable[..., Any] = np.sum) -> Any:
    """Return what a function makes of each block of pixels; see `astropy.nddata.block_reduce`.

    Parameters
    ----------
    ccd
        A CCDData, of which unit and header are kept, or an array.
    block_size
        Side of the blocks, or one per axis.
    func
        A function of an array with the argument ``axis``.
    """
    return _like(_reduced(ccd, block_size, func), ccd)


def block_average(ccd: Any, block_size: Any) -> Any:
    """Return the mean of each block of pixels; see `block_reduce`."""
    return _like(_reduced(ccd, block_size, np.mean), ccd)


def _reduced(ccd: Any, block_size: Any, func: Callable[..., Any]) -> Any:
    """Return what astropy's function does, of a large array by threads."""
    data = ccd.data if isinstance(ccd, CCDData) else ccd
    high = int(block_size if np.ndim(block_size) == 0 else block_size[0])
    is_simple = type(data) is np.ndarray and data.ndim > 0 and func in (np.sum, np.mean, np.median) and high > 0
    if not is_simple or 4 * data.size < threads.WORTH_PIXELS:
        return nddata.block_reduce(ccd, block_size, func)
    # whole blocks for each thread
    parts = [slice(high * rows.start, high * rows.stop) for rows in shares(len(data) // high, 4 * data.size)]
    return np.concatenate(each(lambda rows: nddata.block_reduce(data[rows], block_size, func), parts))


def block_replicate(ccd: Any, block_size: Any, conserve_sum: bool = True) -> Any:
    """Return an image with a block of pixels in the place of each; see `astropy.nddata.block_replicate`.

    Parameters
    ----------
    ccd, block_size
        As of `block_reduce`.
    conserve_sum
        Share a pixel's value among its block.
    """
    return _like(nddata.block_replicate(ccd, block_size, conserve_sum), ccd)


def _like(result: Any, ccd: Any) -> Any:
    """Return a result as a CCDData with the unit and header of one."""
    return CCDData(result, unit=ccd.unit, meta=copy_meta(ccd.meta)) if isinstance(ccd, CCDData) else result


def rebin(ccd: Any, newshape: tuple[int, ...]) -> Any:
    """Return the pixels nearest to those of another shape; deprecated, use `block_reduce` or `block_replicate`.

    Parameters
    ----------
    ccd
        A CCDData or an array.
    newshape
        The other shape, of as many axes.
    """
    warnings.warn(
        "rebin is deprecated; use block_reduce or block_replicate instead.", AstropyDeprecationWarning, stacklevel=2
    )
    if not isinstance(ccd, CCDData | np.ndarray):
        raise TypeError(f"ccd is a {type(ccd).__name__} and must be a CCDData or a NumPy array.")
    if len(ccd.shape) != len(newshape):
        raise ValueError(f"newshape {newshape} does not have the same number of dimensions as the image, {ccd.shape}.")
    sizes = zip(newshape, ccd.shape, strict=True)
    nearest = np.ix_(*((np.arange(new) * (old / new)).astype(int) for new, old in sizes))
    if isinstance(ccd, np.ndarray):
        return ccd[nearest]
    parts = {"data": ccd.data[nearest]}
    if ccd.uncertainty is not None:
        parts["uncertainty"] = type(ccd.uncertainty)(ccd.uncertainty.array[nearest], unit=ccd.uncertainty.unit)
    if ccd.mask is not None:
        parts["mask"] = ccd.mask[nearest]
    return copied(ccd, **parts)


@log_to_metadata
def wcs_project(ccd: CCDData, target_wcs: Any, target_shape: Any = None, order: str | int = "bilinear") -> CCDData:
    """Interpolate an image onto the pixels of another WCS.

    Parameters
    ----------
    ccd
        An image with a celestial WCS.
    target_wcs
        The celestial WCS of the result.
    target_shape
        The shape of the result; by default that of the image.
    order
        ``"nearest-neighbor"``, ``"bilinear"``, ``"biquadratic"``, ``"bicubic"`` or 0 to 3.
    """
    if not (ccd.wcs.has_celestial and target_wcs.has_celestial):
        raise ValueError("the WCS of the image and the target must be celestial.")
    shape = tuple(int(n) for n in (ccd.shape if target_shape is None else target_shape))
    ys, xs = np.indices(shape, float)
    x, y = pixel_to_pixel(target_wcs, ccd.wcs, xs, ys)
    places = np.array([y, x])
    spline = ORDERS[order] if isinstance(order, str) else order
    data = _interpolate(ccd.data, places, spline)
    mask = np.isnan(data)
    if ccd.mask is not None:
        mask |= _interpolate(np.asarray(ccd.mask, float), places, spline) > FROM_BAD
    # counts per pixel follow the area of a pixel
    data *= proj_plane_pixel_area(target_wcs.celestial) / proj_plane_pixel_area(ccd.wcs.celestial)
    return CCDData(data, unit=ccd.unit, mask=mask if mask.any() else None, wcs=target_wcs, meta=_without_wcs(ccd.meta))


def _without_wcs(header: Any) -> Any:
    """Return a copy of a header without the WCS that it may have; the date belongs to the observation and stays."""
    meta = copy_meta(header)
    if isinstance(meta, fits.Header) and "CTYPE1" in meta:
        matrix = [f"CD{i}_{j}" for i in (1, 2) for j in (1, 2)]
        for keyword in (*WCS(header).to_header(relax=True), *matrix):
            if keyword not in OF_THE_OBSERVATION:
                meta.remove(keyword, ignore_missing=True)
    return meta


def _interpolate(image: Any, places: Any, order: int) -> Any:
    """Return an image at places (y, x), NaN outside of its pixels; half of a pixel at the edge has the edge's value."""
    from scipy import ndimage

    at = places.copy()
    for axis, length in enumerate(image.shape):
        at[axis, (at[axis] < 0) & (at[axis] >= -0.5)] = 0
        at[axis, (at[axis] > length - 1) & (at[axis] < length - 0.5)] = length - 1
    return ndimage.map_coordinates(np.asarray(image, float), at, order=order, mode="constant", cval=np.nan)
