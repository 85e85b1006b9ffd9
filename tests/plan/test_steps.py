"""Steps: what they need of their inputs, how they are told apart, and values that are put in."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

import lazyccd
from lazyccd.frame.core import Image, resolve
from lazyccd.kernels import moments, pointwise
from lazyccd.kernels.block import Request
from lazyccd.plan.footprints import (
    MASK_WITH_DATA,
    WITH_DATA,
    Blocks,
    Columns,
    Footprint,
    Halo,
    Placed,
    Replicated,
    Rows,
    Same,
    Shifted,
    Whole,
    Window,
)
from lazyccd.plan.serialize import sources
from lazyccd.plan.steps import (
    Apply,
    Input,
    Join,
    Reduction,
    Scalar,
    Source,
    Step,
    make_dtypes,
    make_params,
    settled,
    walk,
)
from lazyccd.sections import Region
from lazyccd.testing.steps import FormulaStorage, box_step, formula_frame

SHAPE = (30, 40)
REGION = Region(10, 14, 20, 26)


def source(seed: int = 0, dtype: type = np.float32) -> Source:
    """Return a source of pixels."""
    return Source.of(FormulaStorage(SHAPE, np.dtype(dtype), seed))


def affine(step: Step, scale: float = 2.0, **numbers: Scalar) -> Apply:
    """Return a step with a parameter."""
    params = make_params(scale=scale, offset=0.0, dtype="float32")
    sources = (Input(step),)
    return Apply(
        SHAPE, step.planes, kernel=pointwise.affine, sources=sources, params=params, scalars=tuple(numbers.items())
    )


def mean(step: Step) -> Scalar:
    """Return the mean of a step as a value."""
    params = make_params(bad_bits=0, min_value=None)
    return Scalar(
        reduction=Reduction(
            step, partial=moments.sum_and_count, final=moments.mean_of_sums, params=params, region=Region.full(SHAPE)
        )
    )


@pytest.mark.parametrize(
    ("footprint", "expected"),
    [
        (Same(), REGION),
        (Window((3, 4)), Region(13, 17, 24, 30)),
        (Window((29, 4), (-1, 1)), Region(16, 20, 24, 30)),
        (Window((0, 0), (2, 1)), Region(20, 27, 20, 26)),
        (Halo((2, 3)), Region(8, 16, 17, 29)),
        (Halo((20, 30)), Region(0, 30, 0, 40)),
        (Rows(36, 40), Region(10, 14, 36, 40)),
        (Columns(27, 30), Region(27, 30, 20, 26)),
        (Blocks((2, 1)), Region(20, 28, 20, 26)),
        (Replicated((3, 4)), Region(3, 5, 5, 7)),
        (Whole(), Region(0, 30, 0, 40)),
    ],
)
def test_footprints(footprint: Footprint, expected: Region) -> None:
    """Each rule asks for the region that its docstring says."""
    assert footprint.region(REGION, SHAPE) == expected


@pytest.mark.parametrize(
    ("footprint", "shape", "expected"),
    [
        (Same(), SHAPE, (10, 20)),
        (Same(), (1, 40), (0, 20)),
        (Window((29, 4), (-1, 1)), SHAPE, (19, 24)),
        (Window((29, 4), (1, 1)), SHAPE, None),
        (Halo((2, 3)), SHAPE, (10, 20)),
        (Whole(), SHAPE, (10, 20)),
        (Rows(36, 40), SHAPE, None),
        (Columns(27, 30), SHAPE, None),
        (Blocks((2, 1)), SHAPE, (20, 20)),
        (Replicated((3, 4)), SHAPE, (3, 5)),
        (Shifted((4, -3)), SHAPE, (6, 23)),
        (Shifted((11, 0)), SHAPE, None),
        (Placed(Region(8, 14, 18, 22), Region(0, 6, 2, 6), (-1, 1)), SHAPE, (3, 4)),
        (Placed(Region(0, 6, 18, 22), Region(0, 6, 2, 6)), SHAPE, None),
    ],
)
def test_the_pixel_that_a_pixel_shows(
    footprint: Footprint, shape: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    """Each rule says which input pixel stands behind pixel (10, 20), if one does."""
    assert footprint.pixel(10, 20, shape) == expected


@pytest.mark.parametrize(("shape", "expected"), [((1, 40), Region(0, 1, 20, 26)), ((30, 1), Region(10, 14, 0, 1))])
def test_one_row_or_column_is_broadcast(shape: tuple[int, int], expected: Region) -> None:
    """Of an input with one row or column, that one is asked for."""
    assert Same().region(REGION, shape) == expected


def test_only_planes_that_are_used_are_needed() -> None:
    """A product needs data for its variance; a sum does not; a plane that an input lacks is not asked of it."""
    step = Join.of(data=(source(0), "data"), variance=(source(1), "data"))
    wanted = Request(REGION, frozenset({"variance"}))
    assert Input(step).need(wanted) == Request(REGION, frozenset({"variance"}))
    assert Input(step, uses=WITH_DATA).need(wanted) == Request(REGION, frozenset({"data", "variance"}))
    assert Input(step, uses=MASK_WITH_DATA).need(Request(REGION, frozenset({"mask"}))) == Request(
        REGION, frozenset({"data"})
    )
    assert Input(step).need(Request(REGION, frozenset({"mask"}))) is None


def test_join_asks_each_part_for_its_plane() -> None:
    """A join asks only the parts whose planes are wanted."""
    join = Join.of(data=(source(0), "data"), mask=(source(2, np.uint16), "data"))
    assert join.dtypes == {"data": np.dtype("f4"), "mask": np.dtype("u2")}
    assert join.needs(Request(REGION, frozenset({"mask"}))) == (None, Request(REGION, frozenset({"data"})))


def test_equal_work_has_equal_tokens() -> None:
    """Steps made twice are equal; another parameter, input, shape or kernel makes another step."""
    assert affine(source()) == affine(source())
    assert hash(affine(source())) == hash(affine(source()))
    others = [affine(source(), 3.0), affine(source(1)), affine(source(0, np.float64)), box_step(one_source(), 1)]
    assert len({step.token for step in [affine(source()), *others]}) == 5
    assert affine(source(), level=Scalar(given=np.array(1.0))) != affine(source(), level=Scalar(given=np.array(2.0)))


def one_source() -> Image:
    """Return an image of one source."""
    return resolve(formula_frame(SHAPE, uncertainty=False, mask=False))


def test_pickled_steps_are_the_same_work() -> None:
    """A pickled plan keeps its tokens."""
    plan = affine(affine(source()), level=mean(source(3)))
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_walk_yields_inputs_first_and_each_step_once() -> None:
    """A diamond is walked from the bottom."""
    bottom = source()
    left, right = affine(bottom, 2.0), affine(bottom, 3.0)
    top = Join.of(data=(left, "data"), variance=(right, "data"))
    assert [step.token for step in walk(top)] == [bottom.token, left.token, right.token, top.token]


def test_walk_of_a_long_chain_is_not_recursive() -> None:
    """Thousands of steps do not exhaust the stack of Python."""
    step: Step = source()
    for _ in range(3000):
        step = affine(step)
    assert sum(1 for _ in walk(step)) == 3001


def test_settled_puts_numbers_in() -> None:
    """A plan whose values are given has none to compute, other tokens, and the steps below untouched."""
    value = mean(source(3))
    plan = affine(affine(source(), level=value), 5.0)
    assert list(plan.pending) == [value.token]
    done = settled(plan, {value.token: np.array(4.0)})
    assert not done.pending
    assert done != plan
    assert done.inputs[0].inputs[0] is plan.inputs[0].inputs[0]


def test_shape_is_of_python_ints() -> None:
    """NumPy numbers in a shape do not change the token."""
    plain = replace(source(), planes=make_dtypes(data="f4"))
    assert plain == Source((np.int64(30), np.int32(40)), make_dtypes(data="f4"), storage=plain.storage)  # type: ignore[arg-type]


def test_sources_of_plans_are_told_once() -> None:
    """Those that plans share, by their steps or by what their scalars are made from, too."""
    flat, raw = formula_frame(SHAPE, seed=3, low=1.0, high=2.0), formula_frame(SHAPE)
    plans = [resolve(lazyccd.flat_correct(frame, flat)).plan for frame in (raw, raw, formula_frame(SHAPE, seed=5))]
    found = [source.token for source in sources(*plans)]
    assert sorted(found) == sorted({source.token for plan in plans for source in sources(plan)})
    assert len(found) == len(set(found))
