"""Counts the files of the package that a reader enters who follows a call from the beginning to the end.

``python tests/walks.py`` prints the counts of three walks; ``--files`` prints the files too. The rule:

- A walk is one call of a user: `open_fits` to a store, `combine` to its pixels, ``lazyccd reduce`` to the products of a night.
- A file counts if a function or method of it runs in the walk, in any thread, compiled loops aside.
- The walk runs twice and only the second time counts, so that imports, compiled kernels and tables that are read once do not.

Every file counts alike, whether the walk passes through it or asks it one question: which of them a reader may skip is a matter
of opinion, and the count is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import dask
import numpy as np
from astropy.io import fits
from click.testing import CliRunner

import lazyccd
from lazyccd.cli.main import main as command
from lazyccd.rejection import SigmaClip
from lazyccd.testing import Detector, Sky, make_night

Walk: TypeAlias = Callable[[], object]

PACKAGE = Path(lazyccd.__file__).parent


@contextmanager
def entering() -> Iterator[set[str]]:
    """Collect the files of the package whose functions are called inside the context, relative to the package."""
    entered: set[str] = set()
    root = f"{PACKAGE}/"

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        # the body of a module that is imported on use is no step of the walk
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(root):
            entered.add(code.co_filename[len(root) :])

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def frame_to_store(folder: Path) -> Walk:
    """Return the walk from `open_fits` to a Zarr store."""
    name = _frames(folder)[0]
    return lambda: lazyccd.to_zarr(lazyccd.open_fits(name), folder / "a.zarr")


def frames_to_stack(folder: Path) -> Walk:
    """Return the walk from `combine` to the pixels of a sigma-clipped stack of three files."""
    names, reject = _frames(folder), SigmaClip(low=1, high=1)
    return lambda: lazyccd.combine(names, reject=reject)["data"].compute()


def night_to_product(folder: Path) -> Walk:
    """Return the walk from ``lazyccd reduce`` to the product of a night of bias, dark and flat frames and one light."""
    raw, out = str(folder / "raw"), str(folder / "out")
    make_night(raw, Detector((128, 128)), Sky(stars=20, galaxies=2), biases=3, darks=3, flats=3, lights=1)

    def walk() -> None:
        done = CliRunner().invoke(command, ["reduce", raw, "-o", out, "--scheduler", "sync"])
        assert list(Path(out).glob("light*_red.fits")), done.output

    return walk


WALKS: dict[str, Callable[[Path], Walk]] = {
    "open_fits to a store": frame_to_store,
    "combine to its pixels": frames_to_stack,
    "lazyccd reduce to a product": night_to_product,
}


def _frames(folder: Path) -> list[Path]:
    """Write three small frames and return their names."""
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.fits" for number in range(3)]
    for path in paths:
        fits.writeto(path, rng.normal(1000, 10, (64, 48)).astype("f4"), fits.Header({"BUNIT": "adu"}))
    return paths


def files_of(prepare: Callable[[Path], Walk]) -> list[str]:
    """Return the files that a walk enters, relative to the package."""
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="synchronous"):
        first, second = Path(folder, "1"), Path(folder, "2")
        first.mkdir()
        second.mkdir()
        prepare(first)()
        walk = prepare(second)
        with entering() as entered:
            walk()
    return sorted(entered)


def main() -> None:
    """Print how many files each walk enters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", action="store_true", help="print the files too")
    options = parser.parse_args()
    for name, prepare in WALKS.items():
        files = files_of(prepare)
        print(f"{name:30} {len(files):4}")
        if options.files:
            print(*(f"    {file}" for file in files), sep="\n")


if __name__ == "__main__":
    main()
