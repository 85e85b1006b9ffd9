"""Scales, zero points and weights of the frames of a stack, found by tasks where they are statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from dask.base import compute

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.frame.core import Image, as_step
from lazyccd.frame.keyword import Keyword
from lazyccd.kernels.stack import statistics
from lazyccd.kernels.stack.combine import only_partial, plane_factor
from lazyccd.kernels.stack.scaling import Levels, Numbers
from lazyccd.kernels.stack.types import Noise
from lazyccd.ops.stack.inputs import Given
from lazyccd.plan.footprints import Halo
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, make_dtypes, make_params
from lazyccd.sections import Region, parse_section
from lazyccd.stats import clipped_scalar, quantile_scalar

Spec: TypeAlias = Sequence[float] | Callable[[Any], float] | str | Keyword | None

STATISTICS = ("mode", "median", "mean", "clipped")
"""Statistics of a whole frame by which it can be scaled."""

SMOOTHED = 5
"""Pixels along a side of the box whose median variance gives a pixel's weight."""


class Found(NamedTuple):
    """Numbers of the frames, and what tasks have to find for them."""

    numbers: Numbers
    is_statistic: bool
    values: tuple[tuple[str, Scalar], ...] = ()


def levels_of(
    given: Given, scale: Spec, zero: Spec, weights: Any, section: str | None, *, sampled: bool = False
) -> tuple[Levels, tuple[tuple[str, Scalar], ...], list[Image]]:
    """Return how frames are brought to one level, the global numbers for it, and images of the weights of pixels.

    With ``sampled``, statistics are IRAF's, of at most 100000 pixels.
    """
    scales = _numbers(given, scale, "scale", section, sampled=sampled)
    zeros = _numbers(given, zero, "zero", section, sampled=sampled)
    weighting, images, of_variances = _weights(given, weights)
    levels = Levels(
        scales.numbers,
        scales.is_statistic,
        zeros.numbers,
        zeros.is_statistic,
        weighting.numbers,
        of_variances,
        isinstance(weights, str) and weights == "exposure",
        tuple(given.labels),
    )
    return levels, scales.values + zeros.values + weighting.values, list(images)


def found_levels(levels: Levels, values: Sequence[tuple[str, Scalar]], given: Given) -> Levels:
    """Return the levels with the numbers that tasks find, which run now."""
    graphs = [graph for image in given.images for graph in image.graphs]
    numbers = dict(
        zip((name for name, _ in values), compute(*lower_scalars([v for _, v in values], graphs)), strict=True)
    )

    def known(given: Numbers) -> Numbers:
        return tuple(float(np.ravel(numbers[n])[0]) if isinstance(n, str) else n for n in given)

    return replace(levels, scale=known(levels.scale), zero=known(levels.zero), weights=known(levels.weights))


def _numbers(given: Given, spec: Spec, what: str, section: str | None, *, sampled: bool) -> Found:
    """Return what a caller's words or numbers mean."""
    count = len(given.images)
    if spec is None:
        return Found((), is_statistic=False)
    if callable(spec):
        values = tuple((f"{what}_{i}", _by_function(image, spec)) for i, image in enumerate(given.images))
        return Found(tuple(name for name, _ in values), False, values)
    if isinstance(spec, Keyword):
        spec = f"!{spec.name}"
    if not isinstance(spec, str):
        return Found(per_frame(spec, count, what), is_statistic=False)
    if spec.startswith("!"):
        return Found(tuple(given.header_number(i, spec[1:]) for i in range(count)), is_statistic=False)
    if spec == "exposure" and what == "scale":
        return Found(given.exposures(), is_statistic=True)
    if spec not in STATISTICS:
        words = ", ".join([*STATISTICS, *(["exposure"] if what == "scale" else [])])
        raise ParameterError(f"{what} {spec!r} must be numbers, a function, !KEYWORD or one of {words}.")
    values = tuple((f"{what}_{i}", statistic(image, spec, section, sampled)) for i, image in enumerate(given.images))
    return Found(tuple(name for name, _ in values), True, values)


def per_frame(numbers: Any, count: int, what: str) -> tuple[float, ...]:
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


def statistic(image: Image, what: str, section: str | None, sampled: bool) -> Scalar:
    """Return a statistic of an image's good pixels in a section as a global number."""
    part = image
    if section is not None:
        cut = parse_section(section, image.shape)
        if cut.step != (1, 1):
            raise ParameterError(f"statistics section {section!r} has a step or a flip and must have none.")
        part = image.window((cut.region.y0, cut.region.x0), (1, 1), cut.region.shape)
    if sampled or what == "mode":
        return _sampled(part, what)
    if what == "median":
        return quantile_scalar(part, (0.5,))
    value = clipped_scalar(part, 3.0, 0 if what == "mean" else 5)
    return _element(value, 3)


def _element(value: Scalar, index: int) -> Scalar:
    """Return one element of a global number."""
    reduction = value.reduction
    assert reduction is not None
    single = Reduction(
        reduction.step,
        partial=reduction.partial,
        final=statistics.mean_only,
        params=reduction.params,
        scalars=reduction.scalars,
        planes=reduction.planes,
        region=reduction.region,
        tile=reduction.tile,
    )
    assert index == statistics.MEAN
    return Scalar(reduction=single, what=value.what)


def _sampled(image: Image, what: str) -> Scalar:
    """Return a statistic of a grid of pixels, as IRAF's imcombine takes it."""
    step = next((n for n in range(1, 10) if _grid(image.shape, n) < statistics.MOST_PIXELS), 10)
    shape = tuple((length - 1) // step + 1 for length in image.shape)
    grid = image.window((0, 0), (step, step), (shape[0], shape[1]))
    reduction = Reduction(
        grid.plan,
        partial=statistics.sample_statistic,
        final=only_partial,
        params=make_params(what=what, bad_bits=image.schema.bad_bits),
        planes=frozenset({"data", "mask"} & grid.plan.dtypes.keys()),
        region=Region.full(grid.shape),
        tile=None,
    )
    return Scalar(reduction=reduction, what=f"{what} of a frame")


def _grid(shape: tuple[int, int], step: int) -> int:
    return ((shape[0] - 1) // step + 1) * ((shape[1] - 1) // step + 1)


def _by_function(image: Image, func: Callable[[Any], float]) -> Scalar:
    """Return a user's function of the image's whole plane as a global number."""
    reduction = Reduction(
        image.plan,
        partial=plane_factor,
        final=only_partial,
        params=make_params(func=func, bad_bits=image.schema.bad_bits),
        planes=frozenset({"data", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        tile=None,
    )
    return Scalar(reduction=reduction, what="scale of a frame")


def _weights(given: Given, weights: Any) -> tuple[Found, tuple[Image, ...], bool]:
    """Return weights of frames, or images that give those of pixels; and whether the numbers are variances."""
    count = len(given.images)
    if isinstance(weights, Keyword):
        weights = f"!{weights.name}"
    if isinstance(weights, str):
        if weights == "exposure":
            return Found(given.exposures(), is_statistic=False), (), False
        if weights.startswith("!"):
            return Found(tuple(given.header_number(i, weights[1:]) for i in range(count)), False), (), False
        if weights not in {"variance", "smoothed", "pixel"}:
            raise ParameterError(
                f"weights {weights!r} must be numbers, images, !KEYWORD, exposure, variance, smoothed or pixel."
            )
        missing = [label for label, image in zip(given.labels, given.images, strict=True) if not image.has_variance]
        if missing:
            raise ParameterError(
                f"{missing[0]} has no uncertainty for weights={weights!r}; make one with create_deviation."
            )
        if weights == "variance":
            values = tuple((f"weight_{i}", _median_variance(image)) for i, image in enumerate(given.images))
            return Found(tuple(name for name, _ in values), True, values), (), True
        return Found((), False), tuple(_inverse(image, smooth=weights == "smoothed") for image in given.images), False
    if weights is None:
        return Found((), is_statistic=False), (), False
    images = weights if isinstance(weights, list | tuple | np.ndarray) else np.asarray(weights)
    if len(images) and all(np.ndim(one) == 2 or isinstance(one, xr.Dataset) for one in images):
        return Found((), is_statistic=False), _weight_images(given, images), False
    numbers = per_frame(weights, count, "weights")
    if min(numbers) < 0 or max(numbers) == 0:
        raise ParameterError(f"weights {list(numbers)} must not be negative, and one must be greater than 0.")
    return Found(numbers, is_statistic=False), (), False


def _weight_images(given: Given, images: Any) -> tuple[Image, ...]:
    """Return a user's weights, one image per frame."""
    if len(images) != len(given.images):
        raise ParameterError(f"weights has {len(images)} images and must have {len(given.images)}: one per frame.")
    found = []
    for label, image, one in zip(given.labels, given.images, images, strict=True):
        array = one["data"].data if isinstance(one, xr.Dataset) else getattr(one, "data", one)
        array = array if hasattr(array, "__dask_graph__") else np.asarray(array)
        if tuple(array.shape) != image.shape:
            raise ShapeError(f"the weights of {label} have shape {array.shape} and must have {image.shape}.")
        step, graphs = as_step(array, np.float64)
        found.append(replace(image, plan=step, graphs=graphs))
    return tuple(found)


def _inverse(image: Image, *, smooth: bool) -> Image:
    """Return weights of pixels: one over the variance, or over its median in a box."""
    halo = SMOOTHED // 2 if smooth else 0
    every = (("data", ("variance",)),)
    step = Apply(
        image.shape,
        make_dtypes(data=np.float64),
        kernel=statistics.inverse_variance,
        sources=(Input(image.plan, Halo((halo, halo)), every),),
        params=make_params(size=2 * halo + 1, shape=image.shape),
    )
    return replace(image, plan=step)


def _median_variance(image: Image) -> Scalar:
    """Return the median variance of an image's good pixels."""
    planes = {"data": image.plan.dtypes["variance"], "mask": image.plan.dtypes.get("mask")}
    uses = (("data", ("variance",)), ("mask", ("mask",)))
    step = Apply(
        image.shape, make_dtypes(**planes), kernel=statistics.variance_as_data, sources=(Input(image.plan, uses=uses),)
    )
    return quantile_scalar(image, (0.5,), step=step)


def noise_of(given: Given, gain: Any, readnoise: Any, snoise: Any) -> Noise:
    """Return the noise of each frame at a level, in units of its data, as IRAF's ccdclip has it."""
    columns: dict[str, tuple[float, ...]] = {}
    for what, spec in (("gain", gain), ("readnoise", readnoise), ("snoise", snoise)):
        numbers = _noise_numbers(given, spec, what)
        if min(numbers) < 0 or (what == "gain" and min(numbers) == 0):
            raise ParameterError(f"{what} {list(numbers)} must be above 0.")
        columns[what] = numbers
    return Noise(**columns)


def _noise_numbers(given: Given, spec: Any, what: str) -> tuple[float, ...]:
    """Return one number per frame: given, or from headers."""
    count = len(given.images)
    if isinstance(spec, Keyword):
        spec = spec.name
    if isinstance(spec, str):
        return tuple(given.header_number(i, spec.removeprefix("!")) for i in range(count))
    spec = getattr(spec, "value", spec)
    return per_frame(np.full(count, spec) if np.ndim(spec) == 0 else spec, count, what)
