"""Processes that fork after a computation compute too."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, threading
import numpy as np
from astropy.nddata import CCDData
import lazyccd
from lazyccd import ccdproc

def level(value):
    frame = lazyccd.from_ccddata(CCDData(np.full((8, 8), value), unit="adu"))
    # large enough for the threads of single calls
    large = CCDData(np.full((2900, 2900), value, np.float32), unit="adu")
    twice = ccdproc.gain_correct(large, 2.0)
    return float(lazyccd.median_filter(frame, 3)["data"].mean().compute()) + float(twice.data.mean(dtype=float))

def run():
    print(level(1.0))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(level, [2.0, 3.0, 4.0]))

if __name__ == "__main__":
    {start}
"""


@pytest.mark.parametrize(
    "start", ["run()", "thread = threading.Thread(target=run); thread.start(); thread.join()"], ids=["main", "thread"]
)
def test_a_pool_of_forked_processes_computes(start: str) -> None:
    """`multiprocessing.Pool` works after the parent computed, in its main thread or in another."""
    command = [sys.executable, "-c", SCRIPT.format(start=start)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["3.0", "[6.0, 9.0, 12.0]"]
