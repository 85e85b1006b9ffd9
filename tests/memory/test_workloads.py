"""The short form of the harness that measures peak memory; ``python tests/memory/run.py`` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")

SHORT = (
    "rays_one_chunk",
    "rays_noise_underestimated",
    "median_large_double",
    "bad_pixels_iraf",
    "one_tile_in_chunks",
    "stack_median",
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had")
def test_workloads_keep_to_limit_and_plan(tmp_path: Path) -> None:
    """Peak memory of fresh processes is below the limit and 1.1 times the plan, which is no more than twice of it; nothing is refused."""
    found = tmp_path / "found.json"
    only = f"^({'|'.join(SHORT)})$"
    command = [
        sys.executable,
        str(RUN),
        str(tmp_path),
        "--side",
        "2048",
        "--only",
        only,
        "--limits",
        "420",
        "--json",
        str(found),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    assert [line["name"] for line in lines if line["refused"]] == []
    assert len(lines) == len(SHORT)
    assert done.returncode == 0, done.stdout
