"""``lazyccd show``: draw a file into a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lazyccd.cli.common import friendly_errors, say


@click.command()
@click.argument("file")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Picture to write.  [default: FILE.png in the current folder]"
)
@click.option("--stretch", type=click.Choice(["asinh", "linear", "log", "sqrt"]), default="asinh", show_default=True)
@click.option("--interval", type=click.Choice(["zscale", "minmax", "percentile"]), default="zscale", show_default=True)
@click.option("--vmin", type=float, help="Value that is black, instead of that of the interval.")
@click.option("--vmax", type=float, help="Value that is white.")
@click.option("--cmap", default="gray", show_default=True, help="Colormap of matplotlib, such as viridis.")
@click.option("--title", default="", help="Title.  [default: the name of FILE]")
@click.option("--variable", default="data", show_default=True, help="What to draw, such as uncertainty.")
@click.option("--plane", "named", multiple=True, metavar="NAME", help="Draw this mask plane in color, and no other.")
@click.option("--planes/--no-planes", default=True, help="Draw mask planes in color.")
@click.option("--sky", is_flag=True, help="Axes are positions on the sky.")
@click.option("--full", is_flag=True, help="One point for each pixel of FILE, without axes.")
def show(file: str, out: Path | None, full: bool, named: tuple[str, ...], planes: bool, **how: Any) -> None:
    """Draw FILE into a PNG picture.

    FILE is a FITS file, one of its HDUs such as "a.fits[SCI,2]", or a Zarr store. A point of the picture is the mean of the good
    pixels under it, and has the color of a mask plane if any of them has the plane.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from lazyccd.batch.night_plan import product_name
    from lazyccd.picture import save_png
    from lazyccd.plot import save_picture

    with friendly_errors():
        target = out if out is not None else Path(f"{product_name(file)}.png")
        how["planes"] = list(named) or planes
        if full:
            if how.pop("sky"):
                raise click.UsageError("--full draws no axes, so --sky does not go with it.")
            save_png(file, target, size=None, **how)
        else:
            save_picture(file, target, **how)
        say(target)
