"""The significance of sharp features: the Laplacian of the subsampled image over its noise, less its own median.

van Dokkum (2001), PASP 113, 1420, equations 6 to 13, as astroscrappy 1.3 computes them in float32, rounding by rounding:

1. the image is subsampled twice, convolved with the Laplacian, negative values set to 0 and averaged back (`laplacian`);
2. the noise is the root of the median of the variance, and the Laplacian is divided by twice the noise;
3. the median of that is subtracted, which removes what is sharp over a larger area (`significance`).

astroscrappy makes an image four times as large for step 1; here the four half pixels of a pixel are formed at once.
Filters leave a frame at the edges of the array, as wide as their radius, as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import columns_median7, exchange, rows_median7

# float32, because a literal in an expression would make it float64 and round differently from astroscrappy.
FOUR, TWO, QUARTER = np.float32(4), np.float32(2), np.float32(0.25)
ZERO, LEAST_VARIANCE = np.float32(0), np.float32(0.00001)


@compiled
def box_medians(source: Array, y: int, x0: int, x1: int, radius: int, planes: Array, pairs: Array, out: Array) -> None:
    """Set the medians of the square boxes about some pixels of a row, by an exchange network.

    Parameters
    ----------
    source
        Float32, shape ``(ny, nx)``; it holds the boxes.
    y, x0, x1
        Row, first column, and the one after the last.
    radius
        Pixels on each side of the middle one.
    planes
        Scratch with a row for each pixel of a box and at least ``x1 - x0`` columns.
    pairs
        The network, int64, shape ``(n, 2)``; it leaves the median in the middle row.
    out
        Receives the medians, float32, shape ``(x1 - x0,)``.
    """
    side = 2 * radius + 1
    for j in range(side):
        for i in range(side):
            plane, given = planes[j * side + i], source[y - radius + j, x0 - radius + i : x1 - radius + i]
            for k in range(x1 - x0):
                plane[k] = given[k]
    exchange(planes, pairs, x1 - x0)
    middle = planes[side * side // 2]
    for i in range(x1 - x0):
        out[i] = middle[i]


@compiled
def filtered(
    source: Array, place: tuple[int, int], shape: tuple[int, int], region: tuple[int, int, int, int], separable: bool,
    planes: Array, pairs: Array, out: Array,
) -> None:  # fmt: skip
    """Set the 7 x 7 separable median of a region, or its 5 x 5 median.

    Parameters
    ----------
    source
        Float32; it holds what the region needs.
    place
        Row and column of the image where ``source`` begins.
    shape
        Shape of the image.
    region
        First row, the one after the last, and the same of the columns.
    separable
        Which of the two medians.
    planes, pairs
        Scratch and network, as for `significance`.
    out
        Receives the medians, float32, from ``out[0, 0]`` on.
    """
    y0, y1, x0, x1 = region
    r = 3 if separable else 2
    top, left = max(y0, r), max(x0, r)
    bottom, right = min(y1, shape[0] - r), min(x1, shape[1] - r)
    # A loop and not an assignment of slices, for which numba takes seconds to compile the message of its error.
    for y in range(y0, y1):
        row, given = out[y - y0], source[y - place[0], x0 - place[1] : x1 - place[1]]
        for i in range(x1 - x0):
            row[i] = given[i]
    if bottom <= top or right <= left:
        return
    if separable:
        rows_median7(source, top - 3 - place[0], bottom + 3 - place[0], left - place[1], right - place[1], planes)
        columns_median7(planes, bottom - top, right - left, out, top - y0, left - x0)
    else:
        for y in range(top, bottom):
            row = out[y - y0, left - x0 : right - x0]
            box_medians(source, y - place[0], left - place[1], right - place[1], r, planes, pairs, row)


@compiled
def _half(image: Array, y: int, x: int) -> Any:
    """Return the positive Laplacian at a half pixel; ``y`` and ``x`` count half pixels.

    Beyond the edge there is no neighbour.
    """
    above, below, before, after = y > 0, y + 1 < 2 * image.shape[0], x > 0, x + 1 < 2 * image.shape[1]
    c = image[y // 2, x // 2]
    left = image[y // 2, (x - 1) // 2] if before else ZERO
    right = image[y // 2, (x + 1) // 2] if after else ZERO
    up = image[(y - 1) // 2, x // 2] if above else ZERO
    down = image[(y + 1) // 2, x // 2] if below else ZERO
    # astroscrappy computes the first row in double precision.
    if not above:
        wide = 4.0 * np.float64(c) - np.float64(right) - np.float64(left)
        return np.float32(max(wide - np.float64(down), 0.0))
    # From here on sums are grouped as the compiler of astroscrappy's wheel (-O3 -ffast-math) groups them: at other
    # edges in other ways.
    p = FOUR * c
    if before and after and below:
        p = (p - right - left) - (down + up)
    elif not below:
        if not before:
            p -= right + up
        else:
            p = (p - up) - (right + left) if after else (p - left) - up
    else:
        p = (p - down) - (left + up) if before else (p - right) - (down + up)
    return p if p > ZERO else ZERO


@compiled
def _edge_laplacian(image: Array, y: int, x: int) -> Any:
    """Return the mean of the positive Laplacians at the four half pixels of a pixel at the edge of the image."""
    j, i = 2 * y, 2 * x
    a, b, d, e = _half(image, j, i), _half(image, j, i + 1), _half(image, j + 1, i), _half(image, j + 1, i + 1)
    # Crosswise, as that compiler adds them.
    return ((a + e) + (d + b)) * QUARTER


@compiled
def _inner_laplacian(above: Array, row: Array, below: Array, out: Array) -> None:
    """Set the mean positive Laplacian for pixels of a row that have all neighbours.

    Parameters
    ----------
    above, row, below
        Three rows of the image, float32, which begin one pixel before the result and end one after it.
    out
        Receives the Laplacians, float32.
    """
    for i in range(out.size):
        c, left, right, up, down = row[i + 1], row[i], row[i + 2], above[i + 1], below[i + 1]
        p = FOUR * c
        # 4 c - right - left - up - down for the four half pixels of a pixel, of which two neighbours are the pixel
        # itself.
        first, second = p - c - left, p - right - c
        a = first - (c + up)
        b = second - (c + up)
        d = first - (down + c)
        e = second - (down + c)
        total = (a if a > ZERO else ZERO) + (e if e > ZERO else ZERO)
        total += (d if d > ZERO else ZERO) + (b if b > ZERO else ZERO)
        out[i] = total * QUARTER


@compiled
def laplacian(image: Array, region: tuple[int, int, int, int], out: Array) -> None:
    """Set ``out`` to the mean positive Laplacian of the subsampled image in a region, (y0, y1, x0, x1)."""
    y0, y1, x0, x1 = region
    ny, nx = image.shape
    left, right = max(x0, 1), min(x1, nx - 1)
    for y in range(y0, y1):
        inside = 0 < y < ny - 1
        if inside and right > left:
            rows = (
                image[y - 1, left - 1 : right + 1],
                image[y, left - 1 : right + 1],
                image[y + 1, left - 1 : right + 1],
            )
            # Rows are cut before the call: inside, all indices start at 0, and the loop vectorises.
            _inner_laplacian(rows[0], rows[1], rows[2], out[y - y0, left - x0 : right - x0])
        for x in range(x0, x1):
            if not inside or x == 0 or x == nx - 1:
                out[y - y0, x - x0] = _edge_laplacian(image, y, x)


@compiled
def _divide_by_noise(edges: Array, deviation: Array, sky: Array, around: tuple[int, int, int, int]) -> None:
    """Turn a variance into the noise, and a Laplacian into its multiple of twice the noise; both in place.

    Parameters
    ----------
    edges, deviation
        Laplacian and variance, float32, from element (0, 0) on.
    sky
        Background in electrons, shape of the image; shape ``(0, 0)`` if there is none.
    around
        Where both lie in the image: (y0, y1, x0, x1).
    """
    y0, y1, x0, x1 = around
    for y in range(y1 - y0):
        sigma, sharp = deviation[y, : x1 - x0], edges[y, : x1 - x0]
        if sky.size > 0:
            level = sky[y0 + y, x0:x1]
            for x in range(x1 - x0):
                sigma[x] += level[x]
        for x in range(x1 - x0):
            # The floor of astroscrappy, in electrons squared.
            least = sigma[x] if sigma[x] >= LEAST_VARIANCE else LEAST_VARIANCE
            sigma[x] = np.sqrt(least)
            sharp[x] /= TWO * sigma[x]


@compiled
def significance(
    image: Array, variance: Array, sky: Array, windows: Array, separable: bool, scratch: Array, planes: Array,
    pairs: Array, signal: Array, noise: Array,
) -> None:  # fmt: skip
    """Set the significance (S' of the paper) and the noise of the pixels in some windows.

    Parameters
    ----------
    image, variance
        Pixels and their variance in electrons, float32, shape ``(ny, nx)``.
    sky
        Background in electrons, same shape; shape ``(0, 0)`` if there is none.
    windows
        Rows of (y0, y1, x0, x1), int64.
    separable
        Whether medians are 7 x 7 separable ones or those of 5 x 5.
    scratch
        Three arrays as large as any window with six pixels around it, float32.
    planes
        Scratch of the medians, float32: at least 25 rows, and six more than a window with its margin.
    pairs
        Network of 25 numbers, for `box_medians`.
    signal, noise
        Receive the results, float32, shape ``(ny, nx)``.
    """
    ny, nx = image.shape
    r = 3 if separable else 2
    # As literals, these would have the filters compiled a second time.
    origin: tuple[Any, Any] = (np.int64(0), np.int64(0))
    deviation, edges, smooth = scratch[0], scratch[1], scratch[2]
    for k in range(windows.shape[0]):
        y0, y1, x0, x1 = windows[k]
        a0, a1, b0, b1 = max(y0 - r, 0), min(y1 + r, ny), max(x0 - r, 0), min(x1 + r, nx)
        around = (a0, a1, b0, b1)
        filtered(variance, origin, (ny, nx), around, separable, planes, pairs, deviation)
        laplacian(image, around, edges)
        _divide_by_noise(edges, deviation, sky, around)
        filtered(edges, (a0, b0), (ny, nx), (y0, y1, x0, x1), separable, planes, pairs, smooth)
        for y in range(y0, y1):
            sharp, level = edges[y - a0, x0 - b0 : x1 - b0], smooth[y - y0, : x1 - x0]
            target, deviations, found = signal[y, x0:x1], noise[y, x0:x1], deviation[y - a0, x0 - b0 : x1 - b0]
            for x in range(x1 - x0):
                target[x] = sharp[x] - level[x]
                deviations[x] = found[x]
