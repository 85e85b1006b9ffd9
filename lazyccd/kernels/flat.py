"""Flat fields on blocks.

With the normalised flat ``f`` and the result ``r = a / f``, the variance is ``(var_a + r**2 var_f) / f**2``: errors are
absolute, so that it holds where ``a`` is 0. Each plane is one pass of a loop of `lazyccd.kernels.pixel_loops`.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.pixel_loops import pixels_of
from lazyccd.kernels.pointwise import Remap, or_masks, remap_bits


def divide_flat(
    request: Request,
    a: Block,
    flat: Block,
    *,
    norm: Array,
    min_value: float | None,
    lowest: float,
    bad_bits: int,
    low_flat: int,
    no_data: int,
    dtype: str,
    mask_dtype: str,
    remap: Remap,
) -> Block:
    """Divide by a flat field that is first divided by ``norm``.

    Pixels of the flat below ``min_value`` count as ``min_value`` and are flagged ``low_flat``. Those whose normalised value
    is not above 0, or below ``lowest``, are flagged too and nothing is divided; masked pixels of the flat count as 1.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image.
    flat
        The flat, or one row or column of it.
    norm
        Its first number is what the flat is divided by.
    min_value
        Least value of the flat, in its unit; None for none.
    lowest
        Least normalised value that is divided by; not used with ``min_value``.
    bad_bits
        Bits of the flat's mask by which a pixel counts as 1.
    low_flat, no_data
        Bits for low pixels of the flat, and for results that are not finite.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    remap
        Bits of the flat's mask and what each becomes in the image's.
    """
    out = np.empty(request.region.shape, dtype)
    kind = out.dtype.type
    given = flat.plane("data")
    raw = pixels_of(given, dtype, out.shape)
    # Rounded to the flat's own type first, as NumPy rounds a number that it compares an array with; else a pixel that
    # equals it would count as low.
    limit = kind(-np.inf if min_value is None else given.dtype.type(min_value))
    bits = np.zeros(out.shape, mask_dtype) if flat.mask is None else flat.mask
    masked = pixels_of(bits, bits.dtype, out.shape)
    norm_lowest = kind(np.asarray(norm).ravel()[0]), kind(lowest if min_value is None else 0)
    which = (masked, bits.dtype.type(bad_bits), limit, *norm_lowest)
    variance = mask = None
    data = out.reshape(-1)
    # The data are computed even if not asked for: variance and mask depend on them.
    pixel_loops.divide_by_flat(pixels_of(a.plane("data"), dtype), raw, *which, data)
    if "variance" in request.planes:
        variance = np.empty(out.shape, dtype)
        noise = np.zeros(data.shape, dtype) if a.variance is None else pixels_of(a.variance, dtype)
        # In two loops, because one would need seven arrays and not be vectorised.
        if flat.variance is not None:
            own, noise = noise, np.empty(data.shape, dtype)
            pixel_loops.add_flat_noise(own, data, raw, pixels_of(flat.variance, dtype, out.shape), *which, noise)
        pixel_loops.divide_by_squared_flat(noise, raw, *which, variance.reshape(-1))
    if "mask" in request.planes:
        mask = np.empty(out.shape, mask_dtype)
        moved = None if flat.mask is None else remap_bits(flat.mask, remap, mask_dtype)
        old = pixels_of(or_masks(request, a.mask, moved, mask_dtype), mask_dtype)
        new_bits = mask.dtype.type(low_flat), mask.dtype.type(no_data)
        pixel_loops.flat_bits(data, raw, old, limit, *norm_lowest, *new_bits, mask.reshape(-1))
    return Block(request.region, out if "data" in request.planes else None, variance, mask)
