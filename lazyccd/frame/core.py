"""The frame: a Dataset that users hold, and the image behind it that operations work on.

1. `resolve` reads a Dataset: which plan each variable comes from, units, header, planes, chunks.
2. An operation makes a new `Image` with `dataclasses.replace`: a longer plan, other units, a longer header.
3. `Image.to_dataset` makes the lazy Dataset of an image.
4. `settle_image` computes the pending scalars of a plan and puts them in, and into the header those that belong there.

Nothing else here computes a pixel. Nothing is remembered between operations either: a user may have replaced a variable, changed an
attribute or persisted the frame in between, so each operation reads the Dataset anew.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from astropy import units as u
from dask.base import compute

from lazyccd.errors import FrameError, ShapeError, UnitError
from lazyccd.frame.convert import cast_step, named_bits, refuse_arithmetic, to_mask, to_variance
from lazyccd.frame.header import append_cards
from lazyccd.frame.kinds import is_dask_array, is_dataset, is_instance
from lazyccd.frame.units import parse_unit, unit_to_text
from lazyccd.kernels import pointwise
from lazyccd.kernels.block import APERTURE, MAPS, Array
from lazyccd.mask_planes import FlagTable, MaskSchema
from lazyccd.plan.chunks import Grid, cut_sizes, default_grid
from lazyccd.plan.direct import can_run, run_scalars
from lazyccd.plan.footprints import Window
from lazyccd.plan.lower import Graph, LabelLayer, is_in_memory, lower_image, lower_scalars, read_label
from lazyccd.plan.steps import (
    Apply,
    Chunked,
    Input,
    Join,
    Kernel,
    Scalar,
    Scalars,
    Step,
    held_arrays,
    hold,
    make_dtypes,
    make_params,
    rebuilt,
    settled,
    walk,
)
from lazyccd.plan.tasks import Kind

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from lazyccd.frame.held import HeldFrame

CORRECTIONS = "mosaic_corrections"
"""Attribute of a mosaic: a table of what matching the overlaps of its frames found, as columns that JSON can hold."""

DATA = "data"
UNCERTAINTY = "uncertainty"
MASK = "mask"
DIMS = ("y", "x")

UncertaintyType: TypeAlias = Literal["std", "var", "ivar"]
"""What users see of the variance that plans carry: its root, itself, or its inverse."""

POWERS: dict[UncertaintyType, int] = {"std": 1, "var": 2, "ivar": -2}
"""Power of the units of the data that each type of uncertainty has."""


@dataclass(frozen=True)
class Image:
    """What a frame is made of: the form in which operations see a Dataset."""

    plan: Step
    """The plan, with a plane ``data`` and perhaps ``variance`` and ``mask``."""

    grid: Grid
    """Chunk sizes along y and x."""

    units: u.UnitBase
    """Units of the data."""

    header: str = ""
    """Header cards joined by newlines."""

    schema: MaskSchema = field(default_factory=MaskSchema)
    """The planes of the mask."""

    uncertainty_type: UncertaintyType = "std"
    """In which form the Dataset shows the variance."""

    y: Array = field(default_factory=lambda: np.zeros(0))
    """Original row of each row; empty for 0, 1, 2, ..."""

    x: Array = field(default_factory=lambda: np.zeros(0))
    """Original column of each column; empty for 0, 1, 2, ..."""

    graphs: tuple[Graph, ...] = ()
    """Graphs that hold the dask arrays that the plan reads."""

    attrs: Mapping[Hashable, Any] = field(default_factory=dict)
    """Other attributes of the Dataset."""

    def __post_init__(self) -> None:
        """Default to the pixel indices 0, 1, 2, ... as coordinates."""
        for name, length in zip(DIMS, self.plan.shape, strict=True):
            if getattr(self, name).size == 0:
                object.__setattr__(self, name, np.arange(length))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.plan.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the data."""
        return self.plan.dtypes[DATA]

    @property
    def has_variance(self) -> bool:
        """Whether there is an uncertainty."""
        return "variance" in self.plan.dtypes

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask."""
        return MASK in self.plan.dtypes

    @property
    def kinds(self) -> dict[str, Kind]:
        """For each variable of the Dataset, what it is."""
        kinds: dict[str, Kind] = {DATA: "data"}
        if self.has_variance:
            kinds[UNCERTAINTY] = self.uncertainty_type
        if self.has_mask:
            kinds[MASK] = "mask"
        kinds.update({name: cast("Kind", name) for name in MAPS if name in self.plan.dtypes})
        return kinds

    def apply(
        self,
        kernel: Kernel,
        sources: tuple[Input, ...],
        planes: Mapping[str, Any],
        *,
        scalars: Scalars = (),
        scratch_bytes: int | None = None,
        **params: Any,
    ) -> Apply:
        """Return a step of this image's shape; see `Apply` for the arguments."""
        return Apply(
            self.shape,
            make_dtypes(**planes),
            kernel=kernel,
            sources=sources,
            params=make_params(**params),
            scalars=scalars,
            scratch_bytes=scratch_bytes,
        )

    def window(self, offset: tuple[int, int], step: tuple[int, int], shape: tuple[int, int]) -> Image:
        """Return the image of the pixels ``offset + step * i``, with its original coordinates."""
        plan = Apply(
            shape,
            self.plan.planes,
            kernel=pointwise.window,
            sources=(Input(self.plan, Window(offset, step)),),
            params=make_params(offset=offset, step=step),
        )
        y = self.y[offset[0] + step[0] * np.arange(shape[0])]
        x = self.x[offset[1] + step[1] * np.arange(shape[1])]
        grid = (
            cut_sizes(self.grid[0], offset[0], step[0], shape[0]),
            cut_sizes(self.grid[1], offset[1], step[1], shape[1]),
        )
        return replace(self, plan=plan, grid=grid, y=y, x=x)

    def to_dataset(self, *, boundary: bool = False) -> xr.Dataset:
        """Return the lazy frame; with ``boundary``, later operations depend on its chunks, not on its plan."""
        if boundary or held_arrays() is None:
            return self.lowered(boundary=boundary)
        from lazyccd.frame.held import HeldFrame

        return HeldFrame(self)

    def lowered(self, *, boundary: bool = False) -> xr.Dataset:
        """Return the frame as a Dataset of dask arrays, as `to_dataset` does outside of single calls."""
        import xarray as xr

        arrays = lower_image(self.plan, self.grid, self.kinds, self.graphs, boundary=boundary)
        variables = {name: xr.Variable(DIMS, array, self._attrs(name)) for name, array in arrays.items()}
        # without an index: with one, xarray would align frames by coordinates and drop pixels behind the user's back
        coords = xr.Coordinates({"y": ("y", self.y), "x": ("x", self.x)}, indexes={})
        return xr.Dataset(variables, coords, {"header": self.header, **self.attrs})

    def map_units(self, name: str) -> str:
        """Return the units of a map; empty for counts."""
        return unit_to_text(self.units**2) if name == APERTURE else "s" if name == "exposure" else ""

    def _attrs(self, name: str) -> dict[str, Any]:
        """Return the attributes of a variable; all of them, since xarray would propagate units wrongly through arithmetic."""
        if name == MASK:
            return self.schema.to_attrs()
        if name in MAPS:
            return {"units": self.map_units(name)}
        if name == DATA:
            return {"units": unit_to_text(self.units)}
        units = self.units ** POWERS[self.uncertainty_type]
        return {"units": unit_to_text(units), "uncertainty_type": self.uncertainty_type}


def held_image(ds: object) -> Image | None:
    """Return the image of a frame that belongs to the single call that runs, if nobody has looked into the frame."""
    if not is_instance(ds, "lazyccd.frame.held", "HeldFrame"):
        return None
    frame = cast("HeldFrame", ds)
    image: Image | None = frame.image if frame.held is held_arrays() else None
    return image


def header_text(ds: xr.Dataset) -> str:
    """Return the header of a frame as text; that of a single call stays unmade."""
    image = held_image(ds)
    return str(ds.attrs.get("header", "")) if image is None else image.header


class HeldGraph:
    """The graph of an array that a single call holds, made when it is asked for."""

    def __init__(self, name: str, values: Array) -> None:
        self._name, self._values = name, values

    @cached_property
    def _graph(self) -> Graph:
        import dask.array as da

        graph: Graph = da.from_array(self._values, chunks=self._values.shape, name=self._name).dask
        return graph

    @property
    def layers(self) -> Mapping[str, Any]:
        """The layers of the graph by name."""
        layers: Mapping[str, Any] = self._graph.layers
        return layers

    @property
    def dependencies(self) -> Mapping[str, Any]:
        """What each layer depends on."""
        dependencies: Mapping[str, Any] = self._graph.dependencies
        return dependencies


def wrap_array(array: object, name: str = DATA) -> tuple[da.Array, tuple[Graph, ...]]:
    """Return an array as a dask array in chunks of moderate size, and its graph."""
    import dask.array as da

    if is_dask_array(array):
        wrapped = array
    elif hasattr(array, "__dask_graph__"):
        # such as those of the package dask-array, in whose expressions no plan can be found
        raise FrameError(
            f"variable {name!r} is a {type(array).__module__}.{type(array).__name__}, not a dask.array.Array; "
            "open the frame with xarray's default chunk manager."
        )
    else:
        values = np.asarray(array)
        wrapped = da.from_array(values, chunks=default_grid(values.shape))
    if any(np.isnan(size) for sizes in wrapped.chunks for size in sizes):
        raise FrameError(f"variable {name!r} has chunks of unknown size; call compute_chunk_sizes() on it first.")
    return wrapped, (wrapped.dask,)


def as_step(array: object, dtype: npt.DTypeLike, name: str = DATA) -> tuple[Step, tuple[Graph, ...]]:
    """Return a step whose plane ``data`` is an array in the given dtype, and the graphs that it needs."""
    if held_arrays() is not None and not hasattr(array, "__dask_graph__"):
        return _held_step(np.asarray(array), dtype)
    wrapped, graphs = wrap_array(array, name)
    step: Step = Chunked(
        cast("tuple[int, int]", wrapped.shape),
        make_dtypes(data=native(wrapped.dtype)),
        name=wrapped.name,
        chunks=wrapped.chunks,
        in_memory=is_in_memory(wrapped),
    )
    return cast_step(step, dtype), graphs


def _held_step(values: Array, dtype: npt.DTypeLike) -> tuple[Step, tuple[Graph, ...]]:
    """Return what `as_step` does, for an array that the single call that runs holds."""
    name = hold(values)
    chunks = cast("Grid", tuple((length,) for length in values.shape))
    step = Chunked(
        cast("tuple[int, int]", values.shape), make_dtypes(data=native(values.dtype)), name=name, chunks=chunks
    )
    return cast_step(step, dtype), (cast("Graph", HeldGraph(name, values)),)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the byte order of this machine: kernels are compiled for no other."""
    return dtype.newbyteorder("=")


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which numbers of a dtype are reduced: float32 for up to 16 bits, which it holds exactly, else float64."""
    dtype = native(np.dtype(dtype))
    if dtype.kind == "f":
        return np.dtype(np.float64 if dtype.itemsize > 4 else np.float32)
    if dtype.kind in "iub":
        return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    raise FrameError(f"data of dtype {dtype} cannot be reduced; convert them to a real floating-point dtype.")


def check_frame(ds: object, what: str = "frame") -> xr.Dataset:
    """Return the Dataset, after checking that it has the dims and variables of a frame."""
    if not is_dataset(ds):
        raise FrameError(f"the {what} is a {type(ds).__name__} and must be a frame: an xarray.Dataset with data(y, x).")
    if DATA not in ds.data_vars:
        raise FrameError(f"the {what} has variables {sorted(map(str, ds.data_vars))} and must have 'data'.")
    for name in (DATA, UNCERTAINTY, MASK, *MAPS):
        if name in ds.data_vars and ds.variables[name].dims != DIMS:
            raise FrameError(
                f"variable {name!r} of the {what} has dims {ds.variables[name].dims} and must have {DIMS}; "
                "transpose or select one plane first."
            )
    return ds


def resolve(ds: object, what: str = "frame", *, maps: bool = False) -> Image:
    """Return the image behind a frame.

    Parameters
    ----------
    ds
        A Dataset with ``data(y, x)`` and perhaps ``uncertainty`` and ``mask``. Variables that come unchanged from one plan
        extend it; others, replaced or computed by the user, become inputs of a new one.
    what
        How messages name the frame.
    maps
        Whether the plan has the maps of a stack too, which operations do not know: for writing.

    Raises
    ------
    FrameError
        Raised if dims, variables, dtypes, uncertainty type or mask are not those of a frame.
    """
    image = held_image(ds)
    if image is not None and (maps or not set(image.plan.dtypes).intersection(MAPS)):
        return image
    ds = check_frame(ds, what)
    variables = ds.variables  # ds[name] would make a DataArray, which costs more than all the rest
    kind = str(variables[UNCERTAINTY].attrs.get("uncertainty_type", "std")) if UNCERTAINTY in variables else "std"
    if kind not in {"std", "var", "ivar"}:
        raise FrameError(f"uncertainty_type {kind!r} of the {what} must be 'std', 'var' or 'ivar'; set the attribute.")
    uncertainty_type = cast("UncertaintyType", kind)
    table = FlagTable.from_attrs(variables[MASK].attrs if MASK in variables else {})
    plan, graphs = _resolve_plan(ds, uncertainty_type, table, what, tuple(MAPS) if maps else ())
    # chunks of the data are those of the frame; other variables may have others, which their own steps know
    first = variables[DATA].data
    wrapped = first if is_dask_array(first) else wrap_array(first)[0]
    attrs = {key: value for key, value in ds.attrs.items() if key != "header"}
    units = parse_unit(variables[DATA].attrs.get("units"), what)
    if UNCERTAINTY in variables:
        _check_units(units, variables[UNCERTAINTY].attrs.get("units"), uncertainty_type, what)
    return Image(
        plan,
        wrapped.chunks,
        units,
        str(ds.attrs.get("header", "")),
        table.schema,
        uncertainty_type,
        _coordinate(ds, "y"),
        _coordinate(ds, "x"),
        graphs,
        attrs,
    )


def _check_units(units: u.UnitBase, given: object, kind: UncertaintyType, what: str) -> None:
    """Refuse an uncertainty whose units do not go with those of the data."""
    expected = units ** POWERS[kind]
    if given is None:
        return
    unit = parse_unit(given, what)
    if not unit.is_equivalent(expected) or not math.isclose(unit.to(expected), 1.0, rel_tol=1e-12):
        raise UnitError(
            f"the uncertainty ({kind}) of the {what} has units '{unit}' and must have '{expected}', since the data have "
            f"'{units}'; set the units of both by with_unit."
        )


def _coordinate(ds: xr.Dataset, dim: str) -> Array:
    """Return the original pixel positions along a dim."""
    return np.asarray(ds.variables[dim].values) if dim in ds.variables else np.arange(ds.sizes[dim])


def _resolve_plan(
    ds: xr.Dataset, kind: UncertaintyType, table: FlagTable, what: str, maps: tuple[str, ...]
) -> tuple[Step, tuple[Graph, ...]]:
    """Return the plan of a frame: one that all variables share, else a join of what each comes from."""
    kinds: dict[str, Kind] = {DATA: "data", UNCERTAINTY: kind, MASK: "mask"}
    kinds.update({name: cast("Kind", name) for name in maps})
    roles = {DATA: "data", UNCERTAINTY: "variance", MASK: "mask", **dict(zip(maps, maps, strict=True))}
    parts: dict[str, tuple[Step, str]] = {}
    graphs: list[Graph] = []
    for name, plane in roles.items():
        if name not in ds.variables:
            continue
        array = ds.variables[name].data
        label = read_label(array) if is_dask_array(array) else None
        # a std renamed to var by a changed attribute is no longer what its plan makes: it is read as an array
        if label is not None and label.kind == kinds[name] and not label.boundary:
            parts[plane] = (label.plan, plane)
            graphs.append(array.dask)
            continue
        step, more = _as_part(array, name, label, kind, table, what)
        parts[plane] = (step, DATA)
        graphs.extend(more)
    _check_shapes(parts, what)
    # a plan is extended only if every variable is in its own role: data moved to the uncertainty must be a Join
    plans = {step.token: step for step, _ in parts.values()}
    plan = next(iter(plans.values()))
    if len(plans) == 1 and all(plane == own for plane, (_, own) in parts.items()) and set(plan.dtypes) == set(parts):
        return plan, tuple(graphs)
    return Join.of(**parts), tuple(graphs)


def _as_part(
    array: Any, name: str, label: LabelLayer | None, kind: UncertaintyType, table: FlagTable, what: str
) -> tuple[Step, tuple[Graph, ...]]:
    """Return the step of a variable that is not part of a plan: an array that exists."""
    if (
        label is not None
        and label.boundary
        and label.variance is not None
        and name == UNCERTAINTY
        and label.kind == kind
    ):
        import dask.array as da

        # the hidden variance of a boundary: a root taken and squared again would move the last bits
        array = da.Array(array.dask, label.variance, array.chunks, meta=array._meta)
        kind = "var"
    if name == MASK:
        step, graphs = as_step(array, array.dtype, name)
        refuse_arithmetic(array, what)
        return to_mask(named_bits(step, table), table, what), graphs
    if name in MAPS:
        return as_step(array, native(array.dtype), name)
    step, graphs = as_step(array, float_dtype(array.dtype), name)
    return (step if name == DATA else to_variance(step, kind)), graphs


def _check_shapes(parts: Mapping[str, tuple[Step, str]], what: str) -> None:
    """Refuse variables of different shapes."""
    shapes = {plane: step.shape for plane, (step, _) in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError(f"the variables of the {what} have shapes {shapes} and must have one; replace the odd one.")


def make_image(
    data: Step,
    *,
    units: u.UnitBase,
    grid: Grid,
    variance: Step | None = None,
    mask: Step | None = None,
    maps: Mapping[str, Step] | None = None,
    **more: Any,
) -> Image:
    """Return the image whose planes are the ``data`` planes of separate steps."""
    if variance is None and mask is None and not maps and set(data.dtypes) == {DATA}:
        return Image(data, grid, units, **more)
    plan = Join.of(
        data=(data, DATA),
        variance=None if variance is None else (variance, DATA),
        mask=None if mask is None else (mask, DATA),
        **{name: (step, DATA) for name, step in (maps or {}).items()},
    )
    return Image(plan, grid, units, **more)


def without_maps(image: Image) -> Image:
    """Return an image without the maps of a stack or mosaic, as `resolve` gives it to operations."""
    if not isinstance(image.plan, Join) or not set(image.plan.dtypes).intersection(MAPS):
        return image
    parts = {name: (step, plane) for name, step, plane in image.plan.parts if name not in MAPS}
    only = parts[DATA][0]
    return replace(image, plan=only if len(parts) == 1 and set(only.dtypes) == {DATA} else Join.of(**parts))


def settle_image(image: Image) -> Image:
    """Return the image with the scalars of its plan computed and put in; what they tell is in the header."""
    image, cards = settle_scalars(image)
    return replace(image, header=append_cards(image.header, cards)) if cards else image


def settle_scalars(image: Image) -> tuple[Image, list[tuple[str, float, str]]]:
    """Return the image with the scalars of its plan put in, and the cards for its header."""
    wanted = {scalar.token: scalar for scalar in _own_scalars(image.plan) if scalar.given is None and scalar.cards}
    found = {}
    while pending := image.plan.pending:
        scalars = run_scalars(pending) if can_run(image.plan) else _compute_scalars(pending, image.graphs)
        found.update({token: scalars[token] for token in wanted if token in scalars})
        image = replace(image, plan=settled(image.plan, scalars))
    cards = {}
    for token, scalar in wanted.items():
        for card in scalar.cards:
            number = float(found[token].ravel()[card.element])
            if not math.isnan(number):
                cards[card.keyword] = (card.keyword, float(f"{number:.6g}"), card.comment)
    return image, list(cards.values())


def told_frame(ds: xr.Dataset) -> xr.Dataset:
    """Return a frame with what scalars of its stack tell in its attributes, computed now; most frames are returned as they are."""
    array: Any = ds[DATA].data if DATA in ds else None
    label = read_label(array) if hasattr(array, "dask") else None
    if label is None or not label.boundary:
        return ds
    scalars = {
        s.token: s for step in walk(label.plan) for _, s in step.scalars if s.told is not None and s.given is None
    }
    if not scalars:
        return ds
    found = _compute_scalars(scalars, (array.dask,))
    attrs = {key: value for token, s in scalars.items() if s.told for key, value in s.told(found[token]).items()}
    # what is known now is not found again by the tasks of the stack
    image = replace(resolve(ds, maps=True), plan=rebuilt(label.plan, {}, found), graphs=(array.dask,))
    known = image.to_dataset(boundary=True)
    own = {n: v for n, v in ds.data_vars.items() if n in known and _is_of(v.data, label.plan)}
    return ds.assign({n: v.copy(data=known[n].data) for n, v in own.items()}).assign_attrs(attrs)


def _is_of(array: Any, plan: Step) -> bool:
    """Return whether an array is a plane of the stack that a plan is."""
    label = read_label(array) if hasattr(array, "dask") else None
    return label is not None and label.boundary and label.plan == plan


def _compute_scalars(pending: Mapping[str, Scalar], graphs: tuple[Graph, ...]) -> dict[str, Array]:
    """Return pending scalars by token, computed by dask."""
    return dict(zip(pending, compute(*lower_scalars(pending.values(), graphs)), strict=True))


def has_cards(image: Image) -> bool:
    """Return whether scalars that are pending belong into the header."""
    return any(scalar.given is None and scalar.cards for scalar in _own_scalars(image.plan))


def _own_scalars(plan: Step) -> Iterator[Scalar]:
    """Yield the scalars of the frame's own steps, oldest first: not those of masters, nor of the inputs of a stack."""
    chain = [plan]
    while chain[-1].inputs and not chain[-1].pulls_inputs:
        chain.append(chain[-1].inputs[0])
    for step in reversed(chain):
        yield from (scalar for _, scalar in step.scalars)
