"""The short form of the harness that kills runs; ``python tests/faults/kills.py`` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).with_name("kills.py")


def test_killed_runs_resume_to_the_same_bytes() -> None:
    """Drivers and workers die by SIGKILL; no byte differs in the end, nothing is left over, nothing is done twice."""
    command = [sys.executable, str(KILLS), "--kills", "8", "--workers", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["bad"] == []
    assert summary["drivers killed"] == 8
    assert summary["workers killed"] == 10
    assert summary["products"] >= 2
    assert summary["lazy writes"] >= 1
