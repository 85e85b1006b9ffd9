"""``lazyccd show``: a picture of a file."""

from __future__ import annotations

from pathlib import Path

import click

from lazyccd.cli.common import friendly_errors


@click.command()
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
    from lazyccd.batch.exposures import product_name
    from lazyccd.plot import save_picture

    with friendly_errors():
        target = out if out is not None else Path(f"{product_name(file)}.png")
        save_picture(file, target, stretch, interval, planes)
        click.echo(target)
