"""FITS: compressed writing against fpack, compressed reading against astropy and funpack, plain writing against the bare loop.

The bare loop is two plain threads that call the same reader and writer, without plan and without dask. Files of integers
are compressed by the same loop, because frames are floats. Each run has its own process; its files are in memory if
``--folder`` is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
from astropy.io import fits
from common import fresh, noisy_fits, row, save, spread

import lazyccd
from lazyccd.io.fits.layout import HduSpec
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.fits.storage import FitsStorage, find_hdu
from lazyccd.io.fits.tile_writer import Packing, tile_shape
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.sections import Region

WRITES = {
    "RICE_1 of uint16": ("uint16", "RICE_1", None, ("-r",)),
    "GZIP_2 of uint16": ("uint16", "GZIP_2", None, ("-g2",)),
    "HCOMPRESS_1 of uint16": ("uint16", "HCOMPRESS_1", None, ("-h",)),
    "RICE_1 of float32, 4 steps": ("float32", "RICE_1", 4.0, ("-r", "-q", "4")),
    "GZIP_2 of float32, lossless": ("float32", "GZIP_2", None, ("-g2", "-q", "0")),
}
DITHER = "SUBTRACTIVE_DITHER_1"
BAND = 4 << 20


def storage(path: Path, dtype: str) -> FitsStorage:
    """Return the image of a file."""
    file = scan_fits(str(path))
    return FitsStorage.of(file, find_hdu(file), dtype)


def bands(shape: tuple[int, int], step: int) -> list[Region]:
    """Return bands of rows, whole tiles each."""
    rows = max(BAND // shape[1] // step, 1) * step
    return [Region(y, min(y + rows, shape[0]), 0, shape[1]) for y in range(0, shape[0], rows)]


def bare_write(source: FitsStorage, out: Path, compress: str | None) -> None:
    """Copy an image with two plain threads."""
    shape, dtype = source.shape, source.dtype.name
    packing = Packing.of(compress, shape, dtype) if compress else None
    target = FitsTarget(str(out), (HduSpec("", "", shape, dtype, packing),))
    target.create()

    def copy(region: Region) -> Partial:
        with source.open() as reader:
            return target.write(0, region, reader.read(region))

    with ThreadPoolExecutor(2) as pool:
        target.finish(list(pool.map(copy, bands(shape, tile_shape(compress, shape)[0] if compress else 1))))


def write_with_dask(path: Path, out: Path, **options: Any) -> None:
    """Copy an image with the library."""
    with dask.config.set(scheduler="threads", num_workers=2):
        lazyccd.to_fits(lazyccd.open_fits(path)[["data"]], out, **options)


def read(path: Path, dtype: str, threads: int) -> None:
    """Read an image with threads."""
    source = storage(path, dtype)
    out = np.empty(source.shape, source.dtype)

    def fill(region: Region) -> None:
        with source.open() as reader:
            reader.read_into(region, out[region.slices])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, bands(source.shape, 1)))


def timed(run: Callable[[], object], out: Path) -> float:
    """Return the seconds of one run that makes a new file."""
    out.unlink(missing_ok=True)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def worker(kind: str, folder: str, name: str) -> None:
    """Warm up on a small image, then time one run on the large one; print seconds."""
    seconds = 0.0
    for place in (Path(folder) / "small", Path(folder)):
        out = place / "out.fits.fz"
        if kind == "write":
            dtype, compress, steps, _ = WRITES[name]
            path = place / f"{dtype}.fits"
            if dtype == "uint16":
                seconds = timed(lambda p=path, o=out, c=compress: bare_write(storage(p, "uint16"), o, c), out)
            else:
                options = {"compress": compress, "quantize": steps, "dither": DITHER}
                seconds = timed(lambda p=path, o=out, x=options: write_with_dask(p, o, **x), out)
        elif kind == "plain":
            path, out = place / "float32.fits", place / "out.fits"
            bare = name == "bare"
            run = (lambda p=path, o=out: bare_write(storage(p, "float32"), o, None)) if bare else None
            seconds = timed(run or (lambda p=path, o=out: write_with_dask(p, o)), out)
        else:
            dtype = name.split()[0]
            path = place / f"{dtype}.fits.fz"
            start = time.perf_counter()
            if kind == "astropy":
                fits.getdata(path, 1)
            else:
                read(path, dtype, int(kind))
            seconds = time.perf_counter() - start
    print(json.dumps(seconds))


def program(*command: str, out: Path) -> float:
    """Return the seconds of a program that makes a new file."""
    return timed(lambda: subprocess.run(command, check=True), out)


def bench_writes(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Compare compressed writing with fpack."""
    rows = []
    for name, (dtype, _, _, options) in WRITES.items():
        path = folder / f"{dtype}.fits"
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(program("fpack", *options, str(path), out=folder / f"{dtype}.fits.fz"))
            ours.append(fresh(__file__, "write", folder, name))
        ratio = median(theirs) / median(ours)
        sizes = [(folder / file).stat().st_size / 1e6 for file in ("out.fits.fz", f"{dtype}.fits.fz")]
        measured = (
            f"{ratio:.2f} times fpack ({spread(ours)} against {spread(theirs)}); {sizes[0]:.1f} and {sizes[1]:.1f} MB"
        )
        rows.append(row(f"write {name}, two threads", measured, "≥ 1.6 times", ratio >= 1.6, ours=ours, theirs=theirs))
    return rows


def bench_reads(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Compare compressed reading on one and on two threads with astropy and funpack."""
    rows = []
    for dtype, options in (("uint16", ("-r",)), ("float32", ("-r", "-q", "4"))):
        packed, plain = folder / f"{dtype}.fits.fz", folder / "out.fits"
        program("fpack", *options, str(folder / f"{dtype}.fits"), out=packed)
        subprocess.run(["fpack", *options, str(folder / "small" / f"{dtype}.fits")], check=True)
        times: dict[str, list[float]] = {"1": [], "2": [], "astropy": [], "funpack": []}
        for _ in range(rounds):
            times["funpack"].append(program("funpack", "-O", str(plain), str(packed), out=plain))
            for kind in ("1", "2", "astropy"):
                times[kind].append(fresh(__file__, kind, folder, f"{dtype} read"))
        best = {kind: median(values) for kind, values in times.items()}
        what = f"read RICE_1 of {dtype}{', 4 steps' if dtype == 'float32' else ''}"
        scaling = best["1"] / best["2"]
        measured = f"{scaling:.2f} times one thread ({spread(times['2'])} against {spread(times['1'])})"
        rows.append(row(f"{what}, two threads", measured, "≥ 1.6 times", scaling >= 1.6, times=times))
        for other in ("astropy", "funpack"):
            ratio = best[other] / best["2"]
            measured = (
                f"{ratio:.1f} times {other} ({spread(times[other])}); one thread {best[other] / best['1']:.1f} times"
            )
            rows.append(row(f"{what}, two threads against {other}", measured, "faster", ratio > 1))
    return rows


def bench_plain(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Compare plain writing with the bare loop."""
    times = {kind: [fresh(__file__, "plain", folder, kind) for _ in range(rounds)] for kind in ("bare", "dask")}
    ratio = median(times["dask"]) / median(times["bare"])
    measured = f"{ratio:.2f} times the bare loop ({spread(times['dask'])} against {spread(times['bare'])})"
    return [row("write plain float32, two threads", measured, "≤ 1.3 times", ratio <= 1.3, times=times)]


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are written; a folder in memory keeps the disk out of it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        for place, n in ((folder, args.size), (folder / "small", 600)):
            place.mkdir(exist_ok=True)
            noisy_fits(place / "uint16.fits", (n, n), "uint16", 1500, 30)
            noisy_fits(place / "float32.fits", (n, n), "float32", 1500, 30, BUNIT="adu")
        rows = [bench(folder, args.rounds) for bench in (bench_writes, bench_reads, bench_plain)]
    save(
        "fits",
        [found for some in rows for found in some],
        f"python benchmarks/bench_fits.py --size {args.size} --rounds {args.rounds}",
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:5])
    else:
        main()
