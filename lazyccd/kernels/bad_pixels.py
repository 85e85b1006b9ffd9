"""Bad pixels of a detector: found in a ratio of flats as ccdproc's ccdmask does, grown, and interpolated over.

1. `find_bad` compares each pixel with the median of a box, and the difference with the scatter of a box, which moves or is
   one of a lattice.
2. `grow_flags` puts bits on all pixels within a radius.
3. `interpolate` fills bad pixels from the nearest good ones along a column or a row.
"""

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
    """Return a boolean mask of pixels that deviate from the median of a box by more than their neighbours scatter.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with the margin that boxes and columns need.
    median_size, sigma_size
        Rows and columns of the boxes of background and scatter.
    limits
        Deviations below and above the background, both positive.
    by_blocks
        Whether scatter is that of the boxes of a lattice instead of the box about each pixel.
    columns
        Whether to find bad columns (by blocks) and to close gaps along columns.
    ngood
        Gaps of at most so many good pixels along a column are closed.
    shape
        Shape of the image.
    """
    want = request.region
    if columns:
        want = want.grow(2 * (ngood + 1), 0).clip(shape)
    data = np.where(np.isfinite(a.plane("data")), a.plane("data"), a.plane("data").dtype.type(np.nan))
    have = a.region
    if by_blocks:
        bad = _by_blocks(data, have, want, median_size, sigma_size, limits, columns=columns, shape=shape)
    else:
        bad = _by_filters(data, have, want, median_size, sigma_size, limits, shape)
    # ccdproc forgets these with byblocks: it overwrites the mask with that of each block.
    bad |= np.isnan(data[want.within(have)])
    if columns:
        close_gaps(bad, want.y0, shape[0] - ngood - 2, ngood)
    return Block(request.region, bad[request.region.within(want)])


def _beyond(values: Array, sigma: Array, limits: tuple[float, float]) -> Array:
    """Return where values lie below or above so many standard deviations; False where either is NaN."""
    low, high = limits
    return np.asarray((values < -low * sigma) | (values > high * sigma))


def _by_filters(
    data: Array,
    have: Region,
    want: Region,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    shape: tuple[int, int],
) -> Array:
    """Flag pixels by the percentiles of the box about each.

    Parameters
    ----------
    data
        Float32 or float64 pixels of the region ``have``, NaN where they are not finite.
    have, want
        The region that ``data`` covers, and the region of the result.
    median_size, sigma_size
        Rows and columns of the boxes of background and scatter.
    limits
        Deviations below and above the background, both positive.
    shape
        Shape of the image.
    """
    inner = want.grow(sigma_size[0] // 2, sigma_size[1] // 2).clip(shape)
    rest = data[inner.within(have)] - percentiles(data, have, inner, median_size, shape)[0]
    # Half a deviation on either side, as in IRAF; the two ranks share one network.
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
    """Flag pixels by the percentiles of the box of a lattice in which each lies.

    Parameters
    ----------
    data
        Float32 or float64 pixels of the region ``have``, NaN where they are not finite.
    have, want
        The region that ``data`` covers, and the region of the result.
    median_size, sigma_size
        Rows and columns of the boxes of background and scatter.
    limits
        Deviations below and above the background, both positive.
    columns
        Whether to flag columns of boxes as a whole.
    shape
        Shape of the image.
    """
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
    """Return the parts of an array whose boxes have one shape: the whole boxes, and those cut by the edge."""
    cuts = []
    for length, side in zip(shape, size, strict=True):
        full = length // side * side
        cuts.append([part for part in (slice(0, full), slice(full, length)) if part.stop > part.start])
    return [(rows, columns) for rows in cuts[0] for columns in cuts[1]]


def _flag_boxes(boxes: Array, limits: tuple[float, float], *, columns: bool) -> Array:
    """Flag pixels of boxes, whose axes are the last two, by the percentiles of each."""
    # Boxes of one shape at a time: one call of NumPy for all of them instead of one for each.
    flat = boxes.reshape(*boxes.shape[:2], -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a box that knows nothing
        # The slow function only if it is needed. Both interpolate linearly, as in ccdproc, unlike the moving box.
        find = np.nanpercentile if np.isnan(flat).any() else np.percentile
        low, high = find(flat, [LOW, HIGH], axis=-1)
    flagged = _beyond(boxes, ((high - low) / 2.0)[..., None, None], limits)
    return flagged | _bad_columns(boxes, flagged, limits) if columns else flagged


def _bad_columns(boxes: Array, flagged: Array, limits: tuple[float, float]) -> Array:
    """Return which columns of boxes are bad as a whole, by the formula of ccdproc."""
    # ccdproc's formula, not IRAF's: a deviation of the square root of (width of the box - sum).
    total = np.where(flagged | np.isnan(boxes), boxes.dtype.type(0), boxes).sum(axis=-2, keepdims=True)
    total[total <= 0] = 0
    # A column that is flagged already has no sum; ccdproc sets it to 1.
    gone = flagged.all(axis=-2, keepdims=True)
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(boxes.shape[-1] - total)
    return _beyond(np.where(gone, 1, total), np.where(gone, np.nan, sigma), limits)


@compiled
def close_gaps(bad: Array, first: int, last: int, ngood: int) -> None:
    """Flag what lies along a column between two bad pixels that are near each other.

    Parameters
    ----------
    bad
        True for bad pixels, shape ``(ny, nx)``; changed in place.
    first
        Row of the image where ``bad`` begins.
    last
        Last row of the image at which a gap may begin.
    ngood
        Most good pixels in a gap.
    """
    for x in range(bad.shape[1]):
        # Gaps of 1 to ngood pixels, though ccdproc's docs say fewer. Its loop stops ngood + 1 rows before the end of
        # the image, so gaps near the end stay.
        for y in range(min(bad.shape[0], last + 1 - first)):
            if not bad[y, x]:
                continue
            for end in range(y + 2, min(bad.shape[0], y + ngood + 2)):
                if bad[end, x]:
                    bad[y:end, x] = True


def deviation_boxes(request: Request, a: Block, *, size: tuple[int, int], shape: tuple[int, int]) -> Block:
    """Return the deviation, 1.4826 MAD, of the box of a lattice in which each pixel lies.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        Whole boxes of the image.
    size
        Rows and columns of a box; boxes lie side by side from pixel (0, 0) on.
    shape
        Shape of the image.
    """
    out = np.empty(request.region.shape, a.plane("data").dtype)
    for box in boxes_of(request.region, size, shape):
        values = a.plane("data")[box.within(a.region)]
        # Boxes side by side cover the image; ccdproc's leave out the last row and column.
        values = values[~np.isnan(values)]
        seen = box.intersect(request.region)
        deviation = np.median(np.abs(values - np.median(values))) * MAD_TO_SIGMA if values.size else np.nan
        out[seen.within(request.region)] = deviation
    return Block(request.region, out)


def grow_flags(request: Request, a: Block, *, bits: int, radius: float) -> Block:
    """Set each of some bits within a radius of the pixels that have it.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with a margin of the radius.
    bits
        Bits of the mask that grow.
    radius
        Radius in pixels.
    """
    cut = request.region.within(a.region)
    mask = None
    if "mask" in request.planes:
        given = a.plane("mask")
        mask = given[cut].copy()
        _grow(given, given.dtype.type(bits), float(radius) ** 2, int(radius), (cut[0].start, cut[1].start), mask)
    planes = {name: a.plane(name)[cut] for name in ("data", "variance") if name in request.planes}
    return Block(request.region, mask=mask, **planes)


@compiled
def _grow(given: Array, bits: int, square: float, reach: int, origin: tuple[int, int], out: Array) -> None:
    """Put the chosen bits of each pixel on all within a distance.

    Parameters
    ----------
    given
        Mask with its margin, shape ``(ny, nx)``.
    bits
        Bits that grow, of its dtype.
    square, reach
        Square of the distance, and the distance rounded down.
    origin
        Row and column of ``given`` where ``out`` begins.
    out
        Mask without the margin; bits are added to it.
    """
    top, left = origin
    for y in range(given.shape[0]):
        for x in range(given.shape[1]):
            found = given[y, x] & bits
            if found == 0:
                continue
            for j in range(max(0, y - reach - top), min(out.shape[0], y + reach + 1 - top)):
                for i in range(max(0, x - reach - left), min(out.shape[1], x + reach + 1 - left)):
                    if (j + top - y) ** 2 + (i + left - x) ** 2 <= square:
                        out[j, i] |= found


def interpolate(
    request: Request, a: Block, *, bad_bits: int, flag: int, axes: tuple[bool, bool], reach: int, mask_dtype: str
) -> Block:
    """Interpolate bad pixels linearly between the nearest good ones along columns, rows, or the shorter of both gaps.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with a margin of ``reach``.
    bad_bits
        Bits of the mask that make a pixel bad; NaN is bad too.
    flag
        Bit for pixels that were filled.
    axes
        Whether to look along columns, and along rows.
    reach
        How far the nearest good pixel may be.
    mask_dtype
        Dtype of the mask in the result.
    """
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
    """Return how far the nearest good pixel in a direction is; 0 if there is none within reach.

    Parameters
    ----------
    bad
        True for bad pixels.
    y, x
        Where to begin.
    dy, dx
        Step of the direction.
    reach
        Most steps.
    """
    for k in range(1, reach + 1):
        j, i = y + k * dy, x + k * dx
        if j < 0 or i < 0 or j >= bad.shape[0] or i >= bad.shape[1]:
            return 0
        if not bad[j, i]:
            return k
    return 0


@compiled
def _interpolate(
    places: Array,
    origin: tuple[int, int],
    given: tuple[Array, Array, Array],
    outs: tuple[Array, Array, Array],
    flag: int,
    axes: tuple[bool, bool],
    reach: int,
) -> None:
    """Fill bad pixels; those without a good pixel within reach on either side stay as they are.

    Parameters
    ----------
    places
        Rows and columns of bad pixels in the result, int64, shape ``(n, 2)``.
    origin
        Row and column of the inputs where the result begins.
    given
        Bad pixels (bool), data and variance with their margin; empty for a plane that is missing.
    outs
        Data, variance and mask of the result, which are changed; empty for a plane that is not wanted.
    flag
        Bit for filled pixels, of the mask's dtype.
    axes
        Whether to look along columns, and along rows.
    reach
        How far the nearest good pixel may be.
    """
    bad, data, variance = given
    new_data, new_variance, new_mask = outs
    # As literals, these would have the search compiled for each direction.
    none, one = np.int64(0), np.int64(1)
    along_columns, along_rows = axes
    for p in range(places.shape[0]):
        row, column = places[p]
        y, x = row + origin[0], column + origin[1]
        up = down = left = right = 0
        if along_columns:
            up, down = _nearest(bad, y, x, -one, none, reach), _nearest(bad, y, x, one, none, reach)
        if along_rows:
            left, right = _nearest(bad, y, x, none, -one, reach), _nearest(bad, y, x, none, one, reach)
        along_x = _is_better(left, right, up, down)
        before, after = (left, right) if along_x else (up, down)
        if before == 0 and after == 0:
            continue
        dy, dx = (0, 1) if along_x else (1, 0)
        y0, x0, y1, x1 = y - before * dy, x - before * dx, y + after * dy, x + after * dx
        if before == 0:
            y0, x0 = y1, x1
        if after == 0:
            y1, x1 = y0, x0
        # Both ends are the same pixel where one side is open.
        share = 0.5 if before == 0 or after == 0 else before / (before + after)
        if new_data.size > 0:
            new_data[row, column] = (1 - share) * data[y0, x0] + share * data[y1, x1]
        if new_variance.size > 0:
            # A filled pixel is not known better than the pixels that it comes from, though the mean of two would have
            # less noise.
            new_variance[row, column] = max(variance[y0, x0], variance[y1, x1])
        if new_mask.size > 0:
            new_mask[row, column] |= flag


@compiled
def _is_better(a0: int, a1: int, b0: int, b1: int) -> bool:
    """Return whether the first of two gaps is preferred: closed at both ends, then shorter.

    Parameters
    ----------
    a0, a1, b0, b1
        Distances to both ends of each gap; 0 for an open end.
    """
    a_closed, b_closed = a0 > 0 and a1 > 0, b0 > 0 and b1 > 0
    if a_closed != b_closed:
        return a_closed
    if a0 + a1 == 0 or b0 + b1 == 0:
        return a0 + a1 > 0
    return a0 + a1 <= b0 + b1
