"""The log of the runs into a folder, ``OUT/log.txt``: what each said, with times in UTC. Later runs add to it."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from lazyccd.batch.outcome import Outcome
from lazyccd.errors import printable
from lazyccd.io.resumable.disk import explained

LOG = "log.txt"
"""Name of the file."""


class RunLog(logging.Handler):
    """Writes lines with times, those of the package's logger too; each is on disk before the next thing happens.

    Parameters
    ----------
    out
        Folder of the products, which exists.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        with explained(str(out / LOG)):
            self._file: IO[str] = (out / LOG).open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> RunLog:
        """Listen to the logger."""
        logging.getLogger("lazyccd").addHandler(self)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Note what stopped the run, if anything did, and close the file."""
        if error is not None:
            self.say(f"stopped by {type(error).__name__}: {error}".rstrip(": "))
        logging.getLogger("lazyccd").removeHandler(self)
        with contextlib.suppress(OSError):
            self._file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write what was logged."""
        self.say(record.getMessage())

    def say(self, text: str) -> None:
        """Write a line, if the disk takes it: a run does not end for the want of its log."""
        with contextlib.suppress(OSError):
            self._file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {printable(text)}\n")

    def settle(self, outcome: Outcome, *, is_new: bool) -> None:
        """Write what became of a product, and what was decided on the way."""
        how = f"{outcome.seconds:.1f} s" if is_new else "made before"
        self.say(": ".join(filter(None, (f"{outcome.status} {outcome.name} ({how})", outcome.reason))))
        for text in outcome.messages if is_new else ():
            self.say(f"  {outcome.name}: {text}")
