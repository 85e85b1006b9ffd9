"""Headers of many files as one table.

`Scans` reads the cards of all files at once by several threads and parses none. Values are parsed card by card: those of a night
are mostly the same, so each text is parsed once. What is not plain FITS is left to astropy, with its warnings.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from astropy.io import fits

from lazyccd.errors import LazyCCDError
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.scan import FitsFile, HduInfo

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table

logger = logging.getLogger(__name__)

Cards: TypeAlias = list[tuple[str, Any]]
"""Keywords and values of a header, in its order."""

Ext: TypeAlias = int | str | tuple[str, int]
"""An HDU: its number, its name, or name and version."""

_PLAIN = re.compile(r"[A-Z0-9_-]{1,8} *= |HIERARCH ")
_COMMENTARY = ("COMMENT", "HISTORY", "")
_VALUE = re.compile(
    r" *(?:'(?P<text>(?:[^']|'')*)'|(?P<flag>[TF])|(?P<integer>[+-]?\d{1,18})"
    r"|(?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[ED]))(?:[ED][+-]?\d+)?))? *(?:/[ -~]*)?"
)


class Scans:
    """The headers of many files, read again only where a file has changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], FitsFile | LazyCCDError]] = {}

    def read(self, paths: Sequence[str]) -> list[FitsFile | LazyCCDError]:
        """Return what the headers of each file say, or why they cannot be read."""
        stamps = {path: _stamp(path) for path in paths}
        new = [path for path, stamp in stamps.items() if path not in self._known or self._known[path][0] != stamp]
        for path, found in zip(new, scan_many(new, keep_going=True), strict=True):
            self._known[path] = stamps[path], found
        return [self._known[path][1] for path in paths]

    def known(self, paths: Sequence[str]) -> list[FitsFile | LazyCCDError]:
        """Return what the headers of each file said when they were read; only those that never were are read now."""
        new = [path for path in paths if path not in self._known]
        if new:
            self.read(new)
        return [self._known[path][1] for path in paths]


class Headers:
    """The headers of one HDU in each of many files, read again only where a file has changed."""

    def __init__(self, ext: Ext = 0) -> None:
        self.ext = ext
        self._scans = Scans()
        self._known: dict[str, tuple[FitsFile | LazyCCDError, Cards]] = {}

    def read(self, paths: Sequence[str]) -> list[Cards | None]:
        """Return the cards of each file; None where it cannot be read, which is logged."""
        found = dict(zip(paths, self._scans.read(paths), strict=True))
        for path, file in found.items():
            if path in self._known and self._known[path][0] is file:
                continue
            self._known.pop(path, None)
            try:
                self._known[path] = file, self._cards(path, file)
            except OSError as error:
                logger.warning("unable to get FITS header for file %s: %s.", path, error)
        return [self._known[path][1] if path in self._known else None for path in paths]

    def _cards(self, path: str, found: FitsFile | LazyCCDError) -> Cards:
        """Return the cards of a file that was scanned."""
        hdu = None if isinstance(found, LazyCCDError) else self._hdu(found)
        cards = None if hdu is None else parse_cards(hdu.header)
        # astropy says what is wrong, and shows the cards of a compressed image in its own way
        return list(fits.getheader(path, self.ext).items()) if cards is None else cards

    def _hdu(self, file: FitsFile) -> HduInfo | None:
        """Return the HDU that is looked for, if it can be read here."""
        name, ver = self.ext if isinstance(self.ext, tuple) else (self.ext, None)
        for hdu in file.hdus:
            same = hdu.index == name if isinstance(name, int) else hdu.name.upper() == name.upper()
            if same and ver in (None, hdu.ver):
                return hdu if hdu.tiles is None else None
        return None


def _stamp(path: str) -> tuple[int, int, int]:
    """Return size, time of change and inode of a file; zeros if it is not there, or behind a URL."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ino


def parse_cards(text: str) -> Cards | None:
    r"""Return the keywords and values of a header's text; None if a card is not plain FITS.

    Examples
    --------
    >>> parse_cards("SIMPLE  =                    T\nHISTORY flat")
    [('SIMPLE', True), ('HISTORY', 'flat')]
    """
    images = text.split("\n")
    cards = [_parse_card(image) for image in (_joined(images) if "\nCONTINUE" in text else images)]
    return None if None in cards else cards  # type: ignore[return-value]  # mypy does not see that None is not in it


def _joined(images: Iterable[str]) -> list[str]:
    """Return cards of which each has the text of those that go on with it."""
    joined: list[str] = []
    for image in images:
        if image.startswith("CONTINUE") and joined:
            joined[-1] = joined[-1].ljust(80) + image.ljust(80)
        else:
            joined.append(image)
    return joined


@lru_cache(maxsize=65536)
def _parse_card(image: str) -> tuple[str, Any] | None:
    """Return keyword and value of a card as astropy reads them; None if it would complain, or the card is not plain FITS."""
    keyword = image[:8].rstrip()
    if keyword in _COMMENTARY:
        return keyword, image[8:].rstrip()
    if not _PLAIN.match(image):
        return None
    match = _VALUE.fullmatch(image, 10) if image[8:10] == "= " and len(image) <= 80 else None
    # astropy takes 'AXIS.1: 2.0' for a value with a keyword of its own
    if match is not None and ": " not in (match["text"] or ""):
        return keyword, _value(match)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            card = fits.Card.fromstring(image)
            # a header of astropy has None where its cards say Undefined
            return card.keyword, None if isinstance(card.value, fits.card.Undefined) else card.value
        except (fits.VerifyError, ValueError, Warning):
            return None


def _value(match: re.Match[str]) -> Any:
    """Return the value of a card that holds to the standard, which most do: astropy takes 60 times as long for each."""
    kind, text = match.lastgroup, match[match.lastgroup] if match.lastgroup else ""
    if kind == "text":
        return text.replace("''", "'").rstrip()
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text.replace("D", "E"))
    return None if kind is None else text == "T"


def summarise(files: Sequence[str], headers: Iterable[Cards | None], keywords: Sequence[str]) -> Table:
    """Return a masked table with a row for each file whose header could be read, as ccdproc's collections have it.

    Parameters
    ----------
    files
        Names, for the first column ``file``.
    headers
        Their cards.
    keywords
        Names of the other columns, as they are to be written; ``*`` stands for all keywords that occur, in lower case.
    """
    rows = {file: _values(file, cards) for file, cards in zip(files, headers, strict=True) if cards is not None}
    names = {name.lower(): name for name in keywords if name != "*"}
    if "*" in keywords:
        found = {name: name for values in rows.values() for name in values}
        names = found | names
    return make_table(list(rows), list(rows.values()), names)


def make_table(files: Sequence[str], rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Table:
    """Return a masked table with a row for each file.

    Parameters
    ----------
    files
        Names, for the first column ``file``.
    rows
        Values of their headers, by keywords in lower case.
    names
        Names of the columns for these keywords.
    """
    from astropy.table import MaskedColumn, Table  # takes long to import, and opening files needs none

    table = Table(masked=True)
    table["file"] = MaskedColumn(list(files), dtype=None if files else "U1")
    for lower, name in names.items():
        if lower == "file":
            continue
        column = [values.get(lower) for values in rows]
        known = any(lower in values for values in rows)
        table[name] = _column(column) if known else MaskedColumn(np.full(len(column), np.nan), mask=True)
    return table


def readable_values(text: str) -> dict[str, Any]:
    r"""Return the values of a header's text by keywords in lower case: of several cards the first that can be read.

    Examples
    --------
    >>> readable_values("EXPTIME =                 30.0 / [s]\nOBJECT  = 'M 31'\nHISTORY flat\nGAIN    = 'not closed")
    {'exptime': 30.0, 'object': 'M 31'}
    """
    images = text.split("\n")
    values: dict[str, Any] = {}
    for image in _joined(images) if "\nCONTINUE" in text else images:
        card = _parse_card(image) or _as_far_as(image)
        if card is not None and card[1] is not None and card[0] not in _COMMENTARY:
            values.setdefault(card[0].lower(), card[1])
    return values


def _as_far_as(image: str) -> tuple[str, Any] | None:
    """Return keyword and value of a card that breaks the standard, as far as astropy reads it; None if it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        try:
            card = fits.Card.fromstring(image)
            keyword, value = card.keyword, card.value
        except (fits.VerifyError, ValueError):
            return None
    return (keyword, value) if isinstance(value, str | int | float | bool) else None


def _values(file: str, cards: Cards) -> dict[str, Any]:
    """Return the values of a header by keywords in lower case; the first of several cards, and joined commentary at the end."""
    values: dict[str, Any] = {}
    commentary: dict[str, list[str]] = {"comment": [], "history": []}
    for keyword, value in cards:
        name = keyword.lower()
        if not name:
            continue
        if keyword in _COMMENTARY:
            commentary[name].append(str(value))
        elif name in values:
            warnings.warn(
                f'Header from file "{file}" contains multiple entries for "{name}", the pair "{name}={value}" will be ignored.',
                stacklevel=2,
            )
        else:
            values[name] = value
    return values | {name: ",".join(lines) for name, lines in commentary.items() if lines}


def _column(values: list[Any]) -> MaskedColumn:
    """Return values as a column in which None is masked, of objects if they are not of one type or some are absent."""
    from astropy.table import MaskedColumn

    kinds = set(map(type, values))
    if (len(kinds) == 1 and None not in values[:1]) or kinds == {int, float}:
        # of a list, numpy.ma asks each value for its mask, which takes most of the time of 10 000 files
        return MaskedColumn(np.array(values))
    column = np.empty(len(values), object)
    column[:] = values
    return MaskedColumn(column, mask=[value is None for value in values])
