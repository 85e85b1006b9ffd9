"""Where pixels of the output lie in the input: exact coordinates on a lattice, cubic in between, verified.

A WCS with distortion takes half a microsecond for each pixel, as long as 30 interpolations. So it is asked at every 64th
pixel only. Cells of the lattice whose cubic is wrong by more than 1e-4 pixel at their centre are divided until it is not,
down to single pixels. The cubic is that of the 4 x 4 nodes about a cell and never a spline of all of them: one node without
coordinates would spoil a whole image.

A patch of 16 x 16 cells is made at once and always from the same vector of positions: iterations of a WCS, which stop when
all of their points have converged, would otherwise give a pixel other bits in another region.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.resample.weights import AREA, quantize_width, taps
from lazyccd.sections import Region

STEP = 64
"""Output pixels from node to node: a cubic of SIP coordinates errs by 1e-9 pixel at this step."""

CELLS = 16
"""Cells along each side of a patch."""

PATCH = STEP * CELLS
"""Output pixels along each side of a patch."""

TOLERANCE = 1e-4
"""Largest error of a cubic at the centre of its cell, in input pixels."""

SMALLEST = 8
"""Side of the cells whose pixels are all asked for."""

CUBIC, EMPTY = -1, -2
"""What `Patch.dense` says of cells that have no coordinates of their own."""

Exact: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""Returns the input positions y, x of output positions y, x; NaN where there is none."""

Touches: TypeAlias = Callable[[int, int], Array]
"""Returns which cells of the patch that begins at an output pixel y, x may have a pixel on the input, shape ``(16, 16)``."""

DOUBTFUL = 0.02
"""Error of a cubic, over the extent of its nodes, from which on their box may not hold what lies between them."""


class Patch(NamedTuple):
    """The coordinates of 16 x 16 cells of the lattice; all positions are in pixels, with pixel centres at whole numbers."""

    y0: int
    """First output row."""

    x0: int
    """First output column."""

    nodes: Array
    """Input positions y and x at the nodes from one before the patch to two behind it, shape ``(2, 19, 19)``, float64."""

    dense: Array
    """For each cell `CUBIC`, `EMPTY`, or its place in ``pixels``; shape ``(16, 16)``, int64."""

    pixels: Array
    """Input positions y and x of every pixel of the cells whose cubic does not hold, shape ``(n, 2, 64, 64)``, float64."""

    widths: Array
    """By how much kernels are widened along y and x, shape ``(16, 16, 2)``, float64."""

    boxes: Array
    """First and last input row and column that a cell touches, NaN for an empty one; shape ``(16, 16, 4)``, float64."""

    @property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Nodes, dense, pixels and boxes, as the loops take them."""
        return self.nodes, self.dense, self.pixels, self.boxes


class Coordinates(Protocol):
    """Says where the pixels of an output lie in an input."""

    def patch(self, row: int, column: int) -> Patch:
        """Return the patch whose first pixel is ``(row * PATCH, column * PATCH)``."""
        ...

    def __hash__(self) -> int:
        """Return what stands for the mapping in caches."""
        ...


def patches(coordinates: Coordinates, region: Region) -> list[Patch]:
    """Return the patches that a region of the output touches."""
    y0, y1, x0, x1 = region
    rows, columns = range(y0 // PATCH, -(-y1 // PATCH)), range(x0 // PATCH, -(-x1 // PATCH))
    return [coordinates.patch(row, column) for row in rows for column in columns]


def patches_around(coordinates: Coordinates, patch: Patch) -> tuple[Patch, ...]:
    """Return a patch with those right, below, and right below of it, where the last of its pixels have their far corners."""
    row, column = patch.y0 // PATCH, patch.x0 // PATCH
    return tuple(coordinates.patch(row + i, column + j) for i in (0, 1) for j in (0, 1))


def cells_of(patch: Patch, region: Region) -> tuple[slice, slice]:
    """Return the rows and columns of cells of a patch that a region touches."""
    y0, y1, x0, x1 = region.shift(-patch.y0, -patch.x0)
    return (
        slice(max(y0 // STEP, 0), min(-(-y1 // STEP), CELLS)),
        slice(max(x0 // STEP, 0), min(-(-x1 // STEP), CELLS)),
    )


@lru_cache(maxsize=1024)  # a step is asked again for each input, for its cost and for its task
def source_region(coordinates: Coordinates, out: Region, shape: tuple[int, int], kernel: str) -> Region:
    """Return the input pixels that a region of the output is made from; of size 0 if there are none.

    Parameters
    ----------
    coordinates
        Where output pixels lie.
    out
        Region of the output.
    shape
        Shape of the input.
    kernel
        Name of the interpolation kernel.
    """
    found = Region(0, 0, 0, 0)
    if kernel == AREA:
        # the corners behind the last row and column
        out = Region(out.y0, out.y1 + 1, out.x0, out.x1 + 1)
    for patch in patches(coordinates, out):
        rows, columns = cells_of(patch, out)
        boxes, widths = patch.boxes[rows, columns].reshape(-1, 4), patch.widths[rows, columns].reshape(-1, 2)
        for width in np.unique(widths, axis=0):
            some = boxes[(widths == width).all(axis=1) & np.isfinite(boxes[:, 0])]
            if not len(some):
                continue
            margin = np.array([taps(kernel, w) // 2 + 1 for w in width])
            low = np.floor(np.maximum(some[:, ::2].min(axis=0), -1e9)).astype(int) - margin
            high = np.floor(np.minimum(some[:, 1::2].max(axis=0), 1e9)).astype(int) + margin + 1
            (y0, x0), (y1, x1) = low.tolist(), high.tolist()
            found = found.union(Region(y0, y1, x0, x1).clip(shape))
    return found


def position(coordinates: Coordinates, y: int, x: int) -> tuple[float, float] | None:
    """Return where an output pixel lies in the input; None where it lies nowhere."""
    patch = coordinates.patch(y // PATCH, x // PATCH)
    (i, row), (j, column) = divmod(y - patch.y0, STEP), divmod(x - patch.x0, STEP)
    kind = patch.dense[i, j]
    if kind == EMPTY:
        return None
    if kind >= 0:
        found = patch.pixels[kind, :, row, column]
    else:
        found = stencil(np.array(row / STEP)) @ patch.nodes[:, i : i + 4, j : j + 4] @ stencil(np.array(column / STEP))
    return (float(found[0]), float(found[1])) if np.isfinite(found).all() else None


def stencil(fractions: Array) -> Array:
    """Return the weights of the nodes -1, 0, 1, 2 for positions between nodes 0 and 1, shape ``(..., 4)``.

    They are Lagrange's: the cubic through four points.
    """
    t = np.asarray(fractions, float)
    before, here, after, beyond = t + 1, t, t - 1, t - 2
    return np.stack(
        [
            here * after * beyond / -6,
            before * after * beyond / 2,
            before * here * beyond / -2,
            before * here * after / 6,
        ],
        axis=-1,
    )


SAMPLES = np.linspace(0, 1, 9)
"""Where a cell is looked at to find what it touches."""

AT_SAMPLES = stencil(SAMPLES)
AT_CENTRE = stencil(np.array(0.5))
SLOPE = np.array([1.0, -27.0, 27.0, -1.0]) / (24 * STEP)
"""Weights of the nodes for the derivative of the cubic at the centre of a cell, per pixel."""


def make_patch(
    row: int, column: int, exact: Exact, shape: tuple[int, int], touches: Touches, *, pixelwise: bool = False
) -> Patch:
    """Return a patch of the lattice.

    Parameters
    ----------
    row, column
        Position among patches.
    exact
        Gives exact coordinates.
    shape
        Shape of the input: cells that are nowhere near it are not refined.
    touches
        Tells which cells may lie on the input. It is asked where coordinates jump, end, or bend too much to tell it themselves.
    pixelwise
        Whether every pixel is asked for, since nodes are too far apart for any cubic.
    """
    y0, x0 = row * PATCH, column * PATCH
    number = np.arange(-1, CELLS + 2) * STEP
    middle = np.arange(CELLS) * STEP + STEP // 2
    ys = np.concatenate([np.repeat(y0 + number, number.size), np.repeat(y0 + middle, CELLS)])
    xs = np.concatenate([np.tile(x0 + number, number.size), np.tile(x0 + middle, CELLS)])
    found = np.stack(exact(ys.astype(float), xs.astype(float)))
    nodes = found[:, : number.size**2].reshape(2, number.size, number.size)
    centres = found[:, number.size**2 :].reshape(2, CELLS, CELLS)
    windows = np.lib.stride_tricks.sliding_window_view(nodes, (4, 4), axis=(1, 2))  # (2, 16, 16, 4, 4)
    with np.errstate(invalid="ignore"):
        wrong = np.abs(AT_CENTRE @ windows @ AT_CENTRE - centres).max(axis=0)
    # a comparison with NaN is False, and a cell that has some is refined
    holds = (wrong <= TOLERANCE) & (not pixelwise)
    near, extent = _boxes_touch(windows, centres, shape)
    if not holds.all():
        near = touches(y0, x0) & (near | (pixelwise | ~(wrong <= DOUBTFUL * extent)))
    dense = np.where(near, np.where(holds, CUBIC, 0), EMPTY)
    refined = np.argwhere(dense == 0)
    dense[tuple(refined.T)] = np.arange(len(refined))
    corners = refined * STEP + (y0, x0)
    pixels = _every_pixel(corners, exact) if pixelwise else _refined(corners, exact)
    return Patch(y0, x0, nodes, dense, pixels, _widths(windows, dense, pixels), _boxes(windows, dense, pixels))


def _every_pixel(corners: Array, exact: Exact) -> Array:
    """Return the exact coordinates of every pixel of cells, shape ``(n, 2, STEP, STEP)``."""
    return _exact_at(corners, np.indices((STEP, STEP)).reshape(2, -1).T, exact).reshape(-1, 2, STEP, STEP)


def _boxes_touch(windows: Array, centres: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return for which cells the box of their nodes, with a margin, lies on the input, and the longer side of each box."""
    around = np.concatenate([windows.reshape(2, CELLS, CELLS, 16), centres[..., None]], axis=-1)
    finite = np.isfinite(around)
    low = np.where(finite, around, np.inf).min(axis=-1)
    high = np.where(finite, around, -np.inf).max(axis=-1)
    sizes = np.array(shape, float)[:, None, None]
    with np.errstate(invalid="ignore"):
        sides = np.where(np.isfinite(high - low), high - low, 0)
    margin = sides / 2 + STEP
    return ((low <= sizes + margin) & (high >= -margin)).all(axis=0), sides.max(axis=0)


def _refined(corners: Array, exact: Exact) -> Array:
    """Return the coordinates of every pixel of cells: by cubics of smaller cells where they hold, else exact ones.

    Parameters
    ----------
    corners
        First row and column of each cell, shape ``(n, 2)``.
    exact
        Gives exact coordinates. It is called once for all cells of one size: a call costs as much as thousands of pixels.

    Returns
    -------
    Array
        Positions y and x, shape ``(n, 2, STEP, STEP)``.
    """
    pixels = np.empty((len(corners), 2, STEP, STEP))
    squares = np.array([(k, 0, 0) for k in range(len(corners))], int).reshape(-1, 3)
    side = STEP
    while len(squares) and side > SMALLEST:
        side //= 2
        parts = np.array([(0, i, j) for i in (0, side) for j in (0, side)])
        squares = (squares[:, None] + parts).reshape(-1, 3)
        firsts = corners[squares[:, 0]] + squares[:, 1:]
        steps = np.array([(i * side, j * side) for i in range(-1, 3) for j in range(-1, 3)] + [(side // 2, side // 2)])
        found = _exact_at(firsts, steps, exact)
        windows = found[:, :, :16].reshape(-1, 2, 4, 4)
        with np.errstate(invalid="ignore"):
            holds = np.abs(AT_CENTRE @ windows @ AT_CENTRE - found[:, :, 16]).max(axis=1) <= TOLERANCE
        weights = stencil(np.arange(side) / side)
        for (k, i, j), window in zip(squares[holds], windows[holds], strict=True):
            pixels[k, :, i : i + side, j : j + side] = weights @ window @ weights.T
        squares = squares[~holds]
    steps = np.indices((SMALLEST, SMALLEST)).reshape(2, -1).T
    for (k, i, j), square in zip(
        squares, _exact_at(corners[squares[:, 0]] + squares[:, 1:], steps, exact), strict=True
    ):
        pixels[k, :, i : i + SMALLEST, j : j + SMALLEST] = square.reshape(2, SMALLEST, SMALLEST)
    return pixels


def _exact_at(firsts: Array, steps: Array, exact: Exact) -> Array:
    """Return the input positions of pixels at steps from the first pixel of each square, shape ``(squares, 2, steps)``."""
    if not len(firsts):
        return np.empty((0, 2, len(steps)))
    ys, xs = np.moveaxis((firsts[:, None] + steps).astype(float), -1, 0)
    found = np.stack(exact(ys.ravel(), xs.ravel())).reshape(2, len(firsts), len(steps))
    return np.moveaxis(found, 0, 1)


def _widths(windows: Array, dense: Array, pixels: Array) -> Array:
    """Return by how much kernels are widened in each cell, along y and x.

    The extent of an output pixel along an input axis is the length of the row of the Jacobian, so that a rotation by any
    angle widens nothing.
    """
    along_y, along_x = SLOPE @ windows @ AT_CENTRE, AT_CENTRE @ windows @ SLOPE
    middle = STEP // 2
    for i, j in np.argwhere(dense >= 0):
        of_cell = pixels[dense[i, j]]
        along_y[:, i, j] = (of_cell[:, middle + 1, middle] - of_cell[:, middle - 1, middle]) / 2
        along_x[:, i, j] = (of_cell[:, middle, middle + 1] - of_cell[:, middle, middle - 1]) / 2
    scales = np.hypot(along_y, along_x)
    # a jump of coordinates at the centre says nothing of a scale, and neither does NaN
    for i, j in np.argwhere((dense >= 0) & ~(scales <= STEP).all(axis=0)):
        scales[:, i, j] = _typical_scale(pixels[dense[i, j]])
    widths = np.moveaxis(quantize_width(scales), 0, -1)
    return np.where(widths <= STEP, widths, 1.0)


def _typical_scale(of_cell: Array) -> Array:
    """Return the median extent of the pixels of a cell along y and x; 1 if no pixel has neighbours."""
    steps = np.hypot(of_cell[:, 1:, :-1] - of_cell[:, :-1, :-1], of_cell[:, :-1, 1:] - of_cell[:, :-1, :-1])
    some = np.isfinite(steps).all(axis=0)
    return np.median(steps[:, some], axis=1) if some.any() else np.ones(2)


def _boxes(windows: Array, dense: Array, pixels: Array) -> Array:
    """Return what each cell touches: y0, y1, x0, x1 of its coordinates, with a pixel to spare."""
    inside = AT_SAMPLES @ windows @ AT_SAMPLES.T
    low, high = inside.min(axis=(3, 4)), inside.max(axis=(3, 4))
    # between samples a cubic goes beyond them by less than a tenth of their distance
    slack = 1 + (high - low) / 80
    low, high = low - slack, high + slack
    for i, j in np.argwhere(dense >= 0):
        flat = pixels[dense[i, j]].reshape(2, -1)
        finite = np.isfinite(flat)
        low[:, i, j] = np.where(finite, flat, np.inf).min(axis=1)
        high[:, i, j] = np.where(finite, flat, -np.inf).max(axis=1)
    boxes = np.stack([low[0], high[0], low[1], high[1]], axis=-1)
    boxes[(dense == EMPTY) | ~np.isfinite(boxes).all(axis=-1)] = np.nan
    return boxes
