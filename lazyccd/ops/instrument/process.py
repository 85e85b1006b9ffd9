"""Run the basic reduction in one call, in ccdproc's order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from astropy import units as u
from dask.base import is_dask_collection

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.nddata import is_ccddata
from lazyccd.ops.arguments import Pixels
from lazyccd.ops.attributes import add_mask
from lazyccd.ops.decorator import operation
from lazyccd.ops.instrument.calibrate import Master, create_deviation, gain_correct, subtract_bias, subtract_dark
from lazyccd.ops.instrument.flat import NormValue, flat_correct, norm_of_all
from lazyccd.ops.instrument.overscan import subtract_overscan
from lazyccd.ops.instrument.trim import trim_image

if TYPE_CHECKING:
    from astropy.modeling import Model
    from astropy.nddata import CCDData


@operation(shared=partial(norm_of_all, flat="master_flat"))
def ccd_process(
    ccd: xr.Dataset,
    oscan: xr.Dataset | CCDData | str | Keyword | None = None,
    trim: str | Keyword | None = None,
    error: bool = False,
    master_bias: Master | None = None,
    dark_frame: Master | None = None,
    master_flat: Master | None = None,
    bad_pixel_mask: Pixels | None = None,
    gain: u.Quantity | Keyword | str | None = None,
    readnoise: u.Quantity | Keyword | str | None = None,
    oscan_median: bool = True,
    oscan_model: Model | None = None,
    min_value: float | None = None,
    dark_exposure: u.Quantity | Keyword | str | None = None,
    data_exposure: u.Quantity | Keyword | str | None = None,
    exposure_key: str | None = None,
    exposure_unit: u.UnitBase | None = None,
    dark_scale: bool = False,
    gain_corrected: bool = True,
    *,
    norm_value: NormValue = None,
    common_norm: bool = True,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Reduce a raw frame: overscan, trim, deviation, bad pixels, gain, bias, dark, flat, in this order.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    oscan
        Overscan strip: a frame, a FITS section or the keyword of one. See `subtract_overscan`.
    trim
        FITS section to keep, or the keyword of one. See `trim_image`.
    error
        Whether to create the uncertainty; needs ``gain`` and ``readnoise``. See `create_deviation`.
    master_bias, dark_frame, master_flat
        Masters, as frames, CCDData or paths, in the units that the frame has when they are used.
    bad_pixel_mask
        Array of the trimmed image's shape, not 0 where bad; added to the mask as the plane ``BAD``.
    gain, readnoise
        Quantities such as 1.5 electron/adu and 5 electron, or keywords such as ``"GAIN"`` and ``"RDNOISE"``.
    oscan_median, oscan_model
        Median instead of mean of each line of the strip, and a model of the levels.
    min_value
        Least value of the flat. See `flat_correct`.
    dark_exposure, data_exposure, exposure_key, exposure_unit, dark_scale
        See `subtract_dark`.
    gain_corrected
        Whether the masters are in units after the gain; if not, the gain is applied last.
    norm_value, common_norm
        See `flat_correct`.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0. It has an uncertainty with ``error`` or if the frame or a master has one, a mask if
        the frame or a master has one, and with ``bad_pixel_mask`` or ``master_flat``; see the operations for NaN and planes.

    Raises
    ------
    ArgumentTypeError
        Raised if an argument has a wrong type.
    ParameterError
        Raised if ``error`` is asked for without gain and read noise.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import CCDData
    >>> raw = CCDData(np.array([[110.0, 130.0, 10.0], [220.0, 260.0, 20.0]]), unit="adu")
    >>> ccd_process(raw, oscan="[3:3,1:2]", trim="[1:2,1:2]", gain=2 * u.electron / u.adu)
    CCDData([[200., 240.],
             [400., 480.]], unit='electron')
    """
    _check_arguments(oscan, trim, error, bad_pixel_mask, gain, readnoise)
    if oscan is not None:
        where = {"fits_section": oscan} if isinstance(oscan, str) else {"overscan": oscan}
        ccd = subtract_overscan(ccd, **where, median=oscan_median, model=oscan_model)
    if trim is not None:
        ccd = trim_image(ccd, fits_section=trim)
    if error:
        ccd = create_deviation(ccd, gain=gain, readnoise=readnoise)
    if bad_pixel_mask is not None:
        ccd = add_mask(ccd, bad_pixel_mask)  # ccdproc replaces the mask here, and forgets what was known
    # ccdproc expects masters in the units after the gain; those in adu need gain_corrected=False
    if gain is not None and gain_corrected:
        ccd = gain_correct(ccd, gain)
    if master_bias is not None:
        ccd = subtract_bias(ccd, master_bias)
    if dark_frame is not None:
        times = {"dark_exposure": dark_exposure, "data_exposure": data_exposure, "exposure_time": exposure_key}
        ccd = subtract_dark(ccd, dark_frame, **times, exposure_unit=exposure_unit, scale=dark_scale)
    # the header notes the arguments that are passed, and must not get more of them than ccdproc's does
    if master_flat is not None and norm_value is None:
        ccd = flat_correct(ccd, master_flat, min_value=min_value)
    elif master_flat is not None:
        ccd = flat_correct(ccd, master_flat, min_value=min_value, norm_value=norm_value)
    if gain is not None and not gain_corrected:
        ccd = gain_correct(ccd, gain)
    return ccd


def _check_arguments(oscan: object, trim: object, error: bool, mask: object, gain: object, readnoise: object) -> None:
    """Refuse arguments of wrong types before anything is built."""
    if not (oscan is None or isinstance(oscan, str | xr.Dataset) or is_ccddata(oscan)):
        raise ArgumentTypeError(
            f"oscan is a {type(oscan).__name__} and must be a FITS section, a frame, a CCDData or None."
        )
    if not (trim is None or isinstance(trim, str)):
        raise ArgumentTypeError(f"trim is a {type(trim).__name__} and must be a FITS section or None.")
    if error and (gain is None or readnoise is None):
        raise ParameterError(f"error=True needs gain ({gain}) and readnoise ({readnoise}); give both as Quantity.")
    if not (mask is None or isinstance(mask, np.ndarray | xr.DataArray) or is_dask_collection(mask)):
        raise ArgumentTypeError(f"bad_pixel_mask is a {type(mask).__name__} and must be an array or None.")
    if not (gain is None or isinstance(gain, u.Quantity)):
        raise ArgumentTypeError(f"gain {gain!r} must be a Quantity, such as 1.5 * u.electron / u.adu.")
