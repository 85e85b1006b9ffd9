"""Arguments that operations share: checked, chosen and brought into one form.

The first word of a name says what a function does with an argument. ``check_...`` raises or returns nothing. ``resolve_...``
picks what an argument stands for: the image of a frame, a CCDData or a path. ``normalize_...`` returns the one form in which
an argument goes on: a float, an array of the image's shape.

An argument may also stand for a value of the header: a `Keyword`, or only its name where a parameter means such a value.
`HEADER_VALUES` has all of these parameters. What is read there has the unit that the keyword has by custom: a gain is in electrons
per unit of the data, a read noise in electrons, a level in the units of the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, SupportsFloat, TypeAlias, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u
from dask.base import is_dask_collection

from lazyccd.errors import ArgumentTypeError, KeywordError, LazyCCDError, ParameterError, ShapeError
from lazyccd.frame.core import DATA, DIMS, Image, header_text, resolve
from lazyccd.frame.header import header_view
from lazyccd.frame.header_values import find_number
from lazyccd.frame.keyword import Keyword, keyword_name
from lazyccd.frame.processing_history import stamped
from lazyccd.io import as_frame
from lazyccd.plan.steps import file_name

Pixels: TypeAlias = npt.ArrayLike | da.Array | xr.DataArray
"""An array of pixels that a user passes: anything that NumPy reads as an array, or a lazy one."""


SECTIONS = frozenset({"fits_section", "oscan", "trim"})
"""Parameters that stay text: a section such as '[5,5]' would read as a list of numbers."""

LEVELS = frozenset({"satlevel", "bleed"})
"""Parameters that are levels of the raw image: a header's is wrong once something was subtracted."""

NUMBERS = frozenset({"pssl", "psffwhm", "norm_value", "scale"})
"""Parameters whose numbers have no unit, or that of the data."""

HEADER_VALUES = frozenset({"gain", "readnoise", "data_exposure"}) | SECTIONS | LEVELS | NUMBERS
"""Parameters that take a keyword's name for its value in the frame's header."""

OF_SEVERAL = frozenset({"add_keyword", "exposure_time", "dark_exposure"})
"""Parameters whose `Keyword` is not replaced by its value here: one is a card to write, others are read in the master's header."""

SUBTRACTED = ("overscan", "bias", "dark", "flat", "gain")
"""Steps after which a level of the raw image no longer holds."""


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


def bare_number(value: Any, name: str) -> float:
    """Return a number as a float, that of a quantity without its unit."""
    return normalize_number(value.value if isinstance(value, u.Quantity) else value, name)


def with_keywords(arguments: Mapping[str, Any], frame: xr.Dataset) -> dict[str, Any]:
    """Return arguments in which the names of keywords are keywords."""
    texts = {name: text for name, text in arguments.items() if isinstance(text, str) and name in HEADER_VALUES}
    names = {name: keyword_name(text) for name, text in texts.items()}
    # a gain, and nothing else, may also be a map: a store or a file without a point in its name
    is_map = "gain" in texts and os.path.exists(texts["gain"])
    found = {name: key for name, key in names.items() if key is not None and not (name == "gain" and is_map)}
    if not found:
        return dict(arguments)
    header = header_view(header_text(frame))
    # a misspelt word is not a misspelt keyword: the operation says which words there are
    found = {name: key for name, key in found.items() if key in header or name != "norm_value"}
    data = resolve(frame).units
    for name, key in found.items():
        if key in header and header[key] is None:
            raise KeywordError(f"the keyword {key!r} of the header has no value; give {name} itself.")
        if name in LEVELS and (done := stamped(header, *SUBTRACTED)):
            raise ParameterError(
                f"{name} cannot be taken from the header's {key} after {', '.join(done)}; give it in the present units."
            )
    return {**arguments, **{name: Keyword(key, _unit(name, data)) for name, key in found.items()}}


def _unit(name: str, data: u.UnitBase) -> u.UnitBase | None:
    """Return the unit that a header's value has by custom."""
    if name == "gain":
        # a frame that is in electrons already has the card of its raw image still
        return u.electron / (u.adu if data.is_equivalent(u.electron) else data)
    if name == "readnoise":
        return u.electron
    if name == "data_exposure":
        return u.s
    return data if name in LEVELS else None


def with_values(arguments: Mapping[str, Any], frame: xr.Dataset) -> dict[str, Any]:
    """Return arguments with the values that the frame's header has for keywords among them; numbers in text are numbers."""
    keywords = {
        name: given for name, given in arguments.items() if isinstance(given, Keyword) and name not in OF_SEVERAL
    }
    header = header_view(header_text(frame)) if keywords else {}
    values = {name: Keyword(given.name, given.unit).value_from(header) for name, given in keywords.items()}
    texts = {name: text for name, text in values.items() if isinstance(text, str) and name not in SECTIONS}
    numbers = {name: number for name, text in texts.items() if (number := find_number(text)) is not None}
    return {**arguments, **values, **numbers}


@contextmanager
def keywords_told(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Say by a note to an error of ours which arguments were read from the header."""
    try:
        yield
    except LazyCCDError as error:
        for name, given in arguments.items():
            if isinstance(given, Keyword):
                error.add_note(f"{name} is the keyword {given.name!r} of the header")
        raise
