"""Trees of frames: one norm for all flats, one calibration for all frames, names that must match."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.nddata import CCDData

import lazyccd
from lazyccd.errors import ArgumentTypeError, FrameError, KeywordError, LazyCCDError, ParameterError
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import formula_frame, formula_tree


@pytest.mark.parametrize("word", ["mean", "median"])
def test_flats_of_a_tree_have_one_norm(word: str) -> None:
    """The mean or median over the good pixels of all flats divides each, so that amplifiers keep their relative level."""
    tree = formula_tree(3, holes=0)
    flats = make_tree(
        {f"CCD{i}": formula_frame((8, 9 + i), (3, 5), seed=9 + i, low=i + 1.0, high=i + 2) for i in range(3)}, {}
    )
    values = np.concatenate([
        ds["data"].values[(ds["mask"].values & 31) == 0].astype(float) for ds in frames_of(flats).values()
    ])  # fmt: skip
    norm = getattr(np, word)(values)
    result = lazyccd.flat_correct(tree, flats, norm_value=word)
    by_hand = lazyccd.flat_correct(tree, flats, norm_value=norm)
    chain = lazyccd.ccd_process(tree, master_flat=flats, norm_value=word)
    for name, ds in frames_of(result).items():
        np.testing.assert_allclose(ds["data"].values, by_hand[name]["data"].values, rtol=1e-6)
        np.testing.assert_array_equal(ds["data"].values, chain[name]["data"].values)
    with raise_if_computes(), pytest.raises(ParameterError, match=r"min_value .* differ .* common_norm=False"):
        lazyccd.flat_correct(tree, flats, min_value={"CCD0": 0.1, "CCD1": 0.2, "CCD2": 0.1})


def test_one_calibration_for_all() -> None:
    """A frame, a number or a row serves every frame of the tree."""
    tree = make_tree({name: formula_frame((6, 7), seed=i) for i, name in enumerate("ab")}, {})
    bias = formula_frame((6, 7), seed=5)
    for name, ds in frames_of(lazyccd.subtract_bias(tree, bias)).items():
        np.testing.assert_array_equal(
            ds["data"].values, lazyccd.subtract_bias(frames_of(tree)[name], bias)["data"].values
        )


def test_names_must_match() -> None:
    """A calibration that lacks a frame, or has one more, is refused with both lists, and so is a mapping."""
    tree, two = formula_tree(3), formula_tree(2)
    message = r"the tree given as master has nothing for 'CCD2': the frames are \['CCD0', 'CCD1', 'CCD2'\] and it has \['CCD0', 'CCD1'\]"
    with pytest.raises(ParameterError, match=message):
        lazyccd.subtract_bias(tree, two)
    with pytest.raises(ParameterError, match=r"gain has nothing for 'CCD1', 'CCD2'"):
        tree.ccd.gain_correct(gain={"CCD0": 1.2})
    message = r"the tree given as master has also 'CCD2': the frames are \['CCD0', 'CCD1'\] and it has \['CCD0', 'CCD1', 'CCD2'\]"
    with pytest.raises(ParameterError, match=message):
        lazyccd.subtract_bias(two, tree)
    with pytest.raises(ParameterError, match=r"gain has nothing for 'CCD1' and has also 'CCD9'"):
        two.ccd.gain_correct(gain={"CCD0": 1.2, "CCD9": 1.2})
    left = make_tree(frames_of(two), {"skipped": ["CCD2 is damaged"]})  # as open_mef(..., on_error="skip") says
    assert list(frames_of(lazyccd.subtract_bias(left, tree))) == ["CCD0", "CCD1"]
    with pytest.raises(KeywordError, match="no keyword 'GAIN'"):
        tree.ccd.gain_correct(gain=lazyccd.Keyword("GAIN", unit=u.electron / u.adu))


def test_trees_that_are_none() -> None:
    """A root with pixels, or a tree without any, is refused; so are trees and frames in one list."""
    frame = formula_frame((4, 5))
    with pytest.raises(FrameError, match="root of the tree has 'data'"):
        lazyccd.add(xr.DataTree(frame), 1 * u.adu)
    with pytest.raises(FrameError, match=r"the tree has no frame; its nodes are \['.'\]"):
        lazyccd.add(xr.DataTree(), 1 * u.adu)
    with pytest.raises(ArgumentTypeError, match="trees and frames together"):
        lazyccd.combine([formula_tree(), frame])


def test_what_a_tree_knows() -> None:
    """Header, frames, flags and cut-outs of a tree, and branches."""
    tree = formula_tree()
    nested = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"header": "GAIN    = 1.5"}), "R1/a": tree["CCD0"].to_dataset()}
    )
    assert nested.ccd.header["GAIN"] == 1.5
    assert list(nested.ccd.multiply({"R1/a": 2}).ccd.frames) == ["R1/a"]
    frames = frames_of(tree)
    for name, ds in frames.items():
        np.testing.assert_array_equal(tree.ccd.bad[name]["data"].values, ds.ccd.bad.values)
        np.testing.assert_array_equal(tree.ccd.is_flagged("CR")[name]["data"].values, ds.ccd.is_flagged("CR").values)
        part = tree.ccd.cutout(y=slice(1, 3), x={"CCD0": slice(0, 2), "CCD1": slice(3, 5)})[name]
        assert part["data"].shape == (2, 2)
        assert tree.ccd.unit[name] == ds.ccd.unit
        assert tree.ccd.wcs[name] is ds.ccd.wcs is None
        one = tree.ccd.pixel({"CCD0": 1, "CCD1": 2}, 3)[name].to_dataset()
        xr.testing.assert_identical(one.compute(), ds.ccd.pixel(1 + (name == "CCD1"), 3).compute())
        assert str(tree.ccd.explain(1, 2)[name]) == str(ds.ccd.explain(1, 2))
        image, alone = tree.ccd.to_ccddata()[name], ds.ccd.to_ccddata()
        np.testing.assert_array_equal(image.data, alone.data)
        assert image.header == alone.header
    assert tree.ccd.plan()["CCD1"].tasks == frames["CCD1"].ccd.plan().tasks
    assert list(tree.ccd.show()) == ["CCD0", "CCD1"]


def test_errors_name_the_frame() -> None:
    """What is wrong with one frame of a tree is said of that frame, by a note that the command line prints too."""
    tree = formula_tree(3, holes=0)
    frames = {name: frame.ccd.with_header({"BIASSEC": "[1:2,1:3]"}) for name, frame in frames_of(tree).items()}
    frames["CCD1"] = frames["CCD1"].ccd.with_header({"BIASSEC": "[900:910,1:3]"})
    for call in (
        lambda given: given.ccd.subtract_overscan(fits_section=lazyccd.Keyword("BIASSEC")),
        lambda given: given.ccd.gain_correct({"CCD0": 1.0, "CCD1": "much", "CCD2": 1.0}),
        lambda given: lazyccd.rechunk(given, {"CCD0": 4, "CCD1": 0, "CCD2": 4}),
        lambda given: lazyccd.combine([given, given], scale={"CCD0": None, "CCD1": "!NONE", "CCD2": None}),
    ):
        with pytest.raises(LazyCCDError) as caught:
            call(make_tree(frames, {}))
        assert caught.value.__notes__[-1] == "in the frame 'CCD1' of the tree"


def test_frames_of_one_name_are_combined(rng: np.random.Generator) -> None:
    """Frames of the same place meet, and one that is missing is named."""
    values = rng.normal(1000, 10, (6, 8, 9))
    frames = [lazyccd.from_ccddata(CCDData(each, unit="adu")) for each in values]
    trees = [make_tree({"SCI1": a, "SCI2": b}, {}) for a, b in zip(frames[:3], frames[3:], strict=True)]
    result = lazyccd.combine(trees, method="median")
    np.testing.assert_array_equal(result["SCI2"]["data"].values, np.median(values[3:], axis=0))
    assert list(result.children) == ["SCI1", "SCI2"]
    message = r"number 2, has nothing for 'SCI2': the frames are \['SCI1', 'SCI2'\]"
    with pytest.raises(ParameterError, match=message):
        lazyccd.combine([trees[0], make_tree({"SCI1": frames[0]}, {})])
