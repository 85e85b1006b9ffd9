"""Simulate skies: stars, galaxies and fringes over a flat background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lazyccd.kernels.block import Array


@dataclass(frozen=True)
class Sky:
    """Stars and galaxies over a flat background, in electrons per second.

    Examples
    --------
    >>> Sky(stars=5, galaxies=0).rate((100, 200)).shape
    (100, 200)
    """

    stars: int = 120
    """Number of stars."""

    galaxies: int = 25
    """Number of galaxies."""

    background_e_s: float = 2.0
    """Electrons per second and pixel of the night sky."""

    fwhm_px: float = 3.5
    """Seeing."""

    fringes_e_s: float = 0.0
    """Amplitude of the fringes of night sky lines, in electrons per second and pixel."""

    ra_deg: float = 150.0
    """Right ascension of the centre, in degrees."""

    dec_deg: float = 2.0
    """Declination of the centre, in degrees."""

    seed: int = 1
    """Another number gives other sources."""

    def catalogue(self, shape: tuple[int, int]) -> Array:
        """Return y, x, electrons per second and scale length (0 for stars) of each source, on an undithered image."""
        rng = np.random.default_rng([self.seed, 101])
        count = self.stars + self.galaxies
        # sources outside too: their wings reach in, and dithers bring them in
        y, x = rng.uniform(-20, shape[0] + 20, count), rng.uniform(-20, shape[1] + 20, count)
        flux = 30.0 * rng.pareto(1.1, count) + 20.0
        scale = np.where(np.arange(count) < self.stars, 0.0, rng.uniform(1.5, 6.0, count))
        return np.stack([y, x, np.minimum(flux, 3e5), scale], axis=1)

    def fringe_pattern(self, shape: tuple[int, int]) -> Array:
        """Return the fringes of a detector of that shape, of amplitude 1 and mean about 0: bent bands, 30 pixels apart."""
        y, x = np.ogrid[0 : shape[0], 0 : shape[1]]
        return np.asarray(np.sin(2 * np.pi * (x + 0.6 * y) / 30 + 3 * np.sin(y / 60) + 2 * np.cos(x / 90)))

    def rate(self, shape: tuple[int, int], dither: tuple[float, float] = (0.0, 0.0)) -> Array:
        """Return the expected electrons per second of each pixel; sources are moved by ``dither`` pixels (y, x)."""
        image = np.full(shape, self.background_e_s)
        for y, x, flux, scale in self.catalogue(shape):
            self._stamp(image, y + dither[0], x + dither[1], flux, scale)
        return image

    def _stamp(self, image: Array, y: float, x: float, flux: float, scale: float) -> None:
        """Add one source to the part of the image that it reaches."""
        half = int(np.clip(8 * self.fwhm_px * (1 + np.log10(1 + flux / 100)) + 6 * scale, 12, 150))
        y0, y1 = max(int(y) - half, 0), min(int(y) + half + 1, image.shape[0])
        x0, x1 = max(int(x) - half, 0), min(int(x) + half + 1, image.shape[1])
        if y0 >= y1 or x0 >= x1:
            return
        r2 = (np.arange(y0, y1)[:, None] - y) ** 2 + (np.arange(x0, x1)[None, :] - x) ** 2
        if scale:
            width = np.hypot(scale, self.fwhm_px / 2.355)
            profile = np.exp(-np.sqrt(r2) / width) / (2 * np.pi * width**2)
        else:
            # Moffat (1969), A&A 3, 455, with beta = 3.
            alpha2 = (self.fwhm_px / 2) ** 2 / (2 ** (1 / 3) - 1)
            profile = 2 / (np.pi * alpha2) * (1 + r2 / alpha2) ** -3.0
        image[y0:y1, x0:x1] += flux * profile
