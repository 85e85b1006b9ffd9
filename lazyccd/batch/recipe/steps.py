"""What a recipe is made of: its steps, and how products are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

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


def _listed(value: Any) -> Any:
    """Return data with lists instead of tuples."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
