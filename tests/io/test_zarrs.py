"""The Zarr writer: whole shards in any order give the same bytes, which zarr and xarray read; nothing unfinished is seen."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.errors import (
    FormatError,
    MissingFileError,
    ParameterError,
    ShapeError,
    SourceChangedError,
    TargetExistsError,
    WriteError,
)
from lazyccd.io.zarr.writer import ZarrArray, ZarrStorage, ZarrTarget, complete_store, open_arrays
from lazyccd.plan.chunks import shard_grid
from lazyccd.sections import Region

NO_DATA = 8
ROOT = {"lazyccd": {"format_version": 1, "write_id": "abc"}}


def make_target(store: Path | str, shape: tuple[int, int], shard: tuple[int, int] = (2048, 2048)) -> ZarrTarget:
    """Return a target with data and mask."""
    arrays = (ZarrArray("data", "float32", attrs='{"units": "adu"}'), ZarrArray("mask", "uint16", NO_DATA))
    return ZarrTarget(str(store), shape, arrays, *shard_grid(shape, shard))


def make_images(shape: tuple[int, int]) -> dict[str, npt.NDArray[Any]]:
    """Return noisy data with a NaN and an empty corner, and a mask."""
    rng = np.random.default_rng(0)
    data = rng.normal(0, 100, shape).astype(np.float32)
    mask = rng.integers(0, 4, shape, dtype=np.uint16)
    data[0, 0] = np.nan
    data[shape[0] // 2 :, shape[1] // 2 :] = np.nan
    mask[shape[0] // 2 :, shape[1] // 2 :] = NO_DATA
    return {"data": data, "mask": mask}


def cells(target: ZarrTarget) -> list[Region]:
    """Return the regions of all shards."""
    return [
        Region(y, y + target.shards[0], x, x + target.shards[1]).clip(target.shape)
        for y in range(0, target.shape[0], target.shards[0])
        for x in range(0, target.shape[1], target.shards[1])
    ]


def create(target: ZarrTarget, *, overwrite: bool = False) -> None:
    """Lay out a target with coordinates."""
    coords = {"y": np.arange(target.shape[0]) + 0.5, "x": np.arange(target.shape[1])}
    target.create(overwrite=overwrite)
    target.add_group({"header": "a\nb"}, coords)


def finish(target: ZarrTarget, root: dict[str, Any] = ROOT, **attrs: Any) -> None:
    """Complete a target."""
    # what create() allowed; the stores of these tests have no other writer
    target.finish_group(attrs, overwrite=True)
    complete_store(target.store, [target.group], root, overwrite=True)


def write_all(
    target: ZarrTarget, images: dict[str, npt.NDArray[Any]], jobs: list[tuple[str, Region]]
) -> dict[str, bytes]:
    """Write a store and return the content of its files by name."""
    create(target, overwrite=True)
    for name, region in jobs:
        target.write(name, region, images[name][region.slices])
    finish(target, mean=1.5)
    root = Path(target.store)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    shard=st.tuples(st.sampled_from([8, 12, 32]), st.sampled_from([8, 12, 32])),
    parts=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])),
    rng=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_any_order_gives_the_same_bytes_and_zarr_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    shard: tuple[int, int],
    parts: tuple[int, int],
    rng: Any,
    data: st.DataObject,
) -> None:
    """Equal pixels give equal files whatever the order; zarr reads every bit, our storage any region."""
    folder = tmp_path_factory.mktemp("store")
    arrays = make_target("unused", shape).arrays
    chunk = (shard[0] // parts[0], shard[1] // parts[1])
    target = ZarrTarget(str(folder / "a.zarr"), shape, arrays, shard, chunk)
    images = make_images(shape)
    jobs = [(name, region) for region in cells(target) for name in images]
    files = write_all(target, images, jobs)
    rng.shuffle(jobs)
    assert write_all(target, images, jobs) == files
    group = zarr.open_group(target.store, mode="r")
    y0 = data.draw(st.integers(0, shape[0] - 1))
    x0 = data.draw(st.integers(0, shape[1] - 1))
    region = Region(y0, data.draw(st.integers(y0 + 1, shape[0])), x0, data.draw(st.integers(x0 + 1, shape[1])))
    for name, storage in open_arrays(target.store).storages.items():
        assert np.asarray(group[f"0/{name}"][...]).tobytes() == images[name].tobytes()
        read = storage.open().read(region)
        assert read.dtype == storage.dtype
        assert read.flags.c_contiguous
        assert read.tobytes() == images[name][region.slices].tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (7, 4097), (2049, 3), (600, 513)])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Single pixels, and images a little larger than a shard, come back; zarr checks the CRC of each index."""
    target, images = make_target(tmp_path / "a.zarr", shape), make_images(shape)
    write_all(target, images, [(name, region) for region in cells(target) for name in images])
    group = zarr.open_group(target.store, mode="r")
    for name, image in images.items():
        np.testing.assert_array_equal(group[f"0/{name}"][...], image)


def test_shards_are_as_small_as_those_of_zarr(tmp_path: Path) -> None:
    """The chunks have the bytes that zarr itself writes with this metadata."""
    shape = (1024, 1024)
    target, images = make_target(tmp_path / "a.zarr", shape), make_images(shape)
    files = write_all(target, images, [(name, Region.full(shape)) for name in images])
    group = zarr.open_group(target.store, mode="r+")
    for name, image in images.items():
        group[f"0/{name}"][...] = image
        theirs = (tmp_path / "a.zarr" / "0" / name / "c" / "0" / "0").read_bytes()
        ours = files[f"0/{name}/c/0/0"]
        assert len(ours) == len(theirs)
        index = np.frombuffer(ours[-68:-4], "<u8").reshape(2, 2, 2)
        their_index = np.frombuffer(theirs[-68:-4], "<u8").reshape(2, 2, 2)
        for (start, size), (their_start, their_size) in zip(
            index.reshape(-1, 2).tolist(), their_index.reshape(-1, 2).tolist(), strict=True
        ):
            assert size == their_size
            assert size == 2**64 - 1 or ours[start : start + size] == theirs[their_start : their_start + size]


def test_xarray_opens_group_and_tree(tmp_path: Path) -> None:
    """Plain xarray reads the store without a warning: variables, coordinates, attributes of group and root."""
    target, images = make_target(tmp_path / "a.zarr", (20, 30)), make_images((20, 30))
    write_all(target, images, [(name, Region.full((20, 30))) for name in images])
    frame = xr.open_zarr(target.store, group="0", chunks=None)
    assert frame.data.dims == ("y", "x")
    assert frame.data.attrs == {"units": "adu"}
    assert frame.attrs == {"header": "a\nb", "mean": 1.5}
    assert frame.mask.dtype == np.uint16
    np.testing.assert_array_equal(frame.mask, images["mask"])
    np.testing.assert_array_equal(frame.y, np.arange(20) + 0.5)
    tree = xr.open_datatree(target.store, engine="zarr", chunks=None)
    assert tree.attrs == ROOT
    np.testing.assert_array_equal(tree["0/data"], images["data"])


def test_shards_of_fill_values_take_no_file_and_read_as_no_data(tmp_path: Path) -> None:
    """A shard that was never written and one of nothing but fill values are the same: NaN and NO_DATA."""
    target = make_target(tmp_path / "a.zarr", (8, 16), (8, 8))
    create(target)
    empty = Region(0, 8, 0, 8)
    assert target.write("mask", empty, np.full((8, 8), NO_DATA, np.uint16)) == {}
    assert target.write("data", empty, np.full((8, 8), np.nan, np.float32)) == {}
    assert list(target.write("mask", Region(0, 8, 8, 16), np.zeros((8, 8), np.uint16))) == ["0/mask/c/0/1"]
    finish(target)
    assert [str(p.relative_to(target.store)) for p in Path(target.store).rglob("c/*/*")] == ["0/mask/c/0/1"]
    content = open_arrays(target.store)
    np.testing.assert_array_equal(content.storages["mask"].open().read(empty), NO_DATA)
    np.testing.assert_array_equal(content.storages["data"].open().read(Region.full((8, 16))), np.nan)
    assert content.fill_values["mask"] == NO_DATA


def test_open_arrays_describes_the_store(tmp_path: Path) -> None:
    """Shapes, native types, shard-shaped chunks, attributes and coordinates come back; storages can be pickled."""
    target = make_target(tmp_path / "a.zarr", (20, 30), (8, 12))
    write_all(target, make_images((20, 30)), [])
    content = open_arrays(Path(target.store))
    data = content.storages["data"]
    assert (data.shape, data.chunks, data.dtype) == ((20, 30), (8, 12), np.dtype("float32"))
    assert data.name == f"{target.store}/0/data"
    assert data.token == f"{target.store}/0/data:abc:<f4"
    assert pickle.loads(pickle.dumps(data)) == data
    assert hash(pickle.loads(pickle.dumps(data))) == hash(data)
    assert content.root_attrs == ROOT
    assert content.attrs["mean"] == 1.5
    assert content.array_attrs["data"] == {"units": "adu"}
    assert sorted(content.coords) == ["x", "y"]
    np.testing.assert_array_equal(content.coords["x"], np.arange(30))


def test_a_store_written_anew_is_noticed(tmp_path: Path) -> None:
    """A storage opened before the store was replaced refuses to read from the new one."""
    target = make_target(tmp_path / "a.zarr", (4, 4))
    write_all(target, make_images((4, 4)), [])
    old = open_arrays(target.store).storages["data"]
    old.open().close()
    create(target, overwrite=True)
    finish(target, {"lazyccd": {"format_version": 1, "write_id": "other"}})
    with pytest.raises(SourceChangedError, match=r"a\.zarr/0/data changed"):
        old.open()


def test_stores_of_others(tmp_path: Path) -> None:
    """Big-endian, unsharded arrays without a write id are read; the token follows the metadata."""
    tokens = []
    for units in ("adu", "adu", "electron"):
        group = zarr.open_group(tmp_path / "b.zarr", mode="w")
        array = group.create_array("sci/image", shape=(5, 6), chunks=(2, 3), dtype=">f4", attributes={"units": units})
        array[...] = np.arange(30).reshape(5, 6)
        content = open_arrays(tmp_path / "b.zarr", "sci")
        storage = content.storages["image"]
        tokens.append(storage.token)
    assert tokens[0] == tokens[1] != tokens[2]
    assert (storage.chunks, storage.dtype) == ((2, 3), np.dtype("float32"))
    read = storage.open().read(Region(1, 3, 2, 5))
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, np.arange(30).reshape(5, 6)[1:3, 2:5])


@pytest.mark.parametrize("damage", ["index", "chunk", "cut"])
def test_damaged_shards_are_named(tmp_path: Path, damage: str) -> None:
    """A damaged or truncated shard is an error that names the file, not wrong pixels."""
    target, images = make_target(tmp_path / "a.zarr", (600, 600)), make_images((600, 600))
    write_all(target, images, [("data", Region.full((600, 600)))])
    path = tmp_path / "a.zarr" / "0" / "data" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[{"index": -20, "chunk": 13, "cut": 0}[damage]] ^= 0xFF
    path.write_bytes(content[:-7] if damage == "cut" else content)
    with pytest.raises(FormatError, match=r"data/c/0/0: (the index|chunk .0, 0.) of the shard is damaged"):
        open_arrays(target.store).storages["data"].open().read(Region(0, 9, 0, 9))


def write_shard(job: tuple[bytes, int]) -> dict[str, list[int]]:
    """Write a shard of a pickled target in another process."""
    target: ZarrTarget = pickle.loads(job[0])
    region = Region(8 * job[1], 8 * job[1] + 8, 0, 8)
    return target.write("data", region, np.full((8, 8), job[1], np.float32))


def test_other_processes_and_threads_write_a_pickled_target(tmp_path: Path) -> None:
    """A target needs nothing but its name and layout."""
    target = make_target(tmp_path / "a.zarr", (64, 8), (8, 8))
    packed = pickle.dumps(target)
    assert len(packed) < 1000
    assert pickle.loads(packed) == target
    assert ZarrArray("data", "float32", float("nan")) == ZarrArray("data", "float32")
    assert hash(pickle.loads(packed)) == hash(target)
    create(target)
    with get_context("spawn").Pool(1) as pool:
        pool.map(write_shard, [(packed, i) for i in range(4)])
    with ThreadPoolExecutor(4) as threads:
        assert all(files for files in threads.map(write_shard, [(packed, i) for i in range(4, 8)]))
    finish(target)
    read = open_arrays(target.store).storages["data"].open().read(Region.full((64, 8)))
    np.testing.assert_array_equal(read, np.repeat(np.arange(8), 8)[:, None] * np.ones(8))


def test_the_name_appears_only_when_complete(tmp_path: Path) -> None:
    """Until finish there is only .part, which a later run replaces; abort leaves nothing."""
    target = make_target(tmp_path / "a.zarr", (4, 4))
    for _ in range(2):
        create(target)
        target.write("mask", Region.full((4, 4)), np.zeros((4, 4), np.uint16))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lazyccd-progress", "a.zarr.part"]
    with pytest.raises(MissingFileError, match=r"a\.zarr does not exist"):
        open_arrays(target.store)
    target.abort()
    target.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WriteError, match=r"a\.zarr\.part: mask \[1:4,1:4\] cannot be written: No such file"):
        target.write("mask", Region.full((4, 4)), np.zeros((4, 4), np.uint16))
    with pytest.raises(WriteError, match="metadata"):
        finish(target)


def test_existing_targets(tmp_path: Path) -> None:
    """An existing store is refused, or kept until the new one is complete; a folder that is no store is never touched."""
    target = make_target(tmp_path / "a.zarr", (4, 4))
    write_all(target, make_images((4, 4)), [])
    with pytest.raises(TargetExistsError, match="pass overwrite=True"):
        create(target)
    create(target, overwrite=True)
    assert open_arrays(target.store).attrs["mean"] == 1.5
    target.abort()
    assert open_arrays(target.store).attrs["mean"] == 1.5
    create(target, overwrite=True)
    finish(target)
    assert "mean" not in open_arrays(target.store).attrs
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    precious = tmp_path / "precious" / "letter.txt"
    precious.parent.mkdir()
    precious.write_text("dear")
    with pytest.raises(TargetExistsError, match="is not a Zarr store"):
        create(make_target(precious.parent, (4, 4)), overwrite=True)
    precious.parent.rename(tmp_path / "b.zarr.part")
    with pytest.raises(TargetExistsError, match="no unfinished store"):
        create(make_target(tmp_path / "b.zarr", (4, 4)))
    assert (tmp_path / "b.zarr.part" / "letter.txt").read_text() == "dear"
    with pytest.raises(MissingFileError, match="no_such_folder"):
        create(make_target(tmp_path / "no_such_folder" / "a.zarr", (4, 4)))


def test_stores_behind_urls() -> None:
    """Behind a URL there is no store until finish; abort removes the objects, but never those of others."""
    files = fsspec.filesystem("memory")
    target, images = make_target("memory://bucket/a.zarr", (20, 30), (8, 12)), make_images((20, 30))
    create(target)
    target.abort()
    assert not files.exists("/bucket/a.zarr")
    for _ in range(2):
        create(target, overwrite=True)
        for region in cells(target):
            target.write("data", region, images["data"][region.slices])
    with pytest.raises(MissingFileError):
        open_arrays(target.store)
    finish(target)
    target.abort()
    region = Region(3, 19, 5, 29)
    found = open_arrays(target.store).storages["data"].open().read(region)
    np.testing.assert_array_equal(found, images["data"][region.slices])
    with pytest.raises(TargetExistsError, match="pass overwrite=True"):
        create(target)
    files.pipe_file("/bucket/b/letter.txt", b"dear")
    with pytest.raises(TargetExistsError, match="is not a Zarr store"):
        create(make_target("memory://bucket/b", (4, 4)), overwrite=True)
    assert files.cat_file("/bucket/b/letter.txt") == b"dear"
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("region", "pixels", "error", "message"),
    [
        (
            Region(0, 8, 0, 16),
            np.ones((8, 16), np.float32),
            ShapeError,
            r"write Region\(y0=0, y1=8, x0=0, x1=12\) at once",
        ),
        (Region(4, 12, 0, 12), np.ones((8, 12), np.float32), ShapeError, "is not a shard"),
        (Region(0, 4, 0, 12), np.ones((4, 12), np.float32), ShapeError, "is not a shard"),
        (Region(24, 32, 0, 12), np.ones((8, 12), np.float32), ShapeError, "is not a shard"),
        (Region(0, 8, 0, 12), np.ones((8, 11), np.float32), ShapeError, "do not fill"),
        (Region(0, 8, 0, 12), np.ones((8, 12), np.float64), ParameterError, "pixels are <f8"),
    ],
)
def test_wrong_pieces_are_refused(
    tmp_path: Path, region: Region, pixels: npt.NDArray[Any], error: type[Exception], message: str
) -> None:
    """Two tasks can never write into one shard: anything but a whole one is an error."""
    target = make_target(tmp_path / "a.zarr", (20, 30), (8, 12))
    create(target)
    with pytest.raises(error, match=message):
        target.write("data", region, pixels)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """A folder without metadata and a missing group are named."""
    with pytest.raises(FormatError, match="is not a Zarr store"):
        open_arrays(tmp_path)
    target = make_target(tmp_path / "a.zarr", (4, 4))
    write_all(target, make_images((4, 4)), [])
    with pytest.raises(FormatError, match=r"no group '1'; its groups are \['0'\]"):
        open_arrays(target.store, "1")
    with pytest.raises(ParameterError, match=r"shards \(8, 8\) must be multiples of the chunks \(3, 8\)"):
        ZarrTarget("a.zarr", (4, 4), (), (8, 8), (3, 8))
    for group in ("../b", "/b", "a/../../b", "."):
        with pytest.raises(ParameterError, match="a group cannot have the name"):
            ZarrTarget("a.zarr", (4, 4), (), (4, 4), (4, 4), group)


def test_no_space_left_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    """A shard that the system refuses is a WriteError that names it, and no part of a shard is left in its place."""
    script = """
import resource, sys
import numpy as np
from lazyccd.errors import WriteError
from lazyccd.io.zarr.writer import *
from lazyccd.sections import Region
target = ZarrTarget(sys.argv[1], (256, 256), (ZarrArray("data", "float32"),), (256, 256), (256, 256))
target.create()
target.add_group()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    target.write("data", Region(0, 256, 0, 256), np.random.default_rng(0).random((256, 256)).astype(np.float32))
except WriteError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.zarr")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "a.zarr.part: data [1:256,1:256] cannot be written: File too large" in run.stdout
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".lazyccd-progress/a.zarr/scratch/group-0.json", "a.zarr.part/0/data/zarr.json"]


def test_metadata_is_consolidated_and_without_clock(tmp_path: Path) -> None:
    """The metadata is what zarr would write: opening it costs one read, and it names the standard codecs."""
    target = make_target(tmp_path / "a.zarr", (4, 4))
    files = write_all(target, make_images((4, 4)), [])
    root = json.loads(files["zarr.json"])
    assert sorted(root["consolidated_metadata"]["metadata"]) == ["0", "0/data", "0/mask", "0/x", "0/y"]
    assert root["consolidated_metadata"]["metadata"]["0/data"] == json.loads(files["0/data/zarr.json"])
    assert zarr.open_consolidated(target.store)["0/mask"].fill_value == NO_DATA
    assert isinstance(open_arrays(target.store).storages["mask"], ZarrStorage)
