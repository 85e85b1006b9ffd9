"""``lazyccd show``: draw a file into a picture."""

from __future__ import annotations

from pathlib import Path

import click

from lazyccd.cli.common import friendly_errors


@click.command()
@click.argument("file")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Picture to write.  [default: FILE.png in the current folder]"
)
@click.option("--stretch", type=click.Choice(["asinh", "linear", "log", "sqrt"]), default="asinh", show_default=True)
@click.option("--interval", type=click.Choice(["zscale", "minmax", "percentile"]), default="zscale", show_default=True)
@click.option("--planes/--no-planes", default=True, help="Draw mask planes in color.")
def show(file: str, out: Path | None, stretch: str, interval: str, planes: bool) -> None:
    """Draw FILE into a PNG picture.

    FILE is a FITS file, one of its HDUs such as "a.fits[SCI,2]", or a Zarr store.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from lazyccd.batch.night_plan import product_name
    from lazyccd.plot import save_picture

    with friendly_errors():
        target = out if out is not None else Path(f"{product_name(file)}.png")
        save_picture(file, target, stretch, interval, planes)
        click.echo(target)
