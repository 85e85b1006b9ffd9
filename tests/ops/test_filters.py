"""Filters with a moving box against scipy and ccdproc, for any chunks; bad pixels found, grown and filled."""

from __future__ import annotations

import warnings
from typing import Any

import ccdproc
import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import lazyccd
from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.mask_planes import MaskSchema

Array = npt.NDArray[Any]
CR, INTERP, SAT, BAD = (MaskSchema().bits(name) for name in ("CR", "INTERP", "SAT", "BAD"))

shapes = st.tuples(st.integers(1, 60), st.integers(1, 60))
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def noise(shape: tuple[int, int], seed: int = 0, dtype: str = "f4") -> Array:
    """Return normal noise, rounded so that some pixels are equal, with outliers."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(1.0, 0.01, shape).round(3)
    pixels[rng.random(shape) < 0.03] = 0.5
    return pixels.astype(dtype)


def frame(pixels: Array, chunk: Any = 4096, **more: Any) -> Any:
    """Return a lazy frame."""
    return lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="adu", **more)), chunk)


@given(shape=shapes, chunk=sizes, size=sizes, seed=st.integers(0, 99), dtype=st.sampled_from(["f4", "f8"]))
def test_the_median_filter_of_scipy(
    shape: tuple[int, int], chunk: tuple[int, int], size: tuple[int, int], seed: int, dtype: str
) -> None:
    """Any box, even ones and those larger than the image, and any chunks, smaller than the box too."""
    pixels = noise(shape, seed, dtype)
    ours = lazyccd.median_filter(frame(pixels, (chunk[0] + 4, chunk[1] + 4)), size)
    np.testing.assert_array_equal(ours["data"].values, ndimage.median_filter(pixels, size))


@pytest.mark.parametrize("size", [21, (3, 140), 31])
def test_large_boxes(size: Any) -> None:
    """Boxes of more than 330 pixels go through a sliding histogram, with the same numbers."""
    pixels = noise((150, 170), 3)
    ours = lazyccd.median_filter(frame(pixels, (61, 170)), size)
    np.testing.assert_array_equal(ours["data"].values, ndimage.median_filter(pixels, size))


def test_nan_takes_no_part_in_a_median() -> None:
    """Among n known pixels, element n // 2 counts; a box that knows nothing gives NaN."""
    pixels = noise((30, 30)).astype("f8")
    pixels[5:12, 5:14] = np.nan
    pixels[20, 20] = np.nan
    ours = lazyccd.median_filter(frame(pixels, 11), 5)["data"].values
    padded = np.pad(pixels, 2, mode="symmetric")
    for y in range(30):
        for x in range(30):
            box = np.sort(padded[y : y + 5, x : x + 5].ravel())
            known = box[~np.isnan(box)]
            expected = known[known.size // 2] if known.size else np.nan
            assert ours[y, x] == expected or np.isnan([ours[y, x], expected]).all()
    assert np.isnan(ours[8, 9])


def test_a_filtered_frame_keeps_mask_and_uncertainty() -> None:
    """Both stay as they were; a CCDData gives a CCDData, an array an array."""
    pixels = noise((20, 20))
    mask = pixels < 0.6
    ccd = CCDData(pixels, unit="adu", mask=mask, uncertainty=StdDevUncertainty(pixels * 0 + 2))
    ours = lazyccd.median_filter(ccd, 3)
    np.testing.assert_array_equal(ours.mask, mask)
    assert (ours.uncertainty.array == 2).all()
    np.testing.assert_array_equal(lazyccd.median_filter(pixels, 3), ccdproc.median_filter(pixels, 3))


@given(
    shape=shapes,
    chunk=sizes,
    boxes=st.tuples(st.integers(1, 11), st.integers(0, 6), st.integers(0, 9)),
    thresh=st.sampled_from([1.0, 5.0]),
    seed=st.integers(0, 99),
)
def test_the_cosmic_rays_of_ccdproc(
    shape: tuple[int, int], chunk: tuple[int, int], boxes: tuple[int, int, int], thresh: float, seed: int
) -> None:
    """cosmicray_median with an error as number, array and uncertainty."""
    pixels = 2 - noise(shape, seed, "f8")
    error = np.full(shape, 0.012) + np.arange(shape[1]) * 1e-4
    named = dict(zip(("mbox", "gbox", "rbox"), boxes, strict=True)) | {"thresh": thresh}
    cut = (chunk[0] + 4, chunk[1] + 4)
    for given_error, ds in (
        (0.012, frame(pixels, cut)),
        (error, frame(pixels, cut)),
        (None, frame(pixels, cut, uncertainty=StdDevUncertainty(error))),
    ):
        ours = lazyccd.cosmicray_median(ds, error_image=given_error, **named).compute()
        expected = ccdproc.cosmicray_median(pixels, error_image=error if given_error is None else given_error, **named)
        if given_error is None and not np.array_equal(np.sqrt(error**2), error):
            expected = ccdproc.cosmicray_median(pixels, error_image=np.sqrt(error**2), **named)
        np.testing.assert_array_equal((ours["mask"].values & CR) != 0, expected[1])
        np.testing.assert_array_equal(ours["data"].values, expected[0])
        replaced = INTERP if boxes[2] else 0
        np.testing.assert_array_equal((ours["mask"].values & INTERP) != 0, expected[1] & bool(replaced))


def test_cosmic_rays_by_median_of_arrays_and_their_uncertainty() -> None:
    """An array is measured against its own standard deviation; replaced pixels get the largest variance of their box."""
    pixels = 2 - noise((40, 40), 1, "f8")
    mine, theirs = (lib.cosmicray_median(pixels, rbox=5) for lib in (lazyccd, ccdproc))
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_array_equal(mine[1], theirs[1])
    assert theirs[1].any()
    sigma = np.full(pixels.shape, 0.01)
    sigma[:, 20:] = 0.02
    ds = frame(pixels, 17, uncertainty=StdDevUncertainty(sigma))
    ours = lazyccd.cosmicray_median(ds, rbox=5).compute()
    rays = (ours["mask"].values & CR) != 0
    largest = ndimage.maximum_filter(sigma, 5)
    np.testing.assert_allclose(ours["uncertainty"].values, np.where(rays, largest, sigma), rtol=1e-12)


CCDMASK: dict[str, Any] = {
    "findbadcolumns": st.booleans(),
    "byblocks": st.booleans(),
    "ncmed": st.sampled_from([3, 7]),
    "nlmed": st.sampled_from([4, 7]),
    "ncsig": st.sampled_from([5, 15]),
    "nlsig": st.sampled_from([9, 15]),
    "lsigma": st.sampled_from([3.0, 9.0]),
    "hsigma": st.sampled_from([4.0, 9.0]),
    "ngood": st.integers(0, 6),
}


@given(
    shape=st.tuples(st.integers(3, 70), st.integers(3, 70)),
    chunk=sizes,
    options=st.fixed_dictionaries({}, optional=CCDMASK),
    seed=st.integers(0, 99),
)
def test_the_bad_pixels_of_ccdproc(
    shape: tuple[int, int], chunk: tuple[int, int], options: dict[str, Any], seed: int
) -> None:
    """All parameters, in any chunks: by the box about each pixel and by blocks, with and without columns."""
    pixels = noise(shape, seed, "f8")
    pixels[shape[0] // 3 : shape[0] // 2, shape[1] // 2] *= 0.9
    ours = lazyccd.ccdmask(frame(pixels, (chunk[0] + 6, chunk[1] + 6)), **options)
    if options.get("ngood", 5) >= shape[0] - 1:  # ccdproc indexes beyond the image
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = ccdproc.ccdmask(CCDData(pixels, unit="adu"), **options)
    assert ours.dtype == bool
    np.testing.assert_array_equal(ours.values, expected)


def test_pixels_that_are_not_finite_are_bad() -> None:
    """Ccdproc loses them by blocks; here they stay bad, and their neighbours are judged without them."""
    pixels = noise((60, 60), 2, "f8")
    clean = lazyccd.ccdmask(frame(pixels)).values
    pixels[30, 30], pixels[10, 50] = np.nan, np.inf
    for options in ({}, {"byblocks": True}, {"findbadcolumns": True}):
        ours = lazyccd.ccdmask(frame(pixels, 23), **options).values
        assert ours[30, 30]
        assert ours[10, 50]
    assert (lazyccd.ccdmask(frame(pixels)).values ^ clean).sum() <= 4


def test_a_mask_of_bad_pixels_goes_into_a_frame() -> None:
    """The way that users go: find, put in, as page and frame."""
    ds = frame(noise((50, 50)), 20)
    flagged = lazyccd.add_mask(ds, lazyccd.ccdmask(ds))
    assert ((flagged["mask"].values & BAD) != 0).sum() == lazyccd.ccdmask(ds).values.sum() > 30
    ccd = CCDData(noise((50, 50)), unit="adu")
    ccd.mask = lazyccd.ccdmask(ccd)
    assert ccd.mask.dtype == bool


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), chunk=sizes, size=st.integers(1, 9))
def test_deviations_of_the_background(shape: tuple[int, int], chunk: tuple[int, int], size: int) -> None:
    """The filter is ccdproc's; boxes are numpy's, side by side (ccdproc leaves out the last row and column)."""
    pixels = noise(shape, 5, "f8")
    ds = frame(pixels, (chunk[0] + 3, chunk[1] + 3))
    filtered = lazyccd.background_deviation_filter(ds, size).values
    np.testing.assert_allclose(filtered, ccdproc.background_deviation_filter(pixels, size), rtol=1e-14)
    boxes = lazyccd.background_deviation_box(ds, size).values
    for y in range(0, shape[0], size):
        for x in range(0, shape[1], size):
            box = (slice(y, y + size), slice(x, x + size))
            np.testing.assert_allclose(boxes[box], ccdproc.sigma_func(pixels[box]), rtol=1e-14)


def test_boxes_of_ccdproc() -> None:
    """Inside of the image, odd boxes are ccdproc's."""
    pixels = noise((40, 45), 5, "f8")
    ours, theirs = (lib.background_deviation_box(pixels, 5) for lib in (lazyccd, ccdproc))
    np.testing.assert_allclose(ours[:35, :40], theirs[:35, :40], rtol=1e-14)


@given(shape=shapes, chunk=sizes, radius=st.sampled_from([0.0, 1.0, 1.5, 3.0, 7.2]), seed=st.integers(0, 99))
def test_masks_grow_by_a_disc(shape: tuple[int, int], chunk: tuple[int, int], radius: float, seed: int) -> None:
    """Each plane grows by itself, as scipy's dilation with a disc."""
    rng = np.random.default_rng(seed)
    bits = (rng.random(shape) < 0.03) * BAD + (rng.random(shape) < 0.02) * SAT + (rng.random(shape) < 0.1) * CR
    ds = frame(noise(shape), (chunk[0] + 3, chunk[1] + 3))
    for name, bit in (("BAD", BAD), ("SAT", SAT), ("CR", CR)):
        ds = lazyccd.add_mask(ds, bits & bit, plane=name)
    grown = lazyccd.grow_mask(ds, "SAT+BAD", radius)["mask"].values
    y, x = np.mgrid[-8:9, -8:9]
    for bit in (SAT, BAD):
        expected = ndimage.binary_dilation((bits & bit) != 0, y**2 + x**2 <= radius**2)
        np.testing.assert_array_equal((grown & bit) != 0, expected)
    np.testing.assert_array_equal(grown & CR, bits & CR)


def slow_fill(pixels: Array, bad: Array, axis: int, reach: int) -> Array:
    """Fill bad pixels along one axis, readable: numpy.interp over the good ones of a line."""
    out = pixels.copy()
    for k in range(pixels.shape[1 - axis]):
        line = (slice(None), k) if axis == 0 else (k, slice(None))
        good = np.flatnonzero(~bad[line])
        for place in np.flatnonzero(bad[line]):
            near = good[np.abs(good - place) <= reach]
            before, after = near[near < place], near[near > place]
            ends = [*before[-1:], *after[:1]]
            if ends:
                out[line][place] = np.interp(place, ends, pixels[line][ends])
    return out


@given(
    shape=shapes, chunk=sizes, axis=st.sampled_from([0, 1]), reach=st.sampled_from([1, 3, 32]), seed=st.integers(0, 99)
)
def test_bad_pixels_are_interpolated(
    shape: tuple[int, int], chunk: tuple[int, int], axis: int, reach: int, seed: int
) -> None:
    """Along one axis: what numpy.interp gives between the nearest good pixels within reach."""
    rng = np.random.default_rng(seed)
    pixels, bad = rng.normal(size=shape), rng.random(shape) < 0.3
    ds = frame(pixels, (chunk[0] + 3, chunk[1] + 3), mask=bad)
    ours = lazyccd.interpolate_bad_pixels(ds, axis="yx"[axis], reach=reach).compute()
    expected = slow_fill(pixels, bad, axis, reach)
    np.testing.assert_allclose(ours["data"].values, expected, rtol=1e-12, atol=1e-12)
    bits = ours["mask"].values
    np.testing.assert_array_equal((bits & BAD) != 0, bad)
    np.testing.assert_array_equal((bits & INTERP) != 0, bad & (np.abs(expected - pixels) > 0))


def test_the_shorter_gap_is_taken() -> None:
    """A bad column is filled along rows, a bad row along columns; the variance is the larger of the two ends."""
    y, x = np.mgrid[:20, :20]
    pixels = 100.0 + y + 10.0 * (x - 9.5) ** 2
    mask = np.zeros(pixels.shape, bool)
    mask[:, 5:7], mask[12, :] = True, True
    sigma = 1.0 + x
    ds = frame(np.where(mask, np.nan, pixels), 7, mask=mask, uncertainty=StdDevUncertainty(sigma))
    ours = lazyccd.interpolate_bad_pixels(ds).compute()
    data, out_sigma = ours["data"].values, ours["uncertainty"].values
    np.testing.assert_allclose(data[12, 10], pixels[12, 10])
    np.testing.assert_allclose(data[3, 5], pixels[3, 4] * 2 / 3 + pixels[3, 7] / 3)
    np.testing.assert_allclose(out_sigma[3, 5:7], sigma[3, 7])
    crossing = np.isnan(data)  # no good pixel in its row, nor in its column
    assert np.argwhere(crossing).tolist() == [[12, 5], [12, 6]]


def test_filled_pixels_count_if_they_are_trusted() -> None:
    """They keep BAD, so statistics leave them out; with bad="~INTERP" their new value counts."""
    pixels = np.arange(25.0).reshape(5, 5)
    mask = np.zeros(pixels.shape, bool)
    mask[:, 1] = True
    filled = lazyccd.interpolate_bad_pixels(frame(np.where(mask, 9e9, pixels), 3, mask=mask), axis="x")
    assert float(lazyccd.stats.median(filled)) == np.median(pixels[~mask])
    assert float(lazyccd.stats.median(filled, bad="~INTERP")) == 12.0
    assert float(lazyccd.stats.percentile(filled, 100, bad="SAT")) == 24.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda ds: lazyccd.median_filter(ds, 0), ParameterError, "size 0"),
        (lambda ds: lazyccd.median_filter(ds, (3, 3, 3)), ParameterError, "two of them"),
        (lambda ds: lazyccd.median_filter(ds, 2.5), ParameterError, r"2\.5"),
        (lambda ds: lazyccd.median_filter(ds, np.nan), ParameterError, "size nan"),
        (lambda ds: lazyccd.median_filter(ds, None), ArgumentTypeError, "size None"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image="big"), ArgumentTypeError, "error_image 'big'"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=1, thresh=np.nan), ParameterError, "thresh nan"),
        (lambda ds: lazyccd.cosmicray_median(ds, flavor="iraf", noise=(-1, 0, 0)), ParameterError, "noise -1"),
        (lambda ds: lazyccd.ccdmask(ds, ngood=np.nan), ParameterError, "ngood nan"),
        (lambda ds: lazyccd.ccdmask(ds, lsigma="9"), ArgumentTypeError, "lsigma '9'"),
        (lambda ds: lazyccd.interpolate_bad_pixels(ds, reach=np.nan), ParameterError, "reach nan"),
        (lambda ds: lazyccd.cosmicray_median(ds), ParameterError, "create_deviation"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=np.ones((2, 3))), ShapeError, r"\(2, 3\)"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=-1), ParameterError, "error_image -1"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=1 * u.s), ValueError, "s"),
        (lambda ds: lazyccd.cosmicray_median(ds, error_image=1, mbox=0), ParameterError, "mbox 0"),
        (lambda ds: lazyccd.ccdmask(ds, ncmed=0), ParameterError, "ncmed"),
        (lambda ds: lazyccd.ccdmask(ds, ngood=-1), ParameterError, "ngood -1"),
        (lambda ds: lazyccd.background_deviation_box(ds, 0), ParameterError, "bbox 0"),
        (lambda ds: lazyccd.background_deviation_filter(ds, 0), ParameterError, "bbox 0"),
        (lambda ds: lazyccd.grow_mask(ds, "SAT", 1), ParameterError, "needs a frame with a mask"),
        (lambda ds: lazyccd.grow_mask(lazyccd.add_mask(ds, ds["data"]), "SATT", 1), ParameterError, "SATT"),
        (lambda ds: lazyccd.grow_mask(lazyccd.add_mask(ds, ds["data"]), ["SAT"], 1), ArgumentTypeError, "one string"),
        (lambda ds: lazyccd.grow_mask(lazyccd.add_mask(ds, ds["data"]), "SAT", -1), ParameterError, "radius -1"),
        (lambda ds: lazyccd.interpolate_bad_pixels(ds, axis="z"), ParameterError, "'z'"),
        (lambda ds: lazyccd.interpolate_bad_pixels(ds, reach=0), ParameterError, "reach 0"),
    ],
)
def test_bad_input(call: Any, error: type[Exception], words: str) -> None:
    """Mistakes are named at the call."""
    with pytest.raises(error, match=words):
        call(frame(noise((10, 12))))
