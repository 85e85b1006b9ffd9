"""Cosmic rays: ccdproc's arguments and units around lazyccd's kernels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from astropy.utils.exceptions import AstropyDeprecationWarning

from lazyccd.ccdproc.arithmetic import copied
from lazyccd.ccdproc.filters import median_filter
from lazyccd.ccdproc.whole_image import is_plain
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import CHUNK_SIDE
from lazyccd.sections import Region

__all__ = ["cosmicray_lacosmic", "cosmicray_median"]


def cosmicray_lacosmic(
    ccd: Any,
    sigclip: float = 4.5,
    sigfrac: float = 0.3,
    objlim: float = 5.0,
    gain: float | u.Quantity = 1.0,
    readnoise: float | u.Quantity = 6.5,
    satlevel: float = 65535.0,
    pssl: float = 0.0,
    niter: int = 4,
    sepmed: bool = True,
    cleantype: str = "meanmask",
    fsmode: str = "median",
    psfmodel: str = "gauss",
    psffwhm: float = 2.5,
    psfsize: int = 7,
    psfk: Any = None,
    psfbeta: float = 4.765,
    verbose: bool = False,
    gain_apply: bool = True,
    inbkg: Any = None,
    invar: Any = None,
) -> Any:
    """Find and replace cosmic rays by LA Cosmic.

    Parameters
    ----------
    ccd
        A CCDData, or an array, for which data and mask are returned.
    gain
        Gain; a number is in electron/adu.
    readnoise
        Read noise; a number is in electrons.
    gain_apply
        Multiply the result by the gain.
    sigclip, sigfrac, objlim, satlevel, pssl, niter, sepmed, cleantype, fsmode, verbose
        See `lazyccd.cosmicray_lacosmic`.
    psfmodel, psffwhm, psfsize, psfk, psfbeta
        The PSF for ``fsmode="convolve"``.
    inbkg, invar
        Arrays: a background that was subtracted, and the variance.
    """
    _check_background(pssl, inbkg, invar)
    if not isinstance(ccd, CCDData | np.ndarray):
        raise TypeError(f"ccd is a {type(ccd).__name__} and must be a CCDData or a NumPy array.")
    gain = gain if isinstance(gain, u.Quantity) else gain * u.electron / u.adu
    noise = readnoise if isinstance(readnoise, u.Quantity) else readnoise * u.electron
    if isinstance(ccd, CCDData):
        gain = _fitting_gain(ccd, gain, noise)
    pixels = np.asarray(ccd.data if isinstance(ccd, CCDData) else ccd)
    mask = ccd.mask if isinstance(ccd, CCDData) else None
    limits = {"sigclip": sigclip, "sigfrac": sigfrac, "objlim": objlim, "niter": niter, "satlevel": satlevel}
    numbers = limits | {"gain": float(gain.value), "readnoise": float(noise.value)}
    plain = fsmode == "median" and psfk is None and pssl == 0 and inbkg is None and invar is None
    if plain and _is_small(pixels, mask) and _are_usual(numbers, cleantype):
        settings = {**numbers, "sepmed": bool(sepmed), "cleantype": cleantype}
        data, bad = _clean_at_once(pixels, mask, settings, gain_apply=gain_apply)
    else:
        words = {"sepmed": sepmed, "cleantype": cleantype, "fsmode": fsmode, "psfmodel": psfmodel, "psffwhm": psffwhm}
        psf = {"psfsize": psfsize, "psfk": None if psfk is None else np.asarray(psfk, np.float32), "psfbeta": psfbeta}
        extras = {"pssl": pssl, "inbkg": inbkg, "invar": invar, "gain_apply": gain_apply, "verbose": verbose}
        data, bad = _clean(pixels, mask, {**numbers, **words, **psf, **extras})
    if not isinstance(ccd, CCDData):
        return data, bad
    result = copied(ccd, data=data, mask=bad)
    if gain_apply:
        result.unit = ccd.unit * gain.unit
    return result


def _clean(pixels: Any, mask: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Return what `lazyccd.cosmicray_lacosmic` makes of pixels, and their mask."""
    from lazyccd.ops.cosmic_rays import cosmicray_lacosmic as lacosmic

    # units are settled: the kernel gets numbers
    clean: Any = lacosmic(CCDData(pixels, unit="adu", mask=mask), **arguments, add_keyword=False)
    # nothing was found: there is no mask
    return clean.data, np.zeros(clean.shape, bool) if clean.mask is None else clean.mask


def _is_small(pixels: Any, mask: Any) -> bool:
    """Return whether a plain image is searched as a whole: one that is larger than a chunk is cut into parts for threads."""
    if not is_plain(pixels) or (mask is not None and np.shape(mask) != pixels.shape):
        return False
    return bool(max(pixels.shape) <= CHUNK_SIDE)


def _are_usual(numbers: dict[str, Any], cleantype: str) -> bool:
    """Return whether arguments are the numbers that they must be; all others are left to lazyccd's own checks."""
    if not all(isinstance(number, int | float) for number in numbers.values()) or not isinstance(numbers["niter"], int):
        return False
    least = all(number >= 0 for name, number in numbers.items() if name != "satlevel")
    level, gain, noise = (numbers[name] for name in ("satlevel", "gain", "readnoise"))
    known = cleantype in ("meanmask", "medmask", "idw", "median")
    least = all(number >= 0 for name, number in numbers.items() if name != "satlevel")
    level, gain, noise = (float(numbers[name]) for name in ("satlevel", "gain", "readnoise"))
    return known and least and level == level and 0 < gain < np.inf and noise < np.inf


def _clean_at_once(pixels: Any, mask: Any, settings: dict[str, Any], *, gain_apply: bool) -> tuple[Any, Any]:
    """Return what `_clean` does, by the same kernel, without dask and xarray: their import takes longer than a small image."""
    from lazyccd.kernels.block import Block, Request
    from lazyccd.kernels.cosmic_rays.block import lacosmic
    from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic

    schema = MaskSchema()
    region = Region.full((pixels.shape[0], pixels.shape[1]))
    bits = None if mask is None else np.where(np.asarray(mask) != 0, schema.dtype.type(schema.bits("BAD")), 0)
    found = lacosmic(
        Request(region, frozenset({"data", "mask"})),
        Block(region, pixels, None, None if bits is None else bits.astype(schema.dtype)),
        extras=(),
        settings=LACosmic(**settings),
        bits=(schema.bad_bits, 0),
        flags=(schema.bits("CR"), schema.bits("INTERP"), schema.bits("NO_DATA")),
        offset=0.0,
        scale=settings["gain"] if gain_apply else 1.0,
        whole=True,
        library=None,
        mask_dtype=schema.dtype.name,
    )
    return found.plane("data"), (found.plane("mask") & schema.dtype.type(schema.bad_bits)) != 0


def _check_background(pssl: float, inbkg: object, invar: object) -> None:
    """Raise or warn if the arguments about the background are wrong, contradict each other or are old."""
    if pssl != 0:
        warnings.warn("pssl was deprecated in version 2.3; use inbkg instead.", AstropyDeprecationWarning, stacklevel=3)
        if inbkg is not None or invar is not None:
            raise ValueError("pssl and inbkg or invar cannot both be set.")
    for name, given in (("inbkg", inbkg), ("invar", invar)):
        if given is not None and not isinstance(given, np.ndarray):
            raise TypeError(f"{name} is a {type(given).__name__} and must be a NumPy array.")


def _fitting_gain(ccd: CCDData, gain: u.Quantity, noise: u.Quantity) -> u.Quantity:
    """Return the gain, without units for an image that is in electrons already; raise if units do not fit together."""
    if ccd.unit.is_equivalent(u.electron) and gain.value != 1.0:
        warnings.warn(
            "Image unit is electron but gain value is not 1.0. Data maybe end up being gain corrected twice.",
            stacklevel=3,
        )
        return gain
    if gain.value == 1.0 and ccd.unit == u.electron and noise.unit == u.electron:
        gain = gain.value * u.dimensionless_unscaled
    if not (gain.unit * ccd.unit).is_equivalent(noise.unit):
        raise ValueError(f"Inconsistent units for gain ({gain.unit}), image ({ccd.unit}) and readnoise ({noise.unit}).")
    return gain


def cosmicray_median(
    ccd: Any, error_image: Any = None, thresh: float = 5, mbox: int = 11, gbox: int = 0, rbox: int = 0
) -> Any:
    """Find cosmic rays as what is far above the median of a box.

    Parameters
    ----------
    ccd
        A CCDData, or an array, for which data and mask are returned.
    error_image
        Noise: a number or an array; by default the uncertainty, or the standard deviation of an array.
    thresh
        How many times the noise a cosmic ray is above the median.
    mbox
        Side of the box of the median.
    gbox
        Side of the box by which cosmic rays are grown; 0 for none.
    rbox
        Side of the box whose median replaces them; 0 for no replacement.
    """
    if isinstance(ccd, CCDData):
        if error_image is None:
            error_image = ccd.uncertainty.array
        elif np.ndim(error_image) and np.shape(error_image) != ccd.shape:
            raise ValueError(f"error_image has shape {np.shape(error_image)} and the image {ccd.shape}.")
        data, found = cosmicray_median(ccd.data, error_image, thresh, mbox, gbox, rbox)
        return copied(ccd, data=data, mask=found if ccd.mask is None else found | np.asarray(ccd.mask, bool))
    if not isinstance(ccd, np.ndarray):
        raise TypeError(f"ccd is a {type(ccd).__name__} and must be a CCDData or a NumPy array.")
    pixels = np.asarray(ccd)  # scipy's filters do not see the mask of a masked array either
    error = pixels.std() if error_image is None else error_image
    if not isinstance(error, int | float | np.number | np.ndarray):
        raise TypeError(f"error_image is a {type(error).__name__} and must be a number or an array.")
    found = (pixels - median_filter(pixels, mbox)) / error > thresh
    if gbox > 0:
        from scipy import ndimage

        found = ndimage.maximum_filter(found, gbox)
    data = pixels.copy()
    if rbox > 0:
        data[found] = median_filter(pixels, rbox)[found]
    return data, found
