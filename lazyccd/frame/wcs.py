"""The WCS of a frame, carried along when it is cut, flipped or binned.

It is that of the header, which is about the image that was read, seen from the original positions of the frame's rows and columns
in its coordinates. Any chain of operations leads to these positions, so no operation has to know of the WCS.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning

from lazyccd.errors import FrameError, quiet
from lazyccd.frame.header import TABLES, header_from_text, header_view
from lazyccd.kernels.block import Array
from lazyccd.plan.steps import file_path

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from lazyccd.frame.core import Image

OF_TABLES = re.compile(r"(DP|D2IM)\d+ *=")
"""Cards that say where the tables are."""


FURTHER_AXES = re.compile(
    r"WCSAXES$|NAXIS[3-9]?$|(CTYPE|CRPIX|CRVAL|CDELT|CUNIT|CROTA|CNAME)[3-9]$|(CD|PC)([3-9]_\d|\d_[3-9])$|P[SV][3-9]_"
)
"""Keywords of axes beyond those of the image, and of how many there are."""

COUPLED_AXES = re.compile(r"(CD|PC)([12]_[3-9]|[3-9]_[12])$")
"""Keywords by which axes of the image and further axes depend on each other."""


def lattice(positions: Array, axis: str) -> tuple[float, float]:
    """Return position of the first pixel and step of the original positions along an axis.

    Raises
    ------
    FrameError
        Raised if the positions are not evenly spaced.
    """
    values = np.asarray(positions, float)
    if values.size < 2:
        return float(values[0]), 1.0
    step = (values[-1] - values[0]) / (values.size - 1)
    # positions of binned pixels are means, which need not be exact
    if step == 0 or not np.allclose(np.diff(values), step, rtol=0, atol=1e-6 * abs(step)):
        raise FrameError(
            f"the {axis} coordinates are not evenly spaced, so the WCS cannot follow; select with a constant step."
        )
    return float(values[0]), float(step)


def needs_tables(text: str) -> bool:
    """Return whether the WCS of a header has distortions that are tables in other HDUs."""
    return any(key in text for key in TABLES) and any(key in header_view(text) for key in TABLES)


def text_for_number(text: str) -> str:
    r"""Return the first card of a WCS whose number is a text, and "" if there is none: astropy takes the default in its place.

    Examples
    --------
    >>> text_for_number("CTYPE1  = 'RA---TAN'\nCRVAL1  = '10:00:00'"), text_for_number("CRVAL1  = 150.0")
    ("CRVAL1 = '10:00:00'", '')
    """
    header = header_view(text)
    if "CTYPE1" not in header:
        return ""
    return next(
        (f"{key} = {header[key]!r}" for key in header if LINEAR.match(key) and isinstance(header[key], str)), ""
    )


def wcs_from_header(
    text: str, y: Array, x: Array, hdus: fits.HDUList | None = None, label: str = "the frame"
) -> WCS | None:
    """Return the celestial WCS of a frame's pixels, made anew at each call; None if the header has none.

    Parameters
    ----------
    text
        Header of the image that was read.
    y, x
        Original positions of the frame's rows and columns.
    hdus
        The file of the header, for distortions that are tables in it.
    label
        What messages call the frame.

    Raises
    ------
    FrameError
        Raised if the positions are not evenly spaced, the WCS has a distortion that is a table and no file is given, or it cannot be
        read.
    """
    wcs = _read(text, hdus, label)
    if wcs is None or not wcs.has_celestial:
        return None
    (y0, ystep), (x0, xstep) = lattice(y, "y"), lattice(x, "x")
    # the header as it is, to the last bit
    if (y0, ystep, x0, xstep) != (0, 1, 0, 1):
        wcs = _sliced(wcs, (y0, ystep), (x0, xstep))
    # NAXIS of the header is that of the image that was read, and footprints are made of it
    wcs.pixel_shape = (len(x), len(y))
    return wcs


def image_wcs(image: Image, label: str = "the frame") -> WCS | None:
    """Return the WCS of an image, with tables from the file that its pixels are read from; None if the header has none.

    Raises
    ------
    FrameError
        Raised as by `wcs_from_header`, if a number of the WCS is a text, and if there are tables and the pixels are not read from a
        local file.
    """
    if text := text_for_number(image.header):
        raise FrameError(f"{label}: {text} is a text and must be a number; correct it with ds.ccd.with_header().")
    if not needs_tables(image.header):
        return wcs_from_header(image.header, image.y, image.x, label=label)
    path = file_path(image.plan)
    if not os.path.isfile(path):
        raise FrameError(
            f"the WCS of {label} has distortions that are tables in other HDUs of its file, and its pixels are not read from a local "
            "FITS file; open that file itself and take parts by ds.ccd.cutout(), or leave the tables out by with_header() with "
            f"{', '.join(TABLES)} = None."
        )
    with fits.open(path) as hdus:
        return wcs_from_header(image.header, image.y, image.x, hdus, label)


IN_WAT = {"TNX": "TAN", "ZPX": "ZPN"}
"""Projections of IRAF, with distortions in its WAT cards, and what astropy takes them for."""

LINEAR = re.compile(r"(CRVAL|CRPIX|CDELT|CROTA)[12]$|(CD|PC)[12]_[12]$")
"""Keywords of a WCS of two axes that have numbers."""

KNOWN_DISTORTIONS = ("", "SIP")
"""What may follow a projection in CTYPE; TPV and TPD need their cards CQDIS, too."""


def refuse_unknown_distortion(text: str, label: str = "the frame") -> None:
    """Raise an error if astropy leaves out a distortion that a header has: positions would be wrong by many pixels.

    Raises
    ------
    FrameError
        Raised with the keyword and its value.
    """
    header = header_view(text)
    for keyword in ("CTYPE1", "CTYPE2"):
        value = str(header.get(keyword, ""))
        code, distortion = value[5:8], value[9:12].strip()
        if code in IN_WAT:
            raise FrameError(
                f"{label}: {keyword} = {value!r} has its distortion in cards WAT of IRAF, and would be read as plain {IN_WAT[code]}; fit the "
                "WCS anew as SIP or TPV, such as with astropy.wcs.utils.fit_wcs_from_points or SCAMP."
            )
        if distortion not in KNOWN_DISTORTIONS and not (distortion in {"TPV", "TPD"} and "CQDIS1" in header):
            raise FrameError(
                f"{label}: {keyword} = {value!r} has the distortion {distortion!r}, which would be left out; fit the WCS anew as SIP or TPV, "
                f"or, if positions without it will do, set {keyword} = {value[:8]!r} with ds.ccd.with_header()."
            )


def _read(text: str, hdus: fits.HDUList | None, label: str) -> WCS | None:
    """Return the WCS of the header of a frame; None if there is none without a letter."""
    view = header_view(text)
    if "CTYPE1" not in view:
        return None
    if not any(key in view for key in TABLES):
        # wcslib refuses parameters of a distortion that was left out
        text = "\n".join(line for line in text.split("\n") if not OF_TABLES.match(line))
    header = header_from_text(text)
    # astropy would look for the table in the file, and a frame has none
    tables = [key for key in TABLES if key in header]
    if tables and hdus is None:
        removed = ", ".join(f"{key!r}: None" for key in tables)
        raise FrameError(
            f"the WCS of {label} has a table distortion ({tables[0]} = {header[tables[0]]!r}), and its table is in another HDU; leave it "
            f"out with ds.ccd.with_header({{{removed}}})."
        )
    from astropy.wcs import FITSFixedWarning, WcsError  # brings coordinates and tables along

    # Repairs of dates and of non-standard units are not about the pixels.
    with quiet(FITSFixedWarning, VerifyWarning):
        try:
            # made anew each time: one WCS object is not safe in several threads before astropy 8.0.2
            return _of_two_axes(header) if not tables else _with_tables(header, hdus)
        except (ValueError, KeyError, IndexError, AssertionError, WcsError) as error:
            reason = str(error).strip().splitlines()[-1].rstrip(".")
            cards = ", ".join(f"{key} = {header[key]!r}" for key in header if LINEAR.match(key))
            raise FrameError(
                f"the WCS of {label} cannot be read: {reason} ({cards}); mend or remove its cards with ds.ccd.with_header()."
            ) from error


def _with_tables(header: fits.Header, hdus: fits.HDUList | None) -> WCS:
    """Return the WCS of a header whose distortions are tables in a file."""
    from astropy.wcs import WCS

    return WCS(header, hdus, relax=True, naxis=None if header.get("WCSAXES", header.get("NAXIS", 2)) == 2 else 2)


def _of_two_axes(header: fits.Header) -> WCS:
    """Return the WCS of a header along the axes of the image."""
    from astropy.wcs import WCS

    try:
        wcs = WCS(header, relax=True)
    except ValueError:  # more axes and a distortion; if it is something else, it comes again
        wcs = None
    if wcs is not None and wcs.naxis == 2:
        return wcs
    further = [key for key in header if FURTHER_AXES.match(key)]
    if any(COUPLED_AXES.match(key) and header[key] for key in further):
        return WCS(header, relax=True, naxis=2)
    # Cards of further axes go first: astropy chooses between PV and SIP, of which some programs write both, only after it has
    # taken the axes that ``naxis`` asks for, which fails then.
    plane = header.copy()
    for key in further:
        plane.remove(key, ignore_missing=True, remove_all=True)
    plane["NAXIS"] = 2
    return WCS(plane, relax=True)


def _sliced(wcs: WCS, y: tuple[float, float], x: tuple[float, float]) -> WCS:
    """Return the WCS of pixels at ``first + step * i`` (0-based)."""
    # WCS.slice of astropy gives the same CRPIX for windows without a step, but takes a step for binning, which moves the
    # reference pixel, leaves a CD matrix unscaled, and knows no half pixels: the middle of a block of 2 x 2 is at 0.5
    new = wcs.deepcopy()
    steps = np.array([x[1], y[1]])
    firsts = np.array([x[0], y[0]])
    new.wcs.crpix = (wcs.wcs.crpix - 1 - firsts) / steps + 1
    if new.sip is not None:
        from astropy.wcs import Sip

        sip, (xstep, ystep) = wcs.sip, steps
        along_x, along_y = (
            [scaled_polynomial(matrix, steps, step) for matrix in pair]
            for pair, step in (((sip.a, sip.ap), xstep), ((sip.b, sip.bp), ystep))
        )
        crpix = (sip.crpix - 1 - firsts) / steps + 1
        new.sip = Sip(along_x[0], along_y[0], along_x[1], along_y[1], crpix)
    for name, axis in (("cpdis1", 0), ("det2im1", 0), ("cpdis2", 1), ("det2im2", 1)):
        old = getattr(wcs, name)
        if old is not None:
            setattr(new, name, _sliced_table(old, firsts, steps, axis))
    if np.any(steps != 1):
        # the columns of the matrix are about the axes of pixels
        if new.wcs.has_cd():
            new.wcs.cd = wcs.wcs.cd * steps
        else:
            new.wcs.pc = wcs.wcs.get_pc() * steps
    return new


def _sliced_table(table: Any, firsts: Array, steps: Array, axis: int) -> Any:
    """Return a distortion that is a table for pixels at ``first + step * i`` (x, y), by which positions move along an axis."""
    from astropy.wcs import DistortionLookupTable

    data = (np.asarray(table.data) / steps[axis]).astype(np.float32)
    crval = tuple((np.array(table.crval) - 1 - firsts) / steps + 1)
    return DistortionLookupTable(data, tuple(table.crpix), crval, tuple(np.array(table.cdelt) / steps))


def scaled_polynomial(coefficients: Array | None, steps: Array, step: float) -> Array | None:
    """Return the coefficients of a SIP polynomial for pixels that are ``steps`` (x, y) of the old ones; signs are flips.

    With u = sx u', the shift A(u, v) of old pixels is one of A(sx u', sy v') / sx new ones, so that
    A'_pq = A_pq sx^(p-1) sy^q, and B'_pq = B_pq sx^p sy^(q-1). The inverse polynomials AP and BP scale alike.

    Parameters
    ----------
    coefficients
        A_pq at [p, q]; None if there is no such polynomial.
    steps
        Old pixels in a new one, along x and y.
    step
        That of the axis along which the polynomial shifts.
    """
    if coefficients is None:
        return None
    powers = np.arange(len(coefficients))
    scaled: Array = coefficients * steps[0] ** powers[:, None] * steps[1] ** powers / step
    return scaled
