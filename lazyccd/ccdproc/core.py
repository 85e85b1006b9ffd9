"""The names of ``ccdproc.core``, which scripts import from there."""

from __future__ import annotations

from lazyccd.ccdproc.calibrate import (
    create_deviation,
    flat_correct,
    gain_correct,
    subtract_bias,
    subtract_dark,
    subtract_overscan,
    trim_image,
)
from lazyccd.ccdproc.cosmic_rays import cosmicray_lacosmic, cosmicray_median
from lazyccd.ccdproc.filters import (
    background_deviation_box,
    background_deviation_filter,
    bitfield_to_boolean_mask,
    ccdmask,
    median_filter,
    sigma_func,
)
from lazyccd.ccdproc.process import ccd_process
from lazyccd.ccdproc.resample import (
    block_average,
    block_reduce,
    block_replicate,
    rebin,
    transform_image,
    wcs_project,
)
from lazyccd.frame.history_log import SHORT_NAMES
from lazyccd.frame.keyword import Keyword

__all__ = [
    "Keyword",
    "background_deviation_box",
    "background_deviation_filter",
    "bitfield_to_boolean_mask",
    "block_average",
    "block_reduce",
    "block_replicate",
    "ccd_process",
    "ccdmask",
    "cosmicray_lacosmic",
    "cosmicray_median",
    "create_deviation",
    "flat_correct",
    "gain_correct",
    "median_filter",
    "rebin",
    "sigma_func",
    "subtract_bias",
    "subtract_dark",
    "subtract_overscan",
    "transform_image",
    "trim_image",
    "wcs_project",
]

# ccdproc's own tests import it
_short_names = SHORT_NAMES
