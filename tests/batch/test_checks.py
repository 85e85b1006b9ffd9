"""Checks of results on simulated frames: each finds what is wrong, and nothing in frames that are right."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from lazyccd.batch import checks
from lazyccd.batch.cosmic_rays import count_hits, flux_changes, flux_doubt, pixel_area
from lazyccd.batch.make_masters import negative_darks
from lazyccd.batch.night_plan import MasterGroup

Array = npt.NDArray[np.float64]
SHAPE = (256, 288)
READ = 5.0


def smooth(rng: np.random.Generator, size: float = 40.0) -> Array:
    """Return large structure with a scatter of 1."""
    values: Array = ndimage.gaussian_filter(rng.normal(size=SHAPE), size)
    return (values - values.mean()) / values.std()


def columns(rng: np.random.Generator, scatter: float) -> Array:
    """Return a pattern of columns with some of single pixels, as a bias has it."""
    return rng.normal(0, scatter, SHAPE[1]) + rng.normal(0, scatter, SHAPE)


@pytest.mark.parametrize("scatter", [4.0, 6.0, 10.0, 20.0, 100.0])
@pytest.mark.parametrize("factor", [1.0, 0.0, 2.0])
def test_a_bias_of_another_detector(scatter: float, factor: float) -> None:
    """Its structure is there negative; that of a bias that belongs is gone; what is half subtracted is left."""
    rng = np.random.default_rng(int(scatter))
    pattern, noise = columns(rng, scatter), 2.5
    master = pattern + rng.normal(0, noise, SHAPE)
    after = 300 + factor * pattern + rng.normal(0, math.hypot(READ, 15), SHAPE) - master
    left = checks.structure_left(after, master, noise)
    assert left is not None
    assert left.fraction == pytest.approx(factor - 1, abs=0.2)
    assert left.is_beyond(checks.STRUCTURE_LEFT) is (factor != 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_master_without_structure(seed: int) -> None:
    """Noise alone says nothing about whether a master belongs."""
    rng = np.random.default_rng(seed)
    master = rng.normal(0, 2.5, SHAPE)
    assert checks.structure_left(rng.normal(0, 5, SHAPE) - master, master, 2.5) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("glow", [10.0, 100.0, 1000.0])
def test_noise_that_differs_across_a_dark(seed: int, glow: float) -> None:
    """The glow of an amplifier is noisier than the rest, which is no structure that could be there negative."""
    rng = np.random.default_rng(seed)
    level = 4 + glow * np.exp(-np.linspace(0, 5, SHAPE[1])) * np.ones(SHAPE)
    noise = np.sqrt((level + 4) / 5)
    master = level + rng.normal(0, noise)
    after = 500 + rng.normal(0, np.sqrt(500 + level)) + level - master
    left = checks.structure_left(after, master, noise)
    assert left is None or not left.is_beyond(checks.STRUCTURE_LEFT)
    found = checks.structure_left(after, master, float(np.median(noise)))
    assert glow < 100 or (found is not None and found.fraction < -checks.STRUCTURE_LEFT)


@pytest.mark.parametrize("scale", [0.3, 0.6, 1.0, 1.5, 3.0])
def test_a_dark_of_another_scale(scale: float) -> None:
    """Hot pixels are left where too little was subtracted, and there negative where too much was."""
    rng = np.random.default_rng(3)
    dark = np.full(SHAPE, 6.0)
    hot = rng.random(SHAPE) < 2e-3
    dark[hot] *= rng.uniform(50, 400, hot.sum())
    subtracted = scale * dark + rng.normal(0, 2, SHAPE)
    after = rng.poisson(200 + dark) + rng.normal(0, READ, SHAPE) - subtracted
    left = checks.hot_pixels_left(after, subtracted)
    assert left is not None
    assert left.fraction == pytest.approx(1 / scale - 1, abs=0.05)
    assert left.is_beyond(checks.HOT_LEFT) is (scale != 1)


def test_a_dark_of_few_hot_pixels() -> None:
    """Too few of them say nothing."""
    dark = np.random.default_rng(0).normal(0, 1, SHAPE)
    dark[5, 5:9] = 1000
    assert checks.hot_pixels_left(-dark, dark) is None
    assert checks.hot_pixels_left(np.full(SHAPE, np.nan), dark) is None


@pytest.mark.parametrize("amplitude", [0.03, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("belongs", [True, False])
def test_shading_of_a_flat(amplitude: float, belongs: bool) -> None:
    """A flat of another filter is left inverted in the sky."""
    rng = np.random.default_rng(round(1000 * amplitude))
    flat = np.exp(amplitude * smooth(rng))
    sky = 400 * (flat if belongs else np.ones(SHAPE)) * (1 + 0.01 * np.linspace(-1, 1, SHAPE[0])[:, None])
    left = checks.shading_left(rng.poisson(sky) / flat, flat)
    assert left is not None
    assert left.fraction == pytest.approx(0 if belongs else -1, abs=0.35)
    assert left.is_beyond(checks.SHADING_LEFT) is not belongs


@pytest.mark.parametrize("scatter", [0.02, 0.03, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("belongs", [True, False])
def test_a_flat_that_brightens_the_noise(scatter: float, belongs: bool) -> None:
    """The pixels of a flat that does not belong are put into the frame."""
    rng = np.random.default_rng(round(1000 * scatter))
    flat, noise = 1 + rng.normal(0, scatter, SHAPE).clip(-0.7, 0.7), 0.003
    master = flat + rng.normal(0, noise, SHAPE)
    after = rng.poisson(1000 * (flat if belongs else np.ones(SHAPE))) / master
    left = checks.structure_left(after / np.median(after), master, noise)
    assert left is not None
    assert left.is_beyond(checks.STRUCTURE_LEFT) is not belongs


def test_a_flat_without_shading_or_a_frame_without_sky() -> None:
    """There is nothing to compare."""
    rng = np.random.default_rng(1)
    flat = np.exp(0.1 * smooth(rng))
    assert checks.shading_left(rng.normal(0, 5, SHAPE), flat) is None
    assert checks.shading_left(rng.poisson(400, SHAPE).astype(float), np.ones(SHAPE)) is None


@pytest.mark.parametrize(
    ("level", "found"), [(0.0, False), (-1.0, False), (-3.0, True), (-50.0, True), (-800.0, True), (20.0, False)]
)
def test_negative_sky(level: float, found: bool) -> None:
    """A median well below 0 is no light; a bias that drifts by a fraction of the noise is usual."""
    values = np.random.default_rng(2).normal(level, READ, SHAPE)
    assert ("sky is negative" in checks.too_dark(values, READ)) is found


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.2, 0.4])
def test_a_part_far_below_zero(fraction: float) -> None:
    """The darkest pixels of a bright frame lie below 0 where the bias jumped."""
    values = np.random.default_rng(2).normal(50, READ, SHAPE)
    values[: round(fraction * SHAPE[0])] -= 300
    assert ("below 0" in checks.too_dark(values, READ)) is (fraction > 0.02)


@pytest.mark.parametrize(
    ("part", "value"), [((0, 64), 0), ((64, 128), 0), ((208, 256), 1000), ((0, 256), 7), ((96, 112), 0)]
)
def test_an_amplifier_that_is_constant(part: tuple[int, int], value: int) -> None:
    """Equal pixels are no image, wherever they are; noise of a third of an adu is one."""
    values = np.rint(np.random.default_rng(4).normal(1000, 0.35, SHAPE))
    assert checks.constant_part(values) == 0
    values[slice(*part)] = value
    assert checks.constant_part(values) == pytest.approx((part[1] - part[0]) / SHAPE[0], abs=0.01)
    values[slice(*part)] = np.nan
    assert checks.constant_part(values) == 0


@pytest.mark.parametrize("gain", [0.2, 0.4, 1.0, 3.0, 8.0])
def test_a_gain_that_the_noise_contradicts(gain: float) -> None:
    """A stated gain of so many times the true one makes the noise of the sky so much too small or large."""
    rng = np.random.default_rng(5)
    adu = rng.poisson(900, SHAPE) + rng.normal(0, READ, SHAPE)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for cy, cx in rng.uniform(0, 256, (60, 2)):
        adu += 3e4 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8)
    electrons = adu * gain
    said = checks.wrong_noise(electrons, np.sqrt(np.maximum(electrons, 0) + READ**2), flattened=True)
    assert bool(said) is (gain != 1.0)
    # without a flat, what is too much may be the pixels' sensitivities
    said = checks.wrong_noise(electrons, np.sqrt(np.maximum(electrons, 0) + READ**2), flattened=False)
    assert bool(said) is (gain < 1)


def test_checks_of_nothing() -> None:
    """An image that is bad everywhere raises no doubt."""
    nothing = np.full(SHAPE, np.nan)
    assert checks.structure_left(nothing, nothing, 1.0) is None
    assert checks.shading_left(nothing, nothing) is None
    assert checks.too_dark(nothing, 1.0) == ""
    assert checks.wrong_noise(nothing, nothing, flattened=True) == ""
    assert checks.piled_up(nothing) is None


@pytest.mark.parametrize("level", [4095, 16383, 30000, 50000, 65535])
def test_the_level_at_which_pixels_pile_up(level: int) -> None:
    """Stars that are cut at a level show it; stars that are not show none, nor does a sky of few values."""
    rng = np.random.default_rng(level)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = 1000 + rng.normal(0, READ, SHAPE)
    for cy, cx in rng.uniform(10, 240, (20, 2)):
        image += rng.uniform(0.3, 2) * level * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 8)
    found = checks.piled_up(np.rint(np.minimum(image, level)))
    assert found is not None
    assert found[0] == level
    assert found[1] > 8
    assert checks.piled_up(np.rint(image)) is None
    assert checks.piled_up(np.rint(rng.normal(1000, 0.2 + level / 1e5, SHAPE))) is None


@pytest.mark.parametrize(
    ("cards", "binning", "micron"),
    [
        ({"XPIXSZ": 9.0, "YPIXSZ": 9.0}, "2x2", 81.0),
        ({"PIXSIZE1": 15, "PIXSIZE2": "15.0"}, "2x2", 900.0),
        ({"PIXSIZE": 13.5}, None, 182.25),
        ({"ESO DET CHIP1 PSZX": 15.0, "ESO DET CHIP1 PSZY": 15.0}, "1x1", 225.0),
        ({"XPIXSZ": 0.0, "XPIXSIZE": 24.0}, "1x2", 1152.0),
        ({"PIXSIZE1": 0.015}, "1x1", math.nan),
        ({}, "1x1", math.nan),
        ({"PIXSIZE": "unknown"}, "1x1", math.nan),
    ],
)
def test_the_area_of_a_pixel(cards: dict[str, object], binning: str | None, micron: float) -> None:
    """Sizes are in micron; of an unbinned pixel unless the keyword means a binned one."""
    assert pixel_area(cards, binning) == pytest.approx(micron * 1e-8, nan_ok=True)


@pytest.mark.parametrize(
    ("hits", "exposure", "micron", "doubtful"),
    [
        (10, 60.0, 15.0, False),
        (60, 1.0, 15.0, True),
        (60, 1800.0, 15.0, False),
        (400, 60.0, 24.0, True),
        (200, None, math.nan, False),
        (400, None, math.nan, False),
        (3000, 60.0, math.nan, True),
        (3000, 36000.0, math.nan, False),
    ],
)
def test_more_hits_than_possible(hits: int, exposure: float | None, micron: float, doubtful: bool) -> None:
    """20 per cm2 and minute are the most, or half a percent of the pixels; longer exposures have more."""
    flagged = np.zeros(SHAPE, bool)
    places = np.argwhere(np.ones((64, 72)))[:hits] * 4 + 1
    flagged[tuple(places.T)] = True
    found = count_hits(flagged, exposure, micron**2 * 1e-8)
    assert found.count == hits
    assert (found.doubt is not None) is doubtful


def test_pixels_that_touch_are_one_hit() -> None:
    """Also those that touch by their corners."""
    assert count_hits(np.eye(100, dtype=bool), 60.0, math.nan).count == 1


def stars(kind: str, rng: np.random.Generator) -> Array:
    """Return an image of stars: sharp, bright, defocused rings, saturated plateaus, or of 40 rays and no stars."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = 100 + rng.normal(0, 10, SHAPE)
    for cy, cx in rng.uniform(20, 230, (12, 2)):
        r = np.hypot(y - cy, x - cx)
        image += {
            "sharp": 3000 * np.exp(-(r**2) / 2),
            "bright": 5e5 * np.exp(-(r**2) / 5),
            "defocused": 800.0 * ((r > 5) & (r < 11)),
            "saturated": np.minimum(3e5 * np.exp(-(r**2) / 10), 6e4),
            "galaxies": 2000 * np.exp(-r / 5),
            "rays": 0.0 * r,
        }[kind]
    return image


@pytest.mark.parametrize("kind", ["sharp", "bright", "defocused", "saturated", "galaxies"])
def test_flux_that_cleaning_took(kind: str) -> None:
    """Peaks that were cut are found for stars of every kind; rays beside them change no flux."""
    rng = np.random.default_rng(7)
    before = stars(kind, rng)
    rays = before.copy()
    for y, x in rng.integers(0, 240, (30, 2)):
        rays[y, x : x + 4] += 4000
    changes = flux_changes(rays, before)
    # galaxies that cover much of the image are hit by chance, and then not compared
    assert changes.changes.size >= 5 or kind == "galaxies"
    assert flux_doubt(changes) is None
    peaks = 0.7 * (ndimage.maximum_filter(before, 25) - 100) + 100
    cut = np.where(before > 300, np.minimum(before, peaks), before)
    said = flux_doubt(flux_changes(before, cut))
    assert said is not None
    assert "changed by" in said.text


@pytest.mark.parametrize(
    ("rays", "lost", "doubtful"),
    [(0, 1, True), (0, 0, False), (1, 1, False), (2, 4, True), (40, 1, False), (40, 12, True)],
)
def test_stars_that_lost_light_where_hardly_a_ray_fell(rays: int, lost: int, doubtful: bool) -> None:
    """One star that loses a tenth is a doubt where no ray fell beside the stars; among many rays it was hit by one."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    before = 100 + rng.normal(0, 10, SHAPE)
    centres = [(20 + 40 * i, 20 + 40 * j) for i in range(6) for j in range(6)]
    for cy, cx in centres:
        before += 3000 * np.exp(-(np.hypot(y - cy, x - cx) ** 2) / 5)
    after = before.copy()
    for cy, cx in centres[:lost]:
        after[cy, cx - 1 : cx + 2] -= 1200
    for k in range(rays):
        before[5 + 5 * k, 40:42] += 4000
    said = flux_doubt(flux_changes(before, after))
    assert (said is not None) is doubtful
    assert said is None or f"{lost} of 36 stars lost up to" in said.text


def test_flux_without_stars() -> None:
    """Rays alone are no stars."""
    rng = np.random.default_rng(8)
    before = stars("rays", rng)
    after = before.copy()
    for y, x in rng.integers(0, 240, (80, 2)):
        before[y, x : x + 4] += 4000
    assert flux_doubt(flux_changes(before, after)) is None
    assert flux_changes(np.full(SHAPE, np.nan), after).changes.size == 0


@pytest.mark.parametrize(
    ("kind", "level", "doubtful"),
    [
        ("dark", -100.0, True),
        ("dark", -12.0, True),
        ("dark", -3.0, False),
        ("dark", 40.0, False),
        ("bias", -100.0, False),
    ],
)
def test_darks_below_their_bias(kind: str, level: float, doubtful: bool) -> None:
    """Darks that lie two noises below their bias say that the bias is too bright."""
    rng = np.random.default_rng(5)
    frames = {name: level + rng.normal(0, 5, SHAPE) for name in "abc"}
    group = MasterGroup("dark_300s", kind, tuple(frames), cast("Any", None), SHAPE)
    found = negative_darks(frames, group)
    assert bool(found) is doubtful
    assert not found or "dark_300s is" in found[0].text


def a_flat(seed: int, dust: int = 0, hot: int = 0) -> Array:
    """Return a flat with vignetting, pixels of different sensitivity, rings of dust and hot pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    flat = 1 - 0.3 * ((y / SHAPE[0] - 0.5) ** 2 + (x / SHAPE[1] - 0.5) ** 2)
    for _ in range(dust):
        cy, cx, radius = rng.uniform(20, 230), rng.uniform(20, 230), rng.uniform(4, 25)
        flat *= 1 - 0.08 * np.exp(-(((np.hypot(y - cy, x - cx) - radius) / (0.3 * radius)) ** 2))
    flat[rng.integers(0, SHAPE[0], hot), rng.integers(0, SHAPE[1], hot)] += rng.uniform(0.1, 1, hot)
    made: Array = flat * (1 + 0.01 * rng.normal(size=SHAPE)) + rng.normal(0, 0.003, SHAPE)
    return made


@pytest.mark.parametrize("fwhm", [2.5, 3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("height", [0.3, 1.0])
def test_a_star_in_a_flat(fwhm: float, height: float) -> None:
    """Its place and height are found, sharp or defocused."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    star = height * np.exp(-4 * math.log(2) * ((y - 100.3) ** 2 + (x - 120.2) ** 2) / fwhm**2)
    (found,) = checks.sources(a_flat(3, dust=5, hot=100) + star)
    assert math.hypot(found.y - 100.3, found.x - 120.2) < 1 + fwhm / 6
    assert found.height == pytest.approx(height, rel=0.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("dust", "hot"), [(0, 0), (12, 0), (0, 300), (12, 300)])
def test_a_flat_without_a_star(seed: int, dust: int, hot: int) -> None:
    """Dust is darker than what is around it, and a hot pixel is alone."""
    flat = a_flat(seed, dust, hot)
    flat[:, 77] *= 1.5
    assert checks.sources(flat) == []
    assert checks.sources(np.full(SHAPE, np.nan)) == []
    assert checks.sources(flat[:20, :20]) == []
    assert checks.sources(0 * flat) == []
    dead = flat.copy()
    dead[:128, :128] = 0
    assert checks.sources(dead) == []
    lonely = np.full(SHAPE, np.nan)
    lonely[5, 5] = 1.0
    assert checks.sources(lonely) == []


@pytest.mark.parametrize(("width", "found"), [(0, False), (4, False), (10, True), (48, True)])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_overscan_in_the_middle(width: int, found: bool, axis: int) -> None:
    """A strip without light, with light on both sides, is one; dark edges, dead columns and columns that a mask took out are none."""
    flat = a_flat(1, 12, 300)
    flat[:15] = flat[:, -20:] = 0.01
    lines = flat if axis else flat.T
    lines[:, 60 : 60 + width] = np.random.default_rng(1).normal(0, 0.01, (len(lines), width))
    flat[:, 150:170] = np.nan
    strips = checks.unlit_strips(flat)
    expected = (0, flat.shape[0], 60, 60 + width) if axis else (60, 60 + width, 0, flat.shape[1])
    assert [(strip.y0, strip.y1, strip.x0, strip.x1) for strip in strips] == ([expected] if found else [])


@pytest.mark.parametrize("excess", [1.0, 1.5, 2.0, 3.0, 5.0])
def test_noise_of_a_master_is_no_structure(excess: float) -> None:
    """Where pairs say that the read noise is larger than stated, a bias of noise alone has nothing that could be left."""
    rng = np.random.default_rng(8)
    stated = 2.5
    master = rng.normal(0, excess * stated, SHAPE)
    after = rng.normal(0, 3 * stated, SHAPE) - master
    assert checks.structure_left(after, master, excess * stated) is None


@pytest.mark.parametrize("size", [20.0, 30.0, 40.0, 60.0])
@pytest.mark.parametrize("height", [2.0, 5.0, 20.0])
def test_a_nebula_in_the_middle(size: float, height: float) -> None:
    """It is where a flat is bright, and no shading of the flat: that is once there, in all parts, if it was not divided."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r2 = (y - SHAPE[0] / 2) ** 2 + (x - SHAPE[1] / 2) ** 2
    flat = 1 - 0.25 * r2 / r2.max()
    sky = np.random.default_rng(6).poisson(400 * (1 + height * np.exp(-r2 / (2 * size**2))))
    left = checks.shading_left(sky.astype(float), flat)
    assert left is None or not left.is_beyond(checks.SHADING_LEFT)
    kept = checks.shading_left(np.random.default_rng(7).poisson(400 * flat).astype(float), flat)
    assert kept is not None
    assert kept.fraction == pytest.approx(1, abs=0.1)
    assert kept.is_beyond(checks.SHADING_LEFT)
