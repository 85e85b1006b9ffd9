"""Statistics of lazy images have the bits of those of all pixels at once, for any chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData
from astropy.stats import mad_std, sigma_clipped_stats
from dask import optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lazyccd
from lazyccd import stats
from lazyccd.errors import ArgumentTypeError, ParameterError

FLOATS = {
    "float32": st.floats(width=32, allow_subnormal=True),
    "float64": st.floats(width=64, allow_subnormal=True),
}


def frame(pixels: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_] | None, chunks: tuple[int, int]) -> xr.Dataset:
    """Return a lazy frame in chunks."""
    return lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu", mask=mask)), chunks)


def good(pixels: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """Return the good pixels."""
    chosen = pixels[~mask & np.isfinite(pixels)]
    return chosen + 0.0  # negative zero equals zero, and sorting does not say which comes first


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_median_and_percentiles_of_any_pixels(dtype: str, data: st.DataObject) -> None:
    """Quantiles equal those of sorted pixels, with ties, zeros of both signs, subnormal and infinite numbers, NaN and masks."""
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
    pixels = data.draw(hnp.arrays(dtype, shape, elements=FLOATS[dtype]))
    mask = data.draw(hnp.arrays(bool, shape))
    chunks = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    q = data.draw(st.floats(0, 100))
    ds = frame(pixels, mask, chunks)
    values = np.sort(good(pixels, mask)).astype(np.float64)
    got = float(stats.percentile(ds, q).compute(scheduler="sync"))
    if not values.size:
        assert np.isnan(got)
        return
    place = q / 100 * (values.size - 1)
    low, high = values[int(place)], values[min(int(place) + 1, values.size - 1)]
    part = place - int(place)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (low + high) / 2 if part == 0.5 else low + part * (high - low)
        np.testing.assert_equal(got, float(np.dtype(dtype).type(expected)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("chunks", [(50, 50), (7, 50), (13, 11)])
def test_against_numpy_and_astropy(dtype: str, chunks: tuple[int, int]) -> None:
    """The median has NumPy's bits; other statistics are close to those of NumPy and astropy."""
    rng = np.random.default_rng(3)
    pixels = rng.normal(500, 20, (50, 49)).astype(dtype)
    pixels[rng.random(pixels.shape) < 0.03] = 60_000
    pixels[4, 5] = np.nan
    mask = rng.random(pixels.shape) < 0.1
    values = good(pixels, mask)
    ds = frame(pixels, mask, chunks)
    assert stats.median(ds).dtype == dtype
    assert float(stats.median(ds)) == np.median(values)
    quartiles = stats.percentile(ds, [25, 75])
    np.testing.assert_allclose(quartiles, np.percentile(values.astype("f8"), [25, 75]), rtol=np.finfo(dtype).eps)
    np.testing.assert_allclose(stats.mad_std(ds), mad_std(values), rtol=2 * np.finfo(dtype).eps)
    clipped = stats.sigma_clipped(ds, sigma=3, maxiters=4)
    expected = sigma_clipped_stats(values.astype("f8"), sigma=3, maxiters=4)
    np.testing.assert_allclose([clipped[name] for name in ("mean", "median", "std")], expected, rtol=1e-12)
    assert stats.median(ds).attrs["units"] == "adu"


def test_bits_do_not_depend_on_chunks() -> None:
    """Clipped statistics have the same bits for any chunks, although they are sums."""
    pixels = np.random.default_rng(5).gamma(2, 300, (1100, 700)).astype("f4")
    results = {
        tuple(float(v) for v in stats.sigma_clipped(frame(pixels, None, chunks)).compute().values())
        for chunks in ((1100, 700), (64, 700), (333, 129))
    }
    assert len(results) == 1


def test_planes_are_chosen_by_name() -> None:
    """Pixels of a plane that `bad=` takes out of the default count as good."""
    ds = lazyccd.flag_saturated(frame(np.array([[1.0, 2.0, 9.0]]), None, (1, 3)), 9)
    assert float(stats.median(ds)) == 1.5
    assert float(stats.median(ds, bad="~SAT")) == 2.0


def test_lazy_and_at_most_three_tasks_per_chunk_and_pass() -> None:
    """Statistics are lazy, with at most three tasks for each chunk and pass; counts are merged in a tree."""
    ds = frame(np.ones((4096, 8192), "f4"), None, (2048, 2048))
    number = stats.median(ds)
    graph = dict(optimize(number.data)[0].__dask_graph__())
    passes, chunks = 2, 8
    assert len(graph) <= 3 * passes * chunks + chunks


@pytest.mark.usefixtures("client")
def test_on_a_cluster() -> None:
    """Two worker processes give the bits of one process, also for a frame whose plan has a pending scalar."""
    ds = frame(np.random.default_rng(1).normal(100, 3, (300, 400)), None, (100, 100))
    ds = lazyccd.flat_correct(ds, CCDData(np.random.default_rng(2).normal(5, 0.1, (300, 400)), unit="adu"))
    expected = np.median(ds["data"].values)
    assert float(stats.median(ds)) == expected
    assert float(stats.sigma_clipped(ds)["median"]) == pytest.approx(expected, rel=1e-3)


def test_a_flat_normalised_by_its_median() -> None:
    """A few hot pixels do not change the median as norm."""
    flat = np.full((20, 30), 4.0)
    flat[3, :9] = 4e6
    ds = frame(np.full((20, 30), 8.0), None, (7, 30))
    flattened = lazyccd.flat_correct(ds, CCDData(flat, unit=u.adu), norm_value="median")
    assert float(flattened["data"][0, 0]) == 8.0
    with pytest.raises(ParameterError, match="norm_value 'mode' must be a number, 'mean' or 'median'"):
        lazyccd.flat_correct(ds, CCDData(flat, unit=u.adu), norm_value="mode")  # type: ignore[arg-type]


def test_bad_arguments() -> None:
    """Errors name the wrong value and the allowed ones."""
    ds = frame(np.ones((2, 2)), None, (2, 2))
    with pytest.raises(ParameterError, match="percentile 101 must be between 0 and 100"):
        stats.percentile(ds, 101)
    with pytest.raises(ArgumentTypeError, match="percentile '50' must be a number"):
        stats.percentile(ds, "50")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="sigma 0 must be above 0"):
        stats.sigma_clipped(ds, sigma=0)
