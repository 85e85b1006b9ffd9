"""Lines of a stack by IRAF's imcombine: its levels, and its rejections and growing on whole lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.kernels import imcombine
from lazyccd.kernels import imcombine_clips as rules
from lazyccd.kernels.block import Block
from lazyccd.kernels.clipping import run_clip
from lazyccd.kernels.levels import Numbers, Scaling
from lazyccd.kernels.piece import Piece, Rule
from lazyccd.kernels.pieces import Cut, bring_to_level, cuts, gather_piece, inside, shape_of, trimmed
from lazyccd.kernels.rejection import grow_rejected
from lazyccd.sections import Region

Array: TypeAlias = npt.NDArray[Any]

KINDS = {
    "sigma": rules.SIGCLIP,
    "avsigclip": rules.AVSIGCLIP,
    "ccdclip": rules.CCDCLIP,
    "pclip": rules.PCLIP,
    "minmax": rules.MINMAX,
}
METHODS = {"average": rules.AVERAGE, "median": rules.MEDIAN, "sum": rules.SUM}
"""Names of rules and methods of a stack."""

SIGSCALE = 0.1
"""imcombine's parameter: noise is corrected for scaling if a scale differs from 1 by more."""

LEAST_NOISE = 1e4 / 1.7014118e38
"""Least variance by read noise."""


class IrafScaling(NamedTuple):
    """What imcombine does to each frame: ``d / scale - zero``, all in single precision."""

    levels: Array
    """Scales, zeros and weights: three rows."""

    flags: Array
    """Whether frames are scaled, noise is corrected for it, and weights differ."""

    def as_scaling(self) -> Scaling:
        """Return the same as factors and terms."""
        scales, zeros, weights = self.levels.astype(np.float64)
        return Scaling(1 / scales, -zeros, weights)


def iraf_scaling(rule: Rule, numbers: Mapping[str, Array]) -> IrafScaling:
    """Return what imcombine does to each frame, given the global numbers."""
    levels = rule.levels
    real = np.float32

    def known(given: Numbers, default: float) -> Array:
        found = [float(np.ravel(numbers[n])[0]) if isinstance(n, str) else n for n in given]
        return np.array(found or [default] * rule.count, real)

    scales, zeros, weights = known(levels.scale, 1.0), known(levels.zero, 0.0), known(levels.weights, 1.0)
    if not (scales > 0).all():
        scales = np.ones(rule.count, real)
    if levels.scale and not levels.scale_is_statistic:
        scales = real(1) / scales
    scales = scales / scales[0]
    zeros = zeros / scales
    if levels.weights:
        by_sky = levels.weights_are_exposures and bool(levels.zero) and levels.zero_is_statistic and (zeros > 0).all()
        combined = np.array(rule.ncombine, real) * weights
        weights = combined * zeros[0] / zeros if by_sky else combined
    zeros = zeros - zeros[0] if levels.zero_is_statistic or not levels.zero else -zeros
    total = real(0)
    for weight in weights:
        total = real(total + weight)
    weights = weights / total if total > 0 else np.ones(rule.count, real)
    scaled = bool((scales != scales[0]).any()) or bool(levels.scale and not levels.scale_is_statistic)
    moved = bool((zeros != zeros[0]).any()) or bool(levels.zero and not levels.zero_is_statistic)
    corrected = scaled and bool((np.abs(scales - real(1)) > real(SIGSCALE)).any())
    flags = np.array([scaled or moved, corrected, bool((weights != weights[0]).any())])
    return IrafScaling(np.array([scales, zeros, weights], real), flags)


def iraf_pieces(
    region: Region, blocks: Sequence[Block], rule: Rule, numbers: Mapping[str, Array], *, variances: bool
) -> Iterator[tuple[Cut, Piece, Array]]:
    """Yield the lines of a region after imcombine's rejections, with what it makes of them; see `pieces.clipped_pieces`."""
    held = blocks[0].region
    inner = region.within(held)
    flagged = any(block.mask is not None and block.mask.max() for block in blocks[: rule.count])
    rule = rule if flagged else replace(rule, remaps=(None,) * rule.count)
    scaling = iraf_scaling(rule, numbers)
    grown = None
    if rule.grow >= 1:
        rejected = np.zeros((rule.count, *held.shape), np.bool_)
        for cut in cuts(held, rule):
            piece, given = _line(blocks, cut, rule, scaling, variances=False)
            rejected[:, *cut] = (given & ~piece.use).reshape(rule.count, *shape_of(cut))
        grown = np.zeros_like(rejected)
        grow_rejected(rejected, rule.grow, grown)
    for cut in cuts(held, rule):
        part = inside(cut, inner)
        if part is None:
            continue
        piece, given = _line(blocks, cut, rule, scaling, variances=variances)
        if grown is not None and piece.combined is not None:
            line = np.ascontiguousarray(grown[:, *cut].reshape(rule.count, -1))
            values, good = np.ascontiguousarray(piece.values), np.ascontiguousarray(given)
            imcombine.combine_grown(
                METHODS[rule.method],
                rule.about_median,
                values,
                good,
                line,
                scaling.levels,
                scaling.flags,
                piece.combined,
                piece.use,
            )
        bring_to_level(piece)
        yield trimmed(part, cut, piece, given, inner)


def _line(
    blocks: Sequence[Block], cut: Cut, rule: Rule, scaling: IrafScaling, *, variances: bool
) -> tuple[Piece, Array]:
    """Return a line after rejection, its values not scaled yet, and what counted before."""
    piece = gather_piece(blocks, cut, rule, scaling.as_scaling(), variances=variances)
    piece.values = piece.values.astype(np.float32, copy=False)
    for clip in rule.clips:
        run_clip(piece, clip)
    given = piece.use.copy()
    name, settings = rule.reject or ("", ())
    noise = np.ones((rule.count, 3), np.float32)
    if rule.noise is not None:
        r, g, s = (np.array(n, np.float32) for n in (rule.noise.readnoise, rule.noise.gain, rule.noise.snoise))
        noise = np.array([np.maximum((r / g) ** 2, np.float32(LEAST_NOISE)), g, s]).T.copy()
    piece.combined = np.empty(piece.values.shape[1], np.float32)
    imcombine.reject_line(
        METHODS[rule.method],
        KINDS.get(name, rules.NONE),
        rule.about_median,
        piece.values,
        piece.use,
        scaling.levels,
        scaling.flags,
        noise.astype(np.float32),
        _settings(name, settings, rule.count),
        rule.nkeep,
        piece.combined,
    )
    return piece, given


def _settings(name: str, settings: Any, count: int) -> Array:
    """Return thresholds below and above, and an order or two fractions, as imcombine's single-precision numbers."""
    if name == "minmax":
        fractions = np.array(settings, np.float32) / np.float32(count)
        return np.array([0, 0, *fractions], np.float32)
    order = 0.0
    if name == "sigma":
        low, high = settings[2:4]
    elif name == "pclip":
        order, low, high = settings
    else:
        low, high = settings or (None, None)
    limits = [rules.REAL_MAX if s is None else min(s, rules.REAL_MAX) for s in (low, high)]
    return np.array([*limits, order, 0], np.float32)
