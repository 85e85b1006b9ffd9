"""Three cameras that lazyccd has no table for, from the commands of the guide to products that are right.

Each night is simulated from a known sky: level, noise and structure of every product are compared with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from lazyccd.cli.main import main
from lazyccd.kernels.block import Array

SHAPE = (64, 96)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
FLAT = 1.0 + 0.15 * np.cos(Y / 15.0) + 0.03 * np.sin(X * 1.7)
FLAT /= np.median(FLAT[16:48, 24:72])
SKY = 900.0
"""Electrons of a science frame, before the flat."""

Cards = dict[str, Any]


def call(*words: str) -> tuple[int, str]:
    """Run ``lazyccd``; return exit status and what is printed, blanks made one."""
    result = CliRunner().invoke(main, list(words))
    return result.exit_code, " ".join(result.output.split())


def read(electrons: Array | float, gain: float, noise: float, zero: Array | float, seed: int) -> Array:
    """Return what a converter makes of some electrons: photon noise, read noise, gain, zero level."""
    rng = np.random.default_rng(seed)
    light = rng.poisson(np.broadcast_to(np.asarray(electrons, float), SHAPE)) + rng.normal(0, noise, SHAPE)
    return np.rint(zero + light / gain).clip(0, 65535).astype("u2")


def header(*parts: Cards) -> fits.Header:
    """Return a header of cards; a pair is value and comment."""
    pairs = [(key, value) for cards in parts for key, value in cards.items()]
    return fits.Header([(key, *value) if isinstance(value, tuple) else (key, value) for key, value in pairs])


def check(product: Path, noise: float, within: float = 0.006, sky: float = SKY) -> None:
    """Compare level, noise and structure of a product with the sky it was simulated from."""
    with fits.open(product) as file:
        pixels = next(hdu.data for hdu in file if hdu.data is not None).astype(float)
        units = next(hdu.header["BUNIT"] for hdu in file if hdu.data is not None)
    assert units == "electron"
    assert pixels.shape == SHAPE
    assert np.mean(pixels) == pytest.approx(sky, rel=within)
    assert np.std(pixels) == pytest.approx(noise, rel=0.12)
    # The flat of the camera is gone: nothing is left along its pattern.
    pattern = FLAT - FLAT.mean()
    left = np.sum(pattern * (pixels - pixels.mean())) / np.sum(pattern**2) / SKY
    assert abs(left) < 4 * noise / SKY / np.sqrt(np.sum(pattern**2)) + 0.01


def amateur(night: Path, **more: Any) -> None:
    """Simulate a cooled CMOS camera: GAIN is a setting, EGAIN electrons per adu, no read noise."""
    night.mkdir()
    zero = 500 + 2 * (X % 5)
    usual = {
        "INSTRUME": "ZWO ASI533MM Pro", "GAIN": (100, "Sensor gain"), "OFFSET": (50, "Sensor gain offset"),
        "EGAIN": (1.25, "Electronic gain in e-/ADU"), "XBINNING": 1, "YBINNING": 1, "CCD-TEMP": -10.1, "SET-TEMP": -10.0,
        "ROWORDER": "TOP-DOWN", "SWCREATE": "N.I.N.A. 3.0", **more,
    }  # fmt: skip
    kinds = [
        ("BIAS", 0.0, 0.0, 4), ("DARK", 60.0, 30.0, 4), ("FLAT", 2.0, 30000 * FLAT, 6), ("LIGHT", 60.0, 30 + SKY * FLAT, 2),
    ]  # fmt: skip
    number = 0
    for kind, exposure, light, count in kinds:
        for _ in range(count):
            number += 1
            cards = {"IMAGETYP": kind, "EXPTIME": exposure, "DATE-OBS": f"2024-03-10T20:{number:02d}:00.123"}
            cards |= {"FILTER": "Ha"} if kind in {"FLAT", "LIGHT"} else {}
            pixels = read(light, 1.25, 4.0, zero, number)
            fits.writeto(night / f"{kind}_{number:04d}.fits", pixels, header(cards, usual))


def test_amateur(tmp_path: Path) -> None:
    """A CMOS night is complete by one command; the setting in GAIN is not taken for electrons."""
    amateur(tmp_path / "night")
    status, text = call("reduce", str(tmp_path / "night"), "-o", str(tmp_path / "out"), "--cosmic-rays", "none")
    assert status == 0, text
    products = sorted((tmp_path / "out").glob("*_red.fits"))
    assert len(products) == 2
    noise = np.sqrt(SKY + 30 + 16 + (30 + 16) / 4 + SKY**2 / (6 * 30000))
    for product in products:
        check(product, noise)


def test_amateur_in_colour(tmp_path: Path) -> None:
    """A night of a colour camera says so, and keeps level and noise."""
    amateur(tmp_path / "night", BAYERPAT="RGGB", XBAYROFF=0, YBAYROFF=0)
    status, text = call("reduce", str(tmp_path / "night"), "-o", str(tmp_path / "out"))
    assert status in {0, 3}, text
    assert "RGGB" in call("reduce", str(tmp_path / "night"), "--dry-run")[1]
    for product in sorted((tmp_path / "out").glob("*_red.fits")):
        assert np.median(fits.getdata(product)) == pytest.approx(SKY, rel=0.2)


GAINS = (1.5, 1.6, 1.4, 1.55)


def four_taps(night: Path) -> None:
    """Simulate a CCD that is read by four amplifiers into extensions, its exposures in milliseconds."""
    night.mkdir()
    kinds = [("zero", 0, 0.0, 4), ("dome flat", 4000, 30000 * FLAT, 6), ("object", 60000, SKY * FLAT, 2)]
    number = 0
    for kind, exposure, light, count in kinds:
        for _ in range(count):
            number += 1
            top = {"OBSTYPE": kind, "EXPTIME": (exposure, "[ms] exposure time"), "INSTRUME": "FOURTAP", "FILTER": "r"}
            top |= {"DATE-OBS": "2024-03-10", "UT": f"21:{number:02d}:00.0", "TELESCOP": "1.5m"}
            hdus: list[Any] = [fits.PrimaryHDU(header=header(top))]
            for tap, gain in enumerate(GAINS):
                y, x = divmod(tap, 2)
                rows, columns = slice(32 * y, 32 * y + 32), slice(48 * x, 48 * x + 48)
                zero = 1000.0 + 37 * tap
                pixels = read(light, gain, 5.0, zero, 10 * number + tap)[rows, columns]
                strip = read(0.0, gain, 5.0, zero, 10 * number + tap + 7777)[:32, :16]
                cards = {
                    "EXTNAME": f"TAP{tap + 1}", "GAIN": gain, "RDNOISE": 5.0, "DATASEC": "[1:48,1:32]",
                    "TRIMSEC": "[1:48,1:32]", "BIASSEC": "[51:64,1:32]",
                    "DETSEC": f"[{48 * x + 1}:{48 * x + 48},{32 * y + 1}:{32 * y + 32}]",
                }  # fmt: skip
                hdus.append(fits.ImageHDU(np.hstack([pixels, strip]), header(cards)))
            fits.HDUList(hdus).writeto(night / f"ccd{number:04d}.fits")


def test_four_taps(tmp_path: Path) -> None:
    """Amplifiers are put together without a step; exposures are seconds."""
    four_taps(tmp_path / "night")
    words = ("--allow-missing", "dark", "--cosmic-rays", "none")
    status, text = call("reduce", str(tmp_path / "night"), "-o", str(tmp_path / "out"), *words)
    assert status == 0, text
    products = sorted((tmp_path / "out").glob("*_red.fits"))
    assert len(products) == 2
    # One level for all amplifiers: the median of those of their central halves.
    part = [FLAT[y + 8 : y + 24, x + 12 : x + 36] for y in (0, 32) for x in (0, 48)]
    sky = SKY * float(np.median([np.median(one) for one in part]))
    for product in products:
        check(product, np.sqrt(SKY + 25 + 25 / 4 + SKY**2 / (6 * 30000)), sky=sky)
    status, text = call("reduce", str(tmp_path / "night"), "--dry-run", "--allow-missing", "dark")
    assert status == 0, text
    assert "60 s" in text
    assert "60000" not in text


def old(night: Path) -> None:
    """Simulate an old CCD: no types, dates with slashes, no gain, telling names in folders."""
    kinds = [("zeros/zero", 0.0, 0.0, 4), ("flats/flatR", 5.0, 30000 * FLAT, 6), ("m51/m51_R", 300.0, SKY * FLAT, 2)]
    number = 0
    for name, exposure, light, count in kinds:
        for index in range(count):
            number += 1
            path = night / f"{name}{index + 1:02d}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            cards = {"DATE-OBS": "12/03/98", "UT": f"20:{number:02d}:10.0", "EXPTIME": exposure, "FILTERS": "R"}
            cards |= {"CCDSUM": "1 1", "TRIMSEC": "[1:96,1:64]", "BIASSEC": "[99:112,1:64]", "INSTRUME": "TEK1"}
            pixels = read(light, 2.2, 7.0, 800.0 + 2 * (X % 3), number)
            strip = read(0.0, 2.2, 7.0, 800.0, number + 5555)[:, :16]
            fits.writeto(path, np.hstack([pixels, strip]), header(cards))


def test_old_without_types(tmp_path: Path) -> None:
    """Names propose types, which is said; a plan that was confirmed by [types] gives right products."""
    old(tmp_path / "night")
    words = ("--allow-missing", "dark", "--cosmic-rays", "none")
    status, text = call("reduce", str(tmp_path / "night"), "-r", "--dry-run", *words)
    assert status == 3
    assert "proposed by" in text
    camera = tmp_path / "tek.toml"
    camera.write_text(
        '[types]\n"*@FILE=*zero*" = "bias"\n"*@FILE=*flat*" = "flat"\n"*@FILE=*m51*" = "science"\n', encoding="utf-8"
    )
    words = ("-r", "--camera", str(camera), "-o", str(tmp_path / "out"), *words)
    status, text = call("reduce", str(tmp_path / "night"), *words)
    assert status == 0, text
    products = sorted((tmp_path / "out").rglob("*_red.fits"))
    assert len(products) == 2
    for product in products:
        # The gain is measured on 6 flats of 6000 pixels.
        check(product, np.sqrt(SKY + 49 + 49 / 4 + SKY**2 / (6 * 30000)), within=0.03)
