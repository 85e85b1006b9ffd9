"""Resume a night that was interrupted: note which products are complete, and check that the night is still the same.

The same means: the same files in the same state, plan, options and versions of libraries. Locks and the files in which progress
is noted are those of `lazyccd.io.resumable`, which resumes single products in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lazyccd.batch.night_plan import NightPlan
from lazyccd.io.resumable.disk import checksum
from lazyccd.io.resumable.progress import Progress, versions
from lazyccd.plan.serialize import plain


class NightJournal:
    """Progress of a night, noted in the folder of its products while it is being reduced.

    Parameters
    ----------
    plan
        The plan of the night.
    out
        Folder of the products.
    format
        Format of the products.
    break_lock
        Begin even though a lease says that another process reduces this night and that process may still run.
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
        """Begin a night or resume it, and return whether it was resumed.

        Parameters
        ----------
        check
            Called before a new night begins; raises if there are products that it would replace.
        overwrite
            Forget the progress of another night in the same folder.

        Raises
        ------
        ResumeError
            Raised if what was begun is another night and ``overwrite`` is false; the message says what changed.
        TargetBusyError
            Raised if another process reduces it.
        """
        resumed = self._progress.begin(check, lambda: True, overwrite=overwrite)
        self._known = self._progress.receipts()
        return resumed

    def known(self, name: str, *, verify: bool) -> dict[str, Any] | None:
        """Return the outcome that was noted for a product; None if it must be made.

        Parameters
        ----------
        name
            Name of the product.
        verify
            Compare the checksum of its file with the one noted, rather than its size only.
        """
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
        """Note that a product is complete, with size and checksum of its file."""
        file = Path(path)
        crc = _checksum(file) if file.is_file() else None
        self._progress.add(name, {"path": path, "size": _size(file), "crc32c": crc, "outcome": outcome})

    def release(self) -> None:
        """Give up the lease, so that another process may resume; what was noted stays."""
        self._progress.release()

    def end(self) -> None:
        """Remove the notes and the lease: the night is complete."""
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
