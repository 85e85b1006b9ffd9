"""Rejection of inputs of a stack: which values of a pixel are too far from the others.

1. A clip is called as ``clip(piece, settings, residual)`` and clears ``piece.use`` where it rejects. It looks only at inputs
   that count, so masked ones are no baseline, and at nothing that depends on the place of a pixel in its piece.
2. If ``residual`` is an array, a clip says there how far off a rejected input is, so that the least bad can be restored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels import rejection
from lazyccd.kernels.piece import Clip, Piece
from lazyccd.kernels.select import MAD_TO_SIGMA
from lazyccd.kernels.stack_loops import (
    count_of,
    mean_and_squares,
    median_and_deviation,
    median_of,
    reject_outside,
)

Array: TypeAlias = npt.NDArray[Any]


def run_clip(piece: Piece, clip: Clip, nkeep: int = 0) -> None:
    """Reject inputs of a piece, and restore those that are least off where fewer than ``nkeep`` would be left."""
    name, settings = clip
    if nkeep == 0:
        CLIPS[name](piece, settings, None)
        return
    before = piece.use.copy()
    CLIPS[name](piece, settings, None)
    given = count_of(before)
    kept = np.minimum(given, nkeep) if nkeep > 0 else np.maximum(0, given + nkeep)
    short = np.flatnonzero(count_of(piece.use) < kept)
    if short.size:
        piece.use[:, short] = before[:, short]
        part = piece.take(short)
        residual = np.zeros(part.use.shape)
        CLIPS[name](part, settings, residual)
        rejection.restore(residual, before[:, short], kept[short].astype(np.int64), part.use)
        piece.use[:, short] = part.use


def clip_limits(piece: Piece, settings: tuple[float | None, float | None], residual: Array | None) -> None:
    """Reject values below the first or above the second limit; None is no limit."""
    low, high = (-np.inf if settings[0] is None else settings[0], np.inf if settings[1] is None else settings[1])
    pixels = piece.values.shape[1]
    reject_outside(piece.values, np.full(pixels, low), np.full(pixels, high), piece.use)
    if residual is not None:
        np.maximum(low - piece.values, piece.values - high, out=residual)


def clip_sigma(
    piece: Piece, settings: tuple[str, str, float | None, float | None, int | None], residual: Array | None
) -> None:
    """Reject values so many deviations from the centre, as often as is said or until nothing changes.

    Settings: ``mean`` or ``median``; ``std`` (of n) or ``mad_std``; how many deviations below and above, None for no limit;
    iterations, None for any number.
    """
    centre_name, deviation_name, low, high, iterations = settings
    centre, deviation = centre_and_deviation(piece, centre_name, deviation_name)
    before = None if residual is None else piece.use.copy()
    with np.errstate(invalid="ignore"):
        lowest = np.full(centre.shape, -np.inf) if low is None else centre - low * deviation
        highest = np.full(centre.shape, np.inf) if high is None else centre + high * deviation
    changed = np.flatnonzero(reject_outside(piece.values, lowest, highest, piece.use))
    if residual is not None and before is not None:
        new = before & ~piece.use
        with np.errstate(invalid="ignore", divide="ignore"):
            residual[new] = (np.abs(piece.values - centre) / deviation)[new]
    if changed.size and iterations != 1:
        part = piece.take(changed)
        more = None if residual is None else residual[:, changed]
        clip_sigma(part, (centre_name, deviation_name, low, high, None if iterations is None else iterations - 1), more)
        piece.use[:, changed] = part.use
        if residual is not None:
            residual[:, changed] = more


def centre_and_deviation(piece: Piece, centre_name: str, deviation_name: str) -> tuple[Array, Array]:
    """Return the centre and the deviation of the inputs that count."""
    if deviation_name == "mad_std":
        middle, distance = median_and_deviation(piece.values, piece.use)
        centre = mean_and_squares(piece.values, piece.use)[1] if centre_name == "mean" else middle
        return centre, MAD_TO_SIGMA * distance
    count, mean, squares = mean_and_squares(piece.values, piece.use)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(squares / count)
    return (mean if centre_name == "mean" else median_of(piece.values, piece.use)), deviation


def clip_extrema(piece: Piece, settings: tuple[int, int], residual: Array | None) -> None:
    """Reject so many of the lowest and of the highest values; of equal ones, the first are the lower."""
    rejection.reject_counts(piece.values, *settings, False, _or_dummy(residual), piece.use)


def clip_minmax(piece: Piece, settings: tuple[int, int], residual: Array | None) -> None:
    """As `clip_extrema`, of fewer values in proportion to how many count (IRAF's imcombine: int(n * nlow / N + 0.001))."""
    rejection.reject_counts(piece.values, *settings, True, _or_dummy(residual), piece.use)


def clip_percentile(piece: Piece, settings: tuple[float, float, float], residual: Array | None) -> None:
    """Reject values far from the median, in distances of the value at a given order from it; see `rejection`."""
    order, low, high = settings
    rejection.reject_percentile(piece.values, order, low, high, _or_dummy(residual), piece.use)


def clip_gesdt(piece: Piece, settings: tuple[tuple[float, ...], ...], residual: Array | None) -> None:
    """Reject outliers by the generalised extreme Studentised deviate test; row n holds the critical values of n inputs."""
    width = max(map(len, settings), default=0)
    table = np.array([row + (np.inf,) * (width - len(row)) for row in settings], float).reshape(len(settings), width)
    rejection.reject_gesdt(piece.values, table, _or_dummy(residual), piece.use)


def _iterated(kind: int) -> Callable[[Piece, tuple[float, float], Array | None], None]:
    """Return a clip that repeats until nothing changes."""

    def clip(piece: Piece, settings: tuple[float, float], residual: Array | None) -> None:
        frames, _ = piece.values.shape
        multipliers = np.ones(frames) if piece.multipliers is None else piece.multipliers
        offsets = np.zeros(frames) if piece.offsets is None else piece.offsets
        noise = np.zeros((frames, 3)) if piece.noise is None else piece.noise
        variances = piece.variances if kind == rejection.VARIANCE else None
        rejection.reject_iterated(
            kind,
            piece.values,
            np.empty((0, 0)) if variances is None else variances,
            multipliers,
            offsets,
            noise,
            *settings,
            _or_dummy(residual),
            piece.use,
        )

    return clip


def _or_dummy(residual: Array | None) -> Array:
    """Return an array without elements for None, as numba needs one."""
    return np.empty((0, 0)) if residual is None else residual


CLIPS: dict[str, Callable[[Piece, Any, Array | None], None]] = {
    "limits": clip_limits,
    "sigma": clip_sigma,
    "extrema": clip_extrema,
    "minmax": clip_minmax,
    "pclip": clip_percentile,
    "gesdt": clip_gesdt,
    "ccdclip": _iterated(rejection.NOISE),
    "varclip": _iterated(rejection.VARIANCE),
    "avsigclip": _iterated(rejection.LINE),
    "winsorized": _iterated(rejection.WINSORIZED),
    "linearfit": _iterated(rejection.LINEAR),
}
"""Clips by name."""

WHOLE_LINES = {"avsigclip"}
"""Clips whose pieces must be whole lines."""
