"""A mosaic exposure reduced and assembled to Zarr, against the bare loop; and the time to open many extensions.

The exposure has 16 detectors of 2 amplifiers, 4096 x 2048 pixels each with 32 columns of overscan: 268 million pixels.
Both sides subtract the overscan of each row, trim, multiply by the gain, make variances, subtract bias and dark, divide by
the flat (one norm for all), assemble the amplifiers into their detectors, the second of each flipped, and write data,
uncertainty and mask of 16 groups. The bare loop is two plain threads that call the same reader, kernels, codecs and writer,
a shard at a time, without plan and without dask. Masters are MEF files of the trimmed size.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
from astropy import units as u
from astropy.io import fits
from common import fresh, row, save, spread

import lazyccd
from lazyccd.io.fits.scan import FitsFile, scan_fits
from lazyccd.io.fits.storage import FitsStorage
from lazyccd.io.zarr.writer import ZarrArray, ZarrTarget, complete_store, open_arrays
from lazyccd.kernels import flat, overscan, pointwise
from lazyccd.kernels.block import Block, Request
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import STRIP_PIXELS, shard_grid
from lazyccd.sections import Region

DETECTORS, OVERSCAN = 16, 32
GAIN = u.electron / u.adu
PLANES = frozenset({"data", "variance", "mask"})
LIMIT = 2**30


def gain_of(number: int) -> float:
    """Return the gain of an amplifier."""
    return 1.0 + number / 64


def make(folder: Path, ny: int, nx: int, detectors: int) -> None:
    """Write the exposure and its masters, an amplifier at a time, all from a few random rows."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    kinds = {
        "raw": (1500, 20, np.uint16),
        "bias": (3, 1, np.float32),
        "dark": (5, 1, np.float32),
        "flat": (1, 0.03, np.float32),
    }
    for kind, (level, noise, dtype) in kinds.items():
        with (folder / f"{kind}.fits").open("wb") as file:
            file.write(fits.PrimaryHDU(header=fits.Header({"EXPTIME": 60.0})).header.tostring().encode())
            for number in range(2 * detectors):
                width = nx + (OVERSCAN if kind == "raw" else 0)
                values = rng.normal(level, noise, (64, width)).astype(dtype)
                hdu = fits.ImageHDU(np.resize(values, (ny, width)), header(number, ny, nx, kind))
                file.write(hdu.header.tostring().encode())
                data = hdu.data.astype(">f4") if kind != "raw" else (hdu.data.astype(np.int32) - 32768).astype(">i2")
                file.write(data.tobytes())
                file.write(bytes(-data.nbytes % 2880))


def header(number: int, ny: int, nx: int, kind: str) -> fits.Header:
    """Return the header of an amplifier."""
    detector, side = divmod(number, 2)
    cards = {"EXTNAME": f"A{number:02d}", "CCDNAME": f"N{detector:02d}", "DATASEC": f"[1:{nx},1:{ny}]"}
    cards |= {"CCDSEC": f"[1:{nx},1:{ny}]" if side == 0 else f"[{2 * nx}:{nx + 1},1:{ny}]"}
    if kind == "raw":
        cards |= {"BIASSEC": f"[{nx + 1}:{nx + OVERSCAN},1:{ny}]", "GAIN": gain_of(number), "RDNOISE": 5.0}
        cards |= {"BZERO": 32768, "BSCALE": 1, "BUNIT": "adu"}
    else:
        cards["BUNIT"] = {"bias": "adu", "dark": "electron", "flat": ""}[kind] or "adu"
    return fits.Header(cards)


def plan(folder: Path) -> Any:
    """Return the lazy tree of assembled detectors."""
    keyword = lazyccd.Keyword
    raw, bias, dark, flat = (lazyccd.open_mef(folder / f"{name}.fits") for name in ("raw", "bias", "dark", "flat"))
    tree = raw.ccd.subtract_overscan(fits_section=keyword("BIASSEC"))
    tree = tree.ccd.trim_image(keyword("DATASEC"))
    tree = tree.ccd.subtract_bias(bias)
    tree = tree.ccd.create_deviation(
        keyword("GAIN", unit=GAIN), keyword("RDNOISE", unit=u.electron), disregard_nan=True
    )
    tree = tree.ccd.gain_correct(keyword("GAIN", unit=GAIN))
    tree = tree.ccd.subtract_dark(dark, dark_exposure=60 * u.s, data_exposure=60 * u.s)
    tree = tree.ccd.flat_correct(flat)
    return tree.ccd.assemble("CCDSEC", group="CCDNAME")


class BareLoop:
    """The same reduction by plain threads."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.files = {name: scan_fits(str(folder / f"{name}.fits")) for name in ("raw", "bias", "dark", "flat")}
        first = self.files["bias"].hdus[1]
        self.ny, self.nx = first.shape
        self.schema = MaskSchema()
        shape = (self.ny, 2 * self.nx)
        shard, chunk = shard_grid(shape, (2048, 2048))
        fills = {"data": float("nan"), "uncertainty": float("nan"), "mask": self.schema.bits("NO_DATA")}
        dtypes = {"data": "float32", "uncertainty": "float32", "mask": self.schema.dtype.name}
        arrays = tuple(ZarrArray(name, dtypes[name], fills[name], "{}") for name in fills)
        count = (len(self.files["bias"].hdus) - 1) // 2
        self.targets = [ZarrTarget(str(store), shape, arrays, shard, chunk, f"N{i:02d}") for i in range(count)]

    def run(self, threads: int) -> None:
        """Reduce and write all shards."""
        self.targets[0].create()
        for target in self.targets:
            target.add_group()
        with ThreadPoolExecutor(threads) as pool:
            sums = list(pool.map(self.sums, range(1, 2 * len(self.targets) + 1)))
            self.norm = np.array(sum(s for s, _ in sums) / sum(n for _, n in sums))
            step_y, step_x = self.targets[0].shards
            jobs = [
                (i, y, x)
                for i in range(len(self.targets))
                for y in range(0, self.ny, step_y)
                for x in range(0, 2 * self.nx, step_x)
            ]
            list(pool.map(lambda job: self.shard(*job), jobs))
        for target in self.targets:
            target.finish_group()
        complete_store(self.targets[0].store, [target.group for target in self.targets], {})

    def storage(self, name: str, number: int) -> Any:
        """Return an open amplifier."""
        file: FitsFile = self.files[name]
        return FitsStorage.of(file, file.hdus[number], "float32").open()

    def sums(self, number: int) -> tuple[float, int]:
        """Return the sum and the number of an amplifier's flat pixels."""
        reader, total = self.storage("flat", number), 0.0
        for y in range(0, self.ny, 512):
            total += reader.read(Region(y, min(y + 512, self.ny), 0, self.nx)).sum(dtype=np.float64)
        reader.close()
        return total, self.ny * self.nx

    def shard(self, detector: int, y: int, x: int) -> None:
        """Reduce the part of an amplifier that lies in a shard, in strips that stay in cache, and write it."""
        target = self.targets[detector]
        region = Region(y, y + target.shards[0], x, x + target.shards[1]).clip(target.shape)
        side = int(x >= self.nx)
        number = 2 * detector + side
        columns = (region.x0, region.x1) if side == 0 else (2 * self.nx - region.x1, 2 * self.nx - region.x0)
        readers = {name: self.storage(name, number + 1) for name in self.files}
        out = {"data": np.empty(region.shape, np.float32), "uncertainty": np.empty(region.shape, np.float32)}
        out["mask"] = np.empty(region.shape, self.schema.dtype)
        rows = max(1, STRIP_PIXELS // region.shape.x)
        for y0 in range(region.y0, region.y1, rows):
            strip = Region(y0, min(y0 + rows, region.y1), *columns)
            block = self.strip(Request(strip, PLANES), readers, gain_of(number))
            flip = slice(None, None, -1 if side else 1)
            here = slice(y0 - region.y0, strip.y1 - region.y0)
            out["data"][here] = block.plane("data")[:, flip]
            np.sqrt(block.plane("variance")[:, flip], out=out["uncertainty"][here])
            out["mask"][here] = block.plane("mask")[:, flip]
        for reader in readers.values():
            reader.close()
        for name, array in out.items():
            target.write(name, region, array)

    def strip(self, request: Request, readers: dict[str, Any], gain: float) -> Block:
        """Reduce a strip with the kernels."""
        region = request.region
        mask_dtype = self.schema.dtype.name
        none: dict[str, Any] = {"dtype": "float32", "mask_dtype": mask_dtype, "remap": ()}
        strip = Block(region, readers["raw"].read(Region(region.y0, region.y1, self.nx, self.nx + OVERSCAN)))
        raw = Block(region, readers["raw"].read(region))
        masters = {name: Block(region, readers[name].read(region)) for name in ("bias", "dark", "flat")}
        masters = {
            name: Block(region, b.data, None, pointwise.flag_nonfinite_alone(Request(region, frozenset({"mask"})), b, no_data=self.schema.bits("NO_DATA"), mask_dtype=mask_dtype).data)
            for name, b in masters.items()
        }  # fmt: skip
        data = Request(region, frozenset({"data"}))
        block = overscan.subtract_lines(
            data, raw, strip, axis=1, statistic="mean", bad_bits=self.schema.bad_bits, no_data=self.schema.bits("NO_DATA"), dtype="float32", mask_dtype=mask_dtype
        )  # fmt: skip
        good = Request(region, frozenset({"data", "mask"}))
        block = pointwise.add_scaled(good, block, masters["bias"], scale=-1.0, **none)
        block = pointwise.set_deviation(request, block, gain=gain, readnoise=5.0, clip=True, dtype="float32")
        block = pointwise.affine(request, block, scale=gain, offset=0.0, dtype="float32")
        block = pointwise.add_scaled(request, block, masters["dark"], scale=-1.0, **none)
        return flat.divide_flat(
            request, block, masters["flat"], min_value=None, lowest=0.1, bad_bits=self.schema.bad_bits,
            low_flat=self.schema.bits("LOW_FLAT"), no_data=self.schema.bits("NO_DATA"), norm=self.norm, **none,
        )  # fmt: skip


def run_lazyccd(folder: Path, store: Path) -> dict[str, float]:
    """Reduce with lazyccd on two threads; return the times of building the graph and of everything."""
    start = time.perf_counter()
    tree = plan(folder)
    lazy = lazyccd.to_zarr(tree, store.with_name("unused.zarr"), compute=False)
    built = time.perf_counter() - start
    del lazy
    start = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=2):
        lazyccd.to_zarr(plan(folder), store)
    return {"build": built, "time": time.perf_counter() - start}


def worker(side: str, name: str) -> None:
    """Run one side after a small warm-up; print its time and its peak memory."""
    folder = Path(name)
    for kind in ("small", "full"):
        store = folder / f"{side}-{kind}.zarr"
        if side == "lazyccd":
            found = run_lazyccd(folder / kind, store)
        else:
            start = time.perf_counter()
            BareLoop(folder / kind, store).run(2)
            found = {"time": time.perf_counter() - start}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


def opening(folder: Path) -> list[float]:
    """Return the times of opening a file of 60 extensions that is in the page cache."""
    cards = fits.Header({f"KEY{i:03d}": i for i in range(100)})
    hdus = [fits.ImageHDU(np.zeros((8, 8), np.int16), cards, name=f"N{i}") for i in range(60)]
    fits.HDUList([fits.PrimaryHDU(header=cards), *hdus]).writeto(folder / "many.fits")
    times = []
    for _ in range(12):
        start = time.perf_counter()
        lazyccd.open_mef(folder / "many.fits")
        times.append(time.perf_counter() - start)
    return times[2:]


def same(folder: Path) -> float:
    """Return the largest relative difference of data and uncertainty between both sides, for the small exposure."""
    ours = lazyccd.open_zarr(str(folder / "lazyccd-small.zarr"))
    other = open_arrays(str(folder / "bare loop-small.zarr"), "N01")
    worst = 0.0
    for name in ("data", "uncertainty"):
        a = ours["N01"][name].values
        b = other.storages[name].open().read(Region.full(a.shape))
        worst = max(worst, float(np.nanmax(abs(a / b - 1))))
    return worst


def main() -> None:
    """Run both sides in turns and save the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--detectors", type=int, default=DETECTORS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "small", 128, 2048, 2)
        make(folder / "full", 4096, 2048, args.detectors)
        opened = opening(folder)
        found: dict[str, list[Any]] = {"lazyccd": [], "bare loop": []}
        for _ in range(args.rounds):
            for side in found:
                found[side].append(fresh(__file__, side, name))
                if _ == 0 and side == "bare loop":
                    assert same(folder) < 1e-5, same(folder)
                for store in folder.glob("*-full.zarr"):
                    shutil.rmtree(store)
            for store in folder.glob("*-small.zarr"):
                shutil.rmtree(store)
    times = {side: [run["time"] for run in runs] for side, runs in found.items()}
    ratio = median(times["lazyccd"]) / median(times["bare loop"])
    peak = max(run["peak"] for run in found["lazyccd"])
    build = [run["build"] for run in found["lazyccd"]]
    what = f"{args.detectors} detectors of 2 amplifiers, 4096 x 2048, reduced and assembled to Zarr"
    rows = [
        row(what, f"{ratio:.2f} times the bare loop ({spread(times['lazyccd'])} against {spread(times['bare loop'])})", "≤ 1.5 times", ratio <= 1.5, **times),
        row(f"{what}: peak memory", f"{peak / 1e6:.0f} MB", "≤ 1 GB", peak <= LIMIT, peak=peak),
        row(f"{what}: graph", spread(build), "≤ 1 s", median(build) <= 1, build=build),
        row("open_mef, 60 extensions, from page cache", spread(opened), "≤ 150 ms", median(opened) <= 0.15, times=opened),
    ]  # fmt: skip
    save("mosaic", rows, "python benchmarks/bench_mosaic.py")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3])
    else:
        main()
