"""Trees of frames: an exposure of several detectors or amplifiers as one `xarray.DataTree`.

The root has attributes only: ``header``, the cards that all frames share, and what a file holds besides. Every node with
``data`` is a frame; its path from the root, such as ``SCI_1`` or ``R22_S11/C05``, is its name. A function of a frame works
on a tree like this:

1. An argument that is a tree, or a mapping by the names of the frames, gives each frame its part; names must match.
2. Anything else is the same for all frames.
3. Frames or arrays that the function gives become a tree with the same root; anything else a mapping by the names.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from lazyccd.errors import FrameError, LazyCCDError, ParameterError
from lazyccd.frame.core import DATA
from lazyccd.frame.kinds import is_data_array, is_dataset, is_tree

if TYPE_CHECKING:
    import xarray as xr

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
NodeT = TypeVar("NodeT", bound="xr.Dataset | xr.DataArray | xr.DataTree")
"""What becomes a node, or a branch, of a tree."""

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""

SHARED = frozenset({"add_keyword", "cards", "sections"})
"""Arguments that are mappings themselves, the same for all frames."""


def frames_of(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames of a tree by name, in its order.

    Raises
    ------
    FrameError
        Raised if there is no frame, or the root itself is one.
    """
    nodes = dict(tree.subtree_with_keys)
    # without what a node inherits from its parents: coordinates of the root are not the frame's
    frames = {path: node.to_dataset(inherit=False) for path, node in nodes.items() if DATA in node.data_vars}
    if "." in frames:
        raise FrameError("the root of the tree has 'data' and must have attributes only; put frames into its children.")
    if not frames:
        raise FrameError(f"the tree has no frame; its nodes are {list(nodes)}, and one must have 'data'.")
    return frames


def make_tree(frames: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]) -> xr.DataTree:
    """Return the tree of frames by name, with the attributes of its root.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> frame = from_ccddata(CCDData(np.ones((2, 3)), unit="adu"))
    >>> tree = make_tree({"left": frame, "right": frame}, {"header": "INSTRUME= 'CAM'"})
    >>> list(frames_of(tree)), tree["left"].sizes["x"]
    (['left', 'right'], 3)
    """
    import xarray as xr

    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(attrs)), **frames})


def first_tree(given: object) -> xr.DataTree | None:
    """Return the tree that an argument is, or the first of a list of trees; None if there is none."""
    if isinstance(given, list | tuple):
        given = next((item for item in given if is_tree(item)), None)
    return given if is_tree(given) else None


class TreeFunction(Protocol[P, T_co, R_co]):
    """A function of a frame that takes a tree too; with a tree, any argument may have a part for each frame."""

    @overload
    def __call__(self, ccd: xr.Dataset, /, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(self, ccd: xr.DataTree, /, *args: Any, **kwargs: Any) -> R_co: ...


def over_trees(func: Callable[Concatenate[xr.Dataset, P], NodeT]) -> TreeFunction[P, NodeT, xr.DataTree]:
    """Let a function of a frame take a tree too, and return a tree of what it returns."""
    return cast("TreeFunction[P, NodeT, xr.DataTree]", _over_trees(func))


def by_frame(func: Callable[Concatenate[xr.Dataset, P], T]) -> TreeFunction[P, T, dict[str, T]]:
    """Let a function of a frame take a tree too, and return what it returns by the names of the frames."""
    return cast("TreeFunction[P, T, dict[str, T]]", _over_trees(func))


def _over_trees(func: Callable[..., Any]) -> Callable[..., Any]:
    # once, when the function is decorated, and not at each call
    labels = list(inspect.signature(func).parameters)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        tree = args[0] if args else kwargs.get(labels[0])
        if not is_tree(tree):
            return func(*args, **kwargs)
        calls = calls_of(tree, args, kwargs, labels)
        return gather(call_each(func, calls), tree.attrs)

    return wrapper


def calls_of(
    tree: xr.DataTree, args: Iterable[Any], kwargs: Mapping[str, Any], labels: Iterable[str] = ()
) -> dict[str, Call]:
    """Return the arguments of each frame; ``labels`` are the names of the positional ones.

    Raises
    ------
    ParameterError
        Raised if the names of a tree or mapping are not those of the first tree; the message has both. More are accepted
        if frames of the first were left out when it was opened.
    """
    names = Names(tuple(frames_of(tree)), is_part="skipped" in tree.attrs)
    labels = chain(labels, repeat("argument"))
    parts = [_part_of(arg, names, label) for arg, label in zip(args, labels, strict=False)]
    named = {key: _part_of(arg, names, key) for key, arg in kwargs.items()}
    return {
        name: (tuple(part(name) for part in parts), {key: part(name) for key, part in named.items()})
        for name in names.known
    }


def call_each(func: Callable[..., Any], calls: Mapping[str, Call]) -> dict[str, Any]:
    """Return what a function gives for the arguments of each frame; an error of ours gets a note that names the frame."""
    results = {}
    for name, (args, kwargs) in calls.items():
        try:
            results[name] = func(*args, **kwargs)
        except LazyCCDError as error:
            error.add_note(f"in the frame {name!r} of the tree")
            raise
    return results


def gather(results: Mapping[str, Any], attrs: Mapping[Any, Any]) -> Any:
    """Return results by frame as a tree: frames, arrays (then ``data`` of a node), or trees, which become branches.

    If they are something else, they stay a mapping by the names of the frames.
    """
    nodes: dict[str, xr.Dataset] = {}
    if not all(is_dataset(result) or is_data_array(result) or is_tree(result) for result in results.values()):
        return dict(results)
    for name, result in results.items():
        if is_tree(result):
            nodes |= {f"{name}/{inner}": frame for inner, frame in frames_of(result).items()}
        else:
            nodes[name] = result.to_dataset(name=DATA) if is_data_array(result) else result
    return make_tree(nodes, attrs)


class Names(NamedTuple):
    """Names of the frames of a tree."""

    known: tuple[str, ...]
    is_part: bool = False
    """Whether frames were left out, so that what belongs to all of them has more."""

    def check(self, found: Iterable[str], what: str) -> None:
        """Refuse what has other names.

        Raises
        ------
        ParameterError
            Raised if names are missing, or there are others; the message has both sides.
        """
        given = list(found)
        missing = [name for name in self.known if name not in given]
        foreign = [] if self.is_part else [name for name in given if name not in self.known]
        if missing or foreign:
            words = [
                f"{verb} {', '.join(map(repr, some))}"
                for verb, some in (("has nothing for", missing), ("has also", foreign))
                if some
            ]
            raise ParameterError(
                f"{what} {' and '.join(words)}: the frames are {list(self.known)} and it has {given}; "
                "give the same names, or one for all."
            )


def _part_of(given: Any, names: Names, what: str) -> Callable[[str], Any]:
    """Return a function that gives each frame its part of an argument."""
    if is_tree(given):
        frames = frames_of(given)
        names.check(frames, f"the tree given as {what}")
        return frames.__getitem__
    if isinstance(given, Mapping) and what not in SHARED and not is_dataset(given):
        names.check(given, what)
        return given.__getitem__
    if first_tree(given) is not None:
        parts = [_part_of(item, names, f"{what}, number {i},") for i, item in enumerate(given, 1)]
        return lambda name: [part(name) for part in parts]
    return lambda _: given
