"""Trees as multi-extension files and as groups of stores: nothing that was opened is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import ArgumentTypeError, FrameError, MissingFileError, ParameterError, SourceChangedError
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.testing.steps import formula_frame
from tests.io.lossless import assert_nothing_lost


def exposure(tmp_path: Path) -> Path:
    """Write an exposure: two detectors with planes, one bare, a table, a cube of one plane, and cards of all sorts."""
    rng = np.random.default_rng(1)
    primary = fits.PrimaryHDU(header=fits.Header({"FILTER": "r", "EXPTIME": 30.0, "GAIN": 0.0, "OBJECT": "M 31"}))
    primary.header["HIERARCH ESO TEL AIRM"] = 1.23
    primary.header["COMMENT"] = "of the primary"
    hdus: list[Any] = [primary]
    for i in (1, 2):
        hdus.append(fits.ImageHDU(rng.integers(0, 60000, (20, 30)).astype(np.uint16), name="SCI", ver=i))
        hdus[-1].header.update({"GAIN": 1.5 + i, "EXPTIME": 20.0 + i, "LONG": "x" * 100})
        hdus[-1].header["HISTORY"] = "of the extension"
        hdus.append(fits.ImageHDU(rng.random((20, 30), np.float32), name="ERR", ver=i))
        hdus[-1].header["COMMENT"] = "errors"
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("x", "E", array=np.arange(7.0))], name="CAT"))
    hdus.append(fits.ImageHDU(rng.random((1, 9, 8), np.float32), name="CUBE"))
    path = tmp_path / "raw.fits"
    fits.HDUList(hdus).writeto(path)
    return path


def test_what_changes_is_written(tmp_path: Path) -> None:
    """Reduced trees keep order, names and tables; new planes follow their image, cubes get their axis back."""
    raw = exposure(tmp_path)
    tree = lazyccd.open_mef(raw)
    flagged = tree.ccd.flag_saturated({"SCI_1": 50000, "SCI_2": 50000, "CUBE": 2.0})
    path = lazyccd.to_fits(flagged, tmp_path / "a.fits")
    with fits.open(path, checksum=True) as file:
        names = [(hdu.name, hdu.ver) for hdu in file]
        assert names == [
            ("PRIMARY", 1),
            ("SCI", 1),
            ("DQ", 1),
            ("ERR", 1),
            ("SCI", 2),
            ("DQ", 2),
            ("ERR", 2),
            ("CAT", 1),
            ("CUBE", 1),
            ("DQ", 3),
        ]
        assert file["CUBE"].data.shape == file["DQ", 3].data.shape == (1, 9, 8)
        assert "FILTER" not in file["SCI", 1].header
        assert file["SCI", 1].header["EXPTIME"] == 21.0
        assert "of the primary" in str(file[0].header["COMMENT"])
        assert file[0].header["ESO TEL AIRM"] == 1.23
    assert_nothing_lost(raw, Path(str(path)))
    again = lazyccd.open_mef(path)
    for name, ds in frames_of(flagged).items():
        np.testing.assert_array_equal(again[name]["mask"].values, ds["mask"].values)
        assert again[name].to_dataset().ccd.header["FILTER"] == "r"


def test_inherited_cards(tmp_path: Path) -> None:
    """One that changed goes into the extension; one that was taken out stays out, whatever the root has."""
    tree = lazyccd.open_mef(exposure(tmp_path))
    changed = tree.ccd.with_header({"FILTER": "g"})
    with fits.open(lazyccd.to_fits(changed, tmp_path / "a.fits")) as file:
        assert (file[0].header["FILTER"], file["SCI", 1].header["FILTER"]) == ("r", "g")
        assert "OBJECT" not in file["SCI", 1].header
    removed = tree.ccd.with_header({"FILTER": None})
    with fits.open(lazyccd.to_fits(removed, tmp_path / "b.fits")) as file:
        assert "FILTER" not in file["SCI", 1].header
        assert file["SCI", 1].header["INHERIT"] is False
        assert file["SCI", 1].header["OBJECT"] == "M 31"


def test_frames_that_went_and_came(tmp_path: Path) -> None:
    """Frames that were dropped are not written, their planes neither; new ones come last, by their names."""
    tree = lazyccd.open_mef(exposure(tmp_path))
    frames = frames_of(tree)
    del frames["SCI_1"]
    more = formula_frame((6, 7), seed=3)
    other = make_tree(
        {**frames, "sky/A": more, "sky/B": more.ccd.with_header({"EXTNAME": "SCI", "EXTVER": 2})}, tree.attrs
    )
    with fits.open(lazyccd.to_fits(other, tmp_path / "a.fits")) as file:
        assert [hdu.name for hdu in file] == [
            "PRIMARY",
            "SCI",
            "ERR",
            "CAT",
            "CUBE",
            "DQ",
            "sky_A",
            "UNCERT",
            "DQ",
            "sky_B",
            "UNCERT",
            "DQ",
        ]
    store = lazyccd.open_zarr(str(lazyccd.to_zarr(other, tmp_path / "a.zarr")))
    assert list(store.ccd.frames) == ["SCI_2", "CUBE", "sky/A", "sky/B"]
    np.testing.assert_array_equal(store["sky/B"]["mask"].values, more["mask"].values)
    plain = xr.open_datatree(tmp_path / "a.zarr", engine="zarr", consolidated=True)
    np.testing.assert_array_equal(plain["sky/A"]["data"].values, more["data"].values)


def test_trees_that_users_make(tmp_path: Path) -> None:
    """Names of the tree become EXTNAMEs, and the file opens as the same tree."""
    tree = make_tree({name: formula_frame((5, 6), seed=i) for i, name in enumerate(["N1", "N2"])}, {})
    again = lazyccd.open_mef(lazyccd.to_fits(tree, tmp_path / "a.fits"))
    assert list(again.children) == ["N1", "N2"]
    for name, ds in frames_of(tree).items():
        for variable in ds.data_vars:
            np.testing.assert_allclose(again[name][variable].values, ds[variable].values, rtol=1e-6)
    assert CCDData.read(tmp_path / "a.fits", hdu=1, unit="adu").data.shape == (5, 6)


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_any_scheduler_writes_the_same_bytes(tmp_path: Path, scheduler: str, request: pytest.FixtureRequest) -> None:
    """Frames of different shapes and chunks, written at once or later, region by region."""
    tree = make_tree({name: formula_frame((50 + i, 60), (20, 7 + i), seed=i) for i, name in enumerate("ab")}, {})
    with dask.config.set(scheduler="sync"):
        expected = Path(str(lazyccd.to_fits(tree, tmp_path / "a.fits"))).read_bytes()
    pool = request.getfixturevalue("processes") if scheduler == "processes" else None
    with dask.config.set(scheduler=scheduler, pool=pool):
        later = lazyccd.to_fits(tree.ccd.rechunk(13), tmp_path / "b.fits", compute=False)
        assert Path(later.compute()).read_bytes() == expected
        store = lazyccd.to_zarr(tree, tmp_path / "b.zarr", compute=False, shards=(16, 16)).compute()
    assert [ds["data"].shape for ds in frames_of(lazyccd.open_zarr(store)).values()] == [(50, 60), (51, 60)]


@pytest.mark.parametrize("kind", ["fits", "zarr"])
def test_interrupted_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What was done of any frame is not done again."""
    tree = make_tree({name: formula_frame((40, 16), (10, 16), seed=i) for i, name in enumerate("ab")}, {})
    write: Any = lazyccd.to_fits if kind == "fits" else lazyccd.to_zarr
    expected = write(tree, tmp_path / f"expected.{kind}")
    from lazyccd.io.fits.writer import FitsFrame
    from lazyccd.io.zarr.writer import ZarrGroup

    cls: Any = FitsFrame if kind == "fits" else ZarrGroup
    original, calls = cls.write, []

    def failing(self: Any, region: Any, arrays: Any) -> Any:
        calls.append(region)
        if len(calls) == 6:
            raise OSError(28, "No space left on device")
        return original(self, region, arrays)

    monkeypatch.setattr(cls, "write", failing)
    with dask.config.set(scheduler="sync"):
        with pytest.raises(OSError, match="No space"):
            write(tree, tmp_path / f"a.{kind}")
        path = write(tree, tmp_path / f"a.{kind}")
    assert len(calls) == 6 + 3
    if kind == "fits":
        assert Path(path).read_bytes() == Path(expected).read_bytes()
    else:
        for name, ds in frames_of(lazyccd.open_zarr(path)).items():
            np.testing.assert_array_equal(ds["data"].values, tree[name]["data"].values)


def test_trees_without_frames(tmp_path: Path) -> None:
    """One with a table alone is written and comes back; one with nothing is refused."""
    table = fits.BinTableHDU.from_columns([fits.Column("t", "E", array=np.arange(3.0))], name="GUIDE")
    raw = tmp_path / "raw.fits"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(raw)
    tree = lazyccd.open_mef(raw)
    store = lazyccd.open_zarr(str(lazyccd.to_zarr(tree, tmp_path / "a.zarr")))
    assert_nothing_lost(raw, Path(str(lazyccd.to_fits(store, tmp_path / "a.fits"))), masks=False)
    for nothing in (xr.DataTree(), make_tree({}, {"header": "INSTRUME= 'CAM'"})):
        for write_, name in ((lazyccd.to_fits, "b.fits"), (lazyccd.to_zarr, "b.zarr")):
            with pytest.raises(
                FrameError, match=r"the tree has no frame; its nodes are \['.'\], and one must have 'data'"
            ):
                write_(nothing, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fits", "a.zarr", "raw.fits"]


def test_refusals(tmp_path: Path) -> None:
    """A tree is not written over what it is made or copied from; a changed source and one frame for a tree are told."""
    raw = exposure(tmp_path)
    tree = lazyccd.open_mef(raw)
    with pytest.raises(ParameterError, match=r"made from .*raw.fits, which cannot be written at the same time"):
        lazyccd.to_fits(tree, raw, overwrite=True)
    only_table = make_tree({"a": formula_frame((4, 5))}, {"hdus": [{"root": True}, tree.attrs["hdus"][5]]})
    with pytest.raises(ParameterError, match=r"made from .*raw.fits"):
        lazyccd.to_fits(only_table, raw, overwrite=True)
    store = lazyccd.to_zarr(tree, tmp_path / "a.zarr")
    with pytest.raises(ArgumentTypeError, match=r"a.zarr holds the frames SCI_1, SCI_2, CUBE and must be one"):
        lazyccd.subtract_bias(tree["CUBE"].to_dataset(), str(store))
    raw.write_bytes(raw.read_bytes() + b" " * 2880)
    with pytest.raises(SourceChangedError):
        lazyccd.to_fits(only_table, tmp_path / "b.fits")
    assert not (tmp_path / "b.fits").exists()
    raw.unlink()
    with pytest.raises(MissingFileError, match=r"\.fits does not exist"):
        lazyccd.to_fits(only_table, tmp_path / "b.fits")
    with pytest.raises(ParameterError, match="frame name 'Säge' cannot be an EXTNAME"):
        lazyccd.to_fits(xr.DataTree.from_dict({"Säge": formula_frame((4, 5))}), tmp_path / "b.fits")


def test_reduced_and_assembled(tmp_path: Path) -> None:
    """A tree reduced with its own calibration goes to FITS and comes back; detectors keep the tables of the file."""
    raw = exposure(tmp_path)
    tree = lazyccd.open_mef(raw, roles={"CUBE": "kept"})
    tree = tree.ccd.with_header(detsec={"SCI_1": "[1:30,1:20]", "SCI_2": "[60:31,1:20]"}, ccdname="CCD1")
    reduced = tree.ccd.gain_correct(lazyccd.Keyword("GAIN", unit=u.electron / u.adu))
    again = lazyccd.open_mef(lazyccd.to_fits(reduced, tmp_path / "a.fits"), roles={"CUBE": "kept"})
    assert again["SCI_2"].to_dataset().ccd.unit == u.electron
    detector = lazyccd.assemble(again, group="CCDNAME")
    with fits.open(lazyccd.to_fits(detector, tmp_path / "b.fits")) as file:
        names = [hdu.name for hdu in file]
        assert sorted(names) == sorted(["PRIMARY", "CCD1", "UNCERT", "DQ", "CAT", "CUBE"])
        with fits.open(raw) as source:
            expected = np.hstack(
                [source["SCI", 1].data * np.float32(2.5), source["SCI", 2].data[:, ::-1] * np.float32(3.5)]
            )
        np.testing.assert_allclose(file["CCD1"].data, expected, rtol=1e-6)


def test_compressed_trees(tmp_path: Path) -> None:
    """Every image is compressed without losing a bit, tables stay byte for byte; quantised ones are near."""
    tree = lazyccd.open_mef(exposure(tmp_path))
    path = lazyccd.to_fits(tree, tmp_path / "a.fits.fz", compress="RICE_1")
    with fits.open(path) as file:
        assert [type(hdu).__name__ for hdu in file][1:6] == ["CompImageHDU"] * 4 + ["BinTableHDU"]
        assert file["CAT"].data["x"].tolist() == list(range(7))
    again = lazyccd.open_mef(path)
    for name, ds in frames_of(tree).items():
        np.testing.assert_array_equal(again[name]["data"].values, ds["data"].values)
    near = lazyccd.open_mef(lazyccd.to_fits(tree, tmp_path / "b.fits.fz", compress="RICE_1", quantize=8))
    assert 0 < float(abs(near["SCI_1"]["data"] - tree["SCI_1"]["data"]).max()) < 5000
