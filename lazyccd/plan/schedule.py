"""The order of work inside one task: what is computed whole, what strip by strip, and when it is freed.

1. Requests are sent down from the roots; the regions that several readers ask of one step are united, unless they lie so
   far apart that uniting them would mean reading much that nobody needs.
2. A step is *kept*, computed once over its whole region, if it is a root, looks at neighbours, is looked at by one that
   does, or is read by two kept steps. All others are evaluated inside of the one kept step that needs them, in strips of
   rows that stay in cache.
3. Kept blocks are freed when the last step that reads them is done.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lazyccd.kernels.block import Request
from lazyccd.plan.chunks import STRIP_PIXELS
from lazyccd.plan.steps import Stack, Step, held_arrays, walk
from lazyccd.sections import Region

WASTE = 1.25
"""Two requests on a step are united if the union has at most so many times the pixels of both."""

SMALL_PIXELS = 2 * STRIP_PIXELS
"""Regions of up to so many pixels are one strip."""

SINGLE_PIXELS = 2**24
"""In single calls, regions of few steps are one strip that is the result: up to so many pixels of all steps together."""

Demands = dict[str, list[Request]]

Roots = list[tuple[Step, Request]]
"""Steps, and what is asked of them."""


def add_request(requests: list[Request], new: Request, *, in_strip: bool = False) -> None:
    """Unite a request with those on the same step, or keep it apart if they lie far from each other.

    In a strip, only regions that hold one another are united: the strip must not ask kept steps for more than the whole
    region asked of them, where regions may lie far apart that are close in the strip.
    """
    # few requests meet at a step, so that trying all of them costs nothing
    for i, old in enumerate(requests):
        union = old.region.union(new.region)
        near = not in_strip and union.size <= WASTE * (old.region.size + new.region.size)
        if near or union in (old.region, new.region):
            # the union may now touch others that the old request did not
            del requests[i]
            add_request(requests, Request(union, old.planes | new.planes), in_strip=in_strip)
            return
    requests.append(new)


def demand(order: Sequence[Step], roots: Sequence[tuple[Step, Request]], *, in_strip: bool = False) -> Demands:
    """Return the requests on every step of ``order`` (inputs first) that the roots lead to, down to stacks.

    Parameters
    ----------
    order
        Steps, inputs before readers.
    roots
        Steps and what is asked of them.
    in_strip
        See `add_request`.
    """
    demands: Demands = {}
    # readers before inputs: all requests on a step are known before it asks for its own
    for step, request in roots:
        add_request(demands.setdefault(step.token, []), request, in_strip=in_strip)
    for step in reversed(order):
        if step.pulls_inputs:
            continue
        for request in demands.get(step.token, ()):
            for source, need in zip(step.inputs, step.needs(request), strict=True):
                if need is not None:
                    add_request(demands.setdefault(source.token, []), need, in_strip=in_strip)
    return demands


class Asked(NamedTuple):
    """All that is asked of a step."""

    step: Step
    requests: list[Request]
    """Those of the frames of one stack are united where they lie near, those of several stacks are not: each reads by itself."""


def demand_below(roots: Sequence[tuple[Step, Request]]) -> dict[str, Asked]:
    """Return what the roots lead to of every step, the frames of stacks too, by tokens."""
    found: dict[str, Asked] = {}
    todo = [list(roots)]
    while todo:
        level = todo.pop()
        # of a mosaic of thousands of frames those that lie elsewhere are not even looked at
        order = list(walk(*(step for step, _ in level), into_stacks=False))
        demands = demand(order, level)
        for step in order:
            requests = demands.get(step.token, [])
            if not requests:
                continue
            found.setdefault(step.token, Asked(step, [])).requests.extend(requests)
            if step.pulls_inputs:
                todo += [_needed(step, request) for request in requests]
    return found


def stacks_inside(step: Step, request: Request) -> list[Asked]:
    """Return the stacks that frames of another stack are compared with, and all that a task needs of them.

    They are made first and held: each band of frames would make them anew, with the margins that these need.
    """
    if step.stacks_deep < 2:
        return []
    found: dict[str, Asked] = {}
    for stack, requests in _stacks([(step, request)]):
        for frames in (_needed(stack, each) for each in requests):
            for inside, wanted in _stacks(frames):
                held = found.setdefault(inside.token, Asked(inside, [])).requests
                for one in wanted:
                    add_request(held, one)
    return list(found.values())


def _stacks(roots: Roots) -> list[Asked]:
    """Return the stacks that roots lead to, not those below them, and what is asked of each."""
    order = list(walk(*(step for step, _ in roots), into_stacks=False))
    demands = demand(order, roots)
    return [Asked(step, demands[step.token]) for step in order if step.pulls_inputs and step.token in demands]


def _needed(step: Step, request: Request) -> Roots:
    """Return the inputs of a step of which a request needs something, and what."""
    return [(source, need) for source, need in zip(step.inputs, step.needs(request), strict=True) if need is not None]


class Call(NamedTuple):
    """One region of one step, as a strip needs it."""

    step: Step
    """The step to run."""

    request: Request
    """Region and planes of its output."""

    needs: tuple[tuple[Step, Request] | None, ...]
    """Each input and what is needed of it; None where nothing is."""

    def moved(self, rows: int) -> Call:
        """Return the same call some rows further down."""
        needs = tuple(need and (need[0], _moved(*need, rows)) for need in self.needs)
        return Call(self.step, _moved(self.step, self.request, rows), needs)


Strip = tuple[Request, list[Call]]
"""A band of rows of a kept step, and the calls that make it."""


@dataclass(frozen=True)
class Action:
    """One kept step of a task."""

    step: Step
    """The step to compute."""

    requests: tuple[Request, ...]
    """Its regions and planes."""

    segment: tuple[Step, ...]
    """Steps evaluated inside of it, inputs first, ending with the step itself."""

    frees: tuple[str, ...]
    """Tokens of kept steps that nobody needs after it."""

    # not compared: a repeated band is the same work whether or not its strips were found yet
    known: tuple[list[Strip], ...] | None = field(default=None, compare=False, repr=False)
    """The strips of each request, if they were found before."""

    @property
    def in_strips(self) -> bool:
        """Whether the step is evaluated strip by strip."""
        return self.step.local and bool(self.step.inputs)

    def strips(self, number: int, times: int = 1) -> Iterable[Strip]:
        """Return the strips of one of the requests; if they were not found before, so many times as high."""
        return strips(self.segment, self.requests[number], times) if self.known is None else self.known[number]

    def with_strips(self) -> Action:
        """Return the action with its strips, if it has any."""
        if self.known is not None or not self.in_strips:
            return self
        return replace(self, known=tuple(list(self.strips(k)) for k in range(len(self.requests))))

    def moved(self, rows: int) -> Action:
        """Return the same action some rows further down."""
        requests = tuple(_moved(self.step, request, rows) for request in self.requests)
        known = self.known and tuple(
            [(_moved(self.step, strip, rows), [call.moved(rows) for call in calls]) for strip, calls in each]
            for each in self.known
        )
        return Action(self.step, requests, self.segment, self.frees, known)


def make_schedule(roots: Sequence[tuple[Step, Request]], given: Collection[str] = ()) -> list[Action]:
    """Return the kept steps in the order in which a task computes them.

    Parameters
    ----------
    roots
        Steps, and what is asked of them.
    given
        Tokens of steps of which the task has all that it needs; see `stacks_inside`.
    """
    order = list(walk(*(step for step, _ in roots), seen=set(given), into_stacks=False))
    demands = demand(order, roots)
    kept = _kept(order, demands, {step.token for step, _ in roots}).union(given)
    segments = {step.token: _segment(step, kept, demands) for step in order if step.token in kept}
    last_reader: dict[str, str] = {}
    for step in order:
        if step.token in kept and step.token in demands:
            for token in _leaves(segments[step.token], kept, step):
                last_reader[token] = step.token
    # roots are handed on when all is done
    keep_for_ever = {step.token for step, _ in roots}.union(given)
    return [
        Action(
            step,
            tuple(demands[step.token]),
            segments[step.token],
            tuple(t for t, reader in last_reader.items() if reader == step.token and t not in keep_for_ever),
        )
        for step in order
        if step.token in kept and step.token in demands
    ]


def _kept(order: Sequence[Step], demands: Demands, roots: set[str]) -> set[str]:
    """Return the tokens of the steps that are computed whole."""
    kept = set(roots)
    owner: dict[str, str] = {}
    for step in reversed(order):
        if step.token not in demands:
            continue
        if not step.local:
            # strip by strip, its margin would be computed again for every strip
            kept.add(step.token)
        if step.pulls_inputs:
            continue
        mine = step.token if step.token in kept else owner[step.token]
        for source in step.inputs:
            # read by two kept steps: computed in the strips of both, it would be computed twice
            if not step.local or owner.setdefault(source.token, mine) != mine:
                kept.add(source.token)
    return kept


def _segment(step: Step, kept: set[str], demands: Demands) -> tuple[Step, ...]:
    """Return the steps below a kept step that are evaluated with it, inputs first."""
    found: list[Step] = []
    seen: set[str] = set()
    todo: list[tuple[Step, bool]] = [(step, False)]
    while todo:
        at, ready = todo.pop()
        if ready:
            found.append(at)
        elif at.token not in seen:
            seen.add(at.token)
            todo.append((at, True))
            below = () if at.pulls_inputs else at.inputs
            todo.extend((s, False) for s in reversed(below) if s.token not in kept and s.token in demands)
    return tuple(found)


def _leaves(segment: Sequence[Step], kept: set[str], root: Step) -> Iterator[str]:
    """Yield the tokens of kept steps that a segment reads."""
    for step in segment:
        if not step.pulls_inputs:
            yield from (s.token for s in step.inputs if s.token in kept and s.token != root.token)


def strip_rows(segment: Sequence[Step], request: Request) -> int:
    """Return how many rows of a request are evaluated at a time.

    What one row and two rows ask of the steps of the segment says what each further row costs; a decimated image asks for
    whole spans of rows of its input, which are not worth reading.
    """
    step, region = segment[-1], request.region

    def largest(rows: int) -> int:
        strip = Request(region._replace(y1=region.y0 + rows), request.planes)
        asked = demand(segment, [(step, strip)], in_strip=True)
        return max(sum(r.region.size for r in requests) for requests in asked.values())

    # so few pixels that a second strip costs more than it gains: of 512² pixels one strip takes 0.3 ms less than two
    if region.shape.y == 1 or largest(region.shape.y) <= SMALL_PIXELS:
        return region.shape.y
    # two trials tell the fixed part (lines, halos along x) from what each row adds, for any mix of footprints
    first = largest(1)
    return int(min(region.shape.y, 1 + max(STRIP_PIXELS - first, 0) // max(1, largest(2) - first)))


def _moved(step: Step, request: Request, rows: int) -> Request:
    """Return a request further down; a single row, which is broadcast, stays where it is."""
    if step.shape[0] == 1:
        return request
    y0, y1, x0, x1 = request.region
    return Request(Region(y0 + rows, y1 + rows, x0, x1), request.planes)


def strip_calls(segment: Sequence[Step], request: Request) -> list[Call]:
    """Return the calls, inputs first, that evaluate a segment for one strip."""
    demands = demand(segment, [(segment[-1], request)], in_strip=True)
    calls = []
    for step in segment:
        for wanted in demands.get(step.token, ()):
            pairs = zip(step.inputs, step.needs(wanted), strict=True)
            needs = tuple(None if need is None else (source, need) for source, need in pairs)
            calls.append(Call(step, wanted, needs))
    return calls


def calls_at_once(step: Step, request: Request) -> list[Call]:
    """Return the calls that make a small region of a plan without halos in one strip, as its schedule would; else none."""
    # found without the schedule, which takes as long as to compute 512² pixels
    order = list(walk(step, into_stacks=False))
    single = held_arrays() is not None and len(order) * request.region.size <= SINGLE_PIXELS
    if request.region.size > SMALL_PIXELS and not single:
        return []
    if not step.inputs or not all(s.local and not s.pulls_inputs for s in order):
        return []
    calls = strip_calls(order, request)
    return calls if single or max(call.request.region.size for call in calls) <= SMALL_PIXELS else []


def moves(steps: Iterable[Step]) -> bool:
    """Return whether further rows of steps can need the same as those before, further down.

    Not where frames begin or end inside of the image, which no row before that tells.
    """
    return not any(footprint.can_end for step in steps for footprint in step.footprints)


def needs_the_same(segment: Sequence[Step], request: Request) -> bool:
    """Return whether no frame begins or ends inside of what a request asks of the steps of a segment."""
    asked = demand(segment, [(segment[-1], request)], in_strip=True)
    return not any(
        footprint.splits(wanted.region, source.shape)
        for step in segment
        for source, footprint in zip(step.inputs, step.footprints, strict=True)
        for wanted in asked.get(step.token, ())
    )


def first_strip(segment: Sequence[Step], request: Request) -> Strip:
    """Return the first band of rows of a request whose planes stay in cache, with its calls; see `strips`."""
    region = request.region
    strip = Request(region._replace(y1=region.y0 + strip_rows(segment, request)), request.planes)
    return strip, strip_calls(segment, strip)


def strips(segment: Sequence[Step], request: Request, times: int = 1) -> Iterator[Strip]:
    """Yield bands of rows of a request whose planes stay in cache, or so many times as high, each with its calls.

    If the second band needs what the first one does, only further down by its own rows, so do all others of its height.
    """
    region = request.region
    rows = times * strip_rows(segment, request)
    # finding the calls of a calibration of 19 steps takes 640 us, moving those of the strip before 170, an addition 100
    first: list[Call] = []
    repeats = False
    can_repeat = moves(segment) or needs_the_same(segment, request)
    for y0 in range(region.y0, region.y1, rows):
        y1 = min(y0 + rows, region.y1)
        strip = Request(region._replace(y0=y0, y1=y1), request.planes)
        if repeats and y1 - y0 == rows:
            yield strip, [call.moved(y0 - region.y0) for call in first]
            continue
        calls = strip_calls(segment, strip)
        # the second strip is compared, since the first may be cut at the edge of an input
        repeats = can_repeat and y0 == region.y0 + rows and calls == [call.moved(rows) for call in first]
        first = first or calls
        yield strip, calls


def bands(
    step: Stack, request: Request, rows: int, given: Collection[str] = ()
) -> Iterator[tuple[Request, Roots, list[Action]]]:
    """Yield bands of rows of a stack's request, each with what is asked of the frames and how it is computed.

    The order of work is found once if the second band needs what the first one does, further down, as in `strips`; bands of
    frames with halos differ at the edges. For ``given`` see `make_schedule`.
    """
    region = request.region
    can_repeat = (
        not step.places
        and step.footprint.local
        and all(each.local for each in walk(*step.frames))
        and moves(walk(*step.frames))
    )
    # hundreds of frames with a calibration each: the schedule is made twice and not once for every band
    key = step.token, request.planes, region.x0, region.x1, rows
    known = _repeated.get(key) if can_repeat else None
    # the band that is known may be followed by others like it, as in the task that found it; before it, frames may begin
    repeats = known is not None and known.y0 <= region.y0
    roots, actions = _further_down(known, region.y0 - rows) if known is not None and repeats else ([], [])
    for y0 in range(region.y0, region.y1, rows):
        band = Request(region._replace(y0=y0, y1=min(y0 + rows, region.y1)), request.planes)
        whole = band.region.shape.y == rows
        moved = [action.moved(rows) for action in actions] if can_repeat and whole else []
        if repeats and whole:
            roots, actions = [(frame, _moved(frame, need, rows)) for frame, need in roots], moved
        else:
            roots = _needed(step, band)
            actions = make_schedule(roots, given)
            if can_repeat:
                actions = [action.with_strips() for action in actions]
                repeats = whole and [(a, a.known) for a in actions] == [(a, a.known) for a in moved]
                if repeats:
                    _remember(key, _Repeated(y0, roots, actions))
        yield band, roots, actions


class _Repeated(NamedTuple):
    """The work of a band of a stack that was found to be that of the band before it, further down."""

    y0: int
    roots: Roots
    actions: list[Action]


_repeated: dict[Hashable, _Repeated] = {}
"""For the stacks of the last tasks: the order of work of hundreds of frames takes longer to find than to compute a band."""

MOST_REPEATED = 8


def _remember(key: Hashable, band: _Repeated) -> None:
    """Keep the work of a band for other tasks of the same stack."""
    # one dict that is replaced and never changed: tasks of other threads look into it
    global _repeated
    _repeated = dict([*[(k, v) for k, v in _repeated.items() if k != key][1 - MOST_REPEATED :], (key, band)])


def _further_down(band: _Repeated, y0: int) -> tuple[Roots, list[Action]]:
    """Return the work of a band that begins at another row."""
    rows = y0 - band.y0
    roots = [(frame, _moved(frame, need, rows)) for frame, need in band.roots]
    return roots, [action.moved(rows) for action in band.actions]
