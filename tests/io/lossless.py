"""What must not be lost between two FITS files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

MADE_ANEW = {
    "SIMPLE",
    "XTENSION",
    "BITPIX",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "EXTEND",
    "PCOUNT",
    "GCOUNT",
    "BSCALE",
    "BZERO",
}
MADE_ANEW |= {"BLANK", "CHECKSUM", "DATASUM", "BUNIT", "GROUPS", "BLOCKED", "ZDATASUM", "ZHECKSUM"}
"""Cards that say how pixels are stored, and those that a file has of itself."""

RENAMED = {"RADECSYS": "RADESYS"}


def cards(header: fits.Header) -> list[tuple[str, Any]]:
    """Return the cards that must not be lost; comments and history as text."""
    found = []
    for card in header.cards:
        keyword = RENAMED.get(card.keyword, card.keyword)
        if keyword not in MADE_ANEW and not keyword.startswith("MSK") and keyword != "UTYPE":
            found.append(_content(keyword, card))
    return [card for card in found if any(card)]  # blank cards are room


def _content(keyword: str, card: fits.Card) -> tuple[str, str]:
    """Return keyword and value; a card that the standard does not allow is kept as a text without a keyword."""
    try:
        return keyword, str(card.value).strip()
    except fits.VerifyError:
        return "", str(card._image)[:72].strip()  # the property would mend it


def _pixels(path: Path, number: int) -> Any:
    """Return the pixels of an image in float64, where astropy scales 16-bit integers in float32."""
    with fits.open(path, do_not_scale_image_data=True) as file:
        hdu = file[number]
        header = hdu.header.copy()
        if header["BITPIX"] < 0 or "BSCALE" not in header or isinstance(hdu, fits.CompImageHDU):
            with fits.open(path) as scaled:
                return scaled[number].data.astype(float)
        return hdu.data * float(header["BSCALE"]) + float(header.get("BZERO", 0))


def assert_nothing_lost(before: Path, after: Path, *, masks: bool = True) -> None:
    """Assert that each HDU of a file is in another, in order, with its cards and pixels, or byte for byte."""
    with fits.open(before) as old, fits.open(after, checksum=True) as new:
        rest = list(new)
        for i, hdu in enumerate(old):
            wanted = [card for card in cards(hdu.header) if not (i == 0 and card[0] == "INHERIT")]
            while hdu.name not in {"DQ", "UNCERT"} and rest[0].name in {"DQ", "UNCERT"}:
                del rest[0]
            other = rest.pop(0)
            assert set(wanted) <= set(cards(other.header))
            if hdu.header.get("SIMPLE") is False:
                continue  # what follows is no data, and astropy takes it for some
            if hdu.data is None or hdu.data.size == 0:
                assert other.data is None or other.data.size == 0
            elif hdu.is_image:
                assert other.data.shape == hdu.data.shape
                if masks or hdu.name not in {"DQ", "BPM"}:
                    np.testing.assert_array_equal(other.data.astype(float), _pixels(before, i).astype(other.data.dtype))
            else:
                assert bytes(other.data.tobytes()) == bytes(hdu.data.tobytes())
