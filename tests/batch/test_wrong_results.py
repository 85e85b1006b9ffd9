"""Nights in which something does not belong, or is not known: products are PARTIAL with the figures, never wrong in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from lazyccd import io
from lazyccd.batch import checks
from lazyccd.batch.check_steps import Step, who_took_too_much
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.options import Options
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.run import Run
from lazyccd.cli.main import main
from lazyccd.frame.header_values import divide_section
from lazyccd.testing import Detector, Sky
from lazyccd.testing.simulate import make_exposure

SHAPE = (160, 192)
CAMERA = Detector(SHAPE, dark_e_s=0.2, bias_structure_adu=12.0, bad_fraction=0)
OTHER = replace(CAMERA, seed=99, vignetting=0.5)
SKY = Sky(stars=6, galaxies=0)

Change = Callable[[str, np.ndarray[Any, Any], fits.Header], None]


def nothing(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Leave a frame as it is."""


def make(folder: Path, change: Change = nothing, cameras: dict[str, Detector] | None = None) -> Path:
    """Write a night of which some kinds are taken with another camera that says it is the same, or changed."""
    folder.mkdir()
    minute = 0.0
    for kind, seconds, count in (("bias", 0.0, 5), ("dark", 120.0, 3), ("flat", 5.0, 4), ("light", 120.0, 1)):
        for number in range(count):
            camera = (cameras or {}).get(kind, CAMERA)
            exposure = make_exposure(camera, SKY, kind, seconds, seed=number, minute=minute)  # type: ignore[arg-type]
            header, pixels = exposure.header, exposure.pixels.copy()
            header["DETECTOR"] = "one"
            minute += 0.5 + seconds / 60
            change(kind, pixels, header)
            fits.writeto(folder / f"{kind}{number}.fits", pixels, header)
    return folder


def reduced(folder: Path, **options: Any) -> tuple[Outcome, Run]:
    """Return the science product of a night."""
    run = Run(build_plan(collect(str(folder)), Options(**options)), folder.parent / "out")
    run()
    return next(outcome for outcome in run.outcomes if outcome.kind == "science"), run


def test_a_right_night_is_complete(tmp_path: Path) -> None:
    """No check finds anything, and a number that was typed is a choice."""
    outcome, run = reduced(make(tmp_path / "raw"))
    assert (outcome.status, outcome.doubts, run.exit_status) == ("DONE", (), 0)


@pytest.mark.parametrize(
    ("kind", "camera", "said"),
    [
        ("bias", OTHER, "small structure of the bias"),
        ("dark", OTHER, "hot pixels of the dark"),
        ("dark", replace(CAMERA, dark_e_s=0.6), "hot pixels of the dark is there negative"),
        ("dark", replace(CAMERA, dark_e_s=0.05), "hot pixels of the dark is left"),
        ("flat", OTHER, "of the flat is there negative"),
        pytest.param("flat", replace(CAMERA, vignetting=0.9), "of the flat is there negative", marks=pytest.mark.slow),
    ],
)
def test_a_master_that_does_not_belong(tmp_path: Path, kind: str, camera: Detector, said: str) -> None:
    """Headers say that it does, and pixels that it does not."""
    cameras = {kind: camera} if kind != "bias" else {"bias": camera, "dark": camera, "flat": camera}
    outcome, run = reduced(make(tmp_path / "raw", cameras=cameras))
    assert outcome.status == "PARTIAL"
    assert said in outcome.reason
    assert run.exit_status == 3
    header = fits.getheader(outcome.path)
    assert header["LZSTATUS"] == "PARTIAL"
    assert any(said in str(header[f"LZDOUBT{number}"]) for number in range(1, 1 + len(header["LZDOUBT*"])))


def zeros(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Give an amplifier of zeros to the light."""
    if kind == "light":
        pixels[:, :96] = 0


def one_dead_bias(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Give a bias that is constant."""
    if kind == "bias" and header["DATE-OBS"].endswith("00:00.000"):
        pixels[:] = 0


def jump(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Lower the data of the light beside its overscan."""
    if kind == "light":
        pixels[:, : SHAPE[1]] -= 400


def wrong_gain(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """State a gain that is a third of the true one."""
    header["GAIN"] = 0.5


def full_at_2000(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Cut the light at a level that no header states."""
    if kind == "light":
        header["SATURATE"] = 65535
        np.minimum(pixels, 1500, out=pixels)


@pytest.mark.parametrize(
    ("change", "said"),
    [(zeros, "of the raw image is constant"), (jump, "the sky is negative"), (wrong_gain, "stated 0.5 e-/adu")],
)
def test_frames_that_cannot_be_right(tmp_path: Path, change: Change, said: str) -> None:
    """An amplifier of zeros, a jump of the bias, a gain that is not true."""
    outcome, run = reduced(make(tmp_path / "raw", change))
    assert outcome.status == "PARTIAL"
    assert said in outcome.reason
    assert run.exit_status == 3


@pytest.mark.parametrize(
    ("gain", "level"),
    [("measured", 1.0), ("stated", 0.5 / 1.6), pytest.param("0.5", 0.5 / 1.6, marks=pytest.mark.slow)],
)
def test_a_gain_that_was_chosen(tmp_path: Path, gain: str, level: float) -> None:
    """The difference between measured and stated gain is no doubt then."""
    outcome, _ = reduced(make(tmp_path / "raw", wrong_gain), gain=gain)
    assert "gain: measured" not in outcome.reason
    pixels = io.open_fits(outcome.path)["data"].values
    sky = SKY.rate(SHAPE, (0.0, 0.0)) * 120
    assert np.median(pixels) == pytest.approx(level * np.median(sky), rel=0.05)


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_a_gain_that_the_sky_contradicts_is_named(tmp_path: Path, factor: float) -> None:
    """Where no pairs of flats tell, a noise somewhat below its uncertainty is no doubt, and its most likely reason is said."""

    def scale(_kind: str, _pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        header["GAIN"] *= factor
        header["RDNOISE"] *= factor

    folder = make(tmp_path / "raw", scale)
    for path in folder.glob("flat*"):
        path.unlink()
    outcome, _ = reduced(folder, cosmic_rays="none")
    assert not any("noise of the sky" in doubt.text for doubt in outcome.doubts)
    said = [text for text in outcome.messages if text.startswith("the noise of the sky is 0.8")]
    assert len(said) == (factor < 1)
    for text in said:
        stated, fitting = re.search(r"the gain \(([\d.]+), keyword GAIN\) should be ([\d.]+)", text).groups()  # type: ignore[union-attr]
        assert float(stated) == pytest.approx(factor * CAMERA.gain_e_per_adu, rel=1e-3)
        assert float(fitting) == pytest.approx(CAMERA.gain_e_per_adu, rel=0.15)


def test_one_odd_bias_costs_nothing_else(tmp_path: Path) -> None:
    """A constant bias is left out of its master, with the reason."""
    outcome, run = reduced(make(tmp_path / "raw", one_dead_bias))
    assert outcome.status == "DONE"
    bias = next(item for item in run.outcomes if item.kind == "bias")
    assert bias.messages == ("median of 4", "bias0.fits excluded: 100% of the raw image is constant")


def test_the_level_at_which_stars_are_cut_is_used(tmp_path: Path) -> None:
    """Pixels that pile up are flagged, and that is said."""
    outcome, _ = reduced(make(tmp_path / "raw", full_at_2000))
    assert any("pixels pile up at 1500 adu, which is used; stated 65535 adu" in text for text in outcome.messages)
    assert io.open_fits(outcome.path)["mask"].values.any()


@pytest.mark.parametrize("lost", ["GAIN", "RDNOISE"])
def test_what_is_not_known(tmp_path: Path, lost: str) -> None:
    """Without gain and pairs of flats nothing is electrons, and without either nothing has an uncertainty."""

    def forget(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        del header[lost]

    folder = make(tmp_path / "raw", forget)
    for path in folder.glob("*.fits"):
        if path.stem not in {"bias0", "light0"}:
            path.unlink()
    outcome, _ = reduced(folder)
    header = fits.getheader(outcome.path)
    assert header["BUNIT"] == ("adu" if lost == "GAIN" else "electron")
    assert "uncertainty" not in io.open_fits(outcome.path)
    word = "gain" if lost == "GAIN" else "read noise"
    assert f"no uncertainty is written: {word} is not known" in outcome.messages
    assert "cosmic rays left in: the noise is not known" in outcome.messages


def test_a_pedestal_that_nothing_takes_away(tmp_path: Path) -> None:
    """It would count as light, so there is no uncertainty."""
    folder = make(tmp_path / "raw")
    for path in folder.glob("*.fits"):
        if path.stem != "light0":
            path.unlink()
    outcome, _ = reduced(folder, overscan="none")
    assert "uncertainty" not in io.open_fits(outcome.path)
    assert "no uncertainty is written: neither bias nor overscan takes the pedestal away" in outcome.messages


def test_noise_that_was_measured_travels(tmp_path: Path) -> None:
    """A master bias says what its pairs gave where headers gave nothing."""

    def forget(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        del header["GAIN"], header["RDNOISE"]

    outcome, run = reduced(make(tmp_path / "raw", forget))
    assert fits.getheader(outcome.path)["BUNIT"] == "electron"
    header = fits.getheader(next(item.path for item in run.outcomes if item.kind == "bias"))
    assert header["LZGAIN"] == pytest.approx(1.6, rel=0.1)
    assert header["LZRDN"] == pytest.approx(6.0, rel=0.1)


def test_colours_on_the_pixels(tmp_path: Path) -> None:
    """Flats have a level of 1 in each colour, and no cosmic ray is looked for."""
    colours = np.tile([[1.0, 0.6], [0.6, 0.3]], (SHAPE[0] // 2, SHAPE[1] // 2))

    def filtered(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        header["BAYERPAT"] = "RGGB"
        if kind in {"light", "flat"}:
            part = pixels[:, : SHAPE[1]]
            part[:] = 1000 + (part - 1000.0) * colours

    outcome, run = reduced(make(tmp_path / "raw", filtered), gain="stated")
    flat = next(item for item in run.outcomes if item.kind == "flat")
    assert "each colour of RGGB has a level of 1" in flat.messages
    pixels = io.open_fits(flat.path)["data"].values[40:120, 48:144]
    for y, x in np.ndindex(2, 2):
        assert np.median(pixels[y::2, x::2]) == pytest.approx(1, abs=0.01)
    assert any("cosmic rays left in: the pixels have colour filters" in text for text in outcome.messages)


def test_the_summary_says_first_what_is_wrong(tmp_path: Path) -> None:
    """What is wrong comes before the counts, each thing once."""
    folder = make(tmp_path / "raw", zeros)
    result = CliRunner().invoke(main, ["reduce", str(folder), "-o", str(tmp_path / "o")], catch_exceptions=False)
    assert result.exit_code == 3
    end = result.output[result.output.index("What is wrong, or may be") :]
    assert end.splitlines()[1].strip().startswith("light0.fits: PARTIAL: ")
    assert " ".join(result.output.split()).count("of the raw image is constant") == 1
    counts = " ".join(end.split()).rpartition("1 PARTIAL; ")[2]  # a long folder folds the line
    assert re.fullmatch(r"[\d.]+ s; products in \S+ Report: \S+report\.html", counts)


@pytest.mark.parametrize(
    ("text", "shape", "binning", "divided"),
    [
        ("[2049:2112,1:1024]", (512, 1056), (2, 2), "[1025:1056,1:512]"),
        ("[1:2048,1:1024]", (512, 1056), (2, 2), "[1:1024,1:512]"),
        ("[1:2048,1:1025]", (512, 1056), (2, 2), "[1:1024,1:512]"),
        ("[2049:2112,1:1024]", (341, 1056), (2, 3), "[1025:1056,1:341]"),
        ("[3:2048,1:1024]", (256, 528), (4, 4), "[2:512,1:256]"),
        ("[4097:4200,1:1024]", (512, 1056), (2, 2), None),
        ("nonsense", (512, 1056), (2, 2), None),
    ],
)
def test_sections_of_unbinned_pixels(
    text: str, shape: tuple[int, int], binning: tuple[int, int], divided: str | None
) -> None:
    """Whole binned pixels of the section are taken."""
    assert divide_section(text, shape, binning) == divided


def test_unbinned_sections_in_a_header(tmp_path: Path) -> None:
    """All are divided if one fits only so, and that is said; those that fit are left."""
    for number, (bias, trim) in enumerate((("[1:32,1:120]", "[33:160,1:120]"), ("[1:16,1:60]", "[17:80,1:60]"))):
        cards = {"IMAGETYP": "Light", "EXPTIME": 60.0, "CCDSUM": "2 2", "BIASSEC": bias, "TRIMSEC": trim, "GAIN": 1.0}
        fits.writeto(tmp_path / f"{number}.fits", np.zeros((60, 80), "u2"), fits.Header(list(cards.items())))
    frames = build_plan(collect(str(tmp_path))).frames
    assert [(item.facts.overscan.value, item.facts.trim.value) for item in frames] == [
        ("[1:16,1:60]", "[17:80,1:60]")
    ] * 2
    assert any("counts unbinned pixels; divided by the binning 2x2" in note for note in frames[0].facts.notes)
    assert not any("unbinned" in note for note in frames[1].facts.notes)


def odd(kinds: dict[str, int], adu: float) -> Change:
    """Return a change of the level of the first few frames of some kinds, which their overscan does not share."""
    left = dict(kinds)

    def change(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        if left.get(kind, 0):
            left[kind] -= 1
            pixels[:, : SHAPE[1]] = (pixels[:, : SHAPE[1]] + adu).astype(pixels.dtype)

    return change


@pytest.mark.parametrize(
    ("kind", "count", "adu"),
    [
        ("bias", 1, -90.0),
        ("bias", 2, 400.0),
        ("dark", 1, -90.0),
        pytest.param("bias", 1, 400.0, marks=pytest.mark.slow),
        pytest.param("bias", 2, -90.0, marks=pytest.mark.slow),
        pytest.param("dark", 1, 400.0, marks=pytest.mark.slow),
    ],
)
def test_a_frame_of_another_level_is_left_out(tmp_path: Path, kind: str, count: int, adu: float) -> None:
    """Most biases, or darks, have one level: those of another are named and not combined."""
    outcome, run = reduced(make(tmp_path / "raw", odd({kind: count}, adu)), cosmic_rays="none")
    master = next(each for each in run.outcomes if each.kind == kind)
    assert master.messages[0] == f"median of {(5 if kind == 'bias' else 3) - count}"
    assert [text.partition(":")[0] for text in master.messages[1:]] == [
        f"{kind}{k}.fits excluded" for k in range(count)
    ]
    # The read noise that pairs of biases of two levels have is another matter.
    assert "level" not in outcome.reason


@pytest.mark.parametrize("adu", [-90.0, pytest.param(400.0, marks=pytest.mark.slow)])
def test_darks_of_two_levels_are_a_doubt(tmp_path: Path, adu: float) -> None:
    """Nobody knows which of two belongs: the master says so, and so do the flat and the light that rest on it."""
    folder = make(tmp_path / "raw", odd({"dark": 1}, adu))
    (folder / "dark2.fits").unlink()
    outcome, run = reduced(folder, cosmic_rays="none")
    assert {each.kind: each.status for each in run.outcomes} == {
        "bias": "DONE",
        "dark": "PARTIAL",
        "flat": "PARTIAL",
        "science": "PARTIAL",
    }
    assert "the levels in dark_120s" in outcome.reason
    assert "dark0.fits" in outcome.reason
    assert run.exit_status == 3


@pytest.mark.parametrize("kind", ["bias", pytest.param("dark", marks=pytest.mark.slow), "light"])
def test_a_frame_that_is_full_says_so(tmp_path: Path, kind: str) -> None:
    """A frame that is saturated nearly everywhere is no calibration, and no complete product."""

    def fill(which: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        if which == kind and header["DATE-OBS"] == first.setdefault(which, header["DATE-OBS"]):
            pixels[:, 20:] = 65535

    first: dict[str, str] = {}
    outcome, run = reduced(make(tmp_path / "raw", fill), cosmic_rays="none")
    said = [
        text for each in run.outcomes for text in (*each.messages, each.reason) if "is saturated or unknown" in text
    ]
    assert said
    assert (outcome.status == "PARTIAL") == (kind == "light")


def test_a_gain_is_measured_beside_a_named_bias(tmp_path: Path) -> None:
    """A master that was named has no pairs: those of the darks tell that the stated gain is wrong."""
    folder = make(tmp_path / "raw")
    reduced(folder)
    master = next((tmp_path / "out" / "masters").glob("bias*.fits"))
    kept = master.rename(tmp_path / "bias.fits")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    make(wrong / "raw", wrong_gain)
    outcome, _ = reduced(wrong / "raw", bias=(str(kept),))
    assert outcome.status != "DONE"
    assert "gain" in outcome.reason


def lifted(adu: float) -> Change:
    """Return a change that lifts the light beside its overscan, as a pedestal does that no keyword tells."""

    def change(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        if kind == "light":
            pixels[:, : SHAPE[1]] = (pixels[:, : SHAPE[1]] + adu).astype(pixels.dtype)

    return change


@pytest.mark.parametrize("part", [0.4, 10.0, *(pytest.param(part, marks=pytest.mark.slow) for part in (0.7, 1.0, 3.0))])
def test_a_pedestal_of_the_light_alone(tmp_path: Path, part: float) -> None:
    """It counts as light but has no noise; how many electrons it has is said, and the flat is not blamed first."""
    camera = replace(CAMERA, bias_structure_adu=4.0)
    sky = float(np.median(SKY.rate(SHAPE, (0.0, 0.0)))) * 120
    cameras = dict.fromkeys(("bias", "dark", "flat", "light"), camera)
    night = make(tmp_path / "raw", lifted(part * sky / camera.gain_e_per_adu), cameras)
    outcome, run = reduced(night, cosmic_rays="none")
    assert (outcome.status, run.exit_status) == ("PARTIAL", 3)
    quiet = next(text for text in map(str, outcome.doubts) if text.startswith("the noise of the sky is 0."))
    found = re.search(r"; ([\d.]+) of its ([\d.]+) electrons are no light: a pedestal", quiet)
    assert found is not None
    assert float(found[1]) == pytest.approx(part * sky, rel=0.2)
    assert "--gain" not in quiet
    assert "--bias" in quiet


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(48, 48), (64, 64), (100, 20), (160, 192)])
def test_a_sky_that_fits_its_noise(seed: int, size: tuple[int, int]) -> None:
    """However small the frame, chance makes no pedestal; a pedestal of twice the sky is one."""
    rng = np.random.default_rng(seed)
    sky = rng.poisson(300, size) + rng.normal(0, 6, size)
    for added, found in ((0, False), (600, True)):
        values = sky + added
        said = checks.wrong_noise(values, np.sqrt(np.maximum(values, 0) + 36), flattened=True, correction=1.0)
        assert bool(said) is found


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Step("bias", 50.0), Step("dark", -40.0)], "the dark took away too much, or the bias before it; "),
        ([Step("bias", -30.0), Step("dark", -40.0)], "the bias took away too much; give another by --bias"),
        ([Step("overscan", -3.0), Step("bias", -30.0)], "the overscan took away too much; "),
        ([Step("overscan", 9.0), Step("bias", -3.0)], "the bias took away too much, or the overscan before it; "),
        ([Step("bias", 50.0), Step("dark", 40.0)], "the dark may not belong to it, or the bias before it; "),
        ([], "more than the pedestal was subtracted from it"),
    ],
)
def test_who_made_the_sky_negative(steps: list[Step], said: str) -> None:
    """The step after which it was, then those before it; a flat never."""
    assert who_took_too_much(steps).startswith(said)
    assert "flat" not in who_took_too_much(steps)


def test_a_dark_that_is_too_bright_is_named(tmp_path: Path) -> None:
    """Light in the darks makes the sky negative: they are named before the bias, and the flat is not."""

    def lit(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        if kind == "dark":
            pixels[:, : SHAPE[1]] += 900

    outcome, _ = reduced(make(tmp_path / "raw", lit), cosmic_rays="none")
    assert (
        "the dark took away too much, or the bias or the overscan before it; give another by --dark" in outcome.reason
    )


def a_star_in_flats(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
    """Put a star at one place of all flats."""
    if kind == "flat":
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        star = 1 + 0.5 * np.exp(-((y - 80) ** 2 + (x - 60) ** 2) / 8)
        part = pixels[:, : SHAPE[1]]
        part[:] = np.clip(1000 + (part - 1000.0) * star, 0, 65535)


def test_a_star_at_one_place_of_all_flats(tmp_path: Path) -> None:
    """The flat, and what it divides, are in doubt, with place and height."""
    outcome, run = reduced(make(tmp_path / "raw", a_star_in_flats), cosmic_rays="none")
    flat = next(each for each in run.outcomes if each.kind == "flat")
    assert (flat.status, outcome.status, run.exit_status) == ("PARTIAL", "PARTIAL", 3)
    found = re.search(r"points of light are in the flat: ([\d.]+)% at x = (\d+), y = (\d+)", outcome.reason)
    assert found is not None
    assert float(found[1]) == pytest.approx(50, rel=0.2)
    assert (int(found[2]), int(found[3])) == (pytest.approx(61, abs=1), pytest.approx(81, abs=1))


def test_a_read_noise_that_is_stated_too_low(tmp_path: Path) -> None:
    """It is named; the bias, whose noise is then larger than expected, is not blamed for it."""

    def low(kind: str, pixels: np.ndarray[Any, Any], header: fits.Header) -> None:
        header["RDNOISE"] = 2.0

    camera = replace(CAMERA, bias_structure_adu=0.0)
    cameras = dict.fromkeys(("bias", "dark", "flat", "light"), camera)
    outcome, _ = reduced(make(tmp_path / "raw", low, cameras), cosmic_rays="none")
    assert "readnoise: measured" in outcome.reason
    assert "structure" not in outcome.reason


@pytest.mark.parametrize(
    ("size", "is_checked"), [((16, 20), False), ((20, 20), False), ((48, 48), True), ((100, 20), True)]
)
@pytest.mark.parametrize("belongs", [True, False])
def test_small_frames(tmp_path: Path, size: tuple[int, int], is_checked: bool, belongs: bool) -> None:
    """They are checked as far as their pixels tell, and it is said where these are too few."""
    rng = np.random.default_rng(size[0])
    pattern = rng.normal(0, 30, size)
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, kind in enumerate(["bias"] * 5 + ["light"]):
        signal = rng.poisson(300, size) if kind == "light" else 0
        has_pattern = kind == "bias" or belongs
        pixels = 1000 + signal + pattern * has_pattern + rng.normal(0, 5, size)
        cards = {"IMAGETYP": kind, "EXPTIME": 60.0 * (kind == "light"), "GAIN": 1.0, "RDNOISE": 5.0}
        fits.writeto(folder / f"{kind}{number}.fits", np.rint(pixels).astype("u2"), fits.Header(cards))
    outcome, _ = reduced(folder, cosmic_rays="none")
    assert ("structure of the bias is there negative" in outcome.reason) is (is_checked and not belongs)
    assert any("the image is too small" in text for text in outcome.messages) is not is_checked
