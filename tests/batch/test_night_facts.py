"""Facts: in which order sources are asked, what is kept of them, what camera tables may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.batch.cameras import builtin_cameras, cameras_of, generic_camera, load_camera
from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.metadata import Facts, resolve_facts
from lazyccd.errors import FormatError, MissingFileError, ParameterError

CAMERA = """
[match]
INSTRUME = "CAM*"
[keys]
filter = "WHEEL1 + WHEEL2"
[fix]
"gain@SPEED=fast" = "3.5 electron/adu"
readnoise = "7 electron"
"""


def facts_of(frame: RawFrame, camera: Path | None = None, **overrides: str) -> Facts:
    """Resolve the facts of a frame."""
    return resolve_facts(frame, cameras_of(frame, load_camera(camera) if camera else None), overrides)


def test_order_of_sources(make_frame: Any, tmp_path: Path) -> None:
    """The command line goes before the camera table, that before the built-in one, that before generic keywords."""
    camera = tmp_path / "my.toml"
    camera.write_text(CAMERA)
    frame = make_frame(SPEED="fast", WHEEL1="g", WHEEL2="clear")
    facts = facts_of(frame, camera, gain="1,9")
    assert (facts.gain.value, facts.gain.source) == (1.9, "command line")
    facts = facts_of(frame, camera)
    assert (facts.gain.value, facts.gain.source) == (3.5, "camera my.toml: fixed for SPEED=fast")
    assert (facts.readnoise.value, facts.readnoise.source) == (7.0, "camera my.toml: fixed")
    assert (facts.filter.value, facts.filter.source) == ("g", "camera my.toml: WHEEL1")
    facts = facts_of(frame)
    assert (facts.gain.value, facts.gain.source) == (2.0, "keyword GAIN")


def test_builtin_before_generic(make_frame: Any) -> None:
    """A built-in table names its own keyword even where a generic one is there."""
    frame = make_frame(INSTRUME="EFOSC", **{"ESO DET OUT1 CONAD": 1.1, "ESO DET OUT1 GAIN": 0.91, "GAIN": 0.91})
    facts = facts_of(frame)
    assert (facts.gain.value, facts.gain.source) == (1.1, "built-in efosc2: ESO DET OUT1 CONAD")


@pytest.mark.parametrize(
    ("gain", "note"),
    [
        (0.0, "GAIN = 0.0 is not above 0, ignored"),
        ("[2.01, 1.99]", "GAIN = '[2.01, 1.99]' lists 2 values, one per amplifier, and one image has one, ignored"),
        ("UNKNOWN", ""),
    ],
)
def test_unusable_gain_is_missing_and_noted(make_frame: Any, gain: Any, note: str) -> None:
    """A gain that cannot be used is missing, and the note says why."""
    facts = facts_of(make_frame(GAIN=gain))
    assert facts.gain.value is None
    assert facts.gain.note == note


def test_next_keyword_is_asked(make_frame: Any) -> None:
    """An unusable keyword does not hide the next one."""
    facts = facts_of(make_frame(EGAIN=0.0, GAIN="1,3"))
    assert (facts.gain.value, facts.gain.source) == (1.3, "keyword GAIN")
    assert "EGAIN = 0.0" in facts.gain.note


def test_given_value_that_cannot_be_used(make_frame: Any) -> None:
    """What the command line says must be usable."""
    frame = make_frame()
    with pytest.raises(ParameterError, match=r"one\.fits: gain '-1' of the command line is not above 0"):
        facts_of(frame, gain="-1")
    with pytest.raises(ParameterError, match=r"overscan '\[1:99,1:8\]' .* inside the image of 10 x 8 pixels"):
        facts_of(frame, overscan="[1:99,1:8]")


def test_saturation_falls_back_on_the_integers(make_frame: Any) -> None:
    """Without a usable keyword, saturation is the largest integer; 0 is not usable."""
    facts = facts_of(make_frame(SATURATE=0.0, MAXLIN=0.0))
    assert (facts.saturate.value, facts.saturate.source) == (65535.0, "largest value of 16 bits")
    assert "SATURATE = 0.0 is not above 0" in facts.saturate.note


def test_maxlin_where_saturate_is_missing(make_frame: Any) -> None:
    """MAXLIN serves where SATURATE is not usable."""
    assert facts_of(make_frame(SATURATE=0.0, MAXLIN=40000.0)).saturate.value == 40000.0


@pytest.mark.parametrize(
    ("cards", "value", "source"),
    [
        ({}, "adu", "integers without BUNIT"),
        ({"BUNIT": "ADU"}, "adu", "keyword BUNIT"),
        ({"BUNIT": "Counts"}, "adu", "keyword BUNIT"),
        ({"BUNIT": "dn"}, "adu", "keyword BUNIT"),
        ({"DTYPE": "float32"}, None, "no BUNIT"),
        ({"BUNIT": "electron"}, "electron", "keyword BUNIT"),
        ({"BUNIT": "bananas"}, None, "no keyword"),
    ],
)
def test_units_of_pixels(make_frame: Any, cards: dict[str, Any], value: str | None, source: str) -> None:
    """Integers without BUNIT or in counts are adu; floats without it and unknown units are in no unit, which is said."""
    fact = facts_of(make_frame(**cards)).unit
    assert (fact.value, fact.source) == (value, source)
    assert bool(fact.note) == (value is None or cards.get("BUNIT") in {"Counts", "dn"})


def test_sections(make_frame: Any) -> None:
    """Header sections are kept if they lie inside; else they are ignored with a note; 'none' switches off."""
    frame = make_frame(BIASSEC="[ 9: 10, 1: 8]", TRIMSEC="[1:99,1:8]")
    facts = facts_of(frame)
    assert (facts.overscan.value, facts.trim.value) == ("[9:10,1:8]", None)
    assert "TRIMSEC = '[1:99,1:8]' is no section inside the image of 10 x 8 pixels, ignored" in facts.trim.note
    facts = facts_of(frame, overscan="none", trim="[1:8,1:8]")
    assert (facts.overscan.value, facts.overscan.source) == (None, "command line: none")
    assert (facts.trim.value, facts.trim.source) == ("[1:8,1:8]", "command line")


def test_overscan_beside_the_data(make_frame: Any) -> None:
    """Without BIASSEC the larger strip beside DATASEC is the overscan, less three pixels."""
    facts = facts_of(make_frame(DATASEC="[3:20,1:30]", SHAPE=(30, 40)))
    assert facts.overscan.value == "[24:40,1:30]"
    assert facts.overscan.source == "beside DATASEC [3:20,1:30], 3 pixels skipped"
    assert facts.trim.value == "[3:20,1:30]"


def test_measured_facts_replace(make_frame: Any) -> None:
    """A measured number takes the place of a header's."""
    facts = facts_of(make_frame())
    changed = facts.with_fact("gain", type(facts.gain)(1.17, "measured by pairs"))
    assert (changed.gain.value, facts.gain.value) == (1.17, 2.0)


def test_two_headers(tmp_path: Path) -> None:
    """One image extension has the primary's cards too; among several, gain and sections need INHERIT."""
    root = fits.PrimaryHDU()
    root.header["GAIN"], root.header["EXPTIME"], root.header["INSTRUME"] = 9.0, 30.0, "CAM"
    image = fits.ImageHDU(np.zeros((4, 5), "uint16"), name="A")
    image.header["EXPTIME"] = 31.0
    fits.HDUList([root, image]).writeto(tmp_path / "single.fits")
    facts = facts_of(collect(tmp_path / "single.fits").frames[0])
    assert (facts.gain.value, facts.exposure.value) == (9.0, 31.0)

    heir = fits.ImageHDU(np.zeros((4, 5), "uint16"), name="B")
    heir.header["INHERIT"] = True
    fits.HDUList([root, image, heir]).writeto(tmp_path / "many.fits")
    frames = collect([f"{tmp_path}/many.fits[A]", f"{tmp_path}/many.fits[B,1]"]).frames
    assert [frame.name for frame in frames] == ["many.fits[A,1]", "many.fits[B,1]"]
    first, second = (facts_of(frame) for frame in frames)
    assert (first.gain.value, first.exposure.value) == (None, 31.0)
    assert (second.gain.value, second.exposure.value) == (9.0, 30.0)


def test_collecting(make_night: Any, tmp_path: Path) -> None:
    """Folders, globs, lists and files are found; what cannot be read is kept with the reason."""
    folder = make_night({"a": {}, "b": {"SHAPE": (1, 8, 10)}})
    (folder / "c.fits").write_text("not FITS")
    (folder / "notes.txt").write_text("not looked at")
    fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(folder / "d.fits")
    found = collect(folder)
    assert [frame.name for frame in found.frames] == ["a.fits", "b.fits"]
    assert found.frames[1].shape == (8, 10)
    assert found.frames[1].notes == ("an image of axes (1, 8, 10) is read as (8, 10)",)
    assert [name for name, _ in found.skipped] == ["c.fits", "d.fits"]
    assert "a FITS file begins with" in found.skipped[0][1]
    assert "no image of two axes" in found.skipped[1][1]
    (tmp_path / "list.txt").write_text("night/a.fits\nnight/b.fits # the second\n")
    for names in (f"{folder}/[ab].fits", f"@{tmp_path}/list.txt", [folder / "a.fits", folder / "b.fits"]):
        assert collect(names).frames == found.frames
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="holds no FITS file"):
        collect(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[keys", FormatError, "is not TOML"),
        ("[key]\ngain='A'", ParameterError, "table 'key' must be one of match, keys, fix, types, needs"),
        ("[keys]\ngian='A'", ParameterError, "fact 'gian' must be one of type, mode"),
        ("[types]\nA='biass'", ParameterError, "type 'biass' must be one of bias, dark"),
        ("[fix]\n'gain@X'='1'", ParameterError, "condition of 'gain@X' in .fix. must be KEYWORD=pattern"),
    ],
)
def test_bad_camera_tables(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    """A table with a mistake is refused with the place."""
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(error, match=message):
        load_camera(tmp_path / "my.toml")


def test_builtin_tables() -> None:
    """The tables that come along are these, and can be read."""
    assert [camera.name for camera in builtin_cameras()] == ["efosc2", "isis", "sbig", "sinistro"]
    assert generic_camera().keywords("gain")[0] == "EGAIN"


@pytest.mark.parametrize(
    ("cards", "value", "source"),
    [
        ({"FILTER": "NO_FILTER", "FILTER2": "V"}, "V", "keyword FILTER2"),
        ({"FILTER": "R"}, "R", "keyword FILTER"),
        ({"FILTER": 6563}, "6563", "keyword FILTER"),
        ({"FILTER1": "air", "FILTER2": "rp", "FILTER3": "AIR"}, "rp", "keyword FILTER2"),
        ({"FILTER1": "Ha", "FILTER2": "ND1"}, "Ha, ND1", "keyword FILTER1 & FILTER2"),
        ({"FILTER": "V", "FILTER1": "V", "FILTER2": "Clear"}, "V", "keyword FILTER & FILTER1"),
        ({"FILTER": "Clear", "FILTER2": "Open"}, "Clear", "keyword FILTER"),
        ({"ESO INS FILT1 NAME": "free", "ESO INS FILT2 NAME": "B#900"}, "B#900", "keyword ESO INS FILT2 NAME"),
        ({"FILTSEL": "OIII"}, "OIII", "keyword FILTSEL"),
        ({"XFLTNM": "OIII"}, "OIII", "keyword XFLTNM"),
        ({}, None, "no keyword"),
    ],
)
def test_filters(make_frame: Any, cards: dict[str, Any], value: str | None, source: str) -> None:
    """All wheels of a header make the filter, clear ones aside; a keyword that only sounds like one is used and said."""
    fact = facts_of(make_frame(**cards)).filter
    assert (fact.value, fact.source) == (value, source)
    assert bool(fact.note) == bool({"FILTSEL", "XFLTNM"} & cards.keys())


@pytest.mark.parametrize(
    ("cards", "gain", "setting"),
    [
        ({"GAIN": 1.4}, 1.4, None),
        ({"GAIN": 360}, None, "360"),
        ({"GAIN": 31.5}, None, "31.5"),
        ({"GAIN": 10}, None, "10"),
        ({"GAIN": 120.0}, None, "120.0"),
        ({"GAIN": 0, "EGAIN": 4.0}, 4.0, "0"),
        ({"GAIN": 100, "EGAIN": 1.0}, 1.0, "100"),
        ({"GAIN": 1.4, "EGAIN": 1.4}, 1.4, None),
        ({"GAIN": 1.0, "EGAIN": 2.3}, 2.3, "1.0"),
        ({"GAIN": "UNKNOWN"}, None, None),
        ({"GAIN": None, "GAINRAW": 139}, None, "139"),
    ],
)
def test_gains_that_are_settings(
    make_frame: Any, cards: dict[str, Any], gain: float | None, setting: str | None
) -> None:
    """What a camera was set to is no gain in electrons per adu, and tells frames apart."""
    facts = facts_of(make_frame(**cards))
    assert (facts.gain.value, facts.gain_setting.value) == (gain, setting)
    assert ("setting" in facts.gain.note) == (gain is None and "GAINRAW" not in cards and setting is not None)


def test_a_gain_with_a_unit_is_one(make_night: Any) -> None:
    """A whole number of 10 or more is a gain if its comment has a unit; one given by hand is taken as it is."""
    path = make_night({"one": {}}) / "one.fits"
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["GAIN"] = (15, "[e-/ADU] gain")
    frame = collect(path).frames[0]
    assert facts_of(frame).gain.value == 15.0
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["GAIN"] = (15, "gain")
    facts = facts_of(collect(path).frames[0], gain="15")
    assert (facts.gain.value, facts.gain_setting.value) == (15.0, "15")


def test_milliseconds(make_night: Any, tmp_path: Path) -> None:
    """An exposure is in milliseconds where its comment or a camera table says so."""
    path = make_night({"one": {"EXPTIME": 5000, "INSTRUME": "CAM1"}}) / "one.fits"
    assert facts_of(collect(path).frames[0]).exposure.value == 5000.0
    camera = tmp_path / "my.toml"
    camera.write_text('[keys]\nexposure = "EXPTIME [ms]"\n')
    assert facts_of(collect(path).frames[0], camera).exposure.value == 5.0
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.comments["EXPTIME"] = "exposure time in milliseconds"
    assert facts_of(collect(path).frames[0]).exposure.value == 5.0


@pytest.mark.parametrize(
    ("cards", "doubtful"),
    [
        ({"EXPTIME": 5000, "EXPOSURE": 5.0}, True),
        ({"EXPTIME": 60.0, "EXPOSURE": 60.05}, False),
        ({"EXPTIME": 60.0, "XPOSURE": 30.0}, True),
        ({"EXPTIME": 60.0, "EXPOSURE": "UNKNOWN"}, False),
    ],
)
def test_exposures_that_contradict_each_other(make_frame: Any, cards: dict[str, Any], doubtful: bool) -> None:
    """Two exposures that differ by more than 1 % are a doubt that names both."""
    fact = facts_of(make_frame(**cards)).exposure
    assert fact.value == float(cards["EXPTIME"])
    assert bool(fact.doubt) == doubtful
    assert not doubtful or "EXPTIME says" in fact.doubt


def test_a_card_that_stands_twice(make_night: Any) -> None:
    """A repeated card of another value is a doubt; one of the same value is none."""
    path = make_night({"one": {}}) / "one.fits"
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.append(("EXPTIME", 6.0))
        hdus[0].header.append(("RDNOISE", 5.0))
    facts = facts_of(collect(path).frames[0])
    assert facts.exposure.value == 60.0
    assert facts.doubts == {"exposure": "the header has EXPTIME 2 times, 60.0 and 6.0; the first is used"}


def test_settings_that_change_pixels(make_frame: Any) -> None:
    """Speed and port count beside the mode; so do offset, ISO, electron multiplication and the order of rows."""
    cards = {"READMODE": "slow", "RDSPEED": 100, "OFFSET": 50, "ISOSPEED": 800, "EMGAIN": 20, "ROWORDER": "TOP-DOWN"}
    facts = facts_of(make_frame(**cards, TELESCOP="A", DETECTOR="E2V", DETSER="220052"))
    assert facts.readout.value == "slow, 100"
    assert (facts.offset.value, facts.iso.value, facts.em.value) == ("50", "800", "20")
    assert (facts.row_order.value, facts.telescope.value) == ("TOP-DOWN", "A")
    assert facts.detector.value == "E2V, 220052"


TAPS = {
    "DATASECA": "[3:5,1:8]", "BIASSECA": "[1:2,1:8]", "GAINA": 1.5, "DATASECB": "[6:8,1:8]", "BIASSECB": "[9:10,1:8]", "GAINB": 1.6,
}  # fmt: skip
CTIO = {"DSEC11": "[1:4,1:8]", "BSEC11": "[5:5,1:8]", "DSEC12": "[7:10,1:8]", "BSEC12": "[6:6,1:8]", "GTGAIN11": 1.5}


@pytest.mark.parametrize("cards", [TAPS, CTIO])
@pytest.mark.parametrize(
    ("stated", "is_doubtful"),
    [
        ({}, True),
        ({"gain": "1.5"}, True),
        ({"overscan": "none"}, True),
        ({"gain": "1.5", "overscan": "none"}, False),
        ({"gain": "1.5", "overscan": "[1:2,1:8]"}, False),
    ],
)
def test_several_amplifiers_in_one_image(
    make_frame: Any, cards: dict[str, Any], stated: dict[str, str], is_doubtful: bool
) -> None:
    """One gain and one overscan are not those of each amplifier: an image of several is in doubt, unless both are stated."""
    facts = facts_of(make_frame(**cards), **stated)
    assert ("the image holds 2 amplifiers" in facts.doubts.get("detector", "")) is is_doubtful


@pytest.mark.parametrize(
    "cards", [{"DATASECA": "[3:8,1:8]", "BIASSECA": "[1:2,1:8]", "GAINA": 1.5}, {"GAIN": 1.5, "GAINA": 1, "GAINB": 2}]
)
def test_one_amplifier(make_frame: Any, cards: dict[str, Any]) -> None:
    """Sections of a single amplifier, or gains beside that of the image, say nothing of several."""
    assert facts_of(make_frame(**cards)).doubts == {}


def test_a_date_beside_its_time_of_day(make_frame: Any) -> None:
    """A date without a time of day is used where that stands in another card, and noted where there is none."""
    facts = facts_of(make_frame(**{"DATE-OBS": "21/03/98", "UT": "01:07:03"}))
    assert facts.time.value == pytest.approx(50893.0465625, abs=1e-6)
    assert facts.time.note == ""


def test_a_date_alone(make_frame: Any) -> None:
    """It is noted."""
    facts = facts_of(make_frame(**{"DATE-OBS": "21/03/98"}))
    assert facts.time.note == "DATE-OBS = '21/03/98' has no time of day, ignored"
