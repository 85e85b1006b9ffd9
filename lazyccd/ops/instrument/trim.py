"""Keep a section of an image, without losing where its pixels were."""

from __future__ import annotations

import xarray as xr

from lazyccd.errors import ArgumentTypeError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.ops.decorator import operation
from lazyccd.sections import parse_section


@operation()
def trim_image(
    ccd: xr.Dataset, fits_section: str | Keyword | None = None, *, add_keyword: LogEntry = True
) -> xr.Dataset:
    """Keep a section of an image.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    fits_section
        Section to keep, such as ``[1:2048,1:4096]`` or ``[11:,:40]``, or the keyword of one, such as ``"TRIMSEC"``; None, ``:``
        or an empty string keeps everything. A section that is written backwards flips the image, one with a step takes every
        n-th pixel.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; nothing outside of the section is read. Units, dtype, uncertainty and mask as before.
        The coordinates keep the original pixel positions, so the WCS stays true; sections in the header follow when the frame
        is written.

    Raises
    ------
    ArgumentTypeError
        Raised if the section is not a string.
    SectionError
        Raised if the section is malformed or lies outside of the image.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> trim_image(CCDData(np.arange(12.0).reshape(3, 4), unit="adu"), "[2:3,1:2]").data
    array([[1., 2.],
           [5., 6.]])
    """
    image = resolve(ccd)
    if fits_section is None:
        return image.to_dataset()
    if isinstance(fits_section, str) and not fits_section:
        return image.to_dataset()
    if not isinstance(fits_section, str):
        raise ArgumentTypeError(f"fits_section {fits_section!r} must be a string such as '[1:2048,1:4096]'.")
    return cut_section(image, fits_section).to_dataset()


def cut_section(image: Image, text: str) -> Image:
    """Return a section of an image, flipped where it is written backwards."""
    # ccdproc cuts a section off at the edge silently; a typing error must not pass as data
    region, step = section = parse_section(text, image.shape)
    shape = (-(-region.shape.y // abs(step.y)), -(-region.shape.x // abs(step.x)))
    return image.window(section.first, (step.y, step.x), shape)
