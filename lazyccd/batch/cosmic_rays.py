"""Cosmic rays of science frames: which are looked for and how, and whether stars were taken for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from lazyccd import ops
from lazyccd.batch.measure import central_region
from lazyccd.batch.night_plan import Doubt
from lazyccd.frame.core import MASK, UNCERTAINTY, resolve
from lazyccd.ops.attributes import cut
from lazyccd.ops.sample import read_pixels, robust_std
from lazyccd.sections import Region

AREA = 2048
"""Side of the central area in which stars are looked for, at most."""

BRIGHT = 20.0
"""Noise above the sky that the peak of a star has, at least; its neighbours have a quarter of it."""

FEWEST = 5
"""Stars that a width is measured on, at least."""

UNDERSAMPLED = 2.5
"""Pixels of full width at half maximum below which stars are easily taken for cosmic rays."""

OBJLIM, OBJLIM_UNDERSAMPLED = 5.0, 10.0
"""Least contrast of a cosmic ray, and that where stars are undersampled."""

WORRYING = 0.01
"""Fraction of the peaks of stars that are flagged above which it is warned about, if it is more than chance."""

FEWEST_FLAGGED, LEAST_SIGMAS = 3, 2.0
"""Flagged stars that are more than chance: so many, and so many standard deviations above what `WORRYING` gives."""

WAY_OUT = "--cosmic-rays none leaves them alone"

GAUSSIAN_FWHM = 2 * math.sqrt(2 * math.log(2))

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stars:
    """Stars in a part of a frame."""

    region: Region
    places: npt.NDArray[np.intp]
    """Row and column of each peak in the region."""

    fwhm: float
    """Median full width at half maximum in pixels; NaN if stars are too few."""


def measure_stars(frame: xr.Dataset) -> Stars:
    """Return the stars of the central area of a frame.

    A star is a local maximum whose eight neighbours stand out too, about as wide along y as along x: a cosmic ray is not.
    The logarithm of a Gaussian has the second difference -1 / sigma**2 wherever it is sampled.
    """
    # One area bounds the pixels that are read before anything is written.
    region = central_region((frame.sizes["y"], frame.sizes["x"]), 1.0, most=AREA)
    values = read_pixels(resolve(frame), region)
    known = np.isfinite(values)
    if known.sum() < 100:
        return Stars(region, np.zeros((0, 2), np.intp), math.nan)
    # -inf is never a peak, and lowers the minimum of a neighbourhood so that stars beside bad pixels are left out.
    values = np.where(known, values - np.median(values[known]), -np.inf)
    # Differences of neighbours do not see the sky's gradient.
    sigma = robust_std(np.diff(np.where(known, values, np.nan), axis=1)) / math.sqrt(2)
    peaks = (values == ndimage.maximum_filter(values, 5)) & (values > BRIGHT * sigma)
    # A cosmic ray of one pixel has neighbours at the level of the sky; a star does not.
    peaks &= ndimage.minimum_filter(values, 3) > BRIGHT / 4 * sigma
    peaks[:1], peaks[-1:], peaks[:, :1], peaks[:, -1:] = False, False, False, False
    places = np.argwhere(peaks)
    y, x = places.T
    logs = np.log(np.where(values > 0, values, 1.0))
    widths = [2 * logs[y, x] - logs[y - dy, x - dx] - logs[y + dy, x + dx] for dy, dx in ((1, 0), (0, 1))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = widths[0] / widths[1]
        fwhm = GAUSSIAN_FWHM / np.sqrt(np.sqrt(widths[0] * widths[1]))
    round_ones = (ratio > 0.5) & (ratio < 2.0) & np.isfinite(fwhm)
    width = float(np.median(fwhm[round_ones])) if round_ones.sum() >= FEWEST else math.nan
    return Stars(region, places[round_ones], width)


@dataclass(frozen=True)
class Cleaned:
    """A frame without its cosmic rays, or with them where they are left in."""

    frame: xr.Dataset
    messages: tuple[str, ...] = ()
    """What was decided."""

    stars: Stars | None = None
    """Stars that must not be flagged; None where none were looked for."""


@dataclass(frozen=True)
class FlaggedStars:
    """How many pixels of a product, and how many peaks of stars, are flagged as cosmic rays."""

    fraction: float
    """Fraction of the pixels in the area where stars were looked for."""

    flagged: int
    count: int
    """Stars."""

    @property
    def doubt(self) -> Doubt | None:
        """The doubt that stars were taken for cosmic rays, if more are flagged than by chance."""
        if not is_more_than_chance(self.flagged, self.count):
            return None
        text = f"{self.flagged} of {self.count} stars flagged at their peak"
        return Doubt("cosmic rays", f"{text}: WARNING, more than {WORRYING:.0%}", WAY_OUT)

    def __str__(self) -> str:
        """Return what is printed of it."""
        text = f"cosmic rays: {self.fraction:.3%} of the pixels"
        if not self.count:
            return text
        return f"{text}; {self.doubt or f'{self.flagged} of {self.count} stars flagged at their peak'}"


def is_more_than_chance(flagged: int, count: int) -> bool:
    """Return whether so many flagged stars show that stars were taken for cosmic rays.

    Rays hit stars too: of 34 stars one is more than 1 % and says nothing. So the number must be above that of chance by twice
    its scatter.
    """
    usual = WORRYING * count
    return flagged >= FEWEST_FLAGGED and flagged > usual + LEAST_SIGMAS * math.sqrt(usual)


def choose_objlim(fwhm: float) -> float:
    """Return the contrast that a cosmic ray must have: more where stars are so narrow that they look like one.

    With 5, 12 of 340 stars of an undersampled camera were flagged in several frames; with 10, 5 were.
    """
    return OBJLIM_UNDERSAMPLED if fwhm < UNDERSAMPLED else OBJLIM


def remove_cosmic_rays(frame: xr.Dataset, asked: str, *, spectrum: bool) -> Cleaned:
    """Remove the cosmic rays of a calibrated frame, unless they must be left in.

    Parameters
    ----------
    frame
        After its flat, in electrons.
    asked
        ``lacosmic``, ``none``, or empty: then images are cleaned and spectra are not.
    spectrum
        Whether it is one.
    """
    if asked == "none":
        return Cleaned(frame)
    if not asked and spectrum:
        return Cleaned(frame, ("cosmic rays left in, as in every spectrum; --cosmic-rays lacosmic removes them",))
    # LA Cosmic compares with the noise: with a guessed one it flags stars, or nothing.
    if UNCERTAINTY not in frame:
        return Cleaned(frame, ("cosmic rays left in: gain or read noise is not known, nor is the noise",))
    # A spectrum has no stars, and its lines would be taken for such.
    stars = None if spectrum else measure_stars(frame)
    objlim = OBJLIM if stars is None else choose_objlim(stars.fwhm)
    messages: tuple[str, ...] = ()
    if stars is not None and objlim != OBJLIM:
        width = f"stars are {stars.fwhm:.1f} pixels wide"
        messages = (f"{width}: cosmic rays with objlim {objlim:g} instead of {OBJLIM:g}",)
    # The uncertainty is the only right noise once amplifiers of different gain are assembled; a scalar fits one of
    # them.
    return Cleaned(ops.cosmicray_lacosmic(frame, objlim=objlim, use_uncertainty=True), messages, stars)


def check_stars(product: xr.Dataset, stars: Stars | None) -> FlaggedStars | None:
    """Count the pixels of a product that are flagged as cosmic rays, and the peaks of stars among them."""
    if stars is None:
        return None
    image = resolve(product)
    # Counted on what was written: nothing is then computed a second time to check it.
    bits = cut(image, *stars.region.slices).to_dataset()[MASK].values
    flagged = (bits & bits.dtype.type(image.schema.bits("CR"))) != 0
    return FlaggedStars(float(flagged.mean()), int(flagged[tuple(stars.places.T)].sum()), len(stars.places))
