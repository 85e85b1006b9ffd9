"""Zarr stores as lazy frames, and whatever users have as a frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xarray as xr

from lazyccd.errors import ArgumentTypeError, FormatError
from lazyccd.flags import FlagTable
from lazyccd.frame.casts import to_mask, to_variance
from lazyccd.frame.ccddata import from_ccddata
from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, make_image, regular_grid
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.units import parse_unit
from lazyccd.io.fits.open import open_fits
from lazyccd.io.zarrs import open_arrays
from lazyccd.kernels.block import MAPS
from lazyccd.plan.steps import Source


def open_zarr(store: str | os.PathLike[str], level: int = 0, chunks: int | tuple[int, int] | None = None) -> xr.Dataset:
    """Open a frame in a Zarr store, lazily; only metadata and coordinates are read.

    Parameters
    ----------
    store
        Path or fsspec URL of a store that `to_zarr` wrote.
    level
        Level of the pyramid: 0 for the full image, 1 for half its rows and columns, ...; see `build_pyramid`.
    chunks
        Chunk shape, one number for both axes; the shards of the store by default.

    Returns
    -------
    xr.Dataset
        The frame as it was written: variables, units, mask planes, header, coordinates.

    Raises
    ------
    MissingFileError
        Raised if there is no such store.
    FormatError
        Raised if it is no Zarr store, has no such group, or the group has no image ``data``.
    """
    group = str(level)
    content = open_arrays(store, group)
    if DATA not in content.storages:
        raise FormatError(f"{store}[{group}] has arrays {sorted(content.storages)} and must have 'data'.")
    steps = {name: Source.of(storage) for name, storage in content.storages.items()}
    attrs = content.array_attrs
    kind: Any = attrs.get(UNCERTAINTY, {}).get("uncertainty_type", "std")
    table = FlagTable.from_attrs(attrs.get(MASK, {}))
    storage = content.storages[DATA]
    shape = storage.chunks if chunks is None else ((chunks, chunks) if isinstance(chunks, int) else chunks)
    group_attrs = dict(content.attrs)
    header = str(group_attrs.pop("header", ""))
    for name in ("product_header", "product_header_error"):  # made anew for what becomes of the frame
        group_attrs.pop(name, None)
    more = {name: content.coords[name] for name in ("y", "x") if name in content.coords}
    image = make_image(
        steps[DATA],
        units=parse_unit(attrs[DATA].get("units"), str(store)),
        grid=regular_grid(storage.shape, shape),
        variance=to_variance(steps[UNCERTAINTY], kind) if UNCERTAINTY in steps else None,
        mask=to_mask(steps[MASK], table, str(store)) if MASK in steps else None,
        maps={name: steps[name] for name in MAPS if name in steps},
        header=header,
        schema=table.schema,
        uncertainty_type=kind,
        attrs=group_attrs,
        **more,
    )
    return image.to_dataset()


def as_frame(given: object, what: str = "frame") -> xr.Dataset:
    """Return a frame for whatever stands for one.

    Parameters
    ----------
    given
        A frame, a CCDData, or the path of a FITS file (``a.fits[SCI,2]``) or Zarr store.
    what
        How messages name it.

    Raises
    ------
    ArgumentTypeError
        Raised for anything else.
    """
    if isinstance(given, xr.Dataset):
        return given
    if is_ccddata(given):
        return from_ccddata(given)
    if isinstance(given, str | os.PathLike):
        path = os.fspath(given)
        is_store = path.rstrip("/").endswith(".zarr") or (Path(path) / "zarr.json").is_file()
        return open_zarr(path) if is_store else open_fits(path)
    raise ArgumentTypeError(
        f"the {what} is a {type(given).__name__} and must be a frame (xarray.Dataset), a CCDData or a path."
    )
