"""Many frames to one, pixel by pixel: which inputs count, what is rejected, what comes out and how sure it is.

1. A band is cut into pieces, frames x pixels, whose double-precision copies stay in cache.
2. `choose_inputs` takes the good inputs of each pixel, or the least bad ones where all are bad.
3. Each rejection in turn looks at the inputs that are left, unscaled, and takes some away.
4. What is left is scaled and combined. Every sum runs over the frames in their order, so that no cut changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Block, Request, empty_block
from lazyccd.kernels.pointwise import Remap, remap_bits
from lazyccd.kernels.stack_loops import (
    choose_inputs,
    deviation_of,
    median_of,
    merge_bits,
    reject_outside,
    squares_about,
    weighted_sum,
)
from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]

PIECE = 2**16
"""Values of all frames in a piece; at eight bytes a few such arrays fit into a core's cache."""

MAD_TO_STD = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation."""

SATURATED_SHARE = 0.1
"""SAT is set if a larger share of the weight was left out because of it."""

MEDIAN_FACTORS = (1.0, 1.0, 1.3460, 1.1928, 1.4342, 1.2885, 1.4731, 1.3455, 1.4949, 1.3833)
"""Variance of the median of 1, 2, ... normal values over that of their mean."""


@dataclass(frozen=True)
class Rule:
    """How frames are combined."""

    method: str
    """``average``, ``median`` or ``sum``."""

    weights: tuple[float, ...]
    """One per frame."""

    scale: tuple[float, ...] | None
    """One factor per frame; None if as many further blocks hold one number each."""

    rejections: tuple[tuple[str, Any], ...]
    """Names and settings of what rejects inputs, in their order; see `REJECTIONS`."""

    uncertainty: str
    """``propagated``, ``scatter`` or ``ccdproc``."""

    dtype: str
    """Of the data and variance of the result."""

    mask_dtype: str
    """Of the mask of the result."""

    remaps: tuple[Remap, ...]
    """For each frame, how the bits of its mask become those of the result."""

    bad: int
    """Bits that count as bad."""

    ranks: tuple[int, ...]
    """Bad bits from the least to the worst class; the last one is NO_DATA, of which nothing is used."""

    saturated: int
    """The bit of SAT if it counts as bad, else 0."""

    clipped: int
    """The bit of CLIPPED."""

    no_data: int
    """The bit of NO_DATA."""


@dataclass
class Piece:
    """Some pixels of all frames; arrays have the shape (frames, pixels) or (pixels,)."""

    values: Array
    """Data."""

    bits: Array
    """Masks."""

    variances: Array | None
    """Variances, if they are propagated."""

    use: Array
    """Whether an input counts."""

    exempt: Array
    """Pixels whose inputs are all bad: nothing more is rejected there."""

    clipped: Array
    """Pixels of which some input was rejected."""

    scratch: Array
    """Room for sorting."""


def combine_frames(request: Request, blocks: Sequence[Block], *, rule: Rule) -> Block:
    """Combine blocks of one region, one per frame, by a rule.

    Where all inputs are bad, those of the least bad class are used and nothing is rejected. Where none is left, the mask is
    NO_DATA, the data are NaN (a sum is 0) and the variance is NaN.
    """
    count = len(rule.weights)
    scale = rule.scale
    if scale is None:
        scale = tuple(float(block.plane("data")[0, 0]) for block in blocks[count:])
    dtypes = {"data": rule.dtype, "variance": rule.dtype, "mask": rule.mask_dtype}
    out = empty_block(request, {plane: np.dtype(name) for plane, name in dtypes.items()})
    for cut in _cuts(request.region, count):
        piece = _gather(blocks[:count], cut, rule, variances="variance" in request.planes)
        for name, settings in rule.rejections:
            low, high = REJECTIONS[name](piece, settings)
            reject_outside(piece.values, low, high, piece.exempt, piece.use, piece.clipped)
        _finish(piece, rule, np.array(scale), cut, out)
    return out


def _cuts(region: Region, count: int) -> Iterator[tuple[slice, slice]]:
    """Yield the pieces of a region, relative to it."""
    ny, nx = region.shape
    pixels = max(256, PIECE // count)
    width = -(-nx // -(-nx // pixels))
    rows = max(1, pixels // width)
    for y in range(0, ny, rows):
        for x in range(0, nx, width):
            yield slice(y, min(y + rows, ny)), slice(x, min(x + width, nx))


def _gather(blocks: Sequence[Block], cut: tuple[slice, slice], rule: Rule, *, variances: bool) -> Piece:
    """Copy a piece of all frames, and choose the inputs that count."""
    shape = (len(blocks), cut[0].stop - cut[0].start, cut[1].stop - cut[1].start)
    flat = (shape[0], shape[1] * shape[2])
    values, bits = np.empty(shape), np.zeros(shape, np.uint32)
    given = np.empty(shape) if variances and rule.uncertainty == "propagated" else None
    for i, block in enumerate(blocks):
        values[i] = block.plane("data")[cut]
        if block.mask is not None:
            bits[i] = remap_bits(block.mask[cut], rule.remaps[i], np.uint32)
        if given is not None:
            given[i] = block.plane("variance")[cut]
    piece = Piece(
        values.reshape(flat),
        bits.reshape(flat),
        None if given is None else given.reshape(flat),
        use=np.empty(flat, np.bool_),
        exempt=np.empty(flat[1], np.bool_),
        clipped=np.zeros(flat[1], np.bool_),
        scratch=np.empty(flat),
    )
    ranks = np.array(rule.ranks, np.uint32)
    choose_inputs(
        piece.values, piece.bits, np.uint32(rule.bad), np.uint32(rule.no_data), ranks, piece.use, piece.exempt
    )
    return piece


def _finish(piece: Piece, rule: Rule, scale: Array, cut: tuple[slice, slice], out: Block) -> None:
    """Combine what is left of a piece, and put it into the result."""
    weights = np.ones(len(rule.weights)) if rule.method == "median" else np.array(rule.weights)
    shape = (cut[0].stop - cut[0].start, cut[1].stop - cut[1].start)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        piece.values *= scale[:, None]
        if piece.variances is not None:
            piece.variances *= scale[:, None] ** 2
        if out.data is not None:
            out.data[cut] = METHODS[rule.method](piece, weights).reshape(shape)
        if out.variance is not None:
            out.variance[cut] = UNCERTAINTIES[rule.uncertainty](piece, rule.method, weights).reshape(shape)
    if out.mask is not None:
        planes = np.array((rule.clipped, rule.no_data, rule.saturated), np.uint32)
        mask = merge_bits(piece.bits, piece.use, piece.clipped, weights, planes, SATURATED_SHARE)
        out.mask[cut] = mask.reshape(shape)


# Rejections: from a piece and settings to the lowest and the highest value of each pixel that stays.


def value_limits(piece: Piece, settings: tuple[float | None, float | None]) -> tuple[Array, Array]:
    """Return the same two limits for all pixels; None is no limit."""
    low, high = settings
    pixels = piece.values.shape[1]
    return np.full(pixels, -np.inf if low is None else low), np.full(pixels, np.inf if high is None else high)


def sigma_limits(piece: Piece, settings: tuple[str, str, float | None, float | None]) -> tuple[Array, Array]:
    """Return the centre minus and plus so many deviations of the inputs that are left."""
    centre_name, deviation_name, low, high = settings
    middle = mean = np.empty(0)
    if centre_name == "median" or deviation_name == "mad_std":
        middle = median_of(piece.values, piece.use, piece.scratch)
    if centre_name == "mean" or deviation_name == "std":
        mean = _mean(piece)
    centre = mean if centre_name == "mean" else middle
    if deviation_name == "std":
        squares, count = squares_about(piece.values, piece.use, mean)
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.sqrt(squares / count)
    else:
        deviation = MAD_TO_STD * deviation_of(piece.values, piece.use, middle, piece.scratch)
    return (
        np.full(centre.shape, -np.inf) if low is None else centre - low * deviation,
        np.full(centre.shape, np.inf) if high is None else centre + high * deviation,
    )


REJECTIONS: dict[str, Callable[[Piece, Any], tuple[Array, Array]]] = {"limits": value_limits, "sigma": sigma_limits}
"""Rejections by name."""


# Methods: from a piece and weights to the data.


def _mean(piece: Piece) -> Array:
    """Return the plain mean; NaN where nothing is left."""
    total, norm = weighted_sum(piece.values, piece.use, np.ones(len(piece.values)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / norm)


def _average(piece: Piece, weights: Array) -> Array:
    total, norm = weighted_sum(piece.values, piece.use, weights)
    return np.asarray(total / norm)


def _sum(piece: Piece, weights: Array) -> Array:
    return np.asarray(weighted_sum(piece.values, piece.use, weights)[0])


def _median(piece: Piece, weights: Array) -> Array:
    return np.asarray(median_of(piece.values, piece.use, piece.scratch))


METHODS: dict[str, Callable[[Piece, Array], Array]] = {"average": _average, "median": _median, "sum": _sum}
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
    total, norm = weighted_sum(variances, piece.use, weights**2)
    if method == "sum":
        return np.where(norm > 0, total, np.nan)
    if method == "average":
        return np.asarray(total / weighted_sum(variances, piece.use, weights)[1] ** 2)
    factors = np.array([median_factor(n) for n in range(len(weights) + 1)])
    return np.asarray(total / norm**2 * factors[norm.astype(np.intp)])


def _propagated(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance by the variances of the inputs."""
    assert piece.variances is not None
    return _variance_of(method, piece.variances, piece, weights)


def _scatter(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance by the sample variance of the inputs that are left; NaN where there is only one."""
    squares, count = squares_about(piece.values, piece.use, _mean(piece))
    sample = np.broadcast_to(squares / (count - 1), piece.values.shape)
    return _variance_of(method, np.ascontiguousarray(sample), piece, weights)


def _ccdproc(piece: Piece, method: str, weights: Array) -> Array:
    """Return the variance as ccdproc estimates it: by std (ddof 0) or MAD, without weights."""
    if method == "median":
        middle = median_of(piece.values, piece.use, piece.scratch)
        deviation = MAD_TO_STD * deviation_of(piece.values, piece.use, middle, piece.scratch)
        return np.asarray(deviation**2 / piece.use.sum(axis=0))
    squares, count = squares_about(piece.values, piece.use, _mean(piece))
    return np.asarray(squares / count * (count if method == "sum" else 1 / count))


UNCERTAINTIES: dict[str, Callable[[Piece, str, Array], Array]] = {
    "propagated": _propagated,
    "scatter": _scatter,
    "ccdproc": _ccdproc,
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


def only_partial(partials: Sequence[Array], *, func: Callable[[Any], Any], bad_bits: int) -> Array:
    """Return the result of the one tile of a reduction."""
    return partials[0]


def constant_plane(request: Request, *, number: Array) -> Block:
    """Return a plane that is one number everywhere, without memory for its pixels."""
    return Block(request.region, data=np.broadcast_to(np.asarray(number, float).reshape(()), request.region.shape))
