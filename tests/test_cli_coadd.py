"""Bad input of ``lazyccd coadd``: messages name files, keywords, values and the way out, in the words of the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner, Result

from lazyccd.cli.main import main

pytestmark = pytest.mark.filterwarnings("always")

PYTHON = re.compile(r"\bds\.|with_\w+\(|\w\(\)|\b[a-z_]+=['\d\s]|Traceback|<Quantity")
"""What the user of a command cannot do anything with."""


def header(column: float = 20.5, **cards: Any) -> fits.Header:
    """Return the header of a frame; cards of None are left out."""
    wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-3, "CDELT2": 1e-3, "CRPIX1": column})
    wcs.wcs.crval, wcs.wcs.crpix = [150, 2], [column, 15.5]
    found = wcs.to_header()
    for key, value in {"BUNIT": "adu", "FILTER": "r", "EXPTIME": 10.0, **cards}.items():
        if value is None:
            found.remove(key, ignore_missing=True)
        else:
            found[key] = value
    return found


def pixels() -> npt.NDArray[Any]:
    """Return a frame of noise."""
    return np.random.default_rng(1).normal(100, 1, (30, 40)).astype(np.float32)


DISTORTED = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 0.05,
    "B_0_2": 0.05,
}

CARDS: dict[str, dict[str, Any]] = {
    "0": {},
    "far": {"CRVAL1": 200.0, "CRVAL2": 20.0},
    "opposite": {"CRVAL1": 330.0, "CRVAL2": -2.0},
    "blue": {"FILTER": "g"},
    "jansky": {"BUNIT": "Jy"},
    "unitless": {"BUNIT": None},
    "folds": DISTORTED,
    "tnx": {"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"},
    "coarse": {"CDELT1": -0.36, "CDELT2": 0.36},
    "fine": {"CDELT1": -1e-9, "CDELT2": 1e-9},
    "text": {"CRVAL1": "abc"},
    "singular": {"CDELT1": 0.0},
    "unexposed": {"EXPTIME": 0.0},
    "untimed": {"EXPTIME": None},
}
"""Frames by name, and what their headers have."""


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of good and bad frames, in which commands run."""
    for name, cards in CARDS.items():
        fits.PrimaryHDU(pixels(), header(**cards)).writeto(tmp_path / f"{name}.fits")
    fits.PrimaryHDU(pixels(), header(18.5)).writeto(tmp_path / "1.fits")
    fits.PrimaryHDU(pixels(), fits.Header({"BUNIT": "adu"})).writeto(tmp_path / "bare.fits")
    fits.PrimaryHDU(np.stack([pixels()] * 3), header()).writeto(tmp_path / "cube.fits")
    fits.PrimaryHDU(np.full((30, 40), np.nan, np.float32), header()).writeto(tmp_path / "nan.fits")
    two = [fits.ImageHDU(pixels(), header(), name="SCI", ver=i + 1) for i in range(2)]
    fits.HDUList([fits.PrimaryHDU(), *two]).writeto(tmp_path / "two.fits")
    (tmp_path / "words.fits").write_text("no FITS file\n")
    (tmp_path / "empty.fits").touch()
    (tmp_path / "folder.fits").mkdir()
    (tmp_path / "short.fits").write_bytes((tmp_path / "0.fits").read_bytes()[:-4000])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(line: str) -> Result:
    """Run the command with the words of a line."""
    return CliRunner().invoke(main, ["coadd", *line.split()])


REFUSED: dict[str, tuple[str, list[str]]] = {
    "no WCS": ("0.fits bare.fits", ["bare.fits", "no celestial WCS", "CTYPE"]),
    "none on the grid": ("far.fits --like 0.fits", ["grid at 150.0", "far.fits) at 200.0", "leave out --like"]),
    "all around the sky": ("0.fits opposite.fits", ["0.fits at 150.0", "opposite.fits at 330.0", "--like"]),
    "two filters": ("0.fits blue.fits", ["blue.fits", "FILTER = 'g'", "0.fits", "'r'"]),
    "two units": ("0.fits jansky.fits", ["jansky.fits", "'Jy'", "'adu' of frame 1 (0.fits)", "BUNIT"]),
    "no unit": ("0.fits unitless.fits", ["unitless.fits", "BUNIT"]),
    "folding distortion": (
        "0.fits folds.fits",
        ["folds.fits", "[0:30, 0:40]", "CTYPE1 = 'RA---TAN-SIP'", "lower order"],
    ),
    "unknown distortion": ("0.fits tnx.fits", ["tnx.fits", "CTYPE1 = 'RA---TNX'"]),
    "text for a number": ("0.fits text.fits", ["text.fits", "CRVAL1 = 'abc'", "must be a number"]),
    "no inverse": ("0.fits singular.fits", ["singular.fits", "singular", "CDELT1 = 0.0"]),
    "too many pixels": ("0.fits fine.fits", ["fine.fits has pixels of 3.6e-06 arcsec", "pixels", "--pixel-scale"]),
    "no scale": ("0.fits --pixel-scale 0", ["--pixel-scale 0", "between 0 and 180"]),
    "no projection": ("0.fits --projection FOO", ["--projection 'FOO'", "three capital letters"]),
    "missing": ("0.fits nowhere.fits", ["nowhere.fits does not exist"]),
    "nothing matches": ("nowhere*.fits", ["no file matches 'nowhere*.fits'"]),
    "text": ("0.fits words.fits", ["words.fits begins with b'no FITS file", "another format or damaged"]),
    "no bytes": ("empty.fits", ["empty.fits is empty"]),
    "a folder": ("folder.fits", ["folder.fits is a folder", "name a file in it"]),
    "truncated": ("short.fits", ["short.fits[0] is truncated", "fetch the file again"]),
    "a cube": ("cube.fits", ["cube.fits[0] has NAXIS = 3", "(3, 30, 40)"]),
    "no such HDU": ("two.fits[9]", ["two.fits has no extension 9", "[2] SCI,2 image"]),
    "a grid of two": ("0.fits --like two.fits", ["two.fits has 2 images", "two.fits[SCI,1]"]),
    "a grid without WCS": ("0.fits --like bare.fits", ["--like bare.fits has no celestial WCS"]),
    "exposure of 0": (
        "0.fits unexposed.fits --flux-scale exposure",
        ["--flux-scale 'exposure'", "unexposed.fits", "time of 0"],
    ),
    "no exposure": ("0.fits untimed.fits --weights exposure", ["untimed.fits", "has no EXPTIME"]),
    "no such keyword": ("0.fits 1.fits --weights FOO", ["--weights 'FOO'", "keyword of the headers"]),
    "keyword of text": ("0.fits 1.fits --weights FILTER", ["FILTER = 'r', which is no number"]),
    "too much coverage": ("0.fits 1.fits --min-coverage 3", ["--min-coverage 3", "2 frames"]),
    "negative width": ("0.fits --feather -1", ["--feather -1.0", "0 or more"]),
    "not for this kernel": ("0.fits --pixfrac 0.5", ["--pixfrac 0.5", "--order 'area'"]),
    "no uncertainty": ("0.fits --map variance_aperture", ["--map 'variance_aperture'", "has no uncertainty"]),
    "weights without": ("0.fits --weights variance", ["--weights 'variance'", "has no uncertainty"]),
    "no such picture": ("0.fits --preview a.txt", ["--preview a.txt must end in .png"]),
    "nowhere for the picture": ("0.fits --preview nowhere/a.png", ["folder nowhere of a.png does not exist"]),
    "too little memory": ("0.fits --memory-limit 1kB", ["memory limit is", "--memory-limit"]),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("how", ["", " --dry-run"])
def test_refused(frames: Path, kind: str, how: str) -> None:
    """It ends with status 2, nothing is written, and the message says what is wrong where; a dry run finds it too."""
    words, said = REFUSED[kind]
    result = call(f"{words} -o out.fits{how}")
    assert result.exit_code == 2, result.output
    assert [text for text in said if text not in result.output] == [], result.output
    assert PYTHON.search(result.output) is None, result.output
    assert list(frames.glob("out*")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("0.fits 1.fits -o 0.fits", "the frame is made from .*0.fits"),
        ("0.fits -o 1.fits", "1.fits exists; pass --overwrite"),
        ("0.fits -o nowhere/out.fits", "folder nowhere of out.fits does not exist; create it"),
        ("0.fits -o out.fits.gz", "-o out.fits.gz: .* let the name end in .fits or .zarr"),
        ("0.fits -o out.fits.fz", "-o out.fits.fz: .* let the name end in .fits or .zarr"),
        ("0.fits -o out.png", "out.png does not tell the format"),
    ],
)
@pytest.mark.parametrize("how", ["", " --dry-run"])
def test_targets(frames: Path, words: str, said: str, how: str) -> None:
    """Names that cannot be written are refused before any work, in a dry run too, and files that are there stay."""
    before = {path.name: path.read_bytes() for path in frames.glob("[01].fits")}
    result = call(words + how)
    assert result.exit_code == 2, result.output
    assert re.search(said, result.output), result.output
    assert PYTHON.search(result.output) is None, result.output
    assert {path.name: path.read_bytes() for path in frames.glob("[01].fits")} == before


def test_told_and_done(frames: Path) -> None:
    """What is odd and can be meant is a warning that names the frames: same frame twice, off the grid, far apart, of other scales."""
    for words, said in {
        "0.fits 0.fits": "frame 2 (0.fits) is frame 1 (0.fits)",
        "0.fits far.fits --like 0.fits": "1 of 2 frames do not lie on the grid and are left out: frame 2 (far.fits)",
        "0.fits far.fits": "degrees from their middle, the farthest",
        "0.fits coarse.fits": "coarse.fits has pixels of 1.3e+03 arcsec and 0.fits has pixels of 3.6 arcsec",
    }.items():
        result = call(f"{words} -o out.fits --dry-run")
        assert result.exit_code == 0, result.output
        assert said in result.output, result.output


def test_frames_without_a_good_pixel(frames: Path) -> None:
    """One of several is named; if all are, the command says so and ends with status 3."""
    one = call("nan.fits 0.fits 1.fits -o out.fits")
    assert (one.exit_code, "nan.fits: all of the 1200 pixels" in one.output) == (0, True), one.output
    assert np.isfinite(fits.getdata("out.fits")).any()
    for options in ("", " --reject none"):
        every = call(f"nan.fits -o all.fits --overwrite{options}")
        assert every.exit_code == 3, every.output
        assert "all.fits has no pixel that is not NaN" in every.output


@pytest.mark.parametrize("kind", ["uint16", "scaled", "plane", "extensions", "tiles", "gzip"])
def test_files_of_other_kinds(frames: Path, kind: str) -> None:
    """Unsigned and scaled integers, a cube of one plane, extensions, compressed files: the same sky."""
    whole = np.rint(pixels())
    path = frames / {"tiles": "a.fits.fz", "gzip": "a.fits.gz"}.get(kind, "a.fits")
    hdus: list[Any] = [fits.PrimaryHDU(whole.astype("u2"), header())]
    if kind == "scaled":
        hdus = [fits.PrimaryHDU(whole.copy(), header())]
        hdus[0].scale("int16", bscale=0.5, bzero=10)
    elif kind == "plane":
        hdus = [fits.PrimaryHDU(whole[None], header())]
    elif kind == "extensions":
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(whole, header()), fits.ImageHDU(whole, header())]
    elif kind == "tiles":
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(whole.astype("i4"), header())]
    fits.HDUList(hdus).writeto(path)
    result = call(f"{path.name} -o out.fits")
    assert result.exit_code == 0, result.output
    assert f"average of {2 if kind == 'extensions' else 1} frames" in result.output
    np.testing.assert_allclose(fits.getdata("out.fits").squeeze(), whole, atol=1e-4)
