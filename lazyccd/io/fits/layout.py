"""Lay out a FITS file that is to be written: its HDUs, their header bytes and checksums, the cards of a mask."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits

from lazyccd.errors import ParameterError, ShapeError
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.io.fits.scan import BLOCK, CARD
from lazyccd.io.fits.tile_writer import RECORD, Packing, TileGrid, packing_cards, table_cards
from lazyccd.kernels.fits.decode import DITHER_COUNT
from lazyccd.kernels.fits.encode import MASK32, fold_datasum
from lazyccd.mask_planes import MaskSchema

UNCERTAINTY_CLASSES = {"std": "StdDevUncertainty", "var": "VarianceUncertainty", "ivar": "InverseVariance"}
"""Value of the UTYPE card for each ``uncertainty_type``: the class that ``CCDData.read`` makes."""

_BITPIX = {"uint8": 8, "uint16": 16, "uint32": 32, "float32": -32, "float64": -64}
# FITS has no unsigned integers but bytes; by convention they are stored with this offset (standard, section 5.2.5).
_BZERO = {"uint16": 1 << 15, "uint32": 1 << 31}
# Cards that are true for the file they were read from, and wrong or forbidden in the one that is written.
_STRUCTURAL = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|INHERIT|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|END|"
    r"ZIMAGE|ZCMPTYPE|ZBITPIX|ZNAXIS\d*|ZTILE\d+|ZNAME\d+|ZVAL\d+|ZMASKCMP|ZQUANTIZ|ZDITHER0|ZBLANK|ZSCALE|ZZERO|ZSIMPLE|"
    r"BLOCKED|ZTENSION|ZEXTEND|ZBLOCKED|ZPCOUNT|ZGCOUNT|ZHECKSUM|ZDATASUM|"
    # of tables: not allowed in images, and the columns of compressed ones
    r"TFIELDS|THEAP|(TTYPE|TFORM|TUNIT|TNULL|TSCAL|TZERO|TDISP|TDIM|TBCOL)\d+)$"
)

_OF_FURTHER_AXIS = re.compile(r"(CTYPE|CUNIT|CRPIX|CRVAL|CDELT|CROTA)[3-9] ")


class PlaneHdu(NamedTuple):
    """Where a plane of a frame is written."""

    plane: str
    """Variable of the frame; ``bad`` is the mask in 0 and 1."""

    hdu: int
    """Number of the HDU in the file."""


@dataclass(frozen=True)
class HduSpec:
    """One HDU of a file to be written."""

    name: str
    """EXTNAME; empty for none (a card in ``header`` then stays)."""

    header: str
    """Cards joined by newlines. Cards about structure, scaling, compression, checksums are left out and made anew."""

    shape: tuple[int, ...]
    """``(ny, nx)``, or ``()`` for a header without data."""

    dtype: str = "float32"
    """Native type of the pixels: float32, float64, uint8, uint16 or uint32 (the last two are stored with BZERO)."""

    packing: Packing | None = None
    """How the image is compressed tile by tile; None for not at all. The primary then follows an empty one as a table."""

    squeezed: tuple[int, ...] = ()
    """Numbers of further axes, of length 1."""

    inherit: bool | None = None
    """Whether an extension inherits the primary's cards; None to say nothing."""

    kept: KeptBytes | None = None
    """Bytes that are the whole HDU, header and data."""

    def __post_init__(self) -> None:
        """Raise for types, shapes and cards that FITS cannot hold."""
        object.__setattr__(self, "dtype", np.dtype(self.dtype).name)
        if self.dtype not in _BITPIX:
            raise ParameterError(
                f"HDU {self.name!r}: dtype {self.dtype} must be one of {', '.join(_BITPIX)}; convert first."
            )
        if self.shape and (len(self.shape) != 2 or min(self.shape) < 1):
            raise ShapeError(f"HDU {self.name!r}: shape {self.shape} must be (ny, nx) with at least one pixel.")
        too_long = [card for card in self.header.split("\n") if len(card) > CARD]
        if too_long:
            raise ParameterError(
                f"HDU {self.name!r}: card {too_long[0]!r} has {len(too_long[0])} characters and a card holds {CARD}; "
                "make cards by astropy.io.fits.Header."
            )

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape) if self.shape else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels, or of what is kept, without padding."""
        if self.kept is not None:
            return self.kept.size
        return self.pixels * np.dtype(self.dtype).itemsize

    @property
    def grid(self) -> TileGrid | None:
        """Tiles of a compressed image."""
        if self.packing is None:
            return None
        return TileGrid(self.packing, (self.shape[0], self.shape[1]), self.dtype)

    @property
    def room(self) -> int:
        """Bytes of the data unit in the unfinished file, where each compressed tile has a record and room for the longest."""
        grid = self.grid
        return self.nbytes if grid is None else grid.count * (RECORD.itemsize + grid.room)


def frame_hdus(
    shape: tuple[int, int],
    header: str,
    *,
    dtype: str = "float32",
    uncertainty_type: str | None = None,
    uncertainty_unit: str = "",
    schema: MaskSchema | None = None,
    maps: Mapping[str, tuple[str, str]] | None = None,
    compress: str | None = None,
    steps: float = 0.0,
    dither: str = "NO_DITHER",
) -> tuple[HduSpec, ...]:
    """Return the HDUs of a frame: the image, UNCERT if there is an uncertainty, MASK and DQ if there is a mask.

    MASK is 0 or 1 (bad), because ``CCDData.read`` casts it to bool; DQ has the planes and the cards that name them.
    Only the image and UNCERT are ever quantised.

    Parameters
    ----------
    shape
        Shape ``(ny, nx)`` of all of them.
    header
        Cards of the primary HDU, joined by newlines; BUNIT among them.
    dtype
        Type of image and uncertainty.
    uncertainty_type
        ``std``, ``var`` or ``ivar``; None for no uncertainty.
    uncertainty_unit
        Unit of the uncertainty for its BUNIT card.
    schema
        Planes of the mask; None for no mask.
    maps
        Types and units of maps of a stack or mosaic, by name.
    compress, steps, dither
        Algorithm of tile compression, None for none; and for floats the steps per standard deviation of their noise, 0 to
        keep all bits, and how they are dithered.
    """
    hdus = [HduSpec("", header, shape, dtype)]
    if uncertainty_type is not None:
        cards = [fits.Card("UTYPE", UNCERTAINTY_CLASSES[uncertainty_type], "class of the uncertainty in CCDData")]
        cards += [fits.Card("BUNIT", uncertainty_unit, "unit of the uncertainty")] if uncertainty_unit else []
        hdus.append(HduSpec("UNCERT", _card_text(cards), shape, dtype))
    if schema is not None:
        hdus.append(HduSpec("MASK", "COMMENT 1 where a plane of DQ that counts as bad is set", shape, "uint8"))
        hdus.append(HduSpec("DQ", mask_cards(schema), shape, schema.dtype.name))
    for name, (kind, unit) in (maps or {}).items():
        hdus.append(HduSpec(name.upper(), _card_text([fits.Card("BUNIT", unit)] if unit else []), shape, kind))
    return pack_hdus(hdus, {"", "UNCERT"}, header, compress, steps, dither)


def pack_hdus(
    hdus: Iterable[HduSpec], noisy: Iterable[str | int], header: str, compress: str | None, steps: float, dither: str
) -> tuple[HduSpec, ...]:
    """Return the HDUs with their images compressed tile by tile; HDUs that are copied stay unchanged.

    Parameters
    ----------
    hdus
        All HDUs of a file.
    noisy
        Names or numbers of those whose floats may be quantised.
    header
        What the seed of the dithering comes from: frames differ in their headers, so no clock is needed.
    compress, steps, dither
        As in `frame_hdus`.
    """
    listed, chosen = tuple(hdus), set(noisy)
    if compress is None:
        return listed
    # Equal frames must give equal bytes, and dithering frames alike would correlate their noise.
    seed = zlib.crc32(header.encode("latin-1", "replace")) % DITHER_COUNT + 1

    def packed(number: int, hdu: HduSpec) -> HduSpec:
        if not hdu.shape:
            return hdu
        # Quantising masks and counts would change their meaning.
        level = steps if {hdu.name, number} & chosen else 0.0
        return replace(hdu, packing=Packing.of(compress, (hdu.shape[0], hdu.shape[1]), hdu.dtype, level, dither, seed))

    return tuple(packed(number, hdu) for number, hdu in enumerate(listed))


def mask_cards(schema: MaskSchema) -> str:
    """Return the cards that name the planes of a mask, joined by newlines.

    For plane n = 1, 2, ...: MSKNnnnn is its name, MSKMnnnn its value, MSKBnnnn whether it counts as bad, MSKDnnnn its
    description.

    Examples
    --------
    >>> cards = mask_cards(MaskSchema().with_plane("GHOST", "Optical ghost", bad=False))
    >>> print(cards.split(chr(10))[-4].rstrip())
    MSKN0009= 'GHOST   '
    """
    cards = []
    for i, plane in enumerate(schema.planes):
        cards.append(fits.Card(f"MSKN{i + 1:04}", plane.name))
        cards.append(fits.Card(f"MSKM{i + 1:04}", 1 << i))
        cards.append(fits.Card(f"MSKB{i + 1:04}", plane.bad, "counts as bad"))
        cards.append(fits.Card(f"MSKD{i + 1:04}", plane.description))
    return _card_text(cards)


def padded(size: int) -> int:
    """Return a size rounded up to whole FITS blocks."""
    return -(-size // BLOCK) * BLOCK


def header_block(spec: HduSpec, primary: bool, datasum: int | None = None, heap: int = 0, longest: int = 0) -> bytes:
    """Return the header of an HDU in whole blocks.

    Parameters
    ----------
    spec, primary
        The HDU, and whether it is the first. A compressed image cannot be, so an empty primary HDU goes before it.
    datasum
        DATASUM of the data; without it the checksums are blank but have their place.
    heap, longest
        Bytes of all compressed tiles and of the longest.
    """
    if spec.kept is not None:
        return b""
    before = b""
    grid = spec.grid
    if grid is None:
        cards = [_first_card(primary), *(_card(*pair) for pair in _image_cards(spec, primary, ""))]
    else:
        # A compressed image is a binary table, which cannot be the primary HDU (section 10.1).
        before = header_block(HduSpec("", "", ()), True, 0) if primary else b""
        original = "ZSIMPLE =                    T" if primary else "ZTENSION= 'IMAGE   '"
        values = [("BITPIX", 8), *table_cards(grid, heap, longest), ("ZIMAGE", "T")]
        tile = [(f"ZTILE{i}", length) for i, length in enumerate(_lengths(grid.packing.tile, spec.squeezed), 1)]
        values_of_image = [*_image_cards(spec, primary, "Z"), *tile, *packing_cards(grid.packing, spec.dtype)]
        cards = ["XTENSION= 'BINTABLE'", *(_card(*pair) for pair in values), original]
        cards += [_card(*pair) for pair in values_of_image]
    if spec.inherit is not None and not primary:
        cards.append(f"INHERIT = {'T' if spec.inherit else 'F':>20}")
    if spec.dtype in _BZERO:
        cards += [_card("BSCALE", 1), _card("BZERO", _BZERO[spec.dtype])]
    cards += [f"EXTNAME = '{spec.name:<8}'"] if spec.name else []
    cards += _free_cards(spec)
    return before + _with_checksums(cards, datasum)


def _image_cards(spec: HduSpec, primary: bool, prefix: str) -> list[tuple[str, Any]]:
    """Return keywords and values that describe an image, behind the first card."""
    bitpix, axes = _BITPIX[spec.dtype], _lengths(spec.shape, spec.squeezed)
    if not spec.shape:
        bitpix, axes = _without_pixels(spec.header)
    pairs: list[tuple[str, Any]] = [("BITPIX", bitpix), ("NAXIS", len(axes))]
    pairs += [(f"NAXIS{i}", length) for i, length in enumerate(axes, 1)]
    pairs += [("EXTEND", "T")] if primary else [("PCOUNT", 0), ("GCOUNT", 1)]
    return [(prefix + keyword, value) for keyword, value in pairs]


def _lengths(shape: tuple[int, ...], squeezed: tuple[int, ...]) -> list[int]:
    """Return the lengths of all axes in the order of FITS."""
    axes = list(reversed(shape))
    # Cubes of one plane come back as cubes: their WCS speaks of all axes.
    for axis in squeezed:
        axes.insert(axis - 1, 1)
    return axes


def _without_pixels(header: str) -> tuple[int, list[int]]:
    """Return BITPIX and axes of a header without data. It keeps the number of its axes, with length 0 unless one had it.

    Cards of a WCS in it speak of these axes.
    """
    had = {key: int(value) for key, value in re.findall(r"^(BITPIX|NAXIS\d*) *= +(-?\d+)", header, re.MULTILINE)}
    axes = [had.get(f"NAXIS{i}", 0) for i in range(1, had.get("NAXIS", 0) + 1)]
    return had.get("BITPIX", 8), axes if 0 in axes else [0] * len(axes)


def _with_checksums(cards: list[str], datasum: int | None) -> bytes:
    """Return a header with CHECKSUM and DATASUM at its end."""
    # The comments are fixed: astropy and CFITSIO put the time there, and equal work would not give equal bytes.
    checksums = [
        "CHECKSUM= '0000000000000000'   / HDU checksum",
        f"DATASUM = '{datasum or 0:<10}'         / data checksum",
    ]
    text = "".join(f"{card:<80}" for card in (*cards, *checksums, "END"))
    block = text.ljust(padded(len(text))).encode("ascii")
    if datasum is None:
        return block
    # CHECKSUM makes the ones-complement sum of the whole HDU all ones (section 4.4.2.7), and is 0 while it is computed.
    total = fold_datasum(int(np.frombuffer(block, ">u4").sum(dtype=np.uint64)) + datasum)
    return block.replace(b"CHECKSUM= '0000000000000000'", b"CHECKSUM= '%s'" % _encode_checksum(MASK32 - total), 1)


def _first_card(primary: bool) -> str:
    """Return the card that says what kind of HDU follows."""
    return _card("SIMPLE", "T") if primary else "XTENSION= 'IMAGE   '"


def _card(keyword: str, value: Any) -> str:
    """Return a card; T is the logical value."""
    if isinstance(value, str) and value != "T":
        return f"{keyword:<8}= '{value:<8}'"
    return f"{keyword:<8}= {value:>20}"


def _card_text(cards: Iterable[fits.Card]) -> str:
    """Return cards (long strings take several) as text joined by newlines."""
    return str(fits.Header(cards).tostring(sep="\n", endcard=False, padding=False))


def _free_cards(spec: HduSpec) -> list[str]:
    """Return the cards given by the caller, without those that describe how some other file was stored."""
    cards, dropped = [], False
    for card in spec.header.split("\n"):
        keyword = card[:8].rstrip()
        if keyword != "CONTINUE":
            dropped = bool(_STRUCTURAL.match(keyword)) or (bool(spec.name) and keyword == "EXTNAME")
        if not dropped and card:
            # Only printable ASCII may stand in a header; raw frames carry other bytes now and then.
            cards.append(re.sub(r"[^ -~]", "?", card))
    if spec.packing and spec.squeezed and any(_OF_FURTHER_AXIS.match(card) for card in cards):
        # a compressed image is a table of two axes, and readers take the number of axes from it
        axes = len(spec.shape) + len(spec.squeezed)
        cards += [] if any(card.startswith("WCSAXES ") for card in cards) else [_card("WCSAXES", axes)]
    cards.sort(key=lambda card: not card.startswith("WCSAXES"))  # which must stand before all others of a WCS
    keywords = {card[:8].rstrip() for card in cards}
    # FITS 4.0 no longer needs LONGSTRN, but readers of the older convention, such as IDL's fxpar, join a string with its
    # CONTINUE cards only where this keyword is present.
    if "CONTINUE" in keywords and "LONGSTRN" not in keywords:
        cards.insert(0, "LONGSTRN= 'OGIP 1.0'           / strings may continue over several cards")
    return cards


def _encode_checksum(value: int) -> bytes:
    """Return a checksum as the 16 characters of the FITS standard, appendix J."""
    columns = []
    for byte in value.to_bytes(4, "big"):
        quotient, remainder = divmod(byte, 4)
        chars = [quotient + remainder + 48, quotient + 48, quotient + 48, quotient + 48]
        # Characters that are neither digits nor letters move apart in pairs, which keeps their sum.
        while any(58 <= c <= 64 or 91 <= c <= 96 for c in chars):
            for j in (0, 2):
                if any(58 <= c <= 64 or 91 <= c <= 96 for c in chars[j : j + 2]):
                    chars[j] += 1
                    chars[j + 1] -= 1
        columns.append(chars)
    text = bytes(columns[i][j] for j in range(4) for i in range(4))
    return text[-1:] + text[:-1]
