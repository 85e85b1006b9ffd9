"""Fine structure of single pixels: what tells a cosmic ray from a sharp star.

van Dokkum (2001), PASP 113, 1420, equation 14, as astroscrappy 1.3 computes it in float32:

1. the image is smoothed by a small median, or convolved with the profile of a star;
2. from that its own median over a larger box is subtracted, and the rest divided by the noise;
3. a candidate stays if its significance over this exceeds a limit.

astroscrappy filters the whole image four times for this. It is needed at candidates only, so here it is computed pixel by
pixel, on the small patch that it depends on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import box_median, lower_median, median5, median9

WIDTH = 16
"""Columns of a patch, of which nine count."""

LEAST_STRUCTURE = np.float32(0.01)
"""Fine structure, in standard deviations of the noise, below which it counts as this."""


@compiled
def _separable9(patch: Array) -> Any:
    """Return the separable median of the 9 x 9 pixels at the beginning of a patch, rows first."""
    middles = np.empty(9, patch.dtype)
    for j in range(9):
        p = patch[j]
        middles[j] = median9(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8])
    m = middles
    return median9(m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8])


@compiled
def _smooth9(image: Array, y: int, x: int, rows: Array, patch: Array) -> None:
    """Set the first nine columns of a patch to the 5 x 5 separable median of the image.

    Parameters
    ----------
    image
        Float32, shape ``(ny, nx)``; it has six rows and columns before the pixel, and `WIDTH` columns after it.
    y, x
        The pixel in the middle of the patch.
    rows, patch
        Scratch and result, float32, shapes ``(13, WIDTH)`` and ``(9, WIDTH)``.
    """
    for j in range(13):
        # Sixteen columns take as long as nine: two steps of eight.
        row = image[y - 6 + j, x - 6 : x - 6 + WIDTH + 4]
        a, b, c, d, e = row, row[1:], row[2:], row[3:], row[4:]
        out = rows[j]
        for i in range(WIDTH):
            out[i] = median5(a[i], b[i], c[i], d[i], e[i])
    for j in range(9):
        a, b, c, d, e = rows[j], rows[j + 1], rows[j + 2], rows[j + 3], rows[j + 4]
        out = patch[j]
        for i in range(WIDTH):
            out[i] = median5(a[i], b[i], c[i], d[i], e[i])


@compiled
def smooth_at(image: Array, y: int, x: int, separable: bool, values: Array) -> Any:
    """Return the 7 x 7 separable median, rows first, or the 5 x 5 median at a pixel; at the edge the pixel itself.

    Parameters
    ----------
    image
        Float32, shape ``(ny, nx)``.
    y, x
        The pixel.
    separable
        Which of the two medians.
    values
        Scratch for 25 float32.
    """
    ny, nx = image.shape
    r = 3 if separable else 2
    # astroscrappy's filters leave a frame as wide as their radius as it is.
    if y < r or x < r or y >= ny - r or x >= nx - r:
        return image[y, x]
    if not separable:
        return box_median(image, y, x, r, values)
    # Not the literal 7, for which numba would compile the median once more.
    side = 2 * r + 1
    for j in range(side):
        for i in range(side):
            values[side + i] = image[y - r + j, x - r + i]
        values[j] = lower_median(values[side : 2 * side], side)
    return lower_median(values[:side], side)


@compiled
def _smooth_patch(image: Array, y: int, x: int, reach: int, separable: bool, patch: Array, values: Array) -> None:
    """Set a patch to the 5 x 5 separable, or the 3 x 3, median of the image; at its edge to the image itself.

    Parameters
    ----------
    image
        Float32, shape ``(ny, nx)``.
    y, x
        The pixel in the middle of the patch.
    reach
        Pixels of the patch on each side of it.
    separable
        Which of the two medians.
    patch
        Receives the medians, float32, shape ``(9, WIDTH)``.
    values
        Scratch for 9 float32.
    """
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
                patch[k, m] = box_median(image, j, i, r, values)


@compiled
def _matched_patch(
    image: Array, noise: Array, y: int, x: int, reach: int, psf: Array, rows: Array, patch: Array
) -> None:
    """Set a patch to the image convolved with a kernel, weighted by one over the variance.

    Parameters
    ----------
    image, noise
        Pixels and their standard deviations, float32, shape ``(ny, nx)``.
    y, x
        The pixel in the middle of the patch.
    reach
        Pixels of the patch on each side of it.
    psf
        Kernel, float32, sides odd.
    rows
        Scratch, float32, two rows of `WIDTH`.
    patch
        Receives the result, float32, shape ``(9, WIDTH)``.
    """
    ny, nx = image.shape
    high, wide = psf.shape
    side = 2 * reach + 1
    top, left = y - reach - high // 2, x - reach - wide // 2
    values, weights = (
        np.zeros((side + high - 1, WIDTH + wide - 1), image.dtype),
        np.zeros((side + high - 1, WIDTH + wide - 1), image.dtype),
    )
    # Not a literal, which would divide in float64.
    one = np.float32(1)
    # Nothing beyond the edge, neither signal nor weight: zero padding of both.
    x0, x1 = max(0, left), min(nx, left + side + wide - 1)
    for j in range(max(0, top), min(ny, top + side + high - 1)):
        pixels, sigmas = image[j, x0:x1], noise[j, x0:x1]
        value, weight = values[j - top, x0 - left :], weights[j - top, x0 - left :]
        for i in range(x1 - x0):
            # Divided twice, not by the square: astroscrappy rounds in between.
            value[i] = pixels[i] / sigmas[i] / sigmas[i]
            weight[i] = one / sigmas[i] / sigmas[i]
    for j in range(side):
        total, norm = rows[0], rows[1]
        for i in range(WIDTH):
            total[i], norm[i] = 0, 0
        # The sums run over the kernel in astroscrappy's order, turned as in a convolution.
        for k in range(high):
            for m in range(wide):
                factor = psf[high - 1 - k, wide - 1 - m]
                value, weight = values[j + k, m : m + WIDTH], weights[j + k, m : m + WIDTH]
                for i in range(WIDTH):
                    total[i] += factor * value[i]
                    norm[i] += factor * weight[i]
        for i in range(side):
            patch[j, i] = total[i] / norm[i]


@compiled
def keep_sharp(
    image: Array, noise: Array, signal: Array, seeds: Array, separable: bool, psf: Array, limit: np.float32
) -> int:  # fmt: skip
    """Keep the candidates whose significance over their fine structure exceeds a limit, and return how many they are.

    Parameters
    ----------
    image, noise, signal
        Pixels, their standard deviations in the same unit, and their significance; float32, shape ``(ny, nx)``.
    seeds
        Candidates, rows of (y, x), int64; those that stay are moved to the beginning.
    separable
        Which medians, as in `smooth_at`.
    psf
        Profile of a star, float32, as it is used in the convolution; shape ``(0, 0)`` for medians.
    limit
        Least ratio, float32.
    """
    rows, patch, values = np.empty((13, WIDTH), np.float32), np.empty((9, WIDTH), np.float32), np.empty(81, np.float32)
    ny, nx = image.shape
    reach = 4 if separable else 3
    count = 0
    for k in range(seeds.shape[0]):
        y, x = seeds[k]
        # `_smooth9` does what `_smooth_patch` does with vectors, away from the edges.
        if psf.size > 0:
            _matched_patch(image, noise, y, x, reach, psf, rows, patch)
        elif separable and 6 <= y < ny - 6 and 6 <= x < nx - WIDTH:
            _smooth9(image, y, x, rows, patch)
        else:
            _smooth_patch(image, y, x, reach, separable, patch, values)
        level = here = patch[reach, reach]
        # Within the radius of the second median from the edge it returns its input, so the difference is 0.
        if reach <= y < ny - reach and reach <= x < nx - reach:
            level = _separable9(patch) if separable else box_median(patch, reach, reach, reach, values)
        structure = (here - level) / noise[y, x]
        # Smooth places would divide by nothing.
        structure = LEAST_STRUCTURE if structure < LEAST_STRUCTURE else structure
        if signal[y, x] / structure > limit:
            seeds[count, 0], seeds[count, 1] = y, x
            count += 1
    return count
