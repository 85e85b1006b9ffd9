"""Small stacks are combined by NumPy before numba is imported, with the bits of the kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.nddata import CCDData

from lazyccd.ccdproc import Combiner, small_stacks
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack import loops, sorting
from lazyccd.kernels.stack.sigma_clip import reject_deviant

Stack = tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]

WIDE = small_stacks.BAND_VALUES // 3
"""More pixels than fit into a band."""


@pytest.fixture(params=[(1, 50), (2, 90), (3, WIDE), (6, 400), (11, 300), (25, 200)], ids=str)
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Return frames and pixels."""
    frames, pixels = request.param
    return frames, pixels


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Any:
    """Return the type of the values."""
    return request.param


def make_stack(size: tuple[int, int], dtype: Any, left: float) -> Stack:
    """Return values of very different sizes, equal ones among them, and which count; pixels without any, too."""
    rng = np.random.default_rng(size)
    values = (rng.normal(3.0, 40.0, size) * 10.0 ** rng.integers(-3, 6, size[1])).astype(dtype)
    values[:, 7] = 12.5
    use = rng.random(size) < left
    use[:, 3] = left == 1
    values[~use] = np.nan
    return values, use


def assert_same(found: Any, expected: Any) -> None:
    """Check that arrays are equal to the bit, and of one type."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("left", [1.0, 0.7])
def test_statistics_are_those_of_the_kernels(size: tuple[int, int], dtype: Any, left: float) -> None:
    """Means, spreads, medians, deviations and weighted sums have the same bits."""
    values, use = make_stack(size, dtype, left)
    for module, name in ((loops, "mean_and_squares"), (sorting, "median_and_deviation")):
        assert_same(getattr(small_stacks, name)(values, use), getattr(module, name)(values, use))
    weights = np.random.default_rng(1).random(size)
    for own in (weights[:, 0].copy(), np.ones(size[0])):
        assert_same(small_stacks.weighted_sum(values, use, own), loops.weighted_sum(values, use, own))
    assert_same(small_stacks.pixel_weighted_sum(values, use, weights), loops.pixel_weighted_sum(values, use, weights))


@pytest.mark.parametrize("left", [1.0, 0.7])
@pytest.mark.parametrize("by_mean", [False, True])
@pytest.mark.parametrize("by_mad", [False, True])
def test_rejection_is_that_of_the_kernel(
    size: tuple[int, int], dtype: Any, left: float, by_mean: bool, by_mad: bool
) -> None:
    """The same inputs are rejected, for any center and deviation."""
    values, use = make_stack(size, dtype, left)
    expected, network = use.copy(), sorting.sorting_network(size[0])
    reject_deviant(values, expected, network, by_mean, by_mad, 1.1, 0.9, 1, np.empty((0, 0)))
    small_stacks.reject_once(values, use, by_mean, by_mad, 1.1, 0.9)
    assert size[0] < 3 or (use.sum() < left * use.size)
    np.testing.assert_array_equal(use, expected)


def by_both(monkeypatch: pytest.MonkeyPatch, combine: Callable[[], list[CCDData]]) -> None:
    """Check that images have the same bits by kernels as by NumPy."""
    results: list[list[Any]] = []
    for worth in (0, small_stacks.WORTH_VALUES):
        monkeypatch.setattr(small_stacks, "_combined", 0)
        monkeypatch.setattr(small_stacks, "WORTH_VALUES", worth)
        results.append([part for made in combine() for part in (made.data, made.uncertainty.array, made.mask)])
    assert_same(*results)


def test_infinities_are_left_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack with infinite values has the medians and deviations that the kernels give it."""
    values = np.array([[1.0, np.inf, -np.inf], [2.0, np.inf, 4.0], [4.0, 1.0, 5.0]])
    ccds = [CCDData(row[None], unit="adu") for row in values]
    by_both(monkeypatch, lambda: [Combiner(ccds).median_combine(), Combiner(ccds).average_combine()])


def test_images_are_those_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Combiner gives the same images, clipped and weighted too."""
    rng = np.random.default_rng(5)
    ccds = [CCDData(rng.normal(9.0, 2.0, (30, 40)), unit="adu", mask=rng.random((30, 40)) < 0.2) for _ in range(6)]

    def combine() -> list[CCDData]:
        stack = Combiner(ccds)
        made = [stack.average_combine(), stack.median_combine(), stack.sum_combine()]
        stack.sigma_clipping(low_thresh=1.5, high_thresh=1, func="median", dev_func="mad_std")
        stack.weights = np.arange(1.0, 7.0)
        return [*made, stack.average_combine(), stack.median_combine(), stack.sum_combine()]

    by_both(monkeypatch, combine)


def test_a_process_that_combines_much_goes_over_to_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a process has combined counts."""
    monkeypatch.setattr(small_stacks, "_combined", 0)
    parts = small_stacks.WORTH_VALUES // 4
    assert [small_stacks.kernels_pay(parts) for _ in range(6)] == [False] * 4 + [True] * 2


def test_the_constant_is_that_of_the_kernels() -> None:
    """It stands twice, since the import of the other one loads numba."""
    assert small_stacks.MAD_TO_SIGMA == MAD_TO_SIGMA


SCRIPT = """
import sys
import numpy as np
from lazyccd.ccdproc import CCDData, Combiner, combine
ccds = [CCDData(np.full((8, 9), float(k)), unit="adu") for k in range(5)]
stack = Combiner(ccds)
stack.sigma_clipping(func=np.ma.median)
print(stack.median_combine().data[0, 0], stack.average_combine().data[0, 0], stack.sum_combine().data[0, 0])
print(combine(ccds, method="median", sigma_clip=True).data[0, 0])
print([name for name in ("numba", "dask", "xarray") if name in sys.modules])
"""


def test_small_stacks_do_not_import_numba() -> None:
    """Its import takes longer than the whole stack."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["2.0 2.0 10.0", "2.0", "[]", ""]
