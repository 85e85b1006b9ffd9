"""Types: their many spellings, and frames that were processed already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from lazyccd.batch.cameras import cameras_of, load_camera
from lazyccd.batch.classify import calibration_of, classify, read_stamps
from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.metadata import Fact, resolve_facts


def type_of(frame: RawFrame, camera: Path | None = None) -> Fact[str]:
    """Classify one frame."""
    cameras = cameras_of(frame, load_camera(camera) if camera else None)
    return classify(frame, cameras, resolve_facts(frame, cameras, {}).exposure)


@pytest.mark.parametrize(
    ("keyword", "text", "expected"),
    [
        ("IMAGETYP", "Bias Frame", "bias"),
        ("IMAGETYP", "zero", "bias"),
        ("IMAGETYP", "BIAS", "bias"),
        ("IMAGETYP", "Offset", "bias"),
        ("IMAGETYP", "Dark Frame", "dark"),
        ("IMAGETYP", "dark", "dark"),
        ("IMAGETYP", "DARKFLAT", "dark"),
        ("IMAGETYP", "Flat Dark", "dark"),
        ("IMAGETYP", "Flat Field", "flat"),
        ("IMAGETYP", "FLAT", "flat"),
        ("IMAGETYP", "sky flat", "skyflat"),
        ("OBSTYPE", "SKYFLAT", "skyflat"),
        ("IMAGETYP", "Twilight Flat", "skyflat"),
        ("IMAGETYP", "dome_flat", "domeflat"),
        ("IMAGETYP", "dflat", "domeflat"),
        ("OBSTYPE", "LAMPFLAT", "lampflat"),
        ("IMAGETYP", "Light Frame", "science"),
        ("IMAGETYP", "LIGHT", "science"),
        ("IMAGETYP", "object", "science"),
        ("OBSTYPE", "TARGET", "science"),
        ("OBSTYPE", "EXPOSE", "science"),
        ("OBSTYPE", "STANDARD", "science"),
        ("IMGTYPE", "FLAT", "flat"),
        ("FRAME", "Light", "science"),
        ("IMAGETYP", "comp", "arc"),
        ("OBSTYPE", "ARC", "arc"),
        ("OBSTYPE", "FOCUS", "focus"),
        ("IMAGETYP", "acquisition", "acquisition"),
        ("IMAGETYP", "Master Dark", "master"),
        ("IMAGETYP", "whatever", "unknown"),
        ("ESO DPR TYPE", "BIAS", "bias"),
        ("ESO DPR TYPE", "FLAT,SKY", "skyflat"),
        ("ESO DPR TYPE", "SKY,FLAT", "skyflat"),
        ("ESO DPR TYPE", "FLAT,LAMP", "lampflat"),
        ("ESO DPR TYPE", "DOME", "unknown"),
        ("ESO DPR TYPE", "WAVE,LAMP", "arc"),
        ("ESO DPR TYPE", "STD", "science"),
        ("ESO DPR CATG", "SCIENCE", "science"),
        ("OBSTYPE", "SPECTRUM", "science"),
        ("OBSTYPE", "ZERO", "bias"),
        ("OBSTYPE", "TWILIGHT", "skyflat"),
        ("OBSTYPE", "SKY FLAT", "skyflat"),
        ("OBSTYPE", "EXPERIMENTAL", "science"),
        ("IMAGETYP", "LightFrame", "science"),
        ("IMAGETYP", "comparison", "arc"),
        ("FLAVOR", "science", "science"),
        ("OBSTYPE", "HARTMANN", "focus"),
    ],
)
def test_spellings(make_frame: Any, keyword: str, text: str, expected: str) -> None:
    """A type is found under many names, and the keyword that decided is kept."""
    found = type_of(make_frame(**{keyword: text}))
    assert found.value == expected
    assert found.source.startswith(f"{keyword} = {text!r}")


def test_zero_seconds_are_a_bias(make_frame: Any) -> None:
    """A dark of 0 seconds is a bias, and the source says both."""
    found = type_of(make_frame(IMAGETYP="Dark Frame", EXPTIME=0.0))
    assert found == Fact("bias", "exposure 0 s (keyword EXPTIME), against IMAGETYP = 'Dark Frame'")


def test_later_keyword_decides_where_the_first_is_strange(make_frame: Any) -> None:
    """A spelling that means nothing does not hide the next keyword."""
    assert type_of(make_frame(IMAGETYP="EXT", OBSTYPE="FLAT")) == Fact("flat", "OBSTYPE = 'FLAT'")


def test_acquisition_of_eso(make_frame: Any) -> None:
    """The category goes before the type: an acquisition of an object is no science."""
    frame = make_frame(**{"ESO DPR TYPE": "OBJECT", "ESO DPR CATG": "ACQUISITION"})
    assert type_of(frame).value == "acquisition"


def test_user_spellings(make_frame: Any, tmp_path: Path) -> None:
    """A camera table may name another keyword, other spellings and conditions."""
    camera = tmp_path / "my.toml"
    camera.write_text('[keys]\ntype = "WHAT"\n[types]\n"P*@EXPTIME=60" = "skyflat"\n')
    assert type_of(make_frame(WHAT="panel"), camera) == Fact("skyflat", "WHAT = 'panel', EXPTIME=60 (camera my.toml)")


def test_no_keyword(make_frame: Any) -> None:
    """A frame without any type and whose name tells nothing is unknown, and the way out is named."""
    found = type_of(make_frame())
    assert found.value == "unknown"
    assert found.source.startswith("no keyword of the type (IMAGETYP, OBSTYPE, ...)")
    assert "[types]" in found.source


@pytest.mark.parametrize(
    ("name", "cards", "expected", "why"),
    [
        ("bias_001", {}, "bias", "file name 'bias_001.fits'"),
        ("Zero-03", {}, "bias", "file name"),
        ("dark60s", {}, "dark", "file name"),
        ("masterless_flatR1", {}, "flat", "file name"),
        ("skyflat_V", {}, "skyflat", "file name"),
        ("DarkFlat_2s", {}, "dark", "file name"),
        ("M31_Light_60s", {}, "science", "file name"),
        ("calib/darks/0001", {}, "dark", "folder 'darks'"),
        ("flat/R/0001", {}, "flat", "folder 'flat'"),
        ("a0001", {"OBJECT": "dome flat B"}, "domeflat", "OBJECT 'dome flat B'"),
        ("a0002", {"OBJECT": "NGC 7331"}, "science", "OBJECT 'NGC 7331'"),
        ("a0003", {"EXPTIME": 0.0}, "bias", "exposure 0 s"),
        ("flatland_a", {}, "unknown", ""),
        ("a0004", {"OBJECT": "N/A"}, "unknown", ""),
    ],
)
def test_types_from_names(make_night: Any, name: str, cards: dict[str, Any], expected: str, why: str) -> None:
    """Names of files and folders, and OBJECT, propose a type where no keyword has one; a proposal is in doubt."""
    night = make_night({})
    (night / name).parent.mkdir(parents=True, exist_ok=True)
    make_night({name: cards, "other": {"IMAGETYP": "light"}})
    frame = next(
        item for item in collect([night / "other.fits", night / f"{name}.fits"]).frames if "other" not in item.name
    )
    found = type_of(frame)
    assert found.value == expected
    assert why in found.source
    assert bool(found.doubt) == (found.source.startswith("proposed") or expected == "unknown")


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"IMAGETYP": "Flat", "EXPTIME": 0.0}, "flat"),
        ({"IMAGETYP": "Light", "EXPTIME": 0.0}, "science"),
        ({"IMAGETYP": "Dark", "EXPTIME": 0.0}, "bias"),
        ({"EXPTIME": 0.0}, "bias"),
        ({"IMAGETYP": "ARC", "EXPTIME": 0.0}, "arc"),
        ({"IMAGETYP": "XYZ", "EXPTIME": 0.0}, "unknown"),
    ],
)
def test_zero_seconds(make_frame: Any, cards: dict[str, Any], expected: str) -> None:
    """0 seconds make a bias of a dark and of a frame without a type, and of nothing else."""
    assert type_of(make_frame(**cards)).value == expected


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"IMAGETYP": "Bias", "NCOMBINE": 20}, "NCOMBINE = 20"),
        ({"IMAGETYP": "Bias", "IMCMB001": "a.fits"}, "IMCMB001 = 'a.fits'"),
        ({"IMAGETYP": "Flat", "STACKCNT": 9}, "STACKCNT = 9"),
        ({"IMAGETYP": "Dark", "COMBINED": True}, "COMBINED = True"),
        ({"IMAGETYP": "Dark Frame", "CALSTAT": "BM"}, "CALSTAT = 'BM'"),
        ({"IMAGETYP": "Bias", "LZKIND": "master bias"}, "LZKIND = 'master bias'"),
        ({"EXPTIME": 0.0, "NCOMBINE": 5}, "NCOMBINE = 5"),
    ],
)
def test_what_others_combined_is_a_master(make_frame: Any, cards: dict[str, Any], reason: str) -> None:
    """A calibration that was made of several frames is no raw one, whichever program made it."""
    assert type_of(make_frame(**cards)) == Fact("master", reason)


@pytest.mark.parametrize("name", ["master_bias", "MasterBias", "Master-flat_R", "my master dark", "bias_master"])
def test_a_file_called_master_is_none_of_the_raw_frames(make_night: Any, name: str) -> None:
    """Programs that write no stamp still call the file so; an object may be called anything."""
    kind = "Dark" if "dark" in name else "Bias"
    raw = collect(make_night({name: {"IMAGETYP": kind}})).frames[0]
    assert type_of(raw) == Fact("master", f"file name {name}.fits")


def test_a_light_called_master_is_a_light(make_night: Any) -> None:
    """Only calibrations are told by the name of their file."""
    assert type_of(collect(make_night({"master_light": {"IMAGETYP": "Light"}})).frames[0]).value == "science"


def test_one_frame_is_no_combination(make_frame: Any) -> None:
    """NCOMBINE = 1 and a false COMBINED are written for raw frames too."""
    assert type_of(make_frame(IMAGETYP="Bias", NCOMBINE=1, COMBINED=False, CALSTAT="")).value == "bias"


def test_calstat_says_what_was_done(make_frame: Any) -> None:
    """The letters of MaxIm's CALSTAT are steps."""
    stamps = read_stamps(make_frame(IMAGETYP="Light", CALSTAT="BDF"))
    assert (stamps.done, stamps.reason) == (("bias", "dark", "flat"), "CALSTAT = 'BDF'")


@pytest.mark.parametrize(
    ("cards", "kind", "other"),
    [
        ({"IMAGETYP": "Light", "OBSTYPE": "DARK"}, "science", "OBSTYPE = 'DARK' is dark"),
        ({"IMAGETYP": "object", "OBSTYPE": "BIAS"}, "science", "OBSTYPE = 'BIAS' is bias"),
        ({"IMAGETYP": "Flat", "OBSTYPE": "dark"}, "flat", "OBSTYPE = 'dark' is dark"),
        ({"IMAGETYP": "dark", "FRAME": "Flat"}, "dark", "FRAME = 'Flat' is flat"),
        ({"IMGTYPE": "zero", "EXPTYPE": "dark"}, "bias", "EXPTYPE = 'dark' is dark"),
    ],
)
def test_keywords_that_contradict_are_a_doubt(make_frame: Any, cards: dict[str, Any], kind: str, other: str) -> None:
    """Two keywords name two kinds of calibration: the first is used, and is not trusted."""
    found = type_of(make_frame(**cards))
    assert found.value == kind
    assert other in found.doubt


@pytest.mark.parametrize(
    "cards",
    [
        {"IMAGETYP": "flat", "OBSTYPE": "SKY FLAT"},
        {"IMAGETYP": "zero", "OBSTYPE": "BIAS", "EXPTIME": 0.0},
        {"IMAGETYP": "bias", "FRAME": "EXPOSURE", "EXPTIME": 0.0},
        {"IMAGETYP": "flat", "OBSTYPE": "OBJECT"},
        {"ESO DPR CATG": "SCIENCE", "ESO DPR TYPE": "FLAT,SKY", "ESO DPR TECH": "IMAGE"},
        {"IMAGETYP": "dark", "OBSTYPE": "BIAS", "EXPTIME": 0.0},
    ],
)
def test_keywords_that_agree_are_no_doubt(make_frame: Any, cards: dict[str, Any]) -> None:
    """General words stand beside any kind, and a dark of 0 seconds is a bias."""
    assert not type_of(make_frame(**cards)).doubt


@pytest.mark.parametrize(
    ("first", "second"), [("Light", "Dark"), ("Dark", "Light"), ("Bias", "Flat"), ("Flat", "Light")]
)
def test_a_type_that_stands_twice_is_a_doubt(make_night: Any, first: str, second: str) -> None:
    """Of two cards of one keyword, the first is used, and is not trusted."""
    folder = make_night({"one": {"IMAGETYP": first}})
    with fits.open(folder / "one.fits", mode="update") as hdus:
        hdus[0].header.append(("IMAGETYP", second), end=True)
    found = type_of(collect(folder).frames[0])
    assert found.source == f"IMAGETYP = {first!r}"
    assert f"IMAGETYP = {second!r}" in found.doubt


def test_unknown_words_have_a_nearest_one(make_frame: Any) -> None:
    """A misspelled type is listed with the spelling that it is most like."""
    assert "the nearest is 'BIAS', bias" in type_of(make_frame(IMAGETYP="BAIS")).source


def test_a_type_can_be_fixed(make_frame: Any, tmp_path: Path) -> None:
    """[fix] type goes before all keywords, and FILE stands for the name of the file."""
    camera = tmp_path / "my.toml"
    camera.write_text('[fix]\n"type@FILE=one*" = "flat"\n')
    frame = make_frame()
    assert type_of(frame, camera) == Fact("flat", "camera my.toml: fixed")
    camera.write_text('[types]\n"*@FILE=ONE*" = "dark"\n')
    assert type_of(frame, camera) == Fact("dark", "FILE=ONE* (camera my.toml)")


@pytest.mark.parametrize(
    ("cards", "done", "reason"),
    [
        ({"SUBBIAS": "ccd=<CCDData>, master=<CCDData>"}, ("bias",), "SUBBIAS = "),
        ({"SUBOSCAN": "x", "TRIMIM": "y"}, ("overscan", "trim"), "SUBOSCAN = 'x', TRIMIM = 'y'"),
        ({"ZEROCOR": "Jul 13 12:40 Zero level correction"}, ("bias",), "ZEROCOR"),
        ({"FLATCOR": "Jul 13 12:40 Flat field image is Flat"}, ("flat",), "FLATCOR"),
        ({"OVERSCAN": "Jul 13 12:40 Overscan section is [1:4]"}, ("overscan",), "OVERSCAN"),
        ({"PROCTYPE": "InstCal"}, (), "PROCTYPE = 'InstCal'"),
        ({"RLEVEL": 91}, (), "RLEVEL = 91"),
        ({"ESO PRO CATG": "SCIENCE_REDUCED"}, (), "ESO PRO CATG"),
        ({"PROCTYPE": "raw", "RLEVEL": 0, "OVERSCAN": 32, "TRIM": False, "FLATCOR": "F"}, (), ""),
        ({}, (), ""),
    ],
)
def test_stamps(make_frame: Any, cards: dict[str, Any], done: tuple[str, ...], reason: str) -> None:
    """Frames that were processed are known by their stamps; numbers and flags of raw headers are none."""
    stamps = read_stamps(make_frame(**cards))
    assert stamps.done == done
    assert stamps.reason.startswith(reason)
    assert bool(stamps.reason) == bool(reason)


def test_flats_are_flats() -> None:
    """Four kinds of flat make flats; nothing else does."""
    assert [calibration_of(kind) for kind in ("flat", "skyflat", "domeflat", "lampflat")] == ["flat"] * 4
    assert [calibration_of(kind) for kind in ("bias", "dark", "science", "arc")] == ["bias", "dark", "", ""]


@pytest.mark.parametrize(
    ("cards", "doubtful"),
    [
        ({"IMAGETYP": "object", "OBJECT": "sky flat"}, True),
        ({"IMAGETYP": "object", "OBJECT": "Flat V 3"}, True),
        ({"IMAGETYP": "light", "OBJECT": "dark 60s"}, True),
        ({"IMAGETYP": "object", "OBJECT": "bias"}, True),
        ({"IMAGETYP": "object", "OBJECT": "zero_12"}, True),
        ({"IMAGETYP": "object", "OBJECT": "Dark Cloud B68"}, False),
        ({"IMAGETYP": "object", "OBJECT": "Flatiron"}, False),
        ({"IMAGETYP": "object", "OBJECT": "M 31"}, False),
        ({"IMAGETYP": "object", "OBJECT": "R 12"}, False),
        ({"IMAGETYP": "flat", "OBJECT": "M 31"}, False),
        ({"IMAGETYP": "bias", "EXPTIME": 30.0}, True),
        ({"IMAGETYP": "bias", "EXPTIME": 1.5}, True),
        ({"IMAGETYP": "bias", "EXPTIME": 0.001}, False),
        ({"IMAGETYP": "bias", "EXPTIME": 1.0}, False),
    ],
)
def test_types_that_the_header_makes_unlikely(make_frame: Any, cards: dict[str, Any], doubtful: bool) -> None:
    """An exposure of the sky that is called a flat, or a bias that was exposed, is a doubt; names of objects are none."""
    assert bool(type_of(make_frame(**cards)).doubt) is doubtful


def test_an_unlikely_type_can_be_stated(plan_night: Any, tmp_path: Path) -> None:
    """A camera table ends the doubt."""
    table = tmp_path / "mine.toml"
    table.write_text('[fix]\n"type@OBJECT=*flat*" = "skyflat"\n"type@IMAGETYP=bias" = "bias"\n')
    files = {"a": {"IMAGETYP": "object", "OBJECT": "flat R"}, "b": {"IMAGETYP": "bias", "EXPTIME": 30.0}}
    plan = plan_night(files, camera=str(table))
    assert [(item.kind, item.facts.type.doubt) for item in plan.frames] == [("skyflat", ""), ("bias", "")]
