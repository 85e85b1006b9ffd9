"""Small nights of files with little but a header."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits

from lazyccd.batch.collect import RawFrame, collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options

Cards = dict[str, Any]
MakeFrame = Callable[..., RawFrame]
MakeNight = Callable[[dict[str, Cards]], Path]
PlanNight = Callable[..., NightPlan]

USUAL: Cards = {"INSTRUME": "CAM", "GAIN": 2.0, "RDNOISE": 5.0, "DATE-OBS": "2024-03-01T20:00:00", "EXPTIME": 60.0}
"""Cards of every file, unless it says otherwise; None takes one away."""


def write(path: Path, cards: Cards, shape: tuple[int, int] = (8, 10), dtype: str = "uint16") -> Path:
    """Write one file."""
    header = fits.Header()
    for key, value in {**USUAL, **cards}.items():
        if value is not None:
            header[key if len(key) <= 8 else f"HIERARCH {key}"] = value
    fits.PrimaryHDU(np.zeros(shape, dtype), header).writeto(path)
    return path


@pytest.fixture(autouse=True, scope="module")
def _pictures_without_ticks() -> Iterator[None]:
    """Draw pictures of products without ticks: these are up to a third of the time of a small night."""
    with mpl.rc_context(dict.fromkeys(("xtick.bottom", "xtick.labelbottom", "ytick.left", "ytick.labelleft"), False)):
        yield


@pytest.fixture
def make_night(tmp_path: Path) -> MakeNight:
    """Return a function that writes a folder of files; the key SHAPE is the shape, DTYPE the dtype."""

    def make(files: dict[str, Cards]) -> Path:
        folder = tmp_path / "night"
        folder.mkdir(exist_ok=True)
        for name, cards in files.items():
            cards = dict(cards)
            write(folder / f"{name}.fits", cards, cards.pop("SHAPE", (8, 10)), cards.pop("DTYPE", "uint16"))
        return folder

    return make


@pytest.fixture
def make_frame(make_night: MakeNight) -> MakeFrame:
    """Return a function that gives one file as it is collected."""

    def make(**cards: Any) -> RawFrame:
        return collect(make_night({"one": cards})).frames[0]

    return make


@pytest.fixture
def plan_night(make_night: MakeNight) -> PlanNight:
    """Return a function that plans a night of some files."""

    def plan(files: dict[str, Cards], **options: Any) -> NightPlan:
        return build_plan(collect(make_night(files)), Options(**options))

    return plan
