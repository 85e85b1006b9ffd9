"""`ccd_process` with overscan and masters, 4096 x 4096, from files in the page cache to memory, against ccdproc.

Each side runs in its own processes, in turns; a small image is processed first, so that imports and compilation do not
count. The first full-size run of a process is what a script pays; later ones find their memory warm. Each side reads the
raw frame and three masters with their uncertainties within the measured time, and returns data and deviation in memory.

The third side, the bare loop, shows what the machine allows: two plain threads, lazyccd's reader and one loop that does
everything at once. The fourth only reads the bytes of all files once and writes the bytes of the results once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numba
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from common import fresh, row, save, spread

from lazyccd.sections import Region

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
    """Return the arguments of `ccd_process` for both sides."""
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


@numba.njit(nogil=True, error_model="numpy")
def calibrate(raw: Any, planes: Any, numbers: Any, data: Any, deviation: Any) -> None:
    """Calibrate some rows in one pass; planes are bias, dark and flat, each with its deviation."""
    bias, bias_dev, dark, dark_dev, flat, flat_dev = planes
    gain, read, scale, norm = numbers
    ny, nx = data.shape
    for i in range(ny):
        level = np.float32(np.median(raw[i, nx:]))
        for j in range(nx):
            signal = raw[i, j] - level
            variance = (max(signal * gain, np.float32(0)) if signal >= 0 else np.float32(np.nan)) + read
            value = signal * gain - bias[i, j] - scale * dark[i, j]
            variance += bias_dev[i, j] * bias_dev[i, j] + scale * scale * dark_dev[i, j] * dark_dev[i, j]
            f, e = flat[i, j] / norm, flat_dev[i, j] / norm
            value /= f
            data[i, j] = value
            deviation[i, j] = math.sqrt((variance + value * value * e * e) / (f * f))


def in_threads(work: Callable[[int], None], rows: int, step: int) -> None:
    """Call ``work`` with the first row of each band, on two threads."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(0, rows, step)))


def with_bare_loop(folder: Path, n: int) -> tuple[Any, Any]:
    """Return data and deviation as arrays in memory."""
    from lazyccd.io.fits.scan import scan_fits
    from lazyccd.io.fits.storage import FitsStorage

    files = {name: scan_fits(str(folder / f"{name}.fits")) for name in ("raw", "bias", "dark", "flat")}
    raw = FitsStorage.of(files["raw"], files["raw"].hdus[0]).open()
    planes = [FitsStorage.of(files[f], files[f].hdus[k]).open() for f in ("bias", "dark", "flat") for k in (0, 1)]
    step = min(16, n)
    sums = np.zeros(n // step)

    def add(y: int) -> None:
        sums[y // step] = planes[4].read(Region(y, y + step, 0, n)).sum(dtype=np.float64)

    in_threads(add, n, step)
    kind = planes[0].dtype.type
    numbers = tuple(kind(x) for x in (1.5, 25.0, 0.5, sums.sum() / n**2))
    data, deviation = np.empty((n, n), kind), np.empty((n, n), kind)

    def run(y: int) -> None:
        rows = [plane.read(Region(y, y + step, 0, n)) for plane in planes]
        signal = raw.read(Region(y, y + step, 0, n + 32))
        calibrate(signal, tuple(rows), numbers, data[y : y + step], deviation[y : y + step])

    in_threads(run, n, step)
    for reader in (raw, *planes):
        reader.close()
    return data, deviation


def only_bytes(folder: Path, n: int) -> tuple[Any, Any]:
    """Read all files once and write the memory of the results once, on two threads; nothing is computed."""
    kind = np.dtype({-32: np.float32, -64: np.float64}[fits.getheader(folder / "bias.fits")["BITPIX"]])
    results = np.empty((2, n, n), kind)
    parts = [(path, at) for path in sorted(folder.iterdir()) for at in range(0, path.stat().st_size, 2**26)]

    def read(k: int) -> None:
        path, at = parts[k]
        buffer = memoryview(np.empty(2**18, np.uint8))  # type: ignore[arg-type]
        descriptor = os.open(path, os.O_RDONLY)
        for offset in range(at, min(at + 2**26, path.stat().st_size), 2**18):
            os.preadv(descriptor, [buffer], offset)
        os.close(descriptor)

    in_threads(read, len(parts), 1)
    in_threads(lambda y: results[:, y : y + 256].fill(1), n, 256)
    return results[0], results[1]


SIDES: dict[str, Callable[[Path, int], tuple[Any, Any]]] = {
    "lazyccd": with_lazyccd,
    "ccdproc": with_ccdproc,
    "bare loop": with_bare_loop,
    "only bytes": only_bytes,
}


def worker(side: str, folder: str, n: int) -> None:
    """Time one side: a small warm-up, then some runs. The means of the results are printed too, for comparison."""
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
    """Run all sides in turns and save the ratios."""
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
            for side in ("ccdproc", "bare loop"):
                assert np.allclose(found["lazyccd"][0]["sums"], found[side][0]["sums"], rtol=1e-5), found
        for what, pick in (("first run of a process", slice(0, 1)), ("later runs", slice(1, None))):
            times = {side: [t for run in runs for t in run["times"][pick]] for side, runs in found.items()}
            ratio = median(times["ccdproc"]) / median(times["lazyccd"])
            label = f"ccd_process {args.size}², {dtype} masters, {what}"
            bare = median(times["lazyccd"]) / median(times["bare loop"])
            measured = (
                f"{ratio:.1f} times ccdproc (lazyccd {spread(times['lazyccd'])}, ccdproc {spread(times['ccdproc'])}); "
                f"{bare:.2f} times the time of the bare loop ({spread(times['bare loop'])}; "
                f"reading and writing the bytes alone {spread(times['only bytes'])})"
            )
            rows.append(row(label, measured, "≥ 20 times", ratio >= 20, ratio=ratio, **times))
    save("chain", rows, "python benchmarks/bench_chain.py")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
