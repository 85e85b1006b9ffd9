"""The rejection rules of stacks: which inputs of a pixel are too far from the others.

Each rule is a frozen dataclass. Its fields are what users choose, and its methods are all that the rest of the package asks of
it; `Rejection` has the defaults. To add a rule:

1. Write its loop over pixels in `lazyccd.kernels.stack.rejection`. The loop clears ``use`` where an input is rejected and, if
   ``residual`` has elements, says there how far off the input is.
2. Write its class here and add it to `RULES`: a ``name``, fields, `check` if numbers depend on the count of frames, `useless`
   if the rule cannot reject anything from few frames, and `reject`, which calls the loop. A rule that IRAF's imcombine has
   says so in `imcombine`.
3. Write a slow reference in ``tests/kernels/stack_reference.py`` and let ``tests/kernels/test_combine_kernel.py`` draw it.

Nothing else has to know the rule: `combine` takes any of them, headers and `explain` ask for its name. Users import the rules
from `lazyccd.rejection`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from lazyccd.errors import ArgumentTypeError, ParameterError, warn
from lazyccd.frame.keyword import Keyword
from lazyccd.kernels.block import Array
from lazyccd.kernels.stack import rejection as loops
from lazyccd.kernels.stack.loops import reject_outside
from lazyccd.kernels.stack.sigma_clip import reject_deviant
from lazyccd.kernels.stack.sorting import sorting_network
from lazyccd.kernels.stack.types import ImcombineRejection, Noise, PixelBatch
from lazyccd.ops.stack.inputs import Given
from lazyccd.ops.stack.scaling import per_frame

CENTERS = {"mean": "mean", "nanmean": "mean", "median": "median", "nanmedian": "median"}
DEVIATIONS = {"std": "std", "nanstd": "std", "mad_std": "mad_std"}
"""What ccdproc's keywords may be, as names of functions of NumPy and astropy, and what we call it."""


QUIET = {"in_header": False}
"""Marks fields that headers do not have: one number per frame, and what only `flavor="iraf"` has."""


class UselessRejectionWarning(UserWarning):
    """A rejection that cannot reject anything, whatever the values."""


@dataclass(frozen=True)
class Rejection:
    """A rule that rejects inputs of a stack; the base of all of them."""

    name: ClassVar[str] = ""
    """What users, headers and messages call it."""

    whole_lines: ClassVar[bool] = False
    """Whether it measures something along lines of the image, so that its batches must be whole lines."""

    needs_variance: ClassVar[bool] = False
    """Whether it looks at the variances of the inputs."""

    needs_skies: ClassVar[bool] = False
    """Whether it is about how far inputs are above the sky of their frames, in a mosaic."""

    def check(self, count: int, flavor: str = "ccdproc") -> None:
        """Raise an error if the rule cannot be used on so many frames."""

    def useless(self, count: int) -> str:
        """Return why the rule cannot reject anything from so many frames, however far off a value is; empty if it can."""
        return ""

    def for_frames(self, given: Given) -> Rejection:
        """Return the rule with what it takes from the frames' headers."""
        return self

    def of_frames(self, frames: Sequence[int]) -> Rejection:
        """Return the rule for some of the frames: those that lie on a region of a mosaic."""
        return self

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected; see `lazyccd.kernels.stack.types.Rejection`."""
        raise NotImplementedError

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine.

        Raises
        ------
        ParameterError
            Raised if imcombine does not have it.
        """
        names = ", ".join(IN_IMCOMBINE)
        raise ParameterError(f"flavor='iraf' has no {self.name!r}; use minmax_clip or one of {names}.")

    def describe(self) -> str:
        """Return the name and the settings, as headers have them."""
        shown = [(f.name, getattr(self, f.name)) for f in fields(self) if f.metadata.get("in_header", True)]
        words = [f"{key}={v:g}" if isinstance(v, float) else f"{key}={v}" for key, v in shown if v is not None]
        return " ".join([self.name, *words])


def _check_thresholds(rule: Any) -> None:
    """Check the limits ``low`` and ``high`` of a rule, as far as it has them."""
    for what in ("low", "high"):
        limit = getattr(rule, what, None)
        if limit is not None and not limit > 0:
            raise ParameterError(
                f"{what} {limit} of {type(rule).__name__} must be greater than 0, or None for no limit."
            )


def _thresholds(rule: Any) -> tuple[float, float]:
    """Return the limits ``low`` and ``high`` of a rule as kernels have them: infinite for no limit."""
    low, high = (getattr(rule, what, None) for what in ("low", "high"))
    return math.inf if low is None else float(low), math.inf if high is None else float(high)


def _check_word(rule: Any, what: str, known: tuple[str, ...]) -> None:
    """Check that a field of a rule is one of some words."""
    if getattr(rule, what) not in known:
        names = " or ".join(map(repr, known))
        raise ParameterError(f"{what} {getattr(rule, what)!r} of {type(rule).__name__} must be {names}.")


def _check_counts(nlow: int, nhigh: int, count: int) -> None:
    """Check that numbers of lowest and highest values leave something of so many frames."""
    if nlow < 0 or nhigh < 0 or nlow + nhigh >= count:
        raise ParameterError(
            f"nlow {nlow} and nhigh {nhigh} must not be negative, and leave one of {count} frames; lower them."
        )


def _check_center(rule: Any, flavor: str) -> None:
    """Check ``center`` of a rule that is about the median, and about the mean only as imcombine has it (``mclip=no``)."""
    _check_word(rule, "center", ("mean", "median"))
    if rule.center != "median" and flavor != "iraf":
        raise ParameterError(
            f"center {rule.center!r} of {type(rule).__name__} needs flavor='iraf'; leave it out for the median."
        )


@dataclass(frozen=True)
class SigmaClip(Rejection):
    """Reject inputs some standard deviations from the center, until nothing changes; ``sigclip`` of IRAF's imcombine.

    A single value cannot be further off than some deviations that depend on the count of frames: with ``deviation="std"``
    about the median, no value of 7 frames can be 3 deviations off. Use ``deviation="mad_std"`` for few frames.
    """

    name: ClassVar[str] = "sigclip"

    low: float | None = 3.0
    """Deviations below the center beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Deviations above the center."""

    center: str = "median"
    """``median`` or ``mean``; in ``flavor="iraf"`` the mean first leaves out the lowest and the highest value."""

    deviation: str = "std"
    """``std``, of n, about the mean; or ``mad_std``, 1.4826 times the median distance from the median."""

    iterations: int | None = None
    """How often it is repeated; None for any number."""

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_thresholds(self)
        _check_word(self, "center", ("mean", "median"))
        _check_word(self, "deviation", ("std", "mad_std"))
        if self.iterations is not None and self.iterations < 1:
            raise ParameterError(
                f"iterations {self.iterations} of SigmaClip must be 1 or more, or None for any number."
            )

    def useless(self, count: int) -> str:
        """Return why it cannot reject: how far one value of n can be off is limited, and a threshold may be beyond."""
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        if self.deviation != "std" or not limits:
            return ""
        # with one value far off: about the mean and about the median, in deviations of n
        most = math.sqrt(count - 1) if self.center == "mean" else count / math.sqrt(max(count - 1, 1))
        # two values are exactly one deviation from their center, whatever they are
        most = 1.0 if count < 3 else most
        if min(limits) < most:
            return ""
        return f"no value of {count} can be {min(limits):g} standard deviations off; the most is {most:.2f}"

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        reject_deviant(
            batch.values,
            batch.use,
            sorting_network(len(batch.values)),
            self.center == "mean",
            self.deviation == "mad_std",
            *_thresholds(self),
            self.iterations or 0,
            residual,
        )

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine, which has standard deviations and any number of rounds."""
        if self.deviation != "std" or self.iterations is not None:
            raise ParameterError(
                "sigclip of flavor='iraf' has deviation='std' and no number of iterations; leave them out."
            )
        low, high = _thresholds(self)
        return ImcombineRejection(kind="sigclip", low=low, high=high, about_median=self.center == "median")


@dataclass(frozen=True)
class Extrema(Rejection):
    """Reject some of the lowest and highest inputs, however many count; ccdproc's ``clip_extrema``."""

    name: ClassVar[str] = "extrema"

    nlow: int = 1
    """How many of the lowest; of equal ones, those of the first frames are the lower."""

    nhigh: int = 1
    """How many of the highest."""

    def check(self, count: int, flavor: str = "ccdproc") -> None:
        """Raise an error if nothing would be left of so many frames."""
        _check_counts(self.nlow, self.nhigh, count)

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        # ccdproc takes as many from a pixel with few good inputs; imcombine takes fewer (`MinMax`)
        loops.reject_counts(batch.values, int(self.nlow), int(self.nhigh), False, residual, batch.use)


@dataclass(frozen=True)
class MinMax(Rejection):
    """Reject the lowest and highest inputs, fewer in proportion where fewer count; ``minmax`` of IRAF's imcombine.

    Of n inputs that count in N frames, ``int(n * nlow / N + 0.001)`` are rejected.
    """

    name: ClassVar[str] = "minmax"

    nlow: int = 1
    """How many of the lowest."""

    nhigh: int = 1
    """How many of the highest."""

    def check(self, count: int, flavor: str = "ccdproc") -> None:
        """Raise an error if nothing would be left of so many frames."""
        _check_counts(self.nlow, self.nhigh, count)

    def useless(self, count: int) -> str:
        """Return why it cannot reject: the counts are 0."""
        return "" if self.nlow or self.nhigh else "nlow and nhigh are 0"

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        loops.reject_counts(batch.values, int(self.nlow), int(self.nhigh), True, residual, batch.use)

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine."""
        return ImcombineRejection(kind="minmax", counts=(int(self.nlow), int(self.nhigh)))


@dataclass(frozen=True)
class Limits(Rejection):
    """Reject inputs below or above fixed values; ccdproc's ``minmax_clip``, and the thresholds of IRAF's imcombine."""

    name: ClassVar[str] = "limits"

    low: float | None = None
    """Lowest value that counts; None for no limit."""

    high: float | None = None
    """Highest value that counts; None for no limit."""

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        low = -math.inf if self.low is None else float(self.low)
        high = math.inf if self.high is None else float(self.high)
        reject_outside(batch.values, low, high, batch.use)
        if residual.size:
            # inputs that do not count may be infinite or NaN
            with np.errstate(invalid="ignore"):
                np.maximum(low - batch.values, batch.values - high, out=residual)


@dataclass(frozen=True)
class PercentileClip(Rejection):
    """Reject inputs by their distance from the median, in distances of one ranked value; ``pclip`` of IRAF's imcombine.

    It is done once. An input just at a limit is rejected, unlike in the other rules.
    """

    name: ClassVar[str] = "pclip"

    order: float = -0.5
    """Which ranked value gives the deviation: its number from the median, negative below it. Below 1, a fraction of half the
    frames."""

    low: float | None = 3.0
    """Deviations below the median; None for no limit."""

    high: float | None = 3.0
    """Deviations above the median."""

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_thresholds(self)
        if self.order == 0:
            raise ParameterError(
                f"order {self.order} of PercentileClip must not be 0: negative below the median, positive above it."
            )

    def useless(self, count: int) -> str:
        """Return why it cannot reject: there are too few frames."""
        return f"it needs 3 inputs and there are {count}" if count < 3 else ""

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        order = percentile_order(self.order, len(batch.values))
        loops.reject_percentile(batch.values, order, *_thresholds(self), residual, batch.use)

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine."""
        low, high = _thresholds(self)
        order = percentile_order(self.order, count)
        return ImcombineRejection(kind="pclip", low=low, high=high, about_median=True, order=order)


def percentile_order(order: float, count: int) -> float:
    """Return how many orders from the median imcombine's pclip lies: of half the frames if it is below 1.

    It is the same for all pixels, even where fewer inputs count (icombine.x).
    """
    half = count // 2
    order = order * half if abs(order) < 1 else order
    clamped = max(-half, min(-1, order)) if order < 0 else min(half, max(1, order))
    return float(int(clamped))


@dataclass(frozen=True)
class _Iterated(Rejection):
    """A rule whose loop is `lazyccd.kernels.stack.rejection.reject_iterated`, which repeats until nothing changes."""

    kind: ClassVar[int]
    """What the loop takes for the deviation of an input."""

    fewest: ClassVar[int] = 2
    """The loop rejects only where so many inputs count."""

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_thresholds(self)

    def useless(self, count: int) -> str:
        """Return why it cannot reject: there are too few frames."""
        return f"it needs {self.fewest} inputs and there {_are(count)}" if count < self.fewest else ""

    def noise_terms(self, count: int) -> Array:
        """Return the terms of each frame's noise; see `lazyccd.kernels.stack.types.Noise`."""
        return np.zeros((count, 3))

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        count = len(batch.values)
        loops.reject_iterated(
            self.kind,
            batch.values,
            # compiled loops have no None for arrays: one without elements stands for it
            batch.variances if self.needs_variance and batch.variances is not None else np.empty((0, 0)),
            np.ones(count) if batch.multipliers is None else batch.multipliers,
            np.zeros(count) if batch.offsets is None else batch.offsets,
            self.noise_terms(count),
            *_thresholds(self),
            residual,
            batch.use,
        )


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


@dataclass(frozen=True)
class _ByNoise(_Iterated):
    """A rule by IRAF's noise model: the variance ``(readnoise / gain)**2 + x / gain + (snoise * x)**2`` at the median x."""

    kind = loops.NOISE

    readnoise: Any = field(default=None, kw_only=True, metadata=QUIET)
    """In electrons: one number, one per frame, or a header keyword."""

    gain: Any = field(default=1.0, kw_only=True, metadata=QUIET)
    """Electrons per unit of the data; likewise."""

    snoise: Any = field(default=0.0, kw_only=True, metadata=QUIET)
    """Sensitivity noise, a fraction of the signal; likewise."""

    center: str = field(default="median", kw_only=True, metadata=QUIET)
    """``median``; in ``flavor="iraf"`` also ``mean``, as ``mclip=no``."""

    def check(self, count: int, flavor: str = "ccdproc") -> None:
        """Raise an error if there is no read noise, or the center needs IRAF's arithmetic."""
        _check_center(self, flavor)
        if self.readnoise is None:
            raise ParameterError(
                f"reject {self.name!r} needs the read noise; give readnoise= and gain= to {type(self).__name__}, as "
                "numbers or keywords."
            )

    def for_frames(self, given: Given) -> _ByNoise:
        """Return the rule with one read noise, gain and sensitivity noise for each frame."""
        # now and not in a task: a header without the keyword must fail before anything is computed
        gain, readnoise, snoise = (_one_per_frame(given, getattr(self, w), w) for w in ("gain", "readnoise", "snoise"))
        return replace(self, gain=gain, readnoise=readnoise, snoise=snoise)

    def of_frames(self, frames: Sequence[int]) -> _ByNoise:
        """Return the rule for some of the frames, of a rule that `for_frames` gave."""
        gain, readnoise, snoise = (tuple(n[i] for i in frames) for n in (self.gain, self.readnoise, self.snoise))
        return replace(self, gain=gain, readnoise=readnoise, snoise=snoise)

    def noise_terms(self, count: int) -> Array:
        """Return the terms of each frame's noise, of a rule that `for_frames` gave."""
        return Noise(self.readnoise, self.gain, self.snoise).terms

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine, whose crreject is a ccdclip without a lower limit."""
        low, high = _thresholds(self)
        noise = Noise(self.readnoise, self.gain, self.snoise)
        about_median = self.center == "median"
        return ImcombineRejection(kind="ccdclip", low=low, high=high, about_median=about_median, noise=noise)


def _one_per_frame(given: Given, spec: Any, what: str) -> tuple[float, ...]:
    """Return one number per frame, given or from headers; a gain must be above 0, others not below it."""
    count = len(given.images)
    if isinstance(spec, Keyword):
        spec = spec.name
    if isinstance(spec, str):
        numbers = tuple(given.header_number(i, spec.removeprefix("!")) for i in range(count))
    else:
        spec = getattr(spec, "value", spec)
        numbers = per_frame(np.full(count, spec) if np.ndim(spec) == 0 else spec, count, what)
    # a read noise of 0 is that of a simulation; a gain of 0 would divide
    if min(numbers) < 0 or (what == "gain" and min(numbers) == 0):
        raise ParameterError(f"{what} {list(numbers)} must be above 0.")
    return numbers


@dataclass(frozen=True)
class CCDClip(_ByNoise):
    """Reject inputs by the noise that a CCD has at the median of a pixel; ``ccdclip`` of IRAF's imcombine.

    The noise is that of each frame in its own level, before it was scaled.
    """

    name: ClassVar[str] = "ccdclip"

    low: float | None = 3.0
    """Deviations below the median beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Deviations above the median."""


@dataclass(frozen=True)
class CRReject(_ByNoise):
    """Reject high inputs alone, such as cosmic rays, as `CCDClip` does; ``crreject`` of IRAF's imcombine."""

    name: ClassVar[str] = "crreject"

    high: float | None = 3.0
    """Deviations above the median beyond which inputs are rejected."""


@dataclass(frozen=True)
class AvSigmaClip(_Iterated):
    """Reject inputs by a deviation that is found along each line, in proportion to the root of the level.

    ``avsigclip`` of IRAF's imcombine. The rule is for counts: levels below 1 count as 1, so that normalised flats have the
    same deviation everywhere.
    """

    name: ClassVar[str] = "avsigclip"
    whole_lines: ClassVar[bool] = True
    kind = loops.LINE
    fewest = 3

    low: float | None = 3.0
    """Deviations below the median beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Deviations above the median."""

    center: str = field(default="median", kw_only=True, metadata=QUIET)
    """``median``; in ``flavor="iraf"`` also ``mean``, as ``mclip=no``."""

    def check(self, count: int, flavor: str = "ccdproc") -> None:
        """Raise an error if the center needs IRAF's arithmetic."""
        _check_center(self, flavor)

    def imcombine(self, count: int) -> ImcombineRejection:
        """Return the rule in the terms of IRAF's imcombine."""
        low, high = _thresholds(self)
        return ImcombineRejection(kind="avsigclip", low=low, high=high, about_median=self.center == "median")


@dataclass(frozen=True)
class VarianceClip(_Iterated):
    """Reject inputs by their own variances, about the median; ``varclip`` of DRAGONS."""

    name: ClassVar[str] = "varclip"
    needs_variance: ClassVar[bool] = True
    kind = loops.VARIANCE

    low: float | None = 3.0
    """Deviations below the median beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Deviations above the median."""

    def for_frames(self, given: Given) -> VarianceClip:
        """Return the rule; raise ``ParameterError`` if a frame has no uncertainty, by which it could be judged."""
        for label, image in zip(given.labels, given.images, strict=True):
            if not image.has_variance:
                raise ParameterError(
                    f"reject {self.name!r} judges inputs by their uncertainties, and {label} has none; make them with "
                    "create_deviation, or choose another rejection."
                )
        return self


@dataclass(frozen=True)
class Winsorized(_Iterated):
    """Reject inputs by the deviation of clamped values, about the median; winsorized sigma clipping of Siril.

    Values are clamped at 1.5 deviations from the median, again and again, until the deviation has settled. Rejection stops
    when 4 inputs are left.
    """

    name: ClassVar[str] = "winsorized"
    kind = loops.WINSORIZED
    fewest = loops.FEWEST_FITTED + 1

    low: float | None = 3.0
    """Deviations below the median beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Deviations above the median."""


@dataclass(frozen=True)
class LinearFit(_Iterated):
    """Reject inputs by their mean distance from a line through the sorted values; linear-fit clipping of Siril.

    Rejection stops when 4 inputs are left.
    """

    name: ClassVar[str] = "linearfit"
    kind = loops.LINEAR
    fewest = loops.FEWEST_FITTED + 1

    low: float | None = 3.0
    """Mean distances below the line beyond which inputs are rejected; None for no limit."""

    high: float | None = 3.0
    """Mean distances above the line."""


@dataclass(frozen=True)
class Clipped(Rejection):
    """Reject inputs that are off the median by more than their noise and a share of the median; after ``CLIPPED`` of SWarp.

    An input may be off by ``sigma`` of its own standard deviations and ``fraction`` of the median (Gruen et al. 2014, PASP 126,
    158). Stars are sharper in one frame than in the next: with a seeing of 1 to 2 arcseconds the middle of a star is four times
    as bright in the best frame as in the worst, and 0.3 of the median would cut it. So where the median is that of a source,
    the fraction is ``source``. What is rejected must lie apart from the other inputs too: behind a gap of half of ``sigma``
    deviations and ``fraction`` of the next value, for sources ``sigma`` deviations and all of it. It is done once, where at least 4
    inputs count.

    In `lazyccd.coadd` all of this is about what is above the sky of each frame. In `lazyccd.combine` frames must have no sky left, of
    which a fraction would be allowed too.
    """

    name: ClassVar[str] = "clipped"
    needs_variance: ClassVar[bool] = True
    needs_skies: ClassVar[bool] = True
    fewest: ClassVar[int] = 4

    sigma: float = 4.0
    """Standard deviations that an input may be off; of frames without uncertainties, those of their sky in a mosaic, and else 1.4826
    times the median distance from the median."""

    fraction: float = 0.3
    """Fraction of the median that it may be off besides."""

    source: float = 3.0
    """The fraction where the median is more than ``sigma`` standard deviations above 0."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("sigma", "fraction", "source"):
            number = getattr(self, what)
            if not 0 <= number < math.inf:
                raise ParameterError(f"{what} {number} of {type(self).__name__} must be a number that is not below 0.")

    def useless(self, count: int) -> str:
        """Return nothing: of fewer than 4 frames all are used, which is what the rule is for."""
        return ""

    def for_frames(self, given: Given) -> Clipped:
        """Return the rule for frames with uncertainties, or for those of which one has none."""
        if all(image.has_variance for image in given.images):
            return self
        return _ClippedByScatter(self.sigma, self.fraction, self.source)

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        values, variances = batch.values, np.empty((0, 0))
        if batch.skies is not None:
            # that of few inputs would be of no use: one in ten of five good ones is beyond 4 of their median distances
            values, variances = values - batch.skies[:, :1], batch.skies[:, 1:]
        if self.needs_variance and batch.variances is not None:
            variances = batch.variances
        loops.reject_clipped(
            values, variances, self.sigma, self.fraction, self.source, self.fewest, residual, batch.use
        )


@dataclass(frozen=True)
class _ClippedByScatter(Clipped):
    """`Clipped` for frames without uncertainties."""

    needs_variance: ClassVar[bool] = False


@dataclass(frozen=True)
class GESDT(Rejection):
    """Reject outliers by the generalised extreme Studentised deviate test (Rosner 1983, Technometrics 25, 165)."""

    name: ClassVar[str] = "gesdt"

    fraction: float = 0.3
    """Largest fraction of outliers."""

    significance: float = 0.05
    """Probability of a false one."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.fraction <= 0.5 or not 0 < self.significance < 1:
            raise ParameterError(
                f"fraction {self.fraction} must be in 0 ... 0.5 and significance {self.significance} between 0 and 1."
            )

    def useless(self, count: int) -> str:
        """Return why it cannot reject: the fraction of the frames is less than one."""
        return (
            ""
            if critical_values(count, self.fraction, self.significance)[count]
            else (f"the fraction of {count} inputs is none")
        )

    def reject(self, batch: PixelBatch, residual: Array) -> None:
        """Clear ``batch.use`` where an input is rejected."""
        rows = critical_values(len(batch.values), self.fraction, self.significance)
        # padded with infinity, where the loop stops: compiled loops have no ragged tables
        width = max(map(len, rows))
        table = np.array([row + (math.inf,) * (width - len(row)) for row in rows]).reshape(len(rows), width)
        loops.reject_gesdt(batch.values, table, residual, batch.use)


@lru_cache(maxsize=16)
def critical_values(count: int, fraction: float, significance: float) -> tuple[tuple[float, ...], ...]:
    """Return for each number of inputs the critical values of the generalised extreme Studentised deviates (Rosner 1983).

    They are kept, as every batch of a stack asks for the same ones.
    """
    # not scipy.stats, which takes seconds to import (tests/test_architecture.py)
    from scipy.special import stdtrit

    table = []
    for n in range(count + 1):
        row = []
        for i in range(1, int(n * fraction) + 1):
            # Student's distribution needs a degree of freedom
            if n - i - 1 < 1:
                break
            t = float(stdtrit(n - i - 1, 1 - significance / (2 * (n - i + 1))))
            row.append((n - i) * t / math.sqrt((n - i - 1 + t * t) * (n - i + 1)))
        table.append(tuple(row))
    return tuple(table)


RULES: dict[str, type[Rejection]] = {
    rule.name: rule
    for rule in (
        SigmaClip,
        AvSigmaClip,
        MinMax,
        CCDClip,
        CRReject,
        VarianceClip,
        PercentileClip,
        Winsorized,
        LinearFit,
        Clipped,
        GESDT,
        Extrema,
        Limits,
    )
}
"""All rules by name: a name stands for its rule with the defaults."""

IN_IMCOMBINE = ("sigclip", "avsigclip", "ccdclip", "crreject", "minmax", "pclip")
"""Rules that IRAF's imcombine has."""


def rule_of(reject: Rejection | str | None, given: Given, flavor: str) -> Rejection | None:
    """Return the rule that ``reject=`` means, checked, with what it takes from the frames' headers."""
    if reject is None:
        return None
    if isinstance(reject, str):
        if reject not in RULES:
            raise ParameterError(f"reject {reject!r} must be None or one of {', '.join(RULES)}.")
        reject = RULES[reject]()
    if not isinstance(reject, Rejection):
        raise ArgumentTypeError(
            f"reject {reject!r} must be None, a name, or a rule of lazyccd.rejection such as SigmaClip(low=3, high=3)."
        )
    count = len(given.images)
    # before headers are read: what is wrong with the rule itself is the better message
    reject.check(count, flavor)
    warn_if_useless(reject, count)
    return reject.for_frames(given)


def warn_if_useless(rule: Rejection, count: int) -> None:
    """Warn if a rule cannot reject anything from so many frames, however far off a value is."""
    why = rule.useless(count)
    if not why:
        return
    # no error: a script that stacks whatever a night has must not fail on its three frames
    warn(
        f"rejection {rule.name!r} rejects nothing: {why}; use SigmaClip(deviation='mad_std'), CCDClip with the read noise, or "
        "a lower threshold.",
        UselessRejectionWarning,
    )


def clips_of(*clips: Rejection | None, count: int) -> tuple[Rejection, ...]:
    """Return ccdproc's clips that are wanted, in its order, checked; with a warning for those that reject nothing."""
    wanted = tuple(clip for clip in clips if clip is not None)
    for clip in wanted:
        clip.check(count)
        warn_if_useless(clip, count)
    return wanted


def ccdproc_sigma_clip(
    low: float | None, high: float | None, center: str | Callable[..., Any], deviation: str | Callable[..., Any]
) -> SigmaClip:
    """Return ccdproc's sigma clip, which is done once.

    Parameters
    ----------
    low, high
        ``sigma_clip_low_thresh`` and ``sigma_clip_high_thresh``: None is no limit; negative ones count as positive.
    center, deviation
        ``sigma_clip_func`` and ``sigma_clip_dev_func``, by name or as NumPy's or astropy's function.
    """
    return SigmaClip(
        low=_ccdproc_threshold(low, "sigma_clip_low_thresh"),
        high=_ccdproc_threshold(high, "sigma_clip_high_thresh"),
        center=statistic_name(center, CENTERS, "sigma_clip_func"),
        deviation=statistic_name(deviation, DEVIATIONS, "sigma_clip_dev_func"),
        iterations=1,
    )


def _ccdproc_threshold(threshold: float | None, what: str) -> float | None:
    """Return a threshold of clipping; as ccdproc documents it, negative ones count as positive."""
    if threshold is None:
        return None
    # ccdproc takes 0 for its default of 3; here it would reject all but the center (docs/deviations.md)
    if not abs(threshold) > 0:
        raise ParameterError(f"{what} {threshold} must be greater than 0, or None for no limit.")
    return abs(float(threshold))


def statistic_name(given: str | Callable[..., Any], known: dict[str, str], what: str) -> str:
    """Return the name of a statistic that the kernels know."""
    name = given if isinstance(given, str) else str(getattr(given, "__name__", given))
    package = "" if isinstance(given, str) else str(getattr(given, "__module__", "") or type(given).__module__)
    # a function of the user's own that happens to be called median must not be replaced in silence; bottleneck's are what
    # ccdproc takes by default where it is installed
    if name in known and package.partition(".")[0] in {"", "numpy", "astropy", "bottleneck", "ccdproc"}:
        return known[name]
    names = ", ".join(map(repr, dict.fromkeys(known.values())))
    raise ParameterError(f"{what} {given!r} must be {names}, or the function of NumPy or astropy of that name.")


def check_imcombine(clips: tuple[Rejection, ...], weights: Any) -> None:
    """Refuse what imcombine does not have, besides rules; see `Rejection.imcombine`."""
    for clip in clips:
        # imcombine's lthreshold and hthreshold are all that it does before scaling
        if not isinstance(clip, Limits):
            raise ParameterError(
                f"flavor='iraf' has no {clip.name!r} before scaling; use minmax_clip, or reject= with one of "
                f"{', '.join(IN_IMCOMBINE)}."
            )
    if isinstance(weights, str) and weights in {"variance", "smoothed", "pixel"}:
        raise ParameterError(f"flavor='iraf' has no weights={weights!r}; give numbers, !KEY or exposure.")
