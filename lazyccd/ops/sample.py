"""Pixels of a part of a frame, read at once, and order statistics of them: for decisions that need numbers now."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from lazyccd.frame.core import DATA, MASK, UNCERTAINTY, Image
from lazyccd.kernels import groups
from lazyccd.kernels.block import Array
from lazyccd.kernels.groups import Flags
from lazyccd.kernels.quantiles import MAD_TO_SIGMA, add_counts
from lazyccd.kernels.selection import between, deviation_within
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.attributes import cut
from lazyccd.plan.direct import run_region
from lazyccd.plan.lower import lower_scalars
from lazyccd.plan.steps import Reduction, Scalar, make_params
from lazyccd.sections import Region

ENOUGH = 2**18
"""Pixels that tell a level or a noise; of larger areas so many are read."""

FEWEST_SAMPLED = 4096
"""Values from which on a sample tells where a quantile is sooner than numpy.partition does."""

AT_ONCE = 2**22
"""Pixels that the caller's thread reads by itself; more are left to the scheduler."""

BANDS = 4
"""Bands of rows that these are taken from: each is a computation of its own."""


class Planes(NamedTuple):
    """Planes of a region of a frame, in memory."""

    data: Array
    mask: Array | None = None
    uncertainty: Array | None = None

    def flagged(self, schema: MaskSchema, allowed: str = "") -> Flags:
        """Return where a pixel is bad; a mask plane that is allowed makes none bad."""
        if self.mask is None:
            return np.zeros(self.data.shape, bool)
        bad = schema.bad_bits & ~(schema.bits(allowed) if allowed else 0)
        flagged: Flags = (self.mask & self.mask.dtype.type(bad)) != 0
        return flagged


def read_planes(image: Image, region: Region, *, uncertainty: bool = False) -> Planes:
    """Return the planes of a region in the precision that they have. Pulls this region only.

    Parameters
    ----------
    image, region
        What is read.
    uncertainty
        Whether the uncertainty is wanted, if there is one.
    """
    found = read_variables(image, region, {DATA, MASK, UNCERTAINTY} if uncertainty else {DATA, MASK})
    return Planes(found[DATA], found.get(MASK), found.get(UNCERTAINTY))


def read_variables(image: Image, region: Region, names: Collection[str]) -> dict[str, Array]:
    """Return those of some variables of a frame that it has, in a region. Pulls this region only."""
    kinds = {name: kind for name, kind in image.kinds.items() if name in names}
    found = run_region(image.plan, region, kinds) if region.size <= AT_ONCE else None
    if found is None:
        part = cut(image, *region.slices).to_dataset()[list(kinds)].compute()
        found = {name: part[name].values for name in kinds}
    return found


def read_pixels(image: Image, region: Region, allowed: str = "") -> Array:
    """Return the data of a region in double precision, NaN where a pixel is bad. Pulls this region only.

    A mask plane that is allowed makes no pixel bad.
    """
    planes = read_planes(image, region)
    data = planes.data.astype(float)
    data[planes.flagged(image.schema, allowed)] = np.nan
    return data


def sampled_bands(region: Region) -> list[Region]:
    """Return the parts of a region that tell its level: all of it if it has up to `ENOUGH` pixels, else bands of rows.

    The bands are as far from each other as from the edges, so that they see what changes across the region as all of it does.
    A quarter of a million pixels tell a median to within 0.003 of their scatter.

    Examples
    --------
    >>> sampled_bands(Region(0, 500, 0, 500))
    [Region(y0=0, y1=500, x0=0, x1=500)]
    >>> bands = sampled_bands(Region(0, 2048, 0, 2048))
    >>> bands[0], len(bands), sum(band.size for band in bands)
    (Region(y0=240, y1=272, x0=0, x1=2048), 4, 262144)
    """
    if region.size <= ENOUGH:
        return [region]
    rows = region.y1 - region.y0
    # An image of two columns has as many rows as it has pixels.
    height = max(1, ENOUGH // (BANDS * (region.x1 - region.x0)))
    starts = (region.y0 + int((number + 0.5) * rows / BANDS - height / 2) for number in range(BANDS))
    return [Region(start, start + height, region.x0, region.x1) for start in starts]


class Flagged(NamedTuple):
    """How many pixels of a frame are flagged."""

    planes: dict[str, int]
    """By each mask plane that flags any."""

    bad: int
    """By any plane that makes a pixel bad."""


def flagged_pixels(image: Image) -> Flagged:
    """Return how many pixels are flagged; they are counted where the pixels are read."""
    if MASK not in image.kinds:
        return Flagged({}, 0)
    reduction = Reduction(
        image.plan,
        partial=groups.count_bits,
        final=groups.add_bits,
        merge=add_counts,
        params=make_params(bits=len(image.schema.names), bad_bits=image.schema.bad_bits),
        planes=frozenset({"mask"}),
        region=Region.full(image.shape),
    )
    (counts,) = lower_scalars([Scalar(reduction=reduction, what="flagged pixels")], image.graphs)
    *planes, bad = counts.compute().tolist()
    named = zip(image.schema.names, planes, strict=True)
    return Flagged({name: count for name, count in named if count}, bad)


def median(values: Array) -> float:
    """Return the median of the finite values; NaN of nothing.

    Examples
    --------
    >>> median(np.array([4.0, np.nan, 1.0, 2.0]))
    2.0
    """
    return _Ordered(values).quantile(0.5)


def quantile(values: Array, part: float) -> float:
    """Return a quantile of the finite values, linear between two of them; NaN of nothing.

    Examples
    --------
    >>> quantile(np.array([4.0, np.nan, 1.0, 2.0]), 0.75)
    3.0
    """
    return _Ordered(values).quantile(part)


class _Ordered:
    """Finite values of an array, or their distances from a centre, by rank."""

    def __init__(self, values: Array, centre: float | None = None) -> None:
        # Loops take floats; in lists of integers every value is finite.
        flat = values.ravel()
        self._values = flat if flat.dtype.kind == "f" else flat.astype(float)
        self._centre = centre
        self._size = int(np.count_nonzero(np.isfinite(self._values)))

    def quantile(self, part: float) -> float:
        """Return a quantile, linear between two values; NaN of nothing."""
        if not self._size:
            return float("nan")
        place = part * (self._size - 1)
        low, high = self._two_at(int(place), min(int(place) + 1, self._size - 1))
        # In the middle of two, as numpy.median has it; interpolation by a half would round differently.
        return (low + high) / 2 if place % 1 == 0.5 else low + (place - int(place)) * (high - low)

    def _two_at(self, first: int, second: int) -> tuple[float, float]:
        """Return the values of one or two neighbouring ranks."""
        if self._size >= FEWEST_SAMPLED:
            values = self._values
            # An odd step sees all columns of an image, whose widths are even.
            sample = self._known(values[:: (values.size // int(values.size ** (2 / 3))) | 1])
            sample.sort()
            middle = first / self._size * sample.size
            # five standard deviations of the rank that a value has in a sample
            reach = 2.5 * np.sqrt(sample.size) + 1
            low = sample[max(0, int(middle - reach))] if middle > reach else -np.inf
            high = sample[int(middle + reach)] if middle + reach < sample.size else np.inf
            kept = np.empty(values.size + 1)
            below, number = between(values, self._centre or 0.0, self._centre is not None, low, high, kept)
            # A sample that has what the others have not says nothing; then all are looked at.
            if below <= first and second < below + number:
                return _two_of(kept[:number], first - below, second - below)
        return _two_of(self._known(self._values), first, second)

    def _known(self, values: Array) -> Array:
        """Return the finite ones of some values, or their distances, in double precision."""
        known = values[np.isfinite(values)].astype(float)
        return known if self._centre is None else np.abs(known - self._centre)


def _two_of(known: Array, first: int, second: int) -> tuple[float, float]:
    """Return the values of one or two neighbouring ranks of values that are all finite."""
    # numpy.median asks for both ranks and for NaN: of a million values that takes 21 ms, one rank alone takes 3.
    split = np.partition(known, second)
    high = float(split[second])
    return (high if first == second else float(split[:second].max())), high


def quantiles_of_rows(values: Array, part: float) -> Array:
    """Return a quantile of the finite values in each row, the last axis; NaN of nothing.

    Examples
    --------
    >>> quantiles_of_rows(np.array([[4.0, np.nan, 1.0, 2.0], [np.nan] * 4]), 0.75)
    array([ 3., nan])
    """
    # NaN comes last. Short rows are sorted in a tenth of the time of numpy.nanquantile, which looks at each row in Python.
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=-1)
    last = np.isfinite(ordered).sum(axis=-1, keepdims=True) - 1
    place = part * np.maximum(last, 0)
    below = place.astype(int)
    low, high = (np.take_along_axis(ordered, rank, -1) for rank in (below, np.minimum(below + 1, np.maximum(last, 0))))
    found: Array = (low + (place - below) * (high - low))[..., 0]
    return found


def robust_std(values: Array) -> float:
    """Return the standard deviation of the values within four robust sigma of their median; NaN of nothing.

    The median absolute deviation alone would be a multiple of the step of digitised values.
    """
    flat = np.ascontiguousarray(values, None if values.dtype.kind == "f" else float).ravel()
    middle = median(flat)
    if not np.isfinite(middle):
        return float("nan")
    # half a step of the converter at least: of digitised values the median absolute deviation may be 0
    most = 4 * max(MAD_TO_SIGMA * _Ordered(flat, middle).quantile(0.5), 0.5)
    return float(deviation_within(flat, middle, most))
