"""Single calls: an operation on a CCDData has the bits of the lazy one, and needs neither a graph nor dask's scheduler."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS

import lazyccd
from lazyccd.accessor import NOT_METHODS
from lazyccd.frame.core import held_image, resolve
from lazyccd.frame.held import HeldFrame
from lazyccd.kernels.block import Array
from lazyccd.plan import threads
from lazyccd.plan.steps import held_arrays, hold, single_call
from lazyccd.plan.threads import WORTH_PIXELS
from lazyccd.testing.asserts import raise_if_computes
from lazyccd.testing.steps import formula_frame
from tests.ops.test_trees import CALLS, Each, Frames

LAZY_ONLY = {"is_flagged", "rechunk", "settle", "split_amplifiers", "with_header"}
"""Functions of frames alone."""

COMPUTES = {"background_deviation_box", "background_deviation_filter", "ccdmask"}
"""Operations that give an array, which dask computes."""

SHAPE = (22, 25)


def image(shape: tuple[int, int], seed: int = 0, low: float = 100.0, high: float = 1000.0) -> CCDData:
    """Return an image with uncertainty, mask, header and WCS."""
    ds = formula_frame(shape, shape, seed=seed, uncertainty=True, holes=13, low=low, high=high)
    ccd = lazyccd.to_ccddata(ds)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    cards = {"GAIN": 1.25, "BIASSEC": f"[{shape[1]}:{shape[1]},1:{shape[0]}]"}
    return CCDData(ccd.data, unit="adu", uncertainty=ccd.uncertainty, mask=ccd.mask, wcs=wcs, meta=fits.Header(cards))


def arguments_of(call: Any, ccd: CCDData) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a call for a CCDData, and for a frame: their masters are what the image is."""
    frames: Frames = {"a": lazyccd.from_ccddata(ccd)}
    given = {k: v["a"] if isinstance(v, Each) else v for k, v in call(frames).items()}
    images = {k: lazyccd.to_ccddata(v) if isinstance(v, xr.Dataset) else v for k, v in given.items()}
    images = {k: v.values if isinstance(v, xr.DataArray) else v for k, v in images.items()}
    lazy = {k: lazyccd.from_ccddata(v) if isinstance(v, CCDData) else v for k, v in images.items()}
    return images, lazy


def assert_same_bits(result: Any, expected: Any) -> None:
    """Check all arrays of two images, or two arrays, bit by bit."""
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(result, expected, strict=True)
        return
    np.testing.assert_array_equal(result.data, expected.data, strict=True)
    assert (result.uncertainty is None) == (expected.uncertainty is None)
    if expected.uncertainty is not None:
        assert type(result.uncertainty) is type(expected.uncertainty)
        np.testing.assert_array_equal(result.uncertainty.array, expected.uncertainty.array, strict=True)
    np.testing.assert_array_equal(result.mask, expected.mask)
    assert result.unit == expected.unit


@pytest.mark.filterwarnings("ignore:WCS information")
@pytest.mark.filterwarnings("ignore:the image is in electrons")
@pytest.mark.parametrize("least", [WORTH_PIXELS, 1], ids=["caller", "threads"])
@pytest.mark.parametrize("name", sorted(set(CALLS) - LAZY_ONLY))
def test_a_ccddata_gives_the_bits_of_a_frame(name: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation of the table of trees, by threads too; nothing is computed by dask, and the image stays as it is."""
    monkeypatch.setattr(threads, "WORTH_PIXELS", least)
    ccd = image(SHAPE)
    # steps in their place
    ccd.meta.update(
        {"divide_illumination": {"FLATCOR": "done"}, "correct_linearity": {"SUBBIAS": "done"}}.get(name, {})
    )
    before = ccd.copy()
    for call in CALLS[name]:
        images, lazy = arguments_of(call, ccd)
        function = getattr(lazyccd, name)
        expected = function(lazyccd.from_ccddata(ccd), **lazy)
        wanted = expected.values if isinstance(expected, xr.DataArray) else lazyccd.to_ccddata(expected)
        if name in COMPUTES:
            result = function(ccd, **images)
        else:
            with raise_if_computes():
                result = function(ccd, **images)
        if isinstance(result, CCDData) and result.mask is None:
            wanted.mask = None if not np.any(wanted.mask) else wanted.mask
        assert_same_bits(result, wanted)
        assert_same_bits(ccd, before)
        if isinstance(result, CCDData):
            arrays = [result.data, getattr(result.uncertainty, "array", None), result.mask]
            own = [ccd.data, ccd.uncertainty.array, ccd.mask]
            assert not any(np.shares_memory(a, b) for a in arrays if a is not None for b in own)


def test_what_is_lazy_among_the_arguments_is_computed_by_dask() -> None:
    """A master that is a frame, with a graph of its own."""
    ccd, master = image(SHAPE), formula_frame(SHAPE, (7, 9), seed=3, low=0.5, high=2.0)
    expected = lazyccd.to_ccddata(lazyccd.subtract_bias(lazyccd.from_ccddata(ccd), master))
    assert_same_bits(lazyccd.subtract_bias(ccd, master), expected)


def test_a_frame_inside_of_a_call_becomes_a_dataset_when_it_is_looked_at() -> None:
    """Its variables, attributes and pixels are those of any frame, during the call and after it."""
    ccd = image(SHAPE)
    with single_call():
        frame = lazyccd.from_ccddata(ccd)
        assert type(frame) is HeldFrame
        assert held_image(frame) is resolve(frame)
        other = lazyccd.add(frame, 1.0 * u.adu)
        np.testing.assert_array_equal(frame["data"].values, ccd.data)
        assert held_image(frame) is None
        assert frame.attrs["header"] == lazyccd.from_ccddata(ccd).attrs["header"]
        assert set(frame.data_vars) == {"data", "uncertainty", "mask"}
        # looked at, it is a frame for operations still
        np.testing.assert_array_equal(lazyccd.to_ccddata(lazyccd.add(frame, 1.0 * u.adu)).data, ccd.data + 1)
    assert held_arrays() is None
    assert held_image(other) is None
    np.testing.assert_array_equal(lazyccd.to_ccddata(other).data, ccd.data + 1)
    np.testing.assert_array_equal(lazyccd.to_ccddata(lazyccd.add(other, 1.0 * u.adu)).data, ccd.data + 2)


def test_frames_outside_of_calls_keep_theirnames_of_a_call() -> None:
    """Equal pixels have equal tokens, as dask's caches and resumed runs need, also after a single call."""
    ccd = image(SHAPE)
    names = []
    for _ in range(2):
        names.append(lazyccd.add(lazyccd.from_ccddata(ccd), 1.0 * u.adu)["data"].data.name)
        lazyccd.add(ccd, 1.0 * u.adu)
    assert names[0] == names[1]


def test_no_name_is_missing_here() -> None:
    """What is not tried above is no operation on an image."""
    assert set(CALLS) >= LAZY_ONLY
    assert not LAZY_ONLY & set(NOT_METHODS)


def test_a_function_of_the_whole_image_is_called_once() -> None:
    """Threads that each need all of the input would call it again, at the same time."""
    calls = []

    def flipped(pixels: Array) -> Array:
        calls.append(pixels.shape)
        return pixels[::-1]

    ccd = CCDData(np.arange(1024.0**2).reshape(1024, 1024), unit="adu")
    np.testing.assert_array_equal(lazyccd.transform_image(ccd, flipped).data, ccd.data[::-1])
    assert calls == [(1024, 1024)]


NESTED = """
import numpy as np
from astropy.nddata import CCDData
import lazyccd
from lazyccd.plan import threads

threads.WORTH_PIXELS = 1
image = CCDData(np.ones((8, 8)), unit="adu")
found = threads.each(lambda part: lazyccd.subtract_bias(image, image).data[part], range(8))
print(np.sum(found))
"""


def test_what_threads_run_may_call_operations() -> None:
    """A function of a user's, whose own operations are large: threads that all wait for threads would wait for ever."""
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0.0\n", done.stderr


def names_of_a_call() -> list[str]:
    """Return the names of an array and of a step in a single call."""
    with single_call():
        return [hold(np.ones(3)), resolve(lazyccd.from_ccddata(image(SHAPE))).plan.token]


def test_names_of_single_calls_meet_no_others() -> None:
    """What dask computes may stand at a scheduler beside the graph of another process, forked or not."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        forked = pool.apply(names_of_a_call)
    found = [*names_of_a_call(), *names_of_a_call(), *forked]
    command = "from tests.ops.test_single_calls import names_of_a_call; print(*names_of_a_call())"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split()
    found += other
    assert len(set(found)) == len(found) == 8
