"""The FITS writer: any regions in any order give the same bytes, which astropy accepts; no unfinished file gets the name."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyccd.errors import (
    MissingFileError,
    ParameterError,
    ShapeError,
    TargetExistsError,
    WriteError,
)
from lazyccd.io.fits.dq import named_table
from lazyccd.io.fits.layout import HduSpec, frame_hdus
from lazyccd.io.fits.writer import FitsTarget, Partial
from lazyccd.kernels.fits.encode import encode_big_endian, fold_datasum
from lazyccd.mask_planes import MaskSchema
from lazyccd.sections import Region

DTYPES = ("float32", "float64", "uint8", "uint16", "uint32")
HEADER = "BUNIT   = 'electron'\nOBJECT  = 'M 31    '\nHISTORY raw\nCOMMENT it's here"


def make_pixels(shape: tuple[int, int], dtype: str, seed: int = 0) -> npt.NDArray[Any]:
    """Return pixels that use all bits of the type, with a NaN in the floats."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        pixels = rng.normal(0, 1e3, shape).astype(dtype)
        pixels[0, 0] = np.nan
        return pixels
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def cut(shape: tuple[int, int], ys: list[int], xs: list[int]) -> list[Region]:
    """Return the regions between the given rows and columns."""
    y_edges = sorted({0, shape[0], *(y % shape[0] for y in ys)})
    x_edges = sorted({0, shape[1], *(x % shape[1] for x in xs)})
    return [Region(y0, y1, x0, x1) for y0, y1 in pairwise(y_edges) for x0, x1 in pairwise(x_edges)]


def write_all(target: FitsTarget, images: list[npt.NDArray[Any]], regions: list[Region]) -> bytes:
    """Write the same regions of every HDU and return the bytes of the file."""
    target.create(overwrite=True)
    partials = [target.write(i, r, image[r.slices]) for r in regions for i, image in enumerate(images)]
    target.finish(partials, overwrite=True)
    return Path(target.path).read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", [0, 8, 1, 2, 3])
def test_datasum_is_that_of_the_definition(dtype: str, position: int) -> None:
    """The sum of a piece equals the sum of big-endian words of a data unit that is zero elsewhere."""
    pixels = make_pixels((1, 37), dtype)
    position *= pixels.itemsize if position % pixels.itemsize else 1
    out = np.empty(pixels.nbytes, np.uint8)
    total = encode_big_endian(pixels, position, out)
    unit = bytes(position) + out.tobytes()
    words = np.frombuffer(unit.ljust(-(-len(unit) // 4) * 4, b"\0"), ">u4")
    assert total == fold_datasum(sum(int(word) for word in words))


def test_datasum_of_all_ones_is_not_zero() -> None:
    """0xFFFFFFFF and 0 are equal modulo 0xFFFFFFFF but are different checksums."""
    out = np.empty(8, np.uint8)
    assert encode_big_endian(np.full(8, 255, np.uint8), 0, out) == 0xFFFFFFFF
    assert encode_big_endian(np.zeros(8, np.uint8), 0, out) == 0


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(DTYPES),
    ys=st.lists(st.integers(0, 1000), max_size=4),
    xs=st.lists(st.integers(0, 1000), max_size=4),
    rng=st.randoms(use_true_random=False),
)
def test_any_regions_in_any_order_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int], dtype: str, ys: list[int], xs: list[int], rng: Any
) -> None:
    """The file does not depend on how it was cut, and astropy reads back every bit and both checksums."""
    folder = tmp_path_factory.mktemp("regions")
    pixels = make_pixels(shape, dtype)
    target = FitsTarget(str(folder / "a.fits"), (HduSpec("", HEADER, shape, dtype), HduSpec("B", "", shape, dtype)))
    whole = write_all(target, [pixels, pixels], [Region.full(shape)])
    regions = cut(shape, ys, xs)
    rng.shuffle(regions)
    assert write_all(target, [pixels, pixels], regions) == whole
    with fits.open(target.path, checksum=True) as hdus:
        hdus.verify("exception")
        for hdu in hdus:
            assert hdu.data.dtype.newbyteorder("=") == np.dtype(dtype)
            assert hdu.data.astype(dtype).tobytes() == pixels.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (7, 4097), (1, 700_001), (1500, 3)])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Single pixels, odd widths, and rows and stacks longer than a piece come back."""
    images = [make_pixels(shape, dtype) for dtype in DTYPES]
    specs = tuple(HduSpec(f"E{i}" if i else "", "", shape, dtype) for i, dtype in enumerate(DTYPES))
    middle = shape[1] // 2
    write_all(FitsTarget(str(tmp_path / "a.fits"), specs), images, cut(shape, [], [middle]))
    with fits.open(tmp_path / "a.fits", checksum=True) as hdus:
        for hdu, image in zip(hdus, images, strict=True):
            np.testing.assert_array_equal(hdu.data, image)


def test_views_of_larger_arrays_are_written_and_left_alone(tmp_path: Path) -> None:
    """Strided, read-only input is written as it is and keeps its values."""
    large = make_pixels((20, 30), "float32")
    large.setflags(write=False)
    before = large.copy()
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", "", (10, 15)),))
    write_all(target, [large[::2, ::2]], [Region.full((10, 15))])
    np.testing.assert_array_equal(fits.getdata(target.path), before[::2, ::2])
    np.testing.assert_array_equal(large, before)


@pytest.mark.parametrize(("kind", "cls"), [("std", StdDevUncertainty), ("var", VarianceUncertainty)])
def test_ccddata_reads_a_frame(tmp_path: Path, kind: str, cls: type) -> None:
    """CCDData.read finds image, unit, uncertainty and mask; the planes are in DQ."""
    shape, schema = (9, 11), MaskSchema().with_plane("GHOST", "Optical ghost", bad=False)
    data = make_pixels(shape, "float32")
    dq = np.zeros(shape, schema.dtype)
    dq[2, 3] = schema.bits("CR", "GHOST")
    bad = (dq & schema.bad_bits) != 0
    hdus = frame_hdus(shape, HEADER, uncertainty_type=kind, uncertainty_unit="electron", schema=schema)
    target = FitsTarget(str(tmp_path / "a.fits"), hdus)
    write_all(target, [data, abs(data), bad, dq], [Region.full(shape)])
    ccd = CCDData.read(target.path)
    np.testing.assert_array_equal(ccd.data, data)
    assert str(ccd.unit) == "electron"
    assert type(ccd.uncertainty) is cls
    np.testing.assert_array_equal(ccd.uncertainty.array, abs(data))
    np.testing.assert_array_equal(ccd.mask, bad)
    with fits.open(target.path, checksum=True) as opened:
        assert [hdu.name for hdu in opened] == ["PRIMARY", "UNCERT", "MASK", "DQ"]
        table = named_table(opened["DQ"].header.tostring("\n"), "DQ")
        assert table is not None
        assert table.schema == schema
        np.testing.assert_array_equal(opened["DQ"].data, dq)


def test_header_cards(tmp_path: Path) -> None:
    """Cards travel as they are; those of the old file's storage do not; other characters than ASCII become '?'."""
    long = fits.Card("LONGSTR", "x" * 100).image
    cards = [
        *("SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    0"),
        *("BZERO   =                32768", "BSCALE  =                    1", "BLANK   =                   -1"),
        *(
            "CHECKSUM= 'abc'",
            "ZIMAGE  =                    T",
            "ZCMPTYPE= 'RICE_1  '",
            "ZPOINT  =                 25.0",
        ),
        *("EXTNAME = 'a name that is &'", "CONTINUE  'long'", long[:80], long[80:]),
        *("HIERARCH ESO DET OUT1 GAIN = 1.2", "HISTORY  spaces  kept", "", "OBSERVER= 'Ren\xe9'", "END"),
    ]
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("SCI", "\n".join(cards), (2, 2)),))
    write_all(target, [np.ones((2, 2), np.float32)], [Region(0, 2, 0, 2)])
    header = fits.getheader(target.path)
    assert list(header) == [
        *(
            "SIMPLE",
            "BITPIX",
            "NAXIS",
            "NAXIS1",
            "NAXIS2",
            "EXTEND",
            "EXTNAME",
            "LONGSTRN",
            "ZPOINT",
            "LONGSTR",
            "ESO DET OUT1 GAIN",
        ),
        *("HISTORY", "OBSERVER", "CHECKSUM", "DATASUM"),
    ]
    assert (header["BITPIX"], header["EXTNAME"], header["OBSERVER"]) == (-32, "SCI", "Ren?")
    assert header["LONGSTR"] == "x" * 100
    assert header["HISTORY"][0] == " spaces  kept"
    assert header.comments["CHECKSUM"] == "HDU checksum"


def write_row(job: tuple[bytes, int]) -> Partial:
    """Write a row of a pickled target in another process."""
    target: FitsTarget = pickle.loads(job[0])
    row = job[1]
    return target.write(0, Region(row, row + 1, 0, 5), np.full((1, 5), row, np.uint16))


def test_other_processes_and_threads_write_a_pickled_target(tmp_path: Path) -> None:
    """A target is small, hashable and equal after pickling; it needs nothing but its name."""
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", HEADER, (8, 5), "uint16"),))
    packed = pickle.dumps(target)
    assert len(packed) < 1000
    assert pickle.loads(packed) == target
    assert hash(pickle.loads(packed)) == hash(target)
    target.create()
    with get_context("spawn").Pool(1) as pool:
        partials = pool.map(write_row, [(packed, row) for row in range(4)])
    with ThreadPoolExecutor(4) as threads:
        partials += threads.map(write_row, [(packed, row) for row in range(4, 8)])
    target.finish(reversed(partials))
    np.testing.assert_array_equal(fits.getdata(target.path, checksum=True), np.arange(8)[:, None] * np.ones(5))


def test_the_name_appears_only_when_complete(tmp_path: Path) -> None:
    """Until finish there is only .part; a missing region is refused; abort leaves nothing; a stale .part is replaced."""
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", "", (4, 4)),))
    Path(target.part).write_bytes(b"left by a run that was killed")
    target.create()
    half = target.write(0, Region(0, 2, 0, 4), np.ones((2, 4), np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["a.fits.part"]
    with pytest.raises(WriteError, match=r"8 pixels were written and the image has 16"):
        target.finish([half])
    assert [path.name for path in tmp_path.iterdir()] == ["a.fits.part"]
    target.abort()
    target.abort()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WriteError, match=r"a\.fits\.part: HDU 0 \(image\) region \[1:4,1:2\].*call create"):
        target.write(0, Region(0, 2, 0, 4), np.ones((2, 4), np.float32))


def test_existing_files_and_folders(tmp_path: Path) -> None:
    """An existing target is refused by name, kept until the new one is complete, and a folder never replaced."""
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", "", (1, 1)),))
    Path(target.path).write_text("old")
    with pytest.raises(TargetExistsError, match=r"a\.fits exists; pass overwrite=True"):
        target.create()
    assert not Path(target.part).exists()
    target.create(overwrite=True)
    assert Path(target.path).read_text() == "old"
    written = [target.write(0, Region(0, 1, 0, 1), np.ones((1, 1), np.float32))]
    with pytest.raises(TargetExistsError, match=r"a\.fits exists and did not when the write began"):
        target.finish(written)
    assert Path(target.path).read_text() == "old"
    target.finish(written, overwrite=True)
    assert fits.getdata(target.path).item() == 1
    with pytest.raises(TargetExistsError, match="is a folder"):
        FitsTarget(str(tmp_path), target.hdus).create(overwrite=True)
    with pytest.raises(MissingFileError, match="no_such_folder"):
        FitsTarget(str(tmp_path / "no_such_folder" / "a.fits"), target.hdus).create()


@pytest.mark.parametrize(
    ("region", "pixels", "error"),
    [
        (Region(0, 2, 0, 2), np.ones((2, 3), np.float32), ShapeError),
        (Region(3, 5, 0, 2), np.ones((2, 2), np.float32), ShapeError),
        (Region(0, 2, 0, 2), np.ones((2, 2), np.float64), ParameterError),
        (Region(0, 2, 0, 2), np.ones((2, 2), ">f4"), ParameterError),
    ],
)
def test_wrong_pieces_are_refused(tmp_path: Path, region: Region, pixels: npt.NDArray[Any], error: type) -> None:
    """A piece of another shape, place, type or byte order is an error and nothing is written."""
    target = FitsTarget(str(tmp_path / "a.fits"), (HduSpec("", "", (4, 4)),))
    target.create()
    before = Path(target.part).read_bytes()
    with pytest.raises(error):
        target.write(0, region, pixels)
    assert Path(target.part).read_bytes() == before


def test_wrong_specs_are_refused() -> None:
    """What FITS cannot hold is refused when the layout is made."""
    with pytest.raises(ParameterError, match="int64 must be one of"):
        HduSpec("", "", (2, 2), "int64")
    with pytest.raises(ShapeError, match=r"\(2, 0\)"):
        HduSpec("", "", (2, 0))
    with pytest.raises(ParameterError, match="81 characters"):
        HduSpec("", "x" * 81, (2, 2))


def test_no_space_left_is_known_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """Where the system refuses the space, create() raises and removes what it began."""
    script = """
import resource, sys
from lazyccd.errors import WriteError
from lazyccd.io.fits.layout import HduSpec
from lazyccd.io.fits.writer import FitsTarget
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    FitsTarget(sys.argv[1], (HduSpec("", "", (1000, 1000)),)).create()
except WriteError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.fits")],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert "a.fits.part: 4003200 bytes cannot be written" in run.stdout
    assert list(tmp_path.iterdir()) == []
