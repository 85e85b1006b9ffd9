"""The order of work: plan, measure, make masters, reduce exposures; each failure is kept to its own product.

What is done to pixels is elsewhere: `measure`, `make_masters` and `calibrate`. An interrupted night goes on by `resume`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u

from lazyccd import io, ops
from lazyccd.batch.calibrate import MadeMasters, Reduced, chosen, is_plain_image, masters_of, reduce_exposure
from lazyccd.batch.check_steps import check_flat
from lazyccd.batch.chunks import in_chunks
from lazyccd.batch.classify import CALIBRATIONS
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
from lazyccd.batch.make_masters import MasterMaker, unreadable
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.measure import (
    Measurement,
    Numbers,
    compare_masters,
    measure_pairs,
    noise,
    numbers_of,
    treatment_of,
    why_not_comparable,
)
from lazyccd.batch.metadata import MEASURED, Fact
from lazyccd.batch.night_plan import FOUND, Doubt, FramePlan, MasterGroup, NightPlan, exposure_name
from lazyccd.batch.options import Options
from lazyccd.batch.outcome import UNREADABLE, Outcome
from lazyccd.batch.overlap import in_order, one_pool, works_at_a_time
from lazyccd.batch.recipe.recipe import Recipe, read_recipe
from lazyccd.batch.record import RecordFile
from lazyccd.batch.resume import NightJournal, Receipt, affected, fingerprints, with_masters
from lazyccd.batch.run_log import RunLog
from lazyccd.batch.table import load_table
from lazyccd.batch.veto import frames_called, remember
from lazyccd.errors import FormatError, LazyCCDError, ParameterError
from lazyccd.frame.header import header_view
from lazyccd.frame.tree import make_tree
from lazyccd.io.names import Name
from lazyccd.io.open import open_image
from lazyccd.io.resumable.progress import versions

Format: TypeAlias = Literal["fits", "zarr"]
Compress: TypeAlias = Literal["RICE_1", "GZIP_2", "HCOMPRESS_1", "none"]
Report: TypeAlias = Callable[[str], None]
Exposure: TypeAlias = xr.Dataset | xr.DataTree
Draw: TypeAlias = Callable[[str, Path, Exposure | None], None]
CAUSED_BY_FILES = (LazyCCDError, OSError, ValueError, ArithmeticError)
"""What a file or an array can cause stays with its product; a mistake of ours must stop the night."""


def stays_with_product() -> tuple[type[Exception], ...]:
    """Return the errors that cost a product and not the night; on a cluster also that its workers died of it."""
    # A process that never imported it has no cluster.
    distributed: Any = sys.modules.get("distributed")
    return CAUSED_BY_FILES if distributed is None else (*CAUSED_BY_FILES, distributed.KilledWorker)


State: TypeAlias = Literal["running", "stopped", "ended"]


def plan_night(
    night: Name | Iterable[Name],
    options: Options,
    recipe: Recipe | None = None,
    *,
    only: Collection[str] | None = None,
    compress: Compress | None = None,
) -> NightPlan:
    """Return the plan of a night, from files or from a table.

    Parameters
    ----------
    night
        What was named.
    options
        What was asked for; it takes precedence over what the recipe states.
    recipe
        What is done to the frames; that of the options if None.
    only
        Paths of the files that are looked at, of folders that still fill; all if None.
    compress
        How FITS products are compressed; as the recipe says if None.
    """
    plan = _planned(night, options, recipe, only)
    if compress is None:
        return plan
    given = None if compress == "none" else compress
    return replace(plan, recipe=plan.recipe.with_outputs(compress=given))


def format_of(plan: NightPlan, asked: Format | None, compress: Compress | None) -> Format:
    """Return the format of science products: as asked for, else as the recipe says.

    Raises
    ------
    ParameterError
        Raised if a compression of FITS is asked for, and products are Zarr.
    """
    found: Format = asked or plan.recipe.outputs.format
    if found == "zarr" and compress not in {None, "none"}:
        raise ParameterError(f"--compress {compress} is for FITS; Zarr is always compressed. Remove it, or take FITS.")
    return found


def _planned(
    night: Name | Iterable[Name], options: Options, recipe: Recipe | None, only: Collection[str] | None
) -> NightPlan:
    """Return the plan of a night with the outputs of its recipe."""
    names = [night] if isinstance(night, (str, os.PathLike)) else list(night)
    if len(names) == 1 and os.fspath(names[0]).endswith(".ecsv"):
        return load_table(os.fspath(names[0]), options, recipe)
    recipe = recipe or read_recipe(options)
    first = os.fspath(names[0]) if names else ""
    options = recipe.options_under(options, first if os.path.isdir(first) else os.path.dirname(first))
    collection = collect(names, options.on_error or "raise", recursive=options.recursive, only=only)
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
        Is told what is begun, by any thread.
    settled
        Is told what became of each product, in their order.
    only_affected_by
        Frames: only what is made of them is made; empty for all.
    max_failures
        Stop after so many products failed; None to go on whatever happens.
    retries
        How often a product that failed is tried again at once.
    chunks
        Side of the chunks in which products are computed; None for the largest that the memory limit allows.
    go_on
        Is called when a product failed, before that is noted; raises what must end the night, such as that the cluster is lost.
    words
        Puts messages of the library into the words of the caller, such as the options of a command.
    """

    plan: NightPlan
    out: Path
    format: Format = "fits"
    overwrite: bool = False
    verify: bool = False
    break_lock: bool = False
    draw: Draw = lambda _path, _target, _before: None
    report: Report = lambda _: None
    settled: Callable[[Outcome], None] = lambda _: None
    only_affected_by: tuple[str, ...] = ()
    max_failures: int | None = None
    retries: int = 0
    chunks: int | None = None
    go_on: Callable[[], None] = lambda: None
    words: Callable[[str], str] = lambda text: text
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    measurements: list[Measurement] = field(default_factory=list, init=False)
    doubts: list[Doubt] = field(default_factory=list, init=False)
    made: MadeMasters = field(default_factory=MadeMasters, init=False)
    kept: set[str] = field(default_factory=set, init=False)
    """Products that were up to date."""

    moved: list[str] = field(default_factory=list, init=False)
    """Products of earlier runs that are true no longer, where they are now."""

    receipts: dict[str, Receipt] = field(default_factory=dict, init=False)
    state: State = field(default="running", init=False)
    begun: str = field(default="", init=False)
    """When the call began, in UTC."""

    _not_made: dict[str, Outcome] = field(default_factory=dict, init=False)
    """What became of each product that was to be made and could not."""

    _start: float = field(default=0.0, init=False)
    _keys: dict[str, str] = field(default_factory=dict, init=False)
    _wanted: set[str] | None = field(default=None, init=False)

    def __repr__(self) -> str:
        """Return how many products there are, by what became of them: the plan alone would fill pages of a notebook."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        done = ", ".join(f"{number} {status}" for status, number in counts.items()) or "no product yet"
        return f"<Run of {len(self.plan.frames)} frames into {self.out}: {done}>"

    def __call__(self) -> list[Outcome]:
        """Reduce the night, or go on with it: what is up to date stays."""
        self._begin()
        with RunLog(self.out) as self._log:
            self._log.say(f"begun: {self.plan.folder}, {len(self.plan.frames)} frames, lazyccd {versions()['lazyccd']}")
            for text in (*(f"option {name}: {value}" for name, value in self.plan.options.given.items()), *self.moved):
                self._log.say(text)
            self._go()
            self._log.say(f"{self.state}: exit status {self.exit_status}, {self.seconds:.1f} s")
        return self.outcomes

    def _go(self) -> None:
        """Measure, and make all products."""
        try:
            # First, because measured gains change the plan that all masters and frames follow.
            self.measure()
            for item in (*self.measurements, *self.doubts):
                self._log.say(str(item))
            self._keys = fingerprints(self.plan)
            maker = MasterMaker(self.plan, self.made)
            with one_pool(self._width, self._pixels):
                self._make_all(maker)
        # Also after Ctrl-C: the same command must be able to go on.
        except BaseException:
            self._end("stopped")
            raise
        self._end("stopped" if self._is_full else "ended")

    def _begin(self) -> None:
        """Take the night, and find out what was made of it before."""
        for folder in (self.out / "masters", self.out / "pictures"):
            folder.mkdir(parents=True, exist_ok=True)
        self._journal = NightJournal(self.plan, self.out, self.format, break_lock=self.break_lock)
        given = [
            name
            for each in self.only_affected_by
            for name in frames_called(each, self.plan.frames, "--only-affected-by")
        ]
        self._journal.begin(self.targets, overwrite=self.overwrite)
        self.receipts = self._journal.receipts
        if given:
            self._wanted = with_masters(self.plan, affected(self.plan, self.receipts, given))
        remember(self.out, self.plan.options, self.plan.frames)
        self.moved = self._journal.put_away(self.plan, self.targets)
        self.state, self.begun, self._start = "running", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", time.monotonic()
        self._record = RecordFile(self.out)

    def _end(self, state: State) -> None:
        """Write what became of the night, and give it back."""
        self.state = state
        # Before the journal goes: a process that dies in between loses nothing.
        self._record.write(self, now=True)
        if state == "ended":
            self._journal.end()
        else:
            self._journal.release()

    @property
    def seconds(self) -> float:
        """How long the call has lasted."""
        return time.monotonic() - self._start

    @property
    def exit_status(self) -> int:
        """0 all complete, 3 some lack more than was allowed, 1 something failed."""
        unread = any(why.startswith(UNREADABLE) for outcome in self.outcomes for why in outcome.left_out.values())
        if unread or any(outcome.status in {"FAILED", "BLOCKED"} for outcome in self.outcomes):
            return 1
        # What only the pixels showed is not in the plan.
        found = any(doubt.kind in FOUND for o in self.outcomes if o.kind == "science" for doubt in o.doubts)
        return self.plan.exit_status or (3 if found else 0)

    def target(self, name: str) -> Path:
        """Return the path of a science product."""
        return self.out / f"{self.plan.product_names[name]}_red.{self.format}"

    @property
    def targets(self) -> dict[str, Path]:
        """The path of each product, by its name."""
        masters = {name: self.out / "masters" / f"{name}.fits" for name in master_files(self.plan.groups)}
        return masters | {name: self.target(name) for name in exposures(self.plan.science)}

    @property
    def _writing(self) -> dict[str, Any]:
        """How products are written."""
        # What is not ours was refused before the night began.
        return {"overwrite": True, "verify": self.verify, "break_lock": self.break_lock}

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

    def _make_all(self, maker: MasterMaker) -> None:
        """Make masters and exposures; those that do not need each other at the same time."""
        files = master_files(self.plan.groups)
        # Kind after kind: flats are calibrated with the darks, and these with the biases.
        for kind in CALIBRATIONS:
            some = {name: groups for name, groups in files.items() if groups[0].kind == kind}
            works = {name: partial(self._make_masters, name, groups, maker) for name, groups in some.items()}
            self._keep_all(kind, works)
            for name, groups in some.items():
                self._take(name, groups)
        works = {name: partial(self._reduce, name, some) for name, some in exposures(self.plan.science).items()}
        self._keep_all("science", works)

    @property
    def _pixels(self) -> int:
        """Pixels of the largest image."""
        return max((math.prod(item.shape) for item in self.plan.frames), default=1)

    @property
    def _width(self) -> int:
        """How many products are made at a time."""
        # Which one fails first must not depend on chance.
        return 1 if self.max_failures is not None else works_at_a_time(self._pixels)

    def _keep_all(self, kind: str, works: Mapping[str, Callable[[], Outcome]]) -> None:
        """Make the products of one kind that are not up to date, some at a time; what becomes of them is noted in their order."""
        begun = (self._begun(name, kind, make) for name, make in works.items())
        for outcome, is_new in in_order(begun, self._width):
            self._settle(outcome, is_new=is_new)

    def _begun(self, name: str, kind: str, make: Callable[[], Outcome]) -> Callable[[], tuple[Outcome, bool]]:
        """Return what makes a product and says whether it is new, or knows already what became of it."""
        is_wanted = self._wanted is None or name in self._wanted
        # A run that is limited to other products leaves this one as it is, up to date or not.
        known = self._journal.known(name, self._keys[name] if is_wanted else "", verify=self.verify)
        if known is not None:
            # The report of a night that went on shows all products, as if it had never stopped.
            left = known if is_wanted else self._left_alone(known)
            return lambda: (left, False)
        why_not = self._why_not(name, kind, is_wanted=is_wanted)

        def work() -> tuple[Outcome, bool]:
            self.report(name)
            begin = time.monotonic()
            outcome = why_not or self._try(name, kind, make)
            return replace(outcome, seconds=time.monotonic() - begin), True

        return work

    def _left_alone(self, known: Outcome) -> Outcome:
        """Return what is said of a product that a limited run has not looked at: it may be out of date."""
        why = f"not affected by {', '.join(self.only_affected_by)}; that of an earlier run stays, which was {known.status}"
        return replace(known, status="SKIPPED", doubts=(Doubt("skipped", why),))

    def _settle(self, outcome: Outcome, *, is_new: bool) -> None:
        """Note what became of a product; keep what goes wrong to it."""
        name = outcome.name
        self.outcomes.append(outcome)
        if not is_new:
            # Of one that was not looked at nobody knows whether it is up to date.
            self.kept |= {name} if outcome.is_made else set()
        # A failure is tried again: its cause may be gone.
        elif outcome.is_made:
            members = self.plan.members_of(name, outcome.kind)
            self._journal.add(outcome, self._keys[name], members, masters_of(self.plan, chosen(members)))
        else:
            self.made.failed[name], self._not_made[name] = outcome.reason, outcome
            # A product of an earlier run must not look like one of this.
            if outcome.status != "SKIPPED":
                self.moved += self._journal.drop(name)
        self._log.settle(outcome, is_new=is_new)
        self.settled(outcome)
        if is_new:
            self._record.write(self)

    @property
    def _is_full(self) -> bool:
        """Whether as many products failed as may fail."""
        failed = sum(outcome.status == "FAILED" for outcome in self.outcomes)
        return self.max_failures is not None and failed >= self.max_failures

    def _why_not(self, name: str, kind: str, *, is_wanted: bool) -> Outcome | None:
        """Return the outcome of a product that is not begun; None if it is."""
        if not is_wanted:
            doubt = Doubt("skipped", f"not affected by {', '.join(self.only_affected_by)}")
            return Outcome(name, kind, "SKIPPED", (doubt,))
        if self._is_full:
            return Outcome(name, kind, "SKIPPED", (Doubt("skipped", f"not begun: {self.max_failures} failed before"),))
        missing = self._missing_masters(name, kind)
        if not missing:
            return None
        chains = dict.fromkeys(chain for master in missing for chain in self._chains(master))
        doubts = tuple(
            Doubt(
                "blocked",
                f"it needs {', which needs '.join(chain)}, which could not be made: {self._not_made[chain[-1]].reason}",
            )
            for chain in chains
        )
        return Outcome(name, kind, "BLOCKED", doubts, blocked_by=missing)

    def _chains(self, master: str) -> Iterator[tuple[str, ...]]:
        """Yield a master that could not be made, what it needed, and so on to what failed."""
        outcome = self._not_made[master]
        if not outcome.blocked_by:
            yield (master,)
        for needed in outcome.blocked_by:
            yield from ((master, *chain) for chain in self._chains(needed))

    def _try(self, name: str, kind: str, make: Callable[[], Outcome]) -> Outcome:
        """Make one product, again if it fails and that was asked for."""
        for attempt in range(self.retries + 1):
            try:
                return make()
            except stays_with_product() as error:
                self.go_on()
                notes = "; ".join(getattr(error, "__notes__", ()))
                reason = self.words(f"{error}{f' ({notes})' if notes else ''}")
                if attempt == self.retries:
                    tried = f"{reason} (tried {attempt + 1} times)" if attempt else reason
                    return Outcome(name, kind, "FAILED", (Doubt("failed", tried),))
        raise AssertionError("there is an attempt")  # pragma: no cover

    def _missing_masters(self, name: str, kind: str) -> tuple[str, ...]:
        """Return the masters that a product needs and that could not be made."""
        choices = chosen(self.plan.members_of(name, kind))
        files = (self.plan.master_file(choice.master) for choice in choices if not choice.is_file)
        return tuple(dict.fromkeys(file for file in files if file in self._not_made))

    def _take(self, name: str, groups: list[MasterGroup]) -> None:
        """Note where the masters of a file are, unless they failed."""
        outcome = next(outcome for outcome in reversed(self.outcomes) if outcome.name == name)
        # Frames that need a failed master then say so, instead of being reduced without it.
        if name not in self.made.failed:
            self.made.paths |= master_locations(outcome.path, groups)
            found = tuple(doubt for doubt in outcome.doubts if doubt.kind in FOUND)
            self.made.doubts |= {group.name: found for group in groups}

    def _make_masters(self, name: str, groups: list[MasterGroup], maker: MasterMaker) -> Outcome:
        """Make and write the masters of one file, if need be without members that cannot be read."""
        try:
            return self._combine(name, groups, maker, {})
        except CAUSED_BY_FILES:
            self.go_on()
            # One damaged file must not cost the others their master. All are read to find it, so not before.
            members = self.plan.members_of(name, groups[0].kind)
            damaged = {name: self.words(why) for name, why in unreadable(members).items()}
            if not damaged or len(damaged) == len(members):
                raise
            return self._combine(name, groups, maker, damaged)

    def _combine(self, name: str, groups: list[MasterGroup], maker: MasterMaker, damaged: dict[str, str]) -> Outcome:
        """Make and write the masters of one file."""
        masters = [maker.make(group, damaged) for group in groups]
        members = [self.plan.members(group.name) for group in groups]
        path = self.out / "masters" / f"{name}.fits"
        frames = [in_chunks(master.frame, self.chunks) for master in masters]
        written = str(io.to_fits(as_masters(members, frames), path, **self._writing))
        found = self._check_flats(written, members) if groups[0].kind == "flat" else ()
        picture = self._picture(written, name)
        messages = {some[0].child: master.messages for some, master in zip(members, masters, strict=True)}
        least = least_complete([member for some in members for member in some])
        doubts = merge_doubts({some[0].child: master.doubts for some, master in zip(members, masters, strict=True)})
        numbers = numbers_of(frames_by_name(open_image(written)).values())
        previous = self._previous(groups[0].previous, written, numbers)
        jumps = [f"jump: {text}" for text in previous.get("jumps", ())]
        return Outcome(
            name,
            groups[0].kind,
            "PARTIAL" if doubts or found or least.doubts else "DONE",
            (*least.doubts, *doubts, *found),
            written,
            used=tuple(dict.fromkeys(exposure_name(member) for some in members for member in some)),
            messages=(*merge_messages(messages), *jumps),
            left_out={member: why for master in masters for member, why in master.left_out.items()},
            picture=picture,
            previous=previous,
            **asdict(numbers),
        )

    def _previous(self, path: str, written: str, numbers: Numbers) -> dict[str, Any]:
        """Return how a master compares with the one before it, if there is one."""
        if not path or os.path.abspath(path) == os.path.abspath(written):
            return {}
        try:
            frames = list(frames_by_name(open_image(path)).values())
            before = numbers_of(frames)
        # It only tells something of the new one, which is sound without it.
        except CAUSED_BY_FILES as error:
            return {"file": path, "jumps": [f"nothing can be said: {self.words(str(error))}"]}
        ours = next(iter(frames_by_name(open_image(written)).values()))
        one, other = (treatment_of(header_view(frame.attrs["header"])) for frame in (ours, frames[0]))
        return compare_masters(numbers, before, path, why_not_comparable(one, other))

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
        frames = {
            key: in_chunks(with_planes(frame, outputs.planes), self.chunks)
            for key, frame in frames_by_name(exposure).items()
        }
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
