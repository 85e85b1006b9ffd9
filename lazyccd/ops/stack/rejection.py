"""Which inputs of a stack are rejected: from a caller's words to clips, and a warning where one can reject nothing."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from lazyccd.errors import ParameterError
from lazyccd.frame.header import header_view
from lazyccd.kernels.stack.rejection import FEWEST_FITTED
from lazyccd.kernels.stack.types import Clip, Rule
from lazyccd.ops.stack.inputs import Given

CENTRES = {"mean": "mean", "nanmean": "mean", "median": "median", "nanmedian": "median"}
DEVIATIONS = {"std": "std", "nanstd": "std", "mad_std": "mad_std"}
"""What names, and names of functions of NumPy and astropy, mean."""

REJECTS = (
    "sigclip",
    "avsigclip",
    "minmax",
    "ccdclip",
    "crreject",
    "varclip",
    "pclip",
    "winsorized",
    "linearfit",
    "gesdt",
)
"""What ``reject=`` can be."""

IRAF_CLIPS = ("sigma", "avsigclip", "ccdclip", "minmax", "pclip")
"""Clips that imcombine has; crreject is a ccdclip."""

BY_NOISE = {"ccdclip", "crreject"}
"""Those that need gain and read noise."""


class UselessRejectionWarning(UserWarning):
    """A rejection that cannot reject anything, whatever the values."""


@dataclass(frozen=True)
class Rejection:
    """The settings of ``reject=``."""

    name: str | None = None
    low: float | None = 3.0
    high: float | None = 3.0
    centre: str = "median"
    deviation: str = "std"
    iterations: int | None = None
    nlow: int = 1
    nhigh: int = 1
    pclip: float = -0.5
    fraction: float = 0.3
    significance: float = 0.05

    def clip(self, count: int) -> Clip | None:
        """Return the clip for so many frames.

        Raises
        ------
        ParameterError
            Raised if a setting cannot be used.
        """
        if self.name is None or self.name == "none":
            return None
        if self.name not in REJECTS:
            raise ParameterError(f"reject {self.name!r} must be None or one of {', '.join(REJECTS)}.")
        low, high = _threshold(self.low, "low"), _threshold(self.high, "high")
        limits = (math.inf if low is None else low, math.inf if high is None else high)
        if self.name == "sigclip":
            return "sigma", (*_statistics(self.centre, self.deviation), low, high, self.iterations)
        if self.name == "minmax":
            return "minmax", counts_of(self.nlow, self.nhigh, count)
        if self.name == "pclip":
            return "pclip", (percentile_order(self.pclip, count), *limits)
        if self.name == "gesdt":
            return "gesdt", critical_values(count, self.fraction, self.significance)
        if self.name == "crreject":
            return "ccdclip", (math.inf, limits[1])
        return self.name, limits


def ccdproc_clips(
    extrema: tuple[int, int] | None,
    limits: tuple[float | None, float | None] | None,
    sigma: tuple[float | None, float | None, Any, Any] | None,
    count: int,
) -> tuple[Clip, ...]:
    """Return ccdproc's clips, in its order."""
    clips: list[Clip] = []
    if extrema is not None:
        clips.append(("extrema", counts_of(*extrema, count)))
    if limits is not None:
        clips.append(("limits", tuple(None if limit is None else float(limit) for limit in limits)))
    if sigma is not None:
        low, high, centre, deviation = sigma
        names = (
            _function(centre, CENTRES, "sigma_clip_func"),
            _function(deviation, DEVIATIONS, "sigma_clip_dev_func"),
        )
        thresholds = (_threshold(low, "sigma_clip_low_thresh"), _threshold(high, "sigma_clip_high_thresh"))
        clips.append(("sigma", (*names, *thresholds, 1)))
    return tuple(clips)


def _statistics(centre: str, deviation: str) -> tuple[str, str]:
    return _function(centre, CENTRES, "centre"), _function(deviation, DEVIATIONS, "deviation")


def counts_of(nlow: int, nhigh: int, count: int) -> tuple[int, int]:
    """Return how many of the lowest and highest values are rejected."""
    if nlow < 0 or nhigh < 0 or nlow + nhigh >= count:
        raise ParameterError(
            f"nlow {nlow} and nhigh {nhigh} must not be negative, and leave one of {count} frames; lower them."
        )
    return int(nlow), int(nhigh)


def percentile_order(pclip: float, count: int) -> float:
    """Return how many orders from the median imcombine's pclip lies: of half the frames if it is below 1."""
    if pclip == 0:
        raise ParameterError("pclip 0 must not be 0: negative below the median, positive above it.")
    half = count // 2
    order = pclip * half if abs(pclip) < 1 else pclip
    clamped = max(-half, min(-1, order)) if order < 0 else min(half, max(1, order))
    return float(int(clamped))


def critical_values(count: int, fraction: float, significance: float) -> tuple[tuple[float, ...], ...]:
    """Return for each number of inputs the critical values of the generalised extreme Studentised deviates (Rosner 1983)."""
    if not 0 < fraction <= 0.5 or not 0 < significance < 1:
        raise ParameterError(
            f"fraction {fraction} must be in 0 ... 0.5 and significance {significance} between 0 and 1."
        )
    table = []
    for n in range(count + 1):
        row = []
        for i in range(1, int(n * fraction) + 1):
            if n - i - 1 < 1:
                break
            t = float(stdtrit(n - i - 1, 1 - significance / (2 * (n - i + 1))))
            row.append((n - i) * t / math.sqrt((n - i - 1 + t * t) * (n - i + 1)))
        table.append(tuple(row))
    return tuple(table)


def uncertainty_name(uncertainty: str | None, function: str | Callable[..., Any] | None, given: Given) -> str:
    """Return the name of what a result's uncertainty is made from."""
    missing = [label for label, image in zip(given.labels, given.images, strict=True) if not image.has_variance]
    if uncertainty is None:
        uncertainty = "ccdproc" if missing or function is not None else "propagated"
    if uncertainty not in {"propagated", "scatter", "ccdproc"}:
        raise ParameterError(f"uncertainty {uncertainty!r} must be None, propagated, scatter or ccdproc.")
    if uncertainty == "propagated" and missing:
        raise ParameterError(
            f"{missing[0]} has no uncertainty to propagate; make one with create_deviation, or use uncertainty='scatter'."
        )
    if function is None or uncertainty != "ccdproc":
        return uncertainty
    known = {**DEVIATIONS, "sigma_func": "mad_std"}
    return f"ccdproc_{_function(function, known, 'combine_uncertainty_function')}"


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
    if name in known and package.partition(".")[0] in {"", "numpy", "astropy", "bottleneck", "ccdproc"}:
        return known[name]
    names = ", ".join(map(repr, dict.fromkeys(known.values())))
    raise ParameterError(f"{what} {given!r} must be {names}, or the function of NumPy or astropy of that name.")


def warn_if_useless(clip: Clip, count: int) -> None:
    """Warn if a clip cannot reject anything from so many frames, however far off a value is."""
    name, settings = clip
    most = math.inf
    if name == "sigma" and settings[1] == "std":
        # with one value far off: about the mean and about the median, in deviations of n
        most = math.sqrt(count - 1) if settings[0] == "mean" else count / math.sqrt(max(count - 1, 1))
        if count < 3:
            most = 1.0
        limits = [limit for limit in settings[2:4] if limit is not None]
        if limits and min(limits) >= most:
            _warn(f"no value of {count} can be {min(limits):g} standard deviations off; the most is {most:.2f}", clip)
    elif name in {"winsorized", "linearfit"} and count <= FEWEST_FITTED:
        _warn(f"it stops at {FEWEST_FITTED} inputs and there are {count}", clip)
    elif name in {"avsigclip", "pclip"} and count < 3:
        _warn(f"it needs 3 inputs and there are {count}", clip)
    elif name in {"ccdclip", "varclip"} and count < 2:
        _warn("there is one frame", clip)
    elif name == "gesdt" and not settings[count]:
        _warn(f"the fraction of {count} inputs is none", clip)
    elif name == "minmax" and not any(int(count * n / count + 0.001) for n in settings):
        _warn("nlow and nhigh are 0", clip)


def shown_name(name: str) -> str:
    """Return how users call a clip."""
    return "sigclip" if name == "sigma" else name


def _warn(why: str, clip: Clip) -> None:
    warnings.warn(
        f"rejection {shown_name(clip[0])!r} rejects nothing: {why}; use deviation='mad_std', ccdclip with the read noise, or a lower "
        "threshold.",
        UselessRejectionWarning,
        stacklevel=4,
    )


def frames_at_least(nkeep: int, count: int) -> int:
    """Return how many inputs are kept, after checking it."""
    if abs(nkeep) > count:
        raise ParameterError(f"nkeep {nkeep} must not be above the number of frames, {count}.")
    return int(nkeep)


def check_grow(grow: float) -> float:
    """Return the radius by which rejections grow."""
    if not 0 <= grow < np.inf:
        raise ParameterError(f"grow {grow} must be 0 or a radius in pixels.")
    return float(grow)


def check_iraf(clips: tuple[Clip, ...], rejecting: Clip | None, weights: Any) -> None:
    """Refuse what imcombine does not have."""
    others = [name for name, _ in clips if name != "limits"]
    if rejecting is not None and rejecting[0] not in IRAF_CLIPS:
        others.append(rejecting[0])
    if rejecting is not None and rejecting[0] == "sigma" and (rejecting[1][1] != "std" or rejecting[1][4] is not None):
        raise ParameterError(
            "sigclip of flavor='iraf' has deviation='std' and no number of iterations; leave them out."
        )
    if others:
        raise ParameterError(f"flavor='iraf' has no {others[0]!r}; use minmax_clip or one of {', '.join(IRAF_CLIPS)}.")
    if isinstance(weights, str) and weights in {"variance", "smoothed", "pixel"}:
        raise ParameterError(f"flavor='iraf' has no weights={weights!r}; give numbers, !KEY or exposure.")


def as_iraf(rule: Rule, given: Given, centre: str) -> Rule:
    """Return a rule that is carried out as imcombine does."""
    name = "" if rule.reject is None else rule.reject[0]
    about_median = name == "pclip" or (name in {"sigma", "avsigclip", "ccdclip"} and CENTRES.get(centre) == "median")
    counts = []
    for image in given.images:
        number = header_view(image.header).get("NCOMBINE", 1)
        counts.append(number if isinstance(number, int) else 1)
    return replace(rule, flavor="iraf", about_median=about_median, ncombine=tuple(counts), work="float32")
