"""Learn what a FITS file contains from its headers alone.

1. Read blocks until the END card; keep the cards as text.
2. Let astropy read the values of the few cards that say where the pixels are; the others are not parsed here.
3. Skip the data by their size and go on, until the file ends.

A file that is not exactly as long as its headers say is refused: line-ending conversion and broken transfers shift
bytes, and what is then read looks like an image. `Cards` holds the text of a header and parses a card when it is asked for:
of a few hundred cards about ten say where the pixels are, and astropy takes 11 ms to parse the values of 318.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from astropy.io.fits import Card
from astropy.io.fits.verify import VerifyError

from lazyccd.errors import FormatError, KeywordError, LazyCCDError
from lazyccd.io.fits.byte_source import ByteSource, Identity, open_source
from lazyccd.io.fits.tile_table import TileTable, image_cards, is_default_name
from lazyccd.io.names import Name, is_url, parse_name

logger = logging.getLogger(__name__)

BLOCK = 2880
"""Bytes of a FITS block, the unit of headers and data."""

CARD = 80
"""Characters of a card."""

# 360 cards: of 686 headers of 250 files of many cameras 97 % fit, and each costs one read, or one request.
_FIRST_READ = 10 * BLOCK
# A file that is no FITS file any more is not read to its end in search of END.
_LONGEST_HEADER = 64 << 20
# Blanks follow END; some writers put NUL bytes there.
_END = re.compile(rb"END[ \0]{5}")
_NOT_TEXT = {code: " " if code in (0, 9, 10, 13) else "?" for code in range(256) if not 32 <= code <= 126}

Kind = Literal["image", "table", "none", "other"]


class Damage(NamedTuple):
    """An HDU whose header cannot be read."""

    hdu: int
    """Number of the HDU."""

    reason: str
    """What is wrong with it, as a message."""


@dataclass(frozen=True)
class HduInfo:
    """One header and data unit."""

    index: int
    """Place in the file, 0 for the primary."""

    name: str
    """EXTNAME, "" without one; "PRIMARY" for HDU 0 without one. Its case does not matter in selectors."""

    ver: int
    """EXTVER, 1 without one."""

    kind: Kind
    """What the data are: an image (compressed or not), a table, nothing, or something else."""

    shape: tuple[int, ...]
    """Shape of the image, in NumPy's order; empty for anything else."""

    bitpix: int
    """BITPIX of the image."""

    bscale: float
    """BSCALE, 1 without one."""

    bzero: float
    """BZERO, 0 without one."""

    blank: int | None
    """BLANK of an integer image."""

    offset: int
    """Where the header starts, in bytes after whole-file decompression."""

    data_offset: int
    """Where the data start."""

    data_size: int
    """Bytes of data without the padding."""

    tiles: TileTable | None
    """Where the tiles of a tile-compressed image are; None for a plain one."""

    header: str = field(repr=False)
    """Cards of 80 characters joined by newlines, as in the file; of a compressed image those of the image."""

    damage: str = ""
    """Why the data cannot be read, though the header says what they are."""

    @property
    def label(self) -> str:
        """The HDU as it is written behind a file name."""
        # A name such as '11' would be read as the number of an HDU.
        if self.index == 0 or not self.name or self.name.isdigit():
            return f"[{self.index}]"
        return f"[{self.name},{self.ver}]"

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Shape without axes of length 1, as far as two axes remain."""
        shape = list(self.shape)
        while len(shape) > 2 and 1 in shape:
            shape.remove(1)
        return tuple(shape)

    @property
    def is_plane(self) -> bool:
        """Whether this is an image of two axes, or can be read as one."""
        return self.kind == "image" and len(self.plane_shape) == 2


@dataclass(frozen=True)
class FitsFile:
    """A FITS file as its headers describe it."""

    path: str
    """Absolute path, or URL."""

    identity: Identity
    """Size, time of change and inode when the headers were read."""

    encoding: str
    """How the file is compressed as a whole: "gzip", "bzip2", "xz", or "" if it is not."""

    hdus: tuple[HduInfo, ...]
    """All HDUs whose headers can be read."""

    damaged: tuple[Damage, ...] = ()
    """All others, if what is wrong with them was not to be raised."""

    def __str__(self) -> str:
        """List the HDUs, for messages."""
        lines = [f"  [{hdu.index}] {hdu.name or '-'},{hdu.ver} {hdu.kind} {hdu.shape or ''}" for hdu in self.hdus]
        return "\n".join([self.path, *lines])


def scan_fits(path: Name, *, keep_going: bool = False) -> FitsFile:
    """Read the headers of a FITS file, and no pixels.

    Parameters
    ----------
    path
        Local path or URL. A file compressed as a whole is decompressed here, once per process.
    keep_going
        Say in the result what is wrong with damaged extensions, instead of raising.

    Raises
    ------
    FormatError
        Raised if the file is not FITS, is cut or damaged, or a header has no END card or contradicts itself.
    MissingFileError
        Raised if it is not there.
    """
    text = parse_name(path).path
    full = text if is_url(text) else os.path.abspath(text)
    source, identity, encoding = open_source(full)
    try:
        damaged: list[Damage] | None = [] if keep_going else None
        return FitsFile(full, identity, encoding, _scan(source, damaged), tuple(damaged or ()))
    finally:
        source.close()


def _scan(source: ByteSource, damaged: list[Damage] | None) -> tuple[HduInfo, ...]:
    """Walk through the HDUs of a file; put what is wrong with extensions into them or ``damaged`` if it is a list."""
    hdus: list[HduInfo] = []
    index, offset = 0, 0
    try:
        while offset < source.size:
            # Behind the last extension there may be special records (section 3.5) or padding, but no header.
            if offset and source.read(offset, 8) != b"XTENSION":
                _check_rest(source, offset, index)
                break
            where = f"{source.name}[{index}]"
            text, start = _read_header(source, offset, where)
            cards = Cards(text, where)
            stored = _data_bytes(cards, _axes(cards, "NAXIS"))
            # Data units end with whole blocks of 2880 bytes (section 3.1).
            stop = start + -(-stored // BLOCK) * BLOCK
            cut = _wrong_length(source, where, start, stored, stop)
            if cut:
                _allow(cut, damaged, hdus)
            try:
                hdus.append(replace(_describe(cards, index, offset, start), damage=str(cut or "")))
            except (FormatError, KeywordError) as error:
                _allow(error, damaged, hdus).append(Damage(index, str(error)))
            index, offset = index + 1, stop
    except (FormatError, KeywordError) as error:
        _allow(error, damaged, hdus).append(Damage(index, str(error)))
    if not hdus:
        raise FormatError(f"{source.name} is empty and must be a FITS file; fetch it again.")
    return tuple(hdus)


def _allow(error: LazyCCDError, damaged: list[Damage] | None, hdus: list[HduInfo]) -> list[Damage]:
    """Return where to note what is wrong with an extension; raise it if it must not be, or there is no primary HDU yet."""
    if damaged is None or not hdus:
        raise error
    return damaged


def _wrong_length(source: ByteSource, where: str, start: int, stored: int, stop: int) -> FormatError | None:
    """Return why the file does not hold an HDU in full, if so; only the padding behind it may be absent."""
    # Many programs omit the fill of the last block; nothing is lost by that.
    if stop <= source.size or source.size == start + stored:
        return None
    if source.size < start + stored:
        return FormatError(
            f"{where} is truncated: its {stored} bytes of data end at byte {start + stored} and the file has "
            f"{source.size}; fetch the file again."
        )
    return FormatError(
        f"{where} is damaged: its last block ends at byte {stop} and the file has {source.size}, so bytes are missing "
        "somewhere, as after a conversion of line ends; fetch the file again in binary mode."
    )


def _check_rest(source: ByteSource, offset: int, count: int) -> None:
    """Accept padding behind the last HDU, and refuse anything else: bytes were added or the data are longer."""
    for place in range(offset, source.size, _FIRST_READ):
        if source.read(place, _FIRST_READ).strip(b"\0 "):
            raise FormatError(
                f"{source.name} is damaged: {source.size - offset} bytes behind HDU {count - 1} are no extension, as "
                "after a conversion of line ends or with a wrong header; fetch the file again in binary mode."
            )


def _read_header(source: ByteSource, offset: int, where: str) -> tuple[str, int]:
    """Return the text of a header without its END card, and where the data start."""
    raw = source.read(offset, _FIRST_READ)
    if offset == 0 and not re.match(rb"SIMPLE *=", raw):
        raise _not_fits(source.name, raw)
    searched = 0
    while True:
        for match in _END.finditer(raw, searched):
            # END may also stand inside a comment.
            if match.start() % CARD == 0:
                text = raw[: match.start()].decode("latin-1")
                return _as_text(text, where), offset + -(-(match.start() + CARD) // BLOCK) * BLOCK
        searched = max(len(raw) - CARD, 0)
        more = source.read(offset + len(raw), max(_FIRST_READ, len(raw)))
        if not more or len(raw) > _LONGEST_HEADER:
            raise FormatError(
                f"{where} has no END card in {len(raw)} bytes of header; the file is cut or was changed as text, "
                "fetch it again in binary mode."
            )
        raw += more


def _as_text(text: str, where: str) -> str:
    """Replace what is not printable ASCII, which would break the lines of the header."""
    clean = text.translate(_NOT_TEXT)
    if clean != text:
        logger.warning("%s: the header has characters that are not printable ASCII; shown as '?' or blank.", where)
    return clean


def _not_fits(name: str, raw: bytes) -> FormatError:
    """Make the error of a file that does not begin as FITS does."""
    # Test data of pipelines come by Git LFS, and a clone without it has these pointers.
    if raw.startswith(b"version https://git-lfs"):
        return FormatError(f"{name} is a pointer of Git LFS and not the FITS file itself; run 'git lfs pull'.")
    begin = f"begins with {raw[:20]!r}" if raw else "is empty"
    return FormatError(f"{name} {begin} and a FITS file begins with 'SIMPLE  ='; it is another format or damaged.")


def _describe(cards: Cards, index: int, offset: int, start: int) -> HduInfo:
    """Return what a header says that starts at ``offset``, and its data at ``start``."""
    axes = _axes(cards, "NAXIS")
    stored = _data_bytes(cards, axes)
    kind = _kind(cards, axes, index)
    # ZIMAGE = T is what marks the table of a compressed image (section 10.1.1).
    compressed = kind == "table" and cards.get("ZIMAGE") is True
    prefix = "Z" if compressed else ""
    shape: tuple[int, ...] = ()
    tiles = None
    images = cards.images
    if compressed:
        axes = _axes(cards, "ZNAXIS")
        kind = _image_kind(axes)
        # Users see the header of the image, not that of the table that holds it (section 10.1).
        images = image_cards(cards.images)
        tiles = TileTable.from_cards(cards, axes, start) if kind == "image" else None
    if kind == "image":
        shape = tuple(reversed(axes))
    bitpix = cards.integer(f"{prefix}BITPIX", 8)
    name = str(cards.get("EXTNAME", "" if index else "PRIMARY")).strip()
    return HduInfo(
        index=index,
        name=name,
        ver=cards.integer("EXTVER", 1),
        kind=kind,
        shape=shape,
        bitpix=bitpix,
        bscale=cards.number("BSCALE", 1.0) if kind == "image" else 1.0,
        bzero=cards.number("BZERO", 0.0) if kind == "image" else 0.0,
        blank=cards.integer("BLANK") if kind == "image" and bitpix > 0 and "BLANK" in cards else None,
        offset=offset,
        data_offset=start,
        data_size=stored,
        tiles=tiles,
        header="\n".join(images),
    )


def _axes(cards: Cards, keyword: str) -> list[int]:
    """Return the lengths of the axes in the order of FITS."""
    count = cards.integer(keyword)
    axes = [cards.integer(f"{keyword}{i + 1}") for i in range(count)]
    if count < 0 or any(axis < 0 for axis in axes):
        raise FormatError(
            f"{cards.where}: {keyword} {count} with axes {axes} must not be negative; correct the header."
        )
    return axes


def _data_bytes(cards: Cards, axes: list[int]) -> int:
    """Return the size of the data by the formula of the standard."""
    bitpix = cards.integer("BITPIX")
    if bitpix not in (8, 16, 32, 64, -32, -64):
        raise FormatError(f"{cards.where}: BITPIX {bitpix} must be 8, 16, 32, 64, -32 or -64; correct the header.")
    if not axes:
        return 0
    # Random groups (section 6) write their size with NAXIS1 = 0.
    if axes[0] == 0 and cards.get("GROUPS") is True:
        axes = axes[1:]
    pixels = 1
    for axis in axes:
        pixels *= axis
    groups, parameters = cards.integer("GCOUNT", 1), cards.integer("PCOUNT", 0)
    # They would make the data smaller than the image.
    if groups < 1 or parameters < 0:
        raise FormatError(
            f"{cards.where}: GCOUNT {groups} must be at least 1 and PCOUNT {parameters} not negative; correct the header."
        )
    # Equation 2 of section 4.4.1.2.
    return abs(bitpix) // 8 * groups * (parameters + pixels)


def _image_kind(axes: list[int]) -> Kind:
    """Tell an image from one without pixels."""
    return "image" if axes and 0 not in axes else "none"


def _kind(cards: Cards, axes: list[int], index: int) -> Kind:
    """Tell images from tables and the rest."""
    if index == 0:
        if cards.get("SIMPLE") is not True or (axes and axes[0] == 0 and cards.get("GROUPS") is True):
            return "other"
        return _image_kind(axes)
    extension = str(cards.get("XTENSION", "")).rstrip()
    if extension in ("BINTABLE", "A3DTABLE", "TABLE"):
        return "table"
    if extension == "IMAGE":
        return _image_kind(axes)
    return "other"


@lru_cache(maxsize=4096)
def _read_card(image: str) -> Any:
    """Return the value of a card as astropy reads it; the cards of a camera's extensions are mostly the same."""
    return Card.fromstring(image).value


class Cards:
    """The cards of one header, parsed one by one when asked for."""

    def __init__(self, text: str, where: str) -> None:
        """Split the text; ``where`` names the file and HDU in messages."""
        self.images = [text[i : i + CARD] for i in range(0, len(text), CARD)]
        self.where = where
        # Of several cards with one keyword the first counts, as in astropy.
        self._first = (
            self._joined()
            if "CONTINUE" in text
            # Looking at each card for it takes 15 of the 210 microseconds of a scan, and most headers have none.
            else {image[:8].rstrip(): image for image in reversed(self.images)}
        )
        # Compressed images may carry the default name beside their own.
        names = [image for image in self.images if image.startswith("EXTNAME ")] if "EXTNAME " in text else []
        if len(names) > 1 and (own := [image for image in names if not is_default_name(image)]):
            self._first["EXTNAME"] = own[0]

    def _joined(self) -> dict[str, str]:
        """Return the first card of each keyword, with the text of those that go on with it."""
        first: dict[str, str] = {}
        # joined once: a header may have 200 000 of them
        continued: list[str] = []
        for image in reversed(self.images):
            continued.append(image)
            if image.startswith("CONTINUE"):
                continue
            first[image[:8].rstrip()] = "".join(reversed(continued))
            continued = []
        return first

    def __contains__(self, keyword: str) -> bool:
        """Return whether there is such a card."""
        return keyword in self._first

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return the value of a card as astropy reads it."""
        image = self._first.get(keyword)
        if image is None:
            return default
        problem = f"{self.where}: card {image.rstrip()!r} has no readable value; correct the header."
        # Anything but "= " is no value to FITS, and astropy would only warn.
        if image[8:10] != "= ":
            raise KeywordError(problem)
        try:
            value = _read_card(image)
        except (VerifyError, ValueError) as error:
            raise KeywordError(problem) from error
        return default if value is None or not isinstance(value, (str, int, float, bool)) else value

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return the value of a card that must be an integer."""
        value = self.get(keyword, default)
        # FITS wants an integer here; 2048.0 can mean only one number, so it is no reason to refuse an image.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise FormatError(f"{self.where}: {keyword} is {value!r} and must be an integer; correct the header.")
        return value

    def number(self, keyword: str, default: float) -> float:
        """Return the value of a card that must be a number."""
        value = self.get(keyword, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise FormatError(f"{self.where}: {keyword} is {value!r} and must be a number; correct the header.")
        return float(value)
