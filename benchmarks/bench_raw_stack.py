"""20 raw frames calibrated and clipped in one plan, from files in the page cache to memory, against the bare loop.

Each frame is uint16 with 32 columns of overscan; overscan, bias, dark and flat are float32. The bare loop is two plain threads that
calibrate and clip bands of rows with lazyccd's reader, one loop that calibrates, and the kernels of stacks. Both run by turns in one
process; the time is that of the processor, of all threads.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numba
import numpy as np
from astropy import units as u
from astropy.io import fits
from common import row, save, spread

import lazyccd
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.fits.storage import FitsStorage
from lazyccd.kernels.stack.loops import finite_inputs, mean_and_squares, weighted_sum
from lazyccd.kernels.stack.sigma_clip import reject_deviant
from lazyccd.kernels.stack.sorting import sorting_network
from lazyccd.sections import Region

COUNT, OVERSCAN = 20, 32
MASTERS = {"bias": (3, 1), "dark": (5, 1), "flat": (1, 0.03)}


def make(folder: Path, n: int) -> None:
    """Write the raw frames and the masters."""
    rng = np.random.default_rng(1)
    cards = fits.Header({"BUNIT": "adu", "EXPTIME": 60.0})
    for i in range(COUNT):
        fits.writeto(folder / f"raw{i:02d}.fits", rng.normal(1500, 20, (n, n + OVERSCAN)).astype(np.uint16), cards)
    for name, (level, noise) in MASTERS.items():
        fits.writeto(folder / f"{name}.fits", rng.normal(level, noise, (n, n)).astype(np.float32), cards)


def with_lazyccd(folder: Path, n: int) -> tuple[Any, Any]:
    """Return mean and deviation as arrays in memory."""
    bias, dark, flat = (lazyccd.open_fits(folder / f"{name}.fits") for name in MASTERS)
    frames = []
    for i in range(COUNT):
        frame = lazyccd.open_fits(folder / f"raw{i:02d}.fits")
        frame = lazyccd.subtract_overscan(
            frame, fits_section=f"[{n + 1}:{n + OVERSCAN},1:{n}]", overscan_axis=1, median=True
        )
        frame = lazyccd.subtract_bias(lazyccd.trim_image(frame, fits_section=f"[1:{n},1:{n}]"), bias)
        frame = lazyccd.subtract_dark(frame, dark, dark_exposure=60 * u.s, data_exposure=60 * u.s)
        frames.append(lazyccd.flat_correct(frame, flat, norm_value=1.0))
    done = lazyccd.combine(frames, reject="sigclip")[["data", "uncertainty"]].compute()
    return done["data"].values, done["uncertainty"].values


@numba.njit(nogil=True, error_model="numpy")
def calibrate(raw: Any, bias: Any, dark: Any, flat: Any, out: Any) -> None:
    """Calibrate some rows in one pass."""
    ny, nx = out.shape
    for i in range(ny):
        level = np.float32(np.median(raw[i, nx:]))
        for j in range(nx):
            out[i, j] = (raw[i, j] - level - bias[i, j] - dark[i, j]) / flat[i, j]


def with_bare_loop(folder: Path, n: int) -> tuple[Any, Any]:
    """Return mean and deviation as arrays in memory."""

    def opened(name: str) -> Any:
        file = scan_fits(str(folder / f"{name}.fits"))
        return FitsStorage.of(file, file.hdus[0], "float32").open()

    masters, raws = [opened(name) for name in MASTERS], [opened(f"raw{i:02d}") for i in range(COUNT)]
    data, deviation = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    rows = max(1, 2**14 // n)

    def run(y0: int) -> None:
        region = Region(y0, min(y0 + rows, n), 0, n)
        planes = [master.read(region) for master in masters]
        values = np.empty((COUNT, *region.shape), np.float32)
        for raw, out in zip(raws, values, strict=True):
            calibrate(raw.read(region._replace(x1=n + OVERSCAN)), *planes, out)
        values = values.reshape(COUNT, -1)
        use = np.empty(values.shape, np.bool_)
        finite_inputs(values, use)
        reject_deviant(values, use, sorting_network(COUNT), False, False, 3.0, 3.0, 0, np.empty((0, 0)))
        total, count = weighted_sum(values, use, np.ones(COUNT))
        squares = mean_and_squares(values, use)[2]
        data[y0 : region.y1] = (total / count).reshape(region.shape)
        deviation[y0 : region.y1] = np.sqrt(squares / (count - 1) / count).reshape(region.shape)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(0, n, rows)))
    for reader in (*masters, *raws):
        reader.close()
    return data, deviation


def main() -> None:
    """Run both sides by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    sides: dict[str, Callable[[Path, int], tuple[Any, Any]]] = {"lazyccd": with_lazyccd, "bare loop": with_bare_loop}
    times: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as name, dask.config.set(scheduler="threads", num_workers=2):
        make(Path(name), args.size)
        results = [side(Path(name), args.size) for side in sides.values()]
        assert np.allclose(results[0][0], results[1][0], rtol=1e-6)
        for _ in range(args.rounds):
            for side, run in sides.items():
                begin = time.process_time()
                run(Path(name), args.size)
                times[side].append(time.process_time() - begin)
    ratio = median(times["lazyccd"]) / median(times["bare loop"])
    measured = (
        f"{ratio:.2f} times the bare loop by CPU ({spread(times['lazyccd'])} against {spread(times['bare loop'])})"
    )
    what = f"{COUNT} raw frames of {args.size}² calibrated and clipped in one plan"
    save(
        "raw_stack",
        [row(what, measured, "≤ 1.4 times", ratio <= 1.4, ratio=ratio, **times)],
        "python benchmarks/bench_raw_stack.py",
    )


if __name__ == "__main__":
    main()
