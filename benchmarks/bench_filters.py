"""Filters with a moving box against scipy and ccdproc, one thread each, with outputs compared bit by bit."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import ccdproc
import dask
import numpy as np
from astropy.nddata import CCDData
from common import fresh, row, save, spread
from scipy import ndimage

import lazyccd
from lazyccd.kernels import rank_filter

BOXES = (5, 7, 11)
CROSSOVER = (9, 13, 17, 19, 21, 25, 31)


def timed(call: Callable[[], Any], repeat: int) -> tuple[list[float], Any]:
    """Return the seconds of several calls, and the last result."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - begin)
    return times, result


def image(side: int) -> Any:
    """Return noise with outliers."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(1.0, 0.01, (side, side)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.001] = 0.5
    return pixels


def filters(side: int, repeat: int) -> dict[str, Any]:
    """Time each operation of both libraries in turn."""
    pixels = image(side)
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu")), side)
    ccd = CCDData(pixels, unit="adu")
    error = float(pixels.std())
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"median_filter {n}": (
            lambda n=n: lazyccd.median_filter(ds, n)["data"].values,
            lambda n=n: ndimage.median_filter(pixels, n),
        )
        for n in BOXES
    }
    calls["cosmicray_median, mbox 11"] = (
        lambda: lazyccd.cosmicray_median(ds, error_image=error)["mask"].values != 0,
        lambda: ccdproc.cosmicray_median(pixels, error_image=error)[1],
    )
    for name, options in {
        "ccdmask": {},
        "ccdmask byblocks": {"byblocks": True},
        "ccdmask findbadcolumns": {"findbadcolumns": True},
    }.items():
        calls[name] = (
            lambda options=options: lazyccd.ccdmask(ds, **options).values,
            lambda options=options: ccdproc.ccdmask(ccd, **options),
        )
    results = {}
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, (mine, theirs) in calls.items():
            mine()
            ours, one = timed(mine, repeat)
            peer, other = timed(theirs, 1)
            results[name] = {"ours": ours, "theirs": peer, "same": bool(np.array_equal(one, other))}
    return results


def crossover(side: int) -> dict[str, Any]:
    """Time the network and the sliding histogram for boxes around their crossover."""
    found = {}
    for n in CROSSOVER:
        padded = np.pad(image(side), n // 2, mode="symmetric")
        times = []
        for limit in (10**9, 0):
            rank_filter.LARGEST_NETWORK = limit
            rank_filter.rank_filter(padded[:100, :100].copy(), (n, n), (n * n // 2,))
            seconds, _ = timed(lambda n=n, padded=padded: rank_filter.rank_filter(padded, (n, n), (n * n // 2,)), 3)
            times.append(1e9 * median(seconds) / side**2)
        found[str(n)] = times
    return found


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    rows = []
    for name, result in fresh(__file__, "filters", asked.side, asked.repeat).items():
        ratio = median(result["theirs"]) / median(result["ours"])
        peer = "ccdproc" if "ccdmask" in name or "cosmic" in name else "scipy"
        same = "same bits" if result["same"] else "OTHER BITS"
        text = f"{ratio:.0f} times {peer} ({spread(result['ours'])} against {result['theirs'][0]:.2f} s), {same}"
        rows.append(row(f"{name}, {asked.side}²", text, "≥ 10 times", ratio >= 10 and result["same"], **result))
    found = fresh(__file__, "crossover", 1024)
    text = "; ".join(f"{n}: {network:.0f} and {sliding:.0f}" for n, (network, sliding) in found.items())
    first = min((int(n) for n, (network, sliding) in found.items() if sliding < network), default=0)
    limit = rank_filter.LARGEST_NETWORK
    what = f"network and sliding histogram, ns per pixel by side of the box; histogram above {limit} pixels"
    rows.append(row(what, text, "stated", True, first=first))
    save("filters", rows, "python benchmarks/bench_filters.py")


def worker(kind: str, *args: str) -> dict[str, Any]:
    """Run one part in this process."""
    return filters(*map(int, args)) if kind == "filters" else crossover(int(args[0]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(worker(*sys.argv[2:])))
    else:
        main()
