"""Means of a frame on coarse cells of an output grid, and corrections that are found from them.

Frames are compared where they overlap, on cells of many pixels: each pixel counts in the cell in which its centre lies. That
reads a frame once and costs a twentieth of a warp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazyccd.kernels.block import APERTURE, Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.lattice import (
    AT_CENTRE,
    EMPTY,
    SLOPE,
    STEP,
    Coordinates,
    Patch,
    cells_of,
    patches,
    stencil,
)

COVERED = 0.5
"""Part of a cell that good pixels have to cover."""

TABLE = stencil(np.arange(STEP) / STEP)
"""Weights of the nodes at each pixel between two of them."""


def sum_cells(
    block: Block,
    *,
    coordinates: Coordinates,
    cell: tuple[int, int],
    place: tuple[int, int, int, int],
    bad_bits: int,
) -> Array:
    """Return sums of the good pixels of a tile in cells of the output grid.

    Parameters
    ----------
    block
        Data and, if there are any, variance and mask.
    coordinates
        Where the pixels of the frame lie on the output grid.
    cell
        Rows and columns of a cell, in pixels of the output.
    place
        First row, first column, rows and columns of the cells that the frame can touch.
    bad_bits
        Bits of the mask that leave a pixel out.

    Returns
    -------
    ndarray
        Shape ``(4, rows, columns)``: how many pixels; which area of the output they cover, in pixels; their sum; and the sum of
        their variances, or of squares if there are none. Data are multiplied by the area of an output pixel in input pixels.
    """
    data = np.ascontiguousarray(block.plane("data"))
    variance = np.empty((0, 0), data.dtype)
    good = np.isfinite(data)
    if block.variance is not None:
        variance = np.ascontiguousarray(block.variance, data.dtype)
        good &= np.isfinite(variance)
    if block.mask is not None:
        good &= (block.mask & block.mask.dtype.type(bad_bits)) == 0
    out = np.zeros((4, place[2], place[3]))
    region = block.region
    limits = (region.y0, region.y1, region.x0, region.x1)
    for patch in patches(coordinates, region):
        rows, columns = cells_of(patch, region)
        inside = (rows.start, rows.stop, columns.start, columns.stop)
        lattice = (patch.nodes, patch.dense, patch.pixels, _areas(patch), TABLE)
        _add_patch((data, variance), good, limits, lattice, (patch.y0, patch.x0), inside, cell, place, out)
    return out


def _areas(patch: Patch) -> Array:
    """Return the area of an input pixel in output pixels at the centre of each cell of a patch; NaN where there is none."""
    windows = np.lib.stride_tricks.sliding_window_view(patch.nodes, (4, 4), axis=(1, 2))
    along_y = np.einsum("cijab,a,b->cij", windows, SLOPE, AT_CENTRE)
    along_x = np.einsum("cijab,a,b->cij", windows, AT_CENTRE, SLOPE)
    middle = STEP // 2
    for i, j in np.argwhere(patch.dense >= 0):
        of_cell = patch.pixels[patch.dense[i, j]]
        along_y[:, i, j] = (of_cell[:, middle + 1, middle] - of_cell[:, middle - 1, middle]) / 2
        along_x[:, i, j] = (of_cell[:, middle, middle + 1] - of_cell[:, middle, middle - 1]) / 2
    area = np.abs(along_y[0] * along_x[1] - along_y[1] * along_x[0])
    return np.where((patch.dense == EMPTY) | ~(area > 0), np.nan, area)


@compiled
def _add_patch(
    planes: tuple[Array, Array],
    good: Array,
    limits: tuple[int, int, int, int],
    lattice: tuple[Array, Array, Array, Array, Array],
    corner: tuple[int, int],
    inside: tuple[int, int, int, int],
    cell: tuple[int, int],
    place: tuple[int, int, int, int],
    out: Array,
) -> None:
    """Add the pixels of a tile that lie in a patch of the lattice.

    Parameters
    ----------
    planes
        Float32 or float64 data, and variance or an empty array.
    good
        Which pixels count, of the shape of the data.
    limits
        Rows and columns of the image that the planes cover: y0, y1, x0, x1.
    lattice
        Nodes, kind, pixels and areas of the cells of the patch, and the weights of nodes at each pixel.
    corner
        First row and column of the patch in the image.
    inside
        First and last-but-one row and column of the patch's cells that the tile touches.
    cell, place, out
        As for `sum_cells`.
    """
    data, variance = planes
    nodes, dense, pixels, areas, table = lattice
    ys, xs = np.empty(STEP), np.empty(STEP)
    for i in range(inside[0], inside[1]):
        for j in range(inside[2], inside[3]):
            area = areas[i, j]
            if not area > 0:
                continue
            top, left = corner[0] + i * STEP, corner[1] + j * STEP
            first, stop = max(left, limits[2]) - left, min(left + STEP, limits[3]) - left
            for y in range(max(top, limits[0]), min(top + STEP, limits[1])):
                row = y - top
                if dense[i, j] >= 0:
                    ys[:] = pixels[dense[i, j], 0, row]
                    xs[:] = pixels[dense[i, j], 1, row]
                else:
                    _cubic_row(
                        nodes[:, i : i + 4, j : j + 4], table[row], table[first:stop], ys[first:stop], xs[first:stop]
                    )
                for x in range(first, stop):
                    v, u = y - limits[0], left + x - limits[2]
                    # a comparison with NaN is False
                    if not (good[v, u] and abs(ys[x]) < 1e15 and abs(xs[x]) < 1e15):
                        continue
                    r = int(np.floor((ys[x] + 0.5) / cell[0])) - place[0]
                    c = int(np.floor((xs[x] + 0.5) / cell[1])) - place[1]
                    if r < 0 or c < 0 or r >= place[2] or c >= place[3]:
                        continue
                    value = data[v, u] / area
                    out[0, r, c] += 1
                    out[1, r, c] += area
                    out[2, r, c] += value
                    out[3, r, c] += variance[v, u] / (area * area) if variance.size else value * value


@compiled
def _cubic_row(nodes: Array, along_y: Array, along_x: Array, ys: Array, xs: Array) -> None:
    """Set the positions of pixels of a row between nodes.

    Parameters
    ----------
    nodes
        Positions y and x of 4 x 4 nodes, float64, shape ``(2, 4, 4)``.
    along_y, along_x
        Weights of the nodes for the row, shape ``(4,)``, and for each pixel of it, shape ``(n, 4)``.
    ys, xs
        Receive the positions, shape ``(n,)``.
    """
    sums = np.empty((2, 4))
    for axis in range(2):
        for k in range(4):
            total = 0.0
            for m in range(4):
                total += along_y[m] * nodes[axis, m, k]
            sums[axis, k] = total
    for x in range(ys.size):
        w = along_x[x]
        ys[x] = (w[0] * sums[0, 0] + w[1] * sums[0, 1]) + (w[2] * sums[0, 2] + w[3] * sums[0, 3])
        xs[x] = (w[0] * sums[1, 0] + w[1] * sums[1, 1]) + (w[2] * sums[1, 2] + w[3] * sums[1, 3])


def mean_cells(partials: Sequence[Array], *, cell: tuple[int, int], has_variance: bool, **_: object) -> Array:
    """Return the means of cells and their variances, shape ``(2, rows, columns)``; NaN where too little of a cell is covered.

    Parameters
    ----------
    partials
        What `sum_cells` returned for each tile.
    cell
        Rows and columns of a cell.
    has_variance
        Whether the sums are those of variances; else the variance comes from the scatter of the pixels.
    """
    number, area, total, squares = np.add.reduce(np.stack(list(partials)), axis=0)
    covered = (area >= COVERED * cell[0] * cell[1]) & (number > 1)
    number = np.where(covered, number, np.nan)
    mean = total / number
    variance = squares / number**2 if has_variance else (squares - number * mean**2) / (number - 1) / number
    return np.stack([mean, np.maximum(variance, 0)])


def corrected(request: Request, a: Block, *, corrections: Array, row: int, middle: tuple[float, float]) -> Block:
    """Return a warped frame times a factor less a plane.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The frame on the grid of the output.
    corrections
        For each frame the factor, and constant, slope along y and slope along x of the plane; float64, shape ``(frames, 4)``.
    row
        Which frame it is.
    middle
        Row and column of the output at which the plane is its constant.
    """
    factor, constant, slope_y, slope_x = (float(number) for number in corrections[row, :4])
    out: dict[str, Array] = {}
    region = request.region
    if "data" in request.planes:
        data = a.plane("data")
        y = (np.arange(region.y0, region.y1) - middle[0])[:, None]
        x = np.arange(region.x0, region.x1) - middle[1]
        out["data"] = (data * np.float64(factor) - ((constant + slope_y * y) + slope_x * x)).astype(data.dtype)
    for plane in ("variance", APERTURE):
        if plane in request.planes:
            out[plane] = (a.plane(plane) * np.float64(factor**2)).astype(a.plane(plane).dtype)
    if "mask" in request.planes:
        out["mask"] = a.plane("mask")
    return Block(region, **out)
