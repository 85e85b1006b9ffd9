"""What became of one pixel: its value in every input at every step of a plan, and what rejected it, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from lazyccd.errors import SectionError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.tree import by_frame
from lazyccd.frame.wcs import lattice
from lazyccd.kernels.block import PLANES, Array, Block, Request
from lazyccd.kernels.stack.combine import combine_frames, reasons, scaling_of
from lazyccd.kernels.stack.scaling import Scaling
from lazyccd.ops.arguments import normalize_number
from lazyccd.plan.lower import lower_image, lower_scalars, merged, narrowed, read_label, window_step
from lazyccd.plan.steps import Stack, Step, file_name, rebuilt
from lazyccd.plan.tasks import Kind
from lazyccd.sections import Region

KINDS: dict[str, Kind] = {"data": "data", "variance": "std", "mask": "mask"}


class Place(NamedTuple):
    """A pixel of a step's output."""

    step: Step
    y: int
    x: int


@dataclass
class Row:
    """One line of the table."""

    frame: str
    place: Place
    name: str
    note: str = ""


@by_frame
def explain(ccd: xr.Dataset, y: float, x: float) -> Any:
    """Return what became of one pixel of a frame, step by step.

    Parameters
    ----------
    ccd
        A frame; also a stack, whose inputs are explained one by one. A tree gives a table for each frame by name.
    y, x
        Original coordinates of the pixel, as in ``ds.ccd.pixel``.

    Returns
    -------
    astropy.table.Table
        For each input of a stack (``frame``) and each step in its order: the pixel of that step's image, its value, standard
        uncertainty, the names of its mask planes, and a note: why a stack left it out. Operands, such as masters, begin
        with +. Computed now; each line pulls a window as large as the halos below it.

    Raises
    ------
    SectionError
        Raised if the frame does not hold the pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import combine, from_ccddata
    >>> frames = [from_ccddata(CCDData([[value]], unit="adu")) for value in (1.0, 2.0, 3.0, 90.0)]
    >>> table = explain(combine(frames, minmax_clip=True, minmax_clip_max=9), 0, 0)
    >>> table["note"][table["step"] == "to the stack"].tolist()
    ['used', 'used', 'used', 'limits']
    """
    from astropy.table import Table  # takes long to import, and few need it

    image = with_inputs(ccd)
    row, column = index_of(ccd, y, x)
    image = near(image, Region(row, row + 1, column, column + 1))
    rows = list(_rows(image.plan, row, column, "", image))
    numbers = _values(image, rows)
    names = ("frame", "step", "y", "x", "value", "uncertainty", "mask", "note")
    table = Table(names=names, dtype=(str, str, int, int, float, float, str, str))
    for line, (value, std, bits) in zip(rows, numbers, strict=True):
        planes = "+".join(name for name in image.schema.names if bits & image.schema.bits(name))
        table.add_row((line.frame, line.name, line.place.y, line.place.x, value, std, planes, line.note))
    # what is printed fits into 80 columns; the values themselves are not rounded
    table["value"].info.format = table["uncertainty"].info.format = ".6g"
    for name in ("frame", "step", "note"):
        table[name].info.format = "<"
    return table


def with_inputs(ccd: xr.Dataset) -> Image:
    """Return the image of a frame, with the plan of a stack itself instead of its chunks."""
    image = resolve(ccd)
    array = ccd["data"].data
    # resolve stops at the boundary, since operations go on from the chunks of a stack; here its inputs are what matters
    label = read_label(array) if isinstance(array, da.Array) else None
    if label is None or not label.boundary:
        return image
    return replace(image, plan=label.plan, graphs=(array.dask,))


def stack_image(ccd: xr.Dataset) -> Image | None:
    """Return the image of a stack with its plan instead of its chunks; None for any other frame, or one that was changed."""
    labels = {name: read_label(v.data) if isinstance(v.data, da.Array) else None for name, v in ccd.data_vars.items()}
    first = labels.get("data")
    if first is None or not first.boundary:
        return None
    is_whole = all(label is not None and label.plan == first.plan for label in labels.values())
    image = with_inputs(ccd)
    return image if is_whole and image.kinds.keys() == labels.keys() else None


def near(image: Image, region: Region, *, frame_by_frame: bool = True) -> Image:
    """Return a stack of which nothing but a region will be asked, so that other stacks below it are made for that alone.

    Parameters
    ----------
    image
        The stack.
    region
        All that will be asked of it.
    frame_by_frame
        Whether tasks pull single frames of it: what these are compared with is then made by one task for all.
    """
    step = image.plan
    if not isinstance(step, Stack):
        return image
    needs = step.needs(Request(region, frozenset(step.dtypes)))
    roots = [(frame, need) for frame, need in zip(step.frames, needs, strict=True) if need is not None]
    steps, graphs = narrowed(roots, image.graphs, stacks=frame_by_frame)
    if not steps:
        return image
    # the others lie elsewhere, and nobody will look at them
    frames = tuple(
        frame if need is None else rebuilt(frame, steps, {}) for frame, need in zip(step.frames, needs, strict=True)
    )
    return replace(image, plan=step.with_inputs(frames, step.scalars), graphs=merged((*image.graphs, *graphs)))


def index_of(ccd: xr.Dataset, y: float, x: float) -> tuple[int, int]:
    """Return row and column of a pixel at original coordinates."""
    found = []
    for value, name in ((y, "y"), (x, "x")):
        first, step = lattice(ccd[name].values, name)
        number = normalize_number(value, name)
        last = first + step * (ccd.sizes[name] - 1)
        place = round((number - first) / step) if math.isfinite(number) else -1
        if not 0 <= place < ccd.sizes[name]:
            raise SectionError(
                f"pixel {name} = {value} is not in the frame, whose {name} goes from {first:g} to {last:g}; these are the original "
                f"positions, those of ds[{name!r}]."
            )
        found.append(place)
    return found[0], found[1]


def _rows(step: Step, y: int, x: int, frame: str, image: Image, indent: str = "") -> Iterator[Row]:
    """Yield the lines of a step, those of its inputs first."""
    place = Place(step, y, x)
    if isinstance(step, Stack):
        yield from _stack_rows(step, y, x, image)
        yield Row(frame or "result", place, f"{indent}stack")
        return
    for number, (below, pixel) in enumerate(step.pixels_below(y, x)):
        if pixel is not None and "data" in below.dtypes:
            more = indent if number == 0 else f"{indent}+ "
            yield from _rows(below, *pixel, frame, image, more)
    # a path would take the whole line of a terminal, and its end says which file it is
    yield Row(frame, place, f"{indent}{_short(step.origin) or step.label}")


def _short(origin: str) -> str:
    """Return the name of a file without its folders; that of a frame in a store with the store."""
    return origin[origin.rfind("/", 0, origin.rfind(".zarr/")) + 1 :]


def _stack_rows(step: Stack, y: int, x: int, image: Image) -> Iterator[Row]:
    """Yield the lines of the inputs of a stack."""
    request = Request(Region(y, y + 1, x, x + 1), frozenset({"data", "mask"}))
    # behind the frames may stand weights, and the frames again without their masters
    count = dict(step.params)["rule"].count if step.kernel is combine_frames else len(step.frames)
    # of a mosaic, most frames lie elsewhere
    here = [i for i in step.needed(request) if i < count]
    notes = inputs_of_pixel(step, request, image).notes if step.kernel is combine_frames else [""] * len(here)
    for i, note in zip(here, notes, strict=True):
        frame = step.frames[i]
        name = f"{i + 1} {file_name(frame)}".strip()
        yield from _rows(frame, y, x, name, image)
        yield Row(name, Place(frame, y, x), "to the stack", note or "used")


class PixelInputs(NamedTuple):
    """What a stack makes of one pixel; for each frame that has it, in their order."""

    values: Array
    """Values, brought to one level."""

    notes: list[str]
    """Why an input was left out; empty words for those that were used."""

    scaling: Scaling
    """What is done to each frame of the stack, those that lie elsewhere too."""


def inputs_of_pixel(step: Stack, request: Request, image: Image) -> PixelInputs:
    """Return what a stack that `combine_frames` makes does with the inputs of a pixel.

    Parameters
    ----------
    step
        The stack.
    request
        Data and mask of one pixel.
    image
        The frame that is the stack, for its graphs.
    """
    arrays: list[Any] = []
    # of thousands of frames a few lie here
    asked: dict[int, tuple[Region, list[str]]] = {}
    for i, need in step.needed(request).items():
        planes = [name for name in PLANES if name in need.planes]
        arrays += lower_region(step.frames[i], need.region, planes, image)
        asked[i] = (need.region, planes)
    # what is about the agreement of frames is not asked for: this is where one looks when they disagree
    left_out = set(step.own_scalars)
    needed = [(name, scalar) for name, scalar in step.scalars if name not in left_out]
    pending = {name: scalar for name, scalar in needed if scalar.given is None}
    found = compute(*arrays, *lower_scalars(pending.values(), image.graphs))
    scalars = {name: scalar.given for name, scalar in needed if scalar.given is not None}
    scalars |= dict(zip(pending, found[len(arrays) :], strict=True))
    pixels = iter(found)
    blocks: list[Block | None] = [None] * len(step.frames)
    for i, (region, planes) in asked.items():
        blocks[i] = Block(region, **{name: next(pixels) for name in planes})
    rule = dict(step.params)["rule"]
    return PixelInputs(*reasons(request, blocks, rule=rule, **scalars), scaling_of(rule, scalars))


def lower_region(step: Step, region: Region, planes: list[str], image: Image) -> list[Any]:
    """Return lazy arrays of a region of a step; variances as such."""
    window = window_step(step, region, planes)
    kinds: dict[str, Kind] = {name: "var" if name == "variance" else KINDS[name] for name in planes}
    return list(lower_image(window, ((region.shape.y,), (region.shape.x,)), kinds, image.graphs).values())


def _values(image: Image, rows: list[Row]) -> list[tuple[float, float, int]]:
    """Return value, standard uncertainty and mask of the pixel of each line."""
    arrays = []
    for row in rows:
        step, y, x = row.place
        planes = [name for name in PLANES if name in step.dtypes]
        arrays.append(dict(zip(planes, lower_region(step, Region(y, y + 1, x, x + 1), planes, image), strict=True)))
    numbers = []
    for found in compute(*arrays):
        first = {name: array[0, 0] for name, array in found.items()}
        std = float(np.sqrt(first["variance"])) if "variance" in first else np.nan
        numbers.append((float(first["data"]) if "data" in first else np.nan, std, int(first.get("mask", 0))))
    return numbers
