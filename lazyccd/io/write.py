"""Frames to FITS files and Zarr stores, one task per region."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import Delayed

from lazyccd.errors import ParameterError, TargetExistsError
from lazyccd.frame.core import CHUNK_PIXELS, DATA, MASK, UNCERTAINTY, Image, regular_grid, resolve
from lazyccd.frame.header import header_to_text
from lazyccd.frame.product import product_header
from lazyccd.frame.units import unit_to_text
from lazyccd.io.fits.layout import frame_hdus
from lazyccd.io.fits.names import is_url
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.io.zarrs import SHARD, ZarrArray, ZarrTarget, shard_grid
from lazyccd.kernels.block import MAPS
from lazyccd.plan.cost import check_memory
from lazyccd.plan.evaluate import chunk_boxes
from lazyccd.plan.lower import lower_write
from lazyccd.plan.steps import Source, walk
from lazyccd.plan.tasks import Sink
from lazyccd.sections import Region

FORMAT_VERSION = 1
"""Version of the layout of Zarr stores."""

LARGEST_SHARD = 4096
"""Chunks of more pixels along an axis are cut into usual shards."""

WIDEST_BAND = 8192
"""Images up to this width are written to FITS in bands of whole rows, wider ones in squares."""


class Target(Sink, Protocol):
    """A sink that can be given up."""

    def abort(self) -> None:
        """Remove what is unfinished."""
        ...


@dataclass(frozen=True)
class FitsSink:
    """A FITS file that tasks write to."""

    target: FitsTarget
    names: tuple[str, ...]
    """Variables of the HDUs that hold them: data, uncertainty, mask (two HDUs), maps."""

    bad_bits: int
    overwrite: bool

    def create(self) -> None:
        """Make the unfinished file."""
        self.target.create(overwrite=self.overwrite)

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Partial]:
        """Write one region of all HDUs."""
        receipts: list[Partial] = []
        for name in self.names:
            array = arrays[name]
            if name == MASK:
                bad = (array & array.dtype.type(self.bad_bits)) != 0
                receipts.append(self.target.write(len(receipts), region, bad))
            receipts.append(self.target.write(len(receipts), region, array))
        return receipts

    def finish(self, receipts: Sequence[list[Partial]]) -> str:
        """Complete the file."""
        self.target.finish([partial for some in receipts for partial in some])
        return self.target.path

    def abort(self) -> None:
        """Remove the unfinished file."""
        self.target.abort()


@dataclass(frozen=True)
class ZarrSink:
    """A Zarr store that tasks write to."""

    target: ZarrTarget
    root_attrs: Mapping[str, Any]
    group_attrs: Mapping[str, Any]
    coords: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    overwrite: bool

    def create(self) -> None:
        """Make the unfinished store."""
        self.target.create(
            root_attrs=self.root_attrs, group_attrs=self.group_attrs, coords=self.coords, overwrite=self.overwrite
        )

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
        """Write one shard of all variables."""
        return sum(self.target.write(name, region, array) for name, array in arrays.items())

    def finish(self, receipts: Sequence[int]) -> str:
        """Complete the store."""
        self.target.finish()
        return self.target.store

    def abort(self) -> None:
        """Remove the unfinished store."""
        self.target.abort()


def to_fits(
    ccd: xr.Dataset, path: str | os.PathLike[str], overwrite: bool = False, compute: bool = True
) -> str | Delayed:
    """Write a frame to a FITS file, region by region.

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

    Returns
    -------
    str or Delayed
        The path, or the lazy write that gives it. The file has the image, and as extensions UNCERT, MASK (0 or 1: bad)
        and DQ (all planes, named in its header). ``CCDData.read`` reads it.

    Raises
    ------
    TargetExistsError
        Raised if the file exists and ``overwrite`` is false.
    ParameterError
        Raised if the frame is made from the file that is to be written.
    WriteError
        Raised if there is no space; nothing is left under the final name.

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
    """
    image = resolve(ccd, maps=True)
    name = os.path.abspath(os.fspath(path))
    if name.endswith((".gz", ".bz2", ".fz")):
        raise ParameterError(
            f"{name} names a compressed file, which cannot be written by region; leave the suffix away."
        )
    _check_target(image, name, overwrite)
    header = product_header(image.header, image.y, image.x, unit_to_text(image.units))
    hdus = frame_hdus(
        image.shape,
        header_to_text(header),
        dtype=image.dtype.name,
        uncertainty_type=image.uncertainty_type if image.has_variance else None,
        uncertainty_unit=_uncertainty_unit(image),
        schema=image.schema if image.has_mask else None,
        maps={name: dtype.name for name, dtype in image.plan.planes if name in MAPS},
    )
    sink = FitsSink(FitsTarget(name, hdus), tuple(image.kinds), image.schema.bad_bits, overwrite)
    return _write(image, _bands(image), sink, f"to_fits-{uuid.uuid4().hex}", compute)


def to_zarr(
    ccd: xr.Dataset,
    store: str | os.PathLike[str],
    overwrite: bool = False,
    compute: bool = True,
    shards: tuple[int, int] | None = None,
) -> str | Delayed:
    """Write a frame to a Zarr v3 store, shard by shard.

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
        Raised if there is no space; nothing is left under the final name.

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
    image = resolve(ccd, maps=True)
    name = os.fspath(store)
    name = name if is_url(name) else os.path.abspath(name)
    _check_target(image, name, overwrite)
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
    target = ZarrTarget(name, image.shape, arrays, shard, chunk)
    identity = dask.base.tokenize(image.plan.token, image.header, [array.attrs for array in arrays], shard)
    root = {"lazyccd": {"format_version": FORMAT_VERSION, "write_id": identity}}
    group = {"header": image.header, **{str(k): v for k, v in image.attrs.items()}}
    sink = ZarrSink(target, root, group, {"y": image.y, "x": image.x}, overwrite)
    regions = [box for _, box in chunk_boxes(regular_grid(image.shape, shard), Region.full(image.shape))]
    return _write(image, regions, sink, f"to_zarr-{uuid.uuid4().hex}", compute)


def _chunk_shards(image: Image) -> tuple[int, int]:
    """Return the shape of the frame's chunks, or of usual shards where they are larger than those should be."""
    ny, nx = (max(sizes) if max(sizes) <= LARGEST_SHARD else SHARD for sizes in image.grid)
    return ny, nx


def _dtype(image: Image, variable: str) -> np.dtype[Any]:
    return image.plan.dtypes["variance" if variable == UNCERTAINTY else variable]


def _uncertainty_unit(image: Image) -> str:
    return unit_to_text(image.units ** {"std": 1, "var": 2, "ivar": -2}[image.uncertainty_type])


def _bands(image: Image) -> Iterable[Region]:
    """Return the regions in which an image is written to FITS: no larger than its largest chunk."""
    ny, nx = image.shape
    if nx > WIDEST_BAND:
        return [box for _, box in chunk_boxes(image.grid, Region.full(image.shape))]
    rows = max(1, min(CHUNK_PIXELS, max(image.grid[0]) * max(image.grid[1])) // nx)
    return [Region(y0, min(y0 + rows, ny), 0, nx) for y0 in range(0, ny, rows)]


def _check_target(image: Image, name: str, overwrite: bool) -> None:
    """Refuse a target that exists, or that the plan reads."""
    if is_url(name):
        return
    full = os.path.realpath(name)
    for path in _source_paths(image):
        if os.path.realpath(path) == full:
            raise ParameterError(
                f"the frame is made from {path}, which cannot be written at the same time; give another name."
            )
    if os.path.lexists(name) and not overwrite:
        raise TargetExistsError(f"{name} exists; pass overwrite=True to replace it, or give another name.")


def _source_paths(image: Image) -> Iterator[str]:
    """Yield the files and stores that a plan reads."""
    for step in walk(image.plan):
        if isinstance(step, Source):
            place = getattr(step.storage, "path", None) if not hasattr(step.storage, "store") else step.storage.store
            if place and Path(place).exists():
                yield str(place)


def _write(image: Image, regions: Iterable[Region], sink: Target, name: str, compute: bool) -> str | Delayed:
    """Write now or return the lazy write."""
    listed = list(regions)
    check_memory(image.plan, listed)
    lazy = lower_write(image.plan, listed, image.kinds, sink, image.graphs, name)
    if not compute:
        return lazy
    try:
        return str(lazy.compute())
    except BaseException:
        sink.abort()
        raise
