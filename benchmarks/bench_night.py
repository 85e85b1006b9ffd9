"""A night of 7 biases, 5 flats and 5 exposures, reduced by `lazyccd reduce`, by a script with ccdproc, and by a bare loop.

The bare loop makes the same masters and products by the same operations and writers, from two plain threads that take an exposure
each: without the plan of the night, checks, measurements, pictures, table and journal. The script with ccdproc reads, calibrates
and writes one frame after another, as most are written.

Besides, a year of tiny frames is planned, with headers from the cache and without, and nights of 64 and of 512 tiny exposures are
reduced, to compare the memory of the processes. ``--parts`` names what is wanted of these three.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits
from common import fresh, row, save, spread

from lazyccd.testing import Detector, Sky, make_exposure
from lazyccd.testing.simulate import Kind

COUNTS: dict[Kind, int] = {"bias": 7, "flat": 5, "light": 5}
SECONDS: dict[Kind, float] = {"bias": 0.0, "flat": 5.0, "light": 60.0}
TILE = 1024
"""Side of what is simulated; larger detectors are made of copies of it."""

PARTS = ("nights", "plan", "memory")

NIGHTS = 50
"""Nights of the year whose plan is made."""


def make(folder: Path, side: int) -> None:
    """Write a night."""
    small = min(side, TILE)
    count = side // small
    detector, whole = Detector((small, small)), Detector((side, side))
    sections = {"DATASEC": whole.data_section, "TRIMSEC": whole.data_section, "BIASSEC": whole.overscan_section}
    folder.mkdir(parents=True)
    minute = 0.0
    for kind, number in COUNTS.items():
        for i in range(number):
            taken = make_exposure(detector, Sky(stars=50, galaxies=5), kind, SECONDS[kind], seed=i, minute=minute)
            light, overscan = taken.pixels[:, :small], taken.pixels[:, small:]
            pixels = np.hstack([np.tile(light, (count, count)), np.tile(overscan, (count, 1))])
            taken.header.update({key: value for key, value in sections.items() if key in taken.header})
            fits.PrimaryHDU(pixels, taken.header).writeto(folder / f"{kind}_{i}.fits")
            minute += 2


def make_year(folder: Path, frames: int) -> None:
    """Write the tiny frames of some nights."""
    folder.mkdir(parents=True)
    kinds: tuple[Kind, ...] = ("bias", "dark", "flat", "light")
    small = Detector((16, 16), overscan=8)
    samples = {kind: make_exposure(small, Sky(stars=1, galaxies=0), kind, 60.0) for kind in kinds}
    each = frames // NIGHTS
    for number in range(frames):
        night, place = divmod(number, each)
        kind = kinds[min(place // 10, 3)] if place < 20 else "flat" if place < 50 else "light"
        header = samples[kind].header.copy()
        header["DATE-OBS"] = (datetime(2026, 1, 1, 18) + timedelta(days=7 * night, minutes=2 * place)).isoformat()
        header["AIRMASS"] = 1 + place / 1000
        if kind in {"flat", "light"}:
            header["FILTER"] = "BVR"[place % 3]
        # Equal pixels would make them copies of one frame.
        pixels = samples[kind].pixels.copy()
        pixels[0, 0] = place % 7
        fits.PrimaryHDU(pixels, header).writeto(folder / f"{night:03d}_{place:05d}.fits")


def by_reduce(folder: Path, out: Path) -> None:
    """Reduce in this process."""
    from lazyccd.cli.main import main as cli

    try:
        cli(["reduce", str(folder), "-o", str(out)])
    except SystemExit as end:
        # what is missing here, a dark, gives status 3
        if end.code not in {0, 3}:
            raise


def by_process(folder: Path, out: Path) -> None:
    """Reduce by the command in a process of its own."""
    words = [sys.executable, "-m", "lazyccd", "reduce", str(folder), "-o", str(out)]
    assert subprocess.run(words, capture_output=True, check=False).returncode in {0, 3}


def by_cluster(folder: Path, out: Path) -> None:
    """Reduce by the workers of the cluster that is there."""
    by_reduce(folder, out)


def by_bare_loop(folder: Path, out: Path) -> None:
    """Make the same by plain threads."""
    import dask
    from astropy import units as u

    import lazyccd

    out.mkdir(parents=True)
    gain, read = 1.6 * u.electron / u.adu, 6.0 * u.electron

    def opened(path: Path) -> Any:
        header = fits.getheader(path)
        ds = lazyccd.flag_saturated(lazyccd.open_fits(path), 65535.0)
        ds = lazyccd.subtract_overscan(ds, fits_section=header["BIASSEC"], overscan_axis=None, statistic="auto")
        return lazyccd.trim_image(ds, header["TRIMSEC"])

    def in_electrons(path: Path) -> Any:
        ds = lazyccd.subtract_bias(opened(path), str(out / "bias.fits"))
        return lazyccd.gain_correct(lazyccd.create_deviation(ds, gain, read, disregard_nan=True), gain)

    def reduce_one(path: Path) -> None:
        ds = lazyccd.flat_correct(in_electrons(path), str(out / "flat.fits"), norm_value=1.0)
        clean = lazyccd.cosmicray_lacosmic(ds, use_uncertainty=True)
        lazyccd.to_fits(clean, out / path.name)

    with dask.config.set(scheduler="threads", num_workers=2):
        biases = [
            lazyccd.create_deviation(opened(path), gain, read, disregard_nan=True) for path in _of(folder, "bias")
        ]
        lazyccd.to_fits(lazyccd.combine(biases, method="median"), out / "bias.fits")
        flats = [lazyccd.divide(ds, 3e4 * u.electron) for ds in map(in_electrons, _of(folder, "flat"))]
        lazyccd.to_fits(lazyccd.combine(flats, method="median"), out / "flat.fits")
    with dask.config.set(scheduler="sync"), ThreadPoolExecutor(2) as pool:
        list(pool.map(reduce_one, _of(folder, "light")))


def by_ccdproc(folder: Path, out: Path) -> None:
    """Make the same by ccdproc and astroscrappy."""
    import ccdproc
    from astropy import units as u
    from astropy.nddata import CCDData

    out.mkdir(parents=True)
    gain, read = 1.6 * u.electron / u.adu, 6.0 * u.electron

    def opened(path: Path) -> Any:
        ccd = CCDData.read(path, unit="adu")
        ccd = ccdproc.subtract_overscan(ccd, fits_section=ccd.header["BIASSEC"], overscan_axis=None)
        return ccdproc.trim_image(ccd, fits_section=ccd.header["TRIMSEC"])

    bias = ccdproc.combine([opened(path) for path in _of(folder, "bias")], method="median")
    bias.write(out / "bias.fits")

    def in_electrons(path: Path) -> Any:
        ccd = ccdproc.subtract_bias(opened(path), bias)
        return ccdproc.gain_correct(ccdproc.create_deviation(ccd, gain=gain, readnoise=read, disregard_nan=True), gain)

    flats = [in_electrons(path) for path in _of(folder, "flat")]
    flat = ccdproc.combine(flats, method="median", scale=lambda pixels: 1 / np.median(pixels))
    flat.write(out / "flat.fits")
    for path in _of(folder, "light"):
        ccd = ccdproc.flat_correct(in_electrons(path), flat)
        ccdproc.cosmicray_lacosmic(ccd, readnoise=6.0).write(out / path.name)


def _of(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}_*.fits"))


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "in process": by_reduce,
    "process": by_process,
    "cluster": by_cluster,
    "bare": by_bare_loop,
    "ccdproc": by_ccdproc,
}


def timed(way: str, folder: Path, out: Path) -> dict[str, float]:
    """Reduce the night once; return the seconds, and those of the processors."""
    shutil.rmtree(out, ignore_errors=True)
    before = _cpu_seconds()
    begin = time.perf_counter()
    WAYS[way](folder, out)
    return {"seconds": time.perf_counter() - begin, "cpu": _cpu_seconds() - before}


def _cpu_seconds() -> float:
    """Return the processor time of this process and of all that it started, those that still run too."""
    import psutil

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    running = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(each.ru_utime + each.ru_stime for each in used) + sum(each.user + each.system for each in running)


def worker(way: str, *words: str) -> dict[str, Any]:
    """Run one part in this process, after a small night that loads and compiles what it needs."""
    if way == "plan":
        return planned(Path(words[0]))
    folder, small, out = map(Path, words)
    if way == "cluster":
        from distributed import Client, LocalCluster

        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            timed(way, small, out)
            return timed(way, folder, out)
    if way not in {"process", "memory", "ccdproc"}:
        timed(way, small, out)
    found: dict[str, Any] = timed("in process" if way == "memory" else way, folder, out)
    return {**found, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def planned(folder: Path) -> dict[str, Any]:
    """Plan a night twice, from the headers of the files and from the cache, and print the plan."""
    from lazyccd.batch.report import PlainConsole, print_plan
    from lazyccd.batch.run import Options, plan_night

    times = []
    for _ in range(2):
        begin, cpu = time.perf_counter(), time.process_time()
        plan = plan_night(str(folder), Options())
        times.append({"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu})
    begin, cpu, text = time.perf_counter(), time.process_time(), io.StringIO()
    print_plan(plan, PlainConsole(text, 100))
    printed = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    return {"cold": times[0], "warm": times[1], "printed": printed, "lines": text.getvalue().count("\n")}


def nights(folder: Path, side: int, repeat: int, ways: list[str]) -> list[dict[str, Any]]:
    """Return the rows of the ways to reduce a night, which take turns."""
    make(folder / "night", side)
    make(folder / "small", 128)
    times: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeat):
        for way in ways:
            # the script takes minutes, and a quarter more or less of it decides nothing
            if way != "ccdproc" or turn == 0:
                found = fresh(__file__, way, folder / "night", folder / "small", folder / "out")
                times[way].append(found["seconds"])
                cpu[way].append(found["cpu"])
    rows = []
    for way in (way for way in ways if way not in {"bare", "ccdproc"}):
        for other, aim in (("bare", 1.3), ("ccdproc", 25.0)):
            if other in ways:
                ratio = median(times[way]) / median(times[other])
                ratio = 1 / ratio if other == "ccdproc" else ratio
                used = median(cpu[way]) / median(cpu[other])
                text = (
                    f"{ratio:.2f} times {'as fast' if other == 'ccdproc' else 'as long'} as {other} ({spread(times[way])} against "
                    f"{spread(times[other])}); {used:.2f} times its processor time"
                )
                met = ratio >= aim if other == "ccdproc" else ratio <= aim
                what = f"night of {sum(COUNTS.values())} frames of {side}², {way}"
                rows.append(
                    row(what, text, f"{'≥' if other == 'ccdproc' else '≤'} {aim} times", met, seconds=times, cpu=cpu)
                )
    return rows


def years(folder: Path, frames: int) -> list[dict[str, Any]]:
    """Return the rows of planning many frames."""
    make_year(folder / "year", frames)
    cache = {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", ""), "XDG_CACHE_HOME": str(folder / "cache")}
    found = fresh(__file__, "plan", folder / "year", **{key: value for key, value in cache.items() if value})
    rows = []
    for name, aim in (("warm", 5.0), ("cold", 20.0)):
        used = found[name]
        text = f"{used['seconds']:.1f} s ({used['cpu']:.1f} s of the processor)"
        where = "in the cache" if name == "warm" else "in the page cache only"
        rows.append(row(f"{frames} frames planned, headers {where}", text, f"< {aim} s", used["seconds"] < aim, **used))
    used = found["printed"]
    text = f"{used['seconds']:.1f} s ({used['cpu']:.1f} s of the processor), {found['lines']} lines"
    rows.append(row(f"the plan of {frames} frames printed", text, "< 5 s", used["seconds"] < 5, **used))
    return rows


def memory(folder: Path, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the row of the memory of nights that differ in their number of exposures."""
    make(folder / "small", 128)
    found = []
    for count in counts:
        night = folder / f"night{count}"
        make(night, 64)
        for i in range(COUNTS["light"], count):
            with fits.open(night / "light_0.fits") as hdus:
                hdus[0].header["DATE-OBS"] = (datetime(2026, 1, 14, 3) + timedelta(minutes=2 * i)).isoformat()
                hdus[0].data[0, 0] += i
                hdus.writeto(night / f"light_{i}.fits")
        found.append(fresh(__file__, "memory", night, folder / "small", folder / "out")["bytes"] / 1e6)
    text = ", ".join(f"{used:.0f} MB with {count}" for used, count in zip(found, counts, strict=True))
    more = (found[-1] - found[0]) / (counts[-1] - counts[0])
    return [row("memory of the driver by exposures", text, "< 0.1 MB more for each", more < 0.1, megabytes=found)]


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is done; by default all")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the year")
    parser.add_argument(
        "--exposures", type=int, nargs=2, default=(64, 512), metavar="N", help="of the nights of memory"
    )
    asked = parser.parse_args()
    rows = []
    for part in asked.parts:
        with tempfile.TemporaryDirectory() as name:
            if part == "nights":
                rows += nights(Path(name), asked.side, asked.repeat, asked.ways)
            elif part == "plan":
                rows += years(Path(name), asked.frames)
            else:
                rows += memory(Path(name), asked.exposures)
    save("night", rows, " ".join(["python benchmarks/bench_night.py", *sys.argv[1:]]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(worker(*sys.argv[2:])))
    else:
        main()
