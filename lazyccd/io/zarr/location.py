"""Write a store to where it belongs: a local folder that gets its name when complete, or objects behind a URL.

Both have the same few verbs, so `lazyccd.io.zarr.writer` does not know the difference. What is not part of the store, such as
files that are being written, is in a folder ``scratch`` of the journal: a process that is killed leaves no half of a file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import fsspec

from lazyccd.errors import MissingFileError, TargetExistsError
from lazyccd.io.names import as_seen
from lazyccd.io.resumable.disk import explained, flush, flush_all, stamp_of
from lazyccd.io.resumable.journal import journal_of
from lazyccd.io.resumable.renames import check_kind, exchange, taken_meanwhile

SCRATCH = "scratch"
FINAL = "final"
"""Name of the note of which folder gets the final name."""

REPLACING = ".part"
"""Ending of what replaces a file of a complete store."""

OLD = "old"
"""Folder of an older store where two folders cannot change their names at once."""


class Location(Protocol):
    """Where a store is written, with the few operations that a writer needs."""

    address: str
    """What zarr opens."""

    folder: str | None
    """The local folder, if it is one."""

    unfinished: str
    """Where the store is until it is complete, for messages."""

    takes_late: bool
    """Whether `put` works after `discard`, when a run was given up and tasks are still on their way."""

    def exists(self) -> bool:
        """Return whether there is anything under the final name."""
        ...

    def stamp(self) -> str:
        """Return what tells a complete store from one that was there before; empty if there is none."""
        ...

    def check_free(self, overwrite: bool) -> None:
        """Raise `TargetExistsError` if the final name may not be used."""
        ...

    def begin(self) -> None:
        """Remove what an abandoned run left, and prepare the location."""
        ...

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write one file from pieces, atomically."""
        ...

    def note(self, name: str, content: bytes) -> None:
        """Keep a note about the store until it is complete."""
        ...

    def noted(self, name: str) -> bytes:
        """Return the content of a note."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of all files of the unfinished store below a key."""
        ...

    def size(self, key: str) -> int | None:
        """Return the bytes of one file of the unfinished store; None if it is not there."""
        ...

    def read(self, key: str) -> bytes:
        """Return the content of a file of the unfinished store."""
        ...

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files of the unfinished store."""
        ...

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        ...

    def complete(self, key: str, content: bytes, *, overwrite: bool) -> None:
        """Write the last file and give the store its final name; raise `TargetExistsError` if that may not be replaced."""
        ...

    def discard(self) -> None:
        """Remove the unfinished store."""
        ...


def location_of(store: str) -> Location:
    """Return the location of a path or URL."""
    if "://" in store and not store.startswith("file://"):
        return RemoteLocation(store)
    return LocalLocation(store.removeprefix("file://"))


def read_complete(path: str) -> bytes:
    """Return the content of a file of a complete store, by path or URL."""
    if "://" in path:
        files, name = fsspec.url_to_fs(path)
        return bytes(files.cat_file(name))
    return Path(path).read_bytes()


def replace_complete(path: str, content: bytes) -> None:
    """Replace a file of a complete store atomically."""
    if "://" in path:
        files, name = fsspec.url_to_fs(path)
        files.pipe_file(name, content)
        return
    # One name for all: a process that dies leaves a file that the next one replaces, or removes by `remove_unfinished`.
    temporary = f"{path}{REPLACING}"
    with explained(path):
        try:
            Path(temporary).write_bytes(content)
            flush(temporary)
            os.replace(temporary, path)
        except OSError:
            remove_unfinished(path)
            raise


def remove_unfinished(path: str) -> None:
    """Remove what a process left that died while it replaced a file of a complete store."""
    if "://" not in path:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}{REPLACING}")


def _refuse(store: str, overwrite: bool, is_store: bool) -> None:
    """Raise for an existing target that may not be replaced."""
    if not overwrite:
        raise TargetExistsError(f"{store} exists; pass overwrite=True to replace it, or give another name.")
    if not is_store:
        raise TargetExistsError(f"{store} exists and is not a Zarr store, so it is not replaced; give another name.")


class LocalLocation:
    """A folder, written as ``<folder>.part`` and renamed."""

    # Without the scratch folder nothing can be written.
    takes_late = False

    def __init__(self, path: str) -> None:
        self.address = path.rstrip("/")
        self.folder: str | None = self.address
        self.unfinished = f"{self.address}.part"
        self._progress = journal_of(self.address).where
        self._scratch = f"{self._progress}/{SCRATCH}"

    def exists(self) -> bool:
        """Return whether there is anything under the final name."""
        return os.path.lexists(self.address)

    def stamp(self) -> str:
        """Return what tells the folder from another that had its name."""
        return stamp_of(self.address)

    def check_free(self, overwrite: bool) -> None:
        """Raise if the final name is taken, or taken by something that is no Zarr store, or if its parent does not exist."""
        check_kind(self.address)
        parent = Path(self.address).absolute().parent
        if not parent.is_dir():
            raise MissingFileError(f"the folder {parent} of {self.address} does not exist{as_seen()}; create it first.")
        if self.exists():
            is_store = any(os.path.exists(f"{self.address}/{name}") for name in ("zarr.json", ".zgroup", ".zarray"))
            _refuse(self.address, overwrite, is_store)
        if os.path.lexists(self.unfinished) and not os.path.isdir(self._scratch):
            raise TargetExistsError(f"{self.unfinished} exists and is no unfinished store; remove it first.")

    def begin(self) -> None:
        """Remove what an abandoned run left and make the folders."""
        self.discard()
        os.makedirs(self._scratch)
        os.makedirs(self.unfinished)

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write a file aside and move it to its place."""
        temporary = f"{self._scratch}/{uuid.uuid4().hex}"
        final = f"{self.unfinished}/{key}"
        try:
            # Readers never see half a shard: it gets its name when it is whole.
            with open(temporary, "xb", buffering=0) as file:
                _write_all(file.fileno(), pieces)
            # Folders are made when the first shard needs them: asking for each shard would cost more than the failure.
            try:
                os.replace(temporary, final)
            except FileNotFoundError:
                self._make_parents(key)
                os.replace(temporary, final)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make_parents(self, key: str) -> None:
        """Make the folders of a file, but not that of the store: a late task must not begin one that has its name by now."""
        parts = key.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            with contextlib.suppress(FileExistsError):
                os.mkdir("/".join([self.unfinished, *parts[:count]]))

    def note(self, name: str, content: bytes) -> None:
        """Keep a note about the store until it is complete."""
        Path(self._scratch, name).write_bytes(content)

    def noted(self, name: str) -> bytes:
        """Return the content of a note."""
        return Path(self._scratch, name).read_bytes()

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of all files of the unfinished store below a key."""
        found: dict[str, int] = {}
        todo = [prefix]
        while todo:
            folder = todo.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(f"{self.unfinished}/{folder}") as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(key)
                    else:
                        found[key] = entry.stat().st_size
        return found

    def size(self, key: str) -> int | None:
        """Return the bytes of one file of the unfinished store; None if it is not there."""
        try:
            return os.stat(f"{self.unfinished}/{key}").st_size
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:
        """Return the content of a file of the unfinished store."""
        return Path(self.unfinished, key).read_bytes()

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files of the unfinished store, and folders that get empty."""
        for key in keys:
            path = Path(self.unfinished, key)
            if not path.exists():
                continue
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def is_begun(self) -> bool:
        """Return whether there is an unfinished store."""
        return os.path.isdir(self.unfinished) and os.path.isdir(self._scratch) and not self._is_named()

    def complete(self, key: str, content: bytes, *, overwrite: bool) -> None:
        """Write the last file, then rename. An older store changes its name with the new one, and is removed last."""
        self.put(key, [content])
        flush_all(self.unfinished)
        if self.exists() and not overwrite:
            raise taken_meanwhile(self.address)
        # Both folders stand beside each other with each other's name if the process dies now: the note tells them apart.
        self.note(FINAL, _inode(self.unfinished).encode())
        if not (self.exists() and exchange(self.unfinished, self.address)):
            self._rename_in_steps()
        # The store has its name: what the disk refuses from here on changes nothing about it.
        with contextlib.suppress(OSError):
            flush(os.path.dirname(self.address) or ".")
        self.discard()

    def _rename_in_steps(self) -> None:
        """Rename; an older store is moved aside first, and `begin` brings it back if this process dies in between."""
        if self.exists():
            shutil.rmtree(f"{self._scratch}/{OLD}", ignore_errors=True)
            os.rename(self.address, f"{self._scratch}/{OLD}")
        os.rename(self.unfinished, self.address)

    def _is_named(self) -> bool:
        """Return whether the store that was written has its name; what is called unfinished is then the older one."""
        try:
            return self.noted(FINAL).decode() == _inode(self.address)
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the unfinished store, if it is one, or an older store that was replaced."""
        if os.path.isdir(f"{self._scratch}/{OLD}") and not self.exists():
            os.rename(f"{self._scratch}/{OLD}", self.address)
        if os.path.isdir(self._scratch) and os.path.isdir(self.unfinished):
            self._put_away()
        self._tidy()

    def _put_away(self) -> None:
        """Move the folder of an unfinished store to the scratch, where a part that is not removed is in nobody's way."""
        for _ in range(2):
            with contextlib.suppress(OSError):
                os.rename(self.unfinished, f"{self._scratch}/{uuid.uuid4().hex}")
                return
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove the scratch folder, and those above it if nothing else is in them."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(self._progress)
            os.rmdir(os.path.dirname(self._progress))


def _inode(folder: str) -> str:
    """Return what a folder keeps when it is renamed."""
    status = os.stat(folder)
    return f"{status.st_dev} {status.st_ino}"


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write pieces one after the other; the system may take fewer bytes at a time."""
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


class RemoteLocation:
    """Objects behind an fsspec URL; there is no rename, so the root metadata comes last."""

    # A task that is on its way cannot be called back, and writing an object needs no folder.
    takes_late = True

    def __init__(self, url: str) -> None:
        self.address = self.unfinished = url.rstrip("/")
        self.folder: str | None = None
        self._files: Any
        self._files, self._root = fsspec.url_to_fs(self.address)
        _, self._progress = fsspec.url_to_fs(journal_of(self.address).where)

    def exists(self) -> bool:
        """Return whether a store was completed there, or a Zarr v2 one is there."""
        self._files.invalidate_cache()
        return any(self._files.exists(f"{self._root}/{name}") for name in ("zarr.json", ".zgroup", ".zarray"))

    def stamp(self) -> str:
        """Return what the file system says of the root metadata, such as their tag and time."""
        self._files.invalidate_cache()
        try:
            return str(self._files.ukey(f"{self._root}/zarr.json"))
        except FileNotFoundError:
            return ""

    def check_free(self, overwrite: bool) -> None:
        """Raise if anything is there that may not be replaced."""
        if self.exists():
            _refuse(self.address, overwrite, is_store=True)
        elif self._files.exists(self._root) and not self.is_begun():
            _refuse(self.address, overwrite, is_store=False)

    def begin(self) -> None:
        """Remove an older or abandoned store, its root metadata first."""
        # Before the first object: an interrupted begin must be recognised as ours, or the name would be refused for ever.
        self.note("begun", b"")
        # Root metadata make a store: without them nobody takes the rest for one while it is removed.
        if self._files.exists(f"{self._root}/zarr.json"):
            self._files.rm_file(f"{self._root}/zarr.json")
        self._remove_all(self._root)

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """Write one object."""
        content = b"".join(pieces)
        try:
            self._files.pipe_file(f"{self._root}/{key}", content)
        except OSError:
            raise
        except Exception as error:  # what clients of object stores raise has no common class
            raise OSError(f"{type(error).__name__}: {error}") from error

    def note(self, name: str, content: bytes) -> None:
        """Keep a note about the store until it is complete."""
        self._files.pipe_file(f"{self._progress}/{SCRATCH}/{name}", content)

    def noted(self, name: str) -> bytes:
        """Return the content of a note."""
        return bytes(self._files.cat_file(f"{self._progress}/{SCRATCH}/{name}"))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of all objects of the unfinished store below a key."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(f"{self._root}/{prefix}", detail=True)
        except FileNotFoundError:
            return {}
        first = len(self._root) + 1
        return {name[first:]: int(info["size"]) for name, info in found.items()}

    def size(self, key: str) -> int | None:
        """Return the bytes of one object of the unfinished store; None if it is not there."""
        return self.sizes(key).get(key)

    def read(self, key: str) -> bytes:
        """Return the content of an object of the unfinished store."""
        return bytes(self._files.cat_file(f"{self._root}/{key}"))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects of the unfinished store."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(f"{self._root}/{key}")

    def is_begun(self) -> bool:
        """Return whether a store was begun there and not finished."""
        self._files.invalidate_cache()
        return bool(self._files.exists(f"{self._progress}/{SCRATCH}/begun")) and not self.exists()

    def complete(self, key: str, content: bytes, *, overwrite: bool) -> None:
        """Write the object that makes it a store."""
        if self.exists() and not overwrite:
            raise taken_meanwhile(self.address)
        self.put(key, [content])
        self._remove_all(f"{self._progress}/{SCRATCH}")

    def discard(self) -> None:
        """Remove everything under the URL, if an unfinished store is there."""
        if self.is_begun():
            self._remove_all(self._root)
            self._remove_all(f"{self._progress}/{SCRATCH}")

    def _remove_all(self, root: str) -> None:
        """Remove a folder of objects, if there is one."""
        self._files.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(root, recursive=True)
