"""LA Cosmic against astroscrappy: one thread, chunks on two threads, memory, compilation, completeness and purity.

Both sides get the same simulated image, and every mask and replaced pixel is compared. The number of astroscrappy's
threads is set in the environment of its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
from astropy.nddata import CCDData
from common import fresh, row, save, spread

import lazyccd
from lazyccd.testing import Detector, Sky, make_exposure

METHODS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sepmed=False": {"sepmed": False},
    "fsmode=convolve": {"fsmode": "convolve"},
}
AIMS = {"defaults": 50, "sepmed=False": 25, "fsmode=convolve": 15}
CR = 4


def make_image(folder: Path, side: int) -> None:
    """Write an image in electrons and the truth about its cosmic rays."""
    detector = Detector(
        (side, side), overscan=0, bias_structure_adu=0.0, dark_e_s=0.0, bad_fraction=0.0, cosmic_rays_per_s=4e-7
    )
    exposure = make_exposure(detector, Sky(stars=side * side // 2500, galaxies=side * side // 40000), exposure_s=600.0)
    electrons = (exposure.pixels - np.median(exposure.pixels[:200, :200])) * detector.gain_e_per_adu + 1200.0
    np.save(folder / "image.npy", electrons.astype(np.float32))
    np.save(folder / "truth.npy", exposure.truth.cosmic_rays & ~exposure.truth.saturated)


def memory_now() -> int:
    """Return how many bytes this process has in memory, and restart the watch on its peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def memory_peak() -> int:
    """Return the most bytes that this process had in memory since then; what it inherited does not count."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) * 1024


def peer(folder: Path, method: str) -> dict[str, Any]:
    """Run astroscrappy on the whole image, and save what it found."""
    import astroscrappy

    pixels = np.load(folder / "image.npy")
    astroscrappy.detect_cosmics(pixels[:256, :256].copy(), satlevel=65535.0, **METHODS[method])
    before = memory_now()
    begin = time.perf_counter()
    rays, clean = astroscrappy.detect_cosmics(pixels, satlevel=65535.0, **METHODS[method])
    seconds = time.perf_counter() - begin
    used = memory_peak() - before
    np.save(folder / f"{method}_rays.npy", rays)
    np.save(folder / f"{method}_clean.npy", clean)
    return {"seconds": [seconds], "bytes_per_pixel": used / pixels.size}


def ours(folder: Path, method: str, chunk: int, threads: int, repeat: int) -> dict[str, Any]:
    """Run lazyccd on chunks, and compare.

    Results are timed both left in chunks, as writers take them, and gathered into one array.
    """
    pixels = np.load(folder / "image.npy")
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="electron")), chunk)
    small = lazyccd.from_ccddata(CCDData(pixels[:256, :256].copy(), unit="electron"))
    times, gathered = [], []
    with dask.config.set(scheduler="threads", num_workers=threads):
        lazyccd.cosmicray_lacosmic(small, **METHODS[method]).compute()
        for _ in range(repeat):
            begin = time.perf_counter()
            lazyccd.cosmicray_lacosmic(ds, **METHODS[method]).persist()
            times.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            done = lazyccd.cosmicray_lacosmic(ds, **METHODS[method]).compute()
            gathered.append(time.perf_counter() - begin)
    rays = (done["mask"].values & CR) != 0
    expected, clean = np.load(folder / f"{method}_rays.npy"), np.load(folder / f"{method}_clean.npy")
    same = np.array_equal(rays, expected) and np.array_equal(done["data"].values[rays], clean[rays])
    return {"seconds": times, "gathered": gathered, "same": bool(same)}


def task_memory(folder: Path) -> dict[str, Any]:
    """Return the bytes per pixel that the kernel takes on top of its input."""
    from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic, detect

    pixels = np.load(folder / "image.npy")
    detect(pixels[:256, :256].copy(), None, LACosmic(), levels=(1.0, 1.0))
    before = memory_now()
    detect(pixels, None, LACosmic(), levels=(1.0, 1.0))
    used = memory_peak() - before
    return {"bytes_per_pixel": used / pixels.size}


def first_calls() -> dict[str, Any]:
    """Return the seconds of the first call of each operation with a neighbourhood, on a small image."""
    pixels = np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32)
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="electron")), 40)
    ds = lazyccd.with_uncertainty(ds, pixels * 0 + 10)
    calls = {
        "cosmicray_lacosmic": lambda: lazyccd.cosmicray_lacosmic(ds),
        "cosmicray_median": lambda: lazyccd.cosmicray_median(ds, rbox=3),
        "median_filter": lambda: lazyccd.median_filter(ds, 5),
        "ccdmask": lambda: lazyccd.ccdmask(ds, findbadcolumns=True),
        "interpolate_bad_pixels": lambda: lazyccd.interpolate_bad_pixels(ds),
        "grow_mask": lambda: lazyccd.grow_mask(lazyccd.add_mask(ds, pixels > 120), "BAD", 2),
    }
    seconds = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        call().compute()
        seconds[name] = time.perf_counter() - begin
    return seconds


def import_times() -> tuple[list[float], list[float]]:
    """Return the seconds of processes that import lazyccd, and of those that import only its dependencies."""
    bare = "import numba, dask.array, xarray, astropy.units, astropy.io.fits"
    times: dict[str, list[float]] = {"import lazyccd": [], bare: []}
    # Packages that pip installed have their bytecode on disk, so ours may be kept too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for statement in times:
        subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    for _ in range(5):
        for statement, found in times.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
            found.append(time.perf_counter() - begin)
    return times["import lazyccd"], times[bare]


def found(rays: Any, truth: Any) -> str:
    """Return which fraction of the true pixels was flagged, and which fraction of the flagged ones is within one of a true one."""
    near = np.zeros_like(truth)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near |= np.roll(truth, (dy, dx), (0, 1))
    return f"completeness {(rays & truth).sum() / truth.sum():.4f}, purity {(rays & near).sum() / rays.sum():.4f}"


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_image(folder, asked.side)
        for method, aim in AIMS.items():
            theirs = fresh(__file__, "peer", folder, method, OMP_NUM_THREADS="1")
            mine = fresh(__file__, "ours", folder, method, asked.side, 1, asked.repeat)
            rows.append(_compared(f"{method}, {asked.side}², one thread each", mine, theirs, aim))
            if method == "defaults":
                memory = fresh(__file__, "memory", folder)["bytes_per_pixel"]
                one = theirs
        chunked = fresh(__file__, "ours", folder, "defaults", 2048, 2, asked.repeat)
        rows.append(_compared("chunks of 2048, two threads, against one thread", chunked, one, 85))
        two = fresh(__file__, "peer", folder, "defaults", OMP_NUM_THREADS="2")
        rows.append(_compared("chunks of 2048, two threads, against two threads", chunked, two, 55))
        text = f"{memory:.1f} bytes per pixel (astroscrappy {one['bytes_per_pixel']:.1f})"
        rows.append(row("memory of one task, on top of its input", text, "≤ 24 bytes", memory <= 24))
        truth = np.load(folder / "truth.npy")
        for method in METHODS:
            text = found(np.load(folder / f"{method}_rays.npy"), truth)
            rows.append(row(f"{method}: cosmic rays found, both alike", text, "reported", True))
    with tempfile.TemporaryDirectory() as empty:
        seconds = fresh(__file__, "first", NUMBA_CACHE_DIR=empty)
        total = sum(seconds.values())
        slowest = max(seconds, key=lambda key: seconds[key])
        text = f"{total:.1f} s, of which {slowest} {seconds[slowest]:.1f} s"
        rows.append(row("first calls with nothing compiled", text, "≤ 15 s", total <= 15, seconds=seconds))
    mine_s, bare_s = import_times()
    ratio = median(mine_s) / median(bare_s)
    text = f"{ratio:.2f} times the bare imports ({spread(mine_s)} against {spread(bare_s)})"
    rows.append(row("import lazyccd", text, "≤ 1.25 times", ratio <= 1.25))
    save("lacosmic", rows, "python benchmarks/bench_lacosmic.py")


def _compared(what: str, mine: dict[str, Any], theirs: dict[str, Any], aim: float) -> dict[str, Any]:
    """Return the row of two runs."""
    ratio = median(theirs["seconds"]) / median(mine["seconds"])
    same = "same bits" if mine["same"] else "OTHER BITS"
    gathered = median(theirs["seconds"]) / median(mine["gathered"])
    text = f"{ratio:.0f} times astroscrappy ({spread(mine['seconds'])} against {theirs['seconds'][0]:.1f} s), {same}"
    text += f"; {gathered:.0f} times with dask's copy into one array"
    return row(what, text, f"≥ {aim} times", ratio >= aim and mine["same"], mine=mine, theirs=theirs)


def worker(kind: str, *args: str) -> dict[str, Any]:
    """Run one part in this process."""
    if kind == "peer":
        return peer(Path(args[0]), args[1])
    if kind == "ours":
        return ours(Path(args[0]), args[1], int(args[2]), int(args[3]), int(args[4]))
    return task_memory(Path(args[0])) if kind == "memory" else first_calls()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        print(json.dumps(worker(*sys.argv[2:])))
    else:
        main()
