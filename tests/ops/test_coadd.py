"""Mosaics on the sky against slow references, and whatever the chunks."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

import lazyccd
from lazyccd.errors import EmptyFrameWarning, FrameError, ParameterError, SectionError
from lazyccd.frame.header import header_view
from lazyccd.frame.tree import make_tree
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.mosaic.coadd import RepeatedFrameWarning, StarCoreWarning, empty_chunks
from lazyccd.ops.mosaic.placed import OffGridWarning
from lazyccd.pixel_history import with_inputs
from lazyccd.plan.cost import task_cost
from lazyccd.plan_report import plan_report
from lazyccd.rejection import Blotted, MinMax, SigmaClip
from lazyccd.sections import Region

Array = npt.NDArray[Any]
SCALE = 1e-4


def make_wcs(y: float = 0.0, x: float = 0.0, angle: float = 0.0, scale: float = SCALE) -> WCS:
    """Return a WCS whose pixel (y, x) is at the reference point."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10, 20]
    wcs.wcs.crpix = [x + 1, y + 1]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


def make_frame(data: Array, wcs: WCS, **more: Any) -> xr.Dataset:
    """Return a frame."""
    return lazyccd.from_ccddata(CCDData(data, unit=more.pop("unit", "electron"), wcs=wcs, **more))


def make_noisy(count: int, shape: tuple[int, int], seed: int = 1, *, turned: bool = True) -> list[xr.Dataset]:
    """Return frames of noise of one, dithered and turned, with bad pixels."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        middle = np.array(shape) / 2 + rng.uniform(-10, 10, 2)
        data = rng.normal(0, 1, shape).astype(np.float32)
        uncertainty = StdDevUncertainty(np.ones(shape, np.float32))
        wcs = make_wcs(*middle, angle=rng.uniform(-40, 40) if turned else 0)
        frames.append(make_frame(data, wcs, uncertainty=uncertainty, mask=rng.random(shape) < 0.02))
    return frames


def stacked_warps(frames: list[xr.Dataset], wcs: WCS, shape: tuple[int, int], **options: Any) -> xr.Dataset:
    """Return what a coadd is said to be: the stack of the warps of each frame by itself."""
    return lazyccd.combine([lazyccd.wcs_project(f, wcs, shape, order="lanczos3") for f in frames], **options)


@pytest.mark.parametrize("method", ["average", "median", "sum"])
@pytest.mark.parametrize("reject", [None, "clipped", "varclip"])
def test_coadd_is_the_stack_of_warps(method: str, reject: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plane, of frames that cover parts of the grid."""
    # a stack of warps does not know what the kernel has spread
    monkeypatch.setattr("lazyccd.ops.mosaic.coadd._spread", lambda *_: ())
    frames = make_noisy(6, (60, 80))
    frames[0]["data"][30:33, 40:43] = 500.0
    wcs, shape = make_wcs(55, 60), (110, 120)
    mosaic = lazyccd.coadd(frames, wcs, shape, method, reject=reject, maps=("n_used", "n_rejected"))
    expected = stacked_warps(frames, wcs, shape, method=method, reject=reject, maps=("n_used", "n_rejected"))
    assert (mosaic["n_used"] == 0).values.any()
    assert (mosaic["n_used"].values.max(), reject is None) == (6, not mosaic["n_rejected"].values.any())
    for name in ("n_used", "n_rejected", "mask"):
        np.testing.assert_array_equal(mosaic[name].values, expected[name].values, name)
    # the scale of a TAN projection changes by 1e-8 over these fields; `wcs_project` takes one number for it
    for name in ("data", "uncertainty"):
        np.testing.assert_allclose(mosaic[name].values, expected[name].values, rtol=1e-5, atol=1e-5, err_msg=name)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30), st.integers(0, 1000))
def test_no_region_shows_chunks(height: int, width: int, y: int, x: int, seed: int) -> None:
    """A region that is computed by itself has the bits that it has in the whole, in data, uncertainty, mask and maps."""
    frames = make_noisy(5, (30, 35), seed)
    maps = ("n_used", "n_rejected", "variance_aperture")
    mosaic = lazyccd.coadd(frames, make_wcs(30, 30), (60, 62), maps=maps)
    whole = mosaic.compute()
    part = lazyccd.coadd(frames, make_wcs(30, 30), (60, 62), maps=maps).ccd.rechunk((height, width))
    region = {"y": slice(y, y + height), "x": slice(x, x + width)}
    xr.testing.assert_identical(part.isel(region).compute().drop_attrs(), whole.isel(region).drop_attrs())


def test_only_frames_that_lie_there_are_read(tmp_path: Path) -> None:
    """A cut-out computes although the file of a frame that lies elsewhere is gone."""
    names = []
    for number, x in enumerate((0, 4000)):
        names.append(str(tmp_path / f"{number}.fits"))
        header = make_wcs(0, -x).to_header()
        fits.writeto(names[-1], np.full((50, 50), number + 1.0, np.float32), header)
    mosaic = lazyccd.coadd(names, make_wcs(0, 0), (50, 4100), unit="adu", order="nearest")
    Path(names[1]).unlink()
    np.testing.assert_array_equal(mosaic["data"][:, :40].compute(scheduler="sync"), np.full((50, 40), 1.0))


def test_a_plan_states_the_memory_of_the_chunk_that_most_frames_touch() -> None:
    """The first chunks of this mosaic have no frame, and the task on the third needs all of them."""
    frames = [make_frame(np.zeros((300, 300), np.float32), make_wcs(0, -4500)) for _ in range(8)]
    mosaic = lazyccd.coadd(frames, make_wcs(), (300, 6144), reject=None)
    plan = with_inputs(mosaic).plan
    costs = [task_cost(plan, Region(0, 300, x, x + 2048)).peak_bytes for x in (0, 2048, 4096)]
    assert max(costs) == costs[2] > costs[0]
    assert plan_report(mosaic).task_bytes == costs[2]


def test_a_cut_out_is_made_by_itself(tmp_path: Path) -> None:
    """It has the bits of the whole, all variables, and does not read what its chunk would."""
    frames = make_noisy(5, (60, 60))
    mosaic = lazyccd.coadd(frames, make_wcs(45, 50), (90, 100), maps=("n_used", "variance_aperture"))
    part = mosaic.ccd.cutout(y=slice(20, 61), x=slice(33, 70))
    whole = mosaic.compute().isel(y=slice(20, 61), x=slice(33, 70))
    xr.testing.assert_identical(part.compute().drop_attrs(), whole.drop_attrs())
    fewer = mosaic.drop_vars("n_used").ccd.cutout(y=slice(20, 61), x=slice(33, 70))
    xr.testing.assert_identical(fewer.compute().drop_attrs(), whole.drop_vars("n_used").drop_attrs())
    scaled = lazyccd.multiply(mosaic, 2).ccd.cutout("[34:70,21:61]")
    np.testing.assert_array_equal(scaled["data"].values, 2 * whole["data"].values)
    names = []
    for number, x in enumerate((0, 100)):
        names.append(str(tmp_path / f"{number}.fits"))
        fits.writeto(names[-1], np.full((50, 50), number + 1.0, np.float32), make_wcs(0, -x).to_header())
    mosaic = lazyccd.coadd(names, make_wcs(0, 0), (50, 160), unit="adu", order="nearest")
    assert mosaic["data"].chunks == ((50,), (160,))
    Path(names[1]).unlink()
    np.testing.assert_array_equal(mosaic.ccd.cutout(x=slice(0, 40))["data"].values, np.full((50, 40), 1.0))


def test_files_trees_and_frames_together(tmp_path: Path) -> None:
    """Each image of a file or tree is a frame of the mosaic, of which each lies on another part."""
    hdus = [fits.PrimaryHDU()]
    for number in (1, 2):
        header = make_wcs(0, -10 * number).to_header()
        header["BUNIT"] = "adu"
        hdus.append(fits.ImageHDU(np.full((4, 10), float(number)), header, name=f"CCD{number}"))
    fits.HDUList(hdus).writeto(tmp_path / "two.fits")
    tree = lazyccd.open_mef(tmp_path / "two.fits")
    frame = make_frame(np.full((4, 10), 3.0), make_wcs(0, -30), unit="adu")
    for given_frames in ([tmp_path / "two.fits", frame], [tree, frame]):
        mosaic = lazyccd.coadd(given_frames, make_wcs(0, 0), (4, 45), order="nearest")
        expected = np.repeat([np.nan, 1.0, 2.0, 3.0, np.nan], [10, 10, 10, 10, 5])
        np.testing.assert_array_equal(mosaic["data"].values[1], expected)


@pytest.mark.parametrize("shape", [(100, 101), (64, 64), (1, 1)])
def test_the_grid_of_one_frame_is_its_own(shape: tuple[int, int]) -> None:
    """One frame with north up has as many rows and columns on the grid as it had, on its own pixels."""
    frame = make_frame(np.ones(shape), make_wcs((shape[0] - 1) / 2, (shape[1] - 1) / 2))
    grid, found = lazyccd.find_optimal_grid(frame)
    assert found == shape
    np.testing.assert_allclose(grid.wcs.crpix, frame.ccd.wcs.wcs.crpix, atol=0.01)


def test_a_keyword_that_no_frame_has_is_named() -> None:
    """A misspelt keyword of scales or weights is told from a wrong word."""
    frames = make_noisy(2, (20, 20))
    with pytest.raises(ParameterError, match=r"flux_scale 'NOKEY' .* header of no frame has the keyword 'NOKEY'"):
        lazyccd.coadd(frames, flux_scale="NOKEY")
    with pytest.raises(ParameterError, match=r"weights 'NOKEY' .* none has 'NOKEY'"):
        lazyccd.coadd(frames, weights="NOKEY")


def test_grid_of_a_mosaic() -> None:
    """None takes a grid that holds the frames, or their part of the grid that is given."""
    frames = [make_frame(np.ones((20, 30)), make_wcs(0, x)) for x in (0, -25)]
    assert lazyccd.coadd(frames, make_wcs(0, 0), order="nearest").sizes == {"y": 20, "x": 55}
    free = lazyccd.coadd(frames, order="nearest")
    assert abs(free.sizes["x"] - 56) <= 1
    assert header_view(free.attrs["header"])["CTYPE1"] == "RA---TAN"


def test_weights_and_flux_scales() -> None:
    """Numbers, keywords and images of weights, and factors of the flux, with the variance that follows."""
    frames = []
    for value, exposure in ((1.0, 10.0), (4.0, 20.0)):
        data = np.full((9, 9), value)
        meta = {"EXPTIME": exposure, "FLXSCALE": 1 / value}
        frames.append(
            make_frame(data, make_wcs(4, 4), meta=meta, uncertainty=StdDevUncertainty(np.full((9, 9), value)))
        )
    grid = (make_wcs(4, 4), (9, 9))

    def middle(**options: Any) -> tuple[float, float]:
        mosaic = lazyccd.coadd(frames, *grid, **options).isel(y=4, x=4)
        return float(mosaic["data"]), float(mosaic["uncertainty"]) ** 2

    assert middle() == (2.5, pytest.approx(17 / 4))
    assert middle(weights=(3, 1)) == (1.75, pytest.approx((9 + 16) / 16))
    assert middle(weights="exposure") == (3.0, pytest.approx((100 + 400 * 16) / 900))
    assert middle(weights="smoothed") == (pytest.approx((1 + 4 / 16) / (17 / 16)), pytest.approx(16 / 17))
    assert middle(flux_scale="FLXSCALE") == (1.0, pytest.approx(0.5))
    assert middle(flux_scale="exposure") == (1.5, pytest.approx((1 + 4) / 4))
    assert middle(method="sum", weights=(3, 1))[0] == 7.0


def test_aperture_variance_of_a_stack() -> None:
    """It is the mean of the frames' own, over their number."""
    frames = make_noisy(4, (40, 40), turned=False)
    wcs, shape = make_wcs(20, 20), (40, 40)
    mosaic = lazyccd.coadd(frames, wcs, shape, maps=("variance_aperture", "n_used"), reject=None)
    inside = mosaic.isel(y=slice(14, 26), x=slice(14, 26)).compute()
    full = inside["n_used"].values == 4
    assert full.sum() > 60
    np.testing.assert_allclose(inside["variance_aperture"].values[full], 0.25, rtol=0.2)
    assert inside["variance_aperture"].values[full].mean() == pytest.approx(0.25, rel=0.02)
    assert inside["variance_aperture"].attrs["units"] == "electron2"


def test_rejection_above_the_sky_of_each_frame() -> None:
    """Skies of different levels hide no outlier, and are not taken for outliers themselves; the mean keeps them."""
    rng = np.random.default_rng(2)
    frames = [make_frame(sky + rng.normal(0, 1, (50, 50)), make_wcs(25, 25)) for sky in (900, 1000, 1000, 1100, 2000)]
    frames[0]["data"][10, 10:20] += 60
    frames[4]["data"][30, 10:20] += 60
    mosaic = lazyccd.coadd(frames, make_wcs(25, 25), (50, 50), order="nearest", maps=("n_rejected",), reject="clipped")
    expected = np.zeros((50, 50), int)
    expected[[10, 30], 10:20] = 1
    np.testing.assert_array_equal(mosaic["n_rejected"].values, expected)
    assert np.median(mosaic["data"].values) == pytest.approx(1200, abs=1)


def test_coverage_and_least_coverage() -> None:
    """What fewer frames than asked for give is empty; what a rejection or a mask takes away counts as covered or not."""
    frames = [make_frame(np.full((3, 9), 5.0), make_wcs(0, x)) for x in (0, -3, -3, -3, -6)]
    frames[1]["data"][1, 4] = 5000.0
    options: Any = {"order": "nearest", "maps": ("coverage", "n_used"), "reject": "clipped"}
    mosaic = lazyccd.coadd(frames, make_wcs(0, 0), (3, 15), **options).isel(y=1)
    np.testing.assert_array_equal(mosaic["coverage"].values, np.repeat([1, 4, 5, 4, 1], 3))
    np.testing.assert_array_equal(mosaic["n_used"].values, mosaic["coverage"].values - (np.arange(15) == 7))
    few = lazyccd.coadd(frames, make_wcs(0, 0), (3, 15), min_coverage=4, **options).isel(y=1)
    left = mosaic["n_used"].values >= 4
    np.testing.assert_array_equal(np.isfinite(few["data"].values), left)
    np.testing.assert_array_equal(few["mask"].values == MaskSchema().bits("NO_DATA"), ~left)
    np.testing.assert_array_equal(few["data"].values[left], mosaic["data"].values[left])


def test_feather_hides_the_edge_of_a_frame() -> None:
    """The weight falls to 0 over so many pixels, and nothing else changes."""
    frames = [make_frame(np.full((41, 60), value), make_wcs(0, x)) for value, x in ((0.0, 0), (10.0, -30))]
    plain = lazyccd.coadd(frames, make_wcs(0, 0), (41, 90), order="nearest")["data"].values[20]
    feathered = lazyccd.coadd(frames, make_wcs(0, 0), (41, 90), order="nearest", feather=20)["data"].values[20]
    assert np.abs(np.diff(plain)).max() == 5.0
    assert np.abs(np.diff(feathered)).max() < 0.6
    expected = np.clip((np.arange(30) + 0.5) / 20, 0, 1)
    np.testing.assert_allclose(feathered[30:60], 10 * expected / (expected + expected[::-1]), rtol=1e-6)
    np.testing.assert_array_equal(feathered[:30], 0.0)


def test_a_cut_out_waits_for_its_own_frames_only(tmp_path: Path) -> None:
    """A statistic of a frame that lies elsewhere is not computed."""
    names = []
    for number, x in enumerate((0, 4000)):
        names.append(str(tmp_path / f"{number}.fits"))
        fits.writeto(names[-1], np.full((50, 50), number + 1.0, np.float32), make_wcs(0, -x).to_header())
    frames = [lazyccd.open_fits(name, unit="adu") for name in names]
    flats = [lazyccd.flat_correct(frame, frame) for frame in frames]
    mosaic = lazyccd.coadd(flats, make_wcs(0, 0), (50, 4100), order="nearest")
    Path(names[1]).unlink()
    np.testing.assert_array_equal(mosaic["data"][:, :40].compute(scheduler="sync"), np.full((50, 40), 1.0))


def test_seeing_and_outliers() -> None:
    """The default takes out cosmic rays, and leaves the middle of stars as they are from 1 to 2 arcseconds of seeing."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:80, :80]
    frames, plain, sharp = [], [], np.linspace(2.0, 4.0, 12)
    for number, fwhm in enumerate(rng.permutation(sharp)):
        sigma = fwhm / 2.3548
        star = 2e5 / (2 * np.pi * sigma**2) * np.exp(-((y - 40) ** 2 + (x - 40) ** 2) / 2 / sigma**2)
        data = star + rng.normal(0, np.sqrt(star + 25))
        plain.append(data.copy())
        data[8 + number * 4, 8:20] += 400.0
        uncertainty = StdDevUncertainty(np.sqrt(star + 25))
        frames.append(make_frame(data, make_wcs(40, 40), uncertainty=uncertainty))
    grid = (make_wcs(40, 40), (80, 80))
    mosaic = lazyccd.coadd(frames, *grid, maps=("n_rejected", "n_used")).compute()
    expected = np.mean(plain, axis=0)
    core, star = (slice(38, 43), slice(38, 43)), (slice(28, 53), slice(28, 53))
    assert mosaic["n_rejected"].values[core].sum() == 0
    assert mosaic["data"].values[core].sum() == pytest.approx(expected[core].sum(), rel=1e-3)
    # far out, where the median is no longer above the noise, the widest images are taken for outliers
    assert mosaic["data"].values[star].sum() == pytest.approx(expected[star].sum(), rel=4e-3)
    # before resampling or after it
    assert mosaic["n_used"].values[8:56:4, 8:20].max() < 12
    assert mosaic["n_used"].values[core].min() == 12
    with pytest.warns(StarCoreWarning, match="cuts the middle of stars"):
        cut = lazyccd.coadd(frames, *grid, reject=SigmaClip(deviation="mad_std"))
    assert abs(cut["data"].values[core].sum() / expected[core].sum() - 1) > 0.01


@pytest.mark.parametrize(("order", "most"), [("bilinear", 1), ("lanczos3", 1)])
def test_a_streak_and_drifting_hot_pixels(order: Any, most: float) -> None:
    """They are gone from the default coadd of 20 frames that drift by 0.2 pixels each."""
    rng = np.random.default_rng(8)
    frames, clean = [], []
    for number in range(20):
        wcs = make_wcs(30, 30 + 0.2 * number)
        data = rng.normal(100, 1, (60, 60))
        clean.append(make_frame(data.copy(), wcs, uncertainty=StdDevUncertainty(np.ones((60, 60)))))
        data[10:50:10, 15] += 60.0
        if number == 7:
            data[5 + np.arange(50), 5 + np.arange(50)] += 30.0
        frames.append(make_frame(data, wcs, uncertainty=StdDevUncertainty(np.ones((60, 60)))))
    grid = (make_wcs(30, 30), (60, 60))
    truth, raw = (lazyccd.coadd(each, *grid, reject=None, order=order)["data"].values for each in (clean, frames))
    mosaic = lazyccd.coadd(frames, *grid, order=order)["data"].values
    assert np.nanmax(np.abs(raw - truth)) > 10
    assert np.nanmax(np.abs(mosaic - truth)[:, 8:52]) < most
    assert np.nanstd((mosaic - truth)[:, 8:52]) < 0.25


def test_frames_off_the_grid() -> None:
    """They are left out and named; an error if none is on it."""
    frames = [make_frame(np.ones((5, 5)), make_wcs(0, x)) for x in (0, 5000)]
    with pytest.warns(OffGridWarning, match="1 of 2 frames do not lie on the grid and are left out: frame 2"):
        mosaic = lazyccd.coadd(frames, make_wcs(0, 0), (5, 5))
    assert header_view(mosaic.attrs["header"])["NCOMBINE"] == 1
    assert "frames that do not lie on the grid: frame 2" in str(header_view(mosaic.attrs["header"])["HISTORY"])
    with pytest.raises(ParameterError, match="none of the 1 frames lies on the grid of 5 x 5 pixels"):
        lazyccd.coadd(frames[1:], make_wcs(0, 0), (5, 5))


@pytest.mark.filterwarnings("ignore::lazyccd.errors.EmptyFrameWarning")
def test_chunks_without_frames_take_no_space(tmp_path: Path) -> None:
    """They are counted, and a store has no files for them, nor for those of a frame that is NaN."""
    ones = np.ones((300, 300), np.float32)
    frames = [make_frame(ones, make_wcs(0, 0)), make_frame(np.nan * ones, make_wcs(-2200, -2200))]
    mosaic = lazyccd.coadd(frames, make_wcs(0, 0), (2600, 2600), order="nearest", maps=("n_used",))
    rows, columns = (len(sizes) for sizes in mosaic["data"].data.chunks)
    assert rows * columns > 2
    assert empty_chunks(mosaic) == rows * columns - 2
    store = lazyccd.to_zarr(mosaic, tmp_path / "a.zarr")
    for name in ("data", "mask", "n_used"):
        assert len([path for path in (Path(store) / "0" / name / "c").rglob("*") if path.is_file()]) == 1
    assert (lazyccd.open_zarr(store)["mask"].values[-1] == MaskSchema().bits("NO_DATA")).all()


def test_frames_without_a_good_pixel() -> None:
    """They are told at the call if they are in memory, else by the task that measures their sky; of all of them there is no mosaic."""
    wcs, shape, rng = make_wcs(0, 0), (20, 30), np.random.default_rng(0)
    good = [CCDData(rng.normal(0, 1, shape), unit="adu", wcs=wcs) for _ in range(2)]
    nan = CCDData(np.full(shape, np.nan), unit="adu", wcs=wcs)
    masked = CCDData(np.ones(shape), unit="adu", wcs=wcs, mask=np.ones(shape, bool))
    for bad in (nan, masked, lazyccd.from_ccddata(masked).compute()):
        with pytest.warns(
            EmptyFrameWarning, match="all pixels of frame 2 are NaN or masked; the mosaic is that of the other"
        ):
            lazyccd.coadd([good[0], bad], wcs, shape)
        with pytest.raises(ParameterError, match="all pixels of frame 1, frame 2 are NaN or masked, so the mosaic"):
            lazyccd.coadd([bad, bad.copy()], wcs, shape)
    lazy = lazyccd.coadd([good[0], lazyccd.from_ccddata(masked)], wcs, shape)
    with pytest.warns(EmptyFrameWarning, match="a frame: all of the 600 pixels from which its sky is measured"):
        np.testing.assert_array_equal(lazy["data"].values, good[0].data)
    weights = [np.ones(shape), np.zeros(shape)]
    with pytest.warns(EmptyFrameWarning, match="the weights of frame 2 are nowhere above 0; the mosaic is that of the"):
        mosaic = lazyccd.coadd(good, wcs, shape, weights=weights, reject=None)
    np.testing.assert_array_equal(mosaic["data"].values, good[0].data)
    with pytest.raises(ParameterError, match="the weights of frame 1, frame 2 are nowhere above 0, so"):
        lazyccd.coadd(good, wcs, shape, weights=[weights[1]] * 2)


@pytest.mark.filterwarnings("ignore:.*from which its sky is measured")
@pytest.mark.parametrize("weights", ["variance", "smoothed", "pixel", None])
@pytest.mark.parametrize("what", ["masked", "nan", "unknown"])
def test_one_rule_for_frames_without_a_good_pixel(weights: Any, what: str) -> None:
    """Whatever weighs frames, one that is masked, NaN, or has no known uncertainty anywhere adds nothing."""
    wcs, shape, rng = make_wcs(0, 0), (20, 30), np.random.default_rng(0)
    frames = []
    for number in range(3):
        data, sigma, mask = rng.normal(0, 1, shape), np.ones(shape), np.zeros(shape, bool)
        if number == 1:
            data, sigma = (np.nan * data if what == "nan" else data), (np.nan * sigma if what == "unknown" else sigma)
            mask |= what == "masked"
        given = CCDData(data, unit="adu", wcs=wcs, mask=mask, uncertainty=StdDevUncertainty(sigma))
        frames.append(lazyccd.from_ccddata(given))
    others = lazyccd.coadd(frames[::2], wcs, shape, weights=weights).compute()
    mosaic = lazyccd.coadd(frames, wcs, shape, weights=weights)
    told = pytest.warns(EmptyFrameWarning, match="all pixels of frame 2 are NaN or masked, or have no uncertainty")
    # the variance of a pixel that is NaN is known: the frame has a weight, and no pixel
    with told if weights == "variance" and what != "nan" else nullcontext():
        mosaic = mosaic.compute()
    np.testing.assert_allclose(mosaic["data"].values, others["data"].values, rtol=1e-12)
    assert np.isfinite(mosaic["data"].values).all()


def test_bad_input() -> None:
    """Errors name the frame, the keyword, both values and the way out."""
    plain = lazyccd.from_ccddata(CCDData(np.ones((5, 5)), unit="adu"))
    with pytest.raises(FrameError, match="no celestial WCS"):
        lazyccd.coadd([plain], make_wcs(), (5, 5))
    red, blue = (make_frame(np.ones((5, 5)), make_wcs(), meta={"FILTER": name}) for name in ("R", "B"))
    with pytest.raises(ParameterError, match="frame 2 has FILTER = 'B' and frame 1 has 'R'"):
        lazyccd.coadd([red, blue], make_wcs(), (5, 5))
    silent = make_frame(np.ones((5, 5)), make_wcs())
    with pytest.raises(ParameterError, match="frame 3 has FILTER = 'B' and frame 2 has 'R'"):
        lazyccd.coadd([silent, red, blue], make_wcs(), (5, 5))
    with pytest.raises(ParameterError, match="lie few of the frames"):
        lazyccd.coadd([red] * 3, make_wcs(), (5, 5), reject=MinMax())
    with pytest.raises(ParameterError, match="frame 1 has no uncertainty for maps='variance_aperture'"):
        lazyccd.coadd([red], make_wcs(), (5, 5), maps=("variance_aperture",))
    with pytest.raises(ParameterError, match="needs the WCS of the grid"):
        lazyccd.coadd([red], shape=(5, 5))
    for options in ({"min_coverage": 0}, {"min_coverage": 1.5}, {"feather": -1}, {"feather": np.nan}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            lazyccd.coadd([red], make_wcs(), (5, 5), **options)
    with pytest.raises(ParameterError, match="at least one"):
        lazyccd.coadd([])


def test_header_of_a_mosaic() -> None:
    """It is that of a stack, with the WCS of the mosaic, and says how frames were resampled."""
    frames = [make_frame(np.ones((9, 9)), make_wcs(4, 4 + i), meta={"EXPTIME": 10.0 + i}) for i in range(3)]
    wcs = make_wcs(4, 4, angle=5)
    text = lazyccd.coadd(frames, wcs, (9, 9), order="bicubic").attrs["header"]
    header = header_view(text)
    assert (header["NCOMBINE"], header["TOTEXP"], header["RESAMPLE"]) == (3, 33.0, "bicubic")
    assert (header["PIXRATIO"], header["NOISEFAC"]) == (1.0, 1.228)
    assert WCS(fits.Header.fromstring(text, sep="\n")).wcs.compare(wcs.wcs, tolerance=1e-9)


def test_frames_at_a_position(tmp_path: Path) -> None:
    """Which frames lie there, with which weight and scale, used or why not; by pixel and on the sky."""
    names = []
    for number, x in enumerate((0, -4, -4, -4, -4, -8)):
        names.append(str(tmp_path / f"{number}.fits"))
        data = np.full((9, 9), 1.0 + 0.01 * number)
        data[4, 3] = 500.0 if number == 2 else data[4, 3]
        header = make_wcs(0, x).to_header()
        header["FLXSCALE"] = 1.0 + (number == 5)
        fits.writeto(names[-1], data, header)
    wcs = make_wcs(0, 0)
    options: Any = {"unit": "adu", "weights": (1, 2, 3, 4, 5, 6), "flux_scale": "FLXSCALE"}
    mosaic = lazyccd.coadd(names, wcs, (9, 17), reject="clipped", **options)
    assert "read 0.fits[0] and 5 others -> " in str(mosaic.ccd.plan())
    table = mosaic.ccd.frames_at((4, 7))
    assert table["number"].tolist() == [1, 2, 3, 4, 5]
    assert table["file"].tolist() == [f"{i}.fits" for i in range(5)]
    assert table["x"].tolist() == [7, 3, 3, 3, 3]
    assert set(table["y"]) == {4}
    assert table["weight"].tolist() == [1, 2, 3, 4, 5]
    assert table["note"].tolist() == ["used", "used", "clipped", "used", "used"]
    np.testing.assert_allclose(table["value"], [1.0, 1.01, 500.0, 1.03, 1.04])
    on_sky = mosaic.ccd.frames_at(wcs.pixel_to_world(15.2, 3.9))
    assert (on_sky["file"].tolist(), on_sky["flux_scale"].tolist()) == (["5.fits"], [2.0])
    with pytest.raises(SectionError, match="the mosaic has 9 x 17 pixels"):
        mosaic.ccd.frames_at((9, 0))
    with pytest.raises(ParameterError, match="must be a SkyCoord"):
        mosaic.ccd.frames_at("here")
    with pytest.raises(ParameterError, match="not a mosaic as coadd"):
        mosaic.ccd.multiply(2).ccd.frames_at((4, 7))


def test_frames_at_tells_corrections() -> None:
    """What matching subtracts from each frame is in the table."""
    frames = [make_frame(np.full((64, 64), level), make_wcs(32, 32)) for level in (10.0, 14.0)]
    mosaic = lazyccd.coadd(frames, make_wcs(32, 32), (64, 64), match="constant", flux_scale=(1.0, 1.0))
    table = mosaic.ccd.frames_at((30, 31))
    np.testing.assert_allclose(table["sky_correction"], [-2.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(table["value"], [12.0, 12.0], atol=1e-6)
    assert table["flux_scale"].tolist() == [1.0, 1.0]


def test_stamps_of_a_position() -> None:
    """They are parts of the warps of each frame, lazy, with masks and uncertainties, cut off at the edge of the mosaic."""
    frames = make_noisy(4, (40, 50))
    wcs, shape = make_wcs(40, 40), (80, 80)
    mosaic = lazyccd.coadd(frames, wcs, shape)
    stamps = mosaic.ccd.stamps((41, 39), (7, 8))
    assert stamps.sizes == {"frame": 4, "y": 7, "x": 8}
    assert stamps["data"].chunks is not None
    for number, frame in enumerate(frames):
        warp = lazyccd.wcs_project(frame, wcs, shape, order="lanczos3").isel(y=slice(38, 45), x=slice(36, 44))
        np.testing.assert_array_equal(stamps["mask"][number].values, warp["mask"].values)
        for name in ("data", "uncertainty"):
            np.testing.assert_allclose(stamps[name][number].values, warp[name].values, rtol=1e-5, atol=1e-5)
    assert (stamps["y"][0], stamps["x"][-1], stamps["data"].attrs["units"]) == (38, 43, "electron")
    assert mosaic.ccd.stamps((79, 40), 9).sizes["y"] == 5
    with pytest.raises(ParameterError, match="no frame of the mosaic lies on"):
        mosaic.ccd.stamps((0, 0), 2)


def test_explain_tells_of_the_frames_that_are_there() -> None:
    """Each by its own number."""
    frames = [make_frame(np.full((5, 5), 1.0 + i), make_wcs(0, -5 * i)) for i in range(3)]
    table = lazyccd.coadd(frames, make_wcs(0, 0), (5, 15), order="nearest").ccd.explain(2, 12)
    assert table["value"][table["step"] == "to the stack"].tolist() == [3.0]
    assert set(table["frame"]) == {"3", "result"}


def test_running_stack_on_the_sky(tmp_path: Path) -> None:
    """It is the weighted coadd of the frames that are in it, and a folder that is opened again keeps its grid."""
    frames = make_noisy(4, (40, 50))
    wcs, shape = make_wcs(40, 45, angle=3), (80, 90)
    stack = lazyccd.RunningStack(tmp_path / "deep", wcs=wcs, shape=shape)
    for number, frame in enumerate(frames):
        stack.add(frame, weight=1.0 + number, name=f"f{number}")
    again = lazyccd.RunningStack(tmp_path / "deep")
    again.veto("f1", frames[1])
    left, weights = [frames[i] for i in (0, 2, 3)], (1.0, 3.0, 4.0)
    expected = lazyccd.coadd(left, wcs, shape, weights=weights, reject=None).compute()
    result = again.result().compute()
    np.testing.assert_array_equal(np.isnan(result["data"].values), np.isnan(expected["data"].values))
    for name in ("data", "uncertainty"):
        np.testing.assert_allclose(result[name].values, expected[name].values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result["mask"].values, expected["mask"].values)
    assert result.ccd.wcs.wcs.compare(wcs.wcs, tolerance=1e-9)
    with pytest.raises(ParameterError, match="was made with another grid"):
        lazyccd.RunningStack(tmp_path / "deep", wcs=make_wcs(), shape=shape)
    with pytest.raises(ParameterError, match="give both, or neither"):
        lazyccd.RunningStack(tmp_path / "other", wcs=wcs)
    with pytest.raises(ParameterError, match="does not lie on the grid"):
        again.add(make_frame(np.ones((5, 5), np.float32), make_wcs(0, 5000)), name="far")


@pytest.mark.parametrize("with_noise", [True, False])
def test_outliers_by_the_blotted_median(with_noise: bool) -> None:
    """Rays are gone from each frame before it is resampled; stars of undersampled frames stay whole."""
    rng = np.random.default_rng(3)
    frames, clean, sky = [], [], 300.0
    y, x = np.mgrid[:60, :70]
    for number in range(5):
        wcs = make_wcs(30 + rng.uniform(-3, 3), 35 + rng.uniform(-3, 3), angle=rng.uniform(-5, 5))
        star = np.zeros((60, 70))
        for dy, dx in ((0, 0), (12, 9), (-9, 14), (7, -15)):
            column, row = wcs.world_to_pixel_values(10 + dx * SCALE, 20 + dy * SCALE)
            star += 3000 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / 0.9**2)
        data = star + sky + 50 * number + rng.normal(0, 5, star.shape)
        more = {"uncertainty": StdDevUncertainty(np.sqrt(25 + star))} if with_noise else {}
        clean.append(make_frame(data, wcs, **more))
        rays = data.copy()
        rays[rng.integers(5, 55, 30), rng.integers(5, 65, 30)] += 900.0
        frames.append(make_frame(rays, wcs, **more))
    grid = (make_wcs(25, 30), (50, 60))
    options: Any = {"sky": "constant", "order": "bilinear"}
    truth = lazyccd.coadd(clean, *grid, reject=None, **options).compute()
    raw = lazyccd.coadd(frames, *grid, reject=None, **options).compute()
    mosaic = lazyccd.coadd(frames, *grid, reject="blotted", maps=("coverage",), **options)
    result = mosaic.compute()
    error = np.abs(result["data"].values - truth["data"].values)
    assert np.nanmax(np.abs(raw["data"].values - truth["data"].values)) > 100
    assert np.nanpercentile(error, 99.5) < 15
    assert np.isfinite(result["data"].values).mean() > 0.99
    flux = [np.nansum(m["data"].values[20:31, 25:36]) for m in (result, truth)]
    # a ray of 900 on the flank of a star is less than the slope there
    assert flux[0] == pytest.approx(flux[1], rel=0.02)
    part = mosaic.ccd.cutout(y=slice(10, 33), x=slice(20, 41)).compute()
    xr.testing.assert_identical(part.drop_attrs(), result.isel(y=slice(10, 33), x=slice(20, 41)).drop_attrs())
    with pytest.raises(ParameterError, match="two numbers that are not below 0"):
        Blotted(snr=(5, -1))


def test_blotted_outliers_of_frames_whose_scales_are_measured() -> None:
    """Scales that the overlaps tell serve the comparison as well as those that are given: rays go, and stars stay."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:140, :140]
    stars, flux = rng.uniform(10, 130, (40, 2)), rng.uniform(1000, 20000, 40)
    grid, factors = (make_wcs(70, 70), (140, 140)), (1.0, 1.5, 0.6, 2.0)
    frames, clean = [], []
    for number, factor in enumerate(factors):
        wcs = make_wcs(*(70 + rng.uniform(-6, 6, 2)), angle=rng.uniform(-5, 5))
        columns, rows = wcs.world_to_pixel_values(*grid[0].pixel_to_world_values(stars[:, 1], stars[:, 0]))
        light = [
            f * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / 1.5**2) / 14
            for row, column, f in zip(rows, columns, flux, strict=True)
        ]
        clean.append(make_frame(factor * np.sum(light, axis=0) + rng.normal(0, 5, y.shape) + 50 * number, wcs))
        rays = clean[-1]["data"].values.copy()
        rays[tuple(rng.integers(5, 135, (2, 60)))] += 600.0
        frames.append(make_frame(rays, wcs))
    options: Any = {"flux_scale": "overlaps", "match": "constant", "order": "bilinear"}
    mosaic = lazyccd.coadd(frames, *grid, reject="blotted", **options)
    truth = lazyccd.coadd(clean, *grid, reject=None, **options)["data"].values
    raw = lazyccd.coadd(frames, *grid, reject=None, **options)["data"].values
    scales = lazyccd.mosaic_corrections(mosaic)["flux_scale"] * factors
    np.testing.assert_allclose(scales / scales.mean(), 1, atol=0.03)
    inner = np.s_[15:-15, 15:-15]
    off, left = (np.nanpercentile(np.abs(one - truth)[inner], 99.5) for one in (raw, mosaic["data"].values))
    assert off > 50
    assert left < 5


def test_running_stack_on_the_sky_takes_trees(tmp_path: Path) -> None:
    """Each frame of a tree is one of its own, those that lie elsewhere are left out, and a veto takes all out."""
    frames = make_noisy(4, (40, 50))
    wcs, shape = make_wcs(40, 45), (80, 90)
    away = make_frame(np.ones((40, 50)), make_wcs(5000, 0), uncertainty=StdDevUncertainty(np.ones((40, 50))))
    tree = make_tree({"one": frames[0], "two": frames[1], "three": away}, {})
    stack = lazyccd.RunningStack(tmp_path / "deep", wcs=wcs, shape=shape)
    with pytest.warns(OffGridWarning, match="left out: three"):
        stack.add(tree, name="night")
    stack.add(frames[2], name="single")
    assert stack.names == ["night[one]", "night[two]", "single"]
    expected = lazyccd.coadd(frames[:3], wcs, shape, reject=None).compute()
    np.testing.assert_allclose(stack.result()["data"].values, expected["data"].values, rtol=1e-5, atol=1e-6)
    stack.veto("night", tree)
    assert stack.names == ["single"]
    with pytest.raises(ParameterError, match="no frame of far lies on the grid"):
        stack.add(make_tree({"a": away}, {}), name="far")


def test_the_reach_of_outliers_on_a_fine_grid_is_bounded() -> None:
    """The margin of a chunk does not grow without limit, and the plan tells the memory for it."""
    frames = make_noisy(5, (40, 40), turned=False)
    reaches = []
    for scale in (0.5, 0.05):
        wcs = make_wcs(300, 300, scale=scale * SCALE)
        mosaic = lazyccd.coadd(frames, wcs, (600, 600), reject="clipped")
        reaches.append(with_inputs(mosaic).plan.footprints[0].halo[0])
    assert reaches == [6, 24]


def test_frames_that_would_be_wrong_in_silence(tmp_path: Path) -> None:
    """One given twice is told, a scale of 0 and a coverage that no pixel has are refused, by names; unknown rules are, too."""
    names = []
    for number in range(2):
        header = make_wcs(10, 10).to_header()
        header["FLXSCALE"] = float(number)
        names.append(str(tmp_path / f"{number}.fits"))
        fits.writeto(names[-1], np.full((20, 20), 1.0 + number, np.float32), header)
    with pytest.warns(RepeatedFrameWarning, match=r"frame 2 \(0.fits\) is frame 1 \(0.fits\)"):
        lazyccd.coadd([names[0], names[0], names[1]], unit="adu")
    with pytest.raises(ParameterError, match=r"flux_scale of frame 1 \(0.fits\) is 0 and must be above 0"):
        lazyccd.coadd(names, unit="adu", flux_scale="FLXSCALE")
    with pytest.raises(ParameterError, match="min_coverage 3 is more than the 2 frames"):
        lazyccd.coadd(names, unit="adu", min_coverage=3)
    with pytest.raises(ParameterError, match="'auto', 'blotted' or one of sigclip"):
        lazyccd.coadd(names, unit="adu", reject="foo")
    fits.writeto(tmp_path / "bare.fits", np.ones((20, 20), np.float32))
    with pytest.raises(FrameError, match=r"bare.fits.* has no celestial WCS"):
        lazyccd.coadd([*names, str(tmp_path / "bare.fits")], unit="adu")
