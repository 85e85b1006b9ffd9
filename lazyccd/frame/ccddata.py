"""Frames from `astropy.nddata.CCDData` and back.

`astropy.nddata` is imported in functions: it brings tables and coordinates along, which few need who import lazyccd.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from astropy import units as u
from astropy.io import fits

from lazyccd.errors import FrameError, ShapeError, warn
from lazyccd.frame.convert import to_mask, to_variance
from lazyccd.frame.core import (
    DATA,
    MASK,
    UNCERTAINTY,
    Image,
    UncertaintyType,
    as_step,
    float_dtype,
    has_cards,
    make_image,
    resolve,
    settle_scalars,
)
from lazyccd.frame.header import append_cards, copy_header, header_from_text, text_from_meta
from lazyccd.frame.header_in_memory import header_in_memory
from lazyccd.frame.history_log import apply_to_meta
from lazyccd.frame.tree import by_frame
from lazyccd.frame.wcs import image_wcs, needs_tables, text_for_number
from lazyccd.kernels.block import Array
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import default_grid
from lazyccd.plan.direct import can_run, run_plan
from lazyccd.plan.steps import file_path, held_arrays

if TYPE_CHECKING:
    import xarray as xr
    from astropy.nddata import CCDData, NDUncertainty


@functools.cache
def uncertainty_classes() -> dict[type, UncertaintyType]:
    """Return what we call astropy's classes of uncertainties."""
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    return {StdDevUncertainty: "std", VarianceUncertainty: "var", InverseVariance: "ivar"}


def from_ccddata(ccd: CCDData) -> xr.Dataset:
    """Return a lazy frame that holds the pixels of a CCDData.

    Parameters
    ----------
    ccd
        A 2-D image. Its pixels are not copied and must not be changed while the frame is in use.

    Returns
    -------
    xr.Dataset
        A frame; data are float32 if the image has float32 or integers of up to 16 bits, else float64. The mask becomes
        the plane ``BAD``; the WCS goes back into the header. Flags and PSF are left behind.

    Raises
    ------
    FrameError
        Raised if the image is not 2-D or its uncertainty is of a type without a variance.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> ds = from_ccddata(CCDData(np.ones((3, 4), np.uint16), unit="adu", mask=np.eye(3, 4, dtype=bool)))
    >>> ds["data"].dtype, ds["mask"].values[1]
    (dtype('float32'), array([0, 1, 0, 0], dtype=uint16))
    """
    values = np.asarray(ccd.data)
    if values.ndim != 2:
        raise FrameError(f"CCDData of shape {values.shape} must have 2 dimensions; select one plane first.")
    if not values.size:
        raise FrameError(f"CCDData of shape {values.shape} has no pixel; a frame must have at least one.")
    dtype = float_dtype(values.dtype)
    data, graphs = as_step(values, dtype)
    variance = mask = None
    kind: UncertaintyType = "std"
    if ccd.uncertainty is not None:
        kind = uncertainty_kind(ccd.uncertainty)
        _check_plane(ccd.uncertainty.array, values, UNCERTAINTY)
        step, more = as_step(np.asarray(ccd.uncertainty.array), dtype, UNCERTAINTY)
        variance, graphs = to_variance(step, kind), graphs + more
    if ccd.mask is not None:
        bits = np.asarray(ccd.mask) != 0
        bits = np.broadcast_to(bits, values.shape) if bits.ndim == 0 else bits
        _check_plane(bits, values, MASK)
        step, more = as_step(bits, bool, MASK)
        mask, graphs = to_mask(step, None, "CCDData"), graphs + more
    image = make_image(
        data,
        units=u.dimensionless_unscaled if ccd.unit is None else ccd.unit,
        grid=default_grid(values.shape),
        variance=variance,
        mask=mask,
        header=text_from_meta(ccd.meta, ccd.wcs),
        uncertainty_type=kind,
        graphs=graphs,
    )
    return image.to_dataset()


def uncertainty_kind(uncertainty: NDUncertainty) -> UncertaintyType:
    """Return the type of an astropy uncertainty."""
    kind = uncertainty_classes().get(type(uncertainty))
    if kind is None:
        raise FrameError(
            f"uncertainty of type {type(uncertainty).__name__} has no variance; "
            f"use one of {', '.join(cls.__name__ for cls in uncertainty_classes())}."
        )
    return kind


def _check_plane(array: npt.ArrayLike, values: Array, name: str) -> None:
    """Refuse a plane that is not of the data's shape."""
    if np.shape(array) != values.shape:
        raise ShapeError(f"{name} shape {np.shape(array)} does not match the data shape {values.shape} of the CCDData.")


@by_frame
def to_ccddata(ds: xr.Dataset, *, like: CCDData | None = None, log: Iterable[tuple[str, Any]] = ()) -> CCDData:
    """Return a frame as a CCDData, computed.

    Parameters
    ----------
    ds
        A frame, or a tree, which gives a CCDData for each frame by name.
    like
        The CCDData that the frame was made from: its meta is copied, instead of the frame's header, and a mask without any
        bad pixel stays None if it had none.
    log
        Entries to add to a copied meta.

    Returns
    -------
    CCDData
        Pixels in the frame's dtypes; the mask is True where a plane is set that counts as bad.
    """
    from astropy.nddata import CCDData

    cards: list[tuple[str, float, str]] = []
    image = resolve(ds, maps=True)
    # numbers that belong into the header must be known before the header is made
    schema = image.schema
    if has_cards(image):
        image, cards = settle_scalars(image)
        arrays = _compute(image)
    elif held_arrays() is not None:
        arrays = _compute(image)
    else:
        # as they stand there: integers of a mask that somebody else made mean what its own attributes say
        arrays = _computed(ds)
        schema = MaskSchema.from_attrs(ds.variables[MASK].attrs if MASK in ds.variables else {})
    kinds = {kind: cls for cls, kind in uncertainty_classes().items()}
    uncertainty = mask = None
    if UNCERTAINTY in arrays:
        uncertainty = kinds[image.uncertainty_type](arrays[UNCERTAINTY], copy=False)
    if MASK in arrays:
        bits = arrays[MASK]
        mask = (bits & bits.dtype.type(schema.bad_bits)) != 0
        # ccdproc leaves an image without a mask as it is; here a mask may have been made only to flag NaN, of which there is none
        if like is not None and like.mask is None and not mask.any():
            mask = None
    if like is None:
        text = append_cards(image.header, cards)
        wcs = _own_wcs(image)
        meta: Any = header_from_text(header_in_memory(text, image.shape, image.units))
    else:
        wcs = _cut_wcs(like, image)
        meta = copy_header(like.meta) if isinstance(like.meta, fits.Header) else copy.deepcopy(like.meta)
        apply_to_meta(meta, list(log))
        for keyword, number, comment in cards:
            meta[keyword] = (number, comment) if isinstance(meta, fits.Header) else number
    return CCDData(arrays[DATA], unit=image.units, uncertainty=uncertainty, mask=mask, meta=meta, wcs=wcs)


def _compute(image: Image) -> dict[str, Array]:
    """Return the variables of an image, without a graph where a single call holds all that is read."""
    return run_plan(image.plan, image.kinds) if can_run(image.plan) else _computed(image.lowered())


def _computed(ds: xr.Dataset) -> dict[str, Array]:
    """Return the variables of a frame, computed by dask."""
    # all variables in one call: their chunks share one task
    return {str(name): variable.values for name, variable in ds.compute().data_vars.items()}


def _own_wcs(image: Image) -> Any:
    """Return the WCS of an image; None, with a warning, if its distortions are tables that are not at hand, or a number is a text."""
    if needs_tables(image.header) and not os.path.isfile(file_path(image.plan)):
        warn(
            "the WCS has distortions that are tables in other HDUs, which a frame in memory does not have; the CCDData has no WCS.",
            UserWarning,
        )
        return None
    if text := text_for_number(image.header):
        warn(f"the WCS has {text}, which must be a number; the CCDData has no WCS.", UserWarning)
        return None
    return image_wcs(image)


def _cut_wcs(like: CCDData, image: Image) -> Any:
    """Return the WCS of the part of a CCDData that an image shows; None if it is not a plain cut."""
    y, x = image.y, image.x
    if like.wcs is None or not (np.all(np.diff(y) == 1) and np.all(np.diff(x) == 1)):
        return None
    # half pixels: replicated or binned, which a slice of a WCS cannot say
    if float(y[0]) % 1 or float(x[0]) % 1:
        return None
    from astropy.wcs import WCS

    cut = like.wcs[int(y[0]) : int(y[-1]) + 1, int(x[0]) : int(x[-1]) + 1]
    if isinstance(cut, WCS):  # astropy keeps no shape where the whole had none
        cut.pixel_shape = (len(x), len(y))
    return cut
