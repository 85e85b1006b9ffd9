"""Results of steps: new images with the parts of another, and arithmetic of two images.

The numbers, rules and exceptions are those of `CCDData`. Where an image and its operand are plain, as nearly all are, the formulas
of its arithmetic are computed here, band by band while the pixels are in cache, by all processors; everything else is handed to
`CCDData` itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from lazyccd.frame.header import copy_header
from lazyccd.plan import threads
from lazyccd.plan.threads import each, shares

Array: TypeAlias = np.ndarray[Any, Any]

BAND_PIXELS = 2**16
"""Pixels that are computed at a time: the arrays that a formula needs stay in the processor's cache."""

METHODS: dict[Any, str] = {np.subtract: "subtract", np.multiply: "multiply", np.true_divide: "divide"}
"""The methods of CCDData for what `calculate` can do."""


class Operand(NamedTuple):
    """The arrays of an image."""

    data: Array
    sigma: Array | None
    mask: Array | None


class Scaling(NamedTuple):
    """What is done to an operand before it is used."""

    operation: np.ufunc
    """`numpy.multiply` or `numpy.true_divide`."""

    number: Any
    """By which number, as a quantity without axes."""

    least: float | None = None
    """Lower values are replaced by this one, first."""

    masked: float | None = None
    """What masked pixels become, last."""

    def of_arrays(self, part: Operand) -> Operand:
        """Return the arrays, scaled."""
        number = Operand(np.asarray(self.number.value), None, None)
        values = self.operation(self._clipped(part.data), number.data)
        if self.masked is not None and part.mask is not None:
            values[np.broadcast_to(np.asarray(part.mask, bool), values.shape)] = self.masked
        return Operand(values, _deviation(self.operation, part, number), part.mask)

    def of_image(self, ccd: CCDData) -> CCDData:
        """Return the image, scaled by the arithmetic of CCDData."""
        if self.least is not None:
            ccd = copied(ccd, data=self._clipped(ccd.data))
        result = (ccd.multiply if self.operation is np.multiply else ccd.divide)(self.number)
        result._unit = self.unit(ccd)
        if self.masked is not None and result.mask is not None:
            result.data[np.broadcast_to(np.asarray(result.mask, bool), result.data.shape)] = self.masked
        return result

    def _clipped(self, data: Array) -> Array:
        return data if self.least is None else np.where(data < self.least, data.dtype.type(self.least), data)

    def unit(self, ccd: CCDData) -> Any:
        """Return the unit of the scaled image."""
        own = ccd.unit or u.dimensionless_unscaled
        return own * self.number.unit if self.operation is np.multiply else (own / self.number.unit).decompose()

    def mean_of(self, data: Array) -> Any:
        """Return the mean of values, of which low ones are replaced."""
        return self._clipped(data).mean()


def copy_meta(meta: Mapping[str, Any]) -> Any:
    """Return a copy of a header or another mapping."""
    return copy_header(meta) if isinstance(meta, fits.Header) else meta.copy()  # type: ignore[attr-defined]


def copied(ccd: CCDData, **parts: Any) -> CCDData:
    """Return a copy of an image with other ``data``, ``uncertainty``, ``mask``, ``wcs`` or ``unit``.

    Parts that are given are not copied, and of those that they replace there is no copy either.
    """
    if type(ccd) is not CCDData:
        # a class of the user's copies itself, with what it has besides
        result = ccd.copy()
        for name, part in parts.items():
            setattr(result, name, part)
        return result
    own: dict[str, Callable[[], Any]] = {
        "data": lambda: copy_array(ccd.data),
        "uncertainty": lambda: _copy_uncertainty(ccd.uncertainty),
        "mask": lambda: copy_array(ccd.mask),
        "wcs": lambda: copy.deepcopy(ccd.wcs),
        "psf": lambda: copy.deepcopy(ccd.psf),
        "unit": lambda: ccd.unit,
        "meta": lambda: copy_meta(ccd.meta),
    }
    made = parts | {name: make() for name, make in own.items() if name not in parts}
    return CCDData(made.pop("data"), flags=ccd.flags, **made)


def _copy_uncertainty(uncertainty: Any) -> Any:
    """Return a copy of an uncertainty."""
    if type(uncertainty) is not StdDevUncertainty:
        return copy.deepcopy(uncertainty)
    return StdDevUncertainty(copy_array(uncertainty.array), unit=uncertainty.unit, copy=False)


def cut(ccd: CCDData, slices: tuple[slice, ...]) -> CCDData:
    """Return a copy of a part of an image."""
    part = ccd[slices]
    # the WCS of a part is new already
    return part.copy() if type(part) is not CCDData else copied(part, wcs=part.wcs)


def copy_array(array: Any) -> Any:
    """Return a copy of an array, or of what stands in its place."""
    if type(array) is not np.ndarray or not array.ndim:
        return copy.deepcopy(array)
    out = np.empty_like(array)
    by_rows(lambda rows: np.copyto(out[rows], array[rows]), array)
    return out


def each_of_many(work: Callable[[int], object], numbers: range, size: int) -> None:
    """Do some work for each of many images that have so many pixels together, by threads if these are many."""
    if size < threads.WORTH_PIXELS:
        for number in numbers:
            work(number)
    else:
        each(work, numbers)


def by_rows(work: Callable[[slice], object], array: Array, passes: int = 1) -> None:
    """Do some work that passes so many times over all rows of an array, by threads if that is much."""
    each(work, shares(len(array), passes * array.size))


def by_bands(work: Callable[[slice], object], array: Array, passes: int = 4) -> None:
    """Do some work for all rows of an array in bands of a few; see `by_rows`."""
    step = max(1, BAND_PIXELS * len(array) // max(1, array.size))

    def run(rows: slice) -> None:
        for start in range(rows.start, rows.stop, step):
            work(slice(start, min(start + step, rows.stop)))

    by_rows(run, array, passes)


def calculate(operation: np.ufunc, ccd: CCDData, other: Any, scaling: Scaling | None = None) -> CCDData:
    """Return the difference, product or quotient of two images, with the header of the first.

    Parameters
    ----------
    operation
        `numpy.subtract`, `numpy.multiply` or `numpy.true_divide`.
    ccd
        The image.
    other
        The operand: an image, or what the arithmetic of `CCDData` takes in its place.
    scaling
        What is done to the operand first.
    """
    other = _number_as_image(other, ccd)
    if not _is_plain(other) or not _is_simple(operation, ccd, other, unit := _unit_of(other, scaling)):
        other = other if scaling is None else scaling.of_image(other)
        result = getattr(ccd, METHODS[operation])(other)
        result.meta = copy_meta(ccd.meta)
        return result
    data, sigma = _compute(operation, _operand(ccd), _operand(other), scaling)
    result_unit = ccd.unit
    if operation in (np.multiply, np.true_divide):
        result_unit = ccd.unit * unit if operation is np.multiply else ccd.unit / unit
    return CCDData(
        data,
        unit=result_unit,
        uncertainty=None if sigma is None else StdDevUncertainty(sigma, copy=False),
        mask=_united(ccd.mask, other.mask),
        wcs=copy.deepcopy(other.wcs if ccd.wcs is None else ccd.wcs),
        meta=copy_meta(ccd.meta),
    )


def _operand(ccd: CCDData) -> Operand:
    """Return the arrays of an image."""
    return Operand(ccd.data, None if ccd.uncertainty is None else ccd.uncertainty.array, ccd.mask)


def _unit_of(other: CCDData, scaling: Scaling | None) -> Any:
    """Return the unit of an operand when it is used."""
    return other.unit if scaling is None else scaling.unit(other)


def _is_simple(operation: np.ufunc, ccd: Any, other: CCDData, unit: Any) -> bool:
    """Return whether the formulas here hold for a plain operand: of one shape or a number, with the same unit for differences."""
    if not _is_plain(ccd) or (operation is np.subtract and ccd.unit != unit):
        return False
    is_number = not other.data.ndim and other.uncertainty is None and other.mask is None
    return ccd.data.ndim > 0 and (is_number or ccd.data.shape == other.data.shape)


def _is_plain(ccd: Any) -> bool:
    """Return whether an image is a CCDData with NumPy arrays of one shape, and of floats if they have standard deviations."""
    if type(ccd) is not CCDData or ccd.psf is not None or type(ccd.data) is not np.ndarray:
        return False
    uncertainty = ccd.uncertainty
    arrays = [ccd.mask] if uncertainty is None else [ccd.mask, uncertainty.array]
    if any(a is not None and (type(a) is not np.ndarray or a.shape != ccd.data.shape) for a in arrays):
        return False
    # squares of integers may be too large for them
    return uncertainty is None or (
        type(uncertainty) is StdDevUncertainty
        and uncertainty.array is not None
        and uncertainty._unit in (None, ccd.unit)
        and ccd.data.dtype.kind == "f"
    )


def _united(a: Array | None, b: Array | None) -> Array | None:
    """Return the union of two masks, always a new one."""
    return copy_array(b if a is None else a) if a is None or b is None else np.logical_or(a, b)


def _compute(operation: np.ufunc, a: Operand, b: Operand, scaling: Scaling | None) -> tuple[Array, Array | None]:
    """Return data and standard deviation of a result."""

    def cut(whole: Operand, rows: slice) -> Operand:
        if not whole.data.ndim:
            return whole
        return Operand(whole.data[rows], *(None if part is None else part[rows] for part in whole[1:]))

    def formulas(rows: slice, data: Array | None, sigma: Array | None) -> tuple[Array, Array | None]:
        first, second = cut(a, rows), cut(b, rows)
        second = second if scaling is None else scaling.of_arrays(second)
        return operation(first.data, second.data, out=data), _deviation(operation, first, second, sigma)

    # the dtypes that NumPy gives to the results of nothing are those of the results
    kinds = formulas(slice(0, 0), None, None)
    out = [None if kind is None else np.empty(a.data.shape, kind.dtype) for kind in kinds]

    def work(rows: slice) -> None:
        formulas(rows, *(None if part is None else part[rows] for part in out))

    # without a temporary array there is nothing to keep in cache
    (by_rows if out[1] is None and scaling is None else by_bands)(work, a.data, 1 if out[1] is None else 8)
    assert out[0] is not None
    return out[0], out[1]


def _deviation(operation: np.ufunc, a: Operand, b: Operand, out: Array | None = None) -> Array | None:
    """Return the standard deviation of a result, as astropy's propagation has it, None if neither has one."""
    if a.sigma is None and b.sigma is None:
        return None
    product = operation in (np.multiply, np.true_divide)
    squares = []
    for own, factor in ((a, b), (b, a)):
        if own.sigma is not None:
            square = np.square(own.sigma)
            squares.append(np.multiply(square, np.square(factor.data)) if product else square)
    variance: Array = sum(squares[1:], squares[0])
    if operation is np.true_divide:
        variance = variance / _fourth_power(b.data)
    return np.sqrt(variance, out=out)


def _fourth_power(values: Array) -> Array:
    """Return values to the power of four, rounded once for float32, as the C library's much slower function does."""
    power: Array = np.square(np.square(values, dtype=np.float64))
    return power.astype(values.dtype, copy=False)


def _number_as_image(given: Any, ccd: CCDData) -> Any:
    """Return a number or a quantity as an image, as the arithmetic of `CCDData` makes one of it; all else as it is."""
    if isinstance(given, u.Quantity):
        return CCDData(np.asarray(given.value), unit=given.unit)
    if isinstance(given, int | float | np.number):
        # a number of Python's makes no float64 of float32
        kind = given.dtype if isinstance(given, np.number) else np.result_type(ccd.data, given)
        return CCDData(np.asarray(given, kind), unit=u.dimensionless_unscaled)
    return given
