"""Build levels of an archived image: each has half the rows and columns of the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import xarray as xr

from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.tree import frames_of
from lazyccd.io.names import is_url
from lazyccd.io.resumable.progress import tidy_complete
from lazyccd.io.resumable.write import Rules
from lazyccd.io.zarr.location import read_complete, remove_unfinished, replace_complete
from lazyccd.io.zarr.open import levels_of, open_zarr
from lazyccd.io.zarr.write import write_level
from lazyccd.io.zarr.writer import consolidated, json_bytes
from lazyccd.kernels import block_reduce
from lazyccd.plan.chunks import INNER_CHUNK, regular_grid
from lazyccd.plan.footprints import EVERYTHING, Blocks
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params

CONVENTION = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
}
"""How the Zarr convention for pyramids says that a group follows it."""


def build_pyramid(
    store: str | os.PathLike[str],
    levels: int | None = None,
    overwrite: bool = False,
    *,
    verify: bool = False,
    break_lock: bool = False,
) -> int:
    """Append levels of half the resolution to an archived image, or to each image of a tree.

    Levels that exist are kept. A level appears when it is complete, and the store can be read at any time. After an
    interruption the same call continues.

    Parameters
    ----------
    store
        Path or URL of a store that `to_zarr` wrote.
    levels
        Number of levels, including the full image. By default, levels are added until the last one (of the largest frame of a
        tree) has at most 512 pixels along each axis.
    overwrite
        Replace existing levels, each when the new one is complete.
    verify
        Before an interrupted level is resumed, compare the checksums of all finished shards, and not only sizes.
    break_lock
        Write even though a lease says that another process is writing a level and that process may still run.

    Returns
    -------
    int
        Number of levels of the store, which may have had more than ``levels``.

    Raises
    ------
    FormatError
        Raised if there is no such store, or it has no image, or a frame with the name of a level.
    ParameterError
        Raised if ``levels`` is below 1.
    ResumeError
        Raised if other versions of the libraries began an interrupted level, and ``overwrite`` is false.
    TargetBusyError
        Raised if another process is writing a level.

    Notes
    -----
    A pixel is the mean of the good pixels among 2 x 2, or of the finite ones if none is good. Its uncertainty is that of
    this mean for independent pixels; its mask has the planes of all four. If the number of rows or columns is odd, the last
    one is left out. Coordinates are the mean original positions, from which the WCS follows.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import build_pyramid, from_ccddata, open_zarr, to_zarr
    >>> ds = from_ccddata(CCDData(np.arange(16.0).reshape(4, 4), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     store = to_zarr(ds, f"{folder}/a.zarr")
    ...     build_pyramid(store, 2), open_zarr(store, level=1)["data"].values
    (2, array([[ 2.5,  4.5],
           [10.5, 12.5]]))
    """
    if levels is not None and levels < 1:
        raise ParameterError(f"levels={levels} must be at least 1, the full image.")
    name = os.fspath(store).rstrip("/")
    name = name if is_url(name) else os.path.abspath(name)  # workers of a cluster have another working folder
    there = _levels(name)
    # A run may have died between a level and its name in the root, or before its journal was gone.
    for level in range(1, there):
        tidy_complete(f"{name}/{level}", break_lock=break_lock)
    _register(name, there)
    level = 1 if overwrite else there
    while levels is None or level < levels:
        images = {group: resolve(frame) for group, frame in _frames(name, level - 1).items()}
        shapes = [image.shape for image in images.values()]
        # All frames of a tree have the same levels, so the smallest frame limits them.
        if min(map(min, shapes)) < 2 or (levels is None and max(map(max, shapes)) <= INNER_CHUNK):
            break
        frames = {group: halved(image).to_dataset() for group, image in images.items()}
        write_level(frames, f"{name}/{level}", Rules(overwrite, verify, break_lock))
        level += 1
        there = max(there, level)
        _register(name, there)
    return there


def _frames(store: str, level: int) -> dict[str, xr.Dataset]:
    """Return the frames of a level by their groups in it; one alone is the level itself."""
    opened = open_zarr(store, level=level)
    return {"": opened} if isinstance(opened, xr.Dataset) else frames_of(opened)


def _levels(store: str) -> int:
    """Return how many levels a store has.

    Raises
    ------
    FormatError
        Raised if it has no image, or a frame whose name is that of a level.
    """
    # A frame named 1 would have the place of the first level.
    numbers = [name for name in _frames(store, 0) if name.partition("/")[0].isdecimal()]
    if numbers:
        raise FormatError(
            f"{store}: frame {numbers[0]!r} has the name of a level; rename the extension and write it anew."
        )
    return levels_of(store)


def halved(image: Image) -> Image:
    """Return the image of the next level."""
    shape = (image.shape[0] // 2, image.shape[1] // 2)
    dtypes = image.plan.dtypes
    plan = Apply(
        shape,
        make_dtypes(**{name: dtypes.get(name) for name in ("data", "variance", "mask")}),
        kernel=block_reduce.good_mean,
        sources=(Input(image.plan, Blocks((2, 2)), EVERYTHING),),
        params=make_params(bad_bits=image.schema.bad_bits),
    )
    y, x = (values[: 2 * n].reshape(n, 2).mean(axis=1) for values, n in zip((image.y, image.x), shape, strict=True))
    chunk = (max(image.grid[0]), max(image.grid[1]))
    return replace(image, plan=plan, grid=regular_grid(shape, chunk), y=y, x=x)


def _register(store: str, levels: int) -> None:
    """List the levels in the metadata of the store, if that changes anything."""
    content = read_complete(f"{store}/zarr.json")
    document = json.loads(content)
    document["attributes"].update(multiscales(levels, document["attributes"].get("lazyccd", {}).get("frames")))
    members: dict[str, Any] = document["consolidated_metadata"]["metadata"]
    for level in range(1, levels):
        found = json.loads(read_complete(f"{store}/{level}/zarr.json"))
        below = found["consolidated_metadata"]["metadata"]
        members[str(level)] = consolidated(found, {})
        members |= {f"{level}/{key}": member for key, member in below.items()}
    wanted = json_bytes(consolidated(document, members))
    # Readers never find the root half-written, nor changed without need.
    if wanted != content:
        replace_complete(f"{store}/zarr.json", wanted)
    else:
        remove_unfinished(f"{store}/zarr.json")


def multiscales(levels: int, frames: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the attributes of a group with levels, as the Zarr convention has them; ``frames`` are those of a tree.

    Paths of the convention lead down only, so the levels of all frames are named in the root, one frame after the other.

    Examples
    --------
    >>> multiscales(2)["multiscales"]["layout"][1]
    {'asset': '1', 'derived_from': '0', 'transform': {'scale': [2.0, 2.0], 'translation': [0.5, 0.5]}}
    >>> [level["asset"] for level in multiscales(2, ["SCI_1", "SCI_2"])["multiscales"]["layout"]]
    ['SCI_1', '1/SCI_1', 'SCI_2', '1/SCI_2']
    """
    layout: list[dict[str, Any]] = []
    for frame in ["0"] if frames is None else frames:
        name = frame
        layout.append({"asset": name})
        for level in range(1, levels):
            before, name = name, str(level) if frames is None else f"{level}/{frame}"
            # pixel centres: pixel i of a level lies at 2 i + 0.5 of the one before
            transform = {"scale": [2.0, 2.0], "translation": [0.5, 0.5]}
            layout.append({"asset": name, "derived_from": before, "transform": transform})
    return {"zarr_conventions": [CONVENTION], "multiscales": {"layout": layout, "resampling_method": "average"}}
