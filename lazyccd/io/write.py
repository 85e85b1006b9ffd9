"""Frames to FITS files and Zarr stores, one task per region."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed

from lazyccd.errors import ParameterError, TargetExistsError
from lazyccd.frame.core import CHUNK_PIXELS, DATA, MASK, UNCERTAINTY, Image, regular_grid, resolve
from lazyccd.frame.header import header_to_text
from lazyccd.frame.product import product_header
from lazyccd.frame.settle import has_cards, settle_image
from lazyccd.frame.units import unit_to_text
from lazyccd.io.fits.layout import frame_hdus
from lazyccd.io.fits.names import is_url
from lazyccd.io.fits.packing import check_compression, tile_shape
from lazyccd.io.fits.writer import FitsTarget
from lazyccd.io.progress import Progress, versions
from lazyccd.io.provenance import product_attrs, root_attributes
from lazyccd.io.sinks import FitsFile, Tracked, ZarrStore
from lazyccd.io.zarrs import SHARD, ZarrArray, ZarrTarget, shard_grid
from lazyccd.kernels.block import MAPS
from lazyccd.plan.cost import check_memory
from lazyccd.plan.describe import describe, plain, sources
from lazyccd.plan.evaluate import chunk_boxes
from lazyccd.plan.lower import lower_write
from lazyccd.sections import Region

LARGEST_SHARD = 4096
"""Chunks of more pixels along an axis are cut into usual shards."""

WIDEST_BAND = 8192
"""Images up to this width are written to FITS in bands of whole rows, wider ones in squares."""


def to_fits(
    ccd: xr.Dataset,
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
    """Write a frame to a FITS file, region by region; the same call again resumes a write that was interrupted.

    Parameters
    ----------
    ccd
        A frame.
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
        and DQ (all planes, named in its header). ``CCDData.read`` reads it;
        a compressed one with ``hdu=1``, and ``funpack`` restores the plain one.

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
    image = _recorded(resolve(ccd, maps=True), compute)
    name = os.path.abspath(os.fspath(path))
    check_compression(compress, quantize, dither)
    _check_suffix(name, compress)
    _refuse_sources(image, name)
    header = product_header(image.header, image.y, image.x, unit_to_text(image.units))
    hdus = frame_hdus(
        image.shape,
        header_to_text(header),
        dtype=image.dtype.name,
        uncertainty_type=image.uncertainty_type if image.has_variance else None,
        uncertainty_unit=_uncertainty_unit(image),
        schema=image.schema if image.has_mask else None,
        maps={name: dtype.name for name, dtype in image.plan.planes if name in MAPS},
        compress=compress,
        steps=float(quantize or 0),
        dither=dither,
    )
    tile = (1, 1) if compress is None else tile_shape(compress, image.shape)
    bands = list(_bands(image, tile))
    target = FitsFile(FitsTarget(name, hdus), tuple(image.kinds), image.schema.bad_bits, overwrite)
    layout = {"hdus": [{**plain(spec), "header": spec.header.split("\n")} for spec in hdus], "band": list(bands[0])}
    progress = Progress.of(name, _record(image, layout), takeover=takeover)
    return _write(image, bands, Tracked(target, progress, len(bands), overwrite, verify), compute)


def to_zarr(
    ccd: xr.Dataset,
    store: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    shards: tuple[int, int] | None = None,
    *,
    verify: bool = False,
    takeover: bool = False,
) -> str | Delayed:
    """Write a frame to a Zarr v3 store, shard by shard; the same call again resumes a write that was interrupted.

    Parameters
    ----------
    ccd
        A frame.
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
        as ``NO_DATA``.

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
    image = _recorded(resolve(ccd, maps=True), compute)
    name = os.fspath(store)
    name = name if is_url(name) else os.path.abspath(name)
    _refuse_sources(image, name)
    place, layout = _zarr_store(ccd, image, name, "0", shards, overwrite)
    place = replace(place, root_attrs=root_attributes({"0": image}, layout))
    return _write_store(image, place, layout, verify=verify, takeover=takeover, compute=compute)


def write_level(ccd: xr.Dataset, path: str) -> None:
    """Write a frame into a group of a store that is complete without it, given by its path."""
    image = resolve(ccd)
    place, layout = _zarr_store(ccd, image, path, "", None, overwrite=False)
    _write_store(image, place, layout)


def _write_store(
    image: Image,
    place: ZarrStore,
    layout: Mapping[str, Any],
    *,
    verify: bool = False,
    takeover: bool = False,
    compute: bool = True,
) -> str | Delayed:
    """Write an image into a store."""
    progress = Progress.of(place.name, _record(image, layout), takeover=takeover)
    regions = [box for _, box in chunk_boxes(regular_grid(image.shape, place.target.shards), Region.full(image.shape))]
    return _write(image, regions, Tracked(place, progress, len(regions), place.overwrite, verify), compute)


def _zarr_store(
    ccd: xr.Dataset, image: Image, name: str, group: str, shards: tuple[int, int] | None, overwrite: bool
) -> tuple[ZarrStore, dict[str, Any]]:
    """Return the store that a frame is written to, and all of it that decides its bytes."""
    shard, chunk = shard_grid(image.shape, shards or _chunk_shards(image))
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


def _record(image: Image, layout: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the bytes of a product."""
    found = {source.storage.name: source.storage for source in sources(image.plan)}
    inputs = {name: str(getattr(storage, "identity", storage.token)) for name, storage in found.items()}
    return {"inputs": inputs, "steps": describe(image.plan), "layout": plain(layout), "versions": versions()}


def _recorded(image: Image, compute: bool) -> Image:
    """Return the image with global numbers in its header that belong there, unless it is to be written later."""
    return settle_image(image) if compute and has_cards(image) else image


def _chunk_shards(image: Image) -> tuple[int, int]:
    """Return the shape of the frame's chunks, or of usual shards where they are larger than those should be."""
    ny, nx = (max(sizes) if max(sizes) <= LARGEST_SHARD else SHARD for sizes in image.grid)
    return ny, nx


def _dtype(image: Image, variable: str) -> np.dtype[Any]:
    return image.plan.dtypes["variance" if variable == UNCERTAINTY else variable]


def _uncertainty_unit(image: Image) -> str:
    return unit_to_text(image.units ** {"std": 1, "var": 2, "ivar": -2}[image.uncertainty_type])


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


def _refuse_sources(image: Image, name: str) -> None:
    """Refuse a target that the plan reads."""
    if is_url(name):
        return
    full = os.path.realpath(name)
    for path in _source_paths(image):
        if os.path.realpath(path) == full:
            raise ParameterError(
                f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )


def _source_paths(image: Image) -> Iterator[str]:
    """Yield the files and stores that a plan reads."""
    for step in sources(image.plan):
        place = getattr(step.storage, "path", None) if not hasattr(step.storage, "store") else step.storage.store
        if place and Path(place).exists():
            yield str(place)


def _write(image: Image, regions: list[Region], sink: Tracked, compute: bool) -> str | Delayed:
    """Write what is not yet written, now, or return the lazy write."""
    check_memory(image.plan, regions)
    key = f"write-{sink.progress.run}"
    name = sink.target.name
    if compute and sink.finish_renamed():
        return name
    if not is_url(name) and os.path.lexists(name) and not sink.overwrite:
        raise TargetExistsError(f"{name} exists; pass overwrite=True to replace it, or give another name.")
    if not compute:
        return lower_write(image.plan, regions, image.kinds, sink, image.graphs, key)
    done = sink.begin()
    try:
        todo = [region for region in regions if region not in done]
        if todo:
            lower_write(image.plan, todo, image.kinds, sink, image.graphs, key).compute()
        else:
            sink.finish([])
    except BaseException as error:
        sink.give_up(error)
        raise
    return name
