"""Values of header cards, camera tables and options, read with the distrust that headers have earned.

Every reader returns the value, None where the text says that nobody knows, or raises `UnusableError` with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import cast

from astropy import units as u

from lazyccd.errors import SectionError
from lazyccd.frame.units import ALIASES
from lazyccd.sections import Region, parse_section

NOTHING = frozenset({"", "UNKNOWN", "N/A", "NA", "NONE", "NAN", "NULL", "UNSPECIFIED", "UNDEFINED"})
"""Words that mean that there is no value."""

UNITS = {
    "gain": ("electron/adu", {"electron/adu", "e-/adu", "e/adu", "electrons/adu"}),
    "readnoise": ("electron", {"electron", "electrons", "e-", "e"}),
    "saturate": ("adu", {"adu", "count", "counts", "dn"}),
    "exposure": ("s", {"s", "sec", "second", "seconds"}),
}
"""For each number with a unit: the unit that is meant, and its spellings in lower case."""

_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eEdD][+-]?\d+)?")
_BETWEEN = re.compile(r"\s*;\s*|\s*,\s+|\s+(?=[+-]?\d)")
_BETWEEN_WITH_POINTS = re.compile(r"\s*[,;]\s*|\s+(?=[+-]?\.?\d)")
_EPOCH = datetime(1858, 11, 17)
_DAY_AND_CLOCK = re.compile(r"([^T,\s]+)\s*(?:[T,]\s*|\s)(.*)", re.DOTALL)
_NO_CLOCK = cast("re.Match[str]", re.match("()()", ""))
_MILLISECONDS = re.compile(r"(?<![a-z])(?:m(?:illi[\s-]?)?s(?:ec(?:ond)?s?)?)(?![a-z])", re.IGNORECASE)
_YEAR_LAST = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\b")
_OFFSET = re.compile(r"(.*?)\s*(?:Z|UTC?|([+-])(\d\d):?(\d\d))?\s*", re.IGNORECASE | re.DOTALL)

FIRST_MJD = 40587.0
"""1970: a clock that was never set writes 0, or a date long before there were CCDs."""


class UnusableError(ValueError):
    """A value is there and cannot be used; the message says why."""


def as_text(value: object) -> str:
    """Return a card's value as text, without the blanks around it."""
    return str(value).strip()


def is_nothing(value: object) -> bool:
    """Return whether a value means that nobody knows."""
    return value is None or as_text(value).upper() in NOTHING


def read_text(value: object) -> str | None:
    """Return text; None for 'UNKNOWN' and the like."""
    return None if is_nothing(value) else " ".join(as_text(value).split())


def read_number(value: object, name: str = "") -> float | None:
    """Return a number; ``name`` says which unit may stand behind it.

    Examples
    --------
    >>> read_number("1,45"), read_number("11.4 electron", "readnoise"), read_number("UNKNOWN")
    (1.45, 11.4, None)
    """
    if is_nothing(value):
        return None
    # T and F are integers to Python, but no camera means a gain of 1 by T
    if isinstance(value, bool):
        raise UnusableError("is not a number")
    if isinstance(value, (int, float)):
        return _finite(float(value))
    items = _items(as_text(value))
    if len(items) > 1 and all(is_nothing(item) or _NUMBER.fullmatch(item) for item in items):
        raise UnusableError(f"lists {len(items)} values, one per amplifier, and one image has one")
    text = items[0] if len(items) == 1 else as_text(value)
    match = _NUMBER.match(text)
    if match is None:
        raise UnusableError("is not a number")
    unit = text[match.end() :].replace(" ", "").lower()
    meant, spellings = UNITS.get(name, ("", set()))
    if unit and unit not in spellings:
        raise UnusableError(f"is in {unit!r} and must be in {meant}" if meant else "is not a number")
    return _finite(float(match[0].replace(",", ".").lower().replace("d", "e")))


def find_number(value: object) -> float | None:
    """Return a number if the value is one, also in text, as `read_number` reads it; None if it is anything else.

    Examples
    --------
    >>> find_number("1,45"), find_number("mean"), find_number(True)
    (1.45, None, None)
    """
    try:
        return read_number(value)
    except UnusableError:
        return None


def read_numbers(value: object, name: str = "") -> list[float | None]:
    """Return the numbers that a text lists, between commas, semicolons or blanks.

    A comma is decimal in a text without a point and without brackets.

    Examples
    --------
    >>> read_numbers("2.01,1.99"), read_numbers("1,5 1,6"), read_numbers("1,5; UNKNOWN"), read_numbers("1,5")
    ([2.01, 1.99], [1.5, 1.6], [1.5, None], [1.5])
    >>> read_numbers("[3,4]")
    [3.0, 4.0]
    """
    return [read_number(item, name) for item in (_items(value) if isinstance(value, str) else [value])]


def _items(text: str) -> list[str]:
    """Return the texts that a list holds; a text that is no list is one."""
    text = text.strip()
    in_brackets = text.startswith("[") and text.endswith("]")
    inner = text[1:-1].strip() if in_brackets else text
    items = (_BETWEEN_WITH_POINTS if in_brackets or "." in inner else _BETWEEN).split(inner)
    return items[:-1] if len(items) > 1 and not items[-1] else items


def read_positive(value: object, name: str = "") -> float | None:
    """Return a number above 0; anything else is as good as missing, and said so."""
    number = read_number(value, name)
    if number is not None and number <= 0:
        raise UnusableError("is not above 0")
    return number


def read_exposure(value: object, comment: str = "") -> float | None:
    """Return an exposure time in seconds, 0 or more; milliseconds where the value or the card's comment says so.

    Examples
    --------
    >>> read_exposure(5000, "[ms] exposure time"), read_exposure("250 ms"), read_exposure(30.0, "in seconds")
    (5.0, 0.25, 30.0)
    """
    text = as_text(value)
    number = read_number(_MILLISECONDS.sub("", text) if _MILLISECONDS.search(text) else value, "exposure")
    if number is not None and number < 0:
        raise UnusableError("is below 0")
    is_milli = _MILLISECONDS.search(text) or _MILLISECONDS.search(comment)
    return number / 1000 if number is not None and is_milli else number


_SECTION = re.compile(r"\[-?\d+:-?\d+,-?\d+:-?\d+\]")


def read_region(value: object, shape: tuple[int, int]) -> str | None:
    """Return a section inside the image, in its plainest form; an empty one such as [0:0,0:0] is unusable.

    Some cameras leave the brackets out, or write round ones.

    Examples
    --------
    >>> read_region("[201:232, 1:100]", (100, 232)), read_region("(201:232,1:100)", (100, 232))
    ('[201:232,1:100]', '[201:232,1:100]')
    """
    if is_nothing(value):
        return None
    text = f"[{as_text(value).strip('[]() ')}]"
    try:
        section = parse_section(text, shape)
    except SectionError:
        rows, columns = shape
        form = "" if _SECTION.fullmatch(text.replace(" ", "")) else "; write it as [x1:x2,y1:y2]"
        raise UnusableError(f"is no section inside the image of {columns} x {rows} pixels{form}") from None
    if abs(section.step.y) != 1 or abs(section.step.x) != 1:
        raise UnusableError("has a step")
    return section.region.to_fits()


def divide_section(text: str, shape: tuple[int, int], binning: Sequence[int]) -> str | None:
    """Return a section of unbinned pixels in those of a binned image; None if it is none.

    Parameters
    ----------
    text
        The section.
    shape
        Of the binned image.
    binning
        Factors along x and y.

    Examples
    --------
    >>> divide_section("[2049:2112,1:1024]", (512, 1056), (2, 2))
    '[1025:1056,1:512]'
    """
    x, y = binning
    # What is left over of the last binned pixel was not read.
    unbinned = (shape[0] * y + y - 1, shape[1] * x + x - 1)
    try:
        section = parse_section(as_text(text), unbinned)
    except SectionError:
        return None
    whole, r = Region.full(shape), section.region
    found = Region(-(-r.y0 // y), min(r.y1 // y, whole.y1), -(-r.x0 // x), min(r.x1 // x, whole.x1))
    return found.to_fits() if found.y1 > found.y0 and found.x1 > found.x0 else None


def read_binning(value: object) -> str | None:
    """Return binning as '2x2' (x first), from '2 2', '2,2', '2x2' or 2."""
    if is_nothing(value):
        return None
    numbers = re.findall(r"\d+(?:\.\d*)?", as_text(value))
    if not numbers or len(numbers) > 2:
        raise UnusableError("is not a binning")
    factors = [int(float(number)) for number in numbers]
    return f"{factors[0]}x{factors[-1]}"


def read_origin(value: object) -> str | None:
    """Return where a window begins, 'x,y', from a section or from two numbers."""
    if is_nothing(value):
        return None
    text = as_text(value)
    section = re.match(r"\[\s*(\d+)\s*:\s*\d+\s*,\s*(\d+)\s*:\s*\d+\s*\]", text)
    numbers = list(section.groups()) if section else re.findall(r"[+-]?\d+(?:\.\d*)?", text)
    if len(numbers) != 2:
        raise UnusableError("is not the origin of a window")
    return ",".join(str(int(float(number))) for number in numbers)


def read_unit(value: object) -> str | None:
    """Return a unit of pixel values by its usual names; ct, DN and adu stay what they are."""
    if is_nothing(value):
        return None
    unit = ALIASES.get(as_text(value).lower().replace(" ", ""), u.dimensionless_unscaled)
    if unit == u.dimensionless_unscaled:  # a camera counts something; "unitless" is what software writes
        raise UnusableError("is no known unit")
    return str(unit)


# astropy.time gives the same bits for ISO dates, at 17 times the time for each and 1.2 s for its import
def read_time(value: object) -> float | None:
    """Return a time as MJD, from an ISO date and time, 'date, time of day', dd/mm/yy of the last century, MJD or JD.

    Between date and time of day stands a T, a blank or a comma; behind them may stand Z, UT, UTC or an offset from UTC.

    Raises
    ------
    UnusableError
        Raised if there is no time of day, the calendar has no such day, or the year stands last: whether such a date begins
        with the day or with the month differs from program to program.

    Examples
    --------
    >>> read_time("2018-08-01, 19:23:13.5"), read_time("2018-08-01 21:23:13.5+02:00"), read_time(2458332.25)
    (58331.80779513889, 58331.80779513889, 58331.75)
    """
    if is_nothing(value):
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        days = _finite(value - 2400000.5 if value > 2400000.5 else float(value))
        if days < FIRST_MJD:
            raise UnusableError("is before the first CCD")
        return days
    text = as_text(value)
    if _YEAR_LAST.match(text):
        raise UnusableError("may begin with the day or with the month; dates are read as YYYY-MM-DD")
    day, clock = (_DAY_AND_CLOCK.fullmatch(text) or _NO_CLOCK).groups()
    if not (clock or "").strip():
        raise UnusableError("has no time of day")
    try:
        moment = datetime.combine(_day(day.strip()), time())
        return (moment - _EPOCH).total_seconds() / 86400 + _seconds(clock) / 86400
    except ValueError:
        raise UnusableError("is not a date and time") from None


def time_to_text(mjd: float) -> str:
    """Return an MJD as an ISO date and time, to the second."""
    return (_EPOCH + timedelta(days=mjd, microseconds=500_000)).isoformat(sep=" ")[:19]


def trim_strip(data: Region, shape: tuple[int, int]) -> Region | None:
    """Return the larger strip beside the data along x or y, less the 3 pixels next to the data.

    Examples
    --------
    >>> trim_strip(Region(0, 100, 0, 200), (100, 232))
    Region(y0=0, y1=100, x0=203, x1=232)
    """
    # the first columns beside the data still hold charge that trailed out of them
    strips = [
        Region(data.y0, data.y1, 0, data.x0 - 3),
        Region(data.y0, data.y1, data.x1 + 3, shape[1]),
        Region(0, data.y0 - 3, data.x0, data.x1),
        Region(data.y1 + 3, shape[0], data.x0, data.x1),
    ]
    best = max(strips, key=lambda strip: max(0, min(strip.shape)))
    return best if min(best.shape) > 0 else None


def data_beside(overscan: Region, shape: tuple[int, int]) -> Region | None:
    """Return what an overscan along one edge of an image leaves; None if it lies elsewhere.

    A few pixels between the overscan and the edge go with it.

    Examples
    --------
    >>> data_beside(Region(0, 100, 200, 232), (100, 232)), data_beside(Region(0, 100, 90, 110), (100, 232))
    (Region(y0=0, y1=100, x0=0, x1=200), None)
    """
    rows, columns = shape
    y0, y1, x0, x1 = overscan
    if y1 - y0 >= 0.9 * rows:
        first, last, length = x0, x1, columns
    elif x1 - x0 >= 0.9 * columns:
        first, last, length = y0, y1, rows
    else:
        return None
    if min(first, length - last) > _EDGE or last - first >= length / 2:
        return None
    start, stop = (last, length) if first < length - last else (0, first)
    return Region(0, rows, start, stop) if y1 - y0 >= 0.9 * rows else Region(start, stop, 0, columns)


_EDGE = 4
"""Pixels that may lie between an overscan and the edge of its image."""


def _finite(number: float) -> float:
    """Refuse infinities and NaN."""
    if not math.isfinite(number):
        raise UnusableError("is not finite")
    return number


def _day(text: str) -> date:
    """Return a date from 2018-08-01, or 01/08/98, which the FITS standard defines for the years 1900 to 1999."""
    if "/" not in text:
        return date.fromisoformat(text.replace(".", "-"))
    parts = [int(part) for part in text.split("/")]
    if parts[0] > 99:
        return date(*parts)
    return date(parts[2] + 1900, parts[1], parts[0])


def _seconds(text: str) -> float:
    """Return the seconds of a time of day in UTC, from 19:23:13.5 or from seconds alone."""
    clock, sign, hours, minutes = cast("re.Match[str]", _OFFSET.fullmatch(text.strip())).groups()
    parts = [float(part) for part in clock.split(":")]
    if len(parts) > 3 or (len(parts) > 1 and not (0 <= parts[0] < 24 and all(0 <= part < 61 for part in parts[1:]))):
        raise ValueError(text)
    if len(parts) == 1 and not 0 <= parts[0] <= 86400:
        raise ValueError(text)
    away = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    found = (
        parts[0] if len(parts) == 1 else sum(part * scale for part, scale in zip(parts, (3600, 60, 1), strict=False))
    )
    return found - away
