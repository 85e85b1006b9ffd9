"""Pixel by pixel arithmetic on blocks: data, variance and mask together.

Every kernel takes a request and blocks, returns the planes that were asked for, and leaves its inputs unchanged. Errors
are propagated as independent ones; a block without variance is exact. Masks are united, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lazyccd.errors import FrameError, ShapeError
from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import BITWISE_OR, Array, Block, Request
from lazyccd.kernels.pixel_loops import pixels_of

Remap: TypeAlias = tuple[tuple[int, int], ...]
"""Bits of a mask, and the bit that each becomes."""

FORMS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "std": (np.sqrt, np.square),
    "var": (np.copy, np.copy),
    "ivar": (np.reciprocal, np.reciprocal),
}
"""From the variance to each type of uncertainty, and back."""


def remap_bits(mask: Array, pairs: Remap, dtype: npt.DTypeLike | None = None) -> Array:
    """Return a mask whose bits are moved: for each pair, the first bit becomes the second; other bits stay."""
    dtype = np.dtype(dtype or mask.dtype)
    if not pairs:
        return mask.astype(dtype, copy=False)
    moved = sum(old for old, _ in pairs)
    # All old bits are cleared before any new one is set: a pair may move onto a bit that another pair leaves.
    out: Array = (mask & ~mask.dtype.type(moved)).astype(dtype)
    for old, new in pairs:
        out |= np.where(mask & mask.dtype.type(old), dtype.type(new), dtype.type(0))
    return out


def or_masks(request: Request, a: Array | None, b: Array | None, dtype: npt.DTypeLike) -> Array:
    """Return the bits of both masks over the region.

    Parameters
    ----------
    request
        Its region gives the shape.
    a, b
        Masks; None counts as a mask without bits.
    dtype
        Dtype of the result.
    """
    if a is None or b is None:
        # A mask may be one row or one column, which broadcasts here.
        out = np.zeros(request.region.shape, dtype)
        given = a if a is not None else b
        return out if given is None else np.bitwise_or(out, given, out=out)
    return np.bitwise_or(a, b, dtype=dtype)


def add_scaled(
    request: Request, a: Block, b: Block | None, *, scale: float, dtype: str, mask_dtype: str, remap: Remap
) -> Block:
    """Return ``a + scale * b``; the variance is ``var_a + scale**2 var_b``.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        Blocks in units whose ratio is ``scale``; ``b`` is None if only a plane is wanted that it lacks.
    scale
        Factor of the second block.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    remap
        Bits of the second mask and what each becomes in the result.
    """
    data = variance = mask = None
    if "data" in request.planes:
        assert b is not None
        data = _plus(a.plane("data"), b.plane("data"), scale, dtype)
    if "variance" in request.planes:
        variance = _sum_variance(request, a, b, scale**2, dtype)
    if "mask" in request.planes:
        mask = _merge_masks(request, a, b, mask_dtype, remap)
    return Block(request.region, data, variance, mask)


def _plus(a: Array, b: Array, scale: float, dtype: str) -> Array:
    """Return ``a + scale * b``.

    Parameters
    ----------
    a, b
        Planes; either may be one row or one column.
    scale
        Factor of the second plane.
    dtype
        Dtype of the result.
    """
    if scale == 1:
        return np.add(a, b, dtype=dtype)
    if scale == -1:
        return np.subtract(a, b, dtype=dtype)
    # One pass: NumPy would write the product to memory and read it again.
    out = np.empty(np.broadcast_shapes(a.shape, b.shape), dtype)
    pixels = pixels_of(a, dtype, out.shape), pixels_of(b, dtype, out.shape)
    pixel_loops.add_multiple(*pixels, out.dtype.type(scale), out.reshape(-1))
    return out


def _sum_variance(request: Request, a: Block | None, b: Block | None, scale: float, dtype: str) -> Array:
    """Return ``var_a + scale * var_b``, where a missing variance is 0.

    Parameters
    ----------
    request
        Its region gives the shape.
    a, b
        Blocks, one of which has a variance.
    scale
        Factor of the second variance.
    dtype
        Dtype of the result.
    """
    va = None if a is None else a.variance
    vb = None if b is None else b.variance
    if vb is None:
        assert va is not None
        return va.astype(dtype, copy=False)
    if va is None:
        # A master of one row or column makes a variance of one; the image has its own shape.
        return np.broadcast_to(np.multiply(vb, scale, dtype=dtype), request.region.shape)
    return _plus(va, vb, scale, dtype)


def _merge_masks(request: Request, a: Block | None, b: Block | None, dtype: str, remap: Remap) -> Array:
    """Return the bits of both blocks' masks.

    Parameters
    ----------
    request
        Its region gives the shape.
    a, b
        Blocks, with or without a mask.
    dtype
        Dtype of the result.
    remap
        Bits of the second mask and what each becomes in the result.
    """
    ma = None if a is None else a.mask
    mb = None if b is None or b.mask is None else remap_bits(b.mask, remap, dtype)
    return or_masks(request, ma, mb, dtype)


def multiply(request: Request, a: Block, b: Block, *, scale: float, dtype: str, mask_dtype: str, remap: Remap) -> Block:
    """Return ``scale * a * b``; the variance is ``scale**2 (b**2 var_a + a**2 var_b)``.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        Blocks.
    scale
        Factor of the product, from its units to those of the result.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    remap
        Bits of the second mask and what each becomes in the result.
    """
    data = variance = mask = None
    if "data" in request.planes:
        data = np.multiply(a.plane("data"), b.plane("data"), dtype=dtype)
        if scale != 1:
            data *= scale
    if "variance" in request.planes:
        variance = np.zeros(request.region.shape, dtype)
        for one, other in ((a, b), (b, a)):
            if one.variance is not None:
                variance += other.plane("data").astype(dtype) ** 2 * one.variance
        if scale != 1:
            variance *= scale**2
    if "mask" in request.planes:
        mask = _merge_masks(request, a, b, mask_dtype, remap)
    return Block(request.region, data, variance, mask)


def divide(
    request: Request,
    a: Block,
    b: Block,
    *,
    scale: float,
    dtype: str,
    mask_dtype: str | None,
    remap: Remap,
    no_data: int,
) -> Block:
    """Return ``r = scale * a / b``; the variance is ``(scale**2 var_a + r**2 var_b) / b**2``.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        Blocks.
    scale
        Factor of the quotient, from its units to those of the result.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    remap
        Bits of the second mask and what each becomes in the result.
    no_data
        Bit for pixels whose quotient is not finite.
    """
    data = variance = mask = None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Errors in absolute form: that of relative ones is 0 / 0 where ``a`` is 0. The data are needed for variance and
        # mask.
        data = np.divide(a.plane("data"), b.plane("data"), dtype=dtype)
        if scale != 1:
            data *= scale
        if "variance" in request.planes:
            variance = np.zeros(request.region.shape, dtype)
            if a.variance is not None:
                variance += a.variance * scale**2 if scale != 1 else a.variance
            if b.variance is not None:
                variance += data**2 * b.variance
            variance /= b.plane("data").astype(dtype) ** 2
    if "mask" in request.planes:
        assert mask_dtype is not None
        mask = _flag_nonfinite(data, _merge_masks(request, a, b, mask_dtype, remap), no_data)
    return Block(request.region, data if "data" in request.planes else None, variance, mask)


def _flag_nonfinite(data: Array, mask: Array, no_data: int) -> Array:
    """Return the mask with ``no_data`` set where the data are not finite."""
    return _nonfinite_bits(data, mask, no_data, mask.dtype)


def _nonfinite_bits(data: Array, mask: Array | None, no_data: int, dtype: npt.DTypeLike) -> Array:
    """Return a mask, or one without bits, with ``no_data`` set where the data are not finite.

    Parameters
    ----------
    data
        Float32 or float64.
    mask
        Mask of the same shape; None for one without bits.
    no_data
        Bit to set.
    dtype
        Dtype of the result.
    """
    out = np.empty(data.shape, dtype)
    bits = pixels_of(mask, dtype, out.shape)
    pixel_loops.flag_nonfinite(pixels_of(data, data.dtype), bits, out.dtype.type(no_data), out.reshape(-1))
    return out


def flag_nonfinite(request: Request, data: Block, mask: Block, *, no_data: int, mask_dtype: str) -> Block:
    """Return a mask, in the plane ``data``, with ``no_data`` set where another block is not finite.

    Parameters
    ----------
    request
        Region and planes wanted.
    data
        The block that is looked at.
    mask
        The mask, as the ``data`` of its block.
    no_data
        Bit to set.
    mask_dtype
        Dtype of the mask in the result.
    """
    bits = mask.plane("data").astype(mask_dtype, copy=False)
    return Block(request.region, data=_flag_nonfinite(data.plane("data"), bits, no_data))


def flag_nonfinite_alone(request: Request, data: Block, *, no_data: int, mask_dtype: str) -> Block:
    """Return a mask, in the plane ``data``, with ``no_data`` set where the block's data are not finite, and no other bit.

    Parameters
    ----------
    request
        Region and planes wanted.
    data
        The block that is looked at.
    no_data
        Bit to set.
    mask_dtype
        Dtype of the mask in the result.
    """
    return Block(request.region, data=_nonfinite_bits(data.plane("data"), None, no_data, mask_dtype))


def affine(request: Request, a: Block, *, scale: float, offset: float, dtype: str) -> Block:
    """Return ``scale * a + offset``; the variance is ``scale**2 var_a``.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    scale, offset
        Factor, and what is added then, in the unit of the result.
    dtype
        Dtype of data and variance in the result.
    """
    data = variance = None
    if "data" in request.planes:
        data = a.plane("data").astype(dtype, copy=False)
        data = data * scale if scale != 1 else data
        data = data + offset if offset != 0 else data
    if "variance" in request.planes:
        variance = np.multiply(a.plane("variance"), scale**2, dtype=dtype)
    return Block(request.region, data, variance, a.mask if "mask" in request.planes else None)


def reciprocal(
    request: Request, a: Block, *, numerator: float, dtype: str, mask_dtype: str | None, no_data: int
) -> Block:
    """Return ``numerator / a``: a number divided by a frame.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    numerator
        The number, without error.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    no_data
        Bit for pixels whose quotient is not finite.
    """
    one = Block(request.region, data=np.full(request.region.shape, numerator, dtype))
    return divide(request, one, a, scale=1, dtype=dtype, mask_dtype=mask_dtype, remap=(), no_data=no_data)


def set_deviation(request: Request, a: Block, *, gain: float, readnoise: float, clip: bool, dtype: str) -> Block:
    """Give a block the variance ``(gain * data + readnoise**2) / gain**2`` of Poisson and read noise.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, in adu or electrons.
    gain
        Electrons per unit of the data.
    readnoise
        Read noise in electrons.
    clip
        Whether negative signals count as 0; else their variance is NaN, which is ccdproc's default.
    dtype
        Dtype of data and variance in the result.
    """
    variance = None
    if "variance" in request.planes:
        variance = np.empty(request.region.shape, dtype)
        kind = variance.dtype.type
        # All numbers in the type of the pixels, because numba would compute float32 pixels in float64 otherwise.
        numbers = kind(gain), kind(readnoise**2), kind(gain**2), kind(0 if clip else np.nan)
        pixel_loops.deviation(pixels_of(a.plane("data"), dtype), *numbers, variance.reshape(-1))
    data = a.data if "data" in request.planes else None
    return Block(request.region, data, variance, a.mask if "mask" in request.planes else None)


def add_noise(request: Request, a: Block, *, gain: float, readnoise: float, poisson: bool, dtype: str) -> Block:
    """Add ``max(data, 0) / gain + (readnoise / gain)**2`` to the variance.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with or without variance.
    gain
        Electrons per unit of the data.
    readnoise
        Read noise in electrons.
    poisson
        Whether to add the first term.
    dtype
        Dtype of data and variance in the result.
    """
    variance = None
    if "variance" in request.planes:
        read = np.dtype(dtype).type((readnoise / gain) ** 2)
        if poisson:
            # Sky-subtracted pixels may be negative; a variance may not.
            variance = np.maximum(a.plane("data"), 0, dtype=dtype)
            variance /= gain
            variance += read
        else:
            variance = np.full(request.region.shape, read, dtype)
        if a.variance is not None:
            variance += a.variance
    data = a.data if "data" in request.planes else None
    return Block(request.region, data, variance, a.mask if "mask" in request.planes else None)


def square(request: Request, a: Block) -> Block:
    """Return the variance of a standard deviation, in the plane ``data``."""
    return Block(request.region, data=a.plane("data") ** 2)


def inverse(request: Request, a: Block) -> Block:
    """Return the variance of an inverse variance, in the plane ``data``."""
    with np.errstate(divide="ignore"):
        return Block(request.region, data=1 / a.plane("data"))


def cast(request: Request, a: Block, *, dtype: str) -> Block:
    """Return the plane ``data`` in another dtype."""
    return Block(request.region, data=a.plane("data").astype(dtype, copy=False))


def named_bits(request: Request, a: Block, *, known: int) -> Block:
    """Return the plane ``data``, a mask, after checking that planes of the schema name all of its bits."""
    bits = a.plane("data")
    # The schema may have bits that this dtype cannot hold.
    kept = bits.dtype.type(known & np.iinfo(bits.dtype).max)
    unknown = int(BITWISE_OR.reduce((bits & ~kept).ravel()))
    if unknown:
        raise FrameError(
            f"the mask has the bits {unknown}, which no plane names (named are {known}); add planes by "
            "add_mask(array, plane='NAME'), or name them in the attributes flag_masks and flag_meanings."
        )
    return Block(request.region, data=bits)


def _bits(value: int, dtype: np.dtype[Any]) -> Any:
    """Return the bits of an integer that a mask of this type has; a header may name planes beyond them."""
    return np.array(value & ((1 << 8 * dtype.itemsize) - 1), np.uint64).astype(dtype)[()]


def recode(request: Request, a: Block, *, pairs: Remap, exclusive: bool, dtype: str, where: str, names: str) -> Block:
    """Return the plane ``data``, integers of another package, as a mask.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The integers, as the ``data`` of a block.
    pairs
        Integers, and the bit that each becomes.
    exclusive
        Whether the integers are codes, of which a pixel has one; otherwise they are bits.
    dtype
        Dtype of the data in the result.
    where, names
        The mask and the planes that it may have, for the message.

    Raises
    ------
    FrameError
        Raised if a pixel has an integer without a pair.
    """
    given = a.plane("data")
    known = np.zeros(given.shape, bool) if exclusive else None
    out = np.zeros(given.shape, dtype)
    for value, bit in pairs:
        # A code is an integer and no set of bits: 3 is not 1 and 2.
        hit = given == value if exclusive else (given & _bits(value, given.dtype)) != 0
        out |= np.where(hit, out.dtype.type(bit), out.dtype.type(0))
        if known is not None:
            known |= hit
    if known is not None:
        unknown = sorted({int(v) for v in given[~known & (given != 0)]})
    else:
        rest = int(BITWISE_OR.reduce((given & ~_bits(sum({value for value, _ in pairs}), given.dtype)).ravel()))
        unknown = [rest] if rest else []
    if unknown:
        raise FrameError(
            f"the mask of {where} has the {'codes' if exclusive else 'bits'} {', '.join(map(str, unknown))}, which none of "
            f"its planes stands for ({names}); pass dq={{'NAME': bit, ...}} with all of them, or dq='boolean'."
        )
    return Block(request.region, data=out)


def mask_from(request: Request, a: Block, *, bit: int, dtype: str) -> Block:
    """Return a mask, in the plane ``data``, with ``bit`` set where the plane ``data`` is not zero.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        Numbers of any dtype.
    bit
        Bit to set.
    dtype
        Dtype of the data in the result.
    """
    # NaN is not equal to zero, so it is flagged.
    return Block(
        request.region, data=np.where(a.plane("data") != 0, np.dtype(dtype).type(bit), np.dtype(dtype).type(0))
    )


def mask_plane_from(request: Request, a: Block, *, bit: int, dtype: str) -> Block:
    """Return `mask_from` in the plane ``mask``.

    Parameters
    ----------
    request, a, bit, dtype
        As for `mask_from`.
    """
    return Block(request.region, mask=mask_from(request, a, bit=bit, dtype=dtype).data)


def add_bits(request: Request, a: Block | None, b: Block | None, *, mask_dtype: str) -> Block:
    """Return block ``a`` with the bits of the second block's mask added.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        Blocks; None if they have none of the planes wanted.
    mask_dtype
        Dtype of the mask in the result.
    """
    mask = _merge_masks(request, a, b, mask_dtype, ()) if "mask" in request.planes else None
    return Block(
        request.region,
        a.data if a is not None and "data" in request.planes else None,
        a.variance if a is not None and "variance" in request.planes else None,
        mask,
    )


def flag_above(request: Request, a: Block, *, level: float, bit: int, mask_dtype: str) -> Block:
    """Return block ``a`` with ``bit`` set in the mask where the data are at or above ``level``.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    level
        Level in the unit of the data.
    bit
        Bit to set.
    mask_dtype
        Dtype of the mask in the result.
    """
    mask = None
    if "mask" in request.planes:
        hit = np.where(a.plane("data") >= level, np.dtype(mask_dtype).type(bit), np.dtype(mask_dtype).type(0))
        mask = or_masks(request, a.mask, hit, mask_dtype)
    return Block(
        request.region,
        a.data if "data" in request.planes else None,
        a.variance if "variance" in request.planes else None,
        mask,
    )


def window(request: Request, a: Block, *, offset: tuple[int, int], step: tuple[int, int]) -> Block:
    """Return the pixels ``offset + step * i`` of the input: trim, flip, decimation.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The pixels of the input that the region needs.
    offset
        Row and column of the input for pixel (0, 0) of the output.
    step
        Steps along y and x, negative for a flip.
    """
    cuts = []
    for axis, (first, stop) in enumerate(
        ((request.region.y0, request.region.y1), (request.region.x0, request.region.x1))
    ):
        lowest = a.region[2 * axis]
        begin = offset[axis] + step[axis] * first - lowest
        end = offset[axis] + step[axis] * (stop - 1) - lowest + (1 if step[axis] > 0 else -1)
        # A stop below 0 would count from the end; None stands for the position before the first pixel.
        cuts.append(slice(begin, end if end >= 0 else None, step[axis]))
    cut = tuple(cuts)
    return Block(request.region, *(None if plane is None else plane[cut] for plane in a[1:]))


def first_known(request: Request, a: Block, b: Block) -> Block:
    """Return the planes of a block, and those of another where the data of the first are NaN."""
    unknown = np.isnan(a.plane("data"))
    if not unknown.any():
        return Block(request.region, **{name: a.plane(name) for name in request.planes})
    return Block(request.region, **{name: np.where(unknown, b.plane(name), a.plane(name)) for name in request.planes})


def shifted(
    request: Request, a: Block | None, *, offset: tuple[int, int], dtypes: tuple[tuple[str, str], ...], no_data: int
) -> Block:
    """Return the pixels of an input that lies at an offset; NaN and NO_DATA where it has none.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The pixels of the input that the region needs; None if it needs none.
    offset
        Row and column of the output where pixel (0, 0) of the input lies.
    dtypes
        Name and dtype of each plane.
    no_data
        Bit for pixels without input.
    """
    out = {}
    for name, dtype in dtypes:
        if name in request.planes:
            plane = np.full(request.region.shape, no_data if name == "mask" else np.nan, dtype)
            if a is not None:
                plane[a.region.shift(*offset).within(request.region)] = a.plane(name)
            out[name] = plane
    return Block(request.region, **out)


def without_variance(request: Request, a: Block | None, *, dtype: str) -> Block:
    """Return the same pixels with a variance of 0."""
    variance = np.zeros(request.region.shape, dtype) if "variance" in request.planes else None
    if a is None:
        return Block(request.region, None, variance)
    return Block(request.region, a.data, variance, a.mask)


def only_variance(request: Request, a: Block) -> Block:
    """Return the variance alone."""
    return Block(request.region, None, a.plane("variance"))


def transform(
    request: Request, a: Block, *, func: Callable[..., Any], kwargs: tuple[tuple[str, Any], ...], kind: str
) -> Block:
    """Apply a user's function to each plane: to the data, to the uncertainty in the user's form, and to each bit of the mask.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The whole image, or a region with the halo that the user declared.
    func, kwargs
        Function from an array to one of the same shape, and its keyword arguments.
    kind
        Type of the uncertainty: a key of `FORMS`.

    Raises
    ------
    ShapeError
        Raised if the function changes the shape.
    """
    cut = request.region.within(a.region)

    def call(plane: Array) -> Array:
        result = np.asarray(func(plane, **dict(kwargs)))
        if result.shape != plane.shape:
            raise ShapeError(
                f"{getattr(func, '__name__', func)} made {result.shape} of {plane.shape} pixels and must keep the shape; "
                "change it by trim_image, block_reduce or isel."
            )
        return result[cut]

    data = variance = mask = None
    if "data" in request.planes:
        # A copy, because a user's function may write into its argument.
        data = call(a.plane("data").copy()).astype(a.plane("data").dtype, copy=False)
    if "variance" in request.planes:
        old = a.plane("variance")
        there, back = FORMS[kind]
        with np.errstate(divide="ignore", invalid="ignore"):
            # The function sees the uncertainty as users hold it, as in ccdproc, not the variance of the plan.
            variance = back(call(there(old)).astype(old.dtype, copy=False))
    if "mask" in request.planes:
        bits = a.plane("mask")
        mask = np.zeros(request.region.shape, bits.dtype)
        # Only bits that are set anywhere: most planes are empty, and each call may be expensive.
        used = int(BITWISE_OR.reduce(bits.ravel()))
        for k in range(bits.dtype.itemsize * 8):
            if used >> k & 1:
                hit = call((bits >> k & 1).astype(bool)) > 0
                mask |= np.where(hit, bits.dtype.type(1 << k), bits.dtype.type(0))
    return Block(request.region, data, variance, mask)


def trust_filled(request: Request, a: Block, *, flag: int) -> Block:
    """Clear all other bits of pixels that have the bit of filled ones, so that statistics can use them."""
    mask = None
    if "mask" in request.planes:
        given = a.plane("mask")
        bit = given.dtype.type(flag)
        mask = np.where(given & bit, bit, given)
    planes = {name: a.plane(name) for name in ("data", "variance") if name in request.planes}
    return Block(request.region, mask=mask, **planes)


def edge_weights(request: Request, a: Block | None = None, *, shape: tuple[int, int], width: float) -> Block:
    """Return weights that rise from the edge of an image to 1, so that no step is seen where a frame of a mosaic ends.

    Parameters
    ----------
    request
        The region.
    a
        Weights by which they are multiplied; None for 1.
    shape
        Shape of the image.
    width
        Pixels from the edge at which they reach 1.
    """
    y0, y1, x0, x1 = request.region
    rows, columns = (
        np.minimum(np.arange(begin, end), length - 1 - np.arange(begin, end)) + 0.5
        for begin, end, length in ((y0, y1, shape[0]), (x0, x1, shape[1]))
    )
    weights = np.minimum(np.minimum(rows[:, None], columns) / width, 1.0)
    return Block(request.region, data=weights if a is None else weights * a.plane("data"))
