"""Stacks: a Combiner holds all pixels as a masked array that scripts may read and change; `combine` makes one from files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from astropy import log
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import sigma_clip as clip_sigmas
from astropy.utils.exceptions import AstropyDeprecationWarning

from lazyccd.ccdproc.arithmetic import by_bands, each_of_many
from lazyccd.ccdproc.filters import sigma_func
from lazyccd.ccdproc.stack_inputs import StackInputs

__all__ = ["Combiner", "combine"]

Array = np.ndarray[Any, Any]

WITHOUT_NAN = partial(sigma_func, ignore_nan=True)
"""The default deviation of a median; averages and sums have NaN where a value is masked, if they are given `sigma_func`."""

COPIES = {"average": 2.6, "sum": 2.6, "median": 3.9}
"""How many copies of a stack are held while it is combined, as ccdproc reckons: results of sums then have its tiles."""


class Combiner:
    """Images to be combined.

    Parameters
    ----------
    ccd_iter
        CCDData of one shape and unit.
    dtype
        Of the stack and of results; float64 by default.

    Attributes
    ----------
    data_arr
        The images as one masked array, whose mask the clipping methods set. Changes to it count.
    ccd_list
        The images.
    unit
        Their unit.
    """

    def __init__(self, ccd_iter: Iterable[CCDData] | None, dtype: Any = None) -> None:
        if ccd_iter is None:
            raise TypeError("ccd_iter should be a list or a generator of CCDData objects.")
        self.ccd_list = list(ccd_iter)
        if not self.ccd_list:
            raise TypeError("ccd_iter has no image; give at least one.")
        _check_alike(self.ccd_list)
        first = self.ccd_list[0]
        self.unit = first.unit
        self._dtype = np.float64 if dtype is None else dtype
        self._weights: Array | None = None
        self._scaling: Array | None = None
        shape = (len(self.ccd_list), *first.shape)
        values, mask = np.empty(shape, self._dtype), np.zeros(shape, bool)

        def fill(number: int) -> None:
            values[number] = self.ccd_list[number].data
            if self.ccd_list[number].mask is not None:
                mask[number] = self.ccd_list[number].mask

        each_of_many(fill, range(shape[0]), values.size)
        self.data_arr: Any = np.ma.MaskedArray(values, mask)

    @property
    def dtype(self) -> Any:
        """Of the stack and of results, as it was given."""
        return self._dtype

    @property
    def weights(self) -> Array | None:
        """One number per image, or one per pixel of each; None for equal ones."""
        return self._weights

    @weights.setter
    def weights(self, value: Array | None) -> None:
        if value is not None:
            if not isinstance(value, np.ndarray):
                raise TypeError("weights must be a numpy.ndarray.")
            if value.shape != self.data_arr.shape and value.shape != self.data_arr.shape[:1]:
                raise ValueError(
                    f"weights have shape {value.shape} and must have {self.data_arr.shape[:1]} or {self.data_arr.shape}."
                )
        self._weights = value

    @property
    def scaling(self) -> Array | None:
        """Factors, one per image; a function of an image gives them when it is set. None for none."""
        return self._scaling

    @scaling.setter
    def scaling(self, value: Any) -> None:
        if value is None:
            self._scaling = None
            return
        count = len(self.data_arr)
        if callable(value):
            value = [value(self.data_arr[i]) for i in range(count)]
        try:
            given = len(value)
        except TypeError as error:
            raise TypeError("scaling must be a function or an array of one number per image.") from error
        if given != count:
            raise ValueError(f"scaling has {given} numbers and must have one for each of {count} images.")
        self._scaling = self._along_stack(np.asarray(value))

    def _along_stack(self, values: Array) -> Array:
        """Return one number per image as an array that goes with the stack."""
        return values.reshape(-1, *(1,) * (self.data_arr.ndim - 1)) if values.ndim == 1 else values

    def clip_extrema(self, nlow: int = 0, nhigh: int = 0) -> None:
        """Mask the lowest and the highest values of each pixel; masked ones count among them.

        Parameters
        ----------
        nlow, nhigh
            How many.
        """
        values, mask = self.data_arr.data, self._mask()
        if max(nlow, nhigh) > len(values):
            raise IndexError(f"nlow {nlow} and nhigh {nhigh} must not be more than the {len(values)} images.")

        def clip(pixels: slice) -> None:
            # positions of a whole stack would be 8 bytes for each of its values
            order = np.argsort(values[:, pixels], axis=0)
            extremes = np.concatenate([order[: max(nlow, 0)], order[max(len(order) - nhigh, 0) :]])
            np.put_along_axis(mask[:, pixels], extremes, True, axis=0)

        by_bands(clip, values[0], 8 * len(values))

    def minmax_clipping(self, min_clip: float | None = None, max_clip: float | None = None) -> None:
        """Mask values outside of limits.

        Parameters
        ----------
        min_clip, max_clip
            The limits, for which None is none.
        """
        values, mask = self.data_arr.data, self._mask()

        def clip(numbers: slice) -> None:
            if min_clip is not None:
                mask[numbers] |= values[numbers] < min_clip
            if max_clip is not None:
                mask[numbers] |= values[numbers] > max_clip

        by_bands(clip, values)

    def sigma_clipping(
        self,
        low_thresh: float | None = 3,
        high_thresh: float | None = 3,
        func: Any = "mean",
        dev_func: Any = "std",
        **kwd: Any,
    ) -> None:
        """Mask values that are many deviations away from the centre of their pixel.

        Parameters
        ----------
        low_thresh, high_thresh
            How many deviations below and above; None and 0 stand for 3.
        func, dev_func
            Centre and deviation: names or functions as of `astropy.stats.sigma_clip`.
        **kwd
            Further arguments of that function.
        """
        if kwd.pop("use_astropy", None) is not None:
            warnings.warn("use_astropy has no effect; astropy's rule is used.", AstropyDeprecationWarning, stacklevel=2)
        low, high = low_thresh or 3, high_thresh or 3
        # as in ccdproc, values that are masked already are part of centre and deviation
        values = self.data_arr.data
        limits = {"sigma_lower": low, "sigma_upper": high, "cenfunc": func, "stdfunc": dev_func}
        options = limits | {"axis": 0, "copy": False, "maxiters": 1} | kwd
        beyond = (
            StackInputs(self.data_arr).beyond(low, high, func, dev_func) if not kwd and min(low, high) > 0 else None
        )
        if beyond is None:
            beyond = np.ma.getmaskarray(clip_sigmas(values, **options))
        elif callable(func) or callable(dev_func):
            # what a NaN does to its pixel depends on the function: one of numpy.ma masks all values of that pixel
            affected = ~np.isfinite(values).all(axis=0)
            if affected.any():
                beyond[:, affected] = np.ma.getmaskarray(clip_sigmas(values[:, affected], **options))
        mask = self._mask()
        mask |= beyond

    def _mask(self) -> Array:
        """Return the mask of the stack itself, an array even if somebody has set it to `numpy.ma.nomask`."""
        if self.data_arr.mask is np.ma.nomask:
            self.data_arr.mask = np.zeros(self.data_arr.shape, bool)
        mask: Array = self.data_arr.mask
        return mask

    def _scaled(self, scale_to: Any) -> Any:
        """Return the stack times the factors that are given, or else those of `scaling`."""
        factors = self._scaling if scale_to is None else np.asarray(scale_to)
        return self.data_arr if factors is None else self.data_arr * self._along_stack(factors)

    def _count(self, stack: Any, function: object) -> Array:
        """Return how many values each pixel has; NaN are none, but for functions of users."""
        absent = np.ma.getmaskarray(stack)
        if function is None:
            absent = absent | np.isnan(stack.data)
        return np.asarray(len(stack) - absent.sum(axis=0))

    def _product(self, values: Any, uncertainty: Any, count: Array) -> CCDData:
        """Return the combined image."""
        with np.errstate(invalid="ignore"):  # NaN of pixels without values becomes an integer if one is asked for
            data = np.asarray(values).astype(self._dtype, copy=False)
        # scaled values, and so their deviations, may be of a larger type than the result
        kind = self._dtype if self._scaling is None else np.result_type(self._dtype, self._scaling)
        deviation = np.asarray(uncertainty).astype(_float_type(kind), copy=False)
        result = CCDData(data, mask=count == 0, unit=self.unit, uncertainty=StdDevUncertainty(deviation))
        result.meta["NCOMBINE"] = len(self.data_arr)
        return result

    def _uncertainty(self, function: Any, stack: Any, inputs: StackInputs, combining: object) -> Any:
        """Return the deviation of the values of each pixel by the square root of their number."""
        count = self._count(stack, combining)
        uncertainty = self._deviation(function, stack, inputs, combining) / np.sqrt(count)
        # ccdproc divides a masked array then, which is 0 there
        return uncertainty if combining is None else np.where(count == 0, 0, uncertainty)

    def _deviation(self, function: Any, stack: Any, inputs: StackInputs, combining: object) -> Any:
        """Return a function's deviations of the values of each pixel.

        Users' functions get NaN for what is masked, or the masked array if the function that combines is theirs too.
        """
        if function is None or function is _default_std():
            return inputs.deviation
        if function is WITHOUT_NAN:
            return inputs.mad_deviation
        if combining is not None or not np.ma.getmaskarray(stack).any():
            return function(stack if combining is not None else stack.data, axis=0)
        return function(_with_nans(stack), axis=0)

    def average_combine(
        self,
        scale_func: Callable[..., Any] | None = None,
        scale_to: Any = None,
        uncertainty_func: Callable[..., Any] | None = None,
        sum_func: Callable[..., Any] = np.nansum,
    ) -> CCDData:
        """Return the average, weighted if there are weights.

        Parameters
        ----------
        scale_func
            What averages along the first axis.
        scale_to
            Factors instead of `scaling`.
        uncertainty_func
            The deviation of the values of a pixel; the standard deviation by default.
        sum_func
            What sums along the first axis, for weights.
        """
        stack = self._scaled(scale_to)
        inputs, count = StackInputs(stack), self._count(stack, scale_func)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self._weights is not None:
                weights = self._along_stack(self._weights.astype(float))
                if sum_func is np.nansum:
                    total = inputs.weighted_sum(self._weights)[0]
                else:
                    total = sum_func((_with_nans(stack) if scale_func is None else stack) * weights, axis=0)
                # weights of masked values count here, as in ccdproc 2.5.1
                average = total / sum_func(weights, axis=0)
            else:
                average = inputs.mean if scale_func is None else scale_func(stack, axis=0)
            uncertainty = self._uncertainty(uncertainty_func, stack, inputs, scale_func)
        return self._product(average, uncertainty, count)

    def median_combine(
        self,
        median_func: Callable[..., Any] | None = None,
        scale_to: Any = None,
        uncertainty_func: Callable[..., Any] = sigma_func,
    ) -> CCDData:
        """Return the median.

        Parameters
        ----------
        median_func
            What takes the median along the first axis.
        scale_to
            Factors instead of `scaling`.
        uncertainty_func
            The deviation of the values of a pixel; from their median absolute deviation by default.
        """
        stack = self._scaled(scale_to)
        inputs, count = StackInputs(stack), self._count(stack, median_func)
        deviation = WITHOUT_NAN if uncertainty_func is sigma_func else uncertainty_func
        with np.errstate(invalid="ignore", divide="ignore"):
            median = inputs.median if median_func is None else median_func(stack, axis=0)
            uncertainty = self._uncertainty(deviation, stack, inputs, median_func)
        return self._product(median, uncertainty, count)

    def sum_combine(
        self,
        sum_func: Callable[..., Any] | None = None,
        scale_to: Any = None,
        uncertainty_func: Callable[..., Any] | None = None,
    ) -> CCDData:
        """Return the sum, weighted if there are weights.

        Parameters
        ----------
        sum_func
            What sums along the first axis.
        scale_to
            Factors instead of `scaling`.
        uncertainty_func
            The deviation of the values of a pixel; the standard deviation by default.
        """
        stack = self._scaled(scale_to)
        inputs, count = StackInputs(stack), self._count(stack, sum_func)
        if sum_func is None:
            total = inputs.weighted_sum(self._weights)[0]
        else:
            total = sum_func(stack if self._weights is None else stack * self._along_stack(self._weights), axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            uncertainty = self._uncertainty(uncertainty_func, stack, inputs, sum_func) * count
        return self._product(total, uncertainty, count)


def _check_alike(ccds: list[CCDData]) -> None:
    """Raise unless all are CCDData of one shape and unit."""
    for ccd in ccds:
        if not isinstance(ccd, CCDData):
            raise TypeError("ccd_list should only contain CCDData objects.")
        if ccd.shape != ccds[0].shape:
            raise TypeError(f"CCDData objects are not the same size: {ccds[0].shape} and {ccd.shape}.")
        if ccd.unit != ccds[0].unit:
            raise TypeError(f"CCDData objects don't have the same unit: {ccds[0].unit} and {ccd.unit}.")


def _float_type(dtype: Any) -> np.dtype[Any]:
    """Return the type of deviations of values of a type."""
    return np.dtype(dtype) if np.dtype(dtype).kind == "f" else np.dtype(float)


def _default_std() -> Callable[..., Any]:
    """Return the function that standard deviations come from, which ccdproc's own tests ask for."""
    return np.nanstd


def _with_nans(stack: Any) -> Array:
    """Return a stack in which masked values are NaN."""
    floats: Array = stack.data if stack.dtype.kind == "f" else stack.data.astype(float)
    return np.where(np.ma.getmaskarray(stack), floats.dtype.type(np.nan), floats)


def combine(
    img_list: Any,
    output_file: Any = None,
    method: str = "average",
    weights: Array | None = None,
    scale: Any = None,
    mem_limit: float = 16e9,
    clip_extrema: bool = False,
    nlow: int = 1,
    nhigh: int = 1,
    minmax_clip: bool = False,
    minmax_clip_min: float | None = None,
    minmax_clip_max: float | None = None,
    sigma_clip: bool = False,
    sigma_clip_low_thresh: float | None = 3,
    sigma_clip_high_thresh: float | None = 3,
    sigma_clip_func: Any = np.ma.mean,
    sigma_clip_dev_func: Any = np.ma.std,
    dtype: Any = None,
    combine_uncertainty_function: Callable[..., Any] | None = None,
    overwrite_output: bool = False,
    **ccdkwargs: Any,
) -> CCDData:
    """Combine files or images; the result has the header and WCS of the first.

    Parameters
    ----------
    img_list
        File names, also as one text with commas between them, or CCDData.
    output_file
        Where to write the result.
    method
        ``"average"``, ``"median"`` or ``"sum"``.
    weights
        See `Combiner.weights`.
    scale
        Factors, or a function of the pixels of a whole image.
    mem_limit
        Bytes to hold at most; images that need more are combined band by band.
    clip_extrema, nlow, nhigh
        See `Combiner.clip_extrema`.
    minmax_clip, minmax_clip_min, minmax_clip_max
        See `Combiner.minmax_clipping`.
    sigma_clip, sigma_clip_low_thresh, sigma_clip_high_thresh, sigma_clip_func, sigma_clip_dev_func
        See `Combiner.sigma_clipping`.
    dtype
        Of the result; float64 by default.
    combine_uncertainty_function
        The deviation of the values of a pixel.
    overwrite_output
        Overwrite the file.
    **ccdkwargs
        For `CCDData.read`, such as ``unit="adu"``.
    """
    if not _is_list(img_list):
        raise ValueError("unrecognised input for list of images.")
    if method not in COPIES:
        raise ValueError(f"unrecognised combine method : {method}.")
    images = _Images(img_list, ccdkwargs)
    factors = [scale(images.read(i).data) for i in range(len(images))] if callable(scale) else scale
    limits = sigma_clip_low_thresh, sigma_clip_high_thresh, sigma_clip_func, sigma_clip_dev_func
    clips = {
        "clip_extrema": (nlow, nhigh) if clip_extrema else None,
        "minmax_clipping": (minmax_clip_min, minmax_clip_max) if minmax_clip else None,
        "sigma_clipping": limits if sigma_clip else None,
    }
    kind = np.dtype(np.float64 if dtype is None else dtype)
    options = {} if combine_uncertainty_function is None else {"uncertainty_func": combine_uncertainty_function}
    result = images.empty_result(kind)
    for tile in images.tiles(kind, method, mem_limit):
        combiner = Combiner(images.cut(tile), kind)
        combiner.weights = weights[:, *tile] if isinstance(weights, np.ndarray) and weights.ndim > 1 else weights
        combiner.scaling = factors
        for name, arguments in clips.items():
            if arguments is not None:
                getattr(combiner, name)(*arguments)
        part = getattr(combiner, f"{method}_combine")(**options)
        result.data[tile], result.mask[tile] = part.data, part.mask
        result.uncertainty.array[tile] = part.uncertainty.array
    if output_file is not None:
        result.write(output_file, overwrite=overwrite_output)
    return result


def _is_list(given: object) -> bool:
    """Return whether something can be a list of images."""
    return isinstance(given, str | os.PathLike | Iterable)


class _Images:
    """The images of a stack, read when asked for."""

    def __init__(self, given: Any, options: dict[str, Any]) -> None:
        """Take files or images, and the options to read files with."""
        self._given = os.fspath(given).split(",") if isinstance(given, str | os.PathLike) else list(given)
        self._options = options
        self._first = self.read(0)

    def __len__(self) -> int:
        return len(self._given)

    def read(self, number: int) -> CCDData:
        """Return an image."""
        given = self._given[number]
        if isinstance(given, CCDData):
            return given
        return CCDData.read(given if isinstance(given, os.PathLike) else str(given), **self._options)

    def empty_result(self, dtype: np.dtype[Any]) -> CCDData:
        """Return an image for the result, with the header of the first."""
        first, shape = self._first, self._first.shape
        kind = dtype if first.uncertainty is None else first.uncertainty.array.dtype
        deviation = StdDevUncertainty(np.zeros(shape, _float_type(kind)))
        # the class is the first image's, and may be one of the user's
        return type(first)(
            np.zeros(shape, dtype),
            unit=first.unit,
            meta=first.meta.copy(),
            wcs=first.wcs,
            mask=np.zeros(shape, bool),
            uncertainty=deviation,
        )

    def tiles(self, dtype: np.dtype[Any], method: str, limit: float) -> Iterator[tuple[slice, ...]]:
        """Yield regions that cover the image, each small enough for the memory limit."""
        shape, uncertainty = self._first.shape, self._first.uncertainty
        size = 2 * dtype.itemsize if uncertainty is None else dtype.itemsize + uncertainty.array.itemsize
        wanted = int(COPIES[method] * self._first.data.size * (size + 1) * len(self) / limit) + 1
        if wanted == 1 or len(shape) != 2:
            yield (slice(None),) * len(shape)
            return
        log.info(f"splitting each image into {wanted} chunks to limit memory usage to {limit} bytes.")
        ystep, xstep = _calculate_step_sizes(shape[0], shape[1], wanted)
        for y in range(0, shape[0], ystep):
            for x in range(0, shape[1], xstep):
                yield slice(y, y + ystep), slice(x, x + xstep)

    def cut(self, tile: tuple[slice, ...]) -> Iterator[CCDData]:
        """Yield a region of each image."""
        for number in range(len(self)):
            ccd = self.read(number) if number else self._first
            mask = None if ccd.mask is None else np.array(ccd.mask[tile], bool)
            # a copy, so that the rest of the image is not held
            yield CCDData(ccd.data[tile].copy(), unit=ccd.unit, mask=mask)


def _calculate_step_sizes(x_size: int, y_size: int, num_chunks: int) -> tuple[int, int]:
    """Return the sides of about as many regions as asked for: some lines, or if there are not enough lines, parts of one."""
    if num_chunks <= x_size:
        return max(1, x_size // num_chunks), y_size
    return 1, max(1, y_size // (1 + num_chunks // x_size))
