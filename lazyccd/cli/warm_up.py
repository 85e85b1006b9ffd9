"""Compile the kernels of a night before its clock starts, in this process and on the workers of a cluster.

A tiny simulated night of the same kind of files goes through the steps of the built-in recipe, so that each kernel meets the types
that it will meet. A file in the cache folder says that this was done: then nothing happens.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dask
import numpy as np
from astropy.io import fits

from lazyccd.batch.make_masters import FEW
from lazyccd.io.fits.scan import HduInfo, scan_fits
from lazyccd.io.names import split_hdu
from lazyccd.kernels.cache_folder import cache_folder

if TYPE_CHECKING:
    from distributed import Client

    from lazyccd.batch.night_plan import NightPlan

SIDE = 528
"""Pixels along a side of the simulated frames: see `lazyccd.plan.schedule.SMALL_PIXELS`, below which other kernels run."""


def dtypes_of(plan: NightPlan) -> set[str]:
    """Return the dtypes in the raw files of a night, which decide what is compiled; small frames need nothing that takes long."""
    frames = [item for item in plan.frames if item.is_reduced and math.prod(item.shape) >= SIDE**2]
    # One of each camera and form of file stands for all.
    files = {(item.shape, item.source.partition("[")[0][-5:]): split_hdu(item.source)[0] for item in frames}
    return {_stored(hdu) for path in files.values() for hdu in scan_fits(path, keep_going=True).hdus if hdu.shape}


def _stored(hdu: HduInfo) -> str:
    """Return the dtype of the pixels of an image as it is stored: BZERO makes unsigned integers of signed ones."""
    bits = abs(hdu.bitpix)
    if hdu.bitpix < 0:
        return f"float{bits}"
    return f"uint{bits}" if bits == 8 or hdu.bzero == 2.0 ** (bits - 1) else f"int{bits}"


def warm_up(dtypes: Iterable[str]) -> float | None:
    """Compile what reducing files of some dtypes needs, unless it was done; return how many seconds it took, None if nothing.

    Parameters
    ----------
    dtypes
        Of the pixels of raw frames.
    """
    todo = [dtype for dtype in sorted(set(dtypes)) if not _mark(dtype).exists()]
    begin = time.monotonic()
    for dtype in todo:
        # It is for speed alone: without space for it the night itself says what is wrong.
        with contextlib.suppress(OSError), _alone(dtype):
            if not _mark(dtype).exists():
                _reduce_tiny_night(dtype)
                _mark(dtype).touch()
    return time.monotonic() - begin if todo else None


def warm_up_workers(client: Client, dtypes: Iterable[str], tell: Callable[[str], None]) -> None:
    """Compile on each worker of a cluster: one on each machine first, since the others find there what it compiled.

    Parameters
    ----------
    client
        Of the cluster.
    dtypes
        Of the pixels of raw frames.
    tell
        Is told that something was compiled, and how long that took.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"]
    hosts: dict[str, list[str]] = {}
    for address, worker in workers.items():
        hosts.setdefault(worker["host"], []).append(address)
    firsts = [some[0] for some in hosts.values()]
    for some in (firsts, [address for address in workers if address not in firsts]):
        futures = [
            # A task and no message: the worker must answer the scheduler meanwhile. If it dies, another one takes the task, for
            # which otherwise nobody would ever come.
            client.submit(
                warm_up,
                tuple(dtypes),
                workers=[address],
                allow_other_workers=True,
                key=f"warm-up-{address}",
                pure=False,
            )
            for address in some
        ]
        seconds = [each for future in futures if (each := future.result()) is not None]
        if seconds:
            tell(f"Kernels were compiled on {len(seconds)} workers, in {max(seconds):.0f} s.")


def _mark(dtype: str) -> Path:
    """Return the file that says that the kernels for a dtype are compiled."""
    return cache_folder() / f"numpy-{np.__version__}-warm-{dtype}"


@contextlib.contextmanager
def _alone(dtype: str) -> Iterator[None]:
    """Let no other process of this machine compile the same inside the block; it would take a processor and help nobody."""
    with _mark(f"{dtype}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reduce_tiny_night(dtype: str) -> None:
    """Reduce a simulated night whose raw files have a dtype."""
    from lazyccd.batch.collect import collect
    from lazyccd.batch.make_plan import build_plan
    from lazyccd.batch.run import Run
    from lazyccd.picture import draw_product
    from lazyccd.testing import Detector, Sky, make_night

    with TemporaryDirectory(prefix="lazyccd-") as folder, dask.config.set(scheduler="sync"):
        raw = Path(folder, "raw")
        # As many biases as are clipped, and as few flats as are combined by their median.
        make_night(raw, Detector((SIDE, SIDE)), Sky(stars=20), biases=FEW, darks=2, flats=2, lights=1)
        for path in raw.glob("*.fits"):
            with fits.open(path) as file:
                made = fits.PrimaryHDU(file[0].data.astype(dtype), file[0].header)
            made.header["BUNIT"] = "adu"
            made.writeto(path, overwrite=True)
        Run(build_plan(collect(os.fspath(raw))), Path(folder, "out"), draw=draw_product)()
