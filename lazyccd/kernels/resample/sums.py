"""Weighted sums of input pixels, eight columns at a time.

numba vectorises loops over output pixels, which would have to gather each of 36 input pixels. A row of taps lies side by
side in memory, so the vector is a row here: that is twice as fast, and in an order of additions that no compiler chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.core.cgutils
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.resample.lattice import STEP

LANES = 8
"""Columns that are summed together; tables of weights have zeros up to a multiple of it."""

cgutils: Any = numba.core.cgutils

ONE, EIGHT = np.uint32(1), np.uint32(LANES)


@compiled
def padded(taps: int) -> int:
    """Return how many numbers a row of weights takes in a table."""
    return -(-taps // LANES) * LANES


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Make a function of loops from one that writes their machine code."""
    return intrinsic(prefer_literal=True)(function)


@_intrinsic
def _vector_sum(
    _typing: Any, plane: Any, first: Any, stride: Any, wy: Any, at_y: Any, rows: Any, wx: Any, at_x: Any
) -> Any:
    """Return the sum over rows and eight columns; rows that are a literal number are unrolled."""
    number = rows.literal_value if isinstance(rows, types.IntegerLiteral) else None

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args
        scalar = context.get_value_type(plane.dtype)
        vector = ir.VectorType(scalar, LANES)
        pointers = [cgutils.create_struct_proxy(kinds[k])(context, builder, given[k]).data for k in (0, 3, 6)]
        at, step, weight, column = (context.cast(builder, given[k], kinds[k], types.uint64) for k in (1, 2, 4, 7))

        def eight(pointer: Any, place: Any) -> Any:
            begin = builder.bitcast(builder.gep(pointer, [place]), vector.as_pointer())
            return builder.load(begin, align=plane.dtype.bitwidth // 8)

        def product(row: Any) -> Any:
            one = builder.load(builder.gep(pointers[1], [builder.add(weight, row)]))
            lane = builder.insert_element(ir.Constant(vector, ir.Undefined), one, ir.Constant(ir.IntType(32), 0))
            every = builder.shuffle_vector(lane, lane, ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))
            return builder.fmul(every, eight(pointers[0], builder.add(at, builder.mul(step, row))))

        word = ir.IntType(64)
        if number is not None:
            total = product(ir.Constant(word, 0))
            for row in range(1, number):
                total = builder.fadd(total, product(ir.Constant(word, row)))
        else:
            kept = cgutils.alloca_once_value(builder, product(ir.Constant(word, 0)))
            stop = context.cast(builder, given[5], kinds[5], types.int64)
            with cgutils.for_range_slice(builder, ir.Constant(word, 1), stop, ir.Constant(word, 1)) as (row, _):
                builder.store(builder.fadd(builder.load(kept), product(row)), kept)
            total = builder.load(kept)
        total = builder.fmul(total, eight(pointers[2], column))
        for half in (4, 2, 1):
            low = ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(half)))
            high = ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(half, 2 * half)))
            total = builder.fadd(builder.shuffle_vector(total, total, low), builder.shuffle_vector(total, total, high))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return plane.dtype(plane, first, stride, wy, at_y, rows, wx, at_x), generate


@_intrinsic
def prefetch(_typing: Any, plane: Any, at: Any) -> Any:
    """Ask for the cache line of an element of a plane, which may lie outside of it."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, given[0]).data
        place = context.cast(builder, given[1], signature.args[1], types.int64)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        ask = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(ask, [builder.bitcast(builder.gep(data, [place]), byte), word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(plane, at), generate


@compiled
def _sum_at_end(
    plane: Array, first: np.uint32, stride: np.uint32, wy: Array, at_y: np.uint32, rows: int, wx: Array, at_x: np.uint32
) -> float:
    """Return what `_vector_sum` returns, in the same order, where it would read beyond the last pixel."""
    total = np.zeros(LANES, plane.dtype)
    for i in range(LANES):
        at = np.uint64(first) + np.uint64(i)
        for j in range(rows):
            # a pixel that does not exist has no weight
            pixel = plane[at] if at < np.uint64(plane.size) else plane.dtype.type(0)
            part = wy[np.uint64(at_y) + np.uint64(j)] * pixel
            total[i] = part if j == 0 else total[i] + part
            at += np.uint64(stride)
        total[i] *= wx[np.uint64(at_x) + np.uint64(i)]
    even, odd = (total[0] + total[4]) + (total[2] + total[6]), (total[1] + total[5]) + (total[3] + total[7])
    found: float = even + odd
    return found


@compiled
def weighted_sums(
    plane: Array, at: Array, stride: np.uint32, wy: Array, wx: Array, taps: tuple[int, int], out: Array
) -> None:
    """Set a row of sums of pixels times their weights.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of a block, finite, shape ``(n,)``.
    at
        Place of the first pixel of each sum, and of its first weight along y and x, shape ``(3, k)``, uint32.
    stride
        From a row of the block to the next.
    wy, wx
        Tables of weights along y and x, flattened, of the dtype of the plane, with zeros up to a multiple of `LANES`.
    taps
        How many rows and columns each sum has.
    out
        Receives the sums, shape ``(k,)``.
    """
    number = out.size
    across = np.uint64(padded(taps[1]))
    end = np.int64(plane.size) - np.int64(np.uint64(taps[0] - 1) * np.uint64(stride) + across)
    for k in range(number):
        if np.int64(at[0, k]) > end:
            for i in range(0, taps[1], LANES):
                part = _sum_at_end(
                    plane, at[0, k] + np.uint32(i), stride, wy, at[1, k], taps[0], wx, at[2, k] + np.uint32(i)
                )
                out[k] = part if i == 0 else out[k] + part
        elif across > EIGHT:
            for i in range(0, taps[1], LANES):
                part = _vector_sum(
                    plane, at[0, k] + np.uint32(i), stride, wy, at[1, k], taps[0], wx, at[2, k] + np.uint32(i)
                )
                out[k] = part if i == 0 else out[k] + part
        elif taps[0] == 6:
            # numbers of rows that the compiler knows let it unroll the loop
            out[k] = _vector_sum(plane, at[0, k], stride, wy, at[1, k], 6, wx, at[2, k])
        elif taps[0] == 4:
            out[k] = _vector_sum(plane, at[0, k], stride, wy, at[1, k], 4, wx, at[2, k])
        else:
            out[k] = _vector_sum(plane, at[0, k], stride, wy, at[1, k], taps[0], wx, at[2, k])


def _columns(builder: Any, data: Any, spots: list[Any], scalar: Any, width: int) -> list[Any]:
    """Return as many vectors as pixels that lie side by side: those at places of a plane, those right of them, and so on."""
    word, parts = ir.IntType(32), []
    for spot in spots:
        # one load of all: gathers of single pixels take twice as long
        begin = builder.bitcast(builder.gep(data, [spot]), ir.VectorType(scalar, width).as_pointer())
        parts.append(builder.load(begin, align=4))
    while len(parts) > 1:
        length = parts[0].type.count * 2
        every = ir.Constant(ir.VectorType(word, length), list(range(length)))
        parts = [builder.shuffle_vector(x, y, every) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    lanes = (list(range(n, width * LANES, width)) for n in range(width))
    return [builder.shuffle_vector(parts[0], parts[0], ir.Constant(ir.VectorType(word, LANES), n)) for n in lanes]


def _places(builder: Any, place: Any, number: Any) -> list[Any]:
    """Return eight places of an array of 32 bits."""
    word = ir.IntType(64)
    lanes = (builder.add(number, word(lane)) for lane in range(LANES))
    return [builder.zext(builder.load(builder.gep(place, [lane])), word) for lane in lanes]


@_intrinsic
def _pairs_of_eight(
    _typing: Any, plane: Any, at: Any, k: Any, stride: Any, along_y: Any, along_x: Any, power: Any, out: Any
) -> Any:
    """Set eight sums over two rows and two columns, by weights to a power that is a literal number, 1 or 2."""
    squared, size = power.literal_value == 2, plane.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds, scalar = signature.args, context.get_value_type(plane.dtype)
        eight = ir.VectorType(scalar, LANES)
        data, place, y, x, result = (
            cgutils.create_struct_proxy(kinds[n])(context, builder, given[n]).data for n in (0, 1, 4, 5, 7)
        )
        number, step = (context.cast(builder, given[n], kinds[n], types.uint64) for n in (2, 3))
        d, b = (builder.load(builder.bitcast(builder.gep(v, [number]), eight.as_pointer()), align=size) for v in (y, x))
        ones = ir.Constant(eight, [1.0] * LANES)
        weights = builder.fsub(ones, b), b, builder.fsub(ones, d), d
        a, b, c, d = (builder.fmul(w, w) for w in weights) if squared else weights
        spots = _places(builder, place, number)
        below = [builder.add(spot, step) for spot in spots]
        pixels = (_columns(builder, data, which, scalar, 2) for which in (spots, below))
        upper, lower = (builder.fadd(builder.fmul(a, left), builder.fmul(b, right)) for left, right in pixels)
        total = builder.fadd(builder.fmul(c, upper), builder.fmul(d, lower))
        builder.store(total, builder.bitcast(builder.gep(result, [number]), eight.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(plane, at, k, stride, along_y, along_x, power, out), generate


@compiled
def pair_sums(plane: Array, at: Array, stride: np.uint32, fractions: Array, squared: bool, out: Array) -> None:
    """Set a row of sums over two rows and two columns.

    Parameters
    ----------
    plane, at, stride
        As of `weighted_sums`; only the places of the first pixels are used.
    fractions
        Weights of the second row and of the second column, shape ``(2, k)``, of the dtype of the plane.
    squared
        Whether pixels are multiplied by squared weights.
    out
        Receives the sums, shape ``(k,)``.
    """
    places, along_y, along_x, one = at[0], fractions[0], fractions[1], plane.dtype.type(1)
    whole = np.uint64(out.size // LANES)
    for n in range(whole):
        if squared:
            _pairs_of_eight(plane, places, n * np.uint64(LANES), stride, along_y, along_x, 2, out)
        else:
            _pairs_of_eight(plane, places, n * np.uint64(LANES), stride, along_y, along_x, 1, out)
    for k in range(whole * np.uint64(LANES), np.uint64(out.size)):
        d, b = along_y[k], along_x[k]
        c, a = one - d, one - b
        if squared:
            a, b, c, d = a * a, b * b, c * c, d * d
        first = places[k]
        below = np.uint32(first + stride)
        upper = a * plane[first] + b * plane[np.uint32(first + ONE)]
        out[k] = c * upper + d * (a * plane[below] + b * plane[np.uint32(below + ONE)])


@_intrinsic
def _nines_of_eight(
    _typing: Any, plane: Any, places: Any, k: Any, stride: Any, parts: Any, length: Any, power: Any, out: Any
) -> Any:
    """Set eight sums over three rows and three columns, by parts to a power that is a literal number, 1 or 2."""
    squared, row_length = power.literal_value == 2, length.literal_value

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds, scalar = signature.args, context.get_value_type(plane.dtype)
        eight = ir.VectorType(ir.DoubleType(), LANES)
        data, place, weights, result = (
            cgutils.create_struct_proxy(kinds[n])(context, builder, given[n]).data for n in (0, 1, 4, 7)
        )
        number, step = (context.cast(builder, given[n], kinds[n], types.uint64) for n in (2, 3))

        def at(pointer: Any, spot: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [spot]), eight.as_pointer())

        spots = _places(builder, place, number)
        total = ir.Constant(eight, [0.0] * LANES)
        for j in range(3):
            # four pixels in one load, of which three are used
            pixels = _columns(builder, data, spots, scalar, 4)
            spots = [builder.add(spot, step) for spot in spots]
            for i in (2, 1, 0):
                part = builder.load(at(weights, builder.add(number, ir.IntType(64)((3 * j + i) * row_length))), align=8)
                part = builder.fmul(part, part) if squared else part
                pixel = pixels[i] if scalar == ir.DoubleType() else builder.fpext(pixels[i], eight)
                total = builder.fadd(total, builder.fmul(part, pixel))
        builder.store(total, at(result, number), align=8)
        return context.get_dummy_value()

    return types.void(plane, places, k, stride, parts, length, power, out), generate


@compiled
def nine_sums(
    plane: Array, places: Array, stride: np.uint32, parts: Array, squared: bool, last: np.uint64, out: Array
) -> None:
    """Set a row of sums over three rows and three columns, rows downwards and columns from the right.

    Parameters
    ----------
    plane
        Float32 or float64 pixels of a block, finite, shape ``(n,)``.
    places
        Place of the first pixel of each sum, uint32, shape ``(k,)``.
    stride
        From a row of the block to the next.
    parts
        What the pixels of each sum are multiplied by, float64, shape ``(3, 3, 64)``.
    squared
        Whether pixels are multiplied by the squares of these.
    last
        The largest of the places.
    out
        Receives the sums, float64, shape ``(k,)``.
    """
    # a load of four pixels must not go beyond the last one
    fits = last + np.uint64(2) * np.uint64(stride) + np.uint64(4) <= np.uint64(plane.size)
    whole = np.uint64(out.size // LANES if fits else 0)
    for n in range(whole):
        if squared:
            _nines_of_eight(plane, places, n * np.uint64(LANES), stride, parts, STEP, 2, out)
        else:
            _nines_of_eight(plane, places, n * np.uint64(LANES), stride, parts, STEP, 1, out)
    for k in range(whole * np.uint64(LANES), np.uint64(out.size)):
        total = 0.0
        for j in range(np.uint64(3)):
            for i in range(3):
                part = parts[j, np.uint64(2 - i), k]
                pixel = plane[np.uint64(places[k]) + j * np.uint64(stride) + np.uint64(2 - i)]
                total += (part * part if squared else part) * pixel
        out[k] = total
