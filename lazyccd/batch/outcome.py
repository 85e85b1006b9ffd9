"""What became of one product, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from lazyccd.batch.night_plan import Doubt

Status: TypeAlias = Literal["DONE", "PARTIAL", "FAILED", "BLOCKED", "SKIPPED", "WAITING"]

STATUSES: tuple[Status, ...] = ("FAILED", "BLOCKED", "PARTIAL", "SKIPPED", "DONE", "WAITING")
"""What can become of a frame or a product, the worst first.

- DONE: all steps were done, without doubt.
- PARTIAL: it was made, and lacks something or may be wrong; the reasons say what.
- FAILED: it could not be made.
- BLOCKED: what it needs could not be made; the reasons name it.
- SKIPPED: nothing was asked of it: it is no frame to reduce, it was vetoed or left out, or the run was limited to others.
- WAITING: the run has not come to it; only while it lasts, or after it was stopped.
"""

UNREADABLE = "it cannot be read"
"""With this begins why a member is left out of a master whose file is damaged."""


@dataclass(frozen=True)
class Outcome:
    """What became of one product."""

    name: str
    """Master or science frame."""

    kind: str
    """bias, dark, flat or science."""

    status: Status
    doubts: tuple[Doubt, ...] = ()
    """Why it is not DONE, and what else a user must know."""

    path: str = ""
    """File or store that was written."""

    used: tuple[str, ...] = ()
    """Masters used, or members combined."""

    messages: tuple[str, ...] = ()
    """Decisions on the way."""

    noise_before: float = math.nan
    """Noise of a raw pixel, in the product's units."""

    noise_after: float = math.nan
    """Noise of a pixel of the product."""

    unit: str = ""
    """Units of the product, and so of the noise."""

    seconds: float = 0.0

    left_out: dict[str, str] = field(default_factory=dict)
    """Members of a master that were not combined, and why."""

    blocked_by: tuple[str, ...] = ()
    """Masters that it needs and that could not be made."""

    picture: str = ""
    """Picture of it."""

    level: float = math.nan
    """Median of the central half of a product, in its units."""

    noise_expected: float = math.nan
    """Median of the uncertainties where the noise of the product was measured."""

    previous: dict[str, Any] = field(default_factory=dict)
    """For a master, the one before it: file, level, noise, bad (part of its pixels) and jumps, in words; or file and apart, why the
    two cannot be compared."""

    planes: dict[str, float] = field(default_factory=dict)
    """Part of the pixels that each mask plane flags, where it flags any."""

    bad: float = math.nan
    """Part of the pixels that count as bad, by whichever planes; NaN without a mask."""

    @property
    def reason(self) -> str:
        """Why it is not DONE, in one line."""
        return "; ".join(map(str, self.doubts))

    @property
    def is_made(self) -> bool:
        """Whether there is a product."""
        return self.status in {"DONE", "PARTIAL"}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Outcome:
        """Return the outcome that a journal noted, or ``run.json``, which has null for NaN."""
        cells: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else math.nan if value is None else value
            for key, value in record.items()
        }
        return cls(**{**cells, "doubts": tuple(Doubt(**doubt) for doubt in record["doubts"])})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all that an outcome says."""
        return tuple(item.name for item in fields(cls))
