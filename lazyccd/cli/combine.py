"""``lazyccd combine``: `lazyccd.combine` as a command.

Each setting of a rejection rule is an option of its own, with imcombine's name where it has one; `_rule` makes the rule of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from lazyccd.cli.common import friendly_errors, say, scheduler_options, using_scheduler

METHODS = ("average", "median", "sum")
REJECTS = (
    "none",
    "sigclip",
    "avsigclip",
    "minmax",
    "ccdclip",
    "crreject",
    "varclip",
    "pclip",
    "winsorized",
    "linearfit",
    "gesdt",
)

SETTINGS = (
    "low",
    "high",
    "center",
    "deviation",
    "iterations",
    "nlow",
    "nhigh",
    "pclip",
    "fraction",
    "significance",
    "gain",
    "readnoise",
    "snoise",
)
"""Options that are settings of a rejection rule."""


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="FITS file, or store if it ends in .zarr."
)
@click.option("--method", type=click.Choice(METHODS), default="average", show_default=True)
@click.option("--reject", type=click.Choice(REJECTS), default="none", show_default=True, help="Rejection rule.")
@click.option("--low", type=float, default=3.0, show_default=True, help="Deviations below the center; 0 for no limit.")
@click.option("--high", type=float, default=3.0, show_default=True, help="Deviations above the center; 0 for no limit.")
@click.option(
    "--center", type=click.Choice(["median", "mean"]), default="median", show_default=True, help="For sigclip."
)
@click.option(
    "--deviation", type=click.Choice(["std", "mad_std"]), default="std", show_default=True, help="For sigclip."
)
@click.option("--iterations", type=int, help="For sigclip; default: until nothing changes.")
@click.option("--nlow", type=int, default=1, show_default=True, help="Lowest values rejected by minmax.")
@click.option("--nhigh", type=int, default=1, show_default=True, help="Highest values rejected by minmax.")
@click.option("--pclip", type=float, default=-0.5, show_default=True, help="Order of pclip.")
@click.option("--fraction", type=float, default=0.3, show_default=True, help="Largest fraction of outliers, for gesdt.")
@click.option("--significance", type=float, default=0.05, show_default=True, help="For gesdt.")
@click.option(
    "--gain", default="1", show_default=True, metavar="G|KEY", help="Electrons per unit, for ccdclip and crreject."
)
@click.option("--readnoise", default="", metavar="R|KEY", help="Electrons, for ccdclip and crreject.")
@click.option("--snoise", default="0", show_default=True, metavar="S|KEY", help="Fraction of the signal; likewise.")
@click.option(
    "--nkeep", type=int, default=1, show_default=True, help="Values kept at least; negative: rejected at most."
)
@click.option("--grow", type=float, default=0.0, show_default=True, help="Radius of neighbours that are rejected too.")
@click.option("--min", "minimum", type=float, help="Lowest value that counts.")
@click.option("--max", "maximum", type=float, help="Highest value that counts.")
@click.option(
    "--scale", default="", metavar="mode|median|mean|clipped|exposure|!KEY", help="Level to equalize by a factor."
)
@click.option("--zero", default="", metavar="mode|median|mean|clipped|!KEY", help="Level to equalize by an offset.")
@click.option(
    "--weights", default="", metavar="exposure|variance|smoothed|pixel|!KEY", help="Weights of averages and sums."
)
@click.option("--statsec", metavar="SEC", help="Section to measure levels in, such as [101:900,101:900].")
@click.option(
    "--offsets",
    default="none",
    show_default=True,
    metavar="none|wcs|physical|register|FILE",
    help="Where the frames lie. register measures it and prints it; each line of FILE has an offset in x and one in y, as in "
    "IRAF's imcombine.",
)
@click.option(
    "--uncertainty",
    type=click.Choice(["propagated", "scatter", "ccdproc"]),
    help="Uncertainty of the result.  [default: propagated if all inputs have one]",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    type=click.Choice(["n_used", "n_rejected", "exposure"]),
    help="Map to write as well.",
)
@click.option("--hdu", metavar="NAME|N", help="Extension to combine.")
@click.option("--unit", metavar="UNIT", help="Unit of the pixels, instead of BUNIT.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@scheduler_options
def combine(files: tuple[str, ...], out: Path, scheduler: str, memory_limit: str | None, **options: Any) -> None:
    """Combine images pixel by pixel, in bounded memory.

    FILES are names, globs, @lists or HDUs such as "a.fits[SCI,2]". If the files hold several images, images of the same name
    are combined, and OUT holds all the results; pick one by --hdu or "a.fits[SCI,2]". A FITS file gets the extensions UNCERT,
    MASK and DQ, and one for each map.
    """
    from lazyccd.frame.core import Image, resolve
    from lazyccd.frame.header import header_view
    from lazyccd.frame.kinds import is_tree
    from lazyccd.frame.tree import frames_of

    with friendly_errors(), using_scheduler(scheduler, memory_limit):
        start = time.perf_counter()
        result = _combined(files, out, options)
        seconds = time.perf_counter() - start
        for name, frame in (frames_of(result) if is_tree(result) else {"": result}).items():
            image = frame if isinstance(frame, Image) else resolve(frame)
            header = header_view(image.header)
            (ny, nx), count = image.shape, header["NCOMBINE"]
            where = f"{out}[{name}]" if name else out
            say(f"{where}: {options['method']} of {count} frames, {ny} rows, {nx} columns")
            for line in header.get("HISTORY", ()):
                say(f"  {line}")
        say(f"{seconds:.1f} s")


def _combined(files: tuple[str, ...], out: Path, options: dict[str, Any]) -> Any:
    """Run `lazyccd.combine` with the options as they were typed."""
    from lazyccd import combine
    from lazyccd.ops.stack.inputs import AsImage

    hdu = options.pop("hdu")
    inputs = _trees(files, options["unit"]) if hdu is None else []
    inputs = inputs or list(files)
    minimum, maximum = options.pop("minimum"), options.pop("maximum")
    return combine(
        inputs,
        AsImage(str(out)),
        overwrite_output=options.pop("overwrite"),
        reject=_rule(options.pop("reject"), {name: options.pop(name) for name in SETTINGS}),
        scale=options.pop("scale") or None,
        zero=options.pop("zero") or None,
        weights=options.pop("weights") or None,
        offsets=_offsets(options.pop("offsets"), inputs),
        minmax_clip=minimum is not None or maximum is not None,
        minmax_clip_min=minimum,
        minmax_clip_max=maximum,
        hdu=int(hdu) if hdu is not None and hdu.isdigit() else hdu,
        **options,
    )


def _rule(name: str, settings: dict[str, Any]) -> Any:
    """Return the rejection rule of a name, with those settings that it has."""
    from dataclasses import fields

    from lazyccd.ops.stack.rejection import RULES

    if name == "none":
        return None
    rule = RULES[name]
    settings = {"order" if key == "pclip" else key: value for key, value in settings.items()}
    for what in ("low", "high"):
        settings[what] = abs(settings[what]) or None
    for what in ("gain", "readnoise", "snoise"):
        settings[what] = _number_or_key(settings[what])
    return rule(**{field.name: settings[field.name] for field in fields(rule) if field.name in settings})


def _offsets(given: str, inputs: list[Any]) -> Any:
    """Return the offsets of `--offsets`: measured, none, a word that `lazyccd.combine` knows, or those in a file."""
    import numpy as np

    from lazyccd import register
    from lazyccd.errors import FormatError

    if given == "register":
        found = register(inputs)
        _print_offsets(found, inputs)
        return found
    if given in {"none", "wcs", "physical"}:
        return None if given == "none" else given
    try:
        # The file has x and y, which is IRAF's order; arrays have y and x.
        return np.loadtxt(given, ndmin=2)[:, ::-1]
    except (OSError, ValueError) as error:
        raise FormatError(
            f"--offsets {given} cannot be read: {error}; each line must have an offset in x and one in y."
        ) from None


def _print_offsets(offsets: Any, inputs: list[Any]) -> None:
    """Print measured offsets as lines of a file that `--offsets` reads; for trees, under the names of their frames."""
    from lazyccd.io.names import expand_names

    names = [name.path for name in expand_names(inputs)] if all(isinstance(item, str) for item in inputs) else []
    for name, table in offsets.items() if isinstance(offsets, dict) else [("", offsets)]:
        say(f"# offsets in x and y{f' of {name}' if name else ''}, by correlation")
        for number, (y, x) in enumerate(table):
            label = names[number] if len(names) == len(table) else f"frame {number}"
            say(f"{x:d} {y:d}  # {label}")


def _trees(files: tuple[str, ...], unit: str | None) -> list[Any]:
    """Return a tree for each file; an empty list if the first file holds one image."""
    from lazyccd.io.names import expand_names
    from lazyccd.io.open import open_image, opens_as_tree

    names = expand_names(files)
    if not names or names[0].hdu is not None or not opens_as_tree(names[0].path):
        return []
    return [open_image(name.path, unit=unit) for name in names]


def _number_or_key(text: str) -> float | str | None:
    """Return a number, a keyword, or None for no text."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text
