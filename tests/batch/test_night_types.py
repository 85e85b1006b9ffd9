"""Types: their many spellings, and frames that were processed already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lazyccd.batch.cameras import cameras_of, load_camera
from lazyccd.batch.classify import calibration_of, classify, read_stamps
from lazyccd.batch.collect import RawFrame
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
    ],
)
def test_spellings(make_frame: Any, keyword: str, text: str, expected: str) -> None:
    """A type is found under many names, and the keyword that decided is kept."""
    found = type_of(make_frame(**{keyword: text}))
    assert found.value == expected
    assert found.source.startswith(f"{keyword} = {text!r}")


def test_zero_seconds_are_a_bias(make_frame: Any) -> None:
    """An exposure of 0 is a bias whatever its type says, and the source says both."""
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
    """A frame without any type is unknown."""
    assert type_of(make_frame()) == Fact("unknown", "no keyword of the type")


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
