"""One run at a time for each target: who writes it is noted, and a second run is refused while that process lives."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from lazyccd.errors import TargetBusyError
from lazyccd.io.resumable.journal import Journal

LEASE = "lease-"


def take_lease(notes: Journal, run: str, target: str, *, break_lock: bool) -> str:
    """Note that a run writes a target; return the name of the note.

    Leases are numbered, and the last one counts. A new number can be made by one process only, so two that find the same
    stale lease cannot both have it.

    Parameters
    ----------
    notes
        Where.
    run
        Name of the run; it may take its own lease again.
    target
        What is written, for the message.
    break_lock
        Whether to take it from a process that lives, or of which that cannot be said.

    Raises
    ------
    TargetBusyError
        Raised if another process has it.
    """
    while True:
        found = leases(notes)
        last = max(found, default="")
        held = json.loads(found[last] or "{}") if last else {}
        if held.get("run") == run:
            return last
        if held and not break_lock:
            _refuse_living(held, target)
        mine = f"{LEASE}{int(last.removeprefix(LEASE) or -1) + 1:06d}"
        if not notes.create(mine, json.dumps({"run": run, **this_process()}).encode()):
            continue
        if {name: text for name, text in leases(notes).items() if name != mine} == found:
            notes.remove(found)
            return mine
        notes.remove([mine])  # a run ended and another began meanwhile: look again


def leases(notes: Journal) -> dict[str, str]:
    """Return the leases by name."""
    names = [name for name in notes.sizes() if name.startswith(LEASE)]
    return {name: notes.read(name).decode() for name in names}


def _refuse_living(held: dict[str, Any], target: str) -> None:
    """Raise if the holder of a lease lives, or is on another machine and may."""
    me = this_process()
    who = f"process {held.get('pid')} on {held.get('host')}"
    if held.get("host") != me["host"]:
        raise TargetBusyError(
            f"{target} is being written by {who}, or was when that died; if you know that it is gone, pass break_lock=True "
            "(--break-lock)."
        )
    if held.get("boot") == me["boot"] and held.get("start") == process_start(int(held.get("pid", 0))):
        raise TargetBusyError(
            f"{target} is being written by {who}; wait for it, or stop it, or give another name. The same call then goes on "
            "where it stopped."
        )


def this_process() -> dict[str, Any]:
    """Return what tells this process from all others: host, boot of the system, process number and its start."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "start": process_start(pid)}


def process_start(pid: int) -> str | None:
    """Return when a process of this machine started, in the system's own units; None if there is none.

    Where the system does not tell, it is an empty string for every process that exists.
    """
    if os.path.exists("/proc/self/stat"):
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, start = (text.rpartition(")")[2].split()[k] for k in (0, 19))
        return None if state in {"Z", "X"} else start  # dead, and its parent did not ask for its exit status yet
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""


def _boot() -> str:
    """Return what tells this boot of the system from others; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
