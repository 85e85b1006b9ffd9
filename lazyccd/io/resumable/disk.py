"""What every writer needs: errors that say what to do, content that survives a power cut, file states, checksums.

Zarr defines CRC32C for chunks and indices, so one checksum serves for shards, receipts and provenance; processors have an
instruction for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any

import google_crc32c

from lazyccd.errors import LazyCCDError, WriteError

WAYS_OUT = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some quota or write elsewhere",
    errno.EFBIG: "raise the limit on file sizes or write elsewhere",
}
"""What to do about an error of the system."""

OTHERWISE = "free some space, check the path and its permissions, or write elsewhere"
"""What to do about all other errors."""


@contextlib.contextmanager
def explained(what: str, missing: str = "") -> Iterator[None]:
    """Turn an `OSError` into a `WriteError` that names what was being written and the way out.

    Parameters
    ----------
    what
        The file or store, and the part of it, such as ``a.fits.part: HDU 1 region [1:100,1:20]``.
    missing
        The way out if it does not exist, where the format knows one.
    """
    try:
        yield
    except LazyCCDError:  # of an input, or explained already; several are an OSError too
        raise
    except OSError as error:
        known = {**WAYS_OUT, errno.ENOENT: missing or OTHERWISE}
        way_out = known.get(error.errno or 0, OTHERWISE)
        raise WriteError(f"{what} cannot be written: {error.strerror or error}; {way_out}.") from error


def flush(path: str) -> None:
    """Wait until a file is on the disk; for a folder, until the names in it are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: str) -> None:
    """Wait until all files below a folder are on the disk, since the name must not survive a power cut that they do not.

    The file system of the folder is flushed once, which is five to ten times faster than flushing file by file. Python has no
    ``syncfs``; systems other than Linux do not either, and there all file systems are flushed.
    """
    syncfs: Any = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)
    finally:
        os.close(descriptor)


def stamp_of(path: str) -> str:
    """Return what tells a file or folder from another that had its name; empty if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return ""
    # The inode alone does not tell: file systems give the number of a deleted file to the next new one.
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def checksum(pieces: Iterable[bytes]) -> int:
    """Return the CRC32C of pieces that follow each other.

    Examples
    --------
    >>> hex(checksum([b"12345", b"6789"]))
    '0xe3069283'
    """
    value = 0
    for piece in pieces:
        value = google_crc32c.extend(value, piece)
    return value
