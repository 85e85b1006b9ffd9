"""Exact area: each input pixel counts by the area of its part that lies on an output pixel, a quadrilateral in the input.

1. Corners of output pixels are rounded to 6e-8 pixel and shared by neighbours, so nothing is lost between them and nothing
   counts twice.
2. The overlap of a quadrilateral with a pixel is a sum over its four edges, by Green's theorem: the area between the part of an
   edge in the rows of the pixel and the left side of the pixel.
3. Where edges touch at most 2 x 2 pixels, as on a grid of equal or smaller pixels, each is measured once, in these pixels, and
   joined with three others to each of the two quadrilaterals that it is a side of. This is half of the time of the next.
4. Otherwise all quadrilaterals of a row are done at once, cell after cell of a window that holds the largest one, without a
   branch. Most of these sums are 0, but they are vectorised: cutting each edge where it crosses pixels took three times as long.
5. Which way a quadrilateral goes depends on its own corners and its cell alone, lest chunks show in the last bits.

With ``pixfrac`` below 1 input pixels shrink about their centres, as in drizzle (Fruchter and Hook 2002).
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.interpolate import BAD, CARRIED, FINE, LOST, TILE, box_is_clean, cell_positions, fetch
from lazyccd.kernels.resample.lattice import CELLS, CUBIC, PATCH, STEP
from lazyccd.kernels.resample.sums import nine_sums

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
    ys, xs, boxes = np.zeros((STEP + 1, LANES + 1)), np.zeros((STEP + 1, LANES + 1)), around[0][3]
    bases = np.zeros((STEP, 2, STEP), np.int32)
    scratch, areas = np.empty((2, STEP * STEP)), np.empty(STEP)
    shared = np.zeros(KEPT + 3 * STEP)
    nine = shared[OVERLAPS:KEPT].reshape((3, 3, STEP))
    sums, flagged, places = np.empty((5, STEP)), np.empty(STEP, np.int64), np.empty(STEP, np.uint32)
    for c in range(cells.shape[0]):
        i, j = cells[c]
        rows = (max(i * STEP, region[0]), min((i + 1) * STEP, region[1]))
        columns = (max(j * STEP, region[2]), min((j + 1) * STEP, region[3]))
        ny, nx = rows[1] - rows[0], columns[1] - columns[0]
        if not corner_positions((i, j), around, rows, columns, ys, xs, scratch):
            return False
        fine = scale[1] == 1 and has_short_edges((i, j), around[0])
        side, every = (3, True) if fine else place_quads(ys, xs, (ny, nx), bases)
        # the box of a cell with short edges holds all of its corners but those behind it, a pixel away
        clean = box_is_clean(boxes[i, j], SPARE, tiles, frame) if fine else every
        clean = clean and (fine or _is_clean(bases, (ny, nx), side, tiles, frame))
        overlaps = nine if fine else np.empty((side, side, STEP))
        following = cells[min(c + 1, cells.shape[0] - 1)]
        for row in range(ny):
            fetch(boxes[following[0], following[1]], (row, ny), SPARE, frame, (source[0], source[1]))
            at = (ys, xs, row, nx)
            if fine:
                shared_row(
                    at, bases, places, shared, overlaps, clean, source, mask, tiles, frame, bits[1], sums, flagged
                )
            else:
                any_row(at, bases[row], overlaps, scale[1], clean, source, mask, frame, bits[1], sums, flagged)
            if np.isnan(scale[0]) or out[2].size:
                quad_areas(ys[row : row + 2], xs[row : row + 2], areas[:nx])
            place_of = (place[0] + rows[0] + row, place[1] + columns[0], nx)
            wanted = (_row_of(out[0], place_of), _row_of(out[1], place_of), _row_of(out[2], place_of))
            finish_row(sums, flagged, areas[:nx], scale[0], bits[0], wanted, _row_of(out_mask, place_of))
    return True


@compiled
def any_row(
    at: tuple[Array, Array, int, int],
    base: Array,
    overlaps: Array,
    pixfrac: float,
    clean: bool,
    source: tuple[Array, ...],
    mask: Array,
    frame: tuple[int, int, int, int, int, int],
    carried: int,
    sums: Array,
    flagged: Array,
) -> None:
    """Set the sums of a row of quadrilaterals of any size.

    Parameters
    ----------
    at
        Corners as of `place_quads`, the number of the row, and how many quadrilaterals it has.
    base, clean
        Of `place_quads` and `_is_clean`.
    overlaps, pixfrac
        As of `overlaps_of_any`.
    source, mask, frame, carried, sums, flagged
        As of `good_sums`.
    """
    edges, room = np.zeros((4, 5 * STEP)), np.empty(3 * STEP)
    row_edges(at[0], at[1], at[2], at[3], base, edges)
    if overlaps.shape[0] <= 3 and pixfrac == 1:
        overlaps_of_3(edges, overlaps, room)
    else:
        overlaps_of_any(edges, pixfrac, overlaps, room)
    if clean:
        clean_sums(overlaps, at[3], base, source, frame, sums)
        flagged[:] = 0
    else:
        good_sums(overlaps, at[3], base, source, mask, frame, carried, sums, flagged)


@compiled
def shared_row(
    at: tuple[Array, Array, int, int],
    bases: Array,
    places: Array,
    shared: Array,
    overlaps: Array,
    clean: bool,
    source: tuple[Array, ...],
    mask: Array,
    tiles: Array,
    frame: tuple[int, int, int, int, int, int],
    carried: int,
    sums: Array,
    flagged: Array,
) -> None:
    """Set the sums of a row of quadrilaterals with short edges, each of which is measured once; of few others as `any_row`.

    Parameters
    ----------
    at, source, mask, frame, carried, sums, flagged
        As of `any_row`.
    bases
        Receives what `place_quads` says, in the first row.
    places
        As of `clean_sums_of_9`.
    shared
        Edges and what they join to, see `ABOVE`; those below a row are those above the next.
    overlaps
        Receives the overlaps, shape ``(3, 3, 64)``.
    clean
        Whether all input pixels of the cell are good, as far as its edges are short.
    tiles
        As of `_is_clean`.
    """
    ys, xs, row, nx = at
    base = bases[0]
    if row == 0:
        measure_shared(ys, xs, (0, 0), 1, BELOW, shared)
    for k in range(8 * LANES):
        shared[ABOVE + k] = shared[BELOW + k]
    measure_shared(ys, xs, (row + 1, row + 1), 1, BELOW, shared)
    measure_shared(ys, xs, (row, row + 1), 0, ASIDE, shared)
    join_shared(shared)
    for k in range(STEP):
        base[0, k], base[1, k], sums[3, k] = shared[FIRST_ROW + k], shared[FIRST_COLUMN + k], shared[KEPT + k]
    long = 0
    # counted, so that the loop is vectorised
    for k in range(np.uint64(nx)):
        long += base[0, k] == NOWHERE
    if long == 0 and (clean or _is_clean(bases, (1, nx), 3, tiles, frame)):
        clean_sums_of_9(overlaps, nx, base, places, source, frame, sums)
        flagged[:] = 0
        return
    good_sums(overlaps, nx, base, source, mask, frame, carried, sums, flagged)
    if long:
        others, theirs, bits = np.zeros((1, 2, STEP), np.int32), np.empty((5, STEP)), np.empty(STEP, np.int64)
        side, _ = place_quads(ys[row : row + 2], xs[row : row + 2], (1, nx), others)
        room = np.empty((side, side, STEP))
        any_row(at, others[0], room, 1.0, False, source, mask, frame, carried, theirs, bits)
        for k in range(nx):
            if base[0, k] == NOWHERE:
                sums[:, k], flagged[k] = theirs[:, k], bits[k]


@compiled
def has_short_edges(cell: tuple[int, int], patch: tuple[Array, ...]) -> bool:
    """Return whether the edges of most quadrilaterals of a cell touch no more than 2 x 2 input pixels.

    Only nodes are looked at, so that it does not depend on the region.
    """
    nodes, dense = patch[0], patch[1]
    i, j = cell
    if dense[i, j] != CUBIC:
        return False
    longest = 0.0
    for axis in range(2):
        a, b = nodes[axis, i + 1, j + 1], nodes[axis, i + 1, j + 2]
        c, d = nodes[axis, i + 2, j + 1], nodes[axis, i + 2, j + 2]
        longest = max(longest, max(max(abs(b - a), abs(d - c)), max(abs(c - a), abs(d - b))))
    return longest <= SHORT * STEP


SPARE = 4
"""Input pixels beyond the box of a cell that its quadrilaterals may touch if their edges are short."""

SHORT = 1.01
"""Longest extent of edges along y or x of which few touch a third row or column."""

LANES = STEP + 8
"""Numbers for the edges of a row of 65 corners, a whole number of vectors."""

ROW, COLUMN, LEFT_0, FIRST_0, SECOND_0, LEFT_1, FIRST_1, SECOND_1 = (n * LANES for n in range(8))
"""First row and column that an edge touches; and in this row and in the next the area of a pixel that is left of the edge: of one
left of the first column, of that in the first column and of that in the second. Right of these it is 0."""

ABOVE, BELOW, ASIDE, OVERLAPS = (n * 8 * LANES for n in range(4))
KEPT, FIRST_ROW, FIRST_COLUMN = (OVERLAPS + n * STEP for n in (9, 10, 11))
"""Where edges, overlaps, their sums, and the first row and column of each quadrilateral are: in one array, as for `Y`."""


@compiled
def measure_shared(ys: Array, xs: Array, rows: tuple[int, int], step: int, begin: int, shared: Array) -> None:
    """Set the areas left of edges that touch at most 2 x 2 pixels; the row of others is NaN.

    Parameters
    ----------
    ys, xs
        As of `place_quads`.
    rows, step
        Rows of corners in which edges begin and end, and how many columns further they end.
    begin, shared
        Where the areas go, positive for edges that go down: `ABOVE`, `BELOW` or `ASIDE`.
    """
    row, to_row, further, at = np.uint64(rows[0]), np.uint64(rows[1]), np.uint64(step), np.uint64(begin)
    for k in range(LANES):
        y, x, end_y, end_x = (
            ys[row, k],
            xs[row, k],
            ys[to_row, np.uint64(k) + further],
            xs[to_row, np.uint64(k) + further],
        )
        down = end_y >= y
        half = 0.5 if down else -0.5
        y0, y1 = min(y, end_y), max(y, end_y)
        x0, x1 = x if down else end_x, end_x if down else x
        first, column = np.floor(y0), np.floor(min(x0, x1))
        y0, y1, x0, x1 = y0 - first, y1 - first, x0 - column, x1 - column
        dy, dx = y1 - y0, x1 - x0
        # one division for both slopes: where one is 0, neither counts
        both = dy * dx
        part = 1.0 / (both if both != 0 else 1.0)
        slope, steep = dx * dx * part, dy * dy * part * half
        middle_y = min(y1, 1.0)
        middle_x = x0 + (middle_y - y0) * slope
        shared[at + np.uint64(ROW + k)] = first if (y1 <= 2) & (max(x0, x1) <= 2) else np.nan
        shared[at + np.uint64(COLUMN + k)] = column
        # the area right of the second column's left side, by which the first column is too large
        p, q, r = max(x0 - 1.0, 0.0), max(middle_x - 1.0, 0.0), max(x1 - 1.0, 0.0)
        p, q, r = p * p, q * q, r * r
        height, beyond = (middle_y - y0) * half, (q - p) * steep
        shared[at + np.uint64(LEFT_0 + k)] = 2 * height
        shared[at + np.uint64(FIRST_0 + k)] = height * (x0 + middle_x) - beyond
        shared[at + np.uint64(SECOND_0 + k)] = beyond
        height, beyond = (y1 - middle_y) * half, (r - q) * steep
        shared[at + np.uint64(LEFT_1 + k)] = 2 * height
        shared[at + np.uint64(FIRST_1 + k)] = height * (middle_x + x1) - beyond
        shared[at + np.uint64(SECOND_1 + k)] = beyond


NINE = tuple[float, float, float, float, float, float, float, float, float]
"""Numbers of 3 x 3 pixels, row after row."""


@compiled
def _shifted(shared: Array, k: int, down: bool, right: bool) -> NINE:
    """Return the areas of an edge in the 3 x 3 pixels of a quadrilateral, whose first ones are the edge's or those before."""
    a, b, c = shared[LEFT_0 + k], shared[FIRST_0 + k], shared[SECOND_0 + k]
    d, e, f = shared[LEFT_1 + k], shared[FIRST_1 + k], shared[SECOND_1 + k]
    a0, b0, c0 = 0.0 if down else a, 0.0 if down else b, 0.0 if down else c
    a1, b1, c1 = a if down else d, b if down else e, c if down else f
    a2, b2, c2 = d if down else 0.0, e if down else 0.0, f if down else 0.0
    top = (a0 if right else b0, b0 if right else c0, c0 if right else 0.0)
    middle = (a1 if right else b1, b1 if right else c1, c1 if right else 0.0)
    bottom = (a2 if right else b2, b2 if right else c2, c2 if right else 0.0)
    return (*top, *middle, *bottom)


@compiled
def join_shared(shared: Array) -> None:
    """Set the overlaps of a row of quadrilaterals from their edges.

    Parameters
    ----------
    shared
        See `ABOVE`; each edge aside is that right of a quadrilateral and left of the next. Overlaps have the sign of the
        orientation, and are 0 where they are only rounding; the first row and column of a quadrilateral with a long edge are
        `NOWHERE`.
    """
    for k in range(STEP):
        row = min(shared[ABOVE + ROW + k], shared[BELOW + ROW + k])
        column = min(shared[ABOVE + COLUMN + k], shared[BELOW + COLUMN + k])
        y0, y1 = shared[ABOVE + ROW + k] - row, shared[BELOW + ROW + k] - row
        y2, y3 = shared[ASIDE + ROW + k] - row, shared[ASIDE + ROW + k + 1] - row
        x0, x1 = shared[ABOVE + COLUMN + k] - column, shared[BELOW + COLUMN + k] - column
        x2, x3 = shared[ASIDE + COLUMN + k] - column, shared[ASIDE + COLUMN + k + 1] - column
        # no comparison with NaN holds
        fits = (y0 <= 1) & (y1 <= 1) & (y2 <= 1) & (y3 <= 1) & (x0 <= 1) & (x1 <= 1) & (x2 <= 1) & (x3 <= 1)
        shared[FIRST_ROW + k] = row if fits else FAR
        shared[FIRST_COLUMN + k] = column if fits else FAR
        a, b = _shifted(shared, ABOVE + k, y0 > 0, x0 > 0), _shifted(shared, BELOW + k, y1 > 0, x1 > 0)
        c, d = _shifted(shared, ASIDE + k, y2 > 0, x2 > 0), _shifted(shared, ASIDE + k + 1, y3 > 0, x3 > 0)
        # written out, as in `clean_sums_of_9`: nothing else is vectorised
        o0, o1, o2 = _total(a[0], b[0], c[0], d[0]), _total(a[1], b[1], c[1], d[1]), _total(a[2], b[2], c[2], d[2])
        o3, o4, o5 = _total(a[3], b[3], c[3], d[3]), _total(a[4], b[4], c[4], d[4]), _total(a[5], b[5], c[5], d[5])
        o6, o7, o8 = _total(a[6], b[6], c[6], d[6]), _total(a[7], b[7], c[7], d[7]), _total(a[8], b[8], c[8], d[8])
        shared[OVERLAPS + 0 * STEP + k], shared[OVERLAPS + 1 * STEP + k], shared[OVERLAPS + 2 * STEP + k] = o0, o1, o2
        shared[OVERLAPS + 3 * STEP + k], shared[OVERLAPS + 4 * STEP + k], shared[OVERLAPS + 5 * STEP + k] = o3, o4, o5
        shared[OVERLAPS + 6 * STEP + k], shared[OVERLAPS + 7 * STEP + k], shared[OVERLAPS + 8 * STEP + k] = o6, o7, o8
        shared[KEPT + k] = o2 + o1 + o0 + o5 + o4 + o3 + o8 + o7 + o6


@compiled
def _total(above: float, below: float, left: float, right: float) -> float:
    """Return the overlap from what is left of four edges; 0 where it is only rounding."""
    area = (above - below) + (right - left)
    return area if abs(area) > TINY else 0.0


@compiled
def clean_sums_of_9(
    overlaps: Array,
    nx: int,
    base: Array,
    places: Array,
    source: tuple[Array, ...],
    frame: tuple[int, int, int, int, int, int],
    sums: Array,
) -> None:
    """Set the sums of `clean_sums` from the overlaps and their sums of `join_shared`, in the same order, all nine at once.

    Parameters
    ----------
    overlaps, nx, base, source, frame, sums
        As of `clean_sums`.
    places
        Scratch, uint32, shape ``(64,)``.
    """
    data, variance = source[0], source[1]
    stride, before = np.int32(frame[5]), np.int32(frame[2] * frame[5] + frame[3])
    last = np.uint32(0)
    for k in range(np.uint64(nx)):
        places[k] = np.uint32(base[0, k] * stride + base[1, k] - before)
        last = max(last, places[k])
    sums[4] = sums[3]
    nine_sums(data, places, np.uint32(stride), overlaps, False, np.uint64(last), sums[0, :nx])
    if variance.size:
        nine_sums(variance, places, np.uint32(stride), overlaps, True, np.uint64(last), sums[1, :nx])
        nine_sums(variance, places, np.uint32(stride), overlaps, False, np.uint64(last), sums[2, :nx])


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
        width, to = right - left, np.uint64(left - columns[0])
        for row in range(last - first):
            # unsigned, so that the loop is vectorised
            begin, line = np.uint64(row * width), np.uint64(first - rows[0] + row)
            for k in range(np.uint64(width)):
                ys[line, to + k] = np.floor((flat_y[begin + k] + 0.5) * FINE + 0.5) * (1 / FINE)
                xs[line, to + k] = np.floor((flat_x[begin + k] + 0.5) * FINE + 0.5) * (1 / FINE)
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

FAR = float(NOWHERE)


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
