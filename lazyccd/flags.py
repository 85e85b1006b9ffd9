"""Mask planes: what each bit of a mask means, and which planes count as bad.

The eight standard planes have bits 0 to 7 for ever; the user's own follow. One place decides what "bad" means:
`MaskSchema.bad_bits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazyccd.errors import ParameterError


@dataclass(frozen=True)
class MaskPlane:
    """One bit of a mask."""

    name: str
    """Upper-case name, such as ``SAT``."""

    description: str
    """One sentence that says when the bit is set."""

    bad: bool = True
    """Whether pixels with this plane are left out of statistics and combinations."""


STANDARD_PLANES = (
    MaskPlane("BAD", "Bad pixel of the detector or masked by the user"),
    MaskPlane("SAT", "Saturated"),
    MaskPlane("CR", "Hit by a cosmic ray"),
    MaskPlane("NO_DATA", "Nothing is known: NaN, BLANK, outside a footprint, or nothing survived"),
    MaskPlane("LOW_FLAT", "Flat field too low to divide by"),
    MaskPlane("CLIPPED", "Some inputs were rejected", bad=False),
    MaskPlane("INTERP", "Value interpolated from neighbours", bad=False),
    MaskPlane("EDGE", "Neighbourhood cut by the edge of the image", bad=False),
)


@dataclass(frozen=True)
class MaskSchema:
    """The planes of a mask, in the order of their bits.

    Examples
    --------
    >>> schema = MaskSchema().with_plane("GHOST", "Optical ghost")
    >>> schema.bits("SAT", "GHOST"), schema.dtype
    (258, dtype('uint16'))
    >>> schema.select("~CR") == schema.bad_bits & ~schema.bits("CR")
    True
    """

    planes: tuple[MaskPlane, ...] = STANDARD_PLANES
    """Planes in the order of their bits; the first eight are always the standard ones."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of their bits."""
        return tuple(plane.name for plane in self.planes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest of uint16 and uint32 that holds all planes."""
        return np.dtype(np.uint16 if len(self.planes) <= 16 else np.uint32)

    @property
    def bad_bits(self) -> int:
        """Bits of the planes that count as bad."""
        return sum(1 << i for i, plane in enumerate(self.planes) if plane.bad)

    def bits(self, *names: str) -> int:
        """Return the bits of the named planes.

        Raises
        ------
        ParameterError
            Raised if a plane is not in the schema; the message lists those that are.
        """
        unknown = [name for name in names if name.upper() not in self.names]
        if unknown:
            raise ParameterError(
                f"mask plane {', '.join(map(repr, unknown))} does not exist; this mask has {', '.join(self.names)}."
            )
        value = 0
        for name in names:
            value |= 1 << self.names.index(name.upper())
        return value

    def select(self, expression: str | None) -> int:
        """Return the bits that a selection string counts as bad.

        Parameters
        ----------
        expression
            None for the planes that count as bad; names joined by ``+`` or ``,`` for exactly these (``"SAT+CR"``); a
            leading ``~`` takes a plane out of the default (``"~CR"``, ``"~CR+INTERP"`` for the default without CR and
            with INTERP).
        """
        if expression is None:
            return self.bad_bits
        words = [word for word in re.split(r"[+,\s]+", expression.strip()) if word]
        removed = [word[1:] for word in words if word.startswith("~")]
        added = self.bits(*[word for word in words if not word.startswith("~")])
        return (self.bad_bits & ~self.bits(*removed)) | added if removed else added

    def with_plane(self, name: str, description: str = "", *, bad: bool = True) -> MaskSchema:
        """Return a schema that has the plane too; the same schema if it has it already."""
        name = name.upper()
        if name in self.names:
            return self
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise ParameterError(f"mask plane name {name!r} must be letters, digits and '_', starting with a letter.")
        if len(self.planes) == 32:
            raise ParameterError(f"mask plane {name!r} would be number 33 and a mask holds 32; drop planes first.")
        return MaskSchema((*self.planes, MaskPlane(name, description, bad)))

    def merge(self, other: MaskSchema) -> MaskSchema:
        """Return a schema with the planes of both, matched by name, those of ``self`` first."""
        merged = self
        for plane in other.planes:
            merged = merged.with_plane(plane.name, plane.description, bad=plane.bad)
        return merged

    def remap(self, target: MaskSchema) -> tuple[tuple[int, int], ...]:
        """Return the pairs (bit here, bit in ``target``) of planes whose bit differs; empty if none does."""
        pairs = [(1 << i, target.bits(name)) for i, name in enumerate(self.names)]
        return tuple(pair for pair in pairs if pair[0] != pair[1])

    def to_attrs(self) -> dict[str, Any]:
        """Return CF attributes: ``flag_masks``, ``flag_meanings``, ``flag_descriptions`` and ``flag_bad``."""
        return {
            "flag_masks": [1 << i for i in range(len(self.planes))],
            "flag_meanings": " ".join(self.names),
            "flag_descriptions": [plane.description for plane in self.planes],
            "flag_bad": [int(plane.bad) for plane in self.planes],
        }

    @classmethod
    def from_attrs(cls, attrs: Iterable[tuple[str, Any]] | dict[Any, Any]) -> MaskSchema:
        """Return the schema that CF attributes describe; the standard one where there are none."""
        given = dict(attrs)
        names = str(given.get("flag_meanings", "")).split()
        if not names:
            return cls()
        masks = [int(m) for m in given.get("flag_masks", [1 << i for i in range(len(names))])]
        descriptions = list(given.get("flag_descriptions", [""] * len(names)))
        bad = [bool(b) for b in given.get("flag_bad", [True] * len(names))]
        order = sorted(range(len(names)), key=lambda i: masks[i])
        if [masks[i] for i in order] != [1 << i for i in range(len(names))]:
            raise ParameterError(f"flag_masks {masks} must be the single bits 1, 2, 4, ... without gaps.")
        planes = tuple(MaskPlane(names[i], str(descriptions[i]), bad[i]) for i in order)
        standard = tuple(plane.name for plane in STANDARD_PLANES)
        if tuple(plane.name for plane in planes[:8]) != standard:
            raise ParameterError(f"flag_meanings {names[:8]} must begin with the standard planes {list(standard)}.")
        return cls(planes)
