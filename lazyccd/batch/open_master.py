"""Masters that exist already, opened as a frame needs them: in its unit, at its zero point, trimmed as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr
from astropy import units as u

from lazyccd import ops
from lazyccd.batch.measure import level
from lazyccd.batch.night_plan import Choice, FramePlan
from lazyccd.frame.core import DATA, resolve
from lazyccd.io.fits.open import image_of
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name
from lazyccd.io.open import as_frame, is_store


def open_file(source: str, unit: str | None = None) -> xr.Dataset:
    """Open an image of a file, in a unit that is given or in that of its header."""
    name = parse_name(source)
    if is_store(name.path):
        return as_frame(source)
    return image_of(scan_fits(name.path), name.hdu, "auto", None, unit).to_dataset()


def open_master(choice: Choice, frame_plan: FramePlan, unit: str = "") -> xr.Dataset:
    """Open the master of a frame, and make of its levels and its size what the frame needs.

    Parameters
    ----------
    choice
        The master and its treatment.
    frame_plan
        The frame, as it was read.
    unit
        Unit of the frame at this step, ``adu`` or ``electron``; empty for flats, whose unit does not count.
    """
    facts, treatment = frame_plan.facts, choice.treatment
    frame = open_file(choice.master, treatment.unit or None)
    if treatment.scale != 1:
        frame = ops.multiply(frame, treatment.scale)
    below = treatment.zero_below(facts, choice.kind)
    if below:
        frame = ops.subtract(frame, below * resolve(frame).units)
    is_raw_size = frame.sizes["y"], frame.sizes["x"]
    if is_raw_size == frame_plan.shape and facts.trim.value is not None:
        has_strip = treatment.needs_overscan and facts.overscan.value is not None
        frame = _treated_alike(frame, frame_plan, subtract=has_strip)
        # Its level has become another one.
        treatment = replace(treatment, level=level(frame)) if has_strip and treatment.level else treatment
    if choice.kind == "flat":
        return frame if treatment.level is None else ops.divide(frame, treatment.level * resolve(frame).units)
    return _converted(frame, unit, facts.gain.value or treatment.gain)


def open_mask(choice: Choice) -> xr.Dataset:
    """Open a bad pixel mask of any type of numbers; 0 is good, or bad in an inverted one."""
    frame = open_file(choice.master)
    pixels = frame[DATA].data
    return frame.assign({DATA: (frame[DATA].dims, pixels == 0 if choice.treatment.is_inverted else pixels != 0)})


def _treated_alike(frame: xr.Dataset, frame_plan: FramePlan, *, subtract: bool) -> xr.Dataset:
    """Return a master of the raw size without the overscan and the margins that its frame loses."""
    facts = frame_plan.facts
    if subtract:
        frame = ops.subtract_overscan(frame, fits_section=facts.overscan.value, overscan_axis=None)
    trimmed: xr.Dataset = ops.trim_image(frame, facts.trim.value)
    return trimmed


def _converted(frame: xr.Dataset, unit: str, gain: float | None) -> xr.Dataset:
    """Return a master in adu or electrons, by the gain."""
    have = resolve(frame).units
    ratio: Any = u.electron / u.adu
    if gain is None or not unit or have == u.Unit(unit):
        return frame
    if have == u.electron and unit == "adu":
        return ops.divide(frame, gain * ratio)
    if have == u.adu and unit == "electron":
        return ops.multiply(frame, gain * ratio)
    return frame
