"""Header keywords with units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from astropy import units as u

from lazyccd.errors import KeywordError, ParameterError
from lazyccd.frame.header_values import UnusableError, read_number

WORDS = frozenset({"mean", "median"})
"""Text that means something else where a keyword may stand."""

# a path has a point or a slash, a section brackets
_NAME = re.compile(r"!?([A-Za-z][A-Za-z0-9_-]*(?: [A-Za-z0-9_-]+)*)")


class Keyword:
    """A header keyword, its unit and its value.

    Parameters
    ----------
    name
        The keyword.
    unit
        Unit of the value; None for strings and pure numbers in headers.
    value
        A quantity, a number (with ``unit``), a string (without ``unit``) or None.

    Examples
    --------
    >>> Keyword("EXPTIME", unit=u.s).value_from({"EXPTIME": 30.0})
    <Quantity 30. s>
    """

    def __init__(self, name: str, unit: u.UnitBase | None = None, value: object = None) -> None:
        self._name = name
        self._unit = unit
        self._value: object = None
        self.value = value

    @property
    def name(self) -> str:
        """The keyword."""
        return self._name

    @property
    def unit(self) -> u.UnitBase | None:
        """Unit of the value."""
        return self._unit

    @property
    def value(self) -> Any:
        """The value, a quantity if there is a unit."""
        return self._value

    @value.setter
    def value(self, value: object) -> None:
        if value is None:
            self._value = None
        elif isinstance(value, u.Quantity):
            self._unit = value.unit
            self._value = value
        elif isinstance(value, str):
            if self._unit is not None:
                raise ParameterError(
                    f"keyword {self._name!r} has unit '{self._unit}' and cannot have the string {value!r}."
                )
            self._value = value
        elif self._unit is None:
            raise ParameterError(f"keyword {self._name!r} with the number {value!r} needs a unit; give unit=.")
        else:
            self._value = value * self._unit

    def value_from(self, header: Mapping[str, Any]) -> Any:
        """Set the value to that in a header and return it.

        With a unit, text is read as a number: with a decimal comma, or as a list of one. A quantity keeps its own unit; None
        is no value.

        Raises
        ------
        KeywordError
            Raised if the header does not have the keyword.
        ParameterError
            Raised if there is a unit, and the value is no finite number.

        Examples
        --------
        >>> Keyword("GAIN", unit=u.electron / u.adu).value_from({"GAIN": "1,5"})
        <Quantity 1.5 electron / adu>
        """
        if self._name not in header:
            raise KeywordError(f"the header has no keyword {self._name!r}; give the value itself or another keyword.")
        value = header[self._name]
        if self._unit is None and not isinstance(value, str):
            self._value = value  # a number as it stands; what needs a unit says so
        elif self._unit is None or value is None or isinstance(value, u.Quantity):
            self.value = value
        else:
            self.value = self._number(value)
        return self._value

    def _number(self, value: object) -> float:
        """Return a header's value as a number."""
        try:
            number, why = read_number(value), "is not known"
        except UnusableError as error:
            number, why = None, str(error)
        if number is None:
            raise ParameterError(
                f"keyword {self._name!r} has the value {value!r}, which {why}; give the value itself, or correct the header by "
                "with_header."
            )
        return number


def keyword_name(text: str) -> str | None:
    """Return the keyword that a text names, with or without the ``!`` of `combine`; None if it can be none.

    Examples
    --------
    >>> keyword_name("!GAIN"), keyword_name("ESO DET OUT1 CONAD"), keyword_name("gain.fits"), keyword_name("[1:9,1:9]")
    ('GAIN', 'ESO DET OUT1 CONAD', None, None)
    """
    match = _NAME.fullmatch(text.strip())
    return None if match is None or text in WORDS else match[1]
