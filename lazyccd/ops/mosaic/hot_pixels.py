"""Hot pixels of the frames of a mosaic, found on each frame's own pixels; see `lazyccd.kernels.hot_pixels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from lazyccd.frame.core import Image
from lazyccd.frame.sky_footprint import frame_place
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping, has_tables
from lazyccd.kernels.block import Array
from lazyccd.kernels.hot_pixels import FEWEST, REACH, low_values, without_hot_pixels
from lazyccd.kernels.stack.scaling import Levels
from lazyccd.kernels.stack.types import PixelBatch, Rejecting
from lazyccd.ops.mosaic.placed import Placed
from lazyccd.ops.mosaic.reference import FrameScale, reference, scale_of_frames, skies_of
from lazyccd.ops.mosaic.warp import SkyGrid
from lazyccd.ops.stack.combine import without_own_flags
from lazyccd.ops.stack.inputs import Given
from lazyccd.ops.stack.rejection import Rejection
from lazyccd.ops.stack.scaling import sampled_statistic
from lazyccd.plan.chunks import deepest
from lazyccd.plan.footprints import Halo, PlaneMap, Warped
from lazyccd.plan.steps import Apply, Input, Join, Scalar, make_dtypes, make_params

SAME_SCALE = 1.25
"""Pixels of the grid that are so many times as large as those of the frames at most, or as small, are as good as those."""


@dataclass(frozen=True)
class _Lowest(Rejection):
    """Combine the inputs of a pixel to a low value above their skies; it rejects nothing."""

    name: ClassVar[str] = "lowest"
    needs_skies: ClassVar[bool] = True

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Find the low values."""
        skies = np.zeros(len(batch.values)) if batch.skies is None else batch.skies[:, 0].copy()
        batch.combined = np.empty(batch.values.shape[1])
        low_values(batch.values, batch.use, skies, batch.combined)


def can_find_hot_pixels(placed: Placed) -> bool:
    """Return whether enough frames lie on one another, on a grid on which places of a frame can be found."""
    return (
        deepest(placed.grid.shape, placed.places) >= FEWEST
        and hasattr(placed.grid.wcs, "wcs")
        and not has_tables(placed.grid.wcs)
    )


def hot_pixels_left_out(
    given: Given, placed: Placed, levels: Levels, scalars: Sequence[tuple[str, Scalar]], *, measure: bool
) -> list[Image]:
    """Return frames that are NaN in their hot pixels.

    Parameters
    ----------
    given, placed
        The frames, and where they lie.
    levels, scalars
        The scales that they state.
    measure
        Whether scales are measured in the overlaps, from the frames as they are.
    """
    scale = scale_of_frames(given, placed, levels, scalars, measure=measure)
    own = _own_grid(given, placed)
    skies = skies_of(given.images, own.grid.shape)
    low = reference(given.images, own, scale, "average", rejecting=Rejecting(reject=_Lowest(), nkeep=0), skies=skies)
    return [_left_out(image, low, own, number, scale) for number, image in enumerate(given.images)]


def _own_grid(given: Given, placed: Placed) -> Placed:
    """Return the frames on the grid, if its pixels are about as large as theirs, else on one like it whose are; bilinear."""
    from astropy.wcs.utils import proj_plane_pixel_area  # takes long to import, and few operations need it

    wcs, shape = placed.grid.wcs, placed.grid.shape
    area = float(np.median([proj_plane_pixel_area(source) for source in placed.sources]))
    scale = float(np.sqrt(proj_plane_pixel_area(wcs) / area))
    if 1 / SAME_SCALE <= scale <= SAME_SCALE or wcs.sip is not None:
        return replace(placed, grid=SkyGrid(wcs, shape, "bilinear"))
    new = wcs.deepcopy()
    new.wcs.crpix = (wcs.wcs.crpix - 0.5) * scale + 0.5
    if new.wcs.has_cd():
        new.wcs.cd = wcs.wcs.cd / scale
    else:
        new.wcs.cdelt = wcs.wcs.cdelt / scale
    grid = SkyGrid(new, (int(np.ceil(shape[0] * scale)), int(np.ceil(shape[1] * scale))), "bilinear")
    places = tuple(
        frame_place(source, image.shape, grid.frozen, grid.shape)
        for source, image in zip(placed.sources, given.images, strict=True)
    )
    return replace(placed, grid=grid, places=places)


DATA_ALONE: PlaneMap = (("data", ("data",)),)

ALL_THREE: PlaneMap = (("data", ("data", "variance", "mask")),)


def _left_out(image: Image, low: Image, placed: Placed, number: int, scale: FrameScale) -> Image:
    """Return a frame that is NaN in its hot pixels."""
    from astropy.wcs.utils import proj_plane_pixel_area

    source: Any = placed.sources[number]
    # that of the frame as it is, which a rejection takes too: each reads the frame
    sky = sampled_statistic(image, "sky")
    # flags of what is not finite would hold for the data as they were
    image = replace(image, plan=without_own_flags(image))
    coordinates = SkyMapping(FrozenWCS.of(source), placed.grid.frozen, placed.grid.shape)
    data = Apply(
        image.shape,
        make_dtypes(data=image.dtype),
        kernel=without_hot_pixels,
        sources=(
            Input(image.plan, Halo((REACH, REACH)), ALL_THREE),
            # two pixels to each side, as far as a cubic reaches
            Input(low.plan, Warped(coordinates, "bicubic"), DATA_ALONE),
        ),
        params=make_params(
            coordinates=coordinates,
            area=float(proj_plane_pixel_area(placed.grid.wcs) / proj_plane_pixel_area(source)),
            levels=scale.levels,
            frame=number,
            bad_bits=image.schema.bad_bits,
        ),
        scalars=(("sky", sky), *scale.all_scalars),
    )
    parts = {name: (image.plan, name) for name, _ in image.plan.planes if name != "data"}
    return replace(image, plan=Join.of(**parts, data=(data, "data")), graphs=(*image.graphs, *low.graphs))
