"""Scales, zero points and weights of the frames of a stack: from what a caller says to numbers, or to tasks that find them.

Statistics of whole frames are scalars of the plan: tasks find them in the same run as the stack itself, or before it if a
file's header is to say what they are. `lazyccd.kernels.stack.scaling` brings the frames to one level with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from dask.base import compute

from lazyccd.errors import ArgumentTypeError, ParameterError, ShapeError
from lazyccd.frame.core import Image, as_step
from lazyccd.frame.header import header_view
from lazyccd.frame.keyword import Keyword, keyword_name
from lazyccd.frame.kinds import is_dataset
from lazyccd.kernels.stack import statistics
from lazyccd.kernels.stack.combine import only_partial, plane_factor
from lazyccd.kernels.stack.scaling import Levels, PerFrame
from lazyccd.ops.stack.inputs import Given
from lazyccd.plan.footprints import Halo
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, file_name, make_dtypes, make_params
from lazyccd.sections import Region, parse_section
from lazyccd.stats import clipped_scalar, quantile_scalar

Spec: TypeAlias = Sequence[float] | Callable[[Any], float] | str | Keyword | None

STATISTICS = ("mode", "median", "mean", "clipped")
"""Statistics of a whole frame by which it can be scaled."""

SMOOTHED = 5
"""Pixels along a side of the box whose median variance gives a pixel's weight."""


class Found(NamedTuple):
    """Numbers of the frames, and what tasks have to find for them."""

    per_frame: PerFrame = ()
    """One number, or name of a scalar, per frame; empty if nothing is done."""

    is_statistic: bool = False
    """Whether these are levels to be made equal."""

    scalars: tuple[tuple[str, Scalar], ...] = ()
    """The scalars, by name."""


NOTHING = Found()


def levels_of(
    given: Given,
    scale: Spec,
    zero: Spec,
    weights: Any,
    section: str | None,
    *,
    sampled: bool = False,
    scale_name: str = "scale",
) -> tuple[Levels, tuple[tuple[str, Scalar], ...], list[Image]]:
    """Return how frames are brought to one level, the scalars for it, and images of the weights of pixels.

    Parameters
    ----------
    given
        The frames.
    scale, zero, weights
        As for `lazyccd.combine`.
    section
        Where statistics are taken; the whole frame if None.
    sampled
        Whether statistics are IRAF's, of at most 100000 pixels.
    scale_name
        What the caller calls ``scale``.
    """
    # tasks find them in the run that combines: a level of the whole frame must be known before its first band, so each
    # frame is read again for it
    scales = _found(given, scale, scale_name, section, sampled=sampled)
    zeros = _found(given, zero, "zero", section, sampled=sampled)
    weighting, images = _weights(given, weights)
    levels = Levels(
        scale=scales.per_frame,
        scale_is_statistic=scales.is_statistic,
        zero=zeros.per_frame,
        zero_is_statistic=zeros.is_statistic,
        weights=weighting.per_frame,
        weights_are_variances=weighting.is_statistic,
        weights_are_exposures=isinstance(weights, str) and weights == "exposure",
        labels=tuple(given.labels),
    )
    return levels, scales.scalars + zeros.scalars + weighting.scalars, list(images)


def found_levels(levels: Levels, scalars: Sequence[tuple[str, Scalar]], given: Given) -> Levels:
    """Return the levels with the numbers that tasks find, which run now."""
    graphs = [graph for image in given.images for graph in image.graphs]
    results = compute(*lower_scalars([scalar for _, scalar in scalars], graphs))
    found = dict(zip((name for name, _ in scalars), results, strict=True))

    def known(given: PerFrame) -> PerFrame:
        return tuple(float(np.ravel(found[n])[0]) if isinstance(n, str) else n for n in given)

    return replace(levels, scale=known(levels.scale), zero=known(levels.zero), weights=known(levels.weights))


def _found(given: Given, spec: Spec, what: str, section: str | None, *, sampled: bool) -> Found:
    """Return the numbers of the frames that a caller's words or numbers mean.

    Parameters
    ----------
    given
        The frames.
    spec
        Numbers, a function, or words, as for `lazyccd.combine`.
    what
        The argument's name, ``zero`` or that of the scale.
    section, sampled
        As for `levels_of`.
    """
    count = len(given.images)
    if spec is None:
        return NOTHING
    if callable(spec):
        return _scalars([_by_function(image, spec) for image in given.images], what, is_statistic=False)
    if isinstance(spec, Keyword):
        spec = f"!{spec.name}"
    if not isinstance(spec, str):
        return Found(per_frame(spec, count, what))
    if spec == "exposure" and what != "zero":
        # a level: a frame of twice the time is divided by two
        return Found(_positive(given.exposures(), given, what), is_statistic=True)
    if spec not in STATISTICS and given.is_keyword(spec):
        # factors as they are: imcombine too multiplies by a keyword's numbers, and divides by statistics (icscale.x)
        return Found(tuple(given.header_number(i, spec.removeprefix("!")) for i in range(count)))
    if spec not in STATISTICS:
        words = ", ".join([*STATISTICS, *(["exposure"] if what != "zero" else [])])
        raise ParameterError(
            f"{what} {spec!r} must be numbers, a function, one of {words}, or a keyword of the headers, and none has {spec!r}."
        )
    return _scalars([statistic(image, spec, section, sampled) for image in given.images], what, is_statistic=True)


def _scalars(scalars: Sequence[Scalar], what: str, *, is_statistic: bool) -> Found:
    """Return numbers that tasks find, one per frame, by the names of scalars."""
    named = tuple((f"{what}_{i}", scalar) for i, scalar in enumerate(scalars))
    return Found(tuple(name for name, _ in named), is_statistic, named)


def section_of(image: Image, text: str) -> str:
    """Return a section, which may be the value of a keyword."""
    name = keyword_name(text)
    if name is None:
        return text
    return str(Keyword(name).value_from(header_view(image.header)))


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
    """Return a statistic of an image's good pixels as a scalar.

    Parameters
    ----------
    image
        A frame.
    what
        One of `STATISTICS`.
    section
        Where it is taken; the whole frame if None.
    sampled
        Whether it is IRAF's, of at most 100000 pixels; a mode always is.
    """
    part = image
    if section is not None:
        cut = parse_section(section_of(image, section), image.shape)
        if cut.step != (1, 1):
            raise ParameterError(f"statistics section {section!r} has a step or a flip and must have none.")
        part = image.window((cut.region.y0, cut.region.x0), (1, 1), cut.region.shape)
    # a mode is imcombine's, which takes it of its sample in any case (icstat.gx)
    if sampled or what == "mode":
        return sampled_statistic(part, what)
    if what == "median":
        return quantile_scalar(part, (0.5,))
    clipped = clipped_scalar(part, 3.0, 0 if what == "mean" else 5)
    return _mean_of(clipped)


def _mean_of(clipped: Scalar) -> Scalar:
    """Return the mean of clipped statistics."""
    assert clipped.reduction is not None
    return Scalar(reduction=replace(clipped.reduction, final=statistics.mean_only), what=clipped.what)


def sampled_statistic(image: Image, what: str) -> Scalar:
    """Return a statistic of a grid of pixels, as IRAF's imcombine takes it."""
    step = next((n for n in range(1, 10) if _grid(image.shape, n) < statistics.MOST_PIXELS), 10)
    shape = tuple((length - 1) // step + 1 for length in image.shape)
    grid = image.window((0, 0), (step, step), (shape[0], shape[1]))
    reduction = Reduction(
        grid.plan,
        partial=statistics.sample_statistic,
        final=only_partial,
        params=make_params(
            what=what, bad_bits=image.schema.bad_bits, **({"name": file_name(image.plan)} if what == "sky" else {})
        ),
        planes=frozenset({"data", "mask"} & grid.plan.dtypes.keys()),
        region=Region.full(grid.shape),
        tile=None,
    )
    return Scalar(reduction=reduction, what=f"{what} of a frame")


def _grid(shape: tuple[int, int], step: int) -> int:
    return ((shape[0] - 1) // step + 1) * ((shape[1] - 1) // step + 1)


def _by_function(image: Image, func: Callable[[Any], float]) -> Scalar:
    """Return a user's function of the image's whole plane as a scalar."""
    reduction = Reduction(
        image.plan,
        partial=plane_factor,
        final=only_partial,
        # a user's function gets the whole plane, as in ccdproc: no tiles
        params=make_params(func=func, bad_bits=image.schema.bad_bits),
        planes=frozenset({"data", "mask"} & image.plan.dtypes.keys()),
        region=Region.full(image.shape),
        tile=None,
    )
    return Scalar(reduction=reduction, what="scale of a frame")


def _weights(given: Given, weights: Any) -> tuple[Found, tuple[Image, ...]]:
    """Return weights of frames, or their variances as statistics; and images that give the weights of pixels, or none."""
    count = len(given.images)
    if weights is None:
        return NOTHING, ()
    if isinstance(weights, Keyword):
        weights = f"!{weights.name}"
    if isinstance(weights, str):
        return _named_weights(given, weights)
    images = weights if isinstance(weights, list | tuple | np.ndarray) else np.asarray(weights)
    if len(images) and all(np.ndim(one) == 2 or is_dataset(one) for one in images):
        return NOTHING, _weight_images(given, images)
    numbers = per_frame(weights, count, "weights")
    # all 0 would leave 0 / 0 everywhere
    if min(numbers) < 0 or max(numbers) == 0:
        raise ParameterError(f"weights {list(numbers)} must not be negative, and one must be greater than 0.")
    return Found(numbers), ()


def _named_weights(given: Given, weights: str) -> tuple[Found, tuple[Image, ...]]:
    """Return the weights that a word means."""
    if weights == "exposure":
        return Found(_positive(given.exposures(), given, "weights")), ()
    is_word = weights in {"variance", "smoothed", "pixel"}
    if not is_word and given.is_keyword(weights):
        return Found(tuple(given.header_number(i, weights.removeprefix("!")) for i in range(len(given.images)))), ()
    if not is_word:
        raise ParameterError(
            f"weights {weights!r} must be numbers, images, exposure, variance, smoothed, pixel, or a keyword of the headers, and "
            f"none has {weights!r}."
        )
    missing = [label for label, image in zip(given.labels, given.images, strict=True) if not image.has_variance]
    if missing:
        raise ParameterError(
            f"{missing[0]} has no uncertainty for weights={weights!r}; make one with create_deviation."
        )
    if weights == "variance":
        # the median is that of the sky: bright stars, whose variance is large, must not decide
        return _scalars([_median_variance(image) for image in given.images], "weight", is_statistic=True), ()
    # a noisy pixel's own variance favours low values where photons are few, as LSST and banzai weight; hence "smoothed"
    return NOTHING, tuple(_inverse(image, smooth=weights == "smoothed") for image in given.images)


def _positive(exposures: tuple[float, ...], given: Given, what: str) -> tuple[float, ...]:
    """Return exposure times; raise `ParameterError` if one is not above 0, since its frame would be left out in silence."""
    for label, seconds in zip(given.labels, exposures, strict=True):
        if not seconds > 0:
            raise ParameterError(
                f"{what} 'exposure': {label} has an exposure time of {seconds:g}, which must be above 0; correct its header, leave the "
                "frame out, or give numbers."
            )
    return exposures


def _weight_images(given: Given, images: Any) -> tuple[Image, ...]:
    """Return a user's weights, one image per frame."""
    if len(images) != len(given.images):
        raise ParameterError(f"weights has {len(images)} images and must have {len(given.images)}: one per frame.")
    found = []
    for label, image, one in zip(given.labels, given.images, images, strict=True):
        array = one["data"].data if is_dataset(one) else getattr(one, "data", one)
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
