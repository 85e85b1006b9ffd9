"""Shifts of the frames of a stack, in whole pixels: by WCS, by physical coordinates, by a table, or by correlation.

No pixel is resampled. Shifted frames are read shifted, so that a stack with offsets costs what one without does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute

from lazyccd.errors import FrameError, ParameterError
from lazyccd.frame.core import DATA, MASK, Image
from lazyccd.frame.header import header_view
from lazyccd.frame.stack_header import wcs_differs
from lazyccd.frame.wcs import image_wcs, lattice
from lazyccd.kernels import block_reduce, pointwise
from lazyccd.kernels.block import Array
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.ops.stack.inputs import Given, check_shapes, collect, tree_by_tree
from lazyccd.plan.footprints import Blocks, Shifted
from lazyccd.plan.lower import lower_image
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params

logger = logging.getLogger(__name__)

LONGEST_SIDE = 1024
"""Images are binned to at most this many pixels along a side before they are correlated."""

CLIPPED_SKY = 10.0
"""In deviations above the sky. Brighter pixels count as this bright, or a few saturated stars would decide alone."""


def offsets_of(given: Given, offsets: Any) -> list[tuple[int, int]] | None:
    """Return for each frame the row and column of the first frame where its pixel (0, 0) lies; None without offsets."""
    if offsets is None:
        return None
    if isinstance(offsets, str):
        if offsets == "wcs":
            return [_by_wcs(given, i) for i in range(len(given.images))]
        if offsets == "physical":
            return [_by_physical(given, i) for i in range(len(given.images))]
        raise ParameterError(f"offsets {offsets!r} must be None, 'wcs', 'physical' or a table of rows and columns.")
    table = np.asarray(offsets, float)
    if table.shape != (len(given.images), 2) or not np.isfinite(table).all():
        raise ParameterError(
            f"offsets has shape {table.shape} and must have ({len(given.images)}, 2): row and column for each frame."
        )
    # not np.round: halves to even would make equal dithers by half a pixel unequal
    shifts = np.floor(table + 0.5).astype(int)
    return [(int(y - shifts[0, 0]), int(x - shifts[0, 1])) for y, x in shifts]


def on_each_other(given: Given) -> bool:
    """Return whether frames that are combined pixel by pixel show the same sky, as far as their headers say."""
    if not wcs_differs([image.header for image in given.images]):
        return True
    try:
        return all(_by_wcs(given, i) == (0, 0) for i in range(len(given.images)))
    # headers without a celestial WCS cannot contradict each other, but axes of another kind, as spectra have, can
    except FrameError:
        return not any("CTYPE2" in header_view(image.header) for image in given.images)


def place(images: Sequence[Image], offsets: Sequence[tuple[int, int]]) -> list[Image]:
    """Return images of the common footprint, NaN and NO_DATA where an image has no pixels."""
    low = [min(offset[axis] for offset in offsets) for axis in (0, 1)]
    ends = [
        max(offset[axis] + image.shape[axis] for offset, image in zip(offsets, images, strict=True)) for axis in (0, 1)
    ]
    shape = (ends[0] - low[0], ends[1] - low[1])
    first = images[0]
    y, x = (_extended(getattr(first, name), low[k], shape[k], name) for k, name in enumerate("yx"))
    placed = []
    for image, offset in zip(images, offsets, strict=True):
        here = (offset[0] - low[0], offset[1] - low[1])
        plan = Apply(
            shape,
            image.plan.planes,
            kernel=pointwise.shifted,
            sources=(Input(image.plan, Shifted(here)),),
            params=make_params(
                offset=here,
                dtypes=tuple((name, dtype.name) for name, dtype in image.plan.planes),
                no_data=image.schema.bits("NO_DATA"),
            ),
        )
        placed.append(replace(image, plan=plan, grid=((shape[0],), (shape[1],)), y=y, x=x))
    return placed


def _extended(positions: Array, low: int, length: int, what: str) -> Array:
    """Return original positions of the first frame, extended beyond its edges."""
    first, step = lattice(positions, what)
    numbers = first + step * np.arange(low, low + length)
    return numbers.astype(np.int64) if float(first).is_integer() and float(step).is_integer() else numbers


def _by_wcs(given: Given, index: int) -> tuple[int, int]:
    """Return where a frame's center lies in the first frame, less where it lies in itself, in whole pixels."""
    systems = []
    for i in (0, index):
        image = given.images[i]
        wcs = image_wcs(image, given.labels[i])
        if wcs is None:
            raise FrameError(f"{given.labels[i]} has no celestial WCS for offsets='wcs'; give a table of offsets.")
        systems.append(wcs)
    # at the center: at a corner, half the rotation and scale between the frames would be taken for a shift
    ny, nx = given.images[index].shape
    x, y = systems[0].world_to_pixel(systems[1].pixel_to_world((nx - 1) / 2, (ny - 1) / 2))
    shift = (float(y) - (ny - 1) / 2, float(x) - (nx - 1) / 2)
    if not np.isfinite(shift).all():
        raise FrameError(f"{given.labels[index]} is not on the sky of {given.labels[0]}; give a table of offsets.")
    return int(np.floor(shift[0] + 0.5)), int(np.floor(shift[1] + 0.5))


def _by_physical(given: Given, index: int) -> tuple[int, int]:
    """Return a frame's place on the detector: original positions, less LTV of the header."""
    places = []
    for i in (0, index):
        image = given.images[i]
        header = header_view(image.header)
        # LTV alone does not place a binned frame, one of whose pixels is several of the detector
        for name in ("LTM1_1", "LTM2_2"):
            if float(header.get(name, 1.0)) != 1.0:
                raise FrameError(
                    f"{given.labels[i]} has {name} = {header[name]} and must have 1; give a table of offsets."
                )
        ltv = [float(header.get(name, 0.0)) for name in ("LTV2", "LTV1")]
        places.append((float(image.y[0]) - ltv[0], float(image.x[0]) - ltv[1]))
    (y0, x0), (y1, x1) = places
    return round(y1 - y0), round(x1 - x0)


@tree_by_tree
def register(frames: Any) -> npt.NDArray[np.int64]:
    """Return whole-pixel offsets of frames from the first, by cross-correlation of their binned, masked images.

    Parameters
    ----------
    frames
        Frames, CCDData or paths, as for `combine`, of one shape; or trees of frames.

    Returns
    -------
    npt.NDArray
        Shape (number of frames, 2): row and column of the first frame where each frame's pixel (0, 0) lies, for
        ``combine(..., offsets=...)``; for trees, a mapping of such arrays by the names of their frames. Computed now: each
        frame is read once, in bands. They are logged as well. ``lazyccd combine --offsets`` takes and prints them in IRAF's
        order, x and y.

    Raises
    ------
    ShapeError
        Raised if the shapes differ.

    Notes
    -----
    Images are binned to at most 1024 pixels along a side. Bad pixels count as sky, and pixels more than ten deviations above
    the sky as ten deviations above it. The shift of the binned images is then refined on unbinned pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> sky = np.random.default_rng(1).normal(100, 1, (40, 50))
    >>> sky[20, 30] = sky[8, 11] = sky[33, 9] = 900
    >>> frames = [CCDData(np.roll(sky, shift, (0, 1)), unit="adu") for shift in ((0, 0), (3, -2))]
    >>> register(frames).tolist()
    [[0, 0], [-3, 2]]
    """
    given = collect(frames)
    check_shapes(given.images, given.labels)
    # a transform of two whole 8k frames would take gigabytes, padded as they have to be
    size = max(1, -(-max(given.images[0].shape) // LONGEST_SIDE))
    first = _binned(given.images[0], size)
    shifts = [(0, 0)]
    for image in given.images[1:]:
        y, x = correlate(first, _binned(image, size))
        shifts.append((y * size, x * size))
    if size > 1:
        shifts = [
            shifts[0],
            *(_refined(given.images[0], i, s, size) for i, s in zip(given.images[1:], shifts[1:], strict=True)),
        ]
    for label, (y, x) in zip(given.labels, shifts, strict=True):
        logger.info("register: %s lies at row %d, column %d of the first frame.", label, y, x)
    return np.array(shifts, np.int64)


def _pixels(image: Image) -> tuple[Array, Array]:
    """Return data and badness of an image."""
    kinds: dict[str, Any] = {DATA: "data", **({MASK: "mask"} if image.has_mask else {})}
    values = compute(*lower_image(image.plan, image.grid, kinds, image.graphs).values())
    bad = ~np.isfinite(values[0])
    if image.has_mask:
        bad |= (values[1] & values[1].dtype.type(image.schema.bad_bits)) != 0
    return values[0], bad


def _binned(image: Image, size: int) -> Array:
    """Return an image binned, above its sky in deviations, bad pixels as sky."""
    shape = (image.shape[0] // size, image.shape[1] // size)
    plan = Apply(
        shape,
        make_dtypes(data=np.float64),
        kernel=block_reduce.box_mean,
        sources=(Input(image.plan, Blocks((size, size)), (("data", ("data", "mask")),)),),
        params=make_params(size=size, bad=image.schema.bad_bits),
    )
    small = replace(image, plan=plan, grid=((shape[0],), (shape[1],)), y=np.arange(shape[0]), x=np.arange(shape[1]))
    return _above_sky(*_pixels(small))


def _above_sky(values: Array, bad: Array) -> Array:
    """Return values above the sky in deviations, limited, 0 where they are bad."""
    good = values[~bad]
    if good.size == 0:
        return np.zeros(values.shape)
    sky = float(np.median(good))
    # a faint sky in integers may have a median deviation of 0
    deviation = MAD_TO_SIGMA * float(np.median(np.abs(good - sky))) or 1.0
    return np.where(bad, 0.0, np.clip((np.where(bad, sky, values) - sky) / deviation, 0, CLIPPED_SKY))


def correlate(first: Array, second: Array) -> tuple[int, int]:
    """Return the offset of the second image that correlates best with the first."""
    from scipy import fft  # takes long to import, and few stacks need it

    # padded with zeros, so that shifts beyond half of the image are seen: skimage's phase_cross_correlation takes images as
    # periodic and cannot, and its masked variant takes ten times as long
    shape = [fft.next_fast_len(a + b, real=True) for a, b in zip(first.shape, second.shape, strict=True)]
    product = fft.rfft2(first, shape) * np.conj(fft.rfft2(second, shape))
    plane = fft.irfft2(product, shape)
    y, x = np.unravel_index(int(np.argmax(plane)), plane.shape)
    return tuple(int(p if p < s // 2 else p - s) for p, s in zip((y, x), shape, strict=True))  # type: ignore[return-value]


def _refined(first: Image, second: Image, shift: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the offset found on unbinned pixels of the common part's center, near one that is known to a bin."""
    side = 2 * LONGEST_SIDE
    low = [max(0, s) for s in shift]
    high = [min(a, b + s) for a, b, s in zip(first.shape, second.shape, shift, strict=True)]
    box = [(max(lo, (lo + hi - side) // 2), min(hi, (lo + hi + side) // 2)) for lo, hi in zip(low, high, strict=True)]
    shape = (box[0][1] - box[0][0], box[1][1] - box[1][0])
    # an overlap of a few bins has too little sky to be refined; the shift is right to a bin
    if min(shape) < 4 * size:
        return shift
    one = first.window((box[0][0], box[1][0]), (1, 1), shape)
    start = (max(0, box[0][0] - shift[0]), max(0, box[1][0] - shift[1]))
    other_shape = tuple(min(n, s - a) for n, s, a in zip(shape, second.shape, start, strict=True))
    two = second.window(start, (1, 1), (other_shape[0], other_shape[1]))
    y, x = correlate(_above_sky(*_pixels(one)), _above_sky(*_pixels(two)))
    return box[0][0] + y - start[0], box[1][0] + x - start[1]
