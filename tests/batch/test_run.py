"""Whole nights: simulated ones against their truth, real ones as far as they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

from lazyccd import io
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import FramePlan, product_name
from lazyccd.batch.options import Options
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.resume import NightJournal
from lazyccd.batch.run import Run
from lazyccd.errors import TargetBusyError, TargetExistsError
from lazyccd.testing import Detector, Night, Sky, make_night

SHAPE = (384, 320)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Return a small simulated night."""
    folder = tmp_path_factory.mktemp("night")
    return make_night(folder, Detector(SHAPE), Sky(stars=40, galaxies=8), biases=9, darks=5, flats=7, lights=3)


@pytest.fixture(scope="module")
def run(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the night, reduced."""
    done = Run(build_plan(collect(night.folder)), tmp_path_factory.mktemp("out"))
    done()
    return done


def test_everything_is_complete(run: Run) -> None:
    """Masters and frames of a full night are complete, and the exit status says so."""
    assert {
        outcome.name: (outcome.status, outcome.reason) for outcome in run.outcomes if outcome.status != "DONE"
    } == {}
    assert [outcome.kind for outcome in run.outcomes] == ["bias", "dark", "flat"] + ["science"] * 3
    assert run.exit_status == 0


def test_pulls_have_unit_width_and_zero_mean(night: Night, run: Run) -> None:
    """Result minus truth over uncertainty is a unit normal distribution, through the whole chain."""
    truths = {Path(name).name: truth for name, truth in night.truths.items()}
    for outcome in run.outcomes:
        if outcome.kind != "science":
            continue
        truth = truths[outcome.name]
        ds = io.open_fits(outcome.path).compute()
        good = (ds["mask"].values == 0) & ~truth.bad & ~truth.cosmic_rays & ~truth.saturated
        pull = ((ds["data"].values - truth.electrons) / ds["uncertainty"].values)[good]
        assert good.mean() > 0.95
        # Frames share masters of nine, five and seven frames, whose error moves all of a frame's pixels by chance.
        assert abs(np.mean(pull)) < 0.1
        assert abs(np.std(pull) - 1) < 0.05


def test_saturated_pixels_are_flagged(night: Night, run: Run) -> None:
    """Where the detector is full the product has SAT, and nowhere far from it."""
    truths = {Path(name).name: truth for name, truth in night.truths.items()}
    for outcome in (item for item in run.outcomes if item.kind == "science"):
        ds = io.open_fits(outcome.path)
        flagged = ds.ccd.is_flagged("SAT").values
        truth = truths[outcome.name]
        full = truth.saturated & ~truth.bad
        assert flagged[full].mean() > 0.6 if full.any() else not flagged.any()
        assert not (flagged & (truth.electrons < 0.5 * Detector().full_well_e) & ~truth.cosmic_rays).any()


def test_products_are_what_ccddata_reads(run: Run) -> None:
    """A product has unit, mask, uncertainty and a header that is true for its pixels."""
    outcome = next(item for item in run.outcomes if item.kind == "science")
    ccd = CCDData.read(outcome.path)
    assert ccd.unit.to_string() == "electron"
    assert ccd.shape == SHAPE
    assert ccd.mask is not None
    assert ccd.uncertainty is not None
    header = fits.getheader(outcome.path)
    assert "BIASSEC" not in header
    assert header["GAIN"] == 1.0
    assert header["LZSTATUS"] == "DONE"


def test_levels_in_headers_are_those_of_the_pixels(night: Night, run: Run) -> None:
    """SATURATE of a product is without pedestal and in electrons; a flat of level 1 has neither gain nor saturation."""
    raw = fits.getheader(next(Path(night.folder).glob("*light*")))
    products = {outcome.kind: fits.getheader(outcome.path) for outcome in run.outcomes}
    detector = Detector(SHAPE)
    # Both steps of the pedestal, overscan and bias, are measured to much better than the structure of the bias.
    expected = (raw["SATURATE"] - detector.bias_adu) * detector.gain_e_per_adu
    for kind in ("science", "dark"):
        assert products[kind]["SATURATE"] == pytest.approx(expected, abs=5 * detector.gain_e_per_adu)
    assert any("SATURATE was" in line and "pedestal" in line for line in products["science"]["HISTORY"])
    assert products["bias"]["SATURATE"] == pytest.approx(raw["SATURATE"] - detector.bias_adu, abs=5)
    assert not {"GAIN", "EGAIN", "RDNOISE", "SATURATE", "MAXLIN", "DATAMAX", "DATAMIN"} & set(products["flat"])
    assert products["flat"]["NCOMBINE"] == 7


def test_products_that_exist_are_refused(run: Run, tmp_path: Path) -> None:
    """Nothing that no run has noted is overwritten unless it was asked for, and nothing is begun."""
    again = Run(run.plan, tmp_path)
    path = again.target(run.plan.science[0].name)
    path.write_bytes(b"mine")
    with pytest.raises(TargetExistsError, match="--overwrite"):
        again()
    assert again.outcomes == []
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / ".lazyccd-progress").exists()


def test_a_night_that_another_reduces(run: Run, tmp_path: Path) -> None:
    """It is refused by the name of the folder that the caller gave."""
    (tmp_path / "out").mkdir()
    notes = NightJournal(run.plan, tmp_path / "out", "fits", break_lock=False)
    notes.begin({}, overwrite=False)
    with pytest.raises(TargetBusyError, match=rf"^{tmp_path}/out is being written by process"):
        Run(run.plan, tmp_path / "out")()
    notes.release()


def test_a_failure_stays_with_its_frame(night: Night, tmp_path: Path) -> None:
    """A frame that is cut short after the plan was made fails alone, with its file named."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in night.paths:
        (folder / Path(path).name).write_bytes(Path(path).read_bytes())
    plan = build_plan(collect(str(folder)))
    victim = folder / plan.science[1].name
    victim.write_bytes(victim.read_bytes()[: 2880 * 20])
    run = Run(plan, tmp_path / "out")
    run()
    status = {outcome.name: outcome.status for outcome in run.outcomes if outcome.kind == "science"}
    assert status == {item.name: "FAILED" if item.name == victim.name else "DONE" for item in plan.science}
    failed = next(outcome for outcome in run.outcomes if outcome.status == "FAILED")
    assert victim.name in failed.reason
    assert run.exit_status == 1
    assert not run.target(plan.science[1].name).exists()
    assert not list((tmp_path / "out").glob("*.part"))


def test_zarr_products(night: Night, tmp_path: Path) -> None:
    """The same pixels come out as FITS and as Zarr."""
    plan = build_plan(collect(night.folder))
    for form in ("fits", "zarr"):
        Run(plan, tmp_path / form, form)()  # type: ignore[arg-type]
    name = product_name(plan.science[0].name)
    one = io.open_fits(tmp_path / "fits" / f"{name}_red.fits").compute()
    other = io.open_zarr(tmp_path / "zarr" / f"{name}_red.zarr").compute()
    for variable in ("data", "uncertainty", "mask"):
        np.testing.assert_array_equal(one[variable].values, other[variable].values)


def test_measured_gain_and_read_noise(night: Night, tmp_path: Path) -> None:
    """Pairs of flats and bias give the simulator's gain and read noise, and are used if asked for."""
    run = Run(build_plan(collect(night.folder), Options(gain="measured")), tmp_path)
    run.measure()
    facts = run.plan.science[0].facts
    assert facts.gain.value == pytest.approx(Detector().gain_e_per_adu, rel=0.05)
    assert facts.readnoise.value == pytest.approx(Detector().readnoise_e, rel=0.05)
    assert facts.gain.source == "measured by pairs"


@pytest.mark.parametrize(
    ("folder", "complete", "partial"),
    [
        ("isis_wht", 0, 2),
        pytest.param("efosc2_ntt", 6, 1, marks=pytest.mark.slow),
        pytest.param("tres1_oscaar", 0, 6, marks=pytest.mark.slow),
    ],
)
def test_real_nights(shared_data: Path, tmp_path: Path, folder: str, complete: int, partial: int) -> None:
    """The nights of three real cameras reduce; what they lack is said."""
    run = Run(build_plan(collect(str(shared_data / folder))), tmp_path)
    run()
    status = [outcome.status for outcome in run.outcomes if outcome.kind == "science"]
    assert (status.count("DONE"), status.count("PARTIAL")) == (complete, partial)
    assert run.exit_status == 3
    for outcome in run.outcomes:
        values = io.open_fits(outcome.path)["data"].values
        assert np.isfinite(values).all()


@pytest.mark.parametrize("form", ["fits", "zarr"])
def test_an_interrupted_night_goes_on(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Literal["fits", "zarr"]
) -> None:
    """Products that are complete stay as they are, others are made; then the night counts as done."""
    plan = build_plan(collect(night.folder), Options(cosmic_rays="none"))
    made: list[str] = []
    original = Run._reduce

    def reduce(self: Run, name: str, frame_plans: list[FramePlan]) -> Outcome:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(name)
        return original(self, name, frame_plans)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_reduce", reduce)
        with pytest.raises(KeyboardInterrupt):
            Run(plan, tmp_path, form)()
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.fits")}
    assert len(before) == (5 if form == "fits" else 3)
    run = Run(plan, tmp_path, form, verify=True)
    outcomes = run()
    assert [outcome.status for outcome in outcomes] == ["DONE"] * 6
    assert [outcome.kind for outcome in outcomes] == ["bias", "dark", "flat"] + ["science"] * 3
    assert {path: path.stat().st_ino for path in before} == before
    assert not (tmp_path / ".lazyccd-progress").exists()
    again = Run(plan, tmp_path, form)
    assert [outcome.status for outcome in again()] == ["DONE"] * 6
    assert len(again.kept) == 6
    assert {path: path.stat().st_ino for path in before} == before
    assert not (tmp_path / ".lazyccd-progress").exists()


def test_saturated_flats_are_excluded_by_their_level(tmp_path: Path) -> None:
    """A flat that is saturated everywhere is said to be too bright, and the others make the master."""
    night = make_night(tmp_path / "raw", Detector((96, 128)), Sky(stars=3), biases=2, darks=0, flats=3, lights=0)
    flat = next(path for path in night.paths if "flat" in Path(path).name)
    with fits.open(flat, mode="update") as hdus:
        hdus[0].data[:, :128] = 65535
    run = Run(build_plan(collect(night.folder)), tmp_path / "out")
    run()
    made = {outcome.kind: outcome for outcome in run.outcomes}["flat"]
    assert made.messages[0] == "median of 2"
    assert "level 64" in made.messages[1]
    assert "is above 80% of saturation" in made.messages[1]
