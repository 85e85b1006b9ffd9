"""Damage files and stores at random, and look for anything but pixels or one of our errors.

``python -m tests.faults.damage [--count N] [--seed N]`` from the root of the project; `tests.faults.test_hostile` has a short form.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

import lazyccd
from lazyccd.errors import LazyCCDError

VALUES = [
    "-1",
    "0",
    "99999999999",
    "1E400",
    "NaN",
    "'x'",
    "''",
    "T",
    "F",
    "1.5",
    "-32",
    "2147483647",
    "9223372036854775808",
    "'[1:99999,-5:3]'",
    "'[,]'",
    "(1,2)",
    "/",
    "'abc",
]
VALUES += ["", "'1PB(999999999)'", "'RA---XXX-SIP'", "'99PE(5)'", "16", "64", "999"]
"""What cards get instead of their values."""

NODES: list[Any] = [None, -1, 0, 2**70, "x", "", [], {}, 1.5, True, [1], {"a": 1}, "../../evil", float("nan")]
"""What nodes of metadata get instead of their values."""

SLOW = 10.0
"""Seconds of a processor that a file of some kilobytes may take."""


def make_frame() -> Any:
    """Return a frame with all variables, sections, a WCS and planes."""
    rng = np.random.default_rng(1)
    shape = (60, 70)
    ccd = CCDData(
        rng.normal(100, 5, shape).astype(np.float32),
        unit="adu",
        uncertainty=StdDevUncertainty(np.ones(shape, np.float32)),
        mask=rng.random(shape) < 0.1,
    )
    ccd.header = fits.Header({"BIASSEC": "[61:70,1:60]", "TRIMSEC": "[1:60,1:60]", "GAIN": 1.5})
    ccd.header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.0, "CRPIX2": 30.0, "CRVAL1": 10.0})
    ccd.header.update({"CRVAL2": 10.0, "CD1_1": -1e-4, "CD2_2": 1e-4})
    return lazyccd.from_ccddata(ccd)


def damaged_bytes(content: bytearray, rng: random.Random) -> str:
    """Damage bytes in place; return what was done."""
    kind = rng.choice(["flip", "cut", "zero"])
    if not content:
        return "empty"
    if kind == "flip":
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[rng.randrange(len(content)) :]
    else:
        at = rng.randrange(len(content))
        content[at : at + 200] = bytes(len(content[at : at + 200]))
    return kind


def damaged_card(content: bytearray, rng: random.Random) -> str:
    """Give a card another value, or that of another card."""
    cards = [
        at for at in range(0, len(content), 80) if content[at + 8 : at + 10] == b"= " and content[at : at + 1].isupper()
    ]
    at, other = rng.choice(cards), rng.choice(cards)
    before = bytes(content[at : at + 40])
    if rng.random() < 0.2:
        content[at : at + 80] = content[other : other + 80]
    else:
        content[at : at + 80] = (bytes(content[at : at + 10]) + rng.choice(VALUES).rjust(20).encode()).ljust(80)
    return f"{before!r} became {bytes(content[at : at + 40])!r}"


def damaged_node(content: bytearray, rng: random.Random) -> str:
    """Give a node of metadata another value."""
    document = json.loads(content)

    def places(node: Any) -> Iterator[tuple[Any, Any]]:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            yield from places(node[key])

    node, key = rng.choice(list(places(document)))
    node[key] = rng.choice(NODES)
    content[:] = json.dumps(document).encode()
    return f"{key} became {node[key]!r}"


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file, or a file of a store; return what was done."""
    file = rng.choice(sorted(one for one in path.rglob("*") if one.is_file())) if path.is_dir() else path
    content = bytearray(file.read_bytes())
    if file.suffix == ".json" and rng.random() < 0.7:
        what = damaged_node(content, rng)
    elif file.suffix == ".fits" and rng.random() < 0.6:
        what = damaged_card(content, rng)
    elif path.is_dir() and rng.random() < 0.2:
        file.unlink()
        if rng.random() < 0.5:
            file.mkdir()
        return f"{file.name} is gone or a folder"
    else:
        what = damaged_bytes(content, rng)
    file.write_bytes(content)
    return f"{file.name}: {what}"


def read(path: Path) -> None:
    """Read all that a frame is asked for."""
    ds = lazyccd.open_zarr(path) if path.is_dir() else lazyccd.open_fits(path)
    ds.compute()
    ds.ccd.plan()
    str(ds.ccd.header)
    if not path.is_dir():
        lazyccd.open_mef(path)


def originals(folder: Path, form: str) -> list[Path]:
    """Write what is damaged."""
    frame = make_frame()
    if form == "zarr":
        return [Path(str(lazyccd.to_zarr(frame, folder / "whole.zarr", shards=(32, 32))))]
    kinds: list[dict[str, Any]] = [{}, {"compress": "RICE_1", "quantize": 4}, {"compress": "GZIP_2"}]
    kinds.append({"compress": "HCOMPRESS_1", "quantize": 4})
    return [Path(str(lazyccd.to_fits(frame, folder / f"whole{k}.fits", **kind))) for k, kind in enumerate(kinds)]


def try_damaged(folder: Path, form: str, *, seed: int, count: int) -> list[str]:
    """Read so many damaged copies; return what was neither pixels nor one of our errors, or took too long."""
    rng, found = random.Random(seed), []
    whole = originals(folder, form)
    for one in whole:  # kernels are compiled before a clock runs
        read(one)
    for _ in range(count):
        original = rng.choice(whole)
        copy = folder / f"damaged.{form}"
        if form == "zarr":
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
        else:
            shutil.copy(original, copy)
        what = damage(copy, rng)
        begun = time.process_time()
        try:
            with dask.config.set(scheduler="sync"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(copy)
        except LazyCCDError:
            pass
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            found.append(f"{type(error).__name__} {error} at {last.filename}:{last.lineno}, {what}")
        if time.process_time() - begun > SLOW:
            found.append(f"{time.process_time() - begun:.0f} s, {what}")
    return found


def main() -> None:
    """Try as many as were asked for, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for form in ("fits", "zarr"):
        with tempfile.TemporaryDirectory() as folder:
            found = try_damaged(Path(folder), form, seed=options.seed, count=options.count)
        print(f"{form}: {options.count} damaged, {len(found)} wrong", *found, sep="\n  ")


if __name__ == "__main__":
    main()
