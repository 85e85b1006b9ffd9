"""One run at a time for each target: a lease says which process writes it, and keeps others out while that process lives."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

from lazyccd.errors import TargetBusyError
from lazyccd.io.resumable.journal import Journal

LEASE = "lease-"

BEAT = 2.0
"""Seconds after which a process that has a lease touches it."""

WATCH = 10.0
"""Seconds for which a lease must stay untouched to be that of a process that has died."""

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


def take_lease(journal: Journal, run: str, target: str, *, break_lock: bool) -> str:
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

    Raises
    ------
    TargetBusyError
        Raised if another process has it.
    """
    while True:
        found = leases(journal)
        last = max(found, default="")
        # The process may have died, or the disk filled up, before the lease had its content.
        held = Holder(**json.loads(found[last] or "{}")) if last else Holder()
        if last and held.run == run:
            return last
        if held.run and not break_lock:
            _refuse_living(journal, last, held, target)
        mine = f"{LEASE}{int(last.removeprefix(LEASE) or -1) + 1:06d}"
        if not journal.create(mine, json.dumps(this_process(run)._asdict()).encode()):
            continue
        if {name: text for name, text in leases(journal).items() if name != mine} == found:
            journal.remove(found)
            _heart.add(journal, mine)
            return mine
        journal.remove([mine])  # a run ended and another began meanwhile: look again


def leases(journal: Journal) -> dict[str, str]:
    """Return the leases by name."""
    names = [name for name in journal.sizes() if name.startswith(LEASE)]
    return {name: journal.read(name).decode() for name in names}


def _refuse_living(journal: Journal, lease: str, held: Holder, target: str) -> None:
    """Raise if the holder of a lease lives, or is on another machine and may live."""
    me = this_process()
    who = f"process {held.pid} on {held.host}"
    is_near = held.host == me.host
    # A machine of the same name after a start, another one of that name, or a container: numbers of processes tell nothing,
    # but one that lives touches its lease.
    is_here = is_near and (held.boot, held.namespace) == (me.boot, me.namespace)
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


class _Heart:
    """Touches the leases of this process while it lives, in one thread."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[Journal, str]] = {}
        self._lock = threading.Lock()

    def add(self, journal: Journal, lease: str) -> None:
        """Touch a lease until it is gone."""
        with self._lock:
            is_idle = not self._leases
            self._leases[f"{journal.where}/{lease}"] = journal, lease
        if is_idle:
            threading.Thread(target=self._beat, name="lazyccd-leases", daemon=True).start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                self._leases = {key: one for key, one in self._leases.items() if one[0].touch(one[1])}
                # Seen under the lock: `add` begins a new thread exactly where this one ends.
                if not self._leases:
                    return

    def forget(self) -> None:
        """Begin anew in a process that was forked, which has leases of its own and none of the threads."""
        self._leases, self._lock = {}, threading.Lock()


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
