"""Exposures that the clock of the night contradicts: in milliseconds, or wrong in one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lazyccd.batch.night_plan import NightPlan

Files = dict[str, dict[str, Any]]


def night(
    exposures: list[float], starts: list[float], kind: str = "dark", keyword: str = "EXPTIME", **cards: Any
) -> Files:
    """Return frames of a kind that begin at these seconds after 20:00."""
    files: Files = {}
    for number, (exposure, start) in enumerate(zip(exposures, starts, strict=True)):
        minutes, seconds = divmod(start, 60)
        clock = f"2024-03-01T{20 + int(minutes) // 60:02d}:{int(minutes) % 60:02d}:{seconds:06.3f}"
        files[f"{kind}{number}"] = {"IMAGETYP": kind, "DATE-OBS": clock, "EXPTIME": None, keyword: exposure, **cards}
    return files


def doubted(plan: NightPlan) -> list[str]:
    """Return the frames whose exposure is in doubt."""
    return [item.name.removesuffix(".fits") for item in plan.frames if item.facts.exposure.doubt]


@pytest.mark.parametrize("keyword", ["EXPTIME", "EXPOSURE"])
@pytest.mark.parametrize(
    ("exposures", "starts"),
    [
        ([60000.0] * 3, [0, 75, 150]),
        ([5000.0, 5000.0, 5000.0], [0, 20, 40]),
        ([30000.0, 60000.0, 60000.0], [0.5, 45, 130]),
        ([120000.0] * 2, [0, 180]),
        ([300000.0] * 4, [0, 360, 720, 1080]),
    ],
)
def test_milliseconds_in_all_frames(plan_night: Any, exposures: list[float], starts: list[float], keyword: str) -> None:
    """No ratio of exposures shows the unit, but the next exposure begins too early: all with a dark are in doubt."""
    files = night(exposures, starts, keyword=keyword)
    files |= night([exposures[-1]], [5000.5], "light", keyword)
    plan = plan_night(files)
    assert doubted(plan) == [*(f"dark{k}" for k in range(len(exposures))), "light0"]
    light = plan.frame("light0.fits")
    assert light.status == "PARTIAL"
    assert f'[keys] exposure = "{keyword} [ms]"' in light.reason
    assert f"says {max(exposures):g} s, but the next exposure began within" in plan.frame("dark1.fits").reason
    assert plan.exit_status == 3


@pytest.mark.parametrize(
    ("exposures", "starts"),
    [
        ([60.0] * 4, [0, 60, 120, 180]),
        # Read to the minute: an exposure of 110 s may begin at 20:00:00 and 20:01:59.
        ([110.0] * 3, [0, 60, 180]),
        ([30.0] * 3, [0.0, 30.9, 61.5]),
        ([0.0] * 3, [0, 1, 2]),
        ([600.0, 5.0, 600.0], [0, 700, 720]),
        # All of one time: a clock that stands says nothing.
        ([600.0] * 3, [0, 0, 0]),
        # Times of the end: the next begins soon after it.
        ([600.0, 5.0, 5.0], [600, 612, 624]),
    ],
)
def test_exposures_that_are_possible(plan_night: Any, exposures: list[float], starts: list[float]) -> None:
    """Nothing is said of usual nights."""
    assert doubted(plan_night(night(exposures, [start + 0.0 for start in starts]))) == []


def test_one_exposure_that_is_wrong(plan_night: Any) -> None:
    """It alone is in doubt."""
    plan = plan_night(night([60.0, 60.0, 6000.0, 60.0, 60.0], [0.5, 70, 140, 210, 280]))
    assert doubted(plan) == ["dark2"]


@pytest.mark.parametrize("key", ["FILTER", "DETECTOR", "INSTRUME", "TELESCOP"])
def test_cameras_that_expose_at_the_same_time(plan_night: Any, key: str) -> None:
    """Each has its own clockwork."""
    files = night([300.0] * 3, [0.5, 310, 620], "light", **{key: "A"})
    files |= {f"b{name}": cards for name, cards in night([300.0] * 3, [5.5, 315, 625], "light", **{key: "B"}).items()}
    assert doubted(plan_night(files)) == []


@pytest.mark.parametrize(("unit", "seconds"), [("ms", 60.0), ("s", 60000.0)])
def test_a_unit_that_is_stated(plan_night: Any, tmp_path: Path, unit: str, seconds: float) -> None:
    """A camera table that names the unit ends the doubt, whatever the clock says."""
    table = tmp_path / "mine.toml"
    table.write_text(f'[keys]\nexposure = "EXPTIME [{unit}]"\n')
    plan = plan_night(night([60000.0] * 3, [0.5, 75, 150]), camera=str(table))
    assert doubted(plan) == []
    assert plan.frames[0].facts.exposure.value == seconds
