"""Cosmic rays of science frames: which are looked for and how, and whether stars were taken for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import gammainc

from lazyccd import ops
from lazyccd.batch.chunks import in_fitting_chunks
from lazyccd.batch.measure import central_region
from lazyccd.batch.metadata import Facts
from lazyccd.batch.night_plan import Doubt
from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, resolve
from lazyccd.frame.header import header_view
from lazyccd.kernels.groups import Flags, groups_of, most_of_nine
from lazyccd.ops.attributes import cut
from lazyccd.ops.sample import Planes, median, read_planes, robust_std
from lazyccd.sections import Region

AREA = 2048
"""Side of the central area in which stars are looked for, at most."""

NOISE_ROWS = 128
"""So many rows of the area tell its level and noise: a quarter of a million pixels."""

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

MOST_RATE = 20.0
"""Hits per cm2 and minute that are possible: usual are one or two, and ten with some glass near the detector."""

READING = 60.0
"""Seconds that a detector waits and is read, during which rays fall too."""

MOST_FRACTION = 0.005
"""Fraction of the pixels that an exposure of an hour may have lost, where the size of the pixels is not known."""

STAR_SIGMAS, STAR_PIXELS = 10.0, 9
"""Stars whose flux is compared stand out by so many standard deviations, in so many pixels."""

CHANCE_HITS = 0.3
"""Rays that may have hit a star by chance; larger sources are not compared."""

FLUX_CHANGE, FLUX_CHANGE_OF_FEW = 0.005, 0.05
"""Relative change of flux that most stars may have, and that all of one or two."""

STAR_LOSS, STAR_CHANCE = 0.02, 0.01
"""Relative change of a star that was hit, and the probability below which so many hits on stars are no chance."""

VANISHED = 0.8
"""Relative change beyond which a source was a ray: of 19 sources of a frame of EFOSC2, some lost 99.6 %."""

FEWEST_RAYS = 0.05
"""Rays that a part without any may have had: a single hit in it, and that on a star, is then no chance."""

PIXEL_SIZES = (
    ("XPIXSZ", "YPIXSZ", True),
    ("PIXSIZE1", "PIXSIZE2", False),
    ("XPIXSIZE", "YPIXSIZE", False),
    ("PIXSIZE", "PIXSIZE", False),
    ("CCDXPIXE", "CCDYPIXE", False),
    ("PIXSZX", "PIXSZY", False),
    ("ESO DET CHIP1 PSZX", "ESO DET CHIP1 PSZY", False),
)
"""Keywords of the size of a pixel along x and y, and whether it is that of a binned one."""

WAY_OUT = "--cosmic-rays none leaves them alone, fill replaces them whatever this says"

GAUSSIAN_FWHM = 2 * math.sqrt(2 * math.log(2))

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Stars:
    """Stars in a part of a frame."""

    region: Region
    places: Places
    """Row and column of each peak in the region."""

    fwhm: float
    """Median full width at half maximum in pixels; NaN if stars are too few."""

    pixels: Array
    """The region, bad pixels too, in the precision of the frame."""


def measure_stars(frame: xr.Dataset) -> Stars:
    """Return the stars of the central area of a frame.

    A star is a local maximum whose eight neighbours stand out too, about as wide along y as along x: a cosmic ray is not.
    The logarithm of a Gaussian has the second difference -1 / sigma**2 wherever it is sampled.
    """
    # One area bounds the pixels that are read before anything is written.
    region = central_region((frame.sizes["y"], frame.sizes["x"]), 1.0, most=AREA)
    image = resolve(frame)
    planes = read_planes(image, region)
    pixels = planes.data
    known = np.isfinite(pixels) & ~planes.flagged(image.schema)
    if np.count_nonzero(known) < 100:
        return Stars(region, np.zeros((0, 2), np.intp), math.nan, pixels)
    sky, sigma = _sky_and_noise(pixels, known)

    def above_sky(y: Places, x: Places) -> Array:
        # -inf is never a peak, and lowers the minimum of a neighbourhood so that stars beside bad pixels are left out.
        return np.where(known[y, x], pixels[y, x].astype(float) - sky, -np.inf)

    places = _peaks(known & (pixels > sky + BRIGHT * sigma), above_sky, sigma)
    y, x = places.T
    # Neighbours of a peak are positive: they stand out too.
    middle = np.log(above_sky(y, x))
    widths = [
        2 * middle - np.log(above_sky(y - dy, x - dx)) - np.log(above_sky(y + dy, x + dx))
        for dy, dx in ((1, 0), (0, 1))
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = widths[0] / widths[1]
        fwhm = GAUSSIAN_FWHM / np.sqrt(np.sqrt(widths[0] * widths[1]))
    round_ones = (ratio > 0.5) & (ratio < 2.0) & np.isfinite(fwhm)
    width = float(np.median(fwhm[round_ones])) if round_ones.sum() >= FEWEST else math.nan
    return Stars(region, places[round_ones], width, pixels)


def _sky_and_noise(pixels: Array, known: Flags) -> tuple[float, float]:
    """Return the median of the known pixels of an image and the noise of a pixel, from about `NOISE_ROWS` of its rows."""
    step = max(1, pixels.shape[0] // NOISE_ROWS)
    rows = np.where(known[::step], pixels[::step], np.nan)
    # Differences of neighbours do not see the sky's gradient.
    return median(rows), robust_std(np.diff(rows, axis=1)) / math.sqrt(2)


def _peaks(bright: Flags, above_sky: Callable[[Places, Places], Array], sigma: float) -> Places:
    """Return row and column of the local maxima that stand out, and whose eight neighbours do, in their order.

    Few pixels stand out, so only these are compared with their neighbours: filters of the whole area take ten times as long.

    Parameters
    ----------
    bright
        Which pixels stand out by `BRIGHT`.
    above_sky
        Returns the values of pixels above the sky, given their rows and columns.
    sigma
        Noise of a pixel.
    """
    places = np.argwhere(bright[1:-1, 1:-1]) + 1
    # A cosmic ray of one pixel has neighbours at the level of the sky; a star does not.
    for dy, dx in np.ndindex(3, 3):
        y, x = places.T
        places = places[above_sky(y + dy - 1, x + dx - 1) > BRIGHT / 4 * sigma]
    for dy, dx in np.ndindex(5, 5):
        y, x = places.T
        beside = above_sky(np.clip(y + dy - 2, 0, bright.shape[0] - 1), np.clip(x + dx - 2, 0, bright.shape[1] - 1))
        places = places[above_sky(y, x) >= beside]
    return places


@dataclass(frozen=True)
class Cleaned:
    """A frame without its cosmic rays, or with them where they are left in."""

    frame: xr.Dataset
    messages: tuple[str, ...] = ()
    """What was decided."""

    stars: Stars | None = None
    """Stars that must not be flagged; None where none were looked for."""

    is_changed: bool = False
    """Whether cosmic rays were looked for; False where they are left in."""

    is_product: bool = True
    """Whether nothing else is done to the frame, so that the product shows what was removed."""


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


def remove_cosmic_rays(frame: xr.Dataset, asked: str, facts: Facts, given: Mapping[str, Any] | None = None) -> Cleaned:
    """Remove the cosmic rays of a calibrated frame, unless they must be left in.

    Parameters
    ----------
    frame
        After its flat, in electrons.
    asked
        As `Options.cosmic_rays`.
    facts
        Of the frame: a spectrum is cleaned only if it is asked for, and what has a matrix of colours never.
    given
        Parameters of `lazyccd.cosmicray_lacosmic` that a recipe states.
    """
    given = given or {}
    spectrum = facts.mode.value == "spectrum"
    if asked == "none":
        return Cleaned(frame)
    if facts.cfa.value is not None:
        return Cleaned(frame, (f"cosmic rays left in: the pixels have colour filters ({facts.cfa.source})",))
    if not asked and spectrum:
        return Cleaned(frame, ("cosmic rays left in, as in every spectrum; --cosmic-rays lacosmic removes them",))
    # LA Cosmic compares with the noise: with a guessed one it flags stars, or nothing.
    if UNCERTAINTY not in frame and given.get("use_uncertainty", True):
        return Cleaned(frame, ("cosmic rays left in: the noise is not known",))
    frame = in_fitting_chunks(frame)
    # A spectrum has no stars, and its lines would be taken for such.
    stars = None if spectrum else measure_stars(frame)
    objlim = OBJLIM if stars is None else choose_objlim(stars.fwhm)
    messages: tuple[str, ...] = ()
    if stars is not None and objlim != OBJLIM and "objlim" not in given:
        width = f"stars are {stars.fwhm:.1f} pixels wide"
        messages = (f"{width}: cosmic rays with objlim {objlim:g} instead of {OBJLIM:g}",)
    # The uncertainty is the only right noise once amplifiers of different gain are assembled; a scalar fits one of
    # them.
    given = {"objlim": objlim, "use_uncertainty": True, **given}
    cleaned = in_fitting_chunks(frame, lambda ds: ops.cosmicray_lacosmic(ds, **given))
    if asked == "flag":
        cleaned = ops.add_mask(frame, ops.is_flagged(cleaned, "CR"), plane="CR")
    return Cleaned(cleaned, messages, stars, is_changed=True)


@dataclass(frozen=True)
class Hits:
    """Cosmic rays in a part of a product, beside what is possible."""

    count: int
    """Groups of pixels that touch."""

    fraction: float
    """Fraction of the pixels."""

    most: float
    """Hits that are possible; NaN where the size of the pixels is not known."""

    most_fraction: float
    """Fraction that is possible, where the size of the pixels is not known."""

    @property
    def doubt(self) -> Doubt | None:
        """The doubt that something else was taken for cosmic rays, if there are more than possible."""
        text = f"{self.count} hits of cosmic rays in {self.fraction:.2%} of the pixels"
        # A hundred hits more or less than expected are chance where a thousand are expected, and five where one is.
        if math.isnan(self.most):
            likely = self.count * self.most_fraction / self.fraction if self.fraction else 0.0
            if self.count <= likely + 5 * math.sqrt(likely) + 5:
                return None
            return Doubt("cosmic rays", f"{text}, more than the {self.most_fraction:.2%} that are likely", WAY_OUT)
        if self.count <= self.most + 5 * math.sqrt(self.most) + 5:
            return None
        limit = f"{MOST_RATE:g} per cm2 and minute"
        return Doubt("cosmic rays", f"{text}, more than the {self.most:.0f} that {limit} give", WAY_OUT)


def pixel_area(header: Mapping[str, Any], binning: str | None) -> float:
    """Return the area of a pixel in cm2, from its size in micron; NaN if no card gives it.

    Parameters
    ----------
    header
        Of the product.
    binning
        Such as ``2x2``.
    """
    factors = [float(number) for number in (binning or "1x1").split("x")]
    for x, y, is_binned in PIXEL_SIZES:
        sizes = [_micron(header.get(key)) for key in (x, y)]
        if math.isfinite(sizes[0]):
            sizes[1] = sizes[1] if math.isfinite(sizes[1]) else sizes[0]
            return math.prod(sizes) * 1e-8 * (1.0 if is_binned else math.prod(factors))
    return math.nan


def _micron(value: Any) -> float:
    """Return a size that a pixel can have, else NaN: some headers have it in millimetres, or as 0."""
    try:
        size = float(value)
    except (TypeError, ValueError):
        return math.nan
    return size if 0.5 <= size <= 100 else math.nan


def count_hits(flagged: npt.NDArray[np.bool_], exposure: float | None, area: float) -> Hits:
    """Return the hits in a part of a product, and how many are possible.

    Parameters
    ----------
    flagged
        Where it has cosmic rays.
    exposure
        Seconds; None where it is not known.
    area
        Of a pixel in cm2, NaN where it is not known.
    """
    count = groups_of(flagged, diagonal=True)[2]
    # Rays also fall while the detector waits and is read.
    minutes = ((exposure or 0.0) + READING) / 60
    most_fraction = MOST_FRACTION * max(1.0, (exposure or 0.0) / 3600)
    return Hits(count, float(flagged.mean()), MOST_RATE * area * flagged.size * minutes, most_fraction)


class StarFluxes(NamedTuple):
    """What cleaning did to the stars of a part of a frame."""

    changes: Array
    """Relative change of the flux of each star."""

    by_chance: float
    """Stars that rays are expected to hit, by their number beside the stars."""


def flux_changes(before: Array, after: Array) -> StarFluxes:
    """Return the relative changes of the flux of stars that cleaning made, bright, defocused and saturated ones too.

    Stars are what stands out of an image whose pixels are the medians of their neighbourhood: no ray does, as it covers fewer
    than half of the pixels.
    """
    known = np.isfinite(before) & np.isfinite(after)
    if np.count_nonzero(known) < 100:
        return StarFluxes(np.zeros(0), 0.0)
    sky, sigma = _sky_and_noise(before, known)
    # The median of nine pixels is above a threshold where five of them are.
    is_source = most_of_nine(known & (before > sky + STAR_SIGMAS * sigma))
    places, numbers, count = groups_of(is_source, diagonal=False)
    if not count:
        return StarFluxes(np.zeros(0), 0.0)
    # Stars cover few pixels, and only these are summed.
    was, now = (
        np.where(known.flat[places], values.flat[places].astype(float) - sky, 0.0) for values in (before, after)
    )
    sizes, flux, change = (np.bincount(numbers, what, count + 1)[1:] for what in (None, was, now - was))
    # Large galaxies are hit by chance, and then lose what is not theirs.
    rays = groups_of(known & (before != after) & ~is_source, diagonal=True)[2]
    pixels = max(1, before.size - places.size)
    stars = (sizes >= STAR_PIXELS) & (flux > 0) & (rays / pixels * sizes < CHANCE_HITS)
    by_chance = (rays + FEWEST_RAYS) / pixels * float(sizes[stars].sum())
    return StarFluxes(np.asarray(np.abs(change[stars]) / flux[stars]), by_chance)


def flux_doubt(stars: StarFluxes) -> Doubt | None:
    """Return the doubt that cleaning took light from stars: from most of them, or from more than rays can have hit."""
    changes = stars.changes
    if not changes.size:
        return None
    # One of two stars may have been hit by a ray.
    most = FLUX_CHANGE if changes.size >= FEWEST_FLAGGED else FLUX_CHANGE_OF_FEW
    middle = float(np.median(changes)) if changes.size >= FEWEST_FLAGGED else float(np.min(changes))
    if middle > most:
        return Doubt("cosmic rays", f"the flux of {changes.size} stars changed by {middle:.1%} in the median", WAY_OUT)
    # Where two stars touch, the saddle between them is sharp, and may be taken for a ray. The others keep their flux.
    # What vanished as a whole was a broad ray, and no star.
    lost = changes[(changes > STAR_LOSS) & (changes < VANISHED)]
    hit = lost.size
    if hit and gammainc(hit, stars.by_chance) < STAR_CHANCE:
        text = f"{hit} of {changes.size} stars lost up to {np.max(lost):.1%} of their flux, where rays hit {stars.by_chance:.1g}"
        return Doubt("cosmic rays", text, WAY_OUT)
    return None


def check_cleaning(product: xr.Dataset, cleaned: Cleaned, facts: Facts) -> tuple[tuple[str, ...], Doubt | None]:
    """Return what is said of the cosmic rays of a product that was written, and the doubt that something else was removed."""
    if not cleaned.is_changed:
        return (), None
    product = product if cleaned.is_product else cleaned.frame
    image = resolve(product)
    region = central_region(image.shape, 1.0, most=AREA)
    if cleaned.is_product:
        planes = read_planes(image, region)
    else:
        # Cosmic rays are found once more, in chunks that fit into memory.
        middle = cut(image, *region.slices).to_dataset().drop_vars(UNCERTAINTY, errors="ignore")
        part = in_fitting_chunks(middle).compute()
        planes = Planes(part[DATA].values, part[MASK].values)
    bits = planes.mask
    assert bits is not None
    flagged = (bits & bits.dtype.type(image.schema.bits("CR"))) != 0
    area = pixel_area(header_view(str(product.attrs["header"])), facts.binning.value)
    hits = count_hits(flagged, facts.exposure.value, area)
    doubts, messages = [hits.doubt], [f"{hits.count} hits of cosmic rays"]
    if cleaned.stars is not None:
        stars = check_stars(flagged, cleaned.stars)
        doubts.append(stars.doubt)
        messages = [f"{stars}, {hits.count} hits"]
        doubts.append(flux_doubt(flux_changes(cleaned.stars.pixels, planes.data)))
    said = [doubt for doubt in doubts if doubt is not None]
    text = "; ".join(doubt.text for doubt in said)
    return tuple(messages), Doubt("cosmic rays", f"cosmic rays: {text}", WAY_OUT) if said else None


def check_stars(flagged: npt.NDArray[np.bool_], stars: Stars) -> FlaggedStars:
    """Count the pixels that are flagged as cosmic rays in the region of stars, and the peaks of stars among them."""
    return FlaggedStars(float(flagged.mean()), int(flagged[tuple(stars.places.T)].sum()), len(stars.places))
