"""Operations on trees of frames: the bits of a loop over the frames, for every operation there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd import ops
from lazyccd.accessor import NOT_METHODS, OF_TREES, CCDTreeAccessor
from lazyccd.errors import ArgumentTypeError, FrameError, KeywordError, ParameterError
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import formula_frame

Frames = dict[str, xr.Dataset]
GAIN = u.electron / u.adu
E = u.electron


class Each(dict[str, Any]):
    """An argument that every frame has its own of."""

    def on_tree(self) -> Any:
        """Return it as it is given for a tree."""
        is_frame = isinstance(next(iter(self.values())), xr.Dataset)
        return make_tree(self, {}) if is_frame else dict(self)


def masters(frames: Frames, seed: int, **more: Any) -> Each:
    """Return a master for each frame."""
    return Each(
        {
            name: formula_frame(
                (ds.sizes["y"], ds.sizes["x"]), (9, 7), seed=seed + i, **{"low": 0.5, "high": 2.0, **more}
            )
            for i, (name, ds) in enumerate(frames.items())
        }
    )


def numbered(frames: Frames, unit: Any = 1, first: float = 1.5) -> Each:
    """Return a number for each frame."""
    return Each({name: (first + i) * unit for i, name in enumerate(frames)})


def strips(frames: Frames) -> Each:
    """Return an overscan section for each frame: its last one or two columns."""
    return Each({n: f"[{ds.sizes['x'] - i % 2}:{ds.sizes['x']},*]" for i, (n, ds) in enumerate(frames.items())})


CALLS: dict[str, list[Callable[[Frames], dict[str, Any]]]] = {
    "add": [lambda f: {"other": masters(f, 1)}, lambda f: {"other": 3 * u.adu}],
    "subtract": [lambda f: {"other": masters(f, 1)}],
    "multiply": [lambda f: {"other": numbered(f)}, lambda f: {"other": masters(f, 1)}],
    "divide": [lambda f: {"other": masters(f, 1)}],
    "background_deviation_box": [lambda f: {"bbox": 3}],
    "background_deviation_filter": [lambda f: {"bbox": 3}],
    "block_average": [lambda f: {"block_size": 2}],
    "block_reduce": [lambda f: {"block_size": (2, 3), "func": np.median}],
    "block_replicate": [lambda f: {"block_size": 2}],
    "ccd_process": [
        lambda f: {
            "oscan": strips(f), "error": True, "gain": numbered(f, GAIN), "readnoise": numbered(f, E), "gain_corrected": False,
            "master_bias": masters(f, 1), "master_flat": masters(f, 5), "common_norm": False,
        }
    ],
    "ccdmask": [lambda f: {"ncmed": 3, "nlmed": 3, "ncsig": 5, "nlsig": 5}],
    "cosmicray_lacosmic": [
        lambda f: {"readnoise": numbered(f, E), "sigclip": 4.5, "gain_apply": False, "gain": numbered(f, GAIN)}
    ],
    "cosmicray_median": [lambda f: {"error_image": 5.0, "mbox": 5, "rbox": 3}],
    "correct_linearity": [
        lambda f: {"coefficients": Each({n: [0, 1, 1e-6 * (1 + i)] for i, n in enumerate(f)}), "limit": 900.0},
        lambda f: {"table": ([0, 500, 1000], [0, 510, 1100])},
    ],
    "create_deviation": [
        lambda f: {"gain": numbered(f, GAIN), "readnoise": numbered(f, E), "disregard_nan": True},
        lambda f: {"gain": lazyccd.Keyword("GAIN", unit=GAIN), "readnoise": 4 * E},
    ],
    "divide_illumination": [lambda f: {"illumination": masters(f, 5), "common_norm": False}],
    "flags": [lambda f: {}],
    "flag_saturated": [lambda f: {"level": numbered(f, u.adu, 500.0)}, lambda f: {"level": 600.0}],
    "flat_correct": [
        lambda f: {"flat": masters(f, 5), "common_norm": False},
        lambda f: {"flat": masters(f, 5), "norm_value": numbered(f)},
    ],
    "gain_correct": [
        lambda f: {"gain": numbered(f, GAIN)},
        lambda f: {"gain": lazyccd.Keyword("GAIN", unit=GAIN)},
        lambda f: {"gain": masters(f, 2)},
    ],
    "grow_mask": [lambda f: {"planes": "CR", "radius": 1.5}],
    "interpolate_bad_pixels": [lambda f: {}],
    "median_filter": [lambda f: {"size": 3}],
    "rechunk": [lambda f: {"chunks": 5}],
    "settle": [lambda f: {}],
    "split_amplifiers": [lambda f: {"sections": {"a": "[1:5,1:11]", "b": "[12:6,1:11]"}}],
    "subtract_bias": [lambda f: {"master": masters(f, 2)}],
    "subtract_dark": [
        lambda f: {"master": masters(f, 3), "dark_exposure": 10 * u.s, "data_exposure": numbered(f, u.s), "scale": True}
    ],
    "subtract_fringe": [lambda f: {"fringe": masters(f, 3), "scale": numbered(f)}],
    "subtract_overscan": [
        lambda f: {"fits_section": strips(f)},
        lambda f: {"fits_section": lazyccd.Keyword("BIASSEC"), "median": True},
    ],
    "transform_image": [lambda f: {"transform_func": np.fliplr}],
    "trim_image": [lambda f: {"fits_section": Each({n: f"[1:{ds.sizes['x'] - 1},-*]" for n, ds in f.items()})}],
    "with_header": [lambda f: {"cards": {"OBJECT": "M 1"}}, lambda f: {"gain": numbered(f)}],
    "with_mask": [lambda f: {"array": Each({n: ds["data"] > 700 for n, ds in f.items()}), "plane": "GHOST"}],
    "with_uncertainty": [lambda f: {"array": Each({n: np.ones((ds.sizes["y"], ds.sizes["x"])) for n, ds in f.items()})}],
    "with_unit": [lambda f: {"unit": "electron"}],
}  # fmt: skip
OPERATIONS = [name for name in ops.__all__ if name not in NOT_METHODS | OF_TREES]


@st.composite
def exposures(draw: st.DrawFn) -> Frames:
    """Draw the frames of an exposure: how many, their shapes, chunks and what they have."""
    frames = {}
    for i in range(draw(st.integers(1, 2))):
        shape = draw(st.tuples(st.integers(11, 24), st.integers(12, 27)))
        chunks = draw(st.tuples(st.integers(3, 24), st.integers(3, 27)))
        more = {
            "uncertainty": draw(st.booleans()),
            "holes": draw(st.sampled_from([0, 13])),
        }
        ds = formula_frame(shape, chunks, seed=i, **more)
        cards = {"GAIN": 1.25 + i, "BIASSEC": f"[{shape[1]}:{shape[1]},1:{shape[0]}]", "SUBBIAS": "done"}
        frames[f"CCD{i}"] = ds.ccd.with_header(cards)
    return frames


def assert_same(tree: xr.DataTree, loop: dict[str, Any]) -> None:
    """Assert that a tree has the bits and attributes of what a loop gave."""
    found = frames_of(tree)
    loop = {
        name if inner is None else f"{name}/{inner}": one
        for name, result in loop.items()
        for inner, one in (frames_of(result).items() if isinstance(result, xr.DataTree) else [(None, result)])
    }
    assert list(found) == list(loop)
    for name, expected in loop.items():
        one = expected.to_dataset(name="data") if isinstance(expected, xr.DataArray) else expected
        assert found[name].attrs == one.attrs
        for variable in {*found[name].variables, *one.variables}:
            actual, wanted = found[name][variable], one[variable]
            assert actual.attrs == wanted.attrs
            np.testing.assert_array_equal(actual.values, wanted.values, err_msg=str(variable), strict=True)


@pytest.mark.filterwarnings("ignore:WCS information")
@pytest.mark.filterwarnings("ignore:the image is in electrons")
@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=4)
@given(frames=exposures())
def test_a_tree_gives_the_bits_of_a_loop(name: str, frames: Frames) -> None:
    """Each frame gets its own calibration and parameters, lazily, whether by function or by method; the root stays."""
    if name == "divide_illumination":  # which comes after the flat
        frames = {frame: ds.ccd.with_header(FLATCOR="done") for frame, ds in frames.items()}
    tree = make_tree(frames, {"header": "INSTRUME= 'CAM     '"})
    for call in CALLS[name]:
        arguments = call(frames)
        function = getattr(lazyccd, name)
        given_ = {k: v.on_tree() if isinstance(v, Each) else v for k, v in arguments.items()}
        if name in {"settle"}:
            result = function(tree, **given_)
        else:
            with raise_if_computes():
                result = getattr(tree.ccd, name)(**given_)
        assert result.attrs == tree.attrs
        loop = {
            frame: function(ds, **{k: v[frame] if isinstance(v, Each) else v for k, v in arguments.items()})
            for frame, ds in frames.items()
        }
        assert_same(result, loop)


def test_every_operation_is_in_the_table() -> None:
    """An operation that is new must be tried on trees, and is a method of theirs."""
    assert set(CALLS) == set(OPERATIONS)
    assert all(hasattr(CCDTreeAccessor, name) for name in OPERATIONS)


def exposure(count: int = 2, **more: Any) -> xr.DataTree:
    """Return an exposure of a few frames."""
    return make_tree({f"CCD{i}": formula_frame((8, 9 + i), (4, 9), seed=i, **more) for i in range(count)}, {})


@pytest.mark.parametrize("word", ["mean", "median"])
def test_flats_of_a_tree_have_one_norm(word: str) -> None:
    """The mean or median over the good pixels of all flats divides each, so that amplifiers keep their relative level."""
    tree = exposure(3, holes=0)
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
    """A calibration that lacks a frame is refused with both lists, and so is a mapping; one that has more is not."""
    tree, two = exposure(3), exposure(2)
    message = r"the tree given as master has nothing for 'CCD2': the frames are \['CCD0', 'CCD1', 'CCD2'\] and it has \['CCD0', 'CCD1'\]"
    with pytest.raises(ParameterError, match=message):
        lazyccd.subtract_bias(tree, two)
    with pytest.raises(ParameterError, match=r"gain has nothing for 'CCD1', 'CCD2'"):
        tree.ccd.gain_correct(gain={"CCD0": 1.2})
    assert list(frames_of(lazyccd.subtract_bias(two, tree))) == ["CCD0", "CCD1"]
    with pytest.raises(KeywordError, match="no keyword 'GAIN'"):
        tree.ccd.gain_correct(gain=lazyccd.Keyword("GAIN", unit=GAIN))


def test_trees_that_are_none() -> None:
    """A root with pixels, or a tree without any, is refused; so are trees and frames in one list."""
    frame = formula_frame((4, 5))
    with pytest.raises(FrameError, match="root of the tree has 'data'"):
        lazyccd.add(xr.DataTree(frame), 1 * u.adu)
    with pytest.raises(FrameError, match=r"the tree has no frame; its nodes are \['.'\]"):
        lazyccd.add(xr.DataTree(), 1 * u.adu)
    with pytest.raises(ArgumentTypeError, match="trees and frames together"):
        lazyccd.combine([exposure(), frame])


def test_what_a_tree_knows() -> None:
    """Header, frames, flags and cut-outs of a tree, and branches."""
    tree = exposure()
    nested = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"header": "GAIN    = 1.5"}), "R1/a": tree["CCD0"].to_dataset()}
    )
    assert nested.ccd.header["GAIN"] == 1.5
    assert list(nested.ccd.multiply({"R1/a": 2}).ccd.frames) == ["R1/a"]
    frames = frames_of(tree)
    for name, ds in frames.items():
        np.testing.assert_array_equal(tree.ccd.bad[name]["data"].values, ds.ccd.bad.values)
        np.testing.assert_array_equal(tree.ccd.flags("CR")[name]["data"].values, ds.ccd.flags("CR").values)
        part = tree.ccd.cutout(y=slice(1, 3), x={"CCD0": slice(0, 2), "CCD1": slice(3, 5)})[name]
        assert part["data"].shape == (2, 2)
    assert tree.ccd.plan()["CCD1"].tasks == frames["CCD1"].ccd.plan().tasks
