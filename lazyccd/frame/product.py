"""Headers of products that are written."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from astropy.io import fits

from lazyccd.frame.header import header_from_text
from lazyccd.frame.wcs import lattice, wcs_from_header


def product_header(text: str, y: npt.NDArray[Any], x: npt.NDArray[Any], units: str) -> fits.Header:
    """Return the header of a product: true for the pixels that it holds."""
    header = header_from_text(text)
    (y0, ystep), (x0, xstep) = lattice(y, "y"), lattice(x, "x")
    if (y0, ystep, x0, xstep) != (0, 1, 0, 1):
        wcs = wcs_from_header(text, y, x)
        if wcs is not None:
            header.update(wcs.to_header(relax=True))
        for key in ("BIASSEC", "TRIMSEC"):
            header.remove(key, ignore_missing=True)
        header["LTV1"], header["LTV2"] = -x0 / xstep, -y0 / ystep
        header["LTM1_1"], header["LTM2_2"] = 1 / xstep, 1 / ystep
        header["DATASEC"] = f"[1:{len(x)},1:{len(y)}]"
    if units:
        header["BUNIT"] = units
    return header
