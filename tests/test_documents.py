"""What README.md and docs/ show runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from dask.distributed import LocalCluster
from matplotlib import pyplot as plt

from lazyccd.cli.main import main
from lazyccd.testing import Detector, Sky, make_exposure, make_night

ROOT = Path(__file__).parents[1]
SCHEDULER = "tcp://head:8786"
"""The scheduler of the documents; here one of this machine."""


def blocks(document: str, language: str) -> list[str]:
    """Return the examples of a document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return all documents of the project."""
    return [path for folder in (".", "docs", "benchmarks") for path in (ROOT / folder).glob("*.md")]


def write_mef(path: Path, pixels: dict[str, np.ndarray]) -> None:
    """Write amplifiers of 64 x 50 pixels, 10 of them overscan, that lie side by side."""
    hdus = [fits.PrimaryHDU()]
    for number, (name, values) in enumerate(pixels.items()):
        sections = {"BIASSEC": "[41:50,1:64]", "DATASEC": "[1:40,1:64]"}
        place = {"CCDSEC": f"[{40 * number + 1}:{40 * number + 40},1:64]", "CCDNAME": "ccd1", "GAIN": 1.5}
        hdus.append(fits.ImageHDU(values, fits.Header({**sections, **place, "BUNIT": "adu"}), name))
    fits.HDUList(hdus).writeto(path)


@pytest.mark.parametrize("document", sorted(str(path.relative_to(ROOT)) for path in documents()))
def test_links_lead_somewhere(document: str) -> None:
    """A link from a document to another file of the project is that of a file that is there."""
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.fixture
def observatory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the working folder one with the files that the documents name, simulated."""
    detector, sky = Detector((2048, 2048), overscan=32), Sky(stars=50)
    (tmp_path / "raw").mkdir()
    (tmp_path / "masters").mkdir()
    make_exposure(detector, sky).write(tmp_path / "raw" / "r0421.fits")
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1, (2048, 2048)).astype("f4")
    for name, level in {"frame": 500, "sky": 100, "flat_bright": 30000, "flat_faint": 3000}.items():
        fits.writeto(tmp_path / f"{name}.fits", level + noise, fits.Header({"BUNIT": "adu", "EXPTIME": 60.0}))
    fits.writeto(tmp_path / "masters" / "bias.fits", 0.1 * noise, fits.Header({"BUNIT": "adu"}))
    for number in range(1, 16):
        fits.writeto(
            tmp_path / f"bias{number}.fits", np.roll(noise[:900, :1100], number, 0), fits.Header({"BUNIT": "adu"})
        )
    waves = np.sin(np.add.outer(np.arange(2048), np.arange(2048)) / 30).astype("f4")
    fits.writeto(tmp_path / "fringes_r.fits", waves, fits.Header({"BUNIT": "electron"}))
    for name in ("masters/flat_r", "illumination_r"):
        fits.writeto(tmp_path / f"{name}.fits", 1 + 0.01 * noise, fits.Header({"BUNIT": "adu"}))
    for name, width in {"raw": 50, "bias": 40, "flat": 40}.items():
        write_mef(tmp_path / f"{name}.fits", {amp: 1000 + rng.normal(0, 5, (64, width)) for amp in "AB"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Return the address of a scheduler with two workers that are processes."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


def test_examples_run(observatory: Path, scheduler: str) -> None:
    """The examples in Python run one after the other: those of README, then those of the guide."""
    mpl.use("Agg")
    names: dict[str, object] = {}
    for document in ("README.md", "docs/guide.md"):
        for number, example in enumerate(blocks(document, "python")):
            code = example.replace(SCHEDULER, scheduler).replace("/archive", str(observatory))
            exec(compile(code, f"{document}[{number}]", "exec"), names)
    plt.close("all")


def test_commands_run(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of README reduce a simulated night; each ends with status 0: all products are complete."""
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    make_night("NIGHT", Detector((200, 200)), Sky(stars=30, galaxies=0), lights=1)
    commands = [
        line for block in blocks("README.md", "sh") for line in block.splitlines() if line.startswith("lazyccd")
    ]
    assert len(commands) >= 3
    for command in commands:
        shutil.rmtree("OUT", ignore_errors=True)
        words = shlex.split(command.replace(SCHEDULER, scheduler), comments=True)
        done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{command}: {done.output}"
        assert bool(list(Path().glob("OUT/*_red.*"))) == ("--dry-run" not in words)
