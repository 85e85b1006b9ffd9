"""The notebooks run from top to bottom."""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    """The folder has notebooks to run."""
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, tmp_path: Path) -> None:
    """Every code cell runs, in order, in an empty folder."""
    mpl.use("Agg")
    cells = json.loads(path.read_text())["cells"]
    names: dict[str, object] = {}
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for cell in cells:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{path.name}[{cell['id']}]", "exec"), names)
    finally:
        os.chdir(here)
        plt.close("all")
