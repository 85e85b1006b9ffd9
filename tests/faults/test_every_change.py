"""A sample of the points at which `every_change` stops the writers; the command has all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("every_change.py")


@pytest.mark.skipif(
    shutil.which("cc") is None or sys.platform != "linux", reason="compiles a library with cc, for Linux"
)
def test_writers_survive_faults_at_single_changes(tmp_path: Path) -> None:
    """The same call again gives the product of an undisturbed run and leaves nothing; errors are ours."""
    writers = [word for name in ("fits", "zarr over") for word in ("--writer", name)]
    command = [sys.executable, str(SCRIPT), *writers, "--sample", "12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"broke": 0') == len(writers) // 2
