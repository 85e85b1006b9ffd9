"""Fixtures of all tests: seeded random numbers, real frames, a cluster; and the profiles of hypothesis."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from hypothesis import settings

# pytest imports a module for its doctests without making it an attribute of its package; modules imported before are whole
import lazyccd.accessor  # noqa: F401

# no deadline, because the first example compiles kernels; derandomized, so that a run that fails here fails everywhere
settings.register_profile("default", max_examples=15, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("long", max_examples=50, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

collect_ignore_glob = [
    "faults/warmed.py",
    "faults/nights.py",
    "faults/writers.py",
    "memory/workloads.py",
    "ccdproc/scripts/*",
]
"""These modules do their work when they are imported, or import what lies beside them, and pytest imports modules to look for
doctests."""


PYTHON_WORDS = re.compile(
    r"\bds\.\w|\.ccd\.|\b[a-z]\w*=(?:True|False|None)\b|\b(?:pass|give|set|use|leave out) [a-z]\w*=|lazyccd\.memory"
)
"""What belongs into no message of a command: its user knows options, not arguments, methods or settings."""


@pytest.fixture(autouse=True, scope="session")
def _commands_have_words_of_their_own() -> Iterator[None]:
    """Hold all that commands print in any test, for the faults that the tests provoke, against the words of Python."""
    invoke = CliRunner.invoke

    def checked(self: CliRunner, cli: Any, args: Any = None, *more: Any, **how: Any) -> Any:
        result = invoke(self, cli, args, *more, **how)
        is_shown_as_it_is = "--header" in (args or ()) or "explain" in (args or ())
        found = None if is_shown_as_it_is else PYTHON_WORDS.search(result.output)
        assert found is None, f"{args} prints {found and found[0]!r}:\n{result.output}"
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CliRunner, "invoke", checked)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator with the same seed for every test."""
    return np.random.default_rng(20260421)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real frames, which lies beside the project; skip the test if it is missing."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real frames are not there: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Return a pool of two fresh processes, which all tests share: each start imports everything."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


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
