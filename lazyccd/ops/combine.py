"""Combination of frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from lazyccd.errors import ParameterError, ShapeError
from lazyccd.frame.core import CHUNK_PIXELS, Image, regular_grid
from lazyccd.frame.header import append_cards
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import combine as kernels
from lazyccd.ops.common import operand
from lazyccd.ops.pairs import affine_image
from lazyccd.plan.steps import EVERYTHING, Stack, make_dtypes, make_params

METHODS = {"average": 0, "median": 1, "sum": 2}
UNCERTAINTIES = {"propagated": 1, "scatter": 2, "ccdproc": 3}
RANKS = ("INTERP", "SAT", "CR", "LOW_FLAT", "BAD", "NO_DATA")
"""Planes from the least to the most bad; where no frame has a good pixel, the least bad are used."""


def combine(
    img_list: Iterable[Any],
    method: Literal["average", "median", "sum"] = "average",
    *,
    sigma_clip: bool = False,
    sigma_clip_low_thresh: float = 3.0,
    sigma_clip_high_thresh: float = 3.0,
    sigma_clip_func: Literal["mean", "median"] = "mean",
    sigma_clip_dev_func: Literal["std", "mad_std"] = "std",
    uncertainty: Literal["propagated", "scatter", "ccdproc"] | None = None,
) -> xr.Dataset:
    """Combine frames of one shape pixel by pixel.

    Parameters
    ----------
    img_list
        Frames, CCDData or paths.
    method
        average, median or sum.
    sigma_clip
        Whether values beyond the thresholds, in units of the deviation about the centre, are left out; once.
    sigma_clip_low_thresh, sigma_clip_high_thresh
        Thresholds below and above.
    sigma_clip_func, sigma_clip_dev_func
        Centre and deviation; both only of good pixels.
    uncertainty
        propagated: from the frames' own; scatter: from the spread of the values that were used; ccdproc: as ccdproc has it,
        with the standard deviation of n instead of n - 1. By default propagated if all frames have one, else ccdproc.

    Returns
    -------
    xr.Dataset
        Lazy, one task per band of rows; readers of the result depend on its chunks. Masked and non-finite pixels take no
        part; where no frame has a good pixel, the least bad are used and flagged.

    Raises
    ------
    ParameterError
        Raised if there is no frame, or a word is not one of those above.
    ShapeError
        Raised if shapes differ.
    UnitError
        Raised if units cannot be converted.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> frames = [CCDData(np.full((1, 1), value), unit="adu") for value in (1.0, 2.0, 3.0, 4.0, 99.0)]
    >>> float(
    ...     combine(frames, sigma_clip=True, sigma_clip_func="median", sigma_clip_dev_func="mad_std").data.values[0, 0]
    ... )
    2.5
    """
    images = [operand(item, f"frame {i + 1}") for i, item in enumerate(img_list)]
    if not images:
        raise ParameterError("combine() got no frames; give at least one.")
    if method not in METHODS:
        raise ParameterError(f"method {method!r} must be one of {', '.join(METHODS)}.")
    images = [_like_first(image, images[0], i + 1) for i, image in enumerate(images)]
    first = images[0]
    if uncertainty is None:
        uncertainty = "propagated" if all(image.has_variance for image in images) else "ccdproc"
    schema = first.schema
    for image in images[1:]:
        schema = schema.merge(image.schema)
    dtype = np.result_type(*(image.dtype for image in images))
    clip = (
        float(sigma_clip),
        float(sigma_clip_low_thresh),
        float(sigma_clip_high_thresh),
        float(sigma_clip_func == "median"),
        float(sigma_clip_dev_func == "mad_std"),
    )
    plan = Stack(
        first.shape,
        make_dtypes(data=dtype, variance=dtype, mask=schema.dtype),
        kernel=kernels.combine,
        frames=tuple(image.plan for image in images),
        uses=EVERYTHING,
        params=make_params(
            method=METHODS[method],
            uncertainty=UNCERTAINTIES[uncertainty],
            clip=clip,
            ranks=tuple(schema.bits(name) for name in RANKS),
            bad_bits=schema.bad_bits,
            clipped=schema.bits("CLIPPED"),
            no_data=schema.bits("NO_DATA"),
            dtype=dtype.name,
            mask_dtype=schema.dtype.name,
        ),
    )
    rows = max(1, CHUNK_PIXELS // first.shape[1])
    header = append_cards(first.header, [("NCOMBINE", len(images), "number of frames combined")])
    result = replace(
        first,
        plan=plan,
        schema=schema,
        uncertainty_type="std",
        header=header,
        grid=regular_grid(first.shape, (rows, first.shape[1])),
        graphs=tuple(graph for image in images for graph in image.graphs),
    )
    return result.to_dataset(boundary=True)


def _like_first(image: Image, first: Image, number: int) -> Image:
    """Return a frame in the units of the first; refuse another shape."""
    if image.shape != first.shape:
        raise ShapeError(
            f"frame {number} has shape {image.shape} and frame 1 has {first.shape}; trim them to one section."
        )
    factor = conversion_factor(image.units, first.units, f"frame {number}")
    return image if factor == 1 else replace(affine_image(image, factor), units=first.units)
