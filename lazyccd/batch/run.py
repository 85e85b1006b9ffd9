"""The order of work: plan, measure, make masters, reduce exposures; each failure is kept to its own product.

What is done to pixels is elsewhere: `measure`, `make_masters` and `calibrate`. An interrupted night goes on by `resume`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd import io, ops
from lazyccd.batch.calibrate import MadeMasters, Reduced, is_plain_image, reduce_exposure
from lazyccd.batch.check_steps import check_flat
from lazyccd.batch.collect import collect
from lazyccd.batch.cosmic_rays import check_cleaning
from lazyccd.batch.exposures import (
    as_masters,
    exposures,
    frames_by_name,
    least_complete,
    master_files,
    master_locations,
    merge_doubts,
    merge_messages,
    open_raw,
    with_frames,
    with_planes,
)
from lazyccd.batch.make_masters import MasterMaker
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.measure import Measurement, measure_pairs, noise, numbers_of
from lazyccd.batch.metadata import MEASURED, Fact
from lazyccd.batch.night_plan import FOUND, Doubt, FramePlan, MasterGroup, NightPlan, Options, exposure_name
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.recipe.recipe import Recipe, read_recipe
from lazyccd.batch.record import RecordFile
from lazyccd.batch.resume import NightJournal
from lazyccd.batch.table import load_table
from lazyccd.errors import FormatError, LazyCCDError, TargetExistsError
from lazyccd.frame.tree import make_tree
from lazyccd.io.names import Name
from lazyccd.io.open import open_image

Format: TypeAlias = Literal["fits", "zarr"]
Report: TypeAlias = Callable[[str], None]
Exposure: TypeAlias = xr.Dataset | xr.DataTree
Draw: TypeAlias = Callable[[str, Path, Exposure | None], None]
State: TypeAlias = Literal["running", "stopped", "ended"]


def plan_night(night: Name | Iterable[Name], options: Options, recipe: Recipe | None = None) -> NightPlan:
    """Return the plan of a night, from files or from a table.

    Parameters
    ----------
    night
        What was named.
    options
        What was asked for; it takes precedence over what the recipe states.
    recipe
        What is done to the frames; that of the options if None.
    """
    names = [night] if isinstance(night, (str, os.PathLike)) else list(night)
    if len(names) == 1 and os.fspath(names[0]).endswith(".ecsv"):
        return load_table(os.fspath(names[0]), options, recipe)
    recipe = recipe or read_recipe(options)
    first = os.fspath(names[0]) if names else ""
    options = recipe.options_under(options, first if os.path.isdir(first) else os.path.dirname(first))
    collection = collect(names, options.on_error, recursive=options.recursive)
    if not collection.frames:
        reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in collection.skipped)
        raise FormatError(f"none of {len(collection.skipped)} files can be used: {reasons}.")
    return build_plan(collection, options, recipe=recipe)


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
        Before an interrupted night is resumed, compare the checksums of its products, and not only sizes.
    break_lock
        Reduce even though a lease says that another process is reducing the night and that process may still run.
    draw
        Draws a product, given its path, into a picture; and what it was made of, in its units, if that is given.
    report
        Is told what is being worked on.
    """

    plan: NightPlan
    out: Path
    format: Format = "fits"
    overwrite: bool = False
    verify: bool = False
    break_lock: bool = False
    draw: Draw = lambda _path, _target, _before: None
    report: Report = lambda _: None
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    measurements: list[Measurement] = field(default_factory=list, init=False)
    doubts: list[Doubt] = field(default_factory=list, init=False)
    made: MadeMasters = field(default_factory=MadeMasters, init=False)
    state: State = field(default="running", init=False)
    begun: str = field(default="", init=False)
    """When the call began, in UTC."""

    _start: float = field(default=0.0, init=False)

    def __repr__(self) -> str:
        """Return how many products there are, by what became of them: the plan alone would fill pages of a notebook."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        done = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no product yet"
        return f"<Run of {len(self.plan.frames)} frames into {self.out}: {done}>"

    def __call__(self) -> list[Outcome]:
        """Reduce the night, or go on where the same call was interrupted."""
        for folder in (self.out / "masters", self.out / "pictures"):
            folder.mkdir(parents=True, exist_ok=True)
        journal = NightJournal(self.plan, self.out, self.format, break_lock=self.break_lock)
        # What a night that goes on has begun may be replaced: nothing was there when it began, or it was asked for.
        self.overwrite |= journal.begin(self._check_targets, overwrite=self.overwrite)
        self.state, self.begun, self._start = (
            "running",
            datetime.now(UTC).isoformat(timespec="seconds"),
            time.monotonic(),
        )
        self._record = RecordFile(self.out)
        try:
            # First, because measured gains change the plan that all masters and frames follow.
            self.measure()
            maker = MasterMaker(self.plan, self.made)
            for name, groups in master_files(self.plan.groups).items():
                self._keep(journal, name, groups[0].kind, partial(self._make_masters, name, groups, maker))
                self._take(name, groups)
            for name, frame_plans in exposures(self.plan.science).items():
                self._keep(journal, name, "science", partial(self._reduce, name, frame_plans))
        # Also after Ctrl-C: the same command must be able to go on.
        except BaseException:
            self.state = "stopped"
            self._record.write(self, now=True)
            journal.release()
            raise
        self.state = "ended"
        # Before the journal goes: a process that dies in between loses nothing.
        self._record.write(self, now=True)
        journal.end()
        return self.outcomes

    @property
    def seconds(self) -> float:
        """How long the call has lasted."""
        return time.monotonic() - self._start

    @property
    def exit_status(self) -> int:
        """0 all complete, 3 some lack more than was allowed, 1 something failed."""
        if any(outcome.status in {"FAILED", "BLOCKED"} for outcome in self.outcomes):
            return 1
        # What only the pixels showed is not in the plan.
        found = any(doubt.kind in FOUND for o in self.outcomes if o.kind == "science" for doubt in o.doubts)
        return self.plan.exit_status or (3 if found else 0)

    def target(self, name: str) -> Path:
        """Return the path of a science product."""
        return self.out / f"{self.plan.product_names[name]}_red.{self.format}"

    @property
    def _writing(self) -> dict[str, Any]:
        """How products are written."""
        return {"overwrite": self.overwrite, "verify": self.verify, "break_lock": self.break_lock}

    def _check_targets(self) -> None:
        """Refuse to begin where products exist."""
        targets = [self.target(name) for name in exposures(self.plan.science)]
        paths = targets + [self.out / "masters" / f"{name}.fits" for name in master_files(self.plan.groups)]
        there = [path for path in paths if path.exists()]
        if there and not self.overwrite:
            raise TargetExistsError(
                f"{len(there)} products exist already, such as {there[0]}; pass --overwrite to replace them, or another -o."
            )

    def measure(self) -> None:
        """Measure gain and read noise from pairs, and use them where nothing is stated or it was asked for."""
        for pairs in self.plan.pairs:
            self.report(f"measuring {pairs.zero}")
            try:
                found = measure_pairs(self.plan, pairs)
            except LazyCCDError as error:
                self.doubts.append(
                    Doubt("measured", f"gain and read noise cannot be measured from {pairs.zero}: {error}")
                )
                continue
            for item in found:
                if item.used:
                    fact = Fact(item.value, MEASURED, measured=item.value)
                # All frames of these masters were read alike, so what the pairs say is true of them too.
                else:
                    doubt = item.stated.doubt if item.doubt is None else item.text
                    fact = replace(item.stated, doubt=doubt, measured=item.value)
                self.plan = self.plan.with_fact(pairs.frames, item.name, fact)
            self.measurements += found

    def _keep(self, journal: NightJournal, name: str, kind: str, make: Callable[[], Outcome]) -> None:
        """Make one product, unless it is done; keep what goes wrong to it."""
        self.report(name)
        known = journal.known(name, verify=self.verify)
        if known is not None:
            # The report of a night that went on shows all products, as if it had never stopped.
            self.outcomes.append(Outcome.from_record(known))
            return
        begin = time.monotonic()
        missing = self._missing_masters(name, kind)
        try:
            outcome = _blocked(name, kind, missing) if missing else make()
        # What a file or an array can cause stays with its product; a mistake of ours must stop the night.
        except (LazyCCDError, OSError, ValueError, ArithmeticError) as error:
            notes = "; ".join(getattr(error, "__notes__", ()))
            reason = f"{error}{f' ({notes})' if notes else ''}"
            outcome = Outcome(name, kind, "FAILED", (Doubt("failed", reason),))
        if not outcome.is_made:
            self.made.failed[name] = outcome.reason
        self.outcomes.append(replace(outcome, seconds=time.monotonic() - begin))
        # A failure is tried again: its cause may be gone.
        if outcome.is_made:
            journal.add(name, outcome.path, asdict(self.outcomes[-1]))
        self._record.write(self)

    def _missing_masters(self, name: str, kind: str) -> dict[str, str]:
        """Return the masters that a product needs and that could not be made, and why."""
        choices = (choice for item in self.plan.members_of(name, kind) for choice in item.choices if choice)
        files = (self.plan.master_file(choice.master) for choice in choices if not choice.is_file)
        return {file: self.made.failed[file] for file in files if file in self.made.failed}

    def _take(self, name: str, groups: list[MasterGroup]) -> None:
        """Note where the masters of a file are, unless they failed."""
        # Frames that need a failed master then say so, instead of being reduced without it.
        if name not in self.made.failed:
            self.made.paths |= master_locations(self.outcomes[-1].path, groups)
            found = tuple(doubt for doubt in self.outcomes[-1].doubts if doubt.kind in FOUND)
            self.made.doubts |= {group.name: found for group in groups}

    def _make_masters(self, name: str, groups: list[MasterGroup], maker: MasterMaker) -> Outcome:
        """Make and write the masters of one file."""
        masters = [maker.make(group) for group in groups]
        members = [self.plan.members(group.name) for group in groups]
        path = self.out / "masters" / f"{name}.fits"
        written = str(io.to_fits(as_masters(members, [master.frame for master in masters]), path, **self._writing))
        found = self._check_flats(written, members) if groups[0].kind == "flat" else ()
        picture = self._picture(written, name)
        messages = {some[0].child: master.messages for some, master in zip(members, masters, strict=True)}
        least = least_complete([member for some in members for member in some])
        doubts = merge_doubts({some[0].child: master.doubts for some, master in zip(members, masters, strict=True)})
        return Outcome(
            name,
            groups[0].kind,
            "PARTIAL" if doubts or found or least.doubts else "DONE",
            (*least.doubts, *doubts, *found),
            written,
            used=tuple(dict.fromkeys(exposure_name(member) for some in members for member in some)),
            messages=merge_messages(messages),
            left_out={member: why for master in masters for member, why in master.left_out.items()},
            picture=picture,
            **asdict(numbers_of(frames_by_name(open_image(written)).values())),
        )

    def _check_flats(self, path: str, members: list[tuple[FramePlan, ...]]) -> tuple[Doubt, ...]:
        """Return what the pixels of flats that were written say against them."""
        flats = frames_by_name(open_image(path)).values()
        plain = {
            some[0].child: flat for some, flat in zip(members, flats, strict=True) if is_plain_image(some[0].facts)
        }
        return merge_doubts({child: check_flat(flat) for child, flat in plain.items()})

    def _reduce(self, name: str, frame_plans: list[FramePlan]) -> Outcome:
        """Reduce and write an exposure, and check what was written."""
        reduced = reduce_exposure(self.plan, frame_plans, self.made)
        path = self._write(name, reduced)
        messages, spoiled = self._check(path, reduced, frame_plans[0])
        # Only the pixels that were written say whether stars were taken for cosmic rays; then the frame gets them back.
        if spoiled:
            reduced = reduce_exposure(self.plan, frame_plans, self.made, spoiled)
            path = self._write(name, reduced, overwrite=True)
        picture = self._picture(path, self.plan.product_names[name], self._before(frame_plans))
        # What was written is read back, so the noise in the report is that of the file.
        products = list(frames_by_name(open_image(path)).values())
        return Outcome(
            name,
            "science",
            reduced.status,
            (*merge_doubts({item.child: item.doubts for item in frame_plans}), *reduced.doubts),
            path,
            used=reduced.masters,
            messages=(*reduced.messages, *messages),
            noise_before=float(np.median([self._raw_noise(item) for item in frame_plans])),
            picture=picture,
            **asdict(numbers_of(products)),
        )

    def _write(self, name: str, reduced: Reduced, **more: bool) -> str:
        """Write a science product."""
        outputs, exposure = self.plan.recipe.outputs, reduced.exposure
        frames = {key: with_planes(frame, outputs.planes) for key, frame in frames_by_name(exposure).items()}
        exposure = with_frames(exposure, frames)
        how = {**self._writing, **more, **({} if outputs.quantize is None else {"quantize": outputs.quantize})}
        if self.format == "zarr":
            return str(io.to_zarr(exposure, self.target(name), **how))
        return str(io.to_fits(exposure, self.target(name), compress=outputs.compress, **how))

    def _check(self, path: str, reduced: Reduced, frame_plan: FramePlan) -> tuple[tuple[str, ...], dict[str, Doubt]]:
        """Return what is said of the cosmic rays of a product, and which of its frames their removal has damaged."""
        products = frames_by_name(open_image(path)).values()
        messages: dict[str, tuple[str, ...]] = {}
        spoiled: dict[str, Doubt] = {}
        for product, (part, cleaned) in zip(products, reduced.cleaned.items(), strict=True):
            texts, doubt = check_cleaning(product, cleaned, frame_plan.facts)
            messages[part] = (*cleaned.messages, *texts)
            if doubt is not None:
                spoiled[part] = doubt
                left = self.plan.options.cosmic_rays != "fill"
                messages[part] = (
                    *cleaned.messages,
                    "cosmic rays left in" if left else "cosmic rays replaced, as asked",
                )
        return merge_messages(messages), spoiled

    def _picture(self, path: str, name: str, before: Exposure | None = None) -> str:
        """Draw a product, and return the path of the picture if one was drawn."""
        if not self.plan.recipe.outputs.pictures:
            return ""
        target = self.out / "pictures" / f"{name.replace(os.sep, '_')}.png"
        self.draw(path, target, before)
        return str(target) if target.exists() else ""

    def _raw_noise(self, frame_plan: FramePlan) -> float:
        """Return the noise of a raw pixel in the units of the product, or before and after could not be compared."""
        return noise(open_raw(frame_plan)) * (self._gain(frame_plan) or 1.0)

    def _gain(self, frame_plan: FramePlan) -> float | None:
        """Return the electrons of an adu, if products are in electrons."""
        return frame_plan.facts.gain.value if self.plan.recipe.step("gain_correct") is not None else None

    def _before(self, frame_plans: list[FramePlan]) -> Exposure:
        """Return a raw exposure in the units of its product."""
        frames = {}
        for item in frame_plans:
            raw, gain = open_raw(item), self._gain(item)
            frames[item.child] = raw if gain is None else ops.with_unit(ops.multiply(raw, gain), u.electron)
        return make_tree(frames, {}) if len(frames) > 1 else next(iter(frames.values()))


def _blocked(name: str, kind: str, missing: dict[str, str]) -> Outcome:
    """Return the outcome of a product whose masters could not be made."""
    doubts = tuple(
        Doubt("blocked", f"it needs {master}, which could not be made: {why}") for master, why in missing.items()
    )
    return Outcome(name, kind, "BLOCKED", doubts, blocked_by=tuple(missing))
