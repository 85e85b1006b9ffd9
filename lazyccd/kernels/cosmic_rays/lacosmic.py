"""LA Cosmic (van Dokkum 2001, PASP 113, 1420) on one array, with every bit as in astroscrappy 1.3.

1. `prepare` makes image and variance in electrons, and the mask of pixels that are not looked at.
2. An iteration measures the significance (`laplacian`), keeps the candidates that are sharp (`fine_structure`), grows them
   twice by a pixel and replaces them (`replace`).
3. `finish` returns to the units of the data.

It is fast because it does less than astroscrappy, which filters the whole image in every iteration:

- the significance is computed for the whole array once; after that only where a pixel near enough was replaced;
- the fine structure is computed at candidates only;
- an iteration that flags no new pixel changes nothing, and neither would those after it, so it is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.cosmic_rays.fine_structure import keep_sharp, smooth_at
from lazyccd.kernels.cosmic_rays.laplacian import significance
from lazyccd.kernels.cosmic_rays.replace import (
    CLEAN_TYPES,
    FRAME,
    MEDIAN,
    count_from,
    dilate,
    grow,
    is_enclosed,
    replacement,
)
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import box_median
from lazyccd.kernels.rank_filter import merge_network

TILE = (64, 512)
"""Rows and columns whose scratch stays in cache."""

CELL = 32
"""Replaced pixels in a square of this size are looked at again together."""

GROUP_PIXELS = 2**16
"""Detections in windows of so many pixels are grown together: their lists have up to 300 bytes for each pixel."""

RAY, NEW, NEAR = np.uint8(1), np.uint8(2), np.uint8(4)
"""Bits of cosmic rays, of those of this iteration, and of those near enough to be replaced again."""

SCRATCH_BYTES = 22
"""For each pixel: image, variance, significance and noise in float32, and flags of bad, saturated, dilated and cosmic ray pixels, with
bits of the mask and places that are not finite."""

NETWORK, _ = merge_network(25, 1, (12,))
"""The exchanges that leave the median of 25 numbers in the middle."""

Levels: TypeAlias = tuple[float, float] | None
NO_LEVELS = np.empty(0, np.float32)
"""Stands for levels that are not known."""


@dataclass(frozen=True)
class LACosmic:
    """The parameters of LA Cosmic, named as in astroscrappy.

    ``psfk`` is the kernel of the fine structure as it is used in the convolution, or None for medians.
    """

    sigclip: float = 4.5
    sigfrac: float = 0.3
    objlim: float = 5.0
    gain: float = 1.0
    readnoise: float = 6.5
    satlevel: float = 65535.0
    niter: int = 4
    sepmed: bool = True
    cleantype: str = "meanmask"
    psfk: tuple[tuple[float, ...], ...] | None = None

    @property
    def kernel(self) -> Array:
        """The kernel as an array, of shape (0, 0) for medians."""
        return np.empty((0, 0), np.float32) if self.psfk is None else np.array(self.psfk, np.float32)

    @property
    def noise(self) -> float:
        """The variance of reading, in electrons squared."""
        # Numbers are C floats in astroscrappy: a gain of 1.1 is 1.10000002384 there, and here.
        return float(np.float32(np.float32(self.readnoise) ** 2))

    @property
    def reach(self) -> int:
        """How far a pixel changes detections in one iteration."""
        # Radii of the medians: variance or Laplacian, then significance; or the two medians of the fine structure. The
        # two steps of growth add 2.
        median = 3 if self.sepmed else 2
        if self.psfk is None:
            fine = 6 if self.sepmed else 4
        else:
            fine = median + max(self.kernel.shape) // 2 + (4 if self.sepmed else 3)
        return max(2 * median, fine) + 2

    @property
    def halo(self) -> int:
        """Pixels around a region that make its result that of the whole image: the bound of its dependencies."""
        # Saturated stars: the median that tells them from cosmic rays, and two dilations by 2.
        masks = (3 if self.sepmed else 2) + 4
        steps = max(self.niter, 1)
        # Replacing reads two pixels further in each iteration. The bound is 41 for the defaults; an image was found on
        # which 24 are too few (tests/kernels/test_lacosmic.py).
        first = steps * (self.reach + 2) - 2
        return max(first, (steps - 1) * (self.reach + 2) + 2 + masks) + 2


class Prepared(NamedTuple):
    """What LA Cosmic starts from, in electrons; the sky is of shape (0, 0) if none was given."""

    clean: Array
    var: Array
    sky: Array
    bad: Array


def prepare(
    data: Array,
    mask: Array | None,
    settings: LACosmic,
    *,
    saturated: Array | None = None,
    background: Array | None = None,
    variance: Array | None = None,
) -> Prepared:
    """Return image and variance in electrons, and where pixels are not looked at.

    Parameters
    ----------
    data, mask, settings, saturated, background, variance
        As for `detect`.
    """
    gain, noise2 = np.float32(settings.gain), np.float32(settings.noise)
    clean, var = np.empty(data.shape, np.float32), np.empty(data.shape, np.float32)
    # The product in the type of the data and rounded then, as in astroscrappy: uint16 and float32 pixels differ.
    _to_electrons(data, data.dtype.type(gain), noise2, clean, var)
    # Before the sky is subtracted: saturation is of the whole signal.
    bad = make_mask(clean, mask, settings, saturated)
    sky = np.empty((0, 0), np.float32) if background is None else np.asarray(background * float(gain), np.float32)
    # A given variance has the read noise in it already.
    if variance is not None:
        var = np.asarray(variance * float(np.float32(gain * gain)), np.float32)
    if sky.size:
        clean -= sky
        var = clean + noise2 if variance is None else var - sky
    return Prepared(clean, var, sky, bad)


@compiled
def _to_electrons(data: Array, gain: float, noise: np.float32, clean: Array, var: Array) -> None:
    """Set an image in electrons, and its variance.

    Parameters
    ----------
    data
        Pixels, shape ``(ny, nx)``.
    gain, noise
        Electrons per unit, in the dtype of the data; and the variance of reading, float32.
    clean, var
        Receive image and variance, float32, same shape.
    """
    for y in range(data.shape[0]):
        pixels, row, second = data[y], clean[y], var[y]
        for x in range(pixels.size):
            row[x] = np.float32(pixels[x] * gain)
            second[x] = row[x] + noise


def detect(
    data: Array,
    mask: Array | None,
    settings: LACosmic,
    *,
    saturated: Array | None = None,
    background: Array | None = None,
    variance: Array | None = None,
    levels: Levels = None,
) -> tuple[Array, Array]:
    """Return where cosmic rays are, and the image without them.

    Parameters
    ----------
    data
        Finite pixels, in units from which ``gain`` makes electrons, shape ``(ny, nx)``.
    mask
        Not 0 where a pixel is bad; grown by one pixel.
    settings
        Limits and methods.
    saturated
        True in the cores of saturated stars, instead of ``satlevel``; grown by four pixels.
    background, variance
        A background that was not subtracted, and the variance, in the units of the data and their square.
    levels
        What replaces data and variance where all pixels within 2 are bad, in electrons; None leaves these as they are.

    Returns
    -------
    tuple of ndarray
        Booleans, and float32 in the units of the data; pixels that are not flagged are ``data * gain / gain`` in float32.
    """
    start = prepare(data, mask, settings, saturated=saturated, background=background, variance=variance)
    rays = find(start, settings, levels)
    return rays.view(bool), finish(start, settings)


def finish(start: Prepared, settings: LACosmic) -> Array:
    """Return the image after `find`, in the units of the data; it is made in place."""
    if start.sky.size:
        np.add(start.clean, start.sky, out=start.clean)
    return np.divide(start.clean, np.float32(settings.gain), out=start.clean)


def make_mask(clean: Array, mask: Array | None, settings: LACosmic, saturated: Array | None) -> Array:
    """Return 1 where pixels are not looked at: bad ones, grown by 1, and saturated stars, grown by 4.

    Parameters
    ----------
    clean
        Image in electrons, float32, with the sky.
    mask, settings, saturated
        As for `detect`.
    """
    found = known_mask(clean, mask, settings, saturated)
    return np.zeros(clean.shape, np.uint8) if found is None else found


def known_mask(clean: Array, mask: Array | None, settings: LACosmic, saturated: Array | None) -> Array | None:
    """Return what `make_mask` does, or None where all pixels are looked at.

    Parameters
    ----------
    clean, mask, settings, saturated
        As for `make_mask`.
    """
    full = _saturated_stars(clean, settings) if saturated is None else saturated.view(np.uint8)
    if full is not None and not count_from(full, np.float32(1)):
        full = None
    if mask is None and full is None:
        return None
    out = np.zeros(clean.shape, np.uint8)
    if full is not None:
        # Twice the square of 5 without its corners.
        once = np.zeros(clean.shape, np.uint8)
        dilate(full, 2, once)
        dilate(once, 2, out)
    if mask is not None:
        dilate((mask if mask.dtype == bool else mask != 0).view(np.uint8), 1, out)
    return out


def _saturated_stars(clean: Array, settings: LACosmic) -> Array | None:
    """Return 1 for pixels that are saturated and bright all around; None if none is saturated."""
    # Else a cosmic ray that saturates would count as a star.
    level = np.float32(settings.satlevel)
    if not count_from(clean, level):
        return None
    out = np.zeros(clean.shape, np.uint8)
    _flag_bright(clean, level, np.float32(float(level) / 10.0), settings.sepmed, out)
    return out


@compiled
def _flag_bright(clean: Array, level: np.float32, limit: np.float32, separable: bool, out: Array) -> None:
    """Flag the saturated pixels that have a bright neighbourhood: those of stars do, those of cosmic rays do not.

    Parameters
    ----------
    clean
        Image in electrons, float32, shape ``(ny, nx)``.
    level
        From which pixels are saturated, float32.
    limit
        What the median about a pixel must exceed, float32.
    separable
        Which median, as in `smooth_at`.
    out
        Receives 1, uint8, same shape.
    """
    values = np.empty(25, np.float32)
    for y in range(clean.shape[0]):
        for x in range(clean.shape[1]):
            if clean[y, x] >= level and smooth_at(clean, y, x, separable, values) > limit:
                out[y, x] = 1


def find(start: Prepared, settings: LACosmic, levels: Levels | Callable[[], Levels]) -> Array:
    """Find and replace cosmic rays in place, and return 1 where they are.

    ``levels`` may be a function, which is called only if a pixel needs them.
    """
    clean, var, _, bad = start
    ny, nx = clean.shape
    rays = np.zeros(clean.shape, np.uint8)
    signal, noise = np.empty_like(clean), np.empty_like(clean)
    # astroscrappy's "median" reads memory that nobody wrote (``counter =+ 1``); here it is the median of the original
    # pixels.
    originals = (clean.copy(), var.copy()) if settings.cleantype == "median" else (clean, var)
    kind, level = (
        CLEAN_TYPES[settings.cleantype],
        NO_LEVELS if callable(levels) or levels is None else as_levels(levels),
    )
    windows = tiles = _tiles(ny, nx)
    for _ in range(settings.niter):
        _measure(start, windows, settings.sepmed, signal, noise)
        # With unchanged flags replacing again changes nothing, as it reads good pixels only: this image is a fixed
        # point.
        if not sum(_find(start, settings, signal, noise, group, rays) for group in _groups(windows)):
            break
        # Levels take two passes over the image, and most images never need them.
        if callable(levels) and not level.size and _any_enclosed(rays, bad):
            level = as_levels(levels())
        changed = np.empty((-(-ny // CELL), -(-nx // CELL), 4), np.int32)
        _replace(clean, var, *originals, rays, bad, kind, level, changed)
        windows = _windows(changed, clean.shape, settings.reach + 2)
        # Windows overlap with their margins: where many pixels changed, whole tiles are less work.
        if _cost(windows) > _cost(tiles):
            windows = tiles
    return rays


def as_levels(levels: Levels) -> Array:
    """Return two levels as the compiled code takes them; empty if there are none."""
    return NO_LEVELS if levels is None else np.array(levels, np.float32)


def _tiles(ny: int, nx: int) -> Array:
    """Return tiles of the whole array as rows of (y0, y1, x0, x1)."""
    rows = [(y, min(y + TILE[0], ny)) for y in range(0, ny, TILE[0])]
    columns = [(x, min(x + TILE[1], nx)) for x in range(0, nx, TILE[1])]
    return np.array([(*row, *column) for row in rows for column in columns], np.int64).reshape(-1, 4)


def _cost(windows: Array) -> int:
    """Return about how many pixels are computed for some windows."""
    return int(((windows[:, 1] - windows[:, 0] + 9) * (windows[:, 3] - windows[:, 2] + 9)).sum())


def _groups(windows: Array) -> list[Array]:
    """Return windows in groups of about `GROUP_PIXELS`, at least one in each."""
    if not len(windows):
        return []
    pixels = np.cumsum((windows[:, 1] - windows[:, 0]) * (windows[:, 3] - windows[:, 2]))
    return np.split(windows, np.flatnonzero(np.diff((pixels - 1) // GROUP_PIXELS)) + 1)


def _measure(start: Prepared, windows: Array, separable: bool, signal: Array, noise: Array) -> None:
    """Compute significance and noise in some windows.

    Parameters
    ----------
    start
        Image, variance and sky in electrons.
    windows
        Rows of (y0, y1, x0, x1), int64.
    separable
        Which medians.
    signal, noise
        Receive the results, float32, shape of the image.
    """
    if not len(windows):
        return
    height, width = (windows[:, 1] - windows[:, 0]).max() + 12, (windows[:, 3] - windows[:, 2]).max() + 12
    scratch = np.empty((3, height, width), np.float32)
    planes = np.empty((max(25, height + 6), width), np.float32)
    significance(start.clean, start.var, start.sky, windows, separable, scratch, planes, NETWORK, signal, noise)


def _find(start: Prepared, settings: LACosmic, signal: Array, noise: Array, windows: Array, rays: Array) -> int:
    """Flag the cosmic rays in some windows, and return how many pixels were not flagged before.

    Parameters
    ----------
    start
        Image in electrons, and where pixels are not looked at.
    settings
        Limits and methods.
    signal, noise
        Significance and noise in electrons, float32, shape of the image.
    windows
        Rows of (y0, y1, x0, x1), int64.
    rays
        `RAY` for cosmic rays, uint8; new ones are added, with `NEW`.
    """
    detected, sharp = np.float32(settings.sigclip), np.float32(settings.objlim)
    neighbour = np.float32(settings.sigfrac) * detected
    count = _candidates(signal, start.bad, windows, detected, np.empty((0, 2), np.int64))
    # Counted first: room for every pixel would cost more memory than the pixels.
    seeds = np.empty((count, 2), np.int64)
    _candidates(signal, start.bad, windows, detected, seeds)
    count = keep_sharp(start.clean, noise, signal, seeds, settings.sepmed, settings.kernel, sharp)
    # Two steps of growth, the first to pixels that are significant, the second to those of a fraction of that.
    near = np.empty((9 * count, 2), np.int64)
    count = grow(seeds, count, signal, start.bad, detected, near)
    count = _unique(near, count, signal.shape)
    far = np.empty((9 * count, 2), np.int64)
    count = grow(near, count, signal, start.bad, neighbour, far)
    return int(_flag(far, count, rays))


def _unique(places: Array, count: int, shape: tuple[int, int]) -> int:
    """Leave each of the first ``count`` places once, and return how many they are."""
    # Else each step of growth would return a pixel up to nine times.
    keys = np.unique(places[:count, 0] * shape[1] + places[:count, 1])
    places[: keys.size, 0], places[: keys.size, 1] = np.divmod(keys, shape[1])
    return int(keys.size)


@compiled
def _candidates(signal: Array, bad: Array, windows: Array, limit: np.float32, out: Array) -> int:
    """Return the number of significant pixels in some windows.

    Parameters
    ----------
    signal
        Significance, float32, shape ``(ny, nx)``.
    bad
        Not 0 where a pixel is not looked at, uint8.
    windows
        Rows of (y0, y1, x0, x1), int64.
    limit
        What the significance must exceed, float32.
    out
        Receives the pixels as rows of (y, x); with no rows they are only counted.
    """
    count = 0
    for k in range(windows.shape[0]):
        for y in range(windows[k, 0], windows[k, 1]):
            row, masked = signal[y, windows[k, 2] : windows[k, 3]], bad[y, windows[k, 2] : windows[k, 3]]
            for x in range(row.size):
                if row[x] > limit and not masked[x]:
                    if out.shape[0] > 0:
                        out[count, 0], out[count, 1] = y, windows[k, 2] + x
                    count += 1
    return count


@compiled
def _flag(places: Array, count: int, rays: Array) -> int:
    """Flag the first ``count`` of some pixels, and return how many were not flagged before."""
    new = 0
    for k in range(count):
        y, x = places[k]
        if not rays[y, x]:
            rays[y, x] = RAY | NEW
            new += 1
    return new


@compiled
def _replace(
    clean: Array, var: Array, first: Array, first_var: Array, rays: Array, bad: Array, kind: int, level: Array, changed: Array,
) -> None:  # fmt: skip
    """Replace the flagged pixels within 2 of new ones; no cosmic ray is new after that.

    Parameters
    ----------
    clean, var
        Image and variance in electrons, float32, shape ``(ny, nx)``; changed in place.
    first, first_var
        Both as they were before the first iteration, for `MEDIAN`.
    rays, bad
        Cosmic rays, with `NEW`, and 1 for pixels that are not looked at; uint8.
    kind
        One of `CLEAN_TYPES`.
    level
        What replaces data and variance where no pixel within 2 is good, float32; empty to leave these as they are.
    changed
        Receives first and last row, first and last column of the pixels that changed, for each cell of `CELL` pixels, int32, shape
        ``(cells, cells, 4)``; the last are -1 where none did.
    """
    _mark_near(rays)
    ny, nx = rays.shape
    changed[:, :, 0], changed[:, :, 2] = ny, nx
    changed[:, :, 1] = changed[:, :, 3] = -1
    values = np.empty(25, np.float32)
    # Not a literal, for which numba would compile the median once more.
    radius = np.int64(FRAME)
    for y in range(ny):
        if not _any_above(rays[y], RAY):
            continue
        for x in range(nx):
            flags = rays[y, x]
            if flags <= RAY:
                continue
            rays[y, x] = RAY
            if not flags & NEAR:
                continue
            if kind == MEDIAN:
                new, new_var = box_median(first, y, x, radius, values), box_median(first_var, y, x, radius, values)
            else:
                new = replacement(clean, y, x, rays, bad, kind, clean[y, x] if level.size == 0 else level[0], values)
                new_var = replacement(var, y, x, rays, bad, kind, var[y, x] if level.size == 0 else level[1], values)
            if new != clean[y, x] or new_var != var[y, x]:
                clean[y, x], var[y, x] = new, new_var
                cell = changed[y // CELL, x // CELL]
                cell[0], cell[1] = min(cell[0], y), max(cell[1], y)
                cell[2], cell[3] = min(cell[2], x), max(cell[3], x)


@compiled
def _any_above(row: Array, limit: np.uint8) -> bool:
    """Return whether any flags of a row are above a number."""
    # A count, without a branch: this loop is vectorised.
    count = 0
    for x in range(row.size):
        count += row[x] > limit
    return count > 0


@compiled
def _mark_near(rays: Array) -> None:
    """Give `NEAR` to the cosmic rays within 2 of new ones: a good neighbour of older ones may be a cosmic ray now."""
    ny, nx = rays.shape
    for y in range(ny):
        if not _any_above(rays[y], RAY):
            continue
        for x in range(nx):
            if not rays[y, x] & NEW:
                continue
            for j in range(max(FRAME, y - FRAME), min(ny - FRAME, y + FRAME + 1)):
                for i in range(max(FRAME, x - FRAME), min(nx - FRAME, x + FRAME + 1)):
                    if rays[j, i]:
                        rays[j, i] |= NEAR


@compiled
def _any_enclosed(rays: Array, bad: Array) -> bool:
    """Return whether any flagged pixel within 2 of new ones has no good pixel about it."""
    ny, nx = rays.shape
    for y in range(ny):
        if not _any_above(rays[y], RAY):
            continue
        for x in range(nx):
            if not rays[y, x] & NEW:
                continue
            for j in range(max(FRAME, y - FRAME), min(ny - FRAME, y + FRAME + 1)):
                for i in range(max(FRAME, x - FRAME), min(nx - FRAME, x + FRAME + 1)):
                    if rays[j, i] and is_enclosed(rays, bad, j, i):
                        return True
    return False


def _windows(changed: Array, shape: tuple[int, int], reach: int) -> Array:
    """Return the windows, rows of (y0, y1, x0, x1), in which detections may have changed."""
    # One window for the pixels of a cell: one for each pixel would compute margins again and again.
    y0, y1, x0, x1 = changed[changed[:, :, 1] >= 0].astype(np.int64).T
    limits = (
        np.maximum(y0 - reach, 0),
        np.minimum(y1 + reach + 1, shape[0]),
        np.maximum(x0 - reach, 0),
        np.minimum(x1 + reach + 1, shape[1]),
    )
    return np.ascontiguousarray(np.stack(limits, axis=1))
