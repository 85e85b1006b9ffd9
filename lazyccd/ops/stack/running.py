"""Stacks that grow: frames are added and vetoed one by one, without reading the others again.

A folder has running sums of weights, values and counts; `lazyccd.io.zarr.running_sums` keeps them. Medians and rejections need
all inputs at once, so only averages and sums can grow.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from lazyccd.errors import LazyCCDError, ParameterError, ShapeError, warn
from lazyccd.frame.core import Image, make_image, resolve
from lazyccd.frame.sky_footprint import frame_place
from lazyccd.frame.sky_mapping import FrozenWCS
from lazyccd.frame.stack_header import stack_header
from lazyccd.frame.tree import Names, frames_of, make_tree
from lazyccd.frame.units import conversion_factor, parse_unit, unit_to_text
from lazyccd.io import as_frame
from lazyccd.io.open import open_image
from lazyccd.io.zarr.running_sums import (
    CHUNK,
    SumsLayout,
    SumsSink,
    SumsStorage,
    changing,
    read_current,
    write_current,
)
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.binary import affine_image
from lazyccd.ops.mosaic.placed import OffGridWarning
from lazyccd.ops.mosaic.warp import Order, SkyGrid, celestial_target, celestial_wcs, kernel_of, normalize_shape, warped
from lazyccd.ops.stack.combine import mask_bits
from lazyccd.ops.stack.inputs import exposure_name
from lazyccd.plan.chunks import grid_boxes, regular_grid
from lazyccd.plan.lower import WritePart, lower_write
from lazyccd.plan.steps import Chunked, Source, file_name, make_dtypes
from lazyccd.plan.tasks import Kind


class RunningStack:
    """A mean or sum of frames or of trees of frames, kept as running sums in a folder.

    Parameters
    ----------
    path
        Folder of the sums; made when the first frame is added.
    method
        ``average`` or ``sum``, weighted. Medians and rejections look at all frames at once and cannot be kept as sums: use
        `combine` for them.
    wcs, shape
        A grid of the sky, onto which each frame is resampled before it is added; see `coadd`. A folder keeps the grid with which it
        was made, so that it is not needed again.
    order
        The interpolation kernel, as in `wcs_project`.

    Notes
    -----
    A folder is always complete: a new generation of sums is written beside the current one, and replaces it when it is
    complete. After a frame is vetoed, counts of inputs and mask planes are exactly what they were, and sums to rounding: a result
    differs from a fresh stack by less than 1e-12 of the largest value that was added. Masked inputs and pixels without a good
    input are treated as in `combine`; the uncertainty is propagated.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> with TemporaryDirectory() as folder:
    ...     stack = RunningStack(f"{folder}/deep")
    ...     for value in (1.0, 2.0, 90.0):
    ...         stack.add(CCDData(np.full((1, 1), value), unit="adu"), name=f"f{value:g}")
    ...     stack.veto("f90", CCDData(np.full((1, 1), 90.0), unit="adu"))
    ...     stack.names, stack.result()["data"].values.item()
    (['f1', 'f2'], 1.5)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        method: Literal["average", "sum"] = "average",
        *,
        wcs: Any = None,
        shape: tuple[int, int] | None = None,
        order: Order = "lanczos3",
    ) -> None:
        if method not in {"average", "sum"}:
            raise ParameterError(
                f"method {method!r} of a running stack must be average or sum; use combine() for others."
            )
        self.path = os.path.abspath(os.fspath(path))
        self.method = method
        if (wcs is None) != (shape is None):
            raise ParameterError("a grid of the sky has wcs= and shape=; give both, or neither.")
        given = None if wcs is None else SkyGrid(celestial_target(wcs), normalize_shape(shape), kernel_of(order))
        self.grid = self._grid(given)

    def _grid(self, given: SkyGrid | None) -> SkyGrid | None:
        """Return the grid of the sky: the one given, or that of the folder."""
        content = self._content()
        kept = content.get("grid")
        if given is not None and content["frames"] and kept != _kept_grid(given):
            raise ParameterError(
                f"{self.path} was made {'with another grid' if kept else 'without a grid of the sky'}; leave out wcs and shape, or "
                "begin another folder."
            )
        if given is not None or not kept:
            return given
        wcs = FrozenWCS.from_json(kept["wcs"])
        return SkyGrid(wcs.make(), (kept["shape"][0], kept["shape"][1]), kept["order"])

    @property
    def names(self) -> list[str]:
        """Names of the frames, in the order in which they were added."""
        return [frame["name"] for frame in self._content()["frames"]]

    def _content(self) -> dict[str, Any]:
        return read_current(self.path) or {"generation": -1, "frames": [], "parts": {}}

    def add(self, frame: Any, weight: float = 1.0, name: str | None = None) -> None:
        """Add a frame, or a tree of frames.

        Parameters
        ----------
        frame
            A frame, CCDData or path; of the shape of the others, in a unit that can be converted to theirs. Or a tree, or the
            path of one, whose frames have the names of those of the others. On a grid of the sky, frames of any shape, and each
            frame of a tree is added as one of its own, called ``name[frame]``; those that lie elsewhere are left out.
        weight
            Its weight.
        name
            Its name; that of its file by default.

        Raises
        ------
        ParameterError
            Raised if there is a frame of this name, no name, the weight is not above 0, or a tree has other names.
        ShapeError, UnitError
            Raised if shapes or units differ.
        TargetBusyError
            Raised if another process, or another thread, is adding or vetoing a frame.
        WriteError
            Raised if there is no space; the sums are what they were.
        """
        with changing(self.path):
            opened = open_image(frame) if isinstance(frame, str | os.PathLike) else frame
            if self.grid is None or not isinstance(opened, xr.DataTree):
                self._add(frame, weight, name)
            else:
                self._add_each(opened, frame, weight, name or exposure_name(opened))

    def _add_each(self, tree: xr.DataTree, given: Any, weight: float, name: str) -> None:
        """Add the frames of a tree to a grid of the sky: all that lie on it, or none if one of them is refused."""
        assert self.grid is not None
        places = {
            part: frame_place(celestial_wcs(image, f"{name}[{part}]"), image.shape, self.grid.frozen, self.grid.shape)
            for part, image in _images(tree)[1].items()
        }
        here = [part for part, place in places.items() if place.size]
        if not here:
            raise ParameterError(f"no frame of {name or 'the tree'} lies on the grid of {self.path}; leave it out.")
        if len(here) < len(places):
            missing = ", ".join(part for part in places if part not in here)
            warn(f"frames of {name} do not lie on the grid and are left out: {missing}.", OffGridWarning)
        path = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
        added: list[str] = []
        try:
            for part in here:
                self._add(frames_of(tree)[part], weight, f"{name}[{part}]" if name else None, (path, part))
                added.append(f"{name}[{part}]")
        except LazyCCDError:
            for one in added:
                self._veto(one, tree)
            raise

    def _add(self, frame: Any, weight: float, name: str | None, of_tree: tuple[str, str] = ("", "")) -> None:
        """Add a frame to a folder that nobody else changes."""
        content = self._content()
        opened, images = self._images(frame)
        root = opened.attrs if isinstance(opened, xr.DataTree) else None
        name = name or (exposure_name(opened) if isinstance(opened, xr.DataTree) else file_name(images[""].plan))
        if not name:
            raise ParameterError("a frame that was not read from a file needs a name; give name=.")
        if any(other["name"] == name for other in content["frames"]):
            raise ParameterError(f"{self.path} has a frame {name!r} already; veto it first, or give another name=.")
        # NaN is not above 0 either
        if not weight > 0:
            raise ParameterError(f"weight {weight} of {name} must be above 0.")
        if not content["frames"]:
            content["parts"] = {part: _properties(image) for part, image in images.items()}
            content["root"] = root
            content["grid"] = None if self.grid is None else _kept_grid(self.grid)
        elif (root is None) != (content["root"] is None):
            held, given = ("trees", "one frame") if root is None else ("frames", "a tree")
            raise ParameterError(f"{self.path} has {held} and {name} is {given}; add what is like the others.")
        Names(tuple(content["parts"])).check(images, name)
        entry = {
            "name": name,
            "weight": float(weight),
            "header": str(opened.attrs.get("header", "")),
            # the token lets a veto tell whether a frame is the one that was added: a wrong one would stay in the sums for good
            "parts": {part: {"token": i.plan.token, "header": i.header} for part, i in images.items()},
            "path": os.fspath(frame) if isinstance(frame, str | os.PathLike) else of_tree[0],
            "of_tree": of_tree[1],
        }
        self._run(images, name, float(weight), 1, content, [*content["frames"], entry])

    def veto(self, name: str, frame: Any = None) -> None:
        """Take a frame out again.

        Parameters
        ----------
        name
            Its name; that of a tree takes out all its frames.
        frame
            The same frame or tree as was added; needed if that was not a path.

        Raises
        ------
        ParameterError
            Raised if there is no such frame, it is not given, or it is not what it was.
        TargetBusyError, WriteError
            As of `add`.
        """
        with changing(self.path):
            # a tree on a grid of the sky was added frame by frame
            parts = [one for one in self.names if one.startswith(f"{name}[")] if name not in self.names else []
            for one in parts or [name]:
                self._veto(one, frame)

    def _veto(self, name: str, frame: Any) -> None:
        """Take a frame out of a folder that nobody else changes."""
        content = self._content()
        entry = next((one for one in content["frames"] if one["name"] == name), None)
        if entry is None:
            raise ParameterError(f"{self.path} has no frame {name!r}; it has {', '.join(self.names) or 'none'}.")
        if frame is None and not entry["path"]:
            raise ParameterError(f"{name} was not added by its path; give the frame itself.")
        given = entry["path"] if frame is None else frame
        if part := entry.get("of_tree"):
            given = open_image(given) if isinstance(given, str | os.PathLike) else given
            given = frames_of(given)[part] if isinstance(given, xr.DataTree) else given
        _, images = self._images(given)
        added = {part: one["token"] for part, one in entry["parts"].items()}
        if {part: image.plan.token for part, image in images.items()} != added:
            raise ParameterError(f"{name} is not what it was when it was added to {self.path}; add all frames anew.")
        left = [one for one in content["frames"] if one is not entry]
        self._run(images, name, entry["weight"], -1, content, left)

    def _images(self, frame: Any) -> tuple[xr.Dataset | xr.DataTree, dict[str, Image]]:
        """Return what was given as a frame or tree, and its images by name, on the grid if there is one."""
        opened, images = _images(frame)
        if self.grid is None:
            return opened, images
        image = images[""]
        source = celestial_wcs(image)
        if not frame_place(source, image.shape, self.grid.frozen, self.grid.shape).size:
            raise ParameterError(
                f"{file_name(image.plan) or 'the frame'} does not lie on the grid of {self.path}; leave it out."
            )
        return opened, {"": warped(image, source, self.grid, for_stack=True)}

    def result(self) -> xr.Dataset | xr.DataTree:
        """Return the stack as a lazy frame, with the header of a stack; or as a tree if it has trees.

        Raises
        ------
        ParameterError
            Raised if there are no frames.
        """
        content = self._content()
        if not content["frames"]:
            raise ParameterError(f"{self.path} has no frames; add one first.")
        stacks = {part: self._stack(content, part) for part in content["parts"]}
        if content["root"] is None:
            return stacks[""]
        texts = [frame["header"] for frame in content["frames"]]
        return make_tree(stacks, {**content["root"], "header": self._header(content, texts)})

    def _header(self, content: dict[str, Any], texts: list[str]) -> str:
        """Return the header of the stack of frames with some headers."""
        names, weights = zip(*((frame["name"], frame["weight"]) for frame in content["frames"]), strict=True)
        return stack_header(texts, names, weights, method=self.method).apply(texts[0])

    def _stack(self, content: dict[str, Any], part: str) -> xr.Dataset:
        """Return the stack of the frames of one name."""
        layout, schema = self._layout(content, part)
        properties = content["parts"][part]
        generation, identity = content["generation"], properties["identity"]
        planes = {
            plane: Source.of(SumsStorage(layout, generation, plane, self.method == "sum", identity))
            for plane in ("data", "mask", *(["variance"] if properties["uncertainty"] else []))
        }
        image = make_image(
            planes["data"],
            units=parse_unit(properties["units"], self.path),
            grid=regular_grid(layout.shape, (2 * CHUNK, 2 * CHUNK)),
            variance=planes.get("variance"),
            mask=planes["mask"],
            header=self._header(content, [frame["parts"][part]["header"] for frame in content["frames"]]),
            schema=schema,
        )
        return image.to_dataset()

    def _layout(self, content: dict[str, Any], part: str) -> tuple[SumsLayout, MaskSchema]:
        properties = content["parts"][part]
        schema = MaskSchema.from_attrs(properties["mask"])
        image = _like(properties, schema)
        bits = mask_bits([image], schema)
        layout = SumsLayout(
            os.path.join(self.path, part) if part else self.path,
            image.shape,
            bits.ranks[:-1],
            bits.bad,
            bits.no_data,
            bits.saturated,
            schema.names,
        )
        return layout, schema

    def _run(
        self,
        images: Mapping[str, Image],
        name: str,
        weight: float,
        sign: int,
        content: dict[str, Any],
        frames: list[dict[str, Any]],
    ) -> None:
        """Write a new generation with a frame added or taken out."""
        number = int(content["generation"])
        source = number if content["frames"] else -1  # of an empty stack, frames may be of any shape
        # all frames of a tree are checked before the first is written: a tree is added whole or not at all
        layouts = {}
        for part, image in images.items():
            layouts[part], schema = self._layout(content, part)
            _check_alike(image, f"{name}[{part}]" if part else name, content["parts"][part], schema, self.path)
        for part, image in images.items():
            sink = SumsSink(layouts[part], source, number + 1, weight, sign)
            _write_sums(_in_units(image, content["parts"][part]["units"], name), sink)
        # only now do readers see the new sums; a run that died before has left files that nobody reads
        write_current(self.path, {**content, "generation": number + 1, "frames": frames})


def _kept_grid(grid: SkyGrid) -> dict[str, Any]:
    """Return what a folder keeps of a grid, as it is after JSON."""
    kept = {"wcs": grid.frozen.to_json(), "shape": grid.shape, "order": grid.kernel}
    return dict(json.loads(json.dumps(kept)))


def _images(frame: Any) -> tuple[xr.Dataset | xr.DataTree, dict[str, Image]]:
    """Return what was given as a frame or tree, and its images by name; that of a frame has none."""
    opened = open_image(frame) if isinstance(frame, str | os.PathLike) else frame
    if isinstance(opened, xr.DataTree):
        return opened, {name: resolve(ds, name) for name, ds in frames_of(opened).items()}
    ds = as_frame(opened)
    return ds, {"": resolve(ds)}


def _check_alike(image: Image, name: str, properties: dict[str, Any], schema: MaskSchema, path: str) -> None:
    """Raise an error if a frame is not like those of the stack."""
    if image.has_variance != properties["uncertainty"]:
        raise ParameterError(
            f"{name} has {'an' if image.has_variance else 'no'} uncertainty and the frames of {path} "
            f"{'have one' if properties['uncertainty'] else 'have none'}; give all or none one."
        )
    shape = tuple(properties["shape"])
    if image.shape != shape:
        raise ShapeError(f"{name} shape {image.shape} does not match the shape {shape} of {path}; trim it.")
    if image.has_mask and image.schema != schema:
        raise ParameterError(f"the mask planes of {name} are not those of {path}: {', '.join(schema.names)}.")
    conversion_factor(image.units, parse_unit(properties["units"], path), name)


def _in_units(image: Image, units: str, name: str) -> Image:
    """Return an image in the units of a stack."""
    factor = conversion_factor(image.units, parse_unit(units, name), name)
    return image if factor == 1 else affine_image(image, factor)


def _write_sums(image: Image, sink: SumsSink) -> None:
    """Compute an image and add it to sums."""
    kinds: dict[str, Kind] = dict(image.kinds)
    if image.has_variance:
        # sums are of variances: roots that are squared again would move the last bits
        kinds["uncertainty"] = "var"
    regions = grid_boxes(regular_grid(image.shape, (CHUNK, CHUNK)))
    part = WritePart(image.plan, tuple(regions), kinds, image.graphs, sink.writer)
    # each run is another one: dask must not take a frame that is added anew for work that is done
    lower_write([part], sink, f"running-{uuid.uuid4().hex}").compute()


def _properties(image: Image) -> dict[str, Any]:
    """Return what all frames of one name have in common with the first."""
    return {
        "shape": list(image.shape),
        "units": unit_to_text(image.units),
        "uncertainty": image.has_variance,
        "mask": image.schema.to_attrs(),
        # a folder that is removed and filled anew must not have the tokens of the old one
        "identity": uuid.uuid4().hex,
    }


def _like(properties: dict[str, Any], schema: MaskSchema) -> Image:
    """Return an image of the shape of a stack's frames."""
    shape = (int(properties["shape"][0]), int(properties["shape"][1]))
    step = Chunked(shape, make_dtypes(data=float, mask=schema.dtype), name="frames", chunks=((shape[0],), (shape[1],)))
    return replace(Image(step, ((shape[0],), (shape[1],)), parse_unit(properties["units"], "")), schema=schema)
