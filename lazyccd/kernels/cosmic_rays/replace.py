"""Growth of detections, masks of saturated stars, and what replaces cosmic rays, as in astroscrappy 1.3.

Flags stay in images of a byte for each pixel, so that what is held does not grow with what is found. Most rows have none, and are
passed over by a loop that is vectorised. Only growth has lists of places, those of a few tiles at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import lower_median

MEAN, MEDIAN_OF_GOOD, WEIGHTED, MEDIAN = 0, 1, 2, 3
CLEAN_TYPES = {"meanmask": MEAN, "medmask": MEDIAN_OF_GOOD, "idw": WEIGHTED, "median": MEDIAN}

# Decimals as in the C code of astroscrappy, not square roots, for the same float32.
WEIGHTS = np.array(
    [
        [0.35355339, 0.4472136, 0.5, 0.4472136, 0.35355339],
        [0.4472136, 0.70710678, 1.0, 0.70710678, 0.4472136],
        [0.5, 1.0, 0.0, 1.0, 0.5],
        [0.4472136, 0.70710678, 1.0, 0.70710678, 0.4472136],
        [0.35355339, 0.4472136, 0.5, 0.4472136, 0.35355339],
    ],
    np.float32,
)
"""One over the distance to the middle."""

FRAME = 2
"""Pixels this near to the edge are flagged and not replaced."""


@compiled
def count_from(pixels: Array, limit: float | np.float32) -> int:
    """Return the number of pixels that are not below a limit."""
    count = 0
    for y in range(pixels.shape[0]):
        row = pixels[y]
        # Without a branch: this loop is vectorised.
        for x in range(row.size):
            count += row[x] >= limit
    return count


@compiled
def dilate(flags: Array, radius: int, out: Array) -> None:
    """Set flagged pixels, and those around each, to 1.

    Parameters
    ----------
    flags
        Not 0 for the pixels, uint8, shape ``(ny, nx)``.
    radius
        1 stands for the square of 3, 2 for the square of 5 without its corners.
    out
        Uint8, same shape, another array.
    """
    ny, nx = out.shape
    for y in range(ny):
        row = flags[y]
        here = 0
        for x in range(nx):
            here += row[x] != 0
        if here == 0:
            continue
        for x in range(nx):
            if row[x] == 0:
                continue
            for j in range(max(0, y - radius), min(ny, y + radius + 1)):
                for i in range(max(0, x - radius), min(nx, x + radius + 1)):
                    # astroscrappy does not filter a frame of the radius: there its dilated mask is the mask itself.
                    inside = radius <= j < ny - radius and radius <= i < nx - radius
                    near = abs(j - y) + abs(i - x) < 2 * radius or radius == 1
                    if (inside and near) or (j == y and i == x):
                        out[j, i] = 1


@compiled
def grow(seeds: Array, count: int, signal: Array, mask: Array, limit: np.float32, out: Array) -> int:
    """Return the number of pixels that touch a seed, are not masked and lie above a limit.

    Parameters
    ----------
    seeds
        Rows of (y, x), int64, shape ``(n, 2)``.
    count
        How many of them count.
    signal
        Significance, float32, shape ``(ny, nx)``.
    mask
        Not 0 where a pixel is not looked at, uint8, same shape.
    limit
        Least significance, float32.
    out
        Receives the pixels as rows of (y, x), of which one may be there several times; room for ``9 * count``.
    """
    ny, nx = signal.shape
    found = 0
    for k in range(count):
        y, x = seeds[k]
        for j in range(max(0, y - 1), min(ny, y + 2)):
            for i in range(max(0, x - 1), min(nx, x + 2)):
                # The same at the edge, where a dilation by one leaves only the seeds.
                inside = 0 < j < ny - 1 and 0 < i < nx - 1
                if (inside or (j == y and i == x)) and not mask[j, i] and signal[j, i] > limit:
                    out[found, 0], out[found, 1] = j, i
                    found += 1
    return found


@compiled
def replacement(
    image: Array, y: int, x: int, rays: Array, mask: Array, kind: int, level: np.float32, values: Array
) -> Any:
    """Return the mean, the lower median or the weighted mean of the good pixels about one.

    Parameters
    ----------
    image
        Float32, shape ``(ny, nx)``.
    y, x
        The pixel, at least `FRAME` from the edge.
    rays, mask
        Not 0 for cosmic rays, and for pixels that are not looked at; uint8, same shape.
    kind
        `MEAN`, `MEDIAN_OF_GOOD` or `WEIGHTED`.
    level
        What is returned if none of the 25 pixels is good.
    values
        Scratch for 25 float32.
    """
    count = 0
    total = weight = np.float32(0)
    for j in range(-FRAME, FRAME + 1):
        for i in range(-FRAME, FRAME + 1):
            if rays[y + j, x + i] or mask[y + j, x + i]:
                continue
            value = image[y + j, x + i]
            factor = WEIGHTS[j + FRAME, i + FRAME]
            values[count] = value
            # Sums in float32 and row by row, as astroscrappy adds them.
            total += factor * value if kind == WEIGHTED else value
            weight += factor
            count += 1
    if count == 0 or (kind == WEIGHTED and weight < 1e-6):
        return level
    if kind == MEDIAN_OF_GOOD:
        # The Quickselect of astroscrappy returns element (n - 1) // 2.
        return lower_median(values, count)
    return total / weight if kind == WEIGHTED else total / np.float32(count)


@compiled
def is_enclosed(rays: Array, bad: Array, y: int, x: int) -> bool:
    """Return whether all of the 25 pixels about one are cosmic rays or bad.

    Parameters
    ----------
    rays, bad
        Not 0 for cosmic rays, and for bad pixels; uint8, shape ``(ny, nx)``.
    y, x
        The pixel, at least `FRAME` from the edge.
    """
    for j in range(y - FRAME, y + FRAME + 1):
        for i in range(x - FRAME, x + FRAME + 1):
            if not rays[j, i] and not bad[j, i]:
                return False
    return True
