"""Find the tiles of a tile-compressed image, and the header that the image had.

The image is stored as a binary table with a row per tile, in row-major order: descriptors say where in the heap the
compressed bytes of the tile are, and ZSCALE, ZZERO, ZBLANK how its numbers are coded (FITS standard, section 10).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from lazyccd.errors import FormatError

ALGORITHMS = ("RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1", "NOCOMPRESS")
DITHERS = {"NONE": 0, "NO_DITHER": 0, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}

# Bytes of an element of a column by the letter of TFORM (section 7.3.1).
_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_CODES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_FORMAT = re.compile(r"(\d*)([LXBIJKAEDCMPQ])([A-Z])?")
_COLUMNS = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA", "ZSCALE", "ZZERO", "ZBLANK")

# The cards of the image that the table displaced (sections 10.1.1 and 10.1.2).
_RENAMED = {
    "ZSIMPLE": "SIMPLE",
    "ZTENSION": "XTENSION",
    "ZBITPIX": "BITPIX",
    "ZNAXIS": "NAXIS",
    "ZEXTEND": "EXTEND",
    "ZBLOCKED": "BLOCKED",
    "ZPCOUNT": "PCOUNT",
    "ZGCOUNT": "GCOUNT",
    "ZHECKSUM": "CHECKSUM",
    "ZDATASUM": "DATASUM",
}
# The order of the first cards of a header is fixed (section 4.4.1).
_LEADING = ("SIMPLE", "XTENSION", "BITPIX", "NAXIS")
_OF_TABLE = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TFIELDS|THEAP|CHECKSUM|DATASUM"
    r"|(TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDISP|TDIM|TBCOL)\d+"
    r"|ZIMAGE|ZCMPTYPE|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO|(ZTILE|ZNAME|ZVAL)\d+)"
)


class CardValues(Protocol):
    """The cards of a header."""

    where: str

    def __contains__(self, keyword: str) -> bool:
        """Return whether there is such a card."""

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return the value of a card."""

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return the value of a card that must be an integer."""

    def number(self, keyword: str, default: float) -> float:
        """Return the value of a card that must be a number."""


@dataclass(frozen=True)
class TileColumn:
    """A column of the table of tiles."""

    name: str
    """TTYPE."""

    place: int
    """Bytes from the start of the row."""

    code: str
    """NumPy's type of the value, or of each of the two integers of a descriptor."""

    element: int
    """Bytes of an element in the heap; 0 for a column that is no descriptor."""


@dataclass(frozen=True)
class TileTable:
    """Where the tiles are and how they are coded."""

    algorithm: str
    """ZCMPTYPE."""

    shape: tuple[int, int]
    """Rows and columns of a tile, of the image read as two axes."""

    row_bytes: int
    """Bytes of a row of the table."""

    heap_offset: int
    """Where the heap starts in the file."""

    heap_size: int
    """Bytes of the heap."""

    columns: tuple[TileColumn, ...]
    """Columns that matter here."""

    dither: int
    """0 without dithering, else number of the method."""

    dither_seed: int
    """ZDITHER0."""

    scale: float | None
    """ZSCALE where it is a keyword."""

    zero: float
    """ZZERO where it is a keyword."""

    blank: int | None
    """ZBLANK where it is a keyword, or BLANK."""

    block: int
    """Pixels per block of RICE_1."""

    pixel_bytes: int
    """Bytes per pixel of RICE_1."""

    hcompress_smooth: bool
    """Whether HCOMPRESS_1 smooths."""

    @classmethod
    def from_cards(cls, cards: CardValues, axes: list[int], data_offset: int) -> TileTable:
        """Read the cards of a compressed image with ``axes`` in the order of FITS."""
        # RICE_ONE is older than the standard, which does not have it; some writers, such as fitsio, still use it.
        algorithm = str(cards.get("ZCMPTYPE", "RICE_1")).strip().upper().replace("RICE_ONE", "RICE_1")
        if algorithm not in ALGORITHMS:
            raise FormatError(f"{cards.where}: ZCMPTYPE {algorithm!r} must be one of {', '.join(ALGORITHMS)}.")
        quantize = str(cards.get("ZQUANTIZ", "NO_DITHER")).strip().upper()
        if quantize not in DITHERS:
            raise FormatError(f"{cards.where}: ZQUANTIZ {quantize!r} must be one of {', '.join(DITHERS)}.")
        row_bytes, rows = cards.integer("NAXIS1"), cards.integer("NAXIS2")
        # The heap follows the table unless THEAP says otherwise (section 7.3.2).
        heap = cards.integer("THEAP", row_bytes * rows)
        blank = cards.integer("ZBLANK") if "ZBLANK" in cards else None
        if blank is None and "BLANK" in cards:
            blank = cards.integer("BLANK")
        settings = _settings(cards)
        block, pixel_bytes = settings.get("BLOCKSIZE", 32), settings.get("BYTEPIX", 4)
        if algorithm == "RICE_1" and (
            pixel_bytes not in (1, 2, 4) or not (isinstance(block, int) and 0 < block < 1 << 31)
        ):
            raise FormatError(
                f"{cards.where}: RICE_1 with BLOCKSIZE {block} and BYTEPIX {pixel_bytes} must have an integer BLOCKSIZE above 0 and "
                "BYTEPIX 1, 2 or 4; the header is damaged."
            )
        return cls(
            algorithm=algorithm,
            shape=_plane_tile(axes, _tile(cards, axes)),
            row_bytes=row_bytes,
            heap_offset=data_offset + heap,
            heap_size=row_bytes * rows + cards.integer("PCOUNT", 0) - heap,
            columns=_columns(cards, row_bytes),
            dither=DITHERS[quantize],
            dither_seed=cards.integer("ZDITHER0", 0),
            scale=cards.number("ZSCALE", 1.0) if "ZSCALE" in cards else None,
            zero=cards.number("ZZERO", 0.0),
            blank=blank,
            block=block,
            pixel_bytes=pixel_bytes,
            hcompress_smooth=bool(settings.get("SMOOTH", 0)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def is_quantized(self) -> bool:
        """Whether floats were turned into integers tile by tile."""
        return "ZSCALE" in self.names or self.scale is not None

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """NumPy's type of a row of the table."""
        shapes = [(column.code, (2,)) if column.element else column.code for column in self.columns]
        return np.dtype(
            {
                "names": list(self.names),
                "formats": shapes,
                "offsets": [column.place for column in self.columns],
                "itemsize": self.row_bytes,
            }
        )


def _settings(cards: CardValues) -> dict[str, Any]:
    """Return the parameters of the algorithm, from the pairs ZNAMEn and ZVALn."""
    settings: dict[str, Any] = {}
    # Parameters come in any order, numbered from 1 without gaps.
    index = 1
    while f"ZNAME{index}" in cards:
        value = cards.get(f"ZVAL{index}", 0)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        settings.setdefault(str(cards.get(f"ZNAME{index}")).strip().upper(), value)
        index += 1
    return settings


def _tile(cards: CardValues, axes: list[int]) -> list[int]:
    """Return the lengths of tiles, for which the table must have a row each."""
    # Without ZTILE tiles are rows (section 10.1.2).
    tile = [cards.integer(f"ZTILE{i + 1}", axes[0] if i == 0 else 1) for i in range(len(axes))]
    if any(length < 1 for length in tile):
        raise FormatError(f"{cards.where}: ZTILE {tile} must be positive; the header is damaged.")
    expected = prod([-(-axis // length) for axis, length in zip(axes, tile, strict=True)])
    rows = cards.integer("NAXIS2")
    if rows != expected:
        raise FormatError(f"{cards.where}: the table has {rows} rows and the image {expected} tiles; it is damaged.")
    return tile


def _plane_tile(axes: list[int], tile: list[int]) -> tuple[int, int]:
    """Return rows and columns of a tile once the axes of length 1 are gone; (0, 0) for a real cube."""
    pairs = list(reversed(list(zip(axes, tile, strict=True))))
    while len(pairs) > 2 and any(axis == 1 for axis, _ in pairs):
        pairs.pop(next(i for i, (axis, _) in enumerate(pairs) if axis == 1))
    lengths = [min(axis, length) for axis, length in pairs]
    return (lengths[0], lengths[1]) if len(lengths) == 2 else (0, 0)


def _columns(cards: CardValues, row_bytes: int) -> tuple[TileColumn, ...]:
    """Return the columns that matter, with their places."""
    columns, place = [], 0
    for index in range(1, cards.integer("TFIELDS") + 1):
        form = str(cards.get(f"TFORM{index}", "")).strip().upper()
        match = _FORMAT.match(form)
        if match is None:
            raise FormatError(f"{cards.where}: TFORM{index} {form!r} is no column format; the header is damaged.")
        repeat = int(match[1] or 1)
        name = str(cards.get(f"TTYPE{index}", "")).strip().upper()
        if name in _COLUMNS:
            columns.append(_column(name, place, match, f"{cards.where}: TFORM{index} {form!r}"))
        # Bits are packed; all other elements have whole bytes.
        place += -(-repeat // 8) if match[2] == "X" else repeat * _WIDTHS[match[2]]
    if place != row_bytes:
        raise FormatError(f"{cards.where}: the columns take {place} bytes and NAXIS1 is {row_bytes}; it is damaged.")
    if not any(column.element for column in columns):
        raise FormatError(f"{cards.where}: the table has no column COMPRESSED_DATA; the header is damaged.")
    return tuple(columns)


def _column(name: str, place: int, match: re.Match[str], what: str) -> TileColumn:
    """Return one column."""
    kind, inner = match[2], match[3] or ""
    if name.endswith("_DATA"):
        if kind not in "PQ" or inner not in _CODES:
            raise FormatError(f"{what} of {name} must be a descriptor such as 1PB; the header is damaged.")
        return TileColumn(name, place, ">i4" if kind == "P" else ">i8", np.dtype(_CODES[inner]).itemsize)
    if kind not in _CODES or match[1] not in ("", "1"):
        raise FormatError(f"{what} of {name} must be one number; the header is damaged.")
    return TileColumn(name, place, _CODES[kind], 0)


def is_default_name(image: str) -> bool:
    """Return whether a card is the EXTNAME that programs give to compressed images without a name."""
    return re.match(r"EXTNAME = 'COMPRESSED_IMAGE *'", image) is not None


def image_cards(images: list[str]) -> list[str]:
    """Return the header of the image from that of the table that holds it, card by card.

    Parameters
    ----------
    images
        Cards of the table, 80 characters each.
    """
    renamed, rest = [], []
    for image in images:
        keyword = image[:8].rstrip()
        stem = keyword.rstrip("0123456789") if re.fullmatch(r"ZNAXIS\d+", keyword) else keyword
        if stem in _RENAMED:
            renamed.append((_RENAMED[stem] + keyword.removeprefix(stem)).ljust(8) + image[8:])
        elif _OF_TABLE.fullmatch(keyword) is None and not is_default_name(image):
            rest.append(image)
    if not any(image.startswith(("SIMPLE ", "XTENSION")) for image in renamed):
        renamed.insert(0, "XTENSION= 'IMAGE   '           / Image extension".ljust(80))
    leading = [image for image in renamed if image.startswith(_LEADING)]
    leading.sort(key=lambda image: next(i for i, word in enumerate(_LEADING) if image.startswith(word)))
    others = [image for image in renamed if not image.startswith(_LEADING)]
    return leading + others + rest
