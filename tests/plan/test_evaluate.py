"""Evaluation: each step once, only what is needed, in strips and bands, with errors that say where."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyccd.errors import MemoryLimitError
from lazyccd.frame.core import Image, make_image
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import Block, Request
from lazyccd.ops import subtract_overscan
from lazyccd.plan.chunks import chunk_boxes, regular_grid
from lazyccd.plan.evaluate import Evaluation
from lazyccd.plan.footprints import Halo, Window
from lazyccd.plan.schedule import make_schedule
from lazyccd.plan.steps import Apply, Chunked, Input, Join, Source, Stack, Step, make_dtypes, make_params
from lazyccd.sections import Region
from lazyccd.testing.steps import READS, FormulaStorage, box_step, formula_frame

Array = npt.NDArray[Any]
DATA = frozenset({"data"})
CALLS: list[Region] = []
"""Regions for which `counted` was called."""
BANDS: list[Region] = []
"""Regions for which `total` was called."""


def counted(request: Request, a: Block) -> Block:
    """Pass the data on and note the call."""
    CALLS.append(request.region)
    return Block(request.region, data=a.plane("data"))


def failing(request: Request, a: Block) -> Block:
    """Fail."""
    raise ZeroDivisionError("no")


def total(request: Request, blocks: list[Block]) -> Block:
    """Sum the frames of a stack and note the band."""
    BANDS.append(request.region)
    return Block(request.region, data=sum((b.plane("data") for b in blocks), np.zeros(request.region.shape, "f4")))


def source(shape: tuple[int, int], seed: int = 0, dtype: type = np.float32) -> Source:
    """Return a source of pixels."""
    return Source.of(FormulaStorage(shape, np.dtype(dtype), seed))


def image(step: Step) -> Image:
    """Return an image of a step's data."""
    return make_image(step, units=1, grid=regular_grid(step.shape, step.shape))


def apply(kernel: Any, *inputs: Input, shape: tuple[int, int] | None = None, **params: Any) -> Apply:
    """Return a step that gives data."""
    planes = make_dtypes(data="f4")
    return Apply(shape or inputs[0].step.shape, planes, kernel=kernel, sources=inputs, params=make_params(**params))


def subtract(a: Step, b: Step) -> Apply:
    """Return a difference of data."""
    return apply(pointwise.add_scaled, Input(a), Input(b), scale=-1.0, dtype="float32", mask_dtype="uint16", remap=())


def pull(step: Step, region: Region | None = None, planes: frozenset[str] = DATA, **given: Any) -> Block:
    """Evaluate a region of a step."""
    region = Region.full(step.shape) if region is None else region
    with Evaluation(**given) as evaluation:
        return evaluation.pull((step, Request(region, planes)))[0]


def box_reference(values: Array, radius: int) -> Array:
    """Return the sums over squares, one pixel after the other."""
    out = np.zeros_like(values)
    for y, x in np.ndindex(values.shape):
        near = values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        out[y, x] = near.sum()
    return out


@pytest.mark.parametrize("region", [None, Region(0, 3, 0, 2), Region(7, 9, 4, 13), Region(12, 15, 10, 13)])
def test_a_neighbourhood_sees_its_neighbours(region: Region | None) -> None:
    """A region of a filtered image is the same as the filtered image's region, at the edges too."""
    raw = source((15, 13))
    step = box_step(image(box_step(image(raw), 1)), 2)
    pixels = raw.storage.open().read(Region.full(raw.shape)).astype(float)
    expected = box_reference(box_reference(pixels, 1), 2)
    region = region or Region.full(raw.shape)
    np.testing.assert_allclose(pull(step, region).plane("data"), expected[region.slices], rtol=1e-5)


def test_a_step_used_twice_is_computed_once() -> None:
    """Of x - filter(x), x is computed once, over the larger of both regions, and its file read once."""
    x = apply(counted, Input(source((60, 70))))
    CALLS.clear()
    READS.clear()
    pull(subtract(x, box_step(image(x), 3)), Region(20, 30, 20, 30))
    assert [Region(17, 33, 17, 33)] == CALLS
    assert [region for _, region in READS] == CALLS


def test_regions_of_shifted_readers_are_united() -> None:
    """Two readers whose windows overlap make one request; the difference is exact."""
    x = apply(counted, Input(source((60, 70))))
    shifted = [
        apply(pointwise.window, Input(x, Window((k, k))), shape=(50, 60), offset=(k, k), step=(1, 1)) for k in (0, 5)
    ]
    CALLS.clear()
    block = pull(subtract(box_step(image(shifted[0]), 1), box_step(image(shifted[1]), 1)))
    assert [Region(0, 55, 0, 65)] == CALLS
    whole = [pull(box_step(image(step), 1)).plane("data") for step in shifted]
    np.testing.assert_array_equal(block.plane("data"), whole[0] - whole[1])


def test_far_regions_of_one_source_are_not_united() -> None:
    """A chunk at the left of a wide image reads itself and the overscan at the far right, not what lies between."""
    ds = subtract_overscan(
        formula_frame((128, 100_000), (128, 128), mask=False, uncertainty=False), fits_section="[99985:100000,1:128]"
    )
    READS.clear()
    ds["data"].isel(x=slice(0, 128)).compute(scheduler="sync")
    assert {region.shape.x for _, region in READS} == {128, 16}
    assert sum(region.size for _, region in READS) == 128 * (128 + 16)


def test_regions_that_are_near_only_in_a_strip() -> None:
    """An image less its mirrored right half: far apart as a whole, the regions lie side by side in one of the strips."""
    kept = box_step(image(source((1635, 800))), 1)
    doubled = apply(pointwise.affine, Input(kept), scale=2.0, offset=0.0, dtype="float32")
    halves = []
    for offset, step in (((0, 0), (1, 1)), ((1634, 400), (-1, 1))):
        halves.append(
            apply(pointwise.window, Input(doubled, Window(offset, step)), shape=(1000, 400), offset=offset, step=step)
        )
    whole = pull(doubled).plane("data")
    expected = whole[:1000, :400] - whole[1634:634:-1, 400:]
    np.testing.assert_array_equal(pull(subtract(*halves)).plane("data"), expected)


def test_only_planes_asked_for_are_read() -> None:
    """The mask alone does not read the data."""
    join = Join.of(data=(source((20, 20), 1), "data"), mask=(source((20, 20), 2, np.uint16), "data"))
    READS.clear()
    block = pull(join, planes=frozenset({"mask"}))
    assert block.data is None
    assert {name for name, _ in READS} == {"formula 2"}


def test_join_takes_planes_of_different_steps() -> None:
    """Data, variance and mask come from the steps that were given, under the names that they have there."""
    parts = [source((9, 8), 1), source((9, 8), 2), source((9, 8), 3, np.uint16)]
    inner = Join.of(data=(parts[0], "data"), mask=(parts[2], "data"))
    join = Join.of(data=(parts[1], "data"), variance=(inner, "data"), mask=(inner, "mask"))
    block = pull(join, planes=frozenset({"data", "variance", "mask"}))
    for plane, part in zip(("data", "variance", "mask"), (parts[1], parts[0], parts[2]), strict=True):
        np.testing.assert_array_equal(block.plane(plane), pull(part).plane("data"))


def test_blocks_are_freed_after_their_last_reader() -> None:
    """In a chain of neighbourhoods each kept block is given up by the next but the last."""
    steps = [box_step(image(source((40, 40))), 1)]
    for _ in range(3):
        steps.append(box_step(image(steps[-1]), 1))
    schedule = make_schedule([(steps[-1], Request(Region(10, 20, 10, 20), DATA))])
    assert [action.frees for action in schedule[1:]] == [(action.step.token,) for action in schedule[:-1]]
    assert steps[-1].halo_rows == 4


def stack(frames: tuple[Step, ...], budget: int) -> Stack:
    """Return a sum of frames."""
    return Stack(frames[0].shape, make_dtypes(data="f4"), kernel=total, frames=frames, budget_bytes=budget)


def test_stack_reads_bands_within_its_budget() -> None:
    """Bands have as many rows as the budget allows, and do not change the sum."""
    frames = tuple(source((100, 50), seed) for seed in range(4))
    BANDS.clear()
    block = pull(stack(frames, budget=4 * 4 * 50 * 15), Region(3, 97, 0, 50))
    assert [band.shape.y for band in BANDS] == [15] * 6 + [4]
    expected = sum(pull(frame, Region(3, 97, 0, 50)).plane("data") for frame in frames)
    np.testing.assert_array_equal(block.plane("data"), expected)


def test_stack_of_filtered_frames() -> None:
    """Frames with a halo are read in bands of eight halos or more, exactly."""
    frames = tuple(box_step(image(source((100, 50), seed)), 2) for seed in range(3))
    block = pull(stack(frames, budget=3 * 4 * 50 * 16))
    expected = sum(pull(frame).plane("data") for frame in frames)
    np.testing.assert_array_equal(block.plane("data"), expected)


def test_stack_refuses_bands_that_are_mostly_halo() -> None:
    """Below eight halos a stack is refused, with the numbers and the way out."""
    frames = tuple(box_step(image(source((100, 50), seed)), 2) for seed in range(3))
    message = r"16 rows of 50 pixels of 3 frames with a halo of 2 rows take 9600 .* enough for 2 frames; write the cleaned frames"
    with pytest.raises(MemoryLimitError, match=message):
        pull(stack(frames, budget=3 * 4 * 50 * 15))


def test_stack_inside_of_a_plan() -> None:
    """A frame less a master that is stacked in the same plan."""
    frames = tuple(source((40, 50), seed) for seed in range(3))
    master = stack(frames, budget=2**20)
    step = box_step(image(subtract(frames[0], master)), 1)
    region = Region(5, 20, 7, 30)
    full = pull(step).plane("data")
    np.testing.assert_array_equal(pull(step, region).plane("data"), full[region.slices])


def test_several_roots_share_their_work() -> None:
    """A step and one that reads it are pulled together; the lower one is computed once."""
    x = apply(counted, Input(source((60, 70))))
    y = box_step(image(x), 1)
    CALLS.clear()
    with Evaluation() as evaluation:
        low, high = evaluation.pull((x, Request(Region(0, 8, 0, 8), DATA)), (y, Request(Region(0, 8, 0, 8), DATA)))
    assert [Region(0, 9, 0, 9)] == CALLS
    assert low.region == high.region == Region(0, 8, 0, 8)


def test_errors_say_where() -> None:
    """A failure in a kernel or a file names step, source and region, once."""
    bad = apply(failing, Input(source((60, 70))))
    with pytest.raises(ZeroDivisionError) as caught:
        pull(subtract(bad, source((60, 70))), Region(3, 10, 0, 5))
    assert caught.value.__notes__ == ["in step 'failing', region [1:5,4:10]"]


def test_errors_in_stacks_say_where() -> None:
    """A failure in the kernel of a stack names the stack and the band."""
    bad = Stack((4, 5), make_dtypes(data="f4"), kernel=failing, frames=(source((4, 5)),))
    with pytest.raises(ZeroDivisionError) as caught:
        pull(bad)
    assert caught.value.__notes__ == ["in step 'failing', region [1:5,1:4]"]


def test_plans_may_be_deeper_than_the_stack_of_python() -> None:
    """A loop of a user's that adds a thousand times makes a plan that is pulled like any other."""
    step: Step = source((3, 4))
    first = pull(step).plane("data")
    for _ in range(2 * sys.getrecursionlimit()):
        step = subtract(step, source((3, 4), seed=1))
    expected = first.copy()
    other = pull(source((3, 4), seed=1)).plane("data")
    for _ in range(2 * sys.getrecursionlimit()):
        expected = expected - other
    np.testing.assert_array_equal(pull(step).plane("data"), expected)


@pytest.mark.parametrize("region", [Region(0, 1, 0, 1), Region(2, 5, 3, 9), Region(0, 6, 0, 10), Region(3, 4, 9, 10)])
def test_assemble_cuts_a_region_out_of_chunks(region: Region) -> None:
    """Only the chunks that a region touches are needed, and they give exactly its pixels."""
    chunks = ((1, 2, 3), (4, 1, 5))
    values = np.arange(60.0).reshape(6, 10)
    step = Chunked((6, 10), make_dtypes(data="f8"), name="a", chunks=chunks)
    given = {index: values[box.slices] for index, box in chunk_boxes(chunks, region)}
    np.testing.assert_array_equal(step.assemble(region, given), values[region.slices])
    np.testing.assert_array_equal(pull(step, region, chunks={"a": given}).plane("data"), values[region.slices])


def test_halo_over_chunks() -> None:
    """A neighbourhood over dask chunks of another grid depends on the chunks that its halo touches."""
    step = Chunked((9, 9), make_dtypes(data="f4"), name="a", chunks=((3, 3, 3), (3, 3, 3)))
    grown = Input(step, Halo((1, 1))).need(Request(Region(3, 6, 0, 3), DATA))
    assert grown is not None
    assert [index for index, _ in chunk_boxes(step.chunks, grown.region)] == [
        (i, j) for i in range(3) for j in range(2)
    ]


@given(data=st.data())
def test_a_stack_needs_the_frames_that_a_region_touches(data: st.DataObject) -> None:
    """As by intersecting each place with the region, before and after it went to a worker."""
    shape, side = (40, 30), st.integers(1, 12)
    corners = st.tuples(st.integers(0, 28), st.integers(0, 18), side, side)
    places = tuple(
        Region(y, y + h, x, x + w)
        for y, x, h, w in data.draw(st.lists(corners, min_size=1, max_size=20), label="places")
    )
    y, x, h, w = data.draw(corners, label="region")
    frames = tuple(source(shape) for _ in places)
    stack = Stack(shape, make_dtypes(data="f4"), kernel=total, frames=frames, places=places)
    request = Request(Region(y, y + h, x, x + w), frozenset({"data"}))
    touched = [i for i, place in enumerate(places) if place.intersect(request.region).size]
    for one in (stack, pickle.loads(pickle.dumps(stack))):
        assert list(one.needed(request)) == touched
        assert [i for i, need in enumerate(one.needs(request)) if need is not None] == touched
