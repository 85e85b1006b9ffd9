"""ccdproc's names for scripts that were written for it: `import lazyccd.ccdproc as ccdproc` is the one line to change.

Everything here is as in ccdproc 2.5.1: functions compute at once, take `CCDData` and arrays of any number of axes, and give
`CCDData` and arrays back. `python -m lazyccd.ccdproc script.py` runs a script that imports ccdproc as it is.

What lazyccd has as well is computed by its kernels; what only ccdproc has lives here, and nothing else in lazyccd uses it.
Begin reading at `calibrate`, which has the basic steps. `core`, `combiner`, `image_collection`, `ccddata`, `log_meta` and `utils`
are the modules that scripts import from ccdproc. Differences are listed in ``docs/deviations.md``.
"""

from __future__ import annotations

from lazyccd.ccdproc import ccddata, combiner, core, image_collection, log_meta, utils
from lazyccd.ccdproc.ccddata import CCDData, fits_ccddata_reader, fits_ccddata_writer
from lazyccd.ccdproc.combiner import Combiner, combine
from lazyccd.ccdproc.core import (
    Keyword,
    background_deviation_box,
    background_deviation_filter,
    bitfield_to_boolean_mask,
    block_average,
    block_reduce,
    block_replicate,
    ccd_process,
    ccdmask,
    cosmicray_lacosmic,
    cosmicray_median,
    create_deviation,
    flat_correct,
    gain_correct,
    median_filter,
    rebin,
    sigma_func,
    subtract_bias,
    subtract_dark,
    subtract_overscan,
    transform_image,
    trim_image,
    wcs_project,
)
from lazyccd.ccdproc.image_collection import ImageFileCollection
from lazyccd.frame.history_log import Conf, conf

__version__ = "2.5.1"
"""The version of ccdproc whose names and behaviour these are; scripts ask for it."""

__all__ = [
    "CCDData",
    "Combiner",
    "Conf",
    "ImageFileCollection",
    "Keyword",
    "background_deviation_box",
    "background_deviation_filter",
    "bitfield_to_boolean_mask",
    "block_average",
    "block_reduce",
    "block_replicate",
    "ccd_process",
    "ccddata",
    "ccdmask",
    "combine",
    "combiner",
    "conf",
    "core",
    "cosmicray_lacosmic",
    "cosmicray_median",
    "create_deviation",
    "fits_ccddata_reader",
    "fits_ccddata_writer",
    "flat_correct",
    "gain_correct",
    "image_collection",
    "log_meta",
    "median_filter",
    "rebin",
    "sigma_func",
    "subtract_bias",
    "subtract_dark",
    "subtract_overscan",
    "transform_image",
    "trim_image",
    "utils",
    "wcs_project",
]
