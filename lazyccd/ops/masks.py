"""Set mask planes from data, ask where planes are set, and read bit fields of other packages.

Selections such as ``"SAT+CR"`` are read by `lazyccd.mask_planes`, which also says which planes count as bad. Masks that a user
brings are put into frames by `lazyccd.ops.attributes`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import xarray as xr
from astropy import units as u

from lazyccd.errors import ArgumentTypeError, KeywordError, ParameterError
from lazyccd.frame.core import DATA, MASK, Image, resolve
from lazyccd.frame.header import header_from_text
from lazyccd.frame.header_values import find_number
from lazyccd.frame.history_log import LogEntry
from lazyccd.frame.keyword import Keyword
from lazyccd.frame.processing_history import stamped
from lazyccd.frame.tree import over_trees
from lazyccd.frame.units import conversion_factor
from lazyccd.kernels import instrument, pointwise
from lazyccd.mask_planes import FlagTable
from lazyccd.ops.arguments import SUBTRACTED, normalize_number
from lazyccd.ops.bad_pixels import grown
from lazyccd.ops.decorator import operation
from lazyccd.plan.footprints import Halo, PlaneMap
from lazyccd.plan.steps import Input

FLAG_FROM_DATA: PlaneMap = (("data", ("data",)), ("variance", ("variance",)), ("mask", ("data", "mask")))
"""The mask needs the data."""

SATURATION_KEYS = ("SATURATE", "MAXLIN")
"""Header keywords of the saturation level, in the order in which they are looked up."""


@operation()
def flag_saturated(
    ccd: xr.Dataset,
    level: float | u.Quantity | Keyword | str | None = None,
    grow: float = 0,
    bleed: float | u.Quantity | Keyword | str | None = None,
    trail: int = 20,
    *,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    """Set the plane ``SAT`` where the data are at or above a level, and ``BLEED`` where charge ran along columns.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    level
        A number in the frame's units, a quantity, or the header keyword of one; None takes ``SATURATE`` or ``MAXLIN`` of
        the header. A level of the header is only right on raw data.
    grow
        Pixels whose centre is at most so far from one that has ``SAT``, or ``BLEED`` if trails are looked for, get it too.
    bleed
        Level of trails, as ``level``; None looks for none.
    trail
        Pixels at or above ``bleed`` in a row along a column that make a trail.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk; data and uncertainty as before. NaN is not saturated. Halo ``grow``, and along columns
        ``trail - 1`` with ``bleed``, else 0.

    Raises
    ------
    KeywordError
        Raised if the level is in neither the call nor the header.
    ParameterError
        Raised if the level would be taken from the header of an image from which something was subtracted, ``trail`` is
        below 1 or ``grow`` negative.

    References
    ----------
    Trails: IRAF, mscred.ccdproc, ``bleed``, ``btrail`` and ``bgrow``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> flag_saturated(CCDData(np.array([[1e3, 65535.0]]), unit="adu"), 65535).mask
    array([[False,  True]])
    """
    image = resolve(ccd)
    if level is None or isinstance(level, str):
        level = _header_level(image, SATURATION_KEYS if level is None else (level.removeprefix("!"),))
    plan = image.apply(
        pointwise.flag_above,
        (Input(image.plan, uses=FLAG_FROM_DATA),),
        dict(image.plan.planes) | {"mask": image.schema.dtype},
        level=_number(level, image, "saturation level"),
        bit=image.schema.bits("SAT"),
        mask_dtype=image.schema.dtype.name,
    )
    image = replace(image, plan=plan)
    if bleed is not None:
        image = _flag_trails(image, _number(bleed, image, "level of trails"), trail)
    # trails first, so that they grow too
    radius = normalize_number(grow, "grow", 0.0)
    return (grown(image, "SAT" if bleed is None else "SAT+BLEED", radius) if radius else image).to_dataset()


def _number(level: float | u.Quantity, image: Image, what: str) -> float:
    """Return a level in the units of an image."""
    if isinstance(level, u.Quantity):
        return float(level.value) * conversion_factor(level.unit, image.units, what)
    return normalize_number(level, what)


def _flag_trails(image: Image, level: float, length: int) -> Image:
    """Return the image with the plane BLEED where columns are bright over some length."""
    if length < 1:
        raise ParameterError(f"trail {length} must be at least 1 pixel.")
    schema = image.schema.with_plane("BLEED", "Charge that bled along columns from saturated pixels")
    plan = image.apply(
        instrument.flag_trails,
        (Input(image.plan, Halo(instrument.trail_halo(int(length))), FLAG_FROM_DATA),),
        dict(image.plan.planes) | {"mask": schema.dtype},
        level=level,
        length=int(length),
        bit=schema.bits("BLEED"),
        mask_dtype=schema.dtype.name,
    )
    return replace(image, plan=plan, schema=schema)


def _header_level(image: Image, keys: tuple[str, ...]) -> float:
    """Return the saturation level of a raw image's header."""
    header = header_from_text(image.header)
    # a level of the header is that of the converter, and every step that moves the zero point or the unit makes it wrong
    done = stamped(header, *SUBTRACTED)
    if done:
        raise ParameterError(
            f"flag_saturated() cannot take the level from the header after {', '.join(done)}; give level= in the present units."
        )
    for key in keys:
        number = find_number(header.get(key))
        if number is not None:
            return number
    raise KeywordError(f"the header has none of {', '.join(keys)} as a number; give level= to flag_saturated().")


@over_trees
def is_flagged(ccd: xr.Dataset, *planes: str) -> xr.DataArray:
    """Find the pixels that have mask planes, such as ``"SAT"``, or that count as bad.

    Parameters
    ----------
    ccd
        A frame.
    planes
        Names, of which any counts, or selection strings such as ``"SAT+CR"`` and ``"~INTERP+CR"`` (the planes that count as
        bad, without INTERP and with CR); without any, the planes that count as bad.

    Returns
    -------
    xr.DataArray
        Lazy booleans of the frame's shape, one task per chunk, halo 0; False everywhere if there is no mask.

    Raises
    ------
    ParameterError
        Raised if a plane is unknown; the message lists those that the mask has.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata, add_mask
    >>> ds = add_mask(from_ccddata(CCDData(np.ones((1, 3)), unit="adu")), [[0, 1, 0]], plane="CR")
    >>> is_flagged(ds, "CR", "SAT").values, is_flagged(ds, "~CR").values
    (array([[False,  True, False]]), array([[False, False, False]]))
    """
    schema = resolve(ccd).schema
    bits = 0 if planes else schema.bad_bits
    for selection in planes:
        bits |= schema.select(selection)
    # asked of a frame without a mask, the answer is no: scripts need not know which frames have one
    if MASK not in ccd:
        return xr.zeros_like(ccd[DATA], dtype=bool).assign_attrs(units="")
    # a native mask is used as it is; one of another package needs the step that recodes it
    native = ccd[MASK].dtype.kind in "iu" and FlagTable.from_attrs(ccd[MASK].attrs).is_native
    mask = (ccd if native else resolve(ccd).to_dataset())[MASK]
    flagged: xr.DataArray = (mask & mask.dtype.type(bits)) != 0
    flagged.attrs = {}
    return flagged


def bitfield_to_boolean_mask(
    bitfield: npt.ArrayLike, ignore_bits: int | list[int] | str | None = 0, flip_bits: bool | None = None
) -> npt.NDArray[np.bool_]:
    """Turn a bit field into a boolean mask: True where any bit is set that is not ignored.

    Parameters
    ----------
    bitfield
        Integer array of any shape; computed if it is lazy.
    ignore_bits
        Bits that do not count: their sum, a list of powers of two, or a string such as ``"1,4"``, ``"1+4"`` or ``"~(2)"``;
        None ignores all.
    flip_bits
        Whether ``ignore_bits`` names the bits that do count.

    Returns
    -------
    npt.NDArray
        Of the bit field's shape, True is bad.

    Raises
    ------
    ArgumentTypeError
        Raised if the bit field is not an integer array, or ``flip_bits`` is given with a string or None.

    Examples
    --------
    >>> bitfield_to_boolean_mask(np.array([0, 1, 2, 3]), ignore_bits=2)
    array([False,  True, False,  True])
    """
    # imported here: `import lazyccd` leaves astropy.nddata for first use
    from astropy.nddata.bitmask import bitfield_to_boolean_mask as astropy_bitmask

    values = np.asarray(bitfield)
    if values.dtype.kind not in "iu":
        raise ArgumentTypeError(f"bitfield has dtype {values.dtype} and must be an integer array; convert it first.")
    try:
        return np.asarray(astropy_bitmask(values, ignore_bits, flip_bits=flip_bits), dtype=bool)
    except TypeError as error:
        raise ArgumentTypeError(f"ignore_bits {ignore_bits!r} with flip_bits {flip_bits!r}: {error}") from error
    except ValueError as error:
        raise ParameterError(f"ignore_bits {ignore_bits!r}: {error}") from error
