"""Subtract the sky of a frame: one level, or a smooth surface through the levels of boxes.

The boxes lie on a lattice that begins at pixel (0, 0) of the image, and the surface is a scalar of the plan: tasks find it
once, from one pass over the frame, and every chunk subtracts the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from lazyccd.errors import ParameterError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.kernels import sky as kernels
from lazyccd.kernels.block import Array
from lazyccd.ops.decorator import operation
from lazyccd.ops.filters import normalize_box
from lazyccd.plan.chunks import REDUCTION_TILE
from lazyccd.plan.steps import Input, Reduction, Scalar, ScalarCard, make_params
from lazyccd.sections import Region

Sky: TypeAlias = Literal["mesh", "constant"]

FILLED = 0.5
"""Part of a whole box that must be good, as in SExtractor; other boxes get the level of the nearest one that is."""

HEAD = 2
"""Numbers before the surface: median level and median standard deviation of the boxes."""


@operation()
def subtract_sky(
    ccd: xr.Dataset, method: Sky = "mesh", box: int | tuple[int, int] = 64, *, add_keyword: LogEntry = True
) -> xr.Dataset:
    """Subtract the sky background.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    method
        ``"mesh"`` for a smooth surface through the levels of boxes, ``"constant"`` for the median of these.
    box
        Rows and columns of a box, one number for both; larger than the largest object. Boxes are counted from pixel (0, 0).
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; dtype, units, mask and uncertainty as before. The surface is one for the whole frame,
        the same for any chunks, and is found by reading the frame once; when the frame is settled or written, the header gets
        its median as ``SKYLEVEL``, and the standard deviation of the sky in a box as ``SKYSIGMA``. A frame without a good pixel
        stays as it is.

    Raises
    ------
    ParameterError
        Raised if the method is not one of these, or the box is not a whole number of pixels above 0.

    See Also
    --------
    lazyccd.coadd

    Notes
    -----
    The level of a box is SExtractor's: ``2.5 median - 1.5 mean`` of what is left after clipping at three standard deviations from
    the median, or the median, where mean and median differ by more than 0.3 standard deviations. Boxes of which less than half is
    good get the level of the nearest other one. The levels are median-filtered in 3 x 3, beyond the edge of the frame as if they
    went on straight, and the surface through them is a natural bicubic spline.

    References
    ----------
    Bertin, E. and Arnouts, S. (1996), A&AS 117, 393. Levels are those of photutils' ``SExtractorBackground``; sep's differ by
    hundredths of the noise, because it clips a histogram.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> y, x = np.mgrid[:96, :96]
    >>> ccd = CCDData(100 + 0.5 * x, unit="electron")
    >>> abs(subtract_sky(ccd, box=16).data).max() < 10
    np.True_
    """
    image = resolve(ccd)
    return without_sky(image, method, box).to_dataset()


def without_sky(image: Image, method: Sky, box: int | tuple[int, int] = 64) -> Image:
    """Return an image less its sky; see `subtract_sky`."""
    if method not in {"mesh", "constant"}:
        raise ParameterError(f"method {method!r} must be 'mesh' or 'constant'.")
    ny, nx = (min(side, length) for side, length in zip(normalize_box(box, "box"), image.shape, strict=True))
    # whole boxes, as many as make a tile of the usual size
    tile = (ny * max(1, REDUCTION_TILE[0] // ny), nx * max(1, REDUCTION_TILE[1] // nx))
    reduction = Reduction(
        image.plan,
        partial=kernels.sky_boxes,
        final=sky_surface if method == "mesh" else sky_constant,
        params=make_params(box=(ny, nx), bad_bits=image.schema.bad_bits, across=-(-image.shape[1] // tile[1])),
        planes=frozenset({"data", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        tile=tile,
    )
    cards = (
        ScalarCard("SKYLEVEL", 0, "median level of the sky that was subtracted"),
        ScalarCard("SKYSIGMA", 1, "standard deviation of the sky in a box"),
    )
    plan = image.apply(
        kernels.subtract_surface,
        (Input(image.plan),),
        dict(image.plan.planes),
        scalars=(("sky", Scalar(reduction=reduction, what="sky of a frame", cards=cards)),),
        nodes=(max(2, -(-image.shape[0] // ny)), max(2, -(-image.shape[1] // nx))),
        box=(ny, nx),
        head=HEAD,
    )
    return replace(image, plan=plan)


def sky_surface(partials: Sequence[Array], *, box: tuple[int, int], across: int, **_: object) -> Array:
    """Return the surface through the levels of boxes, as `subtract_surface` takes it.

    Parameters
    ----------
    partials
        What `sky_boxes` returned for each tile, row by row.
    box
        Rows and columns of a box.
    across
        How many tiles lie in a row.
    """
    levels, deviations = _filled(partials, box, across)
    # turned about the edge, so that a slope goes on: with what SExtractor does there, it would be cut off
    padded = np.pad(levels, 1, mode="reflect", reflect_type="odd")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, (3, 3)), axis=(2, 3))
    for axis in (0, 1):
        # a surface needs two nodes along each axis, and of one level it is flat
        smooth = np.repeat(smooth, 2, axis=axis) if smooth.shape[axis] == 1 else smooth
    along_y, along_x = _bends(smooth, 0), _bends(smooth, 1)
    surface = np.stack([smooth, along_y, along_x, _bends(along_y, 1)])
    return np.concatenate([[np.median(smooth), np.median(deviations)], surface.ravel()])


def sky_constant(partials: Sequence[Array], *, box: tuple[int, int], across: int, **_: object) -> Array:
    """Return the median of the levels of boxes as a flat surface; see `sky_surface`."""
    levels, deviations = _filled(partials, box, across)
    level = np.median(levels)
    shape = (4, *(max(2, n) for n in levels.shape))
    surface = np.zeros(shape)
    surface[0] = level
    return np.concatenate([[level, np.median(deviations)], surface.ravel()])


def _filled(partials: Sequence[Array], box: tuple[int, int], across: int) -> tuple[Array, Array]:
    """Return the levels and standard deviations of all boxes, those that are too bad from the nearest good one."""
    from scipy.ndimage import distance_transform_edt  # takes a while, and few plans need it

    rows = [np.concatenate(partials[k : k + across], axis=1) for k in range(0, len(partials), across)]
    levels, deviations, count = np.moveaxis(np.concatenate(rows), -1, 0)
    good = count >= FILLED * box[0] * box[1]
    if not good.any():
        # a frame with few good pixels: what there is tells more than nothing
        good = count > 0
    if not good.any():
        return np.zeros(levels.shape), np.zeros(levels.shape)
    nearest = distance_transform_edt(~good, return_distances=False, return_indices=True)
    return levels[tuple(nearest)], deviations[tuple(nearest)]


def _bends(values: Array, axis: int) -> Array:
    """Return the second derivatives of natural cubic splines at their nodes, which are one apart."""
    from scipy.interpolate import CubicSpline

    nodes = np.arange(values.shape[axis])
    return np.asarray(CubicSpline(nodes, values, axis=axis, bc_type="natural")(nodes, 2))
