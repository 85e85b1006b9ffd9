"""The inputs of a stack: frames from whatever users give, opened, named and in one unit.

`collect` takes lists, globs, frames and CCDData alike. `tree_by_tree` lets functions of frames take trees of frames.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazyccd.errors import ArgumentTypeError, KeywordError, ParameterError, ShapeError
from lazyccd.frame.core import Image, resolve, without_maps
from lazyccd.frame.header import header_view
from lazyccd.frame.header_values import find_number
from lazyccd.frame.history_log import bind_arguments
from lazyccd.frame.kinds import is_dataset, is_tree
from lazyccd.frame.nddata import is_ccddata
from lazyccd.frame.stack_header import stack_header
from lazyccd.frame.tree import call_each, calls_of, first_tree, frames_of, gather
from lazyccd.frame.units import conversion_factor
from lazyccd.io.fits.open import open_images
from lazyccd.io.fits.write import to_fits, write_image
from lazyccd.io.names import InputName, expand_names, split_hdu, target_name
from lazyccd.io.open import as_frame, open_image
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.binary import affine_image
from lazyccd.plan.steps import file_name

if TYPE_CHECKING:
    import xarray as xr
    from astropy.nddata import CCDData

IN_TREE = Path()
"""Stands for the output file of a frame whose tree is written as a whole."""

EXPOSURES = ("EXPTIME", "EXPOSURE")
"""Keywords of the exposure time, the first that is there."""


@dataclass(frozen=True)
class Given:
    """The frames of a stack."""

    images: list[Image]
    """The frames, in their order."""

    labels: list[str]
    """What messages call them, such as ``frame 2 (b.fits)``."""

    names: list[str]
    """Names of their files, empty where a frame has none."""

    like: CCDData | None
    """The first CCDData if all inputs are CCDData."""

    def is_keyword(self, text: str) -> bool:
        """Return whether a text is the keyword of a header: with ``!`` it is meant to be, without one of them has it."""
        return text.startswith("!") or any(text in header_view(image.header) for image in self.images)

    def header_number(self, index: int, keyword: str) -> float:
        """Return a number of a frame's header.

        Raises
        ------
        KeywordError
            Raised if it is not there, or no number.
        """
        header = header_view(self.images[index].header)
        value = header.get(keyword, None)
        number = find_number(value)
        if number is None:
            found = f"has {keyword} = {value!r}, which is no number" if keyword in header else f"has no {keyword}"
            raise KeywordError(
                f"the header of {self.labels[index]} {found}; correct the header, or give the numbers themselves."
            )
        return number

    def exposures(self) -> tuple[float, ...]:
        """Return the exposure times of all frames."""
        numbers = []
        for i, image in enumerate(self.images):
            header = header_view(image.header)
            numbers.append(self.header_number(i, next((key for key in EXPOSURES if key in header), EXPOSURES[0])))
        return tuple(numbers)


def trees_of(img_list: Any, caller: str) -> list[xr.DataTree]:
    """Return the trees that are to be combined; none if the list has frames.

    Raises
    ------
    ArgumentTypeError
        Raised if it has both.
    """
    if first_tree(img_list) is None:
        return []
    trees = [img_list] if is_tree(img_list) else list(img_list)
    if not all(is_tree(item) for item in trees):
        raise ArgumentTypeError(
            f"{caller}() got trees and frames together; give either trees or frames of one detector."
        )
    return trees


def tree_by_tree(func: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of a list of frames take a list of trees: frames of one name belong together, and so do the roots."""
    first = next(iter(inspect.signature(func).parameters))

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        frames = args[0] if args else kwargs.get(first)
        # looked at twice: for trees, and for frames
        frames = list(frames) if isinstance(frames, Iterator) else frames
        trees = trees_of(frames, func.__name__)
        if not trees:
            return func(frames, *args[1:], **{key: value for key, value in kwargs.items() if key != first})
        arguments = bind_arguments(func, (trees, *args[1:]), {k: v for k, v in kwargs.items() if k != first})
        output = arguments.get("output_file")
        if output is not None:
            arguments["output_file"] = IN_TREE
        results = call_each(func, calls_of(trees[0], (), arguments))
        stacked = stacked_trees(results, trees, str(arguments.get("method", "average")))
        return (
            stacked if output is None else written(stacked, output, overwrite=arguments.get("overwrite_output", False))
        )

    return wrapper


@dataclass(frozen=True)
class AsImage(os.PathLike[str]):
    """An output file of which the caller wants the `Image` back: for a frame, xarray would be imported."""

    path: str

    def __fspath__(self) -> str:
        """Return the name."""
        return self.path


def written(result: Any, output: Any, *, overwrite: bool) -> Any:
    """Write an image, frame or tree, as a store if the name ends in ``.zarr``, and return what is in the file."""
    name = target_name(output)
    if name.rstrip("/").endswith(".zarr"):
        from lazyccd.io import to_zarr  # brings fsspec along

        to_zarr(result.to_dataset(boundary=True) if isinstance(result, Image) else result, name, overwrite=overwrite)
    elif not isinstance(result, Image):
        to_fits(result, name, overwrite=overwrite)
    else:
        write_image(result, name, overwrite=overwrite)
        if isinstance(output, AsImage):
            return open_images([InputName(name, None)])[0]
    return open_image(name)


def stacked_trees(results: Mapping[str, Any], trees: Sequence[xr.DataTree], method: str) -> Any:
    """Return the stacks of frames of one name as a tree, whose header is a stack's too; see `gather`."""
    texts = [str(tree.attrs.get("header", "")) for tree in trees]
    names = [exposure_name(tree) for tree in trees]
    header = stack_header(texts, names, [1.0] * len(trees), method=method).apply(texts[0])
    return gather(results, {**trees[0].attrs, "header": header})


def exposure_name(tree: xr.DataTree) -> str:
    """Return the name of the file that the frames of a tree were read from; empty if there is none."""
    return split_hdu(file_name(resolve(next(iter(frames_of(tree).values()))).plan))[0]


def collect(img_list: Any, hdu: Any = None, unit: Any = None) -> Given:
    """Open everything that is combined; ``hdu`` and ``unit`` are for files."""
    if isinstance(img_list, str):
        # ccdproc takes "a.fits,b.fits"; a comma between brackets belongs to an extension
        items: list[Any] = [name.strip() for name in re.split(r",(?![^\[\]]*\])", img_list) if name.strip()]
    elif isinstance(img_list, os.PathLike) or is_dataset(img_list) or is_ccddata(img_list):
        items = [img_list]
    elif isinstance(img_list, Iterable):
        items = list(img_list)
    else:
        raise ArgumentTypeError(
            f"combine() got a {type(img_list).__name__} and needs frames, CCDData or paths; give them in a list."
        )
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        # together, so that their headers are read in parallel
        images = _open(items, hdu, unit)
    else:
        images = []
        for number, item in enumerate(items, 1):
            is_name = isinstance(item, str | os.PathLike)
            what = f"frame {number} of combine()"
            images += (
                _open([item], hdu, unit) if is_name else [resolve(as_frame(item, what), f"frame {len(images) + 1}")]
            )
    if not images:
        raise ParameterError(
            "there are no frames to combine, and at least one is needed; check the list or the pattern."
        )
    names = [file_name(image.plan) for image in images]
    labels = [f"frame {i}{f' ({name})' if name else ''}" for i, name in enumerate(names, 1)]
    # a CCDData has to be computed, which nobody wants of a mixture with lazy frames
    like = items[0] if all(is_ccddata(item) for item in items) else None
    return Given(images, labels, names, like)


def _open(names: list[Any], hdu: Any, unit: Any) -> list[Image]:
    """Open files by their names, and stores among them; maps of stacks, which no operation knows, are left out."""
    found = [name if name.hdu is not None else name._replace(hdu=hdu) for name in expand_names(names)]
    stores = {i: as_frame(name.path) for i, name in enumerate(found) if name.path.rstrip("/").endswith(".zarr")}
    files = iter(open_images([name for i, name in enumerate(found) if i not in stores], unit=unit))
    return [resolve(stores[i]) if i in stores else without_maps(next(files)) for i in range(len(found))]


def in_one_unit(given: Given) -> tuple[Given, MaskSchema]:
    """Return the frames in the units of the first, and the mask planes of all."""
    first = given.images[0]
    matched = []
    schema = first.schema
    for image, label in zip(given.images, given.labels, strict=True):
        factor = conversion_factor(image.units, first.units, label, given.labels[0])
        # no step where nothing changes: it would cost a pass over each frame
        matched.append(image if factor == 1 else replace(affine_image(image, factor), units=first.units))
        # without a mask the planes of a frame are the defaults, which say nothing of its pixels
        schema = schema.merge(image.schema) if image.has_mask else schema
    return replace(given, images=matched), schema


def check_shapes(images: Sequence[Image], labels: Sequence[str]) -> None:
    """Raise an error that names the frame if a shape is not that of the first."""
    for image, label in zip(images, labels, strict=True):
        if image.shape != images[0].shape:
            raise ShapeError(
                f"{label} shape {image.shape} does not match the shape {images[0].shape} of {labels[0]}; "
                "trim all to the same section first, or give offsets."
            )
