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

from lazyccd.kernels.stack import rejection
from lazyccd.kernels.stack.loops import count_of, reject_outside, sorting_network
from lazyccd.kernels.stack.sigma_clip import reject_deviant
from lazyccd.kernels.stack.types import Clip, Piece

Array: TypeAlias = npt.NDArray[Any]


def run_clip(piece: Piece, clip: Clip, nkeep: int = 0) -> None:
    """Reject inputs of a piece, and restore those that are least off where fewer than ``nkeep`` would be left."""
    name, settings = clip
    if nkeep == 0:
        CLIPS[name](piece, settings, None)
        return
    before = piece.use.copy()
    CLIPS[name](piece, settings, None)
    left = count_of(piece.use)
    if 0 < nkeep <= left.min(initial=nkeep):
        return
    given = count_of(before)
    kept = np.minimum(given, nkeep) if nkeep > 0 else np.maximum(0, given + nkeep)
    short = np.flatnonzero(left < kept)
    if short.size:
        piece.use[:, short] = before[:, short]
        part = piece.take(short)
        residual = np.zeros(part.use.shape)
        CLIPS[name](part, settings, residual)
        rejection.restore(residual, before[:, short], kept[short].astype(np.int64), part.use)
        piece.use[:, short] = part.use


def clip_limits(piece: Piece, settings: tuple[float | None, float | None], residual: Array | None) -> None:
    """Reject values below the first or above the second limit; None is no limit."""
    low, high = (float(end if s is None else s) for end, s in zip((-np.inf, np.inf), settings, strict=True))
    reject_outside(piece.values, low, high, piece.use)
    if residual is not None:
        np.maximum(low - piece.values, piece.values - high, out=residual)


def clip_sigma(
    piece: Piece, settings: tuple[str, str, float | None, float | None, int | None], residual: Array | None
) -> None:
    """Reject values so many deviations from the centre, as often as is said or until nothing changes.

    Settings: ``mean`` or ``median``; ``std`` (of n) or ``mad_std``; how many deviations below and above, None for no limit;
    iterations, None for any number.
    """
    centre, deviation, low, high, iterations = settings
    reject_deviant(
        piece.values,
        piece.use,
        sorting_network(len(piece.values)),
        centre == "mean",
        deviation == "mad_std",
        np.inf if low is None else float(low),
        np.inf if high is None else float(high),
        iterations or 0,
        _or_dummy(residual),
    )


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
