"""Operations on frames: what users call, as functions and as methods of ``ds.ccd``.

An operation takes a frame, a tree of frames or a CCDData, and returns the same kind. It computes nothing: it reads the plan of
its frame, makes it one step longer and returns a frame of the longer plan. So a file here checks arguments and chooses a
kernel; the arithmetic on pixels is in `lazyccd.kernels`, and what steps are is in `lazyccd.plan`.

Begin with `arithmetic`, the shortest complete example, and `decorator`, which all operations share. `instrument` removes what
a detector leaves in its images, `stack` combines many frames into one, `mosaic` puts amplifiers and detectors together.
Decisions about whole nights do not belong here but in `lazyccd.batch`; nor does reading and writing, in `lazyccd.io`.
"""

from lazyccd.ops.arithmetic import add, divide, multiply, subtract
from lazyccd.ops.attributes import add_mask, rechunk, settle, with_header, with_mask, with_uncertainty, with_unit
from lazyccd.ops.bad_pixels import ccdmask, grow_mask, interpolate_bad_pixels
from lazyccd.ops.binning import block_average, block_reduce, block_replicate
from lazyccd.ops.cosmic_rays import cosmicray_lacosmic
from lazyccd.ops.filters import (
    background_deviation_box,
    background_deviation_filter,
    cosmicray_median,
    median_filter,
)
from lazyccd.ops.instrument.calibrate import create_deviation, gain_correct, subtract_bias, subtract_dark
from lazyccd.ops.instrument.crosstalk import correct_crosstalk
from lazyccd.ops.instrument.flat import flat_correct
from lazyccd.ops.instrument.overscan import subtract_overscan
from lazyccd.ops.instrument.process import ccd_process
from lazyccd.ops.instrument.signature import correct_linearity, divide_illumination, subtract_fringe
from lazyccd.ops.instrument.trim import trim_image
from lazyccd.ops.masks import bitfield_to_boolean_mask, flag_saturated, is_flagged
from lazyccd.ops.mosaic.assemble import assemble
from lazyccd.ops.mosaic.coadd import coadd
from lazyccd.ops.mosaic.grid import find_optimal_grid
from lazyccd.ops.mosaic.overlaps import mosaic_corrections
from lazyccd.ops.mosaic.sky import subtract_sky
from lazyccd.ops.mosaic.sky_cells import sky_cells
from lazyccd.ops.mosaic.split import split_amplifiers
from lazyccd.ops.mosaic.warp import wcs_project
from lazyccd.ops.stack.combine import combine
from lazyccd.ops.stack.combiner import Combiner
from lazyccd.ops.stack.offsets import register
from lazyccd.ops.stack.running import RunningStack
from lazyccd.ops.transform import transform_image

__all__ = [
    "Combiner",
    "RunningStack",
    "add",
    "add_mask",
    "assemble",
    "background_deviation_box",
    "background_deviation_filter",
    "bitfield_to_boolean_mask",
    "block_average",
    "block_reduce",
    "block_replicate",
    "ccd_process",
    "ccdmask",
    "coadd",
    "combine",
    "correct_crosstalk",
    "correct_linearity",
    "cosmicray_lacosmic",
    "cosmicray_median",
    "create_deviation",
    "divide",
    "divide_illumination",
    "find_optimal_grid",
    "flag_saturated",
    "flat_correct",
    "gain_correct",
    "grow_mask",
    "interpolate_bad_pixels",
    "is_flagged",
    "median_filter",
    "mosaic_corrections",
    "multiply",
    "rechunk",
    "register",
    "settle",
    "sky_cells",
    "split_amplifiers",
    "subtract",
    "subtract_bias",
    "subtract_dark",
    "subtract_fringe",
    "subtract_overscan",
    "subtract_sky",
    "transform_image",
    "trim_image",
    "wcs_project",
    "with_header",
    "with_mask",
    "with_uncertainty",
    "with_unit",
]
