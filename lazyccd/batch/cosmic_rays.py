"""Cosmic rays of science frames: which are looked for and how, and whether stars were taken for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from lazyccd import ops
from lazyccd.batch.measure import central_region, read_pixels, robust_std
from lazyccd.frame.core import MASK, UNCERTAINTY, resolve
from lazyccd.ops.attributes import cut
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
    region = central_region((frame.sizes["y"], frame.sizes["x"]), 1.0, most=AREA)
    values = read_pixels(frame, region)
    known = np.isfinite(values)
    if known.sum() < 100:
        return Stars(region, np.zeros((0, 2), np.intp), math.nan)
    values = np.where(known, values - np.median(values[known]), -np.inf)
    sigma = robust_std(np.diff(np.where(known, values, np.nan), axis=1)) / math.sqrt(2)
    peaks = (values == ndimage.maximum_filter(values, 5)) & (values > BRIGHT * sigma)
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


def remove_cosmic_rays(frame: xr.Dataset, asked: str, *, spectrum: bool) -> tuple[xr.Dataset, list[str], Stars | None]:
    """Return a calibrated frame without its cosmic rays, what is said of it, and the stars that must not be flagged.

    Parameters
    ----------
    frame
        After its flat, in electrons.
    asked
        ``lacosmic``, ``none``, or empty: then images are cleaned and spectra are not.
    spectrum
        Whether it is one.
    """
    if asked == "none" or (not asked and spectrum):
        return (
            frame,
            ["cosmic rays left in, as in every spectrum; --cosmic-rays lacosmic removes them"] * (not asked),
            None,
        )
    if UNCERTAINTY not in frame:
        return frame, ["cosmic rays left in: gain or read noise is not known, nor is the noise"], None
    stars = None if spectrum else measure_stars(frame)
    objlim, words = OBJLIM, []
    if stars is not None and stars.fwhm < UNDERSAMPLED:
        objlim = OBJLIM_UNDERSAMPLED
        words.append(
            f"stars are {stars.fwhm:.1f} pixels wide: cosmic rays with objlim {objlim:g} instead of {OBJLIM:g}"
        )
    return ops.cosmicray_lacosmic(frame, objlim=objlim, use_uncertainty=True), words, stars


def check_stars(product: xr.Dataset, stars: Stars | None) -> list[str]:
    """Say how many pixels of a product were flagged as cosmic rays, and how many peaks of stars."""
    if stars is None:
        return []
    image = resolve(product)
    bits = cut(image, *stars.region.slices).to_dataset()[MASK].values
    flagged = (bits & bits.dtype.type(image.schema.bits("CR"))) != 0
    text = f"cosmic rays: {flagged.mean():.3%} of the pixels"
    count = len(stars.places)
    if count:
        wrong = int(flagged[tuple(stars.places.T)].sum())
        text += f"; {wrong} of {count} stars flagged at their peak"
        usual = WORRYING * count
        if wrong >= FEWEST_FLAGGED and wrong > usual + LEAST_SIGMAS * math.sqrt(usual):
            text += f": WARNING, more than {WORRYING:.0%}; --cosmic-rays none leaves them alone"
    return [text]
