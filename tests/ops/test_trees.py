"""Operations on trees of frames: the bits of a loop over the frames, for every operation there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd import ops
from lazyccd.accessor import NOT_METHODS, OF_TREES, CCDAccessor, CCDTreeAccessor
from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.tree import frames_of, make_tree
from lazyccd.rejection import MinMax
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import formula_frame, formula_tree

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


SKY = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01, "CRVAL2": 10.0}
"""A place on the sky."""

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
    "is_flagged": [lambda f: {}],
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
    "subtract_sky": [lambda f: {"box": 4}, lambda f: {"method": "constant", "box": (3, 50)}],
    "transform_image": [lambda f: {"transform_func": np.fliplr}],
    "trim_image": [lambda f: {"fits_section": Each({n: f"[1:{ds.sizes['x'] - 1},-*]" for n, ds in f.items()})}],
    "wcs_project": [lambda f: {"target_wcs": WCS({**SKY, "CRPIX1": 3.3, "CROTA2": 20}), "target_shape": (12, 9)}],
    "with_header": [lambda f: {"cards": {"OBJECT": "M 1"}}, lambda f: {"gain": numbered(f)}],
    "add_mask": [lambda f: {"array": Each({n: ds["data"] > 700 for n, ds in f.items()}), "plane": "GHOST"}],
    "with_mask": [
        lambda f: {"mask": Each({n: ds["data"] > 700 for n, ds in f.items()})},
        lambda f: {"mask": None},
    ],
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
@pytest.mark.filterwarnings("ignore::lazyccd.errors.RepeatedStepWarning")
@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=4)
@given(frames=exposures())
def test_a_tree_gives_the_bits_of_a_loop(name: str, frames: Frames) -> None:
    """Each frame gets its own calibration and parameters, lazily, whether by function or by method; the root stays."""
    if name == "divide_illumination":  # which comes after the flat
        frames = {frame: ds.ccd.with_header(FLATCOR="done") for frame, ds in frames.items()}
    if name == "wcs_project":
        frames = {frame: ds.ccd.with_header(SKY) for frame, ds in frames.items()}
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


def of_lists(frames: Frames) -> tuple[list[xr.DataTree], dict[str, list[xr.Dataset]]]:
    """Return three exposures of the same detectors, with the frames of each name."""
    lists = {
        name: [
            formula_frame(
                (ds.sizes["y"], ds.sizes["x"]), (5, 8), seed=30 + i + 3 * k, holes=13, uncertainty=True
            ).ccd.with_header(EXPTIME=10.0 + i, GAIN=1.5 + k)
            for i in range(3)
        ]
        for k, (name, ds) in enumerate(frames.items())
    }
    trees = [
        make_tree({name: some[i] for name, some in lists.items()}, {"header": f"EXPTIME = {10.0 + i:20.1f}"})
        for i in range(3)
    ]
    return trees, lists


def with_combiner(frames: Any, factors: Any) -> Any:
    """Combine as scripts for ccdproc do."""
    combiner = lazyccd.Combiner(frames)
    combiner.scaling = factors
    combiner.weights = np.array([1.0, 2.0, 3.0])
    combiner.sigma_clipping(low_thresh=1, high_thresh=1, func="median")
    return combiner.average_combine()


STACKS: dict[str, Callable[[Any, Any], Any]] = {
    "combine": lambda f, own: lazyccd.combine(f, method="median", scale=own, reject=MinMax(nlow=0)),
    "combine_in_place": lambda f, own: lazyccd.combine(
        f, offsets=[(0, 0), (1, 0), (0, -2)], zero="median", weights=own
    ),
    "Combiner": with_combiner,
}


@pytest.mark.parametrize("name", STACKS)
@settings(max_examples=4)
@given(frames=exposures())
def test_lists_of_trees_give_the_bits_of_a_loop(name: str, frames: Frames) -> None:
    """Frames of one name are combined, with parameters of their own, lazily, and so are the roots."""
    trees, lists = of_lists(frames)
    own = {frame: [1.0, 1.5 + k, 0.5] for k, frame in enumerate(lists)}
    with raise_if_computes():
        stack = STACKS[name](iter(trees), own)
    assert_same(stack, {frame: STACKS[name](some, own[frame]) for frame, some in lists.items()})
    assert (stack.ccd.header["NCOMBINE"], stack.ccd.header["EXPTIME"]) == (3, 11.0)


def test_a_combiner_of_trees_has_values_by_name() -> None:
    """What is set for all, or by name, is read by name; frames and trees in one list are refused."""
    trees, lists = of_lists(frames_of(formula_tree()))
    combiner = lazyccd.Combiner(trees)
    combiner.weights = np.ones(3)
    assert {name: some.tolist() for name, some in combiner.weights.items()} == {name: [1, 1, 1] for name in lists}
    for name, values in combiner.data_arr.items():
        alone = lazyccd.Combiner(lists[name]).data_arr
        np.testing.assert_array_equal(values.filled(0), alone.filled(0))
    with pytest.raises(ArgumentTypeError, match=r"Combiner\(\) got trees and frames together"):
        lazyccd.Combiner([*trees, lists["CCD0"][0]])
    with pytest.raises(ParameterError, match="scaling has nothing for 'CCD1'"):
        combiner.scaling = {"CCD0": [1, 1, 1]}
    with pytest.raises(ParameterError) as caught:
        combiner.scaling = {"CCD0": [1, 1, 1], "CCD1": [1, 1]}
    assert caught.value.__notes__ == ["in the frame 'CCD1' of the tree"]


def test_offsets_of_trees() -> None:
    """Offsets are measured name by name, and are given back to combine as they are."""
    rng = np.random.default_rng(2)
    frames: dict[str, list[xr.Dataset]] = {}
    for k, name in enumerate("ab"):
        sky = rng.normal(100, 1, (40, 50))
        sky[rng.integers(5, 35, 9), rng.integers(5, 45, 9)] = 900
        frames[name] = [
            lazyccd.from_ccddata(lazyccd.CCDData(np.roll(sky, (i, -i * k), (0, 1)), unit="adu")) for i in range(3)
        ]
    trees = [make_tree({name: some[i] for name, some in frames.items()}, {}) for i in range(3)]
    found = lazyccd.register(trees)
    assert {name: some.tolist() for name, some in found.items()} == {
        name: lazyccd.register(some).tolist() for name, some in frames.items()
    }
    assert found["b"].tolist() == [[0, 0], [-1, 1], [-2, 2]]
    assert_same(
        lazyccd.combine(trees, offsets=found), {n: lazyccd.combine(s, offsets=found[n]) for n, s in frames.items()}
    )


@pytest.mark.parametrize("name", ["a.fits", "a.zarr"])
def test_a_stack_of_trees_in_a_file(tmp_path: Path, name: str) -> None:
    """A file has all frames with the levels that were found, and is what is returned; as for frames alone."""
    trees, lists = of_lists(frames_of(formula_tree()))
    stack = lazyccd.combine(trees, tmp_path / name, scale="median")
    again = lazyccd.io.open.open_image(tmp_path / name)
    for frame, some in lists.items():
        alone = lazyccd.combine(some, tmp_path / f"{frame}{name}", scale="median")
        np.testing.assert_array_equal(stack[frame]["data"].values, alone["data"].values)
        np.testing.assert_array_equal(again[frame]["data"].values, alone["data"].values)
        assert list(again[frame].to_dataset().ccd.header["HISTORY"]) == list(alone.ccd.header["HISTORY"])
        assert any("scale levels" in line for line in alone.ccd.header["HISTORY"])
    with pytest.raises(FileExistsError):
        lazyccd.combine(trees, tmp_path / name)


@settings(max_examples=3)
@given(frames=exposures())
def test_running_stacks_of_trees(tmp_path_factory: pytest.TempPathFactory, frames: Frames) -> None:
    """Trees are added and vetoed as frames are, and give the bits of a stack for each name."""
    trees, lists = of_lists(frames)
    folder = tmp_path_factory.mktemp("running")
    stack = lazyccd.RunningStack(folder / "trees")
    alone = {name: lazyccd.RunningStack(folder / name) for name in lists}
    for i, tree in enumerate(trees):
        stack.add(tree, 1.0 + i, name=f"e{i}")
        for name, one in alone.items():
            one.add(lists[name][i], 1.0 + i, name=f"e{i}")
    stack.veto("e1", trees[1])
    for name, one in alone.items():
        one.veto("e1", lists[name][1])
    result: Any = stack.result()
    assert stack.names == ["e0", "e2"]
    assert_same(result, {name: one.result() for name, one in alone.items()})
    assert (result.ccd.header["NCOMBINE"], result.ccd.header["EXPTIME"]) == (2, 11.0)
    assert sorted(path.name for path in (folder / "trees").glob("*/*")) == ["sums-000003.zarr"] * len(lists)
    with pytest.raises(ParameterError, match="trees has trees and x is one frame"):
        stack.add(lists["CCD0"][0], name="x")
    with pytest.raises(ParameterError, match="x has also 'more'"):
        stack.add(make_tree({**frames_of(trees[1]), "more": lists["CCD0"][0]}, {}), name="x")


@settings(max_examples=4)
@given(frames=exposures())
def test_statistics_of_trees(frames: Frames) -> None:
    """Statistics of each frame, lazily."""
    tree = make_tree(frames, {"header": "INSTRUME= 'CAM     '"})
    functions: dict[str, Callable[[Any], Any]] = {
        "median": lazyccd.stats.median,
        "percentile": lambda f: lazyccd.stats.percentile(f, [5, 50], bad="SAT"),
        "mad_std": lambda f: lazyccd.stats.mad_std(ccd=f),
        "sigma_clipped": lambda f: lazyccd.stats.sigma_clipped(f, 2.5),
    }
    assert set(functions) == {name for name, value in vars(lazyccd.stats).items() if is_our_function(value, "lazyccd.stats")} - {
        "apply_selection", "quantile_scalar", "clipped_scalar",
    }  # fmt: skip
    for function in functions.values():
        with raise_if_computes():
            found = function(tree)
        assert found.attrs == tree.attrs
        for name, ds in frames.items():
            wanted = function(ds)
            wanted = wanted if isinstance(wanted, xr.Dataset) else wanted.to_dataset(name="data")
            xr.testing.assert_identical(found[name].to_dataset().compute(), wanted.compute())


def is_our_function(value: Any, module: str) -> bool:
    """Return whether a value is a public function that a module defines."""
    return inspect.isfunction(value) and value.__module__ == module and not value.__name__.startswith("_")


NO_FRAMES = {
    "CCDData",
    "Collection",
    "Keyword",
    "Recipe",
    "conf",
    "as_frame",
    "from_ccddata",
    "reduce",
    "open_fits",
    "open_many",
    "open_mef",
    "open_zarr",
    "sky_cells",
}
"""Names that take no frame: what makes them, and others."""

OTHERWISE = {
    "Combiner",
    "RunningStack",
    "coadd",
    "combine",
    "explain",
    "find_optimal_grid",
    "register",
    "to_ccddata",
    "to_fits",
    "to_zarr",
}
"""Names that other tests of trees are about, here or of files."""

NO_PIXELS = {"bitfield_to_boolean_mask", "build_pyramid", *OF_TREES}
"""Names that take an array, a store, or nothing but trees."""


OF_MOSAICS = {"aperture_factor", "frames_at", "mosaic_corrections", "stamps"}
"""Names that take a mosaic as `coadd` gives it, which is one frame whatever its inputs are."""


def test_everything_that_is_public_takes_trees() -> None:
    """Each public name is an operation that is tried above, or one that is listed; methods of frames are those of trees."""
    assert set(lazyccd.__all__) == {*CALLS, *NO_FRAMES, *OTHERWISE, *NO_PIXELS, *OF_MOSAICS}
    of_frames = {name for name in vars(CCDAccessor) if not name.startswith("_")} - OF_MOSAICS
    assert of_frames <= {name for name in vars(CCDTreeAccessor) if not name.startswith("_")}
