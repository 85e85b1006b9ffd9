"""LA Cosmic on blocks: from the planes of a frame to the arrays of `lacosmic`, and back.

1. Pixels that are not finite are filled from their neighbours and count as bad (`_known`); variance and background are
   read from the blocks given for them.
2. Cosmic rays are found by `lacosmic`, or by astroscrappy itself for comparison.
3. Only pixels that are flagged change (`_apply_replacements`): data, variance and mask.

`lacosmic_start`, `count_level_digits` and `next_level_digits` find the levels of the whole image, its median and that of
its variance, which replace pixels whose whole neighbourhood is bad.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic, Levels, find, finish, known_mask, prepare
from lazyccd.kernels.cosmic_rays.replace import FRAME, is_enclosed
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.medians import lower_median
from lazyccd.kernels.quantiles import count_digits, last_digit, next_digit
from lazyccd.sections import Region

Array = npt.NDArray[Any]


class Given(TypedDict):
    """What `prepare` takes besides data and mask."""

    saturated: Array | None
    background: Array | None
    variance: Array | None


NO_LEVELS = np.empty(0)
"""Stands for levels that were not given."""


def lacosmic(
    request: Request,
    a: Block,
    *more: Block,
    extras: tuple[str, ...],
    settings: LACosmic,
    bits: tuple[int, int],
    flags: tuple[int, int, int],
    offset: float,
    scale: float,
    whole: bool,
    library: tuple[tuple[str, Any], ...] | None,
    mask_dtype: str,
    levels: Array | Callable[[], Array] = NO_LEVELS,
) -> Block:
    """Find cosmic rays and replace them.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The frame, with the halo of the settings.
    more
        Blocks for ``extras``.
    extras
        Which of ``background`` and ``variance`` are given besides; ``own`` for the frame's variance.
    settings
        The parameters of LA Cosmic.
    bits
        The bits that count as bad, and those of saturated pixels; 0 if the level of the settings decides instead.
    flags
        The bits of CR, INTERP and NO_DATA.
    offset
        Added to the data at first and subtracted in the end.
    scale
        What the result is multiplied by.
    whole
        Whether the block is the whole image, of which levels are computed if they are needed.
    library
        Arguments of `astroscrappy.detect_cosmics`, which is then called instead.
    mask_dtype
        Dtype of the mask.
    levels
        What replaces data and variance where nothing near is good, in electrons, or what returns these two; empty without.
    """
    data, bad, given = _inputs(a, more, extras, bits, offset)
    known = True
    if library is not None:
        bad = np.zeros(data.shape, bool) if bad is None else bad
        rays, clean = _astroscrappy(data, bad, given["background"], given["variance"], dict(library))
    else:
        rays, clean, bad, known = _find(data, bad, settings, given, levels, whole=whole)
    if offset:
        # In float32, as the image is.
        clean = clean - np.float32(offset)
    return _result(request, a, rays, bad, clean, flags=flags, scale=scale, known=known, mask_dtype=mask_dtype)


def _pair(levels: Array) -> Levels:
    """Return levels as two numbers; None if there are none, or if no pixel was good."""
    return None if levels.size == 0 or np.isnan(levels).any() else (float(levels[0]), float(levels[1]))


def _inputs(
    a: Block, more: tuple[Block, ...], extras: tuple[str, ...], bits: tuple[int, int], offset: float
) -> tuple[Array, Array | None, Given]:
    """Return finite data, bad pixels, and what else is known: saturated pixels, background and variance.

    Parameters
    ----------
    a
        The frame.
    more, extras
        Other blocks, and what each is, as for `lacosmic`.
    bits
        The bits that count as bad, and those of saturated pixels.
    offset
        Added to the data.
    """
    data = a.plane("data")
    bad, given = None, Given(saturated=None, background=None, variance=None)
    bad_bits, saturated_bits = bits
    if a.mask is not None:
        bad = (a.mask & a.mask.dtype.type(bad_bits)) != 0
        given["saturated"] = (a.mask & a.mask.dtype.type(saturated_bits)) != 0 if saturated_bits else None
    # ``own`` comes last in ``extras``: its block is the frame itself.
    for name, block in zip(extras, (*more, a), strict=False):
        if name == "background":
            given["background"], bad = _known(block.plane("data"), bad)
        else:
            variance = block.plane("variance" if name == "own" else "data").astype(np.float32, copy=False)
            given["variance"], bad = _known(variance, bad)
    if offset:
        data = data + data.dtype.type(offset)
    data, bad = _known(data, bad)
    return data, bad, given


def _known(pixels: Array, bad: Array | None) -> tuple[Array, Array | None]:
    """Return pixels with those that are not finite filled from their neighbours, and the bad pixels with these added."""
    if all_finite(pixels):
        return pixels, bad
    unknown = ~np.isfinite(pixels)
    # astroscrappy's Quickselect returns whatever the order of pixels makes of NaN, so none may come near it.
    filled = pixels.copy()
    fill_unknown(filled, unknown)
    return filled, unknown if bad is None else bad | unknown


@compiled
def all_finite(pixels: Array) -> bool:
    """Return whether no pixel is infinite or NaN."""
    for y in range(pixels.shape[0]):
        row = pixels[y]
        # A count, tested once a row: a loop that stops early would not be vectorised.
        wrong = 0
        for x in range(row.size):
            wrong += row[x] - row[x] != 0
        if wrong:
            return False
    return True


@compiled
def fill_unknown(data: Array, unknown: Array) -> None:
    """Replace unknown pixels by the lower median of the known ones within 2, or by 0 where there are none."""
    ny, nx = data.shape
    values = np.empty(25, data.dtype)
    for y in range(ny):
        for x in range(nx):
            if not unknown[y, x]:
                continue
            count = 0
            for j in range(max(0, y - 2), min(ny, y + 3)):
                for i in range(max(0, x - 2), min(nx, x + 3)):
                    if not unknown[j, i]:
                        values[count] = data[j, i]
                        count += 1
            data[y, x] = lower_median(values, count) if count else 0


def _find(
    data: Array,
    mask: Array | None,
    settings: LACosmic,
    given: Given,
    levels: Array | Callable[[], Array],
    *,
    whole: bool,
) -> tuple[Array, Array, Array, bool]:
    """Return the cosmic rays, the clean image, the grown mask, and whether levels were known if any were needed.

    Parameters
    ----------
    data, mask
        Finite pixels, and bad ones.
    settings
        The parameters of LA Cosmic.
    given
        Saturated pixels, background and variance.
    levels
        What replaces data and variance where nothing near is good, or what returns it; empty if not known.
    whole
        Whether the levels can be computed from these pixels.
    """
    start = prepare(data, mask, settings, **given)
    if not callable(levels) and (not whole or levels.size):
        pair = _pair(levels)
        return find(start, settings, pair), finish(start, settings), start.bad, pair is not None
    # A list, because levels are asked for only if a pixel needs them, and then it counts whether there are any.
    known = [False]

    def measure() -> Array:
        block = _examined(data, mask, settings, given, variance=given["variance"] is not None)
        noise = None if given["variance"] is not None else settings.noise
        state = np.zeros((0, 2), np.uint64)
        for step in range(2):
            counts = count_level_digits(block, step=step, state=state)
            state = next_level_digits([counts], step=step, state=state, noise=noise)
        return state

    def ask() -> Levels:
        pair = _pair(levels() if callable(levels) else measure())
        known.append(pair is not None)
        return pair

    rays = find(start, settings, ask)
    return rays, finish(start, settings), start.bad, known[-1]


def _examined(data: Array, bad: Array | None, settings: LACosmic, given: Given, *, variance: bool) -> Block:
    """Return the image in electrons, its variance if wanted, and where it is not examined if that is anywhere.

    Parameters
    ----------
    data, bad
        Finite pixels, and bad ones.
    settings
        The parameters of LA Cosmic.
    given
        Saturated pixels, background and variance.
    variance
        Whether to return the variance.
    """
    region = Region.full((data.shape[0], data.shape[1]))
    if variance or given["background"] is not None:
        start = prepare(data, bad, settings, **given)
        return Block(region, start.clean, start.var if variance else None, start.bad)
    # Without a variance its level follows from that of the data: half the memory and passes.
    same = data.dtype == np.float32 and settings.gain == 1
    clean = data if same else (data * float(np.float32(settings.gain))).astype(np.float32)
    return Block(region, clean, None, known_mask(clean, bad, settings, given["saturated"]))


def _astroscrappy(
    data: Array, bad: Array, background: Array | None, variance: Array | None, arguments: dict[str, Any]
) -> tuple[Array, Array]:
    """Return what astroscrappy finds in a block.

    Parameters
    ----------
    data, bad
        Finite pixels, and bad ones.
    background, variance
        In the units of the data and their square; None without.
    arguments
        Other arguments of `astroscrappy.detect_cosmics`.
    """
    from astroscrappy import detect_cosmics

    # astroscrappy refuses a kernel or variance that is not float32 and C-contiguous.
    arguments = {key: np.array(value, np.float32) if key == "psfk" else value for key, value in arguments.items()}
    invar = None if variance is None else np.ascontiguousarray(variance, np.float32)
    rays, clean = detect_cosmics(
        np.ascontiguousarray(data), inmask=np.ascontiguousarray(bad), inbkg=background, invar=invar, **arguments
    )
    return rays.view(np.uint8), clean


def _result(
    request: Request,
    a: Block,
    rays: Array,
    bad: Array,
    clean: Array,
    *,
    flags: tuple[int, int, int],
    scale: float,
    known: bool,
    mask_dtype: str,
) -> Block:
    """Return the planes of a request: changed where cosmic rays are, and only there.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The frame, with the halo.
    rays, bad, clean
        Cosmic rays, bad pixels and the clean image, shape of the block.
    flags
        The bits of CR, INTERP and NO_DATA.
    scale
        What the result is multiplied by.
    known
        Whether pixels without good neighbours have been replaced by levels.
    mask_dtype
        Dtype of the mask.
    """
    cut = request.region.within(a.region)
    cr, interp, no_data = flags
    outs: dict[str, Array] = {}
    data = a.plane("data")
    # Copies of what was given: pixels that are not flagged keep their bits, where ccdproc sends all through float32.
    for plane in sorted(request.planes - {"mask"}):
        outs[plane] = a.plane(plane)[cut].copy()
    if "mask" in request.planes:
        outs["mask"] = np.zeros(request.region.shape, mask_dtype) if a.mask is None else a.mask[cut].astype(mask_dtype)
        # NaN stays NaN; it was filled only for its neighbours' sake.
        outs["mask"][np.isnan(data[cut])] |= outs["mask"].dtype.type(no_data)
    nothing = np.empty((0, 0), data.dtype)
    _apply_replacements(
        (cut[0].start, cut[1].start),
        (request.region.shape.y, request.region.shape.x),
        known,
        (rays, np.ascontiguousarray(bad).view(np.uint8), clean),
        (data, nothing if a.variance is None else a.variance),
        (outs.get("data", nothing), outs.get("variance", nothing), outs.get("mask", np.empty((0, 0), mask_dtype))),
        (np.dtype(mask_dtype).type(cr), np.dtype(mask_dtype).type(interp)),
    )
    for plane, factor in (("data", scale), ("variance", scale**2)):
        if plane in outs and factor != 1:
            outs[plane] *= outs[plane].dtype.type(factor)
    return Block(request.region, outs.get("data"), outs.get("variance"), outs.get("mask"))


@compiled
def _apply_replacements(
    origin: tuple[int, int],
    shape: tuple[int, int],
    known: bool,
    found: tuple[Array, Array, Array],
    given: tuple[Array, Array],
    outs: tuple[Array, Array, Array],
    flags: tuple[int, int],
) -> None:
    """Put replaced pixels into data, variance and mask.

    Parameters
    ----------
    origin
        Row and column of the block where the result begins.
    shape
        Rows and columns of the result.
    known
        Whether pixels without good neighbours have been replaced by levels.
    found
        Cosmic rays and bad pixels (uint8), and the clean image (float32), shape of the block.
    given
        Data and variance of the block; shape ``(0, 0)`` without.
    outs
        Data, variance and mask of the result, which are changed; shape ``(0, 0)`` for a plane that is not wanted.
    flags
        The bits of CR and INTERP, of the mask's dtype.
    """
    rays, bad, clean = found
    data, variance = given
    new_data, new_variance, new_mask = outs
    cr, interp = flags
    top, left = origin
    for j in range(shape[0]):
        for i in range(shape[1]):
            y, x = j + top, i + left
            if not rays[y, x]:
                continue
            if new_mask.size > 0:
                new_mask[j, i] |= cr
            # Flagged but not replaced, as in astroscrappy.
            inside = FRAME <= y < rays.shape[0] - FRAME and FRAME <= x < rays.shape[1] - FRAME
            if not inside or (not known and is_enclosed(rays, bad, y, x)):
                continue
            if new_mask.size > 0:
                new_mask[j, i] |= interp
            if new_data.size > 0:
                new_data[j, i] = clean[y, x]
            if new_variance.size > 0:
                new_variance[j, i] = _variance_about(rays, bad, data, variance, y, x)


@compiled
def _variance_about(rays: Array, bad: Array, data: Array, variance: Array, y: int, x: int) -> Any:
    """Return the variance of a replaced pixel: the largest of the good pixels near it, or their scatter if that is more.

    Parameters
    ----------
    rays, bad
        Cosmic rays and bad pixels, uint8, shape ``(ny, nx)``.
    data, variance
        Pixels and their variance, same shape.
    y, x
        The pixel, at least `FRAME` from the edge.
    """
    largest = variance[y, x] * 0
    total = square = 0.0
    count = 0
    # Distances to the first good pixel: the squares of bright pixels themselves would cancel.
    first = np.float64(0)
    for j in range(y - FRAME, y + FRAME + 1):
        for i in range(x - FRAME, x + FRAME + 1):
            if rays[j, i] or bad[j, i]:
                continue
            if count == 0:
                first = np.float64(data[j, i])
            value = np.float64(data[j, i]) - first
            total += value
            square += value * value
            count += 1
            if variance[j, i] > largest:
                largest = variance[j, i]
    if count == 0:
        # Its own variance has the noise of the cosmic ray in it, so it is not too small.
        return variance[y, x]
    scatter = square / count - (total / count) ** 2
    return max(np.float64(largest), scatter)


def lacosmic_start(
    request: Request,
    a: Block,
    *more: Block,
    extras: tuple[str, ...],
    settings: LACosmic,
    bits: tuple[int, int],
    offset: float,
) -> Block:
    """Return the image and its variance in electrons, and 1 in the mask where LA Cosmic does not look.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, more, extras, settings, bits, offset
        As for `lacosmic`.
    """
    data, bad, given = _inputs(a, more, extras, bits, offset)
    block = _examined(data, bad, settings, given, variance="variance" in request.planes)
    if block.mask is None:  # nothing is bad; a task that works in bands puts all planes together
        block = block._replace(mask=np.zeros(data.shape, np.uint8))
    return block.crop(request.region.shift(-a.region.y0, -a.region.x0))._replace(region=request.region)


def count_level_digits(block: Block, *, step: int, state: Array, **_: Any) -> Array:
    """Count the next digits of data, and of the variance if there is one; see `lazyccd.kernels.quantiles`."""
    counts = []
    for k, plane in enumerate(p for p in (block.data, block.variance) if p is not None):
        own = state[3 * k : 3 * k + 3]
        counts.append(count_digits(Block(block.region, plane, mask=block.mask), bad_bits=1, step=step, state=own))
    return np.concatenate(counts)


def next_level_digits(partials: Sequence[Array], *, step: int, state: Array, noise: float | None = None) -> Array:
    """Return the states of the planes after the first pass, and the two levels after the second.

    Parameters
    ----------
    partials
        What `count_level_digits` returned for the blocks.
    step
        Number of digits known before this pass.
    state
        States of the planes before this pass, one below the other.
    noise
        If given, the variance is the data plus this, in electrons squared, and has no plane.
    """
    # The lower median, element (n - 1) // 2, as astroscrappy takes it over the whole image.
    given: dict[str, Any] = {"bad_bits": 1, "step": step, "quantiles": (0.5,), "lower": True}
    found = []
    for k in range(len(partials[0])):
        part, own = [partial[k : k + 1] for partial in partials], state[3 * k : 3 * k + 3]
        found.append(
            last_digit(part, state=own, dtype="float32", **given) if step else next_digit(part, state=own, **given)
        )
    if step and noise is not None:
        # Adding a number keeps the order, also with rounding: the median of the variance is that of the data plus the
        # noise.
        found.append(found[0] + np.float32(noise))
    return np.concatenate(found)
