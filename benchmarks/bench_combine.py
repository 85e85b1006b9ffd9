"""Stacks against the installed peers, with results compared; memory and bytes read of large stacks.

Parts: ``peers`` (20 frames), ``process`` (the same as whole processes, by turns) and ``large`` (40 and 200 frames of 4096²).
Peers that are programs are timed as whole processes on files in the page cache; lazyccd both in a warm process and as
``lazyccd combine``. CPU is the time that all threads of a run used: it says more than the clock on a machine that is busy with
something else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from common import RESULTS, fresh, row, save, sparse_fits, spread

from lazyccd.rejection import SigmaClip

CARDS = {"BUNIT": "adu", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -1e-4, "CD2_2": 1e-4, "EXPTIME": 1.0}
CARDS |= {"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 150.0, "CRVAL2": 2.0}

IRAF = 'set imtype = "fits"\nimages\nimmatch\nimcombine ("@list.txt", "../iraf.fits", logfile="", {words})\nlogout\n'
SIRIL = "requires 1.0.0\nset32bits\ncd q\nstack x {words} -nonorm -out=res\nclose\n"
SIRIL_UNIT = 65536.0

WORKS: dict[str, dict[str, Any]] = {
    "sigma clip about the median, mean": {
        "options": {"reject": "sigclip"},
        "words": ["--reject", "sigclip"],
        "aim": 0.4,
        "iraf": 'combine="average", reject="sigclip", mclip=yes, lsigma=3, hsigma=3, nkeep=1',
        "gnuastro": ["3", "0.2", "sigclip-mean"],
        "siril": "rej s 3 3",
        "ccdproc": {"sigma_clip": True, "sigma_clip_func": "median", "sigma_clip_dev_func": "std"},
    },
    "median": {
        "options": {"method": "median"},
        "words": ["--method", "median"],
        "aim": 0.35,
        "iraf": 'combine="median", reject="none"',
        "gnuastro": ["median"],
        "siril": "med",
        "swarp": "MEDIAN",
        "ccdproc": {"method": "median"},
    },
    "MAD clip, mean": {
        "options": {"reject": SigmaClip(deviation="mad_std")},
        "words": ["--reject", "sigclip", "--deviation", "mad_std"],
        "aim": 0.6,
        "ccdproc": {"sigma_clip": True, "sigma_clip_func": "median", "sigma_clip_dev_func": "mad_std"},
    },
}
"""The works: options of lazyccd, words of its command, the aim in seconds, and the same work for each peer."""

SAME: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "ccdproc": lambda work: work["ccdproc"],
    "IRAF": lambda work: {**work["options"], "flavor": "iraf"},
    "gnuastro": lambda work: work["options"],
    "Siril": lambda work: work["options"],
    "SWarp": lambda work: work["options"],
}
"""Options of lazyccd that match each peer's definition of the same work."""


def make_frames(folder: Path, count: int, side: int) -> list[Path]:
    """Write frames of noise with cosmic rays, float32."""
    rng = np.random.default_rng(7)
    paths = []
    for i in range(count):
        pixels = rng.standard_normal((side, side), np.float32) * 10 + 1000
        rays = rng.integers(0, pixels.size, pixels.size // 500)
        pixels.ravel()[rays] += rng.exponential(300, rays.size).astype(np.float32)
        paths.append(folder / f"f{i:03d}.fits")
        fits.PrimaryHDU(pixels, fits.Header(CARDS)).writeto(paths[-1])
    (folder / "list.txt").write_text("".join(f"{path.name}\n" for path in paths))
    return paths


# Peers: each makes a file in the folder and returns its seconds; None if it is not installed.


class Times(NamedTuple):
    """Seconds of a run."""

    wall: float
    cpu: float


def run(command: list[str], folder: Path) -> Times:
    """Return the seconds of a process."""
    # installed packages have their byte code: a shell that forbids to write it must not make each run compile them anew
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = Times(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return seconds


def iraf(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run imcombine."""
    (folder / "run.cl").write_text(IRAF.format(words=work["iraf"]))
    (folder.parent / "iraf.fits").unlink(missing_ok=True)
    seconds = run(["irafcl", "-e", "-f", "run.cl"], folder)
    return seconds, fits.getdata(folder.parent / "iraf.fits")


def gnuastro(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run astarithmetic."""
    names = (folder / "list.txt").read_text().split()
    command = ["astarithmetic", *names, str(len(names)), *work["gnuastro"], "--globalhdu", "0", "-o", "../gnu.fits"]
    (folder.parent / "gnu.fits").unlink(missing_ok=True)
    return run(command, folder), fits.getdata(folder.parent / "gnu.fits", 1)


def siril(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run siril-cli on frames divided by 65536, because it clips values above 1; making its sequence is not timed."""
    place = folder.parent / "siril"
    if not place.exists():
        place.mkdir()
        for path in folder.glob("f*.fits"):
            fits.writeto(place / path.name, fits.getdata(path) / np.float32(SIRIL_UNIT))
        (place / "convert.ssf").write_text("requires 1.0.0\nset32bits\nconvert x -out=q\nclose\n")
        run(["siril-cli", "-d", str(place), "-s", str(place / "convert.ssf")], place)
    (place / "stack.ssf").write_text(SIRIL.format(words=work["siril"]))
    seconds = run(["siril-cli", "-d", str(place), "-s", str(place / "stack.ssf")], place)
    return seconds, SIRIL_UNIT * fits.getdata(next((place / "q").glob("res.fit*")))


def swarp(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run SWarp without resampling."""
    options = {
        "COMBINE_TYPE": work["swarp"],
        "RESAMPLE": "N",
        "SUBTRACT_BACK": "N",
        "IMAGEOUT_NAME": "../swarp.fits",
        "WEIGHTOUT_NAME": "../weight.fits",
    }
    command = ["SWarp", "@list.txt", "-WRITE_XML", "N"]
    seconds = run([*command, *(word for key, value in options.items() for word in (f"-{key}", value))], folder)
    return seconds, fits.getdata(folder.parent / "swarp.fits")


def ccdproc(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run ccdproc in a process that has imported it."""
    import ccdproc as package

    paths = sorted(map(str, folder.glob("f*.fits")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timed(lambda: package.combine(paths, unit="adu", **work["ccdproc"]).data)


def timed(call: Callable[[], Any]) -> tuple[Times, Any]:
    """Return the seconds of a call in this process, and its result."""
    begin = Times(time.perf_counter(), time.process_time())
    result = call()
    return Times(time.perf_counter() - begin.wall, time.process_time() - begin.cpu), result


PEERS: dict[str, tuple[str, Callable[[dict[str, Any], Path], tuple[Times, Any]]]] = {
    "ccdproc": ("python", ccdproc),
    "IRAF": ("irafcl", iraf),
    "gnuastro": ("astarithmetic", gnuastro),
    "Siril": ("siril-cli", siril),
    "SWarp": ("SWarp", swarp),
}
"""The program that must be installed, and the function that runs it."""


def shown(seconds: Times) -> str:
    """Return seconds as text."""
    return f"{seconds.wall:.2f} s (CPU {seconds.cpu:.2f} s)"


def agreement(mine: Any, theirs: Any) -> str:
    """Say how far two images agree."""
    mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
    off = np.abs(mine - theirs) / np.abs(mine)
    if (off == 0).all():
        return "same bits"
    return f"{100 * (off <= 3e-7).mean():.2f} % of the pixels alike"


def run_peers(
    work: dict[str, Any], folder: Path, frames: list[Any], only: list[str]
) -> tuple[dict[str, Times], list[str]]:
    """Return the seconds of each peer that can do a work, and what to say of it."""
    import lazyccd

    found, told = {}, []
    for peer, (needed, runs) in PEERS.items():
        if peer.lower() not in work or (only and peer not in only):
            continue
        if shutil.which(needed) is None:
            told.append(f"{peer} is not installed")
            continue
        seconds, theirs = runs(work, folder)
        mine = lazyccd.combine(frames, **SAME[peer](work))["data"].values
        found[peer] = seconds
        told.append(f"{peer} {shown(seconds)}, {agreement(mine, theirs)}")
    return found, told


def peers(repeat: int, only: list[str]) -> list[dict[str, Any]]:
    """Return the rows of all works."""
    import lazyccd

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        paths = make_frames(folder, 20, 2048)
        frames = [lazyccd.open_fits(path) for path in paths]
        for what, work in WORKS.items():
            lazyccd.combine(frames, **work["options"])["data"].data.compute()  # compiles
            calls = (
                lambda options=work["options"]: lazyccd.combine(frames, **options)["data"].data.compute(),
                lambda options=work["options"]: lazyccd.combine(frames, **options).compute(),
            )
            image, whole = zip(*(tuple(timed(call)[0] for call in calls) for _ in range(repeat)), strict=True)
            program = [str(Path(sys.executable).with_name("lazyccd")), "combine", "@list.txt", "-o", "../out.fits"]
            command = [run([*program, "--overwrite", *work["words"]], folder) for _ in range(2)]
            found, told = run_peers(work, folder, frames, only)
            ratios = [min((p[k] for p in found.values()), default=np.nan) / median(t[k] for t in image) for k in (0, 1)]
            wall = [one.wall for one in image]
            if found:
                told.insert(0, f"{ratios[0]:.1f} times the fastest peer, by CPU {ratios[1]:.1f} times")
            text = (
                f"{spread(wall)}, CPU {median(one.cpu for one in image):.2f} s; with uncertainty and mask "
                f"{'; '.join([spread([one.wall for one in whole]), f'whole process {shown(min(command))}', *told])}"
            )
            met = median(wall) <= work["aim"] and not ratios[0] < 5
            aim = f"≤ {work['aim']} s, ≥ 5 times"
            rows.append(
                row(f"20 x 2048², {what}", text, aim, met, image=image, whole=whole, command=command, peers=found)
            )
    return rows


def own_command(work: dict[str, Any], folder: Path) -> tuple[Times, Any]:
    """Run ``lazyccd combine``, which writes uncertainty and mask too."""
    program = [str(Path(sys.executable).with_name("lazyccd")), "combine", "@list.txt", "-o", "../out.fits"]
    seconds = run([*program, "--overwrite", *work["words"]], folder)
    return seconds, fits.getdata(folder.parent / "out.fits")


def processes(repeat: int, only: list[str]) -> list[dict[str, Any]]:
    """Return the row of whole processes, each by turns with those of the peers."""
    what, work = next(iter(WORKS.items()))
    runs: dict[str, Callable[[dict[str, Any], Path], tuple[Times, Any]]] = {"lazyccd": own_command}
    for peer in ("IRAF", "Siril", "gnuastro"):
        if shutil.which(PEERS[peer][0]) and (not only or peer in only):
            runs[peer] = PEERS[peer][1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        make_frames(folder, 20, 2048)
        images = {who: call(work, folder)[1] for who, call in runs.items()}  # compiles, and makes sequences of peers
        found = {who: [] for who in runs}
        for _ in range(repeat):
            for who, call in runs.items():
                found[who].append(call(work, folder)[0])
    medians = {who: Times(*(median(one[k] for one in times) for k in (0, 1))) for who, times in found.items()}
    mine = medians.pop("lazyccd")
    told = [f"{who} {shown(seconds)}, {agreement(images['lazyccd'], images[who])}" for who, seconds in medians.items()]
    met = bool(medians) and all(mine.cpu < seconds.cpu and mine.wall < seconds.wall for seconds in medians.values())
    text = "; ".join([f"{shown(mine)} with uncertainty and mask", *told])
    return [row(f"20 x 2048², {what}, as a process", text, "faster than each peer", met, **found)]


# Large stacks, each in a process of its own.


def status(key: str) -> int:
    """Return an entry of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def bytes_read() -> int:
    """Return how many bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def worker(folder: str, limit: str, options: str) -> dict[str, Any]:
    """Combine the files of a folder into one under a memory limit."""
    import dask

    import lazyccd
    from lazyccd.cli.main import main  # noqa: F401 - a process of the command has it in memory

    chosen = json.loads(options)
    paths = sorted(Path(folder).glob("f*.fits"))
    size = sum(path.stat().st_size for path in paths)
    with dask.config.set({"lazyccd.memory-limit": limit}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = [lazyccd.open_fits(path).ccd.cutout(y=slice(0, 64)) for path in paths]
        lazyccd.combine(small, **chosen).compute()  # compiles
        before, begin = bytes_read(), time.perf_counter()
        lazyccd.combine(paths, Path(folder) / "out.fits", overwrite_output=True, **chosen)
        seconds = time.perf_counter() - begin
        read = bytes_read() - before
    return {"seconds": seconds, "peak": status("VmHWM"), "read": read / size}


def large(repeat: int) -> list[dict[str, Any]]:
    """Return the rows of large stacks."""
    rows = []
    works = {"median": {"method": "median"}, "sigma clip, mean": {"reject": "sigclip"}}
    with tempfile.TemporaryDirectory() as name:
        make_frames(Path(name), 40, 4096)
        for what, options in works.items():
            runs = [fresh(__file__, name, "1GB", json.dumps(options)) for _ in range(repeat)]
            rows.append(_large_row(f"40 x 4096², {what}, limit 1 GB", runs, 4.0, 1e9))
    with tempfile.TemporaryDirectory() as name:
        for i in range(200):
            sparse_fits(Path(name) / f"f{i:03d}.fits", (4096, 4096))
        runs = [fresh(__file__, name, "2GB", json.dumps(works["sigma clip, mean"]))]
        rows.append(_large_row("200 x 4096² uint16, sigma clip, mean, limit 2 GB", runs, np.inf, 2e9))
    return rows


def _large_row(what: str, runs: list[dict[str, Any]], aim: float, limit: float) -> dict[str, Any]:
    seconds, peak = [r["seconds"] for r in runs], max(r["peak"] for r in runs)
    read = max(r["read"] for r in runs)
    text = f"{spread(seconds)} with uncertainty and mask to FITS, peak {peak / 1e6:.0f} MB, each byte read {read:.2f} times"
    met = median(seconds) <= aim and peak < limit and read < 1.1
    words = f"≤ {aim:g} s, " if aim < np.inf else ""
    return row(what, text, f"{words}peak < {limit / 1e9:g} GB, bytes read once", met, runs=runs)


def main() -> None:
    """Run the parts asked for; the rows of others stay as they were measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", choices=["peers", "process", "large", []], default=[])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], choices=PEERS, help="Peers to run.")
    asked = parser.parse_args()
    rows: dict[str, Any] = {}
    if asked.part and (RESULTS / "combine.json").exists():
        rows = {r["what"]: r for r in json.loads((RESULTS / "combine.json").read_text())["rows"]}
    parts = {"peers": peers, "process": processes, "large": lambda repeat, _: large(min(repeat, 3))}
    for part in asked.part or parts:
        rows |= {r["what"]: r for r in parts[part](asked.repeat, asked.only)}
    save("combine", list(rows.values()), "python benchmarks/bench_combine.py")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(worker(*sys.argv[2:])))
    else:
        main()
