"""LA Cosmic on frames: the peer's bits for any chunks, and what becomes of mask, uncertainty and NaN."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astroscrappy
import ccdproc
import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyDeprecationWarning
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyccd
from lazyccd.kernels.block import Block, Request
from lazyccd.kernels.cosmic_rays.block import lacosmic_start
from lazyccd.kernels.cosmic_rays.lacosmic import LACosmic
from lazyccd.mask_planes import MaskSchema
from lazyccd.sections import Region
from lazyccd.testing import raise_if_computes

Array = npt.NDArray[Any]
CR, INTERP, SAT, BAD, NO_DATA = (MaskSchema().bits(name) for name in ("CR", "INTERP", "SAT", "BAD", "NO_DATA"))


def sky(shape: tuple[int, int], seed: int = 0, per_pixel: float = 1 / 300) -> Array:
    """Return stars on a sky of 200 electrons with read noise 6.5, and cosmic rays, as float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 200.0)
    for _ in range(1 + y.size // 1500):
        cy, cx, flux = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), 10 ** rng.uniform(2.5, 6.0)
        image += flux / 10.6 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 3.38)
    image = rng.poisson(image) + rng.normal(0.0, 6.5, shape)
    for _ in range(1 + int(y.size * per_pixel)):
        cy, cx, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, 2 * np.pi)
        t = np.arange(0.0, rng.exponential(5.0) + 1, 0.5)
        rows, columns = (cy + t * np.sin(angle)).astype(int), (cx + t * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        image[rows[inside], columns[inside]] += rng.exponential(2000.0) + 100
    return image.astype(np.float32)


def frame(pixels: Array, chunk: int | tuple[int, int] = 4096, **more: Any) -> Any:
    """Return a lazy frame in electrons."""
    return lazyccd.rechunk(lazyccd.from_ccddata(CCDData(pixels, unit="electron", **more)), chunk)


def library(pixels: Array, satlevel: float = 65535.0, **options: Any) -> tuple[Array, Array]:
    """Return what astroscrappy finds; its own default of the saturation level is not ccdproc's."""
    rays, clean = astroscrappy.detect_cosmics(pixels, satlevel=satlevel, **options)
    return rays, clean


def check(ds: Any, pixels: Array, expected: tuple[Array, Array]) -> None:
    """Compare a cleaned frame with what the library gives for the whole image: flags, replaced pixels, and the others."""
    computed = ds.compute()
    rays, data = (computed["mask"].values & CR) != 0, computed["data"].values
    np.testing.assert_array_equal(rays, expected[0])
    np.testing.assert_array_equal(data[rays], np.asarray(expected[1])[rays])
    np.testing.assert_array_equal(data[~rays], pixels[~rays])


OPTIONS: dict[str, Any] = {
    "sigclip": st.sampled_from([3.0, 4.5, 8.0]),
    "sigfrac": st.sampled_from([0.1, 0.3, 1.0]),
    "objlim": st.sampled_from([1.0, 5.0]),
    "readnoise": st.sampled_from([0.0, 6.5, 20.0]),
    "satlevel": st.sampled_from([3000.0, 20000.0, 65535.0]),
    "niter": st.integers(1, 5),
    "sepmed": st.booleans(),
    "cleantype": st.sampled_from(["meanmask", "medmask", "idw"]),
    "fsmode": st.sampled_from(["median", "convolve"]),
    "psfmodel": st.sampled_from(["gauss", "gaussx", "gaussy", "moffat"]),
    "psffwhm": st.sampled_from([1.5, 2.5]),
    "psfsize": st.sampled_from([3, 7, 9]),
    "psfk": st.sampled_from([np.arange(1, 16, dtype=np.float32).reshape(3, 5), np.eye(7, dtype=np.float32)]),
}


@settings(max_examples=max(25, settings.default.max_examples))
@given(
    shape=st.tuples(st.integers(9, 160), st.integers(9, 160)),
    chunk=st.tuples(st.integers(5, 160), st.integers(5, 160)),
    seed=st.integers(0, 2**31),
    options=st.fixed_dictionaries({}, optional=OPTIONS),
    masked=st.booleans(),
    extras=st.sets(st.sampled_from(["inbkg", "invar"])),
)
def test_the_bits_of_astroscrappy_for_any_options_and_chunks(
    shape: tuple[int, int], chunk: tuple[int, int], seed: int, options: dict[str, Any], masked: bool, extras: set[str]
) -> None:
    """Flags and replaced pixels are those of the library on the whole image; other pixels keep their bits."""
    pixels, rng = sky(shape, seed), np.random.default_rng(seed)
    mask = rng.random(shape) < 0.02 if masked else None
    arrays = {"inbkg": np.full(shape, 20.0, np.float32), "invar": (pixels.clip(1) + 42).astype(np.float32)}
    given_arrays = {name: arrays[name] for name in extras}
    ds = frame(pixels, chunk, mask=mask)
    # a frame with a mask has its own saturation plane: the library's level must be said
    options = {"satlevel": 65535.0} | options
    ours = lazyccd.cosmicray_lacosmic(ds, **options, **given_arrays)
    check(ours, pixels, library(pixels, inmask=mask, **options, **given_arrays))


@pytest.mark.parametrize(
    ("name", "readnoise"),
    [
        ("cosmic_rays", 4.0),
        ("decam_cp_tpv_dq", 6.5),
        ("isis_wht", 4.0),
        *(
            pytest.param(*some, marks=pytest.mark.slow)
            for some in (("efosc2_ntt", 11.4), ("lco_sinistro_mef", 10.0), ("tres1_oscaar", 12.0))
        ),
    ],
)
def test_the_bits_of_astroscrappy_on_real_frames(shared_data: Path, name: str, readnoise: float) -> None:
    """Real frames, whose stars saturate and whose edges are overscan, cut into odd chunks."""
    from astropy.io import fits

    paths = sorted(p for p in (shared_data / name).rglob("*.f*t*") if p.stat().st_size > 10**5)
    assert paths
    for path in paths[:: max(1, len(paths) // 2)][:2]:
        with fits.open(path) as hdus:
            image = next(h.data for h in hdus if h.data is not None and h.data.ndim >= 2)
        pixels = np.ascontiguousarray(np.squeeze(image)[:1200, :1200], np.float32)
        expected = library(pixels, readnoise=readnoise)
        check(lazyccd.cosmicray_lacosmic(frame(pixels, (397, 511)), readnoise=readnoise), pixels, expected)


def test_saturated_stars_and_a_sliver_chunk() -> None:
    """A star far above the saturation level across a chunk border, and a last chunk of one column."""
    pixels = sky((150, 201), 4)
    pixels[70:90, 95:108] = 70000.0
    expected = library(pixels)
    assert not expected[0][66:94, 92:111].any()
    check(lazyccd.cosmicray_lacosmic(frame(pixels, (150, 100))), pixels, expected)


def test_a_box_without_good_pixels_gets_the_level_of_the_image() -> None:
    """Inside of a large cosmic ray the exact lower median of the whole image is put in, or a number, or nothing."""
    pixels = sky((120, 130), 7)
    pixels[40:90, 40:90] = sky((50, 50), 8, per_pixel=0)
    pixels[62, 62] += 5000.0
    mask = np.zeros(pixels.shape, bool)
    mask[57:68, 57:68] = True
    mask[61:64, 61:64] = False  # the mask grows by one: one pixel is left that can be found
    expected = library(pixels, inmask=mask, objlim=0.5)
    ds = frame(pixels, 50, mask=mask)
    ours = lazyccd.cosmicray_lacosmic(ds, satlevel=65535.0, objlim=0.5)
    check(ours, pixels, expected)
    assert expected[0][62, 62]
    level = expected[1][62, 62]
    check(lazyccd.cosmicray_lacosmic(frame(pixels, 500, mask=mask), satlevel=65535.0, objlim=0.5), pixels, expected)
    told = lazyccd.cosmicray_lacosmic(ds, satlevel=65535.0, objlim=0.5, background=(12.0, 50.0)).compute()
    left = lazyccd.cosmicray_lacosmic(ds, satlevel=65535.0, objlim=0.5, background=None).compute()
    assert ours["data"].values[62, 62] == level
    assert told["data"].values[62, 62] == 12.0
    assert left["data"].values[62, 62] == pixels[62, 62]
    flags = [d["mask"].values[62, 62] & (CR | INTERP) for d in (told, left)]
    assert flags == [CR | INTERP, CR]


def test_the_saturation_plane_of_a_frame_is_used() -> None:
    """After a reduction the level is unknown: the plane says where stars are saturated, and grows as the library's does."""
    pixels = sky((150, 160), 11)
    pixels[40:52, 60:72] = 30000.0
    flagged = lazyccd.flag_saturated(frame(pixels, 64), 30000.0)
    ours = lazyccd.cosmicray_lacosmic(flagged)
    sat = (flagged["mask"].values & SAT) != 0
    assert sat.sum() >= 144
    expected = library(pixels, satlevel=30000.0)
    np.testing.assert_array_equal((ours["mask"].values & CR) != 0, expected[0])
    everywhere = lazyccd.cosmicray_lacosmic(lazyccd.add_mask(frame(pixels, 64), np.zeros(pixels.shape)))
    assert ((everywhere["mask"].values & CR) != 0)[36:56, 56:76].any()


def test_nan_stays_and_hurts_nobody() -> None:
    """A NaN pixel is bad: the library with that mask and any number there finds the same."""
    pixels = sky((90, 100), 2)
    holes = np.zeros(pixels.shape, bool)
    holes[20:24, 30:70] = True
    holes[50, 50] = True
    given_pixels = np.where(holes, np.float32(np.nan), pixels)
    ours = lazyccd.cosmicray_lacosmic(frame(given_pixels, (41, 33))).compute()
    whole = lazyccd.cosmicray_lacosmic(frame(given_pixels)).compute()
    np.testing.assert_array_equal(ours["data"].values, whole["data"].values)
    np.testing.assert_array_equal(ours["mask"].values, whole["mask"].values)
    assert np.isnan(ours["data"].values[holes]).all()
    assert np.isfinite(ours["data"].values[~holes]).all()
    assert ((ours["mask"].values & NO_DATA != 0) == holes).all()
    rays = (ours["mask"].values & CR) != 0
    expected = library(np.where(holes, np.float32(200), pixels), inmask=holes)[0]
    far = ~lazyccd.grow_mask(frame(pixels, mask=holes), "BAD", 12)["mask"].values.astype(bool)
    assert far.sum() > 1000
    np.testing.assert_array_equal(rays[far], expected[far])


def test_a_masked_chunk_a_masked_image_and_tiny_ones() -> None:
    """Nothing is found where nothing is known, and images smaller than the filters do no harm."""
    pixels = sky((60, 60), 5)
    mask = np.zeros(pixels.shape, bool)
    mask[:30, :30] = True
    check(
        lazyccd.cosmicray_lacosmic(frame(pixels, 30, mask=mask), satlevel=65535.0),
        pixels,
        library(pixels, inmask=mask),
    )
    nothing = lazyccd.cosmicray_lacosmic(frame(pixels, 30, mask=np.ones_like(mask))).compute()
    np.testing.assert_array_equal(nothing["data"].values, pixels)
    assert not (nothing["mask"].values & CR).any()
    for side in range(1, 12):
        small = lazyccd.cosmicray_lacosmic(frame(pixels[:side, :side].copy(), 4)).compute()
        rays = (small["mask"].values & CR) != 0
        assert np.isfinite(small["data"].values).all()
        np.testing.assert_array_equal(small["data"].values[~rays], pixels[:side, :side][~rays])


def test_the_uncertainty_of_replaced_pixels() -> None:
    """It is at least that of the good pixels near, and at least their scatter; others keep theirs."""
    pixels = sky((100, 110), 9)
    sigma = np.sqrt(pixels.clip(1) + 42.25).astype(np.float32)
    ds = frame(pixels, 37, uncertainty=StdDevUncertainty(sigma))
    ours = lazyccd.cosmicray_lacosmic(ds).compute()
    replaced = (ours["mask"].values & INTERP) != 0
    assert replaced.sum() > 50
    new = ours["uncertainty"].values
    np.testing.assert_array_equal(new[~replaced], sigma[~replaced])
    assert (new[replaced] > 14.0).all()  # the sky's own noise is 15.6
    truth = sky((100, 110), 9, per_pixel=0)  # another realisation beyond the first draws: only its scale counts
    pulls = ((ours["data"].values - np.median(truth)) / new)[replaced]
    assert np.median(np.abs(pulls)) < 1.0


def test_the_variance_of_the_frame_as_invar() -> None:
    """use_uncertainty is invar= with the square of the uncertainty."""
    pixels = sky((80, 90), 3)
    variance = (pixels.clip(1) + 400).astype(np.float32)
    ds = lazyccd.with_uncertainty(frame(pixels, 30), variance, "var")
    check(
        lazyccd.cosmicray_lacosmic(ds, use_uncertainty=True),
        pixels,
        library(pixels, invar=variance),
    )


def test_gain_multiplies_data_and_uncertainty() -> None:
    """Data in adu: other pixels are exactly data times gain, replaced ones the library's times gain; units follow."""
    pixels = sky((80, 90), 6)
    gain = 1.7 * u.electron / u.adu
    ds = lazyccd.rechunk(
        lazyccd.from_ccddata(CCDData(pixels, unit="adu", uncertainty=StdDevUncertainty(np.ones_like(pixels)))), 31
    )
    expected = library(pixels, gain=1.7)
    ours = lazyccd.cosmicray_lacosmic(ds, gain=gain).compute()
    assert ours.ccd.unit == u.electron
    np.testing.assert_array_equal((ours["mask"].values & CR) != 0, expected[0])
    np.testing.assert_array_equal(ours["data"].values, np.where(expected[0], expected[1], pixels) * np.float32(1.7))
    assert (ours["uncertainty"].values[~expected[0]] == np.float32(1.7)).all()
    kept = lazyccd.cosmicray_lacosmic(ds, gain=1.7, gain_apply=False)
    assert kept.ccd.unit == u.adu
    check(kept, pixels, expected)


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        ("electron", {}),
        ("adu", {}),
        ("adu", {"gain": 2.0 * u.electron / u.adu, "readnoise": 5 * u.electron}),
        ("adu", {"pssl": 30.0, "sepmed": False}),
    ],
)
def test_the_numbers_of_ccdproc(unit: str, options: dict[str, Any]) -> None:
    """A CCDData gives ccdproc's CCDData: data where replaced to the bit, the others to a rounding."""
    ccd = CCDData(sky((70, 75), 8), unit=unit, mask=sky((70, 75), 1) > 2000)
    if "pssl" in options:
        with pytest.warns(AstropyDeprecationWarning, match="pssl"):
            ccdproc.cosmicray_lacosmic(ccd, **options)
    warnings.simplefilter("ignore", AstropyDeprecationWarning)
    ours, theirs = (lib.cosmicray_lacosmic(ccd, **options) for lib in (lazyccd, ccdproc))
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    np.testing.assert_allclose(ours.data, theirs.data, rtol=3e-7)
    assert ours.unit == theirs.unit
    mine, other = (lib.cosmicray_lacosmic(ccd.data, **options) for lib in (lazyccd, ccdproc))
    np.testing.assert_array_equal(mine[1], other[1])
    np.testing.assert_allclose(mine[0], other[0], rtol=3e-7)


def test_arrays_given_besides_stay_lazy() -> None:
    """A dask array as background and variance is not computed by the call, not even for the log."""
    pixels = sky((60, 70), 14)
    ds = frame(pixels, 33)
    lazy = {"inbkg": da.full(pixels.shape, 20.0, "f4", chunks=20), "invar": da.from_array(pixels + 50, chunks=30)}
    with raise_if_computes():
        ours = lazyccd.cosmicray_lacosmic(ds, satlevel=65535.0, **lazy)
    check(ours, pixels, library(pixels, **{name: array.compute() for name, array in lazy.items()}))


def test_an_unknown_background_is_a_bad_pixel() -> None:
    """NaN in a background or a variance is looked at as little as NaN in the data, and spoils nothing else."""
    pixels = sky((70, 80), 16)
    sky_level, holes = np.full(pixels.shape, 20.0, np.float32), np.zeros(pixels.shape, bool)
    holes[30:33, 30:50] = True
    for name, known in (("inbkg", sky_level), ("invar", pixels + 50)):
        expected = library(pixels, inmask=holes, **{name: known})
        ours = lazyccd.cosmicray_lacosmic(frame(pixels, 37), **{name: np.where(holes, np.float32(np.nan), known)})
        rays = (ours["mask"].values & CR) != 0
        assert np.isfinite(ours["data"].values).all()
        far = ~lazyccd.grow_mask(frame(pixels, mask=holes), "BAD", 10)["mask"].values.astype(bool)
        np.testing.assert_array_equal(rays[far], expected[0][far])
        assert rays[far].sum() > 20


def test_median_cleaning_is_a_median() -> None:
    """The library's reads memory that nobody wrote; here it is the median of the 25 original pixels."""
    pixels = sky((60, 60), 12)
    ours = lazyccd.cosmicray_lacosmic(frame(pixels, 25), cleantype="median").compute()
    replaced = (ours["mask"].values & INTERP) != 0
    assert replaced.any()
    for y, x in np.argwhere(replaced):
        assert ours["data"].values[y, x] == np.median(pixels[y - 2 : y + 3, x - 2 : x + 3])


def test_the_library_itself_as_engine() -> None:
    """On one chunk the engines agree to the bit; on several the library sees only its chunk and halo."""
    pixels = sky((120, 120), 10)
    whole = lazyccd.cosmicray_lacosmic(frame(pixels), engine="astroscrappy")
    check(whole, pixels, library(pixels))
    parts = lazyccd.cosmicray_lacosmic(frame(pixels, 50), engine="astroscrappy")
    check(parts, pixels, library(pixels))


def test_lazy_and_one_task_per_chunk() -> None:
    """Nothing is computed by the call; levels as numbers cost no task, measured ones two more per chunk."""
    pixels = sky((100, 100), 1)
    ds = frame(pixels, 25)
    with raise_if_computes():
        told = lazyccd.cosmicray_lacosmic(ds, background=(200.0, 240.0))
        measured = lazyccd.cosmicray_lacosmic(ds)
    counts = [
        len([k for k in dask.optimize(d["data"].data)[0].__dask_graph__() if "blocks" not in str(k)])
        for d in (told, measured)
    ]
    assert counts[0] <= 16 + 16  # one task for each chunk, and one that takes each variable out of it
    assert counts[1] <= counts[0] + 2 * 16 + 6
    assert "background levels" in str(measured.ccd.plan())


def test_small_chunks_are_advised_against() -> None:
    """A chunk smaller than the halo works, and the plan says what it costs."""
    ds = frame(np.ones((400, 400), np.float32), 30)
    assert "small for a halo of 41" in str(lazyccd.cosmicray_lacosmic(ds, background=None).ccd.plan())
    wide = lazyccd.cosmicray_lacosmic(frame(np.ones((800, 800), np.float32), 800), background=None)
    assert "advice" not in str(wide.ccd.plan())


def test_two_processes(request: pytest.FixtureRequest) -> None:
    """A cluster of two processes gives the same bits."""
    pixels = sky((150, 160), 13)
    expected = library(pixels)
    request.getfixturevalue("client")  # from here on what is computed runs there
    check(lazyccd.cosmicray_lacosmic(frame(pixels, 60)), pixels, expected)


def test_log_entries() -> None:
    """The call notes itself, as every operation does; add_keyword says how."""
    ds = frame(sky((20, 20)))
    assert "sigclip=5" in lazyccd.cosmicray_lacosmic(ds, sigclip=5).ccd.header["CRLACOS"]
    assert "CRLACOS" not in lazyccd.cosmicray_lacosmic(ds, add_keyword=None).ccd.header
    assert lazyccd.cosmicray_lacosmic(ds, add_keyword={"CRDONE": True}).ccd.header["CRDONE"] is True


def test_the_start_has_a_mask_where_nothing_is_bad() -> None:
    """Tasks that work in bands put all planes together that they asked for."""
    region = Region(0, 30, 0, 40)
    block = Block(region, np.ones(region.shape, np.float32))
    request = Request(region, frozenset({"data", "mask"}))
    start = lacosmic_start(request, block, extras=(), settings=LACosmic(), bits=(1, 0), offset=0.0)
    assert not start.plane("mask").any()
