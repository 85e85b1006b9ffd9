"""What all operations share: frames, CCDData or trees in, the same out, and a log entry in the header."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, LazyCCDError
from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.header import header_view
from lazyccd.frame.header_values import find_number
from lazyccd.frame.history_log import apply_to_text, bind_arguments, log_entries
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.tree import call_each, calls_of, gather

P = ParamSpec("P")
T = TypeVar("T")

SECTIONS = frozenset({"fits_section", "oscan", "trim"})
"""Arguments that are text, even such as '[5,5]'."""

KEYWORDS_OF_SEVERAL = frozenset({"add_keyword", "exposure_time"})
"""Arguments whose keyword is not that of the frame alone."""

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


def operation(
    *,
    log: bool = True,
    arrays: tuple[str, ...] = (),
    shared: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None = None,
) -> Callable[[Callable[P, T]], Callable[..., Any]]:
    """Make an operation of a function whose first argument is a frame.

    A CCDData as the first argument is converted, and the result converted back and computed; a tree is taken frame by
    frame. A `Keyword` as an argument stands for its value in the frame's header, and where that is text and reads as a
    number, for the number. With ``log``, the operation takes ``add_keyword=`` and notes itself in the header as ccdproc
    does. With ``arrays``, a NumPy array may be the first argument; the result is then these variables, computed. A result
    that is a DataArray becomes an array. Arguments that hold for all frames of a tree together come from ``shared``, which
    is given those of each frame by name.
    """

    def decorate(func: Callable[P, T]) -> Callable[..., Any]:
        call = cast("Callable[..., Any]", func)
        names = list(inspect.signature(func).parameters)
        first = names[0]
        run = functools.partial(_on_frame, call, first, log=log, arrays=arrays)

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            arguments = bind_arguments(func, args, kwargs)
            if len(args) > len(names) or kwargs.keys() & set(names[: len(args)]):
                return call(*args, **kwargs)  # which raises, and says so better
            if first not in arguments:
                raise ArgumentTypeError(f"{func.__name__}() needs the frame as its first argument.")
            tree = arguments[first]
            if not isinstance(tree, xr.DataTree):
                return run(arguments, {})
            calls = calls_of(tree, (), arguments)
            common = shared([call for _, call in calls.values()]) if shared is not None else {}
            return gather(call_each(lambda **call: run(call, common), calls), tree.attrs)

        return wrapper

    return decorate


def _on_frame(
    func: Callable[..., Any],
    first: str,
    arguments: dict[str, Any],
    common: Mapping[str, Any],
    *,
    log: bool,
    arrays: tuple[str, ...],
) -> Any:
    """Run an operation on one frame, CCDData or array; arguments that frames of a tree have in ``common`` are not logged."""
    frame = arguments[first]
    add_keyword = arguments.pop("add_keyword", True) if log else None
    ccd = frame if is_ccddata(frame) else None
    if arrays and isinstance(frame, np.ndarray):
        return _of_array(func, arguments, arrays)
    if ccd is None:
        check_first(frame, func.__name__)
    else:
        frame = from_ccddata(ccd)
    told = _keywords_told(arguments)
    arguments = _with_values(arguments, frame)
    entries = log_entries(func.__name__, arguments, add_keyword)
    arguments |= {first: frame, **common}
    if ccd is None:
        with told:
            return _logged(func(**arguments), entries)
    with told, _collect_log() as collected:
        result = _logged(func(**arguments), entries)
    return result.values if isinstance(result, xr.DataArray) else to_ccddata(result, like=ccd, log=collected)


def _with_values(arguments: Mapping[str, Any], frame: xr.Dataset) -> dict[str, Any]:
    """Return arguments with the values that the frame's header has for keywords among them; numbers in text are numbers."""
    keywords = {
        name: given
        for name, given in arguments.items()
        if isinstance(given, Keyword) and name not in KEYWORDS_OF_SEVERAL
    }
    header = header_view(str(frame.attrs.get("header", ""))) if keywords else {}
    values = {name: Keyword(given.name, given.unit).value_from(header) for name, given in keywords.items()}
    texts = {name: text for name, text in values.items() if isinstance(text, str) and name not in SECTIONS}
    numbers = {name: number for name, text in texts.items() if (number := find_number(text)) is not None}
    return {**arguments, **values, **numbers}


@contextmanager
def _keywords_told(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Say by a note to an error of ours which arguments were read from the header."""
    try:
        yield
    except LazyCCDError as error:
        for name, given in arguments.items():
            if isinstance(given, Keyword):
                error.add_note(f"{name} is the keyword {given.name!r} of the header")
        raise


def _of_array(func: Callable[..., Any], arguments: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return what an operation makes of an array: the named variables of the result, a mask as booleans."""
    from astropy.nddata import CCDData

    first = next(iter(inspect.signature(func).parameters))
    with _collect_log():
        result = func(**arguments | {first: from_ccddata(CCDData(arguments[first], unit="adu"))})
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
            f"the first argument of {name}() is a {type(frame).__name__} and must be a frame (xarray.Dataset), a tree of frames "
            "or a CCDData; open files with open_fits, open_mef or open_zarr."
        )
