"""Tile-compressed FITS: other programs read and accept it, nothing is lost that was not given away, regions do not matter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd import from_ccddata, open_fits, open_mef, open_zarr, to_fits, to_zarr
from lazyccd.errors import FormatError, ParameterError, ShapeError
from lazyccd.io.fits.layout import HduSpec
from lazyccd.io.fits.tile_writer import COMPRESSIONS, Packing
from lazyccd.io.fits.writer import FitsFrame, FitsTarget
from lazyccd.sections import Region

Array = npt.NDArray[Any]

PROGRAMS = ("fitsverify", "fpack", "funpack")
needs_programs = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="the Debian packages fitsverify and libcfitsio-bin are not installed"
)

WAYS = [
    *((None, None, "NO_DITHER"), ("RICE_1", None, "NO_DITHER"), ("GZIP_2", None, "NO_DITHER")),
    *(("HCOMPRESS_1", None, "NO_DITHER"), ("RICE_1", 4, "NO_DITHER"), ("GZIP_2", 8, "SUBTRACTIVE_DITHER_1")),
    *(("RICE_1", 4, "SUBTRACTIVE_DITHER_2"), ("HCOMPRESS_1", 16, "SUBTRACTIVE_DITHER_2")),
]


def noisy(shape: tuple[int, int], dtype: str, seed: int = 0) -> Array:
    """Return a noisy image with NaN and zeros, or integers of all bits."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    image = rng.normal(500, 10, shape).astype(dtype)
    image[1 % shape[0], : shape[1] // 9] = np.nan
    image[2 % shape[0], : shape[1] // 3] = 0
    return image


def odd_header() -> fits.Header:
    """Return cards of every kind, some of them of other storage."""
    header = fits.Header({"OBJECT": "M 31", "EXPTIME": 12.5, "FLAG": True, "TTYPE1": "not a column"})
    header["HIERARCH ESO DET OUT1 CONAD"] = (1.18, "e-/adu")
    header["LONGSTR"] = ("it's so " * 22 + ".", "a comment that goes on and on")
    header["ZCMPTYPE"] = "HCOMPRESS_1"
    for text in ("plain", "with 'quotes' / and slashes", "x" * 200):
        header.add_comment(text)
        header.add_history(text)
    header.add_blank("")
    header.add_blank("a section")
    return header


def frame(shape: tuple[int, int], dtype: str = "float32") -> tuple[xr.Dataset, CCDData]:
    """Return a frame with all planes, and the CCDData that it was made of."""
    image = noisy(shape, dtype)
    mask = np.random.default_rng(1).random(shape) < 0.1
    deviation = StdDevUncertainty(np.sqrt(abs(np.nan_to_num(image, nan=1))) + np.float32(0.1))
    ccd = CCDData(image, unit="adu", meta=odd_header(), mask=mask, uncertainty=deviation)
    return from_ccddata(ccd), ccd


def run(*command: str) -> str:
    """Run a program that must succeed and complain of nothing; return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


@needs_programs
@pytest.mark.parametrize("shape", [(90, 130), (24, 9001), (5, 4)], ids=str)
@pytest.mark.parametrize(("compress", "quantize", "dither"), WAYS)
def test_other_programs_accept_it(
    tmp_path: Path, compress: str | None, quantize: float | None, dither: str, shape: tuple[int, int]
) -> None:
    """Fitsverify has nothing to say; fpack lists it; funpack, astropy and CCDData find what was written."""
    if compress == "HCOMPRESS_1" and quantize:
        shape = (shape[0], min(shape[1], 8192))  # a wider one is refused
    ds, ccd = frame(shape)
    path = str(tmp_path / ("a.fits.fz" if compress else "a.fits"))
    to_fits(ds, path, compress=compress, quantize=quantize, dither=dither)
    assert "found 0 warning(s) and 0 error(s)" in run("fitsverify", path)
    first = 1 if compress else 0
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus[first + 1 :]] == ["UNCERT", "MASK", "DQ"]
        images = [hdu.data for hdu in hdus[first:]]
        assert hdus[first].header["LONGSTR"] == "it's so " * 22 + "."
        assert hdus[first].header["ESO DET OUT1 CONAD"] == 1.18
    np.testing.assert_array_equal(images[2], ccd.mask)
    np.testing.assert_array_equal(images[3], ds["mask"])
    for image, wanted in zip(images, (ccd.data, ccd.uncertainty.array), strict=False):
        np.testing.assert_array_equal(np.isnan(image), np.isnan(wanted))
        if quantize:
            assert np.nanmax(abs(image - wanted)) < 25 / quantize
        else:
            np.testing.assert_array_equal(image, wanted.astype("f4"))
    got = CCDData.read(path, hdu=first)
    np.testing.assert_array_equal(got.mask, ccd.mask)
    assert isinstance(got.uncertainty, StdDevUncertainty)
    if compress is not None:
        check_unpacked(path, images, compress)


def check_unpacked(path: str, images: list[Array], compress: str) -> None:
    """Check that cfitsio lists and restores the images that astropy reads."""
    plain = f"{path}.plain"
    run("funpack", "-O", plain, path)
    with fits.open(plain) as hdus:
        for hdu, image in zip(hdus, images, strict=True):
            np.testing.assert_array_equal(hdu.data, image)
    listed = run("fpack", "-L", path)
    kinds = {"RICE_1": "tiled_rice", "GZIP_2": "tiled_gzip_2", "HCOMPRESS_1": "tiled_hcompress"}
    assert listed.count(kinds[compress]) >= 2, listed
    assert listed.count("tiled_") == len(images)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(4, 40), st.sampled_from([4, 33, 8192, 8200])),
    dtype=st.sampled_from(["float32", "float64", "uint8", "uint16", "uint32"]),
    algorithm=st.sampled_from(COMPRESSIONS),
    steps=st.sampled_from([0.0, 4.0]),
    cuts=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3),
    random=st.randoms(use_true_random=False),
)
def test_any_regions_in_any_order_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    dtype: str,
    algorithm: str,
    steps: float,
    cuts: list[tuple[int, int]],
    random: Any,
) -> None:
    """The file does not depend on how it was cut into whole tiles, and astropy reads every bit that was to be kept."""
    if algorithm == "HCOMPRESS_1" and shape[1] > 8192:
        steps = 0.0
    packing = Packing.of(algorithm, shape, dtype, steps, "SUBTRACTIVE_DITHER_2", 7)
    plain = HduSpec("PLAIN", "", shape, dtype)
    specs = (HduSpec("", "", shape, dtype, packing), plain, HduSpec("B", "", shape, dtype, packing))
    target = FitsTarget(str(tmp_path_factory.mktemp("regions") / "a.fits"), specs)
    image = noisy(shape, dtype)
    (th, tw), (ny, nx) = packing.tile, shape
    ys = sorted({0, ny, *(min(y * th, ny) for y, _ in cuts)})
    xs = sorted({0, nx, *(min(x * tw, nx) for _, x in cuts)})
    regions = [Region(*y, *x) for y in pairwise(ys) for x in pairwise(xs)]
    found = []
    for some in ([Region.full(shape)], regions):
        random.shuffle(some)
        target.create(overwrite=True)
        with ThreadPoolExecutor(4) as pool:
            jobs = [(k, region) for region in some for k in range(3)]
            partials = list(pool.map(lambda job: target.write(*job, image[job[1].slices]), jobs))
        target.finish(partials, overwrite=True)
        found.append(Path(target.path).read_bytes())
    assert found[0] == found[1]
    with fits.open(target.path, checksum=True) as hdus:
        np.testing.assert_array_equal(hdus["PLAIN"].data, image)
        np.testing.assert_array_equal(hdus[1].data, hdus["B"].data)
        if not packing.steps:
            np.testing.assert_array_equal(hdus[1].data, image)


def test_chunks_and_schedulers_do_not_matter(tmp_path: Path) -> None:
    """Frames of other chunks, written by threads or by one, give the same file; it is read back as it was."""
    ds, ccd = frame((300, 9000))
    files = []
    for chunks, scheduler in (((300, 9000), "sync"), ((77, 1234), "threads")):
        with dask.config.set(scheduler=scheduler):
            path = to_fits(ds.ccd.rechunk(chunks), tmp_path / f"{scheduler}.fits.fz", compress="RICE_1", quantize=4)
        files.append(Path(path).read_bytes())
    assert files[0] == files[1]
    back = open_fits(path)
    np.testing.assert_array_equal(back["data"], fits.getdata(path, 1))
    assert int(back["mask"].values.astype(bool).sum()) == int((ccd.mask | np.isnan(ccd.data)).sum())


def test_header_says_what_was_lost(tmp_path: Path) -> None:
    """Quantised images name steps, dithering and the integer for NaN; others say that nothing was lost; masks never are."""
    ds, _ = frame((30, 40))
    path = to_fits(ds, tmp_path / "a.fits", compress="RICE_1", quantize=4, dither="SUBTRACTIVE_DITHER_1")
    with fits.open(path, disable_image_compression=True) as hdus:
        cards = hdus[1].header
        names = {cards[f"ZNAME{i}"]: cards[f"ZVAL{i}"] for i in (1, 2, 3)}
        assert names == {"BLOCKSIZE": 32, "BYTEPIX": 4, "NOISEBIT": 4.0}
        assert (cards["ZCMPTYPE"], cards["ZQUANTIZ"], cards["ZBLANK"]) == ("RICE_1", "SUBTRACTIVE_DITHER_1", -(2**31))
        assert 1 <= cards["ZDITHER0"] <= 10_000
        assert hdus[1].columns.names == ["COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "ZSCALE", "ZZERO"]
        assert [hdus[k].columns.names for k in (3, 4)] == [["COMPRESSED_DATA"]] * 2
        assert [hdus[k].header["ZCMPTYPE"] for k in (3, 4)] == ["RICE_1"] * 2
    path = to_fits(ds, tmp_path / "b.fits", compress="RICE_1")
    with fits.open(path, disable_image_compression=True) as hdus:
        assert [(hdu.header["ZCMPTYPE"], hdu.header.get("ZQUANTIZ")) for hdu in hdus[1:]] == [
            *(("GZIP_2", "NONE"), ("GZIP_2", "NONE")),
            *(("RICE_1", None), ("RICE_1", None)),
        ]


def test_refusals(tmp_path: Path) -> None:
    """What cannot be written is refused at the call, and nothing is left behind."""
    ds, _ = frame((30, 40))
    for name, options, message in (
        ("a.fits", {"compress": "RICE"}, "compress='RICE' must be one of RICE_1, GZIP_2, HCOMPRESS_1"),
        ("a.fits", {"quantize": 4}, "pass compress='RICE_1' too"),
        ("a.fits", {"compress": "RICE_1", "quantize": 0}, "positive number of steps"),
        ("a.fits", {"compress": "RICE_1", "dither": "YES"}, "dither='YES' must be one of NO_DITHER"),
        ("a.fits.fz", {}, "a.fits.fz names a tile-compressed file; pass compress"),
        ("a.fits.gz", {"compress": "GZIP_2"}, "compressed as a whole"),
    ):
        with pytest.raises(ParameterError, match=re.escape(message)):
            to_fits(ds, tmp_path / name, **options)
    with pytest.raises(ShapeError, match="3 x 9 pixels is too small for HCOMPRESS_1"):
        to_fits(frame((3, 9))[0], tmp_path / "a.fits", compress="HCOMPRESS_1")
    with pytest.raises(ShapeError, match="9000 columns cannot be quantised for HCOMPRESS_1"):
        to_fits(frame((9, 9000))[0], tmp_path / "a.fits", compress="HCOMPRESS_1", quantize=4)
    packing = Packing.of("HCOMPRESS_1", (40, 50), "uint16")
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", "", (40, 50), "uint16", packing),))
    target.create()
    with pytest.raises(ShapeError, match=r"cuts tiles of 16 x 50 pixels"):
        target.write(0, Region(0, 15, 0, 50), np.zeros((15, 50), np.uint16))
    target.abort()
    assert not os.listdir(tmp_path)


def test_a_damaged_tile_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    """The error of a task names file, extension and tile; the product does not appear, complete or not."""
    ds, _ = frame((60, 80))
    path = Path(to_fits(ds, tmp_path / "raw.fits.fz", compress="GZIP_2"))
    with fits.open(path, disable_image_compression=True) as hdus:
        table = hdus["DQ"]
        length, place = descriptor(table, 7)
        start = table._data_offset + table.header["NAXIS1"] * table.header["NAXIS2"] + place
    raw = bytearray(path.read_bytes())
    raw[start + length // 2 : start + length] = bytes(length - length // 2)
    path.write_bytes(raw)
    damaged = open_fits(path)
    for suffix, options in ((".fits", {}), (".fits.fz", {"compress": "RICE_1"})):
        with pytest.raises(FormatError, match=r"raw\.fits\.fz\[DQ,1\]: tile 7 cannot be decompressed \(GZIP_2\)"):
            to_fits(damaged, tmp_path / f"product{suffix}", **options)
    assert os.listdir(tmp_path) == ["raw.fits.fz"]


def descriptor(table: fits.BinTableHDU, row: int) -> tuple[int, int]:
    """Return length and place in the heap of a tile."""
    raw = table._get_raw_data(2 * table.header["NAXIS2"], np.dtype(">i4"), table._data_offset)
    return int(raw[2 * row]), int(raw[2 * row + 1])


def test_a_chunk_decompresses_only_the_tiles_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 2048 x 2048 chunk of a wide image takes the 2048 tiles that it consists of; one across two columns twice as many."""
    from lazyccd.io.fits import tile_reader

    image = np.random.default_rng(3).integers(0, 900, (2100, 9000), np.uint16)
    spec = HduSpec("", "", image.shape, "uint16", Packing.of("RICE_1", image.shape, "uint16"))
    target = FitsTarget(str(tmp_path / "a.fits.fz"), (spec,))
    target.create()
    target.finish([target.write(0, Region.full(image.shape), image)])
    counted: list[int] = []
    decode = tile_reader.rice_decode

    def counting(raw: Array, starts: Array, stops: Array, size: int, tiles: Array) -> int:
        counted.append(len(starts))
        return int(decode(raw, starts, stops, size, tiles))

    monkeypatch.setattr(tile_reader, "rice_decode", counting)
    ds = open_fits(target.path, chunks=(2048, 2048))
    for x0, tiles in ((2048, 2048), (3000, 4096)):
        counted.clear()
        part = ds.ccd.cutout(y=slice(0, 2048), x=slice(x0, x0 + 2048))
        np.testing.assert_array_equal(part["data"], image[:2048, x0 : x0 + 2048])
        assert sum(counted) == tiles


class Killed(Exception):  # noqa: N818
    """Stands for whatever stops a run."""


@pytest.mark.parametrize("where", ["between regions", "while tiles are moved together", "before the rename"])
def test_an_interrupted_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The same call goes on, writes damaged tiles anew, and gives the bytes of an undisturbed write."""
    ds = frame((60, 80))[0].ccd.rechunk((20, 20))
    options: dict[str, Any] = {"compress": "RICE_1", "quantize": 4}
    undisturbed = Path(to_fits(ds, tmp_path / "a.fits.fz", **options)).read_bytes()
    path = tmp_path / "b.fits.fz"
    written: list[Region] = []
    write = FitsFrame.write

    def limited(self: FitsFrame, region: Region, arrays: Any) -> Any:
        if len(written) == 3 and where == "between regions":
            raise Killed
        written.append(region)
        return write(self, region, arrays)

    def stopping(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr(FitsFrame, "write", limited)
        if where != "between regions":
            name = "copy_tiles" if where == "while tiles are moved together" else "give_name"
            patch.setattr(f"lazyccd.io.fits.writer.{name}", stopping)
        with pytest.raises(Killed):
            to_fits(ds, path, **options)
    assert not path.exists()
    done = len(written)
    if where == "between regions":
        content = bytearray((tmp_path / "b.fits.fz.part").read_bytes())
        hit = next(i for i in range(20_000, len(content)) if content[i])
        content[hit] ^= 0xFF
        (tmp_path / "b.fits.fz.part").write_bytes(content)
        done -= 1
    written.clear()
    monkeypatch.setattr(FitsFrame, "write", lambda *args: (written.append(args[1]), write(*args))[1])
    to_fits(ds, path, verify=True, **options)
    assert len(written) == 12 - done
    assert path.read_bytes() == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["a.fits.fz", "b.fits.fz"]


CUBE = {"CTYPE1": "RA---TAN", "CRPIX1": 3.0, "CRVAL1": 150.0, "CDELT1": 0.1, "CTYPE2": "DEC--TAN", "CRPIX2": 4.0}
CUBE |= {"CRVAL2": 2.0, "CDELT2": 0.1, "CTYPE3": "FREQ", "CRPIX3": 1.0, "CRVAL3": 1.4e9, "CDELT3": 1.0}


@needs_programs
@pytest.mark.parametrize("shape", [(1, 30, 40), (30, 1, 40), (1, 1, 30, 40)], ids=str)
@pytest.mark.parametrize("opened", ["frame", "tree"])
def test_cubes_of_one_plane_get_their_axes_back(tmp_path: Path, shape: tuple[int, ...], opened: str) -> None:
    """Plain, compressed, and by way of a store; image and planes; other programs see the axes, and their WCS is whole."""
    raw = np.random.default_rng(4).normal(100, 5, shape).astype(np.float32)
    fits.writeto(tmp_path / "raw.fits", raw, fits.Header(CUBE) if shape == (1, 30, 40) else None)
    given = (open_fits if opened == "frame" else open_mef)(tmp_path / "raw.fits")
    store = open_zarr(str(to_zarr(given, tmp_path / "a.zarr")))
    for compress, quantize in ((None, None), ("RICE_1", 4), ("GZIP_2", None), ("HCOMPRESS_1", 16)):
        files = []
        for number, ccd in enumerate((given, store)):
            path = tmp_path / f"{compress}{number}.fits"
            to_fits(ccd, path, compress=compress, quantize=quantize)
            files.append(path.read_bytes())
        assert files[0] == files[1]
        assert "found 0 warning(s) and 0 error(s)" in run("fitsverify", str(path))
        with fits.open(path) as hdus:
            images = [hdu.data for hdu in hdus if hdu.shape]
        assert {image.shape for image in images} == {shape}
        assert len(images) > 1
        np.testing.assert_allclose(images[0], raw, atol=0 if quantize is None else 3)
        again = open_fits(path, hdu=int(compress is not None))
        np.testing.assert_array_equal(again["data"], np.squeeze(images[0]))
        assert again.attrs["squeezed"] == open_fits(tmp_path / "raw.fits").attrs["squeezed"]
        if compress is not None:
            run("funpack", "-O", f"{path}.plain", str(path))
            np.testing.assert_array_equal(fits.getdata(f"{path}.plain"), images[0])
