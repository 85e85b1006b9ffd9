"""coadd with skies and fluxes matched in overlaps: truth, laziness, bits for any chunks and orders, wrong scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

import lazyccd
from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.testing.asserts import raise_if_computes

Array = npt.NDArray[Any]
SCALE = 1e-4
SHAPE, GRID = (200, 220), (420, 460)
MIDDLES = [(110, 120), (130, 320), (310, 130), (300, 330), (210, 225)]
ANGLES = [0, 20, -35, 90, 180]
STARS = np.random.default_rng(9).uniform(10, 410, (150, 2)), np.random.default_rng(8).pareto(1.0, 150) * 4000 + 3000


def make_wcs(y: float, x: float, angle: float = 0.0) -> WCS:
    """Return a WCS whose pixel (y, x) is at the reference point."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [10, 20]
    wcs.wcs.crpix = [x + 1, y + 1]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = SCALE * np.array([[-c, s], [s, c]])
    wcs.wcs.set()
    return wcs


TARGET = make_wcs(210, 230)


def make_frame(number: int, sky: Array | None = None, factor: float = 1.0, **cards: Any) -> xr.Dataset:
    """Return a frame of stars of 3 pixels FWHM, with noise of 3, a sky of constant and slopes on the grid, and a factor."""
    (my, mx), angle = MIDDLES[number], np.deg2rad(ANGLES[number])
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    # grid positions of the pixels
    v, u = (
        np.einsum("ij,jyx->iyx", turn, np.stack([y - SHAPE[0] / 2, x - SHAPE[1] / 2]))
        + np.array([my, mx])[:, None, None]
    )
    data = np.random.default_rng(number).normal(0, 3, SHAPE)
    for (sy, sx), flux in zip(*STARS, strict=True):
        near = (abs(v - sy) < 9) & (abs(u - sx) < 9)
        r2 = (v[near] - sy) ** 2 + (u[near] - sx) ** 2
        data[near] += factor * flux * np.exp(-r2 / (2 * 1.3**2)) / (2 * np.pi * 1.3**2)
    if sky is not None:
        data += sky[0] + sky[1] * (v - my) + sky[2] * (u - mx)
    # the pixel at the reference point, which is pixel (210, 230) of the grid
    at = np.linalg.solve(turn, np.array([210 - my, 230 - mx])) + np.array(SHAPE) / 2
    ccd = CCDData(
        data.astype(np.float32),
        unit="electron",
        uncertainty=StdDevUncertainty(np.full(SHAPE, 3, np.float32)),
        wcs=make_wcs(at[0], at[1], ANGLES[number]),
        meta=dict(cards),
    )
    return lazyccd.from_ccddata(ccd)


def make_frames(skies: Array, factors: Any = (1, 1, 1, 1, 1)) -> list[xr.Dataset]:
    """Return the five frames."""
    return [make_frame(k, sky, factor) for k, (sky, factor) in enumerate(zip(skies, factors, strict=True))]


def coadd(frames: list[xr.Dataset], **more: Any) -> xr.Dataset:
    """Return the mosaic on the grid of the tests."""
    return lazyccd.coadd(frames, TARGET, GRID, reject=None, **more)


SKIES = np.random.default_rng(3).normal(0, (200, 0.5, 0.5), (5, 3))


@pytest.fixture(scope="module")
def plain() -> Array:
    """Return the mosaic of the frames without a sky."""
    return coadd(make_frames(np.zeros((5, 3))))["data"].values


def test_planes_are_matched_lazily(plain: Array) -> None:
    """Of skies with slopes a plane is left that is the same for all, and no step; nothing is computed before it is asked for."""
    frames = make_frames(SKIES)
    with raise_if_computes():
        mosaic = coadd(frames, match="plane")
    rest = mosaic["data"].values - plain
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    good = np.isfinite(rest)
    columns = np.stack([np.ones(good.sum()), y[good], x[good]], axis=1)
    left = rest[good] - columns @ np.linalg.lstsq(columns, rest[good], rcond=None)[0]
    raw = coadd(frames)["data"].values - plain
    assert np.std(left) < 0.01 * np.std(raw[good])
    # no sky is invented: the sum of the corrections is zero
    table = lazyccd.mosaic_corrections(mosaic)
    for name in ("constant", "slope_y", "slope_x"):
        assert abs(table[name].sum()) < 1e-6
    assert table["group"].tolist() == [0] * 5
    assert (table["after"] < 0.01 * table["before"]).all()


def test_constants_are_matched(plain: Array) -> None:
    """Skies without slopes are brought to their mean, to the errors that are stated."""
    skies = SKIES * (1, 0, 0)
    mosaic = coadd(make_frames(skies), match="constant")
    table = lazyccd.mosaic_corrections(mosaic)
    pull = (table["constant"] - (skies[:, 0] - skies[:, 0].mean())) / table["constant_error"]
    assert abs(pull).max() < 4
    assert table["constant_error"].max() < 0.5
    rest = mosaic["data"].values - plain
    assert abs(np.nanmean(rest) - skies[:, 0].mean()) < 0.5
    assert np.nanstd(rest) < 0.5


def test_neither_chunks_nor_the_order_of_frames_change_a_bit() -> None:
    """Frames in other chunks give the same mosaic, and frames in another order the same corrections."""
    frames = make_frames(SKIES)
    mosaic = coadd(frames, match="plane")
    again = coadd([f.ccd.rechunk((70, 90)) for f in frames], match="plane")
    np.testing.assert_array_equal(again["data"].values, mosaic["data"].values)
    np.testing.assert_array_equal(mosaic["data"][100:200, 150:300].values, mosaic["data"].values[100:200, 150:300])
    table = lazyccd.mosaic_corrections(mosaic)
    order = [3, 0, 4, 2, 1]
    other = lazyccd.mosaic_corrections(coadd([frames[k] for k in order], match="plane"))
    for name in table.colnames[1:]:
        np.testing.assert_array_equal(other[name], table[name][order], err_msg=name)


def test_a_frame_off_its_stated_scale_is_an_error() -> None:
    """Stars 40 % brighter than the scale says: the message names the frame, its scale, and what is measured."""
    frames = make_frames(SKIES * (1, 0, 0), (1, 1, 1, 1, 1.4))
    with pytest.raises(
        ParameterError, match=r"frame 5 .*states the flux scale 1, .* 1\.[34]\d+ .*flux_scale='overlaps'"
    ):
        coadd(frames, match="constant").compute()
    right = coadd(frames, match="constant", flux_scale=[1, 1, 1, 1, 1 / 1.4])
    ratio = lazyccd.mosaic_corrections(right)["flux_ratio"]
    assert abs(np.log(ratio)).max() < 0.1


def test_stated_scales_and_planes_go_together(plain: Array) -> None:
    """Corrections are of scaled data, with factors as numbers."""
    factors = np.array([1, 2, 0.5, 1.5, 0.8])
    frames = make_frames(SKIES * (1, 0, 0), factors)
    mosaic = coadd(frames, match="constant", flux_scale=(1 / factors).tolist())
    table = lazyccd.mosaic_corrections(mosaic)
    np.testing.assert_allclose(table["flux_scale"], 1 / factors, rtol=1e-12)
    level = SKIES[:, 0] / factors
    assert abs(table["constant"] - (level - level.mean())).max() < 5 * table["constant_error"].max()
    assert np.nanstd(mosaic["data"].values - plain) < 3


def test_scales_are_measured_in_overlaps() -> None:
    """Factors come out to a few per cent, with a geometric mean of 1, with and without matched skies; variances follow."""
    factors = np.array([1, 1.6, 0.7, 1.2, 0.9])
    frames = make_frames(SKIES * (1, 0, 0), factors)
    mosaic = coadd(frames, flux_scale="overlaps", match="constant")
    table = lazyccd.mosaic_corrections(mosaic)
    found = table["flux_scale"] * factors
    assert abs(np.log(found / found.mean())).max() < 0.06
    assert abs(np.log(table["flux_scale"]).sum()) < 1e-9
    alone = coadd(frames, flux_scale="overlaps", maps=["variance_aperture"])
    np.testing.assert_array_equal(lazyccd.mosaic_corrections(alone)["flux_scale"], table["flux_scale"])
    only = (slice(40, 80), slice(40, 80))  # of frame 1 alone
    plain = coadd(frames, maps=["variance_aperture"])
    sigma = alone["uncertainty"].values[only] / plain["uncertainty"].values[only]
    np.testing.assert_allclose(sigma, table["flux_scale"][0], rtol=1e-5)
    variance = alone["variance_aperture"].values[only] / plain["variance_aperture"].values[only]
    np.testing.assert_allclose(variance, table["flux_scale"][0] ** 2, rtol=1e-5)


def test_the_sky_of_each_frame_is_taken_out_first() -> None:
    """The option is what subtract_sky does."""
    frames = make_frames(SKIES)
    for method in ("mesh", "constant"):
        mosaic = coadd(frames, sky=method, sky_box=50)
        expected = coadd([lazyccd.subtract_sky(f, method, 50) for f in frames])
        np.testing.assert_array_equal(mosaic["data"].values, expected["data"].values)


def test_a_matched_mosaic_is_explained_planned_and_written(tmp_path: Path) -> None:
    """explain, plan and both writers know its scalars."""
    mosaic = coadd(make_frames(SKIES), match="plane")
    assert "sky and flux of 5 frames" in str(mosaic.ccd.plan())
    text = str(lazyccd.explain(mosaic, 210, 225))
    assert "corrected" in text
    lazyccd.to_zarr(mosaic, tmp_path / "mosaic.zarr")
    np.testing.assert_array_equal(lazyccd.open_zarr(tmp_path / "mosaic.zarr")["data"].values, mosaic["data"].values)
    lazyccd.to_fits(mosaic, tmp_path / "mosaic.fits")
    # both products have the table of corrections, and so has what is written from them
    table = lazyccd.mosaic_corrections(mosaic)
    lazyccd.to_fits(lazyccd.open_zarr(tmp_path / "mosaic.zarr"), tmp_path / "again.fits", compress="RICE_1", quantize=4)
    lazyccd.to_zarr(lazyccd.open_fits(tmp_path / "again.fits"), tmp_path / "again.zarr")
    for name in ("mosaic.zarr", "mosaic.fits", "again.fits", "again.zarr"):
        found = lazyccd.mosaic_corrections(lazyccd.as_frame(tmp_path / name))
        assert (found.colnames, str(found.dtype)) == (table.colnames, str(table.dtype))
        for column in table.colnames:
            np.testing.assert_array_equal(found[column], table[column], err_msg=f"{name} {column}")
    with fits.open(tmp_path / "mosaic.fits", checksum=True) as hdus:
        np.testing.assert_array_equal(hdus["CORRECTIONS"].data["constant"], table["constant"])
    assert "mosaic_corrections" not in coadd([lazyccd.as_frame(tmp_path / "mosaic.fits")]).attrs


def test_one_frame_and_frames_apart_have_no_corrections() -> None:
    """A frame by itself stays as it is."""
    frames = make_frames(SKIES)
    alone = coadd(frames[:1], match="plane")
    np.testing.assert_array_equal(alone["data"].values, coadd(frames[:1])["data"].values)
    lost = make_frame(3) * np.nan
    table = lazyccd.mosaic_corrections(
        coadd([frames[0], frames[4], lost.assign_attrs(make_frame(3).attrs)], match="plane")
    )
    assert table["group"].tolist() == [0, 0, 1]


def test_bad_arguments_are_refused() -> None:
    """Another match, a grid whose WCS has no header, and a table of a mosaic that has none."""
    frames = make_frames(SKIES)[:2]
    with pytest.raises(ParameterError, match="match 'parabola'"):
        coadd(frames, match="parabola")
    with pytest.raises(ParameterError, match="no mosaic whose frames were matched"):
        lazyccd.mosaic_corrections(coadd(frames))
    with pytest.raises(ParameterError, match="must be 'mesh' or 'constant'"):
        coadd(frames, sky="flat")
    with pytest.raises(ArgumentTypeError, match=r"astropy\.wcs\.WCS"):
        lazyccd.coadd(frames, Other(), GRID, match="plane")


class Other:
    """A celestial WCS that is not one of FITS."""

    world_axis_physical_types = ("pos.eq.ra", "pos.eq.dec")
    pixel_n_dim = world_n_dim = 2

    def pixel_to_world(self, x: Any, y: Any) -> Any:
        """Return the sky."""
        return TARGET.pixel_to_world(x, y)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be picklable."""
        return Other, ()


@pytest.mark.filterwarnings("ignore:.*datfix")
def test_steps_between_real_tiles_are_gone(shared_data: Path) -> None:
    """Six 2MASS tiles with a sky of each their own, which overlap by a tenth: steps of 4 counts become a fifth of one."""
    frames = [lazyccd.open_fits(path, unit="adu") for path in sorted((shared_data / "m17_2mass").glob("*.fits.gz"))]
    grid, shape = lazyccd.find_optimal_grid(frames)
    tiles = [lazyccd.coadd([f], grid, shape, order="nearest", reject=None)["data"].values.astype(float) for f in frames]
    table = lazyccd.mosaic_corrections(lazyccd.coadd(frames, grid, shape, match="plane", reject=None))
    y, x = np.mgrid[: shape[0], : shape[1]]
    matched = [
        tile - row["constant"] - row["slope_y"] * (y - row["y"]) - row["slope_x"] * (x - row["x"])
        for tile, row in zip(tiles, table, strict=True)
    ]
    found = []
    for each in (tiles, matched):
        pairs = [each[i] - each[j] for i in range(6) for j in range(i)]
        found.append([np.nanmedian(p) for p in pairs if np.isfinite(p).sum() > 100])
    before, after = (np.sqrt(np.mean(np.square(steps))) for steps in found)
    assert before > 3
    assert after < 0.25
