"""Types of operations: mypy reads this file beside the package, and pytest runs it.

`assert_type` fails in mypy if a type is lost. A ``type: ignore`` that is not needed is an error there too, so each of them
holds that mypy refuses the line.
"""

from __future__ import annotations

import inspect
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd import ops
from lazyccd.accessor import NOT_METHODS
from lazyccd.frame.tree import make_tree
from lazyccd.testing.steps import formula_frame

Array = npt.NDArray[Any]


def frame() -> xr.Dataset:
    """Return a lazy frame."""
    return formula_frame((12, 15), (5, 15), low=1.0)


def test_a_frame_stays_a_frame() -> None:
    """So that calls can be chained, with what editors know about a Dataset."""
    ds = lazyccd.with_header(frame(), TRIMSEC="[1:9,1:8]")
    assert isinstance(assert_type(lazyccd.gain_correct(ds, 2 * u.electron / u.adu), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.subtract_bias(ds, frame()), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.multiply(ds, 2), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.median_filter(ds, 3, add_keyword=False), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.transform_image(ds, np.roll, 0, shift=1), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.trim_image(ds, lazyccd.Keyword("TRIMSEC")), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.ccdmask(ds), xr.DataArray), xr.DataArray)


def test_a_tree_stays_a_tree() -> None:
    """With one argument for all frames, or a mapping or tree that has one for each."""
    tree = make_tree({"a": frame(), "b": frame()}, {})
    assert isinstance(assert_type(lazyccd.gain_correct(tree, 2 * u.electron / u.adu), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.multiply(tree, {"a": 1, "b": 2}), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.median_filter(tree, 3), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.ccdmask(tree), xr.DataTree), xr.DataTree)


def test_ccddata_and_arrays() -> None:
    """CCDData is computed; arrays give arrays where the operation takes them."""
    pixels = np.random.default_rng(0).normal(1.0, 0.1, (12, 15))
    ccd: CCDData = lazyccd.multiply(CCDData(pixels, unit="adu"), 2)
    assert isinstance(ccd, CCDData)
    assert isinstance(assert_type(lazyccd.median_filter(pixels, 3), Array), np.ndarray)
    clean, rays = assert_type(lazyccd.cosmicray_median(pixels, 0.1), tuple[Array, Array])
    assert clean.shape == rays.shape == pixels.shape
    assert isinstance(assert_type(lazyccd.ccdmask(pixels), Array), np.ndarray)


def test_functions_of_frames_and_trees() -> None:
    """What is not logged: a tree where the result is pixels, else a value for each frame by name."""
    ds = frame()
    tree = make_tree({"a": ds, "b": ds}, {})
    assert isinstance(assert_type(lazyccd.rechunk(ds, 5), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.rechunk(tree, 5), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.with_header(ds, OBJECT="M 1"), xr.Dataset), xr.Dataset)
    assert isinstance(assert_type(lazyccd.is_flagged(ds, "SAT", "CR"), xr.DataArray), xr.DataArray)
    assert isinstance(assert_type(lazyccd.is_flagged(tree), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.stats.median(tree), xr.DataTree), xr.DataTree)
    assert isinstance(assert_type(lazyccd.split_amplifiers(ds, {"A": "[1:9,*]"}), xr.DataTree), xr.DataTree)
    images: dict[str, CCDData] = lazyccd.to_ccddata(tree)
    assert list(images) == ["a", "b"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'sizes'"):
        lazyccd.rechunk(ds, sizes=5)  # type: ignore[call-overload]


def test_wrong_arguments() -> None:
    """Mypy names the operation; Python names the argument."""
    ds = frame()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'master'"):
        lazyccd.subtract_bias(ds)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        lazyccd.subtract_bias(ds, ds, colour="red")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        lazyccd.subtract_bias(ds, ds, False)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'add_keyword'"):
        lazyccd.add(ds, 1 * u.adu, add_keyword=False)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="fits_section 3 must be a string"):
        lazyccd.trim_image(ds, 3)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", sorted(set(ops.__all__) - NOT_METHODS))
def test_signatures_are_those_of_the_functions(name: str) -> None:
    """`inspect`, and so help, Tab and `?`, show all parameters with their names, types and defaults."""
    function = getattr(lazyccd, name)
    signature = inspect.signature(function)
    assert signature == inspect.signature(inspect.unwrap(function))
    assert not any(p.annotation is inspect.Parameter.empty for p in signature.parameters.values())
    assert function.__doc__.count("add_keyword\n") == ("add_keyword" in signature.parameters)


def test_one_signature_in_full() -> None:
    """What `inspect` shows."""
    shown = "(ccd: 'xr.Dataset', master: 'Master', *, add_keyword: 'LogEntry' = True) -> 'xr.Dataset'"
    assert str(inspect.signature(lazyccd.subtract_bias)) == shown
