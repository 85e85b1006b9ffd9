"""Frames of a mosaic that have no good pixel, or no weight, as far as that is known before pixels are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import EmptyFrameWarning, ParameterError, warn
from lazyccd.frame.core import resolve
from lazyccd.frame.nddata import is_ccddata
from lazyccd.ops.stack.inputs import Given

ROWS = 256
"""Rows that are looked at before the next ones: most frames have a good pixel among the first."""


def tell_empty(opened: Sequence[Any], given: Given, weights: Any) -> None:
    """Tell frames in memory without a good pixel, and those whose weights are in memory and nowhere above 0.

    Parameters
    ----------
    opened
        Frames and CCDData.
    given
        The same as images, with the names that messages give them.
    weights
        As for `lazyccd.coadd`.

    Raises
    ------
    ParameterError
        Raised if no frame adds anything.
    """
    pixels = [label for frame, label in zip(opened, given.labels, strict=True) if not _has_good(frame)]
    images = weights if isinstance(weights, list | tuple | np.ndarray) else ()
    known = [np.ndim(one) == 2 and isinstance(one, np.ndarray) for one in images]
    unweighted = [
        label
        for label, one, is_image in zip(given.labels, images, known, strict=False)
        if is_image and not any((part > 0).any() for part in _bands(one))
    ]
    for labels, what in (
        (pixels, "all pixels of {} are NaN or masked"),
        (unweighted, "the weights of {} are nowhere above 0"),
    ):
        if not labels:
            continue
        shown = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
        told = what.format(shown)
        if len(labels) == len(given.labels):
            raise ParameterError(
                f"{told}, so the mosaic would have no pixel; look at the masks of the frames and at their weights."
            )
        warn(f"{told}; the mosaic is that of the other frames.", EmptyFrameWarning)


def _has_good(frame: Any) -> bool:
    """Return whether a frame has a good pixel, as far as it is in memory."""
    if is_ccddata(frame):
        data, mask, bits = frame.data, frame.mask, None
    elif isinstance(frame, xr.Dataset) and isinstance(frame["data"].data, np.ndarray):
        image = resolve(frame)
        data, bits = frame["data"].data, image.schema.bad_bits
        mask = frame["mask"].data if "mask" in frame else None
    else:
        return True
    if not isinstance(data, np.ndarray) or not (
        mask is None or (isinstance(mask, np.ndarray) and mask.shape == data.shape)
    ):
        return True
    for rows in range(0, len(data), ROWS):
        good = np.isfinite(data[rows : rows + ROWS])
        if mask is not None:
            part = mask[rows : rows + ROWS]
            good &= ~part.astype(bool) if bits is None else (part & part.dtype.type(bits)) == 0
        if good.any():
            return True
    return data.size == 0


def _bands(image: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield an image in bands of rows."""
    for rows in range(0, len(image), ROWS):
        yield image[rows : rows + ROWS]
