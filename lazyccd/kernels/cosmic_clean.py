"""Growth of detections, masks of saturated stars, and what replaces cosmic rays, as astroscrappy 1.3 does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import lower_median

Array = npt.NDArray[Any]

MEAN, MEDIAN_OF_GOOD, WEIGHTED, MEDIAN = 0, 1, 2, 3
CLEAN_TYPES = {"meanmask": MEAN, "medmask": MEDIAN_OF_GOOD, "idw": WEIGHTED, "median": MEDIAN}

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
"""Pixels so near to the edge are flagged and not replaced."""


@compiled
def dilate(mask: Array, radius: int, out: Array) -> None:
    """Grow a mask by the square of 3, or by that of 5 without its corners; a frame of ``radius`` stays as it is."""
    ny, nx = mask.shape
    out[:] = mask
    for y in range(ny):
        for x in range(nx):
            if not mask[y, x]:
                continue
            for j in range(max(radius, y - radius), min(ny - radius, y + radius + 1)):
                for i in range(max(radius, x - radius), min(nx - radius, x + radius + 1)):
                    if abs(j - y) + abs(i - x) < 2 * radius or radius == 1:
                        out[j, i] = 1


@compiled
def grow(seeds: Array, count: int, signal: Array, mask: Array, limit: Any, out: Array) -> int:
    """Return the number of pixels, put into ``out``, that touch a seed, are not masked and lie above a limit.

    Pixels are rows of (y, x); one may be there several times. At the edge of the image only seeds themselves count.
    """
    ny, nx = signal.shape
    found = 0
    for k in range(count):
        y, x = seeds[k]
        for j in range(max(0, y - 1), min(ny, y + 2)):
            for i in range(max(0, x - 1), min(nx, x + 2)):
                inside = 0 < j < ny - 1 and 0 < i < nx - 1
                if (inside or (j == y and i == x)) and not mask[j, i] and signal[j, i] > limit:
                    out[found, 0], out[found, 1] = j, i
                    found += 1
    return found


@compiled
def replacement(image: Array, y: int, x: int, rays: Array, mask: Array, kind: int, level: Any, values: Array) -> Any:
    """Return the mean, the lower median or the weighted mean of the good pixels about one; ``level`` where none is."""
    count = 0
    total = weight = np.float32(0)
    for j in range(-FRAME, FRAME + 1):
        for i in range(-FRAME, FRAME + 1):
            if rays[y + j, x + i] or mask[y + j, x + i]:
                continue
            value = image[y + j, x + i]
            factor = WEIGHTS[j + FRAME, i + FRAME]
            values[count] = value
            total += factor * value if kind == WEIGHTED else value
            weight += factor
            count += 1
    if count == 0 or (kind == WEIGHTED and weight < 1e-6):
        return level
    if kind == MEDIAN_OF_GOOD:
        return lower_median(values, count)
    return total / weight if kind == WEIGHTED else total / np.float32(count)


@compiled
def median_of_all(image: Array, y: int, x: int, values: Array) -> Any:
    """Return the median of the 25 pixels about one."""
    count = 0
    for j in range(y - FRAME, y + FRAME + 1):
        for i in range(x - FRAME, x + FRAME + 1):
            values[count] = image[j, i]
            count += 1
    return lower_median(values, count)
