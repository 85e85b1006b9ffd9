"""The short form of the harness that kills runs; ``python tests/faults/kills.py`` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.parametrize(
    ("drivers", "workers"), [(2, 2), *(pytest.param(*some, marks=pytest.mark.slow) for some in ((4, 4), (8, 10)))]
)
def test_killed_runs_resume_to_the_same_bytes(drivers: int, workers: int) -> None:
    """Drivers and workers die by SIGKILL; no byte differs in the end, nothing is left over, nothing is done twice."""
    command = [sys.executable, str(KILLS), "--kills", str(drivers), "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["bad"] == []
    assert summary["drivers killed"] == drivers
    assert summary["workers killed"] == workers
    assert summary["products"] >= 2
    assert summary["lazy writes"] >= 1
