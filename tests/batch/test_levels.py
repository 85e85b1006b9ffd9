"""Levels of masters: which one a frame gets, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazyccd.batch.collect import collect
from lazyccd.batch.levels import LEVELS
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe
from lazyccd.batch.recipe.steps import data_of_levels
from lazyccd.batch.reduce import reduce
from lazyccd.batch.report import make_console, print_plan
from lazyccd.testing import Detector, Sky
from lazyccd.testing import make_night as simulate

PlanNight = Callable[..., NightPlan]
BIAS = {"IMAGETYP": "bias", "EXPTIME": 0.0, "FILTER": None}
DARK = {"IMAGETYP": "dark", "FILTER": None}
LIGHT = {"IMAGETYP": "light", "FILTER": "R"}
OLD, NEAR = "2024-01-15T20:00:00", "2024-03-01T19:00:00"
READOUT = {"READMODE": "fast"}

CASES: dict[str, tuple[dict[str, dict[str, Any]], int, str]] = {
    "same settings, near": ({"b": {**BIAS, **READOUT, "DATE-OBS": NEAR}}, 0, ""),
    "same settings, old": ({"b": {**BIAS, **READOUT, "DATE-OBS": OLD}}, 1, "is 46 days away"),
    "silent, near": ({"b": {**BIAS, "DATE-OBS": NEAR}}, 2, "was not compared by readout"),
    "silent, old": ({"b": {**BIAS, "DATE-OBS": OLD}}, 3, "was not compared by readout"),
    "the level goes before time": (
        {"b": {**BIAS, **READOUT, "DATE-OBS": OLD}, "c": {**BIAS, "DATE-OBS": NEAR}},
        1,
        "is 46 days away",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_level_that_is_met(plan_night: PlanNight, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """Anything below the first makes the product PARTIAL, with what differs; the plan names the level."""
    files, level, why = CASES[case]
    plan = plan_night({**files, "s": {**LIGHT, **READOUT}})
    frame = plan.frame("s.fits")
    assert frame.bias.level == level
    assert (level > 0) == any(text.startswith("bias ") for text in frame.reasons)
    assert bool(why) == any(why and why in text for text in frame.reasons)
    print_plan(plan, make_console())
    said = " ".join(capsys.readouterr().out.split())
    assert ("level 0, 1 frame" in said) == (level == 0)
    assert (f"(level {level})" in said) == (level > 0)


@pytest.mark.parametrize(("most", "is_taken"), [(None, True), (2, True), (1, False), (0, False)])
def test_worse_levels_are_refused(plan_night: PlanNight, most: int | None, is_taken: bool) -> None:
    """With ``--max-level`` a frame goes without a master rather than with a worse one, and is told why."""
    plan = plan_night({"b": {**BIAS, "DATE-OBS": NEAR}, "s": {**LIGHT, **READOUT}}, max_level=most)
    frame = plan.frame("s.fits")
    assert bool(frame.bias) == is_taken
    assert is_taken or "not compared by readout" in frame.bias.why_not[0].reason
    assert is_taken or any(reason.startswith("no bias") for reason in frame.reasons)


def test_levels_are_data(make_night: Callable[..., Path]) -> None:
    """Another list gives other choices: a level of wider temperatures takes a dark that the built-in ones refuse."""
    folder = make_night({"b": BIAS, "d": {**DARK, "CCD-TEMP": -20.0}, "s": {**LIGHT, "CCD-TEMP": -17.0}})
    built_in = data_of_levels(LEVELS)["dark"]
    recipe = Recipe(association={"dark": [*built_in, {"text": "within 5 K", "temperature_k": 5.0}]})
    assert not build_plan(collect(str(folder))).frame("s.fits").dark
    frame = build_plan(collect(str(folder)), recipe=recipe).frame("s.fits")
    assert (frame.dark.level, frame.status) == (len(LEVELS["dark"]), "PARTIAL")
    assert "differs: temperature -20 is not -17 within 1 K" in frame.reason


def test_temperatures_that_differ_by_little_are_told_with_decimals(make_night: Callable[..., Path]) -> None:
    """A recipe may allow less than a kelvin; the two temperatures must not look equal in the message."""
    folder = make_night({"b": BIAS, "d": {**DARK, "CCD-TEMP": -10.4}, "s": {**LIGHT, "CCD-TEMP": -10.0}})
    levels = [{**level, "temperature_k": 0.1} for level in data_of_levels(LEVELS)["dark"]]
    frame = build_plan(collect(str(folder)), recipe=Recipe(association={"dark": levels})).frame("s.fits")
    assert frame.dark.why_not[0].reason == "temperature -10.4 is not -10 within 0.1 K"


def test_a_near_dark_that_is_scaled_goes_before_an_old_one(plan_night: PlanNight) -> None:
    """Levels go before exposures: a scaled dark of the night is sound, one of another season is not."""
    plan = plan_night(
        {
            "b": {**BIAS, "DATE-OBS": NEAR},
            "d": {**DARK, "EXPTIME": 600.0, "DATE-OBS": NEAR},
            "e": {**DARK, "DATE-OBS": OLD},
            "s": LIGHT,
        }
    )
    choice = plan.frame("s.fits").dark
    assert (choice.level, choice.scale) == (0, pytest.approx(0.1))
    assert dict(choice.why_not)["dark_60s_2024-01-15"] == "level 1, the chosen one level 0: 46 days away"


def test_a_dark_of_equal_exposure_is_found_among_nearer_ones(plan_night: PlanNight) -> None:
    """However many darks of other exposures are nearer in time, none of them is scaled in its place."""
    nearer = {
        f"d{hour}": {**DARK, "EXPTIME": 10.0 * hour, "DATE-OBS": f"2024-03-01T{hour}:30:00"} for hour in range(11, 20)
    }
    files = {"b": BIAS, "e": {**DARK, "DATE-OBS": "2024-03-01T10:30:00"}, **nearer, "s": LIGHT}
    choice = plan_night(files).frame("s.fits").dark
    assert (choice.master, choice.scale) == ("dark_60s_2024-03-01", 1.0)


def test_a_dark_is_compared_with_one_of_its_exposure(make_night: Callable[..., Path], tmp_path: Path) -> None:
    """The level of a dark grows with its exposure, which is no jump."""
    (tmp_path / "masters").mkdir()
    for exposure in (60.0, 600.0):
        made = make_night({"m": {**DARK, "EXPTIME": exposure, "LZKIND": "master dark", "BUNIT": "adu"}}) / "m.fits"
        made.rename(tmp_path / "masters" / f"{exposure:.0f}s.fits")
    night = {f"d{exposure}": {**DARK, "EXPTIME": float(exposure)} for exposure in (60, 300, 600)}
    plan = build_plan(collect(make_night(night)), Options(calib=(str(tmp_path / "masters"),)))
    previous = {group.facts.exposure.value: Path(group.previous).name for group in plan.groups}
    assert previous == {60.0: "60s.fits", 300.0: "", 600.0: "600s.fits"}


def test_masters_of_several_nights(make_night: Callable[..., Path], tmp_path: Path) -> None:
    """Of several folders of masters the nearest in time serves; masters of one name are told apart by their folder."""
    folder = make_night({"s": LIGHT})
    for night, when in {"n1": "2024-02-10T20:00:00", "n2": "2024-02-25T20:00:00"}.items():
        (tmp_path / night).mkdir()
        made = make_night({"m": {**BIAS, "DATE-OBS": when, "LZKIND": "master bias"}}) / "m.fits"
        made.rename(tmp_path / night / "master_bias.fits")
    calib = (str(tmp_path / "n1"), str(tmp_path / "n2"))
    choice = build_plan(collect(str(folder)), Options(calib=calib)).frame("s.fits").bias
    assert choice.master == str(tmp_path / "n2" / "master_bias.fits")
    assert "n1/master_bias.fits" in dict(choice.why_not)


def test_masters_are_compared_with_the_previous_ones(tmp_path: Path) -> None:
    """A bias that is noisier than that of the night before is reported; one that is alike is not."""
    first, second = tmp_path / "n1", tmp_path / "n2"
    make = {"biases": 3, "darks": 0, "flats": 0, "lights": 0}
    simulate(first, Detector((48, 64)), Sky(stars=2), **make)
    simulate(second, Detector((48, 64), readnoise_e=25.0), Sky(stars=2), **make)
    reduce(first, tmp_path / "out1")
    masters = str(tmp_path / "out1" / "masters")
    alike = reduce(first, tmp_path / "out2", calib=masters).outcomes[0]
    other = reduce(second, tmp_path / "out3", calib=masters).outcomes[0]
    assert alike.previous["jumps"] == []
    assert alike.previous["noise"] == pytest.approx(alike.noise_after)
    assert [text.split()[0] for text in other.previous["jumps"]] == ["noise"]
    assert any(message.startswith("jump: noise") for message in other.messages)
    assert other.status == "DONE"


def test_masters_of_another_treatment_are_not_compared(tmp_path: Path) -> None:
    """A bias with its overscan still in it has another level, and a dark of another gain too, which is no jump of the detector."""
    raw = tmp_path / "raw"
    simulate(raw, Detector((48, 64)), Sky(stars=2), biases=3, darks=2, flats=0, lights=0)
    reduce(raw, tmp_path / "out1", gain=1.6)
    masters = str(tmp_path / "out1" / "masters")
    bias, dark = reduce(raw, tmp_path / "out2", calib=masters, overscan="none", gain=3.2).outcomes
    assert bias.previous["jumps"] == dark.previous["jumps"] == []
    assert bias.previous["apart"] == "whether subtract_overscan was done False and True"
    assert dark.previous["apart"].endswith("; gain 3.2 and 1.6")
    assert not any("jump" in text for text in (*bias.messages, *dark.messages))
    again = reduce(raw, tmp_path / "out3", calib=masters, gain=1.6).outcomes
    assert all("apart" not in outcome.previous and outcome.previous["jumps"] == [] for outcome in again)
