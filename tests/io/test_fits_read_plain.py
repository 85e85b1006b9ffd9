"""Reading uncompressed images: every BITPIX and scaling, regions, selection, damage."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FormatError, LazyCCDError, MissingFileError, ParameterError, ShapeError, SourceChangedError
from lazyccd.io.fits.header_cache import scan_many
from lazyccd.io.fits.scan import FitsFile, scan_fits
from lazyccd.io.fits.storage import FitsStorage, find_hdu
from lazyccd.sections import Region

Array = npt.NDArray[Any]

STORED = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}
SHAPE = (23, 41)


def write_raw(path: Path, stored: Array, **cards: float) -> Path:
    """Write an image from its stored numbers and cards, without the help of a FITS library's scaling."""
    bitpix = stored.dtype.itemsize * 8 * (-1 if stored.dtype.kind == "f" else 1)
    axes = {f"NAXIS{i + 1}": length for i, length in enumerate(reversed(stored.shape))}
    header = fits.Header({"SIMPLE": True, "BITPIX": bitpix, "NAXIS": stored.ndim, **axes, **cards})
    data = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(header.tostring().encode() + data + bytes(-len(data) % 2880))
    return path


def numbers(bitpix: int, shape: tuple[int, ...] = SHAPE) -> Array:
    """Return numbers over the whole range of a type, its ends included."""
    rng = np.random.default_rng(abs(bitpix))
    dtype = np.dtype(STORED[bitpix])
    if dtype.kind == "f":
        values = (rng.standard_normal(shape) * 1e5).astype(dtype)
        values.flat[:4] = [np.nan, np.inf, -np.inf, -0.0]
        return values
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values.flat[:3] = [limits.min, limits.max, 7]
    return values


def storage_of(path: Path | str, dtype: npt.DTypeLike | None = None, hdu: Any = None) -> FitsStorage:
    """Scan a file and describe one image."""
    file = scan_fits(path)
    return FitsStorage.of(file, find_hdu(file, hdu), dtype)


def read(storage: FitsStorage, region: Region | None = None) -> Array:
    """Read a region, or all."""
    with storage.open() as reader:
        return reader.read(region or Region.full(storage.shape))


@pytest.mark.parametrize("bitpix", STORED)
def test_every_bitpix(tmp_path: Path, bitpix: int) -> None:
    """Stored numbers come out in native order, float32 up to 16 bits, float64 beyond, floats in their own type."""
    stored = numbers(bitpix)
    storage = storage_of(write_raw(tmp_path / "a.fits", stored))
    assert storage.dtype == (np.float32 if bitpix in (8, 16, -32) else np.float64)
    got = read(storage)
    assert got.dtype == storage.dtype
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, stored.astype(storage.dtype))
    assert np.array_equal(np.signbit(got), np.signbit(stored.astype(storage.dtype)))


@pytest.mark.parametrize("bitpix", [16, 32, 64])
def test_unsigned_by_bzero_is_exact(tmp_path: Path, bitpix: int) -> None:
    """Unsigned integers are exact as integers, and rounded at most once as floats."""
    stored = numbers(bitpix)
    path = write_raw(tmp_path / "a.fits", stored, BZERO=2 ** (bitpix - 1), BSCALE=1)
    unsigned = stored.view(f"u{bitpix // 8}") ^ np.array(1 << (bitpix - 1), f"u{bitpix // 8}")
    np.testing.assert_array_equal(fits.getdata(path), unsigned)
    exact = read(storage_of(path, unsigned.dtype))
    assert exact.dtype == unsigned.dtype
    np.testing.assert_array_equal(exact, unsigned)
    np.testing.assert_array_equal(read(storage_of(path)), unsigned.astype(storage_of(path).dtype))
    np.testing.assert_array_equal(read(storage_of(path, np.float64)), unsigned.astype(np.float64))


@pytest.mark.parametrize("bitpix", STORED)
@pytest.mark.parametrize(("bscale", "bzero"), [(0.25, 1500.0), (-2.0, 0.0), (1.0, -128.0), (1.0, 0.1), (1e-3, 5e4)])
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_general_scaling(tmp_path: Path, bitpix: int, bscale: float, bzero: float, dtype: type | None) -> None:
    """Scaling is computed in float64 and rounded once."""
    stored = numbers(bitpix)
    storage = storage_of(write_raw(tmp_path / "a.fits", stored, BSCALE=bscale, BZERO=bzero), dtype)
    with np.errstate(all="ignore"):
        expected = (stored.astype(np.float64) * bscale + bzero).astype(storage.dtype)
    np.testing.assert_array_equal(read(storage), expected)


@pytest.mark.parametrize("bitpix", [8, 16, 32, 64])
@pytest.mark.parametrize("cards", [{}, {"BZERO": 100.0}, {"BSCALE": 0.5, "BZERO": 3.0}, {"BZERO": 2.0**63}])
def test_blank_is_nan(tmp_path: Path, bitpix: int, cards: dict[str, float]) -> None:
    """Pixels that hold BLANK become NaN, also for BLANK = 0; the others are as without it."""
    stored = numbers(bitpix)
    stored[3, 4] = 0
    for blank in (0, 7):
        path = write_raw(tmp_path / "a.fits", stored, BLANK=blank, **cards)
        plain = read(storage_of(write_raw(tmp_path / "b.fits", stored, **cards)))
        got = read(storage_of(path))
        assert np.isnan(got).any()
        np.testing.assert_array_equal(got, np.where(stored == blank, np.nan, plain))


def test_blank_that_no_pixel_can_hold(tmp_path: Path) -> None:
    """A BLANK outside of the range of BITPIX means nothing."""
    stored = numbers(8)
    np.testing.assert_array_equal(read(storage_of(write_raw(tmp_path / "a.fits", stored, BLANK=-32768))), stored)


def test_integer_dtypes(tmp_path: Path) -> None:
    """Masks are read exactly into any integer type that holds them; what does not fit is refused, not wrapped."""
    stored = np.array([[0, 1, 2], [4, 32767, 255]], np.int16)
    path = write_raw(tmp_path / "a.fits", stored)
    for dtype in (np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        got = read(storage_of(path, dtype))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, stored)
    with pytest.raises(ParameterError, match=r"1 pixels .* do not fit into uint8 \(0 to 255\)"):
        read(storage_of(path, np.uint8))
    negative = write_raw(tmp_path / "b.fits", -stored)
    with pytest.raises(ParameterError, match=r"5 pixels .* do not fit into uint16"):
        read(storage_of(negative, np.uint16))
    with pytest.raises(ParameterError, match="needs integers and the image has BITPIX -32"):
        storage_of(write_raw(tmp_path / "c.fits", numbers(-32)), np.uint16)
    with pytest.raises(ParameterError, match="must be float32, float64 or an integer type"):
        storage_of(path, np.complex64)


def test_float64_beyond_float32_is_infinite(tmp_path: Path) -> None:
    """Narrowing floats makes infinities and no warning."""
    got = read(storage_of(write_raw(tmp_path / "a.fits", np.array([[1e300, 1.5]])), np.float32))
    np.testing.assert_array_equal(got, [[np.inf, 1.5]])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bitpix=st.sampled_from(list(STORED)), nx=st.sampled_from([1, 5, 700, 40000]))
def test_regions_equal_the_full_image(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, bitpix: int, nx: int
) -> None:
    """Any region, read by spans or by rows, is the full image's part."""
    path = tmp_path_factory.getbasetemp() / f"regions_{bitpix}_{nx}.fits"
    if not path.exists():
        write_raw(path, numbers(bitpix, (9, nx)), **({"BZERO": 32768.0, "BLANK": 7} if bitpix > 0 else {}))
    storage = storage_of(path)
    y0, y1 = sorted(data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9))))
    x0, x1 = sorted(data.draw(st.tuples(st.integers(0, nx), st.integers(0, nx))))
    region = Region(y0, y1, x0, x1)
    full = read(storage)
    np.testing.assert_array_equal(read(storage, region), full[region.slices])


def test_read_into_a_part_of_a_buffer(tmp_path: Path) -> None:
    """A caller's own array, contiguous or not, is filled and nothing else is touched."""
    storage = storage_of(write_raw(tmp_path / "a.fits", numbers(16)))
    region = Region(2, 9, 3, 20)
    full = read(storage)
    buffer = np.full((20, 30), -1.0, np.float32)
    with storage.open() as reader:
        reader.read_into(region, buffer[5:12, 6:23])
        np.testing.assert_array_equal(buffer[5:12, 6:23], full[region.slices])
        assert (buffer == -1).sum() == buffer.size - region.size + (full[region.slices] == -1).sum()
        with pytest.raises(ShapeError, match=r"shape \(20, 30\)"):
            reader.read_into(region, buffer)
        with pytest.raises(ShapeError, match=r"dtype float64"):
            reader.read_into(region, np.empty(region.shape))
        with pytest.raises(ShapeError, match=r"\[1:42,1:2\] must lie inside the image of shape \(23, 41\)"):
            reader.read(Region(0, 2, 0, 42))


def test_storage_is_a_value(tmp_path: Path) -> None:
    """Descriptions compare, hash and pickle by value; the token tells what matters apart and opens no pixels."""
    path = write_raw(tmp_path / "a.fits", numbers(16))
    one, two = storage_of(path), storage_of(path)
    assert one == two == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(two)
    assert one.token == two.token
    assert one.token != storage_of(path, np.float64).token
    write_raw(path, numbers(16), BSCALE=2.0)
    assert one.token != storage_of(path).token
    assert len(pickle.dumps(one)) < 1500


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    """A file that was written anew after the plan was made is not read."""
    path = write_raw(tmp_path / "a.fits", numbers(16))
    storage = storage_of(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"a\.fits changed .* it had 5760 bytes, mtime \d+ .* mtime 1 ns"):
        storage.open()
    path.unlink()
    with pytest.raises(MissingFileError, match="does not exist"):
        storage.open()


def test_preferred_chunks(tmp_path: Path) -> None:
    """Bands of full rows of about four million pixels up to a width of 8192, else squares."""

    def chunks(ny: int, nx: int) -> tuple[int, int]:
        path = tmp_path / "a.fits"
        header = fits.Header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": nx, "NAXIS2": ny})
        path.write_bytes(header.tostring().encode())
        os.truncate(path, 2880 + -(-ny * nx * 2 // 2880) * 2880)
        return storage_of(path).chunks

    assert chunks(4096, 4096) == (1024, 4096)
    assert chunks(100, 8192) == (100, 8192)
    assert chunks(10000, 9000) == (2048, 2048)


def test_singleton_axes_are_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cube of one plane is an image, with a notice; a real cube and a spectrum are refused with the way out."""
    stored = numbers(16)
    with caplog.at_level("INFO", "lazyccd"):
        for shape in ((1, 23, 41), (1, 1, 23, 41), (23, 1, 41)):
            storage = storage_of(write_raw(tmp_path / "a.fits", stored.reshape(shape)))
            np.testing.assert_array_equal(read(storage), stored)
            assert f"has shape {shape}; read as an image of shape (23, 41)" in caplog.text
    with pytest.raises(FormatError, match=r"NAXIS = 3, shape \(2, 3, 4\), and must have two axes; write its planes"):
        storage_of(write_raw(tmp_path / "a.fits", np.zeros((2, 3, 4), np.int16)))
    with pytest.raises(FormatError, match=r"NAXIS = 1, shape \(9,\), and must have two axes; rows of pixels"):
        storage_of(write_raw(tmp_path / "a.fits", np.zeros(9, np.int16)))


@pytest.fixture
def mef(tmp_path: Path) -> FitsFile:
    """Make a file with two science images, companions and a table."""

    def image(name: str, ver: int) -> fits.ImageHDU:
        return fits.ImageHDU(np.full((3, 4), ver, np.int16), name=name, ver=ver)

    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="CAT")
    names = [("SCI", 1), ("UNCERT", 1), ("MASK", 1), ("SCI", 2)]
    path = tmp_path / "mef.fits"
    fits.HDUList([fits.PrimaryHDU(), *[image(*name) for name in names], table]).writeto(path)
    return scan_fits(path)


def test_find_hdu(mef: FitsFile) -> None:
    """An image is found by number, name, or name and version, in any case."""
    assert find_hdu(mef, 2).name == "UNCERT"
    assert find_hdu(mef, "mask").index == 3
    assert find_hdu(mef, ("sci", 2)).index == 4
    assert find_hdu(mef, "SCI,2").label == "[SCI,2]"
    assert [hdu.kind for hdu in mef.hdus] == ["none", "image", "image", "image", "image", "table"]


def test_a_name_of_digits(tmp_path: Path) -> None:
    """EXTNAME = '11' would be read as the number of an HDU, so the label has the number that it is at."""
    images = [fits.ImageHDU(np.full((3, 4), number, np.int16), name=f"{number}") for number in (11, 12)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(tmp_path / "a.fits")
    labels = [hdu.label for hdu in scan_fits(tmp_path / "a.fits").hdus]
    assert labels == ["[0]", "[1]", "[2]"]
    assert lazyccd.open_fits(f"{tmp_path / 'a.fits'}{labels[2]}")["data"].values[0, 0] == 12


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (None, r"has 2 images, and nothing says which; .* open_mef\. The file has\n(.*\n)+.*SCI,1 image"),
        ("SCI", r"has 2 extensions 'SCI': 1 \(SCI,1\), 4 \(SCI,2\); choose one by number"),
        (9, r"has no extension 9; it has"),
        (("SCI", 3), r"has no extension \('SCI', 3\)"),
        ("CAT", r"\[CAT,1\] is no image \(table\)"),
        (0, r"\[0\] is no image \(none\)"),
    ],
)
def test_find_hdu_refuses(mef: FitsFile, selector: Any, message: str) -> None:
    """What cannot be found, or is not one thing, is refused with the list of what is there."""
    with pytest.raises(FormatError, match=message):
        find_hdu(mef, selector)


def test_companions_do_not_make_a_second_image(tmp_path: Path) -> None:
    """A science image with UNCERT and MASK is one image; a file of a mask alone is one too."""
    data = np.zeros((3, 4), np.float32)
    parts = [fits.ImageHDU(data, name="UNCERT"), fits.ImageHDU(data.astype(np.uint8), name="MASK")]
    fits.HDUList([fits.PrimaryHDU(data), *parts]).writeto(tmp_path / "a.fits")
    assert find_hdu(scan_fits(tmp_path / "a.fits")).index == 0
    fits.HDUList([fits.PrimaryHDU(), parts[1]]).writeto(tmp_path / "b.fits")
    assert find_hdu(scan_fits(tmp_path / "b.fits")).name == "MASK"
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "c.fits")
    with pytest.raises(FormatError, match="has no image"):
        find_hdu(scan_fits(tmp_path / "c.fits"))


def cut(count: int) -> Callable[[bytes], bytes]:
    """Return a function that drops the last bytes."""
    return lambda raw: raw[:-count]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(2880), r"\[0\] is truncated: its 6000 bytes of data end at byte 8880 and the file has 8640"),
        (cut(100), r"\[0\] is damaged: its last block ends at byte 11520 and the file has 11420"),
        (lambda raw: raw + b"x" * 5, r"is damaged: 5 bytes behind HDU 0 are no extension"),
        (lambda raw: raw[:240], r"has no END card in 240 bytes of header"),
        (lambda raw: raw[:80], r"has no END card"),
        (lambda raw: raw.replace(b"END  ", b"FIN  ", 1), r"has no END card"),
        (lambda raw: b"", r"is empty"),
        (lambda raw: b"<!DOCTYPE html>", r"begins with b'<!DOCTYPE html>' and a FITS file begins with 'SIMPLE  ='"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1", r"Git LFS .* run 'git lfs pull'"),
        (lambda raw: b"\x1f\x9d\x90", r"Unix compress \(\.Z\), .* decompress it first"),
        (lambda raw: raw.replace(b"  16", b"  17", 1), r"BITPIX 17 must be 8, 16, 32, 64, -32 or -64"),
        (lambda raw: raw.replace(b"NAXIS2", b"NAXIS3", 1), r"NAXIS2 is None and must be an integer"),
        (lambda raw: raw.replace(b"  50", b" -50", 1), r"must not be negative"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    """Damage is told when headers are read, with the file, both numbers and what to do."""
    path = write_raw(tmp_path / "a.fits", np.zeros((60, 50), np.int16))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FormatError, match=message) as error:
        scan_fits(path)
    assert "a.fits" in str(error.value)


def test_absent_padding_is_accepted(tmp_path: Path) -> None:
    """Files that end with their last pixel are common; those with blank bytes behind too."""
    stored = numbers(16)
    path = write_raw(tmp_path / "a.fits", stored)
    path.write_bytes(path.read_bytes()[: 2880 + stored.nbytes])
    np.testing.assert_array_equal(read(storage_of(path)), stored)
    path.write_bytes(write_raw(path, stored).read_bytes() + bytes(100))
    np.testing.assert_array_equal(read(storage_of(path)), stored)


def test_file_cut_while_it_is_read(tmp_path: Path) -> None:
    """A file that shrinks under an open reader gives an error and not pixels."""
    storage = storage_of(write_raw(tmp_path / "a.fits", numbers(16)))
    with storage.open() as reader:
        os.truncate(storage.path, 3000)
        with pytest.raises(FormatError, match=r"ends at byte 3000, before the \d+ that were asked for"):
            reader.read(Region.full(storage.shape))


def test_folders_and_absent_files(tmp_path: Path) -> None:
    """Neither is a FITS file."""
    with pytest.raises(FormatError, match="is a folder"):
        scan_fits(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        scan_fits(tmp_path / "none.fits")


def test_scan_many_keeps_order_and_failures(tmp_path: Path) -> None:
    """Each file has its description or its error in its place."""
    paths = [write_raw(tmp_path / f"{i}.fits", numbers(16)) for i in range(20)]
    paths[7].write_bytes(b"no")
    found = scan_many(paths)
    assert [isinstance(item, LazyCCDError) for item in found] == [i == 7 for i in range(20)]
    assert [Path(item.path).name for item in found if isinstance(item, FitsFile)] == [
        f"{i}.fits" for i in range(20) if i != 7
    ]


def test_header_is_verbatim(tmp_path: Path) -> None:
    """Cards come as they are in the file; what is not ASCII is replaced and told."""
    header = fits.Header({"OBJECT": "M 17"})
    header["HIERARCH ESO DET OUT1 CONAD"] = 1.1
    header["LONG"] = "x" * 200
    header.add_history("flat-fielded")
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((3, 4), np.int16), header).writeto(path)
    raw = path.read_bytes()
    text = scan_fits(path).hdus[0].header
    cards = text.split("\n")
    assert {len(card) for card in cards} == {80}
    assert "".join(cards).encode() == raw[: len(cards) * 80]
    path.write_bytes(raw.replace(b"M 17", b"M\n\xe9 ", 1))
    assert "OBJECT  = 'M ?     '" in scan_fits(path).hdus[0].header


@pytest.mark.parametrize("card", ["BSCALE", "BZERO"])
def test_values_that_are_no_numbers(tmp_path: Path, card: str) -> None:
    """A scaling that is text is refused by name."""
    path = write_raw(tmp_path / "a.fits", numbers(16), **{card: 3.0})
    path.write_bytes(
        path.read_bytes().replace(
            f"{card:8}=                  3.0".encode(), f"{card:8}= 'three  '           ".encode()
        )
    )
    with pytest.raises(FormatError, match=f"{card} is 'three' and must be a number"):
        scan_fits(path)
