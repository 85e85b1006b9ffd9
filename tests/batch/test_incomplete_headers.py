"""Headers that say something in a form of their own: it is understood, or the product is in doubt and says the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.batch.camera_table import dark_strips
from lazyccd.batch.cameras import cameras_of, load_camera
from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.metadata import Facts, resolve_facts
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.cli.main import main
from lazyccd.sections import Region

PlanNight = Callable[..., NightPlan]


@pytest.fixture
def plan_night(tmp_path_factory: pytest.TempPathFactory) -> PlanNight:
    """Return a function that writes a night of 10 x 8 pixels into a folder of its own and plans it."""

    def plan(files: dict[str, dict[str, Any]], **options: Any) -> NightPlan:
        folder = tmp_path_factory.mktemp("night")
        for name, cards in files.items():
            fits.writeto(folder / f"{name}.fits", np.zeros((8, 10), "u2"), fits.Header(cards))
        return build_plan(collect(folder), Options(**options))

    return plan


@pytest.fixture
def make_frame(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RawFrame]:
    """Return a function that gives one file as it is collected, each in a folder of its own."""

    def make(**cards: Any) -> RawFrame:
        path = tmp_path_factory.mktemp("one") / "one.fits"
        fits.writeto(path, np.zeros((8, 10), "u2"), fits.Header(cards))
        return collect(path).frames[0]

    return make


def facts_of(frame: Any, **overrides: str) -> Facts:
    """Resolve the facts of a frame of 10 x 8 pixels."""
    return resolve_facts(frame, cameras_of(frame, None), overrides)


@pytest.mark.parametrize("text", ["9:10,1:8", "(9:10,1:8)", " [9:10, 1:8] "])
def test_section_without_square_brackets(make_frame: Any, text: str) -> None:
    """An overscan is found in any brackets, and what it leaves at its edge is kept."""
    facts = facts_of(make_frame(BIASSEC=text))
    assert (facts.overscan.value, facts.trim.value) == ("[9:10,1:8]", "[1:8,1:8]")
    assert facts.trim.source == "beside the overscan [9:10,1:8]"
    assert not facts.doubts
    assert facts_of(make_frame(BIASSEC=text), trim="none").trim.value is None


@pytest.mark.parametrize(
    ("overscan", "trim"),
    [("[1:2,1:8]", "[3:10,1:8]"), ("[8:9,1:8]", "[1:7,1:8]"), ("[1:10,7:8]", "[1:10,1:6]"), ("[9:10,3:4]", None)],
)
def test_trim_beside_the_overscan(make_frame: Any, overscan: str, trim: str | None) -> None:
    """An overscan along one edge leaves the rest; one that is no strip along an edge says nothing of the data."""
    assert facts_of(make_frame(BIASSEC=overscan)).trim.value == trim
    assert facts_of(make_frame(BIASSEC=overscan, TRIMSEC="[2:9,1:8]")).trim.value == "[2:9,1:8]"


@pytest.mark.parametrize(
    ("text", "way"), [("9-10", "write it as [x1:x2,y1:y2]"), ("[33:40,1:8]", "state it by --overscan")]
)
def test_unusable_section_is_a_doubt(make_frame: Any, text: str, way: str) -> None:
    """Pixels that a header calls overscan are not reduced as sky without a word; the option or 'none' settles it."""
    frame = make_frame(BIASSEC=text)
    assert way in facts_of(frame).doubts["overscan"]
    assert not facts_of(frame, overscan="none").doubts
    assert not facts_of(make_frame(BIASSEC="[0:0,0:0]")).doubts


def test_gains_of_amplifiers(make_frame: Any) -> None:
    """An image with gains of several and none of its own is in doubt."""
    facts = facts_of(make_frame(GAIN1=1.5, GAIN2=1.7, GAIN3=1.6))
    assert "the image holds 3 amplifiers (1, 2, 3)" in facts.doubts["detector"]
    assert not facts_of(make_frame(GAIN1=1.5, GAIN2=1.7), gain="1.6", overscan="none").doubts


def test_gains_go_to_the_amplifiers(tmp_path: Path) -> None:
    """GAIN1, GAIN2, ... are those of as many sections, in their order; lists of another length are left alone."""
    cards = {"GAIN1": 1.5, "GAIN2": 1.7, "RDNOISE1": 4.0, "RDNOISE2": 5.0, "BUNIT": "adu"}
    fits.writeto(tmp_path / "a.fits", np.zeros((4, 12), "f4"), fits.Header(cards))
    frame = lazyccd.open_fits(tmp_path / "a.fits")
    parts = {"L": {"DATASEC": "[3:6,*]", "BIASSEC": "[1:2,*]"}, "R": {"DATASEC": "[7:10,*]", "BIASSEC": "[11:12,*]"}}
    tree = lazyccd.split_amplifiers(frame, parts)
    headers = [tree[name].to_dataset().ccd.header for name in parts]
    assert [(header["GAIN"], header["RDNOISE"], header["BIASSEC"]) for header in headers] == [
        (1.5, 4.0, "[1:2,1:4]"),
        (1.7, 5.0, "[5:6,1:4]"),
    ]
    three = lazyccd.split_amplifiers(frame, {"A": "[1:4,*]", "B": "[5:8,*]", "C": "[9:12,*]"})
    assert "GAIN" not in three["A"].to_dataset().ccd.header


def test_filter_of_lower_case(make_frame: Any, tmp_path: Path) -> None:
    """A HIERARCH keyword of words is found for its name, and by a table in any case."""
    name = "HIERARCH inst filter name"
    facts = facts_of(make_frame(**{name: "g"}))
    assert (facts.filter.value, facts.filter.keyword) == ("g", "INST FILTER NAME")
    table = tmp_path / "my.toml"
    table.write_text('[keys]\nfilter = "HIERARCH inst colour"\n[fix]\n"gain@inst colour=G*" = 2.5\n')
    frame = make_frame(**{"HIERARCH Inst Colour": "green"})
    facts = resolve_facts(frame, cameras_of(frame, load_camera(table)), {})
    assert (facts.filter.value, facts.gain.value) == ("green", 2.5)


def test_flats_of_unknown_filters(plan_night: PlanNight, tmp_path: Path) -> None:
    """Flats that OBJECT calls by several names are no master without a doubt, where no keyword says the filter."""
    flats = {f"f{number}": {"OBSTYPE": "FLAT", "OBJECT": f"flat {'gr'[number % 2]} {number}"} for number in range(4)}
    plan = plan_night({**flats, "sky": {"OBSTYPE": "OBJECT", "OBJECT": "M 92"}})
    (sky,) = plan.science
    assert any("OBJECT calls flats 'flat g" in reason for reason in sky.reasons)
    alike = {name: {**cards, "OBJECT": f"flat {name[1:]}"} for name, cards in flats.items()}
    (sky,) = plan_night({**alike, "sky": {"OBSTYPE": "OBJECT", "OBJECT": "M 92"}}).science
    assert not any("OBJECT calls" in reason for reason in sky.reasons)


def test_keyword_that_no_file_has(plan_night: PlanNight, tmp_path: Path) -> None:
    """A table that asks for a misspelt keyword says so; of several keywords some may be missing."""
    table = tmp_path / "my.toml"
    table.write_text('[keys]\nfilter = "FILTRE"\ngain = ["EGAIN", "GAIN"]\nreadnoise = ["NOISE1", "NOISE2"]\n')
    plan = plan_night({"sky": {"OBSTYPE": "OBJECT", "GAIN": 1.5}}, camera=str(table))
    assert [note for note in plan.notes if "no file has" in note] == [
        "camera my.toml: [keys] filter = 'FILTRE': no file has this keyword; 'lazyccd info --header FILE' lists those it has",
        "camera my.toml: [keys] readnoise = 'NOISE1', 'NOISE2': no file has any of these keywords; "
        "'lazyccd info --header FILE' lists those it has",
    ]


def test_names_of_what_is_left_out(plan_night: PlanNight, tmp_path: Path) -> None:
    """Focus and test frames are known by OBJECT alone, and a table may leave any frame out as unknown."""
    frames = {name: {"OBJECT": name, "EXPTIME": 5.0} for name in ("focus", "test 3", "NGC 1", "Test Field", "moon")}
    kinds = {item.facts.object.value: item.kind for item in plan_night(frames).frames}
    assert kinds == {
        "focus": "focus",
        "test 3": "acquisition",
        "NGC 1": "science",
        "Test Field": "science",
        "moon": "science",
    }
    table = tmp_path / "my.toml"
    table.write_text('[types]\n"*@OBJECT=moon" = "unknown"\n')
    plan = plan_night(frames, camera=str(table))
    assert [item.kind for item in plan.frames if item.facts.object.value == "moon"] == ["unknown"]


def test_temperatures_make_one_line(plan_night: PlanNight) -> None:
    """Darks of another temperature are turned down in one line, however the sensor of each frame reads."""
    dark = {"IMAGETYP": "DARK", "EXPTIME": 60.0, "SET-TEMP": -5.0, "CCD-TEMP": -5.02}
    cold = {"SET-TEMP": -10.0, "EXPTIME": 60.0, "IMAGETYP": "LIGHT"}
    lights = {f"l{number}": {**cold, "CCD-TEMP": -10 - number / 100} for number in range(5)}
    plan = plan_night({"d1": dark, "d2": dark, **lights})
    (why,) = {rejected.reason for item in plan.science for rejected in item.dark.why_not}
    assert why == "set temperature -5 is not -10 within 1 K"


def test_products_beside_raw_frames(tmp_path: Path) -> None:
    """A night that was reduced into its own folder can be reduced again: products are passed over, unless they are named."""
    for number in range(2):
        header = fits.Header({"IMAGETYP": "LIGHT", "EXPTIME": 5.0, "GAIN": 1.5, "RDNOISE": 5.0})
        pixels = np.random.default_rng(number).normal(1000, 30, (32, 40)).astype("u2")
        fits.writeto(tmp_path / f"a{number}.fits", pixels, header)
    words = ("reduce", str(tmp_path), "-o", str(tmp_path), "--cosmic-rays", "none", "--allow-missing", "bias,dark,flat")
    first = CliRunner().invoke(main, list(words))
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(main, list(words))
    assert again.exit_code == 0, again.output
    assert "2 products of an earlier run are passed over" in " ".join(again.output.split())
    named = build_plan(collect(tmp_path / "a0_red.fits"))
    assert [item.status for item in named.frames] == ["REFUSED"]


def test_edges_that_vignette_are_no_overscan() -> None:
    """Only what is dark beside the darkest of the whole flat is proposed, and no flat without such a part."""
    y, x = np.mgrid[:60, :80]
    lit = 20000.0 * (1 - 0.4 * ((y - 30) ** 2 / 900 + (x - 40) ** 2 / 1600) / 2)
    assert dark_strips(lit) == []
    assert dark_strips(np.hstack([lit, np.full((60, 12), 400.0)])) == [Region(0, 60, 83, 92)]


@pytest.mark.parametrize(("trim", "is_told"), [("[1:20,1:32]", False), ("[3:20,1:32]", True)])
def test_gaps_between_amplifiers(tmp_path: Path, trim: str, is_told: bool) -> None:
    """Amplifiers that were trimmed by more than their sections leave gaps in the detector, which is told."""
    cards = {"IMAGETYP": "LIGHT", "EXPTIME": 5.0, "DATASEC": "[1:20,1:32]", "GAIN": 1.5, "RDNOISE": 5.0}
    hdus: list[Any] = [fits.PrimaryHDU()]
    for number, section in enumerate(("[1:20,1:32]", "[21:40,1:32]")):
        pixels = np.random.default_rng(number).normal(1000, 30, (32, 24)).astype("u2")
        hdus.append(fits.ImageHDU(pixels, fits.Header({**cards, "CCDSEC": section}), name=f"A{number}"))
    (tmp_path / "raw").mkdir()
    fits.HDUList(hdus).writeto(tmp_path / "raw" / "a.fits")
    words = ("reduce", str(tmp_path / "raw"), "-o", str(tmp_path / "out"), "--cosmic-rays", "none", "--trim", trim)
    result = CliRunner().invoke(main, [*words, "--overscan", "none"])
    text = " ".join(result.output.split())
    assert "2 images are put together into 1" in text
    assert ("of whose pixels 10.0% lie in none of them" in text) is is_told, text
