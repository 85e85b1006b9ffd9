"""One frame by its frame_plan: the steps of a right reduction, in their order, with what was decided on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import xarray as xr
from astropy import units as u

from lazyccd import ops
from lazyccd.batch.classify import calibration_of
from lazyccd.batch.measure import overscan_levels
from lazyccd.batch.night_plan import Choice, FramePlan
from lazyccd.errors import ShapeError
from lazyccd.frame.core import DATA
from lazyccd.frame.history_log import apply_to_text
from lazyccd.frame.output_header import after_gain
from lazyccd.io import as_frame
from lazyccd.io.fits.open import frame_of
from lazyccd.io.fits.scan import scan_fits
from lazyccd.io.names import parse_name
from lazyccd.ops.instrument.calibrate import add_noise, scale_noise, subtract_levels
from lazyccd.sections import parse_section


@dataclass
class Calibrated:
    """A calibrated frame, and in words what was done."""

    frame: xr.Dataset
    words: list[str] = field(default_factory=list)


def open_raw(frame_plan: FramePlan) -> xr.Dataset:
    """Open the image of a frame_plan, of a file of which others may be damaged."""
    name = parse_name(frame_plan.source)
    file = scan_fits(name.path, keep_going=True)
    return frame_of(file, name.hdu, "auto", None, frame_plan.facts.unit.value or None)


def calibrate(frame_plan: FramePlan, masters: dict[str, str], bias_noise: float = 1.0) -> Calibrated:
    """Reduce one frame, lazily but for its overscan strip.

    1. Raw adu: SAT, overscan, trim, bad pixels, bias.
    2. Noise of signal and reading, on top of the master's.
    3. Gain; dark and flat in electrons.

    A dark that contains the bias is subtracted where the bias would be, and the noise comes after it.

    Parameters
    ----------
    frame_plan
        What to do.
    masters
        Paths of the masters that were made, by name.
    bias_noise
        Factor of the noise that the master bias adds.
    """
    facts = frame_plan.facts
    done = Calibrated(open_raw(frame_plan))
    if facts.saturate.value is not None:
        done.frame = ops.flag_saturated(done.frame, float(facts.saturate.value))
    _overscan_and_trim(frame_plan, done)
    kind = calibration_of(frame_plan.kind)
    gain, read = facts.gain.value, facts.readnoise.value
    if frame_plan.bias:
        done.frame = ops.subtract_bias(done.frame, scale_noise(_master(frame_plan.bias, masters), bias_noise))
    if gain is not None and read is not None and not frame_plan.contains_bias:
        signal = bool(frame_plan.bias) or (kind != "bias" and facts.overscan.value is not None)
        done.frame = add_noise(done.frame, gain=gain, readnoise=read, poisson=signal)
    if kind == "bias":
        return done
    if gain is not None:
        done.frame = ops.gain_correct(done.frame, gain * u.electron / u.adu)
        done.frame = done.frame.assign_attrs(header=after_gain(done.frame.attrs["header"], gain, read))
    _dark_and_flat(frame_plan, masters, done)
    return done


def _overscan_and_trim(frame_plan: FramePlan, done: Calibrated) -> None:
    """Subtract the overscan, trim, mark bad pixels."""
    facts = frame_plan.facts
    bad = as_frame(frame_plan.bpm.master, "bad pixel mask") if frame_plan.bpm else None
    if bad is not None and bad[DATA].shape == frame_plan.shape:
        done.frame = ops.add_mask(done.frame, bad[DATA])
        bad = None
    if facts.overscan.value is not None:
        strip = parse_section(facts.overscan.value, frame_plan.shape).region
        read = facts.readnoise.value
        adu = None if read is None or facts.gain.value is None else float(read) / float(facts.gain.value)
        found = overscan_levels(done.frame, strip, adu)
        done.frame = ops.with_header(subtract_levels(done.frame, found.levels, found.axis), found.cards)
        done.words.append(f"overscan {facts.overscan.value}: {found.words}")
        entries = [
            ("subtract_overscan", f"ccd=<CCDData>, fits_section={facts.overscan.value}"),
            ("HISTORY", done.words[-1]),
        ]
        done.frame = done.frame.assign_attrs(header=apply_to_text(done.frame.attrs["header"], entries))
    if facts.trim.value is not None:
        done.frame = ops.trim_image(done.frame, facts.trim.value)
        done.words.append(f"trimmed to {facts.trim.value}")
    if bad is not None:
        if bad[DATA].shape != done.frame[DATA].shape:
            raise ShapeError(
                f"bad pixel mask {frame_plan.bpm.master} has shape {bad[DATA].shape}; it must be that of {frame_plan.name}, "
                f"{frame_plan.shape}, or of its trimmed part, {done.frame[DATA].shape}."
            )
        done.frame = ops.add_mask(done.frame, bad[DATA].data)


def _dark_and_flat(frame_plan: FramePlan, masters: dict[str, str], done: Calibrated) -> None:
    """Subtract the dark and divide by the flat."""
    facts = frame_plan.facts
    if frame_plan.dark:
        is_scaled = frame_plan.dark.scale != 1
        # Both are known if one is scaled; else they are equal.
        ours = facts.exposure.value or frame_plan.dark.exposure or 0.0
        theirs = frame_plan.dark.exposure or ours
        times = {"dark_exposure": theirs * u.s, "data_exposure": ours * u.s}
        done.frame = ops.subtract_dark(done.frame, _master(frame_plan.dark, masters), **times, scale=is_scaled)
        if is_scaled:
            done.words.append(f"dark scaled by {frame_plan.dark.scale:.4g}")
        if frame_plan.contains_bias and facts.gain.value is not None and facts.readnoise.value is not None:
            done.frame = add_noise(done.frame, gain=1.0, readnoise=float(facts.readnoise.value))
    if frame_plan.flat:
        done.frame = ops.flat_correct(done.frame, _master(frame_plan.flat, masters), norm_value=1.0)


def _master(choice: Choice, masters: dict[str, str]) -> xr.Dataset:
    """Open a master; a path would stand in the log of the product, which then depends on where it was made."""
    return as_frame(choice.master if choice.is_file else masters[choice.master], f"master {choice.kind}")
