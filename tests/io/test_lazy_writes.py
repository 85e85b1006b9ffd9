"""A lazy write that failed, was cancelled or was given up blocks nobody, and two of one target never mix their pixels."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from distributed import Client, LocalCluster

import lazyccd
from lazyccd.errors import LazyCCDError, ResumeError, TargetBusyError, WriteError
from lazyccd.io.fits.writer import FitsFrame
from lazyccd.io.resumable import lease
from lazyccd.io.resumable.journal import LocalJournal, journal_of
from lazyccd.io.zarr.writer import ZarrGroup

FORMS = {"fits": FitsFrame, "zarr": ZarrGroup}


class Stopped(Exception):  # noqa: N818
    """Stands for whatever stops a run."""


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Return fits or zarr."""
    return str(request.param)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a raw file."""
    fits.writeto(tmp_path / "raw.fits", np.random.default_rng(1).integers(0, 9000, (60, 80)).astype(np.uint16))
    return tmp_path / "raw.fits"


def frame(raw: Path, gain: float = 1.5) -> xr.Dataset:
    """Return a frame of twelve chunks."""
    out: xr.Dataset = lazyccd.gain_correct(lazyccd.open_fits(raw, chunks=(20, 20)), gain * u.electron / u.adu)
    return out


def lazy(raw: Path, form: str, gain: float = 1.5, **more: Any) -> Any:
    """Return a lazy write."""
    return getattr(lazyccd, f"to_{form}")(frame(raw, gain), raw.parent / f"a.{form}", compute=False, **more)


def check(raw: Path, form: str, gain: float = 1.5) -> None:
    """Assert that the product is whole and that nothing else is left."""
    product = lazyccd.as_frame(raw.parent / f"a.{form}")["data"].values
    np.testing.assert_array_equal(product, frame(raw, gain)["data"].values)
    assert sorted(path.name for path in raw.parent.iterdir()) == [f"a.{form}", "raw.fits"]


def stop_after(monkeypatch: pytest.MonkeyPatch, form: str, count: int, error: type[BaseException]) -> None:
    """Let so many regions be written, then raise once."""
    original, left = FORMS[form].write, [count]

    def limited(target: Any, region: Any, arrays: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise error
        return original(target, region, arrays)

    monkeypatch.setattr(FORMS[form], "write", limited)


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("again", ["the same", "a new one", "now"])
def test_a_failed_one_is_called_again(
    form: str, raw: Path, error: type[BaseException], scheduler: str, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same lazy write, by another of the same, or by a write at once; nobody waits."""
    stop_after(monkeypatch, form, 3, error)
    first = lazy(raw, form)
    with dask.config.set(scheduler=scheduler):
        with pytest.raises(error):
            first.compute()
        begin = time.monotonic()
        if again == "now":
            getattr(lazyccd, f"to_{form}")(frame(raw), raw.parent / f"a.{form}")
        else:
            (first if again == "the same" else lazy(raw, form)).compute()
    assert time.monotonic() - begin < lease.IDLE
    check(raw, form)


def test_one_of_something_else_is_refused_and_then_replaced(
    form: str, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changed is said as for other interrupted writes, and `overwrite` begins anew."""
    monkeypatch.setattr(lease, "IDLE", 0.5)
    stop_after(monkeypatch, form, 3, Stopped)
    with pytest.raises(Stopped):
        lazy(raw, form).compute()
    with pytest.raises(ResumeError, match=r"gain is '2\.5 .* and was '1\.5 "):
        lazy(raw, form, 2.5).compute()
    lazy(raw, form, 2.5, overwrite=True).compute()
    check(raw, form, 2.5)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_two_of_the_same(form: str, raw: Path, scheduler: str) -> None:
    """Both end well, whichever writes which region."""
    with dask.config.set(scheduler=scheduler):
        assert len(set(dask.compute(lazy(raw, form), lazy(raw, form)))) == 1
    check(raw, form)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_two_of_different_content(
    form: str, raw: Path, scheduler: str, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fails, unless it may replace the other; no pixel of the other is in it, and either can be written afterwards."""
    monkeypatch.setattr(lease, "IDLE", 0.5)
    both = lazy(raw, form, overwrite=overwrite), lazy(raw, form, 2.5, overwrite=overwrite)
    expected = contextlib.suppress(LazyCCDError) if overwrite else pytest.raises(LazyCCDError)
    with dask.config.set(scheduler=scheduler), expected:
        dask.compute(*both)
        values = lazyccd.as_frame(raw.parent / f"a.{form}")["data"].values
        assert any(np.array_equal(values, frame(raw, gain)["data"].values) for gain in (1.5, 2.5))
    lazy(raw, form, 3.5, overwrite=True).compute()
    check(raw, form, 3.5)


def test_one_whose_tasks_run_is_not_disturbed(form: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease is touched while a task runs; another content waits for it and is refused."""
    monkeypatch.setattr(lease, "_heart", lease._Heart())  # one whose thread does not sleep for a beat of before
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "IDLE", 0.6)
    monkeypatch.setattr(lease, "WATCH", 1.0)
    original, entered, go = FORMS[form].write, threading.Event(), threading.Event()

    def slow(target: Any, region: Any, arrays: Any) -> Any:
        entered.set()
        assert go.wait(60)
        return original(target, region, arrays)

    monkeypatch.setattr(FORMS[form], "write", slow)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(lazy(raw, form).compute)
        assert entered.wait(60)
        with pytest.raises(TargetBusyError, match=r"by a lazy write that process .* began, of which tasks run"):
            getattr(lazyccd, f"to_{form}")(frame(raw, 2.5), raw.parent / f"a.{form}", overwrite=True)
        go.set()
        running.result(timeout=60)
    check(raw, form)


def test_tasks_that_come_and_go_share_one_thread(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks of a lazy write run one after another, one thread touches the lease, and it ends after the last."""
    monkeypatch.setattr(lease, "BEAT", 0.2)
    journal = journal_of(str(raw.parent / "a.fits"))
    lease.take_lease(journal, "run", "a.fits", break_lock=False, lazy=True)

    def beating() -> int:
        return sum(thread.name == "lazyccd-leases" for thread in threading.enumerate())

    deadline = time.monotonic() + 10
    while beating() and time.monotonic() < deadline:  # of other tests
        time.sleep(0.05)
    for _ in range(20):
        with lease.working(journal, "run"):
            time.sleep(0.02)
    assert beating() == 1
    while beating() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert beating() == 0


def test_one_of_two_takes_what_was_given_up(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs find that a third one died while it gave the product its name; one of them goes on with that."""
    journal = journal_of(str(raw.parent / "a.fits"))
    assert lease.claim(journal, "complete", "dead")
    remove, found = LocalJournal.remove, []

    def late(self: LocalJournal, names: Iterable[str]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(LocalJournal, "remove", remove)
            found.append(lease.claim(journal, "complete", "second"))
        remove(self, names)

    with lease.working(journal, "first"), lease.working(journal, "second"):
        monkeypatch.setattr(LocalJournal, "remove", late)
        found.append(lease.claim(journal, "complete", "first"))
    assert found == [False, True]


def test_shards_that_went_are_missed(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write completes only what is there; the same call writes the rest."""
    original = ZarrGroup.write

    def removing(target: Any, region: Any, arrays: Any) -> Any:
        receipt = original(target, region, arrays)
        if region.y0 == region.x0 == 20:
            (raw.parent / "a.zarr.part" / next(iter(receipt))).unlink()
        return receipt

    with monkeypatch.context() as patch:
        patch.setattr(ZarrGroup, "write", removing)
        with pytest.raises(WriteError, match="11 regions are written and there are 12; call again"):
            lazy(raw, "zarr").compute()
    lazy(raw, "zarr").compute()
    check(raw, "zarr")


def test_on_a_cluster(form: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was cancelled goes on by the same call, and one that another client made does too."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.run(_slow_down, form)
        future = client.compute(lazy(raw, form))
        while not list(raw.parent.glob(f".lazyccd-progress/a.{form}/receipts-*")):
            time.sleep(0.02)
        client.cancel(future)
        client.compute([lazy(raw, form), lazy(raw, form)], sync=True)
    check(raw, form)


def _slow_down(form: str) -> None:
    """Let every region take a while, in a worker."""
    original = FORMS[form].write

    def slow(target: Any, region: Any, arrays: Any) -> Any:
        time.sleep(0.1)
        return original(target, region, arrays)

    FORMS[form].write = slow  # type: ignore[method-assign]


def test_a_worker_that_does_not_see_the_folder_says_so(raw: Path, form: str) -> None:
    """It names itself and the folder; here the folder goes before the tasks run."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        out = raw.parent / "out"
        out.mkdir()
        written = getattr(lazyccd, f"to_{form}")(frame(raw), out / "a", compute=False)
        out.rmdir()
        with pytest.raises(LazyCCDError, match=rf"the folder {out} does not exist for the worker inproc://.* on "):
            written.compute()
