"""The table of a night: written, read, edited, and run as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy.table import Table

from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.options import Options
from lazyccd.batch.table import load_table, save_table
from lazyccd.errors import FormatError, MissingFileError, ParameterError, TargetExistsError

BIAS = {"IMAGETYP": "BIAS", "EXPTIME": 0.0}
FILES: dict[str, dict[str, Any]] = {
    "b1": BIAS,
    "b2": BIAS,
    "b3": BIAS,
    "d": {"IMAGETYP": "DARK", "EXPTIME": 300.0},
    "f": {"IMAGETYP": "FLAT", "FILTER": "r", "EXPTIME": 3.0},
    "odd": {"IMAGETYP": "XYZ"},
    "old": {"IMAGETYP": "LIGHT", "FILTER": "r", "RLEVEL": 91},
    "s1": {"IMAGETYP": "LIGHT", "FILTER": "r", "BIASSEC": "[1:99,1:1]"},
    "s2": {"IMAGETYP": "LIGHT", "FILTER": "g"},
}

Edit = Callable[[Table], None]


@pytest.fixture
def plan(plan_night: Any) -> NightPlan:
    """Return the plan of a night that has everything, with a file that cannot be read."""
    plan_night(FILES)
    plan: NightPlan = plan_night({})
    return plan


@pytest.fixture
def edited(plan: NightPlan, tmp_path: Path) -> Callable[..., NightPlan]:
    """Return a function that writes the table, sets cells, and reads it back."""

    def edit(cells: dict[tuple[str, str], str], options: Options | None = None) -> NightPlan:
        path = tmp_path / "night.ecsv"
        save_table(plan, path, overwrite=True)
        table = Table.read(path, format="ascii.ecsv", fill_values=None)
        rows = {
            name: {column: str(row[column]) for column in table.colnames}
            for name, row in zip(table["file"], table, strict=True)
        }
        for (name, column), value in cells.items():
            if column == "":
                del rows[f"{name}.fits"]
            else:
                rows[f"{name}.fits"][column] = value
        changed = Table(rows=list(rows.values()), names=table.colnames, dtype=[str] * len(table.colnames))
        changed.meta = table.meta
        changed.write(path, format="ascii.ecsv", overwrite=True)
        return load_table(path, options)

    return edit


def test_unedited_table_is_the_plan(plan: NightPlan, tmp_path: Path) -> None:
    """What is read is what was written, reasons and sources included."""
    save_table(plan, tmp_path / "night.ecsv")
    assert load_table(tmp_path / "night.ecsv") == plan
    with pytest.raises(TargetExistsError, match="exists"):
        save_table(plan, tmp_path / "night.ecsv")


def test_table_remembers_options_and_unusable_files(plan_night: Any, tmp_path: Path) -> None:
    """Options and files that cannot be read come back; options given now go before the table's."""
    plan_night(FILES)
    (tmp_path / "night" / "broken.fits").write_text("no FITS")
    plan = plan_night({}, gain="3.0", allow_missing=("flat",))
    save_table(plan, tmp_path / "night.ecsv")
    assert load_table(tmp_path / "night.ecsv") == plan
    table = Table.read(tmp_path / "night.ecsv", format="ascii.ecsv")
    assert list(table["file"])[-1] == "broken.fits"
    again = load_table(tmp_path / "night.ecsv", Options(gain="4.0"))
    assert again.frame("s1.fits").facts.gain.value == 4.0
    assert again.options.allow_missing == ("flat",)


def test_edited_facts(edited: Callable[..., NightPlan]) -> None:
    """An edited fact has the table as its source; the others keep theirs."""
    changed = edited({("s2", "filter"): "r", ("s2", "gain"): "2.5", ("s2", "trim"): "[1:8,1:8]"}).frame("s2.fits").facts
    assert (changed.gain.value, changed.gain.source) == (2.5, "night.ecsv")
    assert (changed.trim.value, changed.trim.source) == ("[1:8,1:8]", "night.ecsv")
    assert (changed.filter.value, changed.filter.source) == ("r", "night.ecsv")
    assert changed.readnoise.source == "keyword RDNOISE"


def test_edited_type(edited: Callable[..., NightPlan]) -> None:
    """An unknown frame that is given a type is reduced, with the masters of its row and those that it matches."""
    plan = edited({("odd", "type"): "science", ("odd", "bias"): "bias_2024-03-01"})
    frame_plan = plan.frame("odd.fits")
    assert (frame_plan.kind, frame_plan.facts.type.source, frame_plan.is_reduced) == ("science", "night.ecsv", True)
    assert (frame_plan.bias.master, frame_plan.flat.master) == ("bias_2024-03-01", "flat_r_2024-03-01")
    with pytest.raises(ParameterError, match=r"odd\.fits: type 'sciense' must be one of bias, dark"):
        edited({("odd", "type"): "sciense"})


def test_edited_groups(edited: Callable[..., NightPlan]) -> None:
    """Members are what the group column says, and a new name makes a new group."""
    plan = edited({("b3", "group"): "mine", ("s1", "bias"): "mine", ("b1", "group"): ""})
    assert {group.name: group.members for group in plan.groups if group.kind == "bias"} == {
        "bias_2024-03-01": ("b2.fits",),
        "mine": ("b3.fits",),
    }
    assert (plan.frame("s1.fits").bias.master, plan.frame("s1.fits").bias.why) == ("mine", "as night.ecsv says")
    assert plan.frame("s2.fits").bias.master == "bias_2024-03-01"
    with pytest.raises(ParameterError, match=r"group 'mine' holds bias, dark frames"):
        edited({("b3", "group"): "mine", ("d", "group"): "mine"})


def test_edited_masters(edited: Callable[..., NightPlan], tmp_path: Path) -> None:
    """An emptied cell is a missing master; a path is a file; anything else is an error with the row."""
    plan = edited({("s1", "flat"): "", ("s2", "flat"): "flat_r_2024-03-01", ("s2", "bias"): "b1.fits"})
    assert plan.frame("s1.fits").status == "PARTIAL"
    assert plan.frame("s1.fits").reason.startswith(
        "no flat: as night.ecsv says; overscan: BIASSEC = '[1:99,1:1]' is no section"
    )
    assert plan.frame("s2.fits").flat.master == "flat_r_2024-03-01"
    assert plan.frame("s2.fits").bias.master == str(tmp_path / "night" / "b1.fits")
    assert plan.frame("s2.fits").bias.is_file
    with pytest.raises(ParameterError, match=r"s1\.fits: flat 'falt' is neither a group of the table .* nor a file"):
        edited({("s1", "flat"): "falt"})
    with pytest.raises(ParameterError, match="is a group of dark frames and must be one of flat frames"):
        edited({("s1", "flat"): "dark_300s_2024-03-01"})


def test_dark_without_bias_is_not_scaled(edited: Callable[..., NightPlan]) -> None:
    """A dark of another exposure needs a bias on both sides, also by hand."""
    scaled = edited({}).frame("s1.fits").dark
    assert scaled.scale == pytest.approx(0.2)
    with pytest.raises(ParameterError, match="must be scaled to 60 s, which needs a bias for both"):
        edited({("d", "bias"): "", ("f", "dark"): "", ("s1", "bias"): ""})
    with pytest.raises(ParameterError, match="contains the bias and must be used without one; empty one of both"):
        edited({("d", "bias"): ""})
    sure = {(name, "bias"): "" for name in ("d", "f", "s1", "s2")} | {("f", "dark"): "", ("s2", "dark"): ""}
    frame_plan = edited({**sure, ("s1", "exposure"): "300"}).frame("s1.fits")
    assert (frame_plan.dark.scale, frame_plan.contains_bias, frame_plan.lacks) == (1.0, True, ())


def test_left_out_and_forced(edited: Callable[..., NightPlan]) -> None:
    """LISTED or no row leaves a file out; COMPLETE reduces one that was processed."""
    plan = edited({("s1", "status"): "LISTED", ("s2", ""): "", ("old", "status"): "COMPLETE"})
    assert [item.name for item in plan.science] == ["old.fits"]
    assert plan.frame("s1.fits").reason == "left out by night.ecsv"
    assert "s2.fits" not in [item.name for item in plan.frames]
    with pytest.raises(ParameterError, match=r"s1\.fits: status 'yes' must be COMPLETE or LISTED"):
        edited({("s1", "status"): "yes"})


def test_bad_tables(tmp_path: Path) -> None:
    """A file that is no table of a night is refused."""
    with pytest.raises(MissingFileError, match="does not exist"):
        load_table(tmp_path / "night.ecsv")
    (tmp_path / "night.ecsv").write_text("file,type\na,b\n")
    with pytest.raises(FormatError, match="is not ECSV"):
        load_table(tmp_path / "night.ecsv")
    Table({"file": ["a.fits"]}).write(tmp_path / "other.ecsv", format="ascii.ecsv")
    with pytest.raises(FormatError, match="lacks column 'type'"):
        load_table(tmp_path / "other.ecsv")


def test_what_was_not_edited_follows_what_was(edited: Callable[..., NightPlan]) -> None:
    """A dark that is made a bias joins the biases, and a flat of another filter is the flat of other frames."""
    plan = edited({("d", "type"): "bias", ("f", "filter"): "g"})
    assert plan.frame("d.fits").group == plan.frame("b1.fits").group
    assert not plan.frame("s1.fits").flat
    assert plan.frame("s2.fits").flat.master == plan.frame("f.fits").group == "flat_g_2024-03-01"


def test_an_edited_cell_stays_though_others_follow(edited: Callable[..., NightPlan]) -> None:
    """A master that was emptied by hand stays empty when types change."""
    plan = edited({("odd", "type"): "bias", ("s1", "flat"): ""})
    assert plan.frame("odd.fits").group == plan.frame("b1.fits").group
    assert not plan.frame("s1.fits").flat


def test_a_proposed_type_is_confirmed_by_a_table(plan_night: Any, tmp_path: Path) -> None:
    """A type from a name makes a product doubtful until a table has it."""
    plan = plan_night({"bias_1": {}, "s": {"IMAGETYP": "LIGHT"}}, allow_missing=("dark", "flat"))
    assert (plan.frame("s.fits").bias.master, plan.exit_status) == ("bias_2024-03-01", 3)
    save_table(plan, tmp_path / "night.ecsv")
    confirmed = load_table(tmp_path / "night.ecsv")
    assert (confirmed.frame("bias_1.fits").facts.type.source, confirmed.exit_status) == ("night.ecsv", 0)
