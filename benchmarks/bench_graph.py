"""Number of tasks, time to build the graph and its pickled size, for 100 and for 100 000 chunks; a cutout of a huge image."""

from __future__ import annotations

import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import xarray as xr
from astropy import units as u
from common import row, save, sparse_fits, spread

import lazyccd

RUNS = 7


def calibrated(folder: Path, n: int, chunk: int) -> xr.Dataset:
    """Return a lazy frame of n x n pixels: overscan, trim, deviation, gain, bias and flat, with all scalars known."""
    for name in ("raw", "bias", "flat"):
        path = folder / f"{name}{n}.fits"
        if not path.exists():
            sparse_fits(path, (n, n + 32 if name == "raw" else n))
    raw, bias, flat = (lazyccd.open_fits(folder / f"{name}{n}.fits", chunks=chunk) for name in ("raw", "bias", "flat"))
    ds = lazyccd.subtract_overscan(raw, fits_section=f"[{n + 1}:{n + 32},1:{n}]", overscan_axis=1, median=True)
    ds = lazyccd.trim_image(ds, fits_section=f"[1:{n},1:{n}]")
    ds = lazyccd.create_deviation(ds, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron)
    ds = lazyccd.subtract_bias(ds, bias)
    ds = lazyccd.flat_correct(ds, flat, norm_value=32768.0)
    return lazyccd.gain_correct(ds, 1.5 * u.electron / u.adu)


def tasks(*arrays: xr.DataArray) -> int:
    """Return the number of tasks that run when arrays are computed together."""
    optimized = dask.optimize(*(array.data for array in arrays))
    return len({key for array in optimized for key in dict(array.__dask_graph__())})


def measure(folder: Path, n: int, chunk: int) -> list[dict[str, Any]]:
    """Return the rows for an image of n x n pixels."""
    calibrated(folder, n, chunk)
    build = []
    for _ in range(RUNS):
        start = time.perf_counter()
        ds = calibrated(folder, n, chunk)
        graph = ds["data"].data.__dask_graph__()
        build.append(time.perf_counter() - start)
    chunks = ds["data"].data.npartitions
    size = len(pickle.dumps(graph))
    rows = [
        row(f"graph build, {chunks} chunks", spread(build), "< 50 ms", sorted(build)[RUNS // 2] < 0.05, times=build),
        row(f"pickled graph, {chunks} chunks", f"{size / 1e3:.1f} kB", "< 100 kB", size < 100_000, bytes=size),
    ]
    if chunks <= 1000:
        one, three = tasks(ds["data"]) / chunks, tasks(*ds.data_vars.values()) / chunks
        rows.append(row(f"tasks per chunk of one variable, {chunks} chunks", f"{one:g}", "1", one == 1))
        rows.append(row(f"tasks per chunk of all three, {chunks} chunks", f"{three:g}", "≤ 4", three <= 4))
    return rows


def cutout(folder: Path) -> dict[str, Any]:
    """Return the row of a cutout of 512 x 512 from 100 000 x 100 000 pixels."""
    ds = calibrated(folder, 100_000, 2048).ccd.settle()
    times = []
    for k in range(RUNS + 1):
        start = time.perf_counter()
        ds.ccd.cutout(y=slice(50_000 + 999 * k, 50_512 + 999 * k), x=slice(49_000, 49_512)).compute()
        times.append(time.perf_counter() - start)
    return row("512² cutout of a calibrated 100 000²", spread(times[1:]), "< 0.5 s", max(times[1:]) < 0.5, times=times)


def main() -> None:
    """Measure everything and save it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*measure(folder, 5_000, 500), *measure(folder, 100_000, 316), cutout(folder)]
    save("graph", rows, "python benchmarks/bench_graph.py")


if __name__ == "__main__":
    main()
