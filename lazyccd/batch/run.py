"""Running the plan of a night: masters first, then every science frame, each failure kept to its own frame."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from lazyccd import io, ops
from lazyccd.batch.calibrate import calibrate, open_raw
from lazyccd.batch.cosmic_rays import check_stars, remove_cosmic_rays
from lazyccd.batch.exposures import (
    as_exposure,
    as_masters,
    assemble_amplifiers,
    exposure_name,
    exposures,
    frames_by_name,
    least_complete,
    master_files,
    master_locations,
    merge_messages,
)
from lazyccd.batch.make_masters import (
    CLIP,
    FEW,
    combine_robustly,
    product_name,
    with_master_cards,
    with_provenance,
)
from lazyccd.batch.measure import central_region, gain_from_pairs, level, noise, noise_from_pairs, read_pixels
from lazyccd.batch.metadata import MEASURED, Fact
from lazyccd.batch.night_plan import FramePlan, MasterGroup, NightPlan, Pairs
from lazyccd.batch.resume import NightJournal
from lazyccd.errors import LazyCCDError, ParameterError, TargetExistsError
from lazyccd.frame.tree import make_tree
from lazyccd.io.open import open_image

Format: TypeAlias = Literal["fits", "zarr"]
Report: TypeAlias = Callable[[str], None]
Draw: TypeAlias = Callable[[str, Path], None]

SUSPICIOUS = 0.15
"""Relative difference between measured and stated gain or read noise beyond which it is warned about."""

FULL_FLAT = 0.8
"""Flats above this fraction of saturation are excluded."""

LEAST_SNR = 30.0
"""Flats with a lower signal-to-noise per pixel are excluded."""


@dataclass(frozen=True)
class Outcome:
    """What became of one product."""

    name: str
    """Master or science frame."""

    kind: str
    status: str
    """COMPLETE, PARTIAL or FAILED."""

    reason: str = ""
    """Why it is not COMPLETE."""

    path: str = ""
    """File or store that was written."""

    used: tuple[str, ...] = ()
    """Masters used, or members combined."""

    words: tuple[str, ...] = ()
    """Decisions on the way."""

    noise_before: float = math.nan
    """Noise of a raw pixel, in the product's units."""

    noise_after: float = math.nan
    """Noise of a pixel of the product."""

    unit: str = ""
    """Units of the product, and so of the noise."""

    seconds: float = 0.0


@dataclass
class Run:
    """A night that is being reduced.

    Parameters
    ----------
    plan
        What to do.
    out
        Folder of the products; masters go to ``out/masters``, pictures to ``out/pictures``.
    format
        Format of the science products; masters are FITS.
    overwrite
        Replace products that exist.
    verify
        Before a night goes on that was interrupted, compare checksums of what is written, and not only sizes.
    break_lock
        Go on although another process is noted as reducing the night, of which it cannot be said that it is gone.
    draw
        Draws a product, given its path, into a picture.
    report
        Is told what is being worked on.
    """

    plan: NightPlan
    out: Path
    format: Format = "fits"
    overwrite: bool = False
    verify: bool = False
    break_lock: bool = False
    draw: Draw = lambda _path, _target: None
    report: Report = lambda _: None
    outcomes: list[Outcome] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    masters: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)

    def __call__(self) -> list[Outcome]:
        """Reduce the night, or go on where the same call was interrupted."""
        for folder in (self.out / "masters", self.out / "pictures"):
            folder.mkdir(parents=True, exist_ok=True)
        journal = NightJournal(self.plan, self.out, self.format, break_lock=self.break_lock)
        # What a night that goes on has begun may be replaced: nothing was there when it began, or it was asked for.
        self.overwrite |= journal.begin(self._check_targets, overwrite=self.overwrite)
        try:
            self.measure()
            for name, groups in master_files(self.plan.groups).items():
                self._keep(journal, name, groups[0].kind, partial(self._make_masters, name, groups))
                self._take(name, groups)
            for name, frame_plans in exposures(self.plan.science).items():
                self._keep(journal, name, "science", partial(self._reduce, name, frame_plans))
        except BaseException:
            journal.release()
            raise
        journal.end()
        return self.outcomes

    @property
    def exit_status(self) -> int:
        """0 all complete, 3 some lack more than was allowed, 1 something failed."""
        if any(outcome.status == "FAILED" for outcome in self.outcomes):
            return 1
        return self.plan.exit_status

    def target(self, name: str) -> Path:
        """Return the path of a science product."""
        return self.out / f"{product_name(name)}_red.{self.format}"

    @property
    def _writing(self) -> dict[str, Any]:
        """How products are written."""
        return {"overwrite": self.overwrite, "verify": self.verify, "break_lock": self.break_lock}

    def _check_targets(self) -> None:
        """Refuse to begin where products exist, or two frames would have one product."""
        targets = [self.target(name) for name in exposures(self.plan.science)]
        doubled = {str(path) for path in targets if targets.count(path) > 1}
        if doubled:
            raise ParameterError(
                f"{len(doubled)} products would have the name of another: {sorted(doubled)}; rename the files."
            )
        paths = targets + [self.out / "masters" / f"{name}.fits" for name in master_files(self.plan.groups)]
        there = [path for path in paths if path.exists()]
        if there and not self.overwrite:
            raise TargetExistsError(
                f"{len(there)} products exist already, such as {there[0]}; pass --overwrite to replace them, or another -o."
            )

    def measure(self) -> None:
        """Measure gain and read noise by pairs, compare with what the headers say, use them if that was asked for."""
        for pairs in self.plan.pairs:
            self.report(f"measuring {pairs.zero}")
            try:
                gain, read = self._measured(pairs)
            except LazyCCDError as error:
                self.warnings.append(f"gain and read noise cannot be measured from {pairs.zero}: {error}")
                continue
            for name, value in (("gain", gain), ("readnoise", read)):
                if math.isfinite(value):
                    self._compare(pairs, name, value)

    def _measured(self, pairs: Pairs) -> tuple[float, float]:
        """Return electrons per adu and electrons of read noise; NaN for what cannot be had."""
        zeros = self._raw_centres(pairs.zero)
        if len(zeros) < 2:
            return math.nan, math.nan
        read_adu = noise_from_pairs(zeros)
        gain = math.nan
        if pairs.flat:
            zero_level = float(np.mean([np.nanmedian(zero) for zero in zeros]))
            gain = gain_from_pairs(self._raw_centres(pairs.flat), zero_level, read_adu)
        stated = self.plan.frame(pairs.frames[0]).facts.gain.value
        factor = gain if math.isfinite(gain) and (self.plan.options.measured or stated is None) else stated
        return gain, math.nan if factor is None else read_adu * factor

    def _raw_centres(self, group: str) -> list[Any]:
        """Return the pixels of the central areas of a group's raw frames, without those that are mostly bad."""
        areas = [self._raw_centre(frame_plan) for frame_plan in self.plan.members(group)]
        return [area for area in areas if np.isfinite(area).mean() > 0.5]

    def _raw_centre(self, frame_plan: FramePlan) -> Any:
        """Return the pixels of the central area of a raw frame, saturated ones left out."""
        ds = open_raw(frame_plan)
        if frame_plan.facts.saturate.value is not None:
            ds = ops.flag_saturated(ds, float(frame_plan.facts.saturate.value))
        return read_pixels(ds, central_region(frame_plan.shape, most=512))

    def _compare(self, pairs: Pairs, name: str, value: float) -> None:
        """Hold a measured number against the stated one."""
        unit = {"gain": "e-/adu", "readnoise": "e-"}[name]
        stated = self.plan.frame(pairs.frames[0]).facts.get(name)
        shown = "nothing" if stated.value is None else f"{stated.value:.3g} {unit} ({stated.source})"
        source = pairs.flat if name == "gain" else pairs.zero
        text = f"{name}: measured {value:.3g} {unit} from pairs of {source}, stated {shown}"
        differs = stated.value is not None and abs(value / stated.value - 1) > SUSPICIOUS
        if self.plan.options.measured or stated.value is None:
            self.plan = self.plan.with_fact(pairs.frames, name, Fact(value, MEASURED))
            text += "; the measured one is used"
        elif differs:
            text += f"; they differ by {abs(value / stated.value - 1):.0%}: --gain measured uses the measured ones"
        self.warnings.append(text)

    def _keep(self, ledger: NightJournal, name: str, kind: str, make: Callable[[], Outcome]) -> None:
        """Make one product, unless it is done; what goes wrong is kept to it."""
        self.report(name)
        known = ledger.known(name, verify=self.verify)
        if known is not None:
            self.outcomes.append(Outcome(**known))
            return
        begin = time.monotonic()
        try:
            outcome = make()
        except (LazyCCDError, OSError, ValueError, ArithmeticError) as error:
            notes = "; ".join(getattr(error, "__notes__", ()))
            reason = f"{error}{f' ({notes})' if notes else ''}"
            outcome = Outcome(name, kind, "FAILED", reason)
            self.failed[name] = reason
        self.outcomes.append(replace(outcome, seconds=time.monotonic() - begin))
        if outcome.status != "FAILED":
            ledger.add(name, outcome.path, asdict(self.outcomes[-1]))

    def _take(self, name: str, groups: list[MasterGroup]) -> None:
        """Note where masters are that are in one file, unless they failed."""
        path = self.outcomes[-1].path
        if name not in self.failed:
            self.masters |= master_locations(path, groups)

    def _make_masters(self, name: str, groups: list[MasterGroup]) -> Outcome:
        """Make the masters of one file."""
        made = [self._combined(group) for group in groups]
        members = [self.plan.members(group.name) for group in groups]
        path = self.out / "masters" / f"{name}.fits"
        written = str(io.to_fits(as_masters(members, [master for master, _ in made]), path, **self._writing))
        self._picture(written, name)
        children = [frame_plans[0].child for frame_plans in members]
        words = merge_messages({child: words for child, (_, words) in zip(children, made, strict=True)})
        lacking = least_complete([frame_plan for some in members for frame_plan in some])
        files = tuple(dict.fromkeys(exposure_name(frame_plan) for some in members for frame_plan in some))
        return Outcome(name, groups[0].kind, lacking.status, lacking.reason, written, files, words)

    def _combined(self, group: MasterGroup) -> tuple[xr.Dataset, list[str]]:
        """Return the master of the calibrated members of a group, and how it is made."""
        frames: list[xr.Dataset] = []
        words: list[str] = []
        members = self.plan.members(group.name)
        for frame_plan in members:
            frame = self._calibrated(frame_plan).frame
            if group.kind == "flat":
                excluded, frame = self._scaled_flat(frame_plan, frame)
                if excluded:
                    words.append(f"{frame_plan.name} excluded: {excluded}")
                    continue
            frames.append(frame)
        if not frames:
            raise ParameterError(f"no frame of {group.name} can be used: {'; '.join(words)}.")
        how = "median" if len(frames) < FEW else f"mean, clipped at {CLIP:g} robust sigma"
        bias = next((item.bias.master for item in members if item.bias), "")
        master = with_master_cards(combine_robustly(frames), group, len(frames), self.plan.master_file(bias))
        return master, [f"{how} of {len(frames)}", *words]

    def _scaled_flat(self, frame_plan: FramePlan, frame: xr.Dataset) -> tuple[str, xr.Dataset]:
        """Return why a flat is excluded, if it is, and the flat divided by its level."""
        facts = frame_plan.facts
        value = level(frame)
        gain = facts.gain.value or 1.0
        lacking = self._lacking(frame_plan)
        if lacking:
            return f"its file has no {', '.join(lacking)}, so its level is not that of the others", frame
        if not value > 0:
            return f"its level is {value:.4g}", frame
        if facts.saturate.value is not None and value / gain > FULL_FLAT * facts.saturate.value:
            return (
                f"level {value / gain:.0f} adu is above {FULL_FLAT:.0%} of saturation ({facts.saturate.value:.0f} adu)",
                frame,
            )
        read = facts.readnoise.value or 0.0
        snr = value / math.sqrt(value + read**2)
        if snr < LEAST_SNR:
            return f"signal-to-noise {snr:.1f} per pixel is below {LEAST_SNR:g}", frame
        common = self._exposure_level(frame_plan) if frame_plan.child else value
        return "", ops.divide(frame, common * frame.ccd.unit)

    def _exposure_level(self, frame_plan: FramePlan) -> float:
        """Return the median level of all images of a flat's file: one for all, so that amplifiers keep their steps."""
        name = exposure_name(frame_plan)
        if name not in self.levels:
            alike = [item for item in self.plan.frames if exposure_name(item) == name and item.is_reduced]
            self.levels[name] = float(np.median([level(self._calibrated(item).frame) for item in alike]))
        return self.levels[name]

    def _lacking(self, frame_plan: FramePlan) -> list[str]:
        """Return the images that other files of a frame's master have and its own has not."""
        if not frame_plan.child:
            return []
        file, master = exposure_name(frame_plan), self.plan.master_file(frame_plan.group)
        there = {item.child for item in self.plan.frames if item.group and self.plan.master_file(item.group) == master}
        own = {item.child for item in self.plan.frames if item.is_reduced and exposure_name(item) == file}
        return sorted(there - own)

    def _calibrated(self, frame_plan: FramePlan) -> Any:
        """Calibrate a frame, if its masters could be made."""
        for choice in frame_plan.choices:
            if choice and not choice.is_file and choice.master not in self.masters:
                why = self.failed.get(self.plan.group(choice.master).file, "it was not made")
                raise ParameterError(f"{choice.kind} master {choice.master} is missing: {why}")
        return calibrate(frame_plan, self.masters, self.plan.bias_noise(frame_plan))

    def _reduce(self, name: str, frame_plans: list[FramePlan]) -> Outcome:
        """Reduce and write an exposure: its images, or the detectors that these are parts of."""
        calibrated = [self._calibrated(frame_plan) for frame_plan in frame_plans]
        whole, words = assemble_amplifiers(as_exposure(frame_plans, [done.frame for done in calibrated]))
        lacking = least_complete(frame_plans)
        masters = [choice.master for frame_plan in frame_plans for choice in frame_plan.choices if choice]
        used = tuple(dict.fromkeys(map(self.plan.master_file, masters)))
        asked = self.plan.options.cosmic_rays
        spectrum = frame_plans[0].facts.mode.value == "spectrum"  # one spectrograph lights all images of a file
        cleaned = {
            part: remove_cosmic_rays(frame, asked, spectrum=spectrum) for part, frame in frames_by_name(whole).items()
        }
        frames = {
            part: with_provenance(frame, exposure_name(frame_plans[0]), used, lacking.status)
            for part, (frame, *_) in cleaned.items()
        }
        write = io.to_fits if self.format == "fits" else io.to_zarr
        ready = make_tree(frames, whole.attrs) if isinstance(whole, xr.DataTree) else frames[""]
        path = str(write(ready, self.target(name), **self._writing))
        self._picture(path, product_name(name))
        products = list(frames_by_name(open_image(path)).values())
        after = {
            part: [*text, *check_stars(product, stars)]
            for product, (part, (_, text, stars)) in zip(products, cleaned.items(), strict=True)
        }
        return Outcome(
            name,
            "science",
            lacking.status,
            "; ".join(merge_messages({frame_plan.child: frame_plan.reasons for frame_plan in frame_plans})),
            path,
            used,
            (
                *merge_messages({r.child: done.words for r, done in zip(frame_plans, calibrated, strict=True)}),
                *words,
                *merge_messages(after),
            ),
            float(np.median([self._raw_noise(frame_plan) for frame_plan in frame_plans])),
            float(np.median([noise(product) for product in products])),
            f"{products[0].ccd.unit}",
        )

    def _raw_noise(self, frame_plan: FramePlan) -> float:
        """Return the noise of a raw pixel, in electrons if the gain is known."""
        return noise(open_raw(frame_plan)) * (frame_plan.facts.gain.value or 1.0)

    def _picture(self, path: str, name: str) -> None:
        """Draw a product."""
        self.draw(path, self.out / "pictures" / f"{name.replace(os.sep, '_')}.png")
