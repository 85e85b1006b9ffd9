"""Coadds of many frames on one grid of the sky against SWarp; memory of a deep one; frames and stamps among 10 000.

Frames are noise with a star field of faint slopes, on a tangent plane, dithered and turned by a few degrees. SWarp runs with
the same grid, kernel and two threads. Its time and peak memory are those of its process; ours are those of a process whose
kernels are compiled, from the names of files to the written store. CPU time is told besides: the clock counts what else the
machine does.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from common import fresh, noisy_fits, row, save, spread

import lazyccd
from lazyccd.kernels.block import Request
from lazyccd.pixel_history import with_inputs
from lazyccd.plan.chunks import grid_boxes
from lazyccd.plan_report import plan_report
from lazyccd.sections import Region

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


def coadded(folder: Path, grid: int, reject: str | None = None) -> Any:
    """Return the lazy coadd of the frames of a folder."""
    return lazyccd.coadd(
        sorted(map(str, folder.glob("f?????.fits"))), tangent((grid, grid)), (grid, grid), "median", reject=reject
    )


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bytes_read() -> int:
    """Return how many bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def run_lazyccd(folder: Path, grid: int, limit: str | None, reject: str | None) -> dict[str, Any]:
    """Coadd to Zarr on two threads; return times, peak memory, what the plan said, what was read, and about a cut-out."""
    settings = {"scheduler": "threads", "num_workers": 2}
    with dask.config.set({**settings, **({"lazyccd.memory-limit": limit} if limit else {})}):
        begin, cpu = time.perf_counter(), time.process_time()
        mosaic = coadded(folder, grid, reject)
        said = int(plan_report(mosaic).process_bytes)
        before = bytes_read()
        lazyccd.to_zarr(mosaic, folder / ("ours.zarr" if reject is None else f"{reject}.zarr"))
        found: dict[str, Any] = {"time": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
        found |= {"peak": peak(), "said": said}
        size = sum(path.stat().st_size for path in folder.glob("f?????.fits"))
        return {**found, "read": (bytes_read() - before) / size, **touched(mosaic), **cut_out(folder, grid)}


def touched(mosaic: Any) -> dict[str, float]:
    """Return on how many chunks of a mosaic a frame lies."""
    step = with_inputs(mosaic).plan
    boxes = grid_boxes(mosaic["data"].data.chunks)
    needed = [len(step.needed(Request(box, frozenset({"data"})))) for box in boxes]
    return {"chunks": len(boxes), "chunks_of_frame": sum(needed) / len(step.frames)}


def cut_out(folder: Path, grid: int) -> dict[str, Any]:
    """Return how long a cut-out of an uncomputed coadd takes, frames that are opened for its pixels, and frames that lie there."""
    opened: set[str] = set()

    def look(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and str(given[0]).endswith(".fits"):
            opened.add(str(given[0]))

    middle = slice(grid // 2 - 256, grid // 2 + 256)
    begin, cpu = time.perf_counter(), time.process_time()
    mosaic = coadded(folder, grid)
    piece = mosaic.ccd.cutout(y=middle, x=middle)["data"]
    sys.addaudithook(look)
    piece.compute()
    found = {"cutout": time.perf_counter() - begin, "cutout_cpu": time.process_time() - cpu}
    region = Region(middle.start, middle.stop, middle.start, middle.stop)
    lying = with_inputs(mosaic).plan.needed(Request(region, frozenset({"data"})))
    return {**found, "opened": len(opened), "lying": len(lying)}


def run_swarp(folder: Path) -> dict[str, Any]:
    """Coadd by SWarp on two threads; return times and peak memory."""
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
    names = [path.name for path in sorted(folder.glob("f?????.fits"))]
    begin = time.perf_counter()
    words = (word for key, value in options.items() for word in (f"-{key}", value))
    subprocess.run([program, *names, *words], cwd=folder, check=True, capture_output=True)
    seconds, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"time": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}


def agreement(folder: Path, grid: int) -> float:
    """Return the largest difference from SWarp in the middle, over the noise: its tables of weights are others."""
    middle = slice(grid // 2 - 128, grid // 2 + 128)
    with fits.open(folder / "out.fits") as hdus:
        other = np.asarray(hdus[0].data[middle, middle], float)
    ours = lazyccd.open_zarr(folder / "ours.zarr")["data"][middle, middle].values
    both = np.isfinite(ours) & (other != 0)
    return float(np.abs(ours - other)[both].max() / 10)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that work takes, by the clock and of CPU."""
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - cpu


def inputs(folder: Path, count: int) -> dict[str, list[tuple[float, float]]]:
    """Return the times to find the frames at a place among many, and to cut 50 stamps out; first calls load modules and kernels."""
    side = 64
    if not folder.exists():
        make(folder, count, side, round(side * np.sqrt(count) / 2))
    made: list[Any] = []
    names = sorted(map(str, folder.glob("f?????.fits")))
    found = {"made": [timed(lambda: made.append(lazyccd.coadd(names, reject=None)))]}
    mosaic = made[0]
    ny, nx = mosaic["data"].shape
    places = [(ny // 3 + 40 * number, nx // 3) for number in range(8)]
    times = [timed(lambda place=place: mosaic.ccd.frames_at(place)) for place in places]
    found |= {"first": times[:1], "frames_at": times[1:]}
    middles = np.random.default_rng(2).uniform(0.2, 0.8, (50, 2)) * (ny, nx)
    cut = timed(lambda: [mosaic.ccd.stamps((int(y), int(x)), 128) for y, x in middles])
    return {**found, "stamps": [cut]}


def rows_of_inputs(count: int, found: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return the rows of places among many frames."""

    def text(name: str) -> str:
        return f"{spread([clock for clock, _ in found[name]])}, CPU {spread([cpu for _, cpu in found[name]])}"

    among = f"among {count} frames"
    near = sorted(clock for clock, _ in found["frames_at"])
    return [
        row(f"coadd {among}, uncomputed", text("made"), "stated", True, **found),
        row(f"frames_at {among}", f"{text('frames_at')}; first call {text('first')}", "≤ 50 ms", near[0] <= 0.05),
        row(f"50 stamps of 128² {among}, uncomputed", text("stamps"), "≤ 1 s", found["stamps"][0][0] <= 1),
    ]


def compare(folder: Path, grid: int, limit: str | None, rounds: int) -> tuple[list[Any], list[Any], float]:
    """Return what both sides took, in turns, and how far apart they are."""
    ours, other = [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "ours.zarr", ignore_errors=True)
        ours.append(fresh(__file__, "lazyccd", folder, grid, limit or ""))
        other += [found] if (found := fresh(__file__, "swarp", folder)) else []
    return ours, other, agreement(folder, grid) if other else float("nan")


def rows_of(what: str, ratio: float, ours: list[Any], other: list[Any], apart: float) -> list[dict[str, Any]]:
    """Return the rows of a coadd, whose aim is a ratio to SWarp."""
    times, others = [run["time"] for run in ours], [run["time"] for run in other]
    cpu, their_cpu = [run["cpu"] for run in ours], [run["cpu"] for run in other]
    text = f"{spread(times)}, CPU {min(cpu):.3g} s"
    if other:
        text += f"; SWarp {spread(others)}, CPU {min(their_cpu):.3g} s: {min(others) / min(times):.1f} times as long, "
        text += f"{min(their_cpu) / min(cpu):.1f} times by CPU; apart by {apart:.2g} sigma at most"
    # without SWarp nothing was compared
    met = bool(other) and min(others) / min(times) >= ratio
    return [row(what, text, f"SWarp takes ≥ {ratio:g} times as long", met, ours=ours, swarp=other)]


def deep(folder: Path, grid: int, count: int = 200, side: int = 2048) -> list[dict[str, Any]]:
    """Return the rows of many frames on a large grid under a memory limit."""
    make(folder, count, side, grid)
    ours, other, apart = compare(folder, grid, LIMIT, 1)
    default = fresh(__file__, "lazyccd", folder, grid, LIMIT, "auto")
    shutil.rmtree(folder)
    what = f"{count} frames of {side}² onto {grid}², Lanczos 3, median, to Zarr, limit {LIMIT}"
    most, said = ours[0]["peak"], ours[0]["said"]
    text = f"{most / 1e6:.0f} MB, plan said {said / 1e6:.0f} MB"
    text += f"; SWarp {other[0]['peak'] / 1e6:.0f} MB" if other else ""
    good = most <= 1e9 and most <= 1.1 * said
    return [
        *rows_of(what, 1, ours, other, apart),
        row(f"{what}: peak memory", text, "≤ 1 GB, ≤ 1.1 times the plan's", good, peak=most, said=said),
        row(
            f"{what}, the default rejection: peak memory",
            f"{default['peak'] / 1e6:.0f} MB, plan said {default['said'] / 1e6:.0f} MB; {default['time']:.3g} s, CPU "
            f"{default['cpu']:.3g} s, {default['cpu'] / ours[0]['cpu']:.1f} times that without a rejection",
            "≤ 1 GB, ≤ 1.1 times the plan's",
            default["peak"] <= 1e9 and default["peak"] <= 1.1 * default["said"],
            default=default,
        ),
        row(
            "512² cut-out of it, uncomputed, opening included",
            f"{ours[0]['cutout']:.2f} s, CPU {ours[0]['cutout_cpu']:.2f} s; {ours[0]['opened']} frames opened for its pixels, "
            f"{ours[0]['lying']} lie there",
            "< 1 s, only those",
            ours[0]["cutout"] < 1 and ours[0]["opened"] <= ours[0]["lying"],
        ),
        row(
            f"{what}: bytes read",
            f"each byte {ours[0]['read']:.2f} times; a frame lies on {ours[0]['chunks_of_frame']:.2f} of {ours[0]['chunks']} chunks",
            "once per chunk at most",
            ours[0]["read"] <= ours[0]["chunks_of_frame"],
        ),
    ]


def warm_up(folder: Path) -> None:
    """Compile all kernels that the coadds need, in processes of their own."""
    make(folder, 6, 600, 620)
    for reject in ("", "auto"):
        fresh(__file__, "lazyccd", folder, 620, LIMIT, reject)


def main() -> None:
    """Run the parts and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--deep",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="200 frames onto 20 000² too, which takes 20 GB of disk",
    )
    parser.add_argument("--grid", type=int, default=20_000, help="side of the deep mosaic")
    parser.add_argument("--frames", type=int, default=10_000, help="frames among which some are found")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm_up(folder / "warm")
        make(folder / "shallow", 20, 2048, 2300)
        rows = rows_of(
            "20 x 2048², Lanczos 3, median, to Zarr", 8.2, *compare(folder / "shallow", 2300, None, asked.rounds)
        )
        if asked.deep:
            rows += deep(folder / "deep", asked.grid)
        rows += rows_of_inputs(asked.frames, fresh(__file__, "inputs", folder / "many", asked.frames))
    options = f"{'' if asked.deep else ' --no-deep'}{f' --grid {asked.grid}' if asked.grid != 20_000 else ''}"
    save("coadd", rows, f"python benchmarks/bench_coadd.py{options}")


if __name__ == "__main__":
    if sys.argv[1:2] != ["worker"]:
        main()
    else:
        warnings.simplefilter("ignore")
        side, folder, *numbers = sys.argv[2:]
        if side == "lazyccd":
            size, limit, reject = [*numbers, ""][:3]
            print(json.dumps(run_lazyccd(Path(folder), int(size), limit or None, reject or None)))
        elif side == "swarp":
            print(json.dumps(run_swarp(Path(folder))))
        else:
            print(json.dumps(inputs(Path(folder), int(numbers[0]))))
