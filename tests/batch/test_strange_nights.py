"""Nights that other programs stumble over: what lacks, what does not belong, where products lie."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits

from lazyccd.batch.collect import BEGIN, collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.reduce import reduce
from lazyccd.batch.run import Run
from lazyccd.testing import Detector, Sky, make_night


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny night: bias001-2, flat003-5, light006-7."""
    folder = tmp_path_factory.mktemp("strange") / "raw"
    make_night(folder, Detector((32, 40)), Sky(stars=2), biases=2, darks=0, flats=3, lights=2)
    return folder


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    """Return a copy of it, which a test may change."""
    shutil.copytree(original, tmp_path / "raw")
    return tmp_path / "raw"


def go(raw: Path, out: Path, **options: Any) -> Run:
    """Reduce, without what takes time."""
    return reduce(raw, out, cosmic_rays="none", gain="stated", **options)


def remove(raw: Path, *patterns: str) -> None:
    """Take files away."""
    for pattern in patterns:
        for path in raw.glob(pattern):
            path.unlink()


@pytest.mark.parametrize(
    ("gone", "kinds", "lacks"),
    [
        (["light*"], ["bias", "flat"], set()),
        (["bias*", "flat*"], ["science", "science"], {"bias", "flat"}),
        (["flat*"], ["bias", "science", "science"], {"flat"}),
        (["flat004*", "flat005*"], ["bias", "flat", "science", "science"], set()),
    ],
    ids=["calibrations only", "science only", "no flat", "a single flat"],
)
def test_what_lacks_is_said(raw: Path, gone: list[str], kinds: list[str], lacks: set[str]) -> None:
    """What is there is made, what is not there is said by name; nothing fails."""
    remove(raw, *gone)
    run = go(raw, raw.parent / "out")
    assert [outcome.kind for outcome in run.outcomes] == kinds
    assert all(outcome.is_made for outcome in run.outcomes)
    for outcome in (item for item in run.outcomes if item.kind == "science"):
        missing = {doubt.text.split()[1].rstrip(":") for doubt in outcome.doubts if doubt.kind == "missing"}
        assert missing & {"bias", "flat"} == lacks
    record = json.loads((raw.parent / "out" / "run.json").read_text())
    assert all(item["status"] != "WAITING" for item in record["frames"])


@pytest.mark.parametrize("victim", ["light006.fits", "flat004.fits"])
def test_a_frame_of_fewer_pixels(raw: Path, victim: str) -> None:
    """It is alone in its size: it gets no master and is in none, and the others are as ever."""
    with fits.open(raw / victim) as hdus:
        header = hdus[0].header
        header.remove("BIASSEC")
        header.remove("TRIMSEC")
        fits.writeto(raw / victim, hdus[0].data[:, :-24], header, overwrite=True)
    plan = build_plan(collect(str(raw)))
    others = [item for item in plan.science if item.name != victim]
    assert all(item.flat and item.bias for item in others)
    assert not plan.frame(victim).bias
    assert any("size" in why for _, why in plan.frame(victim).bias.why_not)
    assert all(victim not in group.members or group.members == (victim,) for group in plan.groups)


def test_two_cameras_in_one_folder(raw: Path) -> None:
    """Each gets its own masters."""
    for path in list(raw.iterdir()):
        with fits.open(path) as hdus:
            hdus[0].header["INSTRUME"] = "OTHER"
            hdus.writeto(raw / f"other_{path.name}")
    plan = build_plan(collect(str(raw)))
    for group in plan.groups:
        assert len({name.startswith("other_") for name in group.members}) == 1
    for item in plan.science:
        members = plan.group(item.flat.master).members
        assert {name.startswith("other_") for name in members} == {item.name.startswith("other_")}


def test_endings_blanks_and_subfolders_are_mixed(raw: Path) -> None:
    """All forms of a file are one night, with the masters of the plain ones; masters among them are no raw frames."""
    before = build_plan(collect(str(raw)))
    (raw / "sub folder").mkdir()
    (raw / "my flat.fit.gz").write_bytes(gzip.compress((raw / "flat003.fits").read_bytes()))
    with fits.open(raw / "light006.fits") as hdus:
        packed = fits.CompImageHDU(hdus[0].data, hdus[0].header)
        packed.writeto(raw / "sub folder" / "light 6.fits.fz")
        hdus[0].header["IMAGETYP"] = "master flat"
        hdus.writeto(raw / "masterflat.fits")
    remove(raw, "flat003.fits", "light006.fits")
    plan = build_plan(collect(str(raw), recursive=True))
    assert sorted(item.name for item in plan.science) == ["light007.fits", "sub folder/light 6.fits.fz"]
    assert [len(group.members) for group in plan.groups] == [len(group.members) for group in before.groups]
    assert plan.frame("masterflat.fits").status == "LISTED"
    assert "a master" in plan.frame("masterflat.fits").reason


def test_brackets_in_names_are_not_extensions(raw: Path) -> None:
    """Exposures whose names are alike before the brackets have products of their own, with their whole names."""
    for number, light in enumerate(sorted(raw.glob("light*"))):
        light.rename(raw / f"m31 [{number}, red] x.fits")
    run = go(raw, raw.parent / "out")
    assert sorted(path.name for path in (raw.parent / "out").glob("*.fits")) == [
        "m31 [0, red] x_red.fits",
        "m31 [1, red] x_red.fits",
    ]
    again = go(raw, raw.parent / "out", veto="m31 [0, red] x.fits")
    assert len(again.kept) == len(run.outcomes) - 1


@pytest.mark.parametrize("recursive", [False, True])
def test_products_inside_of_the_night(raw: Path, recursive: bool) -> None:
    """They are no frames of it at the second run, nor a note that something was not searched; a run.json of others is no sign."""
    out = raw / "out"
    before = go(raw, out, recursive=recursive)
    again = go(raw, out, recursive=recursive)
    assert again.kept == {outcome.name for outcome in again.outcomes}
    assert (again.exit_status, len(again.plan.frames)) == (before.exit_status, len(before.plan.frames))
    assert any("passed over" in note for note in again.plan.notes) == recursive
    assert not any("not searched" in note for note in again.plan.notes)
    assert (out / "run.json").read_bytes().startswith(BEGIN)
    (out / "run.json").write_text('{"name": "a script of others"}')
    assert len(collect(str(raw), recursive=True).frames) > len(before.plan.frames)


@pytest.mark.parametrize("seconds", [0.0, None], ids=["EXPTIME 0", "no EXPTIME"])
def test_an_exposure_that_is_not_known(raw: Path, seconds: float | None) -> None:
    """A light of 0 s or of unknown exposure is a light all the same, and gets its bias and flat; its exposure is not made up."""
    with fits.open(raw / "light006.fits", mode="update") as hdus:
        del hdus[0].header["EXPTIME"]
        if seconds is not None:
            hdus[0].header["EXPTIME"] = seconds
    run = go(raw, raw.parent / "out")
    frames = [run.plan.frame(name) for name in ("light006.fits", "light007.fits")]
    assert [item.kind for item in frames] == ["science", "science"]
    assert frames[0].facts.exposure.value is None
    assert (frames[0].bias.master, frames[0].flat.master) == (frames[1].bias.master, frames[1].flat.master)
    assert all(outcome.is_made for outcome in run.outcomes)


def test_a_clock_that_jumps(raw: Path) -> None:
    """A light that says that it was taken ten years later is reduced, by older masters, and that is said."""
    with fits.open(raw / "light007.fits", mode="update") as hdus:
        hdus[0].header["DATE-OBS"] = "2036-01-15T02:03:00"
    run = go(raw, raw.parent / "out")
    late, usual = (next(item for item in run.outcomes if item.name == f"light00{n}.fits") for n in (7, 6))
    assert late.is_made
    assert late.reason.count("is 3652 days away") == 2
    assert "days away" not in usual.reason
    assert late.used == usual.used
