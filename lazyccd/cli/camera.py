"""``lazyccd camera``: write a camera table from a night."""

from __future__ import annotations

from pathlib import Path

import click

from lazyccd.cli.common import friendly_errors, say


@click.command()
@click.argument("night", nargs=-1, required=True)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="TOML file to write.")
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of NIGHT too.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def camera(night: tuple[str, ...], out: Path, recursive: bool, overwrite: bool) -> None:
    """Write a table of the camera of a night, with what was found for each fact and what is doubtful.

    NIGHT is a folder, files, globs or @lists. The table changes nothing until it is edited: what was guessed stands in comments,
    words for types that nobody knows stand in [types]. Use it by 'lazyccd reduce NIGHT --camera OUT'.
    """
    from lazyccd.batch.camera_table import camera_table
    from lazyccd.batch.collect import collect
    from lazyccd.batch.make_plan import build_plan
    from lazyccd.errors import FormatError, TargetExistsError

    with friendly_errors():
        if out.exists() and not overwrite:
            raise TargetExistsError(f"table {str(out)!r} exists; name another, or pass overwrite=True.")
        collection = collect(night, recursive=recursive)
        if not collection.frames:
            raise FormatError(
                f"none of {len(collection.skipped)} files can be used; run 'lazyccd reduce' for the reasons."
            )
        text = camera_table(build_plan(collection))
        out.write_text(text, encoding="utf-8")
        doubts, open_words = text.count("DOUBT, "), text.count("FILL IN")
        say(f"{out}: {len(collection.frames)} images, {doubts} doubts, {open_words} unknown words for types.")
