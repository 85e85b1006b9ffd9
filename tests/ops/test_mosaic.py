"""Amplifiers put together and taken apart: pixels, places, headers."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import ArgumentTypeError, KeywordError, LazyCCDError, ParameterError, SectionError, UnitError
from lazyccd.frame.detector_geometry import placement
from lazyccd.frame.header import append_cards
from lazyccd.frame.output_header import after_gain
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.sections import YX, Region, Section
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import formula_frame

WCS = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CD1_1": -1e-4, "CD1_2": 2e-6}
WCS |= {"CD2_1": 3e-6, "CD2_2": 1e-4, "CRPIX1": 5.5, "CRPIX2": 7.25}


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """Draw ranges that make up an axis."""
    places = sorted(draw(st.sets(st.integers(1, length - 1), max_size=2))) if length > 1 else []
    return list(zip([0, *places], [*places, length], strict=True))


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, int]) -> dict[str, str]:
    """Draw amplifiers that cover an image, each with its flips."""
    flips = st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1]))
    return {
        f"A{i}{j}": Section(Region(*rows, *columns), YX(*draw(flips))).to_fits()
        for i, rows in enumerate(draw(cuts(shape[0])))
        for j, columns in enumerate(draw(cuts(shape[1])))
    }


def assert_same_pixels(actual: xr.Dataset, expected: xr.Dataset) -> None:
    """Assert that two frames have the same bits."""
    assert set(actual.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_array_equal(actual[name].values, expected[name].values, err_msg=str(name), strict=True)


@settings(max_examples=2 * settings.default.max_examples)
@given(data=st.data())
def test_what_is_taken_apart_goes_together(data: st.DataObject) -> None:
    """``assemble(split_amplifiers(x)) == x`` for all layouts, flips, chunks and planes; the WCS comes back too."""
    shape = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 31)))
    chunks = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 31)))
    more = {"uncertainty": data.draw(st.booleans()), "mask": data.draw(st.booleans())}
    binning = data.draw(st.sampled_from(["1 1", "2 3"]))
    frame = formula_frame(shape, chunks, **more).ccd.with_header({**WCS, "CCDSUM": binning})
    sections = data.draw(layouts(shape))
    with raise_if_computes():
        tree = lazyccd.split_amplifiers(frame, sections)
        again = lazyccd.assemble(tree)
    assert list(tree.children) == list(sections)
    assert_same_pixels(again, frame)
    np.testing.assert_allclose(again.ccd.wcs.wcs.crpix, frame.ccd.wcs.wcs.crpix)
    np.testing.assert_allclose(again.ccd.wcs.wcs.cd, frame.ccd.wcs.wcs.cd)
    part = {"y": slice(shape[0] // 3, shape[0] // 3 + 1), "x": slice(0, shape[1])}
    assert_same_pixels(again.ccd.cutout(**part), frame.isel(part))
    cut = lazyccd.rechunk(again, data.draw(st.tuples(st.integers(1, 24), st.integers(1, 31))))
    assert_same_pixels(cut, frame)


@pytest.mark.parametrize("chunk", [(719, 811), (100, 811), (719, 99)])
def test_images_larger_than_a_strip(chunk: tuple[int, int]) -> None:
    """Within one task, strips of rows end where amplifiers do."""
    frame = formula_frame((719, 811), chunk)
    corners = {"A": "[400:1,301:1]", "B": "[401:811,1:301]", "C": "[1:400,719:302]", "D": "[811:401,302:719]"}
    for sections in (corners, {"left": "[1:300,1:719]", "right": "[811:301,1:719]"}):
        again = lazyccd.rechunk(lazyccd.assemble(lazyccd.split_amplifiers(frame, sections)), chunk)
        assert_same_pixels(again, frame)


def amplifier(value: float, shape: tuple[int, int] = (4, 6), **cards: Any) -> xr.Dataset:
    """Return a frame of one value."""
    return lazyccd.from_ccddata(CCDData(np.full(shape, value, np.float32), unit="adu", meta=cards))


def detector(**more: Any) -> xr.DataTree:
    """Return two amplifiers of a detector of 4 x 8 pixels, each with two columns of overscan."""
    left = amplifier(1, DATASEC="[1:4,1:4]", BIASSEC="[5:6,1:4]", DETSEC="[1:4,1:4]", GAIN=1.5, FILTER="r", **more)
    right = amplifier(2, DATASEC="[1:4,1:4]", BIASSEC="[5:6,1:4]", DETSEC="[8:5,1:4]", GAIN=1.6, FILTER="r", **more)
    return make_tree({"A": left, "B": right}, {"header": "ORIGIN  = 'here    '"})


def test_one_task_per_chunk() -> None:
    """Amplifiers are read where they lie, in the task that needs them, in any chunks."""
    tree = lazyccd.split_amplifiers(formula_frame((60, 80), (60, 80)), {"A": "[1:40,1:60]", "B": "[80:41,1:60]"})
    ds = lazyccd.rechunk(lazyccd.assemble(tree.ccd.multiply(2)), (20, 30))
    assert ds.ccd.plan().tasks == 9
    keys = dask.optimize(ds["data"])[0].__dask_graph__()
    assert len(dict(keys)) == 9


def test_header() -> None:
    """It is true for the whole: sections, what differs gone and listed, and the amplifiers named."""
    ds = lazyccd.assemble(detector(BUNIT="adu"))
    header = ds.ccd.header
    assert (header["DATASEC"], header["DETSEC"], header["NAXIS1"], header["FILTER"]) == (
        "[1:8,1:4]",
        "[1:8,1:4]",
        8,
        "r",
    )
    assert not {"GAIN", "BIASSEC", "LTV1"} & set(header)
    assert "by DETSEC A, B" in str(header["HISTORY"])
    assert "differed between the frames: GAIN" in str(header["HISTORY"])
    assert ds["data"].values.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]] * 4
    assert "mask" not in ds


def test_history_of_amplifiers() -> None:
    """What was done to one amplifier is not said of the detector: it has its name in front, or goes with its log entry."""
    tree = detector(SATURATE=64000)
    frames = {}
    for name, frame in frames_of(tree).items():
        gain = float(frame.ccd.header["GAIN"])
        done = lazyccd.trim_image(lazyccd.gain_correct(frame, gain * u.electron / u.adu), "[1:4,1:4]")
        text = append_cards(after_gain(done.attrs["header"], gain), [("COMMENT", "same camera", "")])
        frames[name] = done.assign_attrs(header=text)
    header = lazyccd.assemble(make_tree(frames, dict(tree.attrs))).ccd.header
    assert not {"GAINCOR", "GAIN_CORRECT", "SATURATE"} & set(header)
    assert (header["TRIM_IMAGE"], header["GAIN"], list(header["COMMENT"])) == ("trimim", 1.0, ["same camera"])
    history = list(header["HISTORY"])
    assert [line for line in history if line.startswith(("A: ", "B: "))] == [
        "A: SATURATE was 64000 adu before the gain of 1.5 electron/adu",
        "A: GAIN was 1.5",
        "B: SATURATE was 64000 adu before the gain of 1.6 electron/adu",
        "B: GAIN was 1.6",
    ]
    assert not [line for line in history if line.startswith(("SATURATE was", "GAIN was"))]


def test_trimmed_and_written_frames(tmp_path: Path) -> None:
    """Whatever part of the data section a frame still has goes to its place, from memory or from a file."""
    tree = detector(DETSIZE="[1:8,1:4]")
    whole = lazyccd.assemble(tree)
    trimmed = lazyccd.trim_image(tree, "[1:4,1:4]")
    assert_same_pixels(lazyccd.assemble(trimmed), whole)
    assert_same_pixels(lazyccd.assemble(lazyccd.trim_image(tree, "[4:1,4:1]")), whole)
    inner = lazyccd.assemble(lazyccd.trim_image(tree, "[2:4,2:3]"))
    assert np.isnan(inner["data"].values[:, [0, 7]]).all()
    assert (inner["data"].values[1:3, 1:7] == whole["data"].values[1:3, 1:7]).all()
    assert ((inner["mask"].values != 0) == np.isnan(inner["data"].values)).all()
    written = {
        name: lazyccd.open_fits(lazyccd.to_fits(lazyccd.trim_image(ds, "[4:2,*]"), tmp_path / f"{name}.fits"))
        for name, ds in frames_of(tree).items()
    }
    assert [ds.ccd.header["DETSEC"] for ds in written.values()] == ["[4:2,1:4]", "[5:7,1:4]"]
    again = lazyccd.assemble(make_tree(written, {}))
    expected = lazyccd.assemble(lazyccd.trim_image(tree, "[4:2,*]"))
    np.testing.assert_array_equal(again["data"].values, expected["data"].values)


def test_gaps_and_sizes() -> None:
    """DETSIZE gives the shape, pixels of no frame are NO_DATA, and LTV and LTM give detector pixels of binned ones."""
    tree = make_tree(
        {
            "A": amplifier(1, (2, 3), DETSEC="[5:10,3:6]", CCDSUM="2 2", DETSIZE="[1:12,1:8]"),
            "B": amplifier(2, (2, 1), DETSEC="[2:1,8:5]", CCDSUM="2 2", DETSIZE="[1:12,1:8]"),
        },
        {},
    )
    ds = lazyccd.assemble(tree)
    expected = np.full((4, 6), np.nan)
    expected[1:3, 2:5], expected[2:4, :1] = 1, 2
    np.testing.assert_array_equal(ds["data"].values, expected)
    np.testing.assert_array_equal(ds.ccd.is_flagged("NO_DATA").values, np.isnan(expected))
    header = ds.ccd.header
    assert [header[f"LTV{i}"] + header[f"LTM{i}_{i}"] * 5.5 for i in (1, 2)] == [3.0, 3.0]


def test_places_by_physical_coordinates() -> None:
    """Without sections of the detector, LTV and LTM say where a frame lies."""
    tree = make_tree(
        {
            "A": amplifier(1, (2, 3), LTM1_1=1.0, LTM2_2=1.0, LTV1=0.0, LTV2=0.0),
            "B": amplifier(2, (2, 3), LTM1_1=-1.0, LTM2_2=1.0, LTV1=7.0, LTV2=0.0),
        },
        {},
    )
    assert lazyccd.assemble(tree, "CCDSEC")["data"].values.tolist() == [[1, 1, 1, 2, 2, 2]] * 2


def mosaic() -> xr.DataTree:
    """Return two detectors of two amplifiers each, beside each other in the focal plane."""
    frames = {}
    for i in range(2):
        for j in range(2):
            ccd = ("[1:3,1:2]", "[6:4,1:2]")[j]
            det = Section(Region(0, 2, 8 * i + 3 * j, 8 * i + 3 * j + 3), YX(1, -1 if j else 1)).to_fits()
            ds = amplifier(10 * i + j, (2, 3), CCDSEC=ccd, DETSEC=det, CCDNAME=f"N{i + 1}", EXTNAME=f"im{2 * i + j}")
            frames[f"im{2 * i + j}"] = ds
    return make_tree(
        frames, {"header": "ORIGIN  = 'here    '", "hdus": [{"root": True}, {"frame": "im0", "plane": "data"}]}
    )


def test_detectors_of_a_mosaic() -> None:
    """Amplifiers go to their detector by CCDSEC and a keyword, or all to the focal plane; detectors do after that."""
    tree = mosaic()
    focal = lazyccd.assemble(tree)
    assert focal["data"].shape == (2, 14)
    detectors = lazyccd.assemble(tree, group="CCDNAME")
    assert list(detectors.children) == ["N1", "N2"]
    assert detectors["N2"]["data"].values.tolist() == [[10, 10, 10, 11, 11, 11]] * 2
    assert detectors["N2"].to_dataset().ccd.header["DETSEC"] == "[9:14,1:2]"
    assert detectors["N2"].to_dataset().ccd.header["EXTNAME"] == "N2"
    assert detectors.attrs["header"] == tree.attrs["header"]
    assert detectors.attrs["hdus"] == [
        {"root": True},
        {"frame": "N1", "plane": "data"},
    ]  # where the first of its amplifiers was
    np.testing.assert_array_equal(lazyccd.assemble(detectors, "DETSEC")["data"].values, focal["data"].values)
    branches = lazyccd.split_amplifiers(detectors, {"a": "[1:3,1:2]", "b": "[6:4,1:2]"})
    assert list(branches.ccd.frames) == ["N1/a", "N1/b", "N2/a", "N2/b"]
    again = branches.ccd.assemble()
    for name, ds in frames_of(detectors).items():
        np.testing.assert_array_equal(again[name]["data"].values, ds["data"].values)


def test_world_coordinates() -> None:
    """A WCS that is the same for all amplifiers is that of the detector; others leave none, and HISTORY says so."""
    frame = formula_frame((6, 8)).ccd.with_header(WCS)
    tree = lazyccd.split_amplifiers(frame, {"A": "[1:4,1:6]", "B": "[8:5,6:1]"})
    sky = [
        ds.ccd.wcs.pixel_to_world_values(x, y)
        for ds, x, y in ((frame, 5, 2), (frames_of(tree)["B"], 2, 3), (lazyccd.assemble(tree), 5, 2))
    ]
    np.testing.assert_allclose(sky, [sky[0]] * 3, rtol=0, atol=1e-12)
    moved = {"B": 9.0, "A": frames_of(tree)["A"].ccd.header["CRPIX1"]}
    other = lazyccd.assemble(tree.ccd.with_header(crpix1=moved))
    assert other.ccd.wcs is None
    assert "no WCS in common" in str(other.ccd.header["HISTORY"])


def changed(**cards: Any) -> xr.DataTree:
    """Return the detector with other cards on its second amplifier."""
    frames = frames_of(detector())
    return make_tree(frames | {"B": lazyccd.with_header(frames["B"], cards)}, {})


REFUSED: dict[str, tuple[Any, type[LazyCCDError], str]] = {
    "overlap": (lambda: lazyccd.assemble(changed(DETSEC="[7:4,1:4]")), SectionError, r"DETSEC of A \[1:4,1:4\] and B \[4:7,1:4\] overlap"),
    "before the first": (lambda: lazyccd.assemble(changed(DETSEC="[5:8,-3:0]")), SectionError, r"'\[5:8,-3:0\]' reaches y = -3..0, and pixels are counted from 1"),
    "outside": (lambda: lazyccd.assemble(detector(DETSIZE="[1:7,1:4]")), SectionError, r"B: DETSEC \[5:8,1:4\] lies outside of DETSIZE \[1:7,1:4\]"),
    "contradiction": (lambda: lazyccd.assemble(changed(DETSEC="[5:7,1:4]")), SectionError, r"B: DATASEC \[1:4,1:4\] has 4 x 4 pixels and DETSEC \[5:7,1:4\] has 3 x 4"),
    "binning that is not": (lambda: lazyccd.assemble(changed(CCDSUM="2 2")), SectionError, r"CCDSUM is '2 2'; these contradict"),
    "unequal binning": (lambda: lazyccd.assemble(changed(DETSEC="[5:12,1:4]")), ParameterError, r"binned differently \(A by 1 x 1, B by 2 x 1\)"),
    "no section": (lambda: lazyccd.assemble(changed(DETSEC="UNKNOWN")), SectionError, "B: the header has no DETSEC"),
    "no section at all": (lambda: lazyccd.assemble(detector(), "CCDSEC"), SectionError, "A: the header has no CCDSEC"),
    "no group": (lambda: lazyccd.assemble(detector(), group="CCDNAME"), SectionError, "no keyword 'CCDNAME'"),
    "units": (lambda: lazyccd.assemble(make_tree(frames_of(detector()) | {"B": lazyccd.with_unit(frames_of(detector())["B"], "electron")}, {})), UnitError, "frame 'B'"),
    "every other pixel": (lambda: lazyccd.assemble(lazyccd.trim_image(detector(), "[*:2,*]")), SectionError, "every 2th pixel along x"),
    "nothing left": (lambda: lazyccd.assemble(lazyccd.trim_image(detector(), "[5:6,*]")), SectionError, "has no pixel in the frame"),
    "a frame": (lambda: lazyccd.assemble(amplifier(1)), ArgumentTypeError, "needs a tree of frames"),
    "another word": (lambda: lazyccd.assemble(detector(), "BIASSEC"), ParameterError, "must be 'CCDSEC', 'DETSEC' or None"),
    "no taps": (lambda: lazyccd.split_amplifiers(amplifier(1)), SectionError, "no sections of amplifiers"),
    "taps outside": (lambda: lazyccd.split_amplifiers(amplifier(1), {"A": "[1:9,1:2]"}), SectionError, "amplifier 'A': section .* outside"),
    "taps with steps": (lambda: lazyccd.split_amplifiers(amplifier(1), {"A": "[1:6:2,1:2]"}), SectionError, "has a step"),
    "taps without data": (lambda: lazyccd.split_amplifiers(amplifier(1), {"A": {"GAIN": 1.0}}), SectionError, "needs DATASEC"),
    "taps over each other": (lambda: lazyccd.split_amplifiers(amplifier(1), {"A": {"DATASEC": "[1:3,1:4]"}, "B": {"DATASEC": "[2:4,1:4]"}}), ParameterError, "do not lie in rows and columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """What cannot be right is refused at the call, with both values and the way out."""
    call, error, message = REFUSED[name]
    with raise_if_computes(), pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", ["e2v", "itl"])
def test_lsst(shared_data: Path, kind: str) -> None:
    """Sixteen segments make the image that LSST's own code made, upside down, to the pixel."""
    tree = lazyccd.open_mef(shared_data / f"lsst_16amp/{kind}_spot.fits.gz")
    ds = lazyccd.assemble(tree)
    expected = fits.getdata(shared_data / f"lsst_16amp/{kind}_expected_assembled.fits.gz")
    assert np.count_nonzero(ds["data"].values[::-1] != expected) == 0


def test_sinistro(shared_data: Path) -> None:
    """Four quadrants, three of them flipped, lie about the centre of the detector, each with its own gain."""
    tree = lazyccd.open_mef(shared_data / "lco_sinistro_mef/mef_raw_test_frame.fits")
    ds = lazyccd.assemble(tree.ccd.gain_correct(lazyccd.Keyword("GAIN", unit=u.electron / u.adu)))
    assert ds["data"].shape == (2048, 2048)
    with fits.open(shared_data / "lco_sinistro_mef/mef_raw_test_frame.fits") as file:
        raw = [hdu.data[:512, :512].astype(float) * hdu.header["GAIN"] for hdu in file[1:]]
    expected = np.block([[raw[1], raw[2][:, ::-1]], [raw[0][::-1], raw[3][::-1, ::-1]]])
    np.testing.assert_allclose(ds["data"].values[512:1536, 512:1536], expected, rtol=1e-6)
    assert int(ds.ccd.is_flagged("NO_DATA").sum()) == 2048**2 - 1024**2


def test_keywords_that_are_missing() -> None:
    """A keyword that a frame does not have is named."""
    with pytest.raises(KeywordError, match="no keyword 'TRIMSEC'"):
        lazyccd.trim_image(detector(), lazyccd.Keyword("TRIMSEC"))


NOAO = {
    "DATASEC": "[25:1048,1:4096]", "CCDSEC": "[1:1024,1:4096]", "DETSEC": "[4097:5120,4097:8192]", "AMPSEC": "[1:1024,4096:1]",
    "LTM1_1": 1.0, "LTM2_2": 1.0, "LTV1": 24.0, "LTV2": 0.0, "ATM1_1": 1.0, "ATM2_2": -1.0, "ATV1": 0.0, "ATV2": 4097.0,
    "DTM1_1": 1.0, "DTM2_2": 1.0, "DTV1": 4096.0, "DTV2": 4096.0,
}  # fmt: skip
"""What the header of an amplifier of NOAO's Mosaic camera says of its place, each thing twice or three times."""


@pytest.mark.parametrize(
    "keys", [("CCDSEC",), ("LTM1_1", "AMPSEC"), ("LTM1_1", "CCDSEC"), ("AMPSEC", "CCDSEC"), ("DETSEC",)]
)
@pytest.mark.parametrize("ending", [[], ["CCDSEC", "DETSEC"], ["DTM1_1"]])
def test_places_without_sections(keys: tuple[str, ...], ending: list[str]) -> None:
    """Each way of saying where data lie gives the same place; whichever are missing, the others do."""
    left = {key: value for key, value in NOAO.items() if key not in {*keys, *ending}}
    whole = {key: placement(NOAO, key) for key in ("CCDSEC", "DETSEC")}
    if {"LTM1_1", "AMPSEC", "CCDSEC"} & left.keys():
        assert placement(left, "CCDSEC") == whole["CCDSEC"]
    if "DETSEC" in left or ("DTM1_1" in left and {"LTM1_1", "AMPSEC", "CCDSEC"} & left.keys()):
        assert placement(left, "DETSEC") == whole["DETSEC"]


def test_matrices_that_contradict_sections() -> None:
    """Are refused with both places, for the detector and for the focal plane."""
    with pytest.raises(
        SectionError,
        match=r"im1: CCDSEC is \[1:1024,1:4096\], and AMPSEC, ATM and ATV place the data at \[1:1024,11:4106\]",
    ):
        placement({**NOAO, "ATV2": 4107.0}, "CCDSEC", "im1")
    with pytest.raises(
        SectionError, match=r"im1: DETSEC is .*, and DTM and DTV place the data at \[4098:5121,4097:8192\]"
    ):
        placement({**NOAO, "DTV1": 4097.0}, "DETSEC", "im1")


def test_amplifiers_by_their_coordinates(tmp_path: Path) -> None:
    """Two amplifiers are put together by ATM and ATV alone, or by DTM and DTV, as by CCDSEC; trimmed and written ones too."""
    data = {name: np.arange(12.0).reshape(3, 4) + 100 * i for i, name in enumerate("AB")}
    right = {
        "AMPSEC": "[3:1,1:3]",
        "ATM1_1": -1.0,
        "ATM2_2": 1.0,
        "ATV1": 7.0,
        "DTM1_1": 1.0,
        "DTM2_2": 1.0,
        "DTV1": 10.0,
    }
    left = {"AMPSEC": "[1:3,1:3]", "ATM1_1": 1.0, "ATM2_2": 1.0, "DTM1_1": 1.0, "DTM2_2": 1.0, "DTV1": 10.0}
    frames = {
        name: lazyccd.from_ccddata(
            CCDData(data[name], unit="adu", meta={"DATASEC": "[2:4,1:3]", "NAXIS1": 4, "NAXIS2": 3, **cards})
        )
        for name, cards in (("A", left), ("B", right))
    }
    tree = xr.DataTree.from_dict(frames)
    expected = np.hstack([data["A"][:, 1:], data["B"][:, 1:]])
    np.testing.assert_array_equal(lazyccd.assemble(tree)["data"].values, expected)
    in_plane: Any = lazyccd.assemble(tree, "DETSEC")
    np.testing.assert_array_equal(in_plane["data"].values[:, 10:], expected)
    trimmed = tree.ccd.trim_image(fits_section="[3:4,1:3]")
    lazyccd.to_fits(trimmed, tmp_path / "a.fits")
    again: Any = lazyccd.assemble(lazyccd.open_mef(tmp_path / "a.fits"))
    wanted: Any = lazyccd.assemble(trimmed)
    np.testing.assert_array_equal(again["data"].values, wanted["data"].values)
