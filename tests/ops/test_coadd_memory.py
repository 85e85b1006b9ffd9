"""Memory of coadds whose frames are compared with what all of them have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

SIDE = 12288
"""Of the mosaic: an image of it in float32 takes 604 MB."""

LIMIT = 660 * 10**6

PROGRAM = """
import json, re, sys, warnings
import dask
warnings.simplefilter("ignore")
import lazyccd
from astropy.io import fits
from astropy.wcs import WCS

folder, rule, side, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
wcs = WCS(fits.getheader(f"{folder}/grid.fits"))
with dask.config.set({"scheduler": "threads", "num_workers": 2, "lazyccd.memory-limit": limit}):
    mosaic = lazyccd.coadd(f"{folder}/f*.fits", wcs, (side, side), "median", reject=rule, unit="adu")
    said = mosaic.ccd.plan().process_bytes
    middle = slice(4060, 4140)
    part = mosaic.ccd.cutout(y=middle, x=middle) if sys.argv[5] == "part" else mosaic
    lazyccd.to_zarr(part, f"{folder}/{rule}_{sys.argv[5]}.zarr")
# that of getrusage begins at what the process had that started this one
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(json.dumps([int(peak) * 1024, said]))
"""


def make_wcs(y: float, x: float) -> WCS:
    """Return a WCS whose pixel (0, 0) lies at a pixel of the mosaic."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [150, 2], [-1e-4, 1e-4]
    wcs.wcs.crpix = [SIDE / 2 - x, SIDE / 2 - y]
    return wcs


def run(folder: Path, rule: str, what: str) -> tuple[int, int]:
    """Return the peak memory of a process that writes a coadd, or a part of it, and what the plan said."""
    command = [sys.executable, "-c", PROGRAM, str(folder), rule, str(SIDE), str(LIMIT), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    peak, said = json.loads(done.stdout.splitlines()[-1])
    return peak, said


@pytest.mark.parametrize("rule", ["auto", "blotted"])
def test_nothing_as_large_as_the_mosaic_is_held(rule: str, tmp_path: Path) -> None:
    """Small frames lie all over a large grid; the peak of a process of its own is below the limit and what the plan says."""
    rng = np.random.default_rng(1)
    fits.PrimaryHDU(np.zeros((1, 1), np.float32), make_wcs(0, 0).to_header()).writeto(tmp_path / "grid.fits")
    places = [(y, x) for y in range(1960, SIDE, 2048) for x in range(1960, SIDE, 2048)]
    # five on one another, without which there is no search
    for number, (y, x) in enumerate([*places, *[(4100 + k, 4100) for k in range(5)]]):
        data = rng.normal(100, 10, (160, 160)).astype(np.float32)
        fits.PrimaryHDU(data, make_wcs(y, x).to_header()).writeto(tmp_path / f"f{number:03d}.fits")
    # to compile kernels takes memory too
    run(tmp_path, rule, "part")
    peak, said = run(tmp_path, rule, "whole")
    assert peak < LIMIT
    assert peak < 1.1 * said
