"""What a warp fills: the pixels that exact coordinates of every output pixel say, for any two WCS."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.wcs import WCS, DistortionLookupTable
from hypothesis import given

import lazyccd
from lazyccd.errors import ArgumentTypeError, FrameError
from lazyccd.frame.core import resolve
from lazyccd.frame.sky_footprint import frame_place
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping, wcs_of_thread
from lazyccd.kernels.resample.lattice import EMPTY, position
from lazyccd.ops.mosaic.warp import celestial_wcs
from tests.frame.test_sky_footprint import CASES, make_wcs, pairs

WHOLE = (181, 360)


def assert_same_pixels(source: WCS, shape: tuple[int, int], target: WCS, size: tuple[int, int]) -> int:
    """Compare what a warp fills with a slow one, pixel by pixel; return how many there are."""
    ds = lazyccd.from_ccddata(CCDData(np.ones(shape, "f4"), unit="adu", wcs=source))
    filled = np.isfinite(lazyccd.wcs_project(ds, target, size, order="nearest").data.values)
    exact = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), shape).exact()
    y, x = (v.reshape(size) for v in exact(*np.indices(size, float).reshape(2, -1)))
    # how far inside of the image, which is negative outside of it
    depth = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x)) + 0.5
    depth[~np.isfinite(depth)] = -1
    # at the very edge a lattice that is right to 1e-4 pixel, and steps of 1/1024 pixel, decide
    np.testing.assert_array_equal(filled[np.abs(depth) > 2e-3], (depth > 0)[np.abs(depth) > 2e-3])
    return int(filled.sum())


@given(pairs())
def test_a_warp_fills_what_lies_on_the_frame(pair: tuple[Any, ...]) -> None:
    """Frames and grids of any projection, place, scale and frame of the sky, from arc seconds to all of it."""
    assert_same_pixels(*pair)


@pytest.mark.parametrize("name", CASES)
def test_poles_and_seams_are_filled(name: str) -> None:
    """Poles, the wrap of right ascension in frame and grid, a grid inside of a frame."""
    source, shape, target, size, _ = CASES[name]
    assert assert_same_pixels(source, shape, target, size) > 10


@pytest.mark.parametrize(
    ("source", "target", "size"),
    [
        # all of the sky in the input, whose seam lies in the grid, or which begins at its reference point
        (make_wcs("CAR", (0.0, 0.0), WHOLE, 1.0), make_wcs("ZEA", (180.0, 40.0), (500, 500), 0.5), (500, 500)),
        (
            make_wcs("CAR", (0.0, 0.0), WHOLE, 1.0, shift=(0, -0.5)),
            make_wcs("TAN", (0.0, 90.0), (300, 300), 0.2),
            (300, 300),
        ),
        (make_wcs("AIT", (0.0, 0.0), WHOLE, 1.0), make_wcs("CAR", (180.0, 0.0), (400, 800), 0.45), (400, 800)),
        (make_wcs("HPX", (0.0, 0.0), (320, 400), 1.0), make_wcs("TAN", (45.0, -60.0), (200, 300), 0.3), (200, 300)),
        # a grid of all of the sky in 128 rows of cells, of which most have no sky
        (make_wcs("SIN", (266.0, -29.0), (150, 150), 0.7), make_wcs("AIT", (0.0, 0.0), (700, 1400), 0.26), (700, 1400)),
    ],
)
def test_frames_of_all_of_the_sky(source: WCS, target: WCS, size: tuple[int, int]) -> None:
    """Grids that are finer than the lattice is coarse."""
    shape = tuple(round(2 * n - 1) for n in source.wcs.crpix[::-1]) if source.wcs.crpix[0] > 1 else WHOLE
    assert assert_same_pixels(source, shape, target, size) > 1000


@pytest.mark.parametrize(("scale", "own"), [(0.02, 1e-3), (0.2, 1e-2), (3.0, 0.1)])
def test_a_distorted_frame_inside_of_one_cell_is_found(scale: float, own: float) -> None:
    """The polynomial says nothing where the nodes of a coarse grid lie."""
    source = make_wcs("TAN-SIP", (41.3, 20.2), (60, 80), own)
    size = (1300, 300) if scale == 0.02 else (300, 300)
    assert assert_same_pixels(source, (60, 80), make_wcs("CAR", (40.0, 0.0), (300, 300), scale), size) > 0


def header_of(kind: str, **cards: float | str) -> fits.Header:
    """Return the header of a frame of 400 x 500 pixels in a projection of this name."""
    header = fits.Header({"NAXIS": 2, "NAXIS1": 500, "NAXIS2": 400, "CRVAL1": 210.0, "CRVAL2": 54.0, "CRPIX1": 230.5})
    header.update({"CTYPE1": f"RA---{kind}", "CTYPE2": f"DEC--{kind}", "CRPIX2": 190.25, "CD1_1": -1e-3, "CD1_2": 1e-5})
    header.update({"CD2_1": 2e-5, "CD2_2": 1e-3, "RADESYS": "ICRS", **cards})
    return header


def polynomial_cards(header: fits.Header) -> fits.Header:
    """Add a TPD distortion behind the linear transformation, which has cards with a record in each."""
    for axis in (1, 2):
        header[f"CQDIS{axis}"] = "TPD"
        for record in ("NAXES: 2", "AXIS.1: 1", "AXIS.2: 2", "TPD.FWD.1: 1.0", f"TPD.FWD.{4 + axis}: 0.01"):
            header.append(fits.Card.fromstring(f"DQ{axis}     = '{record}'"))
    return header


KNOWN = {
    "SIP": header_of("TAN-SIP", A_ORDER=3, B_ORDER=2, A_2_0=2e-5, A_1_1=-1e-5, A_0_3=3e-8, B_0_2=1e-5, B_2_0=2e-5),
    "SIP of a ZEA": header_of("ZEA-SIP", A_ORDER=2, B_ORDER=2, A_0_2=2e-5, B_1_1=1e-5),
    "TPV": header_of("TPV", PV1_1=1.0, PV2_1=1.0, PV1_4=0.02, PV1_7=0.03, PV2_6=0.01, PV2_2=0.001),
    "PV of SCAMP": header_of("TAN", PV1_1=1.0, PV2_1=1.0, PV1_4=0.02, PV2_6=0.01),
    "TPD": polynomial_cards(header_of("TAN")),
    "ZPN": header_of("ZPN", PV2_1=1.0, PV2_3=42.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_distortions_are_those_of_astropy(name: str) -> None:
    """Through the header of a frame, on the lattice and back, to 1e-4 pixel; and the distortion is there at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wcs, plain = WCS(KNOWN[name]), WCS(header_of("ZEA" if "ZEA" in name else "TAN"))
        ds = lazyccd.from_ccddata(CCDData(np.ones((400, 500), "f4"), unit="adu", wcs=wcs))
    y, x = (v.ravel() for v in np.mgrid[0:400:13, 0:500:17].astype(float))
    world = np.stack(wcs.all_pix2world(x, y, 0))
    own = celestial_wcs(resolve(ds))
    np.testing.assert_allclose(own.all_pix2world(x, y, 0), world, atol=1e-11)
    assert np.abs(np.stack(plain.all_pix2world(x, y, 0)) - world).max() > 1e-4
    target = make_wcs("TAN", (210.0, 54.0), (800, 800), 0.9e-3, angle=30)
    mapping = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(own), (400, 500))
    out_x, out_y = target.all_world2pix(*world, 0)
    for there, back in zip((y, x), mapping.exact()(out_y, out_x), strict=True):
        np.testing.assert_allclose(back, there, atol=1e-6)
    patch = mapping.patch(0, 0)
    i, j = np.meshgrid(np.arange(0, 800, 31.0), np.arange(0, 800, 37.0), indexing="ij")
    expected = np.stack(mapping.exact()(i.ravel(), j.ravel()))
    for k, (row, column) in enumerate(zip(i.ravel().astype(int), j.ravel().astype(int), strict=True)):
        if patch.dense[row // 64, column // 64] != EMPTY:
            assert np.abs(np.array(position(mapping, row, column)) - expected[:, k]).max() < 1e-4


def test_a_grid_may_have_tables() -> None:
    """Look-up tables of a target WCS are applied as astropy does, and the grid cannot be moved, since they could not."""
    target = make_wcs("TAN", (210.0, 54.0), (300, 300), 1e-3)
    rows, columns = np.mgrid[0:31, 0:31]
    shifts = np.hypot(rows - 15, columns - 15).astype("f4") / 5
    target.cpdis1, target.cpdis2 = (DistortionLookupTable(part, (1, 1), (1, 1), (10, 10)) for part in (shifts, -shifts))
    source = make_wcs("TAN", (210.0, 54.0), (300, 300), 1e-3)
    y, x = (v.ravel() for v in np.mgrid[0:300:13, 0:300:17].astype(float))
    found = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), (300, 300)).exact()(y, x)
    expected_x, expected_y = source.all_world2pix(*target.all_pix2world(x, y, 0), 0)
    assert np.abs(expected_x - x).max() > 1
    np.testing.assert_allclose(found, (expected_y, expected_x), atol=1e-8)
    ds = lazyccd.from_ccddata(CCDData(np.ones((300, 300), "f4"), unit="adu", wcs=source))
    with pytest.raises(ArgumentTypeError, match="table"):
        lazyccd.wcs_project(ds, target, "union")
    # a header cannot hold it, and without it would say something else
    assert lazyccd.wcs_project(ds, target).ccd.wcs is None
    assert frame_place(source, (300, 300), FrozenWCS.of(target), (300, 300)).shape == (300, 300)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (header_of("TNX", WAT1_001="wtype=tnx axtype=ra"), "CTYPE1 = 'RA---TNX'.*WAT.*plain TAN.*SIP or TPV"),
        (header_of("ZPX", PV2_1=1.0), "CTYPE1 = 'RA---ZPX'.*plain ZPN"),
        (header_of("TAN-DSS"), "'DSS', which would be left out.*'RA---TAN'"),
        (header_of("TAN-TPD"), "'TPD', which would be left out"),
        (header_of("TAN", CPDIS1="LOOKUP", CPDIS2="LOOKUP"), "tables in other HDUs.*with_header.*CPDIS1"),
    ],
)
def test_distortions_that_would_be_left_out_are_refused(header: fits.Header, message: str) -> None:
    """By keyword and value, with a way out, in warps and grids."""
    ds = lazyccd.from_ccddata(CCDData(np.ones((400, 500), "f4"), unit="adu"))
    ds = lazyccd.with_header(ds, dict(header))
    with pytest.raises(FrameError, match=message):
        lazyccd.wcs_project(ds, make_wcs("TAN", (210.0, 54.0), (10, 10), 1e-3))
    with pytest.raises(FrameError, match=message):
        lazyccd.find_optimal_grid(ds)


def test_a_distortion_that_folds_back_is_named_with_the_pixels() -> None:
    """1 + 2 a u is 0 at u = -100 for a = 0.005, which is column 130; the frame without these columns is fine."""
    header = header_of("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=0.005, B_0_2=1e-9)
    wcs = WCS(header)
    ds = lazyccd.from_ccddata(CCDData(np.ones((400, 500), "f4"), unit="adu", wcs=wcs))
    target = make_wcs("TAN", (210.0, 54.0), (10, 10), 1e-3)
    with pytest.raises(FrameError, match=r"\[0:400, 0:1\d\d\] \(CTYPE1 = 'RA---TAN-SIP'\).*isel"):
        lazyccd.wcs_project(ds, target)
    lazyccd.wcs_project(ds.isel(x=slice(190, 500)), target)


def test_threads_share_no_wcs() -> None:
    """Each thread makes its own from what it is made from."""
    frozen = FrozenWCS.of(make_wcs("TAN-SIP", (210.0, 54.0), (10, 10), 1e-3))
    with ThreadPoolExecutor(2) as pool:
        barrier = threading.Barrier(2, timeout=60)
        both = list(pool.map(lambda _: (barrier.wait(), wcs_of_thread(frozen), wcs_of_thread(frozen))[1:], range(2)))
    assert both[0][0] is both[0][1]
    assert both[0][0] is not both[1][0]
