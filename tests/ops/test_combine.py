"""Stacks of frames against ccdproc, and everything that kernels do not know: inputs, units, masks, headers, graphs."""

from __future__ import annotations

from typing import Any

import ccdproc
import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.stats import mad_std
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd import from_ccddata
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops import add_mask, combine, rechunk, with_uncertainty
from lazyccd.rejection import SigmaClip

Array = npt.NDArray[Any]
BITS = {name: MaskSchema().bits(name) for name in MaskSchema().names}


@pytest.fixture
def stack(rng: np.random.Generator) -> list[CCDData]:
    """Return seven images with some outliers, no mask, no uncertainty."""
    values = rng.normal(1000, 10, (7, 11, 13))
    values[rng.random(values.shape) < 0.05] += 500
    return [CCDData(v, unit="adu", meta={"EXPTIME": 10.0 * (i + 1), "OBJECT": "m1"}) for i, v in enumerate(values)]


def frames_of(values: Any, **more: Any) -> list[xr.Dataset]:
    """Return frames that hold arrays."""
    return [from_ccddata(CCDData(np.atleast_2d(np.asarray(v, float)), unit="adu", **more)) for v in values]


def masked(frame: xr.Dataset, plane: str) -> xr.Dataset:
    """Return a frame with a plane set everywhere."""
    return add_mask(frame, np.ones(tuple(frame.sizes.values())), plane)


CCDPROC_CASES: dict[str, dict[str, Any]] = {
    "average": {},
    "median": {"method": "median"},
    "sum": {"method": "sum"},
    "weights": {"weights": np.arange(1.0, 8.0)},
    "weighted sum": {"weights": np.arange(1.0, 8.0), "method": "sum"},
    "scale": {"scale": np.linspace(0.5, 1.5, 7)},
    "scale of a median": {"scale": np.linspace(0.5, 1.5, 7), "method": "median"},
    "scale function": {"scale": lambda plane: 1 / np.median(plane)},
    "sigma": {"sigma_clip": True, "sigma_clip_low_thresh": 2, "sigma_clip_high_thresh": 1.9},
    "sigma of a scaled sum": {
        "sigma_clip": True,
        "sigma_clip_high_thresh": 1.7,
        "scale": [1, 2, 3, 4, 5, 6, 7],
        "method": "sum",
    },
    "robust": {
        "sigma_clip": True,
        "sigma_clip_low_thresh": 5,
        "sigma_clip_high_thresh": 5,
        "sigma_clip_func": np.ma.median,
        "sigma_clip_dev_func": mad_std,
        "mem_limit": 350e6,
    },
    "robust median": {
        "method": "median",
        "sigma_clip": True,
        "sigma_clip_func": "median",
        "sigma_clip_dev_func": "mad_std",
    },
    "minmax": {"minmax_clip": True, "minmax_clip_min": 985, "minmax_clip_max": 1015},
    "minmax of a sum": {"minmax_clip": True, "minmax_clip_max": 990, "method": "sum"},
    "minmax of a median": {"minmax_clip": True, "minmax_clip_min": 1010, "method": "median"},
}


@pytest.mark.parametrize("case", CCDPROC_CASES)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_numbers_are_those_of_ccdproc(stack: list[CCDData], case: str) -> None:
    """Data, uncertainty, mask and unit where no pixel is masked beforehand."""
    options = CCDPROC_CASES[case]
    given_options = {k: v for k, v in options.items() if not callable(v) or k == "scale"}
    mine = combine(stack, **options)
    # ccdproc uses astropy's compiled loop for names, and for functions the functions themselves
    theirs = ccdproc.combine(stack, **(options if case == "robust" else given_options))
    np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-12)
    np.testing.assert_allclose(mine.uncertainty.array, theirs.uncertainty.array, rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(mine.mask, theirs.mask)
    assert mine.unit == theirs.unit
    assert isinstance(mine.uncertainty, StdDevUncertainty)


def test_combiner_gives_the_same(stack: list[CCDData]) -> None:
    """As through ccdproc's class."""
    combiner = ccdproc.Combiner(stack)
    combiner.sigma_clipping(low_thresh=2, high_thresh=1.8, func="median", dev_func="std")
    options = {"sigma_clip_low_thresh": 2, "sigma_clip_high_thresh": 1.8, "sigma_clip_func": "median"}
    for method in ("average", "median", "sum"):
        theirs = getattr(combiner, f"{method}_combine")()
        mine = combine(stack, method=method, sigma_clip=True, **options)
        np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-12)
        np.testing.assert_allclose(mine.uncertainty.array, theirs.uncertainty.array, rtol=1e-11)


def test_masked_pixels_are_no_baseline() -> None:
    """A masked outlier would widen the deviation so that the next one survives, as it does in ccdproc."""
    values = [10.0, 11.0, 9.0, 10.0, 11.0, 9.0, 60.0, 5000.0]
    stack = [CCDData(np.full((1, 1), v), unit="adu", mask=np.full((1, 1), v == 5000)) for v in values]
    options: dict[str, Any] = {"sigma_clip": True, "sigma_clip_low_thresh": 2, "sigma_clip_high_thresh": 2}
    assert combine(stack, **options).data[0, 0] == 10
    assert ccdproc.combine(stack, **options).data[0, 0] > 15


def test_weights_of_rejected_inputs_do_not_count() -> None:
    """A weighted average of equal values is that value whatever is masked."""
    frames = frames_of([4.0, 4.0, 999.0])
    frames[2] = masked(frames[2], "BAD")
    assert combine(frames, weights=[1, 2, 30])["data"].values == 4


def test_ccddata_give_a_computed_ccddata(stack: list[CCDData]) -> None:
    """With the first one's meta and WCS, made true for the stack; the inputs stay as they were."""
    for number, ccd in enumerate(stack):
        ccd.meta["seq"] = number
    result = combine(stack)
    assert isinstance(result, CCDData)
    assert result.meta == {"EXPTIME": 40.0, "OBJECT": "m1", "TOTEXP": 280.0, "NCOMBINE": 7}
    assert stack[0].meta["EXPTIME"] == 10.0
    assert result.mask.shape == (11, 13)


def test_frames_give_a_lazy_frame(stack: list[CCDData]) -> None:
    """Nothing is computed until somebody asks, and then by one task per chunk."""
    frames = [from_ccddata(ccd) for ccd in stack]
    with dask.config.set(scheduler=refuse):
        result = combine(frames, sigma_clip=True, sigma_clip_high_thresh=2, scale=np.mean)
    assert isinstance(result, xr.Dataset)
    plain = combine(frames)
    graph = plain["data"].data.dask
    made = [key for key in graph.cull(set(graph_keys(plain["data"].data))) if "combine_frames" in str(key)]
    assert len(made) == plain["data"].data.npartitions == 1


def refuse(*_: Any, **__: Any) -> Any:
    """Stand in for a scheduler that must not be called."""
    raise AssertionError("something was computed")


def graph_keys(array: Any) -> list[Any]:
    """Return the keys of the chunks of an array."""
    return [key for row in array.__dask_keys__() for key in row]


def test_chunks_are_bands_of_whole_rows() -> None:
    """About a million pixels each."""
    frames = [from_ccddata(CCDData(np.zeros((2100, 4096), np.float32), unit="adu"))] * 2
    assert combine(frames)["data"].chunks == ((256,) * 8 + (52,), (4096,))


def test_later_operations_depend_on_the_chunks(stack: list[CCDData]) -> None:
    """The stack is not combined again for every chunk of what follows."""
    result = combine([from_ccddata(ccd) for ccd in stack])
    later = lazyccd.subtract(result, 1 * u.adu)["data"].data
    graph = later.dask.cull(set(graph_keys(later)))
    assert any("combine_frames_data" in str(key) for key in graph)
    np.testing.assert_array_equal(later.compute(), result["data"].values - 1)


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.integers(12 * 5 * 10, 4000),
    st.sampled_from(
        [{}, {"method": "median"}, {"sigma_clip": True, "sigma_clip_high_thresh": 1.5}, {"scale": np.mean}]
    ),
)
def test_no_chunking_changes_a_bit(chunks: tuple[int, int], mem_limit: int, options: dict[str, Any]) -> None:
    """Chunks of inputs and result, and bands."""
    rng = np.random.default_rng(5)
    arrays = rng.normal(100, 5, (5, 12, 12)).astype(np.float32)
    frames = [
        with_uncertainty(add_mask(f, rng.random((12, 12)) < 0.2, "CR"), a**0.5)
        for f, a in ((from_ccddata(CCDData(a, unit="adu")), a) for a in arrays)
    ]
    whole = combine(frames, **options).compute()
    cut = rechunk(combine([rechunk(f, chunks) for f in frames], mem_limit=mem_limit, **options), chunks[::-1]).compute()
    for name in ("data", "uncertainty", "mask"):
        np.testing.assert_array_equal(cut[name].values, whole[name].values)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_the_order_in_which_chunks_end_changes_no_bit(
    stack: list[CCDData], scheduler: str, request: pytest.FixtureRequest
) -> None:
    """Seven workers on many small chunks give what one chunk after the other gives."""
    frames = [from_ccddata(ccd).ccd.rechunk((3, 5)) for ccd in stack]
    result = combine(frames, reject=SigmaClip(deviation="mad_std"), scale="median").ccd.rechunk((3, 5))
    one_by_one = result.compute(scheduler="sync")
    more = {"pool": request.getfixturevalue("processes")} if scheduler == "processes" else {"num_workers": 7}
    at_once = result.compute(scheduler=scheduler, **more)
    for name in one_by_one.data_vars:
        np.testing.assert_array_equal(at_once[name].values, one_by_one[name].values)


@pytest.mark.parametrize(
    ("planes", "used"),
    [
        (("SAT", "CR", "BAD"), "SAT"),
        (("BAD", "LOW_FLAT", "NO_DATA"), "LOW_FLAT"),
        (("NO_DATA", "BAD", "NO_DATA"), "BAD"),
        (("GHOST", "CR", "GHOST"), "CR"),
    ],
)
def test_where_all_are_bad_the_least_bad_are_used(planes: tuple[str, str, str], used: str) -> None:
    """So that a star saturated in every frame is no hole."""
    frames = [masked(f, plane) for f, plane in zip(frames_of([1.0, 2.0, 3.0]), planes, strict=True)]
    result = combine(frames, sigma_clip=True, sigma_clip_high_thresh=0.1)
    bits = int(result["mask"].values[0, 0])
    assert result["data"].values[0, 0] == planes.index(used) + 1
    assert bits & BITS[used]
    assert not bits & (BITS["NO_DATA"] | BITS["CLIPPED"])


def test_where_nothing_is_known_is_no_data() -> None:
    """NaN in every frame, or NO_DATA."""
    frames = frames_of([np.nan, 5.0])
    frames[1] = masked(frames[1], "NO_DATA")
    result = combine(frames)
    assert np.isnan(result["data"].values[0, 0])
    assert result["mask"].values[0, 0] == BITS["NO_DATA"]


def test_clipped_and_saturated_planes() -> None:
    """CLIPPED where an input was rejected; SAT where more than a tenth of the weight was left out for it."""
    frames = frames_of([1.0, 1.0, 1.0, 1.0, 1.0, 90.0])
    result = combine(frames, minmax_clip=True, minmax_clip_max=50)
    assert result["mask"].values[0, 0] == BITS["CLIPPED"]
    frames[5] = masked(frames[5], "SAT")
    assert combine(frames)["mask"].values[0, 0] == BITS["SAT"]
    assert combine(frames, weights=[1, 1, 1, 1, 1, 0.1])["mask"].values[0, 0] == 0


def test_planes_that_only_one_frame_has() -> None:
    """Mask planes are matched by name."""
    one, two = frames_of([1.0, 2.0])
    one, two = add_mask(one, [[0]], "GHOST"), add_mask(add_mask(two, [[0]], "HALO"), [[1]], "GHOST")
    result = combine([one, two])
    assert result.ccd.is_flagged("GHOST").values.tolist() == [[False]]
    assert result["data"].values[0, 0] == 1
    both = combine([masked(one, "GHOST"), two])
    assert both.ccd.is_flagged("GHOST").values.tolist() == [[True]]


def test_uncertainty_defaults() -> None:
    """Propagated if all inputs have one, else from the scatter as in ccdproc."""
    frames = frames_of([1.0, 2.0, 6.0])
    with_all = [with_uncertainty(f, [[2.0]]) for f in frames]
    assert combine(with_all)["uncertainty"].values[0, 0] == pytest.approx(2 / 3**0.5)
    assert combine(with_all, method="sum")["uncertainty"].values[0, 0] == pytest.approx(2 * 3**0.5)
    assert combine(with_all, method="median")["uncertainty"].values[0, 0] == pytest.approx(2 * (1.346 / 3) ** 0.5)
    scatter, ccdproc_like = np.std([1, 2, 6], ddof=1) / 3**0.5, np.std([1, 2, 6]) / 3**0.5
    assert combine([*with_all[:2], frames[2]])["uncertainty"].values[0, 0] == pytest.approx(ccdproc_like)
    assert combine(with_all, uncertainty="scatter")["uncertainty"].values[0, 0] == pytest.approx(scatter)


def test_uncertainty_keeps_its_type() -> None:
    """A variance comes out as a variance."""
    stack = [CCDData([[1.0]], unit="adu", uncertainty=VarianceUncertainty([[4.0]])) for _ in range(4)]
    result = combine(stack)
    assert isinstance(result.uncertainty, VarianceUncertainty)
    assert result.uncertainty.array[0, 0] == 1


@pytest.mark.parametrize("method", ["average", "median", "sum"])
@pytest.mark.parametrize("weights", [None, [1, 2, 1, 3, 1]])
def test_propagated_uncertainty_is_honest(rng: np.random.Generator, method: str, weights: list[int] | None) -> None:
    """Result minus truth over uncertainty has unit width."""
    sigmas = [3.0, 3.0, 3.0, 3.0, 3.0]
    frames = [
        with_uncertainty(from_ccddata(CCDData(rng.normal(100, s, (200, 200)), unit="adu")), np.full((200, 200), s))
        for s in sigmas
    ]
    result: xr.Dataset = combine(frames, method=method, weights=weights).compute()
    truth = 100 * (sum(weights or [1] * 5) if method == "sum" else 1)
    pull = (result["data"] - truth) / result["uncertainty"]
    assert float(pull.std()) == pytest.approx(1, abs=0.02)


def test_dtypes() -> None:
    """float32 unless an input is float64; sums are made in double precision."""
    small = from_ccddata(CCDData(np.full((1, 1), 2**24, np.float32), unit="adu"))
    ones = [from_ccddata(CCDData(np.ones((1, 1), np.uint16), unit="adu")) for _ in range(64)]
    result = combine([small, *ones], method="sum")
    assert result["data"].dtype == np.float32
    assert result["data"].values[0, 0] == 2**24 + 64
    assert combine([small, *frames_of([1.0])])["data"].dtype == np.float64


def test_units_are_converted() -> None:
    """To those of the first frame, uncertainty too, before anything is rejected."""
    one = from_ccddata(CCDData([[3.0]], unit="m", uncertainty=StdDevUncertainty([[0.3]])))
    two = from_ccddata(CCDData([[500.0]], unit="cm", uncertainty=StdDevUncertainty([[40.0]])))
    result = combine([one, two], minmax_clip=True, minmax_clip_max=10)
    assert result["data"].values[0, 0] == 4
    assert result["uncertainty"].values[0, 0] == pytest.approx(0.25)
    assert result.ccd.unit == u.m


def test_scale_function_sees_the_mask() -> None:
    """Bad pixels are masked in what it is given, and it sees the plane in its shape."""
    frames = frames_of([[[1.0, 1.0], [1.0, 97.0]], [[2.0, 2.0], [2.0, 2.0]]])
    frames[0] = add_mask(frames[0], [[0, 0], [0, 1]])
    result = combine(frames, scale=lambda plane: 6 / plane[:, 0:2].mean())
    np.testing.assert_array_equal(result["data"].values, np.full((2, 2), 6.0))
