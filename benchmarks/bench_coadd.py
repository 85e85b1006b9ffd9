"""Coadds of many frames on one grid of the sky against SWarp; memory of a deep one; frames and stamps among 10 000.

Frames are noise with a star field of faint slopes, on a tangent plane, dithered and turned by a few degrees. SWarp runs with
the same grid, kernel and two threads. Its time and peak memory are those of its process; ours are those of a process whose
kernels are compiled, from the names of files to the written store.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import dask
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from common import fresh, noisy_fits, row, save, spread

import lazyccd
from lazyccd.plan_report import plan_report

SCALE = 1e-4
"""Degrees of a pixel."""

LIMIT = "1GB"


def tangent(shape: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0), angle: float = 0.0) -> WCS:
    """Return a WCS whose middle lies so many pixels from that of the field, turned by an angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turned = np.array([[c, -s], [s, c]]) @ offset
    wcs.wcs.crpix = [(shape[1] + 1) / 2 - turned[1], (shape[0] + 1) / 2 - turned[0]]
    wcs.wcs.cd = SCALE * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


def make(folder: Path, count: int, side: int, grid: int) -> None:
    """Write frames that lie all over a grid, and the header of that for SWarp."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    reach = max(grid - 1.1 * side, 0.02 * grid) / 2
    for number in range(count):
        wcs = tangent((side, side), tuple(rng.uniform(-reach, reach, 2)), rng.uniform(-3, 3))
        header = {k: v for k, v in wcs.to_header(relax=True).items() if k not in {"WCSAXES", "MJDREF", "DATE-REF"}}
        noisy_fits(
            folder / f"f{number:05d}.fits", (side, side), "float32", 100, 10, EXPTIME=60.0, BUNIT="adu", **header
        )
    target = tangent((grid, grid)).to_header()
    target["NAXIS"], target["NAXIS1"], target["NAXIS2"] = 2, grid, grid
    (folder / "out.head").write_text(target.tostring(sep="\n") + "\nEND\n")


def coadded(folder: Path, grid: int) -> Any:
    """Return the lazy coadd of the frames of a folder."""
    return lazyccd.coadd(
        sorted(map(str, folder.glob("f*.fits"))), tangent((grid, grid)), (grid, grid), "median", reject=None
    )


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_lazyccd(folder: Path, grid: int, limit: str | None) -> dict[str, Any]:
    """Coadd to Zarr on two threads; return time, peak memory, what the plan said, and the time of a cut-out."""
    settings = {"scheduler": "threads", "num_workers": 2}
    with dask.config.set({**settings, **({"lazyccd.memory-limit": limit} if limit else {})}):
        begin = time.perf_counter()
        mosaic = coadded(folder, grid)
        said = int(plan_report(mosaic).process_bytes)
        lazyccd.to_zarr(mosaic, folder / "ours.zarr")
        found: dict[str, Any] = {"time": time.perf_counter() - begin, "peak": peak(), "said": said}
        begin = time.perf_counter()
        middle = slice(grid // 2 - 256, grid // 2 + 256)
        coadded(folder, grid).ccd.cutout(y=middle, x=middle)["data"].compute()
        return {**found, "cutout": time.perf_counter() - begin}


def run_swarp(folder: Path) -> dict[str, Any]:
    """Coadd by SWarp on two threads; return time and peak memory."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return {}
    options = {
        "COMBINE_TYPE": "MEDIAN",
        "RESAMPLING_TYPE": "LANCZOS3",
        "SUBTRACT_BACK": "N",
        "NTHREADS": "2",
        "IMAGEOUT_NAME": "out.fits",
        "WEIGHTOUT_NAME": "out.weight.fits",
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
    }
    names = [path.name for path in sorted(folder.glob("f*.fits"))]
    begin = time.perf_counter()
    words = (word for key, value in options.items() for word in (f"-{key}", value))
    subprocess.run([program, *names, *words], cwd=folder, check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    return {"time": seconds, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def agreement(folder: Path, grid: int) -> float:
    """Return the largest difference from SWarp in the middle, over the noise: its tables of weights are others."""
    middle = slice(grid // 2 - 128, grid // 2 + 128)
    with fits.open(folder / "out.fits") as hdus:
        other = np.asarray(hdus[0].data[middle, middle], float)
    ours = lazyccd.open_zarr(folder / "ours.zarr")["data"][middle, middle].values
    both = np.isfinite(ours) & (other != 0)
    return float(np.abs(ours - other)[both].max() / 10)


def inputs(folder: Path, count: int) -> dict[str, list[float]]:
    """Return the times to find the frames at a place among many, and to cut 50 stamps out."""
    side = 64
    make(folder, count, side, round(side * np.sqrt(count) / 2))
    begin = time.perf_counter()
    mosaic = lazyccd.coadd(sorted(map(str, folder.glob("f*.fits"))), reject=None)
    found: dict[str, list[float]] = {"made": [time.perf_counter() - begin], "frames_at": [], "stamps": []}
    ny, nx = mosaic["data"].shape
    for number in range(5):
        begin = time.perf_counter()
        mosaic.ccd.frames_at((ny // 3 + 40 * number, nx // 3))
        found["frames_at"].append(time.perf_counter() - begin)
    places = np.random.default_rng(2).uniform(0.2, 0.8, (50, 2)) * (ny, nx)
    begin = time.perf_counter()
    for y, x in places:
        mosaic.ccd.stamps((int(y), int(x)), 128)
    found["stamps"].append(time.perf_counter() - begin)
    return found


def compare(folder: Path, grid: int, limit: str | None, rounds: int) -> tuple[list[Any], list[Any], float]:
    """Return what both sides took, in turns, and how far apart they are."""
    ours, other = [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "ours.zarr", ignore_errors=True)
        ours.append(fresh(__file__, "lazyccd", folder, grid, limit or ""))
        other += [found] if (found := fresh(__file__, "swarp", folder)) else []
    return ours, other, agreement(folder, grid) if other else float("nan")


def rows_of(what: str, aim: float, ours: list[Any], other: list[Any], apart: float) -> list[dict[str, Any]]:
    """Return the rows of a coadd."""
    times, others = [run["time"] for run in ours], [run["time"] for run in other]
    text = f"{spread(times)}"
    if other:
        text += f"; SWarp {spread(others)}, {min(others) / min(times):.1f} times as long; apart by {apart:.2g} sigma at most"
    limit = aim or (min(others) if others else np.inf)
    aim_text = f"≤ {aim:g} s" if aim else "no slower than SWarp"
    return [row(what, text, aim_text, min(times) <= limit, times=times, swarp=others)]


def deep(folder: Path, grid: int) -> list[dict[str, Any]]:
    """Return the rows of 200 frames on a large grid under a memory limit."""
    make(folder, 200, 2048, grid)
    ours, other, apart = compare(folder, grid, LIMIT, 1)
    shutil.rmtree(folder)
    what = f"200 frames of 2048² onto {grid}², Lanczos 3, median, to Zarr, limit {LIMIT}"
    most, said = ours[0]["peak"], ours[0]["said"]
    text = f"{most / 1e6:.0f} MB, plan said {said / 1e6:.0f} MB"
    text += f"; SWarp {other[0]['peak'] / 1e6:.0f} MB" if other else ""
    good = most <= 1e9 and most <= 1.1 * said
    return [
        *rows_of(what, 0, ours, other, apart),
        row(f"{what}: peak memory", text, "≤ 1 GB, ≤ 1.1 times the plan's", good, peak=most, said=said),
        row(
            "512² cut-out of it, uncomputed, opening included",
            f"{ours[0]['cutout']:.2f} s",
            "< 1 s",
            ours[0]["cutout"] < 1,
        ),
    ]


def main() -> None:
    """Run the parts and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deep", action="store_true", help="200 frames onto 20 000² too, which takes 12 GB of disk")
    parser.add_argument("--grid", type=int, default=20_000, help="side of the deep mosaic")
    parser.add_argument("--frames", type=int, default=10_000, help="frames among which some are found")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "shallow", 20, 2048, 2300)
        rows = rows_of(
            "20 x 2048², Lanczos 3, median, to Zarr", 2.5, *compare(folder / "shallow", 2300, None, asked.rounds)
        )
        if asked.deep:
            rows += deep(folder / "deep", asked.grid)
        found = fresh(__file__, "inputs", folder / "many", asked.frames)
        what = f"among {asked.frames} frames"
        rows += [
            row(f"coadd {what}, uncomputed", spread(found["made"]), "stated", True, times=found["made"]),
            row(f"frames_at {what}", spread(found["frames_at"]), "≤ 50 ms", min(found["frames_at"]) <= 0.05),
            row(f"50 stamps of 128² {what}, uncomputed", spread(found["stamps"]), "≤ 1 s", found["stamps"][0] <= 1),
        ]
    options = f"{' --deep' if asked.deep else ''}{f' --grid {asked.grid}' if asked.grid != 20_000 else ''}"
    save("coadd", rows, f"python benchmarks/bench_coadd.py{options}")


if __name__ == "__main__":
    if sys.argv[1:2] != ["worker"]:
        main()
    else:
        warnings.simplefilter("ignore")
        side, folder, *numbers = sys.argv[2:]
        if side == "lazyccd":
            print(json.dumps(run_lazyccd(Path(folder), int(numbers[0]), numbers[1] or None)))
        elif side == "swarp":
            print(json.dumps(run_swarp(Path(folder))))
        else:
            print(json.dumps(inputs(Path(folder), int(numbers[0]))))
