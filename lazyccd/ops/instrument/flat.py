"""Divide by a flat field, and find what the flat itself is divided by first.

The norm is a global number: one number for the whole flat, or for the flats of all frames of a tree, computed exactly before
the pixels that it divides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd.errors import ParameterError
from lazyccd.frame.core import Image, resolve
from lazyccd.frame.history_log import LogEntry
from lazyccd.kernels import flat, moments
from lazyccd.kernels.block import PLANES
from lazyccd.ops.arguments import bare_number, resolve_operand
from lazyccd.ops.binary import combine_pair
from lazyccd.ops.decorator import operation
from lazyccd.ops.instrument.calibrate import Master
from lazyccd.ops.mosaic.assemble import below_each_other
from lazyccd.plan.footprints import MASK_WITH_DATA, PlaneMap
from lazyccd.plan.lower import Graph
from lazyccd.plan.steps import Reduction, Scalar, make_params
from lazyccd.sections import Region
from lazyccd.stats import quantile_scalar

FLAT: PlaneMap = (("data", ("data", "mask")), ("variance", PLANES), ("mask", ("data", "mask")))
"""The mask of a flat says where nothing is divided."""

NormValue: TypeAlias = float | u.Quantity | Literal["mean", "median"] | None
"""What a flat is divided by: a number, or which one of the flat's own; None is the mean."""

ONE = u.dimensionless_unscaled
LOWEST_FLAT = 0.1
"""Normalised flat below which a pixel is flagged LOW_FLAT instead of divided."""


class Norm(NamedTuple):
    """What the flats of several frames are divided by, and the graphs of the arrays that it is made of."""

    value: Scalar
    graphs: tuple[Graph, ...]


def norm_of_all(calls: Sequence[Mapping[str, Any]], *, flat: str = "flat") -> dict[str, Norm]:
    """Return what the flats of all frames of a tree are divided by, unless it is given, or each has its own."""
    first = calls[0]
    words = {str(call.get("norm_value") or "mean") for call in calls}
    if not first.get("common_norm", True) or first.get(flat) is None or not words <= {"mean", "median"}:
        return {}
    limits = {None if call.get("min_value") is None else float(u.Quantity(call["min_value"]).value) for call in calls}
    if len(words) > 1 or len(limits) > 1:
        raise ParameterError(
            f"norm_value {sorted(words)} and min_value {limits} differ between the frames, which have one norm together; "
            "give one for all, or common_norm=False."
        )
    flats = list(
        {image.plan.token: image for image in (resolve_operand(call[flat], "flat") for call in calls)}.values()
    )
    # units do not matter, since the norm divides them away; frames side by side in one image would have to share one
    together = flats[0] if len(flats) == 1 else below_each_other([replace(image, units=ONE) for image in flats])
    return {"norm_value": Norm(_flat_norm(together, limits.pop(), words.pop()), together.graphs)}


@operation(shared=norm_of_all)
def flat_correct(
    ccd: xr.Dataset,
    flat: Master,
    min_value: float | None = None,
    norm_value: NormValue = None,
    *,
    common_norm: bool = True,
    add_keyword: LogEntry = True,
) -> xr.Dataset:
    r"""Divide by a normalised flat field.

    Parameters
    ----------
    ccd
        A frame, or a CCDData (then a computed CCDData is returned).
    flat
        The master flat: a frame, a CCDData or a path; its units do not matter.
    min_value
        Pixels of the flat (before it is normalised) below this count as this, and are flagged ``LOW_FLAT``.
    norm_value
        What the flat is divided by: a number, or its ``"mean"`` (if None too) or exact ``"median"`` over good, finite pixels,
        which are global numbers; one task per about four million pixels computes them.
    common_norm
        For trees: whether all frames have one mean or median together; one each leaves steps between amplifiers.
    add_keyword
        What the header says about the operation; see `subtract_bias`.

    Returns
    -------
    xr.Dataset
        Lazy, one task per chunk, halo 0, units as before; always with a mask. Where the normalised flat is not above 0, or
        below 0.1 if there is no ``min_value``, nothing is divided and ``LOW_FLAT`` is set; masked pixels of the flat count as
        1 and stay masked.

    Raises
    ------
    ParameterError
        Raised if ``norm_value`` is not above 0, or another word.
    ShapeError
        Raised if the shapes differ.

    Notes
    -----
    With the normalised flat :math:`f` and :math:`r = d / f`, :math:`\sigma_r^2 = (\sigma_d^2 + r^2 \sigma_f^2) / f^2`.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> ccd = CCDData(np.full((1, 3), 60.0), unit="electron")
    >>> flat_correct(ccd, CCDData(np.array([[2.0, 4.0, 6.0]]), unit="adu")).data
    array([[120.,  60.,  40.]])
    """
    image = resolve(ccd)
    master = resolve_operand(flat, "flat")
    # a bare number, compared with the flat's: ccdproc does not look at the unit either
    limit = None if min_value is None else bare_number(min_value, "min_value")
    return divided_by(image, master, "flat", limit, norm_value).to_dataset()


def divided_by(image: Image, master: Image, what: str, min_value: float | None, norm_value: NormValue | Norm) -> Image:
    """Return an image divided by another one that is first normalised; ``what`` names that in messages."""
    # a norm that holds for all frames of a tree is handed down ready; see `norm_of_all`
    norm = norm_value if isinstance(norm_value, Norm) else Norm(_flat_norm(master, min_value, norm_value), ())
    return combine_pair(
        replace(image, graphs=(*image.graphs, *norm.graphs)),
        master,
        flat.divide_flat,
        (MASK_WITH_DATA, FLAT),
        what=what,
        mask=True,
        min_value=min_value,
        lowest=LOWEST_FLAT,
        bad_bits=master.schema.bad_bits,
        low_flat=image.schema.bits("LOW_FLAT"),
        no_data=image.schema.bits("NO_DATA"),
        scalars=(("norm", norm.value),),
    )


def _flat_norm(flat: Image, min_value: float | None, norm_value: NormValue) -> Scalar:
    """Return what a flat is divided by."""
    word = norm_value if isinstance(norm_value, str) else "mean" if norm_value is None else ""
    if word == "mean":
        return flat_mean(flat, min_value)
    if word == "median":
        return quantile_scalar(flat, (0.5,))
    if word:
        raise ParameterError(
            f"norm_value {norm_value!r} must be a number, 'mean' or 'median', or a keyword of the header."
        )
    number = bare_number(norm_value, "norm_value")
    if not number > 0:
        raise ParameterError(f"norm_value {norm_value} must be greater than 0.")
    return Scalar(given=np.array(number), what="flat norm")


def flat_mean(flat: Image, min_value: float | None) -> Scalar:
    """Return the mean of a flat over good, finite pixels, as a lazy global number."""
    # over good, finite pixels: one NaN would make the whole image NaN, as it does in ccdproc
    reduction = Reduction(
        flat.plan,
        partial=moments.sum_and_count,
        final=moments.mean_of_sums,
        params=make_params(bad_bits=flat.schema.bad_bits, min_value=min_value),
        planes=frozenset({"data", "mask"} & flat.plan.dtypes.keys()),
        region=Region.full(flat.shape),
    )
    return Scalar(reduction=reduction, what="mean of the flat")
