"""``run.json``: what a run has to tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lazyccd import io, ops
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.measure import numbers_of
from lazyccd.batch.options import Options
from lazyccd.batch.run import Run
from lazyccd.frame.core import resolve
from lazyccd.testing import Detector, Sky, make_night
from lazyccd.testing.steps import formula_frame


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small night: three biases, three flats, two lights."""
    folder = tmp_path_factory.mktemp("record") / "raw"
    make_night(folder, Detector((64, 80)), Sky(stars=4), biases=3, darks=0, flats=3, lights=2)
    return folder


@pytest.fixture(scope="module")
def run(night: Path) -> Run:
    """Return the night, reduced, with a file that is none and one that is processed already."""
    (night / "cut.fits").write_bytes((night / "light007.fits").read_bytes()[:5000])
    with fits.open(night / "light008.fits") as hdus:
        hdus[0].header["CALSTAT"] = "BDF"
        hdus.writeto(night / "old.fits")
    made = Run(build_plan(collect(str(night)), Options(cosmic_rays="none")), night.parent / "out")
    made()
    return made


@pytest.fixture(scope="module")
def record(run: Run) -> dict[str, Any]:
    """Return what the file says; NaN is not JSON."""
    text = (run.out / "run.json").read_text()
    found: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in run.json"))
    return found


def test_every_file_has_a_status_and_every_reason_is_said(record: dict[str, Any], night: Path) -> None:
    """Nothing that lay in the folder is passed over in silence."""
    frames = {item["name"]: item for item in record["frames"]}
    assert set(frames) == {path.name for path in night.iterdir()}
    assert {name for name, item in frames.items() if item["status"] != "DONE"} == {
        "cut.fits",
        "old.fits",
        "light007.fits",
        "light008.fits",
    }
    assert frames["old.fits"]["status"] == frames["cut.fits"]["status"] == "FAILED"
    assert "processed already" in frames["old.fits"]["reason"]
    assert "no dark" not in frames["bias001.fits"]["reason"]
    assert all(item["reason"] for item in record["frames"] if item["status"] != "DONE")


def test_counts_are_those_of_the_lists(record: dict[str, Any]) -> None:
    """Each count is held against what was expected."""
    for title, some in (
        ("frames", record["frames"]),
        ("masters", [item for item in record["products"] if item["kind"] != "science"]),
        ("science", [item for item in record["products"] if item["kind"] == "science"]),
    ):
        counts = dict(record["counts"][title])
        assert counts.pop("expected") == len(some) == sum(counts.values())
        for status, count in counts.items():
            assert count == [item["status"] for item in some].count(status)


def test_numbers_are_those_of_the_files(record: dict[str, Any], run: Run) -> None:
    """Levels, planes and noise are measured on what was written."""
    product = next(item for item in record["products"] if item["kind"] == "science")
    frame = io.open_fits(run.out / product["path"]).compute()
    mask = frame["mask"].values
    for name, part in product["planes"].items():
        assert part == pytest.approx(frame.ccd.is_flagged(name).values.mean())
    assert sum(product["planes"].values()) > 0 or not mask.any()
    bad = mask & resolve(frame).schema.bad_bits != 0
    assert product["bad"] == pytest.approx(bad.mean())
    row = next(row for row in Table.read(run.out / "results.ecsv") if row["name"] == product["name"])
    assert row["bad"] == pytest.approx(bad.mean())
    middle = np.s_[mask.shape[0] // 4 : 3 * mask.shape[0] // 4, mask.shape[1] // 4 : 3 * mask.shape[1] // 4]
    good = frame["data"].values[middle][mask[middle] == 0]
    assert product["level"] == pytest.approx(np.median(good), rel=0.01)
    assert product["noise_expected"] == pytest.approx(np.median(frame["uncertainty"].values[middle]))
    assert product["noise_after"] == pytest.approx(product["noise_expected"], rel=0.2)


def test_bad_pixels_are_counted_once_by_all_planes() -> None:
    """Also by those that only this frame has; a pixel of two planes is one bad pixel, an interpolated one is none."""
    frame = ops.with_mask(formula_frame((40, 50)), None)
    rows, columns = np.zeros((2, 40, 50), bool)
    rows[:10], columns[:, :20] = True, True
    for plane, where in (("GHOST", rows), ("CR", columns)):
        frame = ops.add_mask(frame, where, plane=plane)
    assert numbers_of([frame]).bad == pytest.approx((rows | columns).mean())


def test_the_table_has_a_row_for_each_frame_and_master(record: dict[str, Any], run: Run) -> None:
    """Status and numbers are those of the record; what is not known is empty, and not 0."""
    table = Table.read(run.out / "results.ecsv")
    rows = {row["name"]: row for row in table}
    masters = [item["name"] for item in record["products"] if item["kind"] != "science"]
    assert list(rows) == [*masters, *(item["name"] for item in record["frames"])]
    for item in record["frames"]:
        row = rows[item["name"]]
        # What is empty in ECSV is read as masked.
        assert (row["status"], row["reason"] or "") == (item["status"], item["reason"])
    light, cut = rows["light007.fits"], rows["cut.fits"]
    product = next(item for item in record["products"] if item["name"] == "light007.fits")
    assert (light["noise_after"], light["flat"]) == (product["noise_after"], product["masters"]["flat"][0]["name"])
    assert light["gain"] == Detector().gain_e_per_adu
    assert light["level_of_masters"] == 0
    assert cut["noise_after"] is np.ma.masked


def test_facts_have_their_sources(record: dict[str, Any]) -> None:
    """Every value says where it comes from."""
    facts = next(item for item in record["frames"] if item["name"] == "light007.fits")["facts"]
    assert facts["gain"]["value"] == Detector().gain_e_per_adu
    assert "GAIN" in facts["gain"]["source"]
    assert all(fact["source"] for fact in facts.values())


def test_a_master_that_fails_blocks_its_descendants_only(night: Path, tmp_path: Path) -> None:
    """The flat cannot be made: what needs it is BLOCKED by it, a bias is not."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in night.glob("[bfl]*0*.fits"):
        (folder / path.name).write_bytes(path.read_bytes())
        if "flat" in path.name:
            with fits.open(folder / path.name, mode="update") as hdus:
                hdus[0].data[:] = 60000
    run = Run(build_plan(collect(str(folder)), Options(cosmic_rays="none")), tmp_path / "out")
    run()
    found = {outcome.kind: (outcome.status, outcome.blocked_by) for outcome in run.outcomes}
    flat = next(outcome.name for outcome in run.outcomes if outcome.kind == "flat")
    assert found == {"bias": ("DONE", ()), "flat": ("FAILED", ()), "science": ("BLOCKED", (flat,))}
    assert run.exit_status == 1
