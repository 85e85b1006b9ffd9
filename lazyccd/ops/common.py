"""What all operations share: frames or CCDData in, the same out, and a log entry in the header."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import xarray as xr
from astropy.nddata import CCDData

from lazyccd.errors import ArgumentTypeError
from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.log import apply_to_text, bind_arguments, log_entries
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


def operation(*, log: bool = True) -> Callable[[Callable[P, T]], Callable[..., Any]]:
    """Make an operation of a function whose first argument is a frame.

    A CCDData as the first argument is converted, and the result converted back and computed. With ``log``, the
    operation takes ``add_keyword=`` and notes itself in the header as ccdproc does.
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
            if not isinstance(args[0], CCDData):
                check_first(args[0], func.__name__)
                return _logged(func(*args, **kwargs), entries)
            with _collect_log() as collected:
                result = _logged(cast("Any", func)(from_ccddata(args[0]), *args[1:], **kwargs), entries)
            return to_ccddata(result, like=args[0], log=collected)

        return wrapper

    return decorate


def _logged(ds: Any, entries: list[tuple[str, Any]]) -> Any:
    """Return a frame with log entries in its header."""
    collected = _collected.get()
    if collected is not None:
        collected.extend(entries)
    if not entries:
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
