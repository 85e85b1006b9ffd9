"""What goes wrong around a write: a clear message, nothing half-written under a final name, and the same call goes on."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from astropy import units as u
from astropy.io import fits

import lazyccd
from lazyccd.errors import FormatError, SourceChangedError, TargetBusyError, WriteError
from lazyccd.io.resumable.journal import PROGRESS
from lazyccd.io.resumable.write import TrackedWrite
from lazyccd.sections import Region

FORMS = ("fits", "zarr")
SIDE = 512


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a raw file in a folder of its own."""
    path = tmp_path / "in" / "raw.fits"
    path.parent.mkdir()
    fits.writeto(path, np.random.default_rng(1).normal(1000, 100, (SIDE, SIDE)).astype(np.float32))
    return path


def frame(raw: Path) -> xr.Dataset:
    """Return a frame of sixteen chunks with all variables."""
    ds = lazyccd.open_fits(raw, chunks=(128, 128), unit="adu")
    out: xr.Dataset = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 3 * u.electron)
    return out


def write(ds: xr.Dataset, form: str, folder: Path, **more: Any) -> str:
    """Write a frame to the product of the tests."""
    return str(getattr(lazyccd, f"to_{form}")(ds, folder / f"a.{form}", **more))


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory; only who may mount can run the test."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk(form: str, raw: Path, tmp_path: Path) -> None:
    """The message says so; what was done is kept beside the name, and the same call completes it when there is room."""
    with mounted(tmp_path / "small", "size=1500k") as folder:
        with (
            dask.config.set(scheduler="sync"),
            pytest.raises(WriteError, match=r"cannot be written: No space left") as error,
        ):
            write(frame(raw), form, folder)
        assert not (folder / f"a.{form}").exists()
        if form == "zarr":  # the space of a FITS file is taken before the first pixel is computed
            assert "the same call resumes the write" in error.value.__notes__[-1]
        else:
            assert list(folder.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)
        write(frame(raw), form, folder)
        assert [path.name for path in folder.iterdir()] == [f"a.{form}"]
        np.testing.assert_array_equal(lazyccd.as_frame(f"{folder}/a.{form}")["data"], frame(raw)["data"])


@pytest.mark.parametrize("form", FORMS)
def test_an_output_that_cannot_be_written(form: str, raw: Path, tmp_path: Path) -> None:
    """The message names the place and the way out."""
    with (
        mounted(tmp_path / "small", "size=9m,ro") as folder,
        pytest.raises(WriteError, match=r"Read-only file system; .*check the path and its permissions"),
    ):
        write(frame(raw), form, folder)


def disturb(path: Path, how: str) -> None:
    """Take an input away, cut it, or put another in its place."""
    content = path.read_bytes()
    path.unlink()
    if how != "removed":
        path.write_bytes(content[: len(content) // 2880 // 2 * 2880] if how == "cut" else content[::-1])


@pytest.mark.parametrize("how", ["removed", "cut", "changed"])
@pytest.mark.parametrize("form", FORMS)
def test_an_input_that_changes_during_the_run(
    form: str, how: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and nothing of the product is left: it could not be completed."""
    original = TrackedWrite.write

    def write_then_disturb(sink: TrackedWrite, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        receipt = original(sink, region, arrays)
        if raw.exists() and not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            disturb(raw, how)
        return receipt

    monkeypatch.setattr(TrackedWrite, "write", write_then_disturb)
    ds = frame(raw)
    with dask.config.set(scheduler="sync"), pytest.raises((SourceChangedError, FileNotFoundError), match=r"raw\.fits"):
        write(ds, form, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"in", "done", *({PROGRESS, f"a.{form}.part"} if how == "removed" else ())}


def test_damaged_bytes_anywhere_in_a_shard_are_found(raw: Path, tmp_path: Path) -> None:
    """A bit that flips in the pixels of a shard is found by its checksum: by us with its name, and by zarr alone."""
    store = write(frame(raw), "zarr", tmp_path, shards=(256, 256))
    path = Path(store) / "0" / "data" / "c" / "1" / "0"
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(content), 25):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"a\.zarr/0/data/c/1/0: .* damaged"):
            lazyccd.open_zarr(store)["data"].load()
        with pytest.raises(Exception, match=r"(?i)checksum|crc"):
            zarr.open_group(store, mode="r")["0/data"][...]
    path.write_bytes(content)
    np.testing.assert_array_equal(lazyccd.open_zarr(store)["data"], frame(raw)["data"])


RUNNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_faults import frame, write
from lazyccd.io.resumable.write import TrackedWrite
if TrackedWrite.write.__name__ != "slow":  # a preloaded module is loaded twice
    original = TrackedWrite.write
    def slow(sink, region, arrays):
        time.sleep(0.1)
        return original(sink, region, arrays)
    TrackedWrite.write = slow
print(write(frame(Path(sys.argv[2])), sys.argv[3], Path(sys.argv[4])))
"""


def runner(raw: Path, form: str, folder: Path) -> subprocess.Popen[str]:
    """Return another process that writes the same product, slowly, when it has begun."""
    command = [sys.executable, "-c", RUNNER, str(Path(__file__).parent), str(raw), form, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((folder / PROGRESS).glob("*/receipts-*")):
        assert process.poll() is None, "the other run ended before it wrote anything"
        assert time.monotonic() < deadline, "the other run did not begin"
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("form", FORMS)
def test_two_runs_into_one_output(form: str, raw: Path, tmp_path: Path) -> None:
    """The second is refused and does no harm; when the first is stopped, the same call goes on."""
    process = runner(raw, form, tmp_path)
    with pytest.raises(TargetBusyError, match=f"is being written by process {process.pid}"):
        write(frame(raw), form, tmp_path)
    with pytest.raises(TargetBusyError):
        write(frame(raw), form, tmp_path, overwrite=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    write(frame(raw), form, tmp_path)
    np.testing.assert_array_equal(lazyccd.as_frame(f"{tmp_path}/a.{form}")["data"], frame(raw)["data"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{form}", "in"]


SCHEDULER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from distributed import Client
from test_faults import frame, write
if __name__ == "__main__":
    with Client(sys.argv[5], timeout=60):
        write(frame(Path(sys.argv[2])), sys.argv[3], Path(sys.argv[4]))
"""


def start_cluster(folder: Path, log: IO[str]) -> tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start a scheduler and a slow worker; return the address and both."""
    port = str(20000 + os.getpid() % 20000)
    address = f"tcp://127.0.0.1:{port}"
    preload = folder / "slow.py"
    preload.write_text(
        RUNNER.split("print(")[0]
        .replace("sys.path.insert(0, sys.argv[1])\n", "")
        .replace("from test_faults import frame, write\n", "")
    )
    options: dict[str, Any] = {"stdout": log, "stderr": log, "cwd": folder}
    distributed = [sys.executable, "-m", "distributed.cli"]
    head = subprocess.Popen(
        [*distributed[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"],
        **options,
    )
    worker = subprocess.Popen(
        [
            *distributed[:2],
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--preload",
            preload,
        ],
        **options,
    )
    return address, head, worker


def test_a_cluster_that_is_lost(raw: Path, tmp_path: Path) -> None:
    """The driver ends with an error when scheduler and workers die; threads complete what the cluster began."""
    log = (tmp_path / "log").open("w")
    address, head, worker = start_cluster(tmp_path, log)
    command = [sys.executable, "-c", SCHEDULER, str(Path(__file__).parent), str(raw), "zarr", str(tmp_path), address]
    driver = subprocess.Popen(command, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / PROGRESS).glob("*/receipts-*")):
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.01)
        for process in (worker, head):
            process.kill()
        driver.wait(timeout=120)
    finally:
        for process in (worker, head, driver):
            process.kill()
            process.wait()
        log.close()
    assert driver.returncode == 1
    assert "Error: " in (tmp_path / "log").read_text()
    assert not (tmp_path / "a.zarr").exists()
    write(frame(raw), "zarr", tmp_path)
    np.testing.assert_array_equal(lazyccd.open_zarr(tmp_path / "a.zarr")["data"], frame(raw)["data"])
    assert not (tmp_path / PROGRESS).exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """Return what unpickling calls."""
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["data", "x"])
@pytest.mark.parametrize("dtype", ["<f4", "|O"])
def test_nothing_read_from_a_store_is_executed(tmp_path: Path, name: str, dtype: str) -> None:
    """A store whose chunks are pickles, which Zarr v2 can have, is refused and not unpickled."""
    store = tmp_path / "evil.zarr"
    shape = [4, 4] if name == "data" else [4]
    (store / "0" / name).mkdir(parents=True)
    for folder in (store, store / "0"):
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
    document = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": dtype, "compressor": None, "fill_value": 0}
    document |= {"order": "C", "filters": [{"id": "pickle", "protocol": 5}]}
    (store / "0" / name / ".zarray").write_text(json.dumps(document))
    payload = pickle.dumps(Touch(str(tmp_path / "executed")))
    (store / "0" / name / ".".join("0" * len(shape))).write_bytes(payload)
    with pytest.raises(FormatError, match=r"evil\.zarr"):
        lazyccd.open_zarr(store)["data"].load()
    assert not (tmp_path / "executed").exists()


def test_names_from_headers_stay_in_the_folder(tmp_path: Path) -> None:
    """Filters and objects that look like paths do not lead out of the folder of the products."""
    from lazyccd.batch.collect import collect
    from lazyccd.batch.make_plan import build_plan
    from lazyccd.batch.options import Options
    from lazyccd.batch.run import Run
    from lazyccd.testing import Detector, Sky, make_night

    night = make_night(tmp_path / "night", Detector((96, 80)), Sky(stars=5), biases=3, darks=3, flats=3, lights=1)
    for path in Path(night.folder).rglob("*.fits"):
        with fits.open(path, mode="update") as hdus:
            for key, value in (("FILTER", "../../../evil/r"), ("OBJECT", "/../../evil")):
                if key in hdus[0].header:
                    hdus[0].header[key] = value
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "deep" / "er" / "out"
    run = Run(build_plan(collect(night.folder), Options(cosmic_rays="none")), out)
    run()
    assert run.exit_status == 0, [(o.name, o.reason) for o in run.outcomes]
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert made
    assert all(out in path.parents for path in made), sorted(map(str, made))
