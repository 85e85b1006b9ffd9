"""Decompressed copies of files that are compressed as a whole (.gz, .bz2, .xz), which have no random access.

Copies lie one behind another in a few temporary files, because each would need an open file otherwise: these files have
no name, so that nothing outlives a process that is killed. Together they keep to a budget, 16 GB or half of the free
space of the folder that ``TMPDIR`` names. Beyond it, those that were read longest ago are thrown away, and decompressed
again when they are read again. Pages of the files are the system's to drop, so they do not count against the memory of
a plan.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import logging
import lzma
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from lazyccd.errors import FormatError, LazyCCDError
from lazyccd.io.descriptors import allowed_files, with_descriptors

logger = logging.getLogger(__name__)

_MOST_BYTES = 16 << 30
_FILES = 16
"""Files that the budget is cut into; what is thrown away is a whole file."""

_PIECE = 1 << 20

_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


class Place(NamedTuple):
    """Where a copy is."""

    descriptor: int
    start: int
    size: int


@dataclass(eq=False)
class _File:
    """A temporary file with copies in it."""

    descriptor: int
    size: int = 0
    pins: int = 0
    """Threads that read in it or write to it."""

    copies: dict[Hashable, tuple[int, int]] = field(default_factory=dict)
    """Start and size of each copy."""


class UnpackedCopies:
    """The decompressed copies of a process."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        """Keep to so many bytes, or to half of what the disk has if that is less."""
        self._most_bytes = most_bytes
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._where: dict[Hashable, _File] = {}
        self._guard = threading.Lock()
        self._makers: dict[Hashable, threading.Lock] = {}
        self._thrown: set[Hashable] = set()
        self._is_told = False

    @property
    def nbytes(self) -> int:
        """Bytes of all copies."""
        with self._guard:
            return sum(file.size for file in self._files.values())

    @contextmanager
    def using(self, key: Hashable, name: str, encoding: str, opened: Callable[[], IO[bytes]]) -> Iterator[Place]:
        """Return where the copy of a file is, which stays there inside the context; it is made if there is none.

        Parameters
        ----------
        key
            The file and its state.
        name
            The file, for messages.
        encoding
            "gzip", "bzip2" or "xz".
        opened
            Opens the compressed file and checks that it is in the state of ``key``.
        """
        file = self._find(key)
        if file is None:
            with self._guard:
                # A lock per copy: two threads do not decompress one file twice, and nobody waits for another file.
                maker = self._makers.setdefault(key, threading.Lock())
            with maker:
                file = self._find(key) or self._make(key, name, encoding, opened)
        try:
            yield Place(file.descriptor, *file.copies[key])
        finally:
            self._unpin(file)

    def _find(self, key: Hashable) -> _File | None:
        """Return the file that a copy is in, pinned."""
        with self._guard:
            file = self._where.get(key)
            if file is not None:
                file.pins += 1
                self._files.move_to_end(file.descriptor)
            return file

    def _unpin(self, file: _File) -> None:
        """Let a file be thrown away."""
        with self._guard:
            file.pins -= 1
            self._keep_to_budget()

    def _make(self, key: Hashable, name: str, encoding: str, opened: Callable[[], IO[bytes]]) -> _File:
        """Decompress a file behind the copies of a temporary file; return that, pinned."""
        file = self._begin(name)
        start = file.size
        try:
            size = self._decompress(file.descriptor, start, name, encoding, opened)
        except BaseException:
            os.ftruncate(file.descriptor, start)
            self._unpin(file)
            raise
        with self._guard:
            file.copies[key] = (start, size)
            file.size = start + size
            self._where[key] = file
            self._makers.pop(key, None)
            again, self._thrown = key in self._thrown, self._thrown - {key}
            is_first, self._is_told = again and not self._is_told, self._is_told or again
            budget = self._budget()
        if is_first:
            logger.warning(
                "%s is decompressed again: copies of the compressed files take more than %.1f GB of %s, so that old ones "
                "are thrown away; decompress the files before, or set TMPDIR to a folder with more space.",
                name,
                budget / 1e9,
                tempfile.gettempdir(),
            )
        logger.info(
            "%s is compressed as a whole (%s): decompressed once to %.1f MB in %s, and read from there as one chunk.",
            name,
            encoding,
            size / 1e6,
            tempfile.gettempdir(),
        )
        return file

    def _begin(self, name: str) -> _File:
        """Return a file that nobody else uses and that has space, pinned; a new one if there is none."""
        with self._guard:
            most = self._budget() // _FILES
            for file in self._files.values():
                if not file.pins and file.size < most:
                    file.pins += 1
                    self._files.move_to_end(file.descriptor)
                    return file
        file = _File(with_descriptors(_temporary_file, f"a temporary file for {name}"), pins=1)
        with self._guard:
            self._files[file.descriptor] = file
        return file

    def _decompress(self, target: int, start: int, name: str, encoding: str, opened: Callable[[], IO[bytes]]) -> int:
        """Write the decompressed content; return its size."""
        place = start
        try:
            with opened() as packed, _OPENERS[encoding](packed, "rb") as plain:
                while piece := plain.read(_PIECE):
                    self._write(target, piece, place, name)
                    place += len(piece)
        except LazyCCDError:
            raise
        except (EOFError, OSError, lzma.LZMAError, ValueError) as error:
            raise FormatError(f"{name} cannot be decompressed ({encoding}): {error}; fetch the file again.") from error
        return place - start

    def _write(self, target: int, piece: bytes, place: int, name: str) -> None:
        """Write a piece in full; where the disk is full, throw copies away and try again."""
        view = memoryview(piece)
        while view:
            try:
                done = os.pwrite(target, view, place)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                with self._guard:
                    thrown = self._throw_away(0, 0)
                if not thrown:
                    raise FormatError(
                        f"{name} has no space for its decompressed copy in {tempfile.gettempdir()}: {error.strerror}; "
                        "set TMPDIR to a folder with more space, or decompress the file before."
                    ) from error
                continue
            view, place = view[done:], place + done

    def _budget(self) -> int:
        """Return how many bytes the copies may take."""
        used = sum(file.size for file in self._files.values())
        return min(self._most_bytes, (shutil.disk_usage(tempfile.gettempdir()).free + used) // 2)

    def _keep_to_budget(self) -> None:
        """Throw away what was read longest ago."""
        files, size = len(self._files), sum(file.size for file in self._files.values())
        most_files = max(_FILES, allowed_files() // 8)
        # Asking the disk costs more than the reads of a small image.
        if files > most_files or (files > 1 and size > self._budget()):
            self._throw_away(self._budget(), most_files)

    def _throw_away(self, most_bytes: int, most_files: int) -> int:
        """Close old files that nobody uses until the rest keeps to the limits; return how many."""
        size, count = sum(file.size for file in self._files.values()), 0
        for file in [file for file in self._files.values() if not file.pins]:
            if size <= most_bytes and len(self._files) <= most_files:
                break
            size -= file.size
            count += 1
            self._thrown.update(file.copies)
            for key in file.copies:
                del self._where[key]
            del self._files[file.descriptor]
            os.close(file.descriptor)
        return count


copies = UnpackedCopies()
"""The decompressed copies of this process."""


def _temporary_file() -> int:
    """Return a descriptor of a file without a name, which is gone when it is closed or the process ends."""
    # A name would outlive a process that is killed.
    with tempfile.TemporaryFile(prefix="lazyccd-", buffering=0) as file:
        return os.dup(file.fileno())
