"""Writes that were interrupted go on where they stopped, and only if nothing changed; nobody writes beside them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits

import lazyccd
from lazyccd.errors import MemoryLimitError, ParameterError, ResumeError, TargetBusyError, TargetExistsError, WriteError
from lazyccd.io.fits.writer import FitsFrame, FitsProduct
from lazyccd.io.resumable import lease
from lazyccd.io.resumable.journal import PROGRESS, LocalJournal, RemoteJournal, journal_of
from lazyccd.io.resumable.lease import Holder, process_start, this_process
from lazyccd.io.resumable.progress import Progress
from lazyccd.io.resumable.write import TrackedWrite
from lazyccd.io.zarr import location
from lazyccd.io.zarr.writer import ZarrGroup, ZarrProduct
from lazyccd.sections import Region

SHAPE = (60, 80)
FORMS = {"fits": FitsFrame, "zarr": ZarrGroup}
PRODUCTS = {"fits": FitsProduct, "zarr": ZarrProduct}


class Stopped(Exception):  # noqa: N818
    """Stands for whatever stops a run."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a raw file in a folder of its own."""
    path = tmp_path / "in" / "raw.fits"
    path.parent.mkdir()
    fits.writeto(path, np.random.default_rng(1).integers(0, 9000, SHAPE).astype(np.uint16))
    return path


def frame(raw: Path, gain: float = 1.5) -> xr.Dataset:
    """Return a frame of twelve chunks with all variables."""
    ds = lazyccd.open_fits(raw, chunks=(20, 20))
    ds = lazyccd.flag_saturated(lazyccd.create_deviation(ds, gain * u.electron / u.adu, 3 * u.electron), 8000)
    out: xr.Dataset = lazyccd.gain_correct(ds, gain * u.electron / u.adu)
    return out


def write(ds: xr.Dataset, form: str, folder: Path | str, **more: Any) -> str:
    """Write a frame to the product of the tests."""
    return str(getattr(lazyccd, f"to_{form}")(ds, f"{folder}/a.{form}", **more))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Stop:
    """Lets so many regions be written and stops the run; counts those that are written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        self.left = 10**9
        self.written: list[Region] = []
        original = FORMS[form].write

        def limited(target: Any, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
            if self.left == 0:
                raise Stopped
            self.left -= 1
            self.written.append(region)
            return original(target, region, arrays)

        monkeypatch.setattr(FORMS[form], "write", limited)

    def after(self, count: int, ds: xr.Dataset, form: str, folder: Path | str, **more: Any) -> set[Region]:
        """Begin a write that is interrupted; return what it wrote."""
        self.left = count
        with dask.config.set(scheduler="sync"), pytest.raises(Stopped) as error:
            write(ds, form, folder, **more)
        assert f"{count} of " in error.value.__notes__[-1]
        self.left = 10**9
        done = set(self.written)
        self.written.clear()
        return done


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Return fits or zarr."""
    return str(request.param)


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch, form: str) -> Stop:
    """Return what interrupts writes."""
    return Stop(monkeypatch, form)


def test_the_same_call_goes_on(form: str, raw: Path, tmp_path: Path, stop: Stop) -> None:
    """No region is written twice, the bytes are those of an undisturbed write, and nothing else is left."""
    write(frame(raw), form, raw.parent)
    undisturbed = contents(raw.parent)
    regions = set(stop.written)
    out = tmp_path / "out"
    out.mkdir()
    stop.written.clear()
    first = stop.after(1, frame(raw), form, out)
    assert sorted(p.name for p in out.iterdir()) == [PROGRESS, f"a.{form}.part"]
    write(frame(raw), form, out)
    assert set(stop.written) == regions - first
    undisturbed.pop("raw.fits")
    assert contents(out) == undisturbed
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        write(frame(raw), form, out)


def test_what_changed_in_a_stack_is_said(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings and inputs are named as those of other frames, and no input is written over."""
    stop = Stop(monkeypatch, "zarr")
    other = tmp_path / "in" / "other.fits"
    other.write_bytes(raw.read_bytes())

    def stack(**more: Any) -> xr.Dataset:
        return lazyccd.combine([frame(raw), frame(other)], **more)

    stop.after(1, stack(), "zarr", tmp_path, shards=(20, 20))
    with pytest.raises(ResumeError, match="rule method is 'median' and was 'average'; the header is 'HISTORY"):
        write(stack(method="median"), "zarr", tmp_path, shards=(20, 20))
    os.utime(other, ns=(1, 1))
    with pytest.raises(ResumeError, match=r"the file .*other\.fits\[0\] has changed"):
        write(stack(), "zarr", tmp_path, shards=(20, 20))
    with pytest.raises(ParameterError, match=r"is made from .*other\.fits, which cannot be written at the same time"):
        lazyccd.to_fits(stack(), other, overwrite=True)


def test_what_changed_is_said(form: str, raw: Path, stop: Stop) -> None:
    """Another setting, another input, other chunks: refused by name, until overwriting is allowed."""
    folder = raw.parent
    stop.after(1, frame(raw), form, folder)
    with pytest.raises(
        ResumeError, match=r"and now create_deviation: gain is '1\.6 .* and was '1\.5 [^;]*; gain_correct: "
    ):
        write(frame(raw, 1.6), form, folder)
    with pytest.raises(ResumeError, match="and now the operation median_filter is new; "):
        write(lazyccd.median_filter(frame(raw), 3), form, folder)
    os.utime(raw, ns=(1, 1))
    with pytest.raises(ResumeError, match=r"the file .*raw\.fits\[0\] has changed"):
        write(frame(raw), form, folder)
    write(frame(raw, 1.6), form, folder, overwrite=True)
    assert lazyccd.as_frame(f"{folder}/a.{form}")["data"].values[5, 5] == np.float32(fits.getdata(raw)[5, 5] * 1.6)
    assert sorted(p.name for p in folder.iterdir()) == [f"a.{form}", "raw.fits"]


def test_an_overwrite_goes_on_too(form: str, raw: Path, stop: Stop) -> None:
    """An older product stays until the new one is complete."""
    folder = raw.parent
    write(frame(raw, 1.0), form, folder)
    stop.after(2, frame(raw), form, folder, overwrite=True)
    old = lazyccd.as_frame(f"{folder}/a.{form}")["data"].values
    np.testing.assert_array_equal(old, fits.getdata(raw).astype(np.float32))
    write(frame(raw), form, folder, overwrite=True)
    assert len(stop.written) == 10
    np.testing.assert_array_equal(lazyccd.as_frame(f"{folder}/a.{form}")["data"], frame(raw)["data"])


@pytest.mark.parametrize("damage", ["none", "size", "content"])
def test_what_is_written_is_checked(form: str, raw: Path, stop: Stop, damage: str) -> None:
    """Shards of another size are written anew; others bytes are found with ``verify=True``."""
    if form == "fits" and damage == "size":
        return  # the file has its size from the start
    folder = raw.parent
    region = min(stop.after(2, frame(raw), form, folder))
    part = folder / f"a.{form}.part"
    path = part if form == "fits" else part / f"0/data/c/{region.y0 // 20}/{region.x0 // 20}"
    content = bytearray(path.read_bytes())
    if damage == "content":
        at = 2880 + 4 * (80 * region.y0 + 30) if form == "fits" else len(content) // 3
        content[at] ^= 0xFF
    path.write_bytes(content[:-1] if damage == "size" else content)
    write(frame(raw), form, folder, verify=damage == "content")
    np.testing.assert_array_equal(lazyccd.as_frame(f"{folder}/a.{form}")["data"], frame(raw)["data"])
    assert len(stop.written) == 10 + (damage != "none")


def test_a_shard_without_receipt_goes(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed between shard and receipt leaves a shard that nobody vouches for."""
    stop = Stop(monkeypatch, "zarr")
    stop.after(1, frame(raw), "zarr", raw.parent)
    stray = raw.parent / "a.zarr.part" / "0" / "mask" / "c" / "2" / "3"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"torn")
    notes = raw.parent / PROGRESS / "a.zarr"
    (notes / "receipts-other.jsonl").write_text('[[0,20,20,40],{"0/data/c/0/1":[123,')
    write(frame(raw), "zarr", raw.parent)
    np.testing.assert_array_equal(lazyccd.open_zarr(raw.parent / "a.zarr")["mask"], frame(raw)["mask"])
    assert len(stop.written) == 11


def test_a_second_run_is_refused(form: str, raw: Path, stop: Stop) -> None:
    """While the process of the first lives; on another machine nobody can tell, so it must be said."""
    folder = raw.parent
    stop.after(1, frame(raw), form, folder)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        start = process_start(other.pid)
        assert start is not None
        entry = folder / PROGRESS / f"a.{form}" / "lease-000000"
        entry.write_text(json.dumps(this_process("x")._replace(pid=other.pid, start=start)._asdict()))
        with pytest.raises(TargetBusyError, match=f"process {other.pid} on"):
            write(frame(raw), form, folder)
        entry.write_text(json.dumps(this_process("x")._replace(pid=other.pid, start=1.0)._asdict()))
        stop.left = 1  # another process has its number now
        with pytest.raises(Stopped), dask.config.set(scheduler="sync"):
            write(frame(raw), form, folder)
    finally:
        other.kill()
        other.communicate()
    entry.write_text(json.dumps(Holder("elsewhere", "", "", 1, 1.0, "x")._asdict()))
    with pytest.raises(TargetBusyError, match=r"process 1 on elsewhere.*break_lock=True"):
        write(frame(raw), form, folder)
    stop.left = 99
    write(frame(raw), form, folder, break_lock=True)
    assert not (folder / PROGRESS).exists()


@pytest.mark.parametrize("other", [{"namespace": "pid:[1]"}, {"boot": "another"}])
def test_a_holder_in_a_container_is_known_by_its_touch(
    other: dict[str, str], form: str, raw: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where numbers of processes tell nothing, one that lives touches its lease, and one that does not is dead."""
    folder = raw.parent
    stop.after(1, frame(raw), form, folder)
    monkeypatch.setattr(lease, "WATCH", 1.5)
    monkeypatch.setattr(lease, "BEAT", 0.2)
    journal = journal_of(str(folder / f"a.{form}"))
    holder = this_process("x")._replace(**other)
    assert journal.create("lease-000007", json.dumps(holder._asdict()).encode())
    beating = lease._Heart()
    beating.add(journal, "lease-000007")
    with pytest.raises(TargetBusyError, match=rf"process {holder.pid} on .*wait for it"):
        write(frame(raw), form, folder)
    beating._leases.clear()  # it dies
    time.sleep(0.5)
    write(frame(raw), form, folder)
    assert not (folder / PROGRESS).exists()


def test_a_name_taken_meanwhile_is_not_replaced(
    form: str, raw: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What got the name while a product was written stays, and nothing that was written is lost."""
    target = raw.parent / f"a.{form}"
    original = FORMS[form].write

    def disturbed(self: Any, region: Region, arrays: Any) -> Any:
        if form == "zarr":
            target.mkdir(exist_ok=True)
        (target / "zarr.json" if form == "zarr" else target).write_text("theirs")
        return original(self, region, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(FORMS[form], "write", disturbed)
        with pytest.raises(TargetExistsError, match=r"exists and did not when the write began; pass overwrite=True"):
            write(frame(raw), form, raw.parent)
    assert (target / "zarr.json" if form == "zarr" else target).read_text() == "theirs"
    stop.written.clear()
    write(frame(raw), form, raw.parent, overwrite=True)
    assert not stop.written
    assert sorted(path.name for path in raw.parent.iterdir()) == [f"a.{form}", "raw.fits"]


def test_what_others_made_is_left(form: str, raw: Path) -> None:
    """An unfinished product that no write began, and names of devices and links."""
    folder = raw.parent
    part = folder / f"a.{form}.part"
    if form == "zarr":
        part.mkdir()
    (part / "zarr.json" if form == "zarr" else part).write_text("theirs")
    with pytest.raises(TargetExistsError, match="part"):
        write(frame(raw), form, folder)
    assert (part / "zarr.json" if form == "zarr" else part).read_text() == "theirs"
    os.mkfifo(folder / f"pipe.{form}")
    (folder / f"link.{form}").symlink_to(folder / "elsewhere")
    to = getattr(lazyccd, f"to_{form}")
    with pytest.raises(TargetExistsError, match="is a device, a pipe or a socket"):
        to(frame(raw), folder / f"pipe.{form}", overwrite=True)
    with pytest.raises(TargetExistsError, match=r"is a link to .*elsewhere"):
        to(frame(raw), folder / f"link.{form}", overwrite=True)


def test_a_store_that_holds_the_source_is_not_replaced(tmp_path: Path) -> None:
    """Removing the folder would remove the file."""
    inside = tmp_path / "a.zarr" / "raw.fits"
    inside.parent.mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    fits.writeto(inside, np.ones((4, 4), np.float32))
    with pytest.raises(ParameterError, match=r"is made from .*raw\.fits, which would be replaced with .*a\.zarr"):
        lazyccd.to_zarr(lazyccd.open_fits(inside), tmp_path / "a.zarr", overwrite=True)
    assert inside.exists()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_killed_overwrite_leaves_the_old_or_the_new_store(
    at_once: bool, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names can be exchanged, both are there at any time; elsewhere the next write brings the old one back."""
    folder = raw.parent
    write(frame(raw), "zarr", folder)
    old = contents(folder / "a.zarr")

    def die(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(location, "flush" if at_once else "exchange", die)
        # this process lives on and gives the lease back, but nothing is tidied
        patch.setattr("lazyccd.io.resumable.write.TrackedWrite.give_up", lambda self, _: self.progress.release())
        if not at_once:
            renames = iter([os.rename])
            patch.setattr(location, "exchange", lambda *_: False)
            patch.setattr(location.os, "rename", lambda *names: next(renames, die)(*names))
        with pytest.raises(Stopped):
            write(frame(raw, 2.5), "zarr", folder, overwrite=True)
    assert (folder / "a.zarr").exists() == at_once
    stop = Stop(monkeypatch, "zarr")
    stop.left = 0  # another write, which is interrupted at once
    with pytest.raises(Stopped), dask.config.set(scheduler="sync"):
        write(frame(raw, 3.5), "zarr", folder, overwrite=True)
    now = contents(folder / "a.zarr")
    assert now != old if at_once else now == old
    assert lazyccd.open_zarr(folder / "a.zarr").sizes == {"y": 60, "x": 80}
    stop.left = 99
    write(frame(raw, 3.5), "zarr", folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["a.zarr", "raw.fits"]


def test_a_dead_holder_is_noticed() -> None:
    """A process is known by its start, whatever its number; one that ended and waits for its parent is gone."""
    me = this_process()
    start = process_start(me.pid)
    assert start is not None
    assert abs(start - me.start) < 0.1
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        begun = process_start(other.pid)
        assert begun is not None
        assert begun > me.start
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody asked for its status: a zombie
        assert process_start(other.pid) is None
    finally:
        other.kill()
        other.communicate()
    assert process_start(other.pid) is None


def test_killed_before_the_last_notes_went(form: str, raw: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product has its name, and the same call finds that it is complete."""
    folder = raw.parent
    with monkeypatch.context() as patch:
        patch.setattr("lazyccd.io.resumable.progress.Progress.end", lambda self: None)
        write(frame(raw), form, folder)
    assert (folder / PROGRESS).exists()
    stop.written.clear()
    write(frame(raw), form, folder)
    assert not stop.written
    assert sorted(p.name for p in folder.iterdir()) == [f"a.{form}", "raw.fits"]


@pytest.mark.parametrize("left", [("complete", "lease-000000"), ("lease-000000",)])
def test_killed_while_the_last_notes_went(
    form: str, raw: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch, left: tuple[str, ...]
) -> None:
    """The product is complete, which the same call says; it removes what is left."""
    folder = raw.parent
    with monkeypatch.context() as patch:
        patch.setattr("lazyccd.io.resumable.progress.Progress.end", lambda self: None)
        write(frame(raw), form, folder)
    notes = folder / PROGRESS / f"a.{form}"
    for path in notes.iterdir():
        if path.name not in left:
            path.unlink()
    (notes / "lease-000000").write_text(json.dumps(this_process("x")._replace(start=1.0)._asdict()))
    with pytest.raises(TargetExistsError):
        write(frame(raw), form, folder)
    assert sorted(p.name for p in folder.iterdir()) == [f"a.{form}", "raw.fits"]


def test_a_lazy_write_goes_on(form: str, raw: Path, stop: Stop) -> None:
    """Tasks that find their region written leave it."""
    folder = raw.parent
    stop.after(3, frame(raw), form, folder)
    lazy: Any = getattr(lazyccd, f"to_{form}")(frame(raw), folder / f"a.{form}", compute=False)
    lazy.compute()
    assert len(stop.written) == 12 - 3
    np.testing.assert_array_equal(lazyccd.as_frame(f"{folder}/a.{form}")["data"], frame(raw)["data"])


def test_objects(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a URL, notes are objects; a store is one when its root metadata exists."""
    files = fsspec.filesystem("memory")
    stop = Stop(monkeypatch, "zarr")
    stop.after(5, frame(raw), "zarr", "memory://resume")
    assert not files.exists("/resume/a.zarr/zarr.json")
    with pytest.raises(ResumeError, match=r"gain is '1\.6 .* and was '1\.5 "):
        write(frame(raw, 1.6), "zarr", "memory://resume")
    write(frame(raw), "zarr", "memory://resume")
    assert len(stop.written) == 7
    np.testing.assert_array_equal(lazyccd.open_zarr("memory://resume/a.zarr")["data"], frame(raw)["data"])
    assert all(name.startswith("/resume/a.zarr/") for name in files.find("/resume"))
    files.rm("/resume", recursive=True)


@pytest.mark.parametrize("where", ["local", "memory://once"])
def test_receipts_are_read_once(where: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many units there are, a process reads of the notes only what is new."""
    monkeypatch.setattr("lazyccd.io.resumable.journal.SEGMENT", 5)
    read: list[int] = []
    cls = RemoteJournal if where != "local" else LocalJournal
    original = cls.read

    def counted(notes: Any, name: str, start: int = 0) -> bytes:
        content: bytes = original(notes, name, start)
        if "receipts" in name:
            read.append(len(content))
        return content

    monkeypatch.setattr(cls, "read", counted)
    written: list[int] = []
    append = cls.append
    monkeypatch.setattr(
        cls, "append", lambda notes, name, line: (written.append(len(line)), append(notes, name, line))[1]
    )
    folder = str(raw.parent) if where == "local" else where
    with dask.config.set(scheduler="sync"):
        write(frame(raw), "zarr", folder)
    assert len(written) == 12
    assert sum(read) == sum(written)


def test_errors_before_anything_is_done_leave_nothing(form: str, raw: Path, stop: Stop) -> None:
    """A missing folder, too little memory, an error in the first task."""
    with pytest.raises(OSError, match="does not exist"):
        write(frame(raw), form, raw.parent / "none")
    with dask.config.set({"lazyccd.memory-limit": "1MB"}), pytest.raises(MemoryLimitError):
        write(frame(raw), form, raw.parent)
    stop.left = 0
    with pytest.raises(Stopped):
        write(frame(raw), form, raw.parent)
    assert sorted(p.name for p in raw.parent.iterdir()) == ["raw.fits"]


def test_regions_that_are_missing_are_not_forgotten(form: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write completes only if every region has a receipt."""
    monkeypatch.setattr(TrackedWrite, "write", lambda self, region, arrays: ("0:0,1,0,1", {} if form == "zarr" else []))
    with pytest.raises(WriteError, match="1 regions are written and there are 12"):
        write(frame(raw), form, raw.parent)
    assert sorted(p.name for p in raw.parent.iterdir()) == ["raw.fits"]


def die_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the last task die the first time: after it noted that all is done, or before it removes its notes."""
    original = getattr(Progress, name)

    def die(progress: Progress) -> None:
        monkeypatch.setattr(Progress, name, original)
        if name == "mark_complete":
            original(progress)
        raise Stopped

    monkeypatch.setattr(Progress, name, die)


@pytest.mark.parametrize("more", [{"overwrite": True}, {"overwrite": True, "compute": False}, {"compute": False}])
@pytest.mark.parametrize("where", ["local", "memory://lost"])
@pytest.mark.parametrize("dies", [None, "mark_complete", "end"])
def test_a_write_survives_the_loss_of_its_results(
    dies: str | None,
    where: str,
    more: dict[str, bool],
    form: str,
    raw: Path,
    stop: Stop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All tasks are done again after the worker with their results died: in the last one, or after it. No byte changes."""
    if where != "local" and form == "fits":
        return
    folder = str(raw.parent) if where == "local" else where
    files, root = fsspec.url_to_fs(folder)
    write(frame(raw), form, folder)
    undisturbed = files.cat(files.find(f"{root}/a.{form}"))
    stop.written.clear()
    if "overwrite" not in more:
        files.rm(f"{root}/a.{form}", recursive=True)
    if dies is not None:
        die_once(monkeypatch, dies)

    def twice(tasks: Any, keys: Any, **_: Any) -> Any:
        with contextlib.nullcontext() if dies is None else pytest.raises(Stopped):
            dask.get(tasks, keys)
        return dask.get(tasks, keys)

    with dask.config.set(scheduler=twice):
        written = getattr(lazyccd, f"to_{form}")(frame(raw), f"{folder}/a.{form}", **more)
        assert (written if more.get("compute", True) else written.compute()) == f"{folder}/a.{form}"
    assert len(stop.written) == 12
    assert files.cat(files.find(f"{root}/a.{form}")) == undisturbed
    assert sorted(path.rpartition("/")[2] for path in files.ls(root, detail=False)) == [
        f"a.{form}",
        *["raw.fits"][: where == "local"],
    ]
    if where != "local":
        files.rm(root, recursive=True)


@pytest.mark.parametrize("more", [{}, {"compress": "RICE_1", "quantize": 4}])
def test_a_lazy_write_knows_its_product(form: str, raw: Path, stop: Stop, more: dict[str, Any]) -> None:
    """It takes none for its own that another write made, or that was there before; done again it finds its own."""
    if form == "zarr":
        more = {key: value for key, value in more.items() if key == "quantize"}
    to, name = getattr(lazyccd, f"to_{form}"), raw.parent / f"a.{form}"
    lazy = to(frame(raw), name, compute=False, **more)
    to(frame(raw, 1.6), name, **more)
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        lazy.compute()
    to(frame(raw), name, overwrite=True, **more)
    lazy = to(frame(raw), name, overwrite=True, compute=False, **more)
    for is_there in (False, True):  # what was there may be damaged; what came since is what this write made
        stop.written.clear()
        assert lazy.compute() == str(name)
        assert is_there == (not stop.written)
    assert sorted(p.name for p in raw.parent.iterdir()) == [name.name, "raw.fits"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lazy_write_survives_a_death_while_it_begins(
    form: str, raw: Path, overwrite: bool, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that had the lease died before or after it laid the product out; another begins anew."""
    name, product = raw.parent / f"a.{form}", PRODUCTS[form]
    if overwrite:
        write(frame(raw, 1.6), form, raw.parent)
    lazy = getattr(lazyccd, f"to_{form}")(frame(raw), name, overwrite=overwrite, compute=False)
    original = product.lay_out

    def die(self: Any) -> None:
        if when == "after":
            original(self)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(product, "lay_out", die)
        patch.setattr(LocalJournal, "end", lambda notes, last: None)  # the dead do not tidy up
        with pytest.raises(Stopped):
            lazy.compute()
    assert [path.name for path in (raw.parent / PROGRESS / f"a.{form}").glob("lease-*")]
    assert lazy.compute() == str(name)
    np.testing.assert_array_equal(lazyccd.as_frame(name)["data"], frame(raw)["data"])
    assert sorted(p.name for p in raw.parent.iterdir()) == [name.name, "raw.fits"]


def test_a_failure_behind_the_layout_blocks_no_name(form: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the record is written: the unfinished product goes, and the same call begins anew."""
    original = LocalJournal.create

    def full(journal: LocalJournal, name: str, content: bytes) -> bool:
        if name.startswith("run-"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(journal, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalJournal, "create", full)
        with pytest.raises(WriteError, match=r"cannot be written: No space left on device; free some space"):
            write(frame(raw), form, raw.parent)
    assert [path.name for path in raw.parent.iterdir()] == ["raw.fits"]
    write(frame(raw), form, raw.parent)
    assert sorted(path.name for path in raw.parent.iterdir()) == [f"a.{form}", "raw.fits"]


def test_folders_that_a_death_at_the_very_end_leaves(form: str, raw: Path) -> None:
    """The same call finds the product complete, and removes the empty folders."""
    write(frame(raw), form, raw.parent)
    (raw.parent / PROGRESS / f"a.{form}").mkdir(parents=True)
    with pytest.raises(TargetExistsError):
        write(frame(raw), form, raw.parent)
    assert sorted(path.name for path in raw.parent.iterdir()) == [f"a.{form}", "raw.fits"]


def test_a_run_that_begins_meanwhile_keeps_its_lease(
    form: str, raw: Path, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes into a journal after a write found it empty is of another run, and stays."""
    write(frame(raw), form, raw.parent)
    stop.written.clear()
    notes = raw.parent / PROGRESS / f"a.{form}"
    notes.mkdir(parents=True)
    lease_of = notes / "lease-000007"
    lease_of.write_text(json.dumps(this_process("x")._asdict()))
    original, before = LocalJournal.sizes, iter([True] * 3)
    monkeypatch.setattr(LocalJournal, "sizes", lambda journal: {} if next(before, False) else original(journal))
    with pytest.raises(TargetBusyError):
        write(frame(raw), form, raw.parent, overwrite=True)
    assert lease_of.exists()
    assert not stop.written


def test_a_level_whose_journal_was_left(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyramid that is built again tidies what a process left that died after a level had its name."""
    write(frame(raw), "zarr", raw.parent)
    with monkeypatch.context() as patch:
        patch.setattr("lazyccd.io.resumable.progress.Progress.end", lambda self: None)
        lazyccd.build_pyramid(raw.parent / "a.zarr", 2)
    lease_of = next((raw.parent / "a.zarr" / PROGRESS / "1").glob("lease-*"))
    lease_of.write_text(json.dumps(this_process("x")._replace(start=1.0)._asdict()))
    (raw.parent / "a.zarr" / "zarr.json.part").write_text("{")
    assert lazyccd.build_pyramid(raw.parent / "a.zarr", 2) == 2
    assert sorted(path.name for path in (raw.parent / "a.zarr").iterdir()) == ["0", "1", "zarr.json"]
