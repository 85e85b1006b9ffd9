"""Statistics of whole frames by which they are scaled, and weights of their pixels.

Each function is the kernel of a scalar, or of a step below the stack. Statistics that IRAF's imcombine has follow its code to
the bit: it takes them of a grid of at most 100000 pixels, in single precision, with ranks that begin at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lazyccd.errors import EmptyFrameWarning, warn
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.moments import mean_and_deviation
from lazyccd.kernels.quantiles import MAD_TO_SIGMA

MOST_PIXELS = 100000
"""imcombine takes every pixel if there are fewer than this, else every second, third ... tenth along each axis."""

MEAN = 3
"""Place of the mean among the results of `mean_and_deviation`."""

FEWEST, SHARE, BIN, STEP = 10, 0.7, 0.1, 0.01
"""imcombine's mode: least number of pixels, central share of them, and bin and step as fractions of their range."""


def mean_only(partials: Sequence[Array], **params: Any) -> Array:
    """Return the mean of `mean_and_deviation`."""
    return np.asarray(mean_and_deviation(partials, **params)[MEAN])


def sample_statistic(block: Block, *, what: str, bad_bits: int, name: str = "") -> Array:
    """Return mode, median or mean of the good pixels as IRAF's imcombine does; NaN without any.

    The median of an even number of pixels is the lower middle one. ``sky`` gives that median and 1.4826 times the median distance
    from it, and warns if there is no good pixel: the frame of this name adds nothing to a mosaic.
    """
    data = block.plane("data")
    # masked pixels count for nothing: one NaN or hot column must not scale a frame
    good = np.isfinite(data)
    if block.mask is not None:
        good &= (block.mask & block.mask.dtype.type(bad_bits)) == 0
    values = data[good]
    if values.size == 0 and what == "sky":
        warn(
            f"{name or 'a frame'}: all of the {data.size} pixels from which its sky is measured are NaN or masked; it adds nothing to the "
            "mosaic if the others are too. Leave it out, or look at its mask.",
            EmptyFrameWarning,
        )
    if values.size == 0:
        return np.full(2 if what == "sky" else (), np.nan)
    if what == "mean":
        # one running sum in the data's own type, as IRAF's loop has it: NumPy's pairwise sum has other bits
        return np.array(np.add.accumulate(values)[-1] / values.dtype.type(values.size), float)
    values = np.sort(values)
    if what == "mode":
        return np.array(mode(values), float)
    middle = np.array(values[max(values.size // 2 - 1, 0)], float)
    return np.array([middle, MAD_TO_SIGMA * np.median(np.abs(values - middle))]) if what == "sky" else middle


def mode(values: Array) -> float:
    """Return the mode of sorted values: the middle one in the fullest bin that slides over their central part.

    Examples
    --------
    >>> mode(np.sort(np.r_[np.zeros(5), np.linspace(3, 3.1, 30), np.full(5, 9)])) < 3.1
    True
    """
    n = values.size
    if n < FEWEST:
        return float(values[max(n // 2 - 1, 0)])
    # not 3 median - 2 mean, as the word is used elsewhere (icstat.gx); in IRAF's single precision
    kind = np.float32
    first, last = int(1 + n * (1 - SHARE) / 2) - 1, int(1 + n * (1 + SHARE) / 2) - 1
    start, end = kind(values[first]), kind(values[last])
    if start == end:
        return float(start)
    step, width = kind(STEP) * (end - start), kind(BIN) * (end - start)
    low = high = first
    most, found, edge = 0, float(values[first]), start - step
    inner = values[first:last]
    while high < last:
        edge = kind(edge + step)
        low = max(low, first + int(np.searchsorted(inner, edge, side="left")))
        high = max(high, first + int(np.searchsorted(inner, kind(edge + width), side="left")))
        if high - low > most:
            most = high - low
            # IRAF's arrays begin at 1, and the middle of two ranks is rounded down
            found = float(values[(low + 1 + high + 1) // 2 - 1])
    return found


def inverse_variance(request: Request, a: Block, *, size: int, shape: tuple[int, int]) -> Block:
    """Return one over the median variance of a box of pixels; 0 where that is not a positive number.

    Parameters
    ----------
    request
        The region of weights that is asked for.
    a
        A block with variances, larger by half a box.
    size
        Pixels along a side of the box; 1 for each pixel's own variance.
    shape
        Rows and columns of the whole image, at whose edges boxes are cut.
    """
    from lazyccd.kernels.filters import percentiles

    part = percentiles(a.plane("variance"), a.region, request.region, (size, size), shape)[0].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(np.isfinite(part) & (part > 0), 1 / part, 0.0)
    return Block(request.region, weights)


def variance_as_data(request: Request, a: Block) -> Block:
    """Return the variance as data."""
    return Block(request.region, a.plane("variance") if "data" in request.planes else None, None, a.mask)


def sky_as_image(request: Request, *, sky: Array, power: int) -> Block:
    """Return a number of the sky of a frame as an image, which takes the memory of that number.

    Parameters
    ----------
    request
        The region.
    sky
        Level and standard deviation, float64.
    power
        1 for the level, 2 for the variance.
    """
    return Block(request.region, data=np.broadcast_to(sky[power - 1] ** power, request.region.shape))
