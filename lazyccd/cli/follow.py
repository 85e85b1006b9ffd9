"""`follow_night`: what ``lazyccd reduce --watch`` does and says between two runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from lazyccd.cli.common import say

NOTHING_REDUCED = 1
"""Exit status before the first frame is reduced."""


def follow_night(
    folders: tuple[str, ...], out: Path, once: Callable[[Collection[str]], int], *, recursive: bool
) -> int:
    """Reduce whenever frames have arrived, until Ctrl-C, and return the exit status of the last run.

    Parameters
    ----------
    folders
        Folders of the night.
    out
        Folder of the products, whose files are no frames.
    once
        Reduces what the given files allow, and returns the exit status.
    recursive
        Whether subfolders belong to the night.
    """
    from lazyccd.batch.watch import watch
    from lazyccd.errors import FormatError

    status, is_waiting = NOTHING_REDUCED, True

    def take(files: list[str]) -> None:
        nonlocal status, is_waiting
        is_waiting = False
        try:
            status = once(set(files))
        except FormatError as error:  # none of the files is a frame, so far
            say(f"Warning: {error}", err=True)
        say(f"Watching {', '.join(folders)}: {len(files)} files taken; Ctrl-C ends.", err=True)
        is_waiting = True

    say(f"Watching {', '.join(folders)}; Ctrl-C ends.", err=True)
    try:
        watch(folders, take, recursive=recursive, leave_out=out, tell=lambda text: say(text, err=True))
    except KeyboardInterrupt:
        # in the middle of a run, it says itself how to go on
        if not is_waiting:
            raise
        say(f"Stopped watching; products in {out}. The same command goes on.", err=True)
    return status
