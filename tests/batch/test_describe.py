"""What is remembered of frames that are alike is what each of them says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lazyccd.batch.associate import NEAREST, Alike, Candidate, distance
from lazyccd.batch.cameras import Camera, load_camera
from lazyccd.batch.collect import collect
from lazyccd.batch.describe import Describer, Edit
from lazyccd.batch.metadata import Fact
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe
from tests.batch.conftest import MakeFrame, MakeNight

LIGHT: dict[str, Any] = {"IMAGETYP": "Light", "FILTER": "V", "OBJECT": "M 31"}
CHANGES: tuple[dict[str, Any], ...] = (
    {}, {"DATE-OBS": "2024-03-01T20:01:00"}, {"AIRMASS": 1.1}, {"AIRMASS": 1.2}, {"EXPTIME": 1}, {"EXPTIME": 1.0}, {"EXPTIME": True},
    {"EXPTIME": "1.0"}, {"EXPTIME": 0.0}, {"EXPTIME": 0.0, "IMAGETYP": "dark"}, {"EXPTIME": (60.0, "[ms] exposure")}, {"EXPOSURE": 1.0},
    {"EXPOSURE": 60.0}, {"IMAGETYP": None}, {"IMAGETYP": "Flat"}, {"IMAGETYP": "Flat", "OBSTYPE": "Dark"}, {"IMAGETYP": "Bias"},
    {"OBJECT": "flat"}, {"OBJECT": "M 32"}, {"IMAGETYP": None, "OBJECT": "bias"}, {"GAIN": 0.0}, {"GAIN": 100}, {"GAIN": 1.5},
    {"EGAIN": 1.5}, {"FILTER": None, "MYFILTER": "R"}, {"FILTER": "R"}, {"CCDSUM": "2 2"}, {"CCDSUM": "1 1"}, {"CCD-TEMP": -20.0},
    {"SET-TEMP": -20.0}, {"BIASSEC": "[9:10,1:8]"}, {"TRIMSEC": "[1:8,1:8]"}, {"DATASEC": "[1:4,1:8]"}, {"DATASEC": "[1:10,1:8]"},
    {"DATASECA": "[1:5,1:8]", "DATASECB": "[6:10,1:8]"}, {"CALSTAT": "BD"}, {"NCOMBINE": 1}, {"NCOMBINE": 5}, {"SHAPE": (8, 12)},
    {"DTYPE": "float32"}, {"DTYPE": "float32", "BUNIT": "adu"}, {"BUNIT": "electron"}, {"INSTRUME": "OTHER"}, {"READMODE": "fast"},
    {"IMCMB001": "a.fits"}, {"ESO DPR TECH": "SPECTRUM"}, {"RLEVEL": 91},
)  # fmt: skip
NAMES = ("0 flat", "0 flat 2", "masterbias", "my_master_flat")


@pytest.mark.parametrize("with_table", [False, True])
def test_frames_that_are_alike_say_what_each_says_alone(
    make_night: MakeNight, tmp_path: Path, with_table: bool
) -> None:
    """Whatever the others say that were looked at before."""
    files = {f"{place:03d}": {**LIGHT, **change} for place, change in enumerate(CHANGES)}
    untyped = {name: {**LIGHT, "IMAGETYP": None} for name in NAMES}
    frames = collect(make_night({**files, **untyped})).frames
    table: Camera | None = None
    if with_table:
        (tmp_path / "mine.toml").write_text(
            '[fix]\n"gain@FILE=00*" = 3.5\n"type@FILE=04*" = "arc"\n"offset@AIRMASS=1.2" = "12"\n'
        )
        table = load_camera(tmp_path / "mine.toml")
    options, recipe, edit = Options(), Recipe(), Edit()
    alone = [Describer(options, table, recipe).describe(frame, edit) for frame in frames]
    # from either end, so that other cards are looked at first
    for step in (1, -1):
        together = Describer(options, table, recipe)
        assert [together.describe(frame, edit) for frame in frames[::step]] == alone[::step]
    # equal numbers of different types and signs are told apart by their text
    assert list(map(repr, alone)) == [repr(together.describe(frame, edit)) for frame in frames]
    said = {repr((item.facts, item.stamps, item.refused)) for item in alone}
    assert len(said) > 0.8 * len(frames)


def test_what_is_given_goes_before_what_is_remembered(make_night: MakeNight) -> None:
    """An edit of one frame changes no other, and options go before it."""
    frames = collect(make_night(dict.fromkeys(("a", "b", "c"), LIGHT))).frames
    describer = Describer(Options(gain="4"), None, Recipe())
    edit = Edit({"type": "flat", "exposure": "7", "gain": "9", "filter": "R"})
    one, edited, last = (
        describer.describe(frame, how) for frame, how in zip(frames, (Edit(), edit, Edit()), strict=True)
    )
    assert (edited.kind, edited.facts.exposure.value, edited.facts.filter.value) == ("flat", 7.0, "R")
    assert edited.facts.gain.value == one.facts.gain.value == 4.0
    assert (last.facts, last.kind, last.facts.filter.value) == (one.facts, "science", "V")


def test_nearest_masters_are_those_of_a_plain_search(make_frame: MakeFrame) -> None:
    """Also where masters are equally far, or their times interleave."""
    facts = Describer(Options(), None, Recipe()).describe(make_frame(**LIGHT), Edit()).facts
    rng = np.random.default_rng(3)
    for _ in range(60):
        # whole numbers, so that many are equally far
        times = [tuple(sorted(rng.integers(0, 40, rng.integers(0, 4)).tolist())) for _ in range(12)]
        items = [Candidate(f"m{i}", "bias", facts, (8, 10), some, len(some)) for i, some in enumerate(times)]
        for moment in (-1.0, 0.0, 17.0, 17.5, 40.0):
            wanted = facts.with_fact("time", Fact(moment, "test"))
            found = Alike([], items).nearest(wanted)
            days = {item.name: distance(wanted, item) for item in items}
            assert all(days[item.name] == away for item, away in found)
            timed = sorted(value for value in days.values() if np.isfinite(value))
            timeless = [name for name, value in days.items() if not np.isfinite(value)]
            last = timed[NEAREST - 1] if len(timed) >= NEAREST else np.inf
            expected = {name for name, value in days.items() if np.isfinite(value) and value <= last}
            assert {item.name for item, _ in found} == expected | {*timeless[:NEAREST]}
