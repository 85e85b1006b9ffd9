"""Run tasks of IRAF, and keep what they give in ``iraf.npz``: ``python tests/ops/make_iraf.py``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

Array = npt.NDArray[Any]
HERE = Path(__file__).parent

CRMEDIAN: tuple[dict[str, Any], ...] = (
    {},
    {"ncmed": 4, "nlmed": 7},
    {"ncsig": 12, "nlsig": 14, "lsigma": 5, "hsigma": 4},
    {"var0": 30.0, "var1": 0.03, "var2": 0.00001, "hsigma": 2},
)
"""Parameters of crmedian, as IRAF names them."""

CCDMASK: tuple[dict[str, Any], ...] = (
    {},
    {"ngood": 1, "lsigma": 3.0, "hsigma": 3.0},
    {"ngood": 7, "lsigma": 4.0},
    {"ncmed": 5, "nlmed": 9, "ncsig": 10, "nlsig": 20},
    {"ncmed": 2, "nlmed": 6, "ncsig": 17, "nlsig": 11, "lsigma": 2.5, "hsigma": 6.0, "ngood": 3},
)
"""Parameters of ccdmask."""

SHAPES = ((60, 45), (77, 52), (75, 50))
"""Blocks that end with the image, and such that do not."""


def image(shape: tuple[int, int]) -> Array:
    """Return a ratio of flats with bad pixels, bad columns, and a column that only sums show, about 1000."""
    rng = np.random.default_rng(shape[0])
    pixels = rng.normal(1.0, 0.01, shape)
    pixels[20:50, 7] *= 0.96
    pixels[rng.random(shape) < 0.02] = 0.5
    pixels[:, 30] = 1.05
    for k in range(1, 8):  # gaps of k good pixels at both ends of a column
        pixels[k, 2 * k + 8] = pixels[shape[0] - 1 - k, 2 * k + 24] = 0.4
    pixels[3:, 40] += 0.012
    return (1000 * pixels).astype(np.float32)


FITS_OF_LINES = (
    "function=legendre order=1",
    "function=legendre order=4",
    "function=chebyshev order=3",
    "function=spline3 order=4",
)
"""Curves that colbias and linebias fit to the averages of lines."""


def run_cl(lines: list[str], inputs: dict[str, tuple[Array, dict[str, Any]]], outputs: list[str]) -> list[Array]:
    """Return the images that a script leaves, of those that it is given: pixels and keywords by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, (pixels, keywords) in inputs.items():
            fits.writeto(folder / f"{stem}.fits", pixels, fits.Header(keywords))
        (folder / "run.cl").write_text("\n".join(['set imtype = "fits"', "noao", "imred", *lines, "logout", ""]))
        command = [shutil.which("irafcl") or "irafcl", "-e", "-f", "run.cl"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
        results = []
        for stem in outputs:
            if not (folder / f"{stem}.fits").exists():
                raise RuntimeError(f"{lines} gave no {stem}: {done.stdout[-500:]}")
            with fits.open(folder / f"{stem}.fits") as hdus:
                results.append(np.array(next(hdu.data for hdu in hdus if hdu.data is not None)))
        return results


def is_installed() -> bool:
    """Return whether IRAF is here with its package noao, which distributions have apart from ``irafcl``."""
    if shutil.which("irafcl") is None:
        return False
    try:
        run_cl(["images", "imcopy in.fits out.fits verbose-"], {"in": (np.zeros((4, 4), np.float32), {})}, ["out"])
    except (RuntimeError, OSError, subprocess.TimeoutExpired):
        return False
    return True


def run_iraf(task: str, pixels: Array, options: dict[str, Any]) -> Array:
    """Return what a task makes of an image: crmedian the cleaned image, ccdmask a mask."""
    words = " ".join(f"{key}={value}" for key, value in options.items())
    lines = ["crutil", "ccdred"]
    if task == "crmedian":
        lines += [f'crmedian in.fits out.fits crmask="" median="" sigma="" residual="" {words}']
    else:
        lines += [f"ccdmask in.fits mask.pl {words}", "imcopy mask.pl out.fits verbose-"]
    (out,) = run_cl(lines, {"in": (pixels, {})}, ["out"])
    return out.astype(np.float32) if task == "crmedian" else out != 0


def overscan_image(task: str) -> Array:
    """Return 60 lines with a drifting level and 10 pixels of overscan each, some to be rejected; colbias has rows as lines."""
    rng = np.random.default_rng(1)
    rows = np.arange(60)
    pixels = 500 + 0.1 * rows[:, None] + 4 * np.sin(rows / 9)[:, None] + rng.normal(0, 3, (60, 48))
    pixels[:, :38] += 1000
    pixels[rng.integers(0, 60, 6), 47 - rng.integers(0, 10, 6)] += 400
    pixels = pixels if task == "colbias" else pixels.T
    pixels[20:23] += 60
    pixels[:, 20:23] += 60
    return pixels.astype(np.float32)


def run_overscan(task: str, curve: str) -> Array:
    """Return the image of `overscan_image` less the curve that colbias or linebias fit to its overscan."""
    section = "[39:48,1:60]" if task == "colbias" else "[1:60,39:48]"
    words = f'bias="{section}" trim="[*,*]" median- interactive- {curve} low_reject=2.5 high_reject=2.5 niterate=10 logfiles=""'
    return run_cl(["bias", f"{task} in.fits out.fits {words}"], {"in": (overscan_image(task), {})}, ["out"])[0]


def corrected_images() -> tuple[Array, Array, Array]:
    """Return an image, a smooth illumination of mean 3, and fringes."""
    pixels = np.random.default_rng(1).uniform(100, 200, (40, 50)).astype(np.float32)
    smooth = (3 + 0.3 * np.linspace(-1, 1, 50)[None, :] * np.ones((40, 1))).astype(np.float32)
    return pixels, smooth, (10 * np.sin(np.add.outer(np.arange(40) / 7, np.arange(50) / 4))).astype(np.float32)


def run_corrections() -> dict[str, Array]:
    """Return what ccdred's ccdproc makes of the image: divided by the illumination; less the fringes of half its exposure."""
    pixels, smooth, waves = corrected_images()
    sections = {"CCDSEC": "[1:50,1:40]", "DATASEC": "[1:50,1:40]"}
    made = {"MKILLUM": "done", "CCDMEAN": float(smooth.mean()), "CCDMEANT": 2000000000}
    inputs: dict[str, tuple[Array, dict[str, Any]]] = {
        "in": (pixels, {"EXPTIME": 60.0, **sections}),
        "illum": (smooth, {**made, **sections}),
        "fringe": (waves, {"MKFRINGE": "done", "EXPTIME": 30.0, **sections}),
    }
    off = "noproc- fixpix- overscan- trim- zerocor- darkcor- flatcor- readcor- scancor-"
    lines = [
        "ccdred",
        f'ccdproc in.fits output=a ccdtype="" max_cache=0 {off} illumcor+ fringecor- illum=illum.fits',
        f'ccdproc in.fits output=b ccdtype="" max_cache=0 {off} illumcor- fringecor+ fringe=fringe.fits',
    ]
    return dict(zip(("illumination", "fringe"), run_cl(lines, inputs, ["a", "b"]), strict=True))


def main() -> None:
    """Run all cases."""
    kept = run_corrections()
    for task in ("colbias", "linebias"):
        for number, curve in enumerate(FITS_OF_LINES):
            kept[f"{task}_{number}"] = run_overscan(task, curve)
    for shape in SHAPES:
        for task, cases in (("crmedian", CRMEDIAN), ("ccdmask", CCDMASK)):
            for number, options in enumerate(cases):
                kept[f"{task}_{shape[0]}_{number}"] = run_iraf(task, image(shape), options)
    np.savez_compressed(HERE / "iraf.npz", **kept)


if __name__ == "__main__":
    main()
