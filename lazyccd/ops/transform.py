"""Apply a function of the user's to an image, chunk by chunk if it says how far it looks.

This is the one operation whose kernel is not ours, so it is the exception to the rule that chunking never changes a pixel: with a
``halo`` that is too small, it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError, warn
from lazyccd.frame.core import resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.wcs import wcs_from_header
from lazyccd.kernels import pointwise
from lazyccd.ops.decorator import operation
from lazyccd.plan.footprints import Footprint, Halo, Same, Whole
from lazyccd.plan.steps import Input


@operation()  # type: ignore[arg-type]  # mypy wants ccd to be positional only, lest kwargs hold it too
def transform_image(
    ccd: xr.Dataset,
    transform_func: Callable[..., Any],
    halo: int | tuple[int, int] | None = None,
    *,
    add_keyword: LogEntry = True,
    **kwargs: Any,
) -> xr.Dataset:
    """Apply a function to the planes of an image.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    transform_func
        Takes an array and returns one of the same shape. It is called on the data, on the uncertainty, and on each mask
        plane as a boolean array, whose result counts where it is above 0.
    halo
        How many pixels around a region the function needs to be right inside of it: 0 for one that works pixel by pixel.
        None gives the function the whole plane, in one task.
    add_keyword
        What the header says about the operation; see `subtract_bias`.
    kwargs
        Passed to the function.

    Returns
    -------
    xr.Dataset
        Lazy; shape and units as before. One task per chunk with ``halo``, else one for the image, which must fit into the
        memory of a task. The WCS is kept, with a warning, since the function may have moved the pixels.

    Raises
    ------
    ArgumentTypeError
        Raised if ``transform_func`` cannot be called.
    ParameterError
        Raised if ``halo`` is negative, or not one or two numbers.
    ShapeError
        Raised, when pixels are computed, if it changes the shape.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> transform_image(CCDData(np.array([[1.0, 2.0]]), unit="adu"), np.negative, halo=0).data
    array([[-1., -2.]])
    """
    if not callable(transform_func):
        raise ArgumentTypeError(f"transform_func {transform_func!r} is not a callable; give a function of an array.")
    image = resolve(ccd)
    if wcs_from_header(image.header, image.y, image.x) is not None:
        warn("WCS information may be incorrect as no transformation was applied to it", UserWarning)
    footprint: Footprint = Whole()
    # a function that says nothing may look anywhere, such as np.fliplr: only the whole plane at once is safe
    grid: Any = ((image.shape[0],), (image.shape[1],))
    if halo is not None:
        pair = (int(halo), int(halo)) if np.ndim(halo) == 0 else tuple(halo)  # type: ignore[arg-type]
        if len(pair) != 2 or min(pair) < 0:
            raise ParameterError(f"halo {halo!r} must be one or two numbers of pixels, in the order y, x, not below 0.")
        footprint = Same() if pair == (0, 0) else Halo(pair)
        grid = image.grid
    plan = image.apply(
        pointwise.transform,
        (Input(image.plan, footprint),),
        dict(image.plan.planes),
        func=transform_func,
        kwargs=tuple(
            sorted(kwargs.items())
        ),  # equal calls are one computation, in whatever order they name their arguments
        kind=image.uncertainty_type,
    )
    return replace(image, plan=plan, grid=grid).to_dataset()
