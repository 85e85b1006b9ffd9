"""What must not be lost between two FITS files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits

MADE_ANEW = re.compile(
    "(SIMPLE|XTENSION|BITPIX|NAXIS[0-9]*|EXTEND|PCOUNT|GCOUNT|GROUPS|BLOCKED"  # the file's structure
    "|BSCALE|BZERO|BLANK"  # how its pixels are stored: these are compared themselves
    "|BUNIT|INHERIT"  # written in the standard's words: compared by what they mean
    "|Z?CHECKSUM|ZHECKSUM|Z?DATASUM)$"  # sums of the bytes of one file
)
"""Cards that a file has of itself. What they say holds for the other file as well, and is compared there or said anew."""

RENAMED = {"RADECSYS": "RADESYS"}
"""Keywords that the standard has renamed."""

UNITS = {"ADU": "adu", "COUNTS": "count", "COUNTS/S": "count s-1", "ELECTRONS": "electron"}
"""Words of headers that are no units of the standard."""


def cards(header: fits.Header) -> Counter[str]:
    """Return the texts of the cards that must not be lost: keyword, value and comment as they are, and how often.

    Five things are not as they were, since the standard does not allow them: a card that cannot be parsed is text without a
    keyword, an old keyword is the new one, bytes that are no ASCII text are question marks, exponents are upper case, and
    INHERIT does not stand in a primary header. Blank cards at the end are room for more.
    """
    found: list[str] = []
    for card in header.cards:
        keyword = RENAMED.get(card.keyword, card.keyword)
        if not MADE_ANEW.match(keyword):
            text = str(card._image or card)  # the property `image` would mend it
            text = re.sub(r"[^ -~]", "?", f"{keyword:<8}{text[8:]}" if keyword != card.keyword else text)
            found += _lines(re.sub(r"(?<=[0-9.])e(?=[-+]?[0-9])", "E", text), card)
    while found and not found[-1]:
        found.pop()
    return Counter(found)


def _lines(text: str, card: fits.Card) -> list[str]:
    """Return the lines of a card; those of 72 characters without a keyword of one that cannot be parsed."""
    try:
        _ = card.value
    except fits.VerifyError:
        raw = text.rstrip()
        return [" " * 8 + raw[i : i + 72].rstrip() for i in range(0, len(raw), 72)]
    return [text[i : i + 80].rstrip() for i in range(0, max(len(text), 1), 80)]


def _pixels(path: Path, number: int, dtype: np.dtype[Any]) -> Any:
    """Return the pixels of an image exactly; where BSCALE makes others of them, as near as the other file's type has them."""
    with fits.open(path, do_not_scale_image_data=True) as file:
        hdu = file[number]
        header = hdu.header.copy()
        if header["BITPIX"] < 0 or "BSCALE" not in header or isinstance(hdu, fits.CompImageHDU):
            with fits.open(path) as scaled:
                return scaled[number].data.astype(float)
        scale = float(header["BSCALE"])
        pixels = hdu.data * scale + float(header.get("BZERO", 0))  # astropy scales 16-bit integers in float32
        return pixels if scale == 1 else pixels.astype(dtype)


def _raw(hdu: Any) -> bytes:
    """Return the bytes of the data."""
    info = hdu.fileinfo()
    info["file"].seek(info["datLoc"])
    return bytes(info["file"].read(hdu.size))


def _assert_meaning_kept(old: fits.Header, new: fits.Header) -> None:
    """Assert that a unit and INHERIT are what they were; the unit of pixels that have none is stated, as adu or by its plane."""
    if unit := str(old.get("BUNIT", "")).strip():
        assert new["BUNIT"] == unit or u.Unit(new["BUNIT"]) == u.Unit(UNITS.get(unit, unit))
    if "XTENSION" in old:
        assert new.get("INHERIT") == old.get("INHERIT")


def assert_nothing_lost(before: Path, after: Path, *, masks: bool = True) -> None:
    """Assert that each HDU of a file is in another, in order, with its cards and pixels, or byte for byte."""
    with fits.open(before) as old, fits.open(after, checksum=True) as new:
        rest = list(new)
        for i, hdu in enumerate(old):
            while hdu.name not in {"DQ", "UNCERT"} and rest[0].name in {"DQ", "UNCERT"}:
                del rest[0]
            other = rest.pop(0)
            assert not cards(hdu.header) - cards(other.header)
            if hdu.header.get("SIMPLE") is False:
                continue  # what follows is no data, and astropy takes it for some
            if not hdu.is_image:
                assert _raw(other) == _raw(hdu)
            elif hdu.data is None or hdu.data.size == 0:
                assert other.data is None or other.data.size == 0
            elif masks or hdu.name not in {"DQ", "BPM"}:
                _assert_meaning_kept(hdu.header, other.header)
                np.testing.assert_array_equal(other.data, _pixels(before, i, other.data.dtype))
            else:  # codes have become planes
                assert other.data.shape == hdu.data.shape
                assert other.data[hdu.data != 0].all()
