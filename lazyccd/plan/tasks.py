"""What tasks do: pull a region of a plan, hand it on, write it, or reduce it.

These are the functions that stand in dask's graphs. They run in any process, get what they depend on as arguments, and may run
more than once: dask computes the tasks of a worker that died again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from lazyccd.kernels.block import Array, Block, Request, Target
from lazyccd.plan.cost import declared_bytes, reduced_bytes, turn_of_task, written_bytes
from lazyccd.plan.evaluate import Evaluation
from lazyccd.plan.memory import TURNS, keep_freed_memory
from lazyccd.plan.results import ResultMemory, parts_of
from lazyccd.plan.schedule import demand_below
from lazyccd.plan.steps import ChunkKey, Reduction, Step, pending_of
from lazyccd.sections import Region

Kind: TypeAlias = Literal[
    "data", "mask", "std", "var", "ivar", "n_used", "n_rejected", "exposure", "coverage", "variance_aperture"
]
PLANE_OF: dict[Kind, str] = {
    "data": "data",
    "mask": "mask",
    "std": "variance",
    "var": "variance",
    "ivar": "variance",
    "n_used": "n_used",
    "n_rejected": "n_rejected",
    "exposure": "exposure",
    "coverage": "coverage",
    "variance_aperture": "variance_aperture",
}
"""The plane of a plan that each kind of variable is made from."""


class Sink(Protocol):
    """Where tasks write regions to; picklable, and every method may run in another process."""

    def working(self) -> AbstractContextManager[None]:
        """Return what a task enters while it works for the target."""
        ...

    def create(self) -> None:
        """Make the target, under a name that is not the final one."""
        ...

    def receipt(self, region: Region) -> Any | None:
        """Return the receipt of a region that is written already, by a task that was lost; None if there is none."""
        ...

    def write(self, region: Region, arrays: Mapping[str, Array]) -> Any:
        """Write one region of all variables and return a receipt."""
        ...

    def finish(self, receipts: Sequence[Any]) -> Any:
        """Complete the target and give it its final name."""
        ...


@dataclass(frozen=True)
class Output:
    """One array that is made from a plan."""

    name: str
    """Name of the dask array, or of the variable that is written."""

    kind: Kind
    """What is made: data, mask, or one of the types of uncertainty."""

    @property
    def plane(self) -> str:
        """The plane that it is made from."""
        return PLANE_OF[self.kind]


def convert(block: Block, kind: Kind, out: Array | None = None) -> Array:
    """Return the plane of a block as what users hold; the array is ``out``, or owns its memory."""
    array = block.plane(PLANE_OF[kind])
    # a root in place spares a plane, but a view may be rows that the task keeps, or a chunk that others read
    owned = array.base is None and array.flags.carray
    target = array if out is None and owned else out
    # negative and zero variances come from data, and their root and inverse are what IEEE says
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind == "std":
            return np.asarray(np.sqrt(array, out=target))
        if kind == "ivar":
            return np.asarray(np.divide(1, array, out=target))
    # a view handed to dask would hold its whole base in memory, and dask would count only the view
    if out is None:
        return array if owned else array.copy()
    out[...] = array
    return out


@dataclass(frozen=True)
class Work:
    """What a task is to pull, and the names of what it depends on, in the order of its dependencies."""

    plan: Step
    request: Request
    chunks: tuple[ChunkKey, ...]
    scalars: tuple[str, ...]
    """Tokens of the scalars that it depends on."""

    limit_bytes: int | None = None
    """The memory limit that was declared where the graph was made; a process may have one of its own."""

    waits: bool = False
    """Whether it is a task of a graph, which waits until it fits beside others."""

    @property
    def keys(self) -> list[Any]:
        """Keys of the dependencies."""
        return [(name, *index) for name, index in self.chunks] + [scalar_key(token) for token in self.scalars]

    @contextmanager
    def turn(self, after: int = 0) -> Iterator[int]:
        """Wait until the task fits into memory beside others, and yield the number of bands that it cuts its region into.

        Parameters
        ----------
        after
            Bytes that are taken besides the result when that is there.

        Raises
        ------
        MemoryLimitError
            Raised before anything is allocated if the task alone would not fit into the limit, not even in bands.
        """
        keep_freed_memory()
        with turn_of_task(self.plan, self.request, self.limit_bytes, after, waits=self.waits) as cuts:
            yield cuts

    def start(self, deps: Sequence[Any], cuts: int) -> Evaluation:
        """Return the evaluation that pulls the region in bands, given the dependencies' results."""
        chunks: dict[str, dict[tuple[int, int], Any]] = {}
        for (name, index), array in zip(self.chunks, deps, strict=False):
            chunks.setdefault(name, {})[index] = array
        return Evaluation(chunks, self.scalars_among(deps), cuts)

    def scalars_among(self, deps: Sequence[Any]) -> dict[str, Array]:
        """Return the scalars among the dependencies' results, by token."""
        return dict(zip(self.scalars, deps[len(self.chunks) :], strict=True))


def make_work(plan: Step, request: Request, scalars: Sequence[str], *, has_places: bool) -> Work:
    """Return the work of one task.

    Parameters
    ----------
    plan, request
        What is pulled.
    scalars
        Tokens of what is pending.
    has_places
        Whether the plan has stacks whose frames lie at places, so that a region may need some of the scalars alone.
    """
    limit, waits = declared_bytes(), not TURNS.in_task
    wanted = tuple(scalars)
    is_mosaic = bool(wanted) and has_places
    if not plan.arrays and not is_mosaic:
        # most plans read files alone: no need to walk them once per task for chunks that are not there
        return Work(plan, request, (), wanted, limit, waits=waits)
    asked = demand_below([(plan, request)]).values()
    if is_mosaic:
        # a cut-out must not wait for what is measured in frames that lie elsewhere
        needed = (step.scalars_for(wish) for step, requests in asked for wish in requests)
        here = {token for scalars in needed for pending in pending_of(scalars) for token in pending}
        wanted = tuple(token for token in wanted if token in here)
    touched = {key: None for step, requests in asked for wish in requests for key in step.chunk_keys(wish.region)}
    return Work(plan, request, tuple(touched), wanted, limit, waits=waits)


def run_image(work: Work, outputs: tuple[Output, ...], memory: tuple[ResultMemory | None, ...], *deps: Any) -> Any:
    """Compute one chunk of one variable, or a tuple of several; into the memory of results where there is one for all."""
    with work.turn() as cuts:
        arrays = compute_region(work, outputs, deps, memory, cuts=cuts)
    # a plain tuple: dask's sizeof sees 48 bytes in a dataclass, and would never spill it
    return arrays[0] if len(arrays) == 1 else arrays


def compute_region(
    work: Work,
    outputs: Sequence[Output],
    deps: Sequence[Any],
    memory: tuple[ResultMemory | None, ...] = (),
    arrays: tuple[Array, ...] = (),
    *,
    cuts: int,
) -> tuple[Array, ...]:
    """Compute one region of several variables in bands, into arrays or into memory of results if they are given."""
    region, dtypes = work.request.region, work.plan.dtypes
    # of one plane there may be two variables, and a root is taken in place
    apart = len({out.plane for out in outputs}) == len(outputs)
    with work.start(deps, cuts) as evaluation:
        arrays = arrays or parts_of(memory, region)
        given = bool(arrays)
        # allocated when the estimate was found to fit, and filled band by band, so that no second block is ever held
        arrays = arrays or tuple(np.empty(region.shape, dtypes[out.plane]) for out in outputs)
        target = Target(region, tuple((out.plane, out.kind) for out in outputs), arrays)
        for band in evaluation.bands(work.plan, work.request, target):
            if band.is_empty:
                continue
            if apart and not given and band.region == region:
                return tuple(convert(band, out.kind) for out in outputs)
            for out, array in zip(outputs, arrays, strict=True):
                convert(band, out.kind, array[band.region.within(region)])
    return arrays


def run_write(work: Work, sink: Sink, outputs: tuple[Output, ...], _created: None, *deps: Any) -> Any:
    """Compute one region of all variables and write it, unless that was done."""
    # dask forgets which writes were done when a worker dies (distributed#8182); the receipt beside the product does not
    with sink.working():
        receipt = sink.receipt(work.request.region)
        if receipt is not None:
            return receipt
        with work.turn(written_bytes(work.plan, work.request)) as cuts:
            arrays = compute_region(work, outputs, deps, cuts=cuts)
            return sink.write(
                work.request.region, {out.name: array for out, array in zip(outputs, arrays, strict=True)}
            )


def run_finish(sink: Sink, _created: None, receipts: Sequence[Any]) -> Any:
    """Complete what was written."""
    with sink.working():
        return sink.finish(receipts)


def run_partial(work: Work, reduction: Reduction, tiles: tuple[Region, ...], *deps: Any) -> list[Array]:
    """Reduce each tile of a group to its partial result, or the whole group to one if they can be merged."""
    with work.turn(reduced_bytes(reduction, work.request.region)) as cuts:
        with work.start(deps, cuts) as evaluation:
            block = evaluation.whole(work.plan, work.request)
        return reduction.reduce(block, tiles, work.scalars_among(deps))


def run_merge(reduction: Reduction, groups: Sequence[list[Array]]) -> list[Array]:
    """Merge the partial results of some groups into one."""
    assert reduction.merge is not None
    return [reduction.merge([partial for group in groups for partial in group])]


def run_final(
    reduction: Reduction,
    places: Sequence[Sequence[int]],
    groups: Sequence[Any],
    tokens: tuple[str, ...],
    *scalars: Array,
) -> Array:
    """Put the partial results together in the order of the tiles; ``scalars`` are those of ``tokens``."""
    # partial results arrive in any order, and sums of floats depend on it
    ordered: dict[int, Any] = {}
    for numbers, partials in zip(places, groups, strict=True):
        ordered.update(zip(numbers, partials, strict=True))
    arguments = reduction.arguments(dict(zip(tokens, scalars, strict=True)))
    return np.asarray(reduction.final([ordered[i] for i in sorted(ordered)], **arguments))


def scalar_key(token: str) -> str:
    """Return the key under which a graph holds a scalar."""
    return f"scalar-{token}"
