"""What all tests share: seeded random numbers, real frames, and how hard hypothesis looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import settings

# deadline: the first example compiles kernels; derandomize: a run that fails, fails for everybody
settings.register_profile("default", max_examples=25, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

collect_ignore = ["faults/warmed.py"]
"""A module that works when it is imported, which pytest would do in search of doctests."""


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator that starts alike in every test."""
    return np.random.default_rng(20260421)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real frames, which lies beside the project and not in it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real frames are not there: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Return a cluster of two worker processes, which all tests share: each start imports everything twice."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as started:
        yield started


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """Return a client of the shared cluster, which runs what is computed as long as a test lasts."""
    with Client(cluster) as connected:
        yield connected
