"""The pixel grid on which frames fit."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ParameterError, warn
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


class GridWarning(UserWarning):
    """A grid is much larger than its frames need, most often because the WCS of one of them is wrong."""


class PlacedFrame(NamedTuple):
    """Where an image lies on the sky."""

    wcs: Any
    """Its celestial WCS."""

    shape: tuple[int, int]
    """Rows and columns."""

    label: str
    """What messages call it, such as its file."""

    @property
    def middle(self) -> str:
        """Right ascension and declination of its middle, as text."""
        x, y = (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2
        sky = self.wcs.pixel_to_world(x, y).icrs
        return f"{self.label} at {sky.ra.deg:.4f}, {sky.dec.deg:+.4f}"


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

    Warns
    -----
    GridWarning
        A frame has pixels more than 20 times as large as those of another, or frames fill less than a 20th of a large grid.

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
    longitude, latitude, reach, farthest = _middle(placed)
    scales = [scale_of(frame.wcs) for frame in placed]
    scale = min(scales) if pixel_scale is None else degrees_of("pixel_scale", pixel_scale)
    _check_scales(placed, scales, pixel_scale)
    _check_size(scale, reach, farthest)
    grid = make_grid(longitude, latitude, scale, projection or ("TAN" if reach <= WIDEST else "ZEA"))
    boxes = np.array([footprint_edges(frame.wcs, frame.shape, grid) for frame in placed])
    low, high = boxes[:, ::2].min(axis=0), boxes[:, 1::2].max(axis=0)
    rows, columns = (max(math.ceil(side), 1) for side in high - low - SLIVER)
    filled = sum(math.prod(frame.shape) * (own / scale) ** 2 for frame, own in zip(placed, scales, strict=True))
    if rows * columns > max(LARGE, SPARSE * filled):
        warn(
            f"the grid has {rows} x {columns} pixels, of which frames fill at most {100 * filled / (rows * columns):.2g} %, since frames lie up "
            f"to {reach:.3g} degrees from their middle, the farthest {farthest.middle}; look at its CRVAL, or make a grid for each group.",
            GridWarning,
        )
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


def _check_scales(placed: Sequence[PlacedFrame], scales: Sequence[float], given: object) -> None:
    """Raise an error for a scale that is in degrees and meant in arcseconds, and warn of frames whose scales are far apart."""
    finest, coarsest = int(np.argmin(scales)), int(np.argmax(scales))
    if given is not None and not isinstance(given, u.Quantity):
        scale = degrees_of("pixel_scale", given)
        if scale > COARSEST * scales[finest]:
            raise ParameterError(
                f"pixel_scale {given!r} is in degrees, {scale / scales[finest]:.0f} times that of the frames; give it with a unit, such "
                f"as {given!r} * u.arcsec."
            )
    if scales[coarsest] > SPARSE * scales[finest]:
        small, large = (f"{placed[i].label} has pixels of {3600 * scales[i]:.3g} arcsec" for i in (finest, coarsest))
        warn(f"{large} and {small}; look at CDELT or CD and CUNIT of both.", GridWarning)


def _check_size(scale: float, reach: float, farthest: PlacedFrame) -> None:
    """Raise an error with the likely cause if a grid would have far too many pixels."""
    pixels = (2 * reach / scale) ** 2
    if pixels > LARGEST:
        cause = (
            f"the frames lie far apart on the sky, the farthest {farthest.middle}; look at its CRVAL and CUNIT, make a grid for each group of "
            "frames, or use sky_cells()"
            if reach > 1
            else "give a larger pixel_scale, or look at CDELT or CD and CUNIT"
        )
        raise ParameterError(
            f"the grid would have {pixels:.2g} pixels of {3600 * scale:.3g} arcsec, since frames lie up to {reach:.3g} degrees from their "
            f"middle: {cause}."
        )


SPARSE = 20
"""Times by which pixels of frames may differ, and a grid may have more pixels than its frames."""

LARGE = 2**24
"""Pixels of a grid of which nobody needs to be warned: it is written in a second."""

COARSEST = 100
"""Times by which a scale without a unit may be coarser than the frames; 3600 if arcseconds were meant."""


def placed_frames(frames: Any) -> list[PlacedFrame]:
    """Return where each of some frames, trees of such, or names of files lies."""
    found = []
    for given in _several(frames):
        label = str(os.fspath(given)) if isinstance(given, str | os.PathLike) else "the frame"
        for frame in _frames(given):
            image = resolve(frame)
            name = file_name(image.plan) or label
            found.append(PlacedFrame(celestial_wcs(image, name), image.shape, name))
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
            f"projection {projection!r} is none of FITS; give three capital letters such as 'TAN' or 'ZEA'."
        ) from None
    return wcs


def _directions(wcs: Any, shape: tuple[int, int]) -> Array:
    """Return unit vectors in ICRS to points of an image, shape ``(3, n)``."""
    y, x = (v.ravel() for v in sampled(shape))
    sky = wcs.pixel_to_world(x, y).icrs
    vectors = sky.cartesian.xyz.value
    return np.asarray(vectors[:, np.isfinite(vectors).all(axis=0)])


def _middle(placed: Sequence[PlacedFrame]) -> tuple[float, float, float, PlacedFrame]:
    """Return longitude and latitude of the middle of images, the degrees from it to the farthest point, and the image that has it.

    Each image counts alike, however many points it was looked at.
    """
    directions = [_directions(frame.wcs, frame.shape) for frame in placed]
    means = np.array([vectors.mean(axis=1) for vectors in directions])
    total = means.sum(axis=0) / len(directions)
    length = float(np.linalg.norm(total))
    if length < 0.01:
        other = placed[int(np.argmin(means @ means[0]))]
        raise ParameterError(
            f"the frames lie all around the sky, so they have no middle ({placed[0].middle}, {other.middle}): look at their CRVAL, or give "
            "the grid by wcs=, such as one in projection CAR or AIT."
        )
    total /= length
    cosines = np.array([(total @ vectors).min() for vectors in directions])
    longitude, latitude = np.arctan2(total[1], total[0]), np.arcsin(np.clip(total[2], -1, 1))
    reach = np.rad2deg(np.arccos(np.clip(cosines, -1, 1)))
    farthest = int(np.argmax(reach))
    return float(np.rad2deg(longitude) % 360), float(np.rad2deg(latitude)), float(reach[farthest]), placed[farthest]
