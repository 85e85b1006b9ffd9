"""Lazy, chunked reduction of CCD images of any size."""

from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.log import conf
from lazyccd.io import as_frame, open_fits, open_many, open_zarr, to_fits, to_zarr
from lazyccd.ops import *  # noqa: F403
from lazyccd import accessor as accessor
