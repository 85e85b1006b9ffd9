"""The command line, as a user types it."""

from __future__ import annotations

import os
import re
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from click.testing import CliRunner, Result

import lazyccd
from lazyccd.cli.common import as_options
from lazyccd.cli.main import main
from lazyccd.testing import Detector, Sky, make_night

PICTURE = Path("picture.fits")
"""Tests write this file in their folder."""


def call(*words: str) -> Result:
    """Run ``lazyccd`` with some words."""
    return CliRunner().invoke(main, list(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a very small night."""
    target = tmp_path_factory.mktemp("raw")
    detector = Detector((128, 160), name="CLICAM")
    return make_night(target, detector, Sky(stars=5, galaxies=1), biases=3, darks=2, flats=3, lights=2).folder


@pytest.fixture(scope="module")
def reduced(folder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Reduce the night by threads; return the folder of the products, and the output."""
    out = tmp_path_factory.mktemp("reduced") / "out"
    result = call("reduce", folder, "-o", str(out))
    assert result.exit_code == 0, result.output
    return out, result.output


@pytest.fixture(scope="module")
def with_rays(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reduce the night without removing cosmic rays, and return the folder of the products."""
    out = tmp_path_factory.mktemp("with_rays") / "out"
    result = call("reduce", folder, "-o", str(out), "--cosmic-rays", "none")
    assert result.exit_code == 0, result.output
    return out


def test_reduce_prints_a_table_and_leaves_products(reduced: tuple[Path, str]) -> None:
    """Reducing a night gives products, pictures, masters and exit status 0."""
    out, output = reduced
    assert "2 DONE" in output
    products = sorted(path.name for path in out.glob("*.fits"))
    assert len(products) == 2
    assert all(name.endswith("_red.fits") for name in products)
    # each product and master has one, each exposure also one of the raw frame, for the report
    pictures = [path.stem for path in (out / "pictures").glob("*.png")]
    assert sorted(name for name in pictures if name.endswith("_raw")) == ["light009_raw", "light010_raw"]
    assert len(pictures) == 5 + 2
    assert len(list((out / "masters").glob("*.fits"))) == 3


def test_ctrl_c_says_how_to_go_on(folder: str, reduced: tuple[Path, str], tmp_path: Path) -> None:
    """Ctrl-C ends with 130 when the first master is there; the same command then gives the same bytes."""
    out, ended = tmp_path / "out", threading.Event()

    def press() -> None:
        while not ended.wait(0.005):
            if list((out / "masters").glob("*.fits")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=press)
    # A shell lets what it starts in the background ignore Ctrl-C, and Python then does not answer it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        stopped = call("reduce", folder, "-o", str(out))
        ended.set()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.exit_code == 130, stopped.output
    assert re.search(r"Stopped with \d of 5 products settled. To go on, run the same command again.", stopped.output)
    assert len(list(out.glob("*_red.fits"))) < 2
    assert call("reduce", folder, "-o", str(out)).exit_code == 0
    for path in reduced[0].rglob("*.fits"):
        assert (out / path.relative_to(reduced[0])).read_bytes() == path.read_bytes()


def test_dry_run_changes_nothing_and_its_table_runs(folder: str, tmp_path: Path) -> None:
    """A dry run saves the plan as a table, which can be reduced."""
    table = tmp_path / "night.ecsv"
    result = call("reduce", folder, "--dry-run", "--save", str(table))
    assert result.exit_code == 0, result.output
    assert "Masters to make" in result.output
    result = call("reduce", str(table), "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output


def test_masters_of_one_run_serve_the_next(folder: str, with_rays: Path, tmp_path: Path) -> None:
    """Written masters give the same pixels, whether named by their folder or one by one."""
    leave = ("--cosmic-rays", "none")
    masters = with_rays / "masters"
    lights = sorted(str(path) for path in Path(folder).glob("light*.fits"))
    named = [word for kind in ("bias", "dark", "flat") for word in (f"--{kind}", str(next(masters.glob(f"{kind}*"))))]
    for out, words in (("b", ["--calib", str(masters)]), ("c", named)):
        result = call("reduce", *lights, "-o", str(tmp_path / out), *words, *leave)
        assert result.exit_code == 0, result.output
        for path in with_rays.glob("*.fits"):
            np.testing.assert_array_equal(fits.getdata(path), fits.getdata(tmp_path / out / path.name))
    result = call("reduce", *lights, "-o", str(tmp_path / "d"), *named, "--overscan", "none")
    assert result.exit_code == 2
    assert "it is overscan-subtracted and the frame will not be" in " ".join(result.output.split())


def test_overrides(folder: str, with_rays: Path, tmp_path: Path) -> None:
    """Overrides change the pixels and the header of the product."""
    bad = np.zeros((128, 160), np.uint8)
    bad[:, 7] = 1
    fits.PrimaryHDU(bad).writeto(tmp_path / "bpm.fits")
    words = ("--gain", "2", "--readnoise", "9.5", "--saturate", "30000", "--trim", "[1:100,11:128]")
    result = call("reduce", folder, "-o", str(tmp_path / "b"), "--cosmic-rays", "none", *words)
    assert result.exit_code == 0, result.output
    name = next((tmp_path / "b").glob("*_red.fits")).name
    with fits.open(with_rays / name) as one, fits.open(tmp_path / "b" / name) as other:
        header = other[0].header
        assert other[0].data.shape == (118, 100)
        assert (header["RDNOISE"], header["GAIN"], header["DATASEC"]) == (9.5, 1.0, "[1:100,1:118]")
        assert "fits_section=[1:100,11:128]" in header["TRIMIM"]
        assert header["SUBOSCAN"].startswith("ccd=<CCDData>, fits_section=[16")
        assert "constant 100" in str(header["HISTORY"]).replace("\n", "")
        good = (one["DQ"].data[10:, :100] == 0) & (other["DQ"].data == 0)
        ratio = other[0].data[good] / one[0].data[10:, :100][good]
        assert np.median(ratio) == pytest.approx(2 / 1.6, rel=0.01)
        raw = fits.getdata(Path(folder) / name.replace("_red", ""))[10:128, :100]
        assert np.array_equal(other["DQ"].data & 2 != 0, raw >= 30000)
    result = call(
        "reduce", folder, "-o", str(tmp_path / "c"), "--cosmic-rays", "none", "--bpm", str(tmp_path / "bpm.fits")
    )
    assert result.exit_code == 0, result.output
    assert (fits.getdata(tmp_path / "c" / name, "DQ")[:, 7] & 1).all()


@pytest.mark.parametrize("scheduler", ["processes", pytest.param("sync", marks=pytest.mark.slow)])
def test_schedulers(folder: str, reduced: tuple[Path, str], tmp_path: Path, scheduler: str) -> None:
    """Any scheduler gives the bytes of threads, the default."""
    result = call("reduce", folder, "-o", str(tmp_path / "b"), "--scheduler", scheduler)
    assert result.exit_code == 0, result.output
    for path in reduced[0].glob("*.fits"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_is_missing_has_its_exit_status(folder: str, tmp_path: Path) -> None:
    """Without flats the exit status is 3, or 0 with --allow-missing."""
    *calibrations, _, light = sorted(str(path) for path in Path(folder).glob("*.fits") if "flat" not in path.name)
    words = ("reduce", *calibrations, light, "--cosmic-rays", "none", "-o")
    assert call(*words, str(tmp_path / "a")).exit_code == 3
    assert call(*words, str(tmp_path / "b"), "--allow-missing", "flat").exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("reduce", "no_such_folder", "-o", "out"), "no_such_folder"),
        (("reduce", ".", "-o", "out", "--scheduler", "gpu"), "threads"),
        (("info", "no_such_file.fits"), "no_such_file.fits"),
        (("show", "no_such_file.fits"), "no_such_file.fits"),
        (("reduce", ".", "-o", "out", "--memory-limit", "much"), "2GB"),
        (("demo", "out", "--scheduler", "tcp://127.0.0.1:1"), "no scheduler answers at 'tcp://127.0.0.1:1'"),
        (("show", str(PICTURE), "-o", "/proc/nowhere/a.png"), "/proc/nowhere/a.png"),
    ],
)
def test_usage_errors(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    """A wrong command ends with status 2 and says why, without a traceback."""
    fits.PrimaryHDU(np.ones((8, 8), np.float32)).writeto(tmp_path / PICTURE)
    words = tuple(str(tmp_path / word) if word == str(PICTURE) else word for word in words)
    with dask.config.set({"distributed.comm.timeouts.connect": "200ms"}):
        result = call(
            *(str(tmp_path) if word == "." else str(tmp_path / word) if word == "out" else word for word in words)
        )
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_an_output_folder_is_asked_for(folder: str) -> None:
    """Without -o nothing is reduced."""
    result = call("reduce", folder)
    assert result.exit_code == 2
    assert "-o OUT" in result.output


def test_info_and_show(folder: str, tmp_path: Path) -> None:
    """`info` describes a file, `show` draws it."""
    path = str(next(Path(folder).glob("light*.fits")))
    result = call("info", path)
    assert result.exit_code == 0, result.output
    assert "128 rows" in result.output
    result = call("show", path, "-o", str(tmp_path / "a.png"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_damaged_files_are_listed(folder: str, tmp_path: Path) -> None:
    """A file that is not FITS is skipped with a reason and changes the exit status."""
    for path in Path(folder).glob("*.fits"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "text.fits").write_text("not FITS at all")
    result = call("reduce", str(tmp_path), "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "text.fits" in result.output
    assert len(list((tmp_path / "out").glob("*_red.fits"))) == 2
    assert fits.getheader(next((tmp_path / "out").glob("*_red.fits")))["NAXIS1"] == 160


def test_combine(tmp_path: Path, rng: np.random.Generator) -> None:
    """Files are combined with the options of `lazyccd.combine`, and the steps are printed."""
    values = rng.normal(100, 1, (6, 12, 15)).astype(np.float32)
    values[2, 3, 4] = 900
    for i, plane in enumerate(values):
        fits.PrimaryHDU(plane, fits.Header({"BUNIT": "adu", "RDNOISE": 1.0})).writeto(tmp_path / f"{i}.fits")
    out = tmp_path / "out.fits"
    words = ("combine", str(tmp_path / "[0-9].fits"), "-o", str(out), "--reject", "ccdclip", "--readnoise", "RDNOISE")
    result = call(*words, "--gain", "1e6", "--snoise", "0.01", "--low", "0", "--map", "n_rejected", "--scale", "median")
    assert result.exit_code == 0, result.output
    assert "average of 6 frames, 12 rows, 15 columns" in result.output
    assert "rejected: ccdclip high=3\n" in result.output
    with fits.open(out) as hdus:
        assert hdus["N_REJECTED"].data[3, 4] == 1
        assert abs(hdus[0].data[3, 4] - 100) < 3
    again = call(*words)
    assert again.exit_code == 2
    assert "exists; pass --overwrite" in again.output


def test_coadd(tmp_path: Path, rng: np.random.Generator) -> None:
    """Files lie on one grid of the sky; the command says what it does, and writes stores with levels and a picture, or FITS."""
    for i in range(5):
        wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -1e-3, "CDELT2": 1e-3, "CRPIX1": 20.0 - 4 * i})
        header = wcs.to_header()
        header["BUNIT"] = "adu"
        fits.PrimaryHDU(rng.normal(0, 1, (30, 40)).astype(np.float32), header).writeto(tmp_path / f"{i}.fits")
    out = tmp_path / "sky.zarr"
    words = ("coadd", str(tmp_path / "[0-9].fits"), "-o", str(out))
    dry = call(*words, "--dry-run", "--order", "bilinear")
    assert dry.exit_code == 0, dry.output
    assert "average of 5 frames, 30 rows, 56 columns of 3.6 arcsec, bilinear" in dry.output
    assert "largest chunk" in dry.output
    assert not out.exists()
    result = call(*words, "--map", "coverage", "--pyramid", "--preview", str(tmp_path / "sky.png"))
    assert result.exit_code == 0, result.output
    mosaic = lazyccd.open_zarr(out)
    assert mosaic["coverage"].values.max() == 5
    assert (tmp_path / "sky.png").stat().st_size > 5000
    again = call(*words)
    assert again.exit_code == 2
    assert "exists; pass --overwrite" in again.output
    like = call(
        "coadd", str(tmp_path / "0.fits"), "-o", str(tmp_path / "like.fits"), "--like", str(tmp_path / "2.fits")
    )
    assert like.exit_code == 0, like.output
    data = fits.getdata(tmp_path / "like.fits")
    np.testing.assert_array_equal(data[:, 0:32], fits.getdata(tmp_path / "0.fits")[:, 8:])
    assert np.isnan(data[:, 32:]).all()
    matched = call(*words, "--overwrite", "--sky", "constant", "--match", "constant")
    assert matched.exit_code == 0, matched.output
    assert abs(np.nanmedian(lazyccd.open_zarr(out)["data"].values)) < 0.2
    both = call(*words, "--like", str(tmp_path / "0.fits"), "--pixel-scale", "1")
    assert both.exit_code == 2
    assert "--like gives the whole grid" in both.output
    for_fits = call("coadd", str(tmp_path / "0.fits"), "-o", str(tmp_path / "x.fits"), "--pyramid")
    assert (for_fits.exit_code, "--pyramid is for stores" in for_fits.output) == (2, True)
    unknown = call(*words[:3], str(tmp_path / "sky.txt"))
    assert (unknown.exit_code, "does not tell the format" in unknown.output) == (2, True)


def test_combine_with_offsets(tmp_path: Path, rng: np.random.Generator) -> None:
    """Offsets come from a file, in x and y as IRAF has them, or are measured, which is printed in this form."""
    sky = rng.normal(0, 1, (80, 90)).astype(np.float32)
    for y, x in rng.integers(0, 80, (25, 2)):
        sky[y : y + 2, x : x + 2] += 50
    for i, (y, x) in enumerate([(10, 10), (4, 13)]):
        fits.PrimaryHDU(sky[y : y + 60, x : x + 70], fits.Header({"BUNIT": "adu"})).writeto(tmp_path / f"{i}.fits")
    (tmp_path / "shifts.txt").write_text("0 0\n3 -6\n")
    pixels = []
    for how in (str(tmp_path / "shifts.txt"), "register"):
        out = tmp_path / f"out{len(pixels)}.fits"
        result = call("combine", str(tmp_path / "[01].fits"), "-o", str(out), "--offsets", how)
        assert result.exit_code == 0, result.output
        pixels.append(fits.getdata(out))
    assert pixels[0].shape == (66, 73)
    np.testing.assert_array_equal(*pixels)
    lines = [line for line in result.output.splitlines() if "  # " in line]
    assert [line.partition("#")[0].split() for line in lines] == [["0", "0"], ["3", "-6"]]
    assert [line.endswith(f"{i}.fits") for i, line in enumerate(lines)] == [True, True]
    # What is printed is a file of offsets.
    (tmp_path / "printed.txt").write_text("\n".join(lines))
    again = str(tmp_path / "again.fits")
    result = call("combine", str(tmp_path / "[01].fits"), "-o", again, "--offsets", str(tmp_path / "printed.txt"))
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(fits.getdata(again), pixels[0])
    result = call("combine", str(tmp_path / "[01].fits"), "-o", str(tmp_path / "x.fits"), "--offsets", "nowhere.txt")
    assert result.exit_code == 2
    assert "--offsets nowhere.txt cannot be read" in result.output
    assert not (tmp_path / "x.fits").exists()


@pytest.mark.filterwarnings("always::lazyccd.rejection.UselessRejectionWarning")
def test_combine_says_what_it_did(tmp_path: Path) -> None:
    """A warning is one line without code; an existing file is refused with the option that replaces it."""
    for i in range(3):
        fits.PrimaryHDU(np.full((5, 6), float(i), np.float32), fits.Header({"BUNIT": "adu"})).writeto(
            tmp_path / f"{i}.fits"
        )
    words = ("combine", str(tmp_path / "[0-2].fits"), "-o", str(tmp_path / "out.fits"), "--reject", "sigclip")
    result = call(*words)
    assert result.exit_code == 0
    assert "Warning: rejection 'sigclip' rejects nothing: no value of 3 can be 3 standard" in result.output
    assert ".py" not in result.output
    assert "rejected: sigclip low=3 high=3 center=median deviation=std\n" in result.output
    result = call(*words)
    assert result.exit_code == 2
    assert "out.fits exists; pass --overwrite" in result.output


def test_info_of_a_camera(tmp_path: Path) -> None:
    """`info` lists sections and planes of each frame and other HDUs, and draws the layout as text and as a picture."""
    header = {"DATASEC": "[1:4,1:4]", "BIASSEC": "[5:6,1:4]", "GAIN": 1.5}
    places = ("[1:4,1:4]", "[8:5,1:4]")
    hdus = [
        fits.ImageHDU(np.zeros((4, 6), np.uint16), fits.Header({**header, "DETSEC": place}), name="SCI", ver=i + 1)
        for i, place in enumerate(places)
    ]
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(3.0))], name="CAT")
    fits.HDUList([fits.PrimaryHDU(), *hdus, table]).writeto(tmp_path / "a.fits")
    result = CliRunner().invoke(main, ["info", str(tmp_path / "a.fits"), "--picture", str(tmp_path / "a.png")])
    assert result.exit_code == 0, result.output
    for text in ("SCI_2", "4 x 6", "[5:6,1:4]", "kept as they are: CAT (table)", "by DETSEC, [1:8,1:4]"):
        assert text in result.output
    rows = [line for line in result.output.splitlines() if line.startswith("|")]
    assert rows[-1].index("o") == 1
    assert rows[-1].rindex("o") == len(rows[-1]) - 2
    assert (tmp_path / "a.png").stat().st_size > 2000
    stored = lazyccd.to_zarr(lazyccd.open_mef(tmp_path / "a.fits"), tmp_path / "a.zarr")
    assert "SCI_1" in CliRunner().invoke(main, ["info", str(stored)]).output


def test_info_of_a_cube(tmp_path: Path) -> None:
    """`info` describes a file whose only image cannot be a frame, with the reason that other commands give."""
    fits.PrimaryHDU(np.zeros((4, 8, 9), np.float32)).writeto(tmp_path / "a.fits")
    result = CliRunner().invoke(main, ["info", str(tmp_path / "a.fits")])
    assert result.exit_code == 0, result.output
    assert "NAXIS = 3, shape (4, 8, 9), and must have two axes" in result.output
    assert "no image that is a frame" in result.output


def test_info_of_one_image_among_others(tmp_path: Path) -> None:
    """A SAMP extension is not a frame; long names are printed whole."""
    name = "observation_of_a_field_with_a_long_name_" * 3
    names = ("SCI", "SAMP", "TIME")
    hdus = [fits.ImageHDU(np.zeros((4, 6), np.int16), name=each) for each in names]
    path = tmp_path / f"{name}.fits"
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    result = CliRunner().invoke(main, ["info", str(path)])
    assert result.exit_code == 0, result.output
    assert str(path) in result.output
    assert "frame of 4 rows and 6 columns" in result.output
    refused = CliRunner().invoke(main, ["info", str(path), "--picture", str(tmp_path / "a.png")])
    assert refused.exit_code == 2
    assert "lazyccd show" in refused.output


@pytest.fixture
def exposures(tmp_path: Path) -> list[str]:
    """Write three exposures of two amplifiers, each named SCI."""
    rng = np.random.default_rng(3)
    paths = []
    for i in range(3):
        primary = fits.PrimaryHDU(header=fits.Header({"EXPTIME": 10.0 + i}))
        cards = fits.Header({"BUNIT": "adu", "GAIN": 1.5})
        images = [
            fits.ImageHDU(rng.normal(100 * v, 3, (20, 24)).astype("f4"), cards, name="SCI", ver=v) for v in (1, 2)
        ]
        paths.append(str(tmp_path / f"e{i}.fits"))
        fits.HDUList([primary, *images]).writeto(paths[-1])
    return paths


def test_exposures_of_several_images_are_combined(exposures: list[str], tmp_path: Path) -> None:
    """Images of the same name are combined; --hdu combines one of them, to the same pixels."""
    result = call("combine", *exposures, "-o", str(tmp_path / "all.fits"), "--method", "median", "--zero", "median")
    assert result.exit_code == 0, result.output
    assert "all.fits[SCI_2]: median of 3 frames, 20 rows, 24 columns" in result.output
    assert (
        call(
            "combine",
            *exposures,
            "-o",
            str(tmp_path / "2.fits"),
            "--hdu",
            "SCI,2",
            "--method",
            "median",
            "--zero",
            "median",
        ).exit_code
        == 0
    )
    with fits.open(tmp_path / "all.fits") as file, fits.open(tmp_path / "2.fits") as alone:
        assert [hdu.name for hdu in file if hdu.name not in {"DQ", "MASK", "UNCERT"}] == ["PRIMARY", "SCI", "SCI"]
        assert file[0].header["EXPTIME"] == 11
        np.testing.assert_array_equal(file["SCI", 2].data, alone[0].data)
    assert call("combine", *exposures, "-o", str(tmp_path / "moved.zarr"), "--offsets", "register").exit_code == 0


def test_show_draws_all_images(exposures: list[str], tmp_path: Path) -> None:
    """`show` draws several images into one picture."""
    result = call("show", exposures[0], "-o", str(tmp_path / "e.png"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "e.png").stat().st_size > 5000


def test_one_frame_of_a_store_opens_alone(exposures: list[str], tmp_path: Path) -> None:
    """STORE/NAME opens one frame of a store, in the library and on the command line; a wrong name lists the right ones."""
    tree = lazyccd.open_mef(exposures[0])
    store = lazyccd.to_zarr(tree, tmp_path / "e.zarr")
    for name, frame in tree.ccd.frames.items():
        np.testing.assert_array_equal(lazyccd.open_zarr(f"{store}/{name}")["data"].values, frame["data"].values)
        np.testing.assert_array_equal(lazyccd.as_frame(f"{store}/{name}/")["data"].values, frame["data"].values)
    with pytest.raises(lazyccd.errors.FormatError, match=r"has no group 'SCI_9'; its groups are \['SCI_1', 'SCI_2', "):
        lazyccd.open_zarr(f"{store}/SCI_9")
    assert "frame of 20 rows and 24 columns" in call("info", f"{store}/SCI_2").output
    assert call("show", f"{store}/SCI_2", "-o", str(tmp_path / "e.png")).exit_code == 0
    assert "SCI_1" in call("info", str(store)).output


def test_names_of_products_that_are_none(exposures: list[str], tmp_path: Path) -> None:
    """Empty names and names of the wrong type are refused by every writer."""
    tree = lazyccd.open_mef(exposures[0])
    for write in (lazyccd.to_fits, lazyccd.to_zarr, lambda t, path: lazyccd.combine([t, t], path)):
        with pytest.raises(lazyccd.errors.ParameterError, match="the name of the file is '' and must not be empty"):
            write(tree, "")
        with pytest.raises(lazyccd.errors.ArgumentTypeError, match=r"file name b'a\.fits' is a bytes"):
            write(tree, b"a.fits")


def test_info_names_files_beside_and_keeps_names_readable(tmp_path: Path) -> None:
    """`info` names companion files; long names in the layout lose their common beginning."""
    cards = {"PROCTYPE": "InstCal", "INSTRUME": "DECam", "PLVER": "V4.8"}
    for part, kind in (("ooi", "f4"), ("oow", "f4"), ("ood", "i4")):
        primary = fits.PrimaryHDU(header=fits.Header(cards))
        fits.HDUList([primary, fits.ImageHDU(np.ones((4, 5), kind), name="S4")]).writeto(
            tmp_path / f"c4d_{part}_z.fits"
        )
    words = call("info", str(tmp_path / "c4d_ooi_z.fits")).output
    assert "beside it: c4d_oow_z.fits, which open_mef takes as uncertainty" in words
    assert "beside it: c4d_ood_z.fits, which open_mef takes as mask" in words
    images = [
        fits.ImageHDU(
            np.ones((4, 5), "f4"), fits.Header({"DETSEC": f"[{5 * i + 1}:{5 * i + 5},1:4]"}), name=f"SEGMENT{i:02d}"
        )
        for i in range(10)
    ]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "m.fits")
    line = next(
        line
        for line in call("info", str(tmp_path / "m.fits")).output.splitlines()
        if line.startswith("|") and "4" in line
    )
    assert line.replace("|", " ").split() == [str(i) for i in range(10)]


SCAMP = {"PV1_0": 0.0, "PV1_1": 1.0, "PV1_7": 30.0, "PV2_0": 0.0, "PV2_1": 1.0, "PV2_7": -20.0}
POLYNOMIALS = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": -2e-5}
SKIES: dict[str, dict[str, Any]] = {
    "TAN": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
    "SIP": {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", **POLYNOMIALS},
    "TPV": {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", **SCAMP},
    "PV of SCAMP": {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", **SCAMP},
    "SIP and PV": {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", **POLYNOMIALS, **SCAMP},
    "TPV and SIP": {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", **POLYNOMIALS, **SCAMP},
    "ZPN": {"CTYPE1": "RA---ZPN", "CTYPE2": "DEC--ZPN", "PV2_1": 1.0, "PV2_3": 40.0},
    "galactic": {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
}


@pytest.mark.parametrize("sky", SKIES)
@pytest.mark.parametrize("axes", [2, 3])
def test_info_says_where_the_centre_is(sky: str, axes: int, tmp_path: Path) -> None:
    """It is where astropy has it, with PV, with SIP and with both, also of a cube of one plane."""
    cards = {"BUNIT": "adu", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 4.0, "CRPIX2": 90.0, **SKIES[sky]}
    cards |= {"CD1_1": -1e-3, "CD1_2": 1e-4, "CD2_1": 2e-4, "CD2_2": 1e-3}
    if axes == 3:
        cards |= {"CTYPE3": "LINEAR", "CRPIX3": 1.0, "CRVAL3": 5.0, "CD3_3": 1.0}
    fits.PrimaryHDU(np.zeros((1, 60, 81)[3 - axes :], np.int16), fits.Header(cards)).writeto(tmp_path / "a.fits")
    result = call("info", str(tmp_path / "a.fits"))
    assert result.exit_code == 0, result.output
    found = re.search(r"the centre is at (\S+) (\S+) deg", " ".join(result.output.split()))
    assert found, result.output
    plane = {key: value for key, value in cards.items() if "3" not in key.removeprefix("PV2_3")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        expected = WCS(fits.Header(plane | ({"PV2_3": cards["PV2_3"]} if sky == "ZPN" else {}))).all_pix2world(
            40, 29.5, 0
        )
    np.testing.assert_allclose([float(found[1]), float(found[2])], np.array(expected), atol=6e-6)


def test_info_says_why_there_is_no_centre(tmp_path: Path) -> None:
    """A WCS that cannot be read does not keep the file from being described."""
    cards = {"BUNIT": "adu", "CTYPE1": "RA---TAN", "CTYPE2": "RA---TAN"}
    fits.PrimaryHDU(np.zeros((6, 8), np.int16), fits.Header(cards)).writeto(tmp_path / "a.fits")
    result = call("info", str(tmp_path / "a.fits"))
    assert result.exit_code == 0, result.output
    assert "sky coordinates: the WCS of the frame cannot be read" in " ".join(result.output.split())
    assert "6 rows and 8 columns" in result.output


def steering(folder: Path) -> Path:
    """Write a frame whose file name has escape codes and whose header has the markup of rich, and return its folder."""
    folder.mkdir()
    markup = "[link=http:x]a[/link]"
    header = fits.Header({"IMAGETYP": "light", "EXPTIME": 1.0, "OBJECT": markup, "GAIN": 1.0, "RDNOISE": 5.0})
    image = fits.ImageHDU(np.ones((8, 10), np.uint16), header, name=markup)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(folder / "a\x1b[31m\x1b]8;;b :smile:[.fits")
    return folder


@pytest.mark.parametrize(
    "words",
    [("info",), ("info", "{}"), ("info", "--header", "{}"), ("reduce", "--dry-run"), ("recipe",), ("show", "{}[9]")],
)
def test_nothing_steers_the_terminal(words: tuple[str, ...], tmp_path: Path) -> None:
    """Names and headers reach the terminal as they are: escape codes are shown, markup is not followed, and no smile appears."""
    folder = steering(tmp_path / "night")
    file = str(next(folder.iterdir()))
    given = [word.format(file) for word in words]
    given += [] if any("{}" in word for word in words) else [str(folder)]
    # with color=True, click passes escape codes on, as it does in a terminal
    result = CliRunner().invoke(main, given, color=True)
    assert result.exit_code in {0, 1, 2, 3}, result.exception
    text = "".join(result.output.split())
    assert "\x1b" not in result.output
    assert r"a\x1b[31m\x1b]8;;b" in text or "[LINK" in text.upper() or words == ("recipe",)
    assert ":smile:" in text.lower() or words == ("recipe",)


def test_info_of_a_folder(folder: str, tmp_path: Path) -> None:
    """`info FOLDER` has a row for each file; of thousands, one for those that are alike."""
    rows = call("info", folder).output.splitlines()
    assert any(re.search(r"flat006\.fits\W+flat\W+R\W+5\W+128 x 192\W", row) for row in rows), rows
    source = next(Path(folder).glob("light*.fits")).read_bytes()
    for number in range(150):
        # the last byte makes them frames of their own
        (tmp_path / f"a{number:03}.fits").write_bytes(source[:-1] + bytes([number]))
    output = call("info", str(tmp_path)).output
    assert len(output.splitlines()) < 12
    assert "150: a000.fits" in output


def test_info_prints_headers(folder: str, tmp_path: Path) -> None:
    """`info --header` prints all cards as they are in the file, of all HDUs or of the one that is named."""
    path = next(Path(folder).glob("light*.fits"))
    lines = call("info", "--header", str(path)).output.splitlines()
    cards = [str(card).rstrip() for card in fits.getheader(path).cards]
    assert lines == [f"# {path}[0]", *cards]
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(name="T"), fits.ImageHDU(np.ones((2, 2)), name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    named = call("info", "--header", f"{tmp_path}/a.fits[T]").output
    assert "TTYPE" not in named
    assert "XTENSION= 'BINTABLE'" in named
    assert "SCI" not in named
    assert [line for line in call("info", "--header", f"{tmp_path}/a.fits").output.splitlines() if line[0] == "#"] == [
        f"# {tmp_path}/a.fits{label}" for label in ("[0]", "[T,1]", "[SCI,1]")
    ]


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("combine", "a.fits exists; pass overwrite=True", "a.fits exists; pass --overwrite"),
        (
            "reduce",
            "pass break_lock=True, or repeat the previous call",
            "pass --break-lock, or repeat the previous command",
        ),
        ("combine", "give unit=, such as unit='adu'", "give --unit, such as --unit 'adu'"),
        ("info", "give unit=, such as unit='adu'", "give unit=, such as unit='adu'"),
        ("reduce", "or raise lazyccd.memory-limit.", "or raise --memory-limit."),
        (
            "reduce",
            "use smaller chunks, as ds.ccd.rechunk(n) makes, or raise",
            "use smaller chunks by --chunks or raise",
        ),
        ("combine", "use smaller chunks, as ds.ccd.rechunk(n) makes, or raise", "use smaller chunks or raise"),
        ("show", "mend its cards with ds.ccd.with_header().", "mend its cards."),
        ("show", "out with ds.ccd.with_header({'A': f(1)}).", "out."),
        (
            "combine",
            "4 of 5 regions are kept; the same call resumes",
            "4 of 5 regions are kept; the same command resumes",
        ),
        ("reduce", "GAIN=1.5 and no_option=True stay", "GAIN=1.5 and no_option=True stay"),
        ("coadd", "pixel_scale <Quantity 2. arcsec> must", "--pixel-scale 2. must"),
        ("coadd", "give another pixel_scale, or", "give another --pixel-scale, or"),
        ("coadd", "weights 'FOO' must be", "--weights 'FOO' must be"),
        ("coadd", "no uncertainty for maps='coverage'", "no uncertainty for --map 'coverage'"),
        ("coadd", "leave out wcs= for another", "leave out --like for another"),
        ("coadd", "unit (BUNIT in the header, or ds.ccd.with_unit())", "unit (BUNIT in the header)"),
        ("coadd", "a.fits/flux_scale 3, sky of", "a.fits/flux_scale 3, sky of"),
    ],
)
def test_messages_name_options(command: str, message: str, said: str) -> None:
    """A message of the library names the options of the command that is run instead of arguments of Python."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    with click.Context(found):
        assert as_options(message) == said
