"""Going on with a night: after a success, failures, new frames, a veto, other settings, a kill."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from click.testing import CliRunner

from lazyccd.batch.outcome import Outcome
from lazyccd.batch.reduce import reduce
from lazyccd.batch.run import Run
from lazyccd.cli.main import main
from lazyccd.errors import FormatError, ParameterError, ResumeError, TargetExistsError
from lazyccd.testing import Detector, Sky, make_night

Copy = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a tiny night, and its products."""
    base = tmp_path_factory.mktemp("going-on")
    make_night(base / "raw", Detector((48, 64)), Sky(stars=3), biases=3, darks=0, flats=3, lights=3)
    go(base / "raw", base / "out")
    return base / "raw", base / "out"


@pytest.fixture
def copy(original: tuple[Path, Path], tmp_path: Path) -> Copy:
    """Return a function that gives a night and its products, which a test may change; the record moves with them."""

    def make(*, products: bool = True) -> tuple[Path, Path]:
        raw, out = tmp_path / "raw", tmp_path / "out"
        shutil.copytree(original[0], raw)
        if products:
            shutil.copytree(original[1], out)
            text = (out / "run.json").read_text()
            (out / "run.json").write_text(text.replace(str(original[0]), str(raw)))
        return raw, out

    return make


def go(raw: Path, out: Path, **options: Any) -> Run:
    """Reduce, without what takes time."""
    return reduce(raw, out, cosmic_rays="none", gain="stated", **options)


def made(run: Run) -> set[str]:
    """Return what a run made, by kind and by number of light."""
    return {
        outcome.kind if outcome.kind != "science" else outcome.name[5:8]
        for outcome in run.outcomes
        if outcome.is_made and outcome.name not in run.kept
    }


def record(out: Path) -> dict[str, Any]:
    """Return what a run told."""
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def content(out: Path) -> dict[str, bytes]:
    """Return the bytes of all products."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.fits"))}


def test_a_second_run_after_a_success(copy: Copy) -> None:
    """Makes nothing, tells the same, and leaves every byte as it is."""
    raw, out = copy()
    before, told = content(out), record(out)
    run = go(raw, out)
    assert made(run) == set()
    assert content(out) == before
    now = record(out)
    assert {key: now[key] for key in ("counts", "products", "frames")} == {
        key: told[key] for key in ("counts", "products", "frames")
    }
    assert not (out / ".lazyccd-progress").exists()


def test_new_lights_are_made_alone(copy: Copy) -> None:
    """A light that comes later is reduced with the masters that are there."""
    raw, out = copy(products=False)
    late = raw / "light008.fits"
    late.rename(raw.parent / late.name)
    go(raw, out)
    shutil.move(raw.parent / late.name, late)
    assert made(go(raw, out)) == {"008"}


def test_a_new_flat_makes_its_descendants_again(copy: Copy, original: tuple[Path, Path]) -> None:
    """The master whose frames changed is made again and all that rests on it; then nothing tells that it was made in two runs."""
    raw, out = copy(products=False)
    late = raw / "flat006.fits"
    late.rename(raw.parent / late.name)
    go(raw, out)
    bias = (out / "masters" / "bias_2026-01-14.fits").stat().st_ino
    shutil.move(raw.parent / late.name, late)
    assert made(go(raw, out)) == {"flat", "007", "008", "009"}
    assert (out / "masters" / "bias_2026-01-14.fits").stat().st_ino == bias
    assert content(out).keys() == content(original[1]).keys()


def test_a_veto(copy: Copy) -> None:
    """A flat that is vetoed is in no master any more; the next run remembers, until its line is removed."""
    raw, out = copy()
    assert made(go(raw, out, veto="flat005.fits")) == {"flat", "007", "008", "009"}
    told = {item["name"]: item for item in record(out)["frames"]}
    assert (told["flat005.fits"]["status"], told["flat005.fits"]["reason"]) == ("SKIPPED", "vetoed")
    assert fits.getheader(next((out / "masters").glob("flat*")))["LZNFRAME"] == 2
    assert made(go(raw, out)) == set()
    (out / "veto.txt").write_text("")
    assert made(go(raw, out)) == {"flat", "007", "008", "009"}


def test_a_light_that_is_vetoed_leaves_the_products(copy: Copy) -> None:
    """Its product does not stay among those of the night, and is not lost."""
    raw, out = copy()
    run = go(raw, out, veto=str(raw / "light008.fits"))
    assert made(run) == set()
    assert sorted(path.name for path in out.glob("*.fits")) == ["light007_red.fits", "light009_red.fits"]
    assert [path.name for path in (out / "outdated").iterdir()] == ["light008_red.fits"]


def test_what_a_frame_affects_alone(copy: Copy) -> None:
    """A run that is limited to a light makes nothing of another that changed; the next one does."""
    raw, out = copy()
    for name in ("light007.fits", "light009.fits"):
        with fits.open(raw / name, mode="update") as hdus:
            hdus[0].header["OBSERVER"] = "someone else"
    before = {item["name"]: item["status"] for item in record(out)["products"]}
    run = go(raw, out, only_affected_by="light007.fits")
    assert made(run) == {"007"}
    # Nothing is claimed of a product that was not looked at.
    left = {item["name"]: item for item in record(out)["products"]}
    for name in ("light008.fits", "light009.fits"):
        assert (left[name]["status"], name in run.kept) == ("SKIPPED", False)
        assert left[name]["reason"].endswith(f"that of an earlier run stays, which was {before[name]}")
        assert (out / left[name]["path"]).exists()
    assert made(go(raw, out)) == {"009"}
    assert {item["name"]: item["status"] for item in record(out)["products"]} == before


def test_vetoes_that_are_no_utf_8(copy: Copy) -> None:
    """The line and the byte are named, and nothing is made."""
    raw, out = copy(products=False)
    out.mkdir()
    (out / "veto.txt").write_bytes(b"# names\nflat\xe9.fits\n")
    with pytest.raises(FormatError, match=r"veto.txt, line 2: byte 0xe9 is not UTF-8"):
        go(raw, out)
    assert not list(out.rglob("*.fits"))


def test_a_veto_and_its_descendants_alone(copy: Copy) -> None:
    """Of a vetoed frame those that had it are affected."""
    raw, out = copy()
    (raw / "light008.fits").unlink()
    run = go(raw, out, veto="flat004.fits", only_affected_by="flat004.fits")
    assert made(run) == {"flat", "007", "009"}


def test_a_limited_run_into_an_empty_folder(copy: Copy) -> None:
    """Makes what the frame needs, and says that the others were not asked for."""
    raw, out = copy(products=False)
    run = go(raw, out, only_affected_by="light008.fits")
    assert made(run) == {"bias", "flat", "008"}
    skipped = {outcome.name: outcome.reason for outcome in run.outcomes if outcome.status == "SKIPPED"}
    assert skipped == dict.fromkeys(("light007.fits", "light009.fits"), "not affected by light008.fits")


@pytest.mark.parametrize("option", ["veto", "only_affected_by"])
def test_frames_that_are_not_there(copy: Copy, option: str) -> None:
    """A name that is misspelled is an error, before anything is made."""
    raw, out = copy(products=False)
    with pytest.raises(ParameterError, match=r"'ligth008.fits' is not part of the night; did you mean 'light008.fits'"):
        go(raw, out, **{option: "ligth008.fits"})
    assert not list(out.rglob("*.fits"))


def test_failures_are_tried_again(copy: Copy) -> None:
    """A light that cannot be read fails alone; once it is mended, it alone is made."""
    raw, out = copy()
    light = raw / "light008.fits"
    whole = light.read_bytes()
    damage(light)
    run = go(raw, out)
    assert {outcome.name: outcome.name in run.kept for outcome in run.outcomes if outcome.kind == "science"} == {
        "light007.fits": True,
        "light008.fits": False,
        "light009.fits": True,
    }
    assert record(out)["counts"]["science"]["FAILED"] == 1
    # What an earlier run made of it is not what it is now.
    assert not (out / "light008_red.fits").exists()
    light.write_bytes(whole)
    assert made(go(raw, out)) == {"008"}
    assert "FAILED" not in record(out)["counts"]["science"]


def damage(path: Path) -> None:
    """Pack a file, and spoil its pixels: its headers are sound."""
    with fits.open(path) as hdus:
        data, header = hdus[0].data, hdus[0].header
        packed = fits.CompImageHDU(data, header, compression_type="GZIP_1")
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path, overwrite=True)
    raw = bytearray(path.read_bytes())
    raw[-2880 * 2 :] = bytes(len(raw[-2880 * 2 :]))
    path.write_bytes(bytes(raw))


def test_one_damaged_flat_costs_no_more_than_itself(copy: Copy) -> None:
    """The master is made of the others, and says which one was left out and why; the frame is FAILED, the exit status 1."""
    raw, out = copy(products=False)
    damage(raw / "flat005.fits")
    run = go(raw, out)
    flat = next(outcome for outcome in run.outcomes if outcome.kind == "flat")
    assert flat.status == "PARTIAL"
    assert list(flat.left_out) == ["flat005.fits"]
    assert "flat005.fits: it cannot be read" in flat.reason
    assert made(run) == {"bias", "flat", "007", "008", "009"}
    assert {item["name"]: item["status"] for item in record(out)["frames"]}["flat005.fits"] == "FAILED"
    assert run.exit_status == 1
    assert made(go(raw, out)) == set()


def test_what_is_blocked_names_its_root(copy: Copy) -> None:
    """Through all masters between: what failed first is what must be mended."""
    raw, out = copy(products=False)
    for path in raw.glob("bias*"):
        damage(path)
    run = go(raw, out)
    bias, flat, light, *_ = run.outcomes
    assert [outcome.status for outcome in (bias, flat, light)] == ["FAILED", "BLOCKED", "BLOCKED"]
    assert flat.reason == f"it needs {bias.name}, which could not be made: {bias.reason}"
    chain = f"it needs {flat.name}, which needs {bias.name}, which could not be made: {bias.reason}"
    assert chain in [str(doubt) for doubt in light.doubts]
    assert set(light.blocked_by) == {bias.name, flat.name}


def test_the_log_has_what_each_run_said(copy: Copy) -> None:
    """With times; a later run adds to it, and an error stands at its end."""
    raw, out = copy(products=False)
    first = go(raw, out)
    lines = (out / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    said = [line[20:] for line in lines]
    assert said[0].startswith("begun: ")
    assert "option gain: stated" in said
    assert said[-1].startswith(f"ended: exit status {first.exit_status}, ")
    for outcome in first.outcomes:
        told = next(line for line in said if f" {outcome.name} (" in line)
        assert told.startswith(outcome.status)
        assert told.endswith(outcome.reason)
    assert any("trimmed to" in line for line in said)
    again = CliRunner().invoke(main, ["reduce", str(raw), "-o", str(out), "--cosmic-rays", "none", "--gain", "stated"])
    more = (out / "log.txt").read_text().splitlines()[len(lines) :]
    assert sum("(made before)" in line for line in more) == len(first.outcomes)
    # The tables that the command prints, too.
    assert next(line for line in again.output.splitlines() if "up to date" in line) in more


def test_a_run_stops_after_some_failures(copy: Copy) -> None:
    """And the same command goes on from there."""
    raw, out = copy(products=False)
    whole = {name: (raw / name).read_bytes() for name in ("light007.fits", "light008.fits")}
    for name in whole:
        damage(raw / name)
    run = go(raw, out, max_failures=1)
    assert [outcome.status for outcome in run.outcomes][2:] == ["FAILED", "SKIPPED", "SKIPPED"]
    assert "not begun: 1 failed" in run.outcomes[-1].reason
    for name, text in whole.items():
        (raw / name).write_bytes(text)
    assert made(go(raw, out)) == {"007", "008", "009"}


def test_retries(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails for a moment, such as a file server, is tried again at once."""
    raw, out = copy(products=False)
    failures = iter([True, True, False])
    write = Run._write

    def unsteady(self: Run, name: str, reduced: Any, **more: bool) -> str:
        if name == "light008.fits" and next(failures):
            raise OSError("the server does not answer")
        return write(self, name, reduced, **more)

    monkeypatch.setattr(Run, "_write", unsteady)
    run = go(raw, out, retries=2)
    assert all(outcome.is_made for outcome in run.outcomes)
    assert next(failures, None) is None


def test_other_settings_are_refused_by_their_names(copy: Copy) -> None:
    """One folder holds products of one kind; the message has the options of the command and both values."""
    raw, out = copy()
    result = CliRunner().invoke(main, ["reduce", str(raw), "-o", str(out), "--gain", "1.7", "--cosmic-rays", "none"])
    assert result.exit_code == 2
    assert "--gain was 'stated' and is '1.7'; pass --overwrite to make all of them again" in result.output
    shutil.copytree(raw, raw.parent / "raw2")
    with pytest.raises(ResumeError, match="holds products of another run: folder was"):
        go(raw.parent / "raw2", out)


def test_frames_that_are_not_named_this_time_stay(copy: Copy) -> None:
    """A night may be reduced in parts; what an earlier part made stays, and the whole night needs nothing new."""
    raw, out = copy()
    before = content(out)
    part = [*raw.glob("bias*"), *raw.glob("flat*"), raw / "light008.fits"]
    assert made(reduce(part, out, cosmic_rays="none", gain="stated")) == set()
    assert content(out) == before
    assert [item["name"] for item in record(out)["others"]] == ["light007.fits", "light009.fits"]
    assert made(go(raw, out)) == set()


def test_a_kill_between_two_products(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a night that got a frame and was killed while it went on, only what is left is made."""
    raw, out = copy()
    with fits.open(raw / "flat005.fits", mode="update") as hdus:
        hdus[0].header["OBSERVER"] = "x"

    def kill(self: Run, name: str, frame_plans: Any) -> Outcome:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_reduce", kill)
        with pytest.raises(KeyboardInterrupt):
            go(raw, out)
    assert record(out)["state"] == "stopped"
    assert made(go(raw, out)) == {"007", "008", "009"}


def test_damaged_stores_are_made_again(copy: Copy) -> None:
    """A chunk that is gone is seen at once, one with other bytes by its checksum."""
    raw, out = copy(products=False)
    light = next(raw.glob("light*"))
    go(light, out, format="zarr")
    assert go(light, out, format="zarr", verify=True).kept == {light.name}
    for verify in (False, True):
        chunk = next(each for each in next(out.glob("*.zarr")).rglob("*") if each.is_file() and each.suffix != ".json")
        if verify:
            chunk.write_bytes(bytes(chunk.stat().st_size))
        else:
            chunk.unlink()
        assert made(go(light, out, format="zarr", verify=verify)) == {light.name[5:8]}


def test_a_foreign_file_is_not_replaced(copy: Copy) -> None:
    """A product that no run noted is refused, also in a folder that has others."""
    raw, out = copy()
    shutil.copy(raw / "light009.fits", raw / "light010.fits")
    (out / "light010_red.fits").write_bytes(b"mine")
    with pytest.raises(TargetExistsError, match="light010_red"):
        go(raw, out)
    assert (out / "light010_red.fits").read_bytes() == b"mine"
