"""The loops of resampling: coordinates of a row of pixels, and the weighted sums of input pixels about each.

1. A cell whose input pixels are all good takes the short way: sums of products, no test.
2. Near bad pixels and edges, each output pixel first looks whether any of its own input pixels is bad. If none is, it takes the
   same sums in the same order, so a bad pixel changes nothing beyond the reach of the kernel, to the last bit.
3. Where some are, they have weight 0 and the sum is divided by the weight that is left.

Indices are unsigned: numba tests signed ones for values below 0, which costs a third of the time.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.lattice import CUBIC, EMPTY, STEP
from lazyccd.kernels.resample.weights import NEAREST, PHASES, TABLE


@compiled
def cell_row(nodes: Array, row: int, column: int, fraction: float, begin: int, out: Array) -> None:
    """Set the input positions of pixels of a row of a cell, by the cubic through the 4 x 4 nodes about it.

    Parameters
    ----------
    nodes
        Input positions at the nodes along one axis, shape ``(19, 19)``, float64.
    row, column
        Position of the cell in the patch.
    fraction
        Position of the row in the cell, from 0 to 1.
    begin
        The first pixel in the cell.
    out
        Receives the positions, shape ``(n,)``, float64.
    """
    p = (
        _cubic_at(nodes, row, column, fraction),
        _cubic_at(nodes, row, column + 1, fraction),
        _cubic_at(nodes, row, column + 2, fraction),
        _cubic_at(nodes, row, column + 3, fraction),
    )
    start, linear, second, third = cubic(p[0], p[1], p[2], p[3])
    for i in range(out.size):
        u = (begin + i) / STEP
        out[i] = start + u * (linear + u * (second + u * third))


@compiled
def _cubic_at(nodes: Array, row: int, column: int, fraction: float) -> float:
    """Return the cubic through four nodes of a column."""
    start, linear, second, third = cubic(
        nodes[row, column], nodes[row + 1, column], nodes[row + 2, column], nodes[row + 3, column]
    )
    return start + fraction * (linear + fraction * (second + fraction * third))


@compiled
def cubic(before: float, here: float, after: float, beyond: float) -> tuple[float, float, float, float]:
    """Return the coefficients of the cubic through four points, in the distance from the second one."""
    # differences first: at whole-pixel steps all but the linear terms are exactly 0, and so are the fractions
    first = after - here
    second = ((before - here) - (here - after)) / 2
    third = ((beyond - before) - 3 * first) / 6
    return here, first - second - third, second, third


@compiled
def weighted_sums(
    plane: Array, at: Array, stride: np.uint32, wy: Array, wx: Array, taps: tuple[int, int], out: Array
) -> None:
    """Set a row of sums of pixels times their weights.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of a block, shape ``(n,)``.
    at
        Place of the first pixel of each sum, and of its first weight along y and x, shape ``(3, k)``, uint32.
    stride
        From a row of the block to the next.
    wy, wx
        Tables of weights along y and x, flattened, of the dtype of the plane.
    taps
        How many rows and columns each sum has.
    out
        Receives the sums, shape ``(k,)``.
    """
    # numbers of taps that the compiler knows let it unroll both loops, which makes Lanczos 3 three times as fast
    if taps[0] == 6 and taps[1] == 6:
        for k in range(out.size):
            out[k] = _sum_6(plane, at[0, k], stride, wy, at[1, k], wx, at[2, k])
    elif taps[0] == 4 and taps[1] == 4:
        for k in range(out.size):
            out[k] = _sum_4(plane, at[0, k], stride, wy, at[1, k], wx, at[2, k])
    elif taps[0] == 2 and taps[1] == 2:
        for k in range(out.size):
            out[k] = _sum_2(plane, at[0, k], stride, wy, at[1, k], wx, at[2, k])
    else:
        for k in range(out.size):
            out[k] = _sum_any(plane, at[0, k], stride, wy, at[1, k], wx, at[2, k], taps)


ONE, TWO, THREE, FOUR, FIVE = (np.uint32(n) for n in range(1, 6))


@compiled
def _sum_6(
    plane: Array, first: np.uint32, stride: np.uint32, wy: Array, at_y: np.uint32, wx: Array, at_x: np.uint32
) -> float:
    a, b, c = wx[at_x], wx[at_x + ONE], wx[at_x + TWO]
    d, e, f = wx[at_x + THREE], wx[at_x + FOUR], wx[at_x + FIVE]
    total: float = plane.dtype.type(0)
    for j in range(6):
        left = a * plane[first] + b * plane[first + ONE]
        middle = c * plane[first + TWO] + d * plane[first + THREE]
        right = e * plane[first + FOUR] + f * plane[first + FIVE]
        total += wy[at_y + np.uint32(j)] * ((left + middle) + right)
        first += stride
    return total


@compiled
def _sum_4(
    plane: Array, first: np.uint32, stride: np.uint32, wy: Array, at_y: np.uint32, wx: Array, at_x: np.uint32
) -> float:
    a, b, c, d = wx[at_x], wx[at_x + ONE], wx[at_x + TWO], wx[at_x + THREE]
    total: float = plane.dtype.type(0)
    for j in range(4):
        left = a * plane[first] + b * plane[first + ONE]
        right = c * plane[first + TWO] + d * plane[first + THREE]
        total += wy[at_y + np.uint32(j)] * (left + right)
        first += stride
    return total


@compiled
def _sum_2(
    plane: Array, first: np.uint32, stride: np.uint32, wy: Array, at_y: np.uint32, wx: Array, at_x: np.uint32
) -> float:
    a, b = wx[at_x], wx[at_x + ONE]
    total: float = wy[at_y] * (a * plane[first] + b * plane[first + ONE])
    first += stride
    total += wy[at_y + ONE] * (a * plane[first] + b * plane[first + ONE])
    return total


@compiled
def _sum_any(
    plane: Array,
    first: np.uint32,
    stride: np.uint32,
    wy: Array,
    at_y: np.uint32,
    wx: Array,
    at_x: np.uint32,
    taps: tuple[int, int],
) -> float:
    total: float = plane.dtype.type(0)
    for j in range(taps[0]):
        row = plane.dtype.type(0)
        for i in range(taps[1]):
            row += wx[at_x + np.uint32(i)] * plane[first + np.uint32(i)]
        total += wy[at_y + np.uint32(j)] * row
        first += stride
    return total


@compiled
def partial_sums(
    place: tuple[int, int], source: tuple[Array, ...], frame: tuple[int, int, int, int, int, int], wy: Array, wx: Array
) -> tuple[float, float, float, float, float, float]:
    """Return what is known of a pixel with bad ones or an edge about it.

    Parameters
    ----------
    place
        Input row and column of the first weights.
    source
        Data and variance, float, and flags as of `mark_flags`, each of shape ``(n,)``; the variance may be empty. What is not
        finite is 0 in data and variance, since a pixel of weight 0 takes part in sums, and 0 times NaN is NaN.
    frame
        Rows and columns of the input, first row and column of the block, its rows and columns.
    wy, wx
        Weights along y and x.

    Returns
    -------
    tuple
        Weighted sums of data and of variance (by squared weights) over good pixels, the sums of their weights and of their
        squares, and the sum of absolute weights of good pixels and of all.
    """
    data, variance, flags = source
    ny, nx, y0, x0, _, columns = frame
    total = spread = weight = squares = kept = everything = 0.0
    for j in range(wy.size):
        y = place[0] + j
        for i in range(wx.size):
            x = place[1] + i
            w = np.float64(wy[j]) * np.float64(wx[i])
            everything += abs(w)
            if y < 0 or y >= ny or x < 0 or x >= nx or w == 0:
                continue
            k = (y - y0) * columns + (x - x0)
            if flags[k] < BAD:
                total += w * data[k]
                weight += w
                squares += w * w
                kept += abs(w)
                if variance.size:
                    spread += w * w * variance[k]
    return total, spread, weight, squares, kept, everything


@compiled
def carried_bits(
    place: tuple[int, int], mask: Array, frame: tuple[int, int, int, int, int, int], wy: Array, wx: Array, part: float
) -> int:
    """Return the bits that pixels with more than a part of the absolute weight have.

    Parameters
    ----------
    place, frame, wy, wx
        As of `partial_sums`.
    mask
        Unsigned integers, shape ``(n,)``.
    part
        The part of the sum of absolute weights.
    """
    ny, nx, y0, x0, _, columns = frame
    sums = np.zeros(32)
    everything = 0.0
    for j in range(wy.size):
        y = place[0] + j
        for i in range(wx.size):
            x = place[1] + i
            w = abs(np.float64(wy[j]) * np.float64(wx[i]))
            everything += w
            if y < 0 or y >= ny or x < 0 or x >= nx:
                continue
            bits = np.uint64(mask[(y - y0) * columns + (x - x0)])
            while bits:
                lowest = bits & (~bits + np.uint64(1))
                number = 0
                while (lowest >> np.uint64(number)) > np.uint64(1):
                    number += 1
                sums[number] += w
                bits ^= lowest
    found = np.uint64(0)
    for number in range(32):
        if sums[number] > part * everything:
            found |= np.uint64(1) << np.uint64(number)
    return int(found)


FLAGGED, BAD = 1, 2
"""What `mark_flags` says of pixels with some bit, and of those that have no weight."""

TILE = 32
"""Side of the squares of input pixels that are marked together."""


@compiled
def mark_flags(data: Array, variance: Array, mask: Array, bad: int, flags: Array, tiles: Array) -> None:
    """Mark pixels that are flagged or bad, and the squares of 32 x 32 pixels that hold some.

    Parameters
    ----------
    data, variance
        Float32 or float64, shape ``(ny, nx)``; the variance may be empty.
    mask
        Unsigned integers, same shape; may be empty.
    bad
        Bits by which a pixel is bad.
    flags
        Receives 0, `FLAGGED` or `BAD`, uint8, same shape.
    tiles
        Is set to 1 where a square holds a pixel that is not 0; uint8.
    """
    ny, nx = data.shape
    for y in range(ny):
        row = flags[y]
        for x in range(nx):
            row[x] = np.uint8(0) if data[y, x] - data[y, x] == 0 else np.uint8(BAD)
        if variance.size:
            for x in range(nx):
                row[x] |= np.uint8(0) if variance[y, x] - variance[y, x] == 0 else np.uint8(BAD)
        if mask.size:
            for x in range(nx):
                row[x] |= np.uint8(mask[y, x] != 0) | (np.uint8(BAD) if (mask[y, x] & bad) != 0 else np.uint8(0))
        for t in range(tiles.shape[1]):
            some = np.uint8(0)
            for x in range(t * TILE, min((t + 1) * TILE, nx)):
                some |= row[x]
            if some:
                tiles[y // TILE, t] = 1


@compiled
def _is_clean(box: Array, reach: int, tiles: Array, frame: tuple[int, int, int, int, int, int]) -> bool:
    """Return whether all input pixels about a box of positions exist and are neither bad nor flagged."""
    ny, nx, y0, x0, _, _ = frame
    first_y, last_y = int(np.floor(box[0])) - reach, int(np.floor(box[1])) + reach
    first_x, last_x = int(np.floor(box[2])) - reach, int(np.floor(box[3])) + reach
    if first_y < 0 or first_x < 0 or last_y >= ny or last_x >= nx:
        return False
    for t in range((first_y - y0) // TILE, (last_y - y0) // TILE + 1):
        for u in range((first_x - x0) // TILE, (last_x - x0) // TILE + 1):
            if t >= 0 and u >= 0 and t < tiles.shape[0] and u < tiles.shape[1] and tiles[t, u]:
                return False
    return True


FINE = 2.0**24
"""Steps of a pixel to which positions are rounded where weights are made for each."""


@compiled
def locate(
    ys: Array,
    xs: Array,
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    scratch: tuple[Array, Array],
) -> tuple[Array, ...]:
    """Set the places of the first pixel and of the weights of each position, and return the tables of weights.

    Parameters
    ----------
    ys, xs
        Input positions, shape ``(n,)``, float64.
    frame
        See `partial_sums`.
    weights
        Rows and columns of weights, and where they are from; see `lazyccd.kernels.resample.weights.source_of`.
    tables
        Weights along y and x and their squares, flattened.
    scratch
        Receives places in the flattened block and in the flattened tables along y and x, shape ``(3, n)``, uint32; and
        weights, shape ``(4, 2 * n)``; both may be longer, of the dtype of the tables.

    Returns
    -------
    tuple of Array
        The tables; those of these positions alone for kernels whose weights are cheaper than a table.
    """
    at, own = scratch
    rows, columns, method = np.int32(weights[0]), np.int32(weights[1]), weights[2]
    before_y, before_x, stride = (
        np.int32(rows // 2 - 1 + frame[2]),
        np.int32(columns // 2 - 1 + frame[3]),
        np.uint32(frame[5]),
    )
    # 32 bits: processors before AVX-512 convert no vector of floats to 64-bit integers
    for k in range(ys.size):
        y, x = np.floor(ys[k]), np.floor(xs[k])
        at[0, k] = np.uint32(np.int32(y) - before_y) * stride + np.uint32(np.int32(x) - before_x)
    if method == TABLE:
        for k in range(ys.size):
            at[1, k] = np.uint32(np.int32((ys[k] - np.floor(ys[k])) * PHASES + 0.5) * rows)
            at[2, k] = np.uint32(np.int32((xs[k] - np.floor(xs[k])) * PHASES + 0.5) * columns)
        return tables
    for k in range(ys.size):
        # rounded to 6e-8 pixel: what is a whole pixel but for the rounding of coordinates has no neighbours
        fy = np.floor((ys[k] - np.floor(ys[k])) * FINE + 0.5) / FINE
        fx = np.floor((xs[k] - np.floor(xs[k])) * FINE + 0.5) / FINE
        if method == NEAREST:
            fy, fx = np.float64(fy >= 0.5), np.float64(fx >= 0.5)
        at[1, k] = at[2, k] = np.uint32(2 * k)
        own[0, 2 * k], own[0, 2 * k + 1] = 1 - fy, fy
        own[1, 2 * k], own[1, 2 * k + 1] = 1 - fx, fx
        own[2, 2 * k], own[2, 2 * k + 1] = (1 - fy) * (1 - fy), fy * fy
        own[3, 2 * k], own[3, 2 * k + 1] = (1 - fx) * (1 - fx), fx * fx
    return own[0], own[1], own[2], own[3]


@compiled
def short_way(
    ys: Array,
    xs: Array,
    source: tuple[Array, ...],
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    scratch: tuple[Array, Array],
    out: tuple[Array, ...],
) -> None:
    """Set a row of pixels, all of whose input pixels are good.

    Parameters
    ----------
    ys, xs, frame, weights, tables, scratch
        As of `locate`.
    source
        Data, variance and flags; see `partial_sums`.
    out
        Receive data, variance and aperture variance, not scaled; an empty one is not wanted. The aperture variance is made
        from the variance.
    """
    used = locate(ys, xs, frame, weights, tables, scratch)
    at, stride, taps = scratch[0], np.uint32(frame[5]), (weights[0], weights[1])
    if out[0].size:
        weighted_sums(source[0], at, stride, used[0], used[1], taps, out[0])
    if out[1].size:
        weighted_sums(source[1], at, stride, used[2], used[3], taps, out[1])
    if out[2].size:
        _aperture_variance(out[1], at, used[2], used[3], taps, out[2])


@compiled
def _aperture_variance(variance: Array, at: Array, wy: Array, wx: Array, taps: tuple[int, int], out: Array) -> None:
    """Set variances for sums over apertures, whose squared weights have the sum 1; see `lazyccd.kernels.resample.block`.

    Parameters
    ----------
    variance
        Variances of the pixels by themselves, shape ``(n,)``.
    at, taps
        As of `weighted_sums`.
    wy, wx
        Tables of squared weights.
    out
        Receives the variances.
    """
    for k in range(out.size):
        along_y = along_x = variance.dtype.type(0)
        for j in range(taps[0]):
            along_y += wy[at[1, k] + np.uint32(j)]
        for i in range(taps[1]):
            along_x += wx[at[2, k] + np.uint32(i)]
        out[k] = variance[k] / (along_y * along_x)


LOST = 0.5
"""A pixel that loses more than this part of its absolute weight has no data."""

CARRIED = 0.1
"""A pixel has the planes of input pixels that hold more than this part of its absolute weight."""


@compiled
def worst_flag(
    place: tuple[int, int], flags: Array, frame: tuple[int, int, int, int, int, int], wy: Array, wx: Array
) -> int:
    """Return the largest flag of the pixels that have weight; `BAD` if some lie outside of the input.

    Parameters
    ----------
    place, frame, wy, wx
        As of `partial_sums`.
    flags
        As of `mark_flags`, shape ``(n,)``.
    """
    ny, nx, y0, x0, _, columns = frame
    if place[0] < 0 or place[1] < 0 or place[0] + wy.size > ny or place[1] + wx.size > nx:
        return BAD
    worst = 0
    for j in range(wy.size):
        begin = (place[0] + j - y0) * columns + place[1] - x0
        for i in range(wx.size):
            # a pixel without weight is not looked at: a whole-pixel shift has no neighbours
            if wy[j] != 0 and wx[i] != 0:
                worst = max(worst, int(flags[begin + i]))
    return worst


@compiled
def long_way(
    ys: Array,
    xs: Array,
    source: tuple[Array, ...],
    mask: Array,
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    scratch: tuple[Array, Array],
    bits: tuple[int, int],
    out: tuple[Array, ...],
    out_mask: Array,
) -> None:
    """Set a row of pixels, with bad pixels and edges about them.

    Parameters
    ----------
    ys, xs, source, frame, weights, tables, scratch, out
        As of `short_way`; the positions are changed.
    mask
        Unsigned integers of the block, shape ``(n,)``; may be empty.
    bits
        The bit of pixels without data, and those that are carried on where pixels that have them hold enough weight.
    out_mask
        Receives the mask; empty if it is not wanted.
    """
    near = np.empty(ys.size, np.bool_)
    # loops and not `where`, whose compilation takes as long as all the rest
    for k in range(ys.size):
        # comparisons with NaN are False: positions without coordinates lie nowhere
        along_y, along_x = (
            ys[k] > -weights[0] and ys[k] < frame[0] + weights[0],
            xs[k] > -weights[1] and xs[k] < frame[1] + weights[1],
        )
        near[k] = along_y and along_x
        if not near[k]:
            ys[k] = xs[k] = 0.0
    used = locate(ys, xs, frame, weights, tables, scratch)
    at = scratch[0]
    clean = np.zeros(ys.size, np.bool_)
    for k in range(ys.size):
        value, spread, aperture, flagged = np.nan, np.nan, np.nan, bits[0]
        if near[k]:
            place = (int(np.floor(ys[k])) - (weights[0] // 2 - 1), int(np.floor(xs[k])) - (weights[1] // 2 - 1))
            wy, wx = used[0][at[1, k] : at[1, k] + weights[0]], used[1][at[2, k] : at[2, k] + weights[1]]
            worst = worst_flag(place, source[2], frame, wy, wx)
            if worst < BAD:
                clean[k], flagged = True, 0
            else:
                total, spread, weight, squares, kept, everything = partial_sums(place, source, frame, wy, wx)
                aperture = spread / squares
                value, spread, flagged = total / weight, spread / (weight * weight), 0
                if kept == 0 or kept < (1 - LOST) * everything:
                    value, spread, aperture, flagged = np.nan, np.nan, np.nan, bits[0]
            if mask.size and out_mask.size and worst > 0:
                flagged |= carried_bits(place, mask, frame, wy, wx, CARRIED) & bits[1]
        if out[0].size:
            out[0][k] = value
        if out[1].size:
            out[1][k] = spread
        if out[2].size:
            out[2][k] = aperture
        if out_mask.size:
            out_mask[k] = flagged
    _clean_sums(clean, ys, xs, source, frame, weights, tables, scratch, out)


@compiled
def _clean_sums(
    clean: Array,
    ys: Array,
    xs: Array,
    source: tuple[Array, ...],
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    scratch: tuple[Array, Array],
    out: tuple[Array, ...],
) -> None:
    """Set those pixels of a row all of whose input pixels are good, by the sums of `short_way`; see there."""
    count = 0
    for k in range(ys.size):
        if clean[k]:
            ys[count], xs[count] = ys[k], xs[k]
            count += 1
    found = (
        np.empty(count if out[0].size else 0, out[0].dtype),
        np.empty(count if out[1].size else 0, out[1].dtype),
        np.empty(count if out[2].size else 0, out[2].dtype),
    )
    short_way(ys[:count], xs[:count], source, frame, weights, tables, scratch, found)
    count = 0
    for k in range(clean.size):
        if clean[k]:
            for n in range(3):
                if out[n].size:
                    out[n][k] = found[n][count]
            count += 1


@compiled
def resample_cells(
    cells: Array,
    patch: tuple[Array, ...],
    place: tuple[int, int],
    region: tuple[int, int, int, int],
    source: tuple[Array, ...],
    mask: Array,
    tiles: Array,
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    bits: tuple[int, int],
    ratio: float,
    out: tuple[Array, ...],
    out_mask: Array,
) -> bool:
    """Set the pixels of some cells of a patch.

    Parameters
    ----------
    cells
        Row and column of each cell in the patch, shape ``(n, 2)``.
    patch
        Nodes, dense, pixels and boxes of the patch; see `lazyccd.kernels.resample.lattice.Patch`.
    place
        Row and column of the first pixel of the patch in what is set.
    region
        First and last row and column that are wanted, in pixels of the patch, half-open.
    source, mask, frame, weights, tables, bits
        As of `long_way`.
    tiles
        As of `mark_flags`.
    ratio
        As of `_scale`.
    out, out_mask
        Receive data, variance, aperture variance and mask, shape of the whole region; empty where not wanted.

    Returns
    -------
    bool
        Whether all positions lie in the boxes of their cells: what was read of the input is made from these.
    """
    boxes = patch[3]
    reach = max(weights[0], weights[1]) // 2 + 1
    positions = np.empty((3, STEP * STEP))
    scratch = (np.empty((3, STEP * STEP), np.uint32), np.empty((4, 2 * STEP * STEP), tables[0].dtype))
    # whole cells and not rows: a call and the slices of its arguments cost as much as the pixels of a row
    cell = np.empty((3, STEP * STEP), out[0].dtype)
    cell_mask = np.empty(STEP * STEP, out_mask.dtype)
    for c in range(cells.shape[0]):
        i, j = cells[c]
        rows = (max(i * STEP, region[0]), min((i + 1) * STEP, region[1]))
        columns = (max(j * STEP, region[2]), min((j + 1) * STEP, region[3]))
        size = (rows[1] - rows[0]) * (columns[1] - columns[0])
        ys, xs, areas = positions[0, :size], positions[1, :size], positions[2, :size]
        kind = cell_positions((i, j), patch, rows, columns, ys, xs)
        if kind != EMPTY and not inside(ys, xs, boxes[i, j]):
            return False
        if np.isnan(ratio) or out[2].size:
            cell_areas((i, j), patch, rows, columns, areas)
        if kind >= 0 and np.isnan(ratio):
            _leave_out(areas, ys)
        found = (
            cell[0, : size if out[0].size else 0],
            cell[1, : size if out[1].size else 0],
            cell[2, : size if out[2].size else 0],
        )
        found_mask = cell_mask[: size if out_mask.size else 0]
        if kind == CUBIC and _is_clean(boxes[i, j], reach, tiles, frame):
            short_way(ys, xs, source, frame, weights, tables, scratch, found)
            found_mask[:] = 0
        else:
            long_way(ys, xs, source, mask, frame, weights, tables, scratch, bits, found, found_mask)
        _scale(found, areas, ratio, weights[2] == NEAREST)
        at = (place[0] + rows[0], place[1] + columns[0])
        _put(found[0], rows, columns, at, out[0])
        _put(found[1], rows, columns, at, out[1])
        _put(found[2], rows, columns, at, out[2])
        _put(found_mask, rows, columns, at, out_mask)
    return True


@compiled
def _leave_out(areas: Array, ys: Array) -> None:
    """Take the position away from pixels whose area is not known: their data cannot be scaled."""
    for k in range(ys.size):
        if not np.isfinite(areas[k]):
            ys[k] = np.nan


@compiled
def _scale(found: tuple[Array, ...], areas: Array, ratio: float, is_nearest: bool) -> None:
    """Scale the data of a cell, and their variances.

    Parameters
    ----------
    found
        Data, variance and aperture variance; may be empty.
    areas
        Areas of the output pixels in input pixels; not used for data that have a ratio.
    ratio
        What data are multiplied by; NaN for these areas.
    is_nearest
        Whether the kernel is the nearest pixel, which is not widened and takes no mean of several.
    """
    if found[2].size:
        for k in range(found[2].size):
            scale = areas[k] if np.isnan(ratio) else ratio
            found[2][k] *= scale * scale / (min(areas[k], 1.0) if is_nearest else areas[k])
    if np.isnan(ratio):
        for k in range(found[0].size):
            found[0][k] *= areas[k]
        for k in range(found[1].size):
            found[1][k] *= areas[k] * areas[k]
    elif ratio != 1:
        for n in range(2):
            factor = found[n].dtype.type(ratio if n == 0 else ratio * ratio)
            for k in range(found[n].size):
                found[n][k] *= factor


@compiled
def cell_positions(
    cell: tuple[int, int],
    patch: tuple[Array, ...],
    rows: tuple[int, int],
    columns: tuple[int, int],
    ys: Array,
    xs: Array,
) -> int:
    """Set the input positions of a part of a cell, and return what the cell is.

    Parameters
    ----------
    cell
        Row and column of the cell in the patch.
    patch
        Nodes, dense, pixels and boxes of the patch.
    rows, columns
        First and last of the part, in pixels of the patch, half-open.
    ys, xs
        Receive the positions, row after row, float64.

    Returns
    -------
    int
        What ``Patch.dense`` says of the cell.
    """
    nodes, dense, pixels, _ = patch
    i, j = cell
    kind = dense[i, j]
    width, begin = columns[1] - columns[0], columns[0] - j * STEP
    for row in range(rows[0], rows[1]):
        at = (row - rows[0]) * width
        if kind == CUBIC:
            cell_row(nodes[0], i, j, (row - i * STEP) / STEP, begin, ys[at : at + width])
            cell_row(nodes[1], i, j, (row - i * STEP) / STEP, begin, xs[at : at + width])
        for k in range(width if kind != CUBIC else 0):
            ys[at + k] = pixels[kind, 0, row - i * STEP, begin + k] if kind >= 0 else np.nan
            xs[at + k] = pixels[kind, 1, row - i * STEP, begin + k] if kind >= 0 else np.nan
    return int(kind)


@compiled
def cell_areas(
    cell: tuple[int, int], patch: tuple[Array, ...], rows: tuple[int, int], columns: tuple[int, int], areas: Array
) -> None:
    """Set the areas of the pixels of a part of a cell in input pixels: the determinant of the Jacobian.

    Parameters
    ----------
    cell, patch, rows, columns
        As of `cell_positions`.
    areas
        Receives the areas, row after row, float64.
    """
    nodes, dense, pixels, _ = patch
    i, j = cell
    kind = dense[i, j]
    width, begin, end = columns[1] - columns[0], columns[0] - j * STEP, columns[1] - j * STEP
    slopes = np.empty((4, STEP))
    for row in range(rows[0], rows[1]):
        at = (row - rows[0]) * width
        if kind == CUBIC:
            cell_slopes(nodes[0], i, j, (row - i * STEP) / STEP, slopes[0], slopes[1])
            cell_slopes(nodes[1], i, j, (row - i * STEP) / STEP, slopes[2], slopes[3])
        for k in range(begin, end):
            if kind >= 0:
                for axis in range(2):
                    slopes[2 * axis, k] = _slope(pixels[kind, axis, :, k], row - i * STEP)
                    slopes[2 * axis + 1, k] = _slope(pixels[kind, axis, row - i * STEP], k)
        for k in range(begin, end):
            area = abs(slopes[0, k] * slopes[3, k] - slopes[1, k] * slopes[2, k]) if kind != EMPTY else np.nan
            # the rounding of coordinates, lest an image on its own WCS lose its last bits
            areas[at + k - begin] = 1.0 if abs(area - 1) < UNIT else area


UNIT = 1e-7
"""What areas may differ from 1 by rounding of coordinates."""


@compiled
def cell_slopes(nodes: Array, row: int, column: int, fraction: float, along_y: Array, along_x: Array) -> None:
    """Set the derivatives of the cubic of `cell_row`, per pixel.

    Parameters
    ----------
    nodes, row, column, fraction
        As of `cell_row`.
    along_y, along_x
        Receive the derivatives, shape ``(64,)``, float64.
    """
    p, q = np.empty(4), np.empty(4)
    for k in range(4):
        n = column + k
        start, linear, second, third = cubic(nodes[row, n], nodes[row + 1, n], nodes[row + 2, n], nodes[row + 3, n])
        p[k] = start + fraction * (linear + fraction * (second + fraction * third))
        q[k] = linear + fraction * (2 * second + fraction * 3 * third)
    _, linear, second, third = cubic(p[0], p[1], p[2], p[3])
    start, first_y, second_y, third_y = cubic(q[0], q[1], q[2], q[3])
    for i in range(STEP):
        u = i / STEP
        along_x[i] = (linear + u * (2 * second + u * 3 * third)) / STEP
        along_y[i] = (start + u * (first_y + u * (second_y + u * third_y))) / STEP


@compiled
def _slope(line: Array, k: int) -> float:
    """Return the derivative of positions along a line of a cell that no cubic describes; NaN if it has none."""
    last = line.size - 1
    backward = line[k] - line[k - 1] if k > 0 else np.nan
    forward = line[k + 1] - line[k] if k < last else np.nan
    if k == 0:
        backward = 2 * forward - (line[2] - line[1])
    elif k == last:
        forward = 2 * backward - (line[k - 1] - line[k - 2])
    if not np.isfinite(backward):
        backward = forward
    if not np.isfinite(forward):
        forward = backward
    # coordinates jump where the sky comes again, and a jump is no slope
    if abs(forward - backward) > 0.5 * max(abs(forward), abs(backward)):
        return float(forward if abs(forward) < abs(backward) else backward)
    return float((forward + backward) / 2)


@compiled
def _put(found: Array, rows: tuple[int, int], columns: tuple[int, int], at: tuple[int, int], out: Array) -> None:
    """Copy a part of a cell, row after row, to its place."""
    width = columns[1] - columns[0]
    if found.size:
        for row in range(rows[1] - rows[0]):
            out[at[0] + row, at[1] : at[1] + width] = found[row * width : (row + 1) * width]


@compiled
def inside(ys: Array, xs: Array, box: Array) -> bool:
    """Return whether all positions that exist lie in a box."""
    outside = 0
    # counted, so that the loop is vectorised
    for k in range(ys.size):
        outside += (ys[k] < box[0]) | (ys[k] > box[1]) | (xs[k] < box[2]) | (xs[k] > box[3])
    return outside == 0
