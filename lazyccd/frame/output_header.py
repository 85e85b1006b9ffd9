"""Headers of products: true for the pixels that are written."""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from typing import TYPE_CHECKING, TypeGuard

from astropy.io import fits

from lazyccd.errors import SectionError
from lazyccd.frame.detector_geometry import Placement, placement
from lazyccd.frame.header import REMOVED, NewCard, append_cards, cards_of, header_from_text, parsable
from lazyccd.frame.wcs import lattice, wcs_from_header
from lazyccd.kernels.block import Array
from lazyccd.sections import YX, Region, Section

if TYPE_CHECKING:
    from astropy.wcs import WCS

LEVELS = ("SATURATE", "MAXLIN")
"""Keywords of levels in the units of the data."""

NOISES = ("RDNOISE", "READNOIS", "RON")
"""Keywords of the read noise in electrons."""


GAINS = ("GAIN", "EGAIN")
"""Keywords of electrons per unit of the data; the first is always set."""


RANGES = ("DATAMAX", "DATAMIN")
"""Keywords of the range of the pixels of the file that was read, which no step keeps."""


def product_header(text: str, y: Array, x: Array, units: str) -> fits.Header:
    """Return the header of a product.

    Parameters
    ----------
    text
        Header of the image that was read.
    y, x
        Original positions of the product's rows and columns.
    units
        Units of the product.

    Returns
    -------
    fits.Header
        If the product is a part of the image that was read: CRPIX and the WCS matrix, LTV and LTM, CCDSEC and DETSEC follow;
        BIASSEC, TRIMSEC and AMPSEC are gone, DATASEC is the whole product. BUNIT is always set. Cards that cannot be parsed have
        lost their keyword and keep their text.

    Raises
    ------
    FrameError
        Raised if the positions are not evenly spaced, or the WCS cannot follow.
    """
    header = header_from_text(parsable(current_names(text)))
    (y0, ystep), (x0, xstep) = lattice(y, "y"), lattice(x, "x")
    if (y0, ystep, x0, xstep, len(y), len(x)) != (0, 1, 0, 1, header.get("NAXIS2"), header.get("NAXIS1")):
        _follow(header, text, y, x)
    if units:
        header["BUNIT"] = (units, "units of the pixels")
    return header


def signed(text: str) -> str:
    """Return a header text that names this software as what made the file, in the keyword that archives have for it.

    What another program wrote there, such as that of the camera, goes into HISTORY.

    Examples
    --------
    >>> import re
    >>> text = re.sub("lazyccd [^ ']*", "lazyccd VERSION", signed("CREATOR = 'camera 1.2'"))
    >>> [line.rstrip() for line in text.split(chr(10))]
    ["CREATOR = 'lazyccd VERSION'      / software that made this file", 'HISTORY CREATOR was camera 1.2']
    """
    ours = f"lazyccd {_version()}"
    there = next(
        (fits.Card.fromstring(lines[0]).value for key, lines in cards_of(parsable(text)) if key == "CREATOR"), None
    )
    cards: list[NewCard] = [("CREATOR", ours, "software that made this file")]
    if there and not str(there).startswith("lazyccd "):
        cards.append(("HISTORY", f"CREATOR was {there}", ""))
    return append_cards(text, cards)


@cache
def _version() -> str:
    """Return the version of lazyccd."""
    return importlib.metadata.version("lazyccd")


def current_names(text: str) -> str:
    r"""Return a header text with keywords as they are called since FITS 3.0; readers complain of other ones.

    Examples
    --------
    >>> current_names("OBJECT  = 'M 31'\nRADECSYS= 'FK5'")
    "OBJECT  = 'M 31'\nRADESYS = 'FK5'"
    """
    if re.search("^RADESYS ", text, re.MULTILINE):
        return text
    return re.sub("^RADECSYS=", "RADESYS =", text, flags=re.MULTILINE)


def _follow(header: fits.Header, text: str, y: Array, x: Array) -> None:
    """Make the cards about places true for a part of the image."""
    (y0, ystep), (x0, xstep) = lattice(y, "y"), lattice(x, "x")
    wcs = wcs_from_header(text, y, x)
    if wcs is not None:
        for axis, value in enumerate(wcs.wcs.crpix, 1):
            header[f"CRPIX{axis}"] = float(value)
        if (ystep, xstep) != (1, 1):
            _replace_matrix(header, wcs)
            _replace_polynomials(header, wcs, (abs(xstep), abs(ystep)))
        if "AMDX1" in header:  # plates of the Digitized Sky Survey count pixels from the corner of the plate
            for axis, first in ((1, x0), (2, y0)):
                header[f"CNPIX{axis}"] = header.get(f"CNPIX{axis}", 0) + first
    for key in ("CCDSEC", "DETSEC"):
        if key in header or (key == "CCDSEC" and "AMPSEC" in header):
            _move_section(header, key, (y0, ystep, len(y)), (x0, xstep, len(x)))
    # sections of strips that are not in the product, and of pixels counted another way
    for key in ("BIASSEC", "TRIMSEC", "AMPSEC"):
        header.remove(key, ignore_missing=True)
    # physical = (logical - LTV) / LTM, and the image that was read may have had a shift itself
    for axis, (first, step) in enumerate(((x0, xstep), (y0, ystep)), 1):
        shift, scale = float(header.get(f"LTV{axis}", 0.0)), float(header.get(f"LTM{axis}_{axis}", 1.0))
        header[f"LTV{axis}"] = (shift - 1 - first) / step + 1
        header[f"LTM{axis}_{axis}"] = scale / step
    header["DATASEC"] = Region(0, len(y), 0, len(x)).to_fits()


def _replace_matrix(header: fits.Header, wcs: WCS) -> None:
    """Write the matrix of a scaled WCS, in the form in which the header has it; a rotation angle becomes a matrix."""
    name, matrix = ("CD", wcs.wcs.cd) if wcs.wcs.has_cd() else ("PC", wcs.wcs.get_pc())
    for i in (1, 2):
        for j in (1, 2):
            header[f"{name}{i}_{j}"] = float(matrix[i - 1, j - 1])
        # the matrix holds the rotation too
        header.remove(f"CROTA{i}", ignore_missing=True)


def _replace_polynomials(header: fits.Header, wcs: WCS, sizes: tuple[float, float]) -> None:
    """Write the SIP polynomials of a scaled WCS, and how large their shifts are."""
    if wcs.sip is None:
        return
    polynomials = {"A": wcs.sip.a, "B": wcs.sip.b, "AP": wcs.sip.ap, "BP": wcs.sip.bp}
    for key in list(header):
        found = re.fullmatch(r"(AP?|BP?)_(\d)_(\d)", key)
        matrix = polynomials[found[1]] if found else None
        if found and matrix is not None and max(int(found[2]), int(found[3])) < len(matrix):
            header[key] = float(matrix[int(found[2]), int(found[3])])
    for name, size in zip("AB", sizes, strict=True):
        if isinstance(header.get(f"{name}_DMAX"), int | float):
            header[f"{name}_DMAX"] = header[f"{name}_DMAX"] / size


def _move_section(
    header: fits.Header, key: str, rows: tuple[float, float, int], columns: tuple[float, float, int]
) -> None:
    """Make a section of the detector that of the product; take it out where that cannot be said."""
    try:
        placed = placement(header, key)
    except SectionError:
        placed = None
    moved = None if placed is None else (_moved(placed, 0, *rows), _moved(placed, 1, *columns))
    if moved is None or None in moved:
        header.remove(key, ignore_missing=True)
        return
    (y0, y1, ystep), (x0, x1, xstep) = moved  # type: ignore[misc]
    header[key] = Section(Region(y0, y1, x0, x1), YX(ystep, xstep)).to_fits()


def _moved(placed: Placement, axis: int, first: float, step: float, length: int) -> tuple[int, int, int] | None:
    """Return start, stop and direction on the detector of the pixels ``first + step * i`` along an axis."""
    # a section can say neither every second pixel nor half ones
    if abs(step) != 1 or first % 1:
        return None
    begin, end = placed.data[2 * axis : 2 * axis + 2]
    start, stop = placed.target[2 * axis : 2 * axis + 2]
    low = int(min(first, first + step * (length - 1)))
    size = placed.binning[axis]
    if placed.step[axis] > 0:
        start, stop = start + (low - begin) * size, start + (low - begin + length) * size
    else:
        start, stop = start + (end - low - length) * size, start + (end - low) * size
    return None if start < 0 else (start, stop, placed.step[axis] * int(step))


def after_pedestal(text: str, pedestal: float) -> str:
    """Return a header text that is true after a pedestal was subtracted: of the overscan, or of a master bias.

    SATURATE and MAXLIN are lower by it, and what they were goes into HISTORY; DATAMAX and DATAMIN go.

    Examples
    --------
    >>> print(after_pedestal("SATURATE=                60000", 1000.0).split(chr(10))[0][:30])
    SATURATE=              59000.0
    """
    header = header_from_text(text)
    cards = _without_ranges(header)
    for key in LEVELS:
        # A level of 0 means that nobody knows it.
        if is_number(header.get(key)) and header[key] > 0:
            cards.append((key, float(header[key]) - pedestal, "without the pedestal"))
            cards.append(("HISTORY", f"{key} was {header[key]} before a pedestal of {pedestal:g} was subtracted", ""))
    return append_cards(text, cards)


def after_normalization(text: str) -> str:
    """Return a header text that is true after pixels were divided by their level, as those of a flat are.

    Gain, read noise and saturation do not go with numbers about 1: they go, and HISTORY says what they were.

    Examples
    --------
    >>> print(after_normalization("GAIN    =                  1.5"))
    HISTORY GAIN was 1.5 before the pixels were divided by their level
    """
    header = header_from_text(text)
    cards = _without_ranges(header)
    for key in (*GAINS, *NOISES, *LEVELS):
        if key in header:
            cards.append((key, REMOVED, ""))
            cards.append(("HISTORY", f"{key} was {header[key]} before the pixels were divided by their level", ""))
    return append_cards(text, cards)


def _without_ranges(header: fits.Header) -> list[NewCard]:
    """Return the cards that take the range of the raw pixels out of a header."""
    return [(key, REMOVED, "") for key in RANGES if key in header]


def is_number(value: object) -> TypeGuard[float]:
    """Return whether the value of a card is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def after_gain(text: str, gain: float, readnoise: float | None = None) -> str:
    """Return a header text that is true after the data were multiplied by the gain.

    GAIN (and EGAIN where it is) becomes 1, levels are scaled, DATAMAX and DATAMIN go, the read noise is the one that was used, in electrons; what was
    there before goes into HISTORY.

    Examples
    --------
    >>> print(after_gain("SATURATE=                60000", 1.5).split(chr(10))[0][:30])
    SATURATE=              90000.0
    """
    header = header_from_text(text)
    cards = _without_ranges(header)
    for key in LEVELS:
        if is_number(header.get(key)):
            cards.append((key, float(header[key]) * gain, "[electron]"))
            cards.append(("HISTORY", f"{key} was {header[key]} adu before the gain of {gain:g} electron/adu", ""))
    if readnoise is not None:
        key = next((name for name in NOISES if name in header), NOISES[0])
        if key in header and header[key] != readnoise:
            cards.append(("HISTORY", f"{key} was {header[key]}", ""))
        cards.append((key, readnoise, "[electron] read noise"))
    for key in GAINS:
        if key in header:
            cards.append(("HISTORY", f"{key} was {header[key]}", ""))
        if key in header or key == GAINS[0]:
            cards.append((key, 1.0, "[electron/electron] the gain was applied"))
    return append_cards(text, cards)
