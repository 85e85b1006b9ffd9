"""The names of ``ccdproc.ccddata``: astropy's CCDData and what reads and writes it."""

from __future__ import annotations

from astropy.nddata import CCDData, fits_ccddata_reader, fits_ccddata_writer

__all__ = ["CCDData", "fits_ccddata_reader", "fits_ccddata_writer"]
