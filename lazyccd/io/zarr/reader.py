"""Read regions of the arrays of a Zarr store: local stores of our layout by `shards`, all others by zarr."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lazyccd.errors import FormatError, MissingFileError, SourceChangedError
from lazyccd.io.descriptors import open_for_reading
from lazyccd.io.names import as_seen
from lazyccd.io.zarr.location import location_of
from lazyccd.io.zarr.shards import decode_shard
from lazyccd.plan.storage import StoredRows
from lazyccd.sections import Region

if TYPE_CHECKING:
    import zarr  # takes a while, and most processes never need it: functions import it


@dataclass(frozen=True)
class ZarrStorage:
    """Random access to one array of a Zarr store; implements `lazyccd.plan.storage.Storage`."""

    store: str
    """Path or fsspec URL."""

    path: str
    """Path of the array inside the store."""

    shape: tuple[int, int]
    """Rows and columns."""

    dtype: np.dtype[Any]
    """Native dtype."""

    identity: str
    """Write id of the store, or a hash of the metadata."""

    chunks: tuple[int, int]
    """Shape of a shard, or of a chunk where there are no shards."""

    rows: int
    """How many rows are decoded together: those of a chunk."""

    @property
    def name(self) -> str:
        """Where the pixels are, for messages."""
        return f"{self.store}/{self.path}"

    @property
    def place(self) -> str:
        """The store."""
        return self.store

    @property
    def token(self) -> str:
        """Place, identity and type, by which dask tells equal work."""
        return f"{self.name}:{self.identity}:{self.dtype.str}"

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of a chunk, as it is stored and decoded; those inside of shards are about square."""
        columns = self.chunks[1] if self.rows == self.chunks[0] else min(self.rows, self.chunks[1])
        return 2 * self.rows * columns * self.dtype.itemsize

    def open(self) -> ZarrReader | ShardReader:
        """Open for reading.

        Raises
        ------
        SourceChangedError
            Raised if the store was written anew since the plan was made.
        """
        folder = location_of(self.store).folder
        # Opening by zarr reads and parses the metadata of all arrays; tasks do it by the thousand.
        opened = _opened(self.store, self.path, None if folder is None else _state(folder))
        if not opened.is_ours:  # nothing in the root tells whether the array is what it was
            opened = _opened.__wrapped__(self.store, self.path, None)
        array = opened.array
        if array is None or (opened.identity, array.dtype.newbyteorder("=")) != (self.identity, self.dtype):
            raise SourceChangedError(f"{self.name} changed after the plan that reads it was made; open it again.")
        if folder is not None and opened.is_ours:
            return ShardReader(f"{folder}/{self.path}", array, self.dtype)
        return ZarrReader(array, self.dtype)


class Opened(NamedTuple):
    """An array of a store that is open, with its identity."""

    array: zarr.Array[Any] | None
    """None if there is none."""

    identity: str
    """Write id of the store, or a hash of the metadata."""

    is_ours: bool
    """Whether the store has a write id and the array our layout."""


@lru_cache(maxsize=256)
def _opened(store: str, path: str, state: tuple[int, ...] | None) -> Opened:
    """Open an array; once for each state of the metadata of the root, where every store of ours has its write id."""
    import zarr

    root = _open_root(store)
    array = root.get(path)
    if not isinstance(array, zarr.Array):
        return Opened(None, "", False)
    ours: Any = root.attrs.get("lazyccd")
    has_id = isinstance(ours, Mapping) and "write_id" in ours
    return Opened(array, _identity(root, array), state is not None and has_id and _is_our_layout(array))


def _state(folder: str) -> tuple[int, ...] | None:
    """Return what tells one state of the root's metadata from another; None if there are none of Zarr v3."""
    try:
        found = os.stat(f"{folder}/zarr.json")
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class ZarrReader:
    """An open array of a Zarr store, read by zarr."""

    def __init__(self, array: zarr.Array[Any], dtype: np.dtype[Any]) -> None:
        self._array = array
        self._dtype = dtype

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Return exactly the pixels of the region, native and C-contiguous."""
        return np.ascontiguousarray(self._array[region.slices], dtype=self._dtype)

    def stored_rows(self) -> StoredRows | None:
        """Return None: chunks are decoded as a whole."""
        return None

    def close(self) -> None:
        """Do nothing; zarr keeps no file open."""


class ShardReader:
    """An open local array of our own layout, read without zarr."""

    def __init__(self, folder: str, array: zarr.Array[Any], dtype: np.dtype[Any]) -> None:
        assert array.shards is not None, "the layout was checked"
        self._folder = folder
        self._shards, self._chunks = _pair(array.shards), _pair(array.chunks)
        self._fill = array.fill_value
        self._dtype = dtype

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Return exactly the pixels of the region, native and C-contiguous."""
        out = np.empty(region.shape, self._dtype.newbyteorder("<"))
        sy, sx = self._shards
        for iy in range(region.y0 // sy, -(-region.y1 // sy)):
            for ix in range(region.x0 // sx, -(-region.x1 // sx)):
                part = Region(iy * sy, (iy + 1) * sy, ix * sx, (ix + 1) * sx).intersect(region)
                self._read_shard(
                    f"{self._folder}/c/{iy}/{ix}", part.shift(-iy * sy, -ix * sx), out[part.within(region)]
                )
        return out.astype(self._dtype, copy=False)

    def _read_shard(self, path: str, part: Region, out: npt.NDArray[Any]) -> None:
        """Read a part of one shard; without a file all its pixels are the fill value."""
        try:
            descriptor = open_for_reading(path)
        # Shards of nothing but fill values are not written.
        except FileNotFoundError:
            out[...] = self._fill
            return
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            decode_shard(descriptor, part, (self._shards, self._chunks), self._fill, out)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(descriptor)

    def stored_rows(self) -> StoredRows | None:
        """Return None: chunks are decoded as a whole."""
        return None

    def close(self) -> None:
        """Do nothing; no file is kept open."""


def _is_our_layout(array: zarr.Array[Any]) -> bool:
    """Return whether shards are as `lazyccd.io.zarr.shards` has them: little-endian Blosc chunks with checksums, the index last."""
    document: Any = array.metadata.to_dict()
    if document["zarr_format"] != 3 or [codec["name"] for codec in document["codecs"]] != ["sharding_indexed"]:
        return False
    # zarr may write shards otherwise in other versions, or users may; those it must read itself.
    setting = document["codecs"][0]["configuration"]
    return bool(
        [codec["name"] for codec in setting["codecs"]] == ["bytes", "blosc", "crc32c"]
        and setting["codecs"][0].get("configuration", {}).get("endian") == "little"
        and [codec["name"] for codec in setting["index_codecs"]] == ["bytes", "crc32c"]
        and setting["index_codecs"][0]["configuration"]["endian"] == "little"
        and setting["index_location"] == "end"
        and document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
    )


def _pair(lengths: tuple[int, ...]) -> tuple[int, int]:
    """Return two lengths as a pair."""
    ny, nx = lengths
    return ny, nx


@dataclass(frozen=True)
class ZarrContent:
    """What a group of a store holds."""

    root_attrs: dict[str, Any]
    """Attributes of the root."""

    attrs: dict[str, Any]
    """Attributes of the group."""

    storages: dict[str, ZarrStorage]
    """The two-dimensional arrays by name."""

    array_attrs: dict[str, dict[str, Any]]
    """Attributes of each array in `storages` and `coords`."""

    fill_values: dict[str, Any]
    """Value of pixels that were never written, of each array in `storages`."""

    coords: dict[str, npt.NDArray[Any]]
    """The one-dimensional arrays by name, read."""


def open_arrays(store: str | os.PathLike[str], group: str = "0") -> ZarrContent:
    """Open a group of a Zarr store; reads metadata and coordinates only.

    Raises
    ------
    MissingFileError
        Raised if there is nothing under that name.
    FormatError
        Raised if it is not a Zarr store or has no such group; the message lists the groups.
    """
    import zarr

    store = os.fspath(store)
    root = _open_root(store)
    try:
        node = root.get(group)
    except ValueError as error:
        raise FormatError(f"{store} names a group {group!r} that no store can have: {error}") from error
    if not isinstance(node, zarr.Group):
        raise FormatError(
            f"{store} has no group {group!r}; its groups are {sorted(name for name, _ in root.groups())}."
        )
    try:
        arrays = dict(sorted(node.arrays()))
    except ValueError as error:
        raise FormatError(f"{store}[{group}] cannot be read: {error}; write it anew by to_zarr().") from error
    for name, array in arrays.items():
        _refuse_code(array, f"{store}/{group}/{name}")
    images = {name: array for name, array in arrays.items() if array.ndim == 2}
    storages = {name: _storage(store, f"{group}/{name}", root, array) for name, array in images.items()}
    return ZarrContent(
        root_attrs=dict(root.attrs),
        attrs=dict(node.attrs),
        storages=storages,
        array_attrs={name: dict(array.attrs) for name, array in arrays.items() if array.ndim in {1, 2}},
        fill_values={name: array.fill_value for name, array in images.items()},
        coords={name: _values(array, f"{store}/{group}/{name}") for name, array in arrays.items() if array.ndim == 1},
    )


def _values(array: zarr.Array[Any], name: str) -> npt.NDArray[Any]:
    """Return all values of a coordinate."""
    try:
        return np.asarray(array[...])
    # what codecs raise about damaged bytes: RuntimeError of zstd and blosc, ValueError of checksums
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{name} cannot be decoded: {error}; copy the store again.") from error


def _refuse_code(array: zarr.Array[Any], name: str) -> None:
    """Refuse an array whose chunks are pickles, because reading them can run any code."""
    # numcodecs has such a codec, and it is chosen by the metadata of the store.
    if "pickle" in json.dumps(array.metadata.to_dict(), default=str):
        raise FormatError(f"{name} is stored as pickles, which can run any code when they are read; convert it first.")


def root_attrs(store: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the attributes of the root of a store.

    Raises
    ------
    MissingFileError
        Raised if there is nothing under that name.
    FormatError
        Raised if it is not a Zarr store.
    """
    return dict(_open_root(os.fspath(store)).attrs)


def _open_root(store: str) -> zarr.Group:
    """Return the root group of a store, opened for reading."""
    import zarr

    place = location_of(store)
    if not place.exists():
        raise MissingFileError(f"the Zarr store {store} does not exist{as_seen()}; check the path.")
    try:
        return zarr.open_group(place.address, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{store} is not a Zarr store: {error}; write one by to_zarr().") from error


def _storage(store: str, path: str, root: zarr.Group, array: zarr.Array[Any]) -> ZarrStorage:
    """Return the description of one array."""
    dtype, grid = array.dtype.newbyteorder("="), _pair(array.shards or array.chunks)
    return ZarrStorage(store, path, _pair(array.shape), dtype, _identity(root, array), grid, array.chunks[0])


def _identity(root: zarr.Group, array: zarr.Array[Any]) -> str:
    """Return the identity of an array: the write id of its store, else a hash of the metadata."""
    ours: Any = root.attrs.get("lazyccd")
    write_id = ours.get("write_id") if isinstance(ours, Mapping) else None
    if write_id is not None:
        return str(write_id)
    # Stores of others have no write id; new pixels under old metadata go unnoticed there.
    document = json.dumps([dict(root.attrs), array.metadata.to_dict()], sort_keys=True, default=str)
    return hashlib.sha256(document.encode()).hexdigest()


def _unreadable(path: str, error: OSError) -> FormatError:
    """Return the error that a file of a store cannot be read."""
    return FormatError(f"{path} cannot be read: {error.strerror or error}; copy the store again.")
