"""Workers under a nanny reuse freed blocks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from lazyccd.plan.memory import keep_freed_memory

if {keep}:
    keep_freed_memory()
for round in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(2**18, np.float32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)
"""


def faults_per_block(*, keep: bool) -> float:
    """Return how many pages the kernel clears per block of 1 MB in a process such as nannies start."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc")
def test_blocks_are_reused_in_workers() -> None:
    """A block of 1 MB costs 256 page faults with the nanny's setting, and none once blocks are kept."""
    assert faults_per_block(keep=False) > 200
    assert faults_per_block(keep=True) < 5
