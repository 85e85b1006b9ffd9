"""Save the plan of a night as a table, ``night.ecsv``, that a user reads, edits and runs; a row per file.

You may edit the type, the facts in their columns, the group, and the masters (names of groups, or paths of files, absolute or
below the night's folder). Status LISTED leaves a file out, and so does deleting its row. COMPLETE or PARTIAL instead of REFUSED
reduces it nevertheless. The other columns are for reading: they follow from these.

Editing a type or a fact changes what depends on it: groups and masters that you did not edit are chosen anew, so that a frame
that becomes a flat joins its flats. A type that was only guessed from a name counts as confirmed once a table has it.

`load_table` makes a plan of the headers alone, and compares: a cell that says something else than that plan is an edit. How a
plan is made is in `lazyccd.batch.make_plan`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from astropy.table import Table

from lazyccd.batch.amplifiers import file_and_hdu
from lazyccd.batch.associate import is_same_exposure
from lazyccd.batch.classify import CALIBRATIONS, calibration_of
from lazyccd.batch.collect import NightFiles, Skipped, collect
from lazyccd.batch.describe import Edit
from lazyccd.batch.existing_masters import treatment_of
from lazyccd.batch.make_plan import build_plan, inherit, make_group
from lazyccd.batch.night_plan import Choice, FramePlan, MasterGroup, NightPlan
from lazyccd.batch.options import Options
from lazyccd.batch.recipe.recipe import Recipe, read_recipe
from lazyccd.errors import FormatError, MissingFileError, ParameterError, TargetExistsError

FACT_COLUMNS = ("type", "mode", "exposure", "filter", "gain", "readnoise", "saturate", "overscan", "trim")
"""Facts that may be edited; an empty cell means that there is none."""

MASTER_COLUMNS = ("bias", "dark", "flat", "bpm")
COLUMNS = (
    "file",
    *FACT_COLUMNS,
    "group",
    *MASTER_COLUMNS,
    "levels",
    "status",
    "reason",
    "decided_by",
    "why",
    "why_not",
)
UNUSABLE = "UNUSABLE"
"""Status of a file that gave no image."""

_HELP = (
    "Edit type, mode, exposure, filter, gain, readnoise, saturate, overscan, trim, group, bias, dark, flat, bpm.",
    "status LISTED, or no row, leaves a file out; COMPLETE instead of REFUSED reduces it. Other columns follow.",
)


def save_table(plan: NightPlan, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a plan as ECSV.

    Parameters
    ----------
    plan
        The plan of a night.
    path
        File to write, such as ``night.ecsv``.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    TargetExistsError
        Raised if the file exists and ``overwrite`` is false.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from lazyccd.testing import Detector, Sky, make_night
    >>> with TemporaryDirectory() as folder:
    ...     night = make_night(folder, Detector((32, 32)), Sky(stars=3), biases=2, darks=0, flats=0, lights=1)
    ...     save_table(build_plan(collect(folder)), f"{folder}/night.ecsv")
    ...     text = Path(f"{folder}/night.ecsv").read_text()
    ...     _ = Path(f"{folder}/night.ecsv").write_text(text.replace("light003.fits,science", "light003.fits,flat"))
    ...     load_table(f"{folder}/night.ecsv").frame("light003.fits").kind
    'flat'
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise TargetExistsError(f"table {str(target)!r} exists; name another, or pass overwrite=True.")
    rows = [_row(item, plan.folder) for item in plan.frames]
    rows += [_unusable_row(name, reason) for name, reason in plan.skipped]
    # Text only: a column of numbers would write a missing one as nan or masked.
    table = Table(rows=rows or None, names=COLUMNS, dtype=[str] * len(COLUMNS))
    here = target.absolute().parent
    options = asdict(plan.recipe.without_stated(plan.options, plan.folder))
    table.meta = {
        "comments": list(_HELP),
        "format_version": 1,
        # Relative, so that night and table can move together.
        "folder": os.path.relpath(plan.folder, here),
        "options": {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
    }
    # A table that was cut by a full disk would silently leave files out.
    part = target.with_name(target.name + ".part")
    table.write(part, format="ascii.ecsv", delimiter=",", overwrite=True)
    os.replace(part, target)


def load_table(path: str | Path, options: Options | None = None, recipe: Recipe | None = None) -> NightPlan:
    """Read a plan from a table, edited or not.

    The headers of the files are read again, since the table does not hold all of them. A cell that says what the headers say
    keeps its source in reports; an edited one has the table as its source.

    Parameters
    ----------
    path
        What `save_table` wrote; the night's folder is found from where the table is.
    options
        Options given now. They replace those that the table remembers, and facts among them take precedence over its cells.
    recipe
        What is done to the frames; that of the options if None.

    Returns
    -------
    NightPlan
        The plan of the files that have a row, in the order of the rows.

    Raises
    ------
    MissingFileError
        Raised if there is no table of that name.
    FormatError
        Raised if the file is no table of a night.
    ParameterError
        Raised if an edited cell cannot be used, or a file has two rows; the message names table, file and cell.
    """
    table, folder = _read(Path(path))
    source = Path(path).name
    rows = [{name: str(row[name]).strip() for name in COLUMNS} for row in table]
    names = [row["file"] for row in rows]
    if len(set(names)) != len(names):
        raise ParameterError(f"table {source!r} names a file twice; each must have one row.")
    # An option that was not given now must not undo one that the table remembers.
    given = replace(_options(table.meta, source), **(options or Options()).given)
    recipe = recipe or read_recipe(given)
    given = recipe.options_under(given, folder)
    collection = _collect(names, folder, given)
    readable = {frame.name for frame in collection.frames}
    for row in rows:
        # It has no row of its own that says what to do with it.
        if row["status"] == UNUSABLE and row["file"] in readable:
            text = f"table {source!r}: {row['file']} was unusable and can be used now"
            raise ParameterError(f"{text}; write a new table by --dry-run --save.")
    rows = [row for row in rows if file_and_hdu(row["file"]) in readable]
    # A cell that says what the headers say is no edit: it keeps its source in the report.
    automatic = build_plan(collection, given, recipe=recipe)
    there = {item.name for item in automatic.frames}
    for row in rows:
        if row["file"] not in there:
            text = f"table {source!r}: {row['file']} is now taken apart into its amplifiers in another way"
            raise ParameterError(f"{text}; write a new table by --dry-run --save.")
    edits = {row["file"]: _edit(row, automatic.frame(row["file"]), source) for row in rows}
    plan = build_plan(
        collection, given, {name: edit for name, edit in edits.items() if edit is not None}, recipe=recipe
    )
    return _apply(plan, automatic, rows, source)


def _row(item: FramePlan, folder: str) -> tuple[str, ...]:
    """Return the cells of one file."""
    facts = [_cell(item.facts.get(name).value) for name in FACT_COLUMNS]
    masters = [_master_cell(getattr(item, kind), folder) for kind in MASTER_COLUMNS]
    why = "; ".join(f"{choice.kind}: {choice.reason}" for choice in item.choices if choice)
    why_not = "; ".join(f"{choice.kind} not {name}: {why}" for choice in item.choices for name, why in choice.why_not)
    levels = "; ".join(f"{choice.kind} {choice.level}" for choice in item.choices if choice and choice.kind != "bpm")
    return (
        item.name,
        *facts,
        item.group,
        *masters,
        levels,
        item.status,
        item.reason,
        item.facts.type.source,
        why,
        why_not,
    )


def _unusable_row(name: str, reason: str) -> tuple[str, ...]:
    """Return the cells of a file that gave no image."""
    cells = {"file": name, "status": UNUSABLE, "reason": reason}
    return tuple(cells.get(column, "") for column in COLUMNS)


def _cell(value: Any) -> str:
    """Return a value so that reading it gives the same again."""
    # repr gives a float back to the bit, so an unedited table gives the same pixels.
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _master_cell(choice: Choice, folder: str) -> str:
    """Return a master's name, or its path below the night's folder where it is there."""
    # Paths below the night move with it.
    if not choice.is_file or not choice.master.startswith(folder + os.sep):
        return choice.master
    return os.path.relpath(choice.master, folder)


def _read(path: Path) -> tuple[Table, str]:
    """Return the table, and the night's folder."""
    try:
        table = Table.read(path, format="ascii.ecsv", fill_values=None)
    except FileNotFoundError:
        raise MissingFileError(f"table {str(path)!r} does not exist; write one by --dry-run --save.") from None
    except Exception as error:
        raise FormatError(f"table {str(path)!r} is not ECSV: {error}; write a new one by --dry-run --save.") from error
    lacking = [name for name in COLUMNS if name not in table.colnames]
    if lacking or "folder" not in table.meta:
        what = f"column {lacking[0]!r}" if lacking else "the folder in its header"
        raise FormatError(f"table {str(path)!r} lacks {what}; write a new one by --dry-run --save.")
    return table, os.path.normpath(os.path.join(path.absolute().parent, table.meta["folder"]))


def _options(meta: dict[str, Any], source: str) -> Options:
    """Return the options that a table remembers."""
    known = {item.name for item in fields(Options)}
    stored = meta.get("options", {})
    for name in sorted(set(stored) - known):
        raise FormatError(f"table {source!r}: option {name!r} must be one of {', '.join(sorted(known))}.")
    cells: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return Options(**cells)


def _collect(names: list[str], folder: str, options: Options) -> NightFiles:
    """Read the headers of a table's files, in its order."""
    if not names:
        return NightFiles(folder, ())
    # amplifiers of one image are rows of their own
    names = list(dict.fromkeys(map(file_and_hdu, names)))
    paths = [name if "://" in name else os.path.join(folder, name) for name in names]
    collection = collect(paths, options.on_error or "raise")
    # Fewer files may have a deeper folder in common; the names of the table stay.
    prefix = os.path.relpath(collection.folder, folder)
    if prefix == ".":
        return collection

    def full(name: str) -> str:
        return name if "://" in name else os.path.normpath(os.path.join(prefix, name))

    frames = tuple(replace(frame, name=full(frame.name)) for frame in collection.frames)
    return NightFiles(folder, frames, tuple(Skipped(full(name), reason) for name, reason in collection.skipped))


def _edit(row: dict[str, str], automatic: FramePlan, source: str) -> Edit | None:
    """Return what a row changes of a file's facts and status; None for nothing."""
    changed = {}
    for name in FACT_COLUMNS:
        if row[name] != _cell(automatic.facts.get(name).value):
            # An emptied cell must win over the header, so it becomes a word that means nothing.
            changed[name] = row[name] or ("none" if name in {"overscan", "trim"} else "UNKNOWN")
    # Whoever runs a table has seen the types that were proposed.
    if automatic.facts.type.doubt and row["type"] != "unknown":
        changed["type"] = row["type"]
    left_out = row["status"] == "LISTED" and automatic.status != "LISTED" and "type" not in changed
    forced = row["status"] in {"COMPLETE", "PARTIAL"} and automatic.status == "REFUSED"
    if row["status"] not in {"COMPLETE", "PARTIAL", "REFUSED", "LISTED"}:
        raise ParameterError(f"table {source!r}, {row['file']}: status {row['status']!r} must be COMPLETE or LISTED.")
    return Edit(changed, left_out, forced, source) if changed or left_out or forced else None


def _apply(plan: NightPlan, automatic: NightPlan, rows: list[dict[str, str]], source: str) -> NightPlan:
    """Put the groups and masters that were edited in a table into a plan."""
    frame_plans = {item.name: item for item in plan.frames}
    wanted: dict[str, list[FramePlan]] = {}
    for row in rows:
        item = frame_plans[row["file"]]
        # A cell that is as it was saved follows the edited types and facts.
        group = item.group if row["group"] == automatic.frame(item.name).group else row["group"]
        if group and item.is_reduced:
            wanted.setdefault(group, []).append(item)
        frame_plans[item.name] = replace(item, group=group if item.is_reduced else "")
    groups = _groups(plan.groups, wanted, source)
    changed = replace(plan, groups=groups)
    kinds = {group.name: group.kind for group in groups}
    # Biases of the darks come first: whether a dark can be scaled depends on them.
    for row in sorted(rows, key=lambda row: frame_plans[row["file"]].kind != "dark"):
        item = frame_plans[row["file"]]
        if item.is_reduced:
            item = _masters(item, automatic.frame(item.name), row, kinds, plan.folder, source)
            frame_plans[item.name] = _check_dark(item, frame_plans, source)
    return inherit(replace(changed, frames=tuple(frame_plans[item.name] for item in plan.frames)))


def _groups(
    automatic: Iterable[MasterGroup], wanted: dict[str, list[FramePlan]], source: str
) -> tuple[MasterGroup, ...]:
    """Return the groups that a table asks for; those that nothing changed as they were."""
    as_they_were = {group.name: group for group in automatic}
    found = []
    for name, members in wanted.items():
        _check_group_name(name, members[0].name, source)
        kinds = {calibration_of(item.kind) for item in members}
        if len(kinds) != 1 or "" in kinds:
            types = ", ".join(sorted({item.kind for item in members}))
            raise ParameterError(
                f"table {source!r}: group {name!r} holds {types} frames and must hold calibrations of one kind; "
                "correct it."
            )
        before = as_they_were.get(name)
        # Its reasons stay those of the plan, not of the table.
        if before is not None and set(before.members) == {item.name for item in members}:
            found.append(before)
            continue
        members.sort(key=lambda item: (item.facts.time.value is None, item.facts.time.value or 0.0, item.name))
        found.append(make_group(kinds.pop(), members, (), name, f"as {source} says"))
    order = list(as_they_were)
    place = {name: order.index(name) if name in order else len(order) for name in wanted}
    return tuple(sorted(found, key=lambda group: (CALIBRATIONS.index(group.kind), place[group.name])))


def _check_group_name(name: str, file: str, source: str) -> None:
    """Refuse a name that is none of a file in the folder of masters: products never leave their folder."""
    if name.startswith(".") or not re.fullmatch(r"[\w .+-]{1,100}", name):
        raise ParameterError(
            f"table {source!r}, {file}: group {name!r} becomes the name of a file, and must have letters, digits, '_', '.', '+', "
            "'-' and blanks only, 100 at most, and begin with no '.'; correct it."
        )


def _masters(
    item: FramePlan, automatic: FramePlan, row: dict[str, str], kinds: dict[str, str], folder: str, source: str
) -> FramePlan:
    """Return a frame plan with the masters that were edited in its row."""
    for kind in MASTER_COLUMNS:
        before, choice = (getattr(each, kind) for each in (automatic, item))
        is_there = choice.is_file or not choice or choice.master in kinds
        # An unedited cell keeps its reasons and its distance in time.
        if row[kind] in {_master_cell(before, folder), _master_cell(choice, folder)} and is_there:
            continue
        changed: dict[str, Any] = {kind: _choice(item, kind, row[kind], kinds, folder, source)}
        item = replace(item, **changed)
    return item


def _choice(item: FramePlan, kind: str, cell: str, kinds: dict[str, str], folder: str, source: str) -> Choice:
    """Return the master that an edited cell names."""
    where = f"table {source!r}, {item.name}: {kind} {cell!r}"
    if not cell:
        return Choice(kind, why=f"as {source} says")
    if cell in kinds:
        if kinds[cell] != kind:
            raise ParameterError(f"{where} is a group of {kinds[cell]} frames and must be one of {kind} frames.")
        return Choice(kind, cell, f"as {source} says")
    path = os.path.normpath(os.path.join(folder, cell))
    if not os.path.exists(path):
        raise ParameterError(f"{where} is neither a group of the table ({', '.join(kinds) or 'none'}) nor a file.")
    treatment, doubts = treatment_of(path, kind)
    return Choice(kind, path, f"as {source} says", is_file=True, is_named=True, doubts=doubts, treatment=treatment)


def _check_dark(item: FramePlan, frame_plans: dict[str, FramePlan], source: str) -> FramePlan:
    """Return a frame plan whose dark has its factor; a dark is scaled only if both are bias-subtracted."""
    members = [
        frame_plan for frame_plan in frame_plans.values() if frame_plan.group and frame_plan.group == item.dark.master
    ]
    if item.dark.is_file or not members:
        return item
    where = f"table {source!r}, {item.name}: dark {item.dark.master!r}"
    subtracted = all(frame_plan.bias for frame_plan in members)
    if not subtracted and item.bias:
        raise ParameterError(f"{where} contains the bias and must be used without one; empty one of both cells.")
    ours, theirs = item.facts.exposure.value, members[0].facts.exposure.value
    scale = 1.0
    if ours and theirs and not is_same_exposure(ours, theirs):
        if not subtracted or not item.bias:
            raise ParameterError(
                f"{where} of {theirs:g} s must be scaled to {ours:g} s, which needs a bias for both; "
                "give them one, or take a dark of equal exposure."
            )
        scale = ours / theirs
    return replace(item, dark=replace(item.dark, scale=scale, exposure=theirs, contains_bias=not subtracted))
