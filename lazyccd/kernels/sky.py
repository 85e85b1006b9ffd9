"""The sky of a frame: the mode of the pixels in boxes, and the smooth surface through them.

1. `sky_boxes` finds the level of each box of a lattice that is anchored at pixel (0, 0), so that no chunking shows.
2. A surface is made from all boxes of a frame where SciPy is (`lazyccd.ops.mosaic.sky`). It comes as values and second
   derivatives at the nodes, which are the middles of the boxes.
3. `subtract_surface` evaluates it between four nodes.

A box is sorted once. What clipping leaves of it is then a slice between two places, which only move towards each other.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled

SIGMA = 3.0
"""Pixels further from the median of their box, in standard deviations, are no sky."""

ROUNDS = 10
"""How often a box is clipped, at most."""

CROWDED = 0.3
"""Where mean and median differ by more than this part of the standard deviation, the median is taken: the mode is of no use."""


def sky_boxes(block: Block, *, box: tuple[int, int], bad_bits: int, **_: object) -> Array:
    """Return level, standard deviation and number of good pixels of each box of a tile.

    Parameters
    ----------
    block
        Data and, if there is one, mask of a tile that begins with a box; boxes at its end may be cut.
    box
        Rows and columns of a box.
    bad_bits
        Bits of the mask that leave a pixel out.

    Returns
    -------
    ndarray
        Shape ``(rows of boxes, columns of boxes, 3)``, float64. The level is ``2.5 median - 1.5 mean`` after clipping, the median
        where the box is crowded; NaN without good pixels.
    """
    data = block.plane("data")
    good = np.isfinite(data)
    if block.mask is not None:
        good &= (block.mask & block.mask.dtype.type(bad_bits)) == 0
    (height, width), (by, bx) = data.shape, box
    ny, nx = -(-height // by), -(-width // bx)
    padded = np.full((ny * by, nx * bx), np.inf, data.dtype)
    # infinity sorts behind the good pixels
    padded[:height, :width] = np.where(good, data, data.dtype.type(np.inf))
    boxes = padded.reshape(ny, by, nx, bx).swapaxes(1, 2).reshape(ny * nx, by * bx)
    boxes.sort(axis=1)
    out = np.empty((ny * nx, 3))
    _clip_boxes(boxes, np.count_nonzero(boxes < np.inf, axis=1), out)
    return out.reshape(ny, nx, 3)


@compiled
def _clip_boxes(boxes: Array, counts: Array, out: Array) -> None:
    """Set level, standard deviation and number of pixels of boxes.

    Parameters
    ----------
    boxes
        Float32 or float64 pixels of each box, sorted, shape ``(boxes, pixels)``.
    counts
        How many pixels of each box are good; they come first. int64.
    out
        Receives the results, float64, shape ``(boxes, 3)``.
    """
    for k in range(boxes.shape[0]):
        values = boxes[k]
        first, stop = 0, counts[k]
        out[k, 2] = counts[k]
        if stop == 0:
            out[k, 0] = out[k, 1] = np.nan
            continue
        median = mean = deviation = 0.0
        for _ in range(ROUNDS + 1):
            n = stop - first
            low, high = np.float64(values[first + (n - 1) // 2]), np.float64(values[first + n // 2])
            median = (low + high) / 2
            total = squares = 0.0
            # about the median, lest the squares of a bright sky lose their digits
            for i in range(first, stop):
                off = np.float64(values[i]) - median
                total += off
                squares += off * off
            mean = total / n
            deviation = np.sqrt(max(squares / n - mean * mean, 0.0))
            before = n
            while abs(np.float64(values[first]) - median) > SIGMA * deviation and first < stop - 1:
                first += 1
            while abs(np.float64(values[stop - 1]) - median) > SIGMA * deviation and first < stop - 1:
                stop -= 1
            if stop - first == before:
                break
        # mean is that of distances from the median
        crowded = abs(mean) >= CROWDED * deviation
        out[k, 0] = median if crowded else median - 1.5 * mean
        out[k, 1] = deviation


def subtract_surface(
    request: Request, a: Block, *, sky: Array, nodes: tuple[int, int], box: tuple[int, int], head: int
) -> Block:
    """Subtract a smooth surface; variance and mask stay.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    sky
        ``head`` numbers that are not needed here, and then at each node the value, its second derivatives along y and along x,
        and the fourth along both, per node distance; float64, flat.
    nodes
        Rows and columns of nodes, at least two each.
    box
        Rows and columns of pixels from node to node.
    head
        How many numbers come first.
    """
    data = None
    if "data" in request.planes:
        pixels = np.ascontiguousarray(a.plane("data"))
        data = np.empty(pixels.shape, pixels.dtype)
        surface = np.ascontiguousarray(sky[head:], np.float64).reshape(4, *nodes)
        _subtract(pixels, (request.region.y0, request.region.x0), surface, box, data)
    return Block(
        request.region,
        data,
        a.variance if "variance" in request.planes else None,
        a.mask if "mask" in request.planes else None,
    )


@compiled
def _weights(pixel: int, size: int, count: int, out: Array) -> int:
    """Set the weights of values and second derivatives at two nodes, and return the first of these.

    Parameters
    ----------
    pixel
        Position along the axis.
    size
        Pixels from node to node; the first node is in the middle of the first box.
    count
        How many nodes there are.
    out
        Receives the weights of the two values and the two derivatives, shape ``(4,)``.
    """
    place = (pixel + 0.5) / size - 0.5
    node = min(max(int(np.floor(place)), 0), count - 2)
    t = place - node
    s = 1 - t
    out[0], out[1] = s, t
    # a natural spline goes on straight beyond its ends
    out[2] = (s * s * s - s) / 6 if s >= 0 else -s / 6
    out[3] = (t * t * t - t) / 6 if t >= 0 else -t / 6
    if s < 0:
        out[3] = 0.0
    if t < 0:
        out[2] = 0.0
    return node


@compiled
def _subtract(data: Array, first: tuple[int, int], surface: Array, box: tuple[int, int], out: Array) -> None:
    """Set the data less the surface.

    Parameters
    ----------
    data
        Float32 or float64 pixels, shape ``(ny, nx)``.
    first
        Row and column of the first pixel in the image.
    surface
        Value and derivatives at each node, float64, shape ``(4, rows, columns)``.
    box
        Rows and columns of pixels from node to node.
    out
        Receives the result.
    """
    ny, nx = data.shape
    rows, columns = surface.shape[1], surface.shape[2]
    weights = np.empty((nx, 4))
    places = np.empty(nx, np.int64)
    for x in range(nx):
        places[x] = _weights(first[1] + x, box[1], columns, weights[x])
    across = np.empty(4)
    values, bends = np.empty(columns), np.empty(columns)
    for y in range(ny):
        j = _weights(first[0] + y, box[0], rows, across)
        a, b, c, d = across[0], across[1], across[2], across[3]
        for k in range(columns):
            values[k] = (a * surface[0, j, k] + b * surface[0, j + 1, k]) + (
                c * surface[1, j, k] + d * surface[1, j + 1, k]
            )
            bends[k] = (a * surface[2, j, k] + b * surface[2, j + 1, k]) + (
                c * surface[3, j, k] + d * surface[3, j + 1, k]
            )
        for x in range(nx):
            k = places[x]
            level = (weights[x, 0] * values[k] + weights[x, 1] * values[k + 1]) + (
                weights[x, 2] * bends[k] + weights[x, 3] * bends[k + 1]
            )
            out[y, x] = data[y, x] - level
