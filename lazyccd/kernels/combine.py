"""Many frames to one, pixel by pixel: which inputs count, what is rejected, what comes out and how sure it is.

1. A band is cut into pieces, frames x pixels, that stay in cache.
2. The good inputs of each pixel are taken, or the least bad ones where all are bad.
3. Each clip in turn looks at the inputs that are left and takes some away: first those on values as they are, then, when
   frames were brought to one level, the one on scaled values. Neighbours of what was rejected may follow.
4. What is left is combined. Every sum runs over the frames in their order, so that no cut changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import MAPS, Block, Request, empty_block
from lazyccd.kernels.clipping import MAD_TO_STD, WHOLE_LINES, mean_of, run_clip
from lazyccd.kernels.levels import Scaling, find_scaling
from lazyccd.kernels.piece import Piece, Rule
from lazyccd.kernels.pointwise import remap_bits
from lazyccd.kernels.rejection import grow_rejected
from lazyccd.kernels.stack_loops import (
    count_of,
    deviation_of,
    finite_inputs,
    good_inputs,
    least_bad_inputs,
    median_of,
    merge_bits,
    pixel_weighted_sum,
    squares_about,
    weighted_sum,
)
from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]
Cut: TypeAlias = tuple[slice, slice]

PIECE_BYTES = 2**20
"""Size of the values of a piece; a few such arrays fit into a core's cache."""

SATURATED_SHARE = 0.1
"""SAT is set if a larger share of the weight was left out because of it."""

MEDIAN_FACTORS = (1.0, 1.0, 1.3460, 1.1928, 1.4342, 1.2885, 1.4731, 1.3455, 1.4949, 1.3833)
"""Variance of the median of 1, 2, ... normal values over that of their mean."""

BITS_PER_WORD = 64
"""Frames in a word of a rejection map."""


def combine_frames(request: Request, blocks: Sequence[Block], *, rule: Rule, **numbers: Array) -> Block:
    """Combine blocks, one per frame, by a rule.

    Where all inputs are bad, those of the least bad class are used and nothing is rejected. Where none is left, the mask is
    NO_DATA, the data are NaN (a sum is 0) and the variance is NaN. Blocks may be larger than the request where neighbours or
    whole lines matter.
    """
    names = {"data": rule.dtype, "variance": rule.dtype, "mask": rule.mask_dtype, **MAPS}
    out = empty_block(request, {plane: np.dtype(name) for plane, name in names.items()})
    scaling = find_scaling(rule.levels, rule.count, numbers)
    variances = "variance" in request.planes and rule.uncertainty == "propagated"
    for cut, piece, given in clipped_pieces(request.region, blocks, rule, scaling, variances=variances):
        _finish(piece, given, rule, scaling, cut, out)
    return out


def rejection_words(request: Request, blocks: Sequence[Block], *, rule: Rule, word: int, **numbers: Array) -> Block:
    """Return 64 bits per pixel: which of 64 frames were good and rejected."""
    out = empty_block(request, {"data": np.dtype(np.uint64)})
    scaling = find_scaling(rule.levels, rule.count, numbers)
    first = word * BITS_PER_WORD
    for cut, piece, given in clipped_pieces(request.region, blocks, rule, scaling, variances=False):
        rejected = (given & ~piece.use)[first : first + BITS_PER_WORD]
        shifts = np.arange(len(rejected), dtype=np.uint64)[:, None]
        words = np.bitwise_or.reduce(rejected.astype(np.uint64) << shifts, axis=0)
        out.plane("data")[cut] = words.reshape(_shape(cut))
    return out


def clipped_pieces(
    region: Region, blocks: Sequence[Block], rule: Rule, scaling: Scaling, *, variances: bool
) -> Iterator[tuple[Cut, Piece, Array]]:
    """Yield for each piece of a region its place, the piece after all rejections, and what counted before them."""
    held = blocks[0].region
    inner = region.within(held)
    flagged = any(block.mask is not None and block.mask.any() for block in blocks[: rule.count])
    rule = rule if flagged else replace(rule, remaps=(None,) * rule.count)
    if rule.grow < 1:
        for cut in _cuts(held, rule):
            piece = gather_piece(blocks, cut, rule, scaling, variances=variances)
            given = _reject(piece, rule)
            if (part := _inside(cut, inner)) is not None:
                yield _trimmed(part, cut, piece, given, inner)
        return
    rejected = np.zeros((rule.count, *held.shape), np.bool_)
    for cut in _cuts(held, rule):
        piece = gather_piece(blocks, cut, rule, scaling, variances=False)
        given = _reject(piece, rule)
        rejected[:, *cut] = (given & ~piece.use).reshape(rule.count, *_shape(cut))
    grown = np.zeros_like(rejected)
    grow_rejected(rejected, rule.grow, grown)
    del rejected
    for cut in _cuts(held, rule):
        if (part := _inside(cut, inner)) is None:
            continue
        piece = gather_piece(blocks, cut, rule, scaling, variances=variances)
        given = _reject(piece, rule)
        apply_grown(piece, grown[:, *cut].reshape(rule.count, -1), given, rule)
        yield _trimmed(part, cut, piece, given, inner)


def reasons(request: Request, blocks: Sequence[Block], *, rule: Rule, **numbers: Array) -> tuple[Array, list[str]]:
    """Return the scaled values of one pixel, and for each frame why it was left out; an empty word if it was used."""
    scaling = find_scaling(rule.levels, rule.count, numbers)
    (y, x), held = request.region.within(blocks[0].region), blocks[0].region
    (cut,) = [c for c in _cuts(held, rule) if c[0].start <= y.start < c[0].stop and c[1].start <= x.start < c[1].stop]
    piece = gather_piece(blocks, cut, rule, scaling, variances=False)
    place = (y.start - cut[0].start) * (cut[1].stop - cut[1].start) + x.start - cut[1].start
    before = piece.use[:, place].copy()
    words = ["" if good else "masked" for good in before]
    for name in run_clips(piece, rule):
        words = [name if a and not b else word for a, b, word in zip(before, piece.use[:, place], words, strict=True)]
        before &= piece.use[:, place]
    ((_, final, _),) = clipped_pieces(request.region, blocks, rule, scaling, variances=False)
    used = final.use[:, 0]
    return piece.values[:, place], ["" if u else word or "grow" for u, word in zip(used, words, strict=True)]


def apply_grown(piece: Piece, grown: Array, given: Array, rule: Rule) -> None:
    """Reject the neighbours of rejected inputs, except in pixels that would keep fewer inputs than they must."""
    before = count_of(given)
    kept = np.minimum(before, rule.nkeep) if rule.nkeep > 0 else np.maximum(0, before + rule.nkeep)
    use = piece.use & ~grown
    enough = count_of(use) >= np.maximum(kept, np.minimum(before, 1))
    piece.use[:, enough] = use[:, enough]


def _reject(piece: Piece, rule: Rule) -> Array:
    """Run all clips on a piece; return what counted before."""
    given = piece.use.copy()
    for _ in run_clips(piece, rule):
        pass
    return given


def run_clips(piece: Piece, rule: Rule) -> Iterator[str]:
    """Run the clips one after another; yield the name of each when it is done."""
    exempt = _choose(piece, rule)
    saved = None if exempt is None else piece.use[:, exempt].copy()
    for clip in rule.clips:
        run_clip(piece, clip)
        yield clip[0]
    _scale(piece)
    if rule.reject is not None:
        run_clip(piece, rule.reject, rule.nkeep)
        yield rule.reject[0]
    if saved is not None:
        piece.use[:, exempt] = saved


def gather_piece(blocks: Sequence[Block], cut: Cut, rule: Rule, scaling: Scaling, *, variances: bool) -> Piece:
    """Copy a piece of all frames, and choose the good inputs."""
    shape = (rule.count, *_shape(cut))
    flat = (rule.count, shape[1] * shape[2])
    values = np.empty(shape, rule.work)
    flagged = any(remap is not None for remap in rule.remaps)
    bits = np.zeros(shape, np.uint32) if flagged else None
    variances |= rule.reject is not None and rule.reject[0] == "varclip"
    given = np.empty(shape) if variances else None
    for i, block in enumerate(blocks[: rule.count]):
        values[i] = block.plane("data")[cut]
        remap = rule.remaps[i]
        if bits is not None and remap is not None:
            bits[i] = remap_bits(block.plane("mask")[cut], remap, np.uint32)
        if given is not None:
            given[i] = block.plane("variance")[cut]
    piece = Piece(values.reshape(flat), np.empty(flat, np.bool_), np.empty(flat, rule.work))
    if bits is None:
        finite_inputs(piece.values, piece.use)
    else:
        piece.bits = bits.reshape(flat)
        good_inputs(piece.values, piece.bits, np.uint32(rule.bad), np.uint32(rule.no_data), piece.use)
    piece.variances = None if given is None else given.reshape(flat)
    more = list(blocks[rule.count :])
    if rule.has_pixel_weights:
        weights = np.array([more.pop(0).plane("data")[cut] for _ in range(rule.count)], float).reshape(flat)
        piece.weights = np.where(np.isfinite(weights) & (weights >= 0), weights, 0.0)
    if rule.shares_masters and more:
        piece.own = np.array([block.plane("variance")[cut] for block in more], float).reshape(flat)
    if not scaling.is_none:
        piece.multipliers, piece.offsets = scaling.multipliers, scaling.offsets
    if rule.noise is not None:
        piece.noise = np.array(rule.noise.terms)
    return piece


def _choose(piece: Piece, rule: Rule) -> Array | None:
    """Take the least bad inputs where there is no good one; return which pixels these are, None if there are none."""
    if piece.bits is None:
        return None
    exempt = np.zeros(piece.use.shape[1], np.bool_)
    found = least_bad_inputs(piece.bits, np.array(rule.ranks, np.uint32), piece.use, exempt)
    return np.flatnonzero(exempt) if found else None


def _scale(piece: Piece) -> None:
    """Bring all frames to one level."""
    if piece.multipliers is None or piece.offsets is None:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        piece.values = piece.values * piece.multipliers[:, None] + piece.offsets[:, None]
        piece.scratch = np.empty_like(piece.values)
        if piece.variances is not None:
            piece.variances = piece.variances * piece.multipliers[:, None] ** 2
        if piece.own is not None:
            piece.own = piece.own * piece.multipliers[:, None] ** 2


def _shape(cut: Cut) -> tuple[int, int]:
    return cut[0].stop - cut[0].start, cut[1].stop - cut[1].start


def _cuts(region: Region, rule: Rule) -> Iterator[Cut]:
    """Yield the pieces of a region, relative to it."""
    ny, nx = region.shape
    if rule.reject is not None and rule.reject[0] in WHOLE_LINES:
        width, rows = nx, 1
    else:
        pixels = max(256, PIECE_BYTES // (np.dtype(rule.work).itemsize * rule.count))
        width = -(-nx // -(-nx // pixels))
        rows = max(1, pixels // width)
    for y in range(0, ny, rows):
        for x in range(0, nx, width):
            yield slice(y, min(y + rows, ny)), slice(x, min(x + width, nx))


def _inside(cut: Cut, inner: Cut) -> Cut | None:
    """Return the part of a cut that lies in another one; None if there is none."""
    y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(cut, inner, strict=True))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def _trimmed(part: Cut, cut: Cut, piece: Piece, given: Array, inner: Cut) -> tuple[Cut, Piece, Array]:
    """Return the part of a piece that is asked for, with its place in the request."""
    place = tuple(slice(p.start - i.start, p.stop - i.start) for p, i in zip(part, inner, strict=True))
    if part != cut:
        numbers = np.arange(piece.use.shape[1]).reshape(_shape(cut))
        wanted = numbers[tuple(slice(p.start - c.start, p.stop - c.start) for p, c in zip(part, cut, strict=True))]
        piece, given = piece.take(wanted.ravel()), np.take(given, wanted.ravel(), axis=1)
    return (place[0], place[1]), piece, given


def _finish(piece: Piece, given: Array, rule: Rule, scaling: Scaling, cut: Cut, out: Block) -> None:
    """Combine what is left of a piece, and put it into the result."""
    weights = np.ones(rule.count) if rule.method == "median" else scaling.weights
    if rule.method == "median":
        piece.weights = None
    shape = _shape(cut)
    used = count_of(piece.use)
    rejected = count_of(given & ~piece.use)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total, norm = sum_of(piece, piece.values, weights)
        if out.data is not None:
            out.data[cut] = METHODS[rule.method](piece, total, norm).reshape(shape)
        if out.variance is not None:
            out.variance[cut] = UNCERTAINTIES[rule.uncertainty](piece, rule.method, weights).reshape(shape)
    if out.mask is not None:
        planes = np.array((rule.clipped, rule.no_data, rule.saturated), np.uint32)
        clipped, empty = rejected > 0, norm == 0
        if piece.bits is None:
            mask = np.where(clipped, planes[0], 0) | np.where(empty, planes[1], 0)
        else:
            mask = merge_bits(piece.bits, piece.use, clipped, empty, weights, planes, SATURATED_SHARE)
        out.mask[cut] = mask.reshape(shape)
    if out.n_used is not None:
        out.n_used[cut] = used.reshape(shape)
    if out.n_rejected is not None:
        out.n_rejected[cut] = rejected.reshape(shape)
    if out.exposure is not None:
        out.exposure[cut] = (np.array(rule.exposures)[:, None] * piece.use).sum(axis=0).reshape(shape)


# Methods: from a piece, and the weighted sum of values and the sum of weights, to the data.


def sum_of(piece: Piece, values: Array, weights: Array, power: int = 1) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights, which are raised to a power."""
    if piece.weights is not None:
        return pixel_weighted_sum(values, piece.use, piece.weights**power)
    return weighted_sum(values, piece.use, weights**power)


def _average(piece: Piece, total: Array, norm: Array) -> Array:
    return np.asarray(total / norm)


def _sum(piece: Piece, total: Array, norm: Array) -> Array:
    return total


def _median(piece: Piece, total: Array, norm: Array) -> Array:
    return np.asarray(median_of(piece.values, piece.use, piece.scratch))


METHODS: dict[str, Callable[[Piece, Array, Array], Array]] = {"average": _average, "median": _median, "sum": _sum}
"""Methods by name."""


# Uncertainties: from a piece, the method and weights to the variance.


def median_factor(count: int) -> float:
    """Return the variance of the median of normal values over that of their mean; pi/2 for very many.

    Examples
    --------
    >>> median_factor(3), round(median_factor(100), 2)
    (1.346, 1.55)
    """
    if count <= len(MEDIAN_FACTORS):
        return MEDIAN_FACTORS[max(count, 1) - 1]
    return 0.5 * np.pi * count / (count + (0.44 if count % 2 else 1.39))


def _variance_of(method: str, variances: Array, piece: Piece, weights: Array) -> Array:
    """Return the variance of a combination of independent inputs."""
    total, norm = sum_of(piece, variances, weights, power=2)
    if method == "sum":
        return np.where(norm > 0, total, np.nan)
    if method == "average":
        return np.asarray(total / sum_of(piece, variances, weights)[1] ** 2)
    factors = np.array([median_factor(n) for n in range(len(weights) + 1)])
    return np.asarray(total / norm**2 * factors[norm.astype(np.intp)])


def _propagated(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance by the variances of the inputs; what they have in common does not fall with their number."""
    assert piece.variances is not None
    if piece.own is None:
        return _variance_of(method, piece.variances, piece, weights)
    common = np.sqrt(np.maximum(piece.variances - piece.own, 0))
    total, norm = sum_of(piece, common, weights)
    return _variance_of(method, piece.own, piece, weights) + (total if method == "sum" else total / norm) ** 2


def _scatter(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance by the sample variance of the inputs that are left; NaN where there is only one."""
    squares = squares_about(piece.values, piece.use, mean_of(piece))
    sample = np.broadcast_to(squares / (count_of(piece.use) - 1), piece.values.shape)
    return _variance_of(method, np.ascontiguousarray(sample), piece, weights)


def _by_mad(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc estimates it by the median absolute deviation, without weights."""
    count = count_of(piece.use)
    middle = median_of(piece.values, piece.use, piece.scratch)
    deviation = MAD_TO_STD * deviation_of(piece.values, piece.use, middle, np.empty(piece.values.shape))
    return np.asarray(deviation**2 * (count if method == "sum" else 1 / count))


def _by_std(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc estimates it by the standard deviation of n, without weights."""
    count = count_of(piece.use)
    squares = squares_about(piece.values, piece.use, mean_of(piece))
    return np.asarray(squares / count * (count if method == "sum" else 1 / count))


def _ccdproc(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc does by default."""
    return (_by_mad if method == "median" else _by_std)(piece, method, weights)


UNCERTAINTIES: dict[str, Callable[[Piece, str, Array], Array]] = {
    "propagated": _propagated,
    "scatter": _scatter,
    "ccdproc": _ccdproc,
    "ccdproc_std": _by_std,
    "ccdproc_mad_std": _by_mad,
}
"""Uncertainties by name."""


# One factor per frame from a function of its whole plane.


def plane_factor(block: Block, *, func: Callable[[Any], Any], bad_bits: int) -> Array:
    """Return a user's function of a whole plane, which is a masked array if some of its pixels are bad."""
    data: Any = block.plane("data").copy()
    if block.mask is not None:
        bad = (block.mask & block.mask.dtype.type(bad_bits)) != 0
        data = np.ma.MaskedArray(data, bad) if bad.any() else data
    factor: Array = np.ma.filled(np.ma.asarray(func(data), dtype=float), np.nan)
    if factor.size != 1 or not np.isfinite(factor).all():
        raise ParameterError(f"scale function {func!r} gave {factor} and must give one finite number for each frame.")
    return factor.reshape(())


def only_partial(partials: Sequence[Array], **_params: Any) -> Array:
    """Return the result of the one tile of a reduction."""
    return partials[0]
