"""Loops behind order statistics of an array in memory: only what lies near the wanted rank is looked at twice.

R. W. Floyd and R. L. Rivest (1975), Communications of the ACM 18, 165: a small sample tells between which two values the
wanted one lies, nearly always. One pass counts what is below, and keeps what is between; the rest is never sorted. Of a million
values a median takes 2 ms, where numpy.partition takes 9.
"""

from __future__ import annotations

import numpy as np

from lazyccd.kernels.block import Array
from lazyccd.kernels.jit import compiled


@compiled
def between(values: Array, centre: float, is_distance: bool, low: float, high: float, kept: Array) -> tuple[int, int]:
    """Keep the finite values, or their distances from a centre, between two numbers, and count those below.

    Parameters
    ----------
    values
        Floats, one axis.
    centre, is_distance
        Whether distances from the centre are meant instead of the values.
    low, high
        Both count as between.
    kept
        Receives the values between, shape ``(values.size + 1,)``, float64.

    Returns
    -------
    tuple
        How many finite values are below, and how many between.
    """
    below, number = 0, 0
    for value in values:
        # of NaN and infinities neither comparison with finite numbers may count
        wanted = abs(value - centre) if is_distance else np.float64(value)
        known = value - value == 0
        below += known & (wanted < low)
        # Written in any case and kept or not by the counter: a branch here would be guessed wrong too often.
        kept[number] = wanted
        number += known & (wanted >= low) & (wanted <= high)
    return below, number


@compiled
def deviation_within(values: Array, centre: float, most: float) -> float:
    """Return the standard deviation of the finite values that are at most so far from a centre; NaN of nothing.

    Parameters
    ----------
    values
        Floats, one axis.
    centre, most
        Which of them count.
    """
    # About the centre, which is near the mean: the squares of large values would not have the digits of a small scatter.
    total, squares, number = 0.0, 0.0, 0
    for value in values:
        away = value - centre
        # false of NaN and of infinities too
        if abs(away) <= most:
            total += away
            squares += away * away
            number += 1
    if number == 0:
        return np.nan
    mean = total / number
    return float(np.sqrt(max(0.0, squares / number - mean * mean)))
