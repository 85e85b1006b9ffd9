"""``lazyccd info``: describe a file, its HDUs, and how the frames of a mosaic lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lazyccd.cli.common import as_options, friendly_errors, say

if TYPE_CHECKING:
    import xarray as xr

    from lazyccd.batch.night_plan import FramePlan
    from lazyccd.batch.report import PlainConsole

SECTIONS = ("DATASEC", "BIASSEC", "TRIMSEC", "CCDSEC", "DETSEC")
WIDTH, HEIGHT = 72, 22
"""Characters and lines of the layout in the terminal."""

MOST_FILES = 100
"""Rows of the table of a folder; from more files on, those that are alike share one."""


@click.command()
@click.argument("file")
@click.option(
    "--header", is_flag=True, help="Print the header cards instead; all HDUs of FILE, or the one that is named."
)
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the layout of several images into this PNG.")
@click.option("-r", "--recursive", is_flag=True, help="Of a folder: list the files in its subfolders too.")
def info(file: str, header: bool, picture: Path | None, recursive: bool) -> None:
    """Describe the content of FILE, or the files of a folder.

    Prints the HDUs, the shape, unit, planes and cost of each image, and a drawing of how several images lie on the detector. Of
    a folder: what each file is, by its header. Shapes are rows x columns.
    """
    from lazyccd.io.names import parse_name
    from lazyccd.io.open import is_store

    with friendly_errors():
        path = os.path.expanduser(parse_name(file).path)
        is_folder = os.path.isdir(path) and not is_store(path)
        if (header or picture is not None) and is_folder:
            raise click.UsageError(f"{file} is a folder; --header and --picture describe one file.")
        if recursive and not is_folder:
            raise click.UsageError(f"{file} is one file; -r searches the subfolders of a folder.")
        if is_folder:
            _print_folder(path, recursive=recursive)
        elif header:
            _print_header(file)
        else:
            _print_file(file, picture)


def _print_folder(folder: str, *, recursive: bool) -> None:
    """Print a table of the files of a folder; if they are many, of how many are alike."""
    from rich.table import Table

    from lazyccd.batch.collect import collect
    from lazyccd.batch.make_plan import build_plan
    from lazyccd.batch.report import make_console

    console = make_console()
    collection = collect(folder, recursive=recursive)
    alike: dict[tuple[str, ...], list[str]] = {}
    for item in build_plan(collection).frames:
        alike.setdefault(_words_of(item), []).append(item.name)
    are_many = len(collection.frames) > MOST_FILES
    rows = [(name, *words) for words, names in alike.items() for name in names]
    if are_many:
        # most of a night is in a few long series
        series = sorted(alike.items(), key=lambda item: -len(item[1]))
        rows = [(f"{len(names)}: {names[0]}" + ", ..." * (len(names) > 1), *words) for words, names in series]
    table = Table("files" if are_many else "file", "type", "filter", "s", "rows x columns", "object")
    table.columns[0].overflow = table.columns[-1].overflow = "fold"
    for row in rows[:MOST_FILES] if are_many else sorted(rows):
        table.add_row(*row)
    console.print(table)
    if are_many and len(rows) > MOST_FILES:
        rest = sum(len(names) for _, names in series[MOST_FILES:])
        console.print(f"and {rest} files of {len(rows) - MOST_FILES} other kinds")
    for name, reason in collection.skipped[:MOST_FILES]:
        console.print(f"not usable: {name}: {reason}")
    if len(collection.skipped) > MOST_FILES:
        console.print(f"and {len(collection.skipped) - MOST_FILES} others that are not usable")
    for note in collection.notes:
        console.print(note)
    console.print(
        f"{len(collection.frames)} images; 'lazyccd reduce {folder} --dry-run' says what can be made of them."
    )


def _words_of(item: FramePlan) -> tuple[str, ...]:
    """Return type, filter, exposure time, shape and object of a frame."""
    facts, (rows, columns) = item.facts, item.shape
    seconds = "-" if facts.exposure.value is None else f"{facts.exposure.value:.4g}"
    return item.kind, facts.filter.value or "-", seconds, f"{rows} x {columns}", facts.object.value or "-"


def _print_header(file: str) -> None:
    """Print the cards of the HDU that is named, or of all, or of the frames of a store."""
    import xarray as xr

    from lazyccd.io.fits.scan import scan_fits
    from lazyccd.io.fits.storage import hdus_called
    from lazyccd.io.names import parse_name
    from lazyccd.io.open import is_store, open_image

    name = parse_name(file)
    if is_store(name.path):
        opened = open_image(file)
        frames = {"": opened} if isinstance(opened, xr.Dataset) else opened.ccd.frames
        texts = {f"{file}/{key}".rstrip("/"): ds.ccd.header.tostring(sep="\n") for key, ds in frames.items()}
    else:
        scanned = scan_fits(name.path)
        hdus = scanned.hdus if name.hdu is None else hdus_called(scanned, name.hdu)
        texts = {f"{scanned.path}{hdu.label}": hdu.header for hdu in hdus}
    for place, text in texts.items():
        say(f"# {place}")
        say("\n".join(line.rstrip() for line in text.split("\n")))


def _print_file(file: str, picture: Path | None) -> None:
    """Print what a file or store holds."""
    import xarray as xr

    from lazyccd.batch.report import make_console
    from lazyccd.errors import LazyCCDError, ParameterError
    from lazyccd.io import open_mef
    from lazyccd.io.fits.hdu_roles import companion_files, images_of
    from lazyccd.io.fits.scan import scan_fits
    from lazyccd.io.names import parse_name
    from lazyccd.io.open import is_store, open_image

    console = make_console()
    name = parse_name(file)
    scanned = None if is_store(name.path) else scan_fits(name.path)
    if scanned is not None:
        _print_hdus(scanned, console)
        for other, plane in sorted(
            {(c.file.path, n) for some in companion_files(scanned).values() for n, c in some.items()}
        ):
            console.print(f"beside it: {os.path.basename(other)}, which open_mef takes as {plane}")
    # tables alone are a tree without frames
    bare = scanned if scanned is not None and name.hdu is None and not images_of(scanned) else None
    opened: Any = open_image(file) if bare is None else open_mef(name.path)
    if bare is not None and any(hdu.kind == "image" for hdu in bare.hdus):
        try:
            open_image(file)
        except LazyCCDError as error:  # it says why no image is a frame
            console.print(str(error), soft_wrap=True)
    if isinstance(opened, xr.Dataset):
        _print_frame(opened, console)
        if picture is not None:
            raise ParameterError(
                f"{file} holds one image, and --picture draws the layout of several; draw the image by 'lazyccd show'."
            )
        return
    _print_tree(opened, console, picture)


def _print_hdus(file: Any, console: PlainConsole) -> None:
    """Print a table of the HDUs of a file."""
    from rich.table import Table

    console.print(file.path, soft_wrap=True)
    table = Table("#", "name", "version", "kind", "shape", "BITPIX")
    for hdu in file.hdus:
        shape = " x ".join(map(str, hdu.shape)) or "-"
        table.add_row(str(hdu.index), hdu.name or "-", str(hdu.ver), hdu.kind, shape, str(hdu.bitpix))
    console.print(table)


def _print_frame(ds: xr.Dataset, console: PlainConsole) -> None:
    """Print shape, unit, variables and cost of a frame."""
    console.print(f"frame of {ds.sizes['y']} rows and {ds.sizes['x']} columns, unit '{ds.ccd.unit}'")
    for variable in ds.data_vars:
        console.print(f"  {variable}: {ds[variable].dtype}, chunks {ds[variable].data.chunksize}")
    console.print(f"sky coordinates: {_sky_text(ds)}")
    console.print(str(ds.ccd.plan()))


def _sky_text(ds: xr.Dataset) -> str:
    """Return where the centre of a frame lies on the sky, in degrees, or why nobody knows."""
    from lazyccd.errors import FrameError

    try:
        wcs = ds.ccd.wcs
    # The file can be used all the same.
    except FrameError as error:
        return as_options(str(error))
    if wcs is None:
        return "no"
    place = wcs.pixel_to_world((ds.sizes["x"] - 1) / 2, (ds.sizes["y"] - 1) / 2)
    lon, lat = place.spherical.lon.deg, place.spherical.lat.deg
    return f"the centre is at {lon:.5f} {lat:+.5f} deg ({place.frame.name})"


def _print_tree(tree: xr.DataTree, console: PlainConsole, picture: Path | None) -> None:
    """Print the frames of a tree with their sections, its other HDUs, and the layout."""
    from rich.table import Column, Table

    from lazyccd.frame.core import DATA
    from lazyccd.ops.mosaic.assemble import places_of

    kept = [hdu for hdu in tree.attrs.get("hdus", ()) if "bytes" in hdu]
    if not any(DATA in node.data_vars for node in tree.subtree):
        console.print(f"no image that is a frame; HDUs kept as they are: {len(kept)}")
        return
    headers = {name: ds.ccd.header for name, ds in tree.ccd.frames.items()}
    used = [key for key in SECTIONS if any(key in header for header in headers.values())]
    headings = ("frame", "rows x columns", "unit", "planes", "gain", *used)
    table = Table(*(Column(heading, overflow="fold") for heading in headings))
    for name, ds in tree.ccd.frames.items():
        values = [str(headers[name].get(key, "-")) for key in ("GAIN", *used)]
        size = f"{ds.sizes['y']} x {ds.sizes['x']}"
        table.add_row(name, size, str(ds.ccd.unit), ", ".join(map(str, ds.data_vars)), *values)
    console.print(table)
    if kept:
        names = ", ".join(f"{hdu.get('name') or '-'} ({hdu.get('kind', 'bytes')})" for hdu in kept)
        console.print(f"kept as they are: {names}")
    key, bounds, places = places_of(tree)
    if not places:
        console.print("no CCDSEC, DETSEC or LTM says how the frames lie.")
        return
    console.print(f"by {key}, {bounds.to_fits()} (first row below, o: first pixel of the data)")
    console.print(layout_text(bounds, places))
    if picture is not None:
        from lazyccd.plot import save_layout

        save_layout(bounds, places, picture)
        console.print(f"the layout is drawn in {picture}")


def layout_text(bounds: Any, places: Mapping[str, Any]) -> str:
    """Return a drawing of the layout: a box for each frame with its name, and an o in the corner of its first pixel.

    Names that are too long lose the beginning that all names share.

    Examples
    --------
    >>> from lazyccd.frame.detector_geometry import placement
    >>> from lazyccd.sections import Region
    >>> header = {"NAXIS1": 4, "NAXIS2": 4}
    >>> places = {"A": placement({**header, "DETSEC": "[1:4,1:4]"}, "DETSEC")}
    >>> print(
    ...     layout_text(Region(0, 4, 0, 8), places | {"B": placement({**header, "DETSEC": "[8:5,1:4]"}, "DETSEC")})[
    ...         -72:
    ...     ]
    ... )
    |o                                 ||                                 o|
    """
    rows, columns = max(bounds.shape.y, 1), max(bounds.shape.x, 1)
    lines = [[" "] * WIDTH for _ in range(HEIGHT)]
    pairs = zip(min(places, default=""), max(places, default=""), strict=False)
    common = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) if len(places) > 1 else ""
    for name, place in places.items():
        y0, y1, x0, x1 = place.target.shift(-bounds.y0, -bounds.x0)
        top, bottom = HEIGHT - round(y1 / rows * HEIGHT), HEIGHT - round(y0 / rows * HEIGHT) - 1
        left, right = round(x0 / columns * WIDTH), round(x1 / columns * WIDTH) - 1
        if bottom <= top or right <= left:
            continue
        for x in range(left, right + 1):
            lines[top][x] = "-"
        for y in range(top, bottom + 1):
            lines[y][left] = lines[y][right] = "|"
        room = max(right - left - 1, 0)
        label = name if len(name) <= room else name.removeprefix(common)[:room]
        middle = (top + bottom + 1) // 2
        start = (left + right - len(label) + 1) // 2
        lines[middle][start : start + len(label)] = label
        inner = min(left + 1, right) if place.step.x > 0 else max(right - 1, left)
        lines[bottom if place.step.y > 0 else min(top + 1, bottom)][inner] = "o"
    return "\n".join("".join(line).rstrip() for line in lines)
