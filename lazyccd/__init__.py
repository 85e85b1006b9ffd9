"""Lazy, chunked reduction of CCD images of any size, on dask and xarray.

Images are `xarray.Dataset` objects with lazy ``data``, ``uncertainty`` and ``mask``; operations have ccdproc's names. Scripts
written for ccdproc run with ``import lazyccd.ccdproc as ccdproc``.

Importing this package imports nothing else. Each public name is listed in ``__init__.pyi`` and is imported at its first use.
"""

import lazy_loader as _lazy_loader

from lazyccd.registration import register_accessors as _register_accessors

__version__ = "0.1.0"

_MODULES = {"accessor", "errors", "io", "mask_planes", "ops", "plot", "sections", "stats", "testing"}

__getattr__, __dir__, _names = _lazy_loader.attach_stub(__name__, __file__)

# modules are no part of `from lazyccd import *`: `io` would hide Python's
__all__ = [_name for _name in _names if _name not in _MODULES]

_register_accessors()
