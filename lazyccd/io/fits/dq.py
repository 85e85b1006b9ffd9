"""Say what the integers of data quality extensions mean, by their cards or by the pipeline that wrote them.

1. Cards that name the planes count first: MSKN/MSKM/MSKB/MSKD (this package, lsst.images) and MP_* (LSST).
2. Otherwise the header says which pipeline wrote the file, and `dialects.toml` what its integers mean.
3. MASK and BPM without either are 0 or 1. A DQ extension of a dialect that nobody knows is refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
from astropy.io.fits.verify import VerifyError

from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.convert import to_mask
from lazyccd.frame.header import header_from_text
from lazyccd.io.fits.scan import Cards, FitsFile, HduInfo
from lazyccd.io.fits.storage import FitsStorage
from lazyccd.mask_planes import FlagTable, MaskPlane, MaskSchema, plane_name
from lazyccd.plan.steps import Source, Step

DQ: TypeAlias = str | Mapping[str, int]
"""Meaning of integers as users give it: the name of a dialect, "boolean", or bits by name."""

BOOLEAN = "boolean"
"""Dialect of masks that only say which pixels are bad: whatever is not 0."""

LSST_NAMES = {"INTRP": "INTERP"}
"""Planes of LSST that have another name here."""

INFORMATIVE = frozenset(
    ("INTERP", "CLIPPED", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "CROSSTALK", "NOT_DEBLENDED")
) | frozenset(("INEXACT_PSF", "SENSOR_EDGE", "BRIGHT_OBJECT", "REJECTED"))
"""Planes of LSST that do not make a pixel bad."""


@dataclass(frozen=True)
class Dialect:
    """What the integers of one pipeline mean, and how its files are recognised."""

    name: str
    match: tuple[tuple[str, tuple[str, ...]], ...]
    """Keywords and the values, in capitals, of which one must be there; empty if nothing tells the pipeline."""

    table: FlagTable

    def fits(self, cards: Cards, primary: Cards) -> bool:
        """Return whether the headers are of this pipeline."""
        found = [(str(cards.get(key, primary.get(key, ""))).strip().upper(), allowed) for key, allowed in self.match]
        return bool(found) and all(value in allowed for value, allowed in found)


@cache
def dialects() -> dict[str, Dialect]:
    """Return the known dialects by name."""
    data = tomllib.loads((resources.files("lazyccd.io.fits") / "dialects.toml").read_text(encoding="utf-8"))
    return {name: _dialect(name, entry) for name, entry in data.items()}


def _dialect(name: str, entry: Mapping[str, Any]) -> Dialect:
    """Return a dialect of the file."""
    match = tuple((key, tuple(v.upper() for v in values)) for key, values in entry.get("match", {}).items())
    planes = tuple(
        (value, MaskPlane(plane.removeprefix("-"), text, bad=not plane.startswith("-")))
        for value, plane, text in entry["planes"]
    )
    return Dialect(name, match, FlagTable(planes, entry.get("codes", False)))


def read_planes(file: FitsFile, hdu: HduInfo, dq: DQ | None = None) -> tuple[Step, MaskSchema]:
    """Return the mask that an extension holds, and its planes.

    Parameters
    ----------
    file, hdu
        Where it is.
    dq
        What its integers mean, if the headers do not say it: the name of a dialect (`dialects`), ``"boolean"``, or bits
        by name such as ``{"SAT": 4}``.

    Raises
    ------
    FormatError
        Raised if the dialect of a DQ extension is not known, its cards contradict each other, or it has no integers.
    ParameterError
        Raised if ``dq`` is no known dialect.
    """
    where = f"{file.path}{hdu.label}"
    table = _table(file, hdu, dq, where)
    if table is not None and hdu.bitpix < 0:
        raise FormatError(f"{where} has BITPIX {hdu.bitpix} and planes need integers; pass dq='boolean' or convert it.")
    if table is None:
        bits = Source.of(FitsStorage.of(file, hdu, np.int64 if hdu.bitpix > 0 else None))
        return to_mask(bits, None, where), MaskSchema()
    # Codes and foreign bits may exceed the planes of a schema, so they are read in full width and then mapped.
    native = table.schema.dtype if table.is_native else np.dtype(np.int64)
    return to_mask(Source.of(FitsStorage.of(file, hdu, native)), table, where), table.schema


def _table(file: FitsFile, hdu: HduInfo, dq: DQ | None, where: str) -> FlagTable | None:
    """Return the meaning of the integers of an extension; None if every value but 0 is bad."""
    if dq is not None:
        return _stated(dq)
    table = named_table(hdu.header, where)
    if table is not None:
        return table
    cards = Cards(hdu.header.replace("\n", ""), where)
    primary = Cards(file.hdus[0].header.replace("\n", ""), where)
    name = hdu.name.upper()
    # Pipelines write what identifies them into the primary or into the extension.
    found = [item for item in dialects().values() if item.fits(cards, primary)]
    # By name these are 0 or 1 in every pipeline but BANZAI, whose BPM has bits.
    if name == "MASK" or (name == "BPM" and [item.name for item in found] != ["banzai"]):
        return None
    if not found:
        raise FormatError(
            f"{where}: nothing in its header tells what its integers mean. In Python pass dq= to open_fits, one of "
            f"{', '.join(dialects())}; or bits by name, such as dq={{'SAT': 4, 'CR': 8}}; or dq='boolean' if whatever is not 0 is bad."
        )
    return dialects()["des"].table if _has_bits(found[0], cards, primary) else found[0].table


def _has_bits(dialect: Dialect, cards: Cards, primary: Cards) -> bool:
    """Return whether a Community Pipeline before version 3.5.0 wrote bits for DECam, as DES does."""
    instrument = str(cards.get("INSTRUME", primary.get("INSTRUME", ""))).strip().upper()
    version = re.search(r"(\d+)\.(\d+)", str(cards.get("PLVER", primary.get("PLVER", ""))))
    if dialect.name != "noirlab" or instrument != "DECAM" or version is None:
        return False
    return (int(version[1]), int(version[2])) < (3, 5)


def _stated(dq: DQ) -> FlagTable | None:
    """Return the table that the user named or gave."""
    if not isinstance(dq, str):
        return FlagTable.of(dq)
    if dq.lower() == BOOLEAN:
        return None
    if dq.lower() not in dialects():
        raise ParameterError(
            f"dq {dq!r} must be one of {', '.join((*dialects(), BOOLEAN))}, or bits by name such as {{'SAT': 4}}."
        )
    return dialects()[dq.lower()].table


def named_table(text: str, where: str) -> FlagTable | None:
    """Return the planes that the cards of an extension name; None if there are no such cards.

    Parameters
    ----------
    text
        Its header, cards joined by newlines.
    where
        How messages name it.

    Raises
    ------
    FormatError
        Raised if the cards do not describe planes.
    """
    lines, keep = [], False
    # Parsing only these cards is what keeps opening fast: headers have hundreds of others.
    for line in text.split("\n"):
        keep = line.startswith(("MSK", "MP_", "HIERARCH MP_")) or (keep and line.startswith("CONTINUE"))
        lines += [line] if keep else []
    if not lines:
        return None
    try:
        header = header_from_text("\n".join(lines))
        # MSK cards of lsst.images win over MP_ cards, which LSST has, too.
        numbers = sorted(key[4:] for key in header if re.fullmatch(r"MSKN\d{4}", key))
        if not numbers:
            return _lsst_table({key[3:]: int(header[key]) for key in header if key.startswith("MP_")})
        return FlagTable.from_attrs(
            {
                "flag_meanings": " ".join(LSST_NAMES.get(name, name) for name in _names(header, numbers)),
                "flag_masks": [int(header[f"MSKM{n}"]) for n in numbers],
                "flag_descriptions": [str(header.get(f"MSKD{n}", "")) for n in numbers],
                "flag_bad": [bool(header.get(f"MSKB{n}", header[f"MSKN{n}"] not in INFORMATIVE)) for n in numbers],
            }
        )
    except (KeyError, OverflowError, TypeError, ValueError, VerifyError) as error:
        raise FormatError(f"{where}: the cards that name its planes do not describe a mask: {error}") from error


def _names(header: Mapping[str, Any], numbers: list[str]) -> list[str]:
    return [str(header[f"MSKN{n}"]) for n in numbers]


def _lsst_table(numbers: Mapping[str, int]) -> FlagTable | None:
    """Return the table of MP_ cards, which have the number of the bit of each plane."""
    planes = []
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        plane = LSST_NAMES.get(name, plane_name(name))
        # MP_ cards have the number of the bit, MSKM cards its value.
        planes.append((1 << number, MaskPlane(plane, f"{name} of LSST", plane not in INFORMATIVE)))
    return FlagTable(tuple(planes)) if planes else None
