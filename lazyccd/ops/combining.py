"""Combination of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy.nddata import CCDData

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.flags import MaskSchema
from lazyccd.frame.ccddata import to_ccddata
from lazyccd.frame.core import CHUNK_PIXELS, Image, regular_grid, resolve
from lazyccd.frame.stacked import StackHeader, stack_header
from lazyccd.frame.units import conversion_factor
from lazyccd.io import as_frame, open_many, to_fits, to_zarr
from lazyccd.io.fits.names import InputName, expand_names
from lazyccd.kernels.combine import (
    METHODS,
    UNCERTAINTIES,
    Rule,
    combine_frames,
    constant_plane,
    only_partial,
    plane_factor,
)
from lazyccd.ops.common import file_name
from lazyccd.ops.pairs import affine_image
from lazyccd.plan.steps import Apply, PlaneMap, Reduction, Stack, Step, Value, make_dtypes, make_params
from lazyccd.sections import Region

Scale: TypeAlias = Sequence[float] | Callable[[Any], float]
Rejections: TypeAlias = tuple[tuple[str, Any], ...]

BUDGET_BYTES = 128 * 2**20
"""Bytes that the bands of all frames may take in a task."""

CLASSES = (("INTERP",), ("SAT",), ("CR", "LOW_FLAT"), (), ("NO_DATA",))
"""Planes from the least to the worst, for pixels of which all inputs are bad; the empty class holds all others."""

CENTRES = {"mean": "mean", "nanmean": "mean", "median": "median", "nanmedian": "median"}
DEVIATIONS = {"std": "std", "nanstd": "std", "mad_std": "mad_std"}
"""What names, and names of functions of NumPy and astropy, mean."""


def combine(
    img_list: Any,
    output_file: str | os.PathLike[str] | None = None,
    method: Literal["average", "median", "sum"] = "average",
    weights: Sequence[float] | None = None,
    scale: Scale | None = None,
    *,
    mem_limit: float | None = None,
    minmax_clip: bool = False,
    minmax_clip_min: float | None = None,
    minmax_clip_max: float | None = None,
    sigma_clip: bool = False,
    sigma_clip_low_thresh: float | None = 3,
    sigma_clip_high_thresh: float | None = 3,
    sigma_clip_func: str | Callable[..., Any] = "mean",
    sigma_clip_dev_func: str | Callable[..., Any] = "std",
    uncertainty: Literal["propagated", "scatter", "ccdproc"] | None = None,
    overwrite_output: bool = False,
) -> Any:
    r"""Combine frames of one shape pixel by pixel.

    Parameters
    ----------
    img_list
        Frames, CCDData, paths, globs and ``@lists``, in any mixture; or one string with commas between paths.
    output_file
        FITS file, or Zarr store if it ends in ``.zarr``, that the result is written to.
    method
        ``average``, ``median`` or ``sum``. A sum is that of the inputs that are left, however many.
    weights
        One per frame, for averages and sums.
    scale
        Factors by which the frames are multiplied after rejection: one per frame, or a function that gives the factor for
        a frame's whole plane (a masked array if some of its pixels are bad), which runs once per frame in a task of its own.
    mem_limit
        Bytes that the bands of all frames may take in a task; 128 MiB, or less if this is less.
    minmax_clip, minmax_clip_min, minmax_clip_max
        Whether inputs below or above these values are rejected; None is no limit.
    sigma_clip, sigma_clip_low_thresh, sigma_clip_high_thresh
        Whether inputs so many deviations below or above the centre are rejected, once; None is no limit.
    sigma_clip_func
        The centre: ``"mean"``, ``"median"``, or NumPy's function of that name.
    sigma_clip_dev_func
        The deviation: ``"std"``, ``"mad_std"``, or NumPy's or astropy's function of that name.
    uncertainty
        ``"propagated"`` from those of the inputs (the default if all have one), ``"scatter"`` from the sample variance of
        the inputs that are left, or ``"ccdproc"`` (the default otherwise).
    overwrite_output
        Replace a file of that name.

    Returns
    -------
    xr.Dataset or CCDData
        Lazy, one task per band of whole rows, in which the frames are read in bands under a byte budget; a computed CCDData
        if all inputs are. Readers of a lazy result depend on its chunks. With ``output_file``, the frame in that file.

    Raises
    ------
    ArgumentTypeError
        Raised if an input is not a frame.
    MissingFileError, FormatError
        Raised if a file is not there or cannot be read.
    ParameterError
        Raised if there is no frame, or an argument has a value that is not one of those above.
    ShapeError
        Raised if shapes differ.
    UnitError
        Raised if units cannot be converted to those of the first frame.

    Notes
    -----
    Bad inputs take no part in anything. Where all are bad, those of the least bad class are used (INTERP, SAT, then CR and
    LOW_FLAT, then all others) and nothing is rejected; where none is left, the result is NO_DATA and NaN (a sum 0). The mask has
    the planes of the inputs that were used, CLIPPED where some were rejected, and SAT where more than a tenth of the weight
    was left out because of it.

    With weights :math:`w` and variances :math:`v` of the scaled inputs, the variance of an average is :math:`\sum w^2 v /
    (\sum w)^2`, of a sum :math:`\sum w^2 v`, of a median :math:`c_n \sum v / n^2`, where :math:`c_n` is 1, 1, 1.35, 1.19,
    ..., towards :math:`\pi / 2`. ``"scatter"`` takes the sample variance (n - 1) for every :math:`v`; ``"ccdproc"``
    the squares of :math:`s / \sqrt n` (average), :math:`s \sqrt n` (sum) and :math:`1.4826\,\mathrm{MAD} / \sqrt n` (median)
    with the standard deviation :math:`s` of n, which are too small for few frames.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> frames = [CCDData(np.full((1, 1), value), unit="adu") for value in (1.0, 2.0, 3.0, 4.0, 99.0)]
    >>> combine(frames, sigma_clip=True, sigma_clip_func="median", sigma_clip_dev_func="mad_std").data
    array([[2.5]])
    """
    given = _collect(img_list)
    images, schema = _matched(given)
    rejections: Rejections = ()
    if minmax_clip:
        rejections += (("limits", (_limit(minmax_clip_min), _limit(minmax_clip_max))),)
    if sigma_clip:
        low = _threshold(sigma_clip_low_thresh, "sigma_clip_low_thresh")
        high = _threshold(sigma_clip_high_thresh, "sigma_clip_high_thresh")
        centre = _function(sigma_clip_func, CENTRES, "sigma_clip_func")
        deviation = _function(sigma_clip_dev_func, DEVIATIONS, "sigma_clip_dev_func")
        rejections += (("sigma", (centre, deviation, low, high)),)
    rule = replace(
        _rule(images, schema, method, uncertainty, given.labels),
        weights=_weights(weights, len(images)),
        scale=_factors(scale, len(images)),
        rejections=rejections,
    )
    frames = tuple(image.plan for image in images)
    if callable(scale):
        frames += tuple(_factor_step(image, scale) for image in images)
    header = stack_header([image.header for image in images], given.names, rule.weights, summed=method == "sum")
    result = _result(images, schema, frames, rule, _budget(mem_limit), header)
    return _hand_over(result, given, header, output_file, overwrite=overwrite_output)


@dataclass(frozen=True)
class Given:
    """What a caller wants combined."""

    images: list[Image]
    labels: list[str]
    """How messages name the frames."""

    names: list[str]
    """Names of files, empty where a frame has none."""

    like: CCDData | None
    """The first CCDData if all inputs are CCDData."""


def _collect(img_list: Any) -> Given:
    """Open everything that is to be combined."""
    if isinstance(img_list, str):
        # ccdproc takes "a.fits,b.fits"; a comma between brackets belongs to an extension
        items: list[Any] = [name.strip() for name in re.split(r",(?![^\[\]]*\])", img_list) if name.strip()]
    elif isinstance(img_list, os.PathLike | xr.Dataset | CCDData):
        items = [img_list]
    elif isinstance(img_list, Iterable):
        items = list(img_list)
    else:
        raise ArgumentTypeError(
            f"combine() got a {type(img_list).__name__} and needs frames, CCDData or paths; give them in a list."
        )
    if items and all(isinstance(item, str | os.PathLike) for item in items):
        frames = _open(items)
    else:
        frames = []
        for number, item in enumerate(items, 1):
            is_name = isinstance(item, str | os.PathLike)
            frames += _open([item]) if is_name else [as_frame(item, f"frame {number} of combine()")]
    if not frames:
        raise ParameterError("combine() got no frames and needs at least one; check the list or the pattern.")
    images = [resolve(ds, f"frame {i}") for i, ds in enumerate(frames, 1)]
    names = [file_name(image.plan) for image in images]
    labels = [f"frame {i}{f' ({name})' if name else ''}" for i, name in enumerate(names, 1)]
    like = items[0] if all(isinstance(item, CCDData) for item in items) else None
    return Given(images, labels, names, like)


def _open(names: list[Any]) -> list[xr.Dataset]:
    """Open files by their names, and stores among them."""
    found = expand_names(names)
    stores = {i: as_frame(name.path) for i, name in enumerate(found) if name.path.rstrip("/").endswith(".zarr")}
    files = iter(open_many([_text(name) for i, name in enumerate(found) if i not in stores]))
    return [stores[i] if i in stores else next(files) for i in range(len(found))]


def _text(name: InputName) -> str:
    """Return the name of a file and its extension as one string."""
    if name.hdu is None:
        return str(name.path)
    selector = ",".join(map(str, name.hdu)) if isinstance(name.hdu, tuple) else str(name.hdu)
    return f"{name.path}[{selector}]"


def _matched(given: Given) -> tuple[list[Image], MaskSchema]:
    """Return images in the units of the first, and the mask planes of all; refuse other shapes."""
    first = given.images[0]
    matched = []
    schema = first.schema
    for image, label in zip(given.images, given.labels, strict=True):
        if image.shape != first.shape:
            raise ShapeError(
                f"{label} shape {image.shape} does not match the shape {first.shape} of {given.labels[0]}; "
                "trim all to the same section first."
            )
        factor = conversion_factor(image.units, first.units, label)
        matched.append(image if factor == 1 else replace(affine_image(image, factor), units=first.units))
        schema = schema.merge(image.schema) if image.has_mask else schema
    return matched, schema


def _rule(images: list[Image], schema: MaskSchema, method: str, uncertainty: str | None, labels: list[str]) -> Rule:
    """Return how the frames are combined, without weights, scale and rejections."""
    if method not in METHODS:
        raise ParameterError(f"method {method!r} must be one of {', '.join(METHODS)}.")
    missing = [label for image, label in zip(images, labels, strict=True) if not image.has_variance]
    if uncertainty is None:
        uncertainty = "ccdproc" if missing else "propagated"
    if uncertainty not in UNCERTAINTIES:
        raise ParameterError(f"uncertainty {uncertainty!r} must be None or one of {', '.join(UNCERTAINTIES)}.")
    if uncertainty == "propagated" and missing:
        raise ParameterError(
            f"{missing[0]} has no uncertainty to propagate; make one with create_deviation, or use uncertainty='scatter'."
        )
    named = schema.bits(*(name for group in CLASSES for name in group))
    ranks = [schema.bits(*group) if group else schema.bad_bits & ~named for group in CLASSES]
    return Rule(
        method,
        weights=(),
        scale=None,
        rejections=(),
        uncertainty=uncertainty,
        dtype=np.result_type(*(image.dtype for image in images)).name,
        mask_dtype=schema.dtype.name,
        remaps=tuple(image.schema.remap(schema) if image.has_mask else () for image in images),
        bad=schema.bad_bits,
        ranks=tuple(bits & (schema.bad_bits | schema.bits("NO_DATA")) for bits in ranks),
        saturated=schema.bits("SAT") & schema.bad_bits,
        clipped=schema.bits("CLIPPED"),
        no_data=schema.bits("NO_DATA"),
    )


def _per_frame(numbers: Any, count: int, what: str) -> tuple[float, ...]:
    """Return one finite number per frame."""
    try:
        array = np.asarray(numbers, dtype=float)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{what} {numbers!r} must be a sequence of {count} numbers, one per frame.") from None
    if array.shape != (count,):
        raise ParameterError(f"{what} has shape {array.shape} and must have ({count},): one number per frame.")
    if not np.isfinite(array).all():
        raise ParameterError(f"{what} {array.tolist()} must be finite; leave out frames that have none.")
    return tuple(array.tolist())


def _weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Return the weights, 1 if there are none."""
    given = (1.0,) * count if weights is None else _per_frame(weights, count, "weights")
    if min(given) < 0 or max(given) == 0:
        raise ParameterError(f"weights {list(given)} must not be negative, and one must be greater than 0.")
    return given


def _factors(scale: Scale | None, count: int) -> tuple[float, ...] | None:
    """Return the factors of the frames; None if a function is to find them."""
    if callable(scale):
        return None
    return (1.0,) * count if scale is None else _per_frame(scale, count, "scale")


def _limit(value: float | None) -> float | None:
    return None if value is None else float(value)


def _budget(mem_limit: float | None) -> int:
    """Return how many bytes the bands may take."""
    if mem_limit is not None and not mem_limit > 0:
        raise ParameterError(f"mem_limit {mem_limit} must be greater than 0 bytes.")
    return BUDGET_BYTES if mem_limit is None else max(1, int(min(mem_limit, BUDGET_BYTES)))


def _threshold(value: float | None, what: str) -> float | None:
    """Return a threshold of clipping; as ccdproc documents it, negative ones count as positive."""
    if value is None:
        return None
    if not abs(value) > 0:
        raise ParameterError(f"{what} {value} must be greater than 0, or None for no limit.")
    return abs(float(value))


def _function(given: str | Callable[..., Any], known: dict[str, str], what: str) -> str:
    """Return the name of a statistic that the kernels know."""
    name = given if isinstance(given, str) else str(getattr(given, "__name__", given))
    package = "" if isinstance(given, str) else str(getattr(given, "__module__", "") or type(given).__module__)
    if name in known and package.partition(".")[0] in {"", "numpy", "astropy", "bottleneck"}:
        return known[name]
    names = ", ".join(map(repr, dict.fromkeys(known.values())))
    raise ParameterError(f"{what} {given!r} must be {names}, or the function of NumPy or astropy of that name.")


def _factor_step(image: Image, func: Callable[[Any], float]) -> Step:
    """Return a step that is one number everywhere: a user's function of the image's whole plane."""
    reduction = Reduction(
        image.plan,
        partial=plane_factor,
        final=only_partial,
        params=make_params(func=func, bad_bits=image.schema.bad_bits),
        planes=frozenset({"data", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        tile=None,
    )
    number = Value(reduction=reduction, what="scale of a frame")
    return Apply(
        image.shape, make_dtypes(data=np.float64), kernel=constant_plane, sources=(), numbers=(("number", number),)
    )


def _result(
    images: list[Image],
    schema: MaskSchema,
    frames: tuple[Step, ...],
    rule: Rule,
    budget: int,
    header: StackHeader,
) -> xr.Dataset:
    """Return the lazy result."""
    first = images[0]
    variance = ("data", "mask", "variance") if rule.uncertainty == "propagated" else ("data", "mask")
    uses: PlaneMap = (("data", ("data", "mask")), ("variance", variance), ("mask", ("data", "mask")))
    plan = Stack(
        first.shape,
        make_dtypes(data=rule.dtype, variance=rule.dtype, mask=rule.mask_dtype),
        kernel=combine_frames,
        frames=frames,
        uses=uses,
        params=make_params(rule=rule),
        budget_bytes=budget,
    )
    rows = max(1, CHUNK_PIXELS // first.shape[1])
    return replace(
        first,
        plan=plan,
        schema=schema,
        uncertainty_type=first.uncertainty_type if first.has_variance else "std",
        header=header.apply(first.header),
        grid=regular_grid(first.shape, (rows, first.shape[1])),
        graphs=tuple(graph for image in images for graph in image.graphs),
    ).to_dataset(boundary=True)


def _hand_over(
    result: xr.Dataset, given: Given, header: StackHeader, output: str | os.PathLike[str] | None, *, overwrite: bool
) -> Any:
    """Write the result if it is to be written, and return it as what the inputs were."""
    if output is not None:
        write = to_zarr if os.fspath(output).rstrip("/").endswith(".zarr") else to_fits
        write(result, output, overwrite=overwrite)
        result = as_frame(output)
    if given.like is None:
        return result
    ccd = to_ccddata(result, like=given.like)
    header.apply_to_meta(ccd.meta)
    if ccd.mask is None:
        ccd.mask = np.zeros(ccd.data.shape, bool)
    return ccd
