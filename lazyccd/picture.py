"""Pictures of frames of any size: pixels binned to those of a screen, and PNG files made of them without matplotlib.

1. `on_screen` adds a step to the plan of a frame that averages the pixels under each pixel of a screen and unites their mask
   planes, and computes it chunk by chunk: a large image never is in memory.
2. `grey_limits` says which values are black and white.
3. `save_picture` looks grey levels up in a palette, puts planes in colour on top, and writes a PNG file.

`lazyccd.plot` draws the same pixels by matplotlib, with axes.
"""

from __future__ import annotations

import io
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from PIL import Image as PngImage
from PIL import ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lazyccd.batch.html_report import CAPTION_BELOW
from lazyccd.errors import LazyCCDError, ParameterError
from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, Image, resolve
from lazyccd.frame.tree import frames_of
from lazyccd.frame.units import unit_to_text
from lazyccd.frame.wcs import lattice
from lazyccd.io.open import open_image
from lazyccd.io.zarr.open import levels_of, open_zarr
from lazyccd.io.zarr.reader import ZarrStorage
from lazyccd.kernels.block import MAPS, Array
from lazyccd.kernels.screen import screen_pixels
from lazyccd.ops.sample import median
from lazyccd.plan.chunks import Grid, regular_grid
from lazyccd.plan.footprints import Blocks
from lazyccd.plan.serialize import sources
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params

SIZE = 1100
"""Most pixels of a picture along an axis, unless another number is asked for: some more than a power of two, for overscan."""

MOST_PIXELS = 2**30
"""Pixels of an image that are all read for a picture, in some seconds; of a larger one without a pyramid, one row for each point."""

Limits: TypeAlias = tuple[float, float]
"""The values that are black and white."""

INTERVALS = ("zscale", "minmax", "percentile")
STRETCHES = ("asinh", "linear", "log", "sqrt")

COLOURS = {
    "NO_DATA": "#7f7f7f",
    "EDGE": "#8c564b",
    "INTERP": "#bcbd22",
    "LOW_FLAT": "#9467bd",
    "BAD": "#d62728",
    "CLIPPED": "#17becf",
    "SAT": "#ff7f0e",
    "CR": "#2ca02c",
}
"""Colour of each standard mask plane. Of a pixel with several planes, the last one shows: INTERP only says what was done about the
others."""

MORE_COLOURS = ("#e377c2", "#1f77b4", "#98df8a", "#ffbb78", "#c5b0d5", "#f7b6d2", "#dbdb8d", "#9edae5")
"""Colours of the other planes that occur in an image, in this order."""

NAN_COLOUR = "#5b7fa6"
"""Colour of pixels without a value."""

GREYS = 200
"""Grey levels of a PNG file; the rest of its 256 colours is for planes."""

_STEPS = 2**16
"""Values between black and white that are told apart."""

_PANEL_GAP = 6
_LINE = 22
"""Height in pixels of a line of text."""


@dataclass(frozen=True)
class Screen:
    """The pixels of a picture."""

    values: Array
    """Mean of the good pixels under each pixel of the screen; NaN where there is none."""

    flags: dict[str, Array]
    """For each plane that occurs and is asked for, where any pixel has it; the last one is on top."""

    colours: dict[str, str]
    """Colour of each of these planes."""

    unit: str
    """Unit of the values."""

    block: tuple[int, int]
    """Rows and columns of the image under a pixel of the screen."""

    left_out: int
    """Every so many rows of the image one is read; 1 for all of them."""

    extent: tuple[float, float, float, float]
    """Left, right, bottom and top in original pixels."""

    @property
    def has_holes(self) -> bool:
        """Whether there are points without a value and without a plane that says why."""
        holes = np.isnan(self.values)
        for hit in self.flags.values():
            holes &= ~hit
        return bool(holes.any())

    @property
    def note(self) -> str:
        """What a pixel of the screen is, if it is not one of the image."""
        rows, columns = self.block
        if self.block == (1, 1):
            return ""
        text = f"each point is the mean of {rows} x {columns} pixels"
        return text if self.left_out == 1 else f"{text}, of one row in {self.left_out}; a pyramid has all"

    def label(self, plane: str) -> str:
        """Return the name of a plane and how much of the picture has it."""
        share = _percent(float(self.flags[plane].mean()))
        return f"{plane} {share}" if self.block == (1, 1) else f"{plane} in {share} of the points"


def on_screen(
    ds: xr.Dataset, size: int | None = SIZE, planes: bool | str | Sequence[str] = True, variable: str = DATA
) -> Screen:
    """Compute the pixels of a picture of a frame.

    Parameters
    ----------
    ds
        A frame of any size. If it is an archived image with a pyramid, the level next to the size is read.
    size
        Most pixels along an axis of the picture; None for all of the image.
    planes
        Which mask planes to tell: all, none, or those named.
    variable
        What to draw: ``data``, ``uncertainty``, or a map such as ``n_used``.

    Raises
    ------
    ParameterError
        Raised if the size is not positive, or the frame has no such plane or variable.
    """
    if size is not None and size < 1:
        raise ParameterError(f"size={size} must be at least 1 pixel, or None for all pixels of the image.")
    image = resolve(_as_data(ds, variable))
    names = _plane_names(image, planes)
    level, factor = (image, 1) if variable != DATA else _level_of(image, size)
    rows, columns, skip = _block_of(level.shape, size)
    small = _binned(level, rows, columns, skip).to_dataset().compute()
    mask = small[MASK].values if MASK in small else None
    flags, colours = _flags(mask, image, names)
    block = (rows * skip * factor, columns * factor)
    unit = unit_to_text(image.units)
    return Screen(small[DATA].values, flags, colours, unit, block, skip, _extent(image, small[DATA].shape, block))


def _as_data(ds: xr.Dataset, variable: str) -> xr.Dataset:
    """Return a frame whose data are a variable of a frame."""
    if variable not in ds or variable == MASK:
        there = [name for name in (DATA, UNCERTAINTY, *MAPS) if name in ds]
        raise ParameterError(f"variable={variable!r} must be one of those that the frame has: {', '.join(there)}.")
    # a plane that is not drawn need not be computed
    wanted = ds[[variable, MASK] if MASK in ds else [variable]]
    return wanted if variable == DATA else wanted.rename({variable: DATA})


def _plane_names(image: Image, planes: bool | str | Sequence[str]) -> tuple[str, ...]:
    """Return the mask planes that are asked for, in the order in which they are drawn."""
    if not image.has_mask or planes is False:
        return ()
    names = image.schema.names
    if planes is not True:
        wanted = [planes] if isinstance(planes, str) else list(planes)
        image.schema.bits(*wanted)  # its message lists the planes that there are
        names = tuple(name.upper() for name in wanted)
    order = list(COLOURS)
    # planes of other cameras say what is wrong with a pixel, and so lie above what says little
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else order.index("LOW_FLAT") + 0.5))


def _level_of(image: Image, size: int | None) -> tuple[Image, int]:
    """Return the smallest level of a pyramid that has as many pixels as the picture, and how much smaller than the image it is."""
    read = {source.storage for source in sources(image.plan)}
    archived = {storage for storage in read if isinstance(storage, ZarrStorage)}
    stores = {storage.store for storage in archived}
    if size is None or len(stores) != 1 or archived != read or max(image.shape) < 2 * size:
        return image, 1
    store = stores.pop()
    wanted = int(math.log2(max(image.shape) / size))
    level = min(wanted, levels_of(store) - 1)
    if level < 1:
        return image, 1
    paths = {storage.path.rpartition("/")[0] for storage in archived}
    group = paths.pop() if len(paths) == 1 else ""
    frame = "" if group.isdecimal() else f"/{group}"
    try:
        opened: list[Any] = [open_zarr(f"{store}{frame}", level=number) for number in (0, level)]
        full, smaller = (resolve(_as_data(ds, DATA)) for ds in opened)
    except LazyCCDError:
        return image, 1
    # Something was done to the pixels since they were read, and the level does not know of it.
    if full.plan.token != image.plan.token:
        return image, 1
    return smaller, 2**level


def _block_of(shape: tuple[int, int], size: int | None) -> tuple[int, int, int]:
    """Return the rows and columns under a pixel of the screen, and every how many rows one is read."""
    side = 1 if size is None else max(1, -(-max(shape) // size))
    # several rows of each point that lie apart would be read with all between them
    skip = 1 if size is None or shape[0] * shape[1] <= MOST_PIXELS else side
    return side // skip, side, skip


def _binned(image: Image, rows: int, columns: int, skip: int) -> Image:
    """Return the image of the pixels of the screen."""
    if skip > 1:
        image = image.window((0, 0), (skip, 1), (-(-image.shape[0] // skip), image.shape[1]))
    shape = (-(-image.shape[0] // rows), -(-image.shape[1] // columns))
    data = np.dtype(np.float64 if image.dtype.itemsize > 4 or image.dtype.kind == "i" else np.float32)
    uses = ((DATA, (DATA, MASK)), (MASK, (DATA, MASK)))
    plan = Apply(
        shape,
        make_dtypes(data=data, mask=image.plan.dtypes.get(MASK)),
        kernel=screen_pixels,
        sources=(Input(image.plan, Blocks((rows, columns)), uses),),
        params=make_params(size=(rows, columns), bad_bits=image.schema.bad_bits),
    )
    # rows that lie far apart are read whole, and in narrow chunks each would be read again and again
    grid = _coarser(image.grid, (rows, columns), shape) if skip == 1 else regular_grid(shape, (64, shape[1]))
    y, x = (np.arange(length, dtype=float) for length in shape)
    return replace(image, plan=plan, grid=grid, y=y, x=x)


def _coarser(grid: Grid, block: tuple[int, int], shape: tuple[int, int]) -> Grid:
    """Return chunks of the screen whose pixels come from the chunks of the image, as far as these fit its pixels."""
    found = []
    for sizes, side, length in zip(grid, block, shape, strict=True):
        ends = {min(length, round(end / side)) for end in np.cumsum(sizes).tolist()} | {length}
        found.append(tuple(np.diff([0, *sorted(ends - {0})]).tolist()))
    return found[0], found[1]


def _flags(mask: Array | None, image: Image, names: Sequence[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return where each plane is that occurs, and its colour."""
    flags: dict[str, Array] = {}
    colours: dict[str, str] = {}
    more = cycle(MORE_COLOURS)
    for name in names if mask is not None else ():
        assert mask is not None
        hit = (mask & mask.dtype.type(image.schema.bits(name))) != 0
        if hit.any():  # a legend names what occurs, not all that could
            flags[name], colours[name] = hit, COLOURS.get(name) or next(more)
    return flags, colours


def _extent(image: Image, shape: tuple[int, ...], block: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of the picture in original pixels."""
    edges: list[float] = []
    # half a step beyond the centres of the outer pixels; a trimmed or binned frame knows its original positions
    for axis, positions, pixels in (("x", image.x, shape[1] * block[1]), ("y", image.y, shape[0] * block[0])):
        first, step = lattice(positions, axis)
        edges += [first - step / 2, first + step * (pixels - 0.5)]
    return edges[0], edges[1], edges[2], edges[3]


def grey_limits(values: Array, interval: str = "zscale") -> Limits:
    """Return the values that are black and white: ``zscale`` as of IRAF, ``minmax``, or ``percentile`` (the inner 99 %).

    Raises
    ------
    ParameterError
        Raised if the interval has another name.

    Examples
    --------
    >>> grey_limits(np.array([1.0, 5.0, np.nan]), "minmax")
    (1.0, 5.0)
    """
    if interval not in INTERVALS:
        raise ParameterError(f"interval {interval!r} must be one of {', '.join(INTERVALS)}.")
    good = values[np.isfinite(values)]
    if not good.size:
        return 0.0, 1.0
    if interval == "zscale":
        from astropy.visualization import ZScaleInterval  # takes 0.4 s to import

        # a thousand values are looked at; the rest would only be copied
        low, high = ZScaleInterval().get_limits(good[:: max(1, good.size // 2**16)])
    elif interval == "percentile":
        low, high = np.percentile(good, (0.5, 99.5))
    else:
        low, high = good.min(), good.max()
    return float(low), float(high)


def chosen_limits(values: Array, interval: str, vmin: float | None, vmax: float | None) -> Limits:
    """Return the values that are black and white: those that are given, else those of the interval.

    Raises
    ------
    ParameterError
        Raised if ``vmin`` is not below ``vmax``, or the interval has another name.

    Examples
    --------
    >>> chosen_limits(np.array([1.0, 5.0]), "minmax", 7.0, None)  # brighter than all: white lies above it
    (7.0, 8.0)
    """
    if vmin is not None and vmax is not None and not vmin < vmax:
        raise ParameterError(f"vmin={vmin:g} must be below vmax={vmax:g}; correct one of them.")
    found = grey_limits(values, interval)
    low, high = found[0] if vmin is None else vmin, found[1] if vmax is None else vmax
    if low < high:
        return low, high
    return (high - 1, high) if vmin is None and vmax is not None else (low, low + 1)


def grey_levels(values: Array, limits: Limits, stretch: str = "asinh") -> Array:
    """Return the brightness of values, from 0 (black) to 1 (white); NaN stays NaN.

    Raises
    ------
    ParameterError
        Raised if the stretch has another name than ``asinh``, ``linear``, ``log`` or ``sqrt``.

    Examples
    --------
    >>> grey_levels(np.array([10.0, 15.0, 30.0]), (10, 20), "sqrt").round(3)
    array([0.   , 0.707, 1.   ])
    """
    if stretch not in STRETCHES:
        raise ParameterError(f"stretch {stretch!r} must be one of {', '.join(STRETCHES)}.")
    low, high = limits
    part = np.clip((values - low) / ((high - low) or 1), 0, 1)
    if stretch == "asinh":
        return np.asarray(np.arcsinh(part / 0.1) / np.arcsinh(10.0))
    if stretch == "log":
        return np.asarray(np.log1p(1000 * part) / np.log(1001.0))
    return np.asarray(np.sqrt(part) if stretch == "sqrt" else part)


def save_png(
    path: str,
    target: Path,
    title: str = "",
    *,
    size: int | None = SIZE,
    planes: bool | str | Sequence[str] = True,
    variable: str = DATA,
    interval: str = "zscale",
    vmin: float | None = None,
    vmax: float | None = None,
    stretch: str = "asinh",
    cmap: str = "gray",
) -> None:
    """Draw a file or store into a PNG picture without axes, all images of it; see `lazyccd.plot.show` for how.

    The picture appears under its name when it is complete.
    """
    screens = _screens(open_image(path), size, planes, variable)
    limits = {name: chosen_limits(screen.values, interval, vmin, vmax) for name, screen in screens.items()}
    _write_png(screens, limits, title or _last_part(path), target, stretch, cmap)


def draw_product(path: str, target: Path, before: xr.Dataset | xr.DataTree | None = None) -> None:
    """Draw a product of a night, and what it was made of, in one stretch.

    Parameters
    ----------
    path
        The product: a FITS file or Zarr store.
    target
        PNG file to write.
    before
        The raw exposure in the units of the product; it goes to ``<name>_raw.png``. Its black and white lie as far from its median
        as those of the product from that of the product, so that equal contrast is an equal number of electrons in both.
    """
    after = _screens(open_image(path))
    limits = {name: grey_limits(screen.values) for name, screen in after.items()}
    _write_png(after, limits, _last_part(path), target)
    if before is None:
        return
    levels = {name: _level(screen) for name, screen in after.items()}
    low, high = (np.median([limits[name][end] - levels[name] for name in after]) for end in (0, 1))
    raw = _screens(before)
    same = {name: (_level(screen) + float(low), _level(screen) + float(high)) for name, screen in raw.items()}
    title = f"before: {_last_part(path)}, same contrast"
    _write_png(raw, same, title, target.with_name(f"{target.stem}_raw{target.suffix}"))


def _screens(given: xr.Dataset | xr.DataTree, size: int | None = SIZE, *how: Any) -> dict[str, Screen]:
    """Return the pixels of the pictures of all frames by their names."""
    if isinstance(given, xr.Dataset):
        return {"": on_screen(given, size, *how)}
    frames = frames_of(given)
    side = None if size is None else max(64, size // math.ceil(math.sqrt(len(frames))))
    return {name: on_screen(frame, side, *how) for name, frame in frames.items()}


def _level(screen: Screen) -> float:
    """Return the median of a picture; 0 if it is empty."""
    level = median(screen.values)
    return level if math.isfinite(level) else 0.0


def _last_part(path: str) -> str:
    """Return the name of a file or store without its folder."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def _write_png(
    screens: Mapping[str, Screen],
    limits: Mapping[str, Limits],
    title: str,
    target: Path,
    stretch: str = "asinh",
    cmap: str = "gray",
) -> None:
    """Write panels with a caption into a PNG file."""
    planes = {name: colour for screen in screens.values() for name, colour in screen.colours.items()}
    order = {name: GREYS + 3 + number for number, name in enumerate(planes)}
    panels = [_panel(name, screen, limits[name], stretch, order) for name, screen in screens.items()]
    columns = math.ceil(math.sqrt(len(panels)))
    height, width = (max(panel.shape[axis] for panel in panels) + _PANEL_GAP for axis in (0, 1))
    across = max(columns * width - _PANEL_GAP, 420)
    canvas = np.full((-(-len(panels) // columns) * height, across), GREYS + 2, np.uint8)
    for number, panel in enumerate(panels):
        y, x = number // columns * height, number % columns * width
        canvas[y : y + panel.shape[0], x : x + panel.shape[1]] = panel
    caption = _caption(screens, limits, title, canvas.shape[1], order)
    picture = PngImage.fromarray(np.concatenate([canvas, caption]))
    picture.putpalette(_palette(planes, cmap))
    encoded = io.BytesIO()
    # noise does not compress: 13 ms by run lengths, 35 ms by the usual search for repetitions, which finds no byte less
    about = PngInfo()
    about.add_text(CAPTION_BELOW, str(len(canvas)))
    picture.save(encoded, "png", compress_level=1, compress_type=3, pnginfo=about)
    _write_whole(target, encoded.getvalue())


def _panel(name: str, screen: Screen, limits: Limits, stretch: str, order: Mapping[str, int]) -> Array:
    """Return the colour numbers of a frame, first row at the bottom, with its name above if it has one."""
    low, high = limits
    # a stretch of a million values takes as long as all the rest, so it is looked up
    table = (grey_levels(np.linspace(0, 1, _STEPS), (0, 1), stretch) * (GREYS - 1) + 0.5).astype(np.uint8)
    missing = np.isnan(screen.values)
    steps = np.clip((screen.values - low) * ((_STEPS - 1) / ((high - low) or 1)), 0, _STEPS - 1)
    colours = table[np.where(missing, 0, steps).astype(np.uint16)]
    colours[missing] = GREYS
    for plane, hit in screen.flags.items():
        colours[hit] = order[plane]
    colours = colours[::-1]
    if not name:
        return colours
    return np.concatenate([_text([[(None, name)]], colours.shape[1]), colours])


def _caption(
    screens: Mapping[str, Screen], limits: Mapping[str, Limits], title: str, width: int, order: Mapping[str, int]
) -> Array:
    """Return the lines below a picture: title, scale, planes."""
    first = next(iter(screens.values()))
    low, high = (np.median([limit[end] for limit in limits.values()]) for end in (0, 1))
    ends = f"black {low:.4g}, white {high:.4g} {first.unit}".rstrip()
    several = " (median of the frames)" if len(screens) > 1 else ""
    lines: list[list[tuple[int | None, str]]] = [[(None, title)]] if title else []
    lines.append([(None, f"{ends}{several}")])
    if first.note:
        lines.append([(None, first.note)])
    keys: list[tuple[int | None, str]] = []
    for plane, number in order.items():
        share = np.mean([screen.flags[plane].mean() if plane in screen.flags else 0.0 for screen in screens.values()])
        keys.append((number, f"{plane} {_percent(float(share))}"))
    if any(screen.has_holes for screen in screens.values()):
        keys.append((GREYS, "no value"))
    fit = max(1, width // 140)
    lines += [keys[start : start + fit] for start in range(0, len(keys), fit)]
    return _text(lines, width)


def _percent(share: float) -> str:
    """Return a share in percent; one that is not 0 does not look like it."""
    return "<0.01%" if 0 < share < 5e-5 else f"{share:.2%}"


def _text(lines: Sequence[Sequence[tuple[int | None, str]]], width: int) -> Array:
    """Return lines of text, dark on white, as colour numbers; each text may have a square in a colour before it."""
    paper = PngImage.new("L", (width, _LINE * len(lines)), 255)
    pen = ImageDraw.Draw(paper)
    font = ImageFont.load_default(14)
    squares = []
    for number, line in enumerate(lines):
        for place, (colour, text) in enumerate(line):
            x, y = 6 + 140 * place, _LINE * number
            if colour is not None:
                squares.append((slice(y + 5, y + 17), slice(x, x + 12), colour))
            pen.text((x + (18 if colour is not None else 0), y + 2), text, 30, font)
    # two colours of their own, or text would be as unreadable as a colormap makes it
    array = np.where(np.asarray(paper) > 140, GREYS + 2, GREYS + 1).astype(np.uint8)
    for rows, columns, colour in squares:
        array[rows, columns] = colour
    return array


def colormap(name: str) -> Any:
    """Return a colormap of matplotlib.

    Raises
    ------
    ParameterError
        Raised if there is none of that name.
    """
    from matplotlib import colormaps  # takes 0.6 s to import

    if name not in colormaps:
        near = get_close_matches(name, colormaps, 3) or ["gray", "viridis", "magma"]
        raise ParameterError(f"cmap {name!r} must be a colormap of matplotlib, such as {', '.join(near)}.")
    return colormaps[name]


def _palette(planes: Mapping[str, str], cmap: str) -> list[int]:
    """Return red, green and blue of all colour numbers: levels, no value, ink, paper, planes."""
    even = np.linspace(0, 1, GREYS)
    levels = np.repeat(even[:, None], 3, axis=1) if cmap == "gray" else colormap(cmap)(even)[:, :3]
    extra = [_rgb(NAN_COLOUR), (30, 30, 30), (255, 255, 255), *map(_rgb, planes.values())]
    return [*(levels * 255).round().astype(int).ravel().tolist(), *(part for colour in extra for part in colour)]


def _rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a colour as HTML writes it."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _write_whole(target: Path, content: bytes) -> None:
    """Write a file that never is seen half-written."""
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(content)
        os.replace(part, target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
