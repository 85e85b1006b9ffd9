"""Masters that exist already: named one by one, or all of a folder."""

from __future__ import annotations

from lazyccd.batch.associate import Candidate, check_stamps
from lazyccd.batch.cameras import Camera, cameras_of
from lazyccd.batch.classify import CALIBRATIONS, calibration_of, classify, read_stamps
from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.metadata import resolve_facts
from lazyccd.batch.night_plan import NightPlan, Options
from lazyccd.errors import FormatError, ParameterError


def existing_masters(options: Options, user: Camera | None) -> tuple[list[Candidate], tuple[str, ...]]:
    """Read the headers of the masters that were given.

    Returns
    -------
    tuple
        The masters, and notes on files of the folder that are none.

    Raises
    ------
    FormatError
        Raised if a file that was named cannot be read.
    """
    found: list[Candidate] = []
    notes: list[str] = []
    named = [(kind, path) for kind in CALIBRATIONS for path in getattr(options, kind)]
    for kind, path in [*named, *([("bpm", options.bpm)] if options.bpm else [])]:
        collection = collect([path])
        # A file that was named must serve; only those of a folder may be passed over.
        for name, reason in collection.skipped:
            raise FormatError(f"--{kind} {name} cannot be used: {reason.rstrip('.')}.")
        found += [_candidate(frame, kind, user, options, explicit=True) for frame in collection.frames]
    if options.calib:
        collection = collect(options.calib)
        notes += [f"--calib: {name} is skipped: {reason}" for name, reason in collection.skipped]
        for frame in collection.frames:
            kind = calibration_of(_type(frame, user))
            if kind:
                found.append(_candidate(frame, kind, user, options, explicit=False))
            else:
                notes.append(f"--calib: {frame.name} is skipped: it is neither bias nor dark nor flat")
    return found, tuple(notes)


def missing_use(plan: NightPlan, existing: list[Candidate]) -> tuple[str, ...]:
    """Say which masters that were named serve nothing.

    Raises
    ------
    ParameterError
        Raised if one serves nothing because it was treated differently from every frame: by overscan or trim.
    """
    notes = []
    frames = [item for item in plan.frames if item.is_reduced]
    used = {choice.master for item in frames for choice in item.choices}
    # A folder of masters holds those of other nights too; only what was named is missed.
    for master in existing:
        if not master.explicit or master.name in used or not frames:
            continue
        reasons = dict.fromkeys(
            reason
            for item in frames
            for choice in item.choices
            for name, reason in choice.why_not
            if name == master.shown
        )
        frame = frames[-1]
        # The mistake is in the call, not in the data: the user said which master, and it cannot be right.
        stamps = check_stamps(frame.facts, frame.shape, master)
        if stamps:
            raise ParameterError(
                f"--{master.kind} {master.shown} does not fit {frame.name}: {'; '.join(stamps)}; make it the same way, "
                "change --overscan or --trim, or use it as it is by --force."
            )
        notes.append(f"--{master.kind} {master.shown} is not used: {'; '.join(reasons) or 'nothing needs it'}")
    return tuple(notes)


def _type(frame: RawFrame, user: Camera | None) -> str:
    """Return the type of a master."""
    cameras = cameras_of(frame, user)
    facts = resolve_facts(frame, cameras, {})
    return classify(frame, cameras, facts.exposure, master=True).value or "unknown"


def _candidate(frame: RawFrame, kind: str, user: Camera | None, options: Options, *, explicit: bool) -> Candidate:
    """Describe a master file."""
    facts = resolve_facts(frame, cameras_of(frame, user), {})
    stamps = read_stamps(frame)
    # Without a time the master comes after all that have one.
    times = () if facts.time.value is None else (facts.time.value,)
    return Candidate(
        frame.source,
        kind,
        facts,
        frame.shape,
        times,
        count=0,
        bias_subtracted="bias" in stamps.done,
        stamps=stamps,
        trusted=options.force,
        explicit=explicit,
        label=frame.name,
    )
