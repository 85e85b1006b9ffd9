"""A third output format needs one file: a product, what its frames are written to, and an entry function.

Here it is a folder with a raw ``.npy`` of the data of each frame.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits

import lazyccd
from lazyccd.errors import ParameterError, ResumeError, TargetExistsError
from lazyccd.frame.core import DATA
from lazyccd.io.resumable.disk import checksum, explained, stamp_of
from lazyccd.io.resumable.journal import PROGRESS
from lazyccd.io.resumable.progress import Receipts
from lazyccd.io.resumable.write import Rules, frames_to_write, holding, resolve_frames, write
from lazyccd.sections import Region

SHAPE, ROWS = (24, 16), 4


@dataclass(frozen=True)
class NpyFrame:
    """The array of one frame."""

    path: str
    shape: tuple[int, int]
    dtype: str

    def write(self, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
        """Write rows; the receipt is their checksum."""
        with explained(self.path):
            pixels = np.lib.format.open_memmap(self.path, mode="r+")
            pixels[region.slices] = arrays[DATA]
            pixels.flush()
        return checksum([arrays[DATA].tobytes()])

    def holds(self, region: Region, receipt: Any, *, verify: bool) -> bool:
        """Return whether the rows are there; the file has its size from the start."""
        return not verify or checksum([np.load(self.path, mmap_mode="r")[region.slices].tobytes()]) == receipt


@dataclass(frozen=True)
class NpyProduct:
    """A folder of arrays."""

    name: str
    overwrite: bool
    frames: tuple[NpyFrame, ...]
    takes_late = False

    def alone(self, number: int) -> NpyProduct:
        """Return the folder with one of the frames."""
        return replace(self, frames=(self.frames[number],))

    def is_begun(self) -> bool:
        """Return whether there is an unfinished folder."""
        return os.path.isdir(f"{self.name}.part")

    def exists(self) -> bool:
        """Return whether there is a folder of the final name."""
        return os.path.lexists(self.name)

    def stamp(self) -> str:
        """Return what tells the folder from another that had its name."""
        return stamp_of(self.name)

    def is_made(self) -> bool:
        """Return whether the folder has the arrays of this write."""
        return all(os.path.exists(f"{self.name}/{os.path.basename(frame.path)}") for frame in self.frames)

    def lay_out(self) -> None:
        """Make the unfinished folder with arrays of zeros."""
        self.abort()
        if self.exists() and not self.overwrite:
            raise TargetExistsError(f"{self.name} exists.")
        os.mkdir(f"{self.name}.part")
        for frame in self.frames:
            np.lib.format.open_memmap(frame.path, "w+", frame.dtype, frame.shape).flush()

    def held(self, receipts: Receipts, *, verify: bool) -> Receipts:
        """Return the receipts that hold; rows without one are written over."""
        return holding(self, receipts, verify=verify)

    def complete(self, receipts: Receipts) -> None:
        """Give the folder its name."""
        if self.overwrite:
            shutil.rmtree(self.name, ignore_errors=True)
        os.rename(f"{self.name}.part", self.name)

    def abort(self) -> None:
        """Remove the unfinished folder."""
        shutil.rmtree(f"{self.name}.part", ignore_errors=True)


def to_npy(
    ccd: xr.Dataset | xr.DataTree,
    folder: Path,
    *,
    overwrite: bool = False,
    compute: bool = True,
    verify: bool = False,
) -> Any:
    """Write a frame or a tree to a folder of arrays, a few rows at a time."""
    images = resolve_frames(frames_to_write(ccd), compute=compute)
    frames = [
        NpyFrame(f"{folder}.part/{name or 'frame'}.npy", image.shape, image.dtype.str) for name, image in images.items()
    ]
    product = NpyProduct(str(folder), overwrite, tuple(frames))
    regions = {
        name: [Region(y, min(y + ROWS, image.shape[0]), 0, image.shape[1]) for y in range(0, image.shape[0], ROWS)]
        for name, image in images.items()
    }
    return write(images, regions, product, {"rows": ROWS}, Rules(overwrite, verify), compute=compute)


@pytest.fixture
def tree(tmp_path: Path) -> xr.DataTree:
    """Return two amplifiers of a file in a folder of its own."""
    path = tmp_path / "in" / "raw.fits"
    path.parent.mkdir()
    rng = np.random.default_rng(1)
    amplifiers = [fits.ImageHDU(rng.integers(0, 9000, SHAPE).astype(np.uint16), name=f"AMP{k}") for k in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *amplifiers]).writeto(path)
    return lazyccd.open_mef(path)


class Stopped(Exception):  # noqa: N818
    """Stands for whatever stops a run."""


def interrupt(after: int, monkeypatch: pytest.MonkeyPatch, ccd: xr.Dataset | xr.DataTree, folder: Path) -> list[int]:
    """Stop a write after some regions; return a list that grows with each region that is written from then on."""
    original, written = NpyFrame.write, [0]

    def limited(self: NpyFrame, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
        if written[0] == after:
            raise Stopped
        written[0] += 1
        return original(self, region, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(NpyFrame, "write", limited)
        with dask.config.set(scheduler="sync"), pytest.raises(Stopped) as error:
            to_npy(ccd, folder)
    assert f"{after} of " in error.value.__notes__[-1]
    later: list[int] = []

    def counted(self: NpyFrame, region: Region, arrays: Mapping[str, npt.NDArray[Any]]) -> int:
        later.append(region.y0)
        return original(self, region, arrays)

    monkeypatch.setattr(NpyFrame, "write", counted)
    return later


def test_a_tree_is_written(tree: xr.DataTree, tmp_path: Path) -> None:
    """All pixels are there, under the final name only."""
    out = tmp_path / "out"
    assert to_npy(tree, out) == str(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    for name in ("AMP1", "AMP2"):
        np.testing.assert_array_equal(np.load(out / f"{name}.npy"), tree[name]["data"])
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        to_npy(tree, out)


def test_a_frame_is_a_tree_of_one(tree: xr.DataTree, tmp_path: Path) -> None:
    """One frame goes the same way, and so does a lazy write."""
    frame = tree["AMP2"].to_dataset()
    lazy = to_npy(frame, tmp_path / "out", compute=False)
    assert not (tmp_path / "out").exists()
    assert lazy.compute() == f"{tmp_path}/out"
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "frame.npy"), frame["data"])


def test_an_interrupted_write_is_resumed(tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twelve regions five are done, in both frames seven are left; nothing else remains."""
    out = tmp_path / "out"
    later = interrupt(5, monkeypatch, tree, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PROGRESS, "in", "out.part"]
    to_npy(tree, out)
    assert len(later) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    for name in ("AMP1", "AMP2"):
        np.testing.assert_array_equal(np.load(out / f"{name}.npy"), tree[name]["data"])


def test_damage_is_found(tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``verify=True`` what is written is compared with the receipts, and the damaged region is written again."""
    out = tmp_path / "out"
    later = interrupt(12 - 3, monkeypatch, tree, out)
    pixels = np.lib.format.open_memmap(tmp_path / "out.part" / "AMP1.npy", mode="r+")
    written = (pixels == tree["AMP1"]["data"].values).all(axis=1)
    pixels[np.flatnonzero(written)[0], 0] += 1
    pixels.flush()
    to_npy(tree, out, verify=True)
    assert len(later) == 3 + 1
    np.testing.assert_array_equal(np.load(out / "AMP1.npy"), tree["AMP1"]["data"])


def test_what_changed_and_what_is_read_is_refused(
    tree: xr.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules of resuming, and of targets that are inputs, are those of every format."""
    out = tmp_path / "out"
    interrupt(5, monkeypatch, tree, out)
    other = tree.map_over_datasets(lambda ds: lazyccd.gain_correct(ds, 2.0) if DATA in ds else ds)
    with pytest.raises(ResumeError, match="was begun and not finished"):
        to_npy(other, out)
    with pytest.raises(ParameterError, match=r"raw\.fits, which cannot be written at the same time"):
        to_npy(tree, tmp_path / "in" / "raw.fits")
