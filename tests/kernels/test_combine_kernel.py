"""Stacks of blocks against a slow reference that does one pixel at a time."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.kernels.stack.combine import combine_frames, median_factor
from lazyccd.kernels.stack.scaling import Levels, find_scaling
from lazyccd.kernels.stack.sigma_clip import reject_deviant
from lazyccd.kernels.stack.sorting import (
    SPARE,
    median_and_deviation,
    median_of,
    rows_sorted,
    sort_rows,
    sorting_network,
)
from lazyccd.kernels.stack.types import MaskBits, Rejecting, Rule
from lazyccd.ops.stack.rejection import _ClippedByScatter
from lazyccd.rejection import (
    GESDT,
    AvSigmaClip,
    CCDClip,
    Clipped,
    CRReject,
    Extrema,
    Limits,
    LinearFit,
    MinMax,
    PercentileClip,
    Rejection,
    SigmaClip,
    VarianceClip,
    Winsorized,
)
from lazyccd.sections import Region
from tests.kernels.stack_reference import BITS, CLASSES, SCHEMA, combine_pixel

Array = npt.NDArray[Any]
ALL = frozenset({"data", "variance", "mask", "n_used", "n_rejected"})


def make_rule(count: int, **changes: Any) -> Rule:
    """Return a plain average that keeps nothing at least, with some fields of the rule or of its parts changed."""
    parts: dict[str, Any] = {
        "rejecting": Rejecting(nkeep=0),
        "masks": MaskBits(
            remaps=((),) * count,
            bad=SCHEMA.bad_bits,
            ranks=tuple(SCHEMA.bits(*names) & SCHEMA.bad_bits for names in CLASSES),
            saturated=BITS["SAT"],
            clipped=BITS["CLIPPED"],
            no_data=BITS["NO_DATA"],
        ),
    }
    for name, part in parts.items():
        own = {key: changes.pop(key) for key in part.__dataclass_fields__ if key in changes}
        parts[name] = replace(part, **own)
    return Rule(count=count, **parts, **changes)


def run(values: Array, bits: Array | None = None, variances: Array | None = None, **changes: Any) -> Block:
    """Combine an array of frames x rows x columns."""
    region = Region.full(values.shape[1:])
    blocks = [
        Block(
            region,
            values[i],
            None if variances is None else variances[i],
            None if bits is None else bits[i],
        )
        for i in range(len(values))
    ]
    if bits is None:
        changes = {"remaps": (None,) * len(values), **changes}
    return combine_frames(Request(region, ALL), blocks, rule=make_rule(len(values), **changes))


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Draw frames with ties, NaN, infinities and masks, and a rule."""
    count = draw(st.one_of(st.integers(1, 7), st.integers(8, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, draw(st.integers(1, 9)), draw(st.integers(1, 30 if count < 8 else 6)))
    # small integers: many ties, and sums that are exact in any order
    values = rng.integers(0, 6, shape).astype(np.float64)
    values[rng.random(shape) < 0.1] *= 64
    values[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    share = draw(st.sampled_from([0.0, 0.3, 0.9]))
    flags = np.array([*BITS.values(), BITS["CR"] | BITS["SAT"], BITS["INTERP"] | BITS["BAD"]], np.uint16)
    bits = np.where(rng.random(shape) < share, rng.choice(flags, shape), 0).astype(np.uint16)
    numbers = tuple(rng.integers(1, 4, count).astype(float))
    levels = Levels(
        scale=tuple(rng.choice([0.5, 1.0, 2.0], count)) if draw(st.booleans()) else (),
        zero=tuple(rng.integers(-2, 3, count).astype(float)) if draw(st.booleans()) else (),
        weights=numbers if draw(st.booleans()) else (),
    )
    rules = {
        "method": draw(st.sampled_from(["average", "median", "sum"])),
        "uncertainty": draw(st.sampled_from(["propagated", "scatter", "ccdproc"])),
        "levels": levels,
        "clips": draw(clip_lists(count)),
        "nkeep": draw(st.integers(-count, count)),
    }
    noise = {
        "readnoise": tuple(rng.integers(1, 5, count).astype(float)),
        "gain": tuple(rng.integers(1, 9, count).astype(float)),
        "snoise": (0.1,) * count,
    }
    rules["reject"] = draw(st.one_of(st.none(), rejects(count, noise)))
    return values, bits, rng.integers(1, 9, shape).astype(np.float64), rules


# thresholds that no distance of small integers over their deviation equals
LOWS, HIGHS = st.sampled_from([1.0371, 1.6143, math.inf]), st.sampled_from([0.9173, 2.0371, math.inf])


@st.composite
def sigmas(draw: st.DrawFn) -> SigmaClip:
    """Draw a clip about the mean or the median."""
    low, high = draw(LOWS), draw(HIGHS)
    return SigmaClip(
        None if low == math.inf else low,
        None if high == math.inf else high,
        draw(st.sampled_from(["mean", "median"])),
        draw(st.sampled_from(["std", "mad_std"])),
        draw(st.sampled_from([1, 2, None])),
    )


@st.composite
def clip_lists(draw: st.DrawFn, count: int) -> tuple[Rejection, ...]:
    """Draw ccdproc's clips in its order."""
    extrema = Extrema(draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    limits = Limits(draw(st.sampled_from([None, 1.0])), draw(st.sampled_from([None, 5.0])))
    return tuple(clip for clip in (extrema, limits, draw(sigmas())) if draw(st.integers(0, 2)) == 0)


@st.composite
def rejects(draw: st.DrawFn, count: int, noise: dict[str, Any]) -> Rejection:
    """Draw a rejection of scaled values."""
    kinds = (
        SigmaClip,
        MinMax,
        PercentileClip,
        GESDT,
        CCDClip,
        CRReject,
        VarianceClip,
        Winsorized,
        LinearFit,
        Clipped,
        Extrema,
        Limits,
    )
    kind: Any = draw(st.sampled_from(kinds))
    if kind is SigmaClip:
        return draw(sigmas())
    if kind in {MinMax, Extrema}:
        return kind(draw(st.integers(0, count // 2)), draw(st.integers(0, count // 3)))
    if kind is Limits:
        return kind(draw(st.sampled_from([None, 1.0])), draw(st.sampled_from([None, 5.0])))
    if kind is PercentileClip:
        return kind(draw(st.sampled_from([-0.5, 0.5, -3, 2])), draw(LOWS), draw(HIGHS))
    if kind is Clipped:
        by_scatter = draw(st.booleans())
        # shares of whole numbers that none is
        return (_ClippedByScatter if by_scatter else Clipped)(draw(st.sampled_from([1.0371, 2.1317])), 0.3173, 1.7231)
    if kind is GESDT:
        return kind(draw(st.sampled_from([0.3, 0.5])), draw(st.sampled_from([0.05, 0.4])))
    if kind is CRReject:
        return kind(draw(HIGHS), **noise)
    return kind(draw(LOWS), draw(HIGHS), **(noise if kind is CCDClip else {}))


@given(stacks())
def test_stack_is_that_of_the_reference(drawn: tuple[Array, Array, Array, dict[str, Any]]) -> None:
    """Which inputs are used and rejected, data, variance and mask of every pixel, for all methods and rejections."""
    values, bits, variances, changes = drawn
    block = run(values, bits, variances, **changes)
    rule = make_rule(len(values), **changes)
    for y, x in np.ndindex(values.shape[1:]):
        pixel = combine_pixel(values[:, y, x].tolist(), bits[:, y, x].tolist(), variances[:, y, x].tolist(), rule)
        assert block.plane("n_used")[y, x] == len(pixel["used"])
        assert block.plane("n_rejected")[y, x] == len(pixel["rejected"])
        np.testing.assert_array_equal(block.plane("data")[y, x], pixel["data"])
        np.testing.assert_allclose(block.plane("variance")[y, x], pixel["variance"], rtol=1e-12, atol=1e-12)
        assert block.plane("mask")[y, x] == pixel["mask"]


def line_reference(values: Array, levels: Levels, low: float, high: float) -> Array:
    """Return which inputs of a line avsigclip keeps: one deviation for the line, in proportion to the root of the level."""
    scaling = find_scaling(levels, len(values), {})
    photons = lambda i, x: scaling.multipliers[i] ** 2 * max(1.0, (x - scaling.offsets[i]) / scaling.multipliers[i])  # noqa: E731
    pixels = []
    for column in values.T.tolist():
        scaled = [v * m + z for v, m, z in zip(column, scaling.multipliers, scaling.offsets, strict=True)]
        pixels.append({i: v for i, v in enumerate(scaled) if math.isfinite(column[i])})
    total, number = 0.0, 0
    for left in pixels:
        if len(left) >= 3:
            center = statistics.median(left.values())
            ranked = sorted(left, key=lambda i: (left[i], i))
            for i in ranked:
                total += (left[i] - center) ** 2 / photons(i, center)
            number += len(left)
    sigma = math.sqrt(total / (number - 1)) if number > 1 else 0.0
    for left in pixels:
        while len(left) >= 3:
            center = statistics.median(left.values())
            limits = {i: sigma * math.sqrt(photons(i, center)) for i in left}
            out = [i for i in left if left[i] < center - low * limits[i] or left[i] > center + high * limits[i]]
            for i in out:
                del left[i]
            if not out:
                break
    return np.array([[i in left for left in pixels] for i in range(len(values))])


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_a_deviation_for_each_line(count: int, seed: int, scaled: bool) -> None:
    """Avsigclip's survivors are those of the reference, line by line, with ties, NaN and infinities."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (count, 3, 8)).astype(np.float64) ** 2
    values[rng.random(values.shape) < 0.1] *= 16
    values[rng.random(values.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    levels = Levels(scale=tuple(rng.choice([0.5, 1.0, 2.0], count)), zero=tuple(rng.integers(-2, 3, count) * 1.0))
    levels = levels if scaled else Levels()
    block = run(values, reject=AvSigmaClip(1.0371, 0.9173), levels=levels)
    for y in range(3):
        kept = line_reference(values[:, y], levels, 1.0371, 0.9173)
        np.testing.assert_array_equal(block.plane("n_used")[y], kept.sum(axis=0))
        scaling = find_scaling(levels, count, {})
        moved = values[:, y] * scaling.multipliers[:, None] + scaling.offsets[:, None]
        mean = np.where(kept, moved, 0).sum(axis=0) / np.where(kept.any(axis=0), kept.sum(axis=0), np.nan)
        np.testing.assert_allclose(block.plane("data")[y], mean, rtol=1e-13)


@given(stacks(), st.data())
def test_any_part_has_the_same_bits(drawn: tuple[Array, Array, Array, dict[str, Any]], data: st.DataObject) -> None:
    """A region combined by itself, from views, is bit-identical to its part of the whole."""
    values, bits, variances, changes = drawn
    values = np.asarray(values * 1.1, np.float32)
    ny, nx = values.shape[1:]
    y0, x0 = data.draw(st.integers(0, ny - 1)), data.draw(st.integers(0, nx - 1))
    part = Region(y0, data.draw(st.integers(y0 + 1, ny)), x0, data.draw(st.integers(x0 + 1, nx)))
    cut = (slice(None), *part.within(Region(0, ny, 0, nx)))
    whole, alone = run(values, bits, variances, **changes), run(values[cut], bits[cut], variances[cut], **changes)
    for plane in ALL:
        np.testing.assert_array_equal(alone.plane(plane), whole.crop(part).plane(plane))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 20, 33, 40, 130])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_medians_and_median_distances(count: int, dtype: type, rng: np.random.Generator) -> None:
    """Those of NumPy to the bit, of the inputs that count, for stretches where as many count everywhere and others."""
    values = rng.normal(0, 1, (count, 2000)).astype(dtype)
    values[:, :700] = rng.integers(0, 9, (count, 700))
    use = np.ones(values.shape, bool)
    use[:, 100:1100] = rng.random((count, 1000)) < 0.6
    use[: count - 1, 1700:] = False
    expected = np.full((2, 2000), np.nan)
    for m in np.flatnonzero(use.any(axis=0)):
        good = values[use[:, m], m].astype(np.float64)
        expected[0, m] = np.median(good)
        expected[1, m] = np.median(np.abs(good - expected[0, m]))
    values[~use] = np.nan
    np.testing.assert_array_equal(median_and_deviation(values, use), expected)
    np.testing.assert_array_equal(median_of(values, use), expected[0])


def in_rows(values: Array) -> Array:
    """Return values in the rows that a network sorts, with the spare ones that it asks for."""
    rows = np.full((rows_sorted(len(values)) + SPARE, values.shape[1]), np.inf)
    rows[: len(values)] = values
    return rows


def test_networks_sort_all_zero_one_inputs() -> None:
    """A network that sorts all sequences of 0 and 1 sorts everything (Knuth 5.3.4, theorem Z)."""
    for count in range(1, 15):
        numbers = np.arange(2**count)
        rows = in_rows((numbers >> np.arange(count)[:, None]) & 1)
        sort_rows(rows, sorting_network(count), rows.shape[1])
        assert (np.diff(rows[:count], axis=0) >= 0).all()


@pytest.mark.parametrize("count", [15, 16, 17, 31, 33, 64, 65, 100, 129, 200, 257])
def test_networks_of_many_values_sort(count: int, rng: np.random.Generator) -> None:
    """They sort what has one step, at any place and in any order of the rows, and leave infinity behind."""
    rows = in_rows(rng.permuted(np.tril(np.ones((count, count))), axis=0))
    sort_rows(rows, sorting_network(count), count)
    assert (np.diff(rows[:count], axis=0) >= 0).all()
    np.testing.assert_array_equal(rows[:count].sum(axis=0), np.arange(count, 0, -1))
    assert np.isinf(rows[count:]).all()


def clip_one(values: Array, by_mean: bool, by_mad: bool, limits: tuple[float, float], rounds: int) -> Array:
    """Return how far off each of the values of a pixel is that is rejected, 0 for the others; NaN does not count."""
    left, off = np.isfinite(values), np.zeros(len(values))
    for _ in range(rounds or len(values)):
        good = values[left].astype(float)
        if not good.size:
            break
        # sums run over the frames in their order, as those of the kernel
        average = sum(good) / good.size
        middle = np.median(good)
        center = average if by_mean else middle
        deviation = (
            MAD_TO_SIGMA * np.median(abs(good - middle)) if by_mad else np.sqrt(sum((good - average) ** 2) / good.size)
        )
        lost = left & ((values < center - limits[0] * deviation) | (values > center + limits[1] * deviation))
        if not lost.any():
            break
        with np.errstate(divide="ignore"):
            off[lost] = abs(values[lost].astype(float) - center) / deviation
        left &= ~lost
    return off


@pytest.mark.parametrize("count", [3, 20, 75, 130])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("by_mean", [False, True])
@pytest.mark.parametrize("by_mad", [False, True])
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_clipping_of_stretches(
    count: int, dtype: type, by_mean: bool, by_mad: bool, rounds: int, rng: np.random.Generator
) -> None:
    """What is rejected, and how far off it is, is that of one pixel after another: where few pixels lose inputs and where all do."""
    values = rng.normal(0, 1, (count, 1200)).astype(dtype)
    # in the first stretch few pixels have an outlier, in the second nearly all have several, of different size
    values[0, :512:20] = 50
    values[:, 512:1024] *= rng.choice([1, 3, 10, 100], (count, 512), p=[0.7, 0.1, 0.1, 0.1])
    values[:, 1100:] = np.round(values[:, 1100:])
    use = rng.random(values.shape) < 0.9
    use[:, :100], use[:, 600:610] = True, False
    limits = (1.9, 2.5)
    expected = np.stack(
        [
            clip_one(np.where(u, v, np.nan), by_mean, by_mad, limits, rounds)
            for v, u in zip(values.T, use.T, strict=True)
        ]
    ).T
    kept, residual = use & (expected == 0), np.zeros(values.shape)
    values[~use] = np.nan
    for off in (np.empty((0, 0)), residual):
        found = use.copy()
        reject_deviant(values, found, sorting_network(count), by_mean, by_mad, *limits, rounds, off)
        np.testing.assert_array_equal(found, kept)
    np.testing.assert_array_equal(residual, expected)


@given(stacks(), st.data())
def test_frames_that_lie_elsewhere_are_as_ones_without_data(drawn: Any, data: st.DataObject) -> None:
    """A stack in which some blocks are None is the stack in which these are NaN, but for rules that count all frames."""
    values, bits, variances, changes = drawn
    reject = changes["reject"]
    assume(not isinstance(reject, PercentileClip | MinMax | AvSigmaClip) and changes["nkeep"] > 0)
    here = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    values[~here], bits[~here] = np.nan, BITS["NO_DATA"]
    region = Region.full(values.shape[1:])
    blocks = [Block(region, values[i], variances[i], bits[i]) if present else None for i, present in enumerate(here)]
    alone = combine_frames(Request(region, ALL), blocks, rule=make_rule(len(values), **changes))
    whole = run(values, bits, variances, **changes)
    for plane in ALL:
        np.testing.assert_array_equal(alone.plane(plane), whole.plane(plane), plane)


def test_wide_and_deep_stacks_are_cut_into_batches(rng: np.random.Generator) -> None:
    """More values than fit into a batch, along both axes and over the frames, give NumPy's numbers."""
    for shape in ((3, 2, 70_001), (300, 40, 30), (2, 700, 90)):
        values = rng.normal(size=shape)
        np.testing.assert_allclose(run(values).plane("data"), values.mean(axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(run(values, method="median").plane("data"), np.median(values, axis=0))


def test_inputs_stay_as_they_are(rng: np.random.Generator) -> None:
    """Read-only inputs are enough, and unscaled afterwards."""
    values = rng.normal(size=(3, 4, 5)).astype(np.float32)
    values.setflags(write=False)
    before = values.copy()
    run(values, levels=Levels(scale=(2.0, 3.0, 4.0)))
    np.testing.assert_array_equal(values, before)


def test_only_the_planes_asked_for_are_made() -> None:
    """A request for the mask gives nothing else."""
    region = Region(0, 1, 0, 2)
    blocks = [Block(region, np.array([[1.0, np.nan]]))] * 2
    rule = make_rule(2, uncertainty="propagated", remaps=(None, None))
    block = combine_frames(Request(region, frozenset({"mask"})), blocks, rule=rule)
    assert block.data is None
    assert block.variance is None
    assert block.plane("mask").tolist() == [[0, BITS["NO_DATA"]]]


def test_bits_of_a_frame_move_to_those_of_the_result() -> None:
    """Frames whose masks number their planes differently."""
    bits = np.full((2, 1, 1), 1 << 8, np.uint16)
    block = run(np.ones((2, 1, 1)), bits, remaps=((), ((1 << 8, 1 << 9),)))
    assert block.plane("mask")[0, 0] == 1 << 8 | 1 << 9


@pytest.mark.parametrize("count", [2, 3, 4, 7, 10, 11, 12, 25])
def test_variance_of_medians_of_normal_values(count: int, rng: np.random.Generator) -> None:
    """The factors of the median hold in a simulation, for few and for many frames."""
    values = rng.normal(size=(count, 200, 300))
    measured = run(values, method="median").plane("data").var() * count
    assert median_factor(count) == pytest.approx(measured, rel=0.03)
