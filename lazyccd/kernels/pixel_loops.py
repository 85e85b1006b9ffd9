"""Loops over the pixels of contiguous planes, one pass each.

1. Planes are one-dimensional and of one float type, so that each loop is compiled once for float32 and once for float64.
2. A plane that is missing is an empty array.
3. No loop has more than six arrays: LLVM vectorises only if few of them might overlap.
4. Loops run over slices of equal length that start at 0, so that no index is tested for wrap-around below 0.

One pass over memory instead of one for each ufunc is what makes calibration fast: touching memory costs more than the
arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


def pixels_of(plane: Array | None, dtype: npt.DTypeLike, shape: tuple[int, ...] | None = None) -> Array:
    """Return the pixels of a plane as the loops need them, broadcast to a shape; an empty array for None.

    Views, read-only planes and other types are copied: each of them would make numba compile every loop once more.
    """
    if plane is None:
        return np.empty(0, dtype)
    if shape is not None and plane.shape != shape:
        plane = np.broadcast_to(plane, shape)
    if plane.dtype != dtype or not plane.flags.carray:
        plane = np.array(plane, dtype, order="C")
    return plane.reshape(-1)


def rows_of(plane: Array) -> tuple[Array, int]:
    """Return the pixels of a plane in memory order, without a copy if possible, and the pixels from one row to the next."""
    size = plane.itemsize
    fits = plane.strides[1] == size and plane.strides[0] > 0 and plane.strides[0] % size == 0 and plane.size > 0
    if not (fits and plane.flags.behaved and plane.dtype.isnative):
        return pixels_of(plane, plane.dtype.newbyteorder("=")), plane.shape[1]
    stride = plane.strides[0] // size
    length = (plane.shape[0] - 1) * stride + plane.shape[1]
    # From the first pixel to the last one of the last row: a window of a wider array is not copied, and loops skip what
    # lies between its rows.
    return np.lib.stride_tricks.as_strided(plane, (length,), (size,)), stride


@compiled
def deviation(data: Array, gain: float, read: float, divisor: float, negative: float, out: Array) -> None:
    """Set the variance ``(gain * data + read) / divisor``.

    Parameters
    ----------
    data
        Float32 or float64, shape ``(n,)``.
    gain, read, divisor
        Electrons per unit of the data, the variance of reading, and what the sum is divided by; of the dtype of ``out``.
    negative
        What a signal below 0 counts as: 0, or NaN.
    out
        Receives the variance, shape ``(n,)``.
    """
    for i in range(out.size):
        signal = data[i] * gain
        signal = negative if signal < 0 else signal
        out[i] = (signal + read) / divisor


@compiled
def add_multiple(a: Array, b: Array, scale: float, out: Array) -> None:
    """Set ``a + scale * b``.

    Parameters
    ----------
    a, b
        Float32 or float64, shape ``(n,)``.
    scale
        Factor of the same dtype.
    out
        Receives the result, same shape and dtype.
    """
    for i in range(out.size):
        out[i] = a[i] + b[i] * scale


@compiled
def flag_nonfinite(data: Array, mask: Array, bit: int, out: Array) -> None:
    """Set the mask with a bit added where the data are not finite.

    Parameters
    ----------
    data
        Float32 or float64, shape ``(n,)``.
    mask
        Unsigned integers, shape ``(n,)``; empty if there is none.
    bit
        Bit to add, of the dtype of ``out``.
    out
        Receives the mask, shape ``(n,)``.
    """
    # A zero of the mask's own type: with a literal 0, numba would compute in int64.
    none = bit ^ bit
    # Two loops and not a test in one: a branch inside would keep LLVM from vectorising.
    if mask.size:
        for i in range(out.size):
            out[i] = mask[i] | (none if data[i] - data[i] == 0 else bit)
    else:
        for i in range(out.size):
            out[i] = none if data[i] - data[i] == 0 else bit


@compiled
def is_usable(value: float, lowest: float, bits: int) -> bool:
    """Return whether a normalised value of a flat with these bad bits can be divided by."""
    # No short circuit: the mask would be read only sometimes, and LLVM would not vectorise.
    return (value > 0) & (value >= lowest) & (bits == 0)


@compiled
def divide_by_flat(
    data: Array, flat: Array, mask: Array, bad: int, limit: float, norm: float, lowest: float, out: Array
) -> None:
    """Set the data divided by the flat, or by 1 where the flat is masked or its normalised value cannot be used.

    Parameters
    ----------
    data
        Float32 or float64, shape ``(n,)``.
    flat
        Flat field, shape and dtype of ``out``.
    mask
        Mask of the flat, same shape.
    bad
        Bits of the mask by which a pixel of the flat counts as 1.
    limit
        Pixels of the flat below this count as this.
    norm
        What the flat is divided by.
    lowest
        Least normalised value that is divided by.
    out
        Receives the quotient, shape ``(n,)``.
    """
    # A literal 1 would make float64 of float32 pixels.
    one = out.dtype.type(1)
    for i in range(out.size):
        # Divided twice, as ccdproc does: a product with 1 / norm would round differently.
        value = (limit if flat[i] < limit else flat[i]) / norm
        out[i] = data[i] / (value if is_usable(value, lowest, mask[i] & bad) else one)


@compiled
def divide_by_squared_flat(
    variance: Array, flat: Array, mask: Array, bad: int, limit: float, norm: float, lowest: float, out: Array
) -> None:
    """Set the variance divided by the square of what `divide_by_flat` divides by.

    Parameters
    ----------
    variance
        Float32 or float64, shape ``(n,)``.
    flat, mask, bad, limit, norm, lowest
        As for `divide_by_flat`.
    out
        Receives the variance, shape ``(n,)``.
    """
    one = out.dtype.type(1)
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        value = value if is_usable(value, lowest, mask[i] & bad) else one
        out[i] = variance[i] / (value * value)


@compiled
def add_flat_noise(
    variance: Array,
    result: Array,
    flat: Array,
    flat_variance: Array,
    mask: Array,
    bad: int,
    limit: float,
    norm: float,
    lowest: float,
    out: Array,
) -> None:
    """Set the variance with the noise of the flat added, before `divide_by_squared_flat` divides both.

    Parameters
    ----------
    variance
        Variance of the data, float32 or float64, shape ``(n,)``.
    result
        What `divide_by_flat` returned.
    flat, mask, bad, limit, norm, lowest
        As for `divide_by_flat`.
    flat_variance
        Variance of the flat before it is normalised.
    out
        Receives the variance, shape ``(n,)``.
    """
    zero = out.dtype.type(0)
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        noise = flat_variance[i] / (norm * norm)
        usable = is_usable(value, lowest, mask[i] & bad)
        out[i] = variance[i] + result[i] * result[i] * (noise if usable else zero)


@compiled
def flat_bits(
    result: Array,
    flat: Array,
    mask: Array,
    limit: float,
    norm: float,
    lowest: float,
    low: int,
    no_data: int,
    out: Array,
) -> None:
    """Set the mask with bits added where the flat is low, and where the result of dividing by it is not finite.

    Parameters
    ----------
    result
        What `divide_by_flat` returned, shape ``(n,)``.
    flat, limit, norm, lowest
        As for `divide_by_flat`.
    mask
        Mask of the data, shape ``(n,)``.
    low, no_data
        Bits to add, of the dtype of ``out``.
    out
        Receives the mask, shape ``(n,)``.
    """
    none = low ^ low
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        fine = value > 0 and value >= lowest and not flat[i] < limit
        out[i] = mask[i] | (none if fine else low) | (none if result[i] - result[i] == 0 else no_data)


@compiled
def column_sums(
    data: Array, stride: int, mask: Array, mask_stride: int, bad: int, low: float, ny: int, sums: Array, counts: Array
) -> None:
    """Add the good pixels of each column to sums and numbers.

    Parameters
    ----------
    data
        Float32 or float64 in memory order, as `rows_of` returns them.
    stride, mask_stride
        Pixels from one row to the next in ``data`` and ``mask``.
    mask
        Mask in memory order; empty without.
    bad
        Bits of the mask that leave a pixel out.
    low
        Pixels below this count as this.
    ny
        Number of rows.
    sums, counts
        Sums (float64) and numbers (int64) of the columns, shape ``(nx,)``; they are added to.
    """
    nx = sums.size
    for i in range(ny):
        row = data[i * stride : i * stride + nx]
        bits = mask[i * mask_stride : i * mask_stride + (nx if mask.size else 0)]
        # Most rows have no bad pixel; the loop for these does not look at the mask.
        if _any_of(bits, bad):
            for j in range(nx):
                use = row[j] - row[j] == 0 and bits[j] & bad == 0
                value = np.float64(row[j])
                sums[j] += (low if value < low else value) if use else 0.0
                counts[j] += use
        else:
            for j in range(nx):
                use = row[j] - row[j] == 0
                value = np.float64(row[j])
                sums[j] += (low if value < low else value) if use else 0.0
                counts[j] += use


@compiled
def column_moments(
    data: Array, stride: int, mask: Array, mask_stride: int, bad: int, limits: Array, ny: int, sums: Array
) -> None:
    """Add, for each column, the number of good pixels within limits, and the sums of their distances to a centre and of the squares.

    Parameters
    ----------
    data, stride, mask, mask_stride, bad, ny
        As for `column_sums`.
    limits
        The lowest and the highest value that counts, and the centre; float64.
    sums
        A row for each of the three, float64, shape ``(3, nx)``; they are added to.
    """
    low, high, centre = limits
    nx = sums.shape[1]
    for i in range(ny):
        row = data[i * stride : i * stride + nx]
        bits = mask[i * mask_stride : i * mask_stride + (nx if mask.size else 0)]
        for j in range(nx):
            value = np.float64(row[j])
            use = value - value == 0 and value >= low and value <= high and (bits.size == 0 or bits[j] & bad == 0)
            distance = value - centre if use else 0.0
            sums[0, j] += use
            sums[1, j] += distance
            sums[2, j] += distance * distance


@compiled
def _any_of(bits: Array, wanted: int) -> bool:
    """Return whether any of the wanted bits is set anywhere."""
    found = wanted ^ wanted
    # All bits united, and one test at the end: a loop that could stop early would not be vectorised.
    for j in range(bits.size):
        found |= bits[j]
    return bool(found & wanted != 0)


@compiled
def sort_values(values: Array) -> None:
    """Sort numbers in place: by insertion, with wider steps first if there are many (Shell 1959).

    Unlike `numpy.sort` it allocates nothing, and the line of an overscan has few numbers.
    """
    gap = values.size // 2 if values.size > 64 else 1
    while gap > 0:
        for j in range(gap, values.size):
            value = values[j]
            k = j
            while k >= gap and values[k - gap] > value:
                values[k] = values[k - gap]
                k -= gap
            values[k] = value
        # Gonnet's factor 5/11 for the gaps (Gonnet and Baeza-Yates 1991, Handbook of Algorithms and Data Structures).
        gap = 1 if gap == 2 else gap * 5 // 11
