"""Simulated exposures of a CCD camera with known truth.

1. A sky has stars (Moffat profiles) and galaxies (exponential discs), seeded.
2. A detector has gain, read noise, bias structure, dark current, a flat field, an overscan, bad pixels and saturation.
3. An exposure is the expected electrons of a pixel, Poisson and read noise, cosmic rays, digitised; the truth is returned
   beside it.

Every random number comes from the seeds of sky, detector and exposure, so that the order of calls does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from astropy.io import fits

from lazyccd.kernels.block import Array
from lazyccd.sections import Region
from lazyccd.testing.sky import Sky

Kind: TypeAlias = Literal["bias", "dark", "flat", "light"]

IMAGE_TYPES: dict[Kind, str] = {
    "bias": "Bias Frame",
    "dark": "Dark Frame",
    "flat": "Flat Field",
    "light": "Light Frame",
}
ADC_MAX = 65535
PIXEL_SCALE_DEG = 0.4 / 3600


@dataclass(frozen=True)
class Detector:
    """A CCD with an overscan strip at high x.

    Parameters
    ----------
    shape
        Light-sensitive rows and columns.

    Examples
    --------
    >>> Detector((100, 200)).overscan_section
    '[204:232,1:100]'
    """

    shape: tuple[int, int] = (512, 512)
    gain_e_per_adu: float = 1.6
    """Electrons per adu."""

    readnoise_e: float = 6.0
    """Read noise in electrons."""

    bias_adu: float = 1000.0
    """Level of the overscan in adu; each exposure is read at a level of its own near it."""

    bias_structure_adu: float = 4.0
    """Amplitude of what the bias has in columns, and of its glow at the first rows, in adu."""

    dark_e_s: float = 0.02
    """Dark current of a normal pixel in electrons per second; one in a thousand has 20 to 400 times as much."""

    overscan: int = 32
    """Columns of overscan; 0 for none."""

    full_well_e: float = 90000.0
    """Electrons that a pixel can hold."""

    bad_fraction: float = 5e-4
    """Fraction of pixels that are dead, besides a part of one column."""

    cosmic_rays_per_s: float = 2e-7
    """Per pixel."""

    nonlinearity_per_adu: float = 0.0
    """A signal of s adu is read as s - nonlinearity_per_adu s**2."""

    vignetting: float = 0.15
    """How much less light the corners get than the centre."""

    name: str = "SIMCAM"
    """INSTRUME."""

    seed: int = 7
    """Another number gives another detector of the same kind."""

    # a stream for each property: another dust shadow must not move the hot pixels
    def _rng(self, what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, what])

    @cached_property
    def flat(self) -> Array:
        """Relative sensitivity, its median 1 in the central half: vignetting, dust shadows, pixel to pixel variation."""
        ny, nx = self.shape
        rng = self._rng(1)
        y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
        flat = 1 - self.vignetting * (x**2 + y**2) / 2
        for _ in range(4):
            cy, cx, radius = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(0.02, 0.05) * max(ny, nx)
            r = np.hypot(np.arange(ny)[:, None] - cy, np.arange(nx)[None, :] - cx)
            flat = flat * (1 - 0.06 * np.exp(-(((r - radius) / (0.35 * radius)) ** 2)))
        flat = flat * (1 + 0.01 * rng.standard_normal(self.shape))
        # as `lazyccd reduce` levels flats, so that a reduced frame can be compared with the truth without a factor between them
        middle = flat[ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4]
        return np.asarray(flat / np.median(middle))

    @cached_property
    def bias(self) -> Array:
        """Bias of each light-sensitive pixel above the overscan's level, in adu."""
        rng = self._rng(2)
        ny, nx = self.shape
        columns = self.bias_structure_adu * rng.standard_normal(nx) / 2
        glow = self.bias_structure_adu * np.exp(-np.arange(ny)[:, None] / (0.1 * ny))
        return np.asarray(columns[None, :] + glow)

    @cached_property
    def bad(self) -> Array:
        """True where a pixel is dead; one column is dead from some row on."""
        rng = self._rng(3)
        bad = rng.random(self.shape) < self.bad_fraction
        # a dead column too: single pixels are gone after any median, a column is not
        bad[rng.integers(self.shape[0]) :, rng.integers(self.shape[1])] = True
        return np.asarray(bad)

    @cached_property
    def dark_rate(self) -> Array:
        """Electrons per second of dark current, hot pixels among them."""
        rng = self._rng(4)
        rate = self.dark_e_s * (1 + 0.1 * rng.standard_normal(self.shape))
        hot = rng.random(self.shape) < 1e-3
        return np.asarray(np.where(hot, rate * rng.uniform(20, 400, self.shape), np.maximum(rate, 0)))

    @property
    def overscan_section(self) -> str:
        """The overscan as a FITS section, 3 columns beside the data left out."""
        ny, nx = self.shape
        return Region(0, ny, nx + 3, nx + self.overscan).to_fits()

    @property
    def data_section(self) -> str:
        """The light-sensitive pixels as a FITS section."""
        return Region.full(self.shape).to_fits()


@dataclass(frozen=True)
class Truth:
    """What an exposure is made of."""

    electrons: Array
    """What a perfect reduction gives: expected electrons of sky and sources, before the flat, without fringes; 0 for bias and dark."""

    cosmic_rays: Array
    """True where a cosmic ray left electrons."""

    saturated: Array
    """True where the pixel is full or the converter at its end."""

    bad: Array
    """True where the detector is dead."""

    detector: Detector
    """What took the exposure."""

    exposure_s: float
    """Exposure time in seconds; 0 of a bias."""


@dataclass(frozen=True)
class Exposure:
    """A raw frame and its truth."""

    pixels: Array
    """uint16, overscan included."""

    header: fits.Header
    """Cards such as a camera writes, sections and a WCS among them."""

    truth: Truth = field(repr=False)
    """What the frame is made of."""

    def write(self, path: str | Path) -> str:
        """Write the raw frame as FITS and return the path."""
        fits.PrimaryHDU(self.pixels, self.header).writeto(path, overwrite=True)
        return str(path)


def make_exposure(
    detector: Detector,
    sky: Sky,
    kind: Kind = "light",
    exposure_s: float = 60.0,
    *,
    filter_name: str = "R",
    flat_level_e: float = 30000.0,
    dither: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    minute: float = 0.0,
) -> Exposure:
    """Simulate one exposure.

    Parameters
    ----------
    detector, sky
        What takes the exposure, and of what.
    kind
        bias, dark, flat or light.
    exposure_s
        Exposure time in seconds; a bias has 0.
    filter_name
        Filter, for the header.
    flat_level_e
        Mean level of a flat in electrons.
    dither
        By how many pixels sources are moved along y and x.
    seed
        Seed of the noise and the cosmic rays.
    minute
        When the exposure began, in minutes after the first of the night.

    Returns
    -------
    Exposure
        Pixels (uint16, overscan included), header and truth.

    Examples
    --------
    >>> flat = make_exposure(Detector((64, 64), overscan=8), Sky(), "flat", 5.0)
    >>> flat.pixels.shape, flat.pixels.dtype.name, flat.header["IMAGETYP"]
    ((64, 72), 'uint16', 'Flat Field')
    """
    exposure_s = 0.0 if kind == "bias" else exposure_s
    rng = np.random.default_rng([detector.seed, seed, list(IMAGE_TYPES).index(kind)])
    expected = np.zeros(detector.shape)
    if kind == "light":
        expected = sky.rate(detector.shape, dither) * exposure_s
    if kind == "flat":
        expected = np.full(detector.shape, flat_level_e)
    # fringes are light, but no perfect reduction leaves them, so they are not in the truth
    light = expected
    if kind == "light" and sky.fringes_e_s:
        light = expected + sky.fringes_e_s * exposure_s * sky.fringe_pattern(detector.shape)
    mean = light * detector.flat + detector.dark_rate * exposure_s
    electrons = rng.poisson(mean).astype(float)
    rays = _add_cosmic_rays(electrons, rng, detector.cosmic_rays_per_s * exposure_s)
    full = electrons >= detector.full_well_e
    electrons = np.minimum(electrons, detector.full_well_e)
    electrons[detector.bad] = 0.0  # after the full well: what is dead is never saturated
    pixels = _read_out(detector, electrons, rng)
    top = pixels[:, : detector.shape[1]] >= ADC_MAX
    truth = Truth(expected, rays, full | top, detector.bad, detector, exposure_s)
    return Exposure(pixels, _header(detector, sky, kind, exposure_s, filter_name, dither, minute), truth)


def _read_out(detector: Detector, electrons: Array, rng: np.random.Generator) -> Array:
    """Return the digitised frame with its overscan."""
    ny, nx = detector.shape
    adu = np.zeros((ny, nx + detector.overscan))
    signal = electrons / detector.gain_e_per_adu
    adu[:, :nx] = signal - detector.nonlinearity_per_adu * signal**2 + detector.bias
    # a level of its own for each exposure: without, an overscan that is not subtracted would go unnoticed
    level = detector.bias_adu + rng.normal(0, 1.5)
    adu += level + rng.normal(0, detector.readnoise_e / detector.gain_e_per_adu, adu.shape)
    return np.clip(np.rint(adu), 0, ADC_MAX).astype(np.uint16)


def with_crosstalk(
    exposures: Mapping[str, Exposure], coefficients: Mapping[str, Mapping[str, float]]
) -> dict[str, Exposure]:
    """Return exposures, read at the same time, into which fractions of each other's signal leak.

    Parameters
    ----------
    exposures
        By name, of one shape.
    coefficients
        ``coefficients["A"]["B"]`` of the signal of B, above its bias, is added to A.

    Returns
    -------
    dict of Exposure
        By name; pixels are rounded and cut off at the end of the converter again, headers and truths are as before.
    """
    signals = {name: e.pixels - e.truth.detector.bias_adu for name, e in exposures.items()}
    mixed = {}
    for name, exposure in exposures.items():
        leaks = sum(c * signals[source] for source, c in coefficients.get(name, {}).items())
        pixels = np.clip(np.rint(exposure.pixels + leaks), 0, ADC_MAX).astype(np.uint16)
        mixed[name] = replace(exposure, pixels=pixels)
    return mixed


def _add_cosmic_rays(electrons: Array, rng: np.random.Generator, per_pixel: float) -> Array:
    """Add straight tracks and return where they are."""
    hit = np.zeros(electrons.shape, bool)
    for _ in range(rng.poisson(per_pixel * electrons.size)):
        y, x = rng.uniform(0, electrons.shape[0]), rng.uniform(0, electrons.shape[1])
        angle, length = rng.uniform(0, 2 * np.pi), rng.exponential(4.0) + 1
        steps = np.arange(0, length, 0.5)  # half pixels, so that a slanted track leaves no gap
        rows, columns = np.floor(y + steps * np.sin(angle)).astype(int), np.floor(x + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < electrons.shape[0]) & (columns >= 0) & (columns < electrons.shape[1])
        # a track passes some pixels twice, and += would add to them once
        np.add.at(electrons, (rows[inside], columns[inside]), rng.exponential(600.0) + 150.0)
        hit[rows[inside], columns[inside]] = True
    return hit


def _header(
    detector: Detector,
    sky: Sky,
    kind: Kind,
    exposure_s: float,
    filter_name: str,
    dither: tuple[float, float],
    minute: float,
) -> fits.Header:
    """Return the header of a raw frame."""
    ny, nx = detector.shape
    hours, rest = divmod(60 * 2 + minute, 60)
    cards: list[tuple[str, Any, str]] = [
        ("INSTRUME", detector.name, "simulated camera"),
        ("DETECTOR", f"{detector.name}-{detector.seed}", ""),
        ("IMAGETYP", IMAGE_TYPES[kind], "type of exposure"),
        ("OBJECT", "simulated field" if kind == "light" else kind, ""),
        ("FILTER", filter_name if kind in {"flat", "light"} else "none", ""),
        ("EXPTIME", exposure_s, "[s] exposure time"),
        ("DATE-OBS", f"2026-01-15T{int(hours):02d}:{int(rest):02d}:{60 * (rest % 1):06.3f}", "start of exposure"),
        ("GAIN", detector.gain_e_per_adu, "[electron/adu]"),
        ("RDNOISE", detector.readnoise_e, "[electron]"),
        ("SATURATE", min(ADC_MAX, int(detector.full_well_e / detector.gain_e_per_adu + detector.bias_adu)), "[adu]"),
        ("CCD-TEMP", -100.0, "[C]"),
        ("XBINNING", 1, ""),
        ("YBINNING", 1, ""),
    ]
    if detector.overscan:
        cards += [
            ("BIASSEC", detector.overscan_section, "overscan"),
            ("TRIMSEC", detector.data_section, "light-sensitive pixels"),
            ("DATASEC", detector.data_section, "light-sensitive pixels"),
        ]
    if kind == "light":
        cards += [
            ("CTYPE1", "RA---TAN", ""),
            ("CTYPE2", "DEC--TAN", ""),
            # moves with the sources, so that offsets by WCS can be checked against the dithers
            ("CRPIX1", (nx + 1) / 2 + dither[1], ""),
            ("CRPIX2", (ny + 1) / 2 + dither[0], ""),
            ("CRVAL1", sky.ra_deg, "[deg]"),
            ("CRVAL2", sky.dec_deg, "[deg]"),
            ("CD1_1", -PIXEL_SCALE_DEG, ""),
            ("CD1_2", 0.0, ""),
            ("CD2_1", 0.0, ""),
            ("CD2_2", PIXEL_SCALE_DEG, ""),
            ("RADESYS", "ICRS", ""),
        ]
    return fits.Header(cards)


@dataclass(frozen=True)
class Night:
    """Files of a simulated night, and the truth of each."""

    folder: str
    """Where the files are."""

    truths: dict[str, Truth] = field(repr=False)
    """The truth of each file, by its path."""

    @property
    def paths(self) -> list[str]:
        """The files, in the order in which they were taken."""
        return list(self.truths)


def make_night(
    folder: str | Path,
    detector: Detector | None = None,
    sky: Sky | None = None,
    *,
    biases: int = 5,
    darks: int = 3,
    flats: int = 5,
    lights: int = 3,
    dark_s: float = 120.0,
    light_s: float = 120.0,
    seed: int = 0,
) -> Night:
    """Simulate a small night and write it as raw FITS.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    detector, sky
        The camera and the field; moderate ones by default.
    biases, darks, flats, lights
        Numbers of frames.
    dark_s, light_s
        Exposure times of darks and lights in seconds.
    seed
        Seed of the night.

    Returns
    -------
    Night
        Folder, paths and truths. Lights are dithered by up to 8 pixels.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     night = make_night(folder, Detector((32, 32)), Sky(stars=3), biases=2, darks=0, flats=2, lights=1)
    ...     [path.rsplit("/", 1)[1] for path in night.paths]
    ['bias001.fits', 'bias002.fits', 'flat003.fits', 'flat004.fits', 'light005.fits']
    """
    detector, sky = detector or Detector(), sky or Sky()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    counts: tuple[tuple[Kind, float, int], ...] = (
        ("bias", 0.0, biases),
        ("dark", dark_s, darks),
        ("flat", 5.0, flats),
        ("light", light_s, lights),
    )
    plan = [(kind, exposure_s) for kind, exposure_s, count in counts for _ in range(count)]
    truths = {}
    minute = 0.0
    for number, (kind, exposure_s) in enumerate(plan, 1):
        rng = np.random.default_rng([seed, number, 5])
        # whole pixels, so that stacks can be compared with the truth pixel by pixel
        dither = (float(rng.integers(-8, 9)), float(rng.integers(-8, 9))) if kind == "light" else (0.0, 0.0)
        # twilight changes; flats of one level would not show whether a stack scales them
        level = 30000.0 * (1 + 0.05 * (number % 3))
        exposure = make_exposure(
            detector, sky, kind, exposure_s, flat_level_e=level, dither=dither, seed=1000 * seed + number, minute=minute
        )
        truths[exposure.write(target / f"{kind}{number:03d}.fits")] = exposure.truth
        minute += exposure_s / 60 + 0.5
    return Night(str(target), truths)
