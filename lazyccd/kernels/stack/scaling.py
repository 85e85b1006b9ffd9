"""How frames are brought to one level, and what weights they get.

A value x of frame i becomes ``x * multiplier[i] + offset[i]``. Given numbers are these themselves. Where a statistic S is
given for the scale, the multiplier is S[0] / S[i]; where one, Z, is given for the zero point, the offset is
Z[0] - Z[i] * multiplier[i], so that the first frame stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError

Array: TypeAlias = npt.NDArray[Any]
Numbers: TypeAlias = tuple[float | str, ...]
"""One per frame; a word is the name of a global number, found by a task."""


@dataclass(frozen=True)
class Levels:
    """Numbers of the frames, some of which may have to be found first."""

    scale: Numbers = ()
    """Empty: nothing is scaled."""

    scale_is_statistic: bool = False
    """Whether these are levels to be made equal, and not factors."""

    zero: Numbers = ()
    """Empty: nothing is added."""

    zero_is_statistic: bool = False
    """Whether these are levels to be made equal, and not terms."""

    weights: Numbers = ()
    """Empty: all the same."""

    weights_are_variances: bool = False
    """Whether these are variances of unscaled values, and a weight is one over the scaled one."""

    weights_are_exposures: bool = False
    """Whether these are exposure times, which imcombine divides by the sky."""

    labels: tuple[str, ...] = ()
    """How messages name the frames."""


class Scaling(NamedTuple):
    """What is done to each frame."""

    multipliers: Array
    offsets: Array
    weights: Array

    @property
    def is_none(self) -> bool:
        """Whether values stay as they are."""
        return bool((self.multipliers == 1).all() and (self.offsets == 0).all())


def find_scaling(levels: Levels, count: int, numbers: Mapping[str, Array]) -> Scaling:
    """Return what is done to each frame, given the global numbers.

    Raises
    ------
    ParameterError
        Raised if a number is not finite, or a level to scale to is not above 0.

    Examples
    --------
    >>> scaling = find_scaling(Levels(scale=(10.0, 20.0), scale_is_statistic=True), 2, {})
    >>> scaling.multipliers.tolist(), scaling.weights.tolist()
    ([1.0, 0.5], [1.0, 1.0])
    """
    scale = _known(levels.scale, count, 1.0, numbers)
    zero = _known(levels.zero, count, 0.0, numbers)
    weights = _known(levels.weights, count, 1.0, numbers)
    for what, array in (("scale", scale), ("zero", zero), ("weights", weights)):
        lowest = -np.inf if what == "zero" or not (levels.scale_is_statistic or what == "weights") else 0.0
        _check(array, what, levels.labels, lowest, strict=what == "scale" or levels.weights_are_variances)
    multipliers = scale[0] / scale if levels.scale_is_statistic else scale
    offsets = zero[0] * multipliers[0] - zero * multipliers if levels.zero_is_statistic else zero
    if levels.weights_are_variances:
        weights = 1 / (weights * multipliers**2)
        weights /= weights.max()
    return Scaling(multipliers, offsets, weights)


def _known(given: Numbers, count: int, default: float, numbers: Mapping[str, Array]) -> Array:
    """Return one number per frame."""
    if not given:
        return np.full(count, default)
    return np.array([float(np.ravel(numbers[n])[0]) if isinstance(n, str) else n for n in given], float)


def _check(array: Array, what: str, labels: tuple[str, ...], lowest: float, *, strict: bool) -> None:
    """Refuse numbers that cannot be used."""
    if lowest < array.min() and array.max() < np.inf:
        return
    for i, number in enumerate(array):
        if np.isfinite(number) and (number > lowest or (number == lowest and not strict)):
            continue
        name = labels[i] if i < len(labels) else f"frame {i + 1}"
        limits = "finite" if lowest == -np.inf else f"finite and {'above' if strict else 'not below'} {lowest:g}"
        raise ParameterError(
            f"{what} of {name} is {number} and must be {limits}; give numbers, or leave the frame out."
        )
