"""What each worker of a cluster is told before it reduces, those that join later too."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

from distributed import Client, WorkerPlugin
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError

from lazyccd.errors import ClusterLostError, ParameterError
from lazyccd.kernels.cache_folder import cache_folder, cache_root

PATIENCE = 30
"""Seconds in which a worker must have joined a scheduler."""

SCHEDULER_GONE = "the scheduler at {0} is gone; start it and its workers again"
"""What is said of a scheduler that does not answer any more."""

INTERVAL = 1.0
"""Seconds between two looks at the workers."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Libraries that would start threads of their own: dask runs as many tasks as there are processors."""


class WorkerSetup(WorkerPlugin):
    """Sets up a worker; again changes nothing."""

    name = "lazyccd"
    idempotent = True

    def __init__(self) -> None:
        self._kernels = str(cache_root())

    def setup(self, worker: Any) -> None:
        """Leave threads to dask, and the network alone: thousands of workers would ask for tables of the Earth's rotation.

        Compiled kernels are looked for where the process that asks for the work keeps them, if this machine has that folder too.
        """
        from astropy.utils import iers

        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")
        iers.conf.auto_download = False
        if os.access(self._kernels, os.W_OK) and "NUMBA_CACHE_DIR" not in os.environ:
            os.environ["NUMBA_CACHE_DIR"] = self._kernels
            cache_folder.cache_clear()


class ClusterWatch(threading.Thread):
    """Looks from time to time whether there are workers, for without any a computation waits for ever.

    Parameters
    ----------
    client
        Of the cluster; it is closed when none has come for a while, so that what waits for it ends.
    address
        Of the scheduler.
    tell
        Is told that no workers are left, once each time.
    patience
        Seconds in which a worker must come back.
    interval
        Seconds between two looks.
    """

    def __init__(
        self, client: Client, address: str, tell: Callable[[str], None], patience: float, interval: float
    ) -> None:
        super().__init__(name="lazyccd-cluster", daemon=True)
        self.client, self._address, self._tell = client, address, tell
        self._patience, self._interval, self._ended = patience, interval, threading.Event()
        self.lost = ""
        """Why the cluster is lost; empty while it is not."""

    def run(self) -> None:
        """Look until the end of the block, or until the cluster is lost."""
        missed = None
        while not self._ended.wait(self._interval):
            now = time.monotonic()
            if self.client.status in ("closing", "closed"):
                self.lost = SCHEDULER_GONE
            elif self._has_workers():
                missed = None
            elif missed is None:
                missed = now
                self._tell(
                    f"No workers are left at {self._address}: waiting {self._patience:g} s for one, "
                    f"such as 'dask worker {self._address}' starts."
                )
            elif now - missed > self._patience:
                self.lost = "no workers are left at {0}; start some with 'dask worker {0}'"
                self.client.close(timeout=1)
            if self.lost:
                return

    def _has_workers(self) -> bool:
        try:
            # a client that was closed meanwhile knows of nothing, and says so by its status
            return bool(self.client.scheduler_info().get("workers", True))
        except OSError:
            # The scheduler does not answer: its client gets to know whether it is gone, and says so by its status.
            return True

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self.join()

    def __call__(self) -> None:
        """Raise `ClusterLostError` if the cluster is lost."""
        is_closed = self.client.status in ("closing", "closed") or self.client.scheduler is None
        if self.lost or is_closed or self.client.scheduler_comm is None:
            raise self.error()

    def error(self) -> ClusterLostError:
        """Return the error that says what is lost, and how to go on."""
        what = (self.lost or SCHEDULER_GONE).format(self._address)
        return ClusterLostError(f"{what}, and run the same command: it goes on where it stopped.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep dask's tracebacks of lost connections to itself inside the block: what is lost is said in a sentence."""
    # Its loggers have levels of their own.
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def watched(
    client: Client, address: str, tell: Callable[[str], None], patience: float = PATIENCE, interval: float = INTERVAL
) -> Iterator[ClusterWatch]:
    """Watch a cluster inside the block.

    Raises
    ------
    ClusterLostError
        Raised in place of the errors that a lost cluster makes.
    """
    watch = ClusterWatch(client, address, tell, patience, interval)
    watch.start()
    try:
        yield watch
    # What was computed on it, and what it is asked for later.
    except (CancelledError, CommClosedError, ClosedClientError) as error:
        raise watch.error() from error
    finally:
        watch.end()


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
