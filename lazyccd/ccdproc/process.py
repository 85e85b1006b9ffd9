"""All basic steps in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData

from lazyccd.ccdproc.arithmetic import copied
from lazyccd.ccdproc.calibrate import (
    create_deviation,
    flat_correct,
    gain_correct,
    subtract_bias,
    subtract_dark,
    subtract_overscan,
    trim_image,
)
from lazyccd.ccdproc.log_meta import log_to_metadata

__all__ = ["ccd_process"]


@log_to_metadata
def ccd_process(
    ccd: CCDData,
    oscan: CCDData | str | None = None,
    trim: str | None = None,
    error: bool = False,
    master_bias: CCDData | None = None,
    dark_frame: CCDData | None = None,
    master_flat: CCDData | None = None,
    bad_pixel_mask: Any = None,
    gain: u.Quantity | None = None,
    readnoise: u.Quantity | None = None,
    oscan_median: bool = True,
    oscan_model: Any = None,
    min_value: float | None = None,
    dark_exposure: u.Quantity | None = None,
    data_exposure: u.Quantity | None = None,
    exposure_key: Any = None,
    exposure_unit: u.UnitBase | None = None,
    dark_scale: bool = False,
    gain_corrected: bool = True,
) -> CCDData:
    """Do the basic steps: overscan, trim, deviation, mask, gain, bias, dark, flat.

    Parameters
    ----------
    ccd
        The image.
    oscan, oscan_median, oscan_model
        The overscan region, or its FITS section, and how it is averaged; see `subtract_overscan`.
    trim
        The FITS section to keep.
    error
        Make an uncertainty from ``gain`` and ``readnoise``.
    master_bias, dark_frame, master_flat
        Calibrations.
    bad_pixel_mask
        An array that becomes the mask.
    gain, readnoise
        Of the detector.
    min_value
        Lower values of the flat are replaced by this one.
    dark_exposure, data_exposure, exposure_key, exposure_unit, dark_scale
        See `subtract_dark`.
    gain_corrected
        The calibrations are in units of gain times data; else the gain comes last.
    """
    _check(oscan, trim, (master_bias, dark_frame, master_flat), gain)
    if error and (gain is None or readnoise is None):
        raise ValueError("gain and readnoise must be specified to create error frame.")
    result = ccd
    if oscan is not None:
        region = {"fits_section": oscan} if isinstance(oscan, str) else {"overscan": oscan}
        result = subtract_overscan(result, **region, median=oscan_median, model=oscan_model)
    if trim is not None:
        result = trim_image(result, fits_section=trim)
    if error:
        result = create_deviation(result, gain=gain, readnoise=readnoise)
    if bad_pixel_mask is not None:
        result = copied(result, mask=_array(bad_pixel_mask))
    if gain is not None and gain_corrected:
        result = gain_correct(result, gain)
    if master_bias is not None:
        result = subtract_bias(result, master_bias)
    if dark_frame is not None:
        times = {"dark_exposure": dark_exposure, "data_exposure": data_exposure, "exposure_time": exposure_key}
        result = subtract_dark(result, dark_frame, **times, exposure_unit=exposure_unit, scale=dark_scale)
    if master_flat is not None:
        result = flat_correct(result, master_flat, min_value=min_value)
    if gain is not None and not gain_corrected:
        result = gain_correct(result, gain)
    # a call without a step gives a copy
    return copied(ccd) if result is ccd else result


def _check(oscan: object, trim: object, masters: tuple[object, ...], gain: object) -> None:
    """Raise if an argument is of a type that no step takes."""
    if not isinstance(oscan, CCDData | str | None):
        raise TypeError(f"oscan is a {type(oscan).__name__} and must be None, a string or a CCDData.")
    if not isinstance(trim, str | None):
        raise TypeError(f"trim is a {type(trim).__name__} and must be None or a string.")
    if not isinstance(gain, u.Quantity | None):
        raise TypeError(f"gain is a {type(gain).__name__} and must be None or an astropy.units.Quantity.")
    for name, master in zip(("master_bias", "dark_frame", "master_flat"), masters, strict=True):
        if not isinstance(master, CCDData | None):
            raise TypeError(f"{name} is a {type(master).__name__} and must be None or a CCDData.")


def _array(mask: object) -> np.ndarray[Any, Any]:
    """Return a mask, which must be an array."""
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"bad_pixel_mask is a {type(mask).__name__} and must be None or a NumPy array.")
    return mask
