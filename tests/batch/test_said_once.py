"""What is wrong for the same reason in many files is one line, with the files and the way out."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from lazyccd.batch.collect import collect
from lazyccd.batch.report import join_alike, some_files
from lazyccd.cli.main import main


def write(folder: Path, kinds: dict[str, int], dtype: str = "u2", **cards: Any) -> Path:
    """Write a night of so many frames of each kind; a card that is a function gets the number of the frame."""
    folder.mkdir(exist_ok=True)
    number = 0
    for kind, count in kinds.items():
        for _ in range(count):
            level = {"flat": 20000, "light": 500}.get(kind, 0)
            signal = np.random.default_rng(number).poisson(level, (48, 48))
            pixels = 1000 + signal + np.random.default_rng(number).normal(0, 5, (48, 48))
            header = {"IMAGETYP": kind, "EXPTIME": 60.0 if kind == "light" else 1.0, "GAIN": 1.0, "RDNOISE": 5.0}
            header |= {"DATE-OBS": f"2024-03-10T20:{number:02d}:00"}
            header |= {key: value(number) if callable(value) else value for key, value in cards.items()}
            known = fits.Header([card for card in header.items() if card[1] is not None])
            fits.writeto(folder / f"{kind}{number:02d}.fits", pixels.astype(dtype), known)
            number += 1
    return folder


def run(folder: Path, *options: str) -> tuple[int, str]:
    """Return the exit status and the text of a night, without its line breaks."""
    out = ["-o", str(folder) + "_out"] if "--dry-run" not in options else []
    result = CliRunner().invoke(main, ["reduce", str(folder), *out, *options], catch_exceptions=False)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_floats_without_a_unit(tmp_path: Path, option: list[str]) -> None:
    """They are refused in one line for each kind, and a camera table states the unit."""
    folder = write(tmp_path / "n", {"bias": 4, "light": 5}, "f4")
    status, text = run(folder, *option)
    assert status == 1
    # The note, and the refusal of biases and of lights.
    assert text.count("no BUNIT on an image of floats") <= 3
    if not option:
        assert "not reduced: light04.fits, light05.fits, light06.fits and 2 more (science): " in text
    (tmp_path / "c.toml").write_text('[fix]\nunit = "adu"\n')
    status, text = run(folder, "--camera", str(tmp_path / "c.toml"), "--allow-missing", "dark,flat", *option)
    assert status == 0


def test_types_that_names_propose(tmp_path: Path) -> None:
    """Each kind is one line, not each file."""
    status, text = run(write(tmp_path / "n", {"bias": 6, "flat": 6, "light": 6}, IMAGETYP=None))
    assert status == 3
    for kind in ("bias", "flat", "science"):
        assert f"{kind} is proposed by file name for the word" in text
    assert text.count("is proposed by") <= 8
    assert "--dry-run --save" in text


def test_a_doubt_of_a_dark_comes_once(tmp_path: Path) -> None:
    """A frame has it from its dark; that its flat has it from the same dark is not said again."""
    folder = write(tmp_path / "n", {"bias": 3, "dark": 3, "flat": 3, "light": 3}, IMAGETYP=None, FILTER="R")
    _, text = run(folder, "--dry-run")
    assert "dark_1s_2024-03-10: type: dark is proposed by file name" in text
    assert "flat_R_2024-03-10: type: flat is proposed by file name" in text
    assert "flat_R_2024-03-10: dark_1s_2024-03-10" not in text


def test_a_long_plan_tells_alike_exposures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more exposures than anyone reads, a row stands for those of a night that are alike; it names how many they are."""
    folder = write(tmp_path / "n", {"bias": 3, "flat": 12, "light": 3}, FILTER=lambda k: "VR"[k % 2])
    monkeypatch.setattr("lazyccd.batch.report.MOST_EXPOSURES", 18)
    _, text = run(folder, "--dry-run")
    assert all(f"flat{number:02d}.fits" in text for number in range(3, 15))
    monkeypatch.setattr("lazyccd.batch.report.MOST_EXPOSURES", 17)
    _, text = run(folder, "--dry-run")
    assert "flat03.fits and 5 more" in text
    assert "flat04.fits and 5 more" in text
    assert "20:03-20:13" in text
    assert "flat05.fits" not in text
    assert "4, 6, 8, ... (6 in all)" in text


def test_dates_that_begin_with_the_day(tmp_path: Path) -> None:
    """One line, though every file has another date."""
    folder = write(tmp_path / "n", {"bias": 6, "light": 6}, **{"DATE-OBS": lambda k: f"{k + 10}/03/2024 20:00:00"})
    for option in ([], ["--dry-run"]):
        _, text = run(folder, *option)
        assert text.count("may begin with the day or with the month") == 1
        assert "and 11 more with other values" in text


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_copies(tmp_path: Path, count: int) -> None:
    """Many copies are one note."""
    folder = write(tmp_path / "n", {"bias": count})
    for path in list(folder.glob("*.fits")):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    found = collect(folder)
    assert len(found.frames) == count
    assert len(found.notes) == min(count, 2) if count < 3 else found.notes[0].startswith(f"{count} files are copies")
    assert len(found.notes) < 3


def test_joining() -> None:
    """Texts that differ in quoted words and numbers are joined from three on; a keyword with a number is no value."""
    three = {f"n{k}: level {k} of 'x{k}'": [f"{k}.fits"] for k in range(3)}
    assert list(join_alike({f"level {k} of 'x{k}'": [f"{k}.fits"] for k in range(3)})) == [
        "level 0 of 'x0'; and 2 more with other values"
    ]
    assert len(join_alike(three)) == 3
    two = {f"level {k}": [f"{k}.fits"] for k in range(2)}
    assert join_alike(two) == two
    assert some_files([]) == ""


@pytest.mark.parametrize(
    ("bias", "flat", "light", "said"),
    [
        ({"OFFSET": 10}, {}, {"OFFSET": 20}, "bias not bias_2024-03-10: offset '10' is not '20'"),
        ({}, {"FILTER": "R"}, {"FILTER": "V"}, "flat not flat_R_2024-03-10: filter 'R' is not 'V'"),
        *(
            pytest.param(*some, marks=pytest.mark.slow)
            for some in (
                ({"XBINNING": 1, "YBINNING": 1}, {}, {"XBINNING": 2, "YBINNING": 2}, "binning '1x1' is not '2x2'"),
                ({"DETECTOR": "A"}, {}, {"DETECTOR": "B"}, "detector 'A' is not 'B'"),
                ({"GAIN": 2.0}, {}, {"GAIN": 1.0}, "gain 2 is not 1"),
            )
        ),
    ],
)
def test_a_run_says_what_does_not_match(
    tmp_path: Path, bias: dict[str, Any], flat: dict[str, Any], light: dict[str, Any], said: str
) -> None:
    """In the words of the dry run, once."""
    night = tmp_path / "n"
    for kind, cards in (("bias", bias), ("flat", flat), ("light", light)):
        write(night, {kind: 2}, **cards)
        for path in night.glob(f"{kind}0[0-9].fits"):
            path.rename(night / f"{kind}_{path.name}")
    assert said in run(night, "--dry-run")[1]
    assert run(night)[1].count(said) == 1
