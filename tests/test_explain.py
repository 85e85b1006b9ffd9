"""`explain`: the history of a pixel, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

import lazyccd
from lazyccd import add_mask, combine, errors, explain, from_ccddata, with_uncertainty
from lazyccd.frame.tree import make_tree
from lazyccd.rejection import SigmaClip


@pytest.fixture
def night(tmp_path: Path, rng: np.random.Generator) -> tuple[list[Any], np.ndarray[Any, Any]]:
    """Return six calibrated frames of files, with a cosmic ray in the second and a bad pixel in the third."""
    raw = rng.normal(500, 2, (6, 60, 70)).astype(np.float32)
    raw[1, 20, 30] = 5000
    bias = with_uncertainty(from_ccddata(CCDData(np.full((60, 70), 100.0), unit="adu")), np.full((60, 70), 1.0))
    frames = []
    for i, plane in enumerate(raw):
        fits.PrimaryHDU(plane, fits.Header({"BUNIT": "adu"})).writeto(tmp_path / f"f{i}.fits")
        frame = with_uncertainty(lazyccd.open_fits(tmp_path / f"f{i}.fits"), np.full((60, 70), 2.0))
        frame = add_mask(frame, np.arange(60 * 70).reshape(60, 70) == 20 * 70 + 30) if i == 2 else frame
        frames.append(lazyccd.trim_image(lazyccd.subtract_bias(frame, bias), "[11:70,6:60]"))
    return frames, raw


def test_every_input_of_a_stack(night: tuple[list[Any], Any]) -> None:
    """The table has the value after each step, the pixel's position before the trim, and what rejected it."""
    frames, raw = night
    result = combine(frames, reject=SigmaClip(5, 5, deviation="mad_std"), scale="median")
    table = explain(result, 20, 30)
    last = table[table["step"] == "to the stack"]
    assert list(last["note"]) == ["used", "sigclip", "masked", "used", "used", "used"]
    assert list(last["frame"]) == [f"{i + 1} f{i}.fits" for i in range(6)]
    np.testing.assert_allclose(last["value"], raw[:, 20, 30] - 100, rtol=1e-6)
    np.testing.assert_allclose(last["uncertainty"], 5**0.5, rtol=1e-6)
    assert "BAD" in last["mask"][2]
    sources = table[[name.endswith(".fits") or "[0]" in name for name in table["step"]]]
    np.testing.assert_allclose(sources["value"], raw[:, 20, 30])
    assert {(row["y"], row["x"]) for row in sources} == {(20, 30)}
    assert {(row["y"], row["x"]) for row in last} == {(15, 20)}
    masters = table[[name.startswith("+") for name in table["step"]]]
    assert set(masters["value"]) == {100.0}
    end = table[-1]
    assert end["frame"] == "result"
    assert end["value"] == pytest.approx(float(result.ccd.pixel(20, 30)["data"]))
    assert "CLIPPED" in end["mask"]


def test_neighbours_that_grew(night: tuple[list[Any], Any]) -> None:
    """A pixel beside a rejected one is rejected by `grow`."""
    frames, _ = night
    result = combine(frames, reject=SigmaClip(20, 20, deviation="mad_std"), grow=1.5)
    table = explain(result, 21, 31)
    assert list(table["note"][table["step"] == "to the stack"])[1] == "grow"


def test_a_plan_without_a_stack(night: tuple[list[Any], Any]) -> None:
    """`explain` works for any frame, after a halo too, and for operations on a stack."""
    frames, raw = night
    cleaned = lazyccd.cosmicray_lacosmic(frames[1], niter=1, background=None, readnoise=2.0)
    table = explain(cleaned, 20, 30)
    assert table["value"][-1] == pytest.approx(float(cleaned.ccd.pixel(20, 30)["data"]))
    assert "CR" in table["mask"][-1]
    assert raw[1, 20, 30] in table["value"]
    doubled = lazyccd.multiply(combine(frames), 2)
    assert explain(doubled, 20, 30)["value"][-1] == pytest.approx(float(doubled.ccd.pixel(20, 30)["data"]))
    assert len(frames[0].ccd.explain(20, 30)) == len(explain(frames[0], 20, 30))


def test_a_pixel_that_is_not_there(night: tuple[list[Any], Any]) -> None:
    """Coordinates outside of the frame are refused."""
    with pytest.raises(errors.SectionError, match="pixel y = 3 is not in the frame"):
        explain(night[0][0], 3, 30)


def test_a_pixel_of_an_assembled_detector() -> None:
    """A pixel is followed to its place in the one amplifier that it comes from, flipped or not."""
    left = np.arange(12.0).reshape(3, 4)
    right = left + 100
    cards = {"left": "[1:4,1:3]", "right": "[8:5,1:3]"}
    frames = {
        name: from_ccddata(CCDData(values, unit="adu", meta={"DATASEC": "[1:4,1:3]", "DETSEC": cards[name]}))
        for name, values in (("left", left), ("right", right))
    }
    whole = lazyccd.assemble(make_tree(frames, {}))
    table = explain(whole, 1, 6)
    assert {(row["y"], row["x"]) for row in table if row["step"].endswith("array")} == {(1, 1)}
    assert set(table["value"]) == {right[1, 1]} == {whole["data"].values[1, 6]}


def test_a_stack_of_files_is_readable(tmp_path: Path) -> None:
    """Printed, the history of a stack of calibrated files has all its columns within 80 characters, wherever the files lie."""
    folder = tmp_path / "a_folder_with_a_long_name_in_which_the_frames_of_a_night_lie"
    folder.mkdir()
    names = [str(folder / name) for name in ("bias01.fits", "light0001.fits", "light0002.fits", "light0003.fits")]
    for name in names:
        fits.PrimaryHDU(np.full((8, 8), 1000.123, np.float32), fits.Header({"BUNIT": "adu"})).writeto(name)
    bias, *lights = map(lazyccd.open_fits, names)
    frames = [
        lazyccd.subtract_bias(
            lazyccd.create_deviation(light, gain=1.5 * u.electron / u.adu, readnoise=5 * u.electron), bias
        )
        for light in lights
    ]
    table = lazyccd.explain(lazyccd.combine(frames), 3, 4)
    lines = table.pformat(max_lines=-1, max_width=80)
    assert lines[0].split() == table.colnames
    assert "+ bias01.fits[0]" in "\n".join(lines)
