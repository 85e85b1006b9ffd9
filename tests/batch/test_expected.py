"""What a night will take is told before it is reduced, and chunks are such that tasks fit into the memory limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.batch.collect import collect
from lazyccd.batch.expected import DRIVER_BYTES, expected
from lazyccd.batch.make_plan import build_plan
from lazyccd.cli.main import main
from lazyccd.errors import ParameterError
from lazyccd.plan.cost import BASELINE_BYTES
from lazyccd.testing import Detector, Sky, make_night

SIDE = 384


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small night without darks."""
    folder = tmp_path_factory.mktemp("expected") / "raw"
    make_night(folder, Detector((SIDE, SIDE)), Sky(stars=20), biases=2, darks=0, flats=2, lights=2)
    return folder


@pytest.fixture(scope="module")
def plain(night: Path) -> Path:
    """Return the products of it."""
    out = night.parent / "plain"
    lazyccd.reduce(night, out, cosmic_rays="none")
    return out


def pixels(out: Path) -> dict[str, np.ndarray]:
    """Return the data of each product."""
    return {path.name: lazyccd.open_fits(path)["data"].values for path in sorted(out.rglob("*.fits"))}


def test_bytes_are_those_of_the_files(night: Path, plain: Path) -> None:
    """Raw bytes to the byte; those of products to their headers."""
    found = expected(build_plan(collect(str(night))))
    assert found is not None
    assert found.read_bytes == sum(path.stat().st_size for path in night.iterdir() if path.suffix == ".fits")
    written = sum(path.stat().st_size for path in plain.rglob("*.fits"))
    assert 0.9 * written < found.written_bytes < written


def test_memory_is_an_upper_limit_that_is_near(night: Path, tmp_path: Path) -> None:
    """A process takes no more than is told, and at least half of it."""
    command = [sys.executable, "-m", "lazyccd", "reduce", str(night), "-o", str(tmp_path / "out")]
    found = expected(build_plan(collect(str(night))))
    assert found is not None
    measure = f"import resource, subprocess; subprocess.run({command!r}, capture_output=True); "
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    peak = int(subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=True).stdout)
    assert found.process_bytes / 2 < peak < found.process_bytes


def test_dry_run_tells(night: Path) -> None:
    """Time, bytes and memory are one line of the plan; a night with nothing to reduce has none."""
    result = CliRunner().invoke(main, ["reduce", str(night), "--dry-run", "--memory-limit", "2GB"])
    line = next(line for line in result.output.splitlines() if line.startswith("Expected"))
    for word in (" s on ", "of raw files", "of products", "of memory", "limit for tasks 1.86 GiB", f"{SIDE} x {SIDE}"):
        assert word in line
    shorter = CliRunner().invoke(main, ["reduce", str(night), "--dry-run", "--chunks", "100"])
    assert "chunks of 100 x 100 pixels" in shorter.output


def test_little_memory_makes_smaller_chunks(night: Path, plain: Path, tmp_path: Path) -> None:
    """Where a whole frame does not fit, though nothing looks at neighbours, smaller chunks give the same pixels."""
    room = 2 * 2_500_000
    with dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + room, "num_workers": 2}):
        run = lazyccd.reduce(night, tmp_path / "out", cosmic_rays="none")
        told = expected(run.plan)
    assert all(outcome.is_made for outcome in run.outcomes), [outcome.reason for outcome in run.outcomes]
    assert told is not None
    assert told.chunk == (256, 256)
    assert told.process_bytes > DRIVER_BYTES
    for name, values in pixels(plain).items():
        np.testing.assert_array_equal(pixels(tmp_path / "out")[name], values)


def test_chunks_and_compression_change_no_pixel(night: Path, plain: Path, tmp_path: Path) -> None:
    """Products have the tiles that are asked for, and the pixels, headers and names of the others."""
    words = ["--cosmic-rays", "none", "--compress", "RICE_1", "--chunks", "100"]
    result = CliRunner().invoke(main, ["reduce", str(night), "-o", str(tmp_path), *words])
    assert result.exit_code == 3, result.output  # no dark
    for name, values in pixels(plain).items():
        np.testing.assert_array_equal(pixels(tmp_path)[name], values)
    product = next(tmp_path.glob("*_red.fits"))
    with fits.open(product, disable_image_compression=True) as file:
        assert "RICE_1" in {hdu.header.get("ZCMPTYPE") for hdu in file}
        assert not any("LZRECIPE" in hdu.header for hdu in file)
    again = CliRunner().invoke(main, ["reduce", str(night), "-o", str(tmp_path), "--cosmic-rays", "none"])
    assert again.exit_code == 2
    assert "--compress was 'RICE_1' and is ''" in again.output


def test_zarr_is_always_compressed(night: Path, tmp_path: Path) -> None:
    """A compression of FITS is refused for it before anything is written, by a dry run too."""
    with pytest.raises(ParameterError, match="RICE_1 is for FITS; Zarr is always compressed"):
        lazyccd.reduce(night, tmp_path / "out", format="zarr", compress="RICE_1")
    assert not (tmp_path / "out").exists()
    words = ["--dry-run", "--format", "zarr", "--compress", "RICE_1"]
    result = CliRunner().invoke(main, ["reduce", str(night), *words])
    assert (result.exit_code, "RICE_1 is for FITS" in result.output) == (2, True)
