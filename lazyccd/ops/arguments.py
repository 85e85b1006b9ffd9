"""Checks and conversions of the arguments that operations share."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.frame.core import DATA, DIMS, Image, resolve
from lazyccd.io import as_frame
from lazyccd.plan.steps import Source, Step

Pixels: TypeAlias = npt.ArrayLike | da.Array | xr.DataArray
"""An array of pixels that a user passes: anything that NumPy reads as an array, or a lazy one."""


def file_name(plan: Step) -> str:
    """Return the name of the file that the data of a frame were read from; empty if there is none."""
    step = plan
    while step.inputs:
        step = step.inputs[0]
    return os.path.basename(step.storage.name.rstrip("/")).removesuffix("[0]") if isinstance(step, Source) else ""


def check_range(value: Any, name: str, image: Image, *, zero: bool = False) -> None:
    """Refuse a gain or a noise that is no single number, not finite, or below 0, or 0 itself unless ``zero``."""
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


def operand(other: object, what: str) -> Image:
    """Return the image of an operand: a frame, a CCDData or a path."""
    return resolve(as_frame(other, what), what)


def pixels_like(array: Any, image: Image, what: str) -> Any:
    """Return a dask or NumPy array of the image's shape; DataArrays are turned to the order y, x."""
    if isinstance(array, xr.Dataset):  # one of a tree of arrays
        array = array[DATA]
    if isinstance(array, xr.DataArray):
        array = array.transpose(*DIMS).data if set(array.dims) == set(DIMS) else array.data
    values = array if hasattr(array, "__dask_graph__") else np.asarray(array)
    if values.shape != image.shape:
        raise ShapeError(
            f"{what} shape {values.shape} does not match the image shape {image.shape}; cut it to the same section."
        )
    return values


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """Return a whole number that is not below a least one."""
    number = single_number(value, name, least)
    if not number.is_integer():
        raise ParameterError(f"{name} {value!r} must be a whole number.")
    return int(number)


def single_number(value: Any, name: str, least: float = -np.inf) -> float:
    """Return a number that is not NaN, nor below a least one."""
    try:
        number = float("text" if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name} {value!r} must be a single number.") from None
    if not number >= least:
        raise ParameterError(
            f"{name} {value!r} must be a number" + (f" not below {least:g}." if least > -np.inf else ".")
        )
    return number
