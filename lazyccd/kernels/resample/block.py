"""Resample the planes of a frame: the kernel of the step that a warp is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.resample.interpolate import TILE, mark_flags, resample_cells
from lazyccd.kernels.resample.lattice import EMPTY, Coordinates, Patch, cells_of, patches
from lazyccd.kernels.resample.weights import TABLE, source_of, table, taps
from lazyccd.sections import Region


def resample(
    request: Request,
    a: Block | None,
    *,
    coordinates: Coordinates,
    shape: tuple[int, int],
    interpolation: str,
    ratio: float,
    bits: tuple[int, int, int],
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Return the pixels of an image on the pixels of another.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The input pixels of `source_region`; None where there are none.
    coordinates
        Where output pixels lie.
    shape
        Shape of the input.
    interpolation
        Name of the interpolation kernel.
    ratio
        What the data are multiplied by: the area of an output pixel in input pixels. The variance by its square.
    bits
        Bits by which an input pixel has no weight, the bit of pixels without data, and the bits that are carried on.
    dtype, mask_dtype
        Dtypes of the result.
    """
    out = {
        plane: np.empty(request.region.shape if plane in request.planes else (0, 0), kind)
        for plane, kind in (("data", dtype), ("variance", dtype), ("mask", mask_dtype))
    }
    if a is None:
        for plane in ("data", "variance"):
            out[plane].fill(np.nan)
        out["mask"].fill(bits[1])
    else:
        _fill(request.region, a, out, coordinates, shape, interpolation, bits)
        for plane, factor in (("data", ratio), ("variance", ratio * ratio)):
            if factor != 1:
                out[plane] *= out[plane].dtype.type(factor)
    return Block(request.region, **{plane: out[plane] for plane in request.planes})


def _fill(
    region: Region,
    a: Block,
    out: dict[str, Array],
    coordinates: Coordinates,
    shape: tuple[int, int],
    interpolation: str,
    bits: tuple[int, int, int],
) -> None:
    """Set all pixels of a region."""
    dtype = out["data"].dtype
    data = np.ascontiguousarray(a.plane("data"), dtype)
    variance = _plane(a.variance, dtype)
    mask = _plane(a.mask, out["mask"].dtype)
    flags = np.empty(data.shape, np.uint8)
    tiles = np.zeros(tuple(-(-n // TILE) for n in data.shape), np.uint8)
    mark_flags(data, variance, mask, mask.dtype.type(bits[0]), flags, tiles)
    if tiles.any():
        # a pixel without weight takes part in sums, and 0 times NaN is NaN
        data, variance = (np.where(np.isfinite(plane), plane, plane.dtype.type(0)) for plane in (data, variance))
    source = (data.reshape(-1), variance.reshape(-1), flags.reshape(-1))
    frame = (*shape, a.region.y0, a.region.x0, *data.shape)
    for patch in patches(coordinates, region):
        inside = region.shift(-patch.y0, -patch.x0)
        limits = (inside.y0, inside.y1, inside.x0, inside.x1)
        place = (patch.y0 - region.y0, patch.x0 - region.x0)
        for widths, cells in _by_width(patch, region):
            method = source_of(interpolation, widths)
            flat = [np.empty(0, dtype)] * 2
            if method == TABLE:
                flat = [table(interpolation, width, dtype.name).reshape(-1) for width in widths]
            fits = resample_cells(
                cells,
                (patch.nodes, patch.dense, patch.pixels, patch.boxes),
                limits,
                source,
                mask.reshape(-1),
                tiles,
                frame,
                (taps(interpolation, widths[0]), taps(interpolation, widths[1]), method),
                (flat[0], flat[1], flat[0] * flat[0], flat[1] * flat[1]),
                (bits[1], bits[2]),
                (out["data"], out["variance"]),
                out["mask"],
                place,
            )
            if not fits:
                raise RuntimeError(f"positions of {region} lie outside of what was read; please report this WCS.")


def _plane(plane: Array | None, dtype: npt.DTypeLike) -> Array:
    """Return a plane as the loops need it; an empty one for None."""
    return np.empty((0, 0), dtype) if plane is None else np.ascontiguousarray(plane, dtype)


def _by_width(patch: Patch, region: Region) -> list[tuple[tuple[float, float], Array]]:
    """Return the cells of a patch that a region touches, those together whose kernels are equally wide."""
    rows, columns = cells_of(patch, region)
    cells = np.array([(i, j) for i in range(rows.start, rows.stop) for j in range(columns.start, columns.stop)])
    widths = np.where((patch.dense == EMPTY)[..., None], 1.0, patch.widths)[cells[:, 0], cells[:, 1]]
    return [
        ((float(width[0]), float(width[1])), cells[(widths == width).all(axis=1)])
        for width in np.unique(widths, axis=0)
    ]
