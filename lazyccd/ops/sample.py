"""Pixels of a part of a frame, read at once, and a robust scatter of them: for decisions that need numbers now."""

from __future__ import annotations

import numpy as np

from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, Image
from lazyccd.kernels.block import Array
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.ops.attributes import cut
from lazyccd.sections import Region


def read_pixels(image: Image, region: Region, allowed: str = "") -> Array:
    """Return the data of a region in double precision, NaN where a pixel is bad. Pulls this region only.

    A mask plane that is allowed makes no pixel bad.
    """
    part = cut(image, *region.slices).to_dataset().drop_vars(UNCERTAINTY, errors="ignore").compute()
    data: Array = part[DATA].values.astype(float)
    if MASK in part:
        bits = part[MASK].values
        bad = image.schema.bad_bits & ~(image.schema.bits(allowed) if allowed else 0)
        data[(bits & bits.dtype.type(bad)) != 0] = np.nan
    return data


def robust_std(values: Array) -> float:
    """Return the standard deviation of the values within four robust sigma of their median; NaN of nothing.

    The median absolute deviation alone would be a multiple of the step of digitised values.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    away = np.abs(values - np.median(values))
    # half a step of the converter at least: of digitised values the median absolute deviation may be 0
    kept = values[away <= 4 * max(MAD_TO_SIGMA * float(np.median(away)), 0.5)]
    return float(np.std(kept))
