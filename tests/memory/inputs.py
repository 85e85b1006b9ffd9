"""Files that the workloads of `workloads` read, made once for all of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

import lazyccd

OVERSCAN = 64
"""Columns of overscan of raw frames."""

FRAMES = 300
"""Frames of the deep stack."""


def header(side: int, *, raw: bool = False) -> fits.Header:
    """Return the header of a frame of a camera, with the sky on it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
        ["RA---TAN", "DEC--TAN"],
        [150.0, 2.0],
        [side / 2, side / 2],
        [-1e-4, 1e-4],
    )
    cards = wcs.to_header()
    cards.update(BUNIT="adu", GAIN=1.5, RDNOISE=5.0, EXPTIME=60.0, SATURATE=60000)
    if raw:
        cards.update(BIASSEC=f"[{side + 1}:{side + OVERSCAN},1:{side}]", TRIMSEC=f"[1:{side},1:{side}]")
    return cards


def sky(side: int, seed: int = 0, columns: int | None = None) -> npt.NDArray[np.float32]:
    """Return a sky with noise and one cosmic ray in a thousand pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.standard_normal((side, columns or side), np.float32) * np.float32(20) + np.float32(1000)
    pixels.ravel()[rng.integers(0, pixels.size, pixels.size // 1000)] += np.float32(3000)
    return pixels


def make_inputs(folder: Path, side: int, frames: int = FRAMES) -> None:
    """Make all files for frames of a side."""
    folder.mkdir(parents=True, exist_ok=True)
    _make_raw(folder, side)
    pixels = sky(side)
    mask = np.random.default_rng(5).random(pixels.shape, np.float32) < 0.001
    full = CCDData(pixels, unit="adu", mask=mask, meta=header(side))
    lazyccd.to_fits(lazyccd.create_deviation(lazyccd.from_ccddata(full), **NOISE), folder / "full.fits")
    lazyccd.to_zarr(lazyccd.from_ccddata(full), folder / "full.zarr")
    fits.writeto(folder / "science.fits", pixels, header(side))
    fits.writeto(folder / "double.fits", pixels.astype(np.float64), header(side))
    (folder / "science.fits.gz").write_bytes(gzip.compress((folder / "science.fits").read_bytes(), 1))
    whole = fits.CompImageHDU(
        pixels, header(side), compression_type="GZIP_1", tile_shape=(side, side), quantize_level=0
    )
    whole.writeto(folder / "one_tile.fits")
    rounded = np.round(pixels).astype(np.int16)
    fits.CompImageHDU(rounded, header(side), compression_type="RICE_1").writeto(folder / "rice.fits")
    _make_masters(folder, side)
    _make_stack(folder / "stack", side, frames)


NOISE = {"gain": lazyccd.Keyword("GAIN", u.electron / u.adu), "readnoise": lazyccd.Keyword("RDNOISE", u.electron)}


def _make_raw(folder: Path, side: int) -> None:
    """Make a raw frame with overscan, one of sixteen amplifiers, and one of many rows."""
    pixels = sky(side, 1, side + OVERSCAN).astype(np.uint16)
    fits.writeto(folder / "raw.fits", pixels, header(side, raw=True))
    high = header(side // 4, raw=True)
    high.update(BIASSEC=f"[{side // 4 + 1}:{side // 4 + OVERSCAN},1:{16 * side}]")
    fits.writeto(folder / "high.fits", sky(16 * side, 2, side // 4 + OVERSCAN).astype(np.uint16), high)
    hdus = [fits.PrimaryHDU(header=fits.Header({"INSTRUME": "CAM"}))]
    part = side // 4
    for number in range(16):
        y, x = divmod(number, 4)
        cards = fits.Header({"EXTNAME": f"A{number}", "BUNIT": "adu", "GAIN": 1.5})
        cards["DETSEC"] = f"[{x * part + 1}:{(x + 1) * part},{y * part + 1}:{(y + 1) * part}]"
        cards["DATASEC"] = cards["TRIMSEC"] = f"[1:{part},1:{part}]"
        cards["BIASSEC"] = f"[{part + 1}:{part + 32},1:{part}]"
        hdus.append(fits.ImageHDU(sky(part, number, part + 32).astype(np.uint16), cards))
    fits.HDUList(hdus).writeto(folder / "amplifiers.fits")


def _make_masters(folder: Path, side: int) -> None:
    """Make the masters of a night."""
    y = np.linspace(0, 60, side, dtype=np.float32)[:, None]
    levels = {"bias": 100.0, "dark": 3.0, "flat": 1.0, "fringe": 5.0}
    for seed, (name, level) in enumerate(levels.items(), 50):
        pixels = np.float32(level) * (1 + np.float32(0.01) * sky(side, seed) / 1000)
        fits.writeto(folder / f"{name}.fits", pixels + (np.sin(y) if name == "fringe" else 0), header(side))


def _make_stack(folder: Path, side: int, frames: int) -> None:
    """Make many small frames."""
    folder.mkdir()
    rows, columns = side // 8, side // 4
    for number in range(frames):
        pixels = sky(rows, 100 + number, columns).astype(np.uint16)
        fits.writeto(folder / f"f{number:03}.fits", pixels, header(columns))
