"""Replace a part of a frame: its mask, uncertainty, units or header, its chunks, its global numbers.

Pixels of the data never change here. ``with_...`` replaces, ``add_...`` adds to what is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, ParameterError, SectionError
from lazyccd.frame.convert import to_variance
from lazyccd.frame.core import (
    DIMS,
    MASK,
    Image,
    UncertaintyType,
    as_step,
    make_image,
    resolve,
    settle_image,
)
from lazyccd.frame.header import REMOVED, append_cards
from lazyccd.frame.nddata import is_uncertainty
from lazyccd.frame.tree import over_trees
from lazyccd.frame.units import parse_unit
from lazyccd.kernels import pointwise
from lazyccd.ops.arguments import Pixels, normalize_integer, normalize_pixels
from lazyccd.ops.decorator import operation
from lazyccd.plan.chunks import asked_grid, default_grid
from lazyccd.plan.steps import Apply, Input, Join, Step, make_dtypes, make_params


@operation()
def add_mask(ccd: xr.Dataset, array: Pixels, plane: str = "BAD", description: str = "") -> xr.Dataset:
    """Set a mask plane where an array is not 0; `with_mask` replaces the whole mask.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    array
        NumPy, dask or xarray array of the frame's shape and any dtype; not 0 (or NaN) is bad.
    plane
        Name of the plane; a new name makes a new plane, which counts as bad. Bits that are set already stay.
    description
        Says what a new plane means.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; data and uncertainty as before.

    Raises
    ------
    ShapeError
        Raised if the array does not have the shape of the frame.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> add_mask(CCDData(np.ones((1, 3)), unit="adu"), [[0, 1, 0]]).mask
    array([[False,  True, False]])
    """
    # bits that are set already stay, so that several sources of bad pixels add up
    image = resolve(ccd)
    if not isinstance(plane, str):
        raise ArgumentTypeError(f"plane {plane!r} is a {type(plane).__name__} and must be the name of a mask plane.")
    schema = image.schema.with_plane(plane, description)
    values = normalize_pixels(array, image, "mask")
    step, graphs = as_step(values, values.dtype, "mask")
    bits = Apply(
        step.shape,
        make_dtypes(mask=schema.dtype),
        kernel=pointwise.mask_plane_from,
        sources=(Input(step, uses=(("mask", ("data",)),)),),
        params=make_params(bit=schema.bits(plane), dtype=schema.dtype.name),
    )
    plan = image.apply(
        pointwise.add_bits,
        (Input(image.plan), Input(bits)),
        dict(image.plan.planes) | {"mask": schema.dtype},
        mask_dtype=schema.dtype.name,
    )
    return replace(image, plan=plan, schema=schema, graphs=(*image.graphs, *graphs)).to_dataset()


@operation()
def with_mask(ccd: xr.Dataset, mask: Pixels | None) -> xr.Dataset:
    """Replace the mask of a frame; `add_mask` sets pixels of one plane and keeps the others.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    mask
        NumPy, dask or xarray array of the frame's shape; None removes the mask. Booleans set the plane ``BAD``. Integers are
        bits: those of the frame's planes, or those that a DataArray's own attributes ``flag_masks`` and ``flag_meanings``
        name.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; data and uncertainty as before. The mask planes that the frame knows stay known.

    Raises
    ------
    ArgumentTypeError
        Raised if the mask is neither boolean nor integer.
    ShapeError
        Raised if its shape is not that of the frame.
    FrameError
        Raised, when pixels are computed, if integers have a bit that no plane names.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.ones((1, 3)), unit="adu", mask=[[True, False, False]])
    >>> with_mask(ccd, [[False, True, False]]).mask
    array([[False,  True, False]])
    >>> with_mask(ccd, None).mask is None
    True
    """
    if mask is None:
        return ccd.drop_vars(MASK, errors="ignore")
    values = normalize_pixels(mask, resolve(ccd), "mask")
    if values.dtype.kind not in "biu":
        raise ArgumentTypeError(
            f"the mask has dtype {values.dtype} and must be boolean or integer; compare it first, such as mask > 0."
        )
    # integers without names of their own are bits of the planes that the frame has: a user's plane keeps its name
    own = mask.attrs if isinstance(mask, xr.DataArray) else {}
    attrs = own if "flag_meanings" in own or MASK not in ccd else ccd[MASK].attrs
    return resolve(ccd.assign({MASK: (DIMS, values, attrs)})).to_dataset()


@operation()
def with_uncertainty(ccd: xr.Dataset, array: Pixels | None, uncertainty_type: UncertaintyType = "std") -> xr.Dataset:
    """Replace the uncertainty of a frame.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    array
        NumPy, dask or xarray array of the frame's shape. Its numbers are in the units of the data for ``std``, in their square
        for ``var``, and in one over their square for ``ivar``. None removes the uncertainty.
    uncertainty_type
        What the array holds: ``std``, ``var`` or ``ivar``.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0; data and mask as before. The uncertainty has the dtype of the data.

    Raises
    ------
    ParameterError
        Raised if the type is another word.
    ShapeError
        Raised if the array does not have the shape of the frame.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> with_uncertainty(CCDData(np.ones((1, 2)), unit="adu"), np.array([[3.0, 4.0]])).uncertainty
    StdDevUncertainty([[3., 4.]])
    """
    image = resolve(ccd)
    if is_uncertainty(array):
        raise ArgumentTypeError(
            f"with_uncertainty() got a {type(array).__name__} and needs its pixels and their type; pass uncertainty.array, and "
            "uncertainty_type='std', 'var' or 'ivar'."
        )
    if uncertainty_type not in ("std", "var", "ivar"):
        raise ParameterError(f"uncertainty_type {uncertainty_type!r} must be 'std', 'var' or 'ivar'.")
    if array is None:
        return ccd.drop_vars("uncertainty", errors="ignore")
    step, graphs = as_step(normalize_pixels(array, image, "uncertainty"), image.dtype, "uncertainty")
    # variances are what plans propagate, so that each step needs no root and square; the type comes back at the frame
    result = make_image(
        _only(image.plan, "data"),
        units=image.units,
        grid=image.grid,
        variance=to_variance(step, uncertainty_type),
        mask=_only(image.plan, "mask") if image.has_mask else None,
    )
    return replace(
        image, plan=result.plan, uncertainty_type=uncertainty_type, graphs=(*image.graphs, *graphs)
    ).to_dataset()


def _only(step: Step, plane: str) -> Step:
    """Return a step whose plane ``data`` is one plane of another."""
    return Join.of(data=(step, plane))


@operation()
def with_unit(ccd: xr.Dataset, unit: u.UnitBase | str) -> xr.Dataset:
    """Set the unit of a frame without changing its numbers; to convert them, use `multiply`.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    unit
        An astropy unit or its name.

    Returns
    -------
    xr.Dataset
        Lazy; the same pixels by the same plan. Units of the uncertainty follow.

    Raises
    ------
    UnitError
        Raised if astropy does not know the unit.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> with_unit(CCDData(np.ones((1, 2)), unit=""), "adu").unit
    Unit("adu")
    """
    parsed = parse_unit(unit, "unit")
    bare = ccd.copy()
    for name in bare.data_vars:
        # units that contradict each other are no obstacle: they are what is replaced
        bare[name].attrs.pop("units", None)
    return replace(resolve(bare), units=parsed).to_dataset()


@over_trees  # type: ignore[arg-type]  # mypy wants ccd to be positional only, lest keywords hold it too
def with_header(ccd: xr.Dataset, cards: dict[str, Any] | None = None, **keywords: Any) -> xr.Dataset:
    """Add, replace or remove header cards.

    Parameters
    ----------
    ccd
        A frame.
    cards, keywords
        Values by keyword; a tuple is a value and a comment, None removes the card. Keywords that are not Python names, such as
        ``DATE-OBS``, go into ``cards``.

    Returns
    -------
    xr.Dataset
        The same variables with another header; all other cards stay as they are, to the letter.

    Examples
    --------
    >>> from lazyccd.testing.steps import formula_frame
    >>> ds = with_header(
    ...     formula_frame((2, 3), header="GAIN    = 2.0"), {"DATE-OBS": "2026-01-15"}, gain=(1.5, "measured")
    ... )
    >>> print(ds.attrs["header"])  # doctest: +NORMALIZE_WHITESPACE
    GAIN    =                  1.5 / measured
    DATE-OBS= '2026-01-15'
    """
    # cards are lines of text: parsing all and writing them again would change those of cameras that astropy formats otherwise
    given = {**(cards or {}), **{name.upper(): value for name, value in keywords.items()}}
    entries = [(k, *v) if isinstance(v, tuple) else (k, REMOVED if v is None else v, "") for k, v in given.items()]
    return ccd.assign_attrs(header=append_cards(str(ccd.attrs.get("header", "")), entries))


@over_trees
def rechunk(ccd: xr.Dataset, chunks: int | tuple[int, int]) -> xr.Dataset:
    """Compute a frame in other chunks, for memory or speed; chunking never changes a pixel.

    Parameters
    ----------
    ccd
        A frame. Nothing is moved between chunks: the plan is cut differently.
    chunks
        Chunk shape (y, x) in pixels; one number for both axes, -1 for a whole axis.

    Returns
    -------
    xr.Dataset
        Lazy; the same plan with a task for each new chunk.

    Raises
    ------
    ParameterError
        Raised if ``chunks`` is something else.

    Examples
    --------
    >>> from lazyccd.testing.steps import formula_frame
    >>> rechunk(formula_frame((4, 6)), (2, -1))["data"].chunks
    ((2, 2), (6,))
    """
    # xarray's own `chunk` would hang tasks behind the old chunks; a plan needs none, since any region can be asked of it
    image = resolve(ccd, maps=True)
    return replace(image, grid=asked_grid(image.shape, chunks)).to_dataset()


@over_trees
def settle(ccd: xr.Dataset) -> xr.Dataset:
    """Compute the numbers that a frame takes from whole images, such as the norm of a flat, once for all later computations.

    Parameters
    ----------
    ccd
        A frame.

    Returns
    -------
    xr.Dataset
        The same lazy frame; its tasks no longer depend on tasks that look at the whole image. What the numbers tell of the
        frame, such as the scatter of its overscan, is in the header.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import flat_correct, from_ccddata
    >>> ds = from_ccddata(CCDData(np.full((1, 3), 60.0), unit="electron"))
    >>> settled = settle(flat_correct(ds, CCDData(np.array([[2.0, 4.0, 6.0]]), unit="adu")))
    >>> settled["data"].values  # the mean of the flat, 4, is a number of the plan now
    array([[120.,  60.,  40.]])
    """
    return settle_image(resolve(ccd, maps=True)).to_dataset()


def _bound(part: object, name: str, default: int, axis: str) -> int:
    """Return the start or stop of a range of pixels."""
    if not isinstance(part, slice):
        raise ArgumentTypeError(
            f"cutout {axis} = {part!r} must be a slice of rows or columns, such as {axis}=slice(100, 200); one pixel is "
            "pixel(y, x)."
        )
    bound = getattr(part, name)
    return default if bound is None else normalize_integer(bound, f"cutout {axis} {name}", least=-(2**62))


def cut(image: Image, y: slice, x: slice) -> Image:
    """Return the part of an image between 0-based, half-open bounds, as a window of its plan.

    Raises
    ------
    SectionError
        Raised if the part is empty or reaches outside of the image.
    ArgumentTypeError
        Raised if it is no slice.
    """
    bounds = []
    for part, length, axis in ((y, image.shape[0], "y"), (x, image.shape[1], "x")):
        start, stop = _bound(part, "start", 0, axis), _bound(part, "stop", length, axis)
        if part.step not in {None, 1}:
            raise SectionError(
                f"cutout {axis} has the step {part.step} and must have 1; take every n-th pixel by isel."
            )
        if not 0 <= start < stop <= length:
            raise SectionError(f"cutout {axis} = {start}:{stop} must lie inside of 0:{length} and hold a pixel.")
        bounds.append((start, stop))
    (y0, y1), (x0, x1) = bounds
    part_image = image.window((y0, x0), (1, 1), (y1 - y0, x1 - x0))
    return replace(part_image, grid=default_grid(part_image.shape))
