"""The arithmetic behind the steps of `lazyccd.ccdproc`: astropy's numbers, by bands and threads."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from lazyccd.ccdproc.arithmetic import METHODS, Scaling, calculate, copied, copy_array, cut
from lazyccd.plan import threads

SMALL, LARGE = (30, 40), (300, 400)
"""Shapes below and above the size from which threads work here, and of one band and of several."""


def image(shape: tuple[int, ...], dtype: str, seed: int, uncertainty: Any = StdDevUncertainty, **more: Any) -> CCDData:
    """Return an image of noise, with a header and a mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(1, 100, shape).astype(dtype)
    sigma = None if uncertainty is None else uncertainty(rng.uniform(1, 3, shape).astype(dtype))
    given = {"unit": "adu", "mask": rng.random(shape) < 0.1, "meta": fits.Header({"EXPTIME": 3.0})} | more
    return CCDData(pixels, uncertainty=sigma, **given)


def assert_alike(result: CCDData, expected: CCDData, rtol: float) -> None:
    """Check data, uncertainty, mask, unit and class of two images."""
    assert type(result) is type(expected)
    np.testing.assert_allclose(result.data, expected.data, rtol=rtol)
    assert result.data.dtype == expected.data.dtype
    assert type(result.uncertainty) is type(expected.uncertainty)
    if expected.uncertainty is not None:
        np.testing.assert_allclose(result.uncertainty.array, expected.uncertainty.array, rtol=rtol)
        assert result.uncertainty.array.dtype == expected.uncertainty.array.dtype
        assert result.uncertainty.parent_nddata is result
    np.testing.assert_array_equal(result.mask, expected.mask)
    assert result.unit == expected.unit


@pytest.mark.parametrize("shape", [SMALL, LARGE, (7,), (3, 20, 30)])
@pytest.mark.parametrize("operation", list(METHODS))
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (StdDevUncertainty, StdDevUncertainty),
        (StdDevUncertainty, None),
        (None, StdDevUncertainty),
        (None, None),
        (VarianceUncertainty, VarianceUncertainty),
        (InverseVariance, None),
    ],
)
@pytest.mark.parametrize(("one", "other"), [("f4", "f4"), ("f8", "f4"), (">f4", "f8")])
def test_numbers_are_those_of_astropy(
    operation: np.ufunc, shape: tuple[int, ...], first: Any, second: Any, one: str, other: str, monkeypatch: Any
) -> None:
    """Each class of uncertainty, each dtype, below and above the size from which threads work."""
    monkeypatch.setattr(threads, "WORTH_PIXELS", np.prod(LARGE))
    a, b = image(shape, one, 1, first), image(shape, other, 2, second)
    expected = getattr(a, METHODS[operation])(b)
    result = calculate(operation, a, b)
    # the power of four of a quotient's variance is a product here
    assert_alike(result, expected, 1e-6 if "f4" in one + other else 1e-14)
    assert dict(result.meta) == {"EXPTIME": 3.0}
    assert result.meta is not a.meta


@pytest.mark.parametrize("number", [2, 1.5, np.float32(1.5), np.float64(1.5), 1.5 * u.electron / u.adu])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u2"])
def test_numbers_as_operands(number: Any, dtype: str) -> None:
    """A number of Python's keeps float32, one of NumPy's does not."""
    a = image(SMALL, dtype, 1, None if dtype == "u2" else StdDevUncertainty)
    assert_alike(calculate(np.multiply, a, number), a.multiply(number), 1e-6 if dtype == "f4" else 1e-14)


def test_what_is_not_simple_is_handed_to_astropy() -> None:
    """Other units, broadcast operands, integers with uncertainties, classes of the user."""

    class Mine(CCDData):  # type: ignore[misc]
        """A class of a user."""

    a = image(SMALL, "f8", 1, unit="m")
    for other in (image(SMALL, "f8", 2, unit="cm"), image((1, 40), "f8", 2, unit="m", mask=None, uncertainty=None)):
        assert_alike(calculate(np.subtract, a, other), a.subtract(other), 1e-14)
    whole = image(SMALL, "i4", 3)
    assert_alike(calculate(np.multiply, whole, whole), whole.multiply(whole), 1e-14)
    mine = Mine(a)
    assert type(calculate(np.subtract, mine, a)) is Mine
    assert type(copied(mine, data=a.data)) is Mine
    with pytest.raises(u.UnitConversionError):
        calculate(np.subtract, a, image(SMALL, "f8", 2))


@pytest.mark.parametrize("uncertainty", [StdDevUncertainty, VarianceUncertainty])
def test_an_operand_is_scaled_alike_in_both_ways(uncertainty: Any) -> None:
    """Scaled array by array, or as an image by astropy."""
    a, flat = image(SMALL, "f8", 1, uncertainty), image(SMALL, "f8", 2, uncertainty)
    scaling = Scaling(np.true_divide, 40.0 * u.adu, least=5.0, masked=1.0)
    clipped = np.where(flat.data < 5.0, 5.0, flat.data)
    normalised = copied(flat, data=clipped).divide(40.0 * u.adu)
    normalised.data[flat.mask] = 1.0
    before = flat.data.copy()
    assert_alike(calculate(np.true_divide, a, flat, scaling), a.divide(normalised), 1e-12)
    np.testing.assert_array_equal(flat.data, before)


def test_parts_of_a_copy_are_new() -> None:
    """Nothing of a copy or a cut is shared with the image."""
    wcs = WCS(naxis=2)
    a = image(SMALL, "f4", 1, wcs=wcs)
    for result in (copied(a), cut(a, (slice(0, None), slice(0, None)))):
        assert_alike(result, a, 0)
        for part in ("data", "mask"):
            assert not np.shares_memory(getattr(result, part), getattr(a, part))
        assert not np.shares_memory(result.uncertainty.array, a.uncertainty.array)
        assert result.wcs is not wcs
        result.meta["EXPTIME"] = 5.0
        assert a.meta["EXPTIME"] == 3.0
        assert a.uncertainty.parent_nddata is a


def test_threads_keep_the_callers_way_with_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`numpy.errstate` of the caller holds for all bands; without it NumPy warns as ever."""
    a = CCDData(np.ones(LARGE), unit="")
    zero = CCDData(np.zeros(LARGE), unit="")
    monkeypatch.setattr(threads, "WORTH_PIXELS", 1)
    with np.errstate(divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(calculate(np.true_divide, a, zero).data).all()
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        calculate(np.true_divide, a, zero)


@pytest.mark.parametrize("shape", [(), (0, 4), SMALL, LARGE])
def test_copies_of_arrays(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies have the same values and dtype, and the order of axes in memory."""
    monkeypatch.setattr(threads, "WORTH_PIXELS", np.prod(LARGE))
    values = np.asarray(np.random.default_rng(1).random(shape[::-1]).T, ">f4")
    copy = copy_array(values)
    np.testing.assert_array_equal(copy, values)
    assert copy.dtype == values.dtype
    assert copy.flags.f_contiguous == values.flags.f_contiguous
    assert not np.shares_memory(copy, values)
    assert copy_array(None) is None
