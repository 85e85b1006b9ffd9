"""The report of a night: ``OUT/report.html``, one file that needs no other, made of ``OUT/run.json`` and the pictures.

`write_report` reads the record, `contents` says what is shown, and ``report.html.jinja`` beside this file says how. All texts of headers
are escaped by jinja, and control characters in them are made visible.
"""

from __future__ import annotations

import base64
import io
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias
from urllib.parse import quote

from lazyccd.batch.outcome import STATUSES
from lazyccd.batch.record import read_record
from lazyccd.batch.report import join_alike, some_files
from lazyccd.errors import MissingFileError

REPORT = "report.html"

Entry: TypeAlias = Mapping[str, Any]
"""A product or frame, as the record has it."""

CAPTION_BELOW = "lazyccd:caption-below"
"""Text in a PNG file that says from which row on it is a caption, which would be unreadable in a small copy."""

FEW = 200
"""Up to so many pictures are shown larger, with the raw frame beside the product."""

EXIT_STATUS = {
    0: "Every product is complete.",
    1: "Something failed: see below.",
    3: "Some products lack something or may be wrong: see below.",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _verdict(record: Entry) -> str:
    """Return in a sentence how a run ended."""
    if record["state"] != "ended":
        return "The run has not ended."
    # Exit status 1 also says that no frame was recognised.
    if not record["products"]:
        return "Nothing was reduced: see what was left out, and why."
    return EXIT_STATUS.get(record["exit_status"], "")


def write_report(out: str | os.PathLike[str]) -> Path:
    """Write the report of the last run into a folder, from its record; an older report is replaced.

    Parameters
    ----------
    out
        Folder of the products of `lazyccd reduce`.

    Returns
    -------
    Path
        ``OUT/report.html``.

    Raises
    ------
    MissingFileError
        Raised if there is no record.
    """
    folder = Path(out)
    record = read_record(folder)
    if not record:
        raise MissingFileError(f"{folder} has no run.json; name the folder that lazyccd reduce wrote to with -o.")
    target = folder / REPORT
    part = folder / f".{REPORT}.{uuid.uuid4().hex[:8]}.part"
    # Piece by piece: the pictures of a thousand products are not held together.
    with part.open("w", encoding="utf-8") as file:
        file.writelines(_template().generate(contents(record, folder)))
    os.replace(part, target)
    return target


def render(record: Entry, folder: Path) -> str:
    """Return the report of a record as HTML; pictures are taken from a folder."""
    return str(_template().render(contents(record, folder)))


def _template() -> Any:
    """Return the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes 60 ms to import

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "duration": _duration}
    return environment.get_template("report.html.jinja")


def contents(record: Entry, folder: Path) -> dict[str, Any]:
    """Return what the report shows."""
    products, frames = record["products"], record["frames"]
    science = [item for item in products if item["kind"] == "science"]
    masters = [item for item in products if item["kind"] != "science"]
    times = _times(frames)
    return {
        "record": record,
        "verdict": _verdict(record),
        "statuses": [word for word in STATUSES if any(word in counts for counts in record["counts"].values())],
        "failures": _by_reason(products, frames, ("FAILED", "BLOCKED")),
        "partial": _by_reason(products, frames, ("PARTIAL",)),
        "skipped": _by_reason(products, frames, ("SKIPPED",)),
        "waiting": [item["name"] for item in products if item["status"] == "WAITING"],
        "cards": _Cards([*science, *masters], folder),
        "masters": [{**item, "users": _users(item["name"], products)} for item in masters],
        "existing": _existing(products),
        "science": science,
        "odd_noise": _odd_noise(science),
        "charts": [chart for chart in _charts(science, times) if chart],
        "doubts": [_reason(doubt) for doubt in record["doubts"]],
        "planes": _planes(science),
        "slowest": sorted(products, key=lambda item: -(item["seconds"] or 0))[:20],
        "options": {name: value for name, value in record["options"].items() if value not in ("", [], None, False)},
    }


def _odd_noise(science: Iterable[Entry]) -> dict[str, list[str]]:
    """Return what exposures say of a noise that their uncertainties do not predict, and which say it; the first of many alike."""
    told: dict[str, list[str]] = {}
    for item in science:
        for text in item["messages"]:
            if text.startswith("the noise of the sky"):
                told.setdefault(text, []).append(item["name"])
    return {text: [some_files(names)] for text, names in join_alike(told).items()}


def _visible(value: object) -> object:
    """Return a text with control characters as their symbols, None as a dash."""
    if value is None:
        return "\u2013"
    # a plain str only: what is marked as HTML already is ours
    return (
        _CONTROL.sub(lambda found: chr(0x2400 + (ord(found[0]) if found[0] != "\x7f" else 0x21)), value)
        if type(value) is str
        else value
    )


def _number(value: float | None, digits: int = 4) -> str:
    """Return a number with so many digits; a dash if there is none."""
    return "\u2013" if value is None else f"{value:.{digits}g}"


def _percent(value: float | None) -> str:
    """Return a share in percent; one that is not 0 does not look like it."""
    if value is None:
        return "\u2013"
    return "<0.01 %" if 0 < value < 5e-5 else f"{100 * value:.2f} %"


def _duration(seconds: float | None) -> str:
    """Return how long something took.

    Examples
    --------
    >>> _duration(0.25), _duration(75), _duration(7260)
    ('0.25 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds is None:
        return "\u2013"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _by_reason(products: Iterable[Entry], frames: Iterable[Entry], statuses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the reasons for some statuses, each once with the products and files that it is about, the worst first."""
    found: dict[tuple[str, str], list[str]] = {}
    made = set()
    for item in products:
        made.add(item["name"])
        if item["status"] in statuses:
            for reason in [_reason(doubt) for doubt in item["doubts"]] or [item["reason"]]:
                found.setdefault((item["status"], reason), []).append(item["name"])
    for item in frames:
        # what became of an exposure is said of its product
        if item["status"] in statuses and not (item.get("kind") == "science" and item["product"] in made):
            found.setdefault((item["status"], item["reason"]), []).append(item["name"])
    rows = [{"status": key[0], "reason": key[1], "names": names} for key, names in found.items()]
    return sorted(rows, key=lambda row: statuses.index(row["status"]))


def _reason(doubt: Entry) -> str:
    """Return a doubt as a sentence, with the way out if it has one."""
    return "; ".join(str(doubt[name]) for name in ("text", "way_out") if doubt.get(name))


def _times(frames: Iterable[Entry]) -> dict[str, float]:
    """Return the time of each exposure as a modified Julian date, by the name of its product."""
    found: dict[str, float] = {}
    for item in frames:
        value = item.get("facts", {}).get("time", {}).get("value")
        if isinstance(value, int | float) and item.get("kind") == "science":
            found.setdefault(item["product"], float(value))
    return found


def _users(master: str, products: Iterable[Entry]) -> int:
    """Return how many products were made with a master."""
    return sum(any(used["name"] == master for used in _used(item)) for item in products)


def _used(item: Entry) -> list[Entry]:
    """Return the masters of a product."""
    return [used for some in item["masters"].values() for used in some]


def _existing(products: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return which masters were used and why, each once with how many products have it."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in products:
        for kind, some in item["masters"].items():
            for used in some:
                key = (kind, used["name"], used["level"], used["why"])
                row = rows.setdefault(key, {**used, "kind": kind, "count": 0, "days": 0.0})
                row["count"] += 1
                row["days"] = max(row["days"], abs(used["days"] or 0.0))
    return list(rows.values())


class _Cards(Sequence[dict[str, Any]]):
    """What is shown of each product; its picture is read when it is its turn."""

    def __init__(self, products: Sequence[Entry], folder: Path) -> None:
        self._products, self._folder = products, folder
        self._is_few = sum(bool(item["picture"]) for item in products) <= FEW

    def __len__(self) -> int:
        """Return the number of products."""
        return len(self._products)

    def __getitem__(self, place: Any) -> Any:
        """Return what is shown of one product."""
        item, side = self._products[place], 300 if self._is_few else 150
        return {**item, **_pictures(item["picture"], self._folder, side, with_raw=self._is_few)}


def _pictures(name: str, folder: Path, side: int, *, with_raw: bool) -> dict[str, Any]:
    """Return small pictures of a product and of its raw frame as data URIs, and where the large ones are."""
    found: dict[str, Any] = {"thumbnail": "", "href": "", "raw": "", "raw_href": ""}
    if not name:
        return found
    path = Path(name)
    raw = path.with_name(f"{path.stem}_raw{path.suffix}")
    for key, each in (("", path), ("raw", raw)):
        # a record that somebody wrote may name anything
        inside = (folder / each).resolve().is_relative_to(folder.resolve())
        if inside and (folder / each).is_file() and (with_raw or not key):
            found["raw" if key else "thumbnail"] = _thumbnail(folder / each, side)
            found[f"{key}_href" if key else "href"] = "./" + quote(each.as_posix())
    return found


def _thumbnail(path: Path, side: int) -> str:
    """Return a small copy of a picture as a data URI; empty if the file is no picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            rows = str(picture.info.get(CAPTION_BELOW, ""))
            height = min(int(rows), picture.height) if rows.isdecimal() and int(rows) else picture.height
            small = picture.crop((0, 0, picture.width, height)).convert("RGB")
    except (OSError, UnidentifiedImageError):
        return ""
    small = small.reduce(max(1, max(small.size) // (2 * side)))
    small.thumbnail((side, side))
    encoded = io.BytesIO()
    small.save(encoded, "jpeg", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _planes(science: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return for each mask plane the smallest, median and largest share of the pixels, and where it is largest."""
    shares: dict[str, list[tuple[float, str]]] = {}
    count = 0
    for item in science:
        count += bool(item["path"])
        for plane, share in item["planes"].items():
            shares.setdefault(plane, []).append((share, item["name"]))
    rows = []
    for plane, found in shares.items():
        values = [*(share for share, _ in found), *[0.0] * (count - len(found))]
        largest = max(found)
        rows.append(
            {
                "plane": plane,
                "least": min(values),
                "middle": median(values),
                "most": largest[0],
                "where": largest[1],
            }
        )
    return rows


def _charts(science: Sequence[Entry], times: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the charts: levels and noise over time."""
    made = [item for item in science if item["name"] in times]
    units = Counter(item["unit"] for item in made if item["unit"])
    unit = units.most_common(1)[0][0] if units else ""
    levels = [(times[item["name"]], item["level"], _label(item)) for item in made if item["unit"] == unit]
    ratios = [
        (times[item["name"]], item["noise_after"] / item["noise_expected"], _label(item))
        for item in made
        if item["noise_after"] and item["noise_expected"]
    ]
    masked = [
        (times[item["name"]], 100 * item["planes"].get("CR", 0.0), _label(item)) for item in made if item["planes"]
    ]
    return [
        _chart(f"Level of the sky over time [{unit or 'no unit'}]", levels),
        _chart("Noise over what the uncertainties predict; 1 is right", ratios, mark=1.0),
        _chart("Pixels with cosmic rays [%]", masked),
    ]


def _label(item: Entry) -> str:
    """Return what a point of a chart is about."""
    return ", ".join(str(item[name]) for name in ("name", "object", "filter") if item[name])


WIDTH, HEIGHT = 560, 200
"""Of the area of a chart, in units of its drawing."""


def _chart(title: str, points: Iterable[tuple[float, float | None, str]], mark: float | None = None) -> dict[str, Any]:
    """Return a scatter of values over time, in the units of its drawing; empty without a value."""
    known = [(time, value, label) for time, value, label in points if value is not None]
    if not known:
        return {}
    first, last = min(time for time, _, _ in known), max(time for time, _, _ in known)
    values = [value for _, value, _ in known] + ([mark] if mark is not None else [])
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin
    span = (last - first) or 1.0

    def y(value: float) -> float:
        return round(HEIGHT * (high - value) / (high - low), 1)

    ticks = [low + (high - low) * part / 4 for part in range(5)]
    return {
        "title": title,
        "points": [
            {
                "x": round(WIDTH * ((time - first) / span if last > first else 0.5), 1),
                "y": y(value),
                "text": f"{label}: {value:.5g}",
            }
            for time, value, label in known
        ],
        "ticks": [{"y": y(tick), "text": f"{tick:.4g}"} for tick in ticks],
        "ends": [_clock(first), _clock(last)] if last > first else ["", _clock(first)],
        "mark": None if mark is None else y(mark),
    }


def _clock(mjd: float) -> str:
    """Return a modified Julian date as a day and a time in UTC."""
    from astropy.time import Time

    return str(Time(mjd, format="mjd").strftime("%Y-%m-%d %H:%M"))
