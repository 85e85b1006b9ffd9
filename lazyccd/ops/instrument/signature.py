"""Correct what ccdproc leaves in: nonlinearity, fringes of night sky lines, uneven illumination.

Linearity and crosstalk act in adu, after the bias and before the gain; illumination after the flat. An operation applied out of
order raises an error: the units of the frame, or what its header says was done, tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError, UnitError, warn
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.header import header_from_text
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.processing_history import keywords_of, stamped
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import instrument
from lazyccd.kernels.block import PLANES
from lazyccd.ops.arguments import normalize_number, resolve_operand
from lazyccd.ops.binary import check_shape, combine_pair
from lazyccd.ops.decorator import operation
from lazyccd.ops.instrument.calibrate import Master
from lazyccd.ops.instrument.flat import Norm, NormValue, divided_by, norm_of_all
from lazyccd.plan.footprints import MASK_WITH_DATA, POINTWISE
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, ScalarCard, make_dtypes, make_params
from lazyccd.sections import Region

COUNTS = (u.adu, u.DN, u.ct)
"""Units of what a converter gives."""

BIAS_STAMPS = keywords_of("bias", "overscan")
"""Keywords that say that the bias was subtracted."""


def check_counts(image: Image, what: str) -> None:
    """Refuse a frame that is not in counts, or that was calibrated further; warn, at a caller, if its bias seems to be in it."""
    if image.units not in COUNTS:
        raise UnitError(
            f"{what}() works on counts and the frame is in '{image.units}'; apply it before the gain, or set the unit by "
            "with_unit if the numbers are adu."
        )
    header = header_from_text(image.header)
    done = stamped(header, "gain", "dark", "flat")
    if done:
        raise ParameterError(
            f"{what}() comes after the bias and before gain, dark and flat, and the header has {', '.join(done)}; apply it "
            "before them."
        )
    # only a warning: a header may be silent about a bias that is gone, and refusing would leave no way on
    if not stamped(header, "bias", "overscan"):
        warn(
            f"{what}() comes after the bias, and the header has none of {', '.join(BIAS_STAMPS)}; what is left of the bias "
            "counts as signal.",
            UserWarning,
        )


def _powers(coefficients: Any) -> tuple[float, ...]:
    """Return the coefficients of a polynomial as numbers."""
    if isinstance(coefficients, str) or np.ndim(coefficients) != 1:
        raise ArgumentTypeError(f"coefficients {coefficients!r} must be a list of numbers c_0, c_1, ...")
    return tuple(normalize_number(c, "coefficient") for c in coefficients)


@operation()
def correct_linearity(
    ccd: xr.Dataset,
    coefficients: Sequence[float] | None = None,
    table: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    limit: float | None = None,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    r"""Correct for the nonlinear response of a detector.

    Parameters
    ----------
    ccd
        A frame in adu (or DN, counts) without bias, or a CCDData (then a computed CCDData is returned).
    coefficients
        Of the polynomial :math:`t = \sum_k c_k m^k` that gives the true signal :math:`t` for a measured one :math:`m`: c_0,
        c_1, c_2, ... Give this or ``table``.
    table
        Measured signals, which increase, and the true ones. Between them it goes straight; beyond the ends the difference
        between true and measured stays that of the end.
    limit
        Measured signals above it get the plane ``NONLINEAR``, which counts as bad; the last one of a table if None.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, units as before. The variance is multiplied by :math:`(dt/dm)^2`.

    Raises
    ------
    UnitError
        Raised if the frame is not in counts.
    ParameterError
        Raised if gain, dark or flat were applied already, not exactly one correction is given, or it cannot be used.

    References
    ----------
    As the linearizers "Polynomial" and "LookupTable" of LSST's ip_isr (linearize.py), and the polynomial of jwst.linearity.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> raw = CCDData(np.array([[1100.0, 50100.0]]), unit="adu")
    >>> from lazyccd import subtract_bias
    >>> ccd = subtract_bias(raw, CCDData(np.full((1, 2), 100.0), unit="adu"))
    >>> correct_linearity(ccd, coefficients=[0, 1, 1e-6]).data
    array([[ 1001., 52500.]])
    """
    image = resolve(ccd)
    check_counts(image, "correct_linearity")
    if (coefficients is None) == (table is None):
        given = "neither" if table is None else "both"
        raise ParameterError(f"correct_linearity() got {given} of coefficients and table; give exactly one of them.")
    powers = () if coefficients is None else _powers(coefficients)
    if coefficients is not None and (len(powers) < 2 or not np.isfinite(powers).all() or powers[1] == 0):
        raise ParameterError(f"coefficients {powers} must be c_0, c_1, ..., all finite, and c_1 not 0.")
    points = _points(table) if table is not None else ((), ())
    # beyond its last point a table is an extrapolation, a polynomial has no such point
    usual = points[0][-1] if points[0] else np.inf
    highest = normalize_number(usual if limit is None else limit, "limit")
    # without a limit no pixel can get the plane, and a mask is memory for nothing
    schema = image.schema.with_plane("NONLINEAR", "Beyond the range in which the linearity is known")
    masked = bool(np.isfinite(highest)) or image.has_mask
    schema = schema if np.isfinite(highest) else image.schema
    plan = image.apply(
        instrument.linearize,
        (Input(image.plan, uses=MASK_WITH_DATA),),
        dict(image.plan.planes) | ({"mask": schema.dtype} if masked else {}),
        coefficients=powers,
        table=points,
        limit=highest,
        bit=schema.bits("NONLINEAR") if np.isfinite(highest) else 0,
        dtype=image.dtype.name,
        mask_dtype=schema.dtype.name,
    )
    return replace(image, plan=plan, schema=schema).to_dataset()


def _points(table: tuple[npt.ArrayLike, npt.ArrayLike]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return measured and true signals of a table."""
    if len(table) != 2:
        raise ParameterError(f"table has {len(table)} parts and must have two: measured and true signals.")
    measured, true = (np.asarray(part, float).ravel() for part in table)
    if measured.size != true.size or measured.size < 2:
        raise ParameterError(
            f"table has {measured.size} measured and {true.size} true signals; give at least two pairs."
        )
    if not (np.all(np.diff(measured) > 0) and np.isfinite(measured).all() and np.isfinite(true).all()):
        raise ParameterError("the measured signals of table must increase, and all be finite.")
    return tuple(measured.tolist()), tuple(true.tolist())


@operation()
def subtract_fringe(
    ccd: xr.Dataset, fringe: Master, scale: float | None = None, bad: str | None = None, *, add_keyword: LogEntry = True
) -> xr.Dataset:
    r"""Subtract the fringes of night sky lines, scaled to how strong they are.

    Parameters
    ----------
    ccd
        A flat-fielded frame, or a CCDData (then a computed CCDData is returned).
    fringe
        The fringe frame, its sky subtracted: a frame, a CCDData or a path; without units, or in such that can be converted.
    scale
        By how much it is multiplied; fitted if None.
    bad
        Which mask planes leave a pixel out of the fit, such as ``"~CR"``; all that count as bad if None.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; variances are added (the fringe frame's times the square of the scale), masks
        joined. The fit is one global number, the same for any chunks, from at most three tasks per four million pixels; when
        the frame is settled or written, the header gets it and its uncertainty as ``FRNGSCAL`` and ``FRNGSERR``.

    Raises
    ------
    ParameterError
        Raised if fringes were subtracted already.
    UnitError, ShapeError
        Raised if the frames do not go together.

    Notes
    -----
    The scale :math:`s` makes :math:`\sum (d - s f - a_c)^2` least, over means of boxes of 8 x 8 pixels, with a sky
    :math:`a_c` of its own in each cell of 128 x 128. Boxes further off than 3 robust standard deviations are left out, and the
    fit repeated: stars. Fringes much finer than 8 pixels cannot be fitted.

    References
    ----------
    Snodgrass, C. and Carry, B. (2013), The Messenger 152, 14; LSST Science Pipelines, ip_isr, fringe.py, whose small and large
    apertures are boxes and cells here.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> waves = CCDData(np.sin(np.add.outer(np.arange(128), np.arange(128)) / 9), unit="")
    >>> ccd = CCDData(500 + 20 * waves.data, unit="electron")
    >>> abs(subtract_fringe(ccd, waves).data - 500).max() < 1e-9
    np.True_
    """
    image = resolve(ccd)
    pattern = resolve_operand(fringe, "fringe frame")
    # with a given scale, a second subtraction would leave the fringes with the opposite sign
    if "FRINGCOR" in header_from_text(image.header):
        raise ParameterError(
            "subtract_fringe() was applied already: the header has FRINGCOR; start from the frame before it."
        )
    check_shape(image, pattern, "fringe frame")
    # a pattern without units is a shape, whose scale the fit or the caller gives
    plain = pattern.units == u.dimensionless_unscaled
    factor = 1.0 if plain else conversion_factor(pattern.units, image.units, "fringe frame")
    value = (
        _fringe_fit(image, pattern, factor, bad)
        if scale is None
        else Scalar(given=np.array([normalize_number(scale, "scale")]), what="fringes")
    )
    result = combine_pair(
        image,
        pattern,
        instrument.subtract_scaled,
        (POINTWISE, POINTWISE),
        what="fringe frame",
        factor=factor,
        scalars=(("scale", value),),
    )
    return result.to_dataset()


def _fringe_fit(image: Image, pattern: Image, factor: float, bad: str | None) -> Scalar:
    """Return by how much a fringe frame is in an image, as a lazy global number."""
    # both images as planes of one step: a reduction reads one step, and means of boxes are needed of both at the same pixels
    both = Apply(
        image.shape,
        make_dtypes(data=np.float64, variance=np.float64),
        kernel=instrument.beside,
        sources=tuple(Input(i.plan, uses=tuple((p, ("data", "mask")) for p in PLANES)) for i in (image, pattern)),
        params=make_params(bad=(image.schema.select(bad), pattern.schema.bad_bits), dtype="float64"),
    )
    reduction = Reduction(
        both,
        partial=instrument.fringe_boxes,
        final=instrument.fringe_scale,
        planes=frozenset({"data", "variance"}),
        region=Region.full(image.shape),
    )
    cards = (ScalarCard("FRNGSCAL", 0, "scale of the fringe frame"), ScalarCard("FRNGSERR", 1, "its uncertainty"))
    return Scalar(reduction=reduction, what="scale of the fringes", cards=cards)


def _norm_of_all(calls: Sequence[Mapping[str, Any]]) -> dict[str, Norm]:
    """Return the mean of the illumination over all frames of a tree."""
    return norm_of_all(calls, flat="illumination")


@operation(shared=_norm_of_all)
def divide_illumination(
    ccd: xr.Dataset,
    illumination: Master,
    norm_value: NormValue = None,
    *,
    common_norm: bool = True,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Divide a flat-fielded frame by the large-scale illumination that its flat did not have.

    Parameters
    ----------
    ccd
        A flat-fielded frame, or a CCDData (then a computed CCDData is returned).
    illumination
        A smooth image of the night sky over the flat: a frame, a CCDData or a path; its units do not matter.
    norm_value, common_norm
        What it is divided by first; as in `flat_correct`.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, units as before; variance and ``LOW_FLAT`` as in `flat_correct`.

    Raises
    ------
    ParameterError
        Raised if the header does not say that the frame was flat-fielded, or says that this was done already.
    ShapeError
        Raised if the shapes differ.

    References
    ----------
    IRAF, noao.imred.ccdred, illumcor and mkillumcor.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import flat_correct
    >>> flat = CCDData(np.ones((1, 3)), unit="adu")
    >>> ccd = flat_correct(CCDData(np.array([[90.0, 100.0, 110.0]]), unit="electron"), flat)
    >>> divide_illumination(ccd, CCDData(np.array([[1.8, 2.0, 2.2]]), unit="")).data
    array([[100., 100., 100.]])
    """
    image = resolve(ccd)
    header = header_from_text(image.header)
    if "FLATCOR" not in header:
        raise ParameterError(
            "divide_illumination() comes after flat_correct, and the header has no FLATCOR; if the illumination contains the "
            "flat, divide by it with flat_correct."
        )
    if "ILLUMCOR" in header:
        raise ParameterError(
            "divide_illumination() was applied already: the header has ILLUMCOR; start from the frame before it."
        )
    return divided_by(
        image, resolve_operand(illumination, "illumination"), "illumination", None, norm_value
    ).to_dataset()
