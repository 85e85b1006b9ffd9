"""Filters with a moving box on blocks: medians, order statistics and deviations.

1. `surroundings` collects the pixels of all boxes, with those beyond the edge of the image reflected as in scipy.
2. `lazyccd.kernels.rank_filter` takes order statistics of the boxes. NaN takes no part in them: boxes that hold one are
   done again, pixel by pixel.
3. The operations follow ccdproc: `median_filter`, `cosmicray_median` and `background_deviation_filter`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.rank_filter import rank_filter
from lazyccd.sections import Region

FMAX: Any = np.fmax
"""The ufunc without a type: what the stubs of its methods accept differs between versions of NumPy."""

HALF = (50.0,)
"""The percentile of a median."""


def surroundings(plane: Array, have: Region, want: Region, size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the pixels of all boxes about the pixels of a region, with those beyond the edge of the image reflected.

    Parameters
    ----------
    plane
        Pixels of the region ``have``, of any dtype.
    have, want
        The region that ``plane`` covers, and the pixels whose boxes are wanted.
    size
        Rows and columns of the box; boxes of even size reach one pixel further towards the beginning, as in scipy.
    shape
        Shape of the image.
    """
    picks = []
    for low, high, first, length, n in zip(
        (want.y0, want.x0), (want.y1, want.x1), (have.y0, have.x0), shape, size, strict=True
    ):
        places = np.arange(low - n // 2, high + n - n // 2 - 1)
        picks.append(reflected(places, length) - first)
    rows, columns = picks
    # Boxes away from the edge are views; only reflection needs a copy.
    out = plane[rows[0] : rows[-1] + 1] if _is_contiguous(rows) else np.take(plane, rows, axis=0)
    return out[:, columns[0] : columns[-1] + 1] if _is_contiguous(columns) else np.take(out, columns, axis=1)


def reflected(places: Array, length: int) -> Array:
    """Return the pixels that stand for positions along an axis, inside or outside it: d c b a | a b c d | d c b a."""
    turned = places % (2 * length)
    return np.where(turned < length, turned, 2 * length - 1 - turned)


def _is_contiguous(places: Array) -> bool:
    """Return whether indices follow each other without a gap."""
    return (
        bool(places.size) and int(places[-1]) - int(places[0]) == places.size - 1 and bool((np.diff(places) == 1).all())
    )


def percentiles(
    plane: Array,
    have: Region,
    want: Region,
    size: tuple[int, int],
    shape: tuple[int, int],
    percents: tuple[float, ...] = HALF,
) -> list[Array]:
    """Return percentiles of the box about each pixel of a region, without interpolation.

    Of n pixels that are not NaN, it is element ``int(n * percent / 100)`` in order, from 0; NaN where all are NaN.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of the region ``have``.
    have, want
        The region that ``plane`` covers, and the region of the result.
    size
        Rows and columns of the box.
    shape
        Shape of the image, at whose edges pixels are reflected.
    percents
        Percentiles, 0 to 100.

    Returns
    -------
    list of ndarray
        One array of the shape of ``want`` for each percentile.
    """
    around = surroundings(plane, have, want, size, shape)
    unknown = np.isnan(around)
    count = size[0] * size[1]
    # The rank of scipy.ndimage.percentile_filter: 155 and 69 of 225 pixels for 69.1 and 30.9 %, without interpolation.
    ranks = tuple(min(int(count * percent / 100), count - 1) for percent in percents)
    if not unknown.any():
        return rank_filter(around, size, ranks)
    # Minima and maxima have no place for NaN. Infinity sorts last, so that boxes without NaN come out right; the others
    # follow.
    around = np.where(unknown, around.dtype.type(np.inf), around)
    outs = rank_filter(around, size, ranks)
    for out, percent in zip(outs, percents, strict=True):
        _mend(around, unknown, size, percent, out)
    return outs


@compiled
def _mend(around: Array, unknown: Array, size: tuple[int, int], percent: float, out: Array) -> None:
    """Set the percentile of boxes with unknown pixels to that of the known ones.

    Parameters
    ----------
    around
        Float32 or float64 pixels of all boxes, as `surroundings` returns them.
    unknown
        True for pixels that take no part, of that shape.
    size
        Rows and columns of the box.
    percent
        Percentile, 0 to 100.
    out
        Percentiles of all boxes, of which those with unknown pixels are set anew.
    """
    values = np.empty(size[0] * size[1], around.dtype)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            count = 0
            for j in range(y, y + size[0]):
                for i in range(x, x + size[1]):
                    if not unknown[j, i]:
                        values[count] = around[j, i]
                        count += 1
            if count < size[0] * size[1]:
                # The rank depends on how many are known, so it cannot be taken from the network.
                place = min(int(count * percent / 100), count - 1)
                out[y, x] = np.sort(values[:count])[place] if count else np.nan


def median_filter(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Replace data by the median of the box about each pixel; variance and mask stay.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with a margin of half a box.
    size
        Rows and columns of the box.
    shape
        Shape of the image.
    """
    data = variance = mask = None
    cut = request.region.within(a.region)
    if "data" in request.planes:
        data = percentiles(a.plane("data"), a.region, request.region, size, shape)[0]
    if "variance" in request.planes:
        variance = a.plane("variance")[cut]
    if "mask" in request.planes:
        mask = a.plane("mask")[cut]
    return Block(request.region, data, variance, mask)


def cosmicray_median(
    request: Request,
    a: Block,
    error: Block | None = None,
    *,
    thresh: float,
    boxes: tuple[int, int, int],
    shape: tuple[int, int],
    flags: tuple[int, int],
    mask_dtype: str,
    sigma: Array | None = None,
) -> Block:
    """Flag pixels that lie far above the median of a box, and replace them by that of another, as ccdproc does.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with the margin that the boxes need.
    error
        A block with a variance, or with standard deviations as its data, in the unit of the data.
    thresh
        Deviations above the median from which a pixel is a cosmic ray.
    boxes
        Sides of the box of the median, of what is flagged around a cosmic ray, and of the replacement; 0 for none of these.
    shape
        Shape of the image.
    flags
        Bits of CR and INTERP.
    mask_dtype
        Dtype of the mask.
    sigma
        Numbers of which the last is the standard deviation of all pixels, used if there is no ``error``.
    """
    mbox, gbox, rbox = boxes
    cr, interp = flags
    want, cut = request.region, request.region.within(a.region)
    grown = want.grow(gbox // 2, gbox // 2).clip(shape)
    data = a.plane("data")
    middle = percentiles(data, a.region, grown, (mbox, mbox), shape)[0]
    deviation: Any
    if error is None:
        assert sigma is not None
        deviation = data.dtype.type(sigma[-1])
    elif error.variance is None:
        deviation = error.plane("data")[grown.within(error.region)]
    else:
        deviation = np.sqrt(error.variance[grown.within(error.region)])
    # Pixels above the median only, and no use of the input mask: ccdproc's definition. The box of the median, not of
    # the replacement, decides.
    rays = (data[grown.within(a.region)] - middle) / deviation > thresh
    if gbox:
        # The maximum filter of ccdproc reflects at the edges too.
        around = surroundings(rays, grown, want, (gbox, gbox), shape)
        rays = np.lib.stride_tricks.sliding_window_view(around, (gbox, gbox)).any(axis=(2, 3))
    outs: dict[str, Array] = {}
    if "data" in request.planes:
        outs["data"] = data[cut].copy()
        if rbox:
            # The replacement is the median of the original data, with the cosmic rays in it, as in ccdproc.
            outs["data"][rays] = percentiles(data, a.region, want, (rbox, rbox), shape)[0][rays]
    if "variance" in request.planes:
        outs["variance"] = a.plane("variance")[cut].copy()
        if rbox:
            largest = surroundings(a.plane("variance"), a.region, want, (rbox, rbox), shape)
            windows = np.lib.stride_tricks.sliding_window_view(largest, (rbox, rbox))
            # A replaced pixel is known no better than the worst pixel that its median may come from. `fmax` skips NaN.
            outs["variance"][rays] = FMAX.reduce(windows[rays].reshape(-1, rbox * rbox), axis=1)
    if "mask" in request.planes:
        old = np.zeros(want.shape, mask_dtype) if a.mask is None else a.mask[cut].astype(mask_dtype)
        outs["mask"] = old | np.where(rays, old.dtype.type(cr | (interp if rbox else 0)), old.dtype.type(0))
    return Block(want, outs.get("data"), outs.get("variance"), outs.get("mask"))


def deviation_filter(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Return the standard deviation in the box about each pixel, estimated from the median absolute deviation.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with a margin of half a box.
    size
        Rows and columns of the box.
    shape
        Shape of the image.
    """
    around = surroundings(a.plane("data"), a.region, request.region, size, shape)
    out = np.empty(request.region.shape, around.dtype)
    _deviations(np.ascontiguousarray(around), size, out)
    return Block(request.region, out)


@compiled
def _deviations(around: Array, size: tuple[int, int], out: Array) -> None:
    """Compute deviations box by box."""
    # ccdproc calls a Python function for every pixel here.
    values = np.empty(size[0] * size[1], around.dtype)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            count = 0
            for j in range(y, y + size[0]):
                for i in range(x, x + size[1]):
                    if not np.isnan(around[j, i]):
                        values[count] = around[j, i]
                        count += 1
            out[y, x] = deviation_of(values, count)


@compiled
def deviation_of(values: Array, count: int) -> Any:
    """Return the deviation, 1.4826 MAD, of the first ``count`` numbers, which are modified; NaN if there are none."""
    if count == 0:
        return np.nan
    centre = _median_of(values[:count])
    for k in range(count):
        values[k] = abs(values[k] - centre)
    return _median_of(values[:count]) * MAD_TO_SIGMA


@compiled
def _median_of(values: Array) -> Any:
    """Return the median; the mean of the two middle ones of an even number."""
    ordered = np.sort(values)
    n = ordered.size
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n % 2 == 0 else ordered[n // 2]
