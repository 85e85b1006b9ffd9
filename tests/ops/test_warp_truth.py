"""Warps against a truth: exact areas, flux over wide fields, errors of sums over apertures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import reproject
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import pixel_to_pixel
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf

import lazyccd
from lazyccd.errors import FrameError, ParameterError
from lazyccd.frame.core import resolve
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.resample.block import resample
from lazyccd.kernels.resample.weights import AREA, KERNELS
from lazyccd.sections import Region

Array = npt.NDArray[Any]
NO_DATA, BAD, OTHER = 128, 1, 2


def tangent(
    shape: tuple[int, int],
    crval: tuple[float, float] = (150.0, 2.0),
    *,
    scale: float = 1e-4,
    angle: float = 0.0,
    kind: str = "TAN",
) -> WCS:
    """Return a WCS about the middle of an image; the angle in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = [f"RA---{kind}", f"DEC--{kind}"], crval
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


def warp(
    data: Array,
    source: WCS,
    target: WCS,
    shape: tuple[int, int],
    *,
    kernel: str = "lanczos3",
    ratio: float | None = 1.0,
    variance: Array | None = None,
    mask: Array | None = None,
    region: Region | None = None,
    pixfrac: float = 1.0,
) -> Block:
    """Return all planes of a warp, of a region of it or of the whole."""
    planes = ["data", "mask", *([] if variance is None else ["variance", "variance_aperture"])]
    return resample(
        Request(region or Region.full(shape), frozenset(planes)),
        Block(Region.full(data.shape), data=data, variance=variance, mask=mask),
        coordinates=SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), data.shape, corners=kernel == AREA),
        shape=data.shape,
        interpolation=kernel,
        ratio=ratio,
        bits=(BAD, NO_DATA, BAD | OTHER),
        dtype=data.dtype.name,
        mask_dtype="uint8",
        pixfrac=pixfrac,
    )


def circles(side: int, radius: float, method: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the pixels of circles at random places, parts that count, shape ``(n, k, k)``, and their first pixels."""
    reach = int(radius) + 2
    first = np.stack(np.meshgrid(*[np.arange(0, side - 2 * reach, reach)] * 2), -1).reshape(-1, 2)
    places = rng.uniform(-0.5, 0.5, (len(first), 2)) + reach
    steps = np.array([0.0]) if method == "center" else (np.arange(8) - 3.5) / 8
    pixels = np.arange(2 * reach + 1)
    inside = np.zeros((len(first), pixels.size, pixels.size), np.float32)
    for dy in steps:
        for dx in steps:
            y, x = pixels[None, :] + dy - places[:, :1], pixels[None, :] + dx - places[:, 1:]
            inside += (y**2)[:, :, None] + (x**2)[:, None, :] <= radius**2
    return inside / steps.size**2, first


def aperture_pulls(kernel: Any, scale: float, method: Any, frames: int) -> list[float]:
    """Return scatters of sums over circles of radius 2, 5 and 10 in a coadd of noise, in units of their stated errors."""
    rng = np.random.default_rng(3)
    side = 700 if scale < 2 else 1100
    wanted = int(side / scale * 0.65)
    target = tangent((wanted, wanted), scale=1e-4 * scale, angle=17)
    given = []
    for number in range(frames):
        source = tangent((side, side), angle=2.0 * number)
        source.wcs.crpix = source.wcs.crpix + rng.uniform(-3, 3, 2)
        sigma = rng.uniform(0.8, 1.2, (side, side)).astype("f4")
        noise = (rng.normal(0, 1, sigma.shape) * sigma).astype("f4")
        given.append(CCDData(noise, unit="adu", wcs=source, uncertainty=StdDevUncertainty(sigma)))
    mosaic = lazyccd.coadd(
        given, target, (wanted, wanted), order=kernel, reject=None, maps=("variance_aperture",)
    ).compute()
    pulls = []
    for radius in (2, 5, 10):
        parts, first = circles(wanted, radius, method, rng)
        n = parts.shape[1]
        sums = [
            np.einsum("kyx,kyx->k", sliding_window_view(plane, (n, n))[first[:, 0], first[:, 1]], parts)
            for plane in (mosaic["data"].values, mosaic["variance_aperture"].values)
        ]
        errors = np.sqrt(sums[1] * lazyccd.aperture_factor(mosaic, radius, method))
        pulls.append(float(np.sqrt(np.mean((sums[0] / errors) ** 2))))
    return pulls


@pytest.mark.parametrize(
    ("kernel", "scale", "method"),
    [
        ("lanczos3", 1.0, "exact"),
        ("bilinear", 1.0, "center"),
        *[
            pytest.param(kernel, scale, method, marks=pytest.mark.slow)
            for kernel in ("lanczos3", "bilinear", AREA)
            for scale in (0.5, 1.0, 2.0)
            for method in ("exact", "center")
            if (kernel, scale, method) not in {("lanczos3", 1.0, "exact"), ("bilinear", 1.0, "center")}
        ],
    ],
)
def test_aperture_variances_give_errors_of_sums(kernel: str, scale: float, method: str) -> None:
    """Sums over circles of a coadd of dithered frames scatter as `variance_aperture` and `aperture_factor` say."""
    np.testing.assert_allclose(aperture_pulls(kernel, scale, method, 2), 1, atol=0.03)


def test_aperture_factor_of_a_header() -> None:
    """It needs the cards of a mosaic, and radii above 0; shrunken pixels share less noise."""
    wcs = tangent((9, 9))
    frame = lazyccd.from_ccddata(CCDData(np.ones((9, 9)), unit="adu", wcs=wcs))
    with pytest.raises(FrameError, match=r"RESAMPLE = None and PIXRATIO = None; give what coadd returned"):
        lazyccd.aperture_factor(frame, 3)
    whole, half = (lazyccd.coadd([frame], wcs, (9, 9), order="area", pixfrac=p) for p in (1.0, 0.5))
    factors = [lazyccd.aperture_factor(mosaic, [[2, 5e3]]) for mosaic in (whole, half)]
    assert factors[0].shape == (1, 2)
    assert factors[0][0, 0] < factors[1][0, 0] < 1
    np.testing.assert_allclose(np.array(factors)[:, 0, 1], 1, atol=2e-4)
    for radius in (0, -1, np.nan):
        with pytest.raises(ParameterError, match="must be numbers of pixels above 0"):
            lazyccd.aperture_factor(whole, radius)
    with pytest.raises(ParameterError, match="must be 'exact' or 'center'"):
        lazyccd.aperture_factor(whole, 3, "subpixel")  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", [*sorted(KERNELS), AREA])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.7])
def test_aperture_variance_is_free_of_the_phase(kernel: str, scale: float) -> None:
    """Where the variance is the same everywhere it is ratio² / R times that, bad pixels or not, and it is never negative."""
    source, target = tangent((150, 160)), tangent((130, 130), scale=1e-4 * scale, angle=31)
    rng = np.random.default_rng(2)
    data, mask = rng.normal(0, 1, (150, 160)), (rng.random((150, 160)) < 0.01).astype(np.uint8)
    ours = warp(
        data, source, target, (130, 130), kernel=kernel, ratio=2.0, variance=np.full(data.shape, 3.0), mask=mask
    )
    finite = np.isfinite(ours.plane("data"))
    assert finite.sum() > 4000
    np.testing.assert_array_equal(np.isfinite(ours.plane("variance_aperture")), finite)
    area = min(scale**2, 1) if kernel == "nearest" else scale**2
    np.testing.assert_allclose(ours.plane("variance_aperture")[finite], 4 * 3 / area, rtol=1e-5)
    spiky = np.where(rng.random(data.shape) < 0.01, 1e6, 1.0)
    ours = warp(data, source, target, (130, 130), kernel=kernel, ratio=2.0, variance=spiky, mask=mask)
    assert (ours.plane("variance_aperture")[finite] > 0).all()
    alone = warp(
        data,
        source,
        target,
        (130, 130),
        kernel=kernel,
        ratio=2.0,
        variance=spiky,
        mask=mask,
        region=Region(30, 101, 7, 8),
    )
    for plane in ("data", "variance", "variance_aperture", "mask"):
        np.testing.assert_array_equal(alone.plane(plane), ours.plane(plane)[30:101, 7:8])


def test_aperture_variance_alone_is_that_with_all_planes() -> None:
    """It is made from the variance, which nobody has to ask for."""
    source, target = tangent((90, 80)), tangent((90, 80), angle=31)
    variance = np.random.default_rng(2).uniform(1, 2, (90, 80)).astype("f4")
    every = warp(np.ones((90, 80), "f4"), source, target, (90, 80), variance=variance)
    alone = resample(
        Request(Region.full((90, 80)), frozenset({"variance_aperture"})),
        Block(Region.full((90, 80)), data=np.ones((90, 80), "f4"), variance=variance),
        coordinates=SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), (90, 80)),
        shape=(90, 80),
        interpolation="lanczos3",
        ratio=1.0,
        bits=(BAD, NO_DATA, BAD | OTHER),
        dtype="float32",
        mask_dtype="uint8",
    )
    assert alone.data is None
    assert alone.variance is None
    np.testing.assert_array_equal(alone.plane("variance_aperture"), every.plane("variance_aperture"))


def exact_areas(source: WCS, target: WCS, size: tuple[int, int], shape: tuple[int, int]) -> Array:
    """Return the areas of output pixels in input pixels by differences of exact positions."""
    exact = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), size).exact()
    ys, xs = (v.ravel().astype(float) for v in np.indices(shape))
    h = 0.05
    along_y = np.array(exact(ys + h, xs)) - np.array(exact(ys - h, xs))
    along_x = np.array(exact(ys, xs + h)) - np.array(exact(ys, xs - h))
    return np.abs(along_y[0] * along_x[1] - along_y[1] * along_x[0]).reshape(shape) / (4 * h * h)


def stars(shape: tuple[int, int], places: Array, fwhm: float) -> Array:
    """Return the counts of Gaussian stars of flux 1, integrated over pixels."""
    image, sigma = np.zeros(shape), fwhm / 2.3548
    for place in places:
        edges = [(np.arange(n + 1) - 0.5 - p) / (sigma * np.sqrt(2)) for n, p in zip(shape, place, strict=True)]
        image += np.outer(*(np.diff(erf(e)) / 2 for e in edges))
    return image


@pytest.mark.parametrize(("kind", "scale", "smooth"), [("TAN", 0.05, True), ("TAN", 0.6, False), ("ZEA", 0.8, False)])
def test_flux_scales_by_the_area_of_each_pixel(kind: str, scale: float, smooth: bool) -> None:
    """Data of 1 become the area of the pixel, on cubics and where they do not hold; variances follow."""
    size, shape = (200, 240), (210, 250)
    source = tangent(size, (150, 40), scale=scale, kind="CAR" if not smooth else "TAN")
    target = tangent(shape, (151, 41), scale=0.9 * scale, angle=20, kind=kind)
    ones = np.ones(size)
    ours = warp(ones, source, target, shape, kernel="bilinear", ratio=None, variance=ones)
    areas = exact_areas(source, target, size, shape)
    finite = np.isfinite(ours.plane("data"))
    assert finite.sum() > 10_000
    errors = np.abs(ours.plane("data") / areas - 1)[finite]
    # where cubics do not hold, differences of positions that are right to 1e-4 pixel
    assert np.percentile(errors, 99) < (1e-6 if smooth else 3e-3)
    assert errors.max() < (1e-6 if smooth else 0.05)
    fixed = warp(ones, source, target, shape, kernel="bilinear", ratio=1.0, variance=ones)
    area = ours.plane("data")[finite]
    np.testing.assert_allclose(ours.plane("variance")[finite], fixed.plane("variance")[finite] * area**2)
    np.testing.assert_allclose(ours.plane("variance_aperture")[finite], area, rtol=1e-6)
    np.testing.assert_allclose(fixed.plane("variance_aperture")[finite], 1 / area, rtol=1e-6)
    np.testing.assert_array_equal((ours.plane("mask") & NO_DATA) != 0, ~finite)


def test_local_areas_conserve_the_flux_of_a_wide_field() -> None:
    """Stars 10 degrees from the centre of a TAN image keep their flux in a ZEA one; one ratio for all loses 4 %."""
    size = (400, 400)
    source, target = tangent(size, scale=0.06), tangent((440, 440), scale=0.06, kind="ZEA", angle=33)
    places = np.array([(40.3, 200.1), (200.4, 360.2), (200.0, 200.3), (60.7, 60.2)])
    image = stars(size, places, 2.5)
    local, fixed = (np.nan_to_num(warp(image, source, target, (440, 440), ratio=r).plane("data")) for r in (None, 1.0))
    x, y = pixel_to_pixel(source, target, places[:, 1], places[:, 0])
    flux = [
        [a[round(j) - 12 : round(j) + 13, round(i) - 12 : round(i) + 13].sum() for j, i in zip(y, x, strict=True)]
        for a in (local, fixed)
    ]
    np.testing.assert_allclose(flux[0], 1, atol=1e-3)
    assert max(np.abs(np.array(flux[1]) - 1)) > 0.04


def test_own_wcs_keeps_every_bit_with_local_areas() -> None:
    """The image on its own WCS, moved by whole pixels: areas are exactly 1."""
    wcs = tangent((90, 80), scale=1.2345e-5)
    moved = wcs.deepcopy()
    moved.wcs.crpix = wcs.wcs.crpix + np.array([3, -5])
    data = np.random.default_rng(1).normal(0, 1, (90, 80))
    ours = warp(data, wcs, moved, (90, 80), ratio=None, variance=data**2)
    np.testing.assert_array_equal(ours.plane("data")[:85, 3:], data[5:, :77])
    np.testing.assert_array_equal(ours.plane("variance")[:85, 3:], data[5:, :77] ** 2)
    np.testing.assert_array_equal(ours.plane("variance_aperture")[:85, 3:], data[5:, :77] ** 2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_map_is_written_and_read(tmp_path: Path, dtype: str) -> None:
    """FITS and Zarr keep the plane, its type and its units; operations do without it, and a stack has none."""
    data = np.arange(12, dtype=dtype).reshape(3, 4)
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu")).assign(variance_aperture=(("y", "x"), data * 2))
    for write, read, name in (
        (lazyccd.to_fits, lazyccd.open_fits, "out.fits"),
        (lazyccd.to_zarr, lazyccd.open_zarr, "out.zarr"),
    ):
        write(ds, tmp_path / name)
        again = read(tmp_path / name)
        assert again["variance_aperture"].dtype == data.dtype
        assert again["variance_aperture"].attrs["units"] == "adu2"
        np.testing.assert_array_equal(again["variance_aperture"].values, data * 2)
        assert "variance_aperture" in resolve(again, maps=True).plan.dtypes
        assert "variance_aperture" not in lazyccd.gain_correct(again, 2.0)
    assert fits.getheader(tmp_path / "out.fits", "VARIANCE_APERTURE")["BUNIT"] == "adu2"
    with pytest.raises(ParameterError, match="must be among n_used, n_rejected, exposure"):
        lazyccd.combine([ds, ds], maps=("variance_aperture",))


@pytest.mark.parametrize("sip", [False, True])
@pytest.mark.parametrize(
    ("scale", "angle"), [(1.0, 0.0), (1.0, 33.0), (0.5, 10.0), (0.07, 80.0), (1.7, 71.0), (4.0, 120.0), (8.0, 5.0)]
)
def test_areas_conserve_flux(scale: float, angle: float, sip: bool) -> None:
    """The sum of all pixels is that of the image to 1e-12, and that of its variances is the sum of aperture variances."""
    rng = np.random.default_rng(1)
    size = (200, 220) if scale > 0.1 else (40, 50)
    data = np.zeros(size)
    inner = tuple(slice(n // 10, -n // 10) for n in size)
    data[inner] = rng.random(data[inner].shape) + 0.1
    source = tangent(size)
    if sip:
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 1], a[0, 3], b[0, 2], b[2, 1] = 3e-5, -2e-5, 1e-8, 4e-5, 2e-8
        source.wcs.ctype, source.sip = ["RA---TAN-SIP", "DEC--TAN-SIP"], Sip(a, b, None, None, source.wcs.crpix)
    side = int(1.5 * size[1] / scale) + 3
    target = tangent((side, side), (150.0001, 2.0001), scale=1e-4 * scale, angle=angle)
    ours = warp(data, source, target, (side, side), kernel=AREA, ratio=None, variance=data**2)
    assert abs(np.nansum(ours.plane("data")) / data.sum() - 1) < 1e-12
    assert abs(np.nansum(ours.plane("variance_aperture")) / (data**2).sum() - 1) < 1e-12


def clip(polygon: list[tuple[float, float]], axis: int, limit: float, sign: int) -> list[tuple[float, float]]:
    """Return the part of a polygon on one side of a line (Sutherland and Hodgman 1974)."""
    out = []
    for one, two in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        inside, enters = sign * (one[axis] - limit) <= 0, sign * (two[axis] - limit) <= 0
        if inside:
            out.append(one)
        if inside != enters:
            t = (limit - one[axis]) / (two[axis] - one[axis])
            out.append((one[0] + t * (two[0] - one[0]), one[1] + t * (two[1] - one[1])))
    return out


def overlap(polygon: list[tuple[float, float]], y: int, x: int, pixfrac: float) -> float:
    """Return the area of a polygon on a pixel that shrank."""
    for axis, centre in ((0, y), (1, x)):
        for sign in (1, -1):
            polygon = clip(polygon, axis, centre + sign * pixfrac / 2, sign)
    return 0.5 * abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True)))


@pytest.mark.parametrize(("scale", "pixfrac"), [(1.0, 1.0), (0.6, 1.0), (2.3, 1.0), (1.0, 0.6), (0.5, 0.3), (2.3, 0.8)])
def test_areas_are_those_of_clipped_polygons(scale: float, pixfrac: float) -> None:
    """Data, both variances, mask and lost pixels equal a slow sum over polygons, with NaN, bad pixels and edges."""
    rng = np.random.default_rng(4)
    size, shape = (24, 26), (int(24 / scale), int(22 / scale))
    data, variance = rng.normal(5, 1, size), rng.uniform(1, 2, size)
    mask = np.where(rng.random(size) < 0.05, BAD, 0).astype(np.uint8) | np.where(
        rng.random(size) < 0.05, OTHER, 0
    ).astype(np.uint8)
    data[7, 9] = np.nan
    source, target = tangent(size), tangent(shape, (150.0003, 2.0002), scale=1e-4 * scale, angle=40)
    ours = warp(data, source, target, shape, kernel=AREA, ratio=3.0, variance=variance, mask=mask, pixfrac=pixfrac)
    exact = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), size, corners=True).exact()
    corners = np.array(exact(*(v.ravel().astype(float) for v in np.indices((shape[0] + 1, shape[1] + 1)))))
    corners = corners.reshape(2, shape[0] + 1, shape[1] + 1)
    good = np.isfinite(data) & ((mask & BAD) == 0)
    for j, i in np.ndindex(shape):
        quad = [tuple(corners[:, j + b, i + a].tolist()) for b, a in ((0, 0), (0, 1), (1, 1), (1, 0))]
        ys, xs = zip(*quad, strict=True)
        total = spread = linear = kept = everything = flagged = 0.0
        for y in range(int(min(ys)) - 1, int(max(ys)) + 3):
            for x in range(int(min(xs)) - 1, int(max(xs)) + 3):
                area = overlap(quad, y, x, pixfrac)
                everything += area
                if 0 <= y < size[0] and 0 <= x < size[1]:
                    flagged += area if mask[y, x] & OTHER else 0
                    if good[y, x]:
                        total, kept = total + area * data[y, x], kept + area
                        spread, linear = spread + area**2 * variance[y, x], linear + area * variance[y, x]
        if abs(kept - 0.5 * everything) < 1e-6 and everything > 0:
            continue
        found = [ours.plane(p)[j, i] for p in ("data", "variance", "variance_aperture", "mask")]
        assert bool(found[3] & NO_DATA) == (kept < 0.5 * everything or kept < 1e-12)
        if abs(flagged - 0.1 * everything) > 1e-6:
            assert bool(found[3] & OTHER) == (flagged > 0.1 * everything)
        if kept >= 0.5 * everything and kept > 1e-6:
            expected = (3 * total / kept, 9 * spread / kept**2, 9 * linear / kept / scale**2)
            np.testing.assert_allclose(found[:3], expected, rtol=2e-5)


@pytest.mark.parametrize(("scale", "pixfrac"), [(0.7, 1.0), (1.0, 1.0), (3.1, 1.0), (1.0, 0.5)])
def test_one_bad_pixel_changes_only_pixels_that_lie_on_it(scale: float, pixfrac: float) -> None:
    """A NaN and a masked column: all other pixels keep every bit; so does any region computed alone."""
    size, shape = (160, 150), (int(160 / scale), int(150 / scale))
    source, target = tangent(size), tangent(shape, scale=1e-4 * scale, angle=21)
    data = np.random.default_rng(6).normal(0, 1, size)
    clean = warp(data, source, target, shape, kernel=AREA, ratio=None, variance=data**2, pixfrac=pixfrac)
    broken, mask = data.copy(), np.zeros(size, np.uint8)
    broken[70, 60], mask[:, 90] = np.nan, BAD
    ours = warp(broken, source, target, shape, kernel=AREA, ratio=None, variance=data**2, mask=mask, pixfrac=pixfrac)
    ys, xs = (v.ravel().astype(float) for v in np.indices(shape))
    y, x = (v.reshape(shape) for v in SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), size).exact()(ys, xs))
    reach = 0.5 + scale * np.sqrt(0.5) + 1e-6
    far = ((np.abs(y - 70) > reach) | (np.abs(x - 60) > reach)) & (np.abs(x - 90) > reach)
    for plane in ("data", "variance", "variance_aperture", "mask"):
        np.testing.assert_array_equal(ours.plane(plane)[far], clean.plane(plane)[far])
    assert (ours.plane("data") != clean.plane("data"))[~far].any()
    for region in (Region(0, 1, 0, shape[1]), Region(20, 47, 13, 14), Region(shape[0] // 2, shape[0], 3, 40)):
        alone = warp(
            broken,
            source,
            target,
            shape,
            kernel=AREA,
            ratio=None,
            variance=data**2,
            mask=mask,
            pixfrac=pixfrac,
            region=region,
        )
        for plane in ("data", "variance", "variance_aperture", "mask"):
            cut = ours.plane(plane)[region.y0 : region.y1, region.x0 : region.x1]
            np.testing.assert_array_equal(alone.plane(plane), cut)


def test_areas_are_those_of_reproject() -> None:
    """Means over areas agree with reproject_exact, which cuts spherical polygons, to its own rounding."""
    size, shape = (80, 90), (90, 100)
    data = np.random.default_rng(6).normal(10, 1, size)
    source, target = tangent(size), tangent(shape, scale=0.8e-4, angle=21)
    theirs, _ = reproject.reproject_exact((data, source), target, shape_out=shape)
    ours = lazyccd.wcs_project(
        lazyccd.from_ccddata(CCDData(data, unit="adu", wcs=source)), target, shape, order="area"
    ).data.values
    both = np.isfinite(theirs) & np.isfinite(ours)
    assert both.sum() > 5000
    np.testing.assert_allclose(ours[both], 0.64 * theirs[both], rtol=1e-6)


def test_pixfrac_is_for_areas() -> None:
    """Values that make no sense are refused by name; half shrunken pixels leave pixels without data on a finer grid."""
    wcs = tangent((20, 20))
    ds = lazyccd.from_ccddata(CCDData(np.ones((20, 20)), unit="adu", wcs=wcs))
    for pixfrac in (0, 1.5, np.nan, "a", True):
        with pytest.raises(ParameterError, match="must be a number above 0 and at most 1"):
            lazyccd.wcs_project(ds, wcs, order="area", pixfrac=pixfrac)
    with pytest.raises(ParameterError, match="is for order='area' and not for 'bilinear'"):
        lazyccd.wcs_project(ds, wcs, pixfrac=0.5)
    fine = tangent((80, 80), scale=0.25e-4)
    out = lazyccd.wcs_project(ds, fine, (80, 80), order="area", pixfrac=0.5).compute()
    assert np.isfinite(out.data.values).sum() == 40 * 40
    np.testing.assert_array_equal(np.isnan(out.data.values), out.mask.values != 0)
    np.testing.assert_allclose(np.nanmax(out.data.values), 1 / 16)
