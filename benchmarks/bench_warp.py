"""Resampling onto another WCS, coordinates included: Mpixel/s of CPU of one thread; reproject, drizzle and SWarp in the same run."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import numpy as np
import reproject
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip
from common import fresh, row, save, spread

import lazyccd

ORDERS = ("nearest", "bilinear", "bicubic", "lanczos3", "area")
AIMS = {("lanczos3", "data"): 50, ("lanczos3", "planes"): 30, ("bilinear", "data"): 100, ("area", "data"): 40}
"""Mpixel/s by kernel and planes."""


def tangent(side: int, angle: float, *, sip: bool = False) -> WCS:
    """Return a WCS about the middle of an image."""
    wcs = WCS(naxis=2)
    kind = "TAN-SIP" if sip else "TAN"
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [(side + 1) / 2] * 2
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = 1e-4 * np.array([[-c, s], [s, c]])
    if sip:
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 3e-7, -2e-7, 4e-7
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def warps(side: int, repeat: int) -> dict[str, Any]:
    """Time each kernel by turns with reproject's; the coordinates are made anew each time."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 10, (side, side)).astype(np.float32)
    source = tangent(side, 0, sip=True)
    sigma = StdDevUncertainty(np.full_like(pixels, 10))
    results: dict[str, Any] = {}
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu", wcs=source)), side)
        full = CCDData(pixels, unit="adu", wcs=source, uncertainty=sigma, mask=np.zeros(pixels.shape, bool))
        whole = lazyccd.rechunk(lazyccd.from_ccddata(full), side)
        for order in ORDERS:
            lazyccd.wcs_project(plain, tangent(side, 4), order=order)["data"].compute()
            lazyccd.wcs_project(whole, tangent(side, 4), order=order).compute()
            alone, planes = [], []
            for number in range(repeat):
                # another target each time: coordinates are kept
                target = tangent(side, 5 + number)
                begin = time.process_time()
                lazyccd.wcs_project(plain, target, order=order)["data"].compute()
                alone.append(time.process_time() - begin)
                target = tangent(side, 5.5 + number)
                begin = time.process_time()
                lazyccd.wcs_project(whole, target, order=order).compute()
                planes.append(time.process_time() - begin)
            results[order] = {"data": alone, "planes": planes}
            for name, peer in peers(pixels, source, order).items():
                begin = time.process_time()
                peer(tangent(side, 5))
                results[name] = {"data": [time.process_time() - begin]}
    return results


def peers(pixels: Any, source: WCS, order: str) -> dict[str, Callable[[WCS], Any]]:
    """Return what other programs have instead of a kernel, by name; drizzle if it is installed."""

    def drizzled(target: WCS) -> Any:
        from drizzle.resample import Drizzle
        from drizzle.utils import calc_pixmap

        given = source.deepcopy()
        given.pixel_shape = pixels.shape[::-1]
        drizzle = Drizzle(kernel="square", out_shape=pixels.shape)
        return drizzle.add_image(pixels, exptime=1.0, pixmap=calc_pixmap(given, target), pixfrac=1.0)

    options = {"shape_out": pixels.shape, "return_footprint": False}
    if order == "bilinear":
        return {"reproject_interp": lambda target: reproject.reproject_interp((pixels, source), target, **options)}
    if order != "area":
        return {}
    found = {"reproject_exact": lambda target: reproject.reproject_exact((pixels, source), target, **options)}
    return {**found, "drizzle": drizzled} if find_spec("drizzle") else found


def swarp(side: int) -> list[float]:
    """Return the seconds of CPU of SWarp with Lanczos 3 on one thread; none if it is not installed. It does not read SIP."""
    program = shutil.which("SWarp") or shutil.which("swarp")
    if program is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).normal(100, 10, (side, side)).astype(np.float32)
        fits.writeto(Path(folder, "in.fits"), pixels, tangent(side, 0).to_header())
        Path(folder, "out.head").write_text(tangent(side, 5).to_header().tostring(sep="\n") + "\nEND\n")
        options = {
            "RESAMPLING_TYPE": "LANCZOS3",
            "SUBTRACT_BACK": "N",
            "NTHREADS": "1",
            "IMAGEOUT_NAME": "out.fits",
            "WEIGHTOUT_NAME": "out.weight.fits",
            "VERBOSE_TYPE": "QUIET",
            "WRITE_XML": "N",
        }
        command = [program, "in.fits", *(word for key, value in options.items() for word in (f"-{key}", value))]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return [after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]


def main() -> None:
    """Print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    pixels = asked.side**2 / 1e6
    found = fresh(__file__, "warps", asked.side, asked.repeat)
    others = {name: found.pop(name)["data"] for name in list(found) if name not in ORDERS}
    rows = []
    for name, times in found.items():
        known = {other: values for other, values in others.items() if (other == "reproject_interp") == (name != "area")}
        for planes, seconds in times.items():
            aim = AIMS.get((name, planes), 0)
            # the machine may be busy: the fastest of several; the others, which take long, run once
            rate = pixels / min(seconds)
            ratios = (f"{min(values) / min(seconds):.1f} times {other}" for other, values in known.items())
            text = f"{rate:.1f} Mpixel/s of CPU ({spread(seconds)}), {', '.join(ratios)}"
            what = f"{name}, {'data' if planes == 'data' else 'data, variance, mask'}, TAN-SIP, {asked.side}²"
            rows.append(row(what, text, f"{aim} Mpixel/s" if aim else "stated", rate >= aim, seconds=seconds, **known))
    for seconds in swarp(asked.side):
        text = f"{pixels / seconds:.1f} Mpixel/s of CPU ({seconds:.2f} s)"
        rows.append(row("SWarp, Lanczos 3, TAN, one thread, whole process", text, "stated", True, seconds=[seconds]))
    save("warp", rows, f"python benchmarks/bench_warp.py --side {asked.side} --repeat {asked.repeat}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        print(json.dumps(warps(*map(int, sys.argv[3:]))))
    else:
        main()
