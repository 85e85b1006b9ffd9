"""Pixel by pixel arithmetic as a program: one kernel that runs any sequence of vector operations over tiles of an image.

A step of a plan that is a function of its own writes its planes to memory, and the next one reads them. Here a run of such
steps is a list of instructions, and each is done for `TILE` pixels at a time, whose numbers stay in the first cache: what
`calibrate` of a hand-written loop gains, for every plan, and with one function to load or compile.

1. Registers hold one tile of numbers each: those of ``numbers`` are float32 or float64, those of ``bits`` are uint32.
2. An instruction is a row of ``code``: the operation, the register that it sets, and its operands; see `Op`. It never sets a
   register that it reads: LLVM vectorises a loop only if the arrays do not overlap.
3. Arrays come as addresses with bytes from one row to the next, so that their types are no part of the kernel's signature.

Operations round as the kernels of `lazyccd.kernels.pointwise` do, one by one.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from lazyccd.kernels.block import Array
from lazyccd.kernels.fits.decode import _swapped as swapped
from lazyccd.kernels.jit import compiled
from lazyccd.kernels.pixel_loops import deviation

TILE = 1024
"""Pixels that are worked on at a time: eight registers of float32 take 32 KiB."""

CONSTANTS = 4
"""Numbers that an instruction may have."""


class Op(IntEnum):
    """What an instruction does: ``d`` is the register that is set, ``a`` to ``c`` registers, ``k`` constants, ``p`` an array.

    Names of arrays are numbers of rows of ``arrays``; integers stand in the code itself.
    """

    LOAD_F4 = auto()
    """d = p[a]"""
    LOAD_F8 = auto()
    LOAD_BIG_F4 = auto()
    """d = p[a], big-endian"""
    LOAD_BIG_F8 = auto()
    LOAD_BIG_I2 = auto()
    """d = p[a] + integer b, big-endian int16"""
    LOAD_U1 = auto()
    """d = p[a] + integer b"""
    LINE_F8 = auto()
    """d = one number of p[a] for each row"""
    LOAD_M1 = auto()
    """d = p[a], a mask of uint8"""
    LOAD_M2 = auto()
    LOAD_M4 = auto()
    ADD = auto()
    """d = a + b"""
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    ADD_MULTIPLE = auto()
    """d = a + b * k0"""
    ADD_SQUARE_TIMES = auto()
    """d = a + b * b * c"""
    DIVIDE_SQUARE = auto()
    """d = a / (b * b)"""
    ADD_NUMBER = auto()
    """d = a + k0"""
    MULTIPLY_NUMBER = auto()
    DIVIDE_NUMBER = auto()
    SQUARE = auto()
    ROOT = auto()
    INVERSE = auto()
    NORMALIZE = auto()
    """d = (k0 if a < k0 else a) / k1"""
    DEVIATION = auto()
    """d = ((k3 if a * k0 < 0 else a * k0) + k1) / k2"""
    CHOOSE = auto()
    """d = a where the bits of b are not 0, else k0"""
    USABLE = auto()
    """bits d = 1 where a > 0, a >= k0 and bits b have none of the integer c"""
    LOW = auto()
    """bits d = bits b, with the integer c where not a > 0, a < k0, or e < k1 for the register e"""
    NONFINITE = auto()
    """bits d = bits b, with the integer c where a is not finite"""
    AT_LEAST = auto()
    """bits d = bits b, with the integer c where a >= k0"""
    NOT_A_NUMBER = auto()
    """bits d = bits b, with the integer c where a is NaN"""
    UNITE = auto()
    """bits d = bits a | bits b"""
    CLEAR = auto()
    """bits d = bits a without the integer c"""
    MOVE = auto()
    """bits d = bits a, with the integer c where bits b have the integer e"""
    NO_BITS = auto()
    """bits d = 0"""
    STORE_F4 = auto()
    """p[d] = a"""
    STORE_F8 = auto()
    STORE_M1 = auto()
    """p[d] = bits a"""
    STORE_M2 = auto()
    STORE_M4 = auto()


def _pointer(element: Any) -> Any:
    """Return an intrinsic that makes an address a pointer to elements of a type."""

    def typed(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(address), codegen  # type: ignore[no-untyped-call]

    return intrinsic(typed)


def _first_of(typingctx: Any, array: Any) -> Any:
    """Return a pointer to the first element of a contiguous array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen  # type: ignore[no-untyped-call]


_first: Any = intrinsic(_first_of)

_f4, _f8, _i2, _u1, _u2, _u4, _u8 = map(
    _pointer,
    (types.float32, types.float64, types.int16, types.uint8, types.uint16, types.uint32, types.uint64),
)


@compiled
def _load(op: int, row: int, begin: int, extra: int, out: Array) -> None:
    """Set a tile of numbers from a row of an array: see `Op`.

    Parameters
    ----------
    op
        A loading operation.
    row
        Address of the first pixel of the row.
    begin
        Column of the tile's first pixel.
    extra
        Integer that is added to integers.
    out
        Receives the numbers, shape ``(n,)``.
    """
    n = out.size
    if op == Op.LOAD_F4:
        floats = carray(_f4(row + 4 * begin), (n,))
        for j in range(n):
            out[j] = floats[j]
    elif op == Op.LOAD_F8:
        doubles = carray(_f8(row + 8 * begin), (n,))
        for j in range(n):
            out[j] = doubles[j]
    elif op == Op.LOAD_BIG_F4:
        _load_words(carray(_u4(row + 4 * begin), (n,)), out)
    elif op == Op.LOAD_BIG_F8:
        _load_words(carray(_u8(row + 8 * begin), (n,)), out)
    elif op == Op.LOAD_BIG_I2:
        integers = carray(_i2(row + 2 * begin), (n,))
        for j in range(n):
            # Exact, as in `lazyccd.kernels.fits.decode.small_integers`.
            out[j] = np.int32(np.int32(swapped(integers[j])) + extra)
    elif op == Op.LOAD_U1:
        small = carray(_u1(row + begin), (n,))
        for j in range(n):
            out[j] = np.int32(np.int32(small[j]) + extra)
    else:
        out[:] = carray(_f8(row), (1,))[0]


@compiled
def _load_words(stored: Array, out: Array) -> None:
    """Set floats from big-endian ones, given as integers.

    Parameters
    ----------
    stored
        Uint32 or uint64, shape ``(n,)``.
    out
        Receives floats of the same width, shape ``(n,)``.
    """
    # As integers, so that NaNs keep their bits.
    target = out.view(stored.dtype)
    for j in range(stored.size):
        target[j] = swapped(stored[j])


@compiled
def _load_bits(op: int, row: int, begin: int, out: Array) -> None:
    """Set a tile of a mask from a row of an array.

    Parameters
    ----------
    op
        A loading operation.
    row
        Address of the first pixel of the row.
    begin
        Column of the tile's first pixel.
    out
        Receives the bits, uint32, shape ``(n,)``.
    """
    n = out.size
    if op == Op.LOAD_M1:
        small = carray(_u1(row + begin), (n,))
        for j in range(n):
            out[j] = small[j]
    elif op == Op.LOAD_M2:
        middle = carray(_u2(row + 2 * begin), (n,))
        for j in range(n):
            out[j] = middle[j]
    else:
        out[:] = carray(_u4(row + 4 * begin), (n,))


@compiled
def _combine(op: int, a: Array, b: Array, c: Array, k: Array, out: Array) -> None:
    """Set a tile from two or three others.

    Parameters
    ----------
    op
        An operation on several registers.
    a, b, c
        Their numbers, float32 or float64, shape ``(n,)``.
    k
        Constants of the same type.
    out
        Receives the numbers, shape ``(n,)``.
    """
    n, factor = out.size, k[0]
    if op == Op.ADD:
        for j in range(n):
            out[j] = a[j] + b[j]
    elif op == Op.SUBTRACT:
        for j in range(n):
            out[j] = a[j] - b[j]
    elif op == Op.MULTIPLY:
        for j in range(n):
            out[j] = a[j] * b[j]
    elif op == Op.DIVIDE:
        for j in range(n):
            out[j] = a[j] / b[j]
    elif op == Op.ADD_MULTIPLE:
        for j in range(n):
            out[j] = a[j] + b[j] * factor
    elif op == Op.ADD_SQUARE_TIMES:
        for j in range(n):
            out[j] = a[j] + b[j] * b[j] * c[j]
    else:
        for j in range(n):
            out[j] = a[j] / (b[j] * b[j])


@compiled
def _change(op: int, a: Array, k: Array, out: Array) -> None:
    """Set a tile from another one.

    Parameters
    ----------
    op
        An operation on one register.
    a
        Its numbers, float32 or float64, shape ``(n,)``.
    k
        Constants of the same type.
    out
        Receives the numbers, shape ``(n,)``.
    """
    n, number, one = out.size, k[0], out.dtype.type(1)
    if op == Op.ADD_NUMBER:
        for j in range(n):
            out[j] = a[j] + number
    elif op == Op.MULTIPLY_NUMBER:
        for j in range(n):
            out[j] = a[j] * number
    elif op == Op.DIVIDE_NUMBER:
        for j in range(n):
            out[j] = a[j] / number
    elif op == Op.SQUARE:
        for j in range(n):
            out[j] = a[j] * a[j]
    elif op == Op.ROOT:
        for j in range(n):
            out[j] = np.sqrt(a[j])
    elif op == Op.INVERSE:
        for j in range(n):
            out[j] = one / a[j]
    elif op == Op.NORMALIZE:
        for j in range(n):
            out[j] = (number if a[j] < number else a[j]) / k[1]
    else:
        deviation(a, number, k[1], k[2], k[3], out)


@compiled
def _set_bits(op: int, a: Array, b: Array, bit: Any, k: Array, e: Array, out: Array) -> None:
    """Set a tile of a mask from another one and from numbers.

    Parameters
    ----------
    op
        An operation that reads numbers and sets bits.
    a, e
        Numbers, float32 or float64, shape ``(n,)``.
    b
        Bits, uint32, shape ``(n,)``.
    bit
        The bits that are added, or looked for; uint32.
    k
        Constants of the type of the numbers.
    out
        Receives the bits, shape ``(n,)``.
    """
    n, none, number, zero = out.size, bit ^ bit, k[0], k[0] - k[0]
    if op == Op.USABLE:
        one = np.uint32(1)
        for j in range(n):
            out[j] = one if (a[j] > 0) & (a[j] >= number) & (b[j] & bit == none) else none
    elif op == Op.LOW:
        for j in range(n):
            fine = (a[j] > zero) & (a[j] >= number) & (not e[j] < k[1])
            out[j] = b[j] | (none if fine else bit)
    elif op == Op.NONFINITE:
        for j in range(n):
            out[j] = b[j] | (none if a[j] - a[j] == zero else bit)
    elif op == Op.AT_LEAST:
        for j in range(n):
            out[j] = b[j] | (bit if a[j] >= number else none)
    else:
        for j in range(n):
            out[j] = b[j] | (none if a[j] == a[j] else bit)


@compiled
def _move_bits(op: int, a: Array, b: Array, bit: Any, old: Any, out: Array) -> None:
    """Set a tile of a mask from others.

    Parameters
    ----------
    op
        An operation on bits alone.
    a, b
        Bits, uint32, shape ``(n,)``.
    bit, old
        The integers of the instruction; uint32.
    out
        Receives the bits, shape ``(n,)``.
    """
    n, none = out.size, bit ^ bit
    if op == Op.UNITE:
        for j in range(n):
            out[j] = a[j] | b[j]
    elif op == Op.CLEAR:
        for j in range(n):
            out[j] = a[j] & ~bit
    elif op == Op.MOVE:
        for j in range(n):
            out[j] = a[j] | (none if b[j] & old == none else bit)
    else:
        out[:] = none


@compiled
def _choose(a: Array, b: Array, other: float, out: Array) -> None:
    """Set numbers where bits are not 0, and another number elsewhere.

    Parameters
    ----------
    a
        Numbers, float32 or float64, shape ``(n,)``.
    b
        Bits, uint32, shape ``(n,)``.
    other
        The other number, of the same type.
    out
        Receives the numbers, shape ``(n,)``.
    """
    none = np.uint32(0)
    for j in range(out.size):
        out[j] = other if b[j] == none else a[j]


@compiled
def _store(op: int, numbers: Array, bits: Array, n: int, row: int, begin: int) -> None:
    """Write a tile to a row of an array.

    Parameters
    ----------
    op
        A storing operation.
    numbers, bits
        One of the two is written; float32 or float64, and uint32, shape ``(n,)``.
    n
        Pixels of the tile.
    row
        Address of the first pixel of the row.
    begin
        Column of the tile's first pixel.
    """
    if op == Op.STORE_F4:
        carray(_f4(row + 4 * begin), (n,))[:] = numbers
    elif op == Op.STORE_F8:
        carray(_f8(row + 8 * begin), (n,))[:] = numbers
    elif op == Op.STORE_M1:
        small = carray(_u1(row + begin), (n,))
        for j in range(n):
            small[j] = bits[j]
    elif op == Op.STORE_M2:
        middle = carray(_u2(row + 2 * begin), (n,))
        for j in range(n):
            middle[j] = bits[j]
    else:
        carray(_u4(row + 4 * begin), (n,))[:] = bits


@compiled
def run(code: Array, constants: Array, arrays: Array, ny: int, nx: int, numbers: Array, bits: Array) -> None:
    """Run a program over an image.

    Parameters
    ----------
    code
        Instructions, int64, shape ``(length, 6)``: operation, ``d``, ``a``, ``b``, ``c``, ``e`` of `Op`.
    constants
        Those of each instruction, of the dtype of ``numbers``, shape ``(length, CONSTANTS)``.
    arrays
        For each array the address of its first pixel, and bytes from one row to the next; int64, shape ``(count, 2)``.
    ny, nx
        Rows and columns of the image.
    numbers, bits
        Registers, float32 or float64 and uint32, shape ``(count, TILE)``.
    """
    # Views of memory that nobody counts references to: for slices of arrays that takes as long as the arithmetic.
    values = carray(_first(numbers), (numbers.size,))
    masks = carray(_first(bits), (bits.size,))
    all_constants = carray(_first(constants), (constants.size,))
    for i in range(ny):
        for begin in range(0, nx, TILE):
            n = min(TILE, nx - begin)
            for line in range(code.shape[0]):
                op, d, a, b, c, e = (
                    code[line, 0],
                    code[line, 1],
                    code[line, 2],
                    code[line, 3],
                    code[line, 4],
                    code[line, 5],
                )
                k = all_constants[line * CONSTANTS : line * CONSTANTS + CONSTANTS]
                if op <= Op.LINE_F8:
                    _load(op, arrays[a, 0] + i * arrays[a, 1], begin, b, _tile(values, d, n))
                elif op <= Op.LOAD_M4:
                    _load_bits(op, arrays[a, 0] + i * arrays[a, 1], begin, _tile(masks, d, n))
                elif op <= Op.DIVIDE_SQUARE:
                    _combine(op, _tile(values, a, n), _tile(values, b, n), _tile(values, c, n), k, _tile(values, d, n))
                elif op <= Op.DEVIATION:
                    _change(op, _tile(values, a, n), k, _tile(values, d, n))
                elif op == Op.CHOOSE:
                    _choose(_tile(values, a, n), _tile(masks, b, n), k[0], _tile(values, d, n))
                elif op <= Op.NOT_A_NUMBER:
                    given = _tile(values, a, n), _tile(masks, b, n)
                    _set_bits(op, *given, np.uint32(c), k, _tile(values, e, n), _tile(masks, d, n))
                elif op <= Op.NO_BITS:
                    _move_bits(
                        op, _tile(masks, a, n), _tile(masks, b, n), np.uint32(c), np.uint32(e), _tile(masks, d, n)
                    )
                else:
                    _store(op, _tile(values, a, n), _tile(masks, a, n), n, arrays[d, 0] + i * arrays[d, 1], begin)


@compiled
def _tile(registers: Array, number: int, n: int) -> Array:
    """Return the first ``n`` elements of a register."""
    return registers[number * TILE : number * TILE + n]
