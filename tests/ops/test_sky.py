"""subtract_sky: levels of boxes against photutils and sep, surfaces against SciPy, truth of simulated skies, bits for any chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sep
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import SigmaClip
from hypothesis import given, settings
from hypothesis import strategies as st
from photutils.background import SExtractorBackground
from scipy.interpolate import CubicSpline

import lazyccd
from lazyccd.errors import ParameterError
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.sky import sky_boxes, subtract_surface
from lazyccd.ops.mosaic.sky import HEAD, sky_surface
from lazyccd.sections import Region
from lazyccd.testing import raise_if_computes

Array = npt.NDArray[Any]


def starry(shape: tuple[int, int], seed: int = 1, stars: int = 60) -> Array:
    """Return noise about 200 with stars."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(200, 5, shape)
    y, x = np.mgrid[:15, :15] - 7.0
    profile = np.exp(-(y**2 + x**2) / 8)
    for v, u, flux in zip(
        rng.integers(0, shape[0] - 15, stars), rng.integers(0, shape[1] - 15, stars), rng.exponential(300, stars),
        strict=True,
    ):  # fmt: skip
        pixels[v : v + 15, u : u + 15] += flux * profile
    return pixels


def boxes_of(pixels: Array, box: tuple[int, int], mask: Array | None = None) -> Array:
    """Return level, standard deviation and count of the boxes of an image."""
    return sky_boxes(Block(Region.full(pixels.shape), pixels, mask=mask), box=box, bad_bits=1)


def surface_of(levels: Array, box: tuple[int, int], shape: tuple[int, int], region: Region | None = None) -> Array:
    """Return the surface through levels as the image minus it, for an image of 0, with the sign turned."""
    found = np.stack([levels, np.ones(levels.shape), np.full(levels.shape, box[0] * box[1])], axis=-1)
    sky = sky_surface([found], box=box, across=1)
    region = region or Region.full(shape)
    block = Block(region, np.zeros(region.shape))
    nodes = (max(2, levels.shape[0]), max(2, levels.shape[1]))
    out = subtract_surface(Request(region, frozenset({"data"})), block, sky=sky, nodes=nodes, box=box, head=HEAD)
    return -out.plane("data")


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_levels_are_those_of_photutils(dtype: str) -> None:
    """Each box is clipped and its mode estimated as photutils does, boxes that are cut and masked pixels too."""
    pixels = starry((100, 140)).astype(dtype)
    rng = np.random.default_rng(2)
    pixels[rng.random(pixels.shape) < 0.05] = np.nan
    mask = (rng.random(pixels.shape) < 0.05).astype(np.uint16)
    found = boxes_of(pixels, (32, 24), mask)
    assert found.shape == (4, 6, 3)
    clip = SigmaClip(3.0, maxiters=10)
    for j, i in np.ndindex(4, 6):
        cut = (slice(32 * j, 32 * (j + 1)), slice(24 * i, 24 * (i + 1)))
        good = np.isfinite(pixels[cut]) & (mask[cut] == 0)
        left = clip(pixels[cut][good].astype(float), masked=False)
        np.testing.assert_allclose(found[j, i, 0], SExtractorBackground(sigma_clip=None)(left), rtol=1e-12)
        np.testing.assert_allclose(found[j, i, 1], np.std(left), rtol=1e-11)
        assert found[j, i, 2] == good.sum()


def test_crowded_and_constant_boxes_have_their_median() -> None:
    """Where mean and median are far apart the mode is not used; of equal pixels it is their value; of none it is NaN."""
    crowded = np.concatenate([np.linspace(-1, 1, 60), np.full(40, 10.0)]).reshape(10, 10)
    assert boxes_of(crowded, (10, 10))[0, 0, 0] == np.median(crowded)
    constant = boxes_of(np.full((8, 8), 7.0), (8, 8))
    np.testing.assert_array_equal(constant, [[[7.0, 0.0, 64.0]]])
    none = boxes_of(np.full((4, 4), np.nan), (4, 4))
    assert np.isnan(none[0, 0, 0])
    assert none[0, 0, 2] == 0


def test_the_background_is_that_of_sep() -> None:
    """On a starry field with a bent sky the surfaces differ by less than a tenth of the noise in the rms."""
    y, x = np.mgrid[:512, :640] / 512
    pixels = starry((512, 640), stars=400) + 60 * y * x + 20 * np.sin(3 * x)
    ours = pixels - lazyccd.subtract_sky(CCDData(pixels, unit="adu"), box=64).data
    theirs = sep.Background(pixels, bw=64, bh=64, fw=3, fh=3).back()
    assert np.std(ours - theirs) < 0.5
    assert abs(np.mean(ours - theirs)) < 0.1
    assert abs(ours - theirs)[64:-64, 64:-64].max() < 1.5


def test_the_sky_is_true() -> None:
    """A plane and a slow wave come out within a fiftieth of the noise of a pixel on average, edges and corners too."""
    y, x = np.mgrid[:1024, :1024]
    rng = np.random.default_rng(3)
    for sky in (300 + 0.05 * x - 0.03 * y, 300 + 50 * np.sin(y / 500) + 20 * np.cos(x / 400)):
        ccd = CCDData(sky + rng.normal(0, 10, sky.shape), unit="adu")
        off = ccd.data - lazyccd.subtract_sky(ccd, box=64).data - sky
        assert abs(off.mean()) < 0.2
        assert np.std(off) < 0.5
        for corner in (off[:32, :32], off[-32:, -32:], off[:32, -32:]):
            assert abs(corner.mean()) < 1.5


def test_surfaces_are_natural_splines() -> None:
    """Between nodes it is SciPy's spline along y and then along x; beyond the outer ones it goes on straight."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:6, :5]
    levels = 10.0 * y - 7.0 * x + 100
    np.testing.assert_allclose(
        surface_of(levels, (8, 10), (48, 50)),
        10 * ((np.arange(48)[:, None] + 0.5) / 8 - 0.5) - 7 * ((np.arange(50) + 0.5) / 10 - 0.5) + 100,
        atol=1e-11,
    )
    # a smooth one that a median leaves as it is
    levels = np.cumsum(rng.uniform(1, 2, 6))[:, None] + np.zeros(5)
    found = surface_of(levels, (8, 10), (48, 50))
    place = (np.arange(48) + 0.5) / 8 - 0.5
    spline = CubicSpline(np.arange(6), levels[:, 0], bc_type="natural")
    inside = (place >= 0) & (place <= 5)
    np.testing.assert_allclose(found[inside], np.broadcast_to(spline(place[inside])[:, None], (40, 50)), rtol=1e-12)
    np.testing.assert_allclose(found[~inside & (place < 0), 3], levels[0, 0] + spline(0, 1) * place[:4], rtol=1e-12)
    part = Region(5, 31, 7, 44)
    np.testing.assert_array_equal(surface_of(levels, (8, 10), (48, 50), part), found[part.slices])


def test_boxes_that_are_bad_get_the_level_of_the_nearest() -> None:
    """A box behind a masked star and one of NaN take their neighbours' level; an outlier box is smoothed away."""
    pixels = np.random.default_rng(5).normal(100, 1, (320, 320))
    pixels[64:128, 64:128] = np.nan
    pixels[200:240, 100:180] = 5000
    star = np.zeros(pixels.shape, bool)
    star[190:250, 90:190] = True
    ds = lazyccd.add_mask(lazyccd.from_ccddata(CCDData(pixels, unit="adu")), star, "SAT")
    out = lazyccd.subtract_sky(ds, box=32)["data"].values
    left = ds["data"].values - out
    assert np.nanmax(abs(left - 100)) < 1
    assert np.isnan(out[64:128, 64:128]).all()
    pixels[0:32, 32:64] += 50
    assert abs(surface_of(boxes_of(pixels, (32, 32))[..., 0][:, 5:], (32, 32), (320, 160)) - 100).max() < 1


def test_planes_units_and_header_stay() -> None:
    """Uncertainty, mask and unit are those of the frame; a settled frame has the level in its header; inputs stay."""
    pixels = starry((100, 90), stars=5)
    ccd = CCDData(pixels.copy(), unit="electron", uncertainty=StdDevUncertainty(np.full(pixels.shape, 2.0)))
    ds = lazyccd.add_mask(lazyccd.from_ccddata(ccd), pixels > 300, "SAT")
    with raise_if_computes():
        out = lazyccd.subtract_sky(ds, box=32)
    assert out["data"].attrs["units"] == "electron"
    np.testing.assert_array_equal(out["uncertainty"].values, ds["uncertainty"].values)
    np.testing.assert_array_equal(out["mask"].values, ds["mask"].values)
    header = lazyccd.settle(out).ccd.header
    assert abs(header["SKYLEVEL"] - 200) < 1
    assert abs(header["SKYSIGMA"] - 5) < 0.5
    np.testing.assert_array_equal(ds["data"].values, pixels)


def test_one_level_for_the_whole_frame() -> None:
    """The constant is the median of the levels, and nothing else."""
    pixels = starry((256, 256)) + np.linspace(0, 50, 256)
    out = lazyccd.subtract_sky(CCDData(pixels, unit="adu"), "constant", box=32).data
    level = np.median(boxes_of(pixels, (32, 32))[..., 0])
    np.testing.assert_array_equal(out, pixels - level)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (63, 64), (65, 64), (129, 130)])
def test_frames_of_any_size(shape: tuple[int, int]) -> None:
    """Frames smaller than a box, and of one box and a bit."""
    pixels = np.random.default_rng(6).normal(50, 0.1, shape)
    out = lazyccd.subtract_sky(CCDData(pixels, unit="adu")).data
    assert out.shape == shape
    assert abs(out).max() < 1


def test_frames_without_a_good_pixel_stay() -> None:
    """All NaN, or all masked: there is no level; with a few good pixels it is theirs."""
    lost = CCDData(np.full((80, 80), np.nan), unit="adu")
    assert np.isnan(lazyccd.subtract_sky(lost).data).all()
    masked = CCDData(np.full((80, 80), 9.0), unit="adu", mask=np.ones((80, 80), bool))
    np.testing.assert_array_equal(lazyccd.subtract_sky(masked).data, masked.data)
    masked.mask[3, 5:20] = False
    np.testing.assert_array_equal(lazyccd.subtract_sky(masked).data, np.zeros((80, 80)))


@settings(max_examples=15)
@given(
    chunk=st.tuples(st.integers(40, 150), st.integers(40, 150)),
    box=st.sampled_from([(16, 16), (64, 64), (30, 50)]),
    method=st.sampled_from(["mesh", "constant"]),
    dtype=st.sampled_from(["f4", "f8"]),
)
def test_chunks_change_no_bit(chunk: tuple[int, int], box: tuple[int, int], method: Any, dtype: str) -> None:
    """Any chunks and any region give the bits of the whole."""
    pixels = starry((150, 170)).astype(dtype)
    pixels[40:60, 100:140] = np.nan
    ds = lazyccd.from_ccddata(CCDData(pixels, unit="adu"))
    whole = lazyccd.subtract_sky(ds, method, box)["data"].values
    assert whole.dtype == dtype
    np.testing.assert_array_equal(lazyccd.subtract_sky(ds.ccd.rechunk(chunk), method, box)["data"].values, whole)
    part = lazyccd.subtract_sky(ds.ccd.rechunk(chunk), method, box)["data"][11:97, 60:131].values
    np.testing.assert_array_equal(part, whole[11:97, 60:131])


def test_bad_arguments_are_refused() -> None:
    """Another method, and boxes that are none."""
    ccd = CCDData(np.ones((8, 8)), unit="adu")
    with pytest.raises(ParameterError, match="must be 'mesh' or 'constant'"):
        lazyccd.subtract_sky(ccd, "spline")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="box"):
        lazyccd.subtract_sky(ccd, box=0)
