"""Imports and compiles what the workers of `kills` need: once, in the process that they are forked from."""

import tempfile
from pathlib import Path

import dask
import kills
import numpy as np
import zarr  # noqa: F401
from astropy.io import fits

import lazyccd

with tempfile.TemporaryDirectory() as name, dask.config.set(scheduler="sync"):
    raw = Path(name, "raw.fits")
    fits.writeto(raw, np.zeros((kills.SIDE, kills.SIDE), np.uint16))
    lazyccd.to_fits(kills.frame(raw), Path(name, "a.fits"))
