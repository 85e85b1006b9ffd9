"""Equal work has equal task names in any process; other parameters and changed files give other names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Chebyshev1D, Polynomial1D

import lazyccd
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (20, 30)
GAIN = 1.5 * u.electron / u.adu
NOISE = 4.0 * u.electron
Operation = Callable[[xr.Dataset], xr.Dataset]


def master(seed: int) -> xr.Dataset:
    """Return a master."""
    return formula_frame(SHAPE, seed=seed, low=1.0, high=2.0)


def ramp(step: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return an array."""
    return np.arange(600.0).reshape(SHAPE) * step


def overscan(ds: xr.Dataset, **more: object) -> xr.Dataset:
    """Subtract an overscan."""
    out: xr.Dataset = lazyccd.subtract_overscan(ds, fits_section="[27:30,*]", **more)
    return out


PAIRS: dict[str, tuple[Operation, Operation]] = {
    "number": (lambda ds: lazyccd.add(ds, 1 * u.adu), lambda ds: lazyccd.add(ds, 2 * u.adu)),
    "sign": (lambda ds: lazyccd.add(ds, 1 * u.adu), lambda ds: lazyccd.subtract(ds, 1 * u.adu)),
    "operand": (lambda ds: lazyccd.add(ds, master(1)), lambda ds: lazyccd.add(ds, master(2))),
    "operation": (lambda ds: lazyccd.multiply(ds, master(1)), lambda ds: lazyccd.divide(ds, master(1))),
    "gain": (lambda ds: lazyccd.gain_correct(ds, 1.5), lambda ds: lazyccd.gain_correct(ds, 1.6)),
    "deviation": (
        lambda ds: lazyccd.create_deviation(ds, GAIN, NOISE),
        lambda ds: lazyccd.create_deviation(ds, GAIN, NOISE, disregard_nan=True),
    ),
    "section": (
        lambda ds: lazyccd.trim_image(ds, "[1:9,*]"),
        lambda ds: lazyccd.trim_image(ds, "[9:1,*]"),
    ),
    "median": (overscan, lambda ds: overscan(ds, median=True)),
    "model": (lambda ds: overscan(ds, model=Polynomial1D(1)), lambda ds: overscan(ds, model=Polynomial1D(2))),
    "family of models": (lambda ds: overscan(ds, model=Polynomial1D(2)), lambda ds: overscan(ds, model=Chebyshev1D(2))),
    "domain of a model": (
        lambda ds: overscan(ds, model=Chebyshev1D(2, domain=(0, 19))),
        lambda ds: overscan(ds, model=Chebyshev1D(2, domain=(0, 99))),
    ),
    "flat": (
        lambda ds: lazyccd.flat_correct(ds, master(1)),
        lambda ds: lazyccd.flat_correct(ds, master(1), min_value=0.5),
    ),
    "norm": (
        lambda ds: lazyccd.flat_correct(ds, master(1), norm_value=1.0),
        lambda ds: lazyccd.flat_correct(ds, master(1), norm_value=1.1),
    ),
    "dark": (
        lambda ds: lazyccd.subtract_dark(ds, master(1), 1 * u.s, 2 * u.s, scale=True),
        lambda ds: lazyccd.subtract_dark(ds, master(1), 1 * u.s, 3 * u.s, scale=True),
    ),
    "block": (lambda ds: lazyccd.block_reduce(ds, 2), lambda ds: lazyccd.block_reduce(ds, 2, np.median)),
    "function": (
        lambda ds: lazyccd.transform_image(ds, np.abs, halo=0),
        lambda ds: lazyccd.transform_image(ds, np.negative, halo=0),
    ),
    "argument of a function": (
        lambda ds: lazyccd.transform_image(ds, np.roll, shift=1),
        lambda ds: lazyccd.transform_image(ds, np.roll, shift=2),
    ),
    "level": (lambda ds: lazyccd.flag_saturated(ds, 9), lambda ds: lazyccd.flag_saturated(ds, 10)),
    "array": (lambda ds: lazyccd.add_mask(ds, ramp(1) > 9), lambda ds: lazyccd.add_mask(ds, ramp(1) > 10)),
    "mask": (lambda ds: lazyccd.with_mask(ds, ramp(1) > 9), lambda ds: lazyccd.with_mask(ds, ramp(1) > 10)),
    "plane": (lambda ds: lazyccd.add_mask(ds, ramp(1)), lambda ds: lazyccd.add_mask(ds, ramp(1), "CR")),
    "type": (
        lambda ds: lazyccd.with_uncertainty(ds, ramp(1)),
        lambda ds: lazyccd.with_uncertainty(ds, ramp(1), "var"),
    ),
    "values": (lambda ds: lazyccd.with_uncertainty(ds, ramp(1)), lambda ds: lazyccd.with_uncertainty(ds, ramp(2))),
    "radius": (lambda ds: box_filter(ds, 1), lambda ds: box_filter(ds, 2)),
    "chunks": (lambda ds: lazyccd.rechunk(ds, 5), lambda ds: lazyccd.rechunk(ds, 6)),
}


def names(ds: xr.Dataset) -> dict[str, str]:
    """Return the name of the dask array of each variable."""
    return {str(name): variable.data.name for name, variable in ds.data_vars.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_work_has_equal_names_and_other_work_others(name: str) -> None:
    """The same operation has the same names; with another parameter it has others."""
    one, other = PAIRS[name]
    first, again, changed = (
        names(operation(formula_frame(SHAPE, (7, 30), uncertainty=False))) for operation in (one, one, other)
    )
    assert first == again
    assert first != changed


def test_header_and_units_do_not_change_names() -> None:
    """Frames that differ in their headers share the work that does not depend on headers."""
    ds = formula_frame(SHAPE)
    assert names(lazyccd.with_header(ds, OBJECT="M 1")) == names(ds)
    assert names(lazyccd.with_unit(ds, "electron")) == names(ds)


def write(path: Path, value: int) -> None:
    """Write an image."""
    fits.writeto(path, np.full(SHAPE, value, np.uint16), overwrite=True)


def test_changed_files_have_other_names(tmp_path: Path) -> None:
    """Opening a file twice gives the same names; rewriting it with the same size, or touching it, gives others."""
    path = tmp_path / "a.fits"
    write(path, 1)
    first = names(lazyccd.gain_correct(lazyccd.open_fits(path), 2.0))
    assert names(lazyccd.gain_correct(lazyccd.open_fits(path), 2.0)) == first
    os.utime(path, ns=(1, 1))
    touched = names(lazyccd.gain_correct(lazyccd.open_fits(path), 2.0))
    write(path, 2)
    rewritten = names(lazyccd.gain_correct(lazyccd.open_fits(path), 2.0))
    assert len({str(found) for found in (first, touched, rewritten)}) == 3


def test_a_file_changed_after_it_was_opened(tmp_path: Path) -> None:
    """A plan refuses to read a file that changed after the plan was made."""
    path = tmp_path / "a.fits"
    write(path, 1)
    ds = lazyccd.gain_correct(lazyccd.open_fits(path), 2.0)
    write(path, 2)
    os.utime(path, ns=(1, 1))
    with pytest.raises(lazyccd.errors.SourceChangedError, match=r"a\.fits"):
        ds.compute()


CHAIN = """
import sys
import numpy as np
from astropy import units as u
from astropy.modeling.models import Polynomial1D
import lazyccd
from lazyccd.testing.steps import box_filter, formula_frame

ds = lazyccd.subtract_overscan(lazyccd.open_fits(sys.argv[1]), fits_section="[27:30,*]", model=Polynomial1D(1))
ds = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 4 * u.electron)
ds = lazyccd.add_mask(ds, np.arange(600).reshape(20, 30) > 500, "GHOST")
ds = lazyccd.flat_correct(ds, formula_frame((20, 30), seed=3, low=1.0, high=2.0))
ds = box_filter(lazyccd.block_reduce(ds, 2, np.nanmedian), 1)
ds = lazyccd.transform_image(ds, np.roll, shift=1)
print(*(v.data.name for v in ds.data_vars.values()), *(k for k in ds["data"].data.dask.layers))
"""


def test_names_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Processes with different hash seeds give the same names to the same work."""
    path = tmp_path / "a.fits"
    write(path, 1)
    found = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", CHAIN, str(path)]
        found.append(
            subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        )
    assert found[0].count(b"-") > 5
    assert found[0] == found[1]
