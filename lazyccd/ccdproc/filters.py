"""Medians and deviations in boxes, and masks of bad pixels.

lazyccd's kernels filter float images of two axes; scipy has everything else: other axes, types, footprints and modes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import nddata
from astropy.nddata import CCDData
from astropy.stats import mad_std

from lazyccd.ccdproc.arithmetic import copy_meta
from lazyccd.ccdproc.small_stacks import MAD_TO_SIGMA
from lazyccd.ccdproc.whole_image import filtered, is_plain

__all__ = [
    "background_deviation_box",
    "background_deviation_filter",
    "bitfield_to_boolean_mask",
    "ccdmask",
    "median_filter",
    "sigma_func",
]


def sigma_func(arr: Any, axis: int | None = None, ignore_nan: bool = False) -> Any:
    """Return the standard deviation as the median absolute deviation has it.

    Parameters
    ----------
    arr
        The values, or a CCDData.
    axis
        The axis along which to compute; all by default.
    ignore_nan
        Leave NaN out.
    """
    return mad_std(arr, axis=axis, ignore_nan=ignore_nan)


def median_filter(data: Any, *args: Any, **kwargs: Any) -> Any:
    """Return `scipy.ndimage.median_filter` of an array or a CCDData, whose unit and header are kept.

    Parameters
    ----------
    data
        The image.
    *args, **kwargs
        As of scipy's function.
    """
    if isinstance(data, CCDData):
        return CCDData(median_filter(data.data, *args, **kwargs), unit=data.unit, meta=copy_meta(data.meta))
    size = args[0] if args else kwargs.get("size")
    if is_plain(data) and len(args) + len(kwargs) == 1 and isinstance(size, int) and 0 < size <= min(data.shape):
        from lazyccd.kernels.filters import median_filter as kernel

        return filtered(kernel, data, (size // 2, size // 2), size=(size, size))
    from scipy import ndimage

    return ndimage.median_filter(data, *args, **kwargs)


def background_deviation_box(data: Any, bbox: int) -> Any:
    """Return the deviation of the background in boxes.

    Parameters
    ----------
    data
        An array of two axes.
    bbox
        Side of the boxes. Pixels that no box covers have the standard deviation of the whole image.
    """
    if bbox < 1:
        raise ValueError(f"bbox is {bbox} and must be greater than 1.")
    data = np.asarray(data)
    half = max(int(bbox / 2), 1)
    result = data * 0.0 + data.std()
    ny, nx = data.shape
    for x in range(int(bbox / 2), nx, int(bbox)):
        for y in range(int(bbox / 2), ny, int(bbox)):
            # the last row and column belong to no box, as in ccdproc
            box = (
                slice(max(0, y - half), min(y + half + 1, ny - 1)),
                slice(max(0, x - half), min(x + half + 1, nx - 1)),
            )
            result[box] = MAD_TO_SIGMA * _mad(data[box].ravel())
    return result


def _mad(values: Any) -> Any:
    """Return the median absolute deviation of some values; astropy's function takes most of its time to prepare."""
    values = (
        values if values.dtype.kind == "f" else values.astype(float)
    )  # differences of unsigned integers wrap around
    return _median(np.abs(values - _median(values)))


def _median(values: Any) -> Any:
    """Return what `numpy.median` does of floats along one axis; NaN if there is one or no value."""
    half = len(values) // 2
    # the last one too: NaN is the largest
    ordered = np.partition(values, [half - 1, half, -1] if len(values) > 1 else []) if len(values) else values
    if not len(values) or np.isnan(ordered[-1]):
        return np.nan
    return ordered[half] if len(values) % 2 else ordered[half - 1 : half + 1].mean()


def background_deviation_filter(data: Any, bbox: float) -> Any:
    """Return the deviation of the background around each pixel.

    Parameters
    ----------
    data
        An array.
    bbox
        Side of the box around the pixel.
    """
    if bbox < 1:
        raise ValueError(f"bbox is {bbox} and must be greater than 1.")
    if is_plain(data) and isinstance(bbox, int) and bbox <= min(data.shape):
        from lazyccd.kernels.filters import deviation_filter

        return filtered(deviation_filter, data, (bbox // 2, bbox // 2), size=(bbox, bbox))
    from scipy import ndimage

    return ndimage.generic_filter(data, sigma_func, size=bbox)


def bitfield_to_boolean_mask(bitfield: Any, ignore_bits: Any = 0, flip_bits: bool | None = None) -> Any:
    """Return where any bit is set that is not ignored; see `astropy.nddata.bitfield_to_boolean_mask`.

    Parameters
    ----------
    bitfield
        An array of integers.
    ignore_bits, flip_bits
        As of astropy's function.
    """
    return nddata.bitfield_to_boolean_mask(
        bitfield, ignore_bits, flip_bits=flip_bits, good_mask_value=False, dtype=bool
    )


def ccdmask(
    ratio: Any,
    findbadcolumns: bool = False,
    byblocks: bool = False,
    ncmed: int = 7,
    nlmed: int = 7,
    ncsig: int = 15,
    nlsig: int = 15,
    lsigma: float = 9,
    hsigma: float = 9,
    ngood: int = 5,
) -> Any:
    """Find bad pixels in the ratio of two flats; see `lazyccd.ccdmask`.

    Parameters
    ----------
    ratio
        A CCDData or an array of two axes.
    findbadcolumns
        Fill short gaps in bad columns.
    byblocks
        Take the deviation of blocks, not of the box around each pixel.
    ncmed, nlmed
        Columns and lines of the box of the median.
    ncsig, nlsig
        Columns and lines of the box of the deviation.
    lsigma, hsigma
        How many deviations a good pixel may be below and above the median.
    ngood
        Longest gap to fill.
    """
    shape = getattr(getattr(ratio, "data", None), "shape", None)
    if shape is None:
        raise ValueError('"ratio" should be a "CCDData".')
    if len(shape) != 2:
        raise ValueError(f'"ratio" must be two-dimensional, and has shape {shape}.')
    data = ratio.data if isinstance(ratio, CCDData) else np.asarray(ratio)  # a mask that is there is not looked at
    sizes, limits = (ncmed, nlmed, ncsig, nlsig), (lsigma, hsigma)
    if is_plain(data) and not byblocks and _are_usual(sizes, limits, ngood):
        return _mask_at_once(data, (nlmed, ncmed), (nlsig, ncsig), limits, ngood if findbadcolumns else None)
    names = {"ncmed": ncmed, "nlmed": nlmed, "ncsig": ncsig, "nlsig": nlsig, "lsigma": lsigma, "hsigma": hsigma}
    from lazyccd.ops.bad_pixels import ccdmask as lazy_ccdmask

    found = lazy_ccdmask(CCDData(data, unit=""), findbadcolumns, byblocks, **names, ngood=ngood)
    return np.asarray(found, bool)


def _are_usual(sizes: tuple[Any, ...], limits: tuple[Any, ...], ngood: Any) -> bool:
    """Return whether arguments of `ccdmask` are the numbers that they must be; all others are left to lazyccd's own checks."""
    whole = all(isinstance(size, int) and size > 0 for size in sizes) and isinstance(ngood, int) and ngood >= 0
    # NaN is equal to nothing
    return whole and all(isinstance(limit, int | float) and limit == limit for limit in limits)


def _mask_at_once(
    data: Any, median: tuple[int, int], sigma: tuple[int, int], limits: tuple[float, float], ngood: int | None
) -> Any:
    """Return what `lazyccd.ccdmask` finds in an image by boxes about each pixel; gaps of up to ``ngood`` pixels are filled."""
    from lazyccd.kernels.bad_pixels import find_bad

    columns, gap = ngood is not None, ngood or 0
    halo = median[0] // 2 + sigma[0] // 2 + (2 * (gap + 1) if columns else 0), median[1] // 2 + sigma[1] // 2
    boxes = {"median_size": median, "sigma_size": sigma, "limits": (float(limits[0]), float(limits[1]))}
    return filtered(find_bad, data, halo, bool, **boxes, by_blocks=False, columns=columns, ngood=gap)
