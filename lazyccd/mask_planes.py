"""Mask planes: what each bit of a mask means, and which planes count as bad.

The eight standard planes have bits 0 to 7 for ever; the user's own follow. One place decides what "bad" means:
`MaskSchema.bad_bits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lazyccd.errors import ArgumentTypeError, ParameterError


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

    # asked for at every step of every frame
    @cached_property
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

        Raises
        ------
        ParameterError
            Raised if a plane is not in the schema.
        ArgumentTypeError
            Raised if the selection is not a string.
        """
        if expression is None:
            return self.bad_bits
        added, removed = split_selection(expression)
        return (self.bad_bits & ~self.bits(*removed)) | self.bits(*added) if removed else self.bits(*added)

    @property
    def table(self) -> FlagTable:
        """What the integers of a mask with these planes mean."""
        return FlagTable(tuple((1 << i, plane) for i, plane in enumerate(self.planes)))

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
        # empty for equal schemas, which is the usual case: kernels then join masks by | alone
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
        """Return the schema that CF attributes describe, as `to_attrs` gives them; the standard one where there are none.

        Raises
        ------
        ParameterError
            Raised if the planes are not the standard ones and others after them, at the bits 1, 2, 4, ...
        """
        table = FlagTable.from_attrs(dict(attrs))
        if not table.is_native:
            raise ParameterError(
                f"the planes {table.text} are not those of a mask of this package: the standard ones "
                f"{', '.join(plane.name for plane in STANDARD_PLANES)} at 1, 2, 4, ..., then others."
            )
        return table.schema


@dataclass(frozen=True)
class FlagTable:
    """What the integers of a mask mean that others wrote, and which planes they become here.

    Examples
    --------
    >>> table = FlagTable.of({"SAT": 4, "GHOST": 16})
    >>> table.schema.names[8:], table.pairs
    (('GHOST',), ((4, 2), (16, 256)))
    """

    planes: tuple[tuple[int, MaskPlane], ...]
    """Integers, each with its plane; several may become one plane, and the standard ones keep their own meaning."""

    exclusive: bool = False
    """Whether the integers are codes, of which a pixel has one; otherwise they are bits."""

    @classmethod
    def of(cls, values: Mapping[str, int]) -> FlagTable:
        """Return a table of bits by name; all planes that are not standard count as bad.

        Raises
        ------
        ParameterError
            Raised if a value is not a single bit, or a name cannot be that of a plane.
        """
        planes = []
        for name, value in values.items():
            if value < 1 or value & (value - 1):
                raise ParameterError(
                    f"mask plane {name!r} has the value {value} and must have a single bit: 1, 2, 4, ..."
                )
            planes.append((int(value), MaskPlane(name.upper(), "")))
        return cls(tuple(planes))

    @classmethod
    def from_attrs(cls, attrs: Mapping[Any, Any]) -> FlagTable:
        """Return the table that CF attributes describe: ``flag_masks`` for bits, ``flag_values`` for codes.

        Names become such as planes have: capitals, digits and ``_``.

        Raises
        ------
        ParameterError
            Raised if their numbers differ, a mask has several bits, or there are both masks and values.

        References
        ----------
        CF Conventions 1.11, section 3.5, Flags.
        """
        names = str(attrs.get("flag_meanings", "")).split()
        exclusive = "flag_values" in attrs
        if exclusive and "flag_masks" in attrs:
            raise ParameterError(
                "flag_masks together with flag_values make several codes in one integer; split them, and add each as a "
                "plane by add_mask(array, plane='NAME')."
            )
        if not names:
            return cls(NATIVE, exclusive)
        given = attrs.get("flag_values" if exclusive else "flag_masks", [1 << i for i in range(len(names))])
        values = [int(value) for value in np.atleast_1d(given)]
        if len(values) != len(names):
            raise ParameterError(f"flag_meanings has {len(names)} names and there are {len(values)} values {values}.")
        if not exclusive and any(value < 1 or value & (value - 1) or value >= 1 << 64 for value in values):
            raise ParameterError(f"flag_masks {values} must be single bits of an integer: 1, 2, 4, ... up to 2**63.")
        texts = list(attrs.get("flag_descriptions", [""] * len(names)))
        bad = [bool(b) for b in np.atleast_1d(attrs.get("flag_bad", [True] * len(names)))]
        planes = [
            (value, MaskPlane(plane_name(name), str(text), is_bad))
            for value, name, text, is_bad in zip(values, names, texts, bad, strict=True)
            if value  # the code 0 says that there is nothing to say
        ]
        return cls(tuple(sorted(planes, key=lambda item: item[0])) or NATIVE, exclusive)

    @property
    def schema(self) -> MaskSchema:
        """The standard planes, with the badness given, and the others behind them."""
        # in a mask of others "SAT" may have another badness and text, but its name is ours
        known = {plane.name: plane for _, plane in self.planes} if self.is_native else {}
        standard = tuple(known.get(plane.name, plane) for plane in STANDARD_PLANES)
        schema = MaskSchema(standard)
        for _, plane in self.planes:
            schema = schema.with_plane(plane.name, plane.description, bad=plane.bad)
        return schema

    @property
    def is_native(self) -> bool:
        """Whether a mask with these planes can be used as it is."""
        values, names = [value for value, _ in self.planes], [plane.name for _, plane in self.planes]
        first = names[: len(STANDARD_PLANES)] == [plane.name for plane in STANDARD_PLANES]
        return not self.exclusive and first and values == [1 << i for i in range(len(values))]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Each integer with the bit that it becomes; planes without one of the standard names follow those."""
        schema = self.schema
        return tuple((value, schema.bits(plane.name)) for value, plane in self.planes)

    @property
    def text(self) -> str:
        """Names and integers, for messages."""
        return ", ".join(f"{plane.name} {value}" for value, plane in self.planes)


NATIVE = tuple((1 << i, plane) for i, plane in enumerate(STANDARD_PLANES))
"""The integers of a mask that has the standard planes only."""


def plane_name(name: str) -> str:
    """Return a name as planes have it: capitals, digits and ``_``, beginning with a letter.

    Examples
    --------
    >>> plane_name("cloud-shadow"), plane_name("2nd order")
    ('CLOUD_SHADOW', 'F_2ND_ORDER')
    """
    clean = re.sub(r"[^A-Z0-9_]", "_", name.upper())
    return clean if clean[:1].isalpha() else f"F_{clean}"


def split_selection(expression: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that a selection string adds, and those that it takes out of the default.

    Raises
    ------
    ArgumentTypeError
        Raised if it is not a string.
    ParameterError
        Raised if a name is missing: in an empty string, or between two signs.

    Examples
    --------
    >>> split_selection("~INTERP + CR")
    (('CR',), ('INTERP',))
    """
    if not isinstance(expression, str):
        raise ArgumentTypeError(f"planes {expression!r} must be one string; join names by '+', such as 'SAT+CR'.")
    words = re.split(r"\s*[+,]\s*|\s+(?!\s*[+,])", re.sub(r"~\s*", "~", expression.upper().strip()))
    if any(not word.strip("~") or "~" in word[1:] for word in words):
        raise ParameterError(
            f"planes {expression!r} has a name missing; join names by '+', such as 'SAT+CR', with '~' before those that are left out."
        )
    removed = tuple(word[1:] for word in words if word.startswith("~"))
    return tuple(word for word in words if not word.startswith("~")), removed
