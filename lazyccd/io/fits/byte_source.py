"""Read ranges of bytes of local files and URLs, and tell one state of a file from another.

A local file is read by ``preadv`` into memory that is used again, a URL by range requests of fsspec. A file that is
compressed as a whole (.gz, .bz2, .xz) has no ranges: `lazyccd.io.fits.unpacked` has its decompressed copy. A source keeps no
file open by itself: `lazyccd.io.descriptors` does, and may close and reopen it between two reads.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lazyccd.errors import FormatError, LazyCCDError, MissingFileError, SourceChangedError
from lazyccd.io.descriptors import open_for_reading, pool
from lazyccd.io.fits.unpacked import copies
from lazyccd.io.names import as_seen, is_url

Buffer = npt.NDArray[np.uint8]

# The first bytes decide, because names lie.
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
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

    def __init__(self, descriptor: int, path: str, identity: Identity) -> None:
        """Take over a descriptor that was just opened."""
        self.name = path
        self.size = identity.size
        self._held = pool.hold((path, identity), descriptor, partial(_reopen, path, identity))
        self._is_open = True

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""
        with pool.using(self._held) as descriptor:
            return os.pread(descriptor, count, offset)

    def read_rows(self, offset: int, stride: int, count: int, buffer: Buffer) -> None:
        """Fill ``buffer`` with ``count`` runs of equal length, whose starts are ``stride`` bytes apart."""
        with pool.using(self._held) as descriptor:
            _fill_rows(descriptor, self.name, (offset, stride, count), buffer)

    def close(self) -> None:
        """Let the file be closed."""
        if self._is_open:
            self._is_open = False
            pool.release(self._held)


class UnpackedSource:
    """The decompressed copy of a file, local or behind a URL."""

    gap = LocalSource.gap
    piece = LocalSource.piece

    def __init__(self, path: str, identity: Identity, encoding: str) -> None:
        """Decompress the file if that was not done yet."""
        self.name = path
        self._copy = partial(copies.using, (path, identity), path, encoding, partial(_packed, path, identity))
        with self._copy() as place:
            self.size = place.size

    def read(self, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""
        with self._copy() as place:
            # Behind the copy begins that of another file.
            return os.pread(place.descriptor, max(min(count, place.size - offset), 0), place.start + offset)

    def read_rows(self, offset: int, stride: int, count: int, buffer: Buffer) -> None:
        """Fill ``buffer`` with ``count`` runs of equal length, whose starts are ``stride`` bytes apart."""
        end = offset + (count - 1) * stride + buffer.size // count
        if end > self.size:
            raise _ended(self.name, self.size, end)
        with self._copy() as place:
            _fill_rows(place.descriptor, self.name, (place.start + offset, stride, count), buffer)

    def close(self) -> None:
        """Nothing is held open."""


def _fill_rows(descriptor: int, name: str, runs: tuple[int, int, int], buffer: Buffer) -> None:
    """Fill a buffer with runs of equal length: the first offset, the distance of two, and how many."""
    # preadv and not mmap: a mapped file that is truncated kills the process, and mapped pages count as resident memory.
    offset, stride, count = runs
    view = buffer.data
    length = len(view) // count
    for i in range(count):
        _fill(descriptor, name, offset + i * stride, view[i * length : (i + 1) * length])


def _fill(descriptor: int, name: str, offset: int, view: memoryview) -> None:
    """Read a run in full: the system may return less than asked for."""
    done = 0
    while done < len(view):
        got = os.preadv(descriptor, [view[done:] if done else view], offset + done)
        # No exception tells the end of a file, only a read of nothing.
        if got == 0:
            raise _ended(name, offset + done, offset + len(view))
        done += got


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
            # One call for all runs: asynchronous file systems of fsspec (HTTP, S3, GCS) send these requests side by side.
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
    return OpenedSource(UnpackedSource(path, identity, encoding), identity, encoding)


def _packed(path: str, identity: Identity) -> IO[bytes]:
    """Open a compressed file as it is stored, if it is in this state."""
    if not is_url(path):
        return os.fdopen(_reopen(path, identity), "rb")
    _check_identity(path, _open_remote(path)[1], identity)
    import fsspec  # local files, which most are, need none

    filesystem, inner = fsspec.url_to_fs(path)
    opened: IO[bytes] = filesystem.open(inner, "rb")
    return opened


def _reopen(path: str, expected: Identity) -> int:
    """Open a local file again, if it is in this state."""
    descriptor, identity = _open_descriptor(path)
    try:
        _check_identity(path, identity, expected)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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
    descriptor, identity = _open_descriptor(path)
    return LocalSource(descriptor, path, identity), identity


def _open_descriptor(path: str) -> tuple[int, Identity]:
    """Return a new descriptor of a local file, and the state of the file."""
    try:
        descriptor = open_for_reading(path)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist{as_seen()}; check the name and the folder.") from None
    except LazyCCDError:
        raise
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}; check the name and its permissions.") from error
    # fstat, not stat: the identity is that of the file that is open, whatever has its name by now.
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        os.close(descriptor)
        raise FormatError(f"{path} is a folder and must be a FITS file; name a file in it.")
    return descriptor, Identity(status.st_size, status.st_mtime_ns, status.st_ino)


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
    import fsspec

    try:
        filesystem, inner = fsspec.url_to_fs(path)
        info = filesystem.info(inner)
        tags = [info.get(key) for key in TAGS]
        # The last resort is fsspec's own key, by default a hash of everything that `info` says.
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
