"""Let `xarray.open_dataset` and `xarray.open_datatree` read FITS files: ``engine="lazyccd"``, lazy with dask and without."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from lazyccd.frame.core import DATA, Image, resolve
from lazyccd.frame.tree import frames_of
from lazyccd.io.fits.mef import open_mef
from lazyccd.io.fits.open import open_fits
from lazyccd.kernels.block import Request
from lazyccd.plan.evaluate import Evaluation
from lazyccd.plan.tasks import PLANE_OF, Kind, convert
from lazyccd.sections import Region

SUFFIXES = tuple(
    f"{stem}{packed}" for stem in (".fits", ".fit", ".fts") for packed in ("", ".gz", ".bz2", ".xz", ".fz")
)
"""Names of files that are opened without being told the engine."""


class LazyCCDEntrypoint(BackendEntrypoint):
    """What xarray asks for a FITS file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.io import fits
    >>> with TemporaryDirectory() as folder:
    ...     fits.writeto(f"{folder}/a.fits", np.arange(6, dtype=np.uint16).reshape(2, 3))
    ...     ds = xr.open_dataset(f"{folder}/a.fits", engine="lazyccd")  # or without engine=
    ...     ds["data"].attrs["units"], ds["data"][1, ::2].values
    ('adu', array([3., 5.], dtype=float32))
    """

    description = "CCD images in FITS files: data, uncertainty, mask planes, header"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "hdu", "dtype", "unit", "dq")
    supports_groups = True

    def guess_can_open(self, filename_or_obj: object) -> bool:
        """Return whether the name is that of a FITS file."""
        return isinstance(filename_or_obj, str | os.PathLike) and os.fspath(filename_or_obj).lower().endswith(SUFFIXES)

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, **options: Any
    ) -> xr.Dataset:
        """Open one image, as `lazyccd.open_fits` with the same options (all but ``chunks``, which are xarray's).

        Arrays read what is indexed, when it is asked for. A frame from `lazyccd.open_fits` reduces at less cost: its tasks
        read their own pixels, and halos, from the file.
        """
        return _without(lazily_indexed(open_fits(filename_or_obj, **options)), drop_variables)

    def open_datatree(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, **options: Any
    ) -> xr.DataTree:
        """Open all images of a file, as `lazyccd.open_mef`."""
        return xr.DataTree.from_dict(
            self.open_groups_as_dict(filename_or_obj, drop_variables=drop_variables, **options)
        )

    def open_groups_as_dict(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, **options: Any
    ) -> dict[str, xr.Dataset]:
        """Return all images of a file by name, and the attributes of the file as ``/``."""
        tree = open_mef(filename_or_obj, **options)
        frames = {
            f"/{name}": _without(lazily_indexed(frame), drop_variables) for name, frame in frames_of(tree).items()
        }
        return {"/": xr.Dataset(attrs=tree.attrs), **frames}


def _without(ds: xr.Dataset, names: str | Iterable[str] | None) -> xr.Dataset:
    """Return a Dataset without some variables."""
    return ds if names is None else ds.drop_vars([names] if isinstance(names, str) else list(names), errors="ignore")


def lazily_indexed(frame: xr.Dataset) -> xr.Dataset:
    """Return a frame whose arrays are read where they are indexed, without dask."""
    image = resolve(frame, maps=True)
    # What xarray takes for chunks="auto" and chunks={}.
    chunks = {dim: max(sizes) for dim, sizes in zip(("y", "x"), image.grid, strict=True)}
    variables: dict[str, xr.Variable] = {}
    for name, kind in image.kinds.items():
        array = LazyPlane(IndexedPlane(image, kind))
        variables[name] = xr.Variable(("y", "x"), array, frame[name].attrs, {"preferred_chunks": chunks})
    # Without indexes: xarray would align frames by pixel positions behind the user's back.
    coords: Mapping[Any, Any] = xr.Coordinates({"y": ("y", image.y), "x": ("x", image.x)}, indexes={})
    return xr.Dataset(variables, coords, frame.attrs)


class LazyPlane(indexing.LazilyIndexedArray):
    """An array that notes how it is indexed.

    xarray takes a slice that runs backwards from before the first pixel, such as ``slice(-25, None, -1)`` of 10 pixels, for
    the last pixel, where NumPy selects nothing; so slices that select nothing are replaced before it sees them.
    """

    __slots__ = ()

    def _updated_key(self, new_key: indexing.ExplicitIndexer) -> Any:
        """Return the index into the whole array that an index into this one means."""
        items = indexing.expanded_indexer(new_key.tuple, self.ndim)
        empty = [isinstance(k, slice) and not range(*k.indices(n)) for k, n in zip(items, self.shape, strict=True)]
        key = tuple(slice(0) if is_empty else k for k, is_empty in zip(items, empty, strict=True))
        return super()._updated_key(type(new_key)(key))


class IndexedPlane(BackendArray):
    """One plane of an image, computed where it is indexed."""

    def __init__(self, image: Image, kind: Kind) -> None:
        self._plan, self._kind = image.plan, kind
        self.shape = image.shape
        self.dtype = image.plan.dtypes[PLANE_OF.get(kind, DATA)]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the pixels that an index selects."""
        if isinstance(key, indexing.VectorizedIndexer):
            return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)
        return self._read(key.tuple)  # xarray's adapter fails for slices that run backwards and select nothing

    def _read(self, key: tuple[Any, ...]) -> Any:
        """Read the region from the first to the last pixel that numbers, slices and lists select, then select."""
        rows, columns = (np.arange(length)[item] for item, length in zip(key, self.shape, strict=True))
        if not rows.size or not columns.size:
            return np.empty(rows.shape + columns.shape, self.dtype)
        y0, x0 = int(rows.min()), int(columns.min())
        region = Region(y0, int(rows.max()) + 1, x0, int(columns.max()) + 1)
        with Evaluation() as evaluation:
            (block,) = evaluation.pull((self._plan, Request(region, frozenset({PLANE_OF[self._kind]}))))
        pixels = convert(block, self._kind)
        if not (_is_range(rows, y0) and _is_range(columns, x0)):
            pixels = pixels[np.ix_(np.atleast_1d(rows - y0), np.atleast_1d(columns - x0))]
        return pixels.reshape(rows.shape + columns.shape)


def _is_range(numbers: npt.NDArray[Any], first: int) -> bool:
    """Return whether numbers are ``first``, ``first + 1``, ..."""
    return np.array_equal(np.ravel(numbers), np.arange(first, first + numbers.size))
