"""The cards of a header, of which few are ever parsed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from astropy.io.fits import Card
from astropy.io.fits.verify import VerifyError

from lazyccd.errors import FormatError, KeywordError
from lazyccd.io.fits.tiles import is_default_name

CARD = 80
"""Characters of a card."""


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
        self._first: dict[str, str] = {}
        continued = ""
        for image in reversed(self.images):
            if image.startswith("CONTINUE"):
                continued = image + continued
                continue
            self._first[image[:8].rstrip()] = image + continued
            continued = ""
        # Compressed images may carry the default name beside their own.
        names = [image for image in self.images if image.startswith("EXTNAME ")]
        own = [image for image in names if not is_default_name(image)]
        if own:
            self._first["EXTNAME"] = own[0]

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
