"""``lazyccd reduce``: reduce a night, from its plan to its products."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from lazyccd.cli.common import as_options, friendly_errors, say, scheduler_options, using_scheduler
from lazyccd.cli.follow import follow_night

if TYPE_CHECKING:
    from lazyccd.batch.night_plan import NightPlan
    from lazyccd.batch.run import Compress, Format
    from lazyccd.cli.workers import ClusterWatch


@click.command()
@click.argument("night", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for the products.")
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of NIGHT too.")
@click.option("--dry-run", is_flag=True, help="Print the plan and reduce nothing.")
@click.option(
    "--watch",
    is_flag=True,
    help="Reduce frames as they arrive in the folder NIGHT, until Ctrl-C; see 'At the telescope'.",
)
@click.option("--save", type=click.Path(path_type=Path), help="With --dry-run: write the plan as a table to edit.")
@click.option(
    "--recipe",
    type=click.Path(),
    default="",
    metavar="FILE.yaml",
    help="What is done to the frames; 'lazyccd recipe' prints one.",
)
@click.option(
    "--camera", default="", metavar="FILE.toml", help="Where the headers of this camera have gain, sections, types, ..."
)
@click.option(
    "--gain",
    default="",
    metavar="G|measured|stated",
    help="Electrons per adu; measured from pairs of flats, or as the headers state.",
)
@click.option("--readnoise", default="", metavar="R", help="Read noise in electrons.")
@click.option("--saturate", default="", metavar="LEVEL", help="Saturation level in adu.")
@click.option("--overscan", default="", metavar="SEC|none", help="Overscan section, such as [2049:2080,1:4096].")
@click.option("--trim", default="", metavar="SEC|none", help="Section to keep.")
@click.option("--bias", multiple=True, metavar="FILE", help="Existing master bias.")
@click.option("--dark", multiple=True, metavar="FILE", help="Existing master dark.")
@click.option("--flat", multiple=True, metavar="FILE", help="Existing master flat.")
@click.option("--bpm", default="", metavar="FILE", help="Bad pixel mask, in which bad pixels are not 0.")
@click.option(
    "--calib", multiple=True, metavar="DIR", help="Folder of existing masters, such as those of another night."
)
@click.option(
    "--max-level",
    type=click.IntRange(min=0),
    metavar="N",
    help="Use no master that fits worse than level N; 0 takes only those of the same settings and 30 days.",
)
@click.option(
    "--cosmic-rays",
    default="",
    metavar="lacosmic|flag|fill|none",
    help="Replace cosmic rays where the result passes its checks, only flag them, replace them whatever the checks say, or "
    "leave them.  [default: lacosmic for images, none for spectra]",
)
@click.option(
    "--allow-missing", default="", metavar="bias,dark,...", help="Calibrations whose absence still gives exit status 0."
)
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    help="Fail the exposure of a damaged image, or skip the image. Skipping decompresses all tiles first to find damage.  "
    "[default: raise, or as the recipe says]",
)
@click.option("--veto", multiple=True, metavar="FILE", help="Leave a frame out; OUT/veto.txt remembers it.")
@click.option(
    "--only-affected-by",
    multiple=True,
    metavar="FILE",
    help="Make only what is made of this frame, such as one that was vetoed.",
)
@click.option("--max-failures", type=click.IntRange(min=1), metavar="N", help="Stop after N products failed.")
@click.option(
    "--retries", type=click.IntRange(min=0), default=0, metavar="N", help="Try a product that failed N times again."
)
@click.option("--force", is_flag=True, help="Reduce frames that are already processed as if they were raw.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["fits", "zarr"]),
    help="Of products.  [default: fits, or as the recipe says]",
)
@click.option(
    "--compress",
    type=click.Choice(["RICE_1", "GZIP_2", "HCOMPRESS_1", "none"]),
    help="Compress FITS products without loss.  [default: none, or as the recipe says]",
)
@click.option(
    "--chunks",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compute products in chunks of N x N pixels, which changes no pixel.  [default: the largest that fit into memory]",
)
@click.option("--overwrite", is_flag=True, help="Replace products that exist.")
@click.option("--verify", is_flag=True, help="When resuming, check finished regions by checksum rather than by size.")
@click.option(
    "--break-lock", is_flag=True, help="Write although a process on another machine may still be writing the same."
)
@scheduler_options
def reduce(
    night: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    watch: bool,
    save: Path | None,
    allow_missing: str,
    format_: Format | None,
    compress: Compress | None,
    chunks: int | None,
    overwrite: bool,
    verify: bool,
    break_lock: bool,
    only_affected_by: tuple[str, ...],
    max_failures: int | None,
    retries: int,
    scheduler: str,
    memory_limit: str | None,
    **options: Any,
) -> None:
    """Reduce a night of raw frames.

    NIGHT is a folder, files, globs, @lists, or a table that --dry-run --save wrote. Each file is classified by its header,
    matched with its calibrations, and reduced to OUT/<name>_red.fits. Masters go to OUT/masters, pictures to
    OUT/pictures, and OUT/report.html shows all of it.

    A file of several images stays one file. Amplifiers of one detector are assembled by CCDSEC or DETSEC. If one image fails,
    its exposure fails; with --on-error skip the exposure is reduced without its damaged images.

    Run the same command again to go on with a night that was interrupted, had failures, or got more frames: only what is new,
    failed or affected is made.

    At the telescope: with --watch the command waits for frames. One is taken when it has been the same for 3 seconds and is as
    long as its header says. Calibrations that arrive later make the affected products again. Ctrl-C ends it.

    Exit status: 0 if every product is complete, 3 if a product lacks something or may be wrong, 1 if a frame fails, a file cannot
    be read, or no frame is recognised, 2 if the command is wrong.
    """
    from lazyccd.batch.options import Options
    from lazyccd.batch.report import print_notes
    from lazyccd.batch.run import format_of, plan_night
    from lazyccd.batch.veto import with_remembered

    with friendly_errors():
        missing = tuple(word for word in allow_missing.replace(",", " ").split() if word)
        asked = Options(allow_missing=missing, **options)
        begun: list[NightPlan] = []
        limits: dict[str, Any] = {"only_affected_by": only_affected_by, "max_failures": max_failures}
        limits |= {"retries": retries, "chunks": chunks}

        def planned(only: Collection[str] | None = None) -> NightPlan:
            return plan_night(night, with_remembered(asked, out), only=only, compress=compress)

        def once(only: Collection[str] | None = None) -> int:
            plan = planned(only)
            print_notes(plan)
            # what this command has made itself is gone on with
            how = {"overwrite": overwrite and not begun, "verify": verify, "break_lock": break_lock}
            begun.append(plan)
            return _run(plan, cast("Path", out), format_of(plan, format_, compress), **how, **limits)

        if watch and dry_run:
            raise click.UsageError("--watch reduces, and --dry-run reduces nothing; pass one of them.")
        if dry_run:
            plan = planned()
            format_of(plan, format_, compress)  # what the reduction would refuse
            with using_scheduler(scheduler, memory_limit):
                sys.exit(_tell(plan, chunks, save, overwrite=overwrite))
        if save is not None:
            raise click.UsageError("--save needs --dry-run.")
        if out is None:
            raise click.UsageError("name a folder for the products with -o OUT, or pass --dry-run.")
        with using_scheduler(scheduler, memory_limit) as watched:
            if watched is not None:
                limits["go_on"] = watched
            sys.exit(follow_night(night, out, once, recursive=asked.recursive) if watch else once())


def _tell(plan: NightPlan, chunks: int | None, save: Path | None, *, overwrite: bool) -> int:
    """Print what would be made and what it costs, save it as a table if that is asked for, return the exit status."""
    from lazyccd.batch.expected import expected
    from lazyccd.batch.report import print_plan
    from lazyccd.batch.table import save_table

    print_plan(plan)
    say(expected(plan, chunks) or "")
    if save is not None:
        save_table(plan, save, overwrite=overwrite)
        say(f"The plan is in {save}. Edit it and run: lazyccd reduce {save} -o OUT")
    return plan.exit_status


def _run(plan: NightPlan, out: Path, format_: Format, **how: Any) -> int:
    """Reduce a night with a progress bar, print the table, return the exit status."""
    from lazyccd.batch.html_report import write_report
    from lazyccd.batch.report import PIPED_WIDTH, PlainConsole, make_console, print_results
    from lazyccd.batch.run import Run
    from lazyccd.batch.run_log import LOG
    from lazyccd.cli.progress import progress_of
    from lazyccd.picture import draw_product

    console = make_console()
    _compile_first(plan, how.get("go_on"))
    with progress_of(plan, console) as progress:
        run = Run(
            plan,
            out,
            format_,
            **how,
            words=as_options,
            draw=draw_product,
            report=progress.begin,
            settled=progress.settle,
        )
        try:
            run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{progress} settled") from None
    print_results(run, console)
    with (out / LOG).open("a", encoding="utf-8") as log:
        print_results(run, PlainConsole(log, PIPED_WIDTH))
    console.print(f"Report: {write_report(out)}")
    return run.exit_status


def _compile_first(plan: NightPlan, watch: ClusterWatch | None) -> None:
    """Compile the kernels of a night here and on the workers, before its clock starts."""
    from lazyccd.cli.warm_up import dtypes_of, warm_up, warm_up_workers

    dtypes = dtypes_of(plan)
    seconds = warm_up(dtypes)
    if seconds is not None:
        say(f"Kernels were compiled, in {seconds:.0f} s.", err=True)
    if watch is not None and dtypes:
        warm_up_workers(watch.client, dtypes, lambda text: say(text, err=True))
