"""Headers of many files as one table.

`Scans` reads the cards of all files at once by several threads and parses none. Values are parsed card by card: those of a night
are mostly the same, so each text is parsed once. What is not plain FITS is left to astropy, with its warnings.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from lazyccd.errors import LazyCCDError
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.scan import FitsFile, HduInfo

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
    images: list[str] = []
    for image in text.split("\n"):
        if image.startswith("CONTINUE") and images:
            images[-1] = images[-1].ljust(80) + image.ljust(80)
        else:
            images.append(image)
    cards = []
    for image in images:
        keyword = image[:8].rstrip()
        if keyword in _COMMENTARY:
            cards.append((keyword, image[8:].rstrip()))
            continue
        parsed = _parse_card(image) if _PLAIN.match(image) else None
        if parsed is None:
            return None
        cards.append(parsed)
    return cards


@lru_cache(maxsize=65536)
def _parse_card(image: str) -> tuple[str, Any] | None:
    """Return keyword and value of a card as astropy reads them; None if it would complain."""
    match = _VALUE.fullmatch(image, 10) if image[8:10] == "= " and len(image) <= 80 else None
    # astropy takes 'AXIS.1: 2.0' for a value with a keyword of its own
    if match is not None and ": " not in (match["text"] or ""):
        return image[:8].rstrip(), _value(match)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            card = fits.Card.fromstring(image)
            # a header of astropy has None where its cards say Undefined
            parsed = card.keyword, None if isinstance(card.value, fits.card.Undefined) else card.value
        except (fits.VerifyError, ValueError, Warning):
            return None
    return parsed


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
    """Return a masked table with a row for each file whose header could be read.

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
    names.pop("file", None)
    table = Table(masked=True)
    table["file"] = MaskedColumn(list(rows), dtype=None if rows else "U1")
    for lower, name in names.items():
        column = [values.get(lower) for values in rows.values()]
        known = any(lower in values for values in rows.values())
        table[name] = _column(column) if known else MaskedColumn(np.full(len(column), np.nan), mask=True)
    return table


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
    kinds = {type(value) for value in values}
    if (len(kinds) == 1 and None not in values) or kinds == {int, float}:
        return MaskedColumn(values)
    column = np.empty(len(values), object)
    column[:] = values
    return MaskedColumn(column, mask=[value is None for value in values])
