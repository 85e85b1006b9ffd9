"""The table at the end of a reduced night."""

from __future__ import annotations

import math
import os
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lazyccd.batch.exposures import file_of
from lazyccd.batch.report import why_these_masters
from lazyccd.batch.run import Outcome, Run

STYLES = {"COMPLETE": "green", "PARTIAL": "yellow", "FAILED": "red"}


def print_results(run: Run, console: Console) -> None:
    """Print what was measured, the masters, the science frames, what was left, and where everything is."""
    if run.warnings:
        console.print(Text("Measured on the pixels", style="bold"))
        for line in run.warnings:
            console.print(f"  {line}", markup=False)
    masters = [outcome for outcome in run.outcomes if outcome.kind != "science"]
    science = [outcome for outcome in run.outcomes if outcome.kind == "science"]
    if masters:
        console.print(_masters(masters))
    if science:
        console.print(_science(science))
    _print_words(run, console)
    left = [item for item in run.plan.recipes if not item.is_reduced]
    for item in left:
        console.print(f"  not reduced: {item.name} ({item.kind}): {item.reason}", markup=False)
    for name, reason in run.plan.skipped:
        console.print(f"  skipped: {name}: {reason}", markup=False)
    counts = {status: sum(o.status == status for o in science) for status in STYLES}
    total = sum(outcome.seconds for outcome in run.outcomes)
    done = [f"{count} {status}" for status, count in counts.items() if count] or ["nothing to reduce"]
    unread = [f"{len(run.plan.skipped)} not usable"] if run.plan.skipped else []
    summary = ", ".join([*done, *unread])
    console.print(Text(f"{summary}; {total:.1f} s; products in {run.out}", style="bold"))


def _masters(outcomes: list[Outcome]) -> Table:
    """Return the table of masters."""
    table = Table("master", "made as", "status", "s", title="Masters", title_justify="left")
    for outcome in outcomes:
        made = "\n".join(outcome.words) or outcome.reason
        table.add_row(outcome.name, made, _styled(outcome.status), f"{outcome.seconds:.1f}")
    return table


def _science(outcomes: list[Outcome]) -> Table:
    """Return the table of science frames."""
    columns = ("frame", "masters used", "status", "noise before", "after", "s")
    units = " or ".join(dict.fromkeys(outcome.unit for outcome in outcomes if outcome.unit))
    title = f"Science frames (noise of a pixel in {units})" if units else "Science frames"
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            "\n".join(outcome.used) or "none",
            _styled(outcome.status),
            _number(outcome.noise_before),
            _number(outcome.noise_after),
            f"{outcome.seconds:.1f}",
        )
    return table


def _print_words(run: Run, console: Console) -> None:
    """Print why masters were taken, decisions and reasons, once each, with the frames that they are about."""
    files = {item.name: os.path.basename(file_of(item)) for item in run.plan.recipes}
    reasons = why_these_masters(run.plan)
    lines = {text: list(dict.fromkeys(files[name] for name in names)) for text, names in reasons.items()}
    for outcome in run.outcomes:
        words = outcome.words if outcome.kind == "science" else ()
        for text in (*words, *((outcome.reason,) if outcome.reason else ())):
            lines.setdefault(text, []).append(os.path.basename(outcome.name))
    for text, names in lines.items():
        who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        console.print(f"  {who}: {text}", markup=False)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _styled(status: str) -> Any:
    return Text(status, style=STYLES.get(status, ""))
