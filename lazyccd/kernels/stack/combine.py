"""Many frames to one, pixel by pixel: what comes out of the inputs that are left, and how sure it is.

Every sum runs over the frames in their order, so that no cut of the image changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import MAPS, Block, Request, empty_block
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.batches import Cut, clipped_pieces, cuts, gather_piece, run_clips, shape_of
from lazyccd.kernels.stack.imcombine import iraf_pieces, iraf_scaling
from lazyccd.kernels.stack.loops import (
    count_of,
    mean_and_squares,
    median_and_deviation,
    median_of,
    merge_bits,
    pixel_weighted_sum,
    weighted_sum,
)
from lazyccd.kernels.stack.scaling import Scaling, find_scaling
from lazyccd.kernels.stack.types import Piece, Rule
from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]

SATURATED_SHARE = 0.1
"""SAT is set if a larger share of the weight was left out because of it."""

MEDIAN_FACTORS = (1.0, 1.0, 1.3460, 1.1928, 1.4342, 1.2885, 1.4731, 1.3455, 1.4949, 1.3833)
"""Variance of the median of 1, 2, ... normal values over that of their mean."""

BITWISE_OR: Any = np.bitwise_or
"""The ufunc without a type: what the stubs of its methods accept differs between versions of NumPy."""

BITS_PER_WORD = 64
"""Frames in a word of a rejection map."""


def scaling_of(rule: Rule, numbers: Mapping[str, Array]) -> Scaling:
    """Return what is done to each frame."""
    if rule.flavor == "iraf":
        return iraf_scaling(rule, numbers).as_scaling()
    return find_scaling(rule.levels, rule.count, numbers)


def pieces_of(
    region: Region, blocks: Sequence[Block], rule: Rule, numbers: Mapping[str, Array], *, variances: bool = False
) -> Iterator[tuple[Cut, Piece, Array]]:
    """Yield for each piece of a region its place, the piece after all rejections, and what counted before them."""
    if rule.flavor == "iraf":
        return iraf_pieces(region, blocks, rule, numbers, variances=variances)
    return clipped_pieces(region, blocks, rule, scaling_of(rule, numbers), variances=variances)


def combine_frames(request: Request, blocks: Sequence[Block], *, rule: Rule, **numbers: Array) -> Block:
    """Combine blocks, one per frame, by a rule.

    Where all inputs are bad, those of the least bad class are used and nothing is rejected. Where none is left, the mask is
    NO_DATA, the data are NaN (a sum is 0) and the variance is NaN. Blocks may be larger than the request where neighbours or
    whole lines matter.
    """
    names = {"data": rule.dtype, "variance": rule.dtype, "mask": rule.mask_dtype, **MAPS}
    out = empty_block(request, {plane: np.dtype(name) for plane, name in names.items()})
    scaling = scaling_of(rule, numbers)
    variances = "variance" in request.planes and rule.uncertainty == "propagated"
    for cut, piece, given in pieces_of(request.region, blocks, rule, numbers, variances=variances):
        _finish(piece, given, rule, scaling, cut, out)
    return out


def rejection_words(request: Request, blocks: Sequence[Block], *, rule: Rule, word: int, **numbers: Array) -> Block:
    """Return 64 bits per pixel: which of 64 frames were good and rejected."""
    out = empty_block(request, {"data": np.dtype(np.uint64)})
    first = word * BITS_PER_WORD
    for cut, piece, given in pieces_of(request.region, blocks, rule, numbers):
        rejected = (given & ~piece.use)[first : first + BITS_PER_WORD]
        shifts = np.arange(len(rejected), dtype=np.uint64)[:, None]
        words = BITWISE_OR.reduce(rejected.astype(np.uint64) << shifts, axis=0)
        out.plane("data")[cut] = words.reshape(shape_of(cut))
    return out


def reasons(request: Request, blocks: Sequence[Block], *, rule: Rule, **numbers: Array) -> tuple[Array, list[str]]:
    """Return the scaled values of one pixel, and for each frame why it was left out; an empty word if it was used."""
    scaling = scaling_of(rule, numbers)
    (y, x), held = request.region.within(blocks[0].region), blocks[0].region
    (cut,) = [c for c in cuts(held, rule) if c[0].start <= y.start < c[0].stop and c[1].start <= x.start < c[1].stop]
    piece = gather_piece(blocks, cut, rule, scaling, variances=False)
    place = (y.start - cut[0].start) * (cut[1].stop - cut[1].start) + x.start - cut[1].start
    before = piece.use[:, place].copy()
    words = ["" if good else "masked" for good in before]
    for name in run_clips(piece, rule):
        words = [name if a and not b else word for a, b, word in zip(before, piece.use[:, place], words, strict=True)]
        before &= piece.use[:, place]
    last = rule.reject[0] if rule.flavor == "iraf" and rule.reject is not None else "grow"
    ((_, final, _),) = pieces_of(request.region, blocks, rule, numbers)
    used = final.use[:, 0]
    return piece.values[:, place], ["" if u else word or last for u, word in zip(used, words, strict=True)]


def _finish(piece: Piece, given: Array, rule: Rule, scaling: Scaling, cut: Cut, out: Block) -> None:
    """Combine what is left of a piece, and put it into the result."""
    shape = shape_of(cut)
    weights = scaling.weights
    if rule.method == "median":
        piece.weights, weights = None, np.ones(rule.count)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        data, norm = METHODS[rule.method](piece, weights)
        if out.data is not None:
            out.data[cut] = (data if piece.combined is None else piece.combined).reshape(shape)
        if out.variance is not None:
            out.variance[cut] = UNCERTAINTIES[rule.uncertainty](piece, rule.method, weights).reshape(shape)
    rejected = count_of(given & ~piece.use) if out.mask is not None or out.n_rejected is not None else None
    if out.mask is not None and rejected is not None:
        planes = np.array((rule.clipped, rule.no_data, rule.saturated), np.uint32)
        clipped, empty = rejected > 0, norm == 0
        if piece.bits is None:
            mask = np.where(clipped, planes[0], 0) | np.where(empty, planes[1], 0)
        else:
            mask = merge_bits(piece.bits, piece.use, clipped, empty, weights, planes, SATURATED_SHARE)
        out.mask[cut] = mask.reshape(shape)
    if out.n_used is not None:
        out.n_used[cut] = count_of(piece.use).reshape(shape)
    if out.n_rejected is not None and rejected is not None:
        out.n_rejected[cut] = rejected.reshape(shape)
    if out.exposure is not None:
        out.exposure[cut] = (np.array(rule.exposures)[:, None] * piece.use).sum(axis=0).reshape(shape)


# Methods: from a piece and the weights of frames to the data and the sum of weights.


def sum_of(piece: Piece, values: Array, weights: Array, power: int = 1) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights, which are raised to a power."""
    if piece.weights is not None:
        return pixel_weighted_sum(values, piece.use, piece.weights**power)
    return weighted_sum(values, piece.use, weights**power)


def _average(piece: Piece, weights: Array) -> tuple[Array, Array]:
    total, norm = sum_of(piece, piece.values, weights)
    return total / norm, norm


def _sum(piece: Piece, weights: Array) -> tuple[Array, Array]:
    return sum_of(piece, piece.values, weights)


def _median(piece: Piece, weights: Array) -> tuple[Array, Array]:
    return median_of(piece.values, piece.use), count_of(piece.use)


METHODS: dict[str, Callable[[Piece, Array], tuple[Array, Array]]] = {
    "average": _average,
    "median": _median,
    "sum": _sum,
}
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
    count, _, squares = mean_and_squares(piece.values, piece.use)
    sample = np.broadcast_to(squares / (count - 1), piece.values.shape)
    return _variance_of(method, np.ascontiguousarray(sample), piece, weights)


def _by_mad(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc estimates it by the median absolute deviation, without weights."""
    count = count_of(piece.use)
    deviation = MAD_TO_SIGMA * median_and_deviation(piece.values, piece.use)[1]
    return np.asarray(deviation**2 * (count if method == "sum" else 1 / count))


def _by_std(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc estimates it by the standard deviation of n, without weights."""
    count, _, squares = mean_and_squares(piece.values, piece.use)
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
