"""Partial results of global numbers on one tile, and how they are put together in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels import pixel_loops
from lazyccd.kernels.block import Block
from lazyccd.kernels.pixel_loops import rows_of

Array = npt.NDArray[Any]


def sum_and_count(block: Block, *, bad_bits: int, min_value: float | None) -> Array:
    """Return sum and number of the good pixels; ones below ``min_value`` count as that.

    The columns are summed first, so the result depends on the shape of the block, which is a tile, and on nothing else.
    """
    data, mask = block.plane("data"), block.mask
    kind = np.dtype(np.uint16) if mask is None else mask.dtype
    sums, counts = np.zeros(data.shape[1]), np.zeros(data.shape[1], np.int64)
    low = -np.inf if min_value is None else float(min_value)
    pixels, stride = rows_of(data)
    bits, mask_stride = (np.empty(0, kind), 0) if mask is None else rows_of(mask)
    bad = kind.type(bad_bits)
    pixel_loops.column_sums(pixels, stride, bits, mask_stride, bad, low, data.shape[0], sums, counts)
    return np.array([sums.sum(), counts.sum()])


def mean_of_sums(partials: Sequence[Array], *, bad_bits: int, min_value: float | None) -> Array:
    """Return the mean; NaN where there was no good pixel."""
    total = np.zeros(2)
    for partial in partials:
        total += partial
    return np.array(total[0] / total[1] if total[1] else np.nan)
