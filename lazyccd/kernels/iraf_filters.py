"""Medians and scatter as IRAF's tasks crmedian and ccdmask take them (noao.imred.crutil and ccdred)."""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.rank_filter import rank_filter
from lazyccd.sections import Region

ONE_SIGMA = (0.1587, 0.8413)
"""Fractions of a normal distribution below one standard deviation under and over the middle."""

HALF_SIGMA = (0.309, 0.691)
"""The same for half a standard deviation."""

RUNS = 10
"""Lengths of the stretches of a column that are summed: up to this all, then each twice the one before, at last all of it."""


def inner_median(plane: Array, have: Region, want: Region, size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the lower median of the box about each pixel of a region; at the edge the box is pushed inside.

    NaN counts as larger than everything. A box is never larger than the image.
    """
    box = (min(size[0], shape[0]), min(size[1], shape[1]))
    picks, cut = [], []
    ends = zip((want.y0, want.x0), (want.y1, want.x1), (have.y0, have.x0), shape, box, strict=True)
    for low, high, first, length, n in ends:
        starts = np.clip(np.arange(low, high) - (n - 1) // 2, 0, length - n)
        picks.append(starts - starts[0])
        cut.append(slice(starts[0] - first, starts[-1] + n - first))
    known = plane[cut[0], cut[1]]
    known = np.where(np.isnan(known), known.dtype.type(np.inf), known)
    medians = rank_filter(known, box, ((box[0] * box[1] - 1) // 2,))[0]
    return medians[np.ix_(picks[0], picks[1])]


def box_of(place: int, size: int, length: int, *, early: bool) -> int:
    """Return which box of a row of boxes a pixel belongs to.

    What is left at the end belongs to the last whole box; with ``early`` so does a last box that ends with the image.
    """
    return min(place // size, max((length - early) // size - 1, 0))


def box_scatter(
    plane: Array, have: Region, want: Region, size: tuple[int, int], shape: tuple[int, int],
    fractions: tuple[float, float], early: tuple[bool, bool],
) -> Array:  # fmt: skip
    """Return for each pixel of a region the distance of two elements of its box, those nearest to some fractions."""
    out = np.empty(want.shape, plane.dtype)
    rows = [box_of(y, size[0], shape[0], early=early[0]) for y in range(want.y0, want.y1)]
    columns = [box_of(x, size[1], shape[1], early=early[1]) for x in range(want.x0, want.x1)]
    for row in sorted(set(rows)):
        for column in sorted(set(columns)):
            box = Region(row * size[0], (row + 1) * size[0], column * size[1], (column + 1) * size[1]).clip(shape)
            values = plane[box.within(have)]
            values = np.sort(values[~np.isnan(values)])
            low, high = (int(fraction * values.size + 0.5) - 1 for fraction in fractions)
            scatter = values[high] - values[max(low, 0)] if values.size else np.nan
            out[np.ix_(np.equal(rows, row), np.equal(columns, column))] = scatter
    return out


def crmedian(
    request: Request,
    a: Block,
    *,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    noise: tuple[float, float, float],
    shape: tuple[int, int],
    flags: tuple[int, int],
    mask_dtype: str,
) -> Block:
    """Flag pixels far below or above the median of a box, and replace them by it."""
    want, cut = request.region, request.region.within(a.region)
    data = a.plane("data")
    middle = inner_median(data, a.region, want, median_size, shape)
    if any(noise):
        positive = np.maximum(middle, 0)
        sigma = np.sqrt(noise[0] + noise[1] * positive + noise[2] * positive * positive)
    else:
        sigma = box_scatter(data, a.region, want, sigma_size, shape, ONE_SIGMA, (True, False)) / 2
    rest = (data[cut] - middle) / sigma
    found = (rest < -limits[0]) | (rest > limits[1])
    outs: dict[str, Array] = {}
    if "data" in request.planes:
        outs["data"] = np.where(found, middle, data[cut])
    if "variance" in request.planes:
        own = a.plane("variance")
        outs["variance"] = np.where(found, inner_median(own, a.region, want, median_size, shape), own[cut])
    if "mask" in request.planes:
        old = np.zeros(want.shape, mask_dtype) if a.mask is None else a.mask[cut].astype(mask_dtype)
        outs["mask"] = old | np.where(found, old.dtype.type(flags[0] | flags[1]), old.dtype.type(0))
    return Block(want, outs.get("data"), outs.get("variance"), outs.get("mask"))


def find_bad(
    request: Request,
    a: Block,
    *,
    median_size: tuple[int, int],
    sigma_size: tuple[int, int],
    limits: tuple[float, float],
    ngood: int,
    shape: tuple[int, int],
) -> Block:
    """Return a boolean mask of deviant pixels, stretches of columns whose sums deviate, and short gaps between them.

    The block holds whole columns.
    """
    want = request.region._replace(y0=0, y1=shape[0])
    data = np.where(np.isfinite(a.plane("data")), a.plane("data"), a.plane("data").dtype.type(np.nan))
    rest = data[want.within(a.region)] - inner_median(data, a.region, want, median_size, shape)
    sigma = box_scatter(data, a.region, want, sigma_size, shape, HALF_SIGMA, (False, True))
    bad = np.isnan(rest) | (rest < -limits[0] * sigma) | (rest > limits[1] * sigma)
    for x in range(bad.shape[1]):
        column = bad[:, x].copy()
        _flag_sums(rest[:, x].astype(float), sigma[:, x].astype(float), limits, column)
        _close_gaps(column, ngood)
        bad[:, x] = column
    return Block(request.region, bad[request.region.y0 : request.region.y1])


@compiled
def _flag_sums(rest: Array, sigma: Array, limits: tuple[float, float], bad: Array) -> None:
    """Flag stretches of a column whose sum over good pixels is off, for longer and longer ones."""
    count = rest.size
    sums, squares, good = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
    length = 2
    while length <= count:
        for y in range(count):
            counts = 0.0 if bad[y] else 1.0
            sums[y + 1] = sums[y] + (rest[y] if not bad[y] else 0.0)
            squares[y + 1] = squares[y] + (sigma[y] ** 2 if not bad[y] else 0.0)
            good[y + 1] = good[y] + counts
        for y in range(count - length + 1):
            if good[y + length] == good[y]:
                continue
            total, deviation = sums[y + length] - sums[y], np.sqrt(squares[y + length] - squares[y])
            if total < -limits[0] * deviation or total > limits[1] * deviation:
                bad[y : y + length] = True
        longer = length + 1 if length < RUNS else 2 * length
        length = count if length < count < longer else longer


@compiled
def _close_gaps(bad: Array, ngood: int) -> None:
    """Flag fewer than ``ngood`` good pixels between bad ones of a column, or one and the edge.

    A single pixel at the end of a column stays good, as it does in IRAF.
    """
    last = -1
    for y in range(bad.size):
        if bad[y]:
            if y - last - 1 < ngood:
                bad[last + 1 : y] = True
            last = y
    if last >= 0 and 1 < bad.size - last - 1 < ngood:
        bad[last + 1 :] = True
