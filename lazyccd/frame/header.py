"""Headers as text: 80-character cards joined by newlines.

A frame's header is text, and operations add text to it. astropy would write every card anew: COMMENT, HISTORY, CONTINUE and
HIERARCH cards, and numbers as a camera wrote them, would not come out of FITS and Zarr as they went in. Cards are parsed where
a value is needed, by `header_from_text` or `HeaderView`, and never to be written again.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning

from lazyccd.errors import FrameError, KeywordError, quiet

logger = logging.getLogger(__name__)

COMMENTARY = {"COMMENT", "HISTORY", ""}
"""Keywords that may stand in a header any number of times, and have no value."""

Lines: TypeAlias = tuple[str, list[str]]
"""A card: its keyword and its lines, more than one with CONTINUE."""

NewCard: TypeAlias = tuple[str, Any, str]
"""Keyword, value and comment of a card to be added."""

WCS_KEYWORD = re.compile(
    r"(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d|(CD|PC|PV|PS|LTM|A|B|AP|BP)\d*_|LTV\d|LONPOLE|LATPOLE|WCSAXES|WCSNAME"
    r"|RADE(SYS|CSYS)|EQUINOX|EPOCH|(C[PQ]DIS|C[PQ]ERR|D2IMDIS|D2IMERR|D[PQ])\d$|DVERR$"
)
"""Keywords that place pixels on the sky and on the detector."""

SECTION_KEYWORD = re.compile(r"(BIAS|DATA|TRIM|CCD|DET|AMP|[ABCDT])SEC[A-Z0-9]{0,2}$|GAIN|(ATM|ATV|DTM|DTV)\d")
"""Keywords of sections and gains, which are about one amplifier."""


REMOVED = object()
"""The value of a card that is to go."""


# parsing a header of some hundred cards takes milliseconds, and each operation on a frame asks for the same one
@lru_cache(maxsize=256)
def _parsed(text: str) -> fits.Header:
    return fits.Header.fromstring(text, sep="\n")


def header_from_text(text: str) -> fits.Header:
    """Return the header of a text; a copy that the caller may change."""
    return _parsed(text).copy()


@lru_cache(maxsize=64)
def parsable(text: str) -> str:
    r"""Return a header text in which cards that cannot be parsed have no keyword, and keep their text.

    Examples
    --------
    >>> print(parsable("GAIN    = 1.5\nOBSERVER= 'not closed"))
    GAIN    = 1.5
            OBSERVER= 'not closed
    """
    lines: list[str] = []
    for _, card in cards_of(text):
        try:
            _ = fits.Card.fromstring("".join(line.ljust(80) for line in card)).value
        except VerifyError:
            # a card without a keyword is a comment by the standard: nothing is lost, and no reader stumbles over it
            raw = "".join(card).rstrip()
            lines.extend(" " * 8 + raw[i : i + 72] for i in range(0, len(raw), 72))
        else:
            lines.extend(card)
    return "\n".join(lines)


def copy_header(header: fits.Header) -> fits.Header:
    """Return a copy of a header."""
    # astropy's own appends card by card: 0.27 ms for 60 cards, half of the time in which a bias is subtracted from 512² pixels
    if type(header) is not fits.Header or vars(header).keys() != _HEADER_PARTS:
        return header.copy()
    if any(type(card) is not fits.Card for card in header._cards):
        return header.copy()
    copied = fits.Header()
    copied._cards = [_copy_card(card) for card in header._cards]
    for name in ("_keyword_indices", "_rvkc_indices"):
        getattr(copied, name).update({keyword: list(places) for keyword, places in getattr(header, name).items()})
    return copied


def _copy_card(card: fits.Card) -> fits.Card:
    """Return a copy of a card."""
    new = object.__new__(fits.Card)
    new.__dict__.update(card.__dict__)
    return new


def set_card(header: fits.Header, keyword: str, value: Any, comment: str | None = None) -> None:
    """Set a card of a header, as ``header[keyword] = value, comment`` does."""
    if type(value) is str and keyword.upper().removeprefix("HIERARCH ") not in header:
        # astropy looks up its configuration eight times for a new card: 50 us
        header.append(_copy_card(_new_card(keyword, value, comment)))
    else:
        header[keyword] = value if comment is None else (value, comment)


@lru_cache(maxsize=1024)
def _new_card(keyword: str, value: str, comment: str | None) -> fits.Card:
    """Return a card to be copied."""
    return fits.Card(keyword, value, comment)


_HEADER_PARTS = {"_cards", "_keyword_indices", "_rvkc_indices", "_modified"}
"""What a header is made of, as far as `copy_header` knows."""


def header_to_text(header: fits.Header) -> str:
    """Return the text of a header.

    Examples
    --------
    >>> header_to_text(fits.Header([("GAIN", 1.5)])).strip()
    'GAIN    =                  1.5'
    """
    return str(header.tostring(sep="\n", endcard=False, padding=False))


def _card_lines(key: str, value: object, comment: str) -> list[str]:
    """Return the lines of a card."""
    storable = _storable(key, value)
    text = _card_text(key, storable, repr(storable), comment)
    return [text[i : i + 80] for i in range(0, len(text), 80)]


# a chain of operations on many images writes the same cards into each header
@lru_cache(maxsize=4096, typed=True)
def _card_text(key: str, value: Any, _shown: str, comment: str) -> str:
    """Return the text of a card; 0.0 and -0.0 are equal, and are told apart by how they are shown."""
    # A keyword of more than eight characters becomes a HIERARCH card, which is what is wanted.
    with quiet(VerifyWarning):
        return str(fits.Card(key, value, comment))


def _storable(key: str, value: object) -> Any:
    """Return a value that a card can hold."""
    if isinstance(value, u.Quantity):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | complex | str):
        # FITS has no NaN and no infinities, and no character outside of ASCII
        if isinstance(value, float) and not np.isfinite(value):
            return str(value)
        if isinstance(value, str):
            return value.encode("ascii", "replace").decode().replace("\n", " ").replace("\t", " ")
        return value
    return str(value).encode("ascii", "replace").decode().replace("\n", " ")


def _keyword(line: str) -> str:
    """Return the keyword of a card's first line."""
    # long keywords end at the equals sign and not after eight characters
    if line.startswith("HIERARCH "):
        return line.split("=", 1)[0].strip().upper()
    return line[:8].strip().upper()


def append_cards(text: str, cards: Iterable[NewCard]) -> str:
    """Return a header text with cards added; one whose keyword is there already takes its place, or goes if `REMOVED`.

    Only the new cards are formatted; all others stay as they are to the byte. HISTORY and COMMENT are always added.
    """
    lines = text.split("\n") if text else []
    names: list[str] = []
    for key, value, comment in cards:
        card = _card_lines(key, *((None, "") if value is REMOVED else (value, comment)))
        name = _keyword(card[0])
        new = [] if value is REMOVED else card
        # read once for all cards: a WCS adds twenty
        names = names or [_keyword(line) for line in lines]
        if name in COMMENTARY or name not in names:
            lines += new
            names += map(_keyword, new)
            continue
        place = names.index(name)
        # a long string goes on in CONTINUE cards, which are part of the one that is replaced
        stop = place + 1
        while stop < len(lines) and lines[stop].startswith("CONTINUE"):
            stop += 1
        lines[place:stop] = new
        names[place:stop] = map(_keyword, new)
    return "\n".join(lines)


def cards_of(text: str) -> list[Lines]:
    """Return keyword and lines of each card of a header text."""
    cards: list[Lines] = []
    for line in text.split("\n") if text else []:
        if line.startswith("CONTINUE") and cards:
            cards[-1][1].append(line)
            continue
        cards.append((_keyword(line).removeprefix("HIERARCH "), [line]))
    return cards


def is_local(keyword: str) -> bool:
    """Return whether a keyword is about the pixels of one extension: a section, the WCS, a gain."""
    return bool(SECTION_KEYWORD.match(keyword) or WCS_KEYWORD.match(keyword))


@lru_cache(maxsize=64)  # the primary header of a mosaic is asked for once for each of its extensions
def shared_cards(primary: str) -> tuple[Lines, ...]:
    """Return the cards of a primary header that extensions can inherit."""
    own = {"EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", *COMMENTARY, *STRUCTURE}
    return tuple(card for card in cards_of(primary) if card[0] not in own)


def inherit(extension: str, primary: str, *, whole: bool) -> tuple[str, str]:
    r"""Return an extension's header with cards that it lacks from the primary's, and the keywords of these.

    Parameters
    ----------
    extension, primary
        Headers.
    whole
        Whether sections, WCS and gains are inherited too: INHERIT = T. Those of a primary are about the whole mosaic.

    Examples
    --------
    >>> text, keywords = inherit("GAIN    = 2.0", "GAIN    = 0.0\nFILTER  = 'r'\nDATASEC = '[1:9,1:9]'", whole=False)
    >>> text.split("\n"), keywords
    (['GAIN    = 2.0', "FILTER  = 'r'"], 'FILTER')
    """
    own = {keyword for keyword, _ in cards_of(extension)}
    taken = [card for card in shared_cards(primary) if card[0] not in own and (whole or not is_local(card[0]))]
    lines = [extension, *(line for _, some in taken for line in some)]
    return "\n".join(lines), " ".join(dict.fromkeys(keyword.replace(" ", "_") for keyword, _ in taken))


def merge_headers(extension: str, primary: str) -> str:
    """Return the cards of an extension, and those of the primary header that it lacks."""
    # by lines and not by cards: CONTINUE lines follow their card, kept or not
    have = {_keyword(line) for line in extension.split("\n")}
    lines = extension.split("\n")
    keep = False
    for line in primary.split("\n"):
        name = _keyword(line)
        if name != "CONTINUE":
            keep = bool(line.strip()) and (name in COMMENTARY or name not in have) and name not in STRUCTURE
        if keep:
            lines.append(line)
    return "\n".join(lines)


STRUCTURE = {
    "SIMPLE",
    "EXTEND",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "NAXIS3",
    "BITPIX",
    "BSCALE",
    "BZERO",
    "BLANK",
    "NEXTEND",
    "CHECKSUM",
    "DATASUM",
}
"""Cards that describe the primary HDU itself."""


def text_from_meta(meta: Mapping[str, Any], wcs: Any = None) -> str:
    """Return the header text of a CCDData's meta and WCS; what a card cannot hold becomes a string."""
    if isinstance(meta, fits.Header):
        text = header_to_text(meta)
    else:
        text = ""
        for key, value in meta.items():
            pair = value if isinstance(value, tuple) and len(value) == 2 else (value, "")
            try:
                text = append_cards(text, [(str(key), pair[0], str(pair[1]))])
            # meta is a dict of anything: one entry that no card can hold must not cost the frame
            except (ValueError, TypeError) as error:
                logger.warning("meta entry %r cannot be a header card (%s); left out.", key, error)
    if wcs is None:
        return text
    cards, lines, records = _cards_of_wcs(wcs)
    # the header of a CCDData has no WCS of its own, so that nothing is replaced
    if isinstance(meta, fits.Header) and not {card[0] for card in cards}.intersection(meta):
        return "\n".join([text, *lines, *records] if text else [*lines, *records])
    return "\n".join([append_cards(text, cards), *records])


TABLES = {"CPDIS1": "cpdis1", "CPDIS2": "cpdis2", "D2IMDIS1": "det2im1", "D2IMDIS2": "det2im2"}
"""Keywords of distortions that are tables in other HDUs, and what astropy's WCS calls the tables."""

_WCS_CARDS: OrderedDict[str, tuple[list[NewCard], list[str], list[str]]] = OrderedDict()


def wcs_cards(header: fits.Header) -> tuple[list[NewCard], list[str]]:
    """Return the cards of the header of a WCS, and the lines of those that hold a record.

    Records of a distortion have one keyword, ``DQ1 = 'NAXES: 2'``, ``DQ1 = 'AXIS.1: 1'``, so that none replaces another.
    """
    cards = [(card.keyword, card.value, card.comment) for card in header.cards if card.field_specifier is None]
    return cards, [str(card) for card in header.cards if card.field_specifier is not None]


def _cards_of_wcs(wcs: Any) -> tuple[list[NewCard], list[str], list[str]]:
    """Return the cards of a WCS, their lines, and those of records.

    Those of the last 64 different ones are kept, since astropy takes a millisecond to make them.
    """
    # what wcslib says does not have the distortions that astropy adds
    distorted = wcs.sip or wcs.cpdis1 or wcs.cpdis2 or wcs.det2im1 or wcs.det2im2
    key = "" if distorted else wcs.wcs.to_header(relax=True)
    # asked once: another thread may drop it
    found = _WCS_CARDS.get(key)
    if found is not None:
        return found
    cards, records = wcs_cards(wcs.to_header(relax=True))
    # a header cannot hold tables; these cards say that there are some, or positions would silently be those without
    present = [keyword for keyword, name in TABLES.items() if getattr(wcs, name, None) is not None]
    cards += [(keyword, "LOOKUP", "a table that is not here") for keyword in present]
    found = cards, append_cards("", cards).split("\n"), records
    if key:
        _WCS_CARDS[key] = found
        while len(_WCS_CARDS) > 64:
            _WCS_CARDS.popitem(last=False)
    return found


class HeaderView(Mapping[str, Any]):
    """A header that is read and not written."""

    def __init__(self, text: str) -> None:
        self._header = _parsed(text)  # shared by all views, and never changed

    def __getitem__(self, key: str) -> Any:
        """Return the value of a keyword, in any case."""
        try:
            return self._header[key]
        except KeyError:
            raise KeywordError(f"the header has no keyword {key!r}.") from None

    def __contains__(self, key: object) -> bool:
        """Return whether there is such a keyword."""
        return key in self._header

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keywords."""
        return iter(self._header)

    def __len__(self) -> int:
        """Return the number of cards."""
        return len(self._header)

    def __setitem__(self, key: str, value: object) -> None:
        """Refuse to write."""
        raise FrameError(
            f"the header of a frame is read-only; make a frame with ds.ccd.with_header({{{key!r}: {value!r}}})."
        )

    def __delitem__(self, key: str) -> None:
        """Refuse to delete."""
        raise FrameError(f"the header of a frame is read-only; {key!r} cannot be taken out of it.")

    @property
    def comments(self) -> Any:
        """Comments by keyword."""
        return self._header.comments

    def __repr__(self) -> str:
        """Return the cards, a line each."""
        return repr(self._header)

    def to_header(self) -> fits.Header:
        """Return an astropy header that may be changed."""
        return self._header.copy()


def header_view(text: str) -> HeaderView:
    """Return the read-only header of a text."""
    return HeaderView(text)
