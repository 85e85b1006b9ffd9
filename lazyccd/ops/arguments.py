"""Arguments that operations share: checked, chosen and brought into one form.

The first word of a name says what a function does with an argument. ``check_...`` raises or returns nothing. ``resolve_...``
picks what an argument stands for: the image of a frame, a CCDData or a path. ``normalize_...`` returns the one form in which
an argument goes on: a float, an array of the image's shape.
"""

from __future__ import annotations

from typing import Any, SupportsFloat, TypeAlias, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u
from dask.base import is_dask_collection

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.frame.core import DATA, DIMS, Image, resolve
from lazyccd.io import as_frame
from lazyccd.plan.steps import file_name

Pixels: TypeAlias = npt.ArrayLike | da.Array | xr.DataArray
"""An array of pixels that a user passes: anything that NumPy reads as an array, or a lazy one."""


def check_positive(value: float | u.Quantity, name: str, image: Image, *, zero: bool = False) -> None:
    """Refuse a gain or a noise that is not one finite number above 0; ``zero`` admits 0 itself.

    Raises
    ------
    ArgumentTypeError
        Raised if it is an array.
    ParameterError
        Raised if it is not finite or not above 0; the message names the file, whose header may be the culprit.
    """
    number = value.value if isinstance(value, u.Quantity) else value
    if np.ndim(number):
        raise ArgumentTypeError(
            f"{name} of shape {np.shape(number)} must be a single number; apply a map of gains by gain_correct first."
        )
    if not isinstance(number, bool | np.bool_) and (0 < number < np.inf or (zero and number == 0)):
        return
    file = file_name(image.plan)
    raise ParameterError(
        f"{name} {value}{f' of the frame {file}' if file else ''} must be a finite number {'not below' if zero else 'above'} 0; "
        f"give the {name} itself, or correct the header by with_header."
    )


def resolve_operand(other: object, what: str) -> Image:
    """Return the image of an operand: a frame, a CCDData or a path, which is opened lazily."""
    return resolve(as_frame(other, what), what)


def normalize_pixels(array: Pixels | xr.Dataset, image: Image, what: str) -> npt.NDArray[Any] | da.Array:
    """Return pixels that a user passes as a dask or NumPy array of the image's shape, in the order y, x.

    Raises
    ------
    ShapeError
        Raised if the shape is another one; one row or column is not broadcast here, since a mask of one row is an oversight.
    """
    if isinstance(array, xr.Dataset):  # a tree of arrays hands them on as nodes
        array = array[DATA]
    if isinstance(array, xr.DataArray):
        array = array.transpose(*DIMS).data if set(array.dims) == set(DIMS) else array.data
    # asarray would compute what is lazy, also of libraries other than dask.array, which `as_step` refuses by name
    values = cast("da.Array", array) if is_dask_collection(array) else np.asarray(array)
    if values.shape != image.shape:
        raise ShapeError(
            f"{what} shape {values.shape} does not match the image shape {image.shape}; cut it to the same section."
        )
    return values


def normalize_integer(value: SupportsFloat | str, name: str, least: int = 0) -> int:
    """Return a whole number as an int; 5.0 is one, as ccdproc's callers pass it.

    Raises
    ------
    ArgumentTypeError
        Raised if the value is no single number.
    ParameterError
        Raised if it is not whole, or below ``least``.
    """
    number = normalize_number(value, name, least)
    if not number.is_integer():
        raise ParameterError(f"{name} {value!r} must be a whole number.")
    return int(number)


def normalize_number(value: SupportsFloat | str, name: str, least: float = -np.inf) -> float:
    """Return a number as a float; infinity is one, and stands for no limit.

    Raises
    ------
    ArgumentTypeError
        Raised if the value is no single number: text, even "5", or an array.
    ParameterError
        Raised if it is NaN, or below ``least``.
    """
    # NumPy reads numbers from text, which then goes unnoticed where a keyword was meant: "GAIN" fails and "5" would not
    try:
        number = float("text" if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} {value!r} must be a single number.") from None
    if not number >= least:  # not `<`, which lets NaN pass
        raise ParameterError(
            f"{name} {value!r} must be a number" + (f" not below {least:g}." if least > -np.inf else ".")
        )
    return number
