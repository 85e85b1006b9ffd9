"""Batches of a stack: what counts in them, what is rejected, and what stays.

1. A band is cut into batches, frames x pixels, that stay in cache.
2. The good inputs of each pixel are taken, or the least bad ones where all are bad.
3. Each rejection in turn looks at the inputs that are left and takes some away: first those that see values as they are,
   then, when frames were brought to one level, the one that sees scaled values. Neighbours of what was rejected may follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from lazyccd.kernels.block import APERTURE, Array, Block
from lazyccd.kernels.pointwise import remap_bits
from lazyccd.kernels.stack.loops import count_of, finite_inputs, good_inputs, least_bad_inputs
from lazyccd.kernels.stack.rejection import KEPT, grow_rejected, restore, spread_rejected
from lazyccd.kernels.stack.scaling import Scaling
from lazyccd.kernels.stack.types import PixelBatch, Rejection, Rule
from lazyccd.sections import Region

BatchSlices: TypeAlias = tuple[slice, slice]
"""The place of a batch in a region: its rows and columns."""


class Variances(NamedTuple):
    """Which variances of the inputs are needed."""

    own: bool = False
    """Those of pixels by themselves."""

    aperture: bool = False
    """Those for sums over apertures."""


NO_VARIANCES = Variances()

BATCH_BYTES = 2**20
"""Size of the values of a batch; a few such arrays fit into a core's cache."""

NO_RESIDUAL = np.empty((0, 0))
"""For rejections whose residuals nobody asks for; numba needs an array."""


def clipped_batches(
    region: Region, blocks: Sequence[Block], rule: Rule, scaling: Scaling, *, variances: Variances
) -> Iterator[tuple[BatchSlices, PixelBatch, Array]]:
    """Yield for each batch of a region its place, the batch after all rejections, and what counted before them.

    Parameters
    ----------
    region
        What is asked for; the blocks may be larger where neighbours or whole lines matter.
    blocks
        One per frame, all of one region; those of weights and of variances without masters follow.
    rule
        How frames are combined.
    scaling
        What is done to each frame.
    variances
        Which variances the batches need.
    """
    held = blocks[0].region
    inner = region.within(held)
    rule = unmasked_if_clean(rule, blocks)
    found = rejected_of_band(blocks, rule, scaling) if rule.rejecting.reach else None
    for slices in batch_slices(held, rule):
        part = inside(slices, inner)
        if part is None:
            continue
        batch = gather_batch(blocks, slices, rule, scaling, variances=variances)
        if found is None:
            given = reject_all(batch, rule)
        else:
            rejected, grown = (plane[:, *slices].reshape(rule.count, -1) for plane in found)
            given = reject_known(batch, (rejected > 0) & (rejected < KEPT), rule)
            apply_grown(batch, grown, given, rule)
        yield trimmed(part, slices, batch, given, inner)


def rejected_of_band(blocks: Sequence[Block], rule: Rule, scaling: Scaling) -> tuple[Array, Array]:
    """Return which inputs of all frames are rejected, as for `spread_rejected`, and which are neighbours of these.

    Neighbours lie in other batches, so all rejections of the band come first. Batches are gathered again afterwards, as those of all
    frames would not fit into the memory that bands are made for.

    Parameters
    ----------
    blocks, rule, scaling
        As for `clipped_batches`.
    """
    held = blocks[0].region
    excess = np.zeros((rule.count, *held.shape), np.uint8)
    for slices in batch_slices(held, rule):
        batch = gather_batch(blocks, slices, rule, scaling, variances=NO_VARIANCES)
        residual = np.zeros(batch.use.shape) if rule.rejecting.spread else NO_RESIDUAL
        given = reject_all(batch, rule, residual)
        rejected = given & ~batch.use
        if residual.size:
            rejected = np.where(rejected, np.clip(np.ceil(residual), 1, KEPT - 1), np.where(residual < 0, KEPT, 0))
        excess[:, *slices] = rejected.reshape(rule.count, *shape_of(slices))
    grown = np.zeros(excess.shape, np.bool_)
    if rule.rejecting.spread:
        spread_rejected(excess, np.array(rule.rejecting.spread), grown)
    else:
        grow_rejected(excess.view(np.bool_), rule.rejecting.grow, grown)
    return excess, grown


def unmasked_if_clean(rule: Rule, blocks: Sequence[Block]) -> Rule:
    """Return the rule without masks if no frame has a bit set: most bands have none, and are combined faster."""
    flagged = any(block.mask is not None and block.mask.max() for block in blocks[: rule.count])
    return rule if flagged else replace(rule, masks=replace(rule.masks, remaps=(None,) * rule.count))


def fewest_kept(given: Array, nkeep: int) -> Array:
    """Return how many of the inputs given must be kept; see `lazyccd.kernels.stack.types.Rejecting.nkeep`."""
    kept: Array = np.minimum(given, nkeep) if nkeep > 0 else np.maximum(0, given + nkeep)
    return kept


def apply_grown(batch: PixelBatch, grown: Array, given: Array, rule: Rule) -> None:
    """Reject the neighbours of rejected inputs, except in pixels that would keep fewer inputs than they must.

    Parameters
    ----------
    batch
        The pixels after all rejections; its ``use`` is changed.
    grown, given
        Which inputs are neighbours of rejected ones, and which counted before rejections; frames x pixels, bool.
    rule
        Has the number of inputs that are kept.
    """
    # imcombine too keeps the value that did not grow where nkeep inputs would not be left (icgrow.gx)
    before = count_of(given)
    use = batch.use & ~grown
    enough = count_of(use) >= np.maximum(fewest_kept(before, rule.rejecting.nkeep), np.minimum(before, 1))
    batch.use[:, enough] = use[:, enough]


def reject_all(batch: PixelBatch, rule: Rule, residual: Array = NO_RESIDUAL) -> Array:
    """Run all rejections on a batch; return what counted before. The residual is filled by that of scaled values."""
    given = batch.use.copy()
    for _ in run_rejections(batch, rule, residual):
        pass
    return given


def reject_known(batch: PixelBatch, rejected: Array, rule: Rule) -> Array:
    """Reject the inputs of a batch that were found before; return what counted before."""
    given = batch.use.copy()
    _choose(batch, rule)
    bring_to_level(batch)
    batch.use &= ~rejected
    return given


def run_rejections(batch: PixelBatch, rule: Rule, residual: Array = NO_RESIDUAL) -> Iterator[str]:
    """Run the rejections one after another; yield the name of each when it is done."""
    # where all inputs are bad, the least bad are used as they are: a star saturated in every frame leaves no hole
    exempt = _choose(batch, rule)
    saved = None if exempt is None else batch.use[:, exempt].copy()
    for clip in rule.rejecting.clips:
        clip.reject(batch, NO_RESIDUAL)
        yield clip.name
    # ccdproc's clips and imcombine's thresholds see values before they are scaled, imcombine's rejections after it
    bring_to_level(batch)
    reject = rule.rejecting.reject
    if reject is not None and rule.iraf is None:
        reject_but_keep(batch, reject, rule.rejecting.nkeep, residual)
        yield reject.name
    if saved is not None:
        batch.use[:, exempt] = saved


def reject_but_keep(batch: PixelBatch, reject: Rejection, nkeep: int, residual: Array = NO_RESIDUAL) -> None:
    """Reject inputs of a batch, and restore those that are least off where fewer than ``nkeep`` would be left."""
    if nkeep == 0:
        reject.reject(batch, residual)
        return
    before = batch.use.copy()
    reject.reject(batch, residual)
    left = count_of(batch.use)
    if 0 < nkeep <= left.min(initial=nkeep):
        return
    kept = fewest_kept(count_of(before), nkeep)
    short = np.flatnonzero(left < kept)
    if short.size:
        # few pixels lose so many inputs: only these are done a second time, now with residuals
        batch.use[:, short] = before[:, short]
        part = batch.take(short)
        off = np.zeros(part.use.shape)
        reject.reject(part, off)
        restore(off, before[:, short], kept[short].astype(np.int64), part.use)
        batch.use[:, short] = part.use


def gather_batch(
    blocks: Sequence[Block], slices: BatchSlices, rule: Rule, scaling: Scaling, *, variances: Variances
) -> PixelBatch:
    """Copy a batch of all frames, and choose the good inputs.

    Parameters
    ----------
    blocks
        One per frame; those of weights and of variances without masters follow.
    slices
        Rows and columns of the batch in the blocks.
    rule
        How frames are combined.
    scaling
        What is done to each frame.
    variances
        Which variances are needed for the result; those that a rejection needs are copied anyway.
    """
    shape = (rule.count, *shape_of(slices))
    flat = (rule.count, shape[1] * shape[2])
    values = np.empty(shape, rule.dtypes.work)
    flagged = any(remap is not None for remap in rule.masks.remaps)
    bits = np.zeros(shape, np.uint32) if flagged else None
    given = np.empty(shape) if variances.own or rule.needs_variance else None
    apertures = np.empty(shape) if variances.aperture else None
    for i, block in enumerate(blocks[: rule.count]):
        values[i] = block.plane("data")[slices]
        remap = rule.masks.remaps[i]
        if bits is not None and remap is not None and block.mask is not None:
            bits[i] = remap_bits(block.mask[slices], remap, np.uint32)
        if given is not None:
            given[i] = block.plane("variance")[slices]
        if apertures is not None:
            apertures[i] = block.plane(APERTURE)[slices]
    batch = PixelBatch(values.reshape(flat), np.empty(flat, np.bool_))
    # NaN and infinity are bad whatever a mask says: one such value would spoil every mean
    if bits is None:
        finite_inputs(batch.values, batch.use)
    else:
        batch.bits = bits.reshape(flat)
        good_inputs(batch.values, batch.bits, np.uint32(rule.masks.bad), np.uint32(rule.masks.no_data), batch.use)
    batch.variances = None if given is None else given.reshape(flat)
    batch.apertures = None if apertures is None else apertures.reshape(flat)
    more = list(blocks[rule.count :])
    if rule.has_pixel_weights:
        weights = np.array([more.pop(0).plane("data")[slices] for _ in range(rule.count)], float).reshape(flat)
        # a pixel whose variance is unknown has no weight
        batch.weights = np.where(np.isfinite(weights) & (weights >= 0), weights, 0.0)
    if rule.has_skies:
        skies = [more.pop(0).plane("data")[0, 0] for _ in range(2 * rule.count)]
        # a frame without a good pixel has none
        batch.skies = np.ascontiguousarray(np.nan_to_num(skies).reshape(2, rule.count).T)
    if rule.shares_masters and more:
        batch.own = np.array([block.plane("variance")[slices] for block in more], float).reshape(flat)
    if not scaling.is_none:
        batch.multipliers, batch.offsets = scaling.multipliers, scaling.offsets
    return batch


def _choose(batch: PixelBatch, rule: Rule) -> Array | None:
    """Take the least bad inputs where there is no good one; return which pixels these are, None if there are none."""
    if batch.bits is None:
        return None
    exempt = np.zeros(batch.use.shape[1], np.bool_)
    found = least_bad_inputs(batch.bits, np.array(rule.masks.ranks, np.uint32), batch.use, exempt)
    return np.flatnonzero(exempt) if found else None


def bring_to_level(batch: PixelBatch) -> None:
    """Bring all frames to one level."""
    if batch.multipliers is None or batch.offsets is None:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        # float64 from here on: factors are float64, and so is what float32 is multiplied by
        batch.values = batch.values * batch.multipliers[:, None] + batch.offsets[:, None]
        if batch.skies is not None:
            levels, variances = batch.skies.T
            batch.skies = np.stack(
                [levels * batch.multipliers + batch.offsets, variances * batch.multipliers**2], axis=1
            )
        if batch.variances is not None:
            batch.variances = batch.variances * batch.multipliers[:, None] ** 2
        if batch.own is not None:
            batch.own = batch.own * batch.multipliers[:, None] ** 2
        if batch.apertures is not None:
            batch.apertures = batch.apertures * batch.multipliers[:, None] ** 2


def shape_of(slices: BatchSlices) -> tuple[int, int]:
    """Return rows and columns of a batch."""
    return slices[0].stop - slices[0].start, slices[1].stop - slices[1].start


def batch_slices(region: Region, rule: Rule) -> Iterator[BatchSlices]:
    """Yield the places of the batches of a region, relative to it."""
    ny, nx = region.shape
    if rule.whole_lines:
        width, rows = nx, 1
    else:
        pixels = max(256, BATCH_BYTES // (np.dtype(rule.dtypes.work).itemsize * rule.count))
        # lines are divided evenly: no narrow rest at their ends
        width = -(-nx // -(-nx // pixels))
        rows = max(1, pixels // width)
    for y in range(0, ny, rows):
        for x in range(0, nx, width):
            yield slice(y, min(y + rows, ny)), slice(x, min(x + width, nx))


def inside(slices: BatchSlices, inner: BatchSlices) -> BatchSlices | None:
    """Return the part of a batch's place that lies in another one; None if there is none."""
    y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(slices, inner, strict=True))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def trimmed(
    part: BatchSlices, slices: BatchSlices, batch: PixelBatch, given: Array, inner: BatchSlices
) -> tuple[BatchSlices, PixelBatch, Array]:
    """Return the part of a batch that is asked for, with its place in the request.

    Parameters
    ----------
    part, slices, inner
        Places of the part, of the batch and of the request, relative to the blocks.
    batch
        The pixels.
    given
        Which inputs counted before rejections; frames x pixels, bool.
    """
    place = tuple(slice(p.start - i.start, p.stop - i.start) for p, i in zip(part, inner, strict=True))
    if part != slices:
        positions = np.arange(batch.use.shape[1]).reshape(shape_of(slices))
        cut = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, slices, strict=True))
        wanted = positions[cut].ravel()
        batch, given = batch.take(wanted), np.take(given, wanted, axis=1)
    return (place[0], place[1]), batch, given
