"""What the kernels of pointwise steps are as programs: the same operations in the same order, so the same bits.

Each function adds the instructions of one kernel to a program. It gets the planes that are asked for, the `Planes` of the
inputs and the parameters of the kernel. `PROGRAMS` says which kernel is which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lazyccd.kernels import flat, overscan, pointwise
from lazyccd.kernels.assemble_program import Assembler, Planes, Value, united
from lazyccd.kernels.block import Array, Block, Request
from lazyccd.kernels.pointwise import Remap
from lazyccd.kernels.program import Op

Wanted = frozenset[str]


class Emitter(NamedTuple):
    """How a kernel becomes instructions."""

    emit: Callable[..., Planes]
    """``emit(program, wanted, *inputs, **params)``."""

    lines: Callable[..., Array] | None = None
    """``lines(request, *blocks, **params)`` makes numbers of each row or column from whole blocks, shape ``(ny, 1)`` or
    ``(1, nx)``; ``emit`` gets their value as its last input."""

    aside: tuple[int, ...] = ()
    """Which inputs ``lines`` gets, and ``emit`` does not."""


def _data(planes: Planes | None) -> Value:
    """Return the data, which must have been asked for."""
    assert planes is not None
    assert planes.data is not None
    return planes.data


def _plus(program: Assembler, a: Value, b: Value, scale: float) -> Value:
    """Return ``a + scale * b``, as `lazyccd.kernels.pointwise._plus` does."""
    if scale == 1:
        return program.compute(Op.ADD, a, b)
    if scale == -1:
        return program.compute(Op.SUBTRACT, a, b)
    return program.compute(Op.ADD_MULTIPLE, a, b, constants=[scale])


def _times(program: Assembler, a: Value, factor: float) -> Value:
    """Return a multiple."""
    return program.compute(Op.MULTIPLY_NUMBER, a, constants=[factor])


def _moved(program: Assembler, mask: Value | None, remap: Remap) -> Value | None:
    """Return a mask whose bits are moved, as `lazyccd.kernels.pointwise.remap_bits` does."""
    if mask is None or not remap:
        return mask
    out = program.bits(Op.CLEAR, a=mask, c=sum(old for old, _ in remap))
    for old, new in remap:
        out = program.bits(Op.MOVE, a=out, b=mask, c=new, e=old)
    return out


def _merged(program: Assembler, a: Planes | None, b: Planes | None, remap: Remap) -> Value:
    """Return the bits of both masks."""
    return united(program, [a and a.mask, _moved(program, b and b.mask, remap)])


def add_scaled(
    program: Assembler, wanted: Wanted, a: Planes, b: Planes | None, *, scale: float, remap: Remap, **_: Any
) -> Planes:
    """Emit `lazyccd.kernels.pointwise.add_scaled`."""
    data = variance = mask = None
    if "data" in wanted:
        data = _plus(program, _data(a), _data(b), scale)
    if "variance" in wanted:
        other = b and b.variance
        if other is None:
            variance = a.variance
        elif a.variance is None:
            variance = _times(program, other, scale**2)
        else:
            variance = _plus(program, a.variance, other, scale**2)
    if "mask" in wanted:
        mask = _merged(program, a, b, remap)
    return Planes(data, variance, mask)


def affine(program: Assembler, wanted: Wanted, a: Planes, *, scale: float, offset: float, **_: Any) -> Planes:
    """Emit `lazyccd.kernels.pointwise.affine`."""
    data = variance = None
    if "data" in wanted:
        data = _data(a)
        data = _times(program, data, scale) if scale != 1 else data
        data = program.compute(Op.ADD_NUMBER, data, constants=[offset]) if offset != 0 else data
    if "variance" in wanted:
        assert a.variance is not None
        variance = _times(program, a.variance, scale**2)
    return Planes(data, variance, a.mask)


def set_deviation(
    program: Assembler, wanted: Wanted, a: Planes, *, gain: float, readnoise: float, clip: bool, **_: Any
) -> Planes:
    """Emit `lazyccd.kernels.pointwise.set_deviation`."""
    variance = None
    if "variance" in wanted:
        numbers = [gain, readnoise**2, gain**2, 0 if clip else np.nan]
        variance = program.compute(Op.DEVIATION, _data(a), constants=numbers)
    return Planes(a.data, variance, a.mask)


def add_noise(
    program: Assembler, wanted: Wanted, a: Planes, *, gain: float, readnoise: float, poisson: bool, **_: Any
) -> Planes:
    """Emit `lazyccd.kernels.pointwise.add_noise`."""
    variance = None
    if "variance" in wanted:
        read = float(program.dtype.type((readnoise / gain) ** 2))
        if poisson:
            # Times 1 and plus 0 change no bit of what is not negative.
            signal = program.compute(Op.DEVIATION, _data(a), constants=[1, 0, gain, 0])
            variance = program.compute(Op.ADD_NUMBER, signal, constants=[read])
        else:
            variance = program.compute(Op.CHOOSE, _data(a), program.bits(Op.NO_BITS), constants=[read])
        if a.variance is not None:
            variance = program.compute(Op.ADD, variance, a.variance)
    return Planes(a.data, variance, a.mask)


def square(program: Assembler, wanted: Wanted, a: Planes) -> Planes:
    """Emit `lazyccd.kernels.pointwise.square`."""
    return Planes(program.compute(Op.SQUARE, _data(a)))


def inverse(program: Assembler, wanted: Wanted, a: Planes) -> Planes:
    """Emit `lazyccd.kernels.pointwise.inverse`."""
    return Planes(program.compute(Op.INVERSE, _data(a)))


def flag_nonfinite_alone(program: Assembler, wanted: Wanted, a: Planes, *, no_data: int, **_: Any) -> Planes:
    """Emit `lazyccd.kernels.pointwise.flag_nonfinite_alone`."""
    return Planes(program.bits(Op.NONFINITE, a=_data(a), b=program.bits(Op.NO_BITS), c=no_data))


def flag_nonfinite(program: Assembler, wanted: Wanted, a: Planes, mask: Planes, *, no_data: int, **_: Any) -> Planes:
    """Emit `lazyccd.kernels.pointwise.flag_nonfinite`."""
    return Planes(program.bits(Op.NONFINITE, a=_data(a), b=_data(mask), c=no_data))


def flag_above(program: Assembler, wanted: Wanted, a: Planes, *, level: float, bit: int, **_: Any) -> Planes:
    """Emit `lazyccd.kernels.pointwise.flag_above`."""
    mask = None
    if "mask" in wanted:
        mask = program.bits(Op.AT_LEAST, a=_data(a), b=united(program, [a.mask]), c=bit, constants=[level])
    return Planes(a.data, a.variance, mask)


def add_bits(program: Assembler, wanted: Wanted, a: Planes | None, b: Planes | None, **_: Any) -> Planes:
    """Emit `lazyccd.kernels.pointwise.add_bits`."""
    mask = _merged(program, a, b, ()) if "mask" in wanted else None
    return Planes(a and a.data, a and a.variance, mask)


def multiply(
    program: Assembler, wanted: Wanted, a: Planes, b: Planes, *, scale: float, remap: Remap, **_: Any
) -> Planes:
    """Emit `lazyccd.kernels.pointwise.multiply`."""
    data = variance = mask = None
    if "data" in wanted:
        data = program.compute(Op.MULTIPLY, _data(a), _data(b))
        data = _times(program, data, scale) if scale != 1 else data
    if "variance" in wanted:
        for one, other in ((a, b), (b, a)):
            if one.variance is None:
                continue
            part = program.compute(Op.MULTIPLY, program.compute(Op.SQUARE, _data(other)), one.variance)
            # The kernel adds to zeros, which makes 0 of -0.
            variance = (
                program.compute(Op.ADD_NUMBER, part) if variance is None else program.compute(Op.ADD, variance, part)
            )
        assert variance is not None
        variance = _times(program, variance, scale**2) if scale != 1 else variance
    if "mask" in wanted:
        mask = _merged(program, a, b, remap)
    return Planes(data, variance, mask)


def divide_flat(
    program: Assembler,
    wanted: Wanted,
    a: Planes,
    field: Planes,
    *,
    norm: Array,
    min_value: float | None,
    lowest: float,
    bad_bits: int,
    low_flat: int,
    no_data: int,
    remap: Remap,
    **_: Any,
) -> Planes:
    """Emit `lazyccd.kernels.flat.divide_flat`."""
    limit = -np.inf if min_value is None else min_value
    level, least = float(np.asarray(norm).ravel()[0]), lowest if min_value is None else 0.0
    # In the arithmetic of the loops, which take the square in the type of the pixels.
    kind = program.dtype.type
    normal = program.compute(Op.NORMALIZE, _data(field), constants=[limit, level])
    bits = united(program, [field.mask])
    usable = program.bits(Op.USABLE, a=normal, b=bits, c=bad_bits, constants=[least])
    value = program.compute(Op.CHOOSE, normal, usable, constants=[1])
    data = program.compute(Op.DIVIDE, _data(a), value)
    variance = mask = None
    if "variance" in wanted:
        variance = a.variance
        if field.variance is not None:
            noise = program.compute(Op.DIVIDE_NUMBER, field.variance, constants=[float(kind(level) * kind(level))])
            noise = program.compute(Op.CHOOSE, noise, usable, constants=[0])
            assert variance is not None
            variance = program.compute(Op.ADD_SQUARE_TIMES, variance, data, noise)
        assert variance is not None
        variance = program.compute(Op.DIVIDE_SQUARE, variance, value)
    if "mask" in wanted:
        old = united(program, [a.mask, _moved(program, field.mask, remap)])
        low = program.bits(Op.LOW, a=normal, b=old, c=low_flat, e=_data(field), constants=[least, limit])
        mask = program.bits(Op.NONFINITE, a=data, b=low, c=no_data)
    return Planes(data, variance, mask)


def subtract_lines(
    program: Assembler, wanted: Wanted, a: Planes | None, level: Planes, /, *, no_data: int, **_: Any
) -> Planes:
    """Emit `lazyccd.kernels.overscan.subtract_lines`, and `subtract_levels`."""
    data = mask = None
    if "data" in wanted:
        data = program.compute(Op.SUBTRACT, _data(a), _data(level))
    if "mask" in wanted:
        mask = program.bits(Op.NOT_A_NUMBER, a=_data(level), b=united(program, [a and a.mask]), c=no_data)
    return Planes(data, a and a.variance, mask)


def _levels_of_lines(
    request: Request, strip: Block | None, *, axis: int, statistic: Any, bad_bits: int, **_: Any
) -> Array:
    """Return the levels that `lazyccd.kernels.overscan.subtract_lines` subtracts."""
    return np.expand_dims(overscan.levels_beside(request, strip, axis, statistic, bad_bits), axis)


def _levels_given(request: Request, *, level: Array, axis: int, **_: Any) -> Array:
    """Return the levels that `lazyccd.kernels.overscan.subtract_levels` subtracts."""
    return overscan.levels_within(request, level, axis)


PROGRAMS: dict[Callable[..., Block], Emitter] = {
    pointwise.add_scaled: Emitter(add_scaled),
    pointwise.affine: Emitter(affine),
    pointwise.set_deviation: Emitter(set_deviation),
    pointwise.add_noise: Emitter(add_noise),
    pointwise.square: Emitter(square),
    pointwise.inverse: Emitter(inverse),
    pointwise.flag_nonfinite_alone: Emitter(flag_nonfinite_alone),
    pointwise.flag_nonfinite: Emitter(flag_nonfinite),
    pointwise.flag_above: Emitter(flag_above),
    pointwise.add_bits: Emitter(add_bits),
    pointwise.multiply: Emitter(multiply),
    flat.divide_flat: Emitter(divide_flat),
    overscan.subtract_lines: Emitter(subtract_lines, _levels_of_lines, aside=(1,)),
    overscan.subtract_levels: Emitter(subtract_lines, _levels_given),
}
"""The kernels that can be part of a program."""
