"""Real nights: what is made of them, and what the dry run prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lazyccd.batch.collect import collect
from lazyccd.batch.make_plan import build_plan
from lazyccd.batch.night_plan import NightPlan
from lazyccd.batch.report import PlainConsole, print_plan
from lazyccd.batch.table import load_table, save_table

NIGHTS = ("efosc2_ntt", "isis_wht", "tres1_oscaar", "lco_sinistro_mef", "ccdproc")


def plan_of(shared_data: Path, name: str) -> NightPlan:
    """Plan one night."""
    return build_plan(collect(shared_data / name))


def test_efosc2(shared_data: Path) -> None:
    """Bias typed DARK, CONAD as gain, fixed read noise and sections; the spectrum gets no imaging flat."""
    plan = plan_of(shared_data, "efosc2_ntt")
    assert [group.name for group in plan.groups] == ["bias_2022-01-26", "skyflat_g-782_2022-01-27"]
    assert [len(group.members) for group in plan.groups] == [5, 3]
    *_, last = plan.frames
    facts = last.facts
    assert (facts.gain.value, facts.gain.source) == (1.1, "built-in efosc2: ESO DET OUT1 CONAD")
    assert (facts.readnoise.value, facts.saturate.value) == (11.4, 65535.0)
    assert (facts.overscan.value, facts.trim.value) == ("[2:1022,1026:1030]", "[2:1022,1:1016]")
    assert [item.status for item in plan.science] == ["PARTIAL", *["COMPLETE"] * 6]
    spectrum = plan.science[0]
    assert (spectrum.facts.mode.value, spectrum.missing) == ("spectrum", ("flat",))
    reason = dict(spectrum.flat.why_not)["skyflat_g-782_2022-01-27"]
    assert reason.startswith("mode 'image' is not 'spectrum'; filter 'g#782' is not 'Free'")
    assert (plan.pairs[0].zero, plan.pairs[0].flat) == ("bias_2022-01-26", "skyflat_g-782_2022-01-27")
    assert plan.exit_status == 3


def test_isis(shared_data: Path) -> None:
    """Keywords of two headers, spectra, overscan in rows, no flat."""
    plan = plan_of(shared_data, "isis_wht")
    assert [item.kind for item in plan.frames] == ["bias"] * 3 + ["science"] * 2
    for item in plan.science:
        facts = item.facts
        assert (facts.mode.value, facts.gain.value, facts.readnoise.value) == ("spectrum", 0.98, 4.0)
        assert (facts.overscan.value, facts.trim.value) == ("[1:966,4110:4190]", "[1:966,1:4096]")
        assert (item.bias.master, item.missing) == ("bias_2018-08-01", ("flat",))


def test_sbig(shared_data: Path) -> None:
    """Darks of equal exposure contain the bias; only the flat is missing, the read noise comes from pairs."""
    plan = plan_of(shared_data, "tres1_oscaar")
    assert len(plan.science) == 6
    for item in plan.science:
        assert (item.dark.master, item.dark.scale, item.contains_bias) == ("dark_60s_2012-06-16", 1.0, True)
        assert (item.status, item.missing, item.to_measure) == ("PARTIAL", ("flat",), ("readnoise",))


def test_sinistro(shared_data: Path) -> None:
    """A processed frame is refused, each amplifier is a frame with its own gain, a list of gains is missing by name."""
    plan = plan_of(shared_data, "lco_sinistro_mef")
    assert plan.frame("banzai_test_frame.fits.fz").status == "REFUSED"
    parts = [item for item in plan.frames if item.part]
    assert [item.name for item in parts] == [f"mef_raw_test_frame.fits[SCI,{i}]" for i in (1, 2, 3, 4)]
    assert [item.facts.gain.value for item in parts] == [6.42, 6.23, 6.27, 6.26]
    frame = plan.frame("cpt1m012-fl10-20151216-0073-e00.fits.fz")
    assert "lists 4 values" in frame.facts.gain.note
    assert "instrument 'fl08' is not 'fl10'" in dict(frame.bias.why_not)["bias_2015-12-16"]
    amplifier = build_plan(collect(f"{shared_data}/lco_sinistro_mef/mef_raw_test_frame.fits[SCI,2]")).frames[0]
    assert (amplifier.facts.gain.value, amplifier.facts.readnoise.value) == (6.23, 7.0)
    assert (amplifier.facts.overscan.value, amplifier.facts.trim.value) == ("[520:540,1:512]", "[1:512,1:512]")


@pytest.mark.parametrize("name", NIGHTS)
def test_table_of_real_nights(shared_data: Path, tmp_path: Path, name: str) -> None:
    """The unedited table of a real night gives its plan."""
    plan = plan_of(shared_data, name)
    save_table(plan, tmp_path / "night.ecsv")
    assert load_table(tmp_path / "night.ecsv") == plan


@pytest.mark.parametrize("name", NIGHTS)
@pytest.mark.parametrize("width", [80, 100, 160])
def test_printed(shared_data: Path, name: str, width: int) -> None:
    """The dry run fits into its width, names every file and fact, and ends with what to expect."""
    stream = io.StringIO()
    print_plan(plan_of(shared_data, name), PlainConsole(stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for word in ("gain", "readnoise", "saturate", "overscan", "source"):
        assert any(word in line for line in lines)
    assert lines[-1].startswith("Science frames: ")
    assert "\x1b" not in stream.getvalue()


def test_printed_reasons(shared_data: Path) -> None:
    """The dry run says why a frame is not complete, and why the masters that are there were not taken."""
    stream = io.StringIO()
    print_plan(plan_of(shared_data, "efosc2_ntt"), PlainConsole(stream, width=100))
    text = " ".join(stream.getvalue().split())
    assert "6 PARTIAL: no flat: skyflat_g-782_2022-01-27 does not match" in text
    assert "6 flat not skyflat_g-782_2022-01-27: mode 'image' is not 'spectrum'" in text
    assert "10-15 flat skyflat_g-782_2022-01-27: level 0, 3 frames, 4.7 h to 8.6 h away" in text
    assert "Exit status would be 3." in text
