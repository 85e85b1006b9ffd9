"""Units of pixels: from the spellings of headers and attributes to astropy's units and back.

Counts (ct), DN and adu are three units that do not convert into each other: which one a header names says what its gain is
per, and a silent conversion would hide a gain that was applied twice or never.
"""

from __future__ import annotations

import re
from functools import lru_cache

from astropy import units as u

from lazyccd.errors import UnitError, quiet

ALIASES: dict[str, u.UnitBase] = {
    "adu": u.adu,
    "adus": u.adu,
    "dn": u.DN,
    "count": u.ct,
    "counts": u.ct,
    "ct": u.ct,
    "electron": u.electron,
    "electrons": u.electron,
    "e-": u.electron,
    "e": u.electron,
    "adu/s": u.adu / u.s,
    "dn/s": u.DN / u.s,
    "count/s": u.ct / u.s,
    "counts/s": u.ct / u.s,
    "e-/s": u.electron / u.s,
    "electron/s": u.electron / u.s,
    "electrons/s": u.electron / u.s,
    "unitless": u.dimensionless_unscaled,
    "": u.dimensionless_unscaled,
}
"""Spellings of units in lower case that astropy does not read, or reads otherwise."""

LONGEST, MOST_POWERS = 200, 12
"""Characters and powers in the name of a unit."""

LARGE_NUMBER = re.compile(r"(\*\*|\^)[\s(+-]*\d{4}|\d{40}|\)\s*(\*\*|\^)[^)]*\)\s*(\*\*|\^)")
"""Powers beyond 999, numbers beyond 40 digits, and powers of powers of powers."""


def parse_unit(text: object, where: str) -> u.UnitBase:
    """Return the unit that an attribute or a BUNIT card names.

    Parameters
    ----------
    text
        A unit, its name in any usual spelling, or None for none.
    where
        How messages name the place.

    Raises
    ------
    UnitError
        Raised if the name is not understood.

    Examples
    --------
    >>> parse_unit("ADU", "a.fits"), parse_unit("e-/s", "a.fits")
    (Unit("adu"), Unit("electron / s"))
    """
    if text is None:
        return u.dimensionless_unscaled
    if isinstance(text, u.UnitBase):
        return text
    unit = _parse_text(str(text).strip())
    if unit is None:
        raise UnitError(f"{where}: unit {str(text)!r} is not known to astropy; give unit=, such as unit='adu'.")
    return unit


@lru_cache(maxsize=256)  # attributes are read anew at every operation, and a night has a handful of units
def _parse_text(text: str) -> u.UnitBase | None:
    """Return the unit of a name; None if astropy does not know it."""
    if text.lower() in ALIASES:
        return ALIASES[text.lower()]
    # astropy would work out 10**999999999 to its last digit
    if len(text) > LONGEST or LARGE_NUMBER.search(text) or text.count("**") + text.count("^") > MOST_POWERS:
        return None
    # deprecated spellings are still what the file says
    with quiet(u.UnitsWarning):
        # as written first: the case of prefixes matters, mJy and MJy
        for spelling in (text, text.lower()):
            try:
                return u.Unit(spelling)
            except ValueError:
                continue
    return None


@lru_cache(maxsize=256)
def unit_to_text(unit: u.UnitBase) -> str:
    """Return the name of a unit, as FITS writes it if FITS can.

    Examples
    --------
    >>> unit_to_text(u.electron**2), unit_to_text(u.dimensionless_unscaled)
    ('electron2', '')
    """
    try:
        return str(unit.to_string("fits"))
    except ValueError:
        if unit.scale == 1:
            return str(unit.to_string())
        bases = u.CompositeUnit(1.0, unit.bases, unit.powers)
        return f"{unit.scale!r} {bases.to_string(fraction=False)}"  # astropy would round the scale


def _way_out(unit: u.UnitBase, target: u.UnitBase) -> str:
    """Return what to do about two units that do not match."""
    if u.dimensionless_unscaled in (unit, target):
        # most often a header without BUNIT
        return "give the one without unit its own (BUNIT in its header, or ds.ccd.with_unit())"
    if {u.adu, u.electron} == {unit, target}:
        return "apply gain_correct to both or to neither, or set the right unit by ds.ccd.with_unit()"
    return "bring both to one unit first, or set the right unit (BUNIT in the header, or ds.ccd.with_unit())"


def conversion_factor(unit: u.UnitBase, target: u.UnitBase, what: str, whose: str | None = None) -> float:
    """Return the factor that converts numbers from one unit to another; ``what`` has the first, and ``whose`` or the frame the other.

    Raises
    ------
    UnitError
        Raised if the units are not equivalent; ct, DN and adu are three different units.
    """
    # the usual case, and exactly 1: pixels are then not multiplied at all
    if unit == target:
        return 1.0
    try:
        return float(unit.to(target))
    except u.UnitConversionError:
        raise UnitError(
            f"{what} unit '{unit}' does not match the {'frame unit' if whose is None else 'unit'} '{target}'"
            f"{'' if whose is None else f' of {whose}'}; {_way_out(unit, target)}."
        ) from None
