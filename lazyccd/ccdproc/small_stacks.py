"""What the kernels of stacks compute, by NumPy, to the bit: for stacks that are done before numba is imported.

Each function does the arithmetic of the kernel of its name in `lazyccd.kernels.stack`, in the same order. They take 5 to 30 ns for
a value, kernels 1 to 3; but numba's import, and loading the kernels, take half a second. `kernels_pay` says which to call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAD_TO_SIGMA = 1.482602218505602
"""That of `lazyccd.kernels.quantiles`, whose import loads numba."""

WORTH_VALUES = 2**24
"""Values that NumPy may combine in a process, which takes about as long as it takes to load the kernels."""

BAND_VALUES = 2**17
"""Values that are combined at a time, so that they stay in the processor's cache."""

_combined = 0


def kernels_pay(values: int) -> bool:
    """Return whether so many more values are combined sooner by kernels, in view of all that this process has combined.

    A process that combines much loses no more than the half second that it did not know of it.
    """
    global _combined
    _combined += values
    return _combined > WORTH_VALUES


@np.errstate(all="ignore")
def mean_and_squares(values: Array, use: Array) -> tuple[Array, Array, Array]:
    """Return how many inputs count, their plain mean (NaN where there is none) and the sum of squared distances from it."""
    count = np.count_nonzero(use, axis=0).astype(np.int32)
    mean, squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for cut in _bands(values):
        own, sums, counts = mean[cut], squares[cut], use[:, cut]
        for line, counted in zip(values[:, cut], counts, strict=True):
            own += np.where(counted, line, 0)
        own /= count[cut]
        for line, counted in zip(values[:, cut], counts, strict=True):
            distance = line - own
            distance *= distance
            sums += np.where(counted, distance, 0)
    return count, mean, squares


@np.errstate(all="ignore")
def median_and_deviation(values: Array, use: Array) -> tuple[Array, Array]:
    """Return the median of the inputs that count, all finite, and their median distance from it; NaN where there is none."""
    median, deviation = np.empty(values.shape[1]), np.empty(values.shape[1])
    for cut in _bands(values):
        counts = use[:, cut]
        # infinity sorts behind every input that counts
        inputs = np.where(counts, values[:, cut], values.dtype.type(np.inf))
        count = np.count_nonzero(counts, axis=0)
        median[cut] = _middle(inputs.copy(), count)
        deviation[cut] = _middle(np.abs(inputs - median[cut]), count)
    return median, deviation


def weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each frame."""
    return pixel_weighted_sum(values, use, np.broadcast_to(weights[:, None], values.shape))


@np.errstate(all="ignore")
def pixel_weighted_sum(values: Array, use: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights; one weight for each value."""
    total, norm = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for cut in _bands(values):
        for line, counted, weight in zip(values[:, cut], use[:, cut], weights[:, cut], strict=True):
            total[cut] += np.where(counted, weight * line, 0)
            norm[cut] += np.where(counted, weight, 0)
    return total, norm


@np.errstate(all="ignore")
def reject_once(values: Array, use: Array, by_mean: bool, by_mad: bool, low: float, high: float) -> None:
    """Reject inputs too many deviations from the center; see `lazyccd.kernels.stack.sigma_clip.reject_deviant`.

    Parameters
    ----------
    values, use
        Inputs, float32 or float64, and which count, bool; frames x pixels. ``use`` is cleared where an input is rejected.
    by_mean, by_mad
        Whether the center is the mean, else the median; whether the deviation is by the median distance from the median.
    low, high
        How many deviations below and above.
    """
    center = deviation = np.empty(0)
    if by_mad or not by_mean:
        center, deviation = median_and_deviation(values, use)
        deviation *= MAD_TO_SIGMA
    if by_mean or not by_mad:
        count, mean, squares = mean_and_squares(values, use)
        center = mean if by_mean else center
        deviation = deviation if by_mad else np.sqrt(squares / count)
    below, above = center - low * deviation, center + high * deviation
    for line, counted in zip(values, use, strict=True):
        counted &= ~((line < below) | (line > above))


def _bands(values: Array) -> Iterator[slice]:
    """Yield stretches of pixels."""
    step = max(1, BAND_VALUES // len(values))
    for first in range(0, values.shape[1], step):
        yield slice(first, first + step)


def _middle(values: Array, count: Array) -> Array:
    """Return the median of those of each pixel that count, which sort before the others; NaN where there is none."""
    _sort(values)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    if count.min() == count.max():
        ends = values[low[0]], values[high[0]]
    else:
        ends = tuple(np.take_along_axis(values, place[None], 0)[0] for place in (low, high))
    # the sum of two float32 is exact in double precision
    out: Array = 0.5 * (ends[0].astype(float) + ends[1])
    out[count == 0] = np.nan
    return out


def _sort(values: Array) -> None:
    """Sort the values of each pixel in place, by comparing neighbours: of five frames in a tenth of the time of `numpy.sort`."""
    frames = len(values)
    if frames > 10:
        values.sort(axis=0)
        return
    lower = np.empty_like(values[0])
    for number in range(frames):
        for k in range(number % 2, frames - 1, 2):
            np.minimum(values[k], values[k + 1], out=lower)
            np.maximum(values[k], values[k + 1], out=values[k + 1])
            values[k] = lower
