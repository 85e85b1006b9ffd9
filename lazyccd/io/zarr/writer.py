"""Write Zarr v3 stores by whole shards, from any thread or process; `lazyccd.io.zarr.reader` reads them.

1. `ZarrTarget.create` begins ``<store>.part``; `ZarrTarget.add_group` lays out the arrays of a group and its coordinates.
2. `ZarrTarget.write` encodes one shard and puts it in place; shards never overlap, so no lock is needed.
3. `ZarrTarget.finish_group` writes the metadata of the group, which can then be read by itself.
4. `complete_store` writes the metadata of the root and gives the store its name. Stores behind a URL have no rename:
   there, a store is one from the moment its root metadata exists.

`ZarrGroup` and `ZarrProduct` make this a resumable write: they are what `lazyccd.io.resumable.write` asks of a format.

Equal pixels and attributes give equal bytes. The image is in group ``0``; the root has attributes only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lazyccd.errors import ParameterError, ShapeError, WriteError
from lazyccd.frame.core import DATA, UNCERTAINTY
from lazyccd.io.resumable.disk import checksum, explained
from lazyccd.io.resumable.progress import Receipts
from lazyccd.io.resumable.write import frame_and_region
from lazyccd.io.zarr.attributes import with_checksums
from lazyccd.io.zarr.location import location_of, read_complete
from lazyccd.io.zarr.reader import ZarrContent, ZarrStorage, open_arrays
from lazyccd.io.zarr.shards import compression, encode_shard
from lazyccd.kernels.fits.quantize import round_chunks
from lazyccd.sections import Region

__all__ = ["ZarrArray", "ZarrContent", "ZarrStorage", "ZarrTarget", "complete_store", "open_arrays"]


@dataclass(frozen=True)
class ZarrArray:
    """One array of a store to be written; all have the shape and the grid of the target."""

    name: str
    """Such as ``data``."""

    dtype: str
    """Native type of the pixels."""

    fill: float | None = None
    """Value of pixels that were never written: None or NaN for NaN, the NO_DATA bit for a mask."""

    attrs: str = "{}"
    """Attributes as JSON."""

    def __post_init__(self) -> None:
        """Hold NaN as None: NaN is not equal to itself, and its hash differs from process to process."""
        if self.fill is not None and np.isnan(self.fill):
            object.__setattr__(self, "fill", None)

    @property
    def fill_value(self) -> npt.NDArray[Any]:
        """The fill value in the type of the pixels, without axes."""
        return np.array(np.nan if self.fill is None else self.fill, self.dtype)


@dataclass(frozen=True)
class ZarrTarget:
    """A Zarr store that is being written, known by its name and layout only."""

    store: str
    """Final path or fsspec URL."""

    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of all arrays."""

    arrays: tuple[ZarrArray, ...]
    """The arrays, such as data, uncertainty, mask."""

    shards: tuple[int, int]
    """Shape of the pieces that `write` takes; see `lazyccd.plan.chunks.shard_grid`."""

    chunks: tuple[int, int]
    """Shape of what can be read alone; divides the shards."""

    group: str = "0"
    """Group of the image; empty if the arrays are in the root, which then is a level of another store."""

    def __post_init__(self) -> None:
        """Refuse grids that Zarr cannot hold, and groups outside of the store: names of extensions come from headers."""
        if self.group.startswith("/") or {".", ".."} & set(self.group.split("/")):
            raise ParameterError(f"{self.store}: a group cannot have the name {self.group!r}; rename the extension.")
        if any(s < 1 or c < 1 or s % c for s, c in zip(self.shards, self.chunks, strict=True)):
            raise ParameterError(
                f"shards {self.shards} must be multiples of the chunks {self.chunks}; use shard_grid()."
            )

    def create(self, *, overwrite: bool = False) -> None:
        """Begin the store, replacing an abandoned one.

        Parameters
        ----------
        overwrite
            Allow a Zarr store under the final name. A local one stays as it is until it is replaced; one behind a URL is
            removed now.

        Raises
        ------
        TargetExistsError
            Raised if the final name is taken and ``overwrite`` is false, or by something that is no Zarr store.
        WriteError
            Raised if there is no space or no permission; nothing is left behind.
        """
        place = location_of(self.store)
        place.check_free(overwrite)
        try:
            with explained(f"{place.unfinished}: the metadata"):
                place.begin()
        except WriteError:
            self.abort()
            raise

    def add_group(
        self,
        attrs: Mapping[str, Any] | None = None,
        coords: Mapping[str, npt.NDArray[Any]] | None = None,
        coord_attrs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Lay out the group and its arrays; it may be called again.

        Parameters
        ----------
        attrs
            Attributes of the group; must go into JSON.
        coords
            One-dimensional arrays named after their dimension, ``y`` and ``x``.
        coord_attrs
            Their attributes; must go into JSON.
        """
        place = location_of(self.store)
        files = self._metadata(attrs or {}, coords or {}, coord_attrs or {})
        group = json.loads(files.pop("zarr.json"))
        names = [key.removesuffix("/zarr.json") for key in files if key.endswith("/zarr.json")]
        arrays = {name: json.loads(files[f"{name}/zarr.json"]) for name in names}
        with explained(f"{place.unfinished}: the metadata"):
            for key, content in files.items():
                place.put(f"{self._prefix}{key}", [content])
            place.note(self._note, json_bytes({"group": group, "arrays": arrays}))

    def write(self, name: str, region: Region, pixels: npt.NDArray[Any]) -> dict[str, list[int]]:
        """Write one whole shard of one array; safe from any thread or process.

        Parameters
        ----------
        name
            Name of the array.
        region
            A cell of the shard grid, cut at the edge of the image.
        pixels
            Array of the region's shape and the array's dtype; it is left as it was.

        Returns
        -------
        dict
            For the file that was written, its bytes and their CRC32C, by its name in the store; empty if all pixels are the
            fill value, which no file says as well.

        Raises
        ------
        ShapeError
            Raised if the region is no cell of the shard grid.
        WriteError
            Raised if the system refuses; the message names store, array and region.
        """
        spec = next(array for array in self.arrays if array.name == name)
        self._check_piece(spec, region, pixels)
        # Zarr says the byte order in the codec, and ours is little-endian on every machine.
        little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
        pieces = encode_shard(little, self.shards, self.chunks, spec.fill_value.astype(little.dtype))
        key = f"{self._prefix}{name}/c/{region.y0 // self.shards[0]}/{region.x0 // self.shards[1]}"
        place = location_of(self.store)
        with explained(f"{place.unfinished}: {name} {region.to_fits()}"):
            if not pieces:
                # A process that died before its receipt may have left a shard of any content there.
                place.remove([key])
                return {}
            place.put(key, pieces)
        return {key: [sum(map(len, pieces)), checksum(pieces)]}

    def shards_of(self, name: str) -> dict[str, int]:
        """Return the sizes in bytes of all shards of an array that exist, by name in the store."""
        return location_of(self.store).sizes(f"{self._prefix}{name}/c")

    def finish_group(self, attrs: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> None:
        """Write the metadata of the group; if that is the root, the store gets its final name.

        Parameters
        ----------
        attrs
            Attributes that are known only now, such as mean and median.
        overwrite
            Replace a store under the final name.

        Raises
        ------
        TargetExistsError
            Raised if the store gets its name, that is taken by now, and ``overwrite`` is false.
        WriteError
            Raised if the system refuses.
        """
        place = location_of(self.store)
        with explained(f"{place.unfinished}: the metadata"):
            noted = json.loads(place.noted(self._note))
            noted["group"]["attributes"].update(attrs or {})
            document = json_bytes(consolidated(noted["group"], noted["arrays"]))
            if self.group:
                place.put(f"{self.group}/zarr.json", [document])
            else:
                place.complete("zarr.json", document, overwrite=overwrite)

    def abort(self) -> None:
        """Remove the unfinished store; a local final name is never touched."""
        location_of(self.store).discard()

    @property
    def _prefix(self) -> str:
        return f"{self.group}/" if self.group else ""

    @property
    def _note(self) -> str:
        """Name of the note that keeps the metadata of the group until it is finished."""
        return f"group-{self.group.replace('/', '-')}.json"

    def _metadata(
        self,
        group_attrs: Mapping[str, Any],
        coords: Mapping[str, npt.NDArray[Any]],
        coord_attrs: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, bytes]:
        """Return the files that zarr writes for the group, its arrays and coordinates, by name in the group."""
        import zarr  # takes a while, and most processes never write a store
        from zarr.codecs import BloscCodec, Crc32cCodec
        from zarr.storage import MemoryStore

        contents: dict[str, Any] = {}
        # zarr makes the metadata, so that they are its own; the pixels never pass through it.
        group = zarr.create_group(MemoryStore(contents), attributes=dict(group_attrs), zarr_format=3)
        for spec in self.arrays:
            dtype = np.dtype(spec.dtype)
            setting: Any = compression(dtype)
            codec = BloscCodec(
                cname=setting.cname, clevel=setting.clevel, shuffle=setting.shuffle, typesize=dtype.itemsize
            )
            group.create_array(
                spec.name,
                shape=self.shape,
                dtype=dtype,
                shards=self.shards,
                chunks=self.chunks,
                compressors=[codec, Crc32cCodec()],
                fill_value=spec.fill_value.item(),
                dimension_names=("y", "x"),
                attributes=json.loads(spec.attrs),
            )
        for name, values in coords.items():
            array = group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=values.shape,
                dimension_names=(name,),
                attributes=dict(coord_attrs.get(name, {})),
            )
            array[...] = values
        return {key: value.to_bytes() for key, value in contents.items()}

    def _check_piece(self, spec: ZarrArray, region: Region, pixels: npt.NDArray[Any]) -> None:
        """Raise unless the region is a cell of the grid and the pixels are what the array has there."""
        # Part of a shard would have to be read, changed and written; two tasks at it would lose pixels.
        y0, x0 = region.y0 // self.shards[0] * self.shards[0], region.x0 // self.shards[1] * self.shards[1]
        cell = Region(y0, y0 + self.shards[0], x0, x0 + self.shards[1]).clip(self.shape)
        if region != cell or not region.size:
            raise ShapeError(
                f"{self.store}: {spec.name} {region} is not a shard; with shards {self.shards} and shape {self.shape} write "
                f"{cell} at once."
            )
        if pixels.shape != tuple(region.shape):
            raise ShapeError(
                f"{self.store}: pixels of shape {pixels.shape} do not fill {region}; pass pixels of its shape."
            )
        if pixels.dtype != np.dtype(spec.dtype):
            raise ParameterError(
                f"{self.store}: {spec.name} is {spec.dtype} and the pixels are {pixels.dtype.str}; convert them first."
            )


def complete_store(
    store: str, groups: Sequence[str], root_attrs: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write the metadata of the root and give a store its final name.

    Parameters
    ----------
    store
        Final path or URL.
    groups
        Its groups, all finished.
    root_attrs
        Attributes of the root, such as ``{"lazyccd": {"format_version": 1, "write_id": "..."}}``; must go into JSON. The
        checksums of the inputs are added to their provenance.
    overwrite
        Replace a store under the final name.

    Raises
    ------
    TargetExistsError
        Raised if there is one by now and ``overwrite`` is false.
    WriteError
        Raised if the system refuses; the final name is untouched.
    """
    place = location_of(store)
    with explained(f"{place.unfinished}: the metadata"):
        members: dict[str, Any] = {}
        # Groups of a branch, such as R22 of R22/C05, need metadata of their own.
        for parent in sorted({name[:i] for name in groups for i, c in enumerate(name) if c == "/"} - set(groups)):
            members[parent] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
            place.put(f"{parent}/zarr.json", [json_bytes(members[parent])])
        for name in groups:
            document = json.loads(place.read(f"{name}/zarr.json"))
            arrays = document["consolidated_metadata"]["metadata"]
            members[name] = consolidated(document, {})
            members.update({f"{name}/{key}": array for key, array in arrays.items()})
        root = {"attributes": with_checksums(root_attrs), "zarr_format": 3, "node_type": "group"}
        place.complete("zarr.json", json_bytes(consolidated(root, members)), overwrite=overwrite)


def is_made(store: str, root_attrs: Mapping[str, Any]) -> bool:
    """Return whether a complete store is the one that `complete_store` makes with these attributes, by its write id."""
    try:
        found = json.loads(read_complete(f"{store}/zarr.json"))["attributes"]["lazyccd"]["write_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return False  # something else
    return bool(found == with_checksums(root_attrs)["lazyccd"]["write_id"])


def json_bytes(document: object) -> bytes:
    """Return a document as JSON, the same bytes for the same document."""
    return json.dumps(document, indent=2).encode()


def consolidated(document: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a group with that of its members, so that opening it takes one read."""
    metadata = {"kind": "inline", "must_understand": False, "metadata": members}
    return {**document, "consolidated_metadata": metadata}


@dataclass(frozen=True)
class ZarrGroup:
    """The group of a store that holds a frame, or the bytes of further HDUs."""

    target: ZarrTarget
    attrs: Mapping[str, Any] = field(default_factory=dict)
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    coord_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Attributes of the coordinates."""

    steps: float | None = None
    """To how many steps per standard deviation of the noise data and uncertainty are rounded; None keeps every bit."""

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[int]]:
        """Write one shard of all variables."""
        receipt: dict[str, list[int]] = {}
        for name, array in arrays.items():
            # Rounded in inner chunks, so that no pixel depends on shards or on what else is in its task.
            is_rounded = self.steps is not None and name in {DATA, UNCERTAINTY}
            pixels = round_chunks(array, self.target.chunks, self.steps or 0) if is_rounded else array
            receipt.update(self.target.write(name, region, pixels))
        return receipt

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether the files exist with their sizes, and with ``verify`` with their checksums."""
        return self.holds_all(receipt, location_of(self.target.store).size, verify=verify)

    def holds_all(self, receipt: Any, size_of: Callable[[str], int | None], *, verify: bool) -> bool:
        """As `holds`, with a function that returns the size of a file."""
        place = location_of(self.target.store)
        return all(
            size_of(key) == size and (not verify or checksum([place.read(key)]) == crc)
            for key, (size, crc) in receipt.items()
        )


@dataclass(frozen=True)
class ZarrProduct:
    """A Zarr store to write."""

    name: str
    overwrite: bool
    frames: tuple[ZarrGroup, ...]
    kept: tuple[ZarrGroup, ...] = ()
    """Groups that are written whole when the store is laid out."""

    root_attrs: Mapping[str, Any] = field(default_factory=dict)

    def alone(self, number: int) -> ZarrProduct:
        """Return the store with the pixels of one frame."""
        return ZarrProduct(
            self.name, self.overwrite, (replace(self.frames[number], attrs={}, coords={}, coord_attrs={}),)
        )

    @property
    def _groups(self) -> tuple[ZarrGroup, ...]:
        return (*self.kept, *self.frames)

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        return location_of(self.name).is_begun()

    def exists(self) -> bool:
        """Return whether there is a store of the final name."""
        return location_of(self.name).exists()

    def stamp(self) -> str:
        """Return what tells the store from another that had its name."""
        return location_of(self.name).stamp()

    def is_made(self) -> bool:
        """Return whether the store has the write id that this write gives it."""
        return is_made(self.name, self.root_attrs)

    def lay_out(self) -> None:
        """Make the unfinished store."""
        target = self._groups[0].target
        location_of(self.name).check_free(self.overwrite)
        try:
            target.create(overwrite=self.overwrite)
            for group in self._groups:
                group.target.add_group(group.attrs, group.coords, group.coord_attrs)
        # A store that is laid out in part can neither be resumed nor told from what somebody else made.
        except BaseException:
            self.abort()
            raise

    def held(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts whose files hold."""
        # One listing for each array and not a request for each shard: behind a URL that is what takes the time.
        there: dict[str, int] = {}
        for frame in self.frames:
            for array in frame.target.arrays:
                there |= frame.target.shards_of(array.name)
        return {
            unit: receipt
            for unit, receipt in receipts.items()
            if self.frames[frame_and_region(unit)[0]].holds_all(receipt, there.get, verify=verify)
        }

    def complete(self, receipts: Receipts) -> None:
        """Write the metadata and give the store its name."""
        for group in self._groups:
            group.target.finish_group(overwrite=self.overwrite)
        names = [group.target.group for group in self._groups]
        # A level that is one frame has its arrays in its root, which is complete by now.
        if names != [""]:
            complete_store(self.name, names, self.root_attrs, overwrite=self.overwrite)

    def abort(self) -> None:
        """Remove the unfinished store."""
        location_of(self.name).discard()

    @property
    def takes_late(self) -> bool:
        """Whether the location accepts what is written late."""
        return location_of(self.name).takes_late
