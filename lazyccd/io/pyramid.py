"""Levels of an archived image: each has half the rows and columns of the one before."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.core import Image, regular_grid, resolve
from lazyccd.io.opening import open_zarr
from lazyccd.io.places import place_of, read_complete, replace_complete
from lazyccd.io.write import write_level
from lazyccd.io.zarrs import CHUNK, consolidated, json_bytes
from lazyccd.kernels import blocks
from lazyccd.plan.reads import Blocks
from lazyccd.plan.steps import EVERYTHING, Apply, Input, make_dtypes, make_params

CONVENTION = {
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
}
"""How the Zarr convention for pyramids says that a group follows it."""


def build_pyramid(store: str | os.PathLike[str], levels: int | None = None) -> int:
    """Make sure that an archived image has a number of levels; those that are missing are appended.

    Each level is complete when it appears, and the store can be read all the time. The same call goes on where one was
    interrupted.

    Parameters
    ----------
    store
        Path or URL of a store of one frame that `to_zarr` wrote.
    levels
        Number of levels, the full image included. By default so many that the last has at most 512 pixels along each axis.

    Returns
    -------
    int
        Number of levels that the image has now; more than asked for if it had them.

    Raises
    ------
    FormatError
        Raised if there is no such store, or it is one of a tree.
    ParameterError
        Raised if ``levels`` is below 1.

    Notes
    -----
    A pixel is the mean of the good ones of 2 x 2 pixels; if none is good, of those that are finite. Its uncertainty is
    that of this mean, for independent pixels, and its mask has the planes of all four. The last row or column of an odd
    number is left out. Coordinates are the mean original positions, so the WCS follows.

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
    there = 0
    while place_of(f"{name}/{there}").exists():
        there += 1
    if not there:
        raise FormatError(
            f"{name} has no image to make levels of, such as a store of a tree; write a frame by to_zarr()."
        )
    _register(name, there)
    while levels is None or there < levels:
        image = resolve(open_zarr(name, level=there - 1))
        if min(image.shape) < 2 or (levels is None and max(image.shape) <= CHUNK):
            break
        write_level(halved(image).to_dataset(), f"{name}/{there}")
        there += 1
        _register(name, there)
    return there


def halved(image: Image) -> Image:
    """Return the image of the next level."""
    shape = (image.shape[0] // 2, image.shape[1] // 2)
    dtypes = image.plan.dtypes
    plan = Apply(
        shape,
        make_dtypes(**{name: dtypes.get(name) for name in ("data", "variance", "mask")}),
        kernel=blocks.good_mean,
        sources=(Input(image.plan, Blocks((2, 2)), EVERYTHING),),
        params=make_params(bad_bits=image.schema.bad_bits),
    )
    y, x = (values[: 2 * n].reshape(n, 2).mean(axis=1) for values, n in zip((image.y, image.x), shape, strict=True))
    chunk = (max(image.grid[0]), max(image.grid[1]))
    return replace(image, plan=plan, grid=regular_grid(shape, chunk), y=y, x=x)


def _register(store: str, levels: int) -> None:
    """Name the levels in the metadata of the store, if they are not named yet."""
    document = json.loads(read_complete(f"{store}/zarr.json"))
    wanted = multiscales(levels)
    if document["attributes"].get("multiscales") == wanted["multiscales"]:
        return
    document["attributes"].update(wanted)
    members: dict[str, Any] = document["consolidated_metadata"]["metadata"]
    for level in range(1, levels):
        found = json.loads(read_complete(f"{store}/{level}/zarr.json"))
        arrays = found["consolidated_metadata"]["metadata"]
        members[str(level)] = consolidated(found, {})
        members |= {f"{level}/{key}": array for key, array in arrays.items()}
    replace_complete(f"{store}/zarr.json", json_bytes(consolidated(document, members)))


def multiscales(levels: int) -> dict[str, Any]:
    """Return the attributes of a group with levels, as the Zarr convention has them.

    Examples
    --------
    >>> multiscales(2)["multiscales"]["layout"][1]
    {'asset': '1', 'derived_from': '0', 'transform': {'scale': [2.0, 2.0], 'translation': [0.5, 0.5]}}
    """
    layout: list[dict[str, Any]] = [{"asset": "0"}]
    for level in range(1, levels):
        # pixel centres: pixel i of a level lies at 2 i + 0.5 of the one before
        transform = {"scale": [2.0, 2.0], "translation": [0.5, 0.5]}
        layout.append({"asset": str(level), "derived_from": str(level - 1), "transform": transform})
    return {"zarr_conventions": [CONVENTION], "multiscales": {"layout": layout, "resampling_method": "average"}}
