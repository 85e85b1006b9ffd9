"""Find bad pixels of a detector in a ratio of flats, grow a mask, and fill bad pixels from their neighbours.

`ccdmask` makes a mask, `grow_mask` changes one, `interpolate_bad_pixels` uses one. What a plane means, and which planes count as
bad, is in `lazyccd.mask_planes`; how to put a mask into a frame, in `lazyccd.ops.attributes`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from lazyccd.errors import ParameterError
from lazyccd.frame.core import DATA, Image, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.kernels import bad_pixels, iraf_filters
from lazyccd.ops.arguments import normalize_integer, normalize_number
from lazyccd.ops.decorator import operation
from lazyccd.ops.filters import normalize_box
from lazyccd.plan.chunks import CHUNK_PIXELS, regular_grid
from lazyccd.plan.footprints import Footprint, Halo, Lattice, PlaneMap
from lazyccd.plan.steps import Apply, Input, Kernel, make_dtypes, make_params

FILLED: PlaneMap = (("data", ("data", "mask")), ("variance", ("variance", "data", "mask")), ("mask", ("data", "mask")))
"""Each plane needs to know where pixels are bad, or NaN."""


@operation(arrays=("data",))
def ccdmask(
    ratio: xr.Dataset,
    findbadcolumns: bool = False,
    byblocks: bool = False,
    ncmed: int = 7,
    nlmed: int = 7,
    ncsig: int = 15,
    nlsig: int = 15,
    lsigma: float | None = None,
    hsigma: float | None = None,
    ngood: int = 5,
    *,
    flavor: Literal["ccdproc", "iraf"] = "ccdproc",
    add_keyword: LogEntry = True,
) -> xr.DataArray:
    """Find the bad pixels of a detector in an image without structure, such as the ratio of two flats of different levels.

    Parameters
    ----------
    ratio
        A frame; or a CCDData or an array (then a computed array is returned).
    findbadcolumns
        Flag short good stretches of a column between bad pixels, too; with ``byblocks``, also columns of a block whose sum is
        off.
    byblocks
        Measure the scatter in blocks side by side, instead of about each pixel; faster, less exact.
    ncmed, nlmed
        Columns and rows of the box of the median, which is subtracted.
    ncsig, nlsig
        Columns and rows of the box, or block, in which the scatter is measured.
    lsigma, hsigma
        How many standard deviations below and above the median a bad pixel is; 9 if None, 6 with IRAF's flavor.
    ngood
        Longest good stretch of a column that is flagged between bad pixels; with IRAF's flavor one less.
    flavor
        ``"iraf"`` finds what IRAF's task does: medians whose box is pushed inside at the edge, scatter in blocks (the distance of
        the percentiles, not half of it), then sums over stretches of columns, which find what no single pixel shows.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.DataArray
        Lazy booleans, True is bad, for `add_mask`; one task per chunk with a halo of half of both boxes, or whole blocks.
        IRAF's flavor reads whole columns: chunks of whole columns are cheapest.
        Pixels that are not finite are bad and left out of median and scatter; a mask of the frame is not used.

    Raises
    ------
    ParameterError
        Raised if a size is not a whole number above 0, ``ngood`` is below 0, or IRAF's flavor is asked for with
        ``findbadcolumns`` or ``byblocks``.

    Notes
    -----
    ccdproc's definition, after IRAF's task: the scatter is half of the distance between the percentiles 30.9 and 69.1. IRAF's
    flavor is bit for bit noao.imred.ccdred.ccdmask of IRAF 2.17.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.random.default_rng(0).normal(1.0, 0.01, (40, 40))
    >>> pixels[20, 7] = 0.5
    >>> np.argwhere(ccdmask(pixels))
    array([[20,  7]])
    """
    image = resolve(ratio)
    median, sigma = normalize_box((nlmed, ncmed), "(nlmed, ncmed)"), normalize_box((nlsig, ncsig), "(nlsig, ncsig)")
    ngood = normalize_integer(ngood, "ngood")
    if flavor not in {"ccdproc", "iraf"}:
        raise ParameterError(f"flavor {flavor!r} must be 'ccdproc' or 'iraf'.")
    usual = 6.0 if flavor == "iraf" else 9.0  # the defaults of IRAF's task and of ccdproc's function
    limits = (
        normalize_number(usual if lsigma is None else lsigma, "lsigma"),
        normalize_number(usual if hsigma is None else hsigma, "hsigma"),
    )
    shared = {"median_size": median, "sigma_size": sigma, "limits": limits, "ngood": ngood, "shape": image.shape}
    if flavor == "iraf":
        if findbadcolumns or byblocks:
            raise ParameterError(
                "flavor 'iraf' always looks at blocks and columns; leave out findbadcolumns and byblocks."
            )
        # sums over stretches of columns find what no single pixel shows, so a chunk needs its columns from end to end
        columns = Lattice((image.shape[0], sigma[1]), (0, median[1] - 1), whole=True)
        rows = image.shape[0]
        bands = regular_grid(image.shape, (rows, max(sigma[1], CHUNK_PIXELS // rows // sigma[1] * sigma[1])))
        return _mask_of(replace(image, grid=bands), iraf_filters.find_bad, columns, shared)
    # a gap is filled between bad pixels that are themselves found from their surroundings: both reaches add up
    rows = 2 * (ngood + 1) if findbadcolumns else 0
    reach = (rows + median[0] // 2, median[1] // 2)
    footprint: Footprint = Halo((reach[0] + sigma[0] // 2, reach[1] + sigma[1] // 2))
    if byblocks:
        footprint = Lattice(sigma, reach)
    return _mask_of(
        image, bad_pixels.find_bad, footprint, {**shared, "by_blocks": bool(byblocks), "columns": bool(findbadcolumns)}
    )


def _mask_of(image: Image, kernel: Kernel, footprint: Footprint, params: dict[str, Any]) -> xr.DataArray:
    """Return the booleans that a kernel makes of the data of an image."""
    plan = Apply(
        image.shape,
        make_dtypes(data=bool),
        kernel=kernel,
        sources=(Input(image.plan, footprint),),
        params=make_params(**params),
        # what is left of the pixels, their background, two percentiles and temporaries
        scratch_bytes=7 * image.dtype.itemsize,
    )
    return replace(image, plan=plan).to_dataset()[DATA].drop_attrs()


@operation()
def grow_mask(ccd: xr.Dataset, planes: str, radius: float, *, add_keyword: LogEntry = True) -> xr.Dataset:
    """Grow mask planes by a disc.

    Parameters
    ----------
    ccd
        A frame with a mask, or a CCDData (then a computed CCDData is returned; its mask is the plane ``BAD``).
    planes
        Which planes grow, such as ``"SAT"`` or ``"SAT+CR"``; each keeps its name.
    radius
        Pixels whose centre is at most so far from one that has the plane get it too.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo the radius rounded down; data and uncertainty as before.

    Raises
    ------
    ParameterError
        Raised if there is no mask, a plane is unknown or the radius negative.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> mask = np.zeros((5, 5), bool)
    >>> mask[2, 2] = True
    >>> grow_mask(CCDData(np.ones((5, 5)), unit="adu", mask=mask), "BAD", 1).mask.astype(int)[1:4, 1:4]
    array([[0, 1, 0],
           [1, 1, 1],
           [0, 1, 0]])
    """
    image = resolve(ccd)
    if not image.has_mask:
        raise ParameterError("grow_mask() needs a frame with a mask; see add_mask.")
    return grown(image, planes, normalize_number(radius, "radius", 0.0)).to_dataset()


def grown(image: Image, planes: str, radius: float) -> Image:
    """Return an image whose mask planes are grown by a disc."""
    # more than the image changes nothing, and infinity has no halo
    radius = min(radius, float(sum(image.shape)))
    plan = image.apply(
        bad_pixels.grow_flags,
        (Input(image.plan, Halo((int(radius), int(radius)))),),
        dict(image.plan.planes),
        bits=image.schema.select(planes),
        radius=radius,
    )
    return replace(image, plan=plan)


@operation()
def interpolate_bad_pixels(
    ccd: xr.Dataset,
    bad: str | None = None,
    axis: Literal["y", "x"] | None = None,
    reach: int = 32,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Fill bad pixels by linear interpolation between their nearest good neighbours.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    bad
        Which mask planes are filled, such as ``"BAD+CR"``; all that count as bad if None. NaN always is.
    axis
        Interpolate along ``"x"``, within rows, or along ``"y"``, within columns; None takes for each pixel the shorter gap, as
        IRAF's fixpix does.
    reach
        How many pixels away good ones are looked for.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo ``reach``. Filled pixels keep their planes and get ``INTERP``; their variance is the
        larger one of the two neighbours. With a good pixel on one side only, its value is taken; without any within reach,
        nothing changes.

    Raises
    ------
    ParameterError
        Raised if the axis is unknown or ``reach`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.array([[1.0, 0.0, 0.0, 7.0]]), unit="adu", mask=np.array([[0, 1, 1, 0]]))
    >>> interpolate_bad_pixels(ccd).data
    array([[1., 3., 5., 7.]])
    """
    image = resolve(ccd)
    if axis not in ("y", "x", None):
        raise ParameterError(f"axis {axis!r} must be 'y', 'x' or None.")
    reach = normalize_integer(reach, "reach", 1)
    # without an axis the shorter of both gaps counts, and only pixels along both axes tell which one that is
    halo = (reach if axis != "x" else 0, reach if axis != "y" else 0)
    plan = image.apply(
        bad_pixels.interpolate,
        (Input(image.plan, Halo(halo), FILLED),),
        dict(image.plan.planes) | {"mask": image.schema.dtype},
        bad_bits=image.schema.select(bad),
        flag=image.schema.bits("INTERP"),
        axes=(axis != "x", axis != "y"),
        reach=reach,
        mask_dtype=image.schema.dtype.name,
    )
    return replace(image, plan=plan).to_dataset()
