"""Which steps a header says were done on the pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lazyccd.frame.header_values import NOTHING

STEPS = {
    "overscan": ("SUBOSCAN", "OVERSCAN"),
    "trim": ("TRIMIM", "TRIM"),
    "bias": ("SUBBIAS", "ZEROCOR"),
    "dark": ("SUBDARK", "DARKCOR"),
    "flat": ("FLATCOR",),
    "gain": ("GAINCOR",),
}
"""For each step the keywords that say that it was done: lazyccd's and ccdproc's, then IRAF's."""

SHARED = frozenset({"OVERSCAN", "TRIM", "ZEROCOR", "DARKCOR", "FLATCOR", "CCDPROC"})
"""Stamps of IRAF, whose names other cameras use for sections, numbers of columns and switches of what is to be done."""

_DONE = frozenset({"T", "Y", "YES", "TRUE", "DONE", "COMPLETE", "COMPLETED", "APPLIED", "1", "OK"})
_NOT_DONE = NOTHING | {
    "0",
    "F",
    "N",
    "NO",
    "FALSE",
    "OFF",
    "OMIT",
    "OMITTED",
    "SKIP",
    "SKIPPED",
    "PERFORM",
    "NOT DONE",
    "TODO",
}
_SECTION = re.compile(r"[\[\]()\d\s:,;.*+-]+")
_DATE = re.compile(
    r"\d{4}-\d\d|\d{1,2}/\d{1,2}/\d\d|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\s+\d", re.IGNORECASE
)
_SENTENCE = re.compile(
    r"\b(?:image|section) is\b|(?<!not )\b(?:corrected|subtracted|trimmed|divided|applied)\b", re.IGNORECASE
)
_OPERATIONS = ("SUBTRACT_", "TRIM_IMAGE", "FLAT_CORRECT", "GAIN_CORRECT", "CCD_PROCESS")
_FILE = re.compile(r"\S+\.(?:fits?|fts|imh)\b", re.IGNORECASE)


def keywords_of(*steps: str) -> tuple[str, ...]:
    """Return the keywords that say that one of some steps was done."""
    return tuple(keyword for step in steps for keyword in STEPS[step])


def stamped(header: Mapping[str, Any], *steps: str) -> list[str]:
    """Return the keywords of a header that say that one of some steps was done.

    Examples
    --------
    >>> stamped({"OVERSCAN": 32, "ZEROCOR": "Jul 13 12:40 Zero level correction image is Zero"}, "overscan", "bias")
    ['ZEROCOR']
    """
    return [keyword for keyword in keywords_of(*steps) if is_stamp(keyword, header.get(keyword))]


def is_stamp(keyword: str, value: object) -> bool:
    """Return whether a keyword has a value that means that something was done; None where it is not there.

    A keyword that only ccdproc and lazyccd write counts whatever its text is. One that others use too counts if it is true, a
    word such as 'yes' or 'done', a sentence with a date, the name of a file, or ccdproc's list of arguments: not if it is a
    section, a number, or says what is to be done.

    Examples
    --------
    >>> is_stamp("OVERSCAN", "[57 64 1 64]"), is_stamp("FLATCOR", "PERFORM"), is_stamp("FLATCOR", "flat_R.fits")
    (False, False, True)
    """
    if value is None or isinstance(value, bool):
        return value is True
    if not isinstance(value, str):
        # FLATCOR = 1 switches it on; OVERSCAN = 1 may be a number of columns
        return value == 1 and keyword not in {"OVERSCAN", "TRIM"} if keyword in SHARED else value != 0
    text = value.strip().upper()
    if text in _NOT_DONE:
        return False
    if keyword not in SHARED or (text in _DONE and not (text == "1" and keyword in {"OVERSCAN", "TRIM"})):
        return True
    if _SECTION.fullmatch(text) and not _DATE.search(text):
        return False
    return (
        any(pattern.search(text) for pattern in (_DATE, _FILE, _SENTENCE))
        or "CCD=<" in text
        or text.startswith(_OPERATIONS)
    )
