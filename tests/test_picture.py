"""Pictures show what is there: means of pixels, flags of any of them, and one scale for what is compared."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import dask
import dask.array as da
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from astropy.nddata import CCDData
from astropy.wcs import WCS
from click.testing import CliRunner
from matplotlib import pyplot as plt
from PIL import Image as PngImage

import lazyccd
from lazyccd.cli.main import main
from lazyccd.errors import FrameError, ParameterError
from lazyccd.picture import COLOURS, GREYS, draw_product, on_screen
from lazyccd.testing.steps import formula_frame

mpl.use("agg")


def make_frame(shape: tuple[int, int] = (70, 90)) -> xr.Dataset:
    """Return a frame in memory with noise about 100, NaN, and flags."""
    rng = np.random.default_rng(3)
    data = rng.normal(100, 5, shape).astype(np.float32)
    data[rng.random(shape) < 0.1] = np.nan
    data[:16, :16] = np.nan
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu"))
    bad = rng.random(shape) < 0.2
    bad[32:48, :32] = True
    return ds.ccd.add_mask(bad, "BAD").ccd.add_mask(rng.random(shape) < 0.02, "CR")


@pytest.mark.parametrize("chunks", [(70, 90), (13, 31)])
def test_a_point_is_the_mean_of_the_good_pixels(chunks: tuple[int, int]) -> None:
    """Points are those of a slow reference: means of good pixels, else of finite ones, else NaN; flags of any; for all chunks."""
    ds = make_frame().chunk(dict(zip("yx", chunks, strict=True)))
    screen = on_screen(ds, 12)
    side = screen.block[0]
    assert screen.block == (8, 8)
    data, mask = ds["data"].values, ds["mask"].values
    assert screen.values.shape == (9, 12)  # the last row and column have 6 and 2 pixels of 8
    for i in range(9):
        for j in range(12):
            box = np.s_[i * side : (i + 1) * side, j * side : (j + 1) * side]
            values, bits = data[box].astype(float), mask[box]
            finite = np.isfinite(values)
            good = finite & (bits == 0)
            used = good if good.any() else finite
            expected = values[used].mean() if used.any() else np.nan
            np.testing.assert_allclose(screen.values[i, j], expected, rtol=1e-6)
            for name, bit in (("BAD", 1), ("CR", 4)):
                assert screen.flags[name][i, j] == bool((bits & bit).any())
    assert np.isnan(screen.values[:2, :2]).all()
    assert np.isfinite(screen.values[4:6, :4]).all()  # all are bad there
    assert screen.has_holes == bool((np.isnan(screen.values) & ~screen.flags["BAD"] & ~screen.flags["CR"]).any())
    assert not on_screen(ds.ccd.add_mask(np.isnan(data), "NO_DATA"), 12).has_holes


def test_nothing_small_vanishes(tmp_path: Path) -> None:
    """In a field of 9000 pixels a star of 2 pixels and a single flagged pixel are seen, wherever they are."""
    data = da.zeros((9000, 9000), dtype=np.float32, chunks=(1000, 3000))
    data[5001:5003, 7001:7003] = 100
    mask = da.zeros(data.shape, dtype=bool, chunks=data.chunks)
    mask[8999, 17] = True
    screen = on_screen(formula_frame((9000, 9000), (1000, 3000), mask=False).assign(data=(("y", "x"), data)), 1100)
    assert screen.block == (9, 9)
    assert np.argwhere(screen.values > 0).tolist() == [[555, 777], [555, 778]]
    assert screen.values.sum() == pytest.approx(400 / 81)
    flagged = lazyccd.add_mask(formula_frame((9000, 9000), (1000, 3000), mask=False), mask, "SAT")
    assert np.argwhere(on_screen(flagged, 1100).flags["SAT"]).tolist() == [[999, 1]]


def test_memory_is_that_of_chunks() -> None:
    """A picture of a plan takes the memory of some chunks, not that of the image."""
    ds = lazyccd.median_filter(formula_frame((4096, 4096), (512, 512)), 3)
    on_screen(formula_frame((64, 64)), 8)
    tracemalloc.start()
    with dask.config.set(scheduler="sync"):
        screen = on_screen(ds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert screen.values.shape == (1024, 1024)
    assert peak < 4096 * 4096 * 4 / 3


def test_the_level_of_a_pyramid_is_read(tmp_path: Path) -> None:
    """The picture of an archived image comes from its pyramid; that of something made from it does not."""
    data = np.random.default_rng(0).normal(1000, 10, (1200, 1600)).astype(np.float32)
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu")).ccd.add_mask(data > 1045, "SAT")
    store = str(lazyccd.to_zarr(ds, tmp_path / "a.zarr"))
    whole = on_screen(lazyccd.open_zarr(store), 200)
    lazyccd.build_pyramid(store, 3)
    doubled = on_screen(lazyccd.open_zarr(store).ccd.multiply(2), 200)
    shutil.rmtree(tmp_path / "a.zarr" / "0" / "data" / "c")  # whoever reads the full image fails or sees zeros
    level = on_screen(lazyccd.open_zarr(store), 200)
    assert level.block == whole.block == (8, 8)
    assert level.extent == whole.extent
    np.testing.assert_allclose(level.values, whole.values, rtol=2e-3)
    np.testing.assert_array_equal(level.flags["SAT"], whole.flags["SAT"])
    np.testing.assert_allclose(doubled.values, 2 * whole.values, rtol=1e-6)


def test_interpolation_hides_nothing() -> None:
    """Of a pixel with CR and INTERP the colour of CR is seen; a plane that is named is drawn alone."""
    ds = lazyccd.from_ccddata(CCDData(np.zeros((20, 30)), unit="adu"))
    hit = np.zeros((20, 30), bool)
    hit[5, 6] = True
    ds = ds.ccd.add_mask(hit, "CR").ccd.add_mask(hit, "INTERP")
    ax = ds.ccd.show()
    layer = ax.images[1].get_array()
    np.testing.assert_allclose(layer[5, 6, :3], mpl.colors.to_rgb(COLOURS["CR"]))
    assert list(on_screen(ds, planes="interp").flags) == ["INTERP"]
    with pytest.raises(ParameterError, match="GHOST"):
        on_screen(ds, planes=["GHOST"])
    plt.close("all")


def numbers_in(path: Path) -> np.ndarray:
    """Return the colour numbers of a PNG file, its caption too."""
    with PngImage.open(path) as picture:
        return np.asarray(picture)


def test_before_and_after_have_one_contrast(tmp_path: Path) -> None:
    """Ten electrons above the sky are the same grey before and after, whatever level, pedestal and noise are."""
    rng = np.random.default_rng(5)
    for name, level, noise in (("raw", 900.0, 2.0), ("red", 100.0, 3.0)):
        data = rng.normal(level, noise, (200, 260))
        data[50:80, 100:140] = level + 4
        frame = lazyccd.from_ccddata(CCDData(data, unit="electron"))
        lazyccd.to_fits(frame, tmp_path / f"{name}.fits")
    draw_product(str(tmp_path / "red.fits"), tmp_path / "p.png", lazyccd.open_fits(tmp_path / "raw.fits"))
    box = np.s_[200 - 80 : 200 - 50, 100:140]  # first row at the bottom
    after, before = (numbers_in(tmp_path / f"p{end}.png") for end in ("", "_raw"))
    grey, same = np.unique(after[box]), np.unique(before[box])
    assert len(grey) == len(same) == 1
    assert 0 < grey[0] < GREYS - 1
    assert abs(int(grey[0]) - int(same[0])) <= 3
    assert not list(tmp_path.glob("*.part"))


def test_axes_limits_and_variables() -> None:
    """`show` has axes on the sky, limits, colormaps, the uncertainty, every pixel; what it cannot do it says."""
    ds = make_frame()
    ds = ds.assign(uncertainty=(("y", "x"), np.full(ds["data"].shape, 7.0, np.float32), {"units": "adu"}))
    ax = ds.ccd.show(vmin=90, vmax=120, cmap="viridis", title="a night", size=None)
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax, ax.images[0].cmap.name) == (90, 120, "viridis")
    assert ax.get_title() == "a night"
    assert ax.images[0].get_array().shape == (70, 90)
    assert float(np.nanmax(ds.ccd.show(variable="uncertainty").images[0].get_array())) == 7
    with pytest.raises(ParameterError, match=r"'n_used' must be one of .* data, uncertainty"):
        ds.ccd.show(variable="n_used")
    with pytest.raises(ParameterError, match=r"'virids' must be a colormap of matplotlib, such as viridis"):
        ds.ccd.show(cmap="virids")
    with pytest.raises(ParameterError, match="vmin=5 must be below vmax=3"):
        ds.ccd.show(vmin=5, vmax=3)
    with pytest.raises(FrameError, match="no WCS"):
        ds.ccd.show(sky=True)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [30, 10], [-0.01, 0.01]
    part = ds.ccd.with_header(dict(wcs.to_header())).isel(y=slice(20, None), x=slice(10, None))
    ax = part.ccd.show(sky=True)
    position = ax.wcs.pixel_to_world(10, 20)  # axes have the original positions
    assert position.separation(part.ccd.wcs.pixel_to_world(0, 0)).arcsec < 1e-6
    plt.close("all")


def test_show_on_the_command_line(tmp_path: Path) -> None:
    """`lazyccd show` draws planes and limits that are named, and with --full one point for each pixel."""
    lazyccd.to_fits(make_frame((1400, 1300)), tmp_path / "a.fits")
    out = tmp_path / "a.png"
    result = CliRunner().invoke(
        main, ["show", str(tmp_path / "a.fits"), "-o", str(out), "--full", "--plane", "CR", "--vmin", "0"]
    )
    assert result.exit_code == 0, result.output
    height, width = numbers_in(out).shape
    assert width == 1300
    assert 1400 < height < 1550
    wrong = CliRunner().invoke(main, ["show", str(tmp_path / "a.fits"), "-o", str(out), "--plane", "GHOST"])
    assert wrong.exit_code == 2
    assert "GHOST" in wrong.output
