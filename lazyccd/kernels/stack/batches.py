"""Pieces of stacks: what counts in them, what is rejected, and what stays.

1. A band is cut into pieces, frames x pixels, that stay in cache.
2. The good inputs of each pixel are taken, or the least bad ones where all are bad.
3. Each clip in turn looks at the inputs that are left and takes some away: first those on values as they are, then, when
   frames were brought to one level, the one on scaled values. Neighbours of what was rejected may follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Block
from lazyccd.kernels.pointwise import remap_bits
from lazyccd.kernels.stack.clipping import WHOLE_LINES, run_clip
from lazyccd.kernels.stack.loops import count_of, finite_inputs, good_inputs, least_bad_inputs
from lazyccd.kernels.stack.rejection import grow_rejected
from lazyccd.kernels.stack.scaling import Scaling
from lazyccd.kernels.stack.types import Piece, Rule
from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]
Cut: TypeAlias = tuple[slice, slice]

PIECE_BYTES = 2**20
"""Size of the values of a piece; a few such arrays fit into a core's cache."""


def clipped_pieces(
    region: Region, blocks: Sequence[Block], rule: Rule, scaling: Scaling, *, variances: bool
) -> Iterator[tuple[Cut, Piece, Array]]:
    """Yield for each piece of a region its place, the piece after all rejections, and what counted before them."""
    held = blocks[0].region
    inner = region.within(held)
    flagged = any(block.mask is not None and block.mask.max() for block in blocks[: rule.count])
    rule = rule if flagged else replace(rule, remaps=(None,) * rule.count)
    if rule.grow < 1:
        for cut in cuts(held, rule):
            piece = gather_piece(blocks, cut, rule, scaling, variances=variances)
            given = reject_all(piece, rule)
            if (part := inside(cut, inner)) is not None:
                yield trimmed(part, cut, piece, given, inner)
        return
    rejected = np.zeros((rule.count, *held.shape), np.bool_)
    for cut in cuts(held, rule):
        piece = gather_piece(blocks, cut, rule, scaling, variances=False)
        given = reject_all(piece, rule)
        rejected[:, *cut] = (given & ~piece.use).reshape(rule.count, *shape_of(cut))
    grown = np.zeros_like(rejected)
    grow_rejected(rejected, rule.grow, grown)
    del rejected
    for cut in cuts(held, rule):
        if (part := inside(cut, inner)) is None:
            continue
        piece = gather_piece(blocks, cut, rule, scaling, variances=variances)
        given = reject_all(piece, rule)
        apply_grown(piece, grown[:, *cut].reshape(rule.count, -1), given, rule)
        yield trimmed(part, cut, piece, given, inner)


def apply_grown(piece: Piece, grown: Array, given: Array, rule: Rule) -> None:
    """Reject the neighbours of rejected inputs, except in pixels that would keep fewer inputs than they must."""
    before = count_of(given)
    kept = np.minimum(before, rule.nkeep) if rule.nkeep > 0 else np.maximum(0, before + rule.nkeep)
    use = piece.use & ~grown
    enough = count_of(use) >= np.maximum(kept, np.minimum(before, 1))
    piece.use[:, enough] = use[:, enough]


def reject_all(piece: Piece, rule: Rule) -> Array:
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
    bring_to_level(piece)
    if rule.reject is not None and rule.flavor != "iraf":
        run_clip(piece, rule.reject, rule.nkeep)
        yield rule.reject[0]
    if saved is not None:
        piece.use[:, exempt] = saved


def gather_piece(blocks: Sequence[Block], cut: Cut, rule: Rule, scaling: Scaling, *, variances: bool) -> Piece:
    """Copy a piece of all frames, and choose the good inputs."""
    shape = (rule.count, *shape_of(cut))
    flat = (rule.count, shape[1] * shape[2])
    values = np.empty(shape, rule.work)
    flagged = any(remap is not None for remap in rule.remaps)
    bits = np.zeros(shape, np.uint32) if flagged else None
    variances |= rule.reject is not None and rule.reject[0] == "varclip"
    given = np.empty(shape) if variances else None
    for i, block in enumerate(blocks[: rule.count]):
        values[i] = block.plane("data")[cut]
        remap = rule.remaps[i]
        if bits is not None and remap is not None and block.mask is not None:
            bits[i] = remap_bits(block.mask[cut], remap, np.uint32)
        if given is not None:
            given[i] = block.plane("variance")[cut]
    piece = Piece(values.reshape(flat), np.empty(flat, np.bool_))
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
        piece.noise = rule.noise.terms
    return piece


def _choose(piece: Piece, rule: Rule) -> Array | None:
    """Take the least bad inputs where there is no good one; return which pixels these are, None if there are none."""
    if piece.bits is None:
        return None
    exempt = np.zeros(piece.use.shape[1], np.bool_)
    found = least_bad_inputs(piece.bits, np.array(rule.ranks, np.uint32), piece.use, exempt)
    return np.flatnonzero(exempt) if found else None


def bring_to_level(piece: Piece) -> None:
    """Bring all frames to one level."""
    if piece.multipliers is None or piece.offsets is None:
        return
    with np.errstate(invalid="ignore", over="ignore"):
        piece.values = piece.values * piece.multipliers[:, None] + piece.offsets[:, None]
        if piece.variances is not None:
            piece.variances = piece.variances * piece.multipliers[:, None] ** 2
        if piece.own is not None:
            piece.own = piece.own * piece.multipliers[:, None] ** 2


def shape_of(cut: Cut) -> tuple[int, int]:
    """Return rows and columns of a cut."""
    return cut[0].stop - cut[0].start, cut[1].stop - cut[1].start


def cuts(region: Region, rule: Rule) -> Iterator[Cut]:
    """Yield the pieces of a region, relative to it."""
    ny, nx = region.shape
    if rule.flavor == "iraf" or (rule.reject is not None and rule.reject[0] in WHOLE_LINES):
        width, rows = nx, 1
    else:
        pixels = max(256, PIECE_BYTES // (np.dtype(rule.work).itemsize * rule.count))
        width = -(-nx // -(-nx // pixels))
        rows = max(1, pixels // width)
    for y in range(0, ny, rows):
        for x in range(0, nx, width):
            yield slice(y, min(y + rows, ny)), slice(x, min(x + width, nx))


def inside(cut: Cut, inner: Cut) -> Cut | None:
    """Return the part of a cut that lies in another one; None if there is none."""
    y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(cut, inner, strict=True))
    return (y, x) if y.start < y.stop and x.start < x.stop else None


def trimmed(part: Cut, cut: Cut, piece: Piece, given: Array, inner: Cut) -> tuple[Cut, Piece, Array]:
    """Return the part of a piece that is asked for, with its place in the request."""
    place = tuple(slice(p.start - i.start, p.stop - i.start) for p, i in zip(part, inner, strict=True))
    if part != cut:
        numbers = np.arange(piece.use.shape[1]).reshape(shape_of(cut))
        wanted = numbers[tuple(slice(p.start - c.start, p.stop - c.start) for p, c in zip(part, cut, strict=True))]
        piece, given = piece.take(wanted.ravel()), np.take(given, wanted.ravel(), axis=1)
    return (place[0], place[1]), piece, given
