"""``lazyccd reduce``: a night from its plan to its products."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def _plan(night: tuple[str, ...], options: Any) -> Any:
    """Return the plan of a night, from files or from a table."""
    from lazyccd.batch.collect import collect
    from lazyccd.batch.make_plan import build_plan
    from lazyccd.batch.table import load_table
    from lazyccd.errors import FormatError

    if len(night) == 1 and night[0].endswith(".ecsv"):
        return load_table(night[0], options)
    collection = collect(night, options.on_error)
    if not collection.frames:
        reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in collection.skipped)
        raise FormatError(f"none of {len(collection.skipped)} files can be used: {reasons}.")
    return build_plan(collection, options)


def _run(plan: Any, out: Path, format_: Any, **how: Any) -> int:
    """Reduce a night with a progress bar, print the table, return the exit status."""
    import matplotlib as mpl
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lazyccd.batch.exposures import exposures, master_files
    from lazyccd.batch.report import make_console, print_results
    from lazyccd.batch.run import Run
    from lazyccd.plot import save_picture

    mpl.use("Agg")
    console = make_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    total = len(plan.pairs) + len(master_files(plan.groups)) + len(exposures(plan.science))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=total)
        count = iter(range(total + 1))
        run = Run(
            plan,
            out,
            format_,
            **how,
            draw=save_picture,
            report=lambda what: progress.update(bar, description=what[-40:], completed=next(count)),
        )
        run()
    print_results(run, console)
    return run.exit_status
