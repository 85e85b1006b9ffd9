"""Which steps a header says were done on the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lazyccd.frame.detector_geometry import NOTHING

STEPS = {
    "overscan": ("SUBOSCAN", "OVERSCAN"),
    "trim": ("TRIMIM", "TRIM"),
    "bias": ("SUBBIAS", "ZEROCOR"),
    "dark": ("SUBDARK", "DARKCOR"),
    "flat": ("FLATCOR",),
    "gain": ("GAINCOR",),
}
"""For each step the keywords that say that it was done: lazyccd's and ccdproc's, then IRAF's."""

IRAF = frozenset({"OVERSCAN", "TRIM", "ZEROCOR", "DARKCOR", "FLATCOR", "CCDPROC"})
"""Stamps of IRAF are sentences; other values, such as OVERSCAN = 32 or F, are something else."""


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


def is_stamp(keyword: str, value: Any) -> bool:
    """Return whether a keyword has a value that means that something was done; None where it is not there."""
    if keyword not in IRAF:
        return value is not None and value is not False
    if not isinstance(value, str):
        return value is True
    # A stamp has words, "Jul 13 12:40 Zero level correction image is Zero"; ccdproc's names its arguments.
    return len(value.strip()) > 5 and value.strip().upper() not in NOTHING
