"""The writers that `every_change` stops, each with small inputs."""

from __future__ import annotations

import contextlib
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from every_change import Writer
from scipy import ndimage

import lazyccd
from lazyccd.errors import ParameterError, WriteError
from lazyccd.testing import Detector, Sky, make_night

SHAPE = (48, 40)


def raw(folder: Path, count: int = 1) -> None:
    """Write raw frames."""
    rng = np.random.default_rng(1)
    for i in range(count):
        header = fits.Header({"BUNIT": "adu", "EXPTIME": 10.0})
        fits.writeto(folder / f"raw{i}.fits", rng.integers(0, 9000, SHAPE).astype(np.uint16), header)


def frame(folder: Path, gain: float = 1.5) -> Any:
    """Return a frame of four chunks with all variables."""
    ds = lazyccd.open_fits(folder / "raw0.fits", chunks=(24, 20))
    ds = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 3 * u.electron)
    return lazyccd.flag_saturated(lazyccd.gain_correct(ds, gain * u.electron / u.adu), 9000)


def write(folder: Path, form: str = "zarr", *, lazy: bool = False, **more: Any) -> None:
    """Write the frame."""
    written = getattr(lazyccd, f"to_{form}")(frame(folder), folder / f"a.{form}", compute=not lazy, **more)
    if lazy:
        written.compute()


def with_old(folder: Path, form: str) -> None:
    """Write an older product."""
    raw(folder)
    getattr(lazyccd, f"to_{form}")(frame(folder, 1.0), folder / f"a.{form}")


def master(folder: Path) -> None:
    """Stack frames to a file."""
    names = sorted(map(str, folder.glob("raw*.fits")))
    lazyccd.to_fits(lazyccd.combine(names, method="median"), folder / "master.fits")


def pyramid_base(folder: Path) -> None:
    """Write a store without levels."""
    raw(folder)
    lazyccd.to_zarr(frame(folder), folder / "a.zarr")


def pyramid(folder: Path) -> None:
    """Add two levels."""
    lazyccd.build_pyramid(folder / "a.zarr", 3)


def tree(folder: Path) -> None:
    """Write a file with a table as a store."""
    lazyccd.to_zarr(lazyccd.open_mef(folder / "mef.fits"), folder / "mef.zarr")


def mef(folder: Path) -> None:
    """Write a file of two images and a table."""
    rng = np.random.default_rng(2)
    images = [fits.ImageHDU(rng.normal(size=(20, 24)).astype(np.float32), name=f"IM{i}") for i in (1, 2)]
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=np.arange(9))])
    fits.HDUList([fits.PrimaryHDU(), *images, table]).writeto(folder / "mef.fits")


def two_added(folder: Path) -> None:
    """Begin a running stack."""
    raw(folder, 3)
    for i in range(2):
        lazyccd.RunningStack(folder / "deep").add(str(folder / f"raw{i}.fits"), name=f"f{i}")


def add(folder: Path, count: int) -> None:
    """Add a frame to a running stack, unless it is there already."""
    stack = lazyccd.RunningStack(folder / "deep")
    with contextlib.suppress(*[ParameterError] if f"f{count}" in stack.names else []):
        stack.add(str(folder / f"raw{count}.fits"), name=f"f{count}")


def transformed(folder: Path) -> None:
    """Write what a function of the user's makes."""
    ds = lazyccd.transform_image(frame(folder), ndimage.convolve, halo=1, weights=np.ones((3, 3)), mode="nearest")
    lazyccd.to_zarr(ds, folder / "a.zarr")


def night(folder: Path) -> None:
    """Simulate a tiny night."""
    make_night(folder / "raw", Detector((40, 48)), Sky(stars=2), biases=2, darks=0, flats=2, lights=1)


def reduced(folder: Path, form: str = "fits") -> None:
    """Reduce it."""
    run = lazyccd.reduce(folder / "raw", folder / "out", format=form, cosmic_rays="none", gain="stated")
    for outcome in run.outcomes:
        if outcome.status == "FAILED":
            raise WriteError(f"{outcome.name}: {outcome.reason}")


def moved_old(folder: Path) -> None:
    """Write an older store, and something beside it."""
    with_old(folder, "zarr")
    shutil.copy(folder / "raw0.fits", folder / "other.fits")


WRITERS = {
    "fits": Writer(raw, partial(write, form="fits"), "a.fits"),
    "fits over": Writer(partial(with_old, form="fits"), partial(write, form="fits", overwrite=True), "a.fits"),
    "fits rice": Writer(raw, partial(write, form="fits", compress="RICE_1", quantize=4), "a.fits"),
    "fits lazy": Writer(raw, partial(write, form="fits", lazy=True), "a.fits"),
    "zarr": Writer(raw, write, "a.zarr"),
    "zarr over": Writer(moved_old, partial(write, overwrite=True), "a.zarr"),
    "zarr lazy": Writer(raw, partial(write, lazy=True), "a.zarr"),
    "tree": Writer(mef, tree, "mef.zarr"),
    "transform": Writer(raw, transformed, "a.zarr"),
    "master": Writer(partial(raw, count=4), master, "master.fits"),
    "pyramid": Writer(pyramid_base, pyramid),
    "running begin": Writer(partial(raw, count=1), partial(add, count=0)),
    "running add": Writer(two_added, partial(add, count=2)),
    "reduce": Writer(night, reduced),
    "reduce zarr": Writer(night, partial(reduced, form="zarr")),
}
