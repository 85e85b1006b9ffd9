"""Reading and writing frames."""

from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits, open_many
from lazyccd.io.opening import as_frame, open_zarr
from lazyccd.io.pyramid import build_pyramid
from lazyccd.io.write_fits import to_fits
from lazyccd.io.write_zarr import to_zarr

__all__ = ["as_frame", "build_pyramid", "open_fits", "open_many", "open_mef", "open_zarr", "to_fits", "to_zarr"]
