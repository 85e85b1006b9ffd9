"""The header of a stack: true for all its frames.

1. It begins as the first frame's; keywords whose values differ between the frames go, and HISTORY lists them. The WCS stays.
2. Exposure times and dates are put together; NCOMBINE and IMCMB001 ... say what was combined.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from astropy.io import fits

from lazyccd.frame.header import COMMENTARY, WCS_KEYWORD, NewCard, append_cards, cards_of
from lazyccd.frame.history_log import SHORT_NAMES
from lazyccd.frame.output_header import GAINS, LEVELS, NOISES, RANGES

SUMS = {"CHECKSUM", "DATASUM"}
"""Keywords that belong to one file and that nobody misses."""

EXPOSURES = ("EXPTIME", "EXPOSURE")
NUMBERS: dict[str, Callable[[Iterable[float]], float]] = {"MJD-OBS": min, "JD": min, "MJD-END": max}
DATES: dict[str, Callable[[Iterable[str]], str]] = {"DATE-OBS": min, "DATE-BEG": min, "DATE-END": max}
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d*)?)?)?$")


MEDIAN_SHARE = 2 / math.pi
"""Share of the frames whose mean is as noisy as the median of many."""


class StackHeader(NamedTuple):
    """What becomes of the first frame's header."""

    cards: list[NewCard]
    """Keyword, value and comment of cards to set."""

    dropped: list[str]
    """Keywords to take out."""

    notes: tuple[str, ...] = ()
    """What HISTORY says besides."""

    @property
    def history(self) -> list[str]:
        """What HISTORY says: how frames were combined, and which keywords were taken out."""
        # HIERARCH keywords have blanks, at which a line must not be broken
        told = [key.replace(" ", "\N{NO-BREAK SPACE}") for key in self.dropped if key not in SUMS]
        text = f"Keywords that differed between the frames: {', '.join(told)}" if told else ""
        lines = [line for note in (*self.notes, text) for line in textwrap.wrap(note, 72)]
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]

    def apply(self, text: str) -> str:
        """Return the header text of the stack, given the first frame's."""
        gone = set(self.dropped)
        lines = [line for key, card in cards_of(text) if key not in gone for line in card]
        cards = [*self.cards, *(("HISTORY", line, "") for line in self.history)]
        return append_cards("\n".join(lines), cards)

    def apply_to_meta(self, meta: MutableMapping[str, Any]) -> None:
        """Change the meta of the first frame's CCDData."""
        header = meta if isinstance(meta, fits.Header) else None
        names = {str(key).upper(): key for key in meta}
        for key in self.dropped:
            meta.pop(names.get(key, key), None)
        for key, value, comment in self.cards:
            meta[names.get(key, key)] = value if header is None else (value, comment)
        if header is not None:
            for line in self.history:
                header.add_history(line)


def wcs_differs(texts: Sequence[str]) -> bool:
    """Return whether headers differ in a keyword that places pixels on the sky or the detector."""
    cards = [{key: card for key, card in cards_of(text) if WCS_KEYWORD.match(key)} for text in texts]
    return any(other != cards[0] for other in cards[1:])


def stack_header(
    texts: Sequence[str],
    names: Sequence[str],
    weights: Sequence[float],
    *,
    method: str,
    keep_wcs: bool = True,
    is_scaled: bool = False,
    notes: tuple[str, ...] = (),
) -> StackHeader:
    r"""Return what becomes of the first of several headers when their frames are combined.

    Parameters
    ----------
    texts
        Headers of the frames.
    names
        Names of their files, empty where there is none.
    weights
        Weights of the frames, for mean times.
    method
        ``average``, ``median`` or ``sum``; exposure times of a sum are summed.
    keep_wcs
        Whether the first frame's keywords of coordinates stay: not if the frames lie elsewhere on the sky.
    is_scaled
        Whether frames were multiplied by numbers that change their level, such as one over their median: gain, read noise and
        saturation do not go with the result.
    notes
        Lines for HISTORY.

    Examples
    --------
    >>> texts = [f"EXPTIME = {t:20.1f}\nAIRMASS = {t / 10:20.1f}\nINSTRUME= 'CAM'" for t in (10, 20)]
    >>> header = stack_header(texts, ["a.fits", ""], [1, 1], method="average")
    >>> [card[:2] for card in header.cards], header.dropped
    ([('EXPTIME', 15.0), ('TOTEXP', 30.0), ('NCOMBINE', 2), ('IMCMB001', 'a.fits')], ['AIRMASS'])
    """
    values = _values(texts)
    cards = _times(values, weights, len(texts), summed=method == "sum")
    if not is_scaled:
        cards += [*_noise(values, len(texts), method), *_levels(values, method)]
    cards += [("NCOMBINE", len(texts), "number of frames combined")]
    cards += [
        (f"IMCMB{i:03d}" if i < 1000 else f"IMCM{i:04d}", name, "") for i, name in enumerate(names[:9999], 1) if name
    ]
    # a keyword that was put together is true for the stack, though the frames differ in it
    made = {key for key, _, _ in cards}
    differing = [key for key in _differing(values) if key not in made]
    false = RANGES + (GAINS + NOISES + LEVELS if is_scaled else ())
    differing += [key for key in false if key in values and key not in differing]
    if not keep_wcs:
        differing += [key for key in dict.fromkeys(key for key, _ in cards_of(texts[0])) if WCS_KEYWORD.match(key)]
    return StackHeader(cards, differing, notes)


def common_header(texts: Mapping[str, str], note: str) -> str:
    r"""Return the header of what several frames of one exposure are put together to: what is true for all.

    It begins as the first frame's. Keywords that differ go, but for the WCS, and HISTORY lists them; HISTORY and COMMENT that
    are not in all headers have the name of their frame in front.

    Parameters
    ----------
    texts
        Headers by the names of the frames.
    note
        What HISTORY says first of how they were put together.

    Examples
    --------
    >>> texts = {
    ...     name: f"GAIN    = {gain}\nHISTORY by CAM\nHISTORY GAIN was {gain}" for name, gain in (("A", 1), ("B", 2))
    ... }
    >>> print(*map(str.strip, common_header(texts, "side by side").split("\n")), sep="\n")
    HISTORY by CAM
    HISTORY A: GAIN was 1
    HISTORY B: GAIN was 2
    HISTORY side by side
    HISTORY Keywords that differed between the frames: GAIN
    """
    said = {
        name: [(key, line.rstrip()) for key, lines in cards_of(text) if key in COMMENTARY for line in lines]
        for name, text in texts.items()
    }
    common = set.intersection(*map(set, said.values()))
    told = [
        (key, f"{name}: {line[8:].strip()}", "")
        for name, lines in said.items()
        for key, line in lines
        if key and (key, line) not in common
    ]
    own = {line for lines in said.values() for key, line in lines if (key, line) not in common}
    # what one amplifier's header says of its own steps is told under its name, in HISTORY
    first, *_ = texts.values()
    kept = "\n".join(line for line in first.split("\n") if line.rstrip() not in own)
    return StackHeader(told, _differing(_values(list(texts.values()))), (note,)).apply(kept)


def _differing(values: dict[str, list[Any]]) -> list[str]:
    """Return the keywords whose values differ, those of coordinates left out; a long keyword goes with its log entry."""
    found = [key for key, some in values.items() if len(set(map(repr, some))) > 1 and not WCS_KEYWORD.match(key)]
    dangling = [name.upper() for name, short in SHORT_NAMES.items() if short.upper() in found]
    return found + [key for key in dangling if key in values and key not in found]


def _values(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of all frames by keyword; keywords whose cards are the same everywhere are parsed once."""
    # parsing a card takes much longer than comparing its text, and most cards of a night are the same
    tables = [{key: card for key, card in reversed(cards_of(text)) if key not in COMMENTARY} for text in texts]
    parsed: dict[str, list[Any]] = {}
    for key, card in tables[0].items():
        others = [table.get(key) for table in tables[1:]]
        first = _value(card)
        parsed[key] = [first, *(first if other == card else _value(other) for other in others)]
    return parsed


def _value(card: list[str] | None) -> Any:
    """Return the value of a card; None if there is none, its text if it is not FITS."""
    if card is None:
        return None
    try:
        return fits.Card.fromstring("".join(line.ljust(80) for line in card)).value
    except fits.VerifyError:
        return "\n".join(card)


def _times(values: dict[str, list[Any]], weights: Sequence[float], count: int, *, summed: bool) -> list[NewCard]:
    """Return the cards of exposure times and dates that all frames have."""
    cards: list[NewCard] = []
    for key in EXPOSURES:
        given = values.get(key)
        if given is not None and _all_numbers(given):
            cards.append((key, sum(given) if summed else sum(given) / count, "sum" if summed else "mean of the frames"))
            if not any(name == "TOTEXP" for name, _, _ in cards):
                cards.append(("TOTEXP", sum(given), "sum over the frames"))
    for key, choose in NUMBERS.items():
        if key in values and _all_numbers(values[key]):
            cards.append((key, choose(values[key]), f"{choose.__name__} of the frames"))
    for key, choose_date in DATES.items():
        if key in values and all(isinstance(v, str) and ISO_DATE.match(v.strip()) for v in values[key]):
            cards.append((key, choose_date(values[key]), f"{choose_date.__name__} of the frames"))
    middle = values.get("MJD-AVG")
    if middle is not None and _all_numbers(middle):
        mean = sum(w * t for w, t in zip(weights, middle, strict=True)) / sum(weights)
        cards.append(("MJD-AVG", mean, "weighted mean of the frames"))
    return cards


def _noise(values: dict[str, list[Any]], count: int, method: str) -> list[NewCard]:
    """Return the cards of the gain and read noise that a stack has in effect, where all frames have the same.

    An average of n frames is as noisy as one with n times the gain and, in electrons, the root of n times the read noise. A
    median is that of fewer frames (Kenney & Keeping 1962: 2 / pi of them, for many).
    """
    # Beside EGAIN, GAIN is a setting of the camera, which stacking does not change.
    if values.get("EGAIN", values.get("GAIN")) != values.get("GAIN"):
        values = {key: given for key, given in values.items() if key != "GAIN"}
    # of two, the median is the mean
    effective = count * MEDIAN_SHARE if method == "median" and count > 2 else count
    factors = dict.fromkeys(GAINS, 1.0 if method == "sum" else effective) | dict.fromkeys(NOISES, effective**0.5)
    return [
        (key, values[key][0] * factor, f"in effect, of {count} frames")
        for key, factor in factors.items()
        if count > 1 and key in values and _all_numbers(values[key]) and len(set(values[key])) == 1
    ]


def _levels(values: dict[str, list[Any]], method: str) -> list[NewCard]:
    """Return the cards of the levels at which a stack is saturated; they differ by the pedestals that were subtracted."""
    how = "sum" if method == "sum" else "lowest of the frames"
    return [
        (key, float(sum(values[key]) if method == "sum" else min(values[key])), how)
        for key in LEVELS
        if key in values and _all_numbers(values[key])
    ]


def _all_numbers(values: Iterable[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
