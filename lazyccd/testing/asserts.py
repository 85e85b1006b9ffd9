"""Asserts about frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import dask
import numpy as np
import xarray as xr


def assert_frames_equal(actual: xr.Dataset, expected: xr.Dataset, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Assert that two frames have the same variables, dtypes, attributes, coordinates and values.

    Parameters
    ----------
    actual, expected
        Frames; computed here. NaN equals NaN.
    rtol, atol
        Tolerances of data and uncertainty; masks must be equal.
    """
    assert set(actual.data_vars) == set(expected.data_vars), (set(actual.data_vars), set(expected.data_vars))
    assert actual.attrs == expected.attrs, (actual.attrs, expected.attrs)
    computed, wanted = actual.compute(), expected.compute()
    for name in wanted.data_vars:
        assert actual[name].attrs == expected[name].attrs, (name, actual[name].attrs, expected[name].attrs)
        assert computed[name].dtype == wanted[name].dtype, (name, computed[name].dtype, wanted[name].dtype)
        tolerances = (0.0, 0.0) if name == "mask" else (rtol, atol)
        np.testing.assert_allclose(computed[name].values, wanted[name].values, *tolerances, err_msg=str(name))
    for dim in ("y", "x"):
        np.testing.assert_array_equal(actual[dim].values, expected[dim].values, err_msg=dim)


@contextmanager
def raise_if_computes() -> Iterator[None]:
    """Raise if anything lazy is computed inside."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a lazy operation computed something")

    with dask.config.set(scheduler=refuse):
        yield
