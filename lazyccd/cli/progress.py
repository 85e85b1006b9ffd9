"""The progress of a night in the terminal: products and bytes, failures, and the time that is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from lazyccd.batch.record import products_of
from lazyccd.errors import printable
from lazyccd.io.names import is_url, parse_name

if TYPE_CHECKING:
    from rich.console import Console

    from lazyccd.batch.night_plan import NightPlan
    from lazyccd.batch.outcome import Outcome

NAME = 20
"""Characters of the name of what is worked on."""


class NightProgress:
    """What is known of the progress of a night.

    Parameters
    ----------
    plan
        What is made.
    bar
        Where it is shown.
    """

    def __init__(self, plan: NightPlan, bar: Progress) -> None:
        self._plan, self._bar = plan, bar
        self._bytes = {name: _raw_bytes(plan, name, kind) for name, kind in products_of(plan)}
        self._task = bar.add_task("starting", total=sum(self._bytes.values()), products="")
        self.settled, self.failed = 0, 0
        self._show()

    def begin(self, what: str) -> None:
        """Show what is being worked on."""
        self._bar.update(self._task, description=escape(printable(what[-NAME:])))

    def settle(self, outcome: Outcome) -> None:
        """Count a product."""
        self.settled += 1
        self.failed += outcome.status in {"FAILED", "BLOCKED"}
        self._bar.advance(self._task, self._bytes.get(outcome.name, 0))
        self._show()

    def _show(self) -> None:
        failed = f", [red]{self.failed} failed[/]" if self.failed else ""
        self._bar.update(self._task, products=f"{self.settled} of {len(self._bytes)}{failed}")

    def __str__(self) -> str:
        """Return how many products are there."""
        return f"{self.settled} of {len(self._bytes)} products"


@contextmanager
def progress_of(plan: NightPlan, console: Console) -> Iterator[NightProgress]:
    """Show the progress of a night inside the block; nothing where the output is no terminal."""
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(16),
        TextColumn("{task.fields[products]}"),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield NightProgress(plan, bar)


def _raw_bytes(plan: NightPlan, name: str, kind: str) -> int:
    """Return the bytes of the files that a product is made of; a file of several images counts once."""
    paths = {parse_name(item.source).path for item in plan.members_of(name, kind)}
    size = 0
    for path in paths:
        # Of what cannot be looked at the run itself tells.
        with contextlib.suppress(OSError):
            size += 0 if is_url(path) else os.path.getsize(path)
    return size
