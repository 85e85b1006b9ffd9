"""Filter an image with a moving box, measure its background noise, and find cosmic rays by their distance to a median.

Numbers are those of `scipy.ndimage`, which ccdproc calls, edges included; so masked pixels take part in medians. Only NaN does
not: where it would stand in a sort depends on the order of pixels, and so on the chunks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ParameterError
from lazyccd.frame.core import DATA, Image, as_step, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.units import conversion_factor, unit_to_text
from lazyccd.kernels import bad_pixels, filters, iraf_filters
from lazyccd.kernels.block import PLANES
from lazyccd.ops.arguments import Pixels, normalize_integer, normalize_number, normalize_pixels
from lazyccd.ops.decorator import called_with_ccddata, operation
from lazyccd.plan.footprints import MASK_WITH_DATA, POINTWISE, Halo, Lattice, PlaneMap
from lazyccd.plan.lower import Graph
from lazyccd.plan.steps import Apply, Input, Kernel, Scalar, make_dtypes, make_params
from lazyccd.stats import clipped_scalar

BY_VARIANCE: PlaneMap = tuple((plane, PLANES) for plane in PLANES)
"""Where the frame's variance says what is noise."""


def normalize_box(size: int | tuple[int, int], name: str = "size") -> tuple[int, int]:
    """Return rows and columns of a box given as one or two numbers."""
    sides = tuple(cast("tuple[int, int]", size)) if np.ndim(size) else (cast("int", size),) * 2
    if len(sides) != 2:
        raise ParameterError(f"{name} {size!r} must be a whole number of pixels above 0, or two of them (y, x).")
    return normalize_integer(sides[0], name, 1), normalize_integer(sides[1], name, 1)


def box_halo(*sizes: tuple[int, int]) -> Halo:
    """Return what boxes, applied one after the other, read beyond a pixel."""
    return Halo((sum(size[0] // 2 for size in sizes), sum(size[1] // 2 for size in sizes)))


@operation(arrays=("data",))
def median_filter(data: xr.Dataset, size: int | tuple[int, int], *, add_keyword: LogEntry = True) -> xr.Dataset:
    """Replace each pixel by the median of the box about it.

    Parameters
    ----------
    data
        A frame, or a CCDData (then a computed CCDData is returned), or an array (then an array is).
    size
        Rows and columns of the box, or one number for both. A box of even size reaches one pixel further towards the
        beginning, and its median is the upper one of the two in the middle.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo half of the size. Values are those of `scipy.ndimage.median_filter`: the edge is
        reflected, and masked pixels take part; NaN does not. The mask stays as it is, and so does the uncertainty, which is
        then that of one pixel and larger than that of the median.

    Raises
    ------
    ParameterError
        Raised if the size is not a whole number above 0, or two of them.

    Notes
    -----
    Small boxes go through an exchange network, those of more than 330 pixels through a sliding histogram.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> pixels = np.ones((5, 5))
    >>> pixels[2, 2] = 1000.0
    >>> float(median_filter(CCDData(pixels, unit="adu"), 3).data.max())
    1.0
    """
    image, box = resolve(data), normalize_box(size)
    plan = image.apply(
        filters.median_filter,
        (Input(image.plan, box_halo(box), POINTWISE),),
        dict(image.plan.planes),
        size=box,
        shape=image.shape,
    )
    return replace(image, plan=plan).to_dataset()


@operation(arrays=("data", "mask"))
def cosmicray_median(
    ccd: xr.Dataset,
    error_image: Pixels | u.Quantity | None = None,
    thresh: float = 5,
    mbox: int | None = None,
    gbox: int = 0,
    rbox: int = 0,
    *,
    flavor: Literal["ccdproc", "iraf"] = "ccdproc",
    lsigma: float = 10,
    hsigma: float = 3,
    sbox: int = 25,
    noise: tuple[float, float, float] = (0.0, 0.0, 0.0),
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Find cosmic rays as pixels far above the median of a box, flag them, and replace them if asked to.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned), or an array (then the computed data and a boolean mask
        are).
    error_image
        Standard deviation: an array of the image's shape, or a number, in the units of the data. None takes the frame's
        uncertainty; for an array, its standard deviation as a whole.
    thresh
        How many standard deviations above the median a cosmic ray is.
    mbox
        Side of the box of the median; 11 if None, 5 with IRAF's flavor.
    gbox
        Side of the box that is flagged about a cosmic ray; 0 for the pixel alone.
    rbox
        Side of the box whose median replaces a cosmic ray; 0 leaves the data as they are.
    flavor
        ``"iraf"`` does what IRAF's crmedian does: medians whose box is pushed inside at the edge, which also replace, scatter in
        blocks, and limits below and above. It takes ``mbox`` and what follows, and none of the arguments before.
    lsigma, hsigma
        How many standard deviations below and above the median a bad pixel is; for IRAF's flavor.
    sbox
        Side of the blocks in which the scatter is measured; for IRAF's flavor.
    noise
        ``var0``, ``var1``, ``var2`` of the variance ``var0 + var1 m + var2 m**2`` of a median m, instead of the scatter; for
        IRAF's flavor.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo half of the boxes. Always with a mask: cosmic rays have the plane ``CR``, replaced ones
        ``INTERP`` too, and the largest variance in their box. Medians are those of `scipy.ndimage.median_filter`, of the
        data as given; masked pixels take part, NaN does not and is no cosmic ray.

    Raises
    ------
    ParameterError
        Raised if there is no uncertainty and no ``error_image``, a size is not a whole number, or arguments of one flavor are
        given with the other.
    ShapeError
        Raised if the error image does not have the image's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> pixels = np.full((9, 9), 100.0)
    >>> pixels[4, 4] = 900.0
    >>> clean = cosmicray_median(CCDData(pixels, unit="electron"), error_image=10.0, mbox=5, rbox=5)
    >>> int(clean.mask.sum()), float(clean.data[4, 4])
    (1, 100.0)
    """
    image = resolve(ccd)
    # arguments of the other flavor are refused: a threshold that is not looked at would pass for one that found nothing
    if flavor == "iraf":
        if (error_image, thresh, gbox, rbox) != (None, 5, 0, 0):
            raise ParameterError(
                "flavor 'iraf' takes mbox, lsigma, hsigma, sbox and noise; leave out the other arguments."
            )
        return _crmedian(
            image, normalize_box(mbox or 5, "mbox"), normalize_box(sbox, "sbox"), (lsigma, hsigma), noise
        ).to_dataset()
    if flavor != "ccdproc":
        raise ParameterError(f"flavor {flavor!r} must be 'ccdproc' or 'iraf'.")
    if (lsigma, hsigma, sbox, noise) != (10, 3, 25, (0.0, 0.0, 0.0)):
        raise ParameterError("lsigma, hsigma, sbox and noise are of flavor 'iraf'; add flavor='iraf' or take thresh.")
    boxes = [
        normalize_box(11 if mbox is None else mbox, "mbox")[0],
        *(normalize_box(b, n)[0] if b else 0 for b, n in ((gbox, "gbox"), (rbox, "rbox"))),
    ]
    # a cosmic ray is grown by gbox, and each pixel that it may grow from needs its own median box: the two reaches add up
    around = boxes[0] // 2 + boxes[1] // 2
    near, far = Halo((boxes[1] // 2,) * 2), Halo((max(around, boxes[2] // 2),) * 2)
    sources, numbers, graphs = _noise(image, error_image, near)
    sources = (
        Input(image.plan, far, BY_VARIANCE if error_image is None and image.has_variance else MASK_WITH_DATA),
        *sources,
    )
    plan = image.apply(
        filters.cosmicray_median,
        sources,
        dict(image.plan.planes) | {"mask": image.schema.dtype},
        scalars=numbers,
        thresh=normalize_number(thresh, "thresh"),
        boxes=tuple(boxes),
        shape=image.shape,
        flags=(image.schema.bits("CR"), image.schema.bits("INTERP")),
        mask_dtype=image.schema.dtype.name,
    )
    return replace(image, plan=plan, graphs=(*image.graphs, *graphs)).to_dataset()


def _crmedian(
    image: Image, box: tuple[int, int], sigma: tuple[int, int], limits: tuple[float, float], noise: tuple[float, ...]
) -> Image:
    """Return the image after IRAF's crmedian."""
    # IRAF pushes the box inside at the edge, so pixels there read to its full length beside them and not to half of it
    plan = image.apply(
        iraf_filters.crmedian,
        (Input(image.plan, Lattice(sigma, (box[0] - 1, box[1] - 1), whole=True), MASK_WITH_DATA),),
        dict(image.plan.planes) | {"mask": image.schema.dtype},
        median_size=box,
        sigma_size=sigma,
        limits=(normalize_number(limits[0], "lsigma"), normalize_number(limits[1], "hsigma")),
        noise=tuple(normalize_number(number, "noise", 0.0) for number in noise),
        shape=image.shape,
        flags=(image.schema.bits("CR"), image.schema.bits("INTERP")),
        mask_dtype=image.schema.dtype.name,
    )
    return replace(image, plan=plan)


def _noise(
    image: Image, error: Pixels | u.Quantity | None, footprint: Halo
) -> tuple[tuple[Input, ...], tuple[tuple[str, Scalar], ...], tuple[Graph, ...]]:
    """Return what says how large the noise of an image is: a further input, or a global number; and its graphs."""
    if error is None and image.has_variance:
        return (Input(image.plan, footprint, tuple((plane, ("variance",)) for plane in PLANES)),), (), ()
    if error is None:
        if not called_with_ccddata():
            raise ParameterError(
                "cosmicray_median() needs an uncertainty or error_image=: an array, or a number; see create_deviation."
            )
        # ccdproc takes the deviation of all pixels, unclipped
        return (), (("sigma", clipped_scalar(image, np.inf, 0)),), ()
    if isinstance(error, u.Quantity):
        error = error.value * conversion_factor(error.unit, image.units, "error image")
    if np.ndim(error) == 0:
        sigma = normalize_number(cast("float", error), "error_image", 0.0)
        if sigma == 0:
            raise ParameterError(f"error_image {error!s} must be above 0.")
        return (), (("sigma", Scalar(given=np.array([sigma]), what="error")),), ()
    step, graphs = as_step(normalize_pixels(error, image, "error image"), image.dtype, "error image")
    return (Input(step, footprint, tuple((plane, (DATA,)) for plane in PLANES)),), (), graphs


@operation(arrays=("data",))
def background_deviation_box(data: xr.Dataset, bbox: int, *, add_keyword: LogEntry = True) -> xr.DataArray:
    """Measure the noise of the background in boxes side by side.

    Parameters
    ----------
    data
        A frame; or a CCDData or an array (then a computed array is returned).
    bbox
        Side of a box. Boxes are counted from pixel (0, 0); those at the end are cut by the edge.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.DataArray
        Lazy, one task per chunk, which reads whole boxes; dtype and unit of the data. Each pixel has 1.4826 times the median
        absolute deviation of its box; NaN is left out, masked pixels take part.

    Raises
    ------
    ParameterError
        Raised if ``bbox`` is not a whole number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> background_deviation_box(np.array([[1.0, 2.0, 3.0, 7.0, 7.0, 7.0]] * 3), 3).round(4)[0]
    array([1.4826, 1.4826, 1.4826, 0.    , 0.    , 0.    ])
    """
    # boxes side by side cover everything; those of ccdproc leave out the last row and column, and overlap if their side is even
    image, box = resolve(data), normalize_box(bbox, "bbox")
    return _only_data(image, bad_pixels.deviation_boxes, Lattice(box), box)


@operation(arrays=("data",))
def background_deviation_filter(data: xr.Dataset, bbox: int, *, add_keyword: LogEntry = True) -> xr.DataArray:
    """Measure the noise of the background in the box about each pixel.

    Parameters
    ----------
    data
        A frame; or a CCDData or an array (then a computed array is returned).
    bbox
        Side of the box.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.DataArray
        Lazy, one task per chunk, halo half of the box; dtype and unit of the data. Each pixel has 1.4826 times the median
        absolute deviation of its box, which the edge reflects; NaN is left out, masked pixels take part.

    Raises
    ------
    ParameterError
        Raised if ``bbox`` is not a whole number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> background_deviation_filter(np.array([[1.0, 2.0, 4.0]] * 3), 3).round(4)[1]
    array([0.    , 1.4826, 0.    ])
    """
    image, box = resolve(data), normalize_box(bbox, "bbox")
    return _only_data(image, filters.deviation_filter, box_halo(box), box)


def _only_data(image: Image, kernel: Kernel, footprint: Halo | Lattice, box: tuple[int, int]) -> xr.DataArray:
    """Return what a kernel makes of the data of an image alone."""
    plan = Apply(
        image.shape,
        make_dtypes(data=image.dtype),
        kernel=kernel,
        sources=(Input(image.plan, footprint),),
        params=make_params(size=box, shape=image.shape),
    )
    array = replace(image, plan=plan).to_dataset()[DATA]
    return array.assign_attrs(units=unit_to_text(image.units))
