"""``lazyccd coadd``: `lazyccd.coadd` as a command."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lazyccd.cli.common import friendly_errors, say, scheduler_options, using_scheduler

METHODS = ("average", "median", "sum")
KERNELS = ("nearest", "bilinear", "bicubic", "lanczos2", "lanczos3", "lanczos4", "area")
REJECTS = ("auto", "clipped", "blotted", "none", "varclip", "sigclip", "winsorized", "linearfit", "gesdt")
INCOMPLETE = 3
"""Exit status if the product lacks something, as that of ``lazyccd reduce``."""

PICTURES = (".png", ".jpg", ".pdf")
MAPS = ("n_used", "n_rejected", "exposure", "coverage", "variance_aperture")


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Store that ends in .zarr, or FITS file."
)
@click.option("--like", metavar="FILE", help="Take the grid, WCS and shape, of this file.")
@click.option(
    "--pixel-scale", type=float, metavar="ARCSEC", help="Pixels of the grid.  [default: the smallest of the frames]"
)
@click.option(
    "--projection", metavar="TAN|ZEA|...", help="Projection of the grid.  [default: TAN, ZEA for wide fields]"
)
@click.option("--method", type=click.Choice(METHODS), default="average", show_default=True)
@click.option(
    "--order", type=click.Choice(KERNELS), default="lanczos3", show_default=True, help="Interpolation kernel."
)
@click.option("--pixfrac", type=float, default=1.0, show_default=True, help="For area: how far input pixels shrink.")
@click.option(
    "--reject",
    type=click.Choice(REJECTS),
    default="auto",
    show_default=True,
    help="Rejection rule; auto leaves hot pixels out of the frames, and then is clipped.",
)
@click.option("--weights", metavar="exposure|variance|smoothed|pixel|!KEY", help="Weights of averages and sums.")
@click.option(
    "--flux-scale",
    metavar="exposure|overlaps|KEY",
    help="What brings frames to one flux: exposure times, stars in the overlaps, or a keyword.",
)
@click.option("--sky", type=click.Choice(["constant", "mesh"]), help="Subtract the sky of each frame first.")
@click.option(
    "--match", type=click.Choice(["constant", "plane"]), help="Subtract what makes frames agree where they overlap."
)
@click.option("--min-coverage", type=int, default=1, show_default=True, help="Fewest frames of a pixel.")
@click.option(
    "--feather", type=float, default=0.0, metavar="PIXELS", help="Let weights fall to 0 at the edges of frames."
)
@click.option("--map", "maps", multiple=True, type=click.Choice(MAPS), help="Map to write as well.")
@click.option("--unit", metavar="UNIT", help="Unit of the pixels, instead of BUNIT.")
@click.option("--pyramid", is_flag=True, help="Add levels of half the resolution to a store.")
@click.option("--preview", type=click.Path(path_type=Path), metavar="PNG", help="Draw the mosaic into this picture.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and what it takes; write nothing.")
@scheduler_options
def coadd(files: tuple[str, ...], out: Path, scheduler: str, memory_limit: str | None, **options: Any) -> None:
    """Resample images onto one grid of the sky and combine them, in bounded memory.

    FILES are names, globs, @lists or HDUs such as "a.fits[SCI,2]"; of a file of several images, each is a frame. Without --like,
    north is up and the grid holds all frames. After an interruption the same command goes on where it stopped.

    Exit status: 0 if the mosaic is written, 3 if it has no good pixel, 2 if the command cannot be carried out.
    """
    from lazyccd.ops.mosaic.coadd import empty_chunks

    with friendly_errors(), using_scheduler(scheduler, memory_limit):
        after = {key: options.pop(key) for key in ("overwrite", "dry_run", "pyramid", "preview")}
        _check_names(out, after)
        start = time.perf_counter()
        mosaic = _mosaic(files, options)
        header = mosaic.ccd.header
        (ny, nx), scale = mosaic["data"].shape, _pixel_scale(mosaic)
        count = header["NCOMBINE"]
        say(
            f"{out}: {options['method']} of {count} frames, {ny} rows, {nx} columns of {scale:.4g} arcsec, {header['RESAMPLE']}"
        )
        empty = empty_chunks(mosaic)
        if empty:
            say(f"{empty} of {mosaic['data'].data.npartitions} chunks lie outside of all frames and are NaN")
        if after["dry_run"]:
            say(mosaic.ccd.plan())
            # what the write would refuse
            _writer(out)(mosaic, out, overwrite=after["overwrite"], compute=False)
            return
        _write(mosaic, out, after)
        say(f"{time.perf_counter() - start:.1f} s")
        if not _has_pixels(out):
            say(
                f"Warning: {out} has no pixel that is not NaN: all pixels of the frames are NaN or masked there.",
                err=True,
            )
            sys.exit(INCOMPLETE)


def _check_names(out: Path, after: dict[str, Any]) -> None:
    """Refuse options that do not go together, before any work."""
    from lazyccd.errors import MissingFileError, ParameterError
    from lazyccd.io.names import ENDINGS

    name = out.name.lower()
    if name.endswith((".gz", ".bz2", ".xz", ".fz")):
        raise ParameterError(f"-o {out}: mosaics are written without compression; let the name end in .fits or .zarr.")
    if not name.endswith((".zarr", *ENDINGS)):
        raise ParameterError(f"the name {out} does not tell the format; let it end in .zarr or .fits.")
    preview = after["preview"]
    if preview is not None and preview.suffix.lower() not in PICTURES:
        raise ParameterError(f"--preview {preview} must end in {', '.join(PICTURES)}.")
    for path in (out, *([] if preview is None else [preview])):
        if not path.parent.is_dir():
            raise MissingFileError(f"the folder {path.parent} of {path.name} does not exist; create it first.")
    if after["pyramid"] and out.suffix != ".zarr":
        raise ParameterError(f"--pyramid is for stores, and {out} is a FITS file; give -o a name that ends in .zarr.")


def _mosaic(files: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the lazy mosaic that the options mean."""
    from lazyccd import coadd

    like, scale, projection = (options.pop(key) for key in ("like", "pixel_scale", "projection"))
    reject = options.pop("reject")
    frames, wcs, shape = _grid(files, like, scale, projection, options["unit"])
    return coadd(
        frames,
        wcs,
        shape,
        reject=None if reject == "none" else reject,
        weights=options.pop("weights") or None,
        flux_scale=options.pop("flux_scale") or None,
        **options,
    )


def _grid(
    files: tuple[str, ...], like: str | None, scale: float | None, projection: str | None, unit: str | None
) -> tuple[Any, Any, Any]:
    """Return frames, the WCS and the shape of their grid; None for both where `coadd` finds them."""
    from astropy import units as u

    from lazyccd import as_frame, find_optimal_grid
    from lazyccd.errors import FrameError, ParameterError
    from lazyccd.ops.mosaic.coadd import opened_frames

    if like is not None and (scale is not None or projection is not None):
        raise ParameterError("--like gives the whole grid; leave out --pixel-scale and --projection, or --like.")
    frames = opened_frames(files, unit)
    if like is not None:
        given = as_frame(like)
        if given.ccd.wcs is None:
            raise FrameError(f"--like {like} has no celestial WCS; give an image that is solved.")
        return frames, given.ccd.wcs, given["data"].shape
    if scale is None and projection is None:
        return frames, None, None
    wcs, shape = find_optimal_grid(
        frames, pixel_scale=None if scale is None else scale * u.arcsec, projection=projection
    )
    return frames, wcs, shape


def _pixel_scale(mosaic: Any) -> float:
    """Return arcseconds of a pixel."""
    from astropy.wcs.utils import proj_plane_pixel_area

    return float(proj_plane_pixel_area(mosaic.ccd.wcs) ** 0.5 * 3600)


def _has_pixels(out: Path) -> bool:
    """Return whether a mosaic has a good pixel; most have one in the middle, so that nothing else is read."""
    import numpy as np

    from lazyccd.io import as_frame
    from lazyccd.plan.chunks import grid_boxes

    data: Any = as_frame(str(out))["data"].data
    boxes = grid_boxes(data.chunks)
    return any(
        np.isfinite(data[b.y0 : b.y1, b.x0 : b.x1].compute()).any()
        for b in boxes[len(boxes) // 2 :] + boxes[: len(boxes) // 2]
    )


def _writer(out: Path) -> Callable[..., Any]:
    """Return the function that writes what a name means."""
    from lazyccd import to_fits, to_zarr

    return to_zarr if out.suffix == ".zarr" else to_fits


def _write(mosaic: Any, out: Path, after: dict[str, Any]) -> None:
    """Write the mosaic, and what is made from it."""
    from contextlib import nullcontext

    from dask import diagnostics

    from lazyccd import build_pyramid

    # of local schedulers; a cluster has its dashboard
    bars: Any = diagnostics
    shown: Any = bars.ProgressBar() if sys.stderr.isatty() else nullcontext()
    with shown:
        _writer(out)(mosaic, out, overwrite=after["overwrite"])
    if after["pyramid"]:
        say(f"{build_pyramid(out)} levels of half the resolution")
    if after["preview"] is not None:
        import matplotlib as mpl

        mpl.use("Agg")
        from lazyccd.plot import save_picture

        save_picture(str(out), after["preview"], planes=False)
        say(after["preview"])
