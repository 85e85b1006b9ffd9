"""The steps of a plan: a directed graph of frozen, picklable descriptions that hold no pixels.

1. A step knows its shape, the dtype of each plane that it can give, its inputs and its scalars.
2. `Step.needs` says, for a region and planes of its output, which region and planes of each input it uses.
3. `lazyccd.plan.evaluate` walks down with requests and up with blocks; `Step.run` makes the block of a step from those of
   its inputs, by a kernel.
4. `walk` lists the steps of a plan; `rebuilt`, `settled` and `shared_by_all` make plans from other plans.

Inside a plan the uncertainty is always a variance: a root taken and squared again between two steps would move bits. Two
steps with the same token are the same work. A new kind of computation is a new kernel in `Apply`, not a new class of steps.
"""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from lazyccd.kernels.block import ALL_PLANES, Array, Block, Request
from lazyccd.plan.chunks import CHUNK_PIXELS, REDUCTION_TILE, STACK_BYTES, Grid, chunk_boxes, tile_groups
from lazyccd.plan.footprints import EVERYTHING, POINTWISE, Footprint, PlaneMap, Same, token_of_words, words_of
from lazyccd.plan.storage import Storage
from lazyccd.sections import Region

Dtypes: TypeAlias = tuple[tuple[str, np.dtype[Any]], ...]
"""The dtype of each plane, in the order of `ALL_PLANES`."""

Params: TypeAlias = tuple[tuple[str, Any], ...]
"""Parameters of a kernel by name; tuples, since steps are hashed and a dict would carry the order of writing into tokens."""

Scalars: TypeAlias = "tuple[tuple[str, Scalar], ...]"
"""Scalars by the names under which a kernel gets them."""

ScalarValue: TypeAlias = Array | Callable[[], Array]
"""What a kernel gets for a scalar: its numbers, or for one on demand a function that returns them."""

ChunkKey: TypeAlias = tuple[str, tuple[int, int]]
"""Name of a dask array and position of one of its chunks."""

Kernel: TypeAlias = Callable[..., Block]


def make_dtypes(**planes: npt.DTypeLike | None) -> Dtypes:
    """Return the dtypes of the planes that are not None, in the standard order."""
    return tuple((name, np.dtype(planes[name])) for name in ALL_PLANES if planes.get(name) is not None)


def make_params(**params: Any) -> Params:
    """Return parameters in an order that does not depend on how they were written."""
    return tuple(sorted(params.items()))


def kernel_name(kernel: Callable[..., Any]) -> str:
    """Return the importable name of a kernel."""
    return f"{kernel.__module__}.{kernel.__qualname__}"


# a context variable and no global: other threads may build lazy frames at the same time
_held: ContextVar[dict[str, Array] | None] = ContextVar("lazyccd_held", default=None)
_numbers = itertools.count()
_PROCESS = uuid.uuid4().hex
"""What a forked process has in common with its parent, and no other process has."""


def _unique_name(what: str) -> str:
    """Return a name that nothing else has, in any process: what dask computes meets the graphs of others at its scheduler."""
    return f"{what}-{_PROCESS}-{os.getpid()}-{next(_numbers)}"


@contextmanager
def single_call() -> Iterator[None]:
    """Hold the arrays of a single call: an operation on arrays in memory whose result is computed before the call returns.

    Inside of it, steps get tokens that are only different from all others: nobody compares them with those of another call, and
    to hash the pixels of an image takes longer than to subtract a bias from it. A call inside of another belongs to it.
    """
    if _held.get() is not None:
        yield
        return
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


def held_arrays() -> dict[str, Array] | None:
    """Return the arrays of the single call that runs, by name; None if none does."""
    return _held.get()


def hold(array: Array) -> str:
    """Hold an array for the single call that runs, and return the name under which steps read it."""
    held = _held.get()
    assert held is not None
    name = _unique_name("held")
    held[name] = array
    return name


def _unique_token() -> str:
    """Return a token that no other step has; empty outside of single calls, where equal steps must have equal ones."""
    return "" if _held.get() is None else _unique_name("single")


class Resources(Protocol):
    """What a task has at hand for its steps besides the blocks of their inputs."""

    def read(self, source: Source, region: Region) -> Array:
        """Return a region of a file or store."""
        ...

    def chunks_of(self, name: str) -> Mapping[tuple[int, int], Array]:
        """Return the chunks of a dask array that the task depends on, by position."""
        ...

    def scalars_of(self, step: Step, request: Request) -> Mapping[str, ScalarValue]:
        """Return the scalars of a step that a request needs by name; for those on demand what makes them."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """Base of all steps; equal tokens mean equal pixels."""

    shape: tuple[int, int]
    """Rows and columns of the output."""

    planes: Dtypes
    """The planes that the step can give, each with its dtype."""

    scalars: Scalars = field(kw_only=True, default=())
    """Scalars that the step's kernel gets by name."""

    token: str = field(init=False, default="")
    """Deterministic identity, computed once."""

    pending: Mapping[str, Scalar] = field(init=False, repr=False)
    """Scalars of this step and of those below that are not known yet, by token; their own plans are not searched."""

    arrays: Mapping[str, None] = field(init=False, repr=False)
    """Names of the dask arrays that this step and those below read."""

    halo_rows: int = field(init=False, repr=False)
    """Rows beyond its own that a region of this step needs of its sources at most."""

    stacks_deep: int = field(init=False, repr=False)
    """How many steps that pull their inputs lie below one another, this one among them: 2 if frames are compared with a stack."""

    def __post_init__(self) -> None:
        """Compute the token, and gather what is pending and read below.

        It is gathered step by step: a walk at each new step would make a plan of n steps cost n squared.
        """
        # an integer of NumPy would give another token than the same number of Python
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        token = _unique_token() or tokenize(
            type(self).__name__, self.shape, token_of_words(self.planes), self.identity()
        )
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "pending", _united([*(i.pending for i in self.inputs), *pending_of(self.scalars)]))
        object.__setattr__(self, "arrays", _united(i.arrays for i in self.inputs))
        # halos of a chain add up; of two branches the larger counts
        reads = zip(self.inputs, self.footprints, strict=True)
        object.__setattr__(self, "halo_rows", max((rule.halo[0] + i.halo_rows for i, rule in reads), default=0))
        deep = max((i.stacks_deep for i in self.inputs), default=0) + self.pulls_inputs
        object.__setattr__(self, "stacks_deep", deep)

    # dataclasses would compare field by field, down to the sources, for each of thousands of comparisons
    def __eq__(self, other: object) -> bool:
        """Return whether the other step is the same work."""
        return isinstance(other, Step) and self.token == other.token

    def __hash__(self) -> int:
        """Return the hash of the token."""
        return hash(self.token)

    def __dask_tokenize__(self) -> str:
        """Return the token."""
        return self.token

    def identity(self) -> tuple[Any, ...]:
        """Return what tells this step from others of its class."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[Step, ...]:
        """Steps that this one reads."""
        return ()

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """For each input, which region of it a region of the output needs."""
        return ()

    @property
    def label(self) -> str:
        """Readable name, for task names and archives."""
        return type(self).__name__.lower()

    @property
    def origin(self) -> str:
        """Where the pixels come from, if the step makes them from no other step; else empty."""
        return ""

    @property
    def summary(self) -> str:
        """What the step does, for a report of the plan."""
        return self.label.replace("_", " ")

    @property
    def local(self) -> bool:
        """Whether the step can be evaluated strip by strip at no extra cost."""
        return True

    @property
    def pulls_inputs(self) -> bool:
        """Whether the step pulls its inputs itself, band by band, so that no schedule looks below it."""
        return False

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The dtype of each plane that the step can give."""
        return dict(self.planes)

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return what is needed of each input; None where nothing is."""
        return ()

    def scalars_for(self, request: Request) -> Scalars:
        """Return the scalars that a request needs."""
        return self.scalars

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Return the block of a request, made from those that `needs` asks of the inputs."""
        raise NotImplementedError

    def with_inputs(self, inputs: tuple[Step, ...], scalars: Scalars) -> Step:
        """Return the same step with other inputs and scalars."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return what defines the step besides its inputs and scalars, for archives."""
        raise NotImplementedError

    def pixels_below(self, y: int, x: int) -> list[tuple[Step, tuple[int, int] | None]]:
        """Return each input and the pixel of it that an output pixel shows, if it shows one; the main input comes first."""
        return [(i, f.pixel(y, x, i.shape)) for i, f in zip(self.inputs, self.footprints, strict=True)]

    def chunk_keys(self, region: Region) -> list[ChunkKey]:
        """Return the chunks of dask arrays that a region of this step reads by itself."""
        return []

    def held_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes of the dask chunks that requests touch: a task holds them whole, however little it uses."""
        return 0

    def read_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes, after decoding, that requests read from storage."""
        return 0

    def decoded_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes of the rows that are decoded together with those of requests, if storage decodes several at once."""
        return 0

    @property
    def unpacked_bytes(self) -> int:
        """The bytes that reading the smallest region takes besides it."""
        return 0


@dataclass(frozen=True, eq=False)
class Source(Step):
    """Pixels in a file or store; gives the plane ``data``."""

    storage: Storage = field(kw_only=True)
    """Where the pixels are."""

    @classmethod
    def of(cls, storage: Storage) -> Source:
        """Return the source of a storage."""
        return cls(storage.shape, make_dtypes(data=storage.dtype), storage=storage)

    def identity(self) -> tuple[Any, ...]:
        """Return the storage's token."""
        return (self.storage.token,)

    @property
    def origin(self) -> str:
        """The file or store."""
        return self.storage.name

    @property
    def summary(self) -> str:
        """Which file is read."""
        return f"read {self.storage.name.rsplit('/', 1)[-1]}"

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Read the region."""
        return Block(request.region, data=resources.read(self, request.region))

    def describe(self) -> dict[str, Any]:
        """Return the name and dtype of the storage."""
        return {"source": self.storage.name, "dtype": self.storage.dtype}

    def read_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes of all regions."""
        return sum(request.region.size for request in requests) * self.dtypes["data"].itemsize

    def decoded_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes of one row of tiles or chunks; none where rows are read one by one."""
        if self.storage.rows == 1:
            return 0
        columns = max((request.region.shape.x for request in requests), default=0)
        return columns * min(self.storage.rows, self.shape[0]) * self.dtypes["data"].itemsize

    @property
    def unpacked_bytes(self) -> int:
        """The bytes that a tile or chunk takes that is unpacked as a whole."""
        return self.storage.unpacked_bytes


@dataclass(frozen=True, eq=False)
class Chunked(Step):
    """Chunks of a dask array that exists: the ones that a region touches become dependencies of its task."""

    name: str = field(kw_only=True)
    """Name of the dask array."""

    chunks: Grid = field(kw_only=True)
    """Its chunks."""

    in_memory: bool = field(kw_only=True, default=False)
    """Whether the process holds all of them anyway, because a user does."""

    def __post_init__(self) -> None:
        """Note the array."""
        super().__post_init__()
        object.__setattr__(self, "arrays", {self.name: None})

    def identity(self) -> tuple[Any, ...]:
        """Return the array's name and chunks."""
        return (self.name, self.chunks)

    @property
    def origin(self) -> str:
        """An array; its name is a token, which tells nobody anything."""
        return "array"

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Put the region together from the chunks."""
        return Block(request.region, data=self.assemble(request.region, resources.chunks_of(self.name)))

    def assemble(self, region: Region, chunks: Mapping[tuple[int, int], Array]) -> Array:
        """Return a region of the array: a view if it lies in one chunk, else a new array."""
        dtype = self.dtypes["data"]
        if len(chunks) == 1 and len(self.chunks[0]) == len(self.chunks[1]) == 1:
            return np.asarray(chunks[0, 0])[region.slices].astype(dtype, copy=False)
        boxes = chunk_boxes(self.chunks, region)
        if len(boxes) == 1:
            index, box = boxes[0]
            return np.asarray(chunks[index])[region.within(box)].astype(dtype, copy=False)
        out = np.empty(region.shape, dtype)
        for index, box in boxes:
            part = box.intersect(region)
            out[part.within(region)] = np.asarray(chunks[index])[part.within(box)]
        return out

    def describe(self) -> dict[str, Any]:
        """Return the array's name."""
        return {"array": self.name}

    def chunk_keys(self, region: Region) -> list[ChunkKey]:
        """Return the chunks that a region touches."""
        return [(self.name, index) for index, _ in chunk_boxes(self.chunks, region)]

    def held_bytes(self, requests: Sequence[Request]) -> int:
        """Return the bytes of the chunks that requests touch, each counted once; none of those that are in memory anyway."""
        if self.in_memory:
            return 0
        boxes = {index: box for request in requests for index, box in chunk_boxes(self.chunks, request.region)}
        return sum(box.size for box in boxes.values()) * self.dtypes["data"].itemsize


class Part(NamedTuple):
    """Where one plane of a `Join` comes from."""

    name: str
    """Its name in the output."""

    step: Step
    plane: str
    """Its name in the step that gives it."""


@dataclass(frozen=True, eq=False)
class Join(Step):
    """Planes taken from different steps, when a user replaced one variable of a frame."""

    parts: tuple[Part, ...] = field(kw_only=True)
    """One for each plane of the output."""

    @classmethod
    def of(cls, **parts: tuple[Step, str] | None) -> Join:
        """Return a step with the given planes; ``data`` must be among them."""
        given = tuple(Part(name, *part) for name in ALL_PLANES if (part := parts.get(name)) is not None)
        dtypes = make_dtypes(**{part.name: part.step.dtypes[part.plane] for part in given})
        return cls(given[0].step.shape, dtypes, parts=given)

    def identity(self) -> tuple[Any, ...]:
        """Return where each plane comes from."""
        return tuple((name, step.token, plane) for name, step, plane in self.parts)

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The step of each part."""
        return tuple(step for _, step, _ in self.parts)

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """The same region of each part."""
        return (Same(),) * len(self.parts)

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return a request for each part whose plane is asked for."""
        return tuple(
            Request(request.region, frozenset({plane})) if name in request.planes else None
            for name, _, plane in self.parts
        )

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Take each plane from the block of its part."""
        given = zip(self.parts, blocks, strict=True)
        return Block(
            request.region, **{name: block.plane(plane) for (name, _, plane), block in given if block is not None}
        )

    def with_inputs(self, inputs: tuple[Step, ...], scalars: Scalars) -> Step:
        """Return the join of other steps."""
        parts = tuple(part._replace(step=new) for part, new in zip(self.parts, inputs, strict=True))
        return replace(self, parts=parts)

    def describe(self) -> dict[str, Any]:
        """Return the plane that each part gives, and its name there."""
        return {"parts": [[name, plane] for name, _, plane in self.parts]}

    def pixels_below(self, y: int, x: int) -> list[tuple[Step, tuple[int, int] | None]]:
        """Return the pixel of the part that gives the data; the other parts tell nothing of its value."""
        return [(step, (y, x)) for name, step, _ in self.parts if name == "data"]


@dataclass(frozen=True)
class Input:
    """One input of an `Apply`."""

    step: Step
    """The step that is read."""

    footprint: Footprint = field(default_factory=Same)
    """Which region of it is needed."""

    uses: PlaneMap = POINTWISE
    """Which planes of it are needed for which planes of the output."""

    def need(self, request: Request) -> Request | None:
        """Return what a request on the output needs of this input."""
        wanted = {plane for name, planes in self.uses if name in request.planes for plane in planes}
        # rules are about all planes that there are; an input may have no mask or no variance
        wanted &= self.step.dtypes.keys()
        region = self.footprint.region(request.region, self.step.shape)
        return Request(region, frozenset(wanted)) if wanted and region.size else None


@dataclass(frozen=True, eq=False)
class Apply(Step):
    """A kernel applied to regions of its inputs.

    The kernel is called as ``kernel(request, *blocks, **params, **scalars)`` and returns a `Block`; an input of which
    nothing is needed is passed as None.
    """

    kernel: Kernel = field(kw_only=True)
    """A module-level function."""

    sources: tuple[Input, ...] = field(kw_only=True)
    """What is read, and by which rule."""

    params: Params = field(kw_only=True, default=())
    """Parameters of the kernel."""

    scratch_bytes: int | None = field(kw_only=True, default=None)
    """How many bytes the kernel takes for each pixel that it is given, besides its blocks; None if it takes about as many as these."""

    def identity(self) -> tuple[Any, ...]:
        """Return the kernel's name, parameters and inputs."""
        sources = tuple((i.step.token, words_of(i.footprint), token_of_words(i.uses)) for i in self.sources)
        return (kernel_name(self.kernel), self.params, sources, _tokens(self.scalars))

    @property
    def inputs(self) -> tuple[Step, ...]:
        """Steps that are read."""
        return tuple(source.step for source in self.sources)

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """The rule of each source."""
        return tuple(source.footprint for source in self.sources)

    @property
    def label(self) -> str:
        """The kernel's name."""
        return self.kernel.__name__

    @property
    def local(self) -> bool:
        """Whether all inputs are read locally."""
        return all(source.footprint.local for source in self.sources)

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return what is needed of each input."""
        return tuple(source.need(request) for source in self.sources)

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Call the kernel."""
        return self.kernel(request, *blocks, **dict(self.params), **resources.scalars_of(self, request))

    def with_inputs(self, inputs: tuple[Step, ...], scalars: Scalars) -> Step:
        """Return the kernel applied to other inputs."""
        sources = tuple(replace(s, step=new) for s, new in zip(self.sources, inputs, strict=True))
        return replace(self, sources=sources, scalars=scalars)

    def describe(self) -> dict[str, Any]:
        """Return the kernel, its parameters, and what it reads."""
        return _describe_kernel(self.kernel, self.params, self.footprints, self.planes)


@dataclass(frozen=True, eq=False)
class Stack(Step):
    """Many inputs of one shape combined pixel by pixel, read in bands of rows under a byte budget.

    The kernel is called as ``kernel(request, blocks, **params, **scalars)`` with a list of blocks, one per frame.
    """

    kernel: Kernel = field(kw_only=True)
    """A module-level function."""

    frames: tuple[Step, ...] = field(kw_only=True)
    """The frames."""

    params: Params = field(kw_only=True, default=())
    """Parameters of the kernel."""

    uses: PlaneMap = field(kw_only=True, default=EVERYTHING)
    """Which planes of a frame are needed for which planes of the output."""

    footprint: Footprint = field(kw_only=True, default_factory=Same)
    """Which region of a frame is needed: more than the same where neighbours are looked at, or whole lines."""

    scratch_bytes: int = field(kw_only=True, default=0)
    """How many bytes the kernel takes for each pixel of a band, besides the blocks."""

    budget_bytes: int = field(kw_only=True, default=STACK_BYTES)
    """How many bytes the blocks of a band may take, over all frames."""

    places: tuple[Region, ...] = field(kw_only=True, default=())
    """Regions of the output outside of which a frame has no pixels, one per frame; empty if all have pixels everywhere."""

    own_scalars: tuple[str, ...] = field(kw_only=True, default=())
    """Names of scalars that are about one frame each, those of the first frames in their order: needed where these lie."""

    def identity(self) -> tuple[Any, ...]:
        """Return the kernel's name, parameters and frames; bands do not change pixels."""
        frames = tuple(frame.token for frame in self.frames)
        return (
            kernel_name(self.kernel),
            self.params,
            _tokens(self.scalars),
            token_of_words(self.uses),
            words_of(self.footprint),
            frames,
        )

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The frames."""
        return self.frames

    @property
    def footprints(self) -> tuple[Footprint, ...]:
        """The same rule for every frame."""
        return (self.footprint,) * len(self.frames)

    @property
    def label(self) -> str:
        """The kernel's name."""
        return self.kernel.__name__

    @property
    def summary(self) -> str:
        """The kernel and how many inputs it has: frames, and images of their weights, variances and skies."""
        return f"{self.label} of {len(self.frames)} inputs"

    @property
    def local(self) -> bool:
        """A stack makes its own bands."""
        return False

    @property
    def pulls_inputs(self) -> bool:
        """Blocks of all frames at once would not fit into memory."""
        return True

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return what is needed of every frame; None of those that lie elsewhere."""
        needs: list[Request | None] = [None] * len(self.frames)
        for i, need in self.needed(request).items():
            needs[i] = need
        return tuple(needs)

    def needed(self, request: Request) -> dict[int, Request]:
        """Return what is needed of the frames that do not lie elsewhere, by their numbers, in order."""
        rules = ((i, Input(self.frames[i], self.footprint, self.uses)) for i in self._touching(request.region))
        needs = ((i, rule.need(request)) for i, rule in rules)
        return {i: need for i, need in needs if need is not None}

    def _touching(self, region: Region) -> Iterable[int]:
        """Return the numbers of the frames whose places a region touches, in order."""
        if not self.places:
            return range(len(self.frames))
        # asked for each chunk and band of a mosaic of thousands of frames, of which it touches a few
        limits = self._limits
        here = (limits[0] < region.y1) & (limits[1] > region.y0) & (limits[2] < region.x1) & (limits[3] > region.x0)
        found: list[int] = np.flatnonzero(here).tolist()
        return found

    @cached_property
    def _limits(self) -> Array:
        """First and last rows and columns of all places, shape ``(4, n)``."""
        return np.array([(p.y0, p.y1, p.x0, p.x1) for p in self.places], np.int64).T.copy()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made from the places: workers get them already."""
        return {name: value for name, value in self.__dict__.items() if name != "_limits"}

    def scalars_for(self, request: Request) -> Scalars:
        """Return the scalars that a request needs; those of frames that lie elsewhere are none."""
        if not self.own_scalars:
            return self.scalars
        needed = self.needed(request)
        elsewhere = {name for i, name in enumerate(self.own_scalars) if i not in needed}
        return tuple((name, scalar) for name, scalar in self.scalars if name not in elsewhere)

    def for_region(self, region: Region) -> Stack:
        """Return a stack that is the same in a region, and of which nothing else may be asked; the plan has no frames that lie elsewhere."""
        request = Request(region, frozenset(self.dtypes))
        needed = self.needed(request)
        if not needed or len(needed) == len(self.frames):
            return self
        # at the place of one that lies elsewhere nothing is read, so any will do
        some = self.frames[next(iter(needed))]
        frames = tuple(frame if i in needed else some for i, frame in enumerate(self.frames))
        return replace(self, frames=frames, scalars=self.scalars_for(request))

    def run(self, request: Request, blocks: Sequence[Block | None], resources: Resources) -> Block:
        """Call the kernel on one band, with a block for each frame; None for those that lie elsewhere."""
        return self.kernel(request, blocks, **dict(self.params), **resources.scalars_of(self, request))

    def with_inputs(self, inputs: tuple[Step, ...], scalars: Scalars) -> Step:
        """Return the stack of other frames."""
        return replace(self, frames=inputs, scalars=scalars)

    def describe(self) -> dict[str, Any]:
        """Return the kernel, its parameters, and what it reads of every frame."""
        return _describe_kernel(self.kernel, self.params, (self.footprint,), self.planes)


def _tokens(scalars: Scalars) -> tuple[tuple[str, str], ...]:
    """Return the token of each scalar by name."""
    return tuple((name, scalar.token) for name, scalar in scalars)


def _describe_kernel(
    kernel: Kernel, params: Params, footprints: tuple[Footprint, ...], planes: Dtypes
) -> dict[str, Any]:
    """Return what defines a step that calls a kernel."""
    return {"kernel": kernel_name(kernel), "parameters": dict(params), "reads": footprints, "planes": dict(planes)}


@dataclass(frozen=True)
class Reduction:
    """A small array made from a region of a step: partial results of fixed tiles, put together in a fixed order.

    Partial results that add up to the same bits in any order, such as counts, can be merged on the way.
    """

    step: Step
    """What is reduced."""

    partial: Callable[..., Array] = field(kw_only=True)
    """``partial(block, **params)`` of one tile."""

    final: Callable[..., Array] = field(kw_only=True)
    """``final(partials, **params)`` with the list of all partial results in the order of the tiles."""

    merge: Callable[[Sequence[Array]], Array] | None = field(kw_only=True, default=None)
    """Puts partial results together whose order and grouping do not matter."""

    params: Params = field(kw_only=True, default=())
    """Parameters of ``partial`` and ``final``."""

    scratch_bytes: int = field(kw_only=True, default=16)
    """How many bytes ``partial`` takes for each pixel, besides the block."""

    scalars: Scalars = field(kw_only=True, default=())
    """Scalars that both get by name."""

    planes: frozenset[str] = field(kw_only=True, default=frozenset({"data"}))
    """Planes that are needed."""

    region: Region = field(kw_only=True)
    """What is reduced."""

    tile: tuple[int, int] | None = field(kw_only=True, default=REDUCTION_TILE)
    """Shape of the tiles, anchored at pixel (0, 0) of the image; None for the whole region at once."""

    parts: tuple[Region, ...] = field(kw_only=True, default=())
    """Parts of the region that are reduced in place of all its tiles, each by a task: a sample."""

    def identity(self) -> tuple[Any, ...]:
        """Return what tells this reduction from others."""
        functions = (kernel_name(self.partial), kernel_name(self.final))
        scalars = _tokens(self.scalars)
        return (
            self.step.token,
            functions,
            self.params,
            scalars,
            sorted(self.planes),
            self.region,
            self.tile,
            self.parts,
        )

    def groups(self, pixels: int = CHUNK_PIXELS) -> Iterator[list[tuple[int, Region]]]:
        """Yield groups of numbered tiles of about so many pixels, a task each; which ones are together changes no result."""
        if self.parts:
            yield from ([(number, part)] for number, part in enumerate(self.parts))
        else:
            yield from tile_groups(self.region, self.tile, pixels)

    @property
    def pending(self) -> Mapping[str, Scalar]:
        """The scalars that the tasks of this reduction depend on, by token."""
        return _united([self.step.pending, *pending_of(self.scalars)])

    def arguments(self, known: Mapping[str, Array]) -> dict[str, Any]:
        """Return the parameters and scalars by name, given the numbers of pending scalars by token."""
        scalars = {name: s.given if s.given is not None else known[s.token] for name, s in self.scalars}
        return dict(self.params) | scalars

    def reduce(self, block: Block, tiles: Sequence[Region], known: Mapping[str, Array]) -> list[Array]:
        """Reduce each tile of a block to its partial result, or the whole block to one if they can be merged."""
        arguments = self.arguments(known)
        if self.merge is not None:
            return [self.partial(block, **arguments)]
        return [self.partial(block.crop(tile), **arguments) for tile in tiles]


class ScalarCard(NamedTuple):
    """A header card whose value is known when a scalar is."""

    keyword: str
    element: int
    """Position of the value in the flattened array of the scalar."""

    comment: str


@dataclass(frozen=True, eq=False)
class Scalar:
    """A number of a whole image, or a small array of them: given, or reduced from a step once for all tasks."""

    given: Array | None = None
    """The numbers, if they are known."""

    reduction: Reduction | None = None
    """How to make them, if they are not: the scalar is pending."""

    what: str = ""
    """What the numbers are, for reports."""

    cards: tuple[ScalarCard, ...] = ()
    """Numbers that go into the header when they are known."""

    told: Callable[[Array], Mapping[str, Any]] | None = None
    """Attributes of a frame that is written, made from the numbers; a function that can be pickled."""

    on_demand: bool = False
    """Whether few tasks need the numbers: one that does makes them itself, see `lazyccd.plan.on_demand`. Its plan reads no dask arrays."""

    token: str = field(init=False, default="")
    """Deterministic identity, computed once."""

    def __post_init__(self) -> None:
        """Compute the token."""
        token = _unique_token() or tokenize(
            "Scalar", self.given if self.reduction is None else self.reduction.identity()
        )
        object.__setattr__(self, "token", token)

    def __dask_tokenize__(self) -> str:
        """Return the token."""
        return self.token

    def settled(self, scalars: Mapping[str, Array]) -> Scalar:
        """Return the scalar with its numbers, if they are among those given by token; else itself.

        One that is on demand gets the numbers that its plan needs.
        """
        if self.is_on_demand:
            assert self.reduction is not None
            own = tuple((name, scalar.settled(scalars)) for name, scalar in self.reduction.scalars)
            step = settled(self.reduction.step, scalars)
            is_same = step is self.reduction.step and own == self.reduction.scalars
            return self if is_same else replace(self, reduction=replace(self.reduction, step=step, scalars=own))
        if self.given is not None or self.token not in scalars:
            return self
        return Scalar(given=scalars[self.token], what=self.what, cards=self.cards, told=self.told)

    @property
    def is_on_demand(self) -> bool:
        """Whether the numbers are made by tasks that need them."""
        return self.on_demand and self.given is None


def pending_of(scalars: Scalars) -> Iterator[Mapping[str, Scalar]]:
    """Yield the scalars that must be known before tasks that may need some others begin, by token."""
    for _, scalar in scalars:
        if scalar.is_on_demand:
            assert scalar.reduction is not None
            yield scalar.reduction.pending
        elif scalar.given is None:
            yield {scalar.token: scalar}


def _united(mappings: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the union; if one mapping holds all others it is the same object, so that many steps share it."""
    # most steps of a chain add nothing, and share the dict of the step below
    given = list({id(mapping): mapping for mapping in mappings if mapping}.values())
    largest = max(given, key=len, default={})
    if all(mapping is largest or mapping.keys() <= largest.keys() for mapping in given):
        return largest
    return {key: value for mapping in given for key, value in mapping.items()}


def walk(*roots: Step, seen: set[str] | None = None, into_stacks: bool = True) -> Iterator[Step]:
    """Yield every step once, inputs before the steps that read them.

    Parameters
    ----------
    roots
        The last steps.
    seen
        Tokens of steps that are not yielded; those of all that are, are added.
    into_stacks
        Whether the inputs of steps that pull these by themselves are among them.
    """
    # no recursion: a loop of a user's that adds a thousand frames makes a plan deeper than Python's stack
    seen = set() if seen is None else seen
    todo: list[tuple[Step, bool]] = [(root, False) for root in reversed(roots)]
    while todo:
        step, ready = todo.pop()
        if ready:
            yield step
        elif step.token not in seen:
            seen.add(step.token)
            todo.append((step, True))
            if into_stacks or not step.pulls_inputs:
                todo.extend((i, False) for i in reversed(step.inputs) if i.token not in seen)


def file_name(plan: Step) -> str:
    """Return the name of the file that the data of a frame were read from; empty if there is none."""
    step = plan
    while step.inputs:
        step = step.inputs[0]
    return os.path.basename(step.storage.name.rstrip("/")).removesuffix("[0]") if isinstance(step, Source) else ""


def file_path(plan: Step) -> str:
    """Return the path of the file that the data of a frame were read from; empty if there is none."""
    step = plan
    while step.inputs:
        step = step.inputs[0]
    return re.sub(r"\[[^\[\]]*\]$", "", step.storage.name) if isinstance(step, Source) else ""


def settled(root: Step, scalars: Mapping[str, Array]) -> Step:
    """Return the plan with scalars put in, by token."""
    return rebuilt(root, {}, scalars)


def rebuilt(root: Step, steps: Mapping[str, Step], scalars: Mapping[str, Array]) -> Step:
    """Return the plan with other steps for those whose tokens are in ``steps``, and with scalars put in, by token."""
    new = dict(steps)
    for step in walk(root, seen=set(steps)):
        inputs = tuple(new[i.token] for i in step.inputs)
        own = tuple((name, scalar.settled(scalars)) for name, scalar in step.scalars)
        changed = any(a is not b for a, b in zip(inputs, step.inputs, strict=True)) or own != step.scalars
        # a step that does not change stays the same object, so plans that share it still share it
        new[step.token] = step.with_inputs(inputs, own) if changed else step
    return new[root.token]


def shared_by_all(roots: Sequence[Step]) -> list[Step]:
    """Return the steps that all plans have, less those that only such steps read."""
    plans = [{step.token: step for step in walk(root)} for root in roots]
    common = set(plans[0]).intersection(*plans[1:])
    tops: dict[str, Step] = {root.token: root for root in roots if root.token in common}
    for plan in plans:
        for step in plan.values():
            if step.token not in common:
                tops.update({i.token: i for i in step.inputs if i.token in common})
    return list(tops.values())
