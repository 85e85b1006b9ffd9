"""ccdproc's Combiner: clips are collected one after another, and run when frames are combined."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.core import DATA, MASK
from lazyccd.frame.tree import call_each, calls_of
from lazyccd.kernels.stack.types import Rejecting
from lazyccd.ops.masks import is_flagged
from lazyccd.ops.stack.combine import StackPlan, check_result_dtype, deliver, header_of, plain_rule, uncertainty_name
from lazyccd.ops.stack.inputs import check_shapes, collect, in_one_unit, stacked_trees, trees_of
from lazyccd.ops.stack.offsets import on_each_other
from lazyccd.ops.stack.rejection import Extrema, Limits, Rejection, ccdproc_sigma_clip, clips_of
from lazyccd.ops.stack.scaling import levels_of, per_frame

AVERAGES = {"average", "mean", "nanmean"}
MEDIANS = {"median", "nanmedian"}
SUMS = {"sum", "nansum"}
"""Names of functions that do what the methods do anyway."""


def by_name(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a Combiner of trees be that of the Combiner of the frames of each name."""
    labels = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def wrapper(self: Combiner, *args: Any, **kwargs: Any) -> Any:
        if not self._trees:
            return method(self, *args, **kwargs)
        calls = calls_of(self._trees[0], args, kwargs, labels)
        results = call_each(method, {name: ((self._parts[name], *a), k) for name, (a, k) in calls.items()})
        if not any(isinstance(result, xr.Dataset) for result in results.values()):
            return results
        return stacked_trees(results, self._trees, method.__name__.removesuffix("_combine"))

    return wrapper


class Combiner:
    """Frames to be combined, as ccdproc's class of this name; `lazyccd.combine` does more.

    Parameters
    ----------
    ccd_iter
        Frames, CCDData or paths of one shape; or trees of frames, of which those of one name are combined. All arguments may
        then be mappings by these names; weights, scaling and `data_arr` are.
    dtype
        Of the results, float32 or float64; that of the frames by default.

    Notes
    -----
    Nothing is computed before frames are combined, and then in bounded memory. Clips see unscaled values, and inputs that were
    masked or clipped before are no baseline, which makes iterated clipping tighten; ccdproc's does not.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> combiner = Combiner([CCDData(np.full((1, 1), value), unit="adu") for value in (1.0, 2.0, 3.0, 90.0)])
    >>> combiner.minmax_clipping(max_clip=50)
    >>> combiner.average_combine().data
    array([[2.]])
    """

    def __init__(self, ccd_iter: Any, dtype: npt.DTypeLike | None = None) -> None:
        if ccd_iter is None:
            raise ArgumentTypeError("Combiner() got None and needs frames, CCDData or paths; give them in a list.")
        check_result_dtype(dtype, "Combiner")
        self.dtype = dtype
        # looked at twice: for trees, and for frames
        frames = list(ccd_iter) if isinstance(ccd_iter, Iterator) else ccd_iter
        self._trees = trees_of(frames, "Combiner")
        if self._trees:
            calls = calls_of(self._trees[0], (), {"ccd_iter": self._trees, "dtype": dtype})
            self._parts = call_each(Combiner, calls)
            return
        self._given, self._schema = in_one_unit(collect(frames))
        check_shapes(self._given.images, self._given.labels)
        self._clips: tuple[Rejection, ...] = ()
        self._weights: Any = None
        self._scaling: Any = None

    @property
    def _count(self) -> int:
        return len(self._given.images)

    @property
    @by_name
    def weights(self) -> Any:
        """Weights for averages and sums: an array of one number per frame, or of the frames' shapes; None for equal ones."""
        return self._weights

    @weights.setter
    @by_name
    def weights(self, weights: Any) -> None:
        if weights is not None:
            # ccdproc raises a TypeError for lists too
            if not isinstance(weights, np.ndarray):
                raise ArgumentTypeError(f"weights is a {type(weights).__name__} and must be a NumPy array, or None.")
            if weights.shape not in {(self._count,), (self._count, *self._given.images[0].shape)}:
                raise ParameterError(
                    f"weights has shape {weights.shape} and must have ({self._count},) or that of all frames together."
                )
        self._weights = weights

    @property
    @by_name
    def scaling(self) -> Any:
        """Factors: one per frame, or a function of a frame's plane; None for none."""
        return self._scaling

    @scaling.setter
    @by_name
    def scaling(self, scaling: Sequence[float] | Callable[[Any], float] | None) -> None:
        if scaling is not None and not callable(scaling):
            scaling = per_frame(scaling, self._count, "scaling")
        self._scaling = scaling

    @property
    @by_name
    def data_arr(self) -> np.ma.MaskedArray[Any, Any]:
        """All frames as one masked array, with what was clipped so far. It is computed now and held in memory whole."""
        # clips see unscaled values, so neither weights nor factors can change what is masked
        plan = self._stack_plan("average", None, None, "ccdproc")
        result = plan.result(header_of(self._given, plan.rule, keep_wcs=True), (), rejections=True)
        rejected = result["rejected"].values
        for i, image in enumerate(self._given.images):
            frame = image.to_dataset()
            if MASK in frame:
                # in ccdproc's array too, what the frames had masked is masked beside what was clipped
                rejected[i] |= is_flagged(frame).values
        data = np.array([image.to_dataset()[DATA].values for image in self._given.images])
        return np.ma.MaskedArray(data, rejected)

    def _add(self, clip: Rejection) -> None:
        self._clips += clips_of(clip, count=self._count)

    @by_name
    def minmax_clipping(self, min_clip: float | None = None, max_clip: float | None = None) -> None:
        """Reject values below ``min_clip`` or above ``max_clip``; None is no limit."""
        self._add(Limits(min_clip, max_clip))

    @by_name
    def clip_extrema(self, nlow: int | None = 0, nhigh: int | None = 0) -> None:
        """Reject the ``nlow`` lowest and the ``nhigh`` highest values of each pixel."""
        self._add(Extrema(nlow or 0, nhigh or 0))

    @by_name
    def sigma_clipping(
        self, low_thresh: float | None = 3, high_thresh: float | None = 3, func: Any = "mean", dev_func: Any = "std"
    ) -> None:
        """Reject values so many deviations below or above the center, once; None is no limit.

        Parameters
        ----------
        low_thresh, high_thresh
            PerFrame of deviations.
        func, dev_func
            ``"mean"`` or ``"median"``, ``"std"`` (of n) or ``"mad_std"``, or NumPy's or astropy's functions of these names.
        """
        self._add(ccdproc_sigma_clip(low_thresh, high_thresh, func, dev_func))

    @by_name
    def average_combine(
        self, scale_func: Any = None, scale_to: Any = None, uncertainty_func: Any = None, sum_func: Any = None
    ) -> Any:
        """Return the weighted mean; see `lazyccd.combine` for masks and uncertainty.

        Parameters
        ----------
        scale_func, sum_func
            None, or NumPy's function that does the same.
        scale_to
            Factors, used instead of `scaling`.
        uncertainty_func
            ``"std"`` or ``"mad_std"``, or the function.
        """
        _check_function(scale_func, AVERAGES, "scale_func")
        _check_function(sum_func, SUMS, "sum_func")
        return self._combine("average", scale_to, uncertainty_func)

    @by_name
    def median_combine(self, median_func: Any = None, scale_to: Any = None, uncertainty_func: Any = None) -> Any:
        """Return the median; see `average_combine`."""
        _check_function(median_func, MEDIANS, "median_func")
        return self._combine("median", scale_to, uncertainty_func)

    @by_name
    def sum_combine(self, sum_func: Any = None, scale_to: Any = None, uncertainty_func: Any = None) -> Any:
        """Return the weighted sum of the inputs that are left; see `average_combine`."""
        _check_function(sum_func, SUMS, "sum_func")
        return self._combine("sum", scale_to, uncertainty_func)

    def _combine(self, method: str, scale_to: Any, uncertainty_func: Any) -> Any:
        # a function means ccdproc's estimate; without one, frames that have uncertainties propagate them as in `combine`
        uncertainty = uncertainty_name("ccdproc" if uncertainty_func else None, uncertainty_func, self._given)
        # ccdproc's medians ignore weights that were set for averages
        weights = None if method == "median" else self._weights
        scaling = self._scaling if scale_to is None else scale_to
        plan = self._stack_plan(method, weights, scaling, uncertainty)
        header = header_of(self._given, plan.rule, keep_wcs=on_each_other(self._given))
        return deliver(plan.result(header, (), rejections=False), self._given, header, None, overwrite=False)

    def _stack_plan(self, method: str, weights: Any, scaling: Any, uncertainty: str) -> StackPlan:
        """Return the frames and how they are combined, as set so far."""
        if scaling is not None and not callable(scaling) and np.ndim(scaling) == 0:
            scaling = [scaling] * self._count
        levels, scalars, weighting = levels_of(self._given, scaling, None, weights, None)
        rule = replace(
            plain_rule(self._given.images, self._schema, method),
            levels=levels,
            rejecting=Rejecting(clips=self._clips),
            uncertainty=uncertainty,
        )
        return StackPlan(tuple(self._given.images), self._schema, rule, scalars, tuple(weighting), dtype=self.dtype)


def _check_function(function: Any, known: set[str], what: str) -> None:
    """Raise an error if a function does something else than the method: it would not be called."""
    name = getattr(function, "__name__", str(function))
    if function is not None and name.strip("_") not in known:
        raise ParameterError(f"{what} {name!r} must be None or one of {', '.join(sorted(known))}; no other is run.")
