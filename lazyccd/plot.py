"""Draw frames of any size with axes, by matplotlib: mask planes in colour, a colour bar, positions of pixels or on the sky.

What a point of the picture shows is decided in `lazyccd.picture`, which also writes PNG files without matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from lazyccd.errors import FrameError, ParameterError
from lazyccd.frame.core import DATA
from lazyccd.frame.detector_geometry import Placement
from lazyccd.frame.tree import frames_of
from lazyccd.frame.wcs import text_for_number, wcs_from_header
from lazyccd.io.open import open_image
from lazyccd.picture import NAN_COLOUR, SIZE, Screen, chosen_limits, colormap, grey_levels, on_screen
from lazyccd.sections import Region


def show(
    ds: xr.Dataset,
    stretch: str = "asinh",
    interval: str = "zscale",
    planes: bool | str | Sequence[str] = True,
    ax: Axes | None = None,
    *,
    variable: str = DATA,
    vmin: float | None = None,
    vmax: float | None = None,
    cmap: str = "gray",
    title: str = "",
    sky: bool = False,
    size: int | None = SIZE,
) -> Axes:
    """Draw a frame, first row at the bottom.

    A point of the picture is the mean of the good pixels under it, so that stars of a large field do not vanish, and has the
    colour of a mask plane if any of these pixels has the plane. Bad pixels count only where there is no good one. A mean of
    n x n pixels has 1/n of their noise.

    Parameters
    ----------
    ds
        A frame of any size. It is computed chunk by chunk. Of an archived image with a pyramid, the level next to the size is
        read; of an image of more than 2**30 pixels without one, one row for each point.
    stretch
        How grey follows the values: ``asinh``, ``linear``, ``log`` or ``sqrt``.
    interval
        Values that are black and white: ``zscale`` as of IRAF, ``minmax``, or ``percentile`` (the inner 99 %). NaN has no say.
    planes
        Mask planes to draw in colour: all, none, or those named, with a legend of those that occur.
    ax
        Matplotlib axes to draw on; None makes a new figure.
    variable
        What to draw: ``data``, ``uncertainty``, or a map of a stack such as ``n_used``.
    vmin, vmax
        Values that are black and white, in the unit of the frame, instead of those of the interval. With the same two, frames
        can be compared.
    cmap
        Name of a colormap of matplotlib.
    title
        Title of the picture.
    sky
        Whether axes are positions on the sky; the frame needs a WCS. ``ax`` must have been made with a WCS as its projection.
    size
        Most points of the picture along an axis; None for one for each pixel of the image.

    Returns
    -------
    matplotlib.axes.Axes
        Ticks are the original pixel positions, 0-based, also of frames that were trimmed.

    Raises
    ------
    ParameterError
        Raised if stretch, interval, a plane or the variable has another name, or ``vmin`` is not below ``vmax``.
    FrameError
        Raised if axes on the sky are asked for, and the frame has no WCS.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from lazyccd.testing.steps import formula_frame
    >>> ax = show(formula_frame((2048, 4096), (2048, 2048)), interval="percentile")
    >>> ax.images[0].get_array().shape  # each the mean of 4 x 4 pixels
    (512, 1024)
    """
    grey_levels(np.zeros(0), (0, 1), stretch)  # a wrong name is told before pixels are computed
    chosen_limits(np.zeros(0), interval, vmin, vmax)
    if ax is None:
        wcs = _wcs_of_positions(ds) if sky else None
        _, ax = plt.subplots(figsize=(7, 6), layout="constrained", subplot_kw={"projection": wcs} if sky else {})
    elif sky and not hasattr(ax, "wcs"):
        raise ParameterError("sky=True needs axes of a WCS: leave out ax=, or make it with projection=ds.ccd.wcs.")
    screen = on_screen(ds, size, planes, variable)
    _draw(ax, screen, stretch, chosen_limits(screen.values, interval, vmin, vmax), cmap)
    ax.set_title(title)
    if screen.note:
        ax.text(1, 1.01, screen.note, transform=ax.transAxes, ha="right", va="bottom", fontsize="x-small")
    ax.set_xlabel("x [pixel]" if not sky else "right ascension or longitude")
    ax.set_ylabel("y [pixel]" if not sky else "declination or latitude")
    return ax


def _wcs_of_positions(ds: xr.Dataset) -> Any:
    """Return the WCS of the original positions of a frame's pixels, by which pictures are drawn."""
    y, x = (np.arange(int(np.max(ds[dim].values)) + 1) if dim in ds else np.arange(ds.sizes[dim]) for dim in "yx")
    header = str(ds.attrs.get("header", ""))
    if text := text_for_number(header):
        raise FrameError(f"the frame: {text} is a text and must be a number; correct it with ds.ccd.with_header().")
    wcs = wcs_from_header(header, y, x)
    if wcs is None:
        raise FrameError("the frame has no WCS, so its axes cannot be positions on the sky; leave out sky=True.")
    return wcs


def _draw(ax: Axes, screen: Screen, stretch: str, limits: tuple[float, float], cmap: str) -> None:
    """Draw the pixels, the planes on top of them, a colour bar and a legend."""
    low, high = limits
    even = np.linspace(low, high, 1001)
    levels = grey_levels(even, (low, high), stretch)
    norm = FuncNorm(
        (lambda v: np.interp(v, even, levels), lambda g: np.interp(g, levels, even)), vmin=low, vmax=high, clip=True
    )
    colours = colormap(cmap).with_extremes(bad=NAN_COLOUR)
    style: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "extent": screen.extent}
    drawn = ax.imshow(screen.values, cmap=colours, norm=norm, **style)
    if screen.flags:
        layer = np.zeros((*screen.values.shape, 4))
        for plane, hit in screen.flags.items():
            layer[hit] = (*to_rgb(screen.colours[plane]), 0.75)
        ax.imshow(layer, **style)
    handles = [Patch(color=screen.colours[plane], label=screen.label(plane)) for plane in screen.flags]
    if screen.has_holes:
        handles.append(Patch(color=NAN_COLOUR, label="no value"))
    if handles:
        # below the axes, where it hides no pixel
        ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize="small", frameon=False
        )
    # an inset follows the axes, whose shape is that of the image; even steps of grey: round numbers would crowd the bright end
    bar = ax.inset_axes((1.02, 0, 0.04, 1))
    ticks = np.interp(np.linspace(0, 1, 7), levels, even)
    ax.figure.colorbar(
        drawn, cax=bar, label=screen.unit or "no unit", ticks=ticks, format=StrMethodFormatter("{x:.4g}")
    )


def show_tree(tree: xr.DataTree, title: str = "", **how: Any) -> dict[str, Axes]:
    """Draw the frames of a tree side by side, each with its own limits.

    Parameters
    ----------
    tree
        Frames of any sizes.
    title
        Title of the figure.
    **how
        As in `lazyccd.plot.show`: stretch, interval, planes, variable, vmin, vmax, cmap, size.

    Returns
    -------
    dict of matplotlib.axes.Axes
        By the names of the frames, which are the titles.
    """
    frames = frames_of(tree)
    columns = math.ceil(math.sqrt(len(frames)))
    rows = -(-len(frames) // columns)
    side = max(2.2, 7 / columns)
    _, axes = plt.subplots(rows, columns, figsize=(side * columns, side * rows), layout="constrained", squeeze=False)
    for ax in axes.flat[len(frames) :]:  # places of the grid that no frame fills
        ax.remove()
    for (name, ds), ax in zip(frames.items(), axes.flat, strict=False):
        show(ds, ax=ax, **{"size": SIZE // columns, **how}).set_title(name, fontsize="small")
    cast("Figure", axes.flat[0].figure).suptitle(title)
    return dict(zip(frames, axes.flat, strict=False))


def save_picture(path: str, target: Path, title: str = "", **how: Any) -> None:
    """Draw a file or store into a PNG picture with axes, all images of it; see `lazyccd.plot.show` for how."""
    opened = open_image(path)
    title = title or path.rstrip("/").rsplit("/", 1)[-1]
    if isinstance(opened, xr.DataTree):
        figure = cast("Figure", next(iter(show_tree(opened, title, **how).values())).figure)
    else:
        figure = cast("Figure", show(opened, title=title, **how).figure)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def save_layout(bounds: Region, places: Mapping[str, Placement], target: str | Path) -> None:
    """Write a picture of how frames lie on a detector: boxes with their names, an arrow from the first pixel of each."""
    figure, ax = plt.subplots(figsize=(7, 6), layout="constrained")
    for name, place in places.items():
        y0, y1, x0, x1 = place.target
        ax.add_patch(Rectangle((x0 + 0.5, y0 + 0.5), x1 - x0, y1 - y0, facecolor="#cfe0f1", edgecolor="#1f4e79"))
        ax.text((x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2, name, ha="center", va="center", fontsize="small")
        corner = (x0 + 0.5 if place.step.x > 0 else x1 + 0.5, y0 + 0.5 if place.step.y > 0 else y1 + 0.5)
        length = (0.3 * (x1 - x0) * place.step.x, 0.3 * (y1 - y0) * place.step.y)
        ax.annotate("", (corner[0] + length[0], corner[1] + length[1]), corner, arrowprops={"arrowstyle": "->"})
    ax.set(xlim=(bounds.x0 + 0.5, bounds.x1 + 0.5), ylim=(bounds.y0 + 0.5, bounds.y1 + 0.5), aspect="equal")
    ax.set(xlabel="x (unbinned pixels)", ylabel="y")
    figure.savefig(target, dpi=110)
    plt.close(figure)
