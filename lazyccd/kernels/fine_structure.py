"""Fine structure of single pixels: what tells a cosmic ray from a sharp star.

van Dokkum (2001), PASP 113, 1420, equation 14, as astroscrappy 1.3 computes it in float32. It is needed at candidates only, so
it is computed pixel by pixel, on the small patch that it depends on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import lower_median, median5

Array = npt.NDArray[Any]

LEAST_STRUCTURE = np.float32(0.01)


@compiled
def _box_median(image: Array, y: int, x: int, radius: int, values: Array) -> Any:
    """Return the median of a square box."""
    count = 0
    for j in range(y - radius, y + radius + 1):
        for i in range(x - radius, x + radius + 1):
            values[count] = image[j, i]
            count += 1
    return lower_median(values, count)


@compiled
def _separable9(patch: Array, values: Array) -> Any:
    """Return the separable median of a patch of 9 x 9, rows first."""
    middles = np.empty(9, patch.dtype)
    for j in range(9):
        values[:9] = patch[j, :9]
        middles[j] = lower_median(values, 9)
    return lower_median(middles, 9)


@compiled
def _smooth_patch(image: Array, y: int, x: int, reach: int, separable: bool, patch: Array, values: Array) -> None:
    """Set a patch about a pixel to the 5 x 5 separable, or the 3 x 3, median of the image; at its edge to the image."""
    ny, nx = image.shape
    r = 2 if separable else 1
    side = 2 * reach + 1
    rows = np.empty((side + 4, side), image.dtype)
    if separable:
        for j in range(max(0, y - reach - 2), min(ny, y + reach + 3)):
            for i in range(max(2, x - reach), min(nx - 2, x + reach + 1)):
                a, b, c, d, e = image[j, i - 2], image[j, i - 1], image[j, i], image[j, i + 1], image[j, i + 2]
                rows[j - y + reach + 2, i - x + reach] = median5(a, b, c, d, e)
    for j in range(max(0, y - reach), min(ny, y + reach + 1)):
        for i in range(max(0, x - reach), min(nx, x + reach + 1)):
            k, m = j - y + reach, i - x + reach
            if j < r or i < r or j >= ny - r or i >= nx - r:
                patch[k, m] = image[j, i]
            elif separable:
                patch[k, m] = median5(rows[k, m], rows[k + 1, m], rows[k + 2, m], rows[k + 3, m], rows[k + 4, m])
            else:
                patch[k, m] = _box_median(image, j, i, 1, values)


@compiled
def _matched(image: Array, noise: Array, y: int, x: int, psf: Array) -> Any:
    """Return the image convolved with the kernel over the variance, normalised by the weights; zero beyond the edge."""
    ny, nx = image.shape
    by, bx = psf.shape[0] // 2, psf.shape[1] // 2
    one = np.float32(1)
    total = weight = np.float32(0)
    for j in range(-by, by + 1):
        for i in range(-bx, bx + 1):
            if 0 <= y + j < ny and 0 <= x + i < nx:
                sigma = noise[y + j, x + i]
                factor = psf[by - j, bx - i]
                total += factor * (image[y + j, x + i] / sigma / sigma)
                weight += factor * (one / sigma / sigma)
    return total / weight


@compiled
def is_sharp(
    image: Array, noise: Array, signal: Any, y: int, x: int, separable: bool, psf: Array, limit: Any, patch: Array,
    values: Array,
) -> bool:  # fmt: skip
    """Return whether the significance of a pixel over its fine structure is above a limit.

    ``psf`` is empty for fine structure by medians; ``patch`` and ``values`` are scratch of 9 x 9 and 81.
    """
    ny, nx = image.shape
    reach = 4 if separable else 3
    if psf.size > 0:
        for j in range(max(0, y - reach), min(ny, y + reach + 1)):
            for i in range(max(0, x - reach), min(nx, x + reach + 1)):
                patch[j - y + reach, i - x + reach] = _matched(image, noise, j, i, psf)
    else:
        _smooth_patch(image, y, x, reach, separable, patch, values)
    here = patch[reach, reach]
    if y < reach or x < reach or y >= ny - reach or x >= nx - reach:
        level = here
    elif separable:
        level = _separable9(patch, values)
    else:
        level = _box_median(patch, reach, reach, reach, values)
    structure = (here - level) / noise[y, x]
    structure = LEAST_STRUCTURE if structure < LEAST_STRUCTURE else structure
    return bool(signal / structure > limit)
