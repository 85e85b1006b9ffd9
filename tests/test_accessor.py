"""``ds.ccd``: properties of a frame, and every operation as a method."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from matplotlib import pyplot as plt

import lazyccd
from lazyccd.accessor import NOT_METHODS, OF_TREES
from lazyccd.errors import FrameError, ParameterError, SectionError
from lazyccd.testing.asserts import assert_frames_equal, raise_if_computes
from lazyccd.testing.steps import READS, formula_frame

mpl.use("agg")

SHAPE = (200, 300)
SKY = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRPIX1": 151.0,
    "CRPIX2": 101.0,
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CD1_1": -1 / 3600,
    "CD2_2": 1 / 3600,
}


def frame(**cards: Any) -> xr.Dataset:
    """Return a lazy frame that counts the pixels read."""
    return formula_frame(SHAPE, (64, 64)).ccd.with_header({**SKY, **cards})


def pixels_read() -> int:
    """Return the largest number of pixels read of one storage since `READS` was cleared."""
    sizes: dict[str, int] = {}
    for name, region in READS:
        sizes[name] = sizes.get(name, 0) + region.size
    return max(sizes.values())


def test_what_a_frame_knows() -> None:
    """Header, unit, WCS, bad pixels and planes, without computing anything."""
    ds = frame(GAIN=1.5)
    with raise_if_computes():
        assert ds.ccd.header["GAIN"] == 1.5
        assert ds.ccd.unit == u.adu
        assert ds.ccd.wcs.wcs.crval.tolist() == [150.0, 2.0]
        bad, hit = ds.ccd.bad, ds.ccd.is_flagged("CR", "SAT")
    mask = ds["mask"].values
    assert bad.dtype == hit.dtype == bool
    np.testing.assert_array_equal(hit, mask & 6 != 0)
    np.testing.assert_array_equal(bad, mask & 31 != 0)  # the first five planes count as bad
    assert not frame().drop_vars("mask").ccd.bad.any()


def test_cutout_by_pixels_pulls_its_own_region() -> None:
    """A cutout is one chunk of its own size, and reads no other pixel."""
    ds = lazyccd.subtract_bias(frame(), formula_frame(SHAPE, (50, 300), seed=3))
    READS.clear()
    part = ds.ccd.cutout(y=slice(20, 91), x=slice(100, 117))
    assert not READS
    assert part["data"].data.npartitions == 1
    values = part["data"].compute(scheduler="sync")
    assert pixels_read() == 71 * 17
    np.testing.assert_array_equal(values, ds["data"].values[20:91, 100:117])
    assert part["y"].values[0] == 20


def test_cutout_by_position() -> None:
    """A cutout by sky position takes angles or pixels, stops at the edge, and keeps its WCS."""
    ds = frame()
    centre = SkyCoord(150.0, 2.0, unit="deg")
    part = ds.ccd.cutout(centre, 20 * u.arcsec)
    assert dict(part.sizes) == {"y": 20, "x": 20}
    column, row = part.ccd.wcs.world_to_pixel(centre)
    assert abs(column - 9.5) <= 0.5
    assert abs(row - 9.5) <= 0.5
    assert dict(ds.ccd.cutout(centre, (10, 31)).sizes) == {"y": 10, "x": 31}
    corner = ds.ccd.wcs.pixel_to_world(0, 0)
    assert dict(ds.ccd.cutout(corner, 61).sizes) == {"y": 31, "x": 31}


def test_cutouts_that_cannot_be() -> None:
    """Cutouts outside of the image, empty or ambiguous ones are refused."""
    ds = frame()
    with pytest.raises(SectionError, match="must lie inside of 0:200"):
        ds.ccd.cutout(y=slice(190, 210))
    with pytest.raises(SectionError, match="not on the sky of this image"):
        ds.ccd.cutout(SkyCoord(330.0, -2.0, unit="deg"), 5)
    with pytest.raises(SectionError):
        ds.ccd.cutout(SkyCoord(151.0, 2.0, unit="deg"), 5)
    with pytest.raises(ParameterError, match="one or the other"):
        ds.ccd.cutout(SkyCoord(150.0, 2.0, unit="deg"), 5, y=slice(3))
    with pytest.raises(FrameError, match="celestial WCS"):
        formula_frame(SHAPE, (64, 64)).ccd.cutout(SkyCoord(150.0, 2.0, unit="deg"), 5)


def test_pixel_by_original_coordinates() -> None:
    """`pixel` finds the same pixel after a trim, a flip and a step; a pixel that was cut away is an error."""
    ds = frame()
    expected = float(ds["data"][120, 80])
    turned = ds.isel(y=slice(None, None, -1), x=slice(0, None, 4))  # xarray's own slices read whole chunks
    for part, most in ((ds, 1), (lazyccd.trim_image(ds, "[11:300,21:200]"), 1), (turned, 64 * 64)):
        READS.clear()
        one = part.ccd.pixel(120, 80).compute(scheduler="sync")
        assert float(one["data"]) == expected
        assert (int(one["y"]), int(one["x"])) == (120, 80)
        assert pixels_read() <= most
    with pytest.raises(SectionError):
        lazyccd.trim_image(ds, "[11:300,21:200]").ccd.pixel(5, 80)


def test_rechunk_and_settle() -> None:
    """Rechunking changes no bit, and settled scalars are not computed again."""
    ds = lazyccd.flat_correct(frame(), formula_frame(SHAPE, (64, 64), seed=2, low=0.5, high=1.5))
    other = ds.ccd.rechunk((33, 300))
    assert other["data"].data.chunksize == (33, 300)
    np.testing.assert_array_equal(other["data"], ds["data"])
    settled = ds.ccd.settle()
    READS.clear()
    settled.ccd.cutout(y=slice(2), x=slice(2)).compute(scheduler="sync")
    assert pixels_read() <= 8
    np.testing.assert_array_equal(settled["data"], ds["data"])


def test_frames_with_other_parts() -> None:
    """The with_ methods replace mask, uncertainty, unit and header in a new frame."""
    ds = frame(GAIN=1.5)
    before = ds.copy()
    hot = np.zeros(SHAPE, "f4")
    hot[3, 4] = np.nan
    assert ds.ccd.add_mask(hot, "HOT", "hot pixel").ccd.is_flagged("HOT").values.nonzero()[0].tolist() == [3]
    assert ds.ccd.with_uncertainty(np.full(SHAPE, 4.0), "var")["uncertainty"].attrs["uncertainty_type"] == "var"
    assert ds.ccd.with_unit("electron").ccd.unit == u.electron
    assert ds.ccd.with_header(exposure=30.0).ccd.header["EXPOSURE"] == 30.0
    assert_frames_equal(ds, before)


METHODS = sorted({*lazyccd.ops.__all__, "to_fits", "to_zarr"} - NOT_METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_operation_is_a_method(name: str) -> None:
    """With the docstring of the function, and its signature after the frame; those of trees are the tree's only."""
    ds = frame()
    tree = xr.DataTree.from_dict({"a": ds})
    assert hasattr(ds.ccd, name) == (name not in OF_TREES)
    function = getattr(lazyccd, name)
    after_the_frame = list(inspect.signature(function).parameters.values())[1:]
    for accessor in (ds.ccd, tree.ccd) if name not in OF_TREES else (tree.ccd,):
        method = getattr(accessor, name)
        assert list(inspect.signature(method).parameters.values()) == after_the_frame
        assert inspect.signature(method).return_annotation == inspect.signature(function).return_annotation
        assert method.__doc__ == function.__doc__
        assert method.__name__ == name
        assert method.__qualname__ == f"{type(accessor).__name__}.{name}"


def test_methods_do_what_functions_do() -> None:
    """With positional arguments and by name."""
    ds = frame()
    assert_frames_equal(ds.ccd.gain_correct(2.0), lazyccd.gain_correct(ds, 2.0))
    assert_frames_equal(ds.ccd.gain_correct(gain=2.0), lazyccd.gain_correct(ds, gain=2.0))
    assert isinstance(ds.ccd.to_ccddata(), CCDData)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'gain'"):
        ds.ccd.gain_correct()


def test_plan_says_what_it_costs() -> None:
    """The plan shows tasks, bytes to read and pending scalars as text and HTML, and reads nothing."""
    ds = lazyccd.flat_correct(frame(), formula_frame(SHAPE, (64, 64), seed=2, low=0.5, high=1.5), norm_value="median")
    READS.clear()
    plan = ds.ccd.plan()
    assert not READS
    assert plan.tasks == ds["data"].data.npartitions == 20
    assert plan.overhead == 1.0
    assert [value.split(" (")[0] for value in plan.scalars] == ["quantiles, pass 1 of 2", "quantiles, pass 2 of 2"]
    before = len(READS)
    with np.errstate(all="ignore"):
        ds.ccd.settle()[["data"]].compute(scheduler="sync")
    assert len(READS) > before
    assert "20" in str(plan)
    assert "<table>" in plan._repr_html_()


def test_picture(tmp_path: Path) -> None:
    """A picture has the first row at the bottom, original pixels on the axes, and mask planes with a legend."""
    data = np.random.default_rng(0).normal(100, 5, (60, 80))
    data[:10] += 400
    ds = lazyccd.from_ccddata(CCDData(data, unit="adu"))
    blob = np.zeros(data.shape, bool)
    blob[40:50, 20:40] = True
    ax = ds.ccd.add_mask(blob, "SAT").isel(x=slice(10, None)).ccd.show()
    picture, layer = ax.images
    assert picture.origin == "lower"
    assert tuple(map(float, picture.get_extent())) == (9.5, 79.5, -0.5, 59.5)
    assert tuple(np.round(layer.get_array()[45, 15, :3], 2)) == (1.0, 0.5, 0.05)  # orange
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["SAT 4.76%"]
    ax.figure.savefig(tmp_path / "a.png")
    drawn = plt.imread(tmp_path / "a.png")
    box = ax.get_window_extent().get_points() / ax.figure.bbox.size * (drawn.shape[1], drawn.shape[0])
    (x0, y0), (x1, y1) = box.astype(int)
    inside = drawn[::-1][y0 + 5 : y1 - 5, x0 + 5 : x1 - 5, 0]
    assert inside[: len(inside) // 8].mean() > inside[len(inside) // 2 : len(inside) * 3 // 5].mean() + 0.2
    plt.close(ax.figure)
    with pytest.raises(ParameterError, match="stretch 'cubic' must be one of"):
        ds.ccd.show(stretch="cubic")


def test_picture_of_a_huge_image(tmp_path: Path) -> None:
    """A file of 20 GB without a pyramid is drawn in about a second: not all of its rows are read."""
    header = fits.Header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": 100_000, "NAXIS2": 100_000})
    with (tmp_path / "big.fits").open("wb") as file:
        file.write(header.tostring().encode())
        file.truncate(2880 + -(-2 * 10**10 // 2880) * 2880)
    ds = lazyccd.open_fits(tmp_path / "big.fits")
    frame().ccd.show()
    times = []
    for _ in range(2):  # the processor's time: what else runs on the machine does not count
        start = time.process_time()
        ax = ds.ccd.show()
        times.append(time.process_time() - start)
    assert min(times) < 1.5
    assert 512 <= max(ax.images[0].get_array().shape) <= 1100
    plt.close("all")


def test_planes_of_other_cameras_have_colours_of_their_own() -> None:
    """Two planes of the user have different colors."""
    ds = frame()
    for number, name in enumerate(("GHOST", "GLINT", "SAT")):
        ds = ds.ccd.add_mask(np.arange(ds["data"].size).reshape(ds["data"].shape) % 7 == number, name)
    ax = ds.ccd.show()
    handles = ax.get_legend().legend_handles
    assert len({handle.get_facecolor() for handle in handles}) == len(handles) == 10  # eight standard planes, and two
    plt.close(ax.figure)
