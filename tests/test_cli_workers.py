"""Workers of a cluster that a command uses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from astropy.io import fits
from astropy.utils import iers
from distributed import Client, LocalCluster

from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.cli.warm_up import dtypes_of, warm_up, warm_up_workers
from lazyccd.cli.workers import ClusterWatch, WorkerSetup, set_up, watched
from lazyccd.errors import ClusterLostError, ParameterError
from lazyccd.kernels.cache_folder import cache_folder
from lazyccd.testing import Detector, Sky, make_night


def test_workers_are_set_up_and_missed() -> None:
    """A scheduler without workers is an error; workers that join later are set up as well, and twice changes nothing."""
    before = iers.conf.auto_download
    with (
        iers.conf.set_temp("auto_download", True),
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
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


def wait_in_vain(cluster: LocalCluster, client: Client, watch: ClusterWatch) -> None:
    """Wait for the result of a task after the last worker has gone."""
    watch()  # nothing is lost yet
    cluster.scale(0)
    while client.scheduler_info()["workers"]:
        time.sleep(0.05)
    client.submit(sum, (1, 2), pure=False).result()


def test_a_cluster_without_workers_is_no_wait_for_ever() -> None:
    """It is said at once that none is left; after a while what waits ends, with an error that says how to go on."""
    told: list[str] = []
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(ClusterLostError, match=r"no workers are left at (\S+); start some .*same command: it goes on"),
        watched(client, cluster.scheduler_address, told.append, patience=0.5, interval=0.1) as watch,
    ):
        wait_in_vain(cluster, client, watch)
    assert [text.partition(" at ")[0] for text in told] == ["No workers are left"]
    assert watch.lost
    with pytest.raises(ClusterLostError):
        watch()


def test_a_worker_that_comes_back_in_time_goes_on() -> None:
    """The computation ends as if nothing had been."""
    told: list[str] = []
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        watched(client, cluster.scheduler_address, told.append, patience=60, interval=0.1) as watch,
    ):
        cluster.scale(0)
        future = client.submit(sum, (1, 2), pure=False)
        while not told:
            time.sleep(0.05)
        cluster.scale(1)
        assert future.result(timeout=30) == 3
        watch()


def test_workers_keep_kernels_where_the_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If their machine has that folder, and no other was named for it."""
    for folder, own, expected in (
        (tmp_path, None, str(tmp_path)),
        (tmp_path / "elsewhere", None, None),
        (tmp_path, "own", "own"),
    ):
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
        plugin = WorkerSetup()
        monkeypatch.delenv("NUMBA_CACHE_DIR")
        if own is not None:
            monkeypatch.setenv("NUMBA_CACHE_DIR", own)
        with iers.conf.set_temp("auto_download", True):
            plugin.setup(None)
        assert os.environ.get("NUMBA_CACHE_DIR") == expected
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
        cache_folder.cache_clear()


def test_types_that_are_compiled_are_those_of_the_files(tmp_path: Path) -> None:
    """Unsigned integers are signed ones with BZERO; small frames have none, since they need nothing that takes long."""
    night = make_night(tmp_path / "raw", Detector((544, 544)), Sky(stars=2), biases=1, darks=0, flats=0, lights=1)
    assert dtypes_of(build_plan(collect(night.folder))) == {"uint16"}
    light = next((tmp_path / "raw").glob("light*"))
    with fits.open(light) as file:
        fits.PrimaryHDU(file[0].data[:, :-20].astype("i4"), file[0].header).writeto(light, overwrite=True)
    assert dtypes_of(build_plan(collect(night.folder))) == {"uint16", "int32"}
    make_night(tmp_path / "tiny", Detector((64, 64)), Sky(stars=2), biases=1, darks=0, flats=0, lights=1)
    assert dtypes_of(build_plan(collect(str(tmp_path / "tiny")))) == set()


def test_kernels_are_compiled_once_before_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each dtype, by one of those that ask at the same time, on workers too; it is said how long that took."""
    made: list[str] = []

    def reduce(dtype: str) -> None:
        time.sleep(0.2)
        made.append(dtype)

    monkeypatch.setattr("lazyccd.cli.warm_up._reduce_tiny_night", reduce)
    monkeypatch.setattr("lazyccd.cli.warm_up.cache_folder", lambda: tmp_path)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(warm_up, [["uint16"], ["uint16"], ["uint16", "int16"]]))
    assert sorted(made) == ["int16", "uint16"]
    assert warm_up(["uint16"]) is None
    told: list[str] = []
    with LocalCluster(n_workers=2, processes=False, dashboard_address=":0") as cluster, Client(cluster) as client:
        for _ in range(2):
            warm_up_workers(client, ["float32"], told.append)
    assert made.count("float32") == 1
    assert len(told) == 1
    assert "compiled on 1 workers" in told[0]


@pytest.mark.slow
def test_what_was_compiled_first_is_all_that_a_night_needs(tmp_path: Path) -> None:
    """The night after it compiles nothing."""
    make_night(tmp_path / "raw", Detector((640, 640)), Sky(stars=30), biases=3, darks=2, flats=3, lights=1)
    command = [sys.executable, "-m", "lazyccd", "reduce", str(tmp_path / "raw"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Kernels were compiled" in done.stderr
    mark = next((tmp_path / "cache").rglob("*-warm-uint16"))
    late = [path.name for path in mark.parent.rglob("*.nbc") if path.stat().st_mtime > mark.stat().st_mtime]
    assert late == []
