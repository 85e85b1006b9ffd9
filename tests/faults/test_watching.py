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


def test_a_night_that_is_watched_gives_the_bytes_of_one_run(tmp_path: Path) -> None:
    """Though frames come one by one and in pieces, and the process is interrupted, killed, and goes on by polling."""
    make_night(tmp_path / "all", Detector((64, 80)), Sky(stars=3), biases=3, darks=0, flats=3, lights=3)
    raw, out, log = (tmp_path / name for name in ("raw", "out", "log"))
    raw.mkdir()
    frames = {path.stem: path for path in (tmp_path / "all").glob("*.fits")}
    words = ["--veto", "flat005.fits"]

    def start(**environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lazyccd", "reduce", str(raw), "-o", str(out), "--watch", *begun]
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, text=True, env={**os.environ, **environment})
        said = log.stat().st_size
        until(lambda: log.stat().st_size > said, process, log)  # it looks at the folder
        return process

    def take(*names: str) -> None:
        for name in names:
            (raw / f"{name}.fits").write_bytes(frames[name].read_bytes())

    # A veto is refused while its frame is not there, and is remembered after that.
    begun: list[str] = []
    take("bias001", "bias002", "flat004", "flat005", "light007")
    process = start()
    until(lambda: (out / "light007_red.fits").exists(), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) in {3, 130}, log.read_text()
    begun = words
    process = start()
    # In pieces, with one pause longer than the quiet time.
    content = frames["light008"].read_bytes()
    with (raw / "light008.fits").open("wb") as file:
        for number, first in enumerate(range(0, len(content), len(content) // 5 + 1)):
            file.write(content[first : first + len(content) // 5 + 1])
            file.flush()
            time.sleep(4 if number == 2 else 0.3)
    until(lambda: (out / "light008_red.fits").exists(), process, log)
    assert "light008.fits[0] is truncated" in log.read_text()
    take("bias003", "flat006")
    until(lambda: "flat006.fits" in (out / "run.json").read_text(), process, log)
    process.kill()
    process.wait()
    begun = []
    process = start(WATCHFILES_FORCE_POLLING="true")
    take("light009")
    until(lambda: (out / "light009_red.fits").exists(), process, log)
    until(lambda: log.read_text().endswith("files taken; Ctrl-C ends.\n"), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 3, log.read_text()
    assert "Traceback" not in log.read_text()
    one = [sys.executable, "-m", "lazyccd", "reduce", str(raw), "-o", str(tmp_path / "one"), *words]
    assert subprocess.run(one, capture_output=True, text=True, check=False).returncode == 3
    found = compare(tmp_path / "one", out)
    # What was made before frames came is not in one run.
    found["left over"] = [name for name in found["left over"] if not name.startswith("outdated")]
    found["record"] = [line for line in found["record"] if not line.startswith(("/options/veto", "/notes"))]
    assert {name: lines for name, lines in found.items() if lines} == {}
