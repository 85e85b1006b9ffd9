"""Steps of `lazyccd reduce` that ccdproc does not have: noise on top of a master's, and levels decided beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.frame.core import UNCERTAINTY, resolve
from lazyccd.kernels import overscan, pointwise
from lazyccd.ops.edit import with_uncertainty
from lazyccd.plan.footprints import WITH_DATA
from lazyccd.plan.steps import Input, Value


def add_noise(ccd: xr.Dataset, *, gain: float, readnoise: float, poisson: bool = True) -> xr.Dataset:
    """Add Poisson and read noise to a frame's variance.

    Parameters
    ----------
    ccd
        A frame whose data are the signal itself: bias or overscan subtracted.
    gain
        Electrons per unit of the data.
    readnoise
        Electrons.
    poisson
        Whether the signal has Poisson noise; a bias has none.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. The variance is ``max(data, 0) / gain + (readnoise / gain)**2``, plus the one that
        the frame has, such as that of a master bias.
    """
    image = resolve(ccd)
    planes: dict[str, Any] = dict(image.plan.planes) | {"variance": image.dtype}
    plan = image.apply(
        pointwise.add_noise,
        (Input(image.plan, uses=WITH_DATA),),
        planes,
        gain=gain,
        readnoise=readnoise,
        poisson=poisson,
        dtype=image.dtype.name,
    )
    kind = image.uncertainty_type if UNCERTAINTY in ccd else "std"
    return replace(image, plan=plan, uncertainty_type=kind).to_dataset()


def scale_noise(ccd: xr.Dataset, factor: float) -> xr.Dataset:
    """Multiply a frame's uncertainty; a factor of 0 takes it away.

    Parameters
    ----------
    ccd
        A frame, with or without an uncertainty, which is a standard deviation.
    factor
        0 or more.

    Returns
    -------
    xr.Dataset
        Lazy, halo 0; the data keep their plan.
    """
    if factor == 1 or UNCERTAINTY not in ccd:
        return ccd
    scaled: xr.Dataset = with_uncertainty(ccd, ccd[UNCERTAINTY].data * factor if factor else None)
    return scaled


def subtract_levels(ccd: xr.Dataset, levels: npt.NDArray[Any], axis: int) -> xr.Dataset:
    """Subtract a level from each row (``axis=1``) or each column (``axis=0``).

    Parameters
    ----------
    ccd
        A frame.
    levels
        A level for each line; lines whose level is NaN become NaN and ``NO_DATA``.
    axis
        Axis along which the level is constant.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0.
    """
    image = resolve(ccd)
    planes: dict[str, Any] = dict(image.plan.planes)
    if np.isnan(levels).any():
        planes["mask"] = image.schema.dtype
    plan = image.apply(
        overscan.subtract_levels,
        (Input(image.plan),),
        planes,
        axis=axis,
        dtype=image.dtype.name,
        mask_dtype=image.schema.dtype.name,
        no_data=image.schema.bits("NO_DATA"),
        numbers=(("level", Value(given=np.asarray(levels, float), what="overscan")),),
    )
    return replace(image, plan=plan).to_dataset()
