"""Workers of a cluster that a command uses."""

from __future__ import annotations

import pytest
from astropy.utils import iers
from distributed import Client, LocalCluster

from lazyccd.cli.workers import set_up
from lazyccd.errors import ParameterError


def test_workers_are_set_up_and_missed() -> None:
    """A scheduler without workers is an error; workers that join later are set up as well, and twice changes nothing."""
    before = iers.conf.auto_download
    with (
        iers.conf.set_temp("auto_download", True),
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        with pytest.raises(
            ParameterError, match=r"no worker has joined .*inproc.*; start some with 'dask worker inproc"
        ):
            set_up(client, cluster.scheduler_address, 0.1)
        cluster.scale(1)
        client.wait_for_workers(1, timeout=30)
        set_up(client, cluster.scheduler_address)
        # one process: what the worker was told holds here
        assert not iers.conf.auto_download
    assert iers.conf.auto_download == before
