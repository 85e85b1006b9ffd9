"""Attributes as JSON, which Zarr keeps them as: converted where that keeps their meaning, else refused by name.

Attributes come from users and from other packages, and a value that JSON cannot hold must be found before anything is
written.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from lazyccd.errors import FrameError

_WAYS_OUT = {
    "bytes": "decode them to a string",
    "set": "sort it into a list",
    "frozenset": "sort it into a list",
    "complex": "give real and imaginary part",
    "Quantity": "give the value, and its unit in an attribute of its own",
    "Time": "give its isot",
}


def json_attrs(attrs: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Return attributes as JSON holds them.

    NumPy's numbers become Python's, arrays and tuples lists, dates ISO 8601 strings, paths strings.

    Parameters
    ----------
    attrs
        Attributes of a Dataset, a variable or a tree.
    what
        What they belong to, for messages.

    Raises
    ------
    FrameError
        Raised if a value would lose its meaning: bytes, sets, complex numbers, NaN and infinities, quantities, objects, and
        keys that are no strings.

    Examples
    --------
    >>> json_attrs({"seeing": np.float32(1.5), "shape": (2, 3), "start": np.datetime64("2024-03-01")}, "frame")
    {'seeing': 1.5, 'shape': [2, 3], 'start': '2024-03-01'}
    """
    for key in attrs:
        if not isinstance(key, str):
            _refuse(f"attribute {key!r} of the {what} has a {type(key).__name__} as its name", "name it by a string")
    return {key: _plain(value, f"attribute {key!r} of the {what}") for key, value in attrs.items()}


def _plain(value: Any, where: str) -> Any:
    """Return a value as JSON holds it."""
    # np.datetime64 in nanoseconds becomes an integer by item(), and a subclass of an array may have more than its numbers.
    if isinstance(value, np.datetime64):
        return _refuse(f"{where} is NaT", "leave it out") if np.isnat(value) else str(value)
    if type(value) is np.ndarray and value.dtype.kind in "biufUM" and value.dtype != np.longdouble:
        return _of_array(value, where)
    if isinstance(value, np.generic) and not isinstance(value, np.void | np.timedelta64 | np.longdouble):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(f"{where} is {value}, which JSON has no word for", "leave it out, or give a string")
        return value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item, f"item {i} of {where}") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _of_mapping(value, where)
    kind = type(value).__name__
    way_out = _WAYS_OUT.get(kind, "give a number or a string")
    return _refuse(f"{where} is {value!r:.60}, and JSON has no {kind}", way_out)


def _of_array(value: np.ndarray[Any, Any], where: str) -> Any:
    """Return an array as lists; an array without axes is its only value."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        _refuse(f"{where} has values that are not finite, which JSON has no word for", "leave them out")
    if value.dtype.kind == "M":
        if np.isnat(value).any():
            _refuse(f"{where} has a NaT", "leave it out")
        value = value.astype(str)
    return value.tolist()


def _of_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return a mapping, whose keys must be strings."""
    odd = next((key for key in value if not isinstance(key, str)), None)
    if odd is not None:
        _refuse(f"{where} has the key {odd!r}, and keys of JSON are strings", "convert it to one")
    return {key: _plain(item, f"{key!r} of {where}") for key, item in value.items()}


def _refuse(problem: str, way_out: str) -> NoReturn:
    """Raise the error of an attribute."""
    raise FrameError(f"{problem}; {way_out}, for example with ds.assign_attrs(), or remove it.")
