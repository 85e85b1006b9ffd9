"""Reading and writing frames."""

from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits, open_many
from lazyccd.io.fits.write import to_fits
from lazyccd.io.open import as_frame
from lazyccd.io.zarr.open import open_zarr
from lazyccd.io.zarr.pyramid import build_pyramid
from lazyccd.io.zarr.write import to_zarr

__all__ = ["as_frame", "build_pyramid", "open_fits", "open_many", "open_mef", "open_zarr", "to_fits", "to_zarr"]
