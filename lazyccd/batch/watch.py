"""Follow the folders of a night while it is being taken: which files are complete, and when there is something to reduce.

A camera writes a frame for seconds, and a copy over a network for minutes. A file is taken once it has stayed the same for a few
seconds and is as long as its headers say; a compressed file must decode to its end. How long a file stays the same is measured
on the clock of this process: that of the camera may be wrong or jump, so times of files are compared and never subtracted.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from lazyccd.errors import LazyCCDError, ParameterError
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import fits_below, is_fits_name

QUIET = 3.0
"""Seconds for which a file must stay the same; some file systems note times in steps of two."""

INTERVAL = 1.0
"""Seconds between two looks at files that may still grow."""

REMOTE = re.compile(r"nfs|cifs|smb|9p|afs|fuse|ceph|lustre|gpfs|beegfs|vboxsf|virtiofs")
"""File systems on which another machine may write, which the kernel does not report."""


class State(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    mtime: int
    inode: int


class Arrivals:
    """The FITS files of some folders, and which of them are complete.

    Parameters
    ----------
    folders
        Folders to look at.
    recursive
        Whether to look at their subfolders.
    quiet
        Seconds for which a file must stay the same.
    leave_out
        A folder whose files do not count: that of the products.
    """

    def __init__(
        self, folders: Iterable[str], *, recursive: bool = False, quiet: float = QUIET, leave_out: Path | None = None
    ) -> None:
        self._folders = tuple(os.path.abspath(folder) for folder in folders)
        self._recursive = recursive
        self._quiet = quiet
        self._leave_out = None if leave_out is None else os.path.abspath(leave_out)
        self._since: dict[str, tuple[State, float]] = {}
        self._judged: dict[str, tuple[State, str]] = {}
        self.settling = True
        """Whether a file may still grow, so that another look is worth while."""

    def look(self) -> None:
        """Look at the files, and read the headers of those that have stayed the same for long enough."""
        now = time.monotonic()
        states = dict(self._states())
        before = self._since
        self._since = {
            path: before[path] if path in before and before[path][0] == state else (state, now)
            for path, state in states.items()
        }
        self._judged = {path: judged for path, judged in self._judged.items() if judged[0] == states.get(path)}
        self.settling = False
        for path, (state, since) in self._since.items():
            if path in self._judged:
                continue
            if now - since < self._quiet:
                self.settling = True
            else:
                self._judged[path] = state, what_is_missing(path)

    @property
    def complete(self) -> dict[str, State]:
        """The files that are complete, by path."""
        return {path: state for path, (state, missing) in sorted(self._judged.items()) if not missing}

    @property
    def incomplete(self) -> dict[str, str]:
        """The files that stay the same and are not complete, and why."""
        return {path: missing for path, (_, missing) in sorted(self._judged.items()) if missing}

    def _states(self) -> Iterator[tuple[str, State]]:
        """Yield the files that are there now."""
        for folder in self._folders:
            for path, names in fits_below(folder):
                if path != folder and not self._recursive:
                    break
                if self._leave_out is None or not Path(path).is_relative_to(self._leave_out):
                    yield from self._states_of(path, names)

    @staticmethod
    def _states_of(folder: str, names: list[str]) -> Iterator[tuple[str, State]]:
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.stat(path)
            except OSError:  # moved away since the folder was listed
                continue
            yield path, State(found.st_size, found.st_mtime_ns, found.st_ino)


def what_is_missing(path: str) -> str:
    """Return why a file is not complete; empty words if it is as long as its headers say and decodes to its end."""
    try:
        file = scan_fits(path)
    except (LazyCCDError, OSError) as error:
        return str(error)
    # a file may have grown up to the end of an extension; where the header says how many there will be, it is believed
    announced = re.search(r"^NEXTEND = *(\d+)", file.hdus[0].header, re.MULTILINE)
    if announced and int(announced[1]) > len(file.hdus) - 1:
        return f"{path} has {len(file.hdus) - 1} extensions and its header announces NEXTEND = {announced[1]}."
    return ""


def watch(
    folders: Iterable[str],
    take: Callable[[list[str]], None],
    *,
    recursive: bool = False,
    leave_out: Path | None = None,
    quiet: float = QUIET,
    interval: float = INTERVAL,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Call a function with all complete files whenever there are new ones, until Ctrl-C or ``stop``.

    Parameters
    ----------
    folders
        Folders of the night.
    take
        Is given the paths of all files that are complete, those of earlier calls too.
    recursive
        Whether to look at subfolders.
    leave_out
        A folder whose files do not count: that of the products.
    quiet
        Seconds for which a file must stay the same.
    interval
        Seconds between two looks at files that may still grow.
    stop
        Ends the call if it is set.
    tell
        Is told, once for each state of a file, why it is not taken.

    Raises
    ------
    ParameterError
        Raised if a folder is not there.
    KeyboardInterrupt
        Raised by Ctrl-C, also while ``take`` runs.
    """
    folders = tuple(folders)
    for folder in folders:
        if not os.path.isdir(folder):
            raise ParameterError(f"{folder} is no folder, and only folders can be watched.")
    arrivals = Arrivals(folders, recursive=recursive, quiet=quiet, leave_out=leave_out)
    taken: dict[str, State] = {}
    told: dict[str, str] = {}
    for changed in _changes(folders, recursive=recursive, interval=interval, stop=stop):
        if not changed and not arrivals.settling:
            continue
        arrivals.look()
        for path, missing in arrivals.incomplete.items():
            if told.get(path) != missing:
                tell(f"not taken yet: {missing}")
        told = arrivals.incomplete
        complete = arrivals.complete
        # a file that is gone is no reason to reduce again
        if complete.items() - taken.items():
            taken = complete
            take(list(complete))


def _changes(
    folders: tuple[str, ...], *, recursive: bool, interval: float, stop: threading.Event | None
) -> Iterator[bool]:
    """Yield True when FITS files have changed, and False after each interval without a change."""
    from watchfiles import watch as watch_files

    milliseconds = max(1, round(interval * 1000))
    for changes in watch_files(
        *folders,
        watch_filter=lambda _change, path: is_fits_name(os.path.basename(path)),
        # changes are waited for, not gathered: `Arrivals` judges when a file is at rest
        debounce=milliseconds,
        step=min(50, milliseconds),
        rust_timeout=milliseconds,
        yield_on_timeout=True,
        stop_event=stop,
        recursive=recursive,
        force_polling=any(map(needs_polling, folders)) or None,
        poll_delay_ms=milliseconds,
    ):
        yield bool(changes)


def needs_polling(folder: str) -> bool:
    """Return whether a folder must be looked at, because its file system does not report what other machines write."""
    path = Path(folder).resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    here = next((mounts[place] for place in (path, *path.parents) if place in mounts), "")
    return bool(REMOTE.search(here))
