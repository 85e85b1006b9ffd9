"""Arithmetic of frames with numbers, quantities and frames, which propagates uncertainty, mask and units.

Python's operators on a Dataset know nothing of variances and mask bits: ``ds - ds`` has the uncertainty 0, and ``ds * 0.1`` a mask
of floats. These functions propagate both, as `astropy.nddata.CCDData` does. They take the errors of two frames as independent,
so that ``subtract(ds, ds)`` is 0 with a variance of twice that of ``ds``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.core import resolve
from lazyccd.frame.units import conversion_factor
from lazyccd.ops.arguments import resolve_operand
from lazyccd.ops.binary import add_images, affine_image, divide_images, multiply_images
from lazyccd.ops.decorator import operation

if TYPE_CHECKING:
    from astropy.nddata import CCDData

Operand: TypeAlias = "float | u.Quantity | xr.Dataset | CCDData"


def _number(other: object) -> u.Quantity | None:
    """Return a scalar operand as a quantity; None if it is an image."""
    if isinstance(other, u.Quantity | int | float | np.number):
        quantity = u.Quantity(other)
        if not quantity.isscalar:
            raise ArgumentTypeError(
                f"operand of shape {quantity.shape} must be a number; wrap arrays in a CCDData or frame."
            )
        return quantity
    return None


def _add(frame: xr.Dataset, other: Operand, sign: float) -> xr.Dataset:
    image = resolve(frame)
    number = _number(other)
    if number is None:
        right = resolve_operand(other, "operand")
        factor = conversion_factor(right.units, image.units, "operand")
        return add_images(image, right, sign * factor, "operand").to_dataset()
    # converted, not stripped: ccdproc after 2.5.1 makes 0 of 1 m less 1 cm
    factor = conversion_factor(number.unit, image.units, "operand")
    return affine_image(image, 1.0, sign * factor * float(number.value)).to_dataset()


@operation()
def add(frame: xr.Dataset, other: Operand) -> xr.Dataset:
    """Add a number, a quantity or a frame.

    Parameters
    ----------
    frame
        A frame, or a CCDData (then a computed CCDData is returned).
    other
        A number, a quantity, or a frame or CCDData of the frame's shape; one row or one column is broadcast. It is converted to
        the frame's units.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, in the units of the frame. Variances are added, and the masks have the planes of both.
        A number changes neither uncertainty nor mask. NaN in either operand gives NaN.

    Raises
    ------
    UnitError
        Raised if the units cannot be converted; a bare number fits only a dimensionless frame.
    ShapeError
        Raised if the shapes differ.
    ArgumentTypeError
        Raised if the operand is a bare array, which has no units: wrap it in a CCDData or a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, StdDevUncertainty
    >>> ccd = CCDData(np.zeros((1, 2)), unit="adu", uncertainty=StdDevUncertainty([[3.0, 3.0]]))
    >>> other = CCDData(np.ones((1, 2)), unit="adu", uncertainty=StdDevUncertainty([[4.0, 0.0]]))
    >>> add(ccd, other).uncertainty.array
    array([[5., 3.]])
    """
    return _add(frame, other, 1.0)


@operation()
def subtract(frame: xr.Dataset, other: Operand) -> xr.Dataset:
    """Subtract a number, a quantity or a frame.

    Parameters
    ----------
    frame
        A frame, or a CCDData (then a computed CCDData is returned).
    other
        A number, a quantity, or a frame or CCDData of the frame's shape; one row or one column is broadcast. It is converted to
        the frame's units.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, in the units of the frame. Variances are added, and the masks have the planes of both.
        A number changes neither uncertainty nor mask. NaN in either operand gives NaN.

    Raises
    ------
    UnitError
        Raised if the units cannot be converted; a bare number fits only a dimensionless frame.
    ShapeError
        Raised if the shapes differ.
    ArgumentTypeError
        Raised if the operand is a bare array, which has no units: wrap it in a CCDData or a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> subtract(CCDData(np.ones((1, 2)), unit="m"), CCDData(np.ones((1, 2)), unit="cm")).data
    array([[0.99, 0.99]])
    """
    return _add(frame, other, -1.0)


@operation()
def multiply(frame: xr.Dataset, other: Operand) -> xr.Dataset:
    """Multiply by a number, a quantity or a frame.

    Parameters
    ----------
    frame
        A frame, or a CCDData (then a computed CCDData is returned).
    other
        A number, a quantity, or a frame or CCDData of the frame's shape; one row or one column is broadcast. Its units multiply
        the frame's.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. The variance is ``b**2 var_a + a**2 var_b``; the masks have the planes of both. NaN in
        either operand gives NaN.

    Raises
    ------
    ShapeError
        Raised if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import CCDData
    >>> multiply(CCDData(np.ones((1, 2)), unit="adu"), 2 * u.electron / u.adu).unit
    Unit("electron")
    """
    image = resolve(frame)
    number = _number(other)
    if number is None:
        return multiply_images(image, resolve_operand(other, "operand"), "operand").to_dataset()
    result = affine_image(image, float(number.value))
    return replace(result, units=image.units * number.unit).to_dataset()


@operation()
def divide(frame: xr.Dataset, other: Operand) -> xr.Dataset:
    """Divide by a number, a quantity or a frame.

    Parameters
    ----------
    frame
        A frame, or a CCDData (then a computed CCDData is returned).
    other
        A number, a quantity, or a frame or CCDData of the frame's shape; one row or one column is broadcast. The frame's units
        are divided by its units.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. With ``r = a / b`` the variance is ``(var_a + r**2 var_b) / b**2``; the masks
        have the planes of both. Where ``r`` is not finite, ``NO_DATA`` is set if there is a mask.

    Raises
    ------
    ParameterError
        Raised if the divisor is the number 0.
    ShapeError
        Raised if the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, StdDevUncertainty
    >>> ccd = CCDData(np.zeros((1, 1)), unit="adu", uncertainty=StdDevUncertainty([[3.0]]))
    >>> divide(ccd, CCDData(np.full((1, 1), 2.0), unit="")).uncertainty.array  # holds at zero signal
    array([[1.5]])
    """
    image = resolve(frame)
    number = _number(other)
    if number is None:
        return divide_images(image, resolve_operand(other, "operand"), "operand").to_dataset()
    # where a frame is 0, single pixels become NO_DATA; a number that is 0 is a mistake of the call
    if float(number.value) == 0:
        raise ParameterError(f"divisor {other} must not be 0; mask the frame instead.")
    result = affine_image(image, 1 / float(number.value))
    return replace(result, units=image.units / number.unit).to_dataset()
