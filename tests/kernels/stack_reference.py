"""A slow, readable combination of one pixel: plain Python, one rule after the other, as the documents define them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

from lazyccd.kernels.stack.combine import median_factor
from lazyccd.kernels.stack.scaling import find_scaling
from lazyccd.kernels.stack.types import Rule
from lazyccd.mask_planes import MaskSchema
from lazyccd.ops.stack.rejection import critical_values, percentile_order

SCHEMA = MaskSchema()
BITS = {name: SCHEMA.bits(name) for name in SCHEMA.names}
CLASSES = (("INTERP",), ("SAT",), ("CR", "LOW_FLAT"), ("BAD",), ("NO_DATA",))
MAD = 1.482602218505602

Values = dict[int, float]
"""Inputs that count, by frame."""

Off = dict[int, float]
"""Inputs to reject, and how far off they are."""


def median(values: Values) -> float:
    """Return the median."""
    return statistics.median(values.values())


def mean(values: Values) -> float:
    """Return the mean, summed in the order of the frames."""
    return sum(values[i] for i in sorted(values)) / len(values)


def mad(values: Values) -> float:
    """Return the median distance from the median."""
    middle = median(values)
    return statistics.median([abs(v - middle) for v in values.values()])


def std(values: Values) -> float:
    """Return the standard deviation of n."""
    center = mean(values)
    return math.sqrt(sum((values[i] - center) ** 2 for i in sorted(values)) / len(values))


def order(values: Values) -> list[int]:
    """Return frames from the lowest value to the highest, equal ones in the order of the frames."""
    return sorted(values, key=lambda i: (values[i], i))


def ratio(a: float, b: float) -> float:
    """Return a quotient, infinite where there is nothing to divide by."""
    return a / b if b else math.inf


def limits(values: Values, rule: Any, _: Any) -> Off:
    """Reject values outside of two limits."""
    low, high = (-math.inf if rule.low is None else rule.low, math.inf if rule.high is None else rule.high)
    return {i: max(low - v, v - high) for i, v in values.items() if v < low or v > high}


def sigma(values: Values, rule: Any, _: Any) -> Off:
    """Reject values so many deviations from the center, iterated."""
    low, high, iterations = rule.low, rule.high, rule.iterations
    left, off = dict(values), {}
    while left and (iterations is None or iterations > 0):
        center = mean(left) if rule.center == "mean" else median(left)
        deviation = std(left) if rule.deviation == "std" else MAD * mad(left)
        lowest = -math.inf if low is None else center - low * deviation
        highest = math.inf if high is None else center + high * deviation
        out = [i for i, v in left.items() if v < lowest or v > highest]
        for i in out:
            off[i] = ratio(abs(left.pop(i) - center), deviation)
        if not out:
            break
        iterations = None if iterations is None else iterations - 1
    return off


def extrema(values: Values, rule: Any, _: Any) -> Off:
    """Reject the lowest and the highest values."""
    return by_number(values, rule.nlow, rule.nhigh)


def by_number(values: Values, nlow: int, nhigh: int) -> Off:
    """Reject so many of the lowest and the highest values."""
    ranked = order(values)
    n = len(ranked)
    return {i: abs(values[i] - median(values)) for k, i in enumerate(ranked) if k < nlow or k >= n - nhigh}


def minmax(values: Values, rule: Any, more: Any) -> Off:
    """As extrema, in proportion to how many count."""
    n = len(values)
    return by_number(values, *(int(n * s / more["count"] + 0.001) for s in (rule.nlow, rule.nhigh)))


def pclip(values: Values, rule: Any, more: Any) -> Off:
    """Reject by the distance of one order from the median."""
    pclip_order, low, high = percentile_order(rule.order, more["count"]), *thresholds(rule)
    n = len(values)
    if n < 3:
        return {}
    middle = 1 + n // 2
    if pclip_order < 0:
        rank = max(1, math.floor(middle - (1 if n % 2 == 0 else 0) + pclip_order + 0.5))
    else:
        rank = min(n, math.floor(middle + pclip_order + 0.5))
    center = median(values)
    deviation = math.copysign(1, pclip_order) * (sorted(values.values())[rank - 1] - center)
    if deviation == 0:
        return {}
    return {
        i: abs((v - center) / deviation)
        for i, v in values.items()
        if (center - v) / deviation >= low or (v - center) / deviation >= high
    }


def thresholds(rule: Any) -> tuple[float, float]:
    """Return the thresholds of a rule, infinite for none."""
    low, high = getattr(rule, "low", None), rule.high
    return math.inf if low is None else low, math.inf if high is None else high


def gesdt(values: Values, rule: Any, more: Any) -> Off:
    """Reject by generalised extreme Studentised deviates."""
    left, ranked = dict(values), []
    last = 0
    critical = critical_values(more["count"], rule.fraction, rule.significance)[len(values)]
    for step, value in enumerate(critical):
        if len(left) < 3:
            break
        center = sum(left[i] for i in sorted(left)) / len(left)
        worst = max(sorted(left), key=lambda i: abs(left[i] - center))
        squares = sum((left[i] - center) ** 2 for i in sorted(left))
        if squares == 0:
            break
        off = abs(left.pop(worst) - center) / math.sqrt(squares / len(left))
        ranked.append((worst, off))
        if off > value:
            last = step + 1
    return dict(ranked[:last])


def iterated(fewest: int, judge: Callable[[Values, Any], dict[int, tuple[float, float]]]) -> Callable[..., Off]:
    """Reject by an expected value and a deviation of each input until nothing changes."""

    def clip(values: Values, rule: Any, more: Any) -> Off:
        low, high = thresholds(rule)
        more = more | {"rule": rule}
        left, off = dict(values), {}
        while len(left) >= fewest:
            judged = judge(left, more)
            out = {}
            for i, (expected, deviation) in judged.items():
                distance = left[i] - expected
                if distance < -low * deviation or distance > high * deviation:
                    out[i] = ratio(abs(distance), deviation)
            for i in out:
                del left[i]
            off |= out
            if not out:
                break
        return off

    return clip


def by_noise(left: Values, more: Any) -> dict[int, tuple[float, float]]:
    """Judge by a noise model at the median."""
    center, rule = median(left), more["rule"]
    judged = {}
    for i in left:
        a, b, c = (rule.readnoise[i] / rule.gain[i]) ** 2, 1 / rule.gain[i], rule.snoise[i] ** 2
        x = max(0.0, (center - more["offsets"][i]) / more["multipliers"][i])
        judged[i] = (center, abs(more["multipliers"][i]) * math.sqrt(a + x * b + x * x * c))
    return judged


def by_variance(left: Values, more: Any) -> dict[int, tuple[float, float]]:
    """Judge by given variances."""
    return {i: (median(left), math.sqrt(more["variances"][i])) for i in left}


def winsorized(left: Values, _: Any) -> dict[int, tuple[float, float]]:
    """Judge by a winsorized deviation."""
    values = sorted(left.values())
    center, deviation, factor = median(left), math.inf, 1.0
    for _k in range(100):
        lowest, highest = center - 1.5 * deviation, center + 1.5 * deviation
        clamped = [min(max(v, lowest), highest) for v in values]
        middle = sum(clamped) / len(clamped)
        new = factor * math.sqrt(sum((v - middle) ** 2 for v in clamped) / (len(clamped) - 1))
        settled = deviation < math.inf and abs(new - deviation) <= 0.0005 * deviation
        deviation, factor = new, 1.134
        if settled:
            break
    return dict.fromkeys(left, (center, deviation))


def linear(left: Values, _: Any) -> dict[int, tuple[float, float]]:
    """Judge by a line through the sorted values."""
    ranked = order(left)
    n = len(ranked)
    middle, center = 0.5 * (n - 1), sum(left[i] for i in ranked) / n
    covariance = sum((k - middle) * (left[i] - center) for k, i in enumerate(ranked))
    slope = covariance / sum((k - middle) ** 2 for k in range(n))
    expected = {i: center + slope * (k - middle) for k, i in enumerate(ranked)}
    deviation = sum(abs(left[i] - expected[i]) for i in ranked) / n
    return {i: (expected[i], deviation) for i in ranked}


def clipped(values: Values, rule: Any, more: Any) -> Off:
    """Reject by noise and a share of the median, behind a gap, once."""
    if len(values) < 4:
        return {}
    center, ranked = median(values), order(values)
    scatter = 1.482602218505602 * mad(values)

    def noise(i: int) -> float:
        return math.sqrt(more["variances"][i]) if rule.needs_variance else scatter

    is_source = center > rule.sigma * noise(ranked[len(ranked) // 2])
    share, gap, times = (rule.source, 1.0, 1.0) if is_source else (rule.fraction, rule.fraction, 0.5)
    n, off = len(ranked), {}
    for first, side in ((ranked[(n + 1) // 2 - 1], ranked[(n + 1) // 2 :]), (ranked[n // 2], ranked[: n // 2][::-1])):
        behind, before = False, values[first]
        for i in side:
            behind = behind or abs(values[i] - before) > times * rule.sigma * noise(i) + gap * abs(before)
            allowed = rule.sigma * noise(i) + share * abs(center)
            if behind and abs(values[i] - center) > allowed:
                off[i] = ratio(abs(values[i] - center), allowed)
            before = values[i]
    return off


CLIPS: dict[str, Callable[[Values, Any, Any], Off]] = {
    "limits": limits,
    "sigclip": sigma,
    "extrema": extrema,
    "minmax": minmax,
    "pclip": pclip,
    "gesdt": gesdt,
    "ccdclip": iterated(2, by_noise),
    "crreject": iterated(2, by_noise),
    "varclip": iterated(2, by_variance),
    "winsorized": iterated(5, winsorized),
    "linearfit": iterated(5, linear),
    "clipped": clipped,
}


def keep_some(values: Values, off: Off, nkeep: int) -> Off:
    """Restore the inputs that are least off, equal ones together."""
    kept = min(len(values), nkeep) if nkeep > 0 else max(0, len(values) + nkeep)
    off = dict(off)
    while len(values) - len(off) < kept and nkeep != 0:
        least = min(off.values())
        off = {i: distance for i, distance in off.items() if distance > least}
    return off


def worst_class(bits: int) -> int:
    """Return the worst class of a bad input."""
    return max(k for k, names in enumerate(CLASSES) if bits & SCHEMA.bits(*names) & SCHEMA.bad_bits)


def combine_pixel(values: list[float], bits: list[int], variances: list[float], rule: Rule) -> dict[str, Any]:
    """Combine one pixel; return data, variance, mask, and which frames were used and which rejected."""
    bits = [b if math.isfinite(v) else b | BITS["NO_DATA"] for v, b in zip(values, bits, strict=True)]
    good = [i for i, b in enumerate(bits) if not b & rule.masks.bad]
    left, all_bad = list(good), not good
    if all_bad:
        least = min(worst_class(b) for b in bits)
        left = [i for i, b in enumerate(bits) if worst_class(b) == least < 4]
    scaling = find_scaling(rule.levels, rule.count, {})
    scaled = [v * m + z for v, m, z in zip(values, scaling.multipliers, scaling.offsets, strict=True)]
    spread = [v * m**2 for v, m in zip(variances, scaling.multipliers, strict=True)]
    more = {
        "count": rule.count,
        "variances": spread,
        "multipliers": scaling.multipliers,
        "offsets": scaling.offsets,
    }
    if not all_bad:
        for clip in rule.rejecting.clips:
            off = CLIPS[clip.name]({i: values[i] for i in left}, clip, more) if left else {}
            left = [i for i in left if i not in off]
        reject = rule.rejecting.reject
        if reject is not None and left:
            counted = {i: scaled[i] for i in left}
            off = keep_some(counted, CLIPS[reject.name](counted, reject, more), rule.rejecting.nkeep)
            left = [i for i in left if i not in off]
    rejected = [] if all_bad else [i for i in good if i not in left]
    return combine_left(scaled, bits, spread, rule, scaling.weights.tolist(), left, rejected)


def combine_left(
    values: list[float],
    bits: list[int],
    variances: list[float],
    rule: Rule,
    given: list[float],
    left: list[int],
    rejected: list[int],
) -> dict[str, Any]:
    """Combine the inputs that were not rejected."""
    mask = 0
    for i in left:
        mask |= bits[i]
    weights = [1.0] * len(values) if rule.method == "median" else given
    lost = sum(weights[i] for i in range(len(values)) if i not in left and bits[i] & BITS["SAT"])
    has_data = [bool(b & BITS["SAT"]) or not b & BITS["NO_DATA"] for b in bits]
    total = sum(w for w, one in zip(weights, has_data, strict=True) if one)
    mask |= BITS["CLIPPED"] * bool(rejected) | BITS["SAT"] * (lost > 0.1 * total)
    out = {"used": left, "rejected": rejected, "mask": mask}
    if not left:
        data = 0.0 if rule.method == "sum" else math.nan
        return out | {"mask": mask | BITS["NO_DATA"], "data": data, "variance": math.nan}
    x, w, n = [values[i] for i in left], [weights[i] for i in left], len(left)
    total = sum(a * b for a, b in zip(w, x, strict=True))
    data = {"average": total / sum(w), "sum": total, "median": statistics.median(x)}[rule.method]
    counted = dict(enumerate(x))
    if rule.uncertainty == "ccdproc":
        each = {"average": std(counted) / n**0.5, "sum": std(counted) * n**0.5, "median": MAD * mad(counted) / n**0.5}
        return out | {"data": data, "variance": each[rule.method] ** 2}
    v = [statistics.variance(x) if n > 1 else math.nan] * n
    if rule.uncertainty == "propagated":
        v = [variances[i] for i in left]
    weighted = sum(a * a * b for a, b in zip(w, v, strict=True))
    variance = {"average": weighted / sum(w) ** 2, "sum": weighted, "median": sum(v) / n**2 * median_factor(n)}
    return out | {"data": data, "variance": variance[rule.method]}
