"""ccdproc's class against ccdproc's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ccdproc
import dask
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std

from lazyccd import Combiner, errors, from_ccddata

Script = Callable[[Any], CCDData]


@pytest.fixture
def stack(rng: np.random.Generator) -> list[CCDData]:
    """Return nine images with some outliers."""
    values = rng.normal(1000, 10, (9, 11, 13))
    values[rng.random(values.shape) < 0.05] += 500
    return [CCDData(v, unit="adu") for v in values]


def clipped_mean(combiner: Any) -> CCDData:
    """Run as ccdproc's documentation combines."""
    combiner.sigma_clipping(low_thresh=2, high_thresh=2, func="median", dev_func=mad_std)
    return combiner.average_combine()


def extrema(combiner: Any) -> CCDData:
    """Reject one and two."""
    combiner.clip_extrema(nlow=1, nhigh=2)
    return combiner.average_combine()


def weights(combiner: Any) -> CCDData:
    """Weight frames; with clips, ccdproc 2.5.1 divides by the weights of rejected inputs too."""
    combiner.weights = np.arange(1.0, 10.0)
    return combiner.average_combine()


def limits_of_a_sum(combiner: Any) -> CCDData:
    """Reject by value, scale, sum."""
    combiner.minmax_clipping(985, 1015)
    combiner.scaling = np.linspace(0.5, 1.5, 9)
    return combiner.sum_combine()


def scaled_median(combiner: Any) -> CCDData:
    """Scale by a function, with the documented argument."""
    combiner.scaling = lambda plane: 1 / np.ma.average(plane)
    return combiner.median_combine(median_func=np.ma.median)


def pixel_weights(combiner: Any) -> CCDData:
    """Weights for every pixel."""
    combiner.weights = np.random.default_rng(3).uniform(1, 2, (9, 11, 13))
    return combiner.average_combine()


def scaled_to(combiner: Any) -> CCDData:
    """One number instead of the scaling."""
    return combiner.average_combine(scale_to=2.0)


def other_uncertainty(combiner: Any) -> CCDData:
    """Return a mean whose uncertainty comes from the MAD."""
    return combiner.average_combine(uncertainty_func=mad_std if isinstance(combiner, Combiner) else _mad_over)


def _mad_over(data: Any, axis: int) -> Any:
    return mad_std(np.ma.getdata(data), axis=axis)


SCRIPTS = [clipped_mean, extrema, weights, limits_of_a_sum, scaled_median, pixel_weights, scaled_to, other_uncertainty]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_scripts_give_the_same(stack: list[CCDData], script: Script) -> None:
    """Data, uncertainty, mask and unit of a script that knows nothing of lazyccd."""
    mine, theirs = script(Combiner(stack)), script(ccdproc.Combiner(stack))
    np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-12)
    np.testing.assert_allclose(mine.uncertainty.array, theirs.uncertainty.array, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(mine.mask, theirs.mask)
    assert mine.unit == theirs.unit
    assert mine.meta["NCOMBINE"] == theirs.meta["NCOMBINE"] == 9


def test_iterated_clipping_tightens() -> None:
    """The loop of ccdproc's documentation ends where nothing more is rejected; with ccdproc it ends after one turn."""
    values = [10.0, 11.0, 9.0, 10.0, 11.0, 9.0, 10.0, 11.0, 9.0, 60.0, 5000.0]
    combiner = Combiner([CCDData(np.full((1, 1), v), unit="adu") for v in values])
    old, new = 0, -1
    while new != old:
        old = combiner.data_arr.mask.sum()
        combiner.sigma_clipping(low_thresh=2, high_thresh=2)
        new = combiner.data_arr.mask.sum()
    assert combiner.data_arr.mask.ravel().tolist() == [False] * 9 + [True, True]
    assert combiner.average_combine().data[0, 0] == 10


def test_frames_stay_lazy(stack: list[CCDData]) -> None:
    """Nothing is computed for frames before somebody asks."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        combiner = Combiner([from_ccddata(ccd) for ccd in stack])
        combiner.minmax_clipping(985, 1015)
        result = combiner.median_combine()
    assert result["data"].shape == (11, 13)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda c: setattr(c, "weights", [1.0] * 9), TypeError, "weights is a list and must be a NumPy array"),
        (lambda c: setattr(c, "weights", np.ones(3)), ValueError, r"weights has shape \(3,\)"),
        (lambda c: setattr(c, "scaling", [1.0]), ValueError, r"scaling has shape \(1,\)"),
        (lambda c: c.clip_extrema(5, 4), ValueError, "leave one of 9 frames"),
        (lambda c: c.average_combine(scale_func=np.median), ValueError, "scale_func 'median' must be None or one of"),
    ],
)
def test_bad_settings(stack: list[CCDData], wrong: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    """What cannot be used is refused with the value and the way out."""
    with pytest.raises(error, match=message) as caught:
        wrong(Combiner(stack))
    assert isinstance(caught.value, errors.LazyCCDError)


def test_no_frames() -> None:
    """None is not a list of frames."""
    with pytest.raises(TypeError, match="got None and needs frames"):
        Combiner(None)
