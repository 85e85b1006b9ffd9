"""Overscan subtraction and trimming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.flags import MaskSchema
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.nddata import is_ccddata
from lazyccd.kernels import calibrate
from lazyccd.ops.common import operand, operation
from lazyccd.plan.lower import Graph
from lazyccd.plan.reads import Columns, Rows
from lazyccd.plan.steps import Apply, Input, PlaneMap, Reduction, Step, Value, make_dtypes, make_params
from lazyccd.sections import Region, parse_section

if TYPE_CHECKING:
    from astropy.modeling import Model
    from astropy.nddata import CCDData

WITH_STRIP: PlaneMap = (("data", ("data", "mask")), ("mask", ("data", "mask")))
"""A strip is needed for the data, and for the mask to know its lines without a level."""


@dataclass(frozen=True)
class LineModel:
    """A linear model of the level along the lines, as a parameter of a plan."""

    model: Model
    """One-dimensional and linear in its parameters."""

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return what tells one model from another."""
        more = [repr(getattr(self.model, name, None)) for name in ("domain", "window", "fixed", "bounds")]
        return (type(self.model).__module__, repr(self.model), *more)


@dataclass(frozen=True)
class Strip:
    """An overscan strip: a step, and the region of it whose lines match those of the image."""

    step: Step
    region: Region
    schema: MaskSchema
    graphs: tuple[Graph, ...]


@operation()
def subtract_overscan(
    ccd: xr.Dataset,
    overscan: xr.Dataset | CCDData | None = None,
    overscan_axis: int | None = 1,
    fits_section: str | None = None,
    median: bool = False,
    model: Model | None = None,
) -> xr.Dataset:
    r"""Subtract the level of the overscan, line by line or as a fitted model.

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
        The strip as a FITS section of the frame, such as ``[2049:2080,1:4096]``.
    median
        Take the median of each line of the strip instead of its mean.
    model
        A linear astropy model, fitted to the levels by unweighted least squares; its values are subtracted, also from
        lines that the strip does not cover.

    Returns
    -------
    xr.Dataset
        Lazy; shape, dtype, units and uncertainty as before, halo 0 (each chunk also reads the strip in its own rows). Bad
        and non-finite pixels of the strip are left out. Lines without a level become NaN and ``NO_DATA``. A model adds
        one task that reads the whole strip.

    Raises
    ------
    ArgumentTypeError
        Raised if not exactly one of ``overscan`` and ``fits_section`` is given, or one is of the wrong type.
    SectionError
        Raised if the section lies outside of the image.
    ShapeError
        Raised if an ``overscan`` frame has another number of lines than the image.
    ParameterError
        Raised if the model is not linear in its parameters.

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
    axis = overscan_axis
    if axis is None:
        axis = 0 if strip.region.shape.x > strip.region.shape.y else 1
    if axis not in {0, 1}:
        raise ParameterError(f"overscan_axis {overscan_axis!r} must be 0, 1 or None.")
    if model is None:
        return replace(image, plan=_line_plan(image, strip, axis, median), graphs=strip.graphs).to_dataset()
    return replace(image, plan=_model_plan(image, strip, axis, median, model), graphs=strip.graphs).to_dataset()


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
        return Strip(image.plan, parse_section(fits_section, image.shape).region, image.schema, image.graphs)
    if not (isinstance(overscan, xr.Dataset) or is_ccddata(overscan)):
        raise ArgumentTypeError(f"overscan is a {type(overscan).__name__} and must be a frame or a CCDData.")
    other = operand(overscan, "overscan")
    return Strip(other.plan, Region.full(other.shape), other.schema, (*image.graphs, *other.graphs))


def _check_lines(image: Image, strip: Strip, axis: int) -> None:
    """Refuse an overscan frame whose lines are not those of the image."""
    have, want = strip.step.shape[1 - axis], image.shape[1 - axis]
    if have != want:
        what = ("columns", "rows")[axis]
        raise ShapeError(
            f"overscan shape {strip.step.shape} has {have} {what} and the image has {want}; use a strip of the same {what}."
        )


def _bad_bits(strip: Strip) -> int:
    return strip.schema.bad_bits


def _line_plan(image: Image, strip: Strip, axis: int, median: bool) -> Apply:
    """Return the plan that subtracts each line's own level."""
    _check_lines(image, strip, axis)
    r = strip.region
    reads = Rows(r.x0, r.x1) if axis == 1 else Columns(r.y0, r.y1)
    first, stop = (r.y0, r.y1) if axis == 1 else (r.x0, r.x1)
    step = strip.step
    covers = stop - first == image.shape[1 - axis]
    if not covers:
        step = _only_lines(step, axis, first, stop)
    planes = dict(image.plan.planes)
    if not covers:
        planes["mask"] = image.schema.dtype
    return image.apply(
        calibrate.subtract_overscan_lines,
        (Input(image.plan), Input(step, reads, WITH_STRIP)),
        planes,
        axis=axis,
        median=median,
        bad_bits=_bad_bits(strip),
        no_data=image.schema.bits("NO_DATA"),
        dtype=image.dtype.name,
        mask_dtype=image.schema.dtype.name,
    )


def _only_lines(step: Step, axis: int, first: int, stop: int) -> Step:
    """Return a step whose pixels outside of some lines are NaN, so that these have no level."""
    return Apply(
        step.shape,
        make_dtypes(data=step.dtypes["data"], mask=step.dtypes.get("mask")),
        kernel=calibrate.blank_outside,
        sources=(Input(step),),
        params=make_params(axis=axis, first=first, stop=stop),
    )


def _model_plan(image: Image, strip: Strip, axis: int, median: bool, model: Model) -> Apply:
    """Return the plan that subtracts a fitted model."""
    from astropy.modeling import Model  # takes a while, and few overscans are fitted

    if not isinstance(model, Model):
        raise ArgumentTypeError(
            f"model is a {type(model).__name__} and must be an astropy model, such as Polynomial1D(1)."
        )
    if not model.linear:
        raise ParameterError(
            f"overscan model {type(model).__name__} must be linear in its parameters; use a polynomial, Legendre or Chebyshev."
        )
    if strip.step is not image.plan:
        _check_lines(image, strip, axis)
    params = make_params(
        axis=axis,
        median=median,
        bad_bits=_bad_bits(strip),
        model=LineModel(model),
        first=strip.region[0 if axis == 1 else 2],
        length=image.shape[1 - axis],
    )
    reduction = Reduction(
        strip.step,
        partial=partial_levels,
        final=fit_levels,
        params=params,
        planes=frozenset({"data", "mask"} & strip.step.dtypes.keys()),
        region=strip.region,
        tile=None,
    )
    return Apply(
        image.shape,
        image.plan.planes,
        kernel=calibrate.subtract_overscan_vector,
        sources=(Input(image.plan),),
        params=make_params(axis=axis, dtype=image.dtype.name),
        numbers=(("level", Value(reduction=reduction, what="overscan fit")),),
    )


def partial_levels(block: Any, *, axis: int, median: bool, bad_bits: int, **_: Any) -> npt.NDArray[Any]:
    """Return the level of each line of the whole strip."""
    return calibrate.strip_levels(block, axis=axis, median=median, bad_bits=bad_bits)


def fit_levels(
    partials: Sequence[npt.NDArray[Any]], *, model: LineModel, first: int, length: int, **_: Any
) -> npt.NDArray[Any]:
    """Return the fitted model at every line of the image."""
    from astropy.modeling.fitting import LinearLSQFitter

    levels = partials[0]
    lines = first + np.arange(levels.size)
    good = np.isfinite(levels)
    if good.sum() < len(model.model.parameters):
        raise ParameterError(
            f"the overscan has {good.sum()} lines with a level, and {type(model.model).__name__} has "
            f"{len(model.model.parameters)} parameters; use a simpler model or a larger section."
        )
    fitted = LinearLSQFitter()(model.model, lines[good], levels[good])
    return np.asarray(fitted(np.arange(length)), dtype=float)


@operation()
def trim_image(ccd: xr.Dataset, fits_section: str | None = None) -> xr.Dataset:
    """Keep a section of an image.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    fits_section
        Section to keep, such as ``[1:2048,1:4096]``; None or an empty string keeps everything. A section that is written
        backwards flips the image, one with a step takes every n-th pixel.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. The coordinates keep the original pixel positions, so the WCS stays true.

    Raises
    ------
    ArgumentTypeError
        Raised if the section is not a string.
    SectionError
        Raised if the section is malformed or lies outside of the image.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> trim_image(CCDData(np.arange(12.0).reshape(3, 4), unit="adu"), "[2:3,1:2]").data
    array([[1., 2.],
           [5., 6.]])
    """
    image = resolve(ccd)
    if fits_section is None or fits_section == "":
        return image.to_dataset()
    if not isinstance(fits_section, str):
        raise ArgumentTypeError(f"fits_section {fits_section!r} must be a string such as '[1:2048,1:4096]'.")
    region, step = parse_section(fits_section, image.shape)
    shape = (-(-region.shape.y // abs(step.y)), -(-region.shape.x // abs(step.x)))
    offset = (region.y0 if step.y > 0 else region.y1 - 1, region.x0 if step.x > 0 else region.x1 - 1)
    return image.window(offset, (step.y, step.x), shape).to_dataset()
