"""Exact area: each input pixel counts by the area of its part that lies on an output pixel, a quadrilateral in the input.

1. Corners of output pixels are rounded to 6e-8 pixel and shared by neighbours, so nothing is lost between them and nothing
   counts twice.
2. The overlap of a quadrilateral with a pixel is a sum over its four edges, by Green's theorem: the area between the part of an
   edge in the rows of the pixel and the left side of the pixel.
3. All quadrilaterals of a row are done at once, cell after cell of a window that holds the largest one, without a branch. Most
   of these sums are 0, but they are vectorised: cutting each edge where it crosses pixels took three times as long.

With ``pixfrac`` below 1 input pixels shrink about their centres, as in drizzle (Fruchter and Hook 2002).
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.interpolate import BAD, CARRIED, FINE, LOST, TILE, cell_positions
from lazyccd.kernels.resample.lattice import CELLS, PATCH, STEP

TINY = 1e-12
"""Overlaps that are only rounding: a bad pixel that is not touched must change no bit."""

LARGEST = 128
"""Input pixels along a side of the largest output pixel; where the sky comes again, corners lie on both sides of the image."""


@compiled
def area_cells(
    cells: Array,
    around: tuple[tuple[Array, ...], ...],
    place: tuple[int, int],
    region: tuple[int, int, int, int],
    source: tuple[Array, ...],
    mask: Array,
    tiles: Array,
    frame: tuple[int, int, int, int, int, int],
    bits: tuple[int, int],
    scale: tuple[float, float],
    out: tuple[Array, ...],
    out_mask: Array,
) -> bool:
    """Set the pixels of some cells of a patch.

    Parameters
    ----------
    cells, place, region, source, mask, tiles, frame, bits, out, out_mask
        As of `lazyccd.kernels.resample.interpolate.resample_cells`.
    around
        Nodes, dense, pixels and boxes of four patches of corners: this one, those right, below, and right below of it.
    scale
        What data are multiplied by, NaN for the area of each pixel; and pixfrac.

    Returns
    -------
    bool
        Whether all corners lie in the boxes of their cells.
    """
    # whole arrays: slices of rows would not be contiguous, and their loops not vectorised
    ys, xs = np.empty((STEP + 1, STEP + 1)), np.empty((STEP + 1, STEP + 1))
    bases = np.zeros((STEP, 2, STEP), np.int32)
    scratch, areas = np.empty((2, STEP * STEP)), np.empty(STEP)
    edges, room = np.zeros((4, 5 * STEP)), np.empty(3 * STEP)
    sums, flagged = np.empty((5, STEP)), np.empty(STEP, np.int64)
    for c in range(cells.shape[0]):
        i, j = cells[c]
        rows = (max(i * STEP, region[0]), min((i + 1) * STEP, region[1]))
        columns = (max(j * STEP, region[2]), min((j + 1) * STEP, region[3]))
        ny, nx = rows[1] - rows[0], columns[1] - columns[0]
        if not corner_positions((i, j), around, rows, columns, ys, xs, scratch):
            return False
        side, every = place_quads(ys, xs, (ny, nx), bases)
        clean = every and _is_clean(bases, (ny, nx), side, tiles, frame)
        overlaps = np.empty((side, side, STEP))
        for row in range(ny):
            row_edges(ys, xs, row, nx, bases[row], edges)
            if side <= 3 and scale[1] == 1:
                overlaps_of_3(edges, overlaps, room)
            else:
                overlaps_of_any(edges, scale[1], overlaps, room)
            if clean:
                clean_sums(overlaps, nx, bases[row], source, frame, sums)
                flagged[:] = 0
            else:
                good_sums(overlaps, nx, bases[row], source, mask, frame, bits[1], sums, flagged)
            quad_areas(ys[row : row + 2], xs[row : row + 2], areas[:nx])
            place_of = (place[0] + rows[0] + row, place[1] + columns[0], nx)
            wanted = (_row_of(out[0], place_of), _row_of(out[1], place_of), _row_of(out[2], place_of))
            finish_row(sums, flagged, areas[:nx], scale[0], bits[0], wanted, _row_of(out_mask, place_of))
    return True


@compiled
def _row_of(plane: Array, place: tuple[int, int, int]) -> Array:
    """Return a part of a row of a plane; an empty one if the plane is."""
    return plane[place[0], place[1] : place[1] + place[2]] if plane.size else plane.reshape(-1)


@compiled
def corner_positions(
    cell: tuple[int, int],
    around: tuple[tuple[Array, ...], ...],
    rows: tuple[int, int],
    columns: tuple[int, int],
    ys: Array,
    xs: Array,
    scratch: Array,
) -> bool:
    """Set the corners of the pixels of a part of a cell, and return whether all lie in the boxes of their cells.

    Parameters
    ----------
    cell, rows, columns
        As of `lazyccd.kernels.resample.interpolate.cell_positions`.
    around
        As of `area_cells`.
    ys, xs
        Receive the positions, in pixels whose sides are at whole numbers; shape ``(rows + 1, columns + 1)``, float64.
    scratch
        Shape ``(2, 4096)``, float64.
    """
    for part in range(4):
        # the last corners of a cell are the first ones of the next: only their own cell says the same to all pixels about them
        i, j = cell[0] + part // 2, cell[1] + part % 2
        first, last = max(rows[0], i * STEP), min(rows[1] + 1, (i + 1) * STEP)
        left, right = max(columns[0], j * STEP), min(columns[1] + 1, (j + 1) * STEP)
        if first >= last or left >= right:
            continue
        down, across = i // CELLS, j // CELLS
        patch = around[2 * down + across]
        size = (last - first) * (right - left)
        flat_y, flat_x = scratch[0, :size], scratch[1, :size]
        _, fits = cell_positions(
            (i % CELLS, j % CELLS),
            patch,
            (first - down * PATCH, last - down * PATCH),
            (left - across * PATCH, right - across * PATCH),
            flat_y,
            flat_x,
        )
        if not fits:
            return False
        width = right - left
        for row in range(last - first):
            for k in range(width):
                at = row * width + k
                ys[first - rows[0] + row, left - columns[0] + k] = np.floor((flat_y[at] + 0.5) * FINE + 0.5) / FINE
                xs[first - rows[0] + row, left - columns[0] + k] = np.floor((flat_x[at] + 0.5) * FINE + 0.5) / FINE
    return True


@compiled
def place_quads(ys: Array, xs: Array, shape: tuple[int, int], bases: Array) -> tuple[int, bool]:
    """Set the first input row and column of each quadrilateral.

    Parameters
    ----------
    ys, xs
        As of `corner_positions`.
    shape
        Rows and columns of quadrilaterals.
    bases
        Receives them, int32, shape ``(64, 2, 64)``; `NOWHERE` for one that has no area.

    Returns
    -------
    tuple
        Rows and columns that the largest one touches, and whether all have an area.
    """
    side, every = 1, True
    for row in range(shape[0]):
        for k in range(shape[1]):
            low_y = np.floor(min(min(ys[row, k], ys[row, k + 1]), min(ys[row + 1, k], ys[row + 1, k + 1])))
            low_x = np.floor(min(min(xs[row, k], xs[row, k + 1]), min(xs[row + 1, k], xs[row + 1, k + 1])))
            high_y = np.floor(max(max(ys[row, k], ys[row, k + 1]), max(ys[row + 1, k], ys[row + 1, k + 1])))
            high_x = np.floor(max(max(xs[row, k], xs[row, k + 1]), max(xs[row + 1, k], xs[row + 1, k + 1])))
            extent = max(high_y - low_y, high_x - low_x)
            total = (ys[row, k] + ys[row, k + 1]) + (ys[row + 1, k] + ys[row + 1, k + 1])
            total += (xs[row, k] + xs[row, k + 1]) + (xs[row + 1, k] + xs[row + 1, k + 1])
            # a comparison with NaN is False, but the smaller of two numbers may be the one that is not NaN
            if extent < LARGEST and np.isfinite(total):
                bases[row, 0, k], bases[row, 1, k] = np.int32(low_y), np.int32(low_x)
                side = max(side, int(extent) + 1)
            else:
                bases[row, 0, k] = bases[row, 1, k] = NOWHERE
                every = False
    return side, every


@compiled
def quad_areas(ys: Array, xs: Array, areas: Array) -> None:
    """Set the areas of the quadrilaterals between two rows of corners."""
    for k in range(areas.size):
        # half of the product of the diagonals, whose differences lose no digits
        areas[k] = 0.5 * abs(
            (ys[1, k + 1] - ys[0, k]) * (xs[1, k] - xs[0, k + 1])
            - (xs[1, k + 1] - xs[0, k]) * (ys[1, k] - ys[0, k + 1])
        )


NOWHERE = np.int32(-(2**31))
"""The row of quadrilaterals without an area."""


@compiled
def _is_clean(
    bases: Array, shape: tuple[int, int], side: int, tiles: Array, frame: tuple[int, int, int, int, int, int]
) -> bool:
    """Return whether all input pixels about all quadrilaterals exist and are neither bad nor flagged."""
    ny, nx, y0, x0, rows, columns = frame
    first_y, first_x, last_y, last_x = bases[0, 0, 0], bases[0, 1, 0], bases[0, 0, 0], bases[0, 1, 0]
    for row in range(shape[0]):
        for k in range(shape[1]):
            first_y, last_y = min(first_y, bases[row, 0, k]), max(last_y, bases[row, 0, k])
            first_x, last_x = min(first_x, bases[row, 1, k]), max(last_x, bases[row, 1, k])
    last_y, last_x = last_y + side, last_x + side
    if first_y < y0 or first_x < x0 or last_y > min(ny, y0 + rows) or last_x > min(nx, x0 + columns):
        return False
    for t in range((first_y - y0) // TILE, (last_y - 1 - y0) // TILE + 1):
        for u in range((first_x - x0) // TILE, (last_x - 1 - x0) // TILE + 1):
            if tiles[t, u]:
                return False
    return True


Y, X, TO_Y, SLOPE, STEEP = (n * STEP for n in range(5))
"""Where an edge of 64 quadrilaterals has its begin and end, how much x changes with y, and y with the amount of x.

All in one array: of the places in one array the compiler knows that they do not overlap, and vectorises."""


@compiled
def row_edges(ys: Array, xs: Array, row: int, nx: int, base: Array, edges: Array) -> None:
    """Set the edges of a row of quadrilaterals, measured from the first input pixel of each.

    Parameters
    ----------
    ys, xs
        As of `place_quads`.
    row
        Number of the row.
    nx
        Number of quadrilaterals.
    base
        First input row and column of each, shape ``(2, 64)``, int32.
    edges
        Receives the edges above, left, right and below, shape ``(4, 320)``, float64.
    """
    y, x, base_y, base_x = ys[row], xs[row], base[0, :nx], base[1, :nx]
    below_y, below_x = ys[row + 1], xs[row + 1]
    _measure(y[:nx], x[:nx], y[1:], x[1:], base_y, base_x, edges[0])
    _measure(y[:nx], x[:nx], below_y[:nx], below_x[:nx], base_y, base_x, edges[1])
    _measure(y[1:], x[1:], below_y[1:], below_x[1:], base_y, base_x, edges[2])
    _measure(below_y[:nx], below_x[:nx], below_y[1:], below_x[1:], base_y, base_x, edges[3])


@compiled
def _measure(y: Array, x: Array, to_y: Array, to_x: Array, base_y: Array, base_x: Array, edge: Array) -> None:
    """Set edges from their begins and ends; see `row_edges`."""
    for k in range(base_y.size):
        dy, dx = to_y[k] - y[k], to_x[k] - x[k]
        edge[Y + k], edge[X + k], edge[TO_Y + k] = y[k] - base_y[k], x[k] - base_x[k], to_y[k] - base_y[k]
        edge[SLOPE + k] = dx / (dy if dy != 0 else np.inf)
        edge[STEEP + k] = dy / max(abs(dx), NONE)


NONE = 1e-300
"""Stands for 0 where something is divided by it whose quotient is then multiplied by 0."""

SIGNS = (1.0, -1.0, 1.0, -1.0)
"""Of the edges above, left, right and below."""


@compiled
def overlaps_of_3(edges: Array, overlaps: Array, sums: Array) -> None:
    """Set the overlaps of a row of quadrilaterals that touch at most 3 x 3 pixels.

    Parameters
    ----------
    edges
        As of `row_edges`.
    overlaps
        Receives overlaps with the sign of the orientation, float64, shape ``(side, side, 64)``.
    sums
        Scratch, shape ``(192,)``.
    """
    side = overlaps.shape[0]
    for j in range(side):
        sums[:] = 0.0
        for n in range(4):
            _add_edge_of_3(edges[n], float(j), SIGNS[n], sums)
        for i in range(side):
            for k in range(STEP):
                after = sums[(i + 1) * STEP + k] if i < 2 else 0.0
                overlaps[j, i, k] = (sums[i * STEP + k] - after) / 2


@compiled
def _add_edge_of_3(edge: Array, row: float, sign: float, sums: Array) -> None:
    """Add twice the areas between the part of an edge in a row of pixels and columns 0, 1 and 2; see `_add_edge`."""
    for k in range(STEP):
        y, x, slope, steep = edge[Y + k] - row, edge[X + k], edge[SLOPE + k], sign * edge[STEEP + k]
        begin, end = min(max(y, 0.0), 1.0), min(max(edge[TO_Y + k] - row, 0.0), 1.0)
        a, b = x + (begin - y) * slope, x + (end - y) * slope
        height, low, high = sign * (end - begin), min(a, b), max(a, b)
        sums[k] += height * (low + high)
        beyond = max(high - 1.0, 0.0)
        sums[STEP + k] += height * ((low - 1.0) + (high - 1.0)) if low >= 1.0 else beyond * beyond * steep
        beyond = max(high - 2.0, 0.0)
        sums[2 * STEP + k] += height * ((low - 2.0) + (high - 2.0)) if low >= 2.0 else beyond * beyond * steep


@compiled
def _add_edge(edge: Array, row: float, size: float, column: float, sign: float, sums: Array) -> None:
    """Add twice the area between the part of an edge in a row of pixels and a column, as far as it is right of that.

    Parameters
    ----------
    edge
        Of 64 quadrilaterals; see `row_edges`.
    row, size, column
        Begin and height of the row, and the column, from the first pixel of each quadrilateral.
    sign
        By which areas are multiplied.
    sums
        Is added to, shape ``(64,)``.
    """
    for k in range(STEP):
        y, x, slope, steep = edge[Y + k] - row, edge[X + k], edge[SLOPE + k], sign * edge[STEEP + k]
        begin, end = min(max(y, 0.0), size), min(max(edge[TO_Y + k] - row, 0.0), size)
        a, b = x + (begin - y) * slope, x + (end - y) * slope
        height, low, high = sign * (end - begin), min(a, b), max(a, b)
        beyond = max(high - column, 0.0)
        sums[k] += height * ((low - column) + (high - column)) if low >= column else beyond * beyond * steep


@compiled
def overlaps_of_any(edges: Array, pixfrac: float, overlaps: Array, sums: Array) -> None:
    """Set the overlaps of a row of quadrilaterals.

    Parameters
    ----------
    edges, overlaps, sums
        As of `overlaps_of_3`, whose bits are the same.
    pixfrac
        Part of its side that an input pixel shrinks to.
    """
    side, margin = overlaps.shape[0], (1 - pixfrac) / 2
    here, after = sums[:STEP], sums[STEP : 2 * STEP]
    for j in range(side):
        after[:] = 0.0
        for i in range(side - 1, -1, -1):
            here[:] = 0.0
            for n in range(4):
                _add_edge(edges[n], j + margin, pixfrac, i + margin, SIGNS[n], here)
            if pixfrac < 1:
                after[:] = 0.0
                for n in range(4):
                    _add_edge(edges[n], j + margin, pixfrac, i + margin + pixfrac, SIGNS[n], after)
            for k in range(STEP):
                overlaps[j, i, k] = (here[k] - after[k]) / 2
                after[k] = here[k]


@compiled
def finish_row(
    sums: Array,
    flagged: Array,
    areas: Array,
    scale: float,
    no_data: int,
    out: tuple[Array, ...],
    out_mask: Array,
) -> None:
    """Set a row of pixels from the sums of `clean_sums` or `good_sums`.

    Parameters
    ----------
    sums
        Shape ``(5, n)``, float64.
    flagged
        Bits that are carried on, shape ``(n,)``.
    areas
        Areas of the quadrilaterals.
    scale
        What data are multiplied by, NaN for these areas.
    no_data
        The bit of pixels without data.
    out, out_mask
        Receive data, variance, aperture variance and mask; empty if not wanted.
    """
    total, spread, linear, kept, everything = sums[0], sums[1], sums[2], sums[3], sums[4]
    for k in range(areas.size):
        if abs(kept[k]) < (1 - LOST) * abs(everything[k]) or kept[k] == 0:
            kept[k], flagged[k] = np.nan, flagged[k] | no_data
    local = np.isnan(scale)
    for k in range(out[0].size):
        out[0][k] = total[k] / kept[k] * (areas[k] if local else scale)
    for k in range(out[1].size):
        factor = areas[k] if local else scale
        out[1][k] = spread[k] / (kept[k] * kept[k]) * (factor * factor)
    for k in range(out[2].size):
        factor = areas[k] if local else scale
        # overlaps are not negative, and those of an input pixel have the sum 1: they share out its variance themselves
        out[2][k] = linear[k] / kept[k] * (factor * factor / areas[k])
    for k in range(out_mask.size):
        out_mask[k] = flagged[k]


@compiled
def clean_sums(
    overlaps: Array,
    nx: int,
    base: Array,
    source: tuple[Array, ...],
    frame: tuple[int, int, int, int, int, int],
    sums: Array,
) -> None:
    """Set the sums over the input pixels of each quadrilateral of a row, all of which are good.

    Parameters
    ----------
    overlaps
        See `overlaps_of_3`.
    nx
        Number of quadrilaterals.
    base
        First row and column of each, shape ``(2, 64)``, int32.
    source, frame
        As of `area_cells`.
    sums
        Receives the sums of overlaps times data, of squares times variances, of overlaps times variances, of overlaps of good
        pixels and of all; shape ``(5, n)``, float64.
    """
    data, variance = source[0], source[1]
    sums[:4] = 0.0
    for j in range(overlaps.shape[0]):
        for i in range(overlaps.shape[0] - 1, -1, -1):
            before = np.int32((frame[2] - j) * frame[5] + frame[3] - i)
            for k in range(nx):
                area = overlaps[j, i, k]
                part = area if abs(area) > TINY else 0.0
                at = np.uint32(base[0, k] * np.int32(frame[5]) + base[1, k] - before)
                sums[0, k] += part * data[at]
                sums[3, k] += part
            for k in range(nx if variance.size else 0):
                area = overlaps[j, i, k]
                part = area if abs(area) > TINY else 0.0
                at = np.uint32(base[0, k] * np.int32(frame[5]) + base[1, k] - before)
                sums[1, k] += part * part * variance[at]
                sums[2, k] += part * variance[at]
    sums[4] = sums[3]


@compiled
def good_sums(
    overlaps: Array,
    nx: int,
    base: Array,
    source: tuple[Array, ...],
    mask: Array,
    frame: tuple[int, int, int, int, int, int],
    carried: int,
    sums: Array,
    flagged: Array,
) -> None:
    """Set the sums of `clean_sums` over good pixels, in the same order, and the bits that are carried on.

    Parameters
    ----------
    overlaps, nx, base, source, frame, sums
        As of `clean_sums`.
    mask
        Unsigned integers of the block, shape ``(n,)``; may be empty.
    carried
        Bits that are carried on where pixels that have them hold enough of the area.
    flagged
        Receives the bits.
    """
    data, variance, flags = source
    height, width, y0, x0, _, columns = frame
    side = overlaps.shape[0]
    for k in range(nx):
        total = spread = linear = kept = everything = 0.0
        worst = 0
        for j in range(side if base[0, k] != NOWHERE else 0):
            for i in range(side - 1, -1, -1):
                area = overlaps[j, i, k]
                if abs(area) <= TINY:
                    continue
                everything += area
                y, x = base[0, k] + j, base[1, k] + i
                if y < 0 or y >= height or x < 0 or x >= width:
                    continue
                at = (y - y0) * columns + x - x0
                worst = max(worst, int(flags[at]))
                if flags[at] < BAD:
                    total += area * data[at]
                    kept += area
                    if variance.size:
                        spread += area * area * variance[at]
                        linear += area * variance[at]
        sums[0, k], sums[1, k], sums[2, k], sums[3, k], sums[4, k] = total, spread, linear, kept, everything
        flagged[k] = 0
        if mask.size and worst > 0:
            at = (base[0, k], base[1, k])
            flagged[k] = carried_planes(overlaps[:, :, k], at, mask, frame, CARRIED * abs(everything)) & carried


@compiled
def carried_planes(
    overlap: Array, at: tuple[int, int], mask: Array, frame: tuple[int, int, int, int, int, int], limit: float
) -> int:
    """Return the bits that pixels have whose overlaps are together larger than a limit.

    Parameters
    ----------
    overlap
        Of one quadrilateral, shape ``(side, side)``.
    at
        Its first row and column.
    mask, frame
        As of `good_sums`.
    limit
        The limit, in areas of pixels.
    """
    ny, nx, y0, x0, _, columns = frame
    sums = np.zeros(32)
    for j in range(overlap.shape[0]):
        for i in range(overlap.shape[1]):
            y, x = at[0] + j, at[1] + i
            if abs(overlap[j, i]) <= TINY or y < 0 or y >= ny or x < 0 or x >= nx:
                continue
            bits = np.uint64(mask[(y - y0) * columns + x - x0])
            for number in range(32):
                if (bits >> np.uint64(number)) & np.uint64(1):
                    sums[number] += abs(overlap[j, i])
    found = np.uint64(0)
    for number in range(32):
        if sums[number] > limit:
            found |= np.uint64(1) << np.uint64(number)
    return int(found)
