"""Headers of many files: `lazyccd.Collection` and `lazyccd.ccdproc.ImageFileCollection` against ccdproc's.

Each run is a process of its own, since a collection that was read once is in memory. *Cold* has no cache of headers (the files
themselves are in the page cache), *warm* has the one that the cold run left.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits
from common import fresh, row, save, spread

CARDS = 105
"""Cards besides those that every file has."""


def write_night(folder: Path, count: int) -> None:
    """Write small images with the header of a camera: a quarter of the cards differs from file to file."""
    header = fits.Header()
    for i in range(CARDS):
        header[f"KEY{i:03d}"] = (i * 1.5 if i % 3 else f"value {i}"), "what it says"
    hdu = fits.PrimaryHDU(np.zeros((8, 8), np.uint16), header)
    for i in range(count):
        cards = hdu.header
        cards["DATE-OBS"] = f"2026-01-{i % 28 + 1:02d}T{i % 24:02d}:{i % 60:02d}:{i % 59:02d}"
        cards["EXPTIME"], cards["FILTER"], cards["IMAGETYP"] = float(i % 7), "BVRI"[i % 4], ("BIAS", "LIGHT")[i % 2]
        for j in range(CARDS // 4):
            cards[f"KEY{j:03d}"] = i * 1.25 + j
        hdu.writeto(folder / f"f{i:05d}.fits")


def work(kind: str, folder: str) -> None:
    """Read all headers into a table, choose some files, and print the seconds."""
    began = time.perf_counter()
    if kind == "lazyccd":
        from lazyccd import Collection

        collection: Any = Collection(folder)
        loaded = time.perf_counter()
        table = collection.table
        chosen = len(collection.filter(filter="R"))
    else:
        if kind == "face":
            from lazyccd.ccdproc import ImageFileCollection
        else:
            from ccdproc import ImageFileCollection
        loaded = time.perf_counter()
        collection = ImageFileCollection(folder)
        table = collection.summary
        chosen = len(collection.files_filtered(filter="R"))
    done = time.perf_counter()
    print(
        json.dumps(
            {"seconds": done - loaded, "import": loaded - began, "columns": len(table.colnames), "chosen": chosen}
        )
    )


def measure(kind: str, folder: Path, caches: str, runs: int) -> list[dict[str, Any]]:
    """Return the figures of several processes."""
    # the kernels' own cache stays where it is, so that nothing is compiled
    return [fresh(__file__, kind, folder, XDG_CACHE_HOME=caches) for _ in range(runs)]


def compare(count: int, runs: int, cold_aim: float, warm_aim: float) -> list[dict[str, Any]]:
    """Return the rows for one number of files."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "night"
        folder.mkdir()
        write_night(folder, count)
        theirs = measure("ccdproc", folder, f"{name}/none", 1 if count > 1000 else runs)
        for kind, what in (("lazyccd", "lazyccd.Collection"), ("face", "lazyccd.ccdproc.ImageFileCollection")):
            cold = [measure(kind, folder, f"{name}/{kind}{i}", 1)[0] for i in range(runs)]
            warm = measure(kind, folder, f"{name}/{kind}0", runs)
            assert {each["chosen"] for each in (*cold, *warm, *theirs)} == {count // 4}
            for state, found, aim in (("cold", cold, cold_aim), ("warm", warm, warm_aim)):
                seconds = [each["seconds"] for each in found]
                peer = median(each["seconds"] for each in theirs)
                rows.append(
                    row(
                        f"{count} files, {what}, {state}",
                        f"{spread(seconds)}; ccdproc {peer:.3g} s, {peer / median(seconds):.1f} times as long",
                        f"≤ {aim:g} s",
                        median(seconds) <= aim,
                        seconds=seconds,
                        ccdproc=[each["seconds"] for each in theirs],
                    )
                )
    return rows


def main() -> None:
    """Run the benchmark, or one worker of it."""
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:4])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rows = compare(300, arguments.runs, 0.58, 0.58) if arguments.files > 300 else []
    aims = (
        (20.0, 2.0) if arguments.files == 10_000 else (20.0 * arguments.files / 10_000, 2.0 * arguments.files / 10_000)
    )
    rows += compare(arguments.files, arguments.runs, *aims)
    save("headers", rows, "python benchmarks/bench_headers.py")


if __name__ == "__main__":
    main()
