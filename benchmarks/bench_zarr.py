"""A calibrated image to Zarr under a declared memory limit, against the bare loop, and on a cluster against threads.

The bare loop is two plain threads that call the same reader, kernels, codecs and writer, without plan and without dask.
Both write the same bytes, which is checked. Each run has its own process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
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
from astropy import units as u
from common import fresh, noisy_fits, row, save, spread
from dask.utils import parse_bytes
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.fits.storage import FitsStorage, find_hdu
from lazyccd.io.zarr.writer import ZarrArray, ZarrTarget, complete_store
from lazyccd.kernels import moments, pointwise
from lazyccd.kernels.block import PLANES, Block, Request, empty_block
from lazyccd.kernels.flat import divide_flat
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.instrument.flat import LOWEST_FLAT
from lazyccd.plan.chunks import STRIP_PIXELS, shard_grid, tile_groups
from lazyccd.sections import Region

LIMIT = "1GB"
GAIN, READ_NOISE, FULL = 1.5, 5.0, 60000
SHARD = 2048


def reduced(folder: Path, store: Path) -> None:
    """Calibrate with lazyccd."""
    raw, flat = (lazyccd.open_fits(folder / f"{name}.fits") for name in ("raw", "flat"))
    ds = lazyccd.flag_saturated(raw, FULL)
    ds = lazyccd.create_deviation(ds, gain=GAIN * u.electron / u.adu, readnoise=READ_NOISE * u.electron)
    ds = lazyccd.gain_correct(ds, GAIN * u.electron / u.adu)
    lazyccd.to_zarr(lazyccd.flat_correct(ds, flat), store)


def storage(path: Path) -> FitsStorage:
    """Return the image of a file."""
    file = scan_fits(str(path))
    return FitsStorage.of(file, find_hdu(file), "float32")


class BareLoop:
    """The same calibration by plain threads."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.raw, self.flat = storage(folder / "raw.fits"), storage(folder / "flat.fits")
        self.schema = MaskSchema()
        shard, chunk = shard_grid(self.raw.shape, (SHARD, SHARD))
        fills = {"data": float("nan"), "uncertainty": float("nan"), "mask": self.schema.bits("NO_DATA")}
        dtypes = {"data": "float32", "uncertainty": "float32", "mask": self.schema.dtype.name}
        arrays = tuple(ZarrArray(name, dtypes[name], fills[name], "{}") for name in fills)
        self.target = ZarrTarget(str(store), self.raw.shape, arrays, shard, chunk)

    def run(self, threads: int) -> None:
        """Calibrate and write all shards."""
        image = Region.full(self.raw.shape)
        self.target.create()
        self.target.add_group()
        with ThreadPoolExecutor(threads) as pool:
            groups = pool.map(self.sums, [[tile for _, tile in group] for group in tile_groups(image, (512, 512))])
            total = np.sum([partial for group in groups for partial in group], axis=0)
            self.norm = np.array(total[0] / total[1])
            step = self.target.shards
            corners = [(y, x) for y in range(0, image.y1, step[0]) for x in range(0, image.x1, step[1])]
            list(
                pool.map(
                    lambda at: self.shard(Region(at[0], at[0] + step[0], at[1], at[1] + step[1]).clip(self.raw.shape)),
                    corners,
                )
            )
        self.target.finish_group()
        complete_store(self.target.store, ["0"], {})

    def sums(self, tiles: list[Region]) -> list[Any]:
        """Return the sum and the number of the flat's good pixels in some tiles."""
        whole = tiles[0]
        for tile in tiles:
            whole = whole.union(tile)
        block = Block(whole, self.read(self.flat, whole))
        bad = self.schema.bad_bits
        return [moments.sum_and_count(block.crop(tile), bad_bits=bad, min_value=None) for tile in tiles]

    def read(self, source: FitsStorage, region: Region) -> Any:
        """Return the pixels of a region."""
        reader = source.open()
        try:
            return reader.read(region)
        finally:
            reader.close()

    def shard(self, region: Region) -> None:
        """Calibrate one shard in strips that stay in cache, and write it."""
        planes = frozenset(PLANES)
        out = empty_block(
            Request(region, planes), {"data": "float32", "variance": "float32", "mask": self.schema.dtype}
        )
        readers = self.raw.open(), self.flat.open()
        rows = max(1, STRIP_PIXELS // (region.x1 - region.x0))
        for y0 in range(region.y0, region.y1, rows):
            strip = Region(y0, min(y0 + rows, region.y1), region.x0, region.x1)
            done = self.strip(Request(strip, planes), *(reader.read(strip) for reader in readers))
            cut = strip.within(region)
            for plane in PLANES:
                getattr(out, plane)[cut] = done.plane(plane)
        for reader in readers:
            reader.close()
        np.sqrt(out.variance, out=out.variance)
        for name, array in zip(("data", "uncertainty", "mask"), (out.data, out.variance, out.mask), strict=True):
            self.put(name, region, array)

    def put(self, name: str, region: Region, array: Any) -> None:
        """Write one plane of a region."""
        self.target.write(name, region, array)

    def strip(self, request: Request, raw: Any, flat: Any) -> Block:
        """Run the kernels on one strip."""
        mask, bits = self.schema.dtype.name, self.schema.bits
        block = Block(request.region, raw, None, np.zeros(raw.shape, mask))
        block = pointwise.flag_above(request, block, level=FULL, bit=bits("SAT"), mask_dtype=mask)
        block = pointwise.set_deviation(request, block, gain=GAIN, readnoise=READ_NOISE, clip=False, dtype="float32")
        block = pointwise.affine(request, block, scale=GAIN, offset=0.0, dtype="float32")
        numbers = pointwise.flag_nonfinite_alone(
            request, Block(request.region, flat), no_data=bits("NO_DATA"), mask_dtype=mask
        )
        return divide_flat(
            request,
            block,
            Block(request.region, flat, None, numbers.data),
            norm=self.norm,
            min_value=None,
            lowest=LOWEST_FLAT,
            bad_bits=self.schema.bad_bits,
            low_flat=bits("LOW_FLAT"),
            no_data=bits("NO_DATA"),
            dtype="float32",
            mask_dtype=mask,
            remap=(),
        )


def timed(run: Callable[[], object], store: Path) -> float:
    """Return the seconds of one run into a fresh store."""
    shutil.rmtree(store, ignore_errors=True)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak() -> int:
    """Return the most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def worker(kind: str, folder: str, count: int) -> None:
    """Warm up on a small image, then time one full run; print seconds, the peak memory of a process, and a digest."""
    store = Path(folder) / "out.zarr"
    places = Path(folder) / "small", Path(folder)
    if kind == "bare":
        seconds = [timed(lambda at=at: BareLoop(at, store).run(count), store) for at in places]
        peaks = [peak()]
    elif kind == "threads":
        with dask.config.set({"lazyccd.memory-limit": LIMIT, "scheduler": "threads", "num_workers": count}):
            seconds = [timed(lambda at=at: reduced(at, store), store) for at in places]
        peaks = [peak()]
    else:
        setting = {"n_workers": count, "threads_per_worker": 1, "memory_limit": LIMIT, "dashboard_address": None}
        with LocalCluster(**setting) as cluster, Client(cluster) as client:
            seconds = [timed(lambda at=at: reduced(at, store), store) for at in (*places[:1] * 4, *places)]
            peaks = list(client.run(peak).values())
    print(json.dumps({"seconds": seconds[-1], "peak": max(peaks), "digest": digest(store)}))


def digest(store: Path) -> str:
    """Return a hash of all shards."""
    found = hashlib.sha256()
    for path in sorted(store.rglob("c/*/*")):
        found.update(path.relative_to(store).as_posix().encode())
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha1").digest())
    return found.hexdigest()


def main() -> None:
    """Run the three sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are written; a folder in memory keeps the disk out of it")
    args = parser.parse_args()
    found: dict[str, list[Any]] = {"bare": [], "threads": [], "cluster": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for place, n in ((Path(name), args.size), (Path(name) / "small", 600)):
            place.mkdir(exist_ok=True)
            noisy_fits(place / "raw.fits", (n, n), "uint16", 8000, 300, BUNIT="adu")
            noisy_fits(place / "flat.fits", (n, n), "float32", 20000, 200, BUNIT="adu")
        for _ in range(args.rounds):
            for kind, runs in found.items():
                runs.append(fresh(__file__, kind, name, 2))
    assert len({run["digest"] for runs in found.values() for run in runs}) == 1, "the stores differ"
    times = {kind: [run["seconds"] for run in runs] for kind, runs in found.items()}
    peaks = {kind: max(run["peak"] for run in runs) for kind, runs in found.items()}
    best = {kind: median(values) for kind, values in times.items()}
    limit = parse_bytes(LIMIT)
    rows = []
    for kind, other, label in (("threads", "bare", "the bare loop"), ("cluster", "threads", "two threads")):
        ratio = best[kind] / best[other]
        measured = f"{ratio:.2f} times {label} ({spread(times[kind])} against {spread(times[other])})"
        what = f"{args.size}² uint16 to Zarr, {'two threads' if kind == 'threads' else 'two processes'}"
        rows.append(row(what, measured, "≤ 1.3 times", ratio <= 1.3, ratio=ratio, times=times))
        memory = f"{peaks[kind] / 1e6:.0f} MB at most in a process, {LIMIT} declared"
        rows.append(row(f"{what}, peak memory", memory, f"< {LIMIT}", peaks[kind] < limit, peak=peaks[kind]))
    save("zarr", rows, f"python benchmarks/bench_zarr.py --size {args.size}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
