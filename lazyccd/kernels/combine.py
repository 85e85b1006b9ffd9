"""Stacks of blocks combined pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.jit import compiled

Array = npt.NDArray[Any]

MAD_TO_STD = 1.482602218505602
MEDIAN_FACTORS = np.array([1.0, 1.0, 1.0, 1.35, 1.19, 1.43, 1.29, 1.47, 1.35, 1.49, 1.38])
"""Variance of the median of n values in units of that of their mean, for n up to 10; pi/2 beyond."""


@compiled
def _sort(values: Array, n: int) -> None:
    """Sort the first n values in place."""
    for i in range(1, n):
        value = values[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@compiled
def _median(values: Array, n: int) -> float:
    """Return the median of n sorted values."""
    half = n // 2
    return float(values[half] if n % 2 else 0.5 * (values[half - 1] + values[half]))


@compiled
def _clip(values: Array, order: Array, n: int, low: float, high: float, use_median: bool, use_mad: bool) -> float:
    """Return bounds of clipping as a pair packed into ``order[0:2]``; the number 0 is returned."""
    mean = 0.0
    for k in range(n):
        mean += values[k]
    mean /= n
    for k in range(n):
        order[k] = values[k]
    _sort(order, n)
    middle = _median(order, n)
    centre = middle if use_median else mean
    if use_mad:
        for k in range(n):
            order[k] = abs(values[k] - middle)
        _sort(order, n)
        spread = 1.482602218505602 * _median(order, n)
    else:
        spread = 0.0
        for k in range(n):
            spread += (values[k] - mean) ** 2
        spread = np.sqrt(spread / n)
    order[0] = centre - low * spread
    order[1] = centre + high * spread
    return 0.0


@compiled
def _result(
    values: Array,
    order: Array,
    which: Array,
    variance: Array,
    p: int,
    n: int,
    method: int,
    uncertainty: int,
    factors: Array,
) -> tuple[float, float]:
    """Return the combination of the first n values of a pixel, and its variance."""
    total = 0.0
    for k in range(n):
        total += values[k]
        order[k] = values[k]
    mean = total / n
    scatter = 0.0
    for k in range(n):
        scatter += (values[k] - mean) ** 2
    result, factor = mean, 1.0
    if method == 1:
        _sort(order, n)
        result = _median(order, n)
        factor = factors[n] if n < factors.size else 1.5707963267948966
    if uncertainty == 1:
        spread = 0.0
        for k in range(n):
            spread += variance[which[k], p]
        spread *= factor / n**2
    elif uncertainty == 2:
        spread = scatter / (n - 1) / n * factor if n > 1 else np.nan
    elif method == 1:
        for k in range(n):
            order[k] = abs(values[k] - result)
        _sort(order, n)
        spread = (1.482602218505602 * _median(order, n)) ** 2 / n
    else:
        spread = scatter / n / n
    if method == 2:
        return total, spread * n**2
    return result, spread


@compiled
def combine_rows(
    data: Array,
    variance: Array,
    use: Array,
    clip: Array,
    method: int,
    uncertainty: int,
    factors: Array,
    out: Array,
    out_variance: Array,
    used: Array,
) -> None:
    """Combine ``data[frame, pixel]``: method 0 average, 1 median, 2 sum; uncertainty 0 none, 1 propagated, 2 scatter, 3 ccdproc.

    ``clip`` holds on/off, low, high, median/mean, MAD/std. ``used`` is set where a frame took part.
    """
    frames, pixels = data.shape
    values = np.empty(frames)
    order = np.empty(frames)
    which = np.empty(frames, np.int64)
    for p in range(pixels):
        n = 0
        for f in range(frames):
            used[f, p] = False
            if use[f, p]:
                values[n] = data[f, p]
                which[n] = f
                n += 1
        if clip[0] and n > 0:
            _clip(values, order, n, clip[1], clip[2], clip[3] > 0, clip[4] > 0)
            low, high, kept = order[0], order[1], 0
            for k in range(n):
                if low <= values[k] <= high:
                    values[kept] = values[k]
                    which[kept] = which[k]
                    kept += 1
            n = kept
        for k in range(n):
            used[which[k], p] = True
        if n == 0:
            out[p] = np.nan
            out_variance[p] = np.nan
            continue
        result, spread = _result(values, order, which, variance, p, n, method, uncertainty, factors)
        out[p] = result
        out_variance[p] = spread


def combine(
    request: Request,
    blocks: list[Block],
    *,
    method: int,
    uncertainty: int,
    clip: tuple[float, float, float, float, float],
    ranks: tuple[int, ...],
    bad_bits: int,
    clipped: int,
    no_data: int,
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Combine blocks of one region; masked and non-finite pixels take no part.

    Where no frame has a good pixel, the frames whose worst plane is the least bad are used: ``ranks`` are groups of bits from
    the worst to the least bad. The mask has the bits of the frames that took part, ``clipped`` where some were rejected, and
    ``no_data`` where nothing was left.
    """
    shape = request.region.shape
    data = np.stack([block.plane("data").ravel() for block in blocks])
    has_variance = uncertainty == 1
    variance = np.stack([block.plane("variance").ravel() for block in blocks]) if has_variance else np.zeros((1, 1))
    finite = np.isfinite(data)
    masks: Array | None = None
    use: Array = finite
    if all(block.mask is not None for block in blocks):
        masks = np.stack([block.plane("mask").ravel() for block in blocks])
        use = finite & ((masks & masks.dtype.type(bad_bits)) == 0)
        for rank in range(len(ranks)):
            empty = ~use.any(axis=0)
            if not empty.any():
                break
            worse = sum(ranks[rank + 1 :])
            use[:, empty] = finite[:, empty] & ((masks[:, empty] & masks.dtype.type(worse)) == 0)
    out, out_variance = np.empty(data.shape[1]), np.empty(data.shape[1])
    used = np.empty(data.shape, bool)
    combine_rows(data, variance, use, np.array(clip), method, uncertainty, MEDIAN_FACTORS, out, out_variance, used)
    mask: Array | None = None
    if "mask" in request.planes:
        mask = np.zeros(data.shape[1], mask_dtype)
        if masks is not None:
            mask |= np.bitwise_or.reduce(np.where(used, masks, 0), axis=0).astype(mask_dtype)
        mask |= np.where((use & ~used).any(axis=0), mask.dtype.type(clipped), mask.dtype.type(0))
        mask |= np.where(~used.any(axis=0), mask.dtype.type(no_data), mask.dtype.type(0))
        mask = mask.reshape(shape)
    return Block(
        request.region,
        out.reshape(shape).astype(dtype) if "data" in request.planes else None,
        out_variance.reshape(shape).astype(dtype) if "variance" in request.planes else None,
        mask,
    )
