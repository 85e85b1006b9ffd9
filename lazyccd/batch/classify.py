"""What kind of frame a file is, and whether it was processed already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lazyccd.batch.cameras import Camera
from lazyccd.batch.collect import RawFrame
from lazyccd.batch.metadata import Fact
from lazyccd.frame import header_values
from lazyccd.frame.processing_history import STEPS, is_stamp

CALIBRATIONS = ("bias", "dark", "flat")
"""Kinds of masters, in the order in which they are made."""


@dataclass(frozen=True)
class Stamps:
    """Which steps a header says were done."""

    done: tuple[str, ...] = ()
    """Steps, of overscan, trim, bias, dark, flat and gain."""

    reason: str = ""
    """The keyword and value that show that the frame is not raw; empty for raw frames."""


def calibration_of(kind: str) -> str:
    """Return which master a type of frame is for: bias, dark, flat, or '' for none."""
    return "flat" if kind.endswith("flat") else kind if kind in CALIBRATIONS else ""


def normalize(text: str) -> str:
    """Return a spelling in capitals, with everything but letters and digits as one space.

    Examples
    --------
    >>> normalize("SKY,FLAT"), normalize(" Dark_Frame")
    ('SKY FLAT', 'DARK FRAME')
    """
    return re.sub(r"[^A-Z0-9*]+", " ", text.upper()).strip()


def classify(frame: RawFrame, cameras: tuple[Camera, ...], exposure: Fact[float], *, master: bool = False) -> Fact[str]:
    """Find the type of a frame, and the rule and keyword that decide.

    Parameters
    ----------
    frame
        Its headers.
    cameras
        Tables to ask, in order.
    exposure
        A frame of 0 seconds is a bias, whatever its type says.
    master
        Whether the file was given as a master: then 'MASTER' in a spelling is left out, and 0 seconds mean nothing.
    """
    keywords = tuple(dict.fromkeys(keyword for camera in cameras for keyword in camera.keywords("type")))
    texts = {keyword: value for keyword in keywords if not header_values.is_nothing(value := frame.get(keyword))}
    found = _by_spelling(frame, cameras, texts, master)
    if exposure.value == 0 and not master and found.value not in {"bias", "master"}:
        instead = f", against {found.source}" if texts else ""
        return Fact("bias", f"exposure 0 s ({exposure.source}){instead}")
    return found


def _by_spelling(frame: RawFrame, cameras: tuple[Camera, ...], texts: dict[str, object], master: bool) -> Fact[str]:
    """Compare what the keywords say with the spellings of the tables."""
    for camera in cameras:
        for keyword, text in texts.items():
            spelling = normalize(str(text))
            spelling = normalize(spelling.replace("MASTER", "")) if master else spelling
            for rule in camera.types:
                if fnmatchcase(spelling, normalize(rule.name)) and rule.holds(frame):
                    extra = "".join(f", {condition}" for condition in rule.conditions)
                    return Fact(rule.values[0], f"{keyword} = {str(text).strip()!r}{extra}" + _of(camera))
    if not texts:
        return Fact("unknown", "no keyword of the type")
    said = ", ".join(f"{key} = {str(text).strip()!r}" for key, text in texts.items())
    return Fact("unknown", f"{said} is no known type")


def _of(camera: Camera) -> str:
    """Name a table behind a rule; the generic one is not worth it."""
    return f" ({camera.label})" if camera.label else ""


def read_stamps(frame: RawFrame) -> Stamps:
    """Find out from a header which steps were done on the pixels."""
    done = []
    reasons = []
    for step, keywords in STEPS.items():
        found = [keyword for keyword in keywords if is_stamp(keyword, frame.get(keyword))]
        if found:
            done.append(step)
            reasons.append(f"{found[0]} = {_short(frame.get(found[0]))}")
    general = [keyword for keyword in ("CCDPROC", "ESO PRO CATG") if is_stamp(keyword, frame.get(keyword))]
    reasons += [f"{keyword} = {_short(frame.get(keyword))}" for keyword in general]
    level = frame.get("RLEVEL")
    if isinstance(level, (int, float)) and level > 0:
        reasons.append(f"RLEVEL = {level}")
    process = header_values.read_text(frame.get("PROCTYPE"))
    if process is not None and process.upper() not in {"RAW", "UNPROCESSED"}:
        reasons.append(f"PROCTYPE = {process!r}")
    return Stamps(tuple(done), ", ".join(reasons))


def _short(value: object) -> str:
    """Return a value that fits into a message."""
    text = str(value).strip()
    return repr(text if len(text) <= 40 else text[:37] + "...")
