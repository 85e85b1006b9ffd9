"""How well a master must fit a frame: for each kind an ordered list of levels, the strictest first.

A frame gets a master of the first level that any meets; within a level, what agrees on more keys goes first, then what is nearer in
time. A product whose masters are all of level 0 may be complete; below that it is PARTIAL, and the reason says what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

# Frames of another readout speed have another gain, noise and bias level, so their masters do not fit.
COMMON = (
    "telescope", "instrument", "detector", "binning", "window", "readout", "gain_setting", "offset", "iso", "em", "row_order",
)  # fmt: skip
"""What changes the pixels of every frame, and is compared to the letter."""

OF_FLATS = ("mode", "filter", "grating", "slit")
"""What changes flats besides; grating and slit those of spectra."""

DECIDING = frozenset(
    {
        "filter",
        "temperature",
        "gain_setting",
        "offset",
        "iso",
        "em",
        "readout",
        "binning",
        "row_order",
        "telescope",
        "instrument",
        "detector",
        "grating",
    }
)
"""Keys without which a master may be of another kind: a product that rests on one that was not compared is not complete."""

OLD_DAYS = 30.0
"""A master that is farther away in time was made in another state of the instrument."""


@dataclass(frozen=True)
class Level:
    """What a master of one level must agree with.

    Names are compared to the letter. Numbers of headers match within a tolerance, never by ``==``: the larger of both counts.
    """

    text: str
    """What it means, as plans say it."""

    keys: tuple[str, ...] = COMMON
    """Facts that must be the same where both have them."""

    known: frozenset[str] = DECIDING
    """Of the keys, and ``temperature``, those that both must have, or neither."""

    max_days: float | None = OLD_DAYS
    """Days from the frame to the nearest frame of the master, at most; None for any age. A time that is not known is no fault."""

    temperature_k: float = 1.0
    """Tolerance of the temperatures of darks."""

    exposure_s: float = 0.1
    exposure_relative: float = 0.01
    """Tolerances of the exposure of darks that are not scaled."""

    header_relative: float = 0.01
    """Tolerance of gains and read noises that headers state: they differ where the read-out was another."""

    slit_relative: float = 0.05
    """Tolerance of the widths of slits, which come back to a few per cent."""

    angle_relative: float = 1e-3
    """Tolerance of the numbers behind the name of a grating: its angle or central wavelength."""


Levels: TypeAlias = Mapping[str, tuple[Level, ...]]
"""For bias, dark and flat, the levels in their order."""

STRICTEST = Level("same settings, within 30 days")

_IN_ORDER = (
    STRICTEST,
    replace(STRICTEST, text="same settings, of any age", max_days=None),
    replace(STRICTEST, text="a deciding key known of one only, within 30 days", known=frozenset()),
    replace(STRICTEST, text="a deciding key known of one only, of any age", known=frozenset(), max_days=None),
)

LEVELS: Levels = {
    "bias": _IN_ORDER,
    "dark": _IN_ORDER,
    "flat": tuple(replace(level, keys=(*COMMON, *OF_FLATS)) for level in _IN_ORDER),
}
"""The built-in levels."""


def allowed(levels: Sequence[Level], most: int | None) -> tuple[Level, ...]:
    """Return the levels that may be met.

    Parameters
    ----------
    levels
        All levels of a kind.
    most
        The last that is allowed, counted from 0; None for all.
    """
    return tuple(levels if most is None else levels[: most + 1])
