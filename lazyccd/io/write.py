"""Frames to FITS files and Zarr stores, one task per region."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed

from lazyccd.errors import ParameterError, TargetExistsError
from lazyccd.frame.core import CHUNK_PIXELS, DATA, MASK, UNCERTAINTY, Image, regular_grid, resolve
from lazyccd.frame.settle import has_cards, settle_image
from lazyccd.frame.tree import frames_of
from lazyccd.io.fits.kept import KeptBytes
from lazyccd.io.fits.mef_layout import frame_layout, tree_layout
from lazyccd.io.fits.names import is_url
from lazyccd.io.fits.packing import check_compression, tile_shape
from lazyccd.io.fits.writer import FitsTarget
from lazyccd.io.progress import Progress, Unit, versions
from lazyccd.io.provenance import product_attrs, root_attributes
from lazyccd.io.sinks import FitsFile, Several, Tracked, ZarrGroups, ZarrStore
from lazyccd.io.zarrs import SHARD, ZarrArray, ZarrTarget, shard_grid
from lazyccd.kernels.block import MAPS
from lazyccd.plan.cost import check_memory
from lazyccd.plan.describe import describe, plain, sources
from lazyccd.plan.evaluate import chunk_boxes
from lazyccd.plan.lower import WritePart, lower_write
from lazyccd.sections import Region

KEPT = "hdus"
"""Group of a store with the bytes of HDUs that are no frames."""

LARGEST_SHARD = 4096
"""Chunks of more pixels along an axis are cut into usual shards."""

WIDEST_BAND = 8192
"""Images up to this width are written to FITS in bands of whole rows, wider ones in squares."""


def to_fits(
    ccd: xr.Dataset | xr.DataTree,
    path: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    compress: str | None = None,
    quantize: float | None = None,
    dither: str = "SUBTRACTIVE_DITHER_2",
    *,
    verify: bool = False,
    takeover: bool = False,
) -> str | Delayed:
    """Write a frame or a tree to a FITS file, region by region; the same call again resumes a write that was interrupted.

    Parameters
    ----------
    ccd
        A frame, or a tree of frames.
    path
        Name of the file. It appears when the file is complete; until then there is ``<path>.part``.
    overwrite
        Replace a file of that name.
    compute
        Whether to write now; otherwise a lazy write is returned.
    compress
        Compress tile by tile (FITS standard, section 10), in the same tasks: ``RICE_1``, ``GZIP_2`` or ``HCOMPRESS_1``.
        No bit is lost: integers (MASK, DQ) are compressed as named, floats by ``GZIP_2``, the only one that keeps them.
        The tiles are rows (``HCOMPRESS_1``: 16 rows), of images wider than 8192 pixels parts of rows (512 x 512 pixels).
    quantize
        Round the floats of image and uncertainty to this many steps per standard deviation of their noise, measured in
        each tile, and compress them as named too; 4 is usual. Masks and maps never are. Tiles without noise keep their
        bits. NaN come back as they were.
    dither
        How quantised values are rounded: ``SUBTRACTIVE_DITHER_2``, which keeps zeros, ``SUBTRACTIVE_DITHER_1`` or
        ``NO_DITHER``.
    verify
        Before a write is resumed, compare the checksums of all that is written, and not only sizes.
    takeover
        Write although another process is noted as writing the same, of which it cannot be said that it is gone.

    Returns
    -------
    str or Delayed
        The path, or the lazy write that gives it. The file has the image, and as extensions UNCERT, MASK (0 or 1: bad)
        and DQ (all planes, named in its header). ``CCDData.read`` reads it; a compressed one with ``hdu=1``, and ``funpack``
        restores the plain one. A tree becomes an extension for each frame, in the order and with the names, headers,
        further HDUs (tables: byte for byte) and planes of the file that `open_mef` opened; an uncertainty or mask that is new
        follows its image as UNCERT or DQ.

    Raises
    ------
    TargetExistsError
        Raised if the file exists and ``overwrite`` is false.
    ParameterError
        Raised if the frame is made from the file that is to be written, or there is no such compression.
    ShapeError
        Raised if the image is too small for ``HCOMPRESS_1``, or wider than 8192 pixels and to be quantised for it.
    WriteError
        Raised if there is no space; nothing is left under the final name. What is done is kept beside it.
    ResumeError
        Raised if an interrupted write of this name was begun from other inputs, with other settings or other versions of the
        libraries, and ``overwrite`` is false; the message says what changed.
    TargetBusyError
        Raised if another process is writing it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> ds = from_ccddata(CCDData(np.ones((3, 4)), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     CCDData.read(to_fits(ds, f"{folder}/a.fits")).unit
    Unit("adu")
    >>> noisy = from_ccddata(CCDData(np.random.default_rng(1).normal(500, 10, (99, 99)), unit="adu"))
    >>> with TemporaryDirectory() as folder:
    ...     packed = to_fits(noisy, f"{folder}/a.fits.fz", compress="RICE_1", quantize=4)
    ...     float(abs(noisy["data"].values - CCDData.read(packed, hdu=1).data).max()) < 10 / 4
    True
    """
    images = _resolved(_frames(ccd), compute)
    name = os.path.abspath(os.fspath(path))
    check_compression(compress, quantize, dither)
    _check_suffix(name, compress)
    settings = (compress, float(quantize or 0), dither)
    layout = (
        frame_layout(images[""], *settings)
        if isinstance(ccd, xr.Dataset)
        else tree_layout(images, ccd.attrs, *settings)
    )
    _refuse_sources(images.values(), name, [spec.kept.path for spec in layout.hdus if spec.kept is not None])
    jobs = [
        (image, list(_bands(image, (1, 1) if compress is None else tile_shape(compress, image.shape))))
        for image in images.values()
    ]
    file = FitsTarget(name, tuple(layout.hdus))
    files = [
        FitsFile(file, tuple(layout.places[frame]), image.schema.bad_bits, overwrite) for frame, image in images.items()
    ]
    target = files[0] if isinstance(ccd, xr.Dataset) else Several(FitsFile(file, (), 0, overwrite), tuple(files))
    described = {
        "hdus": [{**plain(spec), "header": spec.header.split("\n")} for spec in layout.hdus],
        "band": [list(regions[0]) for _, regions in jobs],
    }
    progress = Progress.of(name, _record(images, described), takeover=takeover)
    return _write(jobs, Tracked(target, progress, sum(len(some) for _, some in jobs), overwrite, verify), compute)


def to_zarr(
    ccd: xr.Dataset | xr.DataTree,
    store: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    shards: tuple[int, int] | None = None,
    *,
    verify: bool = False,
    takeover: bool = False,
) -> str | Delayed:
    """Write a frame or a tree to a Zarr v3 store, shard by shard; the same call again resumes a write that was interrupted.

    Parameters
    ----------
    ccd
        A frame, or a tree of frames.
    store
        Path or fsspec URL of the store. A local one appears under this name when it is complete.
    overwrite
        Replace a store of that name.
    compute
        Whether to write now; otherwise a lazy write is returned.
    shards
        Shape of a shard: of the file of each variable that one task writes; that of the frame's chunks by default, up to
        4096 pixels. Inner chunks have 512 pixels, or the next lower number that divides the shard.
    verify
        Before a write is resumed, compare the checksums of all that is written, and not only sizes.
    takeover
        Write although another process is noted as writing the same, of which it cannot be said that it is gone.

    Returns
    -------
    str or Delayed
        The store's name, or the lazy write that gives it. The image is in the group ``0``, which ``xarray.open_zarr``
        reads unaided; the root has the attribute ``lazyccd`` with ``format_version``. A missing chunk of the mask reads
        as ``NO_DATA``. The frames of a tree are groups of their names; HDUs that are no frames are bytes in the group
        ``hdus``.

    Raises
    ------
    TargetExistsError
        Raised if the store exists and ``overwrite`` is false.
    ParameterError
        Raised if the frame is made from the store that is to be written.
    WriteError
        Raised if there is no space; nothing is left under the final name. What is done is kept beside it.
    ResumeError
        Raised if an interrupted write of this name was begun from other inputs, with other settings or other versions of the
        libraries, and ``overwrite`` is false; the message says what changed.
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
    frames = _frames(ccd)
    images = _resolved(frames, compute)
    name = os.fspath(store)
    name = name if is_url(name) else os.path.abspath(name)
    hdus = [] if isinstance(ccd, xr.Dataset) else [dict(hdu) for hdu in ccd.attrs.get("hdus", ())]
    _refuse_sources(images.values(), name, [hdu["bytes"]["path"] for hdu in hdus if "bytes" in hdu])
    places, layouts = {}, {}
    for frame, image in images.items():
        places[frame], layouts[frame] = _zarr_store(frames[frame], image, name, frame or "0", shards, overwrite)
    if isinstance(ccd, xr.Dataset):
        root = root_attributes({"0": images[""]}, layouts[""])
        place = replace(places[""], root_attrs=root)
        return _write_store(images, place, layouts[""], verify=verify, takeover=takeover, compute=compute)
    kept, hdus = _kept_group(name, hdus, overwrite)
    root = {**root_attributes(images, {**layouts, "hdus": hdus}), "hdus": hdus}
    root = {str(key): value for key, value in ccd.attrs.items()} | root
    root["lazyccd"] = {**root["lazyccd"], "frames": list(images)}
    several = Several(ZarrGroups((kept, *places.values()), root), tuple(places.values()))
    return _write_store(
        images, several, layouts, verify=verify, takeover=takeover, compute=compute, overwrite=overwrite
    )


def write_level(ccd: xr.Dataset, path: str) -> None:
    """Write a frame into a group of a store that is complete without it, given by its path."""
    image = resolve(ccd)
    place, layout = _zarr_store(ccd, image, path, "", None, overwrite=False)
    _write_store({"": image}, place, layout)


def _write_store(
    images: Mapping[str, Image],
    place: ZarrStore | Several,
    layout: Mapping[str, Any],
    *,
    verify: bool = False,
    takeover: bool = False,
    compute: bool = True,
    overwrite: bool = False,
) -> str | Delayed:
    """Write images into a store."""
    progress = Progress.of(place.name, _record(images, layout), takeover=takeover)
    stores: Any = place.frames if isinstance(place, Several) else (place,)
    jobs = [
        (image, [box for _, box in chunk_boxes(regular_grid(image.shape, one.target.shards), Region.full(image.shape))])
        for image, one in zip(images.values(), stores, strict=True)
    ]
    units = sum(len(regions) for _, regions in jobs)
    return _write(
        jobs, Tracked(place, progress, units, overwrite or getattr(place, "overwrite", False), verify), compute
    )


def _frames(ccd: xr.Dataset | xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the frames that are written: those of a tree by name, one alone without one."""
    if not isinstance(ccd, xr.DataTree):
        return {"": ccd}
    return frames_of(ccd) if any(DATA in node.data_vars for node in ccd.subtree) else {}


def _resolved(frames: Mapping[str, xr.Dataset], compute: bool) -> dict[str, Image]:
    """Return the images of frames."""
    return {
        name: _recorded(resolve(frame, f"frame {name!r}" if name else "frame", maps=True), compute)
        for name, frame in frames.items()
    }


def _zarr_store(
    ccd: xr.Dataset, image: Image, name: str, group: str, shards: tuple[int, int] | None, overwrite: bool
) -> tuple[ZarrStore, dict[str, Any]]:
    """Return the store that a frame is written to, and all of it that decides its bytes."""
    shard, chunk = shard_grid(image.shape, _chunk_shards(image) if shards is None else shards)
    fills = {
        DATA: float("nan"),
        UNCERTAINTY: float("nan"),
        MASK: image.schema.bits("NO_DATA"),
        **dict.fromkeys(MAPS, 0),
    }
    arrays = tuple(
        ZarrArray(variable, _dtype(image, variable).name, fills[variable], json.dumps(dict(ccd[variable].attrs)))
        for variable in image.kinds
    )
    target = ZarrTarget(name, image.shape, arrays, shard, chunk, group)
    attrs = {"header": image.header, **{str(k): v for k, v in image.attrs.items()}, **product_attrs(image)}
    coords = {"y": image.y, "x": image.x}
    layout = {
        "arrays": {**plain(target), "store": ""},
        "attributes": {**attrs, "header": image.header.split("\n")},
        "coordinates": plain(coords),
    }
    return ZarrStore(target, overwrite, {}, attrs, coords), layout


def _kept_group(store: str, hdus: list[dict[str, Any]], overwrite: bool) -> tuple[ZarrStore, list[dict[str, Any]]]:
    """Return the group that holds the bytes of HDUs that are no frames, and the list of HDUs that says so."""
    arrays: dict[str, Any] = {}
    told = []
    for number, hdu in enumerate(hdus):
        if "bytes" in hdu:
            content = KeptBytes.of(hdu["bytes"]).read()
            arrays[f"hdu{number}"] = np.frombuffer(content, np.uint8)
            kept = KeptBytes("", len(content), array=f"{KEPT}/hdu{number}").to_json()
            told.append({**hdu, "bytes": kept, "sha256": hashlib.sha256(content).hexdigest()})
        else:
            told.append(hdu)
    return ZarrStore(ZarrTarget(store, (1, 1), (), (1, 1), (1, 1), KEPT), overwrite, {}, {}, arrays), told


def _record(images: Mapping[str, Image], layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the bytes of a product."""
    found = {s.storage.name: s.storage for image in images.values() for s in sources(image.plan)}
    inputs = {name: str(getattr(storage, "identity", storage.token)) for name, storage in found.items()}
    steps: Any = {name: describe(image.plan) for name, image in images.items()}
    steps = steps[""] if list(steps) == [""] else steps
    return {"inputs": inputs, "steps": steps, "layout": plain(layout), "versions": versions()}


def _recorded(image: Image, compute: bool) -> Image:
    """Return the image with global numbers in its header that belong there, unless it is to be written later."""
    return settle_image(image) if compute and has_cards(image) else image


def _chunk_shards(image: Image) -> tuple[int, int]:
    """Return the shape of the frame's chunks, or of usual shards where they are larger than those should be."""
    ny, nx = (max(sizes) if max(sizes) <= LARGEST_SHARD else SHARD for sizes in image.grid)
    return ny, nx


def _dtype(image: Image, variable: str) -> np.dtype[Any]:
    return image.plan.dtypes["variance" if variable == UNCERTAINTY else variable]


def _bands(image: Image, tile: tuple[int, int]) -> Iterable[Region]:
    """Return the regions in which an image is written to FITS: of whole tiles, about as large as its largest chunk."""
    ny, nx = image.shape
    largest = [max(sizes) for sizes in image.grid]
    if nx > WIDEST_BAND:
        step = [-(-length // tile[i]) * tile[i] for i, length in enumerate(largest)]
        grid = image.grid if tile == (1, 1) else regular_grid(image.shape, (step[0], step[1]))
        return [box for _, box in chunk_boxes(grid, Region.full(image.shape))]
    rows = max(1, min(CHUNK_PIXELS, largest[0] * largest[1]) // nx // tile[0]) * tile[0]
    return [Region(y0, min(y0 + rows, ny), 0, nx) for y0 in range(0, ny, rows)]


def _check_suffix(name: str, compress: str | None) -> None:
    """Refuse a name that says something else than what is written."""
    if name.endswith(".fz") and compress is None:
        raise ParameterError(f"{name} names a tile-compressed file; pass compress='RICE_1', or leave the suffix away.")
    if name.endswith((".gz", ".bz2")):
        raise ParameterError(
            f"{name} names a file compressed as a whole, which cannot be written by region; leave the suffix away, or "
            "pass compress='GZIP_2'."
        )


def _refuse_sources(images: Iterable[Image], name: str, more: Iterable[str] = ()) -> None:
    """Refuse a target that is read: by a plan, or for HDUs that are copied."""
    if is_url(name):
        return
    full = os.path.realpath(name)
    for path in dict.fromkeys([*(path for image in images for path in _source_paths(image)), *more]):
        if os.path.realpath(path) == full:
            raise ParameterError(
                f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )


def _source_paths(image: Image) -> Iterator[str]:
    """Yield the files and stores that a plan reads."""
    storages: list[Any] = [step.storage for step in sources(image.plan)]
    for place in dict.fromkeys(getattr(one, "store", None) or getattr(one, "path", None) for one in storages):
        if place and Path(place).exists():
            yield str(place)


def _write(jobs: Sequence[tuple[Image, list[Region]]], sink: Tracked, compute: bool) -> str | Delayed:
    """Write what is not yet written, now, or return the lazy write."""
    for image, regions in jobs:
        check_memory(image.plan, regions)
    key = f"write-{sink.progress.run}"
    name = sink.target.name
    if compute and sink.finish_renamed():
        return name
    if not is_url(name) and os.path.lexists(name) and not sink.overwrite:
        raise TargetExistsError(f"{name} exists; pass overwrite=True to replace it, or give another name.")
    if not compute:
        return lower_write(_parts(jobs, sink, {}), sink, key)
    done = sink.begin()
    try:
        sink = replace(sink, begun=True)
        parts = _parts(jobs, sink, done)
        if parts:
            lower_write(parts, sink, key).compute()
        else:
            sink.finish([])
    except BaseException as error:
        sink.give_up(error)
        raise
    return name


def _parts(jobs: Sequence[tuple[Image, list[Region]]], sink: Tracked, done: Mapping[Unit, Any]) -> list[WritePart]:
    """Return what is left to be written of each image."""
    parts = []
    for number, (image, regions) in enumerate(jobs):
        writer = sink.of_frame(number) if isinstance(sink.target, Several) else sink.writer
        todo = tuple(region for region in regions if writer.unit(region) not in done)
        if todo:
            parts.append(WritePart(image.plan, todo, image.kinds, image.graphs, writer))
    return parts
