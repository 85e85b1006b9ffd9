"""The basic steps: deviation, overscan, trim, bias, dark, gain and flat.

Data, uncertainties, masks and units follow the rules of `CCDData`, for subclasses, any number of axes and every class of
uncertainty; `lazyccd.ccdproc.arithmetic` sees to that. No step changes what it is given.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from lazyccd.ccdproc.arithmetic import Array, Scaling, by_bands, by_rows, calculate, copied, cut
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
    # a number of NumPy's would make float64 of float32
    factor, noise = (float(q.value) if q.isscalar else q.value for q in (gain, readnoise))
    if not disregard_nan:
        logging.warning("Negative values in array will be replaced with nan")
    deviation = _deviation(np.asarray(ccd_data.data), factor, noise, 0.0 if disregard_nan else np.nan)
    return copied(ccd_data, uncertainty=StdDevUncertainty(deviation, copy=False))


def _deviation(data: Array, gain: Any, noise: Any, negative: float) -> Array:
    """Return the deviation of pixels with a value for negative counts."""

    def formula(pixels: Array, out: Array | None = None) -> Array:
        counts = np.asarray(gain * pixels)
        counts = np.where(counts < 0, counts.dtype.type(negative), counts)
        return np.asarray(np.divide(np.sqrt(counts + noise**2), gain, out=out))

    if not data.ndim or np.ndim(gain) or np.ndim(noise):
        return formula(data)
    result = np.empty(data.shape, formula(data[:0]).dtype)
    by_bands(lambda rows: formula(data[rows], result[rows]), data)
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
        strip = ccd.data[slice_from_string(fits_section, fits_convention=True)]
    else:
        assert overscan is not None
        strip = overscan.data
    if overscan_axis is None:
        overscan_axis = 0 if strip.shape[1] > strip.shape[0] else 1
    levels = (np.median if median else np.mean)(strip, axis=overscan_axis)
    if model is not None:
        from astropy.modeling.fitting import LinearLSQFitter

        lines = np.arange(len(levels))
        levels = LinearLSQFitter()(model, lines, levels)(lines)
    return copied(ccd, data=_less(ccd.data, np.reshape(levels, (1, -1) if overscan_axis == 0 else (-1, 1))))


def _less(data: Array, levels: Array) -> Array:
    """Return pixels less a level for each row or each column."""
    if type(data) is not np.ndarray or np.broadcast_shapes(data.shape, levels.shape) != data.shape:
        return data - levels
    result = np.empty(data.shape, np.result_type(data, levels))
    by_rows(lambda rows: np.subtract(data[rows], levels[rows] if len(levels) > 1 else levels, out=result[rows]), data)
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
        return copied(ccd)
    return cut(ccd, slice_from_string(fits_section, fits_convention=True))


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
    return calculate(np.subtract, ccd, master)


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
    scaling = None
    if scale:
        ratio = float((data_time / dark_time).decompose())
        # a number of NumPy's would make float64 of float32
        number = u.Quantity(np.asarray(ratio, np.result_type(master.data, ratio)), dtype=None)
        scaling = Scaling(np.multiply, number)
    try:
        return calculate(np.subtract, ccd, master, scaling)
    except (u.UnitsError, ValueError) as error:
        raise u.UnitsError(
            f"Unit '{ccd.unit}' of the uncalibrated image does not match unit '{master.unit}' of the calibration image."
        ) from error


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
    return calculate(np.multiply, ccd, gain)


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
    # a masked pixel of the flat must not make the image infinite there
    scaling = Scaling(np.true_divide, None, min_value, masked=1.0)
    norm = scaling.mean_of(flat.data) if norm_value is None else norm_value
    quantity = norm if isinstance(norm, u.Quantity) else norm * (flat.unit or u.dimensionless_unscaled)
    return calculate(np.true_divide, ccd, flat, scaling._replace(number=quantity))
