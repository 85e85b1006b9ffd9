"""Kinds of nights that went wrong, several of each, with headers of our own and with a real one of an SBIG camera.

A night is planned only: which frames make a master, which master a frame gets, what is refused, what is in doubt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.batch.run import Run

Cards = dict[str, Any]
KINDS: dict[str, Cards] = {
    "bias": {"IMAGETYP": "Bias Frame", "EXPTIME": 0.0},
    "dark": {"IMAGETYP": "Dark Frame", "EXPTIME": 60.0},
    "flat": {"IMAGETYP": "Flat Field", "EXPTIME": 5.0, "FILTER": "R"},
    "light": {"IMAGETYP": "Light Frame", "EXPTIME": 60.0, "FILTER": "R"},
}


@pytest.fixture(params=["plain", "sbig"])
def usual(request: Any, shared_data: Path) -> fits.Header:
    """Return the cards that all frames of a night share."""
    if request.param == "plain":
        return fits.Header({"INSTRUME": "CAM", "GAIN": 1.5, "RDNOISE": 5.0})
    real = fits.getheader(shared_data / "tres1_oscaar" / "tres1-021.fit")
    # What astropy writes itself.
    for key in ("SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "BZERO", "BSCALE", "EXPTIME", "IMAGETYP"):
        real.remove(key, ignore_missing=True)
    return real


def plan_of(folder: Path, usual: fits.Header, frames: list[tuple[str, Cards]], **options: Any) -> NightPlan:
    """Return the plan of frames of these kinds, one a minute, with cards of their own; None takes a card away."""
    for number, (kind, cards) in enumerate(frames):
        header = usual.copy()
        for key, value in {**KINDS[kind], "DATE-OBS": f"2024-03-10T20:{number:02d}:00", **cards}.items():
            if value is None:
                header.remove(key, ignore_missing=True)
            else:
                header[key] = value
        fits.writeto(folder / f"n{number:02d}.fits", np.full((8, 10), 1000, "u2"), header)
    return build_plan(collect(str(folder)), Options(**options))


def members(plan: NightPlan, kind: str) -> list[list[int]]:
    """Return the numbers of the frames of each master of a kind."""
    return sorted([int(name[1:3]) for name in group.members] for group in plan.groups if group.kind == kind)


@pytest.mark.parametrize("names", [("R", "r"), ("g'", "G'"), ("Ha", "HA"), ("oiii", "OIII"), ("6563", "6584")])
def test_filters_of_nearly_one_name(tmp_path: Path, usual: fits.Header, names: tuple[str, str]) -> None:
    """Two masters, each frame gets its own, and their files differ by more than case."""
    frames = [("flat", {"FILTER": names[k // 2]}) for k in range(4)] + [("light", {"FILTER": names[1]})]
    plan = plan_of(tmp_path, usual, frames)
    assert members(plan, "flat") == [[0, 1], [2, 3]]
    assert len({group.file.casefold() for group in plan.groups}) == 2
    assert plan.group(plan.science[0].flat.master).members == ("n02.fits", "n03.fits")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("DETSER", ("220052", "220053")),
        ("SERIALNO", ("0012", "012")),
        ("CCDNAME", ("E2V-1", "E2V-2")),
        ("CAMID", ("a", "A")),
        ("CHIPNAME", ("1", "2")),
        ("TELESCOP", ("A", "B")),
        ("TELESCOP", ("T1", "t1")),
        ("TELESCOP", ("North 0.5 m", "North 0.6 m")),
        ("INSTRUME", ("One", "Two")),
        ("TELESCOP", ("1", "2")),
    ],
)
def test_other_detectors_and_telescopes(tmp_path: Path, usual: fits.Header, key: str, values: tuple[str, str]) -> None:
    """A frame gets the bias of its own, and none of the other; darks too."""
    frames = [(kind, {key: value}) for kind in ("bias", "dark") for value in values for _ in "12"]
    plan = plan_of(tmp_path, usual, [*frames, ("light", {key: values[0]}), ("light", {key: "another"})])
    first, second = plan.science
    assert plan.group(first.bias.master).members == ("n00.fits", "n01.fits")
    assert plan.group(first.dark.master).members == ("n04.fits", "n05.fits")
    assert not second.bias
    assert not second.dark


@pytest.mark.parametrize(
    "wheels",
    [
        {"FILTER": "NO_FILTER", "FILTER2": "?"},
        {"FILTER": "Clear", "FILTER1": "Open", "FILTER2": "?"},
        {"FILTER": None, "FILTER1": "?", "FILTER2": "air"},
        {"FILTER": "Empty 3", "FILTER3": "?"},
        {"FILTER": "?", "FILTER2": "?"},
        {"FILTER": "ND1", "FILTER2": "?"},
    ],
)
def test_filters_in_several_wheels(tmp_path: Path, usual: fits.Header, wheels: Cards) -> None:
    """All wheels make the name."""

    def cards(name: str) -> Cards:
        return {key: name if value == "?" else value for key, value in wheels.items()}

    frames = [("flat", cards("B")), ("flat", cards("B")), ("flat", cards("V")), ("flat", cards("V"))]
    plan = plan_of(tmp_path, usual, [*frames, ("light", cards("V"))])
    assert members(plan, "flat") == [[0, 1], [2, 3]]
    assert plan.group(plan.science[0].flat.master).members == ("n02.fits", "n03.fits")


@pytest.mark.parametrize("nothing", [None, "", "UNKNOWN", "N/A", "   "])
def test_flats_without_a_filter(tmp_path: Path, usual: fits.Header, nothing: Any) -> None:
    """They join no others, and what they would divide is in doubt."""
    frames = [("flat", {"FILTER": name}) for name in (nothing, "G", "R")]
    plan = plan_of(tmp_path, usual, [*frames, ("light", {"FILTER": "R"}), ("light", {"FILTER": "V"})])
    assert members(plan, "flat") == [[0], [1], [2]]
    red, visual = plan.science
    assert plan.group(red.flat.master).members == ("n02.fits",)
    assert "was not compared by filter" in visual.reason
    assert visual.status == "PARTIAL"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"GAIN": 0, "EGAIN": 4.0, "OFFSET": 10}, {"GAIN": 100, "EGAIN": 1.0, "OFFSET": 50}),
        ({"OFFSET": 10}, {"OFFSET": 30}),
        ({"ISOSPEED": 800}, {"ISOSPEED": 1600}),
        ({"READOUTM": "High Gain"}, {"READOUTM": "Low Noise"}),
        ({"GAINSET": 1}, {"GAINSET": 2}),
        ({"BLKLEVEL": 5}, {"BLKLEVEL": 6}),
        ({"ROWORDER": "TOP-DOWN"}, {"ROWORDER": "BOTTOM-UP"}),
        ({"EMGAIN": 1}, {"EMGAIN": 300}),
    ],
)
def test_settings_of_a_camera(tmp_path: Path, usual: fits.Header, one: Cards, two: Cards) -> None:
    """Each setting has its own biases."""
    frames = [("bias", one), ("bias", one), ("bias", two), ("bias", two), ("light", two), ("light", one)]
    plan = plan_of(tmp_path, usual, frames)
    assert members(plan, "bias") == [[0, 1], [2, 3]]
    assert [plan.group(item.bias.master).members[0] for item in plan.science] == ["n02.fits", "n00.fits"]


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.000", "0,0"])
@pytest.mark.parametrize("kind", ["flat", "light"])
def test_exposures_of_zero_seconds(tmp_path: Path, usual: fits.Header, zero: Any, kind: str) -> None:
    """Flats and exposures of the sky keep their type, and no dark is scaled to them."""
    frames = [("bias", {}), ("dark", {}), (kind, {"EXPTIME": zero, "EXPOSURE": None})]
    plan = plan_of(tmp_path, usual, frames)
    item = plan.frame("n02.fits")
    assert item.kind == {"light": "science"}.get(kind, kind)
    assert item.facts.exposure.value is None
    assert item.facts.exposure.doubt
    assert not item.dark


@pytest.mark.parametrize("number", [360, 100, 10, 250.0, 31.5, "120"])
def test_gains_that_are_settings(tmp_path: Path, usual: fits.Header, number: Any) -> None:
    """They are said and not used."""
    cards = {"GAIN": number, "EGAIN": None}
    plan = plan_of(tmp_path, usual, [("bias", cards), ("light", cards)])
    (item,) = plan.science
    assert item.facts.gain.value is None
    assert "is a setting of the camera" in item.facts.gain.note
    assert item.facts.gain_setting.value == str(number)
    assert "no gain" in item.reason


@pytest.mark.parametrize("text", ["{} 20:00:00", "{} 20:00:00.5", "{}T20:00:00Z", "{}  20:00:00 UT", "{}, 20:00:00"])
def test_dates_in_other_words(tmp_path: Path, usual: fits.Header, text: str) -> None:
    """The nearest night is found."""
    days = ["2024-03-10", "2024-03-10", "2024-03-13", "2024-03-13"]
    frames = [("bias", {"DATE-OBS": text.format(day)}) for day in days]
    plan = plan_of(tmp_path, usual, [*frames, ("light", {"DATE-OBS": text.format("2024-03-13")})])
    assert members(plan, "bias") == [[0, 1], [2, 3]]
    assert plan.group(plan.science[0].bias.master).members == ("n02.fits", "n03.fits")


@pytest.mark.parametrize(
    "cards",
    [
        {"NCOMBINE": 20},
        {"CALSTAT": "M"},
        {"IMCMB001": "a.fits"},
        {"STACKCNT": 12},
        {"COMBINED": True},
        {"SNAPSHOT": 5},
        {"LZKIND": "master bias"},
        {"IMAGETYP": "Master Bias"},
    ],
)
def test_masters_among_raw_frames(tmp_path: Path, usual: fits.Header, cards: Cards) -> None:
    """They are listed with the reason and the way to use them, and not stacked."""
    plan = plan_of(tmp_path, usual, [("bias", {}), ("bias", {}), ("bias", cards), ("light", {})])
    assert members(plan, "bias") == [[0, 1]]
    item = plan.frame("n02.fits")
    assert item.status == "LISTED"
    assert "--bias" in item.reason


@pytest.mark.parametrize(
    "cards",
    [
        {"CALSTAT": "BDF"},
        {"CALSTAT": "B"},
        {"FLATCOR": "Jul 13 12:40 Flat field image is Flat with scale=1."},
        {"ZEROCOR": "done"},
        {"RLEVEL": 91},
        {"SUBBIAS": "ccd=<CCDData>, master=<CCDData>"},
    ],
)
def test_frames_that_others_calibrated(tmp_path: Path, usual: fits.Header, cards: Cards) -> None:
    """They are refused with the card, unless it is asked for."""
    plan = plan_of(tmp_path, usual, [("bias", {}), ("light", cards)])
    item = plan.frame("n01.fits")
    assert item.status == "REFUSED"
    assert next(iter(cards)) in item.reason
    assert "--force" in item.reason
    assert plan.exit_status == 1


@pytest.mark.parametrize("unit", ["counts", "COUNT", "ct", "DN", "ADU", "dn"])
def test_units_of_raw_counts(tmp_path: Path, usual: fits.Header, unit: str) -> None:
    """Integers in any word for counts are adu."""
    plan = plan_of(tmp_path, usual, [("bias", {"BUNIT": unit}), ("light", {"BUNIT": unit})])
    assert {item.facts.unit.value for item in plan.frames} == {"adu"}
    assert plan.science[0].bias


@pytest.mark.parametrize(
    "cards",
    [
        {"OVERSCAN": "[57 64 1 64]"},
        {"OVERSCAN": "[1:4,1:8]", "TRIM": "[5:10,1:8]"},
        {"OVERSCAN": 32, "TRIM": 0},
        {"FLATCOR": "PERFORM", "ZEROCOR": "PERFORM"},
        {"FLATCOR": "OMIT", "DARKCOR": "no"},
        {"ZEROCOR": "", "DARKCOR": "F"},
    ],
)
def test_raw_frames_with_cards_of_steps(tmp_path: Path, usual: fits.Header, cards: Cards) -> None:
    """Sections, numbers and what is to be done are no steps that were done."""
    plan = plan_of(tmp_path, usual, [("bias", {}), ("light", cards)])
    assert plan.frame("n01.fits").is_reduced
    assert plan.frame("n01.fits").stamps.done == ()


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("bias", "zero_001", ""),
        ("dark", "a1", "dark 60"),
        ("skyflat", "twilight-V-3", ""),
        ("science", "M31_light_1", ""),
        ("science", "a1", "NGC 1"),
        ("unknown", "a1", ""),
    ],
)
def test_nothing_says_what_a_frame_is(tmp_path: Path, usual: fits.Header, kind: str, name: str, text: str) -> None:
    """Names propose a type, which is a doubt; without any, the way out is said and the status is no success."""
    header = usual.copy()
    header.update({"EXPTIME": 60.0, "DATE-OBS": "2024-03-10T20:00:00", "OBJECT": text})
    header.remove("IMAGETYP", ignore_missing=True)
    fits.writeto(tmp_path / f"{name}.fits", np.full((8, 10), 1000, "u2"), header)
    plan = build_plan(collect(str(tmp_path)))
    (item,) = plan.frames
    assert item.kind == kind
    assert item.facts.type.doubt
    assert "[types]" in item.facts.type.doubt
    assert plan.exit_status in ({1} if kind == "unknown" else {0, 3})


STRIP = "[49:60,1:48]"


@pytest.mark.parametrize(
    "spoil",
    [
        (slice(20, 21), slice(50, 56), 20000),
        (slice(0, 48), slice(52, 53), 900),
        (slice(10, 13), slice(48, 60), 5000),
        (slice(47, 48), slice(48, 60), 60000),
        (slice(5, 7), slice(49, 51), 65535),
    ],
)
def test_rays_and_bleeds_in_the_overscan(tmp_path: Path, spoil: tuple[slice, slice, int]) -> None:
    """They move nothing."""
    rng = np.random.default_rng(4)
    pixels = 1000 + rng.normal(0, 5, (48, 60))
    pixels[:, :48] += rng.poisson(500, (48, 48))
    pixels[spoil[:2]] = spoil[2]
    cards = {**KINDS["light"], "GAIN": 1.0, "RDNOISE": 5.0, "BIASSEC": STRIP, "TRIMSEC": "[1:48,1:48]"}
    night = tmp_path / "night"
    night.mkdir()
    fits.writeto(night / "a.fits", np.rint(pixels.clip(0, 65535)).astype("u2"), fits.Header(cards))
    run = Run(build_plan(collect(str(night)), Options(cosmic_rays="none")), tmp_path / "out")
    run()
    product = fits.getdata(run.outcomes[0].path)
    assert np.median(product) == pytest.approx(500, abs=3)
    clean = np.ones((48, 48), bool)
    clean[spoil[0]] = False
    assert np.abs(np.median(product[~clean]) - 500) < 25


@pytest.mark.parametrize(
    ("cards", "unit"),
    [
        ({"GAIN": None}, "adu"),
        ({"GAIN": 0.0}, "adu"),
        ({"GAIN": -1.0}, "adu"),
        ({"GAIN": "unknown"}, "adu"),
        ({"GAIN": 200}, "adu"),
        ({"GAIN": None, "EGAIN": 2.0}, "electron"),
    ],
)
def test_gains_that_are_not_known(tmp_path: Path, cards: Cards, unit: str) -> None:
    """The product stays in adu, without uncertainty, and cosmic rays stay in."""
    night = tmp_path / "night"
    night.mkdir()
    for number, kind in enumerate(("bias", "bias", "light")):
        pixels = 1000 + np.random.default_rng(number).normal(500 * (kind == "light"), 5, (48, 48))
        header = {"RDNOISE": 5.0, "GAIN": 1.0, "DATE-OBS": f"2024-03-10T20:0{number}:00", **KINDS[kind], **cards}
        known = fits.Header([card for card in header.items() if card[1] is not None])
        fits.writeto(night / f"{kind}{number}.fits", np.rint(pixels).astype("u2"), known)
    run = Run(build_plan(collect(str(night))), tmp_path / "out")
    run()
    outcome = next(each for each in run.outcomes if each.kind == "science")
    with fits.open(outcome.path) as file:
        assert file[0].header["BUNIT"] == unit
        assert ("UNCERT" in file) == (unit == "electron")
    assert ("cosmic rays left in: the noise is not known" in outcome.messages) == (unit == "adu")
