"""Images that several amplifiers were read into: what a header or a camera table says of them is what is done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.cli.main import main
from lazyccd.kernels.block import Array

ROWS, COLUMNS, STRIP = 64, 48, 16
"""Of the data of an amplifier, and columns of its overscan."""

GAINS, ZEROS = (1.5, 2.0), (1000.0, 1800.0)
SKY, NOISE = 900.0, 5.0
Y, X = np.mgrid[:ROWS, : 2 * COLUMNS]
FLAT = 1.0 + 0.15 * np.cos(Y / 15.0) + 0.03 * np.sin(X * 1.7)
FLAT /= np.median(FLAT)

SECTIONS = {
    "DATASECA": "[1:48,1:64]", "BIASSECA": "[51:64,1:64]", "DATASECB": "[81:128,1:64]", "BIASSECB": "[65:78,1:64]",
}  # fmt: skip
"""Data outside, both overscans in the middle."""

TABLE = f"""
[amplifiers]
A = {{DATASEC = "[1:48,1:64]", BIASSEC = "[51:64,1:64]", GAIN = {GAINS[0]}}}
B = {{DATASEC = "[81:128,1:64]", BIASSEC = "[65:78,1:64]", GAIN = {GAINS[1]}}}
"""


def call(*words: str) -> tuple[int, str]:
    """Run ``lazyccd``; return exit status and what is printed, blanks made one."""
    result = CliRunner().invoke(main, list(words))
    return result.exit_code, " ".join(result.output.split())


def read_out(light: Array | float, seed: int) -> Array:
    """Return the image of both amplifiers, for electrons of light on the detector."""
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(np.broadcast_to(np.asarray(light, float), FLAT.shape)) + rng.normal(0, NOISE, FLAT.shape)
    parts = []
    for tap, (gain, zero) in enumerate(zip(GAINS, ZEROS, strict=True)):
        strip = zero + rng.normal(0, NOISE, (ROWS, STRIP)) / gain
        data = zero + electrons[:, tap * COLUMNS : (tap + 1) * COLUMNS] / gain
        parts += [data, strip] if tap == 0 else [strip, data]
    return np.rint(np.hstack(parts)).clip(0, 65535).astype("u2")


def make_night(folder: Path, light_of_flats: float = 30000.0, **cards: Any) -> Path:
    """Write biases, flats and two frames of the sky."""
    folder.mkdir()
    kinds = [("Bias", 0.0, 0.0, 4), ("Flat", 4.0, light_of_flats * FLAT, 5), ("Light", 60.0, SKY * FLAT, 2)]
    number = 0
    for kind, exposure, light, count in kinds:
        for _ in range(count):
            number += 1
            usual = {"IMAGETYP": kind, "EXPTIME": exposure, "DATE-OBS": f"2024-03-10T20:{number:02d}:00", "FILTER": "V"}
            header = fits.Header({**usual, "RDNOISE": NOISE, **cards})
            fits.writeto(folder / f"n{number:02d}.fits", read_out(light, number), header)
    return folder


def check(out: Path) -> None:
    """Compare the products with the sky."""
    products = sorted(out.glob("*_red.fits"))
    assert len(products) == 2
    for product in products:
        with fits.open(product) as file:
            pixels, header = file[0].data.astype(float), file[0].header
            uncertainty = np.nanmedian(file["UNCERT"].data)
        assert pixels.shape == FLAT.shape
        assert header["BUNIT"] == "electron"
        assert not [key for key in header if key.startswith(("DATASECA", "BIASSEC", "GAINB"))]
        left, right = pixels[:, :COLUMNS], pixels[:, COLUMNS:]
        # the level of a flat is the median of its centre
        assert np.mean(pixels) == pytest.approx(SKY, rel=0.01)
        assert np.mean(left) == pytest.approx(np.mean(right), rel=0.004)
        assert np.std(pixels) == pytest.approx(np.sqrt(SKY + NOISE**2 * 1.25), rel=0.06)
        assert uncertainty == pytest.approx(np.std(pixels), rel=0.06)
        assert np.abs(np.corrcoef(FLAT.ravel(), pixels.ravel())[0, 1]) < 0.06


def test_sections_of_the_header(tmp_path: Path) -> None:
    """Each amplifier has its overscan and gain, and both are one detector in the product."""
    cards = {**SECTIONS, "GAINA": GAINS[0], "GAINB": GAINS[1], "SATURATE": 61000}
    night = make_night(tmp_path / "night", **cards)
    status, text = call("reduce", str(night), "-o", str(tmp_path / "out"), "--allow-missing", "dark")
    assert status == 0, text
    check(tmp_path / "out")
    for product in (tmp_path / "out").glob("*_red.fits"):
        header = fits.getheader(product)
        assert header["CCDSIZE"] == f"[1:{2 * COLUMNS},1:{ROWS}]"
        assert "level=61000.0" in header["FLAGSAT"]


def test_sections_of_a_camera_table(tmp_path: Path) -> None:
    """A table says it where the header does not, and masters of one night serve another."""
    table = tmp_path / "mine.toml"
    table.write_text(TABLE)
    night = make_night(tmp_path / "night")
    how = ("--camera", str(table), "--allow-missing", "dark")
    status, text = call("reduce", str(night), "-o", str(tmp_path / "out"), *how)
    assert status == 0, text
    check(tmp_path / "out")

    alone = tmp_path / "alone"
    alone.mkdir()
    for number in (10, 11):
        (night / f"n{number}.fits").rename(alone / f"n{number}.fits")
    calib = ("--calib", str(tmp_path / "out" / "masters"))
    status, text = call("reduce", str(alone), "-o", str(tmp_path / "again"), *how, *calib)
    assert status == 0, text
    check(tmp_path / "again")
    for product in (tmp_path / "out").glob("*_red.fits"):
        np.testing.assert_array_equal(fits.getdata(product), fits.getdata(tmp_path / "again" / product.name))


@pytest.mark.parametrize("cards", [{"GAIN1": GAINS[0], "GAIN2": GAINS[1]}, {"GAIN": f"{GAINS[0]}, {GAINS[1]}"}])
def test_numbers_in_the_order_of_a_table(tmp_path: Path, cards: dict[str, Any]) -> None:
    """GAIN1 and GAIN2, or a list, are those of the first and the second amplifier that a table names."""
    table = tmp_path / "mine.toml"
    table.write_text(re.sub(r", GAIN = [\d.]+", "", TABLE))
    night = make_night(tmp_path / "night", **cards)
    how = ("--camera", str(table), "--allow-missing", "dark")
    status, text = call("reduce", str(night), "-o", str(tmp_path / "out"), *how)
    assert status == 0, text
    check(tmp_path / "out")


def test_it_is_what_a_script_does(tmp_path: Path) -> None:
    """The pixels are those of a night whose amplifiers were split into files before."""
    night = make_night(tmp_path / "night", **SECTIONS, GAINA=GAINS[0], GAINB=GAINS[1])
    split = tmp_path / "split"
    split.mkdir()
    for path in night.iterdir():
        lazyccd.to_fits(lazyccd.split_amplifiers(lazyccd.open_fits(path, unit="adu")), split / path.name)
    for folder in (night, split):
        status, text = call(
            "reduce", str(folder), "-o", str(tmp_path / f"{folder.name}_out"), "--allow-missing", "dark"
        )
        assert status == 0, text
    for product in (tmp_path / "night_out").glob("*_red.fits"):
        with fits.open(tmp_path / "split_out" / product.name) as file:
            other = next(hdu.data for hdu in file if hdu.data is not None)
        np.testing.assert_array_equal(fits.getdata(product), other)


def test_a_saved_table(tmp_path: Path) -> None:
    """Amplifiers have rows of their own in the table, which is read back."""
    night = make_night(tmp_path / "night", **SECTIONS, GAINA=GAINS[0], GAINB=GAINS[1])
    saved = tmp_path / "night.ecsv"
    status, text = call("reduce", str(night), "--dry-run", "--save", str(saved), "--allow-missing", "dark")
    assert status == 0, text
    assert "n10.fits[amplifier B]" in saved.read_text()
    status, text = call("reduce", str(saved), "-o", str(tmp_path / "out"))
    assert status == 0, text
    check(tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[amplifiers]\nA = 3", "[amplifiers] A = 3 must be a section"),
        ('[amplifiers]\nA = "[1:48,1:64]"\n"B]" = "[49:90,1:64]"', "[amplifiers] 'B]' must be a name without '/'"),
        ('[amplifiers]\nA = {DATASEC = "[1:9,1:9]", GIAN = 1.5}', "card of amplifier 'A' 'GIAN' must be one of"),
        ('[amplifiers]\nA = {DATASEC = "[1:9,1:9]", GAIN = -1.5}', "GAIN = -1.5 must be a number above 0"),
        ('[amplifiers]\nA = "[1:900,1:64]"\nB = "[901:999,1:64]"', "[amplifiers] of the camera table"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, table: str, words: str) -> None:
    """They are refused, with what is wrong."""
    night = make_night(tmp_path / "night")
    path = tmp_path / "mine.toml"
    path.write_text(table)
    status, text = call("reduce", str(night), "-o", str(tmp_path / "out"), "--camera", str(path))
    assert status == 2
    assert words in text


def test_an_overscan_of_the_whole(tmp_path: Path) -> None:
    """Who states the overscan of the whole image means the whole image."""
    night = make_night(tmp_path / "night", **SECTIONS, GAINA=GAINS[0], GAINB=GAINS[1])
    status, text = call("reduce", str(night), "--dry-run", "--overscan", "none", "--gain", "1.5")
    assert status in {0, 3}
    assert "amplifier A" not in text


@pytest.mark.parametrize("light", [30000.0, 14000.0])
def test_they_are_proposed(tmp_path: Path, light: float) -> None:
    """A flat that has a strip without light in the middle shows where two amplifiers lie; the proposal serves as it is."""
    night = make_night(tmp_path / "night", light)
    written = tmp_path / "found.toml"
    status, text = call("camera", str(night), "-o", str(written))
    assert status == 0, text
    lines = written.read_text().split("\n")
    first = next(number for number, line in enumerate(lines) if line.startswith("# [amplifiers]"))
    stated = "\n".join(line.removeprefix("# ") for line in lines[first : first + 3])
    stated = stated.replace("GAIN = 1.5", "GAIN = 2.0").replace("GAIN = 2.0", "GAIN = 1.5", 1)
    table = tmp_path / "mine.toml"
    table.write_text(stated)
    status, text = call(
        "reduce", str(night), "-o", str(tmp_path / "out"), "--camera", str(table), "--allow-missing", "dark"
    )
    assert status == 0, text
    check(tmp_path / "out")
