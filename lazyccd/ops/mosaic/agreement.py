"""Whether the frames of a mosaic are on the flux scales that they state, looked at before anything is rejected.

A frame that is off its scale differs from the others in every star, and a rejection would take it, or them, out of all stars.

1. What stands out in a sample of each frame is a scalar of its own (`flux_agreement`): in squares of the grid, the same for all
   frames, and of at most about a million pixels.
2. A task compares the frames that lie on its chunk, and no others (`FluxAgreement`): a cut-out reads nothing else.
3. Where few stars stand out nothing is known, and nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lazyccd.frame.core import Image
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping, positions_between
from lazyccd.kernels.block import Array, Block
from lazyccd.kernels.resample.cells import sum_cells
from lazyccd.ops.mosaic.flux import Bright, bright_cells, check_flux, flux_ratios
from lazyccd.ops.mosaic.overlaps import frame_means
from lazyccd.ops.mosaic.placed import Placed
from lazyccd.ops.mosaic.warp import SkyGrid, scale_of
from lazyccd.ops.stack.inputs import Given
from lazyccd.plan.steps import Reduction, Scalar, make_params
from lazyccd.sections import Region

CELL = 8
"""Side of a cell in pixels of the frames: a star, which lies on up to nine cells, is at most as wide."""

SQUARE = 64
"""Cells along the side of a square of the sample."""

MOST_PIXELS = 2**20
"""Pixels of a frame above which only some of the squares are looked at."""


@dataclass(frozen=True)
class FluxAgreement:
    """The frames of a mosaic, which must be on the scales that they state."""

    names: tuple[str, ...]
    """What the frames are called."""

    def check(self, frames: Sequence[int], multipliers: Array, scalars: Mapping[str, Array]) -> None:
        """Raise an error if one of some frames is off its scale by more than a fifth, and surely so.

        Raises
        ------
        ParameterError
            Raised with the name of that frame.
        """
        found = tuple(np.asarray(scalars[scalar_name(k)]).tobytes() for k in frames)
        _check(tuple(self.names[k] for k in frames), tuple(multipliers.tolist()), found)


@lru_cache(maxsize=64)  # the bands of a task, and often its neighbours, have the same frames
def _check(names: tuple[str, ...], multipliers: tuple[float, ...], found: tuple[bytes, ...]) -> None:
    """Compare what stands out in frames."""
    bright = []
    for factor, one in zip(multipliers, found, strict=True):
        place, flux = np.frombuffer(one).reshape(2, -1)
        bright.append(Bright(place.astype(np.int64), flux * factor))
    check_flux(flux_ratios(bright), names, np.array(multipliers))


def scalar_name(number: int) -> str:
    """Return the name of the scalar of a frame."""
    return f"bright_{number}"


def flux_agreement(given: Given, placed: Placed) -> tuple[FluxAgreement | None, tuple[tuple[str, Scalar], ...]]:
    """Return what is held against frames, and what stands out in a sample of each, as scalars by name; nothing of one frame."""
    # positions on a grid of another kind cannot be had from those in frames
    if len(given.images) < 2 or not hasattr(placed.grid.wcs, "wcs"):
        return None, ()
    images, sources, grid = given.images, placed.sources, placed.grid
    # of pixels of the grid in one of a frame
    scale = float(np.median([scale_of(source) for source in sources])) / scale_of(grid.wcs)
    cell = 2 ** max(round(math.log2(CELL * scale)), 0)
    pixels = float(np.median([image.shape[0] * image.shape[1] for image in images]))
    across = math.ceil(math.sqrt(pixels) / (CELL * SQUARE)) + 1
    every = 1 if pixels <= MOST_PIXELS else math.ceil(across * CELL * SQUARE / math.sqrt(MOST_PIXELS))
    samples = tuple(
        (scalar_name(k), _sample(image, source, place, grid, cell, every))
        for k, (image, source, place) in enumerate(zip(images, sources, placed.places, strict=True))
    )
    return FluxAgreement(tuple(given.labels)), samples


def _sample(image: Image, source: Any, place: Region, grid: SkyGrid, cell: int, every: int) -> Scalar:
    """Return what stands out in some squares of the grid in a frame."""
    side = cell * SQUARE
    rows, columns = (
        [k for k in range(first // side, -(-stop // side)) if k % every == 0]
        for first, stop in ((place.y0, place.y1), (place.x0, place.x1))
    )
    squares = [
        Region(r * side, (r + 1) * side, c * side, (c + 1) * side).intersect(place) for r in rows for c in columns
    ]
    parts = _parts(squares, source, image.shape, grid)
    if not parts:
        return Scalar(given=np.empty((2, 0)), what="stars of a frame")
    reduction = Reduction(
        image.plan,
        partial=bright_in_square,
        final=all_bright,
        params=make_params(
            coordinates=SkyMapping(FrozenWCS.of(source), grid.frozen, grid.shape),
            cell=(cell, cell),
            squares=tuple(parts.items()),
            bad_bits=image.schema.bad_bits,
            has_variance=image.has_variance,
        ),
        planes=frozenset({"data", "variance", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        parts=tuple(parts),
    )
    return Scalar(reduction=reduction, what="stars of a frame")


def _parts(squares: Sequence[Region], source: Any, shape: tuple[int, int], grid: SkyGrid) -> dict[Region, Region]:
    """Return squares by the part of a frame that lies on each."""
    if not squares:
        return {}
    edges = np.array(
        [[(s.y0, (s.y0 + s.y1 - 1) / 2, s.y1 - 1), (s.x0, (s.x0 + s.x1 - 1) / 2, s.x1 - 1)] for s in squares]
    )
    y, x = np.broadcast_arrays(edges[:, 0, :, None], edges[:, 1, None, :])
    found = np.stack(positions_between(grid.wcs, source, shape)(y.ravel(), x.ravel())).reshape(2, len(squares), -1)
    parts: dict[Region, Region] = {}
    # a part that is too small costs some cells of the sample: what is not covered whole is left out
    for square, positions in zip(squares, np.moveaxis(found, 1, 0), strict=True):
        if not np.isfinite(positions).all():
            continue
        (y0, x0), (y1, x1) = np.floor(positions.min(axis=1)) - 1, np.ceil(positions.max(axis=1)) + 2
        part = Region(int(y0), int(y1), int(x0), int(x1)).clip(shape)
        if part.size:
            parts[part] = square
    return parts


def bright_in_square(
    block: Block,
    *,
    coordinates: SkyMapping,
    cell: tuple[int, int],
    squares: tuple[tuple[Region, Region], ...],
    bad_bits: int,
    has_variance: bool,
) -> Array:
    """Return place and flux of what stands out in a square of the grid, shape ``(2, n)``; see `bright_cells`.

    Parameters
    ----------
    block
        A part of the frame.
    coordinates
        Where its pixels lie on the grid.
    cell
        Rows and columns of a cell.
    squares
        The square of the grid that lies on each part.
    bad_bits
        Bits of the mask that leave a pixel out.
    has_variance
        Whether noise is that of variances; else cells are compared with the scatter of all.
    """
    y0, y1, x0, x1 = dict(squares)[block.region]
    first, stop = (y0 // cell[0], x0 // cell[1]), (-(-y1 // cell[0]), -(-x1 // cell[1]))
    place = (*first, stop[0] - first[0], stop[1] - first[1])
    sums = sum_cells(block, coordinates=coordinates, cell=cell, place=place, bad_bits=bad_bits)
    values, variances = frame_means([sums], cell=cell, has_variance=has_variance)
    bright = bright_cells(values, variances if has_variance else 0 * variances, first, wide=True)
    return np.stack([bright.place.astype(float), bright.flux])


def all_bright(partials: Sequence[Array], **_: object) -> Array:
    """Return what stands out in all squares, by place."""
    found = np.concatenate(partials, axis=1)
    return found[:, np.argsort(found[0])]
