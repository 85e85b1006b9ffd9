"""Single calls on a CCDData against ccdproc: both libraries take turns in one process, and their results are compared.

A case is called as ``case(library, frames)``; `lazyccd.ccdproc` and ccdproc take the same arguments. The native operations of
lazyccd, which compute at once if they are given a CCDData, are compared with ccdproc's of the same name.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Polynomial1D
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import mad_std
from astropy.wcs import WCS
from common import fresh, row, save

Case = Callable[[Any, Any], Any]

GAIN, NOISE = 1.7 * u.electron / u.adu, 5.0 * u.electron
TIMES = {"dark_exposure": 60 * u.s, "data_exposure": 30 * u.s}
STACKED = 20
"""Images in a stack."""


def basic() -> dict[str, Case]:
    """Return the steps of a reduction."""
    half = "[1:{0}, 1:{0}]"
    return {
        "create_deviation": lambda lib, f: lib.create_deviation(
            f.ccd, gain=GAIN, readnoise=NOISE, disregard_nan=True
        ),
        "gain_correct": lambda lib, f: lib.gain_correct(f.ccd, GAIN),
        "subtract_bias": lambda lib, f: lib.subtract_bias(f.ccd, f.bias),
        "subtract_dark": lambda lib, f: lib.subtract_dark(f.ccd, f.bias, **TIMES),
        "subtract_dark scaled": lambda lib, f: lib.subtract_dark(f.ccd, f.bias, **TIMES, scale=True),
        "flat_correct": lambda lib, f: lib.flat_correct(f.ccd, f.flat),
        "flat_correct min_value": lambda lib, f: lib.flat_correct(f.ccd, f.flat, min_value=0.9),
        "subtract_overscan mean": lambda lib, f: lib.subtract_overscan(f.ccd, fits_section="[1:32, *]"),
        "subtract_overscan median": lambda lib, f: lib.subtract_overscan(f.ccd, fits_section="[1:32, *]", median=True),
        "subtract_overscan model": lambda lib, f: lib.subtract_overscan(
            f.ccd, fits_section="[1:32, *]", model=Polynomial1D(2)
        ),
        "trim_image": lambda lib, f: lib.trim_image(f.ccd, fits_section=half.format(f.side - 32)),
        "transform_image": lambda lib, f: lib.transform_image(f.ccd, np.rot90),
        "ccd_process": lambda lib, f: lib.ccd_process(
            f.ccd, oscan="[1:32, *]", trim=f"[33:{f.side}, 1:{f.side}]", error=True, gain=GAIN, readnoise=NOISE,
            master_bias=f.bias_trimmed, dark_frame=f.bias_trimmed, master_flat=f.flat_trimmed, exposure_key="EXPTIME",
            exposure_unit=u.s, dark_scale=True,
        ),
    }  # fmt: skip


def others() -> dict[str, Case]:
    """Return what is done besides: filters, cosmic rays, blocks, masks."""
    return {
        "median_filter 5": lambda lib, f: lib.median_filter(f.ccd, 5),
        "background_deviation_box": lambda lib, f: lib.background_deviation_box(f.ccd.data, 25),
        "cosmicray_median": lambda lib, f: lib.cosmicray_median(f.ccd, error_image=f.noise, mbox=5, rbox=5, gbox=3),
        "cosmicray_lacosmic": lambda lib, f: lib.cosmicray_lacosmic(
            f.ccd, gain=1.7 * u.electron / u.adu, readnoise=5.0 * u.electron
        ),
        "block_reduce": lambda lib, f: lib.block_reduce(f.ccd, 4),
        "block_average": lambda lib, f: lib.block_average(f.ccd, 4),
        "block_replicate": lambda lib, f: lib.block_replicate(f.ccd, 2),
        "rebin": lambda lib, f: lib.rebin(f.ccd, (f.side // 2, f.side // 2)),
        "ccdmask": lambda lib, f: lib.ccdmask(f.flat),
        "bitfield_to_boolean_mask": lambda lib, f: lib.bitfield_to_boolean_mask(f.bits, ignore_bits="~4,8"),
    }


def stacks() -> dict[str, Case]:
    """Return combinations, and the methods of a Combiner."""
    clip = {"sigma_clip": True, "sigma_clip_low_thresh": 3, "sigma_clip_high_thresh": 3}
    robust = {**clip, "sigma_clip_func": np.ma.median, "sigma_clip_dev_func": mad_std}

    def method(name: str, **options: Any) -> Case:
        def run(lib: Any, f: Any) -> Any:
            combiner = lib.Combiner(f.stack, dtype=f.ccd.data.dtype)
            done = getattr(combiner, name)(**options)
            return np.ma.getmaskarray(combiner.data_arr) if done is None else done

        return run

    return {
        "combine average": lambda lib, f: lib.combine(f.stack, method="average"),
        "combine median": lambda lib, f: lib.combine(f.stack, method="median"),
        "combine sum": lambda lib, f: lib.combine(f.stack, method="sum"),
        "combine sigma clip": lambda lib, f: lib.combine(f.stack, method="average", **clip),
        "combine sigma clip, median and MAD": lambda lib, f: lib.combine(f.stack, method="average", **robust),
        "combine minmax": lambda lib, f: lib.combine(
            f.stack, method="average", minmax_clip=True, minmax_clip_min=900, minmax_clip_max=1300
        ),
        "combine clip_extrema": lambda lib, f: lib.combine(f.stack, method="average", clip_extrema=True),
        "Combiner and sigma_clipping": method("sigma_clipping"),
        "Combiner and clip_extrema": method("clip_extrema", nlow=1, nhigh=1),
        "Combiner and minmax_clipping": method("minmax_clipping", min_clip=900, max_clip=1300),
        "Combiner and average_combine": method("average_combine"),
        "Combiner and median_combine": method("median_combine"),
        "Combiner and sum_combine": method("sum_combine"),
    }


NATIVE = (
    "create_deviation", "gain_correct", "subtract_bias", "subtract_dark", "subtract_dark scaled", "flat_correct",
    "subtract_overscan mean", "subtract_overscan median", "trim_image", "ccd_process", "cosmicray_lacosmic",
    "block_reduce",
)  # fmt: skip
"""Cases that are run with the native operations too."""

GROUPS = {"basic": basic, "others": others, "stacks": stacks}


def header(number: int = 60) -> fits.Header:
    """Return a header as long as those of many cameras."""
    cards = fits.Header({"EXPTIME": 30.0, "GAIN": 1.7, "RDNOISE": 5.0, "IMAGETYP": "object"})
    for i in range(number - len(cards)):
        cards[f"KEY{i}"] = (i if i % 2 else f"value {i}", "a comment")
    return cards


def celestial(side: int) -> WCS:
    """Return a WCS on the sky."""
    wcs = WCS(naxis=2)
    wcs.wcs.crpix = [side / 2, side / 2]
    wcs.wcs.cdelt = [-1e-4, 1e-4]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    return wcs


def frames(side: int, dtype: str, full: bool) -> Any:
    """Return an image, its masters and a stack; with uncertainty, mask and WCS if ``full``."""
    rng = np.random.default_rng(1)

    def frame(level: float, noise: float, unit: str, shape: tuple[int, int] = (side, side)) -> CCDData:
        pixels = (level + noise * rng.standard_normal(shape)).astype(dtype)
        parts: dict[str, Any] = {}
        if full:
            sigma = StdDevUncertainty((noise + 0 * pixels).astype(dtype))
            parts = {"uncertainty": sigma, "mask": rng.random(shape) < 0.001, "wcs": celestial(side)}
        return CCDData(pixels, unit=unit, meta=header(), **parts)

    def master(level: float, noise: float, unit: str) -> CCDData:
        return frame(level, noise, unit, (side, side - 32))

    flat = frame(1.0, 0.01, "")
    return SimpleNamespace(
        side=side,
        ccd=frame(1000.0, 30.0, "adu"),
        bias=frame(100.0, 3.0, "adu"),
        flat=flat,
        # `ccd_process` trims the columns of the overscan away before these are used
        bias_trimmed=master(100.0, 3.0, "electron"),
        flat_trimmed=master(1.0, 0.01, ""),
        bits=rng.integers(0, 64, (side, side)).astype(np.uint16),
        noise=np.full((side, side), 10.0, dtype),
        stack=[],
        frame=frame,
    )


def parts_of(result: Any) -> dict[str, Any]:
    """Return the arrays of a result, and what else must be alike."""
    if isinstance(result, CCDData):
        sigma = None if result.uncertainty is None else result.uncertainty.array
        keys = [] if result.meta is None else list(result.meta)
        return {"data": result.data, "uncertainty": sigma, "mask": result.mask, "unit": result.unit, "keys": keys}
    results = result if isinstance(result, tuple) else (result,)
    return {f"array {i}": array for i, array in enumerate(results)}


def differences(ours: Any, theirs: Any) -> list[str]:
    """Return what differs: data by more than 1e-5, uncertainties by more than 1e-4, all else at all."""
    found = []
    mine, peers = parts_of(ours), parts_of(theirs)
    for name, peer in peers.items():
        own = mine.get(name)
        if not (isinstance(peer, np.ndarray) and isinstance(own, np.ndarray)):
            alike = type(own) is type(peer) and own == peer
        elif peer.dtype == bool:
            alike = bool(np.array_equal(own, peer))
        else:
            alike = np.allclose(own, peer, rtol=1e-4 if name == "uncertainty" else 1e-5, atol=1e-9, equal_nan=True)
        if not alike:
            found.append(name)
    return found


def turns(mine: Callable[[], Any], theirs: Callable[[], Any], seconds: float) -> tuple[list[float], list[float]]:
    """Call both by turns and return the times of each; as many as fit into some seconds, at most 60, at least 3 if they are short."""
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or (len(times[0]) < 3 and spent < 10 * seconds):
        if len(times[0]) == 60:
            break
        # the one that comes second finds the input in cache
        order = ((mine, times[0]), (theirs, times[1])) if len(times[0]) % 2 else ((theirs, times[1]), (mine, times[0]))
        for call, kept in order:
            begin = time.perf_counter()
            call()
            kept.append(time.perf_counter() - begin)
    return times


def measure(group: str, side: int, dtype: str, full: bool, seconds: float, only: str) -> list[dict[str, Any]]:
    """Time the cases of a group for one kind of image."""
    import ccdproc

    import lazyccd
    from lazyccd import ccdproc as face

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    given = frames(side, dtype, full)
    if group == "stacks":
        given.stack = [given.frame(1000.0, 30.0, "adu") for _ in range(STACKED)]
    found = []
    for name, case in GROUPS[group]().items():
        if only not in name:
            continue
        theirs = functools.partial(case, ccdproc, given)
        peer = theirs()
        for library, label in ((face, "lazyccd.ccdproc"), (lazyccd, "native")):
            if label == "native" and name not in NATIVE:
                continue
            mine = functools.partial(case, library, given)
            other = differences(mine(), peer)
            ours, peers = turns(mine, theirs, seconds)
            found.append({"name": name, "library": label, "ours": ours, "theirs": peers, "differs": other})
    return found


def main() -> None:
    """Measure every kind of image and print a row for each case and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="*", default=[512, 2048])
    parser.add_argument("--groups", nargs="*", default=list(GROUPS))
    parser.add_argument("--seconds", type=float, default=0.5, help="for each case and kind of image")
    parser.add_argument("--only", default="", help="measure cases whose name has this text, and save nothing")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "float64"])
    asked = parser.parse_args()
    rows = []
    for side in asked.sides:
        aim = 1.0 if side < 1024 else 0.5
        for group in asked.groups:
            kinds = [(dtype, full) for dtype in asked.dtypes for full in (False, True)]
            cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
            for dtype, full in kinds:
                found = fresh(__file__, group, side, dtype, int(full), asked.seconds, asked.only)
                for case in found:
                    cases.setdefault((case["library"], case["name"]), []).append(case)
            for (library, name), of_kinds in sorted(cases.items()):
                rows.append(row_of(f"{library}: {name}, {side}²", of_kinds, aim))
                print(
                    rows[-1]["what"], "|", rows[-1]["measured"], "|", "met" if rows[-1]["met"] else "missed", flush=True
                )
    if not asked.only:
        save("single_calls", rows, " ".join(["python benchmarks/bench_single_calls.py", *sys.argv[1:]]))


def row_of(what: str, cases: list[dict[str, Any]], aim: float) -> dict[str, Any]:
    """Return the row of a case: the ratio for each kind of image."""
    ratios = [median(case["ours"]) / median(case["theirs"]) for case in cases]
    pairs = ", ".join(f"{1e3 * median(c['ours']):.3g}/{1e3 * median(c['theirs']):.3g}" for c in cases)
    differs = sorted({name for case in cases for name in case["differs"]})
    text = f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} ({pairs} ms)"
    text += f"; other {', '.join(differs)}" if differs else ""
    return row(what, text, f"≤ {aim}", max(ratios) <= aim, ratios=ratios)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        group, side, dtype, full, seconds, *only = sys.argv[2:]
        print(json.dumps(measure(group, int(side), dtype, bool(int(full)), float(seconds), "".join(only))))
    else:
        main()
