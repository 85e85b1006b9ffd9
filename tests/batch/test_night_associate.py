"""Who belongs to whom: keys and tolerances, nearest in time, darks with and without bias, what is missing."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.batch.associate import is_same, is_same_exposure
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan, night_of
from lazyccd.batch.metadata import Fact
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.errors import MissingFileError, ParameterError

BIAS = {"IMAGETYP": "BIAS", "EXPTIME": 0.0}
DARK = {"IMAGETYP": "DARK"}
FLAT = {"IMAGETYP": "FLAT", "FILTER": "r", "EXPTIME": 3.0}
LIGHT = {"IMAGETYP": "LIGHT", "FILTER": "r"}


def at(day: int, hour: int, minute: int = 0) -> dict[str, Any]:
    """Return the cards of a time in March 2024."""
    return {"DATE-OBS": f"2024-03-{day:02d}T{hour:02d}:{minute:02d}:00"}


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (60.0, 60.6, True),
        (60.0, 60.61, False),
        (1.0, 1.1, True),
        (1.0, 1.11, False),
        (180.0057, 180.0092, True),
        (60.0, None, False),
        (None, None, False),
    ],
)
def test_exposures_match_within_the_larger_of_a_tenth_and_a_percent(
    ours: float | None, theirs: float | None, same: bool
) -> None:
    """Exposures are equal within 0.1 s or 1 %."""
    assert is_same_exposure(ours, theirs) is same


@pytest.mark.parametrize(
    ("key", "ours", "theirs", "same"),
    [
        ("filter", "r", " r ", True),
        ("filter", "r", "R", False),
        ("filter", "6563", "6584", False),
        ("filter", "6563", "6563.0", True),
        ("detector", "220052", "220053", False),
        ("instrument", "Cam", "CAM", False),
        ("grating", "R600R, 7251.1", "R600R, 7251.9", True),
        ("grating", "R600R, 7251.1", "R600R, 7351.1", False),
        ("grating", "600", "601", False),
        ("slit", "slit#1.0", "slit#1.02", False),
        ("offset", "50", "50.4", False),
        ("filter", "r", "rp", False),
        ("readout", "60.0", "60", True),
        ("slit", "1.013393", "0.995536", True),
        ("slit", "1.0", "1.5", False),
        ("binning", "2x2", "1x1", False),
    ],
)
def test_names_match_to_the_letter(key: str, ours: str, theirs: str, same: bool) -> None:
    """Names are compared to the letter, numbers among them too; widths and angles have a tolerance."""
    assert is_same(key, ours, theirs) is same


def test_a_whole_night(plan_night: Any) -> None:
    """With bias, dark and flat of the same kind a frame is complete, and the masters have what they need."""
    plan = plan_night({"b1": BIAS, "b2": BIAS, "d1": DARK, "f1": FLAT, "f2": FLAT, "s1": LIGHT})
    assert [(group.name, group.members) for group in plan.groups] == [
        ("bias_2024-03-01", ("b1.fits", "b2.fits")),
        ("dark_60s_2024-03-01", ("d1.fits",)),
        ("flat_r_2024-03-01", ("f1.fits", "f2.fits")),
    ]
    frame_plan = plan.frame("s1.fits")
    assert frame_plan.status == "COMPLETE"
    assert [choice.master for choice in frame_plan.choices] == [*(group.name for group in plan.groups), ""]
    assert plan.frame("d1.fits").bias.master == "bias_2024-03-01"
    assert plan.frame("f1.fits").dark.scale == pytest.approx(3 / 60)
    assert plan.frame("f1.fits").dark.exposure == 60
    assert plan.exit_status == 0
    assert [item.name for item in plan.science] == ["s1.fits"]


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        (BIAS, {"INSTRUME": "OTHER"}, "instrument 'OTHER' is not 'CAM'"),
        (BIAS, {"CCDSUM": "2 2"}, "binning '2x2' is not '1x1'"),
        (BIAS, {"READOUTM": "fast"}, "readout 'fast' is not 'slow'"),
        (BIAS, {"DETECTOR": "B"}, "detector 'B' is not 'A'"),
        (BIAS, {"CCDSEC": "[11:20,1:8]"}, "window '11,1' is not '1,1'"),
        (BIAS, {"SHAPE": (6, 10)}, "size 10 x 6 is not 10 x 8"),
        (BIAS, {"BIASSEC": "[1:2,1:8]"}, "only one of both has an overscan"),
        (BIAS, {"TRIMSEC": "[1:8,1:8]"}, "trim [1:8,1:8] is not None"),
        (FLAT, {"FILTER": "g"}, "filter 'g' is not 'r'"),
        (FLAT, {"OBSMODE": "spectroscopy"}, "mode 'spectrum' is not 'image'"),
        (DARK, {"EXPTIME": 30.0}, "exposure 30 s is not 60 s, and without a bias subtracted it cannot be scaled"),
        (DARK, {"CCD-TEMP": -8.9}, "temperature -8.9 is not -10 within 1 K"),
        (DARK, {"SET-TEMP": -15.0}, "set temperature -15 is not -10 within 1 K"),
    ],
)
def test_why_a_candidate_fails(plan_night: Any, kind: dict[str, Any], change: dict[str, Any], reason: str) -> None:
    """A candidate that does not match is not used, and each key that failed is named."""
    common = {"CCDSUM": "1 1", "READOUTM": "slow", "DETECTOR": "A", "CCDSEC": "[1:10,1:8]", "CCD-TEMP": -10.0}
    common |= {"SET-TEMP": -10.0} if "SET-TEMP" in change else {}
    plan = plan_night({"cal": {**common, **kind, **change}, "s1": {**common, **LIGHT}})
    (group,) = plan.groups
    choice = getattr(plan.frame("s1.fits"), group.kind)
    assert not choice
    assert reason in dict(choice.why_not)[group.name]
    assert plan.frame("s1.fits").status == "PARTIAL"
    assert f"no {group.kind}: {group.name} does not match" in plan.frame("s1.fits").reason


def test_temperatures_match_within_a_kelvin(plan_night: Any) -> None:
    """Set temperatures must agree, and measured ones too; 1 K is near enough."""
    sets = {"SET-TEMP": -10.0, "CCD-TEMP": -7.0}
    lights = {"far": {"SET-TEMP": -11.0, "CCD-TEMP": -12.0}, "near": {"SET-TEMP": -11.0, "CCD-TEMP": -7.5}}
    plan = plan_night({"d": {**DARK, **sets}, **{name: {**LIGHT, **cards} for name, cards in lights.items()}})
    assert plan.frame("far.fits").dark.why_not[0].reason == "temperature -7 is not -12 within 1 K"
    assert plan.frame("near.fits").dark.master == "dark_60s_2024-03-01"


def test_key_of_one_only_is_not_compared(plan_night: Any) -> None:
    """A key that only one frame has is ignored, and the reason says so."""
    plan = plan_night({"b": BIAS, "s": {**LIGHT, "CCDSUM": "1 1"}})
    choice = plan.frame("s.fits").bias
    assert choice.master == "bias_2024-03-01"
    assert choice.why == "1 frame; not compared, only one has it: binning"


def test_nearest_in_time(plan_night: Any) -> None:
    """Of two nights' masters the nearer one is taken, and the other says how far it is."""
    files = {
        "b1": {**BIAS, **at(1, 20)},
        "b2": {**BIAS, **at(2, 20)},
        "s1": {**LIGHT, **at(2, 2)},
        "s2": {**LIGHT, **at(3, 1)},
        "s3": {**LIGHT, **at(1, 22)},
    }
    plan = plan_night(files)
    assert [group.name for group in plan.groups] == ["bias_2024-03-01", "bias_2024-03-02"]
    assert plan.frame("s1.fits").bias.master == "bias_2024-03-01"
    choice = plan.frame("s2.fits").bias
    assert (choice.master, choice.away) == ("bias_2024-03-02", pytest.approx(5 / 24))
    assert choice.why_not == (("bias_2024-03-01", "farther in time: 29.0 h away, the chosen one 5.0 h away"),)


def test_nights_need_no_longitude(plan_night: Any) -> None:
    """A night ends where no exposure of the sky begins, wherever the telescope is."""
    hawaii = {f"s{hour}": {**LIGHT, **at(1, hour)} for hour in range(5, 16, 2)}
    plan = plan_night({**hawaii, "b1": {**BIAS, **at(1, 3)}, "b2": {**BIAS, **at(1, 17)}})
    assert {item.night for item in plan.frames} == {"2024-02-29"}
    assert night_of(None, 0.5) == ""


def test_no_bias_dark_of_equal_exposure(plan_night: Any) -> None:
    """Without a bias, a dark of equal exposure contains it, and the bias is not missing."""
    plan = plan_night({"d1": DARK, "d2": {**DARK, "EXPTIME": 300.0}, "f": FLAT, "s": LIGHT})
    frame_plan = plan.frame("s.fits")
    assert (frame_plan.dark.master, frame_plan.contains_bias, frame_plan.dark.scale) == (
        "dark_60s_2024-03-01",
        True,
        1.0,
    )
    assert frame_plan.bias.why == "contained in dark_60s_2024-03-01"
    assert "without a bias subtracted it cannot be scaled" in dict(frame_plan.dark.why_not)["dark_300s_2024-03-01"]
    assert frame_plan.lacks == ()
    assert frame_plan.reason == "flat_r_2024-03-01 has no bias"


def test_scaled_dark(plan_night: Any) -> None:
    """With a bias the longest dark is scaled where none has equal exposure; equal exposure is preferred."""
    darks = {f"d{seconds}": {**DARK, "EXPTIME": float(seconds)} for seconds in (30, 120, 300)}
    plan = plan_night({"b": BIAS, **darks, "s": LIGHT})
    choice = plan.frame("s.fits").dark
    assert (choice.master, choice.scale) == ("dark_300s_2024-03-01", pytest.approx(0.2))
    assert choice.why.startswith("longest, scaled by 0.2 from 300 s")
    assert dict(choice.why_not)["dark_30s_2024-03-01"] == "exposure 30 s, the chosen one has 300 s"
    plan = plan_night({"d60": DARK})
    choice = plan.frame("s.fits").dark
    assert (choice.master, choice.scale) == ("dark_60s_2024-03-01", 1.0)
    assert choice.why.startswith("equal exposure")


def test_flats_are_not_mixed(plan_night: Any) -> None:
    """Sky and dome flats make two masters; exposure does not part flats, the filter does."""
    plan = plan_night(
        {
            "f1": {**FLAT, "IMAGETYP": "SKYFLAT", **at(1, 19)},
            "f2": {**FLAT, "IMAGETYP": "SKYFLAT", "EXPTIME": 9.0, **at(1, 19, 5)},
            "f3": {**FLAT, "IMAGETYP": "DOMEFLAT", **at(1, 17)},
            "f4": {**FLAT, "IMAGETYP": "SKYFLAT", "FILTER": "g#782", **at(1, 19)},
            "s": LIGHT,
        }
    )
    assert {group.name: group.members for group in plan.groups} == {
        "domeflat_r_2024-03-01": ("f3.fits",),
        "skyflat_r_2024-03-01": ("f1.fits", "f2.fits"),
        "skyflat_g-782_2024-03-01": ("f4.fits",),
    }
    assert plan.frame("s.fits").flat.master == "skyflat_r_2024-03-01"


def test_what_is_listed_and_what_is_refused(plan_night: Any) -> None:
    """Arcs and unknown frames are listed without failure; processed frames are refused, unless forced."""
    files = {
        "arc": {"IMAGETYP": "ARC"},
        "odd": {"IMAGETYP": "XYZ"},
        "done": {**LIGHT, "FLATCOR": "Jul 13 12:40 Flat field image is Flat"},
        "zero": {**BIAS, "SUBOSCAN": "ccd"},
    }
    plan = plan_night(files)
    assert [(item.name, item.status) for item in plan.frames] == [
        ("arc.fits", "LISTED"),
        ("done.fits", "REFUSED"),
        ("odd.fits", "LISTED"),
        ("zero.fits", "REFUSED"),
    ]
    assert plan.frame("odd.fits").reason.startswith("IMAGETYP = 'XYZ' is no known type")
    assert "processed already (FLATCOR = 'Jul 13 12:40" in plan.frame("done.fits").reason
    assert (plan.groups, plan.science, plan.exit_status) == ((), (), 1)
    forced = plan_night({}, force=True)
    assert [item.name for item in forced.science] == ["done.fits"]
    assert "reduced as if it were raw" in forced.frame("done.fits").notes[0]


def test_allowed_to_be_missing(plan_night: Any) -> None:
    """The exit status is 3 for what is missing, 0 where that was allowed."""
    files = {"b": BIAS, "s": LIGHT}
    assert plan_night(files).exit_status == 3
    assert plan_night({}, allow_missing=("flat",)).exit_status == 3
    assert plan_night({}, allow_missing=("flat", "dark")).exit_status == 0
    with pytest.raises(ParameterError, match="--gain 'nan' must be a number"):
        plan_night({}, gain="nan")
    with pytest.raises(ParameterError, match="--allow-missing 'flats' must be one of bias, dark, flat"):
        plan_night({}, allow_missing=("flats",))


def test_masters_that_exist(plan_night: Any, tmp_path: Any) -> None:
    """A master that is named goes before those of the night; one of a folder competes with them."""
    files = {"b": BIAS, "s": LIGHT}
    plan_night(files)
    header = fits.Header({"INSTRUME": "CAM", "IMAGETYP": "Master Bias", "DATE-OBS": "2024-01-01T00:00:00"})
    (tmp_path / "calib").mkdir()
    given = tmp_path / "calib" / "mybias.fits"
    fits.PrimaryHDU(fits.getdata(tmp_path / "night" / "b.fits").astype("f4"), header).writeto(given)
    choice = plan_night({}, bias=(str(given),)).frame("s.fits").bias
    assert (choice.master, choice.is_file, choice.why) == (str(given), True, "given")
    assert dict(choice.why_not)["bias_2024-03-01"] == "mybias.fits was given"
    choice = plan_night({}, calib=(str(tmp_path / "calib"),)).frame("s.fits").bias
    assert choice.master == "bias_2024-03-01"
    assert dict(choice.why_not)["mybias.fits"] == "level 1, the chosen one level 0: 61 days away"
    flat = tmp_path / "myflat.fits"
    header = fits.Header({"INSTRUME": "CAM", "IMAGETYP": "Master Flat"})
    fits.PrimaryHDU(np.ones((8, 10), "f4"), header).writeto(flat)
    plan = plan_night({}, flat=(str(flat),), bpm=str(given))
    assert plan.frame("s.fits").bpm.master == str(given)
    assert plan.frame("s.fits").flat.why == "given; not compared, only one has it: filter"
    dark = tmp_path / "mydark.fits"
    header = fits.Header({"INSTRUME": "CAM", "IMAGETYP": "Master Dark"})
    fits.PrimaryHDU(np.full((8, 10), 100, "f4"), header).writeto(dark)
    plan = plan_night({}, dark=(str(dark),))
    assert plan.frame("s.fits").dark.master == ""
    assert plan.notes[-1].startswith("--dark mydark.fits is not used: exposure - is not 60 s")


def test_master_treated_differently(plan_night: Any, tmp_path: Any) -> None:
    """A master that was not overscan-subtracted, where the frame will be, is an error, unless it is forced."""
    over = {"BIASSEC": "[9:10,1:8]", "TRIMSEC": "[1:8,1:8]"}
    plan_night({"s": {**LIGHT, **over}})
    header = fits.Header({"INSTRUME": "CAM", "IMAGETYP": "BIAS"})
    fits.PrimaryHDU(fits.getdata(tmp_path / "night" / "s.fits")[:, :8], header).writeto(tmp_path / "given.fits")
    given = str(tmp_path / "given.fits")
    with pytest.raises(ParameterError, match="it is not overscan-subtracted and the frame will be; make it the same"):
        plan_night({}, bias=(given,))
    assert plan_night({}, bias=(given,), force=True).frame("s.fits").bias.master == given
    assert plan_night({}, bias=(given,), overscan="none").frame("s.fits").bias.master == given
    with pytest.raises(ParameterError, match="size 8 x 8 is not the frame's 10 x 8 after trimming"):
        plan_night({}, bias=(given,), overscan="none", trim="none")


def test_what_can_be_measured(plan_night: Any) -> None:
    """Pairs of bias and flats stand in for a missing gain and read noise; a measured fact takes their place."""
    bare = {"GAIN": None, "RDNOISE": None}
    files: dict[str, dict[str, Any]] = {"b1": BIAS, "b2": BIAS, "f1": FLAT, "f2": FLAT, "d": DARK, "s": LIGHT}
    plan = plan_night({name: {**cards, **bare} for name, cards in files.items()})
    (pairs,) = plan.pairs
    assert (pairs.zero, pairs.flat) == ("bias_2024-03-01", "flat_r_2024-03-01")
    frame_plan = plan.frame("s.fits")
    assert frame_plan.to_measure == ("gain", "readnoise")
    assert frame_plan.status == "COMPLETE"
    assert frame_plan.facts.gain.source == "to be measured, pairs of bias_2024-03-01 and flat_r_2024-03-01"
    measured = plan.with_fact(pairs.frames, "gain", Fact(1.17, "measured by pairs"))
    assert measured.frame("s.fits").facts.gain.value == 1.17
    failed = plan.with_fact(pairs.frames, "gain", Fact(None, "too few electrons"))
    assert failed.frame("s.fits").status == "PARTIAL"
    assert failed.frame("s.fits").reason == "no gain: too few electrons"


def test_camera_table_that_fits_nothing(plan_night: Any, tmp_path: Any) -> None:
    """A camera table that matches no file is an error, not silence."""
    (tmp_path / "my.toml").write_text('[match]\nINSTRUME = "OTHER"\n')
    with pytest.raises(ParameterError, match="matches none of the 1 files"):
        plan_night({"s": LIGHT}, camera=str(tmp_path / "my.toml"))


def masters_of(plan: NightPlan, kind: str = "") -> list[list[str]]:
    """Return the members of each master."""
    return [[name.removesuffix(".fits") for name in group.members] for group in plan.groups if kind in group.name]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("FILTER", ["R", "R", "r", "r"]),
        ("FILTER", [6563, 6563, 6584, 6584]),
        ("FILTER", ["Ha", "Ha", "HA", "HA"]),
        ("FILTER", ["V", "V", None, None]),
        ("FILTER", ["V1", "V1", "V01", "V01"]),
        ("DETSER", ["220052", "220052", "220053", "220053"]),
        ("DETSER", [220052, 220052, 222052, 222052]),
        ("CCDNAME", ["A", "A", "a", "a"]),
        ("TELESCOP", ["T1", "T1", "T2", "T2"]),
        ("TELESCOP", ["T1", "T1", None, None]),
        ("INSTRUME", ["CAM1", "CAM1", "CAM2", "CAM2"]),
        ("READOUTM", ["1 MHz", "1 MHz", "3 MHz", "3 MHz"]),
        ("RDSPEED", [100, 100, 101, 101]),
        ("READPORT", ["EM", "EM", "CONV", "CONV"]),
        ("GAIN", [1.0, 1.0, 1.05, 1.05]),
        ("GAIN", [100, 100, 101, 101]),
        ("RDNOISE", [5.0, 5.0, 9.0, 9.0]),
        ("OFFSET", [10, 10, 50, 50]),
        ("PEDESTAL", [100, 100, 0, 0]),
        ("ISOSPEED", [800, 800, 801, 801]),
        ("EMGAIN", [1, 1, 300, 300]),
        ("ROWORDER", ["TOP-DOWN", "TOP-DOWN", "BOTTOM-UP", "BOTTOM-UP"]),
        ("CCDSUM", ["1 1", "1 1", "2 2", "2 2"]),
        ("FILTER2", ["B", "B", "V", "V"]),
        ("BAYERPAT", ["RGGB", "RGGB", None, None]),
    ],
)
def test_what_parts_groups(plan_night: Any, key: str, values: list[Any]) -> None:
    """Each of these keys parts frames into two masters, whose names differ by more than case, in any order of the files."""
    names = ["a", "b", "c", "d"]
    files = {name: {**FLAT, key: values[index]} for name, index in zip(names, [0, 2, 1, 3], strict=True)}
    plan = plan_night(files)
    assert sorted(masters_of(plan)) == [["a", "c"], ["b", "d"]]
    assert len({group.name.casefold() for group in plan.groups}) == 2


@pytest.mark.parametrize(
    ("exposures", "groups"),
    [
        ([60.0, 60.3, 59.8], 1),
        ([60.0, 60.5, 61.0, 61.5], 3),
        ([1.0, 1.05, 1.1], 1),
        ([1.0, 1.3, 1.0], 2),
        ([300, 300, 600, 601, 603], 2),
    ],
)
def test_darks_are_grouped_by_nearness(plan_night: Any, exposures: list[float], groups: int) -> None:
    """The exposures of a master dark lie within one tolerance, whatever the order of the files."""
    files = {f"d{index}": {**DARK, "EXPTIME": exposure} for index, exposure in enumerate(exposures)}
    found = [sorted(exposures[int(name[1:])] for name in some) for some in masters_of(plan_night(files))]
    assert len(found) == groups
    assert all(some[-1] - some[0] <= max(0.1, 0.01 * some[0]) + 1e-9 for some in found)
    assert sorted(value for some in found for value in some) == sorted(exposures)


def test_groups_do_not_depend_on_the_order_of_files(plan_night: Any, make_night: Any) -> None:
    """A chain of temperatures is cut at the same places from either end."""
    values = [-10.9, -10.2, -9.6, -9.0, -20.0]
    files = {f"d{index}": {**DARK, "CCD-TEMP": value} for index, value in enumerate(values)}
    expected = {frozenset(some) for some in masters_of(plan_night(files))}
    folder = make_night({})
    backwards = build_plan(collect([folder / f"d{index}.fits" for index in reversed(range(len(values)))]))
    assert {frozenset(some) for some in masters_of(backwards)} == expected


def test_a_master_that_agrees_on_more_goes_first(plan_night: Any) -> None:
    """A flat of unknown filter is not taken while one of the right filter is there, though it is nearer."""
    files = {
        "right": {**FLAT, "FILTER": "r", "DATE-OBS": "2024-03-01T18:00:00"},
        "silent": {**FLAT, "FILTER": None, "DATE-OBS": "2024-03-01T20:10:00"},
        "s": {**LIGHT, "FILTER": "r", "DATE-OBS": "2024-03-01T20:11:00"},
    }
    choice = plan_night(files).frame("s.fits").flat
    assert choice.master == "flat_r_2024-03-01"
    reason = "level 2, the chosen one level 0: not compared by filter, which only one of both has"
    assert choice.why_not[0].reason == reason


def test_a_master_of_unknown_filter_is_a_doubt(plan_night: Any) -> None:
    """A flat that only may be of the right filter makes no complete product, and the reason is said."""
    plan = plan_night({"f": {**FLAT, "FILTER": None}, "b": BIAS, "s": {**LIGHT, "FILTER": "r"}})
    item = plan.frame("s.fits")
    assert item.flat
    assert item.status == "PARTIAL"
    assert "was not compared by filter, which only one of both has" in item.reason
    assert plan.exit_status == 3


def test_old_masters_are_a_doubt(plan_night: Any) -> None:
    """A master of another season makes no complete product."""
    plan = plan_night({"b": {**BIAS, "DATE-OBS": "2024-01-15T20:00:00"}, "s": LIGHT}, allow_missing=("flat", "dark"))
    assert "bias_2024-01-15 is 46 days away" in plan.frame("s.fits").reason
    assert plan.exit_status == 3


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"BUNIT": "electron"}, "BUNIT = 'electron': raw pixels are in adu"),
        ({"BUNIT": "bananas"}, "BUNIT = 'bananas' is no known unit"),
        ({"DTYPE": "float32"}, "no BUNIT on an image of floats"),
        ({"CALSTAT": "BDF"}, "processed already (CALSTAT = 'BDF')"),
        ({"CALSTAT": "D"}, "processed already (CALSTAT = 'D')"),
    ],
)
def test_what_cannot_be_raw_is_refused_in_the_plan(plan_night: Any, cards: dict[str, Any], reason: str) -> None:
    """Frames in other units or of other programs are refused with a way out, and the others are reduced."""
    plan = plan_night({"bad": {**LIGHT, **cards}, "good": LIGHT})
    assert plan.frame("bad.fits").status == "REFUSED"
    assert reason in plan.frame("bad.fits").reason
    assert plan.frame("good.fits").is_reduced
    assert plan.exit_status == 1


def test_masters_among_raw_frames_are_listed(plan_night: Any) -> None:
    """A combination of another program joins no master."""
    plan = plan_night({"b1": BIAS, "b2": {**BIAS, "NCOMBINE": 20}, "b3": {**BIAS, "CALSTAT": "M"}, "s": LIGHT})
    assert masters_of(plan) == [["b1"]]
    assert "NCOMBINE = 20" in plan.frame("b2.fits").reason


def test_flats_and_lights_of_zero_seconds(plan_night: Any) -> None:
    """They keep their type, and their exposure is not known: no dark is scaled to it."""
    plan = plan_night({"d": DARK, "f": {**FLAT, "EXPTIME": 0}, "s": {**LIGHT, "EXPTIME": 0}})
    assert [plan.frame(f"{name}.fits").kind for name in "fs"] == ["flat", "science"]
    assert not plan.frame("s.fits").dark
    assert "EXPTIME is 0" in plan.frame("s.fits").facts.exposure.note


def test_doubts_of_frames_go_into_what_is_made_of_them(plan_night: Any) -> None:
    """A flat whose type is only proposed makes its master, and what is divided by it, doubtful."""
    plan = plan_night({"flat_r1": {**FLAT, "IMAGETYP": None}, "s": LIGHT})
    assert "flat is proposed by file name" in plan.frame("s.fits").reason
    assert plan.frame("s.fits").status == "PARTIAL"


def test_products_differ_by_more_than_case(make_night: Any) -> None:
    """Files of one name in two folders, or that differ by case or ending alone, have products of their own."""
    folder = make_night({"a": LIGHT, "b": LIGHT})
    for name, cards in {"r1/x": {}, "r2/x": {"OBJECT": "another"}, "A": {"OBJECT": "other"}}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        make_night({name: {**LIGHT, **cards}})
    (folder / "b.fits").rename(folder / "B.fit")
    make_night({"b": LIGHT})
    plan = build_plan(collect(folder, recursive=True))
    assert plan.product_names == {
        "A.fits": "A",
        "B.fit": "B",
        "a.fits": "a_2",
        "b.fits": "b_2",
        "r1/x.fits": "r1_x",
        "r2/x.fits": "r2_x",
    }


def test_copies_count_once(make_night: Any) -> None:
    """A packed copy of a frame is left out and said; another exposure of that name is not."""
    folder = make_night({"a": LIGHT, "c": LIGHT})
    (folder / "a.fits.gz").write_bytes(gzip.compress((folder / "a.fits").read_bytes()))
    with fits.open(folder / "c.fits") as hdus:
        hdus[0].header["DATE-OBS"] = "2024-03-02T21:00:00"
        hdus.writeto(folder / "c.fits.gz")
    found = collect(folder)
    assert [frame.name for frame in found.frames] == ["a.fits", "c.fits", "c.fits.gz"]
    assert found.notes == ("a.fits.gz is a.fits once more: it counts once",)


def test_equal_files_count_once(make_night: Any) -> None:
    """A copy under another name or in another folder is left out; an equal header with other pixels is a frame of its own."""
    folder = make_night({"a": FLAT})
    (folder / "sub").mkdir()
    (folder / "sub" / "a.fits").write_bytes((folder / "a.fits").read_bytes())
    with fits.open(folder / "a.fits") as hdus:
        hdus[0].data[0, 0] += 1
        hdus.writeto(folder / "c.fits")
    found = collect(folder, recursive=True)
    assert [frame.name for frame in found.frames] == ["a.fits", "c.fits"]
    assert found.notes == ("sub/a.fits is a.fits once more: it counts once",)


def test_subfolders_are_said_or_searched(make_night: Any) -> None:
    """Subfolders with FITS files are named with the option that searches them."""
    folder = make_night({"a": LIGHT})
    (folder / "flats" / "R").mkdir(parents=True)
    make_night({"flats/R/f1": FLAT, "flats/f2": FLAT})
    notes = ("subfolders with FITS files are not searched: flats (1), flats/R (1); -r searches them",)
    assert collect(folder).notes == notes
    assert [frame.name for frame in collect(folder, recursive=True).frames] == [
        "a.fits",
        "flats/f2.fits",
        "flats/R/f1.fits",
    ]
    (folder / "a.fits").unlink()
    with pytest.raises(MissingFileError, match="pass -r for the 2 in its subfolders"):
        collect(folder)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_detector_that_is_alone_keeps_its_name(make_night: Any, lost: int) -> None:
    """An exposure of which one of two detectors is left gets the calibrations of that detector."""
    folder = make_night({})
    for name, kind, extensions in (("b", "BIAS", (1, 2)), ("s", "LIGHT", (2 - lost,))):
        primary = fits.PrimaryHDU(
            header=fits.Header({"IMAGETYP": kind, "EXPTIME": 0.0 if kind == "BIAS" else 60.0, "INSTRUME": "M"})
        )
        images = [fits.ImageHDU(np.zeros((8, 10), "u2"), name=f"CCD{number}") for number in extensions]
        fits.HDUList([primary, *images]).writeto(folder / f"{name}.fits")
    plan = build_plan(collect(folder))
    (science,) = plan.science
    assert science.facts.detector.value == f"CCD{2 - lost}"
    assert plan.members(science.bias.master)[0].name == f"b.fits[CCD{2 - lost},1]"


def test_nothing_recognised_is_a_failure(plan_night: Any) -> None:
    """A night of frames without types ends with 1 and says what was looked for; one untyped frame among others with 3."""
    plan = plan_night({"n1": {}, "n2": {"IMAGETYP": "?"}})
    assert plan.exit_status == 1
    assert "IMAGETYP, OBSTYPE" in plan.frame("n1.fits").reason
    plan = plan_night({"n3": BIAS, "n4": FLAT, "n5": LIGHT})
    assert plan.exit_status == 3


@pytest.mark.parametrize("key", ["TELESCOP", "INSTRUME", "DETECTOR", "READOUTM", "OFFSET", "CCD-TEMP"])
def test_a_light_that_does_not_say_where_it_comes_from_is_a_doubt(plan_night: Any, key: str) -> None:
    """A card that all calibrations have and a light lacks may have told that it is of another camera."""
    told = {key: -10.0 if key == "CCD-TEMP" else "A"}
    files = {"b": {**BIAS, **told}, "d": {**DARK, **told}, "f": {**FLAT, **told}, "s": {**LIGHT, key: None}}
    item = plan_night(files).frame("s.fits")
    assert item.status == "PARTIAL"
    assert "was not compared by" in item.reason


def test_each_detector_gets_its_own_mask(make_night: Any) -> None:
    """Of masks of one size, each image of a mosaic gets that of its extension; one that has none gets none."""
    folder = make_night({})
    primary = {"IMAGETYP": "LIGHT", "EXPTIME": 60.0, "INSTRUME": "M"}
    images = [fits.ImageHDU(np.zeros((8, 10), "u2"), name=f"CCD{number}") for number in (1, 2, 3)]
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary)), *images]).writeto(folder / "s.fits")
    masks = []
    for number in (2, 1):
        bad = np.zeros((8, 10), "u1")
        bad[number] = 1
        masks.append(fits.ImageHDU(bad, name=f"CCD{number}"))
    fits.HDUList([fits.PrimaryHDU(), *masks]).writeto(folder.parent / "bpm.fits")
    plan = build_plan(collect(folder), Options(bpm=str(folder.parent / "bpm.fits")))
    assert [item.bpm.master.rpartition("[")[2] for item in plan.frames] == ["CCD1,1]", "CCD2,1]", ""]
    assert "it is one of several, and of CCD2" in plan.frames[2].bpm.why


def test_a_night_whose_exposures_are_not_recognised_is_no_success(plan_night: Any) -> None:
    """A misspelled type of all exposures of the sky leaves no product, and the exit status says so."""
    plan = plan_night({"b": BIAS, "s": {**LIGHT, "IMAGETYP": "Ligth"}})
    assert plan.exit_status == 3
    assert "the nearest is 'LIGHT', science" in plan.frame("s.fits").reason
