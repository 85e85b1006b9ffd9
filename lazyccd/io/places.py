"""Where a store is written: a local folder that gets its name when complete, or objects behind a URL.

Both have the same few verbs, so `lazyccd.io.zarrs` does not know the difference. Pieces are written under `PENDING` and
moved, so that a process that is killed leaves no half of a file.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import fsspec

from lazyccd.errors import MissingFileError, TargetExistsError

PENDING = ".lazyccd-pending"


class Place(Protocol):
    """What a writer of stores needs."""

    address: str
    """What zarr opens."""

    folder: str | None
    """The local folder, if it is one."""

    unfinished: str
    """Where the store is until it is complete, for messages."""

    def exists(self) -> bool:
        """Return whether there is anything under the final name."""
        ...

    def check_free(self, overwrite: bool) -> None:
        """Raise `TargetExistsError` if the final name may not be used."""
        ...

    def begin(self) -> None:
        """Remove what an abandoned run left and make the place ready."""
        ...

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write one file from pieces, all of it or nothing."""
        ...

    def get(self, key: str) -> bytes:
        """Return the content of a file of the unfinished store."""
        ...

    def complete(self, key: str, content: bytes) -> None:
        """Write the last file and make the store what the final name means."""
        ...

    def discard(self) -> None:
        """Remove the unfinished store."""
        ...


def place_of(store: str) -> Place:
    """Return the place that a path or URL means."""
    if "://" in store and not store.startswith("file://"):
        return RemotePlace(store)
    return LocalPlace(store.removeprefix("file://"))


def _refuse(store: str, overwrite: bool, is_store: bool) -> None:
    """Raise for an existing target that may not be replaced."""
    if not overwrite:
        raise TargetExistsError(f"{store} exists; pass overwrite=True to replace it, or give another name.")
    if not is_store:
        raise TargetExistsError(f"{store} exists and is not a Zarr store, so it is not replaced; give another name.")


class LocalPlace:
    """A folder, written as ``<folder>.part`` and renamed."""

    def __init__(self, path: str) -> None:
        self.address = path.rstrip("/")
        self.folder: str | None = self.address
        self.unfinished = f"{self.address}.part"

    def exists(self) -> bool:
        """Return whether there is anything under the final name."""
        return os.path.lexists(self.address)

    def check_free(self, overwrite: bool) -> None:
        """Raise if the final name is taken, by no Zarr store, or its parent does not exist."""
        parent = Path(self.address).absolute().parent
        if not parent.is_dir():
            raise MissingFileError(f"the folder {parent} of {self.address} does not exist; create it first.")
        if self.exists():
            is_store = any(os.path.exists(f"{self.address}/{name}") for name in ("zarr.json", ".zgroup", ".zarray"))
            _refuse(self.address, overwrite, is_store)
        if os.path.lexists(self.unfinished) and not self._is_unfinished():
            raise TargetExistsError(f"{self.unfinished} exists and is no unfinished store; remove it first.")

    def begin(self) -> None:
        """Remove what an abandoned run left and make the folder."""
        self.discard()
        os.makedirs(f"{self.unfinished}/{PENDING}")

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write a file beside the others and move it into its place."""
        temporary = f"{self.unfinished}/{PENDING}/{uuid.uuid4().hex}"
        final = f"{self.unfinished}/{key}"
        try:
            with open(temporary, "xb", buffering=0) as file:
                _write_all(file.fileno(), pieces)
            try:
                os.replace(temporary, final)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(final), exist_ok=True)
                os.replace(temporary, final)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def get(self, key: str) -> bytes:
        """Return the content of a file of the unfinished store."""
        return Path(self.unfinished, key).read_bytes()

    def complete(self, key: str, content: bytes) -> None:
        """Write the last file, then rename; an older store steps aside first and goes last."""
        self.put(key, [content])
        shutil.rmtree(f"{self.unfinished}/{PENDING}")
        aside = f"{self.unfinished}.old"
        if not self.exists():
            os.rename(self.unfinished, self.address)
            return
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(self.address, aside)
        os.rename(self.unfinished, self.address)
        shutil.rmtree(aside)

    def discard(self) -> None:
        """Remove the unfinished store, if it is one."""
        if self._is_unfinished():
            shutil.rmtree(self.unfinished)

    def _is_unfinished(self) -> bool:
        """Return whether the folder was made here: still being written, or complete and not yet renamed."""
        return any(os.path.lexists(f"{self.unfinished}/{name}") for name in (PENDING, "zarr.json"))


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write pieces one after the other; the system may take fewer bytes at a time."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


class RemotePlace:
    """Objects behind an fsspec URL; there is no rename, so the root metadata comes last."""

    def __init__(self, url: str) -> None:
        self.address = self.unfinished = url.rstrip("/")
        self.folder: str | None = None
        self._files: Any
        self._files, self._root = fsspec.url_to_fs(self.address)

    def exists(self) -> bool:
        """Return whether a store was completed there, or a Zarr v2 one is there."""
        return any(self._files.exists(f"{self._root}/{name}") for name in ("zarr.json", ".zgroup", ".zarray"))

    def check_free(self, overwrite: bool) -> None:
        """Raise if anything is there that may not be replaced."""
        if self.exists():
            _refuse(self.address, overwrite, is_store=True)
        elif self._files.exists(self._root) and not self._is_unfinished():
            _refuse(self.address, overwrite, is_store=False)

    def begin(self) -> None:
        """Remove an older or abandoned store, its root metadata first."""
        self._mark()
        if self._files.exists(f"{self._root}/zarr.json"):
            self._files.rm(f"{self._root}/zarr.json")
        self.discard()
        self._mark()

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write one object."""
        self._files.pipe_file(f"{self._root}/{key}", b"".join(pieces))

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return bytes(self._files.cat_file(f"{self._root}/{key}"))

    def complete(self, key: str, content: bytes) -> None:
        """Write the object that makes it a store."""
        self.put(key, [content])
        self._files.rm(f"{self._root}/{PENDING}", recursive=True)

    def discard(self) -> None:
        """Remove everything under the URL, if an unfinished store is there."""
        if self._is_unfinished():
            self._files.rm(self._root, recursive=True)

    def _mark(self) -> None:
        """Note that everything under the URL belongs to an unfinished store."""
        self._files.pipe_file(f"{self._root}/{PENDING}/begun", b"")

    def _is_unfinished(self) -> bool:
        """Return whether a store was begun there and not finished."""
        return bool(self._files.exists(f"{self._root}/{PENDING}"))
