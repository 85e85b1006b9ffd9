"""Read and write frames: FITS files and Zarr stores, and names, archives and levels of them.

What knows a file format belongs here; pixels come in and go out as regions. Nothing here changes pixels but as the format
asks: operations are in `lazyccd.ops`, frames and headers in `lazyccd.frame`.

- `fits`: reading and writing FITS; begin with ``fits/open.py`` (headers to a frame) and ``fits/write.py``.
- `zarr`: reading and writing stores; begin with ``zarr/open.py`` and ``zarr/write.py``. ``docs/format.md`` has the layout.
- `resumable`: writes that can be interrupted, whatever the format; a new output format begins with its docstring.
- ``collection.py``: files chosen by their headers; ``names.py``: what users may give as a name; ``open.py``: whatever they
  have as a frame; ``xarray_engine.py``: for xarray.

The names of ``__init__.pyi`` are imported at their first use: a table of headers needs neither dask nor xarray.
"""

import lazy_loader as _lazy_loader

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
