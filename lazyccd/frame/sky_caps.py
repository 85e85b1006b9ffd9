"""Circles on the sphere that hold cells of an image: whether two images can have a common pixel, whatever their projections.

A projection has seams and poles, where what lies side by side on the sky lies far apart in the image. The sphere has none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lazyccd.kernels.block import Array

STEPS = 4
"""Samples along the side of a cell."""

FRAME_CELLS = 3
"""Cells along each side of a frame."""

ROUNDING = 3e-8
"""Radians by which an arccos is wrong."""


class Caps(NamedTuple):
    """Circles on the sphere that hold cells of an image."""

    centers: Array
    """Unit vectors in ICRS, shape ``(cells, 3)``."""

    radii: Array
    """Radians, shape ``(cells,)``; those of cells without a place on the sky are left out."""

    cells: Array
    """Row and column of each among all cells, shape ``(cells, 2)``."""

    def touched_by(self, other: Caps) -> Array:
        """Return which circles have a point in common with one of others, shape ``(cells,)``."""
        reach = self.radii[:, None] + other.radii + ROUNDING
        cosines = self.centers @ other.centers.T
        return np.asarray(((cosines >= np.cos(np.minimum(reach, np.pi))) | (reach >= np.pi)).any(axis=1))


def frame_sides(shape: tuple[int, int]) -> list[Array]:
    """Return the rows and the columns at which an image is looked at, from one before it to one behind."""
    steps = FRAME_CELLS * STEPS
    return [np.arange(-1, steps + 2) * (n / steps) - 0.5 for n in shape]


def reference_cell(wcs: Any, sides: list[Array]) -> tuple[int, int] | None:
    """Return the cell of the reference pixel; None if it lies outside."""
    if not hasattr(wcs, "wcs"):
        return None
    positions = wcs.wcs.crpix[::-1] - 1
    y, x = (math.floor((p - side[1]) / (side[1] - side[0]) / STEPS) for p, side in zip(positions, sides, strict=True))
    rows, columns = ((len(side) - 3) // STEPS for side in sides)
    return (y, x) if 0 <= y < rows and 0 <= x < columns else None


def caps_of(vectors: Array, reference: tuple[int, int] | None) -> Caps:
    """Return the circles about cells, each of which has `STEPS` samples along its side and one more all around.

    Parameters
    ----------
    vectors
        Unit vectors of the samples, NaN where there is no sky, shape ``(3, rows * STEPS + 3, columns * STEPS + 3)``.
    reference
        The cell with the reference pixel: all of the sky may be about it, between samples.
    """
    finite = np.isfinite(vectors[0])
    good = np.where(finite, vectors, 0)
    windows = _windows(good, STEPS + 3)
    seen = _windows(finite[None], STEPS + 3)[0]
    centers = windows.sum(axis=(3, 4))
    norms = np.sqrt((centers**2).sum(axis=0))
    centers = centers / np.maximum(norms, 1e-300)
    cosines = np.where(seen, np.einsum("kij,kijab->ijab", centers, windows), 1.0).min(axis=(2, 3))
    gaps = [_largest_gap(good, finite, axis) for axis in (1, 2)]
    gap = np.fmax(gaps[0], gaps[1])
    # The sky ends between samples where one is missing, and some projections then stretch it: by sqrt(2) at the antipode of ZEA.
    radii = np.arccos(np.clip(cosines, -1, 1)) + gap * np.where(seen.all(axis=(2, 3)), 1.0, 4.0)
    radii[~np.isfinite(radii) | (norms < 1e-6)] = np.pi
    radii[~seen.any(axis=(2, 3))] = np.nan
    if reference is not None:
        y, x = (slice(max(k - 1, 0), k + 2) for k in reference)
        radii[y, x] = np.where(np.isnan(radii[y, x]), np.pi, radii[y, x])
    some = np.argwhere(np.isfinite(radii))
    rows, columns = some.T
    return Caps(centers[:, rows, columns].T.copy(), radii[rows, columns], some)


def _windows(values: Array, size: int) -> Array:
    """Return the samples of each cell and about it, shape ``(k, rows, columns, size, size)``."""
    return np.lib.stride_tricks.sliding_window_view(values, (size, size), axis=(1, 2))[:, ::STEPS, ::STEPS]


def _largest_gap(vectors: Array, finite: Array, axis: int) -> Array:
    """Return for each cell the largest angle between neighbours along an axis; NaN if no two are neighbours."""
    chords = np.sqrt((np.diff(vectors, axis=axis) ** 2).sum(axis=0))
    angles = 2 * np.arcsin(np.minimum(chords / 2, 1))
    along = axis - 1
    before, after = np.delete(finite, -1, axis=along), np.delete(finite, 0, axis=along)
    angles = np.where(before & after, angles, -np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(
        angles, tuple(STEPS + 3 - (k == along) for k in range(2)), axis=(0, 1)
    )
    largest = windows[::STEPS, ::STEPS].max(axis=(2, 3))
    return np.where(np.isfinite(largest), largest, np.nan)
