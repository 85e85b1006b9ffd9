"""Products of simulated nights against their truth: the pull has unit width, whatever camera and exposures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lazyccd import io
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.run import Run
from lazyccd.testing import Detector, Sky, make_night

CAMERAS = {
    "as the demo": (Detector((256, 320)), Sky(stars=40, galaxies=8), 120.0),
    "dark scaled up": (Detector((256, 320), dark_e_s=0.3, seed=8), Sky(seed=2), 60.0),
    "dark scaled down": (Detector((320, 256), gain_e_per_adu=1.0, dark_e_s=0.3, seed=9), Sky(seed=3), 480.0),
    "faint sky": (Detector((256, 320), gain_e_per_adu=2.5, readnoise_e=9.0), Sky(background_e_s=0.2), 120.0),
    "bright sky": (Detector((256, 320), gain_e_per_adu=4.0, seed=11), Sky(background_e_s=30.0, seed=5), 120.0),
}
"""Camera, sky, and exposure of the darks; that of the lights is 120 s."""

USUAL = ("as the demo", "dark scaled up")
"""Cameras that are always tried; the others only with ``-m slow``."""


@pytest.mark.parametrize(
    "name", [*USUAL, *(pytest.param(name, marks=pytest.mark.slow) for name in CAMERAS if name not in USUAL)]
)
def test_pull(name: str, tmp_path: Path) -> None:
    r"""Width 1 within 2 %, masters of few frames and scaled darks included; the mean is what Poisson noise makes of it.

    The variance is made from the noisy pixel itself: a low one has a low variance. To first order that moves the mean of
    the pull by :math:`-\sigma_1^2 / (2 \sigma^3)`, with the noise of the frame without its masters :math:`\sigma_1`: by 0.03
    here, as in every such reduction.
    """
    detector, sky, dark_s = CAMERAS[name]
    night = make_night(tmp_path / "raw", detector, sky, biases=5, darks=4, flats=5, lights=2, dark_s=dark_s)
    run = Run(build_plan(collect(night.folder)), tmp_path / "out")
    run()
    truths = {Path(path).name: truth for path, truth in night.truths.items()}
    science = [outcome for outcome in run.outcomes if outcome.kind == "science"]
    assert [outcome.status for outcome in science] == ["DONE"] * 2
    for outcome in science:
        truth, ds = truths[outcome.name], io.open_fits(outcome.path).compute()
        assert f"dark_exposure={dark_s} s, data_exposure=120.0 s" in ds.ccd.header["SUBDARK"]
        good = (ds["mask"].values == 0) & ~truth.bad & ~truth.cosmic_rays & ~truth.saturated
        sigma = ds["uncertainty"].values[good].astype(float)
        pull = (ds["data"].values - truth.electrons)[good] / sigma
        own = truth.electrons[good] + detector.readnoise_e**2
        expected = -np.mean(own / (2 * sigma**3))
        assert np.std(pull) == pytest.approx(1, abs=0.02)
        assert np.mean(pull) == pytest.approx(expected, abs=0.02)


def test_a_bias_that_frame_and_dark_share_is_counted_once(tmp_path: Path) -> None:
    """At equal exposure the bias cancels, and its noise with it; the master dark says that it leaves it out."""
    night = make_night(tmp_path / "raw", Detector((128, 160)), Sky(stars=5), biases=2, darks=2, flats=2, lights=1)
    run = Run(build_plan(collect(night.folder)), tmp_path / "out")
    run()
    ds = {path.stem.split("_")[0]: io.open_fits(path).compute() for path in (tmp_path / "out" / "masters").glob("*")}
    frame = io.open_fits(next(outcome.path for outcome in run.outcomes if outcome.kind == "science")).compute()
    variance = {name: master["uncertainty"].values.astype(float) ** 2 for name, master in ds.items()}
    flat = ds["flat"]["data"].values.astype(float)
    signal = frame["data"].values * flat + ds["dark"]["data"].values
    own = (np.maximum(signal, 0) + 36 + variance["dark"]) / flat**2 + (frame["data"].values / flat) ** 2 * variance[
        "flat"
    ]
    good = frame["mask"].values == 0
    np.testing.assert_allclose(frame["uncertainty"].values[good] ** 2, own[good], rtol=1e-4)
    header = fits.getheader(next((tmp_path / "out" / "masters").glob("dark*")))
    assert (header["LZNOISE"], header["LZMAST1"]) == ("own frames", "bias_2026-01-14")
