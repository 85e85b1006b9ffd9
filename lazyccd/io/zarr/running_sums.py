"""Keep running sums of a stack on disk: what frames add up to, in generations of which one is complete.

A store is a folder: ``current.json`` says which generation counts and which frames are in it; ``sums-N.zarr`` holds the sums,
for trees in a folder for each name of their frames:

- ``total``, ``norm``, ``spread``, ``saturated`` (class, y, x): sums of w x, w, w**2 v, and of the w of saturated inputs;
- ``used`` (class, y, x) and ``planes`` (class, plane, y, x): how many inputs, and how many of them have a plane.

Class 0 has the good inputs, the others bad ones from the least bad on, so that a pixel without a good input is no hole; the last
has those that are never used. Counts instead of bits let a frame be taken out again exactly.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazyccd.errors import FormatError, LazyCCDError, SourceChangedError
from lazyccd.io.resumable.disk import explained, flush, flush_all
from lazyccd.io.resumable.journal import journal_of
from lazyccd.io.resumable.lease import take_lease
from lazyccd.kernels.block import Array
from lazyccd.plan.storage import StoredRows
from lazyccd.sections import Region

CURRENT = "current.json"
FORMAT_VERSION = 2
CHUNK = 512
SUMS = ("total", "norm", "spread", "saturated")
COUNTS = ("used", "planes")


@dataclass(frozen=True)
class SumsLayout:
    """What all generations of a store have in common."""

    path: str
    shape: tuple[int, int]
    ranks: tuple[int, ...]
    """Bits of the classes of bad inputs, from the least to the worst."""

    bad: int
    no_data: int
    saturated: int
    names: tuple[str, ...]
    """Names of the mask's planes; plane k is bit k."""

    @property
    def depth(self) -> int:
        """Number of classes."""
        return len(self.ranks) + 2

    def generation(self, number: int) -> Path:
        """Return the folder of a generation."""
        return Path(self.path) / f"sums-{number:06d}.zarr"

    def open(self, number: int, mode: Any = "r+") -> Any:
        """Return the arrays of a generation."""
        import zarr

        return zarr.open_group(str(self.generation(number)), mode=mode)

    def classes(self, data: Array, bits: Array) -> tuple[Array, Array]:
        """Return the class of each input and its bits."""
        # NaN times a weight of 0 is NaN: such inputs need a class of their own.
        bits = np.where(np.isfinite(data), bits, bits | self.no_data)
        classes = np.zeros(data.shape, np.int8)
        for k, rank in enumerate(self.ranks, 1):
            classes[(bits & rank & self.bad) != 0] = k
        classes[(bits & self.no_data) != 0] = self.depth - 1
        return classes, bits


@dataclass(frozen=True)
class SumsSink:
    """Adds a frame to a generation, region by region, or takes it out."""

    layout: SumsLayout
    source: int
    """Generation that is read; -1 for none."""

    target: int
    weight: float
    sign: int

    @property
    def writer(self) -> SumsSink:
        """The sink itself, which is small enough to be in every task."""
        return self

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: `changing` has the lease."""
        return contextlib.nullcontext()

    def receipt(self, region: Region) -> None:
        """Return nothing: a region that was added is added anew, to the old generation."""

    def create(self) -> None:
        """Make the arrays of the new generation."""
        if self.source == self.target:
            return
        folder = self.layout.generation(self.target)
        with explained(str(folder)):
            self._make(folder)

    def _make(self, folder: Path) -> None:
        """Make the arrays, without pixels."""
        import zarr

        folder.parent.mkdir(parents=True, exist_ok=True)
        # A run that died may have left a part of this generation.
        shutil.rmtree(folder, ignore_errors=True)
        group = zarr.open_group(str(folder), mode="w")
        ny, nx = self.layout.shape
        depth = self.layout.depth
        chunk = (min(CHUNK, ny), min(CHUNK, nx))
        for name in SUMS:
            group.create_array(name, shape=(depth, ny, nx), chunks=(1, *chunk), dtype="f8", fill_value=0)
        group.create_array("used", shape=(depth, ny, nx), chunks=(1, *chunk), dtype="u2", fill_value=0)
        planes = (depth, len(self.layout.names), ny, nx)
        group.create_array("planes", shape=planes, chunks=(1, 1, *chunk), dtype="u2", fill_value=0)

    def write(self, region: Region, arrays: Mapping[str, Array]) -> None:
        """Add one region, or take it out."""
        with explained(f"{self.layout.generation(self.target)} {region.to_fits()}"):
            self._write(region, arrays)

    def _write(self, region: Region, arrays: Mapping[str, Array]) -> None:
        """Add one region, or take it out."""
        group = self.layout.open(self.target)
        old = group if self.source == self.target else (None if self.source < 0 else self.layout.open(self.source, "r"))
        y, x = region.slices
        data = arrays["data"].astype(np.float64)
        variance = arrays["uncertainty"].astype(np.float64) if "uncertainty" in arrays else np.zeros(data.shape)
        classes, bits = self.layout.classes(
            data, arrays["mask"] if "mask" in arrays else np.zeros(data.shape, np.uint16)
        )
        w = self.weight
        terms = (
            w * np.where(np.isfinite(data), data, 0),
            np.full(data.shape, w),
            w * w * variance,
            w * ((bits & self.layout.saturated) != 0),
        )
        here = classes == np.arange(self.layout.depth)[:, None, None]
        for name, term in zip(SUMS, terms, strict=True):
            sums = np.where(here, self.sign * term, 0.0)
            group[name][:, y, x] = sums if old is None else old[name][:, y, x] + sums
        used = here.astype(np.int64) * self.sign
        group["used"][:, y, x] = (used if old is None else old["used"][:, y, x] + used).astype(np.uint16)
        for k in range(len(self.layout.names)):
            counts = used * ((bits >> k) & 1)
            before = 0 if old is None else old["planes"][:, k, y, x]
            group["planes"][:, k, y, x] = (before + counts).astype(np.uint16)

    def finish(self, receipts: Sequence[Any]) -> int:
        """Return the generation; it counts when `write_current` says so."""
        return self.target


@dataclass(frozen=True)
class SumsStorage:
    """One plane of the stack that a generation's sums make."""

    layout: SumsLayout
    number: int
    plane: str
    summed: bool
    """Whether the stack is a sum and not a mean."""

    identity: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the plane's pixels."""
        return (
            np.dtype(np.uint16 if len(self.layout.names) <= 16 else np.uint32)
            if self.plane == "mask"
            else np.dtype(float)
        )

    @property
    def name(self) -> str:
        """The store."""
        return self.layout.path

    @property
    def place(self) -> str:
        """The store."""
        return self.layout.path

    @property
    def token(self) -> str:
        """Identity of the generation."""
        return f"{self.identity}-{self.number}-{self.plane}-{self.summed}"

    @property
    def chunks(self) -> tuple[int, int]:
        """Shape of chunks of the sums."""
        return (CHUNK, CHUNK)

    @property
    def rows(self) -> int:
        """How many rows are decoded together."""
        return CHUNK

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of a chunk of the sums of data and weights, and of the counts."""
        return 4 * CHUNK * CHUNK * np.dtype(np.float64).itemsize

    def open(self) -> SumsReader:
        """Open for reading."""
        if not self.layout.generation(self.number).is_dir():
            raise SourceChangedError(f"{self.layout.path} was changed after this stack was made; call result() again.")
        return SumsReader(self)


class SumsReader:
    """Makes pixels of sums."""

    def __init__(self, storage: SumsStorage) -> None:
        self._storage = storage
        self._group = storage.layout.open(storage.number, "r")

    def read(self, region: Region) -> Array:
        """Return the plane's pixels of a region."""
        storage = self._storage
        y, x = region.slices
        used = self._group["used"][:-1, y, x]
        best = np.argmax(used > 0, axis=0)
        nothing = used.sum(axis=0) == 0

        def at_best(name: str) -> Array:
            return np.asarray(np.take_along_axis(self._group[name][:, y, x], best[None], axis=0)[0])

        with np.errstate(invalid="ignore", divide="ignore"):
            if storage.plane == "data":
                total = at_best("total")
                return np.where(
                    nothing, 0.0 if storage.summed else np.nan, total if storage.summed else total / at_best("norm")
                )
            if storage.plane == "variance":
                spread = at_best("spread")
                return np.where(nothing, np.nan, spread if storage.summed else spread / at_best("norm") ** 2)
        mask = np.where(nothing, storage.layout.no_data, 0)
        for k in range(len(storage.layout.names)):
            counts = np.take_along_axis(self._group["planes"][:, k, y, x], best[None], axis=0)[0]
            mask |= (counts > 0) << k
        # 1e-12 allows for the rounding of sums that were added in another order.
        saturated = self._group["saturated"][:, y, x]
        lost = saturated.sum(axis=0) - at_best("saturated")
        # inputs without data, the last class, do not count unless they were saturated
        weight = self._group["norm"][:-1, y, x].sum(axis=0) + saturated[-1]
        mask |= np.where(lost > 0.1 * weight * (1 + 1e-12), storage.layout.saturated, 0)
        return mask.astype(storage.dtype)

    def stored_rows(self) -> StoredRows | None:
        """Return None: sums are turned into pixels first."""
        return None

    def close(self) -> None:
        """Release nothing."""


def read_current(path: str) -> dict[str, Any] | None:
    """Return what a store holds; None if there is none.

    Raises
    ------
    FormatError
        Raised if it is something else.
    """
    file = Path(path) / CURRENT
    if not file.exists():
        if Path(path).exists() and any(Path(path).iterdir()) and not any(Path(path).rglob("sums-*.zarr")):
            raise FormatError(f"{path} is no running stack and is not empty; give another name.")
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise FormatError(f"{file} cannot be read: {error}; restore it, or make the stack anew.") from error
    if content.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{file} has format_version {content.get('format_version')} and this version reads {FORMAT_VERSION}."
        )
    return content


@contextlib.contextmanager
def changing(path: str) -> Iterator[None]:
    """Keep other processes and threads from changing a store, and remove what one that died has left.

    Raises
    ------
    TargetBusyError
        Raised if another one changes it.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    journal = journal_of(path)
    # Two that add to the same sums would each write a generation that lacks the other's frame.
    with explained(journal.where):
        lease = take_lease(journal, uuid.uuid4().hex, path, break_lock=False)
    try:
        with explained(path):
            _remove_others(path, read_current(path))
        yield
    except BaseException:
        with contextlib.suppress(LazyCCDError, OSError):
            _remove_others(path, read_current(path))
            os.rmdir(path)  # of a store that has no frame yet
        raise
    finally:
        journal.end([lease])


def write_current(path: str, content: dict[str, Any]) -> None:
    """Make a generation the one that counts, and remove the others."""
    before = read_current(path)
    with explained(path):
        folder = Path(path)
        part = folder / f"{CURRENT}.part"
        with part.open("w") as file:
            json.dump({"format_version": FORMAT_VERSION, **content}, file, indent=1)
        # The name must not outlive a power cut that the sums do not.
        flush_all(path)
        part.replace(folder / CURRENT)
        flush(path)
        # Only now: a reader of the old generation is told to call result() again.
        _remove_others(path, content, {} if before is None else before["parts"])


def _remove_others(path: str, content: dict[str, Any] | None, parts: Iterable[str] = ()) -> None:
    """Remove all generations but the one that counts, of the parts that a store has and had."""
    folder = Path(path)
    (folder / f"{CURRENT}.part").unlink(missing_ok=True)
    now = {} if content is None else dict.fromkeys(content["parts"], f"sums-{content['generation']:06d}.zarr")
    for name in {"", *parts, *now}:
        for other in (folder / name).glob("sums-*.zarr"):
            if other.name != now.get(name):
                shutil.rmtree(other, ignore_errors=True)
