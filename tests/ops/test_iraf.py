"""IRAF's flavors against IRAF: what it gave once, kept in ``iraf.npz`` (make_iraf.py), and itself where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.modeling import models
from astropy.nddata import CCDData, StdDevUncertainty
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import ParameterError
from lazyccd.mask_planes import MaskSchema

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("make_iraf", HERE / "make_iraf.py")
assert SPEC is not None
assert SPEC.loader is not None
iraf = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(iraf)

Array = npt.NDArray[Any]
KEPT = np.load(HERE / "iraf.npz")
CASES = [
    (task, shape, k)
    for task in ("crmedian", "ccdmask")
    for shape in iraf.SHAPES
    for k in range(4 + (task == "ccdmask"))
]


def ours(task: str, pixels: Array, options: dict[str, Any], chunk: Any) -> Array:
    """Return what lazyccd makes of an image with IRAF's parameters."""
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu")), chunk)
    if task == "ccdmask":
        return np.asarray(lazyccd.ccdmask(ds, flavor="iraf", **options))
    boxes = {"mbox": (options.get("nlmed", 5), options.get("ncmed", 5))}
    boxes["sbox"] = (options.get("nlsig", 25), options.get("ncsig", 25))
    noise = tuple(options.get(f"var{k}", 0.0) for k in range(3))
    limits = {key: options[key] for key in ("lsigma", "hsigma") if key in options}
    return np.asarray(lazyccd.cosmicray_median(ds, flavor="iraf", noise=noise, **limits, **boxes)["data"])


@pytest.mark.parametrize(("task", "shape", "number"), CASES)
@pytest.mark.parametrize("chunk", [200, (31, 17)])
def test_what_iraf_gave(task: str, shape: tuple[int, int], number: int, chunk: Any) -> None:
    """Every pixel of crmedian's cleaned image, to the bit, and of ccdmask's mask, for any chunks."""
    options = {"crmedian": iraf.CRMEDIAN, "ccdmask": iraf.CCDMASK}[task][number]
    expected = KEPT[f"{task}_{shape[0]}_{number}"]
    assert (expected != (iraf.image(shape) if task == "crmedian" else False)).sum() > 20
    np.testing.assert_array_equal(ours(task, iraf.image(shape), options, chunk), expected)


@pytest.mark.skipif(not iraf.is_installed(), reason="IRAF is not on this machine: no irafcl, or no package noao")
@pytest.mark.parametrize("task", ["crmedian", "ccdmask"])
def test_iraf_itself(task: str, rng: np.random.Generator) -> None:
    """Random images and parameters, given to both."""
    for _ in range(3):
        shape = tuple(int(n) for n in rng.integers(40, 110, 2))
        options = {key: int(n) for key, n in zip(("ncmed", "nlmed"), rng.integers(3, 10, 2), strict=True)}
        options |= {key: int(n) for key, n in zip(("ncsig", "nlsig"), rng.integers(10, 22, 2), strict=True)}
        if task == "ccdmask":
            options["ngood"] = int(rng.integers(1, 8))
        pixels = rng.normal(100, 1, shape).astype(np.float32)
        pixels[rng.random(shape) < 0.03] -= 50
        for column in rng.integers(0, shape[1], 3):
            pixels[rng.integers(0, 30) :, column] += rng.choice([-2, 2, 5])
        expected = iraf.run_iraf(task, pixels, options)
        np.testing.assert_array_equal(ours(task, pixels, options, 33), expected)


CURVES = (
    models.Legendre1D(0),
    models.Legendre1D(3),
    models.Chebyshev1D(2),
    models.Spline1D(knots=3, degree=3, bounds=[0, 1]),
)
"""The curves of `make_iraf.FITS_OF_LINES`."""


@pytest.mark.parametrize("task", ["colbias", "linebias"])
@pytest.mark.parametrize("number", range(len(CURVES)))
@pytest.mark.parametrize("chunk", [200, (31, 17)])
def test_overscan_fits_of_iraf(task: str, number: int, chunk: Any) -> None:
    """Averages of lines, fitted with rejection: the pixels of colbias and linebias."""
    ds = lazyccd.rechunk(lazyccd.from_ccddata(CCDData(iraf.overscan_image(task), unit="adu")), chunk)
    section, axis = ("[39:48,1:60]", 1) if task == "colbias" else ("[1:60,39:48]", 0)
    ours = lazyccd.subtract_overscan(ds, fits_section=section, overscan_axis=axis, model=CURVES[number], sigma=2.5)
    np.testing.assert_allclose(ours["data"].values, KEPT[f"{task}_{number}"], atol=2e-3)


@pytest.mark.parametrize("chunk", [200, (17, 23)])
def test_corrections_of_iraf(chunk: Any) -> None:
    """IRAF's ccdproc divides by the illumination over its mean, and scales fringes by exposure, to the same pixels."""
    pixels, smooth, waves = (
        lazyccd.rechunk(lazyccd.from_ccddata(CCDData(image, unit="adu")), chunk) for image in iraf.corrected_images()
    )
    flattened = pixels.assign_attrs(header="SUBBIAS = 'done'\nFLATCOR = 'done'")
    ours = lazyccd.divide_illumination(flattened, smooth)["data"].values
    np.testing.assert_allclose(ours, KEPT["illumination"], rtol=1e-6)
    ours = lazyccd.subtract_fringe(flattened, waves, scale=60 / 30)["data"].values
    np.testing.assert_allclose(ours, KEPT["fringe"], rtol=1e-6, atol=1e-5)


@pytest.mark.skipif(not iraf.is_installed(), reason="IRAF is not on this machine; its kept outputs are compared")
def test_iraf_itself_gives_what_was_kept() -> None:
    """The overscan and correction outputs that are kept are those of IRAF."""
    for task in ("colbias", "linebias"):
        for number, curve in enumerate(iraf.FITS_OF_LINES):
            np.testing.assert_array_equal(iraf.run_overscan(task, curve), KEPT[f"{task}_{number}"])
    for name, pixels in iraf.run_corrections().items():
        np.testing.assert_array_equal(pixels, KEPT[name])


@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    chunk=st.tuples(st.integers(3, 60), st.integers(3, 60)),
    box=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    task=st.sampled_from(["crmedian", "ccdmask"]),
)
def test_chunks_do_not_show(shape: tuple[int, int], chunk: tuple[int, int], box: tuple[int, int], task: str) -> None:
    """Any chunks give the pixels of one chunk, for images smaller than the boxes too."""
    pixels = np.random.default_rng(1).normal(100, 1, shape).astype(np.float32)
    pixels[::7, ::5] += 30
    pixels[shape[0] // 2, shape[1] // 2] = np.nan
    options = {"nlmed": box[0], "ncmed": box[1], "nlsig": 12, "ncsig": 10}
    one, several = (ours(task, pixels, options, cut) for cut in (100, chunk))
    np.testing.assert_array_equal(one, several)


def test_planes_of_crmedian() -> None:
    """What is replaced has CR and INTERP, and the median of the variances about it."""
    pixels = iraf.image((60, 45))
    ccd = CCDData(pixels, unit="adu", uncertainty=StdDevUncertainty(np.full(pixels.shape, 3.0)))
    ds = lazyccd.cosmicray_median(lazyccd.from_ccddata(ccd), flavor="iraf").compute()
    bits = MaskSchema().bits("CR", "INTERP")
    changed = ds["data"].values != pixels
    np.testing.assert_array_equal(ds["mask"].values, np.where(changed, bits, 0))
    np.testing.assert_allclose(ds["uncertainty"].values, 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda ds: lazyccd.ccdmask(ds, flavor="iraf", byblocks=True), "byblocks"),
        (lambda ds: lazyccd.ccdmask(ds, flavor="midas"), "'midas'"),
        (lambda ds: lazyccd.cosmicray_median(ds, flavor="midas"), "'midas'"),
        (lambda ds: lazyccd.cosmicray_median(ds, flavor="iraf", rbox=5), "leave out the other"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=1.0, hsigma=4), "flavor='iraf'"),
        (lambda ds: lazyccd.cosmicray_median(ds, flavor="iraf", sbox=0), "sbox 0"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    """Arguments of the other flavor are refused."""
    with pytest.raises(ParameterError, match=words):
        call(lazyccd.from_ccddata(CCDData(np.ones((20, 20)), unit="adu")))


@pytest.mark.parametrize(
    ("script", "installed"), [("cp in.fits out.fits", True), ("echo unknown task noao", False), ("exit 1", False)]
)
def test_iraf_counts_only_with_noao(
    script: str, installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command irafcl alone, which distributions have without the package, is no IRAF that tests can ask."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command = tmp_path / "irafcl"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    assert iraf.is_installed() == installed
