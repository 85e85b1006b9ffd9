"""The public names, for `lazy_loader`, which imports each at its first use, and for type checkers."""

from . import (
    accessor as accessor,
    errors as errors,
    io as io,
    mask_planes as mask_planes,
    ops as ops,
    plot as plot,
    sections as sections,
    stats as stats,
    testing as testing,
)
from .batch.recipe.recipe import Recipe as Recipe
from .batch.reduce import reduce as reduce
from .frame.ccddata import from_ccddata as from_ccddata, to_ccddata as to_ccddata
from .frame.history_log import conf as conf
from .frame.keyword import Keyword as Keyword
from .frame.nddata import CCDData as CCDData
from .io import (
    Collection as Collection,
    as_frame as as_frame,
    build_pyramid as build_pyramid,
    open_fits as open_fits,
    open_many as open_many,
    open_mef as open_mef,
    open_zarr as open_zarr,
    to_fits as to_fits,
    to_zarr as to_zarr,
)
from .ops import (
    Combiner as Combiner,
    RunningStack as RunningStack,
    add as add,
    add_mask as add_mask,
    assemble as assemble,
    aperture_factor as aperture_factor,
    background_deviation_box as background_deviation_box,
    background_deviation_filter as background_deviation_filter,
    bitfield_to_boolean_mask as bitfield_to_boolean_mask,
    block_average as block_average,
    block_reduce as block_reduce,
    block_replicate as block_replicate,
    ccd_process as ccd_process,
    ccdmask as ccdmask,
    coadd as coadd,
    combine as combine,
    correct_crosstalk as correct_crosstalk,
    correct_linearity as correct_linearity,
    cosmicray_lacosmic as cosmicray_lacosmic,
    cosmicray_median as cosmicray_median,
    create_deviation as create_deviation,
    divide as divide,
    divide_illumination as divide_illumination,
    find_optimal_grid as find_optimal_grid,
    flag_saturated as flag_saturated,
    flat_correct as flat_correct,
    gain_correct as gain_correct,
    grow_mask as grow_mask,
    interpolate_bad_pixels as interpolate_bad_pixels,
    is_flagged as is_flagged,
    median_filter as median_filter,
    mosaic_corrections as mosaic_corrections,
    multiply as multiply,
    rechunk as rechunk,
    register as register,
    settle as settle,
    sky_cells as sky_cells,
    split_amplifiers as split_amplifiers,
    subtract as subtract,
    subtract_bias as subtract_bias,
    subtract_dark as subtract_dark,
    subtract_fringe as subtract_fringe,
    subtract_overscan as subtract_overscan,
    subtract_sky as subtract_sky,
    transform_image as transform_image,
    trim_image as trim_image,
    wcs_project as wcs_project,
    with_header as with_header,
    with_mask as with_mask,
    with_uncertainty as with_uncertainty,
    with_unit as with_unit,
)
from .mosaic_inputs import frames_at as frames_at, stamps as stamps
from .pixel_history import explain as explain

__version__: str
__all__: list[str]
