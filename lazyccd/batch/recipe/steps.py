"""What a recipe is made of: its steps, and how products are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from lazyccd.batch.levels import LEVELS, Level, Levels
from lazyccd.batch.recipe.rules import RULES


@dataclass(frozen=True)
class RecipeStep:
    """An operation with its parameters."""

    operation: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on: tuple[str, ...] = ()
    """Types of frames that it is done on; empty for those that it is usually done on."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of frames that it is done on."""
        return self.on or RULES[self.operation].on

    @property
    def data(self) -> Any:
        """The step as plain data: a name, or a mapping of its name to its parameters."""
        given = {**_listed(self.parameters), **({"on": list(self.on)} if self.on else {})}
        return {self.operation: given} if given else self.operation


@dataclass(frozen=True)
class Outputs:
    """How science products are written."""

    format: Literal["fits", "zarr"] = "fits"
    compress: Literal["RICE_1", "GZIP_2", "HCOMPRESS_1"] | None = None
    """Compression of tiles in FITS, without loss."""

    quantize: float | None = None
    """Steps per standard deviation of the noise to which floats are rounded; none are if it is not given."""

    planes: tuple[Literal["uncertainty", "mask"], ...] = ("uncertainty", "mask")
    """What is written besides the data."""

    pictures: bool = True
    """Whether a picture of each product is drawn."""

    @property
    def data(self) -> dict[str, Any]:
        """What differs from the defaults, as plain data."""
        default = Outputs()
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        changed: dict[str, Any] = _listed({k: v for k, v in given.items() if v != getattr(default, k)})
        return changed


BUILT_IN = tuple(
    map(
        RecipeStep,
        (
            "flag_saturated",
            "add_mask",
            "subtract_overscan",
            "trim_image",
            "subtract_bias",
            "create_deviation",
            "gain_correct",
            "subtract_dark",
            "flat_correct",
            "assemble",
            "cosmicray_lacosmic",
        ),
    )
)
"""The steps that every night gets where no recipe is given."""


def levels_of(stated: Mapping[str, Any]) -> Levels:
    """Return the levels of association, where what is not stated is as in the built-in ones.

    Parameters
    ----------
    stated
        For some kinds of masters a list of levels, each a mapping of the fields of `Level` that differ from the strictest.

    Examples
    --------
    >>> [level.max_days for level in levels_of({"bias": [{"text": "of the week", "max_days": 7}]})["bias"]]
    [7]
    """
    found = {kind: tuple(_level(LEVELS[kind][0], fields) for fields in some) for kind, some in stated.items()}
    return {**LEVELS, **found}


def _level(strictest: Level, stated: Mapping[str, Any]) -> Level:
    """Return a level with the fields that are stated."""
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()}
    if "known" in given:
        given["known"] = frozenset(given["known"])
    return replace(strictest, **given)


def data_of_levels(levels: Levels) -> dict[str, Any]:
    """Return levels as plain data, which `levels_of` takes."""
    return {kind: [_fields_of(level, LEVELS[kind][0]) for level in some] for kind, some in levels.items()}


def _fields_of(level: Level, strictest: Level) -> dict[str, Any]:
    """Return the fields of a level that differ from the strictest; its text and age always."""
    given = {item.name: getattr(level, item.name) for item in fields(level)}
    shown = {k: v for k, v in given.items() if k in {"text", "max_days"} or v != getattr(strictest, k)}
    made: dict[str, Any] = _listed({k: sorted(v) if isinstance(v, frozenset) else v for k, v in shown.items()})
    return made


def _listed(value: Any) -> Any:
    """Return data with lists instead of tuples."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
