"""Stacks and nights of any size under a low limit of open files, and copies of compressed files that keep to a budget."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from astropy.io import fits

from lazyccd.errors import FormatError, SourceChangedError
from lazyccd.io.descriptors import DescriptorPool, open_for_reading, pool
from lazyccd.io.fits.byte_source import open_source
from lazyccd.io.fits.unpacked import UnpackedCopies

LIMIT = 128
"""Half of what macOS allows a process."""

FRAMES = 150


def under_limit(code: str, *arguments: Path | str) -> str:
    """Run code in a process that may have few files open; return what it printed."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))\n{code}"
    command = [sys.executable, "-W", "error", "-c", limited, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of many frames of known mean, with uncertainty and mask."""
    folder = tmp_path_factory.mktemp("frames")
    mask = np.zeros((24, 20), np.uint8)
    mask[3, 4] = 1
    for i in range(FRAMES):
        data = np.full(mask.shape, 100 + i % 3, np.float32)
        data[3, 4] = 1e6
        header = fits.Header({"BUNIT": "adu", "EXPTIME": 1.0})
        hdus = [fits.PrimaryHDU(data, header), fits.ImageHDU(np.full(mask.shape, 2, np.float32), name="UNCERT")]
        hdus.append(fits.ImageHDU(mask * np.uint8(i % 2), name="MASK"))
        fits.HDUList(hdus).writeto(folder / f"f{i:03d}.fits")
    return folder


COMBINE = """
import sys, glob, dask, numpy as np, lazyccd
from lazyccd.io.descriptors import pool
names = sorted(glob.glob(sys.argv[1]))
with dask.config.set(scheduler="threads", num_workers=16):
    out = lazyccd.combine(names, uncertainty="propagated").chunk({"y": 4}).compute()
assert len(names) == 150 and np.allclose(out.data.values, np.where(np.arange(480).reshape(24, 20) == 64, 1e6, 101))
assert np.allclose(out.uncertainty.values.flat[0], 2 / 150**0.5), out.uncertainty.values
assert not pool.close_idle(), "files stayed open after the work"
print("right")
"""


def test_a_stack_of_many_frames(frames: Path) -> None:
    """Three planes of 150 frames are combined by 16 threads where 128 files may be open."""
    assert under_limit(COMBINE, f"{frames}/f*.fits") == "right\n"


def test_a_stack_of_many_compressed_frames(frames: Path, tmp_path: Path) -> None:
    """Frames that are compressed as a whole need no open file each."""
    for path in frames.glob("f*.fits"):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    assert under_limit(COMBINE, f"{tmp_path}/f*.fits.gz") == "right\n"


def test_a_stack_of_many_stores(frames: Path, tmp_path: Path) -> None:
    """So are shards of Zarr stores."""
    write = "import sys, lazyccd\nds = lazyccd.open_fits(sys.argv[1])\nds.ccd.to_zarr(sys.argv[2])"
    under_limit(write, frames / "f000.fits", tmp_path / "s000.zarr")
    for i in range(1, FRAMES):
        shutil.copytree(tmp_path / "s000.zarr", tmp_path / f"s{i:03d}.zarr")
    code = COMBINE.replace("1e6, 101", "1e6, 100")
    assert under_limit(code, f"{tmp_path}/s*.zarr") == "right\n"


def test_a_night_of_many_frames(tmp_path: Path) -> None:
    """A night is reduced where fewer files may be open than it has."""
    noise = np.random.default_rng(3)
    header = fits.Header({"BUNIT": "adu", "INSTRUME": "cam", "GAIN": 1.0, "RDNOISE": 5.0, "SATURATE": 60000.0})
    for i in range(FRAMES):
        kind = "bias" if i < FRAMES - 4 else "flat" if i < FRAMES - 1 else "object"
        level = {"bias": 0, "flat": 20000, "object": 200}[kind]
        data = np.clip(noise.poisson(level, (32, 32)) + noise.normal(1000, 5, (32, 32)), 0, 65535).astype(np.uint16)
        cards = {"IMAGETYP": kind, "EXPTIME": 0.0 if kind == "bias" else 10.0, "OBJECT": kind, "FILTER": "V"}
        cards["DATE-OBS"] = f"2024-03-01T{i // 60:02d}:{i % 60:02d}:00"
        (tmp_path / "raw").mkdir(exist_ok=True)
        fits.PrimaryHDU(data, header + fits.Header(cards)).writeto(tmp_path / "raw" / f"f{i:03d}.fits")
    code = """
import sys, dask
from lazyccd.cli.main import main
dask.config.set(num_workers=16)
main(["reduce", sys.argv[1], "-o", sys.argv[2], "--allow-missing", "dark"], standalone_mode=False)
"""
    out = under_limit(code, tmp_path / "raw", tmp_path / "out")
    products = [path for path in (tmp_path / "out").rglob("*.fits") if f"f{FRAMES - 1}" in path.name]
    assert len(products) == 1, out
    with fits.open(products[0]) as hdus:
        pixels = next(hdu.data for hdu in hdus if hdu.data is not None)
        assert abs(np.median(pixels) - 200) < 3
    bias = [path for path in (tmp_path / "out").rglob("*.fits") if "bias" in path.name]
    assert fits.getval(bias[0], "NCOMBINE") == FRAMES - 4


@pytest.fixture
def open_files(tmp_path: Path) -> list[Path]:
    """Return files with a number as content each."""
    paths = [tmp_path / f"{i}.txt" for i in range(20)]
    for i, path in enumerate(paths):
        path.write_bytes(str(i).encode())
    return paths


def test_the_pool_closes_what_was_read_longest_ago(open_files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """At most half of what is allowed is open; all files can be read all the same."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    files = DescriptorPool()
    reopened = []

    def reopen(path: Path) -> int:
        reopened.append(path)
        return os.open(path, os.O_RDONLY)

    held = [files.hold(path, os.open(path, os.O_RDONLY), partial(reopen, path)) for path in open_files]
    assert [file.descriptor >= 0 for file in held] == [False] * 15 + [True] * 5
    with files.using(held[0]) as first:
        for i, file in enumerate(held[1:], 1):
            with files.using(file) as descriptor:
                assert os.pread(descriptor, 9, 0) == str(i).encode()
        # 19 others were opened since: what is being read stays.
        assert os.pread(first, 9, 0) == b"0"
    assert sum(file.descriptor >= 0 for file in held) == 5
    assert reopened == [open_files[0], *open_files[1:]]
    for file in held:
        files.release(file)
    assert not any(file.descriptor >= 0 for file in held)


def test_holders_of_a_file_share_a_descriptor(open_files: list[Path]) -> None:
    """The last one closes it, also where it is being read."""
    files = DescriptorPool()
    path = open_files[7]
    one, two = (files.hold("key", open_for_reading(str(path)), partial(open_for_reading, str(path))) for _ in range(2))
    assert one is two
    files.release(one)
    with files.using(two) as descriptor:
        files.release(two)
        assert os.pread(descriptor, 9, 0) == b"7"
    assert two.descriptor == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("change", ["replaced", "grown", "removed"])
def test_a_reopened_file_must_be_the_same(tmp_path: Path, change: str) -> None:
    """A file that was closed meanwhile and changed is refused when it is read again."""
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((4, 4), np.int16)).writeto(path)
    source = open_source(str(path)).source
    try:
        first = source.read(0, 80)
        if change == "replaced":
            shutil.copy(path, tmp_path / "b.fits")
            os.replace(tmp_path / "b.fits", path)
        elif change == "grown":
            path.write_bytes(path.read_bytes() + b" " * 2880)
        else:
            path.unlink()
        if change != "grown":  # as long as it is open it is the old file
            assert source.read(0, 80) == first
        pool.close_idle()
        with pytest.raises((SourceChangedError, FileNotFoundError), match=r"a\.fits (changed|does not exist)"):
            source.read(0, 80)
    finally:
        source.close()


def test_no_more_files_may_be_open() -> None:
    """Files that are only held make room; where there are none, the message names the limit."""
    code = """
import os, sys, pathlib
from lazyccd.io.fits.byte_source import open_source
from lazyccd.io.descriptors import open_for_reading
path = pathlib.Path(sys.argv[1]).resolve()
source = open_source(str(path)).source
others = []
try:
    while True:
        others.append(os.open(path, os.O_RDONLY))
except OSError:
    pass
os.close(open_for_reading(str(path)))
others.append(os.open(path, os.O_RDONLY))
try:
    source.read(0, 1)
except OSError as error:
    print(error)
"""
    out = under_limit(code, __file__)
    assert f"test_descriptors.py cannot be opened: the process may have {LIMIT} files open and has" in out
    assert "ulimit -n 4096" in out


def packed(path: Path, count: list[Path]) -> IO[bytes]:
    """Open a compressed file, and note it."""
    count.append(path)
    return path.open("rb")


def test_copies_keep_to_their_budget(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Copies beyond the budget are thrown away, made again when they are read again, and that is said once."""
    contents = [bytes([i]) * 4000 for i in range(40)]
    paths = [tmp_path / f"{i}.gz" for i in range(40)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(gzip.compress(content))
    copies, made = UnpackedCopies(most_bytes=64_000), list[Path]()

    def content_of(i: int) -> bytes:
        with copies.using(i, str(paths[i]), "gzip", partial(packed, paths[i], made)) as place:
            assert place.size == 4000
            return os.pread(place.descriptor, place.size, place.start)

    for i in [0, 1, 2, 3, 2, 1, 0]:
        assert content_of(i) == contents[i]
    assert made == paths[:4]
    for _ in range(2):
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(content_of, range(40))) == contents
        assert copies.nbytes <= 64_000
    assert len(made) > 60
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "set TMPDIR" in said[0]


def test_a_damaged_file_leaves_no_copy(tmp_path: Path) -> None:
    """What was decompressed of a damaged file is cut off again, and the next copy is right."""
    good, bad = tmp_path / "good.gz", tmp_path / "bad.gz"
    content = np.random.default_rng(1).bytes(300_000)
    good.write_bytes(gzip.compress(content))
    bad.write_bytes(gzip.compress(content)[:-1000])
    copies = UnpackedCopies()
    for _ in range(2):
        reading = copies.using("bad", "bad.gz", "gzip", partial(packed, bad, []))
        with pytest.raises(FormatError, match=r"bad\.gz cannot be decompressed \(gzip\)"), reading:
            pass
        with copies.using("good", "good.gz", "gzip", partial(packed, good, [])) as place:
            assert os.pread(place.descriptor, place.size, place.start) == content
            assert os.fstat(place.descriptor).st_size == 300_000
