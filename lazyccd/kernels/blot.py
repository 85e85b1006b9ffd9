"""Outliers of a frame, by comparison with the median of many frames on its own pixels (Fruchter and Hook 2002, PASP 114, 144)."""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.stack.scaling import Levels, find_scaling
from lazyccd.sections import Region

REACH = 1
"""Pixels about an outlier in which the second, lower limit holds; and those between which the slope of the median is taken."""

ROWS = 64
"""Rows that are done at a time."""


def flag_outliers(
    request: Request,
    a: Block,
    blot: Block,
    *,
    snr: tuple[float, float],
    scale: tuple[float, float],
    levels: Levels,
    frame: int,
    bit: int,
    mask_dtype: str,
    sky: Array,
    corrections: Array | None = None,
    **scalars: Array,
) -> Block:
    """Return a frame whose mask has a bit where a pixel is off the median by its noise and the slope of the median.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The frame, less its sky; one pixel larger where it has one.
    blot
        The median on the pixels of the frame; two pixels larger where it has them.
    snr
        Standard deviations of the noise that a pixel may be off: for the first, and for all neighbours of those that are outliers.
    scale
        Parts of the slope that it may be off besides: the largest difference of the median from one of four neighbours.
    levels, scalars
        By what all frames are multiplied to be on the scale of the median.
    frame
        Which of them this is.
    bit
        Bit of outliers.
    mask_dtype
        Dtype of the mask.
    sky
        Level and standard deviation of the sky; the latter is the noise of a frame without variances.
    corrections
        By what each frame is multiplied besides, as the overlaps tell: the first column.
    """
    # levels have a scale for each frame, or none
    factor = float(find_scaling(levels, len(levels.scale) or frame + 1, scalars).multipliers[frame])
    factor *= 1.0 if corrections is None else float(corrections[frame, 0])
    inner = a.crop(request.region)
    mask = np.zeros(request.region.shape, mask_dtype) if inner.mask is None else inner.mask.copy()
    y0, y1, x0, x1 = request.region
    # a dozen arrays of double precision, which no task needs for all rows at once
    for top in range(y0, y1, ROWS):
        rows = Region(top, min(top + ROWS, y1), x0, x1)
        near = rows.grow(REACH, REACH).intersect(a.region)
        wide = rows.grow(2 * REACH, 2 * REACH).intersect(blot.region)
        outliers = _outliers(a.crop(near), blot.crop(wide), snr, scale, factor, float(sky[1]))
        mask[rows.within(request.region)][outliers[rows.within(near)]] |= mask.dtype.type(bit)
    return Block(request.region, mask=mask)


def _outliers(
    a: Block, blot: Block, snr: tuple[float, float], scale: tuple[float, float], factor: float, noise_of_sky: float
) -> Array:
    """Return which pixels of a frame are outliers; those at the edges of the block lack neighbours."""
    middle, slope = _slope(blot, a.region)
    noise = np.sqrt(a.variance) if a.variance is not None else np.full(a.region.shape, noise_of_sky)
    with np.errstate(invalid="ignore"):
        off = np.abs(a.plane("data") * factor - middle)
        first, second = (off > scale[k] * slope + snr[k] * noise * abs(factor) for k in (0, 1))
    # what is not finite is off nothing: it is bad anyway, or no other frame has it
    return np.asarray(_grown(first) & second)


def _grown(flags: Array) -> Array:
    """Return flags with all neighbours of those that are set."""
    for axis in (0, 1):
        padded = np.pad(flags, [(REACH, REACH) if a == axis else (0, 0) for a in (0, 1)])
        flags = np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis).any(axis=-1))
    return flags


def _slope(blot: Block, held: Region) -> tuple[Array, Array]:
    """Return the median where a frame has pixels, and its largest difference from one of four neighbours."""
    data = blot.plane("data").astype(np.float64)
    slope = np.zeros(data.shape)
    for axis in (0, 1):
        steps = np.nan_to_num(np.abs(np.diff(data, axis=axis)))
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        for cut in (tuple(before), tuple(after)):
            slope[cut] = np.maximum(slope[cut], steps)
    place = held.within(blot.region)
    return data[place], slope[place]
