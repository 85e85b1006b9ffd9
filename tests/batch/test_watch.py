"""Folders that are watched: which files are complete, and when they are taken; clocks, growing and half-written files."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.batch.watch import Arrivals, needs_polling, watch, what_is_missing
from lazyccd.errors import ParameterError

QUIET = 0.15
"""Seconds in place of the three of the command."""


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """Return the bytes of a file of one image."""
    path = tmp_path / "content"
    fits.PrimaryHDU(np.arange(6000, dtype="f4").reshape(60, 100)).writeto(path)
    return path.read_bytes()


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "night"
    folder.mkdir()
    return folder


def follow(night: Path, act: Callable[[], object], wanted: int) -> tuple[list[dict[str, int]], list[str]]:
    """Watch a folder while something acts on it, until so many files are taken; return the sizes at each call, and what was told."""
    stop, calls, told = threading.Event(), [], []

    def take(files: list[str]) -> None:
        calls.append({Path(file).name: os.stat(file).st_size for file in files})
        if len(files) >= wanted:
            stop.set()

    def run() -> None:
        watch([str(night)], take, quiet=QUIET, interval=0.02, stop=stop, tell=told.append)

    thread = threading.Thread(target=run)
    thread.start()
    act()
    thread.join(20)
    ended = not thread.is_alive()
    stop.set()
    thread.join()
    assert ended, f"only {calls} were taken; {told}"
    return calls, told


def test_a_growing_file_is_taken_when_it_is_whole(night: Path, content: bytes) -> None:
    """A file that grows, with pauses shorter than the quiet time and one longer, is taken once, in full."""

    def grow() -> None:
        with (night / "a.fits").open("wb") as file:
            for first in range(0, len(content), 5000):
                file.write(content[first : first + 5000])
                file.flush()
                time.sleep(3 * QUIET if first == 10000 else QUIET / 3)

    calls, told = follow(night, grow, 1)
    assert calls == [{"a.fits": len(content)}]
    assert len(told) == 1
    assert "a.fits[0] is truncated" in told[0]


def test_half_a_frame_is_never_taken(night: Path, content: bytes) -> None:
    """Half of a file, a compressed one that breaks off, and text are named once with the reason; two whole ones are taken."""
    packed = gzip.compress(content)
    (night / "half.fits").write_bytes(content[:9000])
    (night / "half.fits.gz").write_bytes(packed[:-100])
    (night / "text.fits").write_text("no frame")
    (night / "notes.txt").write_text("seeing 1.2")

    def arrive() -> None:
        time.sleep(2 * QUIET)
        for name, data in (("a.fits", content), ("b.fits.gz", packed)):
            (night / name).write_bytes(data)

    calls, told = follow(night, arrive, 2)
    assert list(calls[-1]) == ["a.fits", "b.fits.gz"]
    assert [next(n for n in ("half.fits.gz", "half.fits", "text.fits") if n in text) for text in told] == [
        "half.fits",
        "half.fits.gz",
        "text.fits",
    ]


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_clocks_that_jump(night: Path, content: bytes, jump: float) -> None:
    """Times in the past or the future change nothing, and a file that is written anew is taken again, with an older time too."""
    path = night / "a.fits"
    path.write_bytes(content)
    os.utime(path, (time.time() + jump,) * 2)
    arrivals = Arrivals([str(night)], quiet=0)
    arrivals.look()
    first = arrivals.complete
    assert [Path(name).name for name in first] == ["a.fits"]
    path.write_bytes(content)
    os.utime(path, (time.time() + jump - 60,) * 2)
    arrivals.look()
    assert arrivals.complete.keys() == first.keys()
    assert arrivals.complete != first


def test_quiet_time_is_that_of_this_process(night: Path, content: bytes) -> None:
    """A whole file with an old time is not taken before it has been seen for the quiet time."""
    path = night / "a.fits"
    path.write_bytes(content)
    os.utime(path, (0, 0))
    arrivals = Arrivals([str(night)], quiet=60)
    arrivals.look()
    assert arrivals.settling
    assert not arrivals.complete


def test_extensions_that_are_announced(tmp_path: Path) -> None:
    """A file that ends after an extension is complete only if its header announces no more."""
    path = tmp_path / "a.fits"
    primary = fits.PrimaryHDU(header=fits.Header({"NEXTEND": 2}))
    fits.HDUList([primary, fits.ImageHDU(np.ones((4, 4), "f4"))]).writeto(path)
    assert "announces NEXTEND = 2" in what_is_missing(str(path))
    with fits.open(path, "append") as file:
        file.append(fits.ImageHDU(np.ones((4, 4), "f4")))
    assert what_is_missing(str(path)) == ""


def test_products_and_subfolders_are_left_out(night: Path, content: bytes) -> None:
    """Files of the products' folder inside of the night never count, those of other subfolders if they were asked for."""
    for folder in (night / "out" / "masters", night / "flats"):
        folder.mkdir(parents=True)
        (folder / "a.fits").write_bytes(content)
    for recursive, expected in ((True, [str(night / "flats" / "a.fits")]), (False, [])):
        arrivals = Arrivals([str(night)], recursive=recursive, quiet=0, leave_out=night / "out")
        arrivals.look()
        assert list(arrivals.complete) == expected


def test_only_folders_are_watched(night: Path) -> None:
    """What is no folder is named; a folder on a local file system needs no polling."""
    with pytest.raises(ParameterError, match="nowhere is no folder"):
        watch([str(night / "nowhere")], lambda _: None)
    assert not needs_polling("/dev/shm")
