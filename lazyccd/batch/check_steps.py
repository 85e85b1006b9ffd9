"""Checks of a frame while it is calibrated: on a central area of it, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from lazyccd.batch import checks
from lazyccd.batch.measure import SUSPICIOUS, central_region
from lazyccd.batch.metadata import Fact, Facts
from lazyccd.batch.night_plan import Choice, Doubt
from lazyccd.frame.core import UNCERTAINTY, resolve
from lazyccd.kernels.block import Array
from lazyccd.ops.sample import median, read_pixels, read_variables
from lazyccd.sections import Region

_INVERTED = 0.75
"""Part of a flat's structure that is there negative from which on another flat is more likely than a pedestal."""

_UNEVEN = 1.1
"""Noise of half of the parts over that of the quietest quarter above which something else than noise differs among them."""

_OTHER_BIAS = "take biases as the frame was taken, or give one by --bias"

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
    return read_variables(resolve(ds), area(ds), {UNCERTAINTY}).get(UNCERTAINTY) if UNCERTAINTY in ds else None


class MasterSample(NamedTuple):
    """What the checks need to know of a master, whatever frame it is used on."""

    noise: Array | None
    """Its uncertainty in the part that is looked at; None if it has none."""

    scatter: float
    """Scatter of its small structure."""


def sample_master(master: xr.Dataset) -> MasterSample:
    """Return what the checks need to know of a master."""
    return MasterSample(uncertainty_of(master), checks.middle_scatter(good_pixels(master)))


def is_confirmed(fact: Fact[float]) -> bool:
    """Return whether pairs of frames gave about the value that is used."""
    return bool(fact.value and fact.measured) and abs((fact.measured or 0.0) / (fact.value or 1.0) - 1) <= SUSPICIOUS


def check_raw(values: Array, *, is_flat: bool) -> str:
    """Say that a raw frame is saturated in large part, or constant in some, as where an amplifier gave nothing."""
    bad = float(np.mean(~np.isfinite(values)))
    # Flats are excluded by their level, which says more.
    if bad > MOST_BAD and not is_flat:
        return f"{bad:.0%} of the raw image is saturated or unknown"
    fraction = checks.constant_part(values)
    return f"{fraction:.0%} of the raw image is constant" if fraction else ""


def check_subtraction(
    choice: Choice, before: Array, after: Array, master: MasterSample | None, facts: Facts
) -> list[Doubt]:
    """Look for what a master that was subtracted left behind, or put in.

    Parameters
    ----------
    choice
        Which master.
    before, after
        The frame on both sides of the step: their difference is the master as it was subtracted, scaled and converted.
    master
        The master itself, for its noise; None where small structure is not compared, as spectra and colours have such of their own.
    facts
        Of the frame, for the read noise of its pairs.
    """
    subtracted = before - after
    found = []
    if master is not None:
        read = facts.readnoise
        # Where the read noise is larger than stated, the noise of the master would look like structure of its own.
        excess = max(1.0, (read.measured or 0.0) / read.value) if read.value else 1.0
        left = _structure(after, subtracted, master, excess)
        found += _left(choice, left, "small structure", checks.STRUCTURE_LEFT)
    if choice.kind == "dark":
        found += _left(choice, checks.hot_pixels_left(after, subtracted), "hot pixels", checks.HOT_LEFT)
    return found


def check_division(choice: Choice, before: Array, after: Array, master: MasterSample) -> list[Doubt]:
    """Look for what a flat that divided an image left behind, or put in."""
    level = median(after)
    with np.errstate(divide="ignore", invalid="ignore"):
        flat = before / after
        flat[~np.isfinite(flat)] = np.nan
    # Without a sky there is nothing whose structure a flat takes away.
    if not level > 0:
        return []
    found = _left(choice, _structure(after / level, flat, master), "small structure", checks.STRUCTURE_LEFT, level)
    return found + _left(choice, checks.shading_left(after, flat), "shading", checks.SHADING_LEFT, level)


def _structure(after: Array, master: Array, sample: MasterSample, excess: float = 1.0) -> checks.Left | None:
    """Return how much of a master's small structure is left; of a master of unknown noise only what is positive."""
    noise = sample.noise
    if noise is None or not sample.scatter > 0:
        left = checks.structure_left(after, master, 0.0)
        return left if left and left.fraction > 0 else None
    # The master may have been scaled, or converted to another unit.
    return checks.structure_left(after, master, excess * noise * checks.middle_scatter(master) / sample.scatter)


def _left(choice: Choice, left: checks.Left | None, what: str, most: float, level: float = 0.0) -> list[Doubt]:
    """Return the doubt that something of a master is left; with the level of a frame that a flat divided, what else may be wrong."""
    if left is None or not left.is_beyond(most):
        return []
    part = abs(left.fraction)
    how = "is left" if left.fraction > 0 else "is there negative"
    wrong = f"the {choice.kind} may not belong to this frame, give another by --{choice.kind}"
    causes = [wrong]
    # A flat divides what is no light, too: then a part of its shading appears inverted, and of another's nearly all.
    if choice.kind == "flat" and left.fraction < 0:
        pedestal = f"{_few(part * level)} of the level of {_few(level)} may be no light: a pedestal, {_OTHER_BIAS}"
        causes.insert(0 if part < _INVERTED else 1, pedestal)
    if choice.kind == "flat" and left.fraction > 0:
        causes += [
            "the flat may have kept its bias",
            f"too much may have been subtracted from the frame, {_OTHER_BIAS}",
            "something bright in the middle of the frame may look like it",
        ]
    return [Doubt("check", f"{part:.0%} of the {what} of the {choice.kind} {how}", "; or ".join(causes))]


def check_flat(master: xr.Dataset) -> list[Doubt]:
    """Look for stars that are at one place in most frames of a flat, so that combining them left them in."""
    region = area(master)
    values = good_pixels(master)
    unlit = checks.unlit_strips(values)
    if unlit:
        text = f"{unlit[0].shift(region.y0, region.x0).to_fits()} of the flat, between parts with light, sees none, as an overscan in the middle of an image"
        way = "say where each amplifier lies by [amplifiers] in a camera table (see docs/howto/mosaic.md); 'lazyccd camera' proposes it"
        return [Doubt("check", text, way)]
    stars = checks.sources(values)
    if not stars:
        return []
    places = ", ".join(
        f"{star.height:.1%} at x = {region.x0 + star.x + 1}, y = {region.y0 + star.y + 1}" for star in stars[:3]
    )
    text = f"stars or other points of light are in the flat: {places}" + (", ..." if len(stars) > 3 else "")
    return [
        Doubt("check", text, "move the telescope between flats, mask these places by --bpm, or give another by --flat")
    ]


class Step(NamedTuple):
    """A step that took something away from a frame."""

    what: str
    """overscan, bias or dark."""

    level: float
    """Median of the frame after it."""


def who_took_too_much(steps: Sequence[Step]) -> str:
    """Return which steps may have made the sky negative: the one after which it was, then those before it.

    A flat only divides, so it is none of them.
    """
    below = next((number for number, step in enumerate(steps) if step.level < 0), len(steps) - 1)
    named = [step.what for step in reversed(steps[: below + 1])]
    if not named:
        return "more than the pedestal was subtracted from it"
    options = [f"--{what}" for what in named]
    first = f"the {named[0]} took away too much" if steps[below].level < 0 else f"the {named[0]} may not belong to it"
    others = f", or the {' or the '.join(named[1:])} before it" if len(named) > 1 else ""
    return f"{first}{others}; give another by {' or '.join(options)}"


def _few(value: float) -> str:
    """Return a level with as many digits as it is known to."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def check_result(
    frame: xr.Dataset,
    facts: Facts,
    values: Array | None = None,
    *,
    steps: Sequence[Step],
    pedestal_gone: bool,
    flattened: bool,
    small: bool,
    say: Callable[[str], object] = lambda _text: None,
) -> list[Doubt]:
    """Look at a calibrated frame itself: is its sky negative, is its noise what gain and read noise say.

    Parameters
    ----------
    frame
        Before cosmic rays are removed.
    facts
        Where gain and read noise come from.
    values
        `good_pixels` of the frame, if they are known already.
    steps
        What was subtracted.
    pedestal_gone
        Whether a bias or an overscan was subtracted.
    flattened
        Whether a flat divided it.
    small
        Whether neighbours have the same expectation, which in spectra and colours they have not.
    say
        Is told what is odd and lowers no status.
    """
    values = good_pixels(frame) if values is None else values
    texts = []
    if facts.overscan.value is not None and not steps:
        steps = (Step("overscan", median(values)),)
    if pedestal_gone:
        dark = checks.too_dark(values, checks.middle_scatter(values) / np.sqrt(1.25))
        texts += [(dark, who_took_too_much(steps))] if dark else []
    uncertainty = uncertainty_of(frame)
    if small and uncertainty is not None:
        # Of stated electrons, the variance of the photons is that of true ones times the ratio of the gains.
        correction = None
        if is_confirmed(facts.gain) and is_confirmed(facts.readnoise):
            correction = float(np.sqrt((facts.gain.value or 1.0) / (facts.gain.measured or 1.0)))
        ratio = checks.noise_ratio(values, uncertainty)
        wrong = checks.wrong_noise(values, uncertainty, flattened=flattened, correction=correction, ratio=ratio)
        texts += [(wrong, _why_noise(values, uncertainty, facts, ratio))] if wrong else []
        if not wrong and ratio[1] < checks.LEAST_NOISE_OF_KNOWN:
            say(
                f"the noise of the sky is {ratio[1]:.2f} of what gain and read noise say: {_why_noise(values, uncertainty, facts, ratio)}"
            )
    return [Doubt("check", text, way) for text, way in texts]


def _why_noise(values: Array, uncertainty: Array, facts: Facts, ratios: tuple[float, float]) -> str:
    """Return what may have made the noise of the sky wrong, what is most likely first."""
    low, ratio = ratios
    level, expected = median(values), median(uncertainty)
    gain, read = facts.gain.value or 1.0, facts.readnoise.value or 0.0
    variance = (ratio * expected) ** 2
    too_much = expected**2 - variance
    found = []
    # Stars are not everywhere alike.
    if too_much < 0 and ratio > _UNEVEN * low:
        found.append("stars or other structure fill the frame, which is then right")
    # What is read without light has no less noise than the reading.
    if variance < (0.9 * read) ** 2:
        found.append(f"the read noise ({read:.3g} e-, {facts.readnoise.source}) is too large, state it by --readnoise")
    # What is no photon noise: that of reading, and of the masters.
    rest = max(read**2, expected**2 - level)
    if not is_confirmed(facts.gain) and variance > rest and level > 0:
        fitting = gain * level / (variance - rest)
        found.append(f"the gain ({gain:.3g}, {facts.gain.source}) should be {fitting:.3g}, state it by --gain")
    if 0 < too_much < level:
        found.append(f"{_few(too_much)} of its {_few(level)} electrons are no light: a pedestal, {_OTHER_BIAS}")
    if too_much < 0:
        found.append(f"too much was subtracted, {_OTHER_BIAS}")
    return "; or ".join(found) or "gain and read noise do not fit the frame; state them by --gain and --readnoise"
