"""The pixel grid on which frames fit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ParameterError
from lazyccd.frame.core import resolve
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.sky_mapping import footprint_edges, footprint_pixels, sampled, shifted
from lazyccd.frame.tree import frames_of
from lazyccd.io import as_frame
from lazyccd.kernels.block import Array
from lazyccd.ops.mosaic.warp import LARGEST, celestial_wcs, normalize_shape, scale_of
from lazyccd.plan.steps import file_name

if TYPE_CHECKING:
    from astropy.nddata import CCDData
    from astropy.wcs import WCS

Frame: TypeAlias = "xr.Dataset | xr.DataTree | CCDData | str | os.PathLike[str]"

WIDEST = 60.0
"""Degrees from the middle of the frames up to which the tangent plane serves: there it stretches pixels by a factor of four."""


def find_optimal_grid(
    frames: Frame | Iterable[Frame],
    *,
    pixel_scale: float | u.Quantity | None = None,
    projection: str | None = None,
) -> tuple[WCS, tuple[int, int]]:
    """Return a WCS and a shape that hold all of some frames.

    Parameters
    ----------
    frames
        Frames with celestial WCS, trees of such, or names of files; one or several. No pixel is read.
    pixel_scale
        Side of a pixel of the grid, a quantity or in degrees; None takes the smallest of the frames.
    projection
        Three letters, such as ``"TAN"`` or ``"ZEA"``. None takes TAN, and ZEA for frames more than 60 degrees from their middle.

    Returns
    -------
    astropy.wcs.WCS
        North is up and east to the left; right ascension and declination in ICRS. The reference point is the middle of the
        frames on the sphere, so that neither a pole nor the place where right ascension begins anew makes a difference.
    tuple of int
        Rows and columns.

    Raises
    ------
    ParameterError
        Raised if there is no frame, the scale is no angle, the projection has no WCS, the frames lie all around the sky and have
        no middle, or the grid would have more pixels than can be meant.
    FrameError
        Raised if a frame has no celestial WCS.

    Examples
    --------
    >>> import numpy as np, lazyccd
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> wcs = WCS(
    ...     {
    ...         "CTYPE1": "RA---TAN",
    ...         "CTYPE2": "DEC--TAN",
    ...         "CDELT1": -0.01,
    ...         "CDELT2": 0.01,
    ...         "CRPIX1": 50.5,
    ...         "CRPIX2": 50.5,
    ...     }
    ... )
    >>> frames = []
    >>> for longitude in (359.7, 0.3):
    ...     wcs.wcs.crval = longitude, 10
    ...     frames.append(lazyccd.from_ccddata(CCDData(np.ones((100, 100)), unit="adu", wcs=wcs.deepcopy())))
    >>> grid, shape = lazyccd.find_optimal_grid(frames)
    >>> shape
    (101, 160)
    """
    placed = placed_frames(frames)
    if not placed:
        raise ParameterError("find_optimal_grid() got no frame; give at least one.")
    longitude, latitude, reach = _middle([_directions(wcs, shape) for wcs, shape in placed])
    finest = min(scale_of(wcs) for wcs, _ in placed)
    scale = finest if pixel_scale is None else degrees_of("pixel_scale", pixel_scale)
    _check_size(scale, finest, reach, pixel_scale)
    grid = make_grid(longitude, latitude, scale, projection or ("TAN" if reach <= WIDEST else "ZEA"))
    boxes = np.array([footprint_edges(wcs, shape, grid) for wcs, shape in placed])
    low, high = boxes[:, ::2].min(axis=0), boxes[:, 1::2].max(axis=0)
    rows, columns = (max(math.ceil(side), 1) for side in high - low - SLIVER)
    # nothing says where a pixel has to begin: so that one frame has as many as it had
    first = (low + high - (rows, columns)) / 2
    return shifted(grid, first[0], first[1]), normalize_shape((rows, columns))


SLIVER = 0.01
"""Pixels of the frames at the edges of a grid for which no row or column is added: projections differ by less over a frame."""


def bounded(grid: Any, placed: Sequence[tuple[Any, tuple[int, int]]]) -> tuple[Any, tuple[int, int]]:
    """Return a WCS with its reference pixel moved, and the shape, such that all images just lie on it.

    Parameters
    ----------
    grid
        The WCS of the grid.
    placed
        WCS and shape of each image.
    """
    boxes = np.array([footprint_pixels(wcs, shape, grid) for wcs, shape in placed])
    (y0, x0), (y1, x1) = boxes[:, ::2].min(axis=0), boxes[:, 1::2].max(axis=0)
    return shifted(grid, int(y0), int(x0)), normalize_shape((int(y1 - y0), int(x1 - x0)))


def _check_size(scale: float, finest: float, reach: float, given: object) -> None:
    """Raise an error with the likely cause if a grid would have far too many pixels, or too few."""
    if not isinstance(given, u.Quantity) and scale > COARSEST * finest:
        raise ParameterError(
            f"pixel_scale {given!r} is in degrees, {scale / finest:.0f} times that of the frames; give it with a unit, such as "
            f"{given!r} * u.arcsec."
        )
    pixels = (2 * reach / scale) ** 2
    if pixels > LARGEST:
        cause = (
            "the frames lie far apart on the sky, so make a grid for each group of them, or use sky_cells()"
            if reach > 1
            else "look at pixel_scale"
        )
        raise ParameterError(
            f"the grid would have {pixels:.2g} pixels of {scale:.3g} degrees, since frames lie up to {reach:.3g} degrees from their "
            f"middle: {cause}."
        )


COARSEST = 100
"""Times by which a scale without a unit may be coarser than the frames; 3600 if arcseconds were meant."""


def placed_frames(frames: Any) -> list[tuple[Any, tuple[int, int]]]:
    """Return WCS and shape of each of some frames, trees of such, or names of files."""
    found = []
    for given in _several(frames):
        label = str(os.fspath(given)) if isinstance(given, str | os.PathLike) else "the frame"
        for frame in _frames(given):
            image = resolve(frame)
            found.append((celestial_wcs(image, file_name(image.plan) or label), image.shape))
    return found


def _several(frames: Any) -> Iterable[Any]:
    """Return frames, trees or names as several, also if there is one."""
    is_one = isinstance(frames, xr.Dataset | xr.DataTree | str | os.PathLike) or is_ccddata(frames)
    return [frames] if is_one else frames


def degrees_of(name: str, angle: object) -> float:
    """Return an angle in degrees.

    Raises
    ------
    ParameterError
        Raised if it is none, with the name of the argument.
    """
    try:
        degrees = float(u.Quantity(angle, u.deg).value)
    except (TypeError, ValueError):  # a UnitConversionError is both
        degrees = math.nan
    if not 0 < degrees < 180:
        raise ParameterError(f"{name} {angle!r} must be an angle or a number of degrees, between 0 and 180 degrees.")
    return degrees


def _frames(given: object) -> list[xr.Dataset]:
    """Return a frame, or those of a tree."""
    return list(frames_of(given).values()) if isinstance(given, xr.DataTree) else [as_frame(given)]


def make_grid(longitude: float, latitude: float, scale: float, projection: str) -> WCS:
    """Return a WCS about a point, whose pixel (0, 0) is there."""
    from astropy.wcs import WCS, InconsistentAxisTypesError

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.cdelt = [-scale, scale]
    wcs.wcs.crval = [longitude, latitude]
    wcs.wcs.crpix = [1, 1]
    wcs.wcs.radesys = "ICRS"
    try:
        wcs.wcs.set()
    except InconsistentAxisTypesError:
        raise ParameterError(
            f"projection {projection!r} is none of FITS; give three letters such as 'TAN' or 'ZEA'."
        ) from None
    return wcs


def _directions(wcs: Any, shape: tuple[int, int]) -> Array:
    """Return unit vectors in ICRS to points of an image, shape ``(3, n)``."""
    y, x = (v.ravel() for v in sampled(shape))
    sky = wcs.pixel_to_world(x, y).icrs
    vectors = sky.cartesian.xyz.value
    return np.asarray(vectors[:, np.isfinite(vectors).all(axis=0)])


def _middle(directions: Sequence[Array]) -> tuple[float, float, float]:
    """Return longitude and latitude of the middle of images, and the degrees from it to the farthest point.

    Each image counts alike, however many points it was looked at.
    """
    total = np.sum([vectors.mean(axis=1) for vectors in directions], axis=0) / len(directions)
    length = float(np.linalg.norm(total))
    if length < 0.01:
        raise ParameterError(
            "the frames lie all around the sky, so they have no middle; make the grid yourself, such as one in projection CAR or AIT."
        )
    total /= length
    cosines = np.concatenate([total @ vectors for vectors in directions])
    longitude, latitude = np.arctan2(total[1], total[0]), np.arcsin(np.clip(total[2], -1, 1))
    reach = np.arccos(np.clip(cosines.min(), -1, 1))
    return float(np.rad2deg(longitude) % 360), float(np.rad2deg(latitude)), float(np.rad2deg(reach))
