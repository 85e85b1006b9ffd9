"""Run IRAF's crmedian and ccdmask, and keep what they give in ``iraf.npz``: ``python tests/ops/make_iraf.py``."""

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


def run_iraf(task: str, pixels: Array, options: dict[str, Any]) -> Array:
    """Return what a task makes of an image: crmedian the cleaned image, ccdmask a mask."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.writeto(folder / "in.fits", pixels)
        words = " ".join(f"{key}={value}" for key, value in options.items())
        lines = ["noao", "imred", "crutil", "ccdred"]
        if task == "crmedian":
            lines += [f'crmedian in.fits out.fits crmask="" median="" sigma="" residual="" {words}']
        else:
            lines += [f"ccdmask in.fits mask.pl {words}", "imcopy mask.pl out.fits verbose-"]
        (folder / "run.cl").write_text("\n".join([*lines, "logout", ""]))
        command = [shutil.which("irafcl") or "irafcl", "-f", "run.cl"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
        )
        if not (folder / "out.fits").exists():
            raise RuntimeError(f"{task} gave nothing: {done.stdout[-500:]}")
        with fits.open(folder / "out.fits") as hdus:
            result = next(hdu.data for hdu in hdus if hdu.data is not None)
            return np.array(result, np.float32) if task == "crmedian" else np.array(result != 0)


def main() -> None:
    """Run all cases."""
    kept = {}
    for shape in SHAPES:
        for task, cases in (("crmedian", CRMEDIAN), ("ccdmask", CCDMASK)):
            for number, options in enumerate(cases):
                kept[f"{task}_{shape[0]}_{number}"] = run_iraf(task, image(shape), options)
    np.savez_compressed(HERE / "iraf.npz", **kept)


if __name__ == "__main__":
    main()
