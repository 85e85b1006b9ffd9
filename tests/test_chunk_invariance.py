"""Every operation gives the same bits for any chunks and any region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.modeling.models import Polynomial1D
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import lazyccd
from lazyccd.testing.steps import box_filter, formula_frame

Operation = Callable[[xr.Dataset], xr.Dataset]
GAIN = 1.7 * u.electron / u.adu
READNOISE = 4.3 * u.electron
TALL = (719, 811)
"""More pixels than a strip holds, and prime sides, which no chunk divides."""


def master(ds: xr.Dataset, seed: int, **more: Any) -> xr.Dataset:
    """Return a master of the frame's shape, chunked differently."""
    return formula_frame((ds.sizes["y"], ds.sizes["x"]), (7, 300), seed=seed, **more)


def flat(ds: xr.Dataset, **more: Any) -> xr.Dataset:
    """Return a flat with low, missing and masked pixels."""
    return master(ds, 5, low=-0.05, high=2.0, holes=31, **more)


def line(ds: xr.Dataset, seed: int) -> xr.Dataset:
    """Return a master of one row."""
    return formula_frame((1, ds.sizes["x"]), (1, 5), seed=seed, low=0.05, high=2.0)


def strip(ds: xr.Dataset) -> xr.Dataset:
    """Return a separate overscan of six columns."""
    return formula_frame((ds.sizes["y"], 6), (5, 4), seed=6, holes=5)


def section(ds: xr.Dataset, columns: int = 4, rows: int | None = None) -> str:
    """Return the section of the last columns, or rows."""
    ny, nx = ds.sizes["y"], ds.sizes["x"]
    return f"[{max(nx - columns, 1)}:{nx},1:{ny}]" if rows is None else f"[1:{nx},{max(ny - rows, 1)}:{ny}]"


def process(ds: xr.Dataset) -> xr.Dataset:
    """Run the whole chain with masters that have uncertainties."""
    trimmed = lazyccd.trim_image(ds, f"[1:{max(ds.sizes['x'] - 5, 1)},*]")
    out: xr.Dataset = lazyccd.ccd_process(
        ds,
        oscan=section(ds),
        trim=f"[1:{max(ds.sizes['x'] - 5, 1)},*]",
        error=True,
        gain=GAIN,
        readnoise=READNOISE,
        gain_corrected=False,
        master_bias=master(trimmed, 2),
        dark_frame=master(trimmed, 3, high=10.0),
        dark_exposure=10 * u.s,
        data_exposure=35 * u.s,
        dark_scale=True,
        master_flat=flat(trimmed),
    )
    return out


POINTWISE: dict[str, Operation] = {
    "add number": lambda ds: lazyccd.add(ds, 3.3 * u.adu),
    "add frame": lambda ds: lazyccd.add(ds, master(ds, 2)),
    "add wider frame": lambda ds: lazyccd.add(ds, master(ds, 2, dtype=np.float64, uncertainty=False)),
    "subtract row": lambda ds: lazyccd.subtract(ds, line(ds, 2)),
    "multiply": lambda ds: lazyccd.multiply(ds, master(ds, 2)),
    "multiply by frame without mask": lambda ds: lazyccd.multiply(ds, master(ds, 2, mask=False, uncertainty=False)),
    "divide": lambda ds: lazyccd.divide(ds, master(ds, 2, holes=9)),
    "divide by number": lambda ds: lazyccd.divide(ds, 3.0),
    "deviation": lambda ds: lazyccd.create_deviation(ds, GAIN, READNOISE),
    "gain": lambda ds: lazyccd.gain_correct(ds, GAIN),
    "gain map": lambda ds: lazyccd.gain_correct(ds, master(ds, 4)),
    "bias": lambda ds: lazyccd.subtract_bias(ds, master(ds, 2)),
    "dark": lambda ds: lazyccd.subtract_dark(
        ds, master(ds, 3), dark_exposure=10 * u.s, data_exposure=35 * u.s, scale=True
    ),
    "flat": lambda ds: lazyccd.flat_correct(ds, flat(ds)),
    "flat row": lambda ds: lazyccd.flat_correct(ds, line(ds, 3)),
    "flat with least value": lambda ds: lazyccd.flat_correct(ds, flat(ds, dtype=np.float64), min_value=0.3),
    "flat with norm": lambda ds: lazyccd.flat_correct(ds, flat(ds, uncertainty=False), norm_value=1.2),
    "saturated": lambda ds: lazyccd.flag_saturated(ds, 900),
    "add mask": lambda ds: lazyccd.add_mask(ds, master(ds, 2)["mask"], "GHOST"),
    "with mask": lambda ds: lazyccd.with_mask(ds, master(ds, 2)["mask"]),
    "with uncertainty": lambda ds: lazyccd.with_uncertainty(ds, master(ds, 2)["data"] + 1, "ivar"),
}
OTHERS: dict[str, Operation] = {
    "overscan columns": lambda ds: lazyccd.subtract_overscan(ds, fits_section=section(ds)),
    "overscan columns, median": lambda ds: lazyccd.subtract_overscan(ds, fits_section=section(ds), median=True),
    "overscan rows": lambda ds: lazyccd.subtract_overscan(ds, fits_section=section(ds, rows=3), overscan_axis=0),
    "overscan rows, median": lambda ds: lazyccd.subtract_overscan(
        ds, fits_section=section(ds, rows=3), overscan_axis=0, median=True
    ),
    "overscan of a part": lambda ds: lazyccd.subtract_overscan(ds, fits_section=f"[1:1,1:{-(-ds.sizes['y'] // 2)}]"),
    "overscan frame": lambda ds: lazyccd.subtract_overscan(ds, strip(ds)),
    "overscan model": lambda ds: lazyccd.subtract_overscan(ds, fits_section=section(ds), model=Polynomial1D(0)),
    "trim": lambda ds: lazyccd.trim_image(ds, f"[1:{-(-ds.sizes['x'] // 2)},*]"),
    "trim with flip": lambda ds: lazyccd.trim_image(ds, f"[-*,{ds.sizes['y']}:1]"),
    "trim with steps": lambda ds: lazyccd.trim_image(ds, "[*:3,-*:2]"),
    "process": process,
    "block sum": lambda ds: lazyccd.block_reduce(ds, (min(3, ds.sizes["y"]), min(5, ds.sizes["x"]))),
    "block median": lambda ds: lazyccd.block_reduce(ds, (min(4, ds.sizes["y"]), 1), np.median),
    "block average": lambda ds: lazyccd.block_average(ds, min(2, *ds.sizes.values())),
    "block replicate": lambda ds: lazyccd.block_replicate(ds, (3, 2)),
    "transform": lambda ds: lazyccd.transform_image(
        ds, ndimage.convolve, halo=(1, 2), weights=np.arange(15).reshape(3, 5), mode="nearest"
    ),
    "transform whole": lambda ds: lazyccd.transform_image(ds, np.fliplr),
    "box": lambda ds: box_filter(ds, 2),
    "less its box": lambda ds: lazyccd.subtract(ds, box_filter(lazyccd.multiply(ds, 2.0), 3)),
    "cut, flipped and filtered": lambda ds: box_filter(lazyccd.trim_image(box_filter(ds, 1), "[-*,*:2]"), 1),
    "less its mirror": lambda ds: lazyccd.subtract(
        *(lazyccd.trim_image(box_filter(ds, 1), s) for s in ("[*,*]", "[-*,-*]"))
    ),
    "after a boundary": lambda ds: lazyccd.add(box_filter(ds, 1).isel(x=slice(None, None, -1)), 1.0 * u.adu),
}
OPERATIONS = POINTWISE | OTHERS


def assert_same_bits(actual: xr.Dataset, expected: xr.Dataset) -> None:
    """Assert that two computed frames have the same bits, dtypes and coordinates."""
    assert set(actual.data_vars) == set(expected.data_vars)
    for name in expected.variables:
        np.testing.assert_array_equal(actual[name].values, expected[name].values, err_msg=str(name), strict=True)


def compute(ds: xr.Dataset) -> xr.Dataset:
    """Compute in one thread, and assert that the dtypes are those of the lazy arrays."""
    with dask.config.set(scheduler="sync"):
        computed = ds.compute()
    for name in ds.data_vars:
        assert ds[name].dtype == computed[name].dtype, (name, ds[name].dtype, computed[name].dtype)
    return computed


@st.composite
def partitions(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    """Draw the sizes of chunks along an axis."""
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=4))) if length > 1 else []
    return tuple(int(n) for n in np.diff([0, *cuts, length]))


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[int, int], Any, dict[str, Any]]:
    """Draw shape, chunks and variables of a frame."""
    shape = draw(st.tuples(st.integers(1, 33), st.integers(1, 41)))
    grid = draw(partitions(shape[0])), draw(partitions(shape[1]))
    more = {
        "dtype": draw(st.sampled_from([np.float32, np.float64])),
        "uncertainty": draw(st.booleans()),
        "mask": draw(st.booleans()),
        "holes": draw(st.sampled_from([0, 13])),
        "low": -20.0,
    }
    return shape, grid, more


@st.composite
def ranges(draw: st.DrawFn, length: int) -> slice:
    """Draw a part of an axis that is not empty."""
    start = draw(st.integers(0, length - 1))
    return slice(start, draw(st.integers(start + 1, length)))


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=8)
@given(problem=problems(), data=st.data())
def test_chunks_and_regions_do_not_change_bits(
    name: str, problem: tuple[tuple[int, int], Any, dict[str, Any]], data: st.DataObject
) -> None:
    """An operation on chunks gives the one-chunk result, computed whole, by variable or in part."""
    shape, grid, more = problem
    operation = OPERATIONS[name]
    whole = compute(operation(formula_frame(shape, **more)))
    lazy = operation(formula_frame(shape, grid, **more))
    assert_same_bits(compute(lazy), whole)
    variable = data.draw(st.sampled_from(sorted(map(str, lazy.data_vars))))
    assert_same_bits(compute(lazy[[variable]]), whole[[variable]])
    part = {dim: data.draw(ranges(lazy.sizes[dim])) for dim in ("y", "x")}
    assert_same_bits(compute(lazy.ccd.cutout(**part)), whole.isel(part))
    assert_same_bits(compute(lazy.isel(part)), whole.isel(part))


@pytest.mark.parametrize("name", OPERATIONS)
def test_strips_do_not_change_bits(name: str) -> None:
    """Tasks that work in strips of rows give the bits of tasks that do not."""
    more: dict[str, Any] = {"low": -20.0, "holes": 999, "mask": name != "overscan of a part"}
    whole = compute(OPERATIONS[name](formula_frame(TALL, **more)))
    assert_same_bits(compute(OPERATIONS[name](formula_frame(TALL, (180, 811), **more))), whole)
    assert_same_bits(compute(OPERATIONS[name](formula_frame(TALL, (719, 97), **more))), whole)


@pytest.mark.parametrize("name", ["flat", "process", "overscan model", "less its box"])
@settings(max_examples=8)
@given(problem=problems(), data=st.data())
def test_dask_arrays_give_the_bits_of_files(
    name: str, problem: tuple[tuple[int, int], Any, dict[str, Any]], data: st.DataObject
) -> None:
    """Frames of dask arrays, each variable chunked differently, equal frames of storage."""
    shape, _, more = problem
    whole = compute(OPERATIONS[name](formula_frame(shape, **more)))
    frame = formula_frame(shape, **more)
    variables = {}
    for variable, array in compute(frame).data_vars.items():
        chunks = data.draw(partitions(shape[0])), data.draw(partitions(shape[1]))
        variables[variable] = (("y", "x"), da.from_array(array.values, chunks), frame[variable].attrs)
    given = frame.assign(variables)
    actual = compute(OPERATIONS[name](given))
    for variable in whole.data_vars:
        # The root that made the std and the square that unmakes it round.
        rtol = (1e-6 if more["dtype"] == np.float32 else 1e-14) if variable == "uncertainty" else 0.0
        np.testing.assert_allclose(actual[variable].values, whole[variable].values, rtol=rtol, err_msg=str(variable))
