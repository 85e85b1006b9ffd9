"""The command line: ``lazyccd COMMAND``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lazyccd.cli.combine import combine
from lazyccd.cli.common import friendly_errors, scheduler_options, using_scheduler
from lazyccd.cli.info import info
from lazyccd.cli.reduce import _plan, _run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="lazyccd")
def main() -> None:
    """Reduce CCD images of any size, lazily and chunk by chunk."""


@main.command()
@click.argument("night", nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for the products.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--save", type=click.Path(path_type=Path), help="With --dry-run: write the plan as a table that can be edited."
)
@click.option("--camera", default="", metavar="FILE.toml", help="Table that says where this camera keeps its facts.")
@click.option("--gain", default="", metavar="G|measured", help="Electrons per adu, or what pairs of flats give.")
@click.option("--readnoise", default="", metavar="R", help="Read noise in electrons.")
@click.option("--saturate", default="", metavar="LEVEL", help="Saturation level in adu.")
@click.option("--overscan", default="", metavar="SEC|none", help="Overscan section, such as [2049:2080,1:4096].")
@click.option("--trim", default="", metavar="SEC|none", help="Section to keep.")
@click.option("--bias", multiple=True, metavar="FILE", help="Existing master bias.")
@click.option("--dark", multiple=True, metavar="FILE", help="Existing master dark.")
@click.option("--flat", multiple=True, metavar="FILE", help="Existing master flat.")
@click.option("--bpm", default="", metavar="FILE", help="Bad pixel mask: not 0 is bad.")
@click.option("--calib", default="", metavar="DIR", help="Folder of existing masters.")
@click.option(
    "--cosmic-rays",
    default="",
    metavar="lacosmic|none",
    help="How cosmic rays are removed.  [default: lacosmic for images, none for spectra]",
)
@click.option("--allow-missing", default="", metavar="bias,dark,...", help="What may be missing without exit status 3.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="A damaged image fails its exposure, or is skipped; all compressed tiles are decompressed first to find it.",
)
@click.option("--force", is_flag=True, help="Reduce frames that were processed already as if they were raw.")
@click.option("--format", "format_", type=click.Choice(["fits", "zarr"]), default="fits", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace products that exist.")
@click.option("--verify", is_flag=True, help="When going on after an interruption: compare checksums, not only sizes.")
@click.option(
    "--break-lock", is_flag=True, help="Write although a process on another machine may still be writing the same."
)
@scheduler_options
def reduce(
    night: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    save: Path | None,
    allow_missing: str,
    format_: Any,
    overwrite: bool,
    verify: bool,
    break_lock: bool,
    scheduler: str,
    memory_limit: str | None,
    **options: Any,
) -> None:
    """Reduce a night: NIGHT is a folder, files, globs, @lists, or a table that --dry-run --save wrote.

    Files are classified by their headers, matched with the calibrations that belong to them, and reduced to OUT/<name>_red.fits;
    masters go to OUT/masters, pictures to OUT/pictures. A file of several images stays one file, in which amplifiers of one
    detector are put together by CCDSEC or DETSEC; it fails as a whole if one of its images does, or with --on-error skip is
    reduced without those that are damaged. The same command again goes on where one was interrupted.
    Exit status: 0 everything complete, 3 something was missing, 1 a frame failed or a file could not be read, 2 the call
    cannot be carried out.
    """
    from lazyccd.batch.night_plan import Options
    from lazyccd.batch.report import print_plan
    from lazyccd.batch.table import save_table

    with friendly_errors():
        missing = tuple(word for word in allow_missing.replace(",", " ").split() if word)
        plan = _plan(night, Options(allow_missing=missing, **options))
        if dry_run:
            print_plan(plan)
            if save is not None:
                save_table(plan, save, overwrite=overwrite)
                click.echo(f"The plan is in {save}; edit it and run: lazyccd reduce {save} -o OUT")
            sys.exit(plan.exit_status)
        if save is not None:
            raise click.UsageError("--save needs --dry-run.")
        if out is None:
            raise click.UsageError("give the folder for the products with -o OUT, or --dry-run.")
        with using_scheduler(scheduler, memory_limit):
            sys.exit(_run(plan, out, format_, overwrite=overwrite, verify=verify, break_lock=break_lock))


@main.command()
@click.argument("file")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Picture to write; FILE.png in this folder if not given."
)
@click.option("--stretch", type=click.Choice(["asinh", "linear", "log", "sqrt"]), default="asinh", show_default=True)
@click.option("--interval", type=click.Choice(["zscale", "minmax", "percentile"]), default="zscale", show_default=True)
@click.option("--planes/--no-planes", default=True, help="Draw mask planes in colour.")
def show(file: str, out: Path | None, stretch: str, interval: str, planes: bool) -> None:
    """Draw FILE (such as a.fits, a.fits[SCI,2], a.zarr) into a PNG picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from lazyccd.batch.make_masters import product_stem
    from lazyccd.plot import save_picture

    with friendly_errors():
        target = out if out is not None else Path(f"{product_stem(file)}.png")
        save_picture(file, target, stretch, interval, planes)
        click.echo(target)


@main.command()
@click.argument("folder", default="lazyccd_demo", type=click.Path(path_type=Path))
@scheduler_options
def demo(folder: Path, scheduler: str, memory_limit: str | None) -> None:
    """Simulate a small night of a camera in FOLDER and reduce it, as `lazyccd reduce` would."""
    from lazyccd.demo import run_demo

    with friendly_errors(), using_scheduler(scheduler, memory_limit):
        sys.exit(run_demo(folder))


main.add_command(combine)
main.add_command(info)
