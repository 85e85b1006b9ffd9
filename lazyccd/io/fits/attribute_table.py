"""An attribute of a frame that is a table, as a binary table of a FITS file: what matching subtracted from the frames of a mosaic.

The attribute is a dict of columns, lists of one length without NaN, so that JSON and stores hold it as it is.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from lazyccd.frame.core import CORRECTIONS
from lazyccd.io.fits.layout import HduSpec
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.io.fits.scan import BLOCK, FitsFile

EXTNAME = "CORRECTIONS"
"""Name of the extension."""


def table_hdu(columns: Mapping[str, list[Any]]) -> HduSpec:
    """Return the HDU of a table."""
    content = _as_bytes(columns)
    return HduSpec(EXTNAME, "", (), kept=KeptBytes("", len(content), content=content))


def table_attribute(file: FitsFile) -> dict[str, Any]:
    """Return the table of a file as an attribute; nothing if there is none."""
    for info in file.hdus[1:]:
        if info.name == EXTNAME and info.kind == "table":
            size = info.data_offset - info.offset + info.data_size
            return {CORRECTIONS: _from_bytes(KeptBytes(file.path, size, info.offset, file.identity).read())}
    return {}


def _as_bytes(columns: Mapping[str, list[Any]]) -> bytes:
    """Return a table as the bytes of an HDU."""
    import numpy as np
    from astropy.io import fits

    arrays = {}
    for key, values in columns.items():
        known = [value for value in values if value is not None]
        is_text = any(isinstance(value, str) for value in known)
        # What is not there is NaN among numbers and empty among texts.
        nothing: Any = "" if is_text else np.nan
        arrays[key] = np.array([nothing if value is None else value for value in values], str if is_text else None)
    dtype = np.dtype([(key, array.dtype) for key, array in arrays.items()])
    rows = np.rec.fromarrays(list(arrays.values()), dtype=dtype)
    hdu = fits.BinTableHDU(rows, name=EXTNAME)
    # astropy's comments have the time, and an interrupted write goes on only with the same bytes
    hdu.add_checksum(when="sum of the bytes")
    target = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(target)
    return target.getvalue()[BLOCK:]


def _from_bytes(content: bytes) -> dict[str, list[Any]]:
    """Return the columns of a table from the bytes of its HDU."""
    from astropy.io import fits

    hdu = fits.BinTableHDU.fromstring(content + bytes(-len(content) % BLOCK))
    columns = {}
    for key in hdu.columns.names:
        values = hdu.data[key]
        columns[key] = [None if v == "" or v != v else v for v in values.tolist()]
    return columns
