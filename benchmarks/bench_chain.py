"""`ccd_process` with overscan and masters, 4096 x 4096, from files in the page cache to memory, against ccdproc.

Each side runs in processes of its own, by turns; a small image is processed first, so that imports and compilation are
not counted. The first full-size run of a process is what a script pays; later ones find their memory warm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from common import fresh, row, save, spread

RUNS = 4


def make(folder: Path, n: int, dtype: str) -> None:
    """Write a raw frame with 32 columns of overscan, and masters with uncertainties."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    raw = rng.integers(900, 30000, (n, n + 32), dtype=np.uint16)
    fits.writeto(folder / "raw.fits", raw, fits.Header({"EXPTIME": 30.0}))
    for name, level, noise in (("bias", 1, 1), ("dark", 5, 1), ("flat", 1, 0.02)):
        values = rng.normal(level, noise, (n, n)).astype(dtype)
        deviation = StdDevUncertainty(np.full((n, n), noise / 10, dtype))
        CCDData(values, unit="electron", uncertainty=deviation, meta={"EXPTIME": 60.0}).write(folder / f"{name}.fits")


def settings(n: int) -> dict[str, Any]:
    """Return the arguments of `ccd_process` that both sides get."""
    return {
        "oscan": f"[{n + 1}:{n + 32},1:{n}]",
        "trim": f"[1:{n},1:{n}]",
        "error": True,
        "gain": 1.5 * u.electron / u.adu,
        "readnoise": 5 * u.electron,
        "exposure_key": "EXPTIME",
        "exposure_unit": u.s,
        "dark_scale": True,
    }


def with_lazyccd(folder: Path, n: int) -> tuple[Any, Any]:
    """Return data and deviation as arrays in memory."""
    import lazyccd

    frames = {name: lazyccd.open_fits(folder / f"{name}.fits") for name in ("raw", "bias", "dark", "flat")}
    masters = {"master_bias": frames["bias"], "dark_frame": frames["dark"], "master_flat": frames["flat"]}
    done = lazyccd.ccd_process(frames["raw"], **masters, **settings(n))[["data", "uncertainty"]].compute()
    return done["data"].values, done["uncertainty"].values


def with_ccdproc(folder: Path, n: int) -> tuple[Any, Any]:
    """Return data and deviation as arrays in memory."""
    import ccdproc

    read = CCDData.read
    masters = {
        "master_bias": read(folder / "bias.fits"),
        "dark_frame": read(folder / "dark.fits"),
        "master_flat": read(folder / "flat.fits"),
    }
    done = ccdproc.ccd_process(read(folder / "raw.fits", unit="adu"), **masters, **settings(n))
    return done.data, done.uncertainty.array


SIDES: dict[str, Callable[[Path, int], tuple[Any, Any]]] = {"lazyccd": with_lazyccd, "ccdproc": with_ccdproc}


def worker(side: str, folder: str, n: int) -> None:
    """Time one side: a small warm-up, then some runs; the sums of the results go along."""
    warnings.simplefilter("ignore")
    for _ in range(2):
        SIDES[side](Path(folder) / "small", 256)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        data, deviation = SIDES[side](Path(folder) / "full", n)
        times.append(time.perf_counter() - start)
    sums = [float(np.nanmean(data, dtype=np.float64)), float(np.nanmean(deviation, dtype=np.float64))]
    print(json.dumps({"times": times, "sums": sums}))


def main() -> None:
    """Run both sides by turns and keep the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for dtype in ("float32", "float64"):
        with tempfile.TemporaryDirectory() as name:
            make(Path(name) / "small", 256, dtype)
            make(Path(name) / "full", args.size, dtype)
            found: dict[str, list[Any]] = {side: [] for side in SIDES}
            for _ in range(args.rounds):
                for side in SIDES:
                    found[side].append(fresh(__file__, side, name, args.size))
            assert np.allclose(found["lazyccd"][0]["sums"], found["ccdproc"][0]["sums"], rtol=1e-5), found
        for what, pick in (("first run of a process", slice(0, 1)), ("later runs", slice(1, None))):
            times = {side: [t for run in runs for t in run["times"][pick]] for side, runs in found.items()}
            ratio = median(times["ccdproc"]) / median(times["lazyccd"])
            label = f"ccd_process {args.size}², {dtype} masters, {what}"
            measured = (
                f"{ratio:.1f} times ccdproc (lazyccd {spread(times['lazyccd'])}, ccdproc {spread(times['ccdproc'])})"
            )
            rows.append(row(label, measured, "≥ 20 times", ratio >= 20, ratio=ratio, **times))
    save("chain", rows, "python benchmarks/bench_chain.py")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
