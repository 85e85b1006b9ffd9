"""Which steps a header says were done on the pixels, and a warning where one is done a second time.

Nothing in the pixels shows that a bias was subtracted twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from astropy import units as u
from astropy.io import fits

from lazyccd.errors import RepeatedStepWarning, warn
from lazyccd.frame.core import header_text
from lazyccd.frame.header_values import NOTHING
from lazyccd.frame.keyword import Keyword, keyword_name
from lazyccd.frame.kinds import is_dataset, is_tree
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.tree import frames_of

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


STEP_OF = {
    "subtract_overscan": "overscan",
    "trim_image": "trim",
    "subtract_bias": "bias",
    "subtract_dark": "dark",
    "flat_correct": "flat",
    "gain_correct": "gain",
}
"""The step of each operation that is to be done once."""


def warn_if_repeated(operation: str, image: Any, arguments: Mapping[str, Any]) -> None:
    """Warn, at the caller, if a header says that the step of an operation was done.

    A second overscan along the other axis, and a second trim to another section, are no repetition.

    Parameters
    ----------
    operation
        Its name.
    image
        A frame, a tree, of which one warning is enough, or a CCDData.
    arguments
        The other arguments.
    """
    step = STEP_OF.get(operation)
    if step is None:
        return
    for frame in frames_of(image).values() if is_tree(image) else (image,):
        stamps = _stamps(frame, step)
        done = [
            key for key, value in stamps.items() if is_stamp(key, value) and _is_same(step, value, arguments, frame)
        ]
        if done:
            shown = f"{done[0]} = {stamps[done[0]]!r}"
            warn(
                f"{operation}() is done again: the header has {shown}; start from the frame before it, or remove the card by "
                f"with_header({{{done[0]!r}: None}}) if it is not true.",
                RepeatedStepWarning,
            )
            return


def warn_if_in_electrons(data: u.UnitBase, gain: u.UnitBase) -> None:
    """Warn, at the caller, if a gain in electrons is applied to electrons, and the header did not say so."""
    if data.is_equivalent(u.electron) and u.electron in gain.bases:
        warn(
            f"gain_correct() is done again: the frame is in '{data}' and the gain in '{gain}'; set the unit by with_unit if the "
            "pixels are still in adu.",
            RepeatedStepWarning,
        )


def is_gain_stamped(header: str) -> bool:
    """Return whether a header text says that the gain was applied."""
    return any(is_stamp(key, value) for key, value in _cards(header, STEPS["gain"]).items())


def _stamps(frame: Any, step: str) -> dict[str, Any]:
    """Return the cards by which a header says that a step was done."""
    if is_dataset(frame):
        return _cards(header_text(frame), STEPS[step])
    if not is_ccddata(frame):
        return {}
    # keywords of a plain dict are written as ccdproc has them
    names = {key: name for key in STEPS[step] for name in (key, key.lower()) if name in frame.meta}
    values = {key: frame.meta[name] for key, name in names.items()}
    return {key: value[0] if isinstance(value, tuple) else value for key, value in values.items()}


def _cards(header: str, keywords: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of a few cards; parsing all of some hundred takes milliseconds."""
    found = {}
    for keyword in keywords:
        match = re.search(rf"^{keyword:<8}=.*(?:\nCONTINUE.*)*", header, re.MULTILINE)
        if match:
            lines = [line.ljust(80) for line in match[0].split("\n")]
            try:
                found[keyword] = fits.Card.fromstring("".join(lines)).value
            except (fits.VerifyError, ValueError):
                continue
    return found


def _is_same(step: str, logged: Any, arguments: Mapping[str, Any], frame: Any) -> bool:
    """Return whether a step that was logged is the one that is to be done."""
    text = str(logged)
    if step == "overscan":
        axis = re.search(r"overscan_axis=(\w+)", text)
        return (axis[1] if axis else "1") == str(arguments.get("overscan_axis", 1))
    if step == "trim":
        section = re.search(r"fits_section=(\[.*?\])", text)
        given = arguments.get("fits_section") or ""
        name = given.name if isinstance(given, Keyword) else keyword_name(given) if isinstance(given, str) else None
        if name is not None and is_dataset(frame):
            given = _cards(header_text(frame), (name.upper(),)).get(name.upper(), "")
        return section is not None and section[1].replace(" ", "") == str(given).replace(" ", "")
    return True
