"""frame_place: no pixel that a warp fills lies outside of it, and it is not much too large."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import wcs_to_celestial_frame
from astropy.wcs.wcsapi import HighLevelWCSWrapper
from hypothesis import given
from hypothesis import strategies as st

from lazyccd.frame.sky_footprint import frame_place
from lazyccd.frame.sky_mapping import FrozenWCS, SkyMapping, rotation_to_icrs
from lazyccd.kernels.block import Array
from lazyccd.sections import Region

ALL_SKY = ("CAR", "AIT", "MOL", "SFL", "ZEA", "CEA", "HPX", "TSC", "ARC")
SMALL = ("TAN", "SIN", "STG", "ZEA", "ARC", "CAR", "TAN-SIP")


def make_wcs(
    kind: str,
    center: tuple[float, float],
    shape: tuple[int, int],
    scale: float,
    *,
    angle: float = 0.0,
    flip: bool = False,
    frame: str = "icrs",
    shift: tuple[float, float] = (0, 0),
) -> WCS:
    """Return a WCS whose reference pixel is the middle of an image, or ``shift`` (y, x) of its sides off it."""
    wcs = WCS(naxis=2)
    names = ("GLON", "GLAT") if frame == "galactic" else ("RA--", "DEC-")
    wcs.wcs.ctype = [f"{name}-{kind}" for name in names]
    wcs.wcs.crval = center
    wcs.wcs.crpix = [(n + 1) / 2 + n * part for n, part in zip(shape[::-1], shift[::-1], strict=True)]
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]]) @ np.diag([-1 if flip else 1, 1])
    if frame == "fk5":
        wcs.wcs.radesys, wcs.wcs.equinox = "FK5", 1975.0
    if kind.endswith("SIP"):
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 1], b[0, 2], b[2, 1] = 2e-4, -1e-4, 3e-4, 1e-6
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def covered(source: WCS, shape: tuple[int, int], target: WCS, target_shape: tuple[int, int]) -> Array:
    """Return which pixels of a grid lie on a frame, from exact coordinates of each."""
    y, x = SkyMapping(FrozenWCS.of(target), FrozenWCS.of(source), shape).exact()(
        *np.indices(target_shape, float).reshape(2, -1)
    )
    inside = (y >= -0.5) & (y <= shape[0] - 0.5) & (x >= -0.5) & (x <= shape[1] - 0.5)
    return np.asarray(inside.reshape(target_shape))


def place_of(source: WCS, shape: tuple[int, int], target: WCS, target_shape: tuple[int, int]) -> Region:
    """Return the place, after a check that it misses nothing."""
    place = frame_place(source, shape, FrozenWCS.of(target), target_shape)
    full = covered(source, shape, target, target_shape)
    rows, columns = np.nonzero(full)
    if rows.size:
        assert place.y0 <= rows.min()
        assert rows.max() < place.y1
        assert place.x0 <= columns.min()
        assert columns.max() < place.x1
    assert place.clip(target_shape) == place or not place.size
    return place


directions = st.one_of(
    st.tuples(st.floats(0, 360), st.floats(-90, 90)),
    st.tuples(st.floats(0, 360), st.sampled_from([-90.0, 90.0, 89.99, -89.5])),
    st.tuples(st.sampled_from([0.0, 359.99, 180.0]), st.floats(-80, 80)),
)
shapes = st.tuples(st.integers(1, 60), st.integers(1, 60))
views = st.fixed_dictionaries(
    {"angle": st.floats(-180, 180), "flip": st.booleans(), "frame": st.sampled_from(["icrs", "fk5", "galactic"])}
)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, ...]:
    """Return two WCS with shapes, most of which overlap."""
    shape, size = draw(shapes), draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    center = draw(directions)
    scale = 10 ** draw(st.floats(-5, 0.3))
    source = make_wcs(draw(st.sampled_from(SMALL)), center, shape, scale, **draw(views))
    if draw(st.booleans()):
        kind, away = draw(st.sampled_from(ALL_SKY)), 0.0
        scale = draw(st.floats(0.7, 1.5)) * 360 / max(size)
        view = {"frame": draw(st.sampled_from(["icrs", "fk5", "galactic"])), "shift": (0, draw(st.floats(-0.6, 0.6)))}
        middle = draw(directions) if kind in {"ZEA", "ARC"} else (draw(st.floats(0, 360)), 0.0)
    else:
        kind, view = draw(st.sampled_from(SMALL)), draw(views)
        # tangent planes wider than the sky are taken for a scale in arc seconds
        scale = min(scale * 10 ** draw(st.floats(-1.2, 1.2)), 350 / max(size))
        away = draw(st.floats(0, 1.2)) * scale * max(size)
        towards = draw(st.floats(0, 360))
        there = SkyCoord(*center, unit="deg").directional_offset_by(towards * _degree, min(away, 170) * _degree)
        middle = (there.ra.deg, there.dec.deg)
    target = make_wcs(kind, middle, size, scale, **view)
    return (source, shape, target, size) if draw(st.booleans()) else (target, size, source, shape)


_degree = SkyCoord(0, 0, unit="deg").ra.unit


@given(pairs())
def test_a_place_misses_no_pixel(pair: tuple[Any, ...]) -> None:
    """Frames and grids of any projection, place, scale and frame of the sky."""
    place_of(*pair)


@given(pairs())
def test_a_place_misses_no_pixel_of_a_grid_that_is_not_of_fits(pair: tuple[Any, ...]) -> None:
    """Such grids have no inverse that could be trusted: all places are made of circles on the sphere."""
    source, shape, target, size = pair
    place_of(source, shape, HighLevelWCSWrapper(target), size)


ALL_OF_IT = (180, 360)
CASES: dict[str, tuple[WCS, tuple[int, int], WCS, tuple[int, int], tuple[int | None, ...]]] = {
    "pole inside": (
        make_wcs("TAN", (30.0, 84.0), (200, 200), 0.1),
        (200, 200),
        make_wcs("CAR", (180.0, 0.0), ALL_OF_IT, 1.0),
        ALL_OF_IT,
        (None, 180, 0, 360),
    ),
    "pole at the centre": (
        make_wcs("TAN", (0.0, 90.0), (201, 201), 0.1),
        (201, 201),
        make_wcs("CAR", (180.0, 0.0), ALL_OF_IT, 1.0),
        ALL_OF_IT,
        (None, 180, 0, 360),
    ),
    "south pole": (
        make_wcs("TAN", (77.0, -88.0), (200, 200), 0.1),
        (200, 200),
        make_wcs("CAR", (10.0, 0.0), ALL_OF_IT, 1.0),
        ALL_OF_IT,
        (0, None, 0, 360),
    ),
    "both ends of a grid of 360 degrees": (
        make_wcs("TAN", (180.0, 10.0), (100, 100), 0.05),
        (100, 100),
        make_wcs("CAR", (0.0, 0.0), ALL_OF_IT, 1.0),
        ALL_OF_IT,
        (96, 104, 0, 360),
    ),
    "the wrap in the middle of a grid that begins at its reference point": (
        make_wcs("TAN", (180.0, 10.0), (100, 100), 0.05),
        (100, 100),
        make_wcs("CAR", (0.0, 0.0), ALL_OF_IT, 1.0, shift=(0, -0.5)),
        ALL_OF_IT,
        (96, 104, 176, 184),
    ),
    "frame on right ascension 0": (
        make_wcs("TAN", (0.0, -5.0), (250, 250), 0.01),
        (250, 250),
        make_wcs("TAN", (359.9, -5.0), (400, 400), 0.01),
        (400, 400),
        (74, 326, 64, 316),
    ),
    "a tile of a grid inside of a frame": (
        make_wcs("TAN", (80.0, 89.9), (4000, 4000), 0.001),
        (4000, 4000),
        make_wcs("TAN", (200.0, 89.7), (100, 100), 0.0001),
        (100, 100),
        (0, 100, 0, 100),
    ),
    "a frame of all the sky": (
        make_wcs("CAR", (180.0, 0.0), ALL_OF_IT, 1.0),
        ALL_OF_IT,
        make_wcs("TAN", (0.0, 80.0), (100, 100), 0.01),
        (100, 100),
        (0, 100, 0, 100),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_places_that_are_known(name: str) -> None:
    """Poles, the wrap of right ascension in frame and grid, a grid inside of a frame: nothing is missed, and little is too much."""
    source, shape, target, size, expected = CASES[name]
    place = place_of(source, shape, target, size)
    for found, known in zip(place, expected, strict=True):
        assert known is None or abs(found - known) <= 4


def test_a_place_is_small_and_may_be_empty() -> None:
    """A frame on a large grid takes the box of its corners and two pixels; one behind the tangent plane takes none."""
    size = (20_000, 20_000)
    grid = FrozenWCS.of(make_wcs("TAN", (150.0, 2.0), size, 1e-4))
    frame = make_wcs("TAN-SIP", (150.3, 1.6), (2048, 2048), 1e-4, angle=45)
    frame.sip = Sip(frame.sip.a * 1e-2, frame.sip.b * 1e-2, None, None, frame.wcs.crpix)
    place = frame_place(frame, (2048, 2048), grid, size)
    assert max(place.shape) < 2048 * math.sqrt(2) * 1.03
    away = [make_wcs("TAN", center, (2048, 2048), 1e-4) for center in ((153.0, 2.0), (330.0, -2.0), (240.0, 2.0))]
    assert [frame_place(one, (2048, 2048), grid, size).size for one in away] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["AIT", "MOL", "ZEA", "HPX"])
def test_a_speck_of_sky_between_samples_is_found(kind: str) -> None:
    """All of the sky in the middle of a frame a thousand times as wide, in which hardly a sample lies on the sky."""
    source = make_wcs(kind, (40.0, 0.0), (1001, 1001), 30.0)
    target = make_wcs("CAR", (0.0, 0.0), (18, 36), 10.0)
    assert place_of(source, (1001, 1001), target, (18, 36)).shape == (18, 36)
    place = place_of(target, (18, 36), source, (1001, 1001))
    assert 0 < place.size < 60 * 60


@pytest.mark.parametrize("frame", ["fk4", "fk5", "galactic"])
def test_directions_of_other_frames_are_those_of_astropy(frame: str) -> None:
    """Rotations, and FK4, which is none; equivalent frames share theirs, so that no rounding comes in between."""
    wcs = make_wcs("TAN", (30.0, 40.0), (10, 10), 0.1, frame=frame)
    if frame == "fk4":
        wcs.wcs.radesys, wcs.wcs.equinox = "FK4", 1950.0
    rotation = rotation_to_icrs(wcs)
    longitude, latitude = np.array([0.0, 30, 200, 359]), np.array([-90.0, 40, -30, 89])
    sky = SkyCoord(longitude, latitude, unit="deg", frame=wcs_to_celestial_frame(wcs))
    np.testing.assert_allclose(rotation.vectors(longitude, latitude), sky.icrs.cartesian.xyz.value, atol=1e-14)
    back = SkyCoord(*rotation.angles(rotation.vectors(longitude, latitude)), unit="deg")
    here = SkyCoord(longitude, latitude, unit="deg")
    assert back.separation(here).deg.max() < (1e-9 if frame == "fk4" else 1e-13)
    wcs.wcs.dateobs = "2020-01-01"
    assert rotation_to_icrs(wcs) is rotation
