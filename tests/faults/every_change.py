"""Stops every writer at each change that it makes on the disk, calls it again, and compares with an undisturbed run.

``python tests/faults/every_change.py`` takes all points of all writers, `--writer` one of them, `--sample` so many points of each that
are drawn. A library that is loaded before the C library (``changes.c``, compiled here: needs ``cc``) counts the changes below one folder
and, at the k-th, kills the process (``kill``), fails once with EIO (``eio``), has a full disk from there on (``full``), writes half of the
bytes (``short``), or writes half and kills (``torn``). Then the same call is made again, without faults, and must end well: with the
product of an undisturbed run, nothing else left, and until then the old product under the name. What a call raises must be a
`LazyCCDError`, and none may be raised about a product that is complete. Prints a line as JSON for each writer, and what broke.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
LIBRARY = "LAZYCCD_CHANGES"
MODES = {"count": 0, "kill": 1, "eio": 2, "full": 3, "short": 4, "torn": 5}
FAULTS = tuple(mode for mode in MODES if mode != "count")

SPOKEN = ("run.json", "results.ecsv", "report.html", "log.txt", "current.json")
"""Files that name times, what was kept, or the inodes of inputs; only that they are there is compared."""

Tree = dict[str, bytes | None]
"""What is below a folder: bytes of files, None for folders."""


def compiled(folder: Path) -> Path:
    """Compile the library."""
    library = folder / "changes.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "changes.c", "-ldl"], check=True)
    return library


def tree(folder: Path) -> Tree:
    """Return what is below a folder."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        content = None if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = b"" if path.name in SPOKEN else content
    return found


@dataclass(frozen=True)
class Writer:
    """A call that writes, and what it begins with."""

    prepare: Callable[[Path], object]
    """Makes the inputs, and older products, in a folder."""

    call: Callable[[Path], object]
    product: str = ""
    """Name of the product that may have been there before; empty for several."""


class Ended(NamedTuple):
    """How a call ended in a process of its own."""

    how: str
    """``done``, ``killed``, ``refused`` by a `LazyCCDError`, or ``raw``, by any other error."""

    message: str = ""
    count: int = 0
    kinds: tuple[str, ...] = ()


class Changes:
    """The library that is loaded into this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ[LIBRARY])
        self._library.kind_of.restype = ctypes.c_char_p
        self._library.changes.restype = ctypes.c_long

    def run(self, call: Callable[[Path], object], folder: Path, mode: str, point: int) -> Ended:
        """Call in a forked process, with a fault at one point."""
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            ended = self._in_child(call, folder, mode, point)
            os.write(writer, pickle.dumps(ended))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            content = file.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return Ended("killed")
        return Ended(*pickle.loads(content)) if content else Ended("raw", f"ended with {status}")

    def _in_child(self, call: Callable[[Path], object], folder: Path, mode: str, point: int) -> tuple[Any, ...]:
        from lazyccd.errors import LazyCCDError, TargetExistsError

        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        how, message = "done", ""
        self._library.arm(os.fsencode(folder), MODES[mode], ctypes.c_long(point))
        try:
            call(folder)
        except LazyCCDError as error:
            how = "exists" if isinstance(error, TargetExistsError) else "refused"
            message = f"{type(error).__name__}: {error}"
        except BaseException as error:
            how, message = "raw", f"{type(error).__name__}: {error} at {_place(error)}"
        count = self._library.changes()
        kinds = tuple(self._library.kind_of(ctypes.c_long(k)).decode() for k in range(1, count + 1))
        self._library.arm(b"", 0, ctypes.c_long(0))
        return how, message, count, kinds if mode == "count" else ()


def _place(error: BaseException) -> str:
    """Return where an error was raised, by the innermost of our files."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        place = f"{Path(name).name}:{trace.tb_lineno}" if "lazyccd" in name else place
        trace = trace.tb_next
    return place


@dataclass
class Report:
    """What came out for a writer."""

    writer: str
    points: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    broke: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return it as JSON."""
        counts = {"writer": self.writer, "points": self.points, **dict(sorted(self.runs.items()))}
        return json.dumps({**counts, "broke": len(self.broke)})


class Harness:
    """Tries writers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changes = Changes()

    def fresh(self, name: str) -> Path:
        """Return a folder as the writer finds it; its name is the same each time, since products may have it."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder / name, out)
        return out

    def points(self, name: str, writer: Writer) -> tuple[Ended, Tree]:
        """Prepare a writer; return how it ends undisturbed, and what it makes."""
        base = self.folder / name
        base.mkdir()
        writer.prepare(base)
        writer.call(self.fresh(name))  # compiles what it needs, before anything is forked
        out = self.fresh(name)
        return self.changes.run(writer.call, out, "count", 0), tree(out)

    def enumerate(self, name: str, writer: Writer, sample: int = 0, seed: int = 1, only: str = "") -> Report:
        """Try all points, a sample of them, or only one, such as ``kill:12``."""
        undisturbed, expected = self.points(name, writer)
        report = Report(name, undisturbed.count)
        if undisturbed.how != "done":
            report.broke.append(f"undisturbed: {undisturbed.how} {undisturbed.message}")
            return report
        tries = [one for one in self._tries(undisturbed) if only in {"", "{}:{}".format(*one)}]
        if sample and sample < len(tries):
            tries = random.Random(seed).sample(tries, sample)
        for mode, point in tries:
            kind = undisturbed.kinds[point - 1]
            for broken in self._try(name, writer, mode, point, expected, report.runs):
                report.broke.append(f"{name} {mode} {point} ({kind}): {broken}")
        return report

    @staticmethod
    def _tries(undisturbed: Ended) -> Iterator[tuple[str, int]]:
        for point, kind in enumerate(undisturbed.kinds, 1):
            partial = "write" in kind or "sendfile" in kind
            yield from ((mode, point) for mode in FAULTS if partial or mode not in {"short", "torn"})

    def _try(
        self, name: str, writer: Writer, mode: str, point: int, expected: Tree, runs: Counter[str]
    ) -> Iterator[str]:
        """Try one point; yield what broke."""
        out = self.fresh(name)
        before = tree(out)
        first = self.changes.run(writer.call, out, mode, point)
        runs[f"{mode} {first.how}"] += 1
        after = tree(out)
        if first.how == "raw":
            yield f"raises {first.message}"
        if first.how in {"refused", "exists"} and after == expected:
            yield f"complete, and raises {first.message}"
        if writer.product:
            there = _part(after, writer.product)
            if there not in (_part(before, writer.product), _part(expected, writer.product)):
                yield "neither the old nor the new product has the name"
        second = self.changes.run(writer.call, out, "count", 0)
        left = tree(out)
        if second.how not in {"done", "exists"} or (second.how == "exists" and left != expected):
            yield f"the same call again: {second.how} {second.message}"
        if left != expected:
            yield f"differs after the same call: {_differences(left, expected)}"


def _part(found: Tree, name: str) -> Tree:
    """Return a product among what is below a folder."""
    return {key: value for key, value in found.items() if key == name or key.startswith(f"{name}/")}


def _differences(found: Tree, expected: Tree) -> str:
    """Tell what is left over, missing or other."""
    names = {
        "left": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "other": sorted(key for key in found.keys() & expected.keys() if found[key] != expected[key]),
    }
    return ", ".join(f"{what} {keys[:3]} of {len(keys)}" for what, keys in names.items() if keys)


def reexecuted() -> None:
    """Start this script again with the library loaded before all others."""
    with tempfile.TemporaryDirectory() as name:
        library = str(compiled(Path(name)))
        environment = {**os.environ, "LD_PRELOAD": library, LIBRARY: library, "MPLBACKEND": "agg"}
        environment["PYTHONPATH"] = f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)


def main() -> None:
    """Run and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writer", action="append", help="only this one")
    parser.add_argument("--sample", type=int, default=0, help="points to draw of each writer; all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="one fault at one point, such as kill:12")
    args = parser.parse_args()
    if LIBRARY not in os.environ:
        reexecuted()
    import dask
    from writers import WRITERS

    dask.config.set(scheduler="sync")
    broke: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        harness = Harness(Path(name))
        for writer in args.writer or WRITERS:
            begin = sum(os.times()[:4])
            report = harness.enumerate(writer, WRITERS[writer], args.sample, args.seed, args.only)
            broke += report.broke
            print(report.line(), f"{sum(os.times()[:4]) - begin:.0f} s of CPU", flush=True)
            for line in report.broke:
                print("  ", line, flush=True)
    sys.exit(bool(broke))


if __name__ == "__main__":
    main()
