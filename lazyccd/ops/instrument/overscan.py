"""Subtract the level of the overscan: line by line, as a fitted model, or as a constant.

`subtract_overscan` chooses between three plans. A level per line needs the strip in the rows of each chunk only (`_line_plan`). Models
and the search for bleeds need the whole strip, which one task reads (`_level_plan`, `strip_levels`). ``statistic="auto"`` reads the
strip at once to decide which form to subtract (`overscan_levels`).

What is removed here is measured beside the image in the same read-out; a master bias is in `lazyccd.ops.instrument.calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.header import append_cards
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.units import conversion_factor, unit_to_text
from lazyccd.kernels import overscan as overscan_kernels
from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.overscan import STATISTICS, Statistic, bad_pixels, line_level
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.combine import only_partial
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.arguments import normalize_number, resolve_operand
from lazyccd.ops.binary import affine_image
from lazyccd.ops.decorator import operation
from lazyccd.ops.sample import read_pixels, robust_std
from lazyccd.plan.footprints import Columns, PlaneMap, Rows
from lazyccd.plan.lower import Graph
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, ScalarCard, Step, make_dtypes, make_params
from lazyccd.sections import Region, parse_section

if TYPE_CHECKING:
    from astropy.modeling import Model
    from astropy.nddata import CCDData


Form: TypeAlias = Literal["constant", "per line"]
"""What ``statistic="auto"`` chooses between."""

MOST_SCATTER = 2.0
"""Scatter of the levels of lines, in what the read noise predicts, up to which a constant is subtracted."""

WITH_STRIP: PlaneMap = (("data", ("data", "mask")), ("mask", ("data", "mask")))
"""A strip is needed for the data, and for the mask to know its lines without a level."""


@dataclass(frozen=True)
class Strip:
    """An overscan strip: an image, and the region of it whose lines match those of the frame."""

    source: Image
    region: Region
    graphs: tuple[Graph, ...]

    @property
    def step(self) -> Step:
        """The step that gives its pixels."""
        return self.source.plan

    @property
    def schema(self) -> MaskSchema:
        """What each bit of its mask means."""
        return self.source.schema

    def lines(self, axis: int) -> tuple[int, int]:
        """Return the first line, and the one after the last: rows for axis 1, columns for axis 0."""
        r = self.region
        return (r.y0, r.y1) if axis == 1 else (r.x0, r.x1)


@dataclass(frozen=True, eq=False)
class OverscanLevels:
    """The levels that ``statistic="auto"`` subtracts, and the numbers that decided on their form."""

    levels: Array
    """One for each line of the image."""

    axis: int
    """1: a level per row; 0: per column."""

    form: Form
    mean: float
    """Mean level."""

    noise: float
    """Scatter of the strip about what is subtracted: an estimate of the read noise."""

    line_scatter: float
    """Scatter of the levels of the lines."""

    predicted_scatter: float
    """What the read noise makes the levels scatter by."""

    unit: str = ""
    """Unit of all of them."""

    @property
    def reason(self) -> str:
        """The form, and why it was chosen."""
        unit = f" {self.unit}" if self.unit else ""
        form = f"constant {self.mean:.2f}{unit}"
        if self.form == "per line":
            form = f"a level per {('column', 'row')[self.axis]}, {self.mean:.2f}{unit} on average"
        return f"{form} (levels scatter by {self.line_scatter:.2f}{unit}, read noise predicts {self.predicted_scatter:.2f})"

    @property
    def cards(self) -> dict[str, tuple[float, str]]:
        """Their header cards."""
        unit = f"[{self.unit}] " if self.unit else ""
        found = {
            "OVERMEAN": (self.mean, f"{unit}mean level of the overscan"),
            "OVERRMS": (self.noise, f"{unit}scatter of the overscan: read noise"),
        }
        return {key: (float(f"{value:.6g}"), text) for key, (value, text) in found.items() if math.isfinite(value)}

    def __repr__(self) -> str:
        """Return what the log of an operation shows."""
        return f"<{self.reason}>"


@operation()
def subtract_overscan(
    ccd: xr.Dataset,
    overscan: xr.Dataset | CCDData | None = None,
    overscan_axis: int | None = 1,
    fits_section: str | Keyword | None = None,
    median: bool = False,
    model: Model | None = None,
    statistic: Statistic | Literal["auto"] | OverscanLevels | None = None,
    sigma: float | None = None,
    skip_bleeds: bool = False,
    readnoise: float | u.Quantity | Keyword | str | None = None,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    r"""Subtract the level of the overscan, line by line or as a fitted model.

    For a parallel overscan after a serial one, call it twice, the second time with ``overscan_axis=0``.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    overscan
        The overscan as a frame with as many lines as the image. Give this or ``fits_section``.
    overscan_axis
        Axis along which the strip is averaged: 1 (a strip beside the data, a level per row), 0 (a strip above or below, a
        level per column), or None for the strip's short side.
    fits_section
        The strip as a FITS section of the frame, such as ``[2049:2080,1:4096]``, or the keyword of one, such as ``"BIASSEC"``.
    median
        Take the median of each line of the strip instead of its mean.
    model
        An astropy model, fitted to the levels by unweighted least squares; its values are subtracted, also from lines that
        the strip does not cover. ``Polynomial1D(0)`` is one constant for all lines; ``Spline1D`` has the knots given, or so
        many at equal distances, and keeps its last value beyond the strip.
    statistic
        Level of a line: ``"mean"``, ``"median"``, or the mean of what is left after clipping at three standard deviations
        about the median until nothing changes (``"clipped"``), or once at three times 1.4826 median absolute deviations
        (``"mad"``). None takes what ``median`` says. ``"auto"`` reads the strip at once and takes the levels that
        ``overscan_levels`` chooses, a constant or one per line; HISTORY says which and why. Levels that were chosen before are
        subtracted as they are.
    sigma
        Lines further from the model than so many root mean squares are left out, and the fit repeated until nothing
        changes, as IRAF's icfit does. None keeps all.
    skip_bleeds
        Leave out what bled from saturated stars: pixels of the strip within 7 of one with the plane ``SAT``, and lines more
        than 5 robust standard deviations above the median of the 65 lines about them, with 2 lines on either side. Without
        a model they get the median of the 5 nearest good lines on each side.
    readnoise
        Read noise in the units of the data, with which ``"auto"`` compares the scatter of the lines: a number, a quantity, or a
        keyword, whose value is in electrons. None measures it on the strip.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy; shape, dtype, units and uncertainty as before, halo 0 (each chunk also reads the strip in its own rows). Bad
        and non-finite pixels of the strip are left out. Lines without a level become NaN and ``NO_DATA``. A model, and
        ``skip_bleeds``, add one task that reads the whole strip. With ``statistic``, ``sigma`` or ``skip_bleeds`` the
        header gets ``OVERMEAN`` and ``OVERRMS``, mean level and scatter of the strip about what was subtracted, an estimate
        of the read noise, when the frame is settled or written.

    Raises
    ------
    ArgumentTypeError
        Raised if not exactly one of ``overscan`` and ``fits_section`` is given, or one is of the wrong type.
    SectionError
        Raised if the section lies outside of the image.
    UnitError
        Raised if the units of an ``overscan`` frame cannot be converted.
    ShapeError
        Raised if an ``overscan`` frame has another number of lines than the image.
    ParameterError
        Raised if the model is neither linear in its parameters nor a spline, ``sigma`` is given without a model, or
        ``"auto"`` is combined with another choice of levels.

    References
    ----------
    Rejection: Davis, L. E. and Tody, D., IRAF, xtools.icfit. Clipping once: McCully et al. (2018), Proc. SPIE 10707, 107070K
    (BANZAI). Bleeds: LSST Science Pipelines, ip_isr, overscan.py, with a robust limit instead of 5 adu.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> raw = CCDData(np.array([[110.0, 10.0, 12.0], [220.0, 20.0, 20.0]]), unit="adu")
    >>> subtract_overscan(raw, fits_section="[2:3,1:2]").data[:, 0]
    array([ 99., 200.])
    """
    image = resolve(ccd)
    strip = _find_strip(image, overscan, fits_section)
    axis = _find_axis(strip, overscan_axis)
    if strip.step is not image.plan or model is None:
        _check_lines(image, strip, axis)
    if isinstance(statistic, OverscanLevels) or (isinstance(statistic, str) and statistic == "auto"):
        if median or model is not None or sigma is not None or skip_bleeds:
            raise ParameterError('statistic "auto" chooses the levels; leave out median, model, sigma and skip_bleeds.')
        # levels that were chosen before are not written into HISTORY: the arguments in the log show them
        if statistic != "auto":
            return _subtract_chosen(image, statistic)
        noise = _noise_of(readnoise, image)
        chosen = _choose_levels(image, strip, axis, noise)
        return _subtract_chosen(image, chosen, ("HISTORY", f"overscan: {chosen.reason}", ""))
    if statistic not in (None, *STATISTICS):
        raise ParameterError(f"statistic {statistic!r} must be one of {', '.join(STATISTICS)}, auto.")
    if readnoise is not None:
        raise ParameterError(f'readnoise {readnoise} is used by statistic="auto" only; give both or leave it out.')
    if sigma is not None and (model is None or not sigma > 0):
        raise ParameterError(
            f"sigma {sigma} must be above 0 and needs a model, such as Polynomial1D(0) for a constant."
        )
    # only choices that ccdproc does not have write cards: its own calls give its own header
    recorded = statistic is not None or sigma is not None or skip_bleeds
    level: Statistic = statistic or ("median" if median else "mean")
    if model is None and not recorded:
        plan = _line_plan(image, strip, axis, level)
    else:
        fit = None if model is None else check_model(model)
        how = {"statistic": level, "model": fit, "sigma": sigma, "skip_bleeds": bool(skip_bleeds)}
        plan = _level_plan(image, strip, axis, recorded, **how)
    return replace(image, plan=plan, graphs=strip.graphs).to_dataset()


def _noise_of(readnoise: Any, image: Image) -> float | None:
    """Return a read noise in the units of an image."""
    if isinstance(readnoise, u.Quantity):
        return float(readnoise.value) * conversion_factor(readnoise.unit, image.units, "readnoise")
    return None if readnoise is None else normalize_number(readnoise, "readnoise", 0.0)


def overscan_levels(
    ccd: xr.Dataset, fits_section: str, overscan_axis: int | None = None, readnoise: float | None = None
) -> OverscanLevels:
    """Choose the form of the overscan to subtract: a constant, or a level per line.

    The level of each line is the mean of its pixels within 3 robust sigma of their median. A constant is subtracted, the mean
    of the levels within 4 robust sigma of their median, unless the levels scatter by more than twice what the read noise
    predicts; then each line has its own level, and lines that bled into the strip that of their neighbours.
    Lines that the strip does not cover get the constant.

    Parameters
    ----------
    ccd
        A frame. Its strip is read at once.
    fits_section, overscan_axis, readnoise
        As in `subtract_overscan`, to which the result is given as ``statistic``.

    Returns
    -------
    OverscanLevels
        The levels, the form that was chosen, and the numbers that decided.
    """
    image = resolve(ccd)
    strip = _find_strip(image, None, fits_section)
    return _choose_levels(image, strip, _find_axis(strip, overscan_axis), readnoise)


def choose_form(line_scatter: float, predicted_scatter: float) -> Form:
    """Return whether a constant is subtracted, or a level per line.

    A level per line adds its own noise, correlated along the line: with the median of ten columns, 15 % of the variance of the
    read noise. So lines have their own level only where they scatter by more than twice what the read noise predicts.
    """
    return "constant" if line_scatter <= MOST_SCATTER * predicted_scatter else "per line"


def _choose_levels(image: Image, strip: Strip, axis: int, readnoise: float | None) -> OverscanLevels:
    """Measure the lines of a strip, and choose the form of the levels."""
    values = read_pixels(strip.source, strip.region)
    values = values if axis == 1 else values.T
    # each line is clipped before it is averaged, so that a cosmic ray or a bleed in the strip moves neither line nor constant
    lines = line_level(values, None, 1, "mad")
    # the scatter within lines, which a level that drifts from line to line does not reach
    read = readnoise if readnoise is not None else robust_std(values - lines[:, None])
    predicted, measured = float(read / np.sqrt(values.shape[1])), robust_std(lines)
    good = lines[_is_usual(lines, predicted)]
    constant = float(np.mean(good)) if good.size else float("nan")
    form = choose_form(measured, predicted)
    levels = np.full(image.shape[1 - axis], constant)
    if form == "constant":
        noise = scatter(values - constant, 1)
    else:
        noise = scatter(values - lines[:, None], good.size)
        first, stop = strip.lines(axis)
        # A line that a ray crossed along the strip, or that bled into it, takes the level of its neighbours.
        filled = _filled(lines, np.isfinite(lines) & ~bled_lines(lines))
        levels[first:stop] = np.where(np.isfinite(filled), filled, constant)
    return OverscanLevels(levels, axis, form, constant, noise, measured, predicted, unit_to_text(image.units))


def _is_usual(lines: Array, predicted: float) -> Array:
    """Return which lines lie within four robust standard deviations of the median line."""
    known = np.isfinite(lines)
    if not known.any():
        return known
    away = np.abs(lines - np.median(lines[known]))
    # The robust deviation of lines that are equal is 0; what the read noise predicts is no outlier.
    limit = 4 * max(MAD_TO_SIGMA * float(np.median(away[known])), predicted if np.isfinite(predicted) else 0.0)
    usual: Array = known & (away <= limit)
    return usual


def _subtract_chosen(image: Image, chosen: OverscanLevels, *more: tuple[str, str, str]) -> xr.Dataset:
    """Subtract levels that were chosen, and record their mean and the scatter of the strip."""
    if chosen.levels.size != image.shape[1 - chosen.axis]:
        what = ("columns", "rows")[chosen.axis]
        raise ShapeError(
            f"{chosen.levels.size} overscan levels were chosen and the image has {image.shape[1 - chosen.axis]} {what}; "
            "choose them on the same frame."
        )
    # NaN is left only where the strip has no good pixel at all, and then everywhere
    planes: dict[str, Any] = dict(image.plan.planes)
    if np.isnan(chosen.levels).any():
        planes["mask"] = image.schema.dtype
    plan = image.apply(
        overscan_kernels.subtract_levels,
        (Input(image.plan),),
        planes,
        axis=chosen.axis,
        dtype=image.dtype.name,
        mask_dtype=image.schema.dtype.name,
        no_data=image.schema.bits("NO_DATA"),
        scalars=(("level", Scalar(given=np.asarray(chosen.levels, float), what="overscan")),),
    )
    cards = [(key, value, comment) for key, (value, comment) in chosen.cards.items()]
    return replace(image, plan=plan, header=append_cards(image.header, [*cards, *more])).to_dataset()


def _find_axis(strip: Strip, overscan_axis: int | None) -> int:
    """Return the axis along which the strip is averaged; the one across its short side if None is given."""
    axis = overscan_axis
    # serial and parallel overscans are long and narrow; ccdproc guesses in the same way
    if axis is None:
        axis = 0 if strip.region.shape.x > strip.region.shape.y else 1
    if axis not in (0, 1):
        raise ParameterError(f"overscan_axis {overscan_axis!r} must be 0, 1 or None.")
    return axis


def _find_strip(image: Image, overscan: Any, fits_section: Any) -> Strip:
    """Return the strip that the arguments name."""
    if (overscan is None) == (fits_section is None):
        given = "neither" if overscan is None else "both"
        raise ArgumentTypeError(
            f"subtract_overscan() got {given} of overscan and fits_section; give exactly one of them."
        )
    if fits_section is not None:
        if not isinstance(fits_section, str):
            raise ArgumentTypeError(f"fits_section {fits_section!r} must be a string such as '[2049:2080,1:4096]'.")
        return Strip(image, parse_section(fits_section, image.shape).region, image.graphs)
    if not (isinstance(overscan, xr.Dataset) or is_ccddata(overscan)):
        raise ArgumentTypeError(f"overscan is a {type(overscan).__name__} and must be a frame or a CCDData.")
    other = resolve_operand(overscan, "overscan")
    # ccdproc does not look at the unit, and subtracts electrons from adu
    factor = conversion_factor(other.units, image.units, "overscan")
    if factor != 1:
        other = affine_image(other, factor)
    return Strip(other, Region.full(other.shape), (*image.graphs, *other.graphs))


def _check_lines(image: Image, strip: Strip, axis: int) -> None:
    """Refuse an overscan frame whose lines are not those of the image."""
    have, want = strip.step.shape[1 - axis], image.shape[1 - axis]
    if have != want:
        what = ("columns", "rows")[axis]
        raise ShapeError(
            f"overscan shape {strip.step.shape} has {have} {what} and the image has {want}; use a strip of the same {what}."
        )


def _line_plan(image: Image, strip: Strip, axis: int, statistic: Statistic) -> Apply:
    """Return the plan that subtracts each line's own level."""
    r = strip.region
    footprint = Rows(r.x0, r.x1) if axis == 1 else Columns(r.y0, r.y1)
    first, stop = strip.lines(axis)
    step = strip.step
    # rows beyond the section hold something else than overscan; a footprint of rows would read it there
    if stop - first != image.shape[1 - axis]:
        step = _only_lines(step, axis, first, stop)
    return image.apply(
        overscan_kernels.subtract_lines,
        (Input(image.plan), Input(step, footprint, WITH_STRIP)),
        _planes(image, strip, axis, fitted=False),
        axis=axis,
        statistic=statistic,
        bad_bits=strip.schema.bad_bits,
        no_data=image.schema.bits("NO_DATA"),
        dtype=image.dtype.name,
        mask_dtype=image.schema.dtype.name,
    )


def _planes(image: Image, strip: Strip, axis: int, *, fitted: bool) -> dict[str, Any]:
    """Return the planes of the result, which has a mask if lines are left without a level."""
    first, stop = strip.lines(axis)
    planes: dict[str, Any] = dict(image.plan.planes)
    if not fitted and stop - first != image.shape[1 - axis]:
        planes["mask"] = image.schema.dtype
    return planes


def _only_lines(step: Step, axis: int, first: int, stop: int) -> Step:
    """Return a step whose pixels outside of some lines are NaN, so that these have no level."""
    return Apply(
        step.shape,
        make_dtypes(data=step.dtypes["data"], mask=step.dtypes.get("mask")),
        kernel=overscan_kernels.blank_outside,
        sources=(Input(step),),
        params=make_params(axis=axis, first=first, stop=stop),
    )


def _level_plan(image: Image, strip: Strip, axis: int, recorded: bool, **how: Any) -> Apply:
    """Return the plan that subtracts levels that depend on the whole strip."""
    reduction = Reduction(
        strip.step,
        partial=strip_levels,
        final=only_partial,
        params=make_params(
            axis=axis,
            bad_bits=strip.schema.bad_bits,
            saturated=strip.schema.bits("SAT"),
            first=strip.lines(axis)[0],
            length=image.shape[1 - axis],
            **how,
        ),
        planes=frozenset({"data", "mask"} & strip.step.dtypes.keys()),
        region=strip.region,
        tile=None,  # a fit needs all lines together
        scratch_bytes=40,  # residuals in double precision, those of lines that count, and their distances
    )
    unit = f"[{unit_to_text(image.units)}]" if unit_to_text(image.units) else ""
    cards = (
        ScalarCard("OVERMEAN", -2, f"{unit} mean level of the overscan"),
        ScalarCard("OVERRMS", -1, f"{unit} scatter of the overscan: read noise"),
    )
    value = Scalar(reduction=reduction, what="overscan fit", cards=cards if recorded else ())
    return image.apply(
        overscan_kernels.subtract_levels,
        (Input(image.plan),),
        _planes(image, strip, axis, fitted=how["model"] is not None),
        axis=axis,
        dtype=image.dtype.name,
        mask_dtype=image.schema.dtype.name,
        no_data=image.schema.bits("NO_DATA"),
        scalars=(("level", value),),
    )


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
        # the repr of a model leaves these out, and models of equal tokens are taken for one
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
    # one least-squares solution without start values; ccdproc refuses other models too
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
    parameters = int(use.sum())  # each line's own level is a number that was fitted
    if model is not None:
        fitted = fit_lines(model.model, lines, levels, use, sigma)
        out[:] = fitted(np.arange(length))
        parameters = len(model.model.parameters)
    else:
        out[lines] = _filled(levels, use) if skip_bleeds else levels
    pixels = block.plane("data").astype(float)
    if bad is not None:
        pixels[bad] = np.nan
    pixels = pixels if axis == 1 else pixels.T
    pixels -= out[lines][:, None]
    rest = pixels[use]
    del pixels
    used = out[lines][use]
    return np.concatenate([out, [used.mean() if used.size else np.nan, scatter(rest, parameters)]])


def fit_lines(model: Model, lines: Array, levels: Array, use: Array, sigma: float | None) -> Callable[[Array], Array]:
    """Return a model fitted to the levels of lines by least squares.

    With ``sigma``, lines further from the fit than so many root mean squares of the others are left out, and the fit is
    repeated until none is left out any more, as IRAF's icfit does.
    """
    for _ in range(ITERATIONS if sigma is not None else 1):
        if use.sum() < (least := _parameters(model)):
            raise ParameterError(
                f"the overscan has {use.sum()} lines with a level, and {type(model).__name__} has {least} "
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


def _parameters(model: Model) -> int:
    """Return how many numbers a fit determines; a spline has its parameters only once it is fitted."""
    from astropy.modeling.spline import Spline1D

    return model.degree + 1 + len(model.t_interior) if isinstance(model, Spline1D) else len(model.parameters)


def _fit(model: Model, lines: Array, levels: Array) -> Callable[[Array], Array]:
    """Return a function of the lines: the model that comes closest to the levels."""
    from astropy.modeling.fitting import LinearLSQFitter
    from astropy.modeling.spline import Spline1D, SplineExactKnotsFitter

    if not isinstance(model, Spline1D):
        fitted = LinearLSQFitter()(model, lines, levels)
        return lambda x: np.asarray(fitted(x), dtype=float)
    # knots that nobody gave lie between the first and the last line with a level: beyond them nothing determines the spline
    knots = model.t_interior
    if not model.user_knots:
        knots = np.linspace(lines[0], lines[-1], len(knots) + 2)[1:-1]
    try:
        spline = SplineExactKnotsFitter()(Spline1D(degree=model.degree), lines.astype(float), levels, t=knots)
    except ValueError as error:  # of scipy, which lists the conditions of Schoenberg and Whitney
        raise ParameterError(
            f"the overscan has {len(lines)} lines with a level, from {lines[0]} to {lines[-1]}, with gaps that a spline of degree "
            f"{model.degree} with knots at {', '.join(f'{knot:g}' for knot in knots)} does not bridge; give fewer knots, or a "
            "polynomial."
        ) from error
    # a spline runs away beyond its last knot
    return lambda x: np.asarray(spline(np.clip(x, lines[0], lines[-1]).astype(float)), dtype=float)


def bled_lines(levels: Array) -> Array:
    """Return where charge bled into the strip: lines above their neighbours, and some beside them.

    A line is compared with the median of the 65 lines about it; more than 5 robust standard deviations above it, it and 2
    lines on either side are left out.
    """
    from scipy.ndimage import binary_dilation, median_filter  # takes a while, and few overscans need it

    known = np.isfinite(levels)
    if not known.any():
        return np.zeros(levels.shape, bool)
    filled = np.where(known, levels, np.median(levels[known]))
    excess = filled - median_filter(filled, min(BLED_WINDOW, levels.size), mode="nearest")
    limit = BLED_SIGMA * MAD_TO_SIGMA * np.median(np.abs(excess[known]))
    # of a strip without noise the limit is 0, and what is left of rounding would count as charge
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
    robust = MAD_TO_SIGMA * float(np.median(away))  # 0 where more than half of the digitised residuals are equal
    kept = values[away <= 4 * (robust or float(np.std(values)))]
    freedom = kept.size - parameters * kept.size / values.size
    return float(np.sqrt(np.sum((kept - kept.mean()) ** 2) / freedom)) if freedom > 0 else float("nan")
