"""Resample a frame onto the pixels of another WCS.

A task computes one chunk of the output and reads what lies under it, and nothing else. Coordinates are exact on a lattice and
cubic in between (`lazyccd.kernels.resample.lattice`); the loops are in `lazyccd.kernels.resample.interpolate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from lazyccd.errors import ArgumentTypeError, FrameError, ParameterError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.header import SECTION_KEYWORD, WCS_KEYWORD, NewCard, append_cards, cards_of, header_view, wcs_cards
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.sky_mapping import (
    FrozenWCS,
    SkyMapping,
    footprint_pixels,
    has_tables,
    pixel_area_ratio,
    shifted,
    unsolved_region,
)
from lazyccd.frame.wcs import image_wcs, refuse_unknown_distortion
from lazyccd.kernels.block import APERTURE
from lazyccd.kernels.pointwise import first_known
from lazyccd.kernels.resample.block import resample
from lazyccd.kernels.resample.weights import AREA, KERNELS
from lazyccd.ops.decorator import called_with_ccddata, operation, tell_wcs
from lazyccd.ops.mosaic.full_turn import continued, full_turn, turned
from lazyccd.plan.chunks import default_grid
from lazyccd.plan.footprints import PlaneMap, Warped
from lazyccd.plan.steps import Apply, Input, make_dtypes, make_params

Order: TypeAlias = Literal[
    "nearest", "nearest-neighbor", "bilinear", "bicubic", "lanczos2", "lanczos3", "lanczos4", "area", 0, 1, 3
]

ORDERS: dict[str | int, str] = {
    **{name: name for name in (*KERNELS, AREA)},
    "nearest-neighbor": "nearest",
    0: "nearest",
    1: "bilinear",
    3: "bicubic",
}
"""Kernel of each order: names, and what ccdproc calls them."""

POLYNOMIAL = re.compile(r"^(PV\d_|CQDIS\d)", re.MULTILINE)
"""Cards of distortions beside SIP, and of projections with parameters."""

LARGEST = 2**40
"""Pixels of an output; more, a terabyte for each byte of a pixel, is a mistake in the WCS or the shape."""

RESAMPLED: PlaneMap = (
    ("data", ("data", "variance", "mask")),
    ("variance", ("data", "variance", "mask")),
    ("mask", ("data", "variance", "mask")),
    (APERTURE, ("data", "variance", "mask")),
)
"""Bad pixels have no weight, and what is not finite is bad, in the variance too: else data computed alone would be others."""


@operation()
def wcs_project(
    ccd: xr.Dataset,
    target_wcs: Any,
    target_shape: tuple[int, int] | Literal["union"] | None = None,
    order: Order = "bilinear",
    *,
    pixfrac: float = 1.0,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Resample an image onto the pixels of another WCS.

    Parameters
    ----------
    ccd
        A frame with a celestial WCS.
    target_wcs
        The WCS of the result: an `astropy.wcs.WCS`, or any other celestial one with the interface of APE 14. Its frame may be
        another than that of the image, such as Galactic.
    target_shape
        Rows and columns of the result. None takes those of the image, as ccdproc does; ``"union"`` makes the result as large
        as the image on the grid of ``target_wcs``, whose reference pixel moves along.
    order
        ``"nearest"``, ``"bilinear"``, ``"bicubic"`` (Keys 1981), ``"lanczos2"``, ``"lanczos3"`` or ``"lanczos4"``. Where output
        pixels are larger than input pixels, the kernel is widened by their ratio. ``"area"`` takes the mean of the input pixels
        that lie on a pixel, weighted by the area of each on it.
    pixfrac
        For ``"area"``: part of its side that each input pixel shrinks to, above 0 and at most 1, as in drizzle. Pixels on which
        none lies have no data.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, which reads what lies under it; units as before. As in ccdproc the data are those of a pixel
        of the result: surface brightness times the ratio of pixel areas at the reference points. The variance is that of each
        pixel by itself, the sum of squared weights times variances; neighbours are correlated.

        There is always a mask. Bad input pixels and NaN have weight 0, and the weights that are left are normalised; a pixel
        that loses more than half of its absolute weight is NaN and ``NO_DATA``. Another plane is set where pixels that have it
        hold more than a tenth. The header has the WCS of the target, and no sections of the detector.

    Raises
    ------
    FrameError
        Raised if the image has no celestial WCS.
    ArgumentTypeError
        Raised if ``target_wcs`` is not a celestial WCS.
    ParameterError
        Raised if the order is not one of these, ``pixfrac`` is not one of its values or is given for another order, the shape is
        not two numbers above 0, or the image does not lie on the grid.

    See Also
    --------
    lazyccd.find_optimal_grid

    Notes
    -----
    Coordinates are exact at every 64th pixel and cubic in between, where that is right to 1e-4 pixel at the centre; else they are
    exact for smaller cells, down to each pixel. Weights are tabulated at 4096 fractions of a pixel. Identity and whole-pixel
    shifts return the same bits, and an inclined plane stays one. The Lanczos kernels have a window of cosines, near to that of
    Lanczos, by which stars of 2 pixels FWHM keep their flux to 3e-4 and their place to 0.001 pixels wherever they lie. Stars of 1.5 pixels
    keep their flux to 1e-3, and their place to 0.003 pixels with Lanczos 3 and 0.002 with Lanczos 4: at some angles the pixels of the
    result sample the kernel's transform where it falls from 1 to 0, and such stars have light at the alias of that frequency.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01})
    >>> image = CCDData(np.arange(12.0).reshape(3, 4), unit="adu", wcs=wcs)
    >>> wcs_project(image, wcs).data[1]
    array([4., 5., 6., 7.])
    >>> half = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01, "CRPIX1": 0.5})
    >>> wcs_project(image, half).data[1]
    array([4. , 4.5, 5.5, 6.5])
    """
    image = resolve(ccd)
    source = celestial_wcs(image)
    target = celestial_target(target_wcs)
    kernel, part = kernel_of(order), pixfrac_of(order, pixfrac)
    if target_shape is None:
        shape = image.shape
    elif isinstance(target_shape, str):
        target, shape = _union(target, target_shape, source, image.shape)
    else:
        shape = normalize_shape(target_shape)
    if is_absurd(target, shape):
        raise ParameterError(
            f"target_wcs has pixels of {scale_of(target):.3g} degrees, and {max(shape)} of them go around the sky; if that is in "
            "arcseconds, set CUNIT1 and CUNIT2 = 'arcsec' for CDELT or CD."
        )
    tell_wcs(target)
    # a single call has no later operations whose tasks would repeat the warp
    return warped(image, source, SkyGrid(target, shape, kernel, part)).to_dataset(boundary=not called_with_ccddata())


def kernel_of(order: object) -> str:
    """Return the name of the kernel that an order means."""
    kernel = ORDERS.get(order) if isinstance(order, str | int) else None
    if kernel is None:
        raise ParameterError(f"order {order!r} must be one of {', '.join(map(repr, ORDERS))}.")
    return kernel


def pixfrac_of(order: object, pixfrac: object) -> float:
    """Return the part of its side that an input pixel shrinks to."""
    if isinstance(pixfrac, bool) or not isinstance(pixfrac, int | float | np.number) or not 0 < pixfrac <= 1:
        raise ParameterError(f"pixfrac {pixfrac!r} must be a number above 0 and at most 1.")
    if pixfrac != 1 and kernel_of(order) != AREA:
        raise ParameterError(f"pixfrac {pixfrac!r} is for order='area' and not for {order!r}.")
    return float(pixfrac)


def celestial_wcs(image: Image, label: str = "the frame") -> Any:
    """Return the WCS of an image.

    Parameters
    ----------
    image
        The image.
    label
        What messages call it, such as its file.

    Raises
    ------
    FrameError
        Raised if it has no celestial one, one of an absurd scale, or one whose distortion is unknown or folds back inside of the
        image.
    """
    refuse_unknown_distortion(image.header, label)
    wcs = image_wcs(image, label)
    if wcs is None:
        raise FrameError(
            f"the header of {label} has no celestial WCS, so it has no place on the sky; solve the field and write the cards of the "
            "solution (CTYPE, CRVAL, CRPIX, CD) into its header, with ds.ccd.with_header()."
        )
    if is_absurd(wcs, image.shape):
        raise FrameError(
            f"the WCS of {label} makes it {scale_of(wcs) * max(image.shape):.0f} degrees wide, since its pixels have "
            f"{scale_of(wcs):.3g} degrees; if that is in arcseconds, set CUNIT1 and CUNIT2 = 'arcsec' for CDELT or CD with "
            "ds.ccd.with_header()."
        )
    is_distorted = wcs.sip is not None or has_tables(wcs) or POLYNOMIAL.search(image.header)
    lost = unsolved_region(wcs, image.shape) if is_distorted else None
    if lost is not None:
        raise FrameError(
            f"the WCS of {label} does not lead back from the sky to the pixels [{lost.y0}:{lost.y1}, {lost.x0}:{lost.x1}] "
            f"(CTYPE1 = {header_view(image.header).get('CTYPE1')!r}): its distortion folds back there. Fit it anew with a lower order, "
            "or cut these pixels off with ds.isel()."
        )
    return wcs


def scale_of(wcs: Any) -> float:
    """Return degrees of a pixel."""
    from astropy.wcs.utils import proj_plane_pixel_area  # brings coordinates and tables along

    return float(np.sqrt(proj_plane_pixel_area(wcs)))


def is_absurd(wcs: Any, shape: tuple[int, int]) -> bool:
    """Return whether an image in tangent projection, which holds half of the sky, is wider than all of it."""
    return hasattr(wcs, "wcs") and wcs.wcs.ctype[wcs.wcs.lng][5:8] == "TAN" and scale_of(wcs) * max(shape) > 360


def celestial_target(wcs: Any) -> Any:
    """Return a celestial WCS.

    Raises
    ------
    ArgumentTypeError
        Raised if it is something else.
    """
    if hasattr(wcs, "low_level_wcs") and not hasattr(wcs, "wcs"):
        wcs = wcs.low_level_wcs if hasattr(wcs.low_level_wcs, "wcs") else wcs
    if hasattr(wcs, "wcs"):
        if not wcs.has_celestial:
            raise ArgumentTypeError(f"target_wcs has axes {list(wcs.wcs.ctype)} and must be celestial.")
        return wcs.celestial
    types = getattr(wcs, "world_axis_physical_types", None)
    if types is None or sum(str(name).startswith("pos.") for name in types) != 2:
        raise ArgumentTypeError(f"target_wcs is a {type(wcs).__name__} and must be a celestial WCS of two axes.")
    return wcs


def normalize_shape(shape: Any) -> tuple[int, int]:
    """Return the shape of an output.

    Raises
    ------
    ParameterError
        Raised if it is not two whole numbers above 0, or too large to be meant.
    """
    sizes = np.atleast_1d(np.asarray(shape, dtype=object))
    if sizes.size != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
        raise ParameterError(f"target_shape {shape!r} must be two whole numbers above 0, in the order y, x.")
    rows, columns = int(sizes[0]), int(sizes[1])
    if rows * columns > LARGEST:
        raise ParameterError(
            f"target_shape ({rows}, {columns}) has {rows * columns:.2g} pixels; look at the scale of target_wcs, which may be in "
            "arcseconds where degrees are meant."
        )
    return rows, columns


def _union(target: Any, asked: str, source: Any, size: tuple[int, int]) -> tuple[Any, tuple[int, int]]:
    """Return the WCS and the shape of the part of a grid on which an image lies."""
    if asked != "union":
        raise ParameterError(f"target_shape {asked!r} must be two numbers, None or 'union'.")
    y0, y1, x0, x1 = footprint_pixels(source, size, target)
    return shifted(target, y0, x0), normalize_shape((y1 - y0, x1 - x0))


@dataclass(frozen=True)
class SkyGrid:
    """A grid of pixels on the sky, and how images are brought onto it."""

    wcs: Any
    """The celestial WCS of the grid."""

    shape: tuple[int, int]
    """Rows and columns."""

    kernel: str
    """Name of the interpolation kernel."""

    pixfrac: float = 1.0
    """Part of its side that an input pixel shrinks to."""

    @cached_property
    def frozen(self) -> FrozenWCS:
        """What the WCS is made from."""
        return FrozenWCS.of(self.wcs)

    @cached_property
    def cards(self) -> tuple[list[NewCard], list[str]]:
        """Cards of its WCS for the headers of all images that are brought onto it, and lines of records."""
        # the tables of a distortion would be other HDUs
        if not hasattr(self.wcs, "to_header") or has_tables(self.wcs):
            return [], []
        cards, records = wcs_cards(self.wcs.to_header(relax=True))
        return [card for card in cards if card[0] not in {"DATE-OBS", "MJD-OBS", "MJDREF", ""}], records


def warped(
    image: Image,
    source: Any,
    grid: SkyGrid,
    kernel: str | None = None,
    *,
    for_stack: bool = False,
    aperture: bool = False,
) -> Image:
    """Return an image on a grid of the sky.

    Parameters
    ----------
    image
        The image.
    source
        Its celestial WCS.
    grid
        The grid.
    kernel
        Another kernel than that of the grid: weights are interpolated linearly.
    for_stack
        Whether it is to be combined with others. Then data are scaled by the area of each pixel in pixels of the image, so that flux is
        conserved over wide fields, else by one number, as in ccdproc; and an image without mask gets none, as NaN tells a stack
        all that it would.
    aperture
        Whether it has the plane of variances for apertures.
    """
    kernel = kernel or grid.kernel
    turn = full_turn(source, image.shape)
    if turn is None:
        return _resampled(image, source, grid, kernel, for_stack=for_stack, aperture=aperture)
    if kernel != AREA:
        return _resampled(*continued(image, source, turn), grid, kernel, for_stack=for_stack, aperture=aperture)
    images = [(image, source), turned(image, source, turn)]
    first, second = (_resampled(*one, grid, kernel, for_stack=for_stack, aperture=aperture) for one in images)
    plan = Apply(
        grid.shape,
        first.plan.planes,
        kernel=first_known,
        sources=tuple(
            Input(one.plan, uses=tuple((name, ("data", name)) for name, _ in one.plan.planes))
            for one in (first, second)
        ),
    )
    return replace(first, plan=plan)


def _resampled(image: Image, source: Any, grid: SkyGrid, kernel: str, *, for_stack: bool, aperture: bool) -> Image:
    """Return an image on a grid of the sky, by a kernel that sees the pixels of the image and nothing beyond; see `warped`."""
    shape, target = grid.shape, grid.wcs
    coordinates = SkyMapping(grid.frozen, FrozenWCS.of(source), image.shape, corners=kernel == AREA)
    schema = image.schema
    planes: dict[str, Any] = dict(image.plan.planes)
    planes |= {} if for_stack and not image.has_mask else {"mask": schema.dtype}
    planes |= {APERTURE: planes["variance"]} if aperture else {}
    no_data = schema.bits("NO_DATA")
    plan = Apply(
        shape,
        make_dtypes(**planes),
        kernel=resample,
        sources=(Input(image.plan, Warped(coordinates, kernel), RESAMPLED),),
        params=make_params(
            coordinates=coordinates,
            shape=image.shape,
            interpolation=kernel,
            ratio=None if for_stack else pixel_area_ratio(target, source, coordinates, shape),
            bits=(schema.bad_bits, no_data, (1 << len(schema.planes)) - 1 - no_data),
            dtype=image.dtype.name,
            mask_dtype=schema.dtype.name,
            **({"pixfrac": grid.pixfrac} if kernel == AREA else {}),
        ),
    )
    header = target_header(image.header, grid)
    return replace(
        image, plan=plan, grid=default_grid(shape), header=header, y=np.arange(shape[0]), x=np.arange(shape[1])
    )


def target_header(text: str, grid: SkyGrid) -> str:
    """Return a header with the WCS of a grid, without sections and WCS of the detector."""
    kept = [
        lines
        for keyword, lines in cards_of(text)
        if not WCS_KEYWORD.match(keyword) and (keyword == "GAIN" or not SECTION_KEYWORD.match(keyword))
    ]
    text = "\n".join(line for lines in kept for line in lines)
    size = [("NAXIS1", grid.shape[1], ""), ("NAXIS2", grid.shape[0], "")]
    cards, records = grid.cards
    return "\n".join([append_cards(text, [*size, *cards]), *records])
