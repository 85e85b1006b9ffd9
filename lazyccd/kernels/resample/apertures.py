"""Noise of sums over apertures: how much of it the shared pixels of neighbours bring, and what is blurred over the edge.

Where the variance of the input is the same everywhere, the covariance of two output pixels is the autocorrelation of the kernel at
their distance, averaged over the fractions of a pixel. A sum over an aperture has the covariances of all its pairs. The sum of the
aperture variances has also those of pixels inside with pixels outside, which are many where the aperture is small.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.resample.weights import AREA, PHASES, quantize_width, table

FINE = 64
"""Steps of a pixel in which kernels are correlated."""

ANGLES = ((0.0, 0.25), (22.5, 0.5), (45.0, 0.25))
"""Angles in degrees between the pixels of frames and grid over which is averaged, and their weights; variances change by a hundredth."""

PARTS = tuple((u, (1 - abs(u)) / 4) for u in (np.arange(8) - 3.5) / 4)
"""Distances along an axis between places in two pixels, parts of which are inside, and how often they occur."""

WHOLE = ((0.0, 1.0),)
"""The same where pixels count by their centres."""


@lru_cache(maxsize=256)
def aperture_factor(name: str, scale: float, radius: float, *, pixfrac: float = 1.0, exact: bool = True) -> float:
    """Return the variance of a sum over a circular aperture, over the sum of the aperture variances of its pixels.

    Parameters
    ----------
    name
        Name of the kernel.
    scale
        Side of an output pixel in input pixels.
    radius
        Radius in output pixels.
    pixfrac
        Part of its side that an input pixel shrinks to, for the exact area.
    exact
        Whether pixels count by the part of them that is inside, or wholly if their centre is.

    Examples
    --------
    >>> [round(aperture_factor("bilinear", 1.0, radius), 3) for radius in (2.0, 10.0)]
    [0.726, 0.947]
    """
    along = autocorrelation(name, scale, pixfrac)
    distances = np.arange(along.size) / FINE
    last = math.ceil(distances[-1] * math.sqrt(2) / scale)
    dy, dx = np.mgrid[-last : last + 1, -last : last + 1].astype(float)
    parts = PARTS if exact else WHOLE
    shared = sum(v * w * _lens(np.hypot(dy + y, dx + x), radius) for y, v in parts for x, w in parts)
    total = 0.0
    # areas are those of output pixels, which turn with the grid
    for angle, weight in ANGLES if name != AREA else ((0.0, 1.0),):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        y, x = scale * np.abs(cosine * dy - sine * dx), scale * np.abs(sine * dy + cosine * dx)
        total += weight * float((shared * np.interp(y, distances, along) * np.interp(x, distances, along)).sum())
    return _area(name, scale) * total / (math.pi * radius**2)


def noise_factor(name: str, scale: float, pixfrac: float = 1.0) -> float:
    """Return the noise of a sum over many pixels, over what their variances as single pixels give for it.

    It is the mean over the fractions of a pixel where the variance is the same everywhere.

    Parameters
    ----------
    name, scale, pixfrac
        As of `aperture_factor`.

    Examples
    --------
    >>> round(noise_factor("bilinear", 1.0), 3), round(noise_factor("lanczos3", 0.5), 2), noise_factor("nearest", 1.0)
    (1.5, 2.3, 1.0)
    """
    return 1 / (math.sqrt(_area(name, scale)) * float(autocorrelation(name, scale, pixfrac)[0]))


def _area(name: str, scale: float) -> float:
    """Return the area of an output pixel in input pixels by which variances of apertures are divided."""
    # the nearest pixel is no mean of several
    return min(scale**2, 1.0) if name == "nearest" else scale**2


def autocorrelation(name: str, scale: float, pixfrac: float = 1.0) -> Array:
    """Return the autocorrelation of a kernel along an axis, at distances of 0, 1/64, 2/64, ... input pixels, the last of which is 0.

    Parameters
    ----------
    name, scale, pixfrac
        As of `aperture_factor`.
    """
    if name == "nearest":
        values = np.ones(FINE)
    elif name == AREA:
        frame, grid = (np.ones(max(round(side * FINE), 1)) for side in (pixfrac, scale))
        values = np.convolve(frame, grid)
    else:
        width = float(quantize_width(np.array(scale)))
        weights = table(name, width, "float64")[: PHASES : PHASES // FINE]
        # the pixels of each row lie a whole pixel apart, and those of the next row a step before them
        values = weights[::-1].T.reshape(-1)
    values = values / (values.sum() / FINE)
    return np.append(np.correlate(values, values, "full")[values.size - 1 :] / FINE, 0.0)


def _lens(distance: Array, radius: float) -> Array:
    """Return the area that two circles of a radius share."""
    part = np.minimum(distance / (2 * radius), 1.0)
    return np.asarray(2 * radius**2 * (np.arccos(part) - part * np.sqrt(1 - part**2)))
