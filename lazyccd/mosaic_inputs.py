"""The inputs of a place of a mosaic: a table of the frames that lie there, and what each shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from lazyccd.errors import ParameterError, SectionError
from lazyccd.frame.core import Image
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping, wcs_of_thread
from lazyccd.kernels.assemble import paste
from lazyccd.kernels.block import Array, Request
from lazyccd.kernels.resample.cells import corrected
from lazyccd.kernels.stack.combine import combine_frames
from lazyccd.pixel_history import inputs_of_pixel, lower_region, near, with_inputs
from lazyccd.plan.footprints import Warped
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Apply, Stack, Step, file_name, walk
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

Position: TypeAlias = "SkyCoord | tuple[float, float]"


class Mosaic(NamedTuple):
    """A mosaic whose inputs are known."""

    image: Image
    step: Stack
    frames: int
    """How many frames it has; weights may follow in the stack."""


def frames_at(ccd: xr.Dataset, position: Position) -> Any:
    """Return a table of the frames that lie on a place of a mosaic, and what became of each there.

    Parameters
    ----------
    ccd
        What `coadd` gave, as it came: a cut-out of it or a file has its pixels alone.
    position
        An `astropy.coordinates.SkyCoord`, or row and column of the mosaic.

    Returns
    -------
    astropy.table.Table
        For each frame: its ``number`` among those that lie on the grid, from 1; its ``file``; the pixel of it that lies there, ``y``
        and ``x``; its ``weight`` and ``flux_scale``; the ``sky_correction`` that matching subtracts there after scaling; its
        ``value`` in the mosaic; whether it is ``used``, and a ``note`` that
        says why not. Computed now, for one pixel of each of these frames.

    Raises
    ------
    ParameterError
        Raised if the frame is no mosaic, or the position none.
    SectionError
        Raised if the position is not on the mosaic.

    Examples
    --------
    >>> import numpy as np, lazyccd
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01})
    >>> frames = [CCDData(np.zeros((3, 3)), unit="adu", wcs=wcs) for number in range(5)]
    >>> frames[4].data[1, 1] = 99
    >>> mosaic = lazyccd.coadd(frames, wcs, (3, 3), reject="clipped")
    >>> table = frames_at(mosaic, (1, 1))
    >>> table["number", "value", "note"].pformat(show_unit=False)[-2:]
    ['     4   0.0    used', '     5  99.0 clipped']
    """
    from astropy.table import Table  # takes long to import, and few need it

    mosaic = _mosaic(ccd)
    y, x = _pixel(mosaic, position)
    request = Request(Region(y, y + 1, x, x + 1), frozenset({"data", "mask"}))
    here = _touching(mosaic, request.region)
    mosaic = _near(mosaic, request.region)
    found = inputs_of_pixel(mosaic.step, request, mosaic.image)
    factors, corrections = _corrections(mosaic, here, y, x)
    pixels = [_source_pixel(mosaic.step.frames[i], y, x) for i in here]
    # where a frame lies is known to a few pixels
    rows = [row for row, pixel in enumerate(pixels) if pixel is not None]
    table = Table(
        {
            "number": np.array(here, int) + 1,
            "file": [file_name(mosaic.step.frames[i]) for i in here],
            "y": [-1 if pixel is None else pixel[0] for pixel in pixels],
            "x": [-1 if pixel is None else pixel[1] for pixel in pixels],
            "weight": found.scaling.weights[here],
            "flux_scale": found.scaling.multipliers[here] * factors,
            "sky_correction": corrections,
            "value": found.values,
            "used": [not note for note in found.notes],
            "note": [note or "used" for note in found.notes],
        },
        dtype=(int, str, int, int, float, float, float, float, bool, str),
    )
    return table[rows]


def stamps(ccd: xr.Dataset, position: Position, size: int | tuple[int, int]) -> xr.Dataset:
    """Return what each frame shows of a place of a mosaic, on the grid of the mosaic.

    Parameters
    ----------
    ccd
        What `coadd` gave, as it came.
    position
        The middle: an `astropy.coordinates.SkyCoord`, or row and column of the mosaic.
    size
        Rows and columns; what lies outside of the mosaic is cut off.

    Returns
    -------
    xr.Dataset
        Lazy ``data`` and ``mask``, and ``uncertainty`` if the frames have one, with dims (frame, y, x): the frames that lie there,
        before they are brought to one scale. The coordinates are ``number`` and ``file`` of each frame, and ``y`` and ``x``.

    Raises
    ------
    ParameterError
        Raised if the frame is no mosaic, the position none, or no frame lies there.
    SectionError
        Raised if the position is not on the mosaic.
    """
    mosaic = _mosaic(ccd)
    image = mosaic.image
    y, x = _pixel(mosaic, position)
    height, width = (size, size) if isinstance(size, int) else size
    y0, x0 = y - (height - 1) // 2, x - (width - 1) // 2
    region = Region(y0, y0 + height, x0, x0 + width).clip(image.shape)
    here = _touching(mosaic, region)
    mosaic = _near(mosaic, region)
    image = mosaic.image
    if not here:
        raise ParameterError(
            f"no frame of the mosaic lies on {region.to_fits()}; see where they do with maps=('coverage',)."
        )
    planes: list[str] = [name for name in ("data", "variance", "mask") if name in mosaic.step.frames[here[0]].dtypes]
    each = [lower_region(mosaic.step.frames[i], region, planes, image) for i in here]
    # one array for each plane: to put as many Datasets together takes longer than to make them
    cubes = {name: da.stack([arrays[k] for arrays in each]) for k, name in enumerate(planes)}
    if "variance" in cubes:
        cubes["uncertainty"] = np.sqrt(cubes.pop("variance"))
    cube = xr.Dataset({name: (("frame", "y", "x"), array) for name, array in cubes.items()})
    for name in cube.data_vars:
        cube[name].attrs = dict(ccd[name].attrs)
    files = [file_name(mosaic.step.frames[i]) for i in here]
    return cube.assign_coords(
        number=("frame", np.array(here) + 1),
        file=("frame", files),
        y=("y", image.y[region.y0 : region.y1]),
        x=("x", image.x[region.x0 : region.x1]),
    )


def _mosaic(ccd: xr.Dataset) -> Mosaic:
    """Return the mosaic that a frame is."""
    image = with_inputs(ccd)
    step = image.plan
    if not isinstance(step, Stack) or not step.places or step.kernel is not combine_frames:
        raise ParameterError(
            "the frame is not a mosaic as coadd() gives it, so its inputs are not known: keep that one beside what you cut out of it, "
            "compute or write."
        )
    return Mosaic(image, step, dict(step.params)["rule"].count)


def _near(mosaic: Mosaic, region: Region) -> Mosaic:
    """Return a mosaic of which nothing but a region will be asked."""
    image = near(mosaic.image, region)
    assert isinstance(image.plan, Stack)
    return mosaic._replace(image=image, step=image.plan)


def _pixel(mosaic: Mosaic, position: Position) -> tuple[int, int]:
    """Return the pixel of a mosaic in which a position lies."""
    image = mosaic.image
    if isinstance(position, tuple | list | np.ndarray):
        y, x = (float(number) for number in position)
    elif hasattr(position, "icrs"):
        # that of the grid, which is made once for all positions, and not that of the header
        x, y = (float(number) for number in wcs_of_thread(_grid_of(mosaic)).world_to_pixel(position))
    else:
        raise ParameterError(f"position {position!r} must be a SkyCoord, or row and column.")
    if not (-0.5 <= y < image.shape[0] - 0.5 and -0.5 <= x < image.shape[1] - 0.5):
        raise SectionError(
            f"the position is at row {y:.1f}, column {x:.1f}, and the mosaic has {image.shape[0]} x {image.shape[1]} pixels."
        )
    return int(np.floor(y + 0.5)), int(np.floor(x + 0.5))


def _grid_of(mosaic: Mosaic) -> FrozenWCS:
    """Return the WCS of the grid that the frames are resampled onto."""
    # from the last step on: what frames are compared with may lie on another grid
    for step in reversed(list(walk(mosaic.step.frames[0], into_stacks=False))):
        for footprint in step.footprints:
            if isinstance(footprint, Warped) and isinstance(footprint.coordinates, SkyMapping):
                return footprint.coordinates.target
    raise ParameterError("the frames of the mosaic lie on no grid of the sky; give row and column.")


def _touching(mosaic: Mosaic, region: Region) -> list[int]:
    """Return the numbers of the frames that may lie on a region, from 0."""
    return [i for i in mosaic.step.needed(Request(region, frozenset({"data"}))) if i < mosaic.frames]


def _corrections(mosaic: Mosaic, here: list[int], y: int, x: int) -> tuple[Array, Array]:
    """Return by what some frames are multiplied, and what is then subtracted at a pixel, where their overlaps were matched."""
    steps = [mosaic.step.frames[i] for i in here]
    factors, subtracted = np.ones(len(here)), np.zeros(len(here))
    matched = [(k, s) for k, s in enumerate(steps) if isinstance(s, Apply) and s.kernel is corrected]
    if not matched:
        return factors, subtracted
    # one for all frames
    scalar = dict(matched[0][1].scalars)["corrections"]
    rows = scalar.given if scalar.given is not None else compute(*lower_scalars([scalar], mosaic.image.graphs))[0]
    for k, step in matched:
        params = dict(step.params)
        factor, constant, slope_y, slope_x = rows[params["row"], :4]
        factors[k] = factor
        subtracted[k] = constant + slope_y * (y - params["middle"][0]) + slope_x * (x - params["middle"][1])
    return factors, subtracted


def _source_pixel(frame: Step, y: int, x: int) -> tuple[int, int] | None:
    """Return the pixel of a frame before it was resampled that lies on a pixel of the mosaic."""
    step: Step | None = frame
    pixel: tuple[int, int] | None = (y, x)
    while isinstance(step, Apply) and pixel is not None:
        below, pixel = step.pixels_below(*pixel)[0]
        if isinstance(step.footprints[0], Warped):
            return _before_pasting(below, pixel)
        step = below
    return None


def _before_pasting(step: Step, pixel: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the pixel of a frame that goes around the sky, which was continued or turned to be resampled."""
    if pixel is None or not (isinstance(step, Apply) and step.kernel is paste):
        return pixel
    return next((place for below, place in step.pixels_below(*pixel) if place is not None), None)
