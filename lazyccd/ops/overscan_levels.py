"""The levels of a whole overscan strip: fits with rejection, lines that bled, and how much the strip scatters about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.kernels.block import Block
from lazyccd.kernels.overscan import Statistic, bad_pixels, line_level
from lazyccd.kernels.quantiles import MAD_TO_SIGMA

if TYPE_CHECKING:
    from astropy.modeling import Model

Array: TypeAlias = npt.NDArray[Any]

ITERATIONS = 10
"""How often lines are rejected and the fit repeated, at most."""

BLED_SIGMA = 5.0
"""Lines that stand out of their neighbours by more robust standard deviations have charge that bled into the strip."""

BLED_WINDOW = 65
"""Number of lines whose median a line is compared with."""

BLED_GROWTH = 2
"""Lines beside one that bled which are left out too."""

SATURATED_GROWTH = 7
"""Pixels beside a saturated one in the strip which are left out too."""

NEIGHBOURS = 5
"""Good lines on each side whose median a line that bled is given."""


@dataclass(frozen=True)
class LineModel:
    """A model of the level along the lines, as a parameter of a plan."""

    model: Model
    """One-dimensional: linear in its parameters, or a spline."""

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return what tells one model from another."""
        names = ("domain", "window", "fixed", "bounds", "degree", "t")
        more = [repr(getattr(self.model, name, None)) for name in names]
        return (type(self.model).__module__, repr(self.model), *more)


def check_model(model: object) -> LineModel:
    """Return a model that can be fitted to the levels of lines.

    Raises
    ------
    ArgumentTypeError
        Raised if it is no astropy model.
    ParameterError
        Raised if it is neither linear nor a spline.
    """
    from astropy.modeling import Model  # takes a while, and few overscans are fitted
    from astropy.modeling.spline import Spline1D

    if not isinstance(model, Model):
        raise ArgumentTypeError(
            f"model is a {type(model).__name__} and must be an astropy model, such as Polynomial1D(1)."
        )
    if not (model.linear or isinstance(model, Spline1D)):
        raise ParameterError(
            f"overscan model {type(model).__name__} must be linear in its parameters, or a spline; use a polynomial, Legendre, "
            "Chebyshev or Spline1D."
        )
    return LineModel(model)


def strip_levels(
    block: Block,
    *,
    axis: int,
    statistic: Statistic,
    bad_bits: int,
    saturated: int,
    model: LineModel | None,
    sigma: float | None,
    skip_bleeds: bool,
    first: int,
    length: int,
) -> Array:
    """Return the level of each line of the image, then their mean, then the scatter of the strip about them.

    Parameters
    ----------
    block
        The whole strip.
    axis
        1 for a level per row, 0 per column.
    statistic, model, sigma, skip_bleeds
        As in `subtract_overscan`.
    bad_bits, saturated
        Bits of the strip's mask: pixels to leave out, and which of them are saturated.
    first, length
        First line of the strip, and number of lines of the image.
    """
    bad = bad_pixels(block, bad_bits)
    if skip_bleeds and block.mask is not None and bad is not None:
        bad = bad | _grown(bad_pixels(block, saturated))
    levels = line_level(block.plane("data"), bad, axis, statistic)
    lines = first + np.arange(levels.size)
    use = np.isfinite(levels)
    if skip_bleeds:
        use &= ~bled_lines(levels)
    out = np.full(length, np.nan)
    parameters = int(use.sum())
    if model is not None:
        fitted = fit_lines(model.model, lines, levels, use, sigma)
        out[:] = fitted(np.arange(length))
        parameters = len(model.model.parameters)
    else:
        out[lines] = _filled(levels, use) if skip_bleeds else levels
    pixels = block.plane("data").astype(float)
    pixels = pixels if axis == 1 else pixels.T
    if bad is not None:
        pixels = np.where(bad if axis == 1 else bad.T, np.nan, pixels)
    rest = (pixels - out[lines][:, None])[use]
    used = out[lines][use]
    return np.concatenate([out, [used.mean() if used.size else np.nan, scatter(rest, parameters)]])


def fit_lines(model: Model, lines: Array, levels: Array, use: Array, sigma: float | None) -> Callable[[Array], Array]:
    """Return a model fitted to the levels of lines by least squares.

    With ``sigma``, lines further from the fit than so many root mean squares of the others are left out, and the fit is
    repeated until none is left out any more, as IRAF's icfit does.
    """
    for _ in range(ITERATIONS if sigma is not None else 1):
        if use.sum() < len(model.parameters):
            raise ParameterError(
                f"the overscan has {use.sum()} lines with a level, and {type(model).__name__} has {len(model.parameters)} "
                "parameters; use a simpler model or a larger section."
            )
        fitted = _fit(model, lines[use], levels[use])
        if sigma is None:
            break
        distance = np.abs(levels - fitted(lines))
        keep = use & (distance <= sigma * np.sqrt(np.mean(distance[use] ** 2)))
        if (keep == use).all():
            break
        use = keep
    return fitted


def _fit(model: Model, lines: Array, levels: Array) -> Callable[[Array], Array]:
    """Return a function of the lines: the model that comes closest to the levels."""
    from astropy.modeling.fitting import LinearLSQFitter
    from astropy.modeling.spline import Spline1D, SplineExactKnotsFitter

    if not isinstance(model, Spline1D):
        fitted = LinearLSQFitter()(model, lines, levels)
        return lambda x: np.asarray(fitted(x), dtype=float)
    knots = model.t_interior
    if not model.user_knots:
        knots = np.linspace(lines[0], lines[-1], len(knots) + 2)[1:-1]
    spline = SplineExactKnotsFitter()(Spline1D(degree=model.degree), lines.astype(float), levels, t=knots)
    # a spline runs away beyond its last knot
    return lambda x: np.asarray(spline(np.clip(x, lines[0], lines[-1]).astype(float)), dtype=float)


def bled_lines(levels: Array) -> Array:
    """Return where charge bled into the strip: lines above their neighbours, and some beside them.

    A line is compared with the median of the 65 lines about it; more than 5 robust standard deviations above it, it and 2
    lines on either side are left out.
    """
    from scipy.ndimage import binary_dilation, median_filter

    known = np.isfinite(levels)
    if not known.any():
        return np.zeros(levels.shape, bool)
    filled = np.where(known, levels, np.median(levels[known]))
    excess = filled - median_filter(filled, min(BLED_WINDOW, levels.size), mode="nearest")
    limit = BLED_SIGMA * MAD_TO_SIGMA * np.median(np.abs(excess[known]))
    hit = excess > max(limit, 1e-9 * np.abs(filled).max())
    return np.asarray(binary_dilation(hit, iterations=BLED_GROWTH))


def _grown(saturated: Array | None) -> Array:
    """Return the neighbourhood of saturated pixels."""
    from scipy.ndimage import binary_dilation

    assert saturated is not None
    return np.asarray(binary_dilation(saturated, iterations=SATURATED_GROWTH))


def _filled(levels: Array, use: Array) -> Array:
    """Return the levels, with the median of the nearest good lines for those that are left out; NaN if all are."""
    good = np.flatnonzero(use)
    out = levels.copy()
    if good.size == 0:
        out[:] = np.nan
        return out
    for line in np.flatnonzero(~use):
        place = int(np.searchsorted(good, line))
        out[line] = np.median(levels[good[max(place - NEIGHBOURS, 0) : place + NEIGHBOURS]])
    return out


def scatter(rest: Array, parameters: int) -> float:
    """Return the standard deviation of residuals, those beyond four robust ones left out; NaN if too few are left.

    The number of parameters that were fitted counts as in an unbiased estimate. The median absolute deviation alone would
    be a multiple of the step of digitised values.
    """
    values = rest[np.isfinite(rest)]
    if values.size <= parameters:
        return float("nan")
    away = np.abs(values - np.median(values))
    robust = MAD_TO_SIGMA * float(np.median(away))
    kept = values[away <= 4 * (robust or float(np.std(values)))]
    freedom = kept.size - parameters * kept.size / values.size
    return float(np.sqrt(np.sum((kept - kept.mean()) ** 2) / freedom)) if freedom > 0 else float("nan")
