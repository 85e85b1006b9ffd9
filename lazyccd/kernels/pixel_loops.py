"""Loops over the pixels of contiguous planes, one pass each.

1. Planes are one-dimensional and of one float type, so that each loop is compiled once for float32 and once for float64.
2. A plane that is not there is an empty array.
3. No loop has more than six arrays: LLVM vectorises only if few of them might overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


def pixels_of(plane: Array | None, dtype: npt.DTypeLike, shape: tuple[int, ...] | None = None) -> Array:
    """Return the pixels of a plane as the loops want them, broadcast to a shape; an empty array for None.

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
    """Return the pixels of a plane in memory order and the pixels from one row to the next, without a copy if possible."""
    size = plane.itemsize
    fits = plane.strides[1] == size and plane.strides[0] > 0 and plane.strides[0] % size == 0 and plane.size > 0
    if not (fits and plane.flags.behaved and plane.dtype.isnative):
        return pixels_of(plane, plane.dtype.newbyteorder("=")), plane.shape[1]
    stride = plane.strides[0] // size
    length = (plane.shape[0] - 1) * stride + plane.shape[1]
    return np.lib.stride_tricks.as_strided(plane, (length,), (size,)), stride


@compiled
def deviation(data: Array, gain: Any, read: Any, divisor: Any, negative: Any, out: Array) -> None:
    """Set the variance ``(gain * data + read) / divisor``; a signal below 0 counts as ``negative``."""
    for i in range(out.size):
        signal = data[i] * gain
        signal = negative if signal < 0 else signal
        out[i] = (signal + read) / divisor


@compiled
def add_multiple(a: Array, b: Array, scale: Any, out: Array) -> None:
    """Set ``a + scale * b``."""
    for i in range(out.size):
        out[i] = a[i] + b[i] * scale


@compiled
def flag_nonfinite(data: Array, mask: Array, bit: Any, out: Array) -> None:
    """Set the mask with a bit added where the data are not finite."""
    none = bit ^ bit
    if mask.size:
        for i in range(out.size):
            out[i] = mask[i] | (none if data[i] - data[i] == 0 else bit)
    else:
        for i in range(out.size):
            out[i] = none if data[i] - data[i] == 0 else bit


@compiled
def is_usable(value: Any, lowest: Any, bits: Any) -> Any:
    """Return whether a normalised value of a flat with these bad bits can be divided by.

    No short circuit: the mask would be read only sometimes, and LLVM would not vectorise.
    """
    return (value > 0) & (value >= lowest) & (bits == 0)


@compiled
def divide_by_flat(
    data: Array, flat: Array, mask: Array, bad: Any, limit: Any, norm: Any, lowest: Any, out: Array
) -> None:
    """Set the data divided by the flat, or by 1 where its normalised value cannot be used or it is masked."""
    one = out.dtype.type(1)
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        out[i] = data[i] / (value if is_usable(value, lowest, mask[i] & bad) else one)


@compiled
def divide_by_squared_flat(
    variance: Array, flat: Array, mask: Array, bad: Any, limit: Any, norm: Any, lowest: Any, out: Array
) -> None:
    """Set the variance divided by the square of what `divide_by_flat` divides by."""
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
    bad: Any,
    limit: Any,
    norm: Any,
    lowest: Any,
    out: Array,
) -> None:
    """Set the variance with that of a flat added, before `divide_by_squared_flat`; ``result`` is that of `divide_by_flat`."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        noise = flat_variance[i] / (norm * norm)
        usable = is_usable(value, lowest, mask[i] & bad)
        out[i] = variance[i] + result[i] * result[i] * (noise if usable else zero)


@compiled
def flat_bits(
    result: Array, flat: Array, mask: Array, limit: Any, norm: Any, lowest: Any, low: Any, no_data: Any, out: Array
) -> None:
    """Set the mask with bits added where the flat is low, and where the result of dividing by it is not finite."""
    none = low ^ low
    for i in range(out.size):
        value = (limit if flat[i] < limit else flat[i]) / norm
        fine = value > 0 and value >= lowest and not flat[i] < limit
        out[i] = mask[i] | (none if fine else low) | (none if result[i] - result[i] == 0 else no_data)


@compiled
def column_sums(
    data: Array, stride: int, mask: Array, mask_stride: int, bad: Any, low: float, ny: int, sums: Array, counts: Array
) -> None:
    """Add the good pixels of rows to sums and numbers of columns; ones below ``low`` as that."""
    nx = sums.size
    for i in range(ny):
        row = data[i * stride : i * stride + nx]
        bits = mask[i * mask_stride : i * mask_stride + (nx if mask.size else 0)]
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
    data: Array, stride: int, mask: Array, mask_stride: int, bad: Any, limits: Array, ny: int, sums: Array
) -> None:
    """Add to each column the number of good pixels within limits, and the sums of their distances to a centre and squares.

    ``limits`` are the lowest and the highest value that count, and the centre; ``sums`` has a row for each of the three.
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
def _any_of(bits: Array, wanted: Any) -> bool:
    """Return whether any of the wanted bits is set anywhere."""
    found = wanted ^ wanted
    for j in range(bits.size):
        found |= bits[j]
    return bool(found & wanted != 0)


@compiled
def sort_values(values: Array) -> None:
    """Sort numbers in place: by insertion, in wider steps first if they are many (Shell)."""
    gap = values.size // 2 if values.size > 64 else 1
    while gap > 0:
        for j in range(gap, values.size):
            value = values[j]
            k = j
            while k >= gap and values[k - gap] > value:
                values[k] = values[k - gap]
                k -= gap
            values[k] = value
        gap = 1 if gap == 2 else gap * 5 // 11
