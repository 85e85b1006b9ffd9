"""Keep files open for reading, but never more than the process may have.

A stack reads planes of every frame in every task, so that threads times frames times planes would be open at once, and
most systems allow 1024 open files, some 256. All readers of one state of a file share one descriptor here. Beyond half
of what ``ulimit -n`` allows, the files that were read longest ago are closed, and opened anew when they are read again.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from lazyccd.errors import FormatError

_MOST = 512
"""More open files than this gain nothing: opening one costs microseconds."""


NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
"""Flag with which opening a pipe returns at once; it changes nothing for files."""


def allowed_files() -> int:
    """Return how many files the process may have open (``ulimit -n``)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2 * _MOST if soft == resource.RLIM_INFINITY else soft


class HeldFile:
    """A file that readers hold; between two reads it may be closed."""

    def __init__(self, key: Hashable, reopen: Callable[[], int]) -> None:
        """Describe a file that is not open yet; ``reopen`` opens it and checks that it is the same."""
        self.key = key
        self.reopen = reopen
        self.descriptor = -1
        self.holders = 0
        self.pins = 0


class DescriptorPool:
    """The descriptors of a process that are open for reading; threads share them, since `os.pread` has no position."""

    def __init__(self) -> None:
        self._held: dict[Hashable, HeldFile] = {}
        self._open: OrderedDict[Hashable, HeldFile] = OrderedDict()
        self._guard = threading.Lock()

    def hold(self, key: Hashable, descriptor: int, reopen: Callable[[], int]) -> HeldFile:
        """Take over a descriptor, and return the file that all holders of the key share; each calls `release` once."""
        with self._guard:
            held = self._held.setdefault(key, HeldFile(key, reopen))
            held.holders += 1
            self._adopt(held, descriptor)
        return held

    def release(self, held: HeldFile) -> None:
        """Close the file if nobody else holds it."""
        with self._guard:
            held.holders -= 1
            if held.holders == 0:
                del self._held[held.key]
                if not held.pins:
                    self._close(held)

    @contextmanager
    def using(self, held: HeldFile) -> Iterator[int]:
        """Return the descriptor of a held file, which stays open inside the context."""
        with self._guard:
            is_open = held.descriptor >= 0
            if is_open:
                held.pins += 1
                self._open.move_to_end(held.key)
        if not is_open:
            # Outside of the lock: opening a file of a slow disk must not stop the readers of all others.
            descriptor = held.reopen()
            with self._guard:
                held.pins += 1
                self._adopt(held, descriptor)
        try:
            yield held.descriptor
        finally:
            with self._guard:
                held.pins -= 1
                if not held.pins and not held.holders:
                    self._close(held)

    def close_idle(self) -> int:
        """Close all files that nobody reads at this moment; return how many."""
        with self._guard:
            return self._shrink(0)

    def _adopt(self, held: HeldFile, descriptor: int) -> None:
        """Give a file an open descriptor, or close it where the file has one already."""
        if held.descriptor >= 0:
            os.close(descriptor)
        else:
            held.descriptor = descriptor
            self._open[held.key] = held
        self._open.move_to_end(held.key)
        # The other half is for what is written, for shards, sockets and whatever else the process has open.
        self._shrink(max(1, min(_MOST, allowed_files() // 2)))

    def _shrink(self, most: int) -> int:
        """Close what was read longest ago until so many are open; what is being read stays."""
        surplus = len(self._open) - most
        idle = [held for held in self._open.values() if not held.pins][: max(surplus, 0)] if surplus > 0 else []
        for held in idle:
            self._close(held)
        return len(idle)

    def _close(self, held: HeldFile) -> None:
        """Close the descriptor of a file."""
        if held.descriptor >= 0:
            os.close(held.descriptor)
            held.descriptor = -1
            del self._open[held.key]


pool = DescriptorPool()
"""The descriptors of this process."""


def open_for_reading(path: str) -> int:
    """Return a new descriptor of a file; where no more may be open, files that nobody reads at this moment are closed.

    Raises
    ------
    OSError
        Raised if the file cannot be opened, or is a pipe, a device or a socket.
    FormatError
        Raised if the process has as many files open as it may, none of them for reading here.
    """
    # a pipe would be waited for until somebody writes to it
    descriptor = with_descriptors(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | NO_WAIT), path)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is a pipe, a device or a socket and not a file", path)


def with_descriptors(make: Callable[[], int], what: str) -> int:
    """Return what ``make`` opens; close idle files and try again where no more may be open."""
    while True:
        try:
            return make()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if not pool.close_idle():
                raise FormatError(
                    f"{what} cannot be opened: the process may have {allowed_files()} files open and has; close some, or "
                    "raise the limit, for example by ulimit -n 4096 before Python starts."
                ) from error
