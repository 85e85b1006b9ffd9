"""Open whatever users have as a frame: paths of FITS files and Zarr stores, CCDData, frames.

What opens stores is imported in functions: fsspec, which it brings along, takes longer than to read headers of FITS files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lazyccd.errors import ArgumentTypeError
from lazyccd.frame.ccddata import from_ccddata
from lazyccd.frame.kinds import is_dataset, is_tree
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.tree import frames_of
from lazyccd.io.fits.hdu_roles import images_of
from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name

if TYPE_CHECKING:
    import xarray as xr


def is_store(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is that of a Zarr store or inside one, by its name or by what is there. A file never is."""
    # A FITS file may lie in a folder that is named like a store.
    text = parse_name(path).path
    return not os.path.isfile(text) and (".zarr/" in f"{text}/" or (Path(text) / "zarr.json").is_file())


def open_image(path: str | os.PathLike[str], unit: str | None = None) -> xr.Dataset | xr.DataTree:
    """Open a FITS file or Zarr store lazily, as a frame if it has one image or one is named (``a.fits[SCI,2]``), else as a tree.

    ``unit`` is that of the pixels of a FITS file, instead of BUNIT.
    """
    if is_store(path):
        from lazyccd.io.zarr.open import open_zarr

        return open_zarr(path)
    return open_mef(path, unit=unit) if _has_several(path) else open_fits(path, unit=unit)


def opens_as_tree(path: str | os.PathLike[str]) -> bool:
    """Return whether `open_image` gives a tree."""
    return is_tree(open_image(path)) if is_store(path) else _has_several(path)


def _has_several(path: str | os.PathLike[str]) -> bool:
    """Return whether a FITS file has several images and none is named: one of one image is a frame, and no tree of one."""
    name = parse_name(path)
    return name.hdu is None and len(images_of(scan_fits(name.path))) > 1


def as_frame(given: object, what: str = "frame") -> xr.Dataset:
    """Return a frame for a frame, a CCDData or a path.

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
    if is_dataset(given):
        return given
    if is_ccddata(given):
        return from_ccddata(given)
    if isinstance(given, str | os.PathLike):
        opened = open_image(given) if is_store(given) else open_fits(given)
        if is_tree(opened):
            raise ArgumentTypeError(
                f"the {what} {given} holds the frames {', '.join(frames_of(opened))} and must be one; open it by open_zarr()."
            )
        return opened
    raise ArgumentTypeError(
        f"the {what} is a {type(given).__name__} and must be a frame (xarray.Dataset), a CCDData or a path."
    )
