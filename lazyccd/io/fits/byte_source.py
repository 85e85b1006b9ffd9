"""Read ranges of bytes of local files and URLs, and tell one state of a file from another.

A local file is read by ``preadv`` into memory that is used again, a URL by range requests of fsspec. A file that is
compressed as a whole (.gz, .bz2, .xz) has no ranges: it is decompressed once per process into an unnamed temporary
file in the folder that ``TMPDIR`` names, which is then read like any other. Pages of that file are the system's to
drop, so they do not count against the memory of a plan.
"""

from __future__ import annotations

import atexit
import bz2
import gzip
import logging
import lzma
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, Protocol, cast

import fsspec
import numpy as np
import numpy.typing as npt

from lazyccd.errors import FormatError, MissingFileError, SourceChangedError
from lazyccd.io.names import is_url

logger = logging.getLogger(__name__)

Buffer = npt.NDArray[np.uint8]

# The first bytes decide, because names lie.
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
# Not read here, but recognised: "not a FITS file" would not say what to do.
_REFUSED = {b"\x1f\x9d": "a file of Unix compress (.Z)", b"PK\x03\x04": "a ZIP archive"}


@dataclass(frozen=True)
class Identity:
    """What tells one state of a file from another."""

    size: int
    """Bytes, as stored."""

    mtime_ns: int = 0
    """Time of the last change; 0 for URLs."""

    inode: int = 0
    """Number of the file on its file system; 0 for URLs."""

    etag: str = ""
    """What the server says that identifies the content; empty for local files."""

    def __str__(self) -> str:
        """Describe the state in messages."""
        if self.etag:
            return f"{self.size} bytes, tag {self.etag}"
        return f"{self.size} bytes, mtime {self.mtime_ns} ns, inode {self.inode}"


class ByteSource(Protocol):
    """Random access to the bytes of a FITS file, after whole-file decompression."""

    name: str
    size: int
    gap: int
    """Bytes that are cheaper to read and throw away than to jump over."""

    piece: int
    """Bytes to read at a time."""

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""

    def read_rows(self, offset: int, stride: int, count: int, buffer: Buffer) -> None:
        """Fill ``buffer`` with ``count`` runs of equal length, whose starts are ``stride`` bytes apart."""

    def close(self) -> None:
        """Close the file."""


class LocalSource:
    """A file of the local file system."""

    # Pieces of this size are still in the cache of the core when they are decoded.
    gap = 32768
    piece = 262144

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over an open descriptor."""
        self._descriptor = descriptor
        self.name = name
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""
        return os.pread(self._descriptor, count, offset)

    def read_rows(self, offset: int, stride: int, count: int, buffer: Buffer) -> None:
        """Fill ``buffer`` with ``count`` runs of equal length, whose starts are ``stride`` bytes apart."""
        # preadv and not mmap: a mapped file that is truncated kills the process, and mapped pages count as resident memory.
        view = buffer.data
        length = len(view) // count
        for i in range(count):
            self._fill(offset + i * stride, view[i * length : (i + 1) * length])

    def _fill(self, offset: int, view: memoryview) -> None:
        """Read a run in full: the system may return less than asked for."""
        done = 0
        while done < len(view):
            got = os.preadv(self._descriptor, [view[done:] if done else view], offset + done)
            # No exception tells the end of a file, only a read of nothing.
            if got == 0:
                raise _ended(self.name, offset + done, offset + len(view))
            done += got

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RemoteSource:
    """A file behind a URL, read by range requests."""

    # A request costs a round trip, so it pays to read more at a time and to read across larger gaps.
    gap = 262144
    piece = 8 << 20

    def __init__(self, filesystem: Any, path: str, name: str, size: int) -> None:
        """Keep the file system, which fsspec shares between readers."""
        self._filesystem = filesystem
        self._path = path
        self.name = name
        self.size = size

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""
        stop = min(offset + count, self.size)
        if stop <= offset:
            return b""
        try:
            part = bytes(self._filesystem.cat_file(self._path, start=offset, end=stop))
        except Exception as error:
            raise _unreadable(self.name, error) from error
        _check_part(self.name, part, stop - offset)
        return part

    def read_rows(self, offset: int, stride: int, count: int, buffer: Buffer) -> None:
        """Fill ``buffer`` with ``count`` runs of equal length, whose starts are ``stride`` bytes apart."""
        length = buffer.size // count
        starts = [offset + i * stride for i in range(count)]
        stops = [start + length for start in starts]
        try:
            # One call for all runs: fsspec sends the requests side by side.
            parts = self._filesystem.cat_ranges([self._path] * count, starts, stops, on_error="raise")
        except Exception as error:
            raise _unreadable(self.name, error) from error
        for i, part in enumerate(parts):
            _check_part(self.name, part, length)
            if len(part) != length:
                raise _ended(self.name, starts[i] + len(part), stops[i])
            buffer[i * length : (i + 1) * length] = np.frombuffer(part, np.uint8)

    def close(self) -> None:
        """Nothing is held open."""


def _check_part(name: str, part: bytes, wanted: int) -> None:
    """Refuse more bytes than requested: servers without range requests send the whole file."""
    if len(part) > wanted:
        raise FormatError(
            f"{name}: {wanted} bytes were asked for and {len(part)} came: the server does not give parts of files; "
            "download it first."
        )


def _ended(name: str, end: int, wanted: int) -> FormatError:
    """Make the error of a file that is shorter than its header promised."""
    return FormatError(f"{name} ends at byte {end}, before the {wanted} that were asked for; fetch the file again.")


def _unreadable(name: str, error: BaseException) -> FormatError:
    """Make the error of a URL. Every file system of fsspec has its own exceptions, so their text is what helps."""
    return FormatError(f"{name} cannot be read: {error!r}; check the URL and what fsspec needs for it.")


class _Unpacked:
    """Temporary files with the content of compressed ones; the least recently used are closed first."""

    def __init__(self, budget_bytes: int, budget_files: int) -> None:
        self._budget_bytes = budget_bytes
        self._budget_files = budget_files
        self._files: OrderedDict[tuple[str, Identity], IO[bytes]] = OrderedDict()
        self._guard = threading.Lock()
        self._makers: dict[tuple[str, Identity], threading.Lock] = {}

    def descriptor(self, path: str, identity: Identity, encoding: str) -> int:
        """Return a new descriptor of the decompressed file, which is made if it does not exist yet."""
        key = (path, identity)
        with self._guard:
            # A lock per file: two threads do not decompress one file twice, and nobody waits for another file.
            maker = self._makers.setdefault(key, threading.Lock())
        with maker:
            with self._guard:
                file = self._files.get(key)
                if file is not None:
                    self._files.move_to_end(key)
                    return os.dup(file.fileno())
            file = _unpack(path, encoding)
            with self._guard:
                self._files[key] = file
                own = os.dup(file.fileno())
                self._shrink()
            return own

    def close(self) -> None:
        """Close all files; readers have descriptors of their own."""
        with self._guard:
            while self._files:
                self._files.popitem()[1].close()

    def _shrink(self) -> None:
        """Close old files until the rest keeps to the budget; readers have descriptors of their own."""
        total = sum(os.fstat(file.fileno()).st_size for file in self._files.values())
        # The newest stays even if it alone exceeds the budget: its reader is about to use it.
        while len(self._files) > 1 and (total > self._budget_bytes or len(self._files) > self._budget_files):
            key, file = self._files.popitem(last=False)
            self._makers.pop(key, None)
            total -= os.fstat(file.fileno()).st_size
            file.close()


_unpacked = _Unpacked(budget_bytes=16 << 30, budget_files=128)
atexit.register(_unpacked.close)


def _temporary_file() -> IO[bytes]:
    """Make a file without a name, which is gone when it is closed or the process ends."""
    # A name would outlive a process that is killed.
    return cast("IO[bytes]", tempfile.TemporaryFile(prefix="lazyccd-"))


def _unpack(path: str, encoding: str) -> IO[bytes]:
    """Decompress a file into an unnamed temporary one."""
    target = _temporary_file()
    try:
        with ExitStack() as stack:
            packed: Any = path
            if is_url(path):
                filesystem, inner = fsspec.url_to_fs(path)
                packed = stack.enter_context(filesystem.open(inner, "rb"))
            plain = stack.enter_context(_OPENERS[encoding](packed, "rb"))
            shutil.copyfileobj(plain, target, 1 << 20)
        target.flush()
    except (EOFError, OSError, lzma.LZMAError, ValueError) as error:
        target.close()
        raise FormatError(f"{path} cannot be decompressed ({encoding}): {error}; fetch the file again.") from error
    except BaseException:
        target.close()
        raise
    logger.info(
        "%s is compressed as a whole (%s): decompressed once to %.1f MB in %s, and read from there as one chunk.",
        path,
        encoding,
        target.tell() / 1e6,
        tempfile.gettempdir(),
    )
    return target


class OpenedSource(NamedTuple):
    """A file that is open for random access."""

    source: ByteSource
    identity: Identity
    encoding: str
    """How it is compressed as a whole: "gzip", "bzip2", "xz", or "" if it is not."""


def open_source(path: str, expected: Identity | None = None) -> OpenedSource:
    """Open a file for random access.

    Parameters
    ----------
    path
        Absolute local path, or URL.
    expected
        The identity that a plan saw; None if it is not known yet.

    Returns
    -------
    OpenedSource
        The source, which the caller closes, and what was learned by opening it.

    Raises
    ------
    MissingFileError
        Raised if there is no such file.
    SourceChangedError
        Raised if the file is not the one that ``expected`` describes.
    FormatError
        Raised if it cannot be read, or is compressed in a way that is not known here.
    """
    source, identity = _open_remote(path) if is_url(path) else _open_local(path)
    try:
        _check_identity(path, identity, expected)
        encoding = _encoding(source, path)
        if not encoding:
            return OpenedSource(source, identity, "")
    except BaseException:
        source.close()
        raise
    source.close()
    return OpenedSource(LocalSource(_unpacked.descriptor(path, identity, encoding), path), identity, encoding)


def _check_identity(path: str, identity: Identity, expected: Identity | None) -> None:
    """Refuse a file that is not the one that a plan saw."""
    if expected is not None and identity != expected:
        raise SourceChangedError(
            f"{path} changed after the plan was made: it had {expected} and has {identity}; "
            "open it again to read the new content."
        )


def _encoding(source: ByteSource, path: str) -> str:
    """Detect whole-file compression by the first bytes."""
    first = source.read(0, 6)
    for magic, what in _REFUSED.items():
        if first.startswith(magic):
            raise FormatError(
                f"{path} is {what}, which is not read here; decompress it first, for example to .fits.gz."
            )
    return next((name for magic, name in _MAGIC.items() if first.startswith(magic)), "")


def _open_local(path: str) -> tuple[ByteSource, Identity]:
    """Open a local file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist; check the name and the folder.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}; check the name and its permissions.") from error
    # fstat, not stat: the identity is that of the file that is open, whatever has its name by now.
    status = os.fstat(descriptor)
    if os.path.isdir(path):
        os.close(descriptor)
        raise FormatError(f"{path} is a folder and must be a FITS file; name a file in it.")
    return LocalSource(descriptor, path), Identity(status.st_size, status.st_mtime_ns, status.st_ino)


# fsspec has no common name for it: each file system passes on what its server sends.
TAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "Digest",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "mtime",
    "created",
)
"""Names that file systems give to what changes with a file, the most reliable first."""


def _open_remote(path: str) -> tuple[ByteSource, Identity]:
    """Open a URL."""
    try:
        filesystem, inner = fsspec.url_to_fs(path)
        info = filesystem.info(inner)
        tags = [info.get(key) for key in TAGS]
        # File systems without any of these have a key of their own, which may be a hash of all they know.
        tag = next((str(tag) for tag in tags if tag), None) or str(filesystem.ukey(inner))
        size = info.get("size")
    except FileNotFoundError as error:
        cause = error.__cause__  # of HTTP, where every failure is a file that is not there
        failed = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        if cause is not None and (failed or getattr(cause, "status", 404) != 404):
            raise _unreadable(path, cause) from error
        raise MissingFileError(f"{path} does not exist; check the URL.") from None
    except Exception as error:
        raise _unreadable(path, error) from error
    if size is None:
        raise FormatError(f"{path} has no known size, so that no part of it can be asked for; download it first.")
    return RemoteSource(filesystem, inner, path, int(size)), Identity(int(size), etag=tag)
