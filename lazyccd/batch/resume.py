"""Nights that were interrupted: which products are done, and whether the night is still the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lazyccd.batch.night_plan import NightPlan
from lazyccd.io.checksum import checksum
from lazyccd.io.resumable.progress import Progress, versions
from lazyccd.plan.serialize import plain


class NightJournal:
    """What is done of a night, noted in the folder of its products while it is being reduced.

    Parameters
    ----------
    plan
        What is done with the night.
    out
        Folder of the products.
    format
        Format of the products.
    break_lock
        Whether to take the lease of another process, even if that may live.
    """

    def __init__(self, plan: NightPlan, out: Path, format: str, *, break_lock: bool) -> None:
        sources = {item.source.partition("[")[0] for item in plan.frames}
        record = {
            "inputs": {name: _state(Path(name)) for name in sorted(sources)},
            "steps": plain([plan.frames, plan.groups]),
            # Another version may compute other pixels: half a night of each would be nobody's result.
            "versions": versions(),
            "layout": {"format": format, "options": plain(plan.options)},
        }
        self._progress = Progress.of(f"{out}/night", record, title=str(out), break_lock=break_lock)
        self._known: dict[Any, Any] = {}

    def begin(self, check: Callable[[], None], *, overwrite: bool) -> bool:
        """Begin or go on; return whether a night goes on. ``check`` refuses to begin where products exist."""
        resumed = self._progress.begin(check, lambda: True, overwrite=overwrite)
        self._known = self._progress.receipts()
        return resumed

    def known(self, name: str, *, verify: bool) -> dict[str, Any] | None:
        """Return what was noted about a product if its file is as it was; None if it must be made."""
        noted = self._known.get(name)
        if noted is None:
            return None
        path = Path(noted["path"])
        # Comparing sizes finds what an interruption cuts; after a power failure only checksums find pages that were
        # never written.
        if _size(path) != noted["size"] or (verify and path.is_file() and _checksum(path) != noted["crc32c"]):
            return None
        outcome: dict[str, Any] = noted["outcome"]
        return {key: tuple(value) if isinstance(value, list) else value for key, value in outcome.items()}

    def add(self, name: str, path: str, outcome: dict[str, Any]) -> None:
        """Note that a product is complete."""
        file = Path(path)
        crc = _checksum(file) if file.is_file() else None
        self._progress.add(name, {"path": path, "size": _size(file), "crc32c": crc, "outcome": outcome})

    def release(self) -> None:
        """Let another process go on."""
        self._progress.release()

    def end(self) -> None:
        """Forget everything."""
        self._progress.end()


def _state(path: Path) -> str:
    """Return what tells one state of a file from another."""
    try:
        found = path.stat()
    except OSError:
        return "not a local file"
    # Reading all inputs to compare them would take as long as the reduction.
    return f"{found.st_size} bytes, mtime {found.st_mtime_ns} ns"


def _size(path: Path) -> int | None:
    """Return the bytes of a file, or of the metadata of a store; None if it is not there."""
    file = path / "zarr.json" if path.is_dir() else path
    return file.stat().st_size if file.exists() else None


def _checksum(path: Path) -> int:
    """Return the CRC32C of a file."""
    with path.open("rb") as file:
        return checksum(iter(lambda: file.read(1 << 22), b""))
