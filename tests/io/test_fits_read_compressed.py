"""Reading tile-compressed images and files compressed as a whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.errors import FormatError, LazyCCDError, MissingFileError, SourceChangedError
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.fits.storage import FitsStorage, find_hdu
from lazyccd.sections import Region

Array = npt.NDArray[Any]

SHAPE = (61, 85)
ALGORITHMS = ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"]
TILES = [None, (16, 20), (61, 85), (7, 85)]


def sky(dtype: str) -> Array:
    """Return a noisy image that fits the type."""
    values = np.random.default_rng(5).normal(120, 9, SHAPE)
    values[20:30, 40:50] = 0
    return values.astype(dtype)


def save(path: Path | str, data: Array, **options: Any) -> Path:
    """Write a tile-compressed file."""
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, name="SCI", **options)]).writeto(path)
    return Path(path)


def storage_of(path: Path | str, dtype: npt.DTypeLike | None = None) -> FitsStorage:
    """Scan a file and describe its image."""
    file = scan_fits(path)
    return FitsStorage.of(file, find_hdu(file), dtype)


def read(storage: FitsStorage, region: Region | None = None) -> Array:
    """Read a region, or all."""
    with storage.open() as reader:
        return reader.read(region or Region.full(storage.shape))


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_integers(tmp_path: Path, algorithm: str, dtype: str, tile: tuple[int, int] | None) -> None:
    """Integers come out exactly, as floats and as integers."""
    if algorithm == "PLIO_1" and dtype == "u2":
        dtype = "i2"  # PLIO has no negative numbers, and BZERO makes some
    data = sky(dtype)
    path = save(tmp_path / "a.fits", data, compression_type=algorithm, tile_shape=tile)
    np.testing.assert_array_equal(fits.getdata(path, 1), data)
    np.testing.assert_array_equal(read(storage_of(path)), data)
    exact = read(storage_of(path, dtype))
    assert exact.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(exact, data)


@pytest.mark.parametrize("method", [-1, 1, 2])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("algorithm", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_quantised_floats(tmp_path: Path, algorithm: str, dtype: str, method: int) -> None:
    """Quantised floats, dithered or not, NaNs included, are bit for bit what astropy makes of them."""
    data = sky(dtype)
    if algorithm != "HCOMPRESS_1":
        data[5, 6:9] = np.nan
    path = save(
        tmp_path / "a.fits",
        data,
        compression_type=algorithm,
        quantize_method=method,
        dither_seed=9998,
        quantize_level=8,
        tile_shape=(16, 20) if algorithm == "HCOMPRESS_1" else (1, 85),
    )
    expected = fits.getdata(path, 1)
    storage = storage_of(path)
    assert storage.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read(storage), expected)
    if method == 2:
        assert (expected[20:30, 40:50] == 0).all()


@pytest.mark.parametrize("algorithm", ["GZIP_1", "GZIP_2"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_lossless_floats(tmp_path: Path, algorithm: str, dtype: str) -> None:
    """Floats that were not quantised keep every bit."""
    data = sky(dtype)
    path = save(tmp_path / "a.fits", data, compression_type=algorithm, quantize_level=0, tile_shape=(16, 20))
    np.testing.assert_array_equal(read(storage_of(path)), data)


def test_tiles_that_could_not_be_quantised(tmp_path: Path) -> None:
    """Tiles kept losslessly among quantised ones are read too."""
    data = sky("f4")
    data[10] = np.nan
    data[11] = 3.25
    path = save(tmp_path / "a.fits", data, compression_type="RICE_1", quantize_level=8)
    with fits.open(path, disable_image_compression=True) as hdus:
        assert any(len(value) for value in hdus[1].data["GZIP_COMPRESSED_DATA"])
    np.testing.assert_array_equal(read(storage_of(path)), fits.getdata(path, 1))


def test_blank_and_scaling(tmp_path: Path) -> None:
    """BSCALE, BZERO and BLANK mean what they mean in plain images."""
    data = sky("i2")
    image = fits.CompImageHDU(data, compression_type="RICE_1", tile_shape=(16, 20))
    image.header["BLANK"] = 0
    image.header["BSCALE"] = 0.5
    image.header["BZERO"] = 10.0
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    expected = np.where(data == 0, np.nan, data * 0.5 + 10)
    np.testing.assert_array_equal(read(storage_of(tmp_path / "a.fits")), expected)


def test_one_plane_of_a_compressed_cube(tmp_path: Path) -> None:
    """Axes of length 1 are dropped from tiles too."""
    data = sky("i2")
    path = save(tmp_path / "a.fits", data[None], compression_type="RICE_1", tile_shape=(1, 16, 20))
    np.testing.assert_array_equal(read(storage_of(path)), data)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), algorithm=st.sampled_from(ALGORITHMS), tile=st.sampled_from(TILES[:3]))
def test_regions_equal_the_full_image(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, algorithm: str, tile: tuple[int, int] | None
) -> None:
    """Any region is the full image's part."""
    path = tmp_path_factory.getbasetemp() / f"regions_{algorithm}_{tile}.fits"
    if not path.exists():
        save(path, sky("i2"), compression_type=algorithm, tile_shape=tile)
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, SHAPE[0]), st.integers(0, SHAPE[0]))))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, SHAPE[1]), st.integers(0, SHAPE[1]))))
    region = Region(y0, y1, x0, x1)
    np.testing.assert_array_equal(read(storage_of(path), region), sky("i2")[region.slices])


@pytest.mark.parametrize("algorithm", ["GZIP_1", "HCOMPRESS_1"])
def test_only_touched_tiles_are_read(tmp_path: Path, algorithm: str) -> None:
    """A window reads well while every tile outside of it is destroyed, and a wider one tells which tile is damaged."""
    data = sky("i2")
    path = save(tmp_path / "a.fits", data, compression_type=algorithm, tile_shape=(16, 20))
    with fits.open(path, disable_image_compression=True, mode="update", memmap=False) as hdus:
        column = hdus[1].data["COMPRESSED_DATA"]
        keep = 1 * 5 + 2
        for row in range(len(column)):
            if row != keep:
                column[row][:] = 0
    window = Region(17, 31, 41, 59)
    np.testing.assert_array_equal(read(storage_of(path), window), data[window.slices])
    with pytest.raises(FormatError, match=rf"a\.fits\[SCI,1\]: tile \d+ cannot be decompressed \({algorithm}\)"):
        read(storage_of(path))


def test_preferred_chunks_follow_the_tiles(tmp_path: Path) -> None:
    """Row tiles give bands of rows, square tiles multiples of themselves; a packed file is one chunk."""
    zeros = np.zeros((3000, 9000), np.uint8)
    rows = save(tmp_path / "rows.fits", zeros, compression_type="RICE_1", tile_shape=(4, 9000))
    assert storage_of(rows).chunks == (464, 9000)
    squares = save(tmp_path / "squares.fits", zeros, compression_type="RICE_1", tile_shape=(300, 500))
    assert storage_of(squares).chunks == (1800, 2000)
    packed = tmp_path / "squares.fits.gz"
    packed.write_bytes(gzip.compress(squares.read_bytes(), 1))
    assert storage_of(packed).chunks == (3000, 9000)


def test_header_of_the_image(tmp_path: Path) -> None:
    """The cards of the table are gone and those of the image are there, as astropy shows them."""
    header = fits.Header({"OBJECT": "M 17", "GAIN": 1.5})
    header.add_history("made")
    image = fits.CompImageHDU(sky("i2"), header, compression_type="RICE_1", name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits")
    text = scan_fits(tmp_path / "a.fits").hdus[1].header
    with fits.open(tmp_path / "a.fits") as hdus:
        expected = hdus[1].header.tostring("\n", endcard=False, padding=False)
    assert text == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ZCMPTYPE= 'RICE_1  '", "ZCMPTYPE= 'ZSTD_9  '", "ZCMPTYPE 'ZSTD_9' must be one of RICE_1"),
        (
            "ZTILE1  =                   20",
            "ZTILE1  =                   10",
            "table has 20 rows and the image 36 tiles",
        ),
        ("TFORM1  = '1PB", "TFORM1  = '2PB", "columns take 16 bytes and NAXIS1 is 8"),
        ("TTYPE1  = 'COMPRESSED_DATA'", "TTYPE1  = 'DATA_COMPRESSED'", "no column COMPRESSED_DATA"),
    ],
)
def test_contradictions_in_headers(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Headers of compressed images that contradict themselves are refused when they are read."""
    path = save(tmp_path / "a.fits", sky("i2"), compression_type="RICE_1", tile_shape=(16, 20))
    raw = path.read_bytes()
    assert old.encode() in raw
    path.write_bytes(raw.replace(old.encode(), new.encode()))
    with pytest.raises(FormatError, match=message):
        scan_fits(path)


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, None])
def test_random_damage_is_an_error_or_pixels(tmp_path: Path, algorithm: str | None) -> None:
    """Whatever bytes are changed, reading gives pixels or a LazyCCDError, never another error or a crash."""
    file = io.BytesIO()
    data = sky("i2")[:30, :40]
    image = fits.PrimaryHDU(data) if algorithm is None else fits.CompImageHDU(data, None, None, algorithm, (10, 10))
    fits.HDUList([fits.PrimaryHDU(), image] if algorithm else [image]).writeto(file)
    choose = random.Random(f"{algorithm}")
    path = tmp_path / "a.fits"
    failures = 0
    for _ in range(150):
        raw = bytearray(file.getvalue())
        for _ in range(choose.randint(1, 3)):
            place = choose.choice([i for i in range(len(raw)) if raw[i] not in b" \0"])
            raw[place] = choose.choice([choose.randrange(256), *b"0123456789.'-T"])
        path.write_bytes(raw)
        try:
            storage = storage_of(path)
            read(storage, Region.full(storage.shape).clip((200, 200)))
        except LazyCCDError:
            failures += 1
    assert 10 < failures < 150


def packed(kind: str, raw: bytes) -> bytes:
    """Compress a whole file."""
    if kind == "gz":
        return gzip.compress(raw)
    return bz2.compress(raw) if kind == "bz2" else lzma.compress(raw)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_whole_file_compression(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Such files are decompressed once, which is told; they are known by their content, and any region can be read."""
    data = sky("u2")
    file = io.BytesIO()
    fits.PrimaryHDU(data).writeto(file)
    path = tmp_path / "a.fits"
    path.write_bytes(packed(kind, file.getvalue()))
    with caplog.at_level("INFO", "lazyccd"):
        storage = storage_of(path)
        assert storage.chunks == SHAPE
        with ThreadPoolExecutor(4) as pool:
            windows = [Region(y, y + 20, 3, 50) for y in range(0, 40, 5)]
            for window, got in zip(windows, pool.map(lambda w: read(storage, w), windows), strict=True):
                np.testing.assert_array_equal(got, data[window.slices])
    assert caplog.text.count("decompressed once") == 1


def test_damaged_whole_file_compression(tmp_path: Path) -> None:
    """A cut .gz is refused, and a changed one is noticed."""
    file = io.BytesIO()
    fits.PrimaryHDU(sky("u2")).writeto(file)
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(file.getvalue())[:-200])
    with pytest.raises(FormatError, match=r"a\.fits\.gz cannot be decompressed \(gzip\): .*; fetch the file again"):
        scan_fits(path)
    path.write_bytes(gzip.compress(file.getvalue()))
    storage = storage_of(path)
    path.write_bytes(gzip.compress(file.getvalue()) + b"\0")
    with pytest.raises(SourceChangedError, match="changed after the plan was made"):
        storage.open()


@pytest.mark.parametrize("name", ["plain.fits", "tiles.fits", "plain.fits.gz"])
def test_urls(tmp_path: Path, name: str) -> None:
    """Windows of files behind URLs are read by ranges; a changed object is noticed."""
    data = sky("u2")
    plain = fits.PrimaryHDU(data)
    tiles = fits.CompImageHDU(data, compression_type="RICE_1", tile_shape=(16, 20))
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), tiles] if name == "tiles.fits" else [plain]).writeto(file)
    raw = gzip.compress(file.getvalue()) if name.endswith(".gz") else file.getvalue()
    remote = fsspec.filesystem("memory")
    remote.pipe_file(f"/{tmp_path.name}/{name}", raw)
    url = f"memory://{tmp_path.name}/{name}"
    storage = storage_of(url)
    for region in (Region.full(SHAPE), Region(3, 40, 20, 60), Region(5, 6, 7, 8)):
        np.testing.assert_array_equal(read(storage, region), data[region.slices])
    remote.pipe_file(f"/{tmp_path.name}/{name}", raw)
    with pytest.raises(SourceChangedError, match="changed after the plan was made"):
        storage.open()
    with pytest.raises(MissingFileError, match="does not exist"):
        scan_fits(f"memory://{tmp_path.name}/none.fits")
    with pytest.raises(FormatError, match="check the URL and what fsspec needs"):
        scan_fits("nosuchprotocol://a.fits")


def test_wide_images_behind_urls() -> None:
    """Narrow windows of wide images are read by a range per row."""
    data = np.arange(4 * 200_000, dtype=np.int32).reshape(4, -1)
    file = io.BytesIO()
    fits.PrimaryHDU(data).writeto(file)
    fsspec.filesystem("memory").pipe_file("/read_wide.fits", file.getvalue())
    region = Region(1, 4, 100_000, 100_050)
    np.testing.assert_array_equal(read(storage_of("memory://read_wide.fits"), region), data[region.slices])


@pytest.mark.parametrize("algorithm", [None, "RICE_1", "GZIP_2", "HCOMPRESS_1"])
def test_threads_share_a_storage_and_a_reader(tmp_path: Path, algorithm: str | None) -> None:
    """Many threads open and read at once, each by a reader of its own or all by one."""
    data = sky("f4")
    path = tmp_path / "a.fits"
    if algorithm:
        save(path, data, compression_type=algorithm, quantize_method=1, dither_seed=1, tile_shape=(7, 9))
        data = fits.getdata(path, 1)
    else:
        fits.PrimaryHDU(data).writeto(path)
    storage = storage_of(path)
    choose = random.Random(1)
    corners = [(choose.randrange(30), choose.randrange(40)) for _ in range(200)]
    windows = [Region(y, y + 25, x, x + 31) for y, x in corners]
    with storage.open() as shared, ThreadPoolExecutor(8) as pool:
        for action in (shared.read, lambda region: read(storage, region)):
            for window, got in zip(windows, pool.map(action, windows), strict=True):
                np.testing.assert_array_equal(got, data[window.slices])
