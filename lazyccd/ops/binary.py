"""Two images in one step: shapes, units, mask planes and dtypes brought together.

Every operation of two frames goes through `combine_pair`, so that mask planes are matched by name, not by bit, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lazyccd.errors import ShapeError
from lazyccd.frame.core import Image
from lazyccd.kernels import pointwise
from lazyccd.plan.footprints import MASK_WITH_DATA, POINTWISE, WITH_DATA, PlaneMap
from lazyccd.plan.steps import Input, Kernel


def check_shape(image: Image, other: Image, what: str) -> None:
    """Refuse an operand that is neither of the image's shape nor one row or one column of it."""
    for axis in (0, 1):
        # one row or column is broadcast: a master bias may be a line, as ccdproc lets it
        if other.shape[axis] not in {1, image.shape[axis]}:
            raise ShapeError(
                f"{what} shape {other.shape} does not match the image shape {image.shape}; "
                "trim both to the same section first."
            )


def combine_pair(
    image: Image,
    other: Image,
    kernel: Kernel,
    uses: tuple[PlaneMap, PlaneMap],
    *,
    what: str,
    mask: bool | None = None,
    **params: Any,
) -> Image:
    """Return the image of a kernel of two images; units are the caller's.

    Parameters
    ----------
    image
        The frame; the result has its header, coordinates and chunks.
    other
        The operand.
    kernel
        Takes ``dtype``, ``mask_dtype`` and ``remap`` besides ``params``.
    uses
        Which planes of the frame, and of the operand, are needed for which plane of the result.
    what
        How messages name the operand.
    mask
        Whether the result has a mask; None for: if either has one.
    """
    check_shape(image, other, what)
    # bits of planes that users add depend on the order of adding; names are what two frames have in common
    schema = image.schema.merge(other.schema) if other.has_mask else image.schema
    # numbers are no operands here, so that float32 stays float32: ccdproc's scaled darks and Quantity gains make float64 of it
    dtype = np.result_type(image.dtype, other.dtype)
    with_mask = (image.has_mask or other.has_mask) if mask is None else mask
    planes: Mapping[str, Any] = {
        "data": dtype,
        "variance": dtype if image.has_variance or other.has_variance else None,
        "mask": schema.dtype if with_mask else None,
    }
    plan = image.apply(
        kernel,
        (Input(image.plan, uses=uses[0]), Input(other.plan, uses=uses[1])),
        planes,
        dtype=dtype.name,
        mask_dtype=schema.dtype.name,
        remap=other.schema.remap(schema) if other.has_mask else (),
        **params,
    )
    # the uncertainty is given back in the class that the frame has; ccdproc refuses to mix classes
    kind = image.uncertainty_type if image.has_variance or not other.has_variance else other.uncertainty_type
    return replace(image, plan=plan, schema=schema, uncertainty_type=kind, graphs=(*image.graphs, *other.graphs))


def add_images(image: Image, other: Image, scale: float, what: str) -> Image:
    """Return ``image + scale * other`` with variances added, masks joined."""
    return combine_pair(image, other, pointwise.add_scaled, (POINTWISE, POINTWISE), what=what, scale=scale)


def multiply_images(image: Image, other: Image, what: str) -> Image:
    """Return the product; the units are multiplied."""
    result = combine_pair(image, other, pointwise.multiply, (WITH_DATA, WITH_DATA), what=what, scale=1.0)
    return replace(result, units=image.units * other.units)


def divide_images(image: Image, other: Image, what: str) -> Image:
    """Return the quotient; the units are divided. Where it is not finite, NO_DATA is set if there is a mask."""
    no_data = image.schema.bits("NO_DATA")
    result = combine_pair(
        image, other, pointwise.divide, (MASK_WITH_DATA, MASK_WITH_DATA), what=what, scale=1.0, no_data=no_data
    )
    return replace(result, units=image.units / other.units)


def affine_image(image: Image, scale: float, offset: float = 0.0) -> Image:
    """Return ``scale * image + offset``; the units are the caller's."""
    plan = image.apply(
        pointwise.affine,
        (Input(image.plan),),
        dict(image.plan.planes),
        scale=scale,
        offset=offset,
        dtype=image.dtype.name,
    )
    return replace(image, plan=plan)
