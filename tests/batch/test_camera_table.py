"""`lazyccd camera` writes a table that loads and changes nothing, and that says what is doubtful."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from lazyccd.batch.camera_table import dark_strips
from lazyccd.batch.cameras import FACTS
from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.cli.main import main
from tests.batch.test_cameras_of_strangers import amateur, four_taps, old


def doubtful(night: Path) -> None:
    """Write a night of unknown words, a filter under a name of its own, milliseconds, two cards of one keyword."""
    night.mkdir()
    usual: dict[str, Any] = {"INSTRUME": "ODD [1]", "GAIN": 360, "DATE-OBS": "2024-03-01T20:00:00", "RDNOISE": 5.0}
    frames = [
        ("a1", {"IMAGETYP": "WHITE", "EXPMS": 4000.0, "XFILTNM": "V"}),
        ("a2", {"IMAGETYP": "DRAK", "EXPMS": 60000.0}),
        ("a3", {"IMAGETYP": "Light", "EXPMS": 60000.0, "XFILTNM": "V", "SET-TEMP": -20.0}),
    ]
    for name, cards in frames:
        header = fits.Header([*usual.items(), *cards.items()])
        if name == "a3":
            header.append(("SET-TEMP", -10.0), bottom=True)
        fits.writeto(night / f"{name}.fits", np.full((16, 20), 1000, "u2"), header)


def wheels(night: Path) -> None:
    """Write a night with two wheels, of which one or the other is clear, and a flat with a dark strip."""
    night.mkdir()
    for number, (one, two) in enumerate([("R", "CLEAR"), ("CLEAR", "V"), ("CLEAR", "CLEAR")]):
        for kind in ("Flat", "Light"):
            cards = {"IMAGETYP": kind, "EXPTIME": 5.0, "FILTER1": one, "FILTER2": two, "GAIN": 2.0, "RDNOISE": 5.0}
            pixels = np.hstack([np.full((20, 30), 20000), np.full((20, 10), 400)]).astype("u2")
            fits.writeto(night / f"{kind}{number}.fits", pixels, fits.Header(cards))


def camera(night: Path) -> tuple[str, str]:
    """Run ``lazyccd camera``; return the table and what is printed."""
    out = night.parent / "my.toml"
    result = CliRunner().invoke(main, ["camera", str(night), "-r", "-o", str(out)])
    assert result.exit_code == 0, result.output
    return out.read_text(encoding="utf-8"), result.output


def decisions(plan: NightPlan) -> list[Any]:
    """Return what a plan decided: facts, groups, masters and status of each image."""
    rows: list[Any] = []
    for item in plan.frames:
        facts = [item.facts.get(name).value for name in FACTS]
        rows.append((item.name, facts, item.group, [choice.master for choice in item.choices], item.status))
    return [*rows, plan.groups and [(group.name, group.members) for group in plan.groups], plan.exit_status]


@pytest.mark.parametrize("simulate", [amateur, four_taps, old, doubtful, wheels], ids=lambda make: make.__name__)
def test_table_changes_nothing(tmp_path: Path, simulate: Callable[[Path], None]) -> None:
    """The plan by the table is the plan without it."""
    night = tmp_path / "night"
    simulate(night)
    text, _ = camera(night)
    assert tomllib.loads(text)["keys"]
    collection = collect(str(night), recursive=True)
    plain, stated = (build_plan(collection, Options(camera=name)) for name in ("", str(tmp_path / "my.toml")))
    assert decisions(stated) == decisions(plain)


def test_doubts_are_in_the_table(tmp_path: Path) -> None:
    """Unknown words, guessed keywords, settings and doubled cards are told."""
    doubtful(tmp_path / "night")
    text, printed = camera(tmp_path / "night")
    assert tomllib.loads(text)["types"] == {"WHITE": "unknown", "DRAK": "unknown"}
    assert "FILL IN: the nearest is 'DARK', dark" in text
    assert 'exposure = "EXPMS [ms]"' in text
    assert 'filter = "XFILTNM"' in text
    assert "taken from XFILTNM for its name" in text
    assert "DOUBT, the header has SET-TEMP 2 times" in text
    assert 'gain_setting = "GAIN"' in text
    assert "GAIN = 360" in text
    assert "2 unknown words" in printed


def test_filled_in(tmp_path: Path) -> None:
    """A table that was filled in decides the types."""
    doubtful(tmp_path / "night")
    text, _ = camera(tmp_path / "night")
    (tmp_path / "my.toml").write_text(text.replace('"WHITE" = "unknown"', '"WHITE" = "flat"'), encoding="utf-8")
    plan = build_plan(collect(str(tmp_path / "night")), Options(camera=str(tmp_path / "my.toml")))
    assert plan.frame("a1.fits").kind == "flat"


def test_proposals_can_be_confirmed(tmp_path: Path) -> None:
    """Types that names propose are lines in comments; without the ``#`` they are stated, and no doubt is left."""
    old(tmp_path / "night")
    text, _ = camera(tmp_path / "night")
    head, types = text.split("[types]")
    first, *rest = types.splitlines()
    lines = [line.removeprefix("# ").replace('"unknown"', '"science"') for line in rest]
    (tmp_path / "my.toml").write_text("\n".join([f"{head}[types]{first}", *lines]), encoding="utf-8")
    plan = build_plan(collect(str(tmp_path / "night"), recursive=True), Options(camera=str(tmp_path / "my.toml")))
    assert {item.kind for item in plan.frames} == {"bias", "flat", "science"}
    assert not any("proposed" in doubt for item in plan.frames for doubt in item.reasons)


@pytest.mark.parametrize("names", ["numbers", "letters"])
def test_proposals_decide_as_what_proposed_them(tmp_path: Path, names: str) -> None:
    """Where file names tell no type, OBJECT does; a pattern that names of other types fit is written out."""
    night = tmp_path / "night"
    night.mkdir()
    frames = [("bias", "bias", 0.0), ("flat R", "flat", 5.0), ("dark", "dark", 60.0), ("BD+17 1", "science", 60.0)]
    kinds = {}
    for number, (title, kind, exposure) in enumerate(frame for frame in frames for _ in range(2)):
        name = (
            f"r{number:03d}" if names == "numbers" else f"{'flat' if kind == 'flat' else title[:2].lower()}{number:03d}"
        )
        name += "_r" if kind == "science" else ""
        cards = {"INSTRUME": "OLD", "OBJECT": title, "EXPTIME": exposure, "GAIN": 2.0, "RDNOISE": 5.0, "FILTERS": "R"}
        fits.writeto(night / f"{name}.fits", np.full((16, 20), 1000, "u2"), fits.Header(cards))
        kinds[f"{name}.fits"] = kind
    text, _ = camera(night)
    head, types = text.split("[types]")
    (tmp_path / "my.toml").write_text(f"{head}[types]" + types.replace('# "*@', '"*@'), encoding="utf-8")
    plan = build_plan(collect(str(night)), Options(camera=str(tmp_path / "my.toml")))
    assert {item.name: item.kind for item in plan.frames} == kinds
    assert not any("proposed" in doubt for item in plan.frames for doubt in item.reasons)


def test_overscan_is_proposed(tmp_path: Path) -> None:
    """A strip of a flat that sees no light is proposed as overscan."""
    wheels(tmp_path / "night")
    text, _ = camera(tmp_path / "night")
    assert '# "overscan@NAXIS1=40,NAXIS2=20" = "[34:40,1:20]"' in text
    assert dark_strips(np.full((20, 20), 5000.0)) == []


def test_an_existing_table_is_kept(tmp_path: Path) -> None:
    """An existing table is replaced only if that is asked."""
    wheels(tmp_path / "night")
    camera(tmp_path / "night")
    words = ["camera", str(tmp_path / "night"), "-o", str(tmp_path / "my.toml")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert CliRunner().invoke(main, [*words, "--overwrite"]).exit_code == 0
