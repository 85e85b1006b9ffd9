"""Flux scales from overlaps: the ratio of the flux of the same stars in two frames.

1. What stands out of its surroundings in the cells of a frame is flux of stars: each cell less the median of the 5 x 5 about
   it, so that sky and its slopes do not matter.
2. The ratio of two frames is the median over the cells that stand out in both; one least squares of the logarithms brings all
   frames onto one scale.
3. `measure_flux` gives that; `check_flux` raises an error for a frame that is far from the scale that it states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Array
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.ops.mosaic.matching import FrameCells

SIDE = 5
"""Cells along the side of the surroundings."""

STANDS_OUT = 7.0
"""In standard deviations."""

FEWEST = 5
"""Cells that must stand out in both frames: the median of fewer may be that of variable stars."""

TOLERANCE = 0.2
"""By how much a scale may be off: more makes rejection cut one of the frames."""

SURE = 3.0
"""In standard deviations: how sure it must be that a scale is off by more."""

LEAST_ERROR = 0.02
"""Relative error of a ratio at least: seeing and the edges of cells divide a star differently in two frames."""


MEASURABLE = 3.0
"""In standard deviations of the sum of nine cells."""

ROW = 1 << 26
"""By how much the number of a cell is larger in the next row: such numbers are exact as floats."""


class Bright(NamedTuple):
    """What stands out in a frame."""

    place: Array
    """Numbers of the cells, increasing; the same in all frames."""

    flux: Array
    """Flux per pixel above the surroundings."""


@dataclass(frozen=True)
class FluxRatios:
    """How bright frames are beside each other."""

    ratio: Array
    """Flux of each frame over the typical one of its group, of which half of the frames have more; 1 if nothing is known."""

    error: Array
    """Relative standard deviation of each ratio; NaN if nothing is known."""

    group: Array
    """Number of the group of frames that are compared with each other; a frame by itself is one."""


def measure_flux(frames: Sequence[FrameCells]) -> FluxRatios:
    """Return the flux ratios of frames, from the cells that stand out in two of them.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> stars = np.where(rng.random((20, 20)) < 0.1, rng.uniform(50, 90, (20, 20)), 0)
    >>> frames = [
    ...     FrameCells(f * stars + rng.normal(9, 0.1, stars.shape), np.full(stars.shape, 0.01), (0, 0), str(f))
    ...     for f in (1, 1, 2)
    ... ]
    >>> measure_flux(frames).ratio.round(2)
    array([1., 1., 2.])
    """
    order = sorted(range(len(frames)), key=lambda i: frames[i].token)
    found = flux_ratios([bright_cells(f.values, f.variances, f.offset, wide=False) for f in (frames[i] for i in order)])
    back = np.empty(len(frames), np.int64)
    back[order] = np.arange(len(frames))
    return FluxRatios(found.ratio[back], found.error[back], found.group[back])


def flux_ratios(bright: Sequence[Bright]) -> FluxRatios:
    """Return the flux ratios of frames from what stands out in each."""
    pairs, count = _pairs(bright), len(bright)
    logs, errors, group = np.zeros(count), np.full(count, np.nan), np.arange(count)
    if pairs.size:
        logs, errors, group = _solve(pairs, count)
    return FluxRatios(np.exp(logs), errors, group)


def check_flux(found: FluxRatios, names: Sequence[str], stated: Array) -> None:
    """Raise an error if a frame is far from the scale that it states.

    Parameters
    ----------
    found
        Ratios of frames that were multiplied by their scale.
    names
        What frames are called.
    stated
        The scales.

    Raises
    ------
    ParameterError
        Raised if a frame is off by more than a fifth, and surely so.
    """
    with np.errstate(invalid="ignore"):
        off = np.abs(np.log(found.ratio)) - SURE * found.error > np.log1p(TOLERANCE)
    if not off.any():
        return
    worst = int(np.argmax(np.where(off, np.abs(np.log(found.ratio)), 0)))
    beside = [i for i in np.flatnonzero(found.group == found.group[worst]).tolist() if i != worst]
    others = names[beside[0]] if len(beside) == 1 else f"{len(beside)} other frames"
    more = f" So {'is' if off.sum() == 2 else 'are'} {int(off.sum()) - 1} more." if off.sum() > 1 else ""
    raise ParameterError(
        f"{names[worst]} states the flux scale {stated[worst]:.4g}, and with it stars are {found.ratio[worst]:.3f} +- "
        f"{found.ratio[worst] * found.error[worst]:.3f} times as bright as in {others} where they overlap.{more} State the scale by "
        "flux_scale='exposure', a keyword or numbers; flux_scale='overlaps' takes the scales from the overlaps. Or leave the frame out."
    )


def bright_cells(values: Array, variances: Array, offset: tuple[int, int], *, wide: bool) -> Bright:
    """Return what stands out of its surroundings in the cells of a frame.

    Parameters
    ----------
    values, variances
        Means of the cells of a frame, and their variances; NaN where there are none, shape ``(rows, columns)``.
    offset
        Row and column of the first cell among all.
    wide
        Whether a star may reach beyond its cell: then only the brightest cell of its neighbours counts, with the sum of all nine.
    """
    above = values - _surroundings(values, hole=wide)
    known = np.isfinite(above) & np.isfinite(variances)
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(above[known]))) if known.any() else 0.0
    noise = np.maximum(np.sqrt(variances), scatter)
    flux = above
    with np.errstate(invalid="ignore"):  # a comparison with NaN is False
        stands = known & (above > STANDS_OUT * noise)
        if wide:
            padded = np.pad(above, 1, constant_values=np.nan)
            nine = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*above.shape, 9)
            flux = nine.sum(axis=-1)
            stands &= (above >= nine.max(axis=-1)) & (flux > MEASURABLE * 3 * noise)
    rows, columns = np.nonzero(stands)
    return Bright((rows + offset[0]) * ROW + columns + offset[1], flux[stands])


def _surroundings(values: Array, *, hole: bool) -> Array:
    """Return the median of the cells about each, of those that are no neighbours if there is a hole; NaN where there are none."""
    padded = np.pad(values, SIDE // 2, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE))
    counts = np.ones((SIDE, SIDE), bool)
    counts[1:-1, 1:-1] = not hole
    ordered = np.sort(
        windows[:, :, counts], axis=-1
    )  # NaN comes last; np.nanmedian would warn where there is nothing else
    number = np.count_nonzero(np.isfinite(ordered), axis=-1)[..., None]
    low, high = (np.take_along_axis(ordered, np.maximum(k, 0), axis=-1) for k in ((number - 1) // 2, number // 2))
    middle = ((low + np.where(number > 1, high, low)) / 2)[..., 0]
    return np.where(number[..., 0] > 0, middle, np.nan)


def _pairs(bright: Sequence[Bright]) -> Array:
    """Return the pairs of frames that share bright cells: both numbers, the logarithm of their ratio, and its error."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(len(b.place) for b in bright)])
    _, place = np.unique(np.concatenate([b.place for b in bright]), return_inverse=True)
    has = csr_array((np.ones(place.size), place, ends), shape=(len(bright), int(place.max(initial=0)) + 1))
    common = (has @ has.T).tocoo()
    keep = (common.row < common.col) & (common.data >= FEWEST)
    pairs = []
    for i, j in sorted(zip(common.row[keep].tolist(), common.col[keep].tolist(), strict=True)):
        _, first, second = np.intersect1d(bright[i].place, bright[j].place, assume_unique=True, return_indices=True)
        logs = np.log(bright[i].flux[first] / bright[j].flux[second])
        middle = float(np.median(logs))
        # that of a median
        error = 1.2533 * MAD_TO_SIGMA * float(np.median(np.abs(logs - middle))) / np.sqrt(logs.size)
        pairs.append((i, j, middle, max(error, LEAST_ERROR / np.sqrt(logs.size))))
    return np.array(pairs).reshape(-1, 4)


def _solve(pairs: Array, count: int) -> tuple[Array, Array, Array]:
    """Return the logarithm of each frame's flux about the median of its group, its error, and the group."""
    from scipy.sparse import coo_array, csc_array, diags_array
    from scipy.sparse.csgraph import connected_components, laplacian
    from scipy.sparse.linalg import splu

    i, j = pairs[:, :2].T.astype(np.int64)
    both = (np.r_[i, j], np.r_[j, i])
    degree = np.bincount(both[0], minlength=count)
    # n frames on one another make n (n - 1) / 2 pairs, of which n - 1 are independent
    weight = pairs[:, 3] ** -2 * 2 / (1 + np.maximum(degree[i], degree[j]))
    links = coo_array((np.r_[weight, weight], both), shape=(count, count)).tocsr()
    group = connected_components(links, directed=False)[1]
    right = np.bincount(i, weight * pairs[:, 2], count) - np.bincount(j, weight * pairs[:, 2], count)
    # the mean of each group is held near 0 by a prior that is too weak to matter
    matrix = csc_array(laplacian(links) + diags_array(np.full(count, 1e-7 * weight.max())))
    solver = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    logs, errors = solver.solve(right), np.full(count, np.nan)
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group == number)
        if members.size == 1:
            logs[members] = 0.0
            continue
        # the median, so that one frame that is off does not make all others be off
        logs[members] -= np.median(logs[members])
        unit = np.zeros((count, members.size))
        unit[members, range(members.size)] = 1
        covariance = solver.solve(unit)[members]
        mean = covariance.mean(axis=0)
        errors[members] = np.sqrt(np.maximum(np.diag(covariance) - 2 * mean + mean.mean(), 0))
    return logs, errors, group
