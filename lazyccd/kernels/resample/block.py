"""Resample the planes of a frame: the kernel of the step that a warp is.

A pixel has two variances. That of its own, ``variance``, is the sum of squared weights times variances. Neighbours share input
pixels, so the variance of a sum of pixels is more than the sum of these. ``variance_aperture`` is what must be added instead:

1. Pixel k is ``o_k = c * sum_i w_ki d_i``, with weights of sum 1. A sum over an aperture is ``c * sum_i d_i * sum_k w_ki``.
2. Inside of an aperture that is larger than the kernel, ``sum_k w_ki`` is 1 / R, where R is the area of an output pixel in input
   pixels: there are 1 / R output pixels for each input pixel, and the weights of each have the sum 1.
3. So the variance of the sum is ``(c / R)^2 * sum_i v_i``, and any weights u_ki of sum 1 divide it among the output pixels:
   ``c^2 / R * sum_i u_ki v_i``.

Weights w themselves would be negative beside a bright star. Their squares, ``u_ki = w_ki^2 / sum_i w_ki^2``, are not, reach less
far than w, and make the aperture variance a multiple of the pixel's own: ``variance / (R * sum_i w_ki^2)``. Where the variance is
the same everywhere, it does not depend on where between input pixels a pixel lies.

Areas of overlap are not negative either, and stand for themselves: u = w. The nearest pixel is no mean where R > 1; there input pixels are left out, and R counts as 1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import APERTURE, Array, Block, Request
from lazyccd.kernels.resample.area import area_cells
from lazyccd.kernels.resample.interpolate import TILE, mark_flags, mark_windows, resample_cells
from lazyccd.kernels.resample.lattice import EMPTY, Coordinates, Patch, cells_of, patches, patches_around
from lazyccd.kernels.resample.sums import padded
from lazyccd.kernels.resample.weights import AREA, TABLE, source_of, table, taps
from lazyccd.sections import Region


def resample(
    request: Request,
    a: Block | None,
    *,
    coordinates: Coordinates,
    shape: tuple[int, int],
    interpolation: str,
    ratio: float | None,
    bits: tuple[int, int, int],
    dtype: str,
    mask_dtype: str,
    pixfrac: float = 1.0,
) -> Block:
    """Return the pixels of an image on the pixels of another.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The input pixels of `source_region`; None where there are none.
    coordinates
        Where output pixels lie; where their corners lie for the exact area.
    shape
        Shape of the input.
    interpolation
        Name of the interpolation kernel, or ``"area"``.
    ratio
        What the data are multiplied by: the area of an output pixel in input pixels. None takes that of each pixel, so that
        flux is conserved over wide fields. The variance is multiplied by its square.
    bits
        Bits by which an input pixel has no weight, the bit of pixels without data, and the bits that are carried on.
    dtype, mask_dtype
        Dtypes of the result.
    pixfrac
        For the exact area: part of its side that an input pixel shrinks to.
    """
    # a pixel's own variance is a factor of that for apertures
    needed = request.planes | ({"variance"} if APERTURE in request.planes else set())
    out = {
        plane: np.empty(request.region.shape if plane in needed else (0, 0), kind)
        for plane, kind in (("data", dtype), ("variance", dtype), (APERTURE, dtype), ("mask", mask_dtype))
    }
    if a is None:
        for plane in ("data", "variance", APERTURE):
            out[plane].fill(np.nan)
        out["mask"].fill(bits[1])
    else:
        _fill(
            request.region,
            a,
            out,
            coordinates,
            shape,
            interpolation,
            (math.nan if ratio is None else ratio, pixfrac),
            bits,
        )
    return Block(request.region, **{plane: out[plane] for plane in request.planes})


def _fill(
    region: Region,
    a: Block,
    out: dict[str, Array],
    coordinates: Coordinates,
    shape: tuple[int, int],
    interpolation: str,
    scale: tuple[float, float],
    bits: tuple[int, int, int],
) -> None:
    """Set all pixels of a region."""
    dtype = out["data"].dtype
    data = np.ascontiguousarray(a.plane("data"), dtype)
    variance = _plane(a.variance, dtype)
    mask = _plane(a.mask, out["mask"].dtype)
    flags = np.zeros(data.shape, np.uint8)
    tiles = np.zeros(tuple(-(-n // TILE) for n in data.shape), np.uint8)
    mark_flags(data, variance, mask, mask.dtype.type(bits[0]), flags, tiles)
    if tiles.any():
        # a pixel without weight takes part in sums, and 0 times NaN is NaN
        data, variance = (np.where(np.isfinite(plane), plane, plane.dtype.type(0)) for plane in (data, variance))
    source = (data.reshape(-1), variance.reshape(-1), flags.reshape(-1))
    windows: dict[tuple[int, int], Array] = {}
    frame = (shape[0], shape[1], a.region.y0, a.region.x0, data.shape[0], data.shape[1])
    marks = mask.reshape(-1)
    for patch in patches(coordinates, region):
        place, limits = _place(patch, region)
        if interpolation == AREA:
            around = tuple(p.arrays for p in patches_around(coordinates, patch))
            cells, (planes, out_mask) = _cells(patch, region), _planes(out)
            fits = area_cells(
                cells, around, place, limits, source, marks, tiles, frame, bits[1:], scale, planes, out_mask
            )
        else:
            fits = True
            for widths, cells in _by_width(patch, region):
                weights, tables = _weights(interpolation, widths, dtype.name)
                number = weights[:2]
                if number not in windows:
                    windows[number] = _windows(flags, number) if tiles.any() else np.empty(0, np.uint8)
                results = (bits[1:], scale[0], *_planes(out))
                sources = (*source, windows[number])
                given = (cells, patch.arrays, place, limits, sources, marks, tiles, frame, weights, tables)
                fits = fits and resample_cells(*given, *results)
        if not fits:
            raise RuntimeError(f"positions of {region} lie outside of what was read; please report this WCS.")


def _planes(out: dict[str, Array]) -> tuple[tuple[Array, Array, Array], Array]:
    """Return what the loops set: data and both variances, and the mask."""
    return (out["data"], out["variance"], out[APERTURE]), out["mask"]


def _place(patch: Patch, region: Region) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return the first pixel of a patch in a region, and the region in pixels of the patch."""
    inside = region.shift(-patch.y0, -patch.x0)
    return (patch.y0 - region.y0, patch.x0 - region.x0), (inside.y0, inside.y1, inside.x0, inside.x1)


def _windows(flags: Array, taps: tuple[int, int]) -> Array:
    """Return the flags in the window that begins at each pixel, flattened; see `mark_windows`."""
    windows = np.empty_like(flags)
    mark_windows(flags, taps, windows)
    return windows.reshape(-1)


@lru_cache(maxsize=64)
def _weights(
    interpolation: str, widths: tuple[float, float], dtype: str
) -> tuple[tuple[int, int, int], tuple[Array, ...]]:
    """Return numbers and source of weights along y and x, and their tables: weights and squares, padded and flattened."""
    method = source_of(interpolation, widths)
    flat = [np.empty(0, dtype)] * 2
    if method == TABLE:
        tables = [table(interpolation, width, dtype) for width in widths]
        flat = [np.pad(t, [(0, 0), (0, padded(t.shape[1]) - t.shape[1])]).reshape(-1) for t in tables]
    number = (taps(interpolation, widths[0]), taps(interpolation, widths[1]), method)
    return number, (flat[0], flat[1], flat[0] * flat[0], flat[1] * flat[1])


def _plane(plane: Array | None, dtype: npt.DTypeLike) -> Array:
    """Return a plane as the loops need it; an empty one for None."""
    return np.empty((0, 0), dtype) if plane is None else np.ascontiguousarray(plane, dtype)


def _by_width(patch: Patch, region: Region) -> list[tuple[tuple[float, float], Array]]:
    """Return the cells of a patch that a region touches, those together whose kernels are equally wide."""
    cells = _cells(patch, region)
    widths = np.where((patch.dense == EMPTY)[..., None], 1.0, patch.widths)[cells[:, 0], cells[:, 1]]
    return [
        ((float(width[0]), float(width[1])), cells[(widths == width).all(axis=1)])
        for width in np.unique(widths, axis=0)
    ]


def _cells(patch: Patch, region: Region) -> Array:
    """Return the cells of a patch that a region touches, row and column of each."""
    rows, columns = cells_of(patch, region)
    return np.array([(i, j) for i in range(rows.start, rows.stop) for j in range(columns.start, columns.stop)])
