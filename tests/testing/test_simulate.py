"""The simulator's frames have the statistics that its truth states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lazyccd.testing.simulate import ADC_MAX, Detector, Exposure, Sky, make_exposure, make_night

CAMERA = Detector(shape=(300, 400), gain_e_per_adu=1.7, readnoise_e=8.0, dark_e_s=0.5)
EMPTY = Sky(stars=0, galaxies=0)


def light_sensitive(exposure: Exposure) -> npt.NDArray[np.floating]:
    """Return the pixels without overscan, its level subtracted, in adu."""
    nx = exposure.truth.detector.shape[1]
    return exposure.pixels[:, :nx] - np.median(exposure.pixels[:, nx:].astype(float))


def pair(kind: str, seconds: float = 5.0, camera: Detector = CAMERA) -> list[npt.NDArray[np.floating]]:
    """Return two exposures that differ in their noise only."""
    return [light_sensitive(make_exposure(camera, EMPTY, kind, seconds, seed=s)) for s in (1, 2)]  # type: ignore[arg-type]


def usable(*exposures: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return where no cosmic ray and no dead or hot pixel disturbs."""
    difference = exposures[0] - exposures[1]
    return (np.abs(difference) < 6 * np.std(difference)) & ~CAMERA.bad


def test_gain_by_photon_transfer() -> None:
    """Signal over variance of flat pairs is the gain; the read noise is that of bias pairs."""
    biases, flats = pair("bias"), pair("flat")
    good = usable(*flats)
    read = np.var((biases[0] - biases[1])[good]) / 2
    shot = np.var((flats[0] - flats[1])[good]) / 2
    assert np.sqrt(read) * CAMERA.gain_e_per_adu == pytest.approx(CAMERA.readnoise_e, rel=0.02)
    signal = np.mean((flats[0] + flats[1] - biases[0] - biases[1])[good]) / 2
    assert signal / (shot - read) == pytest.approx(CAMERA.gain_e_per_adu, rel=0.02)


def test_bias_structure_and_level() -> None:
    """The mean of many biases is the structure; the overscan has the bias level and no structure."""
    frames = [make_exposure(CAMERA, EMPTY, "bias", seed=s) for s in range(30)]
    mean = np.mean([light_sensitive(f) for f in frames], axis=0)
    noise = CAMERA.readnoise_e / CAMERA.gain_e_per_adu / np.sqrt(30)
    residual = mean - CAMERA.bias
    assert np.std(residual) == pytest.approx(noise, rel=0.1)
    strips = np.array([f.pixels[:, 403:].mean() for f in frames])
    assert strips.mean() == pytest.approx(CAMERA.bias_adu, abs=1.5)
    assert strips.std() == pytest.approx(1.5, rel=0.5)  # the level drifts from frame to frame
    assert all(f.header["EXPTIME"] == 0 for f in frames)


def test_dark_current_grows_with_time() -> None:
    """Electrons per second of ordinary and hot pixels are those of the detector."""
    long = np.mean([light_sensitive(make_exposure(CAMERA, EMPTY, "dark", 400.0, seed=s)) for s in range(6)], axis=0)
    rate = (long - CAMERA.bias) * CAMERA.gain_e_per_adu / 400
    ordinary = ~CAMERA.bad & (CAMERA.dark_rate < 2)
    assert np.median(rate[ordinary]) == pytest.approx(CAMERA.dark_e_s, rel=0.03)
    hot = ~CAMERA.bad & (CAMERA.dark_rate > 10) & (CAMERA.dark_rate < 200)
    assert hot.sum() > 20
    np.testing.assert_allclose(np.median(rate[hot] / CAMERA.dark_rate[hot]), 1, rtol=0.02)


def test_flat_field() -> None:
    """Flats show the sensitivity, pixel by pixel, to their shot noise."""
    flats = [light_sensitive(make_exposure(CAMERA, EMPTY, "flat", 1.0, seed=s)) for s in range(12)]
    seen = (np.median(flats, axis=0) - CAMERA.bias) * CAMERA.gain_e_per_adu / 30000
    good = ~CAMERA.bad & (CAMERA.dark_rate < 5)
    assert np.std((seen / CAMERA.flat)[good]) < 0.003
    assert np.std(CAMERA.flat) > 0.02
    assert np.corrcoef(seen[good], CAMERA.flat[good])[0, 1] > 0.99


def test_dead_and_full_pixels() -> None:
    """Dead pixels see nothing; full ones hold the full well, or what the converter can say."""
    exposure = make_exposure(CAMERA, Sky(stars=150, seed=3), "light", 900.0, seed=1)
    signal = (light_sensitive(exposure) - CAMERA.bias) * CAMERA.gain_e_per_adu
    truth = exposure.truth
    assert truth.bad.sum() > 20
    assert np.abs(signal[truth.bad]).max() < 6 * CAMERA.readnoise_e
    full = truth.saturated & ~truth.bad
    assert full.sum() > 5
    np.testing.assert_allclose(signal[full], CAMERA.full_well_e, atol=6 * CAMERA.readnoise_e)
    assert signal[~full].max() < CAMERA.full_well_e + 6 * CAMERA.readnoise_e
    coarse = Detector(shape=(100, 100), gain_e_per_adu=0.5, full_well_e=1e6)
    clipped = make_exposure(coarse, EMPTY, "flat", 1.0, flat_level_e=5e5, seed=1)
    assert (clipped.pixels[:, :100][~coarse.bad] == ADC_MAX).all()
    assert clipped.truth.saturated[~coarse.bad].all()
    assert clipped.header["SATURATE"] == ADC_MAX


def test_cosmic_rays_are_where_the_truth_says() -> None:
    """Outliers of a long dark above its hot pixels lie in the truth's pixels, and these are bright."""
    camera = Detector(shape=(400, 400), cosmic_rays_per_s=1e-6)
    exposure = make_exposure(camera, EMPTY, "dark", 600.0, seed=4)
    extra = (light_sensitive(exposure) - camera.bias) * camera.gain_e_per_adu - camera.dark_rate * 600
    noise = np.sqrt(camera.readnoise_e**2 + camera.dark_rate * 600)
    rays = exposure.truth.cosmic_rays & ~camera.bad & ~exposure.truth.saturated
    assert 60 < rays.sum() < 3000
    assert (extra[rays] > 5 * noise[rays]).mean() > 0.95
    assert (
        np.abs(extra[~rays & ~camera.bad & ~exposure.truth.saturated])
        < 6 * noise[~rays & ~camera.bad & ~exposure.truth.saturated]
    ).all()


@pytest.mark.filterwarnings("ignore:'datfix' made the change")
def test_stars_lie_where_the_wcs_says() -> None:
    """The positions of two dithered exposures agree on the sky; a star's light is what the catalogue says."""
    sky, camera = Sky(stars=6, galaxies=0, seed=5), Detector(shape=(300, 400), bad_fraction=0, cosmic_rays_per_s=0)
    expected = sky.catalogue(camera.shape)
    here = make_exposure(camera, sky, "light", 100.0, seed=1)
    there = make_exposure(camera, sky, "light", 100.0, seed=2, dither=(7.0, -4.0))
    for exposure, dither in ((here, (0, 0)), (there, (7, -4))):
        wcs = WCS(exposure.header)
        ra, dec = WCS(here.header).all_pix2world(expected[:, 1], expected[:, 0], 0)
        x, y = wcs.all_world2pix(ra, dec, 0)
        np.testing.assert_allclose(x, expected[:, 1] + dither[1], atol=1e-3)
        np.testing.assert_allclose(y, expected[:, 0] + dither[0], atol=1e-3)
        brightest = np.argmax(expected[:, 2])
        row, column = round(y[brightest]), round(x[brightest])
        box = exposure.truth.electrons[row - 3 : row + 4, column - 3 : column + 4]
        assert np.unravel_index(np.argmax(box), box.shape) == (3, 3)
    flux = here.truth.electrons - sky.background_e_s * 100
    inside = expected[np.all((expected[:, :2] > 40) & (expected[:, :2] < [260, 360]), axis=1)]
    assert 0.95 * 100 * inside[:, 2].sum() < flux.sum() < 1.001 * 100 * expected[:, 2].sum()


def test_noise_of_the_sky() -> None:
    """Differences of two exposures of the same sky have the variance that electrons and read noise have."""
    lights = [light_sensitive(make_exposure(CAMERA, EMPTY, "light", 200.0, seed=s)) for s in (1, 2)]
    good = usable(*lights) & (CAMERA.dark_rate < 2)
    expected = (2.0 * CAMERA.flat + CAMERA.dark_rate)[good].mean() * 200 + CAMERA.readnoise_e**2
    measured = np.var((lights[0] - lights[1])[good]) / 2 * CAMERA.gain_e_per_adu**2
    assert measured == pytest.approx(expected, rel=0.03)


def test_the_same_seed_is_the_same_frame() -> None:
    """Whatever was simulated before; another seed has other noise and the same sky."""
    first = make_exposure(CAMERA, Sky(), "light", 30.0, seed=9)
    make_exposure(CAMERA, Sky(), "flat", 30.0, seed=10)
    again = make_exposure(
        Detector(shape=(300, 400), gain_e_per_adu=1.7, readnoise_e=8.0, dark_e_s=0.5), Sky(), "light", 30.0, seed=9
    )
    other = make_exposure(CAMERA, Sky(), "light", 30.0, seed=11)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.pixels != other.pixels).mean() > 0.5
    np.testing.assert_array_equal(first.truth.electrons, other.truth.electrons)


def test_night(tmp_path: Path) -> None:
    """Raw FITS files as a camera leaves them: types, sections, times that go on, unsigned integers."""
    night = make_night(
        tmp_path, Detector(shape=(60, 80)), Sky(stars=3, galaxies=0), biases=2, darks=1, flats=2, lights=1
    )
    assert [Path(p).name for p in night.paths] == [
        "bias001.fits", "bias002.fits", "dark003.fits", "flat004.fits", "flat005.fits", "light006.fits",
    ]  # fmt: skip
    times = []
    for path in night.paths:
        header = fits.getheader(path)
        times.append(header["DATE-OBS"])
        assert (header["BITPIX"], header["BZERO"]) == (16, 32768)
        assert header["BIASSEC"] == "[84:112,1:60]"
        assert header["TRIMSEC"] == "[1:80,1:60]"
        assert header["EXPTIME"] == night.truths[path].exposure_s
    assert times == sorted(times)
    assert len(set(times)) == len(times)
