"""`lazyccd.reduce` is the command as a function, and takes a collection."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.cli.main import main
from lazyccd.errors import ParameterError, ResumeError
from lazyccd.testing import Detector, Sky, make_night


def test_the_function_does_what_the_command_does(tmp_path: Path) -> None:
    """The same products, pixel by pixel, and the same exit status; numbers and names are options as they are words."""
    make_night(tmp_path / "raw", Detector((192, 192)), Sky(stars=10))
    night = lazyccd.Collection(tmp_path / "raw")
    run = lazyccd.reduce(night, tmp_path / "function", cosmic_rays="none", gain=1.5, allow_missing="dark", bpm=None)
    assert repr(run).startswith(f"<Run of {len(run.plan.frames)} frames into {tmp_path / 'function'}: ")
    assert len(repr(run)) < len(str(tmp_path)) + 100
    words = ["--cosmic-rays", "none", "--gain", "1.5", "--allow-missing", "dark"]
    done = CliRunner().invoke(main, ["reduce", str(tmp_path / "raw"), "-o", str(tmp_path / "command"), *words])
    assert done.exit_code == run.exit_status
    names = sorted(path.relative_to(tmp_path / "command") for path in (tmp_path / "command").rglob("*.fits"))
    assert {Path(outcome.path).relative_to(tmp_path / "function") for outcome in run.outcomes if outcome.path} == set(
        names
    )
    assert len(names) > 3
    for name in names:
        ours, theirs = (fits.open(tmp_path / way / name) for way in ("function", "command"))
        with ours, theirs:
            assert fits.FITSDiff(ours, theirs, ignore_keywords=["CHECKSUM", "DATASUM"]).identical
    with pytest.raises(ResumeError, match=r"--gain was .1.5. and is"):
        lazyccd.reduce(night.filter(imagetyp="*"), tmp_path / "function", cosmic_rays="none")


def test_an_option_that_is_not_there(tmp_path: Path) -> None:
    """The error names the closest one."""
    with pytest.raises(ParameterError, match="no option 'cosmicrays'; did you mean 'cosmic_rays'"):
        lazyccd.reduce(tmp_path, tmp_path / "out", cosmicrays="none")
