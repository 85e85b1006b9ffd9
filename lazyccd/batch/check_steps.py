"""Checks of a frame while it is calibrated: on a central area of it, before anything is written."""

from __future__ import annotations

import numpy as np
import xarray as xr

from lazyccd.batch import checks
from lazyccd.batch.measure import central_region
from lazyccd.batch.metadata import Facts
from lazyccd.batch.night_plan import Choice, Doubt
from lazyccd.frame.core import UNCERTAINTY, resolve
from lazyccd.kernels.block import Array
from lazyccd.ops.attributes import cut
from lazyccd.ops.sample import read_pixels, robust_std
from lazyccd.sections import Region

CHECKED = 1024
"""Side of the central area that is looked at, at most."""

MOST_BAD = 0.2
"""Fraction of a raw image that may be saturated; more of it is a level of saturation that is wrong, or a lost exposure."""


def area(ds: xr.Dataset) -> Region:
    """Return the part of a frame that is looked at."""
    return central_region((ds.sizes["y"], ds.sizes["x"]), 1.0, most=CHECKED)


def good_pixels(ds: xr.Dataset) -> Array:
    """Return the data of that part, NaN where a pixel is bad."""
    return read_pixels(resolve(ds), area(ds))


def uncertainty_of(ds: xr.Dataset) -> Array | None:
    """Return the uncertainty in that part; None if the frame has none."""
    if UNCERTAINTY not in ds:
        return None
    values: Array = cut(resolve(ds), *area(ds).slices).to_dataset()[UNCERTAINTY].compute().values
    return values


def check_raw(values: Array, *, is_flat: bool) -> str:
    """Say that a raw frame is saturated in large part, or constant in some, as where an amplifier gave nothing."""
    bad = float(np.mean(~np.isfinite(values)))
    # Flats are excluded by their level, which says more.
    if bad > MOST_BAD and not is_flat:
        return f"{bad:.0%} of the raw image is saturated or unknown"
    fraction = checks.constant_part(values)
    return f"{fraction:.0%} of the raw image is constant" if fraction else ""


def check_subtraction(choice: Choice, before: Array, after: Array, master: xr.Dataset, *, small: bool) -> list[Doubt]:
    """Look for what a master that was subtracted left behind, or put in.

    Parameters
    ----------
    choice
        Which master.
    before, after
        The frame on both sides of the step: their difference is the master as it was subtracted, scaled and converted.
    master
        The master itself, for its noise.
    small
        Whether to compare the small structure; spectra and colours have such of their own.
    """
    subtracted = before - after
    found = []
    if small:
        left = _structure(after, subtracted, master)
        found += _left(choice, left, "small structure", checks.STRUCTURE_LEFT)
    if choice.kind == "dark":
        found += _left(choice, checks.hot_pixels_left(after, subtracted), "hot pixels", checks.HOT_LEFT)
    return found


def check_division(choice: Choice, before: Array, after: Array, master: xr.Dataset) -> list[Doubt]:
    """Look for what a flat that divided an image left behind, or put in."""
    known = after[np.isfinite(after)]
    level = float(np.median(known)) if known.size else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = before / after
        flat[~np.isfinite(flat)] = np.nan
    # Without a sky there is nothing whose structure a flat takes away.
    if not level > 0:
        return []
    found = _left(choice, _structure(after / level, flat, master), "small structure", checks.STRUCTURE_LEFT)
    return found + _left(choice, checks.shading_left(after, flat), "shading", checks.SHADING_LEFT)


def _structure(after: Array, master: Array, opened: xr.Dataset) -> checks.Left | None:
    """Return how much of a master's small structure is left; of a master of unknown noise only what is positive."""
    noise = uncertainty_of(opened)
    own = robust_std(checks.small_structure(good_pixels(opened)))
    if noise is None or not own > 0:
        left = checks.structure_left(after, master, 0.0)
        return left if left and left.fraction > 0 else None
    # The master may have been scaled, or converted to another unit.
    return checks.structure_left(after, master, noise * robust_std(checks.small_structure(master)) / own)


def _left(choice: Choice, left: checks.Left | None, what: str, most: float) -> list[Doubt]:
    if left is None or not left.is_beyond(most):
        return []
    how = "is left" if left.fraction > 0 else "is there negative"
    text = f"{abs(left.fraction):.0%} of the {what} of the {choice.kind} {how}: it may not belong to this frame"
    return [Doubt("check", text, f"give another by --{choice.kind}")]


def check_result(frame: xr.Dataset, facts: Facts, *, pedestal_gone: bool, flattened: bool, small: bool) -> list[Doubt]:
    """Look at a calibrated frame itself: is its sky negative, is its noise what gain and read noise say.

    Parameters
    ----------
    frame
        Before cosmic rays are removed.
    facts
        Where gain and read noise come from.
    pedestal_gone
        Whether a bias or an overscan was subtracted.
    flattened
        Whether a flat divided it.
    small
        Whether neighbours have the same expectation, which in spectra and colours they have not.
    """
    values = good_pixels(frame)
    texts = []
    if pedestal_gone:
        dark = checks.too_dark(values, robust_std(checks.small_structure(values)) / np.sqrt(1.25))
        texts += [(dark, "bias, dark or overscan may not belong to it")] if dark else []
    uncertainty = uncertainty_of(frame)
    if small and uncertainty is not None:
        wrong = checks.wrong_noise(values, uncertainty, flattened=flattened)
        way = f"gain: {facts.gain.source}, read noise: {facts.readnoise.source}; state them by --gain and --readnoise"
        texts += [(wrong, way)] if wrong else []
    return [Doubt("check", text, way) for text, way in texts]
