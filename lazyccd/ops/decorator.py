"""Make operations of functions of a frame: frames, CCDData or trees in, the same out, and a log entry in the header.

`operation` is the decorator of every function that users call as an operation. The protocols before it are what a decorated
function looks like to type checkers. How a tree is taken apart is in `lazyccd.frame.tree`, how a log entry looks in
`lazyccd.frame.history_log`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ArgumentTypeError
from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.core import held_image
from lazyccd.frame.history_log import apply_to_text, bind_arguments, log_entries
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.processing_history import warn_if_repeated
from lazyccd.frame.tree import call_each, calls_of, gather
from lazyccd.ops.arguments import keywords_told, with_keywords, with_values
from lazyccd.plan.steps import single_call

if TYPE_CHECKING:
    from astropy.nddata import CCDData

P = ParamSpec("P")
A_co = TypeVar("A_co", covariant=True)
ImageT = TypeVar("ImageT", bound="xr.Dataset | xr.DataTree | CCDData")
"""A frame, a tree of frames or a CCDData."""

Shared: TypeAlias = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]
"""Finds the arguments that hold for all frames of a tree together."""

# a context variable and no global: operations that run in other threads must not log into this one's CCDData
_collected: ContextVar[list[tuple[str, Any]] | None] = ContextVar("lazyccd_log", default=None)


# likewise: the WCS of a result on another grid, which the CCDData that comes in cannot give
_projected: ContextVar[Any] = ContextVar("lazyccd_projected", default=None)


def tell_wcs(wcs: Any) -> None:
    """Say what the WCS of the result is: an operation that puts its image on another grid; for a CCDData."""
    if called_with_ccddata():
        _projected.set(wcs)


@contextmanager
def _collect_log() -> Iterator[list[tuple[str, Any]]]:
    """Collect the log entries of all operations that run inside."""
    entries: list[tuple[str, Any]] = []
    token, wcs = _collected.set(entries), _projected.set(None)
    try:
        yield entries
    finally:
        _collected.reset(token)
        _projected.reset(wcs)


class FrameOperation(Protocol[P]):
    """An operation that returns the kind of image that it is given; a function of a frame, after `operation`."""

    # one type variable rather than an overload for each kind: astropy has no types, so that CCDData is Any to mypy, and an
    # overload for it would make the result Any as soon as another argument is a Quantity
    @overload
    def __call__(self, ccd: ImageT, /, *args: P.args, **kwargs: P.kwargs) -> ImageT: ...
    @overload  # with a tree, any argument may be a tree or a mapping that gives each frame its own
    def __call__(self, ccd: xr.DataTree, /, *args: Any, **kwargs: Any) -> xr.DataTree: ...


class ImageOperation(Protocol[P, A_co]):
    """A `FrameOperation` that takes a bare array too, and then returns one array or two."""

    @overload
    def __call__(self, ccd: npt.NDArray[Any], /, *args: P.args, **kwargs: P.kwargs) -> A_co: ...
    @overload
    def __call__(self, ccd: ImageT, /, *args: P.args, **kwargs: P.kwargs) -> ImageT: ...
    @overload
    def __call__(self, ccd: xr.DataTree, /, *args: Any, **kwargs: Any) -> xr.DataTree: ...


class ArrayOperation(Protocol[P]):
    """An operation that returns one array of pixels instead of an image, lazy for a frame."""

    @overload
    def __call__(self, ccd: xr.Dataset, /, *args: P.args, **kwargs: P.kwargs) -> xr.DataArray: ...
    @overload
    def __call__(self, ccd: xr.DataTree, /, *args: P.args, **kwargs: P.kwargs) -> xr.DataTree: ...
    @overload
    def __call__(self, ccd: xr.DataTree, /, *args: Any, **kwargs: Any) -> xr.DataTree: ...
    @overload
    def __call__(self, ccd: npt.NDArray[Any] | CCDData, /, *args: P.args, **kwargs: P.kwargs) -> npt.NDArray[Any]: ...


class ImageDecorator(Protocol[A_co]):
    """Makes an `ImageOperation` of what returns a frame, an `ArrayOperation` of what returns an array."""

    @overload
    def __call__(self, func: Callable[Concatenate[xr.Dataset, P], xr.Dataset], /) -> ImageOperation[P, A_co]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[xr.Dataset, P], xr.DataArray], /) -> ArrayOperation[P]: ...


@overload
def operation(
    *, shared: Shared | None = None
) -> Callable[[Callable[Concatenate[xr.Dataset, P], xr.Dataset]], FrameOperation[P]]: ...
@overload
def operation(*, arrays: tuple[str]) -> ImageDecorator[npt.NDArray[Any]]: ...
@overload
def operation(*, arrays: tuple[str, str]) -> ImageDecorator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]: ...
def operation(*, arrays: tuple[str, ...] = (), shared: Shared | None = None) -> Any:
    """Make an operation of a function whose first argument is a frame.

    The operation takes four kinds of images, and returns the kind that it is given:

    1. A frame is handed to the function as it is, and stays lazy.
    2. A tree is taken frame by frame; see `lazyccd.frame.tree` for arguments that differ between the frames.
    3. A CCDData is converted to a frame, and the result computed and converted back; a DataArray becomes an array.
    4. A NumPy array, with ``arrays``; the result is then the variables that it names, computed.

    A `Keyword` as an argument stands for its value in the frame's header, and so does the name of a keyword where
    `HEADER_VALUES` of `lazyccd.ops.arguments` has the parameter. Text in the header that reads as a number counts as the number.
    A step that the header has already gives a warning.

    A function with a parameter ``add_keyword`` is noted in the header, as ccdproc does. It never sees what was passed: the
    parameter stands in its signature so that editors, type checkers and `inspect` show it.

    Parameters
    ----------
    arrays
        Names of the attributes of a CCDData that are returned for a bare array, such as ``("data", "mask")``.
    shared
        Finds the arguments that hold for all frames of a tree together, from those of each frame by name.
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(func).parameters
        positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
        first = positional[0]
        run = functools.partial(_on_frame, func, first, log="add_keyword" in parameters, arrays=arrays)

        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            arguments = bind_arguments(func, args, kwargs)
            if len(args) > len(positional) or kwargs.keys() & set(positional[: len(args)]):
                return func(*args, **kwargs)  # which raises, and Python's own message names the argument
            if first not in arguments:
                raise ArgumentTypeError(f"{func.__name__}() needs the frame as its first argument.")
            tree = arguments[first]
            warn_if_repeated(func.__name__, tree, arguments)
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
    if arrays and isinstance(frame, np.ndarray):
        with single_call():
            return _of_array(func, arguments, arrays)
    ccd = frame if is_ccddata(frame) else None
    if ccd is None:
        check_first(frame, func.__name__)
    with nullcontext() if ccd is None else single_call():
        frame = frame if ccd is None else from_ccddata(ccd)
        arguments = with_keywords(arguments, frame)
        told = keywords_told(arguments)  # before their values replace the keywords, which its note names
        arguments = with_values(arguments, frame)
        entries = log_entries(func.__name__, arguments, add_keyword)
        arguments |= {first: frame, **common}
        if ccd is None:
            with told:
                return _logged(func(**arguments), entries)
        with told, _collect_log() as collected:
            result = func(**arguments)
            projected = _projected.get()
        # the header of the frame goes no further
        collected += entries
        if isinstance(result, xr.DataArray):
            return result.values
        made = to_ccddata(result, like=ccd, log=collected)
        if projected is not None:
            made.wcs = projected
        return made


def _of_array(func: Callable[..., Any], arguments: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Return what an operation makes of an array: the named variables of the result, a mask as booleans."""
    from astropy.nddata import CCDData

    first = next(iter(inspect.signature(func).parameters))
    # in adu, since a bare gain is in electron/adu; an array that comes back has no unit
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


def _logged(ds: xr.Dataset | xr.DataArray, entries: list[tuple[str, Any]]) -> xr.Dataset | xr.DataArray:
    """Return a frame with log entries in its header."""
    collected = _collected.get()
    if collected is not None:
        collected.extend(entries)
    if not entries or isinstance(ds, xr.DataArray):
        return ds
    image = held_image(ds)
    if image is not None:
        return replace(image, header=apply_to_text(image.header, entries)).to_dataset()
    return ds.assign_attrs(header=apply_to_text(str(ds.attrs.get("header", "")), entries))


def check_first(frame: object, name: str) -> None:
    """Refuse a first argument that is neither a frame nor a CCDData."""
    if not isinstance(frame, xr.Dataset):
        raise ArgumentTypeError(
            f"the first argument of {name}() is a {type(frame).__name__} and must be a frame (xarray.Dataset), a tree of frames "
            "or a CCDData; open files with open_fits, open_mef or open_zarr."
        )
