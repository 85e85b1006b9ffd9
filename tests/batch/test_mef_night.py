"""A night of multi-extension files, from raw frames to one product per exposure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from click.testing import CliRunner

import lazyccd
from lazyccd.batch.collect import collect
from lazyccd.batch.exposures import as_exposure, assemble_amplifiers, exposures
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.table import load_table
from lazyccd.cli.main import main
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.testing.simulate import Detector, make_night

SHAPE = (72, 80)
GAINS = (1.6, 2.4)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a night of a detector with two amplifiers of different gains, a table in each file."""
    folder = tmp_path_factory.mktemp("night")
    amplifiers = [
        Detector(SHAPE, gain_e_per_adu=gain, seed=i, bad_fraction=0, cosmic_rays_per_s=0, vignetting=0)
        for i, gain in enumerate(GAINS)
    ]
    counts = {"biases": 4, "darks": 2, "flats": 3, "lights": 2}
    nights = [make_night(folder / f"amp{i}", detector, **counts) for i, detector in enumerate(amplifiers)]
    raw = folder / "raw"
    raw.mkdir()
    for paths in zip(*(one.paths for one in nights), strict=True):
        primary = fits.PrimaryHDU(header=fits.getheader(paths[0]))
        for key in ("GAIN", "RDNOISE", "BIASSEC", "DATASEC", "TRIMSEC", "BSCALE", "BZERO"):
            primary.header.remove(key, ignore_missing=True)
        hdus: list[fits.ImageHDU] = []
        for i, path in enumerate(paths):
            with fits.open(path) as file:
                cards = {
                    k: v for k, v in file[0].header.items() if k in {"GAIN", "RDNOISE", "BIASSEC", "DATASEC", "TRIMSEC"}
                }
                hdus.append(fits.ImageHDU(file[0].data, fits.Header(cards), name="SCI", ver=i + 1))
            ny, nx = SHAPE
            hdus[-1].header["DETSEC"] = (f"[1:{nx},1:{ny}]", f"[{2 * nx}:{nx + 1},1:{ny}]")[i]
        table = fits.BinTableHDU.from_columns([fits.Column("t", "E", array=np.arange(3.0))], name="GUIDE")
        fits.HDUList([primary, *hdus, table]).writeto(raw / Path(paths[0]).name)
    return raw


@pytest.fixture(scope="module")
def reduced(night: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Reduce the night without a search for cosmic rays; return the folder of the products, and what is printed."""
    out = tmp_path_factory.mktemp("reduced") / "out"
    words = ["reduce", str(night), "-o", str(out), "--cosmic-rays", "none"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_each_image_finds_its_own(night: Path) -> None:
    """Masters are made for each amplifier, and science frames get those of theirs."""
    plan = build_plan(collect([night]))
    assert [len(some) for some in exposures(plan.science).values()] == [2, 2]
    for frame_plan in plan.science:
        assert frame_plan.facts.gain.value == pytest.approx(GAINS[int(frame_plan.part[-1]) - 1])
        for choice in frame_plan.choices[:3]:
            assert all(member.part == frame_plan.part for member in plan.members(choice.master))
    assert plan.exit_status == 0


def test_the_plan_has_a_row_for_each_exposure(night: Path, tmp_path: Path) -> None:
    """Unless what the row says is not the same for its images; facts of some images only name these; the table keeps all."""
    folder, table = tmp_path / "raw", tmp_path / "night.ecsv"
    shutil.copytree(night, folder)
    fits.setval(folder / "light011.fits", "OBJECT", value="other field", extname="SCI", extver=2)
    result = CliRunner().invoke(
        main, ["reduce", str(folder), "--dry-run", "--save", str(table)], catch_exceptions=False
    )
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert ": 4 bias, 2 dark, 3 flat, 2 science Files " in " ".join(result.output.split())
    assert [line for line in lines if "bias001" in line] == ["1 bias001.fits, 2 images bias 0 02:00 - bias COMPLETE"]
    rows = [line for line in lines if "light011" in line]
    assert rows == [
        "11 light011.fits[SCI,1] science 120 02:11 R simulated field COMPLETE",
        "11 light011.fits[SCI,2] science 120 02:11 R other field COMPLETE",
    ]
    assert "gain 1.6 electron / adu keyword GAIN SCI,1 of 1-11" in lines
    assert "2.4 electron / adu keyword GAIN SCI,2 of 1-11" in lines
    assert "10-11 bias_2026-01-14 dark_120s_2026-01-14 flat_R_2026-01-14 COMPLETE" in lines
    assert "Why not the others" not in lines
    assert "Science frames: 2 COMPLETE. Exit status would be 0." in lines
    assert len(Table.read(table, format="ascii.ecsv")) == 22


def test_a_night_end_to_end(night: Path, reduced: tuple[Path, str]) -> None:
    """Each exposure becomes one file with its table, amplifiers put together; flats leave these their relative level."""
    out, output = reduced
    said = " ".join(output.split())
    assert "2 images are put together into 1" in said
    assert "light010.fits and 1 more: bias bias_2026-01-14: level 0, 4 frames" in said
    products = sorted(path.name for path in out.glob("*.fits"))
    assert len(products) == 2
    assert not any("SCI" in name for name in products)
    with fits.open(out / products[0]) as file, fits.open(night / products[0].replace("_red", "")) as raw:
        assert [hdu.name for hdu in file if hdu.name not in {"DQ", "MASK", "UNCERT"}] == ["PRIMARY", "SCI", "GUIDE"]
        assert file["GUIDE"].data["t"].tolist() == [0, 1, 2]
        assert file["SCI"].data.shape == (SHAPE[0], 2 * SHAPE[1])
        assert file[0].header["OBJECT"] == raw[0].header["OBJECT"]
        assert file["SCI"].header["LZSOURCE"] == products[0].replace("_red", "")
        masters = [file["SCI"].header[f"LZMAST{i}"] for i in (1, 2, 3)]
    detector = lazyccd.open_fits(out / products[0])
    halves = detector["data"].values[:, : SHAPE[1]], detector["data"].values[:, SHAPE[1] :]
    # the sky is the same for both in electrons, whatever the gains
    assert np.nanmedian(halves[0]) == pytest.approx(np.nanmedian(halves[1]), rel=0.1)
    assert detector.ccd.unit.to_string() == "electron"
    assert sorted(path.stem for path in (out / "masters").glob("*.fits")) == sorted(masters)
    for name in masters:
        with fits.open(out / "masters" / f"{name}.fits") as file:
            assert [hdu.name for hdu in file if hdu.name not in {"DQ", "MASK", "UNCERT"}] == ["PRIMARY", "SCI", "SCI"]
            assert file["SCI", 2].header["LZKIND"] == f"master {name.partition('_')[0].replace('skyflat', 'flat')}"
    # each product and master has one, each exposure also one of the raw frame, for the report
    pictures = [path.stem for path in (out / "pictures").glob("*.png")]
    assert sorted(name for name in pictures if name.endswith("_raw")) == ["light010_raw", "light011_raw"]
    assert len(pictures) == 5 + 2


def test_masters_of_one_night_serve_the_next(night: Path, reduced: tuple[Path, str], tmp_path: Path) -> None:
    """Masters of several images are found image by image, and give the same pixels; so does a night as a store."""
    first, second, third = reduced[0], tmp_path / "b", tmp_path / "c"
    leave = ["--cosmic-rays", "none"]
    lights = [str(path) for path in sorted(night.glob("light*.fits"))]
    given_ = ["--calib", str(first / "masters"), *leave]
    result = CliRunner().invoke(main, ["reduce", *lights, "-o", str(second), *given_])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["reduce", *lights, "-o", str(third), *given_, "--format", "zarr"])
    assert result.exit_code == 0, result.output
    for path in sorted(first.glob("*.fits")):
        wanted = lazyccd.open_fits(path)["data"].values
        np.testing.assert_array_equal(lazyccd.open_fits(second / path.name)["data"].values, wanted)
        store: Any = lazyccd.open_zarr(third / f"{path.stem}.zarr")
        np.testing.assert_array_equal(store["SCI"]["data"].values, wanted)


def exposure_of(*cards: dict[str, Any]) -> Any:
    """Return an exposure of images with some header cards."""
    frames = {
        f"IM{i}": lazyccd.from_ccddata(CCDData(np.full((4, 6), float(i)), unit="electron", meta=some))
        for i, some in enumerate(cards)
    }
    return make_tree(frames, {"header": "INSTRUME= 'CAM     '"})


LEFT, RIGHT = "[1:6,1:4]", "[12:7,1:4]"


@pytest.mark.parametrize(
    ("cards", "shapes", "text"),
    [
        ([{"DETSEC": LEFT}, {"DETSEC": RIGHT}], {"SCI": (4, 12)}, "2 images are put together into 1"),
        (
            [{"CCDSEC": LEFT, "DETSEC": "[1:6,1:4]"}, {"CCDSEC": RIGHT, "DETSEC": "[21:26,1:4]"}],
            {"SCI": (4, 12)},
            "2 images are put together into 1",
        ),
        (
            [{"CCDSEC": LEFT, "DETSEC": "[1:6,1:4]"}, {"CCDSEC": LEFT, "DETSEC": RIGHT}],
            {"IM0": (4, 6), "IM1": (4, 6)},
            "2 images are left apart: their CCDSEC overlap, so each is a detector of its own",
        ),
        (
            [{"CCDNAME": n, "DETSEC": s, "DETSIZE": "[1:12,1:4]"} for n in "ab" for s in (LEFT, RIGHT)],
            {"a": (4, 12), "b": (4, 12)},
            "4 images are put together into 2",
        ),
        ([{"CCDNAME": "a", "DETSEC": LEFT}, {"CCDNAME": "b", "DETSEC": RIGHT}], {"IM0": (4, 6), "IM1": (4, 6)}, ""),
        ([{"DETSEC": LEFT}, {}], {"IM0": (4, 6), "IM1": (4, 6)}, "no CCDSEC or DETSEC says where IM1 lies"),
        (
            [{"DETSEC": LEFT}, {"DETSEC": "[6:12,1:4]"}],
            {"IM0": (4, 6), "IM1": (4, 6)},
            "2 images are left apart: ",
        ),
    ],
)
def test_what_belongs_together(cards: list[dict[str, Any]], shapes: dict[str, tuple[int, int]], text: str) -> None:
    """Amplifiers of a detector are put together, detectors of a mosaic never; what does not fit is left apart and said."""
    made, words = assemble_amplifiers(exposure_of(*cards))
    assert {name: frame["data"].shape for name, frame in frames_of(made).items()} == shapes
    assert text in " ".join(words)
    assert made.attrs["header"] == "INSTRUME= 'CAM     '"


def damaged(night: Path, folder: Path) -> tuple[Path, Path]:
    """Copy a night, in which a tile of the second image of one exposure is damaged; return this and another exposure."""
    shutil.copytree(night, folder)
    first, second = sorted(folder.glob("light*.fits"))
    packed = Path(f"{first}.fz")
    lazyccd.to_fits(lazyccd.open_mef(first), packed, compress="RICE_1")
    first.unlink()
    with fits.open(packed, disable_image_compression=True) as file:
        table = file[2]
        heap = file.fileinfo(2)["datLoc"] + table.header["NAXIS1"] * table.header["NAXIS2"]
    content = bytearray(packed.read_bytes())
    content[heap : heap + 60] = b"\xff" * 60
    packed.write_bytes(content)
    return packed, second


def test_an_image_that_cannot_be_read_fails_its_exposure(
    night: Path, reduced: tuple[Path, str], tmp_path: Path
) -> None:
    """The reason names image and tile, nothing is left of the product, others are as they were; a cut file is said too."""
    folder, out = tmp_path / "raw", tmp_path / "out"
    packed, second = damaged(night, folder)
    (folder / "cut.fits").write_bytes(second.read_bytes()[:20000])
    result = CliRunner().invoke(main, ["reduce", str(folder), "-o", str(out), "--cosmic-rays", "none"])
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    # a terminal may break a long path anywhere
    assert f"{packed.name}[SCI,2]: tile 0 cannot be decompressed".replace(" ", "") in said.replace(" ", "")
    assert "skipped: cut.fits: " in said
    assert "1 FAILED, 1 DONE, 1 not usable" in said
    files = {path.name for path in out.iterdir() if path.is_file()}
    assert files == {f"{second.stem}_red.fits", "log.txt", "report.html", "results.ecsv", "run.json"}
    name = f"{second.stem}_red.fits"
    assert (out / name).read_bytes() == (reduced[0] / name).read_bytes()


def test_an_image_that_cannot_be_read_is_skipped(night: Path, reduced: tuple[Path, str], tmp_path: Path) -> None:
    """If that is asked for, the others of its exposure are reduced as ever, also of a file that is cut, and it is said."""
    folder, out, clean = tmp_path / "raw", tmp_path / "out", reduced[0]
    packed, second = damaged(night, folder)
    cut = folder / "cut.fits"
    cut.write_bytes(second.read_bytes()[:30000])
    end = folder / "end.fits"
    end.write_bytes(second.read_bytes()[:-2880])
    words = ["--on-error", "skip", "--cosmic-rays", "none"]
    result = CliRunner().invoke(main, ["reduce", str(folder), "-o", str(out), *words], catch_exceptions=False)
    said = " ".join(result.output.split())
    assert result.exit_code == 3, said
    assert "3 PARTIAL, 1 DONE, 3 not usable" in said
    for name, label, why in (
        (packed.name, "SCI,2", "tile 0 cannot be decompressed"),
        (cut.name, "SCI,2", "truncated"),
        (end.name, "GUIDE,1", "truncated"),
    ):
        assert f"{name}: PARTIAL: {name}[{label}] cannot be read" in said
        assert f"skipped: {name}[{label}]: " in said
        assert why.replace(" ", "") in said.replace(" ", "")
    assert (out / f"{second.stem}_red.fits").read_bytes() == (clean / f"{second.stem}_red.fits").read_bytes()
    for path, like in ((packed, packed.name.removesuffix(".fits.fz")), (cut, second.stem)):
        with fits.open(out / f"{path.name.partition('.')[0]}_red.fits") as file:
            images = [hdu for hdu in file if hdu.name == "SCI"]
            assert [hdu.ver for hdu in images] == [1]
            assert images[0].header["LZSTATUS"] == "PARTIAL"
            whole = fits.getdata(clean / f"{like}_red.fits", "SCI")
            np.testing.assert_array_equal(images[0].data, whole[:, : SHAPE[1]])
    with fits.open(out / "end_red.fits") as file:
        assert "GUIDE" not in file
        np.testing.assert_array_equal(file["SCI"].data, fits.getdata(clean / f"{second.stem}_red.fits", "SCI"))


def test_masters_without_some_images(night: Path, tmp_path: Path) -> None:
    """A master of exposures of which one lacks an image is PARTIAL, and says so before it is made."""
    folder = tmp_path / "raw"
    shutil.copytree(night, folder)
    cut = folder / "bias002.fits"
    cut.write_bytes(cut.read_bytes()[:30000])
    result = CliRunner().invoke(
        main, ["reduce", str(folder), "--dry-run", "--on-error", "skip"], catch_exceptions=False
    )
    assert result.exit_code == 3
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "bias_2026-01-14 1-4 overscan, trim PARTIAL" in lines
    assert "dark_120s_2026-01-14 5-6 overscan, trim, bias_2026-01-14 COMPLETE" in lines
    assert "2 PARTIAL: bias002.fits[SCI,2] cannot be read" in lines


def test_flats_that_lack_an_image_do_not_change_the_steps_between_amplifiers(night: Path, tmp_path: Path) -> None:
    """The level of such a flat is that of its other amplifier alone: it is left out of all masters of its exposure."""
    folder, fewer = tmp_path / "raw", tmp_path / "fewer"
    shutil.copytree(night, folder, ignore=shutil.ignore_patterns("light011*"))  # one asks for the masters as two do
    for flat in folder.glob("flat*.fits"):
        with fits.open(flat, mode="update") as file:
            file["SCI", 2].data = file["SCI", 2].data // 2
    cut = sorted(folder.glob("flat*.fits"))[0]
    cut.write_bytes(cut.read_bytes()[:30000])
    shutil.copytree(folder, fewer, ignore=shutil.ignore_patterns(cut.name))
    # halved pixels have half of the noise: the pairs would say that the gain is another
    words = ["--cosmic-rays", "none", "--on-error", "skip", "--gain", "stated"]
    masters = []
    for source in (folder, fewer):
        out = tmp_path / f"{source.name}_out"
        result = CliRunner().invoke(main, ["reduce", str(source), "-o", str(out), *words], catch_exceptions=False)
        assert result.exit_code == (3 if source == folder else 0)
        masters.append(next(out.glob("masters/flat*.fits")))
    with fits.open(masters[0]) as found, fits.open(masters[1]) as expected:
        for number in (1, 2):
            assert found["SCI", number].header["NCOMBINE"] == 2
            np.testing.assert_array_equal(found["SCI", number].data, expected["SCI", number].data)


def test_a_table_of_exposures_without_some_images(night: Path, tmp_path: Path) -> None:
    """It has the images that cannot be read too, and is run to the same products as the night itself."""
    folder, table = tmp_path / "raw", tmp_path / "night.ecsv"
    packed, _ = damaged(night, folder)
    words = ["--on-error", "skip", "--cosmic-rays", "none"]
    result = CliRunner().invoke(main, ["reduce", str(folder), "--dry-run", "--save", str(table), *words])
    assert result.exit_code == 3, result.output
    (left,) = exposures(load_table(table).science)[packed.name]
    tree: Any = as_exposure([left], [lazyccd.open_mef(packed)["SCI_1"].to_dataset(inherit=False)])
    assert [hdu.get("frame", hdu.get("name", "")) for hdu in tree.attrs["hdus"]] == ["", "SCI_1", "GUIDE"]
    rows = {row["file"]: row for row in Table.read(table, format="ascii.ecsv")}
    assert rows[f"{packed.name}[SCI,2]"]["status"] == "UNUSABLE"
    assert "tile 0 cannot be decompressed" in rows[f"{packed.name}[SCI,2]"]["reason"]
    assert rows[f"{packed.name}[SCI,1]"]["status"] == "PARTIAL"
    assert rows[f"{packed.name}[SCI,1]"]["reason"] == f"{packed.name}[SCI,2] cannot be read"
    one, two = tmp_path / "one", tmp_path / "two"
    for source, out in ((folder, one), (table, two)):
        extra = words if source == folder else []
        assert CliRunner().invoke(main, ["reduce", str(source), "-o", str(out), *extra]).exit_code == 3
    products = sorted(path.relative_to(one) for path in one.rglob("*.fits"))
    assert products == sorted(path.relative_to(two) for path in two.rglob("*.fits"))
    for path in products:
        assert (one / path).read_bytes() == (two / path).read_bytes()


def test_sinistro(shared_data: Path, tmp_path: Path) -> None:
    """Four amplifiers of a real camera, without calibrations: overscan, trim, gains, and one detector."""
    raw = shared_data / "lco_sinistro_mef/mef_raw_test_frame.fits"
    words = ["reduce", str(raw), "-o", str(tmp_path), "--cosmic-rays", "none", "--allow-missing", "bias,dark,flat"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    detector = lazyccd.open_fits(tmp_path / "mef_raw_test_frame_red.fits")
    assert detector["data"].shape == (2048, 2048)
    good = ~detector.ccd.is_flagged("NO_DATA").values
    assert int(good.sum()) == 1024**2
    values = detector["data"].values[512:1536, 512:1536]
    levels = [float(np.median(values[y : y + 512, x : x + 512])) for y in (0, 512) for x in (0, 512)]
    assert max(levels) / min(levels) < 1.2


def test_reasons_name_masters_not_their_images(night: Path, tmp_path: Path) -> None:
    """A filter without a flat is one reason for all amplifiers, and flats of other amplifiers are no candidates."""
    raw = tmp_path / "raw"
    shutil.copytree(night, raw)
    lights = [path for path in raw.glob("*.fits") if "light" in path.name]
    fits.setval(lights[0], "FILTER", value="none such")
    plan = build_plan(collect(raw))
    items = [item for item in plan.science if item.name.startswith(lights[0].name)]
    assert len({item.reasons for item in items}) == 1
    assert "does not match" in items[0].reason
    assert "none of" not in items[0].reason
    assert all("detector" not in why for item in items for _, why in item.flat.why_not)


def test_a_cause_is_said_once(night: Path, tmp_path: Path) -> None:
    """What is doubtful of all frames is not said again for each master and each amplifier that it comes by."""
    raw = tmp_path / "raw"
    shutil.copytree(night, raw)
    for path in raw.glob("*.fits"):
        fits.setval(path, "EXPTIME", value=1000 * fits.getval(path, "EXPTIME"), comment="")
    plan = build_plan(collect(raw))
    for item in plan.science:
        assert sum("[ms]" in reason for reason in item.reasons) == 1
        assert item.status == "PARTIAL"
