"""Hot pixels of a frame of a mosaic: sharper than any star, and not on the sky, as the other frames tell.

A hot pixel lies at one place of the detector. Between frames that drift by a fraction of a pixel it lies at nearly one place of the
sky too, and with the lobes of a kernel in most of the frames: then no rule that looks at one place of the mosaic can know it. It is
known on the frame itself, before the kernel spreads it:

1. It stands out from its neighbours as no star does. A star whose FWHM is 1.5 pixels or more has at least a quarter of the light of
   its brightest pixel on the third brightest neighbour, wherever it lies between pixels (`find_sharp`).
2. Even undersampled stars are spared, as the other frames have them too: the frames are brought onto a grid with pixels of their
   size by the bilinear kernel, which reaches least, and a low value of each pixel is kept (`low_values`). A star leaves at least a quarter
   of its brightest pixel there. A hot pixel leaves little, as soon as it has moved by about a pixel to both sides.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.lattice import Exact
from lazyccd.kernels.stack.scaling import Levels, find_scaling

REACH = 1
"""Pixels about a pixel whose light is looked at."""

SHARPER = 4.0
"""Times the third brightest neighbour that a pixel must have. Stars of 1.5 pixels FWHM have 3.8 at most, of 2 pixels 2.3."""

BRIGHTER = 4.0
"""Times the low value of all frames that a pixel must have: the bilinear kernel leaves a quarter where it lies between four pixels."""

SIGMA = 5.0
"""Standard deviations above both."""

FEWEST = 5
"""Frames of a pixel below which nothing is known."""

PART = 5
"""One of so many values is below the low one, but one at least, which may be a dead pixel."""

FEWEST_NEIGHBOURS = 5
"""Good neighbours that a pixel must have: those at the edge of an image have five."""


class Positions(Protocol):
    """Says where the pixels of a frame lie on a grid."""

    def exact(self) -> Exact:
        """Return the function of exact positions, for this thread."""
        ...


@compiled
def low_values(values: Array, use: Array, skies: Array, low: Array) -> None:
    """Find a low value of each pixel of a stack: the second lowest of up to 14 inputs, the third of up to 19, and so on.

    Parameters
    ----------
    values
        Inputs, frames x pixels, float32 or float64.
    use
        Which inputs count, frames x pixels, bool.
    skies
        What is subtracted from those of each frame, float64.
    low
        One per pixel, float64; filled, with NaN where fewer than `FEWEST` inputs count.
    """
    frames, pixels = values.shape
    lowest = np.empty(frames // PART + 2)
    for m in range(pixels):
        n = 0
        for i in range(frames):
            n += use[i, m]
        if n < FEWEST:
            low[m] = np.nan
            continue
        kept, held = max(2, n // PART), 0
        for i in range(frames):
            if not use[i, m]:
                continue
            v = values[i, m] - skies[i]
            if held == kept and not v < lowest[kept - 1]:
                continue
            k = held if held < kept else kept - 1
            while k > 0 and lowest[k - 1] > v:
                lowest[k] = lowest[k - 1]
                k -= 1
            lowest[k] = v
            held = min(held + 1, kept)
        low[m] = lowest[kept - 1]


@compiled
def find_sharp(
    data: Array, variance: Array, bad: Array, level: float, noise: float, first: tuple[int, int], flags: Array
) -> int:
    """Mark pixels that stand out from their neighbours as no star does; return how many there are.

    Parameters
    ----------
    data
        Pixels, float32 or float64.
    variance
        Of the pixels; without elements, ``noise`` is that of all.
    bad
        Bad pixels, bool; without elements if there are none. What is not finite is bad too.
    level, noise
        Level and standard deviation of the sky.
    first
        Where the first of the flags lies in the data.
    flags
        Pixels to look at, uint8; set where one stands out.
    """
    rows, columns = flags.shape
    ny, nx = data.shape
    found = 0
    for j in range(rows):
        y = first[0] + j
        for i in range(columns):
            x = first[1] + i
            v = data[y, x] - level
            sigma = noise
            if variance.size:
                # most pixels are sky: a product is had sooner than a root
                if not (v > 0 and v * v > SIGMA * SIGMA * variance[y, x]):
                    continue
                sigma = np.sqrt(variance[y, x])
            if not (SIGMA * sigma < v < np.inf) or (bad.size and bad[y, x]):
                continue
            a, b, c, n = -np.inf, -np.inf, -np.inf, 0
            for k in range(max(y - REACH, 0), min(y + REACH + 1, ny)):
                for m in range(max(x - REACH, 0), min(x + REACH + 1, nx)):
                    w = data[k, m] - level
                    if (k == y and m == x) or not np.isfinite(w) or (bad.size and bad[k, m]):
                        continue
                    n += 1
                    if w > a:
                        a, b, c = w, a, b
                    elif w > b:
                        b, c = w, b
                    elif w > c:
                        c = w
            if n >= FEWEST_NEIGHBOURS and v > SHARPER * max(c, 0.0) + SIGMA * sigma:
                flags[j, i] = 1
                found += 1
    return found


@compiled
def not_on_sky(excess: Array, y: Array, x: Array, low: Array, first: tuple[int, int], hot: Array) -> None:
    """Mark pixels that are brighter than what all frames have at their place.

    Parameters
    ----------
    excess
        How bright they are, less what noise may add, in units of ``low``; float64.
    y, x
        Their positions on the grid of the low values, float64.
    low
        A region of these; NaN where nothing is known.
    first
        Row and column of the region.
    hot
        Bool; set where a pixel is brighter.
    """
    ny, nx = low.shape
    for k in range(excess.size):
        if not (np.isfinite(y[k]) and np.isfinite(x[k])):
            continue
        # the four pixels about the position, and those about them: a star lies up to half a pixel from it
        y0, x0 = int(np.floor(y[k])) - first[0], int(np.floor(x[k])) - first[1]
        most, known = 0.0, True
        for j in range(y0 - 1, y0 + 3):
            for i in range(x0 - 1, x0 + 3):
                v = low[j, i] if 0 <= j < ny and 0 <= i < nx else np.nan
                if np.isnan(v):
                    known = known and not (y0 <= j <= y0 + 1 and x0 <= i <= x0 + 1)
                elif v > most:
                    most = v
        hot[k] = known and excess[k] > BRIGHTER * most


def without_hot_pixels(
    request: Request,
    a: Block,
    low: Block | None,
    *,
    coordinates: Positions,
    area: float,
    levels: Levels,
    frame: int,
    bad_bits: int,
    sky: Array,
    corrections: Array | None = None,
    **scalars: Array,
) -> Block:
    """Return the data of a frame, NaN in hot pixels.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The frame; one pixel larger where it has one.
    low
        What all frames have at their places, on a grid of the sky; None where that does not lie.
    coordinates
        Where pixels of the frame lie on that grid.
    area
        Area of a pixel of the grid in pixels of the frame, by which values there are larger.
    levels, scalars
        By what all frames are multiplied to be on one scale.
    frame
        Which of them this is.
    bad_bits
        Bits by which a pixel of the mask is bad.
    sky
        Level and standard deviation of the sky; the latter is the noise of a frame without variances.
    corrections
        By what each frame is multiplied besides, as the overlaps tell: the first column.
    """
    data = a.crop(request.region).plane("data")
    level, noise = np.ravel(sky)[:2]
    if low is None or not low.region.size or not np.isfinite(level):
        return Block(request.region, data=data)
    factor = float(find_scaling(levels, len(levels.scale) or frame + 1, scalars).multipliers[frame])
    factor *= 1.0 if corrections is None else float(corrections[frame, 0])
    inner = request.region.within(a.region)
    flags = np.zeros(request.region.shape, np.uint8)
    variance = np.empty((0, 0), data.dtype) if a.variance is None else a.variance
    bad = np.empty((0, 0), np.bool_) if a.mask is None else (a.mask & a.mask.dtype.type(bad_bits)) != 0
    first = (inner[0].start, inner[1].start)
    if not find_sharp(a.plane("data"), variance, bad, float(level), float(noise), first, flags):
        return Block(request.region, data=data)
    rows, columns = np.nonzero(flags)
    values = data[rows, columns].astype(float) - level
    sigma = np.sqrt(variance[inner][rows, columns]) if variance.size else float(noise)
    y, x = coordinates.exact()(rows + float(request.region.y0), columns + float(request.region.x0))
    hot = np.zeros(rows.size, np.bool_)
    excess = (values - SIGMA * sigma) * abs(factor) * area
    not_on_sky(np.ascontiguousarray(excess, float), y, x, low.plane("data"), (low.region.y0, low.region.x0), hot)
    data = data.copy()
    data[rows[hot], columns[hot]] = np.nan
    return Block(request.region, data=data)
