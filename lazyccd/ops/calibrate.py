"""Deviation, gain, bias, dark and flat field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, KeywordError, ParameterError, UnitError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.header import header_from_text
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import calibrate, pointwise, reduce
from lazyccd.kernels.block import PLANES
from lazyccd.ops.common import file_name, operand, operation
from lazyccd.ops.pairs import add_images, affine_image, combine_pair, multiply_images
from lazyccd.ops.pasting import below_each_other
from lazyccd.plan.lower import Graph
from lazyccd.plan.steps import MASK_WITH_DATA, Input, PlaneMap, Reduction, Value, make_params
from lazyccd.sections import Region
from lazyccd.stats import quantile_value

if TYPE_CHECKING:
    from astropy.nddata import CCDData

Master: TypeAlias = "xr.Dataset | CCDData | str"
FROM_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data",)), ("mask", ("mask",)))
"""The variance is made from the data."""

FLAT: PlaneMap = (("data", ("data", "mask")), ("variance", PLANES), ("mask", ("data", "mask")))
"""The mask of a flat says where nothing is divided."""

ONE = u.dimensionless_unscaled
LOWEST_FLAT = 0.1
"""Normalised flat below which a pixel is flagged LOW_FLAT instead of divided."""


@operation()
def create_deviation(
    ccd_data: xr.Dataset,
    gain: u.Quantity | None = None,
    readnoise: u.Quantity | None = None,
    disregard_nan: bool = False,
) -> xr.Dataset:
    r"""Give a frame the uncertainty of Poisson and read noise.

    Parameters
    ----------
    ccd_data
        A frame, or a CCDData (then a computed CCDData is returned). Its data are not changed; an uncertainty that it has is
        replaced.
    gain
        Needed if the units of the data are not those of the read noise, such as 1.5 electron/adu.
    readnoise
        Such as 5 electron.
    disregard_nan
        Count negative signals as 0. Otherwise the uncertainty is NaN where the data are negative.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; ``uncertainty_type`` is ``std``, in the units of the data.

    Raises
    ------
    ArgumentTypeError
        Raised if ``gain`` or ``readnoise`` is not a quantity.
    ParameterError
        Raised if ``readnoise`` is missing.
    UnitError
        Raised if gain times data does not have the units of the read noise.

    Notes
    -----
    With gain :math:`g`, signal :math:`x` and read noise :math:`r`, :math:`\sigma = \sqrt{g x + r^2} / g`.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.array([[0.0, 22.0]]), unit="adu")
    >>> create_deviation(ccd, gain=2 * u.electron / u.adu, readnoise=10 * u.electron).uncertainty.array
    array([[5., 6.]])
    """
    image = resolve(ccd_data)
    if gain is not None and not isinstance(gain, u.Quantity):
        raise ArgumentTypeError(
            f"gain {gain!r} must be a Quantity; give it a unit such as {gain} * u.electron / u.adu."
        )
    if readnoise is None:
        raise ParameterError("create_deviation() needs readnoise; give it as a Quantity such as 5 * u.electron.")
    if not isinstance(readnoise, u.Quantity):
        raise ArgumentTypeError(
            f"readnoise {readnoise!r} must be a Quantity; give it a unit such as {readnoise} * u.electron."
        )
    g = u.Quantity(1.0) if gain is None else gain
    if not (g.unit * image.units).is_equivalent(readnoise.unit):
        raise UnitError(
            f"gain unit '{g.unit}' times data unit '{image.units}' does not match readnoise unit '{readnoise.unit}'; "
            "give the gain in electron/adu and the read noise in electron."
        )
    readnoise = readnoise.to(g.unit * image.units)
    planes: dict[str, Any] = dict(image.plan.planes) | {"variance": image.dtype}
    plan = image.apply(
        pointwise.set_deviation,
        (Input(image.plan, uses=FROM_DATA),),
        planes,
        gain=float(g.value),
        readnoise=float(readnoise.value),
        clip=bool(disregard_nan),
        dtype=image.dtype.name,
    )
    return replace(image, plan=plan, uncertainty_type="std").to_dataset()


@operation()
def gain_correct(
    ccd: xr.Dataset, gain: u.Quantity | Keyword | float | Master, gain_unit: u.UnitBase | None = None
) -> xr.Dataset:
    """Multiply by the gain.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    gain
        A quantity; a `Keyword`, whose value is read from the header; a number; or a gain map: a frame or an array quantity of
        the image's shape.
    gain_unit
        Unit of a number; without it, the units of the frame stay.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. Data and uncertainty are scaled, units multiplied, the mask kept.

    Raises
    ------
    KeywordError
        Raised if the header does not have the keyword.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.array([[100.0]]), unit="adu", meta={"GAIN": 1.5})
    >>> gain_correct(ccd, Keyword("GAIN", unit=u.electron / u.adu))
    CCDData([[150.]], unit='electron')
    """
    image = resolve(ccd)
    if isinstance(gain, xr.Dataset | str) or is_ccddata(gain):
        return multiply_images(image, operand(gain, "gain map"), "gain map").to_dataset()
    quantity = u.Quantity(gain, gain_unit) if gain_unit is not None else u.Quantity(gain)
    if not quantity.isscalar:
        from astropy.nddata import CCDData

        gain_map = CCDData(np.broadcast_to(quantity.value, image.shape).copy(), unit=quantity.unit)
        return multiply_images(image, operand(gain_map, "gain map"), "gain map").to_dataset()
    result = affine_image(image, float(quantity.value))
    return replace(result, units=image.units * quantity.unit).to_dataset()


@operation()
def subtract_bias(ccd: xr.Dataset, master: Master) -> xr.Dataset:
    """Subtract a master bias.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    master
        The master bias: a frame, a CCDData or a path; one row or one column is broadcast.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. The master is converted to the frame's units; variances are added, masks joined.

    Raises
    ------
    UnitError
        Raised if the units cannot be converted.
    ShapeError
        Raised if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> subtract_bias(CCDData(np.full((1, 2), 1010.0), unit="adu"), CCDData(np.full((1, 2), 1000.0), unit="adu")).data
    array([[10., 10.]])
    """
    image = resolve(ccd)
    bias = operand(master, "master bias")
    factor = conversion_factor(bias.units, image.units, "master bias")
    return add_images(image, bias, -factor, "master bias").to_dataset()


@operation()
def subtract_dark(
    ccd: xr.Dataset,
    master: Master,
    dark_exposure: u.Quantity | None = None,
    data_exposure: u.Quantity | None = None,
    exposure_time: str | Keyword | None = None,
    exposure_unit: u.UnitBase | None = None,
    scale: bool = False,
) -> xr.Dataset:
    """Subtract a master dark.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    master
        The master dark, bias-subtracted if it is scaled: a frame, a CCDData or a path.
    dark_exposure, data_exposure
        Exposure times as quantities. Give both, or ``exposure_time``.
    exposure_time
        Header keyword of the exposure time, looked up in both headers.
    exposure_unit
        Unit of the exposure times if they are given as numbers or read from a keyword.
    scale
        Scale the dark by the ratio of the exposure times.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. Variances are added (the dark's times the square of the scale), masks joined.

    Raises
    ------
    ArgumentTypeError
        Raised if the exposure times are not given in exactly one way, or have no unit.
    KeywordError
        Raised if a header does not have the keyword.
    UnitError
        Raised if units cannot be converted.
    ShapeError
        Raised if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import CCDData
    >>> ccd, dark = CCDData(np.full((1, 1), 100.0), unit="adu"), CCDData(np.full((1, 1), 5.0), unit="adu")
    >>> subtract_dark(ccd, dark, dark_exposure=10 * u.s, data_exposure=1 * u.min, scale=True).data
    array([[70.]])
    """
    image = resolve(ccd)
    dark = operand(master, "master dark")
    dark_time, data_time = _exposures(image, dark, dark_exposure, data_exposure, exposure_time, exposure_unit)
    factor = conversion_factor(dark.units, image.units, "master dark")
    if scale:
        conversion_factor(data_time.unit, dark_time.unit, "data exposure")
        factor *= float((data_time / dark_time).decompose().value)
    return add_images(image, dark, -factor, "master dark").to_dataset()


def _exposures(
    image: Image, dark: Image, dark_exposure: Any, data_exposure: Any, exposure_time: Any, unit: Any
) -> tuple[u.Quantity, u.Quantity]:
    """Return the exposure times of dark and image."""
    given = [dark_exposure, data_exposure]
    if exposure_time is not None and given != [None, None]:
        raise ArgumentTypeError(
            "subtract_dark() got exposure times and the keyword exposure_time; give one or the other."
        )
    if exposure_time is not None:
        name = exposure_time.name if isinstance(exposure_time, Keyword) else exposure_time
        if isinstance(exposure_time, Keyword) and unit is None:
            unit = exposure_time.unit
        given = [_exposure(Keyword(name, unit=unit), i, what) for i, what in ((dark, "dark"), (image, "frame"))]
    if None in given:
        raise ArgumentTypeError(
            "subtract_dark() needs dark_exposure and data_exposure as Quantity, or exposure_time as a header keyword."
        )
    times = []
    for value in given:
        if not isinstance(value, u.Quantity) and unit is None:
            raise ArgumentTypeError(f"exposure time {value!r} has no unit; give exposure_unit, such as u.second.")
        times.append(value if isinstance(value, u.Quantity) else u.Quantity(value, unit))
    return times[0], times[1]


def _exposure(keyword: Keyword, image: Image, what: str) -> Any:
    """Return the exposure time in a header."""
    header = header_from_text(image.header)
    if keyword.name not in header:
        raise KeywordError(
            f"the header of the {what} {file_name(image.plan)} has no keyword {keyword.name!r}; give dark_exposure and "
            "data_exposure, or another keyword."
        )
    return keyword.value_from(header)


class Norm(NamedTuple):
    """What the flats of several frames are divided by, and the graphs of the arrays that it is made of."""

    value: Value
    graphs: tuple[Graph, ...]


def norm_of_all(calls: Sequence[Mapping[str, Any]], *, flat: str = "flat") -> dict[str, Norm]:
    """Return what the flats of all frames of a tree are divided by, unless it is given, or each has its own."""
    first = calls[0]
    words = {str(call.get("norm_value") or "mean") for call in calls}
    if not first.get("common_norm", True) or first.get(flat) is None or not words <= {"mean", "median"}:
        return {}
    limits = {None if call.get("min_value") is None else float(u.Quantity(call["min_value"]).value) for call in calls}
    if len(words) > 1 or len(limits) > 1:
        raise ParameterError(
            f"norm_value {sorted(words)} and min_value {limits} differ between the frames, which have one norm together; "
            "give one for all, or common_norm=False."
        )
    flats = list({image.plan.token: image for image in (operand(call[flat], "flat") for call in calls)}.values())
    together = flats[0] if len(flats) == 1 else below_each_other([replace(image, units=ONE) for image in flats])
    return {"norm_value": Norm(_flat_norm(together, limits.pop(), words.pop()), together.graphs)}


@operation(shared=norm_of_all)
def flat_correct(
    ccd: xr.Dataset,
    flat: Master,
    min_value: float | None = None,
    norm_value: float | u.Quantity | Literal["mean", "median"] | None = None,
    *,
    common_norm: bool = True,
) -> xr.Dataset:
    r"""Divide by a flat field that is first normalised.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    flat
        The master flat: a frame, a CCDData or a path; its units do not matter.
    min_value
        Pixels of the flat (before it is normalised) below this count as this, and are flagged ``LOW_FLAT``.
    norm_value
        What the flat is divided by: a number, or its ``"mean"`` (if None too) or exact ``"median"`` over good, finite pixels,
        which are global numbers; one task per about four million pixels computes them.
    common_norm
        For trees: whether all frames have one mean or median together; one each leaves steps between amplifiers.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, units as before; always with a mask. Where the normalised flat is not above 0, or
        below 0.1 if there is no ``min_value``, nothing is divided and ``LOW_FLAT`` is set; masked pixels of the flat count as
        1 and stay masked.

    Raises
    ------
    ParameterError
        Raised if ``norm_value`` is not above 0, or another word.
    ShapeError
        Raised if the shapes differ.

    Notes
    -----
    With the normalised flat :math:`f` and :math:`r = d / f`, :math:`\sigma_r^2 = (\sigma_d^2 + r^2 \sigma_f^2) / f^2`.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.full((1, 3), 60.0), unit="electron")
    >>> flat_correct(ccd, CCDData(np.array([[2.0, 4.0, 6.0]]), unit="adu")).data
    array([[120.,  60.,  40.]])
    """
    image = resolve(ccd)
    master = operand(flat, "flat")
    limit = None if min_value is None else float(u.Quantity(min_value).value)
    return divided_by(image, master, "flat", limit, norm_value).to_dataset()


def divided_by(image: Image, master: Image, what: str, min_value: float | None, norm_value: Any) -> Image:
    """Return an image divided by another one that is first normalised; ``what`` names that in messages."""
    norm = norm_value if isinstance(norm_value, Norm) else Norm(_flat_norm(master, min_value, norm_value), ())
    return combine_pair(
        replace(image, graphs=(*image.graphs, *norm.graphs)),
        master,
        calibrate.divide_flat,
        (MASK_WITH_DATA, FLAT),
        what=what,
        mask=True,
        min_value=min_value,
        lowest=LOWEST_FLAT,
        bad_bits=master.schema.bad_bits,
        low_flat=image.schema.bits("LOW_FLAT"),
        no_data=image.schema.bits("NO_DATA"),
        numbers=(("norm", norm.value),),
    )


def _flat_norm(flat: Image, min_value: float | None, norm_value: Any) -> Value:
    """Return what a flat is divided by."""
    if norm_value is None or norm_value == "mean":
        return flat_mean(flat, min_value)
    if norm_value == "median":
        return quantile_value(flat, (0.5,))
    if isinstance(norm_value, str):
        raise ParameterError(f"norm_value {norm_value!r} must be a number, 'mean' or 'median'.")
    number = float(u.Quantity(norm_value).value)
    if not number > 0:
        raise ParameterError(f"norm_value {norm_value} must be greater than 0.")
    return Value(given=np.array(number), what="flat norm")


def flat_mean(flat: Image, min_value: float | None) -> Value:
    """Return the mean of a flat over good, finite pixels, as a lazy global number."""
    reduction = Reduction(
        flat.plan,
        partial=reduce.sum_and_count,
        final=reduce.mean_of_sums,
        params=make_params(bad_bits=flat.schema.bad_bits, min_value=min_value),
        planes=frozenset({"data", "mask"} & flat.plan.dtypes.keys()),
        region=Region.full(flat.shape),
    )
    return Value(reduction=reduction, what="mean of the flat")
