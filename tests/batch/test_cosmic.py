"""Cosmic rays in `lazyccd reduce`: simulated nights of known seeing and known rays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData
from click.testing import CliRunner

import lazyccd
from lazyccd import io
from lazyccd.batch.collect import collect
from lazyccd.batch.cosmic_rays import Stars, check_stars, measure_stars
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.options import Options
from lazyccd.batch.run import Run
from lazyccd.batch.table import load_table, save_table
from lazyccd.cli.main import main
from lazyccd.errors import ParameterError
from lazyccd.plan.cost import BASELINE_BYTES
from lazyccd.sections import Region
from lazyccd.testing import Detector, Night, Sky, make_night

CR = 4


def simulated(folder: Path, fwhm: float) -> Night:
    """Return a night of two frames with many cosmic rays."""
    detector = Detector((360, 340), cosmic_rays_per_s=4e-6)
    sky = Sky(stars=60, galaxies=0, fwhm_px=fwhm)
    return make_night(folder, detector, sky, biases=5, darks=0, flats=5, lights=2)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    """Return a night of good sampling."""
    return simulated(tmp_path_factory.mktemp("sharp"), 3.6)


def reduced(night: Night, out: Path, **options: Any) -> list[Any]:
    """Return the science outcomes of a night."""
    run = Run(build_plan(collect(night.folder), Options(**options)), out)
    run()
    return [outcome for outcome in run.outcomes if outcome.kind == "science"]


@pytest.fixture(scope="module")
def cleaned(night: Night, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return the science outcomes of the night as it is reduced unless options say otherwise."""
    return reduced(night, tmp_path_factory.mktemp("cleaned"))


def test_rays_are_found_and_stars_are_not(night: Night, cleaned: list[Any]) -> None:
    """Most true pixels are flagged, few others are, no star's peak is, and the table says so."""
    for outcome in cleaned:
        truth = next(t for name, t in night.truths.items() if Path(name).name == outcome.name)
        flagged = (io.open_fits(outcome.path)["mask"].values & CR) != 0
        rays = truth.cosmic_rays & ~truth.saturated & ~truth.bad
        assert (flagged & rays).sum() / rays.sum() > 0.8
        assert (flagged & ~truth.cosmic_rays).mean() < 0.005
        text = "; ".join(outcome.messages)
        assert "cosmic rays: " in text
        assert "0 of " in text
        assert "objlim" not in text


def test_filled_pixels_are_true_within_their_error(night: Night, cleaned: list[Any]) -> None:
    """What replaces a ray is the sky there, and its uncertainty honest: not below the noise of a pixel."""
    outcome = cleaned[0]
    truth = next(t for name, t in night.truths.items() if Path(name).name == outcome.name)
    ds = io.open_fits(outcome.path).compute()
    filled = ((ds["mask"].values & (CR | 64)) == CR | 64) & ~truth.bad & ~truth.saturated
    sigma = ds["uncertainty"].values
    pull = ((ds["data"].values - truth.electrons) / sigma)[filled & (truth.electrons < 400)]
    assert pull.size > 100
    assert abs(np.median(pull)) < 0.5
    assert 0.05 < np.std(np.clip(pull, -5, 5)) < 1.5
    # the sky of 240 electrons and the read noise of 6
    assert np.median(sigma[filled]) > math.sqrt(240)


def test_none_leaves_them_and_spectra_are_left_by_themselves(night: Night, tmp_path: Path) -> None:
    """--cosmic-rays none flags nothing; a spectrum is cleaned only if that is asked for."""
    for outcome in reduced(night, tmp_path / "none", cosmic_rays="none"):
        assert not (io.open_fits(outcome.path)["mask"].values & CR).any()
    plan = build_plan(collect(night.folder))
    fact = plan.science[0].facts.mode
    as_spectrum = plan.with_fact(tuple(r.name for r in plan.science), "mode", type(fact)("spectrum", "test"))
    run = Run(as_spectrum, tmp_path / "spectrum")
    run()
    for outcome in run.outcomes[-2:]:
        assert any("left in, as in every spectrum" in message for message in outcome.messages)
        assert not (io.open_fits(outcome.path)["mask"].values & CR).any()


def test_undersampled_stars(tmp_path: Path) -> None:
    """Where stars are narrower than 2.5 pixels, objlim is 10, and that is said."""
    night = simulated(tmp_path / "night", 1.7)
    for outcome in reduced(night, tmp_path / "out"):
        assert any("objlim 10 instead of 5" in message for message in outcome.messages)
        assert "OBJLIM=10" in str(io.open_fits(outcome.path).ccd.header["CRLACOS"]).upper()


@pytest.mark.parametrize("fwhm", [1.8, 2.5, 4.0])
def test_the_width_of_stars(fwhm: float) -> None:
    """Gaussian stars of known width, cosmic rays between them."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:300, :300]
    image = rng.normal(100.0, 5.0, y.shape)
    for cy, cx in rng.uniform(10, 290, (40, 2)):
        image += 4000 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * (fwhm / 2.3548) ** 2))
    image[rng.integers(0, 300, 200), rng.integers(0, 300, 200)] += 3000.0
    stars = measure_stars(lazyccd.from_ccddata(CCDData(image, unit="electron")))
    assert stars.fwhm == pytest.approx(fwhm, rel=0.05)
    assert len(stars.places) > 20


def test_flagged_stars_are_warned_about() -> None:
    """More than one in a hundred is a warning with the way out; a blank image has no stars and says nothing of them."""
    rng = np.random.default_rng(3)
    blank = lazyccd.from_ccddata(CCDData(rng.normal(100.0, 5.0, (60, 60)), unit="electron"))
    stars = measure_stars(blank)
    assert math.isnan(stars.fwhm)
    flagged = np.ones((60, 60), bool)
    assert str(check_stars(flagged, stars)) == "cosmic rays: 100.000% of the pixels"
    image = np.full((60, 60), 100.0)
    image[10::20, 10::20] = 9000.0
    image += rng.normal(0, 1, image.shape)
    from scipy.ndimage import gaussian_filter

    ds = lazyccd.from_ccddata(CCDData(gaussian_filter(image, 1.5), unit="electron"))
    found = check_stars(flagged, measure_stars(ds))
    assert "9 of 9 stars flagged at their peak: WARNING, more than 1%; --cosmic-rays none" in str(found)


@pytest.mark.parametrize(
    ("count", "wrong", "warned"),
    [(34, 0, False), (34, 1, False), (34, 2, False), (34, 3, True), (400, 7, False), (400, 9, True), (900, 14, False)],
)
def test_a_few_flagged_stars_are_chance(count: int, wrong: int, warned: bool) -> None:
    """One of 34 is more than 1% and says nothing; the count must be above that by twice its scatter."""
    mask = np.zeros((30, 30), bool)
    mask.ravel()[:wrong] = True
    places = np.argwhere(np.ones((30, 30)))[:count]
    found = check_stars(mask, Stars(Region(0, 30, 0, 30), places, 3.0, np.ones((30, 30))))
    assert f"; {wrong} of {count} stars flagged at their peak" in str(found)
    assert ("WARNING" in str(found)) is warned
    assert (found.doubt is not None) is warned


def test_little_memory(night: Night, cleaned: list[Any], tmp_path: Path) -> None:
    """Where the whole frame does not fit, it is cleaned in smaller chunks, and no pixel changes."""
    room = 28_000_000  # LA Cosmic with its inputs takes 32 MB for the whole frame, and 26 MB for a chunk of 256
    with dask.config.set({"lazyccd.memory-limit": BASELINE_BYTES + room, "num_workers": 1}):
        outcomes = reduced(night, tmp_path)
    assert [outcome.reason for outcome in outcomes] == [outcome.reason for outcome in cleaned]
    for one, other in zip(outcomes, cleaned, strict=True):
        xr.testing.assert_equal(io.open_fits(one.path).compute(), io.open_fits(other.path).compute())


def test_the_option(night: Night, tmp_path: Path) -> None:
    """A method that is not known is a wrong call; a saved table remembers the option."""
    with pytest.raises(ParameterError, match=r"'median' must be lacosmic, flag, fill or none"):
        Options(cosmic_rays="median")
    result = CliRunner().invoke(main, ["reduce", night.folder, "--dry-run", "--cosmic-rays", "median"])
    assert result.exit_code == 2
    assert "must be lacosmic, flag, fill or none" in result.output
    save_table(build_plan(collect(night.folder), Options(cosmic_rays="none")), tmp_path / "night.ecsv")
    assert load_table(tmp_path / "night.ecsv").options.cosmic_rays == "none"


def many(night: Night, folder: Path) -> None:
    """Copy a night whose light has more rays than the sky sends."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in night.paths:
        with fits.open(name) as hdus:
            if "light" in name:
                y, x = rng.integers(0, 330, (2, 1500))
                hdus[0].data[y, x] += 2000
            hdus[0].writeto(folder / Path(name).name)


@pytest.mark.parametrize(("asked", "flagged", "filled"), [("lacosmic", False, False), ("fill", True, True)])
def test_more_rays_than_possible(night: Night, tmp_path: Path, asked: str, flagged: bool, filled: bool) -> None:
    """The pixels are restored and the product is PARTIAL with the figures; fill replaces them all the same."""
    many(night, tmp_path / "raw")
    run = Run(build_plan(collect(str(tmp_path / "raw")), Options(cosmic_rays=asked)), tmp_path / "out")
    run()
    outcome = run.outcomes[-1]
    assert outcome.status == "PARTIAL"
    assert "of the pixels, more than the 0.50% that are likely" in outcome.reason
    assert run.exit_status == 3
    ds = io.open_fits(outcome.path)
    assert bool(((ds["mask"].values & CR) != 0).mean() > 0.01) is flagged
    assert bool((ds["data"].values > 2000).sum() < 300) is filled


def test_flag_keeps_the_pixels(night: Night, tmp_path: Path) -> None:
    """The same pixels as with fill are flagged, and have the values that they have with none."""
    done = {
        asked: io.open_fits(reduced(night, tmp_path / asked, cosmic_rays=asked)[0].path).compute()
        for asked in ("flag", "fill", "none")
    }
    np.testing.assert_array_equal(done["flag"]["data"].values, done["none"]["data"].values)
    masks = {asked: (ds["mask"].values & CR) != 0 for asked, ds in done.items()}
    np.testing.assert_array_equal(masks["flag"], masks["fill"])
    assert masks["flag"].any()
    assert not masks["none"].any()
