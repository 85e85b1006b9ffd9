"""A camera table written from a night: what was found for each fact, where, and what is doubtful.

The table states what lazyccd finds by itself, so it changes nothing before it is edited. What was guessed stands in comments,
to be confirmed by taking the ``#`` away; words for types that nobody knows stand in ``[types]`` as unknown, to be filled in.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from lazyccd.batch.cameras import FACTS, builtin_cameras, generic_camera
from lazyccd.batch.checks import unlit_strips
from lazyccd.batch.classify import calibration_of, normalize
from lazyccd.batch.exposures import open_raw
from lazyccd.batch.metadata import Fact, value_to_text
from lazyccd.batch.night_plan import FramePlan, NightPlan
from lazyccd.frame.core import resolve
from lazyccd.io.names import split_hdu
from lazyccd.kernels.block import Array
from lazyccd.ops.sample import read_pixels
from lazyccd.sections import Region

_TEMPLATES = {
    "gain": "1.5 electron/adu",
    "readnoise": "5 electron",
    "saturate": "60000 adu",
    "filter": "R",
    "exposure": "60",
    "overscan": "[2049:2080,1:2048]",
    "trim": "[1:2048,1:2048]",
}
"""Facts that a user is most likely to know where the header does not, and how they are written."""

_LONG = 7200.0
"""Seconds above which an exposure may be one in milliseconds."""

_DARK_PART = 0.1
"""Columns or rows below this part of a flat's light see none."""

_LIT_PART = 0.5
"""A strip above this part of the level of a flat is vignetted rather than without light."""

_MARGIN = 3
"""Columns or rows next to the light that are not taken for an overscan: charge may trail into them."""

_LEAST_STRIP = 4
_SAID = re.compile(r"^(?P<keyword>[A-Z0-9 _-]+) = (?P<text>'.*?'|\".*?\")")


def camera_table(plan: NightPlan) -> str:
    """Return a camera table in TOML for the frames of a night.

    Parameters
    ----------
    plan
        The plan of the night, made without a camera table.
    """
    lines = [
        f"# Camera table of {len(plan.frames)} images, written by 'lazyccd camera'. Use it by: lazyccd reduce NIGHT --camera FILE",
        "# It says what lazyccd finds by itself, so it changes nothing until you edit it.",
        "# Lines in comments are proposals: take the # away to state them. DOUBT marks what may be wrong.",
        "",
        *_match(plan),
        "",
        "[keys]  # fact = keyword, or a list of keywords of which the first usable one wins",
        *(line for name in FACTS[1:] for line in _key(plan, name)),
        "",
        '[fix]  # fact = value, whatever the header says; conditions stand behind @: "gain@READMODE=fast" = ...',
        *(line for name in FACTS[1:] for line in _fix(plan, name)),
        *_strips(plan),
        "",
        "[types]  # spelling = bias, dark, flat, skyflat, domeflat, lampflat, science, arc, focus, acquisition or unknown",
        *_types(plan),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return text as TOML has it."""
    return json.dumps(text, ensure_ascii=False)


def _files(items: Iterable[object]) -> str:
    """Return how many images something is about."""
    count = len(list(items))
    return f"{count} image{'s' if count > 1 else ''}"


def _match(plan: NightPlan) -> list[str]:
    """Return the conditions that tell frames of this camera from others."""
    facts = [item.facts.instrument for item in plan.frames]
    pairs = dict.fromkeys((fact.keyword, fact.value) for fact in facts)
    if not all(keyword and value and " " not in keyword for keyword, value in pairs):
        return ["# No [match]: the images have no common keyword of the instrument, so the table is about every file."]
    return [f"[[match]]\n{keyword} = {_quoted(glob.escape(str(value)))}" for keyword, value in pairs]


@dataclass(frozen=True)
class _Seen:
    """What was found for one fact under one keyword."""

    keyword: str
    facts: list[Fact[Any]]

    def values(self, name: str) -> str:
        """Return the values, few of them."""
        texts = list(dict.fromkeys(value_to_text(name, fact.value) for fact in self.facts))
        return ", ".join(texts[:4]) + (f", ... ({len(texts)} values)" if len(texts) > 4 else "")

    @property
    def remarks(self) -> list[str]:
        """What was noticed, each once."""
        doubts = dict.fromkeys(f"DOUBT, {fact.doubt}" for fact in self.facts if fact.doubt)
        return [*doubts, *dict.fromkeys(fact.note for fact in self.facts if fact.note)]


def _seen(plan: NightPlan, name: str) -> list[_Seen]:
    """Return what was found for a fact, by the keyword, in the order in which tables ask."""
    found: dict[str, list[Fact[Any]]] = {}
    for item in plan.frames:
        fact = item.facts.get(name)
        found.setdefault(fact.keyword, []).append(fact)
    tables = (*builtin_cameras(), generic_camera())
    order = [expression for table in tables for expression in table.keywords(name)]
    place = {_plain(expression): number for number, expression in reversed(list(enumerate(order)))}
    # Of wheels that are joined only those are named that were there, so the whole expression is not in the order.
    return [_Seen(key, found[key]) for key in sorted(found, key=lambda key: place.get(key, len(order)))]


def _plain(expression: str) -> str:
    """Return an expression of a table without its unit."""
    return " ".join(expression.partition(" [")[0].split())


def _expression(name: str, keyword: str, *, whole: bool) -> str:
    """Return how tables write a keyword: with its unit where it has one, with those that it is joined with if that is asked."""
    for table in (*builtin_cameras(), generic_camera()):
        for expression in table.keywords(name):
            plain = _plain(expression)
            if plain == keyword or (whole and set(keyword.split(" & ")) <= set(plain.split(" & "))):
                return expression if plain == keyword else plain
    return keyword


def _key(plan: NightPlan, name: str) -> Iterator[str]:
    """Yield the line of [keys] for a fact, and what was found there."""
    seen = [each for each in _seen(plan, name) if each.keyword and any(fact.value is not None for fact in each.facts)]
    if not seen:
        return
    for each in seen:
        yield f"# {name}, {each.keyword}: {each.values(name)} ({_files(each.facts)})"
        yield from (f"#   {remark}" for remark in each.remarks)
    # A wheel that is clear in one image has the filter of another: where several are seen, all are named.
    expressions = dict.fromkeys(_expression(name, each.keyword, whole=len(seen) > 1) for each in seen)
    written = list(map(_quoted, expressions))
    yield f"{name} = " + (written[0] if len(written) == 1 else f"[{', '.join(written)}]")
    longest = max((fact.value for each in seen for fact in each.facts if isinstance(fact.value, float)), default=0.0)
    if name == "exposure" and longest > _LONG:
        yield f'# exposure = "{seen[0].keyword} [ms]"  # if these are milliseconds'


def _fix(plan: NightPlan, name: str) -> Iterator[str]:
    """Yield what is known of a fact that no keyword gives, in comments."""
    for each in _seen(plan, name):
        if each.keyword:
            continue
        known = [fact for fact in each.facts if fact.value is not None]
        sources = ", ".join(dict.fromkeys(fact.source for fact in known))
        remarks = [f"#   {remark}" for remark in each.remarks]
        if known and (remarks or name in _TEMPLATES):
            yield f"# {name}: {_Seen('', known).values(name)}, {sources} ({_files(known)})"
        lost = len(each.facts) - len(known)
        if lost and (name in _TEMPLATES or remarks):
            yield f"# {name}: nothing found in {lost} of {len(plan.frames)} images"
        yield from remarks
        if name in _TEMPLATES and (lost or known):
            one = value_to_text(name, known[0].value) if name in {"overscan", "trim"} and known else _TEMPLATES[name]
            yield f"# {name} = {_quoted(one)}"


def _strips(plan: NightPlan) -> Iterator[str]:
    """Yield sections of a flat that see no light, where no keyword names an overscan."""
    done = set()
    for item in plan.frames:
        if calibration_of(item.kind) != "flat" or item.facts.overscan.value is not None or item.shape in done:
            continue
        done.add(item.shape)
        image = resolve(open_raw(item))
        pixels = read_pixels(image, Region.full(item.shape), allowed="SAT")
        strips = dark_strips(pixels)
        where = "@NAXIS1={1},NAXIS2={0}".format(*item.shape)
        for strip in strips:
            yield f"# {strip.to_fits()} of {item.name} sees less than {_DARK_PART:.0%} of its light: an overscan?"
            yield f"# {_quoted(f'overscan{where}')} = {_quoted(strip.to_fits())}"
        if strips and item.facts.trim.value is None:
            yield f"# {_quoted(f'trim{where}')} = {_quoted(_lit_part(item.shape, strips).to_fits())}"
        # a raw flat has its pedestal, of which each amplifier has its own
        zero = min(float(np.nanmin(np.nanmedian(pixels, axis=axis))) for axis in (0, 1))
        is_dark = zero <= _LIT_PART * float(np.nanmedian(pixels))
        yield from _amplifiers(item, unlit_strips(pixels - (zero if is_dark else 0.0)))


def _amplifiers(item: FramePlan, strips: list[Region]) -> Iterator[str]:
    """Yield amplifiers in comments, if strips without light across a flat divide it."""
    for strip in strips:
        yield f"# {strip.to_fits()} of {item.name} sees no light, between parts that do: overscans of two amplifiers?"
        yield "# [amplifiers]  # each with its data and overscan; GAIN and RDNOISE if the header does not have those of each"
        for name, data, overscan in zip("AB", *_halves(item.shape, strip), strict=True):
            cards = f'DATASEC = "{data.to_fits()}", BIASSEC = "{overscan.to_fits()}", GAIN = 1.5, RDNOISE = 5.0'
            yield f"# {name} = {{{cards}}}"


def _halves(shape: tuple[int, int], strip: Region) -> tuple[list[Region], list[Region]]:
    """Return the data on both sides of a strip across an image, and the halves of the strip.

    Examples
    --------
    >>> data, overscans = _halves((4, 20), Region(0, 4, 8, 12))
    >>> data[1], overscans[1]
    (Region(y0=0, y1=4, x0=12, x1=20), Region(y0=0, y1=4, x0=10, x1=12))
    """
    y0, y1, x0, x1 = strip
    if strip.shape.y == shape[0]:
        middle = (x0 + x1) // 2
        edges = [(0, x0), (x1, shape[1])], [(x0, middle), (middle, x1)]
        data, overscans = ([Region(0, shape[0], *pair) for pair in pairs] for pairs in edges)
    else:
        middle = (y0 + y1) // 2
        edges = [(0, y0), (y1, shape[0])], [(y0, middle), (middle, y1)]
        data, overscans = ([Region(*pair, 0, shape[1]) for pair in pairs] for pairs in edges)
    return data, overscans


def dark_strips(flat: Array) -> list[Region]:
    """Return the strips along the edges of a flat that see no light, less the 3 pixels next to the light.

    Examples
    --------
    >>> dark_strips(np.hstack([np.full((10, 20), 5000.0), np.full((10, 12), 300.0)]))
    [Region(y0=0, y1=10, x0=23, x1=32)]
    """
    found = []
    profiles = {axis: np.nanmedian(flat, axis=1 - axis) for axis in (1, 0)}
    # One level without light for both axes: the darkest rows of a flat that vignettes are lit all the same.
    zero = min(float(np.nanmin(profile)) for profile in profiles.values())
    for axis, profile in profiles.items():
        top = float(np.nanmedian(profile))
        lit = np.flatnonzero(profile - zero > _DARK_PART * (top - zero))
        if not lit.size or zero > _LIT_PART * top:
            continue
        for first, last in ((0, int(lit[0]) - _MARGIN), (int(lit[-1]) + 1 + _MARGIN, flat.shape[axis])):
            if last - first >= _LEAST_STRIP:
                other = flat.shape[1 - axis]
                found.append(Region(0, other, first, last) if axis else Region(first, last, 0, other))
    return found


def _lit_part(shape: tuple[int, int], strips: list[Region]) -> Region:
    """Return what is left of an image between strips at its edges and the `_MARGIN` next to them."""
    y0, y1, x0, x1 = Region.full(shape)
    for strip in strips:
        if strip.shape.y < shape[0]:
            y0, y1 = (strip.y1 + _MARGIN, y1) if strip.y0 == 0 else (y0, strip.y0 - _MARGIN)
        else:
            x0, x1 = (strip.x1 + _MARGIN, x1) if strip.x0 == 0 else (x0, strip.x0 - _MARGIN)
    return Region(y0, y1, x0, x1)


def _types(plan: NightPlan) -> Iterator[str]:
    """Yield the words for types: those that are known in comments, unknown ones to be filled in, proposals of names."""
    words: dict[tuple[str, str, str], list[FramePlan]] = {}
    names: dict[tuple[str, str], list[FramePlan]] = {}
    for item in plan.frames:
        fact = item.facts.type
        said = _SAID.match(fact.source)
        if said:
            words.setdefault((said["keyword"], normalize(said["text"]), item.kind), []).append(item)
        else:
            names.setdefault((_condition(item, plan), item.kind), []).append(item)
    for (keyword, word, kind), items in words.items():
        line = f"{_quoted(word)} = {_quoted(kind)}  # {keyword}, {_files(items)}"
        if kind == "unknown":
            # What `classify` says behind the word: the nearest that is known, and how to state it.
            near = [part for part in items[0].facts.type.source.split("; ") if part.startswith("the nearest")]
            yield f"{line}; FILL IN: {near[0] if near else 'no known type'}"
        else:
            yield f"# {line}"
    # Of the lines that fit a frame the first decides.
    for (condition, kind), items in sorted(names.items(), key=lambda each: _order(each[0][0])):
        fact = items[0].facts.type
        told = f"; FILL IN: {fact.source.partition(' (')[0]}" if kind == "unknown" else f": {fact.source}"
        doubt = "DOUBT, " if fact.doubt else ""
        yield f"# {_quoted(f'*@{condition}')} = {_quoted(kind)}  # {doubt}{_files(items)}{told}"


def _order(condition: str) -> int:
    """Return the place of a line: what proposes a type is asked in this order, see `classify`."""
    keyword = condition.partition("=")[0]
    return {"FILE": 1, "OBJECT": 2}.get(keyword, 0)


def _condition(item: FramePlan, plan: NightPlan) -> str:
    """Return the condition that tells the type of a frame without a word for it: what proposed the type, if no other type fits it."""
    source, title, keyword = item.facts.type.source, item.facts.object, item.facts.exposure.keyword
    by_exposure = [other for other in plan.frames if not other.facts.exposure.value]
    if source.startswith("exposure 0 s") and re.fullmatch(r"[A-Z0-9_-]+", keyword) and _are_alike(by_exposure):
        return f"{keyword}=0"
    by_object = [other for other in plan.frames if other.facts.object.value == title.value]
    is_plain = title.keyword == "OBJECT" and not re.search("[,@=]", title.value or "")
    if source.startswith("proposed by OBJECT") and is_plain and _are_alike(by_object):
        return f"OBJECT={glob.escape(title.value or '')}"
    pattern = _pattern(item)
    # A pattern such as b* for biases would take bd17_r.fits for one.
    by_name = [other for other in plan.frames if fnmatchcase(other.name.upper(), pattern.upper())]
    return f"FILE={pattern if _are_alike(by_name) else glob.escape(item.name.partition('[')[0])}"


def _are_alike(frame_plans: list[FramePlan]) -> bool:
    return len({item.kind for item in frame_plans}) == 1


def _pattern(item: FramePlan) -> str:
    """Return a pattern for a file and its neighbours: its name without the number at the end."""
    folder, file = os.path.split(split_hdu(item.name)[0])
    stem = re.sub(r"\d+$", "", file.split(".")[0])
    return os.path.join(folder, glob.escape(stem) + "*")
