"""Frames from files and into them: nothing is lost, bytes do not depend on chunks, nothing half-written has its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lazyccd
from lazyccd.errors import FormatError, MissingFileError, ParameterError, SourceChangedError
from lazyccd.frame.core import resolve
from lazyccd.io.fits.write import regions_of
from lazyccd.mask_planes import MaskSchema
from lazyccd.testing.asserts import assert_frames_equal
from lazyccd.testing.steps import box_filter, formula_frame

SHAPE = (70, 90)
BITS = {name: MaskSchema().bits(name) for name in MaskSchema().names}
WRITERS = {"fits": (lazyccd.to_fits, lazyccd.open_fits), "zarr": (lazyccd.to_zarr, lazyccd.open_zarr)}


def full_frame(kind: str = "std", dtype: str = "float32", chunks: Any = (33, 41)) -> xr.Dataset:
    """Return a frame that has everything: NaN, uncertainty, planes, header, unit."""
    rng = np.random.default_rng(4)
    data = rng.normal(100, 5, SHAPE).astype(dtype)
    data[3, 4] = np.nan
    header = fits.Header({"OBJECT": "M 31", "EXPTIME": 30.0, "HIERARCH ESO DET RON": 5.0})
    header["HISTORY"] = "taken"
    ds = lazyccd.from_ccddata(CCDData(data, unit="electron", meta=header))
    ds = lazyccd.with_uncertainty(ds, rng.uniform(1, 2, SHAPE).astype(dtype), kind)  # type: ignore[arg-type]
    ds = lazyccd.add_mask(lazyccd.add_mask(ds, np.isnan(data), "NO_DATA"), rng.random(SHAPE) < 0.1)
    ds = lazyccd.add_mask(ds, rng.random(SHAPE) < 0.1, "INTERP")
    ds = lazyccd.add_mask(ds, rng.random(SHAPE) < 0.1, "SATELLITE", "trail of a satellite")
    return lazyccd.rechunk(ds, chunks)


def plain(folder: Path, dtype: str = "uint16", **cards: Any) -> Path:
    """Write a FITS file of one image."""
    path = folder / "raw.fits"
    pixels = np.random.default_rng(1).integers(0, 250, SHAPE).astype(dtype)
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path)
    return path


@pytest.mark.parametrize("kind", ["std", "var", "ivar"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", WRITERS)
def test_round_trip(tmp_path: Path, form: str, dtype: str, kind: str) -> None:
    """Pixels, planes with names and descriptions, units, types of uncertainty and header cards come back."""
    write, read = WRITERS[form]
    ds = full_frame(kind, dtype)
    again = read(write(ds, tmp_path / "a"))
    assert lazyccd.to_ccddata(again).unit == u.electron
    assert again["mask"].attrs == ds["mask"].attrs
    assert again["uncertainty"].attrs == ds["uncertainty"].attrs
    before, after = ds.ccd.header, again.ccd.header
    assert all(after[key] == before[key] for key in before if key != "HISTORY")
    assert "taken" in list(after["HISTORY"])
    for name in ds.data_vars:
        assert again[name].dtype == ds[name].dtype
        np.testing.assert_array_equal(again[name].values, ds[name].values, err_msg=str(name))


@pytest.mark.filterwarnings("ignore::lazyccd.errors.RepeatedStepWarning")  # the frame is in electrons already
@given(data=st.data())
def test_any_chunks_give_the_same_bytes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """FITS files are equal whatever the chunks and the scheduler; so are Zarr stores with the same shards."""
    folder = tmp_path_factory.mktemp("bytes")
    chunks = [data.draw(st.tuples(st.integers(5, 70), st.integers(5, 90))) for _ in range(2)]
    contents = []
    for number, pair in enumerate(chunks):
        ds = lazyccd.gain_correct(full_frame(chunks=pair), 2 * u.electron / u.adu)
        with dask.config.set(scheduler=data.draw(st.sampled_from(["sync", "threads"]))):
            path = Path(str(lazyccd.to_fits(ds, folder / f"{number}.fits")))
            store = Path(str(lazyccd.to_zarr(ds, folder / f"{number}.zarr", shards=(32, 48))))
        files = sorted(p for p in store.rglob("*") if p.is_file())
        contents.append(
            [path.read_bytes(), *((p.relative_to(store), p.read_bytes()) for p in files if "zarr.json" not in p.name)]
        )
    assert contents[0] == contents[1]


UNCERTAINTIES = {"std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}


@pytest.mark.parametrize("kind", UNCERTAINTIES)
def test_astropy_reads_what_is_written(tmp_path: Path, kind: str) -> None:
    """``CCDData.read`` gives data, uncertainty, mask of the bad planes, unit and WCS."""
    ds = full_frame(kind).ccd.with_header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRPIX1": 5.0,
            "CRPIX2": 7.0,
            "CD1_1": -1e-4,
            "CD2_2": 1e-4,
            "CRVAL1": 10.0,
        }
    )
    ccd = CCDData.read(lazyccd.to_fits(ds, tmp_path / "a.fits"))
    ours = lazyccd.to_ccddata(ds)
    assert isinstance(ccd.uncertainty, UNCERTAINTIES[kind])
    assert ccd.unit == u.electron
    np.testing.assert_array_equal(ccd.data, ours.data)
    np.testing.assert_array_equal(ccd.uncertainty.array, ours.uncertainty.array)
    np.testing.assert_array_equal(ccd.mask, ours.mask)
    assert not ccd.mask[(ds["mask"].values == BITS["INTERP"])].any()
    assert ccd.wcs.wcs.crpix.tolist() == [5.0, 7.0]


def test_xarray_reads_a_store_unaided(tmp_path: Path) -> None:
    """``xarray.open_zarr`` of group 0 gives the frame, which works on."""
    ds = full_frame()
    opened = xr.open_zarr(lazyccd.to_zarr(ds, tmp_path / "a.zarr"), group="0", mask_and_scale=False)
    for name in ds.data_vars:
        np.testing.assert_array_equal(opened[name].values, ds[name].values)
    assert opened["mask"].attrs["flag_meanings"].split()[-1] == "SATELLITE"
    np.testing.assert_array_equal(lazyccd.add(opened, 1 * u.electron)["data"], ds["data"] + 1)


def test_units(tmp_path: Path) -> None:
    """Integers without BUNIT are in adu, floats dimensionless; ``unit=`` wins over BUNIT."""
    assert lazyccd.open_fits(plain(tmp_path)).ccd.unit == u.adu
    for name, expected in (("float32", u.dimensionless_unscaled), ("int32", u.adu)):
        (tmp_path / name).mkdir()
        assert lazyccd.open_fits(plain(tmp_path / name, name)).ccd.unit == expected
    (tmp_path / "named").mkdir()
    path = plain(tmp_path / "named", BUNIT="ELECTRONS")
    assert lazyccd.open_fits(path).ccd.unit == u.electron
    assert lazyccd.open_fits(path, unit="photon").ccd.unit == u.photon


def test_what_is_read_beside_an_image(tmp_path: Path) -> None:
    """Uncertainty and mask of the same version and shape, found by name; DQ before MASK."""
    rng = np.random.default_rng(2)
    hdus: list[Any] = [fits.PrimaryHDU()]
    for version in (1, 2):
        pixels = rng.random((3, *SHAPE)).astype("f4")
        hdus += [
            fits.ImageHDU(pixels[0], name="SCI", ver=version),
            fits.ImageHDU(pixels[1], name="ERR", ver=version),
            fits.ImageHDU((pixels[2] > 0.9).astype("i2") * 4, name="DQ", ver=version),
            fits.ImageHDU((pixels[2] > 0.5).astype("u1"), name="MASK", ver=version),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    ds = lazyccd.open_fits(tmp_path / "a.fits[SCI,2]", dq="boolean")
    np.testing.assert_array_equal(ds["data"], hdus[5].data)
    np.testing.assert_array_equal(ds["uncertainty"], hdus[6].data)
    np.testing.assert_array_equal(ds["mask"], np.where(hdus[7].data, BITS["BAD"], 0))
    assert ds["uncertainty"].attrs["uncertainty_type"] == "std"


def test_pixels_that_are_nothing(tmp_path: Path) -> None:
    """NaN and BLANK are NaN and NO_DATA; integers without BLANK have no mask at all."""
    assert "mask" not in lazyccd.open_fits(plain(tmp_path))
    blank = np.arange(12, dtype=np.int16).reshape(3, 4)
    fits.PrimaryHDU(blank, fits.Header({"BLANK": 5})).writeto(tmp_path / "blank.fits")
    ds = lazyccd.open_fits(tmp_path / "blank.fits").compute()
    assert np.isnan(ds["data"].values[1, 1])
    np.testing.assert_array_equal(ds["mask"].values, np.where(blank == 5, BITS["NO_DATA"], 0))


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", [*PACKERS, ".fz", "memory"])
def test_compressed_and_remote_files(tmp_path: Path, suffix: str) -> None:
    """The same frame as of the plain file, header included where the format keeps it."""
    path = plain(tmp_path, OBJECT="M 31")
    expected = lazyccd.open_fits(path, chunks=(20, 30))
    if suffix in PACKERS:
        name = f"{path}{suffix}"
        Path(name).write_bytes(PACKERS[suffix](path.read_bytes()))
    elif suffix == ".fz":
        name = f"{path}.fz"
        packed = fits.CompImageHDU(fits.getdata(path), fits.Header({"OBJECT": "M 31"}), compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(name)
    else:
        name = "memory://night/raw.fits"
        fsspec.filesystem("memory").pipe("/night/raw.fits", path.read_bytes())
    ds = lazyccd.open_fits(name, chunks=(20, 30))
    np.testing.assert_array_equal(ds["data"], expected["data"])
    assert ds["data"].attrs == expected["data"].attrs
    assert ds.ccd.header["OBJECT"] == "M 31"


def test_extensions_by_name(tmp_path: Path) -> None:
    """Number, name, name and version; what is not there or not clear is an error that lists what is."""
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(np.full((2, 3), k, "f4"), name="SCI", ver=k) for k in (1, 2))]
    fits.HDUList([*hdus, fits.ImageHDU(np.zeros((4, 5), "f4"), name="OTHER")]).writeto(tmp_path / "a.fits")
    path = tmp_path / "a.fits"
    for selector, expected in ((2, 2), (("SCI", 1), 1), ("OTHER", 0), (("sci", 2), 2)):
        assert lazyccd.open_fits(path, hdu=selector)["data"].values[0, 0] == expected  # type: ignore[arg-type]
    for selector in (None, "SCI", "NONE", 7, ("SCI", 3)):
        with pytest.raises(FormatError, match=r"(?s)a\.fits.*SCI,1.*SCI,2"):
            lazyccd.open_fits(path, hdu=selector)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="names extension"):
        lazyccd.open_fits(f"{path}[1]", hdu=2)
    with pytest.raises(MissingFileError, match=r"nowhere\.fits"):
        lazyccd.open_fits(tmp_path / "nowhere.fits")


@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.int64]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    ),
    data=st.data(),
)
def test_any_window_of_any_chunks(pixels: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Slices of a lazy file are the slices of its pixels."""
    path = tmp_path_factory.mktemp("windows") / "a.fits"
    fits.PrimaryHDU(pixels).writeto(path)
    chunks = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    window = tuple(data.draw(st.slices(n)) for n in pixels.shape)
    ds = lazyccd.open_fits(path, chunks=chunks).isel(y=window[0], x=window[1])
    np.testing.assert_array_equal(ds["data"].values, pixels.astype(ds["data"].dtype)[window])


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_that_changes_under_a_write(tmp_path: Path, form: str) -> None:
    """The message names it, and nothing appears under the final name, nor stays beside it."""
    path = plain(tmp_path)
    ds = lazyccd.open_fits(path, chunks=20)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(SourceChangedError, match=r"raw\.fits"):
        WRITERS[form][0](ds, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["raw.fits"]


@pytest.mark.parametrize("form", WRITERS)
def test_lazy_writes(tmp_path: Path, form: str) -> None:
    """With ``compute=False`` nothing is there until it is computed."""
    write, read = WRITERS[form]
    ds = full_frame()
    lazy = write(ds, tmp_path / "out", compute=False)
    assert list(tmp_path.iterdir()) == []
    assert lazy.compute() == str(tmp_path / "out")  # type: ignore[union-attr]
    np.testing.assert_array_equal(read(tmp_path / "out")["data"], ds["data"])


def test_a_frame_is_not_written_over_its_own_file(tmp_path: Path) -> None:
    """Not even with ``overwrite``."""
    path = plain(tmp_path)
    ds = lazyccd.add(lazyccd.open_fits(path), 1 * u.adu)
    with pytest.raises(ParameterError, match=r"raw\.fits, which cannot be written at the same time"):
        lazyccd.to_fits(ds, path, overwrite=True)
    assert fits.getdata(path).dtype.kind == "u"


def test_shards_follow_the_chunks(tmp_path: Path) -> None:
    """One task writes what one task computes; the store opens in these chunks."""
    store = lazyccd.to_zarr(full_frame(chunks=(32, 45)), tmp_path / "a.zarr")
    assert lazyccd.open_zarr(store)["data"].data.chunksize == (32, 45)
    assert_frames_equal(
        lazyccd.open_zarr(store), lazyccd.open_zarr(store, chunks=(7, 90)).pipe(lazyccd.rechunk, (32, 45))
    )


def test_slices_and_bins_are_written(tmp_path: Path) -> None:
    """What is on disk is what the frame shows."""
    ds = full_frame().isel(y=slice(5, 60, 2), x=slice(None, None, -1))
    np.testing.assert_array_equal(fits.getdata(lazyccd.to_fits(ds, tmp_path / "a.fits")), ds["data"].values)
    binned = lazyccd.block_average(full_frame(), 7)
    again = lazyccd.open_zarr(lazyccd.to_zarr(binned, tmp_path / "a.zarr"))
    np.testing.assert_array_equal(again["data"], binned["data"])
    np.testing.assert_array_equal(again["y"], binned["y"])


def test_wide_images_are_written_in_what_needs_least(tmp_path: Path) -> None:
    """Whole rows, if they read no more than squares: of files, not of dask arrays, high blocks of stores or wide margins."""
    header = fits.Header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": 9000, "NAXIS2": 9000, "BUNIT": "adu"})
    path = tmp_path / "wide.fits"
    path.write_bytes(header.tostring().encode())
    os.truncate(path, 2880 + -(-9000 * 9000 * 2 // 2880) * 2880)
    raw = lazyccd.open_fits(path)
    store = lazyccd.open_zarr(lazyccd.to_zarr(formula_frame((600, 9000), (512, 2048)), tmp_path / "a.zarr"))
    chunked = lazyccd.from_ccddata(CCDData(np.zeros((10, 9000)), unit="adu"))

    def widest(ds: xr.Dataset) -> int:
        return max(region.shape.x for region in regions_of(resolve(ds), (1, 1)))

    assert widest(lazyccd.multiply(raw, 2.0)) == 9000
    assert widest(box_filter(raw, 1)) == 9000
    assert widest(box_filter(raw, 60)) == 2048
    assert widest(chunked) < 9000
    assert widest(store) == 2048
