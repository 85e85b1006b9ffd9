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
from lazyccd.plan.cost import keep_freed_memory

if {keep}:
    keep_freed_memory()
for round in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # many at once: imports may leave a hole in the heap that is large enough for one
    blocks = [np.ones(2**19, np.float32) for _ in range(16)]
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 16)
"""


def faults_per_block(*, keep: bool) -> float:
    """Return how many pages the kernel clears per block of 2 MB in a process such as nannies start."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are those of glibc")
def test_blocks_are_reused_in_workers() -> None:
    """A block of 2 MB costs 512 page faults with the nanny's setting, and none once blocks are kept."""
    assert faults_per_block(keep=False) > 400
    assert faults_per_block(keep=True) < 5
