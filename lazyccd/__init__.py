"""Lazy, chunked reduction of CCD images of any size, on dask and xarray.

Images are `xarray.Dataset` objects with lazy ``data``, ``uncertainty`` and ``mask``; operations have ccdproc's names. Scripts
written for ccdproc run with ``import lazyccd as ccdproc``.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from lazyccd import accessor as accessor
from lazyccd import mask_planes as mask_planes
from lazyccd import stats as stats
from lazyccd.frame.ccddata import from_ccddata, to_ccddata
from lazyccd.frame.history_log import conf
from lazyccd.frame.keyword import Keyword
from lazyccd.io import as_frame, build_pyramid, open_fits, open_many, open_mef, open_zarr, to_fits, to_zarr
from lazyccd.ops import (
    Combiner,
    RunningStack,
    add,
    add_mask,
    assemble,
    background_deviation_box,
    background_deviation_filter,
    bitfield_to_boolean_mask,
    block_average,
    block_reduce,
    block_replicate,
    ccd_process,
    ccdmask,
    combine,
    correct_crosstalk,
    correct_linearity,
    cosmicray_lacosmic,
    cosmicray_median,
    create_deviation,
    divide,
    divide_illumination,
    flag_saturated,
    flat_correct,
    gain_correct,
    grow_mask,
    interpolate_bad_pixels,
    is_flagged,
    median_filter,
    multiply,
    rechunk,
    register,
    settle,
    split_amplifiers,
    subtract,
    subtract_bias,
    subtract_dark,
    subtract_fringe,
    subtract_overscan,
    transform_image,
    trim_image,
    with_header,
    with_mask,
    with_uncertainty,
    with_unit,
)
from lazyccd.pixel_history import explain

if _TYPE_CHECKING:
    from astropy.nddata import CCDData

__version__ = _version("lazyccd")


def __getattr__(name: str) -> _Any:
    """Import CCDData when it is asked for: `astropy.nddata` brings tables and coordinates along."""
    if name != "CCDData":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from astropy.nddata import CCDData

    return CCDData


__all__ = [
    "CCDData",
    "Combiner",
    "Keyword",
    "RunningStack",
    "add",
    "add_mask",
    "as_frame",
    "assemble",
    "background_deviation_box",
    "background_deviation_filter",
    "bitfield_to_boolean_mask",
    "block_average",
    "block_reduce",
    "block_replicate",
    "build_pyramid",
    "ccd_process",
    "ccdmask",
    "combine",
    "conf",
    "correct_crosstalk",
    "correct_linearity",
    "cosmicray_lacosmic",
    "cosmicray_median",
    "create_deviation",
    "divide",
    "divide_illumination",
    "explain",
    "flag_saturated",
    "flat_correct",
    "from_ccddata",
    "gain_correct",
    "grow_mask",
    "interpolate_bad_pixels",
    "is_flagged",
    "median_filter",
    "multiply",
    "open_fits",
    "open_many",
    "open_mef",
    "open_zarr",
    "rechunk",
    "register",
    "settle",
    "split_amplifiers",
    "subtract",
    "subtract_bias",
    "subtract_dark",
    "subtract_fringe",
    "subtract_overscan",
    "to_ccddata",
    "to_fits",
    "to_zarr",
    "transform_image",
    "trim_image",
    "with_header",
    "with_mask",
    "with_uncertainty",
    "with_unit",
]
