"""Evaluation of a plan inside one task: pull a region through all steps down to the sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lazyccd.errors import MemoryLimitError
from lazyccd.kernels.block import ALL_PLANES, Array, Block, Request, Target, empty_block
from lazyccd.plan.chunks import BANDS_PER_HALO, KEPT_BYTES, MOSAIC_BYTES, STRIP_PIXELS
from lazyccd.plan.on_demand import value_of
from lazyccd.plan.schedule import (
    SMALL_PIXELS,
    Action,
    Call,
    Demands,
    bands,
    calls_at_once,
    demand_below,
    first_strip,
    make_schedule,
    stacks_inside,
)
from lazyccd.plan.steps import Scalar, ScalarValue, Source, Stack, Step
from lazyccd.plan.storage import Reader, StoredRows
from lazyccd.sections import Region

if TYPE_CHECKING:
    from lazyccd.plan.programs import StripProgram  # its kernel takes a while to load, and small work needs none

PROGRAM_PIXELS = SMALL_PIXELS
"""Regions of no more pixels than this are done before a program for them is made, which takes a millisecond."""

HIGH_STRIPS = 4
"""So many times as high are strips that are made by programs alone: a calibration of 4096 x 4096 pixels takes 0.85 times the time."""

Chunks: TypeAlias = Mapping[str, Mapping[tuple[int, int], Array]]
"""The chunks of dask arrays that a task was given, by array name and position."""


class Evaluation:
    """One task's work on a plan; a context manager that closes the files it opened.

    Parameters
    ----------
    chunks
        Chunks that `Chunked` steps read.
    scalars
        Scalars that were pending when the plan was made, by token.
    cuts
        Into how many bands of rows `bands` cuts a region, and by how much it lowers the byte budget of stacks.
    """

    def __init__(self, chunks: Chunks | None = None, scalars: Mapping[str, Array] | None = None, cuts: int = 1) -> None:
        self._cuts = cuts
        self._chunks = chunks or {}
        self._scalars = scalars or {}
        self._readers: dict[str, Reader] = {}
        self._decoded: dict[str, Block] = {}
        self._programs: dict[Any, StripProgram | None] = {}
        self._pixels = 0
        self._root: tuple[Step, Request] | None = None
        self._asked: Demands | None = None
        self._inside: dict[str, list[Block]] = {}

    def __enter__(self) -> Evaluation:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all files."""
        while self._readers:
            self._readers.popitem()[1].close()

    def pull(self, *roots: tuple[Step, Request]) -> list[Block]:
        """Return the block that each root gives for its request."""
        return self._follow(make_schedule(roots), roots)

    def whole(self, step: Step, request: Request) -> Block:
        """Return the block that a step gives for a request, computed in bands."""
        return _whole(step, request, self.bands(step, request))

    def bands(self, step: Step, request: Request, target: Target | None = None) -> Iterator[Block]:
        """Yield the block that a step gives for a request in bands of rows, as they are computed.

        Bands without planes are in the target already.
        """
        # what is asked in all is found only if a reader decodes several rows together
        self._root, self._asked = (step, request), None
        self._pixels = request.region.size
        self._inside = {}
        for inside, requests in stacks_inside(step, request):
            assert isinstance(inside, Stack)
            self._inside[inside.token] = [_whole(inside, each, self._stack(inside, each)) for each in requests]
        for part in cut_request(request, self._cuts):
            if calls := calls_at_once(step, part):
                yield self._strip(calls, part, {}, target)
                continue
            blocks = dict(self._inside)
            *before, last = make_schedule([(step, part)], self._inside)
            for action in before:
                self._run(action, blocks)
            # the last step is handed on band by band: nobody needs its block as a whole
            yield from self._make(last, 0, blocks, target)

    def _follow(self, schedule: Sequence[Action], roots: Sequence[tuple[Step, Request]]) -> list[Block]:
        """Do the work of a schedule."""
        blocks = dict(self._inside)
        for action in schedule:
            self._run(action, blocks)
        return [_find(blocks[step.token], request) for step, request in roots]

    def _run(self, action: Action, blocks: dict[str, list[Block]]) -> None:
        """Compute a kept step whole, and free what nobody needs after it."""
        blocks[action.step.token] = [
            _whole(action.step, request, self._make(action, number, blocks))
            for number, request in enumerate(action.requests)
        ]
        for token in action.frees:
            blocks.pop(token, None)

    def _make(
        self, action: Action, number: int, blocks: dict[str, list[Block]], target: Target | None = None
    ) -> Iterator[Block]:
        """Compute one region of a kept step in bands of rows."""
        step, request = action.step, action.requests[number]
        if isinstance(step, Stack):
            yield from self._stack(step, request)
        elif not action.in_strips:
            needs = step.needs(request)
            given = [
                None if need is None else _find(blocks[s.token], need)
                for s, need in zip(step.inputs, needs, strict=True)
            ]
            yield self._call(step, request, given)
        else:
            times = self._heights(action, request, target)
            for band, calls in action.strips(number, times):
                yield self._strip(calls, band, blocks, target)

    def _heights(self, action: Action, request: Request, target: Target | None) -> int:
        """Return how many times as high strips are as those whose planes stay in cache: more, if a program makes them alone.

        A program keeps no planes, but each strip takes a millisecond of Python.
        """
        if action.known is not None or self._pixels <= PROGRAM_PIXELS:
            return 1
        strip, calls = first_strip(action.segment, request)
        made = self._program(calls, strip, () if target is None else target.forms)
        if made is None or not made.before:
            return 1 if made is None else HIGH_STRIPS
        planes = sum(calls[number].request.region.size for number in made.before)
        return HIGH_STRIPS if HIGH_STRIPS * planes <= strip.region.size else 1

    def _strip(
        self, calls: Sequence[Call], request: Request, blocks: dict[str, list[Block]], target: Target | None
    ) -> Block:
        """Evaluate the segment of a kept step for one strip: by a program, and step by step what cannot be part of it."""
        here: dict[str, list[Block]] = {}

        def find(step: Step, need: Request) -> Block:
            return _find((here if step.token in here else blocks)[step.token], need)

        made = self._program(calls, request, () if target is None else target.forms)
        for call in calls if made is None else [calls[number] for number in made.before]:
            given = [None if need is None else find(*need) for need in call.needs]
            here.setdefault(call.step.token, []).append(self._call(call.step, call.request, given))
        if made is not None:
            from lazyccd.plan.programs import run_program

            return run_program(made, calls, find, self, target)
        return _find(here[calls[-1].step.token], request)

    def _program(
        self, calls: Sequence[Call], request: Request, forms: tuple[tuple[str, str], ...]
    ) -> StripProgram | None:
        """Return the program of a strip, made once for all strips of a task that need the same; None for none."""
        if self._pixels <= PROGRAM_PIXELS or len(calls) == 1:
            return None
        from lazyccd.plan.programs import make_program

        top = request.region.y0
        key = tuple(
            (
                c.step.token,
                c.request.planes,
                c.request.region.y0 - top,
                c.request.region.y1 - top,
                *c.request.region[2:],
            )
            for c in calls
        )
        if key not in self._programs:
            self._programs[key] = make_program(calls, self, forms, key)
        return self._programs[key]

    def stored_rows(self, step: Source) -> StoredRows | None:
        """Return how the rows of a source can be read undecoded; None if they must be decoded."""
        return self._reader(step).stored_rows()

    def _call(self, step: Step, request: Request, given: Sequence[Block | None]) -> Block:
        """Run one step on the blocks that it needs; an error gets a note that says where it happened."""
        try:
            return step.run(request, given, self)
        except Exception as error:
            place = f" of {step.origin}" if step.origin else ""
            note = f"in step {step.label!r}{place}, region {request.region.to_fits()}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise

    def scalars_of(self, step: Step, request: Request) -> dict[str, ScalarValue]:
        """Return the scalars of a step that a request needs by name; for those on demand what makes them."""
        return {name: self._value(scalar) for name, scalar in step.scalars_for(request)}

    def _value(self, scalar: Scalar) -> ScalarValue:
        """Return the numbers of a scalar; for one on demand, a function that returns them."""
        if scalar.given is not None:
            return scalar.given
        return partial(self._made_now, scalar) if scalar.is_on_demand else self._scalars[scalar.token]

    def _made_now(self, scalar: Scalar) -> Array:
        """Return the numbers of a scalar that is on demand."""
        # another evaluation: this one is in the middle of its strips
        with Evaluation(scalars=self._scalars) as evaluation:
            return value_of(scalar, self._scalars, evaluation.whole)

    def chunks_of(self, name: str) -> Mapping[tuple[int, int], Array]:
        """Return the chunks of a dask array that the task was given, by position."""
        return self._chunks[name]

    def _reader(self, step: Source) -> Reader:
        """Return the open reader of a source, opening it if it is the first time."""
        # opened once for all strips of the task; closed with it, since a worker runs thousands of tasks
        if step.token not in self._readers:
            self._readers[step.token] = step.storage.open()
        return self._readers[step.token]

    def read(self, step: Source, region: Region) -> Array:
        """Read a region; where it is lower than the rows that are decoded together, these are kept for the next strip."""
        reader = self._reader(step)
        rows = step.storage.rows
        # each row of tiles is touched by one such read: there is nothing to keep
        if region.shape.y >= rows:
            return reader.read(region)
        if region.y0 // rows == (region.y1 - 1) // rows:
            return self._rows(step, reader, region)
        out = np.empty(region.shape, step.dtypes["data"])
        for y0 in range(region.y0 // rows * rows, region.y1, rows):
            part = region._replace(y0=max(y0, region.y0), y1=min(y0 + rows, region.y1))
            out[part.within(region)] = self._rows(step, reader, part)
        return out

    def _rows(self, step: Source, reader: Reader, region: Region) -> Array:
        """Return some of the rows that are decoded together, a view of those that are kept; none are if they are too many.

        Kept are only those that the task asks for at all.
        """
        rows = step.storage.rows
        first = region.y0 // rows * rows
        if self._asked is None:
            roots = [self._root] if self._root else []
            self._asked = {token: asked.requests for token, asked in demand_below(roots).items()}
        asked = [request.region for request in self._asked.get(step.token, ())]
        top = max(first, min((each.y0 for each in asked), default=0))
        bottom = min(first + rows, max((each.y1 for each in asked), default=step.shape[0]))
        # the footprint of a part can reach out of that of the whole
        whole = region._replace(y0=min(region.y0, top), y1=max(region.y1, bottom))
        kept = self._decoded.pop(step.token, None)
        if kept is None or kept.region != whole:
            kept = None  # gone before others are read
            others = sum(block.nbytes for block in self._decoded.values())
            if others + whole.size * step.dtypes["data"].itemsize > KEPT_BYTES:
                return reader.read(region)
            kept = Block(whole, data=reader.read(whole))
        self._decoded[step.token] = kept
        return kept.crop(region).plane("data")

    def _stack(self, step: Stack, request: Request) -> Iterator[Block]:
        """Combine the frames in bands of rows."""
        for band, roots, schedule in bands(step, request, band_rows(step, request, self._cuts), self._inside):
            found = iter(self._follow(schedule, roots))
            yield self._call(step, band, [None if need is None else next(found) for need in step.needs(band)])


def cut_request(request: Request, cuts: int) -> Iterator[Request]:
    """Yield a request in so many bands of rows, or in fewer if it has fewer rows."""
    return bands_of_rows(request, max(1, -(-request.region.shape.y // cuts)))


def bands_of_rows(request: Request, rows: int) -> Iterator[Request]:
    """Yield a request in bands of so many rows."""
    region = request.region
    for y0 in range(region.y0, region.y1, rows):
        yield request._replace(region=region._replace(y0=y0, y1=min(y0 + rows, region.y1)))


def band_rows(step: Stack, request: Request, cuts: int = 1) -> int:
    """Return how many rows of all frames fit into a part of a stack's byte budget; a strip's at most, if there is no halo.

    Raises
    ------
    MemoryLimitError
        Raised if not even one row fits, or if the frames have a halo and the band would be lower than eight halos.
    """
    # a task that cuts its region to fit into memory has less for the bands too
    budget = step.budget_bytes // cuts
    if step.places:
        return _mosaic_rows(step, request, budget, min(step.budget_bytes, MOSAIC_BYTES) // cuts)
    first = Request(request.region._replace(y1=request.region.y0 + 1), request.planes)
    needs = [(frame, need) for frame, need in zip(step.frames, step.needs(first), strict=True) if need is not None]
    columns = max((need.region.shape.x for _, need in needs), default=1)
    each = max((sum(f.dtypes[p].itemsize for p in need.planes) for f, need in needs), default=1) * columns
    margin = 2 * step.footprint.halo[0]
    halo = max((frame.halo_rows for frame, _ in needs), default=0)
    least = min(max(1, BANDS_PER_HALO * halo), request.region.shape.y) + margin
    rows = budget // max(1, len(needs) * each)
    if rows < least:
        fits = budget // (each * least)
        way_out = "write the cleaned frames first, raise the limit" if halo else "raise the limit"
        raise MemoryLimitError(
            f"{least} row{'s' if least > 1 else ''} of {columns} pixels of {len(needs)} frames "
            f"{f'with a halo of {halo} rows ' if halo else ''}take {len(needs) * each * least} bytes and the bands of a stack "
            f"may take {budget}, which is enough for {fits} frames; {way_out} or combine the frames in groups."
        )
    # without a halo a band is no dearer for being low, and then it stays in cache; with one it is as high as the budget lets it,
    # and so it is over images that are turned: what lies under a low band is nearly as large as what lies under a high one
    if not halo and not margin:
        rows = min(rows, max(1, STRIP_PIXELS // columns))
    return rows - margin


def _mosaic_rows(step: Stack, request: Request, budget: int, usual: int) -> int:
    """Return how many rows of a mosaic are combined at a time: bands take the usual bytes, or up to the budget if they must.

    On each band lie other frames. It is as high as the budget lets it: what lies under a low band of a turned image is nearly as
    large as what lies under a high one.
    """
    rows = request.region.shape.y
    halo = max((step.frames[i].halo_rows for i in step.needed(request)), default=0)
    least = min(max(1, BANDS_PER_HALO * halo), rows)
    while (most := max(stack_bytes(step, band) for band in bands_of_rows(request, rows))) > usual:
        if rows == least:
            if most <= budget:
                break
            raise MemoryLimitError(
                f"{least} row{'s' if least > 1 else ''} of {request.region.shape.x} pixels of the frames of a mosaic take {most} "
                f"bytes and its bands may take {budget}; raise the limit or use smaller chunks."
            )
        # lower bands have fewer frames: some more rows than this may fit, and never so many as before
        rows = max(least, min(rows * usual // most, rows - 1))
    return rows


def stack_bytes(step: Stack, request: Request) -> int:
    """Return the bytes of the blocks of frames that a request needs."""
    return sum(
        need.region.size * sum(step.frames[i].dtypes[plane].itemsize for plane in need.planes)
        for i, need in step.needed(request).items()
    )


def _find(blocks: Sequence[Block], request: Request) -> Block:
    """Return the part of the block that holds the request."""
    # the usual case, asked for each input of each strip
    if len(blocks) == 1 and blocks[0].region == request.region:
        return blocks[0]
    for block in blocks:
        if block.region.contains(request.region) and all(getattr(block, p) is not None for p in request.planes):
            return block.crop(request.region)
    raise AssertionError(f"no block holds {request}")


def _whole(step: Step, request: Request, bands: Iterator[Block]) -> Block:
    """Return the block of a request that is made of bands."""
    out: Block | None = None
    for band in bands:
        # one band is the block itself, without a copy
        if band.region == request.region:
            return band
        out = out or empty_block(request, step.dtypes)
        _paste(band, out)
    assert out is not None
    return out


def _paste(part: Block, out: Block) -> None:
    """Copy a strip into the block it belongs to."""
    cut = part.region.within(out.region)
    for plane in ALL_PLANES:
        target = getattr(out, plane)
        if target is not None:
            target[cut] = part.plane(plane)
