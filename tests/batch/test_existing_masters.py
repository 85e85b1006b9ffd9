"""Masters that other programs made give the pixels that lazyccd's own masters give, or are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from click.testing import CliRunner, Result

from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.table import load_table, save_table
from lazyccd.cli.main import main
from lazyccd.kernels.block import Array

SHAPE = (48, 64)
GAIN = 2.0
ZERO = 1000.0
USUAL = {"INSTRUME": "CAM", "GAIN": GAIN, "RDNOISE": 6.0, "DATE-OBS": "2024-03-10T20:00:00"}
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
BIAS = ZERO + 3.0 * np.sin(X / 3.0)
DARK = 20.0 + 5.0 * (X % 7 == 0)
"""Adu of 60 s."""

FLAT = 1.0 + 0.2 * np.cos(Y / 9.0) + 0.1 * (X > 30)
FLAT /= np.median(FLAT[12:36, 16:48])
SKY = 400.0
"""Adu of the science frame, before the flat."""


def call(*words: str) -> Result:
    """Run ``lazyccd`` with some words."""
    return CliRunner().invoke(main, list(words))


def write(path: Path, pixels: Array, cards: dict[str, Any], history: tuple[str, ...] = ()) -> str:
    """Write an image with the usual cards but for those that say otherwise; None takes one away."""
    header = fits.Header([card for card in {**USUAL, **cards}.items() if card[1] is not None])
    for line in history:
        header.add_history(line)
    fits.writeto(path, pixels, header, overwrite=True)
    return str(path)


def seen(electrons: Array) -> Array:
    """Return the adu that the camera makes of some electrons, with the noise of light and reading."""
    rng = np.random.default_rng(1)
    adu: Array = (rng.poisson(electrons) + rng.normal(0, 6, SHAPE)) / GAIN
    return adu


@pytest.fixture
def lights(tmp_path: Path) -> Path:
    """Return a folder with one science frame of 60 s."""
    night = tmp_path / "night"
    night.mkdir()
    pixels = BIAS + seen((DARK + SKY * FLAT) * GAIN)
    cards = {"IMAGETYP": "Light Frame", "EXPTIME": 60.0, "FILTER": "R"}
    write(night / "light.fits", np.rint(pixels).astype("u2"), cards)
    return night


def truth(lights: Path, scale: float = 1.0) -> Array:
    """Return the product that true masters give, in electrons."""
    return (fits.getdata(lights / "light.fits") - BIAS - DARK * scale) * GAIN / FLAT


def reduce(lights: Path, *words: str, name: str = "out") -> tuple[Result, Array | None]:
    """Reduce the night; return what was printed and the product, None where there is none."""
    out = lights.parent / name
    result = call("reduce", str(lights), "-o", str(out), "--cosmic-rays", "none", *words)
    product = out / "light_red.fits"
    return result, fits.getdata(product) if product.exists() else None


Maker = Callable[[Path], dict[str, str]]


def iraf(folder: Path) -> dict[str, str]:
    """Write masters of ccdred: float32 without BUNIT, with stamps, CCDMEAN and NCOMBINE."""
    stamp = {"CCDPROC": "Mar 11 10:30 CCD processing done", "CCDMEANT": 1394, "NCOMBINE": 5, "IMCMB001": "a001.fits"}
    zero = {"ZEROCOR": "Mar 11 10:25 Zero level correction image is Zero"}
    dark = {"DARKCOR": "Mar 11 10:26 Dark count correction image is Dark with scale=1."}
    return {
        "bias": write(folder / "Zero.fits", BIAS.astype("f4"), {"IMAGETYP": "zero", "NCOMBINE": 5, "IMCMB001": "b001"}),
        "dark": write(folder / "Dark.fits", DARK.astype("f4"), {"IMAGETYP": "dark", "EXPTIME": 60.0, **stamp, **zero}),
        "flat": write(
            folder / "FlatR.fits",
            (21345.6 * FLAT).astype("f4"),
            {"IMAGETYP": "flat", "FILTER": "R", "CCDMEAN": 21345.6, "EXPTIME": 3.0, **stamp, **zero, **dark},
        ),
    }


def maxim(folder: Path) -> dict[str, str]:
    """Write masters of MaxIm: CALSTAT, SWCREATE, and a pedestal against negative values."""
    by = {"SWCREATE": "MaxIm DL Version 6.20", "SNAPSHOT": 10}
    bias = {"IMAGETYP": "Bias Frame", "CALSTAT": "M", "PEDESTAL": -100, **by}
    dark = {"IMAGETYP": "Dark Frame", "CALSTAT": "BM", "PEDESTAL": -100, "EXPTIME": 60.0, **by}
    flat = {"IMAGETYP": "Flat Field", "CALSTAT": "BDM", "PEDESTAL": -100, "FILTER": "R", **by}
    return {
        "bias": write(folder / "Master_Bias 1.fit", (BIAS + 100).astype("f4"), bias),
        "dark": write(folder / "Master_Dark 2 60s.fit", (DARK + 100).astype("f4"), dark),
        "flat": write(folder / "Master_Flat R.fit", (30000 * FLAT + 100).astype("f4"), flat),
    }


def astroimagej(folder: Path) -> dict[str, str]:
    """Write masters of AstroImageJ: names without types, HISTORY, floats without BUNIT, a flat of level 1."""
    return {
        "bias": write(folder / "mbias.fits", BIAS.astype("f4"), {}, ("median of 20 files",)),
        "dark": write(
            folder / "mdark_60s.fits", DARK.astype("f4"), {"EXPTIME": 60.0}, ("Bias corrected with mbias.fits",)
        ),
        "flat": write(
            folder / "mflat_R.fits", FLAT.astype("f4"), {"FILTER": "R"}, ("Dark corrected with mdark_60s.fits",)
        ),
    }


def siril(folder: Path) -> dict[str, str]:
    """Write masters of Siril: 32 bits from 0 to 1, STACKCNT; the dark contains the bias."""
    by = {"PROGRAM": "Siril 1.2.1", "STACKCNT": 20, "LIVETIME": 1200.0}
    flat = (0.4 * FLAT).astype("f4")
    return {
        "dark": write(folder / "dark_stacked.fit", ((BIAS + DARK) / 65535).astype("f4"), {**by, "EXPTIME": 60.0}),
        "flat": write(
            folder / "pp_flat_stacked.fit", flat, {**by, "FILTER": "R"}, ("Calibrated with master bias.fit",)
        ),
    }


def siril_with_bias(folder: Path) -> dict[str, str]:
    """Write masters of Siril with a bias, and a dark that was calibrated by it and so is near 0."""
    by = {"PROGRAM": "Siril 1.2.1", "STACKCNT": 20}
    bias = write(folder / "bias_stacked.fit", (BIAS / 65535).astype("f4"), by)
    dark = write(folder / "dark_stacked.fit", (DARK / 65535).astype("f4"), {**by, "EXPTIME": 60.0})
    return {**siril(folder), "bias": bias, "dark": dark}


def ccdproc(folder: Path) -> dict[str, str]:
    """Write masters of ccdproc: BUNIT adu or electron, COMBINED, stamps by the names of its functions."""
    gained = {"GAINCOR": "gain=2.0 electron / adu", "COMBINED": True}
    minus = {"SUBBIAS": "ccd=<CCDData>, master=<CCDData>"}
    cards = {"FILTER": "R", "BUNIT": "electron", **gained, **minus}
    return {
        "bias": write(folder / "combined_bias.fits", BIAS, {"IMAGETYP": "bias", "BUNIT": "adu", "COMBINED": True}),
        "dark": write(
            folder / "combined_dark.fits",
            DARK * GAIN,
            {"IMAGETYP": "dark", "EXPTIME": 60.0, "BUNIT": "electron", **gained, **minus},
        ),
        "flat": write(folder / "combined_flat_R.fits", FLAT * 41000.0, {"IMAGETYP": "flat", **cards}),
    }


def electrons_alone(folder: Path) -> dict[str, str]:
    """Write masters of which the bias too is in electrons, of frames whose gain is known."""
    cards = {"IMAGETYP": "bias", "BUNIT": "electron", "COMBINED": True}
    return {**ccdproc(folder), "bias": write(folder / "e_bias.fits", BIAS * GAIN, cards)}


def own_stacks(folder: Path) -> dict[str, str]:
    """Write stacks of `lazyccd combine`: GAIN and RDNOISE in effect, BUNIT, NCOMBINE."""
    paths = iraf(folder)
    made = {}
    for kind, path in paths.items():
        names = [folder / f"{kind}{number}.fits" for number in range(3)]
        with fits.open(path) as file:
            for number, name in enumerate(names):
                header = file[0].header.copy()
                header["BUNIT"] = "adu"
                header["DATE-OBS"] = f"2024-03-10T18:0{number}:00"
                del header["NCOMBINE"], header["IMCMB001"]
                fits.writeto(name, file[0].data, header)
        target = folder / f"stack_{kind}.fits"
        result = call("combine", *map(str, names), "-o", str(target), "--method", "median")
        assert result.exit_code == 0, result.output
        made[kind] = str(target)
    assert fits.getheader(made["bias"])["GAIN"] > GAIN
    return made


PROGRAMS = [iraf, maxim, astroimagej, siril, siril_with_bias, ccdproc, electrons_alone, own_stacks]


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_masters_of_programs(lights: Path, tmp_path: Path, make: Maker) -> None:
    """Masters of each program give the true product, named one by one, without a doubt."""
    paths = make(tmp_path)
    words = [word for kind, path in paths.items() for word in (f"--{kind}", path)]
    result, product = reduce(lights, *words)
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(product, truth(lights), atol=0.02, rtol=2e-5)


@pytest.mark.parametrize("make", [iraf, maxim, astroimagej, ccdproc], ids=lambda make: make.__name__)
def test_folder_of_masters(lights: Path, tmp_path: Path, make: Maker) -> None:
    """Of a folder each master serves for what its type, LZKIND or name says."""
    (tmp_path / "calib").mkdir()
    make(tmp_path / "calib")
    result, product = reduce(lights, "--calib", str(tmp_path / "calib"))
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(product, truth(lights), atol=0.02, rtol=2e-5)


def test_own_masters_give_the_same_pixels(lights: Path, tmp_path: Path) -> None:
    """Masters of a first night, in the form of each program, give the products of that night to rounding."""
    night = tmp_path / "first"
    night.mkdir()
    rng = np.random.default_rng(5)
    kinds = [("Bias", 0.0, BIAS), ("Dark", 60.0, BIAS + DARK), ("Flat", 3.0, BIAS + 20000 * FLAT)]
    for kind, exposure, level in kinds:
        for number in range(3):
            pixels = np.rint(level + rng.normal(0, 3, SHAPE)).astype("u2")
            cards = {"IMAGETYP": kind, "EXPTIME": exposure, "FILTER": "R"}
            write(night / f"{kind}{number}.fits", pixels, cards)
    (night / "light.fits").write_bytes((lights / "light.fits").read_bytes())
    first = tmp_path / "first_out"
    result = call("reduce", str(night), "-o", str(first), "--cosmic-rays", "none", "--gain", str(GAIN))
    assert (first / "light_red.fits").exists(), result.output
    wanted = fits.getdata(first / "light_red.fits")
    result, product = reduce(lights, "--calib", str(first / "masters"), name="own")
    assert product is not None, result.output
    np.testing.assert_array_equal(product, wanted)
    own = {kind: next((first / "masters").glob(f"{kind}*")) for kind in ("bias", "dark", "flat")}
    bias, dark, flat = (fits.getdata(path) for path in own.values())
    (tmp_path / "iraf").mkdir()
    cards = {"ZEROCOR": "Mar 11 10:25 Zero level correction image is Zero"}
    words = ["--bias", write(tmp_path / "iraf" / "Z.fits", bias.astype("f4"), {})]
    words += ["--dark", write(tmp_path / "iraf" / "D.fits", (dark / GAIN).astype("f4"), {**cards, "EXPTIME": 60.0})]
    words += ["--flat", write(tmp_path / "iraf" / "F.fits", (12345 * flat).astype("f4"), {**cards, "FILTER": "R"})]
    result, product = reduce(lights, *words, name="theirs")
    assert result.exit_code == 0, result.output
    ratio = np.median(product / wanted)
    np.testing.assert_allclose(product, wanted * ratio, rtol=1e-5, atol=0.01)
    assert ratio == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("egain", [{"EGAIN": GAIN}, pytest.param({}, marks=pytest.mark.slow)])
def test_own_masters_of_a_camera_with_a_gain_setting(lights: Path, tmp_path: Path, egain: dict[str, float]) -> None:
    """GAIN = 120 is a setting, by which masters of a first night are compared; that of another setting is not used."""
    night, setting = tmp_path / "first", {"GAIN": 120, "OFFSET": 50, **egain}
    night.mkdir()
    rng = np.random.default_rng(5)
    for kind, exposure, level in [("Bias", 0.0, BIAS), ("Dark", 60.0, BIAS + DARK), ("Flat", 3.0, BIAS + 20000 * FLAT)]:
        for number in range(3):
            pixels = np.rint(level + rng.normal(0, 3, SHAPE)).astype("u2")
            write(
                night / f"{kind}{number}.fits",
                pixels,
                {"IMAGETYP": kind, "EXPTIME": exposure, "FILTER": "R", **setting},
            )
    for key, value in setting.items():
        fits.setval(lights / "light.fits", key, value=value)
    (night / "light.fits").write_bytes((lights / "light.fits").read_bytes())
    first = tmp_path / "first_out"
    gain = ("--gain", str(GAIN))
    call("reduce", str(night), "-o", str(first), "--cosmic-rays", "none", *gain)
    calib = ("--calib", str(first / "masters"), *gain)
    result, product = reduce(lights, *calib, name="own")
    assert "not compared" not in result.output
    assert "does not match" not in result.output
    assert product is not None, result.output
    np.testing.assert_array_equal(product, fits.getdata(first / "light_red.fits"))
    fits.setval(lights / "light.fits", "GAIN", value=200)
    result = call("reduce", str(lights), "--dry-run", *calib)
    for kind in ("bias", "dark", "flat"):
        assert f"{kind} not {kind}" in result.output
    assert "gain_setting '120' is not '200'" in " ".join(result.output.split())


def refused(lights: Path, kind: str, pixels: Array, cards: dict[str, Any], *words: str) -> str:
    """Return what is printed of a master that does not serve; the science frame must not use it."""
    path = write(lights.parent / "given.fits", pixels, cards)
    result = call("reduce", str(lights), "--dry-run", f"--{kind}", path, *words)
    assert result.exit_code in {2, 3}, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("kind", "pixels", "cards", "says"),
    [
        ("bias", BIAS / 65535, {}, "lie between 0 and 1 and nothing says of which range"),
        ("bias", BIAS, {"IMAGETYP": "Flat Field"}, "it is a flat, not a bias"),
        ("flat", BIAS, {"LZKIND": "master bias"}, "it is a bias, not a flat (LZKIND = 'master bias')"),
        ("bias", BIAS[:40], {}, "size 64 x 40 is not the frame's 64 x 48"),
        ("bias", BIAS, {"INSTRUME": "OTHER"}, "instrument 'OTHER' is not 'CAM'"),
        ("bias", BIAS, {"GAIN": 7.0, "NCOMBINE": 5}, "gain 7 is not 2"),
        ("flat", FLAT, {"FILTER": "V"}, "filter 'V' is not 'R'"),
        ("flat", FLAT * 0, {"FILTER": "R"}, "its level is 0"),
        ("dark", BIAS + DARK, {"EXPTIME": 300.0}, "exposure 300 s is not 60 s"),
        ("dark", DARK, {"EXPTIME": 60.0, "BUNIT": "adu/s"}, "multiply it by its exposure"),
        ("bpm", np.ones(SHAPE, "u1"), {}, "it marks every pixel"),
    ],
)
def test_a_wrong_master_is_refused(lights: Path, kind: str, pixels: Array, cards: dict[str, Any], says: str) -> None:
    """The plan says why a master does not serve."""
    assert says in refused(lights, kind, pixels.astype("f4"), cards)


def test_electrons_without_a_gain(lights: Path, tmp_path: Path) -> None:
    """A bias in electrons needs a gain, which can be given."""
    path = str(lights / "light.fits")
    fits.delval(path, "GAIN")
    cards = {"BUNIT": "electron", "GAIN": None}
    assert "no gain says how many adu that is: state it by --gain" in refused(lights, "bias", BIAS * 2, cards)
    result, product = reduce(lights, "--bias", str(tmp_path / "given.fits"), "--gain", "2")
    assert product is not None, result.output
    np.testing.assert_allclose(product, (fits.getdata(path) - BIAS) * 2, atol=0.01)


def test_flat_that_may_have_its_pedestal(lights: Path, tmp_path: Path) -> None:
    """A flat of which nothing says that a bias was subtracted makes the product PARTIAL."""
    paths = iraf(tmp_path)
    flat = write(tmp_path / "f.fits", (20000 * FLAT + ZERO).astype("f4"), {"FILTER": "R"})
    result, _ = reduce(lights, "--bias", paths["bias"], "--dark", paths["dark"], "--flat", flat)
    assert result.exit_code == 3
    assert "that a bias was subtracted from this flat" in " ".join(result.output.split())


def test_raw_size_is_trimmed(tmp_path: Path) -> None:
    """Write masters of the raw size serve trimmed frames; one without overscan subtraction gets the frame's."""
    night = tmp_path / "night"
    night.mkdir()
    raw = np.hstack(
        [BIAS + seen(np.full(SHAPE, SKY * GAIN)), ZERO + np.random.default_rng(2).normal(0, 3, (SHAPE[0], 16))]
    )
    over = {"BIASSEC": "[69:80,1:48]", "TRIMSEC": "[1:64,1:48]", "IMAGETYP": "Light", "EXPTIME": 60.0}
    write(night / "light.fits", np.rint(raw).astype("u2"), over)
    untrimmed = np.hstack([BIAS + 7, np.full((SHAPE[0], 16), ZERO + 7)]).astype("f4")
    subtracted = {"OVERSCAN": "Mar 11 10:25 Overscan section is [69:80,1:48] with mean=1000."}
    forms = [
        write(tmp_path / "a.fits", untrimmed, {}),
        write(tmp_path / "b.fits", untrimmed - np.float32(ZERO + 7), subtracted),
        write(tmp_path / "c.fits", untrimmed[:, :64] - np.float32(ZERO + 7), subtracted),
    ]
    for number, path in enumerate(forms):
        allowed = ("--allow-missing", "dark,flat")
        result, product = reduce(night, "--bias", path, *allowed, name=f"out{number}")
        assert result.exit_code == 0, result.output
        # The mean of the strip, of 576 pixels used, has an error of 0.13 adu.
        np.testing.assert_allclose(product, (np.rint(raw)[:, :64] - BIAS) * GAIN, atol=4 * 0.13 * GAIN)


BAD = np.zeros(SHAPE, bool)
BAD[:, 7] = True


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (BAD.astype("u1"), ""),
        (BAD * np.uint8(255), ""),
        (BAD * np.int32(64), ""),
        (BAD.astype("f4"), ""),
        ((~BAD).astype("u1"), "98.4% of its pixels are not 0: it is taken as inverted"),
    ],
)
@pytest.mark.parametrize("place", ["primary", "extension"])
def test_masks(lights: Path, tmp_path: Path, mask: Array, says: str, place: str) -> None:
    """A mask of any numbers, in the primary HDU or in an extension, marks the same pixels."""
    path = tmp_path / "bad.fits"
    first = fits.PrimaryHDU(mask if place == "primary" else np.zeros(SHAPE, "f4"))
    rest = [] if place == "primary" else [fits.ImageHDU(mask, name="BPM")]
    fits.HDUList([first, *rest]).writeto(path)
    result, product = reduce(lights, "--bpm", str(path), "--allow-missing", "bias,dark,flat")
    assert product is not None, result.output
    with fits.open(tmp_path / "out" / "light_red.fits") as file:
        np.testing.assert_array_equal(file["MASK"].data.astype(bool), BAD)
    assert says in " ".join(result.output.split())


def test_measured_gain_of_a_master(lights: Path, tmp_path: Path) -> None:
    """Gain and read noise that a master bias carries serve frames whose headers have none."""
    path = str(lights / "light.fits")
    fits.delval(path, "GAIN")
    fits.delval(path, "RDNOISE")
    cards = {"GAIN": None, "RDNOISE": None, "LZGAIN": GAIN, "LZRDN": 6.0, "LZKIND": "master bias", "BUNIT": "adu"}
    bias = write(tmp_path / "mbias.fits", BIAS.astype("f4"), cards)
    result, product = reduce(lights, "--bias", bias, "--allow-missing", "dark,flat")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(product, (fits.getdata(path) - BIAS) * GAIN, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "cards", "why"),
    [
        ("bias", {"IMAGETYP": "Dark", "EXPTIME": 9.0}, "it is a dark, not a bias"),
        ("dark", {"IMAGETYP": "Bias"}, "it is a bias, not a dark"),
        ("dark", {"IMAGETYP": "Dark", "EXPTIME": 9.0, "XBINNING": 2, "YBINNING": 2}, "binning '2x2' is not '1x1'"),
        ("flat", {"IMAGETYP": "Flat", "FILTER": "V"}, "filter 'V' is not 'R'"),
        ("bias", {"IMAGETYP": "Bias", "GAIN": 7.5}, "gain 7.5 is not 2"),
    ],
)
def test_a_named_master_that_is_refused_is_no_success(
    lights: Path, tmp_path: Path, kind: str, cards: dict[str, Any], why: str
) -> None:
    """Whatever may be missing: who names a master wants it. The product says so too."""
    for path in lights.glob("*.fits"):
        with fits.open(path, mode="update") as file:
            file[0].header["XBINNING"] = file[0].header["YBINNING"] = 1
    path = write(tmp_path / "x.fits", BIAS, {"GAIN": 2.0, "XBINNING": 1, "YBINNING": 1, "FILTER": "R", **cards})
    result, _ = reduce(lights, f"--{kind}", path, "--allow-missing", "bias,dark,flat")
    assert result.exit_code == 3, result.output
    said = f"--{kind} x.fits is not used"
    assert said in " ".join(result.output.split())
    assert why in " ".join(result.output.split())
    header = fits.getheader(next((lights.parent).rglob("*_red.fits")))
    assert any(said in str(value) for value in header["LZDOUBT*"].values())


def test_a_named_master_that_nothing_needs_is_none(lights: Path, tmp_path: Path) -> None:
    """Of flats for all filters, those that no frame needs are only noted."""
    paths = iraf(tmp_path)
    other = str(tmp_path / "V.fits")
    with fits.open(paths["flat"]) as file:
        file[0].header["FILTER"] = "V"
        file.writeto(other)
    words = [word for kind, path in paths.items() for word in (f"--{kind}", path)]
    result, _ = reduce(lights, *words, "--flat", other)
    assert result.exit_code == 0, result.output
    assert "--flat V.fits is not used" in " ".join(result.output.split())


def test_a_master_that_a_table_names_keeps_its_doubts(lights: Path, tmp_path: Path) -> None:
    """A flat of unknown zero level is as doubtful in a cell as on the command line."""
    flat = write(tmp_path / "f.fits", FLAT * 30000.0, {"IMAGETYP": "Flat", "FILTER": "R"})
    table = tmp_path / "night.ecsv"
    save_table(build_plan(collect(str(lights))), table)
    rows = Table.read(table, format="ascii.ecsv")
    rows["flat"] = [flat] * len(rows)
    rows.write(table, format="ascii.ecsv", delimiter=",", overwrite=True)
    plan = load_table(table)
    assert all("no stamp and no HISTORY" in item.reason for item in plan.science)


_MAXIM = {"SWCREATE": "MaxIm DL Version 5.24 140126 0KJR5", "SBSTDVER": "SBFITSEXT Version 1.0", "SNAPSHOT": 10}
# Sentences as in a header of MaxIm DL 5.24 of iTelescope 33 (PhotonFinder on GitHub, tests/sample_headers.py).
_BIAS_TAKEN = ("Bias Subtraction (Bias 1, 64 x 48, Bin1 x 1, Temp -35C,", "Exp Time 0ms)")
_DARK_TAKEN = ("Dark Subtraction (Dark 10, 64 x 48, Bin1 x 1, Temp -35C,", "Exp Time 300s)")
_ZEROCOR = {"ZEROCOR": "Jan  5 12:00 Zero level correction image is Zero"}
_SIRIL = {"PROGRAM": "Siril 1.2.1", "STACKCNT": 20}
_CCDPROC = {"SUBBIAS": "ccd=<CCDData>, master=<CCDData>", "COMBINED": True}
_LEVEL = np.rint(20000 * FLAT).astype("u2")

FORMS: dict[str, tuple[str, Array, dict[str, Any], tuple[str, ...]]] = {
    "iraf short": ("bias", np.rint(BIAS).astype("i2"), {"IMAGETYP": "zero", "NCOMBINE": 10}, ()),
    "iraf real": ("bias", BIAS.astype("f4"), {"IMAGETYP": "zero", "IMCMB001": "b1.imh", "CCDMEAN": 1000.2}, ()),
    "iraf dark": ("dark", DARK.astype("f4"), {"IMAGETYP": "dark", "EXPTIME": 60, "DARKTIME": 61.2, **_ZEROCOR}, ()),
    "iraf flat": ("flat", (2e4 * FLAT).astype("f8"), {"IMAGETYP": "FLAT", "CCDMEAN": 20000.0, **_ZEROCOR}, ()),
    "iraf response": ("flat", FLAT.astype("f4"), {"IMAGETYP": "flat", "CCDMEAN": 1.0, "NCOMBINE": 5}, ()),
    "maxim bias": ("bias", np.rint(BIAS).astype("u2"), {"IMAGETYP": "Bias Frame", "CALSTAT": "M", **_MAXIM}, ()),
    "maxim pedestal": (
        "bias",
        np.rint(BIAS + 100).astype("u2"),
        {"IMAGETYP": "Bias Frame", "CALSTAT": "M", "PEDESTAL": -100, **_MAXIM},
        (),
    ),
    "maxim dark": (
        "dark",
        np.rint(DARK).astype("u2"),
        {"IMAGETYP": "Dark Frame", "EXPTIME": 60.0, "EXPOSURE": 60.0, "CALSTAT": "BM", **_MAXIM},
        _BIAS_TAKEN,
    ),
    "maxim flat": ("flat", _LEVEL, {"IMAGETYP": "Flat Field", "CALSTAT": "BDM     ", **_MAXIM}, _BIAS_TAKEN),
    "maxim history": ("flat", _LEVEL, {"IMAGETYP": "FLAT", **_MAXIM}, (*_BIAS_TAKEN, *_DARK_TAKEN)),
    "aij bias": ("bias", np.rint(BIAS).astype("i4"), {}, ("median of 20 files",)),
    "aij bias float": ("bias", BIAS.astype("f4"), {"IMAGETYP": "Bias"}, ()),
    "aij dark": ("dark", DARK.astype("f4"), {"EXPTIME": 60.0}, ("Bias corrected with mbias.fits",)),
    "aij flat": ("flat", (2e4 * FLAT).astype("f4"), {}, ("Bias corrected with mbias.fits", "Dark corrected")),
    "aij flat of 1": ("flat", FLAT.astype("f4"), {}, ("Flat scaled by its mean",)),
    "siril bias": ("bias", (BIAS / 65535).astype("f4"), {"PROGRAM": "Siril v0.99.10", "STACKCNT": 50}, ()),
    "siril bias of 16 bits": ("bias", np.rint(BIAS).astype("u2"), _SIRIL, ()),
    "siril dark": ("dark", (DARK / 65535).astype("f4"), {"EXPTIME": 60.0, **_SIRIL}, ("Calibrated: bias subtracted",)),
    "siril flat": ("flat", (0.3 * FLAT).astype("f4"), _SIRIL, ("Calibrated with master bias.fit",)),
    "siril flat of 16 bits": ("flat", _LEVEL, {"IMAGETYP": "FLAT", **_SIRIL}, ("Bias subtracted: master_bias",)),
    "ccdproc bias": ("bias", BIAS, {"IMAGETYP": "BIAS", "BUNIT": "adu", "COMBINED": True}, ()),
    "ccdproc dark": ("dark", DARK, {"EXPTIME": 60.0, "BUNIT": "adu", **_CCDPROC}, ()),
    "ccdproc dark in electrons": (
        "dark",
        DARK * GAIN,
        {"EXPTIME": 60.0, "BUNIT": "electron", "GAINCOR": "gain=2.0", **_CCDPROC},
        (),
    ),
    "ccdproc flat": ("flat", 2e4 * FLAT, {"IMAGETYP": "FLAT", "BUNIT": "adu", **_CCDPROC}, ()),
    "ccdproc flat of 1": ("flat", FLAT, {"IMAGETYP": "FLAT", "COMBINED": True}, ()),
}
"""Forms of one master, the others being plain: its kind, pixels, cards, HISTORY."""


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_masters(lights: Path, tmp_path: Path, form: str) -> None:
    """Each gives the true product to its digits, and no doubt."""
    kind, pixels, cards, history = FORMS[form]
    (tmp_path / "plain").mkdir()
    paths = iraf(tmp_path / "plain")
    cards = {"FILTER": "R", **cards} if kind == "flat" else cards
    paths[kind] = write(tmp_path / f"{form}.fits", pixels, cards, history)
    result, product = reduce(lights, *(word for each, path in paths.items() for word in (f"--{each}", path)))
    assert result.exit_code == 0, result.output
    digits = 0.6 * GAIN / FLAT.min() if np.asarray(pixels).dtype.kind in "iu" and kind != "flat" else 0.05
    np.testing.assert_allclose(product, truth(lights), atol=digits, rtol=1e-3)
