"""The frames that the scripts of this folder reduce: a night with one camera, in folders as observers keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

Array = np.ndarray[Any, Any]

OVERSCAN = 16
"""Columns of overscan, at the right."""

GAIN, READ_NOISE = 1.5, 6.0
SCALE = 0.4 / 3600
"""Degrees of a pixel."""


class Camera:
    """A detector of some size, with a bias pattern, hot pixels and a flat field per filter.

    Parameters
    ----------
    size
        Rows and columns that light falls on.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rng = np.random.default_rng(14)
        self.bias = self.rng.normal(0, 2, (size, size))
        self.dark = self.rng.gamma(2, 0.05, (size, size))
        self.dark[self.rng.random((size, size)) < 2e-3] = 20.0
        y, x = np.indices((size, size)) / size - 0.5
        noise = self.rng.normal(1, 0.01, (size, size))
        self.flat = {"g": noise * (1 - 0.4 * (x**2 + y**2)), "r": noise * (1 - 0.2 * (x**2 + y**2) + 0.05 * x)}
        for flat in self.flat.values():
            flat[size // 3, :] = 0.3
        self.stars = self.rng.uniform(0, size, (max(12, size // 10), 2)), self.rng.gamma(1, 3000, max(12, size // 10))
        self.count = 0

    def expose(self, seconds: float, light: Array | float, *, rays: bool = False) -> Array:
        """Return a raw frame: unsigned 16-bit integers with overscan columns."""
        size = self.size
        electrons = self.rng.poisson(np.maximum(light + self.dark * seconds, 0)).astype(float)
        if rays:
            hits = self.rng.integers(0, size, (max(5, size // 8), 2))
            electrons[hits[:, 0], hits[:, 1]] += self.rng.uniform(3000, 20000, len(hits))
        drift = 1000 + 5 * np.sin(np.arange(size) / 30)[:, None] + self.rng.normal(0, 1)
        frame = np.zeros((size, size + OVERSCAN))
        frame[:, :size] = electrons / GAIN + self.bias
        frame += drift + self.rng.normal(0, READ_NOISE / GAIN, frame.shape)
        return np.clip(np.round(frame), 0, 65535).astype(np.uint16)

    def sky(self, name: str, shift: tuple[float, float], seconds: float) -> Array:
        """Return the light of the sky in a filter, in electrons."""
        size = self.size
        light = np.full((size, size), 4.0 * seconds)
        for (y, x), flux in zip(*self.stars, strict=True):
            cy, cx = y - shift[0], x - shift[1]
            ys, xs = np.ogrid[max(0, int(cy) - 8) : int(cy) + 9, max(0, int(cx) - 8) : int(cx) + 9]
            star = flux * seconds / 30 * np.exp(-((ys - cy) ** 2 + (xs - cx) ** 2) / 4.5)
            patch = light[max(0, int(cy) - 8) : int(cy) + 9, max(0, int(cx) - 8) : int(cx) + 9]
            patch += star[: patch.shape[0], : patch.shape[1]]
        return light * self.flat[name]

    def header(self, kind: str, seconds: float, name: str = "", target: str = "") -> fits.Header:
        """Return the header of the next frame."""
        self.count += 1
        size, minute = self.size, self.count * 3
        cards: dict[str, Any] = {
            "IMAGETYP": (kind, "type of image"),
            "EXPTIME": (seconds, "exposure time in seconds"),
            "FILTER": (name or "none", "filter"),
            "OBJECT": (target or kind.lower(), "name of the target"),
            "DATE-OBS": f"2026-04-21T{2 + minute // 60:02d}:{minute % 60:02d}:00.0",
            "GAIN": (GAIN, "electrons per adu"),
            "RDNOISE": (READ_NOISE, "electrons"),
            "BIASSEC": f"[{size + 1}:{size + OVERSCAN},1:{size}]",
            "TRIMSEC": f"[1:{size},1:{size}]",
            "CCD-TEMP": -99.7 + 0.1 * (self.count % 3),
            "OBSERVER": "A. Student",
            "AIRMASS": 1.0 + 0.01 * self.count,
        }
        header = fits.Header(
            [(key, *value) if isinstance(value, tuple) else (key, value) for key, value in cards.items()]
        )
        header["COMMENT"] = "simulated"
        return header


def add_wcs(header: fits.Header, size: int, shift: tuple[float, float], degrees: float = 0.0) -> None:
    """Write a celestial WCS whose pixels are shifted (y, x) and rotated."""
    angle = np.radians(degrees)
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0,
        "CRVAL2": 2.0,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
    }
    cards |= {"CRPIX1": size / 2 - shift[1], "CRPIX2": size / 2 - shift[0]}
    cards |= {"CD1_1": -SCALE * np.cos(angle), "CD1_2": SCALE * np.sin(angle)}
    cards |= {"CD2_1": SCALE * np.sin(angle), "CD2_2": SCALE * np.cos(angle)}
    header.update(cards)


def write_night(folder: Path, size: int) -> None:
    """Write the night: ``raw`` with everything, a mosaic, a cube, a mask and a list of names.

    Parameters
    ----------
    folder
        Where to write.
    size
        Rows and columns of an image without its overscan.
    """
    raw = folder / "raw"
    raw.mkdir(parents=True)
    camera = Camera(size)
    for i in range(6):
        fits.writeto(raw / f"bias_{i + 1:03d}.fits", camera.expose(0, 0.0), camera.header("BIAS", 0.0))
    for i in range(6):
        seconds = 30.0 if i < 3 else 120.0
        fits.writeto(raw / f"dark_{i + 1:03d}.fits", camera.expose(seconds, 0.0), camera.header("DARK", seconds))
    for name in ("g", "r"):
        for i in range(4):
            light = camera.flat[name] * (20000 - 2500 * i)
            header = camera.header("FLAT", 5.0 + i, name)
            fits.writeto(raw / f"flat_{name}_{i + 1:03d}.fits", camera.expose(5.0 + i, light), header)
        for i in range(3):
            shift = (1.7 * i, -2.3 * i)
            header = camera.header("LIGHT", 60.0, name, "NGC 3521")
            add_wcs(header, size, shift, 0.3 * i)
            light = camera.sky(name, shift, 60.0)
            fits.writeto(raw / f"ngc3521_{name}_{i + 1:03d}.fits", camera.expose(60.0, light, rays=True), header)
    _write_others(folder, camera)


def _write_others(folder: Path, camera: Camera) -> None:
    """Write what is not of one image per file: a mosaic, a cube, a mask, a compressed file and a list of names."""
    for i in range(3):
        header = camera.header("LIGHT", 20.0, "r", "M 67")
        parts: list[Any] = [fits.PrimaryHDU(header=header)]
        for chip in (1, 2):
            own = fits.Header({"EXTNAME": f"CHIP{chip}", "GAIN": 1.4 + 0.1 * chip, "BUNIT": "adu"})
            parts.append(fits.ImageHDU(camera.expose(20.0, 300.0 * chip), own))
        fits.HDUList(parts).writeto(folder / f"mosaic_{i + 1}.fits")
    size = camera.size
    cube = np.stack([camera.expose(1.0, 100.0)[: size // 2, : size // 2] for _ in range(5)])
    fits.writeto(folder / "cube.fits", cube.astype(np.float32), camera.header("BIAS", 0.0))
    fits.writeto(folder / "badpix.fits", (camera.dark > 10).astype(np.uint8))
    fits.writeto(folder / "focus.fits.gz", camera.expose(2.0, 500.0), camera.header("FOCUS", 2.0, "g"))
    names = sorted(path.name for path in (folder / "raw").glob("flat_r_*.fits"))
    (folder / "flats.list").write_text("\n".join(["# flats in r", *names, ""]))
