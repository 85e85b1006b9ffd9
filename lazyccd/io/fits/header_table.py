"""Headers of many files as one table.

`Scans` reads the cards of all files at once by several threads and parses none. Headers that have the same keywords in the same
order, as those of a camera mostly have, are parsed together, a card of all of them at a time: most cards are the same in all,
and most others are numbers. What is not plain FITS is left to astropy, with its warnings.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lazyccd.errors import LazyCCDError, quiet, warnings_raised
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.scan import CARD, FitsFile, HduInfo

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table

logger = logging.getLogger(__name__)

Card: TypeAlias = tuple[str, Any]
"""Keyword and value."""

Columns: TypeAlias = dict[str, list[Any]]
"""Values of headers that all have the same keywords, by keywords in lower case."""

Ext: TypeAlias = int | str | tuple[str, int]
"""An HDU: its number, its name, or name and version."""

_PLAIN = re.compile(r"[A-Z0-9_-]{1,8} *= |HIERARCH ")
_COMMENTARY = ("COMMENT", "HISTORY", "")
_VALUE = re.compile(
    r" *(?:'(?P<text>(?:[^']|'')*)'|(?P<flag>[TF])|(?P<integer>[+-]?\d{1,18})"
    r"|(?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[ED]))(?:[ED][+-]?\d+)?))? *(?:/[ -~]*)?"
)
_NUMBERS = re.compile(r"[0-9+\-.E ]*")
_BEHIND_NUMBER = re.compile(r"= (?:[ /].*)?")
_HIERARCH = re.compile(r"^HIERARCH [^=\n]*=", re.MULTILINE)


class Row(Mapping[str, Any]):
    """The values of one header by keywords in lower case.

    Parameters
    ----------
    columns
        The values of this header and others. Dictionaries of 115 values would take 6 KB for each file.
    index
        Which of them.
    """

    __slots__ = ("columns", "index")

    def __init__(self, columns: Columns, index: int) -> None:
        self.columns = columns
        self.index = index

    def __getitem__(self, name: str) -> Any:
        """Return the value of a keyword."""
        return self.columns[name][self.index]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keywords."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of keywords."""
        return len(self.columns)


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
        self._known: dict[str, tuple[FitsFile | LazyCCDError, _Header]] = {}

    def read(self, files: Mapping[str, str]) -> dict[str, Row]:
        """Return the values of each header that can be read, by the name of its file; log which cannot.

        Parameters
        ----------
        files
            Paths of the files by their names.
        """
        found = dict(zip(files.values(), self._scans.read(list(files.values())), strict=True))
        new = [path for path, file in found.items() if path not in self._known or self._known[path][0] is not file]
        for path in new:
            self._known.pop(path, None)
        for path, header in self._parse({path: found[path] for path in new}):
            self._known[path] = found[path], header
        known = {name: self._known[path][1] for name, path in files.items() if path in self._known}
        for name, header in known.items():
            for keyword, value in header.ignored:
                warnings.warn(
                    f'Header from file "{files[name]}" contains multiple entries for "{keyword}", '
                    f'the pair "{keyword}={value}" will be ignored.',
                    stacklevel=2,
                )
        return {name: header.row for name, header in known.items()}

    def _parse(self, found: Mapping[str, FitsFile | LazyCCDError]) -> Iterator[tuple[str, _Header]]:
        """Yield the headers of files that were scanned."""
        plain = {path: hdu.header for path, file in found.items() if (hdu := self._hdu(file)) is not None}
        paths = list(plain)
        parsed: dict[str, _Header] = {}
        for places, cards in parse_cards(list(plain.values())):
            if None not in cards:
                headers = _as_ccdproc([card for card in cards if card is not None], len(places))
                parsed.update(zip((paths[place] for place in places), headers, strict=True))
        for path in found:
            header = parsed[path] if path in parsed else self._by_astropy(path)
            if header is not None:
                yield path, header

    def _by_astropy(self, path: str) -> _Header | None:
        """Return a header that is not read here."""
        try:
            # astropy says what is wrong, and shows the cards of a compressed image in its own way
            cards = fits.getheader(path, self.ext).items()
        except OSError as error:
            logger.warning("unable to get FITS header for file %s: %s.", path, error)
            return None
        return _as_ccdproc([(keyword, [value]) for keyword, value in cards], 1)[0]

    def _hdu(self, file: FitsFile | LazyCCDError) -> HduInfo | None:
        """Return the HDU that is looked for, if it can be read here."""
        name, ver = self.ext if isinstance(self.ext, tuple) else (self.ext, None)
        for hdu in () if isinstance(file, LazyCCDError) else file.hdus:
            same = hdu.index == name if isinstance(name, int) else hdu.name.upper() == name.upper()
            if same and ver in (None, hdu.ver):
                return hdu if hdu.tiles is None else None
        return None


class _Header(NamedTuple):
    """What ccdproc shows of a header."""

    row: Row
    ignored: list[Card]
    """Cards whose keywords are there already."""


def _as_ccdproc(cards: Sequence[tuple[str, list[Any]]], count: int) -> list[_Header]:
    """Return headers with the first of several cards, and joined commentary at the end."""
    columns: Columns = {}
    ignored: list[tuple[str, list[Any]]] = []
    commentary: dict[str, list[list[Any]]] = {"comment": [], "history": []}
    for keyword, values in cards:
        name = keyword.lower()
        if not name:
            continue
        if keyword in _COMMENTARY:
            commentary[name].append(values)
        elif name in columns:
            ignored.append((name, values))
        else:
            columns[name] = values
    for name, lines in commentary.items():
        if lines:
            columns[name] = [",".join(map(str, texts)) for texts in zip(*lines, strict=True)]
    return [_Header(Row(columns, i), [(name, values[i]) for name, values in ignored]) for i in range(count)]


def _stamp(path: str) -> tuple[int, int, int]:
    """Return size, time of change and inode of a file; zeros if it is not there, or behind a URL."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=65536)
def _parse_card(image: str) -> Card | None:
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
    with warnings_raised():
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


def parse_cards(
    texts: Sequence[str], parse: Callable[[str], Card | None] = _parse_card
) -> Iterator[tuple[list[int], list[tuple[str, list[Any]] | None]]]:
    r"""Parse headers together where they have the same keywords in the same order.

    Parameters
    ----------
    texts
        Headers.
    parse
        What parses a card.

    Yields
    ------
    tuple
        Which headers these are; and for each of their cards keyword and values, or None for one that cannot be parsed.

    Examples
    --------
    >>> list(parse_cards(["SIMPLE  =                    T\nHISTORY flat"]))
    [([0], [('SIMPLE', [True]), ('HISTORY', ['flat'])])]
    """
    layouts: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        layouts.setdefault(_layout(text), []).append(place)
    for places in layouts.values():
        columns = [
            _parse_column(images, len(places), parse) for images in _images_of([texts[place] for place in places])
        ]
        mixed = [column.keywords for column in columns if len(column.keywords) > 1]
        parts: dict[tuple[str | None, ...], list[int]] = {}
        for row, keywords in enumerate(zip(*mixed, strict=True)) if mixed else ():
            parts.setdefault(keywords, []).append(row)
        if not parts:
            yield places, [None if (key := column.keywords[0]) is None else (key, column.values) for column in columns]
        for rows in parts.values():
            yield [places[row] for row in rows], [column.of(rows) for column in columns]


class _CardColumn(NamedTuple):
    """One card of several headers."""

    keywords: list[str | None]
    """Keyword of each header, None if the card cannot be parsed; only one if it is the same for all."""

    values: list[Any]

    def of(self, rows: list[int]) -> tuple[str, list[Any]] | None:
        """Return keyword and values of headers that have the same keyword."""
        keyword = self.keywords[rows[0] if len(self.keywords) > 1 else 0]
        return None if keyword is None else (keyword, [self.values[row] for row in rows])


def _layout(text: str) -> str:
    """Return what is equal for headers whose cards have the same keywords."""
    step = CARD + 1
    if len(text) % step != CARD or text[CARD::step].strip("\n") or text.count("\n") != len(text) // step:
        return text
    keywords = "".join([text[i::step] for i in range(8)])
    return "".join([keywords, *_HIERARCH.findall(text)]) if "\nHIERARCH" in text else keywords


def _images_of(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cards of headers of one layout, one of each header at a time, or only one that all have.

    A card has the text of those that go on with it.
    """
    ranges: list[tuple[int, int]] = []
    start = 0
    for line in texts[0].split("\n"):
        stop = start + len(line)
        if line.startswith("CONTINUE") and ranges:
            ranges[-1] = ranges[-1][0], stop
        else:
            ranges.append((start, stop))
        start = stop + 1
    differs = _where_different(texts)
    for start, stop in ranges:
        images = [text[start:stop] for text in (texts if differs[start:stop].any() else texts[:1])]
        if "\n" in images[0]:
            images = ["".join([line.ljust(CARD) for line in image.split("\n")]) for image in images]
        yield images


def _where_different(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return at which characters texts of one length are not all alike."""
    # a text at a time: one card at a time, the headers of 10 000 files would come from memory once for each card
    first = np.frombuffer(texts[0].encode("latin-1"), np.uint8)
    differs = np.zeros(first.size, bool)
    for text in texts[1:]:
        differs |= np.frombuffer(text.encode("latin-1"), np.uint8) != first
    return differs


def _parse_column(images: list[str], count: int, parse: Callable[[str], Card | None]) -> _CardColumn:
    """Parse one card of several headers, or the only one that all have."""
    first = images[0]
    if len(images) == 1:
        card = parse(first)
        return _CardColumn([None], []) if card is None else _CardColumn([card[0]], [card[1]] * count)
    numbers = _parse_numbers(images)
    if numbers is not None:
        return _CardColumn([first[:8].rstrip()], numbers)
    parsed = {image: parse(image) for image in set(images)}
    cards = [parsed[image] for image in images]
    keywords = [None if card is None else card[0] for card in cards]
    same = len(set(keywords)) == 1
    return _CardColumn(keywords[:1] if same else keywords, [None if card is None else card[1] for card in cards])


def _parse_numbers(images: list[str]) -> list[int | float] | None:
    """Return the values of one card of several headers if all are numbers in columns 11 to 30; None if not."""
    # card by card, `_parse_card` takes ten times as long
    if not _PLAIN.match(images[0]) or not all(map(_BEHIND_NUMBER.fullmatch, {i[8:10] + i[30:] for i in images})):
        return None
    fields = [image[10:30] for image in images]
    if not _NUMBERS.fullmatch("".join(fields)):
        return None
    try:
        return [float(field) if "." in field or "E" in field else int(field) for field in fields]
    except ValueError:
        return None


def summarise(rows: Mapping[str, Row], keywords: Sequence[str]) -> Table:
    """Return a masked table with a row for each file, as ccdproc's collections have it.

    Parameters
    ----------
    rows
        Values of the headers, by the names of the files for the first column ``file``.
    keywords
        Names of the other columns, as they are to be written; ``*`` stands for all keywords that occur, in lower case.
    """
    from astropy.table import MaskedColumn  # takes long to import, and opening files needs none

    names = {name.lower(): name for name in keywords if name != "*"}
    if "*" in keywords:
        names = {name: name for name in keywords_of(rows.values())} | names
    table = make_table(list(rows), list(rows.values()), names)
    for name in table.colnames:
        column = table[name]
        if column.dtype == object and not column.mask.any():
            # text and numbers of a keyword that all files have become text, which scripts compare with text
            table[name] = MaskedColumn(np.array(column.tolist()))
    return table


def keywords_of(rows: Iterable[Row]) -> list[str]:
    """Return all keywords in the order in which they occur."""
    different = {id(row.columns): row.columns for row in rows}
    return list(dict.fromkeys(name for columns in different.values() for name in columns))


def make_table(files: Sequence[str], rows: Sequence[Row], names: Mapping[str, str]) -> Table:
    """Return a masked table with a row for each file.

    Parameters
    ----------
    files
        Names, for the first column ``file``.
    rows
        Values of their headers.
    names
        Names of the columns for these keywords, which are in lower case.
    """
    from astropy.table import MaskedColumn, Table  # takes long to import, and opening files needs none

    parts: dict[int, tuple[Columns, list[tuple[int, int]]]] = {}
    for place, row in enumerate(rows):
        parts.setdefault(id(row.columns), (row.columns, []))[1].append((place, row.index))
    table = Table(masked=True)
    table["file"] = MaskedColumn(list(files), dtype=None if files else "U1")
    for lower, name in names.items():
        if lower == "file":
            continue
        having = [(columns[lower], places) for columns, places in parts.values() if lower in columns]
        column: list[Any] = [None] * len(rows)
        for values, places in having:
            for place, index in places:
                column[place] = values[index]
        table[name] = _column(column) if having else MaskedColumn(np.full(len(column), np.nan), mask=True)
    return table


def readable_values(headers: Sequence[tuple[str, str]]) -> list[Row]:
    r"""Return the values of the headers of each file: of several cards the first that can be read.

    Parameters
    ----------
    headers
        Two headers of each file, of which the first may be empty. Keywords that both have take their values from the second.

    Examples
    --------
    >>> text = "EXPTIME =                 30.0 / [s]\nOBJECT  = 'M 31'\nHISTORY flat\nGAIN    = 'not closed"
    >>> dict(readable_values([("", text)])[0])
    {'exptime': 30.0, 'object': 'M 31'}
    """
    rows: dict[int, Row] = {}
    alike: dict[int, list[int]] = {}
    for i, (first, _) in enumerate(headers):
        alike.setdefault(first.count("\n") + 1 - first.count("\nCONTINUE") if first else 0, []).append(i)
    for start, files in alike.items():
        texts = [f"{headers[i][0]}\n{headers[i][1]}" if start else headers[i][1] for i in files]
        for places, cards in parse_cards(texts, _readable_card):
            columns = _first_of(cards[:start]) | _first_of(cards[start:])
            rows.update((files[place], Row(columns, index)) for index, place in enumerate(places))
    return [rows[i] for i in range(len(headers))]


def _first_of(cards: Iterable[tuple[str, list[Any]] | None]) -> Columns:
    """Return the first card of each keyword."""
    columns: Columns = {}
    for card in cards:
        if card is not None:
            columns.setdefault(card[0].lower(), card[1])
    return columns


def _readable_card(image: str) -> Card | None:
    """Return keyword and value of a card; None if it has no value, or none that can be read."""
    card = _parse_card(image) or _as_far_as(image)
    return None if card is None or card[1] is None or card[0] in _COMMENTARY else card


def _as_far_as(image: str) -> Card | None:
    """Return keyword and value of a card that breaks the standard, as far as astropy reads it; None if it does not."""
    with quiet(fits.verify.VerifyWarning):
        try:
            card = fits.Card.fromstring(image)
            keyword, value = card.keyword, card.value
        except (fits.VerifyError, ValueError):
            return None
    return (keyword, value) if isinstance(value, str | int | float | bool) else None


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
