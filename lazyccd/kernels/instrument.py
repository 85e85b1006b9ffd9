"""Instrument signatures on blocks: bleed trails, non-linearity, crosstalk and fringes.

Fringes: `fringe_boxes` reduces image and fringe frame to means of 8 x 8 pixels, `fringe_scale` fits the one to the other
with a sky of its own in each cell of 128 x 128 pixels, and `subtract_scaled` subtracts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.pointwise import Remap, add_scaled, or_masks
from lazyccd.kernels.quantiles import MAD_TO_SIGMA

FRINGE_BOX = 8
"""Side of the boxes whose means are compared with those of the fringe frame."""

FRINGE_CELL = 128
"""Side of the cells in which the sky counts as constant."""

FRINGE_SIGMA = 3.0
"""Boxes further from the fit than so many robust standard deviations hold stars."""

FRINGE_ITERATIONS = 20
"""How often boxes are left out, at most."""


def flag_trails(request: Request, a: Block, *, level: float, length: int, bit: int, mask_dtype: str) -> Block:
    """Flag runs of pixels along a column that are at or above a level: the trails of bleeding charge.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, with the margin of `trail_halo`.
    level
        Level in the unit of the data.
    length
        Least number of pixels in a run.
    bit
        Bit to set.
    mask_dtype
        Dtype of the mask in the result.
    """
    cut = request.region.within(a.region)
    mask = None
    if "mask" in request.planes:
        hit = np.zeros(a.region.shape, np.bool_)
        # Contiguous: a view would compile the loop once more.
        _long_runs(np.ascontiguousarray(a.plane("data") >= level), length, hit)
        found = np.where(hit[cut], np.dtype(mask_dtype).type(bit), np.dtype(mask_dtype).type(0))
        mask = or_masks(request, None if a.mask is None else a.mask[cut], found, mask_dtype)
    planes = {name: a.plane(name)[cut] for name in ("data", "variance") if name in request.planes}
    return Block(request.region, mask=mask, **planes)


def trail_halo(length: int) -> tuple[int, int]:
    """Return how many pixels `flag_trails` looks beyond a region along y and x."""
    return length - 1, 0


@compiled
def _long_runs(above: Array, length: int, out: Array) -> None:
    """Set the pixels of runs along columns that have at least ``length`` pixels."""
    ny, nx = above.shape
    for x in range(nx):
        run = 0
        # One row more, so that a run that ends with the column is closed too.
        for y in range(ny + 1):
            if y < ny and above[y, x]:
                run += 1
                continue
            if run >= length:
                out[y - run : y, x] = True
            run = 0


def linearize(
    request: Request,
    a: Block,
    *,
    coefficients: tuple[float, ...],
    table: tuple[tuple[float, ...], tuple[float, ...]],
    limit: float,
    bit: int,
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Return what a linear detector would have read; the variance is multiplied by the square of the derivative.

    Parameters
    ----------
    request
        Region and planes wanted.
    a
        The image, in the unit of the coefficients or the table.
    coefficients
        Polynomial from measured to true values, constant first; empty to use the table.
    table
        Measured and true values, with straight lines between them. Beyond the ends the difference stays that of the end.
    limit
        Values above are beyond what was measured.
    bit
        Bit for these.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    """
    x, y = table
    measured = a.plane("data").astype(np.float64)
    data = variance = mask = None
    if "data" in request.planes:
        if coefficients:
            data = np.polynomial.polynomial.polyval(measured, coefficients).astype(dtype)
        else:
            inside = np.clip(measured, x[0], x[-1])
            # `np.interp` is constant beyond its ends; what lies beyond is added again, so that bright pixels stay in
            # order.
            data = (np.interp(inside, x, y) + (measured - inside)).astype(dtype)
    if "variance" in request.planes:
        slope = _slope(measured, coefficients, table)
        variance = (a.plane("variance") * slope**2).astype(dtype)
    if "mask" in request.planes:
        above = np.where(measured > limit, np.dtype(mask_dtype).type(bit), np.dtype(mask_dtype).type(0))
        mask = or_masks(request, a.mask, above, mask_dtype)
    return Block(request.region, data, variance, mask)


def _slope(measured: Array, coefficients: tuple[float, ...], table: tuple[tuple[float, ...], ...]) -> Array:
    """Return the derivative of the correction; that of a table is the slope of each segment, 1 beyond its ends."""
    if coefficients:
        derivative = np.polynomial.polynomial.polyder(np.array(coefficients))
        return np.asarray(np.polynomial.polynomial.polyval(measured, derivative))
    x, y = np.array(table[0]), np.array(table[1])
    slopes = np.concatenate([[1.0], np.diff(y) / np.diff(x), [1.0]])
    place = np.searchsorted(x, measured, side="right")
    # The last measured value belongs to the last segment; the search puts it beyond.
    return np.asarray(slopes[np.where(measured == x[-1], x.size - 1, place)])


def remove_crosstalk(
    request: Request,
    victim: Block | None,
    *sources: Block | None,
    coefficients: tuple[float, ...],
    unknown: int,
    above: float,
    bit: int,
    dtype: str,
    mask_dtype: str,
) -> Block:
    """Subtract from a block a fraction of others, pixel by pixel.

    Source pixels that are not finite, or that have one of the bits ``unknown``, leave nothing behind. The variance gets the
    squares of the fractions times theirs.

    Parameters
    ----------
    request
        Region and planes wanted.
    victim
        The image that is corrected; None if only the mask is wanted and it has none.
    sources
        The images that talk, in the same readout order; None for one without the planes wanted.
    coefficients
        Fraction of each source.
    unknown
        Bits of sources by which nothing is known of their signal.
    above, bit
        Sources at or above this level set this bit.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    """
    data = variance = mask = None
    given_blocks = [(source, c) for source, c in zip(sources, coefficients, strict=True) if source is not None]
    if "data" in request.planes:
        assert victim is not None
        # In double precision: fractions are about 1e-4, and many sources are added up.
        total = victim.plane("data").astype(np.float64)
        for source, fraction in given_blocks:
            total -= fraction * _known(source.plane("data"), source, unknown)
        data = total.astype(dtype)
    if "variance" in request.planes:
        squares = np.zeros(request.region.shape)
        if victim is not None and victim.variance is not None:
            squares += victim.variance
        for source, fraction in given_blocks:
            if source.variance is not None:
                squares += fraction**2 * _known(source.variance, source, unknown)
        variance = squares.astype(dtype)
    if "mask" in request.planes:
        bright = np.zeros(request.region.shape, bool)
        for source, _ in given_blocks:
            bright |= _known(source.plane("data"), source, unknown) >= above
        mask = np.where(bright, np.dtype(mask_dtype).type(bit), np.dtype(mask_dtype).type(0))
        mask = or_masks(request, None if victim is None else victim.mask, mask, mask_dtype)
    return Block(request.region, data, variance, mask)


def _known(values: Array, source: Block, unknown: int) -> Array:
    """Return values of a source, 0 where its signal is not known."""
    known = np.isfinite(source.plane("data")) & np.isfinite(values)
    if source.mask is not None:
        known &= (source.mask & source.mask.dtype.type(unknown)) == 0
    # 0 and not NaN: one bad source pixel must not make the victim bad.
    return np.where(known, values, 0)


def subtract_scaled(
    request: Request,
    a: Block,
    b: Block | None,
    *,
    scale: Array,
    factor: float,
    dtype: str,
    mask_dtype: str,
    remap: Remap,
) -> Block:
    """Return ``a - scale * factor * b``; variances are added, masks united.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        Image and fringe frame; ``b`` is None if only a plane is wanted that it lacks.
    scale
        Its first number is the scale, a global number of the plan.
    factor
        From the units of ``b`` to those of ``a``.
    dtype
        Dtype of data and variance in the result.
    mask_dtype
        Dtype of the mask in the result.
    remap
        Bits of the second mask and what each becomes in the result.
    """
    number = float(np.asarray(scale).ravel()[0]) * factor
    return add_scaled(request, a, b, scale=-number, dtype=dtype, mask_dtype=mask_dtype, remap=remap)


def beside(request: Request, a: Block, b: Block, *, bad: tuple[int, int], dtype: str) -> Block:
    """Return two images in one block, the second in the plane of the variance; NaN where either is bad.

    Parameters
    ----------
    request
        Region and planes wanted.
    a, b
        The images.
    bad
        Bits of each mask that make a pixel bad.
    dtype
        Dtype of both planes.
    """
    good = np.ones(request.region.shape, bool)
    for block, bits in zip((a, b), bad, strict=True):
        if block.mask is not None:
            good &= (block.mask & block.mask.dtype.type(bits)) == 0
    return Block(
        request.region,
        np.where(good, a.plane("data"), np.nan).astype(dtype),
        np.broadcast_to(b.plane("data"), request.region.shape).astype(dtype),
    )


def fringe_boxes(block: Block) -> Array:
    """Return, for each box of a tile, the number of its cell and the means of both images over good pixels.

    Boxes of which less than half is good are left out, and so are those cut by the edge of the image.
    """
    ny, nx = (length // FRINGE_BOX for length in block.region.shape)
    boxes = (ny, FRINGE_BOX, nx, FRINGE_BOX)
    cut = (slice(0, ny * FRINGE_BOX), slice(0, nx * FRINGE_BOX))
    both = [block.plane(name)[cut].astype(np.float64).reshape(boxes) for name in ("data", "variance")]
    good = np.isfinite(both[0]) & np.isfinite(both[1])
    count = good.sum(axis=(1, 3))
    keep = count >= FRINGE_BOX**2 / 2
    means = [np.where(good, part, 0).sum(axis=(1, 3))[keep] / count[keep] for part in both]
    rows = (block.region.y0 + FRINGE_BOX * np.arange(ny)) // FRINGE_CELL
    columns = (block.region.x0 + FRINGE_BOX * np.arange(nx)) // FRINGE_CELL
    # One number for a cell; no image has 2**20 columns of cells.
    cells = (rows[:, None] * 2**20 + columns[None, :])[keep]
    return np.stack([cells.astype(np.float64), *means], axis=1)


def fringe_scale(partials: Sequence[Array]) -> Array:
    """Return by how much the fringe frame is in an image, the uncertainty of that, and the number of boxes it rests on.

    Least squares of box means with a separate sky in each cell. Boxes further from the fit than 3 robust standard deviations
    are left out, and the fit is repeated until nothing changes.
    """
    cells, image, fringe = np.concatenate(list(partials)).T
    if cells.size == 0:
        raise ParameterError(
            f"no box of {FRINGE_BOX} x {FRINGE_BOX} pixels of the image is half good, so the fringes cannot be scaled; give scale=."
        )
    _, cell = np.unique(cells, return_inverse=True)
    keep = np.ones(cells.size, bool)
    # Stars first, by medians, which need no fit. Twice the limit, because the fringes are still in the residuals.
    keep &= _near(image - _cell_medians(image, cell), 2 * FRINGE_SIGMA)
    scale = error = 0.0
    for _ in range(FRINGE_ITERATIONS):
        d, f = (values - _cell_means(values, cell, keep) for values in (image, fringe))
        power = float(np.sum(f[keep] ** 2))
        # Catches NaN too.
        if not power > 0:
            raise ParameterError("the fringe frame has no structure where the image is good; check it, or give scale=.")
        scale = float(np.sum(d[keep] * f[keep])) / power
        rest = d - scale * f
        error = float(np.sqrt(np.mean(rest[keep] ** 2) / power))
        new = keep & _near(rest, FRINGE_SIGMA, keep)
        if (new == keep).all():
            break
        keep = new
    return np.array([scale, error, keep.sum()])


def _near(values: Array, sigma: float, among: Array | None = None) -> Array:
    """Return which values are within robust standard deviations of their median."""
    chosen = values if among is None else values[among]
    middle = np.median(chosen)
    limit = sigma * MAD_TO_SIGMA * np.median(np.abs(chosen - middle))
    # At least rounding: without noise the MAD is 0, and every box would be left out.
    return np.asarray(np.abs(values - middle) <= max(limit, 1e-12 * float(np.abs(chosen).max())))


def _cell_medians(values: Array, cell: Array) -> Array:
    """Return for each value the median of its cell."""
    order = np.argsort(cell, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(cell))[:-1])
    return np.array([np.median(part) for part in parts])[cell]


def _cell_means(values: Array, cell: Array, keep: Array) -> Array:
    """Return for each value the mean of the kept ones of its cell."""
    count = np.bincount(cell[keep], minlength=cell.max() + 1)
    total = np.bincount(cell[keep], values[keep], minlength=cell.max() + 1)
    return np.asarray((total / np.maximum(count, 1))[cell])
