"""Match the backgrounds of frames that overlap on the sky: one least squares for all of them.

1. Each frame is reduced to means on cells of the output grid (`FrameCells`), so that frames that overlap share cells.
2. `match_backgrounds` finds a constant or a plane per frame, such that frames agree in the cells that they share.
3. Frames that are connected by overlaps are a group. The corrections of a group add up to zero, so matching moves frames
   against each other and neither adds sky nor takes any away.

Differences of all pairs of frames would count the same noise several times. Here the sky of each shared cell is an unknown
too, and eliminated: that is the least squares of all differences with the one set of weights, w_i w_j / sum(w), for which errors
can be stated. The relaxation of Montage's mBgModel aims at the same planes, frame by frame, and has no errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Array
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.selected_inverse import filled, invert_on_pattern

if TYPE_CHECKING:
    from astropy.table import Table

Match: TypeAlias = Literal["constant", "plane"]

TERMS: dict[str, int] = {"constant": 1, "plane": 3}
"""Unknowns of a frame."""

CLIP = 4.0
"""Cells further from the median of the frames there, in robust standard deviations, hold something that moves or varies."""

LEAST_SPREAD = 0.5
"""The robust deviation of a frame's cells is at least this fraction of the stated one: few cells may agree by chance."""

ROUNDS = 10
"""How often cells are chosen anew, at most."""

SETTLED = 1e-3
"""Fraction of the cells that may still change when the choice counts as made: cells at the limit come and go for ever."""

FEWEST_CELLS = 4
"""Two frames that share fewer cells are linked weakly: an outlier among these cannot be told."""

SLOPE_PRIOR = 3.0
"""How far a plane may reach at the edge of a frame before data have to prove it: in deviations left after constants.

Where overlaps say what a slope is, the prior moves it by less than its error; the slope of a frame that shares one row of
cells, of which nothing is known, becomes 0.
"""

COLUMNS = {
    "constant": "correction at the middle of the frame",
    "slope_y": "its slope along y, per pixel of the output",
    "slope_x": "its slope along x",
    "constant_error": "standard deviation of the constant",
    "slope_y_error": "standard deviation of the slope along y",
    "slope_x_error": "standard deviation of the slope along x",
    "y": "row of the output that counts as the middle of the frame",
    "x": "column of the output that counts as the middle of the frame",
    "group": "number of the connected group, the largest first",
    "n_overlaps": "frames that share cells with this one",
    "n_weak": "those of them that share fewer than four",
    "n_cells": "shared cells that were used",
    "n_clipped": "shared cells that were left out as outliers",
    "before": "rms difference from the mean of the frames in these cells, weighted by their variances",
    "after": "the same after the correction",
    "regularised": "whether overlaps say too little of the slopes, which are pulled towards 0",
}
"""What is found of each frame, one number each."""

COUNTS = ("group", "n_overlaps", "n_weak", "n_cells", "n_clipped")


class FrameCells(NamedTuple):
    """Means of a frame on cells of the output grid."""

    values: Array
    """Mean of the good pixels of each cell; NaN where the frame covers too little of it."""

    variances: Array
    """Variance of each mean."""

    offset: tuple[int, int]
    """Row and column of the first cell among the cells of the grid."""

    token: str
    """What tells the frame from others. Frames are taken in this order, so that the order of the caller changes no bit."""

    name: str = ""
    """What the frame is called in tables."""


@dataclass(frozen=True)
class BackgroundMatch:
    """Corrections to be subtracted from frames, with their errors."""

    names: tuple[str, ...]
    """Names of the frames, in the order of the caller."""

    array: Array
    """A row per frame, a column for each of `COLUMNS`."""

    def column(self, name: str) -> Array:
        """Return one number per frame."""
        return np.asarray(self.array[:, list(COLUMNS).index(name)])

    @property
    def planes(self) -> Array:
        """Constant, slope along y and slope along x of each frame, about its middle."""
        return np.asarray(self.array[:, :3])

    @property
    def table(self) -> Table:
        """A row per frame, with names and descriptions."""
        from astropy.table import Table  # takes a while, and few look at it

        table = Table({"frame": np.array(self.names, dtype=str)})
        for name, text in COLUMNS.items():
            values = self.column(name)
            if name in COUNTS:
                values = values.astype(np.int64)
            table[name] = values.astype(bool) if name == "regularised" else values
            table[name].description = text
        return table


class _Samples(NamedTuple):
    """Shared cells of all frames, one after the other."""

    frame: Array
    cell: Array
    """Number of the cell, among those that at least two frames have."""

    value: Array
    variance: Array
    terms: Array
    """What multiplies each unknown of the frame: 1, and the place in the frame from -1 to 1; shape (samples, terms)."""

    middles: Array
    """Middle of each frame, on the scale of the terms; shape (frames, 2)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of frames, of unknowns of each, and of cells."""
        return self.middles.shape[0], self.terms.shape[1], int(self.cell.max(initial=-1)) + 1


class _Fit(NamedTuple):
    """Corrections from the samples that are kept."""

    unknowns: Array
    """Shape (frames, terms)."""

    errors: Array
    group: Array
    rest: Array
    """What is left of each sample, relative to the mean of its cell."""


def match_backgrounds(frames: Sequence[FrameCells], cell: tuple[int, int], match: Match = "plane") -> BackgroundMatch:
    """Return the corrections that make frames agree where they overlap.

    Parameters
    ----------
    frames
        Frames on cells of one grid.
    cell
        Rows and columns of a cell, in pixels of the output.
    match
        ``"constant"`` or ``"plane"``.

    Returns
    -------
    BackgroundMatch
        What is to be subtracted from each frame. In each connected group the constants add up to zero, and so do the slopes. A
        frame without overlaps has no correction and is a group of its own. Errors are scaled by the scatter of the cells, if
        that is larger than their variances say.

    Raises
    ------
    ParameterError
        Raised if ``match`` is something else, or there is no frame.

    Notes
    -----
    Cells in which a frame is further than four robust standard deviations from the median of the frames there are left out
    and the fit is repeated; of two frames nobody knows which is right, so such a cell is left out of both.

    Examples
    --------
    >>> sky = np.random.default_rng(1).normal(50, 1, (8, 12))
    >>> left = FrameCells(sky[:, :8] + 3, np.full((8, 8), 0.01), (0, 0), "a")
    >>> right = FrameCells(sky[:, 4:] - 1, np.full((8, 8), 0.01), (0, 4), "b")
    >>> match_backgrounds([left, right], (32, 32), "constant").column("constant").round(3)
    array([ 2., -2.])
    """
    if match not in TERMS:
        raise ParameterError(f"match {match!r} must be 'constant' or 'plane'.")
    if not frames:
        raise ParameterError("match_backgrounds() got no frame.")
    # in an order that the caller does not choose: sums of floats depend on it
    order = sorted(range(len(frames)), key=lambda i: frames[i].token)
    ordered = [frames[i] for i in order]
    middles = np.array([_middle(frame, cell) for frame in ordered])
    reach = max(max(size * n for size, n in zip(cell, frame.values.shape, strict=True)) / 2 for frame in ordered)
    samples = _gather(ordered, cell, middles, reach, TERMS[match])
    found = np.empty((len(frames), len(COLUMNS)))
    found[order] = _corrections(samples, reach)
    return BackgroundMatch(tuple(frame.name or frame.token for frame in frames), found)


def _middle(frame: FrameCells, cell: tuple[int, int]) -> tuple[float, float]:
    """Return the pixel of the output in the middle of a frame."""
    y, x = ((o + n / 2) * c - 0.5 for o, n, c in zip(frame.offset, frame.values.shape, cell, strict=True))
    return y, x


def _gather(frames: Sequence[FrameCells], cell: tuple[int, int], middles: Array, reach: float, terms: int) -> _Samples:
    """Return the cells that at least two frames have."""
    parts = []
    for number, (frame, middle) in enumerate(zip(frames, middles, strict=True)):
        values, variances = (np.asarray(plane, np.float64) for plane in (frame.values, frame.variances))
        rows, columns = np.nonzero(np.isfinite(values) & np.isfinite(variances) & (variances >= 0))
        variance = variances[rows, columns]
        y, x = rows + frame.offset[0], columns + frame.offset[1]
        along = [((k + 0.5) * c - 0.5 - m) / reach for k, c, m in zip((y, x), cell, middle, strict=True)]
        whole = np.stack([np.ones(rows.size), *along], axis=1)
        parts.append((np.full(rows.size, number), y, x, values[rows, columns], _positive(variance), whole[:, :terms]))
    owner, y, x, value, variance, whole = (np.concatenate(part) for part in zip(*parts, strict=True))
    _, place, times = np.unique(y * (np.ptp(x) + 1 if x.size else 1) + x, return_inverse=True, return_counts=True)
    shared = times[place] > 1
    index = np.unique(place[shared], return_inverse=True)[1]
    return _Samples(owner[shared], index, value[shared], variance[shared], whole[shared], middles / reach)


def _positive(variance: Array) -> Array:
    """Return variances none of which is so small that one cell would decide alone."""
    known = variance[variance > 0]
    return np.asarray(np.maximum(variance, 1e-3 * np.median(known) if known.size else 1.0))


def _corrections(samples: _Samples, reach: float) -> Array:
    """Return the columns of the frames."""
    count, terms, _ = samples.shape
    keep = np.ones(samples.frame.size, bool)
    scale = np.ones(count)
    prior = _slope_prior(samples) if terms > 1 else np.inf
    fit = _solve(samples, keep, scale, prior)
    for _ in range(ROUNDS):
        chosen = _near(samples, fit)
        changed = np.count_nonzero(chosen != keep)
        keep = chosen
        if changed <= SETTLED * keep.size:
            break
        fit = _solve(samples, keep, scale, prior)
    scale = _excess(samples, keep, fit)
    # with the variances that the scatter shows: they decide how far slopes are pulled, and what the errors are
    fit = _solve(samples, keep, scale, prior, with_errors=True)
    return _columns(samples, keep, fit, scale, reach, prior)


def _slope_prior(samples: _Samples) -> float:
    """Return how large slopes may be, from what constants leave over."""
    flat = samples._replace(terms=samples.terms[:, :1])
    rest = _solve(flat, np.ones(samples.frame.size, bool), np.ones(samples.shape[0]), np.inf).rest
    left = MAD_TO_SIGMA * float(np.median(np.abs(rest))) if rest.size else 0.0
    stated = float(np.sqrt(np.median(samples.variance))) if rest.size else 1.0
    return SLOPE_PRIOR * max(left, stated)


def _solve(samples: _Samples, keep: Array, scale: Array, prior: float, *, with_errors: bool = False) -> _Fit:
    """Return the least squares of the samples that are kept.

    Parameters
    ----------
    samples
        Shared cells.
    keep
        Which of them count.
    scale
        By which factor the variances of each frame are too small.
    prior
        Standard deviation of slopes.
    with_errors
        Whether errors are wanted, which take longer than the unknowns.
    """
    from scipy.sparse.linalg import splu  # takes a while, and only coadds need it

    count, terms, _ = samples.shape
    weight = np.where(keep, 1 / (samples.variance * scale[samples.frame]), 0.0)
    group = _groups(samples, keep)
    matrix, right = _normal_equations(samples, weight)
    diagonal = np.zeros((count, terms))
    diagonal[:, 1:] = prior**-2
    matrix.setdiag(matrix.diagonal() + diagonal.ravel())
    # a constant may be added to all frames of a group: the first one's is held, and the mean subtracted afterwards
    first = np.unique(group, return_index=True)[1]
    free = np.setdiff1d(np.arange(count * terms), first * terms)
    unknowns, errors = np.zeros(count * terms), np.full((count, terms), np.nan)
    if free.size:
        small = matrix.tocsc()[free][:, free]
        solver = splu(small, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        unknowns[free] = solver.solve(right[free])
        if with_errors:
            errors = _errors(solver, free, group, samples.middles, terms)
    found = unknowns.reshape(count, terms)
    found = _centered(found, group, samples.middles)
    left = samples.value - np.einsum("st,st->s", samples.terms, found[samples.frame])
    return _Fit(found, errors, group, left - _means(left, samples.cell, weight)[samples.cell])


def _common(group: Array, middles: Array, terms: int) -> Array:
    """Return what may be added to all frames of a group, since no difference tells it: a constant, and slopes.

    Shape (frames, terms, terms): what the k-th common term adds to each unknown of each frame.
    """
    out = np.zeros((group.size, terms, terms))
    out[:, range(terms), range(terms)] = 1
    for k in range(1, terms):
        out[:, 0, k] = middles[:, k - 1] - _means(middles[:, k - 1], group)[group]
    return out


def _centered(unknowns: Array, group: Array, middles: Array) -> Array:
    """Return the unknowns with sums of zero in each group.

    The prior leaves slopes whose sum is zero to about eight digits, so that what it costs to subtract the rest is nothing.
    """
    means = np.stack([_means(column, group)[group] for column in unknowns.T], axis=1)
    return np.asarray(unknowns - np.einsum("fjk,fk->fj", _common(group, middles, unknowns.shape[1]), means))


def _normal_equations(samples: _Samples, weight: Array) -> tuple[Any, Array]:
    """Return matrix and right side of the unknowns of the frames, those of the cells eliminated."""
    from scipy.sparse import csr_array, diags_array

    count, terms, cells = samples.shape
    rows = (samples.frame[:, None] * terms + np.arange(terms)).ravel()
    columns = np.repeat(samples.cell, terms)
    weighted = weight[:, None] * samples.terms
    across = csr_array((weighted.ravel(), (rows, columns)), shape=(count * terms, cells))
    squares = _squares(samples, weight)
    numbers = np.arange(count * terms).reshape(count, terms)
    places = np.broadcast_arrays(numbers[:, :, None], numbers[:, None, :])
    own = csr_array((squares.ravel(), (places[0].ravel(), places[1].ravel())), shape=(count * terms,) * 2)
    total = np.bincount(samples.cell, weight, cells)
    inverse = np.divide(1, total, out=np.zeros(cells), where=total > 0)
    matrix = own - across @ diags_array(inverse) @ across.T
    difference = samples.value - _means(samples.value, samples.cell, weight)[samples.cell]
    right = np.bincount(rows, (weighted * difference[:, None]).ravel(), count * terms)
    return matrix, right


def _squares(samples: _Samples, weight: Array) -> Array:
    """Return the weighted sums of products of each frame's terms; shape (frames, terms, terms)."""
    count, terms, _ = samples.shape
    out = np.empty((count, terms, terms))
    for j in range(terms):
        for k in range(j + 1):
            out[:, j, k] = np.bincount(samples.frame, weight * samples.terms[:, j] * samples.terms[:, k], count)
            out[:, k, j] = out[:, j, k]
    return out


def _groups(samples: _Samples, keep: Array) -> Array:
    """Return the number of each frame's connected group, the largest first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count, _, cells = samples.shape
    size = count + cells
    links = (samples.frame[keep], count + samples.cell[keep])
    labels = connected_components(coo_array((np.ones(links[0].size), links), shape=(size, size)), directed=False)[1]
    _, first, label, number = np.unique(labels[:count], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(first.size, np.int64)
    rank[np.lexsort((first, -number))] = np.arange(first.size)
    return rank[label.ravel()]


def _means(values: Array, index: Array, weight: Array | None = None) -> Array:
    """Return the mean of the values of each index; 0 where they have no weight."""
    weight = np.ones(values.size) if weight is None else weight
    total = np.bincount(index, weight)
    return np.divide(np.bincount(index, weight * values), total, out=np.zeros(total.size), where=total > 0)


def _near(samples: _Samples, fit: _Fit) -> Array:
    """Return which samples agree with the median of the frames in their cell."""
    left = samples.value - np.einsum("st,st->s", samples.terms, fit.unknowns[samples.frame])
    number = np.bincount(samples.cell)
    # the frames beside it are noisy too: a deep frame is no outlier because it differs from a shallow one
    variance = samples.variance + (np.bincount(samples.cell, samples.variance) / number**2)[samples.cell]
    off = np.abs(left - _medians(left, samples.cell)[samples.cell]) / np.sqrt(variance)
    spread = np.maximum(MAD_TO_SIGMA * _medians(off, samples.frame, samples.shape[0]), LEAST_SPREAD)
    return np.asarray(off <= CLIP * spread[samples.frame])


def _medians(values: Array, index: Array, count: int = 0) -> Array:
    """Return the median of the values of each index; 0 where there are none."""
    number = np.bincount(index, minlength=count)
    ordered = np.append(values[np.lexsort((values, index))], 0.0)
    start = np.cumsum(number) - number
    low, high = start + np.maximum(number - 1, 0) // 2, start + number // 2
    return np.where(number > 0, (ordered[low] + ordered[high]) / 2, 0.0)


def _excess(samples: _Samples, keep: Array, fit: _Fit) -> Array:
    """Return for each frame by which factor the scatter in its group is larger than the variances say, at least 1."""
    _, terms, _ = samples.shape
    group, groups = fit.group, int(fit.group.max()) + 1
    own = group[samples.frame[keep]]
    chi2 = np.bincount(own, (fit.rest**2 / samples.variance)[keep], groups)
    used = np.unique(samples.cell[keep], return_index=True)[1]
    freedom = np.bincount(own, minlength=groups) - np.bincount(own[used], minlength=groups)
    freedom -= terms * (np.bincount(group, minlength=groups) - 1)
    return np.asarray(np.where(freedom > 0, np.maximum(chi2 / np.maximum(freedom, 1), 1.0), 1.0)[group])


def _errors(solver: Any, free: Array, group: Array, middles: Array, terms: int) -> Array:
    """Return the standard deviations of the unknowns, after what is common to a group was subtracted."""
    found = np.zeros(group.size * terms)
    found[free] = _inverse_diagonal(solver)
    # covariances with the mean of each term: groups do not mix, so one solution per term is enough for all groups
    size = np.bincount(group)[group]
    mean = np.zeros((group.size, terms, terms))
    mean[:, range(terms), range(terms)] = 1 / size[:, None]
    flat = np.zeros((group.size * terms, terms))
    flat[free] = solver.solve(mean.reshape(-1, terms)[free])
    across = flat.reshape(-1, terms, terms)
    of_means = np.stack([[_means(across[:, j, k], group) for k in range(terms)] for j in range(terms)])
    common = _common(group, middles, terms)
    out = found.reshape(-1, terms) - 2 * np.einsum("fjk,fjk->fj", common, across)
    out += np.einsum("fjk,klf,fjl->fj", common, of_means[:, :, group], common)
    return np.asarray(np.sqrt(np.maximum(out, 0)))


def _inverse_diagonal(solver: Any) -> Array:
    """Return the diagonal of the inverse of a symmetric matrix, of which the factors are given."""
    from scipy.sparse import tril

    below = tril(solver.L, -1, format="csc")
    starts, rows, lower = filled(below.indptr.astype(np.int64), below.indices.astype(np.int64), below.data)
    size = solver.shape[0]
    inverse, scratch = np.zeros(size), (np.zeros(lower.size), np.full(size, -1), np.zeros(size))
    invert_on_pattern(starts, rows, lower, solver.U.diagonal(), *scratch, inverse)
    # the matrix has a positive diagonal, from which no pivot strays: rows are ordered as columns are
    return np.asarray(inverse[solver.perm_c])


def _slope_errors(samples: _Samples, keep: Array, scale: Array, prior: float) -> Array:
    """Return the standard deviations of each frame's slopes if all other frames were known."""
    count, terms, cells = samples.shape
    if terms == 1:
        return np.zeros((count, 0))
    weight = np.where(keep, 1 / (samples.variance * scale[samples.frame]), 0.0)
    total = np.bincount(samples.cell, weight, cells)[samples.cell]
    weight = weight * (1 - np.divide(weight, total, out=np.zeros(weight.size), where=total > 0))
    power = _squares(samples, weight)
    power[:, range(terms), range(terms)] += prior**-2
    return np.asarray(np.sqrt(np.linalg.inv(power)[:, range(1, terms), range(1, terms)]))


def _columns(samples: _Samples, keep: Array, fit: _Fit, scale: Array, reach: float, prior: float) -> Array:
    """Return the numbers of each frame."""
    from scipy.sparse import csr_array

    count, terms, cells = samples.shape
    out: dict[str, Array] = dict.fromkeys(COLUMNS, np.zeros(count))
    slopes = np.full(count, 1 / reach)
    for k, name in enumerate(("constant", "slope_y", "slope_x")[:terms]):
        unit = slopes if k else 1.0
        out[name], out[f"{name}_error"] = fit.unknowns[:, k] * unit, fit.errors[:, k] * unit
    out["y"], out["x"], out["group"] = *(samples.middles * reach).T, fit.group
    frame, cell = samples.frame[keep], samples.cell[keep]
    has = csr_array((np.ones(frame.size), (frame, cell)), shape=(count, cells))
    common = (has @ has.T).tocoo()
    other = common.row != common.col
    out["n_overlaps"] = np.bincount(common.row[other], minlength=count)
    out["n_weak"] = np.bincount(common.row[other & (common.data < FEWEST_CELLS)], minlength=count)
    out["n_cells"] = np.bincount(frame, minlength=count)
    out["n_clipped"] = np.bincount(samples.frame[~keep], minlength=count)
    # weighted as the fit is: the edges of bright stars would hide everything else
    weight = np.where(keep, 1 / samples.variance, 0.0)
    before = samples.value - _means(samples.value, samples.cell, weight)[samples.cell]
    total = np.bincount(samples.frame, weight, count)
    for name, rest in (("before", before), ("after", fit.rest)):
        power = np.bincount(samples.frame, weight * rest**2, count)
        out[name] = np.sqrt(np.divide(power, total, out=np.zeros(count), where=total > 0))
    for name in COLUMNS:
        if name.endswith("_error"):
            out[name] = np.where(out["n_overlaps"] > 0, out[name], np.nan)
    # a slope whose error is half of the prior's width is pulled by a quarter of its size
    out["regularised"] = np.any(_slope_errors(samples, keep, scale, prior) > prior / 2, axis=1)
    return np.stack([np.asarray(out[name], np.float64) for name in COLUMNS], axis=1)
