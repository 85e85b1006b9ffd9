"""Decisions of a reduction as functions of values, and what a user is told of them as data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from lazyccd.batch.cosmic_rays import FlaggedStars, choose_objlim, is_more_than_chance
from lazyccd.batch.exposures import merge_doubts, merge_messages
from lazyccd.batch.make_masters import describe_combination, missing_images, why_flat_is_excluded
from lazyccd.batch.measure import Measurement, choose_gain
from lazyccd.batch.metadata import Fact, Facts
from lazyccd.batch.night_plan import Doubt, NightPlan
from lazyccd.batch.outcome import Outcome

PlanNight = Callable[..., NightPlan]


@pytest.fixture
def facts(plan_night: PlanNight) -> Facts:
    """Return facts of a flat: 2 e-/adu, 5 e- of read noise, saturated at 60000 adu."""
    plan = plan_night({"flat": {"IMAGETYP": "flat", "SATURATE": 60000.0}})
    return plan.frames[0].facts


@pytest.mark.parametrize(
    ("value", "missing", "reason"),
    [
        (20000.0, [], ""),
        (95999.0, [], ""),
        (96001.0, [], "level 48000 adu is above 80% of saturation (60000 adu)"),
        (20000.0, ["SCI_2"], "its file has no SCI_2, so its level is not that of the others"),
        (0.0, [], "its level is 0"),
        (-3.0, [], "its level is -3"),
        (math.nan, [], "it has no good pixel: all are saturated, bad or constant"),
        (925.0, [], ""),
        (900.0, [], "signal-to-noise 29.6 per pixel is below 30"),
    ],
)
def test_why_a_flat_is_excluded(facts: Facts, value: float, missing: list[str], reason: str) -> None:
    """Too bright, too faint, without a level, or of a file that lacks an image."""
    assert why_flat_is_excluded(value, facts, missing) == reason


def test_flats_without_facts(facts: Facts) -> None:
    """Levels are adu where the gain is not known; no saturation excludes nothing, no read noise is none."""
    for name in ("gain", "readnoise", "saturate"):
        facts = facts.with_fact(name, Fact(None, "nobody"))
    assert why_flat_is_excluded(1e9, facts, []) == ""
    assert why_flat_is_excluded(901.0, facts, []) == ""
    assert "below 30" in why_flat_is_excluded(899.0, facts, [])


def test_no_image_is_missing_from_a_file_of_one(plan_night: PlanNight) -> None:
    """Only files of several images can lack one."""
    plan = plan_night({"flat": {"IMAGETYP": "flat"}})
    assert missing_images(plan, plan.frames[0]) == []


@pytest.mark.parametrize(
    ("count", "text"), [(1, "median of 1"), (9, "median of 9"), (10, "mean, clipped at 5 robust sigma of 10")]
)
def test_how_frames_are_combined(count: int, text: str) -> None:
    """Fewer than ten by their median."""
    assert describe_combination(count) == text


@pytest.mark.parametrize(("fwhm", "objlim"), [(2.49, 10.0), (2.5, 5.0), (4.0, 5.0), (math.nan, 5.0)])
def test_contrast_of_cosmic_rays(fwhm: float, objlim: float) -> None:
    """Narrow stars need a higher one; where no width is known, the usual."""
    assert choose_objlim(fwhm) == objlim


def test_flagged_stars() -> None:
    """The doubt names the numbers and the way out, and is part of the message."""
    assert not is_more_than_chance(2, 34)
    assert is_more_than_chance(3, 34)
    assert FlaggedStars(0.001, 2, 34).doubt is None
    found = FlaggedStars(0.001, 6, 266)
    text = "6 of 266 stars flagged at their peak: WARNING, more than 1%"
    assert found.doubt == Doubt(
        "cosmic rays", text, "--cosmic-rays none leaves them alone, fill replaces them whatever this says"
    )
    assert str(found) == f"cosmic rays: 0.100% of the pixels; {text}; {found.doubt.way_out}"


@pytest.mark.parametrize(
    ("found", "stated", "measured", "gain"),
    [
        (1.2, 1.0, False, 1.0),
        (1.2, 1.0, True, 1.2),
        (1.2, None, False, 1.2),
        (math.nan, 1.0, True, 1.0),
        (math.nan, None, True, None),
    ],
)
def test_gain_of_the_read_noise(found: float, stated: float | None, measured: bool, gain: float | None) -> None:
    """The measured gain counts where it is used, which is where nothing is stated or it was asked for."""
    assert choose_gain(found, stated, measured=measured) == gain


def test_measured_against_stated() -> None:
    """A difference above 15 % is a doubt, unless the measured value is used."""
    stated = Fact(1.0, "keyword GAIN")
    near = Measurement("gain", 1.1, "flat_R", stated, used=False)
    assert near.doubt is None
    assert str(near) == "gain: measured 1.1 e-/adu from pairs of flat_R, stated 1 e-/adu (keyword GAIN)"
    far = replace(near, value=1.2)
    assert far.doubt == Doubt("measured", "they differ by 20%", "--gain measured or --gain stated chooses")
    assert str(far).endswith("; they differ by 20%; --gain measured or --gain stated chooses")
    assert replace(far, used=True).doubt is None
    above = Measurement("readnoise", 9.0, "dark", Fact(5.0, "keyword RDNOISE"), used=False, is_limit=True)
    below = Measurement("readnoise", 3.0, "dark", Fact(5.0, "keyword RDNOISE"), used=False, is_limit=True)
    assert above.doubt is None
    assert below.doubt is not None
    nothing = Measurement("readnoise", 5.0, "bias", Fact(None, "no keyword"), used=True)
    assert str(nothing) == "readnoise: measured 5 e- from pairs of bias, stated nothing; the measured one is used"


def test_doubts_of_several_images() -> None:
    """What all images have in common is said once; the kind and the way out stay."""
    one, other = Doubt("missing", "no flat: none given"), Doubt("missing", "no bias: none given", "give one")
    merged = merge_doubts({"SCI_1": [one, other], "SCI_2": [one]})
    assert merged == (one, Doubt("missing", "SCI_1: no bias: none given", "give one"))
    assert merge_messages({"SCI_1": map(str, [one, other]), "SCI_2": [str(one)]}) == tuple(map(str, merged))


def test_doubts_of_a_frame(plan_night: PlanNight) -> None:
    """Each has its kind: what is missing is known without reading the text."""
    plan = plan_night({"light": {"IMAGETYP": "light"}, "arc": {"IMAGETYP": "arc"}})
    kinds = {item.name: [doubt.kind for doubt in item.doubts] for item in plan.frames}
    assert kinds == {"light.fits": ["missing"] * 3, "arc.fits": ["listed"]}
    assert plan.frame("light.fits").reasons == tuple(map(str, plan.frame("light.fits").doubts))


def test_outcomes_go_through_a_journal() -> None:
    """Doubts come back as they were; those that lower the status are its reason, that of cosmic rays too."""
    doubts = (Doubt("missing", "no flat", "give one"), Doubt("cosmic rays", "6 of 266 stars flagged"))
    outcome = Outcome("a.fits", "science", "PARTIAL", doubts, noise_before=1.5)
    assert outcome.reason == "no flat; give one; 6 of 266 stars flagged"
    record = json.loads(json.dumps(asdict(outcome)))
    record = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    again = Outcome.from_record(record)
    assert math.isnan(again.noise_after)
    known = {"noise_after": 0.0, "level": 0.0, "noise_expected": 0.0, "bad": 0.0}
    assert replace(again, **known) == replace(outcome, **known)
