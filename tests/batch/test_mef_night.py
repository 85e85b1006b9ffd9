"""A night of multi-extension files, from raw frames to one product per exposure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.batch.build import build_plan
from lazyccd.batch.collect import collect
from lazyccd.batch.exposures import exposures
from lazyccd.cli import main
from lazyccd.frame.tree import frames_of
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


def test_each_image_finds_its_own(night: Path) -> None:
    """Masters are made for each amplifier, and science frames get those of theirs."""
    plan = build_plan(collect([night]))
    assert [len(some) for some in exposures(plan.science).values()] == [2, 2]
    for recipe in plan.science:
        assert recipe.facts.gain.value == pytest.approx(GAINS[int(recipe.part[-1]) - 1])
        for choice in recipe.choices[:3]:
            assert all(member.part == recipe.part for member in plan.members(choice.master))
    assert plan.exit_status == 0


def test_a_night_end_to_end(night: Path, tmp_path: Path) -> None:
    """Each exposure becomes one file with its table, which is assembled; flats leave the amplifiers their relative level."""
    out = tmp_path / "out"
    result = CliRunner().invoke(
        main, ["reduce", str(night), "-o", str(out), "--cosmic-rays", "none"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "put together" in result.output
    product = next(path for path in sorted(out.glob("light*_red.fits")) if "SCI" not in path.name)
    with fits.open(product) as file:
        names = [hdu.name for hdu in file if hdu.name not in {"DQ", "UNCERT"}]
        assert names == ["PRIMARY", "SCI", "SCI", "GUIDE"]
        assert file["GUIDE"].data["t"].tolist() == [0, 1, 2]
        assert file["SCI", 1].data.shape == SHAPE
    tree = lazyccd.open_mef(product)
    levels = [float(np.nanmedian(ds["data"].values)) for ds in frames_of(tree).values()]
    # the sky is the same for both in electrons, whatever the gains
    assert levels[0] == pytest.approx(levels[1], rel=0.1)
    detector = lazyccd.assemble(tree)
    assert detector["data"].shape == (SHAPE[0], 2 * SHAPE[1])
    assert detector.ccd.unit.to_string() == "electron"


def test_sinistro(shared_data: Path, tmp_path: Path) -> None:
    """Four amplifiers of a real camera, without calibrations: overscan, trim, gains, and their places on the detector."""
    raw = shared_data / "lco_sinistro_mef/mef_raw_test_frame.fits"
    words = ["reduce", str(raw), "-o", str(tmp_path), "--cosmic-rays", "none", "--allow-missing", "bias,dark,flat"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    tree = lazyccd.open_mef(tmp_path / "mef_raw_test_frame_red.fits")
    assert list(tree.children) == ["SCI_1", "SCI_2", "SCI_3", "SCI_4"]
    detector = lazyccd.assemble(tree)
    assert detector["data"].shape == (2048, 2048)
    assert int((~detector.ccd.flags("NO_DATA")).sum()) == 1024**2
    levels = [float(np.median(ds["data"].values)) for ds in frames_of(tree).values()]
    assert max(levels) / min(levels) < 1.2
