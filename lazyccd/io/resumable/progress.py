"""What is done of a write, so that it can be interrupted and resumed, by any process.

Beside the target, in ``.lazyccd-progress/<name>/``, there are while the write lasts:

- ``lease-N``: which process runs it (`lazyccd.io.resumable.lease`);
- ``run-<fingerprint>.json``: what is written: inputs, steps, settings, versions;
- ``receipts-<process>.jsonl``: a line for each unit that is done, appended by the process that wrote it;
- ``complete``: all units are done, and the target gets its final name.

A write whose fingerprint differs from that of the interrupted one is refused, or begins anew if it may overwrite.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

from lazyccd.errors import ResumeError, SourceChangedError
from lazyccd.io.resumable.disk import explained
from lazyccd.io.resumable.journal import Journal, journal_of
from lazyccd.io.resumable.lease import LEASE, leases, take_lease

Receipts: TypeAlias = dict[str, Any]
"""By unit: the name of what is done at once, a region of a frame, or a product of a night."""

COMPLETE = "complete"
RECEIPTS = "receipts-"
PACKAGES = ("lazyccd", "numpy", "numba", "numcodecs", "isal", "astropy")
"""Packages whose versions decide the bits of a product."""


def versions() -> dict[str, str]:
    """Return the versions that decide the bits of a product."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def canonical(document: Any) -> bytes:
    """Return a document as JSON, the same bytes for equal content.

    Examples
    --------
    >>> canonical({"b": 1, "a": [None]})
    b'{"a":[null],"b":1}'
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Progress:
    """The progress of one write; picklable, and every method may run in any process."""

    target: str
    """Final path or URL."""

    fingerprint: str
    """SHA-256 of what is written; equal for writes of equal content."""

    run: str
    """Name of this run, which no other run has."""

    record: bytes = field(default=b"", repr=False)
    """What is written, as canonical JSON."""

    title: str = ""
    """What messages call the target."""

    break_lock: bool = False
    """Whether to take the lease of a process of which it cannot be said that it is gone."""

    @classmethod
    def of(cls, target: str, record: Mapping[str, Any], *, title: str = "", break_lock: bool = False) -> Progress:
        """Return the progress of a write of a new run."""
        content = canonical(record)
        return cls(target, hashlib.sha256(content).hexdigest(), uuid.uuid4().hex, content, title or target, break_lock)

    @property
    def writer(self) -> Progress:
        """The same without what only `begin` needs."""
        return replace(self, record=b"")

    @property
    def _note(self) -> str:
        return f"run-{self.fingerprint[:32]}.json"

    def is_held(self) -> bool:
        """Return whether this run has the lease."""
        return any(self.run in text for text in leases(_notes(self.target, self.run)).values())

    def is_begun(self) -> bool:
        """Return whether this run has the lease, and noted then what it writes: a process may die between the two."""
        return self._note in self.notes() and self.is_held()

    def notes(self) -> dict[str, int]:
        """Return the bytes of all notes by name."""
        return _notes(self.target, self.run).sizes()

    def is_over(self, notes: Mapping[str, int]) -> bool:
        """Return whether there are notes that say that all units are done, or none of this write any more."""
        return COMPLETE in notes or self._note not in notes

    def check(self, notes: Mapping[str, int]) -> None:
        """Raise `SourceChangedError` if another run has begun anew."""
        if self._note not in notes:
            raise SourceChangedError(
                f"{_notes(self.target, self.run).where} has no {self._note} any more: the write was given up, or another one "
                "began; call again."
            )

    def begin(self, lay_out: Callable[[], object], is_begun: Callable[[], bool], *, overwrite: bool) -> bool:
        """Take the lease; go on with an interrupted write, or begin anew.

        Parameters
        ----------
        lay_out
            Makes the unfinished target; one that is there goes.
        is_begun
            Whether there is an unfinished target.
        overwrite
            Whether to begin anew if the interrupted write was another.

        Returns
        -------
        bool
            Whether an interrupted write goes on.

        Raises
        ------
        TargetBusyError
            Raised if another run has the lease.
        ResumeError
            Raised if the interrupted write was another, and ``overwrite`` is false; the message says what changed.
        """
        notes = _notes(self.target, self.run)
        with explained(notes.where):
            lease = take_lease(notes, self.run, self.title, break_lock=self.break_lock)
        try:
            runs = [name for name in notes.sizes() if name.startswith("run-")]
            if runs == [self._note] and is_begun():
                return True
            if runs and is_begun() and not overwrite:
                self._refuse(notes.read(runs[0]))
        except BaseException:
            notes.remove([lease])
            raise
        try:
            notes.remove(name for name in notes.sizes() if not name.startswith(LEASE))
            lay_out()
            notes.create(self._note, self.record)
        except BaseException:
            notes.end([lease])
            raise
        return False

    def _refuse(self, before: bytes) -> NoReturn:
        """Say what changed since an interrupted write began."""
        raise ResumeError(
            f"{self.title} was begun and not finished, and now {_difference(before, self.record)}; "
            "pass overwrite=True to begin anew, or call as before to go on."
        )

    def is_complete(self) -> bool:
        """Return whether all units of this write were done, but perhaps not that the target has its name."""
        return self.notes().keys() >= {COMPLETE, self._note}

    def tidy(self) -> None:
        """Remove what is left of a write that was complete and whose process died while it removed its notes.

        Raises
        ------
        TargetBusyError
            Raised if that process lives.
        """
        notes = _notes(self.target, self.run)
        names = notes.sizes()
        if names and not any(name.startswith("run-") for name in names):
            take_lease(notes, self.run, self.title, break_lock=self.break_lock)
            self.end()

    def receipts(self) -> Receipts:
        """Return the receipts of all units that are done."""
        return dict(_tail(self.target, self.run).update(self.notes()))

    def receipt(self, unit: str, notes: Mapping[str, int]) -> Any | None:
        """Return the receipt of a unit; None if it is not done.

        Raises
        ------
        SourceChangedError
            Raised if another run has begun anew.
        """
        self.check(notes)
        return _tail(self.target, self.run).update(notes).get(unit)

    def add(self, unit: str, receipt: Any) -> None:
        """Note that a unit is done."""
        line = _line(unit, receipt)
        with explained(_notes(self.target, self.run).where):
            _tail(self.target, self.run).append(line.encode())

    def keep(self, receipts: Receipts) -> None:
        """Forget all receipts but these."""
        notes = _notes(self.target, self.run)
        old = [name for name in notes.sizes() if RECEIPTS in name]
        lines = [_line(unit, receipt) for unit, receipt in receipts.items()]
        notes.create(f"{RECEIPTS}{uuid.uuid4().hex}.jsonl", "".join(lines).encode())
        notes.remove(old)
        _tail.cache_clear()

    def mark_complete(self) -> None:
        """Note that all units are done."""
        _notes(self.target, self.run).create(COMPLETE, b"")

    def release(self) -> None:
        """Give the lease back; what is done stays."""
        notes = _notes(self.target, self.run)
        notes.remove(name for name, text in leases(notes).items() if self.run in text)

    def end(self) -> None:
        """Forget everything; the lease goes last, before it what says that all is done."""
        notes = _notes(self.target, self.run)
        held = sorted(leases(notes))
        notes.end([self._note, COMPLETE, *held] if held else [])


class _Tail:
    """The receipts of all processes as far as they were read, and the note of this process."""

    def __init__(self, notes: Journal) -> None:
        self._notes = notes
        self._mine = f"{RECEIPTS}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._read: dict[str, int] = {}
        self._receipts: Receipts = {}
        self._lock = threading.Lock()

    def update(self, notes: Mapping[str, int]) -> Receipts:
        """Read what was added since the last time; ``notes`` has the bytes of all notes by name."""
        with self._lock:
            for name, size in notes.items():
                before = self._read.get(name, 0)
                if RECEIPTS in name and size > before:
                    content = self._notes.read(name, before)
                    whole = content[: content.rfind(b"\n") + 1]
                    self._read[name] = before + len(whole)
                    self._receipts.update(_parse(whole))
            return self._receipts

    def append(self, line: bytes) -> None:
        """Add a receipt."""
        with self._lock:
            self._notes.append(self._mine, line)


def _line(unit: str, receipt: Any) -> str:
    """Return a receipt as a line."""
    return json.dumps([unit, receipt], separators=(",", ":")) + "\n"


def _parse(lines: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the receipts of whole lines; leave out what a process that was killed, or a full disk, cut off."""
    for line in lines.splitlines():
        try:
            unit, receipt = json.loads(line)
            yield str(unit), receipt
        except (ValueError, TypeError):
            continue


@lru_cache(maxsize=64)
def _notes(target: str, run: str) -> Journal:
    """Return the notes of a run; one object in a process."""
    return journal_of(target)


@lru_cache(maxsize=64)
def _tail(target: str, run: str) -> _Tail:
    """Return what this process knows of a run's receipts."""
    return _Tail(_notes(target, run))


def _difference(before: bytes, after: bytes) -> str:
    """Say what differs between two records."""
    try:
        old = json.loads(before)
    except ValueError:
        return "its record cannot be read"
    new = json.loads(after)
    # What a user knows first; other things follow from it.
    words = [
        w for key in ("inputs", "steps", "versions", "layout") for w in _differences(old.get(key), new.get(key), key)
    ]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return "; ".join(words[:3]) + more


def _differences(old: Any, new: Any, where: str) -> Iterable[str]:
    """Yield what differs, from the top down."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key, "nothing"), new.get(key, "nothing"), f"{where} {key}".strip())
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for k, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f"{where} {k}")
    else:
        yield f"{where} is {_short(new)} and was {_short(old)}"


def _short(value: Any) -> str:
    """Return a value as it stands in a message."""
    if isinstance(value, list):
        return f"{len(value)} of them"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
