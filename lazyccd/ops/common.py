"""What all operations share: frames or CCDData in, the same out, and a log entry in the header."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ShapeError
from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.core import DIMS, Image, resolve
from lazyccd.frame.log import apply_to_text, bind_arguments, log_entries
from lazyccd.frame.nddata import is_ccddata
from lazyccd.io import as_frame
from lazyccd.plan.steps import Source, Step

P = ParamSpec("P")
T = TypeVar("T")

_collected: ContextVar[list[tuple[str, Any]] | None] = ContextVar("lazyccd_log", default=None)


@contextmanager
def _collect_log() -> Iterator[list[tuple[str, Any]]]:
    """Collect the log entries of all operations that run inside."""
    entries: list[tuple[str, Any]] = []
    token = _collected.set(entries)
    try:
        yield entries
    finally:
        _collected.reset(token)


def operation(*, log: bool = True, arrays: tuple[str, ...] = ()) -> Callable[[Callable[P, T]], Callable[..., Any]]:
    """Make an operation of a function whose first argument is a frame.

    A CCDData as the first argument is converted, and the result converted back and computed. With ``log``, the
    operation takes ``add_keyword=`` and notes itself in the header as ccdproc does. With ``arrays``, a NumPy array may be
    the first argument; the result is then these variables, computed. A result that is a DataArray becomes an array.
    """

    def decorate(func: Callable[P, T]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            add_keyword = kwargs.pop("add_keyword", True) if log else None
            if not args:
                name = next(iter(bind_arguments(func, (None,), {})))
                if name not in kwargs:
                    raise ArgumentTypeError(f"{func.__name__}() needs the frame as its first argument.")
                args = (kwargs.pop(name),)
            entries = log_entries(func.__name__, bind_arguments(func, args, kwargs), add_keyword)
            if arrays and isinstance(args[0], np.ndarray):
                return _of_array(func, args, kwargs, arrays)
            if not is_ccddata(args[0]):
                check_first(args[0], func.__name__)
                return _logged(func(*args, **kwargs), entries)
            with _collect_log() as collected:
                result = _logged(cast("Any", func)(from_ccddata(args[0]), *args[1:], **kwargs), entries)
            return (
                result.values if isinstance(result, xr.DataArray) else to_ccddata(result, like=args[0], log=collected)
            )

        return wrapper

    return decorate


def _of_array(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return what an operation makes of an array: the named variables of the result, a mask as booleans."""
    from astropy.nddata import CCDData

    with _collect_log():
        result = func(from_ccddata(CCDData(args[0], unit="adu")), *args[1:], **kwargs)
    if isinstance(result, xr.DataArray):
        return result.values
    ccd = to_ccddata(result)
    parts = tuple(getattr(ccd, name) for name in names)
    return parts if len(parts) > 1 else parts[0]


def called_with_ccddata() -> bool:
    """Return whether the operation that runs was called with a CCDData or an array: its mask has no planes."""
    return _collected.get() is not None


def _logged(ds: Any, entries: list[tuple[str, Any]]) -> Any:
    """Return a frame with log entries in its header."""
    collected = _collected.get()
    if collected is not None:
        collected.extend(entries)
    if not entries or isinstance(ds, xr.DataArray):
        return ds
    return ds.assign_attrs(header=apply_to_text(str(ds.attrs.get("header", "")), entries))


def check_first(frame: object, name: str) -> None:
    """Refuse a first argument that is neither a frame nor a CCDData."""
    if not isinstance(frame, xr.Dataset):
        raise ArgumentTypeError(
            f"the first argument of {name}() is a {type(frame).__name__} and must be a frame (xarray.Dataset) or a CCDData; "
            "open files with open_fits or open_zarr."
        )


def file_name(plan: Step) -> str:
    """Return the name of the file that the data of a frame were read from; empty if there is none."""
    step = plan
    while step.inputs:
        step = step.inputs[0]
    return os.path.basename(step.storage.name.rstrip("/")).removesuffix("[0]") if isinstance(step, Source) else ""


def operand(other: object, what: str) -> Image:
    """Return the image of an operand: a frame, a CCDData or a path."""
    return resolve(as_frame(other, what), what)


def pixels_like(array: Any, image: Image, what: str) -> Any:
    """Return a dask or NumPy array of the image's shape; DataArrays are turned to the order y, x."""
    if isinstance(array, xr.DataArray):
        array = array.transpose(*DIMS).data if set(array.dims) == set(DIMS) else array.data
    values = array if hasattr(array, "__dask_graph__") else np.asarray(array)
    if values.shape != image.shape:
        raise ShapeError(
            f"{what} shape {values.shape} does not match the image shape {image.shape}; cut it to the same section."
        )
    return values
