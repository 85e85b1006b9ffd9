"""Open Zarr stores as lazy frames and trees: `open_zarr`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.convert import to_mask, to_variance
from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, make_image
from lazyccd.frame.tree import make_tree
from lazyccd.frame.units import parse_unit
from lazyccd.io.names import is_url
from lazyccd.io.zarr.location import location_of
from lazyccd.io.zarr.reader import root_attrs
from lazyccd.io.zarr.writer import open_arrays
from lazyccd.kernels.block import MAPS
from lazyccd.mask_planes import FlagTable
from lazyccd.plan.chunks import asked_grid, regular_grid
from lazyccd.plan.steps import Source

if TYPE_CHECKING:
    import xarray as xr

OF_STORES = {"lazyccd", "zarr_conventions", "multiscales"}
"""Attributes of a root that are about the store, and not about the exposure."""


def open_zarr(
    store: str | os.PathLike[str], level: int = 0, chunks: int | tuple[int, int] | None = None
) -> xr.Dataset | xr.DataTree:
    """Open a Zarr store as a lazy frame or tree. Only metadata and coordinates are read.

    Parameters
    ----------
    store
        Path or fsspec URL of a store that `to_zarr` wrote, of one frame of its tree, such as ``x.zarr/SCI_1``, or of a
        branch, such as ``x.zarr/R22``, which is a tree with the header of the root.
    level
        Level of the pyramid: 0 is the full image, 1 has half its rows and columns, and so on; see `build_pyramid`.
    chunks
        Chunk shape, one number for both axes, -1 for a whole axis; the shards of the store by default.

    Returns
    -------
    xr.Dataset or xr.DataTree
        The frame as it was written: variables, units, mask planes, header, coordinates; or the tree of frames.

    Raises
    ------
    MissingFileError
        Raised if there is no such store.
    FormatError
        Raised if it is no Zarr store, has no such frame or level, or the group has no image ``data``.
    ParameterError
        Raised if ``level`` is negative or no integer, or ``chunks`` are no chunk shape.
    """
    store, inside = _store_and_frame(os.fspath(store))
    # absolute: workers of a cluster have another working folder, and this process may change its own before it reads
    store = store if is_url(store) else os.path.abspath(store)
    root = root_attrs(store)
    prefix = _level_prefix(store, level)
    ours: Any = root.get("lazyccd")
    is_tree = isinstance(ours, Mapping) and "frames" in ours
    names = list(ours["frames"]) if is_tree else []
    branch = [name for name in names if name.startswith(f"{inside}/")]
    # x.zarr/R22/C05 may be a frame, or a branch with frames below it.
    if inside and not branch:
        return _frame(store, f"{prefix}{inside}", chunks)
    if branch:
        frames = {name.removeprefix(f"{inside}/"): _frame(store, f"{prefix}{name}", chunks) for name in branch}
        return make_tree(frames, {"header": root.get("header", "")})
    if is_tree:
        attrs = {key: value for key, value in root.items() if key not in OF_STORES}
        return make_tree({name: _frame(store, f"{prefix}{name}", chunks) for name in names}, _at_home(attrs, store))
    return _frame(store, str(level), chunks)


def levels_of(store: str) -> int:
    """Return how many levels a store has, the full image included."""
    there = 1
    # Levels are found by their metadata and not by what the root says: a run may have died before it named the last.
    while location_of(f"{store}/{there}").exists():
        there += 1
    return there


def _level_prefix(store: str, level: int) -> str:
    """Return the prefix of the groups of a level; empty for the full images."""
    given: Any = level
    if not isinstance(given, Integral) or given < 0:
        raise ParameterError(f"level {level!r} must be an integer of at least 0, the full image.")
    if level and not location_of(f"{store}/{level}").exists():
        raise FormatError(
            f"{store} has no level {level}; it has {levels_of(store)}, counted from 0, and build_pyramid() makes more."
        )
    return f"{level}/" if level else ""


def _store_and_frame(path: str) -> tuple[str, str]:
    """Split the path of a frame or branch in a store: ``x.zarr/R22/C05`` into ``x.zarr`` and ``R22/C05``; the latter may be empty."""
    text = path.rstrip("/")
    store, found, child = text.rpartition(".zarr/")
    return (path, "") if not found or text.endswith(".zarr") else (f"{store}.zarr", child)


def _at_home(attrs: dict[str, Any], store: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the attributes of a root, with the store as the path of bytes that are in it."""
    path = os.fspath(store)
    path = path if is_url(path) else os.path.abspath(path)
    hdus = [
        {**hdu, "bytes": {**hdu["bytes"], "path": path}} if "bytes" in hdu else hdu for hdu in attrs.get("hdus", ())
    ]
    return {**attrs, "hdus": hdus} if "hdus" in attrs else attrs


def _frame(store: str | os.PathLike[str], group: str, chunks: int | tuple[int, int] | None) -> xr.Dataset:
    """Return the frame in a group of a store."""
    content = open_arrays(store, group)
    if DATA not in content.storages:
        raise FormatError(f"{store}[{group}] has arrays {sorted(content.storages)} and must have 'data'.")
    steps = {name: Source.of(storage) for name, storage in content.storages.items()}
    attrs = content.array_attrs
    kind: Any = attrs.get(UNCERTAINTY, {}).get("uncertainty_type", "std")
    table = FlagTable.from_attrs(attrs.get(MASK, {}))
    storage = content.storages[DATA]
    shape = storage.shape
    group_attrs = dict(content.attrs)
    header = str(group_attrs.pop("header", ""))
    for name in ("product_header", "product_header_error"):  # made anew for what becomes of the frame
        group_attrs.pop(name, None)
    more = {name: content.coords[name] for name in ("y", "x") if name in content.coords}
    image = make_image(
        steps[DATA],
        units=parse_unit(attrs[DATA].get("units"), str(store)),
        # Chunks of whole shards: a smaller one would open its shard again for each.
        grid=regular_grid(shape, storage.chunks) if chunks is None else asked_grid(shape, chunks),
        variance=to_variance(steps[UNCERTAINTY], kind) if UNCERTAINTY in steps else None,
        mask=to_mask(steps[MASK], table, str(store)) if MASK in steps else None,
        maps={name: steps[name] for name in MAPS if name in steps},
        header=header,
        schema=table.schema,
        uncertainty_type=kind,
        attrs=group_attrs,
        **more,
    )
    frame = image.to_dataset()
    if "lazyccd" in content.root_attrs:
        _restore(frame, attrs)
    return frame


def _restore(frame: xr.Dataset, attrs: Mapping[str, Mapping[str, Any]]) -> None:
    """Give variables and coordinates the attributes back that users gave them."""
    # Those of other programs' stores may be encodings, which are no attributes any more once they are decoded.
    for name in set(attrs) & set(map(str, frame.variables)):
        own = frame.variables[name].attrs
        own.update({key: value for key, value in attrs[name].items() if key not in own})
