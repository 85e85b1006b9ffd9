"""Frames: what is read from a Dataset, and what a Dataset is made of."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FrameError, ShapeError
from lazyccd.frame.convert import to_mask
from lazyccd.frame.core import (
    Image,
    as_step,
    float_dtype,
    make_image,
    resolve,
    wrap_array,
)
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import cut_sizes, regular_grid
from lazyccd.plan.steps import Join, Source
from lazyccd.testing.asserts import assert_frames_equal
from lazyccd.testing.steps import FormulaStorage, formula_frame

SHAPE = (12, 18)


def dataset(**variables: Any) -> xr.Dataset:
    """Return a Dataset of arrays along y and x."""
    return xr.Dataset({name: (("y", "x"), *(v if isinstance(v, tuple) else (v,))) for name, v in variables.items()})


def test_a_frame_has_dims_variables_and_attributes() -> None:
    """A frame is a Dataset as documented: dims, dtypes, units, CF flags, pixel coordinates without an index."""
    ds = formula_frame(SHAPE, (5, 7), units=u.electron, header="OBJECT  = 'M 1'")
    assert ds["data"].dims == ("y", "x")
    assert {name: v.dtype.name for name, v in ds.data_vars.items()} == {
        "data": "float32",
        "uncertainty": "float32",
        "mask": "uint16",
    }
    assert ds["data"].attrs == {"units": "electron"}
    assert ds["uncertainty"].attrs == {"units": "electron", "uncertainty_type": "std"}
    assert ds["mask"].attrs["flag_meanings"].split()[:4] == ["BAD", "SAT", "CR", "NO_DATA"]
    assert ds["mask"].attrs["flag_masks"][:4] == [1, 2, 4, 8]
    assert not ds.indexes
    np.testing.assert_array_equal(ds["x"].values, np.arange(18))
    assert ds.attrs == {"header": "OBJECT  = 'M 1'"}


def test_resolve_gives_back_what_to_dataset_took() -> None:
    """A frame that was made of an image is that image again: plan, chunks, units, header, planes, coordinates."""
    image = resolve(formula_frame(SHAPE, (5, 7), header="A       =                    1"))
    part = image.window((10, 3), (-2, 1), (5, 4))
    again = resolve(part.to_dataset())
    assert again.plan == part.plan
    assert (again.grid, again.units, again.header, again.schema) == (part.grid, part.units, part.header, part.schema)
    np.testing.assert_array_equal(again.y, [10, 8, 6, 4, 2])
    np.testing.assert_array_equal(again.x, [3, 4, 5, 6])


def test_variables_of_one_plan_need_no_join() -> None:
    """A frame as it came resolves to its own plan; one whose parts differ resolves to a join."""
    ds = lazyccd.multiply(formula_frame(SHAPE), 2.0)
    assert not isinstance(resolve(ds).plan, Join)
    assert isinstance(resolve(ds.drop_vars("mask")).plan, Join)
    data_only = make_image(Source.of(FormulaStorage(SHAPE)), units=u.adu, grid=regular_grid(SHAPE, SHAPE))
    assert isinstance(data_only.plan, Source)


def test_attributes_of_ones_own_are_kept() -> None:
    """Other attributes go through operations; the input keeps its own."""
    ds = formula_frame(SHAPE).assign_attrs(observer="me")
    out = lazyccd.add(ds, 1.0 * u.adu)
    assert out.attrs == {"header": "", "observer": "me"}
    assert ds.attrs == {"header": "", "observer": "me"}


@pytest.mark.parametrize(
    ("kind", "units", "values"),
    [("std", "adu", [3.0, 4.0]), ("var", "adu2", [9.0, 16.0]), ("ivar", "adu-2", [1 / 9, 1 / 16])],
)
def test_types_of_uncertainty(kind: Any, units: str, values: list[float]) -> None:
    """Each type comes out as it went in, with units that go with it, and is propagated alike."""
    ds = dataset(data=(np.ones((1, 2)), {"units": "adu"}))
    ds = lazyccd.with_uncertainty(ds, np.array([values]), kind)
    assert ds["uncertainty"].attrs == {"units": units, "uncertainty_type": kind}
    np.testing.assert_allclose(ds["uncertainty"].values, [values], rtol=1e-15)
    doubled = lazyccd.multiply(ds, 2.0)
    np.testing.assert_allclose(
        doubled["uncertainty"].values[0], np.array(values) * {"std": 2, "var": 4, "ivar": 0.25}[kind]
    )
    resolve(doubled)


@pytest.mark.parametrize("kind", ["std", "var", "ivar"])
def test_units_with_a_scale_keep_it(kind: Any) -> None:
    """Data in a third of a jansky, and an uncertainty of the power that goes with it, to the last bit of the scale."""
    ds = lazyccd.with_uncertainty(dataset(data=np.ones((1, 2))), np.ones((1, 2)), kind)
    scaled = lazyccd.with_unit(ds, u.Unit(1 / 3 * u.Jy))
    assert u.Unit(lazyccd.multiply(scaled, 2.0)["data"].attrs["units"]) == u.Unit(1 / 3 * u.Jy)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("u1", "f4"),
        ("i2", "f4"),
        (">u2", "f4"),
        ("f2", "f4"),
        ("f4", "f4"),
        (">f4", "f4"),
        ("i4", "f8"),
        ("i8", "f8"),
        ("f8", "f8"),
        (">f8", "f8"),
        ("?", "f4"),
    ],
)
def test_dtypes_in_which_numbers_are_reduced(given: str, expected: str) -> None:
    """Up to 16 bits give float32, more give float64, always in native byte order."""
    assert float_dtype(np.dtype(given)) == np.dtype(expected)
    values = np.arange(6).reshape(2, 3).astype(given)
    out = lazyccd.add(dataset(data=values), 0)
    np.testing.assert_array_equal(out["data"].values, values.astype(expected), strict=True)


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", "i4", "i8", ">u2"])
def test_masks_of_any_integers(dtype: str) -> None:
    """Boolean masks become BAD; integers keep their bits."""
    values = (np.arange(6).reshape(2, 3) % 4).astype(dtype)
    out = lazyccd.add(dataset(data=np.ones((2, 3)), mask=values), 0)
    np.testing.assert_array_equal(out["mask"].values, values.astype(np.uint16), strict=True)


def test_masks_of_many_planes_are_of_32_bits() -> None:
    """Seventeen planes do not fit into 16 bits; the bits stay."""
    ds = formula_frame(SHAPE, uncertainty=False)
    for k in range(9):
        ds = lazyccd.add_mask(ds, np.full(SHAPE, k == 8), f"OWN{k}")
    assert ds["mask"].dtype == np.uint32
    assert int(ds["mask"].values.min()) >= 1 << 16
    np.testing.assert_array_equal(ds["mask"].values & 255, formula_frame(SHAPE)["mask"].values)
    joined = lazyccd.add(formula_frame(SHAPE), ds)
    assert joined["mask"].dtype == np.uint32
    assert resolve(joined).schema.names[8:] == tuple(f"OWN{k}" for k in range(9))


def test_planes_are_matched_by_name() -> None:
    """Two frames with own planes in different order are joined by the names of their planes."""
    one = lazyccd.add_mask(formula_frame(SHAPE, mask=False), np.eye(*SHAPE), "GHOST")
    two = lazyccd.add_mask(formula_frame(SHAPE, mask=False), np.zeros(SHAPE), "TRAIL")
    two = lazyccd.add_mask(two, np.eye(*SHAPE, k=3), "GHOST")
    joined = lazyccd.add(one, two)
    np.testing.assert_array_equal(joined.ccd.is_flagged("GHOST").values, np.eye(*SHAPE) + np.eye(*SHAPE, k=3) > 0)
    assert not joined.ccd.is_flagged("TRAIL").values.any()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (np.ones(SHAPE), "is a ndarray and must be a frame"),
        (xr.Dataset({"flux": ("y", np.ones(3))}), r"has variables \['flux'\] and must have 'data'"),
        (dataset(data=np.ones(SHAPE)).rename(y="row"), r"has dims \('row', 'x'\) and must have \('y', 'x'\)"),
        (
            dataset(data=np.ones(SHAPE), mask=np.ones(SHAPE)),
            "mask of the frame has dtype float64 .* integer or boolean",
        ),
        (dataset(data=np.full(SHAPE, "a")), "dtype <U1 cannot be reduced"),
    ],
)
def test_what_is_no_frame(given: Any, match: str) -> None:
    """Everything that is not a frame is refused with what it is and what it must be."""
    with pytest.raises(FrameError, match=match):
        resolve(given)


def test_operands_are_named() -> None:
    """Messages about an operand name it."""
    with pytest.raises(ShapeError, match=r"master bias shape \(3, 18\) does not match the image shape \(12, 18\)"):
        lazyccd.subtract_bias(formula_frame(SHAPE), formula_frame((3, 18)))
    with pytest.raises(FrameError, match="mask of the flat has dtype float64"):
        lazyccd.flat_correct(formula_frame(SHAPE), dataset(data=np.ones(SHAPE), mask=np.ones(SHAPE)))


def test_arrays_of_chunks_that_are_not_known() -> None:
    """Arrays of other libraries, and dask arrays with chunks of unknown size, are refused."""
    array = da.ones((4, 4), chunks=2)
    with pytest.raises(FrameError, match="chunks of unknown size"):
        wrap_array(array[array[:, 0] > 0])
    with pytest.raises(FrameError, match=r"not a dask\.array\.Array"):
        wrap_array(xr.DataArray(array).to_dataset(name="a"))


def test_mask_of_floats_is_refused_by_name() -> None:
    """The message says what to do instead."""
    step, _ = as_step(np.ones(SHAPE), np.float64)
    with pytest.raises(FrameError, match=r"use add, subtract, multiply or divide, or with_mask\(array\)"):
        to_mask(step, MaskSchema().table, "dark")


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple),
    offset=st.integers(0, 44),
    step=st.sampled_from([-3, -2, -1, 1, 2, 3]),
    length=st.integers(1, 45),
)
def test_cut_sizes(sizes: tuple[int, ...], offset: int, step: int, length: int) -> None:
    """The chunks of a window are the runs of its pixels that lie in one chunk of the input."""
    total = sum(sizes)
    positions: npt.NDArray[Any] = offset % total + step * np.arange(length)
    positions = positions[(positions >= 0) & (positions < total)]
    number = np.repeat(np.arange(len(sizes)), sizes)[positions]
    runs = [len(run) for run in np.split(number, np.flatnonzero(np.diff(number)) + 1)]
    assert list(cut_sizes(sizes, offset % total, step, len(positions))) == runs


@pytest.mark.parametrize(
    ("shape", "chunk", "expected"),
    [((10, 20), (4, 50), ((4, 4, 2), (20,))), ((4, 4), (2, 4), ((2, 2), (4,))), ((1, 1), (9, 9), ((1,), (1,)))],
)
def test_regular_grid(shape: tuple[int, int], chunk: tuple[int, int], expected: Any) -> None:
    """Chunks are of one shape, the last ones smaller, and none is empty."""
    assert regular_grid(shape, chunk) == expected


def test_windows_of_windows_keep_the_truth() -> None:
    """Cuts, flips and steps one after the other keep pixels and their original positions together."""
    ds = formula_frame((40, 50), (7, 9))
    whole = ds.compute()
    part = lazyccd.trim_image(lazyccd.trim_image(ds, "[40:5:3,2:39]"), "[*,-*:2]").ccd.cutout(
        y=slice(2, 9), x=slice(1, 8)
    )
    for name in ds.data_vars:
        expected = whole[name].values[np.ix_(part["y"].values, part["x"].values)]
        np.testing.assert_array_equal(part[name].values, expected)
    y, x = int(part["y"][3]), int(part["x"][2])
    assert float(part.ccd.pixel(y, x)["data"]) == float(whole["data"][y, x])


def test_operations_leave_their_inputs() -> None:
    """Neither lazy nor loaded frames are changed by operations, and results own their memory."""
    lazy = formula_frame(SHAPE, (5, 7))
    loaded = lazy.compute()
    before = loaded.copy(deep=True)
    out = lazyccd.subtract(lazyccd.flag_saturated(loaded, 500), loaded).compute()
    same = lazyccd.with_unit(loaded, "electron").compute()
    for variable in (*out.data_vars.values(), *same.data_vars.values()):
        variable.values[...] = 0
    assert_frames_equal(loaded, before)


def test_images_number_their_pixels() -> None:
    """An image without coordinates counts from 0."""
    image = Image(Source.of(FormulaStorage((2, 3))), ((2,), (3,)), u.adu)
    assert image.y.tolist() == [0, 1]
    assert image.x.tolist() == [0, 1, 2]
