"""Interpolation kernels, tabulated: the weights of the input pixels about a position, for each fraction of a pixel.

Where output pixels are larger than input pixels the kernel is widened by their ratio. Left as it is, it would skip input
pixels: Lanczos 3 loses 2.5 % of the flux of a star of 2 pixels FWHM on pixels 1.5 times as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lazyccd.kernels.block import Array

PHASES = 4096
"""Steps into which a pixel is divided. 1024 would do for centroids, but beat with the pixels of grids at 15, 27 or 45 degrees, and
cost a star 5e-4 of its flux."""

WIDTH_STEPS = 16
"""Steps of the widening for each unit; neighbouring cells of the lattice then nearly always have the same weights."""


class Kernel(NamedTuple):
    """An interpolation kernel along one axis."""

    reach: float
    """Half of its width in input pixels."""

    function: Callable[[Array], Array]
    """Its value at distances in input pixels."""


def _triangle(x: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _cubic(x: Array) -> Array:
    """Return the cubic convolution of Keys (1981, equation 15), a = -0.5."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


WINDOWS = {
    2: (0.7512, 0.4870, -0.1651, 0.0130, -0.0861),
    3: (0.5561, 0.4644, -0.0196, 0.0438, -0.0173, -0.0082, -0.0192),
    4: (0.5669, 0.4808, -0.0374, 0.0049, -0.0295, 0.0143),
}
"""Cosines of the window of each Lanczos kernel: ``sum_k c_k cos(pi k x / order)``, which is 1 at 0 and 0 at the order.

Lanczos' own window, ``sinc(x / order)``, loses or wins up to 0.3 % of the flux of a star of 2 pixels FWHM, as it lies between
the pixels of a grid that is turned by 15 degrees. These are as near to it as the least such error lets them be, for all angles, stars
of 1.5 to 2.5 pixels FWHM, and pixels 1 to 3 times as large: below 3e-4 for 3 and 2e-4 for 4.
"""

NODES = 4096
"""Points per pixel between which the values of a Lanczos kernel are interpolated; that is right to 1e-7."""


def _lanczos(order: int) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        values = _lanczos_values(order)
        return np.interp(np.abs(x), np.arange(values.size) / NODES, values)

    return function


@lru_cache
def _lanczos_values(order: int) -> Array:
    """Return the values of a Lanczos kernel from 0 to its order, which reproduce an inclined plane."""
    distances = np.arange(1 - order, order + 1) - np.arange(NODES)[:, None] / NODES
    window = sum(c * np.cos(np.pi * k / order * distances) for k, c in enumerate(WINDOWS[order]))
    weights = np.where(np.abs(distances) < order, np.sinc(distances) * window, 0.0)
    # sin(pi) is 1e-16 in floating point, and a whole-pixel shift must be exact
    weights[np.abs(weights) < TINY] = 0
    weights = reproducing(weights, distances, order)
    # the pixels before the position, read from it outwards
    return np.append(weights[:, order - 1 :: -1].T.reshape(-1), 0.0)


TINY = 1e-12
"""Weights that are only rounding."""

BUMP = 0.43
"""Standard deviation of what `reproducing` adds, in units of the reach."""


def reproducing(weights: Array, distances: Array, reach: float) -> Array:
    """Return weights by which an inclined plane is interpolated exactly: their sum is 1, and their first moment 0.

    A constant alone makes the Fourier transform of the kernel 0 at whole frequencies, but not flat there. On a grid that is turned by
    a few degrees, frequencies nearly whole are aliases of the broad light of a star, and its flux depends on where it lies.

    Parameters
    ----------
    weights
        Along the last axis, about one position; their sum need not be 1.
    distances
        Of the pixels from that position, same shape.
    reach
        Half of the width of the kernel.
    """
    # times weights themselves it would not be solvable: those of Lanczos have second moments about 0
    bump = np.where(np.abs(distances) < reach, np.exp(-0.5 * (distances / (BUMP * reach)) ** 2), 0.0)
    zeroth, first, second = (bump.sum(-1), (bump * distances).sum(-1), (bump * distances**2).sum(-1))
    weights = weights / weights.sum(-1, keepdims=True)
    off = -(weights * distances).sum(-1)
    determinant = zeroth * second - first**2
    # where a kernel has one pixel only, it lies at the position itself
    slope = (off / np.where(determinant > TINY, determinant, np.inf))[..., None]
    return np.asarray(weights + slope * bump * (zeroth[..., None] * distances - first[..., None]))


KERNELS: dict[str, Kernel] = {
    "nearest": Kernel(0.5, lambda x: (np.abs(x) <= 0.5).astype(float)),
    "bilinear": Kernel(1.0, _triangle),
    "bicubic": Kernel(2.0, _cubic),
    "lanczos2": Kernel(2.0, _lanczos(2)),
    "lanczos3": Kernel(3.0, _lanczos(3)),
    "lanczos4": Kernel(4.0, _lanczos(4)),
}
"""Kernels by name."""

AREA = "area"
"""Name of the exact area, which has no weights along the axes; see `lazyccd.kernels.resample.area`."""


def spread_of(name: str, scale: float) -> Array:
    """Return the largest part of a single input pixel that may lie n output pixels from the one that has most of it, along an axis.

    Parameters
    ----------
    name
        One of `KERNELS`, or `AREA`.
    scale
        Side of an output pixel in input pixels.

    Examples
    --------
    >>> spread_of("bilinear", 1.0).round(2), spread_of("lanczos3", 1.0).round(2)
    (array([1., 1.]), array([1.  , 1.  , 0.2 , 0.03]))
    """
    width = max(scale, 1.0)
    phases = np.linspace(-0.5, 0.5, 65) * scale / width
    reach = 0.5 + 0.5 * scale if name == AREA else KERNELS[name].reach * width
    offsets = np.arange(math.ceil(reach / scale + 0.5))[:, None] * scale / width
    # an area overlaps its neighbours by anything up to a half
    function = (lambda x: (np.abs(x) < reach / width).astype(float)) if name == AREA else KERNELS[name].function
    parts = (np.abs(function(offsets + phases)) / function(phases)).max(axis=1)
    return np.asarray(parts[: min(np.flatnonzero(parts > SMALLEST_PART)[-1], FARTHEST) + 1])


SMALLEST_PART = 1e-3
"""Parts of a pixel that nobody sees."""

FARTHEST = 24
"""Most output pixels that are looked at, as far as Lanczos 3 reaches on pixels of an eighth of those of the frames. On finer grids the
margin of each chunk, and the memory for it, would grow without limit."""


def quantize_width(scale: Array) -> Array:
    """Return how much kernels are widened for output pixels of ``scale`` input pixels: at least 1, in steps.

    Examples
    --------
    >>> quantize_width(np.array([0.5, 1.01, 1.5, 3.0]))
    array([1. , 1. , 1.5, 3. ])
    """
    return np.maximum(np.round(scale * WIDTH_STEPS) / WIDTH_STEPS, 1.0)


def taps(name: str, width: float) -> int:
    """Return how many input pixels along an axis a kernel reads.

    Examples
    --------
    >>> taps("lanczos3", 1.0), taps("lanczos3", 1.5), taps("nearest", 2.0)
    (6, 10, 2)
    """
    return 2 if name in {"nearest", AREA} else 2 * math.ceil(KERNELS[name].reach * width)


NEAREST, LINEAR, TABLE = 0, 1, 2
"""Where weights are from: made for each position, exactly, or looked up."""


def source_of(name: str, widths: tuple[float, float]) -> int:
    """Return where the weights of a kernel are from."""
    if name == "nearest":
        return NEAREST
    return LINEAR if name == "bilinear" and widths == (1.0, 1.0) else TABLE


@lru_cache(maxsize=64)
def table(name: str, width: float, dtype: str) -> Array:
    """Return the weights of a kernel, shape ``(PHASES + 1, taps)``, which reproduce an inclined plane; see `reproducing`.

    Row ``p`` is for a position ``p / PHASES`` beyond an input pixel, which is number ``taps // 2 - 1`` of the row. The last
    row is the first one moved by a pixel, so that a fraction that rounds up needs no other pixel.

    Parameters
    ----------
    name
        One of `KERNELS`, not nearest.
    width
        By how much it is widened.
    dtype
        Dtype of the weights.
    """
    number = taps(name, width)
    fractions = np.arange(PHASES + 1)[:, None] / PHASES
    distances = np.arange(number) - (number // 2 - 1) - fractions
    weights = KERNELS[name].function(distances / width)
    weights = reproducing(weights, distances, KERNELS[name].reach * width)
    weights[np.abs(weights) < TINY] = 0
    weights.setflags(write=False)
    return weights.astype(dtype)
