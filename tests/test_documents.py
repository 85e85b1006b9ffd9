"""What README.md and docs/ show runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from dask.distributed import LocalCluster
from matplotlib import pyplot as plt

from lazyccd.batch.cameras import FACTS, KINDS, load_camera
from lazyccd.cli.main import main
from lazyccd.testing import Detector, Sky, make_exposure, make_night

ROOT = Path(__file__).parents[1]
SCHEDULER = "tcp://head:8786"
"""The scheduler of the documents; here one of this machine."""


def documents() -> list[str]:
    """Return all documents of the project, by their names below its root."""
    paths = [path for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(pattern)]
    return sorted(str(path.relative_to(ROOT)) for path in paths if "_build" not in path.parts)


def blocks(document: str, *languages: str) -> list[tuple[str, str]]:
    """Return the examples of a document in some languages, each with its language, in order."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


WITH_PYTHON = [document for document in documents() if blocks(document, "python")]


def write_mef(path: Path, pixels: dict[str, np.ndarray]) -> None:
    """Write amplifiers of 64 x 50 pixels, 10 of them overscan, that lie side by side."""
    hdus = [fits.PrimaryHDU()]
    for number, (name, values) in enumerate(pixels.items()):
        sections = {"BIASSEC": "[41:50,1:64]", "DATASEC": "[1:40,1:64]"}
        place = {"CCDSEC": f"[{40 * number + 1}:{40 * number + 40},1:64]", "CCDNAME": "ccd1", "GAIN": 1.5}
        hdus.append(fits.ImageHDU(values, fits.Header({**sections, **place, "BUNIT": "adu"}), name))
    fits.HDUList(hdus).writeto(path)


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: str) -> None:
    """A link from a document to another file of the project is that of a file that is there."""
    path = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the documents name, simulated."""
    tmp_path = tmp_path_factory.mktemp("observatory")
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
    for number in (1, 2, 3):
        make_exposure(Detector((200, 220)), sky, dither=(7.3 * number, -4.6 * number)).write(
            tmp_path / f"dither{number}.fits"
        )
    waves = np.sin(np.add.outer(np.arange(2048), np.arange(2048)) / 30).astype("f4")
    fits.writeto(tmp_path / "fringes_r.fits", waves, fits.Header({"BUNIT": "electron"}))
    for name in ("masters/flat_r", "illumination_r"):
        fits.writeto(tmp_path / f"{name}.fits", 1 + 0.01 * noise, fits.Header({"BUNIT": "adu"}))
    (tmp_path / "taps").mkdir()
    taps = {
        "DATASECA": "[11:50,1:64]",
        "BIASSECA": "[1:10,1:64]",
        "DATASECB": "[51:90,1:64]",
        "BIASSECB": "[91:100,1:64]",
    }
    fits.writeto(
        tmp_path / "taps" / "t0421.fits", rng.normal(1000, 5, (64, 100)), fits.Header({"BUNIT": "adu", **taps})
    )
    for name, width in {"raw": 50, "bias": 40, "flat": 40}.items():
        write_mef(tmp_path / f"{name}.fits", {amp: 1000 + rng.normal(0, 5, (64, width)) for amp in "AB"})
    return tmp_path


@pytest.fixture
def observatory(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the working folder a fresh one with the files that the documents name."""
    # links, as the files have 170 MB together; what writes a file of that name makes a new one
    shutil.copytree(files, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def scheduler(cluster: LocalCluster) -> str:
    """Return the address of a scheduler with two workers that are processes."""
    return cluster.scheduler_address


@pytest.mark.parametrize("document", WITH_PYTHON)
def test_examples_run(document: str, observatory: Path, scheduler: str) -> None:
    """The examples of a document in Python run one after the other, without those of any other document."""
    mpl.use("Agg")
    names: dict[str, object] = {}
    for number, (_, example) in enumerate(blocks(document, "python")):
        code = example.replace(SCHEDULER, scheduler).replace("/archive", str(observatory))
        exec(compile(code, f"{document}[{number}]", "exec"), names)
    plt.close("all")


def run_command(command: str, scheduler: str) -> str:
    """Run a command of a document, which must end with status 0: all products are complete; return what it prints."""
    mpl.use("Agg")
    words = shlex.split(command.replace(SCHEDULER, scheduler), comments=True)
    done = CliRunner(env={"COLUMNS": "120"}).invoke(main, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{command}: {done.output}"
    return done.output


def test_commands_run(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of README reduce a simulated night."""
    monkeypatch.chdir(tmp_path)
    make_night("NIGHT", Detector((200, 200)), Sky(stars=30, galaxies=0), lights=1)
    commands = [
        line for _, block in blocks("README.md", "sh") for line in block.splitlines() if line.startswith("lazyccd")
    ]
    assert len(commands) >= 3
    for command in commands:
        shutil.rmtree("OUT", ignore_errors=True)
        run_command(command, scheduler)
        assert bool(list(Path().glob("OUT/*_red.*"))) == (" reduce " in command and "--dry-run" not in command)


def test_the_night_is_as_its_tutorial_says(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the tutorial run one after the other, and print the lines that it shows."""
    monkeypatch.chdir(tmp_path)
    printed = ""
    for language, block in blocks("docs/tutorials/night.md", "sh", "text"):
        if language == "sh":
            printed += "".join(run_command(command, scheduler) for command in block.splitlines())
            continue
        for line in block.splitlines():
            assert " ".join(line.split()) in " ".join(printed.split()), line
    assert list(Path("edited").glob("*_red.fits"))


def test_camera_table_of_the_guide(tmp_path: Path) -> None:
    """The camera table that the guide shows can be read, and has all that the guide explains."""
    ((_, table),) = blocks("docs/howto/cameras.md", "toml")
    (tmp_path / "mycam.toml").write_text(table)
    camera = load_camera(tmp_path / "mycam.toml")
    assert camera.match
    assert camera.keywords("filter") == ("FILT1 & FILT2",)
    assert not camera.needs_dark
    text = " ".join((ROOT / "docs/howto/cameras.md").read_text().split())
    assert not [name for name in (*FACTS, *KINDS) if f"`{name}`" not in text]


MAP = "docs/architecture.md"


def file_of_map(name: str) -> Path | None:
    """Return the file or folder that the map names, below the package or below the root; None if there is none."""
    return next((root / name for root in (ROOT / "lazyccd", ROOT) if (root / name).exists()), None)


def is_defined(name: str, file: str) -> bool:
    """Return whether a file defines a function, class, method or constant."""
    path = file_of_map(file)
    text = path.read_text() if path is not None and path.is_file() else ""
    *classes, last = name.split(".")
    patterns = [rf"^class {cls}\b" for cls in classes] + [rf"^ *(?:def|class) {last}\b|^{last}\b.* = |^ *\"{last}\",$"]
    return all(re.search(pattern, text, re.MULTILINE) for pattern in patterns)


def test_files_of_the_map_exist() -> None:
    """Every file and folder that the map names is there."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / MAP).read_text(), flags=re.MULTILINE | re.DOTALL)
    names = re.findall(r"`((?:[\w.]+/)*(?:\w+\.(?:py|pyi|toml|md|svg)|\w+/))`", text)
    assert len(names) > 100
    assert not [name for name in names if file_of_map(name) is None]


def test_walks_of_the_map_are_numbered() -> None:
    """The steps of each walk, whose tables may be several, are numbered from 1 without gaps."""
    for walk in (ROOT / MAP).read_text().split("\n## "):
        steps = [int(number) for number in re.findall(r"^\| (\d+) \|", walk, re.MULTILINE)]
        assert steps == list(range(1, len(steps) + 1))


def test_functions_of_the_map_exist() -> None:
    """Every function of a walk is in the file beside it, and so is what the text says to be in a file."""
    text = (ROOT / MAP).read_text()
    walks = re.findall(r"^\| \d+ \|.*\| (`[^|]*`) \| `([^|]*)` \|$", text, re.MULTILINE)
    found = [(name, file) for names, file in walks for name in re.findall(r"`([^`]*)`", names)]
    assert len(found) > 60
    found += re.findall(r"`(\w+)`,? (?:of|in|under `\[keys\]` in) `((?:\w+/)*\w+\.py)`", text)
    assert not [f"{name} in {file}" for name, file in found if not is_defined(name, file)]
