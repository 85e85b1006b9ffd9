"""From the frames of a stack to its pixels: the kernels `combine_frames`, `rejection_words` and `reasons`.

A region is done in batches (`lazyccd.kernels.stack.batches`). What is left of a batch after all rejections is combined here:
its data by one of `METHODS`, its variance by one of `UNCERTAINTIES`, its mask from the bits of the inputs that were used.
Every sum runs over the frames in their order, so that chunking never changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import (
    ALL_PLANES,
    APERTURE,
    BITWISE_OR,
    STACK_MAPS,
    Array,
    Block,
    Request,
    empty_block,
)
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.batches import (
    NO_VARIANCES,
    BatchSlices,
    Variances,
    batch_slices,
    clipped_batches,
    gather_batch,
    run_rejections,
    shape_of,
)
from lazyccd.kernels.stack.loops import (
    count_lost,
    count_of,
    mean_and_squares,
    merge_bits,
    pixel_weighted_sum,
    weighted_sum,
)
from lazyccd.kernels.stack.scaling import Scaling, find_scaling
from lazyccd.kernels.stack.sorting import median_and_deviation, median_of
from lazyccd.kernels.stack.types import PixelBatch, Rule
from lazyccd.sections import Region

SATURATED_SHARE = 0.1
"""SAT is set if a larger share of the weight was left out because of it: such a pixel is too faint."""

MEDIAN_FACTORS = (1.0, 1.0, 1.3460, 1.1928, 1.4342, 1.2885, 1.4731, 1.3455, 1.4949, 1.3833)
"""Variance of the median of 1, 2, ... normal values over that of their mean."""

BITS_PER_WORD = 64
"""Frames in a word of a rejection map."""


def scaling_of(rule: Rule, scalars: Mapping[str, Array]) -> Scaling:
    """Return what is done to each frame."""
    if rule.iraf is not None:
        from lazyccd.kernels.stack.imcombine import imcombine_scaling

        return imcombine_scaling(rule, scalars).as_scaling()
    return find_scaling(rule.levels, rule.count, scalars)


class Present(NamedTuple):
    """The frames of a stack that have pixels in a region."""

    frames: list[int]
    """Their numbers."""

    blocks: list[Block]
    """Their blocks, those of weights, and those of variances without masters if they were asked for."""

    rule: Rule
    """How these frames are combined."""

    scaling: Scaling
    """What is done to each."""


def present(blocks: Sequence[Block | None], rule: Rule, scalars: Mapping[str, Array]) -> Present:
    """Return what is there of the blocks of a stack: of a mosaic, most frames lie elsewhere.

    Parameters
    ----------
    blocks, rule, scalars
        As for `combine_frames`.
    """
    scaling = scaling_of(rule, scalars)
    frames = [i for i in range(rule.count) if blocks[i] is not None]
    given = [block for block in blocks if block is not None]
    if len(frames) == rule.count:
        return Present(frames, given, rule, scaling)
    # numbers are those that the frame has among all: levels are relative to the first one
    return Present(frames, given, rule.of_frames(frames), Scaling(*(numbers[frames] for numbers in scaling)))


def batches_of(
    region: Region, here: Present, scalars: Mapping[str, Array], *, variances: Variances = NO_VARIANCES
) -> Iterator[tuple[BatchSlices, PixelBatch, Array]]:
    """Yield for each batch of a region its place, the batch after all rejections, and what counted before them.

    Parameters
    ----------
    region
        What is asked for.
    here
        The frames that have pixels in it.
    scalars
        Scales, zero points and weights that tasks found, by name.
    variances
        Which variances the batches need.
    """
    if here.rule.iraf is not None:
        from lazyccd.kernels.stack.imcombine import imcombine_batches

        return imcombine_batches(region, here.blocks, here.rule, scalars, variances=variances)
    return clipped_batches(region, here.blocks, here.rule, here.scaling, variances=variances)


def combine_frames(request: Request, blocks: Sequence[Block | None], *, rule: Rule, **scalars: Array) -> Block:
    """Combine blocks, one per frame, by a rule.

    Parameters
    ----------
    request
        The region and the planes that are asked for.
    blocks
        One per frame, larger than the request where neighbours or whole lines matter; None for a frame that lies elsewhere.
        Blocks with the weights of pixels as data, and blocks with variances without masters, follow if the rule says so.
    rule
        How frames are combined.
    scalars
        Scales, zero points and weights that tasks found, by name.

    Notes
    -----
    Where all inputs are bad, those of the least bad class are used and nothing is rejected, so that a star that is saturated
    in every frame leaves no hole. Where none is left, the mask is NO_DATA, the data are NaN (a sum is 0) and the variance
    is NaN.
    """
    names = {
        **dict.fromkeys(("data", "variance", APERTURE), rule.dtypes.result),
        "mask": rule.dtypes.mask,
        **STACK_MAPS,
    }
    out = empty_block(request, {plane: np.dtype(name) for plane, name in names.items()})
    here = present(blocks, rule, scalars)
    if not here.frames:
        _leave_empty(rule, out)
        return out
    if rule.agreement is not None:
        rule.agreement.check(here.frames, here.scaling.multipliers, scalars)
    propagated = "variance" in request.planes and rule.uncertainty == "propagated"
    wanted = Variances(own=propagated, aperture=APERTURE in request.planes)
    for slices, batch, given in batches_of(request.region, here, scalars, variances=wanted):
        _finish(batch, given, here.rule, here.scaling, slices, out)
    return out


def _leave_empty(rule: Rule, out: Block) -> None:
    """Fill a block in which no frame has a pixel."""
    sum_or_nan = 0.0 if rule.method == "sum" else np.nan
    values = dict.fromkeys(STACK_MAPS, 0) | {
        "data": sum_or_nan,
        "variance": np.nan,
        "mask": rule.masks.no_data,
        APERTURE: np.nan,
    }
    for plane, array in zip(ALL_PLANES, out[1:], strict=True):
        if array is not None:
            array.fill(values[plane])


def rejection_words(
    request: Request, blocks: Sequence[Block | None], *, rule: Rule, word: int, **scalars: Array
) -> Block:
    """Return 64 bits per pixel as data, uint64: which of 64 frames were good and rejected.

    Parameters
    ----------
    request, blocks, rule, scalars
        As for `combine_frames`.
    word
        Bit i says it of frame ``64 * word + i``.
    """
    out = empty_block(request, {"data": np.dtype(np.uint64)})
    here = present(blocks, rule, scalars)
    # where among those that are here the frames of this word are, and which bit each has
    rows, bits = [], []
    for row, frame in enumerate(here.frames):
        if frame // BITS_PER_WORD == word:
            rows.append(row)
            bits.append(frame % BITS_PER_WORD)
    if not rows:
        out.plane("data").fill(0)
        return out
    shifts = np.array(bits, np.uint64)[:, None]
    for slices, batch, given in batches_of(request.region, here, scalars):
        rejected = (given & ~batch.use)[rows]
        words = BITWISE_OR.reduce(rejected.astype(np.uint64) << shifts, axis=0)
        out.plane("data")[slices] = words.reshape(shape_of(slices))
    return out


def reasons(
    request: Request, blocks: Sequence[Block | None], *, rule: Rule, **scalars: Array
) -> tuple[Array, list[str]]:
    """Return the scaled values of one pixel, and for each frame there why it was left out; an empty word if it was used.

    Parameters
    ----------
    request, blocks, rule, scalars
        As for `combine_frames`; the region is one pixel.
    """
    here = present(blocks, rule, scalars)
    if not here.frames:
        return np.empty(0), []
    rule = here.rule
    held = here.blocks[0].region
    y, x = request.region.within(held)
    # the whole batch is done, as rejections that measure lines look at more than the pixel
    (slices,) = [
        (rows, columns)
        for rows, columns in batch_slices(held, rule)
        if rows.start <= y.start < rows.stop and columns.start <= x.start < columns.stop
    ]
    batch = gather_batch(here.blocks, slices, rule, here.scaling, variances=NO_VARIANCES)
    place = (y.start - slices[0].start) * (slices[1].stop - slices[1].start) + x.start - slices[1].start
    before = batch.use[:, place].copy()
    words = ["" if good else "masked" for good in before]
    for name in run_rejections(batch, rule):
        words = [name if a and not b else word for a, b, word in zip(before, batch.use[:, place], words, strict=True)]
        before &= batch.use[:, place]
    reject = rule.rejecting.reject
    last = reject.name if rule.iraf is not None and reject is not None else "grow"
    ((_, final, _),) = batches_of(request.region, here, scalars)
    used = final.use[:, 0]
    return batch.values[:, place], ["" if u else word or last for u, word in zip(used, words, strict=True)]


def _finish(batch: PixelBatch, given: Array, rule: Rule, scaling: Scaling, slices: BatchSlices, out: Block) -> None:
    """Combine what is left of a batch, and put it into the result.

    Parameters
    ----------
    batch
        The pixels after all rejections.
    given
        Which inputs counted before rejections; frames x pixels, bool.
    rule
        How frames are combined.
    scaling
        Has the weights of the frames.
    slices
        The batch's place in the result.
    out
        The result, whose arrays are filled there.
    """
    shape = shape_of(slices)
    weights = scaling.weights
    # medians have no weights, in imcombine and ccdproc neither
    if rule.method == "median":
        batch.weights, weights = None, np.ones(rule.count)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        data, norm = METHODS[rule.method](batch, weights)
        # imcombine's rejections give the result with them, in bits that a second sum would not have
        if out.data is not None:
            out.data[slices] = (data if batch.combined is None else batch.combined).reshape(shape)
        if out.variance is not None:
            variance = UNCERTAINTIES[rule.uncertainty](batch, rule.method, weights, norm)
            out.variance[slices] = _without_inputs(variance, norm).reshape(shape)
        if out.variance_aperture is not None and batch.apertures is not None:
            # those of different frames are independent, so weights are squared here as for pixels
            aperture = _variance_of(rule.method, batch.apertures, batch, weights, norm)
            out.variance_aperture[slices] = _without_inputs(aperture, norm).reshape(shape)
    # inputs that were bad before are not counted: CLIPPED tells of outliers alone
    rejected = count_lost(given, batch.use) if out.mask is not None or out.n_rejected is not None else None
    if out.mask is not None and rejected is not None:
        planes = np.array((rule.masks.clipped, rule.masks.no_data, rule.masks.saturated), np.uint32)
        clipped, empty = rejected > 0, norm == 0
        if batch.bits is None:
            mask = np.where(clipped, planes[0], 0) | np.where(empty, planes[1], 0)
        else:
            mask = merge_bits(batch.bits, batch.use, clipped, empty, weights, planes, SATURATED_SHARE)
        out.mask[slices] = mask.reshape(shape)
    if out.n_used is not None:
        out.n_used[slices] = count_of(batch.use).reshape(shape)
    if out.n_rejected is not None and rejected is not None:
        out.n_rejected[slices] = rejected.reshape(shape)
    if out.coverage is not None:
        has_data = (
            np.isfinite(batch.values) if batch.bits is None else (batch.bits & np.uint32(rule.masks.no_data)) == 0
        )
        out.coverage[slices] = count_of(has_data).reshape(shape)
    if rule.least_used > 1:
        _empty_where(count_of(batch.use).reshape(shape) < rule.least_used, slices, rule, out)
    if out.exposure is not None:
        out.exposure[slices] = (np.array(rule.exposures)[:, None] * batch.use).sum(axis=0).reshape(shape)


def _empty_where(few: Array, slices: BatchSlices, rule: Rule, out: Block) -> None:
    """Leave nothing of the pixels of a batch that have too few inputs."""
    for plane in (out.data, out.variance, out.variance_aperture):
        if plane is not None:
            plane[slices][few] = np.nan
    if out.mask is not None:
        out.mask[slices][few] |= out.mask.dtype.type(rule.masks.no_data)


# Methods: from a batch and the weights of frames to the data and the sum of weights.


def sum_of(batch: PixelBatch, values: Array, weights: Array, power: int = 1) -> tuple[Array, Array]:
    """Return the weighted sum of the inputs that count, and the sum of their weights.

    Parameters
    ----------
    batch
        Says which inputs count, and has weights if they differ from pixel to pixel.
    values
        What is summed: values or variances, frames x pixels.
    weights
        One per frame, float64; not used if the batch has its own.
    power
        Weights are raised to it: 2 for variances.
    """
    if batch.weights is not None:
        return pixel_weighted_sum(values, batch.use, batch.weights**power)
    return weighted_sum(values, batch.use, weights**power)


def _without_inputs(values: Array, norm: Array) -> Array:
    """Return values with the usual NaN where there is no input: 0 / 0 has another sign, and a chunk of it would be no fill."""
    empty = norm == 0
    if empty.any():
        values[empty] = np.nan
    return values


def _average(batch: PixelBatch, weights: Array) -> tuple[Array, Array]:
    total, norm = sum_of(batch, batch.values, weights)
    return _without_inputs(total / norm, norm), norm


def _sum(batch: PixelBatch, weights: Array) -> tuple[Array, Array]:
    return sum_of(batch, batch.values, weights)


def _median(batch: PixelBatch, weights: Array) -> tuple[Array, Array]:
    return median_of(batch.values, batch.use), count_of(batch.use)


METHODS: dict[str, Callable[[PixelBatch, Array], tuple[Array, Array]]] = {
    "average": _average,
    "median": _median,
    "sum": _sum,
}
"""Methods by name."""


# Uncertainties: from a batch, the method, weights and their sum to the variance.


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


def _variance_of(method: str, variances: Array, batch: PixelBatch, weights: Array, norm: Array) -> Array:
    """Return the variance of a combination of independent inputs.

    Parameters
    ----------
    method
        ``average``, ``median`` or ``sum``.
    variances
        Of the inputs, frames x pixels; or 1 x pixels, the same for all frames.
    batch
        Says which inputs count.
    weights
        One per frame, float64.
    norm
        The sum of the weights of the inputs that count.
    """
    total, squares = sum_of(batch, variances, weights, power=2)
    if method == "sum":
        return np.where(squares > 0, total, np.nan)
    if method == "average":
        return np.asarray(total / norm**2)
    # pi / 2 holds for many inputs only, and even and odd numbers of few ones differ (DRAGONS and HDRL make other choices)
    factors = np.array([median_factor(n) for n in range(len(weights) + 1)])
    return np.asarray(total / norm**2 * factors[norm.astype(np.intp)])


def _propagated(batch: PixelBatch, method: str, weights: Array, norm: Array) -> Array:
    """Return the variance by the variances of the inputs.

    What they have in common, the variance of masters that all frames share, does not fall with their number: its deviations
    are added, and the variance of the rest is added to the square.
    """
    assert batch.variances is not None
    if batch.own is None:
        return _variance_of(method, batch.variances, batch, weights, norm)
    common = np.sqrt(np.maximum(batch.variances - batch.own, 0))
    total, _ = sum_of(batch, common, weights)
    return _variance_of(method, batch.own, batch, weights, norm) + (total if method == "sum" else total / norm) ** 2


def _scatter(batch: PixelBatch, method: str, weights: Array, norm: Array) -> Array:
    """Return the variance by the sample variance of the inputs that are left; NaN where there is only one."""
    # n - 1: with n, the variance of three inputs is too small by a factor of 1.5
    count, _, squares = mean_and_squares(batch.values, batch.use)
    return _variance_of(method, (squares / (count - 1))[np.newaxis], batch, weights, norm)


def _by_mad(batch: PixelBatch, method: str, weights: Array, norm: Array) -> Array:
    """Return the variance as ccdproc estimates it by the median absolute deviation, without weights.

    For the median of three frames it is too small by a factor of 1.76, in a simulation.
    """
    count = count_of(batch.use)
    deviation = MAD_TO_SIGMA * median_and_deviation(batch.values, batch.use)[1]
    return np.asarray(deviation**2 * (count if method == "sum" else 1 / count))


def _by_std(batch: PixelBatch, method: str, weights: Array, norm: Array) -> Array:
    """Return the variance as ccdproc estimates it by the standard deviation of n, without weights.

    For the mean of three frames it is too small by a factor of 1.5: the sample variance divides by n - 1.
    """
    count, _, squares = mean_and_squares(batch.values, batch.use)
    return np.asarray(squares / count * (count if method == "sum" else 1 / count))


def _ccdproc(batch: PixelBatch, method: str, weights: Array, norm: Array) -> Array:
    """Return the variance as ccdproc does by default."""
    return (_by_mad if method == "median" else _by_std)(batch, method, weights, norm)


UNCERTAINTIES: dict[str, Callable[[PixelBatch, str, Array, Array], Array]] = {
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
    # a copy: a function that changes its argument must not change the frame
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
