"""The short form of the corruptions of headers and files; ``python tests/faults/facts.py`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import facts

SHORT = range(0, 60, 3)
"""Draws of one corruption each, of different kinds."""

USUAL = SHORT[::3]
"""Draws that are always tried; the others only with ``-m slow``."""


@pytest.mark.parametrize("seed", range(2))
def test_a_night_without_corruptions_is_right(tmp_path: Path, seed: int) -> None:
    """What the corruptions are compared with: both lights are complete and agree with the truth."""
    verdict = facts.reduce_night(facts.make_night(seed, tmp_path / "night"))
    assert verdict == facts.Verdict("right", [])


@pytest.mark.parametrize(
    "number", [*USUAL, *(pytest.param(n, marks=pytest.mark.slow) for n in SHORT if n not in USUAL)]
)
def test_no_product_is_wrong_and_complete(number: int) -> None:
    """A corruption gives products that are right, or a status and a reason; one that harms nothing gives right ones."""
    drawn = facts.draw(number, seed=1)
    assert not drawn.is_bad, (drawn.touched, drawn.verdict.why)


def test_a_wrong_product_is_noticed(tmp_path: Path) -> None:
    """The comparison itself: a light of another pedestal that no card tells is found wrong."""
    night = facts.make_night(1, tmp_path / "night")
    night.expose(night.frames[-1], offset=50.0)
    verdict = facts.reduce_night(night)
    assert verdict.result == "WRONG", verdict.why
    assert "level" in verdict.why[0]
