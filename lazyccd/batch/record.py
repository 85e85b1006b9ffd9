"""What a run has to tell, in ``OUT/run.json``: every frame, every product, what was measured, what was asked for.

The file is replaced as a whole, so that whoever reads it finds a whole one. A night of ten thousand frames has some thirty
megabytes of it: it is written after each product as long as that takes little of the time (`RecordFile`), and at the end.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from astropy.table import MaskedColumn, Table

from lazyccd.batch.collect import RECORD
from lazyccd.batch.exposures import exposures, master_files
from lazyccd.batch.measure import Measurement
from lazyccd.batch.metadata import Fact, Facts
from lazyccd.batch.night_plan import Choice, Doubt, FramePlan, NightPlan, exposure_name
from lazyccd.batch.options import SETTINGS
from lazyccd.batch.outcome import STATUSES, UNREADABLE, Outcome
from lazyccd.errors import FormatError
from lazyccd.io.resumable.disk import explained
from lazyccd.io.resumable.progress import versions

FORMAT = 1
"""Version of the layout of the file."""

RESULTS = "results.ecsv"
"""Table of what became of each frame and product."""

NUMBERS = ("level", "noise_before", "noise_after", "noise_expected", "seconds")
RESULT_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("name", "kind", "status", "reason", "path", "night", "object", "filter"), str),
    **dict.fromkeys(("exposure", "gain", "readnoise", "saturate"), float),
    **dict.fromkeys(("bias", "dark", "flat", "bpm"), str),
    "level_of_masters": int,
    **dict.fromkeys(("bad", *NUMBERS), float),
}
"""Columns of the table and their types; ``bad`` is the part of the pixels that count as bad."""

SHARE = 20.0
"""Between two writings as many times passes what one takes, so that they are a small part of a night."""


class RunState(Protocol):
    """What a record is made of: a `lazyccd.batch.run.Run`."""

    plan: NightPlan
    out: Path
    begun: str
    outcomes: list[Outcome]
    measurements: list[Measurement]
    doubts: list[Doubt]

    @property
    def receipts(self) -> Mapping[str, Mapping[str, Any]]:
        """What is noted of each product that was made, by its name."""

    @property
    def format(self) -> str:
        """Format of the science products."""

    @property
    def state(self) -> str:
        """running, stopped or ended."""

    @property
    def seconds(self) -> float:
        """How long it has lasted."""

    @property
    def exit_status(self) -> int:
        """That of the command."""


def record_of(run: RunState) -> dict[str, Any]:
    """Return all that is known of a run, as JSON can hold it.

    Returns
    -------
    dict
        - ``state``: running, stopped or ended; ``begun``, ``written``: times in UTC; ``seconds``; ``exit_status``.
        - ``folder``, ``options``, ``versions``, ``format``, ``notes``; ``settings``: what a run that goes on must share.
        - ``counts``: for ``frames``, ``masters`` and ``science`` how many are expected, and how many have each status.
        - ``frames``: an entry for each image, and for each file that gave none (`_frame`).
        - ``products``: an entry for each master file and exposure, in the order of work (`_product`); ``others``: those that earlier
          runs into the folder made of frames that were not named this time.
        - ``measurements``: gains and read noises from pairs of frames, beside those that are stated; ``doubts`` about them.
    """
    plan, outcomes = run.plan, {outcome.name: outcome for outcome in run.outcomes}
    products = [_product(run, name, kind, outcomes.get(name)) for name, kind in products_of(plan)]
    frames = [_frame(plan, item, outcomes) for item in plan.frames]
    frames += [{"name": name, "status": "FAILED", "reason": reason} for name, reason in plan.skipped]
    masters = [item for item in products if item["kind"] != "science"]
    science = [item for item in products if item["kind"] == "science"]
    names = {item["name"] for item in products}
    return {
        "format_version": FORMAT,
        "state": run.state,
        "begun": run.begun,
        "written": _now(),
        "seconds": round(run.seconds, 3),
        "exit_status": run.exit_status,
        "folder": os.path.abspath(plan.folder),
        "format": run.format,
        "options": asdict(plan.options),
        "versions": versions(),
        "counts": {"frames": _counts(frames), "masters": _counts(masters), "science": _counts(science)},
        "notes": list(plan.notes),
        "measurements": [_measurement(item) for item in run.measurements],
        "doubts": _doubts(run.doubts),
        "settings": settings_of(plan, run.format),
        "products": products,
        "others": [_other(run, noted) for name, noted in run.receipts.items() if name not in names],
        "frames": frames,
    }


def products_of(plan: NightPlan) -> list[tuple[str, str]]:
    """Return name and kind of each product of a night, in the order of work."""
    masters = [(name, groups[0].kind) for name, groups in master_files(plan.groups).items()]
    return [*masters, *((name, "science") for name in exposures(plan.science))]


def _product(run: RunState, name: str, kind: str, outcome: Outcome | None) -> dict[str, Any]:
    """Return the entry of a product; paths are relative to the folder of the products."""
    if outcome is None:
        outcome = Outcome(name, kind, "WAITING")
    members = run.plan.members_of(name, kind)
    return {
        "name": name,
        "kind": kind,
        "status": outcome.status,
        "reason": outcome.reason,
        "doubts": _doubts(outcome.doubts),
        "blocked_by": list(outcome.blocked_by),
        "path": _below(outcome.path, run.out),
        "picture": _below(outcome.picture, run.out),
        "frames": list(dict.fromkeys(map(exposure_name, members))),
        "left_out": outcome.left_out,
        "masters": _masters(run.plan, members),
        "object": _common(item.facts.object.value for item in members),
        "filter": _common(item.facts.filter.value for item in members),
        "exposure": _common(item.facts.exposure.value for item in members),
        "night": members[0].night,
        "messages": list(outcome.messages),
        "unit": outcome.unit,
        "level": outcome.level,
        "used": list(outcome.used),
        "noise_before": outcome.noise_before,
        "noise_after": outcome.noise_after,
        "noise_expected": outcome.noise_expected,
        "planes": outcome.planes,
        "bad": outcome.bad,
        "previous": outcome.previous,
        "seconds": round(outcome.seconds, 4),
        "receipt": _receipt(run.receipts[name], outcome) if outcome.path and name in run.receipts else None,
    }


def _receipt(noted: Mapping[str, Any], outcome: Outcome | None = None) -> dict[str, Any]:
    """Return what tells later whether a product is up to date, and what became of one that this run did not look at."""
    found = {key: noted[key] for key in ("size", "crc32c", "key")}
    if outcome is None or outcome.is_made:
        return found
    return {**found, "outcome": {key: noted["outcome"][key] for key in ("status", "doubts")}}


def _other(run: RunState, noted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a product that this run has nothing to do with: an earlier one made it of frames not named now."""
    outcome = noted["outcome"]
    return {
        **outcome,
        "reason": Outcome.from_record(outcome).reason,
        "path": _below(noted["path"], run.out),
        "picture": _below(outcome["picture"], run.out),
        "frames": noted["frames"],
        "masters": {"": [{"name": master} for master in noted["masters"]]},
        "receipt": _receipt(noted),
    }


def settings_of(plan: NightPlan, format: str) -> dict[str, str]:
    """Return what the products of one folder must share."""
    # Another version may compute other pixels: half a night of each would be nobody's result.
    return {
        "folder": os.path.abspath(plan.folder),
        "format": format,
        **{name: getattr(plan.options, name) for name in SETTINGS},
        # Options are compared as such, and of levels each product knows what it got.
        **_flat("recipe", {key: plan.recipe.data[key] for key in ("order", "steps", "outputs")}, without={"pictures"}),
        **{f"version of {name}": version for name, version in versions().items()},
    }


def _masters(plan: NightPlan, members: Iterable[FramePlan]) -> dict[str, list[dict[str, Any]]]:
    """Return the masters of a product's frames, each once, by their kind."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for item in members:
        for choice in item.choices:
            if choice:
                name = plan.master_file(choice.master)
                found.setdefault(choice.kind, {}).setdefault(name, {"name": name, **_choice(choice)})
    return {kind: list(some.values()) for kind, some in found.items()}


def _choice(choice: Choice) -> dict[str, Any]:
    """Return what is said of a master that was chosen."""
    return {
        "file": choice.master if choice.is_file else "",
        "level": choice.level,
        "why": choice.why,
        "days": choice.away,
        "scale": choice.scale,
        "doubts": list(choice.doubts),
    }


def _frame(plan: NightPlan, item: FramePlan, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return the entry of an image: what it is, why, and what became of it."""
    product = plan.master_file(item.group) if item.group else exposure_name(item)
    status, reason = status_of(item, outcomes.get(product))
    masters = {
        choice.kind: {"name": plan.master_file(choice.master), **_choice(choice)} for choice in item.choices if choice
    }
    return {
        "name": item.name,
        "status": status,
        "reason": reason,
        "kind": item.kind,
        "night": item.night,
        "shape": list(item.shape),
        "product": product if item.is_reduced else "",
        "facts": _facts(item.facts),
        "masters": masters,
        "missing": list(item.missing),
        "doubts": _doubts(item.doubts),
        "why_not": {choice.kind: [list(pair) for pair in choice.why_not] for choice in item.choices if choice.why_not},
        "notes": list(item.notes),
    }


def status_of(item: FramePlan, outcome: Outcome | None) -> tuple[str, str]:
    """Return what became of a frame, and why, from what became of its product.

    A calibration frame is DONE if it is in its master, whatever else that master lacks.
    """
    if item.refused:
        return "FAILED", item.refused
    if item.listed:
        return "SKIPPED", item.listed
    if outcome is None:
        return "WAITING", ""
    if item.kind == "science":
        return outcome.status, outcome.reason
    why = outcome.left_out.get(item.name)
    if why is not None:
        return "FAILED" if why.startswith(UNREADABLE) else "SKIPPED", f"left out of {outcome.name}: {why}"
    if outcome.is_made:
        return "DONE", ""
    return (
        ("BLOCKED", f"{outcome.name}: {outcome.reason}")
        if outcome.status == "FAILED"
        else (outcome.status, outcome.reason)
    )


def _facts(facts: Facts) -> dict[str, dict[str, Any]]:
    """Return each fact that is known or in doubt, with its source."""
    found = {}
    for each in fields(facts):
        fact: Fact[Any] = facts.get(each.name)
        if fact.value is None and not fact.doubt:
            continue
        more = {"doubt": fact.doubt, "note": fact.note, "measured": fact.measured}
        found[each.name] = {"value": fact.value, "source": fact.source, **{k: v for k, v in more.items() if v}}
    return found


def _measurement(item: Measurement) -> dict[str, Any]:
    """Return a gain or read noise that was measured, beside the stated one."""
    return {
        "name": item.name,
        "value": item.value,
        "source": item.source,
        "stated": item.stated.value,
        "stated_source": item.stated.source,
        "used": item.used,
        "difference": item.difference,
        "text": item.text,
        "is_doubtful": item.doubt is not None,
    }


def _counts(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many there are, and how many of each status."""
    counts = Counter(entry["status"] for entry in entries)
    return {"expected": sum(counts.values()), **{status: counts[status] for status in STATUSES if counts[status]}}


def _doubts(doubts: Iterable[Doubt]) -> list[dict[str, str]]:
    return [asdict(doubt) for doubt in doubts]


def _common(values: Iterable[Any]) -> Any:
    """Return the value that all have; None where they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _flat(name: str, value: Any, without: Collection[str] = ()) -> dict[str, str]:
    """Return nested data as texts under names such as 'recipe outputs planes'; steps under their own names.

    Examples
    --------
    >>> _flat("steps", ["trim_image", {"add": {"other": 1}}, {"add": {"other": 2}}])
    {'steps': 'trim_image, add, add (2)', 'steps add other': '1', 'steps add (2) other': '2'}
    """
    parts: dict[str, Any] = {}
    if isinstance(value, list) and all(isinstance(item, (Mapping, str)) for item in value):
        for item in value:
            ((key, more),) = item.items() if isinstance(item, Mapping) else ((item, {}),)
            # The second of two steps must not hide a change of the first.
            same = sum(other.partition(" (")[0] == key for other in parts)
            parts[f"{key} ({same + 1})" if same else key] = more
        return {
            name: ", ".join(parts),
            **{k: v for key, more in parts.items() for k, v in _flat(f"{name} {key}", more).items()},
        }
    if isinstance(value, Mapping):
        parts = {key: more for key, more in value.items() if key not in without}
        return {k: v for key, more in parts.items() for k, v in _flat(f"{name} {key}", more, without).items()}
    return {name: str(value)}


def _below(path: str, out: Path) -> str:
    """Return a path relative to the folder of the products."""
    return os.path.relpath(path, out) if path else ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def as_json(document: object) -> str:
    """Return a document as JSON, with null for numbers that are none.

    Examples
    --------
    >>> as_json({"noise": float("nan")})
    '{"noise": null}'
    """
    return json.dumps(_finite(document), allow_nan=False)


def _finite(value: Any) -> Any:
    """Return a document without NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_record(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the last run into a folder had to tell; empty where there was none.

    Parameters
    ----------
    out
        Folder of the products.

    Raises
    ------
    FormatError
        Raised if the file is not what `lazyccd reduce` writes.
    """
    path = Path(out) / RECORD
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}; remove it, and pass --overwrite to begin anew.") from error
    if not isinstance(found, dict) or found.get("format_version") != FORMAT:
        raise FormatError(f"{path} is not the record of a night in format {FORMAT}; name another -o.")
    return found


def save_results(document: Mapping[str, Any], path: Path) -> None:
    """Write what became of each frame and each product as a table, ECSV.

    Parameters
    ----------
    document
        What `record_of` returns.
    path
        File to write; one that is there is replaced.
    """
    rows = [_result(f"master {item['kind']}", item, {}) for item in document["products"] if item["kind"] != "science"]
    products = {item["name"]: item for item in document["products"] if item["kind"] == "science"}
    rows += [
        _result(item.get("kind", ""), item, products.get(item.get("product", ""), {})) for item in document["frames"]
    ]
    table = Table()
    for name, dtype in RESULT_COLUMNS.items():
        values = [row[name] for row in rows]
        is_none = [value is None for value in values]
        filled = [dtype() if value is None else dtype(value) for value in values]
        # Text needs no mask: what is not there is empty.
        table[name] = filled if dtype is str else MaskedColumn(filled, mask=is_none, dtype=dtype)
    table.meta = {key: document[key] for key in ("folder", "state", "begun", "written", "exit_status")}
    part = path.with_name(f".{path.name}.part")
    table.write(part, format="ascii.ecsv", delimiter=",", overwrite=True)
    os.replace(part, path)


def _result(kind: str, item: Mapping[str, Any], product: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a frame or master; numbers are those of its product."""
    facts = {name: fact["value"] for name, fact in item.get("facts", {}).items()}
    masters = item.get("masters", {})
    chosen = {kind: some if isinstance(some, list) else [some] for kind, some in masters.items()}
    numbers = product or item
    return {
        **{name: facts.get(name, item.get(name)) for name in RESULT_COLUMNS},
        "kind": kind,
        **{name: numbers.get(name) for name in ("path", *NUMBERS)},
        **{
            name: ", ".join(master["name"] for master in chosen.get(name, ()))
            for name in ("bias", "dark", "flat", "bpm")
        },
        "level_of_masters": max((master["level"] for some in chosen.values() for master in some), default=None),
        "bad": numbers.get("bad"),
    }


@dataclass
class RecordFile:
    """The file of the record of a run, kept current at a bounded cost.

    Parameters
    ----------
    out
        Folder of the products.
    """

    out: Path
    _next: float = field(default=0.0, init=False)
    """When it is written again at the earliest, by the monotonic clock."""

    def write(self, run: RunState, *, now: bool = False) -> None:
        """Write the record, unless that was done shortly before and it need not be now."""
        begin = time.monotonic()
        if begin < self._next and not now:
            return
        document = record_of(run)
        text = as_json(document)
        part = self.out / f".{RECORD}.part"
        with explained(str(self.out / RECORD)):
            part.write_text(text, encoding="utf-8")
            os.replace(part, self.out / RECORD)
        if now:
            with explained(str(self.out / RESULTS)):
                save_results(document, self.out / RESULTS)
        end = time.monotonic()
        self._next = end + SHARE * (end - begin)
