"""Attributes, variables and coordinates of a Dataset are kept, converted or refused by name; nothing is left of a failure."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData
from astropy.time import Time

import lazyccd
from lazyccd.errors import FrameError

KEPT: dict[str, tuple[Any, Any]] = {
    "float32": (np.float32(1.5), 1.5),
    "int16": (np.int16(-3), -3),
    "bool": (np.bool_(True), True),
    "string of NumPy": (np.str_("V"), "V"),
    "array": (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    "array without axes": (np.array(2.5), 2.5),
    "array of strings": (np.array(["a", "b"]), ["a", "b"]),
    "date": (datetime.date(2024, 3, 1), "2024-03-01"),
    "time": (datetime.datetime(2024, 3, 1, 20, 15, tzinfo=datetime.UTC), "2024-03-01T20:15:00+00:00"),
    "datetime64": (np.datetime64("2024-03-01T20:15:00.123456789"), "2024-03-01T20:15:00.123456789"),
    "array of datetime64": (np.array(["2024-03-01"], "M8[ns]"), ["2024-03-01T00:00:00.000000000"]),
    "path": (PurePosixPath("/data/a.fits"), "/data/a.fits"),
    "nested": ({"a": (np.float64(1), [np.int8(2)]), "b": None}, {"a": [1.0, [2]], "b": None}),
    "none": (None, None),
}

REFUSED: dict[str, Any] = {
    "bytes": b"abc",
    "bytes of NumPy": np.bytes_(b"abc"),
    "set": {1, 2},
    "complex": 1 + 2j,
    "complex array": np.array([1j]),
    "nan": float("nan"),
    "infinity of NumPy": np.float32(np.inf),
    "array with nan": np.array([1.0, np.nan]),
    "nested nan": {"a": [1.0, float("nan")]},
    "no time": np.datetime64("NaT"),
    "span": np.timedelta64(3, "s"),
    "long double": np.longdouble(1),
    "masked": np.ma.masked_array([1, 2], [True, False]),
    "quantity": 3 * u.s,
    "time of astropy": Time("2024-03-01"),
    "decimal": Decimal("0.1"),
    "object": object(),
    "objects": np.array([object()]),
    "keys": {1: 2},
}


def frame() -> xr.Dataset:
    """Return a frame with uncertainty."""
    return lazyccd.from_ccddata(CCDData(np.ones((4, 5)), unit="adu", mask=np.eye(4, 5, dtype=bool)))


def to_store(ds: xr.Dataset, folder: Path, **more: Any) -> xr.Dataset:
    """Write a frame and open it."""
    opened = lazyccd.open_zarr(lazyccd.to_zarr(ds, folder / "a.zarr", **more))
    assert isinstance(opened, xr.Dataset)
    return opened


@pytest.mark.parametrize("case", KEPT)
def test_what_json_can_mean_is_kept(case: str, tmp_path: Path) -> None:
    """Of the frame, of a variable and of a coordinate; any reader of JSON understands the store."""
    value, expected = KEPT[case]
    ds = frame().assign_attrs(mine=value)
    ds["data"].attrs["mine"] = value
    ds["x"].attrs["mine"] = value
    opened = to_store(ds, tmp_path)
    for attrs in (opened.attrs, opened["data"].attrs, opened["x"].attrs):
        assert attrs["mine"] == expected
        assert type(attrs["mine"]) is type(expected)
    for path in tmp_path.rglob("zarr.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert ds.attrs["mine"] is value, "the input was changed"


PLACES: dict[str, Callable[[xr.Dataset, Any], Any]] = {
    "frame": lambda ds, value: ds.attrs.update(mine=value),
    "variable 'data'": lambda ds, value: ds["data"].attrs.update(mine=value),
    "variable 'mask'": lambda ds, value: ds["mask"].attrs.update(mine=value),
    "variable 'y'": lambda ds, value: ds["y"].attrs.update(mine=value),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("place", PLACES)
def test_what_json_cannot_mean_is_refused(case: str, place: str, tmp_path: Path) -> None:
    """Before anything is written, by its name and place, and the same name can be written after that."""
    ds = frame()
    PLACES[place](ds, REFUSED[case])
    for overwrite in (False, True):
        with pytest.raises(FrameError, match=f"'mine' of the {place}"):
            to_store(ds, tmp_path, overwrite=overwrite)
        assert os.listdir(tmp_path) == []
    to_store(frame(), tmp_path)


def test_names_must_be_strings(tmp_path: Path) -> None:
    """Another name would come back as a string."""
    with pytest.raises(FrameError, match="attribute 3 of the frame has a int as its name"):
        to_store(frame().assign_attrs({3: 1}), tmp_path)


def test_attributes_of_trees(tmp_path: Path) -> None:
    """Of the root and of the frames."""
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"night": np.int64(3)}), "/a": frame().assign_attrs(gain=np.float32(2))}
    )
    opened = lazyccd.open_zarr(lazyccd.to_zarr(tree, tmp_path / "t.zarr"))
    assert (opened.attrs["night"], opened["a"].attrs["gain"]) == (3, 2.0)
    for node in (tree, tree["a"]):
        node.attrs["odd"] = {1j}
        with pytest.raises(FrameError, match=r"'odd' of the (tree|frame)"):
            lazyccd.to_zarr(tree, tmp_path / "u.zarr")
        del node.attrs["odd"]
    assert os.listdir(tmp_path) == ["t.zarr"]


MORE: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "scalar": lambda ds: ds.assign_coords(airmass=1.2),
    "along y": lambda ds: ds.assign_coords(line=("y", np.arange(4.0))),
    "plane": lambda ds: ds.assign(sky=(("y", "x"), np.ones((4, 5)))),
    "lazy plane": lambda ds: ds.assign(sky=ds["data"] * 2),
    "other dim": lambda ds: ds.assign(spectrum=("wave", np.ones(7))),
    "string": lambda ds: ds.assign_coords(observer="me"),
}


@pytest.mark.parametrize("case", MORE)
@pytest.mark.parametrize("write", [lazyccd.to_zarr, lazyccd.to_fits])
def test_no_variable_is_lost(case: str, write: Callable[..., Any], tmp_path: Path) -> None:
    """Variables and coordinates that are no part of a frame are named, with the way out, which works."""
    ds = MORE[case](frame())
    (name,) = set(ds.variables) - set(frame().variables)
    tree = xr.DataTree.from_dict({"/a": ds})
    beside = xr.DataTree.from_dict({"/a": frame(), "/b": xr.Dataset({"table": ("row", np.arange(3))})})
    for product, words in ((ds, f"the frame has '{name}'"), (tree, f"'a' has '{name}'"), (beside, "'b' has 'table'")):
        with pytest.raises(FrameError, match=rf"{words}.*drop_vars\("):
            write(product, tmp_path / "a")
    assert os.listdir(tmp_path) == []
    write(ds.drop_vars([name]), tmp_path / "a")


@pytest.mark.parametrize("fail", ["add_group", "create"])
def test_overwrite_clears_what_a_failure_left(fail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose laying out failed for any reason stands in nobody's way."""
    from lazyccd.io.zarr.writer import ZarrTarget

    original = getattr(ZarrTarget, fail)

    def failing(self: ZarrTarget, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(ZarrTarget, fail, failing)
        with pytest.raises(RuntimeError, match="the power is gone"):
            to_store(frame(), tmp_path)
    assert float(to_store(frame(), tmp_path, overwrite=True)["data"].sum()) == 20
