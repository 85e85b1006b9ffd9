"""The header of a frame as it is now: a frame keeps the header that was read, which is about the pixels that were read."""

from __future__ import annotations

import re
from typing import Any

from astropy import units as u
from astropy.io import fits

from lazyccd.errors import UnitError
from lazyccd.frame.header import NewCard, append_cards
from lazyccd.frame.units import parse_unit, unit_to_text


def header_in_memory(text: str, shape: tuple[int, int], units: u.UnitBase) -> str:
    """Return a header text in which NAXIS and BUNIT are those of the frame.

    Cards that agree stay to the letter, and so does how the file stores its pixels: BITPIX, BSCALE, BZERO. What is added is a
    BUNIT, to the header of an image.

    Parameters
    ----------
    text
        Header of the image that was read, with what operations have added.
    shape, units
        Of the frame.
    """
    ny, nx = shape
    facts = {"NAXIS": 2, "NAXIS1": nx, "NAXIS2": ny, "BUNIT": unit_to_text(units)}
    cards: list[NewCard] = []
    is_image = re.search("^NAXIS1  =", text, re.MULTILINE) is not None
    for keyword, value in facts.items():
        card = _card(text, keyword)
        if card is None and not (keyword == "BUNIT" and is_image and value):
            continue
        if card is None or not _is_same(keyword, card.value, value):
            cards.append((keyword, value, "" if card is None else card.comment))
    return append_cards(text, cards) if cards else text


def _card(text: str, keyword: str) -> fits.Card | None:
    """Return a card of a header text; None if it is not there."""
    match = re.search(rf"^{keyword:<8}=.*$", text, re.MULTILINE)
    return None if match is None else fits.Card.fromstring(match[0].ljust(80))


def _is_same(keyword: str, there: Any, value: Any) -> bool:
    """Return whether a card says what is true; units may be spelt in other ways."""
    if keyword != "BUNIT" or there == value:
        return bool(there == value)
    try:
        return bool(parse_unit(str(there), "header") == parse_unit(value, "frame"))
    except UnitError:  # what nobody understands was read as no unit, and is kept until there is one
        return not value
