"""Headers: the raw one stays to the byte, a product's is true, and the WCS follows the pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS, FITSFixedWarning
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import FrameError, KeywordError, UnitError
from lazyccd.frame.header import append_cards, copy_header, header_from_text, header_to_text, merge_headers
from lazyccd.frame.output_header import after_gain, after_normalization, after_pedestal, product_header
from lazyccd.frame.processing_history import is_stamp
from lazyccd.frame.units import parse_unit

SHAPE = (40, 50)
TAN = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 20.5,
    "CRPIX2": 11.0,
}
MATRICES: dict[str, dict[str, float]] = {
    "CD": {"CD1_1": -1e-4, "CD1_2": 2e-5, "CD2_1": 3e-5, "CD2_2": 1e-4},
    "PC and CDELT": {"CDELT1": -1e-4, "CDELT2": 1e-4, "PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8},
    "half of a PC": {"CDELT1": -1e-4, "CDELT2": 1.2e-4, "PC1_2": -0.1, "PC2_1": 0.1},
    "CDELT": {"CDELT1": -1e-4, "CDELT2": 2e-4},
    "CROTA2": {"CDELT1": -1e-4, "CDELT2": 2e-4, "CROTA2": 30.0},
}
SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 1e-5,
    "B_0_2": -2e-5,
    **MATRICES["CD"],
}
TPV = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV1_7": 3000.0, "PV2_1": 1.0, **MATRICES["CD"]}


def frame(**cards: Any) -> xr.Dataset:
    """Return a frame with a header."""
    header = fits.Header({"NAXIS": 2, "NAXIS1": SHAPE[1], "NAXIS2": SHAPE[0]})
    header.update(cards)
    ds = lazyccd.from_ccddata(CCDData(np.arange(2000.0).reshape(SHAPE), unit="adu"))
    return ds.assign_attrs(header=header_to_text(header))


def written(ds: xr.Dataset, folder: Path) -> fits.Header:
    """Return the header of the written frame."""
    return fits.getheader(lazyccd.to_fits(ds, folder / "product.fits", overwrite=True))


def sky(wcs: WCS, x: Any, y: Any) -> Any:
    """Return the positions of 0-based pixels on the sky."""
    return np.array(wcs.all_pix2world(x, y, 0))


CUTS = {
    "corner": {"y": slice(3, 30), "x": slice(7, 41)},
    "flipped": {"y": slice(None, None, -1), "x": slice(40, 3, -1)},
    "every third": {"y": slice(1, None, 3), "x": slice(2, None, 2)},
    "flipped steps": {"y": slice(38, 2, -2), "x": slice(None, None, 4)},
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("cut", CUTS)
def test_the_wcs_follows_slices(matrix: str, cut: str, tmp_path: Path) -> None:
    """A pixel keeps its place on the sky, in memory and in the file, however the matrix is written."""
    ds = frame(**TAN, **MATRICES[matrix])
    before = ds.ccd.wcs
    part = ds.isel(CUTS[cut])
    rows, columns = np.meshgrid(np.arange(part.sizes["y"]), np.arange(part.sizes["x"]), indexing="ij")
    expected = sky(before, part["x"].values[columns.ravel()], part["y"].values[rows.ravel()])
    np.testing.assert_allclose(sky(part.ccd.wcs, columns.ravel(), rows.ravel()), expected, atol=1e-10)
    header = written(part, tmp_path)
    assert "CROTA2" not in header or "flipped" not in cut
    np.testing.assert_allclose(sky(WCS(header), columns.ravel(), rows.ravel()), expected, atol=1e-10)


def test_the_wcs_follows_binning(tmp_path: Path) -> None:
    """The centre of a block of 2 x 4 pixels is where the mean of their positions was."""
    ds = frame(**TAN, **MATRICES["CROTA2"])
    binned = lazyccd.block_reduce(ds, (2, 4))
    expected = sky(ds.ccd.wcs, 4 * 3 + 1.5, 2 * 5 + 0.5)
    np.testing.assert_allclose(sky(binned.ccd.wcs, 3, 5), expected, atol=1e-10)
    np.testing.assert_allclose(sky(WCS(written(binned, tmp_path)), 3, 5), expected, atol=1e-10)


@pytest.mark.parametrize("cards", [SIP, TPV], ids=["SIP", "TPV"])
def test_distortions_follow_a_cut(cards: dict[str, Any], tmp_path: Path) -> None:
    """Polynomials of pixels are cut with the image; those of the sky can be scaled too."""
    ds = frame(**(TAN | cards))
    part = ds.isel(y=slice(3, 30), x=slice(7, 41))
    expected = sky(ds.ccd.wcs, 20, 20)
    assert np.abs(expected - sky(frame(**TAN, **MATRICES["CD"]).ccd.wcs, 20, 20)).max() > 1e-9
    np.testing.assert_allclose(sky(part.ccd.wcs, 13, 17), expected, atol=1e-10)
    np.testing.assert_allclose(sky(WCS(written(part, tmp_path)), 13, 17), expected, atol=1e-10)
    np.testing.assert_allclose(
        sky(part.isel(x=slice(None, None, 3)).ccd.wcs, 2, 17), sky(ds.ccd.wcs, 13, 20), atol=1e-10
    )


LARGE_SIP = SIP | {
    "A_ORDER": 3,
    "B_ORDER": 3,
    "A_1_1": 3e-5,
    "A_0_2": -2e-5,
    "A_3_0": 4e-7,
    "A_1_2": -3e-7,
    "B_2_0": 2e-5,
    "B_1_1": -4e-5,
    "B_0_3": 5e-7,
    "B_2_1": 6e-7,
    "A_DMAX": 1.5,
    "AP_ORDER": 3,
    "BP_ORDER": 3,
    "AP_2_0": -1e-5,
    "AP_1_1": -3e-5,
    "AP_0_2": 2e-5,
    "AP_1_2": 1e-7,
    "BP_2_0": -2e-5,
    "BP_0_2": 2e-5,
    "BP_1_1": 4e-5,
    "BP_2_1": -6e-7,
}

REGRIDS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "binned": lambda ds: lazyccd.block_reduce(ds, (2, 4)),
    "averaged three times two": lambda ds: lazyccd.block_average(ds, (3, 2)),
    "replicated": lambda ds: lazyccd.block_replicate(ds, (2, 3)),
    "flipped along y": lambda ds: ds.isel(y=slice(None, None, -1)),
    "flipped along x": lambda ds: ds.isel(x=slice(None, None, -1)),
    "turned by 180 degrees": lambda ds: ds.isel(y=slice(None, None, -1), x=slice(None, None, -1)),
    "cut and flipped": lambda ds: ds.isel(y=slice(3, 30), x=slice(40, 3, -1)),
    "cut, flipped and binned": lambda ds: lazyccd.block_reduce(ds.isel(y=slice(31, 3, -1), x=slice(5, 47)), (4, 2)),
    "steps": lambda ds: ds.isel(y=slice(38, 2, -2), x=slice(1, None, 3)),
}


def there_and_back(wcs: WCS, x: Any, y: Any) -> Any:
    """Return 0-based pixels after A and B, and then AP and BP, which are only nearly the inverse."""
    return wcs.sip_foc2pix(wcs.sip_pix2foc(np.stack([x, y], 1) + 1.0, 1), 1) - 1


@pytest.mark.parametrize("matrix", ["CD", "PC and CDELT"])
@pytest.mark.parametrize("regrid", REGRIDS)
def test_polynomials_follow_binning_and_flips(regrid: str, matrix: str, tmp_path: Path) -> None:
    """Pixels of a frame with SIP keep their place on the sky, there and back, in memory and in the file."""
    cards = {key: value for key, value in LARGE_SIP.items() if not key.startswith("CD")}
    ds = frame(**(TAN | cards | MATRICES[matrix]))
    before = ds.ccd.wcs
    part = REGRIDS[regrid](ds)
    rows, columns = (i.ravel() for i in np.indices(part["data"].shape))
    x, y = part["x"].values[columns], part["y"].values[rows]
    expected = sky(before, x, y)
    linear = np.array(before.wcs_pix2world(x, y, 0))
    assert np.abs(expected - linear).max() > 1e-6
    header = written(part, tmp_path)
    back = there_and_back(before, x, y)
    for wcs in (part.ccd.wcs, WCS(header)):
        np.testing.assert_allclose(sky(wcs, columns, rows), expected, atol=1e-11)
        mine = there_and_back(wcs, columns, rows)
        steps = np.array([np.diff(part[axis].values[:2])[0] for axis in "xy"])
        firsts = np.array([part[axis].values[0] for axis in "xy"])
        np.testing.assert_allclose(mine * steps + firsts, back, atol=1e-9)
    assert np.abs(back - np.stack([x, y], 1)).max() > 1e-4
    assert header["A_DMAX"] * abs(steps[0]) == pytest.approx(1.5)


def test_what_cannot_be_a_wcs() -> None:
    """Tables in other HDUs and wrong cards are named, with the way out; other letters are no WCS."""
    ds = frame(**TAN, CPDIS1="LOOKUP", CPDIS2="LOOKUP")
    with pytest.raises(FrameError, match=r"tables in other HDUs.*with_header\(\) with CPDIS1"):
        _ = ds.ccd.wcs
    mended = ds.ccd.with_header({"CPDIS1": None, "CPDIS2": None})
    assert mended.ccd.wcs.wcs.crpix.tolist() == [20.5, 11.0]
    with pytest.raises(FrameError, match="cannot be read"):
        _ = frame(**(TAN | {"CTYPE2": "RA---TAN"})).ccd.wcs
    assert frame(CTYPE1A="LINEAR", CTYPE2A="LINEAR").ccd.wcs is None
    assert frame().ccd.wcs is None
    with pytest.raises(FrameError, match="not evenly spaced"):
        _ = frame(**TAN).isel(x=[1, 2, 5]).ccd.wcs


def test_a_text_in_the_place_of_a_number_of_the_wcs(tmp_path: Path) -> None:
    """Astropy would take the default, and the frame would lie elsewhere: no face of the WCS gives that; cut-outs are written as before."""
    ds = frame(**(TAN | {"CRVAL1": "10:00:00"}))
    said = r"CRVAL1 = '10:00:00' is a text and must be a number.*with_header"
    with pytest.raises(FrameError, match=said):
        _ = ds.ccd.wcs
    with pytest.raises(FrameError, match=rf"frame 1: {said}"):
        lazyccd.combine([ds, ds], offsets="wcs")
    with pytest.warns(UserWarning, match="CRVAL1 = '10:00:00', which must be a number; the CCDData has no WCS"):
        assert lazyccd.to_ccddata(ds).wcs is None
    assert written(ds.isel(x=slice(3, None)), tmp_path)["CRPIX1"] == TAN["CRPIX1"] - 3


def test_sections_and_physical_coordinates(tmp_path: Path) -> None:
    """Of a trimmed raw frame: BIASSEC and TRIMSEC go, CCDSEC follows, and LTV says where physical pixel 1 is."""
    ds = frame(
        BIASSEC="[1:6,1:40]",
        TRIMSEC="[7:50,1:40]",
        DATASEC="[7:50,1:40]",
        CCDSEC="[101:144,201:240]",
        DETSEC="[1:44,1:40]",
    )
    header = written(lazyccd.trim_image(ds, "[9:50,5:40]"), tmp_path)
    assert "BIASSEC" not in header
    assert "TRIMSEC" not in header
    assert header["DATASEC"] == "[1:42,1:36]"
    assert header["CCDSEC"] == "[103:144,205:240]"
    assert header["DETSEC"] == "[3:44,5:40]"
    assert (header["LTV1"], header["LTV2"], header["LTM1_1"], header["LTM2_2"]) == (-8, -4, 1, 1)
    # physical = (logical - LTV) / LTM: the first pixel is physical pixel 9, 5
    binned = written(lazyccd.block_reduce(lazyccd.trim_image(ds, "[9:50,5:40]"), 2), tmp_path)
    assert ((1 - binned["LTV1"]) / binned["LTM1_1"], (1 - binned["LTV2"]) / binned["LTM2_2"]) == (9.5, 5.5)
    assert "CCDSEC" not in binned


def test_cards_that_never_travel(tmp_path: Path) -> None:
    """Scaling, compression and checksums of the raw file are not those of the product."""
    raw = fits.ImageHDU(np.arange(2000, dtype=np.uint16).reshape(SHAPE), name="SCI")
    raw.header["BLANK"] = 5
    fits.HDUList([fits.PrimaryHDU(), raw]).writeto(tmp_path / "raw.fits", checksum=True)
    with fits.open(tmp_path / "raw.fits") as file:
        packed = fits.CompImageHDU(file[1].data, file[1].header, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "raw.fits.fz", checksum=True)
    for name in ("raw.fits", "raw.fits.fz"):
        header = written(lazyccd.open_fits(tmp_path / name), tmp_path)
        unwanted = {"BSCALE", "BZERO", "BLANK", "ZIMAGE", "ZCMPTYPE", "ZBITPIX", "TFORM1", "PCOUNT", "XTENSION"}
        assert not unwanted & set(header), name
        assert header["BUNIT"] == "adu"
        assert header["BITPIX"] == -32


def test_old_names_of_the_reference_system(tmp_path: Path) -> None:
    """A product is read back without a complaint about RADECSYS."""
    ds = frame(**TAN, **MATRICES["CD"], RADECSYS="FK5", EQUINOX=2000.0)
    path = lazyccd.to_fits(ds, tmp_path / "a.fits")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FITSFixedWarning)
        assert CCDData.read(path).wcs.wcs.radesys == "FK5"


def test_header_after_the_gain() -> None:
    """Levels are scaled, GAIN is 1, and HISTORY says what was there."""
    text = header_to_text(fits.Header({"GAIN": 1.7, "SATURATE": 60000, "MAXLIN": 50000.0, "RDNOISE": 5.0}))
    header = header_from_text(after_gain(text, 1.5))
    assert (header["GAIN"], header["SATURATE"], header["MAXLIN"], header["RDNOISE"]) == (1, 90000, 75000, 5)
    history = "\n".join(header["HISTORY"])
    assert "SATURATE was 60000 adu" in history
    assert "GAIN was 1.7" in history


LEVELS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "both levels": ({"SATURATE": 60000, "MAXLIN": 50000.0}, {"SATURATE": 59000.0, "MAXLIN": 49000.0}),
    "not known": ({"SATURATE": 0, "MAXLIN": 50000}, {"SATURATE": 0, "MAXLIN": 49000.0}),
    "words": ({"SATURATE": "none", "MAXLIN": True}, {"SATURATE": "none", "MAXLIN": True}),  # type: ignore[dict-item]
    "range": ({"DATAMAX": 65535, "DATAMIN": 990.0}, {}),
    "nothing": ({"GAIN": 2.0}, {"GAIN": 2.0}),
}


@pytest.mark.parametrize("case", LEVELS)
def test_header_after_a_pedestal(case: str) -> None:
    """Levels are lower by it, unless they say nothing; the range of the raw pixels is gone."""
    cards, expected = LEVELS[case]
    header = header_from_text(after_pedestal(header_to_text(fits.Header(cards)), 1000.0))
    assert {key: value for key, value in header.items() if key != "HISTORY"} == expected
    changed = [key for key in expected if expected[key] != cards[key]]
    told = [str(line) for line in header.get("HISTORY", [])]
    assert told == [f"{key} was {cards[key]} before a pedestal of 1000 was subtracted" for key in changed]


def test_header_after_the_gain_has_no_raw_range() -> None:
    """DATAMAX of the raw pixels is no number of the product."""
    text = header_to_text(fits.Header({"DATAMAX": 65535, "DATAMIN": 0, "OBJECT": "M 31"}))
    assert set(header_from_text(after_gain(text, 1.5))) == {"OBJECT", "GAIN"}


@pytest.mark.parametrize(
    "keyword", ["GAIN", "EGAIN", "RDNOISE", "READNOIS", "SATURATE", "MAXLIN", "DATAMAX", "DATAMIN"]
)
def test_header_after_normalization(keyword: str) -> None:
    """Nothing that goes with electrons or counts stays in the header of pixels about 1."""
    text = header_to_text(fits.Header({keyword: 1.5, "OBJECT": "flat"}))
    header = header_from_text(after_normalization(text))
    assert keyword not in header
    assert header["OBJECT"] == "flat"
    assert ("HISTORY" in header) == (not keyword.startswith("DATA"))


AWKWARD = [
    "OBJECT  = 'M 31    '           / a name",
    "COMMENT   a comment = 3",
    "HISTORY  'quoted' text",
    "HIERARCH ESO DET OUT1 CONAD = 1.10 / electrons per ADU",
    "LONG    = 'This text goes on and on, over the end of the card and further, so tha&'",
    "CONTINUE  't it needs another one' / comment",
    "UNDEF   =                      / nothing",
    "BAD     = 'not closed",
    "        free text without a keyword",
    "LAST    =                    T",
]


def test_raw_cards_stay_to_the_byte(tmp_path: Path) -> None:
    """Log entries are added as text: what astropy cannot even parse stays, in memory, in Zarr and in copies."""
    cards = [card.ljust(80) for card in AWKWARD]
    ds = frame().assign_attrs(header="\n".join(cards))
    done = lazyccd.subtract_bias(ds, frame())
    lines = done.attrs["header"].split("\n")
    assert lines[: len(cards)] == cards
    assert any("subbias" in line for line in lines[len(cards) :])
    again = lazyccd.open_zarr(lazyccd.to_zarr(done, tmp_path / "a.zarr"))
    assert again.attrs["header"] == done.attrs["header"]
    written = fits.getheader(lazyccd.to_fits(done, tmp_path / "a.fits"))
    assert "BAD     = 'not closed" in list(written[""])
    assert written["ESO DET OUT1 CONAD"] == 1.1


def test_a_card_is_replaced_where_it_stands() -> None:
    """With its CONTINUE cards; case does not matter; comments and history are only added."""
    text = "\n".join(card.ljust(80) for card in AWKWARD)
    new = append_cards(text, [("long", "short", ""), ("HISTORY", "more", ""), ("ESO DET OUT1 CONAD", 2.0, "")]).split(
        "\n"
    )
    assert [line[:8].strip() for line in new] == [
        "OBJECT", "COMMENT", "HISTORY", "HIERARCH", "LONG", "UNDEF", "BAD", "", "LAST", "HISTORY",
    ]  # fmt: skip
    header = header_from_text("\n".join(line for line in new if not line.startswith("BAD")))
    assert header["LONG"] == "short"
    assert header["ESO DET OUT1 CONAD"] == 2.0
    assert list(header["HISTORY"])[-1] == "more"


@given(
    value=st.one_of(
        st.integers(-(10**12), 10**12),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200).map(str.rstrip),
    ),
    key=st.sampled_from(["EXPTIME", "SUBTRACT_BIAS", "ESO TEL NAME"]),
)
def test_cards_of_any_value(value: Any, key: str) -> None:
    """Every value that a card can hold comes back."""
    header = header_from_text(append_cards("A       =                    1".ljust(80), [(key, value, "why")]))
    if isinstance(value, float):
        assert header[key] == pytest.approx(
            value, rel=1e-12
        )  # astropy's cards have 16 digits and an exponent in 20 columns
    else:
        assert header[key] == value
    assert header["A"] == 1


def test_values_that_no_card_can_hold() -> None:
    """NaN and arrays become text; letters beyond ASCII question marks; None takes a card out."""
    ds = frame(A=1).ccd.with_header({"B": float("nan"), "C": "µ", "D": [1, 2], "E": 3 * u.s, "A": None})
    header = ds.ccd.header
    assert "A" not in header
    assert [header[key] for key in "BCDE"] == ["nan", "?", "[1, 2]", 3.0]


def test_one_extension_has_the_cards_of_the_primary_that_it_lacks() -> None:
    """Those that describe the primary HDU itself, and blank ones, stay behind."""
    extension = header_to_text(fits.Header({"XTENSION": "IMAGE", "GAIN": 2.0, "EXTNAME": "SCI"}))
    primary = header_to_text(fits.Header({"SIMPLE": True, "NAXIS": 0, "GAIN": 0.0, "OBJECT": "M 31", "DATASUM": "1"}))
    header = header_from_text(merge_headers(extension, primary))
    assert header["GAIN"] == 2.0
    assert header["OBJECT"] == "M 31"
    assert not {"SIMPLE", "NAXIS", "DATASUM"} & set(header)


def test_the_header_of_a_frame_is_read_only() -> None:
    """The message names the way."""
    ds = frame(GAIN=1.5)
    with pytest.raises(FrameError, match=r"with_header\(\{'GAIN': 2\}\)"):
        ds.ccd.header["GAIN"] = 2
    with pytest.raises(FrameError, match="read-only"):
        del ds.ccd.header["GAIN"]
    with pytest.raises(KeywordError, match="no keyword 'RON'"):
        _ = ds.ccd.header["RON"]
    copy = ds.ccd.header.to_header()
    copy["GAIN"] = 3
    assert ds.ccd.header["gain"] == 1.5


UNITS = {
    "ADU": u.adu, "adu": u.adu, "DN": u.DN, "counts": u.ct, "COUNT": u.ct, "Electrons": u.electron, "e-": u.electron,
    "e-/s": u.electron / u.s, "COUNTS/S": u.ct / u.s, "electron s-1": u.electron / u.s, "Jy": u.Jy, "mJy/sr": u.mJy / u.sr,
    "UNITLESS": u.dimensionless_unscaled, "": u.dimensionless_unscaled,
}  # fmt: skip


@pytest.mark.parametrize("text", UNITS)
def test_units_as_cameras_write_them(text: str) -> None:
    """The usual spellings in any case."""
    assert parse_unit(text, "a.fits") == UNITS[text]


def test_units_that_nobody_knows(tmp_path: Path) -> None:
    """Dimensionless with a warning when read, an error when given."""
    fits.PrimaryHDU(np.ones((3, 4), "f4"), fits.Header({"BUNIT": "furlong/beam"})).writeto(tmp_path / "a.fits")
    with pytest.warns(UserWarning, match=r"a\.fits\[0\]: BUNIT = 'furlong/beam' is not known.*unit="):
        ds = lazyccd.open_fits(tmp_path / "a.fits")
    assert ds.ccd.unit == u.dimensionless_unscaled
    with pytest.raises(UnitError, match="'furlong' is not known"):
        lazyccd.open_fits(tmp_path / "a.fits", unit="furlong")


def test_products_of_real_frames(shared_data: Path, tmp_path: Path) -> None:
    """A cut of every readable real image with a WCS keeps its places on the sky, in the written file."""
    seen = 0
    for path in sorted((shared_data / "wcs_distortion").glob("*")) + sorted((shared_data / "m17_2mass").glob("*"))[:2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what astropy says of these headers
            try:
                ds = lazyccd.open_fits(path)
                full = ds.ccd.wcs
            except lazyccd.errors.LazyCCDError:
                continue
            if full is None:
                continue
            part = ds.isel(y=slice(5, 60), x=slice(9, 70))
            header = written(part, tmp_path)
            np.testing.assert_allclose(
                sky(WCS(header, naxis=2), 20, 30), sky(full, 29, 35), atol=1e-9, err_msg=path.name
            )
            seen += 1
    assert seen >= 8


def test_product_header_of_the_whole_image_adds_only_the_unit() -> None:
    """Nothing else changes if nothing was cut."""
    ds = frame(**TAN, DATASEC="[7:50,1:40]", OBJECT="M 31")
    header = product_header(ds.attrs["header"], ds["y"].values, ds["x"].values, "adu")
    before = [tuple(card) for card in header_from_text(ds.attrs["header"]).cards]
    assert [tuple(card) for card in header.cards if card.keyword != "BUNIT"] == before


@pytest.mark.parametrize(
    ("keyword", "value", "done"),
    [
        ("OVERSCAN", "[57 64 1 64]", False),
        ("OVERSCAN", "[57:64,1:64]", False),
        ("OVERSCAN", 32, False),
        ("OVERSCAN", 1, False),
        ("OVERSCAN", "32", False),
        ("OVERSCAN", "Jul 13 12:40 Overscan section is [57:64,1:64] with mean=1003.2", True),
        ("OVERSCAN", "2024-03-10T20:00:00", True),
        ("OVERSCAN", True, True),
        ("OVERSCAN", "T", True),
        ("OVERSCAN", "LEFT", False),
        ("TRIM", "[1:52,1:64]", False),
        ("TRIM", "no", False),
        ("TRIM", "Jul 13 12:40 Trim data section is [17:528,1:520]", True),
        ("FLATCOR", "PERFORM", False),
        ("FLATCOR", "OMIT", False),
        ("FLATCOR", "", False),
        ("FLATCOR", 0, False),
        ("FLATCOR", 1, True),
        ("FLATCOR", "yes", True),
        ("FLATCOR", "done", True),
        ("FLATCOR", "COMPLETE", True),
        ("FLATCOR", "flat_R.fits", True),
        ("FLATCOR", "Flat field image is FlatR with scale=22000.", True),
        ("FLATCOR", "not corrected", False),
        ("FLATCOR", "ccd=<CCDData>, flat=<CCDData>", True),
        ("ZEROCOR", False, False),
        ("DARKCOR", "N/A", False),
        ("SUBBIAS", "ccd=<CCDData>, master=<CCDData>", True),
        ("SUBBIAS", "no", False),
        ("GAINCOR", 1.5, True),
    ],
)
def test_what_says_that_a_step_was_done(keyword: str, value: Any, done: bool) -> None:
    """Dates, files and words such as yes say that a step was done; sections, numbers and what is still to be done do not."""
    assert is_stamp(keyword, value) is done


@pytest.mark.parametrize("cards", [[], [("GAIN", 1.5, "e/adu"), ("HISTORY", "one"), ("HISTORY", "two"), ("", "blank")]])
def test_a_copied_header_is_astropys_copy(cards: list[Any]) -> None:
    """The same cards, found by the same keywords, and neither changes with the other."""
    header = fits.Header(cards)
    header["HIERARCH a long keyword"] = "x" * 100
    header["DP1"] = "AXIS.1: 2"
    header.insert(0, fits.Card.fromstring("RAW     =                  2E0 / as it was written"))
    copy = copy_header(header)
    assert copy.tostring() == header.copy().tostring() == header.tostring()
    assert list(copy.items()) == list(header.items())
    assert copy["DP1.AXIS.1"] == 2.0
    copy["RAW"] = 3.0
    copy.append(("NEW", 1))
    copy.add_history("three")
    del copy["DP1"]
    assert header["RAW"] == 2.0
    assert "NEW" not in header
    assert header["DP1.AXIS.1"] == 2.0
    assert len(header.get("HISTORY", [])) == len(copy["HISTORY"]) - 1

    class Mine(fits.Header):  # type: ignore[misc]
        """A class of a user."""

    assert type(copy_header(Mine([("A", 1)]))) is Mine


def test_appended_cards_tell_equal_values_apart() -> None:
    """0.0 and -0.0, 1 and 1.0 and True are equal in Python and different cards."""
    for value, text in ((0.0, "0.0"), (-0.0, "-0.0"), (1, "1"), (1.0, "1.0"), (True, "T")):
        assert append_cards("", [("A", value, "")]).split() == ["A", "=", text]
    text = append_cards("A       = 1", [("B", 1, ""), ("B", 2, ""), ("A", 3, ""), ("HISTORY", "x", ""), ("B", 4, "")])
    assert [line.split() for line in text.split("\n")] == [["A", "=", "3"], ["B", "=", "4"], ["HISTORY", "x"]]
