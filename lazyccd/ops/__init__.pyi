"""The operations, for `lazy_loader`, which imports each at its first use, and for type checkers."""

from .arithmetic import add as add, divide as divide, multiply as multiply, subtract as subtract
from .attributes import (
    add_mask as add_mask,
    rechunk as rechunk,
    settle as settle,
    with_header as with_header,
    with_mask as with_mask,
    with_uncertainty as with_uncertainty,
    with_unit as with_unit,
)
from .bad_pixels import ccdmask as ccdmask, grow_mask as grow_mask, interpolate_bad_pixels as interpolate_bad_pixels
from .binning import block_average as block_average, block_reduce as block_reduce, block_replicate as block_replicate
from .cosmic_rays import cosmicray_lacosmic as cosmicray_lacosmic
from .filters import (
    background_deviation_box as background_deviation_box,
    background_deviation_filter as background_deviation_filter,
    cosmicray_median as cosmicray_median,
    median_filter as median_filter,
)
from .instrument.calibrate import (
    create_deviation as create_deviation,
    gain_correct as gain_correct,
    subtract_bias as subtract_bias,
    subtract_dark as subtract_dark,
)
from .instrument.crosstalk import correct_crosstalk as correct_crosstalk
from .instrument.flat import flat_correct as flat_correct
from .instrument.overscan import subtract_overscan as subtract_overscan
from .instrument.process import ccd_process as ccd_process
from .instrument.signature import (
    correct_linearity as correct_linearity,
    divide_illumination as divide_illumination,
    subtract_fringe as subtract_fringe,
)
from .instrument.trim import trim_image as trim_image
from .masks import (
    bitfield_to_boolean_mask as bitfield_to_boolean_mask,
    flag_saturated as flag_saturated,
    is_flagged as is_flagged,
)
from .mosaic.apertures import aperture_factor as aperture_factor
from .mosaic.assemble import assemble as assemble
from .mosaic.coadd import coadd as coadd
from .mosaic.grid import find_optimal_grid as find_optimal_grid
from .mosaic.overlaps import mosaic_corrections as mosaic_corrections
from .mosaic.sky import subtract_sky as subtract_sky
from .mosaic.sky_cells import sky_cells as sky_cells
from .mosaic.split import split_amplifiers as split_amplifiers
from .mosaic.warp import wcs_project as wcs_project
from .stack.combine import combine as combine
from .stack.combiner import Combiner as Combiner
from .stack.offsets import register as register
from .stack.running import RunningStack as RunningStack
from .transform import transform_image as transform_image

__all__: list[str]
