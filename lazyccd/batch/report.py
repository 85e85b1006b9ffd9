"""What a night's plan looks like on a terminal, and in a file it is piped to."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from lazyccd.batch.associate import away
from lazyccd.batch.cameras import FACTS
from lazyccd.batch.facts import Fact, value_to_text
from lazyccd.batch.night import Choice, NightPlan, Recipe

PIPED_WIDTH = 100
_STYLES = {"COMPLETE": "green", "PARTIAL": "yellow", "REFUSED": "red", "LISTED": "dim"}
_MANY = 3
"""From this many different numbers on, the table of facts shows their range."""


def make_console() -> Console:
    """Return a console for standard output: as wide as the terminal, or 100 columns where there is none."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def print_plan(plan: NightPlan, console: Console | None = None) -> None:
    """Print what will be done with a night, and why."""
    console = console or make_console()
    numbers = {item.name: number for number, item in enumerate(plan.recipes, 1)}
    console.print(Text(f"Night {plan.folder}: {_count(plan)}", style="bold"))
    console.print(_files(plan, numbers))
    if plan.recipes:
        console.print(_facts(plan, numbers))
    if plan.groups:
        console.print(_masters(plan, numbers))
    if plan.science:
        console.print(_science(plan, numbers))
    for title, lines in _remarks(plan, numbers).items():
        if lines:
            console.print(_lines(title, lines))
    console.print(_verdict(plan))


def ranges(files: Iterable[int]) -> str:
    """Return numbers as ranges.

    Examples
    --------
    >>> ranges([1, 2, 3, 5, 7, 8])
    '1-3, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(set(files)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}-{last}" if first != last else str(first) for first, last in runs)


def _count(plan: NightPlan) -> str:
    """Return how many files of each type there are."""
    kinds: dict[str, int] = {}
    for item in plan.recipes:
        kinds[item.kind] = kinds.get(item.kind, 0) + 1
    parts = [f"{count} {kind}" for kind, count in kinds.items()]
    if plan.skipped:
        parts.append(f"{len(plan.skipped)} not usable")
    return ", ".join(parts) or "nothing"


def _table(title: str, *columns: str, rigid: tuple[str, ...] = ()) -> Table:
    """Return an empty table; only rigid columns never fold."""
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in columns:
        justify: JustifyMethod = "right" if name in {"#", "s"} else "left"
        table.add_column(name, overflow="fold", justify=justify, no_wrap=name in rigid)
    return table


def _files(plan: NightPlan, numbers: dict[str, int]) -> Table:
    """Return the table of files."""
    rigid = ("#", "type", "s", "UT", "status")
    table = _table("Files", "#", "file", "type", "s", "UT", "filter", "object", "status", rigid=rigid)
    night = ""
    for item in plan.recipes:
        facts = item.facts
        if item.night != night:
            night = item.night
            table.add_row("", Text(f"night of {night}" if night else "time unknown", style="italic"))
        table.add_row(
            str(numbers[item.name]),
            Text(item.name),
            item.kind,
            "-" if facts.exposure.value is None else f"{facts.exposure.value:.4g}",
            value_to_text("time", facts.time.value)[11:16] or "-",
            Text(facts.filter.value or "-"),
            Text(facts.object.value or "-"),
            Text(item.status, style=_STYLES[item.status]),
        )
    for name, _ in plan.skipped:
        table.add_row("-", Text(name), "-", "-", "-", "-", "-", Text("UNUSABLE", style="red"))
    return table


def _facts(plan: NightPlan, numbers: dict[str, int]) -> Table:
    """Return the table of facts: each value, its source, and the files that have it."""
    table = _table("Facts", "fact", "value", "source", "files", rigid=("fact",))
    spectra = any(item.facts.mode.value == "spectrum" for item in plan.recipes)
    for name in FACTS:
        if name in {"grating", "slit"} and not spectra:
            continue
        rows = _fact_rows(plan, numbers, name)
        for place, (value, source, files) in enumerate(rows):
            shown = "all" if len(files) == len(plan.recipes) else ranges(files)
            table.add_row(name if place == 0 else "", Text(value), Text(source), shown)
    return table


def _fact_rows(plan: NightPlan, numbers: dict[str, int], name: str) -> list[tuple[str, str, list[int]]]:
    """Return the values of one fact, their sources and files; many numbers of one source as their range."""
    found: dict[str, dict[Any, list[int]]] = {}
    for item in plan.recipes:
        fact: Fact[Any] = item.facts.get(name)
        found.setdefault(fact.source, {}).setdefault(fact.value, []).append(numbers[item.name])
    rows = []
    for source, values in found.items():
        if len(values) >= _MANY and all(isinstance(value, float) for value in values):
            cut = 16 if name == "time" else None
            text = f"{value_to_text(name, min(values))[:cut]} to {value_to_text(name, max(values))[:cut]}"
        elif name == "object" and len(values) >= _MANY:
            text = f"{len(values)} different"
        else:
            rows += [(value_to_text(name, value), source, files) for value, files in values.items()]
            continue
        rows.append((text, source, [number for files in values.values() for number in files]))
    return rows


def _masters(plan: NightPlan, numbers: dict[str, int]) -> Table:
    """Return the table of masters to make."""
    table = _table("Masters to make", "master", "files", "after", "status")
    for group in plan.groups:
        members = plan.members(group.name)
        lacking = list(dict.fromkeys(kind for item in members for kind in item.missing))
        status = "PARTIAL" if lacking else "COMPLETE"
        after = list(dict.fromkeys(_steps(item) for item in members))
        table.add_row(
            Text(group.name),
            ranges(numbers[item.name] for item in members),
            Text("; ".join(after)),
            Text(status + (f": no {', '.join(lacking)}" if lacking else ""), style=_STYLES[status]),
        )
    return table


def _steps(item: Recipe) -> str:
    """Return what is done to a member before it is combined."""
    steps = [name for name in ("overscan", "trim") if item.facts.get(name).value is not None]
    return ", ".join([*steps, *(_shown(choice) for choice in item.choices if choice)]) or "nothing"


def _shown(choice: Choice) -> str:
    """Return a master with its factor."""
    name = Path(choice.master).name if choice.is_file else choice.master
    return f"{name} x {choice.scale:.4g}" if choice.scale != 1 else name or "-"


def _science(plan: NightPlan, numbers: dict[str, int]) -> Table:
    """Return the table of science frames and their masters, equal rows joined."""
    table = _table("Science frames", "#", "bias", "dark", "flat", "status", rigid=("#",))
    rows: dict[tuple[str, ...], list[int]] = {}
    for item in plan.science:
        bias = "in the dark" if item.dark.contains_bias else _shown(item.bias)
        row = (bias, _shown(item.dark), _shown(item.flat), ", no ".join([item.status, *item.missing]))
        rows.setdefault(row, []).append(numbers[item.name])
    for (bias, dark, flat, status), files in rows.items():
        style = _STYLES[status.partition(",")[0]]
        table.add_row(ranges(files), Text(bias), Text(dark), Text(flat), Text(status, style=style))
    return table


def _remarks(plan: NightPlan, numbers: dict[str, int]) -> dict[str, dict[str, list[int]]]:
    """Return reasons and notes, each once with the files it is about."""
    titles = ("Why not complete", "Why these masters", "Why not the others", "Notes")
    complete: dict[str, list[int]] = {}
    taken: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    notes: dict[str, list[int]] = {}
    for item in plan.recipes:
        number = numbers[item.name]
        for reason in item.reasons:
            complete.setdefault(f"{item.status}: {reason}", []).append(number)
        for note in (*item.facts.notes, *item.notes):
            notes.setdefault(note, []).append(number)
        for choice in item.choices if item.is_reduced else ():
            for master, reason in choice.why_not:
                others.setdefault(f"{choice.kind} not {master}: {reason}", []).append(number)
    for text, names in why_these_masters(plan).items():
        taken[text] = [numbers[name] for name in names]
    for text in (*plan.notes, *(f"{name}: {reason}" for name, reason in plan.skipped)):
        notes.setdefault(text, [])
    return dict(zip(titles, (complete, taken, others, notes), strict=True))


def why_these_masters(plan: NightPlan) -> dict[str, list[str]]:
    """Return why the masters of the science frames were taken, each reason once with the frames it is about."""
    reasons: dict[str, list[str]] = {}
    for item in plan.science:
        for choice in item.choices:
            if choice:
                text = f"{choice.kind} {_shown(choice)}: {choice.why}{_span(plan, choice)}"
                reasons.setdefault(text, []).append(item.name)
    return reasons


def _span(plan: NightPlan, choice: Choice) -> str:
    """Return how far in time a master is from its frames."""
    days = [
        other.away
        for item in plan.science
        for other in item.choices
        if (other.master, other.kind) == (choice.master, choice.kind) and other.away is not None
    ]
    if not days:
        return ""
    first, last = away(min(days)), away(max(days))
    return f", {last}" if first == last else f", {first.removesuffix(' away')} to {last}"


def _lines(title: str, lines: dict[str, list[int]]) -> Table:
    """Return remarks with the files they are about before them."""
    table = Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    table.add_column(justify="right", max_width=16, overflow="fold")
    table.add_column(overflow="fold")
    for text, files in lines.items():
        table.add_row(ranges(files) or "-", Text(text))
    return table


def _verdict(plan: NightPlan) -> Text:
    """Return the last line: what to expect."""
    counts: dict[str, int] = {}
    for item in plan.recipes:
        if item.kind == "science":
            counts[item.status] = counts.get(item.status, 0) + 1
    parts = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
    return Text(f"\nScience frames: {parts}. Exit status would be {plan.exit_status}.", style="bold")
