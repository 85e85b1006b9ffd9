"""The steps of a plan: a DAG of frozen, picklable descriptions that hold no pixels.

1. A step knows its shape, the dtype of each plane it can give, and its inputs.
2. `needs(request)` says, for a region and planes of its output, which region and planes of each input it uses.
3. `lazyccd.plan.evaluate` walks down with requests and up with blocks; kernels do the arithmetic.

Inside a plan the uncertainty is always a variance. Two steps with the same token are the same work.

The steps of a plan in order.
Plans made from other plans: numbers put in, steps replaced, what several have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from lazyccd.kernels.block import ALL_PLANES, Block, Request
from lazyccd.plan.footprints import EVERYTHING, POINTWISE, Footprint, PlaneMap, Same, token_of_words, words_of
from lazyccd.plan.storage import Storage
from lazyccd.sections import Region

Dtypes: TypeAlias = tuple[tuple[str, np.dtype[Any]], ...]
Params: TypeAlias = tuple[tuple[str, Any], ...]
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


@dataclass(frozen=True, eq=False)
class Step:
    """Base of all steps; equal tokens mean equal pixels."""

    shape: tuple[int, int]
    """Rows and columns of the output."""

    planes: Dtypes
    """The planes that the step can give, each with its dtype."""

    token: str = field(init=False, default="")
    """Deterministic identity, computed once."""

    pending: Mapping[str, Scalar] = field(init=False, repr=False)
    """The global numbers of this step and of those below that are not known yet, by token; their own plans are not searched."""

    arrays: Mapping[str, None] = field(init=False, repr=False)
    """Names of the dask arrays that this step and those below read."""

    def __post_init__(self) -> None:
        """Compute the token, and what is known of the steps below: a walk at each new step would cost the square of a plan."""
        object.__setattr__(self, "shape", (int(self.shape[0]), int(self.shape[1])))
        planes = token_of_words(self.planes)
        object.__setattr__(self, "token", tokenize(type(self).__name__, self.shape, planes, self.identity()))
        own = {value.token: value for value in self.global_scalars if value.given is None}
        object.__setattr__(self, "pending", _united([*(i.pending for i in self.inputs), own]))
        object.__setattr__(self, "arrays", _united(i.arrays for i in self.inputs))

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
    def global_scalars(self) -> tuple[Scalar, ...]:
        """Global numbers that this step uses."""
        return ()

    @property
    def label(self) -> str:
        """Readable name, for task names and reports."""
        return type(self).__name__.lower()

    @property
    def local(self) -> bool:
        """Whether the step can be evaluated strip by strip at no extra cost."""
        return True

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """The dtype of each plane that the step can give."""
        return dict(self.planes)

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return what is needed of each input; None where nothing is."""
        return ()

    def with_inputs(self, inputs: tuple[Step, ...], values: tuple[Scalar, ...]) -> Step:
        """Return the same step on other inputs and values."""
        return self


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


@dataclass(frozen=True, eq=False)
class Chunked(Step):
    """Chunks of a dask array that exists: the ones that a region touches become dependencies of its task."""

    name: str = field(kw_only=True)
    """Name of the dask array."""

    chunks: tuple[tuple[int, ...], tuple[int, ...]] = field(kw_only=True)
    """Its chunks."""

    def identity(self) -> tuple[Any, ...]:
        """Return the array's name and chunks."""
        return (self.name, self.chunks)

    def __post_init__(self) -> None:
        """Note the array."""
        super().__post_init__()
        object.__setattr__(self, "arrays", {self.name: None})


@dataclass(frozen=True, eq=False)
class Join(Step):
    """Planes taken from different steps, when a user replaced one variable of a frame."""

    parts: tuple[tuple[str, Step, str], ...] = field(kw_only=True)
    """For each plane of the output: its name, the step that gives it, and the name that it has there."""

    @classmethod
    def of(cls, **parts: tuple[Step, str] | None) -> Join:
        """Return a step with the given planes; ``data`` must be among them."""
        given = tuple((name, *part) for name in ALL_PLANES if (part := parts.get(name)) is not None)
        dtypes = make_dtypes(**{name: step.dtypes[plane] for name, step, plane in given})
        return cls(given[0][1].shape, dtypes, parts=given)

    def identity(self) -> tuple[Any, ...]:
        """Return where each plane comes from."""
        return tuple((name, step.token, plane) for name, step, plane in self.parts)

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The step of each part."""
        return tuple(step for _, step, _ in self.parts)

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return a request for each part whose plane is asked for."""
        return tuple(
            Request(request.region, frozenset({plane})) if name in request.planes else None
            for name, _, plane in self.parts
        )

    def with_inputs(self, inputs: tuple[Step, ...], values: tuple[Scalar, ...]) -> Step:
        """Return the join of other steps."""
        parts = tuple((name, new, plane) for (name, _, plane), new in zip(self.parts, inputs, strict=True))
        return replace(self, parts=parts)


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
        wanted &= self.step.dtypes.keys()
        region = self.footprint.region(request.region, self.step.shape)
        return Request(region, frozenset(wanted)) if wanted and region.size else None


@dataclass(frozen=True, eq=False)
class Apply(Step):
    """A kernel applied to regions of its inputs.

    The kernel is called as ``kernel(request, *blocks, **params, **values)`` and returns a `Block`; an input of which
    nothing is needed is passed as None.
    """

    kernel: Kernel = field(kw_only=True)
    """A module-level function."""

    sources: tuple[Input, ...] = field(kw_only=True)
    """What is read, and by which rule."""

    params: Params = field(kw_only=True, default=())
    """Numbers and words passed to the kernel."""

    scalars: tuple[tuple[str, Scalar], ...] = field(kw_only=True, default=())
    """Global numbers passed to the kernel by name."""

    def identity(self) -> tuple[Any, ...]:
        """Return the kernel's name, parameters and inputs."""
        sources = tuple((i.step.token, words_of(i.footprint), token_of_words(i.uses)) for i in self.sources)
        numbers = tuple((name, value.token) for name, value in self.scalars)
        return (kernel_name(self.kernel), self.params, sources, numbers)

    @property
    def inputs(self) -> tuple[Step, ...]:
        """Steps that are read."""
        return tuple(source.step for source in self.sources)

    @property
    def global_scalars(self) -> tuple[Scalar, ...]:
        """Global numbers that are used."""
        return tuple(value for _, value in self.scalars)

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

    def with_inputs(self, inputs: tuple[Step, ...], values: tuple[Scalar, ...]) -> Step:
        """Return the kernel applied to other inputs."""
        sources = tuple(replace(s, step=new) for s, new in zip(self.sources, inputs, strict=True))
        numbers = tuple((name, new) for (name, _), new in zip(self.scalars, values, strict=True))
        return replace(self, sources=sources, scalars=numbers)


@dataclass(frozen=True, eq=False)
class Stack(Step):
    """Many inputs of one shape combined pixel by pixel, read in bands of rows under a byte budget.

    The kernel is called as ``kernel(request, blocks, **params, **values)`` with a list of blocks, one per frame.
    """

    kernel: Kernel = field(kw_only=True)
    """A module-level function."""

    frames: tuple[Step, ...] = field(kw_only=True)
    """The frames."""

    params: Params = field(kw_only=True, default=())
    """Parameters of the kernel."""

    scalars: tuple[tuple[str, Scalar], ...] = field(kw_only=True, default=())
    """Global numbers passed to the kernel by name."""

    uses: PlaneMap = field(kw_only=True, default=EVERYTHING)
    """Which planes of a frame are needed for which planes of the output."""

    footprint: Footprint = field(kw_only=True, default_factory=Same)
    """Which region of a frame is needed: more than the same where neighbours are looked at, or whole lines."""

    scratch_bytes: int = field(kw_only=True, default=0)
    """How many bytes the kernel takes for each pixel of a band, besides the blocks."""

    budget_bytes: int = field(kw_only=True, default=128 * 2**20)
    """How many bytes the blocks of a band may take, over all frames."""

    def identity(self) -> tuple[Any, ...]:
        """Return the kernel's name, parameters and frames; bands do not change pixels."""
        frames = tuple(frame.token for frame in self.frames)
        numbers = tuple((name, value.token) for name, value in self.scalars)
        return (
            kernel_name(self.kernel),
            self.params,
            numbers,
            token_of_words(self.uses),
            words_of(self.footprint),
            frames,
        )

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The frames."""
        return self.frames

    @property
    def global_scalars(self) -> tuple[Scalar, ...]:
        """Global numbers that are used."""
        return tuple(value for _, value in self.scalars)

    @property
    def label(self) -> str:
        """The kernel's name."""
        return self.kernel.__name__

    @property
    def local(self) -> bool:
        """A stack makes its own bands."""
        return False

    def needs(self, request: Request) -> tuple[Request | None, ...]:
        """Return what is needed of every frame."""
        return tuple(Input(frame, self.footprint, self.uses).need(request) for frame in self.frames)

    def with_inputs(self, inputs: tuple[Step, ...], values: tuple[Scalar, ...]) -> Step:
        """Return the stack of other frames."""
        numbers = tuple((name, new) for (name, _), new in zip(self.scalars, values, strict=True))
        return replace(self, frames=inputs, scalars=numbers)


@dataclass(frozen=True)
class Reduction:
    """A small array made from a region of a step: partial results of fixed tiles, put together in a fixed order.

    Partial results that add up to the same bits in any order, such as counts, can be merged on the way.
    """

    step: Step
    """What is reduced."""

    partial: Callable[..., npt.NDArray[Any]] = field(kw_only=True)
    """``partial(block, **params)`` of one tile."""

    final: Callable[..., npt.NDArray[Any]] = field(kw_only=True)
    """``final(partials, **params)`` with the list of all partial results in the order of the tiles."""

    merge: Callable[[Sequence[npt.NDArray[Any]]], npt.NDArray[Any]] | None = field(kw_only=True, default=None)
    """Puts partial results together whose order and grouping do not matter."""

    params: Params = field(kw_only=True, default=())
    """Parameters of ``partial`` and ``final``."""

    scalars: tuple[tuple[str, Scalar], ...] = field(kw_only=True, default=())
    """Global numbers passed to both by name, as arrays."""

    planes: frozenset[str] = field(kw_only=True, default=frozenset({"data"}))
    """Planes that are needed."""

    region: Region = field(kw_only=True)
    """What is reduced."""

    tile: tuple[int, int] | None = field(kw_only=True, default=(512, 512))
    """Shape of the tiles, anchored at pixel (0, 0) of the image; None for the whole region at once."""

    def identity(self) -> tuple[Any, ...]:
        """Return what tells this reduction from others."""
        functions = (kernel_name(self.partial), kernel_name(self.final))
        numbers = tuple((name, value.token) for name, value in self.scalars)
        return (self.step.token, functions, self.params, numbers, sorted(self.planes), self.region, self.tile)

    @property
    def pending(self) -> Mapping[str, Scalar]:
        """The values that the tasks of this reduction depend on, by token."""
        return _united([self.step.pending, {v.token: v for _, v in self.scalars if v.given is None}])


@dataclass(frozen=True, eq=False)
class Scalar:
    """A small array of global numbers: given, or to be reduced from a step once."""

    given: npt.NDArray[Any] | None = None
    """The numbers, if they are known."""

    reduction: Reduction | None = None
    """How to make them, if they are not."""

    what: str = ""
    """What the numbers are, for reports."""

    cards: tuple[tuple[str, int, str], ...] = ()
    """Keyword, index and comment of numbers that go into the header when they are known."""

    token: str = field(init=False, default="")
    """Deterministic identity, computed once."""

    def __post_init__(self) -> None:
        """Compute the token."""
        identity = self.given if self.reduction is None else self.reduction.identity()
        object.__setattr__(self, "token", tokenize("Scalar", identity))

    def __dask_tokenize__(self) -> str:
        """Return the token."""
        return self.token


def _united(mappings: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the union; that of one mapping and empty ones is the same object, so that many steps share it."""
    given = list({id(mapping): mapping for mapping in mappings if mapping}.values())
    return given[0] if len(given) == 1 else {key: value for mapping in given for key, value in mapping.items()}


def walk(*roots: Step) -> Iterator[Step]:
    """Yield every step once, inputs before the steps that read them."""
    seen: set[str] = set()
    todo: list[tuple[Step, bool]] = [(root, False) for root in reversed(roots)]
    while todo:
        step, ready = todo.pop()
        if ready:
            yield step
        elif step.token not in seen:
            seen.add(step.token)
            todo.append((step, True))
            todo.extend((i, False) for i in reversed(step.inputs) if i.token not in seen)


def settled(root: Step, numbers: dict[str, npt.NDArray[Any]]) -> Step:
    """Return the plan with the values whose tokens are in ``numbers`` put in."""
    return rebuilt(root, {}, numbers)


def rebuilt(root: Step, steps: Mapping[str, Step], numbers: Mapping[str, npt.NDArray[Any]]) -> Step:
    """Return the plan with other steps for those whose tokens are in ``steps``, and with values put in."""
    new: dict[str, Step] = {}
    for step in walk(root):
        if step.token in steps:
            new[step.token] = steps[step.token]
            continue
        inputs = tuple(new[i.token] for i in step.inputs)
        values = tuple(
            Scalar(given=numbers[v.token], what=v.what, cards=v.cards) if v.given is None and v.token in numbers else v
            for v in step.global_scalars
        )
        changed = any(a is not b for a, b in zip(inputs, step.inputs, strict=True)) or values != step.global_scalars
        new[step.token] = step.with_inputs(inputs, values) if changed else step
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
