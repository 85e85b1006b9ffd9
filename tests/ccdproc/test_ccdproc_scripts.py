"""Scripts in the manner of public ones do the same with `lazyccd.ccdproc` as with ccdproc."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ccdproc.run_scripts import SCRIPTS, compare, compare_forked

USUAL = SCRIPTS[::6]
"""Scripts that run always; all of them take a minute of two processors."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what differs by script, on small frames."""
    return compare_forked(tmp_path_factory.mktemp("scripts"), 96, USUAL)


@pytest.mark.parametrize("script", USUAL)
def test_a_script_does_the_same(script: str, found: dict[str, list[str]]) -> None:
    """Files with their pixels, masks, units and headers, printed text, exceptions and warnings are ccdproc's."""
    assert found[script] == []


@pytest.mark.slow
def test_all_scripts_do_the_same(tmp_path: Path) -> None:
    """All of the scripts, on small frames."""
    assert compare_forked(tmp_path, 96, SCRIPTS) == {script: [] for script in SCRIPTS}


@pytest.mark.slow
def test_scripts_are_not_slower_in_sum(tmp_path: Path) -> None:
    """On frames of a usual size all scripts do the same, and take no longer together."""
    results = list(compare(tmp_path / "work", 1024, SCRIPTS))
    assert {name: lines for name, lines, _ in results if lines} == {}
    theirs, ours, *_ = (sum(seconds) for seconds in zip(*(seconds for *_, seconds in results), strict=True))
    assert ours <= theirs
