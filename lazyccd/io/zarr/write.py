"""Write frames and trees to Zarr stores, and levels into them: `to_zarr`, `write_level`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed

from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, Image, resolve
from lazyccd.io.fits.passthrough import KeptBytes
from lazyccd.io.names import is_url, target_name
from lazyccd.io.resumable.write import Rules, check_steps, frames_to_write, resolve_frames, write
from lazyccd.io.zarr.attributes import json_attrs, product_attrs, root_attributes
from lazyccd.io.zarr.writer import ZarrArray, ZarrGroup, ZarrProduct, ZarrTarget
from lazyccd.kernels.block import APERTURE, MAPS
from lazyccd.plan.chunks import CHUNK_SIDE, grid_boxes, regular_grid, shard_grid, smaller_shapes, usual_shards
from lazyccd.plan.cost import fits_alone
from lazyccd.plan.serialize import plain
from lazyccd.sections import Region

ALONE = "0"
"""Group of a frame that is no part of a tree; levels of a pyramid stand beside it as 1, 2, ..."""

KEPT = "hdus"
"""Group of a store with the bytes of HDUs that are no frames."""


def to_zarr(
    ccd: xr.Dataset | xr.DataTree,
    store: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    shards: tuple[int, int] | None = None,
    *,
    quantize: float | None = None,
    verify: bool = False,
    break_lock: bool = False,
) -> str | Delayed:
    """Write a frame or a tree to a Zarr v3 store, shard by shard. After an interruption the same call resumes the write.

    Parameters
    ----------
    ccd
        A frame, or a tree of frames.
    store
        Path or fsspec URL of the store. A local one appears under this name when it is complete.
    overwrite
        Replace a store of that name.
    compute
        Whether to write now. Otherwise return a lazy write, which a cluster finishes even if workers die. Computing it again
        keeps the store that it made.
    shards
        Shape of a shard, the file that one task writes for each variable. By default that of the frame's chunks, up to 4096
        pixels, and less where the memory limit is too low for these. Inner chunks have 512 pixels, or the next lower number that divides the shard.
    quantize
        Round the floats of image and uncertainty to steps of a power of two, at least this many per standard deviation of
        their noise, which is measured in each inner chunk; 4 is usual. The noise grows by at most 1 / (24 quantize^2), which
        is 0.26 % for 4. Masks and maps are never rounded. NaN and chunks without noise keep every bit. Shards then have 2048
        pixels by default, so that no pixel depends on the frame's chunks.
    verify
        Before an interrupted write is resumed, compare the checksums of all finished regions, and not only sizes.
    break_lock
        Write even though a lease says that another process is writing the same and that process may still run.

    Returns
    -------
    str or Delayed
        The store's name, or the lazy write that returns it. The image is in the group ``0``, which ``xarray.open_zarr``
        reads unaided; the root has the attribute ``lazyccd`` with ``format_version``. A missing chunk of the mask reads
        as ``NO_DATA``. The frames of a tree are groups of their names; HDUs that are no frames are bytes in the group
        ``hdus``.

    Raises
    ------
    TargetExistsError
        Raised if the store exists and ``overwrite`` is false.
    FrameError
        Raised if a tree has neither frames nor other HDUs, or there are variables or coordinates besides those of a frame; and
        if JSON cannot hold an attribute. Nothing is written then.
    ParameterError
        Raised if the frame is made from the store that is to be written, or ``quantize`` is not positive.
    WriteError
        Raised if there is no space. Nothing appears under the final name; finished regions are kept, and the same call resumes.
    ResumeError
        Raised if an interrupted write of this name had other inputs, settings or versions of the libraries, and ``overwrite``
        is false; the message says what changed.
    TargetBusyError
        Raised if another process is writing it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata, open_zarr
    >>> ds = from_ccddata(CCDData(np.ones((3, 4)), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     float(open_zarr(to_zarr(ds, f"{folder}/a.zarr"))["data"].sum().compute())
    12.0
    """
    check_steps(quantize)
    frames = frames_to_write(ccd)
    images = resolve_frames(frames, compute=compute)
    name = target_name(store)
    name = name if is_url(name) else os.path.abspath(name)
    # Noise is measured in inner chunks, so their grid must not follow the chunks of the frame.
    given = (CHUNK_SIDE, CHUNK_SIDE) if shards is None and quantize is not None else shards
    groups = {
        frame or ALONE: _group(frames[frame], image, name, frame or ALONE, given, quantize)
        for frame, image in images.items()
    }
    layouts = {group: _layout(part) for group, part in groups.items()}
    kept: tuple[ZarrGroup, ...] = ()
    copied: list[str] = []
    if isinstance(ccd, xr.DataTree):
        copied = [hdu["bytes"]["path"] for hdu in ccd.attrs.get("hdus", ()) if "bytes" in hdu]
        group, hdus = _kept_group(name, ccd.attrs.get("hdus", ()))
        kept = (group,)
        root = {**root_attributes(images, {**layouts, "hdus": hdus}), "hdus": hdus}
        # Ours last: `hdus` of the tree speaks of bytes in the file that it came from.
        own = {key: value for key, value in ccd.attrs.items() if key != "hdus"}
        root = json_attrs(own, "tree") | root
        root["lazyccd"] = {**root["lazyccd"], "frames": list(images)}
    else:
        root = root_attributes({ALONE: images[""]}, layouts)
    if quantize is not None:
        root["lazyccd"] = {**root["lazyccd"], "quantize": _stated(quantize)}
    product = ZarrProduct(name, overwrite, tuple(groups.values()), kept, root)
    rules = Rules(overwrite, verify, break_lock)
    return write(images, _shards(images, product), product, layouts, rules, compute=compute, copied=copied)


def write_level(frames: Mapping[str, xr.Dataset], store: str, rules: Rules) -> None:
    """Write frames as a level of a store, which is complete without it.

    Parameters
    ----------
    frames
        The frames by group; one alone without a name, which then is the level itself.
    store
        Path or URL of the level.
    rules
        What to do about what is there.
    """
    images = {group: resolve(frame) for group, frame in frames.items()}
    groups = {name: _group(frames[name], image, store, name, None, None) for name, image in images.items()}
    product = ZarrProduct(store, rules.overwrite, tuple(groups.values()))
    write(images, _shards(images, product), product, {name: _layout(part) for name, part in groups.items()}, rules)


def _shards(images: Mapping[str, Image], product: ZarrProduct) -> dict[str, list[Region]]:
    """Return the regions of the shards of each frame."""
    grids = [regular_grid(group.target.shape, group.target.shards) for group in product.frames]
    return {frame: grid_boxes(grid) for frame, grid in zip(images, grids, strict=True)}


def _group(
    ccd: xr.Dataset,
    image: Image,
    store: str,
    group: str,
    shards: tuple[int, int] | None,
    steps: float | None,
) -> ZarrGroup:
    """Return the group that a frame is written to."""
    shard, chunk = _fitting_shards(image) if shards is None else shard_grid(image.shape, shards)
    # A missing chunk of a mask must not read as good.
    fills = {
        DATA: float("nan"),
        UNCERTAINTY: float("nan"),
        MASK: image.schema.bits("NO_DATA"),
        **dict.fromkeys(MAPS, 0),
        APERTURE: float("nan"),
    }

    def attrs_of(variable: str) -> dict[str, Any]:
        return json_attrs(ccd.variables[variable].attrs, f"variable {variable!r}") if variable in ccd.variables else {}

    arrays = tuple(
        ZarrArray(variable, _dtype(image, variable).name, fills[variable], json.dumps(attrs_of(variable)))
        for variable in image.kinds
    )
    attrs = {"header": image.header, **json_attrs(image.attrs, "frame"), **product_attrs(image)}
    target = ZarrTarget(store, image.shape, arrays, shard, chunk, group)
    coord_attrs = {name: attrs_of(name) for name in ("y", "x")}
    return ZarrGroup(target, attrs, {"y": image.y, "x": image.x}, coord_attrs, steps)


def _fitting_shards(image: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of shards and inner chunks: the usual ones, or smaller ones if the memory limit asks for them."""
    grids = [shard_grid(image.shape, shape) for shape in smaller_shapes(usual_shards(image.grid))]
    boxes = (grid_boxes(regular_grid(image.shape, shard)) for shard, _ in grids)
    return next((grid for grid, regions in zip(grids, boxes, strict=True) if fits_alone(image.plan, regions)), grids[0])


def _layout(part: ZarrGroup) -> dict[str, Any]:
    """Return everything but the pixels that decides the bytes of a group."""
    layout = {
        # Without the store: equal work gives equal stores, whatever their names.
        "arrays": {**plain(part.target), "store": ""},
        "attributes": {**part.attrs, "header": part.attrs["header"].split("\n")},
        "coordinates": plain(part.coords),
        "coordinate_attributes": dict(part.coord_attrs),
    }
    return layout if part.steps is None else {**layout, "quantize": part.steps}


def _stated(steps: float) -> dict[str, float]:
    """Return the attributes that say how floats were rounded.

    The error of a value is uniform over a step of at most 1 / steps of the noise, so that its variance is step^2 / 12.
    """
    return {"steps": steps, "noise_increase": math.sqrt(1 + 1 / (12 * steps**2)) - 1}


def _dtype(image: Image, variable: str) -> np.dtype[Any]:
    return image.plan.dtypes["variance" if variable == UNCERTAINTY else variable]


def _kept_group(store: str, hdus: Sequence[Mapping[str, Any]]) -> tuple[ZarrGroup, list[dict[str, Any]]]:
    """Return the group with the bytes of HDUs that are no frames, and the list of HDUs that refers to it."""
    arrays: dict[str, Any] = {}
    told = []
    for number, hdu in enumerate(hdus):
        if "bytes" in hdu:
            # Bytes and not columns: a table comes back byte for byte.
            content = KeptBytes.of(hdu["bytes"]).read()
            arrays[f"hdu{number}"] = np.frombuffer(content, np.uint8)
            kept = KeptBytes("", len(content), array=f"{KEPT}/hdu{number}").to_json()
            told.append({**hdu, "bytes": kept, "sha256": hashlib.sha256(content).hexdigest()})
        else:
            told.append(dict(hdu))
    return ZarrGroup(ZarrTarget(store, (1, 1), (), (1, 1), (1, 1), KEPT), {}, arrays), told
