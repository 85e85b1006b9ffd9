"""Read and write frames: FITS files and Zarr stores, and names, archives and levels of them.

What knows a file format belongs here; pixels come in and go out as regions. Nothing here changes pixels but as the format
asks: operations are in `lazyccd.ops`, frames and headers in `lazyccd.frame`.

- `fits`: reading and writing FITS; begin with ``fits/open.py`` (headers to a frame) and ``fits/write.py``.
- `zarr`: reading and writing stores; begin with ``zarr/open.py`` and ``zarr/write.py``. ``docs/format.md`` has the layout.
- `resumable`: writes that can be interrupted, whatever the format; a new output format begins with its docstring.
- ``collection.py``: files chosen by their headers; ``names.py``: what users may give as a name; ``open.py``: whatever they
  have as a frame; ``xarray_engine.py``: for xarray.
"""

from lazyccd.io.collection import Collection
from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits, open_many
from lazyccd.io.fits.write import to_fits
from lazyccd.io.open import as_frame
from lazyccd.io.zarr.open import open_zarr
from lazyccd.io.zarr.pyramid import build_pyramid
from lazyccd.io.zarr.write import to_zarr

__all__ = [
    "Collection",
    "as_frame",
    "build_pyramid",
    "open_fits",
    "open_many",
    "open_mef",
    "open_zarr",
    "to_fits",
    "to_zarr",
]
