"""``lazyccd reduce --watch`` as a process, on a folder that fills: frames in pieces, Ctrl-C, SIGKILL, a veto, polling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lazyccd.testing import Detector, Sky, make_night

PATIENCE = 120
"""Seconds in which something must happen."""


def until(happened: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    """Wait for something, as long as a process runs."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def compare(first: Path, second: Path) -> dict[str, list[str]]:
    """Return what differs between the folders of two runs, as the harness of nights does."""
    script = "import sys, json, pathlib, nights; print(json.dumps(nights.compare(*map(pathlib.Path, sys.argv[1:]))))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(first), str(second)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


class Watched:
    """A folder that a process watches, and what it says."""

    def __init__(self, folder: Path) -> None:
        make_night(folder / "all", Detector((64, 80)), Sky(stars=3), biases=3, darks=0, flats=3, lights=3)
        self.raw, self.out, self.log = (folder / name for name in ("raw", "out", "log"))
        self.raw.mkdir()
        self.frames = {path.stem: path.read_bytes() for path in (folder / "all").glob("*.fits")}

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Begin to watch, and wait until the process looks at the folder."""
        command = [sys.executable, "-m", "lazyccd", "reduce", str(self.raw), "-o", str(self.out), "--watch", *words]
        with self.log.open("a") as file:
            # jobs of a shell in the background ignore Ctrl-C, and so would what they start
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                variables = {**os.environ, **environment}
                process = subprocess.Popen(command, stdout=file, stderr=file, text=True, env=variables)
            finally:
                signal.signal(signal.SIGINT, before)
        said = self.log.stat().st_size
        until(lambda: self.log.stat().st_size > said, process, self.log)
        return process

    def take(self, *names: str) -> None:
        """Let frames arrive."""
        for name in names:
            (self.raw / f"{name}.fits").write_bytes(self.frames[name])

    def take_in_pieces(self, name: str) -> None:
        """Let a frame arrive in pieces, with one pause longer than the quiet time."""
        content = self.frames[name]
        step = len(content) // 5 + 1
        with (self.raw / f"{name}.fits").open("wb") as file:
            for number, first in enumerate(range(0, len(content), step)):
                file.write(content[first : first + step])
                file.flush()
                time.sleep(4 if number == 2 else 0.3)

    def made(self, name: str, process: subprocess.Popen[str]) -> None:
        """Wait until a product is there."""
        until(lambda: (self.out / f"{name}_red.fits").exists(), process, self.log)

    def interrupt(self, process: subprocess.Popen[str]) -> int:
        """Press Ctrl-C; return the status."""
        process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE)


def test_a_night_that_is_watched_gives_the_bytes_of_one_run(tmp_path: Path) -> None:
    """Though frames come one by one and in pieces, and the process is interrupted, killed, and goes on by polling."""
    night = Watched(tmp_path)
    log, words = night.log, ["--veto", "flat005.fits"]
    # A veto is refused while its frame is not there, and is remembered after that.
    night.take("bias001", "bias002", "flat004", "flat005", "light007")
    process = night.start()
    night.made("light007", process)
    assert night.interrupt(process) in {3, 130}, log.read_text()
    process = night.start(*words)
    night.take_in_pieces("light008")
    night.made("light008", process)
    assert "light008.fits[0] is truncated" in log.read_text()
    night.take("bias003", "flat006")
    until(lambda: "flat006.fits" in (night.out / "run.json").read_text(), process, log)
    process.kill()
    process.wait()
    process = night.start(WATCHFILES_FORCE_POLLING="true")
    night.take("light009")
    night.made("light009", process)
    until(lambda: log.read_text().endswith("files taken; Ctrl-C ends.\n"), process, log)
    assert night.interrupt(process) == 3, log.read_text()
    assert "Traceback" not in log.read_text()
    one = [sys.executable, "-m", "lazyccd", "reduce", str(night.raw), "-o", str(tmp_path / "one"), *words]
    assert subprocess.run(one, capture_output=True, text=True, check=False).returncode == 3
    found = compare(tmp_path / "one", night.out)
    # What was made before frames came is not in one run.
    found["left over"] = [name for name in found["left over"] if not name.startswith("outdated")]
    found["record"] = [line for line in found["record"] if not line.startswith(("/options/veto", "/notes"))]
    assert {name: lines for name, lines in found.items() if lines} == {}
