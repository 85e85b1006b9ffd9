"""Draws pipelines over the public API, and compares each with itself on one chunk.

``python tests/fuzz/pipelines.py --count 10000`` is the long form. A pipeline is a shape from 1 x 1, an input format and some operations,
all drawn from one seed. It is computed on one chunk in one thread, and again with drawn chunks, scheduler and memory limit, by way of
pickles, `persist` and cut-outs. The bits must be the same, and whatever is raised must be a `LazyCCDError`, or a `ValueError` or `TypeError`
at the call. After `persist` of an uncertainty, which is a rounded root, data and uncertainty may differ in their last places, and masks
that thresholds make of them are not compared. Prints the seeds of those that broke; ``--seed N --count 1`` repeats one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Chebyshev1D, Spline1D

import lazyccd as lc
from lazyccd.errors import LazyCCDError
from lazyccd.rejection import CCDClip
from lazyccd.testing.steps import formula_frame

Frame = xr.Dataset
Operation = Callable[[Frame], Frame]

GAIN, NOISE = 1.7 * u.electron / u.adu, 4.3 * u.electron
FORMATS = ("formula", "uint16", "int32", "float32", "float64", "planes", "gz", "rice", "zarr", "arrays", "ccddata")


@dataclass
class Pipeline:
    """A drawn pipeline."""

    seed: int
    folder: Path
    shape: tuple[int, int] = (1, 1)
    format: str = ""
    steps: list[tuple[str, Operation]] = field(default_factory=list)

    @classmethod
    def drawn(cls, seed: int, folder: Path) -> Pipeline:
        """Draw one."""
        rng = random.Random(seed)
        side = rng.choice([1, 2, 9, 41, 160])
        one = cls(seed, folder, (rng.randint(1, side), rng.randint(1, side)), rng.choice(FORMATS))
        for _ in range(rng.randint(1, 4)):
            name = rng.choice(list(DRAWS))
            one.steps.append((name, DRAWS[name](random.Random(rng.random()))))
        return one

    def __str__(self) -> str:
        """Describe it in a line."""
        return f"{self.seed}: {self.format} {self.shape} {' > '.join(name for name, _ in self.steps)}"

    def run(self, how: How | None = None) -> Frame:
        """Return the computed frame, on one chunk or as drawn."""
        frame = opened(self, how)
        for number, (_, operation) in enumerate(self.steps):
            frame = operation(frame)
            if how is not None:
                frame = how.between(frame, number)
        return frame if how is None else how.last(frame)


@dataclass
class How:
    """How a pipeline is computed, other than on one chunk."""

    rng: random.Random
    persisted: bool = False

    def chunks(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Draw the shape of chunks."""
        return self.rng.randint(1 + shape[0] // 9, shape[0]), self.rng.randint(1 + shape[1] // 9, shape[1])

    def between(self, frame: Frame, number: int) -> Frame:
        """Pickle, persist or rechunk after some steps."""
        what = self.rng.choice(["nothing", "nothing", "pickle", "persist", "rechunk"])
        if what == "pickle":
            return pickle.loads(pickle.dumps(frame))
        if what == "persist":
            self.persisted = True
            return frame.persist()
        if what == "rechunk":
            return lc.rechunk(frame, self.chunks((frame.sizes["y"], frame.sizes["x"])))
        return frame

    def last(self, frame: Frame) -> Frame:
        """Compute, perhaps by variable."""
        if self.rng.random() < 0.3:
            parts = {name: frame[[name]].compute()[name] for name in frame.data_vars}
            return frame.assign(parts)
        return frame.compute()


def opened(pipeline: Pipeline, how: How | None) -> Frame:
    """Return the frame that a pipeline begins with."""
    kind, shape, seed = pipeline.format, pipeline.shape, pipeline.seed
    chunks = shape if how is None else how.chunks(shape)
    made = {"low": -20.0, "holes": random.Random(seed).choice([0, 7])}
    if kind in {"formula", "arrays", "ccddata"}:
        frame = formula_frame(shape, chunks, seed=seed % 97, uncertainty=seed % 2 == 0, mask=seed % 3 > 0, **made)
        if kind == "arrays":
            return frame.compute().chunk({"y": chunks[0], "x": chunks[1]})
        return lc.from_ccddata(lc.to_ccddata(frame)) if kind == "ccddata" else frame
    path = pipeline.folder / f"{seed}.{'zarr' if kind == 'zarr' else 'fits'}"
    if kind == "zarr":
        if not path.exists():
            lc.to_zarr(formula_frame(shape, seed=seed % 97, **made), path)
        return lc.open_zarr(path, chunks=chunks)
    if kind == "gz":
        path = path.with_suffix(".fits.gz")
    if not path.exists():
        _write(path, kind, shape, seed)
    return lc.open_fits(path, chunks=chunks, unit="adu")


def _write(path: Path, kind: str, shape: tuple[int, int], seed: int) -> None:
    """Write an input file."""
    rng = np.random.default_rng(seed)
    dtype = {"rice": "int16", "gz": "uint16", "planes": "float32"}.get(kind, kind)
    values = rng.normal(900, 60, shape)
    values[rng.random(shape) < 0.02] = np.nan if "float" in dtype else 9000
    hdus: list[Any] = [fits.PrimaryHDU(values.astype(dtype))]
    if kind == "planes":
        hdus += [fits.ImageHDU(np.full(shape, 3, np.float32), name="UNCERT")]
        hdus += [fits.ImageHDU((rng.random(shape) < 0.05).astype(np.uint8), name="MASK")]
    if kind == "rice":
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(values.astype(dtype), compression_type="RICE_1")]
    fits.HDUList(hdus).writeto(path.with_suffix("") if kind == "gz" else path)
    if kind == "gz":
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes(), 1))


def _master(rng: random.Random, **more: Any) -> Operation:
    """Return what makes a master of a frame's shape."""
    seed = rng.randrange(50)
    more = {"uncertainty": rng.random() < 0.5, "mask": rng.random() < 0.5, **more}
    return lambda ds: formula_frame((ds.sizes["y"], ds.sizes["x"]), (7, 30), seed=seed, **more)


def _arithmetic(rng: random.Random) -> Operation:
    name, master = rng.choice(["add", "subtract", "multiply", "divide"]), _master(rng)
    if name in {"multiply", "divide"} and rng.random() < 0.5:
        return lambda ds: getattr(lc, name)(ds, 2.5)
    return lambda ds: getattr(lc, name)(ds, lc.with_unit(master(ds), ds["data"].attrs["units"]))


def _calibration(rng: random.Random) -> Operation:
    master, flat = _master(rng), _master(rng, low=0.1, high=2.0)
    return rng.choice([
        lambda ds: lc.subtract_bias(ds, master(ds)),
        lambda ds: lc.flat_correct(ds, flat(ds)),
        lambda ds: lc.gain_correct(ds, GAIN),
        lambda ds: lc.create_deviation(ds, GAIN, NOISE),
        lambda ds: lc.flag_saturated(ds, 950),
        lambda ds: lc.add_mask(ds, master(ds)["data"] > 800, "GHOST"),
    ])  # fmt: skip


def _overscan(rng: random.Random) -> Operation:
    columns, model = rng.randint(1, 5), rng.choice([None, Chebyshev1D(1), Spline1D(degree=3)])
    statistic = rng.choice(["mean", "median", "mad"])

    def subtract(ds: Frame) -> Frame:
        ny, nx = ds.sizes["y"], ds.sizes["x"]
        section = f"[{max(nx - columns, 1)}:{nx},1:{ny}]"
        return lc.subtract_overscan(ds, fits_section=section, model=model, statistic=statistic)

    return subtract


def _cut(rng: random.Random) -> Operation:
    a, b, flip, steps = rng.random(), rng.random(), rng.random() < 0.3, rng.random() < 0.2

    def cut(ds: Frame) -> Frame:
        y0, x0 = int(a * ds.sizes["y"]), int(b * ds.sizes["x"])
        if flip or steps:
            return lc.trim_image(ds, f"[{'-*' if flip else '*'},{'*:2' if steps else '*'}]")
        return ds.ccd.cutout(y=slice(y0, None), x=slice(x0, None))

    return cut


def _neighbours(rng: random.Random) -> Operation:
    size, block = rng.choice([3, 5]), rng.randint(1, 3)
    return rng.choice([
        lambda ds: lc.median_filter(ds, size),
        lambda ds: lc.block_reduce(ds, block),
        lambda ds: lc.block_average(ds, block),
        lambda ds: lc.block_replicate(ds, block),
        lambda ds: lc.interpolate_bad_pixels(ds),
        lambda ds: lc.grow_mask(ds, "SAT", 1),
        lambda ds: lc.cosmicray_median(ds, error_image=60.0, mbox=size, thresh=5),
        lambda ds: lc.cosmicray_lacosmic(ds, gain=1.0, readnoise=9.0),
    ])  # fmt: skip


def _stack(rng: random.Random) -> Operation:
    seed, count = rng.randrange(10**6), rng.randint(1, 4)
    how = {"method": rng.choice(["average", "median", "sum"])}
    how |= rng.choice(
        [
            {},
            {"reject": "sigclip"},
            {"reject": "minmax"},
            {"reject": "varclip"},
            {"reject": CCDClip(readnoise=4.3, gain=1.7)},
        ]
    )
    how |= rng.choice([{}, {"scale": "median"}, {"zero": "median"}, {"weights": "variance"}])

    def stack(ds: Frame) -> Frame:
        shape = (ds.sizes["y"], ds.sizes["x"])
        units = ds["data"].attrs["units"]
        frames = [lc.with_unit(formula_frame(shape, (7, 30), seed=(seed + i) % 89), units) for i in range(count)]
        return lc.combine([ds, *frames], **how)

    return stack


DRAWS: dict[str, Callable[[random.Random], Operation]] = {
    "arithmetic": _arithmetic,
    "calibration": _calibration,
    "overscan": _overscan,
    "cut": _cut,
    "neighbours": _neighbours,
    "stack": _stack,
}


def ended(run: Callable[[], Frame]) -> tuple[Frame | None, str]:
    """Return what a pipeline gives, or what it raises if that is allowed."""
    try:
        return run(), ""
    except LazyCCDError as error:
        return None, type(error).__name__
    except (ValueError, TypeError) as error:
        # documented ones are raised by the function that was called, others somewhere below
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        if f"lazyccd{os.sep}" not in last:
            raise
        return None, type(error).__name__


def difference(one: Frame, other: Frame, *, persisted: bool) -> str:
    """Return what differs between two computed frames; empty if nothing does."""
    if set(one.data_vars) != set(other.data_vars):
        return f"variables {sorted(map(str, one.data_vars))} and {sorted(map(str, other.data_vars))}"
    for name in one.variables:
        a, b = one[name].values, other[name].values
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        loose = persisted and name != "mask" and a.dtype.kind == "f"
        # What is computed of a persisted uncertainty, which was rounded, differs by its last places.
        same = (
            np.allclose(a, b, rtol=1e-5, equal_nan=True)
            if loose
            else np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )
        if not same and not (persisted and name == "mask"):
            return f"{name}: {np.count_nonzero(~((a == b) | ((a != a) & (b != b))))} of {a.size} differ"
    return ""


def broken(seed: int, folder: Path, counts: Counter[str]) -> str:
    """Try one pipeline and count how it ended; return what broke, or an empty text."""
    pipeline = Pipeline.drawn(seed, folder)
    rng = random.Random(seed + 1)
    how = How(rng)
    settings = {"scheduler": rng.choice(["sync", "threads"]), "num_workers": 3}
    if rng.random() < 0.2:
        settings["lazyccd.memory-limit"] = "400MB"
    try:
        with dask.config.set(scheduler="sync"):
            whole, refused = ended(lambda: pipeline.run().compute())
        with dask.config.set(settings):
            parts, also = ended(lambda: pipeline.run(how))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{pipeline}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    counts[f"{refused or 'computed'} on one chunk"] += 1
    if refused != also and not how.persisted:
        return f"{pipeline}: one chunk {refused or 'is computed'}, parts {also or 'are computed'}"
    found = "" if whole is None or parts is None else difference(whole, parts, persisted=how.persisted)
    return found and f"{pipeline}: {found}{' after persist' if how.persisted else ''}"


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try pipelines; return counts, and what broke."""
    counts: Counter[str] = Counter()
    broke = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(seed, seed + count):
            found = broken(number, folder, counts)
            counts["pipelines"] += 1
            if found:
                broke.append(found)
    counts["broke"] = len(broke)
    return counts, broke


def main() -> None:
    """Run and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts, broke = fuzz(args.count, args.seed, Path(name))
    print(json.dumps(counts))
    for line in broke:
        print("  ", line)
    sys.exit(bool(broke))


if __name__ == "__main__":
    main()
