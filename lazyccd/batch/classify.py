"""What kind of frame a file is, and whether it was processed already."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from lazyccd.batch.cameras import Camera
from lazyccd.batch.collect import RawFrame
from lazyccd.batch.metadata import Fact
from lazyccd.frame import header_values
from lazyccd.frame.processing_history import STEPS, is_stamp
from lazyccd.io.names import split_hdu

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


@lru_cache(1 << 12)
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

    1. ``[fix] type`` of a table.
    2. Signs that another program made it of several frames: then it is a master.
    3. The keywords of the type, by the spellings of the tables. A dark of 0 seconds is a bias.
    4. Without any keyword of the type: 0 seconds mean a bias; else words in the names of file and folders, or in OBJECT, propose a
       type, which stays in doubt until it is confirmed.

    Parameters
    ----------
    frame
        Its headers.
    cameras
        Tables to ask, in order.
    exposure
        A dark or untyped frame of 0 seconds is a bias.
    master
        Whether the file was given as a master: then 'MASTER' in a spelling is left out, and 0 seconds mean nothing.
    """
    return classify_by_header(frame, cameras, exposure, master=master) or _by_names(frame)


def classify_by_header(
    frame: RawFrame, cameras: tuple[Camera, ...], exposure: Fact[float], *, master: bool = False
) -> Fact[str] | None:
    """Find the type of a frame as `classify` does; None where no more than names of files and objects can tell."""
    for camera in cameras:
        for rule in camera.fixed_by("type"):
            if rule.holds(frame):
                return Fact(rule.values[0], camera.source("fixed"))
    keywords = tuple(dict.fromkeys(keyword for camera in cameras for keyword in camera.keywords("type")))
    texts = {keyword: value for keyword in keywords if not header_values.is_nothing(value := frame.get(keyword))}
    found = _by_spelling(frame, cameras, texts, master)
    # A table may say that a frame is unknown, to leave it out: then no name proposes a type.
    is_untyped = found.source == _UNTYPED
    combined = "" if master else why_combined(frame)
    if combined and (calibration_of(found.value or "") or is_untyped):
        return Fact("master", combined)
    # EFOSC2 writes DARK on its bias frames; the shutter did not open, so the exposure is the better witness.
    if exposure.value == 0 and not master and (found.value == "dark" or is_untyped):
        instead = "" if is_untyped else f", against {found.source}"
        return Fact("bias", f"exposure 0 s ({exposure.source}){instead}")
    if is_untyped:
        return None
    doubt = _contradiction(frame, cameras, texts, found) or _unlikely(frame, exposure, found)
    return replace(found, doubt=doubt) if doubt else found


def _by_spelling(frame: RawFrame, cameras: tuple[Camera, ...], texts: dict[str, object], master: bool) -> Fact[str]:
    """Compare what the keywords say with the spellings of the tables."""
    for camera in cameras:
        for keyword, text in (texts or {"": ""}).items():
            spelling = normalize(str(text))
            # 'MASTER BIAS' is a bias where a master was asked for, and no raw frame elsewhere.
            spelling = normalize(spelling.replace("MASTER", "")) if master else spelling
            for rule in camera.types:
                if fnmatchcase(spelling, normalize(rule.name)) and rule.holds(frame) and (texts or rule.conditions):
                    extra = "".join(f", {condition}" for condition in rule.conditions)
                    said = f"{keyword} = {str(text).strip()!r}{extra}" if texts else extra.removeprefix(", ")
                    return Fact(rule.values[0], said + _of(camera))
    if not texts:
        return Fact("unknown", _UNTYPED)
    said = ", ".join(f"{key} = {str(text).strip()!r}" for key, text in texts.items())
    return Fact("unknown", f"{said} is no known type{_nearest(cameras, texts)}")


def _contradiction(frame: RawFrame, cameras: tuple[Camera, ...], texts: dict[str, object], found: Fact[str]) -> str:
    """Say that a second card calls a frame another kind of calibration; empty if none does.

    Only the kinds of calibrations contradict: words such as OBJECT and IMAGE stand beside any of them.
    """
    # The keywords of ESO say different things about one frame: CATG, TYPE and TECH.
    others = [(key, text) for key, text in texts.items() if not key.startswith("ESO ")]
    others += [(key, text) for key in texts for text in frame.other_values(key)]
    for keyword, text in others:
        kind = _by_spelling(frame, cameras, {keyword: text}, master=False).value or ""
        is_twice = text != texts[keyword] and kind == "science"
        differs = calibration_of(kind) != calibration_of(found.value or "")
        if found.value in _MAKES_PRODUCTS and differs and (calibration_of(kind) or is_twice):
            return f"{found.source}, but {keyword} = {str(text).strip()!r} is {kind}; state it by [fix] type in a camera table"
    return ""


def _unlikely(frame: RawFrame, exposure: Fact[float], found: Fact[str]) -> str:
    """Say that the exposure, or what was observed, speaks against the type that a card states; empty if nothing does."""
    if found.value == "bias" and exposure.value is not None and exposure.value > LONGEST_BIAS:
        why = f"a bias is not exposed, and {exposure.keyword or 'its exposure'} is more than {LONGEST_BIAS:g} s"
        return f"{found.source}, but {why}; state it by [fix] type in a camera table"
    title = header_values.read_text(frame.get("OBJECT")) or ""
    if found.value == "science" and _NOTHING_ELSE.sub("", title) == "" and title:
        for kind, words in _WORDS.items():
            if kind != "science" and words.search(title):
                return (
                    f"{found.source}, but OBJECT is {title!r} as of a {kind}; state it by [fix] type in a camera table"
                )
    return ""


LONGEST_BIAS = 1.0
"""Seconds that a camera without shutter may expose a bias, at most."""

_MAKES_PRODUCTS = frozenset({"bias", "dark", "flat", "skyflat", "domeflat", "lampflat", "science"})


def _nearest(cameras: tuple[Camera, ...], texts: dict[str, object]) -> str:
    """Return the known spelling that is most like an unknown one, and how to state what it means."""
    known = {normalize(rule.name).strip("* "): rule.values[0] for camera in cameras for rule in camera.types}
    for text in texts.values():
        for like in get_close_matches(normalize(str(text)), list(known), 1, 0.6):
            return f"; the nearest is {like!r}, {known[like]}; state it by [types] in a camera table"
    return "; state it by [types] in a camera table"


_UNTYPED = (
    "no keyword of the type (IMAGETYP, OBSTYPE, ...) and no name that tells; give it by [fix] type or [types] in a camera table "
    "(--camera; 'lazyccd camera' writes one), or in the table of --dry-run --save"
)

_PROPOSED = {
    "dark": r"dark[ _-]?flat|flat[ _-]?dark|darks?",
    "skyflat": r"sky[ _-]?flats?|twi(?:light)?[ _-]?flats?|twilights?|dusk[ _-]?flats?|dawn[ _-]?flats?|sflats?",
    "domeflat": r"dome[ _-]?flats?|dflats?",
    "flat": r"flats?|ff",
    "bias": r"bias(?:es)?|zeros?|offsets?",
    "science": r"lights?|science|sci|objects?|obj|targets?|raws?(?=[ _-]*light)",
}
_ASIDE = {
    "focus": re.compile(r"focus(?:[ _-]?(?:frame|run|test|sequence|exposure)s?)?[ _-]*\d*|hartmann.*", re.IGNORECASE),
    "acquisition": re.compile(
        r"tests?(?:[ _-]?(?:frame|image|exposure|shot)s?)?[ _-]*\d*|pointing|acquisition|junk", re.IGNORECASE
    ),
}
"""What stands alone in OBJECT where nothing was observed; in the name of a file or folder it says less."""

_NOTHING_ELSE = re.compile(
    rf"(?<![a-z])(?:{'|'.join(words for kind, words in _PROPOSED.items() if kind != 'science')})(?![a-z])"
    r"|(?<![a-z0-9])[a-z]{1,2}(?![a-z0-9])|\d+(?:\.\d+)?s?|[\s_#.,:()-]+",
    re.IGNORECASE,
)
"""Words for calibrations, and filters and numbers beside them: 'flat V 3' is no object on the sky, 'Dark Cloud' may be."""

_WORDS = {kind: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE) for kind, words in _PROPOSED.items()}


def _by_names(frame: RawFrame) -> Fact[str]:
    """Propose the type of a frame whose header has none by the name of its file, of its folders, and by OBJECT."""
    title = header_values.read_text(frame.get("OBJECT")) or ""
    *folders, file = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", frame.source if not frame.name else frame.name).split("/")
    for what, text in [("file name", file), *(("folder", folder) for folder in reversed(folders)), ("OBJECT", title)]:
        for kind, words in _WORDS.items():
            if found := words.search(text.replace("_", " ")):
                named = f"{what} {text.replace(' ', '') if what != 'OBJECT' else text!r}"
                return _proposed(kind, named, f"{what} for the word {found[0]!r}")
    for kind, words in _ASIDE.items():
        if words.fullmatch(title.strip()):
            return _proposed(kind, f"OBJECT {title!r}", f"OBJECT for the word {title.strip()!r}")
    if title:
        why = "and no word for a calibration"
        return _proposed("science", f"OBJECT {title!r} {why}", f"OBJECT {why}")
    return Fact("unknown", _UNTYPED, doubt=_UNTYPED)


def _proposed(kind: str, why: str, briefly: str) -> Fact[str]:
    """Return a type that nothing but a name tells.

    Parameters
    ----------
    kind
        The type.
    why
        What proposes it, with the name.
    briefly
        The same without the name, so that all frames of a kind have one doubt.
    """
    doubt = (
        f"{kind} is proposed by {briefly}; confirm it by [types] in a camera table ('lazyccd camera' writes one), or in the table "
        "of --dry-run --save"
    )
    return Fact(kind, f"proposed by {why}", doubt=doubt)


def why_combined(frame: RawFrame) -> str:
    """Return the card that says that a frame was made of several, by any program; empty for a single exposure."""
    for keyword in ("NCOMBINE", "STACKCNT", "NSTACK", "NUMCOMB", "SNAPSHOT", "LZNFRAME"):
        count = header_values.find_number(frame.get(keyword))
        if count is not None and count > 1:
            return f"{keyword} = {count:g}"
    if frame.get("COMBINED") is True or str(frame.get("COMBINED")).strip().upper() in {"T", "TRUE", "YES"}:
        return f"COMBINED = {frame.get('COMBINED')}"
    names = [keyword for keyword in frame.keywords() if re.fullmatch(r"IMCMB\d+", keyword)]
    if names:
        return f"{names[0]} = {_short(frame.get(names[0]))}"
    if "M" in _calstat(frame):
        return f"CALSTAT = {_short(frame.get('CALSTAT'))}"
    kind = header_values.read_text(frame.get("LZKIND")) or ""
    if kind.startswith("master"):
        return f"LZKIND = {kind!r}"
    # Programs that write no stamp still call the file so; nobody calls a raw frame a master.
    return f"file name {_file_of(frame)}" if is_called_master(frame) else ""


def is_called_master(frame: RawFrame) -> bool:
    """Return whether the name of a frame's file has the word 'master'."""
    return _MASTER.search(_file_of(frame)) is not None


def _file_of(frame: RawFrame) -> str:
    """Return the name of a frame's file, without folders."""
    return split_hdu(frame.name)[0].rpartition("/")[2]


_MASTER = re.compile(r"(?<![a-z])master(?![a-z])|(?<![a-z])master(?:bias|zero|dark|flat)", re.IGNORECASE)


_CALSTAT = {"B": "bias", "D": "dark", "F": "flat"}
"""Letters of MaxIm's CALSTAT; M is a master."""


def _calstat(frame: RawFrame) -> str:
    """Return the letters of CALSTAT."""
    return str(frame.get("CALSTAT") or "").strip().upper()


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
    letters = [_CALSTAT[letter] for letter in _calstat(frame) if letter in _CALSTAT]
    if letters:
        done = list(dict.fromkeys([*done, *letters]))
        reasons.append(f"CALSTAT = {_short(frame.get('CALSTAT'))}")
    # These say that something was done without saying what: enough to refuse the frame as raw.
    general = [keyword for keyword in ("CCDPROC", "ESO PRO CATG") if is_stamp(keyword, frame.get(keyword))]
    reasons += [f"{keyword} = {_short(frame.get(keyword))}" for keyword in general]
    # LCO numbers its levels of processing; raw frames have 0.
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
