"""Mask planes from and to files: cards, CF attributes, and what the pipelines of observatories write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FormatError, FrameError, ParameterError
from lazyccd.frame.core import resolve
from lazyccd.io.fits.dq import dialects, named_table
from lazyccd.io.fits.layout import mask_cards
from lazyccd.mask_planes import STANDARD_PLANES, FlagTable, MaskPlane, MaskSchema

DATA = Path(__file__).parents[2].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real frames in {DATA}")

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,70}", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200).map(str.rstrip)
OWN = st.lists(st.builds(MaskPlane, NAMES, TEXTS, st.booleans()), max_size=24, unique_by=lambda plane: plane.name)


def schema_of(own: list[MaskPlane]) -> MaskSchema:
    """Return the standard planes and others."""
    schema = MaskSchema()
    for plane in own:
        schema = schema.with_plane(plane.name, plane.description, bad=plane.bad)
    return schema


def frame_with(schema: MaskSchema, bits: np.ndarray[Any, Any]) -> xr.Dataset:
    """Return a frame with a mask."""
    data = xr.Variable(("y", "x"), np.ones(bits.shape, np.float32), {"units": "adu"})
    return xr.Dataset({"data": data, "mask": xr.Variable(("y", "x"), bits, schema.to_attrs())}, attrs={"header": ""})


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own=OWN, seed=st.integers(0, 99))
def test_planes_come_back(tmp_path: Path, own: list[MaskPlane], seed: int) -> None:
    """Up to 32 planes, their names, descriptions, badness and bits survive FITS and Zarr."""
    schema = schema_of(own)
    bits = np.random.default_rng(seed).integers(0, 1 << len(schema.planes), (5, 7)).astype(schema.dtype)
    frame = frame_with(schema, bits)
    lazyccd.to_fits(frame, str(tmp_path / "a.fits"), overwrite=True)
    lazyccd.to_zarr(frame, str(tmp_path / "a.zarr"), overwrite=True)
    for again in (lazyccd.open_fits(tmp_path / "a.fits"), lazyccd.open_zarr(tmp_path / "a.zarr")):
        assert resolve(again).schema == schema
        assert again["mask"].dtype == schema.dtype
        np.testing.assert_array_equal(again["mask"], bits)


def test_cards_that_are_missing_or_wrong() -> None:
    """No cards give None; values that are not single bits, or are missing, are an error."""
    assert named_table("OBJECT  = 'M31'", "a.fits") is None
    header = fits.Header.fromstring(mask_cards(MaskSchema()), sep="\n")
    header["MSKM0002"] = 3
    with pytest.raises(FormatError, match=r"a.fits.*flag_masks \[1, 3"):
        named_table(header.tostring("\n"), "a.fits")
    del header["MSKM0002"]
    with pytest.raises(FormatError, match="MSKM0002"):
        named_table(header.tostring("\n"), "a.fits")


def write(
    path: Path, dq: np.ndarray[Any, Any], primary: dict[str, Any] | None = None, name: str = "DQ", **cards: Any
) -> str:
    """Write an image and a mask beside it."""
    extra = fits.ImageHDU(dq, name=name)
    for key, value in cards.items():
        extra.header[key] = value
    image = fits.ImageHDU(np.ones(dq.shape, "f4"), name="SCI")
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(primary or {})), image, extra]).writeto(path, overwrite=True)
    return str(path)


def planes_at(ds: xr.Dataset) -> list[set[str]]:
    """Return the names of the planes that each pixel has."""
    names = resolve(ds).schema.names
    return [{name for i, name in enumerate(names) if value >> i & 1} for value in ds["mask"].values.ravel().tolist()]


def test_cards_of_lsst(tmp_path: Path) -> None:
    """MP_ cards have the number of a bit; INTRP is INTERP, detections are not bad."""
    cards: dict[str, Any] = {
        "MP_BAD": 0,
        "MP_SAT": 1,
        "MP_INTRP": 2,
        "HIERARCH MP_DETECTED": 5,
        "HIERARCH MP_UNMASKEDNAN": 9,
    }
    ds = lazyccd.open_fits(
        write(tmp_path / "a.fits", np.array([[0, 1, 2, 4, 32, 512, 37]], "i4"), name="MASK", **cards)
    )
    assert planes_at(ds) == [
        set(), {"BAD"}, {"SAT"}, {"INTERP"}, {"DETECTED"}, {"UNMASKEDNAN"}, {"BAD", "INTERP", "DETECTED"},
    ]  # fmt: skip
    assert ds.ccd.bad.values.ravel().tolist() == [False, True, True, False, False, True, True]


def test_cards_of_lsst_go_when_a_tree_is_written(tmp_path: Path) -> None:
    """The bits that are written have our numbers, so no MP_ card of the file is left to say otherwise."""
    source = fits.HDUList([fits.PrimaryHDU()])
    for number in (1, 2):
        source.append(
            fits.ImageHDU(np.zeros((2, 3), "f4"), name="SCI", ver=number, header=fits.Header({"BUNIT": "adu"}))
        )
        cards = fits.Header({"MP_SAT": 0, "MP_CR": 4})
        source.append(fits.ImageHDU(np.array([[1, 16, 0], [0, 0, 17]], "i4"), cards, name="DQ", ver=number))
    source.writeto(tmp_path / "a.fits")
    tree = lazyccd.open_mef(tmp_path / "a.fits")
    lazyccd.to_fits(tree, tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        assert not [key for hdu in hdus for key in hdu.header if key.startswith("MP_")]
    again = lazyccd.open_mef(tmp_path / "b.fits")
    for before, after in zip(tree.children.values(), again.children.values(), strict=True):
        assert planes_at(before.to_dataset()) == planes_at(after.to_dataset()) == [
            {"SAT"}, {"CR"}, set(), set(), set(), {"SAT", "CR"},
        ]  # fmt: skip


def test_planes_in_another_order(tmp_path: Path) -> None:
    """Cards of the same names that give other bits, as lsst.images writes them, become the bits of this package."""
    cards = {"MSKN0000": "GHOST", "MSKM0000": 1, "MSKD0000": "ghost", "MSKN0001": "SAT", "MSKM0001": 4}
    ds = lazyccd.open_fits(write(tmp_path / "a.fits", np.array([[1, 4, 5]], "u1"), **cards))
    assert planes_at(ds) == [{"GHOST"}, {"SAT"}, {"GHOST", "SAT"}]
    assert resolve(ds).schema.planes[:8] == STANDARD_PLANES


@pytest.mark.parametrize("name", dialects())
def test_dialects_are_consistent(name: str) -> None:
    """Integers are unique; bits are single bits; all planes fit into a mask."""
    table = dialects()[name].table
    values = [value for value, _ in table.planes]
    assert len(set(values)) == len(values)
    assert len(table.schema.planes) <= 32
    if not table.exclusive:
        assert all(value & (value - 1) == 0 for value in values)


@pytest.mark.parametrize(
    ("primary", "expected"),
    [
        ({"TELESCOP": "HST", "INSTRUME": "STIS"}, [{"SAT"}, {"HOTPIX"}, {"SAT", "HOTPIX"}]),
        ({"TELESCOP": "HST", "INSTRUME": "ACS"}, [{"SAT"}, {"HOTPIX"}, {"SAT", "HOTPIX"}]),
        ({"TELESCOP": "JWST", "INSTRUME": "NIRCAM"}, [{"UNRELIABLE"}, {"OUTLIER"}, {"UNRELIABLE", "OUTLIER"}]),
        (
            {"INSTRUME": "DECam", "PROCTYPE": "InstCal", "PLVER": "V2.9"},
            [{"SSXTALK"}, {"CR"}, {"SSXTALK", "CR"}],
        ),
    ],
)
def test_dialects_by_header(tmp_path: Path, primary: dict[str, Any], expected: list[set[str]]) -> None:
    """The primary header tells the pipeline."""
    path = write(tmp_path / "a.fits", np.array([[256, 16, 272]], "i4"), primary)
    assert planes_at(lazyccd.open_fits(path)) == expected


def test_codes_are_no_bits(tmp_path: Path) -> None:
    """Of the Community Pipeline's codes a pixel has one: 3 is saturated, not 1 and 2."""
    primary = {"INSTRUME": "DECam", "PROCTYPE": "InstCal", "PLVER": "V4.8.2a"}
    path = write(tmp_path / "a.fits", np.arange(9, dtype="i4")[None], primary)
    names = ["BAD", "NO_DATA", "SAT", "BLEED", "CR", "LOW_WEIGHT", "DIFF_DETECT", "STREAK"]
    assert planes_at(lazyccd.open_fits(path)) == [set(), *({name} for name in names)]


def test_unknown_dialects_are_refused(tmp_path: Path) -> None:
    """A DQ extension that nobody can read raises at opening and says how to go on; each of the ways works."""
    path = write(tmp_path / "a.fits", np.array([[0, 4, 8, 12]], "i2"))
    with pytest.raises(FormatError, match=r"a.fits\[DQ,1\].*dq=.*hst-stis.*boolean"):
        lazyccd.open_fits(path)
    with pytest.raises(ParameterError, match="dq 'hst' must be one of hst-stis"):
        lazyccd.open_fits(path, dq="hst")
    assert planes_at(lazyccd.open_fits(path, dq="boolean")) == [set(), {"BAD"}, {"BAD"}, {"BAD"}]
    own = {"SAT": 4, "GHOST": 8}
    assert planes_at(lazyccd.open_fits(path, dq=own)) == [set(), {"SAT"}, {"GHOST"}, {"SAT", "GHOST"}]
    with pytest.raises(ParameterError, match="'SAT' has the value 5"):
        lazyccd.open_fits(path, dq={"SAT": 5})
    with pytest.raises(FrameError, match=r"a.fits\[DQ,1\] has the bits 8.*SAT 4"):
        lazyccd.open_fits(path, dq={"SAT": 4})["mask"].compute()
    with pytest.raises(FrameError, match=r"has the codes 12"):
        lazyccd.open_fits(path, dq="noirlab")["mask"].compute()


def test_boolean_masks_need_no_dialect(tmp_path: Path) -> None:
    """MASK and BPM without cards are 0 or not, whoever wrote them."""
    for name in ("MASK", "BPM"):
        path = write(
            tmp_path / "a.fits", np.array([[0, 1, 7]], "u1"), {"TELESCOP": "HST", "INSTRUME": "STIS"}, name=name
        )
        assert planes_at(lazyccd.open_fits(path)) == [set(), {"BAD"}, {"BAD"}]


@pytest.mark.parametrize("exclusive", [False, True])
def test_cf_flags_of_others(exclusive: bool) -> None:
    """CF masks and values that other software wrote become planes, under any chunks."""
    key, numbers = ("flag_values", [0, 1, 2, 3]) if exclusive else ("flag_masks", [1, 2, 4, 8])
    attrs = {key: np.array(numbers, "u1"), "flag_meanings": "fine sat cloud-shadow cr"}
    mask = da.from_array(np.array([[0, 1, 2, 3]], "u1"), chunks=(1, 3))
    ds = xr.Dataset({"data": (("y", "x"), np.ones((1, 4), "f4")), "mask": (("y", "x"), mask, attrs)})
    out = lazyccd.add(ds, ds)
    both: list[set[str]] = [set(), {"SAT"}, {"CLOUD_SHADOW"}, {"CR"}]
    bits: list[set[str]] = [set(), {"FINE"}, {"SAT"}, {"FINE", "SAT"}]
    assert planes_at(out) == (both if exclusive else bits)


def test_cf_flags_that_are_refused() -> None:
    """Values and masks together, several bits in a mask, names without values."""
    with pytest.raises(ParameterError, match="flag_masks together with flag_values"):
        FlagTable.from_attrs({"flag_masks": [1], "flag_values": [1], "flag_meanings": "a"})
    with pytest.raises(ParameterError, match=r"flag_masks \[1, 3\] must be single bits"):
        FlagTable.from_attrs({"flag_masks": [1, 3], "flag_meanings": "a b"})
    with pytest.raises(ParameterError, match="2 names and there are 1 values"):
        FlagTable.from_attrs({"flag_masks": [1], "flag_meanings": "a b"})


@real
@pytest.mark.parametrize(("name", "path"), [("hst-nicmos", "HST_NICMOS.fits"), ("hst-stis", "3c120_stis_orig.fits.gz")])
def test_hst(name: str, path: str) -> None:
    """Real DQ arrays of HST: each bit of the file is its plane here, pixel by pixel."""
    file = DATA / "dq_bitmask" / path
    ds = lazyccd.open_fits(file, hdu="SCI")
    bits = fits.getdata(file, "DQ")
    seen = np.zeros(bits.shape, int)
    for value, plane in dialects()[name].table.planes:
        seen += np.where(ds.ccd.is_flagged(plane.name).values & ((bits & value) != 0), value, 0)
    np.testing.assert_array_equal(seen, bits)
    np.testing.assert_array_equal(ds["mask"].values == 0, (bits == 0) & np.isfinite(ds["data"].values))


@real
def test_banzai() -> None:
    """The BPM of a reduced Sinistro frame has BANZAI's bits."""
    path = DATA / "lco_sinistro_mef" / "banzai_test_frame.fits.fz"
    ds = lazyccd.open_fits(path, hdu="SCI")
    bits = fits.getdata(path, "BPM")
    seen = np.zeros(bits.shape, int)
    for value, plane in dialects()["banzai"].table.planes:
        seen += value * lazyccd.is_flagged(ds, plane.name).values
    np.testing.assert_array_equal(seen, bits)


def test_selections_by_function_and_method() -> None:
    """Names, several of them, selection strings; without any, what counts as bad; booleans are the plane BAD."""
    schema = lazyccd.mask_planes.MaskSchema()  # no function hides the module
    bits = np.array([[0, *(1 << i for i in range(8))]], np.uint16)
    ds = frame_with(schema, bits)
    for planes in ((), ("CR",), ("CR", "SAT"), ("CR+SAT",), ("~CR",), ("~CR+INTERP", "EDGE"), ("interp",)):
        wanted = 0
        for name in planes or (None,):
            wanted |= schema.select(name)
        for found in (lazyccd.is_flagged(ds, *planes), ds.ccd.is_flagged(*planes)):
            np.testing.assert_array_equal(found, (bits & wanted) != 0)
    boolean = ds.assign(mask=(("y", "x"), bits > 4))
    assert not lazyccd.is_flagged(boolean, "SAT").any()
    np.testing.assert_array_equal(lazyccd.is_flagged(boolean, "BAD"), bits > 4)
    with pytest.raises(ParameterError, match="'GHOST' does not exist; this mask has BAD, SAT"):
        lazyccd.is_flagged(ds, "~GHOST")
    for same in ("~CR+INTERP", "~ CR + INTERP", "~cr interp", " ~CR,INTERP "):
        assert schema.select(same) == schema.select("~CR+INTERP")
    for wrong in ("", " ", "SAT++CR", "SAT+", ",SAT", "~", "~~SAT", "SAT~CR"):
        with pytest.raises(ParameterError, match=f"planes {re.escape(repr(wrong))} has a name missing"):
            lazyccd.is_flagged(ds, wrong)


@real
@pytest.mark.parametrize(
    "path", sorted((DATA / "decam_cp_tpv_dq").glob("*_ooi_*")), ids=lambda path: path.name.split(".")[0]
)
def test_community_pipelines(path: Path) -> None:
    """Real frames of DECam, Mosaic3 and 90Prime: the codes in the file beside them are planes, one for each pixel at most."""
    codes = fits.getdata(str(path).replace("_ooi_", "_ood_"), 1)
    tree = lazyccd.open_mef(path)
    (ds,) = tree.ccd.frames.values()
    seen = np.zeros(codes.shape, int)
    for code, plane in dialects()["noirlab"].table.planes:
        seen += code * lazyccd.is_flagged(ds, plane.name).values
    np.testing.assert_array_equal(seen[np.isfinite(ds["data"].values)], codes[np.isfinite(ds["data"].values)])


@real
def test_masks_of_sdss_are_refused_by_name() -> None:
    """An fpM file has its masks as tables of spans, and no image."""
    with pytest.raises(FormatError, match=r"fpM-001000-r1-0100\.fit has no image"):
        lazyccd.open_fits(DATA / "dq_bitmask" / "fpM-001000-r1-0100.fit")
