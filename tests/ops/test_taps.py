"""Amplifiers within one image: their sections and numbers, from keywords or as a user gives them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import ParameterError
from lazyccd.frame.tree import frames_of

RAW = {"DATASECA": "[3:6,1:4]", "BIASSECA": "[1:2,1:4]", "DATASECB": "[7:10,1:4]", "BIASSECB": "[11:12,1:4]"}
GAINS = {"GAINA": 1.5, "GAINB": 2.5, "RDNOISEA": 4.0, "RDNOISEB": 5.0}
CTIO = {"ASEC11": "[1:6,1:4]", "BSEC11": "[1:2,1:4]", "DSEC11": "[3:6,1:4]", "GTGAIN11": 1.5, "GTRON11": 4.0}
CTIO |= {"ASEC12": "[7:12,1:4]", "BSEC12": "[11:12,1:4]", "DSEC12": "[7:10,1:4]", "GTGAIN12": 2.5, "GTRON12": 5.0}


@pytest.mark.parametrize("cards", [RAW | GAINS, CTIO])
def test_amplifiers_in_one_image(cards: dict[str, Any]) -> None:
    """Sections by keywords make frames, whose own sections, gain and noise reduce them, and which then go together."""
    values = np.arange(48.0).reshape(4, 12)
    frame = lazyccd.from_ccddata(CCDData(values, unit="adu", meta=cards))
    tree = lazyccd.split_amplifiers(frame)
    headers = [ds.ccd.header for ds in frames_of(tree).values()]
    assert [h["DATASEC"] for h in headers] == ["[3:6,1:4]", "[1:4,1:4]"]
    assert [h["BIASSEC"] for h in headers] == ["[1:2,1:4]", "[5:6,1:4]"]
    assert [(h["GAIN"], h["RDNOISE"]) for h in headers] == [(1.5, 4.0), (2.5, 5.0)]
    assert not any(key in h for h in headers for key in cards)
    reduced = tree.ccd.subtract_overscan(fits_section=lazyccd.Keyword("BIASSEC"))
    reduced = reduced.ccd.gain_correct(lazyccd.Keyword("GAIN", unit=u.electron / u.adu))
    whole = lazyccd.assemble(reduced)
    left = (values[:, 2:6] - values[:, :2].mean(axis=1, keepdims=True)) * 1.5
    right = (values[:, 6:10] - values[:, 10:].mean(axis=1, keepdims=True)) * 2.5
    np.testing.assert_allclose(whole["data"].values, np.hstack([left, right]))
    assert whole.ccd.unit == u.electron


def test_saturation_of_the_whole_image() -> None:
    """SATURATE is no SATURAT of an amplifier E: each amplifier has it, or its own."""
    for own, found in (({}, [60000, 60000]), ({"SATURATB": 50000}, [60000, 50000])):
        frame = lazyccd.from_ccddata(CCDData(np.zeros((4, 12)), unit="adu", meta=RAW | {"SATURATE": 60000} | own))
        frames = frames_of(lazyccd.split_amplifiers(frame)).values()
        assert [ds.ccd.header["SATURATE"] for ds in frames] == found


def test_the_size_of_the_detector() -> None:
    """Amplifiers that are put side by side say how large all of them are, in unbinned pixels."""
    frame = lazyccd.from_ccddata(CCDData(np.zeros((4, 12)), unit="adu", meta=RAW | {"CCDSUM": "2 1"}))
    tree = lazyccd.split_amplifiers(frame)
    assert [ds.ccd.header["CCDSIZE"] for ds in frames_of(tree).values()] == ["[1:16,1:4]"] * 2
    assert lazyccd.assemble(tree)["data"].shape == (4, 8)


def test_sections_that_a_user_gives() -> None:
    """Cards by amplifier: where data and overscan are, where they go, and what else is their own."""
    values = np.arange(20.0).reshape(2, 10)
    frame = lazyccd.from_ccddata(CCDData(values, unit="adu"))
    sections = {
        "top": {"DATASEC": "[1:3,1:2]", "BIASSEC": "[4:5,1:2]", "DETSEC": "[6:4,1:2]", "GAIN": 2.0},
        "low": {"datasec": "[8:10,1:2]", "DETSEC": "[1:3,1:2]", "GAIN": 3.0},
    }
    tree = frame.ccd.split_amplifiers(sections)
    assert [ds.sizes["x"] for ds in frames_of(tree).values()] == [5, 3]
    np.testing.assert_array_equal(lazyccd.assemble(tree)["data"].values, np.hstack([values[:, 7:], values[:, 2::-1]]))


def halves(**meta: Any) -> xr.Dataset:
    """Return an image of two amplifiers with such a header."""
    return lazyccd.from_ccddata(CCDData(np.ones((2, 6)), unit="adu", meta=meta))


SECTIONS = {"left": "[1:3,1:2]", "right": "[4:6,1:2]"}


@pytest.mark.parametrize("text", ["1.5,1.6", "[1.5, 1.6]", "1.5 1.6", "1,5;1,6", "1,5 1,6", "1.5 e-/adu, 1.6 e-/adu"])
def test_gains_in_one_keyword(text: str) -> None:
    """A list has a gain for each amplifier, in their order, also with decimal commas."""
    tree = lazyccd.split_amplifiers(halves(GAIN=text), SECTIONS)
    assert [ds.ccd.header["GAIN"] for ds in frames_of(tree).values()] == [1.5, 1.6]
    corrected = lazyccd.assemble(tree.ccd.gain_correct(lazyccd.Keyword("GAIN", unit=u.electron / u.adu)))
    np.testing.assert_array_equal(corrected["data"].values, [[1.5] * 3 + [1.6] * 3] * 2)


def test_listed_numbers_follow_the_numbers_of_the_keywords() -> None:
    """Amplifier 10 comes after amplifier 9; what nobody knows is absent, what an amplifier has of its own stays."""
    sections = {f"DATASEC{k}": f"[{k}:{k},1:1]" for k in range(1, 13)}
    numbers = [f"{k}.5" for k in range(1, 13)]
    numbers[2] = "UNKNOWN"
    meta = sections | {"RDNOISE": "; ".join(numbers), "RDNOISE5": 9.0}
    tree = lazyccd.split_amplifiers(lazyccd.from_ccddata(CCDData(np.ones((1, 12)), unit="adu", meta=meta)))
    noise = {name: ds.ccd.header.get("RDNOISE") for name, ds in frames_of(tree).items()}
    assert noise == {str(k): k + 0.5 for k in range(1, 13)} | {"3": None, "5": 9.0}


@pytest.mark.parametrize("text", ["1,5", "[1.5]", "high"])
def test_what_is_no_list_stays(text: str) -> None:
    """One value, or text that is none, is that of every amplifier."""
    tree = lazyccd.split_amplifiers(halves(GAIN=text), SECTIONS)
    assert [ds.ccd.header["GAIN"] for ds in frames_of(tree).values()] == [text, text]


def test_lists_of_another_length() -> None:
    """Are refused with the keyword, both counts and the way out, which works."""
    frame = halves(GAIN="1.5, 1.6, 1.7")
    message = "GAIN = '1.5, 1.6, 1.7' lists 3 numbers, and there are 2 amplifiers (left, right); give GAIN for each"
    with pytest.raises(ParameterError, match=re.escape(message)):
        lazyccd.split_amplifiers(frame, SECTIONS)
    sections = {name: {"DATASEC": text, "GAIN": 2.0} for name, text in SECTIONS.items()}
    tree = lazyccd.split_amplifiers(frame, sections)
    assert [ds.ccd.header["GAIN"] for ds in frames_of(tree).values()] == [2.0, 2.0]


def test_a_real_list(shared_data: Path) -> None:
    """A real header lists four gains; each of four amplifiers that a user names gets its own."""
    frame = lazyccd.open_fits(shared_data / "lco_sinistro_mef/cpt1m012-fl10-20151216-0073-e00.fits.fz")
    ny, nx = (size // 2 for size in frame["data"].shape)
    corners = {f"{k}": f"[{x}:{x + nx - 1},{y}:{y + ny - 1}]" for k, (y, x) in enumerate(
        [(1, 1), (1, nx + 1), (ny + 1, nx + 1), (ny + 1, 1)], 1)}  # fmt: skip
    tree = lazyccd.split_amplifiers(frame, corners)
    assert [ds.ccd.header["GAIN"] for ds in frames_of(tree).values()] == [3.3, 3.4, 3.3, 3.4]
