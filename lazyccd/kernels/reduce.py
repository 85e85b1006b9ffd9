"""Partial results of global numbers on one tile, and how they are put together in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.kernels.block import Block

Array = npt.NDArray[Any]


def good_values(block: Block, bad_bits: int) -> Array:
    """Return the finite, unmasked data of a block as a contiguous 1-D array in the order of the rows."""
    data = block.plane("data")
    use = np.isfinite(data)
    if block.mask is not None:
        use &= (block.mask & block.mask.dtype.type(bad_bits)) == 0
    return np.ascontiguousarray(data[use])


def sum_and_count(block: Block, *, bad_bits: int, min_value: float | None) -> Array:
    """Return sum and number of the good pixels; ones below ``min_value`` count as that."""
    values = good_values(block, bad_bits).astype(np.float64)
    if min_value is not None:
        values = np.maximum(values, min_value)
    return np.array([values.sum(), values.size])


def mean_of_sums(partials: Sequence[Array], *, bad_bits: int, min_value: float | None) -> Array:
    """Return the mean; NaN where there was no good pixel."""
    total = np.zeros(2)
    for partial in partials:
        total += partial
    return np.array(total[0] / total[1] if total[1] else np.nan)
