"""Subtract bias and dark, apply the gain, and make uncertainties.

The four operations are ccdproc's, and each master brings its own noise. `add_noise` and `scale_noise` are what `lazyccd reduce`
needs besides: the noise of the frame on top of that of its masters, and masters whose noise is counted elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, KeywordError, ParameterError, ShapeError, UnitError
from lazyccd.frame.core import UNCERTAINTY, Image, resolve
from lazyccd.frame.header import header_from_text
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.processing_history import is_gain_stamped, warn_if_in_electrons
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import pointwise
from lazyccd.ops.arguments import check_positive, resolve_operand
from lazyccd.ops.attributes import with_uncertainty
from lazyccd.ops.binary import add_images, affine_image, multiply_images
from lazyccd.ops.decorator import operation
from lazyccd.plan.footprints import WITH_DATA, PlaneMap
from lazyccd.plan.steps import Input, file_name

if TYPE_CHECKING:
    from astropy.nddata import CCDData


Master: TypeAlias = "xr.Dataset | CCDData | str"
FROM_DATA: PlaneMap = (("data", ("data",)), ("variance", ("data",)), ("mask", ("mask",)))
"""The variance is made from the data."""


@operation()
def create_deviation(
    ccd_data: xr.Dataset,
    gain: u.Quantity | Keyword | str | None = None,
    readnoise: u.Quantity | Keyword | str | None = None,
    disregard_nan: bool = False,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    r"""Make the uncertainty of a frame from Poisson and read noise.

    Parameters
    ----------
    ccd_data
        A frame, or a CCDData (then a computed CCDData is returned). Its data are not changed; an uncertainty that it has is
        replaced.
    gain
        Needed if the units of the data are not those of the read noise: a quantity, such as 1.5 electron/adu, or a keyword of
        the header, such as ``"GAIN"``, in electrons per unit of the data.
    readnoise
        A quantity, such as 5 electron, or a keyword, such as ``"RDNOISE"``, in electrons.
    disregard_nan
        Count negative signals as 0. Otherwise the uncertainty is NaN where the data are negative.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; ``uncertainty_type`` is ``std``, in the units and dtype of the data. Masked pixels
        have one too; where the data are NaN, it is NaN.

    Raises
    ------
    ArgumentTypeError
        Raised if ``gain`` or ``readnoise`` is not a quantity.
    ParameterError
        Raised if ``readnoise`` is missing or below 0, or ``gain`` is not above 0, or one of them is not finite.
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
    # data and read noise in one unit need no gain; the check below finds out
    g = u.Quantity(1.0) if gain is None else gain
    check_positive(g, "gain", image)
    check_positive(readnoise, "readnoise", image, zero=True)
    if not (g.unit * image.units).is_equivalent(readnoise.unit):
        raise UnitError(
            f"gain unit '{g.unit}' times data unit '{image.units}' does not match readnoise unit '{readnoise.unit}'; "
            "give the gain in electron/adu and the read noise in electron."
        )
    noise: u.Quantity = readnoise.to(g.unit * image.units)
    planes: dict[str, Any] = dict(image.plan.planes) | {"variance": image.dtype}
    plan = image.apply(
        pointwise.set_deviation,
        (Input(image.plan, uses=FROM_DATA),),
        planes,
        gain=float(g.value),
        readnoise=float(noise.value),
        # ccdproc's default, which gives NaN to half of the pixels of a bias frame; `add_noise`, of `reduce`, counts them as 0
        clip=bool(disregard_nan),
        dtype=image.dtype.name,
    )
    return replace(image, plan=plan, uncertainty_type="std").to_dataset()


@operation()
def gain_correct(
    ccd: xr.Dataset,
    gain: u.Quantity | Keyword | float | Master,
    gain_unit: u.UnitBase | None = None,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Multiply by the gain, which turns adu into electrons.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    gain
        A quantity; a keyword of the header, such as ``"GAIN"``, in electrons per unit of the data, or a `Keyword` with the unit
        that it has; a number; or a gain map: a frame, its path, or an array quantity of the image's shape.
    gain_unit
        Unit of a number, or of a keyword's value; without it, a number leaves the units of the frame.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. Data and uncertainty are scaled, units multiplied, the mask kept.

    Raises
    ------
    KeywordError
        Raised if the header does not have the keyword.
    ParameterError
        Raised if the gain is one number and not above 0 and finite.

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
        return multiply_images(image, resolve_operand(gain, "gain map"), "gain map").to_dataset()
    quantity = _gain_quantity(gain, gain_unit)
    if not is_gain_stamped(image.header):  # else the decorator has warned
        warn_if_in_electrons(image.units, quantity.unit)
    if not quantity.isscalar:
        from astropy.nddata import CCDData

        try:
            values = np.broadcast_to(quantity.value, image.shape).copy()
        except ValueError:
            raise ShapeError(
                f"gain shape {quantity.shape} does not match the image shape {image.shape}; cut it to the same section."
            ) from None
        gain_map = CCDData(values, unit=quantity.unit)
        return multiply_images(image, resolve_operand(gain_map, "gain map"), "gain map").to_dataset()
    # a map of gains is taken as it is; one number that is not above 0 is a mistake of the header or the call
    check_positive(gain, "gain", image)
    result = affine_image(image, float(quantity.value))
    return replace(result, units=image.units * quantity.unit).to_dataset()


def _gain_quantity(gain: Any, unit: u.UnitBase | None) -> u.Quantity:
    """Return a gain with its unit."""
    try:
        return u.Quantity(gain, unit) if unit is not None else u.Quantity(gain)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(
            f"gain {gain!r} must be a Quantity such as 1.5 * u.electron / u.adu, a number, a keyword or a gain map: {error}."
        ) from None


@operation()
def subtract_bias(ccd: xr.Dataset, master: Master, *, add_keyword: LogEntry = True) -> xr.Dataset:
    """Subtract a master bias, and add its variance to that of the frame.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    master
        The master bias: a frame, a CCDData or a path; one row or one column is broadcast.
    add_keyword
        What the header says about the operation: True notes its name and arguments; a string, a `Keyword` or a mapping of
        cards is noted instead; None or False notes nothing.

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
    bias = resolve_operand(master, "master bias")
    # units may differ by a scale: ccdproc after 2.5.1 subtracts the bare numbers, and 1 m less 1 cm is 0
    factor = conversion_factor(bias.units, image.units, "master bias")
    return add_images(image, bias, -factor, "master bias").to_dataset()


@operation()
def subtract_dark(
    ccd: xr.Dataset,
    master: Master,
    dark_exposure: u.Quantity | Keyword | str | None = None,
    data_exposure: u.Quantity | Keyword | str | None = None,
    exposure_time: str | Keyword | None = None,
    exposure_unit: u.UnitBase | None = None,
    scale: bool = False,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Subtract a master dark, on request scaled by exposure time, and add its variance to that of the frame.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    master
        The master dark, bias-subtracted if it is scaled: a frame, a CCDData or a path.
    dark_exposure, data_exposure
        Exposure times as quantities, or keywords: the dark's is read in its own header. Give both, or ``exposure_time``.
    exposure_time
        Header keyword of the exposure time, looked up in both headers.
    exposure_unit
        Unit of the exposure times if they are given as numbers or read from a keyword.
    scale
        Scale the dark by the ratio of the exposure times.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

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
    dark = resolve_operand(master, "master dark")
    # asked for even if nothing is scaled, as in ccdproc: a dark of another exposure is then a decision and no oversight
    dark_time, data_time = _exposures(image, dark, dark_exposure, data_exposure, exposure_time, exposure_unit)
    factor = conversion_factor(dark.units, image.units, "master dark")
    # bias that is left in the dark would be scaled too, which no number here can show
    if scale:
        conversion_factor(data_time.unit, dark_time.unit, "data exposure")
        factor *= float((data_time / dark_time).decompose().value)
    return add_images(image, dark, -factor, "master dark").to_dataset()


def _exposures(
    image: Image,
    dark: Image,
    dark_exposure: u.Quantity | Keyword | str | None,
    data_exposure: u.Quantity | Keyword | str | None,
    exposure_time: str | Keyword | None,
    unit: u.UnitBase | None,
) -> tuple[u.Quantity, u.Quantity]:
    """Return the exposure times of dark and image."""
    given = [dark_exposure, data_exposure]
    if exposure_time is not None and given != [None, None]:
        raise ArgumentTypeError(
            "subtract_dark() got exposure times and the keyword exposure_time; give one or the other."
        )
    if exposure_time is not None:
        name = exposure_time.name if isinstance(exposure_time, Keyword) else exposure_time.removeprefix("!")
        if isinstance(exposure_time, Keyword) and unit is None:
            unit = exposure_time.unit
        given = [_exposure(Keyword(name, unit=unit), i, what) for i, what in ((dark, "dark"), (image, "frame"))]
    if isinstance(dark_exposure, Keyword | str):
        name = dark_exposure.name if isinstance(dark_exposure, Keyword) else dark_exposure.removeprefix("!")
        given[0] = _exposure(Keyword(name, unit=getattr(dark_exposure, "unit", None) or unit or u.s), dark, "dark")
    if any(value is None for value in given):
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


def add_noise(ccd: xr.Dataset, *, gain: float, readnoise: float, poisson: bool = True) -> xr.Dataset:
    """Add Poisson and read noise to a frame's variance.

    Parameters
    ----------
    ccd
        A frame whose data are the signal itself: bias or overscan subtracted.
    gain
        Electrons per unit of the data.
    readnoise
        Electrons.
    poisson
        Whether the signal has Poisson noise; a bias has none.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. The variance is ``max(data, 0) / gain + (readnoise / gain)**2``, plus the one that
        the frame has, such as that of a master bias.
    """
    image = resolve(ccd)
    planes: dict[str, Any] = dict(image.plan.planes) | {"variance": image.dtype}
    plan = image.apply(
        pointwise.add_noise,
        (Input(image.plan, uses=WITH_DATA),),
        planes,
        gain=gain,
        readnoise=readnoise,
        poisson=poisson,
        dtype=image.dtype.name,
    )
    # a frame without an uncertainty has a type that nobody chose
    kind = image.uncertainty_type if UNCERTAINTY in ccd else "std"
    return replace(image, plan=plan, uncertainty_type=kind).to_dataset()


def scale_noise(ccd: xr.Dataset, factor: float) -> xr.Dataset:
    """Multiply the uncertainty of a master whose noise a frame has in part; a factor of 0 removes it.

    A bias that a frame and its dark share cancels at equal exposure, and so does its error: added twice as if independent, it
    would count for more than it is.

    Parameters
    ----------
    ccd
        A frame, with or without an uncertainty, which is a standard deviation.
    factor
        0 or more.

    Returns
    -------
    xr.Dataset
        Lazy, halo 0; the data keep their plan.
    """
    if factor == 1 or UNCERTAINTY not in ccd:
        return ccd
    return with_uncertainty(ccd, ccd[UNCERTAINTY].data * factor if factor else None)
