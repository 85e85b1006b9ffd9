"""The walks that docs/architecture.md draws enter no more files than it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import walks

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"

ENDS = {
    "open_fits to a store": {"io/fits/open.py", "plan/steps.py", "io/zarr/writer.py"},
    "combine to its pixels": {"ops/stack/combine.py", "ops/stack/rejection.py", "kernels/stack/sigma_clip.py"},
    "lazyccd reduce to a product": {
        "cli/reduce.py",
        "batch/run.py",
        "kernels/cosmic_rays/lacosmic.py",
        "io/fits/writer.py",
    },
}
"""Files that each walk passes through; a walk that misses one ended early."""


def stated() -> dict[str, int]:
    """Return the most files that the page says of each walk."""
    rows = re.findall(r"^\| `?(.+?)`? \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name.replace("`", ""): int(number) for name, number in rows}


def test_every_walk_is_stated() -> None:
    """The page has a number for each walk and for nothing else."""
    assert set(stated()) == set(walks.WALKS)


@pytest.mark.parametrize("name", walks.WALKS)
def test_a_walk_enters_few_files(name: str) -> None:
    """Whoever follows a call enters at most so many files; lower the number when a walk becomes shorter."""
    files = walks.files_of(walks.WALKS[name])
    assert set(files) >= ENDS[name]
    assert len(files) <= stated()[name], "\n".join(files)


def test_what_counts() -> None:
    """A file counts if a function of it is called; the body of a module, which runs at its import, does not count."""
    for code, files in {"1 + 1": set(), "def f(): pass\nf()": {"nowhere.py"}}.items():
        with walks.entering() as entered:
            exec(compile(code, str(walks.PACKAGE / "nowhere.py"), "exec"), {})
        assert entered == files
