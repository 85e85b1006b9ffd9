"""Go on with a night: which products are up to date, whether what was asked for is still the same, and what is left behind.

Each product has a fingerprint of all that it is made of (`fingerprints`): the state of its files, its plan, its masters. A product whose
fingerprint was noted is kept; so after an interruption, a failure, a veto or new frames, only what is new, failed or affected is
made. Notes are in ``run.json`` (`lazyccd.batch.record`), while a run lasts also in a journal as those of `lazyccd.io.resumable`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from lazyccd.batch.cameras import FACTS
from lazyccd.batch.exposures import exposures, master_files
from lazyccd.batch.night_plan import FramePlan, NightPlan, exposure_name
from lazyccd.batch.options import SETTINGS
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.record import read_record, settings_of
from lazyccd.errors import ResumeError, TargetExistsError
from lazyccd.io.names import split_hdu
from lazyccd.io.resumable.disk import checksum
from lazyccd.io.resumable.progress import Progress

Receipt: TypeAlias = dict[str, Any]
"""What is noted of a product: path, size, crc32c, key (its fingerprint), outcome, frames and masters by name."""

READ_BYTES = 1 << 18
"""Bytes of a product that are read at a time for its checksum: so few stay in the cache of the processor, which halves the time."""

OUTDATED = "outdated"
"""Folder, below that of the products, of those that the night no longer has."""


class NightJournal:
    """What is noted of the products of a night, in the folder of these products.

    Parameters
    ----------
    plan
        The plan of the night.
    out
        Folder of the products.
    format
        Format of the products.
    break_lock
        Begin even though a lease says that another process reduces this night and that process may still run.
    """

    def __init__(self, plan: NightPlan, out: Path, format: str, *, break_lock: bool) -> None:
        self._out = out
        self._settings = settings_of(plan, format)
        # What may not differ is compared with run.json, which stays when this is gone.
        self._progress = Progress.of(f"{out}/night", {"layout": "night"}, title=str(out), break_lock=break_lock)
        self.receipts: dict[str, Receipt] = {}

    def begin(self, targets: Mapping[str, Path], *, overwrite: bool) -> None:
        """Begin a night, or go on with it.

        Parameters
        ----------
        targets
            Path of each product, by its name.
        overwrite
            Forget what was made before, and replace what exists.

        Raises
        ------
        ResumeError
            Raised if the folder holds products of another night or with other settings, and ``overwrite`` is false; the message
            says what differs.
        TargetExistsError
            Raised if a product exists that no run noted, and ``overwrite`` is false.
        TargetBusyError
            Raised if another process reduces it.
        """
        resumed = self._progress.begin(lambda: None, lambda: True, lambda: None, overwrite=overwrite)
        try:
            if not overwrite:
                record = read_record(self._out)
                # The journal has what the record did not come to say.
                self.receipts = receipts_of(record, self._out) | (self._progress.receipts() if resumed else {})
                # A night of which nothing could be made leaves nothing that another one could be mixed with.
                if resumed or self.receipts:
                    self._check_settings(record)
                # What was killed between its final name and its note is ours too, and has a journal.
                if not resumed:
                    self._check_targets(targets)
            self._progress.keep(self.receipts)
        except BaseException:
            if resumed:
                self._progress.release()
            else:
                self._progress.end()
            raise

    def _check_settings(self, record: Mapping[str, Any]) -> None:
        """Refuse to mix products of two nights or settings in one folder."""
        if not record:
            return
        before = record.get("settings", {})
        changed = [
            f"{_worded(name)} was {before.get(name, '')!r} and is {self._settings.get(name, '')!r}"
            for name in dict.fromkeys([*self._settings, *before])
            if before.get(name, "") != self._settings.get(name, "")
        ]
        if changed:
            raise ResumeError(
                f"{self._out} holds products of another run: {'; '.join(changed)}; pass overwrite=True to make all of them "
                "again, repeat the previous call to go on with it, or name another folder."
            )

    def _check_targets(self, targets: Mapping[str, Path]) -> None:
        """Refuse to replace what no run has noted."""
        ours = {os.path.abspath(noted["path"]) for noted in self.receipts.values()}
        there = [path for path in targets.values() if path.exists() and os.path.abspath(path) not in ours]
        if there:
            raise TargetExistsError(
                f"{len(there)} products exist already, such as {there[0]}; pass --overwrite to replace them, or another -o."
            )

    def known(self, name: str, key: str, *, verify: bool) -> Outcome | None:
        """Return what became of a product; None if it must be made.

        Parameters
        ----------
        name
            Name of the product.
        key
            Its fingerprint now; empty to accept any.
        verify
            Compare the checksum of its file or store with the one noted, rather than its size only.
        """
        noted = self.receipts.get(name)
        if noted is None or key not in {"", noted["key"]}:
            return None
        path = Path(noted["path"])
        # Comparing sizes finds what an interruption cuts; after a power failure only checksums find pages that were
        # never written.
        if _size(path) != noted["size"] or (verify and _checksum(path) != noted["crc32c"]):
            return None
        return Outcome.from_record(noted["outcome"])

    def add(self, outcome: Outcome, key: str, members: Iterable[FramePlan], masters: Iterable[str]) -> None:
        """Note that a product is complete, with size and checksum of its file or store, and what it was made of."""
        file = Path(outcome.path)
        receipt = {
            "path": outcome.path,
            "size": _size(file),
            "crc32c": _checksum(file),
            "key": key,
            "outcome": asdict(outcome),
            "frames": list(dict.fromkeys(map(exposure_name, members))),
            "masters": list(masters),
        }
        self.receipts[outcome.name] = receipt
        self._progress.add(outcome.name, receipt)

    def put_away(self, plan: NightPlan, targets: Mapping[str, Path]) -> list[str]:
        """Move products that the night no longer has into a folder of their own, and return what was moved.

        They are those whose frames are all part of the night and no longer become this product: a frame was vetoed, or a master
        has another name. Products of frames that were not named this time stay.
        """
        frames = {exposure_name(item) for item in plan.frames}
        gone = [
            name
            for name, noted in self.receipts.items()
            if frames.issuperset(noted["frames"])
            and (name not in targets or os.path.abspath(targets[name]) != os.path.abspath(noted["path"]))
        ]
        return [path for name in gone for path in self.drop(name)]

    def drop(self, name: str) -> list[str]:
        """Move a product that is no longer true, if there is one, and return where it is now."""
        noted = self.receipts.pop(name, None)
        if noted is None:
            return []
        paths = [Path(path) for path in (noted["path"], noted["outcome"]["picture"]) if path]
        paths += [raw_picture(path) for path in paths[1:]]
        moved = [str(_move(path, self._out)) for path in paths if path.exists()]
        self._progress.keep(self.receipts)
        return moved

    def release(self) -> None:
        """Give up the lease, so that another process may resume; what was noted stays."""
        self._progress.release()

    def end(self) -> None:
        """Remove the journal and the lease: all is in the record."""
        self._progress.end()


def receipts_of(record: Mapping[str, Any], out: Path) -> dict[str, Receipt]:
    """Return what a record notes of the products that were made.

    Parameters
    ----------
    record
        What ``run.json`` says; empty where there is none.
    out
        Folder that its paths are relative to.
    """
    found = {}
    for entry in (*record.get("products", ()), *record.get("others", ())):
        receipt = entry.get("receipt")
        if not receipt or not _is_below(out, entry["path"]) or not _is_below(out, entry["picture"] or "."):
            continue
        path, picture = (str(out / entry[key]) if entry[key] else "" for key in ("path", "picture"))
        told = {key: entry[key] for key in Outcome.names() if key in entry}
        # A run that was limited to others says SKIPPED of it, and keeps what it was.
        outcome = {**told, "path": path, "picture": picture, **receipt.get("outcome", {})}
        masters = [master["name"] for some in entry["masters"].values() for master in some]
        found[entry["name"]] = {
            **receipt, "path": path, "outcome": outcome, "frames": entry["frames"], "masters": masters
        }  # fmt: skip
    return found


def _is_below(out: Path, path: str) -> bool:
    """Return whether a path of a record is that of something in the folder: what is outdated is moved, and what is not ours is not."""
    return bool(path) and Path(os.path.abspath(out / path)).is_relative_to(os.path.abspath(out))


def fingerprints(plan: NightPlan) -> dict[str, str]:
    """Return for each product of a night what tells whether it must be made again, by its name.

    Two equal ones have the same files in the same state, treated alike, with masters of which the same is true.
    """
    states: dict[str, str] = {}
    # Files that steps of the recipe read; its parameters are settings, which all products share.
    files = sorted(plan.recipe.files(plan.folder).values())

    def state(source: str) -> str:
        path = split_hdu(source)[0]
        if path not in states:
            states[path] = _state(Path(path))
        return states[path]

    def describe(item: FramePlan) -> object:
        facts = [item.facts.get(name).value for name in FACTS]
        masters = []
        for choice in item.choices:
            made = state(choice.master) if choice.is_file else found.get(plan.master_file(choice.master), "")
            # Not why, nor how far in time: another candidate that is not taken changes no product.
            masters.append(
                (choice.kind, choice.master, made, choice.scale, choice.contains_bias, choice.level, choice.treatment)
            )
        doubts = [str(doubt) for doubt in item.doubts]
        taps = () if item.tap is None else (item.tap,)
        return item.name, state(item.source), *map(state, files), facts, masters, doubts, plan.bias_noise(item), *taps

    found: dict[str, str] = {}
    for name, groups in master_files(plan.groups).items():
        found[name] = _digest([[describe(item) for item in plan.members(group.name)] for group in groups])
    for name, frame_plans in exposures(plan.science).items():
        found[name] = _digest([describe(item) for item in frame_plans])
    return found


def affected(plan: NightPlan, receipts: Mapping[str, Receipt], names: Iterable[str]) -> set[str]:
    """Return the products that some frames go into, now or when they were made, and those that rest on these."""
    frames, found = set(names), set[str]()
    products = [(name, False) for name in master_files(plan.groups)] + [
        (name, True) for name in exposures(plan.science)
    ]
    for name, is_science in products:
        members = plan.members_of(name, "science" if is_science else "")
        masters = {plan.master_file(choice.master) for item in members for choice in item.choices if choice}
        before = receipts.get(name, {"frames": (), "masters": ()})
        if frames & {*map(exposure_name, members), *before["frames"]} or found & {*masters, *before["masters"]}:
            found.add(name)
    return found


def with_masters(plan: NightPlan, names: Iterable[str]) -> set[str]:
    """Return products and the masters of the night that they need."""
    wanted = set(names)
    # The last first: what a flat needs is known once it is known that the flat is needed.
    for name in reversed([*master_files(plan.groups), *exposures(plan.science)]):
        if name in wanted:
            members = (*plan.members_of(name, ""), *plan.members_of(name, "science"))
            choices = (choice for item in members for choice in item.choices if choice and not choice.is_file)
            wanted |= {plan.master_file(choice.master) for choice in choices}
    return wanted


def _digest(content: object) -> str:
    """Return the fingerprint of what a product is made of; repr gives floats to the bit."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def raw_picture(picture: Path) -> Path:
    """Return where the picture of the raw frame is that belongs to one of a product."""
    return picture.with_name(f"{picture.stem}_raw{picture.suffix}")


def _move(path: Path, out: Path) -> Path:
    """Move a product below the folder of what is outdated, under a name that is free."""
    target = out / OUTDATED / os.path.relpath(path, out)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = next(
        each
        for number in itertools.count(1)
        if not (each := target if number == 1 else target.with_name(f"{target.stem}_{number}{target.suffix}")).exists()
    )
    os.replace(path, free)
    return free


OUTPUT_OPTIONS = {"format": "--format", "recipe outputs compress": "--compress"}
"""Settings of outputs that have an option."""


def _worded(name: str) -> str:
    """Return how a setting is called: options as on the command line."""
    return f"--{name.replace('_', '-')}" if name in SETTINGS else OUTPUT_OPTIONS.get(name, name)


def _state(path: Path) -> str:
    """Return what tells one state of a file from another."""
    try:
        found = path.stat()
    except OSError:
        return "not a local file"
    # Reading all inputs to compare them would take as long as the reduction.
    return f"{found.st_size} bytes, mtime {found.st_mtime_ns} ns"


def _size(path: Path) -> int | None:
    """Return the bytes of a file, or of all files of a store; None if it is not there."""
    return sum(file.stat().st_size for file in _files(path)) if path.exists() else None


def _checksum(path: Path) -> int:
    """Return the CRC32C of a file, or of the names and contents of all files of a store."""
    return checksum(_content(path))


def _files(path: Path) -> list[Path]:
    """Return a file, or all files of a store by their names."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _content(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, or of all files of a store with their names."""
    for each in _files(path):
        if each != path:
            yield each.relative_to(path).as_posix().encode()
        with each.open("rb", buffering=0) as file:
            yield from iter(lambda: file.read(READ_BYTES), b"")
