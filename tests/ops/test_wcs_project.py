"""wcs_project: coordinates, kernels and masks against exact ones, reproject, simulated stars; bits for any chunks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reproject
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import pixel_to_pixel
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

import lazyccd
from lazyccd.errors import ArgumentTypeError, FrameError, ParameterError
from lazyccd.frame.core import resolve
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping
from lazyccd.frame.tree import make_tree
from lazyccd.kernels.resample.weights import AREA, KERNELS
from lazyccd.mask_planes import MaskSchema
from lazyccd.plan.chunks import asked_grid
from lazyccd.plan.lower import lower_image

Array = npt.NDArray[Any]
BAD, SAT, NO_DATA = (MaskSchema().bits(name) for name in ("BAD", "SAT", "NO_DATA"))
OUTLINE = np.array([(-0.5, -0.5), (79.5, -0.5), (-0.5, 99.5), (79.5, 99.5)]).T
PLANES: Any = {"data": "data", "uncertainty": "std", "mask": "mask"}


def tangent(
    shape: tuple[int, int],
    crval: tuple[float, float] = (150.0, 2.0),
    *,
    scale: float = 1e-4,
    angle: float = 0.0,
    flip: bool = False,
    kind: str = "TAN",
    sip: bool = False,
) -> WCS:
    """Return a WCS about the middle of an image; the angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{kind}{'-SIP' if sip else ''}", f"DEC--{kind}{'-SIP' if sip else ''}"]
    wcs.wcs.crval = crval
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]]) @ np.diag([-1 if flip else 1, 1])
    if sip:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 1], a[0, 3], b[0, 2], b[2, 1] = 3e-5, -2e-5, 1e-8, 4e-5, 2e-8
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def frame(data: Array, wcs: WCS, **planes: Any) -> Any:
    """Return a lazy frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about SIP without the suffix
        return lazyccd.from_ccddata(CCDData(data, unit="adu", wcs=wcs, **planes))


def noise(shape: tuple[int, int], seed: int = 0, dtype: str = "f4") -> Array:
    """Return noise about 100."""
    return np.random.default_rng(seed).normal(100, 10, shape).astype(dtype)


def full(shape: tuple[int, int], wcs: WCS, dtype: str = "f4", seed: int = 1) -> Any:
    """Return a frame with an uncertainty, a mask of some planes, and some NaN."""
    rng = np.random.default_rng(seed)
    data, sigma = noise(shape, seed, dtype), rng.uniform(1, 2, shape).astype(dtype)
    data[rng.random(shape) < 0.002] = np.nan
    ds = frame(data, wcs, uncertainty=StdDevUncertainty(sigma))
    ds = lazyccd.add_mask(ds, rng.random(shape) < 0.004, "SAT")
    return lazyccd.add_mask(ds, rng.random(shape) < 0.004, "INTERP")


@pytest.mark.parametrize("order", sorted((*KERNELS, AREA)))
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_whole_pixels_keep_their_bits(order: Any, dtype: str) -> None:
    """The image on its own WCS, moved by whole pixels, flipped and turned by 90 degrees: every bit, also beside NaN."""
    wcs = tangent((90, 70), sip=False)
    ds = full((90, 70), wcs, dtype)
    good = np.isfinite(ds.data.values) & ((ds.mask.values & MaskSchema().bad_bits) == 0)
    for dy, dx in ((0, 0), (3, -7), (-20, 11)):
        target = wcs.deepcopy()
        target.wcs.crpix = wcs.wcs.crpix + np.array([dx, dy])
        out = lazyccd.wcs_project(ds, target, order=order).compute()
        ours = out.data.values[max(dy, 0) : 90 + min(dy, 0), max(dx, 0) : 70 + min(dx, 0)]
        theirs = ds.data.values[max(-dy, 0) : 90 + min(-dy, 0), max(-dx, 0) : 70 + min(-dx, 0)]
        kept = good[max(-dy, 0) : 90 + min(-dy, 0), max(-dx, 0) : 70 + min(-dx, 0)]
        np.testing.assert_array_equal(ours[kept], theirs[kept])
        assert np.isnan(ours[~kept]).all()
        assert np.isfinite(out.data.values).sum() == kept.sum()
    for matrix in ([[0, 1], [-1, 0]], [[0, 1], [1, 0]], [[-1, 0], [0, 1]]):
        turned = wcs.deepcopy()
        turned.wcs.cd = wcs.wcs.cd @ np.array(matrix)
        turned.wcs.crpix = [45.5, 35.5]
        out = lazyccd.wcs_project(ds, turned, (70, 90), order=order).data.values
        ys, xs = np.indices((70, 90))
        x, y = (np.rint(v).astype(int) for v in pixel_to_pixel(turned, wcs, xs, ys))
        there = (x >= 0) & (x < 70) & (y >= 0) & (y < 90)
        assert there.sum() >= 4900
        expected = np.where(
            there, np.where(good, ds.data.values, np.nan)[np.where(there, y, 0), np.where(there, x, 0)], np.nan
        )
        np.testing.assert_array_equal(out, expected)


@given(
    scale=st.floats(0.1, 4),
    angle=st.floats(-180, 180),
    flip=st.booleans(),
    sip=st.booleans(),
    order=st.sampled_from(sorted((*KERNELS, AREA))),
    chunks=st.tuples(st.integers(9, 97), st.integers(9, 97)),
    before=st.tuples(st.integers(20, 150), st.integers(20, 150)),
    pixel=st.tuples(st.integers(0, 79), st.integers(0, 95)),
)
def test_chunks_change_no_bit(
    scale: float, angle: float, flip: bool, sip: bool, order: Any, chunks: Any, before: Any, pixel: Any
) -> None:
    """Data, uncertainty and mask for any chunks of the input and of the output, a chunk of one pixel too."""
    source = tangent((150, 130), sip=sip)
    target = tangent((80, 96), (150.002, 2.001), scale=1e-4 * scale, angle=angle, flip=flip)
    ds = full((150, 130), source)
    whole = lazyccd.wcs_project(ds, target, (80, 96), order=order).compute()
    cut = lazyccd.wcs_project(lazyccd.rechunk(ds, before), target, (80, 96), order=order)
    graphs = resolve(cut).graphs
    (y, x), grid = pixel, asked_grid((80, 96), chunks)
    alone = tuple(tuple(n for n in (k, 1, size - k - 1) if n) for k, size in ((y, 80), (x, 96)))
    for name, array in lower_image(_plan_of(cut), grid, PLANES, graphs).items():
        np.testing.assert_array_equal(array.compute(), whole[name].values)
    for name, array in lower_image(_plan_of(cut), alone, PLANES, graphs).items():
        np.testing.assert_array_equal(array[y, x].compute(), whole[name].values[y, x])


def _plan_of(ds: Any) -> Any:
    """Return the plan behind a boundary."""
    from lazyccd.plan.lower import read_label

    label = read_label(ds.data.data)
    assert label is not None
    return label.plan


@pytest.mark.parametrize("sip", [False, True])
@pytest.mark.parametrize("frame_name", ["fk5", "galactic"])
def test_coordinates_are_exact(sip: bool, frame_name: str) -> None:
    """The lattice gives the positions of astropy, to the tolerance of the lattice, in other celestial frames too."""
    source = tangent((700, 900), sip=sip)
    target = tangent((800, 800), (150.01, 2.01), angle=37, scale=1.3e-4)
    if frame_name == "galactic":
        target.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
        middle = SkyCoord(150.01, 2.01, unit="deg").galactic
        target.wcs.crval = [middle.l.deg, middle.b.deg]
        target.wcs.set()
    mapping = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), (700, 900))
    y, x = (v.ravel() for v in np.mgrid[0:800:37, 0:800:41].astype(float))
    expected_x, expected_y = pixel_to_pixel(target, source, x, y)
    got_y, got_x = mapping.exact()(y, x)
    np.testing.assert_allclose(got_y, expected_y, atol=2e-6)
    np.testing.assert_allclose(got_x, expected_x, atol=2e-6)
    from lazyccd.kernels.resample.lattice import position

    inside = (expected_x > -0.5) & (expected_x < 899.5) & (expected_y > -0.5) & (expected_y < 699.5)
    assert inside.any()
    for row, column, right_y, right_x in zip(
        *(v[inside].tolist() for v in (y, x, expected_y, expected_x)), strict=True
    ):
        found = position(mapping, int(row), int(column))
        assert found is not None
        assert abs(found[0] - right_y) < 1e-4
        assert abs(found[1] - right_x) < 1e-4


def test_a_frozen_wcs_is_the_same_to_the_last_bit() -> None:
    """Matrix, reference pixel and polynomials survive; to_header keeps 12 to 15 digits of them."""
    wcs = tangent((300, 200), (150.123456789012345, 2.1), scale=1.23456789012345e-4, angle=12.3456789, sip=True)
    again = FrozenWCS.of(wcs).make()
    np.testing.assert_array_equal(again.wcs.crpix, wcs.wcs.crpix)
    np.testing.assert_array_equal(again.wcs.crval, wcs.wcs.crval)
    np.testing.assert_array_equal(again.pixel_scale_matrix, wcs.pixel_scale_matrix)
    np.testing.assert_array_equal(again.sip.a, wcs.sip.a)
    y, x = np.mgrid[0:300:30, 0:200:30].astype(float).reshape(2, -1)
    for one, two in zip(again.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0), strict=True):
        np.testing.assert_array_equal(one, two)


def slow(ds: Any, target: WCS, shape: tuple[int, int], order: str, ratio: float) -> tuple[Array, Array]:
    """Return data and variance of a warp whose output pixels are no larger than the input's, without tables or lattice."""
    function = KERNELS[order].function
    data, variance = ds.data.values.astype(float), ds.uncertainty.values.astype(float) ** 2
    good = np.isfinite(data) & ((ds.mask.values & MaskSchema().bad_bits) == 0)
    ys, xs = np.indices(shape, float)
    exact = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(ds.ccd.wcs), data.shape).exact()
    py, px = (v.reshape(shape) for v in exact(ys.ravel(), xs.ravel()))
    out, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    for index in np.ndindex(shape):
        wy = function(np.arange(data.shape[0]) - py[index])
        wx = function(np.arange(data.shape[1]) - px[index])
        ny, nx = (np.arange(-12, n + 12) - p[index] for n, p in zip(data.shape, (py, px), strict=True))
        everything = np.abs(function(ny)).sum() * np.abs(function(nx)).sum()
        weights = np.outer(wy, wx) * good
        # with less, the division by what is left makes much of the rounding of positions
        if np.abs(weights).sum() < 0.75 * everything:
            continue
        out[index] = (weights * np.where(good, data, 0)).sum() / weights.sum() * ratio
        spread[index] = (weights**2 * np.where(good, variance, 0)).sum() / weights.sum() ** 2 * ratio**2
    return out, spread


@pytest.mark.parametrize("order", ["bilinear", "bicubic", "lanczos2", "lanczos3", "lanczos4"])
def test_sums_are_those_of_the_definition(order: Any) -> None:
    """Data and variance equal a slow sum over the whole image, with NaN, bad pixels and edges."""
    source = tangent((60, 50), sip=True)
    target = tangent((40, 44), (150.0013, 2.0007), scale=0.8e-4, angle=25)
    ds = full((60, 50), source, "f8")
    out = lazyccd.wcs_project(ds, target, (40, 44), order=order).compute()
    data, variance = slow(ds, target, (40, 44), order, 0.64)
    both = np.isfinite(data)
    assert both.sum() > 1000
    assert np.isfinite(out.data.values[both]).all()
    tolerance = 1e-3 if order == "bilinear" else 0.05
    np.testing.assert_allclose(out.data.values[both], data[both], atol=tolerance)
    np.testing.assert_allclose(
        out.uncertainty.values[both] ** 2, variance[both], rtol=1e-3 if order == "bilinear" else 0.02
    )
    np.testing.assert_array_equal((out.mask.values & NO_DATA) != 0, np.isnan(out.data.values))


def test_bilinear_is_that_of_reproject_and_ccdproc() -> None:
    """Inside of the image the default order gives the values of reproject_interp times the ratio of areas, as ccdproc does."""
    source, target = tangent((120, 140)), tangent((100, 150), (150.003, 2.002), scale=0.9e-4, angle=-71, flip=True)
    data = noise((120, 140), 3, "f8")
    out = lazyccd.wcs_project(frame(data, source), target, (100, 150)).compute()
    theirs = reproject.reproject_interp((data, source), target, shape_out=(100, 150), return_footprint=False) * 0.81
    inner = np.isfinite(theirs) & np.isfinite(out.data.values)
    ys, xs = np.indices((100, 150))
    x, y = pixel_to_pixel(target, source, xs, ys)
    inner &= (x > 0) & (x < 139) & (y > 0) & (y < 119)
    assert inner.sum() > 5000
    np.testing.assert_allclose(out.data.values[inner], theirs[inner], rtol=1e-7)
    # both have values half a pixel beyond the centres of the outermost pixels
    np.testing.assert_array_equal(np.isfinite(theirs), np.isfinite(out.data.values))


def stars(shape: tuple[int, int], places: Array, fwhm: float) -> Array:
    """Return the counts of Gaussian stars of flux 1, integrated over pixels."""
    sigma = fwhm / 2.3548
    image = np.zeros(shape)
    for y, x in places:
        edges = [(np.arange(n + 1) - 0.5 - p) / (sigma * np.sqrt(2)) for n, p in zip(shape, (y, x), strict=True)]
        image += np.outer(*(np.diff(erf(e)) / 2 for e in edges))
    return image


ANGLES = (0.3, 5, 11, 15, 26.57, 33, 45)


@pytest.mark.parametrize(
    ("fwhm", "scale", "angle", "tolerance"),
    [
        *[(2.0, 1.0, angle, 3e-4) for angle in ANGLES],
        *[(1.5, 1.0, angle, 1e-3) for angle in (11, 45)],
        *[(2.0, 1.5, angle, 1e-3) for angle in (5, 33)],
        *[(2.0, 3.0, angle, 1e-3) for angle in (5, 33)],
        *[pytest.param(2.5, 1.0, angle, 3e-4, marks=pytest.mark.slow) for angle in ANGLES],
        *[pytest.param(2.0, 0.5, angle, 3e-4, marks=pytest.mark.slow) for angle in ANGLES],
    ],
)
def test_stars_keep_flux_and_place(fwhm: float, scale: float, angle: float, tolerance: float) -> None:
    """Lanczos 3: flux of each star, and centroids to 0.002 input pixel."""
    rng = np.random.default_rng(5)
    size, step = (240, 30) if scale <= 1 else (360, 60)
    side, along = int(1.5 * size / scale), np.arange(step, size, float(step))
    places = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    places += rng.uniform(-0.5, 0.5, places.shape)
    source, target = tangent((size, size)), tangent((side, side), scale=1e-4 * scale, angle=angle)
    image = frame(stars((size, size), places, fwhm), source)
    out = lazyccd.wcs_project(image, target, (side, side), order="lanczos3")
    pixels = np.nan_to_num(out.data.values)
    x, y = pixel_to_pixel(source, target, places[:, 1], places[:, 0])
    reach = int(np.ceil(14 if scale <= 1 else 24 / scale))
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    found = []
    for at_y, at_x in zip(y, x, strict=True):
        j, i = round(at_y), round(at_x)
        cut = pixels[j - reach : j + reach + 1, i - reach : i + reach + 1]
        flux = cut.sum()
        found.append((flux - 1, (cut * ys).sum() / flux + j - at_y, (cut * xs).sum() / flux + i - at_x))
    errors = np.abs(found)
    assert errors[:, 0].max() < tolerance
    # moments of all light are those of a star whose image is resampled without error; no profile is assumed
    assert np.sqrt(np.mean(errors[:, 1:] ** 2)) < 0.002
    assert errors[:, 1:].max() < (0.002 if fwhm >= 2 and scale <= 1 else 0.004)


@pytest.mark.parametrize("order", ["bilinear", "bicubic", "lanczos2", "lanczos3", "lanczos4"])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4, 2.3])
def test_inclined_planes_are_exact(order: Any, scale: float) -> None:
    """A plane stays one, also where the kernel is widened, to the rounding of tabulated positions."""
    source, target = tangent((60, 60)), tangent((50, 50), scale=1e-4 * scale, angle=23)
    y, x = np.mgrid[:60, :60]
    ds = frame(100 + 0.5 * y - 0.25 * x, source)
    out = lazyccd.wcs_project(ds, target, (50, 50), order=order).compute()
    at_x, at_y = pixel_to_pixel(target, source, *np.mgrid[:50, :50][::-1])
    inside = (np.minimum(at_x, at_y) > 9 * scale) & (np.maximum(at_x, at_y) < 59 - 9 * scale)
    assert inside.sum() > 50
    expected = (100 + 0.5 * at_y - 0.25 * at_x)[inside] * scale**2
    np.testing.assert_allclose(out.data.values[inside], expected, atol=scale**2 * 0.75 / 8192 * 1.01)


def test_pulls_are_one() -> None:
    """The error of each pixel is as large as its uncertainty says."""
    source, target = tangent((500, 500)), tangent((400, 400), angle=10, scale=1.1e-4)
    rng = np.random.default_rng(11)
    sigma = rng.uniform(1, 3, (500, 500))
    pixels = rng.normal(0, 1, (500, 500)) * sigma
    out = lazyccd.wcs_project(
        frame(pixels, source, uncertainty=StdDevUncertainty(sigma)), target, (400, 400), order="lanczos3"
    ).compute()
    pulls = (out.data.values / out.uncertainty.values)[np.isfinite(out.data.values)]
    assert abs(pulls.std() - 1) < 0.02


@pytest.mark.parametrize("order", ["bilinear", "bicubic", "lanczos3"])
def test_one_bad_pixel_reaches_no_further_than_the_kernel(order: Any) -> None:
    """A NaN, a saturated pixel, a masked column: all pixels whose kernel does not touch them keep their bits."""
    source, target = tangent((300, 300)), tangent((300, 300), angle=20)
    data = noise((300, 300), 8)
    clean = lazyccd.wcs_project(frame(data, source), target, order=order).compute()
    ys, xs = np.indices((300, 300))
    x, y = pixel_to_pixel(target, source, xs, ys)
    reach = KERNELS[order].reach + 0.01
    broken = data.copy()
    broken[150, 140] = np.nan
    dirty = lazyccd.wcs_project(frame(broken, source), target, order=order).compute()
    far = (np.abs(y - 150) > reach) | (np.abs(x - 140) > reach)
    np.testing.assert_array_equal(dirty.data.values[far], clean.data.values[far])
    np.testing.assert_array_equal(dirty.mask.values[far], clean.mask.values[far])
    lost = np.isnan(dirty.data.values) & ~np.isnan(clean.data.values)
    assert lost.sum() <= 4
    # the weights of Lanczos 3 are spread so far that one pixel may hold less than half of them at any place
    assert lost.any() or order == "lanczos3"
    assert (dirty.mask.values[lost] & NO_DATA).all()
    column = np.zeros((300, 300), bool)
    column[:, 77] = True
    flagged = lazyccd.add_mask(frame(data, source), column, "SAT")
    dirty = lazyccd.wcs_project(flagged, target, order=order).compute()
    far = np.abs(x - 77) > reach
    np.testing.assert_array_equal(dirty.data.values[far], clean.data.values[far])
    hit = (np.abs(x - 77) < 0.3) & (y > 20) & (y < 280)
    assert (dirty.mask.values[hit] & SAT).all()
    assert not (dirty.mask.values[far] & SAT).any()


def test_planes_that_are_not_bad_are_carried_and_cost_nothing() -> None:
    """INTERP is carried where it holds more than a tenth of the weight; the data are those without it."""
    source, target = tangent((100, 100)), tangent((100, 100), angle=3)
    data = noise((100, 100), 2)
    flagged = np.zeros((100, 100), bool)
    flagged[40:60, 50] = True
    plain = lazyccd.wcs_project(frame(data, source), target, order="lanczos3").compute()
    carried = lazyccd.wcs_project(
        lazyccd.add_mask(frame(data, source), flagged, "INTERP"), target, order="lanczos3"
    ).compute()
    np.testing.assert_array_equal(carried.data.values, plain.data.values)
    number = ((carried.mask.values & MaskSchema().bits("INTERP")) != 0).sum()
    assert 20 <= number <= 80


@pytest.mark.parametrize(
    ("source", "target"),
    [
        # pole inside, pole at the centre, south pole; output in longitude and latitude
        (tangent((200, 200), (30.0, 84.0), scale=0.1), tangent((180, 360), (180.0, 0.0), scale=1.0, kind="CAR")),
        (tangent((200, 200), (0.0, 90.0), scale=0.1), tangent((180, 360), (180.0, 0.0), scale=1.0, kind="CAR")),
        (tangent((200, 200), (77.0, -88.0), scale=0.1), tangent((180, 360), (10.0, 0.0), scale=1.0, kind="CAR")),
        # on the line where right ascension begins anew, of frame and of grid
        (tangent((200, 200), (0.0, 10.0), scale=0.05), tangent((180, 360), (180.0, 0.0), scale=1.0, kind="CAR")),
        (tangent((200, 200), (359.9, -5.0), scale=0.01), tangent((250, 250), (0.1, -5.0), scale=0.01)),
        # all of the sky as the input
        (tangent((181, 360), (180.0, 0.0), scale=1.0, kind="CAR"), tangent((200, 200), (1.0, 85.0), scale=0.1)),
        (tangent((181, 360), (0.0, 0.0), scale=1.0, kind="CAR"), tangent((200, 200), (180.0, 10.0), scale=0.1)),
    ],
)
def test_poles_and_the_wrap_of_right_ascension(source: WCS, target: WCS) -> None:
    """What is covered is what exact coordinates of each pixel say, and the values are those of the sky."""
    shape = tuple(int(2 * (n - 0.5)) for n in source.wcs.crpix[::-1])
    size = tuple(int(2 * (n - 0.5)) for n in target.wcs.crpix[::-1])
    ys, xs = np.indices(shape)
    longitude, latitude = source.all_pix2world(xs, ys, 0)
    sky = np.cos(np.deg2rad(latitude)) * np.cos(np.deg2rad(longitude - 20)) + 2
    sky = np.where(np.isfinite(sky), sky, np.nan)
    out = lazyccd.wcs_project(frame(sky, source), target, size, order="bilinear").compute().data.values
    ys, xs = np.indices(size)
    longitude, latitude = target.all_pix2world(xs, ys, 0)
    x, y = source.all_world2pix(longitude, latitude, 0)
    expected = np.cos(np.deg2rad(latitude)) * np.cos(np.deg2rad(longitude - 20)) + 2
    ratio = np.linalg.det(target.pixel_scale_matrix) / np.linalg.det(source.pixel_scale_matrix)
    if source.wcs.ctype[0].endswith("CAR"):
        x = (x + 0.5) % 360 - 0.5
    inside = (x > 0.01) & (x < shape[1] - 1.01) & (y > 0.01) & (y < shape[0] - 1.01) & np.isfinite(x)
    assert inside.sum() > 50
    assert np.isfinite(out[inside]).all()
    outside = ~((x > -0.51) & (x < shape[1] - 0.49) & (y > -0.51) & (y < shape[0] - 0.49))
    assert np.isnan(out[outside]).all()
    np.testing.assert_allclose(out[inside] / abs(ratio), expected[inside], atol=0.01)


def test_union_holds_the_whole_image() -> None:
    """The grid is as large as the image on it, and each pixel has the place on the sky that it has there."""
    source, target = tangent((100, 130), (150.02, 2.01)), tangent((10, 10), angle=30, scale=2e-4)
    ds = frame(noise((100, 130)), source)
    out = lazyccd.wcs_project(ds, target, "union")
    corners = [(-0.5, -0.5), (129.5, -0.5), (-0.5, 99.5), (129.5, 99.5)]
    x, y = pixel_to_pixel(source, out.ccd.wcs, *np.array(corners).T)
    assert abs(x.min() + 0.5) < 1
    assert abs(y.min() + 0.5) < 1
    assert abs(x.max() - out.sizes["x"] + 0.5) < 1
    assert abs(y.max() - out.sizes["y"] + 0.5) < 1
    # moved by whole pixels of the target
    np.testing.assert_allclose(np.diff(out.ccd.wcs.wcs.crpix - target.wcs.crpix, axis=0) % 1, 0, atol=1e-9)
    same = lazyccd.wcs_project(ds, source, "union")
    assert same.ccd.wcs.wcs.compare(ds.ccd.wcs.wcs, tolerance=1e-9)
    np.testing.assert_array_equal(same.data.values, ds.data.values)


def test_it_is_lazy_and_reads_what_lies_under_a_chunk() -> None:
    """Nothing is computed before, and a corner of the output needs a corner of the input."""
    ds = frame(noise((2000, 2000)), tangent((2000, 2000)))
    with lazyccd.testing.raise_if_computes():
        out = lazyccd.wcs_project(lazyccd.rechunk(ds, 500), tangent((2000, 2000), angle=5), order="lanczos3")
    step = _plan_of(out)
    region = step.sources[0].footprint.region(lazyccd.sections.Region(0, 256, 1600, 2000), (2000, 2000))
    assert region.size < 700 * 600


def test_the_header_has_the_sky_of_the_target() -> None:
    """WCS cards are replaced, sections of the detector are gone, everything else is kept."""
    source, target = tangent((50, 60)), tangent((40, 30), scale=2e-4)
    ds = frame(noise((50, 60)), source)
    ds = lazyccd.with_header(ds, {"OBJECT": "M 31", "DATASEC": "[1:60,1:50]", "GAIN": 1.5})
    out = lazyccd.wcs_project(ds, target, (40, 30))
    header = out.ccd.header
    assert header["OBJECT"] == "M 31"
    assert header["GAIN"] == 1.5
    assert "DATASEC" not in header
    assert (header["NAXIS1"], header["NAXIS2"]) == (30, 40)
    assert out.ccd.wcs.wcs.compare(target.wcs, tolerance=1e-12)


def test_results_survive_files(tmp_path: Any) -> None:
    """A projected frame is written and read with its WCS and pixels."""
    ds = full((80, 80), tangent((80, 80), sip=True))
    out = lazyccd.wcs_project(ds, tangent((70, 90), angle=8), (70, 90), order="lanczos3")
    expected = out.compute()
    out.ccd.to_fits(tmp_path / "a.fits")
    again = lazyccd.open_fits(tmp_path / "a.fits").compute()
    np.testing.assert_array_equal(again.data.values, expected.data.values)
    out.ccd.to_zarr(tmp_path / "a.zarr")
    stored = lazyccd.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stored.data.values, expected.data.values)
    np.testing.assert_allclose(stored.ccd.wcs.wcs.crval, [150, 2])


def test_bad_input_is_refused_by_name() -> None:
    """No WCS, no celestial target, absurd shapes and orders, an image that lies elsewhere."""
    ds = frame(noise((20, 20)), tangent((20, 20)))
    bare = lazyccd.from_ccddata(CCDData(np.ones((20, 20)), unit="adu"))
    with pytest.raises(FrameError, match="no celestial WCS"):
        lazyccd.wcs_project(bare, tangent((20, 20)))
    with pytest.raises(ArgumentTypeError, match="celestial"):
        lazyccd.wcs_project(ds, WCS(naxis=2))
    with pytest.raises(ArgumentTypeError, match="celestial"):
        lazyccd.wcs_project(ds, "TAN")
    for shape in ((0, 5), (3,), (2.5, 3), "all"):
        with pytest.raises(ParameterError, match="target_shape"):
            lazyccd.wcs_project(ds, tangent((20, 20)), shape)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="scale of target_wcs"):
        lazyccd.wcs_project(ds, tangent((20, 20)), (10**7, 10**7))
    with pytest.raises(ParameterError, match="order 'biquadratic' must be one of"):
        lazyccd.wcs_project(ds, tangent((20, 20)), order="biquadratic")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="nowhere on the grid"):
        lazyccd.wcs_project(ds, tangent((20, 20), (330.0, -2.0)), "union")


def test_scales_in_arc_seconds_are_named() -> None:
    """Of the frame, of the target, of pixel_scale; and grids that would have far too many pixels, with the likely cause."""
    ds = frame(noise((2000, 20)), tangent((2000, 20), scale=0.2 / 3600))
    absurd = frame(noise((2000, 20)), tangent((2000, 20), scale=0.2))
    with pytest.raises(FrameError, match=r"400 degrees wide, since its pixels have 0.2 degrees.*CUNIT1"):
        lazyccd.wcs_project(absurd, tangent((20, 20)))
    with pytest.raises(FrameError, match="CUNIT1"):
        lazyccd.find_optimal_grid([ds, absurd])
    with pytest.raises(ParameterError, match=r"target_wcs has pixels of 0.2 degrees.*CUNIT1"):
        lazyccd.wcs_project(ds, tangent((2000, 20), scale=0.2))
    with pytest.raises(ParameterError, match=r"pixel_scale 0.2 is in degrees, 3600 times.*0.2 \* u.arcsec"):
        lazyccd.find_optimal_grid(ds, pixel_scale=0.2)
    assert lazyccd.find_optimal_grid(ds, pixel_scale=0.2 * u.arcsec)[1] == (2000, 20)
    with pytest.raises(ParameterError, match=r"far apart on the sky.*sky_cells"):
        lazyccd.find_optimal_grid([ds, frame(noise((20, 20)), tangent((20, 20), (220.0, -30.0)))])
    with pytest.raises(ParameterError, match=r"grid would have .* pixels of 3.6e-06 arcsec.*larger pixel_scale"):
        lazyccd.find_optimal_grid(ds, pixel_scale=1e-9)


def test_messages_name_the_file(tmp_path: Any) -> None:
    """A file without WCS among several is found."""
    bare = lazyccd.from_ccddata(CCDData(np.ones((20, 20)), unit="adu"))
    for name, ds in (("good.fits", frame(noise((20, 20)), tangent((20, 20)))), ("bare.fits", bare)):
        ds.ccd.to_fits(tmp_path / name)
    with pytest.raises(FrameError, match=r"bare\.fits has no celestial WCS"):
        lazyccd.find_optimal_grid([tmp_path / "good.fits", tmp_path / "bare.fits"])


def test_frames_without_a_good_pixel_give_no_data() -> None:
    """All NaN, or all bad: no warning, no error, no value; and they have their place on a grid."""
    wcs = tangent((30, 30))
    for ds in (
        frame(np.full((30, 30), np.nan, "f4"), wcs),
        lazyccd.add_mask(frame(noise((30, 30)), wcs), np.ones((30, 30), bool), "BAD"),
    ):
        for order in ("nearest", "bilinear", "lanczos3"):
            out = lazyccd.wcs_project(ds, tangent((30, 30), angle=9), order=order).compute()  # type: ignore[arg-type]
            assert np.isnan(out.data.values).all()
            assert (out.mask.values & NO_DATA).all()
        assert lazyccd.find_optimal_grid(ds)[1] == (30, 30)


@pytest.mark.parametrize(
    ("center", "expected"),
    [
        # across the seam of a grid of 360 degrees; a pole inside, between samples
        ((180.0, 10.0), (21, 21)),
        ((33.0, 88.7), (None, 360)),
        ((33.0, -89.9), (None, 360)),
    ],
)
def test_union_on_a_grid_with_seam_and_poles(center: tuple[float, float], expected: tuple[int | None, int]) -> None:
    """It holds all of the image: as many pixels as on a grid of the whole sky."""
    ds = frame(noise((200, 200)), tangent((200, 200), center, scale=0.1))
    sky = tangent((180, 360), (0.0, 0.0), scale=1.0, kind="CAR")
    out = lazyccd.wcs_project(ds, sky, "union", order="nearest")
    everywhere = lazyccd.wcs_project(ds, sky, (180, 360), order="nearest")
    assert np.isfinite(out.data.values).sum() == np.isfinite(everywhere.data.values).sum()
    assert expected[0] is None or abs(out.sizes["y"] - expected[0]) <= 1
    assert abs(out.sizes["x"] - expected[1]) <= 1


def test_an_image_that_lies_elsewhere_gives_no_data() -> None:
    """No input pixel is read, and all are NaN and NO_DATA."""
    ds = frame(noise((20, 20)), tangent((20, 20)))
    out = lazyccd.wcs_project(ds, tangent((20, 20), (160.0, 2.0))).compute()
    assert np.isnan(out.data.values).all()
    assert (out.mask.values == NO_DATA).all()


def test_a_ccddata_gets_the_wcs_of_the_target() -> None:
    """CCDData in, CCDData out, computed, with the pixels of the frame and without its old WCS."""
    source, target = tangent((60, 50)), tangent((40, 30), angle=5, scale=2e-4)
    ccd = CCDData(noise((60, 50)), unit="adu", wcs=source)
    out = lazyccd.wcs_project(ccd, target, (40, 30))
    assert isinstance(out, CCDData)
    assert out.wcs.wcs.compare(target.wcs)
    lazy = lazyccd.wcs_project(lazyccd.from_ccddata(ccd), target, (40, 30))
    np.testing.assert_array_equal(out.data, lazy.data.values)
    np.testing.assert_array_equal(out.mask, np.isnan(out.data))
    # what is called afterwards keeps its own
    assert lazyccd.trim_image(ccd, "[1:20,1:20]").wcs.wcs.compare(source.wcs)


@pytest.mark.parametrize("center", [(0.0, 10.0), (123.0, 89.95), (200.0, -90.0), (359.99, 0.0)])
def test_a_grid_holds_all_frames(center: tuple[float, float]) -> None:
    """Frames about any place of the sky, poles and the begin of right ascension too, lie on the grid, and fill it to its edge."""
    rng = np.random.default_rng(3)
    middle = SkyCoord(*center, unit="deg")
    frames = []
    for angle, separation in zip(rng.uniform(0, 360, 6), rng.uniform(0, 0.3, 6), strict=True):
        place = middle.directional_offset_by(angle * u.deg, separation * u.deg)
        wcs = tangent((100, 80), (place.ra.deg, place.dec.deg), scale=1e-3, angle=angle)
        frames.append(frame(np.ones((100, 80)), wcs))
    grid, (rows, columns) = lazyccd.find_optimal_grid(frames)
    x, y = (np.concatenate(v) for v in zip(*(pixel_to_pixel(f.ccd.wcs, grid, *OUTLINE) for f in frames), strict=True))
    assert -0.51 < x.min() < 0.5
    assert -0.51 < y.min() < 0.5
    assert columns - 1.5 < x.max() < columns - 0.49
    assert rows - 1.5 < y.max() < rows - 0.49
    assert abs(np.sqrt(np.linalg.det(grid.pixel_scale_matrix) * -1) - 1e-3) < 1e-9
    tree = make_tree({f"CCD{i}": one for i, one in enumerate(frames)}, {})
    again, shape = lazyccd.find_optimal_grid([tree])
    assert again.wcs.compare(grid.wcs)
    assert shape == (rows, columns)


def test_grids_of_nothing_and_of_everything_are_refused() -> None:
    """No frame, frames on opposite sides of the sky, a scale that is none."""
    opposite = [frame(np.ones((10, 10)), tangent((10, 10), place)) for place in ((10.0, 20.0), (190.0, -20.0))]
    with pytest.raises(ParameterError, match="all around the sky"):
        lazyccd.find_optimal_grid(opposite)
    with pytest.raises(ParameterError, match="no frame"):
        lazyccd.find_optimal_grid([])
    with pytest.raises(ParameterError, match="pixel_scale"):
        lazyccd.find_optimal_grid(opposite[:1], pixel_scale=-1)


def test_a_grid_of_one_frame_and_of_a_scale_with_a_unit() -> None:
    """One frame needs no list; a scale is an angle or degrees, and what is no scale or projection is named."""
    one = frame(np.ones((10, 10)), tangent((10, 10), (10.0, 20.0), scale=0.01))
    grid, shape = lazyccd.find_optimal_grid(one, pixel_scale=18 * u.arcsec)
    again, other = lazyccd.find_optimal_grid([one], pixel_scale=0.005)
    assert grid.wcs.compare(again.wcs)
    assert shape == other
    for scale in ("a", 3 * u.m, 0 * u.deg):
        with pytest.raises(ParameterError, match="pixel_scale"):
            lazyccd.find_optimal_grid(one, pixel_scale=scale)  # type: ignore[arg-type]  # what users may give
    with pytest.raises(ParameterError, match="projection 'XYZ'"):
        lazyccd.find_optimal_grid(one, projection="XYZ")


def test_data_alone_are_those_beside_the_variance() -> None:
    """A pixel whose variance is unknown has no weight, whichever variables are computed."""
    sigma = np.ones((10, 10))
    sigma[4, 4] = np.nan
    ccd = CCDData(np.arange(100.0).reshape(10, 10), unit="adu", uncertainty=StdDevUncertainty(sigma))
    ccd.wcs = tangent((10, 10), (10.0, 20.0))
    target = ccd.wcs.deepcopy()
    target.wcs.crpix += 0.4
    warped = lazyccd.wcs_project(lazyccd.from_ccddata(ccd), target)
    whole = warped.compute()
    for name in ("data", "uncertainty", "mask"):
        np.testing.assert_array_equal(warped[name].values, whole[name].values)


def all_around(first: float, scale: float, *, flipped: bool = False) -> WCS:
    """Return the WCS of an image of 360 degrees in longitude and latitude that begins at a longitude."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---CAR", "DEC--CAR"]
    wcs.wcs.crval = [(first + 180) % 360, 0]
    wcs.wcs.cdelt = [-scale if flipped else scale, scale]
    wcs.wcs.crpix = [180 / scale + 0.5, 90 / scale + 0.5]
    return wcs


@pytest.mark.parametrize("order", ["nearest", "bilinear", "bicubic", "lanczos3", "area"])
@pytest.mark.parametrize("flipped", [False, True])
def test_an_image_of_360_degrees_is_read_across_its_seam(order: Any, flipped: bool) -> None:
    """It gives what the same image gives that has the seam elsewhere, to the bit of its coordinates."""
    data = noise((180, 360)) + 5
    target = tangent((90, 100), (0.0, 12.0), scale=0.5 if order != "lanczos3" else 1.7)
    uncertainty = StdDevUncertainty(np.sqrt(np.abs(data)))
    found = []
    for first in (0.0, 180.0):
        turned = np.roll(data, 180 if first else 0, axis=1)
        ccd = CCDData(
            turned,
            unit="adu",
            wcs=all_around(first, 1.0, flipped=flipped),
            uncertainty=StdDevUncertainty(np.roll(uncertainty.array, 180 if first else 0, axis=1)),
            mask=np.roll(np.arange(data.size).reshape(data.shape) % 97 == 0, 180 if first else 0, axis=1),
        )
        found.append(lazyccd.wcs_project(lazyccd.from_ccddata(ccd), target, (90, 100), order=order).compute())
    one, other = found
    assert np.isfinite(other["data"].values).mean() > 0.95
    np.testing.assert_array_equal(np.isnan(one["data"].values), np.isnan(other["data"].values))
    for name in ("data", "uncertainty"):
        np.testing.assert_allclose(one[name].values, other[name].values, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(one["mask"].values, other["mask"].values)


@pytest.mark.parametrize("order", ["lanczos3", "area"])
def test_the_seam_shows_in_no_chunk_of_a_coadd(order: Any) -> None:
    """All pixels of a flat sky are covered and flat, whatever the chunks, and the pixel of the frame is told."""
    target = tangent((120, 130), (0.0, 0.0), scale=0.25)
    ones = np.ones((180, 360))
    mosaic, other = (
        lazyccd.coadd([frame(ones, all_around(first, 1.0))], target, (120, 130), order=order, reject=None)
        for first in (0.0, 180.0)
    )
    values = mosaic["data"].values
    np.testing.assert_allclose(values, other["data"].values, rtol=5e-4)
    np.testing.assert_allclose(values[60, 65], 1 / 16, rtol=1e-3)
    part = mosaic.ccd.rechunk((31, 17))
    np.testing.assert_array_equal(part["data"].values, values)
    table = mosaic.ccd.frames_at((60, 65))
    assert table["x"][0] in {0, 359}
