"""`lazyccd.ccdproc` gives ccdproc's data, uncertainties, masks, units and headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling import models
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.stats import mad_std
from astropy.utils.exceptions import AstropyDeprecationWarning, AstropyUserWarning
from astropy.wcs import WCS

from lazyccd import ccdproc as ours
from lazyccd.ccdproc import small_stacks
from lazyccd.kernels.stack.sigma_clip import reject_deviant

SHAPE = (24, 30)
GAIN = 1.5 * u.electron / u.adu
NOISE = 5 * u.electron

Call = Callable[[Any, Callable[..., CCDData]], Any]


def image(
    dtype: str = "f8", uncertainty: Any = None, *, masked: bool = False, level: float = 500.0, unit: str = "adu"
) -> CCDData:
    """Return an image with a cosmic ray, which is the same for the same arguments."""
    pixels = np.random.default_rng(int(level)).normal(level, 0.04 * level, SHAPE)
    pixels[3, 4] += 10 * level
    mask = np.zeros(SHAPE, bool)
    mask[2, 2] = mask[int(level) % 24, 11] = True
    floats = dtype if dtype != "u2" else "f8"
    return CCDData(
        pixels.astype(dtype),
        unit=unit,
        uncertainty=None if uncertainty is None else uncertainty(np.full(SHAPE, 3.0, floats)),
        mask=mask if masked else None,
        meta=fits.Header({"EXPTIME": 30.0 + level, "GAIN": 1.5}),
    )


def process(p: Any, c: Callable[..., CCDData]) -> CCDData:
    """Do all steps at once; masters have no uncertainty, since classes of uncertainties must not be mixed."""

    def master(level: float) -> CCDData:
        made = c(level=level, unit="electron")
        made.uncertainty = None
        return made

    masters = {"master_bias": master(10.0), "dark_frame": master(3.0), "master_flat": master(100.0)}
    times = {"exposure_key": "EXPTIME", "exposure_unit": u.s}
    sections = {"oscan": "[25:30,1:24]", "trim": "[1:30,1:24]"}
    noise = {"error": True, "gain": GAIN, "readnoise": NOISE, "bad_pixel_mask": np.zeros(SHAPE, bool)}
    result: CCDData = p.ccd_process(c(), **sections, **noise, **masters, **times)
    return result


STEPS: dict[str, Call] = {
    "deviation": lambda p, c: p.create_deviation(c(), gain=GAIN, readnoise=NOISE),
    "deviation without gain": lambda p, c: p.create_deviation(c(), readnoise=5 * u.adu, disregard_nan=True),
    "overscan": lambda p, c: p.subtract_overscan(c(), overscan=c()[:, 20:]),
    "overscan section": lambda p, c: p.subtract_overscan(c(), fits_section="[21:30,:]", median=True),
    "overscan of one axis": lambda p, c: p.subtract_overscan(c(), overscan=c()[:, 1], overscan_axis=0),
    "overscan model": lambda p, c: p.subtract_overscan(
        c(), fits_section="[:,1:4]", overscan_axis=None, model=models.Polynomial1D(1)
    ),
    "trim": lambda p, c: p.trim_image(c(), "[3:20,2:10]"),
    "trim beyond the image": lambda p, c: p.trim_image(c(), "[11:,:40]"),
    "bias": lambda p, c: p.subtract_bias(c(), c(level=10.0)),
    "dark": lambda p, c: p.subtract_dark(c(), c(level=10.0), exposure_time="EXPTIME", exposure_unit=u.s),
    "gain": lambda p, c: p.gain_correct(c(), GAIN),
    "gain as a number": lambda p, c: p.gain_correct(c(), 1.5),
    "gain and unit": lambda p, c: p.gain_correct(c(), 1.5, gain_unit=u.electron / u.adu),
    "gain map": lambda p, c: p.gain_correct(c(), np.full((24, 1), 1.5)),
    "flat": lambda p, c: p.flat_correct(c(), c(level=100.0)),
    "flat in other units": lambda p, c: p.flat_correct(c(), c(level=100.0, unit="electron")),
    "flat with a floor": lambda p, c: p.flat_correct(c(), c(level=100.0), min_value=99.0),
    "flat with a norm": lambda p, c: p.flat_correct(c(), c(level=100.0), norm_value=90.0),
    "all steps": process,
    "transformed": lambda p, c: p.transform_image(c(), np.rot90),
    "cosmic rays by medians": lambda p, c: p.cosmicray_median(c(), error_image=np.full(SHAPE, 20.0), gbox=3, rbox=5),
    "cosmic rays of an array": lambda p, c: p.cosmicray_median(c().data, mbox=5),
    "median filter": lambda p, c: p.median_filter(c(), 5),
    "median filter of an array": lambda p, c: p.median_filter(c().data, size=(3, 4)),
    "deviation in boxes": lambda p, c: p.background_deviation_box(c().data, 5),
    "sigma of an image": lambda p, c: p.sigma_func(c()),
    "sigma along an axis": lambda p, c: p.sigma_func(c().data, axis=0),
}

STACKS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "plain": (lambda q: None, {}),
    "float32": (lambda q: None, {"dtype": "f4"}),
    "sigma": (lambda q: q.sigma_clipping(1.2, 1.2), {}),
    "mad": (lambda q: q.sigma_clipping(2, 2, func="median", dev_func="mad_std"), {}),
    "functions": (lambda q: q.sigma_clipping(1.1, None, func=np.ma.median, dev_func=np.ma.std), {}),
    "extrema": (lambda q: q.clip_extrema(1, 1), {}),
    "limits": (lambda q: q.minmax_clipping(450, 550), {}),
    "scaled": (lambda q: setattr(q, "scaling", [1, 2, 1, 0.5, 1]), {}),
    "scaled by a function": (lambda q: setattr(q, "scaling", lambda x: 1 / np.ma.median(x)), {}),
    "changed by hand": (lambda q: q.data_arr.mask.__setitem__((1, 5), True), {}),
}


def assert_same(result: Any, expected: Any, least_rtol: float = 1e-10) -> None:
    """Compare arrays, or all of two images; uncertainties to ``least_rtol`` at least."""
    if not isinstance(expected, CCDData):
        for got, wanted in zip(np.atleast_1d(result), np.atleast_1d(expected), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)
        return
    assert type(result) is CCDData
    rtol = 1e-12 if expected.data.dtype == np.float64 else 1e-6
    np.testing.assert_allclose(result.data, expected.data, rtol=rtol)
    assert result.data.dtype == expected.data.dtype
    assert (result.mask is None) == (expected.mask is None)
    np.testing.assert_array_equal(result.mask, expected.mask)
    assert type(result.uncertainty) is type(expected.uncertainty)
    if expected.uncertainty is not None:
        np.testing.assert_allclose(result.uncertainty.array, expected.uncertainty.array, rtol=max(rtol, least_rtol))
    assert result.unit == expected.unit
    assert type(result.meta) is type(expected.meta)
    assert list(result.meta.items()) == list(expected.meta.items())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("uncertainty", [None, StdDevUncertainty, VarianceUncertainty])
@pytest.mark.parametrize("dtype", ["f8", "f4", "u2"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Warning. 'partition' will ignore")
def test_steps_are_those_of_ccdproc(step: str, dtype: str, uncertainty: Any, masked: bool) -> None:
    """Each step gives the same, and leaves its input as it was."""

    def make(**changes: Any) -> CCDData:
        return image(dtype, uncertainty, masked=masked, **changes)

    # astropy divides by a flat to the power of four, in float32 if the flat is; NumPy rounds that differently on processors with
    # AVX-512, whose vector library is off by up to an ulp
    assert_same(STEPS[step](ours, make), STEPS[step](ccdproc, make), 1e-6 if dtype == "f4" else 1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("method", ["average", "median", "sum"])
@pytest.mark.parametrize("name", STACKS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Input data contains")
def test_stacks_are_those_of_ccdproc(name: str, method: str, masked: bool) -> None:
    """Each way to clip and scale, with each way to combine, gives the same."""
    prepare, options = STACKS[name]
    results = []
    for package in (ours, ccdproc):
        images = [image("f4", masked=masked, level=level) for level in (500.0, 480.0, 520.0, 505.0, 600.0)]
        combiner = package.Combiner(images, **options)
        prepare(combiner)
        results.append(getattr(combiner, f"{method}_combine")())
    assert_same(*results)


FUNCTIONS: dict[str, Callable[[Any], CCDData]] = {
    "average": lambda q: q.average_combine(scale_func=np.ma.average),
    "median": lambda q: q.median_combine(median_func=np.ma.median),
    "sum": lambda q: q.sum_combine(sum_func=np.ma.sum),
    "uncertainty of the average": lambda q: q.average_combine(uncertainty_func=np.nanmax),
    "uncertainty of the median": lambda q: q.median_combine(uncertainty_func=np.nanmin),
    "robust uncertainty of the average": lambda q: q.average_combine(uncertainty_func=ours.sigma_func),
    "uncertainty of the sum": lambda q: q.sum_combine(uncertainty_func=np.nansum),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_of_users_get_what_ccdproc_gives_them(name: str) -> None:
    """Functions that combine get the masked array, those for uncertainties NaN for what is masked."""
    images = [image("f8", masked=True, level=level) for level in (500.0, 480.0, 520.0)]
    images[0].data[7, 7] = np.nan
    results = []
    for package in (ours, ccdproc):
        combiner = package.Combiner(images)
        combiner.minmax_clipping(max_clip=560)
        results.append(FUNCTIONS[name](combiner))
    expected = results[1].uncertainty.array
    np.testing.assert_allclose(results[0].data, results[1].data, rtol=1e-12)
    np.testing.assert_array_equal(results[0].mask, results[1].mask)
    # a masked pixel has no uncertainty: ccdproc's standard deviation of a masked array counts what is masked
    good = ~results[1].mask & ~np.isnan(expected) & ~np.any([ccd.mask for ccd in images], axis=0)
    if "uncertainty" not in name:
        good &= np.all([ccd.data < 560 for ccd in images], axis=0)
    np.testing.assert_allclose(results[0].uncertainty.array[good], expected[good], rtol=1e-10)


CLIPS: dict[str, dict[str, Any]] = {
    "default functions": {},
    "names": {"sigma_clip_func": "median", "sigma_clip_dev_func": "mad_std"},
    "functions": {"sigma_clip_func": np.median, "sigma_clip_dev_func": np.std},
    "functions for nan": {"sigma_clip_func": np.nanmedian, "sigma_clip_dev_func": np.nanstd},
    "masked functions": {"sigma_clip_func": np.ma.median, "sigma_clip_dev_func": np.ma.std},
    "a name and a function": {"sigma_clip_func": np.ma.median, "sigma_clip_dev_func": "std"},
    "a robust function": {"sigma_clip_func": np.ma.median, "sigma_clip_dev_func": mad_std},
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_in_a_clipped_stack_does_what_its_functions_do(name: str) -> None:
    """A NaN warns as in astropy; whether it masks its value or all values of its pixel depends on the functions."""
    images = [image("f8", level=level) for level in (500.0, 480.0, 520.0, 505.0, 600.0)]
    images[0].data[5, 6] = np.nan
    images[1].data[5, 6:9] = np.inf
    limits = {"sigma_clip_low_thresh": 1.2, "sigma_clip_high_thresh": 1.1}
    results = []
    for package in (ours, ccdproc):
        with pytest.warns(AstropyUserWarning, match="contains invalid values"):
            results.append(package.combine(images, sigma_clip=True, **limits, **CLIPS[name]))
    assert_same(*results)


def test_a_stack_of_nothing_is_an_error() -> None:
    """No image and no list of images are errors of ccdproc's types."""
    with pytest.raises(TypeError, match="at least one"):
        ours.Combiner([])
    with pytest.raises(IndexError):
        ours.combine([])
    with pytest.raises(TypeError, match="weights"):
        ours.combine([image()], weights=[1.0])


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_stacks_of_any_number_of_axes(shape: tuple[int, ...]) -> None:
    """Spectra and cubes are combined and clipped as images are."""
    pixels = np.random.default_rng(3).normal(100.0, 5.0, (6, *shape))
    pixels[2, ..., 3] += 500
    results = []
    for package in (ours, ccdproc):
        combiner = package.Combiner([CCDData(plane, unit="adu") for plane in pixels])
        combiner.sigma_clipping(1.5, 1.5, func="median", dev_func="mad_std")
        results.append(combiner.median_combine())
    assert results[0].shape == shape
    assert_same(*results)


@pytest.mark.parametrize("limit", [16e9, 20000])
@pytest.mark.parametrize("method", ["average", "median", "sum"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Input data contains")
def test_combine_is_that_of_ccdproc(method: str, limit: float) -> None:
    """Clips, a scale that is a function, and tiles give the same, with the first header."""
    images = [image("f8", level=level) for level in (500.0, 480.0, 520.0, 505.0, 600.0)]
    clips = {"clip_extrema": True, "minmax_clip": True, "minmax_clip_max": 560, "sigma_clip": True}
    words = {"method": method, "mem_limit": limit, "scale": lambda pixels: 500 / np.mean(pixels), **clips}
    functions = {"sigma_clip_func": np.ma.median, "sigma_clip_dev_func": np.ma.std}
    results = [package.combine(images, **words, **functions) for package in (ours, ccdproc)]
    assert_same(*results)


@pytest.mark.parametrize("by_pixel", [False, True])
@pytest.mark.parametrize("call", ["average", "sum", "average by a function", "average by a sum"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_are_those_of_ccdproc(call: str, by_pixel: bool) -> None:
    """Weights of masked values count in the denominator of an average, and come before functions that average."""
    images = [image("f4", masked=True, level=level) for level in (500.0, 480.0, 520.0)]
    weights = np.array([1.0, 1.0, 2.0])
    results = []
    for package in (ours, ccdproc):
        combiner = package.Combiner(images)
        combiner.minmax_clipping(max_clip=560)
        combiner.weights = np.random.default_rng(1).random((3, *SHAPE)) if by_pixel else weights
        functions = {"average by a function": {"scale_func": np.ma.average}, "average by a sum": {"sum_func": np.sum}}
        results.append(getattr(combiner, f"{call.split()[0]}_combine")(**functions.get(call, {})))
    np.testing.assert_allclose(results[0].data, results[1].data, rtol=1e-10)
    np.testing.assert_array_equal(results[0].mask, results[1].mask)


def test_weights_of_pixels_are_cut_into_tiles() -> None:
    """Stacks in tiles take weights of pixels, unlike in ccdproc 2.5.1."""
    images = [CCDData(np.full((6, 4), value), unit="adu") for value in (1.0, 2.0, 6.0)]
    weights = np.random.default_rng(2).random((3, 6, 4))
    whole = ours.combine(images, weights=weights)
    np.testing.assert_array_equal(ours.combine(images, weights=weights, mem_limit=400).data, whole.data)


@pytest.mark.parametrize("scaling", [None, np.array([1.0, 2.0, 1.5])])
@pytest.mark.parametrize("dtype", [None, "f4", np.float32, "u2"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_types_are_those_of_ccdproc(dtype: Any, scaling: Any) -> None:
    """The type of a Combiner is as it was given; uncertainties have that of the scaled values, or of the stack's result."""
    images = [image("f4", level=level) for level in (500.0, 480.0, 520.0)]
    kinds = []
    for package in (ours, ccdproc):
        combiner = package.Combiner(images, dtype=dtype)
        combiner.scaling = scaling
        parts = [combiner.average_combine(), combiner.median_combine(), combiner.sum_combine()]
        if dtype != "u2":  # ccdproc cuts off the uncertainties of integers
            parts.append(package.combine(images, dtype=dtype, scale=scaling))
        kinds.append([combiner.dtype, *((ccd.data.dtype, ccd.uncertainty.array.dtype) for ccd in parts)])
    assert kinds[0] == kinds[1]


def test_a_pixel_without_values_has_no_uncertainty_with_functions_of_users() -> None:
    """It is 0 if a function of the user combines, and NaN otherwise, as in ccdproc."""
    images = [image("f8", level=level) for level in (500.0, 480.0, 520.0)]
    for ccd in images:
        ccd.mask = np.zeros(SHAPE, bool)
        ccd.mask[4, 4] = True
    found = []
    with np.errstate(invalid="ignore"):
        for package in (ours, ccdproc):
            combiner = package.Combiner(images)
            results = combiner.median_combine(median_func=np.ma.median), combiner.average_combine(scale_func=np.ma.mean)
            found.append([ccd.uncertainty.array[4, 4] for ccd in results])
    assert found[0] == found[1] == [0, 0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_robust_uncertainty_of_an_average_needs_all_values() -> None:
    """`sigma_func` gives averages and sums NaN where a value is masked or NaN; medians leave those out. As in ccdproc."""
    images = [image("f8", masked=True, level=level) for level in (500.0, 480.0, 520.0)]
    images[0].data[7, 7] = np.nan
    found = []
    for package in (ours, ccdproc):
        combiner, function = package.Combiner(images), {"uncertainty_func": package.sigma_func}
        methods = combiner.average_combine, combiner.sum_combine, combiner.median_combine
        found.append([method(**function).uncertainty.array for method in methods])
    np.testing.assert_allclose(*found, rtol=1e-10)
    assert [bool(np.isnan(array[7, 7])) for array in found[0]] == [True, True, False]


def test_whole_numbers_as_limits_need_no_kernel_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are integers are given to the kernel as floats, for which it is compiled already."""
    monkeypatch.setattr(small_stacks, "WORTH_VALUES", 0)
    combiner = ours.Combiner([image("f8", level=level) for level in (500.0, 480.0, 520.0)])
    combiner.sigma_clipping(low_thresh=2, high_thresh=3, func="median", dev_func="std")
    assert {str(kind) for signature in reject_deviant.signatures for kind in signature[5:7]} == {"float64"}


def test_no_more_extremes_than_images() -> None:
    """More values than there are cannot be clipped."""
    for package in (ours, ccdproc):
        with pytest.raises(IndexError):
            package.Combiner([image(), image()]).clip_extrema(nlow=3)


def test_tiles_are_announced_as_by_ccdproc(capsys: pytest.CaptureFixture[str]) -> None:
    """The number of tiles and the limit are logged."""
    images = [image("f8", level=level) for level in (500.0, 480.0, 520.0)]
    for package in (ours, ccdproc):
        package.combine(images, mem_limit=20000)
    lines = [line.partition("[")[0] for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    assert lines[0] == lines[1]


@pytest.mark.parametrize("gain", [1.5 * u.electron / u.adu, 2.0, 1.0])
@pytest.mark.parametrize(
    "words", [{}, {"fsmode": "convolve", "psfmodel": "moffat", "sepmed": False, "cleantype": "idw"}]
)
def test_cosmic_rays_are_those_of_ccdproc(gain: Any, words: dict[str, Any]) -> None:
    """Masks are equal; pixels to the bits of float32, through which ccdproc puts them."""
    result = ours.cosmicray_lacosmic(image(masked=True), gain=gain, readnoise=5, **words)
    expected = ccdproc.cosmicray_lacosmic(image(masked=True), gain=gain, readnoise=5, **words)
    np.testing.assert_array_equal(result.mask, expected.mask)
    np.testing.assert_allclose(result.data, expected.data, rtol=2e-7)
    assert (result.unit, result.meta) == (expected.unit, expected.meta)


@pytest.mark.parametrize("order", ["nearest-neighbor", "bilinear", "biquadratic", "bicubic"])
def test_projections_are_those_of_ccdproc(order: str) -> None:
    """A turned and enlarged image has ccdproc's pixels, which come from reproject."""
    wcs, target = WCS(naxis=2), WCS(naxis=2)
    for each, size, angle in ((wcs, 0.01, 0.0), (target, 0.007, 0.3)):
        each.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        each.wcs.crval, each.wcs.crpix, each.wcs.cdelt = [30.0, 40.0], [12.0, 15.0], [-size, size]
        each.wcs.pc = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ccd = image(masked=True)
    ccd.wcs = wcs
    results = [package.wcs_project(ccd, target, (40, 44), order=order) for package in (ours, ccdproc)]
    np.testing.assert_allclose(results[0].data, results[1].data, rtol=1e-6)
    np.testing.assert_array_equal(results[0].mask, results[1].mask)
    assert list(results[0].meta) == list(results[1].meta)
    assert results[0].wcs is target


def test_a_projection_takes_the_old_wcs_out_of_the_header() -> None:
    """Cards of the WCS go, among them its matrix; dates of the observation stay. The input's header is left as it was."""
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 30.0, "CRVAL2": 40.0, "CRPIX1": 12.0, "CRPIX2": 15.0}
    cards |= {"CD1_1": -0.01, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.01, "DATE-OBS": "2026-04-21T02:00:00.000"}
    header = fits.Header(cards | {"MJD-OBS": 61151.08333333, "OBJECT": "M 67"})
    results = []
    for package in (ours, ccdproc):
        ccd = CCDData(image().data, unit="adu", meta=header.copy(), wcs=WCS(header))
        results.append(package.wcs_project(ccd, WCS(header), add_keyword=False))
        assert list(ccd.meta) == list(header)
    assert list(results[0].meta) == list(results[1].meta) == ["DATE-OBS", "MJD-OBS", "OBJECT"]


@pytest.mark.parametrize("newshape", [(12, 15), (48, 60), (10, 45)])
def test_rebinned_images_keep_what_they_have(newshape: tuple[int, int]) -> None:
    """Class, WCS, PSF and header come along, as from ccdproc, and the image that was given is left as it was."""

    class Image(CCDData):
        """An image of a user."""

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [30.0, 40.0]
    for kind in (CCDData, Image):
        plain = image(uncertainty=StdDevUncertainty, masked=True)
        ccd = kind(plain, wcs=wcs, psf=np.ones((3, 3)))
        with pytest.warns(AstropyDeprecationWarning, match="rebin"):
            results = [package.rebin(ccd, newshape) for package in (ours, ccdproc)]
        assert_same(*(CCDData(each) for each in results))
        assert [type(each) for each in results] == [kind, kind]
        for each in results:
            assert each.wcs is not ccd.wcs
            np.testing.assert_array_equal(each.wcs.wcs.crval, wcs.wcs.crval)
            np.testing.assert_array_equal(each.psf, ccd.psf)
        assert ccd.shape == ccd.uncertainty.array.shape == ccd.mask.shape == SHAPE
