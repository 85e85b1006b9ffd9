"""The basic steps: deviation, overscan, trim, bias, dark, gain and flat.

Data, uncertainties, masks and units go through the arithmetic of `CCDData`, so that its rules hold for subclasses, any number of
axes and every class of uncertainty. No step changes what it is given.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from astropy import units as u
from astropy.modeling.fitting import LinearLSQFitter
from astropy.nddata import CCDData, StdDevUncertainty

from lazyccd.ccdproc.log_meta import log_to_metadata
from lazyccd.ccdproc.utils.slices import slice_from_string
from lazyccd.frame.keyword import Keyword

__all__ = [
    "create_deviation",
    "flat_correct",
    "gain_correct",
    "subtract_bias",
    "subtract_dark",
    "subtract_overscan",
    "trim_image",
]


@log_to_metadata
def create_deviation(
    ccd_data: CCDData,
    gain: u.Quantity | None = None,
    readnoise: u.Quantity | None = None,
    disregard_nan: bool = False,
) -> CCDData:
    """Give an image the uncertainty that follows from its counts and the read noise.

    Parameters
    ----------
    ccd_data
        The image.
    gain
        Gain of the detector; 1 without units by default.
    readnoise
        Noise of a pixel without signal, in units of gain times data.
    disregard_nan
        Count negative pixels as 0; else their uncertainty is NaN.
    """
    if gain is not None and not isinstance(gain, u.Quantity):
        raise TypeError(f"gain is a {type(gain).__name__} and must be an astropy.units.Quantity.")
    if readnoise is None:
        raise ValueError("must provide a readnoise.")
    if not isinstance(readnoise, u.Quantity):
        raise TypeError(f"readnoise is a {type(readnoise).__name__} and must be an astropy.units.Quantity.")
    gain = 1.0 * u.dimensionless_unscaled if gain is None else gain
    if gain.unit * ccd_data.unit != readnoise.unit:
        raise u.UnitsError(
            f"units of data '{ccd_data.unit}', gain '{gain.unit}' and readnoise '{readnoise.unit}' do not fit together."
        )
    result = ccd_data.copy()
    # a number of NumPy's would make float64 of float32
    factor, noise = (float(q.value) if q.isscalar else q.value for q in (gain, readnoise))
    counts = factor * np.asarray(ccd_data.data)
    if disregard_nan:
        counts = np.where(counts < 0, 0, counts)
    else:
        logging.warning("Negative values in array will be replaced with nan")
        counts = np.where(counts < 0, np.nan, counts)
    result.uncertainty = StdDevUncertainty((counts + noise**2) ** 0.5 / factor)
    return result


@log_to_metadata
def subtract_overscan(
    ccd: CCDData,
    overscan: CCDData | None = None,
    overscan_axis: int | None = 1,
    fits_section: str | None = None,
    median: bool = False,
    model: Any = None,
) -> CCDData:
    """Subtract the overscan's mean or median, line by line.

    Parameters
    ----------
    ccd
        The image.
    overscan
        The overscan region; or give ``fits_section``.
    overscan_axis
        The axis to average over; if None, the shorter one of the overscan.
    fits_section
        The overscan region as a FITS section.
    median
        Take the median of each line.
    model
        A linear model of astropy to fit to the levels.
    """
    if not isinstance(ccd, CCDData):
        raise TypeError(f"ccd is a {type(ccd).__name__} and must be a CCDData.")
    if (overscan is None) == (fits_section is None):
        raise TypeError("specify either overscan or fits_section, and not both.")
    if overscan is not None and not isinstance(overscan, CCDData):
        raise TypeError(f"overscan is a {type(overscan).__name__} and must be a CCDData.")
    if fits_section is not None:
        if not isinstance(fits_section, str):
            raise TypeError(f"fits_section is a {type(fits_section).__name__} and must be a string.")
        overscan = ccd[slice_from_string(fits_section, fits_convention=True)]
    assert overscan is not None
    if overscan_axis is None:
        overscan_axis = 0 if overscan.shape[1] > overscan.shape[0] else 1
    levels = (np.median if median else np.mean)(overscan.data, axis=overscan_axis)
    if model is not None:
        lines = np.arange(len(levels))
        levels = LinearLSQFitter()(model, lines, levels)(lines)
    result = ccd.copy()
    result.data = result.data - np.reshape(levels, (1, -1) if overscan_axis == 0 else (-1, 1))
    return result


@log_to_metadata
def trim_image(ccd: CCDData, fits_section: str | None = None) -> CCDData:
    """Return the pixels of a FITS section, or all if there is none.

    Parameters
    ----------
    ccd
        The image.
    fits_section
        The section to keep, such as ``"[1:100, 1:200]"``.
    """
    if fits_section is not None and not isinstance(fits_section, str):
        raise TypeError(f"fits_section is a {type(fits_section).__name__} and must be a string.")
    if not fits_section:
        return ccd.copy()
    return ccd[slice_from_string(fits_section, fits_convention=True)].copy()


@log_to_metadata
def subtract_bias(ccd: CCDData, master: CCDData) -> CCDData:
    """Subtract a bias image.

    Parameters
    ----------
    ccd
        The image.
    master
        The bias, in units that can be converted to those of the image.
    """
    return with_meta(ccd.subtract(master), ccd)


def with_meta(result: CCDData, ccd: CCDData) -> CCDData:
    """Give a result a copy of an image's header."""
    result.meta = ccd.meta.copy()
    return result


@log_to_metadata
def subtract_dark(
    ccd: CCDData,
    master: CCDData,
    dark_exposure: u.Quantity | None = None,
    data_exposure: u.Quantity | None = None,
    exposure_time: str | Keyword | None = None,
    exposure_unit: u.UnitBase | None = None,
    scale: bool = False,
) -> CCDData:
    """Subtract a dark image, scaled to the exposure time of the image if asked for.

    Parameters
    ----------
    ccd
        The image.
    master
        The dark, without bias.
    dark_exposure, data_exposure
        Exposure times; or give ``exposure_time``.
    exposure_time
        The keyword that has the exposure time in both headers.
    exposure_unit
        Its unit, if it is not a `Keyword` with one.
    scale
        Multiply the dark by the ratio of the exposure times.
    """
    if ccd.shape != master.shape:
        raise ValueError(f"operands are not the same shape: the image has {ccd.shape}, the dark {master.shape}.")
    if not (isinstance(ccd, CCDData) and isinstance(master, CCDData)):
        raise TypeError("ccd and master must both be CCDData objects.")
    data_time, dark_time = _exposure_times(ccd, master, (data_exposure, dark_exposure), exposure_time, exposure_unit)
    try:
        if scale:
            master = master.multiply(float((data_time / dark_time).decompose()))
        result = ccd.subtract(master)
    except (u.UnitsError, ValueError) as error:
        raise u.UnitsError(
            f"Unit '{ccd.unit}' of the uncalibrated image does not match unit '{master.unit}' of the calibration image."
        ) from error
    return with_meta(result, ccd)


def _exposure_times(
    ccd: CCDData,
    master: CCDData,
    given: tuple[u.Quantity | None, u.Quantity | None],
    keyword: str | Keyword | None,
    unit: u.UnitBase | None,
) -> tuple[u.Quantity, u.Quantity]:
    """Return the exposure times of an image and its dark, as they are given or from the headers."""
    explicit = [time is not None for time in given]
    if all(explicit) and keyword is not None:
        raise TypeError("specify either exposure_time or (dark_exposure and data_exposure), not both.")
    if not any(explicit) and keyword is None:
        raise TypeError("must specify either exposure_time or both dark_exposure and data_exposure.")
    if any(explicit):
        times: list[Any] = list(given)
    elif isinstance(keyword, Keyword):
        # the image comes last: its exposure time is the value that the keyword has afterwards
        dark = keyword.value_from(master.header)
        times = [keyword.value_from(ccd.header), dark]
    else:
        times = [ccd.header[keyword], master.header[keyword]]
    if unit is not None and not any(explicit):
        times = [time if isinstance(time, u.Quantity) else time * unit for time in times]
    if not all(isinstance(time, u.Quantity) for time in times):
        if any(explicit):
            raise TypeError("exposure times must both be astropy.units.Quantity objects.")
        raise TypeError("must provide unit for exposure time.")
    return times[0], times[1]


@log_to_metadata
def gain_correct(ccd: CCDData, gain: float | u.Quantity | Keyword, gain_unit: u.UnitBase | None = None) -> CCDData:
    """Multiply an image by the gain.

    Parameters
    ----------
    ccd
        The image.
    gain
        A quantity, a `Keyword` of the header, or a number.
    gain_unit
        Unit of a number.
    """
    if isinstance(gain, Keyword):
        gain = gain.value_from(ccd.header)
    if gain_unit is not None:
        gain = gain * gain_unit
    return with_meta(ccd.multiply(gain), ccd)


@log_to_metadata
def flat_correct(
    ccd: CCDData, flat: CCDData, min_value: float | None = None, norm_value: float | u.Quantity | None = None
) -> CCDData:
    """Divide an image by a flat, normalised to its mean.

    Parameters
    ----------
    ccd
        The image.
    flat
        The flat.
    min_value
        Lower values of the flat are replaced by this one, before the mean.
    norm_value
        What to normalise by instead of the mean.
    """
    if norm_value is not None and not norm_value > 0:
        raise ValueError(f"norm_value is {norm_value}; norm_value must be greater than zero.")
    if min_value is not None:
        flat = flat.copy()
        flat.data[flat.data < min_value] = min_value
    norm = flat.data.mean() if norm_value is None else norm_value
    normalised = flat.divide(norm if isinstance(norm, u.Quantity) else norm * (flat.unit or u.dimensionless_unscaled))
    normalised._unit = (normalised.unit or u.dimensionless_unscaled).decompose()
    if normalised.mask is not None:
        # a masked pixel of the flat must not make the image infinite there
        normalised.data[np.broadcast_to(np.asarray(normalised.mask, bool), normalised.data.shape)] = 1.0
    return with_meta(ccd.divide(normalised), ccd)
