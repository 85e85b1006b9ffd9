"""Keep small files about a write beside its target while it lasts: in a local folder, or as objects behind a URL."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from lazyccd.errors import MissingFileError
from lazyccd.io.names import as_seen
from lazyccd.io.resumable.renames import move_new

PROGRESS = ".lazyccd-progress"
"""Folder beside the targets; in it, one folder for each target that is being written."""

SEGMENT = 256
"""Lines of an object that grows: objects cannot be appended to, so each addition writes the last segment anew."""


TRIES = 20
"""How often a folder is made anew that goes while an entry is created in it."""


class Journal(Protocol):
    """What is known about a write: entries with names, each a small file."""

    where: str
    """The folder or URL."""

    has_times: bool
    """Whether entries have times that can be changed."""

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all entries by name, in the order of their names; empty if there is no folder."""
        ...

    def read(self, name: str, start: int = 0) -> bytes:
        """Return the content of an entry from a position on; empty if there is no such entry."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Create an entry with all its content; return False if it exists. If several processes try, one succeeds."""
        ...

    def append(self, name: str, line: bytes) -> None:
        """Append a line to an entry that no other process writes; raise `OSError` if the folder is gone."""
        ...

    def touch(self, name: str) -> bool:
        """Change the time of an entry; return False if it is gone, or has no time that can be changed."""
        ...

    def touched(self, name: str) -> int | None:
        """Return the time of an entry; None if it is gone, or has no time that can be changed."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries that may be there."""
        ...

    def drop_empty(self) -> bool:
        """Remove the folder if nothing is in it; return whether nothing is there."""
        ...

    def end(self, last: Sequence[str]) -> None:
        """Remove everything; the entries ``last`` go last, in their order."""
        ...


def journal_of(target: str) -> Journal:
    """Return the journal of a target, a path or URL."""
    parent, _, name = target.rstrip("/").rpartition("/")
    where = f"{parent or '.'}/{PROGRESS}/{name}"
    return RemoteJournal(where) if "://" in target else LocalJournal(where)


class LocalJournal:
    """Journal in a folder of the file system."""

    has_times = True

    def __init__(self, where: str) -> None:
        self.where = where

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all entries by name."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.where) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
        return dict(sorted(found.items()))

    def read(self, name: str, start: int = 0) -> bytes:
        """Return the content of an entry from a position on."""
        try:
            with open(f"{self.where}/{name}", "rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""

    def create(self, name: str, content: bytes) -> bool:
        """Write the content aside, then give it its name, so that nobody ever sees an empty entry."""
        folder = os.path.dirname(os.path.dirname(self.where))
        if not os.path.isdir(folder):
            raise MissingFileError(f"the folder {folder} does not exist{as_seen()}; create it first.")
        for left in reversed(range(TRIES)):
            try:
                return self._create(name, content)
            except FileNotFoundError:
                # another run that ended removed the empty folder meanwhile
                if not left:
                    raise
        return False

    def _create(self, name: str, content: bytes) -> bool:
        os.makedirs(self.where, exist_ok=True)
        aside = f"{self.where}/{uuid.uuid4().hex}.tmp"
        try:
            Path(aside).write_bytes(content)
            return move_new(aside, f"{self.where}/{name}")
        finally:
            Path(aside).unlink(missing_ok=True)

    def append(self, name: str, line: bytes) -> None:
        """Append a line by a single call, so that a killed process leaves all of it or nothing."""
        # O_APPEND takes the position with the write, so two descriptors cannot overwrite each other's lines.
        descriptor = os.open(f"{self.where}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # A short write means a full disk; the rest of the line would come too late to be whole.
            if os.write(descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def touch(self, name: str) -> bool:
        """Change the time of an entry."""
        try:
            os.utime(f"{self.where}/{name}")
        except OSError:
            return False
        return True

    def touched(self, name: str) -> int | None:
        """Return the time of an entry."""
        try:
            # Opened first: a file system of the network then asks its server instead of its cache.
            with open(f"{self.where}/{name}", "rb") as file:
                return os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries."""
        for name in names:
            Path(self.where, name).unlink(missing_ok=True)

    def drop_empty(self) -> bool:
        """Remove the folder if nothing is in it, and the one for all targets if this was the last."""
        # The system refuses to remove a folder in which an entry was made meanwhile.
        for folder in (self.where, os.path.dirname(self.where)):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        try:
            return not os.listdir(self.where)
        except OSError:
            return True  # not there, or nothing that this process may see

    def end(self, last: Sequence[str]) -> None:
        """Remove the folder, and the one for all targets if this was the last."""
        # Twice, since what the disk refused to remove would be taken for a write that goes on. What it refuses again is left to
        # the next call: the product does not lack it.
        for _ in range(2):
            self._end(last)
        self.drop_empty()  # unless somebody began anew

    def _end(self, last: Sequence[str]) -> None:
        # Folders among the entries are the scratch of a store.
        with contextlib.suppress(OSError):
            # all at once: some file systems skip entries of a folder from which others are removed
            for entry in list(os.scandir(self.where)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif entry.name not in last:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
        for name in last:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.where}/{name}")


class RemoteJournal:
    """Journal as objects behind an fsspec URL."""

    has_times = False

    def __init__(self, where: str) -> None:
        self.where = where
        self._files: Any
        import fsspec  # local files, which most are, need none

        self._files, self._root = fsspec.url_to_fs(where)
        self._segments: dict[str, list[bytes]] = {}

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all entries by name."""
        # fsspec remembers listings, and other processes write here.
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root, maxdepth=1, detail=True)
        except FileNotFoundError:
            return {}
        return {path.rpartition("/")[2]: int(info["size"]) for path, info in sorted(found.items())}

    def read(self, name: str, start: int = 0) -> bytes:
        """Return the content of an entry from a position on."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}", start=start or None))
        except FileNotFoundError:
            return b""

    def create(self, name: str, content: bytes) -> bool:
        """Create an object, unless it exists."""
        try:
            # The server decides who was first (If-None-Match on S3); asking before writing could not.
            self._files.pipe_file(f"{self._root}/{name}", content, mode="create")
        except FileExistsError:
            return False
        return True

    def append(self, name: str, line: bytes) -> None:
        """Rewrite the last segment with one more line."""
        lines = self._segments.setdefault(name, [])
        lines.append(line)
        first = (len(lines) - 1) // SEGMENT * SEGMENT
        self._files.pipe_file(f"{self._root}/{first:08d}-{name}", b"".join(lines[first:]))

    def touch(self, name: str) -> bool:
        """Return False: an object can only be written anew, and one that is gone would come back."""
        return False

    def touched(self, name: str) -> int | None:
        """Return None."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries."""
        for name in names:
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                continue

    def drop_empty(self) -> bool:
        """Return whether nothing is there: objects have no folders."""
        self._files.invalidate_cache()
        try:
            return not self._files.find(self._root)
        except FileNotFoundError:
            return True

    def end(self, last: Sequence[str]) -> None:
        """Remove all entries, and what a location kept among them."""
        self._files.invalidate_cache()
        first = len(self._root) + 1
        with contextlib.suppress(FileNotFoundError):
            self.remove(path[first:] for path in self._files.find(self._root) if path[first:] not in last)
        self.remove(last)
