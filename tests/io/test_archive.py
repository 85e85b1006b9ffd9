"""The layout of archives: levels, provenance, headers, metadata that other software reads; docs/format.md says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import FormatError, ParameterError
from lazyccd.frame.header import header_from_text
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.io.resumable.disk import checksum
from lazyccd.io.zarr.writer import ZarrGroup
from lazyccd.mask_planes import MaskSchema
from lazyccd.testing.steps import formula_frame, formula_tree

SHAPE = (85, 130)
WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.0, "CRPIX2": 50.0, "CRVAL1": 150.0, "CRVAL2": 2.0}
WCS |= {"CD1_1": -1e-4, "CD2_2": 1e-4, "OBJECT": "M 31"}


def make_raw(folder: Path) -> Path:
    """Write a raw frame with a WCS."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(2).integers(0, 9000, SHAPE).astype(np.uint16)
    fits.writeto(folder / "raw.fits", pixels, fits.Header(WCS))
    fits.writeto(folder / "flat.fits", np.full(SHAPE, 2.0, np.float32))
    return folder


def frame(folder: Path) -> xr.Dataset:
    """Return a calibrated frame with all variables, NaN and bad pixels."""
    ds = lazyccd.open_fits(folder / "raw.fits", chunks=(32, 40))
    ds = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 3 * u.electron)
    ds = lazyccd.flat_correct(lazyccd.flag_saturated(ds, 8000), lazyccd.open_fits(folder / "flat.fits"))
    dead = np.zeros(SHAPE, bool)
    dead[10:14, 20:26] = True
    out: xr.Dataset = lazyccd.add_mask(ds, dead)
    return out


def halved_slowly(ds: xr.Dataset) -> dict[str, Any]:
    """Return the next level pixel by pixel."""
    data, sigma, mask = (ds[name].values for name in ("data", "uncertainty", "mask"))
    shape = (data.shape[0] // 2, data.shape[1] // 2)
    out: dict[str, Any] = {name: np.zeros(shape, ds[name].dtype) for name in ("data", "uncertainty", "mask")}
    bad = MaskSchema.from_attrs(ds["mask"].attrs).bad_bits
    for i, j in np.ndindex(shape):
        box = (slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
        used = np.isfinite(data[box]) & ((mask[box] & bad) == 0)
        used = used if used.any() else np.isfinite(data[box])
        n = used.sum()
        out["data"][i, j] = data[box][used].astype(float).sum() / n
        out["uncertainty"][i, j] = np.sqrt((sigma[box][used].astype(float) ** 2).sum()) / n
        out["mask"][i, j] = np.bitwise_or.reduce(mask[box].ravel())
    return out


def test_levels(tmp_path: Path) -> None:
    """Good pixels are averaged, uncertainties propagated, planes united; coordinates and WCS follow; xarray reads them."""
    store = str(lazyccd.to_zarr(frame(make_raw(tmp_path / "in")), tmp_path / "a.zarr"))
    assert lazyccd.build_pyramid(store, 3) == 3
    assert lazyccd.build_pyramid(store, 2) == 3
    for level in (1, 2):
        ds = lazyccd.open_zarr(store, level=level)
        below = lazyccd.open_zarr(store, level=level - 1)
        expected = halved_slowly(below)
        np.testing.assert_allclose(ds["data"], expected["data"], rtol=1e-6)
        np.testing.assert_allclose(ds["uncertainty"], expected["uncertainty"], rtol=1e-6)
        np.testing.assert_array_equal(ds["mask"], expected["mask"])
        assert ds["mask"].attrs == below["mask"].attrs
        sky = ds.ccd.wcs.pixel_to_world(7, 5)
        place = (2**level * 7 + (2**level - 1) / 2, 2**level * 5 + (2**level - 1) / 2)
        assert frame(tmp_path / "in").ccd.wcs.pixel_to_world(*place).separation(sky).arcsec < 1e-6
        plain = xr.open_zarr(store, group=str(level), mask_and_scale=False)
        np.testing.assert_array_equal(plain["data"], ds["data"])
        header = header_from_text(plain.attrs["product_header"])
        assert header["CRPIX1"] == pytest.approx((30 - 0.5) / 2**level + 0.5)
        assert header["CD1_1"] == pytest.approx(-1e-4 * 2**level)
    assert sorted(p.name for p in Path(store).iterdir()) == ["0", "1", "2", "zarr.json"]
    with pytest.raises(FormatError, match=r"has no level 3; it has 3, counted from 0"):
        lazyccd.open_zarr(store, level=3)
    with pytest.raises(FormatError, match="is not a Zarr store"):
        lazyccd.build_pyramid(tmp_path)


def test_levels_by_default_end_at_512(tmp_path: Path) -> None:
    """So that the last one is a picture; odd rows and columns are left out."""
    ds = xr.Dataset({"data": (("y", "x"), np.ones((1100, 2051), np.float32), {"units": "adu"})})
    assert lazyccd.build_pyramid(str(lazyccd.to_zarr(ds, tmp_path / "a.zarr"))) == 3
    assert lazyccd.open_zarr(tmp_path / "a.zarr", level=2)["data"].shape == (275, 512)


def test_metadata_of_levels(tmp_path: Path) -> None:
    """The root names the levels as the convention has it, and has the metadata of all in one file."""
    store = str(lazyccd.to_zarr(frame(make_raw(tmp_path / "in")), tmp_path / "a.zarr"))
    lazyccd.build_pyramid(store, 2)
    root = zarr.open_consolidated(store)
    assert root.attrs["zarr_conventions"][0]["name"] == "multiscales"
    layout = root.attrs["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == ["0", "1"]
    assert root["1/data"].shape == (42, 65)
    assert root["1/data"].metadata.dimension_names == ("y", "x")
    tree = xr.open_datatree(store, engine="zarr", chunks=None)
    assert set(tree.children) == {"0", "1"}
    shards = {name: root[f"0/{name}"].shards for name in ("data", "uncertainty", "mask")}
    assert set(shards.values()) == {(32, 40)}


def test_interrupted_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that was written but not named is named; one that was begun is completed."""
    store = str(lazyccd.to_zarr(frame(make_raw(tmp_path / "in")), tmp_path / "a.zarr"))
    whole = str(shutil.copytree(store, tmp_path / "b.zarr"))
    lazyccd.build_pyramid(whole, 2)
    with monkeypatch.context() as patch:
        patch.setattr("lazyccd.io.zarr.pyramid.replace_complete", lambda path, content: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lazyccd.build_pyramid(store, 2)
    lazyccd.build_pyramid(store, 2)
    assert contents(Path(store)) == contents(Path(whole))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_equal_work_gives_equal_bytes_anywhere(tmp_path: Path) -> None:
    """Copies of the inputs in another folder, at another time, give the same store to the byte."""
    first = make_raw(tmp_path / "in")
    second = Path(shutil.copytree(first, tmp_path / "elsewhere", copy_function=shutil.copyfile))
    for folder, name in ((first, "a"), (second, "b")):
        lazyccd.build_pyramid(str(lazyccd.to_zarr(frame(folder), tmp_path / f"{name}.zarr")), 2)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")
    everything = b"".join(contents(tmp_path / "a.zarr").values())
    assert str(tmp_path).encode() not in everything


def test_provenance(tmp_path: Path) -> None:
    """Every step with its parameters, every input with size and checksum, versions; another input has another write id."""
    folder = make_raw(tmp_path / "in")
    store = Path(str(lazyccd.to_zarr(frame(folder), tmp_path / "a.zarr")))
    ours = json.loads((store / "zarr.json").read_text())["attributes"]["lazyccd"]
    assert ours["format_version"] == 1
    provenance = ours["provenance"]
    expected = [
        {"name": p.name, "size": p.stat().st_size, "crc32c": f"{checksum([p.read_bytes()]):08x}"}
        for p in (folder / "raw.fits", folder / "flat.fits")
    ]
    assert sorted(provenance["inputs"], key=str) == sorted(expected, key=str)
    assert provenance["versions"]["lazyccd"] == lazyccd.__version__
    steps = provenance["steps"]["0"]
    deviation = next(step for step in steps if step["step"] == "set_deviation")
    assert deviation["parameters"]["gain"] == 1.5
    assert deviation["parameters"]["readnoise"] == 3.0
    assert [step["source"] for step in steps if step["step"] == "source"] == ["raw.fits[0]", "flat.fits[0]"]
    fits.setval(folder / "raw.fits", "OBJECT", value="M 33")
    other = Path(str(lazyccd.to_zarr(frame(folder), tmp_path / "b.zarr")))
    again = json.loads((other / "zarr.json").read_text())["attributes"]["lazyccd"]
    assert again["write_id"] != ours["write_id"]
    changed = next(one for one in again["provenance"]["inputs"] if one["name"] == "raw.fits")
    assert changed["crc32c"] == f"{checksum([(folder / 'raw.fits').read_bytes()]):08x}" != expected[0]["crc32c"]


def test_every_card_comes_back(tmp_path: Path) -> None:
    """COMMENT, HISTORY, CONTINUE, HIERARCH, blank and odd cards are in the archive to the byte."""
    header = fits.Header(WCS)
    header["COMMENT"] = "x" * 200
    header["HISTORY"] = "taken"
    header["LONG"] = "y" * 150
    header["HIERARCH ESO DET OUT1 GAIN"] = (1.5, "[e-/ADU]")
    header.add_blank()
    fits.writeto(tmp_path / "a.fits", np.zeros((4, 5), np.float32), header)
    ds = lazyccd.open_fits(tmp_path / "a.fits")
    again = lazyccd.open_zarr(lazyccd.to_zarr(ds, tmp_path / "a.zarr"))
    assert again.attrs["header"] == ds.attrs["header"]
    back = lazyccd.open_fits(str(lazyccd.to_fits(again, tmp_path / "b.fits")))
    kept = [c for c in ds.attrs["header"].split("\n") if c[:8].strip() not in {"SIMPLE", "BITPIX", "NAXIS", "EXTEND"}]
    assert set(kept) <= set(back.attrs["header"].split("\n"))


@pytest.mark.parametrize("shards", [(0, 0), (512,), 512, (), (8, -1), (8, 8.5), (8, 8, 8)])
def test_shards_that_are_none(tmp_path: Path, shards: Any) -> None:
    """What is no shape of a shard is refused, and nothing is begun."""
    frame = lazyccd.from_ccddata(CCDData(np.ones((20, 30)), unit="adu"))
    with pytest.raises(ParameterError, match="must be two integers"):
        lazyccd.to_zarr(frame, tmp_path / "a.zarr", shards=shards)
    assert not list(tmp_path.iterdir())


def test_levels_of_what_has_none(tmp_path: Path) -> None:
    """A number of levels includes the image, and no frame has the name of a level."""
    frame = lazyccd.from_ccddata(CCDData(np.ones((20, 30)), unit="adu"))
    store = lazyccd.to_zarr(frame, tmp_path / "a.zarr")
    with pytest.raises(ParameterError, match="levels=0 must be at least 1"):
        lazyccd.build_pyramid(store, 0)
    tree = lazyccd.to_zarr(xr.DataTree.from_dict({"1": frame}), tmp_path / "b.zarr")
    with pytest.raises(FormatError, match="frame '1' has the name of a level"):
        lazyccd.build_pyramid(tree)


def test_levels_of_trees(tmp_path: Path) -> None:
    """Each frame of a tree has the levels that it has alone; a tree of them comes back, with its root."""
    first = frame(make_raw(tmp_path / "in"))
    frames = {"SCI_1": first, "amp/SCI_2": first.isel(y=slice(0, 60), x=slice(3, 90))}
    store = str(lazyccd.to_zarr(make_tree(frames, {"header": "INSTRUME= 'CAM'"}), tmp_path / "a.zarr"))
    assert lazyccd.build_pyramid(store, 3) == 3
    for level in (1, 2):
        tree = lazyccd.open_zarr(store, level=level)
        assert tree.attrs["header"] == "INSTRUME= 'CAM'"
        for name, ds in frames.items():
            alone = str(lazyccd.to_zarr(ds, tmp_path / "b.zarr", overwrite=True))
            lazyccd.build_pyramid(alone, 3)
            xr.testing.assert_identical(tree[name].to_dataset(), lazyccd.open_zarr(alone, level=level))
            assert tree[name].to_dataset().ccd.wcs.wcs.crval.tolist() == [150.0, 2.0]
    found = zarr.open_consolidated(store)
    layout = found.attrs["multiscales"]["layout"]
    assert [level["asset"] for level in layout[:3]] == ["SCI_1", "1/SCI_1", "2/SCI_1"]
    assert layout[5]["derived_from"] == "1/amp/SCI_2"
    assert all(found[level["asset"]]["data"].ndim == 2 for level in layout)
    assert "multiscales" not in lazyccd.open_zarr(store).attrs  # what is made of the tree may have no levels
    assert found["2/amp/SCI_2/data"].shape == (15, 21)
    assert list(frames_of(lazyccd.open_zarr(store))) == list(frames)


@pytest.mark.parametrize("is_tree", [False, True])
def test_levels_go_on_and_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tree: bool) -> None:
    """An interrupted level has no name and is gone on with; a damaged one is made anew if that is asked for."""
    ds = frame(make_raw(tmp_path / "in"))
    given = make_tree({"A": ds, "B": ds}, {}) if is_tree else ds
    store = Path(str(lazyccd.to_zarr(given, tmp_path / "a.zarr", shards=(16, 16))))
    with monkeypatch.context() as patch:
        written = limit_writes(patch, 5)
        with dask.config.set(scheduler="sync"), pytest.raises(ZeroDivisionError):
            lazyccd.build_pyramid(store, 2)
    assert len(written) == 5
    assert not (store / "1").exists()
    shutil.copytree(store, tmp_path / "b.zarr")
    with monkeypatch.context() as patch:
        again = limit_writes(patch, 100)
        lazyccd.build_pyramid(store, 2, verify=True)
    assert len(again) == (2 if is_tree else 1) * 3 * 5 - 5
    assert not set(again) & set(written)
    whole = contents(store)
    shard = next(path for path in sorted(store.rglob("c/0/0")) if path.relative_to(store).parts[0] == "1")
    shard.write_bytes(b"")
    assert lazyccd.build_pyramid(store, 2) == 2
    assert contents(store) != whole
    assert lazyccd.build_pyramid(store, 2, overwrite=True) == 2
    assert contents(store) == whole


def limit_writes(patch: pytest.MonkeyPatch, count: int) -> list[tuple[str, Any]]:
    """Let so many regions be written; return a list of those that were, by group."""
    written: list[tuple[str, Any]] = []
    original = ZarrGroup.write

    def limited(part: ZarrGroup, region: Any, arrays: Any) -> Any:
        if len(written) == count:
            raise ZeroDivisionError
        written.append((part.target.group, region))
        return original(part, region, arrays)

    patch.setattr(ZarrGroup, "write", limited)
    return written


def test_branches_of_a_tree(tmp_path: Path) -> None:
    """A branch of a store opens as the tree of its frames, at any level; a level that is not there says how many are."""
    given = formula_tree(3)
    frames = dict(zip(("R22/C05", "R22/C06", "R2"), frames_of(given).values(), strict=True))
    store = lazyccd.to_zarr(make_tree(frames, {"header": "INSTRUME= 'CAM     '"}), tmp_path / "a.zarr")
    assert lazyccd.build_pyramid(store, 2) == 2
    for level in (0, 1):
        branch = lazyccd.open_zarr(f"{store}/R22", level=level)
        assert branch.attrs == {"header": "INSTRUME= 'CAM     '"}
        assert list(frames_of(branch)) == ["C05", "C06"]
        for name, frame in frames_of(branch).items():
            alone = lazyccd.open_zarr(f"{store}/R22/{name}", level=level)
            np.testing.assert_array_equal(frame["data"].values, alone["data"].values)
    lazyccd.to_fits(lazyccd.open_zarr(f"{store}/R22"), tmp_path / "b.fits")
    assert list(frames_of(lazyccd.open_mef(tmp_path / "b.fits"))) == ["C05", "C06"]
    with pytest.raises(FormatError, match=r"a\.zarr has no level 2; it has 2, counted from 0, and build_pyramid\(\)"):
        lazyccd.open_zarr(store, level=2)
    for level in (-1, "1", 1.0, None):
        with pytest.raises(ParameterError, match=r"level .* must be an integer of at least 0"):
            lazyccd.open_zarr(store, level=level)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunks", [0, -2, 2.5, "a", (5,), (1, 2, 3), (2, 0)])
def test_chunks_that_are_none(tmp_path: Path, chunks: Any) -> None:
    """What is no chunk shape is refused, as by open_fits; -1 is a whole axis."""
    store = lazyccd.to_zarr(formula_frame((6, 9)), tmp_path / "a.zarr")
    with pytest.raises(ParameterError, match="must be one or two integers in the order y, x"):
        lazyccd.open_zarr(store, chunks=chunks)
    assert lazyccd.open_zarr(store, chunks=(4, -1))["data"].chunks == ((4, 2), (9,))


def test_a_file_in_a_folder_named_like_a_store(tmp_path: Path) -> None:
    """It is the FITS file that it is, with an extension named behind it too."""
    folder = tmp_path / "night.zarr"
    folder.mkdir()
    path = lazyccd.to_fits(formula_frame((6, 9)), folder / "a.fits")
    for name in (path, f"{path}[0]"):
        assert lazyccd.as_frame(name)["data"].shape == (6, 9)


@pytest.mark.parametrize("form", ["fits", "zarr"])
def test_a_lazy_write_of_tables_alone(tmp_path: Path, form: str) -> None:
    """A file without an image has no region to write, and is made all the same."""
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="T")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "t.fits")
    lazy = getattr(lazyccd, f"to_{form}")(lazyccd.open_mef(tmp_path / "t.fits"), tmp_path / f"a.{form}", compute=False)
    assert not (tmp_path / f"a.{form}").exists()
    tree = lazyccd.open_zarr(lazy.compute()) if form == "zarr" else lazyccd.open_mef(lazy.compute())
    assert fits.getdata(lazyccd.to_fits(tree, tmp_path / "b.fits"), "T")["a"].tolist() == [1, 2]
