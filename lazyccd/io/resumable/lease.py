"""One run at a time for each target: a lease says which process writes it, and keeps others out while that process lives.

A lazy write may never be computed to its end, in processes that live on: its lease keeps others out only while tasks of it run,
in whatever process. So each of these touches the lease.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lazyccd.errors import TargetBusyError
from lazyccd.io.resumable.journal import Journal

LEASE = "lease-"

BEAT = 2.0
"""Seconds after which a process that has a lease touches it."""

WATCH = 10.0
"""Seconds for which a lease must stay untouched to be that of a process that has died."""

IDLE = 3.0
"""Seconds after which a lazy write has no task that runs if nobody touched its lease; more than a beat."""

SAME_START = 2.0
"""Seconds by which two readings of one start may differ: psutil gives the time of boot in whole seconds."""


class Holder(NamedTuple):
    """The process that holds a lease, and what tells it from all others."""

    host: str = ""
    boot: str = ""
    """Identity of the boot of the system; empty where the system does not tell."""

    namespace: str = ""
    """Within which its number means something: a container has its own; empty where the system does not tell."""

    pid: int = 0
    start: float = 0.0
    """Seconds from the boot of the system to the start of the process."""

    run: str = ""
    """Name of the run; one process may make several."""

    lazy: bool = False
    """Whether it is a lazy write, which nobody may compute any more while the process lives."""


def take_lease(
    journal: Journal, run: str, target: str, *, break_lock: bool, lazy: bool = False, alike: bool = False
) -> str:
    """Claim a target for a run; return the name of the lease.

    Leases are numbered, and the last one counts. Only one process can create a given number, so two that find the same
    stale lease cannot both have it.

    Parameters
    ----------
    journal
        Where leases are kept.
    run
        Name of the run; it may take its own lease again.
    target
        What is written, for the message.
    break_lock
        Whether to take the lease from a process that lives, or that may live.
    lazy
        Whether this is the run of a lazy write.
    alike
        Whether what was begun is the same as what this run writes. It then takes the lease of a lazy write even while tasks of
        that run: both write equal bytes, and each finds what the other has done.

    Raises
    ------
    TargetBusyError
        Raised if another process has it, or another run of this process.
    """
    holder = this_process(run)._replace(lazy=lazy)
    while True:
        found = leases(journal)
        last = max(found, default="")
        # The process may have died, or the disk filled up, before the lease had its content.
        held = Holder(**json.loads(found[last] or "{}")) if last else Holder()
        if last and held.run == run:
            return last
        if held.run and not (break_lock or (alike and held.lazy)):
            _refuse_living(journal, last, held, target)
        mine = f"{LEASE}{int(last.removeprefix(LEASE) or -1) + 1:06d}"
        if not journal.create(mine, json.dumps(holder._asdict()).encode()):
            continue
        if {name: text for name, text in leases(journal).items() if name != mine} == found:
            journal.remove(found)
            if not lazy:
                _heart.add(journal, mine)
            return mine
        journal.remove([mine])  # a run ended and another began meanwhile: look again


def leases(journal: Journal) -> dict[str, str]:
    """Return the leases by name."""
    return {name: journal.read(name).decode() for name in filter(_is_lease, journal.sizes())}


def _is_lease(name: str) -> bool:
    """Return whether an entry of a journal is a lease."""
    return name.startswith(LEASE)


def _refuse_living(journal: Journal, lease: str, held: Holder, target: str) -> None:
    """Raise if the holder of a lease lives, or is on another machine and may live."""
    me = this_process()
    who = f"process {held.pid} on {held.host}"
    is_near = held.host == me.host
    # A machine of the same name after a start, another one of that name, or a container: numbers of processes tell nothing,
    # but one that lives touches its lease.
    is_here = is_near and (held.boot, held.namespace) == (me.boot, me.namespace)
    if held.lazy and journal.has_times:
        if not (is_here and not _is_running(held)) and not _is_idle(journal, lease, IDLE if is_near else WATCH):
            raise TargetBusyError(
                f"{target} is being written by a lazy write that {who} began, of which tasks run; wait for them, or stop them, or "
                "give another name."
            )
        return
    if held.lazy and is_here and held.pid == me.pid and not _heart.works(journal, held.run):
        return
    beats = None if is_here or not is_near else _is_touched(journal, lease)
    if not is_here and beats is None:
        # Nothing here can tell whether a process of another machine lives, and two writers would mix their regions.
        raise TargetBusyError(
            f"{target} is being written by {who}, which may have died since; if you know that it is gone, pass "
            "break_lock=True (--break-lock)."
        )
    if beats or (is_here and _is_running(held)):
        raise TargetBusyError(
            f"{target} is being written by {who}; wait for it, or stop it, or give another name. The same call then resumes "
            "the write."
        )


def claim(journal: Journal, name: str, run: str) -> bool:
    """Create an entry that says that a run does what only one may; return False while another one is at it.

    One that failed, or whose process has died, gives it up.
    """
    while not journal.create(name, json.dumps(this_process(run)._asdict()).encode()):
        held = Holder(**json.loads(journal.read(name) or "{}"))
        if held.run != run and _is_at_work(journal, held):
            return False
        # Of several that find it given up one takes it: what another one has created meanwhile must not be removed.
        if held.run != run and not claim(journal, f"{name}-after-{held.run}", run):
            return False
        journal.remove([name])
    return True


def _is_at_work(journal: Journal, held: Holder) -> bool:
    """Return whether a task of a run works, in this process or in another one that can be seen."""
    me = this_process()
    if held[:4] == me[:4]:
        return _heart.works(journal, held.run)
    if held[:3] == me[:3] and not _is_running(held):
        return False
    last = max(filter(_is_lease, journal.sizes()), default="")
    return bool(last) and journal.has_times and not _is_idle(journal, last, IDLE)


def _is_idle(journal: Journal, lease: str, quiet: float) -> bool:
    """Return whether no task of a lazy write runs; wait until that can be told, or one has run for long."""
    seen, since = journal.touched(lease), time.monotonic()
    end = since + WATCH + quiet
    while seen is not None and (now := time.monotonic()) < end:
        if now - since > quiet:
            return True
        time.sleep(BEAT / 8)
        touched = journal.touched(lease)
        if touched != seen:
            seen, since = touched, time.monotonic()
    return seen is None  # it was given back


def _is_touched(journal: Journal, lease: str) -> bool | None:
    """Return whether the holder of a lease touches it; None where that cannot be seen."""
    first = journal.touched(lease)
    if first is None:
        return None
    # Only differences count: clocks of machines differ.
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(BEAT / 4)
        if journal.touched(lease) != first:
            return True
    return False


@contextlib.contextmanager
def working(journal: Journal, run: str) -> Iterator[None]:
    """Touch the last lease of a target while a task of a run works for it, in whatever process."""
    _heart.begin_work(journal, run)
    try:
        yield
    finally:
        _heart.end_work(journal, run)


def wait_for_work(journal: Journal, run: str) -> None:
    """Wait until no task of a run works in this process, at most `WATCH` seconds.

    A run that was stopped has threads that go on for a while; they must not write into what another run begins.
    """
    end = time.monotonic() + WATCH
    while _heart.works(journal, run) and time.monotonic() < end:
        time.sleep(0.01)


class _Heart:
    """Touches leases, in one thread: those of this process while it lives, and those that its tasks work for while they do."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[Journal, str]] = {}
        self._work: Counter[tuple[str, str]] = Counter()
        self._beats = False
        self._lock = threading.Lock()

    def works(self, journal: Journal, run: str) -> bool:
        """Return whether a task of a run works in this process."""
        with self._lock:
            return self._work[journal.where, run] > 0

    def begin_work(self, journal: Journal, run: str) -> None:
        """Note that a task works, and touch the lease until the last one has ended."""
        with self._lock:
            self._work[journal.where, run] += 1
            is_touched = f"{journal.where} {run}" in self._leases
        if not is_touched and journal.has_times and (last := max(filter(_is_lease, journal.sizes()), default="")):
            journal.touch(last)
            self.add(journal, last, run)

    def end_work(self, journal: Journal, run: str) -> None:
        """Note that a task has ended."""
        with self._lock:
            self._work[journal.where, run] -= 1
            if self._work[journal.where, run] <= 0:
                del self._work[journal.where, run]
                self._leases.pop(f"{journal.where} {run}", None)

    def add(self, journal: Journal, lease: str, run: str = "") -> None:
        """Touch a lease until it is gone, or until the tasks of a run have ended."""
        with self._lock:
            self._leases[f"{journal.where} {run}" if run else f"{journal.where}/{lease}"] = journal, lease
            # Not told by the leases: tasks come and go while the thread sleeps, and each would begin another one.
            beats, self._beats = self._beats, True
        if not beats:
            threading.Thread(target=self._beat, name="lazyccd-leases", daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                self._leases = {key: one for key, one in self._leases.items() if one[0].touch(one[1])}
                # Seen under the lock: `add` begins a new thread exactly where this one ends.
                if not self._leases:
                    self._beats = False
                    return

    def forget(self) -> None:
        """Begin anew in a process that was forked, which has leases of its own and none of the threads."""
        self._leases, self._work, self._beats, self._lock = {}, Counter(), False, threading.Lock()


_heart = _Heart()
os.register_at_fork(after_in_child=_heart.forget)


def _is_running(held: Holder) -> bool:
    """Return whether the holder lives, and is not another process that got its number."""
    start = process_start(held.pid)
    return start is not None and abs(start - held.start) < SAME_START


def this_process(run: str = "") -> Holder:
    """Return what tells this process from all others."""
    pid = os.getpid()
    start = process_start(pid)
    assert start is not None, "this process runs"
    return Holder(socket.gethostname(), _boot(), _namespace(), pid, start, run)


def process_start(pid: int) -> float | None:
    """Return how many seconds after the boot a process of this machine started; None if there is none."""
    import psutil  # takes 30 ms, and only writes need it

    try:
        process = psutil.Process(pid)
        # A zombie has ended; only its parent did not ask for the exit status yet.
        if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            return None
        # psutil adds the time of boot, which moves when the clock is set: the difference does not.
        return float(process.create_time() - psutil.boot_time())
    except psutil.NoSuchProcess:
        return None


def _boot() -> str:
    """Return what tells this boot of the system from others; empty where the system does not tell."""
    try:
        # psutil only knows the time of boot, which is another one after the clock is set.
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Return the namespace of numbers of processes; empty where the system has none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
