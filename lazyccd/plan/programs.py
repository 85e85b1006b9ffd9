"""Runs of pointwise steps of a strip as programs of `lazyccd.kernels.program`: how steps run, not what they are.

The last step of a strip and those below it, as long as they are pointwise and nothing else reads them, become one program.
What they read becomes its arrays: blocks of other steps, and the bytes of files, which the program decodes itself. Other
steps run one by one, before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from lazyccd.kernels.assemble_program import (
    FLOAT_LOADS,
    FLOAT_STORES,
    MASK_LOADS,
    MASK_STORES,
    Assembler,
    NotAProgramError,
    Planes,
    Program,
    Value,
)
from lazyccd.kernels.block import ALL_PLANES, PLANES, Array, Block, Request, Target
from lazyccd.kernels.pointwise import window
from lazyccd.kernels.pointwise_programs import PROGRAMS, Emitter
from lazyccd.kernels.program import TILE, Op, run
from lazyccd.plan.schedule import Call
from lazyccd.plan.steps import Apply, Join, ScalarValue, Source, Step
from lazyccd.plan.storage import StoredRows

ARENA_BYTES = 2**23
"""Arrays of the rows that a program works on at a time take about so much. Fewer rows would stay in the second cache, but each read
of a file takes 20 us of Python: a calibration of 4096 x 4096 pixels took 0.44 s with 1 MiB, 0.36 s with 2 and 0.31 s with 16."""

LEAST_KERNELS = 2
"""A single kernel is as fast by itself, and needs nothing more to be loaded."""

OUTSIDE = -1
"""Reads a call as a block."""


class Around(Protocol):
    """What a program needs of the evaluation of a task."""

    def scalars_of(self, step: Step, request: Request) -> Mapping[str, ScalarValue]:
        """Return the scalars of a step that a request needs by name."""
        ...

    def stored_rows(self, step: Source) -> StoredRows | None:
        """Return how the rows of a file can be read undecoded."""
        ...


CONVERSIONS = {"std": Op.ROOT, "ivar": Op.INVERSE}
"""What users hold of variances, and the operation that makes it."""


class Operand(NamedTuple):
    """An array that a program reads."""

    call: int
    """Number of the call that reads it; of the source itself, if the program decodes a file."""

    need: int
    """Which input of the call it is."""

    plane: str
    stored: bool = False
    """Whether the program decodes a file."""

    lines: bool = False
    """Whether the call makes it of its inputs: a number for each row or column."""


@dataclass(frozen=True)
class StripProgram:
    """A program for all strips that need the same, only further down."""

    program: Program
    dtype: np.dtype[Any]
    before: tuple[int, ...]
    """Numbers of the calls that run as steps."""

    operands: tuple[Operand, ...]
    forms: tuple[tuple[str, str], ...]
    """Planes that it writes, and what each becomes."""


def make_program(
    calls: Sequence[Call], around: Around, forms: tuple[tuple[str, str], ...] = (), key: Hashable = None
) -> StripProgram | None:
    """Return the program for the last calls of a strip; None if steps run better one by one.

    Parameters
    ----------
    calls
        All calls of the strip.
    around
        Gives scalars, and rows of files.
    forms
        Planes to write and what each becomes; empty for the planes as plans have them.
    key
        What the calls are, whatever row they begin at: for equal ones the same program is returned. None to make it anew.
    """
    if key is None:
        return _make(calls, around, forms)
    with _lock:
        if (key, forms) in _made:
            _made.move_to_end((key, forms))
            return _made[key, forms]
    found = _make(calls, around, forms)
    with _lock:
        _made[key, forms] = found
        if len(_made) > MOST_PROGRAMS:
            _made.popitem(last=False)
    return found


MOST_PROGRAMS = 512
"""So many programs are kept for other tasks: a stack has one for each frame, which takes half a millisecond to make."""

_lock = threading.Lock()
_made: OrderedDict[Hashable, StripProgram | None] = OrderedDict()


def _make(calls: Sequence[Call], around: Around, forms: tuple[tuple[str, str], ...]) -> StripProgram | None:
    """Make the program; see `make_program`."""
    inside = _inside(calls)
    kernels = sum(isinstance(calls[number].step, Apply) for number in inside)
    if len(calls) - 1 not in inside or kernels < LEAST_KERNELS:
        return None
    sources = [(number, step) for number in inside if isinstance(step := calls[number].step, Source)]
    stored = {number for number, step in sources if around.stored_rows(step) is not None}
    try:
        return _Builder(calls, inside, stored, around).build(forms)
    except NotAProgramError:
        return None


def _inside(calls: Sequence[Call]) -> set[int]:
    """Return the calls that can be part of the program: those that only others of it read, as a whole."""
    readers: dict[int, list[int]] = {number: [] for number in range(len(calls))}
    inside: set[int] = set()
    makers = _makers(calls)
    dtype = _computed_in(calls[-1])
    # Readers come after what they read.
    for number in range(len(calls) - 1, -1, -1):
        call = calls[number]
        if all(reader in inside for reader in readers[number]) and _can_be(call, dtype):
            inside.add(number)
        aside = _aside(call.step) if number in inside else tuple(range(len(call.needs)))
        for k, need in enumerate(call.needs):
            if need is None:
                continue
            if (number, k) in makers:
                readers[makers[number, k]].append(OUTSIDE if k in aside else number)
                continue
            # A part of what a call makes is cut out of its block.
            for other, each in enumerate(calls[:number]):
                if each.step.token == need[0].token:
                    readers[other].append(OUTSIDE)
    return inside


def _computed_in(call: Call) -> np.dtype[Any]:
    """Return the type in which a call computes: that of the numbers that it gives; float32 if it gives masks alone."""
    found = [dtype for dtype in call.step.dtypes.values() if dtype.kind == "f"]
    return found[0] if found else np.dtype(np.float32)


def _makers(calls: Sequence[Call]) -> dict[tuple[int, int], int]:
    """Return, by call and input, which call makes exactly the region that is needed."""
    made: dict[tuple[str, Any], int] = {}
    makers: dict[tuple[int, int], int] = {}
    for number, call in enumerate(calls):
        for k, need in enumerate(call.needs):
            if need is not None and (need[0].token, need[1].region) in made:
                makers[number, k] = made[need[0].token, need[1].region]
        made[call.step.token, call.request.region] = number
    return makers


def _can_be(call: Call, dtype: np.dtype[Any]) -> bool:
    """Return whether a call can be part of a program that computes in a type."""
    step = call.step
    # maps of stacks have no registers
    asked = [call.request.planes, *(need[1].planes for need in call.needs if need is not None)]
    if not all(planes.issubset(PLANES) for planes in asked):
        return False
    if isinstance(step, Source | Join) or _is_cut(step):
        return True
    if _emitter(step) is None:
        return False
    made = [step.dtypes[p] for p in call.request.planes]
    given = [need[0].dtypes[p] for need in call.needs if need is not None for p in need[1].planes]
    widens = all(each.kind != "f" or each.itemsize <= dtype.itemsize for each in given)
    # The least value of a flat is rounded to the type of the flat.
    least = isinstance(step, Apply) and dict(step.params).get("min_value") is not None
    if least and any(each.kind == "f" and each != dtype for each in given):
        return False
    return widens and all(each.kind == "u" or each == dtype for each in made)


def _is_cut(step: Step) -> bool:
    """Return whether a step gives pixels of its input as they lie there."""
    return isinstance(step, Apply) and step.kernel is window and dict(step.params)["step"] == (1, 1)


def _emitter(step: Step) -> Emitter | None:
    """Return how a step becomes instructions; None if it cannot."""
    return PROGRAMS.get(step.kernel) if isinstance(step, Apply) else None


def _aside(step: Step) -> tuple[int, ...]:
    """Return the inputs that a step of a program needs as blocks."""
    emitter = _emitter(step)
    return () if emitter is None else emitter.aside


class _Builder:
    """Makes the program of the calls inside."""

    def __init__(self, calls: Sequence[Call], inside: set[int], stored: set[int], around: Around) -> None:
        self._calls = calls
        self._inside = inside - {n for n in inside if isinstance(calls[n].step, Source)} | stored
        self._around = around
        self._assembler = Assembler(_computed_in(calls[-1]))
        self._operands: list[Operand] = []
        self._planes: dict[int, Planes] = {}
        self._makers = _makers(calls)

    def build(self, forms: tuple[tuple[str, str], ...]) -> StripProgram:
        """Return the program that writes planes in the forms that are asked for.

        Raises
        ------
        NotAProgramError
            Raised if a value has a type for which there is no instruction.
        """
        for number in sorted(self._inside):
            self._planes[number] = self._emit(number)
        last = self._calls[-1]
        forms = forms or tuple((plane, "") for plane in ALL_PLANES if plane in last.request.planes)
        for k, (plane, form) in enumerate(forms):
            value = getattr(self._planes[len(self._calls) - 1], plane, None)
            if value is None:
                raise NotAProgramError
            if form in CONVERSIONS:
                value = self._assembler.compute(CONVERSIONS[form], value)
            stores = MASK_STORES if value.is_bits else FLOAT_STORES
            self._assembler.store(stores[last.step.dtypes[plane].itemsize], value, len(self._operands) + k)
        before = tuple(number for number in range(len(self._calls)) if number not in self._inside)
        return StripProgram(self._assembler.assemble(), self._assembler.dtype, before, tuple(self._operands), forms)

    def _emit(self, number: int) -> Planes:
        """Add the instructions of a call, and return the values of its planes."""
        call = self._calls[number]
        step, wanted = call.step, call.request.planes
        if isinstance(step, Source):
            return Planes(self._file(number, step))
        given = [self._input(number, k) for k in range(len(call.needs)) if k not in _aside(step)]
        if isinstance(step, Join):
            pairs = zip(step.parts, given, strict=True)
            return Planes(**{part.name: getattr(planes, part.plane) for part, planes in pairs if planes is not None})
        assert isinstance(step, Apply)
        if _is_cut(step):
            assert given[0] is not None
            return given[0]
        emitter = _emitter(step)
        assert emitter is not None
        if emitter.lines is not None:
            given.append(Planes(self._array(Operand(number, 0, "data", lines=True))))
        return emitter.emit(
            self._assembler, wanted, *given, **dict(step.params), **self._around.scalars_of(step, call.request)
        )

    def _input(self, number: int, k: int) -> Planes | None:
        """Return the values of an input: those of another call of the program, or of arrays."""
        need = self._calls[number].needs[k]
        if need is None:
            return None
        maker = self._makers.get((number, k))
        if maker in self._planes:
            return self._planes[maker]
        return Planes(**{plane: self._array(Operand(number, k, plane)) for plane in need[1].planes})

    def _file(self, number: int, step: Source) -> Value:
        """Return the value of a file that the program decodes."""
        stored = self._around.stored_rows(step)
        assert stored is not None
        self._operands.append(Operand(number, 0, "data", stored=True))
        return self._assembler.array(Op(stored.op), len(self._operands) - 1, stored.extra)

    def _array(self, operand: Operand) -> Value:
        """Return the value of an array."""
        call = self._calls[operand.call]
        self._operands.append(operand)
        number = len(self._operands) - 1
        if operand.lines:
            # The axis along which lines have one number.
            by_row = dict(call.step.params)["axis"] == 1  # type: ignore[attr-defined]
            return self._assembler.array(Op.LINE_F8 if by_row else Op.LOAD_F8, number)
        need = call.needs[operand.need]
        assert need is not None
        step, request = need
        dtype, width = step.dtypes[operand.plane], call.request.region.shape.x
        if dtype.kind == "u" and dtype.itemsize in MASK_LOADS and request.region.shape.x == width:
            return self._assembler.array(MASK_LOADS[dtype.itemsize], number)
        if dtype.kind != "f" or dtype.itemsize not in FLOAT_LOADS:
            raise NotAProgramError
        return self._assembler.array(
            FLOAT_LOADS[dtype.itemsize] if request.region.shape.x == width else Op.LINE_F8, number
        )


ALIGNMENT = 64
"""Registers and rows of files begin at multiples of so many bytes."""


def aligned_zeros(shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    """Return zeros that begin at a line of the cache: programs take 1.2 times as long where every second vector crosses two."""
    size = shape[0] * shape[1] * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


class Scratch(threading.local):
    """Memory of a thread: the registers of programs, and the bytes of files that they decode."""

    def __init__(self) -> None:
        self._numbers: dict[str, Array] = {}
        self._bits = np.empty((0, TILE), np.uint32)
        self._bytes = np.empty(0, np.uint8)

    def numbers(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Return registers of numbers."""
        found = self._numbers.get(dtype.str)
        if found is None or len(found) < count:
            found = self._numbers[dtype.str] = aligned_zeros((count, TILE), dtype)
        return found

    def bits(self, count: int) -> Array:
        """Return registers of bits."""
        if len(self._bits) < count:
            self._bits = aligned_zeros((count, TILE), np.dtype(np.uint32))
        return self._bits

    def bytes(self, count: int) -> Array:
        """Return memory; more than a few rows of files is not kept."""
        if self._bytes.size >= count:
            return self._bytes[:count]
        fresh = np.empty(count, np.uint8)
        if count <= ARENA_BYTES:
            self._bytes = fresh
        return fresh


_scratch = Scratch()


@dataclass
class _Table:
    """The arrays of a program for one strip."""

    rows: Array
    """Address and bytes per row of each array; int64, shape ``(count, 2)``."""

    held: list[Array] = field(default_factory=list)
    """The arrays, so that they live as long as their addresses are used."""

    def put(self, number: int, array: Array) -> None:
        """Note an array; one row or one column is repeated."""
        self.held.append(array)
        self.rows[number] = array.ctypes.data, array.strides[0] if array.shape[0] > 1 else 0


Find = Callable[[Step, Request], Block]
"""Returns the block of a step that is computed, for a request."""


def run_program(
    made: StripProgram, calls: Sequence[Call], find: Find, around: Around, target: Target | None = None
) -> Block:
    """Run the last calls of a strip.

    Parameters
    ----------
    made
        Their program.
    calls
        All calls of the strip.
    find
        Returns the blocks of steps that ran before.
    around
        Gives scalars, and rows of files.
    target
        Where to write; None for new arrays.

    Returns
    -------
    Block
        The planes of the last call; without planes if they went into the target.
    """
    request = calls[-1].request
    table = _Table(np.empty((len(made.operands) + len(made.forms), 2), np.int64))
    stored = []
    for number, operand in enumerate(made.operands):
        if operand.stored:
            stored.append((number, calls[operand.call]))
        else:
            table.put(number, _operand_array(operand, calls[operand.call], find, around))
    if target is None:
        dtypes = calls[-1].step.dtypes
        out = [np.empty(request.region.shape, dtypes[plane]) for plane, _ in made.forms]
    else:
        out = [array[request.region.within(target.region)] for array in target.arrays]
    for k, array in enumerate(out):
        table.put(len(made.operands) + k, array)
    _run_in_bands(made, table, stored, request.region.shape, around)
    if target is not None:
        return Block(request.region)
    return Block(request.region, **{plane: array for (plane, _), array in zip(made.forms, out, strict=True)})


def _operand_array(operand: Operand, call: Call, find: Find, around: Around) -> Array:
    """Return an array that the kernel can read: rows of contiguous pixels; numbers of lines are float64."""
    if operand.lines:
        emitter = _emitter(call.step)
        assert emitter is not None
        assert emitter.lines is not None
        assert isinstance(call.step, Apply)
        blocks = [need and find(*need) for k, need in enumerate(call.needs) if k in emitter.aside]
        lines = emitter.lines(
            call.request, *blocks, **dict(call.step.params), **around.scalars_of(call.step, call.request)
        )
        return np.ascontiguousarray(lines, np.float64)
    need = call.needs[operand.need]
    assert need is not None
    array = find(*need).plane(operand.plane)
    if array.shape[1] == 1 < call.request.region.shape.x:
        return np.ascontiguousarray(array, np.float64)
    contiguous = array.strides[1] == array.itemsize and array.flags.aligned and array.strides[0] >= 0
    return array if contiguous else np.ascontiguousarray(array)


def _run_in_bands(
    made: StripProgram, table: _Table, stored: Sequence[tuple[int, Call]], shape: tuple[int, int], around: Around
) -> None:
    """Run a program over a strip: if it reads files, as many rows at a time as `ARENA_BYTES` hold."""
    ny, nx = shape
    readers = [_FileRows(number, call, around) for number, call in stored]
    per_row = sum(reader.row_bytes for reader in readers)
    rows = ny if not readers else min(ny, max(1, ARENA_BYTES // (per_row + 8 * len(made.forms) * nx)))
    arena = _scratch.bytes(rows * per_row + ALIGNMENT * len(readers))
    numbers = _scratch.numbers(made.program.numbers, made.dtype)
    bits = _scratch.bits(made.program.bits)
    moving = np.ones(len(table.rows), np.int64)
    moving[[reader.number for reader in readers]] = 0
    for begin in range(0, ny, rows):
        count = min(rows, ny - begin)
        place = 0
        for reader in readers:
            place += reader.read(begin, count, arena[place:], table.rows)
        run(made.program.code, made.program.constants, table.rows, count, nx, numbers, bits)
        table.rows[:, 0] += count * moving * table.rows[:, 1]


class _FileRows:
    """The rows of a file that a strip reads undecoded."""

    def __init__(self, number: int, call: Call, around: Around) -> None:
        assert isinstance(call.step, Source)
        rows = around.stored_rows(call.step)
        assert rows is not None
        self.number = number
        self._rows = rows
        self._region = call.request.region
        self.row_bytes = rows.row_bytes(self._region)

    def read(self, begin: int, count: int, buffer: Array, table: Array) -> int:
        """Read some rows, note in the table where they are, and return how many bytes of the buffer they take."""
        single = self._region.shape.y == 1
        y0 = self._region.y0
        part = self._region if single else self._region._replace(y0=y0 + begin, y1=y0 + begin + count)
        stride, used = self._rows.read(part, buffer)
        table[self.number] = buffer.ctypes.data, 0 if single else stride
        return used + -used % ALIGNMENT
