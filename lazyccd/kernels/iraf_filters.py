"""The noao.imred tasks crmedian (crutil) and ccdmask (ccdred) of IRAF, bit for bit.

1. The background is a moving median whose box is pushed inside at the edges (`inner_median`).
2. The scatter is a difference of two order statistics in boxes side by side (`box_scatter`).
3. crmedian replaces what is too far off by the background. ccdmask flags it, then sums ever longer stretches of each
   column to find faint bad columns, and closes short gaps.

IRAF's help is wrong in places; where it differs from the code, this follows the code. The tests compare with what IRAF
itself returned.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.rank_filter import rank_filter
from lazyccd.sections import Region

ONE_SIGMA = (0.1587, 0.8413)
"""Fractions of a normal distribution that lie below minus and plus one standard deviation."""

HALF_SIGMA = (0.309, 0.691)
"""The same for half a standard deviation."""

RUNS = 10
"""Stretches of a column that are summed have all lengths up to this, then each twice the one before, at last the whole."""


def inner_median(plane: Array, have: Region, want: Region, size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the lower median of the box about each pixel of a region.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of the region ``have``. NaN counts as larger than everything.
    have, want
        The region that ``plane`` covers, and the region of the result.
    size
        Rows and columns of the box, which is never larger than the image.
    shape
        Shape of the image, into which boxes at the edge are pushed.
    """
    box = (min(size[0], shape[0]), min(size[1], shape[1]))
    picks, cut = [], []
    ends = zip((want.y0, want.x0), (want.y1, want.x1), (have.y0, have.x0), shape, box, strict=True)
    for low, high, first, length, n in ends:
        # At the edge IRAF keeps the whole box and pushes it inside (t_ccdmask.x:165), where scipy reflects.
        starts = np.clip(np.arange(low, high) - (n - 1) // 2, 0, length - n)
        picks.append(starts - starts[0])
        cut.append(slice(starts[0] - first, starts[-1] + n - first))
    known = plane[cut[0], cut[1]]
    known = np.where(np.isnan(known), known.dtype.type(np.inf), known)
    # The lower one of the two middle pixels of an even box: statistics in IRAF take it, its imcombine their mean.
    medians = rank_filter(known, box, ((box[0] * box[1] - 1) // 2,))[0]
    return medians[np.ix_(picks[0], picks[1])]


def box_of(place: int, size: int, length: int, *, early: bool) -> int:
    """Return the number of the box, in a row of boxes, that a pixel belongs to.

    Parameters
    ----------
    place
        Index of the pixel along the axis.
    size
        Side of a box.
    length
        Pixels along the axis. Those left over at the end belong to the last whole box.
    early
        Whether a last box that ends with the image also belongs to the one before it.
    """
    # IRAF reuses the scatter of the last whole box for what is left over. Its two tasks differ by one pixel in when
    # they notice the end, hence ``early``.
    return min(place // size, max((length - early) // size - 1, 0))


def box_scatter(
    plane: Array, have: Region, want: Region, size: tuple[int, int], shape: tuple[int, int],
    fractions: tuple[float, float], early: tuple[bool, bool],
) -> Array:  # fmt: skip
    """Return, for each pixel of a region, the distance between two order statistics of its box.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of the region ``have``; NaN takes no part.
    have, want
        The region that ``plane`` covers, and the region of the result.
    size
        Rows and columns of a box; boxes lie side by side from pixel (0, 0) on.
    shape
        Shape of the image.
    fractions
        Fractions of the sorted pixels that say which two elements; the nearest ones are taken.
    early
        As in `box_of`, along y and x.
    """
    out = np.empty(want.shape, plane.dtype)
    rows = [box_of(y, size[0], shape[0], early=early[0]) for y in range(want.y0, want.y1)]
    columns = [box_of(x, size[1], shape[1], early=early[1]) for x in range(want.x0, want.x1)]
    for row in sorted(set(rows)):
        for column in sorted(set(columns)):
            box = Region(row * size[0], (row + 1) * size[0], column * size[1], (column + 1) * size[1]).clip(shape)
            values = plane[box.within(have)]
            values = np.sort(values[~np.isnan(values)])
            # IRAF rounds to the nearest element, counted from 1.
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
    """Flag pixels far below or above the median of a box, and replace them by it.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with the margins of both boxes.
    median_size, sigma_size
        Rows and columns of the boxes of background and scatter.
    limits
        Deviations below and above the background, both positive.
    noise
        ``var0``, ``var1`` and ``var2``: the variance is a polynomial of the background. If all are 0 the scatter is measured.
    shape
        Shape of the image.
    flags
        Bits of CR and INTERP.
    mask_dtype
        Dtype of the mask.
    """
    want, cut = request.region, request.region.within(a.region)
    cr, interp = flags
    data = a.plane("data")
    middle = inner_median(data, a.region, want, median_size, shape)
    var0, var1, var2 = noise
    low, high = limits
    if any(noise):
        positive = np.maximum(middle, 0)
        sigma = np.sqrt(var0 + var1 * positive + var2 * positive * positive)
    else:
        # Half the distance between the 84.13 and the 15.87 percentile.
        sigma = box_scatter(data, a.region, want, sigma_size, shape, ONE_SIGMA, (True, False)) / 2
    # One pass, no iteration: IRAF's help warns that it clips the cores of stars.
    rest = (data[cut] - middle) / sigma
    found = (rest < -low) | (rest > high)
    outs: dict[str, Array] = {}
    if "data" in request.planes:
        outs["data"] = np.where(found, middle, data[cut])
    if "variance" in request.planes:
        own = a.plane("variance")
        outs["variance"] = np.where(found, inner_median(own, a.region, want, median_size, shape), own[cut])
    if "mask" in request.planes:
        old = np.zeros(want.shape, mask_dtype) if a.mask is None else a.mask[cut].astype(mask_dtype)
        outs["mask"] = old | np.where(found, old.dtype.type(cr | interp), old.dtype.type(0))
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
    """Return a boolean mask of deviant pixels, of stretches of columns whose sums deviate, and of short gaps between them.

    Parameters
    ----------
    request
        Region wanted.
    a
        Whole columns of the image, with the margins of both boxes.
    median_size, sigma_size
        Rows and columns of the boxes of background and scatter.
    limits
        Deviations below and above the background, both positive.
    ngood
        Gaps of fewer good pixels along a column are flagged.
    shape
        Shape of the image.
    """
    low, high = limits
    want = request.region._replace(y0=0, y1=shape[0])
    data = np.where(np.isfinite(a.plane("data")), a.plane("data"), a.plane("data").dtype.type(np.nan))
    rest = data[want.within(a.region)] - inner_median(data, a.region, want, median_size, shape)
    # From the 30.9 to the 69.1 percentile, half a deviation on either side: the difference is one deviation already.
    # The help says "divided by two", the code does not.
    sigma = box_scatter(data, a.region, want, sigma_size, shape, HALF_SIGMA, (False, True))
    bad = np.isnan(rest) | (rest < -low * sigma) | (rest > high * sigma)
    for x in range(bad.shape[1]):
        column = bad[:, x].copy()
        _flag_sums(rest[:, x].astype(float), sigma[:, x].astype(float), limits, column)
        # Gaps are closed last, so that they also close between stretches.
        _close_gaps(column, ngood)
        bad[:, x] = column
    return Block(request.region, bad[request.region.y0 : request.region.y1])


@compiled
def _flag_sums(rest: Array, sigma: Array, limits: tuple[float, float], bad: Array) -> None:
    """Flag stretches of a column whose sum over good pixels deviates, for ever longer stretches.

    Parameters
    ----------
    rest
        Pixels less the background, float64, shape ``(ny,)``.
    sigma
        Their standard deviations.
    limits
        Deviations of a sum below and above 0, both positive.
    bad
        True for bad pixels; stretches are added to it.
    """
    low, high = limits
    count = rest.size
    sums, squares, good = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
    length = 2
    while length <= count:
        # Running sums over the pixels that are still good: what a shorter stretch flagged no longer counts in longer
        # ones.
        for y in range(count):
            counts = 0.0 if bad[y] else 1.0
            sums[y + 1] = sums[y] + (rest[y] if not bad[y] else 0.0)
            squares[y + 1] = squares[y] + (sigma[y] ** 2 if not bad[y] else 0.0)
            good[y + 1] = good[y] + counts
        for y in range(count - length + 1):
            if good[y + length] == good[y]:
                continue
            total, deviation = sums[y + length] - sums[y], np.sqrt(squares[y + length] - squares[y])
            if total < -low * deviation or total > high * deviation:
                # The whole stretch, its good pixels too. Sums are not updated before the next length.
                bad[y : y + length] = True
        longer = length + 1 if length < RUNS else 2 * length
        length = count if length < count < longer else longer


@compiled
def _close_gaps(bad: Array, ngood: int) -> None:
    """Flag gaps of fewer than ``ngood`` good pixels between bad ones of a column, or between one and the edge."""
    last = -1
    for y in range(bad.size):
        if bad[y]:
            if y - last - 1 < ngood:
                bad[last + 1 : y] = True
            last = y
    # A single pixel at the end of a column stays good, as it does in IRAF.
    if last >= 0 and 1 < bad.size - last - 1 < ngood:
        bad[last + 1 :] = True
