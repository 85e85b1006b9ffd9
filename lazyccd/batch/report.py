"""Print the plan of a night before it is reduced, and its results afterwards, on a terminal or into a pipe.

`print_plan` shows every decision with its reason: types, facts and where they come from, masters, what was not taken and why.
`print_results` shows what became of it. Both print each text once, with the exposures that it is about. An exposure has one
number, also if its file has several images (`Numbers`); a text about some of these images names them.

Nothing is decided here: what is printed is in `lazyccd.batch.night_plan` and `lazyccd.batch.run`.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import IO, Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from lazyccd.batch.associate import away
from lazyccd.batch.cameras import FACTS
from lazyccd.batch.classify import calibration_of
from lazyccd.batch.exposures import exposures, least_complete, master_files
from lazyccd.batch.metadata import Fact, value_to_text
from lazyccd.batch.night_plan import Choice, FramePlan, NightPlan, exposure_name
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.run import Run
from lazyccd.errors import printable
from lazyccd.io.names import split_hdu

PIPED_WIDTH = 100
_OPTIONAL = frozenset(
    {
        "window",
        "telescope",
        "detector",
        "gain_setting",
        "offset",
        "iso",
        "em",
        "row_order",
        "cfa",
        "set_temperature",
        "temperature",
    }
)
"""Facts that the table leaves out where no header has them: most cameras write few of them."""

_STYLES = {"COMPLETE": "green", "PARTIAL": "yellow", "REFUSED": "red", "LISTED": "dim"}
_MANY = 3
"""From this many different numbers on, the table of facts shows their range, and remarks are said once."""

_VALUES = re.compile(r"'[^']*'|(?<![A-Za-z])[-+]?\d[\d.e+-]*")
"""What differs in remarks that are alike: quoted words and numbers, but not those in keywords such as FILTER2."""

_SHOWN = 3
"""Files that are named of those that something is about."""

MOST_EXPOSURES = 500
"""Exposures, at most, whose plan is printed in full; of more, what is alike is told once: nobody reads a year line by line."""


class PlainConsole(Console):
    """A console on which text is text: names of files and values of headers cannot style it, link, or move the cursor."""

    def __init__(self, file: IO[str], width: int | None = None) -> None:
        super().__init__(file=file, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return text for printing; all that comes as a string, also into cells of tables, passes here."""
        return super().render_str(printable(text), **how)


def make_console() -> PlainConsole:
    """Return a console for standard output: as wide as the terminal, or 100 columns where there is none."""
    # A pipe has no width, and rich would fold at 80; long names of files need more.
    return PlainConsole(sys.stdout, None if sys.stdout.isatty() else PIPED_WIDTH)


def print_plan(plan: NightPlan, console: PlainConsole | None = None) -> None:
    """Print what will be done with a night, and why.

    Parameters
    ----------
    plan
        The plan of the night; nothing is computed.
    console
        Where to print; None for standard output.
    """
    console = console or make_console()
    numbers = Numbers(plan)
    console.print(f"Night {plan.folder}: {_count(plan)}", style="bold")
    console.print(_files(plan, numbers))
    if plan.frames:
        console.print(_facts(plan, numbers))
    if plan.groups:
        console.print(_masters(plan, numbers))
    if plan.science:
        console.print(_science(plan, numbers))
    for title, lines in _remarks(plan, is_long=numbers.is_long).items():
        if lines:
            console.print(_lines(title, lines, numbers))
    console.print(_verdict(plan))


def print_notes(plan: NightPlan, console: PlainConsole | None = None) -> None:
    """Print, before a night is reduced, what its headers leave in doubt, each once with the files that it is about.

    Parameters
    ----------
    plan
        The plan of the night; without notes, nothing is printed.
    console
        Where to print; None for standard output.
    """
    notes = _remarks(plan)["Notes"]
    console = console or make_console()
    if notes:
        console.print("Read with care", style="bold")
        files = {text: list(dict.fromkeys(split_hdu(name)[0] for name in names)) for text, names in notes.items()}
        _print_lines(files, console)


class Numbers:
    """The numbers of the exposures of a night, which stand for their files in tables.

    Parameters
    ----------
    plan
        The plan of the night.
    """

    def __init__(self, plan: NightPlan) -> None:
        self._places: dict[str, tuple[int, str]] = {}
        self._images: dict[int, int] = {}
        for number, frame_plans in enumerate(exposures(plan.frames).values(), 1):
            self._images[number] = len(frame_plans)
            self._places |= {item.name: (number, item.part) for item in frame_plans}
        self.is_long = len(self._images) > MOST_EXPOSURES
        """Whether there are so many that what is alike is told once."""

    def __call__(self, names: Iterable[str]) -> str:
        """Return the numbers of the exposures of some images, and which images where it is not all of them."""
        names = list(dict.fromkeys(names))
        parts: dict[int, list[str]] = {}
        for name in names:
            number, part = self._places[name]
            parts.setdefault(number, []).append(part)
        # A mosaic's images are named only where they differ; else the number of the exposure says it all.
        whole = [number for number, some in parts.items() if len(some) == self._images[number]]
        files: dict[str, list[int]] = {}
        for number in sorted(parts.keys() - set(whole)):
            for part in parts[number]:
                files.setdefault(part, []).append(number)
        most = _SHOWN if self.is_long else None
        some_of = [f"{part} of {ranges(found, most)}" for part, found in files.items()]
        return "; ".join([*([ranges(whole, most)] if whole else []), *some_of])


def some_files(names: Iterable[str]) -> str:
    """Return the name of a file, or the first names and how many more there are.

    Examples
    --------
    >>> some_files(["a"]), some_files("ab"), some_files("abcdef")
    ('a', 'a and 1 more', 'a, b, c and 3 more')
    """
    files = list(dict.fromkeys(names))
    shown = min(_SHOWN, max(1, len(files) - 1))
    first, more = ", ".join(files[:shown]), len(files) - shown
    return f"{first} and {more} more" if more > 0 else first


def ranges(files: Iterable[int], most: int | None = None) -> str:
    """Return numbers as ranges.

    Parameters
    ----------
    files
        The numbers.
    most
        Ranges that are named, at most, of many; all if None.

    Examples
    --------
    >>> ranges([1, 2, 3, 5, 7, 8])
    '1-3, 5, 7-8'
    >>> ranges([1, 2, 3, 5, 7, 8], 1)
    '1-3, ... (6 in all)'
    """
    files = set(files)
    runs: list[list[int]] = []
    for number in sorted(set(files)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    named = [f"{first}-{last}" if first != last else str(first) for first, last in runs[:most]]
    return ", ".join([*named, *([f"... ({len(files)} in all)"] if len(named) < len(runs) else [])])


def _count(plan: NightPlan) -> str:
    """Return how many exposures of each type there are."""
    kinds = Counter(
        kind
        for frame_plans in exposures(plan.frames).values()
        for kind in dict.fromkeys(item.kind for item in frame_plans)
    )
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


def _files(plan: NightPlan, numbers: Numbers) -> Table:
    """Return the table of files, a row for each exposure, or for each image where they differ."""
    if numbers.is_long:
        return _alike_files(plan, numbers)
    rigid = ("#", "type", "s", "UT", "status")
    table = _table("Files", "#", "file", "type", "s", "UT", "filter", "object", "status", rigid=rigid)
    night = ""
    for number, (file, frame_plans) in enumerate(exposures(plan.frames).items(), 1):
        if frame_plans[0].night != night:
            night = frame_plans[0].night
            table.add_row("", Text(f"night of {night}" if night else "time unknown", style="italic"))
        rows = [(item.name, *_cells(item)) for item in frame_plans]
        # A mosaic of 60 images would fill the screen with equal rows.
        if len(rows) > 1 and len({_cells(item) for item in frame_plans}) == 1:
            rows = [(f"{file}, {len(rows)} images", *_cells(frame_plans[0]))]
        for name, *cells, status in rows:
            table.add_row(str(number), name, *cells, Text(status, style=_STYLES[status]))
    for name, _ in plan.skipped:
        table.add_row("-", name, "-", "-", "-", "-", "-", Text("UNUSABLE", style="red"))
    return table


def _alike_files(plan: NightPlan, numbers: Numbers) -> Table:
    """Return the table of the files of many nights: a row for all images of a night that are alike."""
    title = "Files, those of a night that are alike in one row; --save lists each"
    table = _table(title, "#", "files", "type", "s", "UT", "filter", "object", "status", rigid=("type", "s", "status"))
    nights: dict[str, dict[tuple[str, ...], list[FramePlan]]] = {}
    for item in plan.frames:
        kind, seconds, _, *others = _cells(item)
        nights.setdefault(item.night, {}).setdefault((kind, seconds, *others), []).append(item)
    for night, rows in nights.items():
        table.add_row("", Text(f"night of {night}" if night else "time unknown", style="italic"))
        for (kind, seconds, *others, status), items in rows.items():
            files = list(exposures(items))
            clocks = dict.fromkeys(_cells(item)[2] for item in (items[0], items[-1]))
            name = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
            cells = (numbers(item.name for item in items), name, kind, seconds, "-".join(clocks), *others)
            table.add_row(*cells, Text(status, style=_STYLES[status]))
    if plan.skipped:
        names = some_files(name for name, _ in plan.skipped)
        table.add_row("-", names, "-", "-", "-", "-", "-", Text("UNUSABLE", style="red"))
    return table


def _cells(item: FramePlan) -> tuple[str, ...]:
    """Return type, exposure, time, filter, object and status as the table of files shows them."""
    facts = item.facts
    seconds = "-" if facts.exposure.value is None else f"{facts.exposure.value:.4g}"
    clock = value_to_text("time", facts.time.value)[11:16] or "-"
    return (item.kind, seconds, clock, facts.filter.value or "-", facts.object.value or "-", item.status)


def _facts(plan: NightPlan, numbers: Numbers) -> Table:
    """Return the table of facts: each value, its source, and the files that have it."""
    table = _table("Facts", "fact", "value", "source", "files", rigid=("fact",))
    spectra = any(item.facts.mode.value == "spectrum" for item in plan.frames)
    for name in FACTS:
        is_silent = name in _OPTIONAL and all(item.facts.get(name).value is None for item in plan.frames)
        if is_silent or (name in {"grating", "slit"} and not spectra):
            continue
        for place, (value, source, files) in enumerate(_fact_rows(plan, name)):
            shown = "all" if len(files) == len(plan.frames) else numbers(files)
            table.add_row(name if place == 0 else "", value, source, shown)
    return table


def _fact_rows(plan: NightPlan, name: str) -> list[tuple[str, str, list[str]]]:
    """Return the values of one fact, their sources and files; many numbers of one source as their range."""
    found: dict[str, dict[Any, list[str]]] = {}
    for item in plan.frames:
        fact: Fact[Any] = item.facts.get(name)
        found.setdefault(fact.source, {}).setdefault(fact.value, []).append(item.name)
    rows = []
    for source, values in found.items():
        # Times and temperatures differ in every frame; their range is what tells something.
        if len(values) >= _MANY and all(isinstance(value, float) for value in values):
            cut = 16 if name == "time" else None
            text = f"{value_to_text(name, min(values))[:cut]} to {value_to_text(name, max(values))[:cut]}"
        elif name == "object" and len(values) >= _MANY:
            text = f"{len(values)} different"
        else:
            rows += [(value_to_text(name, value), source, files) for value, files in values.items()]
            continue
        rows.append((text, source, [file for files in values.values() for file in files]))
    return rows


def _masters(plan: NightPlan, numbers: Numbers) -> Table:
    """Return the table of files of masters to make."""
    table = _table("Masters to make", "master", "files", "after", "status")
    for file, groups in master_files(plan.groups).items():
        members = [item for group in groups for item in plan.members(group.name)]
        lacking = list(dict.fromkeys(kind for item in members for kind in item.missing))
        status = least_complete(members).status
        after = list(dict.fromkeys(_steps(plan, item) for item in members))
        table.add_row(
            file,
            numbers(item.name for item in members),
            "; ".join(after),
            Text(status + (f": no {', '.join(lacking)}" if lacking else ""), style=_STYLES[status]),
        )
    return table


def _steps(plan: NightPlan, item: FramePlan) -> str:
    """Return what is done to a member before it is combined."""
    steps = [name for name in ("overscan", "trim") if item.facts.get(name).value is not None]
    return ", ".join([*steps, *(_shown(plan, choice) for choice in item.choices if choice)]) or "nothing"


def _shown(plan: NightPlan, choice: Choice) -> str:
    """Return a master with its factor, and its level where it is not the best."""
    name = plan.master_file(choice.master)
    scaled = f"{name} x {choice.scale:.4g}" if choice.scale != 1 else name or "-"
    return f"{scaled} (level {choice.level})" if choice.level else scaled


def _science(plan: NightPlan, numbers: Numbers) -> Table:
    """Return the table of science frames and their masters, equal rows joined."""
    table = _table("Science frames", "#", "bias", "dark", "flat", "status", rigid=("#",))
    rows: dict[tuple[str, ...], list[FramePlan]] = {}
    for item in plan.science:
        bias = "in the dark" if item.dark.contains_bias else _shown(plan, item.bias)
        row = (bias, _shown(plan, item.dark), _shown(plan, item.flat), ", no ".join([item.status, *item.missing]))
        rows.setdefault(row, []).append(item)
    for (bias, dark, flat, status), items in rows.items():
        files, style = numbers(item.name for item in items), _STYLES[items[0].status]
        table.add_row(files, bias, dark, flat, Text(status, style=style))
    return table


def _remarks(plan: NightPlan, *, is_long: bool = False) -> dict[str, dict[str, list[str]]]:
    """Return reasons and notes, each once with the images it is about."""
    titles = ("Why not complete", "Why these masters", "Why not the others", "Notes")
    complete: dict[str, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for item in plan.frames:
        for reason in item.reasons:
            complete.setdefault(f"{item.status}: {reason}", []).append(item.name)
        unfiltered = calibration_of(item.kind) == "flat" and item.facts.filter.value is None
        silent = ("filter: no keyword (FILTER, FILTER1, ...) says which",) if unfiltered else ()
        # What is doubtful and changes no pixel of this frame lowers no status, and is said nevertheless.
        idle = (
            f"{name}: {why}"
            for name, why in item.facts.doubts.items()
            if not item.depends_on(name) and not item.facts.get(name).note
        )
        for note in (*item.facts.notes, *item.notes, *silent, *idle):
            notes.setdefault(note, []).append(item.name)
    taken, others = why_these_masters(plan), why_not_these(plan)
    if is_long:
        taken, others = join_alike(taken), join_alike(others)
    for text in (*plan.notes, *(f"{name}: {reason}" for name, reason in plan.skipped)):
        notes.setdefault(text, [])
    return dict(zip(titles, (join_alike(complete), taken, others, join_alike(notes)), strict=True))


def why_not_these(plan: NightPlan, *, lacking: bool = False) -> dict[str, list[str]]:
    """Return why masters were not taken.

    Parameters
    ----------
    plan
        The plan of the night.
    lacking
        Whether only of kinds of which a frame got none.

    Returns
    -------
    dict
        For each reason, the names of the frames that it is about.
    """
    reasons: dict[str, list[str]] = {}
    # A frame that is not reduced needs no master, so there is nothing to explain.
    for item in (item for item in plan.frames if item.is_reduced):
        for choice in item.choices:
            for master, reason in choice.why_not if not lacking or choice.kind in item.lacks else ():
                is_said = lacking and any(text.startswith(f"--{choice.kind} {master} ") for text in choice.doubts)
                # Masters of other images of the file need no reason.
                if not is_said and plan.master_file(master) != plan.master_file(choice.master):
                    reasons.setdefault(f"{choice.kind} not {master}: {reason}", []).append(item.name)
    return reasons


def join_alike(lines: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return texts of which those that differ only in quoted words and numbers are said once, if they are many.

    Parameters
    ----------
    lines
        For each text, the names of the frames that it is about.

    Examples
    --------
    >>> join_alike({f"DATE-OBS = '0{day}/03/2024' is no date": [f"{day}.fits"] for day in (1, 2, 3)})
    {"DATE-OBS = '01/03/2024' is no date; and 2 more with other values": ['1.fits', '2.fits', '3.fits']}
    """
    alike: dict[str, list[str]] = {}
    for text in lines:
        alike.setdefault(_VALUES.sub("*", text), []).append(text)
    joined: dict[str, list[str]] = {}
    for texts in alike.values():
        if len(texts) < _MANY:
            joined |= {text: lines[text] for text in texts}
        else:
            names = [name for text in texts for name in lines[text]]
            joined[f"{texts[0]}; and {len(texts) - 1} more with other values"] = names
    return joined


def why_these_masters(plan: NightPlan) -> dict[str, list[str]]:
    """Return why the masters of the science frames were taken.

    Parameters
    ----------
    plan
        The plan of the night.

    Returns
    -------
    dict
        For each reason, the names of the frames that it is about. A reason names the span of times between a master and all its
        frames.
    """
    reasons: dict[str, list[str]] = {}
    taken = [(item, choice) for item in plan.science for choice in item.choices if choice]
    days: dict[tuple[str, str], list[float]] = {}
    for _, choice in taken:
        if choice.away is not None:
            days.setdefault((choice.kind, plan.master_file(choice.master)), []).append(choice.away)
    # Each frame has another distance in time; joined, the reason is said once for all frames.
    for item, choice in taken:
        span = _span(days.get((choice.kind, plan.master_file(choice.master)), []))
        # A mask has no levels: it fits or does not.
        why = choice.why if choice.kind == "bpm" or choice.level else f"level {choice.level}, {choice.why}"
        reasons.setdefault(f"{choice.kind} {_shown(plan, choice)}: {why}{span}", []).append(item.name)
    return reasons


def _span(days: list[float]) -> str:
    """Return how far in time a master is from its frames."""
    if not days:
        return ""
    first, last = away(min(days)), away(max(days))
    return f", {last}" if first == last else f", {first.removesuffix(' away')} to {last}"


def _lines(title: str, lines: dict[str, list[str]], numbers: Numbers) -> Table:
    """Return remarks with the files they are about before them."""
    table = Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    table.add_column(justify="right", max_width=16, overflow="fold")
    table.add_column(overflow="fold")
    for text, files in lines.items():
        table.add_row(numbers(files) or "-", text)
    return table


def _verdict(plan: NightPlan) -> Text:
    """Return the last line: what to expect."""
    science = exposures(item for item in plan.frames if item.kind == "science").values()
    counts = Counter(least_complete(frame_plans).status for frame_plans in science)
    parts = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
    return Text(f"\nScience frames: {parts}. Exit status would be {plan.exit_status}.", style="bold")


STYLES = {"FAILED": "red", "BLOCKED": "red", "PARTIAL": "yellow", "SKIPPED": "dim", "DONE": "green"}
"""Of each status, the worst first."""


def print_results(run: Run, console: PlainConsole) -> None:
    """Print the results of a night: what was measured, the masters, the science frames, what was not reduced.

    Parameters
    ----------
    run
        A night that was reduced.
    console
        Where to print.
    """
    if run.measurements or run.doubts:
        console.print("Measured on the pixels", style="bold")
        # What is doubtful among them is a reason of each product that it is about.
        for line in (item for item in run.measurements if item.doubt is None):
            console.print(f"  {line}")
        for doubt in run.doubts:
            console.print(f"  {doubt}")
    masters = [outcome for outcome in run.outcomes if outcome.kind != "science"]
    science = [outcome for outcome in run.outcomes if outcome.kind == "science"]
    if masters:
        console.print(_master_outcomes(masters))
    if science:
        console.print(_science_outcomes(science))
    _print_messages(run, console)
    _print_faults(run, console)
    counts = {status: sum(o.status == status for o in science) for status in STYLES}
    total = sum(outcome.seconds for outcome in run.outcomes)
    done = [f"{count} {status}" for status, count in counts.items() if count] or ["nothing to reduce"]
    unread = [f"{len(run.plan.skipped)} not usable"] if run.plan.skipped else []
    kept = [f"{len(run.kept)} of {len(run.outcomes)} products were up to date"] if run.kept else []
    summary = ", ".join([*done, *unread, *kept])
    for path in run.moved:
        console.print(f"  no longer part of the night, moved: {path}")
    console.print(f"{summary}; {total:.1f} s; products in {run.out}", style="bold")


def _master_outcomes(outcomes: list[Outcome]) -> Table:
    """Return the table of masters."""
    table = Table("master", "made as", "status", "s", title="Masters", title_justify="left")
    for outcome in outcomes:
        made = "\n".join(outcome.messages) or outcome.reason
        table.add_row(outcome.name, made, _styled(outcome.status), f"{outcome.seconds:.1f}")
    return table


def _science_outcomes(outcomes: list[Outcome]) -> Table:
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


def _print_messages(run: Run, console: PlainConsole) -> None:
    """Print why masters were taken, decisions and reasons, once each, with the frames that they are about."""
    files = {item.name: os.path.basename(exposure_name(item)) for item in run.plan.frames}
    reasons = why_these_masters(run.plan)
    lines = {text: list(dict.fromkeys(files[name] for name in names)) for text, names in reasons.items()}
    for outcome in run.outcomes:
        for text in outcome.messages if outcome.kind == "science" else ():
            lines.setdefault(text, []).append(os.path.basename(outcome.name))
    _print_lines(lines, console)


def _print_faults(run: Run, console: PlainConsole) -> None:
    """Print what failed, what is doubtful or lacking, and what was not reduced: each once, the worst first."""
    lines: dict[str, list[str]] = {}
    for status in ("FAILED", "BLOCKED", "PARTIAL"):
        for outcome in (item for item in run.outcomes if item.status == status):
            for doubt in outcome.doubts:
                lines.setdefault(f"{status}: {doubt}", []).append(os.path.basename(outcome.name))
    if lines or run.plan.skipped or not all(item.is_reduced for item in run.plan.frames):
        console.print("What is wrong, or may be", style="bold")
    _print_lines(join_alike(lines), console)
    # In what a master that is there does not fit says what to mend.
    _print_lines(why_not_these(run.plan, lacking=True), console)
    # What was not reduced is part of the result: silence would look like success.
    unused: dict[str, list[str]] = {}
    for item in (item for item in run.plan.frames if not item.is_reduced):
        unused.setdefault(f"({item.kind}): {item.reason}", []).append(item.name)
    for text, names in join_alike(unused).items():
        console.print(f"  not reduced: {some_files(names)} {text}")
    skipped: dict[str, list[str]] = {}
    for name, reason in run.plan.skipped:
        skipped.setdefault(reason, []).append(name)
    for text, names in join_alike(skipped).items():
        console.print(f"  skipped: {some_files(names)}: {text}")


def _print_lines(lines: dict[str, list[str]], console: PlainConsole) -> None:
    """Print texts, each with the frames that it is about."""
    for text, names in lines.items():
        console.print(f"  {some_files(names)}: {text}" if names else f"  {text}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _styled(status: str) -> Any:
    return Text(status, style=STYLES.get(status, ""))
