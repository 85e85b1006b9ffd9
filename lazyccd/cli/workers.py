"""What each worker of a cluster is told before it reduces, those that join later too."""

from __future__ import annotations

import os
from typing import Any

from distributed import Client, WorkerPlugin

from lazyccd.errors import ParameterError

PATIENCE = 30
"""Seconds in which a worker must have joined a scheduler."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Libraries that would start threads of their own: dask runs as many tasks as there are processors."""


class WorkerSetup(WorkerPlugin):
    """Sets up a worker; again changes nothing."""

    name = "lazyccd"
    idempotent = True

    def setup(self, worker: Any) -> None:
        """Leave threads to dask, and the network alone: thousands of workers would ask for tables of the Earth's rotation."""
        from astropy.utils import iers

        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")
        iers.conf.auto_download = False


def set_up(client: Client, address: str, patience: float = PATIENCE) -> None:
    """Set up all workers of a cluster.

    Raises
    ------
    ParameterError
        Raised if there is none: tasks would wait for ever.
    """
    client.register_plugin(WorkerSetup())
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        raise ParameterError(
            f"no worker has joined the scheduler at {address!r} within {patience:g} s; start some with 'dask worker {address}'."
        ) from error
