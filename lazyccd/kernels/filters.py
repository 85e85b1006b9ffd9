"""Filters with a moving box on blocks: medians, order statistics and deviations, edges reflected as scipy does it."""

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
    """Return the pixels of all boxes about the pixels of a region, those beyond the edge of the image reflected.

    Parameters
    ----------
    plane
        Pixels of the region ``have``.
    have, want
        What is there, and whose boxes are wanted.
    size
        Rows and columns of the box; boxes of even size reach one pixel further towards the beginning.
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
    out = plane[rows[0] : rows[-1] + 1] if _straight(rows) else np.take(plane, rows, axis=0)
    return out[:, columns[0] : columns[-1] + 1] if _straight(columns) else np.take(out, columns, axis=1)


def reflected(places: Array, length: int) -> Array:
    """Return the pixels that stand for those at some places along an axis: d c b a | a b c d | d c b a."""
    turned = places % (2 * length)
    return np.where(turned < length, turned, 2 * length - 1 - turned)


def _straight(places: Array) -> bool:
    """Return whether places follow each other."""
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
    """Return percentiles of the box about each pixel of a region, without interpolation; NaN is left out.

    Of n pixels that are not NaN, it is element ``int(n * percent / 100)`` in order, from 0; NaN where there is none.
    """
    around = surroundings(plane, have, want, size, shape)
    unknown = np.isnan(around)
    count = size[0] * size[1]
    ranks = tuple(min(int(count * percent / 100), count - 1) for percent in percents)
    if not unknown.any():
        return rank_filter(around, size, ranks)
    around = np.where(unknown, around.dtype.type(np.inf), around)
    outs = rank_filter(around, size, ranks)
    for out, percent in zip(outs, percents, strict=True):
        _mend(around, unknown, size, percent, out)
    return outs


@compiled
def _mend(around: Array, unknown: Array, size: tuple[int, int], percent: float, out: Array) -> None:
    """Set the percentile of boxes with unknown pixels to that of the known ones."""
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
                place = min(int(count * percent / 100), count - 1)
                out[y, x] = np.sort(values[:count])[place] if count else np.nan


def median_filter(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Replace data by the median of the box about each pixel."""
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
    """Flag pixels that lie far above the median of a box, and replace them by that of another.

    ``boxes`` are those of the median, of what is flagged about a cosmic ray, and of the replacement, 0 for none; ``error``
    holds a variance or a deviation, else the last element of ``sigma`` is that of all pixels; flags are the bits of CR and INTERP.
    """
    mbox, gbox, rbox = boxes
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
    rays = (data[grown.within(a.region)] - middle) / deviation > thresh
    if gbox:
        around = surroundings(rays, grown, want, (gbox, gbox), shape)
        rays = np.lib.stride_tricks.sliding_window_view(around, (gbox, gbox)).any(axis=(2, 3))
    outs: dict[str, Array] = {}
    if "data" in request.planes:
        outs["data"] = data[cut].copy()
        if rbox:
            outs["data"][rays] = percentiles(data, a.region, want, (rbox, rbox), shape)[0][rays]
    if "variance" in request.planes:
        outs["variance"] = a.plane("variance")[cut].copy()
        if rbox:
            largest = surroundings(a.plane("variance"), a.region, want, (rbox, rbox), shape)
            windows = np.lib.stride_tricks.sliding_window_view(largest, (rbox, rbox))
            outs["variance"][rays] = FMAX.reduce(windows[rays].reshape(-1, rbox * rbox), axis=1)
    if "mask" in request.planes:
        old = np.zeros(want.shape, mask_dtype) if a.mask is None else a.mask[cut].astype(mask_dtype)
        outs["mask"] = old | np.where(rays, old.dtype.type(flags[0] | (flags[1] if rbox else 0)), old.dtype.type(0))
    return Block(want, outs.get("data"), outs.get("variance"), outs.get("mask"))


def deviation_filter(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Return the standard deviation that the median absolute deviation of the box about each pixel stands for."""
    around = surroundings(a.plane("data"), a.region, request.region, size, shape)
    out = np.empty(request.region.shape, around.dtype)
    _deviations(np.ascontiguousarray(around), size, out)
    return Block(request.region, out)


@compiled
def _deviations(around: Array, size: tuple[int, int], out: Array) -> None:
    """Compute deviations box by box."""
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
    """Return the deviation of the first ``count`` numbers, which are changed; NaN if there is none."""
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
