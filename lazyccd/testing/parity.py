"""Make images for comparisons with ccdproc, and say what it means that two results are the same.

`image` makes inputs that show differences: more columns than rows, a mask, an uncertainty of each kind. `assert_same` compares
`CCDData`, in which ccdproc's results come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

UNCERTAINTIES = {None: None, "std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}
TO_STD: dict[str, Callable[[Any], Any]] = {"std": lambda a: a, "var": np.sqrt, "ivar": lambda a: 1 / np.sqrt(a)}


def image(
    seed: int,
    *,
    level: float = 1000.0,
    shape: tuple[int, int] = (24, 45),
    unit: str = "adu",
    uncertainty: str | None = None,
    masked: bool = False,
    dtype: npt.DTypeLike = np.float64,
    **meta: Any,
) -> CCDData:
    """Return an image of noise about a level.

    Parameters
    ----------
    seed
        Seed of the noise; equal seeds give equal images.
    level
        Mean, in ``unit``. The noise is 5 % of it, so that no pixel is near 0, where relative tolerances mean nothing.
    shape
        Rows and columns; by default not a square, in which axes that were mixed up would not show.
    unit
        Unit of the data.
    uncertainty
        ``std``, ``var`` or ``ivar`` of about one per cent of the level, or None for none.
    masked
        Whether one pixel in twenty is bad.
    dtype
        Of data and uncertainty.
    meta
        Further header cards; ``exposure`` is 30 unless it is given.
    """
    rng = np.random.default_rng(seed)
    data = rng.normal(level, 0.05 * level, shape).astype(dtype)
    kind = UNCERTAINTIES[uncertainty]
    deviation = (0.01 * level * rng.uniform(0.5, 2, shape)).astype(dtype)
    values = {"std": deviation, "var": deviation**2, "ivar": 1 / deviation**2}.get(uncertainty or "")
    return CCDData(
        data,
        unit=unit,
        uncertainty=None if kind is None else kind(values),
        mask=rng.random(shape) < 0.05 if masked else None,
        meta={"exposure": 30.0, **meta},
    )


def assert_same(ours: CCDData, theirs: CCDData, rtol: float = 1e-12, *, meta: bool = True) -> None:
    """Assert that two CCDData have the same pixels, bad pixels, uncertainty, unit and header.

    No mask and a mask without bad pixels are the same; uncertainties are compared as standard deviations.
    """
    assert isinstance(ours, CCDData)
    assert ours.unit == theirs.unit
    # of the whole image: where two large numbers almost cancel, a relative error of the difference says nothing
    scale = float(np.nanmax(np.abs(theirs.data))) or 1.0
    np.testing.assert_allclose(ours.data, theirs.data, rtol=rtol, atol=rtol * scale)
    np.testing.assert_array_equal(bad_pixels(ours), bad_pixels(theirs))
    assert (ours.uncertainty is None) == (theirs.uncertainty is None)
    if theirs.uncertainty is not None:
        # plans propagate variances, ccdproc standard deviations: a square and a root more, each with its rounding
        np.testing.assert_allclose(deviation(ours), deviation(theirs), rtol=10 * rtol)
    if meta:
        assert dict(ours.meta) == dict(theirs.meta)


def bad_pixels(ccd: CCDData) -> npt.NDArray[np.bool_]:
    """Return the mask; all good if there is none."""
    return np.zeros(ccd.shape, bool) if ccd.mask is None else np.asarray(ccd.mask, bool)


def deviation(ccd: CCDData) -> npt.NDArray[np.floating]:
    """Return the uncertainty as a standard deviation."""
    return np.asarray(TO_STD[ccd.uncertainty.uncertainty_type](ccd.uncertainty.array))
