"""From plans to dask graphs: the only file that makes them.

1. The variables of a frame share one `ImageLayer`. When dask culls, the layer sees which planes of which chunks are asked
   for and makes one task for each chunk, and one pick each where several planes are asked for.
2. A task depends on the chunks of dask arrays and on the scalars that the plan has pending, and on nothing else.
3. An empty `LabelLayer` per variable carries the plan, so that the next operation reads it back from the array.
4. `ScalarLayer` makes the tasks of a scalar, `WriteLayer` those of a file or store.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from dask._task_spec import DataNode, GraphNode, List, Task, TaskRef
from dask.base import clone_key
from dask.delayed import Delayed
from dask.graph_manipulation import chunks as dask_manipulation
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.tokenize import tokenize

from lazyccd.errors import PlanError
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import Request
from lazyccd.plan.chunks import Grid
from lazyccd.plan.cost import fitting_groups, union_of
from lazyccd.plan.footprints import Shifted, Window
from lazyccd.plan.forks import forget_pools_after_forks
from lazyccd.plan.results import KeepsResults
from lazyccd.plan.schedule import demand_below
from lazyccd.plan.steps import Apply, Chunked, Input, Reduction, Scalar, Stack, Step, make_dtypes, make_params, walk
from lazyccd.plan.tasks import (
    PLANE_OF,
    Kind,
    Output,
    Sink,
    Work,
    make_work,
    run_final,
    run_finish,
    run_image,
    run_merge,
    run_partial,
    run_write,
    scalar_key,
)
from lazyccd.sections import Region

if TYPE_CHECKING:
    import dask.array as da

Key: TypeAlias = Any
Graph: TypeAlias = HighLevelGraph

# here, because no process computes without this file
forget_pools_after_forks()

FAN_IN = 16
"""How many partial results are merged at a time."""


class TaskLayer(Layer):
    """Base of the layers below: tasks are made only when dask asks for them.

    dask's `Blockwise` does not serve: it cannot say that a chunk depends on its neighbours, computes planes that nobody asked
    for, and fuses small results such as scalars into every task.
    """

    # to find that out dask would make all tasks and look at each
    has_legacy_tasks = False

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[Key, GraphNode] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out tasks that were made."""
        # 152 000 chunks take 24 s to make and 9.6 kB to pickle as a layer
        return self.__dict__ | {"_made": None}

    def tasks(self, keys: Collection[Key]) -> Iterator[GraphNode]:
        """Yield the tasks that are needed for those of ``keys`` that belong to this layer."""
        raise NotImplementedError

    def is_materialized(self) -> bool:
        """Return whether all tasks were made."""
        return self._made is not None

    def cull(self, keys: set[Key], all_hlg_keys: Collection[Key]) -> tuple[Layer, Mapping[Key, set[Key]]]:
        """Return the tasks that ``keys`` need, and what these depend on."""
        made = {task.key: task for task in self.tasks(keys)}
        # materialised: what was culled is the graph that is sent, and culling it again finds nothing to leave out
        return MaterializedLayer(made, annotations=self.annotations), {k: set(t.dependencies) for k, t in made.items()}

    def _all(self) -> dict[Key, GraphNode]:
        if self._made is None:
            self._made = {task.key: task for task in self.tasks(self.get_output_keys())}
        return self._made

    def __getitem__(self, key: Key) -> GraphNode:
        """Return the task of a key."""
        return self._all()[key]

    def __iter__(self) -> Iterator[Key]:
        """Iterate over all keys."""
        return iter(self._all())

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self._all())

    def clone(self, keys: set[Key], seed: Hashable, bind_to: Key | None = None) -> tuple[Layer, bool]:
        """Return a layer with renamed keys, as `dask.graph_manipulation` asks for."""
        made: dict[Key, GraphNode] = {}
        bound = False
        names = {key: clone_key(key, seed) for key in keys}
        mine = set(self._all())
        names |= {key: clone_key(key, seed) for key in mine} if mine & keys else {}
        for key, task in self._all().items():
            used = {old: names[old] for old in task.dependencies if old in names}
            new = task.substitute(used, key=names.get(key, key))
            if bind_to is not None and not used and key in names:
                new = Task(new.key, dask_manipulation.bind, new, TaskRef(bind_to))
                bound = True
            made[new.key] = new
        return MaterializedLayer(made), bound


class PlanLayer(TaskLayer):
    """Tasks that pull regions through a plan."""

    def __init__(self, plan: Step, scalars: Iterable[str]) -> None:
        super().__init__()
        self.plan = plan
        self._scalars = tuple(scalars)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is quickly had again."""
        return {key: value for key, value in super().__getstate__().items() if key != "_has_places"}

    @cached_property
    def _has_places(self) -> bool:
        """Whether a mosaic is among the steps; most layers are made for steps on the way, and never asked."""
        return any(isinstance(step, Stack) and step.places for step in walk(self.plan))

    def work(self, region: Region, planes: Iterable[str]) -> Work:
        """Return the work of pulling a region."""
        request = Request(region, frozenset(planes))
        return make_work(self.plan, request, self._scalars, has_places=self._has_places)


class ImageLayer(PlanLayer, KeepsResults):
    """The chunks of a frame's variables."""

    def __init__(self, name: str, plan: Step, grid: Grid, outputs: tuple[Output, ...]) -> None:
        super().__init__(plan, plan.pending)
        self.name = name
        self.grid = grid
        self.outputs = outputs
        self.forget_results()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out memory, which is of this process."""
        return {key: value for key, value in super().__getstate__().items() if key != "results"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without memory."""
        self.__dict__.update(state)
        self.forget_results()

    def get_output_keys(self) -> Set[Key]:
        """Return the keys of all chunks of all variables."""
        ny, nx = map(len, self.grid)
        return {(out.name, i, j) for out in self.outputs for i in range(ny) for j in range(nx)}

    def tasks(self, keys: Collection[Key]) -> Iterator[GraphNode]:
        """Yield one task for each chunk, and one pick each where several planes are asked for."""
        # one task for all planes of a chunk: three tasks would pull the plan three times
        names = {out.name: out for out in self.outputs}
        asked: dict[tuple[int, int], set[str]] = {}
        for key in keys:
            if isinstance(key, tuple) and len(key) == 3 and key[0] in names:
                asked.setdefault((key[1], key[2]), set()).add(key[0])
        ends = [np.cumsum((0, *sizes)).tolist() for sizes in self.grid]
        for (i, j), wanted in sorted(asked.items()):
            outputs = [out for out in self.outputs if out.name in wanted]
            work = self.work(Region(*ends[0][i : i + 2], *ends[1][j : j + 2]), {out.plane for out in outputs})
            deps = [TaskRef(key) for key in work.keys]
            # A scheduler that still knows a task of this key, of planes that are persisted, keeps that one: the picks below would
            # be of its planes if what makes others had the same key.
            several = "-".join([self.name, *(str(k) for k, out in enumerate(self.outputs) if out.name in wanted)])
            key = (outputs[0].name if len(outputs) == 1 else several, i, j)
            # _data_producer lets the scheduler queue tasks that only read; else it starts all of them and memory runs over
            memory = tuple(self.results.get(out.name) for out in outputs)
            yield Task(key, run_image, work, tuple(outputs), memory, *deps, _data_producer=not deps)
            if len(outputs) > 1:
                for k, out in enumerate(outputs):
                    yield Task((out.name, i, j), operator.getitem, TaskRef(key), k)


class ScalarLayer(PlanLayer):
    """The tasks of one scalar: a partial task per group of tiles, and one that puts their results together."""

    def __init__(self, token: str, reduction: Reduction) -> None:
        super().__init__(reduction.step, reduction.pending)
        self.key = scalar_key(token)
        self.reduction = reduction

    def get_output_keys(self) -> Set[Key]:
        """Return the one key that others depend on."""
        return {self.key}

    def tasks(self, keys: Collection[Key]) -> Iterator[GraphNode]:
        """Yield all tasks of the reduction, if its key is asked for."""
        if self.key not in keys:
            return
        places, partials = [], []
        for k, group in enumerate(fitting_groups(self.reduction)):
            numbers, tiles = zip(*group, strict=True)
            work = self.work(union_of(tiles), self.reduction.planes)
            deps = [TaskRef(key) for key in work.keys]
            key = (f"part-{self.key}", k)
            yield Task(key, run_partial, work, self.reduction, tiles, *deps, _data_producer=not deps)
            places.append(numbers)
            partials.append(TaskRef(key))
        if self.reduction.merge is not None:
            yield from self._merges(partials)
            places = [(k,) for k in range(len(partials))]
        tokens = tuple(s.token for _, s in self.reduction.scalars if s.given is None)
        refs = [TaskRef(scalar_key(token)) for token in tokens]
        yield Task(self.key, run_final, self.reduction, places, List(*partials), tokens, *refs)

    def _merges(self, partials: list[TaskRef]) -> Iterator[GraphNode]:
        """Yield a tree of tasks that merge partial results; ``partials`` then holds its top."""
        level = 0
        while len(partials) > FAN_IN:
            level += 1
            merged = []
            for k in range(0, len(partials), FAN_IN):
                key = (f"merge-{self.key}", level, k // FAN_IN)
                yield Task(key, run_merge, self.reduction, List(*partials[k : k + FAN_IN]))
                merged.append(TaskRef(key))
            partials[:] = merged


class WritePart(NamedTuple):
    """An image that is written."""

    plan: Step
    regions: tuple[Region, ...]
    """Its regions, a task each."""

    kinds: Mapping[str, Kind]
    """For each variable, what it is."""

    graphs: Sequence[HighLevelGraph]
    """Graphs that hold the dask arrays that the plan reads."""

    writer: Sink
    """What its tasks write to."""


class PartLayer(PlanLayer):
    """What makes the work of one image for `WriteLayer`; it has no tasks of its own."""

    def get_output_keys(self) -> Set[Key]:
        """Return no key."""
        return set()


class WriteLayer(TaskLayer):
    """The tasks that write images, or what is kept besides: make the target, write each region, complete it."""

    def __init__(self, name: str, parts: Sequence[WritePart], sink: Sink) -> None:
        super().__init__()
        self.name = name
        self.sink = sink
        # the graphs are in the layers below, and this one is pickled
        self.parts = tuple(part._replace(graphs=()) for part in parts)
        self.makers = tuple(PartLayer(part.plan, part.plan.pending) for part in parts)

    def get_output_keys(self) -> Set[Key]:
        """Return the key of the last task."""
        return {self.name}

    def tasks(self, keys: Collection[Key]) -> Iterator[GraphNode]:
        """Yield all tasks, if the last one is asked for."""
        if self.name not in keys:
            return
        # all writes wait for it: the target exists before any region is written
        created = f"create-{self.name}"
        yield Task(created, self.sink.create)
        receipts = []
        for number, (part, maker) in enumerate(zip(self.parts, self.makers, strict=True)):
            outputs = tuple(Output(variable, kind) for variable, kind in part.kinds.items())
            planes = {out.plane for out in outputs}
            for k, region in enumerate(part.regions):
                key = (self.name, number, k)
                work = maker.work(region, planes)
                yield Task(key, run_write, work, part.writer, outputs, TaskRef(created), *map(TaskRef, work.keys))
                receipts.append(TaskRef(key))
        # a tree without frames has nothing between the first and the last
        yield Task(self.name, run_finish, self.sink, TaskRef(created), List(*receipts))


class LabelLayer(MaterializedLayer):
    """No tasks; says which plan and which of its outputs an array is."""

    def __init__(self, plan: Step, kind: Kind, *, boundary: bool, variance: str | None) -> None:
        super().__init__({})
        self.plan = plan
        self.kind = kind
        self.boundary = boundary
        self.variance = variance


def is_in_memory(array: da.Array) -> bool:
    """Return whether the chunks of an array are pixels that this process has, and no tasks."""
    layer = array.dask.layers.get(array.name)
    first: Any = layer.get((array.name, 0, 0)) if isinstance(layer, MaterializedLayer) else None
    return isinstance(first.value if isinstance(first, DataNode) else first, np.ndarray)


def read_label(array: da.Array) -> LabelLayer | None:
    """Return the label of an array that came from `lower_image`; None for any other."""
    layer = array.dask.layers.get(array.name)
    return layer if isinstance(layer, LabelLayer) else None


class Boundary(NamedTuple):
    """What readers depend on by its chunks: a plan, its chunks, and the graphs of the arrays that it reads."""

    plan: Step
    grid: Grid
    graphs: tuple[HighLevelGraph, ...]


def boundaries_below(plan: Step, graphs: Iterable[HighLevelGraph]) -> dict[str, Boundary]:
    """Return all plans behind boundaries that a plan reads, however far below, by their tokens; the lowest first."""
    found: dict[str, Boundary] = {}
    for step in walk(plan):
        for graph in graphs if isinstance(step, Chunked) else ():
            layer = graph.layers.get(step.name) if isinstance(step, Chunked) else None
            # the planes of a stack are arrays of one plan
            if isinstance(step, Chunked) and isinstance(layer, LabelLayer) and layer.boundary:
                found |= boundaries_below(layer.plan, (graph,))
                found[layer.plan.token] = Boundary(layer.plan, step.chunks, (graph,))
                break
    return found


def narrowed(
    roots: Sequence[tuple[Step, Request]], graphs: Sequence[HighLevelGraph], *, stacks: bool
) -> tuple[dict[str, Step], list[HighLevelGraph]]:
    """Return what stands for boundaries below some steps if nothing else is asked of these: one chunk with what they need.

    Through its chunks, a pixel of a stack of stacks would have all frames of a chunk read.

    Parameters
    ----------
    roots
        Steps, and all that will be asked of them.
    graphs
        Those of the arrays that they read.
    stacks
        Whether stacks inside of the plans are made as one chunk too: else each root that is pulled by a task of its own makes them
        anew.

    Returns
    -------
    dict, list
        For `rebuilt`, the steps by the tokens of what they replace; and their graphs.
    """
    plans: dict[str, LabelLayer] = {}
    for name in {name for step, _ in roots for name in step.arrays}:
        found = next((g.layers[name] for g in graphs if name in g.layers), None)
        if isinstance(found, LabelLayer) and found.boundary and found.kind == "data":
            plans[name] = found
    steps: dict[str, Step] = {}
    more: list[HighLevelGraph] = []
    if not plans and not (stacks and any(step.stacks_deep for step, _ in roots)):
        return steps, more
    for token, (step, requests) in demand_below(roots).items():
        inside = step if stacks and isinstance(step, Stack) else None
        plan = plans[step.name].plan if isinstance(step, Chunked) and step.name in plans else inside
        if plan is not None:
            region = functools.reduce(Region.union, (request.region for request in requests))
            steps[token], graph = _in_one_chunk(plan, region, graphs)
            more.append(graph)
    return steps, more


def _in_one_chunk(plan: Step, region: Region, graphs: Sequence[HighLevelGraph]) -> tuple[Step, HighLevelGraph]:
    """Return the data of a plan in a region, computed as one chunk, and NaN around; and the graph of that chunk."""
    # of a mosaic of thousands, each frame that lies elsewhere would have layers for its scalars
    part = window_step(plan.for_region(region) if isinstance(plan, Stack) else plan, region, ["data"])
    array = lower_image(part, ((region.shape.y,), (region.shape.x,)), {"data": "data"}, graphs)["data"]
    dtypes = make_dtypes(data=plan.dtypes["data"])
    chunk = Chunked(part.shape, dtypes, name=array.name, chunks=array.chunks)
    around = Apply(
        plan.shape,
        dtypes,
        kernel=pointwise.shifted,
        sources=(Input(chunk, Shifted((region.y0, region.x0))),),
        params=make_params(offset=(region.y0, region.x0), dtypes=(("data", plan.dtypes["data"].name),), no_data=0),
    )
    return around, array.dask


def window_step(step: Step, region: Region, planes: Sequence[str]) -> Step:
    """Return some planes of a region of a step."""
    return Apply(
        region.shape,
        tuple((name, dtype) for name, dtype in step.planes if name in planes),
        kernel=pointwise.window,
        sources=(Input(step, Window((region.y0, region.x0))),),
        params=make_params(offset=(region.y0, region.x0), step=(1, 1)),
    )


def merged(graphs: Iterable[HighLevelGraph]) -> tuple[HighLevelGraph, ...]:
    """Return one graph with the layers of all; none of none."""
    given = list({id(graph): graph for graph in graphs}.values())
    return (HighLevelGraph.merge(*given),) if given else ()


def lower_image(
    plan: Step, grid: Grid, kinds: Mapping[str, Kind], graphs: Sequence[HighLevelGraph], *, boundary: bool = False
) -> dict[str, da.Array]:
    """Return lazy arrays of a plan's outputs.

    Parameters
    ----------
    plan
        What to compute.
    grid
        Chunk sizes along y and x.
    kinds
        For each variable, what it is.
    graphs
        Graphs that hold the dask arrays that the plan reads.
    boundary
        Whether readers of the arrays depend on their chunks, instead of going on with the plan.
    """
    if (sum(grid[0]), sum(grid[1])) != plan.shape:
        raise PlanError(f"chunks {grid} add up to {(sum(grid[0]), sum(grid[1]))} and the image has {plan.shape}.")
    # from plan and chunks alone: equal work has equal names and is computed once, and two names never mean one thing
    token = tokenize(plan.token, grid)
    names = {variable: f"{plan.label}_{variable}-{token}-{kind}" for variable, kind in kinds.items()}
    outputs = [Output(names[variable], kind) for variable, kind in kinds.items()]
    # readers of a boundary need the variance: from the standard deviation it would come back with other last bits
    hidden = None
    if boundary and any(out.plane == "variance" and out.kind != "var" for out in outputs):
        hidden = f"{plan.label}_variance-{token}-var"
        outputs.append(Output(hidden, "var"))
    name = f"{plan.label}-{token}-{'-'.join([*kinds, *(out.kind for out in outputs)])}"
    layers, dependencies = _leaf_layers(plan, plan.pending, graphs)
    layers[name] = ImageLayer(name, plan, grid, tuple(outputs))
    dependencies[name] = _direct_dependencies(plan, plan.pending)
    if hidden is not None:
        layers[hidden] = LabelLayer(plan, "var", boundary=boundary, variance=None)
        dependencies[hidden] = {name}
    # brings scipy along, and what is only written needs no arrays
    from lazyccd.plan.plan_array import PlanArray

    arrays: dict[str, da.Array] = {}
    for variable, kind in kinds.items():
        array_name = names[variable]
        layers[array_name] = LabelLayer(plan, kind, boundary=boundary, variance=hidden)
        dependencies[array_name] = {name}
    graph = HighLevelGraph(layers, dependencies)
    for variable, kind in kinds.items():
        # with a meta dask never calls anything on empty arrays to find out the dtype
        meta = np.empty((0, 0), plan.dtypes[PLANE_OF[kind]])
        arrays[variable] = PlanArray(graph, names[variable], grid, meta=meta)  # type: ignore[no-untyped-call]
    return arrays


def lower_write(parts: Sequence[WritePart], sink: Sink, name: str) -> Delayed:
    """Return a lazy write of images to one target; ``name`` is a key that no other write has."""
    layers: dict[str, Layer] = {}
    dependencies: dict[str, set[str]] = {}
    direct: set[str] = set()
    for part in parts:
        below = _leaf_layers(part.plan, part.plan.pending, part.graphs)
        layers |= below[0]
        dependencies |= below[1]
        direct |= _direct_dependencies(part.plan, part.plan.pending)
    layers[name] = WriteLayer(name, parts, sink)
    dependencies[name] = direct
    return Delayed(name, HighLevelGraph(layers, dependencies), layer=name)


def lower_scalars(scalars: Iterable[Scalar], graphs: Sequence[HighLevelGraph]) -> list[Delayed]:
    """Return pending scalars as lazy arrays."""
    lazy = []
    for scalar in scalars:
        key = scalar_key(scalar.token)
        layers, dependencies = _scalar_layers(scalar, graphs)
        lazy.append(Delayed(key, HighLevelGraph(layers, dependencies), layer=key))
    return lazy


def lower_elements(
    scalar: Scalar, dtype: np.dtype[Any], graphs: Sequence[HighLevelGraph], count: int
) -> list[da.Array]:
    """Return the ``count`` elements of a scalar as lazy arrays without axes."""
    import dask.array as da

    (lazy,) = lower_scalars([scalar], graphs)
    # da.from_delayed and indexing are dask's: such small arrays need no layer of ours
    array = da.from_delayed(lazy, (count,), dtype)
    return [array[k] for k in range(count)]


def _scalar_layers(scalar: Scalar, graphs: Sequence[HighLevelGraph]) -> tuple[dict[str, Layer], dict[str, set[str]]]:
    """Return the layers that make a scalar, its own among them."""
    assert scalar.reduction is not None
    below = scalar.reduction.pending
    layers, dependencies = _leaf_layers(scalar.reduction.step, below, graphs)
    layers[scalar_key(scalar.token)] = ScalarLayer(scalar.token, scalar.reduction)
    dependencies[scalar_key(scalar.token)] = _direct_dependencies(scalar.reduction.step, below)
    return layers, dependencies


def _direct_dependencies(plan: Step, scalars: Iterable[str]) -> set[str]:
    """Return the names of the layers whose keys a plan's tasks depend on."""
    return set(plan.arrays) | {scalar_key(token) for token in scalars}


def _leaf_layers(
    plan: Step, scalars: Mapping[str, Scalar], graphs: Sequence[HighLevelGraph]
) -> tuple[dict[str, Layer], dict[str, set[str]]]:
    """Return the layers below a plan: those of the arrays that it reads, and of its scalars."""
    layers: dict[str, Layer] = {}
    dependencies: dict[str, set[str]] = {}
    todo = list(plan.arrays)
    while todo:
        name = todo.pop()
        if name in layers:
            continue
        graph = next((g for g in graphs if name in g.layers), None)
        if graph is None:
            raise PlanError(
                f"the dask array {name!r} that the plan reads is in none of the {len(graphs)} graphs given."
            )
        layers[name] = graph.layers[name]
        dependencies[name] = set(graph.dependencies[name])
        todo.extend(dependencies[name])
    for token, scalar in scalars.items():
        if scalar_key(token) not in layers:
            below = _scalar_layers(scalar, graphs)
            layers |= below[0]
            dependencies |= below[1]
    return layers, dependencies
