"""Values of headers: what is understood, what is missing, what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lazyccd.batch.metadata import read_gain
from lazyccd.frame import header_values
from lazyccd.frame.header_values import UnusableError


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        (2, "", 2.0),
        (1.5, "gain", 1.5),
        ("1.5", "gain", 1.5),
        ("1,45", "gain", 1.45),
        ("[2.01]", "gain", 2.01),
        ("1.1 electron/adu", "gain", 1.1),
        ("1.1 electron / adu", "gain", 1.1),
        ("1,1 electron / adu", "gain", 1.1),
        ("11.4 electron", "readnoise", 11.4),
        ("11.4 e-", "readnoise", 11.4),
        ("65535 adu", "saturate", 65535.0),
        ("3.3D1", "", 33.0),
        ("UNKNOWN", "gain", None),
        (" n/a ", "gain", None),
        ("", "gain", None),
        ("[1.5,]", "gain", 1.5),
        (None, "gain", None),
    ],
)
def test_numbers(value: Any, name: str, expected: float | None) -> None:
    """Numbers are read with decimal commas and their own unit; 'UNKNOWN' means missing."""
    assert header_values.read_number(value, name) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[2.01, 1.99, 2.05, 2.02]", "lists 4 values, one per amplifier"),
        ("[3.3,3.4,3.3,3.4]", "lists 4 values"),
        ("3.3,3.4", "lists 2 values"),
        ("3,3;3,4", "lists 2 values"),
        ("3 3.5 4 ", "lists 3 values"),
        ("[3,4]", "lists 2 values"),
        ("1.5 +/- 0.1", "must be in electron/adu"),
        ("1.5 e-/adu 1.6 e-/adu", "must be in electron/adu"),
        ("high", "is not a number"),
        (True, "is not a number"),
        (float("inf"), "is not finite"),
        (0.0, "is not above 0"),
        (-1, "is not above 0"),
        ("0.9 adu/electron", "is in 'adu/electron' and must be in electron/adu"),
    ],
)
def test_unusable_gains(value: Any, message: str) -> None:
    """A gain that cannot be used is refused with the reason."""
    with pytest.raises(UnusableError, match=message):
        header_values.read_positive(value, "gain")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-03-01T12:00:00", 60370.5),
        ("2024-03-01T12:00:00Z", 60370.5),
        ("2024-03-01, 12:00:00", 60370.5),
        ("2024-03-01, 43200.0", 60370.5),
        ("01/03/98, 12:00", 50873.5),
        (60370.5, 60370.5),
        (2460371.0, 60370.5),
        ("2024-03-01 12:00:00", 60370.5),
        ("2024-03-01 12:00:00.000", 60370.5),
        ("2024-03-01T14:00:00+02:00", 60370.5),
        ("2024-03-01T07:00:00-0500", 60370.5),
        ("2024-03-01T12:00:00 UTC", 60370.5),
        ("2024-03-01, 12:00:00 UT", 60370.5),
        ("2024/03/01 12:00:00", 60370.5),
        ("2024.03.01 12:00", 60370.5),
        ("UNKNOWN", None),
    ],
)
def test_times(value: Any, expected: float | None) -> None:
    """Times are read from ISO, two keywords, the old date format, MJD and JD."""
    assert header_values.read_time(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-01",
        "yesterday, 12:00",
        "2024-03-01T1:2:3:4",
        "10/03/2024 20:00:00",
        "10-03-2024T20:00:00",
        "10.03.2024, 20:00:00",
        "2024-02-30T20:00:00",
        "2024-13-01 20:00:00",
        "2024-03-01T25:00:00",
        "2024-03-01, 86401",
        0.0,
        -1,
    ],
)
def test_unusable_times(value: Any) -> None:
    """A date without a time of day, with the year last, or that no calendar has, is no time."""
    with pytest.raises(UnusableError):
        header_values.read_time(value)


def test_time_and_text_agree() -> None:
    """A time is shown to the second as it was written."""
    moment = header_values.read_time("2022-01-28T08:43:07.204")
    assert moment is not None
    assert header_values.time_to_text(moment) == "2022-01-28 08:43:07"


@pytest.mark.parametrize(
    ("value", "comment", "expected"),
    [
        (5000, "[ms] exposure time", 5.0),
        (5000, "exposure time in milliseconds", 5.0),
        (5000.0, "Exposure (msec)", 5.0),
        ("5000 ms", "", 5.0),
        (5000, "exposure time, milli-seconds", 5.0),
        (5.0, "[s] exposure time", 5.0),
        (5.0, "exposure of items", 5.0),
        ("5 s", "", 5.0),
        ("UNKNOWN", "ms", None),
    ],
)
def test_exposures(value: Any, comment: str, expected: float | None) -> None:
    """An exposure is in seconds, and in milliseconds where its value or comment says so."""
    assert header_values.read_exposure(value, comment) == expected


@pytest.mark.parametrize(
    ("value", "comment", "expected"),
    [
        (0.5, "[ADU/e-]", 2.0),
        (0.5, "gain, ADU per electron", 2.0),
        ("0.5 adu/e-", "", 2.0),
        (0.25, "counts / electrons", 4.0),
        (0.5, "[e-/ADU]", 0.5),
        (0.5, "electrons per adu, each amplifier", 0.5),
        (0.5, "of adu/exposure", 0.5),
        ("2.0 e-/ADU", "", 2.0),
    ],
)
def test_gains(value: Any, comment: str, expected: float) -> None:
    """A gain is in electrons per adu, and is turned round where its value or comment says that it is the inverse."""
    assert read_gain(value, comment, 65535) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("2 2", "2x2"), ("1,2", "1x2"), ("2x2", "2x2"), (2, "2x2"), ("2.0, 2.0", "2x2")]
)
def test_binning(value: Any, expected: str) -> None:
    """Binning has one form, x before y."""
    assert header_values.read_binning(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("[555:1520,1:4200], enabled", "555,1"), ("[1025:3072, 1:2]", "1025,1"), ("0, 0", "0,0")]
)
def test_origin(value: Any, expected: str) -> None:
    """The origin of a window is read from sections and from two numbers."""
    assert header_values.read_origin(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ADU", "adu"),
        ("Counts", "ct"),
        ("dn", "DN"),
        ("E-", "electron"),
        ("electrons", "electron"),
        ("e-/s", "electron / s"),
    ],
)
def test_units(value: str, expected: str) -> None:
    """Units have many spellings, and ct, DN and adu stay what they are."""
    assert header_values.read_unit(value) == expected
    with pytest.raises(UnusableError, match="no known unit"):
        header_values.read_unit("bananas")
