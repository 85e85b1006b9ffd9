"""Frames that users edit with xarray's own tools give right results, or an error that says what to do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy import units as u

import lazyccd
from lazyccd.errors import ArgumentTypeError, FrameError, ShapeError, UnitError
from lazyccd.frame.core import resolve
from lazyccd.plan.steps import Chunked, walk
from lazyccd.testing.asserts import assert_frames_equal
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (30, 40)
BAD, SAT = 1, 2


def frame(**more: Any) -> xr.Dataset:
    """Return a frame after an operation, so that its variables come from one plan."""
    out: xr.Dataset = lazyccd.multiply(formula_frame(SHAPE, (8, 15), low=1.0, **more), 2.0)
    return out


def after(ds: xr.Dataset) -> xr.Dataset:
    """Apply operations, one of which needs neighboring pixels."""
    return box_filter(lazyccd.add(ds, 5.0 * u.adu), 1)


def rebuilt(ds: xr.Dataset) -> xr.Dataset:
    """Return a frame of NumPy arrays, without a plan."""
    variables = {name: (v.dims, v.values.copy(), dict(v.attrs)) for name, v in ds.data_vars.items()}
    coords = xr.Coordinates({d: (d, ds[d].values) for d in ("y", "x")}, indexes={})
    return xr.Dataset(variables, coords, dict(ds.attrs))


def assert_as_numbers(ds: xr.Dataset, rtol: float = 1e-6) -> None:
    """Assert that operations on a frame give what they give on its computed values."""
    assert_frames_equal(after(ds), after(rebuilt(ds)), rtol=rtol)


def reads_arrays(ds: xr.Dataset) -> bool:
    """Return whether the plan of a frame reads dask arrays."""
    return any(isinstance(step, Chunked) for step in walk(resolve(ds).plan))


def with_data_doubled(ds: xr.Dataset) -> xr.Dataset:
    """Multiply the data in place."""
    ds = ds.copy()
    ds["data"] *= 2
    return ds


def with_type(ds: xr.Dataset, kind: str) -> xr.Dataset:
    """Edit the type of the uncertainty, and its units."""
    ds = ds.copy()
    ds["uncertainty"].attrs |= {"uncertainty_type": kind, "units": {"std": "adu", "var": "adu2", "ivar": "adu-2"}[kind]}
    return ds


CHANGES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "data doubled in place": with_data_doubled,
    "data of another frame": lambda ds: ds.assign(data=frame(seed=7)["data"]),
    "data of NumPy": lambda ds: ds.assign(data=(("y", "x"), np.arange(1200.0).reshape(SHAPE), ds["data"].attrs)),
    "data of integers": lambda ds: ds.assign(data=(("y", "x"), np.arange(1200).reshape(SHAPE), ds["data"].attrs)),
    "mask of NumPy": lambda ds: ds.assign(mask=(("y", "x"), np.full(SHAPE, SAT, np.uint16), ds["mask"].attrs)),
    "mask of booleans": lambda ds: ds.assign(mask=ds["data"] > 900),
    "mask of 64 bits": lambda ds: ds.assign(mask=ds["mask"].astype(np.int64)),
    "mask with bits added": lambda ds: ds.assign(mask=ds["mask"] | SAT),
    "mask of another frame": lambda ds: ds.assign(mask=frame(seed=7)["mask"]),
    "mask made of a product": lambda ds: ds.assign(mask=(ds["data"] > 900).astype(np.uint16) * SAT),
    "mask where the data are low": lambda ds: ds.assign(mask=ds["mask"].where(ds["data"] > 300, BAD)),
    "uncertainty dropped": lambda ds: ds.drop_vars("uncertainty"),
    "mask dropped": lambda ds: ds.drop_vars("mask"),
    "uncertainty and mask dropped": lambda ds: ds[["data"]],
    "uncertainty doubled": lambda ds: ds.assign(uncertainty=ds["uncertainty"] * 2),
    "uncertainty of the data": lambda ds: ds.assign(
        uncertainty=ds["data"].assign_attrs(uncertainty_type="std", units="adu")
    ),
    "type edited to var": lambda ds: with_type(ds, "var"),
    "type edited to ivar": lambda ds: with_type(ds, "ivar"),
    "loaded": lambda ds: ds.copy().load(),
    "computed": lambda ds: ds.compute(),
    "persisted": lambda ds: ds.persist(scheduler="sync"),
    "one variable loaded": lambda ds: ds.assign(mask=ds["mask"].compute()),
    "one variable persisted": lambda ds: ds.assign(uncertainty=ds["uncertainty"].persist(scheduler="sync")),
    "sliced": lambda ds: ds.isel(y=slice(3, 20), x=slice(None, None, -2)),
    "picked": lambda ds: ds.isel(y=[3, 1, 7]),
    "sliced and persisted": lambda ds: ds.isel(y=slice(3, 20)).persist(scheduler="sync"),
    "chunked by xarray": lambda ds: ds.chunk({"y": 7, "x": 40}),
    "shallow copy": lambda ds: ds.copy(),
    "deep copy": lambda ds: copy.deepcopy(ds),
    "pickled": lambda ds: pickle.loads(pickle.dumps(ds)),
    "pickled after loading": lambda ds: pickle.loads(pickle.dumps(ds.compute())),
    "data and uncertainty where": lambda ds: ds.assign(
        {name: ds[name].where(ds["data"] > 900) for name in ("data", "uncertainty")}
    ),
    "where with a number": lambda ds: ds.where(ds["data"] > 900, 0),
    "concatenated": lambda ds: xr.concat([ds, ds.isel(y=slice(0, 4))], dim="y"),
    "without coordinates": lambda ds: ds.drop_vars(["y", "x"]),
    "with a variable of one's own": lambda ds: ds.assign(temperature=3.0),
    "big-endian": lambda ds: ds.assign(data=ds["data"].compute().astype(">f4")),
    "Fortran order": lambda ds: ds.assign(data=(("y", "x"), np.asfortranarray(ds["data"].values), ds["data"].attrs)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", ["std", "var"])
def test_changed_frames_give_what_their_numbers_give(name: str, kind: Any) -> None:
    """Operations on an edited frame use exactly the values of its variables."""
    ds = frame()
    if kind == "var":
        ds = lazyccd.with_uncertainty(ds, ds["data"] + 1, "var")
    before = ds.compute()
    assert_as_numbers(CHANGES[name](ds))
    assert_frames_equal(ds, before)


@pytest.mark.parametrize("name", ["uncertainty dropped", "mask dropped", "shallow copy", "deep copy", "pickled"])
def test_plans_that_survive(name: str) -> None:
    """Copies of a frame, and frames without one of its variables, extend the plan."""
    assert not reads_arrays(CHANGES[name](frame()))


@pytest.mark.parametrize(
    "name", ["data doubled in place", "sliced", "persisted", "mask with bits added", "type edited to var"]
)
def test_plans_that_end(name: str) -> None:
    """A changed variable is read as a dask array."""
    assert reads_arrays(CHANGES[name](frame()))


def test_cutout_and_rechunk_keep_the_plan() -> None:
    """The accessor's ways to cut and rechunk extend the plan, and change no bit."""
    ds = frame()
    assert not reads_arrays(ds.ccd.cutout(y=slice(3, 20), x=slice(1, 9)))
    assert not reads_arrays(ds.ccd.rechunk((5, 40)))
    assert ds.ccd.rechunk((5, 40)).chunks == {"y": (5,) * 6, "x": (40,)}
    assert_frames_equal(ds.ccd.rechunk((5, 40)), ds)
    assert_frames_equal(after(ds).ccd.cutout(y=slice(3, 20)), after(ds).isel(y=slice(3, 20)))


def test_data_doubled_leaves_the_rest() -> None:
    """After ``ds["data"] *= 2`` the data are doubled; uncertainty and mask are unchanged."""
    ds = with_data_doubled(frame())
    result = lazyccd.add(ds, 0.0 * u.adu)
    np.testing.assert_array_equal(result["data"].values, 2 * frame()["data"].values)
    np.testing.assert_array_equal(result["mask"].values, frame()["mask"].values)
    np.testing.assert_allclose(result["uncertainty"].values, frame()["uncertainty"].values, rtol=1e-6)


@pytest.mark.parametrize(
    "arithmetic",
    [
        lambda ds: ds * 0.1,
        lambda ds: ds / 2,
        lambda ds: ds.where(ds["data"] > 3),
        lambda ds: ds.shift(y=1),
        lambda ds: ds.astype(float),
        lambda ds: np.sqrt(ds),
        lambda ds: ds.compute() * 0.5,
        lambda ds: ds * 2,
        lambda ds: ds - ds,
        lambda ds: 1 + ds,
        lambda ds: -ds,
        lambda ds: ds**2,
        lambda ds: ds.isel(y=slice(0, 5)) * 2,
        lambda ds: ds.persist(scheduler="sync") - ds,
    ],
)
def test_arithmetic_on_whole_frames_is_refused(arithmetic: Callable[[xr.Dataset], xr.Dataset]) -> None:
    """The next operation refuses a mask that xarray's arithmetic changed, and names the function to use."""
    ds = arithmetic(frame())
    with pytest.raises(FrameError, match=r"mask of the frame .* use add, subtract, multiply or divide"):
        lazyccd.gain_correct(ds, 2.0)
    with pytest.raises(FrameError, match=r"mask of the operand .* use add, subtract, multiply or divide"):
        lazyccd.subtract(frame(), ds)


def test_operations_in_place_of_arithmetic() -> None:
    """The functions that the message names propagate uncertainties and masks."""
    ds = lazyccd.subtract(frame(), frame(seed=3))
    variance = frame()["uncertainty"].values ** 2 + frame(seed=3)["uncertainty"].values ** 2
    np.testing.assert_allclose(ds["uncertainty"].values, np.sqrt(variance), rtol=1e-6)
    np.testing.assert_array_equal(ds["mask"].values, frame()["mask"].values | frame(seed=3)["mask"].values)


def test_bits_that_no_plane_names() -> None:
    """A mask raises when it is computed if it has a bit beyond its planes, or one that its dtype cannot hold."""
    for values in (np.full(SHAPE, 256, np.uint16), np.full(SHAPE, 2**16, np.int64), np.full(SHAPE, -1, np.int8)):
        ds = lazyccd.add(frame().assign(mask=(("y", "x"), values)), 0.0 * u.adu)
        with pytest.raises(FrameError, match=r"bits .*, which no plane names"):
            ds["mask"].compute()


def test_planes_of_ones_own() -> None:
    """The bits of an added plane are kept and count as bad."""
    ds = lazyccd.add_mask(frame(), np.eye(*SHAPE), "GHOST", "Optical ghost")
    ds = ds.assign(mask=ds["mask"] | 256)
    assert bool(lazyccd.add(ds, 0.0 * u.adu).ccd.bad.all())


@pytest.mark.parametrize("target", ["data", "uncertainty"])
def test_units_that_contradict_each_other(target: str) -> None:
    """An edited unit of one variable is refused; `with_unit` sets the units of both."""
    ds = frame().copy()
    ds[target].attrs["units"] = "electron"
    with pytest.raises(
        UnitError, match=r"uncertainty \(std\) of the frame has units .* set the units of both by with_unit"
    ):
        lazyccd.flag_saturated(ds, 3)
    fixed = lazyccd.with_unit(ds, "electron")
    assert {fixed[name].attrs["units"] for name in ("data", "uncertainty")} == {"electron"}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            lambda ds: ds.isel(y=0),
            FrameError,
            r"variable 'data' of the frame has dims \('x',\) and must have \('y', 'x'\)",
        ),
        (lambda ds: ds.transpose("x", "y"), FrameError, "transpose"),
        (lambda ds: ds.drop_vars("data"), FrameError, "must have 'data'"),
        (lambda ds: ds.assign(data=ds["data"].astype(complex)), FrameError, "complex128 cannot be reduced"),
        (lambda ds: with_kind(ds, "sigma"), FrameError, "'sigma' of the frame must be 'std', 'var' or 'ivar'"),
        (lambda ds: ds.assign(data=ds["data"].astype("datetime64[s]")), FrameError, "cannot be reduced"),
        (lambda ds: unknown_chunks(ds), FrameError, "chunks of unknown size"),
    ],
)
def test_what_is_no_frame_any_more(
    change: Callable[[xr.Dataset], xr.Dataset], error: type[Exception], match: str
) -> None:
    """The next operation refuses a Dataset that an edit made an invalid frame."""
    with pytest.raises(error, match=match):
        lazyccd.gain_correct(change(frame()), 2.0)


def with_kind(ds: xr.Dataset, kind: str) -> xr.Dataset:
    """Edit only the type of the uncertainty."""
    ds = ds.copy()
    ds["uncertainty"].attrs["uncertainty_type"] = kind
    return ds


def unknown_chunks(ds: xr.Dataset) -> xr.Dataset:
    """Return data with chunks of unknown size."""
    array = ds["data"].data + 0
    unknown = da.Array(array.dask, array.name, ((np.nan,) * 4, array.chunks[1]), meta=array._meta)
    return xr.Dataset({"data": (("y", "x"), unknown)}).drop_vars(["y", "x"], errors="ignore")


@pytest.mark.parametrize("shape", [(40,), (3, 30, 40), (40, 30), (30, 1)])
def test_arrays_of_other_shapes(shape: tuple[int, ...]) -> None:
    """Masks and uncertainties of another shape are refused, with both shapes in the message."""
    for operation in (lazyccd.add_mask, lazyccd.with_mask, lazyccd.with_uncertainty):
        with pytest.raises(ShapeError, match=rf"shape \({shape[0]},.* does not match the image shape \(30, 40\)"):
            operation(frame(), np.ones(shape))


def test_a_mask_is_replaced() -> None:
    """`with_mask` takes booleans as BAD, and integers as bits of the frame's or of new planes; nothing of the old mask stays."""
    ds = lazyccd.add_mask(frame(), np.eye(*SHAPE), "GHOST", "Optical ghost")
    assert (ds["mask"].values & 2).any()
    rows = np.zeros(SHAPE, bool)
    rows[3] = True
    for given in (rows, rows.tolist(), xr.DataArray(rows.T, dims=("x", "y")), da.from_array(rows, chunks=7)):
        replaced = lazyccd.with_mask(ds, given)
        np.testing.assert_array_equal(replaced["mask"].values, rows)
        assert replaced["mask"].attrs == ds["mask"].attrs  # GHOST is still a plane that can be set
    bits = lazyccd.with_mask(ds, np.where(rows, 256 + 4, 0))
    np.testing.assert_array_equal(bits.ccd.is_flagged("GHOST").values & bits.ccd.is_flagged("CR").values, rows)
    own = xr.DataArray(np.where(rows, 2, 0), dims=("y", "x"), attrs={"flag_masks": [2], "flag_meanings": "TRAIL"})
    named = lazyccd.with_mask(ds, own)
    np.testing.assert_array_equal(named.ccd.is_flagged("TRAIL").values, rows)
    assert "GHOST" not in named["mask"].attrs["flag_meanings"]
    np.testing.assert_array_equal(named["data"].values, ds["data"].values)
    np.testing.assert_array_equal(named["uncertainty"].values, ds["uncertainty"].values)
    assert "mask" not in lazyccd.with_mask(ds, None)
    np.testing.assert_array_equal(lazyccd.with_mask(lazyccd.with_mask(ds, None), rows)["mask"].values, rows)
    with pytest.raises(ArgumentTypeError, match=r"dtype float64 and must be boolean or integer; compare it first"):
        lazyccd.with_mask(ds, np.eye(*SHAPE))
    with pytest.raises(FrameError, match="bits 512, which no plane names"):
        lazyccd.with_mask(ds, np.full(SHAPE, 512)).compute(scheduler="sync")


def test_transposed_arrays_with_dims() -> None:
    """A DataArray with dimensions x, y is transposed."""
    ds = frame()
    turned = lazyccd.with_uncertainty(ds, ds["uncertainty"].transpose("x", "y"))
    np.testing.assert_allclose(turned["uncertainty"].values, ds["uncertainty"].values, rtol=1e-6)
    marked = lazyccd.add_mask(ds, (ds["data"] > 900).transpose("x", "y"), "GHOST")
    np.testing.assert_array_equal(marked.ccd.is_flagged("GHOST").values, ds["data"].values > 900)
