"""How frames are brought to one level, and what weights they get.

A value x of frame i becomes ``x * multiplier[i] + offset[i]``. Numbers that users give are these themselves. Where the
scale is a statistic S of each frame, the multiplier is S[0] / S[i]. Where the zero point is a statistic Z, the offset is
Z[0] * multiplier[0] - Z[i] * multiplier[i]. So the first frame stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from lazyccd.errors import EmptyFrameWarning, ParameterError, warn
from lazyccd.kernels.block import Array

PerFrame: TypeAlias = tuple[float | str, ...]
"""One number per frame; a word is the name of a scalar that a task finds."""


@dataclass(frozen=True)
class Levels:
    """Scales, zero points and weights of the frames, some of which may have to be found first."""

    scale: PerFrame = ()
    """Empty: nothing is scaled."""

    scale_is_statistic: bool = False
    """Whether these are levels to be made equal, and not factors."""

    zero: PerFrame = ()
    """Empty: nothing is added."""

    zero_is_statistic: bool = False
    """Whether these are levels to be made equal, and not terms."""

    weights: PerFrame = ()
    """Empty: all the same."""

    weights_are_variances: bool = False
    """Whether these are variances of unscaled values, and a weight is one over the scaled one."""

    weights_are_exposures: bool = False
    """Whether these are exposure times, which imcombine divides by the sky."""

    no_variance_is_empty: bool = False
    """Whether a frame whose variance is NaN has no good pixel, as in a mosaic, and so no weight."""

    labels: tuple[str, ...] = ()
    """How messages name the frames."""


class Scaling(NamedTuple):
    """What is done to each frame; one float64 per frame."""

    multipliers: Array
    """Factors of the values."""

    offsets: Array
    """Terms added after that."""

    weights: Array
    """Weights in averages and sums."""

    @property
    def is_none(self) -> bool:
        """Whether values stay as they are."""
        return bool((self.multipliers == 1).all() and (self.offsets == 0).all())


def find_scaling(levels: Levels, count: int, scalars: Mapping[str, Array]) -> Scaling:
    """Return what is done to each frame.

    Parameters
    ----------
    levels
        Scales, zero points and weights, or the names of scalars.
    count
        How many frames there are.
    scalars
        The scalars by name.

    Raises
    ------
    ParameterError
        Raised if a scale, zero point or weight is not finite, or a level to scale to is not above 0.

    Examples
    --------
    >>> scaling = find_scaling(Levels(scale=(10.0, 20.0), scale_is_statistic=True), 2, {})
    >>> scaling.multipliers.tolist(), scaling.weights.tolist()
    ([1.0, 0.5], [1.0, 1.0])
    """
    scale = _known(levels.scale, count, 1.0, scalars)
    zero = _known(levels.zero, count, 0.0, scalars)
    weights = _known(levels.weights, count, 1.0, scalars)
    empty = np.isnan(weights) & (levels.no_variance_is_empty and levels.weights_are_variances)
    if empty.any():
        _warn_of_empty(empty, levels.labels)
        weights[empty] = 1
    weight = "median variance" if levels.weights_are_variances else "weights"
    for what, array in (("scale", scale), ("zero", zero), (weight, weights)):
        lowest = -np.inf if what == "zero" or not (levels.scale_is_statistic or what == weight) else 0.0
        _check(array, what, levels.labels, lowest, strict=what == "scale" or levels.weights_are_variances)
    # to the first frame, as imcombine does: its values, and its unit, stay as they are
    multipliers = scale[0] / scale if levels.scale_is_statistic else scale
    offsets = zero[0] * multipliers[0] - zero * multipliers if levels.zero_is_statistic else zero
    if levels.weights_are_variances:
        # variances are those of unscaled values
        weights = np.where(empty, 0.0, 1 / (weights * multipliers**2))
        # all are empty: whatever they weigh, there is nothing
        weights = np.ones(count) if empty.all() else weights / weights.max()
    return Scaling(multipliers, offsets, weights)


def _warn_of_empty(empty: Array, labels: tuple[str, ...]) -> None:
    """Warn of frames without a good pixel."""
    names = ", ".join(labels[i] for i in np.flatnonzero(empty))
    warn(
        f"all pixels of {names} are NaN or masked, or have no uncertainty; the mosaic is that of the other frames.",
        EmptyFrameWarning,
    )


def _known(given: PerFrame, count: int, default: float, scalars: Mapping[str, Array]) -> Array:
    """Return one number per frame: given, found, or the default."""
    if not given:
        return np.full(count, default)
    return np.array([float(np.ravel(scalars[n])[0]) if isinstance(n, str) else n for n in given], float)


def _check(array: Array, what: str, labels: tuple[str, ...], lowest: float, *, strict: bool) -> None:
    """Raise an error that names the frame if a number is not finite or not above the lowest."""
    # NaN fails the comparison, so that only what is wrong is looked at one by one
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
