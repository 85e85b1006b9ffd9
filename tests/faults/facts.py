"""Corrupts headers and files of a night whose truth is known, and compares what comes out with the truth.

``python tests/faults/facts.py --draws 300 --seed 1`` is the long form; the tests run a short one. Prints a table: for each kind of
corruption how often it was drawn, and what became of the night. Two thirds of the draws have one corruption, the others two.

A product is right if all of this holds for its good pixels, which are at least nine in ten:

- The median of product minus truth is at most 3 standard errors of a median, by the stated noise, plus 0.5 % of the level.
- So is that of each of 16 parts of the image, with 4 standard errors and 1 % of the level, since there are many.
- The scatter of product minus truth is the stated noise within 25 %.
- It is in electrons. Without a gain in any header the measured one counts, if it is within 15 % of the true one.

A night is *wrong and DONE* if a product is not right and has the status COMPLETE, if a light vanishes without a word, or if
anything but an error of the package is raised. Corruptions that harm nothing must give products that are right and DONE.

Left out, because nothing in the files tells:

- A whole night whose GAIN is wrong by less than 15 %: pairs of three flats measure no better.
- A light taken with another offset that no card tells, without an overscan: it looks like a brighter sky. Frames of two offsets
  differ in the bias, but the light is the only one of its kind.
- The FILTER of all flats of a filter and of its lights wrong in the same way: the products are right and have another name.
- EXPTIME of lights and darks wrong in the same way: the product is right, its rate is not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.options import Options
from lazyccd.batch.outcome import Outcome
from lazyccd.batch.run import Run
from lazyccd.errors import LazyCCDError

Array: TypeAlias = npt.NDArray[Any]
Card: TypeAlias = tuple[str, Any, str]

SIDE = 64
GAIN, READ_NOISE, PEDESTAL = 2.0, 6.0, 1000.0
SKY, EXPOSURE = 4000.0, 60.0
"""Electrons of the sky in a light, and its seconds."""

BEGIN = datetime(2024, 3, 10, 20)


class Camera:
    """A detector of known bias, dark current and flats."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
        self.bias = PEDESTAL + 30 * y + rng.normal(0, 10, SIDE)[None, :]
        self.dark = 10 * rng.normal(1, 0.2, (SIDE, SIDE)).clip(0.3)
        self.dark.ravel()[rng.choice(SIDE * SIDE, 60, replace=False)] *= 20
        shapes = {"B": 1.15 - 0.4 * x + 0.1 * y, "V": 0.85 + 0.1 * x + 0.3 * y**2}
        self.flats = {name: shape * rng.normal(1, 0.04, (SIDE, SIDE)) for name, shape in shapes.items()}
        middle = slice(SIDE // 4, -SIDE // 4)
        self.flats = {name: flat / np.median(flat[middle, middle]) for name, flat in self.flats.items()}
        self.stars = sum(
            3000 * np.exp(-((y * SIDE - b) ** 2 + (x * SIDE - a) ** 2) / 4.5) for a, b in rng.uniform(6, 58, (8, 2))
        )

    def expose(
        self, rng: np.random.Generator, light: Array | float, seconds: float, band: str, **state: float
    ) -> Array:
        """Return adu of a frame on which so many electrons of light fell.

        ``offset``, ``gain``, ``warm`` and ``speed`` are what a camera can be set to: adu more of pedestal, electrons per adu, a
        factor of the dark current and one of the read noise.
        """
        gain = state.get("gain", GAIN)
        electrons = light * self.flats[band] + self.dark * seconds * state.get("warm", 1.0)
        read = rng.normal(0, READ_NOISE * state.get("speed", 1.0), (SIDE, SIDE))
        adu = (rng.poisson(electrons) + read) / gain + self.bias + state.get("offset", 0.0)
        pixels: Array = np.rint(adu).clip(0, 65535)
        return pixels


@dataclass
class Frame:
    """One file of the night, before and after it was corrupted."""

    name: str
    kind: str
    """What it is: bias, dark, flat or light."""

    band: str
    seconds: float
    pixels: Array
    truth: Array | float
    """Electrons of light that fell."""

    cards: list[Card]
    dtype: str = "uint16"
    damage: Callable[[Path], None] = lambda _path: None
    """What happens to the file after it is written."""

    note: str = ""

    def get(self, key: str) -> Any:
        """Return the value of a card."""
        return next((value for name, value, _ in self.cards if name == key), None)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Replace a card, or add it; None takes it away."""
        places = [number for number, card in enumerate(self.cards) if card[0] == key]
        self.cards = [card for card in self.cards if card[0] != key]
        if value is not None:
            self.cards.insert(places[0] if places else len(self.cards), (key, value, comment))

    def write(self, folder: Path) -> None:
        """Write the file."""
        header = fits.Header()
        for card in self.cards:
            header.append(card, end=True)
        path = folder / self.name
        fits.writeto(path, self.pixels.astype(self.dtype), header)
        self.damage(path)


@dataclass
class Night:
    """A night that corruptions change."""

    camera: Camera
    rng: np.random.Generator
    folder: Path
    frames: list[Frame]
    options: dict[str, Any] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    """What was done, for messages."""

    def pick(self, *kinds: str) -> Frame:
        """Return one frame of some kinds, any kind if none is named."""
        some = [frame for frame in self.frames if frame.kind in kinds or not kinds]
        return some[self.rng.integers(len(some))]

    def all(self, *kinds: str) -> list[Frame]:
        """Return the frames of some kinds, all if none is named."""
        return [frame for frame in self.frames if frame.kind in kinds or not kinds]

    def some(self) -> list[Frame]:
        """Return one frame, all of one kind, or all frames: as many as a fault may concern."""
        kind = self.pick().kind
        return [[self.pick(kind)], self.all(kind), self.all()][self.rng.integers(3)]

    def choose(self, values: Any) -> Any:
        """Return one of some values."""
        values = list(values)
        return values[self.rng.integers(len(values))]

    def say(self, text: str) -> None:
        """Note what was done."""
        self.touched.append(text)

    def expose(self, frame: Frame, **state: float) -> None:
        """Take a frame anew with the camera in another state."""
        frame.pixels = self.camera.expose(self.rng, frame.truth, frame.seconds, frame.band, **state)

    def add(self, frame: Frame, name: str) -> Frame:
        """Add a copy of a frame under another name, and return it."""
        new = replace(frame, name=name, cards=list(frame.cards), pixels=frame.pixels.copy())
        self.frames.append(new)
        return new


def make_night(seed: int, folder: Path) -> Night:
    """Return the night as it should be: 3 biases, 2 darks, 3 flats of each of two filters, a light of each."""
    rng = np.random.default_rng(seed)
    camera = Camera(7)
    shots = [("bias", "B", 0.0, 0.0)] * 3 + [("dark", "B", EXPOSURE, 0.0)] * 2
    shots += [("flat", band, 5.0, 40000.0) for band in "BBBVVV"] + [("light", band, EXPOSURE, SKY) for band in "BV"]
    frames, clock = [], BEGIN
    for number, (kind, band, seconds, light) in enumerate(shots):
        truth = SKY + camera.stars if kind == "light" else light * rng.uniform(0.9, 1.1)
        cards = usual_cards(kind, band, seconds, clock, rng)
        pixels = camera.expose(rng, truth, seconds, band)
        frames.append(Frame(f"n{number:02d}.fits", kind, band, seconds, pixels, truth, cards))
        clock += timedelta(seconds=seconds + 10)
    return Night(camera, rng, folder, frames)


WORDS = {"bias": "Bias Frame", "dark": "Dark Frame", "flat": "Flat Field", "light": "Light Frame"}


def usual_cards(kind: str, band: str, seconds: float, clock: datetime, rng: np.random.Generator) -> list[Card]:
    """Return the cards of a frame."""
    values = {
        "IMAGETYP": WORDS[kind],
        "EXPTIME": seconds,
        "DATE-OBS": clock.isoformat(),
        "FILTER": band,
        "OBJECT": "M67" if kind == "light" else None,
        "TELESCOP": "1m",
        "INSTRUME": "CAM",
        "DETECTOR": "D1",
        "XBINNING": 1,
        "YBINNING": 1,
        "READOUTM": "slow",
        "OFFSET": 10,
        "GAIN": GAIN,
        "RDNOISE": READ_NOISE,
        "SET-TEMP": -20.0,
        "CCD-TEMP": round(-20 + rng.uniform(-0.2, 0.2), 2),
    }
    return [(key, value, "") for key, value in values.items() if value is not None]


# Corruptions


class Corruption(NamedTuple):
    """A kind of corruption."""

    name: str
    apply: Callable[[Night], None]
    is_harmless: bool


KINDS: list[Corruption] = []


def kind(name: str, *, harmless: bool = False) -> Callable[[Callable[[Night], None]], Callable[[Night], None]]:
    """Register a kind of corruption."""

    def register(apply: Callable[[Night], None]) -> Callable[[Night], None]:
        KINDS.append(Corruption(name, apply, harmless))
        return apply

    return register


def change(night: Night, frames: list[Frame], key: str, value: Any, comment: str = "") -> None:
    """Set a card of some frames."""
    names = frames[0].name if len(frames) == 1 else f"{len(frames)} frames from {frames[0].name}"
    night.say(f"{key} = {value!r} on {names}")
    for frame in frames:
        frame.set(key, value, comment)


CARDS = (
    "IMAGETYP", "EXPTIME", "DATE-OBS", "FILTER", "OBJECT", "TELESCOP", "INSTRUME", "DETECTOR", "XBINNING", "READOUTM", "OFFSET", "GAIN",
    "RDNOISE", "SET-TEMP", "CCD-TEMP",
)  # fmt: skip


@kind("a card is missing")
def _(night: Night) -> None:
    change(night, night.some(), night.choose(CARDS), None)


@kind("a card says UNKNOWN, N/A or nothing")
def _(night: Night) -> None:
    change(night, night.some(), night.choose(CARDS), night.choose(["UNKNOWN", "N/A", "", "None", "nan"]))


@kind("all cards are missing")
def _(night: Night) -> None:
    frame = night.pick()
    night.say(f"no cards in {frame.name}")
    frame.cards = []


@kind("names in other case", harmless=True)
def _(night: Night) -> None:
    lower = bool(night.rng.integers(2))
    for frame in night.frames:
        frame.set("IMAGETYP", frame.get("IMAGETYP") and str(frame.get("IMAGETYP")).swapcase())
        for key in ("INSTRUME", "FILTER", "READOUTM"):
            text = str(frame.get(key) or "")
            frame.set(key, (text.lower() if lower else text.upper()) or None)
    night.say("names in other case on all frames")


@kind("a name in other case")
def _(night: Night) -> None:
    frame = night.pick()
    key = night.choose(["INSTRUME", "FILTER", "READOUTM", "TELESCOP", "DETECTOR"])
    change(night, [frame], key, str(frame.get(key) or "").swapcase())


OTHER_WORDS = {
    "bias": ["BIAS", "zero", "Bias", "OFFSET", "BIAS FRAME", "bias "],
    "dark": ["DARK", "dark", "Dark", "DARK FRAME", "dark_frame"],
    "flat": ["FLAT", "flat", "Flat Frame", "FLATFIELD", "flat-field", "FLAT,LAMP", "DOME FLAT"],
    "light": ["OBJECT", "object", "LIGHT", "light", "Science", "OBJ", "STANDARD", "sky"],
}


@kind("types in other words", harmless=True)
def _(night: Night) -> None:
    kind = night.pick().kind
    change(night, night.all(kind), "IMAGETYP", night.choose(OTHER_WORDS[kind]))


@kind("types under another keyword", harmless=True)
def _(night: Night) -> None:
    key = night.choose(["OBSTYPE", "IMGTYPE", "FRAME", "EXPTYPE"])
    for frame in night.frames:
        frame.set(key, frame.get("IMAGETYP"))
        frame.set("IMAGETYP", None)
    night.say(f"IMAGETYP is {key} on all frames")


@kind("a type that is another's")
def _(night: Night) -> None:
    frame = night.pick()
    frames = night.choose([[frame], [frame], night.all(frame.kind)])
    change(night, frames, "IMAGETYP", night.choose(word for kind, word in WORDS.items() if kind != frame.kind))


@kind("a type that is no word")
def _(night: Night) -> None:
    frames = night.choose([[night.pick()], night.all(night.pick().kind)])
    change(night, frames, "IMAGETYP", night.choose(["foo", "17", 17, True, "Calibration", "T"]))


@kind("a filter that is another's")
def _(night: Night) -> None:
    frame = night.pick("flat", "light")
    change(night, [frame], "FILTER", {"B": "V", "V": "B"}[frame.band])


@kind("a filter nobody else has")
def _(night: Night) -> None:
    frame = night.pick("flat", "light")
    change(night, [frame], "FILTER", night.choose(["b", "Bu", "B2", "B_", "", "open", 7, True, "v"]))


@kind("filters in a wheel of another name", harmless=True)
def _(night: Night) -> None:
    key = night.choose(["FILTER2", "FILTNAM", "FILTNAM1", "FILTERID"])
    for frame in night.frames:
        frame.set(key, frame.get("FILTER"))
        frame.set("FILTER", "OPEN" if key == "FILTER2" else None)
    night.say(f"FILTER is {key} on all frames")


@kind("an exposure that is wrong")
def _(night: Night) -> None:
    frame = night.pick("dark", "light", "flat")
    frames = night.choose([[frame], night.all(frame.kind)])
    factor = night.choose([0.01, 0.1, 0.5, 2.0, 10.0, 1000.0])
    night.say(f"EXPTIME times {factor:g} from {frame.name}, {len(frames)} frames")
    for each in frames:
        each.set("EXPTIME", (each.seconds or 1.0) * factor)


@kind("an exposure of another type")
def _(night: Night) -> None:
    values = ["60.0 s", "60,0", "sixty", -1.0, 0, True, "1 min", "NaN", "60.0.0", "[60]"]
    change(night, [night.pick()], "EXPTIME", night.choose(values))


@kind("exposures as text or in ms", harmless=True)
def _(night: Night) -> None:
    how = night.rng.integers(4)
    for frame in night.frames:
        value: Any = [str(frame.seconds), f"{frame.seconds:.1f} s", f"{frame.seconds:.2f}", frame.seconds * 1000][how]
        frame.set("EXPTIME", value, "[ms] exposure" if how == 3 else "")
    night.say(f"EXPTIME as {night.frames[-1].get('EXPTIME')!r}")


@kind("milliseconds that nothing tells")
def _(night: Night) -> None:
    frames = night.choose([night.all(), night.all("light"), night.all("dark"), night.all("dark", "light")])
    night.say(f"EXPTIME in ms from {frames[0].name}, {len(frames)} frames")
    for frame in frames:
        frame.set("EXPTIME", frame.seconds * 1000)


@kind("a gain that is wrong on a frame")
def _(night: Night) -> None:
    change(
        night,
        [night.pick()],
        "GAIN",
        night.choose([1.0, 2.5, 200.0, 100, 0, -2.0, "2,0", "high", True, "2.0 e-/adu", "[2]"]),
    )


@kind("a gain that is wrong on all frames")
def _(night: Night) -> None:
    change(night, night.all(), "GAIN", night.choose([1.0, 3.0, 0.5, 200.0, 100, 0, -2.0, "high", 1, True, 20.0]))


@kind("a gain as text", harmless=True)
def _(night: Night) -> None:
    change(night, night.all(), "GAIN", night.choose(["2.0", "2,0", "2.0 e-/adu", " 2.0 ", "2.0E0", 2]))


@kind("a read noise that is wrong")
def _(night: Night) -> None:
    value = night.choose([2.0, 15.0, 60.0, 0, -6.0, "low", True, 600.0])
    change(night, night.choose([[night.pick()], night.all(), night.all()]), "RDNOISE", value)


@kind("a temperature that is wrong")
def _(night: Night) -> None:
    value = night.choose([-10.0, 5, "-20.0", "cold", 999.0, -22.0, 253.15])
    change(night, [night.pick()], night.choose(["CCD-TEMP", "SET-TEMP"]), value)


@kind("a card twice, with other values")
def _(night: Night) -> None:
    frames = night.some()
    key = night.choose(
        ["IMAGETYP", "EXPTIME", "FILTER", "GAIN", "RDNOISE", "OFFSET", "CCD-TEMP", "READOUTM", "DATE-OBS", "DETECTOR"]
    )
    first = bool(night.rng.integers(2))
    other = {
        "IMAGETYP": night.choose(list(WORDS.values())), "EXPTIME": 30.0, "FILTER": night.choose("BV"), "GAIN": 1.0, "RDNOISE": 30.0,
        "OFFSET": 50, "CCD-TEMP": -5.0, "READOUTM": "fast", "DATE-OBS": "2021-01-01T00:00:00", "DETECTOR": "D2",
    }[key]  # fmt: skip
    night.say(
        f"{key} = {other!r} {'before' if first else 'behind'} the true one, {len(frames)} frames from {frames[0].name}"
    )
    for frame in frames:
        frame.cards.insert(0 if first else len(frame.cards), (key, other, ""))


@kind("two keywords that differ")
def _(night: Night) -> None:
    key, value = night.choose(
        [
            ("EXPOSURE", 30.0),
            ("EGAIN", 1.0),
            ("EGAIN", 30.0),
            ("READNOIS", 20.0),
            ("OBSTYPE", "DARK"),
            ("CCDSUM", "2 2"),
            ("FILTER2", "ND"),
        ]
    )
    frames = night.some()
    night.say(f"{key} = {value!r} besides, {len(frames)} frames from {frames[0].name}")
    for frame in frames:
        frame.cards.insert(0, (key, value, ""))


@kind("a date that is wrong or odd")
def _(night: Night) -> None:
    values = [
        "2019-03-10T20:00:00",
        "10/03/2024",
        "2024-13-41T20:00:00",
        "1970-01-01T00:00:00",
        "20:00:00",
        "2024-03-10",
        17,
        "yesterday",
        "2024-03-11T20:00:00",
    ]
    change(night, night.some(), "DATE-OBS", night.choose(values))


@kind("dates in other words", harmless=True)
def _(night: Night) -> None:
    how = night.rng.integers(4)
    for frame in night.frames:
        text = str(frame.get("DATE-OBS") or BEGIN.isoformat())
        day, clock = text.split("T") if "T" in text else (text, "20:00:00")
        frame.set("DATE-OBS", [f"{day} {clock}", f"{text}Z", f"{text}+00:00", day][how])
        if how == 3:
            frame.set("TIME-OBS", clock)
    night.say(f"DATE-OBS as {night.frames[-1].get('DATE-OBS')!r}")


STATES: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "offset": ({"offset": 300.0}, {"OFFSET": 50}),
    "gain": ({"gain": 1.0}, {"GAIN": 1.0}),
    "read-out": ({"offset": 150.0, "speed": 3.0}, {"READOUTM": "fast"}),
    "temperature": ({"warm": 3.0}, {"CCD-TEMP": -10.0, "SET-TEMP": -10.0}),
    "temperature not reached": ({"warm": 3.0}, {"CCD-TEMP": -10.0}),
    "detector": ({"offset": -200.0, "gain": 1.2}, {"DETECTOR": "D2"}),
    "telescope": ({"offset": 400.0}, {"TELESCOP": "2m"}),
    "instrument": ({"offset": -300.0}, {"INSTRUME": "CAM2"}),
    "iso": ({"gain": 1.0, "offset": 100.0}, {"ISOSPEED": 1600}),
    "gain setting": ({"gain": 0.5, "offset": 200.0}, {"GAINSET": 200}),
}


def _with_state(night: Night, frames: list[Frame]) -> None:
    """Take frames anew in another state, which one card tells."""
    name = night.choose(STATES)
    state, cards = STATES[name]
    night.say(f"another {name}, {len(frames)} frames from {frames[0].name}")
    for frame in frames:
        night.expose(frame, **state)
        for key, value in cards.items():
            frame.set(key, value)


@kind("a frame of another setting")
def _(night: Night) -> None:
    _with_state(night, [night.pick()])


@kind("all calibrations of a kind of another setting")
def _(night: Night) -> None:
    _with_state(night, night.all(night.choose(["bias", "dark", "flat"])))


@kind("a light of another setting")
def _(night: Night) -> None:
    _with_state(night, night.choose([[night.pick("light")], night.all("light")]))


@kind("more frames of another setting")
def _(night: Night) -> None:
    kind = night.choose(["bias", "dark", "flat"])
    new = [night.add(frame, frame.name.replace("n", "more")) for frame in night.all(kind)]
    _with_state(night, new)


@kind("frames of another setting without the card that tells")
def _(night: Night) -> None:
    name = night.choose(
        name for name in STATES if name not in {"gain", "temperature not reached", "iso", "gain setting"}
    )
    state, cards = STATES[name]
    frame = night.pick()
    frames = night.choose([[frame], night.all(frame.kind)])
    night.say(f"another {name}, no {' nor '.join(cards)} in {len(frames)} frames from {frame.name}")
    for each in frames:
        night.expose(each, **state)
        for key in cards:
            each.set(key, None)


@kind("frames that are flipped")
def _(night: Night) -> None:
    frame = night.pick()
    frames = night.choose([[frame], night.all(frame.kind)])
    told = bool(night.rng.integers(2))
    night.say(f"flipped, {'ROWORDER tells' if told else 'no card tells'}: {len(frames)} frames from {frame.name}")
    for each in frames:
        each.pixels = each.pixels[::-1].copy()
        each.truth = np.broadcast_to(each.truth, (SIDE, SIDE))[::-1] if each.kind == "light" else each.truth
        if told:
            each.set("ROWORDER", "TOP-DOWN")


@kind("pixels in electrons that no card tells")
def _(night: Night) -> None:
    frames = night.some()
    night.say(f"pixels in electrons, {len(frames)} frames from {frames[0].name}")
    for each in frames:
        each.pixels = (each.pixels * GAIN).clip(0, 65535)


@kind("BZERO is lost")
def _(night: Night) -> None:
    frames = night.some()
    night.say(f"BZERO lost, {len(frames)} frames from {frames[0].name}")
    for each in frames:
        each.dtype = "int16"
        each.pixels = each.pixels - 32768


@kind("calibrations of another pedestal that nothing tells")
def _(night: Night) -> None:
    kind = night.choose(["bias", "dark", "bias"])
    frames = night.choose([[night.pick(kind)], night.all(kind)])
    offset = night.choose([-400.0, 300.0])
    night.say(f"pedestal {offset:+g} in {len(frames)} frames from {frames[0].name}, no card tells")
    for frame in frames:
        night.expose(frame, offset=offset)


@kind("darks of another temperature that nothing tells")
def _(night: Night) -> None:
    frames = night.choose([[night.pick("dark")], night.all("dark")])
    night.say(f"warm, no card tells: {len(frames)} frames from {frames[0].name}")
    for frame in frames:
        night.expose(frame, warm=4.0)


@kind("a frame of another size")
def _(night: Night) -> None:
    frame = night.pick()
    how = night.rng.integers(3)
    night.say(f"size {['half', 'binned', 'cut'][how]} {frame.name}")
    if how == 1:
        frame.pixels = np.rint(frame.pixels.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3)))
        frame.truth = np.broadcast_to(frame.truth, (SIDE, SIDE)).reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
        frame.set("XBINNING", 2)
        frame.set("YBINNING", 2)
    else:
        rows = slice(0, SIDE // 2) if how == 0 else slice(8, SIDE - 8)
        frame.pixels = frame.pixels[rows]
        frame.truth = np.broadcast_to(frame.truth, (SIDE, SIDE))[rows]


@kind("a window of the same size elsewhere")
def _(night: Night) -> None:
    frame = night.pick()
    change(night, [frame], "CCDSEC", night.choose(["[65:128,1:64]", "[1:64,65:128]"]))
    frame.pixels = np.roll(frame.pixels, 20, axis=1)


@kind("a type of numbers that others have not")
def _(night: Night) -> None:
    frame = night.pick()
    frame.dtype = night.choose(["float32", "int32", "float64", "int16"])
    unit = night.choose([None, "adu", None])
    night.say(f"{frame.name} is {frame.dtype}, BUNIT {unit}")
    frame.set("BUNIT", unit)


@kind("a unit that is wrong")
def _(night: Night) -> None:
    change(
        night,
        night.choose([[night.pick()], night.all()]),
        "BUNIT",
        night.choose(["electron", "e-", "foo", "Jy", "electron/s", 7, "adu/s"]),
    )


@kind("units that mean adu", harmless=True)
def _(night: Night) -> None:
    change(night, night.all(), "BUNIT", night.choose(["ADU", "adu", "counts", "count", "DN", "ct", "Counts"]))


STAMPS = (
    {"NCOMBINE": 20}, {"CALSTAT": "M"}, {"IMCMB001": "a.fits", "IMCMB002": "b.fits"}, {"STACKCNT": 12}, {"COMBINED": True},
    {"LZKIND": "master bias", "LZNFRAME": 5}, {"SNAPSHOT": 9}, {"NSTACK": 4}, {"IMAGETYP": "MASTER {}"}, {"IMAGETYP": "Master {} Frame"},
    {"name": "master_{}"}, {"name": "Master-{}-"},
)  # fmt: skip


@kind("a master among the raw frames")
def _(night: Night) -> None:
    frame = night.pick("bias", "dark", "flat")
    new = [night.add(frame, f"{night.choose(['a', 'm', 'z'])}{number}.fits") for number in range(night.choose([1, 3]))]
    stamps = night.choose(STAMPS)
    dtype = night.choose(["uint16", "float32"])
    night.say(f"{len(new)} masters like {frame.name} with {stamps}, {dtype}")
    for each in new:
        each.note, each.dtype = "master", dtype
        night.expose(each, offset=300.0, warm=3.0)
        for key, value in stamps.items():
            text = value.format(frame.kind) if isinstance(value, str) else value
            if key == "name":
                each.name = f"{text}{each.name}"
            else:
                each.set(key, text)


DONE: tuple[dict[str, Any], ...] = (
    {"CALSTAT": "BDF"}, {"CALSTAT": "BD"}, {"ZEROCOR": "Mar 10 20:00 Zero level correction image is Zero.fits"},
    {"CCDPROC": "Mar 10 CCD processing done"}, {"FLATCOR": "Mar 10 Flat field image is Flat"}, {"subtract_bias": "done"},
    {"OVERSCAN": "Mar 10 Overscan section is [65:80,1:64] with mean=1000"}, {"LZSTATUS": "COMPLETE", "LZSOURCE": "n11.fits"},
    {"RLEVEL": 91}, {"PROCTYPE": "Processed"}, {"HISTORY": "Bias subtracted by some program", "CALSTAT": "D"},
)  # fmt: skip


def _calibrate(night: Night, frame: Frame) -> None:
    """Do to a frame what a reduction does, in adu."""
    light = np.broadcast_to(frame.truth, frame.pixels.shape)
    noise = (
        np.sqrt(light + night.camera.dark * frame.seconds + READ_NOISE**2) if frame.pixels.shape == (SIDE, SIDE) else 60
    )
    frame.pixels = (light + night.rng.normal(0, 1, light.shape) * noise) / GAIN
    if frame.dtype == "uint16":
        frame.pixels = np.rint(frame.pixels).clip(0)


@kind("a frame that is calibrated already, stamped")
def _(night: Night) -> None:
    frame = night.pick("light", "flat")
    stamps = night.choose(DONE)
    frame.dtype = night.choose(["float32", "uint16"])
    night.say(f"{frame.name} calibrated, {frame.dtype}, {stamps}")
    _calibrate(night, frame)
    for key, value in stamps.items():
        frame.set(key if len(key) <= 8 else f"HIERARCH {key}", value)


@kind("a frame that is calibrated already, without a stamp")
def _(night: Night) -> None:
    frame = night.pick("light")
    frame.dtype = night.choose(["float32", "uint16", "int16"])
    frame.set("BUNIT", night.choose([None, "adu"]))
    night.say(f"{frame.name} calibrated, {frame.dtype}, no stamp")
    _calibrate(night, frame)


def _master(night: Night, kind: str, path: Path, **state: float) -> Frame:
    """Write a master of a kind, of the night's frames or taken in another state, and return it."""
    some = [each for each in night.all(kind) if kind != "flat" or each.band == "B"] or night.all()
    exposures = [night.camera.expose(night.rng, f.truth, f.seconds, f.band, **state) for f in some]
    pixels = np.median(exposures, axis=0)
    if kind != "bias":
        pixels = pixels - night.camera.bias - state.get("offset", 0.0)
    new = replace(some[0], name=path.name, pixels=pixels, dtype="float32", cards=list(some[0].cards))
    new.set("NCOMBINE", len(some))
    if kind != "bias":
        new.set("ZEROCOR", "Mar 10 20:00 Zero level correction image is Zero.fits")
    return new


WRONG_MASTERS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    **STATES,
    "filter": ({}, {"FILTER": "I"}),
    "exposure": ({"warm": 5.0}, {"EXPTIME": 300.0}),
    "pedestal that nothing tells": ({"offset": 300.0}, {}),
    "bare header": ({"offset": 300.0, "warm": 2.0}, dict.fromkeys(CARDS)),
    "unit": ({}, {"BUNIT": "electron"}),
    "date": ({"offset": 100.0, "warm": 1.5}, {"DATE-OBS": "2018-01-01T00:00:00"}),
}


def _wrong_master(night: Night, kind: str) -> None:
    """Write a master that does not belong into a folder beside the night."""
    name = night.choose(WRONG_MASTERS)
    state, cards = WRONG_MASTERS[name]
    folder = night.folder.parent / "calib"
    folder.mkdir(exist_ok=True)
    master = _master(night, kind, folder / f"{kind}.fits", **state)
    size = night.rng.integers(8) == 0
    if size:
        master.pixels = master.pixels[:32]
    for key, value in cards.items():
        master.set(key, value)
    night.say(f"master {kind} of another {'size and ' if size else ''}{name}")
    master.write(folder)


@kind("a master named that does not belong")
def _(night: Night) -> None:
    kind = night.choose(["bias", "dark", "flat"])
    if kind not in night.options:
        _wrong_master(night, kind)
        night.options[kind] = (str(night.folder.parent / "calib" / f"{kind}.fits"),)


@kind("a folder of masters that do not belong")
def _(night: Night) -> None:
    missing = night.choose(["", "bias", "dark", "flat"])
    if "calib" in night.options or (night.folder.parent / "calib").exists():
        return
    for kind in ("bias", "dark", "flat"):
        _wrong_master(night, kind)
    if missing:
        night.frames = [frame for frame in night.frames if frame.kind != missing]
        night.say(f"no {missing} in the night")
    night.options["calib"] = (str(night.folder.parent / "calib"),)


@kind("calibrations are missing")
def _(night: Night) -> None:
    kind = night.choose(["bias", "dark", "flat"])
    night.frames = [frame for frame in night.frames if frame.kind != kind]
    night.say(f"no {kind}")


def _mask(night: Night, bad: Array) -> None:
    """Write a mask beside the night."""
    path = night.folder.parent / "bpm.fits"
    if not path.exists():
        fits.writeto(path, bad.astype("uint8"))
    night.options["bpm"] = str(path)


@kind("a mask that is inverted or does not fit")
def _(night: Night) -> None:
    how = night.rng.integers(3)
    bad = np.zeros((SIDE, SIDE), bool)
    bad[10:12, 5:20] = True
    _mask(night, [~bad, bad[:32], np.ones_like(bad)][how])
    night.say(["inverted mask", "mask of another size", "mask of ones"][how])


@kind("a mask", harmless=True)
def _(night: Night) -> None:
    bad = np.zeros((SIDE, SIDE))
    bad[10:12, 5:20] = night.choose([1, 255, 4])
    _mask(night, bad)
    night.say("a mask")


def _cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@kind("a file that is damaged")
def _(night: Night) -> None:
    frame = night.pick()
    keep = night.choose([0.0, 0.1, 0.5, 0.9])
    night.say(f"{frame.name} cut to {keep:.0%}")
    frame.damage = lambda path: _cut(path, keep)


@kind("a file that is none")
def _(night: Night) -> None:
    frame = night.pick()
    how = night.rng.integers(3)
    night.say(f"{frame.name} {['is text', 'has no image', 'is a cube'][how]}")

    def damage(path: Path) -> None:
        header = fits.getheader(path)
        path.unlink()
        if how == 0:
            path.write_text("not found\n" * 500)
        else:
            fits.writeto(path, None if how == 1 else np.zeros((3, 8, 8), "uint16"), header)

    frame.damage = damage


@kind("pixels that are dead")
def _(night: Night) -> None:
    frame = night.pick()
    value = night.choose([0, 65535, 1000])
    night.say(f"{frame.name} is {value} all over")
    frame.pixels = np.full_like(frame.pixels, value)


@kind("a copy that is packed", harmless=True)
def _(night: Night) -> None:
    frame = night.pick()
    night.say(f"{frame.name}.gz beside it")

    def pack(path: Path) -> None:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))

    frame.damage = pack


@kind("a file of another layout", harmless=True)
def _(night: Night) -> None:
    frame = night.pick()
    how = night.rng.integers(3)
    night.say(f"{frame.name} {['in an extension', 'packed', 'in an extension, its cards in the primary'][how]}")

    def change_layout(path: Path) -> None:
        data, header = fits.getdata(path), fits.getheader(path)
        path.unlink()
        own = fits.ImageHDU(data, None if how == 2 else header)
        image = fits.CompImageHDU(data, header) if how == 1 else own
        fits.HDUList([fits.PrimaryHDU(header=header if how == 2 else None), image]).writeto(path)

    frame.damage = change_layout


@kind("a copy of another name")
def _(night: Night) -> None:
    frame = night.pick()
    stem = frame.name.removesuffix(".fits")
    new = night.add(frame, night.choose([f"{stem}.fit", f"{stem.upper()}.fits", f"{stem}_copy.fits", f"{stem}.FITS"]))
    night.say(f"{frame.name} once more as {new.name}")


@kind("a saturation level that is wrong")
def _(night: Night) -> None:
    change(night, night.some(), "SATURATE", night.choose([100, 1500.0, 2200.0, 0, -1, "never", 10_000]))


@kind("sections that are wrong")
def _(night: Night) -> None:
    key = night.choose(["BIASSEC", "TRIMSEC", "DATASEC"])
    values = ["[1:8,1:64]", "[60:70,1:64]", "[0:0,0:0]", "foo", "[1:64,1:6]", "[9:64,1:64]", 7]
    change(night, night.some(), key, night.choose(values))


@kind("cards that are not for this", harmless=True)
def _(night: Night) -> None:
    key, value = night.choose(
        [
            ("NCOMBINE", 1),
            ("OVERSCAN", "[57 64 1 64]"),
            ("FLATCOR", "OMIT"),
            ("TRIM", "no"),
            ("BZERO2", 3),
            ("COMBINED", False),
            ("FILENAME", "x"),
            ("CALSTAT", ""),
            ("OBSERVER", "Dark, F."),
            ("RLEVEL", 0),
        ]
    )
    change(night, night.some(), key, value)


# Judging


def product_faults(path: str, frame: Frame, gain: float | None) -> list[str]:
    """Return what is wrong with a product, by the light that fell."""
    with fits.open(path) as hdus:
        header = hdus[0].header
        data = np.asarray(hdus[0].data, float)
        names = {hdu.name: np.asarray(hdu.data) for hdu in hdus[1:] if isinstance(hdu, fits.ImageHDU)}
    truth = np.broadcast_to(np.asarray(frame.truth, float), frame.pixels.shape)
    y, x = (-int(header.get(key, 0)) for key in ("LTV2", "LTV1"))
    truth = truth[y : y + data.shape[0], x : x + data.shape[1]]
    if header.get("BUNIT") != "electron":
        return [f"unit {header.get('BUNIT')}"]
    if "UNCERT" not in names:
        return ["no uncertainty"]
    if gain is not None:
        if abs(gain / GAIN - 1) > 0.15:
            return [f"measured gain {gain:.3g}"]
        truth = truth * gain / GAIN
    good = (names["MASK"] == 0) & np.isfinite(data) if "MASK" in names else np.isfinite(data)
    if good.mean() < 0.9:
        return [f"{1 - good.mean():.0%} masked"]
    return level_faults(np.where(good, data - truth, np.nan), np.where(good, names["UNCERT"], np.nan), truth)


def level_faults(rest: Array, sigma: Array, truth: Array) -> list[str]:
    """Return where product minus truth is larger than its noise allows."""
    faults = []
    noise, level = float(np.nanmedian(sigma)), abs(float(np.median(truth)))

    def far(part: Array, sigmas: float, relative: float) -> bool:
        count = int(np.isfinite(part).sum())
        most = sigmas * 1.2533 * noise / math.sqrt(max(count, 1)) + relative * level
        return bool(count > 20 and abs(np.nanmedian(part)) > most)

    if far(rest, 3, 0.005):
        faults.append(f"level {np.nanmedian(rest):+.1f} of {level:.0f} with noise {noise:.1f}")
    tiles = [tile for rows in np.array_split(rest, 4) for tile in np.array_split(rows, 4, axis=1)]
    bad = [float(np.nanmedian(tile)) for tile in tiles if far(tile, 4, 0.01)]
    if bad:
        faults.append(f"{len(bad)} of 16 parts, by {max(bad, key=abs):+.1f}")
    scatter = np.nanmedian(np.abs(rest - np.nanmedian(rest)) / sigma) * 1.4826
    if not 0.75 < scatter < 1.25:
        faults.append(f"noise {scatter:.2f} of the stated {noise:.1f}")
    return faults


@dataclass
class Verdict:
    """What became of a night."""

    result: str
    """right, PARTIAL, REFUSED, BLOCKED, FAILED or WRONG."""

    why: list[str]


ORDER = ("right", "PARTIAL", "REFUSED", "BLOCKED", "FAILED", "WRONG")


def reduce_night(night: Night) -> Verdict:
    """Write and reduce a night, and compare its products with the truth."""
    night.folder.mkdir()
    with warnings.catch_warnings():
        # Odd cards are written as they are.
        warnings.simplefilter("ignore")
        for frame in night.frames:
            frame.write(night.folder)
    try:
        plan = build_plan(collect([night.folder]), Options(**night.options))
        run = Run(plan, night.folder.parent / "out")
        run()
    except LazyCCDError as error:
        return Verdict("REFUSED", [str(error)])
    except Exception as error:  # any other error is a fault of the package
        return Verdict("WRONG", [f"{type(error).__name__}: {error}"])
    verdict = Verdict("right", [])
    outcomes = {outcome.name: outcome for outcome in run.outcomes if outcome.kind == "science"}
    for outcome in outcomes.values():
        worsen(verdict, *judge(night, run, outcome))
    names = {frame.name: frame for frame in night.frames}
    for item in plan.frames:
        if item.refused:
            worsen(verdict, "REFUSED", f"{item.name}: {item.refused}")
        elif item.listed and names[item.name].kind == "light":
            worsen(verdict, "REFUSED", f"{item.name} listed: {item.listed}")
    known = {item.name for item in plan.frames}
    for skipped in plan.skipped:
        worsen(verdict, "REFUSED", f"{skipped.name}: {skipped.reason}")
        known.add(skipped.name.partition("[")[0])
    for name in set(names) - known:
        worsen(verdict, "WRONG", f"{name} vanished")
    if run.exit_status == 0 and verdict.result in {"PARTIAL", "BLOCKED", "FAILED"}:
        worsen(verdict, "WRONG", f"exit status 0 though {verdict.result}")
    return verdict


def worsen(verdict: Verdict, result: str, why: str) -> None:
    """Add a result; the worst counts."""
    verdict.result = max(verdict.result, result, key=ORDER.index)
    if why:
        verdict.why.append(f"{result}: {why}")


def judge(night: Night, run: Run, outcome: Outcome) -> tuple[str, str]:
    """Return what became of one product, and why."""
    if outcome.status != "DONE":
        return (outcome.status, outcome.reason) if outcome.reason else ("WRONG", f"{outcome.status} without a reason")
    frame = next(frame for frame in night.frames if frame.name == outcome.name)
    # The runner keeps measured gains in its plan.
    fact = run.plan.frame(outcome.name).facts.gain
    faults = product_faults(outcome.path, frame, fact.value if fact.source.startswith("measured") else None)
    return ("WRONG", f"{outcome.name}: {'; '.join(faults)}") if faults else ("right", "")


class Draw(NamedTuple):
    """One drawn night."""

    number: int
    kinds: tuple[Corruption, ...]
    touched: list[str]
    verdict: Verdict

    @property
    def is_bad(self) -> bool:
        """Whether it is wrong, or harmless and not right."""
        return self.verdict.result == "WRONG" or (
            all(k.is_harmless for k in self.kinds) and self.verdict.result != "right"
        )


def draw(number: int, seed: int) -> Draw:
    """Corrupt and reduce the night of a number: all kinds in turn, every third time with a second one that is drawn."""
    rng = np.random.default_rng((seed, number))
    chosen = [KINDS[number % len(KINDS)]] if KINDS else []
    # The round counts too, or a third of the kinds would only come in pairs.
    if (number + number // len(KINDS)) % 3 == 2:
        # Another kind: a harmless one twice may be none, as types that move to a keyword which then moves on.
        step = 1 + int(rng.integers(len(KINDS) - 1))
        chosen.append(KINDS[(number + step) % len(KINDS)])
    with tempfile.TemporaryDirectory() as name:
        night = make_night(int(rng.integers(2**31)), Path(name) / "night")
        night.rng = rng
        for each in chosen:
            each.apply(night)
        verdict = reduce_night(night)
        verdict.why = [why.replace(name, "") for why in verdict.why]
    return Draw(number, tuple(chosen), night.touched, verdict)


def table(draws: list[Draw]) -> str:
    """Return a line for each kind of corruption, and one for all draws."""
    columns = ("drawn", *ORDER)
    lines = ["WRONG is wrong and DONE", f"{'kind of corruption':<58}" + "".join(f"{name:>9}" for name in columns)]

    def line(name: str, some: list[Draw]) -> str:
        counts = Counter(each.verdict.result for each in some)
        return f"{name:<58}" + "".join(f"{count:>9}" for count in (len(some), *(counts[result] for result in ORDER)))

    for each in KINDS:
        mark = " (harmless)" if each.is_harmless else ""
        lines.append(line(each.name + mark, [one for one in draws if one.kinds[0] is each and len(one.kinds) == 1]))
    lines.append(line("pairs of these", [one for one in draws if len(one.kinds) > 1]))
    lines.append(line("all", draws))
    return "\n".join(lines)


def main() -> None:
    """Draw, print the table, and what is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, default=[], action="append", help="number of a draw")
    parser.add_argument("--verbose", action="store_true", help="print every draw")
    args = parser.parse_args()
    draws = []
    for number in args.only or range(args.draws):
        one = draw(number, args.seed)
        draws.append(one)
        if args.verbose or one.is_bad:
            print(f"{number} {' + '.join(k.name for k in one.kinds)}: {one.verdict.result}", flush=True)
            for text in (*one.touched, *one.verdict.why):
                print(f"    {text[:400]}", flush=True)
    print(table(draws))
    bad = [one.number for one in draws if one.is_bad]
    print(json.dumps({"draws": len(draws), "bad": bad}))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
