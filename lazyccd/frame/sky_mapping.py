"""Where the pixels of one celestial WCS lie in the image of another.

`SkyMapping` holds no WCS but what one is made from: plans are pickled, and a WCS of astropy is not safe in two threads. Each
thread makes its own, once. What it says is asked for on a lattice only; see `lazyccd.kernels.resample.lattice`.
"""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from dask.tokenize import tokenize

from lazyccd.errors import ArgumentTypeError, FrameError, ParameterError, quiet
from lazyccd.frame.header import TABLES
from lazyccd.frame.sky_caps import STEPS, Caps, caps_of, frame_sides, reference_cell
from lazyccd.kernels.block import Array
from lazyccd.kernels.resample.lattice import CELLS, PATCH, STEP, Exact, Patch, make_patch
from lazyccd.sections import Region

if TYPE_CHECKING:
    from astropy.wcs import WCS

ToSky: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]

NEWTON_STEPS = 12
"""Most steps by which a SIP polynomial is inverted: the error squares itself at each, and 3 reach 1e-12 pixel for most."""

CYLINDRICAL = ("CAR", "CEA", "MER", "CYP")
"""Projections whose pixels come again after 360 degrees."""


@dataclass(frozen=True)
class FrozenWCS:
    """What a WCS is made from, to the last bit.

    `WCS.to_header` writes 12 to 15 digits, and pickling a WCS goes through it: an image on its own WCS would move by 1e-9 pixel.
    """

    header: str
    """The header that astropy writes for it."""

    numbers: tuple[tuple[str, Any], ...]
    """Exact values of the attributes of its ``wcs``, by name."""

    sip: tuple[Any, ...] = ()
    """Coefficients and reference pixel of its SIP polynomials."""

    pickled: bytes = b""
    """Any other object with the interface of APE 14, or a WCS with tables."""

    @property
    def is_distorted(self) -> bool:
        """Whether there is more than a linear transformation and a projection, or that is not known."""
        return bool(self.sip or self.pickled) or any(word in self.header for word in ("---TPV", "CQDIS", "CPDIS"))

    @classmethod
    def of(cls, wcs: Any) -> FrozenWCS:
        """Return what a WCS is made from."""
        core = getattr(wcs, "wcs", None)
        if core is None:
            return cls("", (), pickled=pickle.dumps(wcs))
        core.set()
        # that goes through a header too, with the tables
        pickled = pickle.dumps(wcs) if has_tables(wcs) else b""
        # the steps are ignored beside a CD matrix, with a warning
        matrix = [("cd", core.cd)] if core.has_cd() else [("cdelt", core.cdelt), ("pc", core.get_pc())]
        given = [("crpix", core.crpix), ("crval", core.crval), *matrix]
        sip = () if wcs.sip is None else tuple(_plain(m) for m in (wcs.sip.a, wcs.sip.b, wcs.sip.crpix))
        with quiet(Warning):
            header = wcs.to_header(relax=True).tostring(sep="\n", endcard=False, padding=False)
        numbers = tuple((name, _plain(values)) for name, values in given)
        numbers += (("pv", tuple(core.get_pv())),) if core.get_pv() else ()
        return cls(header, numbers, sip, pickled)

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, for `from_json`.

        Raises
        ------
        ArgumentTypeError
            Raised if the WCS is not that of a FITS header.
        """
        if self.pickled:
            raise ArgumentTypeError("the WCS must be that of a FITS header, without tables: no other can be kept.")
        return {"header": self.header, "numbers": self.numbers, "sip": self.sip}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> FrozenWCS:
        """Return what `to_json` gave."""

        def tuples(value: Any) -> Any:
            return tuple(map(tuples, value)) if isinstance(value, list) else value

        return cls(kept["header"], tuples(kept["numbers"]), tuples(kept["sip"]))

    def make(self) -> Any:
        """Return the WCS."""
        from astropy.io import fits
        from astropy.wcs import WCS, Sip

        with quiet(Warning):
            if self.pickled:
                wcs = pickle.loads(self.pickled)
            else:
                wcs = WCS(fits.Header.fromstring(self.header, sep="\n"), relax=True)
        if not self.numbers:
            return wcs
        numbers = dict(self.numbers)
        if "cd" in numbers and not wcs.wcs.has_cd():
            # astropy writes a CD matrix as PC and CDELT = 1
            del wcs.wcs.pc
        for name, values in numbers.items():
            if name == "pv":
                wcs.wcs.set_pv(list(values))
            else:
                setattr(wcs.wcs, name, np.array(values))
        if self.sip:
            a, b, crpix = (None if m is None else np.array(m) for m in self.sip)
            wcs.sip = Sip(a, b, None, None, crpix)
        wcs.wcs.set()
        return wcs


def has_tables(wcs: Any) -> bool:
    """Return whether a WCS of astropy has distortions that are tables."""
    return any(getattr(wcs, name, None) is not None for name in TABLES.values())


def _plain(values: Any) -> Any:
    """Return an array as tuples."""
    if values is None:
        return None
    array = np.asarray(values)
    return tuple(_plain(row) for row in array) if array.ndim > 1 else tuple(array.tolist())


@dataclass(frozen=True)
class SkyMapping:
    """The input positions of output pixels."""

    target: FrozenWCS
    """WCS of the output."""

    source: FrozenWCS
    """WCS of the input."""

    shape: tuple[int, int]
    """Rows and columns of the input."""

    corners: bool = False
    """Whether positions are those of corners: of (0, 0) half a pixel before its centre along both axes."""

    token: str = field(init=False, default="")
    """Identity, computed once."""

    def __post_init__(self) -> None:
        """Compute the token."""
        object.__setattr__(self, "token", tokenize("SkyMapping", self.target, self.source, self.shape, self.corners))

    def __dask_tokenize__(self) -> str:
        """Return the token."""
        return self.token

    def __hash__(self) -> int:
        """Return the hash of the token."""
        return hash(self.token)

    def patch(self, row: int, column: int) -> Patch:
        """Return a patch of the lattice of coordinates."""
        return _patch(self, row, column)

    def exact(self) -> Exact:
        """Return the function of exact coordinates, with WCS objects of this thread."""
        made = _of_thread.mappings
        if self.token not in made:
            # a worker meets thousands of frames
            if len(made) >= MOST_MADE:
                made.clear()
            made[self.token] = positions_between(
                wcs_of_thread(self.target), wcs_of_thread(self.source), self.shape, 0.5 if self.corners else 0.0
            )
        return made[self.token]


MOST_MADE = 1024
"""How many WCS, and pairs of them, a thread keeps: one takes 4 kB, and a millisecond to make."""


class _OfThread(threading.local):
    """What a thread made for itself: a WCS of astropy is not safe in two."""

    def __init__(self) -> None:
        self.wcs: dict[FrozenWCS, Any] = {}
        self.mappings: dict[str, Exact] = {}


_of_thread = _OfThread()


@lru_cache(maxsize=512)  # footprints, costs and tasks ask for the same patches; each has 20 kB
def _patch(mapping: SkyMapping, row: int, column: int) -> Patch:
    coarse = _is_coarse(wcs_of_thread(mapping.target))

    def touches(y0: int, x0: int) -> Array:
        sides = [first - 0.5 + np.arange(-1, CELLS * STEPS + 2) * (STEP / STEPS) for first in (y0, x0)]
        caps = image_caps(wcs_of_thread(mapping.target), sides)
        # all of the sky of a coarse grid may lie between samples
        found = _cells_with_sky(mapping.target, y0, x0).copy() if coarse else np.zeros((CELLS, CELLS), bool)
        found[tuple(caps.cells.T)] = caps.touched_by(frame_caps(mapping.source, mapping.shape))
        return found

    return make_patch(row, column, mapping.exact(), mapping.shape, touches, pixelwise=coarse)


@lru_cache(maxsize=64)
def _cells_with_sky(target: FrozenWCS, y0: int, x0: int) -> Array:
    """Return which cells of a patch have a pixel on the sky."""
    y, x = (v.ravel().astype(float) for v in np.indices((PATCH, PATCH)))
    longitude, _ = sky_of(wcs_of_thread(target))(y + y0, x + x0)
    return np.asarray(np.isfinite(longitude).reshape(CELLS, STEP, CELLS, STEP).any(axis=(1, 3)))


@lru_cache(maxsize=256)
def frame_caps(source: FrozenWCS, shape: tuple[int, int]) -> Caps:
    """Return the circles on the sphere that hold the cells of a frame."""
    return image_caps(wcs_of_thread(source), frame_sides(shape))


def image_caps(wcs: Any, sides: list[Array]) -> Caps:
    """Return the circles on the sphere that hold the cells of an image, which is looked at in some rows and columns."""
    y, x = (v.ravel() for v in np.meshgrid(*sides, indexing="ij"))
    with np.errstate(all="ignore"):
        vectors = rotation_to_icrs(wcs).vectors(*sky_of(wcs)(y, x))
    return caps_of(vectors.reshape(3, len(sides[0]), len(sides[1])), reference_cell(wcs, sides))


WIDEST_CELL = 20.0
"""Degrees of the side of a cell of the lattice beyond which nothing is interpolated: nodes would miss a period of 360 degrees."""


def _is_coarse(target: Any) -> bool:
    """Return whether nodes of a lattice on a grid are too far apart."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    return hasattr(target, "wcs") and float(max(proj_plane_pixel_scales(target))) * STEP > WIDEST_CELL


def positions_between(target: Any, source: Any, shape: tuple[int, int], before: float = 0.0) -> Exact:
    """Return the function from output to input positions, for the thread that has these WCS.

    Parameters
    ----------
    target, source
        WCS of output and input.
    shape
        Rows and columns of the input.
    before
        By how much the positions that the function is given are too large.
    """
    if not hasattr(source, "wcs"):
        raise FrameError("the WCS of a frame must be that of a FITS header.")
    to_sky, from_sky = sky_of(target), _from_sky(source, shape)
    origin, into = rotation_to_icrs(target), rotation_to_icrs(source)

    def exact(y: Array, x: Array) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            longitude, latitude = to_sky(y - before, x - before)
            if origin is not into:
                longitude, latitude = into.angles(origin.vectors(longitude, latitude))
            return from_sky(longitude, latitude)

    return exact


def wcs_of_thread(frozen: FrozenWCS) -> Any:
    """Return a WCS that only this thread uses; it must not be changed."""
    made = _of_thread.wcs
    if frozen not in made:
        if len(made) >= MOST_MADE:
            made.clear()
        made[frozen] = frozen.make()
    return made[frozen]


def sky_of(wcs: Any) -> ToSky:
    """Return the function from positions y, x to longitude and latitude in degrees, in the celestial frame of the WCS.

    Those of a WCS that is not of FITS are in ICRS.
    """
    if not hasattr(wcs, "wcs"):

        def of_any(y: Array, x: Array) -> tuple[Array, Array]:
            sky = wcs.pixel_to_world(x, y).icrs
            return sky.ra.deg, sky.dec.deg

        return of_any
    lng, lat = wcs.wcs.lng, wcs.wcs.lat
    period = pixel_period(wcs)

    def of_fits(y: Array, x: Array) -> tuple[Array, Array]:
        pixels = np.stack([x, y], axis=-1)
        for axis, every in period:
            # wcslib knows a cylinder up to 180 degrees from its reference point only, and many maps begin or end there
            pixels[:, axis] -= np.round((pixels[:, axis] + 1 - wcs.wcs.crpix[axis]) / every) * every
        world = wcs.all_pix2world(pixels, 0)
        return world[:, lng], world[:, lat]

    return of_fits


@dataclass(frozen=True, eq=False)
class SkyRotation:
    """Directions of a celestial frame as unit vectors in ICRS, and back."""

    matrix: Array | None
    """Turns vectors of the frame into those of ICRS; None for frames, such as FK4, that are no rotation of it."""

    frame: Any = None
    """The frame of astropy, where there is no matrix."""

    def vectors(self, longitude: Array, latitude: Array) -> Array:
        """Return unit vectors in ICRS, shape ``(3, n)``, of angles in degrees."""
        if self.matrix is None:
            from astropy.coordinates import SkyCoord

            sky = SkyCoord(longitude, latitude, unit="deg", frame=self.frame).icrs
            return _unit_vectors(sky.ra.rad, sky.dec.rad)
        return self.matrix @ _unit_vectors(np.deg2rad(longitude), np.deg2rad(latitude))

    def angles(self, vectors: Array) -> tuple[Array, Array]:
        """Return longitude and latitude in degrees of vectors in ICRS."""
        if self.matrix is not None:
            return _angles(self.matrix.T @ vectors)
        from astropy.coordinates import SkyCoord

        sky = SkyCoord(*_angles(vectors), unit="deg", frame="icrs").transform_to(self.frame)
        return sky.spherical.lon.deg, sky.spherical.lat.deg


def _unit_vectors(longitude: Array, latitude: Array) -> Array:
    """Return unit vectors of angles in radians."""
    in_plane = np.cos(latitude)
    return np.stack([in_plane * np.cos(longitude), in_plane * np.sin(longitude), np.sin(latitude)])


def _angles(vectors: Array) -> tuple[Array, Array]:
    """Return longitude and latitude in degrees of vectors."""
    x, y, z = vectors
    return np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))


ICRS = SkyRotation(np.eye(3))

_rotations: dict[tuple[str, ...], tuple[Any, SkyRotation]] = {}

MOST_FRAMES = 256
"""How many celestial frames are remembered: those of the solar system differ from date to date."""


def rotation_to_icrs(wcs: Any) -> SkyRotation:
    """Return how directions of a WCS lie in ICRS: the same object for equivalent celestial frames."""
    if not hasattr(wcs, "wcs"):
        return ICRS
    core = wcs.wcs
    words: tuple[str, ...] = (core.ctype[core.lng][:4], core.lattyp, core.radesys, str(core.equinox))
    if core.lngtyp not in {"RA", "GLON"}:
        words += (core.dateobs, str(core.mjdobs), str(core.mjdavg))
    found = _rotations.get(words)
    if found is None:
        found = _rotation(wcs)
        if len(_rotations) >= MOST_FRAMES:
            _rotations.clear()
        _rotations[words] = found
    return found[1]


def _rotation(wcs: Any) -> tuple[Any, SkyRotation]:
    """Return the celestial frame of a WCS, and how its directions lie in ICRS."""
    from astropy import coordinates
    from astropy.wcs.utils import wcs_to_celestial_frame

    frame = wcs_to_celestial_frame(wcs)
    if frame.is_equivalent_frame(coordinates.ICRS()):
        return frame, ICRS
    for other, rotation in list(_rotations.values()):
        if frame.is_equivalent_frame(other):
            return frame, rotation
    by_astropy = SkyRotation(None, frame)
    probes = np.array([[0.0, 0], [90, 0], [0, 90], [33, 44], [200, -60], [300, 10]]).T
    columns = by_astropy.vectors(*probes)
    matrix = columns[:, :3]
    # parallax and aberration, as in FK4, are no rotation: 1e-12 is 0.2 microarcseconds
    is_rotation = np.abs(matrix @ _unit_vectors(*np.deg2rad(probes)) - columns).max() < 1e-12
    return frame, SkyRotation(matrix) if is_rotation else by_astropy


def _from_sky(source: Any, shape: tuple[int, int]) -> ToSky:
    """Return the function from celestial coordinates to input positions y, x."""
    lng, lat = source.wcs.lng, source.wcs.lat
    period = pixel_period(source)
    tables = has_tables(source)
    distorted = None if source.sip is None or tables else _distorted_image(source, shape)

    def from_sky(longitude: Array, latitude: Array) -> tuple[Array, Array]:
        world = np.empty((longitude.size, 2))
        world[:, lng], world[:, lat] = longitude, latitude
        finite = np.isfinite(world).all(axis=1)
        focal = np.full_like(world, np.nan)
        if finite.any():
            focal[finite] = source.wcs_world2pix(world[finite], 0)
        if tables:
            focal = _without_tables(source, focal, shape)
        x, y = _undistorted(source, focal, distorted) if distorted else (focal[:, 0], focal[:, 1])
        for axis, every in period:
            # the copy of a position that lies nearest to the middle of the image
            values, middle = (x, (shape[1] - 1) / 2) if axis == 0 else (y, (shape[0] - 1) / 2)
            values -= np.round((values - middle) / every) * every
        return y, x

    return from_sky


def pixel_period(wcs: Any) -> list[tuple[int, float]]:
    """Return the pixel axis along which the sky comes again, and after how many pixels; a list of one or none."""
    lng = wcs.wcs.lng
    matrix = wcs.pixel_scale_matrix
    if wcs.wcs.ctype[lng][-3:] not in CYLINDRICAL or wcs.sip is not None or has_tables(wcs):
        return []
    row = matrix[lng]
    axes = np.flatnonzero(row)
    # along a rotated axis it comes again at other rows too
    if axes.size != 1 or np.count_nonzero(matrix[:, axes[0]]) != 1:
        return []
    return [(int(axes[0]), float(abs(360 / row[axes[0]])))]


class _DistortedImage(NamedTuple):
    """Where a SIP polynomial moves the pixels of an image."""

    low: Array
    """Smallest x and y of the image and of all that its pixels are moved to."""

    high: Array
    """Largest x and y."""

    farthest: float
    """Pixels by which none is moved farther."""


def _distorted_image(source: WCS, shape: tuple[int, int]) -> _DistortedImage:
    """Return where a SIP polynomial moves the pixels of an image."""
    rows, columns = frame_sides(shape)
    pixels = np.stack([v.ravel() for v in np.meshgrid(columns, rows)], axis=-1)
    moved = source.pix2foc(pixels, 0)
    both = np.concatenate([moved, [(-0.5, -0.5), (shape[1] - 0.5, shape[0] - 0.5)]])
    # half of the image and more, since a lattice about it is smooth then
    farthest = max(0.5 * max(shape) + 64, 1.1 * float(np.hypot(*(moved - pixels).T).max()))
    return _DistortedImage(both.min(axis=0) - 1, both.max(axis=0) + 1, farthest)


def _undistorted(source: WCS, focal: Array, image: _DistortedImage) -> tuple[Array, Array]:
    """Return the pixels whose distorted positions are ``focal``, by Newton's method, with as many steps for each.

    Positions that are far from the image are left as they are: the polynomial says nothing there, and may fold back.
    """
    sip = source.sip
    u0, v0 = sip.crpix - 1
    f, g = focal[:, 0] - u0, focal[:, 1] - v0
    u, v = f.copy(), g.copy()
    for _ in range(NEWTON_STEPS):
        (a, a_u, a_v), (b, b_u, b_v) = (_polynomial(m, u, v) for m in (sip.a, sip.b))
        p, q = u + a - f, v + b - g
        a_u, b_v = a_u + 1, b_v + 1
        determinant = a_u * b_v - a_v * b_u
        u, v = u - (b_v * p - a_v * q) / determinant, v - (a_u * q - b_u * p) / determinant
        # positions without coordinates have none at any step
        if np.fmax.reduce(np.fmax(np.abs(p), np.abs(q)), initial=0.0) <= SQUARED_AWAY:
            break
    x, y = u + u0, v + v0
    # a fold: a position that moved by more than the polynomial moves any pixel of the image
    moved = np.hypot(x - focal[:, 0], y - focal[:, 1])
    lost = ~((moved <= image.farthest) & (np.hypot(p, q) <= CONVERGED))
    away = (focal[lost] < image.low).any(axis=1) | (focal[lost] > image.high).any(axis=1)
    x[lost], y[lost] = (np.where(away, focal[lost, k], np.nan) for k in (0, 1))
    return x, y


def _without_tables(source: WCS, focal: Array, shape: tuple[int, int]) -> Array:
    """Return the pixels whose positions are ``focal`` after tables and polynomials, x and y in columns.

    Tables move pixels by little that changes slowly, so what the last position is off is subtracted from it, as often for each. Positions
    far from the image are left as they are: tables go on there with the values at their edges, and polynomials may fold back.
    """
    sizes = np.array(shape[::-1], float)
    near = ((focal > -sizes / 2 - 64) & (focal < 1.5 * sizes + 64)).all(axis=1)
    found = focal.copy()
    if not near.any():
        return found
    pixels, wanted = focal[near].copy(), focal[near]
    for _ in range(TABLE_STEPS):
        pixels -= source.pix2foc(pixels, 0) - wanted
    off = np.abs(source.pix2foc(pixels, 0) - wanted).max(axis=1)
    pixels[~(off <= CONVERGED)] = np.nan
    found[near] = pixels
    return found


TABLE_STEPS = 16
"""Steps by which tables are inverted: those of instruments bend by a hundredth, and each step leaves that part of the last."""

SQUARED_AWAY = 1e-7
"""Pixels left before a step of Newton's method after which none are: their square is rounding."""

CONVERGED = 1e-3
"""Pixels left before the last step of Newton's method, which leaves the square of them."""


def _polynomial(coefficients: Array | None, u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return the sum of c[p, q] u^p v^q and its derivatives along u and v."""
    if coefficients is None:
        zero = np.zeros_like(u)
        return zero, zero, zero
    value, along_u, along_v = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    # powers by products: those of floats by floats take ten times as long
    powers = [[np.ones_like(x), x] for x in (u, v)]
    for _ in range(2, max(coefficients.shape)):
        for x, known in zip((u, v), powers, strict=True):
            known.append(known[-1] * x)
    for p, q in zip(*np.nonzero(coefficients), strict=True):
        c = coefficients[p, q]
        value += c * powers[0][p] * powers[1][q]
        if p:
            along_u += c * p * powers[0][p - 1] * powers[1][q]
        if q:
            along_v += c * q * powers[0][p] * powers[1][q - 1]
    return value, along_u, along_v


def unsolved_region(wcs: Any, shape: tuple[int, int]) -> Region | None:
    """Return the pixels of an image that cannot be found again from their place on the sky; None if all can.

    A distortion that was fitted to few stars folds back at the edges, and then two pixels have one place.
    """
    sides = [side[1:-1] for side in frame_sides(shape)]
    y, x = (v.ravel() for v in np.meshgrid(*sides, indexing="ij"))
    with np.errstate(all="ignore"):
        longitude, latitude = sky_of(wcs)(y, x)
        again = _from_sky(wcs, shape)(longitude, latitude)
    lost = ~(np.hypot(again[0] - y, again[1] - x) <= SAME_PIXEL) & np.isfinite(longitude)
    if not lost.any():
        return None
    steps = [side[1] - side[0] for side in sides]
    low = [math.floor(v[lost].min() - step / 2) for v, step in zip((y, x), steps, strict=True)]
    high = [math.ceil(v[lost].max() + step / 2) for v, step in zip((y, x), steps, strict=True)]
    return Region(low[0], high[0] + 1, low[1], high[1] + 1).clip(shape)


SAME_PIXEL = 0.01
"""Pixels by which a position may differ from what it was, after the way to the sky and back."""

EDGE_STEP = 64
"""Pixels between the points of an image at which its place on the sky is looked at."""


def sampled(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return positions y, x on the outline of an image and inside of it, each of shape ``(rows, columns)``.

    Those inside are needed: the range of the edges alone misses a pole, or the place where right ascension begins anew.
    """
    rows, columns = (np.linspace(-0.5, n - 0.5, max(n // EDGE_STEP, 8) + 1) for n in shape)
    ys, xs = np.meshgrid(rows, columns, indexing="ij")
    return ys, xs


ROUGH = 0.25
"""Second difference of positions, over the largest first one, beyond which they are not smooth. A jump gives about 1."""


def bends_and_step(found: Array) -> tuple[float, float, float]:
    """Return the largest second differences of samples along y and along x, and the largest first one; NaN if any is."""
    along = (found[1:] - found[:-1], found[:, 1:] - found[:, :-1])
    bends = (along[0][1:] - along[0][:-1], along[1][:, 1:] - along[1][:, :-1])
    return float(np.abs(bends[0]).max()), float(np.abs(bends[1]).max()), max(float(np.abs(v).max()) for v in along)


def footprint_pixels(source: Any, shape: tuple[int, int], target: Any) -> tuple[int, int, int, int]:
    """Return the pixels y0, y1, x0, x1 of a grid on which an image lies, half-open; those outside of an image count on.

    Raises as `footprint_edges`.
    """
    y0, y1, x0, x1 = footprint_edges(source, shape, target)
    return math.floor(y0), math.ceil(y1), math.floor(x0), math.ceil(x1)


def footprint_edges(source: Any, shape: tuple[int, int], target: Any) -> tuple[float, float, float, float]:
    """Return the edges y0, y1, x0, x1 of an image on a grid, counted from the edge of its first pixel.

    Raises
    ------
    ParameterError
        Raised if the image does not lie on the grid.
    """
    ys, xs = sampled(shape)
    found = np.stack(positions_between(source, target, shape)(ys.ravel(), xs.ravel())).reshape(2, *ys.shape)
    finite = np.isfinite(found).all(axis=0)
    if not finite.any():
        raise ParameterError("the frame lies nowhere on the grid of target_wcs; look at its CRVAL.")
    limits: list[float] = []
    periods = dict(pixel_period(target))
    for k, positions in enumerate(found):
        positions[~finite] = np.nan
        period = periods.get(1 - k)
        if period is not None:
            # side by side with the first one, which is the copy next to the reference point
            first = positions[finite][0]
            positions -= np.round((positions - first) / period) * period
            positions -= np.round((first - target.wcs.crpix[1 - k]) / period) * period
        limits += _limits_of(positions, finite, period)
    return limits[0], limits[1], limits[2], limits[3]


def _limits_of(positions: Array, finite: Array, period: float | None) -> tuple[float, float]:
    """Return the edges of what samples of an image lie on along an axis."""
    low, high = float(positions[finite].min()), float(positions[finite].max())
    *bends, step = bends_and_step(positions)
    if sum(bends) <= ROUGH * step:
        # a hair is taken off, lest a whole-pixel shift get a row more by rounding
        margin = sum(bends) / 8 - 1e-6
    else:
        # a pole between samples, or an end of the sky; not a jump from one end of the grid to the other
        steps = np.concatenate([np.abs(np.diff(positions, axis=axis)).ravel() for axis in (0, 1)])
        steps = steps[np.isfinite(steps)]
        margin = 2 * float(np.quantile(steps, 0.9)) if steps.size else 1.0
    if period is not None and high - low + 2 * margin >= period:
        first = round((low + high - period) / 2)
        return first, first + math.ceil(period - 1e-6)
    # edges of pixels
    return low - margin + 0.5, high + margin + 0.5


def shifted(wcs: Any, y0: int, x0: int) -> Any:
    """Return a WCS whose pixel (0, 0) is the pixel (y0, x0) of another."""
    if not hasattr(wcs, "wcs"):
        raise ArgumentTypeError("target_shape 'union' needs an astropy.wcs.WCS, whose reference pixel can be moved.")
    if has_tables(wcs):
        raise ArgumentTypeError(
            "target_shape 'union' cannot move a WCS whose distortion is a table; give its rows and columns."
        )
    new = wcs.deepcopy()
    new.wcs.crpix = wcs.wcs.crpix - (x0, y0)
    if new.sip is not None:
        from astropy.wcs import Sip

        new.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix - (x0, y0))
    return new


def pixel_area_ratio(target: Any, source: Any, coordinates: SkyMapping, shape: tuple[int, int]) -> float:
    """Return the area of an output pixel in input pixels: at the reference points, as ccdproc has it.

    For a WCS that has no reference point it is that at the middle of the output.
    """
    from astropy.wcs.utils import proj_plane_pixel_area

    if hasattr(target, "wcs"):
        return float(proj_plane_pixel_area(target) / proj_plane_pixel_area(source.celestial))
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    found = np.array(coordinates.exact()(np.array([y + 0.5, y - 0.5, y, y]), np.array([x, x, x + 0.5, x - 0.5])))
    return abs(float(np.linalg.det(found[:, ::2] - found[:, 1::2])))
