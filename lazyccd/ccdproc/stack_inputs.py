"""The values of a stack as lazyccd's kernels take them, and the statistics that a Combiner asks for.

Kernels are imported where they are called: importing numba takes a quarter of the time of `import ccdproc`, and many scripts
combine nothing, or so little that NumPy is done before; see `lazyccd.ccdproc.small_stacks`.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
from astropy.stats import mad_std
from astropy.utils.exceptions import AstropyUserWarning

from lazyccd.ccdproc import small_stacks
from lazyccd.ccdproc.filters import sigma_func

Array = np.ndarray[Any, Any]

MEANS = ("mean", np.mean, np.nanmean, np.ma.mean)
MEDIANS = ("median", np.median, np.nanmedian, np.ma.median)
DEVIATIONS = ("std", np.std, np.nanstd, np.ma.std)
MAD_DEVIATIONS = ("mad_std", mad_std, sigma_func)
"""Names and functions of what the kernels compute."""


def is_one_of(function: object, known: tuple[object, ...]) -> bool:
    """Return whether a function is one of those known, or its name is."""
    return any(function is each if callable(each) else function == each for each in known)


class StackInputs:
    """Values, and which of them count.

    Parameters
    ----------
    stack
        A masked array, images along the first axis. NaN counts as masked.
    """

    def __init__(self, stack: Any) -> None:
        values: Array = stack.data
        if values.dtype not in (np.float32, np.float64) or not values.dtype.isnative:
            values = values.astype(float)
        self.shape = values.shape[1:]
        self.values = np.ascontiguousarray(values).reshape(len(values), -1)
        masked = np.ma.getmaskarray(stack).reshape(self.values.shape)
        self.use: Array = ~(masked | np.isnan(self.values))

    def _loops(self, *, medians: bool = False) -> Any:
        """Return the module whose functions combine the stack sooner, for medians that of kernels if not all is finite."""
        small = not small_stacks.kernels_pay(self.values.size)
        if small and (not medians or bool((np.isfinite(self.values) | ~self.use).all())):
            return small_stacks
        from lazyccd.kernels.stack import loops, sorting

        return sorting if medians else loops

    @cached_property
    def _spread(self) -> tuple[Array, Array, Array]:
        """How many values each pixel has, their mean and their squared distances from it."""
        found: tuple[Array, Array, Array] = self._loops().mean_and_squares(self.values, self.use)
        return found

    @property
    def mean(self) -> Array:
        """The mean of each pixel."""
        return self._spread[1].reshape(self.shape)

    @property
    def deviation(self) -> Array:
        """The standard deviation of each pixel."""
        count, _, squares = self._spread
        with np.errstate(invalid="ignore"):
            return np.sqrt(squares / count).reshape(self.shape)

    @cached_property
    def _median(self) -> tuple[Array, Array]:
        """The median of each pixel, and the median distance from it."""
        # differences of infinities are NaN, which NumPy sorts in another way
        found: tuple[Array, Array] = self._loops(medians=True).median_and_deviation(self.values, self.use)
        return found

    @property
    def median(self) -> Array:
        """The median of each pixel."""
        return self._median[0].reshape(self.shape)

    @property
    def mad_deviation(self) -> Array:
        """The standard deviation of each pixel as its median absolute deviation has it."""
        return (small_stacks.MAD_TO_SIGMA * self._median[1]).reshape(self.shape)

    def weighted_sum(self, weights: Array | None) -> tuple[Array, Array]:
        """Return the weighted sum of each pixel, and the sum of its weights; one weight per image or per value."""
        if weights is None:
            weights = np.ones(len(self.values))
        given = np.ascontiguousarray(weights, float).reshape(len(self.values), -1)
        if weights.ndim == 1:
            total, norm = self._loops().weighted_sum(self.values, self.use, given[:, 0])
        else:
            total, norm = self._loops().pixel_weighted_sum(self.values, self.use, given)
        return total.reshape(self.shape), norm.reshape(self.shape)

    def beyond(self, low: float, high: float, center: object, deviation: object) -> Array | None:
        """Return which values are not finite or so many deviations from the center; None if no kernel computes these."""
        by_mean, by_mad = is_one_of(center, MEANS), is_one_of(deviation, MAD_DEVIATIONS)
        if not ((by_mean or is_one_of(center, MEDIANS)) and (by_mad or is_one_of(deviation, DEVIATIONS))):
            return None
        use = np.isfinite(self.values)
        if not use.all():
            # as astropy's function does
            message = "Input data contains invalid values (NaNs or infs), which were automatically clipped."
            warnings.warn(message, AstropyUserWarning, stacklevel=3)
        if small_stacks.kernels_pay(self.values.size):
            from lazyccd.kernels.stack.sigma_clip import reject_deviant
            from lazyccd.kernels.stack.sorting import sorting_network

            network, nothing = sorting_network(len(self.values)), np.empty((0, 0))
            # numba would compile the kernel anew for a limit that is an integer, which takes 5 s
            reject_deviant(self.values, use, network, by_mean, by_mad, float(low), float(high), 1, nothing)
        else:
            small_stacks.reject_once(self.values, use, by_mean, by_mad, low, high)
        rejected: Array = ~use.reshape(-1, *self.shape)
        return rejected
