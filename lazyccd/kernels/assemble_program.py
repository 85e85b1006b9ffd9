"""Assembles programs for `lazyccd.kernels.program`: values, instructions, and the registers that values live in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.program import CONSTANTS, Op

MASK_LOADS = {1: Op.LOAD_M1, 2: Op.LOAD_M2, 4: Op.LOAD_M4}
MASK_STORES = {1: Op.STORE_M1, 2: Op.STORE_M2, 4: Op.STORE_M4}
FLOAT_LOADS = {4: Op.LOAD_F4, 8: Op.LOAD_F8}
FLOAT_STORES = {4: Op.STORE_F4, 8: Op.STORE_F8}
"""Operations by bytes of a pixel."""


NUMBERS_FROM_BITS = {Op.CHOOSE: "b"}
BITS_FROM_NUMBERS = dict.fromkeys((Op.USABLE, Op.LOW, Op.NONFINITE, Op.AT_LEAST, Op.NOT_A_NUMBER), "ae")
"""Letters of the operands that are of the other kind than what the operation makes."""


class NotAProgramError(Exception):
    """There is no instruction for a value of this type."""


class Value(NamedTuple):
    """What an instruction makes, or an array holds: one number or one set of bits for each pixel."""

    number: int
    is_bits: bool


class Planes(NamedTuple):
    """The values of one image; None for planes that it lacks, or that nobody asked for."""

    data: Value | None = None
    variance: Value | None = None
    mask: Value | None = None


class Instruction(NamedTuple):
    """One operation before its values have registers; see `lazyccd.kernels.program.Op`."""

    op: Op
    target: Value | None
    """The value that it makes; None if it stores."""

    sources: tuple[tuple[str, Value], ...]
    """The values that it reads, by the letter under which `Op` has them."""

    integers: dict[str, int]
    """Integers by letter."""

    constants: tuple[float, ...]


@dataclass(frozen=True)
class Program:
    """What `lazyccd.kernels.program.run` gets, but for the arrays."""

    code: Array
    constants: Array
    numbers: int
    """How many registers of numbers it has."""

    bits: int
    """How many registers of bits."""


@dataclass
class Assembler:
    """Collects the instructions of a program.

    An array is loaded before the first instruction that reads it, so that its register is free again soon.
    """

    dtype: np.dtype[Any]
    """Float32 or float64: in which arithmetic is done."""

    lines: list[Instruction] = field(default_factory=list)
    _count: int = 0
    _waiting: dict[Value, Instruction] = field(default_factory=dict)
    """Loads of arrays that nothing has read yet."""

    def array(self, op: Op, number: int, extra: int = 0) -> Value:
        """Return the value of an array, given how it is loaded and its number in the table of arrays."""
        value = self._new(is_bits=op in MASK_LOADS.values())
        self._waiting[value] = Instruction(op, value, (), {"a": number, "b": extra}, ())
        return value

    def compute(self, op: Op, *values: Value, constants: Iterable[float] = (), **integers: int) -> Value:
        """Return the number that an operation makes of values, which stand for its ``a``, ``b``, ``c``."""
        return self._add(op, dict(zip("abc", values, strict=False)), tuple(constants), integers, is_bits=False)

    def bits(self, op: Op, constants: Iterable[float] = (), **operands: Value | int) -> Value:
        """Return the bits that an operation makes of values and integers, by letter."""
        values = {letter: value for letter, value in operands.items() if isinstance(value, Value)}
        integers = {letter: number for letter, number in operands.items() if not isinstance(number, Value)}
        return self._add(op, values, tuple(constants), integers, is_bits=True)

    def store(self, op: Op, value: Value, number: int) -> None:
        """Write a value to the array of a number."""
        self._load([value])
        self.lines.append(Instruction(op, None, (("a", value),), {"d": number}, ()))

    def _add(
        self, op: Op, values: dict[str, Value], constants: tuple[float, ...], integers: dict[str, int], *, is_bits: bool
    ) -> Value:
        """Add an instruction after the loads that it needs; raises `NotAProgramError` if a value is of the other kind."""
        other = (BITS_FROM_NUMBERS if is_bits else NUMBERS_FROM_BITS).get(op, "")
        if any(value.is_bits == (is_bits == (letter in other)) for letter, value in values.items()):
            raise NotAProgramError
        self._load(values.values())
        target = self._new(is_bits=is_bits)
        self.lines.append(Instruction(op, target, tuple(values.items()), integers, constants))
        return target

    def _new(self, *, is_bits: bool) -> Value:
        """Return a value that nothing has."""
        self._count += 1
        return Value(self._count, is_bits)

    def _load(self, values: Iterable[Value]) -> None:
        """Add the loads of arrays that have waited."""
        for value in values:
            if value in self._waiting:
                self.lines.append(self._waiting.pop(value))

    def assemble(self) -> Program:
        """Return the program."""
        last = {value: at for at, line in enumerate(self.lines) for _, value in line.sources}
        free: dict[bool, list[int]] = {True: [], False: []}
        used = {True: 0, False: 0}
        register: dict[Value, int] = {}
        code = np.zeros((len(self.lines), 6), np.int64)
        constants = np.zeros((len(self.lines), CONSTANTS), self.dtype)
        for at, line in enumerate(self.lines):
            operands = dict(line.integers) | {letter: register[value] for letter, value in line.sources}
            if line.target is not None:
                # Taken before those of the sources are freed: no instruction sets what it reads.
                pool = free[line.target.is_bits]
                if not pool:
                    pool.append(used[line.target.is_bits])
                    used[line.target.is_bits] += 1
                operands["d"] = register[line.target] = pool.pop()
            for value in {value for _, value in line.sources if last[value] == at}:
                free[value.is_bits].append(register[value])
            if line.target is not None and line.target not in last:
                free[line.target.is_bits].append(register[line.target])
            code[at] = [line.op, *(operands.get(letter, 0) for letter in "dabce")]
            constants[at, : len(line.constants)] = line.constants
        # Each operation looks at registers of both kinds, if only to ignore them.
        return Program(code, constants, max(used[False], 1), max(used[True], 1))


def united(program: Assembler, masks: Sequence[Value | None]) -> Value:
    """Return the bits of masks together; None counts as a mask without bits."""
    given = [mask for mask in masks if mask is not None]
    if not given:
        return program.bits(Op.NO_BITS)
    total = given[0]
    for mask in given[1:]:
        total = program.bits(Op.UNITE, a=total, b=mask)
    return total
