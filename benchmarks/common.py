"""Shared by the benchmarks: the environment, fresh processes, and results."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "dask", "distributed", "xarray", "zarr", "numba", "astropy", "ccdproc", "astroscrappy", "scipy")


def environment() -> dict[str, str]:
    """Return the processor, its cores and memory, and the versions that matter."""
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "machine": f"{len(os.sched_getaffinity(0))} cores of {cpu[0]}, {memory:.0f} GiB",
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def fresh(script: str, *args: object, **variables: str) -> Any:
    """Run ``python script worker ARGS`` in a new process and return what it prints as JSON in its last line."""
    command = [sys.executable, script, "worker", *map(str, args)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def save(name: str, rows: list[dict[str, Any]], command: str) -> None:
    """Print the rows of a benchmark and write them to ``results``; each has what, measured, aim, and whether it is met."""
    for row in rows:
        print(f"{row['what']}: {row['measured']} (aim: {row['aim']}; {'met' if row['met'] else 'missed'})")
    RESULTS.mkdir(exist_ok=True)
    document = {"command": command, "environment": environment(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def row(what: str, measured: str, aim: str, met: bool, **figures: Any) -> dict[str, Any]:
    """Return one row of a result; the figures behind it are kept with it."""
    return {"what": what, "measured": measured, "aim": aim, "met": bool(met), "figures": figures}


def spread(values: list[float]) -> str:
    """Return minimum, median and maximum of times in seconds."""
    return f"{min(values):.3g}/{median(values):.3g}/{max(values):.3g} s"


def sparse_fits(path: Path, shape: tuple[int, int], header: dict[str, Any] | None = None) -> None:
    """Make an unsigned 16-bit FITS file of one repeated value that takes no space on disk."""
    cards = fits.Header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0]})
    cards.update({"BSCALE": 1, "BZERO": 32768, "BUNIT": "adu", **(header or {})})
    head = cards.tostring().encode("ascii")
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + -(-2 * shape[0] * shape[1] // 2880) * 2880)


@functools.cache
def _noise() -> Any:
    """Return Gaussian noise, whose making takes longer than a small file."""
    return np.random.default_rng(7).standard_normal(2**22, np.float32)


def noisy_fits(path: Path, shape: tuple[int, int], dtype: str, level: float, noise: float, **header: Any) -> None:
    """Make a FITS file of Gaussian noise, unsigned 16-bit or float32, a few rows at a time."""
    cards = {"uint16": {"BITPIX": 16, "BSCALE": 1, "BZERO": 32768}, "float32": {"BITPIX": -32}}[dtype]
    first = fits.Header({"SIMPLE": True, "BITPIX": cards["BITPIX"], "NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0]})
    first.update({**cards, **header})
    rng, pool = np.random.default_rng(8), _noise()
    with path.open("wb") as file:
        file.write(first.tostring().encode("ascii"))
        size = 0
        for _ in range(shape[0]):
            start = rng.integers(0, pool.size - shape[1])
            values = level + noise * pool[start : start + shape[1]]
            stored = (values - 32768).astype(">i2") if dtype == "uint16" else values.astype(">f4")
            size += file.write(stored.tobytes())
        file.write(bytes(-size % 2880))
