"""Draw frames of any size, with their mask planes in colour.

A picture has about as many pixels as a screen, so only every n-th pixel of an image is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy.visualization import (
    AsinhStretch,
    ImageNormalize,
    LinearStretch,
    LogStretch,
    MinMaxInterval,
    PercentileInterval,
    SqrtStretch,
    ZScaleInterval,
)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from lazyccd.errors import ParameterError
from lazyccd.frame.core import DATA, MASK, Image, resolve
from lazyccd.frame.detector_geometry import Placement
from lazyccd.frame.tree import frames_of
from lazyccd.frame.units import unit_to_text
from lazyccd.io.open import open_image
from lazyccd.plan.chunks import regular_grid
from lazyccd.sections import Region

MAX_PIXELS = 1024
"""At most so many pixels along an axis are computed for a picture."""

STRETCHES = {"asinh": lambda: AsinhStretch(0.1), "linear": LinearStretch, "log": LogStretch, "sqrt": SqrtStretch}
INTERVALS = {"zscale": ZScaleInterval, "minmax": MinMaxInterval, "percentile": lambda: PercentileInterval(99)}

COLOURS = {
    "BAD": "#d62728",
    "SAT": "#ff7f0e",
    "CR": "#2ca02c",
    "NO_DATA": "#7f7f7f",
    "LOW_FLAT": "#9467bd",
    "CLIPPED": "#17becf",
    "INTERP": "#bcbd22",
    "EDGE": "#8c564b",
}
"""Colour of each standard mask plane."""

MORE_COLOURS = ("#e377c2", "#1f77b4", "#98df8a", "#ffbb78", "#c5b0d5", "#f7b6d2", "#dbdb8d", "#9edae5")
"""Colours of the other planes that occur in an image, in this order."""


def decimated(image: Image) -> Image:
    """Return every n-th pixel of an image, at most `MAX_PIXELS` along an axis; the plan reads only what it must."""
    step = max(1, -(-max(image.shape) // MAX_PIXELS))
    shape = (-(-image.shape[0] // step), -(-image.shape[1] // step))
    small = image.window((0, 0), (step, step), shape)
    # bands of whole rows: a FITS file is read row by row, and narrow chunks would read each row again
    return replace(small, grid=regular_grid(small.shape, (64, shape[1])))


def show(
    ds: xr.Dataset, stretch: str = "asinh", interval: str = "zscale", planes: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw a frame, first row at the bottom.

    Parameters
    ----------
    ds
        A frame of any size; every n-th pixel is computed, so that at most 1024 along an axis are.
    stretch
        How grey follows the values: ``asinh``, ``linear``, ``log`` or ``sqrt``.
    interval
        Values that are black and white: ``zscale`` as of IRAF, ``minmax``, or ``percentile`` (the inner 99 %). NaN has no say;
        masked pixels do.
    planes
        Whether mask planes are drawn in colour, with a legend of those that occur and the fraction of the pixels drawn that has
        them.
    ax
        Matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Ticks are the original pixel positions, 0-based, also of frames that were trimmed.

    Raises
    ------
    ParameterError
        Raised if stretch or interval has another name.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from lazyccd.testing.steps import formula_frame
    >>> ax = show(formula_frame((2048, 4096), (2048, 2048)), interval="percentile")
    >>> ax.images[0].get_array().shape  # of the image, every fourth pixel was computed
    (512, 1024)
    """
    if stretch not in STRETCHES or interval not in INTERVALS:
        raise ParameterError(
            f"stretch {stretch!r} must be one of {', '.join(STRETCHES)}, interval {interval!r} one of {', '.join(INTERVALS)}."
        )
    image = decimated(resolve(ds))
    small = image.to_dataset()
    # a plane that is not drawn need not be computed
    small = small.drop_vars("uncertainty", errors="ignore").compute()
    values = small[DATA].values
    good = values[np.isfinite(values)]
    limits = INTERVALS[interval]().get_limits(good) if good.size else (0.0, 1.0)
    norm = ImageNormalize(vmin=limits[0], vmax=limits[1], stretch=STRETCHES[stretch](), clip=True)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 6), layout="constrained")
    extent = _extent(small)
    drawn = ax.imshow(values, origin="lower", cmap="gray", norm=norm, interpolation="nearest", extent=extent)
    if planes and MASK in small:
        _draw_planes(ax, small[MASK].values, image, extent)
    # even steps of grey: ticks at round numbers would lie on top of each other at the bright end
    ticks = norm.inverse(np.linspace(0, 1, 7))
    unit = unit_to_text(image.units) or "no unit"
    ax.figure.colorbar(drawn, ax=ax, shrink=0.85, label=unit, ticks=ticks, format=StrMethodFormatter("{x:.4g}"))
    ax.set_xlabel("x [pixel]")
    ax.set_ylabel("y [pixel]")
    return ax


def show_tree(
    tree: xr.DataTree, stretch: str = "asinh", interval: str = "zscale", planes: bool = True
) -> dict[str, Axes]:
    """Draw the frames of a tree side by side, each with its own limits.

    Parameters
    ----------
    tree
        Frames of any sizes.
    stretch, interval, planes
        As in `lazyccd.plot.show`.

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
        show(ds, stretch=stretch, interval=interval, planes=planes, ax=ax).set_title(name, fontsize="small")
    return dict(zip(frames, axes.flat, strict=False))


def save_picture(
    path: str, target: Path, stretch: str = "asinh", interval: str = "zscale", planes: bool = True
) -> None:
    """Draw a file or store into a PNG picture, all images of it; see `lazyccd.plot.show`."""
    opened = open_image(path)
    title = path.rstrip("/").rsplit("/", 1)[-1]
    if isinstance(opened, xr.DataTree):
        axes = show_tree(opened, stretch=stretch, interval=interval, planes=planes)
        figure = cast("Figure", next(iter(axes.values())).figure)
        figure.suptitle(title)
    else:
        figure, ax = plt.subplots(figsize=(7, 6), layout="constrained")
        show(opened, stretch=stretch, interval=interval, planes=planes, ax=ax).set_title(title)
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


def _extent(small: xr.Dataset) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the picture in original pixels."""
    # half a step beyond the centres of the outer pixels; the step is the coordinates', as trimmed or decimated frames have it
    edges = []
    for dim in ("x", "y"):
        values = small[dim].values.astype(float)
        half = (values[1] - values[0]) / 2 if values.size > 1 else 0.5
        edges += [values[0] - half, values[-1] + half]
    return edges[0], edges[1], edges[2], edges[3]


def _draw_planes(ax: Axes, mask: npt.NDArray[Any], image: Image, extent: tuple[float, float, float, float]) -> None:
    """Colour the pixels of each mask plane, and say which colour is which."""
    handles = []
    more = cycle(MORE_COLOURS)
    for name in image.schema.names:
        hit = (mask & mask.dtype.type(image.schema.bits(name))) != 0
        if not hit.any():  # the legend names what occurs, not all that could
            continue
        colour = COLOURS.get(name) or next(more)
        layer = np.zeros((*mask.shape, 4))
        layer[hit] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.75)
        ax.imshow(layer, origin="lower", interpolation="nearest", extent=extent)
        handles.append(Patch(color=colour, label=f"{name} {hit.mean():.2%}"))
    if handles:
        ax.legend(handles=handles, loc="upper right", fontsize="small", framealpha=0.8)
