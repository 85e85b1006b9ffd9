"""Assert that frames are equal, and that code computes nothing."""

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
        Tolerances of data and uncertainty; 0 asks for equal values. Masks must be equal.

    Raises
    ------
    AssertionError
        Raised if anything differs; the message names the variable and shows both.

    Examples
    --------
    >>> from lazyccd import rechunk
    >>> from lazyccd.testing.steps import formula_frame
    >>> ds = formula_frame((64, 48))
    >>> assert_frames_equal(rechunk(ds, (10, 7)), ds)
    """
    assert set(actual.data_vars) == set(expected.data_vars), (set(actual.data_vars), set(expected.data_vars))
    assert actual.attrs == expected.attrs, (actual.attrs, expected.attrs)
    computed, wanted = actual.compute(), expected.compute()
    for name in wanted.data_vars:
        assert actual[name].attrs == expected[name].attrs, (name, actual[name].attrs, expected[name].attrs)
        assert computed[name].dtype == wanted[name].dtype, (name, computed[name].dtype, wanted[name].dtype)
        # bits have no tolerance: 8 and 9 are close as numbers, and different planes
        tolerances = (0.0, 0.0) if name == "mask" else (rtol, atol)
        np.testing.assert_allclose(computed[name].values, wanted[name].values, *tolerances, err_msg=str(name))
    for dim in ("y", "x"):
        np.testing.assert_array_equal(actual[dim].values, expected[dim].values, err_msg=dim)


@contextmanager
def raise_if_computes() -> Iterator[None]:
    """Raise if anything lazy is computed inside.

    Raises
    ------
    AssertionError
        Raised by the line that computes.

    Examples
    --------
    >>> from lazyccd import multiply
    >>> from lazyccd.testing.steps import formula_frame
    >>> with raise_if_computes():
    ...     ds = multiply(formula_frame((64, 48)), 2.0)
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a lazy operation computed something")

    with dask.config.set(scheduler=refuse):
        yield
