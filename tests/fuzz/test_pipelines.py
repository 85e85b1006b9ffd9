"""A few drawn pipelines; `pipelines` has as many as you ask for."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.pipelines import fuzz


def test_drawn_pipelines_have_the_bits_of_one_chunk(tmp_path: Path) -> None:
    """Whatever is drawn: the same bits, or an error that says what to do."""
    counts, broke = fuzz(30, 0, tmp_path)
    assert not broke, "\n".join(broke)
    assert counts["pipelines"] == 30
