"""The public names, for `lazy_loader`, which imports each at its first use, and for type checkers."""

from .collection import Collection as Collection
from .fits.mef import open_mef as open_mef
from .fits.open import open_fits as open_fits, open_many as open_many
from .fits.write import to_fits as to_fits
from .open import as_frame as as_frame
from .zarr.open import open_zarr as open_zarr
from .zarr.pyramid import build_pyramid as build_pyramid
from .zarr.write import to_zarr as to_zarr
