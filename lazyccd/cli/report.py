"""``lazyccd report``: write the report of a night anew."""

from __future__ import annotations

from pathlib import Path

import click

from lazyccd.cli.common import friendly_errors, say


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def report(out: Path) -> None:
    """Write OUT/report.html anew, from OUT/run.json.

    OUT is the folder of the products of "lazyccd reduce", which writes the report at its end. The report is one file that can be
    copied, mailed and printed.
    """
    from lazyccd.batch.html_report import write_report

    with friendly_errors():
        say(write_report(out))
