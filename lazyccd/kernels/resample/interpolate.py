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
from lazyccd.kernels.resample.sums import padded, pair_sums, prefetch, weighted_sums
from lazyccd.kernels.resample.weights import NEAREST, PHASES, TABLE


@compiled
def cubic(before: float, here: float, after: float, beyond: float) -> tuple[float, float, float, float]:
    """Return the coefficients of the cubic through four points, in the distance from the second one."""
    # differences first: at whole-pixel steps all but the linear terms are exactly 0, and so are the fractions
    first = after - here
    second = ((before - here) - (here - after)) / 2
    third = ((beyond - before) - 3 * first) / 6
    return here, first - second - third, second, third


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
    data, variance, flags = source[0], source[1], source[2]
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
        Is set to `FLAGGED` or `BAD` where a pixel is; uint8, zeros of the same shape.
    tiles
        Is set to 1 where a square holds a pixel that is not 0; uint8.
    """
    ny, nx = data.shape
    for y in range(ny):
        row, some = flags[y], False
        # most rows have nothing to mark, and a test of all is three times as fast as marks
        for x in range(nx):
            some |= data[y, x] - data[y, x] != 0
        for x in range(nx if variance.size else 0):
            some |= variance[y, x] - variance[y, x] != 0
        for x in range(nx if mask.size else 0):
            some |= mask[y, x] != 0
        if not some:
            continue
        for x in range(nx):
            row[x] = np.uint8(0) if data[y, x] - data[y, x] == 0 else np.uint8(BAD)
        for x in range(nx if variance.size else 0):
            row[x] |= np.uint8(0) if variance[y, x] - variance[y, x] == 0 else np.uint8(BAD)
        for x in range(nx if mask.size else 0):
            row[x] |= np.uint8(mask[y, x] != 0) | (np.uint8(BAD) if (mask[y, x] & bad) != 0 else np.uint8(0))
        for t in range(tiles.shape[1]):
            found = np.uint8(0)
            for x in range(t * TILE, min((t + 1) * TILE, nx)):
                found |= row[x]
            if found:
                tiles[y // TILE, t] = 1


@compiled
def mark_windows(flags: Array, taps: tuple[int, int], windows: Array) -> None:
    """Mark the first pixels of all windows that hold a flag: one look for a pixel of the output, and not one for each tap.

    Parameters
    ----------
    flags
        As of `mark_flags`.
    taps
        Rows and columns of a window.
    windows
        Receives the flags that are in the window, uint8, same shape.
    """
    ny, nx = flags.shape
    for y in range(ny):
        row, found = flags[y], windows[y]
        found[:] = row
        for i in range(1, taps[1]):
            for x in range(nx - i):
                found[x] |= row[x + i]
    for y in range(ny):
        for j in range(y + 1, min(y + taps[0], ny)):
            for x in range(nx):
                windows[y, x] |= windows[j, x]


@compiled
def box_is_clean(box: Array, reach: int, tiles: Array, frame: tuple[int, int, int, int, int, int]) -> bool:
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
    scratch: tuple[Array, Array],
) -> None:
    """Set the places of the first pixel and of the weights of each position.

    Parameters
    ----------
    ys, xs
        Input positions, shape ``(n,)``, float64.
    frame
        See `partial_sums`.
    weights
        Rows and columns of weights, and where they are from; see `lazyccd.kernels.resample.weights.source_of`.
    scratch
        Receives places in the flattened block and in the flattened tables along y and x, shape ``(3, n)``, uint32; and for
        kernels without tables the weights of the second row and column, shape ``(2, n)``, of the dtype of the tables.
        Both may be longer.
    """
    at, own = scratch
    method, before_y, before_x, stride = (
        weights[2],
        np.int32(weights[0] // 2 - 1 + frame[2]),
        np.int32(weights[1] // 2 - 1 + frame[3]),
        np.uint32(frame[5]),
    )
    # 32 bits: processors before AVX-512 convert no vector of floats to 64-bit integers
    for k in range(ys.size):
        y, x = np.floor(ys[k]), np.floor(xs[k])
        at[0, k] = np.uint32(np.int32(y) - before_y) * stride + np.uint32(np.int32(x) - before_x)
    if method == TABLE:
        rows, columns = np.int32(padded(weights[0])), np.int32(padded(weights[1]))
        for k in range(ys.size):
            at[1, k] = np.uint32(np.int32((ys[k] - np.floor(ys[k])) * PHASES + 0.5) * rows)
            at[2, k] = np.uint32(np.int32((xs[k] - np.floor(xs[k])) * PHASES + 0.5) * columns)
        return
    for k in range(ys.size):
        # rounded to 6e-8 pixel: what is a whole pixel but for the rounding of coordinates has no neighbours
        own[0, k] = np.floor((ys[k] - np.floor(ys[k])) * FINE + 0.5) / FINE
        own[1, k] = np.floor((xs[k] - np.floor(xs[k])) * FINE + 0.5) / FINE
    for k in range(ys.size if method == NEAREST else 0):
        own[0, k], own[1, k] = own[0, k] >= 0.5, own[1, k] >= 0.5


@compiled
def pixel_weights(
    k: int, weights: tuple[int, int, int], tables: tuple[Array, ...], scratch: tuple[Array, Array], wy: Array, wx: Array
) -> None:
    """Set the weights of a position along y and x, after `locate`; see there."""
    at, own = scratch
    if weights[2] == TABLE:
        wy[:] = tables[0][at[1, k] : at[1, k] + weights[0]]
        wx[:] = tables[1][at[2, k] : at[2, k] + weights[1]]
    else:
        wy[0], wy[1], wx[0], wx[1] = 1 - own[0, k], own[0, k], 1 - own[1, k], own[1, k]


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
    ys, xs, frame, weights, scratch
        As of `locate`.
    source
        Data, variance, flags and windows; see `partial_sums` and `mark_windows`.
    tables
        Tables of weights along y and x, and of their squares, flattened; empty for kernels without.
    out
        Receive data, variance and aperture variance, not scaled; an empty one is not wanted. The aperture variance is made
        from the variance.
    """
    locate(ys, xs, frame, weights, scratch)
    at, own = scratch
    stride, taps = np.uint32(frame[5]), (weights[0], weights[1])
    if weights[2] == TABLE:
        if out[0].size:
            weighted_sums(source[0], at, stride, tables[0], tables[1], taps, out[0])
        if out[1].size:
            weighted_sums(source[1], at, stride, tables[2], tables[3], taps, out[1])
        if out[2].size:
            _aperture_variance(out[1], at, tables[2], tables[3], taps, out[2])
        return
    if out[0].size:
        pair_sums(source[0], at, stride, own, False, out[0])
    if out[1].size:
        pair_sums(source[1], at, stride, own, True, out[1])
    for k in range(out[2].size):
        d, b = own[0, k], own[1, k]
        out[2][k] = out[1][k] / (((1 - d) * (1 - d) + d * d) * ((1 - b) * (1 - b) + b * b))


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
def exists(place: tuple[int, int], weights: tuple[int, int, int], frame: tuple[int, int, int, int, int, int]) -> bool:
    """Return whether the input has all pixels that have weights; see `partial_sums`."""
    return place[0] >= 0 and place[1] >= 0 and place[0] + weights[0] <= frame[0] and place[1] + weights[1] <= frame[1]


@compiled
def worst_flag(
    place: tuple[int, int], flags: Array, frame: tuple[int, int, int, int, int, int], wy: Array, wx: Array
) -> int:
    """Return the largest flag of the pixels that have weight, all of which exist.

    Parameters
    ----------
    place, frame, wy, wx
        As of `partial_sums`.
    flags
        As of `mark_flags`, shape ``(n,)``.
    """
    _, _, y0, x0, _, columns = frame
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
    _keep_near(ys, xs, frame, weights, near)
    locate(ys, xs, frame, weights, scratch)
    at, windows = scratch[0], source[3]
    wy, wx = np.empty(weights[0], tables[0].dtype), np.empty(weights[1], tables[0].dtype)
    clean = np.zeros(ys.size, np.bool_)
    for k in range(ys.size):
        value, spread, aperture, flagged = np.nan, np.nan, np.nan, bits[0]
        if near[k]:
            place = (int(np.floor(ys[k])) - (weights[0] // 2 - 1), int(np.floor(xs[k])) - (weights[1] // 2 - 1))
            worst, whole = 0, exists(place, weights, frame)
            if not whole or (windows.size and windows[at[0, k]]):
                pixel_weights(k, weights, tables, scratch, wy, wx)
                worst = worst_flag(place, source[2], frame, wy, wx) if whole else BAD
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
def _keep_near(
    ys: Array, xs: Array, frame: tuple[int, int, int, int, int, int], weights: tuple[int, int, int], near: Array
) -> None:
    """Mark the positions from which a kernel may reach the input, and set the others to 0; see `long_way`."""
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


LINE = 64
"""Bytes of a cache line."""

STRIP = 16
"""Rows of a cell that are done at once: their positions and places then stay in the fastest cache."""


@compiled
def fetch(
    box: Array,
    part: tuple[int, int],
    reach: int,
    frame: tuple[int, int, int, int, int, int],
    planes: tuple[Array, Array],
) -> None:
    """Ask for a part of the input pixels of the next cell: they lie in as many pages as it has rows, and no processor foresees that.

    Parameters
    ----------
    box
        Box of the cell.
    part
        Number of the part and how many there are: more requests than a processor has room for make it wait.
    reach
        How far the kernel reaches.
    frame
        As of `partial_sums`.
    planes
        Data and variance; may be empty.
    """
    if np.isnan(box[0]):
        return
    _, _, y0, x0, rows, columns = frame
    first_y, last_y = max(int(box[0]) - reach - y0, 0), min(int(box[1]) + reach - y0, rows - 1)
    first_x, last_x = max(int(box[2]) - reach - x0, 0), min(int(box[3]) + reach - x0, columns - 1)
    height = max(last_y + 1 - first_y, 0)
    begin, end = first_y + height * part[0] // part[1], first_y + height * (part[0] + 1) // part[1]
    for plane in planes:
        for y in range(begin, end if plane.size else begin):
            for x in range(first_x, last_x + 1, LINE // plane.itemsize):
                prefetch(plane, y * columns + x)


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
    room = (
        np.empty((3, STRIP * STEP)),
        np.empty((3, STRIP * STEP), np.uint32),
        np.empty((2, STRIP * STEP), tables[0].dtype),
        np.empty((3, STRIP * STEP), out[0].dtype),
        np.empty(STRIP * STEP, out_mask.dtype),
    )
    for c in range(cells.shape[0]):
        following = cells[min(c + 1, cells.shape[0] - 1)]
        i, j = cells[c]
        rows = (max(i * STEP, region[0]), min((i + 1) * STEP, region[1]))
        columns = (max(j * STEP, region[2]), min((j + 1) * STEP, region[3]))
        clean = patch[1][i, j] == CUBIC and box_is_clean(boxes[i, j], reach, tiles, frame)
        for first in range(rows[0], rows[1], STRIP):
            part = ((first - rows[0]) // STRIP, -(-(rows[1] - rows[0]) // STRIP))
            fetch(boxes[following[0], following[1]], part, reach, frame, (source[0], source[1]))
            strip = (first, min(first + STRIP, rows[1]))
            wanted = ((i, j), strip, columns, place, clean)
            if not _resample_strip(
                wanted, patch, source, mask, frame, weights, tables, bits, ratio, room, out, out_mask
            ):
                return False
    return True


@compiled
def _resample_strip(
    wanted: tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], bool],
    patch: tuple[Array, ...],
    source: tuple[Array, ...],
    mask: Array,
    frame: tuple[int, int, int, int, int, int],
    weights: tuple[int, int, int],
    tables: tuple[Array, ...],
    bits: tuple[int, int],
    ratio: float,
    room: tuple[Array, ...],
    out: tuple[Array, ...],
    out_mask: Array,
) -> bool:
    """Set the pixels of some rows of a cell, and return whether all positions lie in its box.

    Parameters
    ----------
    wanted
        The cell, its rows and columns in pixels of the patch, the place of the patch in what is set, and whether all of the
        cell's input pixels are good.
    patch, source, mask, frame, weights, tables, bits, ratio, out, out_mask
        As of `resample_cells`.
    room
        For positions and areas, places, weights, results and mask of the pixels.
    """
    cell, rows, columns, place, clean = wanted
    size = (rows[1] - rows[0]) * (columns[1] - columns[0])
    ys, xs, areas = room[0][0, :size], room[0][1, :size], room[0][2, :size]
    kind, fits = cell_positions(cell, patch, rows, columns, ys, xs)
    if not fits:
        return False
    if np.isnan(ratio) or out[2].size:
        cell_areas(cell, patch, rows, columns, areas)
    if kind >= 0 and np.isnan(ratio):
        _leave_out(areas, ys)
    # whole strips and not rows: a call and the slices of its arguments cost as much as the pixels of a row
    found = (
        room[3][0, : size if out[0].size else 0],
        room[3][1, : size if out[1].size else 0],
        room[3][2, : size if out[2].size else 0],
    )
    found_mask = room[4][: size if out_mask.size else 0]
    if clean:
        short_way(ys, xs, source, frame, weights, tables, (room[1], room[2]), found)
        found_mask[:] = 0
    else:
        long_way(ys, xs, source, mask, frame, weights, tables, (room[1], room[2]), bits, found, found_mask)
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
) -> tuple[int, bool]:
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
    tuple
        What ``Patch.dense`` says of the cell, and whether all positions that exist lie in its box.
    """
    nodes, dense, pixels, boxes = patch
    i, j = cell
    kind, width, begin = dense[i, j], columns[1] - columns[0], columns[0] - j * STEP
    if kind == CUBIC:
        part = (rows[0] - i * STEP, rows[1] - i * STEP)
        return int(kind), _cubic_positions(nodes, boxes[i, j], (i, j), part, begin, ys, xs)
    for row in range(rows[0], rows[1]):
        at = (row - rows[0]) * width
        for k in range(width):
            ys[at + k] = pixels[kind, 0, row - i * STEP, begin + k] if kind >= 0 else np.nan
            xs[at + k] = pixels[kind, 1, row - i * STEP, begin + k] if kind >= 0 else np.nan
    return int(kind), kind == EMPTY or inside(ys, xs, boxes[i, j])


FRACTIONS = np.arange(STEP) / STEP
"""Positions of pixels in a cell."""


@compiled
def _cubic_positions(
    nodes: Array, box: Array, cell: tuple[int, int], rows: tuple[int, int], begin: int, ys: Array, xs: Array
) -> bool:
    """Set the positions of pixels by the cubics through the 4 x 4 nodes about a cell, and return whether its box holds them.

    Parameters
    ----------
    nodes
        Input positions y and x at the nodes of the patch.
    box
        Box of the cell.
    cell
        Row and column of the cell in the patch.
    rows, begin
        First and last row and first column in the cell.
    ys, xs
        Receive the positions, row after row, float64.
    """
    width, down = ys.size // (rows[1] - rows[0]), np.empty((2, 4, 4))
    for axis in range(2):
        for k in range(4):
            line, n = nodes[axis], cell[1] + k
            here = (line[cell[0], n], line[cell[0] + 1, n], line[cell[0] + 2, n], line[cell[0] + 3, n])
            down[axis, k, 0], down[axis, k, 1], down[axis, k, 2], down[axis, k, 3] = cubic(*here)
    held = True
    for row in range(rows[0], rows[1]):
        at, u = (row - rows[0]) * width, row / STEP
        a = cubic(_at(down, 0, 0, u), _at(down, 0, 1, u), _at(down, 0, 2, u), _at(down, 0, 3, u))
        b = cubic(_at(down, 1, 0, u), _at(down, 1, 1, u), _at(down, 1, 2, u), _at(down, 1, 3, u))
        if width == STEP:
            # a number of pixels that the compiler knows is twice as fast
            _cubic_row(a, ys[at : at + STEP], 0, STEP)
            _cubic_row(b, xs[at : at + STEP], 0, STEP)
        else:
            _cubic_row(a, ys[at : at + width], begin, width)
            _cubic_row(b, xs[at : at + width], begin, width)
        held = held and _is_held(a, box[0], box[1]) and _is_held(b, box[2], box[3])
    return held or inside(ys, xs, box)


@compiled
def _cubic_row(c: tuple[float, float, float, float], out: Array, begin: int, width: int) -> None:
    """Set the values of a cubic at pixels of a cell, from the pixel ``begin`` on."""
    for k in range(np.uint64(width)):
        v = FRACTIONS[np.uint64(begin) + k]
        out[k] = c[0] + v * (c[1] + v * (c[2] + v * c[3]))


@compiled
def _is_held(c: tuple[float, float, float, float], low: float, high: float) -> bool:
    """Return whether all values of a cubic from 0 to 1 lie between two numbers; False where it is not sure.

    They lie between the smallest and the largest of its Bernstein coefficients.
    """
    first, last = c[0] + c[1] / 3, c[0] + c[1] + c[2] + c[3]
    second = c[0] + (2 * c[1] + c[2]) / 3
    return min(min(c[0], first), min(second, last)) >= low and max(max(c[0], first), max(second, last)) <= high


@compiled
def _at(down: Array, axis: int, k: int, u: float) -> float:
    """Return the value of one of the cubics along y."""
    c = down[axis, k]
    value: float = c[0] + u * (c[1] + u * (c[2] + u * c[3]))
    return value


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
    """Set the derivatives of the cubic of `cell_positions`, per pixel.

    Parameters
    ----------
    nodes, row, column, fraction
        Input positions at the nodes along one axis, shape ``(19, 19)``, float64; the cell; and the row in it, from 0 to 1.
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
        backward = _before(forward, line[2] - line[1])
    elif k == last:
        forward = _before(backward, line[k - 1] - line[k - 2])
    if not np.isfinite(backward):
        backward = forward
    if not np.isfinite(forward):
        forward = backward
    # coordinates jump where the sky comes again, and a jump is no slope
    if _jumps(forward, backward):
        return float(forward if abs(forward) < abs(backward) else backward)
    return float((forward + backward) / 2)


@compiled
def _jumps(one: float, other: float) -> bool:
    """Return whether coordinates jump in one of two neighbouring steps."""
    return bool(abs(one - other) > 0.5 * max(abs(one), abs(other)))


@compiled
def _before(first: float, second: float) -> float:
    """Return the step before two others as if it went on straight; the second, where one of them is a jump."""
    return second if _jumps(first, second) else 2 * first - second


@compiled
def _put(found: Array, rows: tuple[int, int], columns: tuple[int, int], at: tuple[int, int], out: Array) -> None:
    """Copy a part of a cell, row after row, to its place."""
    width = columns[1] - columns[0]
    for row in range(rows[1] - rows[0] if found.size else 0):
        line, begin = out[at[0] + row, at[1] : at[1] + width], np.uint64(row * width)
        for k in range(np.uint64(width)):
            line[k] = found[begin + k]


@compiled
def inside(ys: Array, xs: Array, box: Array) -> bool:
    """Return whether all positions that exist lie in a box."""
    outside = 0
    # counted, so that the loop is vectorised
    for k in range(ys.size):
        outside += (ys[k] < box[0]) | (ys[k] > box[1]) | (xs[k] < box[2]) | (xs[k] > box[3])
    return outside == 0
