"""Open whatever users have as a frame: paths of FITS files and Zarr stores, CCDData, frames."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from lazyccd.errors import ArgumentTypeError
from lazyccd.frame.ccddata import from_ccddata
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.tree import frames_of
from lazyccd.io.fits.hdu_roles import images_of
from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name
from lazyccd.io.zarr.open import open_zarr


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
        return open_zarr(path)
    name = parse_name(path)
    # A file of one image is a frame, as open_fits gives it, and no tree of one.
    several = name.hdu is None and len(images_of(scan_fits(name.path))) > 1
    return open_mef(path, unit=unit) if several else open_fits(path, unit=unit)


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
    if isinstance(given, xr.Dataset):
        return given
    if is_ccddata(given):
        return from_ccddata(given)
    if isinstance(given, str | os.PathLike):
        opened = open_zarr(given) if is_store(given) else open_fits(given)
        if isinstance(opened, xr.DataTree):
            raise ArgumentTypeError(
                f"the {what} {given} holds the frames {', '.join(frames_of(opened))} and must be one; open it by open_zarr()."
            )
        return opened
    raise ArgumentTypeError(
        f"the {what} is a {type(given).__name__} and must be a frame (xarray.Dataset), a CCDData or a path."
    )
