"""Bad pixels of a detector: found in a ratio of flats, grown, and interpolated over."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.block_reduce import as_blocks
from lazyccd.kernels.filters import percentiles
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.sections import Region

LOW, HIGH = 30.9, 69.1
"""Percentiles of a normal distribution half a standard deviation below and above the middle."""


def boxes_of(region: Region, size: tuple[int, int], shape: tuple[int, int]) -> list[Region]:
    """Return the boxes of a lattice from pixel (0, 0) that touch a region, cut at the edge of the image."""
    rows = range(region.y0 // size[0] * size[0], region.y1, size[0])
    columns = range(region.x0 // size[1] * size[1], region.x1, size[1])
    return [Region(y, y + size[0], x, x + size[1]).clip(shape) for y in rows for x in columns]


def find_bad(
    request: Request,
    a: Block,
    *,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    by_blocks: bool,
    columns: bool,
    ngood: int,
    shape: tuple[int, int],
) -> Block:
    """Return a boolean mask of pixels that deviate from the median of a box by more than their neighbours scatter."""
    want = request.region
    if columns:
        want = want.grow(2 * (ngood + 1), 0).clip(shape)
    data = np.where(np.isfinite(a.plane("data")), a.plane("data"), a.plane("data").dtype.type(np.nan))
    have = a.region
    if by_blocks:
        bad = _by_blocks(data, have, want, median_size, sigma_size, limits, columns=columns, shape=shape)
    else:
        bad = _by_filters(data, have, want, median_size, sigma_size, limits, shape)
    bad |= np.isnan(data[want.within(have)])
    if columns:
        close_gaps(bad, want.y0, shape[0] - ngood - 2, ngood)
    return Block(request.region, bad[request.region.within(want)])


def _beyond(values: Array, sigma: Any, limits: tuple[float, float]) -> Array:
    """Return where values lie below or above so many standard deviations; False where either is NaN."""
    return np.asarray((values < -limits[0] * sigma) | (values > limits[1] * sigma))


def _by_filters(
    data: Array,
    have: Region,
    want: Region,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    shape: tuple[int, int],
) -> Array:
    """Flag pixels by the percentiles of the box about each."""
    inner = want.grow(sigma_size[0] // 2, sigma_size[1] // 2).clip(shape)
    rest = data[inner.within(have)] - percentiles(data, have, inner, median_size, shape)[0]
    low, high = percentiles(rest, inner, want, sigma_size, shape, (LOW, HIGH))
    return _beyond(rest[want.within(inner)], (high - low) / 2.0, limits)


def _by_blocks(
    data: Array,
    have: Region,
    want: Region,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    *,
    columns: bool,
    shape: tuple[int, int],
) -> Array:
    """Flag pixels by the percentiles of the box of a lattice in which each lies."""
    whole = want.complete(sigma_size).clip(shape)
    rest = data[whole.within(have)] - percentiles(data, have, whole, median_size, shape)[0]
    bad = np.zeros(whole.shape, bool)
    for rows, across in _groups(whole.shape, sigma_size):
        size = min(sigma_size[0], rows.stop - rows.start), min(sigma_size[1], across.stop - across.start)
        boxes = as_blocks(rest[rows, across], size)
        flagged = _flag_boxes(boxes, limits, columns=columns)
        bad[rows, across] = flagged.swapaxes(1, 2).reshape(rest[rows, across].shape)
    return bad[want.within(whole)]


def _groups(shape: tuple[int, int], size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the parts of an array that hold boxes of one shape: the whole ones, and those cut by the edge."""
    cuts = []
    for length, side in zip(shape, size, strict=True):
        full = length // side * side
        cuts.append([part for part in (slice(0, full), slice(full, length)) if part.stop > part.start])
    return [(rows, columns) for rows in cuts[0] for columns in cuts[1]]


def _flag_boxes(boxes: Array, limits: tuple[float, float], *, columns: bool) -> Array:
    """Flag pixels of boxes, whose axes are the last two, by the percentiles of each."""
    flat = boxes.reshape(*boxes.shape[:2], -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a box that knows nothing
        find = np.nanpercentile if np.isnan(flat).any() else np.percentile
        low, high = find(flat, [LOW, HIGH], axis=-1)
    flagged = _beyond(boxes, ((high - low) / 2.0)[..., None, None], limits)
    return flagged | _bad_columns(boxes, flagged, limits) if columns else flagged


def _bad_columns(boxes: Array, flagged: Array, limits: tuple[float, float]) -> Array:
    """Return which columns of boxes are bad as a whole, by ccdproc's formula."""
    total = np.where(flagged | np.isnan(boxes), boxes.dtype.type(0), boxes).sum(axis=-2, keepdims=True)
    total[total <= 0] = 0
    gone = flagged.all(axis=-2, keepdims=True)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(boxes.shape[-1] - total)
    return _beyond(np.where(gone, 1, total), np.where(gone, np.nan, sigma), limits)


@compiled
def close_gaps(bad: Array, first: int, last: int, ngood: int) -> None:
    """Flag what lies along a column between two bad pixels with at most ``ngood`` good ones between them.

    The lower of the two must not be above row ``last`` of the image; ``first`` is the row of the image where ``bad`` begins.
    """
    for x in range(bad.shape[1]):
        for y in range(min(bad.shape[0], last + 1 - first)):
            if not bad[y, x]:
                continue
            for end in range(y + 2, min(bad.shape[0], y + ngood + 2)):
                if bad[end, x]:
                    bad[y:end, x] = True


def deviation_boxes(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Return the deviation, by the median absolute deviation, of the box of a lattice in which each pixel lies."""
    out = np.empty(request.region.shape, a.plane("data").dtype)
    for box in boxes_of(request.region, size, shape):
        values = a.plane("data")[box.within(a.region)]
        values = values[~np.isnan(values)]
        seen = box.intersect(request.region)
        deviation = np.median(np.abs(values - np.median(values))) * MAD_TO_SIGMA if values.size else np.nan
        out[seen.within(request.region)] = deviation
    return Block(request.region, out)


def grow_flags(request: Request, a: Block, *, bits: int, radius: float) -> Block:
    """Set each of some bits within a radius of pixels that have it."""
    cut = request.region.within(a.region)
    mask = None
    if "mask" in request.planes:
        given = a.plane("mask")
        mask = given[cut].copy()
        _grow(given, given.dtype.type(bits), float(radius) ** 2, int(radius), (cut[0].start, cut[1].start), mask)
    planes = {name: a.plane(name)[cut] for name in ("data", "variance") if name in request.planes}
    return Block(request.region, mask=mask, **planes)


@compiled
def _grow(given: Array, bits: Any, square: float, reach: int, origin: tuple[int, int], out: Array) -> None:
    """Put the chosen bits of each pixel on all within a distance."""
    for y in range(given.shape[0]):
        for x in range(given.shape[1]):
            found = given[y, x] & bits
            if found == 0:
                continue
            for j in range(max(0, y - reach - origin[0]), min(out.shape[0], y + reach + 1 - origin[0])):
                for i in range(max(0, x - reach - origin[1]), min(out.shape[1], x + reach + 1 - origin[1])):
                    if (j + origin[0] - y) ** 2 + (i + origin[1] - x) ** 2 <= square:
                        out[j, i] |= found


def interpolate(
    request: Request, a: Block, *, bad_bits: int, flag: int, axes: tuple[bool, bool], reach: int, mask_dtype: str
) -> Block:
    """Interpolate bad pixels linearly between the nearest good ones along columns, rows, or the shorter of both gaps."""
    cut = request.region.within(a.region)
    r, nothing = request.region, np.empty((0, 0), np.float32)
    mask = np.zeros(a.region.shape, mask_dtype) if a.mask is None else a.mask.astype(mask_dtype, copy=False)
    planes: dict[str, Array] = {}
    for name in request.planes - {"mask"}:
        planes[name] = a.plane(name)[cut].copy()
    if "mask" in request.planes:
        planes["mask"] = mask[cut].copy()
    bad = (mask & mask.dtype.type(bad_bits)) != 0
    if a.data is not None:
        bad |= np.isnan(a.data)
    _interpolate(
        np.argwhere(bad[cut]),
        (r.y0 - a.region.y0, r.x0 - a.region.x0),
        (bad, nothing if a.data is None else a.data, nothing if a.variance is None else a.variance),
        (planes.get("data", nothing), planes.get("variance", nothing), planes.get("mask", mask[:0])),
        mask.dtype.type(flag),
        axes,
        reach,
    )
    return Block(request.region, **planes)


@compiled
def _nearest(bad: Array, y: int, x: int, dy: Any, dx: Any, reach: int) -> int:
    """Return how far the nearest good pixel in a direction is; 0 if there is none within reach."""
    for k in range(1, reach + 1):
        j, i = y + k * dy, x + k * dx
        if j < 0 or i < 0 or j >= bad.shape[0] or i >= bad.shape[1]:
            return 0
        if not bad[j, i]:
            return k
    return 0


@compiled
def _interpolate(
    places: Array, origin: tuple[int, int], given: Any, outs: Any, flag: Any, axes: tuple[bool, bool], reach: int
) -> None:
    """Fill bad pixels; those without a good one within reach on either side stay as they are."""
    bad, data, variance = given
    new_data, new_variance, new_mask = outs
    none, one = np.int64(0), np.int64(1)  # as literals, these would have the search compiled for each direction
    for p in range(places.shape[0]):
        row, column = places[p]
        y, x = row + origin[0], column + origin[1]
        up = down = left = right = 0
        if axes[0]:
            up, down = _nearest(bad, y, x, -one, none, reach), _nearest(bad, y, x, one, none, reach)
        if axes[1]:
            left, right = _nearest(bad, y, x, none, -one, reach), _nearest(bad, y, x, none, one, reach)
        along_x = _is_better(left, right, up, down)
        before, after = (left, right) if along_x else (up, down)
        if before == 0 and after == 0:
            continue
        step = (0, 1) if along_x else (1, 0)
        y0, x0, y1, x1 = y - before * step[0], x - before * step[1], y + after * step[0], x + after * step[1]
        if before == 0:
            y0, x0 = y1, x1
        if after == 0:
            y1, x1 = y0, x0
        share = 0.5 if before == 0 or after == 0 else before / (before + after)
        if new_data.size > 0:
            new_data[row, column] = (1 - share) * data[y0, x0] + share * data[y1, x1]
        if new_variance.size > 0:
            new_variance[row, column] = max(variance[y0, x0], variance[y1, x1])
        if new_mask.size > 0:
            new_mask[row, column] |= flag


@compiled
def _is_better(a0: int, a1: int, b0: int, b1: int) -> bool:
    """Return whether one gap is to be preferred: closed at both ends, then shorter."""
    a_closed, b_closed = a0 > 0 and a1 > 0, b0 > 0 and b1 > 0
    if a_closed != b_closed:
        return a_closed
    if a0 + a1 == 0 or b0 + b1 == 0:
        return a0 + a1 > 0
    return a0 + a1 <= b0 + b1
