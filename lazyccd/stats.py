"""Exact statistics of lazy images of any size, the same bits whatever the chunks.

>>> import numpy as np
>>> from astropy.nddata import CCDData
>>> from lazyccd import from_ccddata, stats
>>> ds = from_ccddata(CCDData(np.arange(12.0).reshape(3, 4), unit="adu"))
>>> float(stats.median(ds))
5.5

All leave out bad pixels and those that are not finite, and return lazy numbers with the unit of the data: DataArrays without
axes; of a tree, a tree of them, each the ``data`` of its frame. Nothing is computed before ``.compute()`` or ``float(...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyccd.errors import ArgumentTypeError, ParameterError
from lazyccd.frame.core import DATA, Image, resolve
from lazyccd.frame.tree import over_trees
from lazyccd.frame.units import unit_to_text
from lazyccd.kernels import moments, pointwise
from lazyccd.kernels import quantiles as quantile_kernels
from lazyccd.kernels.quantiles import MAD_TO_SIGMA
from lazyccd.mask_planes import split_selection
from lazyccd.plan.lower import lower_elements
from lazyccd.plan.steps import Apply, Input, Reduction, Scalar, Step, make_dtypes, make_params
from lazyccd.sections import Region

if TYPE_CHECKING:
    import xarray as xr


@over_trees
def median(ccd: xr.Dataset, bad: str | None = None) -> xr.DataArray:
    """Return the exact median of an image.

    Parameters
    ----------
    ccd
        A frame.
    bad
        Which mask planes leave a pixel out, such as ``"SAT+CR"`` or ``"~CR"``; all that count as bad if None. With
        ``"~INTERP"``, pixels that were filled count as good, whatever else their planes say.

    Returns
    -------
    xr.DataArray
        Lazy, without axes; dtype and unit of the data. Two passes over float32 pixels, four over float64, at most three
        tasks per chunk in each. NaN if no pixel is good.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> float(median(from_ccddata(CCDData([[4.0, np.nan], [1.0, 3.0]], unit="adu"))))
    3.0
    """
    image = apply_selection(ccd, bad)
    return _lazy(image, quantile_scalar(image, (0.5,), bad), 1)[0].rename("median")


@over_trees
def percentile(ccd: xr.Dataset, q: float | Sequence[float], bad: str | None = None) -> xr.DataArray:
    """Return exact percentiles of an image, interpolated linearly as `numpy.percentile` does.

    Parameters
    ----------
    ccd
        A frame.
    q
        One percentage or several, from 0 to 100.
    bad
        See `median`.

    Returns
    -------
    xr.DataArray
        Lazy, as `median`; with an axis ``percentile`` if ``q`` is a sequence.

    Raises
    ------
    ParameterError
        Raised if a percentage is not between 0 and 100.
    ArgumentTypeError
        Raised if it is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> ds = from_ccddata(CCDData(np.arange(101.0)[None], unit="adu"))
    >>> percentile(ds, [5, 99.5]).values
    array([ 5. , 99.5])
    """
    if np.asarray(q).dtype.kind not in "iuf":
        raise ArgumentTypeError(f"percentile {q!r} must be a number or a sequence of numbers.")
    wanted = [float(number) for number in np.atleast_1d(q)]
    for number in wanted:
        if not 0 <= number <= 100:
            raise ParameterError(f"percentile {number:g} must be between 0 and 100.")
    image = apply_selection(ccd, bad)
    numbers = _lazy(image, quantile_scalar(image, tuple(n / 100 for n in wanted), bad), len(wanted))
    if np.ndim(q) == 0:
        return numbers[0].rename("percentile")
    import xarray as xr

    return xr.concat(numbers, "percentile").assign_coords(percentile=wanted).rename("percentiles")


@over_trees
def mad_std(ccd: xr.Dataset, bad: str | None = None) -> xr.DataArray:
    """Return the standard deviation that the median absolute deviation of an image stands for.

    Parameters
    ----------
    ccd
        A frame.
    bad
        See `median`.

    Returns
    -------
    xr.DataArray
        Lazy, as `median`: 1.4826 times the median of the distances to the median. Takes twice its passes.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> round(float(mad_std(from_ccddata(CCDData([[1.0, 2.0, 3.0, 4.0, 900.0]], unit="adu")))), 4)
    1.4826
    """
    image = apply_selection(ccd, bad)
    centre = quantile_scalar(image, (0.5,), bad)
    # a step of its own: the distances are never stored, each pass makes them again from the pixels
    planes = {plane: dtype for plane, dtype in image.plan.planes if plane != "variance"}
    distances = Apply(
        image.shape,
        make_dtypes(**planes),
        kernel=moments.distance,
        sources=(Input(image.plan),),
        params=make_params(dtype=image.dtype.name),
        scalars=(("centre", centre),),
    )
    numbers = _lazy(image, quantile_scalar(image, (0.5,), bad, step=distances), 1)
    scaled: xr.DataArray = numbers[0] * image.dtype.type(MAD_TO_SIGMA)
    return scaled.assign_attrs(numbers[0].attrs).rename("mad_std")


@over_trees
def sigma_clipped(ccd: xr.Dataset, sigma: float = 3.0, maxiters: int = 5, bad: str | None = None) -> xr.Dataset:
    """Return mean, median and standard deviation of an image after clipping about the median.

    Parameters
    ----------
    ccd
        A frame.
    sigma
        Pixels further from the median than so many standard deviations are left out.
    maxiters
        How often; a pixel that is out stays out.
    bad
        See `median`.

    Returns
    -------
    xr.Dataset
        The lazy numbers ``mean``, ``median`` and ``std``, in float64; as `astropy.stats.sigma_clipped_stats` gives them.
        Each iteration costs the passes of `median` and one more.

    Raises
    ------
    ParameterError
        Raised if ``sigma`` is not above 0 or ``maxiters`` below 0.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from lazyccd import from_ccddata
    >>> pixels = np.array([[1.0, 2.0, 3.0] * 9 + [900.0]])
    >>> float(sigma_clipped(from_ccddata(CCDData(pixels, unit="adu")))["mean"])
    2.0
    """
    if not sigma > 0 or maxiters < 0:
        raise ParameterError(f"sigma {sigma} must be above 0 and maxiters {maxiters} not below 0.")
    image = apply_selection(ccd, bad)
    numbers = _lazy(image, clipped_scalar(image, float(sigma), int(maxiters), bad), 5, np.dtype(np.float64))
    import xarray as xr

    return xr.Dataset({"mean": numbers[3], "median": numbers[2], "std": numbers[4]})


def apply_selection(ccd: xr.Dataset, bad: str | None) -> Image:
    """Return the image of a frame; with ``"~INTERP"``, filled pixels have no plane but that."""
    image = resolve(ccd)
    if bad is None or not image.has_mask or "INTERP" not in split_selection(bad)[1]:
        return image
    plan = image.apply(
        pointwise.trust_filled, (Input(image.plan),), dict(image.plan.planes), flag=image.schema.bits("INTERP")
    )
    return replace(image, plan=plan)


def quantile_scalar(
    image: Image,
    quantiles: tuple[float, ...],
    bad: str | None = None,
    *,
    lower: bool = False,
    bounds: Scalar | None = None,
    step: Step | None = None,
) -> Scalar:
    """Return exact quantiles of an image's good pixels as a scalar.

    Parameters
    ----------
    image
        The image.
    quantiles
        Fractions of the pixels.
    bad
        See `median`.
    lower
        Take the lower of the two pixels between which a quantile lies, instead of interpolating.
    bounds
        A scalar whose first two elements are the lowest and the highest value that count.
    step
        A step with data and mask, in place of the image's plan.
    """
    plan = step or image.plan
    # a pass counts 16 bits of the order-preserving integer of each pixel, the highest first: exact, and no pixel is kept
    passes = plan.dtypes[DATA].itemsize // 2
    fixed: dict[str, Any] = {"bad_bits": image.schema.select(bad)}
    state = Scalar(given=np.zeros((0, 2), np.uint64))
    limits = () if bounds is None else (("bounds", bounds),)
    for k in range(passes):
        last = k == passes - 1
        final = dict(quantiles=quantiles, lower=lower, **({"dtype": plan.dtypes[DATA].name} if last else {}))
        reduction = Reduction(
            plan,
            partial=quantile_kernels.count_digits,
            final=quantile_kernels.last_digit if last else quantile_kernels.next_digit,
            # counts add up to the same bits in any order, so that partial results are merged on the way
            merge=quantile_kernels.add_counts,
            params=make_params(step=k, **fixed, **final),
            scalars=(("state", state), *limits),
            planes=frozenset({"data", "mask"} & plan.dtypes.keys()),
            region=Region.full(image.shape),
        )
        state = Scalar(reduction=reduction, what=f"quantiles, pass {k + 1} of {passes}")
    return state


def clipped_scalar(image: Image, sigma: float, maxiters: int, bad: str | None = None) -> Scalar:
    """Return bounds, median, mean and standard deviation after clipping about the median, as a scalar."""
    bounds: Scalar | None = None
    for k in range(maxiters + 1):
        centre = quantile_scalar(image, (0.5,), bad, bounds=bounds)
        limits = () if bounds is None else (("bounds", bounds),)
        reduction = Reduction(
            image.plan,
            partial=moments.moments,
            # no merge: sums of floats are added in the order of the tiles, or their last bits would depend on the chunks
            final=moments.mean_and_deviation,
            params=make_params(bad_bits=image.schema.select(bad), sigma=sigma),
            scalars=(("centre", centre), *limits),
            planes=frozenset({"data", "mask"} & image.plan.dtypes.keys()),
            region=Region.full(image.shape),
        )
        bounds = Scalar(reduction=reduction, what=f"clipped statistics, iteration {k} of {maxiters}")
    assert bounds is not None
    return bounds


def _lazy(image: Image, scalar: Scalar, count: int, dtype: np.dtype[Any] | None = None) -> list[xr.DataArray]:
    """Return the elements of a scalar as lazy DataArrays with the unit of the data."""
    import xarray as xr

    attrs = {"units": unit_to_text(image.units)}
    arrays = lower_elements(scalar, dtype or image.dtype, image.graphs, count)
    return [xr.DataArray(array, attrs=attrs) for array in arrays]
