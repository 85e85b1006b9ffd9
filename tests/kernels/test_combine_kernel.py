"""Stacks of blocks against a slow reference that does one pixel at a time."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyccd.flags import MaskSchema
from lazyccd.kernels.block import PLANES, Block, Request
from lazyccd.kernels.combine import Rule, combine_frames, median_factor
from lazyccd.kernels.stack_loops import sort_frames
from lazyccd.sections import Region

Array = npt.NDArray[Any]
SCHEMA = MaskSchema()
BITS = {name: SCHEMA.bits(name) for name in SCHEMA.names}
CLASSES = (("INTERP",), ("SAT",), ("CR", "LOW_FLAT"), ("BAD",), ("NO_DATA",))


def make_rule(count: int, **changes: Any) -> Rule:
    """Return a plain average, with some fields changed."""
    rule = Rule(
        method="average",
        weights=(1.0,) * count,
        scale=(1.0,) * count,
        rejections=(),
        uncertainty="scatter",
        dtype="float64",
        mask_dtype="uint16",
        remaps=((),) * count,
        bad=SCHEMA.bad_bits,
        ranks=tuple(SCHEMA.bits(*names) & SCHEMA.bad_bits for names in CLASSES),
        saturated=BITS["SAT"],
        clipped=BITS["CLIPPED"],
        no_data=BITS["NO_DATA"],
    )
    return replace(rule, **changes)


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
    return combine_frames(Request(region, frozenset(PLANES)), blocks, rule=make_rule(len(values), **changes))


def mad(values: list[float]) -> float:
    """Return the median distance from the median."""
    middle = statistics.median(values)
    return statistics.median([abs(v - middle) for v in values])


def std(values: list[float]) -> float:
    """Return the standard deviation of n."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def worst_class(bits: int) -> int:
    """Return the worst class of a bad input."""
    return max(k for k, names in enumerate(CLASSES) if bits & SCHEMA.bits(*names) & SCHEMA.bad_bits)


def reference(values: list[float], bits: list[int], variances: list[float], rule: Rule) -> tuple[float, float, int]:
    """Combine one pixel."""
    bits = [b if math.isfinite(v) else b | BITS["NO_DATA"] for v, b in zip(values, bits, strict=True)]
    left = [i for i, b in enumerate(bits) if not b & rule.bad]
    all_bad, rejected = not left, False
    if all_bad:
        least = min(worst_class(b) for b in bits)
        left = [i for i, b in enumerate(bits) if worst_class(b) == least < 4]
    for name, settings in rule.rejections:
        if not left or all_bad:
            break
        if name == "limits":
            low, high = settings
        else:
            centre_name, deviation_name, low, high = settings
            inputs = [values[i] for i in left]
            centre = sum(inputs) / len(inputs) if centre_name == "mean" else statistics.median(inputs)
            deviation = std(inputs) if deviation_name == "std" else 1.482602218505602 * mad(inputs)
            low = None if low is None else centre - low * deviation
            high = None if high is None else centre + high * deviation
        stay = [i for i in left if (low is None or values[i] >= low) and (high is None or values[i] <= high)]
        rejected |= stay != left
        left = stay
    return combine_left(values, bits, variances, rule, left, rejected=rejected)


def combine_left(
    values: list[float], bits: list[int], variances: list[float], rule: Rule, left: list[int], *, rejected: bool
) -> tuple[float, float, int]:
    """Combine the inputs of one pixel that were not rejected."""
    assert rule.scale is not None
    mask = 0
    for i in left:
        mask |= bits[i]
    weights = [1.0] * len(values) if rule.method == "median" else list(rule.weights)
    lost = sum(weights[i] for i in range(len(values)) if i not in left and bits[i] & BITS["SAT"])
    mask |= BITS["CLIPPED"] * rejected | BITS["SAT"] * (lost > 0.1 * sum(weights))
    if not left:
        return (0.0 if rule.method == "sum" else math.nan), math.nan, mask | BITS["NO_DATA"]
    x = [values[i] * rule.scale[i] for i in left]
    w = [weights[i] for i in left]
    n = len(x)
    total = sum(a * b for a, b in zip(w, x, strict=True))
    data = {"average": total / sum(w), "sum": total, "median": statistics.median(x)}[rule.method]
    if rule.uncertainty == "ccdproc":
        each = {"average": std(x) / n**0.5, "sum": std(x) * n**0.5, "median": 1.482602218505602 * mad(x) / n**0.5}
        return data, each[rule.method] ** 2, mask
    v = [statistics.variance(x) if n > 1 else math.nan] * n
    if rule.uncertainty == "propagated":
        v = [variances[i] * rule.scale[i] ** 2 for i in left]
    weighted = sum(a * a * b for a, b in zip(w, v, strict=True))
    variance = {"average": weighted / sum(w) ** 2, "sum": weighted, "median": sum(v) / n**2 * median_factor(n)}
    return data, variance[rule.method], mask


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Draw frames with ties, NaN, infinities and masks, and a rule."""
    count = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, draw(st.integers(1, 9)), draw(st.integers(1, 40)))
    # small integers: many ties, and sums that are exact in any order
    values = rng.integers(0, 6, shape).astype(np.float64)
    values[rng.random(shape) < 0.1] *= 64
    values[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    share = draw(st.sampled_from([0.0, 0.3, 0.9]))
    flags = np.array([*BITS.values(), BITS["CR"] | BITS["SAT"], BITS["INTERP"] | BITS["BAD"]], np.uint16)
    bits = np.where(rng.random(shape) < share, rng.choice(flags, shape), 0).astype(np.uint16)
    sigma = (
        draw(st.sampled_from(["mean", "median"])),
        draw(st.sampled_from(["std", "mad_std"])),
        # thresholds that no distance of small integers over their deviation equals
        draw(st.sampled_from([None, 1.0371, 1.6143])),
        draw(st.sampled_from([None, 0.9173, 2.0371])),
    )
    limits = (draw(st.sampled_from([None, 1.0])), draw(st.sampled_from([None, 5.0])))
    rules = {
        "method": draw(st.sampled_from(["average", "median", "sum"])),
        "uncertainty": draw(st.sampled_from(["propagated", "scatter", "ccdproc"])),
        "rejections": draw(st.sampled_from([(), (("sigma", sigma),), (("limits", limits), ("sigma", sigma))])),
        "weights": tuple(rng.integers(1, 4, count).astype(float)) if draw(st.booleans()) else (1.0,) * count,
        "scale": tuple(rng.choice([0.5, 1.0, 2.0], count)) if draw(st.booleans()) else (1.0,) * count,
    }
    return values, bits, rng.integers(1, 9, shape).astype(np.float64), rules


@given(stacks())
def test_stack_is_that_of_the_reference(drawn: tuple[Array, Array, Array, dict[str, Any]]) -> None:
    """Data, variance and mask of every pixel, for all methods, rejections and uncertainties."""
    values, bits, variances, changes = drawn
    block = run(values, bits, variances, **changes)
    rule = make_rule(len(values), **changes)
    for y, x in np.ndindex(values.shape[1:]):
        data, variance, mask = reference(
            values[:, y, x].tolist(), bits[:, y, x].tolist(), variances[:, y, x].tolist(), rule
        )
        np.testing.assert_allclose(block.plane("data")[y, x], data, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(block.plane("variance")[y, x], variance, rtol=1e-12, atol=1e-12)
        assert block.plane("mask")[y, x] == mask


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
    for plane in PLANES:
        np.testing.assert_array_equal(alone.plane(plane), whole.crop(part).plane(plane))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 20, 33])
def test_network_sorts(count: int, rng: np.random.Generator) -> None:
    """Each pixel's values come in order, infinities last."""
    values = rng.integers(0, 9, (count, 200)).astype(np.float64)
    values[rng.random(values.shape) < 0.2] = np.inf
    expected = np.sort(values, axis=0)
    sort_frames(values)
    np.testing.assert_array_equal(values, expected)


def test_network_sorts_all_zero_one_inputs() -> None:
    """A network that sorts all sequences of 0 and 1 sorts everything (Knuth 5.3.4, theorem Z)."""
    for count in range(1, 13):
        numbers = np.arange(2**count)
        values = ((numbers >> np.arange(count)[:, None]) & 1).astype(np.float64)
        sort_frames(values)
        assert (np.diff(values, axis=0) >= 0).all()


def test_wide_and_deep_stacks_are_cut_into_pieces(rng: np.random.Generator) -> None:
    """More values than fit into a piece, along both axes and over the frames, give NumPy's numbers."""
    for shape in ((3, 2, 70_001), (300, 40, 30), (2, 700, 90)):
        values = rng.normal(size=shape)
        np.testing.assert_allclose(run(values).plane("data"), values.mean(axis=0), rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(run(values, method="median").plane("data"), np.median(values, axis=0))


def test_inputs_stay_as_they_are(rng: np.random.Generator) -> None:
    """Read-only inputs are enough, and unscaled afterwards."""
    values = rng.normal(size=(3, 4, 5)).astype(np.float32)
    values.setflags(write=False)
    before = values.copy()
    run(values, scale=(2.0, 3.0, 4.0))
    np.testing.assert_array_equal(values, before)


def test_only_the_planes_asked_for_are_made() -> None:
    """A request for the mask gives nothing else."""
    region = Region(0, 1, 0, 2)
    blocks = [Block(region, np.array([[1.0, np.nan]]))] * 2
    block = combine_frames(Request(region, frozenset({"mask"})), blocks, rule=make_rule(2, uncertainty="propagated"))
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
