"""What `combine` gives besides the image: maps, rejections, scaled levels, weights, offsets; and what they cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.stats import sigma_clipped_stats
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

import lazyccd
from lazyccd import Keyword, add_mask, combine, errors, from_ccddata, open_fits, register, with_header, with_uncertainty
from lazyccd.frame.tree import make_tree
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops import rechunk
from lazyccd.ops.stack.rejection import RULES
from lazyccd.rejection import (
    GESDT,
    AvSigmaClip,
    CCDClip,
    CRReject,
    LinearFit,
    MinMax,
    PercentileClip,
    SigmaClip,
    UselessRejectionWarning,
    Winsorized,
)

Array = npt.NDArray[Any]
NO_DATA = MaskSchema().bits("NO_DATA")


def frames_of(values: Any, **meta: Any) -> list[xr.Dataset]:
    """Return frames that hold arrays."""
    return [from_ccddata(CCDData(np.atleast_2d(np.asarray(v, float)), unit="adu", meta=meta)) for v in values]


@pytest.fixture
def values(rng: np.random.Generator) -> Array:
    """Return nine images with outliers."""
    values = rng.normal(1000, 10, (9, 30, 40))
    values[rng.random(values.shape) < 0.02] += 500
    return values


def test_maps_of_a_stack(values: Array) -> None:
    """How many inputs were used and rejected, and the exposure time of those used."""
    frames = [with_header(f, exptime=10.0 * (i + 1)) for i, f in enumerate(frames_of(values))]
    frames[3] = add_mask(frames[3], np.arange(1200).reshape(30, 40) % 7 == 0)
    maps = ("n_used", "n_rejected", "exposure")
    result = combine(frames, reject=SigmaClip(5, 5, deviation="mad_std"), maps=maps, rejections=True)
    rejected = result["rejected"].values
    masked = np.zeros(values.shape, bool)
    masked[3] = np.arange(1200).reshape(30, 40) % 7 == 0
    assert rejected.shape == values.shape
    assert rejected[values > 1200].all() or masked[values > 1200].any()
    np.testing.assert_array_equal(result["n_rejected"].values, rejected.sum(axis=0))
    used = ~rejected & ~masked
    np.testing.assert_array_equal(result["n_used"].values, used.sum(axis=0))
    np.testing.assert_array_equal(
        result["exposure"].values, (used * (10.0 * np.arange(1, 10))[:, None, None]).sum(axis=0)
    )
    np.testing.assert_allclose(result["data"].values, np.where(used, values, 0).sum(axis=0) / used.sum(axis=0))
    assert result["exposure"].attrs["units"] == "s"
    np.testing.assert_array_equal(result.ccd.is_flagged("CLIPPED").values, rejected.any(axis=0))


def test_maps_are_made_by_the_same_tasks(values: Array) -> None:
    """One task for each chunk, however many variables are asked for."""
    result = combine(frames_of(values, EXPTIME=1.0), reject="sigclip", maps=("n_used", "n_rejected", "exposure"))
    (graph,) = dask.optimize(result)
    keys = [k for k in dict(graph.__dask_graph__()) if isinstance(k, tuple) and str(k[0]).startswith("combine_frames-")]
    assert len(keys) == 1


@pytest.mark.parametrize("chunks", [(7, 40), (30, 11)])
@pytest.mark.parametrize(
    "options", [{}, {"grow": 1.5, "maps": ("n_used",)}, {"scale": "median", "uncertainty": "scatter"}]
)
def test_a_written_stack_is_the_lazy_one(
    tmp_path: Path, values: Array, options: dict[str, Any], chunks: tuple[int, int]
) -> None:
    """`combine` with an output file writes what it gives lazily, though no frame is made on the way; maps of inputs are no inputs."""
    frames = [rechunk(frame, chunks) for frame in frames_of(values)]
    with_map = combine(frames[:2], tmp_path / "map.fits", maps=("n_used", "n_rejected"))
    assert "n_used" in with_map
    given = [tmp_path / "map.fits", *frames]
    lazy = combine(
        [open_fits(tmp_path / "map.fits").drop_vars(["n_used", "n_rejected"]), *frames], reject="sigclip", **options
    )
    written = combine(given, tmp_path / "out.fits", reject="sigclip", **options)
    assert set(written.data_vars) == set(lazy.data_vars)
    for name in lazy.data_vars:
        np.testing.assert_array_equal(written[name].values, lazy[name].values)


def test_rejections_of_many_frames(rng: np.random.Generator) -> None:
    """More frames than a word of the map has bits."""
    values = rng.normal(0, 1, (70, 5, 6))
    values[3, 2, 2] = values[66, 1, 4] = 100.0
    result = combine(frames_of(values), reject=SigmaClip(low=6, high=6), rejections=True)
    assert np.argwhere(result["rejected"].values).tolist() == [[3, 2, 2], [66, 1, 4]]


@pytest.mark.parametrize("name", ["out.fits", "out.zarr"])
def test_maps_are_written_and_read(tmp_path: Path, values: Array, name: str) -> None:
    """Files have the maps; operations on what is read leave them out."""
    frames = frames_of(values, EXPTIME=2.0)
    lazy = combine(frames, tmp_path / name, reject="sigclip", maps=("n_used", "n_rejected", "exposure"))
    fresh = combine(frames, reject="sigclip", maps=("n_used", "n_rejected", "exposure"))
    for variable in ("data", "n_used", "n_rejected", "exposure"):
        np.testing.assert_array_equal(lazy[variable].values, fresh[variable].values)
        assert lazy[variable].dtype == fresh[variable].dtype
    doubled = lazyccd.multiply(lazy, 2)
    assert "n_used" not in doubled
    np.testing.assert_array_equal(doubled["data"].values, 2 * fresh["data"].values)
    if name.endswith(".fits"):
        with fits.open(tmp_path / name) as hdus:
            np.testing.assert_array_equal(hdus["N_USED"].data, fresh["n_used"].values)


@given(
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.sampled_from([1.0, 1.5, 2.0, 3.2]),
    st.integers(-3, 5),
    st.sampled_from([SigmaClip, AvSigmaClip, Winsorized]),
)
def test_grown_rejections(chunks: tuple[int, int], radius: float, nkeep: int, reject: Any) -> None:
    """Neighbours within the radius follow, on the sky and across chunks and bands, unless too few inputs would be left."""
    rng = np.random.default_rng(8)
    values = rng.normal(100, 1, (7, 23, 19))
    values[rng.random(values.shape) < 0.03] += 300
    frames = [rechunk(f, chunks) for f in frames_of(values)]
    options: dict[str, Any] = {"reject": reject(low=2.2, high=2.2), "nkeep": nkeep, "rejections": True}
    plain = combine(frames, **options)["rejected"].values
    result = combine(frames, grow=radius, mem_limit=7 * 19 * 10 * 12, **options, maps=("n_used",))
    y, x = np.mgrid[-3:4, -3:4]
    disc = y * y + x * x <= radius * radius
    grown = plain | np.array([ndimage.binary_dilation(plane, disc) for plane in plain])
    kept = max(min(7, nkeep) if nkeep > 0 else 7 + nkeep, 1)
    too_few = 7 - grown.sum(axis=0) < kept
    expected = np.where(too_few, plain, grown)
    np.testing.assert_array_equal(result["rejected"].values, expected)
    np.testing.assert_array_equal(rechunk(result, chunks[::-1])["n_used"].values, 7 - expected.sum(axis=0))


STATISTICS = {
    "median": lambda v: np.median(v),
    "mean": lambda v: np.mean(v),
    "clipped": lambda v: sigma_clipped_stats(v, sigma=3, maxiters=5)[0],
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("section", [None, "[3:30,5:20]"])
def test_levels_by_statistics(values: Array, statistic: str, section: str | None) -> None:
    """Scales and zero points make the statistic of every frame that of the first; masked pixels do not count."""
    values = values * np.linspace(1, 2, 9)[:, None, None]
    bad = np.zeros(values.shape, bool)
    bad[:, 6, 7] = True
    spoiled = np.where(bad, 1e6, values)
    frames = [add_mask(f, b) for f, b in zip(frames_of(spoiled), bad, strict=True)]
    cut = (slice(4, 20), slice(2, 30)) if section else (slice(None), slice(None))
    found = np.array([STATISTICS[statistic](v[cut][~b[cut]]) for v, b in zip(values, bad, strict=True)])
    for options, expected in (
        ({"scale": statistic}, values * (found[0] / found)[:, None, None]),
        ({"zero": statistic}, values + (found[0] - found)[:, None, None]),
    ):
        result = combine(frames, method="median", reject=SigmaClip(deviation="mad_std"), statsec=section, **options)
        assert np.isfinite(result["data"].values).all()
        mean = combine(frames, statsec=section, **options)["data"].values
        np.testing.assert_allclose(mean[~bad[0]], expected.mean(axis=0)[~bad[0]], rtol=1e-10)


def test_scale_and_zero_together(values: Array) -> None:
    """The zero point is that of scaled frames."""
    frames = frames_of(values)
    result = combine(frames, scale=np.linspace(0.5, 1.5, 9), zero=np.arange(9.0))["data"].values
    expected = (values * np.linspace(0.5, 1.5, 9)[:, None, None] + np.arange(9.0)[:, None, None]).mean(axis=0)
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_numbers_from_headers() -> None:
    """Keywords give factors, weights, exposure times and noise."""
    frames = [
        with_header(f, exptime=t, w=w, rdn=5.0, gn=2.0)
        for f, t, w in zip(frames_of([10.0, 40.0]), (1, 4), (3.0, 1.0), strict=True)
    ]
    assert combine(frames, scale="exposure")["data"].values == 10
    assert combine(frames, scale="!EXPTIME")["data"].values == (10 + 160) / 2
    assert combine(frames, weights="!W")["data"].values == (30 + 40) / 4
    assert combine(frames, weights=Keyword("W"))["data"].values == (30 + 40) / 4
    assert combine(frames, weights="exposure")["data"].values == (10 + 160) / 5
    without = with_header(frames[0], exptime=0.0)
    with pytest.raises(
        errors.ParameterError, match=r"frame 2 has an exposure time of 0, which must be above 0; correct its header"
    ):
        combine([frames[1], without], weights="exposure")
    by_keyword = combine(frames, reject=CRReject(2, gain="GN", readnoise="!RDN"))["data"].values
    assert by_keyword == combine(frames, reject=CRReject(2, gain=Keyword("GN"), readnoise=5))["data"].values == 10
    texts = [with_header(f, w=w) for f, w in zip(frames, ("3,0", "1.0"), strict=True)]
    assert combine(texts, weights="!W")["data"].values == (30 + 40) / 4
    with pytest.raises(errors.KeywordError, match="the header of frame 1 has no SKY; correct the header"):
        combine(frames, zero="!SKY")


def test_weights_by_variance(rng: np.random.Generator) -> None:
    """One over the median variance of the scaled frames, or over that of the pixels around, or as images."""
    sigmas = np.array([1.0, 2.0, 4.0])
    values = rng.normal(100, 1, (3, 20, 20)) * sigmas[:, None, None]
    frames = [with_uncertainty(f, np.full((20, 20), s)) for f, s in zip(frames_of(values), sigmas, strict=True)]
    weights = sigmas**-2.0
    expected = (values * weights[:, None, None]).sum(axis=0) / weights.sum()
    images = np.broadcast_to(weights[:, None, None], values.shape)
    for spec in ("variance", "smoothed", "pixel", images, list(images)):
        result = combine(frames, weights=spec)
        np.testing.assert_allclose(result["data"].values, expected, rtol=1e-12)
        np.testing.assert_allclose(result["uncertainty"].values, weights.sum() ** -0.5, rtol=1e-12)
    scaled = combine(frames, weights="variance", scale=1 / sigmas)
    np.testing.assert_allclose(scaled["data"].values, (values / sigmas[:, None, None]).mean(axis=0), rtol=1e-12)


def test_smoothed_weights_are_not_biased(rng: np.random.Generator) -> None:
    """Weights from a pixel's own counts pull a mean low by about one electron; smoothed ones do not."""
    counts = rng.poisson(50, (8, 200, 200)).astype(float)
    frames = [with_uncertainty(f, np.sqrt(np.maximum(c, 1))) for f, c in zip(frames_of(counts), counts, strict=True)]
    own, smoothed = (float(combine(frames, weights=w)["data"].mean()) for w in ("pixel", "smoothed"))
    assert -1.4 < own - 50 < -0.6
    assert abs(smoothed - 50) < 0.1


def test_offsets_cover_the_union(rng: np.random.Generator) -> None:
    """Frames shifted by whole pixels meet; outside of all is NO_DATA, and coordinates are the first frame's."""
    sky = rng.normal(100, 1, (30, 40))
    places = [(5, 6), (8, 2), (2, 9)]
    frames = frames_of([sky[y : y + 15, x : x + 20] for y, x in places])
    result = combine(frames, offsets=places, maps=("n_used",))
    np.testing.assert_allclose(result["data"].values[3:, 4:][:15, :20], sky[5:20, 6:26])
    assert result["data"].shape == (21, 27)
    covered = np.zeros((30, 40), int)
    for y, x in places:
        covered[y : y + 15, x : x + 20] += 1
    np.testing.assert_array_equal(result["n_used"].values, covered[2:23, 2:29])
    np.testing.assert_array_equal(result.ccd.is_flagged("NO_DATA").values, covered[2:23, 2:29] == 0)
    assert (float(result["y"][0]), float(result["x"][0])) == (-3, -4)


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-5, 5)), min_size=2, max_size=4), st.integers(1, 9))
def test_frames_that_begin_and_end_between_bands(places: list[tuple[int, int]], rows: int) -> None:
    """Bands of any height see each frame exactly where it lies, also frames that no band before them touched."""
    rng = np.random.default_rng(4)
    values = rng.normal(100, 1, (len(places), 31, 7))
    tops, lefts = (np.array(axis) - min(axis) for axis in zip(*places, strict=True))
    total, count = (np.zeros((31 + tops.max(), 7 + lefts.max())) for _ in range(2))
    for plane, y, x in zip(values, tops, lefts, strict=True):
        total[y : y + 31, x : x + 7] += plane
        count[y : y + 31, x : x + 7] += 1
    limit = rows * len(places) * total.shape[1] * 10
    result = combine(frames_of(values), method="sum", offsets=places, mem_limit=limit, maps=("n_used",))
    np.testing.assert_array_equal(result["n_used"].values, count)
    np.testing.assert_allclose(result["data"].values, total, rtol=1e-13)


def test_offsets_by_headers(rng: np.random.Generator) -> None:
    """WCS and physical coordinates say where frames lie; after a cut too."""
    sky = rng.normal(100, 1, (60, 60))
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CD1_1": -1e-4, "CD2_2": 1e-4}
    frames = []
    for y, x in ((10, 12), (14, 7)):
        (frame,) = frames_of([sky[y : y + 30, x : x + 30]])
        cards = {**wcs, "CRPIX1": 30.0 - x, "CRPIX2": 30.0 - y, "LTV1": -float(x), "LTV2": -float(y)}
        frames.append(with_header(frame, cards))
    frames[1] = frames[1].ccd.cutout(y=slice(3, 30), x=slice(2, 30))
    for how in ("wcs", "physical"):
        result = combine(frames, offsets=how)
        assert result["data"].shape == (34, 33)
        np.testing.assert_allclose(result["data"].values[7:30, 0:27], sky[17:40, 12 - 3 : 36], err_msg=how)


def test_registered_frames(rng: np.random.Generator) -> None:
    """Shifts of noisy star fields are found to the pixel, binned or not, around a saturated star and bad columns."""
    for size in (200, 1050):
        sky = rng.normal(0, 1, (size + 100, size + 100))
        for y, x in rng.integers(0, size + 100, (60, 2)):
            sky[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] += 40
        shifts = [(40, 40), (33, 52), (61, 40)]
        frames = frames_of([sky[y : y + size, x : x + size] + rng.normal(0, 1, (size, size)) for y, x in shifts])
        bad = np.zeros((size, size), bool)
        bad[:, 50] = True
        frames = [add_mask(f.assign(data=f["data"] + 1e5 * bad), bad) for f in frames]
        found = register(frames)
        assert found.tolist() == [[0, 0], [-7, 12], [21, 0]]


def test_halos_and_stacks_in_one_task(tmp_path: Path, rng: np.random.Generator) -> None:
    """Frames that are cleaned first are combined in the same single task per chunk, with the same bits."""
    values = rng.normal(100, 5, (4, 200, 90)).astype(np.float32)
    for i, v in enumerate(values):
        fits.PrimaryHDU(v, fits.Header({"BUNIT": "electron"})).writeto(tmp_path / f"{i}.fits")
    frames = [
        lazyccd.cosmicray_lacosmic(lazyccd.open_fits(tmp_path / f"{i}.fits"), niter=1, background=None)
        for i in range(4)
    ]
    result = combine(frames, method="median")
    expected = np.median([f["data"].values for f in frames], axis=0)
    np.testing.assert_array_equal(rechunk(result, (67, 31))["data"].values, expected.astype(np.float32))
    with pytest.raises(
        errors.MemoryLimitError, match=r"halo of 11 rows .* enough for 2 frames; write the cleaned frames"
    ):
        combine(frames, method="median", mem_limit=88 * 90 * 6 * 2)["data"].compute()


def test_memory_limits_at_both_ends(values: Array) -> None:
    """A limit that holds single rows and one that holds everything give the same bits; less is refused with the number."""
    frames = frames_of(values)
    row = 9 * 40 * 8
    whole = combine(frames, reject="sigclip", mem_limit=1e9)["data"].values
    rows = combine(frames, reject="sigclip", mem_limit=row)["data"].values
    np.testing.assert_array_equal(rows, whole)
    with pytest.raises(errors.MemoryLimitError, match="enough for 8 frames; raise the limit or combine"):
        combine(frames, reject="sigclip", mem_limit=row - 1)["data"].compute()


@pytest.mark.parametrize(
    ("count", "options", "useless"),
    [
        (10, {"reject": SigmaClip(center="mean")}, True),
        (11, {"reject": SigmaClip(center="mean")}, False),
        (7, {"reject": "sigclip"}, True),
        (8, {"reject": "sigclip"}, False),
        (3, {"reject": SigmaClip(deviation="mad_std")}, False),
        (4, {"reject": "winsorized"}, True),
        (5, {"reject": LinearFit(high=1.0)}, False),
        (3, {"reject": "gesdt"}, True),
        (10, {"sigma_clip": True}, True),
        (5, {"reject": MinMax(0, 0)}, True),
    ],
)
def test_rules_that_cannot_reject_are_warned_about(
    recwarn: pytest.WarningsRecorder, count: int, options: dict[str, Any], useless: bool
) -> None:
    """And are those that reject nothing, however far off one value is."""
    import warnings

    frames = frames_of([1000.0 * (i == 1) + 0.01 * i for i in range(count)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UselessRejectionWarning)
        result = combine(frames, maps=("n_rejected",), **options)
    assert any(issubclass(w.category, UselessRejectionWarning) for w in caught) == useless
    assert (int(result["n_rejected"].values[0, 0]) == 0) == useless


@pytest.mark.parametrize("caller", ["combine", "combine of trees", "Combiner", "written"])
def test_the_warning_points_at_the_line_that_called(tmp_path: Path, caller: str) -> None:
    """And at no line of the package, by whatever way a useless rejection is found."""
    import warnings

    frames = frames_of([1000.0 + i for i in range(5)])
    trees = [make_tree({"left": f, "right": f}, {"header": f.attrs["header"]}) for f in frames]
    combiner = lazyccd.Combiner(frames)
    calls = {
        "combine": lambda: combine(frames, reject="sigclip"),
        "combine of trees": lambda: combine(trees, sigma_clip=True),
        "Combiner": lambda: combiner.sigma_clipping(),
        "written": lambda: combine(frames, tmp_path / "a.fits", reject=SigmaClip()),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UselessRejectionWarning)
        calls[caller]()
    found = [w for w in caught if issubclass(w.category, UselessRejectionWarning)]
    assert found
    assert {(w.filename, w.lineno) for w in found} == {(__file__, calls[caller].__code__.co_firstlineno)}


SETTINGS: list[tuple[Any, dict[str, Any], str]] = [
    (SigmaClip, {"low": 0}, "low 0 of SigmaClip must be greater than 0, or None for no limit"),
    (SigmaClip, {"high": float("nan")}, "high nan of SigmaClip must be greater than 0"),
    (SigmaClip, {"center": "mode"}, "center 'mode' of SigmaClip must be 'mean' or 'median'"),
    (SigmaClip, {"deviation": "iqr"}, "deviation 'iqr' of SigmaClip must be 'std' or 'mad_std'"),
    (SigmaClip, {"iterations": 0}, "iterations 0 of SigmaClip must be 1 or more"),
    (Winsorized, {"low": -3}, "low -3 of Winsorized must be greater than 0"),
    (CRReject, {"high": -1}, "high -1 of CRReject must be greater than 0"),
    (PercentileClip, {"order": 0}, "order 0 of PercentileClip must not be 0"),
    (PercentileClip, {"high": 0}, "high 0 of PercentileClip must be greater than 0"),
    (GESDT, {"fraction": 0.7}, "fraction 0.7 must be in"),
    (GESDT, {"significance": 1}, "significance 1 between 0 and 1"),
]


@pytest.mark.parametrize(("rule", "settings", "message"), SETTINGS, ids=[str(i) for i in range(len(SETTINGS))])
def test_rules_check_their_numbers_when_they_are_made(rule: Any, settings: dict[str, Any], message: str) -> None:
    """A rule that cannot be used does not come into being, and the message names it."""
    with pytest.raises(errors.ParameterError, match=re.escape(message)):
        rule(**settings)


@pytest.mark.parametrize("name", [name for name in RULES if name not in {"ccdclip", "crreject"}])
def test_a_name_is_its_rule_with_the_defaults(values: Array, name: str) -> None:
    """The same plan, so the same pixels, and the name is in the header."""
    frames = [with_uncertainty(f, np.full(f["data"].shape, 5.0)) for f in frames_of(values)]
    by_name, by_class = combine(frames, reject=name), combine(frames, reject=RULES[name]())
    assert by_name["data"].data.name == by_class["data"].data.name
    assert by_name["data"].data.name != combine(frames)["data"].data.name
    assert f"rejected: {name}" in " ".join(by_name.ccd.header["HISTORY"])


BAD: list[tuple[dict[str, Any], str]] = [
    ({"reject": "magic"}, "reject 'magic' must be None or one of sigclip"),
    ({"reject": "sigclip", "nkeep": 10}, "nkeep 10 must not be above the number of frames, 9"),
    ({"reject": "sigclip", "grow": -1}, "grow -1 must be 0 or a radius"),
    ({"reject": "ccdclip"}, "needs the read noise; give readnoise="),
    ({"reject": CCDClip(readnoise=3, gain=0)}, "gain .* must be above 0"),
    ({"reject": MinMax(5, 4)}, "leave one of 9 frames"),
    ({"reject": "minmax", "nlow": 2}, "nlow 2 and nhigh 1 are of clip_extrema; use reject=MinMax(nlow=2, nhigh=1)"),
    ({"reject": 3}, "reject 3 must be None, a name, or a rule of lazyccd.rejection"),
    ({"reject": AvSigmaClip(center="mean")}, "center 'mean' of AvSigmaClip needs flavor='iraf'"),
    ({"reject": CCDClip(readnoise=3, center="mode")}, "center 'mode' of CCDClip must be 'mean' or 'median'"),
    ({"maps": ("sigma",)}, "maps ['sigma'] must be among n_used"),
    (
        {"scale": "sky"},
        "scale 'sky' must be numbers, a function, one of mode, median, mean, clipped, exposure, or a keyword of the headers",
    ),
    ({"weights": "variance"}, "has no uncertainty for weights='variance'"),
    ({"weights": np.ones((9, 3, 3))}, r"weights of frame 1 have shape (3, 3) and must have (30, 40)"),
    ({"weights": np.ones((2, 30, 40))}, "weights has 2 images and must have 9"),
    ({"offsets": "stars"}, "offsets 'stars' must be None, 'wcs', 'physical' or a table"),
    ({"offsets": [(0, 0)]}, r"offsets has shape (1, 2) and must have (9, 2)"),
    ({"offsets": "wcs"}, "frame 1 has no celestial WCS"),
    ({"mem_limit": 0}, "mem_limit 0 must be greater than 0"),
    ({"statsec": "[1:5,1:5:2]", "scale": "mean"}, "has a step or a flip"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_options(values: Array, options: dict[str, Any], message: str) -> None:
    """What cannot be used is refused before anything is read, with the value and the way out."""
    pattern = message if ".*" in message else re.escape(message)
    with pytest.raises(errors.LazyCCDError, match=pattern):
        combine(frames_of(values), **options)


def test_a_level_of_zero_is_refused_when_it_is_found() -> None:
    """A frame whose median is not above 0 cannot be scaled to the first; the message names it."""
    with pytest.raises(errors.ParameterError, match=r"scale of frame 2 is 0.0 and must be finite and above 0"):
        combine(frames_of([1.0, 0.0]), scale="median")["data"].compute()


@pytest.mark.parametrize("method", ["average", "median", "sum"])
@pytest.mark.parametrize("reject", [None, "sigclip", "ccdclip", "winsorized", "minmax"])
@pytest.mark.parametrize("weights", [None, "variance"])
def test_pulls_of_frames_that_share_their_masters(
    rng: np.random.Generator, method: str, reject: str | None, weights: str | None
) -> None:
    """Result minus truth over the propagated uncertainty has unit width, with a bias and a flat that all frames share."""
    count, shape = 12, (150, 150)
    sigmas = np.linspace(3, 5, count) if weights else np.full(count, 4.0)
    bias = with_uncertainty(frames_of([rng.normal(300, 3, shape)])[0], np.full(shape, 3.0))
    errors_of_flat = rng.normal(0, 0.003, shape)
    flat = with_uncertainty(frames_of([1 + errors_of_flat])[0], np.full(shape, 0.003))
    frames = []
    for sigma in sigmas:
        raw = with_uncertainty(frames_of([rng.normal(1300, sigma, shape)])[0], np.full(shape, sigma))
        frames.append(lazyccd.flat_correct(lazyccd.subtract_bias(raw, bias), flat, norm_value=1.0))
    # the variance of 1000 adu is that of a frame
    rule = CCDClip(readnoise=1000 * 15**0.5, gain=1000) if reject == "ccdclip" else reject
    options: dict[str, Any] = {} if rule is None else {"reject": rule}
    result = combine(frames, method=method, weights=weights, rejections=True, **options).compute()
    given = np.array([1 / float(np.median(f["uncertainty"])) ** 2 if weights else 1.0 for f in frames])
    used = ~result["rejected"].values * (given / given.max())[:, None, None]
    truth = 1000 * (used.sum(axis=0) if method == "sum" else 1)
    pull = (result["data"] - truth) / result["uncertainty"]
    assert float(pull.std()) == pytest.approx(1, abs=0.04)
    assert abs(float(pull.mean())) < 0.05


def test_a_shared_master_is_added_once(rng: np.random.Generator) -> None:
    """The variance of a master that all frames share stays, that of their own noise falls; another master's falls too."""
    masters = [with_uncertainty(frames_of([np.full((4, 5), 10.0 + i)])[0], np.full((4, 5), 3.0)) for i in range(4)]
    raws = [with_uncertainty(f, np.full((4, 5), 4.0)) for f in frames_of(110.0 + rng.normal(0, 4, (4, 4, 5)))]
    shared = combine([lazyccd.subtract_bias(raw, masters[0]) for raw in raws])
    np.testing.assert_allclose(shared["uncertainty"].values, (16 / 4 + 9) ** 0.5)
    total = combine([lazyccd.subtract_bias(raw, masters[0]) for raw in raws], method="sum", scale=[1, 2, 1, 1])
    np.testing.assert_allclose(total["uncertainty"].values, (16 * 7 + 9 * 5**2) ** 0.5)
    other = combine([lazyccd.subtract_bias(raw, m) for raw, m in zip(raws, masters, strict=True)])
    np.testing.assert_allclose(other["uncertainty"].values, ((16 + 9) / 4) ** 0.5)


def test_headers_say_what_was_done(tmp_path: Path, values: Array) -> None:
    """How frames were combined, with the levels that were found when a file is written; a WCS stays only where it is true."""
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CD1_1": -1e-4, "CD2_2": 1e-4}
    frames = [
        with_header(f, {**wcs, "CRPIX1": 5.0 * i, "GAIN": 2.0, "RDNOISE": 3.0}) for i, f in enumerate(frames_of(values))
    ]
    result = combine(frames, tmp_path / "a.fits", reject="minmax", scale="median", weights="!GAIN")
    history = " ".join(result.ccd.header["HISTORY"])
    assert "average of 9 frames" in history
    assert "rejected: minmax nlow=1 nhigh=1" in history
    assert re.search(r"scale levels: (\d{3,4}\.?\d* ?){9}", history)
    assert result.ccd.wcs is None
    assert combine(frames, offsets="wcs").ccd.wcs is not None
    assert combine(frames[:1] * 3).ccd.wcs is not None
    gains = {method: combine(frames, method=method).ccd.header for method in ("average", "sum", "median")}
    assert [round(header["GAIN"], 3) for header in gains.values()] == [18.0, 2.0, round(36 / np.pi, 3)]
    assert gains["average"]["RDNOISE"] == gains["sum"]["RDNOISE"] == 9.0


LEVELS_OF_STACKS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "average": ({}, {"GAIN": 18.0, "EGAIN": 18.0, "RDNOISE": 9.0, "READNOIS": 9.0, "SATURATE": 60000.0}),
    "sum": ({"method": "sum"}, {"GAIN": 2.0, "EGAIN": 2.0, "RDNOISE": 9.0, "READNOIS": 9.0, "SATURATE": 540000.0}),
    "by statistic": ({"scale": "median"}, {"GAIN": 18.0, "EGAIN": 18.0, "RDNOISE": 9.0, "SATURATE": 60000.0}),
    "by numbers": ({"scale": [0.01] * 9}, {}),
    "normalised": ({"scale": lambda data: 1 / np.median(data)}, {}),
}


@pytest.mark.parametrize("case", LEVELS_OF_STACKS)
def test_levels_in_headers_of_stacks(case: str, values: Array) -> None:
    """All keywords of gain and noise are those in effect; none is left where frames were scaled freely, nor the raw range."""
    arguments, expected = LEVELS_OF_STACKS[case]
    cards = {
        "GAIN": 2.0,
        "EGAIN": 2.0,
        "RDNOISE": 3.0,
        "READNOIS": 3.0,
        "SATURATE": 60000.0,
        "DATAMAX": 65535.0,
        "DATAMIN": 0.0,
    }
    header = combine([with_header(frame, cards) for frame in frames_of(values)], **arguments).ccd.header
    found = {key: header[key] for key in cards if key in header}
    assert {key: found[key] for key in expected} == expected
    if not expected:
        assert found == {}
    assert not {"DATAMAX", "DATAMIN"} & set(found)


def test_a_gain_setting_stays(values: Array) -> None:
    """Beside EGAIN, GAIN = 120 is no number of electrons, which stacking would change."""
    frames = [with_header(frame, {"GAIN": 120, "EGAIN": 2.0}) for frame in frames_of(values)]
    header = combine(frames, method="sum").ccd.header
    assert (header["GAIN"], header["EGAIN"]) == (120, 2.0)
    header = combine(frames).ccd.header
    assert (header["GAIN"], header["EGAIN"]) == (120, 18.0)


@pytest.mark.parametrize(
    "dtype", ["uint16", np.int16, "int32", "int64", bool, "complex64", "float16", "U3", object, "adu"]
)
def test_stacks_have_floating_point_numbers(dtype: Any, values: Array) -> None:
    """Other dtypes, which ccdproc wraps and cuts, are refused at the call, before anything is opened."""
    with pytest.raises(errors.ParameterError, match=r"of combine\(\) must be float32 or float64"):
        combine(["not_there.fits"], dtype=dtype)
    with pytest.raises(errors.ParameterError, match=r"of Combiner\(\) must be float32 or float64"):
        lazyccd.Combiner(frames_of(values), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", np.float64, ">f4", None])
def test_dtypes_that_stacks_have(dtype: Any, values: Array) -> None:
    """Of data and uncertainty, native."""
    result = combine(frames_of(values), dtype=dtype).compute()
    expected = np.dtype(dtype or values.dtype).newbyteorder("=")
    assert result["data"].dtype == result["uncertainty"].dtype == expected


def test_warnings_point_at_the_caller(values: Array) -> None:
    """However a stack was asked for."""
    frames = frames_of(values)[:3]
    trees = [xr.DataTree.from_dict({"/a": frame}) for frame in frames]
    ways: list[Callable[[], Any]] = [
        lambda: combine(frames, reject="sigclip"),
        lambda: combine(trees, reject="sigclip"),
        lambda: combine([lazyccd.to_ccddata(frame) for frame in frames], sigma_clip=True),
        lambda: lazyccd.Combiner(frames).sigma_clipping(),
        lambda: (lambda combiner: (combiner.sigma_clipping(), combiner.average_combine()))(lazyccd.Combiner(trees)),
    ]
    for way in ways:
        with pytest.warns(UselessRejectionWarning) as caught:
            way()
        assert {warning.filename for warning in caught} == {__file__}
