"""The whole chain, blocks, arithmetic and bit fields give ccdproc's and astropy's numbers, on simulated and real frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.modeling import models
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lazyccd
from lazyccd.testing.parity import UNCERTAINTIES, assert_same, image

GAIN, NOISE = 1.5 * u.electron / u.adu, 5 * u.electron
SHAPE = (24, 37)
BASE = {"oscan": "[38:45,1:24]", "trim": "[1:37,1:24]"}
ERROR = {"error": True, "gain": GAIN, "readnoise": NOISE}
TIMES = {"exposure_key": "exposure", "exposure_unit": u.s}


def master(seed: int, level: float, unit: str = "electron", **more: Any) -> CCDData:
    """Return a master of the trimmed shape."""
    return image(seed, level=level, shape=SHAPE, unit=unit, uncertainty="std", **more)


def bad_pixels() -> Any:
    """Return a bad-pixel mask."""
    return np.random.default_rng(9).random(SHAPE) < 0.03


CHAINS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "overscan and trim": BASE,
    "mean overscan": BASE | {"oscan_median": False},
    "fitted overscan": BASE | {"oscan_model": models.Chebyshev1D(2)},
    "error": BASE | ERROR,
    "bad pixels": BASE | {"bad_pixel_mask": bad_pixels()},
    "bias": BASE | ERROR | {"master_bias": master(2, 10)},
    "dark by key": BASE | ERROR | TIMES | {"dark_frame": master(3, 10, exposure=12.0), "dark_scale": True},
    "dark by times": BASE
    | ERROR
    | {"dark_frame": master(3, 10), "dark_exposure": 60 * u.s, "data_exposure": 1 * u.min, "dark_scale": True},
    "unscaled dark": BASE | ERROR | TIMES | {"dark_frame": master(3, 10, masked=True)},
    "flat": BASE | ERROR | {"master_flat": master(4, 7)},
    "low flat": BASE | ERROR | {"master_flat": image(4, level=1, shape=SHAPE), "min_value": 0.95},
    "gain last": BASE | ERROR | {"master_bias": master(2, 10, "adu"), "gain_corrected": False},
    "all": BASE
    | ERROR
    | TIMES
    | {
        "bad_pixel_mask": bad_pixels(),
        "master_bias": master(2, 10, masked=True),
        "dark_frame": master(3, 10, exposure=12.0),
        "dark_scale": True,
        "master_flat": master(4, 7),
    },
}


@pytest.mark.parametrize("name", CHAINS)
def test_ccd_process(name: str) -> None:
    """Every argument of the chain; the log, but for the array package that ccdproc logs by mistake, and in odd chunks."""
    ccd = image(1)
    ours, theirs = lazyccd.ccd_process(ccd, **CHAINS[name]), ccdproc.ccd_process(ccd, **CHAINS[name])
    if name == "low flat":
        low = np.asarray(CHAINS[name]["master_flat"].data) < 0.95
        assert np.array_equal(ours.mask, low)  # flagged here, not there
        theirs.mask = ours.mask
    assert_same(ours, theirs, meta=False)
    lazy = lazyccd.ccd_process(lazyccd.rechunk(lazyccd.from_ccddata(ccd), (5, 11)), **CHAINS[name])
    assert_same(lazyccd.to_ccddata(lazy), ours, rtol=0, meta=False)


def test_log_of_the_chain() -> None:
    """One entry for the chain and one for each step, as ccdproc writes them."""
    ours, theirs = (lib.ccd_process(image(1), **CHAINS["all"]).meta for lib in (lazyccd, ccdproc))
    assert list(ours) == list(theirs)
    for key, text in theirs.items():
        if isinstance(text, str) and "xp=" in text:
            assert "module" in text  # what ccdproc 2.5.1 logs by mistake
        elif "mask" not in str(text):
            assert ours[key] == text, key


CCDPROC_DROPS = pytest.mark.filterwarnings("ignore:The following attributes were set on the data object")

REDUCTIONS = {"sum": np.sum, "mean": np.mean, "median": np.median, "maximum": np.max}


@CCDPROC_DROPS
@pytest.mark.parametrize("size", [2, (3, 5), (24, 45), 1])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_block_reduce(name: str, size: Any) -> None:
    """Data as ccdproc, remainders trimmed, for arrays and frames; header and unit are kept."""
    ccd = image(1)
    theirs = ccdproc.block_reduce(ccd, size, REDUCTIONS[name])
    assert_same(lazyccd.block_reduce(ccd, size, REDUCTIONS[name]), theirs)
    lazy = lazyccd.block_reduce(lazyccd.rechunk(lazyccd.from_ccddata(ccd), (5, 11)), size, REDUCTIONS[name])
    assert_same(lazyccd.to_ccddata(lazy), theirs, meta=False)


@CCDPROC_DROPS
@pytest.mark.parametrize("size", [2, (3, 5)])
def test_block_average_and_replicate(size: Any) -> None:
    """As ccdproc; replicated pixels share the sum unless told otherwise."""
    ccd = image(1)
    assert_same(lazyccd.block_average(ccd, size), ccdproc.block_average(ccd, size))
    for conserve in (True, False):
        ours = lazyccd.block_replicate(ccd, size, conserve_sum=conserve)
        assert_same(ours, ccdproc.block_replicate(ccd, size, conserve_sum=conserve))


def test_blocks_carry_uncertainty_and_mask() -> None:
    """What ccdproc drops: the deviation of a sum is the root of the summed variances, and one bad pixel spoils a block."""
    ccd = image(1, uncertainty="std", masked=True)
    total = lazyccd.block_reduce(ccd, 2)
    blocks = ccd.uncertainty.array[:, :44].reshape(12, 2, 22, 2) ** 2
    np.testing.assert_allclose(total.uncertainty.array, np.sqrt(blocks.sum(axis=(1, 3))), rtol=1e-12)
    np.testing.assert_array_equal(total.mask, ccd.mask[:, :44].reshape(12, 2, 22, 2).any(axis=(1, 3)))


OPERANDS: dict[str, Callable[[], Any]] = {
    "number": lambda: 3.5,
    "quantity": lambda: 3.5 * u.adu,
    "image": lambda: image(2, uncertainty="std", masked=True),
    "plain image": lambda: image(2),
}


@pytest.mark.parametrize("name", OPERANDS)
@pytest.mark.parametrize("verb", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("uncertainty", UNCERTAINTIES)
def test_arithmetic(name: str, verb: str, uncertainty: str | None) -> None:
    """As astropy's CCDData arithmetic, uncertainties of every class included."""
    ccd, other = image(1, uncertainty=uncertainty), OPERANDS[name]()
    if name == "number" and verb in {"add", "subtract"}:
        with pytest.raises(lazyccd.errors.UnitError):
            getattr(lazyccd, verb)(ccd, other)
        return
    ours = getattr(lazyccd, verb)(ccd, other)
    same_class = uncertainty in {"std", None} or not hasattr(other, "uncertainty") or other.uncertainty is None
    theirs = getattr(ccd if same_class else image(1, uncertainty="std"), verb)(other)
    assert_same(ours, theirs, meta=False)


@given(
    field=hnp.arrays(st.sampled_from([np.uint8, np.int16, np.uint32]), (4, 5)),
    ignored=st.one_of(
        st.none(),
        st.integers(0, 255),
        st.lists(st.sampled_from([1, 2, 4, 8, 64]), unique=True),
        st.sampled_from(["1,4", "~4", "~(2,8)", "1+64", "None", "0"]),
    ),
    flip=st.sampled_from([None, True, False]),
)
def test_bit_fields(field: Any, ignored: Any, flip: bool | None) -> None:
    """The same boolean mask, or an error in both."""
    results = []
    for lib in (lazyccd, ccdproc):
        try:
            results.append(lib.bitfield_to_boolean_mask(field, ignore_bits=ignored, flip_bits=flip))
        except (TypeError, ValueError) as error:
            results.append(TypeError if isinstance(error, TypeError) else ValueError)
    np.testing.assert_array_equal(results[0], results[1])


def read(path: Path, hdu: int) -> CCDData:
    """Return a real frame as ccdproc's users read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy says of old headers
        return CCDData.read(path, hdu=hdu, unit="adu")


REAL = {
    "efosc2_ntt/EFOSC.2022-01-26T19:02:38.210.fits": 0,
    "efosc2_ntt/EFOSC.2022-01-28T08:43:07.204.fits": 0,
}


@pytest.mark.parametrize("name", REAL)
def test_real_frames(shared_data: Path, name: str) -> None:
    """The chain on real frames, read lazily from the file, against ccdproc on the frame in memory, in float32."""
    ccd = read(shared_data / name, REAL[name])
    ny, nx = ccd.shape
    chain = {"oscan": f"[{nx - 9}:{nx},1:{ny}]", "trim": f"[11:{nx - 20},5:{ny - 7}]"} | ERROR
    flat = CCDData(1 + np.random.default_rng(1).random((ny - 11, nx - 30)) / 10, unit="electron")
    theirs = ccdproc.ccd_process(ccd, master_flat=flat, **chain)
    ds = lazyccd.open_fits(shared_data / name, chunks=(333, 2048), unit="adu")
    ours = lazyccd.to_ccddata(lazyccd.ccd_process(ds, master_flat=flat, **chain))
    assert_same(ours, theirs, rtol=2e-6, meta=False)
