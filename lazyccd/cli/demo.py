"""``lazyccd demo``: simulate a small night and reduce it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lazyccd.cli.common import friendly_errors, scheduler_options, using_scheduler


@click.command()
@click.argument("folder", default="lazyccd_demo", type=click.Path(path_type=Path))
@scheduler_options
def demo(folder: Path, scheduler: str, memory_limit: str | None) -> None:
    """Simulate a small night and reduce it.

    The night and its products are left in FOLDER, lazyccd_demo by default. The reduction is that of 'lazyccd reduce'.
    """
    from lazyccd.demo import run_demo

    with friendly_errors(), using_scheduler(scheduler, memory_limit):
        sys.exit(run_demo(folder))
