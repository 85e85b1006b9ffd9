"""Running stacks against fresh ones."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd import RunningStack, add_mask, combine, errors, from_ccddata, with_header, with_uncertainty
from lazyccd.mask_planes import MaskSchema


def make_frames(count: int, seed: int = 3) -> list[xr.Dataset]:
    """Return frames with masks of several planes, NaN, and uncertainties."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        values = rng.normal(1000, 10, (20, 30))
        values[rng.random(values.shape) < 0.05] = np.nan
        frame = with_uncertainty(from_ccddata(CCDData(values, unit="adu")), rng.uniform(1, 3, values.shape))
        for plane, share in (("SAT", 0.3), ("CR", 0.2), ("BAD", 0.1), ("INTERP", 0.2)):
            frame = add_mask(frame, rng.random(values.shape) < share, plane)
        frames.append(with_header(frame, exptime=10.0 + i, airmass=1.0 + i))
    return frames


def check_same(stack: RunningStack, frames: list[xr.Dataset], weights: list[float], method: str) -> None:
    """Compare with a fresh stack: masks exactly, numbers to 1e-12."""
    mine, fresh = stack.result().compute(), combine(frames, method=method, weights=weights).compute()
    scale = 1000 * (sum(weights) if method == "sum" else 1)
    np.testing.assert_allclose(mine["data"].values, fresh["data"].values, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(mine["uncertainty"].values, fresh["uncertainty"].values, rtol=1e-12)
    np.testing.assert_array_equal(mine["mask"].values, fresh["mask"].values)
    for key in ("EXPTIME", "TOTEXP", "NCOMBINE"):
        assert mine.ccd.header[key] == fresh.ccd.header[key]


@settings(max_examples=settings.default.max_examples // 3)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.sampled_from(["average", "sum"]))
def test_any_order_of_adding_and_vetoing(
    tmp_path_factory: pytest.TempPathFactory, moves: list[int], method: Any
) -> None:
    """A frame that is not there is added, one that is there is vetoed; the result is that of those left."""
    frames = make_frames(6)
    weights = [1.0, 2.0, 0.5, 3.0, 1.0, 1.5]
    stack = RunningStack(tmp_path_factory.mktemp("stack") / "deep", method)
    left: list[int] = []
    for move in moves:
        if move in left:
            stack.veto(f"f{move}", frames[move])
            left.remove(move)
        else:
            stack.add(frames[move], weights[move], f"f{move}")
            left.append(move)
    assert stack.names == [f"f{i}" for i in left]
    if left:
        check_same(stack, [frames[i] for i in left], [weights[i] for i in left], method)
    else:
        with pytest.raises(errors.ParameterError, match="has no frames; add one first"):
            stack.result()


def test_an_emptied_stack_takes_other_frames(tmp_path: Path) -> None:
    """When all frames were vetoed, those added next may have another shape, or be trees; nothing of the others stays."""
    small, large = (from_ccddata(CCDData(np.full(shape, 2.0), unit="adu")) for shape in ((4, 4), (5, 6)))
    tree = xr.DataTree.from_dict({"SCI": large})
    stack = RunningStack(tmp_path / "deep")
    for name, frame in (("a", small), ("b", large), ("c", tree), ("d", small)):
        stack.add(frame, name=name)
        result = stack.result()
        found = result["SCI"] if isinstance(result, xr.DataTree) else result
        given = frame["SCI"] if isinstance(frame, xr.DataTree) else frame
        np.testing.assert_array_equal(found["data"], given["data"])
        assert len(list((tmp_path / "deep").rglob("sums-*.zarr"))) == 1
        stack.veto(name, frame)


def test_files_are_vetoed_by_name(tmp_path: Path) -> None:
    """A path is enough; a file that changed meanwhile is refused."""
    for i in range(3):
        fits.PrimaryHDU(np.full((5, 6), float(i), np.float32), fits.Header({"BUNIT": "adu"})).writeto(
            tmp_path / f"{i}.fits"
        )
    stack = RunningStack(tmp_path / "deep")
    for i in range(3):
        stack.add(tmp_path / f"{i}.fits")
    assert stack.names == ["0.fits", "1.fits", "2.fits"]
    stack.veto("1.fits")
    np.testing.assert_array_equal(stack.result()["data"].values, np.full((5, 6), 1.0))
    fits.PrimaryHDU(np.full((5, 7), 9.0, np.float32)).writeto(tmp_path / "2.fits", overwrite=True)
    with pytest.raises(errors.ParameterError, match=r"2\.fits is not what it was"):
        stack.veto("2.fits")
    assert RunningStack(tmp_path / "deep").names == ["0.fits", "2.fits"]


def test_an_interrupted_run_changes_nothing(tmp_path: Path) -> None:
    """What was half written never counts, and goes with the next run."""
    frames = make_frames(3)
    stack = RunningStack(tmp_path / "deep")
    stack.add(frames[0], name="a")
    before = stack.result().compute()
    broken = lazyccd.transform_image(frames[1], _fail)
    with pytest.raises(RuntimeError, match="no power"):
        stack.add(broken, name="b")
    assert stack.names == ["a"]
    xr.testing.assert_identical(stack.result().compute(), before)
    stack.add(frames[2], name="c")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["current.json", "sums-000001.zarr"]
    check_same(stack, [frames[0], frames[2]], [1.0, 1.0], "average")


def _fail(plane: Any) -> Any:
    raise RuntimeError("no power")


def test_a_result_of_an_older_generation(tmp_path: Path) -> None:
    """Says that the stack was changed, instead of mixing generations."""
    frames = make_frames(2)
    stack = RunningStack(tmp_path / "deep")
    stack.add(frames[0], name="a")
    old = stack.result()
    stack.add(frames[1], name="b")
    with pytest.raises(errors.SourceChangedError, match="was changed after this stack was made"):
        old.compute()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s, f: s.add(f, name="a"), "has a frame 'a' already"),
        (lambda s, f: s.add(f), "needs a name"),
        (lambda s, f: s.add(f, 0, "b"), "weight 0 of b must be above 0"),
        (lambda s, f: s.add(f.isel(y=slice(3, 9)), 1, "b"), r"b shape \(6, 30\) does not match the shape \(20, 30\)"),
        (lambda s, f: s.add(f.drop_vars("uncertainty"), 1, "b"), "b has no uncertainty and the frames"),
        (lambda s, f: s.add(add_mask(f, np.ones((20, 30)), "GHOST"), 1, "b"), "the mask planes of b are not those"),
        (lambda s, f: s.veto("b"), "has no frame 'b'; it has a"),
        (lambda s, f: s.veto("a"), "was not added by its path"),
        (lambda s, f: RunningStack(s.path, "median"), "must be average or sum; use combine"),
    ],
)
def test_bad_input(tmp_path: Path, wrong: Any, message: str) -> None:
    """Is refused before anything is written."""
    (frame,) = make_frames(1)
    stack = RunningStack(tmp_path / "deep")
    stack.add(frame, name="a")
    with pytest.raises(errors.LazyCCDError, match=message):
        wrong(stack, frame)
    assert stack.names == ["a"]


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    """Nothing of another's is overwritten, and a damaged or newer index is named."""
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(errors.FormatError, match="is no running stack and is not empty"):
        RunningStack(tmp_path).add(make_frames(1)[0], name="a")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "current.json").write_text("{")
    with pytest.raises(errors.FormatError, match=r"current\.json cannot be read"):
        RunningStack(tmp_path / "s").result()
    (tmp_path / "s" / "current.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(errors.FormatError, match="format_version 99 and this version reads 2"):
        RunningStack(tmp_path / "s").result()


def test_planes_are_counted(tmp_path: Path) -> None:
    """A plane that only a vetoed frame had is gone."""
    frames = [from_ccddata(CCDData(np.ones((2, 2)), unit="adu")) for _ in range(2)]
    frames[1] = add_mask(frames[1].assign(data=frames[1]["data"] + 1), np.eye(2), "INTERP")
    frames[0] = add_mask(frames[0], np.zeros((2, 2)), "INTERP")
    stack = RunningStack(tmp_path / "deep")
    for i, frame in enumerate(frames):
        stack.add(frame, name=str(i))
    assert (stack.result()["mask"].values == np.eye(2) * MaskSchema().bits("INTERP")).all()
    stack.veto("1", frames[1])
    assert (stack.result()["mask"].values == 0).all()


def test_adders_at_once_lose_nothing(tmp_path: Path) -> None:
    """Of processes that add at the same time, one at a time succeeds; the others say so, and their frames can be added then."""
    script = (
        "import sys, time, numpy as np\n"
        "from astropy.nddata import CCDData\n"
        "from lazyccd import RunningStack, errors\n"
        "for i in range(3):\n"
        "    name = f'{sys.argv[2]}-{i}'\n"
        "    while True:\n"
        "        try:\n"
        "            frame = CCDData(np.full((600, 700), 1.0 + i), unit='adu')\n"
        "            RunningStack(sys.argv[1], 'sum').add(frame, name=name)\n"
        "            break\n"
        "        except errors.TargetBusyError:\n"
        "            time.sleep(0.05)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "deep")]
    running = [subprocess.Popen([*command, word]) for word in ("a", "b")]
    assert [one.wait(120) for one in running] == [0, 0]
    stack = RunningStack(tmp_path / "deep", "sum")
    assert sorted(stack.names) == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert np.all(stack.result()["data"].values == 12)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums are what they were, the error says that they were being written, and nothing is left over."""
    frames = make_frames(2)
    stack = RunningStack(tmp_path / "deep")
    stack.add(frames[0], name="0")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())

    def full(folder: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lazyccd.io.zarr.running_sums.flush_all", full)
    with pytest.raises(errors.WriteError, match=r"deep.*cannot be written: No space left.*free some space"):
        stack.add(frames[1], name="1")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert stack.names == ["0"]
