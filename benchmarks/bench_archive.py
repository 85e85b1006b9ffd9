"""Archives: reading back and writing FITS against the bare loop, windows of levels, and a hundred thousand units resumed.

The bare loop is two plain threads that call the same readers, kernels, codecs and writers, without plan and without
dask. Each run has its own process. Writing to Zarr is measured by bench_zarr.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from astropy import units as u
from bench_zarr import BareLoop, reduced, timed
from common import fresh, noisy_fits, row, save, spread

import lazyccd
from lazyccd.io.fits.layout import frame_hdus
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.io.resumable.journal import PROGRESS
from lazyccd.io.resumable.write import unit_of
from lazyccd.io.zarr.writer import open_arrays
from lazyccd.plan.chunks import tile_groups
from lazyccd.sections import Region

VARIABLES = ("data", "uncertainty", "mask")
ROWS = 256
"""Rows of a band of the bare loop's FITS file: disjoint ranges of bytes without gaps."""


class BareFits(BareLoop):
    """The same calibration to FITS by plain threads."""

    def run(self, threads: int) -> None:
        """Calibrate and write all bands."""
        ny, nx = self.raw.shape
        hdus = frame_hdus((ny, nx), "BUNIT   = 'electron'", uncertainty_type="std", schema=self.schema)
        self.fits = FitsTarget(self.target.store, tuple(hdus))
        self.fits.create(overwrite=True)
        with ThreadPoolExecutor(threads) as pool:
            tiles = [[tile for _, tile in group] for group in tile_groups(Region(0, ny, 0, nx), (512, 512))]
            total = np.sum([partial for group in pool.map(self.sums, tiles) for partial in group], axis=0)
            self.norm = np.array(total[0] / total[1])
            self.partials: list[Partial] = []
            list(pool.map(self.shard, [Region(y, min(y + ROWS, ny), 0, nx) for y in range(0, ny, ROWS)]))
        self.fits.finish(self.partials)

    def put(self, name: str, region: Region, array: Any) -> None:
        """Write one plane of a region."""
        if name == "mask":
            bad = (array & array.dtype.type(self.schema.bad_bits)) != 0
            self.partials.append(self.fits.write(2, region, bad))
        self.partials.append(self.fits.write({"data": 0, "uncertainty": 1, "mask": 3}[name], region, array))


def to_fits(folder: Path, path: Path) -> None:
    """Calibrate to FITS with lazyccd."""
    raw, flat = (lazyccd.open_fits(folder / f"{name}.fits") for name in ("raw", "flat"))
    ds = lazyccd.create_deviation(lazyccd.flag_saturated(raw, 60000), 1.5 * u.electron / u.adu, 5 * u.electron)
    ds = lazyccd.flat_correct(lazyccd.gain_correct(ds, 1.5 * u.electron / u.adu), flat)
    lazyccd.to_fits(ds, path, overwrite=True)


def read_bare(store: Path, threads: int) -> None:
    """Read all variables into arrays, shard by shard."""
    content = open_arrays(store).storages
    arrays = {name: np.empty(content[name].shape, content[name].dtype) for name in VARIABLES}
    (ny, nx), (sy, sx) = content["data"].shape, content["data"].chunks
    cells = [Region(y, y + sy, x, x + sx).clip((ny, nx)) for y in range(0, ny, sy) for x in range(0, nx, sx)]

    def read(job: tuple[str, Region]) -> None:
        reader = content[job[0]].open()
        arrays[job[0]][job[1].slices] = reader.read(job[1])
        reader.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [(name, cell) for cell in cells for name in VARIABLES]))


def read_lazyccd(store: Path) -> None:
    """Read all variables with lazyccd."""
    lazyccd.open_zarr(store).compute()


def worker(kind: str, folder: str) -> None:
    """Warm up on a small image, then time one full run."""
    places = Path(folder) / "small", Path(folder)
    runs: dict[str, Callable[[Path], object]] = {
        "fits bare": lambda at: BareFits(at, at / "out.fits").run(2),
        "fits": lambda at: to_fits(at, at / "out.fits"),
        "read bare": lambda at: read_bare(at / "a.zarr", 2),
        "read": lambda at: read_lazyccd(at / "a.zarr"),
    }
    seconds = 0.0
    for at in places:
        (at / "out.fits").unlink(missing_ok=True)
        with dask.config.set(scheduler="threads", num_workers=2):
            seconds = timed(lambda at=at: runs[kind](at), at / "none")
    print(json.dumps({"seconds": seconds}))


def compare(folder: Path, kinds: tuple[str, str], rounds: int, what: str) -> dict[str, Any]:
    """Return a row that compares a run with the bare loop."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            times[kind].append(fresh(__file__, kind, folder)["seconds"])
    ratio = median(times[kinds[0]]) / median(times[kinds[1]])
    measured = f"{ratio:.2f} times the bare loop ({spread(times[kinds[0]])} against {spread(times[kinds[1]])})"
    return row(what, measured, "≤ 1.3 times", ratio <= 1.3, ratio=ratio, times=times)


def windows(folder: Path) -> dict[str, Any]:
    """Return how long a window of 512 x 512 pixels of each level takes."""
    levels = lazyccd.build_pyramid(folder / "a.zarr")
    found: dict[int, list[float]] = {}
    for level in range(levels):
        frame = lazyccd.open_zarr(folder / "a.zarr", level=level)
        ny, nx = frame["data"].shape
        rng = np.random.default_rng(level)
        for _ in range(21):
            y, x = (int(rng.integers(0, n - 511)) for n in (ny, nx))
            start = time.perf_counter()
            frame.ccd.cutout(y=slice(y, y + 512), x=slice(x, x + 512)).compute()
            found.setdefault(level, []).append(time.perf_counter() - start)
    worst = max(median(times[1:]) for times in found.values())
    measured = "; ".join(f"level {level}: {1e3 * median(times[1:]):.1f} ms" for level, times in found.items())
    return row("512² window of three variables, medians of 20", measured, "< 20 ms", worst < 0.02, times=found)


def resumed(folder: Path) -> dict[str, Any]:
    """Return how long it takes to find that all of 100 489 units are done."""
    side = 317
    pixels = da.ones((16 * side, 16 * side), np.float32, chunks=1024)
    ds = xr.Dataset({"data": (("y", "x"), pixels, {"units": "adu"})})
    store = folder / "many.zarr"
    original = lazyccd.io.resumable.write.lower_write
    lazyccd.io.resumable.write.lower_write = lambda *args: 1 / 0  # the write begins, then stops before its first unit
    tracked = lazyccd.io.resumable.write.TrackedWrite
    give_up = tracked.give_up
    tracked.give_up = lambda self, error: self.progress.release()
    try:
        lazyccd.to_zarr(ds, store, shards=(16, 16))
    except ZeroDivisionError:
        pass
    finally:
        lazyccd.io.resumable.write.lower_write, tracked.give_up = original, give_up
    part = folder / "many.zarr.part" / "0" / "data" / "c"
    lines = []
    for i in range(side):
        (part / str(i)).mkdir(parents=True)
        for j in range(side):
            (part / str(i) / str(j)).write_bytes(b"x" * 40)
            lines.append(
                json.dumps(
                    [unit_of(0, Region(16 * i, 16 * i + 16, 16 * j, 16 * j + 16)), {f"0/data/c/{i}/{j}": [40, 0]}]
                )
                + "\n"
            )
    (folder / PROGRESS / "many.zarr" / "receipts-before.jsonl").write_text("".join(lines))
    start = time.perf_counter()
    lazyccd.to_zarr(ds, store, shards=(16, 16))
    seconds = time.perf_counter() - start
    return row(
        f"{side**2} units planned, fingerprinted, found done",
        f"{seconds:.1f} s",
        "< 10 s",
        seconds < 10,
        seconds=seconds,
    )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are written; a folder in memory keeps the disk out of it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for place, n in ((Path(name), args.size), (Path(name) / "small", 1024)):
            place.mkdir(exist_ok=True)
            noisy_fits(place / "raw.fits", (n, n), "uint16", 8000, 300, BUNIT="adu")
            noisy_fits(place / "flat.fits", (n, n), "float32", 20000, 200, BUNIT="adu")
            reduced(place, place / "a.zarr")
        rows = [
            compare(
                Path(name), ("read", "read bare"), args.rounds, f"{args.size}² with three variables read from Zarr"
            ),
            compare(Path(name), ("fits", "fits bare"), args.rounds, f"{args.size}² uint16 calibrated to FITS"),
            windows(Path(name)),
            resumed(Path(name)),
        ]
    save("archive", rows, f"python benchmarks/bench_archive.py --size {args.size}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3])
    else:
        main()
